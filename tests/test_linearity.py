"""Linearity, shutter, lamp and full well from series of flats of which all is known."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from scipy.optimize import curve_fit

from datared import load_night
from datared.camera import camera_night
from datared.camerabench import simulate_camera
from datared.cameranight import flat_series, flats_night, linearity_night
from datared.linearity import Linearity, measure_linearity
from datared.options import Camera

RATE, SHUTTER, DRIFT, FULL, GAIN = 1200.0, 0.04, -0.03, 52_000.0, 1.2
TIMES = np.array([0.5, 1, 2, 3, 5, 8, 12, 18, 25, 32, 38, 42, 48, 55, 62])


def series(seed, *, times=TIMES, both=True, loss=0.02, drift=DRIFT, full=FULL, flicker=5e-4):
    """Levels of flats of 60 000 pixels; the lamp flickers by 0.05 %.

    A pixel loses the share ``loss`` of its signal at the full well, and in proportion below.
    """
    rng = np.random.default_rng(seed)
    exptimes = np.concatenate([times, times[::-1]]) if both else times
    jd = 2_460_000.5 + (np.cumsum(exptimes + 8.0) - exptimes / 2) / 86_400
    hours = 24 * (jd - jd.mean())
    light = RATE * (exptimes + SHUTTER) * np.exp(drift * hours + rng.normal(0, flicker, jd.size))
    levels = np.minimum(light * (1 - loss * light / FULL), full)
    errors = np.sqrt(levels / GAIN / 60_000)
    levels = levels + rng.normal(0, errors)
    return SimpleNamespace(
        exptimes=exptimes, levels=levels, errors=errors, times=jd, light=light, loss=loss
    )


def measured(one, **options):
    """Linearity of a series, with errors and times unless they are given as None."""
    given = {"errors": one.errors, "times": one.times, "gain": GAIN} | options
    return measure_linearity(one.exptimes, one.levels, **given)


def true_nonlinearity(level, loss):
    """Relative non-linearity at a level (ADU) of the camera of `series`."""
    light = FULL * (1 - np.sqrt(1 - 4 * loss * np.asarray(level) / FULL)) / (2 * loss)
    return level / light - 1


# --- the fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.02, -0.03], ids=["less", "more"])
def test_linearity_recovers_what_was_drawn(loss):
    """CC-02: rate, shutter, drift, curve and its 1 % level come back within their errors."""
    one = series(1, loss=loss)
    result = measured(one)
    hours = 24 * (one.times - one.times.mean())
    # What a rate is depends on the mean time only; the drift is small.
    assert result.rate == pytest.approx(RATE, abs=4 * result.rate_err, rel=0.0)
    assert result.shutter == pytest.approx(SHUTTER, abs=4 * result.shutter_err)
    assert result.drift == pytest.approx(DRIFT, abs=4 * result.drift_err)
    top = one.levels[result.used].max()
    assert result.largest == pytest.approx(true_nonlinearity(top, loss), abs=4 * result.largest_err)
    # A scatter of 0.05 % over some 20 levels: all errors are small.
    assert result.rate_err < 5e-4 * RATE and result.shutter_err < 5e-4
    assert result.largest_err < 1e-3 and abs(result.drift_err * np.ptp(hours)) < 1e-3
    levels = np.linspace(1000, top, 50)
    curve = result.nonlinearity(levels)
    assert curve == pytest.approx(true_nonlinearity(levels, loss), abs=4 * result.largest_err)
    one_percent = abs(true_nonlinearity(result.level_1, loss))
    assert one_percent == pytest.approx(0.01, abs=4 * result.largest_err)
    assert result.residuals[result.used] == pytest.approx(
        true_nonlinearity(one.levels[result.used], loss), abs=5 * 6e-4
    )


@pytest.mark.parametrize(
    ("times", "order"),
    [
        (TIMES, "both"),
        (TIMES, "up"),
        (TIMES[[1, 4, 6, 8, 9, 10]], "up"),
        (TIMES[[2, 4, 7, 9, 10]], "twice"),
        (TIMES[[2, 5, 7, 10]], "return"),
    ],
    ids=["15-both", "15-up", "6-up", "5-twice", "4-return"],
)
def test_linearity_errors_are_honest(times, order):
    """CC-02: 68 % of the results are within their errors, in all kinds of series.

    Growing times alone tell the drift badly, few levels the flicker: the errors know.
    """
    orders = {"up": times, "twice": np.repeat(times, 2), "return": np.append(times, times[0])}
    options = {"times": orders.get(order, times), "both": order == "both"}
    pulls, wells = [], []
    for seed in range(200):
        one = series(seed, **options)
        result = measured(one)
        top = one.levels[result.used].max()
        truth = (RATE, SHUTTER, DRIFT, true_nonlinearity(top, one.loss))
        names = ("rate", "shutter", "drift", "largest")
        pulls.append(
            [
                (getattr(result, name) - true) / getattr(result, f"{name}_err")
                for name, true in zip(names, truth, strict=True)
            ]
        )
        if order == "both":
            # A share of 1 % is lost at half of the full well, of 2 % just below it.
            levels = ((result.level_1, result.level_1_err, FULL * 0.5 * 0.99),)
            levels += ((result.level_2, result.level_2_err, FULL * 0.98),)
            pulls[-1] += [(level - truth) / error for level, error, truth in levels]
        wells.append((result.full_well - FULL) / result.full_well_err)
    # Of 200 pulls 68 % lie in a range whose half width is known to 0.08. The curve of the camera
    # is not quite that of the fit: the four levels of faint light feel it by 0.4 of the error.
    low, middle, high = np.percentile(pulls, [15.87, 50, 84.13], axis=0)
    assert np.all(np.abs(middle) < 0.5), middle
    width = (high - low) / 2
    assert np.all(width < 1 + 4 * 0.08) and np.all(width > 0.7), width
    # The larger of two errors is taken: below 1.
    if np.isfinite(wells).all():
        low, middle, high = np.percentile(wells, [15.87, 50, 84.13])
        assert abs(middle) < 0.3 and 0.6 < (high - low) / 2 < 1 + 3 * 0.08


def test_linearity_agrees_with_an_independent_fit():
    """CC-02: scipy's least squares of the same law, written out, gives the same numbers."""
    one = series(3, flicker=0.0)
    result = measured(one)
    used = result.used
    hours = 24 * (one.times - one.times.mean())

    def law(_, rate, shutter, drift, c1, c2):
        light = rate * (one.exptimes[used] + shutter) * np.exp(drift * hours[used])
        # The curve belongs to the level that was measured.
        level = one.levels[used] / 50_000
        return light * np.exp(c1 * level + c2 * level**2)

    start = [1000.0, 0.0, 0.0, 0.0, 0.0] if result.coefficients[1] else [1000.0, 0.0, 0.0, 0.0]

    def model(x, *values):
        return law(x, *(*values, 0.0)[:5])

    best, covariance = curve_fit(model, None, one.levels[used], start, one.errors[used])
    for i, name in enumerate(("rate", "shutter", "drift")):
        error = getattr(result, f"{name}_err")
        # Other weights (a flicker that is found by chance) move it by a part of the error.
        assert getattr(result, name) == pytest.approx(best[i], abs=0.2 * error)
        assert error == pytest.approx(covariance[i, i] ** 0.5, rel=0.5)
    assert result.coefficients[0] == pytest.approx(best[3] / 50_000, rel=0.02)


