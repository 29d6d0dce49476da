"""Where a sparse field lies on a frame whose scale and orientation are known.

A field of three standard stars is no pattern that a plate solution could recognise among a hundred
others. But another frame of the same night tells scale and orientation, so that only a shift is
left to be found, and how bright the standards are helps to know them.
"""

import math
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from .errors import SolveError
from .instrumental import plain_values

__all__ = ["MAX_CHANCE", "Shift", "find_translation", "solve_shift"]

#: A place that chance gives more often than this is no place.
MAX_CHANCE = 0.01
#: Brightness around a standard, in units of the tolerance, where stars like it are counted.
WIDE = 6.0
#: Standards nearer to the edge than this (px) need not be seen.
MARGIN = 10.0


class Shift(NamedTuple):
    """Where a frame points.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        World coordinates of the frame (linear).
    pairs : astropy.table.Table
        ``source`` and ``star``: rows of the detected stars and of the catalogue that are the same;
        ``distance`` (px).
    chance : float
        Number of places where stars at random would agree as well.
    n_inside : int
        Stars of the catalogue that are on the frame.
    """

    wcs: WCS
    pairs: Table
    chance: float
    n_inside: int


def solve_shift(
    sources,
    catalogue,
    wcs,
    *,
    radius,
    shape,
    bands=(),
    calibrated=True,
    tolerance=3.0,
    magnitude_tolerance=0.2,
):
    r"""Find the shift that puts the stars of a sparse catalogue on detected stars.

    Each detected star is tried as each star of the catalogue; where that leads nowhere, with the
    frame turned by 180 degrees (a mount that crossed the meridian). All stars of the catalogue
    that are then on the frame must be there, at most a fifth of them missing, within the tolerances
    of place and brightness. With the area A of the search, the area a of the tolerance and the
    number of detected stars per area :math:`\rho_k` that are as bright as star k, stars at random
    agree

    .. math:: E = \frac{A}{a} \prod_k a \rho_k

    times (twice that in the second attempt). More than 0.01 is refused: three stars of unknown
    brightness may be too few, and one star is enough where its brightness and colour are rare.

    Parameters
    ----------
    sources : astropy.table.Table
        Detected stars: ``x``, ``y`` (px, 0-based), and the magnitudes ``bands``.
    catalogue : astropy.table.Table
        Stars with ``ra``, ``dec`` (deg) and the magnitudes ``bands``; those without one of these
        magnitudes are left aside.
    wcs : astropy.wcs.WCS
        World coordinates with the right scale and orientation, near the right place.
    radius : astropy.units.Quantity
        How far the right place may be.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    bands : sequence of str
        Magnitudes to compare, columns of both tables; none are compared without.
    calibrated : bool
        False where the magnitudes of ``sources`` have no zero point: only differences count then.
    tolerance : float
        Largest distance of a star from its place (px).
    magnitude_tolerance : float
        Largest difference of a magnitude.

    Returns
    -------
    Shift
        The place.

    Raises
    ------
    SolveError
        If there is no such place, more than one, or one that chance gives as well; with numbers.
    """
    place = np.column_stack([np.asarray(sources[name], float) for name in "xy"])
    reach = u.Quantity(radius, u.arcmin).to_value(u.deg) / _pixel(wcs)
    sky = np.column_stack([np.asarray(catalogue[name], float) for name in ("ra", "dec")])
    size = np.array(shape[::-1], float)
    bright = np.all([np.isfinite(plain_values(catalogue[b])) for b in bands], axis=0)
    refused = None
    for turned in (False, True):
        start = _turned(wcs) if turned else wcs
        expected = start.wcs_world2pix(sky, 0)
        # What is behind the tangent point's horizon comes back as NaN or far away.
        with np.errstate(invalid="ignore"):
            near = np.all((expected > -reach) & (expected < size + reach), axis=1)
            rows = np.flatnonzero(near & bright)
        field = _Field(place, sources, catalogue[rows], bands, calibrated, magnitude_tolerance)
        found = field.places(expected[rows], reach, size, tolerance)
        if not found:
            continue
        matched, n_inside, _, shift = found[0]
        chance = field.chance(matched, math.pi * reach**2, math.pi * tolerance**2, size)
        chance *= 1 + turned
        others = sum(
            len(one[0]) == len(matched) and math.dist(one[3], shift) > 2 * tolerance
            for one in found
        )
        if chance <= MAX_CHANCE and not others:
            return _shift(start, place, expected, rows, matched, chance, n_inside)
        many = f"{others + 1} places fit as well" if others else "chance does as well"
        refused = refused or (
            f"{len(matched)} standard stars of {n_inside} are found among {len(sources)} stars, "
            f"but {many} (expected by chance: {chance:.2g}, allowed {MAX_CHANCE}): give a "
            "catalogue whose magnitudes can be transformed, or frames with more standards"
        )
    raise SolveError(
        refused
        or f"{len(sources)} stars in the frame, and no shift within "
        f"{60 * reach * _pixel(wcs):.1f}' puts the standard stars on them: check the object's "
        "name and the pointing in the header"
    )


