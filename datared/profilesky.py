"""Profile sky: the level under a star from a fit of its profile and a constant."""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from datared.profilefit import BETA, covariance, improve, linear, normal_sums
from datared.profilepixels import drop_neighbours, gather, reject
from datared.profiles import (
    COLUMN,
    COMPILED,
    FLAT,
    FLUX,
    INNER,
    MODEL,
    MOFFAT,
    N_ROWS,
    REST,
    ROW,
    SKY,
    VALUE,
    WEIGHT,
    WIDTH,
    X,
    Y,
    draw,
)

__all__ = ["over_parts", "profile_sky"]

#: Stars that a thread takes at a time.
PART = 32
#: The profile of a star is fitted with a free width and centre from this signal to noise on, and
#: with a free slope of the wings from the second one on.
FREE_WIDTH, FREE_SLOPE = 15.0, 25.0
#: Parameters in the order in which they become free.
ORDER = (FLUX, SKY, X, Y, WIDTH, FLAT)
#: So many pixels, two widths or more from the star, tell the noise of the sky.
LEAST_SKY = 12
#: Pixels of the sky further from the fit than this many standard deviations are left out.
CLIP = 3.5


def profile_sky(data, flags, x, y, *, radius, fwhm):
    r"""Level of the sky under stars, from fits of a profile and a constant.

    .. math:: I = F \, m(r; w, \beta) + b

    with a round Moffat profile m, averaged over the pixels, is fitted to all pixels within a
    radius of each star. Other than in an annulus, the light of the star itself does not add to
    the level, and the pixels close to the star count.

    What is free depends on how well the star is seen. All is, from a signal to noise of the flux
    of 25 on; the slope stays at 3.5 below, and below 15 the centre and the width are those given,
    because they cannot move the level then. Pixels weigh by the variance of the
    residuals, :math:`s^2 + \kappa F m`, with :math:`\kappa` told by the star itself, so that
    its photons, or a core that is no Moffat profile, do not move the level. Neighbours are left
    out: pixels brighter than those opposite to them, and pixels 3.5 standard deviations off.

    Parameters
    ----------
    data : numpy.ndarray of float, shape (ny, nx)
        The frame.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Pixels that must not be used where it is not zero.
    x, y : array-like of float, shape (n,)
        Positions in pixels, good to half a width.
    radius : float
        Radius in pixels; four widths or more tell the sky well.
    fwhm : float
        Typical FWHM of the stars in pixels.

    Returns
    -------
    level : numpy.ndarray of float, shape (n,)
        Level b, in the unit of the frame; NaN where fewer than 12 pixels that are two widths or
        more from the star are good.
    error : numpy.ndarray of float, shape (n,)
        Its standard deviation.
    std : numpy.ndarray of float, shape (n,)
        Standard deviation s of a pixel of sky.
    n : numpy.ndarray of int, shape (n,)
        Number of pixels in the fit.
    r_squared : numpy.ndarray of float, shape (n,)
        Quality of the fit, 1 for a perfect one; NaN where there is none.

    Notes
    -----
    The usual :math:`R^2` is small for every faint star, although its level is as good as that of
    blank sky. Here the noise is taken off first:

    .. math:: R^2 = 1 - \frac{\max(0, \sum (I - \hat I)^2 - n s^2)}{\sum (I - \bar I)^2}

    is the share of the variance that is either explained by the profile or no more than noise.
    Blank sky and faint stars have about 1 (0.9 or more, by chance), and so have bright stars that
    the profile fits. A pair of stars has 0.7 to 0.9, a trail 0.8 to 0.9, a star out of focus 0.6,
    a star three times wider than ``fwhm`` less than 0. The gate 0.9 tells them apart.

    Examples
    --------
    >>> from datared.render import star_image
    >>> frame = star_image((60, 60), [30.2], [29.8], [20000.0], fwhm=3.0)
    >>> frame += np.random.default_rng(2).normal(100.0, 5.0, frame.shape)
    >>> level, error, std, n, r_squared = profile_sky(
    ...     frame, np.zeros(frame.shape, np.uint16), [30.0], [30.0], radius=15, fwhm=3.3
    ... )
    >>> bool(abs(level[0] - 100) < 3 * error[0]), round(float(error[0]), 1), int(n[0])
    (True, 0.2, 709)
    >>> bool(r_squared[0] > 0.99)
    True
    """
    x, y = (np.array(a, float, ndmin=1) for a in (x, y))
    # One kind of array, or the loops are compiled for each kind anew.
    values = np.require(np.asarray(data), np.float32, "CW")
    flags = np.require(np.asarray(flags) != 0, bool, "CW")
    out = np.full((len(x), 5), np.nan)
    if values.ndim != 2 or flags.shape != values.shape or x.shape != y.shape:
        raise ValueError(
            f"the frame {values.shape} and its flags {flags.shape} must have one shape, and so "
            f"must x {x.shape} and y {y.shape}"
        )
    if not (0 < radius < math.inf and 0 < fwhm < math.inf):
        raise ValueError(f"radius {radius} and fwhm {fwhm} must be positive and finite")
    one, how = np.ones((1, 1), np.float32), (False, MOFFAT, np.array(ORDER, np.int64))

    def part(k):
        few = slice(k, k + PART)
        _profiles(values, flags, one, x[few], y[few], float(radius), float(fwhm), *how, out[few])

    over_parts(part, len(x), None)
    level, error, std, n, r_squared = out.T.copy()
    return level, error, std, n.astype(np.int64), r_squared


