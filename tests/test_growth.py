"""Growth curves, the choice of an aperture, aperture corrections: against models that are known."""

import math

import numpy as np
import pytest
from astropy.nddata import CCDData

from datared import growth, photometry
from datared.growth import (
    aperture_correction,
    best_radius,
    growth_curve,
    recommended_radius,
    signal_to_noise,
)
from datared.photometry import aperture_photometry
from datared.render import sensor_counts, star_image

GAIN, READ_NOISE, OFFSET = 0.5, 5.0, 300.0
RADII = np.arange(1.0, 12.1, 0.5)


def observe(expected, seed):
    """A frame in counts, offset subtracted, of the expected electrons."""
    raw = sensor_counts(expected, gain=GAIN, read_noise=READ_NOISE, offset=OFFSET, seed=seed)
    return CCDData(raw.astype(np.float32) - np.float32(OFFSET), unit="adu")


def moffat_share(radius, fwhm, beta):
    """Light of a Moffat profile inside a radius."""
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    return 1 - (1 + (np.asarray(radius) / alpha) ** 2) ** (1 - beta)


def field(fwhm, electrons, sky, seed, *, beta=4.5, radii=RADII):
    """Photometry of 40 stars of one brightness."""
    x, y = np.meshgrid(np.arange(8) * 50 + 30.0, np.arange(5) * 50 + 30.0)
    x, y = x.ravel() + 0.2, y.ravel() + 0.4
    scene = star_image((260, 410), x, y, np.full(40, electrons), fwhm=fwhm, beta=beta) + sky
    return aperture_photometry(
        observe(scene, seed), x, y, radii=radii, annulus=(15, 20), gain=GAIN, read_noise=READ_NOISE
    )


def true_signal(radius, fwhm, beta, electrons, sky):
    """Signal-to-noise of the CCD equation, in electrons, with an annulus from 15 to 20 px."""
    light, area = electrons * moffat_share(radius, fwhm, beta), math.pi * np.square(radius)
    level = 1 + area * math.pi / 2 / (math.pi * (20**2 - 15**2))
    return light / np.sqrt(light + area * (sky + READ_NOISE**2) * level)


def test_curve_of_growth_is_the_moffat():
    """PH-10, 000-23: the curve of growth is the profile's, the best radius near the optimum."""
    table = field(4.0, 6000.0, 400.0, 3)
    inside = moffat_share(RADII, 4.0, 4.5)
    curve = growth_curve(table["flux"], flags=table["flags"])
    # Beyond a radius of two widths the noise of 40 stars of S/N 40 is about a percent.
    assert np.allclose(curve[4:], inside[4:] / inside[-1], atol=0.03)
    signal = true_signal(RADII, 4.0, 4.5, 6000.0, 400.0)
    chosen = RADII[best_radius(table["flux"], table["flux_err"], flags=table["flags"])]
    assert chosen == pytest.approx(RADII[np.argmax(signal)], rel=0.2)


@pytest.mark.parametrize(("fwhm", "beta"), [(2.0, 2.5), (3.0, 4.5), (5.0, 3.5)])
@pytest.mark.parametrize(("electrons", "sky"), [(1500.0, 100.0), (3e4, 400.0), (1e6, 100.0)])
def test_recommended_radius(fwhm, beta, electrons, sky):
    """PH-10, 000-23: from a measured curve, within 20 % of the radius of the best S/N."""
    radii = np.arange(1.0, 14.1, 1.0)
    # The curve is that of brighter stars; in a night it is known from them.
    table = field(fwhm, 1e5, sky, 7, beta=beta, radii=radii)
    share = growth_curve(table["flux"], flags=table["flags"])
    noise, pixels = np.median(table["sky_std"]), np.median(table["n_sky"])
    found = recommended_radius(
        radii, share, sky_noise=noise, n_annulus=pixels, gain=GAIN, flux=electrons / GAIN
    )
    fine = np.linspace(1, 14, 2601)
    signal = true_signal(fine, fwhm, beta, electrons, sky)
    best = fine[np.argmax(signal)]
    assert found == pytest.approx(best, rel=0.2)
    # What counts: hardly any signal-to-noise is lost.
    assert np.interp(found, fine, signal) > 0.99 * signal.max()


def test_recommended_radius_of_a_gaussian_by_hand():
    """000-23: on a bright sky the optimum of a Gaussian is 1.585 sigma; photons widen it."""
    radii = np.arange(0.5, 12, 0.5)
    share = 1 - np.exp(-(radii**2) / 2 / 2.0**2)
    setup = {"sky_noise": 10.0, "n_annulus": 1e9, "flux": 100.0}
    faint = recommended_radius(radii, share, gain=None, **setup)
    # d/dr of (1 - exp(-r^2 / 2 s^2)) / r vanishes there; a curve between points 0.5 px apart.
    assert faint == pytest.approx(1.585 * 2.0, abs=0.05)
    bright = recommended_radius(radii, share, gain=1.0, **{**setup, "flux": 1e6})
    assert bright > 1.5 * faint
    # A level from few pixels is in every pixel of the circle: a smaller one is better.
    few = recommended_radius(radii, share, gain=None, **{**setup, "n_annulus": 30.0})
    assert few < 0.85 * faint
    gaps = np.where(np.arange(radii.size) % 3 == 0, share, np.nan)
    assert recommended_radius(radii, gaps, gain=None, **setup) == pytest.approx(faint, rel=0.1)
    with pytest.raises(ValueError, match="2 of 3 radii"):
        recommended_radius([1, 2, 3], [0.1, np.nan, 0.9], gain=None, **setup)


def test_signal_to_noise_against_radius():
    """PH-10: the measured curve of S/N is the predicted one, relative to each star's best."""
    table = field(4.0, 6000.0, 400.0, 3)
    found = signal_to_noise(table["flux"], table["flux_err"], flags=table["flags"])
    predicted = true_signal(RADII, 4.0, 4.5, 6000.0, 400.0)
    # The best of 23 noisy radii of a star is above its mean: two percent here.
    assert np.allclose(found[2:], predicted[2:] / predicted.max(), atol=0.05)
    assert np.isnan(signal_to_noise([[np.nan, 1.0]], [[1.0, 1.0]])).all()
    assert best_radius([[np.nan, 1.0, 2.0]], [[1.0, 1.0, 1.0]]) == 1


def test_saturated_excluded_from_curves_and_radius():
    """PH-09, E30: saturated stars have flat cores: they choose no radius and grow no curve."""
    table = field(4.0, 60000.0, 400.0, 3)
    flux, error, flags = (np.array(table[name]) for name in ("flux", "flux_err", "flags"))
    curve, best = growth_curve(flux, flags=flags), best_radius(flux, error, flags=flags)
    correction = aperture_correction(flux, error, radius=6, reference=14, flags=flags)
    # More saturated ones than others, with all light in the largest radius.
    flat = np.tile(np.linspace(0.01, 1, RADII.size) ** 4 * 1e5, (60, 1))
    flux, error = np.vstack([flux, flat]), np.vstack([error, flat / 200])
    flags = np.vstack([flags, np.full(flat.shape, photometry.SATURATED)])
    assert np.array_equal(growth_curve(flux, flags=flags), curve)
    assert best_radius(flux, error, flags=flags) == best
    again = aperture_correction(flux, error, radius=6, reference=14, flags=flags)
    assert again.magnitude == correction.magnitude and again.n_stars == correction.n_stars
    assert not np.allclose(growth_curve(flux), curve, atol=0.1)


