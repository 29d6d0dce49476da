"""The masters of a night: which there are, made and named, and which frame gets which."""

import logging
import math
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData
from astropy.table import Table, vstack

from . import pixels
from .calibrated import CalibratedRows, MasterRows
from .calibration import master_bias, master_dark, master_flat
from .combine import combine
from .frames import ascii_text, inventory, read_product, select_lights, write_product
from .illumination import make_illumination
from .levels import robust_level, robust_noise
from .matching import match_frames, plan_masters, safe_name
from .products import Manifest, Task, atomic_path, run_tasks

__all__ = ["hot_name", "masters_night"]

log = logging.getLogger("datared.masters")

#: Light frames that are looked at for hot pixels when there are no darks.
HOT_FRAMES = 25
#: Values further than this from the median, in robust deviations, are left out of a mean.
MEAN_CLIP = 5.0


def masters_night(night, *, executor=None):
    """Make all masters of a night into ``work/masters`` and the table ``work/matching.ecsv``.

    Parameters
    ----------
    night : Night
        The night.
    executor : concurrent.futures.Executor, optional
        Where to combine; see `datared.products.run_tasks`.

    Returns
    -------
    astropy.table.Table
        One row for each master: ``file`` (relative to ``work``), ``kind``, ``filter``, ``exptime``,
        ``setup``, ``ncombine``, ``level``, ``noise``, ``n_flagged``, ``status``, ``reason``,
        ``why``; and one with the status ``left out`` for each calibration frame that was rejected.

    Raises
    ------
    ConfigError
        With ``reduction.strict``, before anything is written, if a light frame lacks a correction.
    """
    table = inventory(night)
    lights = select_lights(table, night)
    options = night.reduction
    wanted = {k: getattr(options, k) for k in ("use_bias", "use_dark", "use_flat")}
    wanted["allow_bias"] = options.scale_dark_with_bias
    match_frames(lights, plan_masters(table, **wanted), strict=options.strict, **wanted)
    manifest, lines, failed = Manifest(night.work), [], []
    for kinds in (("bias",), ("dark", "darkflat"), ("flat",)):
        # What cannot be made is not there for the frames that would have used it.
        plans = [p for p in plan_masters(table, failed=failed, **wanted) if p.kind in kinds]
        tasks = [_task(night, plan) for plan in plans]
        outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="masters")
        for plan, outcome in zip(plans, outcomes, strict=True):
            lines += [_line(night, outcome, plan), *_rejected(plan, outcome)]
            if outcome.status == "failed":
                failed.append(plan.name)
    plans = plan_masters(table, failed=failed, **wanted)
    matching = match_frames(lights, plans, strict=options.strict, **wanted)
    for text in sorted({remark for remark in matching["why"] if remark}):
        log.warning("%d light frames: %s", int(np.sum(matching["why"] == text)), text)
    hot = set()
    for task, setup in _hot_tasks(night, lights, matching):
        outcome = run_tasks([task], manifest=manifest, executor=executor, label="hot pixels")[0]
        lines.append(_line(night, outcome, None, setup=setup))
        hot.add(task.product)
    for path in (night.work / "masters").glob("hot_*.fits"):
        if path not in hot:  # Of an earlier run, with other frames.
            path.unlink()
    if options.illumination:
        lines += _illuminate(night, table, plans, wanted, matching, manifest, executor)
    flats = table[(table["kind"] == "flat") & (table["problem"] == "")]
    matching = vstack([matching, match_frames(flats, plans, **wanted)])
    with atomic_path(night.work / "matching.ecsv") as temporary:
        matching.write(temporary, format="ascii.ecsv")
    names = (
        "file kind filter exptime setup ncombine level noise n_flagged status reason why".split()
    )
    kinds = ("U", "U", "U", float, "U", int, float, float, int, "U", "U", "U")
    return Table(rows=lines, names=names, dtype=kinds)


