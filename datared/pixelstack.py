"""The compiled loops of `datared.combine`: sort, clip and average the values of each pixel.

Values are worked on in blocks of pixels that stay in the processor's nearest memory, frame by frame
in rows, so that one instruction compares many pixels.
"""

import functools
import math

import numpy as np
from numba import njit

__all__ = ["combine_pixels", "finish_pixels", "sorting_network", "weigh_pixels"]

#: Pixels that are sorted side by side.
_WIDTH = 256
#: Values further than this many deviations from the median never enter the scatter of a median.
_SCATTER_CLIP, _SCATTER_ROUNDS = np.float32(5), np.int64(5)


@njit(cache=True, nogil=True)
def combine_pixels(
    stack, method, lowest, highest, low, high, iterations, floor, network,
    data, sigma, valid, count, bounds,
):  # fmt: skip
    """Combine ``stack`` (frame, pixel) of float32 into the arrays of the second line.

    Of the sorted values the ``lowest`` and ``highest`` are left out, then those outside ``low`` and
    ``high`` deviations. ``valid`` gets the number of values of each pixel, ``count`` that of the
    values used, and ``bounds`` (2, pixel), if it is not empty, the least and the largest of them.
    """
    n, pixels = stack.shape
    work = np.empty((n, _WIDTH), np.float32)
    first, last = np.empty(_WIDTH, np.int32), np.empty(_WIDTH, np.int32)
    middle, scatter = np.empty(_WIDTH, np.float32), np.empty(_WIDTH, np.float32)
    start = np.empty(_WIDTH, np.float32)
    total, square = np.empty(_WIDTH, np.float32), np.empty(_WIDTH, np.float32)
    dropped = lowest + highest
    with_bounds = bounds.size > 0
    # A plain mean or sum needs no order.
    ordered = method == 0 or iterations > 0 or dropped > 0 or with_bounds
    times = np.float32(n if method == 2 else 1)
    for block in range(0, pixels, _WIDTH):
        size = min(_WIDTH, pixels - block)
        full = _load(stack, block, size, work, valid)
        for j in range(_WIDTH):
            number = valid[block + j] if j < size else 0
            first[j] = min(lowest, number)
            last[j] = max(number - highest, first[j])
        if ordered or not full:  # Sorting puts what is missing last.
            _sort(work, network)
        if ordered:
            _centre(work, first, last, size, full and dropped == 0, middle, scatter)
        for j in range(_WIDTH):
            start[j] = middle[j] if ordered else work[0, j]
        if dropped > 0 or not full:
            _neutralise(work, first, last, size, start)
        whole = full and dropped == 0
        if iterations > 0:
            _clip(
                work, first, last, size, whole, start, middle, scatter, low, high, iterations,
                floor, method == 0,
            )  # fmt: skip
        for j in range(size):
            count[block + j] = last[j] - first[j]
            if method == 0:
                data[block + j] = middle[j]
            if with_bounds:
                bounds[0, block + j] = work[min(first[j], n - 1), j]
                bounds[1, block + j] = work[max(last[j] - 1, 0), j]
        if method == 0:
            _clip(
                work, first, last, size, whole and iterations == 0, start, middle, scatter,
                _SCATTER_CLIP, _SCATTER_CLIP, _SCATTER_ROUNDS, floor, False,
            )  # fmt: skip
        _sums(work, start, total, square)
        _mean_and_sigma(first, last, start, total, square, times)
        for j in range(size):
            sigma[block + j] = square[j]
            if method != 0:
                data[block + j] = total[j]


@njit(cache=True, nogil=True)
def weigh_pixels(stack, bounds, lowest, highest, weights, variance, method, data, sigma, count):
    """Weighted mean, and its error, of the values of ``stack`` within the bounds of each pixel.

    ``weights`` has one number for each frame; ``variance`` (frame, pixel or 1) is empty where the
    error comes from the scatter of the values. A median in ``data`` stays.
    """
    n, pixels = stack.shape
    inf, times = np.float32(np.inf), float(n) if method == 2 else 1.0
    width = variance.shape[1] - 1
    taken = np.empty(n, np.bool_)
    for j in range(pixels):
        least, most = bounds[0, j], bounds[1, j]
        # Of values that equal a bound some may be among the lowest or highest that are left out.
        low, high = lowest, highest
        for i in range(n):
            x = stack[i, j]
            low -= x < least and abs(x) < inf
            high -= x > most and abs(x) < inf
        used, sum_w, mean, total = 0, 0.0, 0.0, 0.0
        for i in range(n):
            # The frame of a value is lost by sorting: it is found again by the bounds.
            x, w = stack[i, j], weights[i]
            good = x >= least and x <= most and abs(x) < inf
            if good and x == least and low > 0:
                low, good = low - 1, False
            elif good and x == most and high > 0:
                high, good = high - 1, False
            taken[i] = good and w > 0
            used += taken[i]
            sum_w += w if taken[i] else 0.0
            mean += w * x if taken[i] else 0.0
        if count[j] == 0 or sum_w == 0:  # No value, or only values of weight 0.
            data[j], sigma[j], count[j] = np.nan, np.nan, 0
            continue
        count[j] = used
        mean /= sum_w
        for i in range(n):
            if taken[i]:
                x, w = stack[i, j], weights[i]
                total += w * w * variance[i, min(j, width)] if width >= 0 else w * (x - mean) ** 2
        if method != 0:
            data[j] = times * mean
        if width >= 0:
            sigma[j] = times * math.sqrt(total) / sum_w
        else:
            sigma[j] = times * math.sqrt(total / (used - 1) / sum_w) if used > 1 else np.nan


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
def _load(stack, block, size, work, valid):
    """Copy values, infinite where they are not finite, so that these sort behind the others."""
    inf = np.float32(np.inf)
    number = valid[block : block + size]
    for j in range(size):
        number[j] = 0
    for i in range(stack.shape[0]):
        source, target = stack[i][block : block + size], work[i]
        for j in range(size):
            good = abs(source[j]) < inf
            target[j] = source[j] if good else inf
            number[j] += good
    least = stack.shape[0]
    for j in range(size):
        least = min(least, number[j])
    return least == stack.shape[0]


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
        scatter[j] = 0
    best = np.empty(_WIDTH, np.float32)
    for rank in range(half, half + even + 1):
        for j in range(_WIDTH):
            best[j] = np.inf
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
def _neutralise(work, first, last, size, start):
    """Put ``start`` in the place of every value that is missing or left out."""
    for j in range(size):
        if last[j] <= first[j]:
            start[j] = 0
        for i in range(first[j]):
            work[i, j] = start[j]
        for i in range(last[j], work.shape[0]):
            work[i, j] = start[j]


