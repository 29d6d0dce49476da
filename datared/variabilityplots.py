"""Figures of variable stars and of moving sources."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .charts import BLUE, COLOURS, GREY, RED, new_axes, scatter_magnitude
from .errors import ConfigError

__all__ = [
    "folded_curves",
    "mover_motion",
    "movers_figure",
    "variable_scatter",
    "variables_figure",
]

#: Figures of a night show so many variable stars and movers at most.
FIRST = 3


def variable_scatter(table, *, n_labels=5, ax=None):
    """Scatter against magnitude with what is expected; variable stars are marked and numbered.

    Parameters
    ----------
    table : astropy.table.Table
        From `datared.variability.variable_stars`.
    n_labels : int
        So many of the variable stars, the best first, get the number of their star.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes: the scatter of the curves, its running median, the noise that the errors promise
        (photons, sky, read noise, scintillation where it is known, the comparison stars), and the
        variable stars. The scatter is on a logarithmic scale.
    """
    magnitude, scatter, typical, expected = (
        np.asarray(table[name], float) for name in ("magnitude", "scatter", "typical", "expected")
    )
    variable = np.flatnonzero(np.asarray(table["class"]).astype(str) == "variable")
    variable = variable[np.argsort(np.asarray(table["rank"])[variable])]
    ax = scatter_magnitude(
        magnitude,
        scatter,
        expected={
            "running median": _smooth(magnitude, typical),
            "from the errors": _smooth(magnitude, expected),
        },
        marked={"variable": variable} if len(variable) else None,
        ax=new_axes(ax),
    )
    for row in variable[:n_labels]:
        ax.annotate(
            str(table["star"][row]), (magnitude[row], scatter[row]), xytext=(6, 4),
            textcoords="offset points", color=RED,
        )  # fmt: skip
    ax.set(xlabel="instrumental magnitude (mag)")
    return ax


def folded_curves(curves, table, *, stars=None, axes=None):
    """Light curves folded with their periods, each with its sine.

    Parameters
    ----------
    curves : StarCurves
        From `datared.variability.star_curves`.
    table : astropy.table.Table
        From `datared.variability.variable_stars`, of these curves.
    stars : sequence of int, optional
        Numbers of the stars; the first three candidates by default.
    axes : sequence of matplotlib.axes.Axes, optional
        Where to draw, one for each star.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (n_star,)
        The axes. A phase is drawn twice, so that no minimum is cut; bright is up. What the columns
        of the night explain is left in the points. The axes of a star without a period are empty.

    Raises
    ------
    ConfigError
        If a star is not in the table.
    """
    if stars is None:
        rank = np.asarray(table["rank"])
        rows = np.flatnonzero((rank > 0) & (rank <= FIRST))
        rows = rows[np.argsort(rank[rows])]
    else:
        number = {int(star): row for row, star in enumerate(table["star"])}
        missing = [int(star) for star in stars if int(star) not in number]
        if missing:
            raise ConfigError(f"the table has no star {missing}: choose from its column star")
        rows = np.array([number[int(star)] for star in stars], int)
    if axes is None:
        axes = plt.figure().subplots(1, max(len(rows), 1), squeeze=False)[0]
    axes = np.atleast_1d(axes)
    for row, ax in zip(rows, axes, strict=False):
        period, curve = float(table["period"][row]), curves.curves[row]
        error = curves.errors[row]
        known = np.isfinite(curve)
        if not np.isfinite(period):
            ax.set(title=f"star {table['star'][row]}: no period")
            continue
        turns = (curves.time[known] - curves.time.min()) / period
        phase = turns % 1
        for shift in (0, 1):
            ax.errorbar(
                phase + shift, curve[known], error[known], fmt=".", color=BLUE, ecolor=GREY,
                elinewidth=0.6, markersize=4,
            )  # fmt: skip
        angle = 2 * np.pi * phase
        terms = np.column_stack([np.ones(len(phase)), np.cos(angle), np.sin(angle)])
        best = np.linalg.lstsq(terms / error[known][:, None], curve[known] / error[known])[0]
        grid = np.linspace(0, 2, 201)
        model = best[0] + best[1] * np.cos(2 * np.pi * grid) + best[2] * np.sin(2 * np.pi * grid)
        ax.plot(grid, model, color=COLOURS["orange"], label="sine")
        ax.set(
            xlabel="phase", ylabel="magnitude - mean (mag)",
            title=f"star {table['star'][row]}: P = {period:.4f} d", xlim=(0, 2),
        )  # fmt: skip
        ax.yaxis.set_inverted(True)
    return axes


def mover_motion(mover, detections, *, axes=None):
    """RA and Dec of a moving source against time with the fit, and the residuals below.

    Parameters
    ----------
    mover : astropy.table.Row
        A row of the first table of `datared.movers.moving_sources`.
    detections : astropy.table.Table
        The second one.
    axes : sequence of 4 matplotlib.axes.Axes, optional
        Where to draw: RA, Dec, and the residuals of each.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (4,)
        The axes. RA is ``RA cos(Dec)``; both are offsets in arcsec from the place at ``t0``.
    """
    if axes is None:
        shape = {"sharex": True, "height_ratios": [3, 1], "squeeze": False}
        axes = plt.figure(layout="constrained").subplots(2, 2, **shape).ravel()
    axes = np.ravel(axes)
    own = detections[np.asarray(detections["id"]) == mover["id"]]
    minutes = (np.asarray(own["jd_utc_mid"], float) - float(mover["t0"])) * 1440
    ends = np.array([minutes.min(), minutes.max()])
    parts = (("east", "rate_ra", "RA cos(Dec)"), ("north", "rate_dec", "Dec"))
    for k, (column, rate, name) in enumerate(parts):
        rest = np.asarray(own[f"residual_{column}"], float)
        axes[k].plot(minutes, own[column], ".", color=BLUE, label="detections")
        # A line through the fitted places: at t0 they need not be exactly 0.
        start = np.mean(np.asarray(own[column], float) - rest - float(mover[rate]) * minutes)
        axes[k].plot(
            ends, start + float(mover[rate]) * ends, color=COLOURS["orange"],
            label=f'{float(mover[rate]):+.4f}"/min',
        )  # fmt: skip
        axes[k].set(ylabel=f"{name} (arcsec)")
        axes[k].legend()
        axes[k + 2].plot(minutes, rest, ".", color=BLUE)
        axes[k + 2].axhline(0, color=GREY, linewidth=0.8)
        axes[k + 2].set(xlabel="time (min)", ylabel="residual (arcsec)")
    axes[0].set_title(
        f'mover {mover["id"]}: {float(mover["rate"]):.4f} +- {float(mover["rate_err"]):.1g}"/min'
    )
    axes[1].set_title(f"direction {float(mover['position_angle']):.1f} deg (north over east)")
    return axes


def variables_figure(curves, table):
    """Figure of a night: scatter against magnitude, and the first variable stars folded.

    Parameters
    ----------
    curves, table : StarCurves and astropy.table.Table
        From `datared.variability`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    found = table[np.asarray(table["class"]).astype(str) == "variable"]
    found.sort("rank")
    stars = [int(star) for star in found["star"][:FIRST]]
    figure = Figure(figsize=(8, 5 + 3 * bool(stars)), layout="constrained")
    if not stars:
        variable_scatter(table, ax=figure.subplots())
        return figure
    upper, lower = figure.subfigures(2, 1, height_ratios=[5, 3])
    variable_scatter(table, ax=upper.subplots())
    folded_curves(curves, table, stars=stars, axes=lower.subplots(1, len(stars), squeeze=False)[0])
    return figure


def movers_figure(movers, detections):
    """Figure of a night: the motion of the movers that were seen most often.

    Parameters
    ----------
    movers, detections : astropy.table.Table
        From `datared.movers.moving_sources`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; without movers it says so.
    """
    n = min(len(movers), FIRST)
    figure = Figure(figsize=(9, 5 * max(n, 1)), layout="constrained")
    if not n:
        figure.text(0.5, 0.5, "no moving source was found", ha="center")
        return figure
    shape = {"sharex": True, "height_ratios": [3, 1], "squeeze": False}
    for mover, part in zip(movers[:n], np.ravel(figure.subfigures(n, 1)), strict=True):
        mover_motion(mover, detections, axes=part.subplots(2, 2, **shape).ravel())
    return figure


def _smooth(magnitude, noise):
    """Medians of ten stars each: a curve instead of a cloud."""
    good = np.flatnonzero(np.isfinite(magnitude) & np.isfinite(noise))
    order = good[np.argsort(magnitude[good], kind="stable")]
    parts = np.array_split(order, max(len(order) // 10, 1)) if len(order) else []
    middle = [np.median(magnitude[part]) for part in parts]
    return np.array(middle), np.array([np.median(noise[part]) for part in parts])
