"""Dark current of a night's camera: from its darks to rates, doubling temperature, hot pixels.

The fits are in `datared.darkfits` and the counts in `datared.hotcounts`, whose names are known
here too.
"""

import logging
import math

import numpy as np
from astropy.table import Table

from .boxlevels import smooth_level
from .calibrated import CalibratedRows
from .correction import camera_noise
from .darkfits import DarkCurrent, DarkTemperature, dark_current, dark_temperature
from .errors import FrameError
from .hotcounts import HotPixels, hot_pixels
from .listing import first_image, inventory, open_quietly
from .maps import hot_map
from .pairs import sample_frame
from .tables import number_table

__all__ = [
    "DarkCurrent",
    "DarkTemperature",
    "HotPixels",
    "dark_current",
    "dark_frames",
    "dark_levels",
    "dark_night",
    "dark_temperature",
    "hot_pixels",
]

log = logging.getLogger("datared.darkcurrent")

#: Notes of frames without a level; the first are in no table.
UNREADABLE, SATURATED, EMPTY = "cannot be read", "saturated", "no pixel can be used"

#: Most frames of one kind that make the reference: bias frames, and the longest, warmest darks.
MOST_BIASES, MOST_DARKS = 16, 5
#: Side (px) of the boxes of which the quiet half is measured.
BOX = 32
#: Values further than this many deviations from the level are left out (particles).
CLIP = 5.0
#: A frame with more than this part of its pixels saturated has no level.
SATURATED_PART = 0.1
#: Temperatures (deg C) that differ by more are parted; times (s) likewise.
SAME_TEMPERATURE, SAME_TIME = 1.0, 0.005


def dark_levels(frames, *, zero=None, reference=None):
    """Levels of darks, in pixels that are the same in all of them.

    A median over a whole frame does not grow in proportion to time where an amplifier glows or many
    pixels are warm. So the pixels are chosen once, by the reference: no hot pixel, and the
    quiet half of the boxes of 32 pixels, without the brightest and faintest quarter. The level is
    the mean over them, without particles (beyond 5 deviations).

    Parameters
    ----------
    frames : iterable of array-like, each of shape (ny, nx)
        Darks and bias frames in ADU, of one set-up.
    zero : array-like of shape (ny, nx), optional
        What is fixed in all of them, such as the mean bias; it is subtracted.
    reference : array-like of shape (ny, nx), optional
        Mean or median of the longest and warmest darks, from which ``zero`` was not subtracted; by
        default the first frame.

    Returns
    -------
    levels, errors : numpy.ndarray of float, shape (n,)
        ADU above ``zero``, and the standard deviation that the noise of the pixels makes.

    Raises
    ------
    FrameError
        If no pixel can be used, or the frames differ in shape.
    """
    levels, chosen = [], None
    fixed = np.float32(0) if zero is None else np.asarray(zero, np.float32)
    for frame in frames:
        data = np.asarray(getattr(frame, "data", frame), np.float32)
        if chosen is None:
            first = data if reference is None else np.asarray(reference, np.float32)
            chosen = _quiet_pixels(first - fixed)
        if data.shape != chosen.shape:
            raise FrameError(
                f"darks have one shape, these have {chosen.shape} and {data.shape}: sort them."
            )
        levels.append(_level((data - fixed)[chosen]))
    levels, errors = np.array(levels, float).reshape(-1, 2).T
    return levels, errors


def dark_frames(night, *, frames=None):
    """Measure the levels of all darks and bias frames of a night.

    Frames of more than 1 megapixel are sampled by bands of rows. Nothing is written.

    Parameters
    ----------
    night : Night
        The night.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    astropy.table.Table
        One row for each frame that can be read: ``file``, ``path``, ``kind`` (bias or dark),
        ``setup``, ``exptime`` (s), ``temperature`` (deg C; NaN where not known), ``level`` and
        ``level_err`` (ADU above the mean bias of its set-up, see `dark_levels`) and ``note``: why a
        frame has no level, such as "saturated". Without a dark that can be used no frame has one.
    """
    table = inventory(night) if frames is None else frames
    table = table[(table["problem"] == "") & np.isin(table["kind"], ["bias", "dark", "darkflat"])]
    table["kind"] = np.where(table["kind"] == "bias", "bias", "dark")
    table["exptime"] = np.where(table["kind"] == "bias", 0.0, table["exptime"])
    lines = []
    for setup in sorted(set(table["setup"])):
        own = table[table["setup"] == setup]
        if np.any(own["kind"] == "dark"):
            lines += _measured(own, night.camera)
    names = "file path kind setup exptime temperature level level_err note".split()
    kinds = ("U", "U", "U", "U", float, float, float, float, "U")
    return Table(rows=lines, names=names, dtype=kinds)


