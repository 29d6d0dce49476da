"""Instrumental magnitudes, passbands and colours: words that every step of a calibration shares.

``m_inst = -2.5 log10(flux / exposure)``. Every magnitude column carries its system in
``meta["system"]``; two systems never meet unnoticed.
"""

import re

import numpy as np
from astropy.table import MaskedColumn

from .errors import DataredError

__all__ = [
    "colour",
    "instrumental_magnitude",
    "magnitude_error",
    "passband",
    "plain_values",
    "system_of",
]


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
    value = plain_values(blue) - plain_values(red)
    column = MaskedColumn(value, mask=~np.isfinite(value), name=f"{blue.name}-{red.name}")
    column.meta["system"] = systems[0]
    return column


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


def plain_values(values):
    """Values as plain floats, NaN where they are masked.

    Parameters
    ----------
    values : array_like of float
        A number, list, array or column.

    Returns
    -------
    numpy.ndarray of float
        A new array.
    """
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)


def system_of(column):
    """System of a column's magnitudes.

    Parameters
    ----------
    column : astropy.table.Column or array_like
        Magnitudes.

    Returns
    -------
    str
        What its ``meta["system"]`` says; empty where nothing is written.
    """
    return getattr(column, "meta", {}).get("system", "")
