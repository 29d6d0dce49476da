"""Figures that recur. Data come first; each function draws on one `Axes` and returns it.

Without ``ax`` a new figure is made. Nothing is shown or saved here: that is the caller's choice.
Colours are those of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/) and viridis, which
colour-blind readers can tell apart; what matters is also told by the shape of the marker.
"""

import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import NDData
from astropy.visualization import AsinhStretch, ImageNormalize, LinearStretch, ZScaleInterval
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter, ScalarFormatter

from .charts import (
    BLUE,
    COLOURS,
    GREY,
    RED,
    colour_magnitude,
    finite_rows,
    growth_curve,
    light_curve,
    new_axes,
    scatter_magnitude,
    separations,
    size_magnitude,
    trend,
    zero_point,
)
from .errors import FrameError

__all__ = [
    "COLOURS",
    "colour_magnitude",
    "compare_frames",
    "counts_histogram",
    "field_map",
    "finder",
    "growth_curve",
    "light_curve",
    "noise_law",
    "residual_quiver",
    "scatter_magnitude",
    "separations",
    "show_frame",
    "size_magnitude",
    "trend",
    "zero_point",
]


def _image(frame):
    """Pixels of a frame as floats (masked ones kept), and the name of their unit."""
    unit = getattr(frame, "unit", None)
    unit = "ADU" if unit is None else str(unit)
    values = frame.data if isinstance(frame, NDData) else frame
    data = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    return data, {"adu": "ADU", "electron": "electrons", "": "relative"}.get(unit, unit)


def show_frame(
    frame, *, cuts="zscale", stretch="linear", wcs=False, cmap="gray", colorbar=True, title=None,
    ax=None,
):  # fmt: skip
    """Show a frame with sensible cuts: without cuts a few bright stars make all else black.

    Parameters
    ----------
    frame : numpy.ndarray of shape (ny, nx) or astropy.nddata.CCDData
        Counts; not-a-number pixels are left white.
    cuts : "zscale", float or (float, float)
        Counts shown as black and as white: around the sky by the ZScale rule of IRAF, or so that
        this percentage of the pixels is inside, or given.
    stretch : {"linear", "asinh"}
        Grey levels between the cuts. ``"asinh"`` shows faint and bright things together.
    wcs : bool
        Right ascension and declination along the axes (the frame must have a ``wcs``; ``ax`` must
        have it as its projection).
    cmap : str
        Colour map of matplotlib, such as ``"gray"`` or ``"viridis"``.
    colorbar : bool
        Draw the scale of the counts.
    title : str, optional
        Text above the frame.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    FrameError
        If no pixel is finite, or ``wcs`` is asked of a frame without one.
    """
    data, unit = _image(frame)
    values = data[np.isfinite(data)]
    if not values.size:
        raise FrameError("No pixel of this frame is finite: there is nothing to show.")
    sky_axes = getattr(frame, "wcs", None) if wcs else None
    if wcs and sky_axes is None:
        raise FrameError("This frame has no WCS: solve it first, or leave out wcs=True.")
    if isinstance(cuts, str):
        if cuts != "zscale":
            raise ValueError(f"cuts {cuts!r} is not 'zscale', a percentage or two numbers.")
        low, high = ZScaleInterval().get_limits(values)
    elif np.ndim(cuts) == 0:
        low, high = np.percentile(values, [50 - cuts / 2, 50 + cuts / 2])
    else:
        low, high = cuts
    if high <= low:
        high = low + 1
    stretches = {"linear": LinearStretch(), "asinh": AsinhStretch(0.05)}
    if stretch not in stretches:
        raise ValueError(f"stretch {stretch!r} is not one of {', '.join(stretches)}.")
    norm = ImageNormalize(vmin=low, vmax=high, stretch=stretches[stretch], clip=False)
    ax = new_axes(ax, projection=sky_axes)
    image = ax.imshow(data, origin="lower", cmap=cmap, norm=norm, interpolation="nearest")
    if wcs:
        ax.coords[0].set_axislabel("right ascension (h m s)")
        ax.coords[1].set_axislabel("declination (deg)")
    else:
        ax.set(xlabel="x (px)", ylabel="y (px)")
    if colorbar:
        height = 0.046 * data.shape[0] / data.shape[1]  # As high as the frame.
        ax.figure.colorbar(image, ax=ax, label=f"signal ({unit})", fraction=height, pad=0.02)
    if title:
        ax.set_title(title)
    return ax


