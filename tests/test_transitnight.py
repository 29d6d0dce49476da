"""The stage `transit`: choices out of transit, one fit, honest notes, the same bytes."""

import dataclasses
import functools
import hashlib
import json

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table

from datared import pipeline
from datared.baselines import COLUMNS
from datared.errors import DataredError
from datared.night import Night
from datared.summary import summarise
from datared.transit import transit_duration, transit_flux
from datared.transitmeasure import measure_transit, usable_epochs
from datared.transitnight import PRODUCTS, transit_night
from datared.transitoptions import COLUMNS as NAMES
from datared.transitoptions import TransitOptions, transit_problems

PLANET = {"radius_ratio": 0.1025, "scaled_axis": 6.2, "impact": 0.6}
MIDDLE, PERIOD, LIMB = 2460587.4, 1.0917, (0.45, 0.20)
KNOWN = TransitOptions(
    t0=MIDDLE - 100 * PERIOD, t0_err=2e-4, period=PERIOD, period_err=1e-6, scaled_axis=(6.2, 0.1),
    impact=(0.6, 0.03), limb_darkening=LIMB, radius_ratio=0.1, reference="a paper",
)  # fmt: skip
# What comparison stars say: the air does as much to them as to the star (1 ppt), the rest nothing.
TRENDS = {"time": 1e-4, "airmass": 1e-3, "fwhm": 1e-4, "x": 1e-4, "y": 1e-4, "sky": 1e-4}
DURATION = transit_duration(period=PERIOD, **PLANET)


def curve(*, seed=0, n=130, start=-0.08, end=0.09, noise=0.0015, late=0.0, planet=PLANET):
    """Light curve of a night with a transit `late` days after the prediction, and an airmass."""
    rng = np.random.default_rng(seed)
    time = MIDDLE + np.linspace(start, end, n)
    airmass = 1.1 + 8 * (time - MIDDLE + 0.05) ** 2
    flux = 1 + 0.02 * (airmass - 1.2) + rng.normal(0, noise, n)
    if planet:
        flux *= transit_flux(
            time, mid_time=MIDDLE + late, period=PERIOD, limb_darkening=LIMB, exposure=60 / 86400,
            **planet,
        )  # fmt: skip
    table = Table(
        {
            "epoch": np.arange(n), "bjd_tdb_mid": time, "exptime": np.full(n, 60.0),
            "airmass": airmass, "flux": flux, "flux_err": np.full(n, noise),
            "fwhm": rng.normal(2.5, 0.2, n), "x": rng.normal(300, 3, n),
            "y": rng.normal(200, 3, n), "sky": rng.normal(50, 5, n),
            "flipped": np.zeros(n, bool), "cloudy": np.zeros(n, bool),
        },
        meta={"star": 3, "filter": "r", "trends": dict(TRENDS), "trend_stars": 20},
    )  # fmt: skip
    return table


def night_of(tmp_path, table, options=KNOWN):
    """Night of which only the light curve is there."""
    (tmp_path / "raw").mkdir(exist_ok=True)
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    if table is not None:
        table.write(work / "lightcurve.ecsv", overwrite=True)
    place = SkyCoord(30, 40, unit="deg")
    return Night("a night", tmp_path / "raw", work, target_coord=place, transit=options)


@pytest.fixture
def brief(monkeypatch):
    """Sample for a moment only, where it is not the posterior that is judged."""
    monkeypatch.setattr("datared.transitposterior.BURN_IN", 30)
    monkeypatch.setattr("datared.transitposterior.DRAWS", 500)


@pytest.fixture(scope="module")
def measured():
    """Return what is measured in a transit that is three minutes late."""
    return measure_transit(curve(late=3 / 1440), KNOWN)


