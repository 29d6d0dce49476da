"""Results for others: light curves and moving sources in the formats of archives and projects.

The formats have rooms of their own (`datared.aavsofile`, `datared.exoclockfile`,
`datared.adesfile`); here are plain tables, and the export of a night.
"""

import re
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from .aavsofile import check_aavso, read_aavso, write_aavso
from .adesfile import check_ades, read_ades, write_ades
from .errors import ConfigError, DataredError
from .exoclockfile import check_exoclock, read_exoclock, write_exoclock
from .exportchecks import check_times, checked_path, flag_words, plain_table, safe_name
from .settings import parse_position

__all__ = [
    "FORMATS",
    "check_aavso",
    "check_ades",
    "check_exoclock",
    "check_table",
    "export_night",
    "read_aavso",
    "read_ades",
    "read_exoclock",
    "read_table",
    "write_aavso",
    "write_ades",
    "write_exoclock",
    "write_table",
]

#: Formats and the endings of their files.
FORMATS = {"aavso": ".txt", "exoclock": ".txt", "ades": ".psv", "csv": ".csv", "ecsv": ".ecsv"}

#: Options of each format, see `export_night`.
_OPTIONS = {
    "aavso": ("observer", "star", "filter", "magnitude", "comparison"),
    "exoclock": ("star", "filter"), "csv": (), "ecsv": (),
    "ades": ("observer", "filter", "station", "design", "aperture", "detector", "catalogue"),
}  # fmt: skip

#: Columns of a plain table: name, column of the light curve, unit.
_COLUMNS = (
    ("bjd_tdb", "bjd_tdb_mid", "d"), ("jd_utc", "jd_utc_mid", "d"),
    ("mag", "delta_mag", "mag"), ("mag_err", "delta_mag_err", "mag"),
    ("flux", "flux", ""), ("flux_err", "flux_err", ""), ("airmass", "airmass", ""),
    ("exptime", "exptime", "s"), ("filter", "filter", None), ("flags", "flags", None),
)  # fmt: skip


