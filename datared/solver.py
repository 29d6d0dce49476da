"""Solver: the plate solution of one frame, from its list of stars and a catalogue."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS

from datared.errors import SolveError
from datared.patterns import MIN_LOG_ODDS, find_pattern, judge, mutual_matches
from datared.projection import best_order, build_wcs, design, from_plane, powers, to_plane
from datared.sources import EDGE, SATURATED

__all__ = ["Solution", "solve_frame"]

#: Error of a position that no centroid beats (px): pixel response and catalogue.
ERROR_FLOOR = 0.03
#: Stars with a larger centroid error (px) do not take part in the fit if `ENOUGH` better do.
USEFUL_ERROR, ENOUGH = 0.06, 40


@dataclass(frozen=True)
class Solution:
    """Plate solution of one frame.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        TAN projection, with SIP distortion where ``order`` is above 1.
    matched : astropy.table.Table
        One row per matched star: ``source`` and ``catalogue`` (rows of the two lists), ``x``,
        ``y`` (px, measured), ``ra``, ``dec`` (deg, catalogue), ``dx``, ``dy`` (px, measured minus
        predicted) and ``used`` (took part in the fit).
    rms_px, rms_arcsec : float
        Root mean square length of the residuals of the stars used.
    n_matched : int
        Number of matched stars.
    scale : float
        Arcsec per pixel in the middle of the frame.
    rotation : float
        Position angle, north through east, of the frame's y axis in degrees, -180 to 180.
    mirrored : bool
        True if the frame shows the sky as in a mirror.
    order : int
        Order of the distortion polynomial; 1 is none.
    log_odds : float
        Natural logarithm of the odds against a chance alignment.
    """

    wcs: WCS
    matched: Table
    rms_px: float
    rms_arcsec: float
    n_matched: int
    scale: float
    rotation: float
    mirrored: bool
    order: int
    log_odds: float


def solve_frame(
    sources,
    catalogue,
    *,
    shape,
    center,
    scale,
    search_radius=30 * u.arcmin,
    scale_tolerance=0.1,
    sip_order=None,
):
    """Find where a frame points, from its stars and a catalogue; no network is needed.

    The pattern of the brighter stars is looked for among the catalogue's
    (`datared.patterns.find_pattern`; any rotation, either parity) and refused unless the odds
    against chance are a billion to one. Then all stars are matched and a TAN projection with a
    distortion polynomial is fitted.

    Parameters
    ----------
    sources : astropy.table.Table
        Detected stars: ``x``, ``y`` (px, 0-based), ``flux``; ``snr``, ``fwhm`` and ``flags``
        where known.
    catalogue : astropy.table.Table
        Reference stars at the epoch of the frame: ``ra``, ``dec`` (deg) and magnitudes, as from
        `datared.catalogs.read_catalogue`.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    center : astropy.coordinates.SkyCoord or None
        Where the middle of the frame should be; None is the middle of the catalogue.
    scale : astropy.units.Quantity or float
        Expected size of a pixel; a bare number is in arcsec.
    search_radius : astropy.units.Quantity or float
        Expected error of ``center``; a bare number is in arcmin. Where nothing is found within
        it, all of the catalogue is searched.
    scale_tolerance : float
        Largest relative error of ``scale``.
    sip_order : int, optional
        Order of the distortion (1: none); chosen by cross-validation where it is not given.

    Returns
    -------
    Solution
        The solution and its residuals.

    Raises
    ------
    SolveError
        If no solution is sure enough; the message says what was tried.

    Examples
    --------
    >>> rng = np.random.default_rng(4)
    >>> stars = Table({"ra": 150 + rng.uniform(-0.2, 0.2, 60), "dec": rng.uniform(-0.2, 0.2, 60)})
    >>> xi, eta = to_plane(stars["ra"], stars["dec"], 150.0, 0.0)
    >>> found = Table({"x": 300 - xi * 1800, "y": 200 + eta * 1800, "flux": np.ones(60)})
    >>> solution = solve_frame(found, stars, shape=(401, 601), scale=1.9,
    ...                        center=SkyCoord(150.05, 0.03, unit="deg"))
    >>> round(solution.scale, 3), abs(round(solution.rotation, 2)), solution.mirrored
    (2.0, 0.0, False)
    """
    scale = u.Quantity(scale, u.arcsec).value
    radius = u.Quantity(search_radius, u.arcmin).to_value(u.arcsec)
    if not scale > 0 or not radius > 0:
        raise ValueError(f"scale {scale} and search_radius {search_radius} must be positive")
    order_by_flux, pixel, error, clean = _star_list(sources, shape)
    ra, dec, rows = _star_catalogue(catalogue)
    stars = "1 star" if len(pixel) == 1 else f"{len(pixel)} stars"
    tried = f"{stars} in the frame, {len(ra)} in the catalogue"
    if min(len(pixel), len(ra)) < 5:
        raise SolveError(f"{tried}: too few to recognise a pattern, 5 are needed in each")
    ra0, dec0, extent = _middle(ra, dec)
    if center is not None and np.isfinite(center.ra.deg) and np.isfinite(center.dec.deg):
        ra0, dec0 = float(np.ravel(center.icrs.ra.deg)[0]), float(np.ravel(center.icrs.dec.deg)[0])
    else:
        radius = extent
    plane = np.column_stack(to_plane(ra, dec, ra0, dec0)) * 3600
    seen = np.isfinite(plane).all(axis=1)
    pattern = None
    # A hint that is more wrong than it was said to be still leaves the rest of the catalogue.
    for reach in sorted({radius, max(radius, extent)}):
        pattern = pattern or find_pattern(
            pixel, plane[seen], size=shape[::-1], scale=scale, search_radius=reach,
            scale_tolerance=scale_tolerance,
        )  # fmt: skip
    if pattern is None:
        raise SolveError(
            f"{tried}: no pattern in common around RA {ra0:.3f} Dec {dec0:.3f} deg at "
            f'{scale:.3f}"/px +- {scale_tolerance:.0%}. Check that the frame has stars, then the '
            "pointing, pixel_scale, and that the catalogue covers the field"
        )
    # The plane moves to the middle of the frame; near the pole that turns its axes.
    ra1, dec1 = from_plane(*(pattern.affine[0] / 3600), ra0, dec0)
    same = np.flatnonzero(seen)[pattern.catalogue]
    there = np.column_stack(to_plane(ra[same], dec[same], ra1, dec1))
    linear = np.linalg.lstsq(design(pixel[pattern.detected], 1), there, rcond=None)[0]
    model = _Model(float(ra1), float(dec1), 1, linear)
    matched = _fit(model, pixel, error, clean, ra, dec, shape, sip_order)
    solution = _solution(model, matched, pixel, ra, dec, order_by_flux, rows, shape)
    if solution.log_odds < MIN_LOG_ODDS:
        raise SolveError(
            f"{tried}: a pattern was found but the fit to all stars did not confirm it"
        )
    return solution


@dataclass
class _Model:
    """Plane coordinates (deg) as polynomials of pixel offsets from the middle of the frame."""

    ra0: float
    dec0: float
    order: int
    coefficients: np.ndarray

    def predict(self, pixel):
        return design(pixel, self.order) @ self.coefficients


def _star_list(sources, shape):
    """Rows by flux, pixel offsets from the middle, centroid errors (px), and clean stars."""
    xy = np.column_stack([np.asarray(sources[name], float) for name in ("x", "y")]).reshape(-1, 2)
    flux = np.asarray(sources["flux"], float)
    rows = np.flatnonzero(np.isfinite(xy).all(axis=1) & np.isfinite(flux))
    rows = rows[np.argsort(-flux[rows], kind="stable")]
    middle = (np.array(shape[::-1]) - 1) / 2
    error = np.full(len(rows), ERROR_FLOOR)
    if {"snr", "fwhm"} <= set(sources.colnames):
        snr, width = (np.asarray(sources[name], float)[rows] for name in ("snr", "fwhm"))
        width = np.where(np.isfinite(width), width, np.nanmedian(width) if len(rows) else 1.0)
        error = np.hypot(ERROR_FLOOR, 0.6 * width / np.maximum(snr, 0.1))
    clean = np.ones(len(rows), bool)
    if "flags" in sources.colnames:
        clean = (np.asarray(sources["flags"])[rows] & (EDGE | SATURATED)) == 0
    return rows, xy[rows] - middle, error, clean


def _star_catalogue(catalogue):
    """Positions of the catalogue's stars, brightest first, and their rows."""
    ra, dec = (np.asarray(catalogue[name], float) for name in ("ra", "dec"))
    bands = ("r", "G", "g", "V", "VT", "i")
    magnitude = next((catalogue[name] for name in bands if name in catalogue.colnames), None)
    if magnitude is None:
        magnitude = np.zeros(len(ra))
    magnitude = np.nan_to_num(np.ma.filled(np.ma.asarray(magnitude, float), 99.0), nan=99.0)
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    rows = rows[np.argsort(magnitude[rows], kind="stable")]
    return ra[rows], dec[rows], rows


