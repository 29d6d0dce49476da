"""Patterns: the pattern of detected stars found again among the stars of a catalogue.

Three detected stars and three catalogue stars that form the same triangle, of about the right
size, propose a transformation; the other detected stars vote on it. The proposals with the most
votes are refined and then judged by their odds against chance.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from datared.neighbours import count_around, nearest
from datared.triangles import find_triangles, sort_triangles, vote

__all__ = [
    "MIN_LOG_ODDS",
    "MOST_STRETCH",
    "Pattern",
    "find_pattern",
    "judge",
    "log_odds",
    "mutual_matches",
]

#: Most cells of the painted catalogue along one side.
MOST_CELLS = 6000
#: A pattern is believed when the odds for it, against a chance alignment, are a billion to one
#: (Lang et al. 2010, AJ 139, 1782, section 2.4).
MIN_LOG_ODDS = math.log(1e9)
#: A pattern with such odds needs no comparison with the next proposals.
CERTAIN = 5 * MIN_LOG_ODDS
#: Number of catalogue stars, on the area of one frame, per detected star.
CATALOGUE_DEPTH = 2.0
#: Largest number of catalogue stars that are compared: they have numbers of 16 bits.
DEEPEST = 32_000
#: Detected stars of each round by rank of brightness, from the first to before the second.
ROUNDS = ((0, 15), (0, 30), (0, 60), (0, 110))
#: Rounds without the brightest stars of the frame, which a deep catalogue does not have.
LATER_ROUNDS = ((40, 100), (100, 160), (200, 260), (400, 460))
#: Fits that are stretched by more in one direction are not believed. Refraction 10 degrees above
#: the horizon stretches by 1 %.
MOST_STRETCH = 1.03
#: Stars with which a pattern is judged.
JUDGES = 110
#: Proposals with the most votes that are judged in each round.
CANDIDATES = 20
#: Bounds on the work of one round: triangles of either list, the brightest stars first, and
#: votes asked for. A frame of noise must not hold up a night.
MOST_TRIANGLES, MOST_VOTES = 600_000, 10_000_000


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


def find_pattern(
    stars, catalogue, *, size, scale, search_radius, scale_tolerance=0.1, error=3.0,
    thorough=True,
):  # fmt: skip
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
        Largest relative error of the scale, as a factor 1 - tolerance or its inverse.
    error : float
        How far, in pixels, a star may be from its place in the first, linear fit.
    thorough : bool
        Whether to try also without the brightest stars of the frame.

    Returns
    -------
    Pattern or None
        The best pattern if its odds are good enough, else None.
    """
    # A scale is as wrong by the factor 1 / (1 - tolerance) as by 1 - tolerance.
    largest = 1 / (1 - min(scale_tolerance, 0.9))
    reach = search_radius + 0.5 * math.hypot(*size) * scale * largest
    near = np.flatnonzero(np.hypot(*catalogue.T) <= reach)
    # From here on a unit of the plane is a pixel of the expected scale.
    catalogue = catalogue[near] / scale
    if min(len(stars), len(catalogue)) < 5:
        return None
    share = max(1.0, math.pi * (reach / scale) ** 2 / (size[0] * size[1]))
    done = set()
    for first, last in ROUNDS + (LATER_ROUNDS if thorough else ()):
        chosen = np.arange(min(first, len(stars)), min(last, len(stars)))
        depth = min(int(CATALOGUE_DEPTH * len(chosen) * share), len(catalogue), DEEPEST)
        if len(chosen) < 5 or (first, len(chosen)) in done:
            continue
        done.add((first, len(chosen)))
        proposals = _proposals(
            stars[chosen], catalogue[:depth], size, search_radius / scale, largest, error
        )
        judges = np.arange(first, min(first + JUDGES, len(stars)))
        best = None
        for proposal in proposals:
            pattern = _refine(stars[judges], catalogue, proposal, largest, error, size)
            if pattern is not None and (best is None or pattern.log_odds > best.log_odds):
                best = pattern
                if best.log_odds > CERTAIN:
                    break
        if best is not None and best.log_odds > MIN_LOG_ODDS:
            return Pattern(
                best.affine * scale, judges[best.detected], near[best.catalogue], best.log_odds
            )
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
    there, back = nearest(first, second, radius)
    i = np.flatnonzero(there >= 0)
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
        Pixels around a star over which the density of the catalogue is counted. Matched stars
        within a quarter of it count as one, the brightest.

    Returns
    -------
    float
        Natural logarithm of the odds (`log_odds`).
    """
    distance = np.hypot(*(predicted[i] - catalogue[j]).T) / (1 - np.minimum(leverage, 0.9))
    sigma = max(float(np.sqrt(np.mean(distance**2) / 2)), 0.2 * scale) if len(i) else scale
    # More than the frame is counted, so that chance is not underrated at the catalogue's edge.
    middle = np.median(predicted, axis=0)
    near = np.hypot(*(catalogue - middle).T) <= 0.5 * math.hypot(*size) * scale
    mean = max(np.count_nonzero(near), len(i), 1) / (size[0] * size[1] * scale**2)
    count = count_around(predicted, catalogue, reach * scale)
    # The star's own match is not part of the chance around it. In the core of a cluster chance
    # is more frequent than over the frame: two clumps on each other match by themselves.
    density = np.maximum(mean, np.maximum(count - 1, 0) / (math.pi * (reach * scale) ** 2))
    matched = np.zeros(len(predicted), bool)
    matched[i] = True
    # Detections that stand together are one piece of evidence: where a star is detected twice
    # and is twice in the catalogue, both agree as soon as one does.
    close = cKDTree(predicted[i]).query_pairs(reach * scale / 4, output_type="ndarray")
    single = np.ones(len(predicted), bool)
    single[i[close.max(axis=1)]] = False
    return log_odds(
        distance[single[i]], matched[single], density[single], sigma=sigma, n_fitted=n_fitted
    )


def _refine(stars, catalogue, affine, largest, error, size):
    """Improve a proposal by matches and affine fits, and judge it; None if it falls apart."""
    here = np.hypot(*(catalogue - affine[0]).T) <= 0.55 * largest * math.hypot(*size)
    here = np.flatnonzero(here)
    there = catalogue[here]
    design = np.column_stack([np.ones(len(stars)), stars])
    # Few stars, perhaps on one side, determine a similarity well but not yet a shear.
    for radius, fit in ((2.0, _similarity), (1.5, _similarity), (1.0, _affine), (1.0, _affine)):
        i, j = mutual_matches(design @ affine, there, radius * error)
        if len(i) < 5:
            return None
        affine = fit(stars[i], there[j], affine)
        # A shear or a stretch is no image of the sky: such fits come from chance alone.
        long, short = np.linalg.svd(affine[1:], compute_uv=False)
        middle = math.sqrt(long * short)
        if long > MOST_STRETCH * short or abs(math.log(middle)) > math.log(1.01 * largest):
            return None
    i, j = mutual_matches(design @ affine, there, error)
    if len(i) < 5:
        return None
    q, _ = np.linalg.qr(design[i])
    odds = judge(
        design @ affine, there, i, j, size=size, scale=1.0,
        leverage=(q**2).sum(axis=1), n_fitted=3, reach=15 * error,
    )  # fmt: skip
    return Pattern(affine, i, here[j], odds)


def _affine(stars, catalogue, _):
    """Affine matrix through matched stars."""
    design = np.column_stack([np.ones(len(stars)), stars])
    return np.linalg.lstsq(design, catalogue, rcond=None)[0]


def _similarity(stars, catalogue, before):
    """Shift, turn and scale through matched stars; the parity is that of the matrix before."""
    flip = np.sign(np.linalg.det(before[1:]))
    star, sky = stars @ np.array([1, 1j * flip]), catalogue @ np.array([1, 1j])
    middle, place = star.mean(), sky.mean()
    ratio = np.vdot(star - middle, sky - place) / np.vdot(star - middle, star - middle).real
    shift = place - ratio * middle
    re, im = ratio.real, ratio.imag
    return np.array([[shift.real, shift.imag], [re, im], [-flip * im, flip * re]])


def _proposals(stars, catalogue, size, search_radius, largest, error):
    """Return the proposals with the most votes as affine matrices, best first."""
    # The more stars, the smaller the triangles: their number stays in proportion.
    longest = min(0.8, math.sqrt(8 / len(stars))) * math.hypot(*size)
    found = find_triangles(stars, longest, MOST_TRIANGLES)
    known = find_triangles(catalogue, longest * largest, MOST_TRIANGLES)
    if not len(found.corners) or not len(known.corners):
        return []
    # Sides are less wrong than positions: neighbours share most of the distortion.
    slack = 1.1 * error
    painted, low, cell = _paint(catalogue, 1.5 * error)
    best = vote(
        stars, catalogue, found, sort_triangles(known, slack / longest), painted, low, cell,
        slack=slack, search_radius=search_radius, largest=largest,
        n_keep=CANDIDATES, most=MOST_VOTES,
    )  # fmt: skip
    return best


def _paint(catalogue, cell):
    """Catalogue on a grid, so that whether a place has a star is one look-up."""
    # A catalogue of the whole sky gets larger cells: the odds are judged without them.
    cell = max(cell, float(np.ptp(catalogue, axis=0).max()) / MOST_CELLS)
    low = catalogue.min(axis=0) - 3 * cell
    nx, ny = ((catalogue.max(axis=0) - low) / cell).astype(int) + 4
    column, row = ((catalogue - low) / cell).astype(int).T
    painted = np.full((ny, nx), -1, np.int16)
    number = np.arange(len(catalogue))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            painted[row + dy, column + dx] = number
    painted[row, column] = number
    return painted, low, cell
