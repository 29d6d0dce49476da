"""Model isochrones: where stars of one age stand in the colour-magnitude diagram.

The embedded set is computed by ``recipes/make_isochrones.py`` of the repository.

Stars
    The formulae of Hurley, Pols & Tout (2000, MNRAS 315, 543), from the zero-age main sequence
    to the end of the early asymptotic giant branch. [Fe/H] = log10(Z / 0.0152) (the solar Z of
    Caffau et al. 2011), with scaled-solar abundances and helium as in the formulae.
Adjusted to PARSEC
    The life times (18 coefficients) and the luminosities and temperatures of the main sequence
    (52 each) are adjusted to PARSEC v1.2S (Bressan et al. 2012, MNRAS 427, 127), smoothly in mass,
    life fraction and metallicity, at all masses; giants by 7 numbers. So this model is not
    independent of PARSEC: that both agree proves nothing about stars.
Colours
    Dwarfs: the mean sequence of Pecaut & Mamajek (2013, ApJS 208, 9), changed with metallicity by
    Casagrande et al. (2010, A&A 512, A54), and its B-V moved by up to 0.045 mag (0.019 between 4900
    and 25000 K) towards the colours of PARSEC, by 25 knots. Giants: Ramirez & Melendez (2005, ApJ
    626, 465), and Alonso et al. (1999, A&AS 140, 261) for the bolometric correction. Pan-STARRS g,
    r, i: Tonry et al. (2012, ApJ 750, 99), M stars by Jordi et al. (2006, A&A 460, 339).

Limits, to be known before a result is quoted:

* no pre-main sequence, no white dwarfs, no rotation; masses from 0.1 to 25 Msun;
* against PARSEC v1.2S at 0.1 to 4 Gyr and [Fe/H] -0.16 to 0.13, from 0.02 mag beside the turn-off
  to B-V = 1.3: V at given B-V within 0.15 mag (0.06 on average; K dwarfs with the bolometric
  corrections of CMD 3.3), turn-off colours within 0.03 mag; up to 0.3 mag at 5 to 12 Gyr. One
  metallicity and two releases were kept out of the adjustment and agree as well as the others;
* outside [Fe/H] -0.2 to 0.15 the adjustment is that of the edge, and nothing was compared;
* 1.0 to 1.4 Msun in the last fifth of their main-sequence life: up to 0.2 mag off, because the
  formulae have the hook of heavier stars there;
* a star of 1 Msun and [Fe/H] = 0 is 0.08 mag brighter than the Sun, as in PARSEC, where the Sun was
  born with Z = 0.0177 ([Fe/H] = 0.066): that star has M_V = 4.83 and B-V = 0.666 here;
* above [Fe/H] = 0.2 (Z = 0.024) the formulae flatten, at their limit of Z = 0.03: such stars are
  up to 0.05 mag too blue in B-V. There is no honest way to go further up;
* red clump: V within 0.12 mag (rms) of PARSEC, B-V 0.04 mag bluer; red giants 0.07 mag bluer; blue
  loops are only as good as the formulae (0.1 to 0.3 mag);
* g, r, i of M dwarfs (below 0.5 Msun) and of stars hotter than 12000 K are uncertain by 0.1 to
  0.2 mag, because the transformations are extrapolated there;
* supergiants hotter than 7000 K have the colours of dwarfs.
"""

import hashlib
import io
from functools import lru_cache
from importlib.resources import files

import astropy.units as u
import numpy as np
from astropy.table import Table

from .errors import DataredError
from .extinction import EXTINCTION, distance_modulus

__all__ = [
    "BANDS",
    "CHECKSUM",
    "EXTINCTION",
    "PHASE_NAMES",
    "combine_magnitudes",
    "distance_modulus",
    "isochrone",
    "magnitudes_at_mass",
]

BANDS = {
    "B": "Johnson Vega",
    "V": "Johnson Vega",
    "R": "Cousins Vega",
    "I": "Cousins Vega",
    "g": "PS1 AB",
    "r": "PS1 AB",
    "i": "PS1 AB",
}
"""Bands in the order of the columns, and their magnitude system."""

