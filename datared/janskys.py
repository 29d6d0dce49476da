"""Fluxes in janskys: what a calibrated magnitude or a pixel value is in physical units.

Only AB magnitudes have one flux zero point for every band, so everything here refuses others.
"""

import astropy.units as u
import numpy as np
from astropy.io import fits

from .errors import DataredError
from .instrumental import plain_values
from .zeropoints import SLOPE_TOLERANCE, LinearZeroPoint

__all__ = ["AB_ZERO_FLUX", "image_to_jansky", "jansky_per_adu", "to_jansky"]

#: Flux density of AB magnitude 0 (Oke & Gunn 1983, ApJ 266, 713), in jansky.
AB_ZERO_FLUX = 3631.0

#: Units of pixels that count something; each may also be per second.
COUNTS = (u.adu, u.electron, u.ct, u.ph, u.dimensionless_unscaled)

#: Cards of a product that hold a pixel value: they follow the pixels.
VALUE_CARDS = ("SKY", "SKYNOISE")


def to_jansky(magnitude, *, system=None):
    """Flux density of an AB magnitude, ``3631 Jy x 10^(-0.4 m)``.

    Parameters
    ----------
    magnitude : float, array_like of float or astropy.table.Column
        AB magnitudes (with the zero point applied).
    system : str, optional
        Their system; by default the column's own ``meta["system"]``.

    Returns
    -------
    astropy.units.Quantity
        Jansky; NaN where a magnitude is masked.

    Raises
    ------
    DataredError
        If the magnitudes are not AB (Vega magnitudes have another zero in each band), of no
        known system, or if ``system`` is not that of the column.

    Examples
    --------
    >>> print(f"{to_jansky(16.4, system='PS1 AB'):.4e}")
    1.0001e-03 Jy
    """
    own = getattr(magnitude, "meta", {}).get("system")
    if system and own and system != own:
        raise DataredError(
            f"the magnitudes are of the system {own!r}, not {system!r}: leave system out"
        )
    _require_ab(system or own)
    return AB_ZERO_FLUX * 10 ** (-0.4 * plain_values(magnitude)) * u.Jy


def jansky_per_adu(value, exposure, *, system):
    """Flux density of one count: ``3631 Jy x 10^(-0.4 ZP) / t``.

    Parameters
    ----------
    value : float
        Zero point.
    exposure : float
        Exposure time in seconds.
    system : str
        System of the zero point; must be AB.

    Returns
    -------
    astropy.units.Quantity
        Jansky for each count.

    Raises
    ------
    DataredError
        If the zero point is not of an AB system.

    Examples
    --------
    >>> print(f"{jansky_per_adu(22.0, 60.0, system='PS1 AB'):.4e}")
    9.5912e-08 Jy
    """
    _require_ab(system)
    return AB_ZERO_FLUX * 10 ** (-0.4 * float(value)) / float(exposure) * u.Jy


def image_to_jansky(ccd, zero_point, *, slope=1.0, exposure=None):
    r"""Image in janskys: every pixel times ``3631 Jy x 10^(-0.4 ZP) / t``.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Image in counts (adu, electrons) or in counts per second. It is not changed.
    zero_point : datared.zeropoints.ZeroPoint or datared.zeropoints.LinearZeroPoint
        Zero point of this frame, from fluxes in the same unit. A straight line stands for its zero
        point with slope 1 (`LinearZeroPoint.fixed`), and must have a slope near 1.
    slope : float
        Slope of catalogue against instrumental magnitudes, if it was fitted: with a slope that is
        not 1 no factor fits both bright and faint stars.
    exposure : float, optional
        Exposure time in seconds; the card EXPTIME without it. Not used for counts per second.

    Returns
    -------
    astropy.nddata.CCDData
        A new image with ``unit`` (card BUNIT) Jy for each pixel; its uncertainty is in janskys,
        mask, flags and WCS are the same. The cards SKY and SKYNOISE follow; GAIN_E becomes
        electrons per jansky, so that photon noise is still right. ``ZP_MAG``, ``ZP_SYS`` and
        ``JY_COUNT`` say what was done.

    Raises
    ------
    DataredError
        If the zero point is not AB or not finite, the slope is farther than 0.1 from 1, the image
        is no image in counts (for example already in Jy), or no exposure time is known.

    Notes
    -----
    A zero point belongs to an aperture. A star summed in that aperture has its catalogue's flux;
    summed in a larger one it has more by what the aperture lacks, see
    `datared.growth.aperture_correction`. Only of a zero point of an aperture with all the light is
    also the sky's surface brightness right.
    """
    if isinstance(zero_point, LinearZeroPoint):
        slope, zero_point = zero_point.slope, zero_point.fixed
    _require_ab(zero_point.system)
    if not np.isfinite(zero_point.value):
        raise DataredError("the zero point is not a number: this frame had too few good stars")
    if not abs(slope - 1) <= SLOPE_TOLERANCE:
        raise DataredError(
            f"the slope is {slope:.3f}: more than {SLOPE_TOLERANCE} from 1, so that one factor "
            "cannot be right for bright and faint stars; look for saturated stars, a wrong sky or "
            "wrong matches first"
        )
    factor = _per_count(ccd, zero_point, exposure)
    result = ccd.copy()
    result.data = (np.asarray(ccd.data, float) * factor).astype(ccd.data.dtype)
    result.unit = u.Jy
    if ccd.uncertainty is not None:
        power = {"std": 1, "var": 2, "ivar": -2}[ccd.uncertainty.uncertainty_type]
        sigma = ccd.uncertainty.array * np.asarray(factor**power, float)
        result.uncertainty = type(ccd.uncertainty)(sigma.astype(ccd.uncertainty.array.dtype))
    cards = {
        card: (float(ccd.meta[card]) * factor, "Jy in a pixel")
        for card in VALUE_CARDS
        if card in ccd.meta
    }
    if "GAIN_E" in ccd.meta:
        cards["GAIN_E"] = (float(ccd.meta["GAIN_E"]) / factor, "e- per Jy")
    cards["ZP_MAG"] = (float(zero_point.value), "mag, zero point that was used")
    cards["ZP_SYS"] = (str(zero_point.system), "its system")
    cards["JY_COUNT"] = (factor, "Jy for each count (or count per second)")
    cards["BUNIT"] = ("Jy", "unit of the pixels")
    for card, (value, comment) in cards.items():
        # Only a FITS header takes a comment.
        result.meta[card] = (value, comment) if isinstance(result.meta, fits.Header) else value
    return result


def _per_count(ccd, zero_point, exposure):
    """Jansky for one unit of the pixels."""
    rates = [unit / u.s for unit in COUNTS]
    if ccd.unit in rates:
        return jansky_per_adu(zero_point.value, 1.0, system=zero_point.system).value
    if ccd.unit not in COUNTS:
        raise DataredError(
            f"the image is in {ccd.unit}: janskys are made of counts (adu, electron, or one of "
            "these per second)"
        )
    exposure = ccd.meta.get("EXPTIME") if exposure is None else exposure
    if exposure is None or not float(exposure) > 0:
        raise DataredError(
            f"the exposure time is {exposure!r}: give it in seconds with exposure=, for the "
            "image has no card EXPTIME that says it"
        )
    return jansky_per_adu(zero_point.value, exposure, system=zero_point.system).value


def _require_ab(system):
    """Refuse what is not an AB magnitude."""
    if not system or not str(system).endswith("AB"):
        raise DataredError(
            f"magnitudes of the system {system!r} have no common flux zero point: janskys "
            "come from AB magnitudes only (for example 'PS1 AB')"
        )
