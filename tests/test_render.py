"""Simulated pixels against analytic answers."""

import numpy as np
import pytest

from datared.render import sensor_counts, star_image


@pytest.mark.parametrize("fwhm", [1.5, 3.0, 6.0])
@pytest.mark.parametrize("position", [(150.0, 150.0), (150.5, 149.75), (149.9, 150.31)])
def test_star_flux_is_conserved_at_any_subpixel_position(fwhm, position):
    """The drawn pixels sum to the flux, less the part beyond the drawn radius (below 1e-4)."""
    image = star_image((301, 301), [position[0]], [position[1]], [1.0], fwhm=fwhm)
    assert image.sum() == pytest.approx(1.0, abs=1.5e-4)


def test_star_profile_is_the_integral_of_a_moffat():
    """Central pixels agree with a brute-force sum on a grid of 100 x 100 points a pixel."""
    fwhm, beta, x, y = 2.5, 3.5, 10.3, 9.6
    image = star_image((21, 21), [x], [y], [1.0], fwhm=fwhm, beta=beta)
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    fine = (np.arange(2100) + 0.5) / 100 - 0.5
    r2 = (fine[None, :] - x) ** 2 + (fine[:, None] - y) ** 2
    profile = (beta - 1) / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -beta
    expected = profile.reshape(21, 100, 21, 100).sum(axis=(1, 3)) / 1e4
    assert np.abs(image - expected).max() < 1e-5


def test_star_partly_outside_loses_the_part_outside():
    """A star centred on the edge of the image leaves half of its flux there."""
    image = star_image((200, 200), [-0.5], [100.0], [1.0], fwhm=3.0)
    assert image.sum() == pytest.approx(0.5, abs=1e-3)


def test_bad_widths_are_refused():
    """A width of zero has no profile."""
    with pytest.raises(ValueError, match="fwhm"):
        star_image((5, 5), [2], [2], [1], fwhm=0)


def test_sensor_noise_follows_the_photon_transfer_law():
    """Variance = level / gain + (read noise / gain)^2, to five sigma of its own error."""
    n, gain, read_noise = 400 * 400, 0.5, 4.0
    for level in (0.0, 50.0, 2000.0):
        counts = sensor_counts(
            np.full((400, 400), level), gain=gain, read_noise=read_noise, offset=500, seed=3
        ).astype(float)
        # Rounding to whole counts adds 1/12.
        variance = level / gain**2 + (read_noise / gain) ** 2 + 1 / 12
        assert counts.mean() == pytest.approx(500 + level / gain, abs=5 * np.sqrt(variance / n))
        assert counts.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n) * 1.2)


def test_sensor_counts_are_cut_at_full_scale_and_repeat():
    """Bright pixels stop at full scale; the same seed gives the same counts."""
    bright = np.full((8, 8), 1e6)
    options = {"gain": 1.0, "read_noise": 3.0, "offset": 100, "full_scale": 4095}
    frame = sensor_counts(bright, seed=1, **options)
    assert frame.max() == frame.min() == 4095
    dim = np.full((8, 8), 100.0)
    assert np.array_equal(
        sensor_counts(dim, seed=1, **options), sensor_counts(dim, seed=1, **options)
    )
    assert not np.array_equal(
        sensor_counts(dim, seed=1, **options), sensor_counts(dim, seed=2, **options)
    )


def test_one_flux_and_width_serve_all_stars():
    """A single number for the flux draws every star with it."""
    image = star_image((60, 90), [20.0, 65.0], [30.0, 30.0], 500.0, fwhm=3.0)
    np.testing.assert_allclose(image[:, :45], image[:, 45:], atol=2e-3)
    assert image.sum() == pytest.approx(1000, rel=2e-3)
