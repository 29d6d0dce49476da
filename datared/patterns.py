"""Patterns: the pattern of detected stars found again among the stars of a catalogue.

Two detected stars and two catalogue stars at the right distance from each other propose a
transformation; the other detected stars vote on it. A proposal with many more votes than chance
gives is refined and then judged by its odds against chance.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

__all__ = ["MIN_LOG_ODDS", "Pattern", "find_pattern", "judge", "log_odds", "mutual_matches"]

#: A pattern is believed when the odds for it, against a chance alignment, are a billion to one
#: (Lang et al. 2010, AJ 139, 1782, section 2.4).
MIN_LOG_ODDS = math.log(1e9)
#: A pattern with such odds needs no comparison with the next proposals.
CERTAIN = 5 * MIN_LOG_ODDS
#: Number of catalogue stars, on the area of one frame, per detected star in the vote.
CATALOGUE_DEPTH = 2.0
#: How many detected stars propose and how many vote, round after round, by brightness.
ROUNDS = ((12, 25), (25, 60), (45, 110))
#: Share of the stars that must vote for a proposal for it to stay in the race.
LEAST_VOTES = 0.1
#: Proposals with the most votes that are judged in each round.
CANDIDATES = 30
#: Proposals that are put to the vote in one round, the pairs of the brightest stars first: some
#: seconds. A frame of noise, whose pairs all find partners, must not hold up a night.
MOST_PROPOSALS = 10_000_000


class Pattern(NamedTuple):
    """Where a pattern of detected stars lies in the catalogue's plane.

    Attributes
    ----------
    affine : numpy.ndarray of float, shape (3, 2)
        Plane coordinates are ``[1, x, y] @ affine``.
    detected, catalogue : numpy.ndarray of int
        Rows that match each other.
    log_odds : float
        Natural logarithm of the odds against chance.
    """

    affine: np.ndarray
    detected: np.ndarray
    catalogue: np.ndarray
    log_odds: float


def find_pattern(stars, catalogue, *, size, scale, search_radius, scale_tolerance=0.1, error=3.0):
    """Find a frame's stars among catalogue stars of a plane.

    Rotation and parity are free. Up to two thirds of either list may be spurious.

    Parameters
    ----------
    stars : numpy.ndarray of float, shape (n, 2)
        Detected stars in pixels relative to the middle of the frame, brightest first.
    catalogue : numpy.ndarray of float, shape (m, 2)
        Catalogue stars in the plane, brightest first, relative to where the middle is expected.
    size : tuple of float
        Width and height of the frame in pixels.
    scale : float
        Plane units per pixel, expected.
    search_radius : float
        Largest distance of the middle of the frame from where it is expected, in plane units.
    scale_tolerance : float
        Largest relative error of the scale.
    error : float
        How far, in pixels, a star may be from its place in the first, linear fit.

    Returns
    -------
    Pattern or None
        The best pattern if its odds are good enough, else None.
    """
    reach = search_radius + 0.5 * math.hypot(*size) * scale * (1 + scale_tolerance)
    near = np.flatnonzero(np.hypot(*catalogue.T) <= reach)
    catalogue = catalogue[near]
    if min(len(stars), len(catalogue)) < 5:
        return None
    share = max(1.0, math.pi * reach**2 / (size[0] * size[1] * scale**2))
    done = None
    for n_pairs, n_votes in ROUNDS:
        n_pairs, n_votes = min(n_pairs, len(stars)), min(n_votes, len(stars))
        depth = min(int(CATALOGUE_DEPTH * n_votes * share), len(catalogue))
        if (n_votes, depth) == done:
            break
        done = (n_votes, depth)
        proposals = _proposals(
            stars[:n_votes], catalogue[:depth], n_pairs, 0.12 * math.hypot(*size), scale,
            search_radius, scale_tolerance, 1.5 * error,
        )  # fmt: skip
        best = None
        for a, b, c, d, mirrored in proposals:
            affine = _similarity(stars[[a, b]], catalogue[[c, d]], mirrored)
            pattern = _refine(stars, catalogue, affine, scale, scale_tolerance, error, size)
            if pattern is not None and (best is None or pattern.log_odds > best.log_odds):
                best = pattern
                if best.log_odds > CERTAIN:
                    break
        if best is not None and best.log_odds > MIN_LOG_ODDS:
            return best._replace(catalogue=near[best.catalogue])
    return None


def mutual_matches(first, second, radius):
    """Rows of two lists of points that are each other's nearest, within a radius.

    Parameters
    ----------
    first, second : numpy.ndarray of float, shapes (n, 2) and (m, 2)
        Points.
    radius : float
        Largest distance.

    Returns
    -------
    i, j : numpy.ndarray of int
        Rows of the pairs, ordered by ``i``.

    Examples
    --------
    >>> i, j = mutual_matches(np.array([[0, 0], [5, 5]]), np.array([[5, 6], [5, 5.5]]), 2)
    >>> i.tolist(), j.tolist()
    ([1], [1])
    """
    if not len(first) or not len(second):
        return np.empty(0, int), np.empty(0, int)
    distance, there = cKDTree(second).query(first, distance_upper_bound=radius)
    _, back = cKDTree(first).query(second)
    i = np.flatnonzero(np.isfinite(distance))
    i = i[back[there[i]] == i]
    return i, there[i]


def log_odds(distance, matched, density, *, sigma, n_fitted):
    r"""Odds that stars and catalogue agree not by chance.

    Each star is, under the hypothesis, spurious with probability d = 0.8 or lies around its
    catalogue star with a Gaussian error; under chance it lies anywhere:

    .. math:: \ln O = \sum_i \ln\left[d + (1 - d)
              \frac{\exp(-r_i^2 / 2\sigma^2)}{2\pi\sigma^2 \rho_i}\right]

    The ``n_fitted`` best terms do not count: so many stars would agree with any fit.

    Parameters
    ----------
    distance : numpy.ndarray of float, shape (n_matched,)
        Distances of the matched stars from their catalogue stars, in the order of ``matched``.
    matched : numpy.ndarray of bool, shape (n,)
        Which stars are matched.
    density : numpy.ndarray of float, shape (n,)
        Catalogue stars per unit area around each star.
    sigma : float
        Error of a position along one axis.
    n_fitted : int
        Number of stars that the fit takes for itself.

    Returns
    -------
    float
        Natural logarithm of the odds.
    """
    spurious = 0.8
    terms = np.full(len(matched), math.log(spurious))
    peak = np.exp(-0.5 * (distance / sigma) ** 2) / (2 * math.pi * sigma**2)
    terms[matched] = np.log(spurious + (1 - spurious) * peak / density[matched])
    return float(np.sort(terms)[: max(len(terms) - n_fitted, 0)].sum())


def judge(predicted, catalogue, i, j, *, size, scale, leverage=0.0, n_fitted=3, reach=45.0):
    """Odds that matched lists are the same stars and not a chance alignment.

    Parameters
    ----------
    predicted, catalogue : numpy.ndarray of float, shapes (n, 2) and (m, 2)
        Detected stars taken to the plane by the fit, and catalogue stars there.
    i, j : numpy.ndarray of int
        Rows that match, ordered by ``i``.
    size : tuple of float
        Width and height of the frame in pixels.
    scale : float
        Plane units per pixel.
    leverage : float or numpy.ndarray of float, shape of ``i``
        Share of each star in its own prediction: without it the star would be farther off.
    n_fitted : int
        Number of stars that the fit takes for itself.
    reach : float
        Pixels around a star over which the density of the catalogue is counted.

    Returns
    -------
    float
        Natural logarithm of the odds (`log_odds`).
    """
    distance = np.hypot(*(predicted[i] - catalogue[j]).T) / (1 - np.minimum(leverage, 0.9))
    sigma = max(float(np.sqrt(np.mean(distance**2) / 2)), 0.2 * scale) if len(i) else scale
    near = cKDTree(predicted).query(catalogue)[0] <= 0.25 * math.hypot(*size) * scale
    mean = max(np.count_nonzero(near), len(i), 1) / (size[0] * size[1] * scale**2)
    count = cKDTree(catalogue).query_ball_point(predicted, reach * scale, return_length=True)
    # The star's own match is not part of the chance around it. In the core of a cluster chance
    # is more frequent than over the frame: two clumps on each other match by themselves.
    density = np.maximum(mean, np.maximum(count - 1, 0) / (math.pi * (reach * scale) ** 2))
    matched = np.zeros(len(predicted), bool)
    matched[i] = True
    return log_odds(distance, matched, density, sigma=sigma, n_fitted=n_fitted)


def _similarity(stars, catalogue, mirrored):
    """Affine matrix of the similarity that takes two stars to two catalogue stars."""
    flip = -1.0 if mirrored else 1.0
    (dx, dy), (du, dv) = stars[1] - stars[0], catalogue[1] - catalogue[0]
    ratio = complex(du, dv) / complex(dx, flip * dy)
    linear = np.array([[ratio.real, ratio.imag], [-flip * ratio.imag, flip * ratio.real]])
    return np.vstack([catalogue[0] - stars[0] @ linear, linear])


def _refine(stars, catalogue, affine, scale, scale_tolerance, error, size):
    """Improve a proposal by matches and affine fits, and judge it; None if it falls apart."""
    bright = stars[: ROUNDS[-1][1]]
    design = np.column_stack([np.ones(len(bright)), bright])
    for radius in (2.0 * error, 1.5 * error, error, error):
        i, j = mutual_matches(design @ affine, catalogue, radius * scale)
        if len(i) < 5:
            return None
        affine = np.linalg.lstsq(design[i], catalogue[j], rcond=None)[0]
        # A shear or a stretch is no image of the sky: such fits come from chance alone.
        long, short = np.linalg.svd(affine[1:], compute_uv=False)
        middle = math.sqrt(long * short) / scale
        if long > 1.1 * short or not abs(middle - 1) < 1.2 * scale_tolerance + 0.01:
            return None
    i, j = mutual_matches(design @ affine, catalogue, error * scale)
    if len(i) < 5:
        return None
    q, _ = np.linalg.qr(design[i])
    odds = judge(
        design @ affine, catalogue, i, j, size=size, scale=scale,
        leverage=(q**2).sum(axis=1), n_fitted=3, reach=15 * error,
    )  # fmt: skip
    return Pattern(affine, i, j, odds)


def _proposals(stars, catalogue, n_pairs, shortest, scale, search_radius, scale_tolerance, error):
    """Return the proposals with the most votes, as rows (a, b, c, d, mirrored), best first."""
    longest = math.hypot(*np.ptp(stars, axis=0)) * scale * (1 + scale_tolerance)
    pairs = cKDTree(catalogue).query_pairs(longest, output_type="ndarray")
    if not len(pairs):
        return []
    length = np.hypot(*(catalogue[pairs[:, 0]] - catalogue[pairs[:, 1]]).T)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], length))
    # The catalogue is painted on a grid: whether a star has a partner is then one look-up.
    cell = error * scale
    low = catalogue.min(axis=0) - 3 * cell
    shape = ((catalogue.max(axis=0) - low) / cell).astype(int) + 4
    column, row = ((catalogue - low) / cell).astype(int).T
    painted = np.full(shape[::-1], -1, np.int32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            painted[row + dy, column + dx] = np.arange(len(catalogue))
    painted[row, column] = np.arange(len(catalogue))
    found = _vote(
        stars, catalogue, pairs[order].astype(np.int64), length[order], painted,
        float(low[0]), float(low[1]), float(1 / cell), n_pairs, float(shortest), float(scale),
        float(search_radius), float(scale_tolerance), CANDIDATES, LEAST_VOTES, MOST_PROPOSALS,
    )  # fmt: skip
    return [tuple(int(v) for v in line[1:]) for line in found if line[0] > 0]


@njit(cache=True)
def _vote(
    stars, catalogue, pairs, length, painted, u0, v0, per_cell, n_pairs, shortest, scale,
    search_radius, scale_tolerance, n_keep, least, most,
):  # fmt: skip
    """Let the stars vote on every proposal; return the best as (votes, a, b, c, d, mirrored)."""
    best = np.zeros((n_keep, 6), np.int64)
    ny, nx = painted.shape
    n_stars = stars.shape[0]
    used = np.full(catalogue.shape[0], -1, np.int64)
    n_proposal = 0
    for b in range(1, n_pairs):
        for a in range(b):
            dx, dy = stars[b, 0] - stars[a, 0], stars[b, 1] - stars[a, 1]
            pixels = math.hypot(dx, dy)
            if pixels < shortest:
                continue
            norm = pixels * pixels
            first = np.searchsorted(length, pixels * scale * (1 - scale_tolerance))
            last = np.searchsorted(length, pixels * scale * (1 + scale_tolerance))
            if n_proposal > most:
                return best
            for p in range(first, last):
                for turn in range(4):
                    c, d = pairs[p, turn % 2], pairs[p, 1 - turn % 2]
                    flip = -1.0 if turn >= 2 else 1.0
                    du = catalogue[d, 0] - catalogue[c, 0]
                    dv = catalogue[d, 1] - catalogue[c, 1]
                    # Complex ratio of the two pairs; mirrored frames have their y negated.
                    re = (du * dx + dv * flip * dy) / norm
                    im = (dv * dx - du * flip * dy) / norm
                    u = catalogue[c, 0] - re * stars[a, 0] + im * flip * stars[a, 1]
                    v = catalogue[c, 1] - im * stars[a, 0] - re * flip * stars[a, 1]
                    if u * u + v * v > search_radius * search_radius:
                        continue
                    n_proposal += 1
                    votes = 0
                    for s in range(n_stars):
                        sx, sy = stars[s, 0], flip * stars[s, 1]
                        column = int((u + re * sx - im * sy - u0) * per_cell)
                        row = int((v + im * sx + re * sy - v0) * per_cell)
                        if 0 <= column < nx and 0 <= row < ny:
                            star = painted[row, column]
                            # Each catalogue star votes once, or a cluster would elect itself.
                            if star >= 0 and used[star] != n_proposal:
                                used[star] = n_proposal
                                votes += 1
                        # A proposal that can no more be among the best, or has so few votes that
                        # it will not be believed, is left early.
                        if votes + n_stars - 1 - s <= best[n_keep - 1, 0]:
                            break
                        if s % 10 == 9 and votes < 1 + least * s:
                            votes = 0
                            break
                    if votes < 4 or votes <= best[n_keep - 1, 0]:
                        continue
                    k = n_keep - 1
                    while k > 0 and best[k - 1, 0] < votes:
                        best[k] = best[k - 1]
                        k -= 1
                    best[k, 0], best[k, 1], best[k, 2] = votes, a, b
                    best[k, 3], best[k, 4], best[k, 5] = c, d, 1 if turn >= 2 else 0
    return best
