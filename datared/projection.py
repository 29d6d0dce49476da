"""Projection: from pixels to the plane that touches the sky, to the sky itself, and back.

Plane coordinates are polynomials of the pixel offsets from the middle of the frame; the linear
terms are scale, rotation and parity, the higher ones are distortion.
"""

import numpy as np
from astropy.wcs import WCS, Sip

__all__ = [
    "best_order",
    "build_wcs",
    "design",
    "from_plane",
    "least_squares",
    "mean_direction",
    "powers",
    "to_plane",
]

#: Stars needed for each coefficient and axis of a distortion polynomial.
STARS_PER_TERM = 4
#: A higher order must lower the cross-validated residual by this factor.
GAIN_NEEDED = 0.93


def to_plane(ra, dec, ra0, dec0):
    r"""Gnomonic projection (TAN): where stars lie on the plane that touches the sky at a point.

    .. math:: \xi = \frac{\cos\delta \sin(\alpha - \alpha_0)}{c}, \quad
              \eta = \frac{\cos\delta_0 \sin\delta - \sin\delta_0 \cos\delta
              \cos(\alpha - \alpha_0)}{c}

    with c the cosine of the distance from the point (Calabretta & Greisen 2002, A&A 395, 1077).

    Parameters
    ----------
    ra, dec : array-like of float
        Positions in degrees.
    ra0, dec0 : float
        The point in degrees.

    Returns
    -------
    xi, eta : numpy.ndarray of float
        Degrees, towards east and north; NaN for stars 90 degrees away or more.

    Examples
    --------
    >>> xi, eta = to_plane([10.0, 10.1], [60.0, 60.0], 10.0, 60.0)
    >>> round(float(xi[1]), 4)
    0.05
    """
    a, d = np.radians(np.asarray(ra, float) - ra0), np.radians(np.asarray(dec, float))
    d0 = np.radians(dec0)
    c = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    c = np.where(c > 1e-6, c, np.nan)
    xi = np.cos(d) * np.sin(a) / c
    eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / c
    return np.degrees(xi), np.degrees(eta)


def from_plane(xi, eta, ra0, dec0):
    """Inverse of `to_plane`.

    Parameters
    ----------
    xi, eta : array-like of float
        Plane coordinates in degrees.
    ra0, dec0 : float
        The point where the plane touches the sky, in degrees.

    Returns
    -------
    ra, dec : numpy.ndarray of float
        Degrees; ``ra`` from 0 to 360.
    """
    xi, eta = np.radians(np.asarray(xi, float)), np.radians(np.asarray(eta, float))
    d0 = np.radians(dec0)
    down = np.cos(d0) - eta * np.sin(d0)
    ra = (ra0 + np.degrees(np.arctan2(xi, down))) % 360.0
    dec = np.degrees(np.arctan2(np.sin(d0) + eta * np.cos(d0), np.hypot(xi, down)))
    return ra, dec


def mean_direction(ra, dec):
    """Mean direction of positions on the sky; right ascension 0 and the poles are no trap.

    Parameters
    ----------
    ra, dec : numpy.ndarray of float, shape (n,)
        Positions in degrees.

    Returns
    -------
    ra0, dec0 : float
        The mean direction in degrees.
    extent : float
        Largest distance of a position from it in arcsec.

    Examples
    --------
    >>> ra0, dec0, extent = mean_direction(np.array([359.0, 1.0]), np.array([0.0, 0.0]))
    >>> abs(round((ra0 + 180) % 360 - 180, 9)), dec0, round(extent)
    (0.0, 0.0, 3600)
    """
    a, d = np.radians(ra), np.radians(dec)
    vectors = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    mean = vectors.mean(axis=1)
    mean /= np.linalg.norm(mean)
    chord = np.linalg.norm(vectors - mean[:, None], axis=0).max()
    extent = np.degrees(2 * np.arcsin(min(chord / 2, 1.0))) * 3600
    ra0, dec0 = np.arctan2(mean[1], mean[0]), np.arctan2(mean[2], np.hypot(mean[0], mean[1]))
    return float(np.degrees(ra0)) % 360, float(np.degrees(dec0)), float(extent)


def powers(order):
    """Exponents (p, q) of the polynomial's terms: the constant, then by rising order.

    Parameters
    ----------
    order : int
        Order of the polynomial.

    Returns
    -------
    list of tuple of int
        Exponents of x and y.

    Examples
    --------
    >>> powers(2)
    [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    """
    return [(n - q, q) for n in range(order + 1) for q in range(n + 1)]


def design(pixel, order):
    """Matrix of the terms x^p y^q.

    Parameters
    ----------
    pixel : numpy.ndarray of float, shape (n, 2)
        Pixel offsets.
    order : int
        Order of the polynomial.

    Returns
    -------
    numpy.ndarray of float, shape (n, n_terms)
        One column for each of `powers`.
    """
    x, y = pixel.T
    return np.column_stack([x**p * y**q for p, q in powers(order)])


def least_squares(terms, values, weight):
    """Weighted linear least squares by the normal equations, with the leverage of each row.

    The columns should be of order one; a combination of columns that the rows do not determine
    gets no part in the result.

    Parameters
    ----------
    terms : numpy.ndarray of float, shape (n, n_terms)
        Matrix of the terms.
    values : numpy.ndarray of float, shape (n, 2)
        What is fitted.
    weight : numpy.ndarray of float, shape (n,)
        Inverse errors.

    Returns
    -------
    coefficients : numpy.ndarray of float, shape (n_terms, 2)
        The fit.
    leverage : numpy.ndarray of float, shape (n,)
        Share of each row in its own prediction, 0 to 1.
    """
    weighted = terms * weight[:, None]
    # A few terms: the inverse of a small matrix is faster than a decomposition of a long one.
    inverse = np.linalg.pinv(weighted.T @ weighted, rcond=1e-13, hermitian=True)
    half = weighted @ inverse
    coefficients = half.T @ (values * weight[:, None])
    return coefficients, np.einsum("ij,ij->i", half, weighted)


