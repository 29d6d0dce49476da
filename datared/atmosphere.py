"""Extinction of the air above a site, by a published formula, for nights that cannot measure it."""

import numpy as np

from .errors import DataredError

__all__ = ["EFFECTIVE_WAVELENGTHS", "SITE_ERROR", "site_extinction"]

#: Effective wavelengths of filters in micrometres, for stars like the Sun.
EFFECTIVE_WAVELENGTHS = {
    **{"U": 0.36, "B": 0.44, "V": 0.545, "R": 0.64, "I": 0.79},
    **{"u": 0.355, "g": 0.475, "r": 0.62, "i": 0.75, "z": 0.89, "y": 0.96},
}
#: Error (mag per airmass) of `site_extinction`: dust and haze change from night to night.
SITE_ERROR = 0.03
#: Ozone above a site in cm, at normal pressure.
OZONE = 0.3


def site_extinction(band, height):
    r"""Extinction of clear air per airmass, from the height of the site.

    Air molecules (Rayleigh), dust and haze (aerosols), both less the higher the site, and ozone,
    with the wavelength :math:`\lambda` in micrometres, the height h in km, and T = 0.3 cm of ozone
    of the strength :math:`\kappa` per cm:

    .. math:: k = 0.0094977 \, \lambda^{-4} n^2 e^{-h / 7.996} + 0.05 \, \lambda^{-0.8} e^{-h / 1.5}
              + 1.11 \, T \kappa(\lambda)

    .. math:: n = 0.23465 + \frac{107.6}{146 - \lambda^{-2}} + \frac{0.93161}{41 - \lambda^{-2}}

    Parameters
    ----------
    band : str or float
        Filter (one of `EFFECTIVE_WAVELENGTHS`), or a wavelength in micrometres.
    height : float
        Height above sea level in metres.

    Returns
    -------
    float
        Magnitudes per airmass. A real night differs by some 0.03 (`SITE_ERROR`), and by more in
        smoke or dust.

    Raises
    ------
    DataredError
        If the filter is not known.

    Notes
    -----
    Hayes & Latham 1975, ApJ 197, 593. Their table of ozone is replaced by a Gaussian for the
    Chappuis band (0.1375 per cm at 0.59 um, width 0.052 um), which is right to 0.01 mag between
    0.35 and 0.9 um.

    Examples
    --------
    >>> round(site_extinction("V", 1283.0), 3), round(site_extinction("B", 1283.0), 3)
    (0.16, 0.268)
    """
    wavelength = EFFECTIVE_WAVELENGTHS.get(band) if isinstance(band, str) else float(band)
    if wavelength is None:
        raise DataredError(
            f"the wavelength of the filter {band!r} is not known, and so is the extinction of the "
            f"air; known are {', '.join(EFFECTIVE_WAVELENGTHS)}: give it in [magnitudes] "
            f'extinction = {{"{band}" = 0.2}}'
        )
    height = float(height) / 1000
    inverse = wavelength**-2
    refraction = 0.23465 + 107.6 / (146 - inverse) + 0.93161 / (41 - inverse)
    air = 0.0094977 * inverse**2 * refraction**2 * np.exp(-height / 7.996)
    dust = 0.05 * wavelength**-0.8 * np.exp(-height / 1.5)
    ozone = 1.11 * OZONE * 0.1375 * np.exp(-188 * (wavelength - 0.59) ** 2)
    return float(air + dust + ozone)
