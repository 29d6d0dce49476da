"""Photometric systems and the published transformations between them.

A magnitude means nothing without its system: the same star is 0.1 mag brighter in one "g" than in
another. Every magnitude column carries the name of its system in ``meta["system"]``, and only the
transformations named here lead from one to another.
"""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import MaskedColumn, Table

from .errors import DataredError
from .instrumental import plain_values

__all__ = [
    "JOHNSON_COUSINS",
    "SYSTEMS",
    "Transformation",
    "johnson_cousins",
    "transform",
    "transformations",
]

#: Names of the systems, and what they are.
SYSTEMS = {
    "PS1 AB": "g, r, i, z, y of Pan-STARRS (Tonry et al. 2012, ApJ 750, 99)",
    "SDSS AB": "u, g, r, i, z of the Sloan survey's 2.5-m telescope",
    "Gaia Vega": "G, BP, RP of Gaia DR3 (Riello et al. 2021, A&A 649, A3)",
    "Johnson Vega": "U, B, V as Landolt's standards define them",
    "Cousins Vega": "R, I as Landolt's standards define them",
    "Landolt Vega": "U, B, V, R, I of a list of Landolt's standards",
    "Tycho Vega": "BT, VT of Tycho-2",
    "instrumental": "counts of a camera, without a zero point",
}
#: Landolt's U, B, V are what is called Johnson's today, his R and I Cousins's.
JOHNSON_COUSINS = {name: "Johnson Vega" for name in "UBV"} | {name: "Cousins Vega" for name in "RI"}


@dataclass(frozen=True)
class Transformation:
    """A published way from one photometric system to another.

    Parameters
    ----------
    name : str
        Its name.
    origin : str
        System of the magnitudes that go in.
    bands : dict
        For each band that comes out: the magnitude it starts from, the two of the colour, the
        coefficients of 1, colour, colour^2 ..., the scatter of a star (mag; published, but for
        Jordi et al. our own estimate), and the range of the colour.
    target : dict
        System of each band that comes out.
    source : str
        Where it was published.
    """

    name: str
    origin: str
    bands: dict
    target: dict
    source: str


def _list(*entries):
    """Give transformations by their names."""
    return {entry.name: entry for entry in entries}


def _on(blue, red, colours, **bands):
    """Bands that start from a magnitude, with one colour and one range."""
    return {
        name: (base, (blue, red), coefficients, scatter, colours)
        for name, (base, coefficients, scatter) in bands.items()
    }


