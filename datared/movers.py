"""Moving sources: asteroids and comets among the detections of a night."""

from dataclasses import replace

import numpy as np
from astropy.table import Table
from scipy.stats import poisson

from .clustering import cluster_positions, position_scatter
from .errors import ConfigError
from .reference import unit_vectors
from .sources import EDGE
from .tracks import (
    Detections,
    Pool,
    fit_track,
    grow_track,
    near_track,
    plane_offsets,
    search_radius,
    triplets,
)

__all__ = ["moving_sources"]

#: A cluster whose positions scatter more than this times those of stars as bright may move; a
#: mover scatters less than that about its line.
DISPERSED = 3.0
#: A mover has moved at least so many matching radii: less is seeing, refraction or a blend.
LEAST_MOTION = 2.0
#: Least share of the motion in the variance of the positions, and least rate in its errors.
LEAST_R2, SIGNIFICANT = 0.95, 7.0
#: Least share of the frames from the first to the last that show a mover.
LEAST_SHARE = 0.5
#: So many stars make a point of the curve of scatter against signal-to-noise.
FEW_STARS = 10
#: Rate (arcsec/min) that no star reaches: twice that of Barnard's star, 10.4 arcsec a year.
STAR_RATE = 2 * 10.4 / (365.25 * 1440)
#: Tracks by chance that are expected in a night, at most.
CHANCE = 1e-3
#: What is stuck to the detector (a hot pixel) scatters less in pixels than this times on the sky.
STUCK = 0.3


def moving_sources(lists, times, *, eps, min_detections=5, max_rate=10.0):
    r"""Find sources that move over the stars on a straight line at a steady rate.

    The detections of all frames are matched with `match_detections`. A cluster whose positions
    scatter three times as much as those of stars of the same signal-to-noise (median absolute
    deviation of RA cos(Dec) and Dec) may be a source that moves by less than `eps` from frame to
    frame. What moves faster leaves noise points: of these, three on nearby frames that are on a
    line at a steady rate begin a track. Every beginning then grows over the night, with all free
    detections near its line.

    A track is a mover if it was seen on `min_detections` frames, and on half of those from the
    first to the last; if it moved by more than :math:`2\,\mathrm{eps}`, and faster than any star;
    if a straight line explains 95 % of the variance, and what is left is not three times the
    scatter of a star's positions; if chance would make fewer than 0.001 such tracks from the free
    detections around it; and if it is not stuck to a pixel while the telescope drifts.

    Parameters
    ----------
    lists : sequence of astropy.table.Table
        Detections of each frame: ``ra``, ``dec`` (deg), ``x``, ``y`` (px), ``flux``, ``snr``,
        ``flags`` (bits of `datared.sources`; what is cut off by the edge does not count).
    times : array_like of float, shape (n_frame,)
        Mid-exposure time (JD, UTC) of each frame, in any order; frames without one are left out.
    eps : float
        Matching radius in arcsec, about half a star's width.
    min_detections : int
        A source seen on fewer frames is no claim; at least 3. On two frames, any two cosmic rays
        are a mover.
    max_rate : float
        Largest rate in arcsec/min that is looked for.

    Returns
    -------
    movers : astropy.table.Table
        One row for each: ``id`` (1, 2, ... from the one seen most often), ``n`` (detections),
        ``rate``, ``rate_err`` (arcsec/min), ``position_angle``, ``position_angle_err`` (deg, from
        north over east), ``rate_ra`` (of RA cos(Dec)), ``rate_dec`` (arcsec/min), ``r2``,
        ``scatter`` (of one coordinate, arcsec), ``share`` (of the frames from the first to the
        last that show it), ``chance`` (expected number of such tracks by chance), ``ra0``,
        ``dec0`` (deg) and their error ``position_err`` (arcsec) at ``t0`` (JD, UTC; the mean time
        of the detections).
    detections : astropy.table.Table
        ``id``, ``frame``, ``row``, ``jd_utc_mid``, ``ra``, ``dec`` (deg), ``x``, ``y`` (px),
        ``flux``, ``snr``, ``east``, ``north`` (arcsec from ``ra0``, ``dec0``), ``residual_east``,
        ``residual_north`` (arcsec).

    Raises
    ------
    ConfigError
        If the numbers of lists and times differ, or an option makes no sense.

    Notes
    -----
    The errors follow from the scatter about the line, so they are right whatever the errors of the
    positions are. A motion that bends (a close asteroid over many hours) is cut into pieces.
    """
    times = np.asarray(times, float)
    if len(times) != len(lists):
        raise ConfigError(f"{len(lists)} lists and {len(times)} times: give one time for each list")
    if min_detections < 3 or not max_rate > 0:
        raise ConfigError(
            f"min_detections = {min_detections} and max_rate = {max_rate}: give at least 3, and a "
            "rate above 0 in arcsec/min"
        )
    order = np.argsort(times, kind="stable")
    order = order[np.isfinite(times[order])]
    detections, rows = _collect([lists[k] for k in order], times[order])
    cluster = cluster_positions(detections.sky, detections.frame, eps=eps)
    columns = {
        name: np.concatenate([np.zeros(0), *(np.asarray(lists[k][name], float) for k in order)])
        for name in ("x", "y", "snr")
    }
    x, y, snr = (columns[name][rows[:, 2]] for name in ("x", "y", "snr"))
    detections, free, begins = _begin(detections, cluster, snr, eps)
    tracks = _search(detections, free, begins, eps, max_rate, min_detections)
    xy = np.column_stack([x, y])
    scale = _pixel_scale(detections, xy)
    found = [one for one in tracks if not _is_stuck(detections, one[0], xy, scale)]
    found.sort(key=lambda one: (-len(one[0].rows), one[0].middle))
    rows[:, 0] = order[rows[:, 0]] if len(order) else rows[:, 0]
    return _movers(detections, found, times), _tables(detections, found, lists, times, rows)


