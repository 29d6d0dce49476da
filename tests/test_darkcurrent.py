"""Dark current, its temperature and hot pixels of sensors whose truth is known."""

import json
import logging
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from scipy import stats

from datared import load_night
from datared.camerabench import simulate_camera
from datared.darkcurrent import (
    dark_current,
    dark_frames,
    dark_levels,
    dark_night,
    dark_temperature,
    hot_pixels,
)
from datared.errors import FrameError
from datared.instrument import expose, make_sensor
from datared.pixels import HOT

BOLTZMANN = 8.617333262e-5
TIMES = np.repeat([0.0, 30, 60, 120, 300], 4)


# --- against time --------------------------------------------------------------------------------


def test_dark_current_is_weighted_least_squares():
    """Rate, offset and errors are those of numpy.polyfit; electrons have the error of the gain."""
    rng = np.random.default_rng(1)
    errors = rng.uniform(0.05, 0.2, TIMES.size)
    levels = 2.0 + 0.3 * TIMES + rng.normal(0, 0.7 * errors)
    found = dark_current(TIMES, levels, errors=errors, gain=(0.376, 0.01))
    (rate, offset), covariance = np.polyfit(TIMES, levels, 1, w=1 / errors, cov="unscaled")
    assert np.sum(((levels - offset - rate * TIMES) / errors) ** 2) < 18 and found.chi2 < 1
    assert (found.rate, found.offset) == (pytest.approx(rate), pytest.approx(offset))
    assert found.rate_err == pytest.approx(covariance[0, 0] ** 0.5)
    assert found.offset_err == pytest.approx(covariance[1, 1] ** 0.5)
    assert found.electrons == pytest.approx(0.376 * rate)
    assert found.electrons_err == pytest.approx(np.hypot(0.376 * found.rate_err, 0.01 * rate))
    assert found.residuals == pytest.approx(levels - offset - rate * TIMES)


@pytest.mark.parametrize("drift", [0.0, 0.5], ids=["noise", "bias drift"])
def test_dark_current_is_within_its_error(drift):
    """Over 300 series the pulls have a width of 1, also where the bias drifts from frame to frame.

    With the errors scaled by 18 degrees of freedom the pulls follow Student's t, whose width is
    sqrt(18 / 16) = 1.06; it is known to 1 / sqrt(600) = 4 %.
    """
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(300):
        noise = rng.normal(0, 0.05, TIMES.size) + rng.normal(0, drift, TIMES.size)
        found = dark_current(TIMES, 0.27 * TIMES + noise, errors=np.full(TIMES.size, 0.05))
        pulls.append(((found.rate - 0.27) / found.rate_err, found.offset / found.offset_err))
    # Without a drift chi squared below 1 does not make the errors smaller.
    assert np.std(pulls, axis=0) == pytest.approx(1.06 if drift else 0.95, abs=3 * 0.042)
    assert np.abs(np.mean(pulls, axis=0)).max() < 3 / np.sqrt(300)


@pytest.mark.parametrize("n_bias", [1, 6])
def test_dark_current_of_exact_biases_is_within_its_error(n_bias):
    """A drift is in all frames alike: bias frames with tiny errors do not fix the line.

    The pulls follow Student's law with n_bias + 1 degrees of freedom; the share within one error
    is known to 2.9 % of 300 series. Where all errors were made larger by the same factor, it was
    0.33 with one bias frame (Student: 0.58) and 0.99 with six (0.65).
    """
    rng = np.random.default_rng(3)
    times = np.array([0.0] * n_bias + [300.0] * 3)
    errors = np.where(times > 0, 0.03, 0.005 if n_bias > 1 else 1e-9)
    pulls = []
    for _ in range(300):
        levels = 0.27 * times + rng.normal(0, errors) + rng.normal(0, 0.4, times.size)
        found = dark_current(times, levels, errors=errors)
        pulls.append(((found.rate - 0.27) / found.rate_err, found.offset / found.offset_err))
    share = np.mean(np.abs(pulls) < 1, axis=0)
    expected = 2 * stats.t(n_bias + 1).cdf(1) - 1
    assert share == pytest.approx([expected] * 2, abs=3 * 0.029)


