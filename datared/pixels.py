"""Pixel quality: bit flags, the maps that find bad pixels, and their repair.

Flags are a ``uint16`` image beside the data, one bit for each fault. A pixel is masked where any
bit is set; nobody needs to know the faults to leave it out, and anybody can ask why.
"""

import itertools

import numpy as np
from scipy import ndimage

__all__ = [
    "FLAG_NAMES",
    "bad_columns",
    "dead_map",
    "describe",
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


def saturation_mask(raw, *, level, grow=1):
    """Pixels at or above the saturation level, and their neighbours.

    Parameters
    ----------
    raw : array-like of shape (ny, nx)
        Raw counts (ADU), before any correction: a later subtraction hides the level.
    level : float
        Saturation level in ADU.
    grow : int
        Neighbours (also diagonal ones) to take along, in pixels: charge spills over.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where saturated.

    Examples
    --------
    >>> saturation_mask(np.array([[1, 2, 3, 65535]]), level=65000)
    array([[False, False,  True,  True]])
    """
    with np.errstate(invalid="ignore"):
        mask = np.asarray(raw) >= level
    if grow and mask.any():
        mask = ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=grow)
    return mask


def local_level(image, *, box=32):
    """Smooth level of an image and its robust noise, from the medians of boxes.

    Parameters
    ----------
    image : array-like of shape (ny, nx)
        Image; values that are not finite are ignored.
    box : int
        Side of a box in pixels; structures smaller than a box do not move its median.

    Returns
    -------
    level, noise : numpy.ndarray of float32, shape (ny, nx)
        Level by linear interpolation between the centres of the boxes, and 1.4826 times the
        median absolute deviation from it, likewise.
    """
    image = np.asarray(image, np.float32)
    level = _interpolate(_box_medians(image, box), image.shape)
    noise = 1.4826 * _interpolate(_box_medians(np.abs(image - level), box), image.shape)
    return level, noise


def hot_map(dark, *, nsigma=5.0, exptime=1.0, min_rate=0.0, box=32):
    """Pixels that are brighter in the dark than their surroundings.

    Parameters
    ----------
    dark : array-like of shape (ny, nx)
        Master dark in ADU. A smooth glow is no fault: the local level is taken off.
    nsigma : float
        Limit in units of the local robust noise. At 5 a perfect sensor has 3 wrong pixels in ten
        million; at 3 it would have 1350 in a million.
    exptime : float
        Exposure time of the dark in s.
    min_rate : float
        Least excess in ADU/s that counts, however small the noise.
    box : int
        Size in pixels over which the level is smooth.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where hot.

    Examples
    --------
    >>> dark = np.random.default_rng(1).normal(0, 1, (64, 64))
    >>> dark[10, 20] = 30
    >>> np.argwhere(hot_map(dark))
    array([[10, 20]])
    """
    dark = np.asarray(dark, np.float32)
    level, noise = local_level(dark, box=box)
    # Whole numbers can have no noise at all by the median; half a step is the least.
    limit = np.maximum(nsigma * np.maximum(noise, _noise_floor(dark)), min_rate * exptime)
    with np.errstate(invalid="ignore"):
        return dark - level > limit


def hot_map_from_lights(frames, *, nsigma=5.0, most=0.5, box=32):
    """Hot pixels from light frames, when there are no darks.

    A pixel is compared with the median of its eight neighbours on each frame; the median of that
    excess over the frames keeps what stays on the sensor while the stars drift. What did not drift
    is kept apart by its shape: a hot pixel stands alone, and light spreads over its neighbours.

    Parameters
    ----------
    frames : iterable of array-like, each of shape (ny, nx)
        Frames with the stars in different places, raw or not; five or more. They are held as one
        stack: give some 25, far apart in time, rather than all.
    nsigma : float
        Limit in units of the noise of the excess on one frame: what is less does no harm there.
    most : float
        The excess of the neighbours above and below, left and right may be at most this part of
        the pixel's own. A star with a FWHM of 1.5 pixels or more has a brighter neighbour.
    box : int
        Size in pixels over which the noise is smooth.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where hot.

    Raises
    ------
    ValueError
        If there are fewer than five frames.
    """
    around = np.ones((3, 3), bool)
    around[1, 1] = False
    stack, typical, noises = [], [], []
    for frame in frames:
        frame = _filled(np.asarray(frame, np.float32))
        stack.append(frame - ndimage.median_filter(frame, footprint=around, mode="mirror"))
        noises.append(local_level(stack[-1], box=box)[1])
        typical.append(frame)
    if len(stack) < 5:
        raise ValueError(f"{len(stack)} frames cannot tell hot pixels from stars; give five.")
    excess = np.median(np.stack(stack), axis=0)
    frame = np.median(np.stack(typical), axis=0)
    noise = np.median(np.stack(noises), axis=0)
    hot = excess > nsigma * np.maximum(noise, _noise_floor(typical[0]))
    # Neighbours are measured from the median further out, where no light of a star is left.
    ring = np.ones((7, 7), bool)
    ring[1:-1, 1:-1] = False
    above = frame - ndimage.median_filter(frame, footprint=ring, mode="mirror")
    cross = ndimage.generate_binary_structure(2, 1)
    cross[1, 1] = False
    neighbour = ndimage.percentile_filter(above, 75, footprint=cross, mode="mirror")
    return hot & (neighbour <= most * above)


