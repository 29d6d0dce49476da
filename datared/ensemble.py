"""Comparison stars: which ones are good, and what the sky did to all of them together.

What all stars have in common at one time (clouds, extinction) is the ensemble's; what is left of a
star is its own. Nothing here looks at the target but its brightness.
"""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from .apertures import BAD_PIXEL, NEIGHBOUR, SATURATED
from .photometry import FLAG_NAMES

__all__ = [
    "Ensemble",
    "comparison_stars",
    "ensemble",
    "leave_one_out",
    "median_correction",
    "spread",
]

#: A star must be measured without a flag in this share of the epochs; bad pixels under a drifting
#: star cost single epochs, of these more may be lost.
MIN_SHARE, MIN_CLEAN = 0.95, 0.5

#: A star that scatters more than this times what is expected for it is variable.
MAX_EXCESS = 2.0


@dataclass(frozen=True)
class Ensemble:
    """Common factor of the comparison stars.

    Parameters
    ----------
    flux : numpy.ndarray of float, shape (n_epoch,)
        Transparency: 1 in the median; NaN where no star was measured.
    error : numpy.ndarray of float, shape (n_epoch,)
        Its error.
    scale : numpy.ndarray of float, shape (n_star,)
        Flux of each star at transparency 1.
    weight : numpy.ndarray of float, shape (n_star,)
        Weight of each star: inverse variance of its relative flux.
    used : numpy.ndarray of bool, shape (n_star, n_epoch)
        Measurements that were used.
    """

    flux: np.ndarray
    error: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    used: np.ndarray

    @property
    def n(self):
        """Number of stars in each epoch."""
        return self.used.sum(axis=0)


def ensemble(flux, flux_err, *, floor=0.0, clip=5.0, side=None):
    r"""Solve for what the comparison stars have in common: ``flux[k, t] = scale[k] x common[t]``.

    .. math:: T_t = \sum_k w_k F_{kt} / a_k \Big/ \sum_k w_k, \quad
              a_k = \mathrm{median}_t (F_{kt} / T_t)

    over the measurements that are there, in turn until nothing changes. The scales are those of the
    star, not sums of an epoch: a star that is missing at one time changes the noise of that time
    and not its level.

    Parameters
    ----------
    flux, flux_err : numpy.ndarray of float, shape (n_star, n_epoch)
        Fluxes of the comparison stars and their errors; NaN where one is missing.
    floor : float
        Relative scatter that every star has beyond its error; it keeps one bright star from
        deciding alone.
    clip : float
        A measurement that is this many standard deviations away from the other stars (a cosmic ray)
        counts as missing. Of two stars none can be told to be wrong.
    side : numpy.ndarray, shape (n_epoch,), optional
        Side of the meridian flip of each epoch: `clip` then compares with the star's own level on
        that side.

    Returns
    -------
    Ensemble
        The common factor, with errors.

    Examples
    --------
    >>> flux = np.array([[100.0, 50.0, 100.0], [200.0, 100.0, np.nan]])
    >>> common = ensemble(flux, np.sqrt(flux))
    >>> common.flux.round(6).tolist(), common.scale.round(6).tolist()
    ([1.0, 0.5, 1.0], [100.0, 200.0])
    """
    flux, error = np.asarray(flux, float), np.asarray(flux_err, float)
    known = np.isfinite(flux) & np.isfinite(error)
    common = _solve(flux, error, known, floor)
    for _ in range(10):
        curves, errors = leave_one_out(flux, error, common)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.abs(level_sides(curves, side) - 1) / np.hypot(errors, floor)
        away = np.where(known & (common.n > 2), np.nan_to_num(away), 0.0)
        # Only the farthest of an epoch: it has shifted the others' ensembles.
        far = (away > clip) & (away == away.max(axis=0, initial=0))
        if not far.any():
            break
        known = known & ~far
        common = _solve(flux, error, known, floor)
    return common