def _clipped_fit(terms, plane, weight):
    """Fit without outliers; return coefficients, used stars and each star's misfit in sigma.

    The misfit is that of the prediction without the star itself.
    """
    keep = np.ones(len(terms), bool)
    for _ in range(10):
        used = keep
        coefficients, leverage = least_squares(terms[used], plane[used], weight[used])
        distance = weight * np.hypot(*(plane - terms @ coefficients).T)
        # The median of a Rayleigh distribution is 1.177 sigma of one axis.
        limit = 4.5 * np.median(distance[used]) / 1.177
        keep = distance <= max(limit, 1e-12)
        if np.count_nonzero(keep) < 1.5 * terms.shape[1] or np.array_equal(keep, used):
            break
    distance[used] /= 1 - np.minimum(leverage, 0.95)
    return coefficients, used, distance


def best_order(pixel, plane, weight, sip_order):
    """Fit polynomials of several orders and choose by cross-validation.

    Every star is predicted by a fit without it. The order with the smallest root mean square of
    these misfits wins, a lower one if a higher one is hardly better. Misfits count up to the
    clipping limit of the best order, so that no order gains by clipping what it cannot fit.

    Parameters
    ----------
    pixel : numpy.ndarray of float, shape (n, 2)
        Pixel offsets from the middle of the frame.
    plane : numpy.ndarray of float, shape (n, 2)
        Plane coordinates of the same stars.
    weight : numpy.ndarray of float, shape (n,)
        Inverse errors in the unit of the plane.
    sip_order : int or None
        The order to take; lowered only if there are not stars for it.

    Returns
    -------
    coefficients : numpy.ndarray of float, shape (n_terms, 2)
        Coefficients of `powers`.
    used : numpy.ndarray of bool, shape (n,)
        Stars that were not clipped.
    order : int
        The order.
    """
    if sip_order is not None:
        orders = [max(1, int(sip_order))]
        while orders[0] > 1 and len(pixel) < 2 * len(powers(orders[0])):
            orders[0] -= 1
    else:
        orders = [1] + [n for n in (2, 3, 4) if len(pixel) >= STARS_PER_TERM * len(powers(n))]
    # Offsets in units of about half the frame keep the columns comparable.
    unit = float(np.abs(pixel).max())
    terms = design(pixel / unit, orders[-1])
    fits = [_clipped_fit(terms[:, : len(powers(order))], plane, weight) for order in orders]
    limit = max(4.5 * min(np.median(misfit) for _, _, misfit in fits) / 1.177, 1e-12)
    scores = [np.sqrt(np.mean(np.minimum(misfit, limit) ** 2)) for _, _, misfit in fits]
    best = 0
    for k in range(1, len(orders)):
        if scores[k] < GAIN_NEEDED * scores[best]:
            best = k
    order = orders[best]
    units = np.array([unit ** (p + q) for p, q in powers(order)])
    return fits[best][0] / units[:, None], fits[best][1], order


def build_wcs(coefficients, order, *, ra0, dec0, shape):
    """Write polynomial plane coordinates as a WCS with SIP terms and their inverse.

    The linear terms are the CD matrix; the others, taken back into pixels by its inverse, are the
    SIP polynomials A and B (Shupe et al. 2005, ASPC 347, 491). AP and BP are fitted over the
    frame on a grid.

    Parameters
    ----------
    coefficients : numpy.ndarray of float, shape (n_terms, 2)
        Plane coordinates (deg) of x^p y^q, x and y in pixels from the middle of the frame, in
        the order 1, x, y, x2, xy, y2, ...; the first row is zero.
    order : int
        Order of the polynomial.
    ra0, dec0 : float
        Sky position of the middle of the frame in degrees.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.

    Returns
    -------
    astropy.wcs.WCS
        TAN for order 1, else TAN-SIP; ICRS.
    """
    middle = (np.array(shape[::-1]) - 1) / 2
    wcs = WCS(naxis=2)
    wcs.wcs.crpix = middle + 1
    wcs.wcs.crval = [ra0, dec0]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    cd = coefficients[1:3].T
    wcs.wcs.cd = cd
    wcs.pixel_shape = tuple(shape[::-1])
    if order == 1:
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.set()
        return wcs
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    forward = np.zeros((2, order + 1, order + 1))
    terms = coefficients @ np.linalg.inv(cd).T
    for (p, q), term in zip(powers(order)[3:], terms[3:], strict=True):
        forward[:, p, q] = term
    # The inverse is fitted a little beyond the frame, one order higher, for it is no polynomial.
    axes = [np.linspace(-0.55, 0.55, 25) * n for n in shape[::-1]]
    pixel = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    linear = pixel + design(pixel, order)[:, 3:] @ terms[3:]
    unit = float(np.abs(linear).max())
    back, _ = least_squares(design(linear / unit, order + 1), pixel - linear, np.ones(len(pixel)))
    inverse = np.zeros((2, order + 2, order + 2))
    for (p, q), term in zip(powers(order + 1), back, strict=True):
        inverse[:, p, q] = term / unit ** (p + q)
    wcs.sip = Sip(*forward, *inverse, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs
