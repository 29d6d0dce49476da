"""Photometry of a night: every star of the reference list on every solved frame.

Apertures sit at fixed positions on the sky; each frame's WCS brings them into pixels. The result is
the same table whatever is seen: axis 0 is the star, axis 1 the epoch, axis 2 the radius.
"""

import functools
import logging
import math

import numpy as np
from astropy.table import Column, Table

from .apertures import NO_WCS
from .assembly import (
    FRAME_CARDS,
    Photometry,
    assemble,
    middle_position,
    photometry_files,
    read_photometry,
    setup_cards,
)
from .audit import audit_night
from .catalogs import positions
from .errors import DataredError, FrameError
from .frames import ascii_text, product_name, read_product
from .names import position_at
from .nightstars import pixel_scale, sky_to_pixel, write_stars
from .photometry import aperture_photometry
from .products import Manifest, Task, atomic_path, run_tasks
from .times import airmass, altitude, scintillation

log = logging.getLogger("datared.forced")

__all__ = [
    "Photometry",
    "forced_photometry",
    "photometry_files",
    "photometry_night",
    "read_photometry",
    "sky_to_pixel",
]


def forced_photometry(
    ccd,
    coords,
    *,
    radii,
    annulus,
    background="annulus-median",
    gain=None,
    read_noise=0.0,
    flat_noise=0.0,
    scintillation=0.0,
    fwhm=None,
    bad_pixels="fill",
    recentre=None,
):
    """Aperture photometry at sky positions, whatever is seen there.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Reduced frame with a WCS.
    coords : astropy.coordinates.SkyCoord, shape (n,)
        Where to measure.
    radii, annulus, background, gain, read_noise, flat_noise, scintillation, fwhm, bad_pixels, \
    recentre
        As in `datared.photometry.aperture_photometry`.

    Returns
    -------
    astropy.table.Table
        As from `datared.photometry.aperture_photometry`. Without a WCS all rows are NaN with the
        flag ``no WCS``.
    """
    x, y = sky_to_pixel(ccd.wcs, coords, shape=ccd.shape)
    table = aperture_photometry(
        ccd, x, y, radii=radii, annulus=annulus, background=background, gain=gain,
        read_noise=read_noise, flat_noise=flat_noise, scintillation=scintillation, fwhm=fwhm,
        bad_pixels=bad_pixels, recentre=recentre,
    )  # fmt: skip
    if ccd.wcs is None:
        table["flags"] |= NO_WCS
    return table


def photometry_night(night, *, executor=None):
    """Measure every star on every solved frame of a night.

    The star list holds every star that is seen on several frames (see
    `datared.nightstars.night_stars`), with positions averaged over them; the night's target joins
    it if it was not detected. Each frame has a table of its own in ``work/photometry``, with the
    rows of the star list; a frame that fails is listed and does not stop the others.

    Parameters
    ----------
    night : Night
        A night with solved frames (``work/astrometry.ecsv``).
    executor : concurrent.futures.Executor, optional
        Where frames are measured side by side; the result is the same.

    Returns
    -------
    astropy.table.Table
        One row for each frame: ``file``, ``filter``, ``status``, ``reason``, ``n_measured``.
        Written are ``work/stars.ecsv`` (``star``, ``ra``, ``dec``, ``x``, ``y`` on the reference
        frame, ``brightness``, ``snr``, ``n_detected``, ``target``, ``cat_*``), ``work/epochs.ecsv``
        and ``work/photometry.fits``, in the order of time whatever the files are called, and the
        audit of their errors (`datared.audit.audit_night`).

    Raises
    ------
    DataredError
        If no frame is solved, no star was detected, or no frame could be measured.
    """
    frames, catalogue = _solved_frames(night)
    manifest = Manifest(night.work)
    stars_path = night.work / "stars.ecsv"
    outcome = run_tasks([_star_task(night, frames, catalogue)], manifest=manifest)[0]
    if outcome.status == "failed":
        raise DataredError(f"there is no star list: {outcome.reason}")
    setup = _setup(night)
    tasks = [_frame_task(setup, frame, stars_path) for frame in frames]
    outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="photometry")
    done = [frame for frame, o in zip(frames, outcomes, strict=True) if o.status != "failed"]
    if not done:
        # The table of an earlier run must not pass for this one's.
        for path in photometry_files(night.work):
            path.unlink(missing_ok=True)
        raise DataredError(f"no frame could be measured; the first: {outcomes[0].reason}")
    final = run_tasks([_final_task(night, setup, done, stars_path)], manifest=manifest)[0]
    if final.status == "failed":
        raise DataredError(f"the photometry could not be put together: {final.reason}")
    try:
        audit_night(night)
    except DataredError as error:  # It judges what is there; the measurements do not need it.
        log.warning("%s", error)
    return Table(
        {
            "file": [frame["file"] for frame in frames],
            "filter": [frame["filter"] for frame in frames],
            "status": [o.status for o in outcomes],
            "reason": [o.reason for o in outcomes],
            "n_measured": [int(o.result.get("n_measured", 0)) for o in outcomes],
        }
    )


