"""The text of the interactive figure: an SVG drawing, sliders, the packed models, the script.

The drawing is complete without the script, ``data/explorer.js``, which only moves the lines of the
model: paper and a page without JavaScript show the figure as it is. No element has an id, and the
style names one class, so that figures do not disturb each other or their page.
"""

import base64
import json
from html import escape
from importlib.resources import files

import numpy as np

from .extinction import colour_excess, extinction_ratio

__all__ = ["figure_text", "pack_grid", "three_bands"]

# The drawing in units of the SVG: its size, and the left, top, width and height of the axes.
WIDTH, HEIGHT = 480, 412
LEFT, TOP, ACROSS, DOWN = 56, 8, 414, 360
FINE = 10  # the axes are drawn in tenths of a unit, so that whole numbers are fine enough
# Codes of the packed grid: magnitudes in mmag, masses in 1/5000 of their logarithm.
PER_MAGNITUDE, PER_LOG_MASS, MISSING = 1000, 5000, -32768
# Shades of membership: lower end, class in the style sheet, name.
SHADES = (
    (0.9, "member", "member (above 90 %)"),
    (0.5, "likely", "50 to 90 %"),
    (0.1, "unlikely", "10 to 50 %"),
    (-np.inf, "field", "below 10 % or not known"),
)


def three_bands(bands):
    """Return the two bands of the colour and the band of the magnitude.

    Parameters
    ----------
    bands : tuple of str
        Two or three names; the magnitude is by default that of the first.

    Returns
    -------
    tuple of str
        Three names.
    """
    return (*bands[:2], bands[2] if len(bands) == 3 else bands[0])


def pack_grid(grid):
    """Return the masses and magnitudes of a grid as a short text.

    Parameters
    ----------
    grid : IsochroneGrid
        The models.

    Returns
    -------
    str
        Base64 of bytes. Whole numbers (magnitudes in mmag, logarithms of the mass in 1/5000), in
        the order quantity (mass, then bands), metallicity, age, point; second differences along
        the points, because these are small; sign in the last bit; seven bits to a byte.
    """
    values = [np.log(grid.mass)[..., None] * PER_LOG_MASS, grid.magnitudes * PER_MAGNITUDE]
    values = np.moveaxis(np.concatenate(values, axis=-1), -1, 0)
    codes = np.where(np.isfinite(values), np.round(values), MISSING).astype(int)
    before = np.zeros((*codes.shape[:-1], 2), dtype=int)
    steps = np.diff(codes, n=2, axis=-1, prepend=before).ravel()
    plain = np.where(steps < 0, -2 * steps - 1, 2 * steps)
    # A byte with its high bit set is followed by another one; three are enough for 21 bits.
    more, most = plain > 0x7F, plain > 0x3FFF
    parts = [plain & 0x7F | more << 7, plain >> 7 & 0x7F | most << 7, plain >> 14]
    used = np.stack([np.ones_like(more), more, most], axis=1)
    return base64.b64encode(np.stack(parts, axis=1)[used].astype(np.uint8).tobytes()).decode()


def figure_text(grids, stars, start, sliders, lines):
    """Return the figure as HTML.

    Parameters
    ----------
    grids : sequence of IsochroneGrid
        The models, one for each rotation.
    stars : dict
        Arrays ``colour``, ``magnitude``, and (or None) ``colour_err``, ``magnitude_err``,
        ``probability``; ``xlim``, ``ylim`` (low, high); ``bands``, ``system``, ``title``.
    start : dict
        Value of each parameter.
    sliders : list of tuple
        (name, label, low, high, step) of each slider.
    lines : list of (numpy.ndarray, numpy.ndarray)
        Colour and magnitude of the single stars and of the pairs at the start; nan makes a gap.

    Returns
    -------
    str
        A ``<div>`` with everything in it; the same input gives the same text.
    """
    blue, red, mag = three_bands(stars["bands"])
    data = {
        "grids": [
            {
                "rotation": grid.rotation,
                "ages": grid.log_ages.tolist(),
                "metallicities": grid.metallicities.tolist(),
                "phases": grid.phase.tolist(),
                "packed": pack_grid(grid),
            }
            for grid in grids
        ],
        "codes": [PER_LOG_MASS, PER_MAGNITUDE, MISSING],
        "columns": [list(grids[0].bands).index(band) for band in (blue, red, mag)],
        "dust": [extinction_ratio(band) for band in (blue, red, mag)],
        "start": start,
        "scale": [*_scale(*stars["xlim"], ACROSS), *_scale(*stars["ylim"], DOWN)],
        "colour": escape(f"{blue}\u2212{red}"),
    }
    data = json.dumps(data, separators=(",", ":"))
    folder = files("datared") / "data"
    style, script = ((folder / f"explorer.{end}").read_text("utf-8") for end in ("css", "js"))
    title = f"<strong>{escape(stars['title'])}</strong>" if stars["title"] else ""
    return (
        f'<div class="datared-explorer"><style>{style}</style>{title}<div class="columns">'
        f'<div class="drawing">{_drawing(stars, lines)}</div>{_controls(start, sliders)}</div>'
        f'<div class="caption">{_caption(stars, start)}</div>'
        f'<script type="application/json">{data}</script><script>{script}</script></div>'
    )