def compare_frames(frames, *, titles=None, cuts="zscale", stretch="linear", axes=None):
    """Show frames beside each other with the same cuts (those of the first one).

    Parameters
    ----------
    frames : sequence of numpy.ndarray or astropy.nddata.CCDData
        What to compare.
    titles : sequence of str, optional
        Text above each.
    cuts, stretch
        As in `show_frame`.
    axes : sequence of matplotlib.axes.Axes, optional
        One for each frame; a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        One for each frame.
    """
    frames = list(frames)
    titles = [None] * len(frames) if titles is None else titles
    if axes is None:
        size = (3.6 * len(frames) + 1, 3.4)
        axes = plt.figure(figsize=size).subplots(1, len(frames), squeeze=False)[0]
    for frame, title, ax in zip(frames, titles, axes, strict=True):
        show_frame(frame, cuts=cuts, stretch=stretch, title=title, colorbar=False, ax=ax)
        norm = ax.images[0].norm
        cuts = (norm.vmin, norm.vmax)
    return list(axes)


def finder(frame, x, y, *, brightness=None, n_labels=25, target=None, wcs=False, ax=None):
    """Finder chart: the frame with circles around the brightest stars and their numbers.

    Parameters
    ----------
    frame : numpy.ndarray or astropy.nddata.CCDData
        The frame.
    x, y : array-like of float, shape (n,)
        Positions of the stars in pixels; their numbers are their rows.
    brightness : array-like of float, shape (n,), optional
        Flux that tells the brightest; by default the order of the rows.
    n_labels : int
        How many are numbered; more cannot be read.
    target : int or (float, float), optional
        Row, or position in pixels, of the star to mark with a cross of lines.
    wcs : bool
        Right ascension and declination along the axes.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    x, y = (np.ma.filled(np.ma.asarray(a, dtype=float), np.nan) for a in (x, y))
    rank = -np.arange(x.size, dtype=float) if brightness is None else brightness
    rank = np.ma.filled(np.ma.asarray(rank, dtype=float), np.nan)
    rows = np.argsort(np.where(np.isfinite(rank + x + y), -rank, np.inf), kind="stable")
    rows = [row for row in rows[:n_labels] if np.isfinite(rank + x + y)[row]]
    ax = show_frame(frame, wcs=wcs, cmap="gray_r", colorbar=False, ax=ax)
    shape = np.shape(frame)
    size = 0.012 * max(shape)
    style = {"facecolors": "none", "marker": "o", "s": 60}
    ax.scatter(x[rows], y[rows], edgecolors=COLOURS["blue"], linewidths=0.8, **style)
    # A white rim keeps the numbers readable on stars and on the grain of the sky.
    rim = [withStroke(linewidth=2.5, foreground="white")]
    for row in rows:
        ax.annotate(
            str(row), (x[row] + size, y[row] + size), color=BLUE, fontsize=9, weight="bold",
            clip_on=True, path_effects=rim,
        )  # fmt: skip
    if target is not None:
        px, py = (x[target], y[target]) if np.ndim(target) == 0 else target
        for step in (-1, 1):
            # The star itself stays free, as on the charts that observers draw.
            ax.plot([px + step * size, px + 3 * step * size], [py, py], color=RED)
            ax.plot([px, px], [py + step * size, py + 3 * step * size], color=RED)
    ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5))
    return ax


def counts_histogram(frame, *, bins=100, width=6.0, gaussian=True, label=None, ax=None):
    """Histogram of the counts around their median, with the normal curve of the same width.

    Parameters
    ----------
    frame : numpy.ndarray or astropy.nddata.CCDData
        Counts.
    bins : int
        Number of bins.
    width : float
        Range shown, in robust standard deviations (1.4826 MAD) on either side.
    gaussian : bool
        Draw the normal curve with the median and the robust width.
    label : str, optional
        Name in the legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the number of pixels is on a logarithmic scale, so that rare pixels are seen.
    """
    data, unit = _image(frame)
    values = data[np.isfinite(data)]
    middle = np.median(values)
    sigma = 1.4826 * np.median(np.abs(values - middle)) or 1.0
    edges = np.linspace(middle - width * sigma, middle + width * sigma, bins + 1)
    if np.array_equal(values, np.rint(values)):
        # Bins of unequal numbers of whole counts would make a comb.
        step = max(1, round(edges[1] - edges[0]))
        edges = np.arange(np.floor(edges[0]) - 0.5, edges[-1] + step, step)
    ax = new_axes(ax)
    ax.hist(values, bins=edges, histtype="stepfilled", alpha=0.5, label=label)
    if gaussian:
        centre = (edges[1:] + edges[:-1]) / 2
        curve = np.exp(-0.5 * ((centre - middle) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        curve *= values.size * (edges[1] - edges[0])
        ax.plot(centre, curve, color=RED, label=f"normal, σ = {sigma:.3g} {unit}")
        ax.set_ylim(bottom=0.5)
    ax.set_yscale("log")
    ax.set(xlabel=f"signal ({unit})", ylabel="number of pixels")
    if gaussian or label:
        ax.legend()
    return ax


def noise_law(number, noise, *, factor=1.0, unit="ADU", label="measured", ax=None):
    r"""Noise of combined frames against their number, with the law :math:`\sigma_1 / \sqrt N`.

    Parameters
    ----------
    number : array-like of int
        Numbers of frames; the smallest gives the law its height.
    noise : array-like of float
        Noise of the combination.
    factor : float
        A second curve higher by this factor, such as 1.253 for medians; none for 1.
    unit : str
        Unit of the noise.
    label : str
        Name in the legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, both logarithmic.
    """
    number, noise = finite_rows(number, noise)
    first = np.argmin(number)
    law = noise[first] * np.sqrt(number[first]) / np.sqrt(np.sort(number))
    ax = new_axes(ax)
    ax.plot(np.sort(number), law, color=GREY, label=r"$\sigma_1/\sqrt{N}$")
    if factor != 1:
        name = rf"${factor:.3g}\,\sigma_1/\sqrt{{N}}$"
        ax.plot(np.sort(number), factor * law, color=GREY, linestyle="--", label=name)
    ax.plot(number, noise, "o", color=BLUE, label=label)
    ax.set(xscale="log", yscale="log", xlabel="number of frames", ylabel=f"noise ({unit})")
    ax.set_xticks(number, [f"{n:g}" for n in number])
    for axis, which in ((ax.xaxis, NullFormatter()), (ax.yaxis, ScalarFormatter())):
        axis.set_minor_formatter(which)
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.legend()
    return ax


def residual_quiver(x, y, dx, dy, *, length=50.0, unit="px", ax=None):
    """Arrows from where stars should be to where they are: the pattern tells what is missing.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        Positions in pixels.
    dx, dy : array-like of float, shape (n,)
        Residuals.
    length : float
        Length, in pixels of the frame, of the arrow for the typical (root mean square) residual.
    unit : str
        Unit of the residuals.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the key arrow has the length of the root mean square.
    """
    x, y, dx, dy = finite_rows(x, y, dx, dy)
    ax = new_axes(ax)
    if x.size:
        rms = float(np.sqrt(np.mean(dx**2 + dy**2)))
        size = rms or 1.0
        arrows = ax.quiver(
            x, y, dx, dy, angles="xy", scale_units="xy", scale=size / length, color=BLUE,
            width=0.003,
        )  # fmt: skip
        ax.quiverkey(arrows, 0.1, 1.04, size, f"rms {rms:.2g} {unit}", labelpos="E")
    ax.set(xlabel="x (px)", ylabel="y (px)", aspect="equal")
    return ax


def field_map(x, y, value, *, label, ax=None):
    """Colour each star of a frame by a number, such as its FWHM: shows what changes over the field.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        Positions in pixels.
    value : array-like of float, shape (n,)
        The number; colours span its 5 % to 95 % range.
    label : str
        What the number is, with its unit: ``"FWHM (px)"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    x, y, value = finite_rows(x, y, value)
    low, high = np.percentile(value, [5, 95]) if value.size else (0, 1)
    ax = new_axes(ax)
    dots = ax.scatter(x, y, c=value, cmap="viridis", vmin=low, vmax=high, s=16)
    ax.figure.colorbar(dots, ax=ax, label=label)
    ax.set(xlabel="x (px)", ylabel="y (px)", aspect="equal")
    return ax
