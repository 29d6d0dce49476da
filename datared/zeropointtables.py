"""The table of zero points of a night, filled filter by filter from what there is to compare with.

From a catalogue, from a field of standard stars, or, without either, from the epochs themselves.
"""

import numpy as np

from .instrumental import (
    instrumental_magnitude,
    magnitude_error,
    passband,
    plain_values,
    system_of,
)
from .standards import epoch_zero_points
from .zeropointframes import (
    MIN_SIGNALS,
    MIN_STARS,
    catalogue_colour,
    choose_stars,
    solve_filter,
)

__all__ = [
    "INSTRUMENTAL",
    "NOTHING",
    "between_epochs",
    "common_offsets",
    "empty_points",
    "from_catalogue",
    "from_standards",
    "repeated_frames",
]

#: System of magnitudes that are not compared with a catalogue.
INSTRUMENTAL = "instrumental"

#: What a filter without a solution has in place of the numbers of `solve_filter`.
NOTHING = {"common_error": 0.0, "pivot": 0.0}


def empty_points(epochs):
    """Table of zero points without any.

    Parameters
    ----------
    epochs : astropy.table.Table
        Epochs of a night's photometry.

    Returns
    -------
    astropy.table.Table
        See `datared.magnitudes.zero_points`.
    """
    table = epochs["file", "epoch", "filter", "exptime"].copy()
    n = len(table)
    for name in ("zero_point", "error", "frame_error", "scatter"):
        table[name] = np.full(n, np.nan)
    table["n"], table["offset"] = np.zeros(n, int), np.full(n, np.nan)
    table["colour"], table["colour_term"] = np.full(n, "", object), np.zeros(n)
    table["colour_term_err"] = np.full(n, np.nan)
    known = "airmass" in epochs.colnames
    table["airmass"] = plain_values(epochs["airmass"]) if known else np.full(n, np.nan)
    table["system"], table["reason"] = np.full(n, INSTRUMENTAL, object), np.full(n, "", object)
    return table


def from_catalogue(table, epochs, part, stars, bands, method):
    """Write the zero points of one filter into the table, from the catalogue.

    Parameters
    ----------
    table : astropy.table.Table
        From `empty_points`; changed.
    epochs : numpy.ndarray of int
        Rows of the filter.
    part : tuple of numpy.ndarray, shape (n_star, n_epoch)
        Fluxes, errors and flags of these epochs.
    stars : astropy.table.Table
        With columns ``cat_<band>``.
    bands : tuple of str
        Bands of the colour; empty for no colour term.
    method : str
        ``"global"``, ``"median"`` or ``"ransac"``.

    Returns
    -------
    dict of float
        What was found for all epochs together.
    """
    flux, error, flags = part
    band = passband(str(table["filter"][epochs[0]]))
    catalogue = stars[f"cat_{band}"]
    exclude, reason = choose_stars(flux, error, flags, np.isfinite(plain_values(catalogue)))
    system = system_of(catalogue)
    # A colour of another system is no help: its bands are not those of this one.
    index = catalogue_colour(stars, bands, system)[0] if bands else None
    values, numbers = solve_filter(
        instrumental_magnitude(flux, np.asarray(table["exptime"], float)[epochs]),
        magnitude_error(flux, error), stars, band, exclude=exclude,
        airmass=np.asarray(table["airmass"], float)[epochs],
        colour=index, method=method,
    )  # fmt: skip
    for key, value in values.items():
        table[key][epochs] = value
    table["offset"][epochs] = values["zero_point"]
    table["system"][epochs] = system
    with_term = np.isfinite(values["colour_term_err"]).any()
    n_good = np.sum(~exclude & (np.isfinite(index)[:, None] if with_term else True), axis=0)
    for k, text, n in zip(epochs, reason, n_good, strict=True):
        table["colour"][k] = "-".join(bands) if with_term else ""
        if np.isnan(table["zero_point"][k]):
            text = f"only {n} stars of the catalogue, {MIN_STARS} are needed"
        table["reason"][k] = text
    return numbers


