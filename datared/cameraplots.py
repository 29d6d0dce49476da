"""Figures of the camera: linearity, dark current, hot pixels, ratio of flats.

Its photon transfer is drawn by `datared.panels`, its distortion by `datared.plots.distortion_map`.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .charts import BLUE, COLOURS, GREY, RED, new_axes

__all__ = ["dark_arrhenius", "dark_time", "flat_ratio_map", "hot_histogram", "linearity_plot"]

#: Points of further sets on the same axes differ by colour and shape.
_SERIES = [(COLOURS[name], marker) for name, marker in zip(
    ("blue", "green", "orange", "pink", "sky"), "osD^v", strict=True)]  # fmt: skip


def linearity_plot(linearity, *, axes=None):
    """Level against exposure time with the line of a linear camera, and what differs from it.

    Parameters
    ----------
    linearity : datared.linearity.Linearity
        From `datared.linearity.measure_linearity`. Levels that took no part are red crosses.
    axes : (matplotlib.axes.Axes, matplotlib.axes.Axes), optional
        Upper axes (levels against exposure time) and lower ones (deviation in percent against
        level); a new figure by default.

    Returns
    -------
    tuple of matplotlib.axes.Axes
        The two axes.
    """
    if axes is None:
        figure = plt.figure(figsize=(6.4, 5.6), layout="constrained")
        axes = tuple(figure.subplots(2, 1, gridspec_kw={"height_ratios": [3, 2]}))
    upper, lower = axes
    time, level = (np.asarray(one, float) for one in (linearity.exptimes, linearity.levels))
    error = np.nan_to_num(np.broadcast_to(np.asarray(linearity.errors, float), level.shape))
    used, expected = np.asarray(linearity.used, bool), np.asarray(linearity.expected, float)
    order = np.argsort(time, kind="stable")
    upper.plot(time[order], expected[order], color=GREY, zorder=1, label="linear camera")
    percent, percent_err = 100 * linearity.residuals, 100 * error / np.where(expected, expected, 1)
    _points(upper, time, level, error, used, label="flats")
    _points(lower, level, percent, percent_err, used)
    if np.isfinite(linearity.full_well):
        text = f"full well {linearity.full_well:.0f} ADU"
        upper.axhline(linearity.full_well, color=RED, linestyle="--", label=text)
        lower.axvline(linearity.full_well, color=RED, linestyle="--")
    if used.any():
        grid = np.linspace(0, level[used].max(), 101)
        curve = 100 * linearity.nonlinearity(grid)
        lower.plot(grid, curve, color=COLOURS["black"], linewidth=1, label="fitted curve")
        # A full pixel is far below the line; the rest must be seen all the same.
        spread = np.ptp(np.append(percent[used], [-1, 1]))
        low, high = np.min(np.append(percent[used], -1)), np.max(np.append(percent[used], 1))
        lower.set_ylim(low - 0.6 * spread, high + 0.25 * spread)
        below = ~used & (percent < lower.get_ylim()[0])
        edge = np.full(np.count_nonzero(below), lower.get_ylim()[0])
        lower.plot(level[below], edge, "v", color=RED, clip_on=False, zorder=3)
    lower.axhspan(-1, 1, color=GREY, alpha=0.2, linewidth=0, label="within 1 %")
    lower.axhline(0, color=GREY, linewidth=0.8)
    upper.set(xlabel="exposure time (s)", ylabel="level above the bias (ADU)")
    lower.set(xlabel="level above the bias (ADU)", ylabel="deviation (%)")
    upper.set_xlim(left=0)
    upper.set_ylim(0, 1.08 * np.nanmax(level) if level.size else 1)
    lower.set_xlim(0, 1.05 * np.nanmax(level) if level.size else 1)
    for ax in axes:
        ax.legend()
    return upper, lower


def dark_time(current, *, label=None, ax=None):
    """Level of darks against exposure time, with the fitted line: its slope is the dark current.

    Parameters
    ----------
    current : datared.darkcurrent.DarkCurrent
        From `datared.darkcurrent.dark_current`. Frames left out are red crosses.
    label : str, optional
        Name in the legend, such as the temperature; the rate is added.
    ax : matplotlib.axes.Axes, optional
        Where to draw; several temperatures may be drawn on the same axes.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes(ax)
    colour, marker = _series(ax)
    rate = f"{_with_error(current.rate, current.rate_err)} ADU/s"
    if np.isfinite(current.electrons):
        rate = f"{_with_error(current.electrons, current.electrons_err)} e-/s"
    time = np.array([0, np.max(current.exptimes)])
    ax.plot(time, current.offset + current.rate * time, color=colour, linewidth=1, zorder=1)
    _points(
        ax, current.exptimes, current.levels, np.nan_to_num(current.errors), current.used,
        label=rate if label is None else f"{label}: {rate}", colour=colour, marker=marker,
    )  # fmt: skip
    ax.set(xlabel="exposure time (s)", ylabel="level above the bias (ADU)")
    ax.legend()
    return ax


