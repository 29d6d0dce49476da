"""Catalogues of reference stars: moved to the night's date, matched, and a target found in them."""

import warnings

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time
from scipy.spatial import cKDTree

from datared.capsules import fetch_catalogue, query_catalogue
from datared.errors import DataredError, DataredWarning
from datared.starlists import read_catalogue

__all__ = [
    "at_epoch",
    "fetch_catalogue",
    "identify_target",
    "match",
    "positions",
    "query_catalogue",
    "read_catalogue",
]


def at_epoch(catalogue, jd):
    """Move a catalogue to a date by its proper motions.

    Parameters
    ----------
    catalogue : astropy.table.Table
        Result of `read_catalogue`; ``meta["epoch"]`` is the year of its positions, or the column
        ``epoch`` where each has its own.
    jd : float
        Julian date (UTC); a date that is not finite leaves the positions as they are.

    Returns
    -------
    astropy.table.Table
        A copy with ``ra`` and ``dec`` at that date.

    Examples
    --------
    >>> from astropy.table import Table
    >>> stars = Table({"ra": [10.0], "dec": [60.0], "pm_ra": [1000.0], "pm_dec": [-500.0]})
    >>> stars.meta["epoch"] = 2000.0
    >>> moved = at_epoch(stars, 2451544.5 + 10 * 365.25)
    >>> round(float(moved["ra"][0] - 10) * 3600, 2), round(float(moved["dec"][0] - 60) * 3600, 2)
    (20.0, -5.0)
    """
    result = catalogue.copy()
    epoch = catalogue.meta.get("epoch")
    if epoch is None or not np.isfinite(jd):
        return result
    date = Time(jd, format="jd", scale="utc").jyear
    years = date - (np.asarray(catalogue["epoch"]) if "epoch" in catalogue.colnames else epoch)
    ra, dec = np.radians(catalogue["ra"]), np.radians(catalogue["dec"])
    mas = np.radians(1 / 3.6e6)
    # As a vector the shift is right at the pole too, where a step in right ascension has no size.
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros(len(ra))])
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    vector = _unit_vectors(catalogue["ra"], catalogue["dec"]).T
    vector = vector + years * mas * (
        _plain(catalogue["pm_ra"], 0.0) * east + _plain(catalogue["pm_dec"], 0.0) * north
    )
    result["ra"][:] = np.degrees(np.arctan2(vector[1], vector[0])) % 360
    result["dec"][:] = np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1])))
    if "epoch" in result.colnames:
        result["epoch"] = np.full(len(result), date)
    result.meta["epoch"] = date
    return result


def positions(table):
    """Columns ``ra`` and ``dec`` (deg) of a table as coordinates."""
    return SkyCoord(_plain(table["ra"], np.nan), _plain(table["dec"], np.nan), unit="deg")


def match(coords1, coords2, *, radius):
    """Pairs of entries of two lists that are the same star: each in one pair at most.

    All pairs closer than the radius are looked at, the closest first; a star that is taken is not
    offered again. It works on the sphere, so across right ascension 0 and at the poles.

    Parameters
    ----------
    coords1, coords2 : astropy.coordinates.SkyCoord, shapes (n1,) and (n2,)
        Positions. Entries that are not finite match nothing.
    radius : astropy.units.Quantity or float
        Largest separation; a bare number is in arcsec.

    Returns
    -------
    i1, i2 : numpy.ndarray of int
        Indices of the pairs, ordered by ``i1``.
    separation : astropy.units.Quantity
        Separations in arcsec.

    Examples
    --------
    >>> a = SkyCoord([0.0, 10.0], [0.0, 0.0], unit="deg")
    >>> b = SkyCoord([359.9999, 10.0, 10.0001], [0.0, 0.0, 0.0], unit="deg")
    >>> i1, i2, separation = match(a, b, radius=1 * u.arcsec)
    >>> i1.tolist(), i2.tolist()
    ([0, 1], [0, 1])
    """
    radius = u.Quantity(radius, u.arcsec)
    if not radius >= 0:
        raise ValueError(f"radius {radius} must not be negative")
    first, second = np.atleast_1d(coords1.icrs), np.atleast_1d(coords2.icrs)
    use1, use2 = (
        np.flatnonzero(np.isfinite(c.ra.deg) & np.isfinite(c.dec.deg)) for c in (first, second)
    )
    tree1, tree2 = (
        cKDTree(_unit_vectors(c.ra.deg[use], c.dec.deg[use]).reshape(-1, 3))
        for c, use in ((first, use1), (second, use2))
    )
    chord = 2 * np.sin(radius.to_value(u.rad) / 2)
    pairs = tree1.sparse_distance_matrix(tree2, chord, output_type="ndarray")
    i, j, distance = pairs["i"], pairs["j"], pairs["v"]
    chosen = _closest_first(i, j, distance)
    chosen = chosen[np.argsort(i[chosen])]
    separation = 2 * np.arcsin(np.minimum(distance[chosen] / 2, 1)) * u.rad
    return use1[i[chosen]], use2[j[chosen]], separation.to(u.arcsec)


