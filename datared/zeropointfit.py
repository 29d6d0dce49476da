r"""One solution for all frames of a filter: zero points, colour term, extinction, star offsets.

A catalogue's error of a star is the same on every frame. Frames that are calibrated one by one
treat it as new each time, and their mean then looks more certain than it is. Here it is a part of
the model, so that the errors, and what the zero points have in common, are right.
"""

from dataclasses import dataclass, field

import numpy as np
from astropy.stats import mad_std
from scipy import stats

from .instrumental import plain_values
from .zeropointmodel import LEAST_ERROR, MAX_ROUNDS, MixedModel, excess_variance
from .zeropoints import LEAST_RANGE, MIN_INLIERS

__all__ = ["NightSolution", "fit_extinction", "fit_zero_points"]

#: A frame this far below the line with airmass, in standard deviations and in mag, is cloudy.
CLOUD = (6.0, 0.05)


@dataclass(frozen=True)
class NightSolution:
    """Result of `fit_zero_points`; magnitudes everywhere.

    Parameters
    ----------
    zero_point, error : numpy.ndarray of float, shape (n_frame,)
        Zero point of each frame at colour 0, and its standard error; NaN for a frame with fewer
        than ``min_stars`` good stars.
    n : numpy.ndarray of int, shape (n_frame,)
        Number of stars that were used.
    scatter : numpy.ndarray of float, shape (n_frame,)
        Standard deviation (from the MAD) of one star around the solution.
    colour_term, colour_term_err : float
        0 and NaN where none was fitted.
    pivot : float
        Colour at which zero point and colour term have independent errors.
    common_error : float
        Error at the pivot colour that all frames have in common: that of the catalogue's zero.
    frame_error : numpy.ndarray of float, shape (n_frame,)
        Error of each zero point that is its own.
    covariance : numpy.ndarray of float, shape (n_frame + 1, n_frame + 1)
        Covariance of the zero points and, last, of the colour term.
    star_scatter : float
        Intrinsic scatter: what the stars' offsets differ more than the catalogue's errors say.
    frame_scatter : numpy.ndarray of float, shape (n_frame,)
        What measurements of one star differ from frame to frame more than their errors say.
    star_offset, star_offset_err : numpy.ndarray of float, shape (n_star,)
        Offset of each star: its mean residual, drawn towards 0 by what is known of it beforehand.
    residual : numpy.ndarray of float, shape (n_star, n_frame)
        ``catalogue - instrumental - zero point - c colour``, also of stars that were not used.
    used : numpy.ndarray of bool, shape (n_star, n_frame)
        Measurements that made the solution.
    rejected : numpy.ndarray of bool, shape (n_star,)
        Stars that were left out because they vary or do not agree with the catalogue.
    extinction, extinction_err : float
        mag per airmass, from `fit_extinction`; NaN where the airmass hardly changed.
    zero_point_0, zero_point_0_err : float
        Zero point outside the atmosphere.
    """

    zero_point: np.ndarray
    error: np.ndarray
    n: np.ndarray
    scatter: np.ndarray
    colour_term: float
    colour_term_err: float
    pivot: float
    common_error: float
    frame_error: np.ndarray
    covariance: np.ndarray = field(repr=False)
    star_scatter: float
    frame_scatter: np.ndarray
    star_offset: np.ndarray = field(repr=False)
    star_offset_err: np.ndarray = field(repr=False)
    residual: np.ndarray = field(repr=False)
    used: np.ndarray = field(repr=False)
    rejected: np.ndarray = field(repr=False)
    extinction: float = np.nan
    extinction_err: float = np.nan
    zero_point_0: float = np.nan
    zero_point_0_err: float = np.nan


