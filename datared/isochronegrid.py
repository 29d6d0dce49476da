"""Grids of isochrones: models at many ages and metallicities, read at any value between them.

Neighbouring isochrones are interpolated at equal evolutionary points (the same stage of life in
each model), never at equal mass or at equal colour: only so does the turn-off keep its shape.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import astropy.units as u
import numpy as np
from astropy.table import Table

from . import isochrones
from .extinction import extinction_ratio
from .isochrones import combine_magnitudes, distance_modulus

__all__ = ["PHASE_NAMES", "IsochroneGrid", "binary_sequence", "embedded_grid"]

PHASE_NAMES = {0: "pre-main sequence", **isochrones.PHASE_NAMES}
"""Meaning of ``phase``: that of `isochrones.PHASE_NAMES`, and 0 for stars that still contract."""

EMBEDDED_STEP = 0.02  # dex in age: with 0.07 the turn-off was 0.018 mag off between two ages
SAME = 0.005  # dex: a metallicity this close to the only one of a grid is that one


@dataclass(frozen=True, eq=False)
class IsochroneGrid:
    """Isochrones at equal evolutionary points, for a grid of ages and metallicities.

    Parameters
    ----------
    log_ages : numpy.ndarray, shape (n_age,)
        log10 of the ages in years, rising.
    metallicities : numpy.ndarray, shape (n_feh,)
        [Fe/H] in dex, rising; one value is enough.
    bands : dict of str to str
        Names of the bands, in the order of ``magnitudes``, and the magnitude system of each
        ("Johnson Vega", "PS1 AB", ...).
    mass : numpy.ndarray, shape (n_feh, n_age, n_point)
        Initial mass in Msun; nan where a model has no such stage of life.
    magnitudes : numpy.ndarray, shape (n_feh, n_age, n_point, n_band)
        Absolute magnitudes; nan as in ``mass``.
    phase : numpy.ndarray of int, shape (n_point,)
        Stage of life of each point, see `PHASE_NAMES`; never falling.
    log_teff, log_l, log_g : numpy.ndarray, shape (n_feh, n_age, n_point)
        log10 of effective temperature (K), luminosity (Lsun) and surface gravity (cgs).
    source : str
        Where the models come from.
    rotation : float or None, optional
        Rotation of the models at birth, v / v_crit; None where the source says nothing.

    Raises
    ------
    ValueError
        When the shapes do not fit each other, or an axis does not rise.

    Notes
    -----
    Point i is the same stage in every isochrone. Between the models every quantity is linear in
    log10(age) and in [Fe/H] at fixed point (mass: its logarithm), so the result is continuous.
    A point is nan when any of the models that surround the place has no such stage.
    """

    log_ages: np.ndarray
    metallicities: np.ndarray
    bands: dict
    mass: np.ndarray
    magnitudes: np.ndarray
    phase: np.ndarray
    log_teff: np.ndarray
    log_l: np.ndarray
    log_g: np.ndarray
    source: str
    rotation: float | None = None

    def __post_init__(self):
        shape = (len(self.metallicities), len(self.log_ages), len(self.phase))
        for name in ("mass", "log_teff", "log_l", "log_g"):
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} has the shape {getattr(self, name).shape}; metallicities, log_ages "
                    f"and phase ask for {shape}"
                )
        if self.magnitudes.shape != (*shape, len(self.bands)):
            raise ValueError(
                f"magnitudes has the shape {self.magnitudes.shape}; the other arrays and the "
                f"bands {', '.join(self.bands)} ask for {(*shape, len(self.bands))}"
            )
        if min(shape) == 0:
            raise ValueError("a grid needs at least one age, one metallicity and one point")
        for name in ("log_ages", "metallicities"):
            if not np.all(np.diff(getattr(self, name)) > 0):
                raise ValueError(f"{name} must rise from value to value: {getattr(self, name)}")
        if not np.all(np.diff(self.phase) >= 0):
            raise ValueError("the phases must not fall from point to point")

    def nodes(self, log_age, metallicity):
        """Return masses and absolute magnitudes at the equivalent points, for one place.

        Parameters
        ----------
        log_age : float
            log10 of the age in years.
        metallicity : float
            [Fe/H] in dex.

        Returns
        -------
        mass, magnitudes : numpy.ndarray, shape (n_point,) and (n_point, n_band)
            Initial mass in Msun, absolute magnitudes in the order of ``bands``; nan where the
            models have no such stage.

        Raises
        ------
        ValueError
            When the age or the metallicity is outside the grid (the message says its range).
        """
        corners = self._corners(log_age, metallicity)
        log_mass = _blend(corners, [np.log(self.mass[k]) for k, _ in corners])
        return np.exp(log_mass), _blend(corners, [self.magnitudes[k] for k, _ in corners])

    def at(self, age, metallicity=None, *, distance=10 * u.pc, a_v=0.0):
        """Return the stars of one age and metallicity, as `isochrones.isochrone` does.

        Parameters
        ----------
        age : Quantity or float
            Age; a plain number is in Gyr.
        metallicity : float, optional
            [Fe/H] in dex. Default: 0, or the only metallicity of the grid.
        distance : Quantity, optional
            Distance; 10 pc (the default) gives absolute magnitudes.
        a_v : float, optional
            Extinction in V in magnitudes; the other bands by `extinction.extinction_ratio`.

        Returns
        -------
        astropy.table.Table
            One row per star, mass never falls. Columns ``mass`` (initial, Msun), ``phase`` (see
            `PHASE_NAMES`), ``log_teff`` (K), ``log_l`` (Lsun), ``log_g`` (cgs) and the bands of
            the grid, each with ``meta["system"]``. Stages without a model are left out.

        Raises
        ------
        ValueError
            When age or metallicity are outside the grid, or the distance or the extinction is
            not physical.
        """
        age = float(age.to_value(u.Gyr)) if isinstance(age, u.Quantity) else float(age)
        if not 0 < age < np.inf:
            raise ValueError(f"age {age:g} Gyr must be positive; give a Quantity in other units")
        if metallicity is None:
            single = self.metallicities.size == 1
            metallicity = float(self.metallicities[0]) if single else 0.0
        if not a_v >= 0:
            raise ValueError(f"a_v = {a_v!r} must be a number >= 0 (magnitudes)")
        shift = distance_modulus(distance)
        log_age = np.log10(age) + 9.0
        mass, magnitudes = self.nodes(log_age, metallicity)
        corners = self._corners(log_age, metallicity)
        used = np.isfinite(mass)
        # An old isochrone has no contracting stars: there all points of phase 0 are its first star.
        main = np.flatnonzero(used & (self.phase > 0))
        if main.size:
            used &= (self.phase > 0) | (mass < mass[main[0]])
        table = Table(meta={"age_gyr": age, "metallicity": float(metallicity), "a_v": float(a_v)})
        table.meta["distance_pc"] = float(10.0 ** (shift / 5 + 1))
        table["mass"] = np.maximum.accumulate(mass[used])
        table["phase"] = self.phase[used]
        for name in ("log_teff", "log_l", "log_g"):
            values = getattr(self, name)
            table[name] = _blend(corners, [values[k] for k, _ in corners])[used]
        for j, (band, system) in enumerate(self.bands.items()):
            table[band] = magnitudes[used, j] + shift
            if a_v > 0:
                table[band] += a_v * extinction_ratio(band)
            table[band].unit = u.mag
            table[band].meta["system"] = system
        return table

    def _corners(self, log_age, metallicity):
        """Return the models around a place, [((metallicity, age) index, weight), ...]."""
        in_age = _bracket(self.log_ages, log_age, 1e-6)
        if in_age is None:
            low, high = self.log_ages[[0, -1]]
            raise ValueError(
                f"log10(age / yr) = {log_age:g} is outside this grid, which goes from {low:g} to "
                f"{high:g} ({10 ** (low - 9):.3g} to {10 ** (high - 9):.3g} Gyr)"
            )
        in_feh = _bracket(self.metallicities, metallicity, SAME)
        if in_feh is None:
            low, high = self.metallicities[[0, -1]]
            only = self.metallicities.size == 1
            valid = f"has [Fe/H] = {low:g} only" if only else f"goes from {low:g} to {high:g}"
            raise ValueError(
                f"metallicity [Fe/H] = {metallicity:g} is outside this grid, which {valid}"
            )
        return [((j, k), w * v) for j, w in in_feh for k, v in in_age]


def _bracket(axis, x, margin):
    """Return [(index, weight), ...] of the one or two neighbours of x; None when outside."""
    if not axis[0] - margin <= x <= axis[-1] + margin:
        return None
    x = min(max(x, axis[0]), axis[-1])
    k = min(int(np.searchsorted(axis, x, side="right")) - 1, axis.size - 1)
    if x == axis[k]:
        # A neighbour of no weight is left out: what it lacks must not be lacking here.
        return [(k, 1.0)]
    weight = float((x - axis[k]) / (axis[k + 1] - axis[k]))
    return [(k, 1.0 - weight), (k + 1, weight)]


def _blend(corners, values):
    """Return the weighted sum of the arrays at the corners."""
    total = values[0] * corners[0][1]
    for (_, weight), value in zip(corners[1:], values[1:], strict=True):
        total = total + weight * value
    return total


@lru_cache(maxsize=4)
def embedded_grid(*, bands=("g", "r", "i")):
    """Return the embedded isochrones as a grid.

    Parameters
    ----------
    bands : tuple of str, optional
        Bands wanted, of `isochrones.BANDS`.

    Returns
    -------
    IsochroneGrid
        Ages from 10 Myr to 13 Gyr, metallicities of the embedded table, no rotation. The same
        object at every call.

    Raises
    ------
    ValueError
        When a band is not in the embedded table.

    Examples
    --------
    >>> embedded_grid(bands=("B", "V")).bands
    {'B': 'Johnson Vega', 'V': 'Johnson Vega'}
    """
    unknown = [band for band in bands if band not in isochrones.BANDS]
    if unknown or not bands:
        raise ValueError(
            f"no band {', '.join(map(repr, unknown)) or 'given'} in the embedded isochrones; "
            f"valid: {', '.join(isochrones.BANDS)}"
        )
    with (files("datared") / "data" / "isochrones.npz").open("rb") as stream:
        with np.load(stream, allow_pickle=False) as data:
            feh = data["feh"].astype(float)
    # Equal steps in log age; the ends must not leave the range by the rounding of a logarithm.
    low, high = np.log10(isochrones.AGE_RANGE)
    ages = np.logspace(low, high, int(np.ceil((high - low) / EMBEDDED_STEP)) + 1)
    ages = np.clip(ages, *isochrones.AGE_RANGE)
    names = ("mass", "log_teff", "log_l", "log_g", *bands)
    tables = {
        (j, k): isochrones.isochrone(age=age, metallicity=z)
        for j, z in enumerate(feh)
        for k, age in enumerate(ages)
    }
    # The rows are equivalent points by construction; a stage with fewer rows is left nan.
    counts = {at: np.bincount(table["phase"], minlength=6) for at, table in tables.items()}
    full = np.max(list(counts.values()), axis=0)
    phase = np.repeat(np.arange(full.size), full)
    values = np.full((feh.size, ages.size, phase.size, len(names)), np.nan)
    for at, table in tables.items():
        columns = np.column_stack([table[name] for name in names])
        whole = counts[at] == full
        values[at][whole[phase]] = columns[whole[table["phase"]]]
    return IsochroneGrid(
        log_ages=np.log10(ages) + 9.0,
        metallicities=feh,
        bands={band: isochrones.BANDS[band] for band in bands},
        mass=values[..., 0],
        magnitudes=np.ascontiguousarray(values[..., 4:]),
        phase=phase,
        log_teff=values[..., 1],
        log_l=values[..., 2],
        log_g=values[..., 3],
        source="embedded, Hurley et al. (2000) adjusted to PARSEC",
        rotation=None,
    )


def binary_sequence(isochrone_table, *, mass_ratio):
    """Return the magnitudes of unresolved pairs of stars of one isochrone.

    Parameters
    ----------
    isochrone_table : astropy.table.Table
        Table of `IsochroneGrid.at` or `isochrones.isochrone`.
    mass_ratio : float
        Mass of the fainter star over that of the brighter one, from 0 (single stars) to 1.

    Returns
    -------
    astropy.table.Table
        One row per primary star. Columns ``mass`` (of the primary, Msun), ``companion_mass``,
        ``phase`` (of the primary) and the magnitude columns, each with ``meta["system"]``.

    Raises
    ------
    ValueError
        When the mass ratio is not between 0 and 1, or the table has no magnitudes.

    Notes
    -----
    The light of both stars is added, ``m = -2.5 log10(10**(-0.4 m1) + 10**(-0.4 m2))``. A companion
    below the lowest mass of the isochrone gives no light. Equal masses are 0.753 mag brighter.

    Examples
    --------
    >>> single = embedded_grid().at(1.0)
    >>> pair = binary_sequence(single, mass_ratio=1.0)
    >>> round(float(single["g"][0] - pair["g"][0]), 3)
    0.753
    """
    if not 0 <= mass_ratio <= 1:
        raise ValueError(f"mass_ratio = {mass_ratio!r} must be between 0 and 1")
    bands = [n for n in isochrone_table.colnames if "system" in isochrone_table[n].meta]
    if not bands:
        raise ValueError(
            "the table has no magnitude columns (with a system in their meta); give one of "
            f"isochrone() or grid.at(), not {', '.join(isochrone_table.colnames)}"
        )
    mass = np.asarray(isochrone_table["mass"], dtype=float)
    companion = mass_ratio * mass
    out = Table(meta={**isochrone_table.meta, "mass_ratio": float(mass_ratio)})
    out["mass"], out["companion_mass"] = mass, companion
    out["phase"] = np.asarray(isochrone_table["phase"])
    for band in bands:
        column = isochrone_table[band]
        values = np.asarray(column, dtype=float)
        # At equal masses the companion is the same star, also where mass does not tell stars apart.
        second = values if mass_ratio == 1 else np.interp(companion, mass, values, left=np.inf)
        out[band] = combine_magnitudes(values, second)
        out[band].unit = u.mag
        out[band].meta["system"] = column.meta["system"]
    return out
