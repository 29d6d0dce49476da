"""How strongly stars of one night follow slow changes: learned from the comparison stars.

Each star has its own answer to the airmass, to its place on the detector and to the others. How
large such answers are in a night is what its comparison stars can tell, without a look at the
target: it is the width of the prior with which the target's own answer enters its fit.
"""

import numpy as np
from scipy.stats import chi2

from .baselines import baseline_columns, fitted_jitter, measured, numbers
from .curveflags import flag_outliers
from .pixelpattern import pattern_columns

__all__ = ["FEWEST_STARS", "LEARNED", "learn_trends", "trend_chance", "trend_widths"]

#: Columns whose widths are learned. The square of the time is not among them: no cause is known
#: for it that the others do not have, and it looks most like a transit.
LEARNED = ("flip", "time", "airmass", "fwhm", "x", "y", "sky")
#: Of fewer stars, the width of a column is a guess: its relative error is 1 / sqrt(2 n).
FEWEST_STARS = 8
#: Width that changes no fit: a hundredth of a millimagnitude.
LEAST = 1e-5
MOST_STEPS = 2000
#: The last step changes no variance by this share, of widths that matter (0.05 mmag).
CLOSE, MATTERS = 1e-3, 5e-5


def learn_trends(curve, solution):
    """Learn from the comparison stars of a light curve how strongly stars follow its columns.

    Parameters
    ----------
    curve : astropy.table.Table
        Light curve of the target, n epochs: its columns are used, and which epochs are good.
    solution : datared.ensemble.EnsembleSolution
        The ensemble it was made with. Row 0 is the target, which is not looked at.

    Returns
    -------
    dict
        ``trends``: width of each usable column of `LEARNED` (see `trend_widths`; columns as from
        `datared.baselines.baseline_columns` over the epochs that are not flagged), and ``pattern``
        for the columns of `datared.pixelpattern.pattern_columns`, which all have one. Empty where
        there are fewer than 8 comparison stars that can tell. ``trend_stars``: their number.
    """
    used = ~np.asarray(flag_outliers(curve)["flagged"], bool)
    if not used.any():
        return {"trends": {}, "trend_stars": 0}
    columns = baseline_columns(curve, names=LEARNED, used=used)
    pattern = pattern_columns(curve, used=used)
    # A measurement without a vote in the ensemble is a wild one.
    good = (solution.weight[1:] > 0) & used
    # All stars drift by the same way, so the target's place tells what pixels each has left.
    design = [*columns.itercols(), *pattern.itercols()]
    names = columns.colnames + ["pattern"] * len(pattern.colnames)
    widths, n = trend_widths(
        np.where(good, solution.curves[1:], np.nan),
        solution.errors[1:],
        np.column_stack(design) if design else used[:, None][:, :0],
        groups=names,
    )
    told = {name: float(f"{w:.3g}") for name, w in zip(names, widths, strict=True) if w > 0}
    return {"trends": told, "trend_stars": n}


