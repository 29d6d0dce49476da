"""Straight tracks among detections: the fit of one, and the search for more of its detections."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .detections import chord

__all__ = [
    "Detections",
    "Pool",
    "Track",
    "fit_track",
    "grow_track",
    "near_track",
    "plane_offsets",
    "search_radius",
    "triplets",
]

ARCSEC = np.degrees(1) * 3600
#: A track is searched along its line within this many errors of a position; of what it found, the
#: detections farther than so many standard deviations (a blend with a star) do not count.
SEARCH, CLIP = 6.0, 4.0
#: From one frame to the next a source moves by less than this (arcsec), or it is lost: between
#: nights everything could be linked with everything.
FARTHEST = 3600.0
#: Two frames are farther from each other than any two unit vectors.
APART = 4.0


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections of many frames in one table.

    Parameters
    ----------
    sky : numpy.ndarray of float, shape (n, 3)
        Unit vectors.
    frame : numpy.ndarray of int, shape (n,)
        Number of the frame, in the order of time.
    minutes : numpy.ndarray of float, shape (n_frame,)
        Time of each frame.
    noise : numpy.ndarray of float, shape (n,)
        Error of one coordinate that is expected of each detection, in arcsec.
    """

    sky: np.ndarray
    frame: np.ndarray
    minutes: np.ndarray
    noise: np.ndarray

    def times(self, rows):
        """Give the times of some detections in minutes."""
        return self.minutes[self.frame[rows]]


@dataclass(frozen=True, eq=False)
class Track:
    r"""Straight motion in the tangent plane of a place: ``offset(t) = start + rate (t - middle)``.

    Parameters
    ----------
    place : numpy.ndarray of float, shape (3,)
        Unit vector of the place; the tangent plane touches the sphere there.
    middle : float
        Mean time of the detections in minutes.
    start, rate : numpy.ndarray of float, shape (2,)
        East and north offset (arcsec) at that time, and rate (arcsec/min).
    scatter : float
        Standard deviation of one coordinate (arcsec), of ``2 n - 4`` degrees of freedom; NaN of
        two detections.
    rate_err : float
        Standard deviation of each component of the rate.
    r2 : float
        Share of the motion in the variance of both coordinates.
    rows : numpy.ndarray of int
        Its detections.
    """

    place: np.ndarray
    middle: float
    start: np.ndarray
    rate: np.ndarray
    scatter: float
    rate_err: float
    r2: float
    rows: np.ndarray

    def offsets(self, minutes):
        """East and north offset (arcsec) at some times, shape (n, 2)."""
        return self.start + np.multiply.outer(np.asarray(minutes, float) - self.middle, self.rate)

    def sky(self, minutes):
        """Give the unit vectors of the place at some times, shape (n, 3)."""
        plane = self.offsets(minutes) / ARCSEC
        vector = self.place + plane @ _axes(self.place)
        return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


class Pool:
    """The free detections, those of no star, in one tree: a frame is a fourth coordinate.

    Parameters
    ----------
    detections : Detections
        All detections.
    free : numpy.ndarray of bool, shape (n,)
        Those that are free.
    """

    def __init__(self, detections, free):
        rows = np.flatnonzero(free)
        self.rows = rows[np.argsort(detections.frame[rows], kind="stable")]
        frame = APART * detections.frame[self.rows]
        self.tree = cKDTree(np.column_stack([detections.sky[self.rows], frame]))


def _axes(place):
    """Give unit vectors to the east and to the north of a place, shape (2, 3)."""
    east = np.array([-place[1], place[0], 0.0])
    size = np.linalg.norm(east)
    # At a pole every direction is south (or north): any will do, as long as it stays the same.
    east = east / size if size > 1e-12 else np.array([0.0, 1.0, 0.0])
    north = [
        place[1] * east[2] - place[2] * east[1],
        place[2] * east[0] - place[0] * east[2],
        place[0] * east[1] - place[1] * east[0],
    ]
    return np.stack([east, north])


def plane_offsets(sky, place):
    """Offsets in the tangent plane of a place: ``RA cos(Dec)`` and Dec of nearby positions.

    Parameters
    ----------
    sky : numpy.ndarray of float, shape (n, 3)
        Unit vectors.
    place : numpy.ndarray of float, shape (3,)
        Unit vector of the place.

    Returns
    -------
    numpy.ndarray of float, shape (n, 2)
        East and north offset in arcsec (gnomonic projection: great circles are straight).
    """
    return (sky @ _axes(place).T) / (sky @ place)[:, None] * ARCSEC


def fit_track(detections, rows):
    r"""Fit a straight motion by linear regression of both coordinates against time.

    Parameters
    ----------
    detections : Detections
        All detections.
    rows : array_like of int, shape (n,)
        Those of the track, on two frames at least.

    Returns
    -------
    Track
        With the error :math:`\sigma / \sqrt{\sum (t - \bar t)^2}` of the rate, where
        :math:`\sigma` is the scatter about the line: it needs no errors of the positions.
    """
    rows = np.asarray(rows, int)
    sky, time = detections.sky[rows], detections.times(rows)
    place = sky.mean(axis=0)
    place /= np.linalg.norm(place)
    plane = plane_offsets(sky, place)
    middle, start = time.mean(), plane.mean(axis=0)
    span = np.sum((time - middle) ** 2)
    rate = (time - middle) @ (plane - start) / (span or np.inf)
    rest = np.sum((plane - start - np.outer(time - middle, rate)) ** 2)
    total = np.sum((plane - start) ** 2)
    scatter = np.sqrt(rest / (2 * len(rows) - 4)) if len(rows) > 2 else np.nan
    rate_err = scatter / np.sqrt(span) if span > 0 else np.inf
    r2 = 1 - rest / total if total > 0 else 0.0
    return Track(place, middle, start, rate, scatter, rate_err, r2, rows)


