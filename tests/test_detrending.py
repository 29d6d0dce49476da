"""Baselines: columns are chosen outside of the event, and the event stays what it is."""

import warnings

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from datared.curveflags import flag_outliers
from datared.detrending import (
    COLUMNS,
    baseline_columns,
    baseline_zero,
    choose_columns,
    detrend,
)
from datared.errors import DataredError, DataredWarning

DEPTH, NOISE, STEP = 0.015, 0.003, 10 ** (-0.4 * 0.015) - 1
NIGHTS = 40


def night(seed, *inject, n=130, depth=DEPTH, flip_at=0.55):
    """A night of 5 h with a dip of 2.6 h, as a light curve; where it is in the dip, and its shape.

    ``inject`` names what the brightness follows: "flip" (15 mmag), "airmass", "fwhm", "time".
    """
    rng = np.random.default_rng(seed)
    hours = np.linspace(0, 5, n)
    middle = rng.uniform(2.2, 2.8)
    shape = np.clip((1.3 - np.abs(hours - middle)) / 0.3, 0, 1)
    zenith = 15 + 12 * np.abs(hours - rng.uniform(0, 1.2))
    airmass = 1 / np.cos(np.radians(zenith))
    walk = np.cumsum(rng.normal(size=n))
    fwhm = 3 + 0.3 * (walk - walk.mean()) / np.std(walk) + 0.15 * rng.normal(size=n)
    side = hours > 5 * flip_at
    terms = {
        "flip": STEP * side,
        "airmass": 0.012 * (airmass - airmass.mean()) / np.ptp(airmass),
        "fwhm": 0.003 * (fwhm - 3) / np.std(fwhm),
        "time": 0.004 * (hours - 2.5),
    }
    flux = (1 - depth * shape) * (1 + sum(terms[name] for name in inject))
    curve = Table({"bjd_tdb_mid": 2460000.5 + hours / 24, "airmass": airmass, "fwhm": fwhm})
    curve["flux"] = flux + rng.normal(size=n) * NOISE
    curve["flux_err"] = 0.85 * NOISE
    curve["x"] = 500 + rng.normal(size=n) + 300 * side
    curve["y"] = 400 - 0.3 * hours**2 + rng.normal(size=n) - 200 * side
    curve["sky"] = 100 + 10 * rng.normal(size=n)
    curve["flipped"] = side
    return curve, np.abs(hours - middle) > 1.3 + 5 / 60, shape


