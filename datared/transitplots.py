"""Figures of a transit: curve and residuals, sets of columns, posterior, O minus C."""

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from .binning import bin_by_time
from .charts import BLUE, COLOURS, GREY, RED, new_axes
from .errors import DataredError
from .fitplots import posterior_corner

__all__ = ["column_sets", "night_figure", "observed_minus_calculated", "transit_corner",
           "transit_curve"]  # fmt: skip

#: Parameters of a posterior as axes have them.
LABELS = {
    "radius_ratio": "$R_p / R_*$",
    "scaled_axis": "$a / R_*$",
    "impact": "impact\nparameter",
    "depth_mid": "depth at\nmid-transit",
    "duration": "duration (d)",
    "u1": "$u_1$", "u2": "$u_2$", "q1": "$q_1$", "q2": "$q_2$",
}  # fmt: skip


def transit_curve(table, *, minutes=10.0, window=None, axes=None):
    """Draw a light curve without its baseline, the model, means of bins, and the residuals.

    The points of one exposure scatter; the means show whether the model goes through the middle.
    Residuals that hang together, above the line for half an hour and then below it, are red noise.

    Parameters
    ----------
    table : astropy.table.Table
        ``work/transit.ecsv``: ``bjd_tdb_mid``, ``flux``, ``flux_err``, ``model``, ``baseline``,
        ``used``.
    minutes : float
        Width of the bins.
    window : tuple of float, optional
        First and last contact as the ephemeris has them (BJD_TDB), drawn as a grey band.
    axes : sequence of two matplotlib.axes.Axes, optional
        For the curve and for the residuals; a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        The two axes.
    """
    if axes is None:
        axes = _figure((6.4, 5.6)).subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper, lower = axes
    used = np.asarray(table["used"], bool)
    time, flux, error, model, baseline = (
        np.asarray(table[name], float)
        for name in ("bjd_tdb_mid", "flux", "flux_err", "model", "baseline")
    )
    day = np.floor(np.nanmin(time)) if np.isfinite(time).any() else 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        curve, shape, width = (part / baseline for part in (flux, model, error))
        rest = 100 * (curve - shape)
    hours = 24 * (time - day)
    for ax, value in ((upper, curve), (lower, rest)):
        scale = 1.0 if ax is upper else 100.0
        ax.errorbar(hours[used], value[used], yerr=scale * width[used], fmt=".", color=GREY,
                    markersize=4, elinewidth=0.5, alpha=0.6, label="one exposure")  # fmt: skip
        if (~used).any():
            ax.plot(hours[~used], value[~used], "x", color=COLOURS["orange"], label="left out")
        if np.count_nonzero(used) > 3 and np.isfinite(value[used]).all():
            bins = bin_by_time(time[used], value[used], scale * width[used], width=minutes / 1440)
            ax.errorbar(24 * (np.asarray(bins["time"]) - day), bins["flux"], yerr=bins["flux_err"],
                        fmt="o", color=BLUE, markersize=5, zorder=4,
                        label=f"mean of {minutes:g} minutes")  # fmt: skip
        if window is not None:
            ax.axvspan(*(24 * (np.asarray(window) - day)), color=COLOURS["sky"], alpha=0.15,
                       linewidth=0, label="predicted transit")  # fmt: skip
    order = np.argsort(time)
    upper.plot(hours[order], shape[order], color=RED, zorder=3, label="model")
    lower.axhline(0, color=RED, linewidth=1)
    upper.ticklabel_format(axis="y", useOffset=False)
    upper.set(ylabel="relative flux")
    upper.legend(fontsize="small", loc="best")
    lower.set(xlabel=f"hours after BJD_TDB {day:.1f}", ylabel="residual (%)")
    return [upper, lower]