def test_dark_current_of_two_frames_says_that_a_drift_is_unknown():
    """One bias frame and one dark: the error is that of the pixels, and the note says so."""
    found = dark_current([0, 300], [0.0, 30.0], errors=[0.01, 0.01])
    assert found.rate_err == pytest.approx(0.01 * np.sqrt(2) / 300)
    assert "cannot tell whether the bias drifts" in found.note
    assert "drifts" not in dark_current([0, 0, 300], [0, 0.01, 30], errors=[0.01] * 3).note


@pytest.mark.parametrize(
    ("times", "share"),
    [([30, 60, 120], 0.5), ([0, 0, 0, 60, 60, 60], 0.626), ([30, 60, 120, 300, 600], 0.609)],
)
def test_dark_current_of_few_frames_keeps_them_all(times, share):
    """Few points, and a bias that drifts by far more than their errors: none is left out.

    Then the pulls follow Student's law with 1, 4 and 3 degrees of freedom; the share within one
    error is that of its tables, known to 2.9 % of 300 series.
    """
    rng, times = np.random.default_rng(2), np.array(times, float)
    pulls = []
    for _ in range(300):
        levels = 0.27 * times + rng.normal(0, 0.3, times.size)
        found = dark_current(times, levels, errors=np.full(times.size, 0.02))
        assert found.used.all()
        pulls.append((found.rate - 0.27) / found.rate_err)
    assert np.mean(np.abs(pulls) < 1) == pytest.approx(share, abs=3 * 0.029)


def test_dark_current_leaves_a_light_leak_out():
    """One dark with a lamp on, or one frame with a wrong bias, does not bend the line."""
    rng = np.random.default_rng(3)
    levels = 0.1 * TIMES + rng.normal(0, 0.05, TIMES.size)
    levels[[6, 19]] = [42.9, 25]
    found = dark_current(TIMES, levels, errors=np.full(TIMES.size, 0.05))
    assert np.flatnonzero(~found.used).tolist() == [6, 19]
    assert found.rate == pytest.approx(0.1, abs=4 * found.rate_err)
    assert found.note.startswith("left out, unlike the others: 42.9 ADU at 30 s, 25")


def test_dark_current_that_is_not_seen_is_said():
    """A cold sensor: the rate agrees with 0, and the note has an upper limit."""
    rng = np.random.default_rng(4)
    found = dark_current(TIMES, rng.normal(0, 0.1, TIMES.size), errors=np.full(TIMES.size, 0.1))
    assert abs(found.rate) < 3 * found.rate_err
    assert "no dark current seen: below 0.00" in found.note and math.isnan(found.electrons)


def test_dark_current_of_levels_whose_errors_are_far_apart():
    """A bias that is as good as exact, and a dark that is not: the line goes through both."""
    found = dark_current([0, 300], [2.0, 32.0], errors=[1e-12, 1.0])
    assert (found.rate, found.offset) == (pytest.approx(0.1), pytest.approx(2))
    assert found.rate_err == pytest.approx(1 / 300)


def test_dark_current_passes_over_masked_points():
    """A point whose level or error is masked in a table does not count, whatever is beneath."""
    for beneath in (0.0, 1e20):
        errors = np.ma.masked_array([0.1, 0.1, 0.1, beneath], mask=[0, 0, 0, 1])
        found = dark_current([0, 30, 60, 120], [0, 3, 6, 99], errors=errors)
        assert found.rate == pytest.approx(0.1) and found.errors.tolist() == [0.1] * 3
        levels = np.ma.masked_array([0, 3, 6, beneath], mask=errors.mask)
        assert dark_current([0, 30, 60, 120], levels).levels.tolist() == [0, 3, 6]


