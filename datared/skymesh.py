"""Inside `background`: the sky of the boxes of a mesh, and smooth surfaces through them.

Frames are float32. Work is cut into bands of `BAND` rows, whatever the number of threads, so that
the result is the same on one thread as on eight.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy import ndimage
from scipy.interpolate import CubicSpline

__all__ = ["BAND", "Surface", "box_edges", "boxes", "mark", "over_bands", "smooth", "surface"]

#: Rows of a frame that are worked on at a time: 128 rows of 5000 pixels stay in the cache.
BAND = 128
#: Values of a box that are sorted for a first guess of its middle and scatter.
_SAMPLE = 100
#: Bins of the histogram of a box on each side of its middle; 16 of them are one standard deviation.
_BINS = 128
_PER_SIGMA = 16
#: A normal distribution cut at 3 standard deviations keeps this part of its standard deviation.
_CUT = math.sqrt(1 - 6 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2)))


class Surface(NamedTuple):
    """Cubic pieces along each row of a frame.

    Attributes
    ----------
    starts : numpy.ndarray of int, shape (n + 1,)
        First column of each piece, and the width of the frame.
    origins : numpy.ndarray of float32, shape (n,)
        Column from which a piece counts.
    coefficients : numpy.ndarray of float32, shape (ny, n, 4)
        Of the powers 0 to 3 of the column minus the origin.
    lowest : float
        The surface is never lower than this.
    """

    starts: np.ndarray
    origins: np.ndarray
    coefficients: np.ndarray
    lowest: float

    def rows(self, first, last):
        """Return the surface of some rows only."""
        return self._replace(coefficients=self.coefficients[first:last])

    def fill(self, first, last, out=None):
        """Return the values at all pixels of some rows, float32 of shape (last - first, nx)."""
        if out is None:
            out = np.empty((last - first, self.starts[-1]), np.float32)
        _fill(
            self.starts,
            self.origins,
            self.coefficients[first:last],
            np.float32(self.lowest),
            out,
        )
        return out

    def at(self, x, y):
        """Return the values at the pixels nearest to some positions."""
        ny, nx = len(self.coefficients), self.starts[-1]
        column = np.clip(np.rint(x), 0, nx - 1).astype(int)
        row = np.clip(np.rint(y), 0, ny - 1).astype(int)
        piece = np.searchsorted(self.starts, column, "right") - 1
        c0, c1, c2, c3 = self.coefficients[row, piece].T.astype(float)
        t = column - self.origins[piece]
        return np.maximum(c0 + t * (c1 + t * (c2 + t * c3)), self.lowest)


def over_bands(work, ny):
    """Call ``work(first, last)`` for all bands of a frame of ``ny`` rows, on several threads."""
    starts = range(0, ny, BAND)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(starts), 8)) as pool:
        return list(pool.map(lambda first: work(first, min(first + BAND, ny)), starts))


def box_edges(size, box):
    """Cut ``size`` pixels into boxes of about ``box`` pixels, all of nearly the same size."""
    n = max(1, round(size / box))
    return np.round(np.linspace(0, size, n + 1)).astype(np.int64)


def boxes(data, bad, sources, edges, least, todo, level, noise):
    """Write level and noise of the boxes that are ``todo``; NaN where too few pixels are good.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        The frame.
    bad, sources : numpy.ndarray of bool and of uint8, shape (ny, nx)
        Pixels that are left out where they are not zero.
    edges : tuple of numpy.ndarray of int
        Borders of the boxes in rows and in columns.
    least : tuple of (float, int)
        Smallest share and smallest number of good pixels of a box.
    todo : numpy.ndarray of bool, shape (n_y, n_x)
        Boxes to measure.
    level, noise : numpy.ndarray of float, shape (n_y, n_x)
        Where the results are written.
    """
    rows, columns = edges
    n = len(rows) - 1
    with ThreadPoolExecutor(min(os.cpu_count() or 1, n, 8)) as pool:
        jobs = [
            pool.submit(
                _boxes, data, bad, sources, rows, columns, *least, todo, level, noise, a, a + 1
            )
            for a in range(n)
        ]
        for job in jobs:
            job.result()


def smooth(nodes, width):
    """Fill boxes without a value from the nearest that has one; take medians of width x width."""
    missing = ~np.isfinite(nodes)
    if missing.any():
        nearest = ndimage.distance_transform_edt(
            missing, return_distances=False, return_indices=True
        )
        nodes = nodes[tuple(nearest)]
    if width == 1:
        return nodes
    # The mesh goes on beyond its edge as it came there, so that a tilted sky keeps its tilt.
    before, after = (width - 1) // 2, width // 2
    padded = np.pad(nodes, (after, before), mode="reflect", reflect_type="odd")
    smoothed = ndimage.median_filter(padded, width)
    return smoothed[after : after + nodes.shape[0], after : after + nodes.shape[1]]


def surface(nodes, edges, lowest=-np.inf):
    """Return the natural bicubic spline through the middles of the boxes, straight outside them."""
    ny, nx = edges[0][-1], edges[1][-1]
    middles = [(one[:-1] + one[1:] - 1) / 2 for one in edges]
    # A spline is linear in its values: first along x, then of the coefficients along y.
    origins, along = _pieces(middles[1], nodes.T)
    breaks, pieces = _pieces(middles[0], along.transpose(2, 1, 0).reshape(len(nodes), -1))
    row = np.arange(ny)
    piece = np.clip(np.searchsorted(breaks, row, "right") - 1, 0, len(breaks) - 1)
    coefficients = np.empty((ny, pieces.shape[2]), np.float32)
    _evaluate(pieces, piece, row - breaks[piece], coefficients)
    coefficients = coefficients.reshape(ny, -1, 4)
    starts = np.concatenate([[0], np.ceil(origins[1:]).astype(np.int64), [nx]])
    return Surface(starts, origins.astype(np.float32), coefficients, lowest)


def _pieces(places, values):
    """Return origins (n,) and coefficients (4, n, m) of a natural spline through (n, m) values."""
    if len(places) == 1:
        return places, np.stack([values, *[np.zeros_like(values)] * 3])
    spline = CubicSpline(places, values, bc_type="natural")
    ends = places[[0, -1]]
    level, slope, zero = spline(ends), spline(ends, 1), np.zeros((1, values.shape[1]))
    first, last = (np.stack([level[k : k + 1], slope[k : k + 1], zero, zero]) for k in (0, 1))
    # The first piece counts from the first middle too: what is left of it goes straight on.
    return (
        np.concatenate([places[:1], places]),
        np.concatenate([first, spline.c[::-1], last], axis=1),
    )


@njit(cache=True, nogil=True)
def _evaluate(pieces, piece, t, out):
    """Write the cubics of shape (4, n, m) of one piece for each row, at t from its origin."""
    for j in range(out.shape[0]):
        c0, c1 = pieces[0, piece[j]], pieces[1, piece[j]]
        c2, c3 = pieces[2, piece[j]], pieces[3, piece[j]]
        for i in range(out.shape[1]):
            out[j, i] = c0[i] + t[j] * (c1[i] + t[j] * (c2[i] + t[j] * c3[i]))


@njit(cache=True, nogil=True)
def _fill(starts, origins, coefficients, lowest, out):
    """Evaluate the pieces of some rows."""
    for j in range(out.shape[0]):
        row = out[j]
        for s in range(origins.size):
            c0, c1 = coefficients[j, s, 0], coefficients[j, s, 1]
            c2, c3 = coefficients[j, s, 2], coefficients[j, s, 3]
            origin = origins[s]
            for i in range(starts[s], starts[s + 1]):
                t = np.float32(i) - origin
                row[i] = max(c0 + t * (c1 + t * (c2 + t * c3)), lowest)


@njit(cache=True, nogil=True)
def _boxes(data, bad, sources, rows, columns, share, number, todo, level, noise, first, last):
    """Measure some rows of boxes."""
    largest = 0
    for a in range(first, last):
        for b in range(columns.size - 1):
            size = (rows[a + 1] - rows[a]) * (columns[b + 1] - columns[b])
            largest = max(largest, size)
    values = np.empty(largest, np.float32)
    sample = np.empty(_SAMPLE, np.float32)
    counts = np.empty(2 * _BINS + 1, np.int64)
    for a in range(first, last):
        for b in range(columns.size - 1):
            if not todo[a, b]:
                continue
            n = 0
            for j in range(rows[a], rows[a + 1]):
                row = data[j, columns[b] : columns[b + 1]]
                hidden = bad[j, columns[b] : columns[b + 1]]
                star = sources[j, columns[b] : columns[b + 1]]
                for i in range(row.size):
                    values[n] = row[i]
                    n += not (hidden[i] or star[i])
            size = (rows[a + 1] - rows[a]) * (columns[b + 1] - columns[b])
            if n < min(size, max(share * size, number)):
                level[a, b] = noise[a, b] = np.nan
            else:
                level[a, b], noise[a, b] = _sky(values[:n], sample, counts)


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _sky(values, sample, counts):
    """Mode and standard deviation of the sky among values: a clipped histogram.

    A few values, sorted, place the histogram: their median, and how far from it the 16th or the
    84th percentile lies, the nearer one: stars are bright, dead pixels and blank borders are dark.
    A bin is a whole number of steps of the values, so that
    whole numbers do not leave gaps in it.
    """
    n = values.size
    m = min(n, sample.size)
    for k in range(m):
        value = values[k * n // m]
        p = k
        while p > 0 and sample[p - 1] > value:
            sample[p] = sample[p - 1]
            p -= 1
        sample[p] = value
    middle = sample[m // 2]
    low, high = int(0.1587 * m), m - 1 - int(0.1587 * m)
    spread = min(middle - sample[low], sample[high] - middle)
    step = np.inf
    for k in range(1, m):
        gap = sample[k] - sample[k - 1]
        if 0 < gap < step:
            step = gap
    if step == np.inf:
        return np.float64(middle), 0.0
    if spread <= 0:
        # Whole numbers with less noise than a step.
        spread = step
    steps = math.ceil(spread / (_PER_SIGMA * step) - 1e-6)
    # An odd number, so that the values of a bin lie evenly about its middle.
    bin_width = step * (steps + 1 - steps % 2)
    for k in range(counts.size):
        counts[k] = 0
    scale, zero = np.float32(1 / bin_width), np.float32(_BINS + 0.5)
    top = np.float32(counts.size)
    for k in range(n):
        place = (values[k] - middle) * scale + zero
        if 0 <= place < top:
            counts[int(place)] += 1
    low, high = 0, counts.size - 1
    mean = median = sigma = 0.0
    for _round in range(30):
        n_in = 0
        s1 = s2 = 0.0
        for k in range(low, high + 1):
            n_in += counts[k]
            s1 += counts[k] * (k - _BINS)
            s2 += counts[k] * (k - _BINS) ** 2
        mean = s1 / n_in
        sigma = math.sqrt(max(s2 / n_in - mean * mean, 0.0)) / _CUT
        below, k = 0, low
        while 2 * (below + counts[k]) < n_in:
            below += counts[k]
            k += 1
        median = k - _BINS - 0.5 + (0.5 * n_in - below) / counts[k]
        new_low = max(0, math.ceil(median - 3 * sigma + _BINS))
        new_high = min(counts.size - 1, math.floor(median + 3 * sigma + _BINS))
        if (new_low == low and new_high == high) or new_high <= new_low:
            break
        low, high = new_low, new_high
    mode = median
    if sigma < 1:
        # Steps larger than the noise: between two of them only the mean can tell.
        mode = mean
    elif abs(mean - median) < 0.3 * sigma:
        mode = 2.5 * median - 1.5 * mean
    return middle + mode * bin_width, sigma * bin_width


@njit(cache=True, nogil=True)
def mark(excess, limit, grow, sources, first, last):
    """Mark what is bright, with a border of ``grow`` pixels, on rows ``first`` to ``last``.

    ``excess`` starts one row above ``first`` and ends two below ``last`` (frame rows; zeros outside
    it). Bright is where the sum of 3 x 3 pixels is above the limit in four pixels of a square:
    single pixels are noise or hot; a star covers more.
    """
    ny, nx = sources.shape
    column = np.zeros(nx + 2, np.float32)
    left, middle, right = column[:-2], column[1:-1], column[2:]
    before, now = np.zeros(nx, np.uint8), np.zeros(nx, np.uint8)
    for j in range(first, last + 1):
        above, here, below = excess[j - first], excess[j - first + 1], excess[j - first + 2]
        for i in range(nx):
            middle[i] = above[i] + here[i] + below[i]
        n = 0
        for i in range(nx):
            bright = left[i] + middle[i] + right[i] > limit
            now[i] = bright
            n += bright
        if n and j > first:
            top, bottom = max(0, j - 1 - grow), min(ny, j + 1 + grow)
            end = 0
            for i in range(nx - 1):
                if now[i] and now[i + 1] and before[i] and before[i + 1]:
                    start, stop = max(i - grow, end), min(nx, i + 2 + grow)
                    for jj in range(top, bottom):
                        for ii in range(start, stop):
                            sources[jj, ii] = 1
                    end = stop
        before, now = now, before
