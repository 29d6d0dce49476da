"""Ratios of flats of a sensor whose response, lamp and dust are known."""

import numpy as np
import pytest
from astropy.nddata import CCDData

from datared.errors import FrameError
from datared.flatratio import compare_flats

SHAPE, GAIN, READ_NOISE = (200, 300), 0.376, 3.5
Y, X = (grid / 300 for grid in np.mgrid[: SHAPE[0], : SHAPE[1]])
VIGNETTING = 1 - 0.4 * ((X - 0.5) ** 2 + (Y - 0.33) ** 2)


def make_flat(rng, *, level=20_000, light=1.0, response=None, frames=4):
    """Mean of flats without bias (ADU), with photon and read noise."""
    if response is None:
        response = VIGNETTING
    electrons = frames * level * GAIN * light * response
    noise = rng.normal(0, np.sqrt(electrons + frames * READ_NOISE**2))
    return (electrons + noise) / frames / GAIN


def ring(x, y, *, radius, depth):
    """Shadow of a grain of dust: a ring, for light from a mirror with a hole."""
    distance = np.hypot(X * 300 - x, Y * 300 - y) / radius
    return 1 - depth * ((distance < 1) & (distance > 0.4))


# --- the significance ----------------------------------------------------------------------------


def test_flat_ratio_pulls_of_equal_flats():
    """CC-03: where flats of different levels agree, the significance has a width of 1 and mean 0.

    40 pairs of 12 regions, of which one degree of freedom each goes into the mean: the width is
    known to 1 / sqrt(2 * 440) = 3.4 %.
    """
    rng = np.random.default_rng(1)
    pixels = VIGNETTING * rng.normal(1, 0.01, SHAPE)
    pulls, chi2, smooth = [], [], []
    for _ in range(40):
        flats = [make_flat(rng, level=n, response=pixels, frames=1) for n in (20_000, 6000)]
        found = compare_flats(*flats, regions=(3, 4))
        pulls.append(np.array(found.regions["significance"]))
        chi2.append(found.chi2)
        # Far apart, the points of the smoothed map are independent.
        smooth.append(((found.smoothed - 1) / found.error)[20:-20:25, 20:-20:25])
        assert len(found.spots) == 0
    assert np.std(pulls) == pytest.approx(1, abs=3 * 0.034)
    assert abs(np.mean(pulls)) < 3 / np.sqrt(440)
    assert np.mean(chi2) == pytest.approx(1, abs=3 * np.sqrt(2 / 440))
    # 40 x 7 x 11 points, and the noise of a box, which is known to 2 %.
    assert np.std(smooth) == pytest.approx(1, abs=3 / np.sqrt(2 * np.size(smooth)) + 0.02)


def test_flat_ratio_error_knows_the_common_mean():
    """CC-03: two halves differ from their mean by the same amount, of opposite sign."""
    rng = np.random.default_rng(2)
    found = compare_flats(make_flat(rng), make_flat(rng), regions=(1, 2))
    left, right = found.regions["ratio"] - 1
    assert left == pytest.approx(-right, abs=1e-6)  # float32
    # Half of the pixels, against all: sigma / sqrt(n / 2) times sqrt(1 / 2).
    assert found.regions["error"][0] == pytest.approx(
        found.noise / np.sqrt(found.ratio.size), rel=0.1
    )
    whole = compare_flats(make_flat(rng), make_flat(rng), regions=(1, 1))
    assert np.isnan(whole.chi2) and whole.regions["ratio"][0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [(2000, 200), (200, 2000), (400, 400)])
def test_flat_ratio_is_not_larger_where_there_is_little_light(levels):
    """CC-03: equal flats with a dark half: the mean of pixel ratios would be larger there.

    By 1 / electrons of the second flat, of which the dark half has a tenth: 1 to 12 %. Of 20 pairs
    the mean significance is known to 1 / sqrt(20), and so is that of the smoothed map.
    """
    rng = np.random.default_rng(9)
    light = np.where(X < 0.5, 1, 0.1)
    pulls, smooth = [], []
    for _ in range(20):
        flats = [make_flat(rng, level=n / 0.376, response=light, frames=8) for n in levels]
        found = compare_flats(*flats, regions=(1, 2), smooth=8.0)
        pulls.append(found.regions["significance"][1])
        dark = (slice(30, -30, 40), slice(180, -20, 40))
        smooth.append(np.mean(((found.smoothed - 1) / found.error)[dark]))
        assert len(found.spots) == 0
    assert abs(np.mean(pulls)) < 3.5 / np.sqrt(20)
    assert np.std(pulls) == pytest.approx(1, abs=3.5 / np.sqrt(40))
    assert abs(np.mean(smooth)) < 0.7


# --- what differs --------------------------------------------------------------------------------


def test_flat_ratio_of_dome_and_twilight():
    """CC-03: the slope of the lamp in the dome comes back in the regions, within their errors."""
    rng = np.random.default_rng(3)
    lamp = 1 + 0.02 * (X - X.mean())
    dome, sky = make_flat(rng, light=lamp), make_flat(rng, level=9000)
    found = compare_flats(dome, sky, regions=(2, 3))
    truth = lamp / lamp.mean()
    for row in found.regions:
        part = (slice(100 * row["row"], 100 * row["row"] + 100),
                slice(100 * row["column"], 100 * row["column"] + 100))  # fmt: skip
        assert row["ratio"] == pytest.approx(truth[part].mean(), abs=4 * row["error"])
        assert (row["x"], row["y"]) == (100 * row["column"] + 49.5, 100 * row["row"] + 49.5)
    sides = np.abs(found.regions["significance"][found.regions["column"] != 1])
    assert sides.min() > 20 and found.chi2 > 100
    assert found.level == pytest.approx(20_000 / 9000, rel=0.01)
    # A slope is no spot, though it is far above the noise.
    assert len(found.spots) == 0