def _task(night, plan):
    """Task that makes a planned master."""
    folder = night.work / "masters"
    darks = tuple(folder / f"{name}.fits" if name else None for name in plan.darks)
    bias = folder / f"{plan.bias}.fits" if plan.bias else None
    masters = {path for path in (bias, *darks) if path is not None}
    return Task(
        product=folder / f"{plan.name}.fits",
        inputs=(*(Path(path) for path in plan.paths), *sorted(masters)),
        parameters={
            "kind": plan.kind,
            "camera": night.camera,
            "exptime": plan.exptime,
            "bias": plan.bias,
            "darks": plan.darks,
            "scales": plan.scales,
            "method": night.reduction.method,
            "memory_limit": night.reduction.memory_limit,  # It decides what is looked at.
            "rejected": plan.rejected,
        },
        function=_make_master,
        args=(
            folder / f"{plan.name}.fits",
            plan,
            bias,
            darks,
            night.camera,
            {
                "method": night.reduction.method,
                "memory_limit": 1e6 * night.reduction.memory_limit,
            },
        ),
    )


def _make_master(product, plan, bias, darks, camera, options):
    """Make and write one master (in any process)."""
    # A mean is only as good as its clip; a median needs none, but for stars on twilight flats.
    clip = MEAN_CLIP if options["method"] == "mean" else None
    if plan.kind == "bias":
        master = master_bias(plan.paths, camera=camera, clip=clip, **options)
    elif plan.kind == "flat":
        known = {path: MasterRows(path) for path in {p for p in darks if p is not None}}
        own = [None if path is None else known[path] for path in darks]
        master = master_flat(
            plan.paths, bias=bias, dark=own, dark_scale=plan.scales, camera=camera, **options
        )
    else:
        master = master_dark(
            plan.paths, bias=bias, camera=camera, exptime=plan.exptime, clip=clip, **options
        )
    cards = {
        "MASTER": product.name,
        "SETUP": plan.setup,
        "FILTER": plan.filter,
        "EXPTIME": plan.exptime,
    }
    if plan.bias:
        cards["BIASFILE"] = f"{plan.bias}.fits"
    cards |= {f"INPUT{i + 1}": file[-68:] for i, file in enumerate(plan.files)}
    number = int(master.meta["NREJECT"])
    # In the header names are ASCII, and without their folder.
    files = {ascii_text(Path(p).name): f for p, f in zip(plan.paths, plan.files, strict=True)}
    found = [str(master.meta[f"REJECT{i + 1}"]).split(": ", 1) for i in range(number)]
    found = [[files.get(name, name), reason] for name, reason in found]
    for i, (file, reason) in enumerate(plan.rejected, number + 1):
        log.warning("%s rejected: %s: %s", plan.kind, file, reason)
        cards[f"REJECT{i}"] = f"{file}: {reason}"
    cards["NREJECT"] = (number + len(plan.rejected), "frames left out")
    write_product(master, product, header_cards=cards | {"KIND": plan.kind})
    return _numbers(master) | {"rejected": found}


def _illuminate(night, table, plans, wanted, matching, manifest, executor):
    """Correct each flat by the sky of all lights, also of other objects; rows of the masters.

    Where it is done the flat of the lights becomes the corrected one (in place); else ``why`` says
    why not.
    """
    lights = table[(table["kind"] == "light") & (table["problem"] == "")]
    match, folder = match_frames(lights, plans, **wanted), night.work / "masters"
    tasks, flats = [], [str(name) for name in sorted(set(matching["flat"])) if name]
    for name in flats:
        own = match["flat"] == name
        paths = tuple(Path(path) for path in lights["path"][own])
        bias = folder / f"{match['bias'][own][0]}.fits" if match["bias"][own][0] else None
        darks = tuple(folder / f"{dark}.fits" if dark else None for dark in match["dark"][own])
        scales = tuple(float(scale) for scale in match["dark_scale"][own])
        objects = tuple(str(name) for name in lights["object"][own])
        product, flat = folder / f"{name}_illum.fits", folder / f"{name}.fits"
        used = {path for path in (bias, *darks) if path is not None}
        parameters = {"kind": "illumination", "camera": night.camera, "scales": scales}
        parameters |= {"darks": list(map(str, match["dark"][own])), "objects": objects}
        args = (product, paths, flat, bias, darks, scales, night.camera, objects)
        tasks.append(Task(product, (*paths, flat, *sorted(used)), parameters, _make_flat, args))
    outcomes = run_tasks(tasks, manifest=manifest, executor=executor, label="illumination")
    rows = []
    for name, outcome in zip(flats, outcomes, strict=True):
        own = matching["flat"] == name
        plan = next(plan for plan in plans if plan.name == name)
        rows.append(_line(night, outcome, plan))
        if outcome.status == "failed":
            text = f"flat not corrected by the sky: {outcome.reason}"
            matching["why"] = [
                "; ".join(filter(None, (str(why), text if here else "")))
                for why, here in zip(matching["why"], own, strict=True)
            ]
        else:
            corrected = [
                f"{name}_illum" if here else str(old)
                for old, here in zip(matching["flat"], own, strict=True)
            ]
            matching["flat"] = corrected
    return rows