def test_dark_current_needs_two_times():
    """One exposure time, columns of different length and errors of 0 are refused."""
    with pytest.raises(ValueError, match="cannot tell dark current from bias"):
        dark_current([60, 60], [16, 17])
    with pytest.raises(ValueError, match="one of each"):
        dark_current([0, 60], [16])
    with pytest.raises(ValueError, match="errors of levels are positive"):
        dark_current([0, 60], [1, 16], errors=[0, 1])
    two = dark_current([0, 60], [1, 16])
    assert two.rate == pytest.approx(0.25) and math.isnan(two.rate_err) and math.isnan(two.chi2)


# --- levels of frames ----------------------------------------------------------------------------


def test_dark_levels_grow_in_proportion_to_time():
    """With glow, warm and hot pixels the level of twice the time is twice the level, exactly."""
    sensor = make_sensor((160, 200), filters=[], seed=1)
    reference = 300 * sensor.dark_rate
    levels, _ = dark_levels([t * sensor.dark_rate for t in (60, 120, 240)], reference=reference)
    # The values beyond 5 deviations, the strongest glow, are the same in all.
    assert levels / levels[0] == pytest.approx([1, 2, 4], rel=1e-4)
    assert levels[0] / 60 == pytest.approx(np.median(sensor.dark_rate), rel=0.02)


def test_dark_levels_leave_the_same_warm_pixels_out_of_all_frames():
    """Warm pixels that hide in the noise of short darks are not in their level either."""
    rng = np.random.default_rng(1)
    rate = np.full((128, 128), 0.1)
    rate[rng.random(rate.shape) < 0.03] = 2.0
    times = [0, 10, 20, 100, 300]
    frames = [rng.normal(500 + rate * time, 9) for time in times]
    levels, errors = dark_levels(frames, zero=500, reference=frames[-1])
    # With them the level at 10 s would be 1.57 ADU instead of 1; its error is 0.1 ADU.
    assert np.abs((levels - 0.1 * np.array(times)) / errors).max() < 3.5
    assert errors == pytest.approx(9 / np.sqrt(128**2 / 2 * 0.97), rel=0.2)


@pytest.mark.parametrize("seed", range(4))
def test_dark_current_of_a_sensor_with_glow_and_hot_pixels(seed):
    """The rate of the quiet pixels comes back within its error.

    Through glow, hot pixels that are full after a while or grow faster than time, particles, a
    pattern in the bias, and a bias that drifts by 0.4 ADU.
    """
    rng = np.random.default_rng(seed)
    sensor = make_sensor((192, 256), filters=[], seed=seed)
    hot = sensor.defects & HOT > 0
    frames, times = [], np.repeat([0.0, 60, 120, 240], 3)
    for time in times:
        growing = np.where(hot, sensor.dark_rate * (time / 60) ** 2, sensor.dark_rate * time)
        light = np.minimum(growing, 20_000)
        light[rng.integers(0, 192, 20), rng.integers(0, 256, 20)] += rng.uniform(100, 5000, 20)
        moved = replace(sensor, bias=sensor.bias + rng.normal(0, 0.4))
        raw = expose(moved, None, exptime=0, rng=rng, charge=light)
        frames.append(raw.astype(np.float32))
    zero, reference = np.mean(frames[:3], axis=0), np.median(frames[-3:], axis=0)
    levels, errors = dark_levels(frames, zero=zero, reference=reference)
    found = dark_current(times, levels, errors=errors, gain=sensor.gain)
    truth, _ = dark_levels([300 * sensor.dark_rate], reference=reference - zero)
    assert found.chi2 > 10  # The drift is far above the noise of so many pixels.
    assert found.electrons == pytest.approx(truth[0] / 300, abs=3.2 * found.electrons_err)
    assert found.electrons_err < 0.02 * found.electrons


