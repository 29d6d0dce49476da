"""Light curves: clouds cancel, missing stars do not shift, nothing is chosen on the answer."""

import warnings

import numpy as np
import pytest
from astropy.table import Table

from datared import photometry as flag
from datared.assembly import Photometry
from datared.errors import ConfigError, DataredError, DataredWarning
from datared.lightcurve import (
    CLOUDY,
    align_sides,
    bin_by_count,
    bin_by_time,
    comparison_stars,
    differential_light_curve,
    differential_night,
    ensemble,
    leave_one_out,
    median_correction,
    spread,
)
from datared.night import LightcurveOptions, Night

GAIN, SKY = 1.5, 80.0
LEVELS = np.array([60e3, 90e3, 75e3, 50e3, 40e3, 30e3, 55e3, 65e3, 5e2, 9e4])
TARGET, VARIABLE, SATURATED_STAR = 0, 3, 1


def sky_of_the_night(n):
    """A drift of 1 % and a cloud that takes 20 % (and 40 % for three epochs)."""
    time = np.arange(n)
    transparency = 1 - 0.01 * time / n
    transparency[n // 3 : n // 3 + 8] *= 0.8
    transparency[n // 2 : n // 2 + 3] *= 0.6
    return transparency


def make_photometry(n_epoch=120, *, seed=1, dip=0.0, filters=None, n_radius=2, n_star=10):
    """A night of one field; star 3 varies by 10 %, star 1 is saturated, the target dips."""
    rng = np.random.default_rng(seed)
    truth = np.ones((n_star, n_epoch))
    truth[VARIABLE] += 0.1 * np.sin(np.arange(n_epoch) / 9)
    truth[TARGET, int(0.6 * n_epoch) : int(0.8 * n_epoch)] -= dip
    flux = LEVELS[:n_star, None] * truth * sky_of_the_night(n_epoch)
    flux = flux[:, :, None] * np.ones(n_radius)
    # The second radius has three times the sky noise.
    noise = SKY * (1 + 2 * np.arange(n_radius))
    error = np.sqrt(flux / GAIN + noise**2)
    measured = flux + rng.normal(size=flux.shape) * error
    error = np.sqrt(np.maximum(measured, 0) / GAIN + noise**2)
    flags = np.zeros(flux.shape, int)
    flags[SATURATED_STAR] = flag.SATURATED
    stars = Table({"star": np.arange(n_star), "ra": 10 + np.arange(n_star) / 100})
    stars["dec"] = 0.0
    stars["target"] = np.arange(n_star) == TARGET
    epochs = Table({"epoch": np.arange(n_epoch), "file": [f"{k}.fits" for k in range(n_epoch)]})
    epochs["filter"] = list(filters) if filters else ["r"] * n_epoch
    epochs["exptime"] = 60.0
    epochs["bjd_tdb_mid"] = 2460000.5 + np.arange(n_epoch) / 1440
    epochs["jd_utc_mid"], epochs["airmass"] = epochs["bjd_tdb_mid"] - 0.002, 1.2
    epochs["flipped"], epochs["fwhm"] = np.arange(n_epoch) > 70, 3.0
    shape = (n_star, n_epoch)
    return Photometry(
        stars, epochs, measured, error, flags, np.full(shape, 100.0), np.zeros(shape),
        np.zeros(shape), tuple(4.0 + np.arange(n_radius)), "px", 0, GAIN,
    )  # fmt: skip


def write(result, work, **options):
    """Write measurements as the stage before does."""
    work.mkdir()
    table = Table({"star": result.stars["star"], "flux": result.flux, "flux_err": result.flux_err})
    table["flags"], table["sky"] = result.flags, result.sky
    table["x"], table["y"] = result.x, result.y
    radii = {f"RADIUS{k}": radius for k, radius in enumerate(result.radii)}
    table.meta = {"NRADII": len(radii), **radii, "RADUNIT": "px", "DEFRAD": 0, "GAIN_E": GAIN}
    table.write(work / "photometry.fits")
    result.stars.write(work / "stars.ecsv")
    result.epochs.write(work / "epochs.ecsv")
    return Night(name="t", raw=work / "r", work=work, lightcurve=LightcurveOptions(**options))


def test_differential_removes_drift_and_cloud():
    """LC-03, 000-36: a drift and clouds leave no more than 1.1 x the predicted scatter."""
    ratios = []
    for seed in range(8):
        curve, _ = differential_light_curve(make_photometry(seed=seed))
        predicted = np.sqrt(np.mean(curve["flux_err"] ** 2))
        ratios.append(np.std(curve["flux"]) / predicted)
    # 960 epochs: known to 2.3 %.
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.08)
    assert np.mean(ratios) <= 1.1
    # The cloud itself is more than 20 times the scatter.
    raw = np.std(curve["raw"]) / np.median(curve["raw"])
    assert raw > 10 * np.std(curve["flux"])


def test_error_holds_the_ensemble():
    """Pulls of a constant star have unit width when one comparison star is all there is."""
    rng = np.random.default_rng(4)
    flux = np.full((2, 4000), 10000.0)
    error = np.full((2, 4000), 100.0)
    measured = flux + rng.normal(size=flux.shape) * error
    common = ensemble(measured[1:], error[1:])
    ratio = measured[0] / common.flux
    sigma = np.hypot(error[0], ratio * common.error) / common.flux
    # 4000 pulls: 1.1 %; without the ensemble the width would be 1.41.
    assert np.std((ratio - 10000) / sigma) == pytest.approx(1.0, abs=0.04)


def test_reference_missing_at_one_epoch_does_not_shift():
    """A bright star that is missing at some epochs changes the ensemble by its noise only."""
    rng = np.random.default_rng(3)
    scale = np.array([1e6, 2e5, 1e5, 1.5e5])
    transparency = sky_of_the_night(90)
    error = np.sqrt(scale)[:, None] * np.ones(90)
    flux = scale[:, None] * transparency + rng.normal(size=(4, 90)) * error
    full = ensemble(flux, error)
    gone = flux.copy()
    gone[0, 40:60] = np.nan
    part = ensemble(gone, error)
    # Without the star of 1e6 the others know the level to 0.15 %.
    change = part.flux / full.flux - 1
    assert np.all(np.abs(change) < 0.006)
    assert abs(np.mean(change[40:60]) - np.mean(change[:40])) < 0.0015
    assert np.all(part.error[40:60] > 1.5 * part.error[0])
    # A plain sum over the stars that are there would jump by two thirds.
    total = np.nansum(gone, axis=0)
    assert np.median(total[40:60]) < 0.5 * np.median(total[:40])
    assert list(part.n[[0, 50]]) == [4, 3]


def test_ensemble_pulls_have_unit_width():
    """The error of the ensemble is the one that it has."""
    rng = np.random.default_rng(8)
    scale = np.geomspace(1e4, 1e6, 12)
    error = np.sqrt(scale)[:, None] * np.ones(2000)
    truth = 1 + 0.2 * np.sin(np.arange(2000) / 100)
    common = ensemble(scale[:, None] * truth + rng.normal(size=error.shape) * error, error)
    pulls = (common.flux * np.median(truth) - truth) / common.error
    assert np.std(pulls) == pytest.approx(1.0, abs=0.06)


def test_cosmic_ray_in_a_comparison_star_is_left_out():
    """One wild measurement of the brightest star does not lower the target at that epoch."""
    rng = np.random.default_rng(5)
    scale = np.array([1e6, 4e5, 3e5, 5e5])
    error = np.sqrt(scale)[:, None] * np.ones(100)
    flux = scale[:, None] + rng.normal(size=error.shape) * error
    flux[0, 30] *= 1.5
    common = ensemble(flux, error)
    assert not common.used[0, 30] and common.used.sum() >= 396
    assert common.flux[30] == pytest.approx(1.0, abs=0.005)
    assert leave_one_out(flux, error, common)[0][0, 30] == pytest.approx(1.5, abs=0.01)


def test_reference_selection():
    """000-09, 000-10: variable, saturated and faint stars are refused, each with its reason."""
    result = make_photometry()
    table = comparison_stars(
        result.flux[:, :, 0], result.flux_err[:, :, 0], result.flags[:, :, 0], target=TARGET
    )
    reasons = dict(zip(table["star"].tolist(), table["reason"].tolist(), strict=True))
    assert reasons[TARGET] == "the target"
    assert reasons[SATURATED_STAR] == "saturated in 120 of 120 epochs"
    assert reasons[VARIABLE].startswith("varies: scatter")
    assert reasons[8].startswith("fainter than the target by a factor of")
    assert table["star"][table["used"]].tolist() == [2, 4, 5, 6, 7, 9]
    assert np.all((table["reason"] == "") == table["used"])
    # Constant stars scatter as expected: 6 stars of 120 epochs, each known to 8 %.
    used = table[table["used"]]
    assert np.allclose(used["scatter"] / used["expected"], 1.0, atol=0.3)


@pytest.mark.parametrize(
    ("bit", "epochs", "reason"),
    [
        (flag.NEIGHBOUR, 20, "crowded in 20 of 120"),
        (flag.EDGE, 20, "edge in 20 of 120"),
        (flag.EDGE, 3, ""),
        (flag.BAD_PIXEL, 20, ""),
        (flag.BAD_PIXEL, 70, "bad pixel in 70 of 120"),
    ],
)
def test_reference_selection_by_flags(bit, epochs, reason):
    """Flags in up to 5 % of the epochs are forgiven; bad pixels cost single epochs."""
    result = make_photometry()
    result.flags[5, :epochs, 0] |= bit
    if bit == flag.EDGE:
        result.flux[5, :epochs, 0] = np.nan
    table = comparison_stars(
        result.flux[:, :, 0], result.flux_err[:, :, 0], result.flags[:, :, 0], target=TARGET
    )
    assert str(table["reason"][5]).startswith(reason) and table["used"][5] == (not reason)


def test_named_comparison_stars_win():
    """Stars named by the user are used as they are."""
    curve, chosen = differential_light_curve(make_photometry(), comparison=(4, 6))
    assert curve.meta["comparison"] == [4, 6]
    assert chosen["reason"][2] == "not named"


def test_no_comparison_star_says_why():
    """Nothing to compare with: the message counts the reasons and says what to do."""
    result = make_photometry()
    result.flags[1:] |= flag.SATURATED
    with pytest.raises(DataredError, match=r"9 saturated.*comparison = "):
        differential_light_curve(result)


def test_one_comparison_star_is_enough():
    """With one star there is nothing to choose, and a light curve with its larger error."""
    result = make_photometry()
    result.flags[[1, 2, 3, 4, 5, 6, 7, 8]] |= flag.SATURATED
    curve, _ = differential_light_curve(result)
    assert curve.meta["comparison"] == [9]
    assert np.std(curve["flux"]) == pytest.approx(np.median(curve["flux_err"]), rel=0.25)


def test_radius_is_chosen_by_the_comparison_stars_only():
    """The quiet radius is taken, also when the target itself is wild there."""
    result = make_photometry()
    curve, _ = differential_light_curve(result)
    assert curve.meta["radius"] == 0
    result.flux[TARGET, :, 0] *= np.random.default_rng(1).uniform(0.5, 1.5, 120)
    again, _ = differential_light_curve(result)
    assert again.meta["radius"] == 0
    assert again.meta["scatter_by_radius"] == curve.meta["scatter_by_radius"]
    assert curve.meta["scatter_by_radius"][1] > 1.2 * curve.meta["scatter_by_radius"][0]
    assert differential_light_curve(result, radius=1)[0].meta["radius"] == 1
    with pytest.raises(ConfigError, match="radius 7"):
        differential_light_curve(result, radius=7)


def test_flip_steps_of_the_flat_do_not_choose_radius_or_stars():
    """Steps of 2 % at the flip, other ones for every star, hide which radius is the better one."""
    expected = differential_light_curve(make_photometry())[0].meta["scatter_by_radius"]
    tilted = make_photometry()
    step = np.where(tilted.epochs["flipped"], 1 + 0.02 * np.linspace(-1, 1, 10)[:, None], 1.0)
    tilted.flux[:] *= step[:, :, None]
    curve, comparisons = differential_light_curve(tilted)
    # The steps alone would be a scatter of 0.01. The level of a side, known to 1 / sqrt(50) of
    # the scatter of an epoch, takes 1 % away; the medians over the stars differ by some per cent.
    assert curve.meta["scatter_by_radius"] == pytest.approx(expected, rel=0.1)
    assert curve.meta["radius"] == 0
    good = comparisons[comparisons["used"]]
    assert len(good) >= 5 and np.all(good["scatter"] < 1.6 * good["expected"])


def test_e35_mixed_filters_refused():
    """Two filters under one object: refused with their names, separated when one is named."""
    result = make_photometry(filters="gr" * 60)
    with pytest.raises(ConfigError, match="filters g, r"):
        differential_light_curve(result)
    curve, _ = differential_light_curve(result, filter="g")
    assert len(curve) == 60 and set(curve["filter"]) == {"g"}
    with pytest.raises(ConfigError, match=r"'i'.*g, r"):
        differential_light_curve(result, filter="i")


def test_cloud_is_flagged():
    """Epochs in which the comparison stars have lost more than 30 % carry the flag, and stay."""
    curve, _ = differential_light_curve(make_photometry())
    assert np.flatnonzero(curve["cloudy"]).tolist() == [60, 61, 62]
    assert np.all((curve["flags"] & CLOUDY > 0) == curve["cloudy"])
    assert np.all(np.isfinite(curve["flux"]))
    # The ensemble is the transparency that was put in, each epoch known to 0.2 %.
    truth = sky_of_the_night(120)
    assert np.allclose(curve["transparency"], truth / np.median(truth), atol=0.01)


def test_dip_of_the_target_survives():
    """A dip of 2 % is found with its depth: the target is not in its own ensemble."""
    curve, _ = differential_light_curve(make_photometry(dip=0.02))
    inside = (np.arange(120) >= 72) & (np.arange(120) < 96)
    depth = np.mean(curve["flux"][~inside]) - np.mean(curve["flux"][inside])
    # Scatter 0.5 %, 24 epochs: 0.11 %.
    assert depth == pytest.approx(0.02, abs=0.0035)
    assert np.allclose(curve["delta_mag"], -2.5 * np.log10(curve["flux"]))


def test_negative_and_missing_target_stay_in_the_curve():
    """E29: an epoch without a flux is NaN, a negative one has no magnitude; no row is lost."""
    result = make_photometry()
    result.flux[TARGET, 5] = np.nan
    result.flux[TARGET, 6] = -10.0
    curve, _ = differential_light_curve(result)
    assert len(curve) == 120 and np.isnan(curve["flux"][5])
    assert curve["flux"][6] < 0 and np.isnan(curve["delta_mag"][6])
    assert np.isfinite(curve["flux_err"][6])


def test_saturated_target_warns():
    """E30: a target that is saturated is measured, with a warning."""
    result = make_photometry()
    result.flags[TARGET, :4] |= flag.SATURATED
    with pytest.warns(DataredWarning, match="saturated in 4 of 120"):
        differential_light_curve(result)


def test_median_correction_is_the_other_way():
    """F20: the correction is the injected haze; a variable star does not move it."""
    rng = np.random.default_rng(6)
    haze = 0.3 * np.sin(np.arange(60) / 10)
    magnitude = rng.uniform(12, 15, 7)[:, None] + haze + rng.normal(0, 0.005, (7, 60))
    magnitude[2] += 0.2 * np.cos(np.arange(60) / 7)
    magnitude[4, 10:20] = np.nan
    correction = median_correction(magnitude)
    shift = np.median(correction - haze)
    # Seven stars of 5 mmag: 2.4 mmag; the variable adds a little.
    assert np.std(correction - haze - shift) < 0.005


def test_spread_feels_eclipses_but_not_single_outliers():
    """One wild point of 100 changes nothing; ten eclipsed ones do; NaN is no value."""
    values = np.random.default_rng(2).normal(0, 1, 1000)
    # The percentiles of 1000 values are known to about 4 %.
    assert spread(values)[0] == pytest.approx(1.0, abs=0.15)
    wild = values.copy()
    wild[:10] = 100
    assert spread(wild)[0] < 1.3
    wild[:100] = -8
    assert spread(wild)[0] > 2
    assert np.isnan(spread([np.nan, 1.0])[0])


def test_flip_step():
    """A step of 15 mmag at the flip is removed and reported with its error."""
    rng = np.random.default_rng(7)
    side = np.arange(120) > 60
    step = 10 ** (-0.4 * 0.015) - 1
    flux = 1 + rng.normal(0, 0.003, 120)
    flux[80:100] -= 0.01
    flux[side] *= 1 + step
    baseline = np.ones(120, bool)
    baseline[78:102] = False
    aligned, found, error = align_sides(flux, np.full(120, 0.003), side, baseline=baseline)
    # 61 and 35 epochs of 0.3 %: 0.064 %.
    assert error == pytest.approx(0.00064, rel=0.1)
    assert found == pytest.approx(step, abs=3 * error)
    assert np.std(aligned[baseline]) == pytest.approx(0.003, rel=0.2)
    same, nothing, _ = align_sides(flux, np.full(120, 0.003), np.zeros(120, bool))
    assert np.isnan(nothing) and np.array_equal(same, flux)


def test_binning():
    """LC-06: 37 epochs in tens are 4 bins, the last one partial; scatter falls as 1/sqrt(n)."""
    time = np.arange(37) / 1440 + 2460000.5
    bins = bin_by_count(time, np.ones(37), np.full(37, 0.01), count=10)
    assert bins["n"].tolist() == [10, 10, 10, 7]
    assert bins["partial"].tolist() == [False, False, False, True]
    assert np.allclose(bins["flux_err"], 0.01 / np.sqrt([10, 10, 10, 7]))
    rng = np.random.default_rng(1)
    flux = 1 + rng.normal(0, 0.01, 8000)
    flux[11] = np.nan
    bins = bin_by_count(np.arange(8000), flux, np.full(8000, 0.01), count=16)
    # 500 bins: known to 3.2 %.
    assert np.std(bins["flux"]) == pytest.approx(0.0025, rel=0.1)
    assert np.median(bins["flux_scatter"]) == pytest.approx(0.0025, rel=0.1)


def test_binning_by_time_keeps_gaps_and_weights():
    """Bins of ten minutes: the gap has none, the rest of the night is partial; weights count."""
    minutes = np.concatenate([np.arange(30), np.arange(60, 74)])
    time = 2460000.5 + minutes / 1440
    bins = bin_by_time(time, np.ones(44), np.full(44, 0.01), width=10 / 1440)
    assert bins["n"].tolist() == [10, 10, 10, 10, 4]
    assert bins["partial"].tolist() == [False, False, False, False, True]
    assert bins["time"][0] == pytest.approx(2460000.5 + 4.5 / 1440, abs=1e-9)
    weighted = bin_by_count([0, 1], [1.0, 2.0], [0.1, 0.2], count=2)
    assert weighted["flux"][0] == pytest.approx((1 / 0.01 + 2 / 0.04) / (1 / 0.01 + 1 / 0.04))
    assert len(bin_by_time([], [], [], width=1.0)) == 0
    with pytest.raises(ValueError, match="positive"):
        bin_by_time(time, np.ones(44), np.ones(44), width=0)


def test_differential_night_writes_its_tables(tmp_path):
    """The light curve of the target and the reasons are on disk; a second run makes nothing."""
    night = write(make_photometry(dip=0.02), tmp_path / "work")
    curve = differential_night(night)
    assert set(curve["status"]) == {"made"} and len(curve) == 120
    for name in ("bjd_tdb_mid", "jd_utc_mid", "airmass", "flux", "flux_err", "flags", "flipped"):
        assert name in curve.colnames
    table = Table.read(night.work / "lightcurve.ecsv")
    assert np.allclose(table["flux"], curve["flux"])
    stars = Table.read(night.work / "comparisons.ecsv")
    assert stars["used"].sum() == 6 and len(stars) == 10
    before = (night.work / "lightcurve.ecsv").read_bytes()
    assert set(differential_night(night)["status"]) == {"current"}
    assert (night.work / "lightcurve.ecsv").read_bytes() == before
    assert set(differential_night(night, radius=1)["status"]) == {"made"}


def test_differential_night_of_mixed_filters_and_without_target(tmp_path):
    """Mixed filters are refused by name; a night without a target is skipped with the reason."""
    result = make_photometry(filters="gr" * 60)
    with pytest.raises(ConfigError, match="g, r"):
        differential_night(write(result, tmp_path / "mixed"))
    named = write(result, tmp_path / "named", filter="r")
    assert len(differential_night(named)) == 60
    result.stars["target"] = False
    without = write(result, tmp_path / "none")
    # Curves of a run when there still was a target.
    old = [without.work / "lightcurve.ecsv", without.work / "comparisons.ecsv"]
    for path in old:
        path.write_text("old")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = differential_night(without)
    assert table["status"][0] == "skipped" and "target" in table["reason"][0]
    assert not any(path.exists() for path in old)
