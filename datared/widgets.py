"""Interactive figures that need no kernel: an HTML text of its own, for the book and Jupyter.

`widgetpage` writes the text; this room chooses what goes into it.
"""

from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import astropy.units as u
import numpy as np

from . import charts
from .extinction import distance_modulus
from .isochronegrid import IsochroneGrid, binary_sequence, embedded_grid
from .widgetpage import figure_text, three_bands

__all__ = ["Explorer", "isochrone_explorer"]

# What a page carries of the grids: models of all rotations together, metallicities, and points of
# the main sequence and of each other phase. The embedded grid then weighs 170 kB instead of 1 MB.
MOST_MODELS, MOST_METALLICITIES, MOST_POINTS, MOST_OTHER_POINTS = 300, 12, 50, 18
# Name of a slider: label, step, and its range where the grid does not give it.
SLIDERS = {
    "log_age": ("Age", 0.01, None),
    "metallicity": ("Metallicity [Fe/H]", 0.01, None),
    "log_distance": ("Distance", 0.005, (1.5, 4.2)),  # 32 pc to 16 kpc
    "a_v": ("Extinction in V", 0.01, (0.0, 3.0)),
    "mass_ratio": ("Mass ratio of the pairs", 0.05, (0.0, 1.0)),
    "rotation": ("Rotation", 1, None),
}


@dataclass(frozen=True, eq=False, repr=False)
class Explorer:
    """A colour-magnitude diagram with sliders that move an isochrone through it.

    Jupyter and the book show it as the last line of a cell. Made by `isochrone_explorer`.

    Attributes
    ----------
    html : str
        The figure.
    start : dict
        Where the sliders stand first: ``log_age`` (yr), ``metallicity``, ``log_distance`` (pc),
        ``a_v`` and ``mass_ratio``, rounded to their steps, and ``rotation`` (number of the grid).
    grids : tuple of IsochroneGrid
        The models in the page: of the drawn bands only and thinned, one for each rotation.
    stars : dict
        What is drawn of the stars.
    """

    html: str
    start: dict
    grids: tuple
    stars: dict

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        return f"<Explorer: {self.stars['colour'].size} stars, {len(self.html) / 1000:.0f} kB>"

    def save(self, path):
        """Write the figure as a page of its own.

        Parameters
        ----------
        path : path-like
            Name of the file, usually ``*.html``.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = Path(path)
        title = escape(self.stars["title"] or "Isochrone explorer")
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        head += "<style>body { font-family: sans-serif; }</style>"
        page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<title>{title}</title></head>\n'
        path.write_text(f"{page}<body>\n{self.html}\n</body></html>\n", encoding="utf-8")
        return path

    def figure(self, *, ax=None):
        """Draw the stars and the isochrone of the start with matplotlib, for paper.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        stars = self.stars
        columns = {name: stars[name] for name in ("colour_err", "magnitude_err", "probability")}
        model = _lines(self.grids[self.start["rotation"]], stars["bands"], self.start)[0]
        ax = charts.colour_magnitude(
            stars["colour"], stars["magnitude"], bands=stars["bands"], system=stars["system"],
            model=model, ax=ax, **columns,
        )  # fmt: skip
        ax.set(xlim=stars["xlim"], ylim=stars["ylim"][::-1], title=stars["title"])
        return ax


