"""Zero points of the frames of one filter: which measurements count, and the method.

The parts of `datared.magnitudes.zero_points`: choose stars, solve, and say what was done.
"""

import numpy as np

from .apertures import EDGE, NO_POSITION, NO_WCS, OUTSIDE, SATURATED
from .errors import DataredError
from .instrumental import passband, plain_values, system_of
from .photometry import describe_flags
from .zeropointfit import fit_zero_points
from .zeropoints import ransac_zero_point, zero_point

__all__ = [
    "UNUSABLE",
    "catalogue_colour",
    "choose_stars",
    "colour_bands",
    "solve_filter",
]

#: A measurement with one of these is no magnitude.
UNUSABLE = EDGE | OUTSIDE | SATURATED | NO_POSITION | NO_WCS

#: Stars for a zero point have at least this signal-to-noise, for of the fainter ones a catalogue
#: and a frame list those that noise made brighter; fainter ones only where there are few.
MIN_SIGNALS = (20.0, 10.0, 5.0)
ENOUGH_STARS = 10
#: Fewer stars make no zero point.
MIN_STARS = 3

#: Columns of the table of zero points, and what a `ZeroPoint` calls them.
COLUMNS = (("zero_point", "value"), ("error", "error"), ("scatter", "scatter"), ("n", "n"))

#: Bands in the order of their wavelength: a colour is the bluer minus the redder.
ORDER = ("u", "U", "B", "g", "BP", "V", "G", "r", "R", "RP", "i", "I", "z", "y", "J", "H", "K")


def choose_stars(flux, error, flags, has_catalogue):
    """Choose the measurements for zero points, frame by frame.

    Stars without any flag and with a high signal-to-noise; where fewer than 3 stars are like that,
    also flagged ones whose flux can be trusted somewhat (a neighbour, a filled bad pixel), never
    saturated or cut ones.

    Parameters
    ----------
    flux, error : numpy.ndarray of float, shape (n_star, n_epoch)
        Fluxes and their errors.
    flags : numpy.ndarray of int, shape (n_star, n_epoch)
        Flags.
    has_catalogue : numpy.ndarray of bool, shape (n_star,)
        Stars with a magnitude in the catalogue.

    Returns
    -------
    exclude : numpy.ndarray of bool, shape (n_star, n_epoch)
        Measurements not to use.
    reason : list of str
        For each epoch what had to be done to have stars; empty where nothing had.
    """
    exclude, reason = np.ones(flux.shape, bool), [""] * flux.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        signal = np.where(error > 0, flux / error, 0.0) * has_catalogue[:, None]
    for k in range(flux.shape[1]):
        good = _bright(signal[:, k], flags[:, k] == 0)
        if good.sum() < MIN_STARS:
            flagged = _bright(signal[:, k], (flags[:, k] & UNUSABLE) == 0)
        else:
            flagged = good
        exclude[:, k] = ~flagged
        if flagged.sum() > good.sum():
            bits = np.bitwise_or.reduce(flags[flagged, k])
            reason[k] = (
                "fewer than 3 stars without a flag: flagged ones were used "
                f"({', '.join(describe_flags(bits))})"
            )
    return exclude, reason


def _bright(signal, allowed):
    """Stars with the highest limit of the signal-to-noise that leaves enough of them."""
    for limit in MIN_SIGNALS:
        good = allowed & (signal > limit)
        if good.sum() >= ENOUGH_STARS:
            break
    return good


