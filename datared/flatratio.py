"""Compare two flats: where, by how much and how surely they differ."""

import math
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from scipy import ndimage

from .errors import FrameError
from .maps import local_level

__all__ = ["FlatRatio", "compare_flats"]

#: Side (px) of the boxes in which the noise is measured.
BOX = 32
#: Relative noise that is believed at least: numbers of 32 bits are rounded to that.
LEAST_NOISE = 1e-7
#: A pixel is broken, or a spot is real, from so many deviations on.
NSIGMA = 5.0
#: Least width (sigma, px) of the smoothing, and the side of the boxes of what is large, in widths.
LEAST_WIDTH, LARGE = 2.0, 16
#: Width (sigma, px) up to which a Gaussian is not split into blocks and a narrower one.
NARROW = 5.0
#: Least number of pixels that tell a region or a spot.
LEAST_PIXELS = 9


@dataclass(frozen=True, eq=False)
class FlatRatio:
    """Ratio of two flats, with mean 1.

    Attributes
    ----------
    ratio : numpy.ndarray of float32, shape (ny, nx)
        First over second flat; NaN where a pixel is bad.
    smoothed, error : numpy.ndarray of float32, shape (ny, nx)
        The ratio smoothed by a Gaussian, and the standard deviation of that.
    regions : astropy.table.Table
        One row for each region of a grid: ``row`` and ``column`` (from the lower left), ``x``,
        ``y`` (its middle, px), ``n`` (good pixels), ``ratio``, ``error`` and ``significance``,
        which is ``(ratio - 1) / error``.
    spots : astropy.table.Table
        Small places where the smoothed ratio differs from what is around, the surest first: ``x``
        and ``y`` (px), ``pixels`` (area), ``change`` (largest, relative) and ``significance``.
    level : float
        Mean ratio before it was made 1: sum of the first flat over sum of the second.
    noise : float
        Typical relative noise of the ratio in one pixel.
    chi2 : float
        Chi squared of the regions per degree of freedom: near 1 where the flats agree.
    smooth : float
        Width (sigma) of the Gaussian in px.
    binned : tuple of int
        Pixels along y and x of the finer flat that were averaged into one.
    """

    ratio: np.ndarray
    smoothed: np.ndarray
    error: np.ndarray
    regions: Table
    spots: Table
    level: float
    noise: float
    chi2: float
    smooth: float
    binned: tuple[int, int]


def compare_flats(first, second, *, smooth=None, regions=(3, 3)):
    r"""Compare two flats, such as dome and twilight, or before and after the camera was opened.

    The pixels' own response cancels in the ratio :math:`q`, which is divided by its mean, so the
    flats may have any levels. Its noise :math:`\sigma` is what scatters around the level of boxes
    of 32 pixels. All means have the second flat :math:`w` as weight: they are ratios of sums, which
    the noise of single pixels does not make larger where there is little light. In region
    :math:`i`, with :math:`W` the sum of :math:`w`, the variance is

    .. math:: v_i \left(1 - \frac{W_i}{W}\right)^2 + \sum_{j \ne i} \frac{W_j^2}{W^2} v_j,
              \qquad v_i = \sum w^2 \sigma^2 / W_i^2

    because the overall mean, which is 1, has the noise of all regions.

    Parameters
    ----------
    first, second : array-like of shape (ny, nx) or astropy.nddata.CCDData
        Flats without bias and dark current, single or masters, of one filter. Flagged and masked
        pixels, and those not above 0, are left out. Where one is binned more coarsely, the other
        is averaged to the same pixels, without any that has a bad part.
    smooth : float, optional
        Width (sigma) of the Gaussian of the map in px; 1 % of the longer side by default.
    regions : (int, int)
        Number of regions along y and x.

    Returns
    -------
    FlatRatio
        The maps and tables.

    Raises
    ------
    FrameError
        If the flats show different parts of the sensor, or have no good pixel in common.
    ValueError
        If the width or the number of regions is not valid.

    Notes
    -----
    Errors hold for noise that differs from pixel to pixel. Noise of whole rows (of the read-out)
    or of the twilight's stars makes more.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> pixels = rng.normal(1, 0.02, (120, 160))
    >>> dome, sky = (rng.normal(level * pixels, 100) for level in (20000, 9000))
    >>> dome[40:52, 100:112] *= 0.97
    >>> found = compare_flats(dome, sky)
    >>> [round(float(found.spots[name][0])) for name in ("x", "y")], len(found.spots)
    ([106, 45], 1)
    """
    images, binned = _matched(_values(first), _values(second))
    _check_binning(first, second, binned)
    shape = images[0].shape
    if np.shape(regions) != (2,) or not all(
        1 <= n <= s for n, s in zip(regions, shape, strict=True)
    ):
        raise ValueError(f"regions = {regions}: give two numbers from 1 on, such as (3, 3).")
    smooth = max(0.01 * max(shape), LEAST_WIDTH) if smooth is None else float(smooth)
    if not 0 < smooth < math.inf:
        raise ValueError(f"smooth = {smooth} px is not a positive width.")
    with np.errstate(invalid="ignore", divide="ignore"):
        good = (images[0] > 0) & (images[1] > 0)
        ratio = np.where(good, images[0] / images[1], np.float32(np.nan))
    level, noise = local_level(ratio, box=BOX)
    np.maximum(noise, np.float32(LEAST_NOISE) * level, out=noise)
    good &= ~_broken(ratio, ratio - level, noise)
    if np.count_nonzero(good) < LEAST_PIXELS:
        raise FrameError("these flats have no good pixels in common: look at their levels.")
    first, second = (float(np.sum(image, where=good, dtype=float)) for image in images)
    mean = np.float32(first / second)
    ratio = np.where(good, ratio / mean, np.float32(np.nan))
    noise /= mean
    weight = np.where(good, images[1] / np.float32(second / np.count_nonzero(good)), 0)
    smoothed, error = _smoothed(ratio, noise, weight, smooth)
    table = _regions(ratio, noise, weight, regions)
    known = np.isfinite(table["significance"])
    free = np.count_nonzero(known) - 1
    return FlatRatio(
        ratio=ratio,
        smoothed=smoothed,
        error=error,
        regions=table,
        spots=_spots(smoothed, error, smooth),
        level=first / second,
        noise=float(np.median(noise[good])),
        chi2=float(np.sum(table["significance"][known] ** 2)) / free if free > 0 else math.nan,
        smooth=smooth,
        binned=binned,
    )


