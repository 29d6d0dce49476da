"""Plates: what the first look at a frame gives, kept in a file until all frames were looked at.

A file has the detected stars, the stars matched with the catalogue, and the first plate solution,
or the reason why there is none.
"""

import json
import warnings
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from .products import atomic_path
from .solver import Solution

__all__ = ["Plate", "read_plate", "write_plate"]

_SCALARS = (
    *("rms_px", "rms_arcsec", "n_matched", "scale", "rotation", "mirrored", "order", "log_odds"),
    *("solver", "tried", "shared"),
)


class Plate(NamedTuple):
    """First look at a frame.

    Attributes
    ----------
    stars : astropy.table.Table
        The detected stars (`datared.sources.detect`); empty where the frame could not be read.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    solution : Solution or None
        The first plate solution.
    reason : str
        Why there is none; empty otherwise.
    """

    stars: Table
    shape: tuple
    solution: Solution | None = None
    reason: str = ""


def write_plate(plate, path):
    """Write a plate as FITS tables; the same plate gives the same bytes.

    Parameters
    ----------
    plate : Plate
        The plate.
    path : str or pathlib.Path
        The file: the primary header has the world coordinates, extension STARS the detected
        stars, MATCHED the matched ones; card INFO the other numbers, as JSON.
    """
    info = {"stars": _plain(plate.stars.meta), "shape": _plain(plate.shape), "reason": plate.reason}
    header = fits.Header()
    tables = [("STARS", plate.stars)]
    if plate.solution is not None:
        info["solution"] = {name: _plain(getattr(plate.solution, name)) for name in _SCALARS}
        header = _wcs_header(plate.solution.wcs)
        tables.append(("MATCHED", plate.solution.matched))
    hdus = [fits.PrimaryHDU(header=header)]
    for name, table in tables:
        bare = Table({key: np.asarray(table[key]) for key in table.colnames})
        hdus.append(fits.BinTableHDU(bare, name=name))
    info = json.dumps(info)
    hdus.append(fits.BinTableHDU(Table({"json": [info]}), name="INFO"))
    with atomic_path(path) as temporary:
        fits.HDUList(hdus).writeto(temporary)


def read_plate(path):
    """Read what `write_plate` wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Plate
        The same plate.
    """
    with fits.open(path, memmap=False) as hdus:
        info = json.loads(str(hdus["INFO"].data["json"][0]))
        stars = _table(hdus["STARS"])
        stars.meta = info["stars"]
        shape, found = tuple(info["shape"]), info.get("solution")
        if found is None:
            return Plate(stars, shape, reason=info["reason"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            wcs = WCS(hdus[0].header)
        matched = _table(hdus["MATCHED"])
    wcs.array_shape = shape
    found["tried"] = tuple(found["tried"])
    return Plate(stars, shape, Solution(wcs=wcs, matched=matched, **found))


def _table(hdu):
    """Table of an extension, with the numbers as this computer stores them."""
    columns = {}
    for name in hdu.columns.names:
        values = np.asarray(hdu.data[name])
        columns[name] = values.astype(values.dtype.newbyteorder("="))
    return Table(columns)


def _wcs_header(wcs):
    """Cards of a WCS with its distortion, and with the CD matrix that the fits work with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        header = wcs.to_header(relax=True)
    for name in ("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CDELT1", "CDELT2"):
        header.remove(name, ignore_missing=True)
    for i, row in enumerate(wcs.pixel_scale_matrix):
        for j, value in enumerate(row):
            header[f"CD{i + 1}_{j + 1}"] = float(value)
    return header


def _plain(value):
    """Value made of JSON's types."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
