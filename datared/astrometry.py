"""Astrometry: which point of the sky each pixel saw, from the stars in the frame.

A night is solved in three phases, each of files: the first look at every frame, the distortion
that its frames have in common, and the frames again with what is known now.
"""

import logging

from astropy.coordinates import SkyCoord
from astropy.table import Table

from datared.backends import keep_header, solve
from datared.distortion import Distortion, better, fit_distortion
from datared.errors import FrameError, SolveError
from datared.frames import read_product, write_product
from datared.headers import read_header
from datared.listing import inventory, product_name, select_lights
from datared.nightcatalogue import night_catalogue, read_stars, reference_stars
from datared.plates import Plate, read_plate, write_plate
from datared.products import Manifest, Outcome, Task, atomic_path, run_tasks
from datared.projection import from_plane, to_plane
from datared.residuals import frame_cards, frame_numbers, night_table, residual_table
from datared.solvefield import PROGRAM, find_program
from datared.solver import Solution, refine_frame, solve_frame
from datared.sources import detect

__all__ = ["Solution", "from_plane", "solve_frame", "solve_night", "to_plane"]

log = logging.getLogger("datared.astrometry")


def solve_night(night, *, executor=None):
    """Detect the stars of all calibrated lights of a night and find where each frame points.

    First each frame is looked at alone: its stars, and a plate solution by the solver of the night
    file, or the confirmed world coordinates that the frame brings (``work/detected``). Then the
    distortion that all frames of a set-up have in common is fitted to their stars
    (``work/distortion.ecsv``). Last, each frame gets the better of its own polynomial and of the
    night's distortion, by what they predict (`datared.distortion.better`), and frames without a
    solution are tried again with the night's distortion (``work/solved``, ``work/sources``). The
    result does not depend on the order of the work. A frame that is not solved stays out: it has a
    row with the reason, and no file in ``work/solved``.

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
        ``rms_arcsec``, ``worst_px`` (the star used that is farthest from its place), ``scale``
        (arcsec/px), ``rotation`` (deg), ``mirrored``, ``flipped`` (turned by more than 90 deg
        against the first frame: the mount crossed the meridian), ``order``, ``log_odds``, ``ra``,
        ``dec`` (deg, middle of the frame), ``jd_utc_mid``, ``fwhm`` (px), ``sky`` and ``noise``
        (ADU), ``fwhm_arcsec``, ``solver``, ``shared`` (has the night's distortion), ``pier``
        (side of the pier in the header) and ``warning``. ``meta`` has the same for the night:
        ``n_frames``, ``n_solved``, ``n_matched`` and ``rms_px`` (medians), ``worst`` (the file
        with the largest rms), ``catalogue`` (the file's name).

    Raises
    ------
    ConfigError
        If there is neither a catalogue nor a position to ask for one.
    DataredError
        If the catalogue cannot be read.
    SolveError
        If the solver of the night file is a program that is not installed.
    """
    lights = select_lights(inventory(night), night)
    names = [product_name(str(row["file"])) for row in lights]
    catalogue = night_catalogue(night, lights)
    manifest = Manifest(night.work)
    looks = _first_looks(night, names, catalogue, manifest, executor)
    distortions = _distortions(night, lights, looks, manifest, executor)
    outcomes = _final_solutions(night, names, catalogue, looks, distortions, manifest, executor)
    table = night_table(lights, outcomes)
    table.meta["catalogue"] = "" if catalogue is None else catalogue.name
    with atomic_path(night.work / "astrometry.ecsv") as temporary:
        table.write(temporary, format="ascii.ecsv")
    return table


def _known(night):
    """Collect what the night file says of where frames point."""
    astrometry, target = night.astrometry, night.target_coord
    return {
        "search_radius": float(astrometry.search_radius),
        "scale_tolerance": float(astrometry.scale_tolerance),
        "sip_order": astrometry.sip_order,
        "pixel_scale": night.camera.pixel_scale,
        "hint": None if target is None else [float(target.icrs.ra.deg), float(target.icrs.dec.deg)],
    }


def _present(*paths):
    """Those of some files that are there."""
    return tuple(path for path in paths if path is not None and path.is_file())


