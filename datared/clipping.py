"""The compiled loops of `datared.stackrows` that find what only one frame shows.

They work on a window of rows of all frames: ``values`` (frame, row, column) of float32 with the
scaled frames; ``codes`` of uint8 with the variance of a pixel by that of an independent pixel, in
units of 1/64; ``states`` of uint8, 0 for a pixel that is used, else the round in which it was left
out, plus 128 where the frame is saturated; ``marks`` (frame, row) of int64, a bit for each state
in the row. ``models`` (4, row, column) of float32 keeps the median, its steepness, its contrast and
its rise where they were needed, and -inf elsewhere: most pixels need none. ``span`` has the first
row to work on, the row after the last, and the number of rows that are there; ``noise`` (5, frame)
is that of `datared.stackrows.RowWindow`; ``rule`` has clip and slope.
"""

import math

import numpy as np
from numba import njit

__all__ = ["CODE", "find_outliers", "grow_wings", "widen"]

#: Code of an independent pixel.
CODE = 64
#: Round of the last, unconditional widening.
WIDENED = 31
_BLOCK = 256
_UNKNOWN = np.float32(-np.inf)
#: From so many values on, their median deviation says something about their scatter.
_ENOUGH = 5
#: From so many frames on it is worth while to count values before a median is searched.
_MANY = 24
#: A wing is what is that many standard deviations from nothing, on average over a window.
_WING = 3.0


@njit(cache=True, nogil=True)
def find_outliers(values, codes, states, marks, models, span, noise, rule):
    """Round 1: leave out what differs from the median by more than the limit, in some rows."""
    n, _, width = values.shape
    start, stop, height = span
    low, high = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    least = np.empty(_BLOCK, np.float32)
    scratch = np.empty(n, np.float32)
    counts = np.zeros((3, _BLOCK), np.int32)
    limit = np.float32(rule[0] ** 2 / CODE)
    for r in range(start, stop):
        for block in range(0, width, _BLOCK):
            size = min(_BLOCK, width - block)
            for j in range(size):
                low[j], high[j], least[j] = np.inf, -np.inf, np.inf
            for i in range(n):
                row, code = values[i, r, block : block + size], codes[i, r, block : block + size]
                sky = np.float32(noise[0, i])
                for j in range(size):
                    v = row[j]
                    low[j] = v if v < low[j] else low[j]
                    high[j] = v if v > high[j] else high[j]
                    s = sky * code[j]
                    least[j] = s if s < least[j] else least[j]
            if n >= _MANY:
                _count(values, r, block, size, low, high, least, limit, counts)
            below, above, number = counts[0], counts[1], counts[2]
            for j in range(size):
                # The median lies between the extremes, and whatever else enters the limit makes it
                # larger: most pixels are done here. Of many values the extremes are far apart, so
                # it is asked whether half of them are that far from one.
                step = high[j] - low[j]
                if (
                    step > 0
                    and step * step > limit * least[j]
                    and (2 * below[j] >= number[j] or 2 * above[j] >= number[j])
                ):
                    _examine(
                        values, codes, states, marks, models, r, block + j, height, noise, rule,
                        scratch,
                    )  # fmt: skip


@njit(cache=True, nogil=True)
def grow_wings(values, states, marks, models, span, noise, rule, done):
    """Round ``done`` + 1: leave out what lies beside a pixel of the round before and is a wing.

    Wings are too faint to be seen in a pixel; the mean of the pixels around, those that were left
    out excepted, shows them.
    """
    n, _, width = values.shape
    start, stop, height = span
    scratch, close = np.empty(n, np.float32), np.zeros(width, np.uint8)
    for i in range(n):
        for r in range(start, stop):
            found = False
            for near in range(max(r - 2, 0), min(r + 3, height)):
                if not marks[i, near] >> done & 1:
                    continue
                found = True
                _mark_close(states[i, near], done, done, 2, close)
            if not found:
                continue
            for block in range(0, width, _BLOCK):
                if not _reaches(close[block : block + _BLOCK], 1, 1):
                    continue
                for x in range(block, min(block + _BLOCK, width)):
                    if close[x] == 1 and states[i, r, x] & 31 == 0:
                        if _is_wing(
                            values, states, models, i, r, x, height, noise, rule, done, scratch
                        ):
                            states[i, r, x] |= done + 1
                            marks[i, r] |= 1 << (done + 1)
                    close[x] = 0


