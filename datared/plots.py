"""Figures that recur. Data come first; each function draws on one `Axes` and returns it.

Without ``ax`` a new figure is made. Nothing is shown or saved here: that is the caller's choice.
Colours are those of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/) and viridis, which
colour-blind readers can tell apart; what matters is also told by the shape of the marker.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter, ScalarFormatter

from .charts import (
    BLUE,
    COLOURS,
    GREY,
    RED,
    colour_magnitude,
    finite_rows,
    growth_curve,
    new_axes,
    scatter_magnitude,
    separations,
    size_magnitude,
    zero_point,
)
from .curveplots import light_curve, trend
from .errors import FrameError
from .fieldplots import distortion_map, field_map, residual_quiver
from .skyplots import detections, finder, image_values, show_frame

__all__ = [
    "COLOURS",
    "colour_magnitude",
    "compare_frames",
    "counts_histogram",
    "detections",
    "distortion_map",
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

    Raises
    ------
    FrameError
        If no pixel is finite.
    """
    data, unit = image_values(frame)
    values = data[np.isfinite(data)]
    if not values.size:
        raise FrameError("No pixel of this frame is finite: there is nothing to count.")
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
