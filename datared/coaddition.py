"""Co-addition: the weighted mean of aligned frames, without what only one of them shows."""

import itertools
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .combine import common_shape
from .errors import DataredWarning, FrameError
from .stackrows import RowWindow, column_tiles, open_aligned

__all__ = ["LEAST_STARS", "Stack", "coadd", "coarse_loss", "flux_scales"]

#: Fewer common stars than this say nothing about the transparency.
LEAST_STARS = 5
#: Rows of the result that a thread makes in one go, at least.
PART_ROWS = 256
#: How much a frame may differ in units of contrast and rise, where its seeing is not known; and
#: how much the wings of a star may, where it is.
UNKNOWN_SEEING, WINGS = (3.0, 1.0, 2.0), 0.2


@dataclass(frozen=True)
class Stack:
    """A co-addition.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        Weighted mean in the units of the scaled frames; NaN where there is no value.
    uncertainty : numpy.ndarray of float32
        Standard deviation of a pixel from the noise of the frames, as if pixels were independent.
    exposure : numpy.ndarray of float32
        Exposure time that reached each pixel, in seconds.
    count : numpy.ndarray of int16
        Number of frames used in each pixel.
    flags : numpy.ndarray of uint16
        `OUTSIDE` where no frame was used, `SATURATED` where one was that is saturated there.
    n_rejected : tuple of int
        Pixels left out of each frame because they differ from the others.
    """

    data: np.ndarray
    uncertainty: np.ndarray
    exposure: np.ndarray
    count: np.ndarray
    flags: np.ndarray
    n_rejected: tuple


def flux_scales(fluxes):
    """Factors that bring frames to the same brightness, from stars that they share.

    Parameters
    ----------
    fluxes : array-like of float, shape (n_frame, n_star)
        Fluxes; NaN where a star was not measured. The first frame is the reference.

    Returns
    -------
    scales : numpy.ndarray of float, shape (n_frame,)
        Median over the stars of reference flux over flux; NaN with fewer than five stars.
    scatter : numpy.ndarray of float, shape (n_frame,)
        Robust relative scatter of that ratio from star to star.

    Examples
    --------
    >>> scales, scatter = flux_scales(np.outer([1.0, 0.5], [100, 200, 300, 400, 500]))
    >>> scales.tolist(), scatter.tolist()
    ([1.0, 2.0], [0.0, 0.0])
    """
    fluxes = np.asarray(fluxes, float)
    scales, scatter = np.full((2, len(fluxes)), np.nan)
    for k, flux in enumerate(fluxes):
        with np.errstate(invalid="ignore"):
            good = (flux > 0) & (fluxes[0] > 0)
        if good.sum() >= LEAST_STARS:
            ratio = fluxes[0][good] / flux[good]
            scales[k] = np.median(ratio)
            scatter[k] = 1.4826 * np.median(np.abs(ratio - scales[k])) / scales[k]
    return scales, scatter


