"""Inside the stage stack: by which stars frames compare, how, and which are behind clouds."""

import math
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .coaddition import LEAST_STARS
from .detections import chord
from .ensembleresiduals import improve, median
from .errors import FrameError
from .nightstars import sky_to_pixel
from .reference import unit_vectors
from .sources import NEIGHBOUR

__all__ = ["FrameLight", "cloud_reasons", "compare_light", "scale_stars", "stars_to_compare"]

#: Stars that frames are compared by: so many of the brightest, all of this S/N or more.
MOST_STARS, LEAST_SNR = 200, 30.0
#: A frame that sees so many of the stars of others needs none of its own.
ENOUGH_STARS = 50
#: Other stars may have this share of a star's light in a ring so wide, in radii, at the edge of its
#: circle; if so few stars have less, others are taken, too.
MOST_BESIDE, RING, FEW_STARS = 0.1, 0.375, 30
#: Frames whose stars disagree about their light by more than this are behind patchy clouds.
MOST_PATCHY = 0.1
#: No star is trusted to more than this fraction of its light: it may vary.
TRUSTED = 0.01
#: Rounds of the solution, the first of them without doubt; what is so many standard deviations away
#: has half of its weight.
ROUNDS, SURE_ROUNDS, DOUBT = 16, 4, 2.5
#: A frame on which stars have less than this share of their most light is dark.
DARK = 0.05


@dataclass(frozen=True, eq=False)
class FrameLight:
    """How the light of frames compares.

    Parameters
    ----------
    scales : numpy.ndarray of float, shape (n_frame,)
        Factors that bring the counts of a frame to those of one of them.
    light : numpy.ndarray of float, shape (n_frame,)
        Light per second, as a share of that frame's; NaN where it is not known.
    patchy : numpy.ndarray of float, shape (n_frame,)
        Scatter of that share from star to star, as a fraction of it, from its quartiles; beyond
        what the errors of the fluxes make.
    """

    scales: np.ndarray
    light: np.ndarray
    patchy: np.ndarray

    def relative_to(self, frame):
        """Give scales and light relative to another frame, by its number."""
        light = self.light[frame]
        light = self.light / light if light > 0 else self.light
        return FrameLight(self.scales / self.scales[frame], light, self.patchy)


def stars_to_compare(frames, lists, *, radius):
    """Stars by which frames can be compared, of as few star lists as possible.

    The first frame gives its stars. One that sees too few of them gives its own, too: so the frames
    of a mosaic are linked through those between them.

    Parameters
    ----------
    frames : dict of StackFrame
        From `open_frame`, in the order in which they are asked.
    lists : sequence of pathlib.Path
        Star list of each frame, by the same keys.
    radius : float
        Radius in arcsec of the circle in which stars are to be measured.

    Returns
    -------
    stars : astropy.coordinates.SkyCoord
        Their places.
    problems : dict of FrameError
        What is wrong with lists that were asked and cannot be read, by the key of the frame.
    """
    found, problems = np.empty((0, 2)), {}
    for key, frame in frames.items():
        place = np.array(sky_to_pixel(frame.wcs, SkyCoord(found, unit="deg"), shape=frame.shape))
        edge, size = radius / frame.scale, np.array(frame.shape[::-1])[:, None]
        inside = ((place > edge) & (place < size - 1 - edge)).all(axis=0)
        if inside.sum() >= ENOUGH_STARS:
            continue
        try:
            own = scale_stars(lists[key], radius=radius)
        except FrameError as error:
            problems[key] = error
            continue
        own = np.column_stack([own.ra.deg, own.dec.deg])
        if len(found):
            # Two neighbours would both be measured in the same circle.
            far = cKDTree(_vectors(found)).query(_vectors(own))[0] > chord(radius / 2)
            own = own[far]
        found = np.concatenate([found, own])
    return SkyCoord(found, unit="deg"), problems


def scale_stars(listed, *, radius):
    """Stars of a frame that others can be compared with.

    Parameters
    ----------
    listed : pathlib.Path
        Star list of the frame (``work/sources``).
    radius : float
        Radius in arcsec of the circle in which they are to be measured.

    Returns
    -------
    astropy.coordinates.SkyCoord
        At most 200 stars: not saturated, whole, of S/N 30 at least, without a neighbour at the edge
        of the circle, whose light goes in and out with the seeing, and the brightest of them. With
        less than 30 of them those with the faintest neighbours stand in. It may be empty.

    Raises
    ------
    FrameError
        If the list is missing or damaged.
    """
    try:
        stars = Table.read(listed, format="ascii.ecsv")
        columns = [np.asarray(stars[name]) for name in ("flags", "snr", "flux", "ra", "dec")]
    except Exception as error:  # A damaged table raises many kinds of errors.
        raise FrameError(f"{listed.name}: cannot be read ({error})") from error
    known = np.isfinite(columns[3]) & np.isfinite(columns[4])
    flags, snr, flux, ra, dec = (column[known] for column in columns)
    places = np.column_stack([ra, dec])
    good = np.flatnonzero(((flags.astype(int) & ~NEIGHBOUR) == 0) & (snr >= LEAST_SNR))
    beside = _light_at_edge(places, flux, good, radius=radius) / flux[good]
    order = np.lexsort((-flux[good], np.where(beside > MOST_BESIDE, beside, 0)))
    alone = np.count_nonzero(beside <= MOST_BESIDE)
    good = good[order][: min(max(alone, FEW_STARS), MOST_STARS)]
    return SkyCoord(places[good], unit="deg")


