"""The compiled part of `datared.psf`: stars drawn from a spline, and groups of them fitted."""

import math

import numpy as np
from numba import njit

from .apertures import BAD_PIXEL, EDGE, SATURATED
from .pixels import OUTSIDE as PIXEL_OUTSIDE
from .pixels import SATURATED as PIXEL_SATURATED

__all__ = ["add_stars", "box_residuals", "fit_pieces", "inspect_stars"]

#: Added to the diagonal of the normal equations, as a share of it: two stars at one place then
#: share their light, and nothing is divided by zero.
RIDGE = 1e-9
#: Pixels that deviate by more than this many standard deviations do not tell the sky.
SKY_CLIP = 4.0


@njit(cache=True, nogil=True)
def _weights(position, value, slope):
    """Write the four weights of a cubic B-spline and of its slope; return the first node."""
    base = math.floor(position)
    t = position - base
    s = 1 - t
    value[0], value[1] = s * s * s / 6, (4 - 3 * t * t * (1 + s)) / 6
    value[2], value[3] = (4 - 3 * s * s * (1 + t)) / 6, t * t * t / 6
    slope[0], slope[1] = -s * s / 2, t * (1.5 * t - 2)
    slope[2], slope[3] = s * (2 - 1.5 * s), t * t / 2
    return int(base) - 1


@njit(cache=True, nogil=True)
def add_stars(image, coefficients, oversampling, radius, x, y, flux, first, last):
    """Add stars to the rows ``first`` to ``last`` - 1 of an image.

    Parameters
    ----------
    image : numpy.ndarray, shape (ny, nx)
        Changed in place.
    coefficients : numpy.ndarray of float64, shape (m, m)
        Of the cubic B-splines through the model, its centre in the middle.
    oversampling : int
        Nodes of the model for each pixel.
    radius : float
        Pixels whose centres are farther away from the star get nothing.
    x, y, flux : numpy.ndarray of float64, shape (n,)
        Stars, added in this order; one whose flux is NaN is left out.
    first, last : int
        Rows to work on.
    """
    nx = image.shape[1]
    middle = coefficients.shape[0] // 2
    wx, wy, unused = np.empty(4), np.empty(4), np.empty(4)
    for k in range(x.size):
        if not abs(flux[k]) > 0:
            continue
        top, bottom = max(first, math.ceil(y[k] - radius)), min(last - 1, math.floor(y[k] + radius))
        if top > bottom:
            continue
        left, right = max(0, math.ceil(x[k] - radius)), min(nx - 1, math.floor(x[k] + radius))
        column = _weights(middle + (left - x[k]) * oversampling, wx, unused)
        row = _weights(middle + (top - y[k]) * oversampling, wy, unused)
        for j in range(top, bottom + 1):
            dy2 = (j - y[k]) ** 2
            b = row + (j - top) * oversampling
            for i in range(left, right + 1):
                if dy2 + (i - x[k]) ** 2 > radius * radius:
                    continue
                a = column + (i - left) * oversampling
                total = 0.0
                for q in range(4):
                    line = coefficients[b + q]
                    total += wy[q] * (
                        wx[0] * line[a]
                        + wx[1] * line[a + 1]
                        + wx[2] * line[a + 2]
                        + wx[3] * line[a + 3]
                    )
                image[j, i] += flux[k] * total


@njit(cache=True, nogil=True)
def inspect_stars(coefficients, oversampling, usable, flags, x, y, radius, bits, share):
    """Write the flags of the pixels in each star's fit and the share of its light they hold.

    Parameters
    ----------
    coefficients, oversampling
        As for `add_stars`.
    usable : numpy.ndarray of uint8, shape (ny, nx)
        Not zero where a pixel counts.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Bits of `datared.pixels`.
    x, y, radius : numpy.ndarray of float64, shape (n,)
        Stars, and how far their fits reach.
    bits : numpy.ndarray of uint16, shape (n,)
        Photometry flags are added to it.
    share : numpy.ndarray of float64, shape (n,)
        Light in usable pixels of the disc by the light in all of it.
    """
    ny, nx = usable.shape
    middle = coefficients.shape[0] // 2
    for k in range(x.size):
        good = whole = 0.0
        for j in range(math.ceil(y[k] - radius[k]), math.floor(y[k] + radius[k]) + 1):
            for i in range(math.ceil(x[k] - radius[k]), math.floor(x[k] + radius[k]) + 1):
                if (i - x[k]) ** 2 + (j - y[k]) ** 2 > radius[k] ** 2:
                    continue
                light = coefficients[
                    middle + round((j - y[k]) * oversampling),
                    middle + round((i - x[k]) * oversampling),
                ]
                whole += light
                if not (0 <= i < nx and 0 <= j < ny):
                    bits[k] |= EDGE
                    continue
                if usable[j, i]:
                    good += light
                elif flags[j, i] & PIXEL_SATURATED:
                    bits[k] |= SATURATED
                elif flags[j, i] & PIXEL_OUTSIDE:
                    bits[k] |= EDGE
                else:
                    bits[k] |= BAD_PIXEL
        share[k] = good / whole


