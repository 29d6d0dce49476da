"""How good the calibration frames of a night are, and the masters that they make."""

import math

import numpy as np

from .camera import camera_night
from .darks import TEMPERATURE_LIMIT
from .errors import FrameError
from .levels import robust_level, saturation_level
from .listing import inventory
from .masters import MEAN_CLIP
from .matching import plan_masters
from .noiselaw import HALVES, MasterNoise, frame_noise, master_noise, noise_factor
from .pairs import count_step, sample_frame
from .rows import open_rows
from .screening import BRIGHT, DIM, frame_statistics, screen_frames
from .tables import number_table

__all__ = ["MasterNoise", "calibration_quality", "frame_noise", "master_noise", "noise_factor"]

#: Light in the darkest part of a flat, relative to the brightest, below which it is uneven.
EVEN = 0.5
#: Fewer frames than these get a remark.
FEW = 5
#: What noise against expectation may be, of a master and of a single frame.
MASTER_LIMITS, FRAME_LIMITS = (0.95, 1.05), (0.9, 1.1)
#: Pixels of a frame that are looked at.
PIXELS = 150_000
#: Clip of flats, where the masters have one.
FLAT_CLIP = 3.0

_COLUMNS = {
    "file": str, "master": bool, "kind": str, "filter": str, "exptime": float, "setup": str,
    "frames": int, "level": float, "noise": float, "expected": float, "ratio": float,
    "pattern": float, "saturated": float, "temperature": float, "remarks": str,
}  # fmt: skip
_MEASURED = ("gain", "read_noise_adu")


def calibration_quality(night, *, camera=None, frames=None):
    """Tell level and noise of the calibration frames of a night, and of the masters from them.

    Frames are sampled (150 000 pixels each). Nothing is written; no master need be there.

    Parameters
    ----------
    night : Night
        The night.
    camera : astropy.table.Table, optional
        From `datared.camera.camera_night`, whose gain and read noise make the noise that is
        expected of a frame; it is measured where it is not given.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    astropy.table.Table
        For each master one row for each of its frames, then one of the master: ``file`` (of a
        master the name that it gets), ``master`` (bool), ``kind``, ``filter``, ``exptime`` (s),
        ``setup``, ``frames`` (their number), ``level`` (ADU: of bias frames as it is, of
        others above the bias), ``noise``, ``expected`` and ``ratio`` of the two, ``pattern`` (of
        masters, see `MasterNoise`), ``saturated`` (part of the pixels), ``temperature`` (deg C)
        and ``remarks``. Noise and pattern are in ADU; those of a master flat, which has the
        level 1, in units of it. Frames that cannot be used come last, with the reason.
    """
    table = inventory(night) if frames is None else frames
    camera = camera_night(night, frames=table) if camera is None else camera
    rows = {str(row["path"]): row for row in table}
    names = {str(row["file"]): row for row in table}
    calibration = np.isin(table["kind"], ["bias", "dark", "darkflat", "flat"])
    faults = [(row, str(row["problem"])) for row in table[calibration] if row["problem"]]
    lines, biases = [], {}
    for plan in plan_masters(table):
        faults += [(names[file], reason) for file, reason in plan.rejected]
        own = []
        for path in plan.paths:
            try:
                own.append(_look(rows[path], night.camera))
            except FrameError as error:
                faults.append((rows[path], str(error)))
        if own and plan.kind == "bias":
            looks = [_statistics(one, one["pixels"], "bias") for one in own]
            reasons = screen_frames(looks).reasons
            good = [one["pixels"] for one, why in zip(own, reasons, strict=True) if not why]
            if good:
                biases[plan.setup] = np.mean(good, axis=0)
        if own:
            known = camera[(camera["setup"] == plan.setup) & (camera["filter"] == "all")]
            lines += _group(plan, own, biases.get(plan.setup), known, night.reduction.method)
    for row, reason in faults:
        numbers = (*[math.nan] * 6, float(row["temperature"]))
        lines.append((*_names(row, str(row["filter"])), 1, *numbers, f"not used: {reason}"))
    return number_table(lines, _COLUMNS)


def _look(row, camera):
    """Read a sample of a frame: its pixels, raw and without overscan, and their step."""
    path = row["path"]
    raw = sample_frame(path, camera=camera, raw=True, pixels=PIXELS)
    return {
        "row": row,
        "raw": raw,
        "pixels": sample_frame(path, camera=camera, pixels=PIXELS),
        "limit": saturation_level(open_rows(path), camera=camera) or math.inf,
        "step": count_step(raw),
    }


def _names(row, name):
    """Give the first columns of the row of a frame."""
    return str(row["file"]), False, str(row["kind"]), name, float(row["exptime"]), str(row["setup"])


