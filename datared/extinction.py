"""Dust and distance: how much fainter and redder a star looks than it is."""

from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy.table import Table

__all__ = [
    "EXTINCTION",
    "LAWS",
    "WAVELENGTHS",
    "colour_excess",
    "distance_modulus",
    "extinction_ratio",
    "extinction_table",
]

EXTINCTION = {
    "B": 4.315 / 3.315,
    "V": 1.0,
    "R": 2.673 / 3.315,
    "I": 1.940 / 3.315,
    "g": 1.205,
    "r": 0.848,
    "i": 0.630,
}
"""Extinction in each band of the isochrones per magnitude of A_V, for R_V = 3.1.

B, V, R, I: Schlegel, Finkbeiner & Davis (1998, ApJ 500, 525), table 6, the Landolt (Johnson and
Cousins) bands with the law of Cardelli et al. (1989) and O'Donnell (1994). g, r, i: the same law
in the bands of sky surveys, E(g-r) = 0.357 and E(r-i) = 0.218 per A_V.
"""

WAVELENGTHS = {
    "U": (3660.0, "Johnson"),
    "B": (4380.0, "Johnson"),
    "V": (5450.0, "Johnson"),
    "R": (6410.0, "Cousins"),
    "I": (7980.0, "Cousins"),
    "J": (12200.0, "Bessell & Brett"),
    "H": (16300.0, "Bessell & Brett"),
    "K": (21900.0, "Bessell & Brett"),
    "u": (3551.0, "SDSS"),
    "g": (4810.0, "PS1"),
    "r": (6170.0, "PS1"),
    "i": (7520.0, "PS1"),
    "z": (8660.0, "PS1"),
    "y": (9620.0, "PS1"),
    "G": (6217.6, "Gaia DR3"),
    "BP": (5109.7, "Gaia DR3"),
    "RP": (7769.0, "Gaia DR3"),
}
"""Effective wavelength (angstrom, in vacuum or air: the difference does not matter) and survey.

U to K: Bessell, Castelli & Plez (1998, A&A 333, 231), table A2. u: Fukugita et al. (1996, AJ 111,
1748), as the survey uses it. g to y: Tonry et al. (2012, ApJ 750, 99), table 4. G, BP, RP: pivot
wavelengths of Riello et al. (2021, A&A 649, A3).
"""

LAWS = {
    "CCM89": "Cardelli, Clayton & Mathis (1989, ApJ 345, 245)",
    "O94": "O'Donnell (1994, ApJ 422, 158), Cardelli et al. (1989) outside the optical",
    "F99": "Fitzpatrick (1999, PASP 111, 63)",
    "F19": "Fitzpatrick et al. (2019, ApJ 886, 108)",
    "G23": "Gordon et al. (2023, ApJ 950, 86)",
}
"""Extinction laws of the package dust_extinction that cover every band, with their papers."""


@lru_cache(maxsize=64)
def _curve(law, r_v):
    """Return A(band) / A(V) of all bands by a law at their effective wavelengths."""
    from dust_extinction import parameter_averages

    if law not in LAWS:
        raise ValueError(f"law {law!r} is not known; choose one of {', '.join(LAWS)}")
    model = getattr(parameter_averages, law)
    low, high = model.Rv_range
    if not low <= r_v <= high:
        raise ValueError(f"r_v = {r_v:g} is outside the law {law}, which goes from {low} to {high}")
    wavelengths = np.array([value for value, _ in WAVELENGTHS.values()])
    curve = np.asarray(model(Rv=r_v)(wavelengths * u.AA), dtype=float)
    return dict(zip(WAVELENGTHS, curve / curve[list(WAVELENGTHS).index("V")], strict=True))