def _make_flat(product, paths, flat, bias, darks, scales, camera, objects):
    """Correct a flat by the sky of lights, and write it."""
    corrected = make_illumination(
        paths, flat=read_product(flat), bias=bias, dark=list(darks), dark_scale=list(scales),
        camera=camera, pointings=list(objects),
    )  # fmt: skip
    write_product(corrected, product, header_cards={"MASTER": product.name})
    return _numbers(corrected)


def _hot_tasks(night, lights, matching):
    """For each set-up whose lights have no dark: the task of finding hot pixels, and the set-up."""
    for setup in sorted(set(lights["setup"])):
        own = (lights["setup"] == setup) & (matching["dark"] == "")
        if np.count_nonzero(own) < 5:
            continue
        paths = np.array(lights["path"])[own]
        step = np.unique(np.linspace(0, len(paths) - 1, min(HOT_FRAMES, len(paths))).astype(int))
        product = night.work / "masters" / f"{hot_name(setup)}.fits"
        chosen = tuple(Path(path) for path in paths[step])
        parameters = {"kind": "hot", "camera": night.camera}
        args = (product, chosen, night.camera, str(setup))
        yield Task(product, chosen, parameters, _make_hot, args), str(setup)


def hot_name(setup):
    """Name the hot-pixel map of a set-up.

    Parameters
    ----------
    setup : str
        Set-up, as in the inventory.

    Returns
    -------
    str
        Name of the file, without ending.
    """
    return "hot_" + safe_name(str(setup))


def _make_hot(product, paths, camera, setup):
    """Find and write the hot pixels of light frames."""
    frames = [CalibratedRows(path, camera=camera) for path in paths]
    hot = pixels.hot_map_from_lights(frames)
    flags = pixels.HOT * hot.astype(np.uint16)
    ccd = CCDData(combine(frames).data, unit="adu", flags=flags, mask=hot)
    ccd.meta |= {"KIND": "hot", "NCOMBINE": len(frames), "SETUP": setup, "NHOT": int(hot.sum())}
    write_product(ccd, product)
    return _numbers(ccd)


def _numbers(master):
    """Give what the table of masters says about one."""
    return {
        "ncombine": master.meta["NCOMBINE"],
        "level": master.meta.get("FLATLVL", robust_level(master.data)),
        "noise": robust_noise(master.data),
        "n_flagged": int(np.count_nonzero(master.flags)),
    }


def _rejected(plan, outcome):
    """Rows of the frames that a master was made without."""
    found = [*map(tuple, outcome.result.get("rejected", ())), *plan.rejected]
    what = (plan.kind, plan.filter, plan.exptime, plan.setup, 0, math.nan, math.nan, 0)
    return [(file, *what, "left out", reason, "") for file, reason in found]


def _line(night, outcome, plan, *, setup=""):
    """Row of the table of masters."""
    file = outcome.product.relative_to(night.work).as_posix()
    result = {"ncombine": 0, "level": math.nan, "noise": math.nan, "n_flagged": 0}
    result |= {key: outcome.result[key] for key in result if key in outcome.result}
    if plan is None:
        what = ("hot", "", math.nan, setup)
    else:
        what = (plan.kind, plan.filter, plan.exptime, plan.setup)
    why = "" if plan is None else plan.why
    return (file, *what, *result.values(), outcome.status, outcome.reason, why)
