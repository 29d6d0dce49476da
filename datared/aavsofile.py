"""Light curves in the AAVSO Extended File Format: written, read back, checked.

The format is that of https://www.aavso.org/aavso-extended-file-format (version 1.2, as updated on
2 December 2021): six lines of parameters, then one line of 15 fields for each observation.
"""

import math
import re
from pathlib import Path

import numpy as np
from astropy.table import Table

from . import __version__
from .errors import ConfigError, DataredError
from .exportchecks import (
    check_times,
    check_vocabulary,
    checked_path,
    flag_words,
    read_text,
    require,
    rows_to_export,
)

__all__ = ["AAVSO_FILTERS", "check_aavso", "read_aavso", "write_aavso"]

#: Names of filters in the format; ``O`` (other) is not accepted at present, says its page.
AAVSO_FILTERS = (
    *("U", "B", "V", "R", "I", "J", "H", "K", "TG", "TB", "TR", "CV", "CR"),
    *("SU", "SG", "SR", "SI", "SZ", "STU", "STV", "STB", "STY", "STHBW", "STHBN"),
    *("MA", "MB", "MI", "ZS", "Y", "HA", "HAC"),
)
#: Ours that mean one of them for sure; a clear filter is CV or CR, which only the observer knows.
_SURE = {"u": "SU", "g": "SG", "r": "SR", "i": "SI", "z": "SZ", "Rc": "R", "Ic": "I"}
_SURE |= {f"{name}{end}": f"S{name.upper()}" for name in "ugriz" for end in ("'", "p")}

_PARAMETERS = ("TYPE", "OBSCODE", "SOFTWARE", "DELIM", "DATE", "OBSTYPE")
#: Fields in their order: name here, most characters (NOTES: several thousand), whether a number.
_FIELDS = {
    "name": (30, False), "date": (16, True), "mag": (8, True), "mag_err": (6, True),
    "filter": (5, False), "trans": (3, False), "mtype": (3, False), "cname": (20, False),
    "cmag": (8, True), "kname": (20, False), "kmag": (8, True), "airmass": (7, True),
    "group": (5, False), "chart": (20, False), "notes": (2000, False),
}  # fmt: skip
_TITLES = "NAME,DATE,MAG,MERR,FILT,TRANS,MTYPE,CNAME,CMAG,KNAME,KMAG,AIRMASS,GROUP,CHART,NOTES"
_ENDINGS = (".txt", ".csv", ".tsv")
_DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";"}


def write_aavso(
    curve,
    path,
    *,
    observer,
    star,
    filter=None,
    magnitude=None,
    comparison=None,
    chart="na",
    position=None,
    location=None,
):
    """Write a light curve in the AAVSO Extended File Format.

    Times are Julian dates (UTC) of mid-exposure. Epochs without a magnitude, and those on which the
    star is saturated or cut off, are left out. The file is checked before it gets its name.

    Parameters
    ----------
    curve : astropy.table.Table
        From `datared.lightcurve.differential_light_curve`.
    path : str or pathlib.Path
        The file; it must end in ``.txt``, ``.csv`` or ``.tsv``.
    observer : str
        The observer code that the AAVSO has given, 2 to 5 letters or digits.
    star : str
        Name in the AAVSO's index (VSX), at most 30 characters.
    filter : str, optional
        Name of `AAVSO_FILTERS`; the curve's own where that means one of them for sure.
    magnitude : float, optional
        Magnitude of the star in this filter where ``delta_mag`` is 0. With it magnitudes are
        reported as standardised (``STD``), without as differential (``DIF``).
    comparison : str, optional
        Name of the comparison star; ``ENSEMBLE`` for several.
    chart : str
        Identifier of the AAVSO's chart whose comparison stars were used, else ``na``.
    position : astropy.coordinates.SkyCoord, optional
        The star, for the check.
    location : astropy.coordinates.EarthLocation, optional
        The observatory, for the check.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ConfigError
        If something is missing or longer than the format allows.
    DataredError
        If no epoch can be reported, or the check fails.
    """
    meta = curve.meta
    if comparison is None and len(meta.get("comparison", ())) > 1:
        comparison = "ENSEMBLE"
    require(
        {
            "observer": (observer, "the observer code that the AAVSO has given you"),
            "star": (star, "the name of the star as the AAVSO's index (VSX) has it"),
            "comparison": (comparison, "the name of the one star that was compared with"),
        }
    )
    if not re.fullmatch(r"[A-Za-z0-9]{2,5}", observer):
        raise ConfigError(f"observer {observer!r} is no AAVSO code: 2 to 5 letters or digits")
    if not str(path).lower().endswith(_ENDINGS):
        raise ConfigError(f"{path}: the AAVSO takes only files that end in {', '.join(_ENDINGS)}")
    if magnitude is not None and not math.isfinite(magnitude):
        raise ConfigError(f"magnitude {magnitude} is no number; leave it out where none is known")
    rows = rows_to_export(curve)
    band = check_vocabulary(
        filter or str(rows["filter"][0]), name="filter", words=AAVSO_FILTERS, translated=_SURE,
        format="AAVSO",
    )  # fmt: skip
    level = 0.0 if magnitude is None else float(magnitude)
    lines = [
        "#TYPE=EXTENDED", f"#OBSCODE={observer.upper()}", f"#SOFTWARE=datared {__version__}",
        "#DELIM=,", "#DATE=JD", "#OBSTYPE=CCD", f"#{_TITLES}",
    ]  # fmt: skip
    for row in rows:
        fields = {
            "name": star.strip(), "date": f"{row['jd_utc_mid']:.7f}",
            "mag": f"{row['delta_mag'] + level:.4f}",
            # Four digits must not make an error of nothing.
            "mag_err": f"{max(row['delta_mag_err'], 1e-4):.4f}",
            "filter": band, "trans": "NO", "mtype": "DIF" if magnitude is None else "STD",
            "cname": comparison.strip(), "cmag": "na", "kname": "na", "kmag": "na",
            "airmass": f"{row['airmass']:.4f}" if math.isfinite(row["airmass"]) else "na",
            "group": "na", "chart": chart or "na", "notes": flag_words(row["flags"]) or "na",
        }  # fmt: skip
        _check_fields(fields)
        lines.append(",".join(fields.values()))
    with checked_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")
        check_aavso(temporary, position=position, location=location)
    return Path(path)


