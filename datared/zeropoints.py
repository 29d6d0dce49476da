"""Zero points, colours and fluxes: what a magnitude means and which ones may meet.

Signs: ``m_inst = -2.5 log10(flux / exposure)`` and ``m = m_inst + zero_point``. Every magnitude
column carries its system in ``meta["system"]``; two systems never meet unnoticed.
"""

import re
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.stats import mad_std
from astropy.table import MaskedColumn

from .errors import DataredError

__all__ = [
    "ZeroPoint",
    "colour",
    "instrumental_magnitude",
    "jansky_per_adu",
    "magnitude_error",
    "passband",
    "to_jansky",
    "zero_point",
]

#: Error of a median over that of a mean, for Gaussian scatter: sqrt(pi / 2).
MEDIAN_PENALTY = 1.2533


def instrumental_magnitude(flux, exposure):
    """Instrumental magnitude, the same for any exposure time.

    Parameters
    ----------
    flux : array_like of float
        Flux in counts.
    exposure : float or array_like of float
        Exposure time in seconds.

    Returns
    -------
    numpy.ndarray of float
        ``-2.5 log10(flux / exposure)``; NaN where the flux is not positive.

    Examples
    --------
    >>> float(instrumental_magnitude(6000.0, 60.0))
    -5.0
    """
    flux = np.asarray(flux, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return -2.5 * np.log10(np.where(flux > 0, flux, np.nan) / np.asarray(exposure, float))


def magnitude_error(flux, flux_err):
    """Error of a magnitude, ``1.0857 flux_err / flux``; NaN where the flux is not positive.

    Parameters
    ----------
    flux, flux_err : array_like of float
        Flux and its error.

    Returns
    -------
    numpy.ndarray of float
        Standard deviation in magnitudes.

    Examples
    --------
    >>> round(float(magnitude_error(100.0, 1.0)), 5)
    0.01086
    """
    flux = np.asarray(flux, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 2.5 / np.log(10) * np.asarray(flux_err, float) / np.where(flux > 0, flux, np.nan)


@dataclass(frozen=True)
class ZeroPoint:
    """A zero point and how it was found.

    Parameters
    ----------
    value : float
        ``m_catalogue - m_instrumental``; NaN where there were too few stars.
    error : float
        Its standard error.
    scatter : float
        Standard deviation of one star around it (from the MAD).
    n : int
        Number of stars that were used.
    used : numpy.ndarray of bool
        Which ones.
    system : str
        System of the catalogue's magnitudes.
    """

    value: float
    error: float
    scatter: float
    n: int
    used: np.ndarray
    system: str = ""


def zero_point(instrumental, catalogue, *, exclude=None, clip=3.0, min_stars=3, system=None):
    """Zero point: the median difference, without outliers.

    Stars farther from the median than ``clip`` times the width (from the MAD) are left out, again
    and again until none is.

    Parameters
    ----------
    instrumental, catalogue : array_like of float, shape (n,)
        Magnitudes of the same stars; masked or NaN ones do not count.
    exclude : array_like of bool, shape (n,), optional
        Stars not to use: saturated, flagged, variable.
    clip : float
        Clipping limit in standard deviations.
    min_stars : int
        With fewer stars there is no zero point: NaN, and no error raised.
    system : str, optional
        System that is wanted, for example ``"PS1 AB"``.

    Returns
    -------
    ZeroPoint
        With ``error = 1.2533 scatter / sqrt(n)``.

    Raises
    ------
    DataredError
        If the catalogue's magnitudes are in another system than the one wanted.

    Examples
    --------
    >>> found = zero_point([-5.0, -4.0, -3.0, -6.0], [20.0, 21.01, 21.99, 12.0])
    >>> found.value, found.n
    (25.0, 3)
    """
    known = getattr(catalogue, "meta", {}).get("system", "")
    if system is not None and known and known != system:
        raise DataredError(
            f"the catalogue's magnitudes are {known!r}, wanted is {system!r}: transform one of them"
        )
    difference = _filled(catalogue) - _filled(instrumental)
    used = np.isfinite(difference)
    if exclude is not None:
        used &= ~np.asarray(exclude, bool)
    while np.count_nonzero(used) >= max(min_stars, 1):
        middle, width = np.median(difference[used]), mad_std(difference[used])
        with np.errstate(invalid="ignore"):
            # Equal differences of most stars have a MAD of zero: then nothing is clipped away.
            far = used & (np.abs(difference - middle) > clip * width) & (width > 0)
        if not far.any() or np.count_nonzero(used & ~far) < min_stars:
            n = int(np.count_nonzero(used))
            error = float(MEDIAN_PENALTY * width / np.sqrt(n))
            return ZeroPoint(float(middle), error, float(width), n, used, system or known)
        used &= ~far
    n = int(np.count_nonzero(used))
    return ZeroPoint(np.nan, np.nan, np.nan, n, used, system or known)


def colour(blue, red):
    """Colour index, with the guard that both magnitudes are in one system.

    Parameters
    ----------
    blue, red : astropy.table.Column
        Magnitude columns with ``meta["system"]``.

    Returns
    -------
    astropy.table.MaskedColumn
        ``blue - red``, with their system in ``meta["system"]``.

    Raises
    ------
    DataredError
        If the systems differ or one has none.
    """
    systems = [column.meta.get("system") for column in (blue, red)]
    if systems[0] != systems[1] or not systems[0]:
        raise DataredError(
            f"{blue.name} is in the system {systems[0]!r} and {red.name} in {systems[1]!r}: a "
            "colour needs one system; transform one of the two"
        )
    value = _filled(blue) - _filled(red)
    column = MaskedColumn(value, mask=~np.isfinite(value), name=f"{blue.name}-{red.name}")
    column.meta["system"] = systems[0]
    return column


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
        Jansky.

    Raises
    ------
    DataredError
        If the magnitudes are not AB (Vega magnitudes have another zero in each band), or of no
        known system.

    Examples
    --------
    >>> print(f"{to_jansky(16.4, system='PS1 AB'):.4e}")
    1.0001e-03 Jy
    """
    _require_ab(system or getattr(magnitude, "meta", {}).get("system"))
    return 3631 * 10 ** (-0.4 * _filled(magnitude)) * u.Jy


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
    """
    _require_ab(system)
    return 3631 * 10 ** (-0.4 * float(value)) / float(exposure) * u.Jy


def passband(name):
    """Name of the passband of a filter: ``g'``, ``SDSS-g`` and ``Sloan g`` are g.

    Parameters
    ----------
    name : str
        Filter as the header has it.

    Returns
    -------
    str
        The last letter or word; case is kept, for R and r are two bands.

    Examples
    --------
    >>> [passband(name) for name in ("g", "r'", "SDSS i", "Bessell_V", "none")]
    ['g', 'r', 'i', 'V', 'none']
    """
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name.strip()) if word]
    return words[-1] if words else name


def _filled(values):
    """Values as plain floats, NaN where they are masked."""
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)


def _require_ab(system):
    """Refuse what is not an AB magnitude."""
    if not system or not str(system).endswith("AB"):
        raise DataredError(
            f"magnitudes of the system {system!r} have no common flux zero point: janskys "
            "come from AB magnitudes only (for example 'PS1 AB')"
        )