def dark_arrhenius(warming, *, unit="ADU/s", label=None, ax=None):
    """Dark current against the temperature of the sensor, with the law of Arrhenius.

    Parameters
    ----------
    warming : datared.darkcurrent.DarkTemperature
        From `datared.darkcurrent.dark_temperature`.
    unit : str
        Unit of its rates: ``"e-/s"`` or ``"ADU/s"``.
    label : str, optional
        Name in the legend; energy and doubling temperature are added.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the rate is on a logarithmic scale, a rate that is not positive is not shown.
    """
    ax = new_axes(ax)
    colour, marker = _series(ax)
    celsius, rates = warming.temperatures, warming.rates
    text = (
        f"{_with_error(warming.energy, warming.energy_err)} eV\ndoubles in "
        f"{_with_error(warming.doubling, warming.doubling_err)} K at {warming.at:.0f} °C"
    )
    margin = 0.05 * np.ptp(celsius)
    grid = np.linspace(celsius.min() - margin, celsius.max() + margin, 101)
    ax.plot(grid, warming.rates_at(grid), color=colour, linewidth=1, zorder=1)
    positive = rates > 0
    # An error bar that reaches below 0 has no end on this scale.
    error = np.nan_to_num(np.hypot(warming.errors, warming.scatter * rates))
    lower = np.minimum(error, 0.99 * np.abs(rates))
    ax.errorbar(
        celsius[positive], rates[positive], np.array([lower, error])[:, positive], fmt=marker,
        color=colour, capsize=2, label=text if label is None else f"{label}: {text}",
    )  # fmt: skip
    ax.set(yscale="log", xlabel="temperature of the sensor (°C)", ylabel=f"dark current ({unit})")
    _plain_numbers(ax.yaxis)
    ax.legend()
    return ax


def hot_histogram(hot, *, unit="e-/s", label=None, ax=None):
    """Cumulative histogram of hot pixels: how many are hotter than a rate.

    Parameters
    ----------
    hot : datared.darkcurrent.HotPixels
        From `datared.darkcurrent.hot_pixels`.
    unit : str
        Unit of its rates: ``"e-/s"``, or ``"ADU/s"`` if no gain was given.
    label : str, optional
        Name in the legend, such as the temperature.
    ax : matplotlib.axes.Axes, optional
        Where to draw; several temperatures may be drawn on the same axes.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, both logarithmic. The scale at the right is the share of all pixels.
    """
    new = ax is None
    if new:  # Room for the scale at the right.
        ax = plt.figure(layout="constrained").subplots()
    count = len([line for line in ax.lines if line.get_drawstyle() == "steps-pre"])
    colour = _SERIES[count % len(_SERIES)][0]
    style = ["-", "--", ":", "-."][count % 4]
    # From the limit to the faintest all of them are hotter, before the hottest one is.
    rates = np.append(hot.limit, np.sort(hot.rates))
    number = np.append(len(hot.rates), np.arange(len(hot.rates), 0, -1))
    name = f"{len(hot.rates)} of {hot.n_pixels} pixels"
    some = slice(None if len(hot.rates) else 0)  # A logarithm does not show none.
    ax.plot(
        rates[some], number[some], color=colour, linestyle=style, drawstyle="steps-pre",
        label=name if label is None else f"{label}: {name}",
    )  # fmt: skip
    ax.axvline(hot.limit, color=colour, linewidth=0.8, linestyle=":")
    ax.set(
        xscale="log", yscale="log", xlabel=f"dark current above the surroundings ({unit})",
        ylabel="number of hotter pixels",
    )  # fmt: skip
    for axis in (ax.xaxis, ax.yaxis):
        _plain_numbers(axis)
    if new:
        share = ax.secondary_yaxis(
            "right", functions=(lambda n: 100 * n / hot.n_pixels, lambda s: s * hot.n_pixels / 100)
        )
        share.set_ylabel("share of all pixels (%)")
        _plain_numbers(share.yaxis, like=ax.yaxis)
    ax.legend()
    return ax


