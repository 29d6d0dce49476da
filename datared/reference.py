"""The reference list of a night: which stars are measured, and where they are on the sky."""

import warnings

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from scipy.spatial import cKDTree

from .catalogs import at_epoch, match, positions
from .errors import DataredWarning

__all__ = ["add_catalogue", "merge_stars", "refine_positions", "set_target", "unit_vectors"]

#: Columns of a catalogue that stay beside its magnitudes: for the cluster's members.
KEPT = ("pm_ra", "pm_ra_err", "pm_dec", "pm_dec_err", "parallax", "parallax_err", "id")


def merge_stars(lists, *, radius):
    """Merge the star lists of the best frames, one per filter, into one list.

    The longest list comes first; of each further one the stars that are not there yet are added.
    A star is matched to one star at most.

    Parameters
    ----------
    lists : dict of str to astropy.table.Table
        For each filter a table with ``ra``, ``dec`` (deg), ``flux`` and ``snr``.
    radius : float
        Largest separation of the same star, in arcsec.

    Returns
    -------
    astropy.table.Table
        ``star`` (0, 1, ... from the brightest), ``ra``, ``dec`` (deg), ``brightness`` (flux on the
        scale of the longest list), ``snr``, ``found_in`` (filter whose list had it first).

    Examples
    --------
    >>> g = Table({"ra": [10.0, 10.1], "dec": [0.0, 0.0], "flux": [5.0, 9.0], "snr": [50.0, 90.0]})
    >>> r = Table({"ra": [10.0], "dec": [1e-5], "flux": [7.0], "snr": [70.0]})
    >>> merged = merge_stars({"g": g, "r": r}, radius=1.0)
    >>> merged["star"].tolist(), merged["ra"].tolist()
    ([0, 1], [10.1, 10.0])
    """
    order = sorted(lists, key=lambda name: (-len(lists[name]), name))
    names = ("ra", "dec", "flux", "snr")
    stars = {key: np.empty(0) for key in names}
    found_in = []
    for name in order:
        table = {key: np.asarray(lists[name][key], float) for key in names}
        known, new = np.empty(0, int), np.ones(len(table["ra"]), bool)
        if found_in:
            known, here, _ = match(positions(stars), positions(table), radius=radius * u.arcsec)
            new[here] = False
            if len(here):
                # Fluxes of another filter are brought to the scale of the first one.
                table["flux"] *= np.median(stars["flux"][known] / table["flux"][here])
        stars = {key: np.concatenate([stars[key], table[key][new]]) for key in names}
        found_in += [name] * int(new.sum())
    bright = np.lexsort((stars["ra"], stars["dec"], -stars["flux"]))
    return Table(
        {
            "star": np.arange(len(bright)),
            "ra": stars["ra"][bright],
            "dec": stars["dec"][bright],
            "brightness": stars["flux"][bright],
            "snr": stars["snr"][bright],
            "found_in": np.array(found_in, dtype="U" if found_in else "U1")[bright],
        }
    )