def test_dark_levels_need_a_pixel():
    """Frames without a finite pixel are refused."""
    with pytest.raises(FrameError, match="no pixel of these darks"):
        dark_levels([np.full((64, 64), np.nan)])
    with pytest.raises(FrameError, match=r"have \(64, 64\) and \(32, 64\)"):
        dark_levels([np.ones((64, 64)), np.ones((32, 64))])


# --- against temperature -------------------------------------------------------------------------


def make_rates(celsius, *, energy=0.65, rate=0.1, at=-10.0):
    """Rates by the law of Arrhenius."""
    inverse = 1 / (np.asarray(celsius, float) + 273.15) - 1 / (at + 273.15)
    return rate * np.exp(-energy / BOLTZMANN * inverse)


def test_dark_temperature_recovers_a_law_without_noise():
    """Energy, doubling temperature and rate are exact; the law doubles over the doubling."""
    celsius = [-20, -15, -10, -5, 0, 5, 10]
    found = dark_temperature(celsius, make_rates(celsius), errors=0.01 * make_rates(celsius), at=0)
    doubling = BOLTZMANN * 273.15**2 * np.log(2) / 0.65
    assert found.energy == pytest.approx(0.65, rel=1e-9)
    assert found.doubling == pytest.approx(doubling, rel=1e-9)
    assert found.rate == pytest.approx(make_rates(0), rel=1e-9) and found.scatter == 0
    steps = found.rates_at([doubling / 2, -doubling / 2])
    assert steps[0] / steps[1] == pytest.approx(2, rel=2e-4)  # The law is bent a little.
    assert found.rates_at(-10) == pytest.approx(0.1)


@pytest.mark.parametrize("thermometer", [0.0, 0.1], ids=["noise", "thermometer"])
def test_dark_temperature_is_within_its_error(thermometer):
    """Energy, doubling and rate are within one error of the truth as often as they should be.

    Also where the temperatures are only known to 0.1 K, which makes 1 % of the rate. With 5
    degrees of freedom that is 64 % (Student's t) to 68 %, more where the errors, which never
    shrink, are larger than needed; of 120 series it is known to 4.4 %.
    """
    rng = np.random.default_rng(5)
    celsius = np.arange(-20.0, 11.0, 5.0)
    truth = BOLTZMANN * 263.15**2 * np.log(2) / 0.65
    pulls = []
    for _ in range(120):
        rates = make_rates(celsius + rng.normal(0, thermometer, celsius.size))
        errors = np.full(celsius.size, 0.002)
        found = dark_temperature(celsius, rates + rng.normal(0, errors), errors=errors, at=-10)
        misfits = (found.energy - 0.65, found.doubling - truth, found.rate - 0.1)
        pulls.append(np.divide(misfits, (found.energy_err, found.doubling_err, found.rate_err)))
    share = np.mean(np.abs(pulls) < 1, axis=0)
    assert np.all(share > 0.64 - 3 * 0.044) and np.all(share < 0.68 + 3 * 0.044)
    assert np.mean(np.abs(pulls) < 3, axis=0).min() > 0.93
    assert np.abs(np.median(pulls, axis=0)).max() < 4 * 1.25 / np.sqrt(120)


def test_dark_temperature_of_rates_far_from_the_law():
    """Rates that scatter by 30 %, far more than their errors: the energy is never wild.

    Where steps were not held back one fit in 60 ended anywhere, at -5 eV for one.
    """
    rng, energies = np.random.default_rng(1), []
    for _ in range(60):
        celsius = np.sort(rng.uniform(-30, 20, 7))
        rates = make_rates(celsius) * (1 + rng.normal(0, 0.3, 7)) + rng.normal(0, 0.001, 7)
        energies.append(dark_temperature(celsius, rates, errors=np.full(7, 0.001)).energy)
    # Alike temperatures tell the energy badly: from 0.40 to 0.80 eV here.
    assert 0.3 < np.min(energies) and np.max(energies) < 1