@njit(cache=True, nogil=True)
def _clip(
    work, first, last, size, whole, start, middle, scatter, low, high, iterations, floor, keep
):
    """Narrow the range of each pixel's sorted values until nothing is outside the limits.

    A value that is left out becomes ``start``, so that it adds nothing to sums of differences.
    ``whole`` says that all values of all pixels are in their ranges, ``keep`` that ``middle`` and
    ``scatter`` must hold for the new ranges.
    """
    outside, some = np.empty(_WIDTH, np.uint8), np.empty(_WIDTH, np.int32)
    least, most = work[0], work[work.shape[0] - 1]
    # First, and for many at a time, which pixels have something to clip; then only these.
    for j in range(_WIDTH):
        limit = scatter[j] if scatter[j] > floor else floor
        below, above = least[j] < middle[j] - low * limit, most[j] > middle[j] + high * limit
        outside[j] = below | above
    if not whole:
        for j in range(size):
            limit = scatter[j] if scatter[j] > floor else floor
            outside[j] = (work[min(first[j], last[j] - 1), j] < middle[j] - low * limit) | (
                work[last[j] - 1, j] > middle[j] + high * limit
            )
    found = 0
    for j in range(size):
        some[found] = j
        found += outside[j]
    for k in range(found):
        j = some[k]
        a, b, old = first[j], last[j], False
        for _ in range(iterations):
            if b - a < 3:
                break
            if old:
                middle[j] = _middle(work, a, b, j)
                scatter[j] = _deviation(work, a, b, middle[j], j)
                old = False
            limit = scatter[j] if scatter[j] > floor else floor
            bottom, top = middle[j] - low * limit, middle[j] + high * limit
            if work[a, j] >= bottom and work[b - 1, j] <= top:
                break
            while work[a, j] < bottom:
                work[a, j] = start[j]
                a += 1
            while work[b - 1, j] > top:
                work[b - 1, j] = start[j]
                b -= 1
            old = True
        if old and keep:
            middle[j] = _middle(work, a, b, j)
            scatter[j] = _deviation(work, a, b, middle[j], j)
        first[j], last[j] = a, b


@njit(cache=True, nogil=True)
def _middle(work, first, last, j):
    """Median of the sorted values of pixel j from first up to, not with, last."""
    if last <= first:
        return np.float32(np.nan)
    half = first + (last - first) // 2
    lower = half - 1 + (last - first) % 2
    return np.float32(0.5) * (work[lower, j] + work[half, j])


@njit(cache=True, nogil=True)
def _deviation(work, first, last, middle, j):
    """1.4826 times the median distance of sorted values from their median.

    The distances grow outwards on both sides. Of two sorted lists the value of rank k is the
    smallest of the larger of the i-th of one and the (k - i)-th of the other.
    """
    n = last - first
    half, even = n // 2, 1 - n % 2
    best, second = np.float32(np.inf), np.float32(np.inf)
    below, above = first + half, first + half - even
    for i in range(half + 1):
        left = middle - work[below - i, j] if i > 0 else np.float32(0)
        right = work[above + half - i, j] - middle if i < half else np.float32(0)
        far = left if left > right else right
        best = far if far < best else best
        if even == 1 and i > 0:  # The next rank, for the mean of the two in the middle.
            right = work[above + half + 1 - i, j] - middle
            far = left if left > right else right
            second = far if far < second else second
    if even == 1:
        return np.float32(0.7413) * (best + second)
    return np.float32(1.4826) * best


@njit(cache=True, nogil=True)
def _sums(work, start, total, square):
    """Add up the differences from ``start``, and their squares.

    The values that count are near each other, so float32 is exact enough; those that do not count
    are ``start`` and add nothing.
    """
    for j in range(_WIDTH):
        total[j] = square[j] = 0
    for i in range(work.shape[0]):
        values = work[i]
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
