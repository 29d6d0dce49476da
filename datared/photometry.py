"""Aperture photometry of one frame: fluxes in several radii, their errors and their flags.

One policy for every star that cannot be measured: the row stays, the flux is NaN, a flag says why.
"""

import math

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from . import pixels
from .apertures import (
    BAD_PIXEL,
    EDGE,
    NEGATIVE,
    NEIGHBOUR,
    NO_POSITION,
    NO_WCS,
    OUTSIDE,
    POOR_ANNULUS,
    SATURATED,
    sky_annuli,
    sum_apertures,
)

__all__ = [
    "FLAG_NAMES",
    "aperture_photometry",
    "best_radius",
    "describe_flags",
    "growth_curve",
]

#: Name and bit of every photometry flag.
FLAG_NAMES = {
    "edge": EDGE,
    "outside": OUTSIDE,
    "saturated": SATURATED,
    "bad pixel": BAD_PIXEL,
    "poor annulus": POOR_ANNULUS,
    "neighbour": NEIGHBOUR,
    "negative": NEGATIVE,
    "no position": NO_POSITION,
    "no WCS": NO_WCS,
}

#: Where the sky comes from; what each does is told in `aperture_photometry`.
BACKGROUNDS = ("annulus-median", "annulus-mean", "none")

#: With a smaller share of good pixels than this an annulus is poor.
POOR_SHARE = 0.5

#: Stars farther away than the radius and this many widths are no neighbours, however bright.
NEIGHBOUR_REACH = 8.0


