"""Stacking: many frames of one filter become one deep image, without satellites and cosmic rays."""

import logging
from dataclasses import asdict

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .coaddition import LEAST_STARS, Stack, coadd, coarse_loss, flux_scales
from .errors import DataredError, FrameError
from .grids import common_grid
from .headerwcs import read_wcs
from .listing import product_name
from .nightpictures import write_pictures
from .nightstars import pixel_scale
from .pictures import colour_balance, colour_image, gray_image
from .products import Manifest, Task, atomic_path, run_tasks
from .resampling import AlignedRows, reproject_frame
from .sources import rank_frames
from .stackframes import look_at, open_frame, same_field
from .stacklight import cloud_reasons, compare_light, stars_to_compare
from .stackproduct import write_stack

__all__ = [
    "AlignedRows",
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

#: Columns of numbers in the table of the stage.
NUMBERS = ("scale", "noise", "light", "fwhm_arcsec", "weight")


def stack_night(night, *, executor=None):
    r"""Stack the solved frames of each filter, and make pictures.

    All filters get one grid: that of the night's best frame, or one for all frames (``[stack]`` of
    the night file, see `datared.night.StackOptions`). Each frame is looked at first: its sky, its
    noise, the light of its stars. Then frames are interpolated without their sky, scaled to the
    light of the best used frame of their filter, and added in bands of rows: memory does not grow
    with their number. Left out, with the reason in the table, are frames behind clouds, of bad
    seeing, without overlap, that cannot be read, and those of another field: of several fields in
    one night the one with the most frames is stacked.

    Parameters
    ----------
    night : Night
        A night with solved frames (``work/solved``).
    executor : concurrent.futures.Executor, optional
        Where the filters are stacked side by side.

    Returns
    -------
    astropy.table.Table
        Also written as ``work/stack.ecsv``. One row for each solved frame: ``file``, ``filter``,
        ``status`` (``made``, ``current``, ``left out`` or ``failed``), ``reason``, ``scale``
        (factor to the counts of the best used frame), ``noise`` (of a pixel, in the unit of the
        frame), ``n_rejected`` (pixels left out), ``light`` (per second, as a share of that best
        frame's), ``fwhm_arcsec`` and ``weight`` (share of the frame in the stack).

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
    exposure map in seconds. The pictures are those of `datared.nightpictures`.

    Weights are :math:`1 / (A (s \sigma)^2)` with the scale s, the noise and the area A of a grid's
    pixel in pixels of the frame (less on coarse grids, see `datared.coaddition.coarse_loss`); with
    ``weights = "seeing"`` divided by the square of the FWHM, as is best for faint stars on frames
    of unequal sharpness (so weigh Jiang et al. 2014, ApJS 213, 12).
    """
    solved = _solved(night)
    best, side = _best_frame(night, solved)
    field = same_field(solved, side=side)
    if not field[best]:
        best, _ = _best_frame(night, solved, among=field)
    grid, shape = _grid(night, solved[field], str(solved["file"][best]))
    options = {
        "camera_gain": night.camera.gain,
        "uncertainty": night.reduction.uncertainty,
        "wcs": grid,
        "shape": shape,
        **{name: value for name, value in asdict(night.stack).items() if name != "colour"},
    }
    tasks, rows = [], []
    for name in sorted({str(f) for f in solved["filter"][field]}):
        part = solved[field & (np.asarray(solved["filter"]).astype(str) == name)]
        order = np.lexsort((np.asarray(part["file"]).astype(str), -rank_frames(part)))
        files = [str(part["file"][k]) for k in order]
        tasks.append(_filter_task(night, name, files, options))
        rows.append((name, files))
    manifest = Manifest(night.work)
    outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="stack")
    made = {row[0]: o.product for row, o in zip(rows, outcomes, strict=True) if o.result}
    pictures = write_pictures(night, made, manifest=manifest)
    _remove_stale(manifest, night.work / "stack", {t.product for t in tasks} | set(pictures))
    table = _night_table(rows, outcomes, solved[~field])
    with atomic_path(night.work / "stack.ecsv") as temporary:
        table.write(temporary, format="ascii.ecsv")
    return table


def _solved(night):
    """Rows of the solved frames."""
    path = night.work / "astrometry.ecsv"
    if not path.is_file():
        raise DataredError(f"{path} is missing: run the night up to the stage solved first")
    table = Table.read(path, format="ascii.ecsv")
    solved = table[np.asarray(table["status"]).astype(str) != "failed"]
    if not len(solved):
        raise DataredError(f"none of the frames of {path} is solved: there is nothing to stack")
    # Pixels of different sizes must not decide which frame is the sharpest.
    solved["fwhm"] = solved["fwhm_arcsec"]
    return solved


def _solved_path(night, file):
    """Path of a solved frame."""
    return night.work / "solved" / f"{product_name(file)}.fits"


def _best_frame(night, solved, *, among=None):
    """Row of the best frame that can be read, and the short side of its field in arcsec."""
    scores = rank_frames(solved)
    problem = None
    for k in np.argsort(-scores, kind="stable"):
        if among is not None and not among[k]:
            continue
        try:
            frame = open_frame(_solved_path(night, str(solved["file"][k])))
        except FrameError as error:
            problem = problem or error
            continue
        return k, min(frame.shape) * frame.scale
    raise DataredError(f"no solved frame can be read; the first: {problem}")


def _grid(night, solved, best):
    """Coordinates of the grid as the text of a header, and its shape."""
    if night.stack.grid == "reference":
        frames = [open_frame(_solved_path(night, best))]
    else:
        frames = []
        for file in solved["file"]:
            try:
                frames.append(open_frame(_solved_path(night, str(file))))
            except FrameError as error:
                log.warning("%s has no part in the grid: %s", file, error)
    reference = 0 if night.stack.grid == "reference" else None
    wcs, shape = common_grid([(frame.shape, frame.wcs) for frame in frames], reference=reference)
    return wcs.to_header(relax=True).tostring(), [int(size) for size in shape]


def _filter_task(night, name, files, options):
    """Task that stacks the frames of a filter, the best first."""
    product = night.work / "stack" / f"{product_name(name)}.fits"
    paths = [_solved_path(night, file) for file in files]
    lists = [night.work / "sources" / f"{product_name(file)}.ecsv" for file in files]
    return Task(
        product=product,
        # A file that is missing is no reason to do without the others.
        inputs=tuple(path for path in (*paths, *lists) if path.is_file()),
        parameters=options | {"files": files},
        function=_stack_files,
        args=(paths, lists, product, name, options),
        extra=(_beside(product, "_exposure.fits"),),
    )


def _beside(product, ending):
    """Path of a file beside a product."""
    return product.with_name(product.stem + ending)


def _remove_stale(manifest, folder, products):
    """Remove what an earlier run made of filters that are no longer there."""
    kept, start = {manifest.name(path) for path in products}, manifest.name(folder) + "/"
    stale = [name for name in manifest.products if name.startswith(start) and name not in kept]
    # A picture of today may be the second file of one of today's products.
    for name in stale:
        record = manifest.products.pop(name)
        for output in {name, *record["outputs"]} - kept:
            (manifest.work / output).unlink(missing_ok=True)
    if stale:
        manifest.save()


def _night_table(rows, outcomes, others):
    """Put the table of the stage together."""
    table = []
    for (name, files), outcome in zip(rows, outcomes, strict=True):
        numbers = outcome.result.get("frames", [{}] * len(files))
        for file, frame in zip(files, numbers, strict=True):
            reason = outcome.reason or frame.get("reason", "")
            status = "left out" if frame.get("reason") else outcome.status
            values = [frame.get(key) for key in NUMBERS]
            values = [np.nan if value is None else value for value in values]
            n_rejected = frame.get("n_rejected", 0)
            table.append((file, name, status, reason, *values[:2], n_rejected, *values[2:]))
    for row in others:
        place = np.ma.filled([row["ra"], row["dec"]], np.nan)
        reason = "its place on the sky is not known (ra and dec in work/astrometry.ecsv)"
        if np.isfinite(place).all():
            reason = (
                "another field: the one with the most frames is stacked; object in the night file "
                "chooses another"
            )
        numbers = (np.nan, np.nan, 0, np.nan, np.nan, np.nan)
        table.append((str(row["file"]), str(row["filter"]), "left out", reason, *numbers))
    names = ("file", "filter", "status", "reason", *NUMBERS[:2], "n_rejected", *NUMBERS[2:])
    return Table(rows=table, names=names, dtype=(*"UUUU", float, float, int, *[float] * 3))


