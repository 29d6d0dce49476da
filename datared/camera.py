"""What the camera is like, told by its own calibration frames: gain and read noise."""

import logging
import math
from collections import Counter
from dataclasses import replace

import numpy as np

from .correction import camera_noise
from .errors import FrameError
from .levels import saturation_level
from .listing import first_image, inventory, open_quietly
from .pairs import BOX, clipped_level, count_step, pair_variance, read_noise, sample_frame
from .photontransfer import CameraNoise, join_notes, photon_transfer, with_parts, with_quarters
from .rows import open_rows
from .tables import number_table

__all__ = [
    "CameraNoise",
    "agreement",
    "camera_night",
    "frame_limits",
    "group_samples",
    "measure_camera",
    "pair_variance",
    "photon_transfer",
    "read_noise",
]

log = logging.getLogger("datared.camera")

#: Most frames of one kind and filter that are looked at, and their pixels together.
MOST_FRAMES, MOST_PIXELS = 64, 16_000_000
#: A flat above this part of the saturation level is left out.
BRIGHT = 0.9
#: Relative differences between measured and configured values that are no matter.
TOLERANCE = {"gain": 0.05, "read_noise": 0.1}
#: Below so many steps of the counts light may be so even that all pixels have one value.
FAINT = 100
#: The law of all flats is bent if it is by so many deviations.
BENT = 3.0

_COLUMNS = (
    "setup filter n_bias n_flat n_pairs gain gain_err read_noise read_noise_err read_noise_adu "
    "read_noise_adu_err turnover turnover_err converter gain_configured read_noise_configured "
    "verdict note"
).split()


