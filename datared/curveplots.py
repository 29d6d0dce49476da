"""Figures of light curves: raw ones, comparison stars, trends, and how the scatter averages out."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

from .baselines import curve_time
from .charts import BLUE, COLOURS, GREY, RED, finite_rows, new_axes

__all__ = ["bin_scatter", "comparison_curves", "light_curve", "raw_curves", "trend", "trends"]

#: Columns of a light curve that `trends` draws, with their labels.
TRENDS = {
    "flux": "relative flux", "transparency": "transparency", "airmass": "airmass",
    "fwhm": "FWHM (px)", "sky": "sky (counts)", "x": "x (px)", "y": "y (px)",
}  # fmt: skip


def light_curve(
    time, value, *, error=None, kind="flux", scale="BJD_TDB", day=None, model=None, flagged=None,
    label=None, ax=None,
):  # fmt: skip
    """Brightness against time; the axis of magnitudes is turned round, that of fluxes is not.

    Parameters
    ----------
    time : array-like of float, shape (n,)
        Julian dates.
    value : array-like of float, shape (n,)
        Relative fluxes or magnitudes.
    error : array-like of float, shape (n,), optional
        Standard deviations.
    kind : {"flux", "magnitude"}
        What the values are.
    scale : str
        Kind of date for the label: ``"BJD_TDB"``, ``"JD_UTC"``.
    day : float, optional
        Day to take off the dates; by default the day of the first one. Give it where several
        curves share one axes.
    model : array-like of float, shape (n,), optional
        Model at the same times, drawn as a line.
    flagged : array-like of bool, shape (n,), optional
        Points to draw as crosses: clouds, saturation.
    label : str, optional
        Name of the points in the legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    if kind not in ("flux", "magnitude"):
        raise ValueError(f"kind {kind!r} is not 'flux' or 'magnitude'.")
    ax = new_axes(ax)
    time, value = _floats(time), _floats(value)
    day = _day(time) if day is None else day
    t = time - day
    bad = np.zeros(t.size, bool) if flagged is None else np.asarray(flagged, bool)
    error = None if error is None else np.asarray(error, float)[~bad]
    ax.errorbar(
        t[~bad], value[~bad], yerr=error, fmt="o", markersize=3, elinewidth=0.6, label=label
    )
    if bad.any():
        ax.plot(t[bad], value[bad], "x", color=GREY, label="flagged")
    if model is not None:
        order = np.argsort(t)
        ax.plot(t[order], np.asarray(model, float)[order], color=RED, zorder=3, label="model")
    name = "relative flux" if kind == "flux" else "magnitude (mag)"
    ax.set(xlabel=f"{scale} - {day:.0f} (d)", ylabel=name)
    ax.ticklabel_format(axis="y", useOffset=False)
    if kind == "magnitude" and not ax.yaxis_inverted():
        ax.invert_yaxis()
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    return ax


