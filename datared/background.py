"""Background: how bright the sky is in each part of a frame, and how noisy it is there."""

from typing import NamedTuple

import numpy as np
import sep
from astropy.stats import sigma_clipped_stats
from scipy import ndimage

from datared.errors import FrameError

__all__ = ["Background", "SkyStatistics", "background_map", "sky_statistics", "source_mask"]

#: Fewer good pixels than this say nothing about a level and its noise.
MIN_PIXELS = 16

#: A box of the mesh with a smaller share of good pixels than this gets its sky from its neighbours.
MIN_GOOD = 0.05


class Background(NamedTuple):
    """Sky of one frame.

    Attributes
    ----------
    level : numpy.ndarray of float32, shape (ny, nx)
        Brightness of the sky, in the unit of the frame.
    noise : numpy.ndarray of float32, shape (ny, nx)
        Standard deviation of one pixel of sky, in the unit of the frame.
    """

    level: np.ndarray
    noise: np.ndarray


class SkyStatistics(NamedTuple):
    """Mean, median and standard deviation of the pixels of a frame that hold sky only."""

    mean: float
    median: float
    std: float


def sky_statistics(data, mask=None, *, nsigma=3.0, max_iterations=10):
    """Mean, median and standard deviation of a frame without its stars, by clipping.

    Pixels farther than ``nsigma`` standard deviations from the median are left out, again and
    again, until none is.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        The frame. Pixels that are not finite do not count.
    mask : numpy.ndarray of bool, shape (ny, nx), optional
        True where a pixel must not be used.
    nsigma : float
        Clipping limit in standard deviations.
    max_iterations : int
        Largest number of rounds.

    Returns
    -------
    SkyStatistics
        Three numbers in the unit of ``data``: ``mean``, ``median``, ``std``.

    Raises
    ------
    FrameError
        If no pixel is good.

    Examples
    --------
    >>> frame = np.random.default_rng(1).normal(100.0, 5.0, (200, 200))
    >>> frame[50:53, 50:53] = 10000.0
    >>> sky = sky_statistics(frame)
    >>> abs(sky.median - 100) < 0.2, abs(sky.std - 5) < 0.15
    (True, True)
    """
    data, bad = _good_pixels(data, mask)
    return SkyStatistics(
        *(
            float(value)
            for value in sigma_clipped_stats(data[~bad], sigma=nsigma, maxiters=max_iterations)
        )
    )


def background_map(data, *, mask=None, box=64, filter_size=3, mask_sources=True):
    """Sky level and sky noise at every pixel, from a mesh of boxes.

    The frame is cut into boxes. The sky of a box is the clipped mode of its pixels
    (2.5 median - 1.5 mean; the median in crowded boxes); the boxes are median filtered and a
    bicubic spline through them gives every pixel its value (Bertin & Arnouts 1996, A&AS 117,
    393, section 4; done by the library sep). With ``mask_sources`` the stars are found against
    a first map and left out of a second one, for the wings of stars lift the sky.

    A box must be much larger than a star and smaller than the structures of the sky: a box as
    small as a nebula or the core of a cluster takes their light for sky.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        The frame. Pixels that are not finite do not count.
    mask : numpy.ndarray of bool, shape (ny, nx), optional
        True where a pixel must not be used.
    box : int or tuple of int
        Size of a box in pixels, or ``(ny, nx)``; a box larger than the frame is cut to it.
    filter_size : int
        Width, in boxes, of the median filter over the mesh.
    mask_sources : bool
        Leave out the stars in a second pass.

    Returns
    -------
    Background
        ``level`` and ``noise``, both float32 of shape (ny, nx), finite everywhere.

    Raises
    ------
    FrameError
        If there are too few good pixels.
    ValueError
        If the box or the filter is not a positive number.

    Examples
    --------
    >>> sky = np.random.default_rng(2).normal(300.0, 10.0, (200, 300))
    >>> background = background_map(sky)
    >>> bool(abs(background.level.mean() - 300) < 1), bool(abs(background.noise.mean() - 10) < 0.5)
    (True, True)
    """
    height, width = (int(size) for size in np.broadcast_to(box, 2))
    if min(height, width, filter_size) < 1:
        raise ValueError(f"box {box} and filter_size {filter_size} must be 1 or more")
    data, bad = _good_pixels(data, mask)
    height, width = (min(size, n) for size, n in zip((height, width), data.shape, strict=True))
    mesh = _mesh(data, bad, height, width, filter_size)
    if mask_sources:
        sources = source_mask(data, mesh.back(), mesh.globalrms, mask=bad)
        # Where sources cover nearly everything, the first mesh is the best there is.
        if np.mean(bad | sources) < 1 - MIN_GOOD:
            mesh = _mesh(data, bad | sources, height, width, filter_size)
    return Background(mesh.back(dtype=np.float32), mesh.rms(dtype=np.float32))


