"""Maps of bad pixels: medians of boxes against numpy, and how sharp a star may be."""

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from datared.boxlevels import box_edges, box_medians, box_noise, interpolate_boxes, local_level
from datared.maps import hot_map_from_lights
from datared.render import star_image


def plain_medians(image, box):
    """Medians of boxes by numpy."""
    sides = np.broadcast_to(box, 2)
    rows, columns = (box_edges(size, side) for size, side in zip(image.shape, sides, strict=True))
    return np.array(
        [
            [np.median(part[np.isfinite(part)]) for part in np.split(band, columns[1:-1], axis=1)]
            for band in np.split(image, rows[1:-1])
        ]
    )


@pytest.mark.parametrize("box", [32, 17, 5, (20, 40), 1000])
@pytest.mark.parametrize("kind", ["noise", "counts", "steps", "far", "not finite"])
def test_box_medians_are_those_of_numpy(kind, box):
    """PX-02: of odd and even numbers, ties, values far away and what is not finite, exactly."""
    rng = np.random.default_rng(1)
    image = rng.normal(500, 8, (205, 333)).astype(np.float32)
    if kind == "counts":
        image = np.rint(image / 8)
    elif kind == "steps":  # The sample by which the median is sought does not hold it.
        image.T[:] = np.sort(image.ravel()).reshape(333, 205)
    elif kind == "far":
        image[rng.random(image.shape) < 0.4] = 65535
    elif kind == "not finite":
        image[rng.random(image.shape) < 0.3] = np.nan
        image[rng.random(image.shape) < 0.1] = np.inf
    medians, y, x = box_medians(image, box)
    np.testing.assert_array_equal(medians, plain_medians(image, box))
    between = interpolate_boxes(medians, y, x, image.shape)
    noise = plain_medians(np.abs(image - between), box).astype(np.float32) * np.float32(1.4826)
    np.testing.assert_array_equal(box_noise(image, box)[0], noise)


def test_boxes_are_interpolated_linearly():
    """PX-02: between the centres as by scipy, beyond them along the same line."""
    rng = np.random.default_rng(2)
    image = rng.normal(0, 1, (100, 170))
    medians, y, x = box_medians(image, 32)
    grid = RegularGridInterpolator((y, x), medians, bounds_error=False, fill_value=None)
    expected = grid(np.moveaxis(np.mgrid[:100, :170], 0, -1))
    level, noise = local_level(image)
    np.testing.assert_allclose(level, expected, atol=1e-6)
    assert noise.shape == image.shape and noise.dtype == np.float32
    assert np.ptp(local_level(image, box=500)[0]) == 0


def test_boxes_without_values_have_those_of_the_others():
    """PX-02: an empty box has the median of the others; an empty image has level 0."""
    image = np.full((64, 96), 7.0)
    image[:32, :32] = np.nan
    assert (local_level(image)[0] == 7).all()
    assert not np.any(local_level(np.full((64, 96), np.nan)))


@pytest.mark.parametrize("beta", [2.5, 20.0], ids=["wings", "nearly Gaussian"])
def test_hot_map_from_lights_and_stars_that_stand_still(beta):
    """PX-02: from 2 px (FWHM) on none is hot; those of 1.8 px in the middle of a pixel are.

    The brightest neighbour of a Gaussian has half of its pixel's light at 1.86 px.
    """
    rng = np.random.default_rng(3)
    grid = np.arange(12.0, 110, 12)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, grid))

    def share(fwhm, noise, shift=0.0):
        stars = star_image((120, 120), x + shift, y - shift, 1e4, fwhm=fwhm, beta=beta)
        noise = stars.max() / noise
        frames = [300 + stars + rng.normal(0, noise, stars.shape) for _ in range(15)]
        return hot_map_from_lights(frames).sum() / x.size

    assert share(1.8, 500) > 0.9
    assert share(2.0, 500) == share(2.0, 20) == share(2.0, 500, 0.2) == 0
    assert share(1.5, 500, 0.4) == 0  # Sharp ones between the pixels are told, too.
