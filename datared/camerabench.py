"""A simulated camera in the laboratory: bias frames, darks, a ladder of flats, and their truth."""

import json
import math
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from astropy.table import Table
from scipy.special import expit

from .instrument import expose, make_sensor
from .observatory import Recorder
from .observing import empty_folder, take_calibrations, write_maps
from .pixels import HOT
from .settings import write_night

__all__ = ["simulate_camera"]

#: Exposure times of the ladder of flats, and the one that fills the typical pixel, in seconds.
LADDER = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0, 24.0, 28.0)
FILLING_TIME = 20.0
#: Exposure times of the darks (s), temperatures (deg C), and the ones that both series share.
DARK_TIMES, DARK_TEMPERATURES = (30.0, 60.0, 120.0, 300.0, 600.0), (-20, -15, -10, -5, 0, 5, 10)
COMMON_TIME, COMMON_TEMPERATURE = 300.0, -10
#: Wrong light on the flats of the lamp: relative change from the middle to the edge along x.
ILLUMINATION = 0.012
#: A grain of dust that falls on the filter before the last flats: depth, and radius in widths.
GRAIN_DEPTH, GRAIN_RADIUS = 0.04, 0.04
#: Change of the lamp per hour while the ladder is taken, and delay of the shutter (s).
LAMP_DRIFT, SHUTTER = -0.12, 0.03
#: Boltzmann's constant in eV/K, and 0 deg C in K.
BOLTZMANN, ZERO_CELSIUS = 8.617333e-5, 273.15


def simulate_camera(folder, *, seed=1, shape=(400, 600), n_bias=12, n_dark=3, n_flat=5):
    r"""Write the frames that characterise a camera, their truth, and a night file.

    Frames, below ``raw/``:

    - ``BIAS``: at -10 deg C;
    - ``DARK``: of 30 to 600 s at -10 deg C, and of 300 s at -20 to +10 deg C. The dark current
      of every pixel follows :math:`\exp(-E / k T)`;
    - ``ladder/FLAT``: flats in L of a lamp, of 0.5 to 28 s, first up and then down again, two of
      each time. The lamp fades, the shutter stays open a little longer than the header says, and
      the longest exposures fill the pixels;
    - ``dome/FLAT``, ``twilight/FLAT`` and ``dome-after/FLAT``: flats in r of the lamp, whose
      light is uneven, of the sky, with stars, and once more of the lamp, with a new grain of dust.

    A pixel with Q electrons gives :math:`Q (1 - a Q / W) / g` counts above the bias, where a is the
    ``nonlinearity``, W the full well and g the gain. The night file tells nothing about the camera:
    that is to be measured.

    Parameters
    ----------
    folder : str or pathlib.Path
        Where ``raw/``, ``truth/`` and ``night.toml`` go.
    seed : int
        Another seed gives another camera; the same seed the same bytes.
    shape : tuple of int
        Shape of the frames, ``(ny, nx)``.
    n_bias, n_dark, n_flat : int
        Number of bias frames, of darks of each time and temperature, and of flats of each kind in
        r.

    Returns
    -------
    pathlib.Path
        The night file. ``truth/parameters.json`` has ``kind`` (``"camera"``), ``gain`` (e-/ADU),
        ``read_noise`` and ``full_well`` (e-), ``saturation`` (ADU of a raw frame, the bias in it),
        ``nonlinearity``, ``lamp_rate`` (e-/s of the ladder), ``shutter`` (s), ``lamp_drift`` (1/h),
        ``dark_rate`` (e-/s, median at -10 deg C), ``doubling_temperature`` (K, at -10 deg C),
        ``dark_energy`` (eV), ``n_hot``, ``illumination``, and the ``grain`` (``x``, ``y``,
        ``radius`` in pixels, ``depth``); ``truth/frames.ecsv`` lists the frames; maps are as in
        `datared.observing.write_truth`.

    Raises
    ------
    ConfigError
        If the folder already holds raw frames.
    """
    folder = empty_folder(folder)
    parts, frames = np.random.SeedSequence([seed, 8]).spawn(2)
    rng, flaws, weather = (np.random.default_rng(part) for part in parts.spawn(3))
    rngs = (np.random.default_rng(frames.spawn(1)[0]) for _ in iter(int, 1))

    gain, read_noise = round(rng.uniform(0.55, 0.75), 3), round(rng.uniform(3.5, 5.5), 2)
    sensor = make_sensor(shape, filters=["L", "r"], seed=flaws, gain=gain, read_noise=read_noise)
    sensor = replace(
        sensor,
        full_well=round(gain * rng.uniform(53_000, 58_000), -2),
        nonlinearity=round(rng.uniform(0.015, 0.025), 4),
        dark_rate=_dark_rate(sensor, rng),
    )
    doubling = round(rng.uniform(5.6, 6.6), 2)
    grain = {
        "x": round(rng.uniform(0.3, 0.7) * shape[1], 1),
        "y": round(rng.uniform(0.3, 0.7) * shape[0], 1),
        "radius": round(GRAIN_RADIUS * shape[1], 1),
        "depth": GRAIN_DEPTH,
    }
    truth = _parameters(sensor, seed, doubling) | {"grain": grain}

    recorder = Recorder(folder / "raw", f"CAM {seed}", 0.0, 0.0, weather)
    common = {"n_bias": 0, "darks": {}, "n_flat": 0, "panel_flats": {}, "twilight_flats": ()}
    common |= {"afternoon": datetime(2024, 11, 5, 9, 0), "dusk": datetime(2024, 11, 5, 17, 20)}
    common |= {"rngs": rngs}
    times = dict.fromkeys(DARK_TIMES, n_dark)
    take_calibrations(sensor, recorder, **common | {"n_bias": n_bias, "darks": times})
    for number, celsius in enumerate(DARK_TEMPERATURES):
        if celsius != COMMON_TEMPERATURE:
            recorder.setpoint = float(celsius)
            start = datetime(2024, 11, 5, 10, 30) + timedelta(minutes=25 * number)
            at = replace(sensor, dark_rate=sensor.dark_rate * _warming(celsius, truth))
            changes = {"darks": {COMMON_TIME: n_dark}, "afternoon": start}
            take_calibrations(at, recorder, **common | changes)

    recorder.setpoint = float(COMMON_TEMPERATURE)
    recorder.folder, recorder.label = folder / "raw" / "ladder", "panel flat"
    start = datetime(2024, 11, 5, 14, 0)
    _take_ladder(sensor, recorder, start, rate=truth["lamp_rate"], rngs=rngs)
    lamp = {"panel_flats": {"r": 8.0}, "n_flat": n_flat, "illumination": ILLUMINATION}
    lamp["afternoon"] = datetime(2024, 11, 5, 16, 0)
    recorder.folder, recorder.label = folder / "raw" / "dome", "dome flat"
    take_calibrations(sensor, recorder, **common | lamp)
    recorder.folder, recorder.label = folder / "raw" / "twilight", "twilight flat"
    take_calibrations(sensor, recorder, **common | {"twilight_flats": ["r"], "n_flat": n_flat})
    dusty = replace(sensor, response={"r": sensor.response["r"] * _shadow(shape, **grain)})
    recorder.folder, recorder.label = folder / "raw" / "dome-after", "dome flat"
    lamp["afternoon"] = datetime(2024, 11, 6, 6, 10)
    take_calibrations(dusty, recorder, **common | lamp)

    _write_truth(folder, sensor, truth)
    settings = {"name": f"camera {seed}", "raw": "raw", "work": "work", "truth": "truth"}
    return write_night(settings, folder / "night.toml")


