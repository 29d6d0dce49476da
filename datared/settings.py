"""Checked reading of the text file that describes a night."""

import dataclasses
import datetime
import difflib
import itertools
import math
import re
import types
import typing
from dataclasses import MISSING
from pathlib import Path

from astropy import units as u
from astropy.coordinates import SkyCoord

from .nightfile import night_toml, write_night
from .vocabulary import KINDS, SYNONYMS, normalise_kind

__all__ = ["Reader", "night_toml", "parse_position", "write_night"]

#: Allowed ranges of numbers: lowest, highest, and what they are.
RANGES = {
    "site.latitude": (-90.0, 90.0, "degrees, north positive"),
    "site.longitude": (-180.0, 360.0, "degrees, east positive"),
    "site.height": (-500.0, 9000.0, "metres"),
    "camera.gain": (1e-6, 1e6, "electrons per ADU"),
    "camera.read_noise": (0.0, 1e6, "electrons"),
    "camera.saturation": (1.0, 1e12, "ADU"),
    "camera.pixel_scale": (1e-4, 3600.0, "arcsec per pixel"),
    "camera.diameter": (0.1, 10000.0, "centimetres"),
    "reduction.memory_limit": (64.0, 1e6, "MB"),
    "astrometry.search_radius": (0.1, 10800.0, "arcmin"),
    "astrometry.scale_tolerance": (0.0, 0.9, "a fraction"),
    "astrometry.sip_order": (0, 9, "an order; 0 for no distortion"),
    "astrometry.time_limit": (1.0, 86400.0, "seconds"),
    "astrometry.max_rms": (1e-3, 100.0, "px"),
    "astrometry.limit_mag": (0.0, 30.0, "mag"),
    "photometry.threshold": (0.1, 1e6, "sigma"),
    "photometry.default_radius": (0, 1000, "an index from 0"),
    "photometry.recentre": (1e-3, 1000.0, "px"),
    "magnitudes.extinction": (0.0, 5.0, "mag per airmass"),
    "frames.exptime": (0.0, 1e7, "seconds"),
}
#: Texts of which one must be given.
CHOICES = {
    "astrometry.solver": ("catalogue", "solve-field", "nova"),
    "astrometry.source": ("refcat2", "gaia", "ps1", "sdss", "tycho2"),
    "lightcurve.method": ("ensemble", "sum"),
    "photometry.radius_unit": ("px", "arcsec", "fwhm", "night-fwhm"),
    "photometry.background": (
        *("annulus-median", "annulus-mean", "map", "frame", "profile", "none"),
    ),
    "photometry.bad_pixels": ("nan", "fill"),
    "magnitudes.method": ("global", "median", "ransac"),
    "reduction.method": ("median", "mean"),
    "reduction.cosmic_rays": ("", "laplacian", "median"),
    "reduction.repair": ("mask", "gaussian", "subtract"),
}
SECTIONS = ("camera.overscan", "camera.trim", "camera.amplifiers.image")
SECTIONS += ("camera.amplifiers.overscan",)
_CARD = re.compile(r"[A-Za-z0-9_. -]*[A-Za-z0-9_-]")
_COLOUR = re.compile(r"auto|none|([^\s-]+)-(?!\1$)[^\s-]+")
_SECTION = re.compile(r"\[\s*\d+\s*:\s*\d+\s*,\s*\d+\s*:\s*\d+\s*\]")


