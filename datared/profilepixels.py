"""Profile pixels: which pixels of a frame count for the fit of one star (compiled)."""

import math

import numpy as np
from numba import njit

from datared.profiles import (
    BASE,
    COLUMN,
    INNER,
    MODEL,
    N_ROWS,
    REST,
    ROW,
    SKY,
    VALUE,
    WEIGHT,
    X,
    Y,
)

__all__ = ["drop_neighbours", "gather", "has_core", "reject"]


@njit(**INNER)
def gather(data, skip, noise, x, y, radius, square, rows):
    """Copy the good pixels around a position into the work space; count them.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        The frame.
    skip : numpy.ndarray, shape (ny, nx) or (1, 1)
        Pixels that are not used where it is not zero; of shape (1, 1) none.
    noise : numpy.ndarray of float64, shape (ny, nx) or (1, 1)
        Standard deviation of each pixel, or one for all.
    x, y : float
        Position in pixels.
    radius : float
        The box is the square of this many pixels to each side of the pixel with the star.
    square : bool
        False: only the pixels within ``radius`` of the position.
    rows : numpy.ndarray of float64, shape (15, n_max)
        The work space.

    Returns
    -------
    int
        Number of pixels.
    """
    ny, nx = data.shape
    n = 0
    # Positions that are no numbers end here too, and those too large for a whole number.
    if not (-radius - 1 < x < nx + radius and -radius - 1 < y < ny + radius):
        return n
    i0, j0, reach = round(x), round(y), int(radius)
    for j in range(max(0, j0 - reach), min(ny, j0 + reach + 1)):
        for i in range(max(0, i0 - reach), min(nx, i0 + reach + 1)):
            if not square and (i - x) ** 2 + (j - y) ** 2 > radius * radius:
                continue
            if skip.size > 1 and skip[j, i]:
                continue
            # The square of a small float32 would be zero.
            sigma = np.float64(noise[j, i] if noise.size > 1 else noise[0, 0])
            if math.isfinite(data[j, i]) and sigma > 0 and sigma < math.inf and n < rows.shape[1]:
                rows[VALUE, n] = data[j, i]
                rows[BASE, n] = sigma * sigma
                rows[WEIGHT, n] = 1 / (sigma * sigma)
                rows[COLUMN, n] = i
                rows[ROW, n] = j
                n += 1
    return n


@njit(**INNER)
def has_core(rows, n, x, y, radius):
    """Tell whether at least half of the pixels within a radius around a position are there."""
    there = every = 0
    for p in range(n):
        if (rows[COLUMN, p] - x) ** 2 + (rows[ROW, p] - y) ** 2 <= radius * radius:
            there += 1
    for j in range(int(y - radius) - 1, int(y + radius) + 2):
        for i in range(int(x - radius) - 1, int(x + radius) + 2):
            if (i - x) ** 2 + (j - y) ** 2 <= radius * radius:
                every += 1
    return 2 * there >= every


@njit(**INNER)
def drop_neighbours(rows, n, x, y, radius, fwhm, data, skip, values):
    """Drop pixels that are brighter than those opposite to them; count those that stay.

    Parameters
    ----------
    rows, n
        As for `draw`.
    x, y, radius, fwhm : float
        Position of the star, radius of the box and width of the star in pixels.
    data, skip
        As for `gather`.
    values : numpy.ndarray of float64, shape (n_max,)
        Work space.

    Returns
    -------
    int
        Number of pixels; they are the first of ``rows``. 0 where too few tell the sky.
    """
    ny, nx = data.shape
    m = 0
    for p in range(n):
        if math.hypot(rows[COLUMN, p] - x, rows[ROW, p] - y) > 0.6 * radius:
            values[m] = rows[VALUE, p]
            m += 1
    if m < 8:
        return 0
    # The part below the median is that without stars. Its mean square is taken, not a percentile:
    # that is zero for coarse digits, and each pixel one digit above its opposite a neighbour.
    middle, below = _smallest(values[:m], m // 2), 0.0
    for p in range(m):
        below += min(values[p] - middle, 0.0) ** 2
    sigma = math.sqrt(2 * below / m)
    kept = 0
    for p in range(n):
        i, j, value = rows[COLUMN, p], rows[ROW, p], rows[VALUE, p]
        if math.hypot(i - x, j - y) > 1.25 * fwhm:
            io, jo = round(2 * x - i), round(2 * y - j)
            if 0 <= io < nx and 0 <= jo < ny and not (skip.size > 1 and skip[jo, io]):
                more = value - data[jo, io]
                if more > 5.5 * sigma and more > 0.5 * (value - middle):
                    continue
        if kept < p:
            for a in range(N_ROWS):
                rows[a, kept] = rows[a, p]
        kept += 1
    return kept


@njit(**INNER)
def _smallest(values, k):
    """Find the value with ``k`` smaller ones; the values change their places."""
    low, high = 0, values.size - 1
    while low < high:
        pivot, i, j = values[(low + high) // 2], low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                held = values[i]
                values[i] = values[j]
                values[j] = held
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@njit(**INNER)
def reject(rows, n, star, inner, sigma, kappa, tolerance, data, skip):
    """Drop pixels that lie off the model, far from the star; count those that stay.

    Pixels above the model go where the light is a neighbour's: wings that the model lacks are
    there on the other side of the star too, and stay. Beyond twice ``inner``, on the sky, pixels
    below the model go too, so that its level is not moved.

    Parameters
    ----------
    rows, n, star
        As for `draw`; the row of residuals is looked at.
    inner : float
        Distance from the star in pixels up to which all pixels stay.
    sigma : float
        Standard deviation of the residuals.
    kappa : float
        Limit in standard deviations.
    tolerance : float
        Part of the star's own light that the model may be off besides.
    data, skip
        As for `gather`.

    Returns
    -------
    int
        Number of pixels; they are the first of ``rows``.
    """
    ny, nx = data.shape
    kept = 0
    for p in range(n):
        rest = rows[REST, p]
        far = math.hypot(rows[COLUMN, p] - star[X], rows[ROW, p] - star[Y])
        limit = kappa * math.hypot(sigma, tolerance * rows[MODEL, p])
        if far > inner and rest > limit:
            io, jo = round(2 * star[X] - rows[COLUMN, p]), round(2 * star[Y] - rows[ROW, p])
            excess = rows[VALUE, p] - star[SKY] - rows[MODEL, p]
            inside = 0 <= io < nx and 0 <= jo < ny and not (skip.size > 1 and skip[jo, io])
            if not inside or not rows[VALUE, p] - data[jo, io] < 0.5 * excess:
                continue
        elif far > 2 * inner and rest < -limit:
            continue
        if kept < p:
            for a in range(N_ROWS):
                rows[a, kept] = rows[a, p]
        kept += 1
    return kept