def _dark_rate(sensor, rng):
    """Draw the dark current: hot pixels as those of the sensor, but no glow of the amplifier.

    The glow would move the median of a noisy dark away from that of the map.
    """
    even = rng.uniform(0.07, 0.13) * rng.normal(1.0, 0.05, sensor.shape)
    return np.where(sensor.defects & HOT > 0, sensor.dark_rate, even)


def _parameters(sensor, seed, doubling):
    """Truth of the camera."""
    kelvin = COMMON_TEMPERATURE + ZERO_CELSIUS
    loss = 1 - sensor.nonlinearity
    return {
        "kind": "camera",
        "seed": seed,
        "gain": sensor.gain,
        "read_noise": sensor.read_noise,
        "offset": 500.0,
        "full_well": sensor.full_well,
        "saturation": round(500 + sensor.full_well * loss / sensor.gain, 1),
        "nonlinearity": sensor.nonlinearity,
        "lamp_rate": sensor.full_well / FILLING_TIME,
        "shutter": SHUTTER,
        "lamp_drift": LAMP_DRIFT,
        "dark_rate": float(np.median(sensor.dark_rate)),
        "doubling_temperature": doubling,
        "dark_energy": math.log(2) * BOLTZMANN * kelvin**2 / doubling,
        "n_hot": int(np.sum(sensor.defects & HOT > 0)),
        "illumination": ILLUMINATION,
    }


def _warming(celsius, truth):
    """Factor on the dark current at a temperature."""
    inverse = 1 / (celsius + ZERO_CELSIUS) - 1 / (COMMON_TEMPERATURE + ZERO_CELSIUS)
    return math.exp(-truth["dark_energy"] / BOLTZMANN * inverse)


def _take_ladder(sensor, recorder, clock, *, rate, rngs):
    """Take flats of all exposure times, up and down again, so that a drift can be told apart."""
    start = clock
    for exptime in (*LADDER, *reversed(LADDER)):
        hours = (clock + timedelta(seconds=exptime / 2) - start).total_seconds() / 3600
        electrons = rate * (1 + LAMP_DRIFT * hours) * (exptime + SHUTTER)
        light = np.full(sensor.shape, electrons)
        data = expose(sensor, light, exptime=exptime, rng=next(rngs), filter="L")
        recorder.record(data, kind="FLAT", start=clock, exptime=exptime, filter="L")
        clock += timedelta(seconds=exptime, milliseconds=1437)


def _shadow(shape, *, x, y, radius, depth):
    """Draw the shadow of one grain of dust."""
    ny, nx = shape
    distance = np.hypot(np.arange(nx)[None, :] - x, np.arange(ny)[:, None] - y) / radius
    return 1 - depth * expit(15 * (1 - distance))


def _write_truth(folder, sensor, parameters):
    """Write maps, numbers and the list of frames."""
    (folder / "truth").mkdir()
    write_maps(folder / "truth", sensor)
    text = json.dumps(parameters, indent=2) + "\n"
    (folder / "truth" / "parameters.json").write_text(text, encoding="utf-8")
    raw = folder / "raw"
    files = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*.fits"))
    Table({"file": files, "series": [file.split("/")[0].lower() for file in files]}).write(
        folder / "truth" / "frames.ecsv"
    )
