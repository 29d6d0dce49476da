"""The compiled sums under `datared.photometry`: circles cut exactly, sky from an annulus.

Each star's pixels are visited once, for all its radii.
"""

import math

import numpy as np
from numba import njit

from . import pixels

__all__ = ["sky_annuli", "sum_apertures"]

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

#: Pixel flags that say that the pixel's own value is not to be trusted.
BROKEN = 0xFFFF & ~(pixels.SATURATED | pixels.OUTSIDE)

#: The sky is clipped at this many standard deviations ...
CLIP = 3.0
#: ... which leaves a Gaussian with this share of its standard deviation.
CLIPPED_WIDTH = math.sqrt(
    1 - 2 * CLIP * math.exp(-(CLIP**2) / 2) / math.sqrt(2 * math.pi) / math.erf(CLIP / math.sqrt(2))
)

#: Fewer good pixels than this give no sky.
MIN_SKY_PIXELS = 8


@njit(cache=True)
def _corner(x, y, r):
    """Area of a disc around the origin that lies left of ``x`` and below ``y``."""
    x, y = min(max(x, -r), r), min(max(y, -r), r)
    half_x = 0.5 * (x * math.sqrt(r * r - x * x) + r * r * math.asin(x / r))
    half_y = 0.5 * (y * math.sqrt(r * r - y * y) + r * r * math.asin(y / r))
    quarter = 0.25 * math.pi * r * r
    if x * x + y * y < r * r:
        return quarter + x * y + half_x + half_y
    if x >= 0 and y >= 0:
        return 2 * (half_x + half_y)
    if x < 0 and y < 0:
        return 0.0
    return 2 * quarter + 2 * (half_x if x < 0 else half_y)


@njit(cache=True)
def _overlap(dx, dy, r):
    """Share of the pixel at an offset from the centre of a circle that lies inside it."""
    ax, ay = abs(dx), abs(dy)
    far = (ax + 0.5) ** 2 + (ay + 0.5) ** 2
    if far <= r * r:
        return 1.0
    near = max(ax - 0.5, 0.0) ** 2 + max(ay - 0.5, 0.0) ** 2
    if near >= r * r:
        return 0.0
    share = (
        _corner(ax + 0.5, ay + 0.5, r)
        - _corner(ax - 0.5, ay + 0.5, r)
        - _corner(ax + 0.5, ay - 0.5, r)
        + _corner(ax - 0.5, ay - 0.5, r)
    )
    return max(share, 0.0)


@njit(cache=True)
def sum_apertures(data, flags, x, y, radii, keep):
    """Sum, area and flags of every star and radius, in one pass over the pixels of each star.

    Parameters
    ----------
    data : numpy.ndarray of float, shape (ny, nx)
        The frame.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Bits of `datared.pixels`.
    x, y : numpy.ndarray of float, shape (n,)
        Positions in pixels.
    radii : numpy.ndarray of float, shape (nr,)
        Radii in pixels.
    keep : bool
        Keep the sum of an aperture that crosses the edge.

    Returns
    -------
    tuple of numpy.ndarray, each of shape (n, nr)
        Sum and area in pixels (NaN where they cannot be had); the same two with every pixel's share
        squared, which is how its noise counts; flags.
    """
    ny, nx = data.shape
    total = np.full((x.size, radii.size), np.nan)
    area = np.full((x.size, radii.size), np.nan)
    total2, area2 = np.zeros((x.size, radii.size)), np.zeros((x.size, radii.size))
    bits = np.zeros((x.size, radii.size), np.int32)
    reach = radii.max()
    for k in range(x.size):
        if not (math.isfinite(x[k]) and math.isfinite(y[k])):
            bits[k] = NO_POSITION
            continue
        if not (-0.5 <= x[k] <= nx - 0.5 and -0.5 <= y[k] <= ny - 0.5):
            bits[k] = OUTSIDE
            continue
        total[k] = 0.0
        area[k] = 0.0
        for j in range(max(0, int(y[k] - reach)), min(ny, int(y[k] + reach) + 2)):
            for i in range(max(0, int(x[k] - reach)), min(nx, int(x[k] + reach) + 2)):
                dx, dy = i - x[k], j - y[k]
                value, flag = float(data[j, i]), flags[j, i]
                for p in range(radii.size):
                    share = _overlap(dx, dy, radii[p])
                    if share <= 0.0:
                        continue
                    total[k, p] += share * value
                    area[k, p] += share
                    total2[k, p] += share * share * value
                    area2[k, p] += share * share
                    if flag & pixels.SATURATED:
                        bits[k, p] |= SATURATED
                    if flag & pixels.OUTSIDE:
                        bits[k, p] |= EDGE
                    if flag & BROKEN or not math.isfinite(value):
                        bits[k, p] |= BAD_PIXEL
        for p in range(radii.size):
            r = radii[p]
            if x[k] - r < -0.5 or y[k] - r < -0.5 or x[k] + r > nx - 0.5 or y[k] + r > ny - 0.5:
                bits[k, p] |= EDGE
            if (bits[k, p] & EDGE and not keep) or not math.isfinite(total[k, p]):
                total[k, p] = math.nan
                area[k, p] = math.nan
    return total, area, total2, area2, bits