def test_dark_temperature_uses_rates_below_zero():
    """A cold rate that noise makes negative takes part, and pulls nothing."""
    celsius = np.array([-30.0, -10, 0, 10])
    rates = make_rates(celsius)
    rates[0] = -0.01
    found = dark_temperature(celsius, rates, errors=np.full(4, 0.01))
    assert found.energy == pytest.approx(0.65, abs=2 * found.energy_err)
    assert found.rates.size == 4 and found.at > 0


def test_dark_temperature_without_errors():
    """Rates without errors have the relative scatter that they show."""
    celsius = np.array([-20.0, -10, 0, 10])
    rates = make_rates(celsius) * [1.02, 0.98, 1.02, 0.98]
    found = dark_temperature(celsius, rates)
    assert found.energy == pytest.approx(0.65, abs=3 * found.energy_err)
    assert 0.01 < found.scatter < 0.04 and math.isnan(found.chi2)
    with pytest.raises(ValueError, match=r"a rate of -0\.5 has no relative error"):
        dark_temperature([-37, -27, -9, -4, 15], [-0.5, 0.3, 0.5, 0.3, 2.3])


def test_dark_temperature_of_rates_that_are_alike():
    """Rates that do not change never double: the energy is 0, and no error is raised."""
    found = dark_temperature([-10, 0], [1.0, 1.0], errors=[0.1, 0.1])
    assert found.energy == pytest.approx(0, abs=1e-9) and found.energy_err > 0.05


def test_dark_temperature_needs_two_temperatures():
    """One temperature, or dark current at one only, is refused."""
    with pytest.raises(ValueError, match="at another one"):
        dark_temperature([-10, -10], [0.1, 0.1], errors=[0.01, 0.01])
    with pytest.raises(ValueError, match="of which 1 show dark current"):
        dark_temperature([-40, 0], [0.001, 0.1], errors=[0.01, 0.01])


# --- hot pixels ----------------------------------------------------------------------------------


def make_darks(rng, *, n=3, particles=200, exptime=100.0, gain=0.5):
    """Darks of a sensor with 60 hot pixels, unequal pixels and a glow; the hot rates (e-/s)."""
    shape = (250, 320)
    rates = 10 ** rng.uniform(0.5, 2.2, 60)
    dark = 0.1 * rng.normal(1, 0.1, shape)
    dark += 2 * np.exp(-np.hypot(*np.mgrid[:250, :320]) / 40)
    dark.flat[rng.choice(dark.size, rates.size, replace=False)] += rates
    darks = []
    for _ in range(n):
        electrons = rng.poisson(dark * exptime) + rng.normal(0, 4, shape)
        hits = rng.choice(dark.size, particles, replace=False)
        electrons.flat[hits] += rng.uniform(300, 3000, particles)
        darks.append(500 + np.rint(electrons / gain))
    return darks, np.sort(rates)[::-1]


@pytest.mark.parametrize("n", [2, 3, 6])
def test_hot_pixels_against_truth(n):
    """All hot pixels are found with their rates, no particle is, and particles are counted."""
    darks, truth = make_darks(np.random.default_rng(6), n=n)
    found = hot_pixels(darks, exptime=100, gain=0.5)
    assert found.n_darks == n and len(found.rates) == found.map.sum()
    # Particles of two darks meet in one pixel of 80 000 by chance 0.5 times.
    assert 60 <= len(found.rates) <= 62
    # Photon noise of the rate, in e-/s, and that of the surroundings.
    error = np.sqrt(truth / 100 / n + (found.limit / 5) ** 2)
    assert np.abs((found.rates[:60] - truth) / error).max() < 4.5
    # Two particles of a dark may hit one pixel, and few hit hot ones.
    assert found.n_particles == pytest.approx(200 * n, abs=8 + n)
    # The photon noise of a hot pixel does not make it unsteady; a particle on it does (0.15 n).
    assert found.n_unsteady <= 3
    table = found.table[found.table["seen"]]
    for row in table[table["rate"] >= 3]:
        assert row["number"] == pytest.approx(np.sum(truth > row["rate"]), abs=2)
        assert row["share"] == row["number"] / 80_000
        assert row["number_err"] == np.sqrt(row["number"])


