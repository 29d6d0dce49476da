"""The detections of a night's frames: the lists that the plate solution left on disk."""

import logging

import numpy as np
from astropy.table import Table

from .errors import DataredError
from .listing import product_name

__all__ = ["chord", "night_detections", "read_detections"]

log = logging.getLogger("datared.detections")

_COLUMNS = ("ra", "dec", "x", "y", "flux", "snr", "flags")


def night_detections(night, *, read=True):
    """Read the detections on all measured frames of a night, with the times of the frames.

    Parameters
    ----------
    night : Night or pathlib.Path
        A night with photometry, or its work folder.
    read : bool
        Read the lists; False gives the table of the frames alone.

    Returns
    -------
    lists : list of astropy.table.Table
        Detections of each frame, see `read_detections`; empty if they are not read.
    frames : astropy.table.Table
        One row for each frame, in the order of time: ``file``, ``filter``, ``jd_utc_mid``, and
        ``path`` of its list.

    Raises
    ------
    DataredError
        If the night has no photometry yet.
    """
    work = getattr(night, "work", night)
    path = work / "epochs.ecsv"
    if not path.is_file():
        raise DataredError(f"{path} is missing: run the night up to the stage photometry first")
    frames = Table.read(path, format="ascii.ecsv")["file", "filter", "jd_utc_mid"]
    names = [f"{product_name(str(file))}.ecsv" for file in frames["file"]]
    frames["path"] = [str(work / "sources" / name) for name in names]
    return [read_detections(path) for path in frames["path"] if read], frames


def read_detections(path):
    """Read the columns that count of a frame's list of detections.

    Parameters
    ----------
    path : str or pathlib.Path
        The list, ``work/sources/<frame>.ecsv``.

    Returns
    -------
    astropy.table.Table
        ``ra``, ``dec`` (deg), ``x``, ``y`` (px), ``flux``, ``snr``, ``flags``, all as floats;
        without the rows in which one of them is missing. An empty table, and a warning in the
        log, where the file is broken.
    """
    try:
        # The plain reader is ten times as fast, and the list has no units to lose.
        options = {"comment": "#", "guess": False, "include_names": _COLUMNS}
        table = Table.read(path, format="ascii.fast_basic", **options)
        columns = {name: np.ma.filled(table[name].astype(float), np.nan) for name in _COLUMNS}
        return Table(columns)[np.isfinite(list(columns.values())).all(axis=0)]
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read, its detections are left out: %s", path, error)
        return Table({name: np.zeros(0) for name in _COLUMNS})


def chord(arcsec):
    """Distance of two unit vectors that are some arcseconds apart.

    Parameters
    ----------
    arcsec : float or array_like
        Separation in arcsec.

    Returns
    -------
    float or numpy.ndarray
        Distance of the ends of the vectors.
    """
    return 2 * np.sin(np.radians(np.asarray(arcsec, float) / 3600) / 2)
