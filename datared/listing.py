"""The list of a night's frames: one row for each FITS file, with what its header says."""

import datetime
import fnmatch
import hashlib
import logging
import math
import re
from collections import Counter

import numpy as np
from astropy.table import Table

from .errors import ConfigError
from .fitsfiles import find_files, first_image, is_fits_name, open_quietly, truncation
from .headers import read_header
from .vocabulary import SYNONYMS, VOCABULARY

__all__ = [
    "count_groups",
    "evening_date",
    "first_image",
    "inventory",
    "open_quietly",
    "product_name",
    "select_lights",
]

log = logging.getLogger("datared.frames")

_PLAIN_SUFFIX = re.compile(r"\.fits$", re.I)
_TYPES = {str: "U", float: "f8", int: "i8", bool: "?"}


def inventory(night, *, order="file"):
    """List the frames of a night. Only headers are read.

    Parameters
    ----------
    night : Night
        Its ``raw`` and ``calibration`` folders are searched, with their sub-folders, for ``.fits``,
        ``.fit``, ``.fts`` (also with ``.gz``, ``.fz``) in upper or lower case.
    order : str
        ``"file"`` (by name) or ``"time"`` (by mid-exposure; unknown times last).

    Returns
    -------
    astropy.table.Table
        One row for each file: ``file`` (path relative to its folder, with ``/``), ``path``
        (absolute), what `datared.headers.read_header` gives, ``setup`` (size, binning, gain
        setting, offset and readout mode: only frames with the same one go together) and ``night``
        (date of the evening, see `evening_date`). A frame that cannot be used has the reason in
        ``problem``; what is odd about one is in ``warning``.

    Raises
    ------
    ConfigError
        If there is no file at all.
    """
    if order not in ("file", "time"):
        raise ValueError(f"order must be 'file' or 'time', not {order!r}")
    files = find_files(*(root for root in (night.raw, night.calibration) if root is not None))
    if not files:
        raise ConfigError(
            f"there is no FITS file under {night.raw}: files must end in .fits, .fit or .fts "
            "(also .fz, .gz); correct raw, or put the frames there"
        )
    rows = [_row(night, name, path) for name, path in sorted(files.items())]
    _settle_filters(rows, (*night.headers.get("filter", ()), *SYNONYMS["filter"]))
    _refuse_same_names(rows)
    if order == "time":
        rows.sort(key=lambda row: (np.nan_to_num(row["jd_utc_mid"], nan=np.inf), row["file"]))
    columns = {"file": "", "path": "", **VOCABULARY, "setup": "", "night": ""}
    table = Table()
    for name, default in columns.items():
        values = [row[name] for row in rows]
        table[name] = np.array(values, dtype=_TYPES[type(default)])
    for row in rows:
        if row["problem"]:
            log.warning("%s: %s", row["file"], row["problem"])
    for text, count in Counter(row["warning"] for row in rows if row["warning"]).items():
        log.info("%d files: %s", count, text)
    return table


def select_lights(table, night, *, object=None, filter=None):
    """Choose the light frames that a night is about.

    Parameters
    ----------
    table : Table
        From `inventory`.
    night : Night
        Its ``object``, ``date`` and ``exclude_filters`` are honoured. (The date chooses among the
        light frames only: calibration frames are often shared by several nights.)
    object : str, optional
        Object instead of the night's. Case and blanks do not count, everything else does.
    filter : str, optional
        Only this filter (its case counts: R is not r).

    Returns
    -------
    astropy.table.Table
        The usable rows; it may be empty.
    """
    wanted = night.object if object is None else object
    keep = (table["kind"] == "light") & (table["problem"] == "")
    lights = table[keep]
    if wanted:
        names = np.array([_simple(name) for name in lights["object"]], dtype="U")
        keep = names == _simple(wanted)
        if len(lights) and not keep.any():
            found = ", ".join(repr(str(name)) for name in sorted(set(lights["object"])))
            log.warning("no light frame of object %r; the headers have %s", wanted, found)
        lights = lights[keep]
    if night.date is not None:
        keep = lights["night"] == night.date
        unknown = np.count_nonzero(lights["night"] == "")
        if unknown:
            log.warning("%d light frames without a time: left out of %s", unknown, night.date)
        if len(lights) and not keep.any():
            found = ", ".join(sorted(set(lights["night"]) - {""})) or "none"
            log.warning("no light frame of the night %s; there are: %s", night.date, found)
        lights = lights[keep]
    if filter is not None:
        lights = lights[lights["filter"] == filter]
    return lights[~np.isin(lights["filter"], [str(name) for name in night.exclude_filters])]