def refine_positions(stars, frames, *, radius):
    """Better positions: the median over all frames in which a star was detected.

    A single frame has the error of one centroid and of one plate solution.

    Parameters
    ----------
    stars : astropy.table.Table
        Star list with ``ra`` and ``dec`` (deg).
    frames : iterable of astropy.table.Table
        Detections of every frame: ``ra`` and ``dec`` (deg).
    radius : float
        Largest separation in arcsec.

    Returns
    -------
    astropy.table.Table
        A copy with new positions and the column ``n_detected``.
    """
    result = stars.copy()
    start = unit_vectors(stars)
    limit = np.radians(radius / 3600)
    shifts = []
    for frame in frames:
        shift = np.full(start.shape, np.nan)
        if len(frame) and len(start):
            seen = unit_vectors(frame)
            distance, index = cKDTree(seen).query(start)
            near = distance <= limit
            shift[near] = seen[index[near]] - start[near]
        shifts.append(shift)
    shifts = np.sort(np.array(shifts).reshape(len(shifts), *start.shape), axis=0)  # NaN is last.
    count = np.isfinite(shifts[:, :, 0]).sum(axis=0)
    middle = np.zeros(start.shape)
    for star in np.flatnonzero(count):
        n = count[star]
        middle[star] = (shifts[(n - 1) // 2, star] + shifts[n // 2, star]) / 2
    better = start + middle
    result["ra"] = np.degrees(np.arctan2(better[:, 1], better[:, 0])) % 360
    result["dec"] = np.degrees(np.arctan2(better[:, 2], np.hypot(better[:, 0], better[:, 1])))
    result["n_detected"] = count
    return result


def add_catalogue(stars, catalogue, *, jd, radius):
    """Add the magnitudes of a catalogue to a star list, star by star.

    Parameters
    ----------
    stars : astropy.table.Table
        Star list with ``ra`` and ``dec`` (deg).
    catalogue : astropy.table.Table
        From `datared.catalogs.read_catalogue`.
    jd : float
        Julian date of the night, for proper motions.
    radius : float
        Largest separation in arcsec.

    Returns
    -------
    astropy.table.Table
        A copy with ``cat_separation`` (arcsec) and a column ``cat_<name>`` for each magnitude,
        proper motion and parallax and their errors, and for identifiers; masked where no star was
        matched. The system of a magnitude is in ``meta["system"]``.
    """
    result = stars.copy()
    here, there, separation = match(
        positions(stars), positions(at_epoch(catalogue, jd)), radius=radius * u.arcsec
    )
    found = np.full(len(stars), np.nan)
    found[here] = separation.to_value(u.arcsec)
    result["cat_separation"] = MaskedColumn(found, mask=np.isnan(found), unit=u.arcsec)
    for name in catalogue.colnames:
        column = catalogue[name]
        if not (column.meta.get("system") or name in KEPT):
            continue
        if column.dtype.kind in "UO":
            names = np.ma.filled(np.ma.asarray(column).astype(str), "")
            values = np.full(len(stars), "", dtype=names.dtype)
            values[here] = names[there]
            result[f"cat_{name}"] = values
            continue
        values = np.full(len(stars), np.nan)
        values[here] = np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)[there]
        result[f"cat_{name}"] = MaskedColumn(values, mask=np.isnan(values), unit=column.unit)
        if column.meta.get("system"):
            result[f"cat_{name}"].meta["system"] = column.meta["system"]
    return result


def set_target(stars, coord, *, radius):
    """Mark the target in a star list; one that is not there becomes a forced position.

    Parameters
    ----------
    stars : astropy.table.Table
        Star list with ``star``, ``ra`` and ``dec`` (deg).
    coord : astropy.coordinates.SkyCoord or None
        The target, at the date of the night.
    radius : float
        Largest separation in arcsec.

    Returns
    -------
    astropy.table.Table
        A copy with the column ``target`` (True for one row at most), and with a row more where no
        star was within the radius.
    """
    result = stars.copy()
    result["target"] = np.zeros(len(stars), bool)
    if coord is None:
        return result
    coord = SkyCoord(coord.icrs.ra, coord.icrs.dec)
    separation = coord.separation(positions(stars)).arcsec if len(stars) else np.array([np.inf])
    near = np.sort(separation[separation <= radius])
    if len(near) > 1:
        told = " and ".join(f"{away:.1f}" for away in near)
        message = f"{len(near)} stars at {told} arcsec may be the target: the nearest is taken"
        warnings.warn(message, DataredWarning, stacklevel=2)
    if len(near):
        result["target"][np.flatnonzero(separation == near[0])[0]] = True
        return result
    empty = {"star": len(stars), "ra": coord.ra.deg, "dec": coord.dec.deg, "target": True}
    for name in result.colnames:
        kind = result[name].dtype.kind
        empty.setdefault(name, {"f": np.nan, "U": "", "b": False}.get(kind, 0))
    result.add_row(empty)
    return result


def unit_vectors(table):
    """Turn positions into vectors of length one.

    Parameters
    ----------
    table : astropy.table.Table
        ``ra`` and ``dec`` in degrees.

    Returns
    -------
    numpy.ndarray of float, shape (n, 3)
        The vectors.
    """
    ra, dec = (np.radians(np.asarray(table[name], float)) for name in ("ra", "dec"))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