def isochrone_explorer(
    colour, magnitude, *, bands, system, grid=None, colour_err=None, magnitude_err=None,
    probability=None, start=None, title="",
):  # fmt: skip
    """Return an interactive diagram: sliders move an isochrone through the stars.

    Parameters
    ----------
    colour, magnitude : array_like of float, shape (n,)
        Colour index (magnitude in the first band minus that in the second), and magnitude. Stars
        that are masked or not finite are left out.
    bands : tuple of str
        Bands of the colour; a third entry is the band of the magnitude (by default the first).
    system : str or tuple of str
        Magnitude system of the stars, such as ``"PS1 AB"``; one for each of ``bands`` where they
        differ. It must be that of the grid.
    grid : IsochroneGrid or sequence of IsochroneGrid, optional
        The models; several must be of different rotation. Default: the embedded isochrones.
    colour_err, magnitude_err : array_like of float, shape (n,), optional
        Error bars.
    probability : array_like of float, shape (n,), optional
        Membership from 0 to 1: members are drawn strong, others pale. nan is not known.
    start : dict, optional
        Where the sliders stand first: ``age`` (Quantity or Gyr), ``metallicity``, ``distance``
        (Quantity), ``a_v`` and ``mass_ratio`` (0: no line of pairs). Default: 1 Gyr, no dust and
        the distance at which the line is at the height of the stars.
    title : str, optional
        Title of the figure.

    Returns
    -------
    Explorer
        The figure: shown by Jupyter and the book, ``save(path)`` writes it, ``figure()`` draws it
        for paper.

    Raises
    ------
    ValueError
        When the columns differ in length or have no star, when the grid lacks a band or is of
        another magnitude system, or for an unknown name or a value out of range in ``start``.

    Notes
    -----
    The page holds up to 300 models (25 ages at 12 metallicities), rounded to 1 mmag, and blends
    them as `IsochroneGrid.nodes` does. Against the full embedded grid the line moves by less than
    0.02 mag on the main sequence and 0.05 mag at the giants (nine places of ten). The line of
    pairs is that of `binary_sequence`. Everything is in the page: no kernel, no library, no other
    host. About 1.2 kB for 100 stars, three times that with error bars.

    Examples
    --------
    >>> from datared.isochrones import isochrone
    >>> stars = isochrone(age=1.0, distance=1 * u.kpc)
    >>> figure = isochrone_explorer(
    ...     stars["g"] - stars["i"], stars["g"], bands=("g", "i"), system="PS1 AB",
    ...     start={"age": 0.5, "distance": 1 * u.kpc},
    ... )
    >>> figure.start["log_age"], figure.start["log_distance"]
    (8.7, 3.0)
    """  # fmt: skip
    drawn = tuple(dict.fromkeys(bands))
    if len(bands) not in (2, 3) or isinstance(bands, str) or len(drawn) < 2:
        raise ValueError(f"bands = {bands!r} must be two or three names, for instance ('B', 'V')")
    grids = [embedded_grid(bands=drawn)] if grid is None else grid
    grids = [grids] if isinstance(grids, IsochroneGrid) else list(grids)
    systems = [system] * len(bands) if isinstance(system, str) else list(system)
    if len(systems) != len(bands):
        raise ValueError(f"system = {system!r} must be one name, or one for each of {bands!r}")
    for band, name in zip(bands, systems, strict=True):
        _check_grids(grids, band, name)
    grids = tuple(_thin(one, drawn, len(grids)) for one in grids)
    columns = {
        "colour": colour, "magnitude": magnitude, "colour_err": colour_err,
        "magnitude_err": magnitude_err, "probability": probability,
    }  # fmt: skip
    system = systems[2 if len(bands) == 3 else 0]
    stars = _stars(columns) | {"bands": tuple(bands), "system": system, "title": title}
    start, sliders = _sliders(grids, start or {}, stars)
    lines = _lines(grids[0], bands, start)
    return Explorer(
        html=figure_text(grids, stars, start, sliders, lines), start=start, grids=grids, stars=stars
    )


# --- what goes into the figure -------------------------------------------------------------------


def _check_grids(grids, band, system):
    """Raise ValueError when a grid lacks a band, or its magnitudes are not those of the stars."""
    for grid in grids:
        if band not in grid.bands:
            raise ValueError(f"the grid has no band {band}; it has {', '.join(grid.bands)}")
        if grid.bands[band] != system:
            raise ValueError(
                f"{band} of the stars is in the system {system!r}, but {band} of the grid is "
                f"{grid.bands[band]!r}; transform the stars (systems.transform) or take "
                "another grid"
            )
    rotations = [grid.rotation for grid in grids]
    if not grids or len(set(rotations)) < len(rotations):
        raise ValueError(f"grid must be one grid or grids of different rotation, not {rotations}")


