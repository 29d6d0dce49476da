"""PSF photometry: the light of stars that overlap, from a model of the point spread function."""

import numpy as np
from astropy.nddata import CCDData
from astropy.table import Table
from scipy.spatial import cKDTree

from .apertures import NEGATIVE, NO_POSITION, NOT_CENTRED, OUTSIDE
from .photometry import aperture_photometry
from .psfbuild import build_epsf, refine_epsf
from .psffit import add_stars
from .psfmodel import EPSF, moffat_epsf
from .psfscene import Scene
from .psfstars import numbers, select_psf_stars
from .sources import detect

__all__ = [
    "EPSF",
    "build_epsf",
    "moffat_epsf",
    "psf_photometry",
    "refine_epsf",
    "select_psf_stars",
]

#: A new star must be farther than this many widths from every star ...
APART = 0.75
#: ... and brighter than this share of the model's light at its place, where the model may be wrong,
MISFIT = 0.1
#: ... and than this share of a star within two radii of the model, whose wings end there.
WING = 3e-3
#: One that moves closer than this to another, in widths, is none.
CLOSE = 0.5
#: Rounds that tell new stars from none.
TRIAL = 10


def psf_photometry(
    ccd,
    x,
    y,
    *,
    psf,
    sky=None,
    gain=None,
    read_noise=0.0,
    flat_noise=0.0,
    fixed=False,
    fit_radius=1.25,
    group=2.0,
    max_shift=1.0,
    iterations=50,
    find_more=0,
    nsigma=5.0,
    radii=None,
    annulus=None,
    threads=None,
):
    r"""Fit the model of a star to all stars of a frame, those that overlap together.

    The frame is the sky and the sum of the stars. All stars are fitted again and again, each time
    by one step of Gauss and Newton on what the others leave:

    .. math:: \chi^2 = \sum \frac{(D - s - \sum_k F_k \, P(x - x_k, y - y_k))^2}
              {\sigma_{sky}^2 + M / g + (f M)^2}

    over the pixels within ``fit_radius`` of a star. Stars closer than ``group`` widths, and
    friends of friends, are one group and move together; groups of more than 24 stars are cut into
    pieces whose stars are fitted with all those near them and kept alone. The weights come from
    the model ``M`` of all stars and not from the data: where the noise is low by chance the data
    would count more, and every flux would be too small. The inverse of the normal equations gives
    the errors; they hold what the neighbours do not let one know.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        Reduced frame. Flagged (also repaired: they bring nothing new), masked and non-finite pixels
        are left out of the fit.
    x, y : array_like of float, shape (n,)
        First positions in pixels, 0-based, good to about half a width.
    psf : EPSF
        Model of a star, from `build_epsf` or `moffat_epsf`.
    sky : datared.background.Background, optional
        Level and noise of the sky, taken as they are. Without it the sky is measured by
        `datared.background.background_map`, and measured again, as a mean, when the stars have been
        subtracted: the median of a crowded field holds light of its stars. There is no level for
        each group: in the core of a cluster no pixel is free of stars, and a level and the wings
        of the stars there are hardly told apart.
    gain : float, optional
        Electrons per unit of the frame; 1 for a frame in electrons. Without it the photons of the
        stars are not counted: errors are lower limits, ``meta["errors"]`` says so.
    read_noise : float
        Read noise in electrons: the noise of the sky is not taken to be lower.
    flat_noise : float
        Relative noise of a pixel of the master flat, f in the formula.
    fixed : bool
        True: the positions are right and stay, only fluxes are fitted. Faint stars need it: a
        position that follows the noise makes a flux too large by a share of 1 / (S/N)^2, which is
        4 % at S/N 5.
    fit_radius : float
        Radius of the fitted pixels in widths (``psf.fwhm``).
    group : float
        Distance in widths at which two stars belong together.
    max_shift : float
        Largest way of a star from its first position, in widths. One that goes farther gets its
        first position back, fixed, with the flag "not centred".
    iterations : int
        Largest number of rounds; ``meta["converged"]`` tells whether they sufficed.
    find_more : int
        Largest number of times that stars are looked for in the residual and added; it ends when
        none is found. A new star must stand out of the noise, photons of its neighbours included,
        and of the misfit of the model to them.
    nsigma : float
        Threshold for new stars in standard deviations.
    radii, annulus : sequence of float and tuple of float, optional
        With both, each star is measured in apertures too (`datared.photometry.aperture_photometry`)
        on the frame without all other stars.
    threads : int, optional
        Number of threads, one for each processor by default. The result does not depend on it.

    Returns
    -------
    table : astropy.table.Table
        One row for each position, in their order, new stars below: ``x``, ``y``, ``x_err``,
        ``y_err`` (0 for positions that stay), ``flux`` (light within ``psf.radius``),
        ``flux_err``, ``chi2`` (reduced, of the pixels within the fit radius), ``flags`` (bits of
        `datared.photometry.FLAG_NAMES`), ``group``, ``n_group`` (stars in it), ``iteration`` (0;
        for new stars the round in which they were found). With apertures also ``aperture_flux``,
        ``aperture_flux_err`` and ``aperture_flags`` (each of shape ``(n_radii,)``).
    residual : astropy.nddata.CCDData
        The frame without the stars: sky, noise and what the model does not explain.

    Raises
    ------
    ValueError
        If an option is not valid.
    FrameError
        If nearly all pixels are flagged, masked or not finite and no sky is given.

    Notes
    -----
    Stars that cannot be measured keep their row: position NaN ("no position"), outside of the frame
    ("outside"), or less than a tenth of their light in usable pixels ("edge", "saturated", "bad
    pixel") have a flux of NaN. A saturated star is fitted by its wings, in a wider disc, and
    flagged. The flag "neighbour" is not set: neighbours are in the fit and in its error.

    Examples
    --------
    >>> psf = moffat_epsf(fwhm=4.0)
    >>> frame = psf.image((60, 80), [30, 36], [30, 30], [9000.0, 3000.0])
    >>> frame += np.random.default_rng(1).normal(50, 2, frame.shape)
    >>> table, residual = psf_photometry(frame, [30.5, 35.5], [30, 30], psf=psf)
    >>> bool(abs(table["flux"] / [9000, 3000] - 1).max() < 0.03), int(table["n_group"][0])
    (True, 2)
    """
    if (radii is None) != (annulus is None):
        raise ValueError("apertures need both: radii and annulus, in pixels")
    positive = {"fit_radius": fit_radius, "group": group, "max_shift": max_shift, "nsigma": nsigma}
    positive |= {"iterations": iterations, "gain": 1 if gain is None else gain}
    positive |= {"threads": 1 if threads is None else threads}
    if not all(value > 0 for value in positive.values()):
        raise ValueError(f"these numbers must be positive: {positive}")
    not_less = {"read_noise": read_noise, "flat_noise": flat_noise, "find_more": find_more}
    if not all(value >= 0 for value in not_less.values()):
        raise ValueError(f"these numbers must be 0 or more: {not_less}")
    if gain is None and getattr(getattr(ccd, "unit", None), "name", "") == "electron":
        gain = 1.0
    x, y = (np.array(a) for a in np.broadcast_arrays(*map(np.atleast_1d, map(numbers, (x, y)))))
    scene = Scene(ccd, psf, sky, gain, read_noise, flat_noise, threads)
    limits = {"fit_radius": fit_radius, "group": group, "max_shift": max_shift}
    table = _fit(scene, x, y, fixed, np.zeros(x.size, int), limits, iterations, None)
    for turn in range(1, find_more + 1):
        found = _new_stars(scene, ccd, table, nsigma, gain)
        if not len(found):
            break
        table = _with_new(scene, table, found, turn, fixed, limits, iterations, nsigma)
    table.remove_columns(["x_first", "y_first"])
    residual = _residual(scene, ccd)
    if radii is not None:
        _add_apertures(table, residual, psf, radii, annulus, gain, read_noise, flat_noise, threads)
    table.meta = {
        "psf_fwhm": psf.fwhm,
        "psf_radius": psf.radius,
        "gain": gain,
        "rounds": scene.rounds,
        "converged": scene.converged,
        "errors": "complete" if gain else "lower limit: no gain, photons of the star not counted",
    }
    return table, residual


