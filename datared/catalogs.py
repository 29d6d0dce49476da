"""Catalogues of reference stars: moved to the night's date, matched, and asked for by name."""

import hashlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time
from scipy.spatial import cKDTree

from datared.errors import DataredError
from datared.products import atomic_path
from datared.starlists import normalise, read_catalogue

__all__ = [
    "at_epoch",
    "fetch_catalogue",
    "identify_target",
    "match",
    "positions",
    "query_catalogue",
    "read_catalogue",
]

log = logging.getLogger("datared.catalogs")

#: Catalogues that can be asked for: VizieR's name, columns, how to find them, and the epoch.
QUERIES = {
    "refcat2": ("J/ApJ/867/105/refcat2", ("RA_ICRS", "DE_ICRS", "pmRA", "pmDE", "gmag", "e_gmag",
                "rmag", "e_rmag", "imag", "e_imag", "zmag", "e_zmag")),
    "gaia": ("I/355/gaiadr3", ("Source", "RA_ICRS", "DE_ICRS", "pmRA", "pmDE", "Gmag", "e_Gmag",
             "BPmag", "e_BPmag", "RPmag", "e_RPmag")),
    "tycho2": ("I/259/tyc2", ("RA(ICRS)", "DE(ICRS)", "pmRA", "pmDE", "BTmag", "e_BTmag",
               "VTmag", "e_VTmag")),
}  # fmt: skip

#: Rows that one query may return. VizieR stops there without a word.
ROW_LIMIT = 50000


