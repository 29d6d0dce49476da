"""Slow changes that are not the star's: columns for a baseline, which of them to use, outliers.

A column is a number of each frame, such as the airmass, that the brightness may follow. Which ones
do is asked of the epochs outside of the event only: a choice that looked at the event would make
the event that it wants to see.
"""

import itertools
import warnings

import numpy as np
from astropy.table import Table

from .baselines import (
    COLUMNS,
    baseline_columns,
    epoch_mask,
    fitted_jitter,
    measured,
    numbers,
    solve_linear,
)
from .curveflags import flag_outliers
from .errors import DataredError, DataredWarning

__all__ = [
    "COLUMNS",
    "baseline_columns",
    "baseline_zero",
    "choose_columns",
    "detrend",
    "flag_outliers",
]

#: Two columns with a stronger correlation say the same.
COLLINEAR = 0.98
#: Epochs outside of the event for each coefficient, at least.
EPOCHS_EACH = 5


def choose_columns(curve, *, outside, names=None, always=("flip",), margin=2.0):
    r"""Compare all sets of baseline columns on the epochs outside of the event.

    Each set is fitted to the flux by linear least squares. The set is chosen that has the fewest
    columns among those whose BIC is within ``margin`` of the lowest: a column has to earn its
    place, and one that does not only makes the result of the fit less certain.

    Parameters
    ----------
    curve : astropy.table.Table
        A light curve, n rows.
    outside : array_like of bool, shape (n,)
        Epochs outside of the event, from the ephemeris, without those that are flagged.
    names : sequence of str, optional
        Columns to try; all of `COLUMNS` that can be used by default.
    always : sequence of str
        Columns that are in every set where they can be used. By default the step of a meridian
        flip: its cause is known, and outside of the event a slope looks much like a step.
    margin : float
        Difference of BIC that a further column must win. Below 2 a difference is "not worth more
        than a bare mention" (Kass and Raftery 1995, J. Am. Stat. Assoc. 90, 773). Over simulated
        nights, higher margins leave columns out that are there, and bias the depth.

    Returns
    -------
    astropy.table.Table
        One row for each set, the lowest BIC first: ``columns`` (names joined by " + ", "constant"
        without any), ``k`` (coefficients), ``chi2``, ``bic``, ``delta_bic``, ``chosen``. In
        ``meta``: ``chosen`` (list of names), ``reason``, ``n`` (epochs), ``jitter`` (relative
        flux), ``left_out`` (reason for each column that was not tried) and ``collinear`` (pairs).

    Raises
    ------
    DataredError
        If fewer than 5 epochs outside of the event have a flux.
    ValueError
        If a name is not known or shapes differ.

    Warns
    -----
    DataredWarning
        If two columns say the same, outside and in the event (correlation above 0.98): no set has
        both. If a meridian flip is in the night but these epochs are on one side of it.

    Notes
    -----
    BIC = :math:`\chi^2 + k \ln n`, with :math:`\sigma_i^2 = \sigma_{\rm flux}^2 + j^2`. The jitter
    j is the same for all sets; with it the set that fits best has a :math:`\chi^2` as large as its
    degrees of freedom. ``time2`` comes only with ``time``; there are at least 5 epochs for each
    coefficient.
    """
    use = measured(curve) & epoch_mask(outside, len(curve))
    n = int(use.sum())
    if n < EPOCHS_EACH:
        raise DataredError(
            f"only {n} epochs outside of the event have a flux; to choose columns at least "
            f"{EPOCHS_EACH} are needed. Name the columns, or fit a constant"
        )
    names = list(dict.fromkeys([*always, *(COLUMNS if names is None else names)]))
    columns = baseline_columns(curve, names=names, used=use)
    left_out = columns.meta["left_out"]
    if "time2" in columns.colnames and "time" not in columns.colnames:
        columns.remove_column("time2")
        left_out["time2"] = "time is not among the columns"
    if left_out.get("flip") and np.ptp(numbers(curve, "flipped")[measured(curve)]) > 0:
        warnings.warn(
            f"the meridian flip: {left_out['flip']}. Its step cannot be told without a model of "
            "the event: fit both together, or use one side only",
            DataredWarning,
            stacklevel=2,
        )
    pairs = _collinear(columns[measured(curve)], columns[use])
    if pairs:
        told = "; ".join(f"{a} and {b} (correlation {r:+.3f})" for a, b, r in pairs)
        warnings.warn(
            f"columns that say the same in this light curve: {told}. Which of two is the cause "
            "cannot be told; no set has both",
            DataredWarning,
            stacklevel=2,
        )
    pairs = [pair[:2] for pair in pairs]
    for first, second in pairs:
        if first in always and second in always and second in columns.colnames:
            columns.remove_column(second)
            left_out[second] = f"it says the same as {first}"
    always = [name for name in always if name in columns.colnames]
    flux, error = (numbers(curve, name)[use] for name in ("flux", "flux_err"))
    design = np.column_stack([np.ones(n), *(columns[name][use] for name in columns.colnames)])
    most = max(n // EPOCHS_EACH - 1, len(always))
    sets = list(_sets(columns.colnames, always, pairs, most))
    # The constant is the first column of each.
    parts = [[0, *(1 + columns.colnames.index(name) for name in some)] for some in sets]
    k = np.array([len(part) for part in parts])
    closest = int(np.argmin(_chi_squares(flux, error, design, parts) / np.maximum(n - k, 1)))
    jitter = fitted_jitter(flux, error, design[:, parts[closest]].T)
    chi2 = _chi_squares(flux, np.hypot(error, jitter), design, parts)
    table = Table({"columns": [" + ".join(some) or "constant" for some in sets], "k": k})
    table["chi2"], table["bic"] = chi2, chi2 + k * np.log(n)
    table["delta_bic"] = table["bic"] - table["bic"].min()
    near = np.flatnonzero(table["delta_bic"] <= margin)
    best = min(near, key=lambda row: (table["k"][row], table["bic"][row]))
    table["chosen"] = np.arange(len(table)) == best
    lowest = str(table["columns"][np.argmin(table["bic"])])
    reason = "the lowest BIC, and no smaller set is near it"
    if table["delta_bic"][best] > 0:
        reason = f"the fewest columns within {margin:g} of the lowest BIC ({lowest})"
    table.meta = {
        "chosen": list(sets[best]), "reason": reason, "n": n, "jitter": float(jitter),
        "left_out": left_out, "collinear": pairs,
    }  # fmt: skip
    table.sort(["bic", "k"])
    return table


def detrend(curve, *, outside, names):
    """Divide a baseline out that was fitted to the epochs outside of the event.

    This is for looking at a curve. For numbers, fit baseline and event together: what a division
    leaves uncertain is not in the errors any more.

    Parameters
    ----------
    curve : astropy.table.Table
        A light curve, n rows.
    outside : array_like of bool, shape (n,)
        Epochs outside of the event, without those that are flagged.
    names : sequence of str
        Columns of `COLUMNS`, such as ``choose_columns(...).meta["chosen"]``.

    Returns
    -------
    curve : astropy.table.Table
        A copy with ``flux`` and ``flux_err`` divided by the baseline, and ``baseline``.
    coefficients : astropy.table.Table
        ``column`` ("constant" first), ``coefficient`` (relative flux for one standard deviation of
        the column) and ``error``.

    Raises
    ------
    DataredError
        If there are not more epochs than coefficients.

    Warns
    -----
    DataredWarning
        If a column cannot be used, or if its values in the event lie beyond those outside: the
        correction is an extrapolation there.
    """
    outside = epoch_mask(outside, len(curve))
    use = measured(curve) & outside
    columns = baseline_columns(curve, names=names, used=use)
    design = [np.ones(len(curve)), *(np.asarray(columns[name]) for name in columns.colnames)]
    flux, error = (numbers(curve, name) for name in ("flux", "flux_err"))
    if use.sum() <= len(design):
        raise DataredError(
            f"{use.sum()} epochs outside of the event cannot tell {len(design)} coefficients; name "
            "fewer columns"
        )
    for name, reason in columns.meta["left_out"].items():
        warnings.warn(f"no correction for {name}: {reason}", DataredWarning, stacklevel=2)
    for name in columns.colnames:
        value = np.asarray(columns[name])
        inside, known = value[measured(curve) & ~outside], value[use]
        beyond = np.count_nonzero((inside < known.min()) | (inside > known.max()))
        if beyond > 0.25 * len(inside):
            warnings.warn(
                f"{name}: {beyond} of {len(inside)} epochs of the event lie beyond the values "
                "outside of it; the correction is an extrapolation there",
                DataredWarning,
                stacklevel=2,
            )
    some = [column[use] for column in design]
    total = np.hypot(error[use], fitted_jitter(flux[use], error[use], some))
    values, errors, _ = solve_linear(flux[use], total, some)
    result = curve.copy()
    baseline = np.column_stack(design) @ values
    result["flux"], result["flux_err"] = flux / baseline, error / baseline
    result["baseline"] = baseline
    rows = {"column": ["constant", *columns.colnames], "coefficient": values, "error": errors}
    return result, Table(rows)


def baseline_zero(curve, *, outside, magnitude=None):
    """Put a light curve on the level of its epochs outside of the event.

    Parameters
    ----------
    curve : astropy.table.Table
        A light curve, n rows.
    outside : array_like of bool, shape (n,)
        Epochs outside of the event, without those that are flagged.
    magnitude : float, optional
        Magnitude of the star outside of the event, from the literature.

    Returns
    -------
    astropy.table.Table
        A copy whose ``flux`` is 1 in the mean outside, with ``magnitude`` and ``magnitude_err``
        (of the epoch alone) where a magnitude was given. In ``meta``: ``baseline`` (the mean flux
        before) and ``baseline_err`` (its relative error, common to all epochs).

    Raises
    ------
    DataredError
        If no epoch outside of the event has a flux, or their mean is not positive.
    """
    use = measured(curve) & epoch_mask(outside, len(curve))
    if not use.any():
        raise DataredError(
            "no epoch outside of the event has a flux: there is no baseline to put on 1 or on a "
            "magnitude. Widen outside, or keep the differential magnitudes"
        )
    flux, error = (numbers(curve, name) for name in ("flux", "flux_err"))
    jitter = fitted_jitter(flux[use], error[use], [np.ones(use.sum())])
    (level,), (level_err,), _ = solve_linear(
        flux[use], np.hypot(error[use], jitter), [np.ones(use.sum())]
    )
    if not level > 0:
        raise DataredError(f"the mean flux outside of the event is {level:.3g}, not positive")
    result = curve.copy()
    result["flux"], result["flux_err"] = flux / level, error / level
    result.meta["baseline"], result.meta["baseline_err"] = float(level), float(level_err / level)
    if magnitude is not None:
        positive = np.where(flux > 0, flux, np.nan)
        result["magnitude"] = magnitude - 2.5 * np.log10(positive / level)
        result["magnitude_err"] = 2.5 / np.log(10) * error / positive
    return result


def _collinear(*parts):
    """Pairs of columns that say the same in every part of a curve, with the least correlation.

    What looks alike outside of the event may differ in it, as a flip and a slope do: then it
    matters for the event which of the two it is.
    """
    pairs = []
    for a, b in itertools.combinations(parts[0].colnames, 2):
        least = min((np.corrcoef(part[a], part[b])[0, 1] for part in parts), key=abs)
        if abs(least) > COLLINEAR:
            pairs.append((a, b, float(least)))
    return pairs


def _sets(names, always, pairs, most):
    """Yield sets of columns to compare, the smallest first."""
    free = [name for name in names if name not in always]
    for size in range(min(len(free), most - len(always)) + 1):
        for some in itertools.combinations(free, size):
            chosen = [name for name in names if name in some or name in always]
            if "time2" in chosen and "time" not in chosen:
                continue
            if not any(a in chosen and b in chosen for a, b in pairs):
                yield chosen


def _chi_squares(flux, error, design, parts):
    """Chi-square of linear fits with some of the columns each, from one table of products."""
    weighted = np.column_stack([design, flux - np.mean(flux)]) / error[:, None]
    products = weighted.T @ weighted
    found = []
    for part in parts:
        right = products[part, -1]
        values = np.linalg.lstsq(products[np.ix_(part, part)], right, rcond=1e-12)[0]
        found.append(products[-1, -1] - right @ values)
    return np.array(found)
