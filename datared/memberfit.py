"""The fit behind `datared.membership`: a field of broad terms, and one narrow cluster on top."""

import warnings
from dataclasses import dataclass

import numpy as np

from .deconvolution import Mixture, shares, step

__all__ = ["Clump", "find_cluster"]

#: km/s of a motion of one mas/yr at a parallax of one mas.
KMS = 4.74047
#: Stars of an open cluster differ by less than this (km/s), those of the disc by more than that.
CLUSTER_SPREAD, FIELD_SPREAD = 5.0, 10.0
#: Depth along the line of sight (kpc, one standard deviation): at most, and at least.
CLUSTER_DEPTH, FIELD_DEPTH = 0.02, 0.3
#: The field is guessed from so many stars at least.
MIN_OUTSIDE = 20
ITERATIONS = 1000
TRIALS, MAX_CLASSES = 400, 4
#: The fit is at rest when the logarithm of the likelihood grows by less than this in a step.
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Clump:
    """The best cluster among some stars, whether it is believable or not.

    Parameters
    ----------
    share : numpy.ndarray of float, shape (n,)
        Share of the cluster in the density at each star.
    gain : float
        By how much the Bayesian information criterion is better than without a cluster.
    centre, centre_err : numpy.ndarray of float, shape (3,)
        Proper motion (mas/yr) and parallax (mas) with standard errors.
    spread, spread_err : float
        Standard deviation of the motions in each direction, without the stars' errors (mas/yr).
    converged : bool
        Whether the fit came to rest.
    """

    share: np.ndarray
    gain: float
    centre: np.ndarray
    centre_err: np.ndarray
    spread: float
    spread_err: float
    converged: bool


def find_cluster(x, variance, *, seed=0):
    """Fit the field alone, then with a cluster; see the notes of `datared.membership.membership`.

    Parameters
    ----------
    x, variance : numpy.ndarray of float, shape (n, 3)
        Proper motions (mas/yr) and parallaxes (mas), and the squares of their errors. All finite.
    seed : int
        Seed of the start.

    Returns
    -------
    Clump
        The best cluster.
    """
    points = x, variance, _classes(variance)
    before, field_only, _ = _best_fit(points, np.ones(len(x), bool), seed)
    middle = _best_centre(*points, field_only, seed)
    # The field is guessed from the stars outside, or a term of it would sit on the cluster.
    outside = shares(*points, middle)[0][:, 0] < 0.5
    rows = outside if outside.sum() >= MIN_OUTSIDE else ~outside
    after, found, converged = _best_fit(points, rows, seed, middle)
    share = shares(*points, found)[0][:, 0]
    return Clump(share, after - before, *_describe(*points, found, share), converged)


def _limits(parallax):
    """Variances that divide cluster and field at a parallax (mas).

    A parallax that is very small or negative is not believed.

    Returns
    -------
    tuple of float
        Largest variance of motion and of parallax in a cluster, smallest of both in the field.
    """
    p = max(parallax, 0.05)
    motion = [(speed / KMS * p) ** 2 for speed in (CLUSTER_SPREAD, FIELD_SPREAD)]
    return motion[0], (CLUSTER_DEPTH * p**2) ** 2, motion[1], min(FIELD_DEPTH * p**2, p / 2) ** 2