def _scale(low, high, length):
    """Return the place of zero and the length of one magnitude, in tenths of a unit."""
    per = length * FINE / (high - low)
    return [round(-low * per, 3), round(per, 3)]


def _places(values, limits, length):
    """Return where values are along an axis, in whole tenths of a unit."""
    zero, per = _scale(*limits, length)
    return np.round(np.clip(values * per + zero, -9999, 99999)).astype(int)


def _path(colour, magnitude, stars):
    """Return a line as the ``d`` of a path; nan makes a gap."""
    good = np.isfinite(colour) & np.isfinite(magnitude)
    x = _places(np.where(good, colour, 0.0), stars["xlim"], ACROSS)
    y = _places(np.where(good, magnitude, 0.0), stars["ylim"], DOWN)
    text, pen = [], "M"
    for one, across, down in zip(good, x, y, strict=True):
        text.append(f"{pen}{across} {down}" if one else "")
        pen = "L" if one else "M"
    return "".join(text)


def _dots(stars):
    """Return the paths of the stars (one for each shade) and of their error bars."""
    x = _places(stars["colour"], stars["xlim"], ACROSS)
    y = _places(stars["magnitude"], stars["ylim"], DOWN)
    seen = (x >= 0) & (x <= ACROSS * FINE) & (y >= 0) & (y <= DOWN * FINE)
    bars, paths = [], []
    for name, axis, length in (("colour", "xlim", ACROSS), ("magnitude", "ylim", DOWN)):
        error = stars[f"{name}_err"]
        if error is None:
            continue
        error = np.where(np.isfinite(error), error, 0.0)  # no bar
        half = np.clip(error * _scale(*stars[axis], length)[1], 0, 9999).astype(int)
        for k in np.flatnonzero(seen & (half > 0)):
            if name == "colour":
                bars.append(f"M{x[k] - half[k]} {y[k]}h{2 * half[k]}")
            else:
                bars.append(f"M{x[k]} {y[k] - half[k]}v{2 * half[k]}")
    if bars:
        paths.append(f'<path class="bars" d="{"".join(bars)}"/>')
    shade = _shades(stars)
    for k in reversed(range(len(SHADES))):
        dots = "".join(f"M{x[i]} {y[i]}h0" for i in np.flatnonzero(seen & (shade == k)))
        if dots:
            paths.append(f'<path class="{SHADES[k][1]}" d="{dots}"/>')
    return "".join(paths), int((~seen).sum())


def _shades(stars):
    """Return the number of the shade of each star; without a membership all are members."""
    chance = stars["probability"]
    if chance is None:
        return np.zeros(stars["colour"].size, dtype=int)
    chance = np.nan_to_num(chance, nan=-1.0)
    return np.argmax([chance >= low for low, _, _ in SHADES], axis=0)


def _ticks(low, high):
    """Return round numbers inside an axis, four to nine of them."""
    for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0):
        if (high - low) / step <= 8:
            break
    # Adding zero turns a negative zero into a positive one.
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0, step