def quiet_choice(curve, **options):
    """Choose without the warnings on collinear columns, which many such nights have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataredWarning)
        return choose_columns(curve, **options)


def fitted_depth(curve, shape, names):
    """Depth of the known shape and its error, fitted together with the columns."""
    columns = baseline_columns(curve, names=names)
    design = np.column_stack([np.ones(len(curve)), -shape, *columns.columns.values()])
    values = np.linalg.lstsq(design, curve["flux"], rcond=None)[0]
    rest = curve["flux"] - design @ values
    variance = np.sum(rest**2) / (len(curve) - design.shape[1])
    return values[1], np.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1])


def test_baseline_columns_are_standardised_over_the_fitted_epochs():
    """LC-08: all columns have mean 0 and width 1 where the fit is; positions lose the flip."""
    curve, outside, _ = night(1)
    columns = baseline_columns(curve, used=outside)
    assert columns.colnames == list(COLUMNS) and not columns.meta["left_out"]
    for name in columns.colnames:
        assert np.mean(columns[name][outside]) == pytest.approx(0, abs=1e-9)
        assert np.std(columns[name][outside]) == pytest.approx(1)
    # The jump of 300 px is taken off x: it does not follow the side of the pier any more.
    assert abs(np.corrcoef(columns["x"], columns["flip"])[0, 1]) < 0.3
    square = columns["time"] ** 2
    assert np.corrcoef(square, columns["time2"])[0, 1] == pytest.approx(1)


def test_column_with_nan_constant_or_missing_is_told():
    """PH-13, E29: NaN and masked values are the mean; useless columns are left out, with reason."""
    curve, outside, _ = night(1)
    curve["airmass"][::30] = np.nan
    curve["fwhm"] = MaskedColumn(curve["fwhm"], mask=np.arange(130) % 40 == 1)
    curve["sky"][:60] = np.nan
    curve["x"] = 512.0
    curve.remove_column("y")
    columns = baseline_columns(curve)
    assert columns.meta["filled"] == {"airmass": 5, "fwhm": 4}
    assert np.all(columns["airmass"][::30] == 0) and np.all(np.isfinite(columns["fwhm"]))
    assert columns.meta["left_out"] == {
        "x": "constant over these epochs",
        "y": "the light curve has no column y",
        "sky": "missing in 60 of 130 epochs",
    }
    table = quiet_choice(curve, outside=outside)
    assert table["chosen"].sum() == 1 and set(table.meta["left_out"]) == {"x", "y", "sky"}
    with pytest.raises(ValueError, match=r"\['seeing'\] are not known; valid are \['time'"):
        baseline_columns(curve, names=["seeing"])
    with pytest.raises(ValueError, match=r"shape \(7,\) does not fit 130 epochs"):
        baseline_columns(curve, used=np.ones(7, bool))


def test_times_of_a_baseline_are_bjd_and_jd_utc_without_a_site():
    """PH-13: the slope in time is that of BJD_TDB; where it is masked (no site) that of JD_UTC."""
    curve, _, _ = night(1)
    wanted = baseline_columns(curve, names=["time", "time2"])
    curve["jd_utc_mid"] = curve["bjd_tdb_mid"][::-1]
    assert np.array_equal(baseline_columns(curve, names=["time"])["time"], wanted["time"])
    curve["jd_utc_mid"] = curve["bjd_tdb_mid"] - 0.003
    curve["bjd_tdb_mid"] = MaskedColumn(curve["bjd_tdb_mid"], mask=True)
    found = baseline_columns(curve, names=["time", "time2"])
    for name in ("time", "time2"):
        assert np.allclose(found[name], wanted[name], atol=1e-5)
    curve["flux"][10] += 0.1
    assert np.flatnonzero(flag_outliers(curve)["flagged"]).tolist() == [10]
    # A single time that is missing costs nothing but its own value.
    curve["jd_utc_mid"][5] = np.nan
    assert baseline_columns(curve, names=["time"]).meta["filled"] == {"time": 1}
    curve.remove_columns(["jd_utc_mid", "bjd_tdb_mid"])
    assert "missing" in baseline_columns(curve, names=["time"]).meta["left_out"]["time"]
    assert not flag_outliers(curve)["flagged"].any()


@pytest.mark.parametrize(
    ("inject", "least"), [("flip", 1.0), ("fwhm", 0.9), ("airmass", 0.6), ("time", 0.6)]
)
def test_injected_column_is_found_and_the_depth_is_right(inject, least):
    """LC-08, LC-10: over 40 nights the injected column is chosen, and the depth has no bias.

    A depth is known to 0.6 ppt, the mean of 40 to 0.1 ppt. Airmass and time are much alike on
    nights that follow the star down from the meridian; then either stands for the other.
    """
    found, errors = [], []
    for seed in range(NIGHTS):
        curve, outside, shape = night(seed, inject, flip_at=0.55 if inject == "flip" else 2)
        chosen = quiet_choice(curve, outside=outside).meta["chosen"]
        found.append(inject in chosen)
        errors.append(fitted_depth(curve, shape, chosen)[0] - DEPTH)
    assert np.mean(found) >= least
    assert np.mean(errors) == pytest.approx(0, abs=3 * np.std(errors) / np.sqrt(NIGHTS))
    assert np.std(errors) < 0.0011


def test_a_quiet_night_gets_few_columns_and_keeps_its_transit():
    """LC-08: without a trend hardly a column is chosen; the depth has its right pulls."""
    extra, pulls = [], []
    for seed in range(NIGHTS):
        curve, outside, shape = night(seed)
        table = quiet_choice(curve, outside=outside)
        extra.append(len(table.meta["chosen"]) - 1)  # The flip is always there.
        depth, error = fitted_depth(curve, shape, table.meta["chosen"])
        pulls.append((depth - DEPTH) / error)
    # Of 7 columns each beats ln(60) + 2 by chance in 1.4 % of the nights; many are alike.
    assert np.mean(extra) < 0.4
    # 40 pulls: their mean is known to 0.16, their width to 0.11; 0.05 for the choice itself.
    assert abs(np.mean(pulls)) < 0.48 and 0.7 < np.std(pulls) < 1.4


def test_choice_does_not_look_at_the_event():
    """Whatever is done to the epochs of the event, the table stays the same."""
    curve, outside, _ = night(4, "fwhm", "airmass")
    before = quiet_choice(curve, outside=outside)
    curve["flux"][~outside] -= np.random.default_rng(1).uniform(0, 0.3, np.sum(~outside))
    curve["fwhm"][~outside] += 3
    after = quiet_choice(curve, outside=outside)
    assert after.meta["chosen"] == before.meta["chosen"]
    assert np.allclose(after["bic"], before["bic"]) and list(after["columns"]) == list(
        before["columns"]
    )


def test_bic_is_that_of_its_formula():
    """Independent: chi-square by numpy's polynomial fit; k counts the constant; one set chosen."""
    curve, outside, _ = night(2, "time")
    table = quiet_choice(curve, outside=outside, names=["time", "time2"], always=())
    n = int(outside.sum())
    error = np.hypot(curve["flux_err"], table.meta["jitter"])[outside]
    t, flux = curve["bjd_tdb_mid"][outside] - 2460000.5, curve["flux"][outside]
    rows = {str(row["columns"]): row for row in table}
    assert set(rows) == {"constant", "time", "time + time2"} and table.meta["n"] == n
    for order, name in enumerate(("constant", "time", "time + time2")):
        fit = np.polynomial.Polynomial.fit(t, flux, order, w=1 / error)
        chi2 = np.sum(((flux - fit(t)) / error) ** 2)
        assert rows[name]["chi2"] == pytest.approx(chi2) and rows[name]["k"] == order + 1
        assert rows[name]["bic"] == pytest.approx(chi2 + (order + 1) * np.log(n))
    assert table["delta_bic"][0] == 0 and np.all(np.diff(table["bic"]) >= 0)
    assert table["chosen"].sum() == 1 and str(table["columns"][table["chosen"]][0]) == "time"
    # The best set has chi-square as large as its degrees of freedom.
    assert min(r["chi2"] - n + r["k"] for r in table) == pytest.approx(0, abs=0.01 * n)


