"""Posterior of a transit: radius ratio and mid-time, with all that is uncertain beside them.

The baseline (level, airmass, side of the pier ...) is integrated out inside the likelihood, the
limb darkening and the orbit are free within their priors, and a jitter takes what the errors leave
out. Times are in days, BJD_TDB for results that others shall use.
"""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from .curvefit import Curve, filled
from .priors import Normal, Uniform, shifted
from .sampling import log_evidence, sample_posterior, summary_table
from .transit import depth_magnitude, in_days, transit_duration
from .transitlikelihood import TransitLikelihood

__all__ = ["Normal", "TransitPosterior", "Uniform", "sample_transit"]

WALKERS = 48
BURN_IN = 300  # steps
MIN_STEPS = 1000
FEW = 4000  # samples that are kept, about
DRAWS = 6000  # from the priors, for the evidence
BEST, ROUNDS = 100, 60  # points that the search for a start keeps, and its most rounds
NEAR = 10.0  # of samples in seven dimensions, the log posterior is 3.5 +- 1.9 below the highest
BATCH = 500  # points whose likelihood is computed at once
#: Log evidence ratio of a transit that is believed.
CERTAIN = 5.0
UNITS = {
    "mid_time": "d",
    "depth": "",
    "depth_mid": "",
    "depth_ppt": "ppt",
    "depth_mag": "mag",
    "duration": "d",
    "start": "d",
    "end": "d",
    "o_minus_c": "min",
}


@dataclass(frozen=True, eq=False)
class TransitPosterior:
    """Result of `sample_transit`.

    Attributes
    ----------
    samples : astropy.table.Table
        Samples of the posterior, one per row: ``mid_time`` (days), ``radius_ratio``,
        ``scaled_axis``, ``impact``, ``q1`` and ``q2`` or ``u1`` and ``u2``, ``log_jitter``
        (natural logarithm of the jitter in flux), and what follows from them: ``depth``
        (``radius_ratio**2``), ``depth_mid`` (light that is missing at mid-transit, with limb
        darkening), ``duration`` (first to last contact, days), ``start`` and ``end`` (days), and
        ``log_posterior``.
    best : dict of str to float
        The most probable sample.
    model, baseline, residuals : numpy.ndarray, shape (n,)
        Of the best sample, at all times: the flux, its part without the transit, and measured flux
        minus model.
    used : numpy.ndarray of bool, shape (n,)
        Points that took part (finite, with a positive error).
    coefficients : astropy.table.Table
        Columns ``name``, ``value`` and ``error`` of the coefficients of the baseline: ``constant``,
        the flux out of transit where all columns have their mean, and one for each column, in flux
        per unit of the column.
    acceptance : float
        Share of the proposed steps that was accepted; 0.1 to 0.5 is healthy.
    autocorrelation : dict of str to float
        Autocorrelation time of each parameter in steps; infinite while a walker is stuck.
    n_effective : float
        Number of independent samples of the whole chain.
    n_steps : int
        Steps of each walker after the burn-in.
    converged : bool
        Whether the chain is at least 25 autocorrelation times long. If not, the intervals are a
        rough guide only.
    log_evidence_ratio, log_evidence_error : float
        Natural logarithm of the probability of the data with a transit over that without one (the
        Bayes factor), and its numerical error. It counts all the mid-times and radii that the
        priors allow, so that a dip somewhere in the noise is not taken for a planet. Both are for
        independent errors: trends that no column describes can look like a transit.
    delta_bic : float
        Bayesian information criterion without a transit minus that with it; parameters with a
        Gaussian prior are not counted as free.
    significant : bool
        ``log_evidence_ratio > 5``: a transit is 150 times more probable than none. Of stars without
        a transit, at most one of 150 gets so far in white noise, but 9 of 80 drawn ones whose noise
        was one half with a memory of 20 min; 2 with the ratio over beta**2 (`datared.rednoise`).
    priors : dict of str to str
        The priors, in words.
    """

    samples: Table
    best: dict
    model: np.ndarray
    baseline: np.ndarray
    residuals: np.ndarray
    used: np.ndarray
    coefficients: Table
    acceptance: float
    autocorrelation: dict
    n_effective: float
    n_steps: int
    converged: bool
    log_evidence_ratio: float
    log_evidence_error: float
    delta_bic: float
    significant: bool
    priors: dict

    def summary(self, *, ephemeris=None):
        """Return median and intervals of every parameter.

        Parameters
        ----------
        ephemeris : Ephemeris, optional
            Adds ``o_minus_c``, observed minus calculated mid-time. Its intervals hold the error
            of the prediction too.

        Returns
        -------
        astropy.table.Table
            Columns ``parameter``, ``median``, ``low_68``, ``high_68``, ``low_95``, ``high_95``,
            ``unit``. Beside the columns of the samples: ``jitter`` (flux), ``depth_ppt``
            (``1000 depth``) and ``depth_mag``, the depth at mid-transit in magnitudes. Intervals
            are central: equal parts lie below and above.
        """
        columns = {n: self.samples[n] for n in self.samples.colnames if n != "log_posterior"}
        columns["jitter"] = np.exp(columns.pop("log_jitter"))
        columns["depth_ppt"] = 1e3 * columns["depth"]
        columns["depth_mag"] = depth_magnitude(columns["depth_mid"])
        if ephemeris is not None:
            late, error = ephemeris.observed_minus_calculated(np.asarray(columns["mid_time"]))
            rng = np.random.default_rng(0)
            columns["o_minus_c"] = late + error * rng.normal(size=late.size)
        return summary_table(columns, units=UNITS)