def dark_night(night, *, frames=None):
    """Dark current and hot pixels of a night's camera, for each temperature of its darks.

    Parameters
    ----------
    night : Night
        The night. Nothing is written.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    astropy.table.Table
        One row for each set-up and temperature (parted by gaps of more than 1 deg C): ``setup``,
        ``temperature`` (mean of the darks, deg C), ``n_bias``, ``n_dark``, ``exptimes`` (s),
        ``rate`` and ``rate_err`` (ADU/s), ``electrons`` and ``electrons_err`` (e-/s, by the
        configured gain), ``offset`` and ``offset_err`` (ADU above the mean bias), ``chi2``,
        ``hot_share`` (of the pixels, above ``hot_limit`` in e-/s, ADU/s without a gain),
        ``particle_share`` (of the pixels of a dark, NaN with one dark) and ``note``, which names
        the frames that could be read and were left out. Give ``temperature``, ``rate`` and
        ``rate_err`` to `dark_temperature`.
    """
    frames = dark_frames(night, frames=frames)
    lines = []
    for setup in sorted(set(frames["setup"])):
        own = frames[frames["setup"] == setup]
        groups = _temperature_groups(own["temperature"])
        for group in groups:
            if np.any(own["kind"][group] == "dark"):
                lines.append((setup, *_group_line(own, group, night.camera)))
    names = (
        "setup temperature n_bias n_dark exptimes rate rate_err electrons electrons_err offset "
        "offset_err chi2 hot_share hot_limit particle_share note"
    ).split()
    kinds = ("U", float, int, int, "U", *[float] * 10, "U")
    return number_table(lines, dict(zip(names, kinds, strict=True)))


def _measured(rows, camera):
    """Rows of `dark_frames` of one set-up."""
    notes = np.array([_trouble(row, camera) for row in rows], dtype=object)
    good = rows[notes == ""]
    biases, darks = good[good["kind"] == "bias"], good[good["kind"] == "dark"]
    fixed = biases[_spread(len(biases), MOST_BIASES)]
    if not len(biases):  # Then what the shortest darks have in common is the best there is.
        fixed = darks[darks["exptime"] - np.min(darks["exptime"], initial=np.inf) <= SAME_TIME]
        fixed = fixed[:MOST_DARKS]
    level = {}
    if len(darks):
        zero = np.mean(_samples(fixed, camera), axis=0, dtype=np.float32)
        reference = np.median(_samples(_longest(darks), camera), axis=0)
        frames = (_samples([row], camera)[0] for row in good)  # One in memory at a time.
        values, errors = dark_levels(frames, zero=zero, reference=reference)
        # A mean takes a part of the noise of its own frames away; a single one, all of it.
        own = np.isin(good["path"], fixed["path"])
        if len(fixed) > 1:
            errors[own] /= math.sqrt(1 - 1 / len(fixed))
        elif not own.all():
            errors[own] = np.min(errors[~own])
        level = dict(zip(good["path"], zip(values, errors, strict=True), strict=True))
        notes[notes == ""] = np.where(np.isfinite(values), "", EMPTY)
    names = ("file", "path", "kind", "setup")
    return [
        (*(str(row[name]) for name in names), row["exptime"], row["temperature"],
         *level.get(row["path"], (math.nan, math.nan)), note)
        for row, note in zip(rows, notes, strict=True)
        if note != UNREADABLE
    ]  # fmt: skip


def _trouble(row, camera):
    """Why a frame has no level; an empty text where it has one. What cannot be read is logged."""
    try:
        limit = CalibratedRows(row["path"], camera=camera).saturation
        raw = sample_frame(row["path"], camera=camera, raw=True)
    except FrameError as error:
        log.warning("%s: not used to measure the dark current: %s", row["file"], error)
        return UNREADABLE
    full = limit is not None and np.mean(raw >= limit) > SATURATED_PART
    return SATURATED if full else ""


def _longest(darks):
    """Of the longest darks those of the highest temperature, as far as they are alike."""
    warm = np.nan_to_num(darks["temperature"], nan=-1000.0)  # Those go together.
    last = np.lexsort((warm, darks["exptime"]))[::-1]
    longest = [i for i in last if darks["exptime"][last[0]] - darks["exptime"][i] <= SAME_TIME]
    longest = [i for i in longest if not warm[longest[0]] - warm[i] > SAME_TEMPERATURE]
    return darks[longest[:MOST_DARKS]]


