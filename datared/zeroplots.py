"""Figures of zero points: what they still depend on, and how they change over a night.

The difference against the magnitude itself is `datared.charts.zero_point`, pulls are drawn by
`datared.noiseplots.pull_histogram`. Further figures here take what `fit_zero_points` returns.
"""

from itertools import cycle

import numpy as np

from .charts import BLUE, COLOURS, GREY, RED, finite_rows, new_axes

__all__ = [
    "zero_point_colour",
    "zero_point_position",
    "zero_point_residuals",
    "zero_point_trend",
]

#: Colour and marker of each filter, in the order in which they come: told apart without colour.
STYLES = tuple(
    zip(("blue", "red", "green", "pink", "orange", "sky", "black"), "os^Dv*P", strict=True)
)


def zero_point_colour(
    colour, difference, *, value=None, term=0.0, used=None, label="colour (mag)", ax=None
):
    """Catalogue minus instrumental magnitude against the colour: a slope is a colour term.

    Parameters
    ----------
    colour : array-like of float, shape (n,)
        Colours of the stars.
    difference : array-like of float, shape (n,)
        Catalogue magnitude minus instrumental magnitude.
    value, term : float, optional
        Zero point at colour 0 and colour term, drawn as a line.
    used : array-like of bool, shape (n,), optional
        Stars that made the line; the others are drawn as crosses.
    label : str
        Label of the colour's axis: ``"g - i (mag)"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    colour, difference, used = _points(colour, difference, used)
    ax = new_axes(ax)
    _draw(ax, colour, difference, used)
    if value is not None and colour.size:
        ends = np.array([colour.min(), colour.max()])
        name = f"{value:.3f} {term:+.3f} x colour"
        ax.plot(ends, value + term * ends, color=GREY, label=name)
    ax.set(xlabel=label, ylabel="catalogue - instrumental (mag)")
    if used.size:
        ax.legend()
    return ax


def zero_point_residuals(magnitude, residual, *, error=None, used=None, ax=None):
    """Residuals of a solution against the magnitude, with their running median and width.

    Parameters
    ----------
    magnitude : array-like of float, shape (n,) or (n_star, n_frame)
        Magnitudes of the catalogue; of one row for each star, shape (n_star, 1) will do.
    residual : array-like of float, shape (n,) or (n_star, n_frame)
        What the solution left, such as ``NightSolution.residual``.
    error : array-like of float, of the same shape, optional
        What is expected of them: drawn as a band of its running median.
    used : array-like of bool, of the same shape, optional
        Measurements in the solution; the others are drawn as crosses.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes. Values beyond four times the width of the used ones lie outside.
    """
    shape = np.shape(residual)
    magnitude = np.broadcast_to(np.ma.filled(np.ma.asarray(magnitude, float), np.nan), shape)
    size = np.zeros(shape) if error is None else error
    used = np.ones(shape, bool) if used is None else used
    columns = (np.ravel(np.ma.filled(np.ma.asarray(c, float), np.nan))
               for c in (magnitude, residual, size, used))  # fmt: skip
    magnitude, residual, size, used = finite_rows(*columns)
    used = used > 0
    ax = new_axes(ax)
    _draw(ax, magnitude, residual, used)
    ax.axhline(0, color=GREY, linewidth=0.8)
    if used.sum() > 1:
        middle, median, low, high, expected = _running(magnitude[used], residual[used], size[used])
        ax.plot(middle, median, color=COLOURS["black"], label="median")
        for edge, name in ((low, "68 % of the stars"), (high, None)):
            ax.plot(middle, edge, color=COLOURS["black"], linestyle="--", label=name)
        if error is not None:
            ax.fill_between(
                middle, -expected, expected, color=COLOURS["orange"], alpha=0.4, label="expected"
            )
        limit = 4 * np.percentile(np.abs(residual[used]), 68.3)
        if limit > 0:
            ax.set_ylim(-limit, limit)
    ax.set(xlabel="catalogue magnitude (mag)", ylabel="residual (mag)")
    if used.size:
        ax.legend()
    return ax


def zero_point_position(x, y, residual, *, ax=None):
    """Residuals over the frame: a pattern is a flat field that is not right, or a varying PSF.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        Positions in pixels.
    residual : array-like of float, shape (n,)
        Residuals in mag.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; white is no residual, the colours span the range of 90 % of the stars.
    """
    x, y, residual = finite_rows(x, y, residual)
    limit = np.percentile(np.abs(residual), 90) if residual.size else 1.0
    ax = new_axes(ax)
    dots = ax.scatter(
        x, y, c=residual, cmap="PuOr", vmin=-limit or -1, vmax=limit or 1, s=18,
        edgecolors=GREY, linewidths=0.3,
    )  # fmt: skip
    ax.figure.colorbar(dots, ax=ax, label="residual (mag)")
    ax.set(xlabel="x (px)", ylabel="y (px)", aspect="equal")
    return ax


def zero_point_trend(
    x, zero_point, *, error=None, filters=None, lines=None, label="airmass", ax=None
):
    """Zero points of a night against airmass or time: a slope is extinction, a dip is a cloud.

    Parameters
    ----------
    x : array-like of float, shape (n_frame,)
        Airmasses, or dates (then the whole day is taken off).
    zero_point : array-like of float, shape (n_frame,)
        Zero points; frames without one are left out.
    error : array-like of float, shape (n_frame,), optional
        Their errors.
    filters : sequence of str, shape (n_frame,), optional
        Filter of each frame: each is drawn with its median taken off, so that all share an axis.
    lines : dict of str to tuple, optional
        For each filter (or ``""``) the zero point outside the atmosphere and the extinction, drawn
        as a line against airmass.
    label : str
        Label of the axis: ``"airmass"``, ``"JD_UTC (d)"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    size = np.zeros(np.shape(x)) if error is None else error
    names = np.full(np.shape(x), "") if filters is None else np.asarray(filters).astype(str)
    columns = [np.ma.filled(np.ma.asarray(c, dtype=float), np.nan) for c in (x, zero_point, size)]
    good = np.all(np.isfinite(columns), axis=0)
    (x, zero_point, size), names = (column[good] for column in columns), names[good]
    day = np.floor(x.min()) if x.size and x.min() > 1e5 else 0.0
    ax = new_axes(ax)
    for (colour, marker), name in zip(cycle(STYLES), dict.fromkeys(names), strict=False):
        rows = names == name
        level = np.median(zero_point[rows]) if filters is not None else 0.0
        ax.errorbar(
            x[rows] - day, zero_point[rows] - level, yerr=None if error is None else size[rows],
            fmt=marker, color=COLOURS[colour], markersize=5, label=name or None,
        )  # fmt: skip
        if lines and name in lines and np.all(np.isfinite(lines[name])):
            outside, extinction = lines[name]
            ends = np.array([x[rows].min(), x[rows].max()])
            text = f"{name} {extinction:.3f} mag per airmass".strip()
            ax.plot(ends, outside - extinction * ends - level, color=COLOURS[colour], label=text)
    of_filter = "zero point" if filters is None else "zero point - median of the filter"
    ax.set(xlabel=f"{label} - {day:.0f}" if day else label, ylabel=f"{of_filter} (mag)")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax


def _points(x, y, used):
    """Finite points, and which of them were used."""
    used = np.ones(len(x), bool) if used is None else np.asarray(used, bool)
    x, y, used = finite_rows(x, y, used)
    return x, y, used > 0


def _draw(ax, x, y, used):
    """Draw used stars as dots, the others as crosses."""
    ax.plot(x[used], y[used], ".", color=BLUE, markersize=4, label=f"used ({used.sum()})")
    if not used.all():
        left = f"left out ({(~used).sum()})"
        ax.plot(x[~used], y[~used], "x", color=RED, markersize=4, label=left)


def _running(x, y, size):
    """Middle of each group of neighbours in x, with median, 16 % and 84 % of y, median of size."""
    order = np.argsort(x, kind="stable")
    groups = np.array_split(order, max(1, min(12, x.size // 15)))
    rows = [
        (np.median(x[g]), *np.percentile(y[g], [50, 15.87, 84.13]), np.median(size[g]))
        for g in groups
    ]
    return np.array(rows).T