def test_hot_pixels_of_one_dark_hold_the_particles():
    """With a single dark nothing tells particles from hot pixels: the number is not known."""
    darks, _ = make_darks(np.random.default_rng(7), n=1, particles=50)
    found = hot_pixels(darks[0], exptime=100, gain=0.5)
    assert found.n_particles is None and found.n_unsteady is None
    assert 105 <= len(found.rates) <= 111


def test_hot_pixels_that_flicker_are_unsteady():
    """A hot pixel with two levels is counted once, as unsteady, with its fainter level."""
    rng = np.random.default_rng(8)
    darks = rng.normal(500, 5, (4, 96, 96))
    darks[:, 20, 30] += [400, 900, 400, 400]
    found = hot_pixels(darks, exptime=50, gain=1)
    assert found.map.sum() == 1 and found.n_unsteady == 1 and found.n_particles == 0
    assert found.rates[0] == pytest.approx(8, abs=0.3)


def test_hot_pixels_of_a_perfect_sensor():
    """Noise of the sensor and a pattern that stays are not hot, however many darks there are."""
    rng = np.random.default_rng(9)
    pattern = rng.normal(0, 3, (300, 400))
    darks = 500 + pattern + rng.normal(0, 4, (8, 300, 400))
    found = hot_pixels(darks, exptime=60)
    assert len(found.rates) <= 1  # Of 120 000 pixels 0.03 are above 5 deviations.
    assert found.limit == pytest.approx(5 * np.hypot(3, 4 / np.sqrt(8)) / 60, rel=0.03)
    assert list(found.table["seen"][:2]) == [False, True] or len(found.table) == 1
    counts = hot_pixels(darks, exptime=60, thresholds=[0.5, -100]).table
    assert list(counts["rate"]) == [-100, 0.5] and counts["number"][0] == 120_000


def test_hot_pixels_pass_over_what_is_not_finite():
    """NaN and infinite values are in no count, and do no harm around them."""
    darks = np.random.default_rng(10).normal(500, 5, (3, 64, 80))
    darks[:, 5, 6] += 500
    darks[0, 5, 6], darks[:, 20, 30], darks[1:, 40, 50] = np.inf, np.inf, np.nan
    found = hot_pixels(darks, exptime=50)
    assert found.n_pixels == 64 * 80 - 1 and found.n_particles == found.n_unsteady == 0
    assert np.argwhere(found.map).tolist() == [[5, 6]]
    assert found.rates[0] == pytest.approx(10, abs=0.3)


def test_hot_pixels_need_one_shape_and_a_time():
    """Darks of two sizes, none, and an exposure time of 0 are refused."""
    with pytest.raises(FrameError, match="one shape"):
        hot_pixels([np.ones((40, 40)), np.ones((40, 50))], exptime=60)
    with pytest.raises(FrameError, match="images of one shape"):
        hot_pixels([[1.0, 2.0], [1.0, 2.0]], exptime=60)
    with pytest.raises(FrameError, match="these 0"):
        hot_pixels([], exptime=60)
    with pytest.raises(ValueError, match="exptime = 0 is not a positive number"):
        hot_pixels(np.ones((40, 40)), exptime=0)


# --- a night -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(once):
    """A camera in the laboratory, with its truth."""

    def make(folder):
        simulate_camera(folder / "camera", seed=3, shape=(200, 300), n_bias=6, n_flat=1)

    return load_night(once("dark-bench", make) / "camera" / "night.toml")


@pytest.fixture(scope="module")
def table(bench):
    """Its table of dark currents."""
    return dark_night(bench)


