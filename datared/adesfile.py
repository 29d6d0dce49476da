"""Positions of moving sources for the Minor Planet Center: ADES in PSV, written, read, checked.

ADES is the Astrometry Data Exchange Standard of the International Astronomical Union; its
definition (version 2022) is https://github.com/IAU-ADES/ADES-Master (``xml/adesmaster.xml``). PSV
is its form with lines of text: a header of ``#`` and ``!`` lines, one line with the names of the
fields, one line for each position, fields separated by ``|``. The Minor Planet Center refuses a
batch with a word that is not in https://www.minorplanetcenter.net/iau/info/ADESFieldValues.html.
"""

import math
import re
from pathlib import Path

import numpy as np
from astropy.table import Table
from astropy.time import Time

from .errors import ConfigError, DataredError
from .exportchecks import (
    TIME_LIMIT,
    check_vocabulary,
    checked_path,
    plain_table,
    read_text,
    require,
)
from .times import SECONDS_PER_DAY

__all__ = ["ADES_BANDS", "ADES_CATALOGUES", "check_ades", "fit_motion", "read_ades", "write_ades"]

#: Star catalogues with positions good enough today, and bands, by their names in the format.
ADES_CATALOGUES = (
    *("Gaia1", "Gaia2", "Gaia3", "Gaia3E", "ATLAS2", "PS1_DR1", "PS1_DR2", "UCAC4", "UCAC5"),
    *("URAT1", "Tyc2"),
)
ADES_BANDS = (
    *("Uj", "Bj", "Vj", "Rj", "Rc", "Ic", "Su", "Sg", "Sr", "Si", "Sz"),
    *("Pg", "Pr", "Pi", "Pz", "Py", "Pw", "G", "Gb", "Gr"),
)
_SURE = {"U": "Uj", "B": "Bj", "V": "Vj", "R": "Rc", "I": "Ic", "Rc": "Rc", "Ic": "Ic"}
_WORDS = {"translated": {}, "format": "ADES"}
#: Kind of detector, by the field ``mode``.
MODES = ("CCD", "CMO")

#: In the order of the definition.
_FIELDS = ("trkSub", "mode", "stn", "obsTime", "ra", "dec", "rmsRA", "rmsDec", "astCat")
_MEASURED = ("jd_utc_mid", "ra", "dec")
_NUMBERS = ("ra", "dec", "rmsRA", "rmsDec", "mag", "rmsMag", "exp")
_NEEDED = {
    "observatory": ("mpcCode",), "submitter": ("name",), "observers": ("name",),
    "measurers": ("name",), "telescope": ("design", "aperture", "detector"),
}  # fmt: skip
_NAME = re.compile(r"(?:[^\W\d_]\.[ -]?)+[^\W\d_][^|]*")