class Reader:
    """Reads tables of a night file into keyword arguments, and collects all problems.

    Parameters
    ----------
    folder : pathlib.Path
        Paths are relative to it.

    Attributes
    ----------
    problems : list of str
        What was found, what is valid, what to do; one sentence each.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.problems = []

    def table(self, values, kind, where, *, required=(), skip=(), extra=()):
        """Check one table against the fields of a dataclass.

        Parameters
        ----------
        values : dict
            The parsed table.
        kind : type
            Dataclass with the valid names and types.
        where : str
            Name of the table in messages; empty for the top.
        required, skip, extra : tuple of str
            Names that must be there, that are no settings, and that are valid beside the fields.

        Returns
        -------
        dict
            The valid entries, converted (paths absolute, lists as tuples).
        """
        if not isinstance(values, dict):
            self.problems.append(f"[{where}] must be a table, not {values!r}")
            return {}
        hints = typing.get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.name not in skip]
        prefix = f"{where}." if where else ""
        result = {}
        for key, value in values.items():
            if key in extra:
                continue
            if key not in names:
                self.problems.append(_unknown(prefix + key, key, [*names, *extra]))
            elif item := _item(hints[key]):
                needed = tuple(f.name for f in dataclasses.fields(item) if f.default is MISSING)
                found = self.tables(value, item, prefix + key, required=needed)
                result[key] = tuple(item(**v) for v in found if set(needed) <= set(v))
            elif not _is_table(hints[key]):
                self._entry(result, key, value, hints[key], prefix + key)
        for key in required:
            if key not in values:
                self.problems.append(f"{prefix}{key} is missing")
        return result

    def tables(self, values, kind, where, *, required=()):
        """Check a list of tables (``[[frames]]``); a list of dictionaries is returned."""
        if not isinstance(values, list | tuple):
            self.problems.append(f"[{where}] must be written with two brackets: [[{where}]]")
            return []
        return [self.table(value, kind, where, required=required) for value in values]

    def synonyms(self, values):
        """Check the ``[headers]`` table: for words of the vocabulary, one card or several."""
        if not isinstance(values, dict):
            self.problems.append(f"[headers] must be a table, not {values!r}")
            return {}
        result = {}
        for key, value in values.items():
            cards = [value] if isinstance(value, str) else value
            if key not in SYNONYMS:
                self.problems.append(_unknown(f"headers.{key}", key, list(SYNONYMS)))
            elif not isinstance(cards, list) or not all(isinstance(c, str) for c in cards):
                self.problems.append(
                    f'headers.{key} = {value!r} must name header cards: {key} = ["MYCARD"]'
                )
            else:
                result[key] = tuple(cards)
        return result

    def extinction(self, given):
        """Check the table ``[magnitudes.extinction]``: a number for each filter."""
        values = given.get("extinction", {}) if isinstance(given, dict) else {}
        where = "magnitudes.extinction"
        if not isinstance(values, dict):
            self.problems.append(f"{where} must be a table {{B = 0.2, V = 0.1}}, not {values!r}")
            return {}
        result = {}
        for key, value in values.items():
            problem = _type_problem(value, float) or _value_problem(where, value)
            if problem:
                self.problems.append(f"{where}.{key} = {value!r} {problem}")
            else:
                result[key] = float(value)
        return result

    def photometry(self, given, top):
        """Check what the table ``[photometry]`` needs beside itself.

        Parameters
        ----------
        given : object
            The table as it was parsed.
        top : dict
            What was read of the night file: dataclasses under the names of their tables.
        """
        given = given if isinstance(given, dict) else {}
        if given.get("radius_unit", "fwhm") in ("px", "arcsec"):
            self.problems += [
                f"photometry.{key} is missing: it must be given where radius_unit is px or arcsec"
                for key in ("radii", "annulus")
                if key not in given
            ]
        if "photometry" not in top or not top["photometry"].scintillation:
            return
        missing = []
        if getattr(top.get("camera"), "diameter", None) is None:
            missing.append("the table [camera] has no diameter (of the telescope, in centimetres)")
        if top.get("site") is None:
            missing.append("there is no table [site] (latitude, longitude, height) for the airmass")
        self.problems += [
            f"photometry.scintillation = true, but {text}: add it, or leave scintillation out"
            for text in missing
        ]

    def _entry(self, result, key, value, hint, where):
        """Put one converted value into the result, or note why not."""
        kinds = [k for k in _members(hint) if k is not type(None)]
        wanted = kinds[0]
        if where == "date" and isinstance(value, datetime.date):
            value = value.isoformat()  # TOML has dates without quotes.
        problem = _type_problem(value, wanted) or _value_problem(where, value)
        if problem:
            self.problems.append(f"{where} = {value!r} {problem}")
        elif wanted is Path:
            path = Path(value).expanduser()
            result[key] = path if path.is_absolute() else _normal(self.folder / path)
        elif wanted is tuple:
            result[key] = tuple(value)
        elif wanted is float:
            result[key] = float(value)
        elif where == "frames.kind":
            result[key] = normalise_kind(value)
        else:
            result[key] = value.strip() if isinstance(value, str) else value


def parse_position(text):
    """Position on the sky in a text.

    Parameters
    ----------
    text : str
        ``"02:04:10.278 +46:41:16.21"``, ``"02 04 10.278 +46 41 16.21"`` or ``"2h4m10s +46d41m"``
        (right ascension in hours), or two plain numbers (both in degrees).

    Returns
    -------
    astropy.coordinates.SkyCoord or None
        ICRS; None for a text that is no position, such as a name.

    Examples
    --------
    >>> parse_position("02:04:10.278 +46:41:16.21").ra.deg.round(6)
    np.float64(31.042825)
    """
    text = str(text).strip().replace(",", " ").replace("deg", "d")
    # Signs and primes as they come from web pages and papers.
    text = text.translate(str.maketrans("−–′’″”", "--''\"\""))
    if not re.fullmatch(r"[\s\d.:+\-hdms°'\"]+", text) or not re.search(r"\d", text):
        return None
    numbers = text.split()
    degrees = len(numbers) == 2 and not re.search(r"[:hdms°'\"]", text)
    try:
        if degrees and not 0 <= float(numbers[0]) <= 360:
            return None
        return SkyCoord(text, unit=(u.deg if degrees else u.hourangle, u.deg))
    except ValueError:  # Also UnitsError and the errors of angles, which are ValueErrors.
        return None


def _normal(path):
    """Absolute path without ``..``; links are kept, so that messages show what the user wrote."""
    parts = []
    for part in path.absolute().parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts)


def _unknown(where, key, names):
    """Message for an unknown key, with the nearest valid names."""
    near = difflib.get_close_matches(key.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"valid: {', '.join(names)}"
    return f"{where} is unknown; {hint}"


def _members(hint):
    """Types of a union, or the type itself."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return list(typing.get_args(hint)) if union else [hint]