def test_dark_night_of_a_laboratory(bench, table):
    """From raw frames: rate, doubling temperature and number of hot pixels are those of truth."""
    truth = json.loads((bench.truth / "parameters.json").read_text())
    assert np.round(table["temperature"]).tolist() == [-20, -15, -10, -5, 0, 5, 10]
    cold = table[2]
    assert cold["exptimes"] == "30, 60, 120, 300, 600" and cold["n_dark"] == 15
    assert cold["n_bias"] == 6 and table["n_dark"][0] == 3
    # The typical pixel is a mean over half of 60 000 that scatter by 5 %: known to 0.03 %.
    rate, error = (truth["gain"] * cold[name] for name in ("rate", "rate_err"))
    assert rate == pytest.approx(truth["dark_rate"], abs=4 * np.hypot(error, 3e-4 * rate))
    assert math.isnan(cold["electrons"])  # The night file has no gain.
    assert cold["hot_share"] * 60_000 == pytest.approx(truth["n_hot"], abs=2)
    assert 0 < cold["particle_share"] < 0.01
    warming = dark_temperature(
        table["temperature"], table["rate"], errors=table["rate_err"], at=-10
    )
    assert warming.energy == pytest.approx(truth["dark_energy"], abs=3.5 * warming.energy_err)
    assert warming.doubling == pytest.approx(
        truth["doubling_temperature"], abs=3.5 * warming.doubling_err
    )
    assert warming.energy_err < 0.01 * warming.energy


def test_dark_frames_of_a_laboratory(bench):
    """Each frame has its level; bias frames are darks of 0 s around 0 ADU."""
    table = dark_frames(bench)
    biases = table[table["kind"] == "bias"]
    assert len(biases) == 6 and np.all(biases["exptime"] == 0)
    assert np.abs(biases["level"]).max() < 5 * biases["level_err"].max()
    assert len(table) == 6 + 15 + 18 and np.all(np.isfinite(table["level"]))


def test_dark_night_passes_over_a_broken_frame(bench, tmp_path, caplog):
    """A dark that cannot be read is left out and logged; a night without darks has no rows."""
    folder = tmp_path / "night"
    shutil.copytree(
        bench.path.parent, folder, ignore=shutil.ignore_patterns("ladder", "dome*", "twilight")
    )
    broken = sorted((folder / "raw" / "DARK").glob("*600.00s*"))[0]
    broken.write_bytes(broken.read_bytes()[:20_000])
    night = load_night(folder)
    with caplog.at_level(logging.WARNING):
        table = dark_night(night)
    assert table["n_dark"][2] == 14 and broken.name in caplog.text
    for path in (folder / "raw" / "DARK").glob("*"):
        path.unlink()
    empty = dark_night(night)
    assert len(empty) == 0 and isinstance(empty, Table) and "rate" in empty.colnames


def small_camera(bench, folder, *, ignore=()):
    """Copy the biases and the darks of -10 deg C, 600 and 60 s."""
    keep = shutil.ignore_patterns(
        "ladder", "dome*", "twilight", "*_300.00s*", "*_30.00s*", "*_120.00s*", *ignore
    )
    shutil.copytree(bench.path.parent, folder, ignore=keep)
    return folder / "raw"


