"""Aperture photometry of one frame: fluxes in several radii, their errors and their flags.

One policy for every star that cannot be measured: the row stays, the flux is NaN, a flag says why.
"""

import numpy as np
from astropy.table import Table

from . import pixels
from .apertures import (
    BAD_PIXEL,
    EDGE,
    NEGATIVE,
    NEIGHBOUR,
    NO_POSITION,
    NO_WCS,
    NOT_CENTRED,
    OUTSIDE,
    POOR_ANNULUS,
    SATURATED,
    neighbours,
    over_stars,
    sum_apertures,
)
from .centring import recentre_stars
from .growth import best_radius, growth_curve
from .skylevels import BACKGROUNDS, sky_levels

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
    "not centred": NOT_CENTRED,
}


def aperture_photometry(
    ccd,
    x,
    y,
    *,
    radii,
    annulus,
    background="annulus-median",
    sky=None,
    gain=None,
    read_noise=0.0,
    flat_noise=0.0,
    scintillation=0.0,
    fwhm=None,
    neighbour_ratio=0.01,
    partial="nan",
    bad_pixels="fill",
    recentre=None,
    threads=None,
):
    r"""Sum the light of stars in circles, subtract the sky, and say how sure the numbers are.

    The master equation of aperture photometry, with the values ``v`` of the pixels, the share ``w``
    of each that lies inside the circle, the area ``n_ap`` (the sum of ``w``) and the sky per pixel
    ``s``:

    .. math:: F = \sum w v - n_{ap} \, s

    Circles are cut exactly. The error is the complete equation of a CCD, each pixel's noise by its
    share squared:

    .. math:: \sigma_F^2 = \frac{1}{g} \sum w^2 (v - s) + \sigma^2 \sum w^2 + n_{ap}^2 \sigma_s^2
              + f^2 \sum w^2 (v - s)^2 + (c F)^2

    photons of the star (gain ``g``); scatter ``sigma`` of one pixel of sky, which is measured and
    so holds the sky's photons, dark current, read noise, digitisation and what the flat does to
    the sky; error ``sigma_s`` of the level: ``sigma / sqrt(n)`` for a mean of ``n`` pixels,
    ``sqrt(pi / 2)`` times that for a median; noise ``f`` of the flat under the star; scintillation
    ``c`` (Howell 2006, Handbook of CCD Astronomy, section 4.4).

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        Reduced frame. Its ``flags`` (bits of `datared.pixels`), or else its ``mask``, name the bad
        pixels.
    x, y : array_like of float, shape (n,)
        Positions in pixels, 0-based, ``x`` along axis 1; masked is as good as NaN.
    radii : float or sequence of float, length nr
        Radii of the apertures in pixels.
    annulus : tuple of float
        Inner and outer radius of the sky annulus in pixels.
    background : str
        Where the sky comes from:

        - ``"annulus-median"``: median of the pixels whose centres are in the annulus, clipped at 3
          standard deviations from the median until nothing changes (first width from the MAD).
        - ``"annulus-mean"``: the literal master equation, the mean over the exact area, without
          clipping: one bright neighbour in the annulus spoils it.
        - ``"map"``: a map, see ``sky``, subtracted pixel by pixel.
        - ``"frame"``: one clipped median for the whole frame, `datared.background.sky_statistics`,
          wings of the stars included; cut out a part of the frame to have the sky of that part.
        - ``"profile"``: the constant under a star's profile, fitted within the outer radius of the
          annulus, `datared.starfits.profile_sky`. Where something else is there too (a pair, a
          trail; R squared below 0.9), the row is flagged ``poor annulus``.
        - ``"none"``: the sky is subtracted already.

        The scatter of one pixel comes from the map's noise, from the fit of the profile, and
        otherwise from the annulus.
    sky : datared.background.Background, optional
        The map of ``background="map"``; `datared.background.background_map` makes one without it.
        The error of its level is taken to be that of boxes of 64 pixels.
    gain : float, optional
        Electrons per unit of the frame (e-/ADU); 1 for a frame whose unit is electron. Without it
        the photons of the star cannot be counted and the error is a lower limit;
        ``meta["errors"]`` says which it is.
    read_noise : float
        Read noise in electrons. It is in the measured scatter of the sky already; here it tells how
        much of that scatter is Poissonian, for the median (see Notes).
    flat_noise : float
        Relative noise of one pixel of the master flat.
    scintillation : float
        Relative error to add in quadrature, see `datared.times.scintillation`.
    fwhm : float, optional
        Width of the stars in pixels: with it the pixels closer than 1.5 widths to another star of
        the list are left out of an annulus, for the wings of faint stars lift a median (if a tenth
        is left; not for ``"annulus-mean"``). Also for the flag of neighbours and where a star's
        profile is needed; there the smallest radius stands for it.
    neighbour_ratio : float
        A star is flagged if another one of the list brings more than this share of its own light
        into the aperture, as a Moffat profile has it.
    partial : str
        What an aperture that crosses the edge of the frame gets: ``"nan"``, or ``"keep"`` for the
        sum of what is inside.
    bad_pixels : str
        What becomes of a bad pixel in an aperture that nothing repaired; its own value never
        counts, and the flag is set. ``"fill"``: the pixel opposite to it through the star's centre
        stands for it, by a Moffat profile; where that one is bad, too, there is no flux. The error
        knows that one noise counts twice then, not what the profile is: a core pixel is wrong by
        0.1 % of the star at a FWHM of 3 px, 0.5 % without ``fwhm``. ``"nan"``: no flux.
    recentre : float, optional
        Largest shift in pixels by which a position may be moved to the centroid of its star;
        positions stay as they are without it.
    threads : int, optional
        Number of threads; the result does not depend on it.

    Returns
    -------
    astropy.table.Table
        One row for each position, in their order: ``x``, ``y``, ``flux``, ``flux_err``, ``flags``
        (each of shape ``(nr,)``), ``sky`` and ``sky_err`` (level of one pixel and its error),
        ``sky_std`` (scatter of one pixel), ``n_sky`` (pixels used); with ``recentre`` also
        ``shift`` (pixels). ``meta``: ``radii``, ``annulus``, ``background``, ``gain``,
        ``read_noise``, ``flat_noise``, ``scintillation``, ``bad_pixels``, ``recentre``,
        ``errors``.

    Raises
    ------
    ValueError
        If an option is not valid.
    FrameError
        If the frame has not two axes, or no sky at all for ``"map"`` or ``"frame"``.

    Notes
    -----
    The median of Poissonian counts lies a sixth of an electron below their mean (the third moment
    over 6 times the variance), their mode 0.36. With a gain, these are added to the sky, by the
    Poissonian share ``1 - R^2 / (g sigma)^2`` of the variance: in a large aperture on a faint sky
    this is half a percent of a star of S/N 50. Pixels with any flag are never sky.

    In a small circle the share of a star's light depends on where in a pixel it is, and no error
    says so: by 0.1 % (rms) at a radius of one FWHM of 2.4 px, 0.01 % at two of them.

    The flags are bits, see `FLAG_NAMES`:

    ============ ==================================================================== =============
    name         meaning                                                              flux
    ============ ==================================================================== =============
    edge         the aperture crosses the edge of the frame or of its valid part      NaN (or kept)
    outside      the star is not on the frame                                         NaN
    saturated    a saturated pixel in the aperture                                    lower limit
    bad pixel    a pixel in the aperture is hot, dead, hit by a particle, in a bad    NaN or filled
                 column, hardly lit, in a trail or without a value; repaired: kept
    poor annulus less than half of the annulus is good; fewer than 8 pixels: no sky   kept or NaN
    neighbour    another star of the list brings light into the aperture              kept
    negative     the flux is not positive; its error is still right                   kept
    no position  a coordinate is NaN                                                  NaN
    no WCS       the frame has no world coordinates                                   NaN
    not centred  asked for, but no centroid within the limit: the place given is used kept
    ============ ==================================================================== =============

    Examples
    --------
    >>> frame = np.full((101, 101), 10.0)
    >>> frame[50, 50] += 5000
    >>> star = aperture_photometry(frame, 50, 50, radii=10, annulus=(20, 30))[0]
    >>> round(float(star["flux"][0]), 2), float(star["sky"])
    (5000.0, 10.0)
    """
    radii = np.atleast_1d(np.asarray(radii, float))
    annulus = tuple(float(radius) for radius in annulus)
    _check_options(radii, annulus, background, sky, partial, bad_pixels)
    _check_numbers(gain, read_noise, flat_noise, scintillation, recentre)
    data, flags = _planes(ccd)
    if gain is None and getattr(getattr(ccd, "unit", None), "name", "") == "electron":
        gain = 1.0
    x, y = _positions(x, y)
    known = fwhm is not None and 0 < fwhm < np.inf
    width = float(fwhm) if known else float(radii.min())
    options = {"annulus": annulus, "fwhm": width, "threads": threads}
    shift = None
    if recentre is not None:
        given = x, y
        x, y, centred = recentre_stars(data, flags, x, y, limit=recentre, **options)
        shift = np.hypot(x - given[0], y - given[1])
    order = np.argsort(x, kind="stable")
    order = order[(np.isfinite(x) & np.isfinite(y))[order]]
    # Without a width nobody knows how far a star reaches into the annuli of the others.
    level = sky_levels(
        data, flags, x, y, order=order if known else order[:0], background=background, sky=sky,
        gain=gain, read_noise=read_noise, **options,
    )  # fmt: skip
    sums = np.empty((x.size, radii.size, 5))
    bits = np.empty((x.size, radii.size), np.int32)
    setup = partial == "keep", bad_pixels == "fill", width
    over_stars(
        lambda rows: sum_apertures(data, flags, level.plane, x, y, radii, setup, rows, sums, bits),
        y,
        threads,
    )
    total, area, total2, area2, square2 = np.moveaxis(sums, 2, 0)
    rest = level.rest[:, None]
    flux = total - area * rest
    variance = area2 * level.std[:, None] ** 2 + (area * level.error[:, None]) ** 2
    # Noise of a pixel that is in the sum and in the level is subtracted from itself.
    own = np.reshape(level.own, (-1, 1))
    common = np.maximum(np.minimum(area, level.n[:, None]) - own, 0)
    variance -= 2 * area * common * level.error[:, None] ** 2
    if gain is not None:
        variance += np.maximum(total2 - area2 * rest, 0) / gain
    # Rounding may leave less than nothing of a difference of large numbers.
    variance += flat_noise**2 * np.maximum(square2 - rest * (2 * total2 - rest * area2), 0)
    variance += (scintillation * flux) ** 2
    on_frame = (bits & (OUTSIDE | NO_POSITION)) == 0
    bits[level.poor[:, None] & on_frame] |= POOR_ANNULUS
    if recentre is not None:
        bits[~centred[:, None] & on_frame] |= NOT_CENTRED
    with np.errstate(invalid="ignore"):
        bits[flux <= 0] |= NEGATIVE
    near = np.zeros(bits.shape, bool)
    neighbours(x, y, flux[:, np.argmin(radii)], radii, width, neighbour_ratio, order, near)
    bits[near] |= NEIGHBOUR
    table = Table({"x": x, "y": y, "flux": flux, "flux_err": np.sqrt(variance), "flags": bits})
    table["sky"], table["sky_err"] = level.level, level.error
    table["sky_std"], table["n_sky"] = level.std, level.n
    if shift is not None:
        table["shift"] = shift
    table.meta = {
        "radii": [float(radius) for radius in radii],
        "annulus": list(annulus),
        "background": background,
        "gain": gain,
        "read_noise": float(read_noise),
        "flat_noise": float(flat_noise),
        "scintillation": float(scintillation),
        "bad_pixels": bad_pixels,
        "recentre": recentre,
        "errors": "complete" if gain else "lower limit: no gain, photons of the star not counted",
    }
    return table


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


