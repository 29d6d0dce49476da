"""The compiled sums under `datared.photometry`: circles cut exactly, every pixel judged.

Each star is cut out of the frame once, for all its radii. Stars do not depend on each other: a list
can be measured in pieces by several threads, with the same result.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from . import pixels

__all__ = ["cut_out", "neighbours", "over_stars", "sum_apertures", "weigh"]

# Bits of the photometry flags; their names and meanings are in `datared.photometry`.
EDGE = 1
OUTSIDE = 2
SATURATED = 4
BAD_PIXEL = 8
POOR_ANNULUS = 16
NEIGHBOUR = 32
NEGATIVE = 64
NO_POSITION = 128
NO_WCS = 256
NOT_CENTRED = 512

#: Pixel flags that say that the pixel's own value is not to be trusted.
BROKEN = 0xFFFF & ~(pixels.SATURATED | pixels.OUTSIDE)

#: Exponent of the Moffat profile that stands for the stars where only their width is known.
BETA = 3.5
#: Stars farther away than the radius and this many widths are no neighbours, however bright.
NEIGHBOUR_REACH = 8.0

#: Stars that one thread takes at a time.
CHUNK = 128
#: A smaller share of a pixel than this is rounding.
LEAST_SHARE = 1e-12


def over_stars(work, y, threads=None):
    """Call ``work(rows)`` for all stars in pieces, each an array of star numbers.

    The stars are taken from the bottom of the frame to its top, so that pixels are in the cache.

    Parameters
    ----------
    work : callable
        Takes an array of int and writes results of these stars; compiled without the lock.
    y : numpy.ndarray of float, shape (n,)
        Rows of the stars.
    threads : int, optional
        Number of threads; as many as there are processors, at most 8, without it.
    """
    order = np.argsort(y, kind="stable")
    pieces = [order[k : k + CHUNK] for k in range(0, order.size, CHUNK)]
    threads = min(threads or min(os.cpu_count() or 1, 8), len(pieces))
    if threads <= 1:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, pieces))


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def weigh(x, y, r, weight):
    """Write the share of every pixel of a box that lies inside a circle.

    The area left of and below a point follows from one function of each coordinate, so that arcs
    are computed for the lines between pixels, not for every pixel.

    Parameters
    ----------
    x, y, r : float
        Centre and radius; pixel ``[0, 0]`` of the box has its centre at 0, 0.
    weight : numpy.ndarray of float, shape (ny, nx)
        Where the shares are written.
    """
    ny, nx = weight.shape
    along, up = np.empty(nx + 1), np.empty(ny + 1)
    for i in range(nx + 1):
        along[i] = _half_arc(i - 0.5 - x, r)
    for j in range(ny + 1):
        up[j] = _half_arc(j - 0.5 - y, r)
    for j in range(ny):
        low, high = j - 0.5 - y, j + 0.5 - y
        near, far = max(low, -high, 0.0), max(-low, high)
        for i in range(nx):
            weight[j, i] = 0.0
        if near >= r:
            continue
        reach = math.sqrt(r * r - near * near)
        first = max(0, math.floor(x - reach + 0.5))
        last = min(nx - 1, math.ceil(x + reach - 0.5))
        # Pixels between these two lie inside with all their corners.
        whole, end = last + 1, last
        if far < r:
            inside = math.sqrt(r * r - far * far)
            whole, end = math.ceil(x - inside + 0.5), math.floor(x + inside - 0.5)
        for i in range(first, last + 1):
            if whole <= i <= end:
                weight[j, i] = 1.0
                continue
            left, right = i - 0.5 - x, i + 0.5 - x
            share = (
                _corner(right, high, r, along[i + 1], up[j + 1])
                - _corner(left, high, r, along[i], up[j + 1])
                - _corner(right, low, r, along[i + 1], up[j])
                + _corner(left, low, r, along[i], up[j])
            )
            if share > LEAST_SHARE:
                weight[j, i] = min(share, 1.0)


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _half_arc(x, r):
    """Half of the area between the axis and the arc, from the middle to ``x``."""
    x = min(max(x, -r), r)
    return 0.5 * (x * math.sqrt(r * r - x * x) + r * r * math.asin(x / r))


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _corner(x, y, r, half_x, half_y):
    """Area of a disc around the origin that lies left of ``x`` and below ``y``."""
    x, y = min(max(x, -r), r), min(max(y, -r), r)
    quarter = 0.25 * math.pi * r * r
    if x * x + y * y < r * r:
        return quarter + x * y + half_x + half_y
    if x >= 0 and y >= 0:
        return 2 * (half_x + half_y)
    if x < 0 and y < 0:
        return 0.0
    return 2 * quarter + 2 * (half_x if x < 0 else half_y)


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cut_out(data, flags, sky, left, bottom, value, state):
    """Copy a box of the frame: values without sky, and pixel flags.

    Parameters
    ----------
    data : numpy.ndarray of float, shape (ny, nx)
        The frame.
    flags : numpy.ndarray of uint16, shape (ny, nx) or (0, 0)
        Bits of `datared.pixels`; without rows all pixels are good.
    sky : numpy.ndarray of float32, shape (ny, nx) or (0, 0)
        To subtract.
    left, bottom : int
        Column and row of the first pixel; the box may lie partly off the frame.
    value, state : numpy.ndarray of float64 and of uint16, shape (height, width)
        Where values are written, 0 where there is none, and flags: outside off the frame,
        nonfinite without a value.
    """
    ny, nx = data.shape
    for b in range(value.shape[0]):
        j = bottom + b
        first, last = max(left, 0), min(left + value.shape[1], nx)
        if j < 0 or j >= ny or last < first:
            first = last = left
        for a in range(value.shape[1]):
            value[b, a], state[b, a] = 0.0, pixels.OUTSIDE
        lost = False
        for i in range(first, last):
            v = np.float64(data[j, i])
            if sky.size:
                v -= sky[j, i]
            lost |= not abs(v) < math.inf
            value[b, i - left] = v
            state[b, i - left] = flags[j, i] if flags.size else 0
        if lost:
            for a in range(first - left, last - left):
                if not abs(value[b, a]) < math.inf:
                    # A repair that left no value has repaired nothing.
                    value[b, a] = 0.0
                    state[b, a] = (state[b, a] | pixels.NONFINITE) & ~pixels.REPAIRED


@njit(cache=True, nogil=True)
def sum_apertures(data, flags, sky, x, y, radii, options, rows, sums, bits):
    """Sum, area and flags of every radius of some stars.

    Parameters
    ----------
    data, flags, sky
        As in `cut_out`.
    x, y : numpy.ndarray of float, shape (n,)
        Positions in pixels.
    radii : numpy.ndarray of float, shape (nr,)
        Radii in pixels.
    options : tuple of (bool, bool, float)
        Keep the sum of an aperture that crosses the edge; fill a pixel without a trustworthy value
        with the one opposite to it; width of the stars in pixels, for that.
    rows : numpy.ndarray of int
        The stars to measure.
    sums : numpy.ndarray of float, shape (n, nr, 5)
        Where the sums of ``w v``, ``w``, ``w^2 v``, ``w^2`` and ``w^2 v^2`` over the values ``v``
        with the weights ``w`` are written: what a pixel's noise does goes by its weight squared.
        NaN where the flux cannot be had.
    bits : numpy.ndarray of int32, shape (n, nr)
        Where the photometry flags are written.
    """
    ny, nx = data.shape
    # Two pixels more than the circle needs: there the opposite pixels are.
    reach = 0
    for r in radii:
        reach = max(reach, math.ceil(r) + 2)
    size = 2 * reach + 1
    value, state = np.empty((size, size)), np.empty((size, size), np.uint16)
    weight = np.empty((size, size))
    for k in rows:
        if not (-0.5 <= x[k] <= nx - 0.5 and -0.5 <= y[k] <= ny - 0.5):
            known = math.isfinite(x[k]) and math.isfinite(y[k])
            for p in range(radii.size):
                bits[k, p] = OUTSIDE if known else NO_POSITION
                for m in range(5):
                    sums[k, p, m] = math.nan
            continue
        left, bottom = round(x[k]) - reach, round(y[k]) - reach
        cut_out(data, flags, sky, left, bottom, value, state)
        cx, cy = x[k] - left, y[k] - bottom
        _sum_star(value, state, weight, cx, cy, radii, options, sums[k], bits[k])


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _sum_star(value, state, weight, x, y, radii, options, sums, bits):
    """Write sums and flags of one star that is cut out."""
    keep, fill, fwhm = options
    flagged = False
    for b in range(state.shape[0]):
        for a in range(state.shape[1]):
            flagged |= state[b, a] != 0
    for p in range(radii.size):
        weigh(x, y, radii[p], weight)
        found, lost = _judge(state, weight) if flagged else (0, False)
        if lost and fill:
            found, lost = _fill(state, weight, x, y, fwhm, found)
        bits[p] = found
        s0 = s1 = s2 = s3 = s4 = 0.0
        if lost or (found & EDGE and not keep):
            s0 = s1 = s2 = s3 = s4 = math.nan
        else:
            near = math.ceil(radii[p]) + 2
            middle = state.shape[0] // 2
            for b in range(middle - near, middle + near + 1):
                for a in range(middle - near, middle + near + 1):
                    w, v = weight[b, a], value[b, a]
                    s0 += w * v
                    s1 += w
                    s2 += w * w * v
                    s3 += w * w
                    s4 += w * w * v * v
        sums[p, 0], sums[p, 1], sums[p, 2], sums[p, 3], sums[p, 4] = s0, s1, s2, s3, s4


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _judge(state, weight):
    """Photometry flags of an aperture, and whether light is lost in it; no weight outside."""
    found, lost = 0, False
    for b in range(state.shape[0]):
        for a in range(state.shape[1]):
            flag = state[b, a]
            if flag == 0 or weight[b, a] == 0.0:
                continue
            if flag & pixels.OUTSIDE:
                found |= EDGE
                weight[b, a] = 0.0
                continue
            if flag & pixels.SATURATED:
                found |= SATURATED
            if flag & BROKEN:
                found |= BAD_PIXEL
                lost = lost or not flag & pixels.REPAIRED
    return found, lost


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _fill(state, weight, x, y, fwhm, found):
    """Give the weight of pixels without a trustworthy value to those opposite to them.

    That is as far from the star's centre to half a pixel; a Moffat profile tells what this makes.
    """
    ny, nx = state.shape
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / BETA) - 1)
    for b in range(ny):
        for a in range(nx):
            flag = state[b, a]
            if weight[b, a] == 0.0 or not flag & BROKEN or flag & pixels.REPAIRED:
                continue
            i, j = round(2 * x - a), round(2 * y - b)
            if not (0 <= i < nx and 0 <= j < ny):
                return found, True
            other = state[j, i]
            if other & pixels.OUTSIDE or (other & BROKEN and not other & pixels.REPAIRED):
                return found, True
            if other & pixels.SATURATED:
                found |= SATURATED
            here, there = (a - x) ** 2 + (b - y) ** 2, (i - x) ** 2 + (j - y) ** 2
            weight[j, i] += weight[b, a] * ((alpha2 + there) / (alpha2 + here)) ** BETA
            weight[b, a] = 0.0
    return found, False


@njit(cache=True, nogil=True)
def neighbours(x, y, flux, radii, fwhm, ratio, order, near):
    """Tell for each star and radius whether another star brings more than ``ratio`` of its light.

    The other one's light in the aperture is taken as area times brightness of a Moffat profile at a
    third of the radius inside the distance, at most all of it. A star that could not be measured
    may be bright: it counts as equal. One without light has a neighbour in whatever is there.

    Parameters
    ----------
    x, y, flux : numpy.ndarray of float, shape (n,)
        Positions in pixels and light of the stars.
    radii : numpy.ndarray of float, shape (nr,)
        Radii in pixels.
    fwhm : float
        Width of the stars in pixels.
    ratio : float
        Share that matters.
    order, near : numpy.ndarray of int, and of bool of shape (n, nr)
        Stars with a position, sorted by ``x``; where True is written.
    """
    reach = 0.0
    for r in radii:
        reach = max(reach, r + NEIGHBOUR_REACH * fwhm)
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / BETA) - 1))
    start = 0
    for k in order:
        own = max(flux[k], 0.0) if math.isfinite(flux[k]) else math.inf
        equal = flux[k] if math.isfinite(flux[k]) else 1.0
        while x[order[start]] < x[k] - reach:
            start += 1
        for m in range(start, order.size):
            other = order[m]
            if x[other] > x[k] + reach:
                break
            light = flux[other] if math.isfinite(flux[other]) else equal
            distance = math.hypot(x[other] - x[k], y[other] - y[k])
            if other == k or distance > reach or not light > ratio * own:
                continue
            for p in range(radii.size):
                depth = max(distance - radii[p] / 3, 0.0) / alpha
                share = (BETA - 1) * (radii[p] / alpha) ** 2 * (1 + depth * depth) ** -BETA
                if light * min(share, 1.0) > ratio * own:
                    near[k, p] = True
