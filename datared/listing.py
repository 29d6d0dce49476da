"""The list of a night's frames: one row for each FITS file, with what its header says."""

import fnmatch
import gzip
import hashlib
import logging
import os
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .errors import ConfigError
from .headers import read_header
from .vocabulary import VOCABULARY

__all__ = [
    "count_groups",
    "first_image",
    "inventory",
    "open_quietly",
    "product_name",
    "select_lights",
]

log = logging.getLogger("datared.frames")

_FITS_NAME = re.compile(r".+\.(fits|fit|fts)(\.gz|\.fz)?|.+\.fz", re.I)
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
        (absolute), what `datared.headers.read_header` gives, and ``setup`` (size, binning, gain
        setting, offset and readout mode: only frames with the same one go together). A frame that
        cannot be used has the reason in ``problem``.

    Raises
    ------
    ConfigError
        If there is no file at all.
    """
    if order not in ("file", "time"):
        raise ValueError(f"order must be 'file' or 'time', not {order!r}")
    files = _find(night)
    if not files:
        raise ConfigError(
            f"there is no FITS file under {night.raw}: files must end in .fits, .fit or .fts "
            "(also .fz, .gz); correct raw, or put the frames there"
        )
    rows = [_row(night, name, path) for name, path in sorted(files.items())]
    _settle_filters(rows)
    _refuse_same_names(rows)
    if order == "time":
        rows.sort(key=lambda row: (np.nan_to_num(row["jd_utc_mid"], nan=np.inf), row["file"]))
    columns = {"file": "", "path": "", **VOCABULARY, "setup": ""}
    table = Table()
    for name, default in columns.items():
        values = [row[name] for row in rows]
        table[name] = np.array(values, dtype=_TYPES[type(default)])
    for row in rows:
        if row["problem"]:
            log.warning("%s: %s", row["file"], row["problem"])
    return table


def select_lights(table, night, *, object=None, filter=None):
    """Choose the light frames that a night is about.

    Parameters
    ----------
    table : Table
        From `inventory`.
    night : Night
        Its ``object`` and ``exclude_filters`` are honoured.
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
    if filter is not None:
        lights = lights[lights["filter"] == filter]
    return lights[~np.isin(lights["filter"], [str(name) for name in night.exclude_filters])]


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
    if safe != stem.replace("/", "__") or "__" in stem or _FITS_NAME.fullmatch(file[:-5]):
        safe = f"{safe[:120]}-{hashlib.sha256(file.encode()).hexdigest()[:8]}"
    elif len(safe) > 120:
        safe = f"{safe[:120]}-{hashlib.sha256(file.encode()).hexdigest()[:8]}"
    return safe


@contextmanager
def open_quietly(path):
    """Open a FITS file for reading, with the stored numbers, without warnings about its cards.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Yields
    ------
    astropy.io.fits.HDUList
        The open file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, mode="readonly", memmap=False, do_not_scale_image_data=True) as hdus:
            yield hdus


def first_image(hdus):
    """Find the first unit of an open file that holds an image.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
        The open file.

    Returns
    -------
    astropy.io.fits HDU or None
        The unit, or None where there is no image.
    """
    for hdu in hdus:
        if hdu.is_image and hdu.header.get("NAXIS", 0) > 0:
            return hdu
    return None


def _find(night):
    """Paths of the FITS files by their relative names, which are unique in the night."""
    files, seen = {}, set()
    for root in (night.raw, night.calibration):
        if root is None:
            continue
        for folder, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # The second root, or a link back into the tree.
                folders[:] = []
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if _FITS_NAME.fullmatch(name) and not name.startswith("."):
                    path = Path(folder) / name
                    relative = path.relative_to(root).as_posix()
                    if relative in files:
                        relative = f"{root.name}/{relative}"
                    files[relative] = path
    return files


def _row(night, name, path):
    """One row: header, rules of the night file, set-up; a fault of the file is its problem."""
    row = {"file": name, "path": str(path.absolute()), **VOCABULARY}
    try:
        with open_quietly(path) as hdus:
            hdu = first_image(hdus)
            if hdu is None:
                row["problem"] = "there is no image in this file"
            else:
                full_name = f"{night.raw.name}/{name}" if "/" not in name else name
                row |= read_header(hdu.header, path=full_name, synonyms=night.headers)
                damage = _truncation(path, hdu)
                row["problem"] = "; ".join(filter(None, (damage, row["problem"])))
    except Exception as error:  # A damaged file raises many kinds of errors.
        row["problem"] = f"cannot be read as FITS ({type(error).__name__}: {error})"
    _apply_rules(row, night.rules)
    row["setup"] = _setup(row)
    return row


def _truncation(path, hdu):
    """Why a file is too short for what its header announces, or an empty text."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as stream:  # The check sum is at the end of the stream.
            while stream.read(1 << 22):
                pass
        return ""
    size = path.stat().st_size
    place = hdu.fileinfo()
    # A compressed image is a table in the file; only its span in whole blocks (2880) is known.
    compressed = isinstance(hdu, fits.CompImageHDU)
    needed = place["datLoc"] + (place["datSpan"] - 2879 if compressed else hdu.size)
    if size >= needed:
        return ""
    return f"the file is truncated: {size} bytes, but its header announces {needed}; copy it again"


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
        if rule.exclude is not None:
            row["problem"] = f"excluded by the night file: {rule.exclude}"


def _is_about(problem, word):
    """Whether a problem of `read_header` says that the kind or the exposure time is missing."""
    start = {"kind": ("the kind of frame", "name it in"), "exposure time": ("no exposure time",)}
    return problem.startswith(start[word])


def _settle_filters(rows):
    """Name the filter of a night without filters ``none``; else a missing one is a problem."""
    needing = [row for row in rows if row["kind"] in ("light", "flat")]
    if not any(row["filter"] for row in needing):
        for row in needing:
            row["filter"] = "none"
        return
    for row in needing:
        if not row["filter"]:
            reason = "no filter in the header, while other frames have one; name it in [[frames]]"
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
