"""The catalogue that the frames of a night are compared with."""

import functools
import logging
from pathlib import Path

import numpy as np

from .capsules import fetch_catalogue, night_field
from .catalogs import at_epoch, read_catalogue
from .errors import DataredError
from .solvefield import PROGRAM

__all__ = ["night_catalogue", "read_stars", "reference_stars"]

log = logging.getLogger("datared.nightcatalogue")


def night_catalogue(night, lights):
    """Find the file with the reference stars of a night.

    Parameters
    ----------
    night : Night
        Its ``astrometry.catalogue``; where none is named, ``astrometry.source`` is asked for in the
        network, around the target or the pointing of the first frame, and kept in
        ``work/catalogues``.
    lights : astropy.table.Table
        The light frames: ``ra``, ``dec`` (deg), ``scale`` (arcsec), ``nx``, ``ny``.

    Returns
    -------
    pathlib.Path or None
        None where there is none and the solver of the night can do without.

    Raises
    ------
    ConfigError
        If there is neither a catalogue nor a position to ask for one.
    """
    if night.astrometry.catalogue is not None:
        return Path(night.astrometry.catalogue)
    try:
        center, radius = night_field(night, lights)
        options = {"limit_mag": night.astrometry.limit_mag, "cache": night.work / "catalogues"}
        return fetch_catalogue(night.astrometry.source, center, radius=radius, **options)
    except DataredError as error:
        if night.astrometry.solver != PROGRAM:
            raise
        log.warning("%s; going on with the stars of the index files of %s", error, PROGRAM)
        return None


def reference_stars(catalogue, ccd):
    """Give the reference stars at the epoch of a frame.

    Parameters
    ----------
    catalogue : pathlib.Path or None
        File with the catalogue; it is read once per process.
    ccd : astropy.nddata.CCDData
        The frame; its card JD_UTC_M is the date.

    Returns
    -------
    astropy.table.Table or None
        The stars; None where there is no catalogue.
    """
    if catalogue is None:
        return None
    jd = float(ccd.meta.get("JD_UTC_M") or np.nan)
    return at_epoch(read_stars(catalogue), jd)


def read_stars(catalogue):
    """Read the stars of a file, once per process and state of the file.

    Parameters
    ----------
    catalogue : pathlib.Path
        File with the catalogue.

    Returns
    -------
    astropy.table.Table
        As `datared.starlists.read_catalogue` gives them. All callers share it: it is not to be
        changed.

    Raises
    ------
    DataredError
        If the file cannot be read.
    """
    changed = catalogue.stat().st_mtime_ns if catalogue.is_file() else 0
    return _stars(catalogue, changed)


@functools.lru_cache(maxsize=4)
def _stars(path, _changed):
    """Catalogue of a file in one state."""
    return read_catalogue(path)