def test_transit_of_a_simulated_curve_is_recovered(measured):
    """LC-09, F14: radius and mid-time within 2.5 sigma; errors as large as the noise makes them.

    130 epochs of 0.15 % noise, a third of them in transit: the depth is known to about
    0.0015 sqrt(1/45 + 1/85) = 0.03 % before the baseline, the radius to 0.03 / (2 x 0.1) = 0.0014.
    """
    numbers, table, _, samples = measured
    found = numbers["posterior"]["parameters"]
    for name, truth in (("radius_ratio", 0.1025), ("mid_time", MIDDLE + 3 / 1440)):
        one = found[name]
        assert abs(one["median"] - truth) < 2.5 * one["error_red"], name
        assert one["error_red"] >= one["error"]
    assert 0.0008 < found["radius_ratio"]["error"] < 0.004
    assert 3e-4 < found["mid_time"]["error"] < 1.5e-3
    late = found["o_minus_c"]
    # Ephemeris: 2e-4 d and 100 x 1e-6 d, 0.32 min together.
    assert abs(late["median"] - 3) < 2.5 * late["error_red"]
    expected = np.hypot(1440 * found["mid_time"]["error_red"], 1440 * np.hypot(2e-4, 1e-4))
    assert late["error_red"] == pytest.approx(expected, rel=1e-6)
    assert numbers["posterior"]["significant"] and numbers["notes"] == []
    assert found["depth"]["median"] == pytest.approx(found["radius_ratio"]["median"] ** 2, rel=0.02)
    assert found["scaled_axis"]["error_red"] is None  # Its prior's, not the light curve's.
    assert numbers["noise"]["scatter"] == pytest.approx(0.0015, rel=0.2)
    assert 0.6 < numbers["noise"]["beta"] < 1.4
    trapezoid = numbers["trapezoid"]
    assert trapezoid["significant"] and abs(trapezoid["values"]["mid_time"] - MIDDLE) < 0.004
    assert len(samples) > 1000 and len(table) == 130
    good = np.asarray(table["used"], bool)
    assert np.allclose(table["residual"], table["flux"] - table["model"], equal_nan=True)
    assert np.isfinite(table["model"]).all() and good.all()


def test_columns_are_chosen_out_of_transit_only(measured, brief):
    """LC-08: a dip ten times as deep, at another place in the window, changes no choice."""
    numbers, table, sets, _ = measured
    assert numbers["columns_chosen"] == ["airmass"]
    assert numbers["columns_reason"] == "as large as in the comparison stars"
    assert numbers["column_widths"] == TRENDS and numbers["trend_stars"] == 20
    outside = np.asarray(table["outside"], bool)
    predicted = np.abs(table["bjd_tdb_mid"] - MIDDLE) < DURATION / 2
    assert not np.any(outside & predicted)
    deep = curve()
    shape = 1 - 0.2 * (np.abs(deep["bjd_tdb_mid"] - MIDDLE + 0.01) < 0.02)
    deep["flux"] = np.where(outside, curve(late=3 / 1440)["flux"], deep["flux"] * shape)
    other = measure_transit(deep, KNOWN, max_steps=20)
    assert other[0]["columns_chosen"] == ["airmass"]
    assert other[0]["columns_reason"] == numbers["columns_reason"]
    assert np.allclose(other[2]["bic"], sets["bic"], rtol=1e-9)
    named = measure_transit(deep, dataclasses.replace(KNOWN, columns=("x",)), max_steps=20)
    assert named[0]["columns"] == ["x"] and len(named[2]) == 0
    assert named[0]["columns_reason"] == "named in the night file"
    assert named[0]["column_widths"] == {"x": np.inf}


def test_unlike_or_unknown_comparison_stars_leave_all_columns_free(measured, brief):
    """LC-08: nothing learned, or a target with another trend: free coefficients, wider errors."""
    unknown = curve(late=3 / 1440)
    unknown.meta["trends"] = {}
    other = curve(late=3 / 1440)
    # As large a part in y as nobody has: 4 ppt, where the others have 0.1.
    other["flux"] *= 1 + 0.004 * (other["y"] - 200) / 3
    for table, words in ((unknown, "too few comparison stars"), (other, "larger trends")):
        numbers, *_ = measure_transit(table, KNOWN, max_steps=100)
        assert words in numbers["columns_reason"]
        assert set(numbers["column_widths"].values()) == {np.inf}
        assert set(numbers["columns"]) == set(TRENDS)
        assert any("larger trends" in note for note in numbers["notes"]) == (table is other)
        assert numbers["noise"]["scatter"] == pytest.approx(0.0015, rel=0.2)
        # A free slope is less sure than one that may be 0.1 ppt at most.
        slope = numbers["posterior"]["coefficients"]["time"][1]
        assert slope > 1.5 * measured[0]["posterior"]["coefficients"]["time"][1]


def test_warnings_of_the_choice_are_notes(brief):
    """LC-08: two columns that say the same are told, not hidden."""
    table = curve(n=60)
    table["airmass"] = 1.1 + (table["bjd_tdb_mid"] - MIDDLE)
    numbers, *_ = measure_transit(table, KNOWN, max_steps=20)
    assert any("time and airmass (correlation" in note for note in numbers["notes"])