PHASE_NAMES = {
    1: "main sequence",
    2: "subgiant",
    3: "red giant",
    4: "core helium",
    5: "asymptotic giant",
}
"""Meaning of the column ``phase`` (the numbers of Hurley et al. 2000; 2 is the Hertzsprung gap)."""

CHECKSUM = "5a506b4c2fbc24f39f3940038f0158bbe856fb22b0daa70ed06878b8a0280dd8"
"""SHA-256 of the embedded table; it is compared when the table is read."""

SUN_BOLOMETRIC = 4.74  # M_bol of the Sun (IAU 2015 B2)
SUN_LOG_G, SUN_TEFF = 4.438, 5772.0
DWARF_LOG_G, GIANT_LOG_G = 4.2, 2.7  # mean log g of the stars behind the two colour relations
AGE_RANGE = (0.01, 13.0)  # Gyr


@lru_cache(maxsize=1)
def _table():
    """Return the embedded table as a dict of arrays; the file is read once."""
    content = (files("datared") / "data" / "isochrones.npz").read_bytes()
    if hashlib.sha256(content).hexdigest() != CHECKSUM:
        raise DataredError(
            "the embedded isochrones (datared/data/isochrones.npz) are not those of this version: "
            "install the package again, or renew CHECKSUM after recipes/make_isochrones.py"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        table = dict(data)
    # The file holds differences along the track and from mass to mass, which pack well.
    coded = np.cumsum(table.pop("nodes"), axis=2, dtype=np.int16)
    coded = np.cumsum(coded, axis=3, dtype=np.int16)
    step, zero = (table[name][:, None, None, None] for name in ("step", "zero"))
    table["nodes"] = coded * step + zero  # quantity, feh, mass, point
    return table


def _at(values, axis, x):
    """Return ``values`` (first dimension along ``axis``) at the scalar x, linear."""
    k = int(np.clip(np.searchsorted(axis, x) - 1, 0, axis.size - 2))
    w = (x - axis[k]) / (axis[k + 1] - axis[k])
    return (1.0 - w) * values[k] + w * values[k + 1]


@lru_cache(maxsize=8)
def _tracks(metallicity):
    """Return log10 masses, log10 times (Myr) at all points, and nodes, at one metallicity."""
    table = _table()
    ends = 10.0 ** _at(table["end"].astype(float), table["feh"], metallicity)
    starts = np.concatenate([np.zeros((ends.shape[0], 1)), ends[:, :-1]], axis=1)
    column = table["phase"].astype(int) - 1
    fraction = table["fraction"]
    times = starts[:, column] + fraction * (ends - starts)[:, column]
    nodes = _at(np.moveaxis(table["nodes"], 1, 0), table["feh"], metallicity)
    return np.log10(table["mass"]), np.log10(np.maximum(times, 1e-3)), nodes


def _check(age, metallicity):
    """Raise ValueError when the age (Gyr) or the metallicity is outside the table."""
    feh = _table()["feh"]
    if not AGE_RANGE[0] <= age <= AGE_RANGE[1]:
        raise ValueError(
            f"age {age:g} Gyr is outside the embedded isochrones, which go from "
            f"{AGE_RANGE[0]:g} to {AGE_RANGE[1]:g} Gyr; give a Quantity if it is in other units"
        )
    if not feh[0] <= metallicity <= feh[-1]:
        raise ValueError(
            f"metallicity [Fe/H] = {metallicity:g} is outside the embedded isochrones, which go "
            f"from {feh[0]:g} to {feh[-1]:g} (the stellar formulae end at Z = 0.03)"
        )


def _main_sequence(log_age, log_masses, times, nodes, points):
    """Return log mass, point fractions and nodes of main-sequence stars of one age.

    A star is placed by its fraction of main-sequence life, so that the turn-off (fraction 1) is
    reached exactly and the hook keeps its shape between the masses of the table.
    """
    fraction = _table()["fraction"][points]
    end = times[:, points[-1]] - np.log10(fraction[-1])
    # Even steps in mass for the young part, even steps of life fraction up to the turn-off.
    late = np.unique(np.concatenate([fraction[fraction > 0.3], np.linspace(0.3, 0.96, 67)]))
    log_mass = np.interp(np.log10(late), log_age - end, log_masses)
    young = np.linspace(log_masses[0], log_mass[0], 160, endpoint=False)
    log_mass = np.concatenate([young, log_mass])
    tau = np.minimum(10.0 ** (log_age - np.interp(log_mass, log_masses, end)), fraction[-1])
    k = np.clip(np.searchsorted(log_masses, log_mass) - 1, 0, log_masses.size - 2)
    wm = (log_mass - log_masses[k]) / (log_masses[k + 1] - log_masses[k])
    p = np.clip(np.searchsorted(fraction, tau) - 1, 0, fraction.size - 2)
    wp = (tau - fraction[p]) / (fraction[p + 1] - fraction[p])
    part = nodes[:, :, points]
    below = (1 - wm) * part[:, k, p] + wm * part[:, k + 1, p]
    above = (1 - wm) * part[:, k, p + 1] + wm * part[:, k + 1, p + 1]
    return log_mass, (1 - wp) * below + wp * above


def _evolved(log_age, log_masses, times, nodes, points):
    """Return log mass and nodes of the star that is at each evolved point at this age.

    Interpolated at equal evolutionary phase: for each point of the tracks, the mass that reaches
    it at this age. Points that no mass of the table reaches are left out.
    """
    log_mass, out, used = [], [], []
    for point in points:
        # Lifetimes fall with mass but for a ripple at the helium flash, which is flattened.
        falling = np.minimum.accumulate(times[:, point])
        if not falling[-1] <= log_age <= falling[0]:
            continue
        value = np.interp(-log_age, -falling, log_masses)
        log_mass.append(value)
        out.append([np.interp(value, log_masses, row[:, point]) for row in nodes])
        used.append(point)
    return np.array(log_mass), np.array(out).reshape(-1, 3).T, np.array(used, dtype=int)


def _magnitudes(log_teff, log_l, log_g, metallicity):
    """Return absolute magnitudes, shape (7, n): M = M_bol - BC, interpolated in the table."""
    table = _table()
    axis = table["colour_log_teff"]
    grid = _at(np.moveaxis(table["colour"] / 1000.0, 1, 0), table["colour_feh"], metallicity)
    k = np.clip(np.searchsorted(axis, log_teff) - 1, 0, axis.size - 2)
    w = np.clip((log_teff - axis[k]) / (axis[k + 1] - axis[k]), 0.0, 1.0)[:, None]
    both = (1 - w) * grid[:, k] + w * grid[:, k + 1]
    giant = np.clip((DWARF_LOG_G - log_g) / (DWARF_LOG_G - GIANT_LOG_G), 0.0, 1.0)[:, None]
    correction = (1 - giant) * both[0] + giant * both[1]
    return (SUN_BOLOMETRIC - 2.5 * log_l[:, None] - correction).T


def isochrone(*, age, metallicity=0.0, distance=10 * u.pc, a_v=0.0):
    """Return stars of one age and metallicity, from the lowest mass to the giants.

    Parameters
    ----------
    age : Quantity or float
        Age; a plain number is in Gyr. From 10 Myr to 13 Gyr.
    metallicity : float, optional
        [Fe/H] in dex, from -1 to 0.295 (0 is Z = 0.0152).
    distance : Quantity, optional
        Distance; 10 pc (the default) gives absolute magnitudes.
    a_v : float, optional
        Extinction in V in magnitudes; the other bands follow `EXTINCTION`.

    Returns
    -------
    astropy.table.Table
        One row per star, sorted along the sequence; mass never falls from row to row. Columns:
        ``mass`` (initial, Msun), ``phase`` (see `PHASE_NAMES`), ``log_teff`` (K), ``log_l`` (Lsun),
        ``log_g`` (cgs), and the magnitudes of `BANDS`, each with ``meta["system"]``.

    Raises
    ------
    ValueError
        When age or metallicity are outside the table (the message says its range), or the
        distance or the extinction is not physical.
    DataredError
        When the embedded table is not the one of this version.

    Notes
    -----
    ``m = M + 5 log10(d / 10 pc) + A``. Age and metallicity are interpolated at equal evolutionary
    phase, so that the turn-off keeps its shape between the models. For a drawing, plot each phase
    on its own: between the tip of the red giants and core helium burning there are no stars.

    Examples
    --------
    >>> stars = isochrone(age=1.0, distance=1 * u.kpc, a_v=0.3)
    >>> stars["g"].meta["system"]
    'PS1 AB'
    >>> bool(1.9 < stars["mass"][stars["phase"] == 1].max() < 2.2)
    True
    """
    age = float(age.to_value(u.Gyr)) if isinstance(age, u.Quantity) else float(age)
    metallicity = float(metallicity)
    _check(age, metallicity)
    if not a_v >= 0:
        raise ValueError(f"a_v = {a_v!r} must be a number >= 0 (magnitudes)")
    shift = distance_modulus(distance)
    log_age = np.log10(age * 1000.0)
    log_masses, times, nodes = _tracks(metallicity)
    phase = _table()["phase"]
    log_mass, values = _main_sequence(log_age, log_masses, times, nodes, np.flatnonzero(phase == 1))
    late_mass, late_values, used = _evolved(
        log_age, log_masses, times, nodes, np.flatnonzero(phase > 1)
    )
    kinds = np.concatenate([np.ones(log_mass.size, dtype=int), phase[used].astype(int)])
    log_mass = np.maximum.accumulate(np.concatenate([log_mass, late_mass]))
    log_l, log_teff, left = np.concatenate([values, late_values], axis=1)
    log_g = SUN_LOG_G + log_mass + np.log10(left) + 4 * (log_teff - np.log10(SUN_TEFF)) - log_l
    table = Table(
        [10.0**log_mass, kinds, log_teff, log_l, log_g],
        names=["mass", "phase", "log_teff", "log_l", "log_g"],
        meta={"age_gyr": age, "metallicity": metallicity, "a_v": float(a_v)},
    )
    table.meta["distance_pc"] = float(10.0 ** (shift / 5 + 1))
    for band, magnitude in zip(
        BANDS, _magnitudes(log_teff, log_l, log_g, metallicity), strict=True
    ):
        table[band] = magnitude + shift + a_v * EXTINCTION[band]
        table[band].unit = u.mag
        table[band].meta["system"] = BANDS[band]
    return table


def combine_magnitudes(m1, m2):
    """Return the magnitude of two stars seen as one.

    Parameters
    ----------
    m1, m2 : float or array_like
        Magnitudes of the two stars in the same band and system.

    Returns
    -------
    float or numpy.ndarray
        ``-2.5 log10(10**(-0.4 m1) + 10**(-0.4 m2))``; an infinite magnitude is no light.

    Examples
    --------
    >>> round(float(combine_magnitudes(10.0, 10.0)), 3)
    9.247
    """
    # logaddexp does not underflow for the faintest stars.
    scale = -0.4 * np.log(10.0)
    return np.logaddexp(np.multiply(m1, scale), np.multiply(m2, scale)) / scale


def magnitudes_at_mass(isochrone, mass):
    """Return the magnitudes of stars of given initial mass on an isochrone.

    Parameters
    ----------
    isochrone : astropy.table.Table
        Table of `isochrone`.
    mass : float or array_like, shape (n,)
        Initial masses in Msun.

    Returns
    -------
    astropy.table.Table
        Columns ``mass``, ``phase`` and the bands of `BANDS` (nan where the mass is below the
        table or has ended its life), n rows, ``meta["system"]`` as in the isochrone. ``phase`` is
        0 for those.

    Examples
    --------
    >>> stars = magnitudes_at_mass(isochrone(age=1.0), [0.8, 1.0, 9.0])
    >>> [round(float(value), 1) for value in stars["V"][:2]], int(stars["phase"][2])
    ([6.4, 5.1], 0)
    """
    mass = np.atleast_1d(np.asarray(mass, dtype=float))
    x = np.asarray(isochrone["mass"], dtype=float)
    inside = (mass >= x[0]) & (mass <= x[-1])
    nearest = np.clip(np.searchsorted(x, mass), 0, x.size - 1)
    out = Table([mass, np.where(inside, isochrone["phase"][nearest], 0)], names=["mass", "phase"])
    for band in BANDS:
        column = isochrone[band]
        values = np.interp(mass, x, np.asarray(column, dtype=float))
        out[band] = np.where(inside, values, np.nan)
        out[band].unit = u.mag
        out[band].meta["system"] = column.meta["system"]
    return out