def _fit(scene, x, y, fixed, iteration, limits, iterations, start, *, trial=False):
    """Fit all stars and return the table; new stars begin with positions of ``start``."""
    ny, nx = scene.frame.shape
    bits = np.zeros(x.size, np.uint16)
    known = np.isfinite(x) & np.isfinite(y)
    inside = known & (x >= -0.5) & (y >= -0.5) & (x <= nx - 0.5) & (y <= ny - 0.5)
    bits[~known] |= NO_POSITION
    bits[known & ~inside] |= OUTSIDE
    free = np.full(x.size, not fixed)
    result = scene.fit(
        x, y, inside, free, bits, start=start, rounds=iterations, trial=trial, **limits
    )
    bits[~np.isnan(result.stars[:, 2]) & (result.stars[:, 2] <= 0)] |= NEGATIVE
    bits[result.runaway] |= NOT_CENTRED
    table = Table({"x": result.stars[:, 0], "y": result.stars[:, 1]})
    table["x_err"], table["y_err"] = result.errors[:, 0], result.errors[:, 1]
    table["flux"], table["flux_err"] = result.stars[:, 2], result.errors[:, 2]
    table["chi2"], table["flags"] = result.errors[:, 3], bits
    table["group"], table["n_group"], table["iteration"] = result.group, result.n_group, iteration
    table["x_first"], table["y_first"] = x, y
    return table


