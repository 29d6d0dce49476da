"""Stacking: many frames of one filter become one deep image, without satellites and cosmic rays."""

import logging
import shutil
import warnings

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from matplotlib.image import imsave

from .background import background_map
from .coaddition import LEAST_STARS, Stack, coadd, flux_scales, load_pixels
from .errors import DataredError, DataredWarning, FrameError
from .frames import read_product, write_product
from .listing import product_name
from .photometry import aperture_photometry
from .pictures import colour_balance, colour_image, gray_image
from .pixels import OUTSIDE, SATURATED
from .products import Manifest, Task, atomic_path, run_tasks
from .resampling import common_grid, reproject_frame
from .sources import best_reference, detect

__all__ = [
    "Stack",
    "coadd",
    "colour_balance",
    "colour_image",
    "common_grid",
    "flux_scales",
    "gray_image",
    "reproject_frame",
    "stack_night",
]

log = logging.getLogger("datared.stacking")

#: Frames whose stars have less than this share of their usual light are clouded.
LEAST_LIGHT = 0.6
#: So are frames whose stars disagree about that share by more than this: the cloud is patchy.
MOST_PATCHY = 0.1
#: Bytes of aligned frames that are held in memory; more go to files in the work folder.
IN_MEMORY = 400e6
#: Filters from short to long wavelengths.
WAVELENGTHS = ("U", "u", "B", "g", "V", "G", "R", "r", "H-alpha", "Ha", "I", "i", "z", "Y", "y")


def stack_night(night, *, executor=None):
    """Stack the solved frames of each filter, and make pictures.

    All filters get the grid of the night's best frame. Of each frame the sky is subtracted, it is
    put on the grid, and scaled to the light of the best frame of its filter. Frames without overlap
    and frames behind clouds are left out.

    Parameters
    ----------
    night : Night
        A night with solved frames (``work/solved``).
    executor : concurrent.futures.Executor, optional
        Where the filters are stacked side by side.

    Returns
    -------
    astropy.table.Table
        One row for each solved frame: ``file``, ``filter``, ``status`` (``made``, ``current``,
        ``left out`` or ``failed``), ``reason``, ``scale``, ``noise`` (ADU), ``n_rejected``.

    Raises
    ------
    DataredError
        If no frame is solved.

    Notes
    -----
    ``work/stack/<filter>.fits`` has the mean of the scaled frames times the ratio of the total to
    the best frame's exposure time: the counts of one exposure of EXPTIME (the total time) with the
    camera's gain. So it is measured like any frame, with the same zero point. STACKSCL is that
    factor: divide by it for the mean. Interpolation smooths the sky: NOISECOR is the factor by
    which errors from the scatter of its pixels are too small. ``<filter>_exposure.fits`` is the
    exposure map in seconds; ``<filter>.png`` and ``colour.png`` are pictures.
    """
    path = night.work / "astrometry.ecsv"
    if not path.is_file():
        raise DataredError(f"{path} is missing: run the night up to the stage solved first")
    solved = Table.read(path, format="ascii.ecsv")
    solved = solved[np.asarray(solved["status"]).astype(str) != "failed"]
    if not len(solved):
        raise DataredError(f"none of the frames of {path} is solved: there is nothing to stack")
    files = {str(f): night.work / "solved" / f"{product_name(str(f))}.fits" for f in solved["file"]}
    grid = str(solved["file"][best_reference(solved)])
    folder = night.work / "stack"
    tasks, rows = [], []
    for name in sorted({str(f) for f in solved["filter"]}):
        part = solved[np.asarray(solved["filter"]).astype(str) == name]
        best = str(part["file"][best_reference(part)])
        order = [best, *sorted(str(f) for f in part["file"] if str(f) != best)]
        product = folder / f"{product_name(name)}.fits"
        extra = (_beside(product, "_exposure.fits"), _beside(product, ".png"))
        options = {"gain": night.camera.gain, "uncertainty": night.reduction.uncertainty}
        inputs = tuple(files[f] for f in order)
        tasks.append(
            Task(
                product=product,
                inputs=(*inputs, files[grid]),
                parameters=options,
                function=_stack_files,
                args=(inputs, files[grid], product, name, options),
                extra=extra,
            )
        )
        rows.append((name, order))
    manifest = Manifest(night.work)
    outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="stack")
    made = {name: o.product for (name, _), o in zip(rows, outcomes, strict=True) if o.result}
    _run_colour(made, folder, night.camera.gain, manifest)
    table = []
    for (name, order), outcome in zip(rows, outcomes, strict=True):
        numbers = outcome.result.get("frames", [{}] * len(order))
        for file, frame in zip(order, numbers, strict=True):
            reason = outcome.reason or frame.get("reason", "")
            status = "left out" if frame.get("reason") else outcome.status
            values = [frame.get(key) for key in ("scale", "noise")]
            values = [np.nan if v is None else v for v in values]
            table.append((file, name, status, reason, *values, frame.get("n_rejected", 0)))
    names = ("file", "filter", "status", "reason", "scale", "noise", "n_rejected")
    return Table(rows=table, names=names, dtype=("U", "U", "U", "U", float, float, int))