def correction_field(seed, *, n=200, slope=0.0, curve=0.0):
    """Photometry, in two radii, of a field whose stars widen over the frame; and the truth."""
    rng = np.random.default_rng(seed)
    grid = np.arange(n)
    x, y = 45 * (grid % 20) + 30 + rng.uniform(-1, 1, n), 45 * (grid // 20) + 30.0
    u, v = (x - 450) / 450, (y - 225) / 225
    fwhm = 3.5 * (1 + slope * u + curve * v**2)
    electrons = 10 ** rng.uniform(4.2, 5.5, n)
    scene = np.zeros((480, 930))
    # Stars are drawn in groups of one width.
    for k, width in enumerate(np.round(fwhm, 2)):
        i, j = int(x[k]) - 22, int(y[k]) - 22
        stamp = star_image((45, 45), [x[k] - i], [y[k] - j], [electrons[k]], fwhm=width, beta=4.5)
        scene[j : j + 45, i : i + 45] += stamp
    setup = {"radii": (4.0, 10.0), "annulus": (14, 19)}
    table = aperture_photometry(observe(scene + 100, seed), x, y, gain=GAIN, **setup)
    # The same circles on a frame without noise: with all that pixels and wings do.
    small, large = aperture_photometry(scene, x, y, **setup)["flux"].T
    return table, x, y, -2.5 * np.log10(large / small)


def test_aperture_correction_of_a_constant():
    """PH-10: to be added to magnitudes; right within its error, and no surface is invented."""
    pulls, orders, chi = [], [], []
    for seed in range(8):
        table, x, y, truth = correction_field(seed)
        found = aperture_correction(
            table["flux"], table["flux_err"], radius=0, reference=1, x=x, y=y,
            flags=table["flags"], shape=(480, 930),
        )  # fmt: skip
        assert found.n_stars > 150
        pulls.append((found.magnitude - np.median(truth)) / found.error)
        # Noise of the ring alone; with the light that both circles share it would be 4e-4 and more.
        assert found.error < 2.8e-4
        orders.append(found.order)
        chi.append(found.scatter)
        assert found.at(x, y).shape == x.shape
    # Eight pulls: their mean square is 1 within 3 sqrt(2 / 8).
    assert np.mean(np.square(pulls)) < 2.5
    assert orders.count(0) >= 7
    # Nothing is scattered beyond the errors: a tenth of that of the faintest stars.
    assert np.median(chi) < 0.004


@pytest.mark.parametrize(("slope", "curve", "order"), [(0.02, 0.0, 1), (0.1, 0.25, 2)])
def test_aperture_correction_varies_over_the_frame(slope, curve, order):
    """PH-10: stars that widen to one side or to the corners get a plane or a parabola."""
    table, x, y, truth = correction_field(40, slope=slope, curve=curve)
    found = aperture_correction(
        table["flux"], table["flux_err"], radius=0, reference=1, x=x, y=y, flags=table["flags"],
        shape=(480, 930),
    )  # fmt: skip
    assert found.order == order
    error = found.at(x, y) - truth
    # A surface of m terms through n stars of which the mean is known to 0.0002: sqrt(m) times that;
    # three times as much for what a parabola does not follow (a fifth and a tenth of the change).
    assert np.std(error) < max(3 * found.error * math.sqrt(6), np.std(truth) / 15)
    assert abs(np.mean(error)) < 5 * found.error
    assert found.at(450, 225).shape == ()


def test_aperture_correction_survives_neighbours_and_emptiness():
    """PH-10: a tenth of blended stars does not matter; without a star it is NaN, without error."""
    table, x, y, truth = correction_field(3)
    flux, error = np.array(table["flux"]), np.array(table["flux_err"])
    flux[::10, 1] *= 1.4
    found = aperture_correction(flux, error, radius=0, reference=1, x=x, y=y)
    assert abs(found.magnitude - np.median(truth)) < 4 * found.error
    assert found.n_stars < len(table) - 10
    for rows in (slice(0, 0), slice(0, 1), slice(0, 2)):
        few = aperture_correction(
            flux[rows] * [1, np.nan] if rows.stop == 2 else flux[rows], error[rows], radius=0,
            reference=1, x=x[rows], y=y[rows],
        )  # fmt: skip
        assert few.order == 0
        assert np.isfinite(few.magnitude) == (rows.stop == 1)
        assert few.n_stars == (rows.stop == 1)
    same = aperture_correction(flux, error, radius=1, reference=1)
    assert same.magnitude == 0 and same.order == 0


def drawn_ratios(rng, n, *, scatter=0.0):
    """Fluxes and errors of n stars in two radii: the small one holds 0.9 of the light.

    ``scatter``: relative standard deviation of the light between both radii, beside the noise.
    """
    light = 10 ** rng.uniform(4.5, 6, n)
    small_err, ring_err = np.sqrt(0.9 * light + 2000), np.sqrt(0.1 * light + 8000)
    small = 0.9 * light + rng.normal(0, small_err)
    ring = 0.1 * light * (1 + scatter * rng.normal(size=n)) + rng.normal(0, ring_err)
    return np.c_[small, small + ring], np.c_[small_err, np.hypot(small_err, ring_err)]


@pytest.mark.parametrize(
    ("n", "scatter", "width"),
    [(1, 0, 1.0), (5, 0, 0.9), (100, 0, 1.0), (8, 0.1, 1.2), (100, 0.1, 1)],
)
def test_aperture_correction_error_is_true_for_few_stars(n, scatter, width):
    """PH-10: pulls of 400 fields have mean 0 and width 1; 1.2 where 8 stars tell their scatter.

    A scatter from n stars gives pulls of Student's t: sqrt(7 / 5) = 1.18 for 8. Of 5 stars without
    any scatter some seem to have one by chance: errors are a little too large, 0.9.
    """
    rng, truth, pulls = np.random.default_rng(60 + n), -2.5 * math.log10(1 / 0.9), []
    for _ in range(400):
        flux, error = drawn_ratios(rng, n, scatter=scatter)
        found = aperture_correction(flux, error, radius=0, reference=1)
        pulls.append((found.magnitude - truth) / found.error)
    # 400 pulls fix a mean to 0.05 and a width to 0.035 of it, for t of 7 to 0.05: four of these.
    assert abs(np.mean(pulls)) < 4 * 0.05 * width
    assert abs(np.std(pulls) / width - 1) < 4 * (0.05 if n == 8 else 0.036)


@pytest.mark.parametrize("where", ["row", "diagonal", "one place", "corner"])
def test_aperture_correction_of_stars_that_are_not_spread(where):
    """PH-10: stars on a line or in a corner tell no surface: all of the frame gets the mean."""
    rng, n = np.random.default_rng(70), 40
    flux, error = drawn_ratios(rng, n)
    along, across = np.linspace(0, 999, n), rng.normal(0, 1, n)
    x, y = {
        "row": (along, 900 + across),
        "diagonal": (along, along + across),
        "one place": (np.full(n, 500.0), np.full(n, 900.0)),
        "corner": (900 + 0.05 * along, rng.uniform(900, 950, n)),
    }[where]
    # The small aperture holds more light to the right: 0.04 mag from edge to edge.
    flux[:, 0] *= 1 + 0.02 * (x - 500) / 500
    found = aperture_correction(flux, error, radius=0, reference=1, x=x, y=y, shape=(1000, 1000))
    assert found.order == 0 and found.n_stars > n / 2
    places = found.at([0, 500, 999, -3000], [0, 900, 999, 5000])
    np.testing.assert_allclose(places, found.magnitude, rtol=1e-12)
    assert abs(found.magnitude + 2.5 * math.log10(1 / 0.9)) < 0.03


def test_aperture_correction_without_noise_and_what_it_refuses():
    """PH-10: errors of 0 (drawn frames) count; x without y is refused, and so are odd radii."""
    found = aperture_correction([[900.0, 1000.0]], [[0.0, 0.0]], radius=0, reference=1)
    assert found.magnitude == pytest.approx(-2.5 * math.log10(1 / 0.9)) and found.n_stars == 1
    with pytest.raises(ValueError, match="x and y are needed both"):
        aperture_correction([[900.0, 1000.0]], [[9.0, 10.0]], radius=0, reference=1, x=[3.0])
    radii, setup = np.arange(1.0, 9.0), {"sky_noise": 9.0, "n_annulus": 900, "gain": None}
    share = 1 - np.exp(-(radii**2) / 4)
    for wrong in (radii[::-1], radii - 1, radii[:5]):
        with pytest.raises(ValueError, match="must grow, from above 0"):
            recommended_radius(wrong, share, flux=1e3, **setup)
    for wrong in ({"flux": -5.0}, {"flux": np.nan}, {"n_annulus": 0}, {"sky_noise": 0.0}):
        with pytest.raises(ValueError, match="must be positive"):
            recommended_radius(radii, share, **{"flux": 1e3, **setup, **wrong})


def test_names_stay_where_they_were():
    """PH-10: the curve and the best radius are found in photometry as before."""
    assert photometry.growth_curve is growth.growth_curve
    assert photometry.best_radius is growth.best_radius
