"""Light curves for the ExoClock project: written as its program HOPS writes them, read, checked.

A light curve is uploaded at https://www.exoclock.space as text without a header, with the three
columns time, flux and error; a form asks for what the numbers are. HOPS, the project's own program
(https://github.com/ExoWorldsSpies/hops, ``hops/application_photometry.py``), writes JD (UTC) of the
start of the exposure and the flux over that of the comparison stars, not detrended, and beside it
a text with the answers for the form. This is the same pair of files.
"""

import math
import re
from pathlib import Path

import numpy as np
from astropy.table import Table

from .errors import ConfigError, DataredError
from .exportchecks import (
    TIME_LIMIT,
    check_times,
    check_vocabulary,
    checked_path,
    read_text,
    require,
    rows_to_export,
)
from .times import SECONDS_PER_DAY, mid_exposure

__all__ = ["EXOCLOCK_FILTERS", "check_exoclock", "read_exoclock", "write_exoclock"]

#: Names of filters in HOPS and in the form.
EXOCLOCK_FILTERS = (
    *("Clear", "Luminance", "U", "B", "V", "R", "I", "Gaia G", "Gaia BP", "Gaia RP"),
    *("H", "J", "K", "Astrodon ExoPlanet-BB", "u'", "g'", "r'", "z'", "i'"),
)
_SURE = {"clear": "Clear", "CLEAR": "Clear", "Lum": "Luminance", "Rc": "R", "Ic": "I"}
_SURE |= {name: f"{name}'" for name in "ugriz"} | {f"{name}p": f"{name}'" for name in "ugriz"}

_INFO = """Upload {file} at https://www.exoclock.space

Planet: {planet}
Time format: JD_UTC
Time stamp: Exposure start
Flux format: Flux
Filter: {filter}
Exposure time in seconds: {exposure:g}
"""


def write_exoclock(curve, path, *, planet, filter=None, position=None, location=None):
    """Write a light curve for ExoClock, and what its form asks for.

    Epochs without a flux, and those on which the star is saturated or cut off, are left out. The
    flux is not detrended, as the project wants it. The files are checked before they get their
    names.

    Parameters
    ----------
    curve : astropy.table.Table
        From `datared.lightcurve.differential_light_curve`.
    path : str or pathlib.Path
        The file of numbers. The text is beside it: ``<name>_info.txt``.
    planet : str
        Name of the planet, such as ``HAT-P-32b``.
    filter : str, optional
        Name of `EXOCLOCK_FILTERS`; the curve's own where that means one of them for sure.
    position : astropy.coordinates.SkyCoord, optional
        The star, for the check.
    location : astropy.coordinates.EarthLocation, optional
        The observatory, for the check.

    Returns
    -------
    tuple of pathlib.Path
        The file of numbers and the text.

    Raises
    ------
    ConfigError
        If something is missing, or the exposure time changes: the form takes one.
    DataredError
        If no epoch can be reported, or the check fails.
    """
    path = Path(path)
    require({"planet": (planet, "the name of the planet, as ExoClock has it")})
    if not (planet.isascii() and planet.isprintable()):
        raise ConfigError(f"planet {planet!r} must be plain ASCII")
    rows = rows_to_export(curve)
    band = check_vocabulary(
        filter or str(rows["filter"][0]), name="filter", words=EXOCLOCK_FILTERS,
        translated=_SURE, format="ExoClock",
    )  # fmt: skip
    # A camera may write 59.998 s and 60.002 s: that is the same, to 5 ms of the middle.
    exposures = np.unique(np.round(np.asarray(rows["exptime"], float), 2))
    if len(exposures) != 1 or not exposures[0] > 0:
        raise ConfigError(
            f"the exposure times are {', '.join(f'{value:g}' for value in exposures)} s; ExoClock "
            "takes one for a light curve: export each by itself"
        )
    start = mid_exposure(rows["jd_utc_mid"], -exposures[0])
    numbers = np.column_stack([start, rows["flux"], rows["flux_err"]])
    text = "".join(f"{day:.8f} {flux:.8f} {error:.8f}\n" for day, flux, error in numbers)
    words = {"planet": planet, "filter": band, "exposure": exposures[0], "file": path.name}
    with checked_path(path) as temporary, checked_path(_info_path(path)) as beside:
        temporary.write_text(text, encoding="ascii")
        beside.write_text(_INFO.format(**words), encoding="utf-8")
        check_exoclock(temporary, info=beside, position=position, location=location, curve=rows)
    return path, _info_path(path)