def write_ades(
    detections,
    path,
    *,
    station,
    observers,
    design,
    aperture,
    detector,
    catalogue,
    band=None,
    movers=None,
    epochs=None,
):
    """Write the positions of moving sources as ADES PSV.

    ``obsTime`` is the middle of the exposure (UTC). The errors of the positions are their scatter
    around a straight line. The sources are unlinked: each has a name of ours (``trkSub``), and
    whether one is known is found out by the Minor Planet Center. The file is checked before it
    gets its name.

    Parameters
    ----------
    detections : astropy.table.Table
        ``id``, ``jd_utc_mid`` (JD, UTC), ``ra``, ``dec`` (deg); where they are there, ``used``,
        and ``mag`` with ``mag_err``. As of `datared.movers.moving_sources`.
    path : str or pathlib.Path
        The file, such as ``mpc.psv``.
    station : str
        Code of the observatory that the Minor Planet Center has given, such as ``J95``.
    observers : str or sequence of str
        Names as ``J. Smith``; the first one submits.
    design : str
        Kind of telescope, such as ``Reflector``.
    aperture : float
        Its diameter in metres.
    detector : str
        ``CCD`` or ``CMO`` (CMOS).
    catalogue : str
        Name of `ADES_CATALOGUES` for the stars that gave the positions.
    band : str, optional
        Name of `ADES_BANDS` for the magnitudes; needed where there are some.
    movers : astropy.table.Table, optional
        ``id``, ``rate`` and ``rate_err`` (arcsec/min), for the check.
    epochs : astropy.table.Table, optional
        ``jd_utc_mid`` of all frames, for the check.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ConfigError
        If something is missing or not a word of the format.
    DataredError
        If there is no position, or the check fails.
    """
    people = [observers] if isinstance(observers, str) else list(observers or ())
    require(
        {
            "station": (station, "the observatory code of the Minor Planet Center, such as J95"),
            "observers": (" ".join(people), "the name of the observer, such as J. Smith"),
            "design": (design, "the kind of telescope, such as Reflector"),
            "aperture": (aperture, "the diameter of the telescope in metres"),
            "detector": (detector, f"the kind of detector, one of {', '.join(MODES)}"),
            "catalogue": (catalogue, f"what gave the positions: {', '.join(ADES_CATALOGUES)}"),
        }
    )
    if not re.fullmatch(r"[A-Za-z0-9]{3,4}", station):
        raise ConfigError(f"station {station!r} is no observatory code: 3 or 4 letters or digits")
    unreadable = [n for n in people if not (_NAME.fullmatch(n) and n.isprintable())]
    if unreadable:
        raise ConfigError(f"observer {unreadable[0]!r}: write initials and surname, as J. Smith")
    if not design.isprintable():
        raise ConfigError(f"design {design!r} must be one line of text")
    if not (0.02 <= aperture <= 40):
        raise ConfigError(f"an aperture of {aperture:g} m is not possible; give it in metres")
    check_vocabulary(detector, name="detector", words=MODES, **_WORDS)
    check_vocabulary(catalogue, name="catalogue", words=ADES_CATALOGUES, **_WORDS)
    rows = plain_table(detections)
    if "used" in rows.colnames:
        rows = rows[np.asarray(rows["used"], bool)]
    if not len(rows):
        raise DataredError("there is no position of a moving source to export")
    if not all(np.isfinite(rows[name]).all() for name in _MEASURED):
        raise DataredError(f"a position or its time is not finite: {', '.join(_MEASURED)}")
    fields = [*_FIELDS]
    if "mag" in rows.colnames:
        band = check_vocabulary(_SURE.get(band, band), name="band", words=ADES_BANDS, **_WORDS)
        fields += ["mag", "rmsMag", "band"]
        if not all(n in rows.colnames and np.isfinite(rows[n]).all() for n in ("mag", "mag_err")):
            raise DataredError("a magnitude is missing, or its error (mag_err): all need both")
    lines = [
        "# version=2022", "# observatory", f"! mpcCode {station}",
        "# submitter", f"! name {people[0]}",
        "# observers", *(f"! name {name}" for name in people),
        "# measurers", *(f"! name {name}" for name in people),
        "# telescope", f"! design {design}", f"! aperture {aperture:g}", f"! detector {detector}",
        "|".join(fields),
    ]  # fmt: skip
    for number in np.unique(rows["id"]):
        found = rows[np.asarray(rows["id"]) == number]
        if len(found) < 3:
            raise DataredError(f"source {number} has {len(found)} positions; a motion needs three")
        found.sort("jd_utc_mid")
        motion = fit_motion(found["jd_utc_mid"], found["ra"], found["dec"])
        times = Time(np.asarray(found["jd_utc_mid"], float), format="jd", scale="utc", precision=2)
        for row, stamp in zip(found, times.isot, strict=True):
            values = {
                "ra": f"{round(row['ra'], 6) % 360:.6f}", "dec": f"{row['dec']:.6f}",
                "trkSub": f"DR{int(number):05d}", "mode": detector, "stn": station,
                "obsTime": f"{stamp}Z",
                "rmsRA": f"{max(motion['rms_ra'], 1e-3):.3f}",
                "rmsDec": f"{max(motion['rms_dec'], 1e-3):.3f}", "astCat": catalogue, "band": band,
            }  # fmt: skip
            if "mag" in fields:
                values |= {"mag": f"{row['mag']:.2f}", "rmsMag": f"{max(row['mag_err'], 1e-3):.3f}"}
            lines.append("|".join(values[name] for name in fields))
    with checked_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        check_ades(temporary, movers=movers, epochs=epochs)
    return Path(path)


