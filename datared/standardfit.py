"""Zero point, extinction and colour term of a camera from measurements of standard stars."""

import numpy as np
from astropy.table import Table

from .atmosphere import SITE_ERROR, site_extinction
from .errors import DataredError
from .instrumental import passband, plain_values

__all__ = ["COLOUR_TERMS", "solve_standards"]

#: Published colour terms of cameras, by the card INSTRUME: filter, colour and term in
#: ``m = m_inst + ZP + term * colour``. Nickel: Stahl et al. 2019, MNRAS 490, 3882, in the filters
#: since 2009.
COLOUR_TERMS = {
    "Nickel Direct Camera": {
        "B": ("B-V", -0.041),
        "V": ("B-V", -0.082),
        "R": ("V-R", -0.092),
        "I": ("R-I", 0.043),
    }
}
#: Error of a published colour term: filters age.
PUBLISHED_ERROR = 0.02
#: What is not known: the colour term of a camera without any.
UNKNOWN_ERROR = 0.05
#: What a flat leaves at one place of the frame, and so in the zero point of one star.
FLAT_ERROR = 0.01
#: Extinction is fitted over at least this range of airmass, a colour term over this range of
#: colour and for at least so many stars; and only where the error comes out below the last one.
AIRMASS_RANGE, COLOUR_RANGE, COLOUR_STARS, LARGEST_ERROR = 0.3, 0.5, 4, 0.03
#: Bands from blue to red, the neighbours of which make the colour of a filter.
ORDERS = ("UBVRI", "ugrizy")
_CLIP = 4.0


def solve_standards(measurements, *, height=None, extinction=None, filters=None):
    r"""Fit zero points outside of the atmosphere to measurements of standard stars.

    .. math:: m - m_{inst} = ZP_0 - k X + c \, (m_1 - m_2)

    for each filter by least squares, weighted by the errors and the scatter of a star that is
    found beyond them, without outliers. The extinction k is the given one; else it is fitted where
    the standards cover 0.3 in airmass and its error comes out below 0.03; else it is that of the
    site (`datared.atmosphere.site_extinction`). The colour term c is fitted where four stars cover
    0.5 mag in colour and its error comes out below 0.03; else it is the published one of the
    camera (`COLOUR_TERMS`), else 0. What has no magnitude, error or airmass does not count, nor
    does a star without the colour that others have.

    Parameters
    ----------
    measurements : astropy.table.Table
        One row for each star on each frame: ``file``, ``filter``, ``star``, ``airmass``,
        ``magnitude`` (instrumental) and ``magnitude_err``, ``used`` (bool), the catalogue's
        ``cat_<band>`` and ``cat_<band>_err``, ``camera``.
    height : float, optional
        Height of the site in metres.
    extinction : dict, optional
        Extinction in mag per airmass where it is known, by filter.
    filters : sequence of str, optional
        Filters that the night has, for the colours; those of the measurements by default.

    Returns
    -------
    solution : astropy.table.Table
        See `datared.standards.standard_solution`.
    measurements : astropy.table.Table
        A copy with ``residual``: what the star is fainter in the catalogue than by the fit; and
        with ``used`` False for all that did not count.

    Raises
    ------
    DataredError
        If the extinction is neither given, nor can be fitted, nor the height is known.
    """
    names = np.asarray(measurements["filter"]).astype(str)
    filters = list(dict.fromkeys(names)) if filters is None else list(filters)
    measurements = measurements.copy()
    measurements["residual"] = np.full(len(measurements), np.nan)
    rows = []
    for name in dict.fromkeys(names):
        band = passband(name)
        needed = (f"cat_{band}", "magnitude", "magnitude_err", "airmass")
        good = np.asarray(measurements["used"], bool) & (names == name)
        for column in needed:
            known = column in measurements.colnames
            good &= np.isfinite(plain_values(measurements[column])) if known else False
        colour, index = _colour(measurements, band, [passband(other) for other in filters])
        if np.any(good & np.isfinite(index)):
            good &= np.isfinite(index)
        else:
            colour, index = "", np.zeros(len(measurements))
        measurements["used"][(names == name) & ~good] = False
        here = np.flatnonzero(good)
        if len(here):
            given = (extinction or {}).get(name)
            rows.append(
                _solve(measurements, here, name, band, (colour, index[here]), given, height)
            )
    return Table(rows), measurements


