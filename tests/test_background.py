"""Tests of the room background: the sky's level and noise are recovered."""

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats

from datared.background import background_map, sky_statistics, source_mask
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
    """A tilted sky under stars is recovered within 0.1 sigma, its noise within 3 %."""
    frame, plane = scene()
    level, noise = background_map(frame)
    error = (level - plane) / NOISE
    # 64 x 64 pixels give a box an error of 1.25 / 64 = 0.02 sigma; stars take some pixels away,
    # and in the outer half box, where the mesh is continued, the tilt itself is seen one-sided.
    assert abs(error.mean()) < 0.02 and error.std() < 0.05
    assert abs(error[32:-32, 32:-32]).max() < 0.1
    assert abs(np.median(noise) / NOISE - 1) < 0.03
    assert level.dtype == noise.dtype == np.float32


def test_background_plane_source_mask_removes_the_bias_of_wings():
    """In a crowded frame the masked map is nearer to the truth than the plain one."""
    frame, plane = scene(stars=400)
    plain = background_map(frame, mask_sources=False).level - plane
    masked = background_map(frame).level - plane
    assert abs(masked.mean()) < 0.1 * NOISE < plain.mean()


def test_background_nan_safe():
    """NaN columns, 75 % of a part, and a mask do not reach the map."""
    frame, plane = scene()
    frame[:, 100:110] = np.nan
    frame[np.arange(300) % 4 > 0, 200:300] = np.nan
    mask = np.zeros(frame.shape, bool)
    frame[40:60, 40:60] = 1e6
    mask[40:60, 40:60] = True
    copy = frame.copy()
    level, noise = background_map(frame, mask=mask)
    assert np.isfinite(level).all() and np.isfinite(noise).all()
    # A quarter of the pixels: twice the error of a box, 0.04 sigma.
    assert np.percentile(abs(level - plane), 99) < 0.25 * NOISE
    np.testing.assert_array_equal(frame, copy)


def test_background_heavily_masked_boxes_keep_the_level():
    """Boxes that sep would give up (half masked) are filled, not set to zero."""
    frame, plane = scene(stars=0)
    mask = np.random.default_rng(5).random(frame.shape) < 0.8
    level, noise = background_map(frame, mask=mask, mask_sources=False)
    assert abs((level - plane).mean()) < 0.1 * NOISE
    assert abs(np.median(noise) / NOISE - 1) < 0.05


def test_background_heavily_masked_side_follows_its_own_sky():
    """Where one side is mostly masked, its sky is measured there and not continued from afar."""
    frame, plane = scene(stars=0, slope=(0.0, 0.0))
    step = 50.0 * NOISE * (np.arange(400) >= 192)
    mask = np.random.default_rng(5).random(frame.shape) < 0.8
    mask[:, :192] = False
    level, _ = background_map(frame + step, mask=mask, mask_sources=False, filter_size=1)
    assert abs((level - plane - step)[:, 320:].mean()) < 0.2 * NOISE


def test_background_box_larger_than_image():
    """A box larger than the frame is the frame."""
    frame, plane = scene((50, 60), stars=0)
    level, _ = background_map(frame, box=500)
    assert abs(np.mean(level - plane)) < 4 * NOISE / np.sqrt(frame.size) + 0.02 * NOISE


def test_background_all_bad_pixels_refused():
    """Without good pixels the frame is refused with a reason."""
    with pytest.raises(FrameError, match="masked or not finite"):
        background_map(np.full((50, 50), np.nan))
    with pytest.raises(ValueError, match="box"):
        background_map(np.zeros((50, 50)), box=0)


def test_sky_statistics_equals_astropy():
    """The three numbers are those of astropy's sigma_clipped_stats (000-29)."""
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
