"""What artificial stars tell: the share that is found, by flux, and the true error of a flux.

The functions are reached through `datared.artificial`, which makes the stars.
"""

import itertools
import math

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table
from scipy.optimize import minimize
from scipy.special import expit

__all__ = ["completeness", "flux_limit"]

#: Normal width of a median, in units of that of a mean.
MEDIAN = math.sqrt(math.pi / 2)


def completeness(table, *, bins=8):
    r"""Share of the artificial stars that were found, and how true their fluxes are, by flux.

    The range of a share ``p = k / n`` is that of Wilson (1927, JASA 22, 209) for one standard
    deviation; it stays between 0 and 1, also where all or none was found:

    .. math:: \frac{p + 1 / 2n \pm \sqrt{p (1 - p) / n + 1 / 4n^2}}{1 + 1 / n}

    Parameters
    ----------
    table : astropy.table.Table
        Result of `artificial_stars`, or some of its rows.
    bins : int or sequence of float
        Number of bins, evenly in magnitude, or their edges in flux.

    Returns
    -------
    astropy.table.Table
        One row for each bin that has a star: ``flux`` (geometric mean), ``flux_low`` and
        ``flux_high`` (edges), ``n``, ``n_found``, ``completeness``, ``completeness_low``,
        ``completeness_high``. Of those found, as shares of their flux: ``bias`` (median of measured
        minus true), ``bias_err``, ``true_error`` (1.4826 times the median distance from the bias),
        ``stated_error`` (median); and ``error_ratio``, the width (in the same sense) of measured
        minus true in units of each stated error: 1 if the errors are true. NaN below 3 stars.

    Raises
    ------
    ValueError
        If the table is empty, or the bins are none.
    """
    flux = np.asarray(table["flux"], float)
    if not flux.size:
        raise ValueError("the table has no artificial star")
    if np.ndim(bins) == 0:
        low, high = flux.min(), flux.max()
        high = high * (1 + 1e-9) if high > low else 1.001 * low
        edges = np.geomspace(low, high, max(int(bins), 0) + 1)
        edges[0] = low
    else:
        edges = np.asarray(bins, float)
    if edges.size < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"bins {bins} must be 1 or more, or at least two rising edges in flux")
    found = np.asarray(table["found"], bool)
    difference = np.asarray(table["flux_found"], float) - flux
    error = np.asarray(table["flux_err"], float)
    rows = []
    for first, last in itertools.pairwise(edges):
        inside = (flux >= first) & (flux < last)
        total, good = np.count_nonzero(inside), inside & found
        if not total:
            continue
        share = np.count_nonzero(good) / total
        middle = (share + 0.5 / total) / (1 + 1 / total)
        half = math.sqrt(share * (1 - share) / total + 0.25 / total**2) / (1 + 1 / total)
        rows.append((
            math.exp(np.mean(np.log(flux[inside]))), first, last, total, np.count_nonzero(good),
            share, middle - half if share > 0 else 0.0, middle + half if share < 1 else 1.0,
            *_errors(difference[good], flux[good], error[good]),
        ))  # fmt: skip
    names = "flux flux_low flux_high n n_found completeness completeness_low completeness_high"
    names += " bias bias_err true_error stated_error error_ratio"
    result = Table(rows=rows, names=names.split())
    for name in result.colnames:
        if result[name].dtype.kind == "f":
            result[name].info.format = ".1f" if name.startswith("flux") else ".3f"
    return result


def flux_limit(table, *, share=0.5):
    r"""Flux at which a given share of the stars is found.

    The most likely curve of the form

    .. math:: p(F) = \frac{t}{1 + (F_0 / F)^s}, \quad t \le 1

    through all artificial stars, each found or not; no bins are needed. ``t`` is what bright stars
    reach: in a crowd some of them are lost as well.

    Parameters
    ----------
    table : astropy.table.Table
        Result of `artificial_stars`, or some of its rows. Fluxes must reach well below and above
        the limit.
    share : float
        Share that is found, between 0 and 1.

    Returns
    -------
    tuple of float
        The flux, and its standard deviation from the curvature of the likelihood.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1 or is never reached, or if all stars were found, or
        none.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share} must be between 0 and 1")
    found = np.asarray(table["found"], bool)
    if not found.size:
        raise ValueError("the table has no artificial star")
    if found.all() or not found.any():
        which = "all stars were found: add fainter" if found.all() else "none was found: add bright"
        raise ValueError(f"{which} ones, so that the limit lies between")
    logs = np.log(np.asarray(table["flux"], float))
    zero, scale = logs.mean(), max(logs.std(), 1e-3)
    u = (logs - zero) / scale

    def minus_log_likelihood(p):
        """Return the value and its gradient."""
        curve = expit(p[0] + p[1] * u)
        each = np.clip(p[2] * curve, 1e-12, 1 - 1e-12)
        inner = p[2] * curve * (1 - curve)
        slopes = np.array([inner, u * inner, curve])
        value = -np.sum(np.log(np.where(found, each, 1 - each)))
        gradient = -slopes @ np.where(found, 1 / each, -1 / (1 - each))
        # A steep curve through stars that are neatly separated has no best slope: a weak leash.
        gradient[1] += 2e-4 * p[1]
        return value + 1e-4 * p[1] ** 2, gradient

    start = [0.0, 3.0, 0.95]
    bounds = [(None, None), (0.1, 100.0), (0.02, 1.0)]
    a, b, top = minimize(minus_log_likelihood, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    if share >= top:
        raise ValueError(f"a share of {share:g} is never reached: bright stars reach {top:.2f}")
    curve = expit(a + b * u)
    slopes = np.column_stack([top * curve * (1 - curve), top * u * curve * (1 - curve), curve])
    # A curve that ends at 1 has no uncertain end.
    free = slice(0, 3 if top < 1 - 1e-6 else 2)
    weight = 1 / np.maximum(top * curve * (1 - top * curve), 1e-9)
    matrix = slopes.T @ (weight[:, None] * slopes) + np.diag([0, 2e-4, 0])
    covariance = np.linalg.inv(matrix[free, free])
    where = (math.log(share / (top - share)) - a) / b
    slope = np.array([-1 / b, -where / b, -1 / (b * (top - share))])[free]
    flux = math.exp(zero + scale * where)
    return flux, flux * scale * math.sqrt(slope @ covariance @ slope)


def _errors(difference, flux, error):
    """Bias, its error, true and stated error as shares of the flux, and the width of the pulls."""
    if difference.size < 3:
        return (math.nan,) * 5
    relative = difference / flux
    scatter = mad_std(relative)
    known = np.isfinite(error) & (error > 0)
    stated = np.median(error[known] / flux[known]) if known.any() else math.nan
    width = mad_std(difference[known] / error[known]) if known.sum() > 2 else math.nan
    bias_error = MEDIAN * scatter / math.sqrt(relative.size)
    return np.median(relative), bias_error, scatter, stated, width
