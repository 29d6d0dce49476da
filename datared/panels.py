"""Figures of calibration frames: masters, their noise, and the photon transfer of the camera."""

import numpy as np
from astropy.nddata import CCDData
from matplotlib import pyplot as plt
from scipy import ndimage

from .charts import BLUE, COLOURS, GREY, RED, finite_rows, new_axes
from .errors import FrameError
from .plots import show_frame

__all__ = ["noise_ratio", "show_master", "smooth_image", "transfer_curve"]


def smooth_image(image, *, sigma, mask=None):
    r"""Smooth an image by a Gaussian that passes over bad pixels.

    .. math:: S = (w D) * G / (w * G), \quad w = 1 \ \text{for good pixels, else}\ 0

    Parameters
    ----------
    image : array-like of shape (ny, nx)
        Image.
    sigma : float
        Width of the Gaussian in pixels.
    mask : array-like of bool, shape (ny, nx), optional
        True for pixels not to use; what is not finite is never used.

    Returns
    -------
    numpy.ndarray of float, shape (ny, nx)
        Smoothed image; NaN where no good pixel is within four widths.
    """
    data = np.asarray(image, float)
    good = np.isfinite(data)
    if mask is not None:
        good &= ~np.asarray(mask, bool)
    weight = ndimage.gaussian_filter(good.astype(float), sigma, mode="nearest")
    total = ndimage.gaussian_filter(np.where(good, data, 0.0), sigma, mode="nearest")
    return np.divide(total, weight, out=np.full(data.shape, np.nan), where=weight > 1e-6)


def show_master(master, *, smooth=None, cuts=99.0, colorbar=True, title=None, axes=None):
    """Show a master, and beside it a smoothed version in which its large pattern stands out.

    The cuts of each panel hold ``cuts`` percent of its pixels that have no flag: hot pixels and bad
    columns do not turn the rest grey. Those of a flat (median near 1) always hold the level 1.

    Parameters
    ----------
    master : astropy.nddata.CCDData or array-like of shape (ny, nx)
        Master; its ``flags`` or its ``mask`` tell bad pixels.
    smooth : float or None
        Width (sigma, in pixels) of the Gaussian of the smoothed version; 1 % of the longer side by
        default. 0 shows the master alone.
    cuts : float
        Percentage of the good pixels between black and white.
    colorbar : bool
        Draw the scale of each panel.
    title : str, optional
        Text above the first panel; by default the card MASTER, else KIND, of the master.
    axes : sequence of matplotlib.axes.Axes, optional
        Two axes (one without smoothing); a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        The axes of the master and of its smoothed version.

    Raises
    ------
    FrameError
        If no pixel is good.
    """
    data = np.asarray(master.data if isinstance(master, CCDData) else master, float)
    flags, mask = (getattr(master, name, None) for name in ("flags", "mask"))
    bad = np.zeros(data.shape, bool)
    for one in (flags, mask):
        if one is not None and np.ndim(one) == 2:
            bad |= np.asarray(one) != 0
    if not np.any(np.isfinite(data) & ~bad):
        raise FrameError("No pixel of this master is without a flag: there is nothing to show.")
    smooth = 0.01 * max(data.shape) if smooth is None else smooth
    if title is None:
        meta = getattr(master, "meta", None) or {}
        title = str(meta.get("MASTER") or meta.get("KIND", ""))
    panels = [(data, title)]
    if smooth > 0:
        panels.append(
            (smooth_image(data, sigma=smooth, mask=bad), f"smoothed, σ = {smooth:.3g} px")
        )
    if axes is None:
        height = 3.7 * data.shape[0] / data.shape[1] + 0.9
        size = ((5.0 if colorbar else 4.2) * len(panels), min(height, 6.0))
        axes = plt.figure(figsize=size, layout="constrained").subplots(
            1, len(panels), squeeze=False
        )[0]
    unit = getattr(master, "unit", None)
    for (image, name), ax in zip(panels, np.ravel(axes), strict=True):
        limits = _cuts(image[~bad & np.isfinite(image)], cuts, flat=_is_flat(master, data[~bad]))
        frame = image if unit is None else CCDData(image, unit=unit)
        show_frame(frame, cuts=limits, colorbar=colorbar, title=name, ax=ax)
    return list(np.ravel(axes))


