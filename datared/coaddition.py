"""Co-addition: the weighted mean of aligned frames, without what only one of them shows."""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData
from scipy import ndimage

from .combine import combine
from .errors import DataredWarning, FrameError

__all__ = ["LEAST_STARS", "Stack", "coadd", "flux_scales", "load_pixels"]

#: Fewer common stars than this say nothing about the transparency.
LEAST_STARS = 5


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
    n_rejected : tuple of int
        Pixels left out of each frame because they differ from the others.
    """

    data: np.ndarray
    uncertainty: np.ndarray
    exposure: np.ndarray
    count: np.ndarray
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


def coadd(frames, *, noise, scales=None, exptimes=None, gain=None, clip=5.0, slope=2.0):
    r"""Co-add aligned frames: a mean with inverse variances as weights, without what differs.

    The median of the scaled frames is the model :math:`M`. A pixel of a frame is left out if

    .. math:: |s_i x_i - M| > k \sqrt{(s_i \sigma_i)^2 + s_i M / g} + a D

    (or by half of that next to such a pixel), and the pixels around it. :math:`D` is the steepest
    step of the model to a neighbour pixel above its noise: where stars make the image steep, a
    change of seeing or a small shift is no fault (Fruchter & Hook 2002, PASP 114, 144, section 7).
    The result is

    .. math:: S = \sum w_i s_i x_i / \sum w_i, \quad w_i = (s_i \sigma_i)^{-2}

    Parameters
    ----------
    frames : sequence of arrays, CCDData or paths
        Aligned frames without sky, all of one shape, NaN where there is no value. One at a time is
        in memory, beside a few bands of all.
    noise : array-like of float, shape (n,)
        :math:`\sigma_i`: sky noise of one pixel, before interpolation.
    scales : array-like of float, shape (n,), optional
        :math:`s_i`: factors from `flux_scales`; 1 by default.
    exptimes : array-like of float, shape (n,), optional
        Exposure times in seconds, for the exposure map.
    gain : float, optional
        :math:`g`, electrons per unit of the frames. Without it the photon noise of the stars is not
        counted.
    clip : float or None
        k; None leaves nothing out. Two frames cannot tell which of them is wrong: nothing is left
        out, and a warning says so.
    slope : float
        a.

    Returns
    -------
    Stack
        Mean, uncertainty, exposure map, number of frames, rejected pixels.

    Raises
    ------
    FrameError
        If there is no frame, or the frames differ in shape.
    ValueError
        If noise, scales or exposure times are not one positive number for each frame.
    """
    frames = list(frames)
    if not frames:
        raise FrameError("There is no frame to stack; give at least one.")
    noise = _per_frame(noise, len(frames), "noise")
    scales = _per_frame(1.0 if scales is None else scales, len(frames), "scales")
    exptimes = _per_frame(1.0 if exptimes is None else exptimes, len(frames), "exptimes")
    if clip is not None and len(frames) == 2:
        message = "two frames cannot tell a satellite from a star: nothing is left out"
        warnings.warn(message, DataredWarning, stacklevel=2)
    model = None
    if clip is not None and len(frames) > 2:
        model = combine(frames, method="median", scale=scales).data
        step = _steepness(model)
    total = weights = squares = exposure = count = 0
    rejected = []
    numbers = zip(scales.tolist(), noise.tolist(), exptimes.tolist(), strict=True)
    for frame, (s, sigma, exptime) in zip(frames, numbers, strict=True):
        data = s * load_pixels(frame)
        light = np.maximum(data if model is None else model, 0)
        variance = (s * sigma) ** 2 + (0 if gain is None else s / gain * light)
        used = np.isfinite(data)
        if model is not None:
            limit = clip * np.sqrt(variance) + slope * step
            with np.errstate(invalid="ignore"):
                differs = np.abs(data - model)
                bad = differs > limit
            bad |= ndimage.binary_dilation(bad, np.ones((3, 3))) & (differs > limit / 2)
            # One pixel more: a trail has wings that are too faint to be found.
            bad = ndimage.binary_dilation(bad, np.ones((3, 3)))
            rejected.append(int(np.count_nonzero(bad & used)))
            used &= ~bad
        weight = 1 / (s * sigma) ** 2
        total = total + np.where(used, weight * data, 0)
        weights = weights + weight * used
        squares = squares + np.where(used, weight**2 * variance, 0)
        exposure = exposure + exptime * used.astype(np.float32)
        count = count + used.astype(np.int16)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, sigma = total / weights, np.sqrt(squares) / weights
    return Stack(
        mean.astype(np.float32),
        np.where(count > 0, sigma, np.nan).astype(np.float32),
        exposure.astype(np.float32),
        count,
        tuple(rejected) or (0,) * len(frames),
    )


def _per_frame(values, n, name):
    """One positive float for each frame."""
    values = np.broadcast_to(np.asarray(values, float), (n,))
    if not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"{name} must be {n} positive numbers, one for each frame: {values}.")
    return values


def load_pixels(frame):
    """Pixels of a frame as float32 with NaN where masked.

    Parameters
    ----------
    frame : numpy.ndarray, astropy.nddata.CCDData, str or pathlib.Path
        An image, or a FITS file with one.

    Returns
    -------
    numpy.ndarray of float32
        A copy.
    """
    if isinstance(frame, CCDData):
        data = np.array(frame.data, np.float32)
        if frame.mask is not None:
            data[frame.mask] = np.nan
        return data
    if isinstance(frame, np.ndarray):
        return frame.astype(np.float32)
    return fits.getdata(frame).astype(np.float32)


def _steepness(model):
    """Largest step to one of the eight neighbours, above what the noise of the model makes."""
    filled = np.where(np.isfinite(model), model, 0)
    size = {"size": 3, "mode": "nearest"}
    high, low = ndimage.maximum_filter(filled, **size), ndimage.minimum_filter(filled, **size)
    step = np.maximum(high - filled, filled - low)
    return np.maximum(step - 2 * np.median(step), 0)
