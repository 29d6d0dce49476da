"""Comparison stars: which ones are good, and why another one is not.

Nothing here looks at the target but its brightness, its colour and where it is.
"""

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from .apertures import BAD_PIXEL, NEIGHBOUR, SATURATED
from .ensemble import level_sides, solve_ensemble, spread
from .ensembleresiduals import median, positive
from .errors import DataredError
from .photometry import FLAG_NAMES

__all__ = ["comparison_stars", "star_colours", "star_distances", "usable"]

#: A star must be measured without a flag in this share of the epochs: one that drifts off the frame
#: is missing at one end of the night, where its level would come from the other end. Bad pixels
#: under a drifting star cost single epochs, of these more may be lost.
MIN_SHARE, MIN_CLEAN = 0.95, 0.5

#: A star of a more different colour (mag) is dimmed differently by the air: in blue light by about
#: 0.03 mag per magnitude and airmass, in red light by less; some of that a baseline takes out.
MAX_COLOUR = 1.0

#: A star that scatters more than this times what is expected for it is variable.
MAX_EXCESS = 2.0

#: Pairs of bands whose difference is a star's colour; the first that the star list has.
COLOURS = (("g", "r"), ("B", "V"), ("BT", "VT"), ("g", "i"), ("r", "i"), ("V", "R"))

#: One of so many stars cannot make the others look variable.
MANY_STARS = 20


