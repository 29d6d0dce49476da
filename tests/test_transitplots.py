"""Figures of a transit: what is drawn is what was measured."""

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.figure import Figure

from datared.ephemeris import Ephemeris
from datared.errors import DataredError
from datared.transitplots import (
    column_sets,
    night_figure,
    observed_minus_calculated,
    transit_corner,
    transit_curve,
)

DAY = 2460587.0


@pytest.fixture
def table():
    """Return a curve of 40 epochs with a box for a transit on a slope, two of them left out."""
    time = DAY + 0.3 + np.arange(40) / 288
    baseline = 1 + 0.1 * (time - time[0])
    model = baseline * np.where(np.abs(time - time.mean()) < 0.02, 0.98, 1.0)
    flux = model + np.random.default_rng(1).normal(0, 0.002, 40)
    used = np.ones(40, bool)
    used[[4, 30]] = False
    return Table(
        {"bjd_tdb_mid": time, "flux": flux, "flux_err": np.full(40, 0.002), "model": model,
         "baseline": baseline, "used": used}
    )  # fmt: skip


@pytest.fixture
def samples():
    """Return samples of a posterior in which the impact parameter does not vary."""
    rng = np.random.default_rng(2)
    return Table(
        {"mid_time": DAY + 0.4 + rng.normal(0, 5e-4, 800),
         "radius_ratio": rng.normal(0.1, 0.002, 800), "scaled_axis": rng.normal(6, 0.1, 800),
         "impact": np.full(800, 0.5)}
    )  # fmt: skip


def test_curve_is_drawn_without_its_baseline(table):
    """LC-09: points, means and model are flux over baseline; labels have units; crosses are out."""
    upper, lower = transit_curve(table, minutes=20, window=(DAY + 0.35, DAY + 0.39))
    labels = upper.get_legend_handles_labels()[1]
    assert set(labels) == {"one exposure", "left out", "mean of 20 minutes", "model",
                           "predicted transit"}  # fmt: skip
    lines = {line.get_label(): line.get_ydata() for line in upper.get_lines()}
    assert set(np.round(lines["model"], 6)) == {0.98, 1.0}
    assert len(lines["left out"]) == 2
    assert lower.get_xlabel() == f"hours after BJD_TDB {DAY:.1f}"
    assert "(%)" in lower.get_ylabel()
    residual = 100 * (table["flux"] - table["model"]) / table["baseline"]
    out = next(line for line in lower.get_lines() if line.get_label() == "left out")
    assert np.allclose(out.get_ydata(), residual[~table["used"]])


def test_curve_without_used_or_with_impossible_epochs_is_drawn(table):
    """An epoch whose baseline is zero, or a night of which nothing is used, draws all the same."""
    table["used"][4], table["baseline"][4] = False, 0.0
    assert len(transit_curve(table)) == 2
    table["used"] = False
    upper, _ = transit_curve(table)
    assert "mean of 10 minutes" not in upper.get_legend_handles_labels()[1]
    assert len(transit_curve(table[:0])) == 2


def test_column_sets_show_the_chosen_one():
    """LC-08: the chosen set is drawn whatever its place; names stand at the axis."""
    sets = Table(
        {"columns": [f"set {k}" for k in range(20)], "delta_bic": np.arange(20.0),
         "chosen": np.arange(20) == 17}
    )  # fmt: skip
    ax = column_sets(sets, most=5)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["set 0", "set 1", "set 2", "set 3", "set 4", "set 17"]
    chosen = next(line for line in ax.get_lines() if line.get_label() == "chosen")
    assert chosen.get_xdata() == pytest.approx([17.0])


def test_corner_has_minutes_and_leaves_out_what_does_not_vary(samples):
    """LC-09: three of four parameters; the truth is marked in minutes from the median."""
    axes = transit_corner(samples, truth={"mid_time": float(np.median(samples["mid_time"]))})
    assert axes.shape == (3, 3)
    assert axes[2, 0].get_xlabel().startswith("minutes after\n2460587.4")
    assert axes[2, 1].get_xlabel() == "$R_p / R_*$"
    marked = [line for line in axes[0, 0].get_lines() if line.get_linestyle() == "--"]
    assert marked[0].get_xdata()[0] == pytest.approx(0.0, abs=1e-6)
    assert 1 < np.abs(axes[0, 0].get_xlim()).max() < 5  # Three times 5e-4 d.
    with pytest.raises(DataredError, match="there is no 'mass'"):
        transit_corner(samples, names=("mid_time", "mass"))
    with pytest.raises(DataredError, match="no samples"):
        transit_corner(samples[:0])


def test_observed_minus_calculated_is_in_minutes():
    """LC-09: three minutes late is 3 on the axis, at the right number; the band is the error."""
    planet = Ephemeris(DAY, 2.0, t0_err=1e-3, period_err=1e-5)
    times = [DAY + 200 + 3 / 1440, DAY + 400 - 1 / 1440]
    ax = observed_minus_calculated(planet, times, [1e-3, 2e-3], labels=["a", "b"])
    points = ax.get_lines()[0]
    assert points.get_xdata().tolist() == [100, 200]
    assert points.get_ydata() == pytest.approx([3.0, -1.0], abs=1e-5)
    assert [text.get_text() for text in ax.texts] == ["a", "b"]
    assert ax.get_ylabel().endswith("(min)")
    with pytest.raises(DataredError, match="no mid-time"):
        observed_minus_calculated(planet, [], [])


def test_night_figure_with_and_without_a_posterior(table, samples):
    """LC-09: the title says what was measured, or that nothing is seen."""
    one = {"median": 0.1, "error_red": 0.002}
    numbers = {
        "trapezoid": {"values": {"depth": 0.02}, "significant": True},
        "posterior": {"significant": True, "parameters": {"radius_ratio": one, "o_minus_c": one}},
        "ephemeris": {"covered": 9, "duration": 0.05, "mid_time": DAY + 0.37},
    }
    figure = night_figure(table, numbers, samples=samples)
    assert isinstance(figure, Figure) and len(figure.axes) == 2 + 9
    assert "0.1000 ± 0.0020" in figure.axes[0].get_title()
    numbers["posterior"]["significant"] = False
    assert night_figure(table, numbers, samples=samples).axes[0].get_title() == "no transit is seen"
    plain = night_figure(table, {"trapezoid": numbers["trapezoid"]}, samples=samples[:0])
    assert plain.axes[0].get_title() == "trapezoid: 2.00 % deep" and len(plain.axes) == 2
    unfitted = table.copy()
    for name in ("model", "baseline"):
        unfitted[name] = np.nan
    nothing = night_figure(unfitted, {"trapezoid": {"reason": "too few"}})
    assert nothing.axes[0].get_title() == "no transit is seen"
