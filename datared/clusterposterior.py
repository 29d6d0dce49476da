"""Posterior of a cluster's parameters, and where to begin its exploration."""

import numpy as np

from .clusterfield import Stars
from .clusterlikelihood import MASS_RATIOS, log_likelihood, model_density
from .errors import DataredError
from .extinction import extinction_ratio

__all__ = ["ClusterPosterior"]

WALKERS = 32
#: Ranges of the parameters; those of age and metallicity are the grid's. No model is exact to
#: 5 mmag, so the scatter is at least that.
RANGES = {
    "distance_modulus": (0.0, 25.0),
    "a_v": (0.0, 6.0),
    "binary_fraction": (0.0, 1.0),
    "field_fraction": (0.0, 1.0),
    "log_scatter": (np.log(0.005), np.log(0.2)),
    "mass_slope": (-5.0, 2.0),
}
#: With memberships, few of the members are anything else: Beta(1, 10), 9 % on average.
OUTLIER_POWER = 9.0
#: Start of the parameters that the coarse search holds, its steps and limits, and the first steps
#: downhill.
START = {
    "binary_fraction": 0.3,
    "field_fraction": 0.15,
    "log_scatter": np.log(0.12),
}
STEPS = {"log_age": 0.2, "a_v": 0.4, "distance_modulus": 0.4}
LEAST = {"distance_modulus": 3.0}
MOST = {"a_v": 2.5, "distance_modulus": 17.0}
COARSE_RATIOS = np.array([0.0, 0.75, 1.0])
SCALES = {
    "log_age": 0.05,
    "metallicity": 0.03,
    "distance_modulus": 0.1,
    "a_v": 0.1,
    "binary_fraction": 0.05,
    "field_fraction": 0.03,
    "log_scatter": 0.3,
    "mass_slope": 0.3,
}


