"""Inside `resampling`: the compiled loops over pixels."""

import functools

import numpy as np
from numba import njit

from .pixels import NONFINITE, OUTSIDE, REPAIRED

__all__ = [
    "bilinear_rows",
    "fill_bad",
    "flags_around",
    "lanczos_rows",
    "lanczos_table",
    "place_rows",
]

#: Entries of the table of weights for one pixel.
ENTRIES = 2048
#: Flags are uint16; all but these two bits (saturated, repaired) make a pixel useless.
USELESS = np.uint16(0xFFFF & ~(1 | 256))
#: A value is given where useless pixels have at most this share of the bilinear weights.
SHARE = 0.1
#: Not isfinite: it is x - x == x - x, and fast mathematics take x - x for 0, also that of NaN.
_LARGEST = np.float32(3.4e38)
_FAST = {"contract", "reassoc", "nsz", "arcp"}
#: Unsigned numbers as indices: for signed ones the compiler adds a test whether they are negative.
_ONE, _TWO, _THREE, _FOUR, _FIVE, _SIX, _EIGHT = (np.uint64(n) for n in (1, 2, 3, 4, 5, 6, 8))


@functools.cache
def lanczos_table():
    r"""Weights of Lanczos-3 for the six pixels around a place, at many fractions of a pixel.

    .. math:: w(d) = \frac{\sin \pi d}{\pi d} \frac{\sin (\pi d / 3)}{\pi d / 3}, \quad |d| < 3

    divided by their sum, so that a level stays what it is (Duchon 1979, J. Appl. Meteor. 18, 1016).

    Returns
    -------
    numpy.ndarray of float32, shape (2049, 8)
        Row k: weights of the pixels -2 to 3 for the fraction k / 2048; then the sum of their
        squares, and 0.
    """
    fraction = np.arange(ENTRIES + 1)[:, None] / ENTRIES
    distance = fraction - np.arange(-2, 4)
    weights = np.sinc(distance) * np.sinc(distance / 3) * (np.abs(distance) < 3)
    weights /= weights.sum(axis=1, keepdims=True)
    table = np.zeros((ENTRIES + 1, 8), np.float32)
    table[:, :6] = weights
    table[:, 6] = (weights**2).sum(axis=1)
    return table


@njit(cache=True, nogil=True, error_model="numpy")
def place_rows(node_x, node_y, step, row, column, xs, ys, areas):
    """Write places in the frame and areas for the pixels of a grid from a row and a column on."""
    scratch = _scratch(node_x, step)
    for j in range(xs.shape[0]):
        _place_row(node_x, node_y, step, row + j, column, scratch, xs[j], ys[j], areas[j])