def test_fewest_columns_win_within_the_margin():
    """A column that lowers BIC by less than the margin is not taken; the reason says so."""
    for seed in range(10):
        curve, outside, _ = night(seed)
        table = quiet_choice(curve, outside=outside, always=())
        row = table[table["chosen"]][0]
        assert row["delta_bic"] <= 2
        assert row["k"] == table["k"][table["delta_bic"] <= 2].min()
        words = "lowest BIC, and" if row["delta_bic"] == 0 else "fewest columns within 2"
        assert words in table.meta["reason"]


def test_collinear_columns_warn_and_are_never_together():
    """Airmass that only rises is much like the time: a warning says so, no set has both."""
    curve, outside, _ = night(3)
    curve["airmass"] = 1.1 + 2 * (curve["bjd_tdb_mid"] - 2460000.5)
    with pytest.warns(DataredWarning, match=r"time and airmass \(correlation \+1.000\).*no set"):
        table = choose_columns(curve, outside=outside)
    assert ("time", "airmass") in table.meta["collinear"]
    both = [{"time", "airmass"} <= set(str(name).split(" + ")) for name in table["columns"]]
    assert not any(both)
    with pytest.warns(DataredWarning, match="time and airmass"):
        table = choose_columns(curve, outside=outside, always=("time", "airmass"))
    assert table.meta["left_out"]["airmass"] == "it says the same as time"
    assert all("time" in str(name) for name in table["columns"])