def aperture_photometry(
    ccd,
    x,
    y,
    *,
    radii,
    annulus,
    background="annulus-median",
    gain=None,
    read_noise=0.0,
    fwhm=None,
    neighbour_ratio=0.01,
    scintillation=0.0,
    partial="nan",
):
    r"""Sum the light of stars in circles, subtract the sky, and say how sure the numbers are.

    The master equation of aperture photometry, with the sum ``S`` over the aperture, its area
    ``n_ap`` and the sky per pixel ``s`` from the annulus:

    .. math:: F = S - n_{ap} \, s

    Circles are summed exactly: a pixel counts by the share of its area inside. The error holds the
    photons of the star, the scatter of the sky in the aperture (``sigma`` per pixel, measured in
    the annulus: sky photons, dark current, read noise and digitisation) and the error of the level:

    .. math:: \sigma_F^2 = F / g + n_{ap} \sigma^2 + n_{ap}^2 \sigma^2 q / n_{an}

    with ``q = 1`` for a mean and ``q = pi / 2`` for a median (Howell 2006, Handbook of CCD
    Astronomy, section 4.4).

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        Reduced frame. Its ``flags`` (bits of `datared.pixels`), or else its ``mask``, name the bad
        pixels.
    x, y : array_like of float, shape (n,)
        Positions in pixels, 0-based, ``x`` along axis 1.
    radii : float or sequence of float, length nr
        Radii of the apertures in pixels.
    annulus : tuple of float
        Inner and outer radius of the sky annulus in pixels.
    background : str
        ``"annulus-median"``: median of the pixels whose centres are in the annulus, clipped at 3
        standard deviations from the median until nothing changes (width from the MAD).
        ``"annulus-mean"``: the literal master equation, the mean over the exact area, no clipping:
        one bright neighbour in the annulus spoils it. ``"none"``: the sky is subtracted already;
        the annulus gives the noise only.
    gain : float, optional
        Electrons per unit of the frame (e-/ADU); 1 for a frame whose unit is electron. Without it
        the photons of the star cannot be counted and the error is a lower limit;
        ``meta["errors"]`` says which it is.
    read_noise : float
        Read noise in electrons. It is in the measured scatter of the sky already; here it tells how
        much of that scatter is Poissonian, for the median (see Notes).
    fwhm : float, optional
        Width of the stars in pixels, for the flag of neighbours (the smallest radius without it).
    neighbour_ratio : float
        A star is flagged if another one of the list brings more than this share of its own light
        into the aperture, as a Moffat profile has it.
    scintillation : float
        Relative error to add in quadrature, see `scintillation`.
    partial : str
        What an aperture that crosses the edge of the frame gets: ``"nan"``, or ``"keep"`` for the
        sum of what is inside.

    Returns
    -------
    astropy.table.Table
        One row for each position, in their order: ``x``, ``y``, ``flux``, ``flux_err``, ``flags``
        (each of shape ``(nr,)``), ``sky`` and ``sky_err`` (level of one pixel and its error),
        ``sky_std`` (scatter of one pixel), ``n_sky`` (pixels used). ``meta``: ``radii``,
        ``annulus``, ``background``, ``gain``, ``errors``.

    Raises
    ------
    ValueError
        If an option is not valid.

    Notes
    -----
    The median of Poissonian counts lies a sixth of an electron below their mean (the third moment
    over 6 times the variance). With a gain, the median sky is raised by ``(1 - R^2 / (g sigma)^2)
    / (6 g)``: in a large aperture on a faint sky this is half a percent of a star of S/N 50.

    The flags are bits, see `FLAG_NAMES`:

    ============ ==================================================================== ===========
    name         meaning                                                              flux
    ============ ==================================================================== ===========
    edge         the aperture crosses the edge of the frame or of its valid part      NaN (or kept)
    outside      the star is not on the frame                                         NaN
    saturated    a saturated pixel in the aperture                                    lower limit
    bad pixel    a flagged pixel in the aperture: kept; one without a value (NaN): a sum that
                 misses light is no flux                                              kept or NaN
    poor annulus less than half of the annulus is good; fewer than 8 pixels: no sky   kept or NaN
    neighbour    another star of the list brings light into the aperture              kept
    negative     the flux is not positive; its error is still right                   kept
    no position  a coordinate is NaN                                                  NaN
    no WCS       the frame has no world coordinates        NaN
    ============ ==================================================================== ===========

    Examples
    --------
    >>> frame = np.full((101, 101), 10.0)
    >>> frame[50, 50] += 5000
    >>> star = aperture_photometry(frame, 50, 50, radii=10, annulus=(20, 30))[0]
    >>> round(float(star["flux"][0]), 2), float(star["sky"])
    (5000.0, 10.0)
    """
    radii = np.atleast_1d(np.asarray(radii, float))
    inner, outer = (float(radius) for radius in annulus)
    _check_options(radii, inner, outer, background, gain, partial)
    data, flags = _planes(ccd)
    if gain is None and getattr(getattr(ccd, "unit", None), "name", "") == "electron":
        gain = 1.0
    x, y = (np.array(np.atleast_1d(value), float) for value in np.broadcast_arrays(x, y))
    keep = partial == "keep"
    total, area, total2, area2, bits = sum_apertures(data, flags, x, y, radii, keep)
    level, level_err, std, n_sky, share = sky_annuli(data, flags, x, y, inner, outer, background)
    if gain is not None and background == "annulus-median":
        level = level + _skewness(std, gain, read_noise)
    flux = total - area * level[:, None]
    variance = area2 * std[:, None] ** 2 + (area * level_err[:, None]) ** 2
    if gain is not None:
        variance += np.maximum(total2 - area2 * level[:, None], 0) / gain
    variance += (scintillation * flux) ** 2
    poor = (share < POOR_SHARE)[:, None] & ((bits & (OUTSIDE | NO_POSITION)) == 0)
    bits[poor] |= POOR_ANNULUS
    with np.errstate(invalid="ignore"):
        bits[flux <= 0] |= NEGATIVE
    width = fwhm if fwhm is not None and fwhm > 0 else radii.min()
    bits[_neighbours(x, y, flux[:, np.argmin(radii)], radii, width, neighbour_ratio)] |= NEIGHBOUR
    table = Table({"x": x, "y": y, "flux": flux, "flux_err": np.sqrt(variance), "flags": bits})
    table["sky"], table["sky_err"], table["sky_std"], table["n_sky"] = level, level_err, std, n_sky
    table.meta = {
        "radii": [float(radius) for radius in radii],
        "annulus": [inner, outer],
        "background": background,
        "gain": gain,
        "errors": "complete" if gain else "lower limit: no gain, photons of the star not counted",
    }
    return table


def growth_curve(flux, *, flags=None):
    """Share of the light of the largest aperture in each aperture: the curve of growth.

    Parameters
    ----------
    flux : array_like of float, shape (..., nr)
        Fluxes; the last axis is the radius. Stars with a flux that is not positive do not count.
    flags : array_like of int, shape (..., nr), optional
        Flags; a star with any flag in any radius does not count.

    Returns
    -------
    numpy.ndarray of float, shape (nr,)
        Median over the stars; NaN where there is none.
    """
    flux = np.asarray(flux, float).reshape(-1, np.shape(flux)[-1])
    good = np.all(np.isfinite(flux) & (flux > 0), axis=1)
    if flags is not None:
        good &= ~np.any(np.reshape(flags, flux.shape), axis=1)
    if not good.any():
        return np.full(flux.shape[1], np.nan)
    return np.median(flux[good] / flux[good, -1:], axis=0)


