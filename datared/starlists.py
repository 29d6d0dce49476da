"""Star lists: catalogue files of any archive, read into one set of column names.

Every table has the same column names whoever made it, and every magnitude column carries its
system in ``meta["system"]``. What is no measurement (-999, an error of 0, a saturated star) is
masked here, at the door.
"""

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from datared.archives import EXTRA_NAMES, FAMILIES, KNOWN_NAMES, POSITION_NAMES, is_star, magnitudes
from datared.errors import DataredError

__all__ = ["content_sum", "normalise", "read_catalogue"]


def read_catalogue(path):
    """Read a catalogue file and give its columns our names.

    Known are ATLAS-REFCAT2, Gaia, Pan-STARRS, SDSS, Tycho-2 and UCAC4 as their archives and VizieR
    write them, Landolt's standards, tables with V and B-V, and what `datared catalog` has written,
    whose SHA-256 is checked.

    Parameters
    ----------
    path : str or pathlib.Path
        ECSV, CSV, FITS or VOTable file, or VizieR's text with ``|``, tabs or semicolons.

    Returns
    -------
    astropy.table.Table
        ``ra``, ``dec`` (deg, ICRS, finite), ``pm_ra`` (with cos dec), ``pm_dec`` (mas/yr, 0 where
        unknown), one column per magnitude with ``meta["system"]``, its ``<name>_err`` where
        known; ``meta["epoch"]`` (year of the positions) and ``meta["family"]``. Where the archive
        tells them: ``epoch`` (year of each position), ``id``, ``parallax`` (mas), ``ruwe``,
        the errors of the proper motion, and ``variable``.

    Raises
    ------
    DataredError
        If the file cannot be read, has no positions, or was changed after it was written.

    Notes
    -----
    Masked are magnitudes that are none (-999), saturated ones of Pan-STARRS (brighter than 13.5 in
    g, r, i, 13.0 in z, 12.0 in y: Magnier et al. 2013, ApJS 204, 20) and errors of 0. Left out are
    rows that are no stars: galaxies, doubtful and second entries of Pan-STARRS and SDSS.
    """
    path = Path(path)
    if not path.is_file():
        raise DataredError(f"catalogue {path} is not there; check its path")
    try:
        table = _read_table(path)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        kind = path.suffix.lower()
        hint = f". It is no {kind} file, or a damaged one: get it again" if kind == ".ecsv" else ""
        raise DataredError(f"catalogue {path} cannot be read: {lines[0]}{hint}") from error
    known = table.meta.get("sha256")
    if known is not None and known != content_sum(table):
        raise DataredError(
            f"{path} was changed after it was written; delete it and ask for it again"
        )
    try:
        return normalise(table)
    except DataredError as error:
        raise DataredError(f"catalogue {path}: {error}") from error


