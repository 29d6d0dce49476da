"""Back-ends: whoever finds where a frame points, our own stars have to confirm it."""

from dataclasses import replace

import numpy as np
from astropy import units as u
from scipy.spatial import cKDTree

from .errors import SolveError
from .headerwcs import frame_geometry, implausible
from .nova import ask_nova
from .solvefield import PROGRAM, find_field
from .solver import Solution, refine_frame, solve_frame

__all__ = [
    "SOLVERS",
    "confirm_header",
    "keep_header",
    "solution_of",
    "solve",
    "solve_field",
    "solve_nova",
]

#: Names of the solvers that a night file can ask for.
SOLVERS = ("catalogue", "solve-field", "nova")
#: A header's own solution stays if its residuals are larger than those of a new fit by no more
#: than this factor and this many pixels: the gain would be within the noise of a frame.
WORSE_FACTOR, WORSE_PX = 1.3, 0.05
#: Stars farther from their place than so many times the median are not used for the rms.
CLIP = 4.0


def solve(
    sources,
    catalogue,
    *,
    shape,
    center,
    scale,
    solver="catalogue",
    search_radius=30 * u.arcmin,
    scale_tolerance=0.1,
    sip_order=None,
    distortion=None,
    time_limit=120.0,
    wcs=None,
):
    """Solve a frame by the solver of one's choice; the result is of the same kind with each.

    Parameters
    ----------
    sources : astropy.table.Table
        Detected stars: ``x``, ``y`` (px, 0-based), ``flux``; ``snr``, ``fwhm`` and ``flags``
        where known.
    catalogue : astropy.table.Table or None
        Reference stars at the epoch of the frame; only ``solve-field`` can do without.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    center : astropy.coordinates.SkyCoord or None
        Where the middle of the frame should be.
    scale : astropy.units.Quantity or float
        Expected size of a pixel; a bare number is in arcsec.
    solver : {"catalogue", "solve-field", "nova"}
        See `datared.solver.solve_frame`, `solve_field` and `solve_nova`.
    search_radius : astropy.units.Quantity or float
        Expected error of ``center``; a bare number is in arcmin.
    scale_tolerance : float
        Largest relative error of ``scale``.
    sip_order : int, optional
        Order of the distortion (1: none); chosen where it is not given.
    distortion : datared.distortion.Distortion, optional
        The distortion of the night; then only the linear part is fitted.
    time_limit : float
        Seconds that a solver outside of the package may take.
    wcs : astropy.wcs.WCS, optional
        World coordinates that the frame brings. They are tried first (`confirm_header`), and
        their position serves where ``center`` is None.

    Returns
    -------
    Solution
        ``solver`` says who found it (``"header"`` for ``wcs``), ``tried`` what was tried.

    Raises
    ------
    SolveError
        If nothing gave a solution that the stars confirm.
    ValueError
        If there is no such solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"there is no solver {solver!r}; the solvers are {', '.join(SOLVERS)}")
    before = ()
    if wcs is not None and catalogue is not None:
        options = {"shape": shape, "scale": scale, "scale_tolerance": scale_tolerance}
        try:
            return confirm_header(sources, catalogue, wcs, sip_order=sip_order, **options)
        except SolveError as error:
            before = (str(error),)
    if center is None and wcs is not None:
        middle = frame_geometry(wcs, shape).middle
        center = middle if np.isfinite(middle.ra.deg) and np.isfinite(middle.dec.deg) else None
    options = {"shape": shape, "center": center, "scale": scale, "distortion": distortion}
    options |= {"search_radius": search_radius, "scale_tolerance": scale_tolerance}
    ways = {"solve-field": solve_field, "nova": solve_nova}
    try:
        if solver == "catalogue":
            solution = solve_frame(sources, catalogue, sip_order=sip_order, **options)
        else:
            options |= {"sip_order": sip_order, "time_limit": time_limit}
            solution = ways[solver](sources, catalogue, **options)
    except SolveError as error:
        raise SolveError("; ".join((*before, str(error)))) from error
    return replace(solution, tried=(*before, *solution.tried))


def confirm_header(
    sources, catalogue, wcs, *, shape, scale=None, scale_tolerance=0.1, sip_order=None
):
    """Fit a frame anew from the world coordinates that it brings, if its stars confirm them.

    A telescope writes where it believes to point; that is wrong by an arcminute and more, and is
    refused here. A plate solution of another program is confirmed.

    Parameters
    ----------
    sources, catalogue : astropy.table.Table
        As for `solve`.
    wcs : astropy.wcs.WCS
        World coordinates, see `datared.headerwcs.read_wcs`.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    scale : float, optional
        Size of a pixel in arcsec, where it is known.
    scale_tolerance : float
        Largest relative error of the scale.
    sip_order : int, optional
        Order of the fit.

    Returns
    -------
    Solution
        The fit, with ``solver="header"``; see `keep_header`.

    Raises
    ------
    SolveError
        If they cannot be those of the frame, or the stars do not confirm them.
    """
    scale = None if scale is None else u.Quantity(scale, u.arcsec).value
    reason = implausible(wcs, shape, scale=scale, scale_tolerance=scale_tolerance)
    if reason:
        raise SolveError(f"the WCS of the header is not used: {reason}")
    return refine_frame(sources, catalogue, wcs, shape=shape, sip_order=sip_order, solver="header")


def keep_header(wcs, fitted, shape):
    """Choose between the world coordinates that a frame brings and a fit that confirmed them.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        World coordinates of the header.
    fitted : Solution
        A fit to the stars of the frame, as from `confirm_header`.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.

    Returns
    -------
    Solution
        ``wcs`` as it is, with its projection and distortion, where the fit is not clearly better
        (residuals smaller by 30 % and 0.05 px); else the fit. ``tried`` says which.
    """
    kept = solution_of(
        wcs, fitted.matched, shape, solver="header", log_odds=fitted.log_odds, tried=fitted.tried
    )
    rms = f"{kept.rms_px:.2f} px, that of a new fit {fitted.rms_px:.2f} px"
    if kept.rms_px <= WORSE_FACTOR * fitted.rms_px + WORSE_PX:
        return replace(kept, tried=(*kept.tried, f"the WCS of the header is kept: rms {rms}"))
    return replace(fitted, tried=(*fitted.tried, f"the WCS of the header is improved: rms {rms}"))


def solve_field(
    sources,
    catalogue=None,
    *,
    shape,
    center=None,
    scale,
    search_radius=30 * u.arcmin,
    scale_tolerance=0.1,
    sip_order=None,
    distortion=None,
    time_limit=120.0,
    config=None,
):
    """Solve a frame by the local astrometry.net program (`datared.solvefield.find_field`).

    Parameters
    ----------
    sources, catalogue, shape, center, scale, search_radius, scale_tolerance, sip_order, distortion
        As for `solve`. Without a catalogue the stars of the program's own index files are the
        reference, and its second pass is the result.
    time_limit : float
        Seconds for all passes together.
    config : str or pathlib.Path, optional
        Configuration file of the program, which says where the index files are.

    Returns
    -------
    Solution
        With ``solver="solve-field"``; ``tried`` says what the passes gave.

    Raises
    ------
    SolveError
        If the program gives no solution (the message says why), or the stars do not confirm it.
    """
    answer = find_field(
        sources, shape=shape, center=center, scale=scale, search_radius=search_radius,
        scale_tolerance=scale_tolerance, sip_order=sip_order, time_limit=time_limit,
        config=config,
    )  # fmt: skip
    if catalogue is not None:
        return refine_frame(
            sources, catalogue, answer.wcs, shape=shape, sip_order=sip_order,
            distortion=distortion, solver=PROGRAM, tried=answer.tried,
        )  # fmt: skip
    xy = np.column_stack([sources["x"], sources["y"]])
    pairs = answer.pairs
    pairs["source"] = cKDTree(xy).query(np.column_stack([pairs["x"], pairs["y"]]))[1]
    pairs["catalogue"] = np.arange(len(pairs))
    return solution_of(
        answer.wcs, pairs, shape, solver=PROGRAM, log_odds=answer.log_odds, tried=answer.tried
    )


def solve_nova(
    sources,
    catalogue,
    *,
    shape,
    center=None,
    scale,
    search_radius=30 * u.arcmin,
    scale_tolerance=0.1,
    sip_order=None,
    distortion=None,
    time_limit=120.0,
    server=None,
):
    """Solve a frame by the service nova.astrometry.net (`datared.nova.ask_nova`).

    Only the list of the brightest stars leaves the computer, no image.

    Parameters
    ----------
    sources, catalogue, shape, center, scale, search_radius, scale_tolerance, sip_order, distortion
        As for `solve`.
    time_limit : float
        Seconds to wait for the answer.
    server : str, optional
        Address of another server of this kind.

    Returns
    -------
    Solution
        With ``solver="nova"``.

    Raises
    ------
    SolveError
        If there is no key or no catalogue, if the service gives no solution, or if the stars do
        not confirm it.
    """
    if catalogue is None:
        raise SolveError(
            "nova gives a position and a scale, which a catalogue has to confirm: give "
            "[astrometry] catalogue"
        )
    wcs, tried = ask_nova(
        sources, shape=shape, center=center, scale=scale, search_radius=search_radius,
        scale_tolerance=scale_tolerance, time_limit=time_limit, server=server,
    )  # fmt: skip
    return refine_frame(
        sources, catalogue, wcs, shape=shape, sip_order=sip_order, distortion=distortion,
        solver="nova", tried=tried,
    )  # fmt: skip


def solution_of(wcs, matched, shape, *, solver, log_odds, tried=()):
    """Collect the solution that world coordinates of any kind are for matched stars.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        World coordinates, which are not fitted but taken as they are.
    matched : astropy.table.Table
        ``source``, ``catalogue`` (rows), ``x``, ``y`` (px, 0-based), ``ra``, ``dec`` (deg).
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    solver : str
        Where they come from.
    log_odds : float
        Natural logarithm of the odds against a chance alignment.
    tried : tuple of str
        What was tried.

    Returns
    -------
    Solution
        The residuals are those of ``wcs``; stars more than four times farther off than the median
        are not used for the rms.
    """
    matched = matched.copy()
    # A distortion that cannot be inverted far outside must not stop here: such stars are not used.
    x, y = wcs.all_world2pix(matched["ra"], matched["dec"], 0, quiet=True)
    matched["dx"], matched["dy"] = matched["x"] - x, matched["y"] - y
    # Behind the sky of a projection there is no place.
    distance = np.nan_to_num(np.hypot(matched["dx"], matched["dy"]), nan=np.inf)
    matched["used"] = distance <= max(CLIP * np.median(distance), 1e-6)
    for name, value in (("error", 0.1), ("good", True)):
        if name not in matched.colnames:
            matched[name] = np.full(len(matched), value)
    geometry = frame_geometry(wcs, shape)
    rms = float(np.sqrt(np.mean(distance[matched["used"]] ** 2)))
    sip = wcs.sip.a_order if wcs.sip is not None else 1
    return Solution(
        wcs=wcs,
        matched=matched,
        rms_px=rms,
        rms_arcsec=rms * geometry.scale,
        n_matched=len(matched),
        scale=geometry.scale,
        rotation=geometry.rotation,
        mirrored=geometry.mirrored,
        order=max(int(sip), 1),
        log_odds=float(log_odds),
        solver=solver,
        tried=tuple(tried),
    )
