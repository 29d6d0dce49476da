"""Likelihood of the stars of a cluster, given one isochrone (compiled).

The sequence of single stars, and those of binaries of some mass ratios, are chains of straight
pieces in the space of the magnitudes. The Gaussian of a star's errors is integrated along each
piece exactly, so that no point of the model is too far from the next for a precise star.
"""

import math

import numpy as np
from numba import njit

__all__ = ["MASS_RATIOS", "log_likelihood", "model_density"]

#: Limits of the mass ratios that one chain of binaries stands for. In steps of the companion's
#: light rather than of its mass; binaries of the first step look like single stars.
MASS_RATIOS = np.array([0.0, 0.5, 0.65, 0.77, 0.87, 0.95, 1.0])

BREAK = 0.5  # Msun: below it the mass function is flatter by one, as in Kroupa (2001)
BLOCK = 4  # pieces that share a bounding box
FAR = 5.0  # standard deviations beyond which a piece adds nothing to a star
HIDDEN = 2.0  # mag below the faint limit at which the chains begin
#: Least distance of two points of a chain (mag), for stars whose smallest error is above ...
LENGTHS = (0.03, 0.07, 0.15)
BLURRED = (0.0, 0.015, 0.04)
#: Standard deviations of the step in mass ratio that count; it is even, with half a width of 1.7.
SMEARED = 2.0
TO_NATURAL = 0.4 * math.log(10.0)
OPTIONS = {"cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp"}}


@njit(**OPTIONS)
def _stars_below(mass, slope):
    """Integral of the mass function from the break to a mass (relative number of stars)."""
    power = slope if mass > BREAK else slope + 1.0
    x = mass / BREAK
    if abs(power + 1.0) < 1e-9:
        return math.log(x)
    return (x ** (power + 1.0) - 1.0) / (power + 1.0)


@njit(**OPTIONS)
def _chains(mass, magnitudes, phase, band, begin, ratios, work, step):
    """Write the magnitudes of single stars and of binaries; return the number of points.

    ``work`` is (1 + n_ratio, n_point, n_band) and ``step`` the variance of the brightness within a
    step of the mass ratio, (1 + n_ratio, n_point). ``mass`` and ``phase`` are packed in place.
    """
    n_band = magnitudes.shape[1]
    n = 0
    for j in range(mass.size):
        good = math.isfinite(mass[j])
        for b in range(n_band):
            good = good and math.isfinite(magnitudes[j, b])
        # Masses must not fall; a ripple of the interpolation is flattened.
        if good:
            mass[n] = mass[j] if n == 0 else max(mass[j], mass[n - 1])
            phase[n] = phase[j]
            for b in range(n_band):
                work[0, n, b] = magnitudes[j, b]
            n += 1
    first = 0
    while first < n - 2 and work[0, first + 1, band] > begin:
        first += 1
    for c in range(ratios.size - 1):
        ratio = 0.5 * (ratios[c] + ratios[c + 1])
        k = 0
        for j in range(first, n):
            wanted = ratio * mass[j]
            while k < n - 2 and mass[k + 1] < wanted:
                k += 1
            width = mass[k + 1] - mass[k]
            share = (wanted - mass[k]) / width if width > 0 else 0.0
            for b in range(n_band):
                light = 0.0
                if wanted >= mass[0]:
                    other = work[0, k, b] + min(share, 1.0) * (work[0, k + 1, b] - work[0, k, b])
                    light = math.exp(-TO_NATURAL * (other - work[0, j, b]))
                work[c + 1, j, b] = work[0, j, b] - math.log1p(light) / TO_NATURAL
    for j in range(first, n):
        step[0, j] = 0.0
        for c in range(1, ratios.size):
            # A flat distribution between the middles of the neighbours has 1/12 of its width
            # squared as variance; the last chain has a neighbour on one side only.
            upper = min(c + 1, ratios.size - 1)
            change = 0.0
            for b in range(n_band):
                change += (work[c - 1, j, b] - work[upper, j, b]) / n_band
            change *= 1.0 / (upper - c + 1)
            step[c, j] = change * change / 12.0
    for j in range(first, n):
        mass[j - first] = mass[j]
        phase[j - first] = phase[j]
        for c in range(ratios.size):
            step[c, j - first] = step[c, j]
            for b in range(n_band):
                work[c, j - first, b] = work[c, j, b]
    return n - first