def normalise(table):
    """Give a catalogue table our column names, units and metadata.

    Parameters
    ----------
    table : astropy.table.Table
        Rows of a catalogue that `read_catalogue` knows, or its result.

    Returns
    -------
    astropy.table.Table
        As described at `read_catalogue`.

    Raises
    ------
    DataredError
        If there are no positions, a declination is beyond the pole, or no row is a star.

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
    family, epoch, bands = next(
        ((name, *rest) for name, (needed, *rest) in FAMILIES.items() if needed <= set(names)),
        ("unknown", None, {}),
    )

    def values(*known):
        """Column of the first known name as floats, else None."""
        found = next((names[name] for name in known if name in names), None)
        return None if found is None else _floats(table[found])

    ra, dec, epochs = _places(table, names, values, family)
    good = np.isfinite(ra) & np.isfinite(dec)
    if (np.abs(dec[good]) > 90).any():
        raise DataredError(
            f"there is a declination of {max(dec[good], key=abs):g} deg, beyond the pole: are "
            "right ascension and declination swapped, or not in degrees?"
        )
    stars = good & is_star(values, len(table), family)
    if len(table) and not stars.any():
        raise DataredError(
            f"none of its {len(table)} rows is a star with a position and clean photometry"
        )
    result = Table({"ra": ra[stars] % 360.0, "dec": dec[stars]})
    for name in ("pm_ra", "pm_dec"):
        motion = values(*POSITION_NAMES[name])
        result[name] = np.zeros(stars.sum()) if motion is None else np.nan_to_num(motion[stars])
    if epochs is not None and np.isfinite(epochs[stars]).any():
        years = np.round(epochs[stars], 6)
        epoch = float(np.round(np.nanmedian(years), 6))
        if not np.all(years == epoch):
            result["epoch"] = np.where(np.isfinite(years), years, epoch)
    found = next((names[name] for name in POSITION_NAMES["id"] if name in names), None)
    if found is not None:
        result["id"] = np.array(_texts(table[found][stars]), "U")
    for ours, (value, error, system) in magnitudes(values, family, bands).items():
        _add_band(result, ours, value[stars], None if error is None else error[stars], system)
    for ours, (known, unit) in EXTRA_NAMES.items():
        column = values(*known)
        if column is not None:
            result[ours] = MaskedColumn(column[stars], mask=~np.isfinite(column[stars]), unit=unit)
    if (flag := values("dupvar")) is not None:
        result["variable"] = np.nan_to_num(flag[stars]).astype(int) & 3 == 1
    result["ra"].unit = result["dec"].unit = u.deg
    result["pm_ra"].unit = result["pm_dec"].unit = u.mas / u.yr
    result.meta |= {"family": family, "epoch": epoch}
    return result


def content_sum(table):
    """Sum over what a star list says: names, numbers, systems, epoch and the query.

    Parameters
    ----------
    table : astropy.table.Table
        Result of `normalise`.

    Returns
    -------
    str
        SHA-256 in hexadecimal; ``meta["sha256"]`` itself is not in it.
    """
    told = [str(table.meta.get(key)) for key in ("family", "epoch", "query")]
    told += [f"{name} {table[name].meta.get('system')}" for name in table.colnames]
    digest = hashlib.sha256("\n".join(told).encode())
    for name in table.colnames:
        values = np.ma.asarray(table[name])
        if values.dtype.kind == "f":
            # Of NaN there are many: a missing value has one pattern here.
            values = np.ma.filled(values, np.nan).astype("<f8")
            values[np.isnan(values)] = np.nan
            digest.update(values.tobytes())
        else:
            # An empty text comes back from the file as a masked cell.
            texts = ("" if value is None else str(value) for value in values.tolist())
            digest.update("\n".join(texts).encode())
    return digest.hexdigest()


def _places(table, names, values, family):
    """Return right ascension and declination (deg), and the years of the positions or None."""
    found = [
        next((names[theirs] for theirs in POSITION_NAMES[ours] if theirs in names), None)
        for ours in ("ra", "dec")
    ]
    if None in found:
        raise DataredError(
            f"no columns of position among: {', '.join(table.colnames)}. "
            "Known names are RA_ICRS and DE_ICRS, RAJ2000 and DEJ2000, ra and dec"
        )
    ra, dec = _degrees(table[found[0]], hours=True), _degrees(table[found[1]])
    if family == "gaia":
        return ra, dec, values("ref_epoch")
    if family.startswith(("ps1", "sdss")):
        mjd, date = values("epoch", "epochmean", "mjd"), values("obsdate")
        if mjd is not None:
            return ra, dec, Time(np.nan_to_num(mjd), format="mjd").jyear + 0 * mjd
        return ra, dec, date
    if family == "tycho2 (VizieR)" and "ra_icrs" in names:
        # These are the observed places of about 1991.5; the mean ones of 2000 go before them.
        years = values("epra-1990")
        years = np.full(len(ra), 1991.5) if years is None else 1990.0 + years
        mean_ra, mean_dec = values("ramdeg"), values("demdeg")
        if mean_ra is not None and mean_dec is not None:
            use = np.isfinite(mean_ra) & np.isfinite(mean_dec)
            ra, dec = np.where(use, mean_ra, ra), np.where(use, mean_dec, dec)
            years = np.where(use, 2000.0, years)
        return ra, dec, years
    return ra, dec, None


def _add_band(result, name, value, error, system):
    """Add a magnitude and its error to a star list, masked where there is none."""
    missing = ~np.isfinite(value)
    pairs = [(name, value, missing)]
    if error is not None:
        # An error of 0 is no error: it would make a star infinitely heavy.
        pairs.append((f"{name}_err", error, missing | ~(error > 0)))
    for column, numbers, mask in pairs:
        result[column] = MaskedColumn(np.where(mask, np.nan, numbers), mask=mask, unit=u.mag)
        result[column].meta["system"] = system


def _read_table(path):
    """Read a table, of CSV files only the columns that are known: others may not even be valid."""
    kind = path.suffix.lower()
    if kind in (".fits", ".fit", ".fts"):
        return Table.read(path, format="fits")
    if kind in (".xml", ".vot", ".votable"):
        return Table.read(path, format="votable")
    if kind == ".ecsv":
        return Table.read(path, format="ascii.ecsv")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for k, line in enumerate(lines[:5]):
        for mark in ",|\t;":
            header = [cell.strip() for cell in next(csv.reader([line], delimiter=mark))]
            if len(header) > 1 and any(_is_known(name) for name in header):
                return _cells(lines[k:], header, mark)
    raise DataredError(
        f"no known column, separated by comma, bar, tab or semicolon, in: "
        f"{lines[0][:200] if lines else '(empty file)'}"
    )


def _is_known(name):
    """Whether a column name is one that is understood."""
    return name in KNOWN_NAMES or _plain_name(name) in KNOWN_NAMES


def _cells(lines, header, mark):
    """Table of texts of the known columns below a header, without lines of units and dashes."""
    rows = [row for row in csv.reader(lines[1:], delimiter=mark) if len(row) == len(header)]
    place = [k for k, name in enumerate(header) if _plain_name(name) in POSITION_NAMES["ra"]][:1]
    rows = [row for row in rows if all(re.search(r"\d", row[k]) for k in place)]
    wanted = {name: k for k, name in enumerate(header) if _is_known(name)}
    return Table({n: np.array([row[k].strip() for row in rows], "U") for n, k in wanted.items()})


def _plain_name(name):
    """Column name in lower case and without the brackets of VizieR's ``RA(ICRS)``."""
    return name.strip().lower().replace("(", "_").replace(")", "")


