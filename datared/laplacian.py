"""Inside `cosmics`: Laplacians of all pixels, compiled, and medians of the few that need them.

Images are float32. A block of ``BLOCK`` x ``BLOCK`` pixels is searched again only where something
changed in it or in one around it: what the repair of a pixel changes reaches 8 pixels (3 by the
noise, 3 by the median of the Laplacians, 2 by the neighbours of a hit).
"""

import numpy as np
from numba import njit

__all__ = ["BLOCK", "around", "clean", "forget", "load", "search", "tops"]

#: Side of a block in pixels.
BLOCK = 8
#: Pixels along the edges where no 7 x 7 median fits.
_EDGE = 3
#: Least variance (electrons squared) and least fine structure (sigmas) to divide by.
_TINY = np.float32(1e-5)
_LEAST = np.float32(0.01)

# What only compiled code calls is spared the time of making it callable from Python.
_compiled = njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@njit(cache=True, nogil=True)
def load(data, offset, factor, image, bad, floor, first, last):
    """Scale rows of blocks, mark what is not finite, and give the floor of each block.

    The floor is the third smallest value. A separable median of 5 x 5 has at least 9 values of its
    window at or below it, one of 7 x 7 has 16, and the window lies in four blocks at most: one of
    them has three. So the lowest floor of a block and of those around it is never above the median
    of a pixel in it.

    Returns how many values are not finite; ``image`` is infinite there, ``bad`` gets the bit 2.
    """
    ny, nx = data.shape
    lost = 0
    for a in range(first, last):
        stop = min(BLOCK * a + BLOCK, ny)
        for j in range(BLOCK * a, stop):
            odd = 0
            for i in range(nx):
                value = (data[j, i] + offset) * factor
                image[j, i] = value
                odd += value - value != 0
            lost += odd
            if odd:
                for i in range(nx):
                    if image[j, i] - image[j, i] != 0:
                        image[j, i] = np.inf
                        bad[j, i] |= 2
        for b in range(floor.shape[1]):
            low = middle = high = np.float32(np.inf)
            for j in range(BLOCK * a, stop):
                for i in range(BLOCK * b, min(BLOCK * b + BLOCK, nx)):
                    value = image[j, i]
                    if value < high:
                        high = max(middle, value)
                        middle = max(low, min(middle, value))
                        low = min(low, value)
            floor[a, b] = high
    return lost


# Medians without the smallest and the largest of just enough values, until three are left.


@_compiled
def _order(a, b):
    """Two values in order."""
    return (a, b) if a < b else (b, a)


@_compiled
def _median5(a, b, c, d, e):
    """Median of five."""
    a, b = _order(a, b)
    c, d = _order(c, d)
    a, b = _order(max(a, c), min(b, d))
    return max(a, min(b, e))


@_compiled
def _median7(a, b, c, d, e, f, g):
    """Median of seven."""
    a, b = _order(a, b)
    c, d = _order(c, d)
    a, c = _order(a, c)
    b, d = _order(b, d)
    return _median5(b, c, min(max(a, e), d), f, g)


@_compiled
def _median9(a, b, c, d, e, f, g, h, k):
    """Median of nine."""
    a, b = _order(a, b)
    c, d = _order(c, d)
    e, f = _order(e, f)
    a, c = _order(a, c)
    b, d = _order(b, d)
    return _median7(c, b, max(a, e), min(d, f), g, h, k)


@_compiled
def _box7(p, v, j, i):
    """Separable median of 7 x 7 pixels, of rows first; the pixel itself at the edges."""
    if j < 3 or i < 3 or j >= p.shape[0] - 3 or i >= p.shape[1] - 3:
        return p[j, i]
    for k in range(7):
        w = p[j + k - 3, i - 3 : i + 4]
        v[20 + k] = _median7(w[0], w[1], w[2], w[3], w[4], w[5], w[6])
    return _median7(v[20], v[21], v[22], v[23], v[24], v[25], v[26])


@_compiled
def _box5(p, v, j, i):
    """Separable median of 5 x 5 pixels, of rows first; the pixel itself at the edges."""
    if j < 2 or i < 2 or j >= p.shape[0] - 2 or i >= p.shape[1] - 2:
        return p[j, i]
    for k in range(5):
        w = p[j + k - 2, i - 2 : i + 3]
        v[20 + k] = _median5(w[0], w[1], w[2], w[3], w[4])
    return _median5(v[20], v[21], v[22], v[23], v[24])


@_compiled
def _edges(here, left, right, down, up):
    """Mean of the positive Laplacians of the four quarters of a pixel."""
    zero = np.float32(0)
    left, right = here + here - left, here + here - right
    total = max(left - down, zero) + max(left - up, zero)
    return (total + max(right - down, zero) + max(right - up, zero)) * np.float32(0.25)


