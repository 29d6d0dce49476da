"""Drawing from a posterior with many walkers, and when the drawing may stop."""

from typing import NamedTuple

import numpy as np
from astropy.table import Table

__all__ = ["LONG_ENOUGH", "Chain", "log_evidence", "sample_posterior", "summary_table"]

#: A chain of so many autocorrelation times is taken as converged.
LONG_ENOUGH = 25
CHUNK = 200  # steps between two looks at the autocorrelation


class Chain(NamedTuple):
    """Result of `sample_posterior`.

    Attributes
    ----------
    points : numpy.ndarray, shape (n_steps, n_walkers, n_parameters)
        Points drawn from the posterior, after the burn-in.
    log_posterior : numpy.ndarray, shape (n_steps, n_walkers)
        Logarithm of the posterior at them.
    acceptance : float
        Share of the proposed steps that was accepted; 0.1 to 0.5 is healthy.
    autocorrelation : dict of str to float
        Autocorrelation time, in steps, of the parameters that were judged; infinite while a
        walker is stuck.
    n_effective : float
        Number of independent points: all points divided by the longest autocorrelation time.
    converged : bool
        Whether the chain is at least `LONG_ENOUGH` autocorrelation times long.
    """

    points: np.ndarray
    log_posterior: np.ndarray
    acceptance: float
    autocorrelation: dict
    n_effective: float
    converged: bool


def sample_posterior(
    log_posterior, start, *, judged, burn_in, max_steps, min_steps=0, seed=0, vectorize=False
):
    """Move walkers until the chain is long against its own memory.

    Parameters
    ----------
    log_posterior : callable
        Logarithm of the posterior, up to a constant, at a point of shape (n_parameters,); with
        ``vectorize`` at many points, (n, n_parameters) to (n,). Minus infinity where it is zero.
    start : array_like of float, shape (n_walkers, n_parameters)
        First places of the walkers: at least twice as many as parameters, and an even number.
    judged : dict of str to int
        Names and indices of the parameters whose autocorrelation decides.
    burn_in : int
        First steps, which are thrown away.
    max_steps : int
        Most steps of each walker after the burn-in; fewer where the chain is long enough before.
    min_steps : int, optional
        Fewest steps after the burn-in.
    seed : int, optional
        The same seed gives the same points.
    vectorize : bool, optional
        Give half of the walkers to ``log_posterior`` at once.

    Returns
    -------
    Chain
        The points, and whether they have converged.

    Raises
    ------
    ValueError
        When ``max_steps`` is below 1.

    Notes
    -----
    The sampler is that of Foreman-Mackey et al. (2013, PASP 125, 306), with the moves of ter Braak
    & Vrugt (2008, Stat. Comput. 18, 435). The autocorrelation time is that of Goodman & Weare
    (2010, CAMCoS 5, 65), as in emcee.
    """
    import emcee

    if max_steps < 1:
        raise ValueError(f"max_steps {max_steps} must be 1 or more")
    start = np.asarray(start, dtype=float)
    moves = [
        (emcee.moves.DEMove(), 0.6),
        (emcee.moves.DESnookerMove(), 0.1),
        (emcee.moves.StretchMove(), 0.3),
    ]
    sampler = emcee.EnsembleSampler(*start.shape, log_posterior, moves=moves, vectorize=vectorize)
    state = np.random.MT19937(np.random.SeedSequence([seed, 2])).state
    state = emcee.State(start, random_state=state)
    state = sampler.run_mcmc(state, burn_in)
    sampler.reset()
    columns = list(judged.values())
    while True:
        state = sampler.run_mcmc(state, min(CHUNK, max_steps - sampler.iteration))
        chain = sampler.get_chain()
        # A walker that never moved has no autocorrelation; while one is stuck, nothing converged.
        moved = np.all(np.ptp(chain[:, :, columns], axis=0) > 0, axis=1)
        times = np.full(len(columns), np.inf)
        if moved.all():
            times = emcee.autocorr.integrated_time(chain[:, :, columns], tol=0)
        longest = max(1.0, *times)
        long_enough = sampler.iteration >= LONG_ENOUGH * longest
        if sampler.iteration >= max_steps or (long_enough and sampler.iteration >= min_steps):
            break
    return Chain(
        points=chain,
        log_posterior=sampler.get_log_prob(),
        acceptance=float(np.mean(sampler.acceptance_fraction)),
        autocorrelation={
            name: float(max(value, 1.0)) for name, value in zip(judged, times, strict=True)
        },
        n_effective=float(chain.shape[0] * chain.shape[1] / longest),
        converged=bool(long_enough),
    )


def log_evidence(log_posterior, log_prior, *, prior_draws, samples, seed=0):
    """Return the evidence of a model: the mean of its likelihood over its priors.

    Parameters
    ----------
    log_posterior, log_prior : callable
        Logarithms of prior times likelihood, and of the prior (both normalised), at points of
        shape (n, n_parameters), as arrays of shape (n,).
    prior_draws : array_like of float, shape (n, n_parameters)
        Points drawn from the prior.
    samples : array_like of float, shape (m, n_parameters)
        Points drawn from the posterior.
    seed : int, optional
        The same seed gives the same value.

    Returns
    -------
    log_evidence, error : float
        Natural logarithm of the evidence, and its standard error.

    Notes
    -----
    Importance sampling with a mixture: one half of the points are those of the prior, the other
    half comes from a t distribution with the mean and the covariance of the samples. Either half
    alone fails, where the posterior is narrow or where it has many tops.
    """
    from scipy.stats import multivariate_t

    samples, prior_draws = np.asarray(samples, dtype=float), np.asarray(prior_draws, dtype=float)
    rng = np.random.default_rng([seed, 3])
    center, width = samples.mean(axis=0), samples.std(axis=0)
    # In units of the widths no parameter is lost in the rounding of the others.
    spread = np.cov(((samples - center) / width).T) + 1e-9 * np.eye(center.size)
    around = multivariate_t(np.zeros(center.size), spread, df=5, seed=rng)
    points = np.vstack([prior_draws, center + width * around.rvs(len(prior_draws))])
    near = around.logpdf((points - center) / width) - np.sum(np.log(width))
    density = np.logaddexp(log_prior(points), near) - np.log(2.0)
    weight = log_posterior(points) - density
    top = weight.max()
    weight = np.exp(weight - top)
    mean = weight.mean()
    return float(top + np.log(mean)), float(weight.std() / mean / np.sqrt(weight.size))


def summary_table(samples, *, units):
    """Return median and intervals of each parameter.

    Parameters
    ----------
    samples : dict of str to array_like of float
        Samples of each parameter.
    units : dict of str to str
        Unit of each parameter that has one.

    Returns
    -------
    astropy.table.Table
        Columns ``parameter``, ``median``, ``low_68``, ``high_68``, ``low_95``, ``high_95``,
        ``unit``. Intervals are central: equal parts of the samples lie below and above.

    Examples
    --------
    >>> print(summary_table({"age": [1.0, 2.0, 3.0]}, units={"age": "Gyr"})["median"][0])
    2.0
    """
    levels = [0.5, 0.15865, 0.84135, 0.025, 0.975]
    rows = [
        (name, *np.quantile(np.asarray(values, dtype=float), levels), units.get(name, ""))
        for name, values in samples.items()
    ]
    names = ("parameter", "median", "low_68", "high_68", "low_95", "high_95", "unit")
    return Table(rows=rows, names=names)
