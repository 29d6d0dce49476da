"""Light curves after the fact: averages in bins, and the step of a meridian flip."""

import numpy as np
from astropy.table import Table

__all__ = ["align_sides", "bin_by_count", "bin_by_time"]


def align_sides(flux, flux_err, side, *, baseline=None):
    """Remove the step of a meridian flip: each side's own level is divided out.

    A flip puts every star on other pixels, with another error of the flat. Only epochs outside of
    the event tell the level; where one side has none the step cannot be told from the event.

    Parameters
    ----------
    flux, flux_err : array_like of float, shape (n,)
        Relative fluxes and errors; a value that is NaN or masked, or has no positive error, tells
        nothing of the level.
    side : array_like of bool, shape (n,)
        Side of the pier, such as the column ``flipped``.
    baseline : array_like of bool, shape (n,), optional
        Epochs outside of the event; all by default.

    Returns
    -------
    flux : numpy.ndarray of float, shape (n,)
        Aligned fluxes, on the level of both sides together.
    step, step_err : float
        Ratio of the side True to the side False minus 1, and its error; NaN, and nothing is
        changed, where there is one side only or a side without light.
    """
    flux, error = (np.ma.filled(np.ma.array(a, dtype=float), np.nan) for a in (flux, flux_err))
    side = np.asarray(side, bool)
    use = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    use &= np.ones(len(flux), bool) if baseline is None else np.asarray(baseline, bool)
    levels, errors = np.full(2, np.nan), np.full(2, np.nan)
    for k in (0, 1):
        mine = use & (side == bool(k))
        if mine.any():
            levels[k], errors[k] = _weighted_mean(flux[mine], error[mine])
    if not np.all(levels > 0):
        return flux, np.nan, np.nan
    together, _ = _weighted_mean(flux[use], error[use])
    step = levels[1] / levels[0] - 1
    step_err = (1 + step) * np.hypot(*(errors / levels))
    return flux * together / levels[side.astype(int)], float(step), float(step_err)


def bin_by_count(time, flux, flux_err, *, count):
    """Average a light curve in bins of equal number.

    Parameters
    ----------
    time, flux, flux_err : array_like of float, shape (n,)
        Times, fluxes and errors; points that are not finite do not count.
    count : int
        Points in one bin. The last bin has what is left.

    Returns
    -------
    astropy.table.Table
        ``time`` and ``flux`` (means with inverse variances), ``flux_err`` (from the errors),
        ``flux_scatter`` (standard error from the scatter, NaN for one point), ``n``, ``partial``.

    Examples
    --------
    >>> bins = bin_by_count(range(37), [1.0] * 37, [0.1] * 37, count=10)
    >>> bins["n"].tolist(), bins["partial"].tolist()
    ([10, 10, 10, 7], [False, False, False, True])
    """
    if count < 1:
        raise ValueError(f"count {count} must be 1 or more")
    time, flux, error = _points(time, flux, flux_err)
    number = np.arange(len(time)) // int(count)
    return _binned(time, flux, error, number, full=int(count))


def bin_by_time(time, flux, flux_err, *, width):
    """Average a light curve in bins of equal length, counted from the first point.

    Parameters
    ----------
    time, flux, flux_err : array_like of float, shape (n,)
        Times, fluxes and errors; points that are not finite do not count.
    width : float
        Length of a bin, in the unit of ``time``. Bins without a point (gaps) are left out.

    Returns
    -------
    astropy.table.Table
        As from `bin_by_count`; a bin is partial that has less than three quarters of the points of
        a typical (median) bin.
    """
    if not width > 0:
        raise ValueError(f"width {width} must be positive")
    time, flux, error = _points(time, flux, flux_err)
    # A point on the border must not fall into the earlier bin because Julian dates are rounded.
    number = np.floor((time - time[0]) / width + 1e-6).astype(int) if len(time) else []
    return _binned(time, flux, error, np.asarray(number, int), full=None)


def _points(time, flux, flux_err):
    """Return the finite points in the order of time."""
    columns = [
        np.ma.filled(np.ma.asarray(value, dtype=float), np.nan) for value in (time, flux, flux_err)
    ]
    shapes = [column.shape for column in columns]
    if len(set(shapes)) > 1:
        raise ValueError(f"time, flux and flux_err must be of one length, not {shapes}")
    good = np.all(np.isfinite(columns), axis=0) & (columns[2] > 0)
    order = np.argsort(columns[0][good], kind="stable")
    return (column[good][order] for column in columns)


def _binned(time, flux, error, number, *, full):
    """Table of the bins, from the bin number of each point."""
    names = ("time", "flux", "flux_err", "flux_scatter", "n")
    rows = []
    for k in np.unique(number):
        mine = number == k
        weight = 1 / error[mine] ** 2
        mean, sigma = _weighted_mean(flux[mine], error[mine])
        n = int(mine.sum())
        scatter = np.std(flux[mine], ddof=1) / np.sqrt(n) if n > 1 else np.nan
        # Away from zero the sums of weighted Julian dates would lose digits.
        middle = time[mine][0] + np.average(time[mine] - time[mine][0], weights=weight)
        rows.append((middle, mean, sigma, scatter, n))
    table = Table(rows=rows or None, names=names, dtype=(float, float, float, float, int))
    limit = full if full is not None else 0.75 * np.median(table["n"]) if rows else 0
    table["partial"] = np.asarray(table["n"]) < limit
    return table


def _weighted_mean(value, error):
    """Mean with inverse variances, and its error."""
    weight = 1 / error**2
    return np.sum(weight * value) / weight.sum(), 1 / np.sqrt(weight.sum())
