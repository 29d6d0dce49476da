"""A simulated camera in the laboratory: its frames obey the laws and the truth beside them."""

import hashlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from datared import checks
from datared.camerabench import BOLTZMANN, DARK_TEMPERATURES, DARK_TIMES, LADDER, simulate_camera
from datared.errors import ConfigError
from datared.frames import inventory
from datared.instrument import expose, make_sensor
from datared.night import load_night
from datared.render import sensor_counts

SHAPE = (150, 220)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Return night, truth and a reader of cubes of frames: ``read("dome", exptime=8)``."""
    path = simulate_camera(tmp_path_factory.mktemp("bench") / "camera", seed=2, shape=SHAPE)
    night = load_night(path)
    truth = json.loads((night.truth / "parameters.json").read_text(encoding="utf-8"))
    table = inventory(night)

    def read(series, *, exptime=None, temperature=None):
        series = np.array([file.split("/")[0] == series for file in table["file"]])
        if exptime is not None:
            series &= table["exptime"] == exptime
        if temperature is not None:
            series &= abs(table["temperature"] - temperature) < 1
        return np.array([fits.getdata(p) for p in table["path"][series]]).astype(float)

    bias = fits.getdata(night.truth / "bias.fits").astype(float)
    return SimpleNamespace(night=night, truth=truth, table=table, read=read, bias=bias)


# --- the sensor ----------------------------------------------------------------------------------


def test_full_well_and_nonlinearity_follow_the_formula():
    """CC-02: half of a full well loses half of the share, electrons above it are lost."""
    options = {"gain": 0.5, "read_noise": 0.0, "offset": 100.0, "seed": 1}
    electrons = np.repeat([1e4, 2e4, 4e4], 20_000)
    plain = sensor_counts(electrons, **options, full_scale=10**6 // 16)
    bent = sensor_counts(
        electrons, **options, full_well=2.4e4, curvature=0.05 / 2.4e4, full_scale=10**6 // 16
    )
    linear, curved = ((one - 100.0).reshape(3, -1).mean(axis=1) for one in (plain, bent))
    assert linear[:2] == pytest.approx([2e4, 4e4], rel=1e-4)  # Of 20 000 pixels: 7e-5.
    # The mean of Q^2 is E^2 + E.
    lost = 0.05 * np.array([1e4 + 1, 2e4 + 1]) / 2.4e4
    assert 1 - curved[:2] / linear[:2] == pytest.approx(lost, abs=1e-5)
    full = bent.reshape(3, -1)[2]
    assert full.min() == full.max() == round(100 + 2.4e4 * 0.95 / 0.5)


def test_defaults_of_the_sensor_change_no_byte():
    """CC-02: without a full well and a bend the frames of the nights are what they always were."""
    sensor = make_sensor((40, 50), filters=["r"], seed=2)
    assert sensor.full_well == math.inf and sensor.nonlinearity == 0
    light = np.full((40, 50), 1e4)
    frame = expose(sensor, light, exptime=20.0, rng=np.random.default_rng(1), filter="r")
    # The same draws in the same order and the same precision.
    rng = np.random.default_rng(1)
    electrons = sensor.dark_rate * 20.0 + light * sensor.response["r"]
    counts = rng.poisson(electrons).astype(np.float32) / np.float32(sensor.gain)
    noise = np.float32(sensor.read_noise / sensor.gain)
    counts += rng.standard_normal(counts.shape, dtype=np.float32) * noise
    counts += sensor.bias.astype(np.float32)
    assert np.array_equal(frame, np.clip(np.rint(counts), 0, 65535).astype(np.uint16))


# --- the series ----------------------------------------------------------------------------------


def test_series_is_complete_and_repeats(bench, tmp_path):
    """CC-01 to CC-03: every frame of the plan is there, and the same seed gives the same bytes."""
    kinds = [str(kind) for kind in bench.table["kind"]]
    darks = 3 * (len(DARK_TIMES) + len(DARK_TEMPERATURES) - 1)
    assert (kinds.count("bias"), kinds.count("dark")) == (12, darks)
    assert kinds.count("flat") == 2 * len(LADDER) + 3 * 5
    assert set(bench.table["problem"]) == {""}
    assert bench.night.camera.gain is None and bench.night.camera.saturation is None
    with pytest.raises(ConfigError, match="already holds a night"):
        simulate_camera(bench.night.path.parent, seed=2)
    few = {"shape": (30, 40), "n_bias": 1, "n_dark": 1, "n_flat": 1}
    digests = []
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        simulate_camera(tmp_path / folder, seed=seed, **few)
        files = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
        digests.append(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_ladder_obeys_its_truth(bench):
    """CC-01, CC-02, F15: level, bend, drift, shutter, full well and noise are the truth's."""
    truth = bench.truth
    rows = bench.table[[file.startswith("ladder") for file in bench.table["file"]]]
    assert list(rows["exptime"]) == [*LADDER, *reversed(LADDER)]
    response = fits.getdata(bench.night.truth / "response_L.fits").astype(float)
    good = (fits.getdata(bench.night.truth / "defects.fits") == 0) & (response > 0.8)
    dark = fits.getdata(bench.night.truth / "dark_rate.fits").astype(float)
    hours = np.cumsum([0.0, *(rows["exptime"][:-1] + 1.437)]) / 3600 + rows["exptime"] / 7200
    for number, row in enumerate(rows):
        counts = fits.getdata(row["path"]).astype(float)
        light = truth["lamp_rate"] * (row["exptime"] + truth["shutter"])
        light *= 1 + truth["lamp_drift"] * hours[number]
        electrons = light * response + dark * row["exptime"]
        if row["exptime"] >= 28:
            noise = truth["read_noise"] / truth["gain"] / math.sqrt(good.sum())
            assert counts[good].mean() == pytest.approx(truth["saturation"], abs=5 * noise + 0.1)
        if row["exptime"] > 16:
            continue
        curve = 1 - truth["nonlinearity"] * electrons / truth["full_well"]
        excess = (counts - bench.bias - electrons * curve / truth["gain"])[good]
        slope = 1 - 2 * truth["nonlinearity"] * electrons / truth["full_well"]
        variance = electrons * slope**2 + truth["read_noise"] ** 2
        sigma = np.sqrt(variance / truth["gain"] ** 2 + 1 / 12)[good]
        # Some 30 000 pixels: the mean pull to 0.006, the width to 0.4 %.
        assert abs((excess / sigma).mean()) < 0.03
        assert (excess / sigma).std() == pytest.approx(1, abs=0.02)