def _solved_frames(night):
    """Rows of the solved frames with the paths of their files, and the catalogue they had."""
    path = night.work / "astrometry.ecsv"
    if not path.is_file():
        raise DataredError(f"{path} is missing: run the night up to the stage solved first")
    table = Table.read(path, format="ascii.ecsv")
    n_frames = len(table)
    # Of the network: the catalogue that the frames were solved with was asked for and kept.
    kept = night.work / "catalogues" / (table.meta.get("catalogue") or "none")
    table = table[np.asarray(table["status"]).astype(str) != "failed"]
    if not len(table):
        raise DataredError(f"none of the {n_frames} frames of {path} is solved")
    if "fwhm_arcsec" not in table.colnames:
        raise DataredError(
            f"{path} has no column fwhm_arcsec, an older version wrote it: run the stage solved "
            "again"
        )
    table["fwhm_arcsec"] = np.ma.filled(np.ma.asarray(table["fwhm_arcsec"]).astype(float), np.nan)
    widths = _median_widths(table)
    frames = []
    for row in table:
        name = product_name(str(row["file"]))
        frames.append(
            {
                "file": str(row["file"]),
                "filter": str(row["filter"]),
                "fwhm_arcsec": float(row["fwhm_arcsec"]),
                "median_fwhm": widths[str(row["filter"])],
                "solved": night.work / "solved" / f"{name}.fits",
                "sources": night.work / "sources" / f"{name}.ecsv",
                "measured": night.work / "photometry" / f"{name}.fits",
            }
        )
    return frames, kept if kept.is_file() else None


def _median_widths(table):
    """Give the median FWHM (arcsec) of the frames of each filter; NaN where none is known."""
    widths = {}
    for name in {str(name) for name in table["filter"]}:
        values = np.asarray(table["fwhm_arcsec"][table["filter"] == name], float)
        values = values[values > 0]
        widths[name] = float(np.median(values)) if values.size else math.nan
    return widths


def _star_task(night, frames, kept):
    """Task that writes the star list; without a catalogue of the night file, with the kept one."""
    catalogue = night.astrometry.catalogue or kept
    # A frame whose files are gone has nothing to say; it fails when it is measured.
    frames = [f for f in frames if f["sources"].is_file() and f["solved"].is_file()]
    files = [frame["sources"] for frame in frames] + [frame["solved"] for frame in frames]
    coord = night.target_coord
    # Two dates (1968, 2077) tell where it is and how it moves.
    places = [] if coord is None else [position_at(coord, jd) for jd in (2.44e6, 2.48e6)]
    target = [(float(place.ra.deg), float(place.dec.deg)) for place in places]
    decisive = [[frame[name] for name in ("file", "filter", "fwhm_arcsec")] for frame in frames]
    photometry, product, epochs = photometry_files(night.work)
    return Task(
        product,
        tuple(files) + (() if catalogue is None else (catalogue,)),
        {"target": target, "frames": decisive},
        write_stars,
        # The tables of an earlier run do not have the rows of a new list.
        (frames, catalogue, coord, product, (photometry, epochs)),
    )


def _setup(night):
    """Collect what decides the photometry of every frame, as plain values."""
    options, camera = night.photometry, night.camera
    return {
        "radii": tuple(float(radius) for radius in options.radii),
        "unit": options.radius_unit,
        "annulus": tuple(float(radius) for radius in options.annulus),
        "background": options.background,
        "recentre": options.recentre,
        "bad_pixels": options.bad_pixels,
        "gain": camera.gain,
        "read_noise": camera.read_noise,
        "diameter": camera.diameter if options.scintillation else None,
        "site": night.site if options.scintillation else None,
    }


def _frame_task(setup, frame, stars_path):
    """Task that measures one frame."""
    own = {name: frame[name] for name in ("file", "filter")}
    if setup["unit"] == "night-fwhm":
        own["median_fwhm"] = frame["median_fwhm"]
    return Task(
        frame["measured"],
        (frame["solved"], stars_path),
        {**setup, **own},
        _measure,
        (frame, stars_path, setup),
    )


