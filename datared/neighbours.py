"""Neighbours: which points of one list are near those of another, for lists of stars."""

import numpy as np
from numba import njit

__all__ = ["count_around", "nearest"]


def nearest(first, second, radius):
    """Nearest points within a radius, in both directions.

    Parameters
    ----------
    first, second : numpy.ndarray of float, shapes (n, 2) and (m, 2)
        Points; finite.
    radius : float
        Largest distance.

    Returns
    -------
    there : numpy.ndarray of int, shape (n,)
        Row of the nearest second point of each first one, or -1.
    back : numpy.ndarray of int, shape (m,)
        Row of the nearest first point of each second one, or -1.

    Examples
    --------
    >>> there, back = nearest(np.array([[0.0, 0.0], [5.0, 5.0]]), np.array([[5.0, 5.5]]), 2.0)
    >>> there.tolist(), back.tolist()
    ([-1, 0], [1])
    """
    order = np.argsort(second[:, 0], kind="stable")
    ranked = np.ascontiguousarray(second[order])
    there, back = _nearest(np.ascontiguousarray(first, float), ranked, float(radius))
    found = np.full(len(second), -1)
    found[order] = back
    return np.where(there >= 0, order[there], -1), found


def count_around(first, second, radius):
    """Count the second points within a radius of each first point.

    Parameters
    ----------
    first, second : numpy.ndarray of float, shapes (n, 2) and (m, 2)
        Points; finite.
    radius : float
        Largest distance.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        Numbers of points.

    Examples
    --------
    >>> count_around(np.array([[0.0, 0.0]]), np.array([[0.0, 1.0], [2.0, 0.0], [9.0, 9.0]]), 3.0)
    array([2])
    """
    ranked = np.ascontiguousarray(second[np.argsort(second[:, 0])])
    return _count(np.ascontiguousarray(first, float), ranked, float(radius))


@njit(cache=True, nogil=True)
def _nearest(first, ranked, radius):
    """Nearest neighbours; the second points are sorted by x."""
    there = np.full(first.shape[0], -1, np.int64)
    back = np.full(ranked.shape[0], -1, np.int64)
    closest = np.full(ranked.shape[0], radius * radius)
    x = ranked[:, 0].copy()
    for i in range(first.shape[0]):
        best = radius * radius
        for j in range(np.searchsorted(x, first[i, 0] - radius), x.shape[0]):
            if x[j] > first[i, 0] + radius:
                break
            square = (first[i, 0] - x[j]) ** 2 + (first[i, 1] - ranked[j, 1]) ** 2
            if square < best:
                best, there[i] = square, j
            if square < closest[j]:
                closest[j], back[j] = square, i
    return there, back


@njit(cache=True, nogil=True)
def _count(first, ranked, radius):
    """Count neighbours; the second points are sorted by x."""
    count = np.zeros(first.shape[0], np.int64)
    x = ranked[:, 0].copy()
    for i in range(first.shape[0]):
        for j in range(np.searchsorted(x, first[i, 0] - radius), x.shape[0]):
            if x[j] > first[i, 0] + radius:
                break
            if (first[i, 0] - x[j]) ** 2 + (first[i, 1] - ranked[j, 1]) ** 2 <= radius * radius:
                count[i] += 1
    return count
