"""Figures of PSF photometry: the shape of a star, what is left of a frame, artificial stars."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import AsinhNorm, Normalize, SymLogNorm
from matplotlib.ticker import FuncFormatter

from .charts import BLUE, COLOURS, GREY, RED, new_axes
from .errors import FrameError
from .skyplots import image_values

__all__ = ["completeness_curve", "error_curve", "show_psf", "show_residual"]

#: The residual spans this many times the noise of the sky to both sides.
NOISES = 8.0
#: Share of the height of a star below which the scale of its image is linear.
LINEAR = 1e-3


def show_psf(psf, *, curves=None, title=None, axes=None):
    """Show the point spread function: its image, and its height against the distance.

    Both scales are logarithmic for bright values, so that the wings are seen, and linear below a
    thousandth of the height, where the values are as often negative as positive.

    Parameters
    ----------
    psf : datared.psf.EPSF
        Any object with ``data`` (square array), ``oversampling``, ``fwhm`` (px) and, if it has one,
        ``radius`` (px).
    curves : dict of str to (array-like of float, array-like of float), optional
        Curves to compare with, by name: distances in pixels and heights relative to the middle.
    title : str, optional
        Text above the image.
    axes : sequence of matplotlib.axes.Axes, optional
        Two axes; a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        The axes of the image and of the profile.

    Raises
    ------
    FrameError
        If the array has no positive value.
    """
    data = np.asarray(psf.data, float)
    height = np.nanmax(data) if np.isfinite(data).any() else 0.0
    if not height > 0:
        raise FrameError("this point spread function has no positive value: there is no star in it")
    share = data / height
    ny, nx = data.shape
    x, y = ((np.arange(n) - (n - 1) / 2) / psf.oversampling for n in (nx, ny))
    reach = min(getattr(psf, "radius", None) or x[-1], x[-1])
    axes = plt.figure(figsize=(9, 3.7)).subplots(1, 2) if axes is None else axes
    left, right = axes
    step = 0.5 / psf.oversampling
    image = left.imshow(
        share, origin="lower", cmap="viridis", interpolation="nearest",
        norm=SymLogNorm(LINEAR, linscale=0.5, vmin=-LINEAR, vmax=1.0),
        extent=(x[0] - step, x[-1] + step, y[0] - step, y[-1] + step),
    )  # fmt: skip
    bar = left.figure.colorbar(
        image, ax=left, label="height / that in the middle", fraction=0.046, pad=0.02
    )
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_plain))
    left.set(xlabel="x from the star (px)", ylabel="y from the star (px)")
    left.set(xlim=(-reach, reach), ylim=(-reach, reach))
    distance = np.hypot(x[None, :], y[:, None])
    inside = distance <= reach
    right.plot(
        distance[inside], share[inside], ".", color=COLOURS["sky"], markersize=2, rasterized=True,
        label="nodes of the model",
    )  # fmt: skip
    for (name, (r, value)), style in zip((curves or {}).items(), ("-", "--", ":"), strict=False):
        right.plot(r, value, style, color=RED, label=name)
    right.axvline(psf.fwhm / 2, color=GREY, linewidth=1, label=f"FWHM / 2 = {psf.fwhm / 2:.2f} px")
    right.set_yscale("symlog", linthresh=LINEAR, linscale=0.5)
    right.yaxis.set_major_formatter(FuncFormatter(_plain))
    right.set(xlabel="distance from the star (px)", ylabel="height / that in the middle")
    right.set(xlim=(0, reach), ylim=(-2 * LINEAR, 1.5))
    right.legend(loc="upper right")
    if title:
        left.set_title(title)
    return [left, right]


def show_residual(
    frame, residual, *, region=None, stars=None, noise=None, titles=("frame", "model", "residual"),
    axes=None,
):  # fmt: skip
    """Show a part of a frame, the model of its stars, and what is left: each with its own scale.

    Frame and model have the same grey levels. The scale of the residual is linear and even around
    zero, from blue (too little light) to red (too much).

    Parameters
    ----------
    frame : numpy.ndarray or astropy.nddata.CCDData, shape (ny, nx)
        The frame before.
    residual : numpy.ndarray or astropy.nddata.CCDData, shape (ny, nx)
        The frame without its stars. Its level in the region is subtracted before it is shown.
    region : (float, float, float, float), optional
        First and last x, first and last y in pixels; by default the whole frame.
    stars : (array-like of float, array-like of float), optional
        Places ``(x, y)`` of the stars of the model, marked on the model.
    noise : float, optional
        Noise of a pixel of the sky, for the scale of the residual (8 times to both sides); by
        default 1.4826 MAD of the residual in the region.
    titles : sequence of str
        Texts above the three panels.
    axes : sequence of matplotlib.axes.Axes, optional
        Three axes; a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        The axes of frame, model and residual.

    Raises
    ------
    FrameError
        If the two are not of the same shape, or no pixel of the region has a value.
    """
    before, unit = image_values(frame)
    after, _ = image_values(residual)
    if before.shape != after.shape:
        raise FrameError(f"a frame of shape {before.shape} has no residual of shape {after.shape}")
    ny, nx = before.shape
    x0, x1, y0, y1 = (0, nx - 1, 0, ny - 1) if region is None else region
    part = (
        slice(max(0, round(y0)), min(ny, round(y1) + 1)),
        slice(max(0, round(x0)), min(nx, round(x1) + 1)),
    )
    left = after[part]
    left = left[np.isfinite(left)]
    if not left.size:
        raise FrameError(f"no pixel of the region {(x0, x1, y0, y1)} has a value")
    level = np.median(left)
    if noise is None:
        noise = 1.4826 * np.median(np.abs(left - level)) or 1.0
    seen = before[part][np.isfinite(before[part])] - level
    brightest = max(np.percentile(seen, 99.7) if seen.size else 0.0, 10 * noise)

    def grey():
        # Faint and bright stars together; the noise of the sky stays on the linear part.
        return AsinhNorm(linear_width=4 * noise, vmin=-3 * noise, vmax=brightest)

    if axes is None:
        height = 4.1 * max(0.6, (y1 - y0) / max(x1 - x0, 1))
        axes = plt.figure(figsize=(10.5, min(height, 7))).subplots(1, 3, sharex=True, sharey=True)
    panels = (
        (before - level, "gray_r", grey(), "without sky"),
        (before - after, "gray_r", grey(), "without sky"),
        (after - level, "RdBu_r", Normalize(-NOISES * noise, NOISES * noise), "left over"),
    )
    for ax, title, (values, colours, norm, name) in zip(axes, titles, panels, strict=True):
        image = ax.imshow(values, origin="lower", cmap=colours, norm=norm, interpolation="nearest")
        ax.set(title=title, xlabel="x (px)", xlim=(x0 - 0.5, x1 + 0.5), ylim=(y0 - 0.5, y1 + 0.5))
        label = f"{name} ({unit})"
        bar = ax.figure.colorbar(image, ax=ax, location="bottom", label=label, pad=0.02)
        if name == "without sky":
            bar.set_ticks(_counts(4 * noise, brightest))
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes[0].set_ylabel("y (px)")
    if stars is not None:
        axes[1].plot(
            *stars, "+", color=COLOURS["orange"], markersize=6, markeredgewidth=1, linestyle="none"
        )
    return list(axes)


def completeness_curve(table, *, limit=None, label=None, unit="ADU", ax=None):
    """Share of the artificial stars that were found, against their flux.

    Parameters
    ----------
    table : astropy.table.Table
        Result of `datared.artificial.completeness`.
    limit : float, optional
        Flux at which half of the stars are found, to be marked.
    label : str, optional
        Name of the points in the legend.
    unit : str
        Unit of the fluxes.
    ax : matplotlib.axes.Axes, optional
        Where to draw; several curves may share one axes.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; fluxes are on a logarithmic scale.
    """
    ax = new_axes(ax)
    flux, share, low, high = (
        np.asarray(table[name], float)
        for name in ("flux", "completeness", "completeness_low", "completeness_high")
    )
    colour, style = _next_style(ax)
    bars = np.maximum([share - low, high - share], 0)
    ax.errorbar(flux, share, bars, fmt=style, color=colour, capsize=2, label=label)
    if len(ax.containers) == 1:
        ax.axhline(0.5, color=GREY, linewidth=0.8)
    if limit is not None:
        ax.axvline(limit, color=colour, linestyle=":", label=f"half are found: {limit:.0f} {unit}")
    if np.isfinite(share).any():  # an axis without points cannot be logarithmic
        ax.set_xscale("log")
    ax.set(ylim=(-0.04, 1.04), xlabel=f"flux put in ({unit})")
    ax.set_ylabel("share that is found")
    ax.xaxis.set_minor_formatter(FuncFormatter(_one_two_five))
    ax.xaxis.set_major_formatter(FuncFormatter(_one_two_five))
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="lower right")
    return ax


def error_curve(table, *, label=None, unit="ADU", ax=None):
    """Compare the true scatter of the artificial stars with the error that is stated, by flux.

    Parameters
    ----------
    table : astropy.table.Table
        Result of `datared.artificial.completeness`.
    label : str, optional
        Name of the points in the legend.
    unit : str
        Unit of the fluxes.
    ax : matplotlib.axes.Axes, optional
        Where to draw; several curves may share one axes.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, both logarithmic.
    """
    ax = new_axes(ax)
    flux, true, stated, n = (
        np.asarray(table[name], float) for name in ("flux", "true_error", "stated_error", "n_found")
    )
    good = np.isfinite(true) & np.isfinite(stated) & (n > 0)
    colour, style = _next_style(ax)
    # The MAD of n normal numbers is uncertain by 1.17 / sqrt(n).
    bars = 100 * true[good] * np.minimum(1.17 / np.sqrt(n[good]), 0.9)
    name = f"{label}: " if label else ""
    ax.errorbar(
        flux[good], 100 * true[good], bars, fmt=style[0], color=colour, capsize=2,
        label=f"{name}true",
    )  # fmt: skip
    line = "--" if style[0] == "s" else "-"
    ax.plot(flux[good], 100 * stated[good], line, color=colour, label=f"{name}stated")
    if good.any():  # an axis without points cannot be logarithmic
        ax.set(xscale="log", yscale="log")
    ax.set(xlabel=f"flux put in ({unit})", ylabel="error of the flux (%)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(FuncFormatter(_one_two_five))
        axis.set_major_formatter(FuncFormatter(_one_two_five))
    ax.legend()
    return ax


def _counts(linear, brightest):
    """Zero and 1, 3 times powers of ten beyond the linear part: numbers that do not overlap."""
    powers = 10.0 ** np.arange(-8, 9)
    ticks = np.sort(np.concatenate([powers, 3 * powers]))
    return [0.0, *ticks[(ticks > 0.7 * linear) & (ticks < 0.9 * brightest)]]


def _next_style(ax):
    """Colour and marker of the next curve: two curves differ in both."""
    styles = ((BLUE, "o-"), (RED, "s--"), (COLOURS["green"], "^:"), (COLOURS["black"], "D-."))
    return styles[len(ax.containers) % len(styles)]


def _plain(value, _):
    """Write a share as 0.01, not as a power of ten."""
    return f"{value:g}"


def _one_two_five(value, _):
    """Write 1, 2 and 5 times powers of ten; the other ticks stay without a number."""
    if not value > 0:
        return ""
    first = value / 10 ** np.floor(np.log10(value) + 1e-9)
    return f"{value:g}" if min(abs(first - one) for one in (1, 2, 5)) < 1e-6 else ""