def _measure(frame, stars_path, setup):
    """Task: photometry of one frame, with what the epoch's row needs in the header."""
    ccd = read_product(frame["solved"])
    if ccd.wcs is None:
        raise FrameError(f"{frame['file']}: the solved frame has no world coordinates")
    stars = _stars(stars_path, stars_path.stat().st_mtime_ns)
    numbers = {card: _number(ccd.meta, card) for card in FRAME_CARDS.values()}
    factor = _pixels_per_unit(ccd, frame, setup["unit"])
    gain = _number(ccd.meta, "GAIN_E")
    if not gain > 0:
        gain = setup["gain"] or np.nan
    noise = {"flat_noise": max(0.0, np.nan_to_num(_number(ccd.meta, "FLATNOIS")))}
    if setup["diameter"] is not None:
        noise["scintillation"] = _scintillation(numbers, stars, frame, setup)
    table = forced_photometry(
        ccd,
        positions(stars),
        radii=[radius * factor for radius in setup["radii"]],
        annulus=[radius * factor for radius in setup["annulus"]],
        gain=gain if gain > 0 else None,
        read_noise=setup["read_noise"] or max(0.0, np.nan_to_num(_number(ccd.meta, "RON_E"))),
        fwhm=numbers["FWHM"],
        **noise,
        **{name: setup[name] for name in ("background", "bad_pixels", "recentre")},
    )
    errors, n_measured = table.meta["errors"], int(np.isfinite(table["flux"]).any(axis=1).sum())
    numbers |= {"SCALE": pixel_scale(ccd.wcs), "FACTOR": float(factor), "ANGLE": _angle(ccd.wcs)}
    numbers |= {"GAIN_E": table.meta["gain"] or np.nan, "FLATNOIS": noise["flat_noise"]}
    numbers["SCINTILL"] = noise.get("scintillation", np.nan)
    table.meta = {card: value for card, value in numbers.items() if np.isfinite(value)}
    table.meta |= {"RAWNAME": ascii_text(frame["file"]), "FILTER": ascii_text(frame["filter"])}
    table.meta["ERRORS"] = errors
    table.meta |= setup_cards(setup)
    table.add_column(Column(np.asarray(stars["star"], np.int32)), name="star", index=0)
    for name in table.colnames[1:]:
        table[name] = table[name].astype(np.int16 if name == "flags" else np.float32)
    with atomic_path(frame["measured"]) as temporary:
        table.write(temporary, format="fits")
    return {"n_measured": n_measured}


@functools.lru_cache(maxsize=1)
def _stars(path, _changed):
    """Read the star list once for all frames of a process; a file that changed is read again."""
    return Table.read(path, format="ascii.ecsv")


def _pixels_per_unit(ccd, frame, unit):
    """Give the pixels of the unit of radii on a frame."""
    scale, fwhm = pixel_scale(ccd.wcs), _number(ccd.meta, "FWHM")
    night = frame["median_fwhm"] / scale
    factor = {"px": 1.0, "arcsec": 1 / scale, "fwhm": fwhm, "night-fwhm": night}[unit]
    if not factor > 0:
        raise FrameError(f"{frame['file']}: no FWHM is known, so radii in {unit} have no size")
    return factor


def _scintillation(numbers, stars, frame, setup):
    """Relative scintillation of a frame, for the airmass of the target or of the field's middle."""
    site = setup["site"]
    place = middle_position(stars)
    computed = airmass(altitude(numbers["JD_UTC_M"], place, location=site.location))[0]
    air = computed if np.isfinite(computed) else numbers["AIRMASS"]
    if not (numbers["EXPTIME"] > 0 and air > 0):
        raise FrameError(
            f"{frame['file']}: its exposure time or its airmass is not known, and so is the "
            "scintillation; name the cards in [headers], or leave photometry.scintillation out"
        )
    options = {"diameter": setup["diameter"], "height": site.height}
    return float(scintillation(numbers["EXPTIME"], airmass=air, **options))


def _final_task(night, setup, frames, stars_path):
    """Task that puts the frames of a night together."""
    photometry, _, epochs = photometry_files(night.work)
    # A card of FITS holds no letters outside of ASCII, so that names come from here.
    measured = [(frame["measured"], frame["file"], frame["filter"]) for frame in frames]
    setup = setup | {"default_radius": night.photometry.default_radius}
    return Task(
        photometry,
        (*(path for path, _, _ in measured), stars_path),
        {**setup, "site": night.site, "frames": [names for _, *names in measured]},
        assemble,
        (measured, stars_path, setup, night.site, photometry, epochs),
        extra=(epochs,),
    )


def _number(header, card):
    """Read the number of a card, NaN where there is none."""
    value = header.get(card)
    return float(value) if isinstance(value, int | float) else np.nan


def _angle(wcs):
    """Direction of the frame's y axis on the sky in degrees."""
    matrix = wcs.pixel_scale_matrix
    return float(np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1])))
