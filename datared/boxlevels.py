"""Smooth level and noise of an image from the medians of boxes, by compiled loops."""

import numpy as np
from numba import njit

__all__ = [
    "box_edges",
    "box_medians",
    "box_noise",
    "interpolate_boxes",
    "local_level",
    "smooth_level",
]

#: Values of a box that are sorted to guess between which two its median lies.
_SAMPLE = 32


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
    medians, y, x = box_medians(image, box)
    deviations, *_ = box_medians(image, box, around=medians)
    shape = np.shape(image)
    return interpolate_boxes(medians, y, x, shape), interpolate_boxes(
        np.float32(1.4826) * deviations, y, x, shape
    )


def smooth_level(image, *, box=32):
    """Smooth level of an image, the first of `local_level`.

    Parameters
    ----------
    image, box
        As in `local_level`.

    Returns
    -------
    numpy.ndarray of float32, shape (ny, nx)
        The level.
    """
    return interpolate_boxes(*box_medians(image, box), np.shape(image))


def box_noise(image, box):
    """Robust noise of boxes; interpolated it is the second of `local_level`.

    Parameters
    ----------
    image, box
        As in `local_level`.

    Returns
    -------
    noise, y, x : numpy.ndarray
        As of `box_medians`.
    """
    medians, y, x = box_medians(image, box)
    return np.float32(1.4826) * box_medians(image, box, around=medians)[0], y, x


def box_medians(image, box, *, around=None):
    """Medians of the finite values of boxes.

    Parameters
    ----------
    image : array-like of shape (ny, nx)
        Image.
    box : int or (int, int)
        Sides of a box in pixels, see `box_edges`.
    around : numpy.ndarray of float32, shape (n_y, n_x), optional
        Values of the same boxes: the medians are those of the absolute deviations from what
        `interpolate_boxes` makes of them.

    Returns
    -------
    medians : numpy.ndarray of float32, shape (n_y, n_x)
        A box without a finite value has the median of the others, or 0.
    y, x : numpy.ndarray of float, shapes (n_y,) and (n_x,)
        Centres of the boxes.
    """
    image = np.asarray(image, np.float32)
    sides = np.broadcast_to(box, 2)
    rows, columns = (box_edges(size, side) for size, side in zip(image.shape, sides, strict=True))
    y, x = ((edges[:-1] + edges[1:] - 1) / 2 for edges in (rows, columns))
    medians = np.empty((len(y), len(x)), np.float32)
    zero = np.zeros_like(medians) if around is None else around
    lines, left, part = _lines(zero, y, x, image.shape)
    _fill_medians(image, rows, columns, lines, left, part, around is not None, medians)
    empty = np.isnan(medians)
    if empty.any():
        medians[empty] = 0 if empty.all() else np.median(medians[~empty])
    return medians, y, x