def _beside(product, ending):
    """Path of a file beside a product."""
    return product.with_name(product.stem + ending)


def _stack_files(paths, grid_path, product, name, options):
    """Task: stack the frames of a filter (the reference first), write image, map and picture."""
    wcs, shape = common_grid([read_product(grid_path)])
    folder = _beside(product, "_aligned")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        on_disk = 4 * len(paths) * shape[0] * shape[1] > IN_MEMORY
        aligned, meta, units, numbers, saturated = [], [], [], [], np.zeros(shape, bool)
        for path in paths:
            try:
                frame, noise = _align(path, wcs, shape)
            except FrameError as error:
                numbers.append({"reason": str(error)})
                continue
            numbers.append({"noise": noise})
            meta.append(frame.meta)
            units.append(frame.unit)
            saturated |= (frame.flags & SATURATED) != 0
            data = frame.data
            if on_disk:
                folder.mkdir(parents=True, exist_ok=True)
                data = folder / f"{len(aligned)}.fits"
                fits.PrimaryHDU(frame.data).writeto(data)
            aligned.append(data)
        if not aligned:
            raise FrameError("no frame of this filter overlaps with the reference frame")
        exptimes = np.array([float(m["EXPTIME"]) for m in meta])
        # The card is there for frames in electrons, too (then it is 1).
        gain = meta[0].get("GAIN_E") or options["gain"]
        scales, scatter = _measure_scales(aligned, meta, gain)
        unknown = ~np.isfinite(scales)
        scales[unknown] = (exptimes[0] / exptimes)[unknown]
        used = [n for n in numbers if not n.get("reason")]
        for number, scale in zip(used, scales, strict=True):
            number["scale"] = float(scale)
        reasons = _clouds(exptimes[0] / exptimes / scales, scatter)
        kept = [k for k, reason in enumerate(reasons) if not reason]
        for number, reason in zip(used, reasons, strict=True):
            number["reason"] = reason
        noise = np.array([n["noise"] for n in used])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataredWarning)
            stack = coadd(
                [aligned[k] for k in kept],
                noise=noise[kept],
                scales=scales[kept],
                exptimes=exptimes[kept],
                gain=gain,
            )
        for k, n_rejected in zip(kept, stack.n_rejected, strict=True):
            used[k]["n_rejected"] = n_rejected
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    weights = 1 / (scales[kept] * noise[kept]) ** 2
    cards, factor = _cards(
        [meta[k] for k in kept], exptimes[kept], scales[kept], weights, exptimes[0], gain
    )
    flags = np.where(stack.count == 0, OUTSIDE, 0).astype(np.uint16)
    flags[saturated] |= np.uint16(SATURATED)
    sigma = StdDevUncertainty(factor * stack.uncertainty) if options["uncertainty"] else None
    image = CCDData(
        np.float32(factor) * stack.data, unit=units[0], flags=flags, mask=flags != 0,
        uncertainty=sigma, meta=meta[0], wcs=wcs,
    )  # fmt: skip
    scatter = float(np.median(background_map(stack.data, box=128).noise))
    cards |= {
        "KIND": ("stack", "kind of frame"),
        "FILTER": (name, "filter"),
        "SKYNOISE": (factor * scatter, "ADU, scatter of the sky from pixel to pixel"),
        "NOISECOR": (float(np.nanmedian(stack.uncertainty)) / scatter, "noise / SKYNOISE"),
    }
    write_product(image, product, header_cards=cards)
    seconds = CCDData(stack.exposure, unit="s", meta=fits.Header(), wcs=wcs)
    write_product(seconds, _beside(product, "_exposure.fits"))
    _write_png(gray_image(image.data), _beside(product, ".png"))
    log.info("%s: %d of %d frames", product.name, len(kept), len(paths))
    return {"n_combined": len(kept), "exptime": float(exptimes[kept].sum()), "frames": numbers}


def _align(path, wcs, shape):
    """Frame without its sky on the grid, and the noise of its sky."""
    frame = read_product(path)
    bad = (frame.flags & ~np.uint16(SATURATED)) != 0
    # Boxes larger than for photometry: the light between the stars of a cluster is not sky.
    sky = background_map(frame.data, mask=bad, box=128)
    frame.data = frame.data - sky.level
    return reproject_frame(frame, wcs, shape=shape), float(np.median(sky.noise))