def _values(flat):
    """Pixels as float32, NaN where bad."""
    values = np.array(getattr(flat, "data", flat), np.float32)
    if values.ndim != 2:
        raise FrameError(f"a flat has 2 axes, this has shape {values.shape}.")
    for name in ("flags", "mask"):
        plane = getattr(flat, name, None)
        if plane is not None and np.shape(plane) == values.shape:
            values[np.asarray(plane) != 0] = np.nan
    return values


def _matched(first, second):
    """Both flats with the pixels of the coarser one, and how many of the finer make one."""
    factors = []
    for large, small in zip(first.shape, second.shape, strict=True):
        small, large = sorted((small, large))
        factor = large // small
        # A camera drops what does not fill a coarse pixel at the end.
        if large - factor * small >= factor:
            raise FrameError(
                f"flats of shapes {first.shape} and {second.shape} do not show the same part of "
                "the sensor in any binning: take both with the same region."
            )
        factors.append(factor)
    if first.shape == second.shape:
        return (first, second), (1, 1)
    finer = first.shape[0] * first.shape[1] > second.shape[0] * second.shape[1]
    large, small = (first, second) if finer else (second, first)
    if any(a < b for a, b in zip(large.shape, small.shape, strict=True)):
        raise FrameError(
            f"flats of shapes {first.shape} and {second.shape}: each is the coarser one along one "
            "axis; take both with the same binning."
        )
    (ny, nx), (y, x) = small.shape, factors
    blocks = large[: ny * y, : nx * x].reshape(ny, y, nx, x)
    coarse = blocks.mean(axis=(1, 3), dtype=np.float32)
    return ((coarse, small) if finer else (small, coarse)), (y, x)


def _check_binning(first, second, binned):
    """Refuse flats whose headers tell of another binning than their shapes."""
    for axis, factor in zip("YX", binned, strict=True):
        values = [
            (getattr(flat, "meta", None) or {}).get(f"{axis}BINNING") for flat in (first, second)
        ]
        if not all(isinstance(value, int | float) and value > 0 for value in values):
            continue
        if max(values) != factor * min(values):
            raise FrameError(
                f"by their headers the flats are binned {values[0]:g} and {values[1]:g} times "
                f"along {axis.lower()}, by their shapes the finer one has {factor} pixels for one: "
                "they do not show the same part of the sensor."
            )


