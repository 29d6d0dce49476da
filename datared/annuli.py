"""The sky around stars, from the pixels of a ring: clipped median, or mean over the exact area."""

import math

import numpy as np
from numba import njit

from .apertures import cut_out, weigh

__all__ = ["ring_mean", "ring_median"]

#: The sky is clipped at this many standard deviations ...
CLIP = 3.0
#: ... which leaves a Gaussian with this share of its standard deviation.
CLIPPED_WIDTH = math.sqrt(
    1 - 2 * CLIP * math.exp(-(CLIP**2) / 2) / math.sqrt(2 * math.pi) / math.erf(CLIP / math.sqrt(2))
)

#: Where more than this share of the pixels have the same value, steps of the digitisation are as
#: wide as the noise: a median can no longer tell where between two of them the sky is.
COARSE = 1 / 3
#: Fewer good pixels than this give no sky.
MIN_SKY_PIXELS = 8
#: Mark of pixels close to other stars of the list, a bit that no flag of `datared.pixels` has ...
STAR = 0x8000
#: ... that are no sky unless less than this share of a ring is left without them.
LEAST_LEFT = 0.1
#: Values that are looked at to place the bins by which a ring is sorted.
SAMPLE = 48


@njit(cache=True, nogil=True)
def ring_mean(data, flags, x, y, radii, rows, results):
    """Mean over the exact area of rings around some stars, without clipping.

    Parameters
    ----------
    data, flags, x, y, radii, rows, results
        As in `ring_median`.
    """
    reach = math.ceil(radii[1]) + 1
    size = 2 * reach + 1
    value, state = np.empty((size, size)), np.empty((size, size), np.uint16)
    weight, hole = np.empty((size, size)), np.empty((size, size))
    for k in rows:
        if _cut_ring(data, flags, x[k], y[k], reach, value, state, results[k]):
            cx, cy = x[k] - round(x[k]) + reach, y[k] - round(y[k]) + reach
            _mean(value, state, cx, cy, radii[0], radii[1], weight, hole, results[k])