def dead_map(flat, *, limit=0.5, box=32):
    """Pixels that see much less light than their surroundings.

    Parameters
    ----------
    flat : array-like of shape (ny, nx)
        Master flat.
    limit : float
        Least sensitivity relative to the local level. A vignetted corner is not dead, nor is a
        dust shadow, which dims by 5 to 30 %.
    box : int
        Size in pixels over which the level is smooth.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where dead: below the limit, not positive, or not finite.

    Examples
    --------
    >>> flat = np.ones((40, 40))
    >>> flat[3, 4], flat[8, 9] = 0.3, np.nan
    >>> np.argwhere(dead_map(flat))
    array([[3, 4],
           [8, 9]])
    """
    flat = np.asarray(flat, np.float32)
    level = _interpolate(_box_medians(flat, box), flat.shape)
    with np.errstate(invalid="ignore"):
        return ~((flat > limit * level) & (flat > 0))


def bad_columns(image, *, nsigma=8.0, least=0.0, segment=128, window=15):
    """Columns, or long pieces of them, that differ from the columns beside them.

    Each piece of ``segment`` rows gives the mean of the middle half of each column, less the
    running median over ``window`` columns. A piece is bad where that differs by more than
    ``nsigma`` times the robust scatter over the columns.

    Parameters
    ----------
    image : array-like of shape (ny, nx)
        Master bias, dark or flat.
    nsigma : float
        Limit in units of the scatter of column medians.
    least : float
        Least difference that counts, in units of the image.
    segment : int
        Rows in a piece; a bad column may begin anywhere.
    window : int
        Columns that make the level of comparison, odd.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True in bad columns.
    """
    image = _filled(np.asarray(image, np.float32))
    mask = np.zeros(image.shape, bool)
    ny = image.shape[0]
    edges = np.linspace(0, ny, max(1, round(ny / segment)) + 1).astype(int)
    for start, stop in itertools.pairwise(edges):
        # The mean of the middle half: robust as a median, and finer than the step of counts.
        quarter = (stop - start) // 4
        column = np.sort(image[start:stop], axis=0)[quarter : stop - start - quarter].mean(axis=0)
        excess = np.abs(column - ndimage.median_filter(column, window, mode="nearest"))
        noise = 1.4826 * np.median(excess)
        floor = _noise_floor(image[start:stop]) / (stop - start) ** 0.5
        mask[start:stop] = excess > max(nsigma * max(noise, floor), least)
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
    data, flags = np.array(data, np.float32), np.array(flags, np.uint16)
    good = (flags == 0) & np.isfinite(data)
    wanted = (flags & bits) != 0
    # A level near the image's keeps the sums of float32 exact.
    centre = np.float32(np.median(data[good])) if good.any() else np.float32(0)
    kernel = {"sigma": sigma, "mode": "constant", "truncate": 4.0}
    weight = ndimage.gaussian_filter(good.astype(np.float32), **kernel)
    total = ndimage.gaussian_filter(np.where(good, data - centre, np.float32(0)), **kernel)
    done = wanted & (weight > 1e-4)
    data[done] = total[done] / weight[done] + centre
    flags[done] |= REPAIRED
    return data, flags


def _box_medians(image, box):
    """Medians of boxes, and where their centres are: (medians, y, x)."""
    ny, nx = image.shape
    y = np.linspace(0, ny, max(1, round(ny / box)) + 1).astype(int)
    x = np.linspace(0, nx, max(1, round(nx / box)) + 1).astype(int)
    medians = np.empty((len(y) - 1, len(x) - 1), np.float32)
    fallback = image[np.isfinite(image)]
    fallback = np.median(fallback) if fallback.size else 0.0
    for j, (y0, y1) in enumerate(itertools.pairwise(y)):
        for i, (x0, x1) in enumerate(itertools.pairwise(x)):
            values = image[y0:y1, x0:x1]
            values = values[np.isfinite(values)]
            medians[j, i] = np.median(values) if values.size else fallback
    return medians, (y[:-1] + y[1:] - 1) / 2, (x[:-1] + x[1:] - 1) / 2


def _interpolate(boxes, shape):
    """Image of linear interpolation between the centres of boxes, extrapolated at the borders."""
    values, y, x = boxes
    weights_y, weights_x = _linear(y, shape[0]), _linear(x, shape[1])
    return (weights_y @ values @ weights_x.T).astype(np.float32)


def _linear(centres, size):
    """Matrix, shape (size, len(centres)), that interpolates linearly at 0, 1, ... size - 1."""
    if len(centres) == 1:
        return np.ones((size, 1))
    position = np.arange(size)
    left = np.clip(np.searchsorted(centres, position) - 1, 0, len(centres) - 2)
    part = (position - centres[left]) / (centres[left + 1] - centres[left])
    matrix = np.zeros((size, len(centres)))
    matrix[position, left], matrix[position, left + 1] = 1 - part, part
    return matrix


def _filled(image):
    """Image with its median where it is not finite."""
    finite = np.isfinite(image)
    if finite.all():
        return image
    return np.where(finite, image, np.median(image[finite]) if finite.any() else 0)


def _noise_floor(image):
    """Least believable noise: half a step of whole numbers, nothing for others."""
    sample = image[image.shape[0] // 2]
    sample = sample[np.isfinite(sample)]
    return 0.7413 if sample.size and np.array_equal(sample, np.rint(sample)) else 0.0