def extinction_ratio(band, *, r_v=3.1, law=""):
    """Return the extinction in a band per magnitude of extinction in V.

    Parameters
    ----------
    band : str
        One of `WAVELENGTHS`: U B V R I J H K, u, g r i z y, G BP RP.
    r_v : float, optional
        A_V / E(B-V) of the dust, 3.1 on average in the Galaxy.
    law : str, optional
        One of `LAWS`. Empty: the published broad-band values of `EXTINCTION` where there are, and
        the law "O94" (on which they rest) for the other bands and for another ``r_v``.

    Returns
    -------
    float
        A(band) / A(V), no unit; 1 for V.

    Raises
    ------
    ValueError
        For an unknown band or law, or an ``r_v`` that the law does not cover.

    Notes
    -----
    A law is taken at one wavelength of the band. A broad band (G above all) loses more of a blue
    star than of a red one: G, BP and RP are good to 10 % only, the other bands to 3 %.

    Examples
    --------
    >>> extinction_ratio("g")
    1.205
    >>> round(extinction_ratio("K"), 2)
    0.11
    """
    if band not in WAVELENGTHS:
        raise ValueError(f"band {band!r} is not known; choose one of {', '.join(WAVELENGTHS)}")
    r_v = float(r_v)
    if law:
        return float(_curve(law, r_v)[band])
    if band not in EXTINCTION:
        return float(_curve("O94", r_v)[band])
    if r_v == 3.1:
        return EXTINCTION[band]
    return float(EXTINCTION[band] * _curve("O94", r_v)[band] / _curve("O94", 3.1)[band])


def colour_excess(bands, a_v, *, r_v=3.1, law=""):
    """Return by how much dust reddens a colour.

    Parameters
    ----------
    bands : tuple of str
        The two bands of the colour, the bluer first, as ("B", "V").
    a_v : float or array_like
        Extinction in V in magnitudes.
    r_v, law : optional
        As in `extinction_ratio`.

    Returns
    -------
    float or numpy.ndarray
        ``E(b1 - b2) = A(b1) - A(b2)`` in magnitudes.

    Raises
    ------
    ValueError
        As `extinction_ratio`; when ``bands`` are not two or ``a_v`` is negative or not finite.

    Examples
    --------
    >>> round(colour_excess(("g", "r"), 1.0), 3)
    0.357
    """
    if isinstance(bands, str) or len(bands) != 2:
        raise ValueError(f"bands = {bands!r} must be two names, for instance ('g', 'r')")
    if not (np.isfinite(a_v) & (np.asarray(a_v) >= 0)).all():
        raise ValueError(f"a_v = {a_v!r} must be a number >= 0 (magnitudes)")
    first, second = (extinction_ratio(band, r_v=r_v, law=law) for band in bands)
    return (first - second) * (np.asarray(a_v, dtype=float) if np.ndim(a_v) else float(a_v))


def extinction_table(*, r_v=3.1, law=""):
    """Return the extinction of all bands with the source of each number.

    Parameters
    ----------
    r_v, law : optional
        As in `extinction_ratio`.

    Returns
    -------
    astropy.table.Table
        Columns ``band``, ``survey``, ``wavelength`` (angstrom), ``ratio`` (A / A_V), ``source``.

    Raises
    ------
    ValueError
        As `extinction_ratio`.

    Examples
    --------
    >>> table = extinction_table()
    >>> print(table["source"][list(table["band"]).index("B")])
    Schlegel et al. (1998)
    """
    rows = []
    for band, (wavelength, survey) in WAVELENGTHS.items():
        published = not law and band in EXTINCTION
        source = LAWS[law or "O94"] if (law or "O94") in LAWS else ""
        if published:
            source = "Schlegel et al. (1998)" if band in "BVRI" else "Cardelli et al., survey bands"
            source += "" if float(r_v) == 3.1 else f", scaled to R_V {r_v:g} by O'Donnell (1994)"
        rows.append((band, survey, wavelength, extinction_ratio(band, r_v=r_v, law=law), source))
    table = Table(rows=rows, names=["band", "survey", "wavelength", "ratio", "source"])
    table["wavelength"].unit = u.AA
    return table


def distance_modulus(distance):
    """Return ``m - M = 5 log10(d / pc) - 5`` in magnitudes, without extinction.

    Parameters
    ----------
    distance : Quantity
        Distance.

    Returns
    -------
    float
        Distance modulus (mag).

    Raises
    ------
    ValueError
        When the distance has no unit of length or is not positive.

    Examples
    --------
    >>> distance_modulus(1000 * u.pc)
    10.0
    """
    if not isinstance(distance, u.Quantity):
        raise ValueError(f"distance {distance!r} has no unit; give for instance {distance} * u.pc")
    parsec = float(distance.to_value(u.pc))
    if not 0 < parsec < np.inf:
        raise ValueError(f"distance {distance} must be positive and finite")
    return float(5.0 * np.log10(parsec) - 5.0)