@njit(cache=True, nogil=True)
def widen(states, marks, span, last):
    """Leave out the neighbours of all that was left out until round ``last``."""
    n, _, width = states.shape
    start, stop, height = span
    close = np.zeros(width, np.uint8)
    for i in range(n):
        for r in range(start, stop):
            found = False
            for near in range(max(r - 1, 0), min(r + 2, height)):
                if marks[i, near] & ((2 << last) - 2):
                    found = True
                    _mark_close(states[i, near], 1, last, 1, close)
            if not found:
                continue
            marks[i, r] |= 1 << WIDENED
            for x in range(width):
                if close[x] == 1 and states[i, r, x] & 31 == 0:
                    states[i, r, x] |= WIDENED
                close[x] = 0


@njit(cache=True, nogil=True)
def _mark_close(states, first, last, reach, close):
    """Set to 1 what is so close in columns to what was left out of a row in some rounds."""
    for block in range(0, states.size, _BLOCK):
        if not _reaches(states[block : block + _BLOCK], first, last):
            continue
        for x in range(block, min(block + _BLOCK, states.size)):
            if first <= states[x] & 31 <= last:
                for other in range(max(x - reach, 0), min(x + reach + 1, states.size)):
                    close[other] = 1


@njit(cache=True, nogil=True)
def _reaches(states, first, last):
    """Whether some of these pixels were left out in these rounds: quick, for most were not."""
    low, span, found = np.uint8(first), np.uint8(last - first), np.uint8(0)
    for x in range(states.size):
        found |= np.uint8(np.uint8((states[x] & np.uint8(31)) - low) <= span)
    return found != 0


@njit(cache=True, nogil=True)
def _count(values, r, block, size, low, high, least, limit, counts):
    """Of each pixel, values further than the limit from the highest, from the lowest, and all."""
    below, above, number = counts[0], counts[1], counts[2]
    for j in range(size):
        far = math.sqrt(limit * least[j])
        low[j] += far
        high[j] -= far
        below[j], above[j], number[j] = 0, 0, 0
    for i in range(values.shape[0]):
        row = values[i, r, block : block + size]
        for j in range(size):
            v = row[j]
            below[j] += v < high[j]
            above[j] += v > low[j]
            number[j] += abs(v) < np.inf
    for j in range(size):
        far = math.sqrt(limit * least[j])
        low[j] -= far
        high[j] += far


@njit(cache=True, nogil=True)
def _examine(values, codes, states, marks, models, r, x, height, noise, rule, scratch):
    """Leave out of one pixel the frames that differ."""
    n = values.shape[0]
    model = _model(values, models, r, x, scratch)
    number, saturated, suspicious = 0, 0, False
    light = max(model, np.float32(0))
    for i in range(n):
        v = values[i, r, x]
        if not abs(v) < np.inf:
            continue
        number += 1
        saturated += states[i, r, x] >> 7
        variance = (noise[0, i] + noise[1, i] * light) * codes[i, r, x] / CODE
        suspicious |= (v - model) ** 2 > rule[0] ** 2 * variance
    # Two values cannot tell which is wrong; where several frames are saturated none is right.
    if not suspicious or number < 3 or saturated > 1:
        return
    _describe(values, models, r, x, height, noise, scratch)
    clip = rule[0] * max(1.0, _scatter(values, codes, model, r, x, noise, scratch))
    for i in range(n):
        excess = _excess(values[i, r, x], models, r, x, i, noise, rule)
        variance = (noise[0, i] + noise[1, i] * light) * codes[i, r, x] / CODE
        if excess * excess > clip * clip * variance:
            states[i, r, x] |= 1
            marks[i, r] |= 2


@njit(cache=True, nogil=True)
def _is_wing(values, states, models, i, r, x, height, noise, rule, done, scratch):
    """Whether the pixels around one, that are still used, differ on average.

    They must do so at all, and beyond what stars explain; mostly the first, which is quick, fails.
    """
    for stars in range(2):
        total, square = 0.0, 0.0
        for near in range(max(r - 2, 0), min(r + 3, height)):
            for other in range(max(x - 2, 0), min(x + 3, values.shape[2])):
                v, level = values[i, near, other], states[i, near, other] & 31
                if (level > 0 and level <= done) or not abs(v) < np.inf:
                    continue
                model = _model(values, models, near, other, scratch)
                if stars:
                    _describe(values, models, near, other, height, noise, scratch)
                    total += _excess(v, models, near, other, i, noise, rule)
                else:
                    total += float(v) - model
                square += noise[0, i] + noise[1, i] * max(model, np.float32(0))
        if total * total <= _WING**2 * square:
            return False
    return True