@njit(cache=True, nogil=True)
def ring_median(data, flags, x, y, radii, listed, rows, results):
    """Clipped median of rings around some stars, of the pixels whose centres are inside.

    Pixels that are flagged or without a value do not count.

    Parameters
    ----------
    data : numpy.ndarray of float, shape (ny, nx)
        The frame.
    flags : numpy.ndarray of uint16, shape (ny, nx) or (0, 0)
        Bits of `datared.pixels`; without rows all pixels are good.
    x, y : numpy.ndarray of float, shape (n,)
        Positions in pixels.
    radii : tuple of float
        Inner and outer radius in pixels.
    listed : tuple of (numpy.ndarray of int, float)
        Stars, sorted by ``x``, and the distance in pixels up to which they are left out of the
        rings of the others, if a tenth of a ring is left without them.
    rows : numpy.ndarray of int
        The stars to measure.
    results : numpy.ndarray of float, shape (n, 6)
        Where level, its error, scatter of one pixel, number of pixels used, the share of the ring
        that is on the frame and good, and whether the level is a median (1) or a mean (0) are
        written; NaN where there is no sky.
    """
    reach = math.ceil(radii[1]) + 1
    size = 2 * reach + 1
    value, state = np.empty((size, size)), np.empty((size, size), np.uint16)
    work = np.empty((2, size * size))
    for k in rows:
        if _cut_ring(data, flags, x[k], y[k], reach, value, state, results[k]):
            left, bottom = round(x[k]) - reach, round(y[k]) - reach
            _mark_others(state, x, y, k, left, bottom, radii[1], listed)
            _median(value, state, x[k] - left, y[k] - bottom, radii[0], radii[1], work, results[k])


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _cut_ring(data, flags, x, y, reach, value, state, result):
    """Cut out what is around a place, if it is on the frame; write that there is no sky so far."""
    for m in range(6):
        result[m] = math.nan if m < 3 else 0.0
    if not (-0.5 <= x <= data.shape[1] - 0.5 and -0.5 <= y <= data.shape[0] - 0.5):
        return False
    no_sky = np.empty((0, 0), np.float32)
    cut_out(data, flags, no_sky, round(x) - reach, round(y) - reach, value, state)
    return True


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _mark_others(state, x, y, k, left, bottom, outer, listed):
    """Mark the pixels close to other stars than ``k``."""
    order, core = listed
    reach = outer + core
    first, end = 0, order.size
    while first < end:
        half = (first + end) // 2
        if x[order[half]] < x[k] - reach:
            first = half + 1
        else:
            end = half
    for m in range(first, order.size):
        other = order[m]
        if x[other] > x[k] + reach:
            break
        if other == k or not abs(y[other] - y[k]) <= reach:
            continue
        cx, cy = x[other] - left, y[other] - bottom
        for b in range(max(0, math.ceil(cy - core)), min(len(state), math.floor(cy + core) + 1)):
            for a in range(max(0, math.ceil(cx - core)), min(len(state), int(cx + core) + 1)):
                if (a - cx) ** 2 + (b - cy) ** 2 < core * core:
                    state[b, a] |= STAR


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _mean(value, state, x, y, inner, outer, weight, hole, result):
    """Mean of the good pixels of a ring, each by its share of the exact area."""
    weigh(x, y, outer, weight)
    if inner > 0:
        weigh(x, y, inner, hole)
    n = 0
    s0 = s1 = s2 = 0.0
    for b in range(value.shape[0]):
        for a in range(value.shape[1]):
            w = weight[b, a] - (hole[b, a] if inner > 0 else 0.0)
            if state[b, a]:
                w = 0.0
            weight[b, a] = w
            n += w > 0
            s0 += w * value[b, a]
            s1 += w
            s2 += w * w
    result[3], result[4] = s1, s1 / (math.pi * (outer * outer - inner * inner))
    if n < MIN_SKY_PIXELS:
        return
    mean, square = s0 / s1, 0.0
    for b in range(value.shape[0]):
        for a in range(value.shape[1]):
            square += weight[b, a] * (value[b, a] - mean) ** 2
    result[0], result[2] = mean, math.sqrt(square / s1)
    result[1] = result[2] * math.sqrt(s2) / s1


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _median(value, state, x, y, inner, outer, work, result):
    """Clipped median of the good pixels whose centres are in a ring."""
    values = work[0]
    n = whole = 0
    for allowed in (0, STAR):
        n, whole = _gather(value, state, x, y, inner, outer, allowed, values)
        if n >= max(LEAST_LEFT * whole, MIN_SKY_PIXELS):
            break
    # What other stars take of a ring does not make it a poor one.
    result[3], result[4] = n, whole / (math.pi * (outer * outer - inner * inner))
    if n < MIN_SKY_PIXELS:
        return
    level, std, used, median = _clipped(values[:n], work[1])
    result[0], result[1] = level, std * math.sqrt((0.5 * math.pi if median else 1.0) / used)
    result[2], result[3], result[5] = std, used, median


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _gather(value, state, x, y, inner, outer, allowed, values):
    """Write the good pixels of a ring; their number, and what it is with those of other stars."""
    n = whole = 0
    for b in range(value.shape[0]):
        dy2 = (b - y) ** 2
        if dy2 >= outer * outer:
            continue
        # Between the ends of the row the exact distance decides, for it may be a tie.
        half = math.sqrt(outer * outer - dy2)
        first, last = math.ceil(x - half), math.floor(x + half)
        hole = math.sqrt(max(inner * inner - dy2, 0.0)) - 1
        left, right = math.ceil(x - hole), math.floor(x + hole)
        if left > right or hole <= 0:
            left, right = last + 1, last
        for part in range(2):
            start, stop = (first, left) if part == 0 else (right + 1, last + 1)
            for a in range(start, stop):
                inside = inner * inner <= (a - x) ** 2 + dy2 < outer * outer
                values[n] = value[b, a]
                n += inside and state[b, a] & ~allowed == 0
                whole += inside and state[b, a] & ~STAR == 0
    return n, whole


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _clipped(values, ranked):
    """Level, standard deviation and number of values after clipping by median and MAD.

    What the clipping takes from a Gaussian is given back to the standard deviation. The level is
    the median, then the last number is 1, or the mean, then it is 0. ``ranked`` is workspace.
    """
    _sort(values, ranked)
    low, high = 0, values.size
    while True:
        n = high - low
        middle = 0.5 * (ranked[low + (n - 1) // 2] + ranked[low + n // 2])
        width = 1.4826 * _deviation(ranked[low:high], middle)
        if width == 0.0:
            width = _steps(ranked[low:high], middle)
        first, last = low, high
        while first < high and ranked[first] < middle - CLIP * width:
            first += 1
        while last > first and ranked[last - 1] > middle + CLIP * width:
            last -= 1
        if width == 0.0 or last - first == n or last - first < MIN_SKY_PIXELS:
            break
        low, high = first, last
    mean = square = 0.0
    n = high - low
    for k in range(low, high):
        mean += ranked[k] - middle
    mean = middle + mean / n
    for k in range(low, high):
        square += (ranked[k] - mean) ** 2
    std = math.sqrt(square / max(n - 1, 1)) / CLIPPED_WIDTH
    level, ties = _tied_median(ranked[low:high], middle)
    if ties > COARSE * n:
        return mean, std, float(n), 0.0
    return level, std, float(n), 1.0


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _deviation(kept, middle):
    """Median of the distances of sorted values from their median: two walks away from it."""
    n = kept.size
    right = n // 2
    left = right - 1
    before = now = 0.0
    for _ in range(n // 2 + 1):
        before = now
        if left < 0 or (right < n and kept[right] - middle <= middle - kept[left]):
            now = kept[right] - middle
            right += 1
        else:
            now = middle - kept[left]
            left -= 1
    return now if n % 2 else 0.5 * (before + now)


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _steps(kept, middle):
    """Width of sorted values more than half of which are the same, as in coarsely digitised sky.

    The next two values are not clipped if a hundredth of the pixels have the first of them: it is a
    step of the digitisation then, not a star.
    """
    width, step = 0.0, math.inf
    for value in kept:
        away = abs(value - middle)
        width += 1.2533 * away / kept.size
        if away > 0:
            step = min(step, away)
    n = 0
    for value in kept:
        n += 0 < abs(value - middle) < 1.01 * step
    return max(width, 2.01 * step / CLIP) if n > 0.01 * kept.size else width


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _tied_median(kept, middle):
    """Median of sorted values, among equal whole counts where in their step it falls; their number.

    The median of whole counts moves in steps of one count, which is more than its error where the
    sky is faint. Equal values are spread evenly over their step (the median of grouped data).
    """
    n = kept.size
    if kept[n // 2] != middle:
        return middle, 0
    first, last = (n - 1) // 2, n // 2 + 1
    while first > 0 and kept[first - 1] == middle:
        first -= 1
    while last < n and kept[last] == middle:
        last += 1
    if last - first < 2 or first == 0 or last == n:
        return middle, last - first
    step = min(middle - kept[first - 1], kept[last] - middle)
    return middle + step * ((0.5 * n - first) / (last - first) - 0.5), last - first


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _sort(values, ranked):
    """Sort values: into bins as wide as a sample says, then by insertion within the bins."""
    n = values.size
    m = min(n, SAMPLE)
    for k in range(m):
        ranked[k] = values[k * n // m]
    _shell(ranked[:m])
    middle, spread = ranked[m // 2], ranked[3 * m // 4] - ranked[m // 4]
    if not spread > 0:
        for k in range(n):
            ranked[k] = values[k]
        _shell(ranked[:n])
        return
    # Three quartile distances on each side are four standard deviations; stars are in the last bin.
    scale, top = n / (6 * spread), n - 1.0
    starts = np.zeros(n + 2, np.int32)
    for k in range(n):
        starts[int(min(max((values[k] - middle) * scale + 0.5 * n, 0.0), top)) + 2] += 1
    for k in range(2, n + 2):
        starts[k] += starts[k - 1]
    for k in range(n):
        place = int(min(max((values[k] - middle) * scale + 0.5 * n, 0.0), top)) + 1
        ranked[starts[place]] = values[k]
        starts[place] += 1
    # starts[b] is now where bin b begins.
    _shell(ranked[: starts[1]])
    _shell(ranked[starts[n - 1] : n])
    # A plain 1 would be a type of its own, and the function compiled twice.
    _insert(ranked[:n], np.int64(1))


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _shell(ranked):
    """Sort in place what may be in any order (Shell's way, steps by Knuth)."""
    gap = 1
    while 3 * gap + 1 < ranked.size:
        gap = 3 * gap + 1
    while gap > 0:
        _insert(ranked, gap)
        gap //= 3


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _insert(ranked, gap):
    """Sort in place by insertion the values that are a gap apart."""
    for k in range(gap, ranked.size):
        value = ranked[k]
        p = k
        while p >= gap and ranked[p - gap] > value:
            ranked[p] = ranked[p - gap]
            p -= gap
        ranked[p] = value
