"""Where the bad pixels are: hot ones from darks or lights, dead ones from flats, bad columns.

Every map compares a pixel with what is smooth around it, so a glow, a gradient or a vignetted
corner is no fault.
"""

import itertools

import numpy as np
from scipy import ndimage

from .boxlevels import box_edges, box_medians, interpolate_boxes, local_level, smooth_level

__all__ = ["bad_columns", "dead_map", "hot_map", "hot_map_from_lights", "local_level"]


def hot_map(dark, *, nsigma=5.0, exptime=1.0, min_rate=0.0, box=32):
    r"""Pixels that are brighter in the dark than their surroundings.

    .. math:: D - L > \max(k \, \sigma_L,\ r \, t)

    with the local level :math:`L` and its noise :math:`\sigma_L` of `local_level`. The first
    limit is what the noise of this dark allows to see; the second is a rate, and so the same pixels
    are hot in darks of any exposure time that is long enough to see that rate.

    Parameters
    ----------
    dark : array-like of shape (ny, nx)
        Master dark in ADU.
    nsigma : float
        k, limit in units of the local robust noise. At 5 a perfect sensor has 3 wrong pixels in ten
        million; at 3 it would have 1350 in a million.
    exptime : float
        t, exposure time of the dark in s.
    min_rate : float
        r, least excess in ADU/s that counts, however small the noise.
    box : int
        Size in pixels over which the level is smooth.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where hot.

    Raises
    ------
    ValueError
        If there is a least rate but the exposure time is not a positive number.

    Examples
    --------
    >>> dark = np.random.default_rng(1).normal(0, 1, (64, 64))
    >>> dark[10, 20] = 30
    >>> np.argwhere(hot_map(dark))
    array([[10, 20]])
    """
    if min_rate > 0 and not exptime > 0:
        raise ValueError(
            f"exptime = {exptime} s: a least rate needs the exposure time of the dark, a positive "
            "number; give it, or leave min_rate out."
        )
    dark = np.asarray(dark, np.float32)
    level, limit = local_level(dark, box=box)
    # Whole numbers can have no noise at all by the median; half a step is the least.
    np.maximum(limit, _noise_floor(dark), out=limit)
    limit *= np.float32(nsigma)
    if min_rate > 0:
        np.maximum(limit, np.float32(min_rate * exptime), out=limit)
    with np.errstate(invalid="ignore"):
        return (np.subtract(dark, level, out=level) > limit) & (dark < np.inf)