def write_table(curve, path, *, position=None, location=None):
    """Write a light curve as a plain table: CSV, or ECSV with units.

    Every epoch is there, also what is flagged. The table is checked before it gets its name.

    Parameters
    ----------
    curve : astropy.table.Table
        From `datared.lightcurve.differential_light_curve`.
    path : str or pathlib.Path
        The file; it ends in ``.csv`` or ``.ecsv``.
    position : astropy.coordinates.SkyCoord, optional
        The star, for the check.
    location : astropy.coordinates.EarthLocation, optional
        The observatory, for the check.

    Returns
    -------
    pathlib.Path
        The file. Its columns are ``bjd_tdb``, ``jd_utc`` (middle of the exposure), ``mag`` (target
        minus comparison stars), ``mag_err``, ``flux`` (relative), ``flux_err``, ``airmass``,
        ``exptime`` (s), ``filter``, ``flags`` and ``flag_names``. What is not known is empty in
        CSV, and NaN in ECSV.

    Raises
    ------
    ConfigError
        If the ending is another one.
    DataredError
        If the check fails.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".ecsv"):
        raise ConfigError(f"{path}: a plain table ends in .csv or .ecsv")
    table, rows = Table(), plain_table(curve)
    for name, column, unit in _COLUMNS:
        table[name] = rows[column]
        if unit:
            table[name].unit = unit
    table["flag_names"] = [flag_words(flags) for flags in table["flags"]]
    table.sort("jd_utc")
    table.meta = {"filter": curve.meta.get("filter", ""), "comparison": "target minus ensemble"}
    with checked_path(path) as temporary:
        if path.suffix == ".ecsv":
            table.write(temporary, format="ascii.ecsv")
        else:
            for name in table.colnames:
                if table[name].dtype.kind == "f":
                    table[name] = np.ma.masked_invalid(table[name])
            table.write(temporary, format="ascii.csv")
        check_table(temporary, position=position, location=location)
    return path


def read_table(path):
    """Read a light curve from a plain table.

    Parameters
    ----------
    path : str or pathlib.Path
        File from `write_table`.

    Returns
    -------
    astropy.table.Table
        The columns of `write_table`; NaN where a number is not known.

    Raises
    ------
    ConfigError
        If it cannot be read or a column is missing.
    """
    table = _read(Path(path))
    wanted = {name: unit for name, _, unit in _COLUMNS} | {"flag_names": None}
    lacking = [name for name in wanted if name not in table.colnames]
    if lacking:
        raise ConfigError(f"{path}: the columns {', '.join(lacking)} are missing")
    for name, unit in wanted.items():
        values = np.ma.asarray(table[name])
        try:
            if unit is not None:
                values = values.astype(float).filled(np.nan)
            elif name == "flags":
                values = values.astype(int).filled(0)
            else:  # A column of empty cells, or a filter 1, is read as numbers.
                values = values.astype(str).filled("")
        except ValueError as error:
            raise ConfigError(f"{path}: {name} has what is no number: {error}") from error
        table.replace_column(name, values)
        table[name].unit = unit or None
    return table


def _read(path):
    """Table of a CSV or ECSV file."""
    if path.suffix not in (".csv", ".ecsv"):
        raise ConfigError(f"{path}: a plain table ends in .csv or .ecsv")
    try:
        return Table.read(path, format=f"ascii.{path.suffix[1:]}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def check_table(path, *, position=None, location=None):
    """Read a plain table of a light curve and check what it says.

    Parameters
    ----------
    path : str or pathlib.Path
        File from `write_table`.
    position : astropy.coordinates.SkyCoord, optional
        The star.
    location : astropy.coordinates.EarthLocation, optional
        The observatory.

    Returns
    -------
    dict
        ``rows``, and from `datared.exportchecks.check_times` ``airmass`` and ``bjd_tdb``.

    Raises
    ------
    DataredError
        If times or airmasses are not possible, or magnitude and flux are not the same.
    """
    table = read_table(path)
    with np.errstate(invalid="ignore", divide="ignore"):
        away = np.abs(table["mag"] + 2.5 * np.log10(np.where(table["flux"] > 0, table["flux"], 1)))
    away = away[np.isfinite(away) & (table["flux"] > 0)]
    if len(away) and not np.max(away) < 1e-6:
        raise DataredError(f"{path}: magnitude and flux differ by {np.max(away):.2g} mag")
    timed = table[np.isfinite(table["jd_utc"])]
    found = check_times(
        timed["jd_utc"], position=position, location=location, airmasses=timed["airmass"],
        bjd=timed["bjd_tdb"],
    )  # fmt: skip
    return {"rows": len(table)} | found


def export_night(
    night,
    *,
    format,
    path=None,
    observer="",
    star=None,
    filter=None,
    magnitude=None,
    comparison=None,
    station="",
    design="",
    aperture=None,
    detector="",
    catalogue="",
):
    """Export the light curve or the moving sources of a night.

    Parameters
    ----------
    night : Night
        A night with a light curve, or for ``ades`` with the stage ``variables``.
    format : str
        ``aavso`` (AAVSO Extended File Format), ``exoclock``, ``ades`` (Minor Planet Center),
        ``csv`` or ``ecsv``.
    path : str or pathlib.Path, optional
        The file; by default ``work/export/<name of the night>_<format>`` with its ending.
    observer : str
        For ``aavso`` the observer code, for ``ades`` names as ``J. Smith, A. Jones``.
    star : str, optional
        For ``aavso`` the star, for ``exoclock`` the planet; the night's target by default (its
        object where the target is a position; without the letter of a planet for a star).
    filter : str, optional
        Name of the filter in the format; the night's where it means one of them for sure.
    magnitude, comparison
        As in `datared.aavsofile.write_aavso`.
    station, design, detector, catalogue : str
        As in `datared.adesfile.write_ades`.
    aperture : float, optional
        As there; ``camera.diameter`` of the night by default.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    ConfigError
        If the format is not known, or what it needs is missing.
    DataredError
        If the night has no such result, or a check fails.
    """
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is not one of {', '.join(FORMATS)}")
    given = {
        "observer": observer, "star": star, "filter": filter, "magnitude": magnitude,
        "comparison": comparison, "station": station, "design": design, "aperture": aperture,
        "detector": detector, "catalogue": catalogue,
    }  # fmt: skip
    unused = [name for name, value in given.items() if value not in (None, "")]
    unused = [name for name in unused if name not in _OPTIONS[format]]
    if unused:
        raise ConfigError(f"the format {format} has no use for {', '.join(unused)}: leave that out")
    if path is None:
        name = f"{safe_name(night.name)}_{format}"
        path = night.work / "export" / f"{name}{FORMATS[format]}"
    if format == "ades":
        if aperture is None and night.camera.diameter is not None:
            aperture = night.camera.diameter / 100
        people = [name.strip() for name in observer.split(",") if name.strip()]
        return [
            write_ades(
                _result(night, "mover_detections.ecsv", "variables"), path, station=station,
                observers=people, design=design, aperture=aperture, detector=detector,
                catalogue=catalogue, band=filter, movers=_result(night, "movers.ecsv", "variables"),
                epochs=_result(night, "epochs.ecsv", "photometry"),
            )
        ]  # fmt: skip
    curve = _result(night, "lightcurve.ecsv", "lightcurve")
    stars = _result(night, "comparisons.ecsv", "lightcurve")
    rows = stars[np.asarray(stars["star"]) == curve.meta.get("star")]
    if not len(rows):
        raise DataredError(f"lightcurve.ecsv and comparisons.ecsv in {night.work} do not fit: "
                           "run the stage lightcurve again")  # fmt: skip
    place = {
        "position": SkyCoord(rows["ra"][0], rows["dec"][0], unit="deg"),
        "location": night.site.location if night.site else None,
    }
    if not star:
        named = night.target and parse_position(night.target) is None
        star = (night.target if named else night.object) or ""
        star = re.sub(r"(\s+|(?<=\d))[b-i]$", "", star) if format == "aavso" else star
    if format == "aavso":
        return [
            write_aavso(
                curve, path, observer=observer, star=star, filter=filter, magnitude=magnitude,
                comparison=comparison, **place,
            )
        ]  # fmt: skip
    if format == "exoclock":
        return list(write_exoclock(curve, path, planet=star, filter=filter, **place))
    return [write_table(curve, path, **place)]


def _result(night, name, stage):
    """Table of a night's work folder."""
    path = night.work / name
    if not path.is_file():
        raise DataredError(f"{path} is not there: run the night up to {stage} first")
    return _read(path)