def evening_date(jd_utc, *, longitude=math.nan):
    """Give the date on which the night of a moment begins: from local noon to the next.

    Parameters
    ----------
    jd_utc : float
        Julian date in UTC.
    longitude : float
        Of the site, in degrees, east positive; it makes UTC local mean time. Where it is not known
        (NaN) the day goes from noon to noon in UTC, which cuts nights far from Greenwich in two.

    Returns
    -------
    str
        Such as ``2026-02-14``; empty where the moment is not known.

    Examples
    --------
    >>> evening_date(2461086.5)  # midnight UTC before 15 February
    '2026-02-14'
    >>> evening_date(2461086.9, longitude=-155.5)  # late evening of the 14th in Hawaii
    '2026-02-14'
    """
    day = jd_utc + (math.remainder(longitude, 360.0) / 360.0 if math.isfinite(longitude) else 0.0)
    if not 1721426 < day < 5373484:  # Years 1 to 9999; False also for NaN.
        return ""
    # A Julian day begins at noon; 1721426 is that of the first of January of the year 1.
    return datetime.date.fromordinal(math.floor(day) - 1721425).isoformat()


def count_groups(table):
    """Count frames for each kind, filter, exposure time and set-up.

    Parameters
    ----------
    table : Table
        From `inventory`.

    Returns
    -------
    astropy.table.Table
        ``kind``, ``filter`` (of flats and lights only), ``exptime`` (s), ``setup``, ``frames``
        (usable ones) and ``problems`` (number of the others).
    """
    groups = {}
    for row in table:
        has_filter = row["kind"] in ("flat", "light", "darkflat")
        exptime = round(float(row["exptime"]), 2)
        key = (
            str(row["kind"]),
            str(row["filter"]) if has_filter else "",
            -1.0 if exptime != exptime else exptime,  # NaN is not equal to itself.
            str(row["setup"]),
        )
        counts = groups.setdefault(key, [0, 0])
        counts[1 if row["problem"] else 0] += 1
    rows = [
        (kind, name, np.nan if exptime < 0 else exptime, setup, *counts)
        for (kind, name, exptime, setup), counts in sorted(groups.items())
    ]
    names = ("kind", "filter", "exptime", "setup", "frames", "problems")
    return Table(rows=rows, names=names, dtype=("U", "U", "f8", "U", "i8", "i8"))


def product_name(file):
    """Safe name for the products of a raw frame, without an ending.

    Parameters
    ----------
    file : str
        Path relative to the raw folder, as in the inventory.

    Returns
    -------
    str
        Letters, digits and ``. _ + -`` only; different for different files. Add the ending with
        ``+ ".fits"``: the name may have dots.

    Examples
    --------
    >>> product_name("science/ngc_b0.fits")
    'science__ngc_b0'
    """
    file = str(file).replace("\\", "/")
    stem = _PLAIN_SUFFIX.sub("", file)
    safe = re.sub(r"[^A-Za-z0-9._+-]", "_", stem.replace("/", "__")).lstrip(".-") or "frame"
    # Where the way back is not unique (or the name too long) some digits of the hash make it so.
    if safe != stem.replace("/", "__") or "__" in stem or is_fits_name(file[:-5]):
        safe = f"{safe[:120]}-{hashlib.sha256(file.encode()).hexdigest()[:8]}"
    elif len(safe) > 120:
        safe = f"{safe[:120]}-{hashlib.sha256(file.encode()).hexdigest()[:8]}"
    return safe