def _thin(grid, drawn, n_grids):
    """Return a grid with the drawn bands only, and not more models and points than a page needs."""

    def some(n, most):
        return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))

    feh = some(len(grid.metallicities), MOST_METALLICITIES)
    ages = some(len(grid.log_ages), max(MOST_MODELS // (feh.size * n_grids), 8))
    points = []
    for phase in np.unique(grid.phase):
        here = np.flatnonzero(grid.phase == phase)
        points.extend(here[some(here.size, MOST_POINTS if phase == 1 else MOST_OTHER_POINTS)])
    part = np.ix_(feh, ages, points)
    columns = [list(grid.bands).index(band) for band in drawn]
    names = ("mass", "log_teff", "log_l", "log_g")
    return replace(
        grid,
        log_ages=np.asarray(grid.log_ages)[ages],
        metallicities=np.asarray(grid.metallicities)[feh],
        phase=grid.phase[points],
        bands={band: grid.bands[band] for band in drawn},
        magnitudes=grid.magnitudes[part][..., columns],
        **{name: getattr(grid, name)[part] for name in names},
    )


def _stars(columns):
    """Return the stars that can be drawn, members last, and the limits of the axes."""
    arrays = dict.fromkeys(columns)
    for name, values in columns.items():
        if values is not None:
            # The last step takes the unit from a Quantity.
            arrays[name] = np.asarray(np.ma.filled(np.ma.asarray(values, dtype=float), np.nan))
    shapes = {name: array.shape for name, array in arrays.items() if array is not None}
    if len(set(shapes.values())) > 1 or arrays["colour"].ndim != 1:
        raise ValueError(f"the columns must have one row for each star, not {shapes}")
    good = np.isfinite(arrays["colour"]) & np.isfinite(arrays["magnitude"])
    if not good.any():
        raise ValueError("no star has a finite colour and magnitude")
    chance = arrays["probability"]
    chance = np.zeros(good.size) if chance is None else np.nan_to_num(chance)
    order = np.argsort(chance, kind="stable")
    order = order[good[order]]
    stars = {name: None if array is None else array[order] for name, array in arrays.items()}
    low, high = np.percentile(_not_wild(stars["colour"]), [0.2, 99.8])
    stars["xlim"] = (float(low - 0.3), float(high + 0.3))
    near = _not_wild(stars["magnitude"])
    # Above the brightest star is room for the model.
    stars["ylim"] = (float(near.min() - 1.0), float(near.max() + 0.3))
    return stars


def _not_wild(values):
    """Return the values without those, such as 99.99, that would squeeze the others."""
    low, high = np.percentile(values, [25, 75])
    far = 4 * (high - low) + 1.0
    return values[(values > low - far) & (values < high + far)]


def _sliders(grids, given, stars):
    """Return the start of each slider, and [(name, label, low, high, step), ...]."""
    valid = ("age", "metallicity", "distance", "a_v", "mass_ratio")
    unknown = [name for name in given if name not in valid]
    if unknown:
        raise ValueError(f"start has unknown names {unknown}; valid are {', '.join(valid)}")
    age = given.get("age", 1.0)
    age = float(age.to_value(u.Gyr)) if isinstance(age, u.Quantity) else float(age)
    if not 0 < age < np.inf:
        raise ValueError(f"start: age = {age:g} Gyr must be positive")
    shift = np.median(stars["magnitude"]) - 5.0
    shift = distance_modulus(given["distance"]) if "distance" in given else np.clip(shift, 3, 15)
    wanted = {"log_age": np.log10(age) + 9, "log_distance": shift / 5 + 1, "rotation": 0}
    wanted |= {"metallicity": 0.0, "a_v": 0.0, "mass_ratio": 0.0}
    wanted |= {name: given[name] for name in given if name in wanted}
    ranges = {
        "log_age": (max(g.log_ages[0] for g in grids), min(g.log_ages[-1] for g in grids)),
        "metallicity": (
            max(g.metallicities[0] for g in grids), min(g.metallicities[-1] for g in grids)
        ),
        "rotation": (0, len(grids) - 1),
    }  # fmt: skip
    start, sliders = {}, []
    for name, (label, step, fixed) in SLIDERS.items():
        low, high = fixed or ranges[name]
        public = {"log_age": "age", "log_distance": "distance"}.get(name, name)
        if public in given and not low - step / 2 <= wanted[name] <= high + step / 2:
            raise ValueError(
                f"start: {name} = {wanted[name]:g} is outside the slider, {low:g} to {high:g}"
            )
        # Whole steps from zero, so that the values are round ones.
        first, last = int(np.ceil(low / step - 1e-6)), int(np.floor(high / step + 1e-6))
        if first < last:
            sliders.append((name, label, round(first * step, 6), round(last * step, 6), step))
            value = round(float(wanted[name]) / step)
            start[name] = round(min(max(value, first), last) * step, 6)
        else:
            start[name] = int(low) if name == "rotation" else float(low)
    return start, sliders


def _lines(grid, bands, at):
    """Return [(colour, magnitude), ...] of the single stars and of the pairs, with gaps."""
    low, high = (10.0 ** (end - 9) for end in grid.log_ages[[0, -1]])
    single = grid.at(
        min(max(10.0 ** (at["log_age"] - 9), low), high), at["metallicity"],
        distance=10.0 ** at["log_distance"] * u.pc, a_v=at["a_v"],
    )  # fmt: skip
    # Between the tip of the red giants and core helium burning there are no stars.
    gap = np.flatnonzero((single["phase"][:-1] < 4) & (single["phase"][1:] >= 4)) + 1
    lines = []
    pairs = binary_sequence(single, mass_ratio=at["mass_ratio"])
    for table in (single, pairs if at["mass_ratio"] > 0 else pairs[:0]):
        here = gap[gap < len(table)]
        blue, red, mag = (np.insert(np.asarray(table[b]), here, np.nan) for b in three_bands(bands))
        lines.append((blue - red, mag))
    return lines
