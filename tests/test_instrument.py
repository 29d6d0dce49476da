"""The simulated camera against its own truth and against the laws of counting."""

import numpy as np
import pytest

from datared.disturbances import cosmic_rays, patchy_cloud, satellite_trail, star_trails
from datared.instrument import expose, frame_wcs, make_sensor, sky_to_pixel
from datared.pixels import BAD_COLUMN, DEAD, HOT

SHAPE = (200, 300)


@pytest.fixture(scope="module")
def sensor():
    """One camera for all tests."""
    return make_sensor(SHAPE, filters=["g", "r"], seed=5)


def test_gain_and_read_noise_from_flat_and_bias_pairs(sensor):
    """The photon transfer law var(F1 - F2) / 2 = level / g + RN^2 gives back 0.376 and 3.5."""
    rng = np.random.default_rng(1)
    good = sensor.defects == 0
    levels, variances = [], []
    for electrons in (500, 2000, 6000, 12000, 18000):
        light = np.full(SHAPE, float(electrons))
        pair = [
            expose(sensor, light, exptime=1.0, rng=rng, filter="r").astype(float) for _ in range(2)
        ]
        levels.append(((pair[0] + pair[1]) / 2 - sensor.bias)[good].mean())
        variances.append((pair[0] - pair[1])[good].var() / 2)
    slope = np.polyfit(levels, variances, 1, w=1 / np.array(variances))[0]
    # 60 000 pixels give each variance to 0.6 %, five of them the slope to 0.4 %.
    assert 1 / slope == pytest.approx(0.376, rel=0.02)
    bias = [expose(sensor, None, exptime=0.0, rng=rng).astype(float) for _ in range(2)]
    noise = np.sqrt((bias[0] - bias[1]).var() / 2 - 1 / 12) * 0.376
    assert noise == pytest.approx(3.5, rel=0.02)


def test_poisson_statistics_pixel_by_pixel(sensor):
    """Over 200 exposures each pixel scatters as its expectation says, and its mean is right."""
    part = make_sensor((20, 30), filters=["r"], seed=2)
    rng = np.random.default_rng(3)
    light = np.full((20, 30), 1000.0)
    stack = np.array([expose(part, light, exptime=10.0, rng=rng, filter="r") for _ in range(200)])
    electrons = light * part.response["r"] + 10 * part.dark_rate
    variance = electrons / 0.376**2 + (3.5 / 0.376) ** 2 + 1 / 12
    pull = (stack.mean(axis=0) - part.bias - electrons / 0.376) / np.sqrt(variance / 200)
    # 600 pulls: their scatter is known to 3 %; the ratio of variances (10 % each) to 0.4 %.
    assert pull.std() == pytest.approx(1.0, abs=0.1)
    assert abs(pull.mean()) < 5 / np.sqrt(600)
    assert (stack.var(axis=0, ddof=1) / variance).mean() == pytest.approx(1.0, abs=0.02)


def test_darks_recover_the_dark_current_map_and_scale_with_time(sensor):
    """Mean darks less bias, divided by the time, give the map within the noise at both times."""
    rng = np.random.default_rng(4)
    for exptime in (30.0, 60.0):
        stack = np.mean([expose(sensor, None, exptime=exptime, rng=rng) for _ in range(16)], axis=0)
        rate = (stack - sensor.bias) * 0.376 / exptime
        variance = sensor.dark_rate * exptime + 3.5**2 + 0.376**2 / 12
        pull = (rate - sensor.dark_rate) * exptime / np.sqrt(variance / 16)
        assert pull[stack < 60000].std() == pytest.approx(1.0, abs=0.02)


def test_flats_recover_the_response_map(sensor):
    """A mean flat of median 1 is the response within its photon noise (0.25 % for 16 flats)."""
    rng = np.random.default_rng(6)
    light = np.full(SHAPE, 11000.0)
    flats = [expose(sensor, light, exptime=1.0, rng=rng, filter="g") for _ in range(16)]
    flat = np.mean(flats, axis=0) - sensor.bias - sensor.dark_rate / 0.376
    flat /= np.median(flat)
    good = sensor.defects == 0
    pull = (flat / sensor.response["g"] - 1)[good] * np.sqrt(
        16 * 11000 * sensor.response["g"][good]
    )
    assert pull.std() == pytest.approx(1.0, abs=0.02)
    assert not np.array_equal(sensor.response["g"], sensor.response["r"])


def test_flaws_are_as_strong_as_promised(sensor):
    """Corners get 0.8 of the light, pixels scatter by 1 %, dead, hot and bad pixels are flagged."""
    response = sensor.response["r"] / sensor.response["r"][80:120, 130:170].mean()
    corners = [
        np.median(response[y, x])
        for y in (slice(8), slice(-8, None))
        for x in (slice(8), slice(-8, None))
    ]
    assert np.mean(corners) == pytest.approx(0.81, abs=0.02)
    good = sensor.defects == 0
    local = response[1:] / response[:-1] - 1
    scatter = 1.4826 * np.median(np.abs(local[good[1:] & good[:-1]])) / np.sqrt(2)
    assert scatter == pytest.approx(0.01, rel=0.05)
    assert (response[(sensor.defects & DEAD) > 0] < 0.05).all()
    assert (response[(sensor.defects & BAD_COLUMN) > 0] < 0.25).all()
    assert (sensor.dark_rate[(sensor.defects & HOT) > 0] > 0.9).all()
    assert np.median(sensor.dark_rate) == pytest.approx(0.1, rel=0.1)
    assert sensor.dark_rate[:3, -3:].mean() > 1.5  # the amplifier's corner


def test_distortion_moves_the_corners_by_three_pixels_and_inverts():
    """SIP of order 3 is exact: places on the sky come back to 1e-6 px, corners are 3 px off."""
    wcs = frame_wcs((680, 1000), ra=301.0, dec=40.0, scale=1.214, rotation=184.0)
    rng = np.random.default_rng(7)
    x, y = rng.uniform(0, 999, 200), rng.uniform(0, 679, 200)
    back = sky_to_pixel(wcs, *wcs.all_pix2world(x, y, 0))
    assert np.abs(back[0] - x).max() < 1e-6
    assert np.abs(back[1] - y).max() < 1e-6
    straight = wcs.wcs_world2pix(*wcs.all_pix2world([-0.5], [-0.5], 0), 0)
    assert np.hypot(straight[0][0] + 0.5, straight[1][0] + 0.5) == pytest.approx(3.0, abs=1e-6)


def test_header_of_the_wcs_keeps_the_distortion():
    """A WCS read back from its header gives the same sky to a milliarcsecond."""
    from astropy.wcs import WCS

    wcs = frame_wcs((100, 150), ra=0.01, dec=-30.0, scale=1.2, rotation=3.0)
    copy = WCS(wcs.to_header(relax=True))
    first, second = wcs.all_pix2world(0, 0, 0), copy.all_pix2world(0, 0, 0)
    assert np.allclose(first, second, atol=1e-3 / 3600, rtol=0)


def test_cosmic_rays_grow_with_time():
    """The number of hits is Poisson around rate x time x area; tracks leave charge."""
    rng = np.random.default_rng(8)
    shape = (340, 500)
    counts = {t: [cosmic_rays(shape, exptime=t, rng=rng)[1] for _ in range(100)] for t in (30, 120)}
    # Expected 1 and 4 hits on a quarter of the full frame; 100 frames give the mean to 0.1 and 0.2.
    assert np.mean(counts[30]) == pytest.approx(1.0, abs=0.5)
    assert np.mean(counts[120]) == pytest.approx(4.0, abs=1.0)
    charge, n_hit = cosmic_rays(shape, exptime=600, rng=rng)
    assert n_hit > 5
    assert charge.max() > 100
    assert np.mean(charge > 0) < 0.01


def test_trail_cloud_and_twilight_stars():
    """A trail crosses the frame, a cloud has its mean, trails of stars follow the shift."""
    rng = np.random.default_rng(9)
    trail = satellite_trail((100, 150), rng=rng, peak=50.0, fwhm=3.0)
    assert trail.max() == pytest.approx(50.0, rel=0.1)
    assert (trail.max(axis=0) > 30).mean() > 0.8
    cloud = patchy_cloud((100, 150), rng=rng, transparency=0.2)
    assert cloud.mean() == pytest.approx(0.2)
    assert cloud.max() / cloud.min() > 1.5
    options = {"n": 10, "flux": 1000.0, "length": 8.0, "fwhm": 2.5}
    first, second = (
        star_trails((100, 150), rng=np.random.default_rng(1), shift=s, **options)
        for s in ((0.0, 0.0), (10.0, 5.0))
    )
    assert np.allclose(second[5:, 10:], first[:-5, :-10], atol=0.5)
