"""Artificial stars: add stars that we know to a frame, find and measure them like all others.

What comes back of them is the honest answer to two questions that a table of fluxes cannot answer:
which share of the stars is found at all (completeness), and how large the error really is, with all
that neighbours, sky and the search for stars do to it.
"""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from .recovery import completeness, flux_limit
from .sources import detect

__all__ = ["artificial_stars", "completeness", "flux_limit", "inject_stars"]

#: An added star is drawn out to this many widths; beyond, a Moffat star holds 0.1 % of its light.
REACH = 12.0
#: Added stars of one copy stay this many widths away from each other.
SEPARATION = 10.0
#: Share of the area that the circles around the added stars of one copy may cover.
COVER = 0.1
#: Random places that are tried for one star before the next copy is begun.
TRIES = 50


def inject_stars(ccd, x, y, flux, *, psf, gain=None, seed=None):
    r"""Add stars to a copy of a frame, with the noise of their own photons.

    A pixel with the expected light :math:`F p` of the star gets a Poissonian number of electrons,

    .. math:: D' = D + \mathrm{Poisson}(g F p) / g .

    The noise of the sky and of the camera is in the frame already. A sum of two Poissonian numbers
    is Poissonian, so the new pixels are what the camera would have written.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        Reduced frame; it is not changed. Pixels without a value stay so, flags stay as they are: a
        star must not be so bright that it would saturate.
    x, y : array_like of float, shape (n,)
        Places in pixels, 0-based, ``x`` along axis 1.
    flux : array_like of float, shape (n,)
        Total fluxes in the unit of the frame.
    psf : datared.psf.EPSF
        Shape of the stars, or any object with ``image(shape, x, y, flux)`` and ``fwhm`` (px).
    gain : float, optional
        Electrons per unit of the frame (e-/ADU); 1 for a frame whose unit is electron.
    seed : int, numpy.random.SeedSequence or numpy.random.Generator, optional
        Seed of the photons; without one the stars are added without noise.

    Returns
    -------
    astropy.nddata.CCDData or numpy.ndarray
        As ``ccd``, with the stars.

    Raises
    ------
    ValueError
        If noise is asked for and the gain is not known, or a place or flux is not finite.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from datared.render import star_image
    >>> def image(shape, x, y, flux):
    ...     return star_image(shape, x, y, flux, fwhm=3.0)
    >>> psf = SimpleNamespace(fwhm=3.0, image=image)
    >>> frame = inject_stars(np.zeros((99, 99)), 50.2, 49.7, 1000.0, psf=psf)
    >>> abs(float(frame.sum()) - 1000) < 2
    True
    """
    is_ccd = hasattr(ccd, "unit")
    data = np.array(ccd.data if is_ccd else ccd)
    if not np.issubdtype(data.dtype, np.floating):
        data = data.astype(np.float64)
    rng = None
    if seed is not None:
        rng, gain = np.random.default_rng(seed), _gain(ccd, gain)
    x, y, flux = np.broadcast_arrays(
        *(np.atleast_1d(np.ma.filled(np.ma.asarray(a, float), np.nan)) for a in (x, y, flux))
    )
    if not (np.isfinite(x) & np.isfinite(y) & np.isfinite(flux)).all():
        raise ValueError("places and fluxes of stars must be finite numbers: leave others out")
    half = math.ceil(REACH * psf.fwhm)
    ny, nx = data.shape
    # Star by star on a stamp: the memory does not grow with the frame or the number of stars.
    for one_x, one_y, one_flux in zip(x, y, flux, strict=True):
        i, j = round(one_x), round(one_y)
        i0, i1 = max(0, i - half), min(nx, i + half + 1)
        j0, j1 = max(0, j - half), min(ny, j + half + 1)
        if i0 >= i1 or j0 >= j1:
            continue
        light = np.asarray(psf.image((j1 - j0, i1 - i0), one_x - i0, one_y - j0, one_flux))
        if rng is not None:
            # A measured PSF has pixels below zero in its noise; they have no photons.
            positive = np.maximum(light, 0)
            light = light - positive + rng.poisson(gain * positive) / gain
        data[j0:j1, i0:i1] += light.astype(data.dtype)
    if not is_ccd:
        return data
    frame = copy.copy(ccd)
    frame.data = data
    return frame


