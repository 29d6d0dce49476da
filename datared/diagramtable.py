"""A colour-magnitude diagram as a table: colours, errors, members, and which cut removed what."""

import numpy as np
from astropy.table import MaskedColumn, Table

from .errors import DataredError
from .magnitudes import colour, passband
from .photometry import FLAG_NAMES
from .reference import unit_vectors

__all__ = ["KEPT", "ORDER", "choose_bands", "colour_magnitude_table", "floats", "quality_cuts"]

#: Bands from blue to red.
ORDER = tuple("U u B BP g G V r R RP i I z y Y J H K Ks".split())

#: What the column ``cut`` says of a star that stays. (An empty text would come back from a file as
#: a masked value.)
KEPT = "kept"
#: Two systems of Landolt's standards that belong together: V - R and V - I are colours.
LANDOLT = {"Johnson Vega", "Cousins Vega"}
#: A star whose exposures scatter by more than this times their errors (squared) is cut.
MAX_CHI2 = 10.0


def choose_bands(magnitudes):
    """Choose two filters for the colour, and one for the magnitude.

    B and V where both are there (with V as the magnitude), else the bluest and the reddest filter
    in one magnitude system; ultraviolet filters only where there is nothing else.

    Parameters
    ----------
    magnitudes : astropy.table.Table
        From `datared.magnitudes.calibrate_night`.

    Returns
    -------
    tuple of str
        Three filters: blue, red, and that of the magnitude. Empty where no two filters are in one
        system.

    Examples
    --------
    >>> table = Table({"i": [14.2], "i_err": [0.01], "g": [15.0], "g_err": [0.01]})
    >>> table["g"].meta["system"] = table["i"].meta["system"] = "PS1 AB"
    >>> choose_bands(table)
    ('g', 'i', 'g')
    """
    groups = {}
    for name in magnitudes.colnames:
        system = magnitudes[name].meta.get("system")
        if system and f"{name}_err" in magnitudes.colnames:
            system = "Johnson-Cousins Vega" if system in LANDOLT else system
            groups.setdefault(system, {})[name] = passband(name)
    groups = [group for group in groups.values() if len(group) > 1]
    if not groups:
        return ()
    group = max(groups, key=len)
    names = sorted(group, key=lambda n: ORDER.index(group[n]) if group[n] in ORDER else len(ORDER))
    by_band = {group[name]: name for name in reversed(names)}
    for blue, red, bright in (("B", "V", "V"), ("BP", "RP", "G")):
        if {blue, red, bright} <= set(by_band):
            return by_band[blue], by_band[red], by_band[bright]
    if len(names) > 2 and group[names[0]] in ("U", "u"):
        names = names[1:]
    return names[0], names[-1], names[0]


def quality_cuts(magnitudes, *, bands, max_error=0.1):
    """Say which stars are not to be trusted, and why.

    Parameters
    ----------
    magnitudes : astropy.table.Table
        From `datared.magnitudes.calibrate_night`: for each filter ``<f>``, ``<f>_err`` and, where
        there, ``<f>_chi2`` and ``<f>_flags``.
    bands : sequence of str
        Filters to look at.
    max_error : float
        Largest error of a magnitude and of the colour (mag).

    Returns
    -------
    numpy.ndarray of str, shape (n,)
        ``"kept"`` for a star that stays; otherwise the first cut that removed it: a flag's name
        (``"saturated"``, ``"neighbour"``, ...; see `datared.photometry.FLAG_NAMES`), ``"not
        measured"``, ``"exposures disagree"`` (chi2 above 10 per degree of freedom; a star with one
        exposure cannot disagree) or ``"large error"``, with the filter behind it.

    Raises
    ------
    DataredError
        If there is no such filter.
    """
    require_filters(magnitudes, bands)
    cut = np.full(len(magnitudes), KEPT, dtype="U40")
    error = np.zeros(len(magnitudes))

    def remove(rows, reason):
        """Give a reason to the stars that have none yet."""
        cut[rows & (cut == KEPT)] = reason

    for band in dict.fromkeys(bands):
        flags = np.zeros(len(magnitudes), int)
        if f"{band}_flags" in magnitudes.colnames:
            flags = np.ma.filled(np.ma.asarray(magnitudes[f"{band}_flags"]), 0).astype(int)
        for name, bit in FLAG_NAMES.items():
            remove((flags & bit) != 0, f"{name} ({band})")
        value, sigma = floats(magnitudes[band]), floats(magnitudes[f"{band}_err"])
        remove(~(np.isfinite(value) & np.isfinite(sigma)), f"not measured ({band})")
        error = np.hypot(error, sigma) if band in bands[:2] else error
        with np.errstate(invalid="ignore"):
            if f"{band}_chi2" in magnitudes.colnames:
                chi2 = floats(magnitudes[f"{band}_chi2"])
                remove(chi2 > MAX_CHI2, f"exposures disagree ({band})")
            remove(sigma > max_error, f"large error ({band})")
    with np.errstate(invalid="ignore"):
        remove(error > max_error, "large error (colour)")
    return cut


