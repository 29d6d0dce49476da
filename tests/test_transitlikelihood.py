"""The likelihood of a transit against brute force, and its shape against the exact model."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from datared.curvefit import Curve
from datared.priors import Normal, Uniform, shifted
from datared.transit import transit_flux
from datared.transitlikelihood import TransitLikelihood, marginal_likelihood

START = 2458107.5
MINUTE = 1 / 1440
ORBIT = {"scaled_axis": Normal(6.05, 0.05), "impact": Normal(0.12, 0.05)}
DARK = {"u1": Normal(0.35, 0.1), "u2": Normal(0.25, 0.1)}


def small_curve(seed=0, n=14):
    """Flux with a dip and a slope, errors, the dip of two models, and two columns."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1.7, 1.7, n)
    shape = 1 - np.array([[0.02], [0.3]]) * (np.abs(x) < 0.8)
    columns = np.column_stack([np.ones(n), x])
    variance = rng.uniform(0.01, 0.02, n) ** 2
    flux = shape[0] * (columns @ [1.03, 0.02]) + np.sqrt(variance) * rng.normal(size=n)
    return flux, np.tile(variance, (2, 1)), shape, columns


@pytest.mark.parametrize("widths", [None, (1.0, 0.004)])
def test_baseline_is_integrated_out_as_by_brute_force(widths):
    """The closed form equals the sum over a fine net of both coefficients of the baseline.

    The second prior, 0 +- 0.004, is as narrow as the data: it moves the slope of 0.02 by sigmas.

    The net covers 9 errors of the coefficients in 361 steps: for a Gaussian exact to 1e-9.
    """
    flux, variance, shape, columns = small_curve()
    level = 1.0
    values, means, covariance = marginal_likelihood(
        flux, variance, shape, columns, level=level, widths=widths
    )
    width = level if widths is None else widths[1]
    for k in range(2):
        wide = 9 * np.sqrt(np.diag(covariance[k]))
        axes = [np.linspace(m - w, m + w, 361) for m, w in zip(means[k], wide, strict=True)]
        c0, c1 = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        model = shape[k] * (c0[:, None] + c1[:, None] * columns[:, 1])
        log = -0.5 * np.sum((flux - model) ** 2 / variance[k], axis=1)
        log -= 0.5 * np.sum(np.log(2 * np.pi * variance[k]))
        log -= 0.5 * (((c0 - level) / level) ** 2 + (c1 / width) ** 2)
        log -= np.log(2 * np.pi * level * width)
        weight = np.exp(log - log.max())
        cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
        assert values[k] == pytest.approx(log.max() + np.log(weight.sum() * cell), abs=1e-7)
        # The same net gives mean and covariance of the coefficients.
        c = np.stack([c0, c1])
        mean = c @ weight / weight.sum()
        np.testing.assert_allclose(means[k], mean, atol=1e-8)
        spread = (c - mean[:, None]) * weight @ (c - mean[:, None]).T / weight.sum()
        np.testing.assert_allclose(covariance[k], spread, rtol=1e-5, atol=1e-12)


def test_marginal_likelihood_is_that_of_one_big_normal():
    """An independent form: flux is normal with the covariance N + D P D', in any unit of flux."""
    flux, variance, shape, columns = small_curve(1)
    for unit in (1.0, 500.0):
        values = marginal_likelihood(
            flux * unit, variance * unit**2, shape, columns, level=1.1 * unit
        )[0]
        for k in range(2):
            design = shape[k][:, None] * columns
            full = np.diag(variance[k]) + 1.21 * design @ design.T
            wanted = multivariate_normal(1.1 * design[:, 0], full).logpdf(flux)
            assert values[k] == pytest.approx(wanted - flux.size * np.log(unit), abs=1e-8)


def likelihood(priors=None, *, exposure=0.0, columns=None, n=150, **options):
    """Likelihood of a night of noise."""
    time = START + np.arange(n) * 2 * MINUTE
    flux = 1 + 0.003 * np.random.default_rng(2).normal(size=n)
    curve = Curve(time, flux, 0.003, columns)
    priors = ORBIT | (priors or {})
    return TransitLikelihood(curve, period=2.15, priors=priors, exposure=exposure, **options)


