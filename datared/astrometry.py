"""Astrometry: which point of the sky each pixel saw, from the stars in the frame."""

import functools
import math
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from datared.catalogs import at_epoch, fetch_catalogue, read_catalogue
from datared.errors import ConfigError, SolveError
from datared.frames import read_product, write_product
from datared.headers import read_header
from datared.listing import inventory, product_name, select_lights
from datared.products import Manifest, Task, atomic_path, run_tasks
from datared.projection import from_plane, to_plane
from datared.solver import Solution, solve_frame
from datared.sources import detect

__all__ = ["Solution", "from_plane", "solve_frame", "solve_night", "to_plane"]


def solve_night(night, *, executor=None):
    """Detect the stars of all calibrated lights of a night and find where each frame points.

    Each frame stands alone, so that the result does not depend on the order of the work. A frame
    that is not solved stays out: it has a row with the reason, and no file in ``work/solved``.

    Parameters
    ----------
    night : Night
        A night whose frames are calibrated (``work/reduced``).
    executor : concurrent.futures.Executor, optional
        Where to work; see `datared.products.run_tasks`.

    Returns
    -------
    astropy.table.Table
        Also written as ``work/astrometry.ecsv``. One row per light frame: ``file``, ``filter``,
        ``status`` (made, current, failed), ``reason``, ``n_stars``, ``n_matched``, ``rms_px``,
        ``rms_arcsec``, ``worst_px``, ``scale`` (arcsec/px), ``rotation`` (deg), ``mirrored``,
        ``flipped`` (turned by more than 90 deg against the first frame: the mount crossed the
        meridian), ``order``, ``log_odds``, ``ra``, ``dec`` (deg, middle of the frame),
        ``jd_utc_mid``, ``fwhm`` (px), ``sky`` and ``noise`` (ADU).

    Raises
    ------
    ConfigError
        If there is neither a catalogue nor a position to ask for one.
    """
    lights = select_lights(inventory(night), night)
    names = [product_name(str(row["file"])) for row in lights]
    catalogue = _night_catalogue(night, lights)
    target = night.target_coord
    hint = None if target is None else (float(target.icrs.ra.deg), float(target.icrs.dec.deg))
    options = {
        "search_radius": float(night.astrometry.search_radius),
        "scale_tolerance": float(night.astrometry.scale_tolerance),
        "sip_order": night.astrometry.sip_order,
        "pixel_scale": night.camera.pixel_scale,
        "gain": night.camera.gain,
        "nsigma": float(night.photometry.threshold),
        "hint": hint,
    }
    tasks = []
    for name in names:
        reduced = night.work / "reduced" / f"{name}.fits"
        solved = night.work / "solved" / f"{name}.fits"
        listed = night.work / "sources" / f"{name}.ecsv"
        tasks.append(
            Task(
                product=solved,
                inputs=(reduced, catalogue),
                parameters=options,
                function=_solve_file,
                args=(reduced, catalogue, solved, listed, options),
                extra=(listed,),
            )
        )
    outcomes = run_tasks(tasks, manifest=Manifest(night.work), executor=executor, label="solved")
    table = _night_table(lights, outcomes)
    with atomic_path(night.work / "astrometry.ecsv") as temporary:
        table.write(temporary, format="ascii.ecsv")
    return table


def _night_catalogue(night, lights):
    """Path of the night's catalogue file; asked for in the network where none is named."""
    if night.astrometry.catalogue is not None:
        return Path(night.astrometry.catalogue)
    ra, dec = (np.asarray(lights[name], float) for name in ("ra", "dec"))
    good = np.isfinite(ra) & np.isfinite(dec)
    if night.target_coord is not None:
        center = night.target_coord
    elif good.any():
        # The first frame's; a mean would fall between the fields of a night with two.
        center = SkyCoord(ra[good][0], dec[good][0], unit="deg")
    else:
        raise ConfigError(
            "no catalogue and no position to ask for one: the headers have no pointing. Give "
            "[astrometry] catalogue, or target with its coordinates"
        )
    scale = night.camera.pixel_scale or float(np.nanmedian(np.asarray(lights["scale"], float)))
    diagonal = math.hypot(np.max(lights["nx"]), np.max(lights["ny"])) * scale / 60
    if not np.isfinite(diagonal):
        raise ConfigError("the pixel scale is not known: give [camera] pixel_scale in arcsec")
    radius = 0.55 * diagonal + float(night.astrometry.search_radius)
    return fetch_catalogue("refcat2", center, radius=radius, cache=night.work / "catalogues")


@functools.lru_cache(maxsize=4)
def _stars(path, _changed):
    """Catalogue of a file, read once per process and state of the file."""
    return read_catalogue(path)