def _drawing(stars, lines):
    """Return the SVG: axes, stars, error bars and the two lines of the model."""
    blue, red, mag = three_bands(stars["bands"])
    parts = []
    for axis, length in (("xlim", ACROSS), ("ylim", DOWN)):
        values, step = _ticks(*stars[axis])
        for value, place in zip(values, _places(values, stars[axis], length) / FINE, strict=True):
            text = f"{value:.{1 if step < 1 else 0}f}".replace("-", "\u2212")
            if axis == "xlim":
                at, down = f"M{LEFT + place:g} {TOP}v{DOWN}", TOP + DOWN + 17
                parts.append(f'<path d="{at}"/><text x="{LEFT + place:g}" y="{down}">{text}</text>')
            else:
                at, down = f"M{LEFT} {TOP + place:g}h{ACROSS}", TOP + place + 5
                parts.append(
                    f'<path d="{at}"/><text class="left" x="{LEFT - 6}" y="{down:g}">{text}</text>'
                )
    names = [escape(name) for name in (blue, red, mag, stars["system"])]
    middle = TOP + DOWN / 2
    across = f"{names[0]} \u2212 {names[1]} (mag)"
    parts.append(
        f'<text x="{LEFT + ACROSS / 2:g}" y="{HEIGHT - 6}">{across}</text>'
        f'<text x="14" y="{middle:g}" transform="rotate(-90 14 {middle:g})">{names[2]} (mag, '
        f"{names[3]})</text>"
    )
    dots, _ = _dots(stars)
    single, pairs = (_path(*line, stars) for line in lines)
    label = (
        f"Colour-magnitude diagram of {stars['colour'].size} stars, {names[2]} against "
        f"{names[0]} \u2212 {names[1]}, with the line of an isochrone that the sliders move"
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'<g class="axes">{"".join(parts)}</g>'
        f'<svg x="{LEFT}" y="{TOP}" width="{ACROSS}" height="{DOWN}" '
        f'viewBox="0 0 {ACROSS * FINE} {DOWN * FINE}">{dots}'
        f'<path class="pairs" d="{pairs}"/><path class="single" d="{single}"/></svg>'
        f'<rect x="{LEFT}" y="{TOP}" width="{ACROSS}" height="{DOWN}"/></svg>'
    )


def _caption(stars, start):
    """Return the legend and the parameters of the line."""
    shade = _shades(stars)
    items = [("line single", "isochrone"), ("line pairs", "pairs of stars seen as one")]
    hidden = "" if start["mass_ratio"] > 0 else " hidden"
    if stars["probability"] is None:
        items.append(("dot member", "stars"))
    else:
        items += [(f"dot {SHADES[k][1]}", SHADES[k][2]) for k in range(4) if (shade == k).any()]
    legend = "".join(
        f'<span{hidden if kind == "line pairs" else ""}><i class="{kind}"></i>{name}</span> '
        for kind, name in items
    )
    blue, red, _ = three_bands(stars["bands"])
    out = _dots(stars)[1]
    note = f"<p>{out} of {stars['colour'].size} stars lie outside the axes.</p>" if out else ""
    age, distance = 10.0 ** (start["log_age"] - 9), 10.0 ** start["log_distance"]
    excess = colour_excess((blue, red), start["a_v"])
    metals = f"{start['metallicity']:+.2f}".replace("-", "\u2212")
    return (
        f'<p class="legend">{legend}</p>{note}<p class="state">Age {age:.3g} Gyr, [Fe/H] '
        f"{metals}, distance {float(f'{distance:.3g}'):g} pc ((m\u2212M)<sub>0</sub> "
        f"{5 * start['log_distance'] - 5:.2f}), A<sub>V</sub> {start['a_v']:.2f} mag, "
        f"E({escape(blue)}\u2212{escape(red)}) {excess:.2f} mag</p>"
    )


def _controls(start, sliders):
    """Return the sliders and buttons; the script shows them and gives them their texts."""
    rows = "".join(
        f"<label><span>{label}</span> <b></b>"
        f'<input type="range" name="{name}" min="{low:g}" max="{high:g}" step="{step:g}" '
        f'value="{start[name]:g}" aria-label="{label}"></label>'
        for name, label, low, high, step in sliders
    )
    return (
        f'<div class="controls" hidden>{rows}<div class="buttons">'
        '<button type="button" name="reset">Reset</button> '
        '<button type="button" name="copy">Copy as Python</button></div>'
        '<input type="text" name="python" readonly aria-label="the parameters as Python">'
        "</div>"
    )