def test_linearity_of_a_linear_camera_is_zero_within_its_error():
    """CC-02: no level is claimed where a straight camera leaves its line."""
    one = series(4, loss=0.0)
    result = measured(one)
    assert abs(result.largest) < 4 * result.largest_err < 4e-3
    assert result.level_1 == result.level_2 == result.full_well  # It is full before it bends.
    short = measured(series(4, loss=0.0, times=TIMES[:10]))
    assert math.isnan(short.level_1) and math.isnan(short.level_2)


# --- the lamp ------------------------------------------------------------------------------------


def test_lamp_drift_is_separated_by_times():
    """CC-02: a lamp that fades looks like a bent camera, until the times go up and down."""
    one = series(5, both=False, loss=0.0, drift=-0.3, times=TIMES[:10])
    fooled = measured(one, times=None)
    assert abs(fooled.largest) > 10 * fooled.largest_err  # A linear camera, called bent.
    both = measured(series(5, loss=0.0, drift=-0.3, times=TIMES[:10]))
    assert abs(both.largest) < 4 * both.largest_err < 4e-3
    assert both.drift == pytest.approx(-0.3, abs=4 * both.drift_err) and both.note.startswith("no")


def test_lamp_drift_of_a_series_up_only_is_told_to_be_unsure():
    """CC-02: with growing times alone the error of the curve is larger, and the note says why."""
    up, both = measured(series(6, both=False)), measured(series(6))
    assert "up and then down" in up.note and "up and then down" not in both.note
    assert up.largest_err > 4 * both.largest_err
    truth = true_nonlinearity(series(6).levels[up.used.nonzero()[0]].max(), 0.02)
    assert up.largest == pytest.approx(truth, abs=4 * up.largest_err)


@pytest.mark.parametrize(
    ("exptimes", "minutes"),
    [
        ([1.0, 3, 9, 27], [0, 1, 2, 3]),
        (TIMES[:8], np.zeros(8)),
        ([1.0, 3, 9, 3, 1], [0, 1, 2, 3, 4]),
    ],
    ids=["too-few", "no-times", "three-times"],
)
def test_lamp_drift_that_is_not_told_is_said_to_be_left_out(exptimes, minutes):
    """CC-02: where the drift cannot be fitted, the note says that the errors do not count it."""
    exptimes, days = np.array(exptimes), 2_460_000.5 + np.array(minutes) / 1440
    result = measure_linearity(exptimes, 1000 * exptimes, times=days)
    if exptimes.size == 5:
        # Up and down again tells the drift, but three times do not tell the curve.
        assert np.isfinite(result.drift) and "drift" not in result.note
        assert "non-linearity: it is taken as 0, and the errors do not count it" in result.note
        assert np.isnan(result.level_1) and np.isnan(result.largest)
    else:
        assert np.isnan(result.drift) and np.isfinite(result.rate)
        words = (
            "do not tell the drift of the lamp: it is taken as 0, and the errors do not count it"
        )
        assert words in result.note and "up and then down" in result.note


def test_levels_of_a_curve_that_is_not_sure_have_large_errors():
    """CC-02: where drift and curve are hardly told apart, the full well is no sure 1 % level."""
    results = [measured(series(seed, both=False, full=40_000.0)) for seed in range(40)]
    assert any(one.level_1 == one.full_well for one in results)
    # 1 % is lost at half of the full well of the curve. Of 40 some 87 % lie within 1.5 errors.
    pulls = [(one.level_1 - FULL * 0.5 * 0.99) / one.level_1_err for one in results]
    assert np.mean(np.abs(pulls) < 1.5) > 0.87 - 3 * 0.053


def test_flicker_of_the_lamp_is_found_from_the_scatter():
    """CC-02: errors without the flicker do not make the result too sure."""
    one = series(7, flicker=2e-3)
    with_errors, without = measured(one), measured(one, errors=None)
    relative = (with_errors.errors / one.levels)[with_errors.used]
    # 23 levels tell a scatter to 15 %.
    assert np.median(relative) == pytest.approx(2e-3, rel=0.5)
    assert without.rate == pytest.approx(with_errors.rate, abs=with_errors.rate_err)
    assert without.rate_err == pytest.approx(with_errors.rate_err, rel=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_twilight_is_no_linearity_series(seed):
    """CC-02: levels that do not follow the exposure time give no numbers, but the reason."""
    rng = np.random.default_rng(seed)
    levels = 1000 * TIMES * rng.uniform(0.3, 1.5, TIMES.size)
    result = measure_linearity(TIMES, np.minimum(levels, 30_000))
    assert math.isnan(result.rate) and not result.used.any()
    assert "twilight" in result.note or "exposure times" in result.note


def test_twilight_of_one_level_is_no_full_well():
    """CC-02: exposures that grow as the sky fades make one level, which is no plateau."""
    times = np.array([1.0, 1.5, 2.5, 4.0, 7.0, 12.0, 20.0])
    levels = np.random.default_rng(1).uniform(22_000, 28_000, times.size)
    result = measure_linearity(times, levels)
    assert math.isnan(result.full_well) and math.isnan(result.rate) and result.note


# --- the full well -------------------------------------------------------------------------------


def test_full_well_is_the_plateau():
    """CC-02: what full pixels show, in ADU and in electrons without the non-linearity."""
    one = series(8, full=48_000.0)
    result = measured(one)
    # Full levels have the noise of their pixels only: 0.2 ADU.
    assert result.full_well == pytest.approx(48_000, abs=1.0) and result.full_well_err < 2.0
    electrons = GAIN * 48_000 / (1 + true_nonlinearity(48_000, 0.02))
    assert result.full_well_e == pytest.approx(electrons, rel=4 * result.largest_err)
    assert not result.used[one.levels > 0.95 * 48_000].any()
    assert result.used[one.levels < 0.9 * 48_000].all()
    assert result.level_2 == result.full_well  # The curve alone has lost 1.9 % there.
    truth = FULL * 0.5 * 0.99  # A share of 1 % is lost there.
    assert result.level_1 == pytest.approx(truth, abs=4 * result.level_1_err)
    assert result.level_1_err < 0.1 * truth and result.level_2_err == result.full_well_err


@pytest.mark.parametrize("number", [10, 11])
def test_full_well_that_is_not_reached_is_not_claimed(number):
    """CC-02: the note says how far the series went."""
    one = series(9, times=TIMES[:number])
    result = measured(one)
    assert math.isnan(result.full_well) and math.isnan(result.full_well_e)
    assert f"above {one.levels.max():.0f} ADU" in result.note
    assert result.used.all()


@pytest.mark.parametrize("last", [40.0, 44.0, 60.0])
def test_full_well_at_the_last_time_only(last):
    """CC-02: one full exposure time is seen (from a fall of 2 % on) and told to be alone."""
    times = np.append(TIMES[:10], last)
    result = measured(series(10, times=times, full=45_000.0))
    assert result.full_well == pytest.approx(45_000, abs=5)
    assert "one exposure time only" in result.note
    assert not result.used[result.exptimes == last].any() and result.used.sum() == 20


def test_saturated_levels_are_left_out():
    """CC-02: levels from the given saturation on do not take part, and are counted."""
    one = series(11, times=TIMES[:10])
    result = measured(one, saturation=20_000.0)
    assert not result.used[one.levels > 20_000].any()
    assert result.note.startswith(f"{np.sum(one.levels > 20_000)} flats not used")
    assert result.shutter == pytest.approx(SHUTTER, abs=4 * result.shutter_err)


# --- what is missing -----------------------------------------------------------------------------


def test_linearity_needs_three_exposure_times():
    """CC-02: fewer give NaN and the reason; three give the line, but no curve."""
    for number in (0, 1, 2):
        times = np.repeat(TIMES[4 : 4 + number], 3)
        result = measure_linearity(times, 1000 * times)
        assert math.isnan(result.rate) and "three or more" in result.note
    full = measure_linearity(TIMES, 1000 * TIMES, times=TIMES, saturation=100.0)
    assert math.isnan(full.rate) and full.note.startswith(f"{TIMES.size} flats not used")
    three = measure_linearity([1.0, 5, 20], [1050.0, 5050, 20_050], errors=[1.0, 2, 4])
    assert three.rate == pytest.approx(1000) and three.shutter == pytest.approx(0.05)
    assert math.isnan(three.largest) and "too few for the non-linearity" in three.note
    full = measure_linearity([1.0, 2, 4, 40, 80], [1000.0, 2000, 4000, 9000, 9000])
    assert full.full_well == 9000 and math.isnan(full.level_1) and math.isnan(full.level_2)
    four = measure_linearity([1.0, 2, 5, 20], [1050.0, 2050, 5050, 20_050])
    assert four.rate == pytest.approx(1000) and four.largest == pytest.approx(0, abs=1e-9)


def test_linearity_passes_over_what_is_no_number():
    """CC-02: NaN, negative and dark levels are left out; columns of other lengths are refused."""
    one = series(12)
    one.levels[[0, 3]], one.exptimes[5] = (np.nan, -10.0), 0.0
    result = measured(one)
    assert not result.used[[0, 3, 5]].any() and result.note.startswith("3 flats not used")
    assert result.shutter == pytest.approx(SHUTTER, abs=4 * result.shutter_err)
    with pytest.raises(ValueError, match=r"30, 29, 30, 30 entries: give one"):
        measure_linearity(one.exptimes, one.levels[1:], errors=one.errors, times=one.times)
    assert Linearity().nonlinearity([1.0, 2.0]).tolist() == [0.0, 0.0]


# --- nights --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(once):
    """A laboratory night with its truth, tables measured once."""

    def make(folder):
        simulate_camera(folder, seed=3, shape=(160, 240), n_bias=6, n_dark=1, n_flat=3)

    folder = once("small-bench", make)
    night = load_night(folder)
    truth = json.loads((folder / "truth" / "parameters.json").read_text())
    camera = camera_night(night)
    return SimpleNamespace(night=night, truth=truth, camera=camera)


def test_linearity_of_a_night(bench):
    """CC-02: `camera`, truth in the file beside it: shutter, drift, full well, 1 % level."""
    before = sorted(bench.night.raw.parent.rglob("*"))
    table = linearity_night(bench.night, camera=bench.camera)
    row, truth = table[0], bench.truth
    assert (row["filter"], row["light"], row["n_flat"], row["n_times"]) == ("L", "panel", 28, 14)
    assert row["shutter"] == pytest.approx(truth["shutter"], abs=4 * row["shutter_err"])
    # The drift is that of the mean time, relative to the light then: 0.4 % of it, not to the first.
    assert row["drift"] == pytest.approx(truth["lamp_drift"], rel=0.02, abs=4 * row["drift_err"])
    full = truth["saturation"] - truth["offset"]
    assert row["full_well"] == pytest.approx(full, abs=3.0)
    gain_err = bench.camera["gain_err"][-1] / bench.camera["gain"][-1]
    assert row["full_well_e"] == pytest.approx(truth["full_well"], rel=4 * gain_err)
    for name, loss in (("level_1", 0.01), ("level_2", 0.02)):
        # A share a is lost at the full well, a part of it at the same part of the electrons.
        part = loss / truth["nonlinearity"]
        level = truth["full_well"] / truth["gain"] * part * (1 - loss) if part < 1 else full
        assert row[name] == pytest.approx(level, rel=0.03)
    lowest = min(row["level_2"], 0.95 * full)
    assert row["saturation"] == pytest.approx(truth["offset"] + lowest, abs=10)
    # A wrong saturation in the night file is what is to be found out: it does not count.
    wrong = replace(bench.night, camera=Camera(saturation=20_000.0))
    assert linearity_night(wrong, camera=bench.camera)["saturation"][0] == row["saturation"]
    others = table[1:]
    assert list(others["light"]) == ["dome", "sky"] and np.isnan(others["rate"]).all()
    assert "one exposure time" in others["note"][0] and "twilight" in others["note"][1]
    assert sorted(bench.night.raw.parent.rglob("*")) == before  # Nothing is written.


def test_gain_of_a_bent_camera(bench):
    """CC-01, F15: `camera`: the gain is that of faint light, the variance turns at the full well.

    A straight line through all levels would be wrong by some 3 %.
    """
    truth, table = bench.truth, bench.camera
    for row in table:
        assert row["gain"] == pytest.approx(truth["gain"], rel=0.02, abs=4 * row["gain_err"])
        assert row["gain"] == pytest.approx(truth["gain"], abs=4 * row["gain_err"])
        assert row["read_noise"] == pytest.approx(truth["read_noise"], rel=0.05)
    full = truth["saturation"] - truth["offset"]
    # The brightest parts of these flats are some 10 % above their mean.
    assert 0.85 * full < table["turnover"][0] < full
    assert table["turnover"][0] == pytest.approx(full, abs=3 * table["turnover_err"][0])
    assert np.isnan(table["turnover"][1]) and list(table["filter"]) == ["L", "r", "all"]


def test_levels_of_flats_are_those_of_the_same_pixels(bench):
    """CC-02: each flat has its row; two of one time differ by the drift of the lamp only."""
    table = flat_series(bench.night)
    ladder = table[table["light"] == "panel"]
    assert len(ladder) == 28 and len(table) == 28 + 6 + 3
    meta = table.meta[table["setup"][0]]
    assert meta["zero"] == pytest.approx(bench.truth["offset"], abs=2)
    assert meta["end"] == pytest.approx(0.98 * 65_535 - bench.truth["offset"], abs=3)
    for time in (1.0, 8.0, 16.0):
        first, second = ladder[ladder["exptime"] == time]
        hours = 24 * (second["time"] - first["time"])
        fall = second["level"] / first["level"] - 1
        error = np.hypot(first["error"] / first["level"], second["error"] / second["level"])
        # The drift counts from the beginning of the series: a part of it is gone already.
        assert fall == pytest.approx(bench.truth["lamp_drift"] * hours, abs=4 * error, rel=0.02)


def test_flats_of_a_night_are_compared(bench):
    """CC-03: dome against twilight, and dome before and after: the new grain of dust is found."""
    table = flats_night(bench.night)
    assert set(table["filter"]) == {"r"} and len(table) == 2
    kinds = [(row["first"].split()[1], row["second"].split()[1]) for row in table]
    assert kinds == [("dome", "sky"), ("dome", "dome")]
    grain, row = bench.truth["grain"], table[1]
    assert math.hypot(row["x"] - grain["x"], row["y"] - grain["y"]) < grain["radius"]
    assert row["change"] == pytest.approx(grain["depth"], rel=0.3)
    assert abs(table["largest"][0]) > 4e-3  # The lamp is uneven by 1.2 % from middle to edge.


@pytest.mark.parametrize("card", [None, 65_535, 30_000])
def test_full_well_beyond_the_numbers_of_the_file(card, tmp_path):
    """CC-02: where 16 bits end before the pixels are full, that is said, and where to stop.

    What a header says of the saturation does not count: that is to be found.
    """
    rng = np.random.default_rng(1)
    (tmp_path / "raw").mkdir()
    (tmp_path / "night.toml").write_text('raw = "raw"\nwork = "work"\n')
    for i, time in enumerate([0, 0, *range(2, 17, 2), *range(16, 1, -2)]):
        counts = np.rint(rng.normal(300 + 5000 * time, 3 + 50 * (time > 0), (40, 50)))
        kind = "FLAT" if time else "BIAS"
        header = fits.Header({"IMAGETYP": kind, "EXPTIME": float(time), "FILTER": "V"})
        header["DATE-OBS"] = f"2024-01-01T20:{i:02d}:00"
        if card is not None:
            header["SATURATE"] = card
        pixels = np.clip(counts, 0, 65_535).astype(np.uint16)
        fits.writeto(tmp_path / "raw" / f"{i:02d}.fits", pixels, header)
    (row,) = linearity_night(load_night(tmp_path))
    assert "the numbers of the file end there" in row["note"]
    assert row["full_well"] == pytest.approx(65_235, abs=1)
    assert row["saturation"] == pytest.approx(300 + 0.95 * 65_235, abs=2)


def test_levels_of_frames_of_which_some_have_no_numbers(tmp_path):
    """CC-02: a flat, and the first bias frame, of NaN only are passed over, without a warning."""
    rng = np.random.default_rng(1)
    (tmp_path / "raw").mkdir()
    (tmp_path / "night.toml").write_text('raw = "raw"\nwork = "work"\n')
    for i, time in enumerate([0, 0, 0, 1, 2, 4, 8, 16, 3]):
        header = fits.Header({"IMAGETYP": "FLAT" if time else "BIAS", "EXPTIME": float(time)})
        header.update({"FILTER": "V", "DATE-OBS": f"2024-01-01T20:{i:02d}:00"})
        counts = rng.normal(300 + 1000 * time, 3 + 25 * time**0.5, (40, 50)).astype(np.float32)
        pixels = np.full_like(counts, np.nan) if i in (0, 8) else counts
        fits.writeto(tmp_path / "raw" / f"{i:02d}.fits", pixels, header)
    table = flat_series(load_night(tmp_path))
    assert table["level"].tolist() == pytest.approx(1000 * table["exptime"], rel=5e-3)
    assert len(table) == 5 and table.meta[table["setup"][0]]["zero"] == pytest.approx(300, abs=1)


def test_linearity_of_a_night_without_a_series(once, tmp_path):
    """CC-02: flats without bias frames have no level; the tables are empty, not wrong."""
    bench = once("small-bench", lambda folder: None)
    (tmp_path / "night.toml").write_text(
        f'raw = "{(bench / "raw" / "dome").as_posix()}"\nwork = "work"\n'
    )
    night = load_night(tmp_path)
    assert len(flat_series(night)) == len(linearity_night(night)) == len(flats_night(night)) == 0