def _light_at_edge(places, flux, stars, *, radius):
    """Light of other stars that is close to the edge of the circles around some stars."""
    if not len(stars):
        return np.zeros(0)
    tree, middle, flux = cKDTree(_vectors(places)), _vectors(places[stars]), np.nan_to_num(flux)
    outer, inner = (
        np.array([flux[near].sum() for near in tree.query_ball_point(middle, chord(reach))])
        for reach in ((1 + RING) * radius, (1 - RING) * radius)
    )
    return outer - inner


def _vectors(places):
    """Turn places in degrees into unit vectors."""
    return unit_vectors({"ra": places[:, 0], "dec": places[:, 1]})


def compare_light(frames):
    """Compare the light of the stars on frames.

    The light of all frames and the levels of all stars are found together, as in
    `datared.ensemble.solve_ensemble` but with the errors as they are, for two frames do not tell
    scatters. No frame is the measure of the others, and frames without a common star compare
    through those between them. Five stars in common link two frames; if not all frames are linked,
    the largest group is compared.

    Parameters
    ----------
    frames : sequence of StackFrame
        From `datared.stackframes.look_at`, all with the same stars, the best frame first.

    Returns
    -------
    FrameLight
        Scales and light relative to the first frame, and patchiness. A frame that is not linked
        gets the scale of its exposure time and of the usual light of the others.
    """
    seconds = np.array([frame.exptime for frame in frames])
    flux, error = (
        np.array([getattr(f, name) for f in frames]).T / seconds for name in ("flux", "flux_err")
    )
    light, patchy = np.full(len(frames), np.nan), np.zeros(len(frames))
    measured = np.isfinite(flux)
    group = _linked(measured & _lit(flux))
    if group.any():
        level, light[group], weight = _solve(flux[:, group], error[:, group])
        patchy[group] = _patchiness(flux[:, group], error[:, group], level, light[group], weight)
        if (patchy[group] > MOST_PATCHY).all():
            # Of two that disagree nobody can tell which is right: the best is believed.
            patchy[np.argmax(group)] = 0.0
        # Dark frames, and those that have stars in common with several others, but few with each.
        for k in np.flatnonzero(~np.isfinite(light)):
            stars = measured[:, k] & (level > 0)
            if stars.sum() >= LEAST_STARS:
                a, f, w = level[stars], flux[stars, k], error[stars, k] ** -2
                light[k] = np.sum(w * a * f) / np.sum(w * a**2)
    known = light > 0
    usual = np.median(light[known]) if known.any() else 1.0
    scales = 1 / seconds / np.where(known, light, usual)
    return FrameLight(scales, light, patchy).relative_to(0)


def _lit(flux):
    """Tell on which frames the stars are seen at all."""
    most = np.nan_to_num(flux).max(axis=1, keepdims=True, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return median(flux / most, 0) > DARK


def _linked(measured):
    """Frames of the largest group that common stars link; of equal ones that of the first frame."""
    common = measured.T.astype(int) @ measured >= LEAST_STARS
    labels = connected_components(common, directed=False)[1]
    able = np.diag(common)
    return able & (labels == np.argmax(np.bincount(labels, weights=able)))


@np.errstate(divide="ignore", invalid="ignore")
def _solve(flux, error):
    """Levels of stars, light of frames and weights: robust least squares of relative residuals."""
    level = median(flux, 1)
    known = np.isfinite(flux) & (level > 0)[:, None]
    light = median(np.where(known, flux / level[:, None], np.nan), 0)
    light = np.where(light > 0, light, 1.0)
    for n in range(ROUNDS):
        model = level[:, None] * light
        variance = np.square(error / model) + TRUSTED**2
        if n >= SURE_ROUNDS:
            variance += np.square((flux / model - 1) / DOUBT)
        weight = np.where(known, 1 / variance, 0.0)
        level, light = improve(flux, level, light, weight, [slice(None)])
    return level, light, weight


def _patchiness(flux, error, level, light, weight):
    """Scatter of the stars of each frame against the levels that the other frames give."""
    model = level[:, None] * light
    share, variance = flux / model, np.square(error / model)
    pull = np.where(weight > 0, weight * share, 0.0)
    noise = np.where(weight > 0, weight**2 * variance, 0.0)
    rest = weight.sum(axis=1, keepdims=True) - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        others = (pull.sum(axis=1, keepdims=True) - pull) / rest
        variance = variance + (noise.sum(axis=1, keepdims=True) - noise) / rest**2 * share**2
        share, error = share / others, np.sqrt(variance) / others
    patchy = np.zeros(flux.shape[1])
    for k, stars in enumerate((np.isfinite(share) & (rest > 0)).T):
        if stars.sum() < LEAST_STARS:
            continue
        # A MAD would not see a cloud over less than half of the stars, a standard deviation would
        # see a trail over some of them.
        scatter = np.ptp(np.percentile(share[stars, k], [25, 75])) / 1.349
        # Quartiles of n values give a scatter to 1.16 / sqrt(n) of it; up to three times that is
        # still noise.
        most = np.median(error[stars, k]) * (1 + 3.5 / math.sqrt(stars.sum()))
        patchy[k] = math.sqrt(max(scatter**2 - most**2, 0))
    return patchy


def cloud_reasons(light, *, least):
    """Say which frames are behind clouds.

    Parameters
    ----------
    light : FrameLight
        From `compare_light`.
    least : float
        Share of the usual light that a frame must have.

    Returns
    -------
    list of str
        Why a frame should be left out; empty for a clear one.
    """
    known = np.isfinite(light.light)
    usual = np.median(light.light[known]) if known.any() else 1.0
    reasons = []
    for share, patchy in zip(light.light, light.patchy, strict=True):
        if share < least * usual:
            text = f"clouds: its stars have {max(share / usual, 0):.0%} of their usual light"
        elif patchy > MOST_PATCHY:
            text = f"patchy clouds: the light of its stars varies by {patchy:.0%}"
        else:
            text = ""
        reasons.append(text)
    return reasons