def between_epochs(table, epochs, part):
    """Write offsets that bring the epochs of one filter to a common level: no zero point.

    Parameters
    ----------
    table : astropy.table.Table
        From `empty_points`; changed.
    epochs : numpy.ndarray of int
        Rows of the filter.
    part : tuple of numpy.ndarray, shape (n_star, n_epoch)
        Fluxes, errors and flags of these epochs.

    Returns
    -------
    dict of float
        `NOTHING`.
    """
    flux, error, flags = part
    with np.errstate(invalid="ignore"):
        exclude = (flags != 0) | ~(flux > MIN_SIGNALS[-1] * error)
    magnitude = instrumental_magnitude(flux, np.asarray(table["exptime"], float)[epochs])
    table["offset"][epochs] = common_offsets(magnitude, exclude)
    table["system"][epochs], table["colour"][epochs] = INSTRUMENTAL, ""
    table["colour_term"][epochs], table["colour_term_err"][epochs] = 0.0, np.nan
    for k in epochs:
        text = f"no {passband(str(table['filter'][k]))} magnitudes in the catalogue"
        table["reason"][k] = table["reason"][k] or text
    return dict(NOTHING)


def from_standards(table, photometry, standards, radius, repeats):
    """Write the zero points that a field of standard stars gives into the table.

    Parameters
    ----------
    table : astropy.table.Table
        Of all epochs; changed where the standards have the filter.
    photometry : datared.forced.Photometry
        Measurements.
    standards : astropy.table.Table
        Result of `datared.standards.standard_solution`.
    radius : int
        Index of the aperture.
    repeats : dict
        Epochs to leave out, see `repeated_frames`.

    Returns
    -------
    dict of dict
        For each of these filters what was found for all epochs together.
    """
    points, numbers = epoch_zero_points(photometry, standards, radius=radius), {}
    rows = {str(row["filter"]): row for row in standards}
    names = np.asarray(table["filter"]).astype(str)
    solved = set(names[np.isfinite(np.asarray(points["zero_point"], float))])
    for k, name in enumerate(names):
        if k in repeats or name not in solved:
            continue
        # Also of an epoch that the standards do not reach nothing of the catalogue may stay:
        # magnitudes of two systems would meet in one mean.
        table["scatter"][k] = np.nan
        for key in ("zero_point", "error", "n", "colour", "colour_term", "colour_term_err"):
            table[key][k] = points[key][k]
        table["offset"][k] = points["zero_point"][k]
        table["system"][k], table["reason"][k] = points["system"][k], points["reason"][k]
        if not np.isfinite(points["zero_point"][k]):
            table["frame_error"][k] = np.nan
            continue
        # What the standards do not know is the same for all epochs; the rest is the aperture's.
        common = float(points["common_error"][k])
        table["frame_error"][k] = np.sqrt(max(float(points["error"][k]) ** 2 - common**2, 0.0))
        numbers[str(name)] = {"common_error": common, "pivot": float(points["pivot"][k])}
        for key in ("extinction", "extinction_err", "zero_point_0", "zero_point_0_err"):
            numbers[str(name)][key] = float(rows[name][key])
    return numbers


def common_offsets(magnitude, exclude):
    """Offsets that bring the epochs of one filter to a common level.

    ``-c(t)`` with ``c(t) = median_k [m_k(t) - median_t m_k]``, in the median over the epochs zero.

    Parameters
    ----------
    magnitude : numpy.ndarray of float, shape (n_star, n_epoch)
        Magnitudes.
    exclude : numpy.ndarray of bool, shape (n_star, n_epoch)
        Measurements not to use.

    Returns
    -------
    numpy.ndarray of float, shape (n_epoch,)
        To be added; NaN for an epoch without a star.
    """
    magnitude = np.ma.masked_invalid(np.where(exclude, np.nan, magnitude))
    # A star seen in a few epochs only has another median: the common stars come first.
    seen = magnitude.count(axis=1)
    common = magnitude[seen == seen.max()] if seen.size and seen.max() > 0 else magnitude[:0]
    if not len(common):
        return np.full(magnitude.shape[1], 0.0 if magnitude.shape[1] == 1 else np.nan)
    change = common - np.ma.median(common, axis=1, keepdims=True)
    offset = -np.ma.median(change, axis=0).filled(np.nan)
    return offset - np.nanmedian(offset)


def repeated_frames(flux, epochs):
    """Find frames that are in a night twice, such as a copy in another folder.

    Parameters
    ----------
    flux : numpy.ndarray of float, shape (n_star, n_epoch)
        Fluxes: noise is never the same twice.
    epochs : astropy.table.Table
        ``filter`` and ``exptime`` of each epoch.

    Returns
    -------
    dict of int to int
        For each epoch that repeats an earlier one, the earlier one.
    """
    first, repeats = {}, {}
    for k in range(flux.shape[1]):
        if np.isfinite(flux[:, k]).any():
            key = (str(epochs["filter"][k]), float(epochs["exptime"][k]), flux[:, k].tobytes())
            if first.setdefault(key, k) != k:
                repeats[k] = first[key]
    return repeats