def test_column_widths_are_in_flux_per_unit_of_the_column():
    """Priors of +- 0.001 for an airmass and wide for a side, as one big normal has them.

    The constant stays wide. The same widths stand in the evidence without a transit: that of a
    planet of no size. Infinity is the same as no width at all.
    """
    airmass = 1.2 + 3 * np.linspace(0, 1, 150) ** 2
    columns = np.column_stack([airmass, np.arange(150) > 60])
    model = likelihood(columns=columns, column_widths=[0.001, np.inf])
    points = model.draw(np.random.default_rng(8), 5)
    level, side = model.level, columns[:, 1].std()
    prior = np.square([level, 0.001, level / side])
    values, _, covariance = model.solve(points)
    for point, shape, value in zip(points, model.shape(points), values, strict=True):
        design = shape[:, None] * model.curve.columns
        noise = np.diag(model.variance + np.exp(2 * point[-1]))
        big = multivariate_normal(level * shape, noise + (design * prior) @ design.T)
        assert value == pytest.approx(big.logpdf(model.flux), abs=1e-6)
    errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)) / model.width
    assert np.all(errors[:, 1] < 0.001)
    points[:, 1] = 0.0
    points[:, -1] = np.log(0.05 * 0.003)  # as the lowest of the flat model
    flat = likelihood(columns=columns, column_widths=[0.001, np.inf]).without_transit()[1]
    assert flat >= model.solve(points)[0][0] - 0.1
    assert flat != likelihood(columns=columns).without_transit()[1]
    wide = likelihood(columns=columns, column_widths=[np.inf, 1e9])
    assert np.array_equal(wide.prior_widths, likelihood(columns=columns).prior_widths)


@pytest.mark.parametrize(
    ("widths", "words"),
    [([0.1], "one for each column"), ([0.1, 0.0], "above 0"), ([0.1, np.nan], "above 0")],
)
def test_wrong_column_widths_are_refused(widths, words):
    """One positive number for each column, and none for the constant."""
    columns = np.column_stack([np.arange(150.0), np.arange(150) > 60])
    with pytest.raises(ValueError, match=words):
        likelihood(columns=columns, column_widths=widths)


@pytest.mark.parametrize("dark", [{}, DARK])
@pytest.mark.parametrize(("exposure", "good_to"), [(0.0, 1e-9), (60.0, 2e-5), (300.0, 2e-5)])
def test_shapes_of_many_walkers_are_those_of_the_exact_model(dark, exposure, good_to):
    """Each walker's light curve is that of `transit_flux`, which is tested against batman.

    Full Julian dates have 4e-5 s, which is 1e-10 of flux. With exposures, parts of at most 30 s
    (three or more) keep the error below a hundredth of the noise of 0.3 %.
    """
    model = likelihood(dark, exposure=exposure / 86400)
    points = model.draw(np.random.default_rng(3), 40)
    points[0, 3] = points[0, 1] + 0.95  # grazing
    shapes = model.shape(points)
    for point, shape, u1, u2 in zip(points, shapes, *model.limb_darkening(points), strict=True):
        exact = transit_flux(
            model.curve.time, mid_time=point[0] + model.reference, period=2.15,
            radius_ratio=point[1], scaled_axis=point[2], impact=point[3],
            limb_darkening=(u1, u2), exposure=exposure / 86400,
        )  # fmt: skip
        # The error is a part of the depth.
        assert np.abs(shape - exact).max() < good_to * max(1.0, point[1] ** 2 / 0.02)
    instant = transit_flux(
        points[0, 0], mid_time=points[0, 0], period=2.15, radius_ratio=points[0, 1],
        scaled_axis=points[0, 2], impact=points[0, 3],
        limb_darkening=tuple(float(u[0]) for u in model.limb_darkening(points)),
    )  # fmt: skip
    assert model.middle(points)[0] == pytest.approx(instant[0], abs=1e-12)
    behind = model.shape(points, points[:, :1] + model.reference + 2.15 / 2)
    assert np.all(np.diagonal(behind) == 1.0)  # half an orbit later the planet is not seen


def test_kipping_coefficients_are_physical_and_all_of_them():
    """q1 and q2 from 0 to 1 are u1 > 0, u1 + u2 < 1, u1 + 2 u2 > 0; and back again."""
    model = likelihood()
    points = model.draw(np.random.default_rng(4), 1000)
    u1, u2 = model.limb_darkening(points)
    assert np.all((u1 >= 0) & (u1 + u2 <= 1) & (u1 + 2 * u2 >= 0))
    np.testing.assert_allclose((u1 + u2) ** 2, points[:, 4], atol=1e-12)
    np.testing.assert_allclose(0.5 * u1 / (u1 + u2), points[:, 5], atol=1e-9)