def _middle(ra, dec):
    """Mean direction of positions (deg) and the largest distance from it (arcsec)."""
    coords = SkyCoord(ra, dec, unit="deg")
    mean = SkyCoord(coords.cartesian.mean(), frame="icrs").spherical
    middle = SkyCoord(mean.lon, mean.lat)
    return middle.ra.deg, middle.dec.deg, float(coords.separation(middle).max().arcsec)


def _fit(model, pixel, error, clean, ra, dec, shape, sip_order):
    """Match all stars and fit, again and again; return (i, j, used) of the last round."""
    radius = 6.0
    near = 0.75 * np.hypot(*shape)
    for round_ in range(8):
        plane = np.column_stack(to_plane(ra, dec, model.ra0, model.dec0))
        size = np.sqrt(abs(np.linalg.det(model.coefficients[1:3])))
        inside = np.flatnonzero(np.hypot(*plane.T) < near * size)
        i, j = mutual_matches(model.predict(pixel), plane[inside], radius * size)
        j = inside[j]
        good = _useful(error[i], clean[i])
        if np.count_nonzero(good) < 4:
            raise SolveError(f"the pattern fits, but only {len(i)} stars match; 4 are needed")
        coefficients, used, order = best_order(
            pixel[i[good]], plane[j[good]], 1 / (error[i[good]] * size), sip_order
        )
        # Where the middle of the frame falls is where the plane touches the sky next.
        model.ra0, model.dec0 = map(float, from_plane(*coefficients[0], model.ra0, model.dec0))
        shift = np.hypot(*coefficients[0]) / size
        coefficients[0] = 0.0
        same = order == model.order
        model.order, model.coefficients = order, coefficients
        rest = pixel_residuals(model, pixel[i], plane[j])[good][used]
        spread = np.median(np.hypot(*rest.T))
        smaller = float(np.clip(6 * spread, 1.0, 6.0))
        if round_ > 1 and same and shift < 1e-7 and smaller == radius:
            break
        radius = smaller
    flags = np.zeros(len(i), bool)
    flags[np.flatnonzero(good)[used]] = True
    return i, j, flags