def fit_zero_points(
    instrumental,
    error,
    catalogue,
    catalogue_error=None,
    *,
    colour=None,
    airmass=None,
    exclude=None,
    min_stars=3,
):
    r"""Zero points of all frames of one filter, with one colour term, in one solution.

    For star j on frame k, with airmass :math:`X_k` and colour :math:`C_j`,

    .. math:: m_j^{cat} - m_{jk}^{inst} = ZP_k + c\,C_j + s_j + e_{jk}

    where :math:`e_{jk}` has the error of the measurement and the scatter of the frame, and
    :math:`s_j`, the same on all frames, the error of the catalogue and an intrinsic scatter. The
    scatters are estimated from the residuals (method of moments). :math:`ZP_k` and c are the
    generalised least squares for the covariance that follows (a linear mixed model, Henderson
    1975, Biometrics 31, 423).

    Parameters
    ----------
    instrumental, error : array_like of float, shape (n_star, n_frame)
        Instrumental magnitudes and their errors; masked or NaN ones do not count.
    catalogue, catalogue_error : array_like of float, shape (n_star,)
        Magnitudes of the catalogue and their errors (0 without them).
    colour : array_like of float, shape (n_star,), optional
        Colours in the catalogue. Stars without a colour are not used, unless fewer than 5 have
        one, or all of them the same: then there is no colour term.
    airmass : array_like of float, shape (n_frame,), optional
        For the extinction.
    exclude : array_like of bool, shape (n_star, n_frame), optional
        Measurements not to use: saturated, flagged, of variable stars.
    min_stars : int
        Least number of stars for a frame.

    Returns
    -------
    NightSolution
        With NaN for all frames where no frame has enough stars.

    Notes
    -----
    Errors are brought to the brightness that the solution expects of a star, not the one that its
    noise gave it: otherwise stars that came out bright would count more, and faint stars pull the
    zero point. With fewer than about 10 stars the scatter is itself uncertain, and so the errors.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> catalogue = rng.uniform(12.0, 16.0, 50)
    >>> instrumental = catalogue[:, None] - [25.0, 24.9] + rng.normal(0, 0.01, (50, 2))
    >>> found = fit_zero_points(instrumental, np.full((50, 2), 0.01), catalogue)
    >>> [round(float(value), 2) for value in found.zero_point]
    [25.0, 24.9]
    """
    inst, sigma = plain_values(instrumental), plain_values(error)
    cat = plain_values(catalogue)
    known = np.zeros(cat.size) if catalogue_error is None else plain_values(catalogue_error)
    usual = known[np.isfinite(known) & (known >= 0)]
    known = np.where(
        np.isfinite(known) & (known >= 0), known, np.median(usual) if usual.size else 0.0
    )
    y = cat[:, None] - inst
    good = np.isfinite(y) & (sigma >= 0)
    if exclude is not None:
        good &= ~np.asarray(exclude, bool)
    index = None if colour is None else plain_values(colour)
    if index is not None:
        has = good.any(axis=1) & np.isfinite(index)
        if has.sum() < MIN_INLIERS or np.ptp(index[has]) < LEAST_RANGE:
            index = None
        else:
            good &= np.isfinite(index)[:, None]
    frames = np.flatnonzero(good.sum(axis=0) >= min_stars)
    model = MixedModel(y, np.maximum(sigma, LEAST_ERROR), known**2, index, good, frames)
    model.solve(min_stars)
    return _result(model, y, airmass)