def _first_looks(night, names, catalogue, manifest, executor):
    """Look at each frame alone; return the outcomes."""
    astrometry = night.astrometry
    options = _known(night) | {
        "solver": astrometry.solver,
        "time_limit": float(astrometry.time_limit),
        "keep_wcs": astrometry.keep_wcs,
        "gain": night.camera.gain,
        "nsigma": float(night.photometry.threshold),
    }
    tasks = []
    for name in names:
        reduced = night.work / "reduced" / f"{name}.fits"
        product = night.work / "detected" / f"{name}.fits"
        tasks.append(
            Task(
                product=product,
                inputs=_present(reduced, catalogue),
                parameters=options,
                function=_look_at_file,
                args=(reduced, catalogue, product, options),
            )
        )
    if not all(_is_current(task, manifest) for task in tasks):
        # What no frame can do without is one message for the night.
        if astrometry.solver == PROGRAM:
            find_program()
        if catalogue is not None:
            read_stars(catalogue)
    for task in tasks if astrometry.solver != "catalogue" else ():
        name = manifest.name(task.product)
        if name in manifest.products and manifest.products[name]["result"].get("reason"):
            # The network, index files and the speed of this computer are no inputs that are
            # recorded: what failed because of them is tried again.
            del manifest.products[name]
    return run_tasks(tasks, manifest=manifest, executor=executor, label="detected")


def _is_current(task, manifest):
    """Whether the product of a task need not be made; without its inputs it cannot be."""
    try:
        return manifest.outcome(task, manifest.describe(task)) is not None
    except OSError:
        return True


def _look_at_file(reduced, catalogue, product, options):
    """Task: detect the stars of one calibrated frame and solve it alone."""
    plate = _look(reduced, catalogue, options)
    write_plate(plate, product)
    return {"reason": plate.reason, "shape": list(plate.shape)}


def _look(reduced, catalogue, options):
    """Return the plate of a frame; without a solution it has the reason."""
    if not reduced.is_file():
        return Plate(Table(), (0, 0), reason="there is no calibrated frame: see the stage reduced")
    try:
        ccd = read_product(reduced)
    except FrameError as error:
        return Plate(Table(), (0, 0), reason=str(error))
    # The card is there for frames in electrons, too (then it is 1).
    gain = ccd.meta.get("GAIN_E") or options["gain"]
    stars = detect(ccd, nsigma=options["nsigma"], gain=gain)
    try:
        solution = solve(
            stars,
            reference_stars(catalogue, ccd),
            solver=options["solver"],
            wcs=ccd.wcs if options["keep_wcs"] else None,
            time_limit=options["time_limit"],
            **_hints(ccd, reduced, options),
        )
    except SolveError as error:
        return Plate(stars, ccd.shape, reason=str(error))
    return Plate(stars, ccd.shape, solution)


def _hints(ccd, reduced, options):
    """Collect what is known of a frame before it is solved."""
    scale = options["pixel_scale"] or read_header(ccd.meta, path=str(reduced))["scale"]
    if not (scale > 0):
        raise SolveError("the pixel scale is not known: give [camera] pixel_scale in arcsec")
    pointing = [ccd.meta.get(key) for key in ("RA_DEG", "DEC_DEG")]
    place = options["hint"] if None in pointing else pointing
    return {
        "shape": ccd.shape,
        "center": None if place is None else SkyCoord(*place, unit="deg"),
        "scale": scale,
        **{name: options[name] for name in ("search_radius", "scale_tolerance", "sip_order")},
    }


def _distortions(night, lights, looks, manifest, executor):
    """Fit the distortion of each set-up; return the file for each frame, None where without."""
    setups = {}
    for number, (row, look) in enumerate(zip(lights, looks, strict=True)):
        if look.status != "failed" and not look.result.get("reason"):
            key = (*look.result["shape"], int(row["xbin"]), int(row["ybin"]))
            setups.setdefault(key, []).append(number)
    files = [None] * len(looks)
    most = max(map(len, setups.values()), default=0)
    tasks, members = [], []
    for (ny, nx, xbin, ybin), numbers in sorted(setups.items()):
        main = len(numbers) == most and not any(task.product.stem == "distortion" for task in tasks)
        name = "distortion" if main else f"distortion_{nx}x{ny}_bin{xbin}x{ybin}"
        product = night.work / f"{name}.ecsv"
        # The distortion of a single frame is its own.
        if not night.astrometry.night_distortion or len(numbers) < 2:
            continue
        paths = tuple(looks[number].product for number in numbers)
        options = {"order": night.astrometry.sip_order, "shape": [ny, nx]}
        args = (paths, product, options)
        tasks.append(Task(product, paths, options, _fit_files, args))
        members.append(numbers)
    for path in set(night.work.glob("distortion*.ecsv")) - {task.product for task in tasks}:
        path.unlink()  # Of an earlier run, with other frames or options.
    outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="distortion")
    for outcome, numbers in zip(outcomes, members, strict=True):
        for number in numbers if outcome.status != "failed" else ():
            files[number] = outcome.product
    # A frame without a solution is tried with what the frames of its shape have.
    shapes = {tuple(looks[n].result["shape"]): files[n] for n, file in enumerate(files) if file}
    return [
        file or shapes.get(tuple(look.result.get("shape", ())))
        for file, look in zip(files, looks, strict=True)
    ]