def artificial_stars(
    ccd, *, psf, fluxes, n, seed, measure=None, detection=None, near=None, within=None,
    region=None, per_frame=None, radius=None, ratio=2.0, margin=None, gain=None, threads=1,
):  # fmt: skip
    """Add stars of known flux to copies of a frame, search and measure, and look for them again.

    Few stars are added to one copy, far from each other, so that the field is as crowded as it was;
    many copies make the number. Each copy goes through the same search and the same measurement as
    the frame itself (Stetson 1987, PASP 99, 191).

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        Reduced frame, real or simulated.
    psf : datared.psf.EPSF
        Shape of the stars, or any object with ``image(shape, x, y, flux)`` and ``fwhm`` (px).
    fluxes : (float, float)
        Smallest and largest flux, in the unit of the frame; drawn evenly in magnitude.
    n : int
        Number of artificial stars.
    seed : int
        Same seed, same stars, whatever ``threads`` is.
    measure : callable or dict, optional
        ``measure(frame)`` gives a table with ``x``, ``y``, ``flux`` and ``flux_err`` of the stars
        that it finds. A dictionary holds options of `datared.psf.psf_photometry`, which then
        measures what `datared.sources.detect` finds.
    detection : dict, optional
        Options of `datared.sources.detect`, where ``measure`` is not a function of yours.
    near : (array_like of float, array_like of float), optional
        Places ``(x, y)`` in pixels; stars are added in circles around them. By default they are
        added everywhere on the frame.
    within : float, optional
        Radius of these circles in pixels; 10 FWHM by default.
    region : (float, float, float, float), optional
        First and last x, first and last y in pixels: only this part of the frame is copied,
        searched and measured, which is faster. Places stay those of the whole frame. The part must
        be large enough for the sky; ``measure`` sees it as a frame of its own.
    per_frame : int, optional
        Most stars that are added to one copy. By default so many that circles of half the least
        distance (10 FWHM) around them cover a tenth of the area; at least one.
    radius : float, optional
        A star counts as found if a measured one is within this distance (px); by default half the
        FWHM: what is farther away in a crowd is mostly another star.
    ratio : float
        ... and if the two fluxes differ by no more than this factor (2 is 0.75 mag). A star that
        fell on a much brighter one is lost.
    margin : float, optional
        Distance to the edge of the frame within which none is added (px); 3 FWHM by default.
    gain : float, optional
        As in `inject_stars`.
    threads : int
        Copies that are worked on at the same time. Each needs the memory of one frame and of one
        measurement.

    Returns
    -------
    astropy.table.Table
        One row for each artificial star: ``x``, ``y``, ``flux`` (put in), ``frame`` (number of the
        copy), ``found``, and what was measured: ``x_found``, ``y_found``, ``flux_found``,
        ``flux_err`` (NaN where not found). ``meta``: ``seed``, ``n_frames``, ``radius``, ``ratio``.

    Raises
    ------
    ValueError
        If an option is not valid, the gain is not known, or there is no place for a star.
    """
    low, high = _flux_range(fluxes)
    if n < 1 or threads < 1 or (per_frame is not None and per_frame < 1):
        raise ValueError(f"n {n}, threads {threads} and per_frame {per_frame} must be at least 1")
    if not ratio > 1:
        raise ValueError(f"ratio {ratio} must be larger than 1")
    gain = _gain(ccd, gain)
    ccd, left, bottom = _cut(ccd, region)
    if near is not None:
        near = np.asarray(near, float).reshape(2, -1) - [[left], [bottom]]
    radius = 0.5 * psf.fwhm if radius is None else radius
    within = 10 * psf.fwhm if within is None else within
    margin = 3 * psf.fwhm if margin is None else margin
    if not (radius > 0 and within >= 0 and margin >= 0):
        raise ValueError(
            f"radius {radius} must be positive, within {within} and margin {margin} not negative"
        )
    if not callable(measure):
        measure = _measurement(psf, measure or {}, detection or {}, gain)
    places, photons = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(places)
    x, y, frame = _places(rng, np.shape(ccd), n, near, within, margin, per_frame, psf.fwhm)
    flux = low * (high / low) ** rng.random(n)
    seeds = photons.spawn(int(frame[-1]) + 1)

    def recover(number):
        mine = frame == number
        with_stars = inject_stars(
            ccd, x[mine], y[mine], flux[mine], psf=psf, gain=gain, seed=seeds[number]
        )
        return _match(measure(with_stars), x[mine], y[mine], flux[mine], radius, ratio)

    with ThreadPoolExecutor(threads) as pool:
        found = np.concatenate(list(pool.map(recover, range(len(seeds)))))
    x, y = x + left, y + bottom
    found[:, :2] += left, bottom
    table = Table({"x": x, "y": y, "flux": flux, "frame": frame})
    table["found"] = np.isfinite(found[:, 2])
    for k, name in enumerate(("x_found", "y_found", "flux_found", "flux_err")):
        table[name] = found[:, k]
    table.meta = {"seed": seed, "n_frames": len(seeds), "radius": radius, "ratio": ratio}
    return table