@_compiled
def _compare(image, top, risen, j, start, stop):
    """Set ``risen`` where the Laplacian of a row is above ``top``."""
    here, limit, out = image[j, start:stop], top[start:stop], risen[start:stop]
    left, right = image[j, start - 1 : stop - 1], image[j, start + 1 : stop + 1]
    down, up = image[j - 1, start:stop], image[j + 1, start:stop]
    for i in range(here.size):
        out[i] = _edges(here[i], left[i], right[i], down[i], up[i]) > limit[i]


@_compiled
def _noise(scene, extra, kept, v, j, i):
    """Noise of a pixel, from the median of the variance around it; kept once known."""
    value = kept[0, j, i]
    if value == 0:
        value = np.sqrt(max(_box7(scene[1], v, j, i) + extra, _TINY))
        kept[0, j, i] = value
    return value


@_compiled
def _edge(scene, extra, kept, v, j, i):
    """S of a pixel: half its Laplacian over its noise, with nothing outside the image."""
    p = scene[0]
    ny, nx = p.shape
    zero = np.float32(0)
    left = p[j, i - 1] if i > 0 else zero
    right = p[j, i + 1] if i < nx - 1 else zero
    down = p[j - 1, i] if j > 0 else zero
    value = _edges(p[j, i], left, right, down, p[j + 1, i] if j < ny - 1 else zero)
    return np.float32(0.5) * value / _noise(scene, extra, kept, v, j, i)


@_compiled
def _sharpness(scene, extra, kept, v, least, j, i):
    """S' of a pixel where it may be more than ``least``, else 0."""
    ny, nx = scene[0].shape
    if j < _EDGE or i < _EDGE or j >= ny - _EDGE or i >= nx - _EDGE:
        return np.float32(0)
    edge = _edge(scene, extra, kept, v, j, i)
    if edge <= least:  # S' is at most S.
        return np.float32(0)
    if kept[1, j, i] == 0:
        for k in range(7):
            for m in range(7):
                v[m] = _edge(scene, extra, kept, v, j + k - 3, i + m - 3)
            v[7 + k] = _median7(v[0], v[1], v[2], v[3], v[4], v[5], v[6])
        kept[1, j, i] = edge - _median7(v[7], v[8], v[9], v[10], v[11], v[12], v[13])
    return kept[1, j, i]


@_compiled
def _small(image, kept, v, j, i):
    """Small median of a pixel; kept once known."""
    value = kept[2, j, i]
    if value == 0:
        value = _box5(image, v, j, i)
        kept[2, j, i] = value
    return value


@_compiled
def _structure(image, kept, protect, v, j, i):
    """Fine structure of a pixel, not yet in units of the noise."""
    # Where the largest median does not fit, the nearest one that does may stand for it.
    y, x = min(max(j, 4), image.shape[0] - 5), min(max(i, 4), image.shape[1] - 5)
    if not protect and (y != j or x != i):
        return np.float32(0)
    for k in range(9):
        for m in range(9):
            v[m] = _small(image, kept, v, y + k - 4, x + m - 4)
        v[9 + k] = _median9(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8])
    large = _median9(v[9], v[10], v[11], v[12], v[13], v[14], v[15], v[16], v[17])
    return _small(image, kept, v, j, i) - large


@_compiled
def _joins(scene, extra, kept, v, limit, contrast, j, i):
    """Whether a pixel beside a hit is one as well; a contrast of 0 does not ask for stars."""
    if scene[2][j, i]:
        return False
    sharp = _sharpness(scene, extra, kept, v, limit, j, i)
    if sharp <= limit:
        return False
    if contrast == 0:
        return True
    part = _structure(scene[0], kept, True, v, j, i) / _noise(scene, extra, kept, v, j, i)
    return sharp > contrast * part


