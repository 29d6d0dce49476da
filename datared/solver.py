"""Solver: the plate solution of one frame, from its list of stars and a catalogue."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy.wcs import WCS

from datared.errors import SolveError
from datared.patterns import MIN_LOG_ODDS, find_pattern
from datared.platefit import (
    chance_odds,
    corner_error,
    fit_plate,
    plate_residuals,
    star_catalogue,
    star_list,
)
from datared.projection import build_wcs, from_plane, powers, to_plane
from datared.startmodels import common_shift, linear_start, search_places, wcs_start

__all__ = ["Solution", "refine_frame", "solve_frame"]

#: A solution whose corners are more uncertain (px, one sigma) is refused.
MOST_CORNER_ERROR = 2.0
#: How far (px) a star may be from where an approximate WCS puts it.
REACH = 30.0
#: Stars that decide on the shift of an approximate WCS.
SHIFT_STARS = 200


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
        predicted), ``error`` (px, of the centroid along one axis), ``good`` (could take part in
        the fit) and ``used`` (took part in it).
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
    solver : str
        What found it: ``catalogue`` (`solve_frame`), or what gave the start to `refine_frame`.
    tried : tuple of str
        Sentences: what was tried, in this order.
    shared : bool
        True if the distortion is the night's and only the linear part was fitted.
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
    solver: str = "catalogue"
    tried: tuple[str, ...] = ()
    shared: bool = False


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
    distortion=None,
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
    distortion : datared.distortion.Distortion, optional
        Known distortion of frames of this shape; then only the linear part is fitted.

    Returns
    -------
    Solution
        The solution and its residuals.

    Raises
    ------
    SolveError
        If no solution is sure enough; the message says what was tried and what to try next.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
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
    stars, straight, ra, dec, rows, count = _read(sources, catalogue, shape, distortion)
    tried = [count]
    if min(len(straight), len(ra)) < 5:
        raise SolveError(f"{tried[0]}: too few to recognise a pattern, 5 are needed in each")
    near = []
    # A hint that is more wrong than it was said to be still leaves the rest of the catalogue.
    for ra0, dec0, reach in search_places(ra, dec, center=center, radius=radius):
        plane = np.column_stack(to_plane(ra, dec, ra0, dec0)) * 3600
        seen = np.isfinite(plane).all(axis=1)
        near.append(np.count_nonzero(np.hypot(*plane.T) < reach + 0.5 * np.hypot(*shape) * scale))
        pattern = find_pattern(
            straight, plane[seen], size=shape[::-1], scale=scale, search_radius=reach,
            scale_tolerance=scale_tolerance, thorough=len(near) == 1,
        )  # fmt: skip
        where = f"within {reach / 60:.0f}' of RA {ra0:.3f} Dec {dec0:.3f} deg at "
        where += f'{scale:.3f}"/px +- {scale_tolerance:.0%}'
        if pattern is not None:
            tried.append(f"a pattern {where}: found, log odds {pattern.log_odds:.0f}")
            break
        tried.append(f"a pattern {where}: none in common")
    else:
        raise SolveError(f"{'; '.join(tried)}: no pattern in common. {_advice(stars, near[0])}")
    # The plane moves to the middle of the frame; near the pole that turns its axes.
    ra1, dec1 = from_plane(*(pattern.affine[0] / 3600), ra0, dec0)
    same = np.flatnonzero(seen)[pattern.catalogue]
    there = np.column_stack(to_plane(ra[same], dec[same], ra1, dec1))
    model = linear_start(
        straight[pattern.detected], there, ra0=float(ra1), dec0=float(dec1), distortion=distortion
    )
    return _finish(model, stars, ra, dec, rows, sip_order, distortion, "catalogue", tried)


def refine_frame(
    sources,
    catalogue,
    wcs,
    *,
    shape,
    sip_order=None,
    distortion=None,
    solver="header",
    tried=(),
):
    """Fit a frame anew from an approximate WCS, and refuse it if the stars do not confirm it.

    No pattern is searched. The brighter stars vote on a common shift, all stars are matched and
    fitted as in `solve_frame`, and the same odds against chance are asked for. With 30 % false
    detections and a distortion of 2 px in the corners the start may be 28 px off, 1 % wrong in
    scale, or turned by 0.3 degrees on frames of 4788 x 3194 with 60 stars, and by 1 degree on
    frames of 1000 x 680; what is worse is refused.

    Parameters
    ----------
    sources, catalogue : astropy.table.Table
        As for `solve_frame`.
    wcs : astropy.wcs.WCS
        Celestial WCS of the frame in any projection.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    sip_order, distortion
        As for `solve_frame`.
    solver : str
        Where the WCS is from; goes to ``Solution.solver``.
    tried : sequence of str
        Sentences on what was tried before.

    Returns
    -------
    Solution
        The solution and its residuals.

    Raises
    ------
    SolveError
        If the WCS is not celestial or the stars do not confirm it.
    """
    stars, straight, ra, dec, rows, count = _read(sources, catalogue, shape, distortion)
    tried = [*tried, count]
    if min(len(straight), len(ra)) < 5:
        raise SolveError(f"{'; '.join(tried)}: too few to confirm a WCS, 5 are needed in each")
    model = wcs_start(wcs, shape=shape, distortion=distortion)
    if model is None:
        raise SolveError(f"{'; '.join(tried)}: the WCS of the {solver} is not one of the sky")
    plane = np.column_stack(to_plane(ra, dec, model.ra0, model.dec0))
    shift, votes = common_shift(model, stars.pixel[:SHIFT_STARS], plane, reach=REACH)
    tried.append(
        f"the WCS of the {solver}: {votes} stars agree with a shift of "
        f"{np.hypot(*shift) / model.size:.1f} px"
    )
    model.coefficients[0] += shift
    return _finish(model, stars, ra, dec, rows, sip_order, distortion, solver, tried, radius=10.0)


def _advice(stars, near):
    """Say what to try next, the likeliest reason first."""
    hints = []
    if near < 20:
        hints.append(f"The catalogue has only {near} stars there: does it cover the field?")
    if len(stars.rows) < 20:
        hints.append("The frame has few stars: is it cloudy or short? Lower the threshold.")
    if np.count_nonzero(~stars.clean) > 0.5 * len(stars.rows):
        hints.append("Most stars are saturated or cut by the edge: take a shorter exposure.")
    hints.append(
        "Check that the detections are stars and not hot pixels, then the pointing, pixel_scale "
        "(binning?), and that the catalogue covers the field and goes as deep as the frame"
    )
    return " ".join(hints)


def _read(sources, catalogue, shape, distortion):
    """Stars, their pixel offsets without the known distortion, catalogue, and the numbers."""
    stars = star_list(sources, shape)
    ra, dec, rows = star_catalogue(catalogue)
    n, straight = len(stars.rows), stars.pixel
    if distortion is not None:
        if tuple(distortion.shape) != tuple(shape):
            raise ValueError(f"the distortion is for frames of {distortion.shape}, not {shape}")
        straight = straight + distortion.displacement(straight)
    count = f"{n} star{'s' * (n != 1)} in the frame, {len(ra)} in the catalogue"
    return stars, straight, ra, dec, rows, count


def _finish(model, stars, ra, dec, rows, sip_order, distortion, solver, tried, radius=6.0):
    """Fit all stars, ask for the odds, and collect the solution."""
    try:
        matches = fit_plate(
            model, stars, ra, dec, sip_order=sip_order, distortion=distortion, radius=radius
        )
    except SolveError as error:
        raise SolveError(f"{'; '.join(tried)}: {error}") from error
    shared = distortion is not None
    n_fitted = len(powers(1 if shared else model.order))
    odds = chance_odds(model, matches, stars, ra, dec, n_fitted=n_fitted)
    tried.append(f"a fit of order {model.order} to {matches.used.sum()} stars: log odds {odds:.0f}")
    if odds < MIN_LOG_ODDS:
        raise SolveError(
            f"{'; '.join(tried)}: the odds do not confirm it, {MIN_LOG_ODDS:.0f} are needed"
        )
    solution = _solution(model, matches, stars, ra, dec, rows, odds, solver, tried, shared)
    error = corner_error(matches, stars, 1 if shared else model.order, solution.rms_px)
    if error > MOST_CORNER_ERROR:
        raise SolveError(
            f"{'; '.join(tried)}: the stars that match leave the corners uncertain by "
            f"{error:.0f} px; a fit that is right on one side only is refused"
        )
    return solution


def _solution(model, matches, stars, ra, dec, rows, odds, solver, tried, shared):
    """Collect a `Solution` from the last fit."""
    i, j = matches.star, matches.catalogue
    pixel, shape = stars.pixel[i], stars.shape
    wcs = build_wcs(model.coefficients, model.order, ra0=model.ra0, dec0=model.dec0, shape=shape)
    plane = np.column_stack(to_plane(ra[j], dec[j], model.ra0, model.dec0))
    rest = plate_residuals(model, pixel, plane)
    middle = (np.array(shape[::-1]) - 1) / 2
    cd = model.coefficients[1:3].T
    scale = model.size * 3600
    rms = float(np.sqrt(np.mean(np.sum(rest[matches.used] ** 2, axis=1))))
    table = Table(
        {
            "source": stars.rows[i],
            "catalogue": rows[j],
            "x": pixel[:, 0] + middle[0],
            "y": pixel[:, 1] + middle[1],
            "ra": ra[j],
            "dec": dec[j],
            "dx": rest[:, 0],
            "dy": rest[:, 1],
            "error": stars.error[i],
            "good": matches.good,
            "used": matches.used,
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
        log_odds=odds,
        solver=solver,
        tried=tuple(tried),
        shared=shared,
    )