@njit(cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _scratch(node_x, step):
    """Room for four rows of nodes, and how far the pixels of a cell are from its first node."""
    scratch = np.empty((5, max(node_x.shape[1], step)))
    for k in range(step):
        scratch[4, k] = k / step
    return scratch


@njit(cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _place_row(node_x, node_y, step, row, column, scratch, xs, ys, areas):
    """Fill one row: cubic polynomials, first across the rows of nodes, then along the row."""
    b = row // step
    v = row / step - b
    # Weights of four nodes at -1, 0, 1, 2, and their slopes.
    w0, w1 = -v * (v - 1) * (v - 2) / 6, (v + 1) * (v - 1) * (v - 2) / 2
    w2, w3 = -v * (v + 1) * (v - 2) / 2, v * (v + 1) * (v - 1) / 6
    s0, s1 = -(3 * v * v - 6 * v + 2) / 6, (3 * v * v - 4 * v - 1) / 2
    s2, s3 = -(3 * v * v - 2 * v - 2) / 2, (3 * v * v - 1) / 6
    gx, gy, hx, hy = scratch[0], scratch[1], scratch[2], scratch[3]
    for a in range(node_x.shape[1]):
        x0, x1, x2, x3 = node_x[b, a], node_x[b + 1, a], node_x[b + 2, a], node_x[b + 3, a]
        y0, y1, y2, y3 = node_y[b, a], node_y[b + 1, a], node_y[b + 2, a], node_y[b + 3, a]
        gx[a], gy[a] = w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3, w0 * y0 + w1 * y1 + w2 * y2 + w3 * y3
        hx[a], hy[a] = s0 * x0 + s1 * x1 + s2 * x2 + s3 * x3, s0 * y0 + s1 * y1 + s2 * y2 + s3 * y3
    last = column + xs.size
    for a in range(column // step, (last - 1) // step + 1):
        x0, x1, x2, x3 = _cubic(gx, a)
        y0, y1, y2, y3 = _cubic(gy, a)
        u0, u1, u2, u3 = _cubic(hx, a)
        v0, v1, v2, v3 = _cubic(hy, a)
        # The area is a parabola through those at the two ends and in the middle.
        a0 = abs(x1 * v0 - y1 * u0)
        a1 = abs(
            (x1 + x2 + 0.75 * x3) * (v0 + 0.5 * v1 + 0.25 * v2 + 0.125 * v3)
            - (y1 + y2 + 0.75 * y3) * (u0 + 0.5 * u1 + 0.25 * u2 + 0.125 * u3)
        )
        a2 = abs(
            (x1 + 2 * x2 + 3 * x3) * (v0 + v1 + v2 + v3)
            - (y1 + 2 * y2 + 3 * y3) * (u0 + u1 + u2 + u3)
        )
        unit = 1.0 / (step * step)
        b0, b1, b2 = (
            np.float32(unit * a0),
            np.float32(unit * (4 * a1 - 3 * a0 - a2)),
            np.float32(unit * (2 * a0 - 4 * a1 + 2 * a2)),
        )
        first, end = max(column, a * step), min(last, (a + 1) * step)
        times = scratch[4, first - a * step : end - a * step]
        px, py = xs[first - column : end - column], ys[first - column : end - column]
        area = areas[first - column : end - column]
        for i in range(times.size):
            t = times[i]
            px[i] = x0 + t * (x1 + t * (x2 + t * x3))
        for i in range(times.size):
            t = times[i]
            py[i] = y0 + t * (y1 + t * (y2 + t * y3))
        for i in range(times.size):
            s = np.float32(times[i])
            area[i] = b0 + s * (b1 + s * b2)


@njit(cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _cubic(g, a):
    """Coefficients of the cubic through the nodes a to a + 3, which lie at -1, 0, 1, 2."""
    g0, g1, g2, g3 = g[a], g[a + 1], g[a + 2], g[a + 3]
    return (
        g1,
        g2 - g0 / 3 - g1 / 2 - g3 / 6,
        (g0 + g2) / 2 - g1,
        (g3 - g0) / 6 + (g1 - g2) / 2,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def fill_bad(data, flags):
    """Replace useless pixels by what the good ones beside them say; NaN where those are bad, too.

    Along the row and along the column a cubic goes through the two neighbours on both sides, or a
    line through one on both sides; the mean of both directions is taken, that of cubics first.
    """
    ny, nx = data.shape
    for j in range(ny):
        for i in range(nx):
            if flags[j, i] & USELESS == 0:
                continue
            data[j, i] = np.nan
            cubic, n_cubic, line, n_line = 0.0, 0, 0.0, 0
            for axis in range(2):
                dj, di = axis, 1 - axis
                if not (0 <= j - dj and j + dj < ny and 0 <= i - di and i + di < nx):
                    continue
                if (flags[j - dj, i - di] | flags[j + dj, i + di]) & USELESS:
                    continue
                near = (data[j - dj, i - di] + data[j + dj, i + di]) / 2
                line += near
                n_line += 1
                if not (0 <= j - 2 * dj and j + 2 * dj < ny and 0 <= i - 2 * di < nx - 4 * di):
                    continue
                if (flags[j - 2 * dj, i - 2 * di] | flags[j + 2 * dj, i + 2 * di]) & USELESS:
                    continue
                far = (data[j - 2 * dj, i - 2 * di] + data[j + 2 * dj, i + 2 * di]) / 2
                cubic += (4 * near - far) / 3
                n_cubic += 1
            if n_cubic:
                data[j, i] = cubic / n_cubic
            elif n_line:
                data[j, i] = line / n_line


@njit(cache=True, nogil=True)
def flags_around(flags, around):
    """Write the flags of a pixel together with those of its neighbours to the right and below."""
    ny, nx = flags.shape
    for j in range(ny):
        here, below, joined = flags[j], flags[min(j + 1, ny - 1)], around[j]
        for i in range(nx - 1):
            joined[i] = here[i] | here[i + 1] | below[i] | below[i + 1]
        joined[nx - 1] = here[nx - 1] | below[nx - 1]


@njit(cache=True, nogil=True, error_model="numpy")
def bilinear_rows(part, place, square, results):
    """Fill a part of the grid with the weighted means of the four nearest pixels.

    ``part`` has data and flags of a part of a frame, those of `flags_around`, first row and column
    of the part, and shape of the frame; ``place`` the nodes of the grid, their step, and row and
    column of the grid; ``results`` data, factors and flags to fill. With ``square`` the weights are
    squared, for variances.
    """
    data, flags, around, box, shape = part
    node_x, node_y, step, row, column = place
    out, factor, bits = results
    scratch = _scratch(node_x, step)
    xs, ys = np.empty(out.shape[1]), np.empty(out.shape[1])
    areas = np.empty(out.shape[1], np.float32)
    pixels, ors = data.ravel(), around.ravel()
    width = np.uint64(data.shape[1])
    low_x, high_x = float(box[1]), box[1] + data.shape[1] - 1.0
    low_y, high_y = float(box[0]), box[0] + data.shape[0] - 1.0
    for j in range(out.shape[0]):
        _place_row(node_x, node_y, step, row + j, column, scratch, xs, ys, areas)
        values, factors, faults = out[j], factor[j], bits[j]
        for i in range(xs.size):
            x, y, area = xs[i], ys[i], areas[i]
            if low_x <= x < high_x and low_y <= y < high_y and not square:
                p, q = int(x), int(y)
                k = np.uint64(q - box[0]) * width + np.uint64(p - box[1])
                if ors[k] == 0:
                    u, v = np.float32(x - p), np.float32(y - q)
                    ku, kv = np.float32(1) - u, np.float32(1) - v
                    top = ku * pixels[k] + u * pixels[k + _ONE]
                    k += width
                    values[i] = area * (kv * top + v * (ku * pixels[k] + u * pixels[k + _ONE]))
                    factors[i] = area * area * (ku * ku + u * u) * (kv * kv + v * v)
                    faults[i] = 0
                    continue
            if not (-0.5 <= x <= shape[1] - 0.5 and -0.5 <= y <= shape[0] - 0.5):
                values[i], factors[i], faults[i] = np.nan, 0, OUTSIDE
                continue
            value, spread, bit = _four(data, flags, box, shape, x, y, square, 0.0)
            scale = area * area if square else area
            values[i], factors[i], faults[i] = scale * value, area * area * spread, bit


@njit(cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _four(data, flags, box, shape, x, y, square, most):
    """Weighted mean of the four nearest pixels, sum of squared weights, and flags.

    NaN where useless pixels have more than the share ``most`` of the weights; `REPAIRED` where they
    have a part of it.
    """
    # Places outside the part of the frame do not occur; the memory beyond it must not be read.
    last_b, last_a = data.shape[0] - 1, data.shape[1] - 1
    bit = flags[
        min(max(int(y + 0.5) - box[0], 0), last_b), min(max(int(x + 0.5) - box[1], 0), last_a)
    ]
    # In the outer half pixel the border is repeated.
    x, y = min(max(x, 0.0), shape[1] - 1.0), min(max(y, 0.0), shape[0] - 1.0)
    p, q = min(int(x), max(shape[1] - 2, 0)), min(int(y), max(shape[0] - 2, 0))
    fx, fy = x - p, y - q
    total = weights = squares = 0.0
    around = np.uint16(0)
    for n in range(2):
        for m in range(2):
            weight = (fx if m else 1 - fx) * (fy if n else 1 - fy)
            if weight <= 0:
                continue
            b, a = min(max(q + n - box[0], 0), last_b), min(max(p + m - box[1], 0), last_a)
            if flags[b, a] & USELESS:
                around |= flags[b, a]
                continue
            total += (weight * weight if square else weight) * data[b, a]
            weights += weight
            squares += weight * weight
    if 1 - weights > most + 1e-6:
        bit |= around
        if bit & USELESS == 0:
            bit |= np.uint16(NONFINITE)
        return np.nan, 0.0, bit
    if around:
        bit |= np.uint16(REPAIRED)
    return total / (weights * weights if square else weights), squares / (weights * weights), bit


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)
def lanczos_rows(part, place, table, square, results):
    """Fill a part of the grid with the weighted means of the 6 x 6 nearest pixels.

    As `bilinear_rows`; the data have been through `fill_bad`, and ``table`` is `lanczos_table`, or
    its squares for variances.
    """
    data, flags, around, box, shape = part
    node_x, node_y, step, row, column = place
    out, factor, bits = results
    scratch = _scratch(node_x, step)
    xs, ys = np.empty(out.shape[1]), np.empty(out.shape[1])
    areas = np.empty(out.shape[1], np.float32)
    pixels, ors, weights = data.ravel(), around.ravel(), table.ravel()
    width = np.uint64(data.shape[1])
    low_x, high_x = box[1] + 2.0, box[1] + data.shape[1] - 3.0
    low_y, high_y = box[0] + 2.0, box[0] + data.shape[0] - 3.0
    for j in range(out.shape[0]):
        _place_row(node_x, node_y, step, row + j, column, scratch, xs, ys, areas)
        values, factors, faults = out[j], factor[j], bits[j]
        for i in range(xs.size):
            x, y, area = xs[i], ys[i], areas[i]
            scale = area * area if square else area
            if low_x <= x < high_x and low_y <= y < high_y:
                p, q = int(x), int(y)
                a, b = np.uint64(p - box[1]), np.uint64(q - box[0])
                near = ors[b * width + a]
                if near & USELESS == 0:
                    k = (b - _TWO) * width + (a - _TWO)
                    u = np.uint64(int((x - p) * ENTRIES + 0.5)) * _EIGHT
                    v = np.uint64(int((y - q) * ENTRIES + 0.5)) * _EIGHT
                    total = weights[v] * _six(pixels, k, weights, u)
                    total += weights[v + _ONE] * _six(pixels, k + width, weights, u)
                    k += width + width
                    total += weights[v + _TWO] * _six(pixels, k, weights, u)
                    total += weights[v + _THREE] * _six(pixels, k + width, weights, u)
                    k += width + width
                    total += weights[v + _FOUR] * _six(pixels, k, weights, u)
                    total += weights[v + _FIVE] * _six(pixels, k + width, weights, u)
                    if abs(total) <= _LARGEST:
                        values[i] = scale * total
                        factors[i] = area * area * weights[u + _SIX] * weights[v + _SIX]
                        faults[i] = near
                        if near:
                            faults[i] = flags[int(y + 0.5) - box[0], int(x + 0.5) - box[1]]
                        continue
            if not (-0.5 <= x <= shape[1] - 0.5 and -0.5 <= y <= shape[0] - 0.5):
                values[i], factors[i], faults[i] = np.nan, 0, OUTSIDE
                continue
            value, spread, bit = _four(data, flags, box, shape, x, y, square, SHARE)
            if abs(value) <= _LARGEST:
                # Enough of the nearest pixels are good. Beyond the border of the frame its last
                # pixels are repeated.
                p, q = int(x + 1) - 1, int(y + 1) - 1
                wx, wy = table[int((x - p) * ENTRIES + 0.5)], table[int((y - q) * ENTRIES + 0.5)]
                total = np.float32(0)
                for n in range(6):
                    b = min(max(q - 2 + n - box[0], 0), data.shape[0] - 1)
                    for m in range(6):
                        a = min(max(p - 2 + m - box[1], 0), data.shape[1] - 1)
                        total += wy[n] * wx[m] * data[b, a]
                if abs(total) <= _LARGEST:
                    value, spread = total, wx[6] * wy[6]
            values[i], factors[i], faults[i] = scale * value, area * area * spread, bit


@njit(cache=True, nogil=True, fastmath=_FAST, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _six(pixels, k, weights, u):
    """Sum of six pixels from number k on, times the weights from number u on."""
    return (
        weights[u] * pixels[k]
        + weights[u + _ONE] * pixels[k + _ONE]
        + weights[u + _TWO] * pixels[k + _TWO]
        + weights[u + _THREE] * pixels[k + _THREE]
        + weights[u + _FOUR] * pixels[k + _FOUR]
        + weights[u + _FIVE] * pixels[k + _FIVE]
    )