def transfer_curve(levels, variances, *, errors=None, used=None, fit=None, label=None, ax=None):
    r"""Photon transfer: variance of the noise of flats against their level, with the fitted law.

    Parameters
    ----------
    levels, variances : array-like of float, shape (n,)
        ADU above the bias, and ADU squared, from `datared.camera.pair_variance`.
    errors : array-like of float, shape (n,), optional
        Standard deviations of the variances.
    used : array-like of bool, shape (n,), optional
        Which points took part in the fit; the others are drawn as crosses.
    fit : datared.camera.CameraNoise, optional
        Its law :math:`V = (L / g) (1 + c L) + R^2` is drawn, and its gain and read noise name it.
    label : str, optional
        Name of the points in the legend, such as the filter.
    ax : matplotlib.axes.Axes, optional
        Where to draw; several filters may be drawn on the same axes.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    levels, variances = (np.atleast_1d(np.asarray(one, float)) for one in (levels, variances))
    used = np.ones(levels.shape, bool) if used is None else np.asarray(used, bool)
    ax = new_axes(ax)
    colours = [c for name, c in COLOURS.items() if name not in ("red", "black")]
    count = len([line for line in ax.lines if line.get_marker() in "osD^v"])
    colour, marker = colours[count % len(colours)], "osD^v"[count % 5]
    bars = None if errors is None else np.asarray(errors, float)[used]
    ax.errorbar(
        levels[used], variances[used], bars, fmt=marker, color=colour, capsize=2,
        label=label or "pairs of flats",
    )  # fmt: skip
    if not used.all():
        ax.plot(levels[~used], variances[~used], "x", color=RED, label="left out")
    if fit is not None and np.isfinite(fit.gain):
        x = np.linspace(0.0, max(ax.dataLim.x1, 1.0), 200)
        text = f"gain {_rounded(fit.gain, fit.gain_err)} e-/ADU"
        if np.isfinite(fit.read_noise):
            text += f", read noise {_rounded(fit.read_noise, fit.read_noise_err)} e-"
        ax.plot(x, fit.law(x), color=GREY, zorder=1, label=text)
    ax.set(xlabel="level above the bias (ADU)", ylabel="variance of a pixel (ADU²)")
    # Set limits would not follow the next filter that is drawn.
    right, top = (max(limit, 1.0) for limit in (ax.dataLim.x1, ax.dataLim.y1))
    ax.set(xlim=(0, 1.05 * right), ylim=(0, 1.05 * top))
    ax.legend()
    return ax


def noise_ratio(names, ratios, *, errors=None, limits=(0.95, 1.05), ax=None):
    """Noise of masters (or frames) over the noise that is expected, one line for each.

    Parameters
    ----------
    names : sequence of str
        Names, from the top.
    ratios : array-like of float, shape (n,)
        Measured over expected noise; a master whose ratio is not known is marked as not checked.
    errors : array-like of float, shape (n,), optional
        Their standard deviations.
    limits : (float, float)
        Band in which the noise is as promised; points outside are red squares.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ratios = np.ma.filled(np.ma.asarray(ratios, float), np.nan)
    errors = np.zeros(ratios.shape) if errors is None else np.asarray(errors, float)
    rows = np.arange(len(ratios))
    ax = new_axes(ax)
    ax.axvspan(*limits, color=GREY, alpha=0.2, linewidth=0)
    ax.axvline(1, color=GREY)
    inside = (ratios >= limits[0]) & (ratios <= limits[1])
    for wanted, marker, colour in ((inside, "o", BLUE), (~inside, "s", RED)):
        x, y, bar = finite_rows(ratios[wanted], rows[wanted], np.nan_to_num(errors[wanted]))
        if x.size:
            ax.errorbar(x, y, xerr=bar, fmt=marker, color=colour, capsize=2)
    for row in rows[~np.isfinite(ratios)]:
        ax.text(limits[0], row, " not checked", color=GREY, va="center")
    ax.set_yticks(rows, [str(name) for name in names])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="measured / expected noise (1)")
    low, high = np.nanmin([*ratios, limits[0]]), np.nanmax([*ratios, limits[1]])
    margin = 0.1 * (high - low)
    ax.set_xlim(low - margin, high + margin)
    return ax


def _is_flat(master, good):
    """Whether a master is a flat: by its card, else by its level."""
    kind = (getattr(master, "meta", None) or {}).get("KIND")
    return kind == "flat" if kind else bool(abs(np.nanmedian(good) - 1) < 0.1)


def _cuts(values, percent, *, flat):
    """Choose the counts to be shown as black and white."""
    low, high = np.percentile(values, [50 - percent / 2, 50 + percent / 2])
    return (min(low, 1.0), max(high, 1.0)) if flat else (low, high)


def _rounded(value, error):
    """Write a number with its error, to the first digit of the error."""
    if not (np.isfinite(error) and error > 0):
        return f"{value:.3g}"
    digits = max(0, -int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
