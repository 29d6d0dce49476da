"""Calibrate light frames: overscan, bias, dark and flat, with flags and, if asked for, errors."""

import functools
import logging
import math
import warnings
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table

from . import pixels
from .calibrated import MasterRows, open_master
from .calibration import master_bias, master_dark, master_flat
from .correction import camera_noise, check_dark, clean, correct, to_electrons
from .errors import ConfigError, DataredWarning, FrameError
from .frames import (
    inventory,
    product_name,
    read_frame,
    read_product,
    select_lights,
    write_product,
)
from .hotpixels import subtract_hot
from .levels import robust_statistics
from .lightcards import light_cards
from .masters import hot_name
from .matching import choose_dark
from .overscan import Regions, find_regions, trim_frame
from .products import Manifest, Task, run_tasks

__all__ = [
    "choose_dark",
    "master_bias",
    "master_dark",
    "master_flat",
    "reduce_frame",
    "reduce_night",
]

log = logging.getLogger("datared.reduction")


def reduce_frame(
    ccd,
    *,
    bias=None,
    dark=None,
    dark_scale=1.0,
    flat=None,
    camera=None,
    bad_pixels=None,
    uncertainty=False,
    cosmic_rays="",
    repair="mask",
    electrons=False,
    name="frame",
):
    r"""Calibrate one raw frame.

    .. math:: S' = \frac{S - B - s D}{F}

    B is the master bias, D the master dark without bias, s the ratio of exposure times, F the
    master flat with median 1. Overscan and borders go first. What is missing is left out. For the
    errors see `datared.correction.correct`.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Raw frame as `datared.frames.read_frame` gives it: float32, ADU, flags. It is not changed.
    bias, dark, flat : astropy.nddata.CCDData, optional
        Masters, of the shape of the trimmed frame.
    dark_scale : float
        s, the exposure time of the frame over that of the dark.
    camera : Camera, optional
        Overscan and trim sections; gain (e-/ADU) and read noise (e-) for the errors.
    bad_pixels : array-like of uint16, optional
        Further flags, of the shape of the trimmed frame.
    uncertainty : bool
        Also give the standard deviation of each pixel. It needs gain and read noise.
    cosmic_rays : {"", "laplacian", "median"}
        How to find cosmic rays after the flat (see `datared.cosmics`); by default they are not
        looked for. It needs gain and read noise.
    repair : {"mask", "gaussian", "subtract"}
        Leave bad pixels as they are, or fill them from their neighbours. Their flags stay. For
        ``subtract``, which needs other frames, see `datared.hotpixels`; here it is like ``mask``.
    electrons : bool
        Multiply by the gain. Where it is not known the frame stays in ADU, with a warning.
    name : str
        What to call the frame in messages.

    Returns
    -------
    astropy.nddata.CCDData
        float32, ADU or electrons. Flags of frame and masters are joined; pixels where the flat is
        0.05 or less are NaN. Cards OVERSCOR, BIASCOR, DARKCOR, DARKSCAL, FLATCOR, GAINCOR, and
        FLATNOIS (relative noise of a pixel of the master flat) where the flat has it.

    Raises
    ------
    FrameError
        If the frame was calibrated already, a master has another shape, or cosmic rays are wanted
        and the noise is not known.

    Warns
    -----
    DataredWarning
        If a dark that contains the bias is scaled, with what that leaves in the frame; if errors
        or electrons are wanted but gain or read noise are not known.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> raw = CCDData(np.full((4, 4), 700, np.float32), unit="adu")
    >>> bias = CCDData(np.full((4, 4), 500, np.float32), unit="adu", meta={"KIND": "bias"})
    >>> float(reduce_frame(raw, bias=bias).data[0, 0])
    200.0
    """
    return _reduced(
        ccd,
        bias=bias,
        dark=dark,
        dark_scale=dark_scale,
        flat=flat,
        camera=camera,
        bad_pixels=None if bad_pixels is None else np.asarray(bad_pixels, np.uint16),
        uncertainty=uncertainty,
        cosmic_rays=cosmic_rays,
        repair=repair,
        electrons=electrons,
        name=name,
        in_place=False,
    )