def fit_extinction(zero_point, error, airmass, *, least_range=0.15):
    r"""Extinction of the air from the zero points of frames, :math:`ZP_k = ZP_0 - k X_k`.

    A straight line, weighted by the errors and a scatter of the frames (haze) that is estimated;
    frames far below it (clouds) are left out.

    Parameters
    ----------
    zero_point, error, airmass : array_like of float, shape (n_frame,)
        Zero points, the errors that they do not have in common, and airmasses.
    least_range : float
        Range of airmass below which nothing can be said.

    Returns
    -------
    extinction, extinction_err, zero_point_0, zero_point_0_err : float
        mag per airmass and mag; NaN with fewer than 3 frames or a small range of airmass.

    Examples
    --------
    >>> airmass = np.array([1.0, 1.2, 1.5, 2.0])
    >>> found = fit_extinction(24.0 - 0.2 * airmass, np.full(4, 0.01), airmass)
    >>> round(found[0], 3), round(found[2], 3)
    (0.2, 24.0)
    """
    z, s, x = plain_values(zero_point), plain_values(error), plain_values(airmass)
    use = np.isfinite(z) & np.isfinite(s) & np.isfinite(x)
    if use.sum() < 3 or np.ptp(x[use]) < least_range:
        return (np.nan,) * 4
    z, s, x = z[use], np.maximum(s[use], LEAST_ERROR), x[use]
    slope, level, *_ = stats.theilslopes(z, x)
    away = z - level - slope * x
    width = np.hypot(mad_std(away), np.median(s))
    keep = away >= -max(CLOUD[0] * width, CLOUD[1])
    if keep.sum() < 3 or np.ptp(x[keep]) < least_range:
        return (np.nan,) * 4
    z, s, x = z[keep], s[keep], x[keep]
    design, haze = np.column_stack([np.ones_like(x), -x]), 0.0
    for _ in range(MAX_ROUNDS):
        weight = 1 / (s**2 + haze)
        normal = np.linalg.inv(design.T @ (weight[:, None] * design))
        level, k = normal @ (design.T @ (weight * z))
        away2 = (z - level + k * x) ** 2
        left = 1 - weight * np.einsum("ij,jk,ik->i", design, normal, design)
        before = haze
        haze = excess_variance(away2, left * s**2, left, weight**2)
        if abs(haze - before) <= 1e-6 * (haze + np.median(s) ** 2):
            break
    # A scatter from few frames is itself uncertain: Student's distribution is wider.
    wider = stats.t.ppf(stats.norm.cdf(1), z.size - 2)
    wider = 1 + (wider - 1) * haze / (haze + np.median(s) ** 2)
    level_err, k_err = wider * np.sqrt(np.diag(normal))
    return float(k), float(k_err), float(level), float(level_err)


def _result(model, y, airmass):
    """Everything of a model as a `NightSolution`, with NaN for frames without a solution."""
    frames, (n_star, n_frame) = model.frames, y.shape
    zero, error, own, tau, scatter = (np.full(n_frame, np.nan) for _ in range(5))
    n, used = np.zeros(n_frame, int), np.zeros(y.shape, bool)
    covariance = np.full((n_frame + 1, n_frame + 1), np.nan)
    residual, offsets = np.full(y.shape, np.nan), np.full((2, n_star), np.nan)
    pivot, common, c_err = np.nan, np.nan, np.nan
    if frames.size:
        zero[frames], tau[frames], used[:, frames] = model.zero, np.sqrt(model.tau), model.used
        rows = np.append(frames, n_frame)[: len(model.covariance)]
        covariance[np.ix_(rows, rows)] = model.covariance
        error[frames] = np.sqrt(np.diag(model.covariance)[: frames.size])
        pivot, common, own[frames] = _parts(model.covariance, frames.size)
        residual[:, frames] = model.residual(y[:, frames])
        n[frames] = model.used.sum(axis=0)
        scatter[frames] = [mad_std(residual[used[:, k], k]) for k in frames]
        offsets = model.offsets()
        if model.index is not None:
            c_err = float(np.sqrt(model.covariance[-1, -1]))
    k, k_err, outside, outside_err = (
        (np.nan,) * 4 if airmass is None else fit_extinction(zero, own, airmass)
    )
    return NightSolution(
        zero, error, n, scatter, float(model.c), c_err, pivot, common, own, covariance,
        float(np.sqrt(model.spread)), tau, *offsets, residual, used, model.rejected,
        k, k_err, outside, float(np.hypot(outside_err, common)),
    )  # fmt: skip


def _parts(covariance, n):
    """Pivot colour, error that the frames have in common there, and each frame's own error."""
    frames = covariance[:n, :n]
    pivot = 0.0
    if len(covariance) > n:
        cross = covariance[:n, -1]
        pivot = float(-cross.mean() / covariance[-1, -1])
        frames = frames + pivot * (cross[:, None] + cross) + pivot**2 * covariance[-1, -1]
    if n == 1:
        return pivot, float(np.sqrt(frames[0, 0])), np.zeros(1)
    common = max((frames.sum() - np.trace(frames)) / (n * (n - 1)), 0.0)
    return pivot, float(np.sqrt(common)), np.sqrt(np.maximum(np.diag(frames) - common, 0.0))