def sample_transit(
    time, flux, flux_err, *, period, priors, columns=None, column_widths=None, exposure=0.0,
    max_steps=6000, seed=0,
):  # fmt: skip
    """Sample the posterior of a limb-darkened transit times a linear baseline.

    Parameters
    ----------
    time, flux : array_like of float, shape (n,)
        Times of mid-exposure (days, BJD_TDB) and relative flux. Points that are not finite are
        left out.
    flux_err : float or array_like of float, shape (n,)
        Standard errors of the flux.
    period : float or Quantity
        Orbital period (days).
    priors : dict of str to Normal or Uniform
        Needed: ``scaled_axis`` (a/R*) and ``impact``, from the literature. Further: ``mid_time``
        (BJD_TDB; by default every transit of which a part would have been seen),
        ``radius_ratio`` (0 to 0.5), ``q1`` and ``q2`` (0 to 1: every star that darkens towards the
        edge), or ``u1`` and ``u2`` of the quadratic law instead, ``log_jitter`` (uniform in the
        logarithm, from 0.05 of the median error to 3 times the scatter). What is to be measured,
        mid-time and radius ratio, should be uniform.
    columns : Table, or array_like of float, shape (n,) or (n, k), optional
        Columns of the baseline (airmass, side of the pier ...) beside the constant.
    column_widths : sequence of float, shape (k,), optional
        How large the coefficient of each column can be: standard deviation of its Gaussian prior
        around zero, in flux per unit of the column. Infinity, and all without it, is wide: as large
        as the flux itself, for a column of unit width.
    exposure : float or Quantity, optional
        Length of one exposure (days).
    max_steps : int, optional
        Most steps of each of the 48 walkers; fewer where the chain is long enough before.
    seed : int, optional
        The same seed gives the same samples.

    Returns
    -------
    TransitPosterior
        The samples, and whether they have converged. That there is no transit is not an error: see
        ``significant``.

    Raises
    ------
    ValueError
        When a prior or a width is missing, unknown or impossible, shapes differ, a column does not
        vary, or too few points can be used.

    Notes
    -----
    ``flux = (c0 + c1 x1 + ...) * transit + noise``. The noise is normal with the variance
    ``flux_err**2 + jitter**2``. The coefficients c have Gaussian priors (that of the constant as
    wide as the flux is large, the others as ``column_widths`` says) and are integrated out in
    closed form (`datared.transitlikelihood.marginal_likelihood`). Limb darkening: Agol, Luger &
    Foreman-Mackey (2020, AJ 159, 123), and q1, q2 of Kipping (2013, MNRAS 435, 2152). Sampler and
    evidence: `datared.sampling`.

    Examples
    --------
    >>> priors = {"scaled_axis": Normal(6.05, 0.04), "impact": Normal(0.12, 0.05)}
    >>> priors["mid_time"] = Uniform(2458107.68, 2458107.74)
    """
    names, columns = _named(columns)
    curve = Curve(time, flux, flux_err, columns)
    model = TransitLikelihood(
        curve, period=in_days(period), priors=priors, exposure=in_days(exposure),
        column_widths=column_widths,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 1])
    start = _starting_points(model, rng)
    chain = sample_posterior(
        model.log_posterior,
        start,
        judged={name: k for k, name in enumerate(model.names)},
        burn_in=BURN_IN,
        max_steps=max_steps,
        min_steps=min(MIN_STEPS, max_steps),
        seed=seed,
        vectorize=True,
    )
    steps, walkers, size = chain.points.shape
    top = np.unravel_index(np.argmax(chain.log_posterior), (steps, walkers))
    highest, best = float(chain.log_posterior[top]), chain.points[top][None]
    # Whole steps, so that every walker has its part.
    thin = max(1, steps * walkers // FEW)
    points = chain.points[::thin].reshape(-1, size)
    samples = _table(model, points, chain.log_posterior[::thin].ravel())
    row = _table(model, best, [highest])[0]
    evidence, error = log_evidence(
        lambda points: _log_posterior(model, points),
        model.log_prior,
        prior_draws=model.draw(rng, DRAWS),
        samples=points,
        seed=seed,
    )
    nothing, flat = model.without_transit()
    free = sum(isinstance(model.priors[name], Uniform) for name in model.names[:-1])
    likelihood = highest - model.log_prior(best)[0]
    curves = _curves(model, best)
    return TransitPosterior(
        samples=samples,
        best={name: float(row[name]) for name in samples.colnames},
        **curves,
        residuals=curve.flux - curves["model"],
        used=curve.used,
        coefficients=_coefficients(model, rng.permutation(points)[:200], names),
        acceptance=chain.acceptance,
        autocorrelation=chain.autocorrelation,
        n_effective=chain.n_effective,
        n_steps=len(chain.points),
        converged=chain.converged,
        log_evidence_ratio=evidence - nothing,
        log_evidence_error=error,
        delta_bic=float(2.0 * (likelihood - flat) - free * np.log(curve.used.sum())),
        significant=bool(evidence - nothing > CERTAIN),
        priors=_words(model, names),
    )


def _named(columns):
    """Return names and values of the baseline columns."""
    if columns is None:
        return (), None
    if isinstance(columns, Table):
        parts = [filled(columns[name]) for name in columns.colnames]
        return tuple(columns.colnames), np.column_stack(parts) if parts else None
    columns = filled(columns)
    columns = columns[:, None] if columns.ndim == 1 else columns
    return tuple(f"column {k}" for k in range(columns.shape[1])), columns


def _log_posterior(model, points):
    """Return the log posterior of many points, in batches that fit into memory."""
    parts = np.array_split(points, max(1, len(points) // BATCH))
    return np.concatenate([model.log_posterior(part) for part in parts])


def _starting_points(model, rng):
    """Return the first places of the walkers, drawn closer and closer to the best points.

    Each round draws new points as the best ones so far are spread, until the best are about as
    good as samples of a posterior are. Where nothing is seen, the first draws are.
    """
    points = model.draw(rng, FEW)
    # A net over mid-time and radius finds even a short transit that no draw hits.
    net = points[:400].copy()
    net[:, 0] = np.tile(np.quantile(points[:, 0], np.linspace(0, 1, 50)), 8)
    net[:, 1] = np.repeat(np.median(points[:, 1]) * np.geomspace(0.1, 1.0, 8), 50)
    points = np.vstack([points, net])
    values = _log_posterior(model, points)
    least = 1e-6 * points.std(axis=0)
    for _ in range(ROUNDS):
        best = np.argsort(-values)[:BEST]
        points, values = points[best], values[best]
        if values[0] - values[-1] < NEAR:
            break
        spread = np.cov(points.T) + np.diag(least**2)
        new = rng.multivariate_normal(points.mean(axis=0), spread, 4 * BEST)
        points = np.vstack([points, new])
        values = np.append(values, _log_posterior(model, new))
    return rng.permutation(points[:BEST])[:WALKERS]


def _table(model, points, log_posterior):
    """Return the points and what follows from them."""
    table = Table({name: points[:, k] for k, name in enumerate(model.names)})
    table["mid_time"] += model.reference
    table["depth"] = table["radius_ratio"] ** 2
    table["depth_mid"] = 1.0 - model.middle(points)
    table["duration"] = [
        transit_duration(period=model.period, radius_ratio=k, scaled_axis=a, impact=b)
        for k, a, b in points[:, 1:4]
    ]
    table["start"] = table["mid_time"] - 0.5 * table["duration"]
    table["end"] = table["mid_time"] + 0.5 * table["duration"]
    table["log_posterior"] = log_posterior
    return table


def _curves(model, point):
    """Return model and baseline of one point at all times."""
    time, columns = model.curve.time, model.columns
    baseline = columns @ model.solve(point)[1][0]
    everywhere = np.where(np.isfinite(time), time, model.reference)
    shape = model.shape(point, everywhere[:, None] + model.parts)[0]
    return {"model": np.where(np.isfinite(time), shape * baseline, np.nan), "baseline": baseline}


def _coefficients(model, points, names):
    """Return the coefficients of the baseline: means and errors over the posterior."""
    _, means, covariance = model.solve(points)
    variance = np.mean(np.diagonal(covariance, axis1=1, axis2=2), axis=0) + np.var(means, axis=0)
    return Table({
        "name": ["constant", *names],
        "value": means.mean(axis=0) / model.width,
        "error": np.sqrt(variance) / model.width,
    })  # fmt: skip


def _words(model, names):
    """Return the priors in words."""
    priors = model.priors | {"mid_time": shifted(model.priors["mid_time"], model.reference)}
    words = {name: str(prior) for name, prior in priors.items()}
    # Back to the columns as they were given.
    widths = model.prior_widths / model.width
    means = np.append(model.level, np.zeros(len(names)))
    words["baseline"] = "normal; " + ", ".join(
        f"{name} {mean:.4g} +- {width:.4g}"
        for name, mean, width in zip(["constant", *names], means, widths, strict=True)
    )
    return words
