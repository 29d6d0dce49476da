"""Plate fit: all stars of a frame matched with the catalogue and fitted, round after round."""

from dataclasses import dataclass

import numpy as np

from datared.errors import SolveError
from datared.patterns import MOST_STRETCH, judge, mutual_matches
from datared.projection import best_order, design, from_plane, to_plane
from datared.sources import EDGE, SATURATED

__all__ = [
    "Matches",
    "StarList",
    "chance_odds",
    "corner_error",
    "fit_plate",
    "plate_residuals",
    "star_catalogue",
    "star_list",
]

#: Error of a position that no centroid beats (px): pixel response and catalogue.
ERROR_FLOOR = 0.03

#: Stars with a larger centroid error (px) do not take part in the fit if `ENOUGH` better do.
USEFUL_ERROR, ENOUGH = 0.12, 40


@dataclass(frozen=True)
class StarList:
    """Stars of a frame, brightest first.

    Attributes
    ----------
    rows : numpy.ndarray of int, shape (n,)
        Rows of the list of sources.
    pixel : numpy.ndarray of float, shape (n, 2)
        Offsets from the middle of the frame in px.
    error : numpy.ndarray of float, shape (n,)
        Error of a centroid along one axis in px.
    clean : numpy.ndarray of bool, shape (n,)
        Neither saturated nor at the edge.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    """

    rows: np.ndarray
    pixel: np.ndarray
    error: np.ndarray
    clean: np.ndarray
    shape: tuple[int, int]


@dataclass(frozen=True)
class Matches:
    """Stars of a frame that were found in the catalogue.

    Attributes
    ----------
    star, catalogue : numpy.ndarray of int, shape (n,)
        Rows of the star list and of the catalogue, ordered by ``star``.
    good, used : numpy.ndarray of bool, shape (n,)
        Could take part in the fit; took part in it.
    """

    star: np.ndarray
    catalogue: np.ndarray
    good: np.ndarray
    used: np.ndarray


def star_list(sources, shape):
    """Order the detected stars of a frame by brightness and tell how good each is.

    Parameters
    ----------
    sources : astropy.table.Table
        Detected stars, as for `datared.solver.solve_frame`.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.

    Returns
    -------
    StarList
        Stars with a position and a flux.
    """
    xy = np.column_stack([_values(sources[name]) for name in ("x", "y")]).reshape(-1, 2)
    flux = _values(sources["flux"])
    rows = np.flatnonzero(np.isfinite(xy).all(axis=1) & np.isfinite(flux))
    rows = rows[np.argsort(-flux[rows], kind="stable")]
    middle = (np.array(shape[::-1]) - 1) / 2
    error = np.full(len(rows), ERROR_FLOOR)
    if {"snr", "fwhm"} <= set(sources.colnames):
        snr, width = (_values(sources[name])[rows] for name in ("snr", "fwhm"))
        known = np.isfinite(width)
        # What is not known is a usual width, and the error of a faint star.
        width = np.where(known, width, np.median(width[known]) if known.any() else 3.0)
        error = np.hypot(ERROR_FLOOR, 0.6 * width / np.maximum(np.nan_to_num(snr), 0.1))
    clean = np.ones(len(rows), bool)
    if "flags" in sources.colnames:
        clean = (np.ma.filled(sources["flags"], 0)[rows] & (EDGE | SATURATED)) == 0
    return StarList(rows, xy[rows] - middle, error, clean, tuple(shape))


def star_catalogue(catalogue):
    """Order the stars of a catalogue by brightness.

    Parameters
    ----------
    catalogue : astropy.table.Table
        Reference stars, as for `datared.solver.solve_frame`.

    Returns
    -------
    ra, dec : numpy.ndarray of float, shape (n,)
        Positions (deg), brightest first.
    rows : numpy.ndarray of int, shape (n,)
        Their rows.
    """
    ra, dec = (_values(catalogue[name]) for name in ("ra", "dec"))
    magnitude = np.full(len(ra), 99.0)
    for name in ("r", "G", "g", "V", "VT", "i"):
        if name in catalogue.colnames and np.isfinite(_values(catalogue[name])).any():
            magnitude = np.nan_to_num(_values(catalogue[name]), nan=99.0)
            break
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    rows = rows[np.argsort(magnitude[rows], kind="stable")]
    return ra[rows], dec[rows], rows