def _solve(flux, error, known, floor):
    """Solve once with the known measurements; see `ensemble`."""
    value = np.where(known, flux, 0.0)
    scale = _medians(flux, known)
    positive = np.isfinite(scale) & (scale > 0)
    known = known & positive[:, None]
    scale = np.where(positive, scale, 1.0)
    relative = np.nan_to_num(_medians(error, known), nan=np.inf) / scale
    weight = 1 / np.maximum(relative**2 + floor**2, 1e-30)
    weighted = np.where(known, weight[:, None], 0.0)
    total = weighted.sum(axis=0)
    seen = total > 0
    common = np.ones(flux.shape[1])
    for _ in range(100):
        before = common
        common = np.where(seen, (weighted * value / scale[:, None]).sum(axis=0), 0.0)
        common = common / np.where(seen, total, 1.0)
        if seen.any():
            common = common / np.median(common[seen])
        # The median, so that one wild measurement does not shift its star's whole curve.
        fitted = _medians(value / np.where(common > 0, common, np.nan), known & (common > 0))
        scale = np.where(fitted > 0, fitted, scale)
        if np.max(np.abs(common - before), initial=0) < 1e-10:
            break
    noise = np.where(known, weighted * error / scale[:, None], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Ensemble(
            np.where(seen, common, np.nan),
            np.where(seen, np.sqrt((noise**2).sum(axis=0)) / total, np.nan),
            np.where(positive, scale, np.nan),
            np.where(positive, weight, 0.0),
            known,
        )


def leave_one_out(flux, flux_err, common):
    """Curve of each comparison star against the others: the check of the method and of the stars.

    Parameters
    ----------
    flux, flux_err : numpy.ndarray of float, shape (n_star, n_epoch)
        As given to `ensemble`.
    common : Ensemble
        Its result.

    Returns
    -------
    curves, errors : numpy.ndarray of float, shape (n_star, n_epoch)
        Relative fluxes around 1 and their errors, with those of the others in them.
    """
    flux, error = np.asarray(flux, float), np.asarray(flux_err, float)
    known = np.isfinite(flux) & np.isfinite(error)
    weight = np.where(common.used, common.weight[:, None], 0.0)
    scale = np.where(np.isfinite(common.scale), common.scale, 1.0)[:, None]
    part = weight * np.where(known, flux, 0.0) / scale
    noise = np.square(weight * np.where(known, error, 0.0) / scale)
    total = weight.sum(axis=0) - weight
    with np.errstate(invalid="ignore", divide="ignore"):
        others = np.where(total > 0, (part.sum(axis=0) - part) / total, np.nan)
        others_err = np.sqrt(noise.sum(axis=0) - noise) / total
        curves = np.where(known, flux, np.nan) / scale / others
        errors = np.abs(curves) * np.hypot(error / flux, others_err / others)
    return curves, errors


def spread(values):
    """Scatter that up to 2 % of outliers on each side do not change, but an eclipse does.

    Parameters
    ----------
    values : array_like of float, shape (..., n)
        Values; NaN does not count.

    Returns
    -------
    numpy.ndarray of float, shape (...)
        Quarter of the distance between the percentiles 2.3 and 97.7: the standard deviation of a
        Gaussian.
    """
    values = np.atleast_2d(np.asarray(values, float))
    result = np.full(values.shape[:-1], np.nan)
    some = np.isfinite(values).sum(axis=-1) > 1
    if some.any():
        low, high = np.nanpercentile(values[some], [2.275, 97.725], axis=-1)
        result[some] = (high - low) / 4
    return result


def comparison_stars(
    flux, flux_err, flags, *, target, flux_range=(0.1, 10.0), max_stars=30, named=(), side=None
):
    """Choose comparison stars, and say of each star why it is one or not.

    A star is refused that is saturated, crowded, off the frame or otherwise flagged in more than
    5 % of the epochs (bad pixels: half of them); whose brightness is too different from the
    target's; or that varies: the one that scatters most against the others is taken out, again and
    again, while it scatters more than twice what its error and the common excess of all stars
    explain.

    Parameters
    ----------
    flux, flux_err : numpy.ndarray of float, shape (n_star, n_epoch)
        Fluxes and errors of all stars, of one filter and one radius.
    flags : numpy.ndarray of int, shape (n_star, n_epoch)
        Their flags.
    target : int
        Row of the target.
    flux_range : tuple of float
        Lowest and highest flux in units of the target's.
    max_stars : int
        Of more stars, those with the best signal-to-noise.
    named : sequence of int
        Rows that are wanted instead, whatever they are.
    side : numpy.ndarray, shape (n_epoch,), optional
        Side of the meridian flip of each epoch: a step there is of the flat field, not of the star,
        and does not count as scatter.

    Returns
    -------
    astropy.table.Table
        One row for each star: ``star``, ``used``, ``reason``, ``ratio`` (flux in units of the
        target's), ``snr`` (median of an epoch), ``scatter`` (relative, against the others),
        ``expected``.
    """
    flux, error = np.asarray(flux, float), np.asarray(flux_err, float)
    good = usable(flux, error, flags)
    n_star = len(flux)
    level = _medians(flux, good)
    target_level = level[target] if np.isfinite(level[target]) else np.nanmedian(flux[target])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = level / target_level
        snr = level / _medians(error, good)
    reason = [""] * n_star
    for k in range(n_star):
        if k == target:
            reason[k] = "the target"
        elif len(named):
            reason[k] = "" if k in named else "not named"
        else:
            reason[k] = _refusal(flux[k], flags[k], good[k], ratio[k], flux_range)
    used = np.array([not text for text in reason])
    if not len(named) and used.sum() > max_stars:
        worst = np.argsort(np.where(used, -snr, np.inf), kind="stable")[max_stars : used.sum()]
        for k in worst:
            reason[k] = f"fainter than the {max_stars} that are enough"
        used[worst] = False
    scatter, expected = np.full(n_star, np.nan), np.full(n_star, np.nan)
    clean, clean_err = np.where(good, flux, np.nan), np.where(good, error, np.nan)
    while used.sum() > 1:
        rows = np.flatnonzero(used)
        common = ensemble(
            clean[rows], clean_err[rows], floor=_floor(scatter, expected, rows), side=side
        )
        curves, errors = leave_one_out(clean[rows], clean_err[rows], common)
        scatter[rows] = spread(level_sides(curves, side))
        expected[rows] = [np.sqrt(np.nanmean(np.square(line))) for line in errors]
        floor = _floor(scatter, expected, rows)
        excess = scatter[rows] / np.hypot(expected[rows], floor)
        worst = rows[np.argmax(excess)]
        # Of two stars nobody can tell which one varies.
        if len(named) or len(rows) < 3 or not excess.max() > MAX_EXCESS:
            break
        used[worst] = False
        reason[worst] = (
            f"varies: scatter {100 * scatter[worst]:.2f} %, expected {100 * expected[worst]:.2f} %"
        )
    return Table(
        {
            "star": np.arange(n_star),
            "used": used,
            "reason": reason,
            "ratio": ratio,
            "snr": snr,
            "scatter": scatter,
            "expected": expected,
        }
    )


def level_sides(curves, side):
    """Divide curves by their own median on each side of the meridian flip.

    Parameters
    ----------
    curves : numpy.ndarray of float, shape (n_star, n_epoch)
        Relative fluxes; NaN where one is missing.
    side : numpy.ndarray, shape (n_epoch,), or None
        Side of each epoch; None changes nothing.

    Returns
    -------
    numpy.ndarray of float, shape (n_star, n_epoch)
        The levelled curves.
    """
    curves = np.array(curves, float)
    for value in () if side is None else np.unique(side):
        part = np.asarray(side) == value
        curves[:, part] /= _medians(curves[:, part], np.isfinite(curves[:, part]))[:, None]
    return curves


def usable(flux, error, flags):
    """Tell which measurements are there, unflagged and positive."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(flux) & np.isfinite(error) & (np.asarray(flags) == 0) & (flux > 0)


def median_correction(magnitude):
    """Find the common change of stars as the median of their changes: simpler than `ensemble`.

    ``c(t) = median_k [m_k(t) - median_t m_k]``: every star has one vote, however noisy; nothing has
    to be known about errors.

    Parameters
    ----------
    magnitude : array_like of float, shape (n_star, n_epoch)
        Magnitudes of the comparison stars; NaN where one is missing.

    Returns
    -------
    numpy.ndarray of float, shape (n_epoch,)
        To be subtracted from any star's magnitudes; NaN where no star was measured.

    Examples
    --------
    >>> median_correction([[10.0, 10.5, 10.0], [12.0, 12.5, 12.0], [9.0, 9.5, 9.3]]).tolist()
    [0.0, 0.5, 0.0]
    """
    magnitude = np.ma.masked_invalid(np.asarray(magnitude, float))
    change = magnitude - np.ma.median(magnitude, axis=1, keepdims=True)
    return np.ma.filled(np.ma.median(change, axis=0), np.nan)


def _medians(values, good):
    """Median of the good values of every row, NaN where there is none."""
    return np.array([np.median(v[g]) if g.any() else np.nan
                     for v, g in zip(values, good, strict=True)])  # fmt: skip


def _refusal(flux, flags, good, ratio, flux_range):
    """Return why a star cannot be a comparison star; empty where it can."""
    n_epoch = len(flux)
    lost = MIN_SHARE * n_epoch
    saturated = np.count_nonzero(flags & SATURATED)
    if n_epoch - saturated < lost:
        return f"saturated in {saturated} of {n_epoch} epochs"
    crowded = np.count_nonzero(flags & NEIGHBOUR)
    if n_epoch - crowded < lost:
        return f"crowded in {crowded} of {n_epoch} epochs"
    other = good | ((flags & BAD_PIXEL != 0) & np.isfinite(flux))
    if np.count_nonzero(other) < lost:
        bits = np.bitwise_or.reduce(flags[~other])
        names = ", ".join(name for name, bit in FLAG_NAMES.items() if bits & bit) or "no flux"
        return f"{names} in {n_epoch - np.count_nonzero(other)} of {n_epoch} epochs"
    if np.count_nonzero(good) < max(MIN_CLEAN * n_epoch, 1):
        return f"bad pixel in {n_epoch - np.count_nonzero(good)} of {n_epoch} epochs"
    if not flux_range[0] <= ratio <= flux_range[1]:
        return f"{'fainter' if ratio < 1 else 'brighter'} than the target by a factor of " + (
            f"{1 / ratio:.1f}" if ratio < 1 else f"{ratio:.1f}"
        )
    return ""


def _floor(scatter, expected, rows):
    """Relative scatter that is common to all stars beyond their errors (0 before it is known)."""
    excess = scatter[rows] ** 2 - expected[rows] ** 2
    excess = excess[np.isfinite(excess)]
    return float(np.sqrt(max(np.median(excess), 0.0))) if excess.size else 0.0
