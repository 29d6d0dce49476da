"""Background: how bright the sky is in each part of a frame, and how noisy it is there."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from astropy.stats import sigma_clipped_stats

from datared import skymesh
from datared.errors import FrameError

__all__ = [
    "Background",
    "SkyStatistics",
    "background_map",
    "sky_mesh",
    "sky_statistics",
    "source_mask",
]

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


class Mesh(NamedTuple):
    """Sky of the boxes of a frame, and the smooth surfaces through them.

    Attributes
    ----------
    level, noise : numpy.ndarray of float, shape (n_y, n_x)
        Level and standard deviation of the sky in each box.
    level_surface, noise_surface : datared.skymesh.Surface
        The same at every pixel.
    """

    level: np.ndarray
    noise: np.ndarray
    level_surface: skymesh.Surface
    noise_surface: skymesh.Surface


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

    The frame is cut into boxes, all of nearly the same size. The sky of a box is the mode of its
    pixels clipped at 3 sigma (2.5 median - 1.5 mean; the median in crowded boxes), the noise their
    standard deviation. Both are median filtered over the boxes, and a bicubic spline through the
    middles of the boxes gives every pixel its value (the way of Bertin & Arnouts 1996, A&AS 117,
    393, section 4). With ``mask_sources`` the stars are found against a first map and left out of
    a second one, for the wings of stars lift the sky.

    A box must be much larger than a star and smaller than the structures of the sky: a box as
    small as a nebula or the core of a cluster takes their light for sky. For one number for the
    whole frame, or for a part of it, use `sky_statistics`.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        The frame. Pixels that are not finite, or hidden by its own mask, do not count.
    mask : numpy.ndarray of bool, shape (ny, nx), optional
        True where a pixel must not be used.
    box : int or tuple of int
        Size of a box in pixels, or ``(ny, nx)``, stretched a little to fit a whole number of
        times; a box larger than the frame is cut to it.
    filter_size : int
        Width, in boxes, of the median filter over the mesh; odd, for it has a middle box.
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
        If the box is not positive, or the filter not an odd number.

    Examples
    --------
    >>> sky = np.random.default_rng(2).normal(300.0, 10.0, (200, 300))
    >>> background = background_map(sky)
    >>> bool(abs(background.level.mean() - 300) < 1), bool(abs(background.noise.mean() - 10) < 0.5)
    (True, True)
    """
    data, bad = _good_pixels(data, mask)
    mesh = sky_mesh(data, bad, box=box, filter_size=filter_size, mask_sources=mask_sources)
    level, noise = np.empty_like(data), np.empty_like(data)

    def fill(first, last):
        mesh.level_surface.fill(first, last, level[first:last])
        mesh.noise_surface.fill(first, last, noise[first:last])

    skymesh.over_bands(fill, len(data))
    return Background(level, noise)