def _info_path(path):
    """Place of the text that belongs to a file of numbers."""
    return Path(path).with_name(f"{Path(path).stem}_info.txt")


def read_exoclock(path, *, info=None):
    """Read a light curve for ExoClock.

    Parameters
    ----------
    path : str or pathlib.Path
        The file of numbers.
    info : str or pathlib.Path, optional
        The text; by default ``<name>_info.txt`` beside it.

    Returns
    -------
    astropy.table.Table
        Columns ``jd_utc_start``, ``jd_utc_mid``, ``flux``, ``flux_err``. ``meta`` has ``planet``,
        ``filter`` and ``exposure`` (s).

    Raises
    ------
    ConfigError
        If a file cannot be read, or the text does not say what the numbers are.
    """
    path = Path(path)
    info = _info_path(path) if info is None else Path(info)
    try:
        said = dict(re.findall(r"^([^:\n]+): *(.*)$", read_text(info), re.MULTILINE))
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        numbers = np.loadtxt(lines, ndmin=2) if lines else np.empty((0, 3))
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    for key, word in (
        ("Time format", "JD_UTC"),
        ("Time stamp", "Exposure start"),
        ("Flux format", "Flux"),
    ):
        if said.get(key) != word:
            raise ConfigError(f"{info}: {key} is {said.get(key)!r}; only {word!r} is read")
    if numbers.shape[1:] != (3,) or not len(numbers):
        raise ConfigError(f"{path} must have three columns: time, flux, error")
    try:
        exposure = float(said.get("Exposure time in seconds", ""))
    except ValueError as error:
        raise ConfigError(f"{info} does not tell the exposure time in seconds") from error
    table = Table(numbers, names=["jd_utc_start", "flux", "flux_err"])
    middle = mid_exposure(table["jd_utc_start"], exposure)
    table.add_column(middle, name="jd_utc_mid", index=1)
    table.meta = {"planet": said.get("Planet", ""), "filter": said.get("Filter", "")}
    table.meta["exposure"] = exposure
    return table


def check_exoclock(path, *, info=None, position=None, location=None, curve=None):
    """Read a light curve for ExoClock and check what it says.

    Parameters
    ----------
    path, info : str or pathlib.Path
        As in `read_exoclock`.
    position : astropy.coordinates.SkyCoord, optional
        The star.
    location : astropy.coordinates.EarthLocation, optional
        The observatory.
    curve : astropy.table.Table, optional
        The rows that were exported: the middles of the exposures must be the same, and BJD_TDB must
        be what comes out for the times of the file.

    Returns
    -------
    dict
        ``rows``, and ``bjd_tdb``: the largest difference in seconds from the curve's (NaN where
        that is not possible).

    Raises
    ------
    DataredError
        If a number is not finite or not positive, or a time is not that of the curve.
    """
    table = read_exoclock(path, info=info)
    if table.meta["filter"] not in EXOCLOCK_FILTERS:
        raise DataredError(f"{path}: filter {table.meta['filter']!r} is no name of ExoClock")
    for name in ("flux", "flux_err"):
        values = np.asarray(table[name])
        if not (np.isfinite(values).all() and np.all(values > 0)):
            raise DataredError(f"{path}: {name} must be finite and positive")
    if not 0.2 < np.median(table["flux"]) < 5:
        raise DataredError(f"{path}: the flux is {np.median(table['flux']):.3g}, not relative")
    check_times(table["jd_utc_mid"])
    found = {"rows": len(table), "bjd_tdb": math.nan}
    if curve is not None:
        if len(curve) != len(table):
            raise DataredError(f"{path} has {len(table)} rows, the light curve {len(curve)}")
        away = np.max(np.abs(table["jd_utc_mid"] - curve["jd_utc_mid"])) * SECONDS_PER_DAY
        if away > TIME_LIMIT:
            raise DataredError(f"{path}: start plus half the exposure is off by {away:.2f} s")
        told = check_times(
            table["jd_utc_mid"], position=position, location=location, bjd=curve["bjd_tdb_mid"]
        )
        found["bjd_tdb"] = told["bjd_tdb"]
    return found