def _group(plan, own, bias, known, method):
    """Rows of the frames of a master, and of the master."""
    kind, n, step = plan.kind, len(own), own[0]["step"]
    pixels = [one["pixels"] - (0 if kind == "bias" or bias is None else bias) for one in own]
    looks = [_statistics(one, image, kind) for one, image in zip(own, pixels, strict=True)]
    levels = np.array([robust_level(image) for image in pixels])
    limits = levels + [one["limit"] - look.raw_level for one, look in zip(own, looks, strict=True)]
    reasons = screen_frames(looks).reasons
    good = [i for i in range(n) if not reasons[i]]
    options = {"saturation": float(min(limits)), "step": step}
    noises, expected = np.full(n, math.nan), np.full(n, math.nan)
    noises[good] = frame_noise([pixels[i] for i in good], relative=kind == "flat", **options)
    noises *= levels if kind == "flat" else 1
    gain, noise = (float(known[name][0]) if len(known) else math.nan for name in _MEASURED)
    if kind == "bias":
        levels = np.array([look.raw_level for look in looks])
        expected[:] = math.hypot(noise, step / math.sqrt(12))
    elif bias is not None:
        # The electrons of dark current are as noisy as those of light.
        expected = np.sqrt(noise**2 + step**2 / 12 + np.maximum(levels, 0) / gain)
    temperatures = np.array([float(one["row"]["temperature"]) for one in own])
    lines = []
    for i, (one, look) in enumerate(zip(own, looks, strict=True)):
        ratio = float(noises[i] / expected[i])
        remarks = [f"left out: {reasons[i]}"] if reasons[i] else []
        remarks += _odd(temperatures, i, "temperature", "deg C", TEMPERATURE_LIMIT)
        if kind == "flat":
            remarks += _flat_remarks(look, levels[i], limits[i])
        else:
            remarks += _odd(levels, i, "level", "ADU", max(np.nan_to_num(noises[i]) / 2, step))
        if not FRAME_LIMITS[0] <= np.nan_to_num(ratio, nan=1.0) <= FRAME_LIMITS[1]:
            remarks.append(f"noise is {ratio:.2f} x what gain and read noise promise")
        numbers = (levels[i], noises[i], expected[i], ratio, math.nan, look.saturated)
        names = _names(one["row"], plan.filter)
        lines.append((*names, 1, *numbers, temperatures[i], "; ".join(remarks)))
    clip = FLAT_CLIP if kind == "flat" else MEAN_CLIP if method == "mean" else None
    master = master_noise(
        [pixels[i] for i in good], method=method, clip=clip, flat=kind == "flat", **options
    )
    remarks = ["no bias: the level includes it"] * (bias is None and kind != "bias")
    remarks += _master_remarks(master, levels[good], flat=kind == "flat")
    level = 1.0 if kind == "flat" else float(np.median(levels))
    numbers = (level, master.noise, master.expected, master.ratio, master.pattern, math.nan)
    names = (f"{plan.name}.fits", True, kind, plan.filter, plan.exptime, plan.setup)
    return [*lines, (*names, len(good), *numbers, plan.temperature, "; ".join(remarks))]


def _statistics(one, image, kind):
    """Reduce a frame to what tells whether it can be used."""
    known = one["limit"] if math.isfinite(one["limit"]) else None
    name = str(one["row"]["file"])
    return frame_statistics(image, name=name, kind=kind, raw=one["raw"], saturation=known)


def _flat_remarks(look, level, limit):
    """Say what is wrong with the light on a flat."""
    remarks = []
    raw_limit = math.inf if look.saturation is None else look.saturation
    if look.raw_level > BRIGHT * raw_limit:
        part, most = 100 * look.raw_level / raw_limit, 100 * BRIGHT
        remarks.append(f"bright: {part:.0f} % of saturation ({most:.0f} % is the most)")
    if level < DIM * limit < math.inf:
        part, least = 100 * level / limit, 100 * DIM
        remarks.append(f"dim: {part:.1f} % of saturation ({least:.0f} % is the least)")
    low, high = np.nanpercentile(look.boxes, [2, 98])
    if low < EVEN * high:
        remarks.append(f"uneven: the darkest part has {100 * low / high:.0f} % of the most light")
    return remarks


def _odd(values, i, name, unit, least):
    """Say that a value differs from those of its siblings."""
    if not np.isfinite(values).sum() > 2 or not np.isfinite(values[i]):
        return []
    middle = np.nanmedian(values)
    scatter = 1.4826 * np.nanmedian(np.abs(values - middle))
    if abs(values[i] - middle) <= max(5 * scatter, np.nan_to_num(least)):
        return []
    return [f"{name} is {values[i] - middle:+.1f} {unit} from that of its siblings"]


def _master_remarks(master, levels, *, flat):
    """Say how a master compares with what its frames promise."""
    remarks, n = [], len(levels)
    if n < FEW:
        remarks.append(f"only {n} frame{'s' * (n != 1)} ({FEW} or more are better)")
    if flat and n and levels.max() > 2 * levels.min():
        remarks.append(f"levels from {levels.min():.0f} to {levels.max():.0f} ADU")
    if not math.isfinite(master.ratio):
        return [*remarks, f"noise not checked ({HALVES} frames are needed)"]
    low, high = MASTER_LIMITS
    if master.ratio > high + 3 * master.ratio_err:
        text = "a frame is noisier than the others, or they have noise in common"
        remarks.append(f"noise is {master.ratio:.2f} x what {n} frames promise: {text}")
    elif master.ratio < low - 3 * master.ratio_err:
        remarks.append(f"noise is {master.ratio:.2f} x what {n} frames promise: frames are alike")
    else:
        remarks.append("noise as promised")
    return remarks