def fit_plate(model, stars, ra, dec, *, sip_order=None, distortion=None, radius=6.0):
    """Match all stars and fit, again and again, with a smaller radius each time.

    Parameters
    ----------
    model : datared.startmodels.PlateModel
        Where to start; it is changed into the fit.
    stars : StarList
        Stars of the frame.
    ra, dec : numpy.ndarray of float, shape (m,)
        Catalogue in degrees.
    sip_order : int, optional
        Order of the frame's own distortion; by cross-validation where it is not given.
    distortion : datared.distortion.Distortion, optional
        Known distortion: then only the linear part is fitted.
    radius : float
        Largest distance of a match in px in the first round.

    Returns
    -------
    Matches
        The matches of the last round.

    Raises
    ------
    SolveError
        If the matches fall apart.
    """
    pixel, error = stars.pixel, stars.error
    straight = pixel if distortion is None else pixel + distortion.displacement(pixel)
    near = 0.75 * np.hypot(*stars.shape)
    around = _around(model, ra, dec, 2.0 * near)
    _grow(model, pixel, ra[around], dec[around], radius)
    radius = min(radius, 6.0)
    for round_ in range(8):
        plane = np.column_stack(to_plane(ra[around], dec[around], model.ra0, model.dec0))
        size = model.size
        inside = np.flatnonzero(np.hypot(*plane.T) < near * size)
        i, j = mutual_matches(model.predict(pixel), plane[inside], radius * size)
        j = inside[j]
        good = _useful(error[i], stars.clean[i])
        if np.count_nonzero(good) < 4:
            raise SolveError(f"only {len(i)} stars match; 4 are needed")
        weight = 1 / (error[i[good]] * size)
        if distortion is None:
            fit = best_order(pixel[i[good]], plane[j[good]], weight, sip_order)
        else:
            fit = best_order(straight[i[good]], plane[j[good]], weight, 1)
        coefficients, used, order = fit
        stretch = np.linalg.svd(coefficients[1:3], compute_uv=False)
        if not stretch[0] < MOST_STRETCH * stretch[1]:
            raise SolveError("the stars that match do not fix the scale in both directions")
        if distortion is not None and distortion.order > 1:
            order = distortion.order
            coefficients = np.vstack([coefficients, distortion.terms() @ coefficients[1:3]])
        # Where the middle of the frame falls is where the plane touches the sky next.
        shift = np.hypot(*coefficients[0]) / size
        model.ra0, model.dec0 = map(float, from_plane(*coefficients[0], model.ra0, model.dec0))
        coefficients[0] = 0.0
        same = order == model.order
        model.order, model.coefficients = order, coefficients
        rest = plate_residuals(model, pixel[i], plane[j])[good][used]
        smaller = float(np.clip(6 * np.median(np.hypot(*rest.T)), 1.0, 6.0))
        if round_ > 0 and same and shift < 1e-3 and smaller == radius:
            break
        radius = smaller
    flags = np.zeros(len(i), bool)
    flags[np.flatnonzero(good)[used]] = True
    return Matches(i, around[j], good, flags)


def plate_residuals(model, pixel, plane):
    """Measured minus predicted positions in pixels, by the linear part of the model.

    Parameters
    ----------
    model : datared.startmodels.PlateModel
        The fit.
    pixel, plane : numpy.ndarray of float, shape (n, 2)
        Pixel offsets of stars and their places on the plane.

    Returns
    -------
    numpy.ndarray of float, shape (n, 2)
        Residuals in x and y.
    """
    return (model.predict(pixel) - plane) @ np.linalg.inv(model.coefficients[1:3])