def test_copies_of_a_frame_and_masked_times(brief):
    """LC-09, LC-01: two frames of one time give a finite beta; a masked time is none."""
    table = curve(n=60)
    table["bjd_tdb_mid"][30] = table["bjd_tdb_mid"][29]
    table["bjd_tdb_mid"] = MaskedColumn(table["bjd_tdb_mid"], mask=np.arange(60) == 7)
    used, reason = usable_epochs(table)
    assert used.sum() == 59 and reason[7] == "no time"
    numbers, out, *_ = measure_transit(table, KNOWN, max_steps=20)
    assert np.isfinite(numbers["noise"]["beta"]) and np.isfinite(numbers["noise"]["beta_err"])
    assert np.isnan(out["model"][7]) and np.isfinite(out["model"][30])


def test_no_transit_in_the_data_is_said():
    """LC-09: a constant star: no evidence, a note, and no mid-time that passes for one."""
    numbers, *_ = measure_transit(curve(planet=None, seed=4), KNOWN, max_steps=300)
    assert not numbers["posterior"]["significant"]
    assert numbers["posterior"]["log_evidence_red"] < 5
    assert any(note.startswith("no transit is seen") for note in numbers["notes"])


def test_no_transit_expected_is_not_fitted():
    """LC-09: hours away from the prediction there is a note with both times, and no posterior."""
    away = dataclasses.replace(KNOWN, t0=KNOWN.t0 + PERIOD / 2)
    numbers, table, _, samples = measure_transit(curve(), away)
    assert "posterior" not in numbers and len(samples) == 0
    assert numbers["notes"][0].startswith("no transit is expected: the nearest is at BJD_TDB 24605")
    assert numbers["trapezoid"]["significant"]  # What is there is still shown.
    assert np.isfinite(table["residual"]).all()


def test_partial_transit_is_said():
    """LC-09: ingress only: the mid-time is far less sure, and a note says why."""
    half = curve(end=0.0, n=85)
    numbers, *_ = measure_transit(half, KNOWN, max_steps=400)
    assert any("partial transit: no epoch after it" in note for note in numbers["notes"])
    late = numbers["posterior"]["parameters"]["o_minus_c"]
    assert abs(late["median"]) < 3 * late["error_red"] and late["error_red"] > 0.7


def test_red_noise_enlarges_the_errors(brief):
    """LC-06, LC-09: correlated noise: beta above 1.2, and both errors are given, beta apart."""
    table = curve(seed=2)
    table["flux"] *= 1 + 0.0015 * np.sin(2 * np.pi * np.asarray(table["bjd_tdb_mid"]) / 0.03)
    numbers, *_ = measure_transit(table, KNOWN, max_steps=100)
    beta = numbers["noise"]["beta"]
    assert beta > 1.2
    for name in ("mid_time", "radius_ratio", "duration"):
        one = numbers["posterior"]["parameters"][name]
        assert one["error_red"] == pytest.approx(beta * one["error"])
    posterior = numbers["posterior"]
    assert posterior["log_evidence_red"] == pytest.approx(posterior["log_evidence_ratio"] / beta**2)


def test_flagged_epochs_are_left_out_and_kept_in_the_table(brief):
    """LC-09: clouds and a wild value are no data, and stand in the table with the reason."""
    table = curve(seed=5)
    table["cloudy"][3:6] = True
    table["flux"][40] = 1.2
    table["flux"][50] = np.nan
    used, reason = usable_epochs(table)
    assert used.sum() == 125
    assert set(reason[[3, 40, 50]]) == {"cloudy", "single wild value", "no flux"}
    numbers, out, *_ = measure_transit(table, KNOWN, max_steps=50)
    assert numbers["flagged"] == {"cloudy": 3, "single wild value": 1, "no flux": 1}
    assert numbers["n_used"] == 125 and len(out) == 130 and np.isfinite(out["model"]).all()
    assert any("too short" in note for note in numbers["notes"])


def test_without_ephemeris_a_trapezoid_only(tmp_path):
    """LC-09: no [transit]: depth and time of the trapezoid, told as such, and empty samples."""
    night = night_of(tmp_path, curve(), TransitOptions())
    assert list(transit_night(night)["status"]) == ["made"] * 5
    numbers = json.loads((night.work / "transit.json").read_text())
    assert "posterior" not in numbers and "ephemeris" not in numbers
    assert numbers["trapezoid"]["values"]["depth"] == pytest.approx(0.0115, abs=0.0015)
    assert len(Table.read(night.work / "transit_posterior.ecsv")) == 0
    lines = summarise(night, "transit")
    assert "no [transit] in the night file" in lines[1] and "% " not in lines[0][:3]