def trend_widths(curves, errors, columns, *, groups=None):
    r"""Learn how strongly stars follow each column, from the curves of comparison stars.

    The model of star k is :math:`f_k = c_k + \sum_j a_{kj} x_j + \epsilon`, with its own
    coefficients. Those of one column come from one normal distribution of mean 0, and its standard
    deviation w is found that makes the curves of all stars most probable together (automatic
    relevance determination). A column that no star follows gets a width near 0.

    Parameters
    ----------
    curves, errors : array_like of float, shape (n_star, n_epoch)
        Relative fluxes, each star against the *others*, and their errors; NaN where one is not to
        be used.
    columns : array_like of float, shape (n_epoch, k)
        Columns of the baseline, from `datared.baselines.baseline_columns`.
    groups : sequence, shape (k,), optional
        Names of the columns; those with one name have one width. By default each has its own.

    Returns
    -------
    widths : numpy.ndarray of float, shape (k,)
        Standard deviation of the coefficients (relative flux for one unit of the column), at least
        1e-5, and wider by the root of ``n / (n - 2)``, as few stars do not know it well. NaN where
        fewer than 8 stars can tell.
    n : int
        Number of stars that told: those with at least twice as many epochs as coefficients.

    Raises
    ------
    ValueError
        If shapes differ.

    Notes
    -----
    Expectation-maximisation (Dempster, Laird & Rubin 1977, J. R. Stat. Soc. B 39, 1), as for the
    relevance of MacKay (1992, Neural Comput. 4, 415) and Tipping (2001, J. Mach. Learn. Res. 1,
    211): with the posterior mean m and covariance S of the coefficients of each star,
    :math:`w_j^2 = \langle m_{kj}^2 + S_{kjj} \rangle_k`. The level of each star is free. The
    variance of a point is its error squared and the jitter squared with which the star's chi-square
    equals its degrees of freedom when all columns are fitted freely.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> columns = rng.normal(size=(200, 2))
    >>> answers = rng.normal(0, 0.002, 40)
    >>> curves = 1 + answers[:, None] * columns[:, 0] + rng.normal(0, 0.003, (40, 200))
    >>> widths, n = trend_widths(curves, np.full(curves.shape, 0.003), columns)
    >>> n, bool(0.0014 < widths[0] < 0.0026), bool(widths[1] < 3e-4)
    (40, True, True)
    """
    curves, errors = np.asarray(curves, float), np.asarray(errors, float)
    columns = np.asarray(columns, float)
    if curves.shape != errors.shape or curves.ndim != 2 or columns.shape[:1] != curves.shape[1:]:
        raise ValueError(
            f"curves {curves.shape} and errors {errors.shape} must be (n_star, n_epoch), columns "
            f"{columns.shape} (n_epoch, k)"
        )
    k = columns.shape[1]
    _, group = np.unique(np.arange(k) if groups is None else groups, return_inverse=True)
    members = np.bincount(group, minlength=k or 1)
    found = []
    for curve, error in zip(curves, errors, strict=True):
        good = np.isfinite(curve) & np.isfinite(error) & (error > 0)
        if good.sum() >= 2 * (k + 1):
            found.append(_told(curve[good], error[good], columns[good]))
    n = len(found)
    if n < FEWEST_STARS or k == 0:
        return np.full(k, np.nan), n
    squares, pulls = (np.array(part) for part in zip(*found, strict=True))
    # A start that is too wide only takes more steps.
    variance = np.mean(pulls**2 / np.maximum(np.diagonal(squares, axis1=1, axis2=2), 1e-30) ** 2, 0)
    for _ in range(MOST_STEPS):
        width = np.sqrt(variance)
        # In this form a width may be zero: S = w (1 + w A w)^-1 w.
        inner = np.linalg.inv(np.eye(k) + width[:, None] * squares * width)
        covariance = width[:, None] * inner * width
        mean = (covariance @ pulls[:, :, None])[:, :, 0]
        before = variance
        each = np.mean(mean**2 + np.diagonal(covariance, axis1=1, axis2=2), axis=0)
        variance = (np.bincount(group, each, minlength=len(members)) / members.clip(1))[group]
        if np.all(np.abs(variance - before) <= CLOSE * np.maximum(variance, MATTERS**2)):
            break
    # What a scatter known from n stars says of one more has this variance (Student's t).
    return np.maximum(np.sqrt(variance * n / (n - 2)), LEAST), n


def trend_chance(curve, columns, widths, *, outside):
    """Tell how probable it is that a star follows columns as much as it does.

    Parameters
    ----------
    curve : astropy.table.Table
        Its light curve, n epochs.
    columns : astropy.table.Table
        Columns from `datared.baselines.baseline_columns`, n rows.
    widths : dict of str to float
        Standard deviation of the coefficient of each column, from other stars.
    outside : numpy.ndarray of bool, shape (n,)
        Epochs outside of any event.

    Returns
    -------
    float
        Probability that a star of these widths has trends at least as large (chi-square of the
        vector of coefficients); 1 where too few epochs can tell.
    """
    names = columns.colnames
    use = measured(curve) & outside
    if not names or use.sum() < 2 * (len(names) + 1):
        return 1.0
    design = np.column_stack([columns[name][use] for name in names])
    square, pull = _told(numbers(curve, "flux")[use], numbers(curve, "flux_err")[use], design)
    # Of coefficients c the pull is square @ c and noise whose covariance is square.
    wide = np.minimum([widths[name] for name in names], 1.0)  # A free one may do anything.
    variance = square + (square * wide**2) @ square
    size, axes = np.linalg.eigh(variance)
    some = size > 1e-9 * size[-1]  # A flip between the epochs of the event tells nothing here.
    return float(chi2.sf(np.sum((axes[:, some].T @ pull) ** 2 / size[some]), some.sum()))


def _told(curve, error, columns):
    """Products of a star's columns with themselves and with its curve, its level taken out."""
    free = [np.ones(len(curve)), *columns.T]
    weight = 1 / (error**2 + fitted_jitter(curve, error, free) ** 2)
    columns = columns - np.average(columns, axis=0, weights=weight)
    curve = curve - np.average(curve, weights=weight)
    return (columns.T * weight) @ columns, (columns.T * weight) @ curve
