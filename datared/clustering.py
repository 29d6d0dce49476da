"""Matching of many star lists at once: the detections of one source are a cluster on the sky."""

import warnings

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from .detections import chord
from .errors import ConfigError, DataredWarning
from .reference import unit_vectors
from .tracks import plane_offsets

__all__ = ["cluster_positions", "match_detections", "position_scatter"]

#: Chains of close stars are split in so many rounds at most; nearly all need one or two.
MAX_ROUNDS = 20


def match_detections(lists, *, eps, min_samples=3):
    """Match the detections of many frames by DBSCAN on the sphere.

    DBSCAN [1]_ joins all detections that are neighbours of neighbours. Positions are unit vectors,
    so that nothing happens at RA 0 or at a pole. Two stars that are closer than `eps` end in one
    cluster, and so does a chain of stars. But a source is detected once on a frame: a cluster with
    two detections of one frame is split. It begins with the sources of a frame that shows as many
    of them as several frames do; then every source takes from each frame the nearest detection
    that no other source is nearer to, and moves to their median. What is left over is clustered
    again.

    Parameters
    ----------
    lists : sequence of astropy.table.Table
        Detections of each frame: ``ra``, ``dec`` (deg).
    eps : float
        Two detections up to this separation (arcsec) are neighbours. Several times the error of a
        position, less than half the distance of two stars.
    min_samples : int
        A detection with this many neighbours, itself among them, begins a cluster; and a cluster
        has at least so many.

    Returns
    -------
    astropy.table.Table
        One row for each detection: ``cluster`` (0, 1, ... in the order in which they come first;
        -1 is noise, a detection in no cluster), ``frame`` and ``row`` of the detection. A row
        without a position is noise.

    Raises
    ------
    ConfigError
        If `eps` is not positive or `min_samples` is less than 1.

    Warns
    -----
    DataredWarning
        If `eps` is more than half the separation of two clusters: detections between them may be
        on the wrong side.

    References
    ----------
    .. [1] Ester, Kriegel, Sander & Xu 1996, Proc. KDD-96, 226.

    Examples
    --------
    >>> first = Table({"ra": [359.9999, 10.0], "dec": [0.0, 5.0]})
    >>> second = Table({"ra": [10.0, 0.0001], "dec": [5.0, 0.0]})
    >>> match_detections([first, second], eps=1.0, min_samples=2)["cluster"].tolist()
    [0, 1, 1, 0]
    """
    counts = [len(table) for table in lists]
    frame = np.repeat(np.arange(len(counts)), counts)
    row = np.concatenate([np.zeros(0, int), *(np.arange(n) for n in counts)])
    sky = np.concatenate([np.empty((0, 3)), *(unit_vectors(table) for table in lists)])
    cluster = cluster_positions(sky, frame, eps=eps, min_samples=min_samples)
    _warn_close(sky, cluster, eps)
    return Table({"cluster": cluster, "frame": frame, "row": row})


def cluster_positions(sky, frame, *, eps, min_samples=3):
    """Match detections as `match_detections` does, without a table and without its warning.

    Parameters
    ----------
    sky : numpy.ndarray of float, shape (n, 3)
        Unit vectors of the detections; NaN where there is no position.
    frame : numpy.ndarray of int, shape (n,)
        Frame of each detection.
    eps, min_samples : float and int
        See `match_detections`.

    Returns
    -------
    numpy.ndarray of int, shape (n,)
        Cluster of each detection, -1 for noise.

    Raises
    ------
    ConfigError
        If `eps` is not positive or `min_samples` is less than 1.
    """
    if not (np.isfinite(eps) and eps > 0):
        raise ConfigError(f"eps = {eps} is not a radius: give arcseconds above 0, such as 1.5")
    if min_samples < 1:
        raise ConfigError(f"min_samples = {min_samples}: give 1 or more, such as 3")
    cluster = np.full(len(sky), -1)
    left = np.isfinite(sky).all(axis=1)
    for _ in range(MAX_ROUNDS):
        rows = np.flatnonzero(left)
        label = _dbscan(sky[rows], chord(eps), min_samples)
        if not (label >= 0).any():
            break
        label = _split(sky[rows], frame[rows], label, chord(eps), min_samples)
        label = _drop_small(label, min_samples)
        found = label >= 0
        cluster[rows[found]] = label[found] + cluster.max(initial=-1) + 1
        # Only what a split left over can make clusters that were not there before.
        if not found.any() or found.all():
            break
        left[rows[found]] = False
    return _in_order(cluster)


def position_scatter(sky, cluster):
    """Scatter of the positions of each cluster: the median absolute deviation, as a Gaussian's.

    Parameters
    ----------
    sky : numpy.ndarray of float, shape (n, 3)
        Unit vectors of the detections.
    cluster : numpy.ndarray of int, shape (n,)
        Cluster of each detection, -1 for noise.

    Returns
    -------
    numpy.ndarray of float, shape (n_cluster,)
        The larger one of the two coordinates, in arcsec.
    """
    rows = np.flatnonzero(cluster >= 0)
    rows = rows[np.argsort(cluster[rows], kind="stable")]
    scatter = np.zeros(cluster.max(initial=-1) + 1)
    starts = np.flatnonzero(np.diff(cluster[rows])) + 1
    for number, part in enumerate(np.split(rows, starts) if len(rows) else ()):
        place = np.median(sky[part], axis=0)
        plane = plane_offsets(sky[part], place / np.linalg.norm(place))
        away = np.abs(plane - np.median(plane, axis=0))
        scatter[number] = 1.4826 * np.median(away, axis=0).max()
    return scatter