def at_epoch(catalogue, jd):
    """Move a catalogue to a date by its proper motions.

    Parameters
    ----------
    catalogue : astropy.table.Table
        Result of `read_catalogue`; ``meta["epoch"]`` is the year of its positions.
    jd : float
        Julian date (UTC); a date that is not finite leaves the positions as they are.

    Returns
    -------
    astropy.table.Table
        A copy with ``ra`` and ``dec`` at that date.

    Examples
    --------
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
    years = Time(jd, format="jd", scale="utc").jyear - epoch
    ra, dec = np.radians(catalogue["ra"]), np.radians(catalogue["dec"])
    mas = np.radians(1 / 3.6e6)
    # As a vector the shift is right at the pole too, where a step in right ascension has no size.
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros(len(ra))])
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    vector = _unit_vectors(catalogue["ra"], catalogue["dec"]).T
    vector = vector + years * mas * (
        np.asarray(catalogue["pm_ra"]) * east + np.asarray(catalogue["pm_dec"]) * north
    )
    result["ra"][:] = np.degrees(np.arctan2(vector[1], vector[0])) % 360
    result["dec"][:] = np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1])))
    result.meta["epoch"] = epoch + years
    return result


def positions(table):
    """Columns ``ra`` and ``dec`` (deg) of a table as coordinates."""
    return SkyCoord(np.asarray(table["ra"], float), np.asarray(table["dec"], float), unit="deg")


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
    near = tree1.query_ball_tree(tree2, chord)
    pairs = [(i, j) for i, found in enumerate(near) for j in found]
    if not pairs:
        return np.empty(0, int), np.empty(0, int), [] * u.arcsec
    i, j = np.array(pairs).T
    distance = np.linalg.norm(tree1.data[i] - tree2.data[j], axis=1)
    taken1, taken2, chosen = set(), set(), []
    for k in np.lexsort((j, i, distance)):
        if i[k] not in taken1 and j[k] not in taken2:
            taken1.add(i[k])
            taken2.add(j[k])
            chosen.append(k)
    chosen = np.array(chosen)[np.argsort(i[chosen])]
    separation = 2 * np.arcsin(np.minimum(distance[chosen] / 2, 1)) * u.rad
    return use1[i[chosen]], use2[j[chosen]], separation.to(u.arcsec)


def identify_target(table, coord, *, limit=3.0):
    """Row of a table that is a target, and how far it is.

    Parameters
    ----------
    table : astropy.table.Table
        Columns ``ra`` and ``dec`` in deg.
    coord : astropy.coordinates.SkyCoord
        Position of the target, one.
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
        If the nearest star is farther than the limit, or there is none.
    """
    limit = u.Quantity(limit, u.arcsec)
    text = coord.icrs.to_string("hmsdms", precision=1)
    separation = coord.icrs.separation(positions(table)).to(u.arcsec)
    finite = np.isfinite(separation.value)
    if not finite.any():
        raise DataredError(f"the target at {text} cannot be identified: the table has no star")
    row = int(np.nanargmin(separation.value))
    if separation[row] > limit:
        raise DataredError(
            f"no star within {limit:.1f} of the target at {text}: the nearest, row {row}, is "
            f"{separation[row]:.1f} away. Check the target's position or give a larger limit"
        )
    return row, separation[row]


def query_catalogue(name, center, *, radius, cache, limit_mag=None, service=None):
    """Ask for the stars around a position; the arguments are those of `fetch_catalogue`.

    Parameters
    ----------
    name, center, radius, cache, limit_mag, service
        As for `fetch_catalogue`.

    Returns
    -------
    astropy.table.Table
        As from `read_catalogue`, with ``meta["query"]``, ``meta["asked"]``, ``meta["sha256"]``.
    """
    return _read_capsule(
        fetch_catalogue(
            name, center, radius=radius, cache=cache, limit_mag=limit_mag, service=service
        )
    )


def fetch_catalogue(name, center, *, radius, cache, limit_mag=None, service=None):
    """File with the stars around a position from a catalogue in the network, kept on disk.

    The answer is written into the cache with the text of the query, the date and its SHA-256, and
    read from there ever after; a folder of such files can be given to a class without network.

    Parameters
    ----------
    name : {"refcat2", "gaia", "tycho2"}
        Catalogue: ATLAS-REFCAT2 (Tonry et al. 2018), Gaia DR3, Tycho-2.
    center : astropy.coordinates.SkyCoord
        Middle of the field.
    radius : astropy.units.Quantity or float
        Radius of the field; a bare number is in arcmin.
    cache : str or pathlib.Path
        Folder of the answers; made where it is missing.
    limit_mag : float, optional
        Faintest magnitude wanted (g, G or VT).
    service : object, optional
        What to ask instead of `astroquery.vizier.Vizier`: called with ``columns``,
        ``row_limit`` and ``column_filters``, it has ``query_region(center, radius=, catalog=)``.

    Returns
    -------
    pathlib.Path
        File for `read_catalogue`.

    Raises
    ------
    DataredError
        If the name is unknown, the answer is empty or cut off, or the network is away and the
        cache has no answer.
    """
    if name not in QUERIES:
        raise DataredError(f"catalogue {name!r} is unknown; valid are {', '.join(QUERIES)}")
    center, radius = center.icrs, u.Quantity(radius, u.arcmin)
    table_name, columns = QUERIES[name]
    bright = {"refcat2": "gmag", "gaia": "Gmag", "tycho2": "VTmag"}[name]
    query = {
        "catalogue": table_name,
        "columns": list(columns),
        "ra": round(float(center.ra.deg), 5),
        "dec": round(float(center.dec.deg), 5),
        "radius_arcmin": round(float(radius.value), 3),
        "filters": {} if limit_mag is None else {bright: f"<{limit_mag:g}"},
    }
    text = json.dumps(query, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = Path(cache) / f"{name}_{key}.ecsv"
    if path.is_file():
        _read_capsule(path)
        return path
    rows = _ask(name, query, center, radius, path, service)
    stars = normalise(rows)
    stars.meta |= {
        "query": text,
        "asked": datetime.now(UTC).isoformat(timespec="seconds"),
        "sha256": _content_sum(stars),
    }
    with atomic_path(path) as temporary:
        stars.write(temporary, format="ascii.ecsv")
    log.info("%d stars of %s written to %s", len(stars), name, path)
    return path


def _ask(name, query, center, radius, path, service):
    """Ask the service and judge the answer."""
    if service is None:
        from astroquery.vizier import Vizier

        service = Vizier
    try:
        vizier = service(
            columns=query["columns"], row_limit=ROW_LIMIT, column_filters=query["filters"]
        )
        answer = vizier.query_region(center, radius=radius, catalog=query["catalogue"])
    except Exception as error:
        raise DataredError(
            f"catalogue {name} cannot be asked for ({type(error).__name__}: {error}) and the cache "
            f"has no {path.name}. Ask once with a network, or give a file as [astrometry] catalogue"
        ) from error
    if not len(answer) or not len(answer[0]):
        raise DataredError(
            f"catalogue {name} has no star within {radius:.1f} of {center.to_string('hmsdms')}; "
            "check the position, or take a catalogue that covers this part of the sky"
        )
    if len(answer[0]) >= ROW_LIMIT:
        raise DataredError(
            f"catalogue {name} was cut off at {ROW_LIMIT} rows; ask for a smaller radius or give "
            "limit_mag"
        )
    return answer[0]


def _read_capsule(path):
    """Read an answer from the cache and check that nobody changed it."""
    stars = Table.read(path, format="ascii.ecsv")
    if _content_sum(stars) != stars.meta.get("sha256"):
        raise DataredError(f"{path} was changed after it was written; delete it and ask again")
    return stars


def _content_sum(table):
    """SHA-256 of the names and numbers of a table."""
    digest = hashlib.sha256(" ".join(table.colnames).encode())
    for name in table.colnames:
        values = np.ma.filled(np.ma.asarray(table[name]), "" if table[name].dtype.kind in "UO"
                              else np.nan)  # fmt: skip
        digest.update("\n".join(map(str, values.tolist())).encode())
    return digest.hexdigest()


def _unit_vectors(ra, dec):
    """Return unit vectors, shape (n, 3), of positions in degrees."""
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