def _collect(lists, times):
    """One table of all detections with a position; its frame, row and number in the lists."""
    counts = [len(table) for table in lists]
    sky = np.concatenate([np.empty((0, 3)), *(unit_vectors(table) for table in lists)])
    frame = np.repeat(np.arange(len(counts)), counts)
    row = np.concatenate([np.zeros(0, int), *(np.arange(n) for n in counts)])
    flags = np.concatenate([np.zeros(0), *(np.asarray(table["flags"], float) for table in lists)])
    # What the edge of a frame cuts off has its centre in the wrong place, and moves as it drifts.
    good = np.isfinite(sky).all(axis=1) & (flags.astype(int) & EDGE == 0)
    minutes = (times - times[0]) * 1440 if len(times) else times
    rows = np.column_stack([frame, row, np.arange(len(frame))])[good]
    return Detections(sky[good], frame[good], minutes, np.full(good.sum(), np.nan)), rows


def _begin(detections, cluster, snr, eps):
    """Learn the errors of positions from the stars; tell what is free (of no star) and may move."""
    scatter = position_scatter(detections.sky, cluster)
    n = np.bincount(cluster[cluster >= 0], minlength=len(scatter))
    total = np.bincount(cluster[cluster >= 0], snr[cluster >= 0], minlength=len(scatter))
    noise = _noise_curve(total / np.maximum(n, 1), scatter, n, eps)
    detections = replace(detections, noise=noise(snr))
    moving = scatter > DISPERSED * noise(total / np.maximum(n, 1))
    free = (cluster < 0) | np.append(moving, True)[cluster]
    begins = [np.flatnonzero(cluster == number) for number in np.flatnonzero(moving)]
    return detections, free, sorted(begins, key=lambda rows: (-len(rows), rows[0]))