def column_sets(sets, *, most=12, ax=None):
    """Draw how much worse than the best each set of baseline columns is.

    The chosen set is the simplest one near the best, not always the best itself.

    Parameters
    ----------
    sets : astropy.table.Table
        From `datared.detrending.choose_columns`, or ``work/transit_columns.ecsv``.
    most : int
        Number of sets to show, the lowest BIC first; the chosen one is among them.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes(ax)
    rows = np.argsort(np.asarray(sets["delta_bic"], float), kind="stable")
    chosen = np.asarray(sets["chosen"], bool)[rows]
    rows = rows[(np.arange(len(rows)) < most) | chosen]
    chosen = np.asarray(sets["chosen"], bool)[rows]
    places, worse = np.arange(len(rows)), np.asarray(sets["delta_bic"], float)[rows]
    for mask, colour, words in ((~chosen, GREY, None), (chosen, BLUE, "chosen")):
        ax.plot(worse[mask], places[mask], "s" if words else "o", color=colour, label=words)
    ax.set_yticks(places, [str(sets["columns"][row]) for row in rows], fontsize="small")
    ax.invert_yaxis()
    ax.set(xlabel="BIC minus the lowest BIC")
    if chosen.any():
        ax.legend()
    return ax


def transit_corner(samples, *, names=("mid_time", "radius_ratio", "scaled_axis", "impact"),
                   truth=None, axes=None):  # fmt: skip
    """Draw the posterior of some parameters of a transit, and of each pair of them.

    Parameters
    ----------
    samples : astropy.table.Table
        ``TransitPosterior.samples``, or ``work/transit_posterior.ecsv``.
    names : sequence of str
        Columns to show; those that do not vary are left out. The mid-time is shown in minutes
        after its median.
    truth : dict of str to float, optional
        Values to mark, such as those of a simulation or of the literature.
    axes : numpy.ndarray of matplotlib.axes.Axes, shape (n, n), optional
        Where to draw.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes, shape (n, n)
        As of `datared.fitplots.posterior_corner`.

    Raises
    ------
    DataredError
        If a column is missing, there are no samples, or none varies.
    """
    shown, marks = Table(), {}
    missing = [name for name in names if name not in samples.colnames]
    if missing:
        raise DataredError(
            f"there is no {missing[0]!r} in the samples; they have {', '.join(samples.colnames)}"
        )
    if len(samples) == 0:
        raise DataredError("the table has no samples: nothing was sampled")
    for name in names:
        if not np.ptp(samples[name]) > 0:
            continue
        values, label = np.asarray(samples[name], float), LABELS.get(name, name)
        middle, factor = 0.0, 1.0
        if name == "mid_time":
            middle, factor = float(np.median(values)), 1440.0
            label = f"minutes after\n{middle:.4f}"
        shown[label] = factor * (values - middle)
        if truth and name in truth:
            marks[label] = factor * (truth[name] - middle)
    return posterior_corner(shown, names=shown.colnames, truth=marks, axes=axes)


def observed_minus_calculated(ephemeris, mid_time, error, *, labels=None, ax=None):
    """Draw how late transits were, against their number; with the error of the ephemeris.

    On the line, the ephemeris is right. A slope is a wrong period; a wave may be another planet.

    Parameters
    ----------
    ephemeris : datared.ephemeris.Ephemeris
        The prediction.
    mid_time, error : float or array_like of float, shape (n,)
        Measured mid-times (BJD_TDB) and their standard errors (days).
    labels : sequence of str, optional
        A name for each point.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    DataredError
        If there is no mid-time.
    """
    ax = new_axes(ax)
    mid_time, error = (np.atleast_1d(np.asarray(value, float)) for value in (mid_time, error))
    if mid_time.size == 0:
        raise DataredError("there is no mid-time to draw")
    epoch = np.asarray(ephemeris.epoch_of(mid_time))
    late = np.asarray(ephemeris.observed_minus_calculated(mid_time)[0])
    ax.errorbar(epoch, late, yerr=1440 * error, fmt="o", color=BLUE, label="measured")
    span = np.ptp(epoch) or 10
    line = np.linspace(epoch.min() - 0.1 * span, epoch.max() + 0.1 * span, 100)
    width = 1440 * np.hypot(ephemeris.t0_err, line * ephemeris.period_err)
    ax.fill_between(line, -width, width, color=COLOURS["sky"], alpha=0.3, linewidth=0,
                    label="error of the prediction")  # fmt: skip
    ax.axhline(0, color=GREY, linewidth=0.8)
    for x, y, text in zip(epoch, late, labels or (), strict=False):
        ax.annotate(text, (x, y), textcoords="offset points", xytext=(6, 6), fontsize="small")
    ax.set(xlabel="number of the transit", ylabel="observed minus calculated (min)")
    ax.legend()
    return ax


def night_figure(table, numbers, *, samples=None):
    """Draw the figure of a night's transit: curve and residuals; with a posterior, its corner too.

    Parameters
    ----------
    table, numbers, samples
        As from `datared.transitmeasure.measure_transit`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, not shown and not saved; it needs no display.
    """
    known = samples is not None and len(samples) > 0
    figure = _figure((12, 6.2) if known else (6.4, 5.6))
    parts = figure.subfigures(1, 2) if known else [figure]
    expected = numbers.get("ephemeris")
    window = None
    if expected and expected["covered"]:
        half = expected["duration"] / 2
        window = (expected["mid_time"] - half, expected["mid_time"] + half)
    axes = parts[0].subplots(2, 1, sharex=True, height_ratios=(3, 1))
    transit_curve(table, window=window, axes=axes)
    axes[0].set_title(_title(numbers), fontsize="medium")
    if known:
        names = [n for n in ("mid_time", "radius_ratio", "scaled_axis", "impact")
                 if np.ptp(samples[n]) > 0]  # fmt: skip
        corner = parts[1].subplots(len(names), len(names), squeeze=False)
        transit_corner(samples, names=names, axes=corner)
    return figure


def _figure(size):
    """Figure that needs no display."""
    return Figure(figsize=size, layout="constrained")


def _title(numbers):
    """Say the result in a line."""
    found = numbers.get("posterior")
    if found is None:
        fit = numbers["trapezoid"].get("values")
        if fit is None or not numbers["trapezoid"]["significant"]:
            return "no transit is seen"
        return f"trapezoid: {100 * fit['depth']:.2f} % deep"
    if not found["significant"]:
        return "no transit is seen"
    ratio, late = (found["parameters"][name] for name in ("radius_ratio", "o_minus_c"))
    return (
        f"$R_p / R_*$ = {ratio['median']:.4f} ± {ratio['error_red']:.4f}, "
        f"O − C = {late['median']:+.1f} ± {late['error_red']:.1f} min"
    )
