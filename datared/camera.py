"""What the camera is like, told by its own calibration frames: gain and read noise."""

import logging
import math
from dataclasses import dataclass, field, replace

import numpy as np
from astropy.table import Table

from .correction import camera_noise
from .errors import FrameError
from .levels import saturation_level
from .listing import first_image, inventory, open_quietly
from .pairs import count_step, pair_variance, read_noise, sample_frame
from .rows import open_rows

__all__ = [
    "CameraNoise",
    "camera_night",
    "measure_camera",
    "pair_variance",
    "photon_transfer",
    "read_noise",
]

log = logging.getLogger("datared.camera")

#: Most frames of one kind and filter that are looked at.
MOST_FRAMES = 16
#: A flat above this part of the saturation level, or with less than this part of the expected
#: variance, is left out.
BRIGHT, FALLEN = 0.9, 0.8
#: Differences between measured and configured values that are no matter.
GAIN_TOLERANCE, NOISE_TOLERANCE = 0.05, 0.1

_COLUMNS = (
    "setup filter n_bias n_flat n_pairs gain gain_err read_noise read_noise_err read_noise_adu "
    "read_noise_adu_err gain_configured read_noise_configured verdict note"
).split()


@dataclass(frozen=True, eq=False)
class CameraNoise:
    """Gain and read noise, and what they were measured from.

    Parameters
    ----------
    gain, gain_err : float
        Electrons per ADU, and its standard deviation; NaN where not measured.
    read_noise, read_noise_err : float
        Electrons.
    read_noise_adu, read_noise_adu_err : float
        The same in ADU, known without the gain.
    levels, variances, errors : numpy.ndarray of float, shape (n,)
        The points of the fit: ADU, ADU squared, and the deviations of the latter.
    used : numpy.ndarray of bool, shape (n,)
        Which of them took part.
    note : str
        What was left out or could not be measured, and why.
    """

    gain: float = math.nan
    gain_err: float = math.nan
    read_noise: float = math.nan
    read_noise_err: float = math.nan
    read_noise_adu: float = math.nan
    read_noise_adu_err: float = math.nan
    levels: np.ndarray = field(default_factory=lambda: np.empty(0))
    variances: np.ndarray = field(default_factory=lambda: np.empty(0))
    errors: np.ndarray = field(default_factory=lambda: np.empty(0))
    used: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    note: str = ""