def _noise_curve(snr, scatter, n, eps):
    """Give a function of the signal-to-noise: the median scatter of the stars there."""
    # The scatter of few detections is too small as often as not.
    good = (n >= min(10, n.max(initial=0))) & (snr > 0) & (scatter > 0)
    if good.sum() < FEW_STARS:
        level = float(np.median(scatter[good])) if good.any() else eps / 4
        return lambda values: np.full(np.shape(values), level)
    order = np.argsort(snr[good], kind="stable")
    parts = np.array_split(order, min(15, good.sum() // FEW_STARS))
    middle = [np.median(np.log(snr[good][part])) for part in parts]
    level = [np.median(np.log(scatter[good][part])) for part in parts]
    return lambda values: np.exp(np.interp(np.log(np.maximum(values, 1e-3)), middle, level))


def _search(detections, free, begins, eps, max_rate, min_detections):
    """Tracks that are movers, each with the number of such tracks that chance would make."""
    found = []
    pool = Pool(detections, free)
    threes, n_pairs = triplets(detections, pool, eps=eps, max_rate=max_rate)
    for rows in [*begins, *threes]:
        if not free[rows].all() or len(rows) < 3:
            continue
        if not _moves(fit_track(detections, rows), detections, eps, max_rate, short=True):
            continue
        track = grow_track(detections, rows, pool, eps=eps)
        if track is None or len(track.rows) < min_detections:
            continue
        if not _moves(track, detections, eps, max_rate):
            continue
        chance = _chance(detections, free, track, max(n_pairs, len(begins), 1), eps)
        if chance > CHANCE:
            continue
        found.append((track, chance))
        # What else is near its line (a second part of the same source) makes no second mover.
        frames = np.arange(len(detections.minutes))
        for _ in range(5):
            near = near_track(track, frames, pool, detections.minutes, 2 * eps)
            free[near] = False
            pool = Pool(detections, free)
            if not len(near):
                break
    return found


def _share(track, detections):
    """Share of the frames from the first to the last detection that show the source."""
    frames = detections.frame[track.rows]
    return len(frames) / (frames.max() - frames.min() + 1)


def _moves(track, detections, eps, max_rate, *, short=False):
    """Tell whether a track is a straight motion that is large enough; a short one may grow."""
    rate = np.hypot(*track.rate)
    if not STAR_RATE < rate <= 1.2 * max_rate or track.r2 < (0.5 if short else LEAST_R2):
        return False
    times = detections.times(track.rows)
    way = rate * (times.max() - times.min())
    if short:
        return bool(way > 0.5 * eps)
    if _share(track, detections) < LEAST_SHARE:
        return False
    quiet = track.scatter < DISPERSED * np.median(detections.noise[track.rows])
    return bool(quiet and way > LEAST_MOTION * eps and rate > SIGNIFICANT * track.rate_err)


def _chance(detections, free, track, trials, eps):
    """Give the expected number of tracks like this one by chance.

    What counts is how many other free detections lie on its way, at any time: a mover has left a
    place when the next frame comes, a star that is measured badly has not.
    """
    limit = search_radius(detections, track.rows, eps)
    width = max(2 * limit, eps)
    rate = np.hypot(*track.rate)
    times = detections.times(track.rows)
    ends = rate * (times.min() - track.middle) - width, rate * (times.max() - track.middle) + width
    others = np.setdiff1d(np.flatnonzero(free), track.rows)
    others = others[detections.sky[others] @ track.place > np.cos(0.1)]
    plane = plane_offsets(detections.sky[others], track.place) - track.start
    along = plane @ track.rate / rate
    across = (plane[:, 0] * track.rate[1] - plane[:, 1] * track.rate[0]) / rate
    number = np.sum((along > ends[0]) & (along < ends[1]) & (np.abs(across) < width))
    area = (ends[1] - ends[0]) * 2 * width
    frames = detections.frame[track.rows]
    share = (np.ptp(frames) + 1) / len(detections.minutes)
    expected = (number + 1) * share * np.pi * limit**2 / area
    # Three of its detections began it.
    return float(trials * poisson.sf(len(track.rows) - 4, expected))


def _pixel_scale(detections, xy):
    """Arcsec per pixel, from the fullest frame; NaN where there is none."""
    if not len(xy):
        return np.nan
    names, counts = np.unique(detections.frame, return_counts=True)
    rows = np.flatnonzero(detections.frame == names[np.argmax(counts)])
    rows = rows[np.isfinite(xy[rows]).all(axis=1)]
    if len(rows) < 4:
        return np.nan
    place = detections.sky[rows].mean(axis=0)
    plane = plane_offsets(detections.sky[rows], place / np.linalg.norm(place))
    terms = np.column_stack([np.ones(len(rows)), xy[rows]])
    matrix = np.linalg.lstsq(terms, plane, rcond=None)[0][1:]
    return float(np.sqrt(abs(np.linalg.det(matrix))))


def _is_stuck(detections, track, xy, scale):
    """Tell whether a track stays on its pixels while it moves on the sky: a hot pixel."""
    place = xy[track.rows]
    pixels = 1.4826 * np.median(np.abs(place - np.median(place, axis=0)), axis=0)
    offset = track.offsets(detections.times(track.rows))
    sky = 1.4826 * np.median(np.abs(offset - np.median(offset, axis=0)), axis=0)
    return bool(np.hypot(*pixels) * scale < STUCK * np.hypot(*sky))


def _movers(detections, found, times):
    """Make the table of movers."""
    rows = []
    start = np.nanmin(times) if np.isfinite(times).any() else np.nan
    for number, (track, chance) in enumerate(found, start=1):
        place = track.sky(np.array([track.middle]))[0]
        rate, n = np.hypot(*track.rate), len(track.rows)
        rows.append(
            (
                number, n, rate, track.rate_err, np.degrees(np.arctan2(*track.rate)) % 360,
                np.degrees(track.rate_err / rate), *track.rate, track.r2, track.scatter,
                _share(track, detections), chance,
                np.degrees(np.arctan2(place[1], place[0])) % 360,
                np.degrees(np.arctan2(place[2], np.hypot(*place[:2]))),
                track.scatter / np.sqrt(n), start + track.middle / 1440,
            )
        )  # fmt: skip
    names = (
        "id", "n", "rate", "rate_err", "position_angle", "position_angle_err", "rate_ra",
        "rate_dec", "r2", "scatter", "share", "chance", "ra0", "dec0", "position_err", "t0",
    )  # fmt: skip
    return Table(rows=rows or None, names=names, dtype=[int, int] + 14 * [float])


def _tables(detections, found, lists, times, rows):
    """Make the table of the detections of all movers."""
    parts = {name: [] for name in ("id", "frame", "row", "east", "north", "fit_e", "fit_n")}
    for number, (track, _) in enumerate(found, start=1):
        place = track.sky(np.array([track.middle]))[0]
        plane = plane_offsets(detections.sky[track.rows], place)
        fit = plane_offsets(track.sky(detections.times(track.rows)), place)
        columns = (len(plane) * [number], *rows[track.rows, :2].T, *plane.T, *fit.T)
        for name, column in zip(parts, columns, strict=True):
            parts[name] += list(column)
    table = Table(
        {
            **{name: np.array(parts[name], int) for name in ("id", "frame", "row")},
            "jd_utc_mid": [float(times[frame]) for frame in parts["frame"]],
        }
    )
    pairs = list(zip(parts["frame"], parts["row"], strict=True))
    for name in ("ra", "dec", "x", "y", "flux", "snr"):
        table[name] = np.array([float(lists[frame][name][row]) for frame, row in pairs], float)
    for name in ("east", "north"):
        table[name] = np.array(parts[name], float)
    for name in ("east", "north"):
        table[f"residual_{name}"] = table[name] - np.array(parts[f"fit_{name[0]}"], float)
    return table