@njit(cache=True, nogil=True)
def fit_pieces(
    frame, model, noise, usable, inverse_gain, flat_noise, coefficients, oversampling, reach,
    members, starts, own, first, last, stars, centres, radius, free, largest_step, errors, steps,
):  # fmt: skip
    r"""Make one Gauss-Newton step of the stars of some pieces, all stars of a piece together.

    .. math:: (J^T W J) \, \Delta p = J^T W (D - M), \quad
              W^{-1} = \sigma_{sky}^2 + M / g + (f M)^2

    ``M`` holds the light of all stars of the frame, also of those outside of the piece, which stay
    as they are. The inverse of the matrix is the covariance.

    Parameters
    ----------
    frame, model, noise : numpy.ndarray of float32, shape (ny, nx)
        Frame without sky, light of all stars, scatter of a pixel of sky.
    usable : numpy.ndarray of uint8, shape (ny, nx)
        Not zero where a pixel counts.
    inverse_gain, flat_noise : float
        1 / g (0: photons are not counted) and f.
    coefficients, oversampling
        As for `add_stars`.
    reach : float
        Distance in pixels to which a star's slopes are counted.
    members : numpy.ndarray of int, shape (m,)
        Stars of all pieces, one piece after the other; of each its own first, then those near it,
        which are fitted along and not kept.
    starts : numpy.ndarray of int, shape (n_piece + 1,)
        Where in ``members`` each piece begins.
    own : numpy.ndarray of int, shape (n_piece,)
        How many stars of each are its own.
    first, last : int
        Pieces to work on.
    stars : numpy.ndarray of float64, shape (n, 3)
        x, y and flux as they are.
    centres : numpy.ndarray of float64, shape (n, 2)
        Middles of the discs whose pixels are fitted.
    radius : numpy.ndarray of float64, shape (n,)
        Radii of the discs.
    free : numpy.ndarray of bool, shape (n,)
        False where the position stays.
    largest_step : float
        A position moves no farther than this along each axis, in pixels.
    errors : numpy.ndarray of float64, shape (n, 4)
        Standard deviations of x, y, flux and the reduced chi-square are written here.
    steps : numpy.ndarray of float64, shape (n, 3)
        What to add to ``stars``.
    """
    ny, nx = frame.shape
    middle = coefficients.shape[0] // 2
    for piece in range(first, last):
        some = members[starts[piece] : starts[piece + 1]]
        n, n_own = some.size, own[piece]
        size = 3 * n
        matrix, right = np.zeros((size, size)), np.zeros(size)
        wx, wy, sx, sy = np.empty((n, 4)), np.empty((n, 4)), np.empty((n, 4)), np.empty((n, 4))
        column, row, chi2, count = np.empty(n), np.empty(n), np.zeros(n), np.zeros(n)
        # The splines start at pixel (0, 0), which may be far away: only the phase matters.
        left, right_side, top, bottom = nx, -1, ny, -1
        for m in range(n):
            k = some[m]
            column[m] = _weights(middle - stars[k, 0] * oversampling, wx[m], sx[m])
            row[m] = _weights(middle - stars[k, 1] * oversampling, wy[m], sy[m])
            left = min(left, max(0, math.ceil(centres[k, 0] - radius[k])))
            right_side = max(right_side, min(nx - 1, math.floor(centres[k, 0] + radius[k])))
            top = min(top, max(0, math.ceil(centres[k, 1] - radius[k])))
            bottom = max(bottom, min(ny - 1, math.floor(centres[k, 1] + radius[k])))
        near, slopes = np.empty(n, np.int64), np.empty(size)
        for j in range(top, bottom + 1):
            for i in range(left, right_side + 1):
                if not usable[j, i]:
                    continue
                n_near, inside = 0, False
                for m in range(n):
                    k = some[m]
                    if (i - stars[k, 0]) ** 2 + (j - stars[k, 1]) ** 2 <= reach * reach:
                        near[n_near] = m
                        n_near += 1
                    if (i - centres[k, 0]) ** 2 + (j - centres[k, 1]) ** 2 <= radius[k] ** 2:
                        inside = True
                if not inside:
                    continue
                light = max(model[j, i], 0.0)
                rest = frame[j, i] - model[j, i]
                weight = 1 / (noise[j, i] ** 2 + light * inverse_gain + (flat_noise * light) ** 2)
                for c in range(n_near):
                    m = near[c]
                    k = some[m]
                    a, b = int(column[m]) + i * oversampling, int(row[m]) + j * oversampling
                    value = by_x = by_y = 0.0
                    for q in range(4):
                        along = across = 0.0
                        for p in range(4):
                            along += wx[m, p] * coefficients[b + q, a + p]
                            across += sx[m, p] * coefficients[b + q, a + p]
                        value += wy[m, q] * along
                        by_x += wy[m, q] * across
                        by_y += sy[m, q] * along
                    push = -oversampling * stars[k, 2] if free[k] else 0.0
                    slopes[3 * c], slopes[3 * c + 1] = push * by_x, push * by_y
                    slopes[3 * c + 2] = value
                    if (i - centres[k, 0]) ** 2 + (j - centres[k, 1]) ** 2 <= radius[k] ** 2:
                        chi2[m] += rest * rest * weight
                        count[m] += 1
                for c in range(3 * n_near):
                    at = 3 * near[c // 3] + c % 3
                    share = weight * slopes[c]
                    right[at] += share * rest
                    for d in range(c + 1):
                        # Stars come in one order, so this is the lower triangle.
                        matrix[at, 3 * near[d // 3] + d % 3] += share * slopes[d]
        for m in range(n):
            for c in range(2):
                if not (free[some[m]] and matrix[3 * m + c, 3 * m + c] > 0):
                    matrix[3 * m + c, 3 * m + c], right[3 * m + c] = 1.0, 0.0
            if not matrix[3 * m + 2, 3 * m + 2] > 0:
                matrix[3 * m + 2, 3 * m + 2] = 1.0
        _invert(matrix)
        for m in range(n_own):
            k = some[m]
            for c in range(3):
                total = 0.0
                for d in range(size):
                    total += matrix[3 * m + c, d] * right[d]
                if c < 2:
                    total = min(max(total, -largest_step), largest_step)
                steps[k, c] = total
                errors[k, c] = math.sqrt(matrix[3 * m + c, 3 * m + c])
                if c < 2 and not free[k]:
                    errors[k, c] = 0.0
            errors[k, 3] = chi2[m] / max(count[m] - (3 if free[k] else 1), 1)


@njit(cache=True, nogil=True)
def _invert(matrix):
    """Replace a symmetric positive matrix, given by its lower triangle, by its inverse."""
    n = matrix.shape[0]
    for a in range(n):
        matrix[a, a] *= 1 + RIDGE
        # Cholesky: the lower triangle L of L L^T.
        for b in range(a):
            total = matrix[a, b]
            for c in range(b):
                total -= matrix[a, c] * matrix[b, c]
            matrix[a, b] = total / matrix[b, b]
        total = matrix[a, a]
        for c in range(a):
            total -= matrix[a, c] * matrix[a, c]
        matrix[a, a] = math.sqrt(max(total, RIDGE * matrix[a, a]))
    # The upper triangle takes the transpose of the inverse of L.
    diagonal = np.empty(n)
    for a in range(n):
        diagonal[a] = 1 / matrix[a, a]
        for b in range(a):
            total = matrix[a, b] * diagonal[b]
            for c in range(b + 1, a):
                total += matrix[a, c] * matrix[b, c]
            matrix[b, a] = -total * diagonal[a]
    for a in range(n):
        for b in range(a + 1):
            # Column a of the inverse of L begins at row a.
            total = diagonal[a] * (diagonal[a] if a == b else matrix[b, a])
            for c in range(a + 1, n):
                total += matrix[a, c] * matrix[b, c]
            matrix[a, b] = total
    for a in range(n):
        for b in range(a):
            matrix[b, a] = matrix[a, b]


@njit(cache=True, nogil=True)
def box_residuals(frame, model, noise, usable, inverse_gain, rows, columns, level, scatter, a):
    """Write the mean of frame - model, and its scatter without the stars', of a row of boxes.

    Parameters
    ----------
    frame, model, noise, usable, inverse_gain
        As for `fit_pieces`.
    rows, columns : numpy.ndarray of int
        Borders of the boxes.
    level, scatter : numpy.ndarray of float64, shape (n_y, n_x)
        Where the results are written; NaN where fewer than a tenth of the pixels count.
    a : int
        The row of boxes.
    """
    for b in range(columns.size - 1):
        mean = 0.0
        for _turn in range(3):
            total = square = 0.0
            n = 0
            for j in range(rows[a], rows[a + 1]):
                for i in range(columns[b], columns[b + 1]):
                    if not usable[j, i]:
                        continue
                    photons = max(model[j, i], 0.0) * inverse_gain
                    variance = noise[j, i] ** 2 + photons
                    rest = frame[j, i] - model[j, i] - mean
                    if rest * rest <= SKY_CLIP**2 * variance:
                        total += rest
                        square += rest * rest - photons
                        n += 1
            if 10 * n < (rows[a + 1] - rows[a]) * (columns[b + 1] - columns[b]):
                mean, square = math.nan, math.nan
                break
            square = square / n - (total / n) ** 2
            mean += total / n
        level[a, b] = mean
        scatter[a, b] = math.sqrt(square) if square > 0 else math.nan