def _check_fields(fields):
    """Refuse a field that is too long, is not ASCII, or holds what separates."""
    for name, text in fields.items():
        longest = _FIELDS[name][0]
        if len(text) > longest:
            raise ConfigError(f"{name} {text!r} has {len(text)} characters; AAVSO takes {longest}")
        if not text.isascii() or not text.isprintable() or set(text) & set(",#|"):
            raise ConfigError(f"{name} {text!r} must be plain ASCII without , # and |")


def read_aavso(path):
    """Read a file in the AAVSO Extended File Format.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    astropy.table.Table
        One row for each observation with the columns ``name``, ``date``, ``mag``, ``mag_err``,
        ``filter``, ``trans``, ``mtype``, ``cname``, ``cmag``, ``kname``, ``kmag``, ``airmass``,
        ``group``, ``chart``, ``notes``; ``na`` is NaN in a column of numbers. ``fainter`` says that
        the magnitude is a limit. ``meta`` has the parameters in capitals.

    Raises
    ------
    ConfigError
        If a parameter is missing, or a line is not of the format; its number is told.
    """
    meta, rows = {}, []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.startswith("#"):
            key, equals, value = line[1:].partition("=")
            if equals and key.strip().upper() in _PARAMETERS:
                meta[key.strip().upper()] = value.strip()
        elif line.strip():
            delimiter = meta.get("DELIM", ",")
            words = line.split(_DELIMITERS.get(delimiter.lower(), delimiter))
            rows.append(_read_line(words, f"{path}, line {number}"))
    lacking = [key for key in _PARAMETERS if not meta.get(key)]
    if lacking:
        raise ConfigError(f"{path}: the lines #{'=, #'.join(lacking)}= are missing or empty")
    if meta["TYPE"].upper() != "EXTENDED":
        raise ConfigError(f"{path}: #TYPE={meta['TYPE']} is not EXTENDED")
    if not rows:
        raise ConfigError(f"{path} has no observation")
    table = Table(rows=rows)
    table.meta = meta
    return table


def _read_line(words, where):
    """One observation."""
    if len(words) != len(_FIELDS):
        raise ConfigError(f"{where}: {len(words)} fields instead of {len(_FIELDS)}")
    row = {}
    for (name, (_, number)), word in zip(_FIELDS.items(), words, strict=True):
        word = word.strip()
        if name == "mag":
            row["fainter"] = word.startswith("<")
            word = word.lstrip("<")
        row[name] = word
        if number:
            missing = word.lower() == "na"
            try:
                row[name] = math.nan if missing else float(word)
            except ValueError:
                row[name] = math.inf
            if not missing and not math.isfinite(row[name]):
                raise ConfigError(f"{where}: {name} is {word!r}, no number and not 'na'")
    return row


def check_aavso(path, *, position=None, location=None):
    """Read a file in the AAVSO Extended File Format and check what it says.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    position : astropy.coordinates.SkyCoord, optional
        The star.
    location : astropy.coordinates.EarthLocation, optional
        The observatory.

    Returns
    -------
    dict
        ``rows``, and ``airmass``: the largest relative difference from the airmass that is computed
        from date, position and location (NaN where that is not possible).

    Raises
    ------
    DataredError
        If a field is not of the format, a magnitude is not finite, the dates do not increase, or
        an airmass is not that of the place.
    """
    table = read_aavso(path)
    for name in ("name", "filter", "trans", "mtype", "cname", "kname", "group", "chart"):
        longest = _FIELDS[name][0]
        for word in set(table[name]):
            if not word or len(word) > longest:
                raise DataredError(f"{path}: {name} {word!r} must have 1 to {longest} characters")
    for name, words in (("filter", AAVSO_FILTERS), ("trans", ("YES", "NO")),
                        ("mtype", ("STD", "DIF", "ABS"))):  # fmt: skip
        unknown = {word.upper() for word in table[name]} - set(words)
        if unknown:
            raise DataredError(f"{path}: {name} {sorted(unknown)} is not one of {', '.join(words)}")
    if np.any((np.char.upper(table["mtype"].astype(str)) == "DIF") & (table["cname"] == "na")):
        raise DataredError(f"{path}: DIF needs the name of a comparison star, or ENSEMBLE")
    if not (np.isfinite(table["mag"]).all() and np.isfinite(table["date"]).all()):
        raise DataredError(f"{path}: a magnitude or a date is missing")
    if np.any(np.asarray(table["mag_err"]) <= 0):
        raise DataredError(f"{path}: an error is not positive")
    found = {"rows": len(table), "airmass": math.nan}
    if table.meta["DATE"].upper() == "JD":
        told = check_times(
            table["date"], position=position, location=location, airmasses=table["airmass"]
        )
        found["airmass"] = told["airmass"]
    return found
