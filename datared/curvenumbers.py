"""Numbers of a night's own light curves that questions of the course ask for."""

import warnings

import numpy as np

from .assembly import read_photometry
from .errors import DataredError, DataredWarning
from .lightcurve import differential_light_curve

__all__ = ["comparison_numbers", "curve_numbers"]

#: Stars that the page tests by hand: so many of the brightest, the target not counted. The list of
#: bad ones is asked for up to this star.
TESTED, LAST = 12, 20
#: A star is bad by hand if more of its epochs are missing, or if it scatters more (mag).
MAX_MISSING, MAX_SCATTER = 0.05, 0.04
#: Radius of the aperture by hand, in units of the FWHM.
RADIUS = 1.5

#: First words of the reasons that a student can find alone, and their short names. The brightness,
#: the colour and the distance that are still good enough are matters of judgement.
REASONS = {
    "saturated": "saturated",
    "crowded": "crowded",
    "edge": "at the edge",
    "outside": "at the edge",
    "bad pixel": "on bad pixels",
    "varies": "variable",
}


def curve_numbers(night):
    r"""Answer the questions about calibration by hand from the tables of a night.

    Parameters
    ----------
    night : Night or Photometry
        A night with photometry and a target, or its tables.

    Returns
    -------
    dict of str to float
        ``airmass_range``: largest minus smallest airmass. For the brightest 12 stars beside the
        target, in the aperture of 1.5 FWHM (or the default one), with the magnitudes
        :math:`m_k(t) - \mathrm{median}_t m_k - c(t)`, where :math:`c(t)` is the median of the 12,
        and of these the good ones (at most 5 % of the epochs missing, standard deviation at most
        0.04 mag): ``scatter``, the median of their robust standard deviations (mag);
        ``scatter_sides``, the same after each side of the meridian flip was given its own median,
        which needs both; ``correlation``, the highest coefficient of a pair, and
        ``correlation_sides``, that of the same pair after the sides were levelled. A number that
        the night does not tell is NaN.

    Raises
    ------
    DataredError
        If the night has no photometry yet.
    """
    phot, wanted = _tables(night)
    mine = np.asarray(phot.epochs["filter"]).astype(str) == wanted
    airmass = np.ma.filled(np.ma.asarray(phot.epochs["airmass"], float), np.nan)[mine]
    airmass = airmass[np.isfinite(airmass)]
    numbers = {"airmass_range": float(np.ptp(airmass)) if airmass.size else np.nan}
    return numbers | _by_hand(phot, mine)


def comparison_numbers(night):
    """Answer the questions about the package's comparison stars from the tables of a night.

    Parameters
    ----------
    night : Night or Photometry
        A night with photometry and a target, or its tables.

    Returns
    -------
    dict
        Of the light curve that `datared.lightcurve.differential_light_curve` makes: ``left_out``,
        the number of epochs in which a comparison star was left out (NaN where there is no curve).
        ``refused``: a dictionary of those of the stars 0 to 20 that it refuses for a reason that
        can be seen, with the reason; ``judged``: a set of those that it refuses for another reason.

    Raises
    ------
    DataredError
        If the night has no photometry yet.
    """
    phot, wanted = _tables(night)
    try:
        with warnings.catch_warnings():
            # A saturated target was told when the curve was made.
            warnings.simplefilter("ignore", DataredWarning)
            curve, chosen = differential_light_curve(phot, filter=wanted)
    except DataredError:
        return {"left_out": np.nan, "refused": {}, "judged": set()}
    count = np.asarray(curve["n_comparison"])
    refused, judged = {}, set()
    for row in chosen[: LAST + 1]:
        text = str(row["reason"])
        if row["used"] or text == "the target":
            continue
        kinds = [short for word, short in REASONS.items() if text.startswith(word)]
        if kinds:
            refused[int(row["star"])] = kinds[0]
        else:
            judged.add(int(row["star"]))
    return {"left_out": float(np.sum(count < count.max())), "refused": refused, "judged": judged}


def _tables(night):
    """Tables of the photometry, and the filter of the light curve."""
    phot = night if hasattr(night, "flux_err") else read_photometry(night)
    names = np.asarray(phot.epochs["filter"]).astype(str)
    named = getattr(getattr(night, "lightcurve", None), "filter", None)
    return phot, named or (names[0] if len(names) else None)


def _by_hand(phot, mine):
    """Scatter and correlation of the stars that the page tests by hand."""
    nothing = dict.fromkeys(
        ("scatter", "scatter_sides", "correlation", "correlation_sides"), np.nan
    )
    radii = np.asarray(phot.radii, float)
    k = int(np.argmin(abs(radii - RADIUS))) if RADIUS in radii else phot.default_radius
    rows = np.flatnonzero(~np.asarray(phot.stars["target"], bool))[:TESTED]
    flux = np.ma.masked_invalid(phot.flux[rows][:, mine, k])
    flux = np.ma.masked_less_equal(flux, 0)
    flux = flux / np.asarray(phot.epochs["exptime"], float)[mine]
    side = np.asarray(phot.epochs["flipped"], bool)[mine]
    if min(flux.shape) < 3:
        return nothing
    magnitude = -2.5 * np.ma.log10(flux)
    change = magnitude - np.ma.median(magnitude, axis=1, keepdims=True)
    change = change - np.ma.median(change, axis=0)
    missing = np.ma.getmaskarray(flux).mean(axis=1)
    good = (missing <= MAX_MISSING) & (np.ma.filled(change.std(axis=1), 1.0) <= MAX_SCATTER)
    if good.sum() < 3:
        return nothing
    before = change[good]
    pairs = np.ma.corrcoef(before).filled(0.0)[np.triu_indices(int(good.sum()), 1)]
    best = int(np.argmax(pairs))
    result = nothing | {"scatter": _robust(before), "correlation": float(pairs[best])}
    if side.all() or not side.any():
        return result
    after = before.copy()
    for part in (side, ~side):
        after[:, part] -= np.ma.median(before[:, part], axis=1, keepdims=True)
    levelled = np.ma.corrcoef(after).filled(0.0)[np.triu_indices(int(good.sum()), 1)]
    return result | {
        "scatter_sides": _robust(after),
        "correlation_sides": float(levelled[best]),
    }


def _robust(values):
    """Median over the stars of 1.4826 times the median absolute deviation."""
    away = np.ma.abs(values - np.ma.median(values, axis=1, keepdims=True))
    return float(1.4826 * np.ma.median(np.ma.median(away, axis=1)))
