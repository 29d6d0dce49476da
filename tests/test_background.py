"""Tests of the room background: the sky's level and noise are recovered."""

import os

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats

from datared.background import background_map, sky_mesh, sky_statistics, source_mask
from datared.errors import FrameError
from datared.render import star_image

NOISE = 20.0


def scene(shape=(300, 400), *, stars=60, seed=1, slope=(0.03, 0.05)):
    """Frame with a plane of sky, stars and noise; and the plane."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    plane = 1000 + slope[0] * y + slope[1] * x
    flux = 10 ** rng.uniform(2.5, 5.5, stars)
    place = rng.uniform(0, shape[1], stars), rng.uniform(0, shape[0], stars)
    frame = plane + star_image(shape, *place, flux, fwhm=4.0) + rng.normal(0, NOISE, shape)
    return frame, plane


def test_background_plane():
    """DT-01, 004-12: a tilted sky under stars is recovered within 0.1 sigma, its noise in 3 %."""
    frame, plane = scene()
    level, noise = background_map(frame)
    error = (level - plane) / NOISE
    # The mode of 64 x 64 pixels has an error of 2.1 / 64 = 0.03 sigma, the median of nine such
    # boxes 0.02; in the outer half box, where the mesh goes straight on, up to three times that.
    assert abs(error.mean()) < 0.02 and error.std() < 0.05
    assert abs(error[32:-32, 32:-32]).max() < 0.1
    assert abs(np.median(frame - level)) < 0.1 * NOISE
    assert abs(np.median(noise) / NOISE - 1) < 0.03
    assert level.dtype == noise.dtype == np.float32


def test_background_plane_without_noise_is_exact():
    """DT-01: the mesh follows a tilt to the very corners of the frame, also through its filter."""
    y, x = np.mgrid[:320, :384]
    plane = 1000 + 0.3 * y - 0.5 * x
    level, noise = background_map(plane, mask_sources=False)
    # A box of 64 px has a step of 0.3 in its values; a bin of its histogram is that or wider.
    assert abs(level - plane).max() < 0.5
    assert noise.min() > 0


def test_background_follows_changing_noise():
    """DT-01: where one half of the frame is noisier, its noise map says so."""
    rng = np.random.default_rng(11)
    frame = rng.normal(1000, 1, (320, 640))
    frame[:, :320] += rng.normal(0, NOISE, (320, 320))
    noise = background_map(frame).noise
    assert np.median(noise[:, :200]) == pytest.approx(np.hypot(NOISE, 1), rel=0.03)
    assert np.median(noise[:, -200:]) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0, 20.0])
def test_background_of_whole_numbers(sigma):
    """DT-01: pixels in whole ADU, as cameras write them, have no steps in their sky."""
    frame = np.round(np.random.default_rng(7).normal(1000.3, sigma, (512, 512)))
    level, noise = background_map(frame, mask_sources=False)
    # 64 boxes with an error of 2.1 / 64 sigma each; steps as large as the noise cost a little.
    assert abs(level.mean() - 1000.3) < 4 * 2.1 * sigma / 512 + 0.05 * (sigma < 1.5)
    # A box has an error of 0.7 / 64 in its noise, 64 of them an eighth of that; without what the
    # clipping at 3 sigma takes away the noise would be 1.3 % too low.
    assert noise.mean() == pytest.approx(np.hypot(sigma, 1 / np.sqrt(12)), rel=0.008)


def test_background_of_whole_numbers_with_less_noise_than_a_step():
    """DT-01: where nearly all pixels hold one number, stars do not widen the steps of the sky."""
    rng = np.random.default_rng(1)
    place, flux = rng.uniform(0, 512, (2, 150)), 10 ** rng.uniform(3, 6.5, 150)
    stars = star_image((512, 512), *place, flux, fwhm=4.0)
    frame = np.round(1000 + stars + rng.normal(0, 0.1, stars.shape))
    level, noise = background_map(frame)
    # Wings of stars hold a whole step in a few pixels of a box only.
    assert abs(level - 1000).max() < 0.05 and noise.max() < 0.1


@pytest.mark.parametrize("unit", [1e-17, 1e12])
def test_background_in_any_unit(unit):
    """DT-01: level and noise scale with the unit of the frame, be it counts or erg/s/cm2."""
    frame, _ = scene()
    level, noise = background_map(frame * unit)
    expected = background_map(frame)
    # float32 rounds the scaled frame: pixels at the clipping limit change sides.
    np.testing.assert_allclose(level / unit, expected.level, atol=0.05 * NOISE)
    np.testing.assert_allclose(noise / unit, expected.noise, rtol=0.02)


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_background_dead_pixels_that_nobody_masked(share):
    """DT-01: zeros among the pixels, or a blank border, leave level and noise of the sky alone."""
    frame, plane = scene(stars=0)
    frame[np.random.default_rng(5).random(frame.shape) < share] = 0
    frame[:12] = -1e5
    level, noise = background_map(frame)
    error = (level - plane)[12:] / NOISE
    # In the upper boxes half of the pixels are left: an error of 2.1 / 47 sigma before the filter.
    assert abs(error.mean()) < 0.03 and error.std() < 0.1
    assert abs(noise / NOISE - 1).max() < 0.1


def test_background_of_a_masked_array():
    """DT-01: what a masked array hides does not count, as with the option."""
    frame, _ = scene()
    mask = np.zeros(frame.shape, bool)
    mask[:, 100:250] = True
    frame[mask] = 1e5
    expected = background_map(frame, mask=mask)
    for ours, other in zip(background_map(np.ma.array(frame, mask=mask)), expected, strict=True):
        np.testing.assert_array_equal(ours, other)


def test_background_small_box_eats_the_light_of_a_nebula():
    """DT-01: a box smaller than a nebula takes its light for sky, a large one leaves it."""
    y, x = np.mgrid[:600, :600]
    nebula = 400 * np.exp(-((x - 300) ** 2 + (y - 300) ** 2) / (2 * 60**2))
    frame = 1000 + nebula + np.random.default_rng(1).normal(0, NOISE, nebula.shape)
    eaten = {
        box: (background_map(frame, box=box).level[290:310, 290:310].mean() - 1000) / 400
        for box in (16, 200)
    }
    assert eaten[16] > 0.8 and eaten[200] < 0.05


def test_background_same_bytes_on_any_number_of_threads(monkeypatch):
    """DT-01: one thread and eight give the same map, bit by bit."""
    frame, _ = scene()
    maps = []
    for count in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        maps.append(background_map(frame))
    assert maps[0].level.tobytes() == maps[1].level.tobytes()
    assert maps[0].noise.tobytes() == maps[1].noise.tobytes()


def test_background_global_or_from_a_subframe():
    """002-09, DT-01: one sky for the whole frame, one for a part of it, and a local map agree."""
    frame, _ = scene(slope=(0, 0))
    whole, part = sky_statistics(frame), sky_statistics(frame[100:200, 100:250])
    local = background_map(frame).level
    assert whole.median == pytest.approx(1000, abs=0.1 * NOISE)
    assert part.median == pytest.approx(whole.median, abs=0.1 * NOISE)
    assert local.mean() == pytest.approx(whole.median, abs=0.1 * NOISE)
    # On a tilted sky only the part and the map are right where the part is.
    tilted = frame + 0.5 * np.arange(400)
    middle = 1000 + 0.5 * 350
    assert abs(sky_statistics(tilted).median - middle) > 2 * NOISE
    assert sky_statistics(tilted[:, 340:361]).median == pytest.approx(middle, abs=0.2 * NOISE)
    assert background_map(tilted).level[:, 350].mean() == pytest.approx(middle, abs=0.1 * NOISE)


def test_background_plane_source_mask_removes_the_bias_of_wings():
    """DT-01: in a crowded frame the masked map is nearer to the truth than the plain one."""
    frame, plane = scene(stars=400)
    plain = background_map(frame, mask_sources=False).level - plane
    masked = background_map(frame).level - plane
    assert abs(masked.mean()) < 0.1 * NOISE < plain.mean()


def test_background_nan_safe():
    """DT-01: NaN columns, 75 % of a part, and a mask do not reach the map."""
    frame, plane = scene()
    frame[:, 100:110] = np.nan
    frame[:, 200:300][:, np.arange(100) % 4 > 0] = np.nan
    mask = np.zeros(frame.shape, bool)
    frame[40:60, 40:60] = 1e6
    mask[40:60, 40:60] = True
    copy = frame.copy()
    level, noise = background_map(frame, mask=mask)
    assert np.isfinite(level).all() and np.isfinite(noise).all()
    # A quarter of the pixels: twice the error of a box, 0.07 sigma before the median of nine.
    assert np.median(abs(level - plane)) < 0.1 * NOISE
    assert abs(np.mean((level - plane)[:, 200:300])) < 0.1 * NOISE
    assert np.percentile(abs(level - plane), 99) < 0.25 * NOISE
    np.testing.assert_array_equal(frame, copy)


def test_background_heavily_masked_boxes_keep_the_level():
    """DT-01: boxes of which a fifth is good keep their own sky."""
    frame, plane = scene(stars=0)
    mask = np.random.default_rng(5).random(frame.shape) < 0.8
    level, noise = background_map(frame, mask=mask, mask_sources=False)
    assert abs((level - plane).mean()) < 0.1 * NOISE
    assert abs(np.median(noise) / NOISE - 1) < 0.05


def test_background_heavily_masked_side_follows_its_own_sky():
    """DT-01: where one side is mostly masked, its sky is its own, not continued from afar."""
    frame, plane = scene(stars=0, slope=(0.0, 0.0))
    # Six boxes of 66 or 67 px: the step is on a border.
    step = 50.0 * NOISE * (np.arange(400) >= 200)
    mask = np.random.default_rng(5).random(frame.shape) < 0.8
    mask[:, :200] = False
    level, _ = background_map(frame + step, mask=mask, mask_sources=False, filter_size=1)
    # Two boxes behind the step, where the spline has come to rest.
    assert abs((level - plane - step)[:, 334:].mean()) < 0.2 * NOISE


def test_background_box_larger_than_image():
    """DT-01: a box larger than the frame is the frame."""
    frame, plane = scene((50, 60), stars=0)
    level, _ = background_map(frame, box=500)
    assert abs(np.mean(level - plane)) < 4 * NOISE / np.sqrt(frame.size) + 0.02 * NOISE


def test_background_gap_is_filled_from_its_neighbours():
    """DT-01: boxes without a good pixel take the sky of those around them; one box is enough."""
    frame, plane = scene(stars=0, slope=(0.0, 0.0))
    frame[:, 150:260] = np.nan
    level, noise = background_map(frame)
    assert abs(level - plane).max() < 0.15 * NOISE and abs(noise / NOISE - 1).max() < 0.1
    frame[20:] = np.nan
    assert abs(background_map(frame).level - plane).max() < 0.2 * NOISE
    frame[:] = np.nan
    frame[::40, ::40] = plane[::40, ::40]
    level, noise = background_map(frame)
    np.testing.assert_allclose(level, plane)
    assert (noise > 0).all()


def test_background_mesh_is_the_map_in_short():
    """DT-01: the values of the boxes are those of the map at their middles."""
    frame, _ = scene()
    data = frame.astype(np.float32)
    mesh = sky_mesh(data, np.zeros(frame.shape, bool))
    level, noise = background_map(frame)
    y, x = (np.arange(n) for n in (300, 400))
    rows, columns = (np.round(np.linspace(0, n, k)) for n, k in ((300, 6), (400, 7)))
    middle = np.meshgrid((columns[:-1] + columns[1:] - 1) / 2, (rows[:-1] + rows[1:] - 1) / 2)
    near = np.round(middle).astype(int)
    assert abs(level[near[1], near[0]] - mesh.level).max() < 0.05 * NOISE
    np.testing.assert_allclose(mesh.level_surface.at(x[::7], y[:58]), level[y[:58], x[::7]])
    np.testing.assert_allclose(mesh.noise_surface.at(x[::7], y[:58]), noise[y[:58], x[::7]])


def test_background_all_bad_pixels_refused():
    """Without good pixels the frame is refused with a reason."""
    with pytest.raises(FrameError, match="masked or not finite"):
        background_map(np.full((50, 50), np.nan))
    with pytest.raises(ValueError, match="box"):
        background_map(np.zeros((50, 50)), box=0)
    with pytest.raises(FrameError, match="masked or not finite"):
        background_map(np.empty((0, 50)))


@pytest.mark.parametrize("width", [0, 2, 4, 2.5])
def test_background_filter_without_a_middle_box_is_refused(width):
    """DT-01: a median over an even number of boxes would move a tilted sky by half a box."""
    with pytest.raises(ValueError, match="filter_size"):
        background_map(np.zeros((50, 50)), filter_size=width)


def test_sky_statistics_equals_astropy():
    """000-29, 002-09: the three numbers are those of astropy's sigma_clipped_stats."""
    frame, _ = scene(slope=(0, 0))
    expected = sigma_clipped_stats(frame.astype(np.float32), sigma=3, maxiters=10)
    np.testing.assert_allclose(sky_statistics(frame), expected, rtol=1e-6)
    frame[3, 4] = np.nan
    assert np.isfinite(sky_statistics(frame)).all()


def test_source_mask_covers_stars_not_noise():
    """Bright stars are masked, nearly nothing of an empty frame is."""
    star = star_image((100, 100), [50.0], [50.0], [5e4], fwhm=4.0)
    noise = np.random.default_rng(2).normal(0, NOISE, (100, 100))
    assert source_mask(star + noise, 0.0, NOISE)[48:53, 48:53].all()
    # Four 3-sigma pixels of the smoothed frame in a square are rare.
    assert source_mask(noise, 0.0, NOISE).mean() < 0.03