class ClusterPosterior:
    """Posterior of the parameters in ``names``, given the stars and a grid."""

    def __init__(self, stars: Stars, grid, bands, priors, zero_point_error, *, known):
        self.stars, self.grid = stars, grid
        self.columns = [list(grid.bands).index(band) for band in bands]
        self.phase = np.ascontiguousarray(grid.phase, dtype=np.int64)
        self.ratios = np.array([extinction_ratio(band) for band in bands])
        feh = grid.metallicities
        self.metallicity = float(feh[0]) if len(feh) == 1 else None
        offsets = tuple(f"offset_{band}" for band in bands)
        names = ("log_age", "metallicity", *RANGES, *offsets)
        self.names = tuple(
            name for name in names if name != "metallicity" or self.metallicity is None
        )
        self.index = {name: k for k, name in enumerate(self.names)}
        ranges = RANGES | {
            "log_age": (grid.log_ages[0], grid.log_ages[-1]),
            "metallicity": (feh[0], feh[-1]),
        }
        wide = (-10.0 * zero_point_error, 10.0 * zero_point_error)
        self.low, self.high = np.array([ranges.get(name, wide) for name in self.names]).T
        given = {name: prior for name, prior in priors.items() if prior and name in self.index}
        for name, (mean, sigma) in given.items():
            low, high = ranges[name]
            if not (low <= mean <= high and sigma > 0):
                raise DataredError(
                    f"{name} = ({mean:g}, {sigma:g}): give a mean from {low:g} to {high:g} and a "
                    "standard deviation above 0"
                )
        given |= {name: (0.0, zero_point_error) for name in offsets}
        self.priors = [(self.index[name], *prior) for name, prior in given.items()]
        self.outlier_power = OUTLIER_POWER if known else 0.0
        self.density = np.empty(len(stars.probability))

    def fill(self, point, stars, ratios=MASS_RATIOS):
        """Compute the density of the model at each star; False where there is no model."""
        at = self.index
        feh = self.metallicity if self.metallicity is not None else point[at["metallicity"]]
        mass, absolute = self.grid.nodes(point[0], feh)
        shift = point[at["distance_modulus"]] + point[at["a_v"]] * self.ratios
        magnitudes = absolute[:, self.columns] + (shift + point[at["mass_slope"] + 1 :])
        return model_density(
            mass.copy(),
            magnitudes,
            self.phase.copy(),
            stars.magnitudes,
            stars.variance,
            stars.band,
            stars.limits,
            point[at["binary_fraction"]],
            np.exp(point[at["log_scatter"]]),
            point[at["mass_slope"]],
            ratios,
            self.density,
        )

    def __call__(self, point, stars=None, ratios=MASS_RATIOS):
        """Logarithm of the posterior, up to a constant."""
        stars = self.stars if stars is None else stars
        if not (np.all(point > self.low) and np.all(point < self.high)):
            return -np.inf
        if not self.fill(point, stars, ratios):
            return -np.inf
        outliers = point[self.index["field_fraction"]]
        total = self.outlier_power * np.log1p(-outliers)
        for k, mean, sigma in self.priors:
            total -= 0.5 * ((point[k] - mean) / sigma) ** 2
        density = self.density[: len(stars.probability)]
        return total + log_likelihood(density, stars.field, stars.probability, outliers)

    def probabilities(self, point):
        """Probability of each star to follow the model."""
        self.fill(point, self.stars)
        member = self.stars.probability * (1.0 - point[self.index["field_fraction"]])
        good = member * self.density
        return good / (good + (1.0 - member) * self.stars.field)

    def starting_points(self, rng):
        """Return the places of the walkers: a search in a coarse net, then downhill."""
        from scipy.optimize import minimize

        few = self.stars.thinned(100)
        middle = 0.5 * (self.low + self.high)
        for k, mean, _ in self.priors:
            middle[k] = np.clip(mean, self.low[k] + 1e-3, self.high[k] - 1e-3)
        for name, value in START.items():
            middle[self.index[name]] = value
        net = {name: self._net(name) for name in ("log_age", "a_v", "distance_modulus")}
        points = np.repeat(middle[None], np.prod([len(v) for v in net.values()]), axis=0)
        axes = np.meshgrid(*net.values(), indexing="ij")
        for name, values in zip(net, axes, strict=True):
            points[:, self.index[name]] = values.ravel()
        found = np.array([self(point, few, COARSE_RATIOS) for point in points])
        tops, best = [], []
        for k in np.argsort(-found):
            far = [abs(points[k] - top)[0] > 0.3 for top in tops]
            if np.isfinite(found[k]) and all(far) and len(tops) < 3:
                tops.append(points[k])
        if not tops:
            raise DataredError(
                "no isochrone of the grid comes near the stars: check the magnitude systems, "
                "and the values given for distance_modulus and a_v"
            )
        scale = np.array([SCALES.get(name, 0.002) for name in self.names])
        for top in tops:
            top[self.index["log_scatter"]] = np.log(0.03)
            simplex = np.vstack([top, top + np.diag(scale * rng.choice([-1, 1], scale.size))])
            options = {"initial_simplex": simplex, "maxfev": 700, "adaptive": True}
            result = minimize(
                lambda point: -self(point), top, method="Nelder-Mead", options=options
            )
            best.append((result.fun, result.x))
        least = min(value for value, _ in best)
        near = [point for value, point in best if value < least + 8]
        walkers = []
        while len(walkers) < max(WALKERS, 2 * len(self.names) + 2):
            point = near[len(walkers) % len(near)] + 0.3 * scale * rng.normal(size=scale.size)
            point = np.clip(point, self.low + 1e-6, self.high - 1e-6)
            if np.isfinite(self(point)):
                walkers.append(point)
        return np.array(walkers)

    def _net(self, name):
        """Values of one parameter for the coarse search."""
        k = self.index[name]
        step = STEPS[name]
        low = max(self.low[k], LEAST.get(name, -np.inf)) + 1e-3
        high = min(self.high[k], MOST.get(name, np.inf)) - 1e-3
        for j, mean, sigma in self.priors:
            if j == k:
                low, high = max(low, mean - 2 * sigma), min(high, mean + 2 * sigma)
        return np.linspace(low, high, max(1, round((high - low) / step)) + 1)