def sky_mesh(data, bad, *, box=64, filter_size=3, mask_sources=True):
    """Sky of the boxes of a frame; `background_map` without the maps, for those in a hurry.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        The frame, contiguous in memory.
    bad : numpy.ndarray of bool, shape (ny, nx)
        True where a pixel must not be used; so it must be where one is not finite.
    box, filter_size, mask_sources
        As for `background_map`.

    Returns
    -------
    Mesh
        Values of the boxes, and surfaces through them.

    Raises
    ------
    FrameError
        If there are too few good pixels.
    ValueError
        If the box is not positive, or the filter not an odd number.
    """
    height, width = (int(size) for size in np.broadcast_to(box, 2))
    # A filter without a middle box would move a tilted sky by half a box.
    if min(height, width, filter_size) < 1 or filter_size % 2 != 1:
        raise ValueError(f"box {box} must be 1 or more and filter_size {filter_size} 1, 3, 5 ...")
    edges = skymesh.box_edges(data.shape[0], height), skymesh.box_edges(data.shape[1], width)
    level, noise = np.empty((2, len(edges[0]) - 1, len(edges[1]) - 1))
    sources = np.zeros(data.shape, np.uint8)
    todo = np.ones(level.shape, bool)
    skymesh.boxes(data, bad, sources, edges, (MIN_GOOD, MIN_PIXELS), todo, level, noise)
    if not np.isfinite(level).any():
        # The good pixels are spread so thinly that no box has enough: the frame is one box.
        sky = sky_statistics(data, bad)
        level[:], noise[:] = sky.median, sky.std
    elif mask_sources:
        mesh = _surfaces(level, noise, edges, filter_size)
        _find_sources(data, bad, mesh, sources)
        rows = [sources[a:b].max(axis=0) for a, b in pairwise(edges[0])]
        touched = np.maximum.reduceat(rows, edges[1][:-1], axis=1).astype(bool)
        if not touched.any():
            return mesh
        first = level.copy(), noise.copy()
        skymesh.boxes(data, bad, sources, edges, (MIN_GOOD, MIN_PIXELS), touched, level, noise)
        if not np.isfinite(level).any():
            # Where sources cover everything, the first mesh is the best there is.
            level, noise = first
    return _surfaces(level, noise, edges, filter_size)


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
    data, level, noise = np.asarray(data, np.float32), np.float32(level), np.float32(noise)
    padded = np.zeros((data.shape[0] + 3, data.shape[1]), np.float32)
    padded[1:-2] = (data - level) / noise
    if mask is not None:
        padded[1:-2][mask] = 0
    sources = np.zeros(data.shape, np.uint8)
    skymesh.mark(padded, np.float32(3 * nsigma), grow, sources, 0, len(data))
    return sources.astype(bool)


def signal_rows(data, bad, mesh, first, last):
    """Return (frame - level) / noise on some rows, 0 on bad pixels and outside the frame.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        The frame.
    bad : numpy.ndarray of bool, shape (ny, nx)
        True where a pixel must not be used.
    mesh : Mesh
        Its sky.
    first, last : int
        Rows from ``first`` to ``last`` - 1; they may lie outside the frame.

    Returns
    -------
    numpy.ndarray of float32, shape (last - first, nx)
        Signal in units of the noise of a pixel.
    """
    signal = np.empty((last - first, data.shape[1]), np.float32)
    start, stop = max(first, 0), min(last, len(data))
    signal[: start - first] = 0
    signal[stop - first :] = 0
    inner = signal[start - first : stop - first]
    mesh.level_surface.fill(start, stop, inner)
    np.subtract(data[start:stop], inner, out=inner)
    inner /= mesh.noise_surface.fill(start, stop)
    inner[bad[start:stop]] = 0
    return signal


def _find_sources(data, bad, mesh, sources):
    """Mark the light of stars against a first mesh, as `source_mask` does."""

    def work(first, last):
        excess = signal_rows(data, bad, mesh, first - 1, last + 2)
        skymesh.mark(excess, np.float32(9), 4, sources, first, last)

    skymesh.over_bands(work, len(data))


def _surfaces(level, noise, edges, filter_size):
    """Return the mesh with its gaps filled, filtered, and the surfaces through it."""
    level, noise = skymesh.smooth(level, filter_size), skymesh.smooth(noise, filter_size)
    # A frame without noise (a drawing) still needs a unit to divide by, and between two boxes the
    # spline may swing below both.
    # The unit of the frame may be any: 1e-17 erg/s/cm2 as well as counts.
    floor = max(float(noise.min()), 1e-6 * float(abs(level).max())) or 1e-12
    return Mesh(level, noise, skymesh.surface(level, edges), skymesh.surface(noise, edges, floor))


def _good_pixels(data, mask):
    """Return the frame as contiguous float32 of two axes, and the mask of its bad pixels."""
    hidden = np.ma.getmask(data)
    data = np.ascontiguousarray(data, dtype=np.float32)
    if data.ndim != 2:
        raise FrameError(f"a frame has two axes, this one has {data.ndim}")
    bad = np.isfinite(data)
    np.logical_not(bad, out=bad)
    if hidden is not np.ma.nomask:
        bad |= hidden
    if mask is not None:
        bad |= np.asarray(mask, bool)
    if data.size - np.count_nonzero(bad) < max(1, min(MIN_PIXELS, data.size)):
        raise FrameError("no sky can be measured: nearly all pixels are masked or not finite")
    return data, bad
