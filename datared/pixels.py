"""Pixel quality: bit flags, saturation with its trails, and the repair of bad pixels.

Flags are a ``uint16`` image beside the data, one bit for each fault. A pixel is masked where any
bit is set; nobody needs to know the faults to leave it out, and anybody can ask why. The maps that
find bad pixels are in `datared.maps`, and known here by the same names.
"""

import math

import numpy as np

from .errors import FrameError
from .maps import bad_columns, dead_map, hot_map, hot_map_from_lights, local_level

__all__ = [
    "FLAG_NAMES",
    "bad_columns",
    "dead_map",
    "describe",
    "frame_planes",
    "hot_map",
    "hot_map_from_lights",
    "local_level",
    "repair_gaussian",
    "saturation_mask",
]

SATURATED = 1
HOT = 2
DEAD = 4
COSMIC = 8
NONFINITE = 16
BAD_COLUMN = 32
LOW_FLAT = 64
OUTSIDE = 128
REPAIRED = 256
TRAIL = 512

#: Name of every bit, from the lowest.
FLAG_NAMES = {
    "saturated": SATURATED,
    "hot": HOT,
    "dead": DEAD,
    "cosmic": COSMIC,
    "nonfinite": NONFINITE,
    "bad_column": BAD_COLUMN,
    "low_flat": LOW_FLAT,
    "outside": OUTSIDE,
    "repaired": REPAIRED,
    "trail": TRAIL,
}
#: What a repair may replace. The flat top of a saturated star holds no information to restore, and
#: outside the sensor there is nothing.
REPAIRABLE = HOT | DEAD | COSMIC | NONFINITE | BAD_COLUMN | LOW_FLAT | TRAIL

#: A bleed trail is compared with the pixels this many columns to its left and right.
BESIDE = 16
#: Columns that are searched for trails at a time.
COLUMNS = 256
#: A pixel is not repaired where good neighbours have less than this part of the weights.
LEAST_WEIGHT = 1e-4


def describe(bits):
    """Names of the flags that are set.

    Parameters
    ----------
    bits : int
        Flags of one pixel.

    Returns
    -------
    list of str
        Names, from the lowest bit.

    Examples
    --------
    >>> describe(SATURATED | COSMIC)
    ['saturated', 'cosmic']
    """
    return [name for name, bit in FLAG_NAMES.items() if int(bits) & bit]


def frame_planes(frame):
    """Pixels of a frame and what is known to be wrong with them.

    Parameters
    ----------
    frame : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        The frame.

    Returns
    -------
    data : numpy.ndarray, shape (ny, nx)
        Pixels, not copied.
    flags : numpy.ndarray of uint16, shape (ny, nx), or None
        The ``flags`` of a CCDData; else ``NONFINITE`` where its mask, or that of a masked array,
        hides a pixel; None where nothing is known.

    Raises
    ------
    FrameError
        If it has not two axes.

    Examples
    --------
    >>> data, flags = frame_planes(np.ma.masked_greater(np.array([[1.0, 9.0]]), 5))
    >>> describe(flags[0, 1])
    ['nonfinite']
    """
    plain = isinstance(frame, np.ndarray) or not hasattr(frame, "unit")
    data = np.asarray(frame if plain else frame.data)
    if data.ndim != 2:
        raise FrameError(f"a frame has two axes, this one has {data.ndim}")
    flags = None if plain else getattr(frame, "flags", None)
    mask = np.ma.getmask(frame) if plain else frame.mask
    if flags is None and mask is not None and np.any(mask):
        # Nobody says what is wrong with them.
        flags = np.where(np.broadcast_to(mask, data.shape), np.uint16(NONFINITE), np.uint16(0))
    return data, None if flags is None else np.asarray(flags, np.uint16)