def box_edges(size, box):
    """Edges of boxes of two sizes at most, which differ by one: the larger ones come first.

    Parameters
    ----------
    size : int
        Pixels to be shared out.
    box : int
        About how many go into a box.

    Returns
    -------
    numpy.ndarray of int, shape (n + 1,)
        From 0 to ``size``.
    """
    n = max(1, round(size / box))
    return np.cumsum([0] + [size // n + (i < size % n) for i in range(n)])


def interpolate_boxes(values, y, x, shape):
    """Image of linear interpolation between the centres of boxes, extrapolated at the borders.

    Parameters
    ----------
    values : array-like of shape (n_y, n_x)
        Values at the centres.
    y, x : array-like of shapes (n_y,) and (n_x,)
        Centres, see `box_medians`.
    shape : (int, int)
        Shape of the image.

    Returns
    -------
    numpy.ndarray of float32
        The image.
    """
    lines, left, part = _lines(values, y, x, shape)
    starts = np.searchsorted(left, np.arange(max(len(x), 2)))
    image = np.empty(shape, np.float32)
    _fill_lines(lines, starts, part, image)
    return image


def _lines(values, y, x, shape):
    """Rows of an image at the centres along x, and what `_places` says of the pixels between."""
    values = np.asarray(values, float)
    below, part = _places(y, shape[0])
    low, high = values[below], values[np.minimum(below + 1, len(y) - 1)]
    lines = (low + part[:, None] * (high - low)).astype(np.float32)
    # A last column more, of which no part is taken, saves a question for each pixel.
    lines = np.column_stack([lines, lines[:, -1]])
    left, part = _places(x, shape[1])
    return lines, left, part.astype(np.float32)


def _places(centres, size):
    """For 0, 1, ... size - 1: the centre before, and how far it is from that to the next."""
    position = np.arange(size)
    if len(centres) == 1:
        return np.zeros(size, int), np.zeros(size)
    left = np.clip(np.searchsorted(centres, position) - 1, 0, len(centres) - 2)
    return left, (position - centres[left]) / (centres[left + 1] - centres[left])


@njit(cache=True, nogil=True)
def _fill_lines(lines, starts, part, image):
    """Interpolate along each row of an image, from one centre of boxes to the next."""
    for r in range(image.shape[0]):
        for i in range(starts.size - 1):
            low, step = lines[r, i], lines[r, i + 1] - lines[r, i]
            for c in range(starts[i], starts[i + 1]):
                image[r, c] = low + part[c] * step


@njit(cache=True, nogil=True)
def _fill_medians(image, rows, columns, lines, left, part, deviate, medians):
    """Write the median of the finite values of each box; NaN where there is none."""
    most = (rows[1] - rows[0]) * (columns[1] - columns[0])  # The first boxes are the largest.
    values, kept = np.empty(most, np.float32), np.empty(most, np.float32)
    for j in range(rows.size - 1):
        for i in range(columns.size - 1):
            n = 0
            for r in range(rows[j], rows[j + 1]):
                for c in range(columns[i], columns[i + 1]):
                    v = image[r, c]
                    if deviate:
                        low = lines[r, left[c]]
                        v = abs(v - (low + part[c] * (lines[r, left[c] + 1] - low)))
                    values[n] = v
                    n += np.isfinite(v)
            medians[j, i] = _median(values, n, kept)


@njit(cache=True, nogil=True)
def _median(values, n, kept):
    """Median of the first n values, which are put into another order."""
    if n == 0:
        return np.float32(np.nan)
    k, n_kept = (n - 1) // 2, 0
    if n > 8 * _SAMPLE:
        # Most values are passed over once: the median is nearly always one of those between the
        # 10th and the 22nd of 32 values.
        for i in range(_SAMPLE):
            v, place = values[i * (n // _SAMPLE)], i
            while place > 0 and kept[place - 1] > v:
                kept[place] = kept[place - 1]
                place -= 1
            kept[place] = v
        low, high, below = kept[_SAMPLE // 2 - 7], kept[_SAMPLE // 2 + 6], 0
        for i in range(n):
            v = values[i]
            kept[n_kept] = v
            n_kept += (v >= low) & (v <= high)
            below += v < low
        if below <= k and k + 1 < below + n_kept:
            return _select(kept, k - below, n_kept, n % 2 == 0)
    return _select(values, k, n, n % 2 == 0)


@njit(cache=True, nogil=True)
def _select(values, k, n, even):
    """Give the k-th smallest of n values, or (even) the mean of it and the next."""
    first, last = 0, n - 1
    while first < last:
        pivot, i, j = values[(first + last) // 2], first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                v = values[i]
                values[i], values[j] = values[j], v
                i, j = i + 1, j - 1
        first, last = i if j < k else first, j if k < i else last
    low = values[k]
    if not even:
        return low
    high = np.float32(np.inf)
    for i in range(k + 1, n):
        high = values[i] if values[i] < high else high
    return np.float32(0.5) * (low + high)