def best_radius(flux, flux_err, *, flags=None, signal_range=(20.0, 300.0)):
    """Index of the radius that gives the best signal-to-noise for moderately bright stars.

    Very bright stars want large apertures and faint ones small; the choice is for those between.
    It never looks at how a star changes in time.

    Parameters
    ----------
    flux, flux_err : array_like of float, shape (..., nr)
        Fluxes and errors; the last axis is the radius.
    flags : array_like of int, shape (..., nr), optional
        Measurements with any flag do not count.
    signal_range : tuple of float
        Signal-to-noise of the stars that count, in their best radius; all stars are taken where
        none is in the range.

    Returns
    -------
    int
        Index of the radius whose median relative signal-to-noise is the largest.

    Examples
    --------
    >>> best_radius([[90.0, 100.0, 101.0]], [[2.0, 2.0, 3.0]])
    1
    """
    n_radii = np.shape(flux)[-1]
    flux, error = (np.asarray(value, float).reshape(-1, n_radii) for value in (flux, flux_err))
    good = np.all(np.isfinite(flux) & (flux > 0) & np.isfinite(error) & (error > 0), axis=1)
    if flags is not None:
        unflagged = good & ~np.any(np.reshape(flags, flux.shape), axis=1)
        good = unflagged if unflagged.any() else good
    if not good.any():
        return n_radii // 2
    signal = flux[good] / error[good]
    best = signal.max(axis=1)
    moderate = (best >= signal_range[0]) & (best <= signal_range[1])
    if moderate.any():
        signal, best = signal[moderate], best[moderate]
    return int(np.argmax(np.median(signal / best[:, None], axis=0)))


def describe_flags(bits):
    """Names of the flags in a number.

    Parameters
    ----------
    bits : int
        Sum of flags.

    Returns
    -------
    list of str
        Names as in `FLAG_NAMES`.

    Examples
    --------
    >>> describe_flags(36)
    ['saturated', 'neighbour']
    """
    return [name for name, bit in FLAG_NAMES.items() if int(bits) & bit]


def _check_options(radii, inner, outer, background, gain, partial):
    """Refuse options that mean nothing, with what would be valid."""
    if radii.ndim != 1 or not radii.size or not np.all(np.isfinite(radii) & (radii > 0)):
        raise ValueError(f"radii {radii} must be positive numbers of pixels")
    if not 0 <= inner < outer:
        raise ValueError(f"annulus ({inner}, {outer}) must be an inner and a larger outer radius")
    if background not in BACKGROUNDS:
        raise ValueError(f"background {background!r} is not one of {', '.join(BACKGROUNDS)}")
    if gain is not None and not gain > 0:
        raise ValueError(f"gain {gain} must be positive (e-/ADU), or None where it is not known")
    if partial not in ("nan", "keep"):
        raise ValueError(f"partial {partial!r} must be 'nan' or 'keep'")


def _planes(ccd):
    """Return pixels (float) and pixel flags (uint16) of a frame, contiguous."""
    data = np.asarray(ccd.data if hasattr(ccd, "unit") else ccd)
    if data.ndim != 2:
        raise ValueError(f"a frame has two axes, this one has {data.ndim}")
    data = np.ascontiguousarray(data, np.float32 if data.dtype == np.float32 else np.float64)
    flags = getattr(ccd, "flags", None) if hasattr(ccd, "unit") else None
    if flags is None:
        mask = getattr(ccd, "mask", None)
        flags = np.zeros(data.shape, np.uint16)
        if mask is not None and mask is not np.ma.nomask:
            flags[np.broadcast_to(mask, data.shape)] = pixels.HOT
    return data, np.ascontiguousarray(flags, np.uint16)


def _skewness(std, gain, read_noise):
    """How far the median of counts with this scatter lies below their mean, in counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        poissonian = 1 - np.square(read_noise / (gain * std))
    return np.where(std > 0, np.maximum(poissonian, 0), 0) / (6 * gain)


def _neighbours(x, y, flux, radii, fwhm, ratio):
    """Tell for each star and radius whether another star brings more than ``ratio`` of its light.

    The light of the other one in the aperture is estimated as area times brightness of a Moffat
    profile (beta 3.5) at a third of the radius inside the distance, at most all of its light.
    """
    near = np.zeros((x.size, radii.size), bool)
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if known.size < 2:
        return near
    tree = cKDTree(np.column_stack([x[known], y[known]]))
    pairs = known[tree.query_pairs(radii.max() + NEIGHBOUR_REACH * fwhm, output_type="ndarray")]
    star, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    distance = np.hypot(x[star] - x[other], y[star] - y[other])
    # A star that could not be measured (a core without values, the edge) may be bright: it counts
    # as equal. A star without light of its own has a neighbour in whatever is there.
    light = np.where(np.isfinite(flux[other]), flux[other], np.nan_to_num(flux[star], nan=1.0))
    own = np.maximum(np.nan_to_num(flux[star], nan=np.inf), 0)
    beta = 3.5
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    for k, radius in enumerate(radii):
        depth = np.maximum(distance - radius / 3, 0) / alpha
        share = (beta - 1) * (radius / alpha) ** 2 * (1 + depth**2) ** -beta
        near[star[light * np.minimum(share, 1) > ratio * own], k] = True
    return near
