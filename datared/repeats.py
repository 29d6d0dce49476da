"""The arithmetic of `datared.audit`: what repeats have in common, and how they differ.

Axis 0 is the star, axis 1 the frame, of one filter and one radius.
"""

import math
from itertools import pairwise

import numpy as np
from scipy import stats

from .apertures import NEGATIVE

__all__ = [
    "MIN_REPEATS",
    "SNR_BINS",
    "compare_repeats",
    "means_of_repeats",
    "middle",
    "pull_width",
]

#: Limits of the bins of signal-to-noise in which pulls are counted.
SNR_BINS = (5.0, 10.0, 30.0, 100.0, 300.0, np.inf)

#: With fewer frames of a filter, or measurements of a star, nothing is said; a star is called
#: variable from one more on: of three measurements none can be told to be the wrong one.
MIN_REPEATS = 3

#: Stars that carry the factor of a frame have this signal-to-noise (the best ones, where few have
#: it), are measured in this share of the frames (of those that the tenth star is measured in, but
#: not of less than half of them), and scatter at most this times what is usual.
REFERENCE_SNR, MIN_REFERENCES, MAX_REFERENCES = 30.0, 10, 300
MIN_SHARE, MAX_EXCESS, NEARLY = 0.9, 2.0, 0.8

#: A frame whose stars disagree with the other frames this times as much as usual is left out ...
FRAME_LIMIT = 3.0
#: ... a measurement that is this many errors from its star's median has no part in the mean ...
OUTLIER = 6.0
#: ... if not more than this share of the star's measurements (but at least one) are like that.
OUTLIER_SHARE = 0.05

#: Constant stars called variable by chance, on a night.
FALSE_ALARMS = 0.01


def pull_width(pulls, *, n_means=0):
    """Width of pulls: half the distance between the percentiles 15.87 and 84.13.

    It is the standard deviation of a Gaussian, and a few wild values do not change it.

    Parameters
    ----------
    pulls : array_like of float
        Pulls; NaN does not count.
    n_means : int
        Number of means that were taken from the same data: the pulls of a star with three repeats
        say as much as two.

    Returns
    -------
    width, error : float
        The width and the error that it has, ``0.962 width / sqrt(n - n_means)`` (from the
        asymptotic variance of quantiles); NaN where there are too few.

    Examples
    --------
    >>> width, error = pull_width(np.random.default_rng(1).normal(0, 2, 10_000))
    >>> round(width, 1), round(error, 2)
    (2.0, 0.02)
    """
    pulls = np.asarray(pulls, float)
    pulls = pulls[np.isfinite(pulls)]
    if pulls.size < 2 + n_means:
        return np.nan, np.nan
    low, high = np.percentile(pulls, [15.865525, 84.134475])
    width = float(high - low) / 2
    return width, 0.962 * width / math.sqrt(pulls.size - n_means)


def compare_repeats(flux, error, flags):
    """Find what the frames have in common and what is left of each star.

    Parameters
    ----------
    flux, error : numpy.ndarray of float, shape (n_star, n_frame)
        Fluxes of one filter and radius, and their errors.
    flags : numpy.ndarray of int, shape (n_star, n_frame)
        Their flags; only a negative flux counts.

    Returns
    -------
    dict
        Of each frame: ``frames`` (used or not), ``factor``, ``factor_err``, ``n_stars``,
        ``widths``. Of each star: ``enough`` (repeats), ``good`` (measurements), ``n`` (in the
        mean), ``n_outliers``, ``mean``, ``sigma``, ``chi2``, ``expected``, ``snr``, ``variable``.
        Of each measurement: ``pulls`` and ``snr_each``. See `datared.audit.Audit`.
    """
    with np.errstate(invalid="ignore"):
        good = np.isfinite(flux) & (error > 0) & ((flags & ~NEGATIVE) == 0)
    frames, factor, factor_var, alone, alone_var, carriers, widths = _factors(flux, error, good)
    n_stars = np.where(factor > 0, (good & carriers[:, None]).sum(axis=0), 0)
    found = {"frames": frames, "factor": factor, "factor_err": np.sqrt(factor_var)}
    found |= {"widths": widths, "n_stars": n_stars}
    good = good & frames & (alone > 0)
    enough = good.sum(axis=1) >= MIN_REPEATS
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.where(good, flux / alone, np.nan)
        noise = np.where(good, error / alone, np.nan)
        smooth = _smooth(noise)
        centre = _median(level)
        common = np.square(centre)[:, None] * alone_var / np.square(alone)
        variance = np.square(noise) + common
        weight = 1 / (np.square(smooth) + common)
        snr = np.where(good, centre[:, None] / smooth, np.nan)
    typical = _median(snr)
    used, mean, sigma, pulls, usual = means_of_repeats(
        level, variance, np.where(good, weight, 0.0), typical
    )
    pulls = np.where(good & enough[:, None], pulls, np.nan)
    n = used.sum(axis=1)
    enough = enough & (n > 1) & (mean > 0)
    freedom = np.maximum(n - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.where(used, level - mean[:, None], 0.0)
        noise = np.where(used, variance, 0.0)
        chi2 = np.sum(np.square(off) / np.where(used, variance, 1.0), axis=1) / freedom
        expected = np.sqrt(noise.sum(axis=1) / n) / mean
        chance = stats.chi2.sf(chi2 * freedom / np.square(np.fmax(usual, 1.0)), freedom)
    variable = enough & (n > MIN_REPEATS) & (chance < FALSE_ALARMS / max(1, enough.sum()))
    found |= {"n": n, "n_outliers": good.sum(axis=1) - n, "good": good.sum(axis=1)}
    found |= {"mean": mean, "sigma": sigma, "chi2": chi2, "expected": expected, "snr": typical}
    return found | {"enough": enough, "variable": variable, "pulls": pulls, "snr_each": snr}


def means_of_repeats(level, variance, weight, snr):
    """Mean of each star's measurements, without a single one that is far from all others.

    A measurement is far if it lies more than 6 errors from the star's median (more where the star
    itself, or all stars as bright, scatter more than their errors). Only one of a star, or 5 %, may
    be left out, and of two measurements none: a star of which more are far is a variable one.

    Parameters
    ----------
    level, variance : numpy.ndarray of float, shape (n_star, n_frame)
        Measurements that a constant star has in common, and the squares of their errors.
    weight : numpy.ndarray of float, shape (n_star, n_frame)
        Their weights; 0 for those that do not count.
    snr : numpy.ndarray of float, shape (n_star,)
        Typical signal-to-noise of one measurement.

    Returns
    -------
    used : numpy.ndarray of bool, shape (n_star, n_frame)
        What is in the mean.
    mean, sigma : numpy.ndarray of float, shape (n_star,)
        The mean and its error.
    pulls : numpy.ndarray of float, shape (n_star, n_frame)
        Distances from the mean in units of their errors, freed of what the mean took away.
    usual : numpy.ndarray of float, shape (n_star,)
        Width of the pulls of all stars as bright.
    """
    good = weight > 0
    n = good.sum(axis=1)
    used = good
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = _median(np.where(good, level, np.nan))
        away = np.where(good, np.abs(level - centre[:, None]) / np.sqrt(variance), np.nan)
    own = 1.4826 * _median(away)
    # Again: the width of all pulls tells which of them are far.
    for _ in range(2):
        mean, pulls, sigma = _pulls(level, variance, np.where(used, weight, 0.0))
        pulls = np.where(good, pulls, np.nan)
        usual = _usual(np.where((n > 1)[:, None], pulls, np.nan), snr)
        with np.errstate(invalid="ignore"):
            far = away > OUTLIER * np.fmax(own, np.fmax(usual, 1.0))[:, None]
        few = (n >= MIN_REPEATS) & (far.sum(axis=1) <= np.fmax(1, OUTLIER_SHARE * n))
        used = good & ~(far & few[:, None])
    mean, pulls, sigma = _pulls(level, variance, np.where(used, weight, 0.0))
    return used, mean, sigma, pulls, usual


def _factors(flux, error, good):
    """Find the factor of every frame from bright stars, and the frames on which they agree.

    Returns the frames to use, factors and variances of the frames, the same without each star in
    turn, the stars that carry them, and how much they disagree on each frame.
    """
    n_star, n_frame = flux.shape
    frames, kept = good.any(axis=0), _references(flux, error, good)
    floor, widths = 0.0, np.full(n_frame, np.nan)
    while kept.sum() >= 2:
        f, e, g = flux[kept], error[kept], good[kept]
        scale, factor, seen = _solve(f, e, g, frames, floor)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.where(g, f / scale[:, None] / factor - 1, np.nan)
            sigma = np.where(g, e / scale[:, None] / factor, np.nan)
            typical = _median(sigma[:, frames])
            width = 1.4826 * _median(np.abs(away[:, frames]))
            floor = np.sqrt(max(0.0, middle(width**2 - typical**2)))
            widths = 1.4826 * _median((np.abs(away) / np.hypot(sigma, floor)).T)
            widths = widths / middle(widths[frames])
        # Few stars, or few frames, cannot outvote each other.
        voters = len(f) >= MIN_REFERENCES and frames.sum() > MIN_REPEATS
        # A factor that is not positive is noise: no star is seen.
        far = frames & (~(factor > 0) | (voters & (widths > FRAME_LIMIT)))
        excess = np.nan_to_num(width / np.hypot(typical, floor))
        # First the stars: one that varies shifts the factors, and so every other star of a frame.
        # The worst and those nearly as bad alone, for they have shifted the others.
        bad = np.argsort(-excess, kind="stable")[: max(0, len(f) - MIN_REFERENCES)]
        bad = bad[excess[bad] > max(MAX_EXCESS, NEARLY * excess.max())]
        if bad.size:
            kept[np.flatnonzero(kept)[bad]] = False
        elif far.any():
            frames[np.where(far, np.nan_to_num(widths, nan=np.inf), -1.0).argmax()] = False
        else:
            break
    nothing = np.full(n_frame, np.nan)
    if kept.sum() < 2:
        alone = np.full((n_star, n_frame), np.nan)
        return np.zeros(n_frame, bool), nothing, nothing, alone, alone, ~kept & False, nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(seen, f, 0.0) / scale[:, None]
        noise = np.where(seen, e, 0.0) / scale[:, None]
        weight = np.where(seen, 1 / (np.square(noise / factor) + floor**2), 0.0)
        parts, noises = weight * relative, np.square(weight * noise)
        total, light, var = (value.sum(axis=0) for value in (weight, parts, noises))
        alone, alone_var = (
            np.tile(value, (n_star, 1)) for value in (light / total, var / np.square(total))
        )
        # A star in its own factor would hide a part of its noise.
        alone[kept] = (light - parts) / (total - weight)
        alone_var[kept] = (var - noises) / np.square(total - weight)
        return frames, light / total, var / np.square(total), alone, alone_var, kept, widths


def _references(flux, error, good):
    """Choose the stars that may carry the factors: bright and there on nearly all frames."""
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.nan_to_num(_median(np.where(good, flux / error, np.nan)))
    count = np.where(snr > SNR_BINS[0], good.sum(axis=1), 0)
    n = np.count_nonzero(good.any(axis=0))
    # Where stars drift over hot pixels, few or none are good on nearly all frames.
    tenth = np.sort(count)[-MIN_REFERENCES] if len(count) >= MIN_REFERENCES else 0
    least = max(MIN_SHARE * np.clip(tenth, 0.5 * n, n), min(n, MIN_REPEATS))
    snr = np.where(count >= least, snr, 0.0)
    order = np.argsort(-snr, kind="stable")
    bright = int(np.clip((snr > REFERENCE_SNR).sum(), MIN_REFERENCES, MAX_REFERENCES))
    chosen = np.zeros(len(flux), bool)
    chosen[order[:bright]] = True
    return chosen & (snr > SNR_BINS[0])


def _solve(flux, error, good, frames, floor):
    """Scales of the stars, factors of the frames, and the measurements that were used."""
    inside, seen = good & frames, good
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = _median(np.where(inside, flux, np.nan))
        factor = _median((np.where(good, flux, np.nan) / scale[:, None]).T)
        scale = _median(np.where(inside, flux / factor, np.nan))
        for turn in range(12):
            sigma = np.hypot(error / scale[:, None] / factor, floor)
            away = np.abs(flux / scale[:, None] / factor - 1) / sigma
            if turn < 6:
                # Errors that are all too small are no reason to call half of the light wild.
                usual = max(1.0, 1.4826 * middle(away[inside]))
                seen = good & ~(away > OUTLIER * usual)
            weight = np.where(seen, 1 / np.square(sigma), 0.0)
            light = np.where(seen, flux, 0.0)
            factor = (weight * light / scale[:, None]).sum(axis=0) / weight.sum(axis=0)
            factor = factor / middle(factor[frames])
            weight = np.where(frames & np.isfinite(factor), weight, 0.0)
            some = weight.sum(axis=1) > 0
            fitted = np.nansum(weight * light / factor, axis=1) / weight.sum(axis=1)
            # A star that varies wildly is far from its own mean on all frames.
            scale = np.where(some, fitted, scale)
    return scale, factor, seen


def _pulls(level, variance, weight):
    """Means by the weights, their errors, and pulls; a mean takes a part of its stars' noise."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = weight / weight.sum(axis=1, keepdims=True)
        noise = np.where(weight > 0, variance, 0.0)
        mean = np.sum(share * np.where(weight > 0, level, 0.0), axis=1)
        of_mean = np.sum(np.square(share) * noise, axis=1)
        left = variance * (1 - 2 * share) + of_mean[:, None]
        return mean, (level - mean[:, None]) / np.sqrt(left), np.sqrt(of_mean)


def _smooth(noise):
    """Noise of each star times that of each frame.

    The stated error of a measurement follows its own chance: a star that happened to be bright
    would count less, and the mean would be too low.
    """
    typical = _median(noise)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return typical * _median((noise / typical).T)


def _usual(pulls, snr):
    """Width of the pulls of all stars as bright as each star; 1 where it is not known."""
    usual = np.ones(len(snr))
    for low, high in pairwise((-np.inf, *SNR_BINS[1:])):
        with np.errstate(invalid="ignore"):
            stars = (snr >= low) & (snr < high)
        width = pull_width(pulls[stars])[0]
        usual[stars] = width if width > 0 else 1.0
    return usual


def _median(values):
    """Median of the finite values of every row; NaN where there is none."""
    if not values.size:
        return np.full(len(values), np.nan)
    values = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)
    n = np.isfinite(values).sum(axis=1)
    low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, values.shape[1] - 1)
    rows = np.arange(len(values))
    return 0.5 * (values[rows, low] + values[rows, high])


def middle(values):
    """Median of the finite values of an array; NaN where there is none."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else np.nan
