"""Maps of bad pixels on sensors with known defects."""

import numpy as np
import pytest

from datared import pixels
from datared.render import star_image


def scattered(n, shape, seed):
    """Mask of n pixels at random places."""
    mask = np.zeros(shape, bool)
    mask.ravel()[np.random.default_rng(seed).choice(mask.size, n, replace=False)] = True
    return mask


def test_hot_map_finds_all_and_little_else():
    """Fifty hot pixels on a gradient with glow: all found, false fraction below 1e-5."""
    shape = (600, 500)
    y, x = np.mgrid[:600, :500]
    dark = 20 + 0.05 * x + 200 * np.exp(-(y + x) / 80)
    dark += np.random.default_rng(1).normal(0, 3, shape)
    truth = scattered(50, shape, 2)
    dark[truth] += 60
    found = pixels.hot_map(dark)
    assert found[truth].all()
    # 5 sigma: 2.9e-7 of 300000 pixels is 0.1 expected; 3 are allowed.
    assert np.count_nonzero(found & ~truth) <= 3


def test_hot_map_of_quantised_dark():
    """A dark of whole numbers nearly without noise has no hot pixel but the hot one."""
    dark = np.full((100, 100), 5.0)
    dark[::7, ::5] = 6
    dark[50, 50] = 30
    assert np.argwhere(pixels.hot_map(dark)).tolist() == [[50, 50]]


def test_hot_map_min_rate():
    """An excess below the rate that matters is left alone."""
    dark = np.random.default_rng(1).normal(0, 0.1, (64, 64))
    dark[5, 5], dark[9, 9] = 10, 100
    assert np.argwhere(pixels.hot_map(dark, exptime=100, min_rate=0.5)).tolist() == [[9, 9]]


@pytest.mark.parametrize("drift", [0.0, 8.0])
def test_hot_map_from_lights(drift):
    """Hot pixels of drifting lights are found, stars are not, even if they stand still."""
    rng = np.random.default_rng(4)
    shape = (150, 150)
    truth = scattered(30, shape, 5)
    x, y = rng.uniform(10, 140, (2, 60))
    frames = []
    for i in range(12):
        frame = star_image(shape, x + drift * i, y, np.full(60, 5000.0), fwhm=2.2)
        frame += 300 + 100 * truth
        frames.append(np.rint(frame + rng.normal(0, 5, shape)))
    found = pixels.hot_map_from_lights(frames)
    near = star_image(shape, x, y, np.full(60, 5000.0), fwhm=2.2) > 10
    # Under a star that stands still nothing can be told.
    assert found[truth & ~near if drift == 0 else truth].all()
    assert np.count_nonzero(found & ~truth) == 0


def test_hot_map_from_few_lights_is_refused():
    """Four frames are too few."""
    with pytest.raises(ValueError, match="five"):
        pixels.hot_map_from_lights(np.ones((4, 9, 9)))


def test_dead_map_with_vignetting_and_dust():
    """Twenty dead pixels, zero and NaN are found; a corner at 0.4 and dust at 0.7 are not."""
    shape = (300, 400)
    y, x = np.mgrid[:300, :400]
    flat = 1 - 0.6 * ((x - 200) ** 2 + (y - 150) ** 2) / (200**2 + 150**2)
    ring = np.hypot(x - 100, y - 90)
    flat[(ring > 5) & (ring < 12)] *= 0.7
    flat *= np.random.default_rng(1).normal(1, 0.01, shape)
    truth = scattered(22, shape, 6)
    flat[truth] *= 0.3
    positions = np.argwhere(truth)
    flat[tuple(positions[0])], flat[tuple(positions[1])] = 0, np.nan
    np.testing.assert_array_equal(pixels.dead_map(flat), truth)


def test_bad_columns_whole_and_part():
    """A bright column and the upper part of a dark one are found, nothing else."""
    rng = np.random.default_rng(2)
    image = rng.normal(100, 5, (512, 200)) + 0.2 * np.arange(200)
    image[:, 60] += 15
    image[256:, 120] -= 20
    found = pixels.bad_columns(np.rint(image))
    assert found[:, 60].all() and found[256:, 120].all() and not found[:256, 120].any()
    assert np.count_nonzero(found) == 512 + 256


def test_saturation_mask_grows_by_one_and_takes_no_nan():
    """Neighbours, also diagonal ones, are taken along."""
    raw = np.zeros((7, 7))
    raw[3, 3], raw[0, 0] = 65535, np.nan
    mask = pixels.saturation_mask(raw, level=65000)
    assert mask.sum() == 9 and mask[2:5, 2:5].all()
    assert pixels.saturation_mask(raw, level=65000, grow=0).sum() == 1


def test_repair_gaussian_on_a_plane():
    """Single pixels and a cluster of 5 x 5 on a plane come back within 1 %, with their flag."""
    y, x = np.mgrid[:60, :80]
    plane = 1000 + 2.0 * x + 3.0 * y
    flags = np.zeros(plane.shape, np.uint16)
    flags[10, 20] = pixels.HOT
    flags[30:35, 40:45] = pixels.DEAD
    flags[50, 60] = pixels.SATURATED
    data = np.where(flags > 0, 60_000, plane)
    repaired, bits = pixels.repair_gaussian(data, flags)
    bad = (flags & (pixels.HOT | pixels.DEAD)) > 0
    np.testing.assert_allclose(repaired[bad], plane[bad], rtol=0.01)
    assert (bits[bad] == (flags[bad] | pixels.REPAIRED)).all()
    assert repaired[50, 60] == 60_000 and bits[50, 60] == pixels.SATURATED
    assert data[10, 20] == 60_000 and flags[10, 20] == pixels.HOT  # inputs are as they were


def test_repair_leaves_what_has_no_good_neighbour():
    """Inside a large hole nothing is invented."""
    flags = np.zeros((41, 41), np.uint16)
    flags[5:36, 5:36] = pixels.DEAD
    data = np.where(flags > 0, np.nan, 7.0)
    repaired, bits = pixels.repair_gaussian(data, flags)
    assert np.isnan(repaired[20, 20]) and bits[20, 20] == pixels.DEAD
    assert repaired[5, 5] == pytest.approx(7.0)


def test_flag_bits_are_distinct():
    """Every name has a bit of its own that fits uint16, and comes back by name."""
    bits = list(pixels.FLAG_NAMES.values())
    assert sum(bits) == 2 ** len(bits) - 1 <= 65535
    assert pixels.describe(sum(bits)) == list(pixels.FLAG_NAMES)
