"""Start models: where the stars of a frame are expected, before all of them are fitted."""

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from scipy.spatial import cKDTree

from datared.projection import design, mean_direction, powers, to_plane

__all__ = ["PlateModel", "common_shift", "linear_start", "search_places", "wcs_start"]


@dataclass
class PlateModel:
    """Plane coordinates (deg) as polynomials of pixel offsets from the middle of the frame.

    Attributes
    ----------
    ra0, dec0 : float
        Where the plane touches the sky (deg).
    order : int
        Order of the polynomial.
    coefficients : numpy.ndarray of float, shape (n_terms, 2)
        Coefficients of `datared.projection.powers`.
    """

    ra0: float
    dec0: float
    order: int
    coefficients: np.ndarray

    def predict(self, pixel):
        """Plane coordinates of pixel offsets.

        Parameters
        ----------
        pixel : numpy.ndarray of float, shape (n, 2)
            Offsets from the middle of the frame.

        Returns
        -------
        numpy.ndarray of float, shape (n, 2)
            Degrees on the plane.
        """
        return design(pixel, self.order) @ self.coefficients

    @property
    def size(self):
        """Degrees per pixel in the middle of the frame."""
        return float(np.sqrt(abs(np.linalg.det(self.coefficients[1:3]))))


def search_places(ra, dec, *, center, radius):
    """Circles in which the middle of a frame is looked for, one after the other.

    Parameters
    ----------
    ra, dec : numpy.ndarray of float, shape (n,)
        Catalogue in degrees.
    center : astropy.coordinates.SkyCoord or None
        Where the middle of the frame should be.
    radius : float
        Expected error of ``center`` in arcsec.

    Returns
    -------
    list of tuple of float
        Right ascension and declination (deg) and radius (arcsec): the circle around ``center``
        if it is known, then one around all of the catalogue unless the first contains it.

    Examples
    --------
    >>> ra, dec = np.array([10.0, 11.0]), np.array([0.0, 0.0])
    >>> for place in search_places(ra, dec, center=SkyCoord(50, 0, unit="deg"), radius=600.0):
    ...     print(*(f"{value:.1f}" for value in place))
    50.0 0.0 600.0
    10.5 0.0 1800.0
    """
    everywhere = mean_direction(ra, dec)
    if center is None:
        return [everywhere]
    # A frame has one middle, whatever the number of positions.
    hint = SkyCoord(np.ravel(center.icrs)[0])
    place = float(hint.ra.deg), float(hint.dec.deg), radius
    if not np.isfinite(place).all():
        return [everywhere]
    apart = hint.separation(SkyCoord(*everywhere[:2], unit="deg")).arcsec
    return [place] if apart + everywhere[2] <= radius else [place, everywhere]


def linear_start(straight, plane, *, ra0, dec0, distortion=None):
    """Linear model through matched stars, bent by a known distortion.

    Parameters
    ----------
    straight : numpy.ndarray of float, shape (n, 2)
        Pixel offsets from the middle of the frame, without the distortion.
    plane : numpy.ndarray of float, shape (n, 2)
        Places of the same stars on the plane (deg).
    ra0, dec0 : float
        Where the plane touches the sky (deg).
    distortion : datared.distortion.Distortion, optional
        Known distortion.

    Returns
    -------
    PlateModel
        The model.
    """
    linear = np.linalg.lstsq(design(straight, 1), plane, rcond=None)[0]
    if distortion is None or distortion.order == 1:
        return PlateModel(ra0, dec0, 1, linear)
    bent = np.vstack([linear, distortion.terms() @ linear[1:]])
    return PlateModel(ra0, dec0, distortion.order, bent)


def wcs_start(wcs, *, shape, distortion=None):
    """Model of an approximate WCS in any projection.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        The WCS.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    distortion : datared.distortion.Distortion, optional
        Known distortion, which replaces that of the WCS.

    Returns
    -------
    PlateModel or None
        The model; None if the WCS is not one of the sky.
    """
    if not wcs.has_celestial:
        return None
    half = (np.array(shape[::-1]) - 1) / 2
    side = np.linspace(-1, 1, 11)
    x, y = (axis.ravel() for axis in np.meshgrid(side * half[0], side * half[1]))
    try:
        sky = wcs.celestial.pixel_to_world(x + half[0], y + half[1]).icrs
        middle = wcs.celestial.pixel_to_world(*half).icrs
    except Exception:  # a broken WCS fails in ways of its own
        return None
    ra0, dec0 = float(middle.ra.deg), float(middle.dec.deg)
    plane = np.column_stack(to_plane(sky.ra.deg, sky.dec.deg, ra0, dec0))
    if not np.isfinite(plane).all():
        return None
    pixel = np.column_stack([x, y])
    if distortion is not None:
        model = linear_start(
            pixel + distortion.displacement(pixel), plane, ra0=ra0, dec0=dec0, distortion=distortion
        )
    else:
        terms = design(pixel / half.max(), 3)
        units = np.array([half.max() ** (p + q) for p, q in powers(3)])
        coefficients = np.linalg.lstsq(terms, plane, rcond=None)[0] / units[:, None]
        model = PlateModel(ra0, dec0, 3, coefficients)
    return model if model.size > 0 else None


def common_shift(model, pixel, plane, *, reach):
    """Shift that most stars agree on.

    Parameters
    ----------
    model : PlateModel
        Where the stars are expected.
    pixel : numpy.ndarray of float, shape (n, 2)
        Pixel offsets of some bright stars from the middle of the frame.
    plane : numpy.ndarray of float, shape (m, 2)
        Catalogue stars on the plane (deg).
    reach : float
        Largest shift in px.

    Returns
    -------
    shift : numpy.ndarray of float, shape (2,)
        To be added to the predicted places on the plane (deg).
    votes : int
        Number of stars that agree to 4 px.
    """
    predicted = model.predict(pixel)
    near = np.flatnonzero(np.isfinite(plane).all(axis=1))
    if not len(near):
        return np.zeros(2), 0
    pairs = cKDTree(predicted).query_ball_tree(cKDTree(plane[near]), reach * model.size)
    lengths = [len(pair) for pair in pairs]
    star = np.repeat(np.arange(len(predicted)), lengths)
    other = near[np.concatenate([np.array(pair, int) for pair in pairs])]
    if not len(other):
        return np.zeros(2), 0
    offset = plane[other] - predicted[star]
    tree = cKDTree(offset)
    votes = tree.query_ball_point(offset, 4.0 * model.size, return_length=True)
    same = tree.query_ball_point(offset[np.argmax(votes)], 4.0 * model.size)
    return offset[same].mean(axis=0), len(np.unique(star[same]))