def _fit_files(paths, product, options):
    """Task: the distortion that the frames of a set-up have in common."""
    order = options["order"]
    fitted = fit_distortion(
        (read_plate(path).solution for path in paths),
        shape=tuple(options["shape"]),
        order=None if order is None else max(order, 1),
    )
    fitted.write(product)
    return {name: getattr(fitted, name) for name in ("order", "n_frames", "n_stars", "rms_px")}


def _final_solutions(night, names, catalogue, looks, distortions, manifest, executor):
    """Solve each frame with what is known of the night; return the outcomes."""
    options = _known(night) | {"max_rms": night.astrometry.max_rms}
    tasks = []
    for name, look, distortion in zip(names, looks, distortions, strict=True):
        reduced = night.work / "reduced" / f"{name}.fits"
        solved = night.work / "solved" / f"{name}.fits"
        listed = night.work / "sources" / f"{name}.ecsv"
        tasks.append(
            Task(
                product=solved,
                inputs=(look.product, *_present(reduced, catalogue, distortion)),
                parameters=options,
                function=_solve_file,
                args=(reduced, look.product, catalogue, distortion, solved, listed, options),
                extra=(listed,),
            )
        )
    outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="solved")
    return [
        # Of a frame that could not be looked at the first reason counts.
        Outcome(last.product, "failed", look.reason) if look.status == "failed" else last
        for look, last in zip(looks, outcomes, strict=True)
    ]


def _solve_file(reduced, detected, catalogue, distortion, solved, listed, options):
    """Task: the final solution of one frame; write its pixels with it and its list of stars."""
    plate = read_plate(detected)
    if plate.solution is None and (distortion is None or catalogue is None):
        raise SolveError(plate.reason)
    ccd = read_product(reduced)
    solution = _solution(plate, ccd, reduced, catalogue, distortion, options)
    if options["max_rms"] is not None and solution.rms_px > options["max_rms"]:
        raise SolveError(
            f"the residuals have an rms of {solution.rms_px:.2f} px, more than max_rms = "
            f"{options['max_rms']:g}: clouds, wind or bad focus, or max_rms is too strict"
        )
    ccd.wcs = solution.wcs
    stars = residual_table(plate.stars, solution)
    numbers = frame_numbers(stars, solution, ccd)
    with atomic_path(listed) as temporary:
        stars.write(temporary, format="ascii.ecsv")
    write_product(ccd, solved, header_cards=frame_cards(numbers))
    return numbers


def _solution(plate, ccd, reduced, catalogue, distortion, options):
    """Return the better of a frame's own solution and that with the night's distortion."""
    reference = reference_stars(catalogue, ccd)
    shared = None if distortion is None else Distortion.read(distortion)
    own = plate.solution
    if own is None:
        if shared.order == 1:
            raise SolveError(plate.reason)
        hints = _hints(ccd, reduced, options)
        own = solve_frame(plate.stars, reference, distortion=shared, **hints)
    elif shared is not None and reference is not None:
        try:
            other = refine_frame(
                plate.stars, reference, own.wcs, shape=ccd.shape, distortion=shared,
                solver=own.solver, tried=own.tried,
            )  # fmt: skip
        except SolveError as error:
            log.info("%s: not solved with the distortion of the night: %s", reduced.name, error)
        else:
            own = better(own, other)
    if own.solver == "header":
        own = keep_header(ccd.wcs, own, ccd.shape)
    return own