@njit(cache=True, nogil=True)
def _excess(v, models, r, x, i, noise, rule):
    """How far a value is from the median, beyond what seeing and small shifts explain."""
    if not abs(v) < np.inf:
        return 0.0
    away = float(v) - models[0, r, x]
    allowed = rule[1] * models[1, r, x]
    if away > 0:
        allowed += noise[2, i] * models[2, r, x] + noise[4, i] * models[3, r, x]
    else:
        allowed += noise[3, i] * models[2, r, x]
    if abs(away) <= allowed:
        return 0.0
    return away - allowed if away > 0 else away + allowed


@njit(cache=True, nogil=True)
def _model(values, models, r, x, scratch):
    """Median of the values of a pixel."""
    if models[0, r, x] == _UNKNOWN:
        number = 0
        for i in range(values.shape[0]):
            if abs(values[i, r, x]) < np.inf:
                scratch[number] = values[i, r, x]
                number += 1
        models[0, r, x] = _median(scratch, number)
    return models[0, r, x]


@njit(cache=True, nogil=True)
def _describe(values, models, r, x, height, noise, scratch):
    """Steepness and contrast of the model at a pixel, above what noise makes."""
    if models[1, r, x] != _UNKNOWN:
        return
    model = _model(values, models, r, x, scratch)
    width = values.shape[2]
    step, rise, ring, number = 0.0, 0.0, 0.0, 0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            if dy == 0 and dx == 0:
                continue
            for far in range(1, 3):
                row, column = r + far * dy, x + far * dx
                if row < 0 or row >= height or column < 0 or column >= width:
                    continue
                other = _model(values, models, row, column, scratch)
                if not abs(other) < np.inf:
                    continue
                if far == 1:
                    step = max(step, abs(other - model))
                else:
                    ring += other
                    rise = max(rise, other - model)
                    number += 1
    weight = 0.0
    for i in range(values.shape[0]):
        if abs(values[i, r, x]) < np.inf:
            weight += 1 / (noise[0, i] + noise[1, i] * max(model, np.float32(0)))
    # A median of many values has 1.25 times the noise of their mean.
    error = 1.2533 / math.sqrt(weight) if weight > 0 else 0.0
    contrast = abs(model - ring / number) if number > 0 else 0.0
    models[1, r, x] = max(step - 3 * error, 0.0)
    models[2, r, x] = max(contrast - 2 * error, 0.0)
    models[3, r, x] = max(rise - 3 * error, 0.0)


@njit(cache=True, nogil=True)
def _scatter(values, codes, model, r, x, noise, scratch):
    """Robust scatter of the values of a pixel around their median, in units of their noise.

    Of few values the distance of the nearest: 0 of three, and of four it is large where two pairs
    differ, of which nobody knows which is wrong.
    """
    number, light = 0, max(model, np.float32(0))
    for i in range(values.shape[0]):
        v = values[i, r, x]
        if abs(v) < np.inf:
            variance = (noise[0, i] + noise[1, i] * light) * codes[i, r, x] / CODE
            scratch[number] = abs(v - model) / math.sqrt(variance)
            number += 1
    if number < _ENOUGH:
        nearest = scratch[0]
        for k in range(1, number):
            nearest = min(nearest, scratch[k])
        return nearest
    return 1.4826 * _median(scratch, number)


@njit(cache=True, nogil=True)
def _median(values, number):
    """Median of the first values (which are put in another order); NaN of none."""
    if number == 0:
        return np.float32(np.nan)
    first, last, middle = 0, number - 1, number // 2
    while first < last:
        pivot, i, j = values[middle], first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < middle:
            first = i
        if i > middle:
            last = j
    result = values[middle]
    if number % 2 == 0:
        below = values[0]
        for i in range(1, middle):
            below = max(below, values[i])
        result = np.float32(0.5) * (below + result)
    return result
