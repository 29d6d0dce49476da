"""What the brightness of a star follows beside the planet: the columns of its fit.

Nothing here looks at the epochs of the transit: columns are chosen out of it, and how strongly a
star may follow them was learned from the comparison stars.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from .detrending import baseline_columns, choose_columns
from .errors import DataredError, DataredWarning
from .pixelpattern import pattern_columns
from .trends import LEARNED, trend_chance

__all__ = ["Baseline", "transit_baseline"]

#: Columns where no ephemeris says which epochs are out of transit.
SIMPLE = ("time", "flip")
#: A target that follows the columns so much more than the comparison stars do, by chance in one of
#: 20 nights, is not like them.
UNLIKE = 0.05


@dataclass(frozen=True, eq=False)
class Baseline:
    """Result of `transit_baseline`.

    Attributes
    ----------
    columns : astropy.table.Table
        Columns of the fit, one row for each epoch.
    widths : dict of str to float
        Standard deviation of the normal prior of each coefficient (relative flux for one unit of
        the column), with mean 0; infinite where the coefficient is free.
    pattern : tuple of str
        Those of the columns that describe the errors of the flat under the star as it drifts
        (`datared.pixelpattern.pattern_columns`).
    reason : str
        Why these.
    chosen : astropy.table.Table
        The fewer columns of a fit by hand.
    sets : astropy.table.Table
        From `datared.detrending.choose_columns`; empty where nothing was chosen.
    notes : list of str
        What a reader must know.
    """

    columns: Table
    widths: dict
    pattern: tuple
    reason: str
    chosen: Table
    sets: Table
    notes: list


def transit_baseline(curve, *, used, outside, options):
    """Find the columns of the baseline of a transit fit.

    The fit has all columns that can be used, so that its errors hold what any of them may do: each
    as much as it does to the comparison stars of the night (``meta["trends"]`` of the curve). Where
    these tell nothing, or the target follows the columns more than they do out of transit, the
    coefficients are free. The slow noise of the flat under a drifting star is in the fit, too, as
    strong as in the comparison stars. Columns that the night file names are the only ones, and
    free.

    For a fit by hand that has few, columns are chosen out of transit
    (`datared.detrending.choose_columns`).

    Parameters
    ----------
    curve : astropy.table.Table
        Light curve, from `datared.lightcurve.differential_light_curve`, n rows.
    used : numpy.ndarray of bool, shape (n,)
        Epochs that are fitted.
    outside : numpy.ndarray of bool, shape (n,)
        Epochs out of transit, by the ephemeris.
    options : TransitOptions
        Names of columns, and whether there is an ephemeris.

    Returns
    -------
    Baseline
        The columns and their priors.
    """
    if options.columns or not options.known:
        names = options.columns or SIMPLE
        columns = baseline_columns(curve, names=names, used=used)
        reason = "named in the night file"
        if not options.columns:
            reason = "no ephemeris says which epochs are out of transit"
        left_out = columns.meta["left_out"] if options.columns else {}
        notes = [f"the column {name} is not in the fit: {why}" for name, why in left_out.items()]
        return Baseline(
            columns, dict.fromkeys(columns.colnames, np.inf), (), reason, columns, Table(), notes
        )
    names, sets, notes = _chosen(curve, used & outside)
    columns = baseline_columns(curve, names=LEARNED, used=used)
    trends = dict(curve.meta.get("trends") or {})
    widths = {name: float(trends.get(name, np.inf)) for name in columns.colnames}
    pattern = pattern_columns(curve, used=used) if "pattern" in trends else Table()
    for name in pattern.colnames:
        columns[name], widths[name] = pattern[name], float(trends["pattern"])
    reason = "as large as in the comparison stars"
    if not trends:
        reason = "free: too few comparison stars tell how large trends are"
    elif trend_chance(curve, columns, widths, outside=used & outside) < UNLIKE:
        reason = "free: out of transit the target has larger trends than the comparison stars"
        notes.append(f"the coefficients of the baseline are {reason}")
    if reason.startswith("free"):
        widths |= {name: np.inf for name in widths if name not in pattern.colnames}
    chosen = baseline_columns(curve, names=names, used=used)
    return Baseline(columns, widths, tuple(pattern.colnames), reason, chosen, sets, notes)


def _chosen(curve, outside):
    """Names of columns chosen out of transit, the sets, and warnings; none of too few epochs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataredWarning)
        try:
            sets = choose_columns(curve, outside=outside)
        except DataredError as error:
            return [], Table(), [f"choice of columns: {error}"]
    notes = [f"choice of columns: {warning.message}" for warning in caught]
    return list(sets.meta["chosen"]), sets, notes
