"""Star lists: catalogue files of any archive, read into one set of column names.

Every table has the same column names whoever made it, and every magnitude column carries its
system in ``meta["system"]``.
"""

import csv
import re
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle
from astropy.table import MaskedColumn, Table

from datared.errors import DataredError

__all__ = ["FAMILIES", "normalise", "read_catalogue"]

#: Our column names and, in lower case, what catalogues call them. The first one found is taken.
POSITION_NAMES = {
    "ra": ("ra_icrs", "raj2000", "ra", "_raj2000", "_ra.icrs", "ramdeg", "ramean"),
    "dec": ("de_icrs", "dej2000", "dec", "_dej2000", "_de.icrs", "demdeg", "decmean"),
    "pm_ra": ("pmra", "pm_ra", "pmra_cosdec"),
    "pm_dec": ("pmde", "pmdec", "pm_dec"),
    "epoch": ("ref_epoch", "epoch", "epra-1990"),
    "id": ("source_id", "source", "objid", "id", "star"),
}

#: Families of catalogues: what is known by which columns (all must be there), the epoch of the
#: positions, and the magnitudes with their systems.
FAMILIES = {
    "refcat2": (
        {"gmag", "rmag", "imag"},
        2015.5,
        {name: ((f"{name}mag",), (f"e_{name}mag",), "PS1 AB") for name in "griz"}
        | {"G": (("Gmag",), ("e_Gmag",), "Gaia Vega")},
    ),
    "gaia": (
        {"phot_g_mean_mag"},
        2016.0,
        {
            "G": (("phot_g_mean_mag",), ("phot_g_mean_mag_error",), "Gaia Vega"),
            "BP": (("phot_bp_mean_mag",), ("phot_bp_mean_mag_error",), "Gaia Vega"),
            "RP": (("phot_rp_mean_mag",), ("phot_rp_mean_mag_error",), "Gaia Vega"),
        },
    ),
    "gaia (VizieR)": (
        {"bpmag", "rpmag"},
        2016.0,
        {
            "G": (("Gmag", "gmag"), ("e_Gmag", "e_gmag"), "Gaia Vega"),
            "BP": (("bpmag",), ("e_bpmag",), "Gaia Vega"),
            "RP": (("rpmag",), ("e_rpmag",), "Gaia Vega"),
        },
    ),
    "tycho2": (
        {"mag_vt"},
        2000.0,
        {
            "BT": (("mag_bt",), ("e_mag_bt",), "Tycho Vega"),
            "VT": (("mag_vt",), ("e_mag_vt",), "Tycho Vega"),
        },
    ),
    "tycho2 (VizieR)": (
        {"vtmag"},
        2000.0,
        {
            "BT": (("btmag",), ("e_btmag",), "Tycho Vega"),
            "VT": (("vtmag",), ("e_vtmag",), "Tycho Vega"),
        },
    ),
}


def read_catalogue(path):
    """Read a catalogue file and give its columns our names.

    Known are ATLAS-REFCAT2, Gaia and Tycho-2 as their archives and VizieR write them, and tables
    that this function has normalised before.

    Parameters
    ----------
    path : str or pathlib.Path
        ECSV, CSV, FITS or VOTable file.

    Returns
    -------
    astropy.table.Table
        ``ra``, ``dec`` (deg, ICRS, finite), ``pm_ra`` (with cos dec), ``pm_dec`` (mas/yr, 0 where
        unknown), one column per magnitude with ``meta["system"]``, its ``<name>_err`` where
        known; ``meta["epoch"]`` (year of the positions) and ``meta["family"]``.

    Raises
    ------
    DataredError
        If the file cannot be read or has no positions.
    """
    path = Path(path)
    if not path.is_file():
        raise DataredError(f"catalogue {path} is not there; check [astrometry] catalogue")
    try:
        table = _read_table(path)
    except Exception as error:
        raise DataredError(f"catalogue {path} cannot be read: {error}") from error
    try:
        return normalise(table)
    except DataredError as error:
        raise DataredError(f"catalogue {path}: {error}") from error


