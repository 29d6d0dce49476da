"""Columns of a baseline: numbers of each frame that the brightness may follow, and linear fits."""

import numpy as np
from astropy.table import Table

__all__ = ["COLUMNS", "baseline_columns"]

#: Columns of a baseline, and the columns of a light curve that they are made of.
COLUMNS = {
    "time": "bjd_tdb_mid", "time2": "bjd_tdb_mid", "airmass": "airmass", "fwhm": "fwhm", "x": "x",
    "y": "y", "sky": "sky", "flip": "flipped",
}  # fmt: skip
#: A column with a greater share of missing values is left out.
MOST_MISSING = 0.2


def baseline_columns(curve, *, names=None, used=None):
    """Columns for a baseline, each with mean 0 and standard deviation 1 over the fitted epochs.

    Parameters
    ----------
    curve : astropy.table.Table
        A light curve from `datared.lightcurve.differential_light_curve`, n rows.
    names : sequence of str, optional
        Columns of `COLUMNS`; all that the curve has by default.
    used : array_like of bool, shape (n,), optional
        Epochs that are fitted; by default those with a finite flux and a positive error.

    Returns
    -------
    astropy.table.Table
        n rows, a column for each name. ``time`` is BJD_TDB (JD_UTC where there is none), ``time2``
        its square. ``x`` and ``y`` are counted from the median of their side of the pier, so that
        the step of a meridian flip is in ``flip`` only. A missing value (NaN, masked) is 0, the
        mean: nothing is corrected there.
        ``meta["left_out"]`` says for each column that cannot be used why; ``meta["filled"]`` how
        many values were missing.

    Raises
    ------
    ValueError
        If a name is not known, or ``used`` has another length.
    """
    unknown = set(names or ()) - set(COLUMNS)
    if unknown:
        raise ValueError(f"columns {sorted(unknown)} are not known; valid are {list(COLUMNS)}")
    used = measured(curve) & epoch_mask(used, len(curve))
    table, left_out, filled = Table(), {}, {}
    has_side = "flipped" in curve.colnames
    side = numbers(curve, "flipped") > 0.5 if has_side else np.zeros(len(curve), bool)
    for name in COLUMNS if names is None else names:
        if COLUMNS[name] not in curve.colnames and COLUMNS[name] != "bjd_tdb_mid":
            left_out[name] = f"the light curve has no column {COLUMNS[name]}"
            continue
        value = _raw_column(curve, name, side, used)
        finite = np.isfinite(value)
        missing = np.count_nonzero(used & ~finite)
        reason = _useless(name, value[used & finite], missing, np.count_nonzero(used))
        if reason:
            left_out[name] = reason
            continue
        mean, width = np.mean(value[used & finite]), np.std(value[used & finite])
        table[name] = np.where(finite, (value - mean) / width, 0.0)
        if missing:
            filled[name] = missing
    table.meta = {"left_out": left_out, "filled": filled}
    return table


def numbers(curve, name):
    """Return a column as floats, NaN where it is masked."""
    return np.ma.filled(np.ma.asarray(curve[name]).astype(float), np.nan)


def curve_time(curve):
    """Return times and their scale: BJD_TDB, or JD_UTC where no epoch has it (site not known)."""
    for scale in ("BJD_TDB", "JD_UTC"):
        name = f"{scale.lower()}_mid"
        if name in curve.colnames and np.isfinite(numbers(curve, name)).any():
            return numbers(curve, name), scale
    return np.full(len(curve), np.nan), "BJD_TDB"


def epoch_mask(mask, n):
    """Return a mask of n epochs; all for None."""
    mask = np.ones(n, bool) if mask is None else np.asarray(np.ma.filled(mask, False), bool)
    if mask.shape != (n,):
        raise ValueError(f"a mask of shape {mask.shape} does not fit {n} epochs")
    return mask


def measured(curve):
    """Epochs with a flux and an error."""
    flux, error = numbers(curve, "flux"), numbers(curve, "flux_err")
    return np.isfinite(flux) & np.isfinite(error) & (error > 0)


def solve_linear(flux, error, columns):
    """Coefficients, their errors and chi-square of a linear fit."""
    design = np.column_stack(columns) / error[:, None]
    values = np.linalg.lstsq(design, flux / error, rcond=None)[0]
    errors = np.sqrt(np.diag(np.linalg.pinv(design.T @ design)))
    return values, errors, float(np.sum((flux / error - design @ values) ** 2))


def fitted_jitter(flux, error, columns):
    """Scatter beyond the errors with which chi-square equals the degrees of freedom."""
    dof = len(flux) - len(columns)
    low, high = 0.0, float(np.ptp(flux))
    if dof < 1 or solve_linear(flux, error, columns)[2] <= dof:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        large = solve_linear(flux, np.hypot(error, middle), columns)[2] > dof
        low, high = (middle, high) if large else (low, middle)
    return high


def _raw_column(curve, name, side, used):
    """Values of a column in its own unit."""
    if name in ("time", "time2"):
        value = curve_time(curve)[0]
        some = used & np.isfinite(value)
        value = value - np.mean(value[some]) if some.any() else value
        return value**2 if name == "time2" else value
    value = numbers(curve, COLUMNS[name])
    if name in ("x", "y"):
        for mine in (side, ~side):
            if np.isfinite(value[mine & used]).any():
                value = np.where(mine, value - np.nanmedian(value[mine & used]), value)
    return value


def _useless(name, value, missing, n):
    """Say why a column cannot be used; nothing where it can."""
    if missing > MOST_MISSING * n:
        return f"missing in {missing} of {n} epochs"
    if len(value) < 2 or np.std(value) <= 1e-9 * max(np.max(np.abs(value)), 1e-300):
        if name == "flip":
            return "these epochs are on one side of the pier only"
        return "constant over these epochs"
    if name == "flip" and min(np.sum(value > 0.5), np.sum(value < 0.5)) < 3:
        return "fewer than 3 of these epochs on one side of the pier"
    return ""