def _new_stars(scene, ccd, table, nsigma, gain):
    """Positions in the residual at which a star may have been missed, shape (n, 2)."""
    psf = scene.psf
    residual = CCDData(scene.frame - scene.model, unit="adu")
    residual.flags = scene.flags
    mask = scene.flags > 0
    stars = detect(residual, fwhm=psf.fwhm, nsigma=nsigma, gain=gain, mask=mask, quiet=True)
    places = np.column_stack([stars["x"], stars["y"]]).astype(float)
    good = np.isfinite(table["x"]) & np.isfinite(table["flux"])
    if not len(places) or not good.any():
        return places
    known = np.column_stack([table["x"], table["y"]])[good]
    flux = np.asarray(table["flux"])[good]
    tree = cKDTree(known)
    apart = tree.query(places)[0] > APART * psf.fwhm
    ny, nx = scene.model.shape
    row, column = (
        np.clip(np.rint(places[:, k]).astype(int), 0, n - 1) for k, n in ((1, ny), (0, nx))
    )
    light = scene.model[row, column]
    apart &= np.asarray(stars["peak"]) > MISFIT * light
    for k in np.flatnonzero(apart):
        near = tree.query_ball_point(places[k], 2 * psf.radius)
        apart[k] = not near or stars["flux"][k] > WING * flux[near].max()
    return places[apart]


def _with_new(scene, table, places, turn, fixed, limits, iterations, nsigma):
    """Fit the stars of the table and new ones together; new ones that are none go again."""
    n_old = len(table)
    # Most of those that are no stars show it after a few rounds.
    for rounds, trial in ((TRIAL, True), (TRIAL, True), (iterations, False)):
        x = np.concatenate([table["x_first"][:n_old], places[:, 0]])
        y = np.concatenate([table["y_first"][:n_old], places[:, 1]])
        old = np.column_stack([table[name][:n_old] for name in ("x", "y", "flux")])
        new = np.column_stack([places, np.zeros(len(places))])
        iteration = np.append(table["iteration"][:n_old], np.full(len(places), turn)).astype(int)
        start = np.concatenate([old, new])
        both = _fit(scene, x, y, fixed, iteration, limits, rounds, start, trial=trial)
        if not trial:
            return both
        new = both[n_old:]
        keep = (new["flux"] >= nsigma * new["flux_err"]) & ((new["flags"] & NOT_CENTRED) == 0)
        if len(both) > 1:
            spots = np.nan_to_num(np.column_stack([both["x"], both["y"]]), nan=-1e9)
            distance = cKDTree(spots).query(spots[n_old:], k=2)[0][:, 1]
            keep &= distance > CLOSE * scene.psf.fwhm
        places = places[keep]


def _residual(scene, ccd):
    """Return the frame without its stars, with its own header and flags."""
    data = np.asarray(ccd.data if hasattr(ccd, "unit") else ccd)
    residual = CCDData(data - scene.model, unit=getattr(ccd, "unit", None) or "adu")
    residual.header = getattr(ccd, "header", None)
    residual.wcs = getattr(ccd, "wcs", None)
    residual.flags = scene.flags
    residual.mask = scene.flags > 0
    return residual


def _add_apertures(table, residual, psf, radii, annulus, gain, read_noise, flat_noise, threads):
    """Measure each star in apertures on the residual and itself; stars far apart at one time."""
    reach = max(float(np.max(radii)), float(annulus[1])) + psf.radius + 2
    x, y, flux = (np.array(table[name], float) for name in ("x", "y", "flux"))
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    turn = np.zeros(len(table), int)
    near = (
        cKDTree(np.column_stack([x[known], y[known]])).query_ball_point(
            np.column_stack([x[known], y[known]]), reach
        )
        if known.size
        else []
    )
    done = np.zeros(len(table), bool)
    for k, others in zip(known, near, strict=True):
        taken = {turn[other] for other in known[others] if done[other]}
        turn[k] = next(t for t in range(len(taken) + 1) if t not in taken)
        done[k] = True
    clean = np.asarray(residual.data)
    frame = CCDData(clean.copy(), unit=residual.unit)
    frame.flags = residual.flags
    n_radii = np.size(radii)
    columns = {
        "aperture_flux": np.full((len(table), n_radii), np.nan),
        "aperture_flux_err": np.full((len(table), n_radii), np.nan),
        "aperture_flags": np.zeros((len(table), n_radii), np.uint16),
    }
    for number in range(turn.max(initial=0) + 1):
        stars = np.flatnonzero(turn == number)
        light = np.where(np.isfinite(x[stars]), flux[stars], np.nan)
        room = psf.coefficients, psf.oversampling, psf.radius
        add_stars(frame.data, *room, x[stars], y[stars], light, 0, len(clean))
        measured = aperture_photometry(
            frame, x[stars], y[stars], radii=radii, annulus=annulus, gain=gain,
            read_noise=read_noise, flat_noise=flat_noise, fwhm=psf.fwhm, threads=threads,
        )  # fmt: skip
        for name, column in columns.items():
            column[stars] = measured[name.removeprefix("aperture_")]
        for k in stars[np.isfinite(light)]:
            part = tuple(
                slice(max(0, int(c[k] - psf.radius) - 1), max(0, int(c[k] + psf.radius) + 2))
                for c in (y, x)
            )
            frame.data[part] = clean[part]
    for name, column in columns.items():
        table[name] = column