def test_priors_are_normalised_and_keep_to_what_is_physical():
    """The mean of any function over draws is its mean under the density; nothing else is drawn."""
    model = likelihood({"u1": Normal(0.1, 0.2), "u2": Normal(0.2, 0.2)})
    assert 0.3 < model.inside < 0.8  # many of the impacts and coefficients are below zero
    points = model.draw(np.random.default_rng(5), 4000)
    assert np.isfinite(model.log_prior(points)).all()
    # A box in all coordinates around the draws: the prior integrates to 1 over it.
    low, high = points.min(axis=0), points.max(axis=0)
    rng = np.random.default_rng(6)
    box = low + (high - low) * rng.random((400000, 7))
    total = np.mean(np.exp(model.log_prior(box))) * np.prod(high - low)
    assert total == pytest.approx(1.0, abs=0.05)
    for change in ((1, -0.01), (2, 0.9), (3, -0.01), (4, -0.01), (0, 99.0)):
        point = points[:1].copy()
        point[0, change[0]] = change[1]
        assert model.log_prior(point)[0] == -np.inf and model.log_posterior(point)[0] == -np.inf


def test_likelihood_without_transit_is_that_of_a_planet_of_no_size():
    """Radius ratio zero and no transit are the same model: equal likelihoods, jitter included."""
    model = likelihood(columns=np.linspace(0, 1, 150) ** 2)
    points = model.draw(np.random.default_rng(7), 200)
    points[:, 1] = 0.0
    flat, highest = model.without_transit()
    points[:, -1] = np.linspace(*(model.priors["log_jitter"].quantile(p) for p in (0, 1)), 200)
    values = model.solve(points)[0]
    assert highest == pytest.approx(values.max(), abs=0.05)
    top = values.max()
    assert flat == pytest.approx(top + np.log(np.mean(np.exp(values - top))), abs=0.05)


def test_default_priors_are_broad():
    """Mid-time: every transit that the night would have seen a part of; radius: anything."""
    model = likelihood()
    low, high = (model.priors["mid_time"].quantile(p) + model.reference for p in (0, 1))
    half = 3.0 / 48
    assert low == pytest.approx(START - half, abs=0.003)
    assert high == pytest.approx(START + 298 * MINUTE + half, abs=0.003)
    assert model.priors["radius_ratio"] == Uniform(0.0, 0.5)
    jitter = np.exp([model.priors["log_jitter"].quantile(p) for p in (0, 1)])
    np.testing.assert_allclose(jitter, [0.05 * 0.003, 3 * 0.003], rtol=0.15)


def test_priors_have_quantiles_densities_and_words():
    """Normal and uniform priors: median, normalised density, text, shift."""
    grid = np.linspace(-10, 10, 200001)
    for prior, median in ((Normal(1.5, 0.4), 1.5), (Uniform(-1.0, 4.0), 1.5)):
        assert prior.quantile(0.5) == pytest.approx(median)
        assert np.sum(np.exp(prior.log_density(grid))) * 1e-4 == pytest.approx(1.0, abs=1e-3)
        share = np.mean(prior.quantile((np.arange(1000) + 0.5) / 1000) < prior.quantile(0.3))
        assert share == pytest.approx(0.3, abs=1e-3)
        assert shifted(prior, 2.0).quantile(0.5) == pytest.approx(median + 2.0)
    assert str(Normal(6.05, 0.04)) == "normal, 6.05 +- 0.04"
    assert str(Uniform(2458107.68, 2458107.74)) == "uniform from 2458107.68 to 2458107.74"
    for wrong in ((1.0, 0.0), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="above 0"):
            Normal(*wrong)
    with pytest.raises(ValueError, match="lower one first"):
        Uniform(2.0, 1.0)


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"radius": Normal(0.1, 0.1)}, "'radius': valid are mid_time, radius_ratio"),
        ({"q1": (0.1, 0.1)}, "give a Normal or a Uniform"),
        ({"u1": Normal(0.1, 0.1)}, "no u2"),
        ({**DARK, "q1": Uniform(0, 1)}, "'q1': valid are"),
        ({"scaled_axis": Uniform(0.1, 0.9)}, "no physical orbit"),
    ],
)
def test_wrong_priors_are_refused(priors, words):
    """The message names the prior and what is valid."""
    with pytest.raises(ValueError, match=words):
        likelihood(priors)


def test_missing_orbit_and_useless_columns_are_refused():
    """The orbit must be given; a column without change is the constant once more."""
    curve = Curve(np.arange(20) * 0.01, np.ones(20), 0.01, np.ones(20))
    with pytest.raises(ValueError, match="no scaled_axis and no impact"):
        TransitLikelihood(
            Curve(np.arange(20) * 0.01, np.ones(20), 0.01, None), period=2.0, priors={}, exposure=0
        )
    with pytest.raises(ValueError, match="column 0 of the baseline does not vary"):
        TransitLikelihood(curve, period=2.0, priors=ORBIT, exposure=0)
