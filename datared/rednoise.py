"""Red noise: averages of white noise scatter less the longer they are, red noise does not."""

from dataclasses import dataclass

import numpy as np

__all__ = ["RedNoise", "red_noise"]

MINUTES = 1440.0
#: Degrees of freedom that the bins of one width need to tell anything about beta.
FEWEST = 3
#: Simulated nights of white noise that tell how much beta spreads: its error is known to 5 %.
DRAWS = 200


@dataclass(frozen=True, eq=False)
class RedNoise:
    """Result of `red_noise`.

    Attributes
    ----------
    beta : float
        Scatter of the bins over that of white noise, over the widths that were asked for: 1 for
        white noise, greater for red noise. Errors of what varies as slowly as a transit's flanks
        are to be multiplied by it where it is greater than 1. NaN where it cannot be told.
    beta_err : float
        How much beta of white noise at these times spreads about 1 (from 200 simulations).
    reason : str
        Why beta is NaN; empty otherwise.
    point_scatter : float
        Standard deviation of a single point, with the degrees of freedom taken off.
    widths : numpy.ndarray of float, shape (k,)
        Widths of the bins (minutes).
    points : numpy.ndarray of float, shape (k,)
        Mean number of points in a bin.
    n_bins : numpy.ndarray of int, shape (k,)
        Number of bins that hold a point.
    scatter : numpy.ndarray of float, shape (k,)
        Root mean square of the means of the bins, each weighted with its number of points.
    expected : numpy.ndarray of float, shape (k,)
        The same for white noise of the same ``point_scatter``.
    used : numpy.ndarray of bool, shape (k,)
        Widths that made beta.
    """

    beta: float
    beta_err: float
    reason: str
    point_scatter: float
    widths: np.ndarray
    points: np.ndarray
    n_bins: np.ndarray
    scatter: np.ndarray
    expected: np.ndarray
    used: np.ndarray


def red_noise(time, residual, *, columns=None, widths=(10.0, 30.0)):
    r"""Compare the scatter of binned residuals with that of white noise (Winn et al. 2008).

    Points of white noise average out: means of N points scatter :math:`\sqrt N` times less. What
    lasts longer than a bin, such as clouds, drifts over bad flats or changes of the focus, does
    not. The ratio of both is beta.

    Parameters
    ----------
    time : array_like of float, shape (n,)
        Times (days), in any order.
    residual : array_like of float, shape (n,)
        Light curve minus its model; points that are not finite do not count.
    columns : array_like of float, shape (n,) or (n, p), optional
        What was fitted beside the constant: the columns of the baseline, and for a transit the
        derivatives of its model by the parameters (``model - 1`` for the depth and
        ``numpy.gradient(model, time)`` for the mid-time are enough). A fit takes slow changes out,
        also those of white noise; without this beta would come out too low.
    widths : (float, float)
        Shortest and longest bin (minutes) that count for beta: about as long as the ingress.

    Returns
    -------
    RedNoise
        Beta and its spread, and the scatter at all widths from two points to a quarter of the
        night.

    Raises
    ------
    ValueError
        When shapes differ, or widths are not positive and in order.

    Notes
    -----
    With :math:`n_b` points of mean :math:`x_b` in bin b, out of n residuals :math:`r_i` after a
    fit of p parameters (the constant with them),

    .. math::

        \beta^2 = \frac{\sum_b n_b x_b^2}{\sigma^2 (M - t)}, \qquad
        \sigma^2 = \frac{\sum_i r_i^2}{n - p},

    where M is the number of bins and t the degrees of freedom that the fit took out of the bins:
    :math:`t = \mathrm{trace}(B H)` with the projections B on the bins and H on the columns. For a
    constant alone t is 1, and the scatter of the bins is corrected by :math:`\sqrt{M / (M - 1)}`.
    Winn et al. (2008, ApJ 683, 1076) have this factor in the expectation instead, where it makes
    beta of white noise smaller than 1 when the mean was fitted too: theirs is lower than this one
    by a few per cent. Bins with different numbers of points, and with gaps in them, come in by
    :math:`n_b`. Beta is the root of the mean of :math:`\beta^2` over four starts of the bins and
    over the widths.

    Examples
    --------
    >>> minutes = np.arange(240.0)
    >>> slow = 0.001 * np.sin(minutes / 20)
    >>> noise = np.random.default_rng(1).normal(0, 0.002, 240)
    >>> white, red = (red_noise(minutes / 1440, r) for r in (noise, noise + slow))
    >>> bool(white.beta < 1.3 < 1.5 < red.beta)
    True
    """
    time, residual, design = _finite(time, residual, columns)
    low, high = (float(width) for width in widths)
    if not 0 < low <= high < np.inf:
        raise ValueError(f"widths {widths} must be two positive numbers in order (minutes)")
    n = len(time)
    empty = np.empty(0)
    if n < 2 or np.ptp(time) == 0:
        reason = f"{n} points of one time" if n else "no point is finite"
        return RedNoise(
            np.nan, np.nan, reason, np.nan, empty, empty, empty.astype(int), empty, empty,
            empty.astype(bool),
        )  # fmt: skip
    basis = _orthonormal(design)
    dof = n - basis.shape[1]
    # Simulated white noise goes the same way as the residuals (row 0), also through the fit.
    white = np.random.default_rng(0).normal(size=(DRAWS, n))
    rows = np.vstack([residual, white - (white @ basis) @ basis.T])
    cadence, span = float(np.median(np.diff(time))) * MINUTES, float(time[-1]) * MINUTES
    grid = _grid(cadence, span, low, high)
    inside = (grid > low - 1e-9) & (grid < high + 1e-9)
    bins, free, squares = np.empty(len(grid)), np.empty(len(grid)), np.empty((len(grid), len(rows)))
    for k, width in enumerate(grid):
        some = rows if inside[k] else rows[:1]
        bins[k], free[k], squares[k] = _of_width(time * MINUTES, some, basis, width)
    used = inside & (n / bins >= 2) & (free >= FEWEST)
    variance = np.sum(rows**2, axis=1) / dof if dof > 0 else np.full(len(rows), np.nan)
    beta, spread, reason = np.nan, np.nan, ""
    if dof < 1:
        reason = f"{n} points, of which a fit of {basis.shape[1]} columns leaves nothing"
    elif not variance[0] > 0:
        reason = "the residuals do not scatter"
    elif not used.any():
        reason = (
            f"{n} points in {span:.0f} min, one in {cadence:.1f} min, make no {FEWEST} bins of "
            f"{low:g} to {high:g} min with two points each"
        )
    else:
        ratio = np.sqrt(np.mean(squares[used] / free[used, None], axis=0) / variance)
        beta, spread = float(ratio[0]), float(np.std(ratio[1:]))
    sigma = float(np.sqrt(variance[0]))
    return RedNoise(
        beta, spread, reason, sigma, grid, n / bins, np.rint(bins).astype(int),
        np.sqrt(squares[:, 0] / n), sigma * np.sqrt(np.maximum(free, 0) / n), used,
    )  # fmt: skip