def _group_line(rows, group, camera):
    """Row of `dark_night`, from the temperature on."""
    own, notes = rows[group], []
    left = [f"{row['file']} ({row['note']})" for row in own if row["note"]]
    if left:
        notes.append(f"left out: {', '.join(left)}")
    every = own[own["kind"] == "dark"]
    rows, own = rows[rows["note"] == ""], own[own["note"] == ""]
    darks, biases = own[own["kind"] == "dark"], own[own["kind"] == "bias"]
    # All frames of a group have a temperature, or none has.
    celsius = float(np.mean((darks if len(darks) else every)["temperature"]))
    if not len(darks):
        return celsius, len(biases), 0, "", *[math.nan] * 10, "; ".join(notes)
    if not len(biases) and np.ptp(darks["exptime"]) <= SAME_TIME:
        biases = rows[rows["kind"] == "bias"]
        notes += ["bias frames of another temperature"] if len(biases) else []
    times, levels, errors = (
        np.concatenate([darks[name], biases[name]]) for name in ("exptime", "level", "level_err")
    )
    with open_quietly(darks["path"][0]) as hdus:
        gain = camera_noise(camera, first_image(hdus).header)[0]
    numbers = [math.nan] * 7
    if np.ptp(times) > SAME_TIME:
        fit = dark_current(times, levels, errors=errors, gain=gain)
        numbers = [fit.rate, fit.rate_err, fit.electrons, fit.electrons_err]
        numbers += [fit.offset, fit.offset_err, fit.chi2]
        notes.append(fit.note)
    else:
        notes.append("one exposure time and no bias frames: the dark current is not known")
    longest = darks[np.max(darks["exptime"]) - darks["exptime"] <= SAME_TIME][:MOST_DARKS]
    hot = hot_pixels(
        _samples(longest, camera), exptime=float(np.max(darks["exptime"])), gain=gain or 1.0
    )
    particles = math.nan
    if hot.n_particles is not None:
        particles = hot.n_particles / (hot.n_pixels * hot.n_darks)
    seconds = ", ".join(f"{time:g}" for time in np.unique(np.round(darks["exptime"], 2)))
    return (
        celsius,
        len(biases),
        len(darks),
        seconds,
        *numbers,
        len(hot.rates) / hot.n_pixels,
        hot.limit,
        particles,
        "; ".join(note for note in notes if note),
    )


def _quiet_pixels(image):
    """Pixels that are not hot, in the quiet half of the boxes."""
    good = np.isfinite(image) & ~hot_map(image, box=BOX)
    ny, nx = (max(1, round(size / BOX)) for size in image.shape)
    level = smooth_level(image, box=BOX)
    rows = np.linspace(0, image.shape[0], ny + 1).astype(int)
    columns = np.linspace(0, image.shape[1], nx + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(level, rows[:-1], axis=0), columns[:-1], axis=1)
    means = sums / np.outer(np.diff(rows), np.diff(columns))
    low, high = np.quantile(means, [0.25, 0.75])
    quiet = (means >= low) & (means <= high)
    good &= np.repeat(np.repeat(quiet, np.diff(rows), axis=0), np.diff(columns), axis=1)
    if not good.any():
        raise FrameError("no pixel of these darks can be used: they are hot or not finite.")
    return good


def _level(values):
    """Mean without particles, and its standard deviation."""
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan
    middle = np.median(values)
    # Whole counts make the median deviation coarse; half a step is the least.
    noise = max(1.4826 * float(np.median(np.abs(values - middle))), 0.5)
    kept = values[np.abs(values - middle) <= CLIP * noise]
    deviation = max(float(np.std(kept, dtype=float)), 1e-6)
    return float(np.mean(kept, dtype=float)), deviation / math.sqrt(kept.size)


def _samples(rows, camera):
    """Read samples of frames."""
    return [sample_frame(row["path"], camera=camera) for row in rows]


def _spread(number, most):
    """Give the indices of at most so many frames, spread over the list."""
    return np.unique(np.linspace(0, max(number - 1, 0), min(most, number)).astype(int))


def _temperature_groups(temperatures):
    """Group frames of like temperature, the coldest first; those without one go last."""
    temperatures = np.asarray(temperatures, float)
    known = [i for i in np.argsort(temperatures, kind="stable") if np.isfinite(temperatures[i])]
    unknown = [i for i in range(len(temperatures)) if not np.isfinite(temperatures[i])]
    groups = []
    for i in known:
        if not groups or temperatures[i] - temperatures[groups[-1][-1]] > SAME_TEMPERATURE:
            groups.append([])
        groups[-1].append(i)
    return groups + ([unknown] if unknown else [])
