"""Hot pixels of a night without darks: what each of them adds, taken off the light frames.

A hot pixel adds nearly the same to every frame. The frames themselves tell how much, for the stars
drift over it and their median has none. What is left then is better than any guess from the pixels
around, which fails most under a star, where it matters.
"""

import numpy as np

from . import pixels
from .levels import robust_noise

__all__ = ["hot_excess", "subtract_hot"]

#: Excess of a pixel over the noise of the frame from which on it is not trusted to be steady.
STEADY = 50.0
#: Of the hot pixels this part, the brightest, tell how warm the sensor was in a frame; not fewer
#: than so many, for a star may stand on some.
BRIGHT, FEWEST = 0.2, 10
#: The four pixels beside a hot one have nothing of its excess, those beside a star wider than
#: 1.3 pixels (FWHM) more than this part of its own on average.
LIT = 0.25


def hot_excess(image, hot):
    """Give what hot pixels have above the good pixels around them.

    Parameters
    ----------
    image : array_like of float, shape (ny, nx)
        A frame, or the median of many (ADU).
    hot : array_like of bool, shape (ny, nx)
        Where the hot pixels are.

    Returns
    -------
    numpy.ndarray of float32, shape (n,)
        For each hot pixel, in the order of ``numpy.nonzero``, its value less the median of the good
        pixels among the 24 around it; NaN where there are fewer than three.
    """
    hot, image = np.asarray(hot, bool), np.asarray(image, np.float32)
    y, x = np.nonzero(hot)
    good = np.pad(np.where(hot, np.float32(np.nan), image), 2, constant_values=np.nan)
    around = [good[y + j, x + i] for j in range(5) for i in range(5) if (j, i) != (2, 2)]
    around = np.sort(around, axis=0)  # NaN are sorted to the end.
    n = np.count_nonzero(np.isfinite(around), axis=0)
    columns, low = np.arange(len(y)), np.maximum(n - 1, 0) // 2
    middle = 0.5 * (around[low, columns] + around[np.minimum(n // 2, 23), columns])
    return np.where(n < 3, np.float32(np.nan), image[y, x] - middle)


def subtract_hot(ccd, map_):
    r"""Take off a frame what its hot pixels add to it.

    .. math:: d' = d - f e

    with the excess :math:`e` of each hot pixel in the median of the night's frames, and one factor
    :math:`f` for the frame, the median of the ratios of its own excesses to those, over the
    brightest fifth of the hot pixels (ten at least): a warmer sensor is hotter everywhere.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        A frame (ADU or electrons) with ``flags``. It is changed: a pixel that was mended is
        neither ``HOT`` nor masked any more, as after a dark that fits.
    map_ : astropy.nddata.CCDData
        Median of many frames of the night in which the stars have drifted, with the flag ``HOT``
        (``masters/hot_*.fits``).

    Returns
    -------
    float
        The factor, also in the card HOTSUB; NaN, and nothing is changed, without a hot pixel or
        where the hot pixels of the map are not hot in the frame.

    Notes
    -----
    A pixel with an excess above 50 times the noise of the frame stays flagged: its own noise is
    too large. So does one that has another flag, and one with light beside it in the map: where
    stars have not drifted a sharp one looks like a hot pixel, and would lose its light. Frames of
    other exposure times differ in the factor. It holds for a frame that a flat has divided as far
    as the flat is near 1. From whole counts whole counts are taken: a median of them looks at how
    many are equal, which a few broken ones between them would spoil.
    """
    hot = (np.asarray(map_.flags) & pixels.HOT) > 0
    usual, own = hot_excess(map_.data, hot), hot_excess(ccd.data, hot)
    y, x = np.nonzero(hot)
    flags = np.asarray(ccd.flags)[y, x]
    known = np.isfinite(usual) & np.isfinite(own) & (usual > 0)
    if not known.any():
        return float("nan")
    share = max(BRIGHT, min(FEWEST / np.count_nonzero(known), 1))
    bright = known & (usual >= np.quantile(usual[known], 1 - share))
    factor = float(np.median(own[bright] / usual[bright]))
    if not factor > 0:
        return float("nan")
    steady = known & (flags == pixels.HOT) & ~_lit(map_.data, hot, usual)
    steady[steady] = factor * usual[steady] < STEADY * robust_noise(ccd.data)
    y, x = y[steady], x[steady]
    taken = np.float32(factor) * usual[steady]
    if np.array_equal(ccd.data, np.rint(ccd.data)):
        taken = np.rint(taken)
    ccd.data[y, x] -= taken
    ccd.flags[y, x] = 0
    ccd.mask[y, x] = False
    ccd.meta["HOTSUB"] = (factor, "of the usual excess of hot pixels, taken off")
    return factor


def _lit(image, hot, excess):
    """Tell which hot pixels have light beside them, as a star has."""
    y, x = np.nonzero(hot)
    image = np.asarray(image, np.float32)
    good = np.pad(np.where(hot, np.float32(np.nan), image), 1, constant_values=np.nan)
    beside = np.array([good[y + j, x + i] for j, i in ((1, 0), (1, 2), (0, 1), (2, 1))])
    there = np.isfinite(beside)
    mean = np.where(there, beside, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return there.any(axis=0) & (mean - (image[y, x] - excess) > LIT * excess)