def chance_odds(model, matches, stars, ra, dec, *, n_fitted):
    """Odds of a fit against chance, from the brighter stars of the frame.

    Parameters
    ----------
    model : datared.startmodels.PlateModel
        The fit.
    matches : Matches
        Its matches.
    stars : StarList
        Stars of the frame.
    ra, dec : numpy.ndarray of float, shape (m,)
        Catalogue in degrees.
    n_fitted : int
        Number of stars that the fit takes for itself.

    Returns
    -------
    float
        Natural logarithm of the odds (`datared.patterns.log_odds`).
    """
    around = _around(model, ra, dec, 0.75 * np.hypot(*stars.shape))
    plane = np.column_stack(to_plane(ra[around], dec[around], model.ra0, model.dec0))
    n_bright = min(len(stars.pixel), max(110, 2 * len(matches.star)))
    bright = matches.star < n_bright
    return judge(
        model.predict(stars.pixel[:n_bright]), plane, matches.star[bright],
        np.searchsorted(around, matches.catalogue[bright]), size=stars.shape[::-1],
        scale=model.size, n_fitted=n_fitted,
    )  # fmt: skip


def corner_error(matches, stars, order, rms):
    """Error that a fit has in the worst corner of the frame.

    Parameters
    ----------
    matches : Matches
        Matches of the fit.
    stars : StarList
        Stars of the frame.
    order : int
        Order of the polynomial that was fitted.
    rms : float
        Root mean square residual of the stars used (px).

    Returns
    -------
    float
        One sigma in px: the residual times the square root of the corner's leverage. It is large
        where all matched stars lie on one side, or follow the catalogue there only.
    """
    half = (np.array(stars.shape[::-1]) - 1) / 2
    used = matches.star[matches.used]
    terms = design(stars.pixel[used] / half, order) / stars.error[used, None]
    corners = design(np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], float), order)
    inverse = np.linalg.pinv(terms.T @ terms, rcond=1e-13, hermitian=True)
    leverage = np.einsum("ij,jk,ik->i", corners, inverse, corners)
    return float(rms * np.sqrt(leverage.max() / np.mean(stars.error[used] ** 2)))


def _grow(model, pixel, ra, dec, radius):
    """Correct a model by a linear step as long as that matches more stars.

    Where a start is right on one side only, a polynomial through the stars there would bend away
    from the others; a line comes closer to them.
    """
    plane = np.column_stack(to_plane(ra, dec, model.ra0, model.dec0))
    plane = plane[np.isfinite(plane).all(axis=1)]
    size, most = model.size, 0
    for _ in range(20):
        predicted = model.predict(pixel)
        i, j = mutual_matches(predicted, plane, radius * size)
        if len(i) < 4 or len(i) <= most:
            break
        most = len(i)
        start, end = predicted[i], plane[j]
        far = np.hypot(*(end - start - np.median(end - start, axis=0)).T)
        near = far <= max(3 * np.median(far), 0.1 * size)
        terms = np.column_stack([np.ones(len(i)), start / size])[near]
        step = np.linalg.lstsq(terms, end[near], rcond=None)[0]
        linear = step[1:] / size
        model.coefficients = model.coefficients @ linear
        model.coefficients[0] += step[0]


def _around(model, ra, dec, pixels):
    """Rows of the catalogue within a distance of the middle of the frame."""
    d, d0 = np.radians(dec), np.radians(model.dec0)
    # Half the chord squared: no loss of digits at small distances, and no trap at the pole.
    chord = np.sin((d - d0) / 2) ** 2
    chord += np.cos(d) * np.cos(d0) * np.sin(np.radians(ra - model.ra0) / 2) ** 2
    return np.flatnonzero(chord < np.sin(min(np.radians(pixels * model.size), 1.5) / 2) ** 2)


def _values(column):
    """Column as plain floats; NaN where it is masked."""
    return np.where(getattr(column, "mask", False), np.nan, np.array(column, float))


def _useful(error, clean):
    """Stars for the fit: clean ones with good centroids, or the best of them if these are few."""
    good = clean if np.count_nonzero(clean) >= 6 else np.ones(len(clean), bool)
    ranked = np.sort(error[good])
    limit = max(USEFUL_ERROR, ranked[min(ENOUGH, len(ranked)) - 1]) if len(ranked) else 0.0
    return good & (error <= limit)
