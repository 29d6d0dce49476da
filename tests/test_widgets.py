"""The interactive isochrone figure: right in a browser, in every page it can stand in."""

import ast
import re
import shutil
import time
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest

from datared import widgets
from datared.isochronegrid import embedded_grid
from datared.isochrones import combine_magnitudes, isochrone, magnitudes_at_mass

START = {"age": 0.5, "metallicity": -0.1, "distance": 1600 * u.pc, "a_v": 0.4}


def cluster(n=300, seed=3):
    """Return colour, magnitude and error of n stars of a cluster, a third of them pairs."""
    rng = np.random.default_rng(seed)
    model = isochrone(age=0.9, distance=1800 * u.pc, a_v=0.4)
    mass = 0.45 * rng.uniform(0.15, 1, n) ** -0.75
    second = magnitudes_at_mass(model, np.maximum(mass * rng.uniform(0.3, 1, n), 0.11))
    first = magnitudes_at_mass(model, mass)
    pair = rng.random(n) < 0.3
    g, i = (
        np.where(pair, combine_magnitudes(first[b], second[b]), first[b]).astype(float)
        for b in "gi"
    )
    error = 0.005 + 0.05 * 10 ** (0.3 * (np.nan_to_num(g, nan=20.0) - 21))
    return g - i + rng.normal(0, error), g + rng.normal(0, error), error


def explorer(**options):
    """Return the figure of a simulated cluster."""
    colour, magnitude, _ = cluster()
    options = {"bands": ("g", "i"), "system": "PS1 AB", "start": START} | options
    return widgets.isochrone_explorer(colour, magnitude, **options)


def with_gaps():
    """Return a small grid with contracting stars and stages that some models lack."""
    grid = embedded_grid(bands=("g", "i"))
    phase = grid.phase.copy()
    phase[:20] = 0
    mass, magnitudes = grid.mass.copy(), grid.magnitudes.copy()
    for array in (mass, magnitudes):
        array[:, :20, -24:] = np.nan
    mass[:, 40:, :20] = mass[:, 40:, 20:21]  # no star contracts any more
    return replace(grid, phase=phase, mass=mass, magnitudes=magnitudes)


def named(blue, red, systems):
    """Return the grid of g and i under other names: to make one of other bands takes seconds."""
    bands = dict(zip((blue, red), systems, strict=True))
    return replace(embedded_grid(bands=("g", "i")), bands=bands)


@pytest.fixture(scope="module")
def browser():
    """Return a browser, or skip where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for path in map(shutil.which, names) if path), None)
    if program is None:
        pytest.skip("no chromium on this computer")
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser, tmp_path):
    """Return ``show(html, ...)``: the tab with a page, which must be quiet to the end."""
    contexts, problems = [], []

    def opened(body, *, head="", width=900, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        path = tmp_path / f"page{len(contexts)}.html"
        page = path.as_uri()
        tab.on("request", lambda one: one.url == page or problems.append(one.url))
        path.write_text(f"<!DOCTYPE html><html{head}><meta charset=utf-8>{body}", "utf-8")
        tab.goto(page)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def line(tab, name="single", k=0):
    """Return the ``d`` of a line of figure number k."""
    return tab.locator(f".datared-explorer path.{name}").nth(k).get_attribute("d")


def numbers(path):
    """Return the points of a path, and how many pieces it has."""
    return np.array(re.findall(r"(-?\d+) (-?\d+)", path), dtype=int), path.count("M")


# --- the models ----------------------------------------------------------------------------------


def test_isochrone_grid_in_the_page_is_that_of_python(show):
    """CM-05: on models and at 20 random places the script gives what `IsochroneGrid.nodes` does.

    Tolerance: magnitudes are rounded to 1 mmag, so an error of 0.5 mmag at each corner; log mass
    to 1/5000, so half of that, 1e-4, in mass.
    """
    rng = np.random.default_rng(5)
    for grid in (embedded_grid(bands=("g", "i")), with_gaps()):
        made = explorer(grid=grid)
        tab = show(made.html)
        (used,) = made.grids
        # On a model the next one, which may lack a stage, must not count.
        places = [(age, used.metallicities[2]) for age in used.log_ages]
        places += zip(
            rng.uniform(*used.log_ages[[0, -1]], 20),
            rng.uniform(*used.metallicities[[0, -1]], 20),
            strict=True,
        )
        places = [tuple(map(float, place)) for place in places]
        ours = tab.evaluate(
            """places => places.map(([age, feh]) => {
                const nodes = document.querySelector(".datared-explorer").nodes(age, feh);
                const plain = array => [...array].map(v => Number.isNaN(v) ? null : v);
                return [plain(nodes.mass), ...nodes.magnitudes.map(plain)];
            })""",
            places,
        )
        assert np.isnan(used.mass).any() == (grid is not embedded_grid(bands=("g", "i")))
        for place, got in zip(places, ours, strict=True):
            got = np.array(got, dtype=float)
            mass, magnitudes = used.nodes(*place)
            np.testing.assert_allclose(got[0], mass, rtol=1.01e-4)
            np.testing.assert_allclose(got[1:].T, magnitudes, atol=0.51e-3)


@pytest.mark.parametrize("gaps", [False, True])
def test_script_draws_the_line_that_python_drew(show, gaps):
    """CM-05: distance, dust, pairs, gaps and left-out stages: the script agrees with the package.

    Tolerance: a colour is rounded to 1 mmag, here 1.2 tenths of a unit, and both round to tenths.
    """
    for ratio, age in ((0.6, 0.5), (1.0, 3.0), (0.0, 0.03)):
        start = START | {"mass_ratio": ratio, "age": age}
        made = explorer(start=start, grid=with_gaps() if gaps else None)
        tab = show(made.html)
        drawn = re.findall(r'path class="(pairs|single)" d="([^"]*)"', made.html)
        assert [name for name, _ in drawn] == ["pairs", "single"]
        for name, path in drawn:
            (ours, pieces), (theirs, same) = numbers(path), numbers(line(tab, name))
            assert ours.shape == theirs.shape and pieces == same
            assert bool(ours.size) == (name == "single" or ratio > 0)
            assert pieces == (2 if ours.size else 0)
            assert np.max(np.abs(ours - theirs), initial=0) <= 3


def test_thin_grid_is_close_to_the_full_one():
    """CM-05: nine tenths of the line in the page are within 0.02 mag of the model, giants 0.05."""
    (thin,) = explorer().grids
    rng = np.random.default_rng(2)
    far = {True: [], False: []}
    for log_age, feh in zip(rng.uniform(7.6, 10.1, 15), rng.uniform(-0.6, 0.29, 15), strict=True):
        model, ours = isochrone(age=10 ** (log_age - 9), metallicity=feh), None
        ours = thin.at(10 ** (log_age - 9), feh)
        for phase in (1, 3, 4):
            full, few = (t[t["phase"] == phase] for t in (model, ours))
            if len(full) < 2 or len(few) < 2:
                continue
            here, line = (np.stack([t["g"] - t["i"], t["g"]], axis=1) for t in (full, few))
            step, way = np.diff(line, axis=0), here[:, None] - line[:-1]
            along = np.sum(way * step, axis=2) / np.maximum(np.sum(step**2, axis=1), 1e-12)
            rest = way - np.clip(along, 0, 1)[..., None] * step
            far[phase == 1].extend(np.hypot(*np.moveaxis(rest, -1, 0)).min(axis=1))
    assert np.percentile(far[True], 90) < 0.02
    assert np.percentile(far[False], 90) < 0.05


def test_rotation_slider_where_the_grid_has_several(show):
    """CM-05: with grids of two rotations a slider chooses between them."""
    slow = embedded_grid(bands=("g", "i"))
    fast = replace(slow, magnitudes=slow.magnitudes - 0.5, rotation=0.4)
    made = explorer(grid=[replace(slow, rotation=0.0), fast])
    assert len(made.html) < 250_000
    tab = show(made.html)
    before, _ = numbers(line(tab))
    tab.locator("input[name=rotation]").press("ArrowRight")
    after, _ = numbers(line(tab))
    shift = 0.5 * made_scale(made)
    assert np.all(np.abs(after[:, 1] - before[:, 1] + shift) <= 2)
    assert tab.locator("input[name=rotation]").get_attribute("aria-valuetext") == "0.4 of critical"
    assert '"rotation": 0.4}' in tab.locator("input[name=python]").input_value()
    assert "rotation" not in explorer().html.split("<script")[0]
    with pytest.raises(ValueError, match="different rotation"):
        explorer(grid=[slow, slow])


def made_scale(made):
    """Return the tenths of a unit per magnitude along the axis of magnitudes."""
    return float(re.search(r'"scale":\[(?:[^,]+,){3}([^\]]+)\]', made.html)[1])


# --- the controls --------------------------------------------------------------------------------


def test_keyboard_moves_the_isochrone(show):
    """CM-05: every slider has a name, moves by arrows, says its value and changes the line."""
    tab = show(explorer(start=START | {"mass_ratio": 0.5}).html)
    words = {
        "Age": "0.513 Gyr",
        "Metallicity [Fe/H]": "\u22120.09",
        "Distance": "1620 pc",
        "Extinction in V": "0.41 mag",
        "Mass ratio of the pairs": "0.55",
    }
    tab.get_by_label("Age", exact=True).focus()
    for label, value in words.items():
        slider = tab.get_by_label(label, exact=True)
        assert slider.evaluate("one => one === document.activeElement"), label  # by Tab
        before = line(tab), line(tab, "pairs")
        tab.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == value
        assert slider.locator("xpath=..").locator("b").text_content() == value
        after = line(tab), line(tab, "pairs")
        assert (after[0] != before[0]) == (not label.startswith("Mass"))
        assert after[1] != before[1]
        tab.keyboard.press("Tab")
    assert "Age 0.513 Gyr" in tab.locator(".state").text_content()
    tab.get_by_role("button", name="Reset").press("Enter")
    assert numbers(line(tab))[0].shape[0] > 50
    assert tab.get_by_label("Age", exact=True).get_attribute("aria-valuetext") == "0.501 Gyr"
    tab.get_by_label("Mass ratio of the pairs").press("Home")
    assert line(tab, "pairs") == ""


def test_export_is_python_that_the_models_take(show):
    """CM-05: the copied parameters are a dict for `isochrone` and `grid.at`."""
    tab = show(explorer().html, permissions=["clipboard-read", "clipboard-write"])
    tab.get_by_label("Age", exact=True).press("PageUp")
    tab.get_by_role("button", name="Copy as Python").click()
    tab.get_by_role("button", name="Copied").wait_for()
    text = tab.evaluate("navigator.clipboard.readText()")
    assert text == tab.locator("input[name=python]").input_value()
    parameters = eval(compile(ast.parse(text, mode="eval"), "page", "eval"), {"u": u})
    assert set(parameters) == {"age", "metallicity", "distance", "a_v"}
    # The distance was rounded to the slider's step of 0.005 dex, 0.6 % to either side.
    assert abs(parameters["distance"] / (1600 * u.pc) - 1) < 0.006
    assert parameters["age"] > 0.5 * u.Gyr
    stars = isochrone(**parameters)
    grid = embedded_grid(bands=("g", "i"))
    assert abs(len(grid.at(**parameters)) - len(stars)) < 99


def test_touch_moves_a_slider(show):
    """CM-05: a finger on a slider moves it."""
    tab = show(explorer().html, has_touch=True, width=400)
    before = line(tab)
    box = tab.get_by_label("Distance").bounding_box()
    assert box["height"] >= 24
    tab.touchscreen.tap(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2)
    assert line(tab) != before


def test_many_stars_stay_quick_and_light(show):
    """CM-05: 5000 stars with error bars: below 400 kB, and a step of a slider below 50 ms."""
    colour, magnitude, error = cluster(5000)
    start = time.process_time()
    made = widgets.isochrone_explorer(
        colour, magnitude, bands=("g", "i"), system="PS1 AB", colour_err=error, magnitude_err=error
    )
    assert time.process_time() - start < 2
    assert len(made.html.encode()) < 400_000
    assert len(explorer().html.encode()) < 200_000
    tab = show(made.html)
    spent = tab.evaluate(
        """() => {
            const age = document.querySelector("input[name=log_age]");
            const times = [...Array(15).keys()].map(k => {
                const begin = performance.now();
                age.value = 8.8 + k / 100;
                age.dispatchEvent(new Event("input"));
                document.querySelector("svg").getBoundingClientRect();
                return performance.now() - begin;
            });
            return Math.min(...times);  // the others waited for another program
        }"""
    )
    assert spent < 50


# --- the pages -----------------------------------------------------------------------------------


def test_two_figures_do_not_disturb_each_other(show):
    """CM-05: the same figure twice on a page; a slider moves its own line only."""
    html = explorer().html
    assert re.search(r"\sid=", html) is None
    tab = show(html + "<p>text</p>" + html)
    before = line(tab, k=0), line(tab, k=1)
    tab.locator(".datared-explorer").nth(1).get_by_label("Age", exact=True).press("ArrowLeft")
    assert line(tab, k=0) == before[0] and line(tab, k=1) != before[1]


def test_jupyterlab_inserts_it(show):
    """CM-05: inserted as JupyterLab does, text first and then its scripts, the figure works."""
    tab = show("<body data-jp-theme-light=false><div id=output></div>")
    tab.evaluate(
        """html => {
            const output = document.getElementById("output");
            output.innerHTML = html;
            for (const old of output.querySelectorAll("script")) {
                const made = document.createElement("script");
                for (const one of old.attributes) made.setAttribute(one.name, one.value);
                made.textContent = old.textContent;
                old.replaceWith(made);
            }
        }""",
        explorer()._repr_html_(),
    )
    before = line(tab)
    tab.get_by_label("Age", exact=True).press("ArrowRight")
    assert line(tab) != before


COLOURS = """() => [".datared-explorer", "text", "path.single", "path.member"].map((one, k) => {
    const style = getComputedStyle(document.querySelector(one));
    return style[["backgroundColor", "fill", "stroke", "stroke"][k]].match(/\\d+/g).map(Number);
})"""


def contrast(one, other):
    """Return the contrast of two colours (WCAG 2)."""
    parts = np.array([one, other]) / 255
    parts = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    light = parts @ [0.2126, 0.7152, 0.0722] + 0.05
    return max(light) / min(light)


@pytest.mark.parametrize(
    ("head", "scheme", "dark"),
    [
        ('><body', "light", False),
        ('><body', "dark", True),
        (' data-theme="light"><body', "dark", False),
        (' data-theme="dark"><body', "light", True),
        ('><body data-jp-theme-light="true"', "dark", False),
        ('><body data-jp-theme-light="false"', "light", True),
    ],
)  # fmt: skip
def test_light_and_dark_pages(show, head, scheme, dark):
    """CM-05: the book's theme, JupyterLab's or the reader's own; all is seen on its ground."""
    tab = show(explorer().html, head=head, color_scheme=scheme)
    ground, *inks = tab.evaluate(COLOURS)
    assert (np.mean(ground) < 60) == dark
    assert contrast(ground, inks[0]) > 7
    assert min(contrast(ground, ink) for ink in inks) > 3
    tab.emulate_media(media="print", color_scheme=scheme)
    assert np.mean(tab.evaluate(COLOURS)[0]) == 255


def test_narrow_page_print_and_no_script(show):
    """CM-05: nothing wider than 400 px; paper and a page without scripts have the figure."""
    html = explorer(title="A title </script> & more").html
    tab = show(html, width=400)
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    assert tab.locator("svg").first.bounding_box()["width"] > 300
    tab.emulate_media(media="print")
    assert not tab.locator(".controls").is_visible()
    assert tab.locator(".state").is_visible() and tab.locator("path.single").is_visible()
    written = tab.locator(".state").text_content()
    tab = show(html, java_script_enabled=False)
    assert not tab.locator(".controls").is_visible()
    assert tab.locator(".state").text_content() == written
    assert line(tab) and "Age 0.501 Gyr" in tab.locator(".state").text_content()
    assert tab.locator("strong").text_content() == "A title </script> & more"


# --- the drawing ---------------------------------------------------------------------------------


def test_stars_stand_where_the_axes_say(show):
    """CM-05: a star of colour 1 and magnitude 16 is where the lines of these two numbers cross."""
    colour, magnitude = np.array([1.0, 0.2, 2.4]), np.array([16.0, 13.1, 20.3])
    made = widgets.isochrone_explorer(
        colour, magnitude, bands=("B", "V", "V"), system="Johnson Vega",
        grid=named("B", "V", ["Johnson Vega"] * 2),
        probability=[0.95, np.nan, 0.6], colour_err=[0.1, 0.1, np.nan], magnitude_err=[0.2, 0, 0.1],
    )  # fmt: skip
    found = re.findall(r'<path d="M([\d.]+) ([\d.]+)[vh]\d+"/><text[^>]*>([\d.]+)<', made.html)
    across = next(float(x) for x, y, text in found if text == "1.0")
    down = next(float(y) for x, y, text in found if text == "16")
    x, y = re.search(r'class="member" d="M(\d+) (\d+)h0"', made.html).groups()
    assert abs(int(x) / 10 + 56 - across) < 0.11 and abs(int(y) / 10 + 8 - down) < 0.11
    bars = re.search(r'class="bars" d="([^"]*)"', made.html)[1]
    assert bars.count("h") == 2 and bars.count("v") == 2
    for shade in ("field", "likely"):
        assert re.search(f'class="{shade}" d="M\\d+ \\d+h0"', made.html)
    tab = show(made.html)
    assert "3 stars" in tab.locator("svg").first.get_attribute("aria-label")
    assert tab.locator("text", has_text="V (mag, Johnson Vega)").count() == 1


def test_static_figure_and_page(tmp_path):
    """CM-05: matplotlib draws the same for paper; the saved page is whole; the text is the same."""
    colour, magnitude, error = cluster()
    colour[3] = np.nan
    made = widgets.isochrone_explorer(
        np.ma.masked_array(colour, mask=np.arange(300) == 5), magnitude, colour_err=error,
        bands=("g", "i"), system="PS1 AB", start=START, title="here",
    )  # fmt: skip
    ax = made.figure()
    assert len(ax.figure.axes) == 1
    assert ax.yaxis_inverted() and ax.get_ylabel() == "g (mag, PS1 AB)"
    assert "isochrone" in ax.get_legend_handles_labels()[1]
    assert repr(made).startswith("<Explorer: 298 stars, ")
    page = made.save(tmp_path / "page.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>") and made.html in page and "<title>here<" in page
    assert explorer().html == explorer().html
    members = explorer(probability=np.linspace(0, 1, 300)).figure()
    assert members.figure.axes[1].get_ylabel() == "probability to be a member"
    assert "http" not in made.html


@pytest.mark.parametrize("n", [60, 2000])
def test_stars_outside_the_axes_are_counted(n):
    """CM-05: wild colours and magnitudes do not squeeze the others, and the figure says so."""
    colour, magnitude, _ = cluster(n)
    colour[:2] = 40.0, -30.0
    magnitude[2:4] = 99.99, -99.0
    made = widgets.isochrone_explorer(colour, magnitude, bands=("g", "i"), system="PS1 AB")
    for name in ("xlim", "ylim"):
        low, high = made.stars[name]
        assert high - low < 20
    assert np.diff(made.stars["xlim"]) < 6
    found = re.search(r"(\d+) of (\d+) stars lie outside the axes", made.html)
    assert 4 <= int(found[1]) <= 4 + 0.01 * n and int(found[2]) == made.stars["colour"].size


