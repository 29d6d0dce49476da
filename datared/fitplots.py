"""Figures of a fitted isochrone: the posterior of each pair of parameters, and the diagram."""

import matplotlib.pyplot as plt
import numpy as np

from .charts import BLUE, COLOURS, GREY, RED, finite_rows, new_axes
from .errors import DataredError

__all__ = ["posterior_corner", "posterior_diagram"]

LABELS = {
    "log_age": "log age (yr)",
    "age": "age (Gyr)",
    "metallicity": "[Fe/H] (dex)",
    "distance_modulus": "distance\nmodulus (mag)",
    "a_v": "$A_V$ (mag)",
    "e_bv": "$E(B-V)$ (mag)",
    "binary_fraction": "binaries",
    "field_fraction": "outliers",
    "scatter": "scatter (mag)",
    "mass_slope": "mass slope",
}
#: Shares of the samples inside the contours.
LEVELS = (0.95, 0.68)
BINS = 28


def posterior_corner(samples, *, names=None, truth=None, axes=None):
    """Show the posterior of each parameter, and of each pair.

    On the diagonal is the histogram of one parameter with its median and its 68 % interval. Below
    are the pairs: contours hold 68 % and 95 % of the samples. A narrow slanted ellipse means that
    the stars tell a combination of the two and not each one.

    Parameters
    ----------
    samples : astropy.table.Table
        ``IsochroneFit.samples``, or any table of samples.
    names : sequence of str, optional
        Columns to show; by default age, metallicity, distance modulus and extinction, without
        those that do not vary.
    truth : dict of str to float, optional
        Values to mark, such as those of a simulation.
    axes : numpy.ndarray of matplotlib.axes.Axes, shape (n, n), optional
        Where to draw; a new figure by default.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (n, n)
        The axes; those above the diagonal are not shown.

    Raises
    ------
    DataredError
        If a column is missing or does not vary.
    """
    if names is None:
        usual = ("log_age", "metallicity", "distance_modulus", "a_v")
        names = [n for n in usual if n in samples.colnames and np.ptp(samples[n]) > 0]
    for name in names:
        if name not in samples.colnames or not np.ptp(samples[name]) > 0:
            raise DataredError(
                f"there is no {name!r} that varies in the samples; they have "
                f"{', '.join(samples.colnames)}"
            )
    if not names:
        raise DataredError("no parameter to show")
    n, truth = len(names), truth or {}
    if axes is None:
        axes = plt.figure(figsize=(1.9 * n + 0.8, 1.9 * n + 0.8)).subplots(n, n, squeeze=False)
    columns = [np.asarray(samples[name], float) for name in names]
    limits = [_range(values, truth.get(name)) for name, values in zip(names, columns, strict=True)]
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            ax = axes[i, j]
            if j > i:
                ax.set_visible(False)
                continue
            if i == j:
                _histogram(ax, columns[i], limits[i], truth.get(row))
            else:
                _contours(ax, columns[j], columns[i], limits[j], limits[i])
                if row in truth and column in truth:
                    ax.plot(truth[column], truth[row], "+", color=RED, markersize=11, zorder=5)
                ax.set_ylim(*limits[i])
            ax.set_xlim(*limits[j])
            ax.locator_params(nbins=3)
            ax.tick_params(labelsize="small")
            ax.tick_params(axis="x", labelrotation=30)
            ax.tick_params(labelbottom=i == n - 1, labelleft=j == 0 and i > 0)
            if i == n - 1:
                ax.set_xlabel(LABELS.get(column, column))
            if j == 0 and i > 0:
                ax.set_ylabel(LABELS.get(row, row))
    return axes


def _range(values, true):
    """Limits of an axis: nearly all samples, and the truth."""
    low, high = np.quantile(values, [0.002, 0.998])
    if true is not None:
        low, high = min(low, true), max(high, true)
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _histogram(ax, values, limits, true):
    """Draw one parameter."""
    ax.hist(values, BINS, range=limits, color=COLOURS["sky"], histtype="stepfilled")
    low, middle, high = np.quantile(values, [0.15865, 0.5, 0.84135])
    ax.axvline(middle, color=BLUE)
    for edge in (low, high):
        ax.axvline(edge, color=BLUE, linestyle=":")
    if true is not None:
        ax.axvline(true, color=RED, linestyle="--")
    digits = max(0, 1 - int(np.floor(np.log10(max(high - low, 1e-9) / 2))))
    ax.set_title(f"{middle:.{digits}f} ± {(high - low) / 2:.{digits}f}", fontsize="small")
    ax.set_yticks([])


