"""What the calibration frames of a night tell about its camera: linearity, flats, suggestions."""

import itertools
import logging
import math
from dataclasses import replace

import numpy as np

from .calibration import master_bias, master_flat
from .camera import camera_night
from .errors import FrameError
from .flatratio import compare_flats
from .levels import saturation_level
from .linearity import Linearity, measure_linearity
from .listing import first_image, inventory, open_quietly
from .pairs import sample_frame
from .rows import open_rows
from .suggestions import suggest, trusted_level
from .tables import number_table

__all__ = ["flat_series", "flats_night", "linearity_night", "suggest_night"]

log = logging.getLogger("datared.camera")

#: Pixels of each frame that are read, of all flats together, and bias frames.
PIXELS, MOST_PIXELS, MOST_BIASES = 250_000, 16_000_000, 16
#: Pixels whose response differs from the median by less than this make the level of a flat.
ALIKE = 0.05
#: Their values further than this many deviations from the median are left out.
OUTLIER = 6.0
#: A full well above this part of the end of the numbers of the file is that end.
SAME_END = 0.98
#: Flats with a longer pause between them (days) are of two occasions.
PAUSE = 1 / 24

_KEY = ("setup", "filter", "light")
_SERIES = {
    "setup": str, "filter": str, "light": str, "file": str, "exptime": float, "time": float,
    "level": float, "error": float,
}  # fmt: skip
_LINEARITY = (
    "rate rate_err shutter shutter_err drift drift_err largest largest_err level_1 level_2 "
    "full_well full_well_err full_well_e turnover turnover_err saturation"
).split()
_FLATS = {
    "setup": str, "filter": str, "first": str, "second": str, "chi2": float, "largest": float,
    "significance": float, "spots": int, "x": float, "y": float, "change": float, "note": str,
}  # fmt: skip