def identify_target(table, coord, *, limit=3.0):
    """Row of a table that is a target, and how far it is.

    Parameters
    ----------
    table : astropy.table.Table
        Columns ``ra`` and ``dec`` in deg.
    coord : astropy.coordinates.SkyCoord
        Position of the target, one, at the date of the table; `datared.names.resolve_target` gives
        it for a name.
    limit : astropy.units.Quantity or float
        Largest separation; a bare number is in arcsec.

    Returns
    -------
    row : int
        Row of the nearest star.
    separation : astropy.units.Quantity
        Its distance in arcsec.

    Raises
    ------
    DataredError
        If the nearest star is farther than the limit, there is none, or two stars within the limit
        are nearly as near (the second at most twice as far as the first).

    Warns
    -----
    DataredWarning
        If a second star is within the limit, but more than twice as far.

    Notes
    -----
    A target that is in no list is measured at its place on the sky: `datared.reference.set_target`
    adds it as a forced position.
    """
    limit = u.Quantity(limit, u.arcsec)
    text = coord.icrs.to_string("hmsdms", precision=1)
    separation = coord.icrs.separation(positions(table)).to(u.arcsec)
    if not np.isfinite(separation.value).any():
        raise DataredError(f"the target at {text} cannot be identified: the table has no star")
    order = np.argsort(separation.value)  # NaN comes last.
    row, first = int(order[0]), separation[order[0]]
    if not first <= limit:
        raise DataredError(
            f"no star within {limit:.1f} of the target at {text}: the nearest, row {row}, is "
            f"{first:.1f} away. Check the target's position, give a larger limit, or measure at "
            "the position itself: datared.reference.set_target adds it to the star list"
        )
    if len(order) > 1 and separation[order[1]] <= limit:
        second = separation[order[1]]
        both = (
            f"two stars are within {limit:.1f} of the target at {text}: row {row} at "
            f"{first:.2f} and row {order[1]} at {second:.2f}"
        )
        if second <= 2 * first:
            raise DataredError(f"{both}. Give a better position or a smaller limit")
        warnings.warn(f"{both}; the nearer one is taken", DataredWarning, stacklevel=2)
    return row, first


def _closest_first(i, j, distance):
    """Pairs that remain when the closest is taken first and each entry once.

    In each pass the pairs that are the closest for both their entries are taken: nothing closer
    can take one of them away. The result is that of going through all pairs one by one.
    """
    order = np.lexsort((j, i, distance))
    chosen = []
    while len(order):
        first = np.zeros(len(order), bool)
        first[np.unique(i[order], return_index=True)[1]] = True
        mutual = np.zeros(len(order), bool)
        mutual[np.unique(j[order], return_index=True)[1]] = True
        taken = order[first & mutual]
        chosen.append(taken)
        order = order[~(np.isin(i[order], i[taken]) | np.isin(j[order], j[taken]))]
    return np.concatenate(chosen) if chosen else np.empty(0, int)


def _plain(column, fill):
    """Column as floats without a mask."""
    return np.ma.filled(np.ma.asarray(column, dtype=float), fill)


def _unit_vectors(ra, dec):
    """Return unit vectors, shape (n, 3), of positions in degrees."""
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
