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
    comparison_stars,
    differential_light_curve,
    differential_night,
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


def test_reference_selection():
    """LC-04, 000-09, 000-10: variable, saturated and faint stars are refused, with a reason."""
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


def choose(result, **options):
    """Comparison stars of the first radius."""
    parts = (part[:, :, 0] for part in (result.flux, result.flux_err, result.flags))
    return comparison_stars(*parts, target=TARGET, **options)


def test_reference_selection_by_colour():
    """LC-04, 000-09: a much redder or bluer star is refused; one of unknown colour is not."""
    result = make_photometry()
    colour = np.full(10, 0.6)
    colour[[2, 4, 5]] = 1.9, -0.7, np.nan
    table = choose(result, colour=colour)
    assert table["reason"][2] == "redder than the target by 1.30 mag"
    assert table["reason"][4] == "bluer than the target by 1.30 mag"
    assert table["star"][table["used"]].tolist() == [5, 6, 7, 9]
    assert np.array_equal(table["colour"], colour, equal_nan=True)
    colour[TARGET] = np.nan
    assert choose(result, colour=colour)["used"].sum() == 6
    # In a night the colour is that of the catalogue.
    result.stars["cat_g"], result.stars["cat_r"] = 15.0, 14.4
    result.stars["cat_g"][2] = 16.3
    _, chosen = differential_light_curve(result)
    assert chosen["colour"][TARGET] == pytest.approx(0.6)
    assert chosen["reason"][2].startswith("redder than the target by 1.3")


def test_reference_selection_by_distance():
    """LC-04: of more stars than are needed the nearest stay, and the distance is told."""
    result = make_photometry()
    distance = np.array([0.0, 1, 9, 1, 2, 3, 8, 4, 1, 5])
    table = choose(result, distance=distance, max_stars=4)
    assert table["star"][table["used"]].tolist() == [4, 5, 7, 9]
    assert table["reason"][2] == "farther than the 4 that are enough: 9.0 arcmin"
    # Without places the brightest, that is those with the best signal-to-noise.
    table = choose(result, max_stars=4)
    assert table["star"][table["used"]].tolist() == [2, 6, 7, 9]
    assert table["reason"][5] == "fainter than the 4 that are enough"
    _, chosen = differential_light_curve(result)
    # Stars are 0.01 deg apart.
    assert np.allclose(chosen["distance"], 0.6 * np.arange(10))


def test_reference_selection_finds_several_variables():
    """LC-04: three of thirty stars vary, by 2, 5 and 20 %: they go, and no other."""
    rng = np.random.default_rng(12)
    level = np.geomspace(2e4, 4e5, 31)
    flux = level[:, None] * sky_of_the_night(120) * np.ones((31, 120))
    for star, size in ((4, 0.02), (20, 0.05), (30, 0.2)):
        flux[star] *= 1 + size * np.sin(np.arange(120) / 8)
    error = np.sqrt(flux)
    flux = flux + error * rng.normal(size=flux.shape)
    table = comparison_stars(flux, error, np.zeros(flux.shape, int), target=15)
    assert np.flatnonzero(~table["used"]).tolist() == [4, 15, 20, 30]
    assert all("varies: scatter" in table["reason"][k] for k in (4, 20, 30))


def test_e37_few_comparison_stars():
    """E37, LC-04: one or two stars make a light curve, with their larger error and a warning."""
    result = make_photometry()
    result.flags[[1, 2, 3, 4, 5, 6, 7, 8]] |= flag.SATURATED
    with pytest.warns(DataredWarning, match="only 1 comparison star:"):
        curve, _ = differential_light_curve(result)
    assert curve.meta["comparison"] == [9]
    assert np.std(curve["flux"]) == pytest.approx(np.median(curve["flux_err"]), rel=0.25)
    result.flags[7] = 0
    with pytest.warns(DataredWarning, match="only 2 comparison stars:"):
        pair, _ = differential_light_curve(result)
    assert np.median(pair["flux_err"]) < np.median(curve["flux_err"])


def test_target_that_is_on_no_frame_is_told():
    """LC-04, E37: a target without any flux has no stars like it: an error says what to check."""
    result = make_photometry()
    result.flux[TARGET] = np.nan
    with pytest.raises(DataredError, match=r"star 0 has no flux in any of the 120.*position"):
        differential_light_curve(result)


def test_e41_epochs_are_in_the_order_of_time(caplog):
    """E41, LC-01: two nights in any order come out in time; frames of one time are told."""
    result = make_photometry()
    result.epochs["jd_utc_mid"][60:] += 1.0
    order = np.random.default_rng(3).permutation(120)
    straight, _ = differential_light_curve(result)
    mixed = Photometry(
        result.stars, result.epochs[order],
        *(part[:, order] for part in (result.flux, result.flux_err, result.flags)),
        *(part[:, order] for part in (result.sky, result.x, result.y)),
        result.radii, "px", 0, GAIN,
    )  # fmt: skip
    curve, _ = differential_light_curve(mixed)
    assert np.all(np.diff(curve["jd_utc_mid"]) > 0) and not caplog.records
    assert curve["file"].tolist() == straight["file"].tolist()
    assert np.allclose(curve["flux"], straight["flux"])
    result.epochs["jd_utc_mid"][7] = result.epochs["jd_utc_mid"][6]
    curve, _ = differential_light_curve(result)
    assert len(curve) == 120 and "6.fits and 7.fits" in caplog.text


def test_differential_sum_is_the_plain_ratio():
    """LC-03: with method "sum" the curve is the target over the sum of the comparison stars."""
    result = make_photometry()
    curve, chosen = differential_light_curve(result, method="sum")
    used = np.flatnonzero(chosen["used"])
    ratio = result.flux[TARGET, :, 0] / result.flux[used, :, 0].sum(axis=0)
    clear = ~curve["cloudy"]
    assert np.allclose(curve["flux"], ratio / np.median(ratio[clear]))
    assert curve.meta["method"] == "sum" and np.all(curve["n_comparison"] == 6)
    # Filled pixels stay in the sum; a star that is missing does not.
    result.flags[used[0], ::3] |= flag.BAD_PIXEL
    result.flux[used[1], 5] = np.nan
    curve, _ = differential_light_curve(result, method="sum")
    assert np.all(curve["n_comparison"] == 5) and np.all(np.isfinite(curve["flux"]))
    result.flux[used[0], 70] = np.nan
    with pytest.raises(DataredError, match="none of the 2 comparison stars"):
        differential_light_curve(result, comparison=used[:2], method="sum")
    with pytest.raises(ConfigError, match="ensemble, sum"):
        differential_light_curve(result, method="median")


def test_uneven_cloud_is_in_the_error():
    """LC-03: where a cloud dims the stars differently the error of the target grows with it."""
    result = make_photometry(n_epoch=120)
    rng = np.random.default_rng(8)
    result.flux[:, 40:48] *= 1 + 0.03 * rng.normal(size=(10, 8))[:, :, None]
    curve, _ = differential_light_curve(result)
    # Five or six stars tell a scatter of 3 % to 30 %; 8 frames of them to 11 %.
    inside = np.sqrt(np.mean(curve["flux_err"][40:48] ** 2))
    assert inside == pytest.approx(0.03 * np.sqrt(7 / 6), rel=0.3)
    assert np.median(curve["flux_err"][:40]) < 0.008


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