def grow_track(detections, rows, pool, *, eps):
    """Let a track grow over the night: more detections near its line, frame after frame outwards.

    The line of a few frames says little about the other end of the night: from one fit to the next
    the stretch of time grows on each side by itself at most. There the line of three detections is
    known to twice the error of one.

    Parameters
    ----------
    detections : Detections
        All detections.
    rows : array_like of int
        Where it begins.
    pool : Pool
        The free detections.
    eps : float
        Largest distance from the line in arcsec.

    Returns
    -------
    Track or None
        The grown track; None where it falls apart.
    """
    minutes = detections.minutes
    rows = np.asarray(rows, int)
    for _ in range(30):
        if len(np.unique(detections.frame[rows])) < 3:
            return None
        track = fit_track(detections, rows)
        times = detections.times(rows)
        reach = times.max() - times.min() + 1e-9
        frames = np.searchsorted(minutes, [times.min() - reach, times.max() + reach])
        # One frame more on each side: a gap must not end a track.
        frames = np.arange(max(frames[0] - 1, 0), min(frames[1] + 1, len(minutes)))
        limit = search_radius(detections, rows, eps)
        found = near_track(track, frames, pool, minutes, limit)
        if np.array_equal(found, rows):
            break
        rows = found
    return _clipped(detections, rows)


def search_radius(detections, rows, eps):
    """Distance (arcsec) from its line within which more detections of a track are looked for.

    Parameters
    ----------
    detections : Detections
        All detections.
    rows : numpy.ndarray of int
        Those of the track.
    eps : float
        Largest distance.

    Returns
    -------
    float
        Six times the error of a position that is expected, at most `eps`.
    """
    return min(eps, SEARCH * float(np.median(detections.noise[rows])))


def _clipped(detections, rows):
    """Fit without the detections far from the line; None where fewer than three frames are left."""
    for _ in range(10):
        if len(np.unique(detections.frame[rows])) < 3:
            return None
        track = fit_track(detections, rows)
        away = plane_offsets(detections.sky[rows], track.place)
        away = np.hypot(*(away - track.offsets(detections.times(rows))).T)
        # Of both coordinates together half are within 1.177 standard deviations. The median lets
        # few detections look too good by chance: with those, only the mean square is safe.
        sigma = np.median(away) / 1.177 if len(rows) > 10 else track.scatter
        good = away <= CLIP * sigma
        if good.all():
            return track
        rows = rows[good]
    return fit_track(detections, rows)


def near_track(track, frames, pool, minutes, limit):
    """Give the nearest free detection of each frame within a distance of a track.

    Parameters
    ----------
    track : Track
        The track.
    frames : array_like of int
        The frames.
    pool : Pool
        The free detections.
    minutes : numpy.ndarray of float, shape (n_frame,)
        Time of each frame.
    limit : float
        Largest distance in arcsec.

    Returns
    -------
    numpy.ndarray of int
        Detections, one of a frame at most.
    """
    if not len(pool.rows) or not len(frames):
        return np.zeros(0, int)
    places = np.column_stack([track.sky(minutes[frames]), APART * np.asarray(frames)])
    distance, index = pool.tree.query(places, distance_upper_bound=chord(limit))
    return pool.rows[index[np.isfinite(distance)]]


def triplets(detections, pool, *, eps, max_rate, steps=2):
    """Find three detections on nearby frames that are on a line, at the same rate.

    Parameters
    ----------
    detections : Detections
        All detections.
    pool : Pool
        The free detections.
    eps : float
        Largest distance (arcsec) of the third one from where the others point.
    max_rate : float
        Largest rate in arcsec/min.
    steps : int
        From one detection to the next at most so many frames on.

    Returns
    -------
    rows : numpy.ndarray of int, shape (n, 3)
        The triplets.
    n_pairs : int
        Number of pairs that were tried: so often chance had an opportunity.
    """
    minutes, sky, rows, n_pairs = detections.minutes, detections.sky, [], 0
    n = len(minutes)
    edges = np.searchsorted(detections.frame[pool.rows], np.arange(n + 1))
    free = [pool.rows[edges[k] : edges[k + 1]] for k in range(n)]
    trees = [cKDTree(sky[part]) if len(part) else None for part in free]
    for a in range(n):
        for b in range(a + 1, min(a + 1 + steps, n)):
            gap = minutes[b] - minutes[a]
            if trees[a] is None or trees[b] is None or not 0 < max_rate * gap <= FARTHEST:
                continue
            near = trees[a].query_ball_tree(trees[b], chord(max_rate * gap))
            number = np.array([len(one) for one in near])
            first = free[a][np.repeat(np.arange(len(near)), number)]
            second = free[b][np.concatenate([np.array(one, int) for one in near])]
            n_pairs += len(first)
            for c in range(b + 1, min(b + 1 + steps, n)):
                if trees[c] is None or not len(first):
                    continue
                # Over so short a way the vectors themselves move in proportion to the time.
                factor = (minutes[c] - minutes[b]) / gap
                place = sky[second] + factor * (sky[second] - sky[first])
                distance, index = trees[c].query(place)
                # The errors of the first two, carried on, and that of the third.
                error = np.sqrt(1 + factor**2 + (1 + factor) ** 2) * detections.noise[second]
                good = distance <= chord(np.minimum(eps, CLIP * error))
                if good.any():
                    third = free[c][index[good]]
                    rows.append(np.column_stack([first[good], second[good], third]))
    return (np.concatenate(rows) if rows else np.empty((0, 3), int)), n_pairs