def measure_camera(biases, flats, *, saturation=None, step=None):
    """Gain and read noise from bias frames and flats of one set-up.

    Flats are paired with the nearest in level (a frame takes part in one pair), so that twilight
    flats serve as well as those of a lamp.

    Parameters
    ----------
    biases, flats : sequence of array-like, each of shape (ny, nx)
        Frames in ADU, raw or without overscan (all alike). The mean bias is subtracted from the
        flats. Two of each are the least; more levels of flats make the fit a test of linearity.
    saturation : float, optional
        Level in ADU of the frames from which on a pixel is not to be trusted.
    step : float, optional
        As in `read_noise`.

    Returns
    -------
    CameraNoise
        NaN for what cannot be measured, with the reason in its ``note``. Where the quarters of the
        frame differ in gain by more than 2 % and 5 deviations, the gain is a mean, and the note
        says so: such a frame is read by several amplifiers.
    """
    biases, flats = (
        [one for frame in frames if np.isfinite(one := np.asarray(frame, np.float32)).any()]
        for frames in (biases, flats)
    )
    if not biases:
        return CameraNoise(note="no bias frames: the level of the flats is not known")
    step = count_step(*biases[:2]) if step is None else step
    result = _measure(biases, flats, saturation, step)
    result = replace(result, converter=_converter(biases, flats, step))
    if min(biases[0].shape) >= 2 * BOX and result.gain > 0:
        parts = []
        for i, j in np.ndindex(2, 2):
            half = zip((i, j), biases[0].shape, strict=True)
            part = tuple(slice(k * n // 2, (k + 1) * n // 2) for k, n in half)
            own = [[frame[part] for frame in frames] for frames in (biases, flats)]
            seen = all(np.isfinite(frame).any() for frames in own for frame in frames)
            parts.append(_measure(*own, saturation, step) if seen else CameraNoise())
        result = with_quarters(result, parts)
    end = f"the converter ends {result.converter:.0f} ADU above the bias: the full well is higher"
    end = end if math.isfinite(result.converter) else ""
    return replace(result, note=join_notes(result.note, end))


def _converter(biases, flats, step):
    """Level above the bias where the converter ends, NaN if no flat reaches it."""
    end = max([one for frame in flats if (one := clipped_level(frame)) > 0], default=math.nan)
    end -= float(np.median([_middle(frame) for frame in biases]))
    return end if end > FAINT * (step or 1.0) else math.nan


def _middle(image):
    """Median of the finite values, NaN without any."""
    finite = image[np.isfinite(image)]
    return float(np.median(finite)) if finite.size else math.nan


def _measure(biases, flats, saturation, step):
    """Gain and read noise from frames, or the same part of each, that have finite values."""
    pairs = [read_noise(*biases[i : i + 2], step=step) for i in range(0, len(biases) - 1, 2)]
    result, note = CameraNoise(note="one bias frame: two are needed for the read noise"), ""
    if pairs and not (pairs := [one for one in pairs if math.isfinite(one[0])]):
        result = CameraNoise(note="no two bias frames have pixels in common")
    if pairs:
        # One disturbed frame must not speak for all: pairs unlike the (lower) median are left out.
        noises, errors = np.array(pairs).T
        middle = np.argsort(noises)[(len(pairs) - 1) // 2]
        like = np.abs(noises - noises[middle]) <= 4 * errors[middle]
        noise, error = noises[like].mean(), errors[like].mean() / math.sqrt(like.sum())
        result = CameraNoise(read_noise_adu=float(noise), read_noise_adu_err=float(error))
        if not like.all():
            note = f"{np.sum(~like)} pairs of bias frames left out: noise unlike the others"
        if not noise:
            note = "the bias frames do not differ: copies of one, or noise far below a count"
    bias = np.mean(biases, axis=0, dtype=np.float32)
    limit = math.inf if saturation is None else saturation - _middle(bias)
    flats = [frame - bias for frame in flats]
    levels = [_middle(frame) for frame in flats]
    order = [i for i in np.argsort(levels) if 0 < levels[i] <= BRIGHT * limit]
    if len(order) < len(flats):
        text = f"{len(flats) - len(order)} flats left out: saturated, or without light"
        note = join_notes(note, text)
    if len(order) < 2:
        note = join_notes(note, f"{len(order)} flats: two of one filter are needed for the gain")
        return replace(result, note=join_notes(result.note, note))
    points = [
        pair_variance(flats[i], flats[j], saturation=limit, step=step)
        for i, j in zip(order[::2], order[1::2], strict=False)
    ]
    return _fit(points, result, note)


def camera_night(night, *, frames=None):
    """Measure gain and read noise of a night's camera and compare them with the configured ones.

    Frames of 1 megapixel or more are sampled by bands of rows, 64 of a kind and filter at most.
    Nothing is written.

    Parameters
    ----------
    night : Night
        The night.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    astropy.table.Table
        For each set-up one row for each filter of its flats and one, with ``filter`` ``"all"``,
        for all of them: ``setup``, ``filter``, ``n_bias``, ``n_flat``, ``n_pairs``, ``gain``,
        ``read_noise`` (electrons), ``read_noise_adu`` and ``turnover`` (ADU above the bias, see
        `CameraNoise`), each with ``_err``, ``converter`` (ADU above the bias where its numbers end,
        NaN where no flat reaches it), ``gain_configured`` and ``read_noise_configured`` (NaN where
        there is none), ``verdict`` and ``note``.
    """
    table = inventory(night) if frames is None else frames
    table = table[(table["problem"] == "") & np.isin(table["kind"], ["bias", "flat"])]
    lines = []
    for setup in sorted(set(table["setup"])):
        own = table[table["setup"] == setup]
        flats, path = own[own["kind"] == "flat"], own["path"][0]
        known = (_configured_gain(path, night.camera), night.camera.read_noise)
        limits = frame_limits(path, camera=night.camera)
        pixels = _pixels(own)
        biases = group_samples(own[own["kind"] == "bias"], camera=night.camera, pixels=pixels)
        n_bias = int(np.sum(own["kind"] == "bias"))
        alone, results = measure_camera(biases, [], **limits), {}
        texts = [text for text in alone.note.split("; ") if not text.startswith("0 flats")]
        alone = replace(alone, note=join_notes(*texts))
        for name in sorted(set(flats["filter"])):
            rows = flats[flats["filter"] == name]
            samples = group_samples(rows, camera=night.camera, pixels=pixels)
            result = measure_camera(biases, samples, **limits)
            if np.isnan(result.gain) and night.camera.saturation is not None:
                # A wrong number must not keep the camera from being measured.
                other = frame_limits(path, camera=replace(night.camera, saturation=None))
                again = measure_camera(biases, samples, **other)
                if np.isfinite(again.gain):
                    text = f"saturation = {night.camera.saturation:g} of [camera] leaves no flats"
                    result = replace(again, note=join_notes(f"{text}: not used", again.note))
            results[name] = result
        whole = _fit([point for one in results.values() for point in _points(one)], alone, "")
        for name, result in results.items():
            if not result.curvature and abs(whole.curvature) > BENT * whole.curvature_err:
                # Of one level only the others tell that the law is bent.
                result = _straightened(result, whole, alone)
            number = int(np.sum(flats["filter"] == name))
            lines.append((setup, name, n_bias, number, *_numbers(result, known)))
        whole = with_parts(whole, list(results.values()))
        lines.append((setup, "all", n_bias, len(flats), *_numbers(whole, known)))
    kinds = (str, str, int, int, int, *[float] * 11, str, str)
    return number_table(lines, dict(zip(_COLUMNS, kinds, strict=True)))


def frame_limits(path, *, camera):
    """Level from which on the samples of raw frames of a set-up are saturated, and their step.

    Parameters
    ----------
    path : str or pathlib.Path
        One of the frames.
    camera : Camera
        Its saturation, overscan and trim sections.

    Returns
    -------
    dict
        ``saturation`` (ADU without the overscan's level, or None) and ``step`` (ADU), as
        `measure_camera` takes them.
    """
    frame = open_rows(path)
    level = saturation_level(frame, camera=camera)
    if level is not None:
        raw, sample = (sample_frame(path, camera=camera, raw=one) for one in (True, False))
        level -= float(np.nanmedian(raw - sample))
    return {"saturation": level, "step": count_step(frame.rows(0, min(8, frame.shape[0])))}


def group_samples(rows, *, camera, pixels=1_000_000):
    """Read samples of some frames, spread over their exposure times.

    Parameters
    ----------
    rows : astropy.table.Table
        Rows of `datared.listing.inventory`, all of one set-up; 64 of them are read at most.
    camera : Camera
        Its overscan and trim sections.
    pixels : int
        About how many of each frame, see `datared.pairs.sample_frame`.

    Returns
    -------
    list of numpy.ndarray of float32, shape (rows, nx)
        ADU. A frame that cannot be read is left out and logged.
    """
    order = np.lexsort([rows["file"], rows["exptime"]])
    if len(order) > MOST_FRAMES:
        # Neighbours stay together: they make the pairs.
        first = np.linspace(0, len(order) - 2, MOST_FRAMES // 2).astype(int)
        order = order[np.unique([first, first + 1])]
    samples = []
    for i in order:
        try:
            samples.append(sample_frame(rows["path"][i], camera=camera, pixels=pixels))
        except FrameError as error:
            log.warning("%s: not used to measure the camera: %s", rows["file"][i], error)
    return samples


def _pixels(rows):
    """Pixels of each frame that are read, so that all of one kind and filter fit into memory."""
    groups = Counter(zip(rows["kind"], rows["filter"], strict=True))
    return MOST_PIXELS // max(16, min(max(groups.values()), MOST_FRAMES))


def _configured_gain(path, camera):
    """Gain that the reduction would use for a frame."""
    with open_quietly(path) as hdus:
        return camera_noise(camera, first_image(hdus).header)[0]


def _numbers(result, configured):
    """Columns of a row of `camera_night`, from the number of pairs on."""
    values = (result.gain, result.gain_err, result.read_noise, result.read_noise_err)
    values = (*values, result.read_noise_adu, result.read_noise_adu_err)
    values = (*values, result.turnover, result.turnover_err, result.converter)
    texts = [
        _verdict("gain", *values[:2], configured[0]),
        _verdict("read_noise", *values[2:4], configured[1]),
    ]
    text = "agrees" if texts == ["gain agrees", "read_noise agrees"] else "; ".join(texts)
    known = [math.nan if value is None else value for value in configured]
    return int(result.used.sum()), *values, *known, text, result.note


def agreement(name, value, error, other):
    """Tell whether a measured number is that of the night file or of a header.

    Parameters
    ----------
    name : str
        ``gain`` or ``read_noise``.
    value, error : float
        As measured; a NaN error counts as 0.
    other : float
        The number that it is compared with.

    Returns
    -------
    bool
        Whether they differ by less than 5 % (the read noise by 10 %) or by three deviations.
    """
    limit = max(TOLERANCE[name] * abs(other), 3 * float(np.nan_to_num(error)))
    return abs(value - other) <= limit


def _verdict(name, value, error, configured):
    """Say how a measured number compares with the configured one, and what to do."""
    if not value > 0:
        return f"{name} not measured"
    if configured is None:
        return f"{name} not configured: put {name} = {value:.3g} into [camera]"
    if agreement(name, value, error, configured):
        return f"{name} agrees"
    percent = 100 * abs(value - configured) / configured if configured else math.inf
    return f"{name} differs by {percent:.0f} %: measured {value:.3g}, configured {configured:.3g}"


def _points(result):
    """Points of a fit."""
    return list(zip(result.levels, result.variances, result.errors, strict=True))


def _straightened(result, whole, alone):
    """Gain and read noise from levels for which the law of all flats is a line."""
    levels = result.levels * (1 + whole.curvature * result.levels)
    straight = _fit(_points(replace(result, levels=levels)), alone, "")
    missing = whole.curvature_err * float(np.mean(result.levels)) if result.levels.size else 0.0
    error = math.hypot(straight.gain_err, missing * straight.gain)
    names = ("gain", "read_noise", "read_noise_err", "read_noise_adu", "read_noise_adu_err")
    return replace(result, gain_err=error, **{name: getattr(straight, name) for name in names})


def _fit(points, alone, note):
    """Fit the points of pairs of flats, with the read noise of the bias frames."""
    good = [point for point in points if np.isfinite(point).all()]
    levels, variances, errors = np.array(good, float).reshape(-1, 3).T
    if len(levels) < len(points):
        note = join_notes(note, f"{len(points) - len(levels)} pairs of flats left out: saturated")
    given = (alone.read_noise_adu, alone.read_noise_adu_err)
    known = math.isfinite(given[0])
    if len(levels) < (1 if known else 2):
        text = f"{len(levels)} pairs of flats ({1 if known else 2} needed for the gain)"
        return replace(alone, note=join_notes(alone.note, note, text))
    result = photon_transfer(levels, variances, errors=errors, read_noise=given if known else None)
    return replace(result, note=join_notes(alone.note, note, result.note))
