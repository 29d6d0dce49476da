"""Colours of stars for colour terms: a magnitude in the catalogue's system needs the star's colour.

``m = m_inst + ZP + c C``, and the colour C is itself made of two such magnitudes: for the filters
b and r it follows from ``C = (b'_inst - r'_inst) / (1 - c_b + c_r)``, where ``'`` has the zero
point in it.
"""

import numpy as np
from astropy.stats import mad_std

from .instrumental import passband

__all__ = ["apply_colour_terms", "star_colours"]

#: Standard deviation of the colours of the stars of a field (mag), where none is known.
USUAL_SPREAD = 0.5


def star_colours(blue, red, catalogue):
    """Colour of every star, from the first of these that is good enough.

    Our own magnitudes, if they know the star's colour better than that it is a star; the
    catalogue; the median of all stars.

    Parameters
    ----------
    blue, red : tuple of numpy.ndarray of float, shape (n,), or None
        Magnitudes at colour 0, their errors, and the colour term (a number) of the two filters;
        None where the night does not have them.
    catalogue : tuple of numpy.ndarray of float, shape (n,)
        Colours in the catalogue and their errors.

    Returns
    -------
    colour, error : numpy.ndarray of float, shape (n,)
        Colours and their errors; for the median the error is the spread of the stars' colours.
    own : numpy.ndarray of bool, shape (n,)
        Stars with a colour from our own magnitudes.
    """
    theirs, theirs_err = catalogue
    colour, error = np.full(theirs.size, np.nan), np.full(theirs.size, np.nan)
    if blue is not None and red is not None:
        scale = 1 - blue[2] + red[2]
        colour, error = (blue[0] - red[0]) / scale, np.hypot(blue[1], red[1]) / abs(scale)
    with np.errstate(invalid="ignore"):
        known = np.where(np.isfinite(theirs), theirs, np.where(error < 0.2, colour, np.nan))
    known = known[np.isfinite(known)]
    middle, spread = (np.median(known), mad_std(known)) if known.size else (np.nan, np.nan)
    with np.errstate(invalid="ignore"):
        own = np.isfinite(colour) & (error <= spread)
    # Without an error of the catalogue nothing is known of it: then it counts as exact.
    other = ~own & np.isfinite(theirs)
    colour = np.where(own, colour, np.where(other, theirs, middle))
    error = np.where(own, error, np.where(other, np.nan_to_num(theirs_err), spread))
    return colour, error, own


def apply_colour_terms(levels, terms, catalogue_colour):
    """Bring magnitudes at colour 0 to the colours of the stars.

    Parameters
    ----------
    levels : dict of str to tuple
        For each filter the magnitudes at colour 0 and their errors, shape (n,).
    terms : dict of str to dict
        For each filter ``system``, ``colour`` (such as ``g-i``, empty for no colour term),
        ``colour_term``, ``colour_term_err``, ``pivot`` and ``common_error``, see
        `datared.zeropointfit.NightSolution`.
    catalogue_colour : callable
        Takes two bands and a system; gives the colours in the catalogue and their errors, shape
        (n,), NaN where it does not have them in this system.

    Returns
    -------
    dict of str to tuple
        For each filter the magnitudes and their errors: of the measurement, of the colour, of the
        colour term, and what all stars have in common.
    """
    result = {}
    for name, (level, sigma) in levels.items():
        term = terms[name]
        if not term["colour"]:
            result[name] = level, np.hypot(sigma, term["common_error"])
            continue
        bands = tuple(term["colour"].split("-"))
        pair = [_filter_of(band, term, terms) for band in bands]
        both = [
            None if other is None else (*levels[other], terms[other]["colour_term"])
            for other in pair
        ]
        known = catalogue_colour(bands, term["system"])
        colour, colour_err, own = star_colours(*both, known)
        # Where nobody knows the colour of any star: the one of the stars of the zero point.
        nothing = ~np.isfinite(colour)
        colour = np.where(nothing, term["pivot"], colour)
        colour_err = np.where(nothing, USUAL_SPREAD, colour_err)
        c, c_err = term["colour_term"], np.nan_to_num(term["colour_term_err"])
        variance = sigma**2 + (c * colour_err) ** 2
        if name in pair and None not in pair:
            # The magnitude is itself a part of the colour.
            sign, other = (1, pair[1]) if name == pair[0] else (-1, pair[0])
            share = c / (1 - both[0][2] + both[1][2])
            linked = ((1 + sign * share) * sigma) ** 2 + (share * levels[other][1]) ** 2
            variance = np.where(own, linked, variance)
        variance = variance + term["common_error"] ** 2 + (c_err * (colour - term["pivot"])) ** 2
        result[name] = level + c * colour, np.sqrt(variance)
    return result


def _filter_of(band, term, terms):
    """Filter of the night with a passband, of the same system and colour; else None."""
    for name, other in terms.items():
        if passband(name) == band and other["colour"] in ("", term["colour"]):
            if other["system"] == term["system"]:
                return name
    return None
