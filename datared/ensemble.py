"""What the sky did to all stars together: zero points of frames, levels and scatter of stars.

What all stars have in common at one time (clouds, extinction) is the ensemble's; what is left of a
star is its own.
"""

from dataclasses import dataclass

import numpy as np

from .ensembleresiduals import (
    first_guess,
    frame_scatter,
    improve,
    left_out,
    lever,
    median,
    off_level,
    positive,
    star_scatter,
    wild_ones,
)

__all__ = [
    "EnsembleSolution",
    "level_sides",
    "median_correction",
    "solve_ensemble",
    "spread",
    "sum_ensemble",
]

#: Stars of a lower signal-to-noise get a curve, but have no vote in the ensemble.
MIN_SNR = 10.0

#: Share of its error by which a zero point may still move in the last round.
CLOSE = 0.1


@dataclass(frozen=True)
class EnsembleSolution:
    """What stars have in common, and what is left of each.

    Parameters
    ----------
    flux : numpy.ndarray of float, shape (n_epoch,)
        Transparency, the zero point of each frame: 1 in the median; NaN where no star was measured.
        In magnitudes it is ``-2.5 log10(flux)``.
    error : numpy.ndarray of float, shape (n_epoch,)
        Its error.
    scale : numpy.ndarray of float, shape (n_star,)
        Level of each star: its flux at transparency 1.
    weight : numpy.ndarray of float, shape (n_star, n_epoch)
        Weight of each measurement; 0 where it has no vote.
    intrinsic : numpy.ndarray of float, shape (n_star,)
        Relative scatter of each star beyond its errors.
    excess : numpy.ndarray of float, shape (n_epoch,)
        Relative scatter of the stars of each frame beyond their errors, as from a cloud that does
        not dim all of them alike.
    curves : numpy.ndarray of float, shape (n_star, n_epoch)
        Flux of each star over its level and over the transparency that the *other* stars give: 1 in
        the median. A star never calibrates itself.
    errors : numpy.ndarray of float, shape (n_star, n_epoch)
        Errors of the curves: the star's own, that of the other stars' ensemble and `excess`. What
        the star does itself (`intrinsic`) is not in them.
    """

    flux: np.ndarray
    error: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    intrinsic: np.ndarray
    excess: np.ndarray
    curves: np.ndarray
    errors: np.ndarray

    @property
    def n(self):
        """Number of stars with a vote in each epoch."""
        return (self.weight > 0).sum(axis=0)


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def solve_ensemble(flux, flux_err, *, exclude=None, side=None, max_iterations=12):
    r"""Solve for the zero points of all frames and the levels of all stars together.

    The model is :math:`F_{kt} = a_k T_t (1 + \epsilon_{kt})`: a star of level a in a frame of
    transparency T. Levels and transparencies are those with the least sum of

    .. math:: w_{kt} \left( \frac{F_{kt}}{a_k T_t} - 1 \right)^2, \quad
              w_{kt} = \frac{1}{\sigma_{kt}^2 + s_k^2 + q_t^2}

    with the relative error of a measurement, the scatter s of the star beyond its errors and that
    of the frame, q. Both are found from the residuals in turn with the solution, so that a variable
    star loses its weight by itself. A scatter that does not differ clearly from what all stars have
    in common (flat field, scintillation) is taken as that. As every star has a level, one that is
    missing at one time changes the noise of that time and not its level.

    Parameters
    ----------
    flux, flux_err : array_like of float, shape (n_star, n_epoch)
        Fluxes and their errors, of all stars or of those that were chosen; NaN or masked where one
        is missing. One without a positive error counts as missing.
    exclude : sequence of int, optional
        Rows without a vote, such as the target's; they get curves like the others.
    side : array_like, shape (n_epoch,), optional
        Side of the meridian flip of each epoch. A step there is of the flat field and another one
        for each star: it stays in the curve, counts not as scatter, and does not shift the others.
    max_iterations : int
        Largest number of rounds; they end when no zero point moves by a tenth of its.

    Returns
    -------
    EnsembleSolution
        Zero points, levels, scatters and curves.

    Raises
    ------
    ValueError
        If shapes differ.

    Notes
    -----
    Weights use the errors as a product of a star's and a frame's: a measured error goes up and down
    with the photons of its own measurement, and would weight the low ones more. The errors that
    come out use them as they are. A measurement that is five standard deviations away (a cosmic
    ray) has no vote where more than two stars can tell. What a cloud that is not even adds to a
    frame is known from the stars of this frame only: of three stars the errors in such frames are
    half of what they should be, of five 0.8 of it; of eight they are nearly right. Two groups of
    frames without a common star have a transparency of 1 each. In the curves of the others the
    levels stay as they are when one star is left out; of many stars none changes them.

    Examples
    --------
    >>> flux = np.array([[100.0, 50.0, 100.0], [200.0, 100.0, np.nan]]) * 100
    >>> found = solve_ensemble(flux, np.sqrt(flux))
    >>> found.flux.round(6).tolist(), found.scale.round(1).tolist()
    ([1.0, 0.5, 1.0], [10000.0, 20000.0])
    """
    flux, error, known, sides = _inputs(flux, flux_err, side)
    vote = known & _voters(flux, error, exclude)[:, None]
    scale = median(flux, 1)
    common = positive(median(np.where(vote, flux / scale[:, None], np.nan), 0))
    vote &= np.isfinite(common)  # A frame without light has no zero point.
    scale = positive(median(flux / common, 1))
    # A vote needs a level, and a level that is more than the measurement itself.
    vote &= (np.isfinite(scale) & ((vote.sum(axis=1) > 1) | (flux.shape[1] == 1)))[:, None]
    relative = flux / (scale[:, None] * common)
    smooth = _smooth_variance(np.square(error / (scale[:, None] * common)), vote)
    intrinsic, far = first_guess(relative - 1, smooth, vote)
    excess, wild = np.zeros(flux.shape[1]), np.zeros(len(flux), bool)
    parts = flux, error, scale, common, np.zeros(flux.shape), np.ones(flux.shape[1])
    for n in range(max_iterations if vote.any() else 0):
        before = common
        variance = smooth + intrinsic[:, None] ** 2 + excess**2
        weight = np.where(vote & ~far, 1 / np.maximum(variance, 1e-30), 0.0)
        for _ in range(2 if n == 0 else 1):
            scale, common = improve(flux, scale, common, weight, sides)
        parts = flux, error, scale, common, weight, lever(weight, sides)
        curves, errors, share = left_out(*parts, intrinsic, excess)
        off = off_level(curves, sides)
        intrinsic = star_scatter(off, errors, intrinsic, known & ~far, weight, len(sides))
        excess = frame_scatter(off, errors, intrinsic, excess, share, weight)
        far, wild = wild_ones(off, np.hypot(errors, intrinsic[:, None]), known, weight, far, wild)
        moved = common / before / median((common / before)[None], 1)
        moved = np.abs(moved - 1) * np.sqrt(weight.sum(axis=0))
        if n > 2 and not np.any(moved > CLOSE):
            break
    return _solution(*parts, intrinsic, excess)


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def sum_ensemble(flux, flux_err, *, exclude=None, side=None):
    """Add up the fluxes of comparison stars: the ensemble that can be followed by hand.

    ``T_t = sum_k F_kt / sum_k a_k``, where a is the median of a star. Only stars are added that
    are there in every epoch in which at least half of the stars are; an epoch in which one of them
    is missing has no sum. So no sum ever loses a term, which would look like a cloud.

    Parameters
    ----------
    flux, flux_err, exclude, side
        As for `solve_ensemble`.

    Returns
    -------
    EnsembleSolution
        As from `solve_ensemble`; the weight of a star is its level.

    Examples
    --------
    >>> flux = np.array([[100.0, 50.0, 100.0], [200.0, 100.0, np.nan], [300.0, 150.0, 300.0]])
    >>> found = sum_ensemble(flux, np.sqrt(flux))
    >>> found.flux.tolist(), found.scale.tolist(), found.n.tolist()
    ([1.0, 0.5, 1.0], [100.0, 200.0, 300.0], [2, 2, 2])
    """
    flux, error, known, sides = _inputs(flux, flux_err, side)
    vote = np.ones(len(flux), bool)
    vote[_rows(exclude)] = False
    many = known[vote].sum(axis=0) >= max(vote.sum() / 2, 1)
    vote &= many.any() & known[:, many].all(axis=1)
    scale = positive(median(flux, 1))
    vote &= np.isfinite(scale)
    epochs = known[vote].all(axis=0) & vote.any()
    weight = np.where(vote[:, None] & epochs, scale[:, None], 0.0)
    with np.errstate(invalid="ignore"):
        common = np.where(epochs, flux[vote].sum(axis=0), np.nan) / scale[vote].sum()
    common = positive(common / median(common[None], 1))
    intrinsic, excess = np.zeros(len(flux)), np.zeros(flux.shape[1])
    scale = positive(median(flux / common, 1))
    parts = flux, error, scale, common, weight, np.ones(flux.shape[1])
    for _ in range(3):
        curves, errors, share = left_out(*parts, intrinsic, excess)
        off = off_level(curves, sides)
        intrinsic = star_scatter(off, errors, intrinsic, known, weight, len(sides))
        excess = frame_scatter(off, errors, intrinsic, excess, share, weight)
    return _solution(*parts, intrinsic, excess)


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
    if side is None:
        return np.array(curves, float)
    return 1 + off_level(curves, [np.asarray(side) == value for value in np.unique(side)])