def _finite(time, residual, columns):
    """Finite points in the order of time, with the constant before the columns."""
    time, residual = (
        np.ma.filled(np.ma.asarray(value, dtype=float), np.nan) for value in (time, residual)
    )
    if time.ndim != 1 or time.shape != residual.shape:
        raise ValueError(f"time {time.shape} and residual {residual.shape} must both be (n,)")
    design = np.ones((len(time), 1))
    if columns is not None:
        columns = np.asarray(columns, float)
        if columns.ndim == 0 or len(columns) != len(time):
            raise ValueError(f"columns {columns.shape} must be (n, p) with n = {len(time)}")
        design = np.column_stack([design, columns.reshape(len(time), -1)])
    good = np.isfinite(time) & np.isfinite(residual) & np.isfinite(design).all(axis=1)
    order = np.flatnonzero(good)[np.argsort(time[good], kind="stable")]
    time = time[order]
    return time - time[0] if len(time) else time, residual[order], design[order]


def _orthonormal(design):
    """Orthonormal basis of the columns; a column that the others make adds nothing."""
    length = np.sqrt(np.sum(design**2, axis=0))
    left, size, _ = np.linalg.svd(design[:, length > 0] / length[length > 0], full_matrices=False)
    return left[:, size > 1e-8 * size[0]]


def _grid(cadence, span, low, high):
    """Widths in minutes: from two points to a quarter of the night, and through low to high."""
    longest = max(span / 4, 2 * cadence)
    wide = np.geomspace(2 * cadence, longest, 25) if cadence > 0 else np.empty(0)
    return np.unique(np.round(np.concatenate([wide, np.linspace(low, high, 9)]), 9))


def _of_width(minutes, rows, basis, width):
    """Return number of bins, degrees of freedom left in them, sum of squares of each row."""
    bins, free, squares = [], [], []
    for start in (0.0, 0.25, 0.5, 0.75):
        # A point on the border must not change its bin because times are rounded.
        number = np.floor(minutes / width + start + 1e-6)
        first = np.flatnonzero(np.diff(number, prepend=-1))
        count = np.diff(first, append=len(minutes))
        squares.append(np.sum(np.add.reduceat(rows, first, axis=1) ** 2 / count, axis=1))
        held = np.sum(np.add.reduceat(basis, first, axis=0) ** 2 / count[:, None])
        bins.append(len(first))
        free.append(len(first) - held)
    return np.mean(bins), np.mean(free), np.mean(squares, axis=0)