def _solve(measurements, here, name, band, colours, given, height):
    """Solve one filter; write the residuals of its rows into the table."""
    table = measurements[here]
    airmass, stars = plain_values(table["airmass"]), np.asarray(table["star"]).astype(str)
    files = np.asarray(table["file"]).astype(str)
    value = plain_values(table[f"cat_{band}"]) - plain_values(table["magnitude"])
    error = plain_values(table["magnitude_err"])
    if f"cat_{band}_err" in table.colnames:
        error = np.hypot(error, np.nan_to_num(plain_values(table[f"cat_{band}_err"])))
    colour, index = colours
    middle = float(np.mean(airmass))
    fit_k = given is None and np.ptp(airmass) >= AIRMASS_RANGE
    fit_c = len(set(stars)) >= COLOUR_STARS and bool(colour) and np.ptp(index) >= COLOUR_RANGE
    term, term_error, term_source = _published(table, band, colour)
    k, k_error = given, 0.0
    while True:
        columns = [np.ones(len(value))]
        columns += [middle - airmass] if fit_k else []
        columns += [index] if fit_c else []
        rest = value - (0 if fit_c else term * index)
        if not fit_k:
            k, k_error, k_source = _known_extinction(name, band, given, height)
            rest = rest + k * (airmass - middle)
        found, covariance, used, scatter = _least_squares(np.column_stack(columns), rest, error)
        sigma = np.sqrt(np.diag(covariance))
        # What the data cannot tell is taken from elsewhere, the extinction first.
        if fit_k and not sigma[1] < LARGEST_ERROR:
            fit_k = False
        elif fit_c and not sigma[-1] < LARGEST_ERROR:
            fit_c = False
        else:
            break
    if fit_k:
        k, k_error, k_source = float(found[1]), float(sigma[1]), "fitted"
    if fit_c:
        term, term_error, term_source = float(found[-1]), float(sigma[-1]), "fitted"
    residual = rest - np.column_stack(columns) @ found
    measurements["residual"][here] = residual
    measurements["used"][here[~used]] = False
    frames = [np.mean(residual[used & (files == file)]) for file in sorted(set(files[used]))]
    # All stars of a frame share its air and its seeing: frames tell more than stars.
    between = np.std(frames, ddof=1) / np.sqrt(len(frames)) if len(frames) > 1 else 0.0
    zero_error = max(float(sigma[0]), float(between))
    zero_error = float(np.hypot(zero_error, FLAT_ERROR / np.sqrt(len(set(stars[used])))))
    return {
        "filter": name,
        "zero_point_0": float(found[0]) + k * middle,
        "zero_point_0_err": float(np.hypot(zero_error, k_error * middle)),
        "extinction": float(k),
        "extinction_err": k_error,
        "extinction_source": k_source,
        "colour": colour,
        "colour_term": term,
        "colour_term_err": term_error,
        "colour_source": term_source,
        "colour_mean": float(np.mean(index[used])) if colour else np.nan,
        "airmass": middle,
        "zero_point": float(found[0]),
        "zero_point_err": zero_error,
        "scatter": scatter,
        "n_stars": len(set(stars[used])),
        "n_frames": len(frames),
        "n": int(used.sum()),
        "system": str(table[f"cat_{band}"].meta.get("system", "")),
    }


def _colour(table, band, bands):
    """Colour of a filter, of two neighbouring bands of the night, and its values; else 0."""
    order = next((order for order in ORDERS if band in order), "")
    present = [b for b in order if b in bands and f"cat_{b}" in table.colnames]
    if len(present) < 2 or band not in present:
        return "", np.zeros(len(table))
    first = min(present.index(band), len(present) - 2)
    # V is the middle of everything: its colour is B-V, as everywhere in the literature.
    if band == "V" and "B" in present:
        first = present.index("B")
    blue, red = present[first : first + 2]
    return f"{blue}-{red}", plain_values(table[f"cat_{blue}"]) - plain_values(table[f"cat_{red}"])


def _published(table, band, colour):
    """Colour term of the camera from the literature: term, error and source."""
    cameras = set(np.asarray(table["camera"]).astype(str)) if "camera" in table.colnames else set()
    known = COLOUR_TERMS.get(cameras.pop(), {}) if len(cameras) == 1 else {}
    if colour and known.get(band, ("", 0))[0] == colour:
        return known[band][1], PUBLISHED_ERROR, "published"
    return 0.0, UNKNOWN_ERROR if colour else 0.0, "none"


def _known_extinction(name, band, given, height):
    """Extinction that is not fitted: value, error and source."""
    if given is not None:
        return float(given), 0.0, "given"
    if height is None:
        raise DataredError(
            f"the extinction of the air in {name} is not known: the standards cover too little "
            f'airmass to fit it; give [magnitudes] extinction = {{"{name}" = 0.2}}, or [site] with '
            "the height"
        )
    return site_extinction(band, height), SITE_ERROR, "site"


def _least_squares(design, value, error):
    """Coefficients, covariance, rows used and scatter of a star beyond its error."""
    used, scatter = np.ones(len(value), bool), 0.0
    for _ in range(30):
        weight = used / (error**2 + scatter**2 + 1e-8)
        root = np.sqrt(weight)[:, None]
        found = np.linalg.lstsq(design * root, value * root[:, 0], rcond=None)[0]
        residual = value - design @ found
        freedom = used.sum() - design.shape[1]
        if freedom < 1:
            break
        excess = np.sum(weight * residual**2) / freedom - 1
        new = np.sqrt(max(scatter**2 + excess * freedom / np.sum(weight), 0.0))
        width = 1.4826 * np.median(np.abs(residual[used] - np.median(residual[used])))
        limit = _CLIP * np.sqrt(np.maximum(width**2, error**2) + 1e-8)
        # Fewer than ten measurements do not tell which of them is off.
        keep = (np.abs(residual) <= limit) | (used.sum() < 10)
        if abs(new - scatter) < 1e-6 and np.array_equal(keep, used):
            break
        scatter, used = new, keep
    weight = used / (error**2 + scatter**2 + 1e-8)
    covariance = np.linalg.pinv((design * weight[:, None]).T @ design)
    return found, covariance, used, float(scatter)