def test_flip_step_is_not_told_from_one_side():
    """LC-10: no epoch outside after the flip: left out, with a warning that says so."""
    curve, outside, _ = night(3, "flip")
    with pytest.warns(DataredWarning, match="one side of the pier only.*fit both together"):
        table = choose_columns(
            curve, outside=outside & ~curve["flipped"], names=["fwhm", "sky", "flip"]
        )
    assert "flip" in table.meta["left_out"]
    assert not any("flip" in str(name) for name in table["columns"])
    # The fit of the whole night has both sides, and can still tell the step with the model.
    assert "flip" in baseline_columns(curve).colnames


def test_few_epochs_outside():
    """With 12 epochs there are two coefficients at most, with 4 there is an error."""
    curve, outside, _ = night(1)
    rows = np.flatnonzero(outside)
    few = np.zeros(len(curve), bool)
    few[rows[:12]] = True
    table = choose_columns(curve, outside=few, names=["fwhm", "sky", "x"], always=())
    assert table["k"].max() == 2 and len(table) == 4
    few[rows[4:]] = False
    with pytest.raises(DataredError, match=r"only 4 epochs outside of the event.*at least 5"):
        choose_columns(curve, outside=few)


def test_detrend_removes_the_baseline_and_reports_it():
    """LC-08, LC-10: a step of 15 mmag and a slope with the FWHM are divided out, with errors."""
    curve, outside, shape = night(7, "flip", "fwhm")
    flat, table = detrend(curve, outside=outside, names=["flip", "fwhm"])
    assert list(table["column"]) == ["constant", "flip", "fwhm"]
    # Of +-1 standard deviation: the step is the coefficient over the standard deviation of 0 and 1.
    width = np.std(curve["flipped"][outside].astype(float))
    step = table["coefficient"][1] / width
    assert step == pytest.approx(STEP, abs=3 * table["error"][1] / width)
    # The two blocks hold about 33 epochs each: 0.74 ppt, and the correlation with the FWHM.
    assert NOISE * np.sqrt(2 / 33) < table["error"][1] / width < 0.002
    # The rest outside is white noise of 60 epochs and more: its scatter is known to 10 %.
    assert np.std(flat["flux"][outside]) == pytest.approx(NOISE, rel=0.3)
    assert np.mean(flat["flux"][outside]) == pytest.approx(1, abs=1e-3)
    assert np.allclose(flat["flux"] * flat["baseline"], curve["flux"])
    inside = shape == 1
    assert np.mean(flat["flux"][inside]) == pytest.approx(1 - DEPTH, abs=0.0025)
    assert "baseline" not in curve.colnames


def test_detrend_warns_where_it_extrapolates():
    """LC-08: values in the event that were not seen outside; a column that cannot be used."""
    curve, outside, _ = night(7)
    curve["fwhm"][~outside] += 2
    curve["sky"] = 50.0
    with pytest.warns(DataredWarning) as caught:
        detrend(curve, outside=outside, names=["fwhm", "sky"])
    told = " ".join(str(warning.message) for warning in caught)
    assert "no correction for sky: constant" in told
    assert "fwhm" in told and "lie beyond the values outside of it" in told
    with pytest.raises(DataredError, match="2 epochs outside of the event cannot tell 2"):
        detrend(curve, outside=np.arange(130) < 2, names=["fwhm"])


def test_baseline_zero():
    """LC-05: outside of the event the flux is 1 and the magnitude that of the literature."""
    curve, outside, shape = night(5, depth=0.02)
    curve["flux"] *= 0.8
    curve["flux_err"] *= 0.8
    curve["flux"][3] = -0.1
    curve["flux"][4] = np.nan
    outside[3] = False
    result = baseline_zero(curve, outside=outside, magnitude=11.29)
    error = result.meta["baseline_err"]
    # 60 epochs of 0.3 % outside.
    assert error == pytest.approx(NOISE / np.sqrt(np.sum(outside) - 1), rel=0.3)
    assert result.meta["baseline"] == pytest.approx(0.8, rel=4 * error)
    assert np.nanmean(result["flux"][outside]) == pytest.approx(1, abs=1e-6)
    assert np.nanmean(result["magnitude"][outside]) == pytest.approx(11.29, abs=1e-3)
    # F14: 2 % are 21.9 mmag; 50 epochs at the ground know it to 0.5 mmag.
    dip = np.nanmean(result["magnitude"][shape == 1]) - 11.29
    assert dip == pytest.approx(0.0219, abs=0.002)
    assert np.isnan(result["magnitude"][3]) and np.isnan(result["magnitude"][4])
    assert result["magnitude_err"][10] == pytest.approx(1.0857 * 0.85 * NOISE, rel=0.02)
    assert "magnitude" not in baseline_zero(curve, outside=outside).colnames