def test_flat_ratio_shows_a_new_ring_of_dust():
    """CC-03: before and after a ring of dust appeared: one spot, at its place, of its depth."""
    rng = np.random.default_rng(4)
    pixels = VIGNETTING * rng.normal(1, 0.01, SHAPE) * ring(80, 150, radius=14, depth=0.05)
    before = make_flat(rng, response=pixels)
    after = make_flat(rng, response=pixels * ring(210, 60, radius=14, depth=0.04))
    found = compare_flats(after, before)
    assert len(found.spots) == 1
    spot = found.spots[0]
    assert (spot["x"], spot["y"]) == (pytest.approx(210, abs=1), pytest.approx(60, abs=1))
    assert -0.04 < spot["change"] < -0.02  # smoothed by 3 px, a ring of 8 px is shallower
    assert spot["significance"] > 20
    around = np.hypot(X * 300 - 80, Y * 300 - 150) < 20
    assert np.abs(found.smoothed[around] - 1).max() < 6 * found.error.max()


def test_flat_ratio_passes_over_broken_pixels():
    """CC-03: hot, dead and flagged pixels and a bad column are in no mean, and make no spot."""
    rng = np.random.default_rng(5)
    first, second = make_flat(rng), make_flat(rng)
    first.flat[rng.choice(first.size, 100, replace=False)] *= 1.6
    second[40, 50], second[41:160, 120], first[0, 0] = 0, 100, np.nan
    flags = np.zeros(SHAPE, np.uint16)
    flags[100:110, 200:210], second[100:110, 200:210] = 2, 3e4
    second = CCDData(second, unit="adu", flags=flags)
    found = compare_flats(first, second)
    bad = np.isnan(found.ratio)
    assert bad[40, 50] and bad[0, 0] and bad[100:110, 200:210].all() and bad[50:150, 120].all()
    # Of 60 000 pixels about 320 are broken; of the good ones 5 sigma is one in 3 million.
    assert 310 < np.count_nonzero(bad) < 330
    assert len(found.spots) == 0
    assert np.abs(found.regions["significance"]).max() < 4
    # The patch of 10 x 10 pixels is filled by its surroundings.
    assert found.smoothed[105, 205] == pytest.approx(1, abs=5 * float(found.error[105, 205]))


# --- different binning ---------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True])
def test_flat_ratio_of_different_binning(swap):
    """CC-03: the finer flat is averaged to the pixels of the coarser one, exactly."""
    rng = np.random.default_rng(6)
    fine = make_flat(rng, response=VIGNETTING * rng.normal(1, 0.01, SHAPE))
    coarse = 4 * fine.reshape(100, 2, 150, 2).mean(axis=(1, 3))
    found = compare_flats(*(coarse, fine) if swap else (fine, coarse))
    assert found.binned == (2, 2) and found.ratio.shape == (100, 150)
    assert found.ratio == pytest.approx(np.ones((100, 150)), abs=1e-6)
    assert found.level == pytest.approx(4 if swap else 0.25, rel=1e-6)


def test_flat_ratio_of_different_binning_drops_what_the_camera_drops():
    """CC-03: 200 x 300 pixels binned 3 x 2 are 66 x 150; a flagged part spoils a coarse pixel."""
    rng = np.random.default_rng(7)
    fine = make_flat(rng)
    coarse = fine[:198].reshape(66, 3, 150, 2).sum(axis=(1, 3))
    flags = np.zeros(SHAPE, np.uint8)
    flags[30, 41] = 1
    found = compare_flats(CCDData(fine, unit="adu", flags=flags), coarse)
    assert found.binned == (3, 2)
    assert np.argwhere(np.isnan(found.ratio)).tolist() == [[10, 20]]


def test_flat_ratio_refuses_other_parts_of_the_sensor():
    """CC-03: a sub-frame, mixed binning and headers that contradict the shapes are said."""
    flat = np.ones((100, 100))
    with pytest.raises(FrameError, match="do not show the same part"):
        compare_flats(flat, np.ones((70, 70)))
    with pytest.raises(FrameError, match="same binning"):
        compare_flats(np.ones((100, 50)), np.ones((50, 100)))
    headers = [{"XBINNING": n, "YBINNING": n} for n in (1, 2)]
    with pytest.raises(FrameError, match="binned 1 and 2 times along y"):
        compare_flats(*(CCDData(flat, unit="adu", meta=meta) for meta in headers))
    with pytest.raises(FrameError, match="no good pixels in common"):
        compare_flats(flat, -flat)
    with pytest.raises(FrameError, match="2 axes"):
        compare_flats(flat[0], flat[0])
    with pytest.raises(ValueError, match="two numbers from 1 on"):
        compare_flats(flat, flat, regions=(0, 3))
    with pytest.raises(ValueError, match="not a positive width"):
        compare_flats(flat, flat, smooth=-1)


def test_flat_ratio_of_a_flat_with_itself():
    """CC-03: no noise, no difference, no warning; a region without pixels has no number."""
    flat = np.ones((60, 90))
    flat[:20, :30] = np.nan
    found = compare_flats(flat, flat)
    assert np.isnan(found.regions["ratio"][0]) and np.isnan(found.regions["error"][0])
    assert list(found.regions["ratio"][1:]) == pytest.approx([1] * 8)
    assert len(found.spots) == 0 and np.isnan(found.smoothed[2, 2])
    full = np.full((300, 400), 65535)
    assert len(compare_flats(full, full).spots) == 0  # What is rounded to 32 bits is no spot.
