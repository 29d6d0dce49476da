"""The photometry of a night as one table: put together from its frames, and read.

Axis 0 is the star, axis 1 the epoch in the order of time, axis 2 the radius.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from .catalogs import positions
from .errors import DataredError
from .photometry import best_radius
from .products import atomic_path
from .times import airmass, altitude, bjd_tdb

__all__ = ["FRAME_CARDS", "Photometry", "assemble", "photometry_files", "read_photometry"]

log = logging.getLogger("datared.assembly")

#: Numbers of a frame that are carried into the table of epochs: column, card of the frame.
FRAME_CARDS = {
    "exptime": "EXPTIME",
    "jd_utc_mid": "JD_UTC_M",
    "airmass": "AIRMASS",
    "fwhm": "FWHM",
    "sky": "SKY",
    "sky_noise": "SKYNOISE",
    "rms": "ASTRRMS",
}


@dataclass(frozen=True)
class Photometry:
    """Measurements of a night, from `read_photometry`.

    Parameters
    ----------
    stars : astropy.table.Table
        One row for each star, see `photometry_night`.
    epochs : astropy.table.Table
        One row for each frame, in the order of time.
    flux, flux_err : numpy.ndarray of float, shape (n_star, n_epoch, n_radius)
        Flux and its error in counts; NaN where there is none.
    flags : numpy.ndarray of int, shape (n_star, n_epoch, n_radius)
        Bits of `datared.photometry.FLAG_NAMES`.
    sky : numpy.ndarray of float, shape (n_star, n_epoch)
        Sky level for one pixel.
    x, y : numpy.ndarray of float, shape (n_star, n_epoch)
        Positions in pixels.
    radii : tuple of float
        Radii in ``radius_unit``; those in pixels are in ``epochs["radii"]``.
    radius_unit : str
        ``px``, ``arcsec`` or ``fwhm``.
    default_radius : int
        Index of the radius for results.
    gain : float or None
        Electrons per count that the errors were computed with.
    """

    stars: Table
    epochs: Table
    flux: np.ndarray
    flux_err: np.ndarray
    flags: np.ndarray
    sky: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radii: tuple
    radius_unit: str
    default_radius: int
    gain: float | None


def photometry_files(work):
    """Name the files of a night's photometry.

    Parameters
    ----------
    work : str or pathlib.Path
        The night's work folder.

    Returns
    -------
    tuple of pathlib.Path
        ``photometry.fits``, ``stars.ecsv`` and ``epochs.ecsv``.
    """
    return tuple(Path(work) / name for name in ("photometry.fits", "stars.ecsv", "epochs.ecsv"))


def read_photometry(night):
    """Read the photometry of a night.

    Parameters
    ----------
    night : Night or pathlib.Path
        The night, or its work folder.

    Returns
    -------
    Photometry
        All measurements.

    Raises
    ------
    DataredError
        If the night has no photometry yet.
    """
    files = photometry_files(getattr(night, "work", night))
    require_photometry(night)
    table = Table.read(files[0], format="fits")
    meta = table.meta
    return Photometry(
        Table.read(files[1], format="ascii.ecsv"),
        Table.read(files[2], format="ascii.ecsv"),
        **{name: np.asarray(table[name]).astype(float) for name in ("flux", "flux_err")},
        flags=np.asarray(table["flags"]).astype(int),
        **{name: np.asarray(table[name]).astype(float) for name in ("sky", "x", "y")},
        radii=tuple(meta[f"RADIUS{k}"] for k in range(meta["NRADII"])),
        radius_unit=meta["RADUNIT"],
        default_radius=meta["DEFRAD"],
        gain=meta.get("GAIN_E"),
    )


def require_photometry(night):
    """Raise `DataredError` if a night (or work folder) has no photometry yet."""
    for path in photometry_files(getattr(night, "work", night)):
        if not path.is_file():
            raise DataredError(f"{path} is missing: run the night up to the stage photometry first")


def assemble(products, stars_path, setup, site, photometry, epochs_path):
    """Write the tables of all frames as one, in the order of time (a task).

    Parameters
    ----------
    products : sequence of pathlib.Path
        Tables of the frames, in any order.
    stars_path : pathlib.Path
        The star list.
    setup : dict
        ``radii``, ``unit``, ``annulus`` and ``default_radius``.
    site : Site or None
        Where the telescope stands; without it there is no BJD.
    photometry, epochs_path : pathlib.Path
        Files to write.

    Returns
    -------
    dict
        Numbers of ``stars`` and ``epochs``.
    """
    stars = Table.read(stars_path, format="ascii.ecsv")
    tables = [Table.read(path, format="fits") for path in products]
    tables.sort(key=lambda table: (table.meta.get("JD_UTC_M", np.inf), table.meta["RAWNAME"]))
    table = Table({"star": np.asarray(stars["star"])})
    for name in ("flux", "flux_err", "flags", "sky", "sky_std", "x", "y"):
        table[name] = np.stack([np.asarray(frame[name]) for frame in tables], axis=1)
    table["flags"] = table["flags"].astype(np.int16)
    default = setup["default_radius"]
    if default is None or not 0 <= default < len(setup["radii"]):
        default = best_radius(table["flux"], table["flux_err"], flags=table["flags"])
    gains = [frame.meta.get("GAIN_E") for frame in tables]
    table.meta = {
        "NRADII": len(setup["radii"]),
        **{f"RADIUS{k}": radius for k, radius in enumerate(setup["radii"])},
        "RADUNIT": setup["unit"],
        "ANNULUS0": setup["annulus"][0],
        "ANNULUS1": setup["annulus"][1],
        "DEFRAD": int(default),
        "BACKGR": "annulus-median",
        "ERRORS": tables[0].meta["ERRORS"],
    }
    if None not in gains and len(set(gains)) == 1:
        table.meta["GAIN_E"] = gains[0]
    for star in stars[np.asarray(stars["target"], bool)]:
        if not np.isfinite(table["flux"][star["star"]]).any():
            log.warning(
                "the target at %.5f %+.5f deg is on no frame, or was measured on none: check "
                "target or target_coord in the night file", star["ra"], star["dec"],
            )  # fmt: skip
    epochs = _epochs(tables, stars, setup, site)
    with atomic_path(epochs_path) as temporary:
        epochs.write(temporary, format="ascii.ecsv")
    with atomic_path(photometry) as temporary:
        table.write(temporary, format="fits")
    return {"stars": len(table), "epochs": len(epochs)}


def _epochs(tables, stars, setup, site):
    """Table of epochs: times, airmass and what each frame was like."""
    epochs = Table({"epoch": np.arange(len(tables))})
    for name, card in (("file", "RAWNAME"), ("filter", "FILTER")):
        epochs[name] = [str(table.meta[card]) for table in tables]
    for name, card in FRAME_CARDS.items():
        epochs[name] = [float(table.meta.get(card, np.nan)) for table in tables]
    # The light of the target; of the field's middle where there is none.
    target = np.flatnonzero(stars["target"])
    place = positions(stars[target[:1]] if len(target) else stars)
    middle = SkyCoord(place.cartesian.mean(), frame="icrs")
    middle = SkyCoord(middle.spherical.lon, middle.spherical.lat)
    jd = np.asarray(epochs["jd_utc_mid"])
    times = np.full(len(jd), np.nan)
    if site is not None:
        times = bjd_tdb(jd, middle, location=site.location)
        computed = airmass(altitude(jd, middle, location=site.location))
        epochs["airmass"] = np.where(np.isfinite(computed), computed, epochs["airmass"])
    epochs.add_column(times, name="bjd_tdb_mid", index=epochs.colnames.index("airmass"))
    angle = np.radians([table.meta["ANGLE"] for table in tables])
    # Against the first frame: a German mount turns by 180 degrees, tracking by much less.
    epochs["flipped"] = np.cos(angle - angle[0]) < 0
    epochs["scale"] = [table.meta["SCALE"] for table in tables]
    factor = np.array([table.meta["FACTOR"] for table in tables])
    epochs["radii"] = factor[:, None] * np.array(setup["radii"])
    epochs.meta = {
        "position": [round(float(middle.ra.deg), 6), round(float(middle.dec.deg), 6)],
        "radii": "px",
    }
    return epochs