def _broken(ratio, residual, noise):
    """Single pixels that are unlike all around them; a spot of dust is not broken."""
    y, x = np.nonzero(np.abs(residual) > NSIGMA * noise)
    padded = np.pad(ratio, 2, constant_values=np.nan)
    around = np.array(
        [padded[y + j, x + i] for j in range(5) for i in range(5) if (j, i) != (2, 2)]
    )
    around = np.sort(around, axis=0)  # NaN are sorted to the end.
    n = np.count_nonzero(np.isfinite(around), axis=0)
    middle = around[np.maximum(n - 1, 0) // 2, np.arange(len(y))]
    broken = np.zeros(ratio.shape, bool)
    # The median of 24 neighbours has a quarter of the noise of a pixel.
    alone = (n < LEAST_PIXELS) | (np.abs(ratio[y, x] - middle) > NSIGMA * noise[y, x])
    broken[y[alone], x[alone]] = True
    return broken


def _smoothed(ratio, noise, weight, width):
    """Gaussian means over the pixels with a weight, and their standard deviations."""
    # A wide Gaussian is the same, and much faster, on the sums of small blocks of pixels.
    block = max(1, int(width / NARROW))
    images = (weight, np.where(weight > 0, weight * (ratio - 1), 0), (weight * noise) ** 2)
    weight, excess, variance = (_block_sums(image, block) for image in images)
    weight, excess = (_smear(image, width / block) for image in (weight, excess))
    # The square of a Gaussian is one that is narrower by the root of 2, and 1 / (4 pi s^2) as high.
    variance = _smear(variance, width / block / math.sqrt(2)) * block**2 / (4 * math.pi * width**2)
    seen = weight > 0.01 * block**2
    safe = np.where(seen, weight, 1)
    maps = (
        np.where(seen, 1 + excess / safe, np.nan),
        np.where(seen, np.sqrt(variance) / safe, np.nan),
    )
    if block == 1:
        return maps
    # Linear between the blocks; where one has no good pixel around, neither has what is near.
    y, x = np.ogrid[: ratio.shape[0], : ratio.shape[1]]
    return tuple(
        _between(image, (y + 0.5) / block - 0.5, (x + 0.5) / block - 0.5) for image in maps
    )


def _block_sums(image, block):
    """Add up square blocks of pixels; those at the end may be smaller."""
    image = image.astype(np.float32)
    for axis, size in enumerate(image.shape):
        image = np.add.reduceat(image, np.arange(0, size, block), axis=axis)
    return image


def _smear(image, sigma):
    """Smooth by a Gaussian; nothing is outside of the image."""
    return ndimage.gaussian_filter(image, sigma, mode="constant")


def _between(image, y, x):
    """Linear interpolation of an image at rows and columns."""
    for axis, place in enumerate((y.ravel(), x.ravel())):
        size = image.shape[axis]
        place = np.clip(place, 0, size - 1)
        left = np.minimum(place.astype(int), max(size - 2, 0))
        part = np.expand_dims((place - left).astype(np.float32), 1 - axis)
        low, high = (image.take(np.minimum(left + k, size - 1), axis=axis) for k in (0, 1))
        image = low + part * (high - low)
    return image


def _regions(ratio, noise, weight, numbers):
    """Table of the regions of a grid."""
    edges = [
        np.linspace(0, size, n + 1).astype(int)
        for size, n in zip(ratio.shape, numbers, strict=True)
    ]
    lines = []
    for j in range(numbers[0]):
        for i in range(numbers[1]):
            part = (slice(*edges[0][j : j + 2]), slice(*edges[1][i : i + 2]))
            own = weight[part][weight[part] > 0].astype(float)
            n = own.size
            total, mean, square = own.sum(), math.nan, math.nan
            if n >= LEAST_PIXELS:
                mean = np.sum(own * ratio[part][weight[part] > 0]) / total
                square = np.sum((own * noise[part][weight[part] > 0]) ** 2) / total**2
            x, y = (0.5 * (e[k] + e[k + 1] - 1) for e, k in ((edges[1], i), (edges[0], j)))
            lines.append((j, i, x, y, n, mean, square, total))
    names = ("row", "column", "x", "y", "n", "ratio", "error", "total")
    table = Table(rows=lines, names=names)
    square, total = np.array(table["error"]), np.array(table["total"])
    share = np.where(np.isfinite(square), total, 0) / total.sum()
    common = np.nansum(share**2 * square)
    table["error"] = np.sqrt(square * (1 - 2 * share) + common)
    table.remove_column("total")
    # A single region is the mean of all: there is nothing to compare it with.
    error = np.where(table["error"] > 0, table["error"], np.nan)
    table["significance"] = (table["ratio"] - 1) / error
    return table


def _spots(smoothed, error, width):
    """Table of small places that differ from what is around them."""
    level, scatter = local_level(smoothed, box=max(LARGE * width, 2 * BOX))
    # Where the noise is not that of single pixels the map itself tells how much it scatters.
    limit = NSIGMA * np.maximum(np.fmax(error, scatter), np.float32(LEAST_NOISE))
    with np.errstate(invalid="ignore"):
        excess = np.where(np.isfinite(smoothed), smoothed - level, 0)
        labels, _ = ndimage.label(np.abs(excess) > limit)
    lines = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        own = labels[box] == label
        values, ratio = np.where(own, np.abs(excess[box]), 0), excess[box] / limit[box]
        peak = np.unravel_index(np.argmax(values), values.shape)
        y, x = (np.sum(values * grid) / values.sum() for grid in np.mgrid[box])
        significance = NSIGMA * abs(float(ratio[peak]))
        lines.append((x, y, int(own.sum()), float(excess[box][peak]), significance))
    lines.sort(key=lambda line: -line[-1])
    names = ("x", "y", "pixels", "change", "significance")
    kinds = (float, float, int, float, float)
    return Table(rows=lines, names=names, dtype=kinds)