def _degrees(column, *, hours=False):
    """Angles as degrees; text of several numbers is sexagesimal, in hours for ``hours``."""
    values = _floats(column)
    if column.dtype.kind not in "UOS":
        unit = getattr(column, "unit", None)
        return values * unit.to(u.deg) if unit is not None and unit.is_equivalent(u.deg) else values
    words = [re.sub(r"[^0-9.+-]+", " ", text).strip() for text in _texts(column)]
    # A plain number stays one, with an exponent too: 5.1e-05 are no hours and minutes.
    others = [k for k in np.flatnonzero(np.isnan(values)) if re.search(r"\d", words[k])]
    unit = u.deg
    if hours and any(" " in words[k] for k in others):
        unit, values = u.hourangle, values * 15
    try:
        for k in others:
            values[k] = Angle(words[k], unit=unit).deg
    except ValueError as error:
        raise DataredError(f"positions in column {column.name} are not angles: {error}") from error
    return values


def _floats(column):
    """Column as float64 without masks: NaN where there is no number."""
    if column.dtype.kind not in "UOS":
        return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan).astype(float)
    values = np.full(len(column), np.nan)
    for k, text in enumerate(_texts(column)):
        try:
            values[k] = float(text)
        except ValueError:
            continue
    return values


def _texts(column):
    """Column as a list of texts, empty where masked, with the minus signs of web pages as ``-``."""
    texts = np.ma.filled(np.ma.asarray(column).astype(str), "").tolist()
    return [text.translate(str.maketrans("−–", "--")).strip() for text in texts]