def trend(time, value, *, label, scale="BJD_TDB", ax=None):
    """One number of each frame against time: airmass, seeing, sky, position.

    Parameters
    ----------
    time : array-like of float, shape (n,)
        Julian dates; the whole day is taken off.
    value : array-like of float, shape (n,)
        The number.
    label : str
        What it is, with its unit: ``"FWHM (arcsec)"``.
    scale : str
        Kind of date, for the label.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    time, value = finite_rows(time, value)
    day = np.floor(time.min()) if time.size else 0.0
    ax = new_axes(ax)
    ax.plot(time - day, value, ".-", color=BLUE, linewidth=0.6)
    ax.set(xlabel=f"{scale} - {day:.0f} (d)", ylabel=label)
    return ax


def raw_curves(time, flux, *, names=None, kind="flux", step=0.0, scale="BJD_TDB", ax=None):
    """Light of several stars against time, as it was measured: what they share is not theirs.

    Parameters
    ----------
    time : array-like of float, shape (n_epoch,)
        Julian dates; the whole day is taken off.
    flux : array-like of float, shape (n_star, n_epoch)
        Light of each star, such as counts per second; NaN, masked and negative values are allowed.
    names : sequence of str, optional
        Names of the stars; by default their numbers.
    kind : {"flux", "magnitude"}
        Draw each flux in units of the star's median, or instrumental magnitudes
        -2.5 log10(flux) on an axis that is turned round. A flux that is not positive has no
        magnitude; the legend counts them.
    step : float
        Shift each star by this much from the one before (upwards), so that they can be told apart.
    scale : str
        Kind of date, for the label.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    ValueError
        If the kind is not known, or shapes differ.
    """
    if kind not in ("flux", "magnitude"):
        raise ValueError(f"kind {kind!r} is not 'flux' or 'magnitude'.")
    time, flux, names = _many(time, flux, names)
    ax = new_axes(ax)
    for k, (name, values) in enumerate(zip(names, flux, strict=True)):
        if kind == "magnitude":
            light = values > 0
            dark = np.count_nonzero(np.isfinite(values) & ~light)
            values = -2.5 * np.log10(np.where(light, values, np.nan)) - k * step
            name = f"{name} ({dark} without magnitude)" if dark else name
        else:
            values = _relative(values) + k * step
        _draw_star(ax, time, values, k, name)
    label = "flux (star's median = 1)" if kind == "flux" else "instrumental magnitude (mag)"
    _finish(ax, time, scale, label, shifted=step)
    if kind == "magnitude" and not ax.yaxis_inverted():
        ax.invert_yaxis()
    return ax


def comparison_curves(time, curves, *, names=None, step=None, scale="BJD_TDB", ax=None):
    """Comparison stars, each against the ensemble of the others, one above the other.

    Parameters
    ----------
    time : array-like of float, shape (n_epoch,)
        Julian dates; the whole day is taken off.
    curves : array-like of float, shape (n_star, n_epoch)
        Ratio of each star to the ensemble without it; NaN where there is none.
    names : sequence of str, optional
        Names of the stars; by default their numbers.
    step : float, optional
        Distance between two stars (relative flux); by default six times the median scatter.
    scale : str
        Kind of date, for the label.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes. The legend has the scatter of each star (1.4826 times the median deviation).

    Raises
    ------
    ValueError
        If shapes differ.
    """
    time, curves, names = _many(time, curves, names)
    relative = [_relative(values) for values in curves]
    scatter = [1.4826 * _middle(np.abs(values - 1)) for values in relative]
    if step is None:
        step = 6 * _middle(np.array(scatter)) if scatter else 0.0
        step = step if np.isfinite(step) else 0.0
    ax = new_axes(ax)
    for k, (name, values, width) in enumerate(zip(names, relative, scatter, strict=True)):
        ax.axhline(1 + k * step, color=GREY, linewidth=0.5, zorder=1)
        _draw_star(ax, time, values + k * step, k, f"{name}: {100 * width:.2g} %")
    return _finish(ax, time, scale, "star / ensemble (median = 1)", shifted=step)


def trends(curve, *, names=None, flagged=None, axes=None):
    """Panels of what may be behind a slow change: transparency, airmass, FWHM, sky, position.

    Parameters
    ----------
    curve : astropy.table.Table
        A light curve from `datared.lightcurve.differential_light_curve`.
    names : sequence of str, optional
        Columns to draw, one in each panel; by default ``flux``, ``transparency``, ``airmass``,
        ``fwhm``, ``sky``, ``x`` and ``y``, as far as the curve has them with a finite value.
    flagged : array-like of bool, shape (n,), optional
        Epochs to draw as crosses.
    axes : sequence of matplotlib.axes.Axes, optional
        One for each panel; a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        The panels from top to bottom. A line marks each change of the side of the pier.

    Raises
    ------
    ValueError
        If a column is missing, or the number of axes is not that of the panels.
    """
    missing = [name for name in names or () if name not in curve.colnames]
    if missing:
        raise ValueError(f"the light curve has no column {missing}; there are {curve.colnames}")
    if names is None:
        names = [n for n in TRENDS if n in curve.colnames and np.isfinite(_floats(curve[n])).any()]
    names = list(names)
    if axes is None:
        figure = plt.figure(figsize=(7, 1 + 1.2 * len(names)), layout="constrained")
        axes = figure.subplots(max(len(names), 1), 1, sharex=True, squeeze=False)[:, 0]
    if len(axes) < len(names):
        raise ValueError(f"{len(axes)} axes for the {len(names)} panels {names}")
    time, scale = curve_time(curve)
    bad = np.zeros(len(curve), bool) if flagged is None else np.asarray(flagged, bool)
    turns = []
    if "flipped" in curve.colnames:
        order = np.argsort(time)
        side = np.asarray(curve["flipped"], bool)[order]
        turns = [time[order][k : k + 2].mean() for k in np.flatnonzero(np.diff(side))]
    day = _day(time)
    for name, ax in zip(names, axes, strict=False):
        values = _floats(curve[name])
        ax.plot(time[~bad] - day, values[~bad], ".", color=BLUE, markersize=4)
        if bad.any():
            ax.plot(time[bad] - day, values[bad], "x", color=RED, markersize=4, label="flagged")
        for k, turn in enumerate(turns):
            name_once = None if k else "meridian flip"
            ax.axvline(turn - day, color=GREY, linestyle="--", linewidth=0.8, label=name_once)
        ax.set_ylabel(TRENDS.get(name, name))
        ax.ticklabel_format(axis="y", useOffset=False)
    axes[-1].set_xlabel(f"{scale} - {day:.0f} (d)")
    if names and (bad.any() or turns):
        axes[0].legend(ncols=2, fontsize=8)
    return list(axes)


def bin_scatter(noise, *, ax=None):
    """Scatter of averages against their length: white noise falls with the root of their number.

    Parameters
    ----------
    noise : datared.rednoise.RedNoise
        From `datared.rednoise.red_noise`.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, both logarithmic. The line is white noise; points above it are red noise. The
        band marks the widths that made beta.
    """
    ax = new_axes(ax)
    ax.plot(*finite_rows(noise.widths, 100 * noise.expected), color=GREY, label="white noise")
    width, scatter = finite_rows(noise.widths, 100 * noise.scatter)
    told = f"beta = {noise.beta:.2f} (white: 1 ± {noise.beta_err:.2f})"
    label = told if np.isfinite(noise.beta) else "residuals"
    ax.plot(width, scatter, "o", color=BLUE, markersize=4, label=label)
    if noise.used.any():
        some = noise.widths[noise.used]
        ax.axvspan(some.min(), some.max(), color=COLOURS["sky"], alpha=0.2, linewidth=0)
    ax.set(xscale="log", xlabel="width of the bins (min)", ylabel="scatter of the bins (%)")
    if np.any(scatter > 0):
        ax.set_yscale("log")
    for axis, values in ((ax.xaxis, width), (ax.yaxis, scatter)):
        axis.set_minor_formatter(NullFormatter())
        if np.any(values > 0):
            low, high = values[values > 0].min(), values.max()
            ticks = np.outer(10.0 ** np.arange(-6, 5), [1, 2, 3, 5]).ravel()
            ticks = ticks[(ticks > 0.8 * low) & (ticks < 1.25 * high)]
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.legend()
    return ax


def _floats(values):
    """Return floats, NaN where the values are masked."""
    return np.ma.filled(np.ma.asarray(values).astype(float), np.nan)


def _middle(values):
    """Median of the finite values; NaN without any."""
    values = values[np.isfinite(values)]
    return np.median(values) if values.size else np.nan


def _relative(values):
    """Values in units of their median; NaN where that is not positive."""
    middle = _middle(values)
    return values / (middle if middle > 0 else np.nan)


def _day(time):
    """Day of the first date."""
    return np.floor(np.nanmin(time)) if np.isfinite(time).any() else 0.0


def _many(time, values, names):
    """Return times, curves of all stars and their names, with shapes that fit."""
    time, values = _floats(time), _floats(values)
    if values.ndim != 2 or values.shape[1] != len(time):
        raise ValueError(f"curves {values.shape} must be (n_star, n_epoch = {len(time)})")
    names = [f"star {k}" for k in range(len(values))] if names is None else [*map(str, names)]
    if len(names) != len(values):
        raise ValueError(f"{len(names)} names for {len(values)} stars")
    return time, values, names


def _draw_star(ax, time, values, k, name):
    """Draw one of many stars: colour and marker tell them apart."""
    colour = list(COLOURS.values())[k % len(COLOURS)]
    marker = "os^Dv<>"[(k // len(COLOURS)) % 7]
    ax.plot(time - _day(time), values, marker, color=colour, markersize=3, label=name)


def _finish(ax, time, scale, label, *, shifted):
    """Label the axes of many stars; the legend stands beside them."""
    if shifted:
        label = f"{label}, shifted"
    ax.set(xlabel=f"{scale} - {_day(time):.0f} (d)", ylabel=label)
    ax.ticklabel_format(axis="y", useOffset=False)
    if ax.get_legend_handles_labels()[1]:
        # The star on top of the figure is the last one that was drawn.
        ax.legend(reverse=True, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return ax