def _useful(error, clean):
    """Stars for the fit: clean ones with good centroids, or the best of them if these are few."""
    good = clean if np.count_nonzero(clean) >= 6 else np.ones(len(clean), bool)
    ranked = np.sort(error[good])
    limit = max(USEFUL_ERROR, ranked[min(ENOUGH, len(ranked)) - 1]) if len(ranked) else 0.0
    return good & (error <= limit)


def pixel_residuals(model, pixel, plane):
    """Measured minus predicted positions in pixels, by the linear part of the model."""
    return (model.predict(pixel) - plane) @ np.linalg.inv(model.coefficients[1:3])


def _final_odds(model, matched, pixel, ra, dec, shape):
    """Odds of the last fit, from the brighter stars of the frame."""
    i, j, _ = matched
    size = np.sqrt(abs(np.linalg.det(model.coefficients[1:3])))
    plane = np.column_stack(to_plane(ra, dec, model.ra0, model.dec0))
    seen = np.flatnonzero(np.isfinite(plane).all(axis=1))
    n_bright = min(len(pixel), max(110, 2 * len(i)))
    bright = i < n_bright
    return judge(
        model.predict(pixel[:n_bright]), plane[seen], i[bright],
        np.searchsorted(seen, j[bright]), size=shape[::-1], scale=size,
        n_fitted=len(powers(model.order)),
    )  # fmt: skip


def _solution(model, matched, pixel, ra, dec, source_rows, catalogue_rows, shape):
    """Collect a `Solution` from the last fit."""
    i, j, used = matched
    wcs = build_wcs(model.coefficients, model.order, ra0=model.ra0, dec0=model.dec0, shape=shape)
    plane = np.column_stack(to_plane(ra[j], dec[j], model.ra0, model.dec0))
    rest = pixel_residuals(model, pixel[i], plane)
    middle = (np.array(shape[::-1]) - 1) / 2
    cd = model.coefficients[1:3].T
    scale = float(np.sqrt(abs(np.linalg.det(cd)))) * 3600
    rms = float(np.sqrt(np.mean(np.sum(rest[used] ** 2, axis=1))))
    table = Table(
        {
            "source": source_rows[i],
            "catalogue": catalogue_rows[j],
            "x": pixel[i, 0] + middle[0],
            "y": pixel[i, 1] + middle[1],
            "ra": ra[j],
            "dec": dec[j],
            "dx": rest[:, 0],
            "dy": rest[:, 1],
            "used": used,
        }
    )
    return Solution(
        wcs=wcs,
        matched=table,
        rms_px=rms,
        rms_arcsec=rms * scale,
        n_matched=len(table),
        scale=scale,
        rotation=float(np.degrees(np.arctan2(cd[0, 1], cd[1, 1]))),
        mirrored=bool(np.linalg.det(cd) > 0),
        order=model.order,
        log_odds=_final_odds(model, matched, pixel, ra, dec, shape),
    )