_TRANSFORMATIONS = _list(
    Transformation(
        "PS1 to Johnson-Cousins (Tonry 2012)",
        "PS1 AB",
        _on(
            *("g", "r", (-0.4, 1.3)),
            B=("g", (0.212, 0.556, 0.034), 0.032),
            V=("r", (0.005, 0.462, 0.013), 0.012),
            R=("r", (-0.137, -0.108, -0.029), 0.015),
            I=("i", (-0.366, -0.136, -0.018), 0.017),
        ),
        JOHNSON_COUSINS,
        "Tonry et al. 2012, ApJ 750, 99, table 6 (quadratic)",
    ),
    Transformation(
        "PS1 to SDSS (Tonry 2012)",
        "PS1 AB",
        _on(
            *("g", "r", (-0.4, 1.3)),
            g=("g", (0.013, 0.145, 0.019), 0.008),
            r=("r", (-0.001, 0.004, 0.007), 0.004),
            i=("i", (-0.005, 0.011, 0.010), 0.004),
            z=("z", (0.013, -0.039, -0.012), 0.010),
        ),
        {name: "SDSS AB" for name in "griz"},
        "Tonry et al. 2012, ApJ 750, 99, table 6 (quadratic)",
    ),
    Transformation(
        "SDSS to Johnson-Cousins (Jordi 2006)",
        "SDSS AB",
        # The paper gives errors of its coefficients and no scatter. These are differences from
        # the other ways there are, on stars of NGC 6819: R comes out 0.06 fainter than by Tonry.
        _on("g", "r", (-0.3, 1.4), B=("g", (0.219, 0.313), 0.02), V=("g", (-0.016, -0.565), 0.02))
        | _on("r", "i", (-0.3, 0.9), R=("r", (-0.117, -0.153), 0.06))
        | _on("i", "z", (-0.3, 0.6), I=("i", (-0.397, -0.386), 0.02)),
        JOHNSON_COUSINS,
        "Jordi, Grebel & Ammon 2006, A&A 460, 339, equations 1 to 8",
    ),
    Transformation(
        "Gaia DR3 to Johnson-Cousins (Carrasco 2022)",
        "Gaia Vega",
        _on(
            *("BP", "RP", (-0.3, 4.0)),
            V=("G", (0.02704, -0.01424, 0.2156, -0.01426), 0.03017),
        )
        | _on(
            *("BP", "RP", (0.0, 4.0)),
            R=("G", (0.02275, -0.3961, 0.1243, 0.01396, -0.003775), 0.03167),
            I=("G", (-0.01753, -0.76, 0.0991), 0.03765),
        )
        # B hangs on metallicity and reddening more than one colour can tell.
        | _on(
            *("BP", "RP", (0.0, 2.0)),
            B=("G", (-0.01448, 0.6874, 0.3604, -0.06718, 0.006061), 0.0633),
        ),
        JOHNSON_COUSINS,
        "Gaia DR3 documentation 5.5.1 (Carrasco & Bellazzini 2022), after Riello et al. 2021",
    ),
    Transformation(
        "Gaia DR3 to SDSS (Carrasco 2022)",
        "Gaia Vega",
        _on(*("BP", "RP", (0.3, 3.0)), g=("G", (-0.2199, 0.6365, 0.1548, -0.0064), 0.0745))
        | _on(
            *("BP", "RP", (0.0, 3.0)),
            r=("G", (0.09837, -0.08592, -0.1907, 0.1701, -0.02263), 0.03776),
        )
        | _on(*("BP", "RP", (0.5, 2.0)), i=("G", (0.293, -0.6404, 0.09609, 0.002104), 0.04092)),
        {name: "SDSS AB" for name in "gri"},
        "Gaia DR3 documentation 5.5.1 (Carrasco & Bellazzini 2022), after Riello et al. 2021",
    ),
)


def transformations():
    """List the published transformations that `transform` knows.

    Returns
    -------
    astropy.table.Table
        One row for each: ``name``, ``from`` and ``to`` (systems), ``bands`` (what comes out),
        ``range`` (of the colour, for each band) and ``scatter`` (mag, of one star, for each band)
        as text, ``source``. Ranges are the published ones where there are, or narrower. Scatters
        are the published ones; Jordi et al. give none, theirs are our own estimate.

    Examples
    --------
    >>> table = transformations()
    >>> row = table[table["name"] == "PS1 to SDSS (Tonry 2012)"][0]
    >>> print(row["from"], "->", row["to"], row["bands"], row["scatter"])
    PS1 AB -> SDSS AB g r i z 0.008 0.004 0.004 0.01
    """
    rows = []
    for entry in _TRANSFORMATIONS.values():
        targets = dict.fromkeys(entry.target[name] for name in entry.bands)
        ranges = [
            f"{low:g} < {blue}-{red} < {high:g}"
            for _, (blue, red), _, _, (low, high) in entry.bands.values()
        ]
        rows.append(
            {
                "name": entry.name,
                "from": entry.origin,
                "to": ", ".join(targets),
                "bands": " ".join(entry.bands),
                "range": ", ".join(dict.fromkeys(ranges)),
                "scatter": " ".join(f"{band[3]:g}" for band in entry.bands.values()),
                "source": entry.source,
            }
        )
    return Table(rows)


