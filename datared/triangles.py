"""Triangles: the same triangle of stars in two lists, and the votes on what it proposes."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

__all__ = ["Index", "Triangles", "find_triangles", "sort_triangles", "vote"]

#: Share of the stars that must vote for a proposal for it to stay in the race.
LEAST_VOTES = 0.1
#: Longest sides shorter than this share of the largest allowed: too small to turn a frame by.
LEAST_SIZE = 0.35


class Triangles(NamedTuple):
    """Triangles of points.

    Attributes
    ----------
    corners : numpy.ndarray of int, shape (n, 3)
        Rows of the points opposite to the longest, the middle and the shortest side.
    shape : numpy.ndarray of float, shape (n, 3)
        Shortest and middle side in units of the longest, and the longest side.
    left : numpy.ndarray of bool, shape (n,)
        Whether the corners go round counter-clockwise.
    """

    corners: np.ndarray
    shape: np.ndarray
    left: np.ndarray


class Index(NamedTuple):
    """Triangles sorted by their shape.

    Attributes
    ----------
    triangles : Triangles
        The triangles.
    order, start : numpy.ndarray of int
        Numbers of the triangles cell by cell, and where each cell begins.
    n_cells : int
        Number of cells along each of the two ratios of sides.
    """

    triangles: Triangles
    order: np.ndarray
    start: np.ndarray
    n_cells: int


def find_triangles(points, longest, most):
    """Triangles of points with a longest side in a range.

    Parameters
    ----------
    points : numpy.ndarray of float, shape (n, 2)
        Points, the most important first.
    longest : float
        Limit of the longest side; sides of less than a third of it do not count.
    most : int
        Largest number of triangles. If there are more, those with the last points are left out.

    Returns
    -------
    Triangles
        Ordered by their last point.

    Examples
    --------
    >>> found = find_triangles(np.array([[0.0, 0], [3, 0], [3, 4], [90, 0]]), 6.0, 10)
    >>> found.corners.tolist(), found.shape.tolist(), found.left.tolist()
    ([[1, 0, 2]], [[0.6..., 0.8..., 5.0]], [False])
    """
    pairs = cKDTree(points).query_pairs(longest, output_type="ndarray").astype(np.int32)
    late, early = np.maximum(*pairs.T), np.minimum(*pairs.T)
    order = np.lexsort((early, late))
    start = np.searchsorted(late[order], np.arange(len(points) + 1))
    corners, shape = np.empty((most, 3), np.int32), np.empty((most, 3), np.float32)
    left = np.empty(most, np.bool_)
    points = np.ascontiguousarray(points, float)
    n = _triangles(points, early[order], start, float(longest), corners, shape, left)
    return Triangles(corners[:n], shape[:n], left[:n])


def sort_triangles(triangles, tolerance):
    """Sort triangles into cells of the same shape.

    Parameters
    ----------
    triangles : Triangles
        Triangles to be looked up.
    tolerance : float
        Error of the ratio of two sides.

    Returns
    -------
    Index
        The sorted triangles.
    """
    n_cells = int(np.clip(1 / tolerance, 4, 250))
    order, start = _cells(triangles.shape, n_cells)
    return Index(triangles, order, start, n_cells)


def vote(
    stars, catalogue, found, index, painted, low, cell, *, slack, search_radius, largest,
    n_keep, most,
):  # fmt: skip
    """Let the stars vote on every proposal of two triangles of the same shape.

    Parameters
    ----------
    stars, catalogue : numpy.ndarray of float, shapes (n, 2) and (m, 2)
        Detected stars around the middle of the frame and catalogue stars around its expected
        place, both in pixels, brightest first.
    found : Triangles
        Triangles of the detected stars.
    index : Index
        Triangles of the catalogue.
    painted : numpy.ndarray of int, shape (ny, nx)
        Number of the catalogue star at each place, or -1.
    low : numpy.ndarray of float, shape (2,)
        Where the grid ``painted`` begins.
    cell : float
        Size of its cells in px.
    slack : float
        Error of a side in px.
    search_radius : float
        Largest distance of the middle of the frame from its expected place in px.
    largest : float
        Largest factor by which the scale may be wrong, either way.
    n_keep : int
        Number of proposals to return.
    most : int
        Number of votes to ask for, over all proposals.

    Returns
    -------
    list of numpy.ndarray of float, shape (3, 2)
        Proposals with the most votes, best first; ``[1, x, y] @ proposal`` is in the plane of the
        catalogue.
    """
    best = _vote(
        np.ascontiguousarray(stars, float), np.ascontiguousarray(catalogue, float),
        found.corners, found.shape, found.left,
        index.triangles.corners, index.triangles.shape, index.triangles.left,
        index.order, index.start, index.n_cells, painted, float(low[0]), float(low[1]),
        float(1 / cell), float(slack), float(search_radius), float(largest), n_keep, most,
    )  # fmt: skip
    return [
        np.array([[u, v], [re, im], [-flip * im, flip * re]])
        for votes, u, v, re, im, flip in best
        if votes > 0
    ]


@njit(cache=True, nogil=True)
def _triangles(points, early, start, longest, corners, shape, left):
    """Fill the arrays with triangles; return their number."""
    n = 0
    side, order = np.empty(3), np.empty(3, np.int64)
    most, least = longest * longest, (LEAST_SIZE * longest) ** 2
    for k in range(points.shape[0]):
        for p in range(start[k], start[k + 1]):
            b = early[p]
            bk = (points[k, 0] - points[b, 0]) ** 2 + (points[k, 1] - points[b, 1]) ** 2
            for q in range(start[k], p):
                a = early[q]
                ab = (points[a, 0] - points[b, 0]) ** 2 + (points[a, 1] - points[b, 1]) ** 2
                ak = (points[a, 0] - points[k, 0]) ** 2 + (points[a, 1] - points[k, 1]) ** 2
                if ab > most or max(ab, ak, bk) < least:
                    continue
                side[0], side[1], side[2] = ab, ak, bk
                order[0], order[1], order[2] = k, b, a
                for i, j in ((0, 1), (1, 2), (0, 1)):
                    if side[i] < side[j]:
                        side[i], side[j] = side[j], side[i]
                        order[i], order[j] = order[j], order[i]
                if side[2] < 0.01 * side[0]:
                    continue
                if n == corners.shape[0]:
                    return n
                c, d, e = order[0], order[1], order[2]
                cross = (points[d, 0] - points[c, 0]) * (points[e, 1] - points[c, 1])
                cross -= (points[d, 1] - points[c, 1]) * (points[e, 0] - points[c, 0])
                corners[n, 0], corners[n, 1], corners[n, 2] = c, d, e
                shape[n, 0] = math.sqrt(side[2] / side[0])
                shape[n, 1] = math.sqrt(side[1] / side[0])
                shape[n, 2] = math.sqrt(side[0])
                left[n] = cross > 0
                n += 1
    return n


@njit(cache=True, nogil=True)
def _cells(shape, n_cells):
    """Numbers of the triangles cell by cell, and where each cell begins."""
    n = shape.shape[0]
    cell = np.empty(n, np.int32)
    start = np.zeros(n_cells * n_cells + 1, np.int64)
    for k in range(n):
        i = min(int(shape[k, 0] * n_cells), n_cells - 1)
        j = min(int(shape[k, 1] * n_cells), n_cells - 1)
        cell[k] = i * n_cells + j
        start[cell[k] + 1] += 1
    for i in range(n_cells * n_cells):
        start[i + 1] += start[i]
    order, place = np.empty(n, np.int32), start.copy()
    for k in range(n):
        order[place[cell[k]]] = k
        place[cell[k]] += 1
    return order, start


@njit(cache=True, nogil=True)
def _vote(
    stars, catalogue, corners, shape, left, k_corners, k_shape, k_left, order, start, n_cells,
    painted, u0, v0, per_cell, slack, search_radius, largest, n_keep, most,
):  # fmt: skip
    """Return the best proposals as rows (votes, u, v, re, im, flip)."""
    best = np.zeros((n_keep, 6))
    ny, nx = painted.shape
    n_stars = stars.shape[0]
    used = np.zeros(catalogue.shape[0], np.int64)
    n_proposal = n_lookups = 0
    for t in range(corners.shape[0]):
        longest = shape[t, 2]
        error = slack / longest
        shortest, middle = shape[t, 0], shape[t, 1]
        i0, i1 = int((shortest - error) * n_cells), int((shortest + error) * n_cells)
        j0, j1 = int((middle - error) * n_cells), int((middle + error) * n_cells)
        i0, i1 = max(i0, 0), min(i1, n_cells - 1)
        j0, j1 = max(j0, 0), min(j1, n_cells - 1)
        mx = (stars[corners[t, 0], 0] + stars[corners[t, 1], 0] + stars[corners[t, 2], 0]) / 3
        my = (stars[corners[t, 0], 1] + stars[corners[t, 1], 1] + stars[corners[t, 2], 1]) / 3
        for i in range(i0, i1 + 1):
            # The cells of one row follow each other.
            for p in range(start[i * n_cells + j0], start[i * n_cells + j1 + 1]):
                k = order[p]
                ratio = k_shape[k, 2] / longest
                if ratio > largest + error or ratio < 1 / largest - error:
                    continue
                if abs(k_shape[k, 0] - shortest) > error or abs(k_shape[k, 1] - middle) > error:
                    continue
                if n_lookups >= most:
                    return best
                flip = 1.0 if k_left[k] == left[t] else -1.0
                # Complex ratio of the two triangles; mirrored frames have their y negated.
                cu = cv = re = im = norm = 0.0
                for c in range(3):
                    cu += catalogue[k_corners[k, c], 0] / 3
                    cv += catalogue[k_corners[k, c], 1] / 3
                for c in range(3):
                    dx = stars[corners[t, c], 0] - mx
                    dy = flip * (stars[corners[t, c], 1] - my)
                    du = catalogue[k_corners[k, c], 0] - cu
                    dv = catalogue[k_corners[k, c], 1] - cv
                    re += du * dx + dv * dy
                    im += dv * dx - du * dy
                    norm += dx * dx + dy * dy
                re, im = re / norm, im / norm
                u = cu - re * mx + im * flip * my
                v = cv - im * mx - re * flip * my
                if u * u + v * v > search_radius * search_radius:
                    continue
                n_proposal += 1
                votes = 0
                # Each proposal asks the stars in another order: if the first ones are false, only
                # some of the right proposals are left early, not all.
                voter = 7 * n_proposal % n_stars
                for s in range(n_stars):
                    n_lookups += 1
                    sx, sy = stars[voter, 0], flip * stars[voter, 1]
                    voter = voter + 1 if voter + 1 < n_stars else 0
                    column = int((u + re * sx - im * sy - u0) * per_cell)
                    row = int((v + im * sx + re * sy - v0) * per_cell)
                    if 0 <= column < nx and 0 <= row < ny:
                        star = painted[row, column]
                        # Each catalogue star votes once, or a cluster would elect itself.
                        if star >= 0 and used[star] != n_proposal:
                            used[star] = n_proposal
                            votes += 1
                    # A proposal that can no more be among the best, or has so few votes that it
                    # will not be believed, is left early.
                    if votes + n_stars - 1 - s <= best[n_keep - 1, 0]:
                        break
                    if (s == 4 and votes == 0) or (s % 10 == 9 and votes < 1 + LEAST_VOTES * s):
                        votes = 0
                        break
                if votes < 5 or votes <= best[n_keep - 1, 0]:
                    continue
                m = n_keep - 1
                while m > 0 and best[m - 1, 0] < votes:
                    for c in range(6):  # a copy of a row takes seconds to compile
                        best[m, c] = best[m - 1, c]
                    m -= 1
                best[m, 0], best[m, 1], best[m, 2] = votes, u, v
                best[m, 3], best[m, 4], best[m, 5] = re, im, flip
    return best