def _solve_file(reduced, catalogue, solved, listed, options):
    """Task: solve one calibrated frame, write its pixels with the WCS and its list of stars."""
    ccd = read_product(reduced)
    # The card is there for frames in electrons, too (then it is 1).
    gain = ccd.meta.get("GAIN_E") or options["gain"]
    stars = detect(ccd, nsigma=options["nsigma"], gain=gain)
    header = read_header(ccd.meta, path=str(reduced))
    scale = options["pixel_scale"] or header["scale"]
    if not (scale > 0):
        raise SolveError("the pixel scale is not known: give [camera] pixel_scale in arcsec")
    pointing = tuple(float(ccd.meta.get(key) or np.nan) for key in ("RA_DEG", "DEC_DEG"))
    hint = pointing if np.isfinite(pointing).all() else options["hint"]
    jd = float(ccd.meta.get("JD_UTC_M") or np.nan)
    reference = at_epoch(_stars(catalogue, catalogue.stat().st_mtime_ns), jd)
    solution = solve_frame(
        stars,
        reference,
        shape=ccd.shape,
        center=None if hint is None else SkyCoord(*hint, unit="deg"),
        scale=scale,
        search_radius=options["search_radius"],
        scale_tolerance=options["scale_tolerance"],
        sip_order=options["sip_order"],
    )
    ccd.wcs = solution.wcs
    middle = solution.wcs.all_pix2world([[(n - 1) / 2 for n in ccd.shape[::-1]]], 0)[0]
    matched = solution.matched
    numbers = {
        "n_stars": len(stars),
        "n_matched": solution.n_matched,
        "rms_px": solution.rms_px,
        "rms_arcsec": solution.rms_arcsec,
        "worst_px": float(np.hypot(matched["dx"], matched["dy"])[matched["used"]].max()),
        "scale": solution.scale,
        "rotation": solution.rotation,
        "mirrored": solution.mirrored,
        "order": solution.order,
        "log_odds": solution.log_odds,
        "ra": float(middle[0]),
        "dec": float(middle[1]),
        "jd_utc_mid": jd,
        "fwhm": stars.meta["fwhm"],
        "sky": stars.meta["sky"],
        "noise": stars.meta["noise"],
    }
    cards = {
        "ASTRRMS": (solution.rms_arcsec, "arcsec, rms of the plate solution"),
        "ASTRNST": (solution.n_matched, "stars matched with the catalogue"),
        "FWHM": (stars.meta["fwhm"], "px, median of the stars"),
        "SKY": (stars.meta["sky"], "ADU, median sky"),
        "SKYNOISE": (stars.meta["noise"], "ADU, sky noise of a pixel"),
        "NSTARS": (len(stars), "stars detected"),
    }
    with atomic_path(listed) as temporary:
        _residual_table(stars, solution).write(temporary, format="ascii.ecsv")
    write_product(ccd, solved, header_cards=cards)
    return numbers


def _residual_table(stars, solution):
    """Return the detected stars with their sky positions and, where matched, the residuals."""
    table = stars.copy()
    table["ra"], table["dec"] = solution.wcs.all_pix2world(stars["x"], stars["y"], 0)
    table["catalogue"] = np.full(len(table), -1)
    for name in ("dx", "dy"):
        table[name] = np.full(len(table), np.nan)
    rows = solution.matched["source"]
    for name in ("catalogue", "dx", "dy"):
        table[name][rows] = solution.matched[name]
    table.meta |= {"rms_px": solution.rms_px, "n_matched": solution.n_matched}
    return table


_NUMBERS = (
    *("n_stars", "n_matched", "rms_px", "rms_arcsec", "worst_px", "scale", "rotation", "mirrored"),
    *("order", "log_odds", "ra", "dec", "jd_utc_mid", "fwhm", "sky", "noise"),
)
_COUNTS = ("n_stars", "n_matched", "order")


def _night_table(lights, outcomes):
    """One row per frame; counts of frames that failed are 0, other numbers NaN."""
    columns = {
        "file": [str(file) for file in lights["file"]],
        "filter": [str(name) for name in lights["filter"]],
        "status": [outcome.status for outcome in outcomes],
        "reason": [outcome.reason for outcome in outcomes],
    }
    table = Table(columns, dtype=["U"] * 4) if outcomes else Table(names=columns, dtype=["U1"] * 4)
    for name in _NUMBERS:
        values = [outcome.result.get(name) for outcome in outcomes]
        if name == "mirrored":
            table[name] = np.array([bool(value) for value in values], bool)
        elif name in _COUNTS:
            table[name] = np.array([value or 0 for value in values], int)
        else:
            table[name] = np.array([np.nan if v is None else v for v in values], float)
    turned = np.full(len(table), False)
    solved = np.flatnonzero(np.isfinite(table["rotation"]))
    if len(solved):
        # Unknown times sort last, so that the first frame is one whose place is known.
        first = solved[np.lexsort((solved, table["jd_utc_mid"][solved]))[0]]
        turn = np.radians(table["rotation"] - table["rotation"][first])
        turned[solved] = np.cos(turn[solved]) < 0
    table.add_column(turned, name="flipped", index=table.colnames.index("mirrored") + 1)
    return table