def comparison_stars(
    flux, flux_err, flags, *, target, flux_range=(0.1, 10.0), colour=None, distance=None,
    max_stars=50, named=(), side=None,
):  # fmt: skip
    """Choose comparison stars, and say of each star why it is one or not.

    A star is refused that is saturated, crowded, off the frame or otherwise flagged in more than
    5 % of the epochs (bad pixels: half of them); whose brightness or colour is too different from
    the target's (the air dims blue stars more); that is farther away than others that are enough
    (clouds and errors of the flat field are more alike near the target); or that varies: the one
    that scatters most against the others is taken out, again and again, while it scatters more than
    twice what its error and the common excess of all stars explain.

    Parameters
    ----------
    flux, flux_err : numpy.ndarray of float, shape (n_star, n_epoch)
        Fluxes and errors of all stars, of one filter and one radius.
    flags : numpy.ndarray of int, shape (n_star, n_epoch)
        Their flags.
    target : int
        Row of the target.
    flux_range : tuple of float
        Lowest and highest flux in units of the target's.
    colour : array_like of float, shape (n_star,), optional
        Colours in magnitudes; NaN where one is not known, which is no reason to refuse a star.
    distance : array_like of float, shape (n_star,), optional
        Distances from the target in arcminutes.
    max_stars : int
        Of more stars, the nearest; without distances those with the best signal-to-noise.
    named : sequence of int
        Rows that are wanted instead, whatever they are.
    side : numpy.ndarray, shape (n_epoch,), optional
        Side of the meridian flip of each epoch: a step there is of the flat field, not of the star,
        and does not count as scatter.

    Returns
    -------
    astropy.table.Table
        One row for each star: ``star``, ``used``, ``reason``, ``ratio`` (flux in units of the
        target's), ``snr`` (median of an epoch), ``colour`` (mag), ``distance`` (arcmin),
        ``scatter`` (relative, against the others), ``expected``.

    Raises
    ------
    DataredError
        If the target has no positive flux in any epoch: nothing can be said about stars like it;
        or if a named star is not in the list, or is the target.
    """
    flux, error = np.asarray(flux, float), np.asarray(flux_err, float)
    good = usable(flux, error, flags)
    n_star, n_epoch = flux.shape
    clean, clean_err = np.where(good, flux, np.nan), np.where(good, error, np.nan)
    level = median(clean, 1)
    target_level = level[target]
    if not np.isfinite(target_level):
        target_level = median(positive(flux[[target]]), 1)[0]
    wrong = [k for k in named if not 0 <= k < n_star or k == target]
    if wrong:
        raise DataredError(
            f"comparison star {wrong[0]} cannot be named: valid are 0 to {n_star - 1} without the "
            f"target {target}; see the column star of the star list"
        )
    if not np.isfinite(target_level):
        raise DataredError(
            f"star {target} has no flux in any of the {n_epoch} epochs: check the target's "
            "position in the night file, and the flags of the star in the photometry"
        )
    unknown = np.full(n_star, np.nan)
    colour = unknown if colour is None else np.asarray(colour, float)
    distance = unknown if distance is None else np.asarray(distance, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio, snr = level / target_level, level / median(clean_err, 1)
    redder = colour - colour[target]
    reason = [""] * n_star
    for k in range(n_star):
        if k == target:
            reason[k] = "the target"
        elif len(named):
            reason[k] = "" if k in named else "not named"
        else:
            reason[k] = _flagged(flux[k], flags[k], good[k]) or _unlike(
                ratio[k], redder[k], flux_range
            )
    used = np.array([not text for text in reason])
    scatter, expected = unknown.copy(), unknown.copy()
    if not len(named):
        _drop_variable(clean, clean_err, used, reason, scatter, expected, side)
        _drop_far(used, reason, distance, snr, max_stars)
    rows = np.flatnonzero(used)
    if len(rows) > 1:
        scatter[rows], expected[rows], _ = _scatter(clean[rows], clean_err[rows], side)
    return Table(
        {
            "star": np.arange(n_star),
            "used": used,
            "reason": reason,
            "ratio": ratio,
            "snr": snr,
            "colour": colour,
            "distance": distance,
            "scatter": scatter,
            "expected": expected,
        }
    )


def star_colours(stars):
    """Give the colours of stars in the first pair of bands that their catalogue has values of.

    Parameters
    ----------
    stars : astropy.table.Table
        Star list of a night.

    Returns
    -------
    numpy.ndarray of float, shape (n_star,)
        Such as g - r or B - V, in magnitudes; NaN where it is not known.
    """
    for blue, red in COLOURS:
        names = f"cat_{blue}", f"cat_{red}"
        if all(name in stars.colnames for name in names):
            first, second = (np.ma.filled(np.ma.asarray(stars[n], float), np.nan) for n in names)
            if np.isfinite(first - second).any():
                return first - second
    return np.full(len(stars), np.nan)


def star_distances(stars, star):
    """Give the distances of all stars from one of them.

    Parameters
    ----------
    stars : astropy.table.Table
        Star list of a night, with ``ra`` and ``dec`` in degrees.
    star : int
        Row of the one.

    Returns
    -------
    numpy.ndarray of float, shape (n_star,)
        Arcminutes.
    """
    places = SkyCoord(stars["ra"], stars["dec"], unit="deg")
    return places[star].separation(places).arcmin


def usable(flux, error, flags):
    """Tell which measurements are there, unflagged and positive, with an error.

    Parameters
    ----------
    flux, error : numpy.ndarray of float
        Fluxes and errors.
    flags : numpy.ndarray of int
        Their flags, of the same shape.

    Returns
    -------
    numpy.ndarray of bool
        Of the same shape.
    """
    with np.errstate(invalid="ignore"):
        there = np.isfinite(flux) & np.isfinite(error) & (error > 0)
        return there & (np.asarray(flags) == 0) & (flux > 0)


def _flagged(flux, flags, good):
    """Return why a star cannot be compared with: its flags; empty where it can."""
    n_epoch = len(flux)
    lost = MIN_SHARE * n_epoch
    saturated = np.count_nonzero(flags & SATURATED)
    if n_epoch - saturated < lost:
        return f"saturated in {saturated} of {n_epoch} epochs"
    crowded = np.count_nonzero(flags & NEIGHBOUR)
    if n_epoch - crowded < lost:
        return f"crowded in {crowded} of {n_epoch} epochs"
    other = good | ((flags & BAD_PIXEL != 0) & np.isfinite(flux))
    if np.count_nonzero(other) < lost:
        bits = np.bitwise_or.reduce(flags[~other])
        names = ", ".join(name for name, bit in FLAG_NAMES.items() if bits & bit) or "no flux"
        return f"{names} in {n_epoch - np.count_nonzero(other)} of {n_epoch} epochs"
    if np.count_nonzero(good) < max(MIN_CLEAN * n_epoch, 1):
        return f"bad pixel in {n_epoch - np.count_nonzero(good)} of {n_epoch} epochs"
    return ""


def _unlike(ratio, redder, flux_range):
    """Return how a star differs too much from the target; empty where it does not."""
    if not flux_range[0] <= ratio <= flux_range[1]:
        return f"{'fainter' if ratio < 1 else 'brighter'} than the target by a factor of " + (
            f"{1 / ratio:.1f}" if ratio < 1 else f"{ratio:.1f}"
        )
    if abs(redder) > MAX_COLOUR:
        return f"{'redder' if redder > 0 else 'bluer'} than the target by {abs(redder):.2f} mag"
    return ""


def _scatter(flux, error, side):
    """Scatter of stars against each other, what their errors explain, and what is left in all."""
    found = solve_ensemble(flux, error, side=side)
    scatter = spread(level_sides(found.curves, side))
    expected = np.sqrt(median(found.errors**2, 1))
    excess = median((scatter**2 - expected**2)[None], 1)[0]
    return scatter, expected, np.sqrt(np.fmax(excess, 0))


def _drop_variable(flux, error, used, reason, scatter, expected, side):
    """Take out the stars that vary; of few stars the worst first, as it makes others look worse."""
    while used.sum() > 2:  # Of two stars nobody can tell which one varies.
        rows = np.flatnonzero(used)
        scatter[rows], expected[rows], floor = _scatter(flux[rows], error[rows], side)
        excess = np.nan_to_num(scatter[rows] / np.hypot(expected[rows], floor))
        bad = excess > MAX_EXCESS
        if len(rows) < MANY_STARS:
            bad &= excess == excess.max()
        if not bad.any():
            return
        used[rows[bad]] = False
        for k in rows[bad]:
            told = 100 * scatter[k], 100 * expected[k]
            reason[k] = "varies: scatter {:.2f} %, expected {:.2f} %".format(*told)


def _drop_far(used, reason, distance, snr, max_stars):
    """Take out what is more than enough: the farthest stars, or the faintest."""
    rows = np.flatnonzero(used)
    if len(rows) <= max_stars:
        return
    near = np.isfinite(distance[rows]).all()
    order = rows[np.argsort(distance[rows] if near else -snr[rows], kind="stable")]
    for k in order[max_stars:]:
        used[k] = False
        reason[k] = f"{'farther' if near else 'fainter'} than the {max_stars} that are enough" + (
            f": {distance[k]:.1f} arcmin" if near else ""
        )