def test_columns_of_any_kind():
    """CM-05: quantities and whole numbers are drawn; masked and infinite errors have no bar."""
    colour, magnitude, _ = cluster(50)
    options = {"bands": ("g", "i"), "system": "PS1 AB"}
    plain = widgets.isochrone_explorer(colour, magnitude, **options)
    made = widgets.isochrone_explorer(colour * u.mag, magnitude * u.mag, **options)
    assert made.html == plain.html
    error = np.ma.masked_array(np.full(50, np.inf), mask=np.arange(50) < 10)
    made = widgets.isochrone_explorer(
        colour, magnitude, colour_err=error, magnitude_err=error, **options
    )
    assert made.html == plain.html
    whole = widgets.isochrone_explorer([1, 2], [15, 16], **options)
    assert whole.stars["ylim"] == (14.0, 16.3)


def test_bands_of_two_systems():
    """CM-05: V - I has a Johnson and a Cousins band: each is compared with that of the grid."""
    colour, magnitude, _ = cluster(50)
    systems = ("Johnson Vega", "Cousins Vega")
    grid = named("V", "I", systems)
    made = widgets.isochrone_explorer(
        colour, magnitude, bands=("V", "I"), system=systems, grid=grid
    )
    assert "V (mag, Johnson Vega)" in made.html
    made = widgets.isochrone_explorer(
        colour, magnitude, bands=("V", "I", "I"), system=(*systems, systems[1]), grid=grid
    )
    assert "I (mag, Cousins Vega)" in made.html
    assert made.figure().get_ylabel() == "I (mag, Cousins Vega)"
    for wrong in ("Johnson Vega", systems[::-1]):
        with pytest.raises(ValueError, match=r" of the stars is in the system .*transform"):
            widgets.isochrone_explorer(colour, magnitude, bands=("V", "I"), system=wrong, grid=grid)
    with pytest.raises(ValueError, match="one name, or one for each of"):
        widgets.isochrone_explorer(
            colour, magnitude, bands=("V", "I"), system=systems[:1], grid=grid
        )


