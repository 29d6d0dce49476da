"""Binning: bins of number and of time, and the step of a meridian flip."""

import numpy as np
import pytest

from datared.binning import align_sides, bin_by_count, bin_by_time


def test_flip_step():
    """LC-10: a step of 15 mmag at the flip is removed and reported with its error."""
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


def test_binning_of_unequal_exposures_and_a_gap_inside_a_bin():
    """LC-06: longer exposures weigh more; a bin with a gap keeps its points and their mean time."""
    rng = np.random.default_rng(9)
    long = np.arange(4000) % 2 == 0
    error = np.where(long, 0.005, 0.015)
    flux = 1 + rng.normal(size=4000) * error
    bins = bin_by_count(np.arange(4000) + 2460000.0, flux, error, count=8)
    wanted = 1 / np.sqrt(4 / 0.005**2 + 4 / 0.015**2)
    assert np.allclose(bins["flux_err"], wanted)
    # 500 bins: known to 3.2 %. Equal weights would scatter 1.67 times as much.
    assert np.std(bins["flux"]) == pytest.approx(wanted, rel=0.1)
    time = 2460000.5 + np.array([0, 1, 2, 8, 9, 10, 11]) / 1440
    bins = bin_by_time(time, np.ones(7), np.full(7, 0.01), width=10 / 1440)
    assert bins["n"].tolist() == [5, 2] and bins["partial"].tolist() == [False, True]
    assert bins["time"][0] == pytest.approx(2460000.5 + 4 / 1440, abs=1e-9)


def test_binning_takes_masked_values_in_any_order():
    """LC-06: masked and NaN points, those without an error, and the order do not matter."""
    rng = np.random.default_rng(10)
    time, flux = np.arange(40) / 1440, 1 + rng.normal(0, 0.01, 40)
    error = np.full(40, 0.01)
    keep = np.ones(40, bool)
    keep[[3, 8, 20, 33]] = False
    wanted = bin_by_time(time[keep], flux[keep], error[keep], width=10 / 1440)
    flux[3], error[8], error[20] = np.nan, 0.0, np.inf
    masked = np.ma.array(flux, mask=np.arange(40) == 33)
    order = rng.permutation(40)
    found = bin_by_time(time[order], masked[order], error[order], width=10 / 1440)
    for name in wanted.colnames:
        assert np.allclose(found[name], wanted[name])
    with pytest.raises(ValueError, match="count 0 must be 1 or more"):
        bin_by_count(time, flux, error, count=0)


def test_flip_step_inside_a_transit():
    """LC-10: a flip at mid-transit: the baseline on both sides tells the step, the dip stays."""
    rng = np.random.default_rng(12)
    number = np.arange(140)
    dip = np.where((number >= 45) & (number < 95), 0.015, 0.0)
    side = number >= 70
    step = 10 ** (-0.4 * 0.015) - 1
    flux = (1 - dip) * (1 + step * side) + rng.normal(0, 0.003, 140)
    aligned, found, error = align_sides(flux, np.full(140, 0.003), side, baseline=dip == 0)
    assert found == pytest.approx(step, abs=3 * error)
    # 25 epochs on each side in the dip, 45 out of it, and the step: 0.6 and 0.45 and 0.63 ppt.
    depths = [
        np.mean(aligned[(dip == 0) & (side == s)]) - np.mean(aligned[(dip > 0) & (side == s)])
        for s in (False, True)
    ]
    assert depths == pytest.approx([0.015, 0.015], abs=0.0025)
    # Epochs on one side only tell no step: nothing is changed.
    same, nothing, nothing_err = align_sides(
        flux, np.full(140, 0.003), side, baseline=(dip == 0) & ~side
    )
    assert np.isnan(nothing) and np.isnan(nothing_err) and np.array_equal(same, flux)


def test_flip_step_of_masked_values_and_of_no_light():
    """LC-10: masked values and those without error tell no level; a side without light no step."""
    flux = np.ma.array([1.0, 1e9, 1.02, 1.02, 5.0], mask=[0, 1, 0, 0, 0])
    error, side = [0.01, 0.01, 0.01, 0.01, 0.0], [False, False, True, True, True]
    aligned, step, _ = align_sides(flux, error, side)
    assert step == pytest.approx(0.02) and np.isnan(aligned[1])
    same, nothing, _ = align_sides([-1.0, 1.0, 2.0], [0.1, 0.1, 0.1], [False, True, True])
    assert np.isnan(nothing) and same.tolist() == [-1.0, 1.0, 2.0]


def test_binning_refuses_columns_of_other_lengths():
    """LC-06: the message says what was found."""
    with pytest.raises(ValueError, match=r"of one length, not \[\(3,\), \(2,\), \(2,\)\]"):
        bin_by_time([1, 2, 3], [1, 1], [1, 1], width=1)
