"""The compiled loops of `datared.combine`: sort, clip and average the values of each pixel."""

import math

import numpy as np
from numba import njit

__all__ = ["combine_pixels"]

#: Pixels that are sorted side by side.
_WIDTH = 256
#: Values further than this many deviations from the median never enter the scatter of a median.
_SCATTER_CLIP = 5.0


@njit(cache=True, nogil=True)
def combine_pixels(
    stack, weights, variance, method, low, high, iterations, floor, network, data, sigma,
    valid, count,
):  # fmt: skip
    """Combine ``stack`` (frame, pixel) into the last four arrays."""
    n, pixels = stack.shape
    work = np.empty((n, _WIDTH), np.float32)
    bottom, top = np.empty(_WIDTH, np.float32), np.empty(_WIDTH, np.float32)
    ordered = method == 0 or iterations > 0  # A plain mean or sum needs no order.
    for block in range(0, pixels, _WIDTH):
        stop = min(block + _WIDTH, pixels)
        part, number = stack[:, block:stop], valid[block:stop]
        _load(part, work, number)
        if ordered:
            _sort(work, network)
        bottom[:], top[:] = -np.inf, np.inf
        for j in range(stop - block):
            count[block + j] = number[j]
            if ordered and number[j] > 0:
                values = work[:, j]
                first, last = _clipped(values, 0, number[j], low, high, iterations, floor)
                count[block + j] = last - first
                if method == 0:
                    data[block + j] = _middle(values, first, last)
                    if variance.shape[0] == 0:
                        first, last = _clipped(
                            values, first, last, _SCATTER_CLIP, _SCATTER_CLIP, 5, floor
                        )
                bottom[j], top[j] = values[first], values[last - 1]
        spread = variance[:, block:stop] if variance.shape[1] > 1 else variance
        _moments(
            part, bottom, top, weights, spread, method,
            data[block:stop], sigma[block:stop], count[block:stop],
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _load(part, work, number):
    """Copy values; what is not finite becomes infinite, so that it sorts behind the others."""
    inf = np.float32(np.inf)
    number[:] = 0
    for i in range(part.shape[0]):
        source, target = part[i], work[i]
        for j in range(source.size):
            good = abs(source[j]) < inf
            target[j] = source[j] if good else inf
            number[j] += good


@njit(cache=True, nogil=True)
def _sort(work, network):
    """Sort along the first axis; whole rows are compared, several pixels at a time."""
    for c in range(network.shape[0]):
        upper, lower = work[network[c, 0]], work[network[c, 1]]
        for j in range(_WIDTH):
            x, y = upper[j], lower[j]
            upper[j] = min(x, y)
            lower[j] = max(x, y)


@njit(cache=True, nogil=True)
def _moments(part, bottom, top, weights, variance, method, data, sigma, count):
    """Weighted mean and its uncertainty of the values within the bounds of each pixel."""
    n, width = part.shape
    used = np.zeros(width, np.int32)
    sum_w, mean, total = np.zeros(width), np.zeros(width), np.zeros(width)
    for i in range(n):
        values, w = part[i], weights[i]
        for j in range(width):
            # The frame of a value is lost by sorting: it is found again by the bounds.
            good = (values[j] >= bottom[j]) & (values[j] <= top[j]) & (abs(values[j]) < np.inf)
            used[j] += good
            sum_w[j] += w if good else 0.0
            mean[j] += w * values[j] if good else 0.0
    for j in range(width):
        mean[j] = mean[j] / sum_w[j] if sum_w[j] > 0 else np.nan
    with_variance = variance.shape[0] > 0
    for i in range(n):
        values, w = part[i], weights[i]
        for j in range(width):
            good = (values[j] >= bottom[j]) & (values[j] <= top[j]) & (abs(values[j]) < np.inf)
            if with_variance:
                term = w * w * variance[i, j if variance.shape[1] > 1 else 0]
            else:
                term = w * (values[j] - mean[j]) ** 2
            total[j] += term if good else 0.0
    for j in range(width):
        if sum_w[j] == 0:  # No value, or only values of weight 0.
            data[j], sigma[j], count[j] = np.nan, np.nan, 0
            continue
        times = float(n) if method == 2 else 1.0
        if method != 0:
            data[j] = times * mean[j]
        if with_variance:
            sigma[j] = times * math.sqrt(total[j]) / sum_w[j]
        elif used[j] > 1:
            sigma[j] = times * math.sqrt(total[j] / (used[j] - 1) / sum_w[j])
        else:
            sigma[j] = np.nan


@njit(cache=True, nogil=True, inline="always")
def _middle(values, first, last):
    """Median of the sorted values from first up to, not with, last."""
    half = first + (last - first) // 2
    if (last - first) % 2:
        return float(values[half])
    return 0.5 * (float(values[half - 1]) + float(values[half]))


@njit(cache=True, nogil=True)
def _deviation(values, first, last, middle):
    """1.4826 times the median distance of sorted values from their median."""
    # The distances grow outwards from the median: merge the two sides up to the middle rank.
    right = first
    while right < last and values[right] < middle:
        right += 1
    left = right - 1
    n = last - first
    distance, before = 0.0, 0.0
    for _ in range(n // 2 + 1):
        before = distance
        if left < first or (right < last and values[right] - middle <= middle - values[left]):
            distance = values[right] - middle
            right += 1
        else:
            distance = middle - values[left]
            left -= 1
    return 1.4826 * (distance if n % 2 else 0.5 * (before + distance))


@njit(cache=True, nogil=True)
def _clipped(values, first, last, low, high, iterations, floor):
    """Range of the sorted values that stays when the outer ones are clipped."""
    for _ in range(iterations):
        if last - first < 3:
            break
        middle = _middle(values, first, last)
        scatter = max(_deviation(values, first, last, middle), floor)
        bottom, top = middle - low * scatter, middle + high * scatter
        start, end = first, last
        while values[first] < bottom:
            first += 1
        while values[last - 1] > top:
            last -= 1
        if start == first and end == last:
            break
    return first, last