def _classes(variance):
    """Class of each star by its error: bright and faint stars have other shares of members."""
    error = np.sqrt(variance[:, 0] + variance[:, 1])
    number = int(np.clip(len(error) // 75, 1, MAX_CLASSES))
    edges = np.quantile(error, np.arange(1, number) / number)
    return np.searchsorted(edges, error)


def _best_fit(points, rows, seed, cluster=None):
    """Fit one to five terms for the field, and the cluster if there is one; take the best number.

    Returns the (negative) Bayesian information criterion, the mixture, and whether it is at rest.
    """
    best = None
    for k in range(1, 6):
        # A term has ten numbers of its own.
        if k > 1 and rows.sum() < 20 * k:
            break
        start = _field_start(points[0][rows], k, seed)
        weights = np.tile(start.weights, (points[2].max() + 1, 1))
        if cluster is not None:
            weight = cluster.weights[:, :1]
            start = Mixture(
                np.hstack([weight, (1 - weight) * weights]),
                np.vstack([cluster.means[:1], start.means]),
                np.concatenate([cluster.covariances[:1], start.covariances]),
            )
        else:
            start = Mixture(weights, start.means, start.covariances)
        mixture, value, converged = _fit(*points, start, cluster=cluster is not None)
        # Nine of a term and its weight; five of the cluster and its weight. The weights of the
        # classes are held together by their common value and count once.
        numbers = 10 * k + (0 if cluster is None else 6)
        score = 2 * value - numbers * np.log(len(points[0]))
        if best is None or score > best[0]:
            best, terms = (score, mixture, converged), k
        elif k == terms + 2:
            break  # One term more may be worse than two more, which can share a long tail.
    return best


def _field_start(x, k, seed):
    """Mixture of k terms for all stars, without their errors, from scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    middle = np.median(x, axis=0)
    width = 1.4826 * np.median(np.abs(x - middle), axis=0) + 1e-6
    scaled = (x - middle) / width
    # A star that runs away would get a term of its own.
    near = np.abs(scaled).max(axis=1) < 15
    model = GaussianMixture(k, reg_covar=1e-3, n_init=3, random_state=seed)
    with warnings.catch_warnings():
        # It is a start only: what did not converge yet, or has stars in one point, will do.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaled[near])
    covariances = model.covariances_ * np.outer(width, width)
    return Mixture(model.weights_[None], model.means_ * width + middle, covariances)


def _best_centre(x, variance, group, mixture, seed):
    """Try stars as the middle of a cluster on top of the field; return the best as a start."""
    rng = np.random.default_rng(seed)
    rows = np.arange(len(x)) if len(x) <= TRIALS else rng.choice(len(x), TRIALS, replace=False)
    log_field = shares(x, variance, group, mixture)[1]
    best = (-np.inf,)
    for row in rows:
        motion, depth, *_ = _limits(x[row, 2])
        spread = np.array([motion / 9, motion / 9, depth / 4])
        total = variance + spread
        log = -0.5 * np.sum((x - x[row]) ** 2 / total + np.log(2 * np.pi * total), axis=1)
        ratio = np.exp(np.minimum(log - log_field, 50.0))
        f = 0.05
        for _ in range(8):
            f = np.mean(f * ratio / (f * ratio + 1 - f))
        gain = np.sum(np.log(f * ratio + 1 - f))
        if gain > best[0]:
            best = (gain, f, x[row], np.diag(spread))
    _, f, centre, covariance = best
    f = max(f, 0.01)
    weights = np.column_stack([np.full(len(mixture.weights), f), (1 - f) * mixture.weights])
    covariances = np.concatenate([covariance[None], mixture.covariances])
    return Mixture(weights, np.vstack([centre, mixture.means]), covariances)


def _fit(x, variance, group, mixture, *, cluster=False):
    """Repeat the steps; return the mixture, the log of its likelihood, and if it came to rest."""
    mixture, last = _limited(mixture, cluster), -np.inf
    for _ in range(ITERATIONS):
        better, value = step(x, variance, group, mixture)
        if value - last < TOLERANCE:
            return mixture, value, True
        mixture, last = _limited(better, cluster), value
    return mixture, value, False


def _limited(mixture, cluster):
    """Make the cluster round and narrow, and the terms of the field broad."""
    covariances = np.array(mixture.covariances)
    if cluster:
        motion, depth, *_ = _limits(mixture.means[0, 2])
        spread = np.clip((covariances[0, 0, 0] + covariances[0, 1, 1]) / 2, 1e-8, motion)
        covariances[0] = np.diag([spread, spread, np.clip(covariances[0, 2, 2], 1e-10, depth)])
    for k in range(int(cluster), len(covariances)):
        *_, motion, depth = _limits(mixture.means[k, 2])
        covariances[k] = (covariances[k] + covariances[k].T) / 2
        size, axes = np.linalg.eigh(covariances[k, :2, :2])
        covariances[k, :2, :2] += (axes * np.maximum(motion - size, 0)) @ axes.T
        covariances[k, 2, 2] += max(depth - covariances[k, 2, 2], 0)
    return Mixture(mixture.weights, mixture.means, covariances)


def _describe(x, variance, group, mixture, share):
    """Middle and spread of the cluster with errors from the scatter of the stars' scores.

    The score of a star is the change of the logarithm of its density with a parameter; the inverse
    of the sum of their squares is the covariance of the parameters (the empirical Fisher matrix).
    """
    total = variance + np.diag(mixture.covariances[0])
    away = x - mixture.means[0]
    slope = 0.5 * share * np.sum((away**2 / total**2 - 1 / total)[:, :2], axis=1)
    weight = np.clip(mixture.weights[group, 0], 1e-6, 1 - 1e-6)
    number = (share - weight) / (weight * (1 - weight))
    scores = np.column_stack([share[:, None] * away / total, slope, number])
    # A spread at its limit has a score that is not zero in the mean; that is no information.
    scores = scores - scores.mean(axis=0)
    scale = np.sqrt(np.sum(scores**2, axis=0)) + 1e-300
    inverse = np.linalg.pinv((scores / scale).T @ (scores / scale))
    sigma = np.sqrt(np.maximum(np.diag(inverse), 0)) / scale
    spread = float(np.sqrt(mixture.covariances[0, 0, 0]))
    return mixture.means[0], sigma[:3], spread, float(sigma[3] / (2 * spread))