def sky_annuli(data, flags, x, y, inner, outer, background):
    """Sky around every star, from the pixels that are neither flagged nor without a value.

    Parameters
    ----------
    data, flags, x, y
        As in `sum_apertures`.
    inner, outer : float
        Radii of the annulus in pixels.
    background : str
        See `datared.photometry.aperture_photometry`.

    Returns
    -------
    tuple of numpy.ndarray, each of shape (n,)
        Level of one pixel, its error, scatter of one pixel, number of pixels used, and the share
        of the annulus that is on the frame and good.
    """
    literal = background == "annulus-mean"
    level, std, n_sky, share = _annuli(data, flags, x, y, inner, outer, literal)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = std * np.sqrt((1.0 if literal else math.pi / 2) / n_sky)
    if background == "none":
        found = np.isfinite(std)
        level, error = np.where(found, 0.0, np.nan), np.where(found, 0.0, np.nan)
    return level, error, std, n_sky, share


@njit(cache=True)
def _annuli(data, flags, x, y, inner, outer, literal):
    """Level, scatter, number of pixels and share of good area of every star."""
    ny, nx = data.shape
    level, std = np.full(x.size, np.nan), np.full(x.size, np.nan)
    n_sky, share = np.zeros(x.size), np.zeros(x.size)
    size = int(2 * outer) + 4
    values, weights = np.empty(size * size), np.empty(size * size)
    full = math.pi * (outer * outer - inner * inner)
    for k in range(x.size):
        if not (math.isfinite(x[k]) and math.isfinite(y[k])):
            continue
        if not (-0.5 <= x[k] <= nx - 0.5 and -0.5 <= y[k] <= ny - 0.5):
            continue
        n, good = 0, 0.0
        for j in range(max(0, int(y[k] - outer)), min(ny, int(y[k] + outer) + 2)):
            for i in range(max(0, int(x[k] - outer)), min(nx, int(x[k] + outer) + 2)):
                dx, dy = i - x[k], j - y[k]
                if literal:
                    weight = _overlap(dx, dy, outer) - (
                        _overlap(dx, dy, inner) if inner > 0 else 0.0
                    )
                else:
                    r2 = dx * dx + dy * dy
                    weight = 1.0 if inner * inner <= r2 < outer * outer else 0.0
                value = float(data[j, i])
                if weight > 0 and flags[j, i] == 0 and math.isfinite(value):
                    values[n], weights[n] = value, weight
                    n += 1
                    good += weight
        share[k] = good / full
        if n < MIN_SKY_PIXELS:
            n_sky[k] = good
            continue
        if literal:
            level[k] = np.sum(values[:n] * weights[:n]) / good
            std[k] = math.sqrt(np.sum(weights[:n] * (values[:n] - level[k]) ** 2) / good)
            n_sky[k] = good
        else:
            level[k], std[k], n_sky[k] = _clipped(np.sort(values[:n]))
    return level, std, n_sky, share


@njit(cache=True)
def _clipped(values):
    """Median, standard deviation and number of sorted values after clipping by median and MAD."""
    low, high = 0, values.size
    width = 0.0
    while True:
        n = high - low
        middle = 0.5 * (values[low + (n - 1) // 2] + values[low + n // 2])
        away = np.abs(values[low:high] - middle)
        width = 1.4826 * np.median(away)
        if width == 0.0:
            # More than half of the values are the same, as in coarsely digitised sky.
            width = 1.2533 * np.mean(away)
        first = np.searchsorted(values[low:high], middle - CLIP * width)
        last = np.searchsorted(values[low:high], middle + CLIP * width, side="right")
        if width == 0.0 or last - first == n or last - first < MIN_SKY_PIXELS:
            break
        low, high = low + first, low + last
    kept = values[low:high]
    mean = np.mean(kept)
    std = math.sqrt(np.mean((kept - mean) ** 2) * kept.size / max(kept.size - 1, 1))
    return _tied_median(kept), std / CLIPPED_WIDTH, float(kept.size)


@njit(cache=True)
def _tied_median(values):
    """Median of sorted values; among equal whole counts, where in their step it falls.

    The median of whole counts moves in steps of one count, which is more than its error where the
    sky is faint. Equal values are spread evenly over their step (the median of grouped data).
    """
    n = values.size
    middle = 0.5 * (values[(n - 1) // 2] + values[n // 2])
    first = np.searchsorted(values, middle)
    last = np.searchsorted(values, middle, side="right")
    if last - first < 2 or first == 0 or last == n:
        return middle
    step = min(middle - values[first - 1], values[last] - middle)
    return middle + step * ((0.5 * n - first) / (last - first) - 0.5)