def fit_motion(jd, ra, dec):
    """Fit a straight line of constant rate to positions, in the plane that touches the sky.

    It is done here once more, without the search for moving sources, so that it can check it.

    Parameters
    ----------
    jd : array_like of float, shape (n,)
        Julian dates.
    ra, dec : array_like of float, shape (n,)
        Degrees.

    Returns
    -------
    dict
        ``n``, ``rate`` and ``rate_err`` (arcsec/min), ``position_angle`` (deg, from north over
        east), ``rms_ra`` (of RA cos Dec) and ``rms_dec`` (arcsec); errors and rms are NaN for less
        than 3 positions.
    """
    jd, ra, dec = (np.asarray(values, float) for values in (jd, ra, dec))
    minutes = (jd - jd.mean()) * 1440
    away = (ra - ra[0] + 180) % 360 - 180
    middle = np.radians(np.mean(dec))
    east = 3600 * away * np.cos(middle)
    spread = float(np.sum(minutes**2))
    if len(jd) < 2 or spread == 0:
        raise DataredError("a motion needs positions at two times")
    slopes, rms = [], []
    for values in (east, 3600 * (dec - dec[0])):
        slope = float(np.sum(minutes * (values - values.mean())) / spread)
        left = values - values.mean() - slope * minutes
        rms.append(math.sqrt(np.sum(left**2) / (len(jd) - 2)) if len(jd) > 2 else math.nan)
        slopes.append(slope)
    rate = math.hypot(*slopes)
    # Errors of both axes along the way.
    along = math.hypot(*(slope * one for slope, one in zip(slopes, rms, strict=True)))
    return {
        "n": len(jd),
        "rate": rate,
        "rate_err": along / rate / math.sqrt(spread) if rate > 0 else math.nan,
        "position_angle": math.degrees(math.atan2(slopes[0], slopes[1])) % 360,
        "rms_ra": rms[0],
        "rms_dec": rms[1],
    }


def read_ades(path):
    """Read positions from an ADES PSV file with one header.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    astropy.table.Table
        The fields of the file, with numbers where they are numbers, and ``jd_utc_mid`` (JD, UTC)
        from ``obsTime``. ``meta`` has for each part of the header a dictionary of lists.

    Raises
    ------
    ConfigError
        If it is no such file; the line is told.
    """
    meta, part, names, rows = {}, None, None, []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.startswith("#"):
            part, _, value = line[1:].strip().partition("=")
            meta[part] = value if value else {}
        elif line.startswith("!"):
            key, _, value = line[1:].strip().partition(" ")
            if not isinstance(meta.get(part), dict):
                raise ConfigError(f"{path}, line {number}: {line!r} belongs to no part")
            meta[part].setdefault(key, []).append(value.strip())
        elif names is None:
            names = [word.strip() for word in line.split("|")]
        elif line.strip():
            words = [word.strip() for word in line.split("|")]
            if len(words) != len(names):
                raise ConfigError(f"{path}, line {number}: {len(words)} of {len(names)} fields")
            rows.append(words)
    if "version" not in meta or not rows:
        raise ConfigError(f"{path} is no ADES file: no '# version=' or no position")
    lacking = [name for name in ("obsTime", "ra", "dec", "stn") if name not in names]
    if lacking:
        raise ConfigError(f"{path}: the fields {', '.join(lacking)} are missing")
    table = Table(rows=rows, names=names, meta=meta)
    try:
        for name in set(_NUMBERS) & set(names):
            table[name] = [float(word) if word else math.nan for word in table[name]]
        stamps = [str(word).removesuffix("Z") for word in table["obsTime"]]
        table["jd_utc_mid"] = Time(stamps, format="isot", scale="utc").jd
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return table


