"""Which calibration frames to leave out: each is judged by itself and against its siblings.

Small numbers of each frame are enough (`FrameStatistics`): a map of 16 x 16 levels, the noise of a
pixel, the share of saturated ones. So all frames of a night can be judged before one is combined.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["FrameStatistics", "Screening", "frame_statistics", "screen_frames"]

#: A flat is rejected above this part of the saturation level, or if more than this part of its
#: pixels is saturated; above the third it is reported.
SATURATED, SATURATED_PIXELS, BRIGHT = 0.9, 0.02, 0.7
#: A flat is rejected below this part of the saturation level; below the second it is reported.
FAINT, DIM = 0.01, 0.1
#: A flat is reported if the levels of its boxes, over their median, leave this range.
SPREAD = (0.4, 1.6)
#: Fewer siblings tell nothing about each other.
LEAST_FRAMES = 3
#: A flat is an outlier if its normalised map differs by more than this from that of its siblings,
#: rms, without the boxes that differ most: a bright star may fill one. Twilight has 1 to 2 %.
FLAT_RMS, FLAT_DROPPED = 0.05, 0.02
#: Boxes with less than this part of the median light tell nothing about it.
SHADE = 0.1
#: A bias or dark is an outlier if its level differs from its siblings' by more than this many times
#: the noise of a pixel, or its pattern by more than the second number of times it, rms: less does
#: no harm to a median. And if its noise is larger or smaller by more than the last factor. Noise
#: below a count is not known.
LEVEL_NOISE, PATTERN_NOISE, NOISE_RATIO, LEAST_NOISE = 3.0, 0.5, 1.5, 1.0
#: Limits in units of the scatter of the siblings' levels (more for few, whose scatter may be small
#: by chance), of their typical patterns, and of the error of a box.
LEVEL_SCATTER, PATTERN_SCATTER, ERRORS = 10.0, 4.0, 5.0


@dataclass(frozen=True)
class FrameStatistics:
    """What `screen_frames` needs to know of a frame.

    Parameters
    ----------
    name : str
        Name in messages.
    kind : str
        ``bias``, ``dark``, ``darkflat`` or ``flat``.
    boxes : numpy.ndarray of float, shape (my, mx)
        Levels of the boxes, ADU, calibrated: of a bias without overscan, of a dark without bias, of
        a flat without dark.
    noise : float
        Standard deviation of a pixel, ADU.
    error : float
        Standard error of the level of a box, ADU.
    raw_level : float
        Median of the raw counts, ADU; NaN if it is not known.
    saturated : float
        Share of saturated pixels.
    saturation : float or None
        Saturation level of the raw counts, ADU, if it is known.
    """

    name: str
    kind: str
    boxes: np.ndarray
    noise: float
    error: float
    raw_level: float = math.nan
    saturated: float = 0.0
    saturation: float | None = None

    @property
    def level(self):
        """Median of the boxes, ADU; NaN where none has a value."""
        finite = self.boxes[np.isfinite(self.boxes)]
        return float(np.median(finite)) if finite.size else math.nan


class Screening(NamedTuple):
    """What `screen_frames` found.

    Attributes
    ----------
    reasons : list of str
        For each frame why it must be left out, or an empty text.
    remarks : list of str
        What a user should know, with the names of the frames.
    """

    reasons: list
    remarks: list


def frame_statistics(image, *, name, kind, raw=None, saturation=None, boxes=16):
    """Reduce a frame, or a sample of its rows, to what `screen_frames` needs.

    Parameters
    ----------
    image : array-like of shape (ny, nx)
        Calibrated frame, or a sample of its rows, the same ones for all siblings: bands that are
        spread over the frame, on top of each other. Pixels that are not finite do not count.
    name, kind, saturation
        See `FrameStatistics`.
    raw : array-like, optional
        Raw counts of the same pixels, for the saturation.
    boxes : int
        Boxes along each side; fewer where they would be smaller than 8 pixels.

    Returns
    -------
    FrameStatistics
        The level of a box is the mean of the middle half of its pixels: robust against stars as a
        median, and finer than the step of counts. The noise is the standard deviation from these
        levels, clipped at 4 robust ones.

    Examples
    --------
    >>> frame = np.random.default_rng(1).normal(500, 8, (64, 80))
    >>> found = frame_statistics(frame, name="bias1.fits", kind="bias")
    >>> found.boxes.shape, round(found.level), round(found.noise)
    ((8, 10), 500, 8)
    """
    image = np.asarray(image, np.float32)
    y, x = (np.linspace(0, n, min(boxes, max(1, n // 8)) + 1).astype(int) for n in image.shape)
    levels = np.full((len(y) - 1, len(x) - 1), np.nan)
    scatter = np.zeros_like(levels)
    for j in range(len(y) - 1):
        for i in range(len(x) - 1):
            levels[j, i], scatter[j, i] = _box(image[y[j] : y[j + 1], x[i] : x[i + 1]])
    finite = np.isfinite(levels)
    noise = float(np.median(scatter[finite])) if finite.any() else math.nan
    per_box = image.size / levels.size
    raw_level, saturated = math.nan, 0.0
    if raw is not None:
        raw = np.asarray(raw)
        finite = raw[np.isfinite(raw)] if raw.dtype.kind == "f" else raw
        raw_level = float(np.median(finite)) if finite.size else math.nan
        if saturation is not None:
            saturated = float(np.count_nonzero(finite >= saturation)) / max(raw.size, 1)
    return FrameStatistics(
        name,
        kind,
        levels,
        noise,
        1.1 * noise / math.sqrt(per_box),
        raw_level,
        saturated,
        saturation,
    )


def screen_frames(frames):
    """Judge calibration frames of one kind and set-up (flats: of one filter).

    By itself a flat is left out if it is saturated (median above 0.9 of the level, or more than
    2 % of its pixels) or faint (below 0.01 of the level), and reported outside 0.1 to 0.7 of it or
    where its light is very uneven. Against its siblings, where there are three or more of them, a
    flat is left out if its normalised map differs from the median of the maps by more than 5 % rms;
    a bias or dark if its level, its pattern or its noise does: a light leak raises the first two.
    If that concerns more than half of them, nobody can tell who is right: none is left out, and a
    remark says so.

    Parameters
    ----------
    frames : sequence of FrameStatistics
        The frames, with maps of one shape.

    Returns
    -------
    Screening
        ``reasons``, one for each frame, and ``remarks``.

    Raises
    ------
    ValueError
        If the maps differ in shape or the frames in kind.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> darks = [
    ...     FrameStatistics(f"dark{i}.fits", "dark", 20 + rng.normal(0, 0.1, (16, 16)), 8.0, 0.1)
    ...     for i in range(5)
    ... ]
    >>> darks[3].boxes[:, :8] += 100
    >>> screen_frames(darks).reasons[3]
    'light leak? brighter than its siblings by up to 100 ADU in places, 50 ADU rms (limit 4 ADU)'
    """
    frames = list(frames)
    if len({(frame.kind, frame.boxes.shape) for frame in frames}) > 1:
        raise ValueError(
            "the frames differ in kind or in the shape of their maps: "
            + ", ".join(f"{one.name} ({one.kind}, {one.boxes.shape})" for one in frames)
        )
    reasons, remarks = [""] * len(frames), []
    for k, frame in enumerate(frames):
        if not math.isfinite(frame.level):
            reasons[k] = "no finite pixel (0 of all)"
        elif frame.kind == "flat":
            reasons[k], remark = _judge_flat(frame)
            remarks += [f"{frame.name}: {remark}"] if remark and not reasons[k] else []
    good = [k for k, reason in enumerate(reasons) if not reason]
    if len(good) < LEAST_FRAMES:
        return Screening(reasons, remarks)
    siblings = [frames[k] for k in good]
    compare = _compare_flats if siblings[0].kind == "flat" else _compare_darks
    found, remark = compare(siblings)
    remarks += [remark] if remark else []
    found = {k: reason for k, reason in zip(good, found, strict=True) if reason}
    if 2 * len(found) > len(good):
        names = "; ".join(f"{frames[k].name}: {reason}" for k, reason in found.items())
        remarks.append(
            f"{len(found)} of {len(good)} frames differ from the rest, so none is left out: {names}"
        )
        found = {}
    for k, reason in found.items():
        reasons[k] = reason
    return Screening(reasons, remarks)


def _box(values):
    """Mean of the middle half of the finite pixels of a box, and their clipped scatter."""
    values = np.sort(values, axis=None)
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan
    quarter = values.size // 4
    level = values[quarter : values.size - quarter].mean(dtype=float)
    away = np.abs(values - level)
    # Whole counts can have no median deviation at all.
    limit = 4 * 1.4826 * max(float(np.median(away)), 0.5)
    return level, float(np.sqrt(np.mean(np.square(away[away <= limit], dtype=float))))


def _judge_flat(frame):
    """Why a flat cannot be used (or an empty text), and a remark (or an empty text)."""
    limit, level = frame.saturation or math.nan, frame.level
    raw = frame.raw_level if math.isfinite(frame.raw_level) else level
    if frame.saturated > SATURATED_PIXELS or raw > SATURATED * limit:
        return f"saturated (median {raw:.0f} ADU, {100 * frame.saturated:.1f} % of pixels)", ""
    if not level > 0 or level < FAINT * limit:
        return f"too faint ({level:.0f} ADU above the dark)", ""
    remarks = []
    if raw > BRIGHT * limit or level < DIM * limit:
        remarks.append(
            f"level of {raw:.0f} ADU of {limit:.0f}, outside {100 * DIM:.0f} to "
            f"{100 * BRIGHT:.0f} %"
        )
    ends = np.array([FLAT_DROPPED, 1 - FLAT_DROPPED])
    least, most = np.nanquantile(frame.boxes, ends) / level
    if least < SPREAD[0] or most > SPREAD[1]:
        remarks.append(f"uneven light, from {least:.2f} to {most:.2f} of its median")
    return "", "; ".join(remarks)


def _compare_flats(frames):
    """Reason for each flat whose map is not that of its siblings, and a remark on all."""
    maps = np.array([frame.boxes / frame.level for frame in frames])
    typical = _median(maps)
    reasons = []
    for frame, own in zip(frames, maps, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(typical > SHADE, own / typical, np.nan)
            difference = np.sort(np.abs(ratio - 1)[np.isfinite(ratio)])
        kept = difference[: difference.size - math.ceil(FLAT_DROPPED * difference.size)]
        rms = math.sqrt(np.mean(kept**2)) if kept.size else 0.0
        limit = max(FLAT_RMS, ERRORS * frame.error / frame.level)
        reasons.append(
            f"its light falls otherwise than on its siblings, by {100 * rms:.1f} % rms "
            f"(limit {100 * limit:.1f} %)"
            if rms > limit
            else ""
        )
    return reasons, ""


def _compare_darks(frames):
    """Reason for each bias or dark that is not as its siblings, and a remark on all."""
    difference = np.array([frame.boxes for frame in frames])
    difference -= _median(difference)
    levels = np.nanmedian(difference, axis=(1, 2))
    levels -= np.median(levels)
    difference -= levels[:, None, None]
    rms = np.sqrt(np.nanmean(difference**2, axis=(1, 2)))
    noises = [max(frame.noise, LEAST_NOISE) for frame in frames]
    noise = float(np.median(noises))
    error = max(frame.error for frame in frames)
    scatter = 1.4826 * float(np.median(np.abs(levels)))
    few = LEVEL_SCATTER * (1 + 8 / (len(frames) - 2))
    level_limit = max(LEVEL_NOISE * noise, few * scatter, ERRORS * error)
    pattern_limit = max(
        PATTERN_NOISE * noise, PATTERN_SCATTER * float(np.median(rms)), ERRORS * error
    )
    reasons = []
    for sigma, level, pattern, own in zip(noises, levels, rms, difference, strict=True):
        if pattern > pattern_limit:
            high, low = np.nanmax(own) + level, -np.nanmin(own) - level
            text = (
                f"light leak? brighter than its siblings by up to {high:.3g} ADU in places"
                if high > low
                else f"another pattern than its siblings, fainter by up to {low:.3g} ADU in places"
            )
            reasons.append(f"{text}, {pattern:.3g} ADU rms (limit {pattern_limit:.3g} ADU)")
        elif abs(level) > level_limit:
            text = "light leak? level above" if level > 0 else "level below"
            reasons.append(
                f"{text} its siblings' by {abs(level):.3g} ADU (limit {level_limit:.3g} ADU)"
            )
        elif not noise / NOISE_RATIO <= sigma <= noise * NOISE_RATIO:
            reasons.append(
                f"noise of {sigma:.3g} ADU, its siblings have {noise:.3g} ADU "
                f"(limit a factor of {NOISE_RATIO:g})"
            )
        else:
            reasons.append("")
    remark, typical = "", float(np.median(rms))
    if scatter > LEVEL_NOISE * noise or typical > max(PATTERN_NOISE * noise, ERRORS * error):
        remark = (
            f"{frames[0].name} and its siblings are not alike: their levels scatter by "
            f"{scatter:.3g} ADU, their patterns by {typical:.3g} ADU rms, and a pixel has a noise "
            f"of {noise:.3g} ADU"
        )
    return reasons, remark


def _median(maps):
    """Median of maps; NaN where none has a value."""
    lost = np.isnan(maps).all(axis=0)
    return np.nanmedian(np.where(lost, 0, maps), axis=0) + np.where(lost, np.nan, 0)