def test_darks_follow_time_and_temperature(bench):
    """CC-01: medians of the darks give the rate, and its doubling, of the truth."""
    truth, levels = bench.truth, {}
    for celsius in DARK_TEMPERATURES:
        cube = bench.read("DARK", exptime=300.0, temperature=celsius) - bench.bias
        levels[celsius] = np.median(np.median(cube, axis=0)) * truth["gain"] / 300
    # 33 000 pixels with a noise of 6 to 18 e-: the median of three to 0.03 to 0.08 e-; the skew of
    # Poisson's law takes off up to 1/6 e-, and a median of whole counts is right to a third of one.
    expected = {
        celsius: truth["dark_rate"]
        * math.exp(-truth["dark_energy"] / BOLTZMANN * (1 / (celsius + 273.15) - 1 / 263.15))
        for celsius in DARK_TEMPERATURES
    }
    for celsius, level in levels.items():
        assert level == pytest.approx(expected[celsius], abs=0.5 / 300)
    # By the definition of a derivative at -10 deg C, from the two neighbours.
    doubling = 10 * math.log(2) / math.log(expected[-5] / expected[-15])
    assert doubling == pytest.approx(truth["doubling_temperature"], rel=0.005)
    for exptime in DARK_TIMES:
        cube = bench.read("DARK", exptime=exptime, temperature=-10) - bench.bias
        level = np.median(np.median(cube, axis=0)) * truth["gain"]
        assert level == pytest.approx(truth["dark_rate"] * exptime, abs=0.5)


def test_flats_differ_as_the_truth_says(bench):
    """CC-03: the lamp is uneven, and a grain of dust has come between the two series of it."""
    names = ("dome", "twilight", "dome-after")
    dome, sky, after = (np.median(bench.read(name) - bench.bias, axis=0) for name in names)
    ratio = dome / sky
    slope = np.median(ratio[:, -20:]) / np.median(ratio[:, :20]) - 1
    span = 2 * bench.truth["illumination"] * (1 - 20 / SHAPE[1])
    assert slope == pytest.approx(span, abs=0.002)
    grain = bench.truth["grain"]
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = np.hypot(x - grain["x"], y - grain["y"]) < 0.6 * grain["radius"]
    shadow = np.median((after / dome)[inside]) / np.median(after / dome)
    assert 1 - shadow == pytest.approx(grain["depth"], abs=0.004)


def test_answers_about_the_sample_camera_come_from_its_truth(bench):
    """CC-01: the check reads the truth beside the frames; the questions are in test_checks."""
    assert checks.check("K7", "in words", night=bench.night).ok is None
    noise = bench.truth["read_noise"] ** 2 / bench.truth["gain"]
    assert checks.check("K2", noise, night=bench.night)