def over_parts(work, n, threads):
    """Call ``work(first)`` for each part of a list of ``n`` stars, on several threads."""
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(work, range(0, n, PART)))


@njit(**COMPILED)
def _profiles(data, skip, one, x, y, radius, fwhm, square, profile, free, out):
    """Write level, its error, noise of a pixel, number of pixels and R^2 of each star."""
    ny, nx = data.shape
    side = 2 * int(min(radius, nx + ny)) + 1
    most = min(side, ny) * min(side, nx)
    rows = np.empty((N_ROWS, most))
    star, first = np.empty(8), np.empty(8)
    normal, work, trial = np.empty((8, 9)), np.empty((8, 8)), np.empty((2, 8))
    cov, limits, values = np.empty((8, 8)), np.empty(5), np.empty(most)
    for k in range(x.size):
        out[k, 3] = 0
        n = gather(data, skip, one, x[k], y[k], radius, square, rows)
        n = drop_neighbours(rows, n, x[k], y[k], radius, fwhm, data, skip, values)
        if n < LEAST_SKY:
            continue
        for a in range(8):
            star[a] = 0.0
        star[X], star[Y], star[WIDTH], star[FLAT] = x[k], y[k], math.log(fwhm), 1 / BETA
        limits[0], limits[1], limits[2] = x[k], y[k], max(0.5 * fwhm, 1.0)
        limits[3], limits[4] = star[WIDTH] - math.log(2.5), star[WIDTH] + math.log(2.5)
        good = linear(rows, n, star, profile, free[:2], normal, work, trial)
        std = photons = 0.0
        n_free = free[:2].size
        for turn in range(4):
            if not good:
                break
            draw(rows, n, star, profile)
            before, n_before = std, n
            std, photons = _noise_law(rows, n, star, fwhm, turn)
            good = std > 0
            if not good:
                break
            if turn:
                for p in range(n):
                    rows[REST, p] = rows[VALUE, p] - star[SKY] - rows[MODEL, p]
                n = reject(rows, n, star, 1.5 * fwhm, std, CLIP, 0.1, data, skip)
                if turn > 1 and n == n_before and abs(std - before) < 0.005 * std:
                    break
            for p in range(n):
                rows[WEIGHT, p] = 1 / (std * std + photons * max(rows[MODEL, p], 0.0))
            ratio = 0.0
            for p in range(n):
                ratio += (rows[MODEL, p] / std) ** 2
            ratio = math.sqrt(ratio) if star[FLUX] > 0 else 0.0
            n_free = 6 if ratio > FREE_SLOPE else 5 if ratio > FREE_WIDTH else 2
            for a in range(8):
                first[a] = star[a]
            if n_free > 2:
                n_free, _ = improve(
                    rows, n, star, profile, free, n_free, limits, normal, work, trial
                )
            if n_free <= 2:
                # Nothing tells the shape: it stays the expected one.
                n_free = free[:2].size
                for a in range(8):
                    star[a] = first[a]
                if not turn:
                    star[X], star[Y], star[WIDTH], star[FLAT] = x[k], y[k], math.log(fwhm), 1 / BETA
                good = linear(rows, n, star, profile, free[:2], normal, work, trial)
        if not good:
            continue
        draw(rows, n, star, profile)
        normal_sums(rows, n, free, n_free, normal)
        if not covariance(normal, n_free, work, trial, cov):
            continue
        mean = total = rest = 0.0
        for p in range(n):
            mean += rows[VALUE, p] / n
        for p in range(n):
            total += (rows[VALUE, p] - mean) ** 2
            rest += (rows[VALUE, p] - star[SKY] - rows[MODEL, p]) ** 2
        out[k, 0], out[k, 1] = star[SKY], math.sqrt(cov[1, 1])
        out[k, 2], out[k, 3] = std, n
        out[k, 4] = 1 - max(rest - n * std * std, 0.0) / total if total > 0 else 1.0


@njit(**INNER)
def _noise_law(rows, n, star, fwhm, turn):
    """Measure the noise of a pixel of sky, and the variance that the light of the star adds.

    Both are 0 where too few pixels of sky are there.
    """
    far, inner = 0.0, 0.0
    n_far, outside, light = 0, 0, 0.0
    for p in range(n):
        rest = rows[VALUE, p] - star[SKY] - rows[MODEL, p]
        if math.hypot(rows[COLUMN, p] - star[X], rows[ROW, p] - star[Y]) > 2 * fwhm:
            outside += 1
            # Before the stars nearby are out, only what is below tells the noise.
            if turn or rest < 0:
                far += rest * rest
                n_far += 1
    if outside < LEAST_SKY:
        return 0.0, 0.0
    # A frame without noise has that of its last digits.
    std = max(math.sqrt(far / max(n_far - 1, 1)), 1e-7 * abs(star[SKY]), 1e-30)
    for p in range(n):
        model = rows[MODEL, p]
        if model > std:
            rest = rows[VALUE, p] - star[SKY] - model
            inner += rest * rest - std * std
            light += model
    return std, max(inner / light, 0.0) if light > 0 else 0.0