@njit(**OPTIONS)
def _inside(value, bright, faint, sigma_bright, sigma_faint):
    """Probability that a star of this magnitude is measured between the limits."""
    low, high = (value - bright) / sigma_bright, (faint - value) / sigma_faint
    p = 1.0
    if low < FAR:
        p = 0.5 * (1.0 + math.erf(low / math.sqrt(2.0)))
    if high < FAR:
        p *= 0.5 * (1.0 + math.erf(high / math.sqrt(2.0)))
    return p


@njit(**OPTIONS)
def _piece(star, weights, start, end, smear):
    """Mean of a star's Gaussian along a straight piece, without its factor.

    ``weights`` are the inverse variances of the bands, ``smear`` is a variance common to all of
    them (Sherman and Morrison's inverse).
    """
    total = along = across = 0.0
    square = product = rest = 0.0
    for b in range(star.size):
        weight = weights[b]
        change, off = end[b] - start[b], star[b] - start[b]
        total += weight
        along += weight * change
        across += weight * off
        square += weight * change * change
        product += weight * change * off
        rest += weight * off * off
    common = smear / (1.0 + smear * total)
    square -= common * along * along
    product -= common * along * across
    rest -= common * across * across
    scale = math.sqrt(1.0 + smear * total)
    if square < 1e-4:
        value = rest - product + 0.25 * square
        return math.exp(-0.5 * value) / scale if value < FAR * FAR else 0.0
    value = rest - product * product / square
    if value > FAR * FAR:
        return 0.0
    width = math.sqrt(2.0 * square)
    ends = math.erf((square - product) / width) + math.erf(product / width)
    return math.exp(-0.5 * value) * math.sqrt(math.pi) / width * ends / scale


@njit(**OPTIONS)
def _thin(mass, points, phase, n, length, slope, kept, weight):
    """Choose points at least a length (mag) apart; write the number of stars between them.

    Returns the number of points. From the tip of the red giants (phase 3) to core helium burning
    there are no stars.
    """
    m = 0
    for j in range(n):
        far = j == 0 or j == n - 1 or phase[j] != phase[j - 1] or phase[j + 1] != phase[j]
        if not far:
            for b in range(points.shape[1]):
                far = far or abs(points[j, b] - points[kept[m - 1], b]) > length
        if far:
            kept[m] = j
            m += 1
    for k in range(m - 1):
        a, b = kept[k], kept[k + 1]
        jump = phase[a] == 3 and phase[b] > 3
        weight[k] = 0.0 if jump else _stars_below(mass[b], slope) - _stars_below(mass[a], slope)
    return m