def _flux_range(fluxes):
    """Return the two limits, or say what they must be."""
    limits = np.asarray(fluxes, float)
    if limits.shape != (2,) or not 0 < limits[0] <= limits[1] < np.inf:
        raise ValueError(f"fluxes {fluxes} must be two positive numbers, the smaller one first")
    return limits


def _gain(ccd, gain):
    """Return the gain; without it the photons of a star cannot be drawn."""
    if gain is None and getattr(getattr(ccd, "unit", None), "name", "") == "electron":
        return 1.0
    if gain is None or not gain > 0:
        raise ValueError(
            f"gain {gain} is not a positive number (e-/ADU): without it the photons of an added "
            "star have no noise. `datared.camera.photon_transfer` measures it"
        )
    return gain


def _cut(ccd, region):
    """Cut out a part of a frame, with its flags, and return its first column and row."""
    if region is None:
        return ccd, 0, 0
    ny, nx = np.shape(ccd)
    x0, x1, y0, y1 = (round(float(value)) for value in region)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, nx - 1), min(y1, ny - 1)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"region {region} is not on a frame of {nx} x {ny} px (x0, x1, y0, y1)")
    part = slice(y0, y1 + 1), slice(x0, x1 + 1)
    cut = ccd[part]
    # astropy cuts data, mask and coordinates, but not flags.
    if getattr(ccd, "flags", None) is not None and hasattr(ccd, "unit"):
        cut.flags = np.asarray(ccd.flags)[part]
    return cut, x0, y0


def _measurement(psf, options, detection, gain):
    """Return the function that finds stars with `detect` and fits them with `psf_photometry`."""
    from .psf import psf_photometry

    options = {"gain": gain, **options}
    detection = {"fwhm": psf.fwhm, "gain": gain, **detection}

    def measure(frame):
        stars = detect(frame, **detection)
        return psf_photometry(frame, stars["x"], stars["y"], psf=psf, **options)[0]

    return measure


def _places(rng, shape, n, near, within, margin, per_frame, fwhm):
    """Draw places, and the number of the copy in which each star stands."""
    ny, nx = shape
    width, height = nx - 1 - 2 * margin, ny - 1 - 2 * margin
    if width <= 0 or height <= 0:
        raise ValueError(f"a frame of {nx} x {ny} px has no place inside a margin of {margin:g} px")
    least, area = SEPARATION * fwhm, width * height
    if near is not None:
        inside = (np.abs(near[0] - (nx - 1) / 2) <= width / 2) & (
            np.abs(near[1] - (ny - 1) / 2) <= height / 2
        )
        near = near[:, inside]
        if not near.shape[1]:
            raise ValueError(f"none of the places is on the frame inside the margin {margin:g} px")
        # A larger circle covers the frame, too, and nearly all places in it would be outside.
        within = min(within, math.hypot(width, height))
        area = min(area, near.shape[1] * math.pi * within**2)
    if per_frame is None:
        per_frame = max(1, int(COVER * area / (math.pi * (least / 2) ** 2)))
    x, y, frame = np.empty(n), np.empty(n), np.zeros(n, int)
    number = first = k = 0
    while k < n:
        for _ in range(TRIES):
            place = _one_place(rng, width, height, margin, near, within)
            if np.all(np.hypot(x[first:k] - place[0], y[first:k] - place[1]) >= least):
                (x[k], y[k]), frame[k] = place, number
                k += 1
                break
        else:
            number, first = number + 1, k
            continue
        if k - first == per_frame and k < n:
            number, first = number + 1, k
    return x, y, frame


def _one_place(rng, width, height, margin, near, within):
    """Draw one place: on the frame, or in a circle around one of the given places."""
    while True:
        a, b, c = rng.random(3)
        if near is None:
            return margin + a * width, margin + b * height
        row = int(a * near.shape[1])
        r, angle = within * math.sqrt(b), 2 * math.pi * c
        x, y = near[0, row] + r * math.cos(angle), near[1, row] + r * math.sin(angle)
        if 0 <= x - margin <= width and 0 <= y - margin <= height:
            return x, y


def _match(measured, x, y, flux, radius, ratio):
    """Return x, y, flux and its error of the measured star nearest to each, NaN where lost."""
    found = np.full((x.size, 4), np.nan)
    if not len(measured):
        return found
    columns = [np.asarray(measured[name], float) for name in ("x", "y", "flux", "flux_err")]
    rows = np.column_stack([column.reshape(len(measured), -1)[:, 0] for column in columns])
    rows = rows[np.all(np.isfinite(rows[:, :3]), axis=1) & (rows[:, 2] > 0)]
    if not len(rows):
        return found
    distance, index = cKDTree(rows[:, :2]).query(np.column_stack([x, y]))
    near = rows[index]
    factor = near[:, 2] / flux
    good = (distance <= radius) & (factor <= ratio) & (factor >= 1 / ratio)
    found[good] = near[good]
    return found