def test_baseline_zero_without_baseline():
    """LC-05: no epoch outside of the event, or none with light: an error says what to do."""
    curve, outside, _ = night(5)
    with pytest.raises(DataredError, match=r"no epoch outside of the event.*Widen outside"):
        baseline_zero(curve, outside=np.zeros(130, bool), magnitude=11.0)
    curve["flux"] = -curve["flux"]
    with pytest.raises(DataredError, match="not positive"):
        baseline_zero(curve, outside=outside)


@pytest.mark.parametrize("width", [2, 3, 5, 20])
@pytest.mark.parametrize("flank", [0, 1, 2, 6])
def test_outliers_are_never_points_of_a_transit(width, flank):
    """A dip of 40 times the noise, steep or flat, long or of two epochs, alone: nothing flagged."""
    rng = np.random.default_rng(width + flank)
    number = np.arange(120)
    for start in (20, 50.5, 90):
        away = np.abs(number - start - width / 2 + 0.5) - width / 2
        shape = np.clip(1 - away / (flank + 1e-9), 0, 1) if flank else away <= 0
        curve = Table({"bjd_tdb_mid": 2460000.5 + number / 720})
        curve["flux"] = 1 - 0.02 * shape + rng.normal(0, 0.0005, 120)
        curve["flux_err"] = 0.0005
        assert np.sum(shape > 0) >= 2
        assert not flag_outliers(curve)["flagged"].any()


@pytest.mark.parametrize("flank", [2, 3, 5])
def test_outliers_are_never_the_lowest_point_of_an_eclipse(flank):
    """An eclipse without a ground: its one lowest epoch lies on the line of those before it."""
    number = np.arange(60)
    noise = np.random.default_rng(flank).normal(0, 0.0005, 60)
    curve = Table({"bjd_tdb_mid": 2460000.5 + number / 720, "flux_err": np.full(60, 0.0005)})
    curve["flux"] = 1 - 0.1 * np.clip(1 - np.abs(number - 30) / flank, 0, 1) + noise
    assert not flag_outliers(curve)["flagged"].any()


def test_outliers_and_clouds_are_flagged_with_their_reason():
    """Wild epochs outside and in the dip are found; clouds by the comparison stars."""
    curve, _, _ = night(8)
    rng = np.random.default_rng(3)
    curve["transparency"] = 1 + 0.01 * rng.normal(size=130)
    curve["transparency_err"] = 0.001
    curve["cloudy"] = np.isin(np.arange(130), (20, 21))
    curve["transparency_err"][33] = 0.01
    curve["flux"][40] = np.nan
    for row in (10, 60, 110):  # The second one is at the ground of the dip.
        curve["flux"][row] += 12 * NOISE * (-1) ** row
    table = flag_outliers(curve)
    found = {int(row): str(table["reason"][row]) for row in np.flatnonzero(table["flagged"])}
    assert found == {
        10: "single wild value", 60: "single wild value", 110: "single wild value",
        20: "cloudy", 21: "cloudy", 33: "comparison stars uncertain", 40: "no flux",
    }  # fmt: skip
    mixed = rng.permutation(130)
    assert np.array_equal(flag_outliers(curve[mixed])["reason"], table["reason"][mixed])
    with pytest.raises(ValueError, match="limit 0 must be positive"):
        flag_outliers(curve, limit=0)
    assert not flag_outliers(curve[:3])["flagged"].any()


def test_white_noise_has_no_outliers():
    """30 nights of white noise: at 5 standard deviations none of 3900 epochs is flagged."""
    for seed in range(30):
        assert not flag_outliers(night(seed)[0])["flagged"].any()