def median_correction(magnitude):
    """Find the common change of stars as the median of their changes: simpler than `ensemble`.

    ``c(t) = median_k [m_k(t) - median_t m_k]``: every star has one vote, however noisy; nothing has
    to be known about errors.

    Parameters
    ----------
    magnitude : array_like of float, shape (n_star, n_epoch)
        Magnitudes of the comparison stars; NaN or masked where one is missing.

    Returns
    -------
    numpy.ndarray of float, shape (n_epoch,)
        To be subtracted from any star's magnitudes; NaN where no star was measured.

    Examples
    --------
    >>> median_correction([[10.0, 10.5, 10.0], [12.0, 12.5, 12.0], [9.0, 9.5, 9.3]]).tolist()
    [0.0, 0.5, 0.0]
    """
    magnitude = np.ma.masked_invalid(np.ma.asarray(magnitude, float))
    change = magnitude - np.ma.median(magnitude, axis=1, keepdims=True)
    return np.ma.filled(np.ma.median(change, axis=0), np.nan)


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


def _inputs(flux, flux_err, side):
    """Fluxes and errors with NaN in both where one is missing, where they are known, and sides."""
    flux, error = (
        np.ma.filled(np.ma.array(values, dtype=float), np.nan).copy() for values in (flux, flux_err)
    )
    if flux.ndim != 2 or error.shape != flux.shape:
        raise ValueError(
            f"flux {flux.shape} and flux_err {error.shape} must both be (n_star, n_epoch)"
        )
    known = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    flux[~known] = error[~known] = np.nan
    side = np.zeros(flux.shape[1], int) if side is None else np.asarray(side)
    if side.shape != flux.shape[1:]:
        raise ValueError(
            f"side {side.shape} must have one value for each of {flux.shape[1]} epochs"
        )
    return flux, error, known, [side == value for value in np.unique(side)]


