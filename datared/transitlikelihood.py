"""How probable a light curve is for given transits: many at once, the baseline integrated out."""

import numpy as np
from exoplanet_core.numpy.ops import quad_solution_vector

from .curvefit import Curve
from .ephemeris import FARTHEST
from .priors import Normal, Uniform, shifted
from .transit import exposure_parts, transit_duration

__all__ = ["TransitLikelihood", "marginal_likelihood"]

FITTED = ("mid_time", "radius_ratio", "scaled_axis", "impact")
DARKENING = {"q": ("q1", "q2"), "u": ("u1", "u2")}
LEAST_JITTER = 0.05  # of the median error: less changes nothing
PART = 30  # seconds of an exposure that are taken at once; good to 2e-5 for a steep ingress


def marginal_likelihood(flux, variance, shape, columns, *, level, widths=None):
    """Return the likelihood of a light curve with its baseline integrated out.

    Parameters
    ----------
    flux : array_like of float, shape (n,)
        Measured flux.
    variance : array_like of float, shape (m, n)
        Variance of the flux, for each of m models.
    shape : array_like of float, shape (m, n)
        The m models: flux of the star over its flux out of transit.
    columns : array_like of float, shape (n, k)
        Columns of the baseline, the constant first. The flux of model i is
        ``shape[i] * (columns @ c)``, with any coefficients c.
    level : float
        Flux out of transit, roughly. The coefficients have independent Gaussian priors, around the
        level for the constant and around zero for all others.
    widths : array_like of float, shape (k,), optional
        Standard deviations of these priors, in flux per unit of the column; the level by default.

    Returns
    -------
    log_likelihood : numpy.ndarray, shape (m,)
        Logarithm of the integral over all coefficients of likelihood times prior.
    coefficients : numpy.ndarray, shape (m, k)
        Means of the coefficients, given each model.
    covariance : numpy.ndarray, shape (m, k, k)
        Their covariance.

    Notes
    -----
    With the design ``D = shape * columns``, the noise N and the prior P of the coefficients, the
    flux is normal with the mean ``D c0`` and the covariance ``N + D P D'``. Its inverse and its
    determinant follow from the k by k matrix ``P^-1 + D' N^-1 D`` (Woodbury; see Hogg, Price-Whelan
    & Leistedt 2020, arXiv:2005.14199).
    """
    flux, variance, shape = (np.asarray(v, dtype=float) for v in (flux, variance, shape))
    columns = np.asarray(columns, dtype=float)
    design = shape[:, :, None] * columns
    weighted = (design / variance[:, :, None]).transpose(0, 2, 1)
    rest = flux - level * shape * columns[:, 0]
    widths = np.full(columns.shape[1], level) if widths is None else np.asarray(widths, dtype=float)
    precision = weighted @ design + np.diag(widths**-2.0)
    pull = (weighted @ rest[:, :, None])[:, :, 0]
    covariance = np.linalg.inv(precision)
    shift = (covariance @ pull[:, :, None])[:, :, 0]
    square = np.sum(rest**2 / variance, axis=1) - np.sum(pull * shift, axis=1)
    log_det = np.sum(np.log(variance), axis=1) + np.linalg.slogdet(precision)[1]
    log_det += 2.0 * np.sum(np.log(widths))
    log_likelihood = -0.5 * (square + log_det + flux.size * np.log(2.0 * np.pi))
    shift[:, 0] += level
    return log_likelihood, shift, covariance