def flat_ratio_map(comparison, *, limit=None, numbers=True, ax=None):
    """Smoothed ratio of two flats, with the number of each region and circles around spots.

    Parameters
    ----------
    comparison : datared.flatratio.FlatRatio
        From `datared.flatratio.compare_flats`.
    limit : float, optional
        Percent to which the colours reach on either side of 0; by default what 99.5 % of the
        pixels need.
    numbers : bool
        Write the deviation in percent and its error into each region.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    percent = 100 * (comparison.smoothed - 1)
    ny, nx = percent.shape
    if limit is None:
        known = np.abs(percent[np.isfinite(percent)])
        limit = max(float(np.percentile(known, 99.5)), 1e-4)
    if ax is None:
        size = (6.4, min(max(5.2 * ny / nx, 2.0) + 0.6, 7.0))
        ax = plt.figure(figsize=size, layout="constrained").subplots()
    image = ax.imshow(
        percent, origin="lower", cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046 * ny / nx, pad=0.02)
    bar.set_label("first / second flat - 1 (%)")
    table = comparison.regions
    for name, size, draw in (("y", ny, ax.axhline), ("x", nx, ax.axvline)):
        n = len(np.unique(table[name]))
        for edge in np.linspace(0, size, n + 1).astype(int)[1:-1]:
            draw(edge - 0.5, color=GREY, linewidth=0.6)
    for row in table if numbers else ():
        if np.isfinite(row["significance"]):
            text = _with_error(100 * (row["ratio"] - 1), 100 * row["error"], sign=True, sep="\n±")
            ax.text(
                row["x"], row["y"], text, ha="center", va="center", fontsize="small",
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.5},
            )  # fmt: skip
    for spot in comparison.spots:
        radius = 1.2 * np.sqrt(spot["pixels"] / np.pi) + comparison.smooth
        ring = plt.Circle((spot["x"], spot["y"]), radius, color=RED, fill=False, linewidth=1.5)
        ax.add_patch(ring)
    unit = "px" if comparison.binned == (1, 1) else "binned px"
    ax.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})")
    ax.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5))
    return ax


def _points(ax, x, y, error, used, *, label=None, colour=BLUE, marker="o"):
    """Points that took part with their errors, the others as red crosses."""
    ax.errorbar(
        x[used], y[used], error[used], fmt=marker, color=colour, markersize=4, capsize=2,
        label=label,
    )  # fmt: skip
    if not np.all(used):
        ax.plot(x[~used], y[~used], "x", color=RED, label=None if label is None else "left out")


def _series(ax):
    """Colour and marker of the next set of points on these axes."""
    return _SERIES[len(ax.containers) % len(_SERIES)]


def _plain_numbers(axis, *, like=None):
    """Write 0.02 and 10 on a logarithmic axis, and numbers between where it spans little."""
    low, high = (like or axis).get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _with_error(value, error, *, sign=False, sep=" ± "):
    """Write a number with its error, to the second digit of a small error, else to the first."""
    plus = "+" if sign else ""
    if not (np.isfinite(error) and error > 0):
        return f"{value:{plus}.3g}"
    first = int(np.floor(np.log10(error)))
    digits = max(0, -first + (error / 10.0**first < 2))
    return f"{value:{plus}.{digits}f}{sep}{error:.{digits}f}"