def hot_map_from_lights(frames, *, nsigma=5.0, most=0.5, box=32):
    """Hot pixels from light frames, when there are no darks.

    A pixel is compared with the median of its eight neighbours on each frame; the median of that
    excess over the frames keeps what stays on the sensor while the stars drift. What did not drift
    is kept apart by its shape: a hot pixel stands alone, and light spreads over its neighbours.

    Parameters
    ----------
    frames : sequence of array-like or row sources, each of shape (ny, nx)
        Five or more frames with the stars in different places, raw or not: some 25, far apart in
        time, rather than all. A row source has ``shape`` and ``rows(start, stop)``; of files only a
        band of rows is in memory at a time.
    nsigma : float
        Limit in units of the noise of the excess on one frame: what is less does no harm there.
    most : float
        The excess of the neighbours above and below, left and right may be at most this part of
        the pixel's own. A star that does not drift has a brighter neighbour if its FWHM is 2 pixels
        or more (before the pixels widen it). From 1.8 pixels down it passes for a hot pixel where
        it stands on the middle of a pixel: one in ten with 1.5 pixels, a third with 1.
    box : int
        Size in pixels over which the noise is smooth.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where hot.

    Raises
    ------
    ValueError
        If there are fewer than five frames, or they differ in shape.
    """
    frames = [frame if hasattr(frame, "rows") else np.asarray(frame) for frame in frames]
    shapes = {tuple(frame.shape) for frame in frames}
    if len(frames) < 5 or len(shapes) > 1:
        raise ValueError(
            f"{len(frames)} frames of shape {', '.join(map(str, sorted(shapes)))} cannot tell hot "
            "pixels from stars; give five of one shape."
        )
    (shape,) = shapes
    excess, typical = np.empty(shape, np.float32), np.empty(shape, np.float32)
    noise = []
    rows = box_edges(shape[0], box)
    for start, stop in itertools.pairwise(rows):  # Little memory, whatever the number of frames.
        bands = [_with_margin(frame, start, stop) for frame in frames]
        stack = np.stack([_excess(band) for band in bands])
        deviations = [box_medians(np.abs(one), (len(one), box)) for one in stack]
        noise.append(np.median([medians[0] for medians, *_ in deviations], axis=0))
        excess[start:stop] = _middle(stack)
        typical[start:stop] = _middle(np.stack([band[1:-1, 1:-1] for band in bands]))
    centres = (rows[:-1] + rows[1:] - 1) / 2
    limit = interpolate_boxes(1.4826 * np.array(noise), centres, deviations[0][2], shape)
    floor = _noise_floor(_rows(frames[0], shape[0] // 2, shape[0] // 2 + 1))
    y, x = np.nonzero(excess > nsigma * np.maximum(limit, floor))
    padded = np.pad(typical, 4, mode="reflect")
    beside = [_above_ring(padded, y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    alone = np.max(beside, axis=0) <= most * _above_ring(padded, y, x)
    hot = np.zeros(shape, bool)
    hot[y[alone], x[alone]] = True
    return hot


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
    level = smooth_level(flat, box=box)
    level *= np.float32(limit)
    # Below zero the level itself would be no measure.
    np.maximum(level, 0, out=level)
    with np.errstate(invalid="ignore"):
        return ~((flat > level) & np.isfinite(flat))


def bad_columns(image, *, nsigma=8.0, least=0.0, segment=128, window=15):
    """Columns, or long pieces of them, that differ from the columns beside them.

    Each piece of ``segment`` rows gives the mean of the middle half of each column, less the level
    beside it: the mean of two medians, of the columns to its left and to its right (at the sides of
    the frame a robust line). A piece is bad where that differs by more than ``nsigma`` times the
    robust scatter over the columns.

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
        Columns from the first to the last that make the level of comparison, odd.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True in bad columns.
    """
    image = _filled(np.asarray(image, np.float32))
    mask = np.zeros(image.shape, bool)
    ny = image.shape[0]
    edges = np.linspace(0, ny, max(1, round(ny / segment)) + 1).astype(int)
    step_noise = _noise_floor(image)
    for start, stop in itertools.pairwise(edges):
        # The mean of the middle half: robust as a median, and finer than the step of counts.
        quarter = (stop - start) // 4
        column = np.sort(image[start:stop], axis=0)[quarter : stop - start - quarter].mean(axis=0)
        excess = np.abs(column - _beside(column, window))
        # On a steep glow a column differs from its neighbours, and so do all of those around it.
        around = ndimage.median_filter(excess, 2 * window + 1, mode="mirror")
        noise = 1.4826 * np.maximum(np.median(excess), around)
        floor = step_noise / (stop - start) ** 0.5
        mask[start:stop] = excess > np.maximum(nsigma * np.maximum(noise, floor), least)
    return mask


def _beside(column, window):
    """Level of a row of values from those to the left and right; at its ends a line."""
    half = window // 2
    if half == 0 or column.size < 2 * half + 1:
        return np.full(column.size, np.median(column), column.dtype)
    # The median of a window around a value that lies on a slope is often the value itself.
    medians = np.median(np.lib.stride_tricks.sliding_window_view(column, half), axis=1)
    level = np.empty_like(column)
    level[half:-half] = 0.5 * (medians[: -half - 1] + medians[half + 1 :])
    # An end that is mirrored or repeated would compare a bad first column with itself.
    for values, ends in ((column, level), (column[::-1], level[::-1])):
        first = values[: 2 * half + 1]
        slope = np.median(first[half:] - first[: half + 1]) / half
        ends[:half] = np.median(first) + slope * (np.arange(half) - half)
    return level


def _rows(frame, start, stop):
    """Rows of an array or of a row source, as float32 and finite."""
    rows = frame.rows(start, stop) if hasattr(frame, "rows") else frame[start:stop]
    return _filled(np.asarray(rows, np.float32))


def _with_margin(frame, start, stop):
    """Rows of a frame with the pixels around them; mirrored beyond the frame."""
    first, last = max(start - 1, 0), min(stop + 1, frame.shape[0])
    band = _rows(frame, first, last)
    above, below = first - (start - 1), stop + 1 - last
    return np.pad(band, ((above, below), (1, 1)), mode="reflect")


def _excess(band):
    """Inner pixels of a band less the median of the eight around each."""
    ny, nx = band.shape[0] - 2, band.shape[1] - 2
    around = [(j, i) for j in range(3) for i in range(3) if (j, i) != (1, 1)]
    return band[1:-1, 1:-1] - _middle(np.stack([band[j : j + ny, i : i + nx] for j, i in around]))


def _middle(stack):
    """Median of images, pixel by pixel; the stack is sorted, far quicker than a median of it."""
    stack.sort(axis=0)
    n = len(stack)
    return 0.5 * (stack[(n - 1) // 2] + stack[n // 2])


def _above_ring(padded, y, x):
    """Pixels less the median three pixels around, where no light of a star is left.

    The positions are those without the image's margin of 4 pixels.
    """
    ring = [(j, i) for j in range(-3, 4) for i in range(-3, 4) if max(abs(j), abs(i)) == 3]
    around = np.array([padded[y + 4 + j, x + 4 + i] for j, i in ring])
    return padded[y + 4, x + 4] - np.median(around, axis=0)


def _filled(image):
    """Image with its median where it is not finite."""
    finite = np.isfinite(image)
    if finite.all():
        return image
    return np.where(finite, image, np.median(image[finite]) if finite.any() else 0)


def _noise_floor(image):
    """Least believable noise: half a step of the values, nothing where they have no steps."""
    values = np.unique(image[:: max(1, image.shape[0] // 16)])
    values = values[np.isfinite(values)]
    if values.size < 2:
        return 0.7413 if values.size and np.array_equal(values, np.rint(values)) else 0.0
    steps = np.diff(values) / np.diff(values).min()
    return 0.7413 * float(np.diff(values).min()) if np.array_equal(steps, np.rint(steps)) else 0.0