def _shift(start, place, expected, rows, matched, chance, n_inside):
    """Put a place into words: world coordinates and the pairs of stars."""
    stars, detected = (np.array(part, int) for part in zip(*matched, strict=True))
    away = place[detected] - expected[rows[stars]]
    wcs = start.deepcopy()
    wcs.wcs.crpix = wcs.wcs.crpix + away.mean(axis=0)
    pairs = Table({"source": detected, "star": rows[stars]})
    pairs["distance"] = np.hypot(*(away - away.mean(axis=0)).T)
    return Shift(wcs, pairs, float(chance), int(n_inside))


class _Field:
    """Detected stars and the catalogue around them, with which could be which by brightness."""

    def __init__(self, place, sources, catalogue, bands, calibrated, tolerance):
        self.place, self.tree = place, cKDTree(place)
        self.tolerance, self.free = tolerance, not calibrated and bool(bands)
        shapes = (len(bands), len(place)), (len(bands), len(catalogue))
        self.seen = np.array([plain_values(sources[b]) for b in bands]).reshape(shapes[0])
        self.known = np.array([plain_values(catalogue[b]) for b in bands]).reshape(shapes[1])
        # Without a zero point any star that was measured may be any standard.
        self.alike = self._near(self.known, np.inf if self.free else tolerance)

    def _near(self, magnitude, tolerance):
        """Which detected stars are as bright, in all bands, as each of some stars."""
        with np.errstate(invalid="ignore"):
            off = np.abs(magnitude[:, :, None] - self.seen[:, None, :])
            return np.all(off <= tolerance, axis=0)

    def places(self, expected, reach, size, tolerance):
        """Places that fit, the best first: pairs, number inside, mean distance and shift."""
        found = []
        for k, i in np.argwhere(self.alike):
            shift = self.place[i] - expected[k]
            if np.hypot(*shift) <= reach:
                judged = self.judge(expected + shift, size, tolerance)
                found += [] if judged is None else [(*judged, shift)]
        # As many as possible, then as near as possible.
        return sorted(found, key=lambda one: (-len(one[0]), one[2]))

    def judge(self, expected, size, tolerance):
        """Pairs, number inside and mean distance at a place; None where too many are missing."""
        inside = np.flatnonzero(np.all((expected > MARGIN) & (expected < size - MARGIN), axis=1))
        pairs, distances = [], []
        for k in inside:
            near = [i for i in self.tree.query_ball_point(expected[k], tolerance)
                    if self.alike[k, i]]  # fmt: skip
            if near:
                away = [math.dist(self.place[i], expected[k]) for i in near]
                pairs.append((int(k), int(near[int(np.argmin(away))])))
                distances.append(min(away))
        if self.free and pairs:
            k, i = np.array(pairs).T
            offset = self.known[:, k] - self.seen[:, i]
            fits = np.abs(offset - np.nanmedian(offset, axis=1)[:, None]) <= self.tolerance
            good = np.flatnonzero(np.all(fits, axis=0))
            pairs, distances = [pairs[g] for g in good], [distances[g] for g in good]
        if not pairs or len(pairs) < 0.8 * len(inside):
            return None
        return pairs, len(inside), float(np.mean(distances))

    def chance(self, matched, area, spot, size):
        """Return how often stars at random would be such a match somewhere in the search."""
        rows, detected = np.array(matched).T
        n = np.full(len(rows), float(len(self.place)))
        if len(self.known):
            known = self.known[:, rows]
            if self.free:
                known = known - np.nanmedian(known - self.seen[:, detected], axis=1)[:, None]
            # The star itself is no chance; where there is no other one may have been missed.
            others = self._near(known, WIDE * self.tolerance).sum(axis=1) - 1
            n = np.maximum(others, 1) / WIDE ** len(known)
            if self.free:
                n[0] = len(self.place)  # The first one tells the zero point.
        return area / spot * np.prod(spot * n / np.prod(size))


def find_translation(first, second, *, tolerance=2.0, brightest=60):
    """Shift between two frames of one field, by a vote over all pairs of their bright stars.

    Parameters
    ----------
    first, second : astropy.table.Table
        Detected stars: ``x``, ``y`` (px) and ``flux``.
    tolerance : float
        Pixels within which votes agree.
    brightest : int
        Stars of each frame that vote.

    Returns
    -------
    numpy.ndarray of float, shape (2,)
        To be added to positions of the first frame; NaN where fewer than 4 stars agree.
    """
    points = []
    for table in (first, second):
        order = np.argsort(-np.asarray(table["flux"], float))[:brightest]
        points.append(np.column_stack([np.asarray(table[n], float)[order] for n in "xy"]))
    votes = (points[1][None, :, :] - points[0][:, None, :]).reshape(-1, 2)
    tree = cKDTree(votes)
    agree = tree.query_ball_point(votes, tolerance)
    best = max(agree, key=len, default=[])
    if len(best) < 4:
        return np.full(2, np.nan)
    return np.median(votes[best], axis=0)


def _pixel(wcs):
    """Size of a pixel in degrees."""
    return float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))))


def _turned(wcs):
    """World coordinates of the frame turned by 180 degrees about the reference point."""
    result = wcs.deepcopy()
    if result.wcs.has_cd():
        result.wcs.cd = -result.wcs.cd
    else:  # A CD matrix beside a PC matrix would not count.
        result.wcs.pc = -result.wcs.get_pc()
    return result
