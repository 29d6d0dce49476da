"""The photometry of a night as one table: put together from its frames, and read.

Axis 0 is the star, axis 1 the epoch in the order of time, axis 2 the radius.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from .apertures import BAD_PIXEL, EDGE, OUTSIDE, SATURATED
from .catalogs import positions
from .errors import DataredError
from .growth import best_radius, growth_curve
from .products import atomic_path
from .times import airmass, altitude, bjd_tdb

__all__ = [
    "FRAME_CARDS",
    "Photometry",
    "assemble",
    "middle_position",
    "photometry_files",
    "read_photometry",
    "require_photometry",
    "setup_cards",
]

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

#: Stars of at least this signal-to-noise tell how much light each radius lets through.
BRIGHT = 30.0

#: With a larger share of the measurements lost to bad pixels a night is worth a warning.
MANY_LOST = 0.2


@dataclass(frozen=True)
class Photometry:
    """Measurements of a night, from `read_photometry`.

    Parameters
    ----------
    stars : astropy.table.Table
        One row for each star, see `photometry_night`.
    epochs : astropy.table.Table
        One row for each frame, in the order of time. ``radii`` (px) and ``growth`` (share of the
        light of the largest radius, from bright stars without flags) have a value for each radius.
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
        ``px``, ``arcsec``, ``fwhm`` or ``night-fwhm``.
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
    """Refuse a night without photometry, with what to do.

    Parameters
    ----------
    night : Night or pathlib.Path
        The night, or its work folder.

    Raises
    ------
    DataredError
        If one of the files of `photometry_files` is missing.
    """
    for path in photometry_files(getattr(night, "work", night)):
        if not path.is_file():
            raise DataredError(f"{path} is missing: run the night up to the stage photometry first")


