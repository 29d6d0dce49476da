"""Levels of an image: its sky without stars and bad pixels, its noise, where it saturates."""

import math

import numpy as np
from astropy.io import fits

from .rows import sample_bands

__all__ = ["robust_level", "robust_noise", "robust_statistics", "saturation_level"]

#: Fraction of an integer type's largest value that counts as saturated where nothing else is known.
TYPE_FRACTION = 0.98


def robust_level(image, *, mask=None):
    """Level of an image; the first of `robust_statistics`.

    Parameters
    ----------
    image, mask : array_like
        As in `robust_statistics`.

    Returns
    -------
    float
        In the unit of the pixels; NaN where there is none.
    """
    return robust_statistics(image, mask=mask)[0]


def robust_noise(image, *, mask=None):
    """Robust standard deviation of all pixels; the second of `robust_statistics`.

    Parameters
    ----------
    image, mask : array_like
        As in `robust_statistics`.

    Returns
    -------
    float
        In the unit of the pixels; NaN where there is none.
    """
    return robust_statistics(image, mask=mask)[1]


def robust_statistics(image, *, mask=None):
    """Level and noise of an image, without its stars and bad pixels.

    The noise is 1.4826 times the median absolute deviation, the level the mean of the pixels within
    3 times that of the median: finer than the median, which of whole numbers is a whole number.

    Parameters
    ----------
    image : array_like of float
        Pixels; what is not finite is left out. Of a frame of more than 2 megapixels a sample of
        rows is looked at.
    mask : array_like of bool, optional
        Pixels to leave out.

    Returns
    -------
    level, noise : float
        In the unit of the pixels; NaN where there is none.
    """
    image = np.asarray(image)
    bands = sample_bands(image.shape) if image.ndim == 2 else [(0, len(image))]
    values = np.concatenate([image[start:stop] for start, stop in bands])
    good = np.isfinite(values)
    if mask is not None:
        good &= ~np.concatenate([mask[start:stop] for start, stop in bands])
    values = values[good]
    if not values.size:
        return math.nan, math.nan
    middle = np.median(values)
    values -= middle
    distance = np.abs(values)
    noise = 1.4826 * float(np.median(distance))
    return float(middle + values[distance <= 3 * noise].mean(dtype=float)), noise


def saturation_level(source, *, header=None, camera=None):
    """Raw level from which on a pixel is not to be trusted.

    Parameters
    ----------
    source : FileRows or ArrayRows
        Raw frame.
    header : astropy.io.fits.Header, optional
        Its header, where the source has none. The card SATURATE counts, else 98 % of what the
        integers of the frame can hold; those of more than 16 bits are never filled.
    camera : Camera, optional
        Its ``saturation`` comes before either.

    Returns
    -------
    float or None
        ADU; None where nothing tells it.
    """
    header = getattr(source, "header", {}) if header is None else header
    for level in (getattr(camera, "saturation", None), _number(header, "SATURATE")):
        if level is not None and 0 < level < math.inf:
            return float(level)
    dtype = getattr(source, "dtype", None) or source.data.dtype
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        return None
    scale, zero = getattr(source, "scale", 1), getattr(source, "zero", 0)
    return TYPE_FRACTION * (np.iinfo(dtype).max * scale + zero)


def _number(header, key):
    """Read the number of a card; None where it is missing or unreadable."""
    try:
        return float(header[key])
    except (KeyError, TypeError, ValueError, fits.VerifyError):
        return None