def _rows(exclude):
    """Row numbers as an array, also of none."""
    return np.array([] if exclude is None else exclude, int)


def _voters(flux, error, exclude):
    """Stars that have a say: bright enough, and not excluded."""
    able = np.ones(len(flux), bool)
    able[_rows(exclude)] = False
    bright = able & (median(flux / error, 1) >= MIN_SNR)
    return bright if bright.any() else able


def _smooth_variance(variance, vote):
    """Squared relative errors as product of a star's and a frame's, without their noise."""
    star = median(variance, 1)
    frame = median(np.where(vote, variance / star[:, None], np.nan), 0)
    smooth = star[:, None] * frame
    # A measurement of its own kind (few pixels left) keeps its error.
    return np.where(variance > 4 * smooth, variance, smooth)


def _solution(flux, error, scale, common, weight, lever, intrinsic, excess):
    """Put the solution together, with transparencies and curves that are 1 in the median."""
    common = np.where(weight.any(axis=0), common, np.nan)
    curves, errors, _ = left_out(flux, error, scale, common, weight, lever, intrinsic, excess)
    noise = np.square(error / (scale[:, None] * common)) + intrinsic[:, None] ** 2 + excess**2
    total = weight.sum(axis=0)
    sigma = np.sqrt(np.where(weight > 0, weight**2 * noise, 0.0).sum(axis=0) * lever) / total
    middle, level = median(common[None], 1), median(curves, 1)
    level = np.where(np.isfinite(level) & (level > 0), level, 1.0)
    return EnsembleSolution(
        common / middle,
        sigma * common / middle,
        scale * middle * level,
        weight,
        intrinsic,
        excess,
        curves / level[:, None],
        errors / level[:, None],
    )
