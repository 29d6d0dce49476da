// Moves the lines of the isochrone in the figures of datared.widgets. Everything else, the axes and
// the stars, is drawn by Python.
(() => {
  "use strict";

  // Whole numbers from base64: seven bits to a byte, the sign in the last bit (see pack_grid).
  function unpack(text) {
    const bytes = atob(text);
    const numbers = [];
    for (let i = 0, value = 0, shift = 0; i < bytes.length; i++) {
      const byte = bytes.charCodeAt(i);
      value |= (byte & 127) << shift;
      shift += 7;
      if (byte > 127) continue;
      numbers.push(value & 1 ? -(value + 1) / 2 : value / 2);
      value = shift = 0;
    }
    return numbers;
  }

  // The models of one rotation: nodes(logAge, feh) gives what IsochroneGrid.nodes gives in Python.
  function readGrid(given, [perLogMass, perMagnitude, missing]) {
    const { ages, metallicities, phases } = given;
    const points = phases.length;
    const values = unpack(given.packed);
    for (let at = 0; at < values.length; at += points) {
      for (let i = at, last = 0, step = 0; i < at + points; i++) {
        step += values[i];
        values[i] = last += step;
      }
    }
    const models = metallicities.length * ages.length;
    const bands = values.length / (models * points) - 1;

    // [[index, weight], ...] of the one or two neighbours of x.
    function neighbours(axis, x) {
      x = Math.min(Math.max(x, axis[0]), axis[axis.length - 1]);
      let k = 0;
      while (k + 1 < axis.length && axis[k + 1] <= x) k++;
      if (x === axis[k]) return [[k, 1]];
      const weight = (x - axis[k]) / (axis[k + 1] - axis[k]);
      return [[k, 1 - weight], [k + 1, weight]];
    }

    // One quantity at all points: linear in log age and [Fe/H], NaN where a model has no such point.
    function blend(quantity, per, corners) {
      const out = new Float64Array(points);
      for (const [model, weight] of corners) {
        const at = (quantity * models + model) * points;
        for (let i = 0; i < points; i++) {
          const code = values[at + i];
          out[i] += code === missing ? NaN : (weight * code) / per;
        }
      }
      return out;
    }

    function nodes(logAge, metallicity) {
      const corners = [];
      for (const [j, w] of neighbours(metallicities, metallicity)) {
        for (const [k, v] of neighbours(ages, logAge)) corners.push([j * ages.length + k, w * v]);
      }
      const magnitudes = [];
      for (let b = 0; b < bands; b++) magnitudes.push(blend(b + 1, perMagnitude, corners));
      return { mass: blend(0, perLogMass, corners).map(Math.exp), magnitudes };
    }
    return { phases, nodes, rotation: given.rotation };
  }

  // The stars of one age in the order of their mass, as IsochroneGrid.at leaves out points.
  function track(grid, logAge, metallicity) {
    const { mass, magnitudes } = grid.nodes(logAge, metallicity);
    const first = mass.findIndex((m, i) => m === m && grid.phases[i] > 0);
    const used = [];
    mass.forEach((m, i) => {
      if (m === m && (grid.phases[i] > 0 || first < 0 || m < mass[first])) used.push(i);
    });
    let highest = 0;
    return {
      mass: used.map((i) => (highest = Math.max(highest, mass[i]))),
      phases: used.map((i) => grid.phases[i]),
      magnitudes: magnitudes.map((band) => used.map((i) => band[i])),
    };
  }

  // The light of a second star of ratio times the mass; none below the lowest mass.
  function addCompanion(stars, ratio) {
    const { mass } = stars;
    const light = (m) => 10 ** (-0.4 * m);
    return stars.magnitudes.map((band) =>
      band.map((m, i) => {
        const wanted = ratio * mass[i];
        let second = m;
        if (ratio < 1) {
          if (wanted < mass[0]) return m;
          let low = 0;
          let high = mass.length - 1;
          while (high - low > 1) {
            const middle = (low + high) >> 1;
            if (mass[middle] <= wanted) low = middle;
            else high = middle;
          }
          const width = mass[high] - mass[low];
          second = band[low] + (width ? ((wanted - mass[low]) / width) * (band[high] - band[low]) : 0);
        }
        return -2.5 * Math.log10(light(m) + light(second));
      }),
    );
  }

  function start(figure) {
    figure.dataset.ready = "yes";
    const find = (selector) => figure.querySelector(selector);
    const data = JSON.parse(find('script[type="application/json"]').textContent);
    const grids = data.grids.map((one) => readGrid(one, data.codes));
    const inputs = [...figure.querySelectorAll('input[type="range"]')];
    const now = { ...data.start };
    const [x0, perX, y0, perY] = data.scale;
    const digits = (value, n) => String(Number(value.toPrecision(n)));
    const age = () => 10 ** (now.log_age - 9);
    const distance = () => 10 ** now.log_distance;
    const excess = () => (now.a_v * (data.dust[0] - data.dust[1])).toFixed(2);
    const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);

    // What stands beside each slider, and what a screen reader says.
    const say = {
      log_age: () => `${digits(age(), 3)} Gyr`,
      metallicity: () => signed(now.metallicity),
      log_distance: () => `${digits(distance(), 3)} pc`,
      a_v: () => `${now.a_v.toFixed(2)} mag`,
      mass_ratio: () => (now.mass_ratio > 0 ? now.mass_ratio.toFixed(2) : "no pairs"),
      rotation: () => `${grids[now.rotation].rotation ?? 0} of critical`,
    };

    function python() {
      const rotation = grids.length > 1 ? `, "rotation": ${grids[now.rotation].rotation}` : "";
      return (
        `{"age": ${digits(age(), 4)} * u.Gyr, "metallicity": ${digits(now.metallicity, 4)}, ` +
        `"distance": ${digits(distance(), 4)} * u.pc, "a_v": ${digits(now.a_v, 3)}${rotation}}`
      );
    }

    function path(magnitudes, phases) {
      const [blue, red, mag] = data.columns.map((k) => magnitudes[k]);
      const shift = 5 * now.log_distance - 5;
      const [dustBlue, dustRed, dustMag] = data.dust.map((ratio) => ratio * now.a_v);
      let text = "";
      for (let i = 0; i < blue.length; i++) {
        const x = x0 + perX * (blue[i] - red[i] + dustBlue - dustRed);
        const y = y0 + perY * (mag[i] + shift + dustMag);
        // Between the tip of the red giants and core helium burning there are no stars.
        const gap = i === 0 || (phases[i - 1] < 4 && phases[i] >= 4);
        text += (gap ? "M" : "L") + Math.round(x) + " " + Math.round(y);
      }
      return text;
    }

    function draw() {
      const stars = track(grids[now.rotation], now.log_age, now.metallicity);
      find("path.single").setAttribute("d", path(stars.magnitudes, stars.phases));
      const pairs = now.mass_ratio > 0 ? path(addCompanion(stars, now.mass_ratio), stars.phases) : "";
      find("path.pairs").setAttribute("d", pairs);
      find("i.pairs").parentElement.hidden = !pairs;
      for (const input of inputs) {
        const text = say[input.name]();
        input.setAttribute("aria-valuetext", text);
        input.parentElement.querySelector("b").textContent = text;
      }
      find(".state").innerHTML =
        `Age ${say.log_age()}, [Fe/H] ${say.metallicity()}, distance ${say.log_distance()} ` +
        `((m\u2212M)<sub>0</sub> ${(5 * now.log_distance - 5).toFixed(2)}), ` +
        `A<sub>V</sub> ${say.a_v()}, E(${data.colour}) ${excess()} mag`;
      find('input[name="python"]').value = python();
    }

    for (const input of inputs) {
      input.addEventListener("input", () => {
        now[input.name] = Number(input.value);
        draw();
      });
    }
    find('button[name="reset"]').addEventListener("click", () => {
      Object.assign(now, data.start);
      for (const input of inputs) input.value = now[input.name];
      draw();
    });
    find('button[name="copy"]').addEventListener("click", (event) => {
      const box = find('input[name="python"]');
      const done = () => (event.target.textContent = "Copied");
      setTimeout(() => (event.target.textContent = "Copy as Python"), 2000);
      box.select();
      // Some pages may not use the clipboard; the old command still may, and the text is selected.
      const old = () => document.execCommand("copy") && done();
      navigator.clipboard ? navigator.clipboard.writeText(box.value).then(done, old) : old();
    });
    figure.nodes = (logAge, metallicity) => grids[now.rotation].nodes(logAge, metallicity);
    find(".controls").hidden = false;
    // A browser may remember where the sliders stood when the page was left.
    for (const input of inputs) input.value = now[input.name];
    draw();
  }

  for (const figure of document.querySelectorAll(".datared-explorer:not([data-ready])")) start(figure);
})();