def _reduced(
    ccd,
    *,
    bias,
    dark,
    dark_scale,
    flat,
    camera,
    bad_pixels,
    uncertainty,
    cosmic_rays,
    repair,
    electrons,
    name,
    in_place,
):
    """Do what `reduce_frame` does, with the pixels of the given frame if it may be changed."""
    for card in ("BIASCOR", "DARKCOR", "FLATCOR", "GAINCOR"):
        if ccd.meta.get(card):
            raise FrameError(f"{name} was calibrated already ({card} = T); start from the raw one.")
    regions = find_regions(ccd.meta, ccd.shape, camera=camera)
    trimmed = ccd
    if regions != Regions():
        trimmed, in_place = trim_frame(ccd, regions=regions), True
    masters = {
        kind: open_master(master, trimmed.shape, name=name)
        for kind, master in (("bias", bias), ("dark", dark), ("flat", flat))
    }
    if dark is not None:
        check_dark(masters["dark"], dark_scale, bias, name=name)
    gain, read_noise = camera_noise(camera, ccd.meta, bias=masters["bias"])
    noise = {}
    if uncertainty and None not in (gain, read_noise):
        noise = {"gain": gain, "read_noise": read_noise}
    elif uncertainty:
        warnings.warn(
            f"{name}: no uncertainty, because gain or read noise is not known; give gain and "
            "read_noise in the table [camera] of night.toml.",
            DataredWarning,
            stacklevel=3,
        )
    flags = _all_flags(trimmed, bad_pixels)
    data, flags, mask, sigma = correct(
        np.asarray(trimmed.data, np.float32),
        flags,
        **masters,
        dark_scale=dark_scale,
        **noise,
        in_place=in_place,
        name=name,
    )
    result = CCDData(
        data,
        unit=trimmed.unit,
        mask=mask,
        flags=flags,
        meta=trimmed.meta.copy(),
        wcs=trimmed.wcs,
        uncertainty=None if sigma is None else StdDevUncertainty(sigma, copy=False),
    )
    result.meta["BIASCOR"] = bias is not None
    result.meta["DARKCOR"] = dark is not None
    result.meta["DARKSCAL"] = float(dark_scale) if dark is not None else 0.0
    result.meta["FLATCOR"] = flat is not None
    if flat is not None and masters["flat"].meta.get("FLATNOIS"):
        result.meta["FLATNOIS"] = (masters["flat"].meta["FLATNOIS"], "noise of a pixel of the flat")
    options = {"gain": gain, "name": name}
    result = clean(result, read_noise=read_noise, cosmic_rays=cosmic_rays, repair=repair, **options)
    if electrons:
        to_electrons(result, **options)
    return result


def reduce_night(night, *, executor=None):
    """Calibrate the light frames of a night into ``work/reduced``.

    The masters are those that `datared.masters.masters_night` named in ``work/matching.ecsv``.

    Parameters
    ----------
    night : Night
        The night.
    executor : concurrent.futures.Executor, optional
        Where to work; see `datared.products.run_tasks`.

    Returns
    -------
    astropy.table.Table
        One row for each selected light frame: ``file``, ``product`` (relative to ``work``),
        ``filter``, ``exptime``, ``bias``, ``dark``, ``dark_match``, ``dark_scale``, ``flat``,
        ``level`` and ``noise`` (ADU), ``n_saturated``, ``n_flagged``, ``status``, ``reason``,
        ``why`` (remarks on what was missing).

    Raises
    ------
    ConfigError
        If the masters were not made before.
    """
    path = night.work / "matching.ecsv"
    if not path.is_file():
        raise ConfigError(
            f"there is no {path}: make the masters first (datared run --upto masters)"
        )
    matching = {
        str(row["file"]): dict(zip(row.colnames, row, strict=True))
        for row in Table.read(path, format="ascii.ecsv").filled("")
    }
    lights = select_lights(inventory(night), night)
    unknown = [str(file) for file in lights["file"] if str(file) not in matching]
    if unknown:
        raise ConfigError(f"{unknown[0]} is not in {path.name}: make the masters again")
    rows = [dict(zip(lights.colnames, map(_plain, light), strict=True)) for light in lights]
    tasks = [_task(night, row, matching[row["file"]]) for row in rows]
    outcomes = run_tasks(tasks, manifest=Manifest(night.work), executor=executor, label="reduced")
    lines = []
    for row, outcome in zip(rows, outcomes, strict=True):
        match, numbers = matching[row["file"]], outcome.result
        lines.append(
            {
                "file": row["file"],
                "product": outcome.product.relative_to(night.work).as_posix(),
                **{key: row[key] for key in ("filter", "exptime")},
                **{key: _plain(match[key]) for key in _CHOICES},
                **{key: _number(numbers.get(key)) for key in ("level", "noise")},
                **{key: int(numbers.get(key, 0)) for key in ("n_saturated", "n_flagged")},
                "status": outcome.status,
                "reason": outcome.reason,
                "why": str(match["why"]),
            }
        )
    if not lines:
        return Table(names=_COLUMNS, dtype=["U1"] * len(_COLUMNS))
    return Table(lines)