def solve_filter(magnitude, error, stars, band, *, exclude, airmass, colour, method):
    """Zero points of all frames of a filter from the catalogue's magnitudes in its band.

    Parameters
    ----------
    magnitude, error : numpy.ndarray of float, shape (n_star, n_epoch)
        Instrumental magnitudes and their errors.
    stars : astropy.table.Table
        With ``cat_<band>``, and ``cat_<band>_err`` where it is known.
    band : str
        Passband.
    exclude : numpy.ndarray of bool, shape (n_star, n_epoch)
        Measurements not to use.
    airmass : numpy.ndarray of float, shape (n_epoch,)
        Airmass of each epoch.
    colour : numpy.ndarray of float, shape (n_star,), or None
        Colours for the colour term; only for the method ``"global"``.
    method : str
        ``"global"``, ``"median"`` or ``"ransac"``.

    Returns
    -------
    columns : dict of numpy.ndarray, shape (n_epoch,)
        ``zero_point``, ``error``, ``frame_error``, ``scatter``, ``n``, ``colour_term``,
        ``colour_term_err``.
    numbers : dict of float
        ``common_error``, ``pivot``, ``star_scatter``, ``frame_scatter``, ``extinction``,
        ``extinction_err``, ``zero_point_0``, ``zero_point_0_err``, ``n_rejected``.
    """
    catalogue = stars[f"cat_{band}"]
    if method == "global":
        known = f"cat_{band}_err"
        found = fit_zero_points(
            magnitude, error, catalogue, stars[known] if known in stars.colnames else None,
            colour=colour, airmass=airmass, exclude=exclude, min_stars=MIN_STARS,
        )  # fmt: skip
        names = ("zero_point", "error", "frame_error", "scatter", "n")
        columns = {name: getattr(found, name) for name in names}
        for name in ("colour_term", "colour_term_err"):
            columns[name] = np.full(magnitude.shape[1], getattr(found, name))
        names = ("common_error", "pivot", "star_scatter", "extinction", "extinction_err")
        names += ("zero_point_0", "zero_point_0_err")
        numbers = {name: float(getattr(found, name)) for name in names}
        scatters = found.frame_scatter[np.isfinite(found.frame_scatter)]
        numbers["frame_scatter"] = float(np.median(scatters)) if scatters.size else np.nan
        return columns, numbers | {"n_rejected": int(found.rejected.sum())}
    points = []
    for k in range(magnitude.shape[1]):
        if method == "ransac":
            points.append(
                ransac_zero_point(magnitude[:, k], catalogue, exclude=exclude[:, k]).fixed
            )
        else:
            points.append(zero_point(magnitude[:, k], catalogue, exclude=exclude[:, k]))
    columns = {name: np.array([getattr(point, key) for point in points]) for name, key in COLUMNS}
    columns["frame_error"] = columns["error"]
    columns["colour_term"] = np.zeros(len(points))
    columns["colour_term_err"] = np.full(len(points), np.nan)
    return columns, {"common_error": 0.0, "pivot": 0.0}


def colour_bands(stars, filters, colour):
    """Choose the two bands of the colour for the colour terms of a night.

    Parameters
    ----------
    stars : astropy.table.Table
        With columns ``cat_<band>``.
    filters : sequence of str
        Filters of the night.
    colour : str
        ``"auto"`` (of the night's bands that are in the catalogue in one system, the bluest and
        the reddest), ``"none"``, or two bands, such as ``"g-i"``.

    Returns
    -------
    tuple of str
        The bluer and the redder band; empty for no colour.

    Raises
    ------
    DataredError
        If two bands were named and the catalogue does not have both in one system.
    """
    in_catalogue = [name[4:] for name in stars.colnames if name[4:] in ORDER and name[:4] == "cat_"]
    if colour == "none":
        return ()
    if colour != "auto":
        bands = tuple(colour.split("-"))
        systems = [
            system_of(stars[f"cat_{band}"]) for band in bands if f"cat_{band}" in stars.colnames
        ]
        two = len(bands) == len(set(bands)) == len(systems) == 2
        if not two or systems[0] != systems[1]:
            raise DataredError(
                f"the colour {colour!r} needs two bands of the catalogue in one system; it has "
                f"{', '.join(in_catalogue) or 'no magnitudes'}: choose two of them for "
                "magnitudes.colour, or 'auto' or 'none'"
            )
        return bands
    groups = {}
    for band in {passband(name) for name in filters} & set(in_catalogue):
        groups.setdefault(system_of(stars[f"cat_{band}"]), []).append(band)
    # Most bands, then the name: the same choice on every run.
    for _, bands in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(bands) > 1:
            bands.sort(key=ORDER.index)
            return bands[0], bands[-1]
    return ()


def catalogue_colour(stars, bands, system):
    """Colours of the stars in the catalogue.

    Parameters
    ----------
    stars : astropy.table.Table
        With columns ``cat_<band>``, and ``cat_<band>_err`` where it is known.
    bands : tuple of str
        The bluer and the redder band.
    system : str
        System that is wanted.

    Returns
    -------
    colour, error : numpy.ndarray of float, shape (n_star,)
        NaN where one is missing, or the catalogue has not both bands in this system.
    """
    names = [f"cat_{band}" for band in bands]
    if any(name not in stars.colnames or system_of(stars[name]) != system for name in names):
        return np.full(len(stars), np.nan), np.full(len(stars), np.nan)
    values = [plain_values(stars[f"cat_{band}"]) for band in bands]
    errors = [
        plain_values(stars[name]) if (name := f"cat_{band}_err") in stars.colnames else 0.0
        for band in bands
    ]
    return values[0] - values[1], np.hypot(*errors) + np.zeros(len(stars))