@_compiled
def _grow(scene, extra, kept, v, limits, protect, hits, fresh, j, i):
    """Set a hit, its sharp neighbours, and their less sharp neighbours."""
    _, sigma, low, contrast = limits
    contrast = contrast * np.float32(0.5) if protect else np.float32(0)
    for y in range(j - 1, j + 2):
        for x in range(i - 1, i + 2):
            if not _joins(scene, extra, kept, v, sigma, contrast, y, x):
                continue
            for yy in range(y - 1, y + 2):
                for xx in range(x - 1, x + 2):
                    if not hits[yy, xx] and _joins(scene, extra, kept, v, low, contrast, yy, xx):
                        hits[yy, xx] = 1
                        fresh[yy // BLOCK, xx // BLOCK] = 1


@njit(cache=True, nogil=True)
def search(scene, tops, kept, limits, simple, protect, work, hits, fresh, first, last):
    """Find hits in rows of blocks, where Laplacians or, if simple, values are above ``tops``.

    ``scene`` is the image, the variance without read noise, and what is not to be searched.
    ``tops`` is infinite for blocks to leave out. ``kept`` is what needs to be computed once only:
    noise, S' and small medians, 0 where they were not needed yet. ``limits`` are the read noise
    squared, sigma for hits and for neighbours, and contrast; ``simple`` compares with the median
    instead of S'. ``work`` is overwritten. Sets ``hits`` and, unless simple, their ``fresh`` block.
    """
    image, _, bad = scene
    ny, nx = image.shape
    extra, sigma, _, contrast = limits
    top, risen, v = work
    for a in range(first, last):
        start = nx
        for b in range(tops.shape[1] + 1):
            # Blocks side by side are one long row for the comparison.
            if b < tops.shape[1] and tops[a, b] < np.inf:
                top[BLOCK * b : BLOCK * b + BLOCK] = tops[a, b]
                start = min(start, max(BLOCK * b, _EDGE))
                continue
            stop = min(BLOCK * b, nx - _EDGE)
            for j in range(max(BLOCK * a, _EDGE), min(BLOCK * a + BLOCK, ny - _EDGE)):
                if start >= stop:
                    break
                if not simple:
                    _compare(image, top, risen, j, start, stop)
                for i in range(start, stop):
                    if bad[j, i] or not (image[j, i] > top[i] if simple else risen[i]):
                        continue
                    noise = _noise(scene, extra, kept, v, j, i)
                    edge = value = _edge(scene, extra, kept, v, j, i)
                    if simple:
                        value = (image[j, i] - _small(image, kept, v, j, i)) / noise
                    if value <= sigma:
                        continue
                    # Most stars are refused by S already, which is at least S' and cheaper.
                    part = max(_structure(image, kept, protect, v, j, i) / noise, _LEAST)
                    if edge / part <= contrast:
                        continue
                    if simple:
                        hits[j, i] = 1
                        continue
                    value = _sharpness(scene, extra, kept, v, sigma, j, i)
                    if value > sigma and value / part > contrast:
                        _grow(scene, extra, kept, v, limits, protect, hits, fresh, j, i)
            start = nx


@njit(cache=True, nogil=True)
def clean(image, bad, hits, active, floor, level, changed):
    """Replace hits in the active blocks by the mean of the pixels in 5 x 5 that are not bad.

    A pixel with none of those near it becomes ``level``. Sets ``changed`` for blocks in which a
    value changed, and keeps their floors at or below the third smallest value.
    """
    ny, nx = image.shape
    for a in range(floor.shape[0]):
        for b in range(floor.shape[1]):
            if not active[a, b]:
                continue
            for j in range(BLOCK * a, min(BLOCK * a + BLOCK, ny)):
                for i in range(BLOCK * b, min(BLOCK * b + BLOCK, nx)):
                    if not hits[j, i]:
                        continue
                    total, n = np.float32(0), 0
                    for y in range(max(j - 2, 0), min(j + 3, ny)):
                        for x in range(max(i - 2, 0), min(i + 3, nx)):
                            if not (hits[y, x] or bad[y, x]):
                                total += image[y, x]
                                n += 1
                    value = total / np.float32(n) if n else level
                    if value != image[j, i]:
                        image[j, i] = value
                        changed[a, b] = 1
                        floor[a, b] = min(floor[a, b], value)


def around(values, function):
    """Maximum or minimum of each value and the eight around it."""
    rows = values.copy()
    function(rows[1:], values[:-1], out=rows[1:])
    function(rows[:-1], values[1:], out=rows[:-1])
    result = rows.copy()
    function(result[:, 1:], rows[:, :-1], out=result[:, 1:])
    function(result[:, :-1], rows[:, 1:], out=result[:, :-1])
    return result


def tops(floors, active, limits, *, simple):
    """Least Laplacian (or value, if simple) that can be a hit in each block, infinite if inactive.

    ``floors`` are those of image and variance, ``limits`` those of `search`.
    """
    extra, sigma, *_ = limits
    noise = np.sqrt(np.maximum(around(floors[1], np.minimum) + extra, _TINY))
    result = around(floors[0], np.minimum) + sigma * noise if simple else 2 * sigma * noise
    result -= np.float32(1e-4) * np.abs(result)  # Sums of float32 are rounded.
    return np.where(active, result, np.float32(np.inf))


def forget(active, kept):
    """Set what was kept to 0 in the active blocks."""
    row, column = np.nonzero(np.diff(active, axis=1, prepend=0, append=0))
    ends = BLOCK * row[::2], BLOCK * column[::2], BLOCK * column[1::2]
    for j, start, stop in zip(*(end.tolist() for end in ends), strict=True):
        kept[:, j : j + BLOCK, start:stop] = 0