_OPTIONS = ("uncertainty", "cosmic_rays", "repair", "electrons")
_CHOICES = ("bias", "dark", "dark_match", "dark_scale", "flat")
_COLUMNS = (
    *("file", "product", "filter", "exptime", *_CHOICES, "level", "noise"),
    *("n_saturated", "n_flagged", "status", "reason", "why"),
)


def _task(night, row, match):
    """Task that calibrates one light."""
    folder = night.work / "masters"
    names = {kind: str(match[kind]) for kind in ("bias", "dark", "flat")}
    masters = {kind: folder / f"{name}.fits" for kind, name in names.items() if name}
    hot = folder / f"{hot_name(row['setup'])}.fits"
    if "dark" not in masters and hot.is_file():
        masters["hot"] = hot
    product = night.work / "reduced" / f"{product_name(row['file'])}.fits"
    options = {
        "dark_scale": float(match["dark_scale"]),
        **{key: getattr(night.reduction, key) for key in _OPTIONS},
    }
    return Task(
        product=product,
        inputs=(Path(row["path"]), *masters.values()),
        # Where the night lies does not matter, what is in the row does.
        parameters={
            "row": {key: value for key, value in row.items() if key != "path"},
            "masters": names,
            "camera": night.camera,
            **options,
        },
        function=_reduce,
        args=(product, row, masters, night.camera, options),
    )


def _reduce(product, row, masters, camera, options):
    """Read, calibrate and write one light (in any process)."""
    hot = read_product(masters["hot"]) if "hot" in masters else None
    bias = _loaded(masters.get("bias"), options)
    raw = read_frame(row["path"], camera=camera)
    ccd = _reduced(
        raw,
        bias=bias,
        dark=_loaded(masters.get("dark"), options),
        flat=masters.get("flat"),  # Of another filter at the next light: not worth the memory.
        camera=camera,
        bad_pixels=None if hot is None else hot.flags,
        name=row["file"],
        in_place=True,
        **options,
    )
    if hot is not None and options["repair"] == "subtract":
        subtract_hot(ccd, hot)
    gain, read_noise = camera_noise(camera, raw.meta, bias=bias)
    cards = light_cards(row, raw.meta, camera, 1.0 if ccd.meta.get("GAINCOR") else gain, read_noise)
    for kind, path in masters.items():
        cards[{"hot": "HOTFILE"}.get(kind, f"{kind.upper()}FILE")] = path.name
    write_product(ccd, product, header_cards=cards)
    level, noise = robust_statistics(ccd.data, mask=ccd.mask)
    return {
        "level": level,
        "noise": noise,
        "n_saturated": int(np.count_nonzero(ccd.flags & pixels.SATURATED)),
        "n_flagged": int(np.count_nonzero(ccd.flags)),
    }


def _loaded(path, options):
    """Bias or dark in memory; the two that were used last are kept for the next light."""
    if path is None:
        return None
    return _load(path, path.stat().st_mtime_ns, options["uncertainty"])


@functools.lru_cache(maxsize=2)
def _load(path, _changed, errors):
    """Read a master; a file that changed is read again."""
    return MasterRows(path).load(errors=errors)


def _all_flags(ccd, bad_pixels):
    """Give the flags of a frame, a mask without flags counting as dead, with further ones."""
    flags = ccd.flags
    if flags is None:
        flags = pixels.NONFINITE * (~np.isfinite(ccd.data)).astype(np.uint16)
        if ccd.mask is not None:
            flags |= pixels.DEAD * (np.asarray(ccd.mask, bool) & (flags == 0)).astype(np.uint16)
    flags = np.asarray(flags, np.uint16)
    return flags if bad_pixels is None else flags | bad_pixels


def _plain(value):
    """Python's own type of a table's cell."""
    return value.item() if hasattr(value, "item") else value


def _number(value):
    """Float, NaN for None."""
    return math.nan if value is None else float(value)