def saturation_mask(raw, *, level, grow=1, trail=0.5):
    r"""Pixels at or above the saturation level, the trails that bleed from them, and neighbours.

    Charge that a pixel cannot hold flows along its column, so a pixel belongs to a trail if it is
    connected to a saturated one through pixels of its column that all have

    .. math:: S \ge S_0 + f \, (L - S_0)

    where L is the level, f the part ``trail`` and :math:`S_0` the light beside the trail: the
    lesser of the pixels 16 columns to the left and right. Pixels of a trail are full. Their full
    wells differ by some percent, and so does L from them, far less than the half that f allows; but
    star light that falls to half of L within a pixel or two, or a bright flat around a saturated
    hot pixel, is no trail. The one pixel in which a trail ends holds what charge was left, which
    may be any amount: the neighbours that are taken along cover it.

    Parameters
    ----------
    raw : array-like of shape (ny, nx)
        Raw counts (ADU), integers or floats, before any correction: a later subtraction hides the
        level. Integers are not converted.
    level : float
        Saturation level in ADU: the camera's, 16383 for one of 14 bits, more than 65535 for sums
        of binned pixels, the value at which stretched data were clipped.
    grow : int
        Neighbours (also diagonal ones) to take along, in pixels: charge spills over.
    trail : float
        f, from 0 to 1; 1 takes only pixels that reach the level.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where saturated.

    Raises
    ------
    ValueError
        If the level is not finite, or ``trail`` is not between 0 and 1.

    Examples
    --------
    >>> saturation_mask(np.array([[1, 2, 3, 65535]]), level=65000)
    array([[False, False,  True,  True]])
    """
    if not math.isfinite(level):
        raise ValueError(f"level = {level} is no saturation level; give a number in ADU.")
    if not 0 <= trail <= 1:
        raise ValueError(f"trail = {trail} is no part of the level; give a number from 0 to 1.")
    raw = np.asarray(raw)
    # A whole number is compared with whole numbers as they are; a float would convert them all.
    mask = raw >= (math.ceil(level) if raw.dtype.kind in "iu" else level)
    if not mask.any():
        return mask
    if trail < 1:
        columns = np.flatnonzero(mask.any(axis=0))
        for first in range(0, len(columns), COLUMNS):
            some = columns[first : first + COLUMNS]
            mask[:, some] = _trails(raw, mask[:, some], some, level, trail)
    return _grown(mask, grow)


def _trails(raw, seeds, columns, level, part):
    """Seeds, and what is connected to them along the columns and above the limit."""
    last = raw.shape[1] - 1
    left, right = (
        raw[:, np.clip(np.where((0 <= side) & (side <= last), side, other), 0, last)]
        for side, other in (
            (columns - BESIDE, columns + BESIDE),
            (columns + BESIDE, columns - BESIDE),
        )
    )
    beside = np.fmin(left, right).astype(np.float64)  # NaN only where both are.
    with np.errstate(invalid="ignore"):
        limit = np.minimum(beside + part * (level - beside), level)
        bright = np.ascontiguousarray(((raw[:, columns] >= limit) | seeds).T)
    start = bright.copy()
    start[:, 1:] &= ~bright[:, :-1]
    # Every run of bright pixels in a column has a number; those with a seed are trails.
    run = np.cumsum(start).reshape(start.shape)
    has_seed = np.zeros(run[-1, -1] + 1, bool)
    has_seed[run[seeds.T]] = True
    return (bright & has_seed[run]).T


def _grown(mask, n):
    """Mask with n neighbours on all sides, also diagonal ones."""
    for _ in range(n):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide.copy()
        mask[:, 1:] |= wide[:, :-1]
        mask[:, :-1] |= wide[:, 1:]
    return mask


def repair_gaussian(data, flags, *, sigma=1.5, bits=REPAIRABLE):
    r"""Replace bad pixels by the Gaussian-weighted mean of the good ones around them.

    .. math:: D(p) = \sum_q w_{pq} D(q) / \sum_q w_{pq}, \quad
              w_{pq} = e^{-|p - q|^2 / 2\sigma^2} \ \text{for good } q

    Parameters
    ----------
    data : array-like of shape (ny, nx)
        Image.
    flags : array-like of uint16, shape (ny, nx)
        Flags; pixels with any flag are never used as neighbours.
    sigma : float
        Width of the weights in pixels. Neighbours out to 4 sigma are used.
    bits : int
        Which flags to repair. Saturated pixels are not among them by default.

    Returns
    -------
    data : numpy.ndarray of float32, shape (ny, nx)
        Repaired copy.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Copy in which repaired pixels have ``REPAIRED`` set besides what they had.

    Examples
    --------
    >>> data, flags = np.full((9, 9), 7.0), np.zeros((9, 9), np.uint16)
    >>> data[4, 4], flags[4, 4] = np.nan, NONFINITE
    >>> repaired, bits = repair_gaussian(data, flags)
    >>> float(repaired[4, 4]), describe(bits[4, 4])
    (7.0, ['nonfinite', 'repaired'])
    """
    from .filling import fill_gaussian

    data, flags = np.array(data, np.float32, order="C"), np.array(flags, np.uint16, order="C")
    if data.shape != flags.shape:
        raise ValueError(
            f"the image has shape {data.shape} and its flags have {flags.shape}: give flags of the "
            "same shape."
        )
    wanted = np.flatnonzero(flags & bits)
    done = wanted[fill_gaussian(data, flags, wanted, float(sigma), LEAST_WEIGHT)]
    flags.ravel()[done] |= np.uint16(REPAIRED)
    return data, flags