def _check_options(radii, annulus, background, sky, partial, bad_pixels):
    """Refuse options that mean nothing, with what would be valid."""
    if radii.ndim != 1 or not radii.size or not np.all(np.isfinite(radii) & (radii > 0)):
        raise ValueError(f"radii {radii} must be positive numbers of pixels")
    if len(annulus) != 2 or not 0 <= annulus[0] < annulus[1] < np.inf:
        raise ValueError(f"annulus {annulus} must be an inner and a larger outer radius")
    if background not in BACKGROUNDS:
        raise ValueError(f"background {background!r} is not one of {', '.join(BACKGROUNDS)}")
    if sky is not None and background != "map":
        raise ValueError(f"sky goes with background='map', not with {background!r}")
    if partial not in ("nan", "keep"):
        raise ValueError(f"partial {partial!r} must be 'nan' or 'keep'")
    if bad_pixels not in ("nan", "fill"):
        raise ValueError(f"bad_pixels {bad_pixels!r} must be 'nan' or 'fill'")


def _check_numbers(gain, read_noise, flat_noise, scintillation, recentre):
    """Refuse numbers that mean nothing."""
    if gain is not None and not 0 < gain < np.inf:
        raise ValueError(f"gain {gain} must be positive (e-/ADU), or None where it is not known")
    if recentre is not None and not recentre > 0:
        raise ValueError(f"recentre {recentre} must be the largest shift in pixels, or None")
    for name, value in [
        ("read_noise", read_noise),
        ("flat_noise", flat_noise),
        ("scintillation", scintillation),
    ]:
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} {value} must be zero or positive; 0 where it is not known")


def _positions(x, y):
    """Return positions as two lists of numbers; NaN where a column of a table is masked."""
    x, y = (np.ma.MaskedArray(value, dtype=float).filled(np.nan) for value in (x, y))
    x, y = (np.array(np.atleast_1d(value)) for value in np.broadcast_arrays(x, y))
    if x.ndim != 1:
        raise ValueError(f"x and y must be lists of positions, not arrays of {x.ndim} axes")
    return x, y


def _planes(ccd):
    """Return pixels (float) and pixel flags (uint16; without rows if all are good) of a frame."""
    data, flags = pixels.frame_planes(ccd)
    # Whole numbers of 16 bits fit float32; so does what another machine's byte order brings.
    small = data.dtype.kind in "iub" and data.dtype.itemsize <= 2
    small = small or (data.dtype.kind == "f" and data.dtype.itemsize <= 4)
    data = np.ascontiguousarray(data, np.float32 if small else np.float64)
    if flags is None:
        flags = np.zeros((0, 0), np.uint16)
    return data, np.ascontiguousarray(flags)