@pytest.mark.parametrize("overscan", [False, True])
def test_dark_night_leaves_saturated_frames_out(bench, tmp_path, overscan):
    """Frames wholly at 65535, their overscan too, are left out, and the note names them."""
    raw = small_camera(bench, tmp_path / "night")
    if overscan:
        with (tmp_path / "night" / "night.toml").open("a") as file:
            file.write('\n[camera]\noverscan = "[281:300,1:200]"\ntrim = "[1:280,1:200]"\n')
    alone = dark_night(load_night(tmp_path / "night"))
    names = [sorted((raw / folder).glob(what))[0] for folder, what in
             (("DARK", "*600.00s*"), ("DARK", "*60.00s*"), ("BIAS", "*"))]  # fmt: skip
    for path in names:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:] = 65535
            hdus[0].header["CCD-TEMP"] = -9.3
    found = dark_night(load_night(tmp_path / "night"))
    assert (found["n_dark"][0], found["n_bias"][0]) == (alone["n_dark"][0] - 2, 5)
    assert found["note"][0].startswith("left out: ") and "left out" not in alone["note"][0]
    assert all(f"{path.name} (saturated)" in found["note"][0] for path in names)
    assert found["temperature"][0] == pytest.approx(alone["temperature"][0], abs=0.05)
    error = np.hypot(found["rate_err"][0], alone["rate_err"][0])
    assert found["rate"][0] == pytest.approx(alone["rate"][0], abs=4 * error)
    table = dark_frames(load_night(tmp_path / "night"))
    assert np.array_equal(np.isnan(table["level"]), table["note"] == "saturated")
    for path in (raw / "DARK").glob("*"):
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:] = 65535
    none = dark_night(load_night(tmp_path / "night"))
    assert len(none) == 1 and none["n_dark"][0] == 0 and np.isnan(none["rate"][0])
    assert none["temperature"][0] == pytest.approx(-10, abs=0.5) and none["exptimes"][0] == ""


def test_dark_frames_of_one_bias_frame(bench, tmp_path):
    """A single bias frame less itself has no noise; it has no smaller error than the darks."""
    raw = small_camera(bench, tmp_path / "night")
    every = dark_frames(load_night(tmp_path / "night"))
    for path in sorted((raw / "BIAS").glob("*"))[1:]:
        path.unlink()
    table = dark_frames(load_night(tmp_path / "night"))
    bias, darks = (table["level_err"][table["kind"] == kind] for kind in ("bias", "dark"))
    assert len(bias) == 1 and bias[0] == darks.min()
    # The noise of a frame, not of one less a mean that it is part of: 5 e- at 0.62 e-/ADU.
    noise = every["level_err"][every["kind"] == "bias"]
    truth = json.loads((bench.truth / "parameters.json").read_text())
    expected = truth["read_noise"] / truth["gain"] / np.sqrt(30_000)
    assert np.mean(noise) == pytest.approx(expected, rel=0.05)


def test_dark_night_without_bias_frames(bench, table, tmp_path):
    """One exposure time without bias frames: the dark current is not known, and it is said."""
    folder = tmp_path / "night"
    keep = shutil.ignore_patterns("ladder", "dome*", "BIAS", "twilight")
    shutil.copytree(bench.path.parent, folder, ignore=keep)
    for path in (folder / "raw" / "DARK").glob("*_300.00s_00*"):
        if not path.name.endswith(("03.fits", "00.fits")):
            path.unlink()
    alone = dark_night(load_night(folder))
    assert np.isnan(alone["rate"][0]) and "not known" in alone["note"][0]
    assert alone["rate"][1] == pytest.approx(table["rate"][2], rel=0.01)


def test_dark_night_of_a_camera_without_a_thermometer(bench, table, tmp_path):
    """Darks whose headers have no temperature make one group, and one row."""
    folder = tmp_path / "night"
    keep = shutil.ignore_patterns("ladder", "dome*", "twilight", "*_300.00s*")
    shutil.copytree(bench.path.parent, folder, ignore=keep)
    for path in [*(folder / "raw").rglob("*.fits")]:
        with fits.open(path, mode="update") as hdus:
            for card in ("CCD-TEMP", "SET-TEMP"):
                hdus[0].header.remove(card, ignore_missing=True)
    alone = dark_night(load_night(folder))
    assert len(alone) == 1 and np.isnan(alone["temperature"][0]) and alone["n_dark"][0] == 12
    assert alone["rate"][0] == pytest.approx(table["rate"][2], rel=0.005)