@njit(**OPTIONS)
def model_density(
    mass, magnitudes, phase, stars, variance, band, limits, binary, scatter, slope, ratios, density
):  # fmt: skip
    """Write the density of the model at each star, per mag to the number of bands.

    Parameters
    ----------
    mass, magnitudes, phase : numpy.ndarray, shapes (n_point,), (n_point, n_band), (n_point,)
        The isochrone, with apparent magnitudes; nan where there is no star. Are overwritten.
    stars, variance : numpy.ndarray, shape (n, n_band)
        Magnitudes and squares of their errors, in rising order of the band of the limits.
    band : int
        The band of the limits.
    limits : numpy.ndarray, shape (4,)
        Bright and faint limit, and typical errors of magnitudes there.
    binary, scatter, slope : float
        Share of binaries, intrinsic scatter (mag), slope of the mass function.
    ratios : numpy.ndarray, shape (n_ratio + 1,)
        Limits of the steps of the mass ratio.
    density : numpy.ndarray, shape (n,)
        Output. The density over all magnitudes between the limits integrates to one.

    Returns
    -------
    bool
        Whether any part of the model lies between the limits.
    """
    n_star, n_band = stars.shape
    n_chain = ratios.size
    work = np.empty((n_chain, mass.size, n_band))
    step = np.empty((n_chain, mass.size))
    n = _chains(mass, magnitudes, phase, band, limits[1] + HIDDEN, ratios, work, step)
    for i in range(n_star):
        density[i] = 0.0
    if n < 2:
        return False
    extra = scatter * scatter
    inverse, reach = np.empty((n_star, n_band)), np.empty((n_star, n_band))
    factor, level = np.empty(n_star), np.zeros(n_star, np.int64)
    longest = 0.0
    for i in range(n_star):
        factor[i] = 1.0
        sharpest = math.inf
        for b in range(n_band):
            sigma = math.sqrt(variance[i, b] + extra)
            sharpest = min(sharpest, sigma)
            inverse[i, b] = 1.0 / (sigma * sigma)
            other = 0.0 if b == band else variance[i, band] + extra
            reach[i, b] = FAR * math.sqrt(sigma * sigma + other)
            factor[i] /= math.sqrt(2.0 * math.pi) * sigma
        for k in range(1, 3):
            if sharpest > BLURRED[k]:
                level[i] = k
        longest = max(longest, reach[i, band])
    sigma_bright = math.sqrt(limits[2] ** 2 + extra)
    sigma_faint = math.sqrt(limits[3] ** 2 + extra)
    seen = 0.0
    kept, weight = np.empty(n, np.int64), np.empty(n)
    low, high = np.empty(n_band), np.empty(n_band)
    for coarse in range(3):
        m = _thin(mass, work[0], phase, n, LENGTHS[coarse], slope, kept, weight)
        for c in range(n_chain):
            share = 1.0 - binary if c == 0 else binary * (ratios[c] - ratios[c - 1])
            points = work[c]
            if coarse == 0:
                for j in range(m - 1):
                    middle = 0.5 * (points[kept[j], band] + points[kept[j + 1], band])
                    inside = _inside(middle, limits[0], limits[1], sigma_bright, sigma_faint)
                    seen += share * weight[j] * inside
            for first in range(0, m - 1, BLOCK):
                last = min(first + BLOCK, m - 1)
                # A box in magnitude and colours: the sequence is steep, and the box is narrow.
                smear = 0.0
                for b in range(n_band):
                    low[b], high[b] = math.inf, -math.inf
                for j in range(first, last + 1):
                    smear = max(smear, step[c, kept[j]])
                    for b in range(n_band):
                        value = points[kept[j], b]
                        if b != band:
                            value -= points[kept[j], band]
                        low[b], high[b] = min(low[b], value), max(high[b], value)
                smear = SMEARED * math.sqrt(smear)
                most = high[band] + smear + longest
                begin = np.searchsorted(stars[:, band], low[band] - smear - longest)
                for i in range(begin, n_star):
                    if stars[i, band] > most:
                        break
                    near = level[i] == coarse
                    for b in range(n_band):
                        value, away = stars[i, b], reach[i, b] + smear
                        if b != band:
                            value, away = value - stars[i, band], reach[i, b]
                        near = near and low[b] - away < value < high[b] + away
                    if not near:
                        continue
                    for j in range(first, last):
                        start, end = points[kept[j]], points[kept[j + 1]]
                        lower, upper = min(start[band], end[band]), max(start[band], end[band])
                        away = max(lower - stars[i, band], stars[i, band] - upper)
                        if weight[j] > 0.0 and away < reach[i, band] + smear:
                            mean = _piece(stars[i], inverse[i], start, end, step[c, kept[j]])
                            density[i] += share * weight[j] * factor[i] * mean
    if seen <= 0.0:
        return False
    for i in range(n_star):
        density[i] /= seen
    return True


@njit(**OPTIONS)
def log_likelihood(density, field, probability, outliers):
    """Logarithm of the likelihood of all stars.

    Parameters
    ----------
    density, field : numpy.ndarray, shape (n,)
        Densities of the model and of the field at each star.
    probability : numpy.ndarray, shape (n,)
        Membership.
    outliers : float
        Share of the members that do not follow the model.

    Returns
    -------
    float
        ``sum ln(p (1 - f) density + (1 - p (1 - f)) field)``.
    """
    total = 0.0
    for i in range(density.size):
        member = probability[i] * (1.0 - outliers)
        total += math.log(member * density[i] + (1.0 - member) * field[i])
    return total