class TransitLikelihood:
    """Likelihood and priors of the parameters of one transit, for many points at once.

    Parameters
    ----------
    curve : Curve
        The light curve. Its columns are brought to unit width.
    period : float
        Orbital period (days).
    priors : dict of str to Normal or Uniform
        As in `datared.transitposterior.sample_transit`.
    exposure : float
        Length of one exposure (days).
    column_widths : array_like of float, shape (k,), optional
        Prior standard deviation of the coefficient of each column beside the constant, in flux per
        unit of the column as it was given; infinity is wide, as all are without it.

    Attributes
    ----------
    names : tuple of str
        The parameters, in the order of the points.
    reference : float
        Time that is added to ``mid_time`` of a point (days): small numbers keep all digits.
    priors : dict of str to Normal or Uniform
        Prior of each parameter; that of ``mid_time`` counts from ``reference``.
    level : float
        Median flux.
    width : numpy.ndarray, shape (k,)
        Widths by which the columns were divided, the constant first (1).
    prior_widths : numpy.ndarray, shape (k,)
        Prior standard deviations of the coefficients of the columns so divided.

    Raises
    ------
    ValueError
        When a prior or a width is missing, unknown or impossible, or a column does not vary.
    """

    def __init__(self, curve: Curve, *, period, priors, exposure, column_widths=None):
        used = curve.used
        self.curve, self.period = curve, period
        if not 0 < period < np.inf:
            raise ValueError(f"period {period} (days) must be above 0")
        self.reference = float(np.floor(curve.first))
        self.flux, self.variance = curve.flux[used], curve.error[used] ** 2
        self.level = float(np.median(self.flux))
        if not self.level > 0:
            raise ValueError(f"the median flux is {self.level:g}: relative flux is positive")
        self.width = np.append(1.0, curve.columns[used, 1:].std(axis=0))
        if not np.all(self.width > 0):
            where = np.flatnonzero(self.width == 0)[0] - 1
            raise ValueError(f"column {where} of the baseline does not vary: leave it out")
        self.columns = curve.columns / self.width
        self.prior_widths = self._widths(column_widths)
        self.priors = self._priors(dict(priors))
        self.names = tuple(self.priors)
        self.darkening = self.names[4][0]  # "q" or "u"
        self.parts = exposure_parts(exposure, seconds=PART, fewest=3)
        self.time = (curve.time[used] - self.reference)[:, None] + self.parts
        self.inside = 1.0  # share of the priors that is physical, for their normalisation
        rng = np.random.default_rng(20201206)
        points = self._draw(rng, 20000)
        self.inside = float(np.mean(self._physical(points)))
        if self.inside < 1e-3:
            raise ValueError("the priors leave no physical orbit: see datared.transit.transit_flux")

    def _widths(self, given):
        """Return the prior widths of the coefficients; what is not given is as wide as the flux."""
        wide = np.full(self.width.size, self.level)
        if given is None:
            return wide
        given = np.asarray(given, dtype=float)
        if given.shape != (wide.size - 1,):
            raise ValueError(
                f"column_widths {given.shape}: give one for each column, {wide[1:].shape}"
            )
        if not np.all(given > 0):
            raise ValueError(
                f"column_widths {given}: they must be above 0; leave out a column instead"
            )
        wide[1:] = np.minimum(given * self.width[1:], self.level)
        return wide

    def _priors(self, given):
        """Return the priors of all parameters, in order; what is not given is broad."""
        pair = DARKENING["u" if {"u1", "u2"} & set(given) else "q"]
        names = (*FITTED, *pair, "log_jitter")
        for name, prior in given.items():
            if name not in names:
                raise ValueError(f"prior of {name!r}: valid are {', '.join(names)}")
            if not isinstance(prior, Normal | Uniform):
                raise ValueError(f"prior of {name!r} is {prior!r}: give a Normal or a Uniform")
        needed = ["scaled_axis", "impact", *(pair if pair[0] == "u1" else ())]
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(
                f"priors: no {' and no '.join(missing)}; one night does not tell, so give "
                "published values, such as Normal(6.05, 0.04)"
            )
        error, scatter = np.sqrt(np.median(self.variance)), np.std(self.flux)
        jitter = np.log([LEAST_JITTER * error, 3.0 * max(error, scatter)])
        broad = {
            "radius_ratio": Uniform(0.0, 0.5),
            "q1": Uniform(0.0, 1.0),
            "q2": Uniform(0.0, 1.0),
            "log_jitter": Uniform(*(float(value) for value in jitter)),
        }
        if "mid_time" not in given:
            axis, impact = given["scaled_axis"].quantile(0.5), given["impact"].quantile(0.5)
            half = 0.5 * transit_duration(
                period=self.period,
                radius_ratio=0.1,
                scaled_axis=max(axis, 1.2),
                impact=min(max(impact, 0.0), 1.0),
            )
            broad["mid_time"] = Uniform(self.curve.first - half, self.curve.last + half)
        priors = {name: given.get(name, broad.get(name)) for name in names}
        priors["mid_time"] = shifted(priors["mid_time"], -self.reference)
        if abs(priors["mid_time"].quantile(0.5)) > FARTHEST:
            raise ValueError(
                f"prior of mid_time ({given['mid_time']}) and time {self.curve.first:.5f} are more "
                "than 100 years apart: give both as BJD_TDB, with all their digits"
            )
        return priors

    def _physical(self, points):
        """Return which points are a transit in front of a star that is brightest in the middle."""
        ratio, axis, impact = points[:, 1], points[:, 2], points[:, 3]
        good = (ratio >= 0) & (axis > 1) & (impact >= 0) & (impact < axis)
        if self.darkening == "q":
            return good & np.all((points[:, 4:6] >= 0) & (points[:, 4:6] <= 1), axis=1)
        u1, u2 = points[:, 4], points[:, 5]
        return good & (u1 >= 0) & (u1 + u2 <= 1) & (u1 + 2 * u2 >= 0)

    def _draw(self, rng, size):
        """Return random points of the priors, physical or not."""
        return np.column_stack([prior.quantile(rng.random(size)) for prior in self.priors.values()])

    def draw(self, rng, size):
        """Return random points of the priors, shape (size, 7)."""
        found = np.empty((0, len(self.names)))
        while len(found) < size:
            points = self._draw(rng, int(1.2 * size / self.inside) + 10)
            found = np.vstack([found, points[self._physical(points)]])
        return found[:size]

    def log_prior(self, points):
        """Return the logarithm of the prior density (normalised), minus infinity outside."""
        points = np.atleast_2d(points)
        total = np.where(self._physical(points), -np.log(self.inside), -np.inf)
        for column, prior in zip(points.T, self.priors.values(), strict=True):
            total = total + prior.log_density(column)
        return total

    def limb_darkening(self, points):
        """Return the coefficients u1 and u2 at the points.

        Kipping (2013, MNRAS 435, 2152): ``u1 = 2 sqrt(q1) q2``, ``u2 = sqrt(q1) (1 - 2 q2)``; q1
        and q2 from 0 to 1 are all stars that darken towards the edge.
        """
        if self.darkening == "u":
            return points[:, 4], points[:, 5]
        root = np.sqrt(points[:, 4])
        return 2.0 * root * points[:, 5], root * (1.0 - 2.0 * points[:, 5])

    def shape(self, points, time=None):
        """Return the transits alone, (m, n), at the used epochs or at ``time`` of (n, parts)."""
        time = self.time if time is None else time - self.reference
        mid, ratio, axis, impact = points[:, :4].T[:, :, None]
        phase = 2 * np.pi * (time.ravel() - mid) / self.period
        along = np.cos(phase)
        distance = np.hypot(axis * np.sin(phase), impact * along)
        model, place = np.nonzero((distance < 1.0 + ratio) & (along > 0))
        flux = np.ones_like(distance)
        flux[model, place] = self._flux(points, model, distance[model, place])
        return flux.reshape(len(points), *time.shape).mean(axis=2)

    def middle(self, points):
        """Return the flux in the middle of the transits, shape (m,)."""
        near = np.minimum(points[:, 3], 1.0 + points[:, 1])
        return self._flux(points, np.arange(len(points)), near)

    def _flux(self, points, model, distance):
        """Return the flux where the planet of point ``model[i]`` is at ``distance[i]``."""
        u1, u2 = self.limb_darkening(points)
        terms = np.stack([1 - u1 - 1.5 * u2, u1 + 2 * u2, -0.25 * u2], axis=1)
        terms /= np.pi * (terms[:, :1] + terms[:, 1:2] / 1.5)
        # The solution does not depend on the limb darkening: one call serves all points.
        solution = quad_solution_vector(distance, points[model, 1])
        return np.sum(solution * terms[model], axis=1)

    def solve(self, points):
        """Return log likelihood, baseline coefficients and covariance at physical points."""
        jitter = np.exp(2.0 * points[:, -1])[:, None]
        return marginal_likelihood(
            self.flux,
            self.variance + jitter,
            self.shape(points),
            self.columns[self.curve.used],
            level=self.level,
            widths=self.prior_widths,
        )

    def log_posterior(self, points):
        """Return the logarithm of prior times likelihood at the points, shape (m,)."""
        total = self.log_prior(points)
        good = np.isfinite(total)
        if good.any():
            total[good] += self.solve(points[good])[0]
        return total

    def without_transit(self):
        """Return the log evidence and the highest log likelihood of a star without a planet."""
        # Quantiles of the prior are equally probable: the mean over them is the evidence.
        grid = self.priors["log_jitter"].quantile((np.arange(200) + 0.5) / 200)
        jitter = np.exp(2.0 * grid)[:, None]
        values = marginal_likelihood(
            self.flux,
            self.variance + jitter,
            np.ones((grid.size, self.flux.size)),
            self.columns[self.curve.used],
            level=self.level,
            widths=self.prior_widths,
        )[0]
        top = values.max()
        return float(top + np.log(np.mean(np.exp(values - top)))), float(top)
