"""Epochs of a light curve that no model should be fitted to: saturation, clouds, wild values."""

import numpy as np
from astropy.table import Table

from .apertures import SATURATED
from .baselines import curve_time, measured, numbers

__all__ = ["flag_outliers"]

#: An epoch is uncertain whose ensemble has an error so many times the usual one.
UNCERTAIN = 3.0
#: Neighbours farther away than this many times the usual distance do not judge an epoch.
FAR = 5.0


def flag_outliers(curve, *, limit=5.0):
    """Find epochs that no model should be fitted to. A dip of two or more epochs is none of them.

    Clouds are told by the comparison stars; a saturated star was brighter than it looks. The star's
    own flux tells single wild values only: an epoch that both neighbours leave alone, and that does
    not lie on the line through the two epochs before it, or after it. So the flanks and the ground
    of an event always stay.

    Parameters
    ----------
    curve : astropy.table.Table
        A light curve from `datared.lightcurve.differential_light_curve`, n rows.
    limit : float
        Standard deviations by which an epoch must differ from the mean of its two neighbours.

    Returns
    -------
    astropy.table.Table
        ``flagged`` (bool) and ``reason`` ("" where it is not), n rows in the order of the curve:
        ``no flux``, ``saturated``, ``cloudy``, ``comparison stars uncertain``, ``single wild
        value``.

    Raises
    ------
    ValueError
        If the limit is not positive.
    """
    if not limit > 0:
        raise ValueError(f"limit {limit} must be positive")
    reason = np.full(len(curve), "", dtype="U26")
    reason[~measured(curve)] = "no flux"
    if "flags" in curve.colnames:
        flags = np.ma.filled(np.ma.asarray(curve["flags"]), 0).astype(int)
        reason[(reason == "") & (flags & SATURATED != 0)] = "saturated"
    if "cloudy" in curve.colnames:
        cloudy = np.ma.filled(np.ma.asarray(curve["cloudy"]), False).astype(bool)
        reason[(reason == "") & cloudy] = "cloudy"
    if "transparency_err" in curve.colnames:
        level, error = (numbers(curve, name) for name in ("transparency", "transparency_err"))
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(level > 0, error / level, np.nan)
        usual = np.nanmedian(share) if np.isfinite(share).any() else np.nan
        reason[(reason == "") & (share > UNCERTAIN * usual)] = "comparison stars uncertain"
    rows = np.flatnonzero(reason == "")
    time = curve_time(curve)[0][rows]
    rows, time = rows[np.isfinite(time)], time[np.isfinite(time)]
    order = np.argsort(time, kind="stable")
    rows = rows[order]
    flux, error = (numbers(curve, name)[rows] for name in ("flux", "flux_err"))
    reason[rows[_single(time[order], flux, error, limit)]] = "single wild value"
    return Table({"flagged": reason != "", "reason": reason})


def _single(time, flux, error, limit):
    """Epochs that neither the neighbours nor the lines through two of them explain."""
    wild = np.zeros(len(flux), bool)
    if len(flux) < 5:
        return wild
    bend = flux[1:-1] - (flux[:-2] + flux[2:]) / 2
    # A bend is the sum of one value and two halves: its variance is 1.5 times that of a value.
    white = 1.4826 * np.median(np.abs(bend - np.median(bend))) / np.sqrt(1.5)
    step = np.diff(time)
    near = step <= FAR * max(np.median(step), 1e-12)
    for i in range(2, len(flux) - 2):
        if not near[i - 2 : i + 2].all():
            continue
        differ = [flux[i] - flux[i + side] for side in (-1, 1)]
        for side in (-1, 1):
            one, two = flux[i + side], flux[i + 2 * side]
            run = (time[i] - time[i + side]) / max(abs(time[i + side] - time[i + 2 * side]), 1e-12)
            differ.append(flux[i] - one - (one - two) * min(abs(run), 2.0))
        middle = (differ[0] + differ[1]) / 2
        if abs(middle) > limit * max(white, error[i]) * np.sqrt(1.5):
            wild[i] = min(np.sign(middle) * np.array(differ)) > 0.5 * abs(middle)
    return wild