def source_mask(data, level, noise, *, mask=None, nsigma=3.0, grow=4):
    """Pixels that hold the light of stars.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        The frame.
    level, noise : float or numpy.ndarray, shape (ny, nx)
        Level of the sky and its noise for one pixel.
    mask : numpy.ndarray of bool, shape (ny, nx), optional
        True where a pixel is bad.
    nsigma : float
        Limit, in units of the noise, for the frame smoothed over 3 x 3 pixels.
    grow : int
        Pixels by which each source is grown, for its wings.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True on sources.
    """
    excess = np.asarray(data, np.float32) - level
    if mask is not None:
        excess = np.where(mask, np.float32(0), excess)
    # The mean of nine pixels has a third of the noise of one.
    bright = ndimage.uniform_filter(excess, 3) > nsigma * np.asarray(noise) / 3
    # Single pixels are noise or hot; a star covers more.
    bright = ndimage.binary_opening(bright, np.ones((2, 2), bool))
    size = 2 * grow + 1
    return ndimage.maximum_filter(bright, size=size) if grow > 0 else bright


def _mesh(data, bad, height, width, filter_size):
    """Return sep's mesh of the frame, with boxes that are mostly masked filled from themselves.

    sep gives up a box when half of it is masked, and gives zero when it gives up all of them. So
    the masked pixels of a box that still has `MIN_GOOD` good ones are filled with copies of these,
    in turn, which keeps their distribution; only emptier boxes are left to sep's interpolation.
    """
    data = np.where(bad, np.float32(np.median(data[~bad])), data)
    hidden = bad.copy()
    boxes = [
        (slice(y, y + height), slice(x, x + width))
        for y in range(0, data.shape[0], height)
        for x in range(0, data.shape[1], width)
    ]
    usable = 0
    for box in boxes:
        part = bad[box]
        n_bad = np.count_nonzero(part)
        n_good = part.size - n_bad
        if 2 * n_bad < part.size:
            usable += 1
        elif n_good >= max(MIN_GOOD * part.size, MIN_PIXELS):
            data[box][part] = np.resize(data[box][~part], n_bad)
            hidden[box] = False
            usable += 1
    if not usable:
        data[bad] = np.resize(data[~bad], np.count_nonzero(bad))
        hidden[:] = False
    return sep.Background(data, mask=hidden, bw=width, bh=height, fw=filter_size, fh=filter_size)


def _good_pixels(data, mask):
    """Return the frame as contiguous float32 of two axes, and the mask of its bad pixels."""
    data = np.ascontiguousarray(data, dtype=np.float32)
    if data.ndim != 2:
        raise FrameError(f"a frame has two axes, this one has {data.ndim}")
    bad = ~np.isfinite(data)
    if mask is not None:
        bad |= np.asarray(mask, bool)
    if data.size - np.count_nonzero(bad) < min(MIN_PIXELS, data.size):
        raise FrameError("no sky can be measured: nearly all pixels are masked or not finite")
    return data, bad