def _dbscan(sky, radius, min_samples):
    """Labels of the clusters, -1 for noise."""
    from sklearn.cluster import DBSCAN

    if not len(sky):
        return np.zeros(0, int)
    # On unit vectors a tree of three dimensions is exact, and faster than great circles.
    return DBSCAN(eps=radius, min_samples=min_samples, algorithm="kd_tree").fit(sky).labels_


def _split(sky, frame, label, radius, min_samples):
    """Split the clusters with two detections of one frame; what belongs to none is -1."""
    n_frames = frame.max() + 1
    key, number = np.unique(label[label >= 0] * n_frames + frame[label >= 0], return_counts=True)
    double = np.unique(key[number > 1] // n_frames)
    if not double.size:
        return label
    rows = np.flatnonzero(np.isin(label, double))
    rows = rows[np.argsort(label[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(label[rows])) + 1
    seeds = [part[_seeds(frame[part], min_samples)] for part in np.split(rows, edges)]
    centre, owner = sky[np.concatenate(seeds)], label[np.concatenate(seeds)]
    member = np.full(len(rows), -1)
    for _ in range(10):
        before = member
        member = _assign(sky[rows], frame[rows], label[rows], centre, owner, radius)
        if np.array_equal(before, member):
            break
        centre = _medians(sky[rows], member, centre)
    result = label.copy()
    result[rows] = np.where(member >= 0, member + label.max() + 1, -1)
    return result


def _seeds(frame, min_samples):
    """Choose the detections of a frame that shows as many sources as several frames do."""
    names, counts = np.unique(frame, return_counts=True)
    # A cosmic ray or a trail makes one more, on a frame or two: the count that is reached by
    # several frames is that of the sources.
    several = np.sort(counts)[::-1][min(min_samples, len(counts)) - 1]
    return np.flatnonzero(frame == names[np.argmax(counts == several)])


def _assign(sky, frame, label, centre, owner, radius):
    """Give every detection the number of its source: the nearest pairs first, each only once."""
    near = cKDTree(centre).query_ball_point(sky, radius)
    number = np.array([len(one) for one in near])
    row = np.repeat(np.arange(len(sky)), number)
    source = np.concatenate([np.array(one, int) for one in near]) if number.any() else row
    same = owner[source] == label[row]
    row, source = row[same], source[same]
    order = np.argsort(((sky[row] - centre[source]) ** 2).sum(axis=1), kind="stable")
    row, source = row[order], source[order]
    place = frame[row] * len(centre) + source
    member = np.full(len(sky), -1)
    while len(row):
        # The first time that a row or a place comes, it is in its nearest pair.
        first, only = np.zeros((2, len(row)), bool)
        first[np.unique(row, return_index=True)[1]] = True
        only[np.unique(place, return_index=True)[1]] = True
        taken = first & only
        member[row[taken]] = source[taken]
        free = ~np.isin(row, row[taken]) & ~np.isin(place, place[taken])
        row, source, place = row[free], source[free], place[free]
    return member


def _medians(sky, member, centre):
    """Median place of the members of each source; one without members stays."""
    result = centre.copy()
    rows = np.flatnonzero(member >= 0)
    rows = rows[np.argsort(member[rows], kind="stable")]
    names, starts = np.unique(member[rows], return_index=True)
    for name, part in zip(names, np.split(rows, starts[1:]), strict=True):
        result[name] = np.median(sky[part], axis=0)
    return result


def _drop_small(label, min_samples):
    """Make noise of clusters with too few detections; number the others from 0 again."""
    names, inverse, counts = np.unique(label, return_inverse=True, return_counts=True)
    good = (names >= 0) & (counts >= min_samples)
    return np.where(good, np.cumsum(good) - 1, -1)[inverse]


def _in_order(cluster):
    """Give the clusters new numbers, in the order in which they come first."""
    names, first, inverse = np.unique(cluster, return_index=True, return_inverse=True)
    first = np.where(names < 0, -1, first)
    new = np.argsort(np.argsort(first, kind="stable"), kind="stable") - np.count_nonzero(names < 0)
    return new[inverse] if len(cluster) else cluster


def _warn_close(sky, cluster, eps):
    """Warn of clusters with another one nearer than twice `eps`."""
    n = cluster.max(initial=-1) + 1
    if n < 2:
        return
    middle = _medians(sky, cluster, np.zeros((n, 3)))
    pairs = cKDTree(middle).query_pairs(chord(2 * eps), output_type="ndarray")
    if not len(pairs):
        return
    closest = np.sqrt(((middle[pairs[:, 0]] - middle[pairs[:, 1]]) ** 2).sum(axis=1)).min()
    warnings.warn(
        f"eps = {eps:.3g} arcsec is more than half the separation of {len(pairs)} pairs of sources "
        f"of {n} (the closest: {np.degrees(closest) * 3600:.3g} arcsec); between them detections "
        "may be on the wrong side. A smaller eps is safer, if it is several times the error of a "
        "position",
        DataredWarning,
        stacklevel=3,
    )