def flat_series(night, *, frames=None):
    """Levels of a night's flats, for `datared.linearity.measure_linearity`.

    A level is the mean of the same pixels on all flats of a set-up, filter and light: those whose
    response is within 5 % of the median.

    Parameters
    ----------
    night : Night
        The night. Frames are sampled (250 000 pixels each at most). Nothing is written.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    astropy.table.Table
        One row for each flat: ``setup``, ``filter``, ``light`` (``panel``, ``dome``, ``sky``, or
        empty where the header does not tell), ``file``, ``exptime`` (s), ``time`` (Julian date,
        UTC, of mid-exposure), ``level`` (ADU above the bias) and ``error`` (of the light of the
        pixels, and of the offset, which scatters as that of the bias frames). For each set-up
        ``meta`` has a dictionary with ``zero`` (ADU of a raw bias frame), ``zero_err`` (of the mean
        bias) and ``end`` (ADU above the bias where the numbers of the file end; infinite where they
        do not). A set-up without bias frames has no row.
    """
    table = inventory(night) if frames is None else frames
    table = table[(table["problem"] == "") & np.isin(table["kind"], ["bias", "flat"])]
    blind, lines, meta = replace(night.camera, saturation=None), [], {}
    for setup in sorted(set(table["setup"][table["kind"] == "flat"])):
        own = table[table["setup"] == setup]
        flats, fixed = own[own["kind"] == "flat"], own[own["kind"] == "bias"][:MOST_BIASES]
        pixels = min(PIXELS, MOST_PIXELS // len(flats))
        read = list(_read(fixed, blind, pixels))
        if not read:
            continue
        biases, path = [image for _, image in read], read[0][0]["path"]
        bias = np.mean(biases, axis=0, dtype=np.float32)
        scatter = 0.0
        if len(biases) > 1:
            scatter = float(np.std([np.nanmean(one - bias) for one in biases], ddof=1))
        zero = float(np.nanmedian(sample_frame(path, camera=blind, raw=True, pixels=PIXELS)))
        end = _end(path)
        end = math.inf if end is None else end - zero
        meta[setup] = {"zero": zero, "zero_err": scatter / math.sqrt(len(biases)), "end": end}
        for key in sorted({(str(row["filter"]), str(row["flat_kind"])) for row in flats}):
            rows = flats[(flats["filter"] == key[0]) & (flats["flat_kind"] == key[1])]
            frames = [(row, image - bias) for row, image in _read(rows, blind, pixels)]
            for row, level, error in _levels(frames):
                line = (setup, *key, str(row["file"]), float(row["exptime"]))
                line += (float(row["jd_utc_mid"]), level, math.hypot(error, scatter))
                lines.append(line)
    result = number_table(lines, _SERIES)
    result.meta |= meta
    result["time"].info.format = ".6f"
    return result


def linearity_night(night, *, camera=None, frames=None):
    """Measure linearity, shutter and full well from the flats of a night.

    Flats of one set-up, filter and light go together. What the night file says of the saturation
    does not count: that is to be found.

    Parameters
    ----------
    night : Night
        The night. Nothing is written.
    camera : astropy.table.Table, optional
        From `datared.camera.camera_night`, for the gain; measured where it is not given.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    astropy.table.Table
        One row for each set-up, filter and light: ``setup``, ``filter``, ``light``, ``n_flat``,
        ``n_times`` (different exposure times), the numbers of `datared.linearity.Linearity` under
        their names (``rate`` to ``full_well_e``; NaN where not measured), ``turnover`` and
        ``turnover_err`` (from ``camera``: where the variance turns, the other sign of a full well),
        ``saturation`` (ADU of the raw frame from which on a pixel is not to be trusted, see
        `datared.suggestions.trusted_level`) and ``note``.
    """
    series = flat_series(night, frames=frames)
    camera = camera_night(night, frames=frames) if camera is None else camera
    lines = []
    for key in sorted(set(zip(*(series[name].tolist() for name in _KEY), strict=True))):
        same = [series[name] == value for name, value in zip(_KEY, key, strict=True)]
        rows = series[np.all(same, axis=0)]
        own = camera[camera["setup"] == key[0]]
        whole, meta = own[own["filter"] == "all"][0], series.meta[key[0]]
        result = _measure(rows, float(whole["gain"]))
        turn = own[own["filter"] == key[1]]["turnover", "turnover_err"][0]
        lines.append(_linearity_line(key, rows, result, turn, float(whole["converter"]), meta))
    kinds = dict.fromkeys(_KEY, str) | {"n_flat": int, "n_times": int}
    return number_table(lines, kinds | dict.fromkeys(_LINEARITY, float) | {"note": str})


def flats_night(night, *, frames=None):
    """Compare the master flats of one filter that were taken with different light, or later.

    Parameters
    ----------
    night : Night
        The night. Nothing is written.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    astropy.table.Table
        One row for the first flats of each two lights of a set-up and filter, and one for each two
        neighbouring occasions (with more than an hour between them) of one light: ``setup``,
        ``filter``, ``first`` and ``second`` (number, light and time), ``chi2`` (per degree of
        freedom, near 1 where they agree), ``largest`` (relative difference of a ninth of the frame
        from the mean) and its ``significance``, number of ``spots`` that differ, ``x``, ``y`` (px)
        and ``change`` (relative) of the surest, and ``note``.
        See `datared.flatratio.compare_flats`.
    """
    table = inventory(night) if frames is None else frames
    table = table[(table["problem"] == "") & np.isin(table["kind"], ["bias", "flat"])]
    lines = []
    for setup in sorted(set(table["setup"][table["kind"] == "flat"])):
        own, bias = table[table["setup"] == setup], None
        flats = own[own["kind"] == "flat"]
        for name in sorted(set(flats["filter"])):
            groups = _occasions(flats[flats["filter"] == name])
            if len(groups) < 2:
                continue
            paths = list(own["path"][own["kind"] == "bias"])
            bias = master_bias(paths, camera=night.camera) if bias is None and paths else bias
            pairs, masters = _partners([str(rows["flat_kind"][0]) for rows in groups]), {}
            for number, (i, j) in enumerate(pairs):
                for k in {i, j} - set(masters):
                    masters[k] = _master(groups[k], bias, night.camera)
                labels = (_label(groups[i]), _label(groups[j]))
                lines.append((setup, name, *labels, *_compared(masters[i], masters[j])))
                # A master that no later pair needs makes room for the next.
                later = set(itertools.chain(*pairs[number + 1 :]))
                masters = {k: master for k, master in masters.items() if k in later}
    return number_table(lines, _FLATS)


def suggest_night(night, *, camera=None, linearity=None, frames=None):
    """Lines for the table ``[camera]`` of a night file, from what its frames tell.

    Parameters
    ----------
    night : Night
        The night. Nothing is written.
    camera, linearity : astropy.table.Table, optional
        From `datared.camera.camera_night` and `linearity_night`; measured where not given.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    str
        See `datared.suggestions.suggest`. With several set-ups it is that of most light frames (of
        most frames, where there are no lights).
    """
    camera = camera_night(night, frames=frames) if camera is None else camera
    if linearity is None:
        linearity = linearity_night(night, camera=camera, frames=frames)
    table = inventory(night) if frames is None else frames
    table = table[table["problem"] == ""]
    lights = table[table["kind"] == "light"]
    setups = (lights if len(lights) else table)["setup"].tolist()
    setup = max(sorted(set(setups)), key=setups.count) if setups else ""
    header, end = {}, None
    if setup:
        path = table["path"][table["setup"] == setup][0]
        with open_quietly(path) as hdus:
            header = dict(first_image(hdus).header)
        end = _end(path)
    return suggest(
        camera, linearity=linearity, configured=night.camera, setup=setup, header=header, end=end
    )


def _end(path):
    """Raw level at which the numbers of a file end, whatever its header says of the saturation."""
    return saturation_level(open_rows(path), header={})


def _measure(rows, gain):
    """Linearity of one series; light of the sky changes by itself."""
    points = {"exptimes": rows["exptime"].data, "levels": rows["level"].data}
    if rows["light"][0] == "sky":
        return Linearity(**points, note="twilight: its light changes by itself")
    times = None if np.isnan(rows["time"]).any() else rows["time"].data
    return measure_linearity(*points.values(), errors=rows["error"].data, times=times, gain=gain)


def _linearity_line(key, rows, result, turn, converter, meta):
    """Row of `linearity_night`."""
    notes, full = [result.note] if result.note else [], result.full_well
    end = float(np.fmin(meta["end"], converter))
    if full > SAME_END * end:
        notes.append("the numbers of the file end there: the full well is higher")
    # A wrong bias looks like a shutter that is off.
    shutter_err = math.hypot(result.shutter_err, meta["zero_err"] / result.rate)
    ends = {"converter": converter, "full_well": full, "level_2": result.level_2}
    level, _ = trusted_level(**ends, turnover=turn[0], turnover_err=turn[1])
    level = min(level, end) + meta["zero"]
    result = replace(result, shutter_err=shutter_err)
    numbers = [getattr(result, name) for name in _LINEARITY[:-3]]
    times = np.unique(rows["exptime"]).size
    return (*key, len(rows), times, *numbers, *turn, level, "; ".join(notes))


def _read(rows, camera, pixels):
    """Read samples of frames, with their rows; one that has no numbers is left out."""
    for row in rows:
        try:
            image = sample_frame(row["path"], camera=camera, pixels=pixels)
        except FrameError as error:
            log.warning("%s: not used to measure the camera: %s", row["file"], error)
            continue
        if np.isfinite(image).any():
            yield row, image


def _levels(frames):
    """Rows of flats with their level (ADU) and its error, from the same pixels of all."""
    if not frames:
        return []
    medians = np.array([np.nanmedian(image) for _, image in frames])
    # Neither faint nor full: it tells which pixels are alike.
    model = frames[int(np.argmin(np.abs(medians - 0.4 * np.nanmax(medians))))][1]
    for part in (50, 25):
        # Of two amplifiers of different gain no pixel may have the median.
        level = np.nanpercentile(model, part)
        alike = np.abs(model - level) <= ALIKE * level
        if alike.mean() > ALIKE:
            break
    result = []
    for row, image in frames:
        values = image[alike & np.isfinite(image)].astype(float)
        middle = np.median(values) if values.size else math.nan
        width = 1.4826 * np.median(np.abs(values - middle)) if values.size else math.nan
        values = values[np.abs(values - middle) <= OUTLIER * max(width, 1.0)]
        error = np.std(values) / math.sqrt(max(values.size, 1))
        result.append((row, float(np.mean(values)) if values.size else math.nan, float(error)))
    return result


def _occasions(rows):
    """Flats of one filter, parted by light and by pauses, in order of time."""
    groups = []
    for light in sorted(set(rows["flat_kind"])):
        same = rows[rows["flat_kind"] == light]
        same = same[np.argsort(same["jd_utc_mid"])]
        cuts = np.flatnonzero(np.diff(same["jd_utc_mid"]) > PAUSE) + 1
        groups += [same[a:b] for a, b in itertools.pairwise([0, *cuts.tolist(), len(same)])]
    return sorted(groups, key=lambda group: group["jd_utc_mid"][0])


def _partners(lights):
    """Which groups to compare: each with the next of its light, and the first of each light."""
    first = {light: lights.index(light) for light in lights}
    pairs = list(itertools.combinations(sorted(first.values()), 2))
    for light in first:
        pairs += itertools.pairwise([i for i, other in enumerate(lights) if other == light])
    return sorted(pairs)


def _master(rows, bias, camera):
    """Master of some flats, or the reason why there is none."""
    try:
        return master_flat(list(rows["path"]), bias=bias, camera=camera)
    except FrameError as error:
        return str(error)


def _label(rows):
    """Name a group of flats: light, number, time of the first."""
    time = str(rows["date_obs"][0]).replace("T", " ")[:16]
    return f"{len(rows)} {rows['flat_kind'][0] or 'flats'} {time}".rstrip()


def _compared(first, second):
    """Columns of `flats_night` from the comparison on."""
    nothing = [math.nan] * 3 + [0] + [math.nan] * 3
    for one in (first, second):
        if isinstance(one, str):
            return (*nothing, one)
    try:
        found = compare_flats(first, second)
    except FrameError as error:
        return (*nothing, str(error))
    regions, spots = found.regions, found.spots
    worst = regions[int(np.nanargmax(np.abs(regions["significance"])))]
    line = (found.chi2, worst["ratio"] - 1, worst["significance"], len(spots))
    spot = [float(spots[name][0]) for name in ("x", "y", "change")] if len(spots) else nothing[4:]
    return (*line, *spot, "")
