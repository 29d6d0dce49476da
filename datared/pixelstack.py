"""The compiled loops of `datared.combine`: sort, clip and average the values of each pixel.

Values are worked on in blocks of pixels that stay in the processor's nearest memory, frame by frame
in rows, so that one instruction compares many pixels.
"""

import functools
import math

import numpy as np
from numba import njit

__all__ = ["combine_pixels", "finish_pixels", "sorting_network"]

#: Pixels that are sorted side by side.
_WIDTH = 256
#: Values further than this many deviations from the median never enter the scatter of a median.
_SCATTER_CLIP = 5.0


@njit(cache=True, nogil=True)
def combine_pixels(
    stack, weights, variance, method, lowest, highest, low, high, iterations, floor, network,
    data, sigma, valid, count,
):  # fmt: skip
    """Combine ``stack`` (frame, pixel) of float32 into the last four arrays.

    ``weights`` (one for each frame) and ``variance`` (frame, pixel or 1) are empty where there are
    none. Of the sorted values the ``lowest`` and ``highest`` are left out, then those outside
    ``low`` and ``high`` deviations. ``valid`` gets the number of values of each pixel, ``count``
    that of the values used.
    """
    n, pixels = stack.shape
    work = np.empty((n, _WIDTH), stack.dtype)
    first, last = np.empty(_WIDTH, np.int32), np.empty(_WIDTH, np.int32)
    middle, scatter = np.empty(_WIDTH, np.float32), np.empty(_WIDTH, np.float32)
    dropped = lowest + highest
    ordered = method == 0 or iterations > 0 or dropped > 0  # A plain mean or sum needs no order.
    for block in range(0, pixels, _WIDTH):
        stop = min(block + _WIDTH, pixels)
        number, used = valid[block:stop], count[block:stop]
        full = _load(stack, block, stop, work, number)
        for j in range(stop - block):
            first[j] = min(lowest, number[j])
            last[j] = max(number[j] - highest, first[j])
        if ordered or not full:  # Sorting puts what is missing last.
            _sort(work, network)
        if ordered:
            _centre(work, first, last, number.size, full and dropped == 0, middle, scatter)
            _clip(work, first, last, number.size, middle, scatter, low, high, iterations, floor)
        used[:] = last[: stop - block]
        used -= first[: stop - block].astype(np.int16)
        if method == 0:
            data[block:stop] = middle[: stop - block]
            if variance.size == 0:
                _clip(
                    work, first, last, number.size, middle, scatter, _SCATTER_CLIP, _SCATTER_CLIP,
                    5, floor,
                )  # fmt: skip
        if weights.size == 0 and variance.size == 0:
            _sorted_moments(work, first, last, method, data[block:stop], sigma[block:stop])
        else:
            spread = variance[:, block:stop] if variance.shape[1] > 1 else variance
            _weighted_moments(
                stack[:, block:stop], work, ordered, first, last, weights, spread, method,
                data[block:stop], sigma[block:stop], used,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def finish_pixels(sigma, valid, count, factor, least):
    """Multiply each sigma by the factor of its number of values; none is below ``least``."""
    for j in range(sigma.size):
        value = sigma[j] * factor[valid[j]]
        sigma[j] = least[count[j]] if value < least[count[j]] else value


@functools.cache
def sorting_network(n):
    """Pairs to compare, in order, that sort n values (Batcher's odd-even merge sort).

    Parameters
    ----------
    n : int
        Number of values.

    Returns
    -------
    numpy.ndarray of int64, shape (pairs, 2)
        Places of the smaller and of the larger value.
    """
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return np.array(pairs, np.int64).reshape(-1, 2)


@njit(cache=True, nogil=True)
def _load(stack, start, stop, work, number):
    """Copy values, infinite where they are not finite, so that these sort behind the others."""
    inf = np.float32(np.inf)
    number[:] = 0
    for i in range(stack.shape[0]):
        source, target = stack[i][start:stop], work[i]
        for j in range(source.size):
            good = abs(source[j]) < inf
            target[j] = source[j] if good else inf
            number[j] += good
    return number.min() == stack.shape[0]


@njit(cache=True, nogil=True)
def _sort(work, network):
    """Sort along the first axis; whole rows are compared, several pixels at a time."""
    for c in range(network.shape[0]):
        upper, lower = work[network[c, 0]], work[network[c, 1]]
        for j in range(_WIDTH):
            x, y = upper[j], lower[j]
            upper[j] = x if x < y else y
            lower[j] = y if x < y else x


@njit(cache=True, nogil=True)
def _centre(work, first, last, size, full, middle, scatter):
    """Median of each pixel, and 1.4826 times the median distance from it."""
    if not full:
        for j in range(size):
            middle[j] = _middle(work, first[j], last[j], j)
            scatter[j] = _deviation(work, first[j], last[j], middle[j], j)
        return
    # As _middle and _deviation, for all pixels at once, because they have the same ranks.
    n = work.shape[0]
    half, even = n // 2, 1 - n % 2
    below, above = work[half - even], work[half]
    for j in range(_WIDTH):
        middle[j] = np.float32(0.5) * (below[j] + above[j])
    scatter[:] = 0
    best = np.empty(_WIDTH, np.float32)
    for rank in range(half, half + even + 1):
        best[:] = np.inf
        for i in range(rank - half, half + 1):
            # On each side a distance of rank 0 is the median's own, which is nothing.
            below = work[half - i] if i > 0 else middle
            above = work[half + rank - i - even] if i < rank else middle
            for j in range(_WIDTH):
                left, right = middle[j] - below[j], above[j] - middle[j]
                left = left if left > right else right
                best[j] = left if left < best[j] else best[j]
        for j in range(_WIDTH):
            scatter[j] += best[j] * np.float32(1.4826 / (1 + even))


@njit(cache=True, nogil=True)
def _clip(work, first, last, size, middle, scatter, low, high, iterations, floor):
    """Narrow the range of each pixel's sorted values until nothing is outside the limits."""
    # First, and without a branch, the few pixels with something to clip; then only these.
    some, found = np.empty(_WIDTH, np.int32), 0
    for j in range(size):
        limit = max(scatter[j], floor)
        few = last[j] - first[j] < 3
        within = (work[first[j], j] >= middle[j] - low * limit) & (
            work[max(last[j] - 1, 0), j] <= middle[j] + high * limit
        )
        some[found] = j
        found += not (few | within)
    for k in range(found):
        j = some[k]
        a, b = first[j], last[j]
        for _ in range(iterations):
            limit = max(scatter[j], floor)
            bottom, top = middle[j] - low * limit, middle[j] + high * limit
            if b - a < 3 or (work[a, j] >= bottom and work[b - 1, j] <= top):
                break
            while work[a, j] < bottom:
                a += 1
            while work[b - 1, j] > top:
                b -= 1
            middle[j] = _middle(work, a, b, j)
            scatter[j] = _deviation(work, a, b, middle[j], j)
        first[j], last[j] = a, b


@njit(cache=True, nogil=True, inline="always")
def _middle(work, first, last, j):
    """Median of the sorted values of pixel j from first up to, not with, last."""
    if last <= first:
        return np.float32(np.nan)
    half = first + (last - first) // 2
    lower = half - 1 + (last - first) % 2
    return np.float32(0.5) * (work[lower, j] + work[half, j])


@njit(cache=True, nogil=True, inline="always")
def _deviation(work, first, last, middle, j):
    """1.4826 times the median distance of sorted values from their median.

    The distances grow outwards on both sides. Of two sorted lists the value of rank k is the
    smallest of the larger of the i-th of one and the (k - i)-th of the other.
    """
    n = last - first
    half, even = n // 2, 1 - n % 2
    total = np.float32(0)
    for rank in range(half, half + even + 1):
        best = np.float32(np.inf)
        for i in range(rank - half, half + 1):
            left = middle - work[first + half - i, j] if i > 0 else np.float32(0)
            right = np.float32(0)
            if i < rank:
                right = work[first + half + rank - i - even, j] - middle
            left = left if left > right else right
            best = left if left < best else best
        total += best
    return total * np.float32(1.4826 / (1 + even))


@njit(cache=True, nogil=True)
def _sorted_moments(work, first, last, method, data, sigma):
    """Mean and its uncertainty of the values first up to last of each pixel (in any order)."""
    n = work.shape[0]
    # Small differences from one of the values: their sums are exact enough in float32.
    start = np.zeros(_WIDTH, np.float32)
    for j in range(data.size):
        if last[j] > first[j]:
            start[j] = work[(first[j] + last[j]) // 2, j]
        for i in range(first[j]):
            work[i, j] = start[j]
        for i in range(last[j], n):
            work[i, j] = start[j]
    total, square = np.zeros(_WIDTH, np.float32), np.zeros(_WIDTH, np.float32)
    for i in range(n):
        _add(work[i], start, total, square)
    _mean_and_sigma(first, last, start, total, square, np.float32(n if method == 2 else 1))
    sigma[:] = square[: data.size]
    if method != 0:
        data[:] = total[: data.size]


@njit(cache=True, nogil=True)
def _add(values, start, total, square):
    """Add the differences of a row, and their squares."""
    for j in range(_WIDTH):
        difference = values[j] - start[j]
        total[j] += difference
        square[j] += difference * difference


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_and_sigma(first, last, start, total, square, times):
    """Turn the sums into the mean and its standard deviation (in place)."""
    nothing = np.float32(np.nan)
    for j in range(_WIDTH):
        number = np.float32(last[j] - first[j])
        mean = total[j] / number
        spread = square[j] - total[j] * mean
        spread = np.sqrt(spread / ((number - np.float32(1)) * number)) if spread > 0 else 0 * spread
        square[j] = times * spread if number > 1 else nothing
        total[j] = times * (start[j] + mean) if number > 0 else nothing


@njit(cache=True, nogil=True)
def _weighted_moments(
    part, work, ordered, first, last, weights, variance, method, data, sigma, count
):
    """Weighted mean and its uncertainty of the values within the bounds of each pixel."""
    n, width = part.shape
    inf = np.float32(np.inf)
    bottom, top = np.full(width, -inf), np.full(width, inf)
    for j in range(width):
        if ordered and last[j] > first[j]:
            bottom[j], top[j] = work[first[j], j], work[last[j] - 1, j]
    used = np.zeros(width, np.int32)
    sum_w, mean, total = np.zeros(width), np.zeros(width), np.zeros(width)
    for i in range(n):
        values, w = part[i], weights[i] if weights.size else 1.0
        for j in range(width):
            # The frame of a value is lost by sorting: it is found again by the bounds.
            good = (values[j] >= bottom[j]) & (values[j] <= top[j]) & (abs(values[j]) < inf)
            used[j] += good
            sum_w[j] += w if good else 0.0
            mean[j] += w * values[j] if good else 0.0
    for j in range(width):
        mean[j] = mean[j] / sum_w[j] if sum_w[j] > 0 else np.nan
    for i in range(n):
        values, w = part[i], weights[i] if weights.size else 1.0
        for j in range(width):
            good = (values[j] >= bottom[j]) & (values[j] <= top[j]) & (abs(values[j]) < inf)
            if variance.shape[0] > 0:
                term = w * w * variance[i, j if variance.shape[1] > 1 else 0]
            else:
                term = w * (values[j] - mean[j]) ** 2
            total[j] += term if good else 0.0
    times = float(n) if method == 2 else 1.0
    for j in range(width):
        if sum_w[j] == 0:  # No value, or only values of weight 0.
            data[j], sigma[j], count[j] = np.nan, np.nan, 0
            continue
        if method != 0:
            data[j] = times * mean[j]
        if variance.shape[0] > 0:
            sigma[j] = times * math.sqrt(total[j]) / sum_w[j]
        elif used[j] > 1:
            sigma[j] = times * math.sqrt(total[j] / (used[j] - 1) / sum_w[j])
        else:
            sigma[j] = np.nan