def transform(table, name, *, prefix=""):
    r"""Bring the magnitudes of a table into another system.

    .. math:: m' = m_0 + \sum_k a_k (m_1 - m_2)^k

    with the coefficients that were published. The error has the errors of all magnitudes, by the
    derivatives, and the scatter of a star (see `transformations`).

    Parameters
    ----------
    table : astropy.table.Table
        Magnitude columns such as ``g``, ``r``, each with its ``meta["system"]``; errors ``g_err``
        where known.
    name : str
        One of the names in `transformations`.
    prefix : str
        What stands before the names of the columns, such as ``"cat_"``.

    Returns
    -------
    astropy.table.Table
        Copy with the new magnitudes and ``<band>_err``, which know their system; masked where a
        magnitude is missing or the colour is outside of the published range. A column of the same
        name (g of another system) is replaced. Bands that need a column that is not there are
        left out.

    Raises
    ------
    DataredError
        If the transformation is not known, a magnitude is of another system than the one that it
        starts from, or no band can be made.

    Examples
    --------
    >>> stars = Table({"g": [16.0], "r": [15.5], "i": [15.3]})
    >>> for band in "gri":
    ...     stars[band].meta["system"] = "PS1 AB"
    >>> sloan = transform(stars, "PS1 to SDSS (Tonry 2012)")
    >>> print(f"{sloan['g'][0]:.3f} {sloan['g'].meta['system']}")
    16.090 SDSS AB
    """
    if name not in _TRANSFORMATIONS:
        raise DataredError(
            f"there is no transformation {name!r}; there are: {'; '.join(_TRANSFORMATIONS)}"
        )
    entry = _TRANSFORMATIONS[name]
    result, made = table.copy(), 0
    table = Table(table)  # Quantities of a QTable become columns with a meta.
    for band, (base, colour, coefficients, scatter, limits) in entry.bands.items():
        needed = dict.fromkeys((base, *colour))
        if any(prefix + other not in table.colnames for other in needed):
            continue
        made += 1
        value = {other: _magnitude(table, prefix + other, entry) for other in needed}
        blue, red = (value[other] for other in colour)
        terms = np.polynomial.Polynomial(coefficients)
        new = value[base] + terms(blue - red)
        slope = terms.deriv()(blue - red)
        variance = np.full(len(table), float(scatter) ** 2)
        for other in needed:
            weight = (other == base) + slope * ((other == colour[0]) * 1.0 - (other == colour[1]))
            variance += (weight * _error(table, prefix + other)) ** 2
        with np.errstate(invalid="ignore"):
            inside = (blue - red >= limits[0]) & (blue - red <= limits[1])
        missing = ~(np.isfinite(new) & inside)
        for column, numbers in ((band, new), (f"{band}_err", np.sqrt(variance))):
            result[prefix + column] = MaskedColumn(
                np.where(missing, np.nan, numbers), mask=missing, unit=u.mag,
                meta={"system": entry.target[band]},
            )  # fmt: skip
    if not made:
        wanted = {other for base, colour, *_ in entry.bands.values() for other in (base, *colour)}
        raise DataredError(
            f"{name} needs the columns {', '.join(prefix + other for other in sorted(wanted))}; "
            f"there are {', '.join(table.colnames)}"
        )
    return result


def johnson_cousins(table, band, *, prefix=""):
    """Magnitudes in the system of Johnson and Cousins, by any way there is.

    Parameters
    ----------
    table : astropy.table.Table
        Magnitude columns with their systems.
    band : str
        One of U, B, V, R, I; others are nowhere.
    prefix : str
        What stands before the names of the columns.

    Returns
    -------
    numpy.ndarray of float
        As the table has them, else by the first of `transformations` that leads there; NaN where
        there is none.
    """
    column, accepted = prefix + band, (JOHNSON_COUSINS.get(band, ""), "Landolt Vega")
    if column in table.colnames and table[column].meta.get("system") in accepted:
        return plain_values(table[column])
    for name, entry in _TRANSFORMATIONS.items():
        if JOHNSON_COUSINS.get(band) == entry.target.get(band, ""):
            try:
                return plain_values(transform(table, name, prefix=prefix)[column])
            except (DataredError, KeyError):
                continue
    return np.full(len(table), np.nan)


def _magnitude(table, column, entry):
    """Magnitudes of a column as plain floats, NaN where masked; another system is refused."""
    system = table[column].meta.get("system")
    if system != entry.origin:
        raise DataredError(
            f"{column} is in the system {system!r}, {entry.name!r} starts from {entry.origin!r}: "
            "take another transformation, or name the system in the column's meta"
        )
    return plain_values(table[column])


def _error(table, column):
    """Errors of a column, 0 where none are known: the scatter is there in any case."""
    name = f"{column}_err"
    if name not in table.colnames:
        return np.zeros(len(table))
    return np.nan_to_num(plain_values(table[name]))