def _measure_scales(aligned, meta, gain):
    """Flux scales of aligned frames from the stars of the first, and their scatter."""
    stars = detect(load_pixels(aligned[0]), nsigma=10.0, gain=gain)
    stars = stars[(stars["flags"] == 0) & (stars["snr"] > 30)][:200]
    if len(stars) < LEAST_STARS:
        return np.full(len(aligned), np.nan), np.full(len(aligned), np.nan)
    fluxes = [_fluxes(data, stars, _radius(meta), gain) for data in aligned]
    return flux_scales(fluxes)


def _radius(meta):
    """Radius that holds nearly all light of a star in the frame with the worst seeing."""
    widths = [float(m.get("FWHM") or np.nan) for m in meta]
    return 2.0 * float(np.nanmax(widths)) if np.isfinite(widths).any() else 8.0


def _fluxes(image, stars, radius, gain):
    """Fluxes of stars in an aligned frame; NaN for those with bad pixels."""
    table = aperture_photometry(
        load_pixels(image), stars["x"], stars["y"], radii=[radius],
        annulus=(1.5 * radius, 2.5 * radius), gain=gain,
    )  # fmt: skip
    flux = np.asarray(table["flux"], float).reshape(len(stars))
    return np.where(np.asarray(table["flags"]).reshape(len(stars), -1)[:, 0] & 15, np.nan, flux)


def _clouds(light, scatter):
    """Reason to leave out each frame, empty for good ones, from the light of its stars."""
    usual = np.median(light)
    reasons = []
    for share, spread in zip(light / usual, scatter, strict=True):
        if share < LEAST_LIGHT:
            reasons.append(f"clouds: its stars have {share:.0%} of their usual light")
        elif spread > MOST_PATCHY:
            reasons.append(f"patchy clouds: the light of its stars varies by {spread:.0%}")
        else:
            reasons.append("")
    return reasons


def _cards(meta, exptimes, scales, weights, unit_time, gain):
    """Header cards of a stack, and the factor from the mean to the counts of the total time."""
    total = float(exptimes.sum())
    factor = total / unit_time
    days = np.array([float(m.get("JD_UTC_M") or np.nan) for m in meta])
    share = weights / weights.sum()
    effective = None if gain is None else gain / (factor * float(np.sum(share**2 * scales)))
    cards = {
        "NCOMBINE": (len(meta), "frames combined"),
        "EXPTIME": (total, "s, total exposure time"),
        "STACKSCL": (factor, "image / weighted mean of the scaled frames"),
        "EGAIN": (effective, "e- per count, effective"),
        "GAIN_E": (effective, "e- per count of this image"),
        "JD_UTC_M": (float(np.sum(share * days)), "weighted mean of the mid-exposures"),
        "SKYSUB": (True, "sky subtracted"),
    }
    return cards, factor


def _write_png(picture, path):
    """Write a picture with the top of the sky image up."""
    with atomic_path(path) as temporary:
        cmap = "gray" if picture.ndim == 2 else None
        limits = {"vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
        imsave(temporary, picture, origin="lower", cmap=cmap, **limits)


def _run_colour(made, folder, gain, manifest):
    """Make the colour picture of a night with two filters or more."""
    order = [f for f in WAVELENGTHS if f in made] + sorted(set(made) - set(WAVELENGTHS))
    if len(order) < 2:
        return
    chosen = (order[-1], order[len(order) // 2] if len(order) > 2 else None, order[0])
    paths = tuple(None if name is None else made[name] for name in chosen)
    product = folder / "colour.png"
    task = Task(
        product=product,
        inputs=tuple(path for path in paths if path is not None),
        parameters={"filters": [str(name) for name in chosen], "gain": gain},
        function=_colour_file,
        args=(paths, product, gain),
    )
    run_tasks([task], manifest=manifest)


def _colour_file(paths, product, gain):
    """Task: colour picture of stacks (red, green or None, blue), balanced by their stars."""
    images = [None if path is None else read_product(path) for path in paths]
    stars = detect(images[0], nsigma=10.0, gain=gain)
    stars = stars[stars["flags"] == 0][:300]
    radius = _radius([image.meta for image in images if image is not None])
    fluxes = [None if i is None else _fluxes(i.data, stars, radius, gain) for i in images]
    known = [(fluxes[0] + fluxes[2]) / 2 if flux is None else flux for flux in fluxes]
    try:
        scale = colour_balance(*known)
    except FrameError:
        scale = (1.0, 1.0, 1.0)
    picture = colour_image(*(None if i is None else i.data for i in images), scale=scale)
    _write_png(picture, product)
    return {"scale": list(scale)}