def colour_magnitude_table(magnitudes, *, bands, membership=None):
    """Put colour, magnitude, errors, quality and membership of every star into one table.

    Parameters
    ----------
    magnitudes : astropy.table.Table
        From `datared.magnitudes.calibrate_night`, or any table with magnitude columns that know
        their ``meta["system"]`` and have an ``<f>_err``.
    bands : sequence of str
        Two filters (the colour; the first one is also the magnitude) or three (the last one is the
        magnitude).
    membership : Membership or array_like of float, shape (n,), optional
        Probability of each row to be a member of the cluster.

    Returns
    -------
    astropy.table.Table
        ``star``, ``ra``, ``dec`` (deg; where there), ``colour``, ``colour_err``, ``magnitude``,
        ``magnitude_err`` (mag; the errors of two filters add in squares), each filter and its
        error, ``membership`` (masked where not known), ``separation`` (arcmin from the middle of
        the members, or of all stars) and ``cut`` (see `quality_cuts`). All rows are kept.
        ``meta["bands"]`` are the three filters; ``meta["cuts"]`` the number of stars of each cut.

    Raises
    ------
    DataredError
        If a filter is missing, or the two of the colour are in different magnitude systems
        (Johnson's U, B, V and Cousins's R, I count as one).

    Examples
    --------
    >>> table = Table({"g": [15.0, 16.0], "g_err": [0.01, 0.3], "i": [14.2, 15.1]})
    >>> table["i_err"] = 0.01
    >>> table["g"].meta["system"] = table["i"].meta["system"] = "PS1 AB"
    >>> diagram = colour_magnitude_table(table, bands=("g", "i"))
    >>> [round(value, 1) for value in diagram["colour"].tolist()], diagram["cut"].tolist()
    ([0.8, 0.9], ['kept', 'large error (g)'])
    """
    bands = tuple(bands)
    if len(bands) not in (2, 3):
        raise DataredError(f"{len(bands)} filters for a diagram: give two, or three: {bands}")
    bands = bands if len(bands) == 3 else (*bands, bands[0])
    require_filters(magnitudes, bands)
    table = Table({n: magnitudes[n] for n in ("star", "ra", "dec") if n in magnitudes.colnames})
    values = {"colour": _colour(magnitudes, *bands[:2]), "magnitude": magnitudes[bands[2]]}
    errors = {band: floats(magnitudes[f"{band}_err"]) for band in bands}
    errors |= {"colour": np.hypot(errors[bands[0]], errors[bands[1]])}
    errors |= {"magnitude": errors[bands[2]]}
    values |= {band: magnitudes[band] for band in dict.fromkeys(bands)}
    for name, column in values.items():
        for key, value in ((name, floats(column)), (f"{name}_err", errors[name])):
            table[key] = MaskedColumn(value, mask=~np.isfinite(value), unit="mag")
            table[key].meta["system"] = column.meta["system"]
    known = getattr(membership, "probability", membership)
    known = np.full(len(table), np.nan) if known is None else floats(known)
    table["membership"] = MaskedColumn(known, mask=~np.isfinite(known))
    if "ra" in table.colnames and len(table):
        table["separation"] = _separation(table, known)
        table["separation"].unit = "arcmin"
    table["cut"] = quality_cuts(magnitudes, bands=bands)
    reasons, numbers = np.unique(table["cut"][table["cut"] != KEPT], return_counts=True)
    table.meta["bands"] = list(bands)
    table.meta["cuts"] = {str(r): int(n) for r, n in zip(reasons, numbers, strict=True)}
    return table


def _colour(magnitudes, blue, red):
    """Colour of two filters of one system; U, B, V and R, I of Landolt's standards make one."""
    columns = [magnitudes[band].copy() for band in (blue, red)]
    if {column.meta.get("system") for column in columns} == LANDOLT:
        for column in columns:
            column.meta["system"] = "Johnson-Cousins Vega"
    return colour(*columns)


def _separation(table, probability):
    """Distance (arcmin) from the median place of the members, or of all stars without any."""
    vectors = unit_vectors(table)
    with np.errstate(invalid="ignore"):
        some = probability >= 0.5
    some = some if some.sum() >= 5 else np.ones(len(table), bool)
    middle = np.median(vectors[some], axis=0)
    away = np.arctan2(np.linalg.norm(np.cross(vectors, middle), axis=1), vectors @ middle)
    return np.degrees(away) * 60


def require_filters(magnitudes, bands):
    """Refuse filters that the table does not have."""
    for band in bands:
        if band not in magnitudes.colnames or f"{band}_err" not in magnitudes.colnames:
            there = [n for n in magnitudes.colnames if f"{n}_err" in magnitudes.colnames]
            raise DataredError(
                f"there are no magnitudes in {band!r}; the filters are {', '.join(there)}"
            )


def floats(column):
    """Turn a column into floats, NaN where it is masked.

    Parameters
    ----------
    column : astropy.table.Column or array_like of float
        Numbers.

    Returns
    -------
    numpy.ndarray of float
        The same numbers, in an array without a mask.
    """
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)