def coadd(
    frames,
    *,
    noise,
    scales=None,
    exptimes=None,
    gain=None,
    weights=None,
    fwhm=None,
    clip=5.0,
    slope=2.0,
    threads=None,
):
    r"""Co-add aligned frames: a weighted mean, without what only one of them shows.

    The median of the scaled frames is the model :math:`M`. A pixel of a frame is left out if

    .. math:: |s_i x_i - M| > k\,\max(1, m) \sqrt{f \left(A (s_i \sigma_i)^2
              + s_i M / g_i\right) \max(1, A / 2)} + a D + b_i C + c_i R

    The first term is noise: :math:`f` is the share of the variance that the interpolation of the
    frame left, :math:`A` the area of a pixel in pixels of the frame (from 2 on interpolation does
    not use all of them, and more noise is left; this is right to 10 % up to an area of 4), and
    :math:`m` is 1.4826 times the median of what stands on the left in units of that noise. Of three
    or four values it says nothing; there m is the smallest of them, which is large only where two
    pairs of values differ: nobody knows which is wrong, and nothing is left out.

    The other terms belong to stars, whose light comes and goes with the seeing. :math:`D` is the
    steepest step of the model to a neighbour pixel: where stars are steep, a small shift is no
    fault (Fruchter & Hook 2002, PASP 114, 144, section 7). :math:`C` is the contrast, the
    difference of the model to the mean of eight pixels around, two pixels away. The peak of a star
    is higher by :math:`(F / F_i)^2` in a frame with the sharper seeing :math:`F_i` than in one
    with the median seeing F; :math:`b_i` is that difference in units of the contrast of a star.
    Wide frames are brighter in the wings of stars: :math:`R` is the rise of the model to the
    highest of these eight pixels, and :math:`c_i` grows with :math:`(F_i / F)^6`. On a sky without
    stars and on a smooth nebula all three are next to nothing: there the noise decides.

    Beside what was left out wings go on, too faint to be found in a pixel. A pixel is left out with
    them if the mean of the 5 x 5 pixels around it is 3 standard deviations away, and so on for
    three rounds; then one pixel more all around. The result is

    .. math:: S = \sum w_i s_i x_i / \sum w_i, \quad w_i = 1 / (A \max(1, A / 2) (s_i \sigma_i)^2)

    Parameters
    ----------
    frames : sequence of arrays, CCDData, paths or row sources
        Aligned frames without sky, all of one shape, NaN where there is no value. Pixels are read
        when they are needed, next to all of them once; see `datared.rows.open_rows` and
        `datared.resampling.AlignedRows`. Of a CCDData with flags, those pixels are used that are
        at most saturated or repaired; else those that are not masked. Of a file only the image is
        read, not its masks.
    noise : array-like of float, shape (n,)
        :math:`\sigma_i`: sky noise of one pixel of the frame, before interpolation.
    scales : array-like of float, shape (n,), optional
        :math:`s_i`: factors from `flux_scales`; 1 by default.
    exptimes : array-like of float, shape (n,), optional
        Exposure times in seconds, for the exposure map; 1 by default.
    gain : float or array-like of shape (n,), optional
        :math:`g_i`, electrons per unit of the frames. Without it the photon noise of the stars is
        not counted.
    weights : array-like of float, shape (n,), optional
        :math:`w_i`, in place of the above.
    fwhm : array-like of float, shape (n,), optional
        :math:`F_i`: widths of the stars in pixels of the grid. Without them any seeing is allowed
        for (b up to 3), and a cosmic ray in the core of a star is found only if it is brighter.
    clip : float or None
        k; None leaves nothing out. Two values cannot tell which of them is wrong: where there are
        only two, nothing is left out, and with two frames a warning says so.
    slope : float
        a.
    threads : int, optional
        Parts of the image that are worked on at a time; by default the number of processors. The
        result does not depend on it.

    Returns
    -------
    Stack
        Mean, uncertainty, exposure map, number of frames, flags, rejected pixels.

    Raises
    ------
    FrameError
        If there is no frame, or the frames differ in shape.
    ValueError
        If noise, scales, exposure times, gain, weights or widths are not one positive number for
        each frame, or clip or slope are no limits.

    Notes
    -----
    Memory: 16 bytes for each pixel of the result, and windows of some rows and columns of all
    frames, 128 MB for all threads together. (A window has at least 82 columns of 77 rows: from
    1700 frames on two threads need more.) Where two frames or more are saturated nothing is left
    out.

    What stays: an artefact fainter than the limit in stars, and one at the same place in half of
    the frames, which then is in the median. Every frame has one vote in it: among frames that are
    much noisier (of 10 s beside 300 s, say), what is fainter than their noise may stay.
    """
    frames = list(frames)
    if not frames:
        raise FrameError("There is no frame to stack; give at least one.")
    n = len(frames)
    sources = [open_aligned(frame) for frame in frames]
    shape = common_shape(sources)
    noise = _per_frame(noise, n, "noise")
    scales = _per_frame(1.0 if scales is None else scales, n, "scales")
    exptimes = _per_frame(1.0 if exptimes is None else exptimes, n, "exptimes")
    areas = np.array([getattr(source, "area", 1.0) for source in sources])
    loss = coarse_loss(areas)
    numbers = np.zeros((5, n))
    numbers[0] = loss * areas * (scales * noise) ** 2
    if gain is not None:
        numbers[1] = loss * scales / _per_frame(gain, n, "gain")
    numbers[2:] = _tolerances(None if fwhm is None else _per_frame(fwhm, n, "fwhm"))
    weights = 1 / numbers[0] if weights is None else _per_frame(weights, n, "weights")
    if not ((clip is None or 0 < clip < np.inf) and 0 <= slope < np.inf):
        raise ValueError(f"clip is a positive number or None, slope at least 0: {clip}, {slope}.")
    if clip is not None and n == 2:
        message = "two frames cannot tell a satellite from a star: nothing is left out"
        warnings.warn(message, DataredWarning, stacklevel=2)
    rule = None if clip is None or n < 3 else np.array([clip, slope], float)
    results = (
        *(np.empty(shape, np.float32) for _ in range(3)),
        np.empty(shape, np.int16),
        np.empty(shape, np.uint16),
    )
    threads = threads or min(os.cpu_count() or 1, 8)
    # Each part begins with rows that another reads, too: not too many parts.
    height = max(PART_ROWS, math.ceil(shape[0] / (4 * threads)))

    parts = [(start, min(start + height, shape[0])) for start in range(0, shape[0], height)]
    tiles = itertools.product(parts, column_tiles(n, shape[1], threads))

    def work(tile):
        window = RowWindow(
            sources, *tile, scales=scales, areas=loss * areas, noise=numbers, rule=rule
        )
        return window.average(weights, exptimes, results)

    with ThreadPoolExecutor(threads) as pool:
        rejected = sum(pool.map(work, tiles), np.zeros(n, np.int64))
    return Stack(*results, n_rejected=tuple(rejected.tolist()))


def coarse_loss(area):
    r"""Say how much more variance a coarse grid has than the frame's pixels in a grid's pixel give.

    Interpolation uses some of the pixels only: :math:`\max(1, A / 2)`, right to 10 % up to A = 4.

    Parameters
    ----------
    area : float or array-like of float
        A: area of a pixel of the grid in pixels of the frame.

    Returns
    -------
    float or numpy.ndarray of float
        1 or more.

    Examples
    --------
    >>> coarse_loss([1.0, 4.0]).tolist()
    [1.0, 2.0]
    """
    return np.maximum(1, np.asarray(area) / 2)


def _tolerances(fwhm):
    """Say how far a sharper and a wider frame may be from the median, in units of the contrast."""
    if fwhm is None:
        return np.array(UNKNOWN_SEEING)[:, None]
    width = np.median(fwhm) / fwhm
    # A Gaussian falls to these shares of its peak at two pixels along an axis and a diagonal.
    fall = np.exp(-4 * math.log(2) * np.array([4, 8]) / np.median(fwhm) ** 2).mean()
    peak = (width**2 - 1) / (1 - fall)
    wing = WINGS * np.median(fwhm) * np.maximum(width**-6 - 1, 0)
    return np.stack([np.maximum(peak, 0), np.maximum(-peak, 0), wing])


def _per_frame(values, n, name):
    """One positive float for each frame."""
    values = np.asarray(values, float)
    if values.shape not in ((), (n,)) or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"{name} must be {n} positive numbers, one for each frame: {values}.")
    return np.broadcast_to(values, (n,))
