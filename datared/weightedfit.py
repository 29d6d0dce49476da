"""Weighted fits whose errors grow where the points scatter by more than they should."""

import numpy as np

__all__ = ["fit_columns", "fit_line", "widened_fit"]


def fit_columns(x, y, errors, what, against):
    """Float columns for a fit, without rows that are masked or not finite.

    Parameters
    ----------
    x, y, errors : array-like of float, shape (n,)
        The points; errors may be None.
    what, against : str
        What y and x are, for messages.

    Returns
    -------
    x, y, sigma : numpy.ndarray of float
        Of one length; errors of 1 where there are none.
    given : bool
        Whether there are errors.

    Raises
    ------
    ValueError
        If the lengths differ, or an error is not positive.
    """
    given = errors is not None
    columns = (x, y, errors if given else np.ones(np.shape(y)))
    x, y, sigma = (np.atleast_1d(np.ma.filled(np.ma.asarray(c, float), np.nan)) for c in columns)
    if not x.shape == y.shape == sigma.shape:
        raise ValueError(
            f"{x.size} {against}, {y.size} {what} and {sigma.size} errors: give one of each for "
            "each point."
        )
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(sigma)
    if np.any(sigma[good] <= 0):
        raise ValueError(f"errors of {what} are positive; this is {sigma[good].min():g}.")
    return x[good], y[good], sigma[good], given


def fit_line(x, y, sigma):
    """Fit a line with weights.

    Parameters
    ----------
    x, y, sigma : numpy.ndarray of float, shape (n,)
        The points, at two different x or more, and the standard deviations of y.

    Returns
    -------
    parameters : tuple of float
        Slope and intercept.
    covariance : numpy.ndarray of float, shape (2, 2)
        Of these.
    pulls : numpy.ndarray of float, shape (n,)
        Residuals in units of the errors.
    """
    weight = sigma**-2.0
    middle, level = (float(np.average(column, weights=weight)) for column in (x, y))
    # From the middle on, slope and level are independent of each other.
    along, rest = x - middle, y - level
    variance = 1 / float(np.sum(weight * along**2))
    slope = variance * float(np.sum(weight * along * rest))
    corner = 1 / float(np.sum(weight)) + middle**2 * variance
    covariance = np.array([[variance, -middle * variance], [-middle * variance, corner]])
    return (slope, level - slope * middle), covariance, (rest - slope * along) / sigma


def widened_fit(fit, free, most):
    """Find the scatter to add to the errors for a chi squared per degree of freedom of 1.

    Parameters
    ----------
    fit : callable
        ``fit(scatter)`` gives a tuple, the pulls last.
    free : int
        Degrees of freedom.
    most : float
        Largest scatter.

    Returns
    -------
    scatter : float
        To 1e-9 of the largest.
    found : tuple
        The fit with it.
    """
    least = 0.0
    for _ in range(30):
        scatter = 0.5 * (least + most)
        found = fit(scatter)
        wide = np.sum(found[-1] ** 2) <= free
        least, most = (least, scatter) if wide else (scatter, most)
    return scatter, found