def _item(hint):
    """Dataclass of which a field holds a tuple, else None."""
    first = next(iter(typing.get_args(hint)), None)
    is_tuple = typing.get_origin(hint) is tuple
    return first if is_tuple and dataclasses.is_dataclass(first) else None


def _is_table(hint):
    """Whether a field is read from a table of its own."""
    return any(dataclasses.is_dataclass(k) or k in (dict, SkyCoord) for k in _members(hint))


def _type_problem(value, wanted):
    """Why a value has the wrong type, or an empty text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    good = {
        str: isinstance(value, str),
        Path: isinstance(value, str),
        bool: isinstance(value, bool),
        int: is_number and isinstance(value, int),
        float: is_number and math.isfinite(value),
        tuple: isinstance(value, list | tuple),
    }[wanted]
    words = {str: 'a text in quotes ("...")', Path: 'a path in quotes ("...")'}
    words |= {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        tuple: "a list [...]",
    }
    return "" if good else f"must be {words[wanted]}"


def _value_problem(where, value):
    """Why a value of the right type is not valid, or an empty text."""
    if where in RANGES:
        low, high, unit = RANGES[where]
        if not low <= value <= high:
            return f"must be between {low:g} and {high:g} ({unit})"
    if where in SECTIONS and not _SECTION.fullmatch(value.strip()):
        return "must be a FITS section such as [1:1024,1:1024] (columns first, counted from 1)"
    if where == "camera.gain_keyword" and not _CARD.fullmatch(value.strip()):
        return 'must name a header card: "EGAIN"'
    if where in CHOICES and value not in CHOICES[where]:
        return f"must be one of {', '.join(choice or repr('') for choice in CHOICES[where])}"
    if where in ("photometry.radii", "photometry.annulus"):
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) != len(value) or not numbers or not min(numbers) > 0:
            return "must be a list of positive numbers"
        if any(b <= a for a, b in itertools.pairwise(numbers)):
            return "must grow from one number to the next"
        if where.endswith("annulus") and len(numbers) != 2:
            return "must be two numbers: inner and outer radius"
    if where == "magnitudes.colour" and not _COLOUR.fullmatch(value.strip()):
        return 'must be "auto", "none" or two bands such as "g-i"'
    if where == "diagram.bands":
        names = [v for v in value if isinstance(v, str) and v.strip()]
        if len(names) != len(value) or len(value) not in (0, 2, 3) or len(set(names[:2])) == 1:
            return 'must be a list of two or three filters: ["g", "i"] or ["g", "i", "r"]'
    if where == "date" and not _is_date(value):
        return 'must be the date on which the night begins: "2026-02-14"'
    if where == "exclude_filters" and not all(isinstance(v, str) for v in value):
        return 'must be a list of names: ["U", "B"]'
    if where == "frames.kind" and not normalise_kind(value):
        return f"must be one of {', '.join(KINDS)}"
    return ""


def _is_date(text):
    """Whether a text is a date in the form of ISO 8601."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