def check_ades(path, *, movers=None, epochs=None):
    """Read an ADES PSV file and check what it says.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    movers : astropy.table.Table, optional
        ``id``, ``rate`` and ``rate_err`` (arcsec/min): what a line through the positions of the
        file must give back, within a thousandth and three errors.
    epochs : astropy.table.Table, optional
        ``jd_utc_mid`` of all frames: each ``obsTime`` must be one of them.

    Returns
    -------
    astropy.table.Table
        For each source ``trkSub`` and what `fit_motion` finds.

    Raises
    ------
    DataredError
        If the header is not complete, a value is not possible, a time is not the middle of an
        exposure, or a rate is another one.
    """
    table = read_ades(path)
    for part, keys in _NEEDED.items():
        for key in keys:
            said = table.meta.get(part)
            if not (isinstance(said, dict) and any(said.get(key, ()))):
                raise DataredError(f"{path}: the header has no {part} {key}")
    lacking = [name for name in _FIELDS if name not in table.colnames]
    if lacking:
        raise DataredError(f"{path}: the fields {', '.join(lacking)} are missing")
    if set(table["stn"]) != set(table.meta["observatory"]["mpcCode"]):
        raise DataredError(f"{path}: the station of a line is not that of the header")
    for name, pattern in (
        ("trkSub", r"[A-Za-z0-9_]{1,8}"),
        ("obsTime", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
        ("mode", "|".join(MODES)),
        ("astCat", "|".join(ADES_CATALOGUES)),
    ):
        wrong = [word for word in table[name] if not re.fullmatch(pattern, word)]
        if wrong:
            raise DataredError(f"{path}: {name} {wrong[0]!r} is not of the format")
    ra, dec = np.asarray(table["ra"]), np.asarray(table["dec"])
    if not (np.all((ra >= 0) & (ra < 360)) and np.all(np.abs(dec) <= 90)):
        raise DataredError(f"{path}: a position is not on the sky")
    for name in ("rmsRA", "rmsDec", "rmsMag"):
        if name in table.colnames and not np.all(np.asarray(table[name]) > 0):
            raise DataredError(f"{path}: {name} must be a positive number")
    if "mag" in table.colnames and not np.isfinite(table["mag"]).all():
        raise DataredError(f"{path}: a magnitude is missing")
    if epochs is not None:
        known = np.asarray(epochs["jd_utc_mid"], float)
        gap = np.abs(np.asarray(table["jd_utc_mid"])[:, None] - known).min(axis=1)
        away = float(gap.max()) * SECONDS_PER_DAY
        if not away <= TIME_LIMIT:
            raise DataredError(f"{path}: an obsTime is {away:.2f} s from the middle of an exposure")
    found = []
    for name in dict.fromkeys(table["trkSub"]):
        rows = table[table["trkSub"] == name]
        found.append({"trkSub": name} | fit_motion(rows["jd_utc_mid"], rows["ra"], rows["dec"]))
    found = Table(rows=found)
    if movers is not None:
        rates = {f"DR{int(row['id']):05d}": (row["rate"], row["rate_err"]) for row in movers}
        for row in found:
            rate, error = rates.get(row["trkSub"], (math.nan, 0.0))
            if not abs(row["rate"] - rate) <= 1e-3 * abs(rate) + 3 * error:
                raise DataredError(
                    f"{path}: {row['trkSub']} moves {row['rate']:.4f} arcsec/min, not {rate:.4f}"
                )
    return found
