"""A mixture of normal distributions seen through the errors of each point: the compiled sums.

Extreme deconvolution (Bovy, Hogg & Roweis 2011, Annals of Applied Statistics 5, 1657) in three
dimensions, for errors without correlation: the covariance of term ``k`` at point ``i`` is
``V_k + S_i`` with a diagonal ``S_i``. The weights of the terms may differ between classes of
points, for instance between bright and faint stars.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

__all__ = ["Mixture", "shares", "step"]

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Mixture:
    """A mixture of ``k`` normal distributions in three dimensions.

    Parameters
    ----------
    weights : numpy.ndarray of float, shape (n_class, k)
        Weight of each term in each class of points; the sum over the terms is 1.
    means : numpy.ndarray of float, shape (k, 3)
        Middles.
    covariances : numpy.ndarray of float, shape (k, 3, 3)
        Covariances, without the errors of the points.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def shares(x, variance, group, mixture):
    """Share of each term in the density at each point.

    Parameters
    ----------
    x, variance : numpy.ndarray of float, shape (n, 3)
        Points and the squares of their errors.
    group : numpy.ndarray of int, shape (n,)
        Class of each point.
    mixture : Mixture
        The mixture.

    Returns
    -------
    share : numpy.ndarray of float, shape (n, k)
        Probability that the point is from the term.
    log_density : numpy.ndarray of float, shape (n,)
        Natural logarithm of the density of the whole mixture at the point.
    """
    n, k = len(x), len(mixture.means)
    share, log, inverse = np.empty((n, k)), np.empty(n), np.empty((n, k, 6))
    _expect(
        x, variance, group, mixture.weights, mixture.means, mixture.covariances, share, log, inverse
    )
    return share, log


def step(x, variance, group, mixture, *, prior=20.0):
    """Do one step of expectation and maximisation.

    Parameters
    ----------
    x, variance, group, mixture
        As for `shares`.
    prior : float
        So many points with the weights of all classes together are added to each class, so that a
        class of few points is not taken at its word.

    Returns
    -------
    better : Mixture
        The mixture of which the points are more probable.
    log_likelihood : float
        Of the mixture that was given.
    """
    n, k = len(x), len(mixture.means)
    share, log, inverse = np.empty((n, k)), np.empty(n), np.empty((n, k, 6))
    _expect(
        x, variance, group, mixture.weights, mixture.means, mixture.covariances, share, log, inverse
    )
    information, pull = np.zeros((k, 3, 3)), np.zeros((k, 3))
    _weigh(x, mixture.means, share, inverse, information, pull)
    # The weighted mean itself. Where V is small beside S, a step towards it would be tiny.
    means = (
        mixture.means + np.linalg.solve(information + 1e-12 * np.eye(3), pull[:, :, None])[:, :, 0]
    )
    number, moments = np.zeros(mixture.weights.shape), np.zeros((k, 3, 3))
    _maximise(x, group, means, mixture.covariances, share, inverse, number, moments)
    total = number.sum(axis=0)
    weights = number + prior * total / total.sum()
    weights /= weights.sum(axis=1, keepdims=True)
    covariances = moments / np.maximum(total, 1e-9)[:, None, None]
    return Mixture(weights, means, covariances), float(log.sum())


@njit(cache=True)
def _expect(x, variance, group, weights, means, covariances, share, log, inverse):
    """Fill the shares, the log of the density, and the inverse of V + S (its six numbers)."""
    for i in range(x.shape[0]):
        top = -1e300
        for k in range(means.shape[0]):
            v = covariances[k]
            a, b, c = v[0, 0] + variance[i, 0], v[1, 1] + variance[i, 1], v[2, 2] + variance[i, 2]
            d, e, f = v[0, 1], v[0, 2], v[1, 2]
            # Cofactors of the symmetric matrix ((a d e), (d b f), (e f c)).
            aa, bb, cc = b * c - f * f, a * c - e * e, a * b - d * d
            dd, ee, ff = e * f - d * c, d * f - e * b, d * e - a * f
            det = a * aa + d * dd + e * ee
            inverse[i, k, 0] = aa / det
            inverse[i, k, 1] = bb / det
            inverse[i, k, 2] = cc / det
            inverse[i, k, 3] = dd / det
            inverse[i, k, 4] = ee / det
            inverse[i, k, 5] = ff / det
            p, q, r = x[i, 0] - means[k, 0], x[i, 1] - means[k, 1], x[i, 2] - means[k, 2]
            chi2 = p * p * aa + q * q * bb + r * r * cc
            chi2 = (chi2 + 2 * (p * q * dd + p * r * ee + q * r * ff)) / det
            weight = max(weights[group[i], k], 1e-300)
            value = np.log(weight) - 0.5 * (chi2 + np.log(det) + 3 * LOG_2PI)
            share[i, k] = value
            top = max(top, value)
        norm = 0.0
        for k in range(means.shape[0]):
            share[i, k] = np.exp(share[i, k] - top)
            norm += share[i, k]
        for k in range(means.shape[0]):
            share[i, k] /= norm
        log[i] = top + np.log(norm)


@njit(cache=True)
def _unpack(inverse, t):
    """Write the six numbers of a symmetric matrix into a matrix."""
    for m in range(3):
        t[m, m] = inverse[m]
    t[0, 1] = inverse[3]
    t[1, 0] = inverse[3]
    t[0, 2] = inverse[4]
    t[2, 0] = inverse[4]
    t[1, 2] = inverse[5]
    t[2, 1] = inverse[5]


@njit(cache=True)
def _weigh(x, means, share, inverse, information, pull):
    """Add up q (V + S)^-1 and q (V + S)^-1 (x - mean) for each term."""
    t = np.empty((3, 3))
    for i in range(x.shape[0]):
        for k in range(means.shape[0]):
            q = share[i, k]
            if q < 1e-12:
                continue
            _unpack(inverse[i, k], t)
            for m in range(3):
                for n in range(3):
                    information[k, m, n] += q * t[m, n]
                    pull[k, m] += q * t[m, n] * (x[i, n] - means[k, n])


@njit(cache=True)
def _maximise(x, group, means, covariances, share, inverse, number, moments):
    """Add up numbers (class, k) and second moments (k, 3, 3) about the means."""
    t, gain, place = np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    for i in range(x.shape[0]):
        for k in range(means.shape[0]):
            q = share[i, k]
            number[group[i], k] += q
            if q < 1e-12:
                continue
            _unpack(inverse[i, k], t)
            v = covariances[k]
            # gain = V (V + S)^-1; place is where the point would be without its error.
            for m in range(3):
                place[m] = 0.0
                for n in range(3):
                    gain[m, n] = v[m, 0] * t[0, n] + v[m, 1] * t[1, n] + v[m, 2] * t[2, n]
                    place[m] += gain[m, n] * (x[i, n] - means[k, n])
            for m in range(3):
                for n in range(3):
                    rest = v[m, n] - gain[m, 0] * v[0, n]
                    rest -= gain[m, 1] * v[1, n] + gain[m, 2] * v[2, n]
                    moments[k, m, n] += q * (place[m] * place[n] + rest)