def photon_transfer(levels, variances, *, errors=None, read_noise=None):
    r"""Gain and read noise from the noise of flats.

    .. math:: V = L / g + R^2

    is fitted with weights. A level whose variance falls below 80 % of what the fainter ones
    promise is saturated; it is left out.

    Parameters
    ----------
    levels, variances : array-like of float, shape (n,)
        From `pair_variance`: ADU above the bias, and ADU squared.
    errors : array-like of float, shape (n,), optional
        Standard deviations of the variances. Without them all have the same relative one, found
        from the residuals.
    read_noise : float or (float, float), optional
        Read noise in ADU (and its error) from `read_noise`; it counts as a point at level 0. A
        single level needs it.

    Returns
    -------
    CameraNoise
        With errors of one standard deviation, larger where the points scatter by more than theirs.

    Raises
    ------
    ValueError
        If the columns differ in length, or one level comes without read noise.

    References
    ----------
    Janesick, Scientific Charge-Coupled Devices (SPIE 2001), chapter 2.

    Examples
    --------
    >>> result = photon_transfer([1000, 2000, 4000], [525, 1025, 2025])
    >>> round(result.gain, 3), round(result.read_noise, 3)
    (2.0, 10.0)
    """
    levels, variances = (np.atleast_1d(one).astype(float) for one in (levels, variances))
    relative = errors is None
    errors = 0.01 * variances if relative else np.atleast_1d(errors).astype(float)
    if not levels.shape == variances.shape == errors.shape:
        raise ValueError(
            f"{levels.size} levels, {variances.size} variances and {errors.size} errors: give one "
            "of each for each pair of flats."
        )
    noise, noise_err = (read_noise, 0.0) if np.ndim(read_noise) == 0 else read_noise
    used, note = _unsaturated(levels, variances, errors, noise)
    if noise is None and used.sum() == 1 < used.size:
        text = "one level is left: give read_noise from two bias frames, or flats of a second level"
        return CameraNoise(
            levels=levels, variances=variances, errors=errors, note=_join(note, text)
        )
    points = {"levels": levels, "variances": variances, "errors": errors, "used": used}
    x, y, sigma = levels[used], variances[used], errors[used]
    if noise is None and x.size == 1:
        raise ValueError(
            "one level cannot tell the gain from the read noise: give read_noise from two bias "
            "frames, or flats of a second level."
        )
    follows = np.full(x.size, relative)
    if noise is not None and x.size:
        # A point at level 0; without an error of its own it is as good as exact.
        least = max(2 * noise * noise_err, 1e-6 * y.min())
        x, y, sigma = np.append(x, 0.0), np.append(y, noise**2), np.append(sigma, least)
        follows = np.append(follows, False)
    slope, square, covariance = _line(x, y, sigma, follows)
    if not slope > 0:
        return CameraNoise(**points, note=_join(note, "the variance does not grow with the level"))
    if not square > 0:
        note = _join(note, "these levels do not tell the read noise")
        slope, square, covariance = _line(x, y, sigma, follows, origin=True)
    gain, adu = 1 / slope, math.sqrt(square)
    half = 1 / (2 * adu) if adu else math.nan
    # Errors of 1 / slope, sqrt(square) and their product.
    jacobian = np.array([[-(gain**2), 0], [0, half], [-adu * gain**2, half * gain]])
    gain_err, adu_err, err = np.sqrt(np.diag(jacobian @ covariance @ jacobian.T)).tolist()
    return CameraNoise(gain, gain_err, gain * adu, err, adu, adu_err, **points, note=note)


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
        NaN for what cannot be measured, with the reason in its ``note``.
    """
    biases = [np.asarray(frame, np.float32) for frame in biases]
    if not biases:
        return CameraNoise(note="no bias frames: the level of the flats is not known")
    step = count_step(*biases[:2]) if step is None else step
    pairs = [read_noise(*biases[i : i + 2], step=step) for i in range(0, len(biases) - 1, 2)]
    result, note = CameraNoise(note="one bias frame: two are needed for the read noise"), ""
    if pairs:
        # One disturbed frame must not speak for all: pairs unlike the (lower) median are left out.
        noises, errors = np.array(pairs).T
        middle = np.argsort(noises)[(len(pairs) - 1) // 2]
        like = np.abs(noises - noises[middle]) <= 4 * errors[middle]
        noise, error = noises[like].mean(), errors[like].mean() / math.sqrt(like.sum())
        result = CameraNoise(read_noise_adu=float(noise), read_noise_adu_err=float(error))
        if not like.all():
            note = f"{np.sum(~like)} pairs of bias frames left out: noise unlike the others"
    bias = np.mean(biases, axis=0, dtype=np.float32)
    limit = math.inf if saturation is None else saturation - float(np.nanmedian(bias))
    flats = [np.asarray(frame, np.float32) - bias for frame in flats]
    levels = [float(np.nanmedian(frame)) for frame in flats]
    order = [i for i in np.argsort(levels) if 0 < levels[i] <= BRIGHT * limit]
    if len(order) < len(flats):
        text = f"{len(flats) - len(order)} flats left out: saturated, or without light"
        note = _join(note, text)
    if len(order) < 2:
        note = _join(note, f"{len(order)} flats: two of one filter are needed for the gain")
        return replace(result, note=_join(result.note, note))
    points = [
        pair_variance(flats[i], flats[j], saturation=limit, step=step)
        for i, j in zip(order[::2], order[1::2], strict=False)
    ]
    return _fit(points, result, note)


def camera_night(night):
    """Measure gain and read noise of a night's camera and compare them with the configured ones.

    Frames of 1 megapixel or more are sampled by bands of rows, 16 of a kind and filter at most.
    Nothing is written.

    Parameters
    ----------
    night : Night
        The night.

    Returns
    -------
    astropy.table.Table
        For each set-up one row for each filter of its flats and one, with ``filter`` ``"all"``,
        for all of them: ``setup``, ``filter``, ``n_bias``, ``n_flat``, ``n_pairs``, ``gain``,
        ``read_noise`` (electrons) and ``read_noise_adu``, each with ``_err``,
        ``gain_configured`` and ``read_noise_configured`` (NaN where there is none), ``verdict``
        and ``note``.
    """
    table = inventory(night)
    table = table[(table["problem"] == "") & np.isin(table["kind"], ["bias", "flat"])]
    lines = []
    for setup in sorted(set(table["setup"])):
        own = table[table["setup"] == setup]
        flats, path = own[own["kind"] == "flat"], own["path"][0]
        known = (_configured_gain(path, night.camera), night.camera.read_noise)
        frame = open_rows(path)
        level = saturation_level(frame, camera=night.camera)
        if level is not None:
            level -= _overscan_level(path, night.camera)
        limits = {"saturation": level}
        limits["step"] = count_step(frame.rows(0, min(8, int(own["ny"][0]))))
        biases = _samples(own[own["kind"] == "bias"], night.camera)
        n_bias = int(np.sum(own["kind"] == "bias"))
        alone, points = replace(measure_camera(biases, [], **limits), note=""), []
        for name in sorted(set(flats["filter"])):
            rows = flats[flats["filter"] == name]
            result = measure_camera(biases, _samples(rows, night.camera), **limits)
            points += list(zip(result.levels, result.variances, result.errors, strict=True))
            lines.append((setup, name, n_bias, len(rows), *_numbers(result, known)))
        result = _fit(points, alone, "")
        lines.append((setup, "all", n_bias, len(flats), *_numbers(result, known)))
    kinds = (str, str, int, int, int, *[float] * 8, str, str)
    columns = zip(*lines, strict=True) if lines else [[] for _ in kinds]
    table = Table([np.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=_COLUMNS)
    for column in table.itercols():
        column.info.format = ".4g" if column.dtype.kind == "f" else None
    return table


def _samples(rows, camera):
    """Read samples of some frames, spread over the list."""
    some = np.unique(np.linspace(0, len(rows) - 1, min(MOST_FRAMES, len(rows))).astype(int))
    samples = []
    for i in some:
        try:
            samples.append(sample_frame(rows["path"][i], camera=camera))
        except FrameError as error:
            log.warning("%s: not used to measure the camera: %s", rows["file"][i], error)
    return samples


def _overscan_level(path, camera):
    """Give what the overscan takes off a frame (ADU); the saturation of samples is lower by it."""
    raw, sample = (sample_frame(path, camera=camera, raw=one) for one in (True, False))
    return float(np.nanmedian(raw - sample))


def _configured_gain(path, camera):
    """Gain that the reduction would use for a frame."""
    with open_quietly(path) as hdus:
        return camera_noise(camera, first_image(hdus).header)[0]


def _numbers(result, configured):
    """Columns of a row of `camera_night`, from the number of pairs on."""
    values = (result.gain, result.gain_err, result.read_noise, result.read_noise_err)
    values = (*values, result.read_noise_adu, result.read_noise_adu_err)
    texts = [
        _verdict("gain", *values[:2], configured[0], GAIN_TOLERANCE),
        _verdict("read_noise", *values[2:4], configured[1], NOISE_TOLERANCE),
    ]
    text = "agrees" if texts == ["gain agrees", "read_noise agrees"] else "; ".join(texts)
    known = [math.nan if value is None else value for value in configured]
    return int(result.used.sum()), *values, *known, text, result.note


def _verdict(name, value, error, configured, tolerance):
    """Say how a measured number compares with the configured one, and what to do."""
    if not math.isfinite(value):
        return f"{name} not measured"
    if configured is None:
        return f"{name} not configured: put {name} = {value:.3g} into [camera]"
    difference = abs(value - configured)
    if difference <= max(tolerance * configured, 3 * np.nan_to_num(error)):
        return f"{name} agrees"
    percent = 100 * difference / configured if configured else math.inf
    return f"{name} differs by {percent:.0f} %: measured {value:.3g}, configured {configured:.3g}"


def _fit(points, alone, note):
    """Fit the points of pairs of flats, with the read noise of the bias frames."""
    good = [point for point in points if np.isfinite(point).all()]
    levels, variances, errors = np.array(good, float).reshape(-1, 3).T
    if len(levels) < len(points):
        note = _join(note, f"{len(points) - len(levels)} pairs of flats left out: saturated")
    given = (alone.read_noise_adu, alone.read_noise_adu_err)
    known = math.isfinite(given[0])
    if len(levels) < (1 if known else 2):
        text = f"{len(levels)} pairs of flats ({1 if known else 2} needed for the gain)"
        return replace(alone, note=_join(alone.note, note, text))
    result = photon_transfer(levels, variances, errors=errors, read_noise=given if known else None)
    return replace(result, note=_join(alone.note, note, result.note))


def _unsaturated(levels, variances, errors, noise):
    """Which levels have the variance that the fainter ones promise, and a note on the others."""
    used = np.isfinite(levels) & np.isfinite(variances) & (levels > 0)
    for i in np.argsort(levels):
        below = used & (levels < levels[i])
        if not (used[i] and below.any()):
            continue
        if noise is None:
            promised = variances[below].max()
        else:
            slope = np.median((variances[below] - noise**2) / levels[below])
            promised = noise**2 + slope * levels[i]
        used[i] = variances[i] > min(FALLEN * promised, promised - 4 * errors[i])
    left = ", ".join(f"{level:.0f}" for level in levels[~used])
    return used, f"left out, the variance falls: {left} ADU" if left else ""


def _line(x, y, sigma, follows, *, origin=False):
    """Slope, intercept and their covariance; some errors are 1 % of the fitted line."""
    design = np.stack([x, np.zeros_like(x) if origin else np.ones_like(x)], axis=1)
    for _ in range(3 if np.any(follows) else 1):
        inverse = np.linalg.pinv((design / sigma[:, None] ** 2).T @ design)
        parameters = inverse @ (design.T @ (y / sigma**2))
        model = design @ parameters
        sigma = np.where(follows & (model > 0), 0.01 * model, sigma)
    free = x.size - (1 if origin else 2)
    square = float(np.sum(((y - model) / sigma) ** 2)) / free if free > 0 else math.nan
    # Points that scatter by more than their errors have larger ones; relative ones are unknown.
    scale = square if np.any(follows) else np.fmax(square, 1.0)
    return *parameters.tolist(), inverse * scale


def _join(*notes):
    """One text of several that may be empty."""
    return "; ".join(note for note in notes if note)
