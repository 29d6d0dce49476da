"""Photometry of a night: every star of the reference list on every solved frame.

Apertures sit at fixed positions on the sky; each frame's WCS brings them into pixels. The result is
the same table whatever is seen: axis 0 is the star, axis 1 the epoch, axis 2 the radius.
"""

from collections import Counter

import numpy as np
from astropy.table import Table

from .apertures import NO_WCS
from .assembly import FRAME_CARDS, Photometry, assemble, photometry_files, read_photometry
from .catalogs import positions, read_catalogue
from .errors import DataredError, FrameError
from .frames import product_name, read_product
from .names import position_at
from .photometry import aperture_photometry
from .products import Manifest, Task, atomic_path, run_tasks
from .reference import add_catalogue, merge_stars, refine_positions, set_target
from .sources import EDGE

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
    fwhm=None,
):
    """Aperture photometry at sky positions, whatever is seen there.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Reduced frame with a WCS.
    coords : astropy.coordinates.SkyCoord, shape (n,)
        Where to measure.
    radii, annulus, background, gain, read_noise, fwhm
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
        read_noise=read_noise, fwhm=fwhm,
    )  # fmt: skip
    if ccd.wcs is None:
        table["flags"] |= NO_WCS
    return table


def sky_to_pixel(wcs, coords, *, shape):
    """Pixel positions of sky positions, safe for stars far outside the frame.

    A distortion polynomial means nothing far from the frame and may even bring an outside star into
    it; such stars get their position without distortion.

    Parameters
    ----------
    wcs : astropy.wcs.WCS or None
        World coordinates of the frame; None gives NaN.
    coords : astropy.coordinates.SkyCoord, shape (n,)
        Positions on the sky.
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    tuple of numpy.ndarray of float
        ``x`` and ``y``, each of shape (n,).
    """
    sky = np.column_stack([coords.icrs.ra.deg, coords.icrs.dec.deg])
    place = np.full(sky.shape, np.nan)
    known = np.isfinite(sky).all(axis=1)
    if wcs is not None and known.any():
        place[known] = wcs.wcs_world2pix(sky[known], 0)
        size = np.array(shape[::-1])
        with np.errstate(invalid="ignore"):
            near = ((place > -0.2 * size) & (place < 1.2 * size)).all(axis=1)
        if near.any():
            place[near] = wcs.all_world2pix(sky[near], 0, quiet=True)
    return place[:, 0], place[:, 1]


def photometry_night(night, *, executor=None):
    """Measure every star on every solved frame of a night.

    The star list comes from the best frame of each filter (the first one with at least 97 % of the
    stars of the fullest), merged on the sky, with positions averaged over all frames; the night's
    target joins it if it was not detected.

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
        and ``work/photometry.fits``, in the order of time whatever the files are called.

    Raises
    ------
    DataredError
        If no frame is solved, no star was detected, or no frame could be measured.
    """
    frames = _solved_frames(night)
    manifest = Manifest(night.work)
    stars_path = night.work / "stars.ecsv"
    outcome = run_tasks([_star_task(night, frames, stars_path)], manifest=manifest)[0]
    if outcome.status == "failed":
        raise DataredError(f"there is no star list: {outcome.reason}")
    tasks = [_frame_task(night, frame, stars_path) for frame in frames]
    outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="photometry")
    done = [task.product for task, o in zip(tasks, outcomes, strict=True) if o.status != "failed"]
    if not done:
        # The table of an earlier run must not pass for this one's.
        for path in photometry_files(night.work):
            path.unlink(missing_ok=True)
        raise DataredError(f"no frame could be measured; the first: {outcomes[0].reason}")
    final = run_tasks([_final_task(night, done, stars_path)], manifest=manifest)[0]
    if final.status == "failed":
        raise DataredError(f"the photometry could not be put together: {final.reason}")
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
    """Rows of the solved frames, with the paths of their pixels and star lists."""
    path = night.work / "astrometry.ecsv"
    if not path.is_file():
        raise DataredError(f"{path} is missing: run the night up to the stage solved first")
    table = Table.read(path, format="ascii.ecsv")
    frames = []
    for row in table[np.asarray(table["status"]).astype(str) != "failed"]:
        name = product_name(str(row["file"]))
        frames.append(
            {
                "file": str(row["file"]),
                "filter": str(row["filter"]),
                "solved": night.work / "solved" / f"{name}.fits",
                "sources": night.work / "sources" / f"{name}.ecsv",
                "measured": night.work / "photometry" / f"{name}.fits",
            }
        )
    if not frames:
        raise DataredError(f"none of the {len(table)} frames of {path} is solved")
    return frames


def _star_task(night, frames, product):
    """Task that writes the star list."""
    catalogue = night.astrometry.catalogue
    if catalogue is None:
        # The one that the frames were solved with was asked for and kept.
        solved = Table.read(night.work / "astrometry.ecsv", format="ascii.ecsv")
        kept = night.work / "catalogues" / solved.meta.get("catalogue", "")
        catalogue = kept if kept.is_file() else None
    files = [frame["sources"] for frame in frames] + [frame["solved"] for frame in frames]
    coord = night.target_coord
    # Two dates (1968, 2077) tell where it is and how it moves.
    places = [] if coord is None else [position_at(coord, jd) for jd in (2.44e6, 2.48e6)]
    target = [(float(place.ra.deg), float(place.dec.deg)) for place in places]
    return Task(
        product,
        tuple(files) + (() if catalogue is None else (catalogue,)),
        {"target": target, "frames": [frame["file"] for frame in frames]},
        _write_stars,
        (frames, catalogue, coord, product),
    )


def _write_stars(frames, catalogue, target, product):
    """Task: star list of a night from the detections of its frames."""
    lists = [Table.read(frame["sources"], format="ascii.ecsv") for frame in frames]
    # What is cut off by the edge of a frame has its centre in the wrong place: such a star is
    # listed, but its place comes from the frames on which it is whole.
    every, lists = lists, [table[(np.asarray(table["flags"]) & EDGE) == 0] for table in lists]
    # The frame with the most stars is the deepest. A few stars more or less are chance: of frames
    # as good it is the first.
    most, best = {}, {}
    for frame, table in zip(frames, lists, strict=True):
        most[frame["filter"]] = max(len(table), most.get(frame["filter"], 0))
    for k, frame in enumerate(frames):
        if len(lists[k]) >= 0.97 * most[frame["filter"]]:
            best.setdefault(frame["filter"], k)
    reference, ccd = _first_readable(frames, lists)
    scale = _pixel_scale(ccd.wcs)
    width = float(ccd.meta.get("FWHM") or np.nan) * scale
    # Two detections of one star lie within a fraction of a width; plate solutions within less.
    radius = max(1.0, 0.5 * width) if np.isfinite(width) else max(1.0, 1.5 * scale)
    stars = merge_stars({name: every[k] for name, k in best.items()}, radius=radius)
    if not len(stars):
        raise FrameError("no star was detected on any frame")
    stars = refine_positions(stars, lists, radius=radius)
    # A satellite trail or a cosmic ray is there once, a star again on the next frame.
    n_frames = Counter(frame["filter"] for frame in frames)
    few = np.array([n_frames[name] < 3 for name in stars["found_in"]], bool)
    again = stars["n_detected"] > np.where(few, 0, 1)
    stars = stars[again]
    stars["star"] = np.arange(len(stars))
    jd = float(ccd.meta.get("JD_UTC_M") or np.nan)
    target = None if target is None else position_at(target, jd)
    stars = set_target(stars, target, radius=2 * radius)
    if catalogue is not None:
        stars = add_catalogue(stars, read_catalogue(catalogue), jd=jd, radius=2 * radius)
    stars["x"], stars["y"] = sky_to_pixel(ccd.wcs, positions(stars), shape=ccd.shape)
    stars.meta = {
        "reference": frames[reference]["file"],
        "best": {name: frames[k]["file"] for name, k in best.items()},
        "radius_arcsec": radius,
    }
    with atomic_path(product) as temporary:
        stars.write(temporary, format="ascii.ecsv")
    return {"stars": len(stars)}


def _first_readable(frames, lists):
    """Return number and pixels of the frame with the most stars that can be read."""
    for k in sorted(range(len(frames)), key=lambda k: -len(lists[k])):
        try:
            return k, read_product(frames[k]["solved"])
        except FrameError as error:
            reason = error
    raise reason


def _frame_task(night, frame, stars_path):
    """Task that measures one frame."""
    options = night.photometry
    setup = {
        "radii": tuple(float(radius) for radius in options.radii),
        "unit": options.radius_unit,
        "annulus": tuple(float(radius) for radius in options.annulus),
        "gain": night.camera.gain,
        "read_noise": night.camera.read_noise,
    }
    return Task(
        frame["measured"],
        (frame["solved"], stars_path),
        {**setup, "file": frame["file"], "filter": frame["filter"]},
        _measure,
        (frame, stars_path, setup),
    )


def _measure(frame, stars_path, setup):
    """Task: photometry of one frame, with what the epoch's row needs in the header."""
    ccd = read_product(frame["solved"])
    if ccd.wcs is None:
        raise FrameError(f"{frame['file']}: the solved frame has no world coordinates")
    fwhm = _number(ccd.meta, "FWHM")
    scale = _pixel_scale(ccd.wcs)
    factor = {"px": 1.0, "arcsec": 1 / scale, "fwhm": fwhm}[setup["unit"]]
    if not factor > 0:
        raise FrameError(f"{frame['file']}: no FWHM is known, so radii in FWHM have no size")
    gain = _number(ccd.meta, "GAIN_E")
    if not gain > 0:
        gain = setup["gain"] or np.nan
    stars = Table.read(stars_path, format="ascii.ecsv")
    table = forced_photometry(
        ccd,
        positions(stars),
        radii=[radius * factor for radius in setup["radii"]],
        annulus=[radius * factor for radius in setup["annulus"]],
        gain=gain if gain > 0 else None,
        read_noise=setup["read_noise"] or max(0.0, np.nan_to_num(_number(ccd.meta, "RON_E"))),
        fwhm=fwhm,
    )
    errors, n_measured = table.meta["errors"], int(np.isfinite(table["flux"]).any(axis=1).sum())
    numbers = {card: _number(ccd.meta, card) for card in FRAME_CARDS.values()}
    angle = _angle(ccd.wcs)
    numbers |= {"SCALE": scale, "FACTOR": float(factor), "GAIN_E": float(gain), "ANGLE": angle}
    table.meta = {card: value for card, value in numbers.items() if np.isfinite(value)}
    table.meta |= {"RAWNAME": frame["file"], "FILTER": frame["filter"], "ERRORS": errors}
    for name in ("flux", "flux_err", "sky", "sky_err", "sky_std", "x", "y", "n_sky"):
        table[name] = table[name].astype(np.float32)
    with atomic_path(frame["measured"]) as temporary:
        table.write(temporary, format="fits")
    return {"n_measured": n_measured}


def _final_task(night, products, stars_path):
    """Task that puts the frames of a night together."""
    photometry, _, epochs = photometry_files(night.work)
    options = night.photometry
    setup = {
        "radii": tuple(float(radius) for radius in options.radii),
        "unit": options.radius_unit,
        "annulus": tuple(float(radius) for radius in options.annulus),
        "default_radius": options.default_radius,
    }
    return Task(
        photometry,
        (*products, stars_path),
        {**setup, "site": night.site},
        assemble,
        (products, stars_path, setup, night.site, photometry, epochs),
        extra=(epochs,),
    )


def _number(header, card):
    """Read the number of a card, NaN where there is none."""
    value = header.get(card)
    return float(value) if isinstance(value, int | float) else np.nan


def _pixel_scale(wcs):
    """Arcsec per pixel."""
    return float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600)


def _angle(wcs):
    """Direction of the frame's y axis on the sky in degrees."""
    matrix = wcs.pixel_scale_matrix
    return float(np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1])))