def _stack_files(paths, lists, product, name, options):
    """Task: stack the frames of a filter (the best first), write image and exposure map."""
    wcs = read_wcs(fits.Header.fromstring(options["wcs"]), options["shape"])
    shape = tuple(options["shape"])
    numbers = [{} for _ in paths]
    opened = _open_frames(paths, numbers, options)
    looks, aligned = _look_at_all(opened, lists, numbers, wcs, shape, options)
    kept, scales = _without_clouds(looks, numbers, options["least_light"])
    frames, aligned = [looks[k] for k in kept], [aligned[k] for k in kept]
    noise = np.array([frame.noise for frame in frames])
    widths = _widths(frames)
    weights = _weights(frames, scales * noise, pixel_scale(wcs))
    if options["weights"] == "seeing" and widths is not None:
        weights = weights / widths**2
    weights = weights / weights.sum()
    gains = [frame.gain for frame in frames]
    stack = coadd(
        aligned,
        noise=noise,
        scales=scales,
        exptimes=[frame.exptime for frame in frames],
        gain=None if None in gains else gains,
        weights=weights,
        fwhm=None if widths is None else widths / pixel_scale(wcs),
        # Of two frames coadd leaves nothing out, and warns.
        clip=options["clip"] if options["clip"] and len(frames) > 2 else None,
    )
    for k, weight, n_rejected in zip(kept, weights, stack.n_rejected, strict=True):
        numbers[k] |= {"weight": float(weight), "n_rejected": int(n_rejected)}
    write_stack(
        stack, product, frames, wcs=wcs, scales=scales, weights=weights,
        filter_name=name, options=options,
    )  # fmt: skip
    log.info("%s: %d of %d frames", product.name, len(kept), len(paths))
    seconds = float(sum(frame.exptime for frame in frames))
    return {"n_combined": len(kept), "exptime": seconds, "frames": numbers}


def _open_frames(paths, numbers, options):
    """Frames that can be read and are sharp enough, by their place in the list."""
    frames = {}
    for k, path in enumerate(paths):
        try:
            frame = open_frame(path, gain=options["camera_gain"])
        except FrameError as error:
            numbers[k]["reason"] = str(error)
            continue
        numbers[k]["fwhm_arcsec"] = frame.fwhm
        worst = options["worst_seeing"]
        if worst is not None and frame.fwhm > worst:
            numbers[k]["reason"] = (
                f"seeing: its stars are {frame.fwhm:.2f} arcsec wide, worst_seeing is {worst:g}"
            )
            continue
        frames[k] = frame
    return frames


def _look_at_all(frames, lists, numbers, wcs, shape, options):
    """Frames with their sky and the light of their stars, and their rows on the grid."""
    widths = [frame.fwhm for frame in frames.values() if np.isfinite(frame.fwhm)]
    # A circle that holds nearly all light of a star also in the worst seeing. One of half the size
    # takes the wings of a blurred frame for a cloud of 0.5 %.
    # One trailed frame must not make it so large that it holds all stars around.
    usual = np.median(widths) if widths else 2.0 * pixel_scale(wcs)
    radius = 4.0 * min(max(widths, default=usual), 2.0 * usual)
    stars, problems = stars_to_compare(frames, lists, radius=radius)
    looks, aligned = {}, {}
    for k, frame in frames.items():
        try:
            look = look_at(frame, stars, radius=radius, sky=options["sky"])
            if k in problems and np.isfinite(look.flux).sum() < LEAST_STARS:
                raise problems[k]  # Else the lists of other frames will do.
        except FrameError as error:
            numbers[k]["reason"] = str(error)
            continue
        try:
            aligned[k] = AlignedRows(
                frame.path, wcs, shape=shape, method=options["method"], sky=look.sky
            )
        except FrameError as error:
            numbers[k]["reason"] = f'{error}; grid = "optimal" in [stack] holds all frames'
            continue
        looks[k] = look
        numbers[k]["noise"] = look.noise
    if not looks:
        reasons = [number["reason"] for number in numbers]
        raise FrameError(f"no frame of this filter can be stacked; the first: {reasons[0]}")
    return looks, aligned


def _without_clouds(looks, numbers, least):
    """Places of the frames that are not behind clouds, and scales to the first of them."""
    light = compare_light(list(looks.values()))
    reasons = cloud_reasons(light, least=least)
    clear = np.array([not reason for reason in reasons])
    if not clear.any():
        raise FrameError(f"no frame of this filter is clear; the first: {reasons[0]}")
    # The best frame of all may be one that is left out.
    light = light.relative_to(np.argmax(clear))
    for k, scale, share, reason in zip(looks, light.scales, light.light, reasons, strict=True):
        numbers[k] |= {"scale": float(scale), "light": float(share), "reason": reason}
    return [k for k in looks if not numbers[k]["reason"]], light.scales[clear]


def _widths(frames):
    """FWHM of frames in arcsec, where unknown the usual one; None if none is known."""
    widths = np.array([frame.fwhm for frame in frames])
    known = np.isfinite(widths)
    return np.where(known, widths, np.median(widths[known])) if known.any() else None


def _weights(frames, sigma, scale):
    """Inverse variance of a pixel of the grid, for frames with the noise sigma after scaling."""
    area = np.array([(scale / frame.scale) ** 2 for frame in frames])
    return 1 / (sigma**2 * area * coarse_loss(area))