def test_grid_of_one_metallicity(show):
    """CM-05: what the grid has once gets no slider; the default age is moved into the grid."""
    full = embedded_grid(bands=("g", "i"))
    names = ("mass", "log_teff", "log_l", "log_g", "magnitudes")
    old = np.flatnonzero(full.log_ages > 9.2)[0]
    part = {name: getattr(full, name)[8:9, old:] for name in names}
    grid = replace(full, metallicities=np.array([0.0812]), log_ages=full.log_ages[old:], **part)
    made = explorer(grid=grid, start={"distance": 1600 * u.pc})
    assert made.start["metallicity"] == 0.0812
    assert 0 <= made.start["log_age"] - full.log_ages[old] < 0.01
    tab = show(made.html)
    assert tab.locator("input[name=metallicity]").count() == 0
    assert (
        np.max(
            np.abs(
                numbers(line(tab))[0] - numbers(re.search('"single" d="([^"]*)"', made.html)[1])[0]
            )
        )
        <= 3
    )
    assert '"metallicity": 0.0812' in tab.locator("input[name=python]").input_value()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"system": "SDSS AB"}, "stars is in the system 'SDSS AB'.*'PS1 AB'.*transform"),
        ({"bands": ("g",)}, "two or three names"),
        ({"bands": "gi"}, "two or three names"),
        ({"bands": ("g", "z")}, "no band 'z'"),
        ({"bands": ("g", "z"), "grid": with_gaps}, "no band z; it has g, i"),
        ({"start": {"age": 0}}, "age = 0 Gyr must be positive"),
        ({"start": {"age": -1 * u.Gyr}}, "age = -1 Gyr must be positive"),
        ({"start": {"ages": 1}}, "unknown names .*valid are age, metallicity"),
        ({"start": {"age": 40}}, "log_age = 10.6.* outside the slider"),
        ({"start": {"metallicity": -3}}, "outside the slider, -1 to 0.295"),
        ({"start": {"distance": 3}}, "no unit"),
        ({"colour_err": [1.0, 2.0]}, "one row for each star"),
    ],
)
def test_mistakes_are_told(options, words):
    """CM-05: two systems never meet, and a wrong option says what is valid."""
    options = {name: value() if callable(value) else value for name, value in options.items()}
    with pytest.raises(ValueError, match=words):
        explorer(**options)


def test_no_stars_is_an_error():
    """CM-05: a figure without a star is refused."""
    with pytest.raises(ValueError, match="no star has a finite colour"):
        widgets.isochrone_explorer([np.nan], [12.0], bands=("g", "i"), system="PS1 AB")