def assemble(measured, stars_path, setup, site, photometry, epochs_path):
    """Write the tables of all frames as one, in the order of time (a task).

    Parameters
    ----------
    measured : sequence of tuple of pathlib.Path, str and str
        For each frame its table, the name of its file and its filter; in any order.
    stars_path : pathlib.Path
        The star list.
    setup : dict
        ``radii``, ``unit``, ``annulus``, ``background``, ``bad_pixels``, ``recentre`` and
        ``default_radius``.
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
    names = ["flux", "flux_err", "flags", "sky", "sky_std", "x", "y"]
    names += ["shift"] if setup["recentre"] is not None else []
    frames = [(*_read_frame(path, names), file, filter) for path, file, filter in measured]
    frames.sort(key=lambda frame: (frame[0].get("JD_UTC_M", np.inf), frame[2]))
    headers = [header for header, *_ in frames]
    table = Table({"star": np.asarray(stars["star"])})
    for name in names:
        table[name] = np.stack([columns.pop(name) for _, columns, *_ in frames], axis=1)
    default = setup["default_radius"]
    if default is not None and default >= len(setup["radii"]):
        log.warning(
            "photometry.default_radius = %d is left out: there are %d radii, counted from 0",
            default, len(setup["radii"]),
        )  # fmt: skip
        default = None
    if default is None:
        default = best_radius(table["flux"], table["flux_err"], flags=table["flags"])
    gains = [header.get("GAIN_E") for header in headers]
    table.meta = setup_cards(setup)
    # One frame without a gain makes errors of the night lower limits.
    errors = [header["ERRORS"] for header in headers if header["ERRORS"] != "complete"]
    table.meta |= {"DEFRAD": int(default), "ERRORS": errors[0] if errors else "complete"}
    if None not in gains and len(set(gains)) == 1:
        table.meta["GAIN_E"] = gains[0]
    _warn(table, stars, int(default), setup["bad_pixels"])
    epochs = _epochs(headers, stars, setup, site)
    for place, column in ((1, "file"), (2, "filter")):
        epochs.add_column([frame[place + 1] for frame in frames], name=column, index=place)
    epochs["growth"] = _growth(table)
    # All files of a night's photometry are there only where they belong together.
    photometry.unlink(missing_ok=True)
    with atomic_path(epochs_path) as temporary:
        epochs.write(temporary, format="ascii.ecsv")
    with atomic_path(photometry) as temporary:
        table.write(temporary, format="fits")
    return {"stars": len(table), "epochs": len(epochs)}


def setup_cards(setup):
    """Cards that say how a table was measured.

    Parameters
    ----------
    setup : dict
        As in `assemble`.

    Returns
    -------
    dict
        ``NRADII``, ``RADIUS0`` ..., ``RADUNIT``, ``ANNULUS0``, ``ANNULUS1``, ``BACKGR``, ``BADPIX``
        and, where apertures follow the stars, ``RECENTRE``.
    """
    cards = {
        "NRADII": len(setup["radii"]),
        **{f"RADIUS{k}": radius for k, radius in enumerate(setup["radii"])},
        "RADUNIT": setup["unit"],
        "ANNULUS0": setup["annulus"][0],
        "ANNULUS1": setup["annulus"][1],
        "BACKGR": setup["background"],
        "BADPIX": setup["bad_pixels"],
        "RECENTRE": setup["recentre"],
    }
    return {card: value for card, value in cards.items() if value is not None}


def middle_position(stars):
    """Give the position whose light the times and the airmass of a night are for.

    Parameters
    ----------
    stars : astropy.table.Table
        Star list of a night.

    Returns
    -------
    astropy.coordinates.SkyCoord
        The target, or the middle of all stars where there is none.
    """
    target = np.flatnonzero(stars["target"])
    place = positions(stars[target[:1]] if len(target) else stars)
    middle = SkyCoord(place.cartesian.mean(), frame="icrs")
    return SkyCoord(middle.spherical.lon, middle.spherical.lat)


def _growth(table):
    """Curve of growth of each epoch from its bright stars; NaN where it has none."""
    flux, error = (np.asarray(table[name], float) for name in ("flux", "flux_err"))
    with np.errstate(invalid="ignore", divide="ignore"):
        bright = flux[:, :, -1] >= BRIGHT * error[:, :, -1]
    flags = np.asarray(table["flags"])
    epochs = range(flux.shape[1])
    return np.array(
        [growth_curve(flux[bright[:, k], k], flags=flags[bright[:, k], k]) for k in epochs]
    )


def _warn(table, stars, default, bad_pixels):
    """Tell what is wrong with the target, and what many measurements were lost to."""
    flux, flags = (np.asarray(table[name])[:, :, default] for name in ("flux", "flags"))
    lost = np.isnan(flux) & ((flags & (BAD_PIXEL | EDGE | OUTSIDE)) == BAD_PIXEL)
    advice = {
        "nan": 'set photometry.bad_pixels = "fill" to measure them',
        "fill": 'so are the pixels opposite to them; reduction.repair = "gaussian" may help',
    }[bad_pixels]
    for star in stars[np.asarray(stars["target"], bool)]:
        row, place = int(star["star"]), f"{star['ra']:.5f} {star['dec']:+.5f} deg"
        saturated = np.count_nonzero(flags[row] & SATURATED)
        if saturated:
            log.warning(
                "the target at %s is saturated on %d of %d frames: its flux there is a lower "
                "limit; expose for less time, or put it out of focus",
                place, saturated, flux.shape[1],
            )  # fmt: skip
        if lost[row].any():
            log.warning(
                "the target at %s has bad pixels in its aperture and no flux on %d of %d frames: "
                "%s", place, np.count_nonzero(lost[row]), flux.shape[1], advice,
            )  # fmt: skip
        elif not np.isfinite(np.asarray(table["flux"])[row]).any():
            log.warning(
                "the target at %s is on no frame, or was measured on none: check target or "
                "target_coord in the night file", place,
            )  # fmt: skip
    share = np.count_nonzero(lost) / max(lost.size, 1)
    if share > MANY_LOST:
        log.warning("%.0f %% of all fluxes are lost to bad pixels: %s", 100 * share, advice)


def _read_frame(path, names):
    """Header and some columns of the table of a frame."""
    # Twice as fast as Table.read, which looks for units and masks that are not there.
    with fits.open(path, memmap=False) as hdus:
        data = hdus[1].data
        return hdus[1].header.copy(), {name: np.asarray(data[name]) for name in names}


def _epochs(headers, stars, setup, site):
    """Table of epochs: times, airmass and what each frame was like."""
    epochs = Table({"epoch": np.arange(len(headers))})
    for name, card in FRAME_CARDS.items():
        epochs[name] = [float(header.get(card, np.nan)) for header in headers]
    middle = middle_position(stars)
    jd = np.asarray(epochs["jd_utc_mid"])
    times = np.full(len(jd), np.nan)
    if site is not None:
        times = bjd_tdb(jd, middle, location=site.location)
        computed = airmass(altitude(jd, middle, location=site.location))
        epochs["airmass"] = np.where(np.isfinite(computed), computed, epochs["airmass"])
    epochs.add_column(times, name="bjd_tdb_mid", index=epochs.colnames.index("airmass"))
    angle = np.radians([header["ANGLE"] for header in headers])
    # Against the first frame: a German mount turns by 180 degrees, tracking by much less.
    epochs["flipped"] = np.cos(angle - angle[0]) < 0
    epochs["scale"] = [header["SCALE"] for header in headers]
    factor = np.array([header["FACTOR"] for header in headers])
    epochs["radii"] = factor[:, None] * np.array(setup["radii"])
    epochs.meta = {
        "position": [round(float(middle.ra.deg), 6), round(float(middle.dec.deg), 6)],
        "radii": "px",
    }
    return epochs
