"""Walkers on known densities: the right samples, an honest word on convergence, the evidence."""

import numpy as np
import pytest

from datared.sampling import LONG_ENOUGH, log_evidence, sample_posterior, summary_table

MEAN, WIDTH = np.array([3.0, -200.0]), np.array([0.1, 20.0])
OPTIONS = {"judged": {"a": 0, "b": 1}, "burn_in": 200, "seed": 5, "vectorize": True}


def normal(points):
    """Logarithm of a normal density, normalised."""
    scaled = (points - MEAN) / WIDTH
    return -0.5 * np.sum(scaled**2, axis=-1) - np.sum(np.log(WIDTH)) - np.log(2 * np.pi)


def walkers(seed=1, n=32):
    """First places."""
    return MEAN + 0.1 * WIDTH * np.random.default_rng(seed).normal(size=(n, 2))


@pytest.fixture(scope="module")
def chain():
    """A long chain on the normal density."""
    return sample_posterior(normal, walkers(), max_steps=2000, min_steps=500, **OPTIONS)


def test_samples_are_those_of_the_density(chain):
    """Mean and width of a normal density, within four standard errors of n_effective samples."""
    flat = chain.points.reshape(-1, 2)
    n = chain.n_effective
    assert chain.converged and n > 300
    assert np.all(np.abs(flat.mean(axis=0) - MEAN) < 4 * WIDTH / np.sqrt(n))
    assert np.all(np.abs(flat.std(axis=0) / WIDTH - 1) < 4 / np.sqrt(2 * n))
    assert 0.2 < chain.acceptance < 0.9
    assert chain.log_posterior.shape == chain.points.shape[:2]
    np.testing.assert_allclose(normal(flat), chain.log_posterior.ravel())


def test_convergence_is_a_matter_of_length(chain):
    """25 autocorrelation times: the chain stops there, a shorter one says that it is too short."""
    longest = max(chain.autocorrelation.values())
    assert len(chain.points) >= LONG_ENOUGH * longest
    assert chain.n_effective == pytest.approx(chain.points[..., 0].size / longest)
    short = sample_posterior(normal, walkers(), max_steps=60, **OPTIONS)
    assert len(short.points) == 60 and not short.converged
    with pytest.raises(ValueError, match="must be 1 or more"):
        sample_posterior(normal, walkers(), max_steps=0, **OPTIONS)


def test_a_stuck_walker_is_not_convergence():
    """A walker that never moves has an infinite autocorrelation time, however long the chain."""
    start = walkers()
    start[0] = MEAN + 30 * WIDTH

    def with_a_trap(points):
        return np.where(np.all(points == start[0], axis=1), 0.0, normal(points))

    stuck = sample_posterior(with_a_trap, start, max_steps=400, **OPTIONS)
    assert not stuck.converged and np.isinf(stuck.autocorrelation["a"]) and stuck.n_effective == 0


def test_the_same_seed_gives_the_same_samples():
    """Two runs agree in every bit, one by one or many at once; another seed does not."""
    runs = [
        sample_posterior(normal, walkers(), max_steps=20, **{**OPTIONS, **change}).points
        for change in ({}, {}, {"vectorize": False}, {"seed": 6})
    ]
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0], runs[3])


@pytest.mark.parametrize("width", [1e-3, 0.2, 30.0])
def test_evidence_of_a_normal_density_in_a_box(width):
    """Of the unit square and a normal likelihood the evidence is known: sharp, wide or flat."""
    rng = np.random.default_rng(3)

    def prior(points):
        return np.where(np.all((points > 0) & (points < 1), axis=1), 0.0, -np.inf)

    def posterior(points):
        return prior(points) - 0.5 * np.sum(((points - 0.4) / width) ** 2, axis=1)

    draws = rng.random((4000, 2))
    samples = rng.normal(0.4, width, (4000, 2))
    samples = samples[np.isfinite(prior(samples))] if width < 1 else draws
    value, error = log_evidence(posterior, prior, prior_draws=draws, samples=samples, seed=1)
    grid = (np.arange(20000) + 0.5) / 20000
    truth = 2 * np.log(np.mean(np.exp(-0.5 * ((grid - 0.4) / width) ** 2)))
    assert error < 0.05 and abs(value - truth) < 4 * error + 1e-3


def test_summary_table_has_central_intervals():
    """Quantiles of a known sample, with units where there are some."""
    table = summary_table({"x": np.linspace(0, 1, 100001), "y": [1.0, 1.0]}, units={"y": "mag"})
    assert table["unit"].tolist() == ["", "mag"]
    row = [table[name][0] for name in ("low_95", "low_68", "median", "high_68", "high_95")]
    np.testing.assert_allclose(row, [0.025, 0.15865, 0.5, 0.84135, 0.975], atol=1e-6)
