"""Level and noise of an image, without its stars and bad pixels."""

import math

import numpy as np

from .rows import sample_bands

__all__ = ["robust_level", "robust_noise", "robust_statistics"]


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