def normalise(table):
    """Give a catalogue table our column names, units and metadata.

    Parameters
    ----------
    table : astropy.table.Table
        Rows of ATLAS-REFCAT2, Gaia, Tycho-2, or of `read_catalogue`.

    Returns
    -------
    astropy.table.Table
        As described at `read_catalogue`.

    Raises
    ------
    DataredError
        If there are no positions.

    Examples
    --------
    >>> rows = Table({"RA_ICRS": [10.0], "DE_ICRS": [5.0], "gmag": [15.0], "rmag": [14.5],
    ...               "imag": [14.3], "pmRA": [3.0], "pmDE": [-2.0]})
    >>> stars = normalise(rows)
    >>> stars.colnames
    ['ra', 'dec', 'pm_ra', 'pm_dec', 'g', 'r', 'i']
    >>> stars["g"].meta["system"], stars.meta["epoch"]
    ('PS1 AB', 2015.5)
    """
    if "family" in table.meta and {"ra", "dec", "pm_ra", "pm_dec"} <= set(table.colnames):
        return table
    names = {}
    for name in reversed(table.colnames):
        names[_plain_name(name)] = name
    # ATLAS-REFCAT2 has gmag and Gmag, two different bands: the exact name goes first.
    names |= {name: name for name in table.colnames}
    found = {
        ours: next((names[theirs] for theirs in known if theirs in names), None)
        for ours, known in POSITION_NAMES.items()
    }
    if found["ra"] is None or found["dec"] is None:
        raise DataredError(
            f"no columns of position among: {', '.join(table.colnames)}. "
            "Known names are RA_ICRS and DE_ICRS, RAJ2000 and DEJ2000, ra and dec"
        )
    ra, dec = _degrees(table[found["ra"]], hours=True), _degrees(table[found["dec"]])
    good = np.isfinite(ra) & np.isfinite(dec)
    result = Table({"ra": ra[good] % 360.0, "dec": dec[good]})
    for name in ("pm_ra", "pm_dec"):
        value = _floats(table[found[name]]) if found[name] else np.zeros(len(table))
        result[name] = np.nan_to_num(value[good])
    family, epoch, magnitudes = _family(names)
    if family == "gaia" and found["epoch"]:
        epoch = float(np.median(_floats(table[found["epoch"]])))
    if found["id"] and found["id"] != found["ra"]:
        result["id"] = [str(value) for value in table[found["id"]][good]]
    for ours, (values, errors, system) in magnitudes.items():
        for column, known in ((ours, values), (f"{ours}_err", errors)):
            theirs = next((names[name] for name in known if name in names), None)
            if theirs is not None and (column == ours or ours in result.colnames):
                values_ = _floats(table[theirs])[good]
                result[column] = MaskedColumn(values_, mask=~np.isfinite(values_))
                result[column].meta["system"] = system
                result[column].unit = u.mag
    result["ra"].unit = result["dec"].unit = u.deg
    result["pm_ra"].unit = result["pm_dec"].unit = u.mas / u.yr
    result.meta |= {"family": family, "epoch": epoch}
    return result


def _family(names):
    """Return family, epoch and magnitudes that the column names (lower case) tell of."""
    for family, (needed, epoch, magnitudes) in FAMILIES.items():
        if needed <= set(names):
            return family, epoch, magnitudes
    return "unknown", None, {}


def _read_table(path):
    """Read a table, of CSV files only the columns that are known: others may not even be valid."""
    kind = path.suffix.lower()
    if kind in (".fits", ".fit", ".fts"):
        return Table.read(path, format="fits")
    if kind in (".xml", ".vot", ".votable"):
        return Table.read(path, format="votable")
    if kind == ".ecsv":
        return Table.read(path, format="ascii.ecsv")
    wanted = {name for known in POSITION_NAMES.values() for name in known}
    for needed, _, magnitudes in FAMILIES.values():
        wanted |= needed
        for values, errors, _ in magnitudes.values():
            wanted |= {*values, *errors}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = next(csv.reader(stream), [])
    columns = [name for name in header if name in wanted or _plain_name(name) in wanted]
    if not columns:
        raise DataredError(f"no known column among: {', '.join(header)}")
    return Table.read(path, format="ascii.csv", include_names=columns)


def _plain_name(name):
    """Column name in lower case and without the brackets of VizieR's ``RA(ICRS)``."""
    return name.strip().lower().replace("(", "_").replace(")", "")


def _degrees(column, *, hours=False):
    """Angles as degrees; text with blanks or colons is sexagesimal, in hours for ``hours``."""
    if column.dtype.kind not in "UOS":
        return _floats(column)
    text = [re.sub(r"[^0-9.+-]+", " ", str(value)).strip() for value in column]
    unit = u.hourangle if hours and any(" " in value for value in text) else u.deg
    try:
        return Angle(text, unit=unit).deg
    except ValueError as error:
        raise DataredError(f"positions in column {column.name} are not angles: {error}") from error


def _floats(column):
    """Column as float64 without masks: NaN where a value is missing."""
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan).astype(float)