def test_products_are_atomic_resumable_and_the_same_bytes(tmp_path, monkeypatch, brief):
    """LC-09, HD-07: run, run again, remove one and run again: the same bytes; no leftovers."""
    short = functools.partial(measure_transit, max_steps=60)
    monkeypatch.setattr("datared.transitnight.measure_transit", short)
    night = night_of(tmp_path, curve(n=60))
    names = [*PRODUCTS, "transit.png"]

    def digests():
        return [hashlib.sha256((night.work / n).read_bytes()).hexdigest() for n in names]

    first = transit_night(night)
    assert list(first["file"]) == names and set(first["status"]) == {"made"}
    before = digests()
    assert set(transit_night(night)["status"]) == {"current"}
    (night.work / "transit.ecsv").unlink()
    assert set(transit_night(night)["status"]) == {"made"}
    assert digests() == before
    assert not list(night.work.glob(".tmp-*"))
    changed = dataclasses.replace(night, transit=dataclasses.replace(KNOWN, t0_err=3e-4))
    assert set(transit_night(changed)["status"]) == {"made"}
    lines = summarise(night, "transit")
    assert lines[0].startswith("60 of 60 epochs, baseline of a constant")
    assert lines[1].startswith("Rp/R* 0.1") and "published 0.1000" in lines[1]
    assert "min after the prediction" in lines[2]


def test_skipped_without_target_or_epochs_and_nothing_old_stays(tmp_path):
    """LC-09: no target, or nine epochs: skipped with the reason; products of before are gone."""
    night = night_of(tmp_path, curve(n=60), TransitOptions())
    transit_night(night)
    dark = curve(n=14)
    dark["cloudy"][:4] = True
    dark["flux"][6] = np.nan
    few = transit_night(night_of(tmp_path, dark, TransitOptions()))
    told = "9 epochs can be used; a transit needs 10 (left out: 4 cloudy, 1 no flux)"
    assert list(few["status"]) == ["skipped"] and few["reason"][0] == told
    assert not any((night.work / name).exists() for name in PRODUCTS)
    (night.work / "lightcurve.ecsv").unlink()
    with pytest.raises(DataredError, match="run the stage lightcurve"):
        transit_night(night)
    nobody = transit_night(dataclasses.replace(night, target_coord=None))
    assert "no target" in nobody["reason"][0]
    assert summarise(night, "transit") == []
    with pytest.raises(DataredError, match=r"a transit needs 10 \(left out: none\)"):
        measure_transit(curve(n=9), KNOWN)


def test_unknown_radius_and_columns_named_twice(brief):
    """LC-09, 000-34: no radius is no problem and has a window of 0.1; a column is named once."""
    unknown = dataclasses.replace(KNOWN, radius_ratio=None)
    assert TransitOptions().radius_ratio is None and transit_problems(unknown) == []
    windows = [
        measure_transit(curve(n=60), options, max_steps=5)[0]
        for options in (unknown, dataclasses.replace(KNOWN, radius_ratio=0.1))
    ]
    assert windows[0]["ephemeris"]["window"] == windows[1]["ephemeris"]["window"]
    ratios = [numbers["posterior"]["published_radius_ratio"] for numbers in windows]
    assert ratios == [None, 0.1]
    (problem,) = transit_problems(dataclasses.replace(KNOWN, radius_ratio=0.9))
    assert problem.startswith("transit.radius_ratio = 0.9 must be between 0.001 and 0.5")
    (problem,) = transit_problems(dataclasses.replace(KNOWN, columns=("x", "y", "x", "x")))
    assert problem == "transit.columns: ['x'] is named twice; name each column once"


def test_names_of_columns_are_those_of_the_detrending():
    """LC-08: what a night file may name is what the baseline knows."""
    assert tuple(COLUMNS) == NAMES


def test_stage_follows_the_light_curve():
    """HD-01: the stages transit and variables, and what they need."""
    assert pipeline.stages_upto("transit")[-2:] == ["lightcurve", "transit"]
    assert pipeline.stages_upto("variables")[-2:] == ["photometry", "variables"]