def _row(night, name, path):
    """One row: header, rules of the night file, set-up; a fault of the file is its problem."""
    row = {"file": name, "path": str(path.absolute()), **VOCABULARY}
    try:
        with open_quietly(path) as hdus:
            hdu = first_image(hdus)
            if hdu is None:
                row["problem"] = "there is no image in this file"
            else:
                words = _words(night, path)
                row |= read_header(hdu.header, path=words, synonyms=night.headers)
                faults = (truncation(path, hdu), _product(hdu.header), row["problem"])
                row["problem"] = "; ".join(filter(None, faults))
    except Exception as error:  # A damaged file raises many kinds of errors.
        row["problem"] = f"cannot be read as FITS ({type(error).__name__}: {error})"
    _apply_rules(row, night.rules)
    row["setup"] = _setup(row)
    longitude = row["longitude"] if night.site is None else night.site.longitude
    known = row["jd_utc_mid"] if row["jd_utc_mid"] == row["jd_utc_mid"] else row["jd_utc_start"]
    row["night"] = evening_date(known, longitude=longitude)
    return row


def _words(night, path):
    """Path from the folder that was searched on: its words may tell the kind."""
    roots = [root for root in (night.calibration, night.raw) if root is not None]
    root = next(root for root in roots if path.is_relative_to(root))
    return f"{root.name}/{path.relative_to(root).as_posix()}"


def _product(header):
    """Why a file is no raw frame but one that a reduction left, or an empty text."""
    card = next((card for card in ("MASTER", "RAWFILE") if card in header), "")
    if not card or "KIND" not in header:
        return ""
    return f"a product of an earlier reduction (it has the card {card}), not a raw frame"


def _apply_rules(row, rules):
    """Put what the night file says in the place of what the header says; a later rule wins."""
    for rule in rules:
        if not fnmatch.fnmatchcase(row["file"], rule.match):
            continue
        for key in ("kind", "filter", "object", "exptime", "temperature"):
            value = getattr(rule, key)
            if value is not None:
                row[key] = value
        if rule.exptime is not None:
            row["jd_utc_mid"] = row["jd_utc_start"] + rule.exptime / 2 / 86400
        settled = {"kind": rule.kind, "exposure time": rule.exptime}
        for word, value in settled.items():
            if value is not None:  # What the rule supplies is no longer missing.
                parts = row["problem"].split("; ")
                row["problem"] = "; ".join(p for p in parts if not _is_about(p, word))
        if rule.kind is not None:
            _check_exposure(row)
        if rule.exclude is not None:
            row["problem"] = f"excluded by the night file: {rule.exclude}"


def _check_exposure(row):
    """Lights and darks need an exposure time, whatever kind the header said; others do not."""
    needed = row["kind"] in ("light", "dark", "darkflat") and row["exptime"] != row["exptime"]
    parts = [p for p in row["problem"].split("; ") if p and not _is_about(p, "exposure time")]
    if needed:
        parts.append("no exposure time in the header: give exptime in [[frames]]")
    row["problem"] = "; ".join(parts)


def _is_about(problem, word):
    """Whether a problem of `read_header` says that the kind or the exposure time is missing."""
    start = {"kind": "the kind of frame", "exposure time": "no exposure time"}
    return problem.startswith(start[word])


def _settle_filters(rows, cards):
    """Name the filter of a night without filters ``none``; else a missing one is a problem."""
    needing = [row for row in rows if row["kind"] in ("light", "flat")]
    if not any(row["filter"] for row in needing):
        for row in needing:
            row["filter"] = "none"
        return
    for row in needing:
        if not row["filter"]:
            reason = (
                f"no filter in the header (looked for {', '.join(cards)}), while other frames have "
                "one; name it in [[frames]]"
            )
            row["problem"] = "; ".join(filter(None, (row["problem"], reason)))


def _refuse_same_names(rows):
    """Give a problem to a frame whose products would have the name of another one's."""
    seen = {}
    for row in rows:
        other = seen.setdefault(product_name(row["file"]).lower(), row["file"])
        if other != row["file"]:
            reason = f"its products would have the name of those of {other}; rename the file"
            row["problem"] = "; ".join(filter(None, (row["problem"], reason)))


def _setup(row):
    """Text that is the same for frames which may be combined."""
    parts = [f"{row['nx']}x{row['ny']}", f"bin{row['xbin']}x{row['ybin']}"]
    if row["gain_setting"] == row["gain_setting"]:
        parts.append(f"gain{row['gain_setting']:g}")
    if row["offset"] == row["offset"]:
        parts.append(f"offset{row['offset']:g}")
    if row["readout_mode"]:
        parts.append(re.sub(r"\s+", "-", row["readout_mode"]))
    return " ".join(parts)


def _simple(name):
    """Name without blanks and without case."""
    return "".join(str(name).split()).casefold()