def _contours(ax, x, y, x_limits, y_limits):
    """Draw a pair: a smoothed count, and the levels that hold 95 and 68 % of it."""
    from scipy.interpolate import RegularGridInterpolator
    from scipy.ndimage import gaussian_filter

    counts, *edges = np.histogram2d(x, y, BINS, range=(x_limits, y_limits))
    smooth = gaussian_filter(counts, 1.0)
    middles = [(each[1:] + each[:-1]) / 2 for each in edges]
    # The heights that the samples themselves stand on: the smoothing changes no share.
    there = RegularGridInterpolator(middles, smooth, bounds_error=False, fill_value=0.0)((x, y))
    heights = np.quantile(there, [1 - level for level in LEVELS])
    heights[1] = max(heights[1], heights[0] + 1e-9)  # Levels must rise.
    ax.contourf(*middles, smooth.T, [*heights, smooth.max() + 2e-9],
                colors=[COLOURS["sky"], BLUE], alpha=0.7)  # fmt: skip


def posterior_diagram(
    table, samples, *, grid, bands, magnitude=None, probability=None, n=40, seed=0, ax=None
):
    """Draw the stars and isochrones of many samples of the posterior on them.

    Where the thin lines keep together, the fit is sure; where they part, or where stars stand
    beside all of them, it is not.

    Parameters
    ----------
    table : astropy.table.Table
        Magnitudes of the stars, a column for each band.
    samples : astropy.table.Table
        ``IsochroneFit.samples``.
    grid : IsochroneGrid
        The isochrones that were fitted.
    bands : tuple of str
        Two bands of the colour.
    magnitude : str, optional
        Band of the vertical axis; the second of the colour by default.
    probability : array_like of float, shape (len(table),), optional
        ``IsochroneFit.probability``: stars below one half are drawn grey.
    n : int, optional
        Number of isochrones.
    seed : int, optional
        Seed of their choice.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    import astropy.units as u

    ax = new_axes(ax)
    magnitude = bands[1] if magnitude is None else magnitude
    likely = np.ones(len(table)) if probability is None else np.asarray(probability, float)
    blue, red, height, likely = finite_rows(
        table[bands[0]], table[bands[1]], table[magnitude], np.nan_to_num(likely)
    )
    colour, good = blue - red, likely >= 0.5
    if not good.all():
        ax.plot(colour[~good], height[~good], ".", color=GREY, markersize=3, label="other stars")
    ax.plot(colour[good], height[good], "o", color=BLUE, markersize=3, label="follow the model")
    rows = np.random.default_rng(seed).choice(len(samples), min(n, len(samples)), replace=False)
    for k, row in enumerate(samples[np.sort(rows)]):
        distance = 10.0 ** (row["distance_modulus"] / 5 + 1) * u.pc
        stars = grid.at(
            10.0 ** (row["log_age"] - 9), row["metallicity"], distance=distance, a_v=row["a_v"]
        )
        x, y = np.array(stars[bands[0]] - stars[bands[1]]), np.array(stars[magnitude])
        # Between the tip of the red giants and core helium burning there are no stars.
        phase = np.asarray(stars["phase"])
        tip = np.flatnonzero((phase[:-1] == 3) & (phase[1:] > 3)) + 1
        x, y = np.insert(x, tip, np.nan), np.insert(y, tip, np.nan)
        words = f"{len(rows)} isochrones of the posterior" if k == 0 else None
        ax.plot(x, y, color=RED, linewidth=0.8, alpha=0.35, label=words)
    if len(height):
        margin = 0.03 * np.ptp(height) + 0.1
        ax.set_ylim(height.max() + margin, height.min() - margin)
        edges = np.quantile(colour, [0.005, 0.995])
        ax.set_xlim(edges[0] - 0.2, edges[1] + 0.2)
    system = table[magnitude].meta.get("system", "")
    words = f", {system}" if system else ""
    ax.set(xlabel=f"{bands[0]} − {bands[1]} (mag{words})", ylabel=f"{magnitude} (mag{words})")
    ax.legend(loc="best")
    return ax
