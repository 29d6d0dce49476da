"""Capsules: rows of a catalogue in the network, asked for once and kept as one file.

A capsule is an ECSV file that `datared.starlists.read_catalogue` reads. Its header holds the text
of the query, the date, the number of rows, the row limit and a SHA-256, so that it can be shipped
to a room without network and trusted there.
"""

import hashlib
import itertools
import json
import logging
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import vstack
from astropy.table.meta import get_header_from_yaml

from datared.errors import ConfigError, DataredError
from datared.products import atomic_path
from datared.starlists import content_sum, normalise, read_catalogue
from datared.vizier import SOURCES, ask, make_query

__all__ = [
    "check_capsule",
    "covering_capsule",
    "fetch_catalogue",
    "night_field",
    "query_catalogue",
    "write_capsule",
]

log = logging.getLogger("datared.capsules")


def query_catalogue(name, center, *, radius, cache, limit_mag=None, service=None, timeout=60.0):
    """Stars of a catalogue around a position; the arguments are those of `fetch_catalogue`.

    Parameters
    ----------
    name, center, radius, cache, limit_mag, service, timeout
        As for `fetch_catalogue`.

    Returns
    -------
    astropy.table.Table
        As from `read_catalogue`, only the stars of this cone, with ``meta["query"]`` and
        ``meta["asked"]`` of the file that they come from.
    """
    path = fetch_catalogue(
        name, center, radius=radius, cache=cache, limit_mag=limit_mag, service=service,
        timeout=timeout,
    )  # fmt: skip
    stars = read_catalogue(path)
    place = SkyCoord(stars["ra"], stars["dec"], unit="deg")
    apart = np.atleast_1d(center.icrs)[:, None].separation(place)
    inside = apart.min(axis=0) <= u.Quantity(radius, u.arcmin)
    band = SOURCES[name].band
    if limit_mag is not None and band in stars.colnames:
        inside &= np.ma.filled(stars[band] < limit_mag, False)
    if not inside.all():
        stars = stars[inside]
        stars.meta["sha256"] = content_sum(stars)
    return stars


def fetch_catalogue(name, center, *, radius, cache, limit_mag=None, service=None, timeout=60.0):
    """File with the stars around a position from a catalogue in the network, kept on disk.

    A capsule in the folder that covers the cone (same catalogue, at least as wide and as deep) is
    taken as it is; only without one the network is asked. A folder of capsules can be given to a
    class without network.

    Parameters
    ----------
    name : {"refcat2", "gaia", "ps1", "sdss", "tycho2"}
        Catalogue: ATLAS-REFCAT2 (Tonry et al. 2018, ApJ 867, 105), Gaia DR3, Pan-STARRS DR1 mean
        PSF magnitudes, SDSS DR16 PSF magnitudes, Tycho-2.
    center : astropy.coordinates.SkyCoord
        Middle of the field, or the middles of several, which share one file.
    radius : astropy.units.Quantity or float
        Radius of each field; a bare number is in arcmin.
    cache : str or pathlib.Path
        Folder of the capsules; made where it is missing.
    limit_mag : float, optional
        Faintest magnitude wanted (r; G of Gaia, VT of Tycho-2).
    service : object, optional
        What to ask instead of `astroquery.vizier.Vizier`: called with ``columns``,
        ``row_limit``, ``column_filters`` and ``timeout``, it has
        ``query_region(center, radius=, catalog=, cache=)``.
    timeout : float
        Longest wait for the answer in seconds.

    Returns
    -------
    pathlib.Path
        File for `read_catalogue`.

    Raises
    ------
    DataredError
        If the name is unknown, the catalogue has no stars at this declination, the answer is empty
        or cut off, or the network is away and no capsule covers the cone.

    Notes
    -----
    For plate solutions take refcat2 or gaia, which have the bright stars: those of Pan-STARRS are
    saturated at 13.5 mag and have no magnitudes here (see `read_catalogue`).
    """
    query = make_query(name, center, radius, limit_mag)
    path = covering_capsule(cache, name, center, radius=radius, limit_mag=limit_mag)
    if path is not None:
        read_catalogue(path)  # Refuses one that was changed.
        return path
    key = hashlib.sha256(json.dumps(query, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(cache) / f"{name}_{key}.ecsv"
    return _write(query, name, path, service, timeout, kept=Path(cache))


def write_capsule(name, center, path, *, radius, limit_mag=None, service=None, timeout=60.0):
    """Ask for the stars around a position and write them as one file of this name.

    Parameters
    ----------
    name, center, radius, limit_mag, service, timeout
        As for `fetch_catalogue`.
    path : str or pathlib.Path
        The file (``.ecsv``); an older one is replaced once the answer is there.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    DataredError
        As `fetch_catalogue`, and if the file has another ending or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".ecsv":
        raise DataredError(f"{path} cannot be a capsule: its name must end in .ecsv")
    query = make_query(name, center, radius, limit_mag)
    return _write(query, name, path, service, timeout)


def covering_capsule(cache, name, center, *, radius, limit_mag=None):
    """Capsule of a folder that holds all stars of a cone, the smallest one if there are several.

    Parameters
    ----------
    cache : str or pathlib.Path
        Folder.
    name, center, radius, limit_mag
        As for `fetch_catalogue`.

    Returns
    -------
    pathlib.Path or None
        The file; None where no capsule is as wide and as deep.
    """
    radius = u.Quantity(radius, u.arcmin).value
    found = []
    # A name with a dot in front is of a file that is not whole yet, or never will be.
    for path in sorted(Path(cache).glob("[!.]*.ecsv")):
        meta = _header(path)
        asked = _query(meta)
        if asked is None or meta["source"] != name:
            continue
        fields = SkyCoord(asked["fields"], unit="deg")
        # Of each field wanted, how far the nearest one is that the file has.
        apart = np.atleast_1d(center.icrs)[:, None].separation(fields).arcmin
        away = float(apart.min(axis=1).max())
        depth = asked.get("limit_mag")
        deep = depth is None or (limit_mag is not None and depth >= limit_mag)
        # The query's numbers are rounded: half a hundredth of an arcmin is no reason to ask again.
        if deep and away + radius <= asked["radius_arcmin"] + 0.005:
            found.append((meta["rows"], path))
    return min(found)[1] if found else None


def check_capsule(path):
    """Check that a capsule is whole and say what is in it.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        ``source``, ``table``, ``fields`` (deg), ``radius_arcmin``, ``limit_mag``, ``asked``
        (date, UTC), ``rows`` (stars), ``rows_answered``, ``row_limit``, ``sha256``.

    Raises
    ------
    DataredError
        If the file is no capsule, or was changed.
    """
    meta = read_catalogue(path).meta
    query = _query(meta)
    if query is None:
        raise DataredError(
            f"{path} is a catalogue, but no capsule: it has no query or no SHA-256 that this "
            "version understands. Make one with `datared catalog`"
        )
    names = ("fields", "radius_arcmin", "limit_mag")
    return {
        "source": meta["source"],
        "table": query["catalogue"],
        **{name: query[name] for name in names},
        **{name: meta[name] for name in ("asked", "rows", "rows_answered", "row_limit", "sha256")},
    }


def night_field(night, lights):
    """Parts of the sky that the catalogue of a night must cover.

    Parameters
    ----------
    night : Night
        The night.
    lights : astropy.table.Table
        Its light frames: rows of `datared.listing.inventory`.

    Returns
    -------
    center : astropy.coordinates.SkyCoord, shape (n,)
        The target, or else where the first frame points; then each pointing that is farther than
        the search radius from those before it, such as a field of standard stars.
    radius : astropy.units.Quantity
        Of each field: half the diagonal of a frame and the search radius, in arcmin.

    Raises
    ------
    ConfigError
        If no position or no pixel scale is known.
    """
    ra, dec = (np.asarray(lights[name], float) for name in ("ra", "dec"))
    good = np.isfinite(ra) & np.isfinite(dec)
    pointings = SkyCoord(ra[good], dec[good], unit="deg")
    reach = max(float(night.astrometry.search_radius), 1.0) * u.arcmin
    fields, left = [], np.ones(len(pointings), bool)
    if night.target_coord is not None:
        fields.append(night.target_coord.icrs)
        left = pointings.separation(fields[0]) > reach
    while left.any():
        fields.append(pointings[np.argmax(left)])
        left &= pointings.separation(fields[-1]) > reach
    if not fields:
        raise ConfigError(
            "no catalogue and no position to ask for one: the headers have no pointing. Give "
            "[astrometry] catalogue, or target with its coordinates"
        )
    scales = np.asarray(lights["scale"], float)
    scales = scales[np.isfinite(scales)]
    scale = night.camera.pixel_scale or (float(np.median(scales)) if len(scales) else math.nan)
    if not scale > 0:
        raise ConfigError("the pixel scale is not known: give [camera] pixel_scale in arcsec")
    diagonal = math.hypot(np.max(lights["nx"]), np.max(lights["ny"])) * scale / 60
    center = SkyCoord([f.ra.deg for f in fields], [f.dec.deg for f in fields], unit="deg")
    return center, (0.55 * diagonal + float(night.astrometry.search_radius)) * u.arcmin


def _write(query, name, path, service, timeout, kept=None):
    """Ask, and write the answer with what was asked."""
    answers = ask(query, name, service=service, timeout=timeout, kept=kept)
    try:
        stars = [normalise(rows) for rows in answers]
    except DataredError as error:
        raise DataredError(f"catalogue {name}: {error}") from error
    stars = stars[0] if len(stars) == 1 else _joined(stars)
    stars.meta |= {
        "source": name,
        "query": json.dumps(query, sort_keys=True),
        "asked": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": len(stars),
        "rows_answered": sum(map(len, answers)),
        "row_limit": query["row_limit"],
    }
    stars.meta["sha256"] = content_sum(stars)
    try:
        with atomic_path(path) as temporary:
            stars.write(temporary, format="ascii.ecsv")
    except OSError as error:
        raise DataredError(f"{path} cannot be written ({error.strerror}); name another") from error
    log.info("%d stars of %s written to %s", len(stars), name, path)
    return path


def _joined(lists):
    """One star list of several, each star once where their fields overlap."""
    epochs = {stars.meta["epoch"] for stars in lists}
    if len(epochs) > 1 or any("epoch" in stars.colnames for stars in lists):
        # Where all positions of a field are of one date, its list has no column for it.
        for stars in lists:
            if "epoch" not in stars.colnames:
                stars["epoch"] = np.full(len(stars), stars.meta["epoch"])
    result = vstack(lists, metadata_conflicts="silent")
    result.meta["epoch"] = float(np.median(sorted(epochs)))
    for name in result.colnames:
        result[name].meta.update(lists[0][name].meta)
    places = np.column_stack([result["ra"], result["dec"]])
    return result[np.sort(np.unique(places, axis=0, return_index=True)[1])]


def _header(path):
    """Metadata of an ECSV file without reading its rows; empty where it is none."""
    try:
        with path.open(encoding="utf-8") as stream:
            lines = [line[2:].rstrip("\n") for line in itertools.takewhile(_is_comment, stream)]
        return dict(get_header_from_yaml(lines[1:]).get("meta") or {})
    except Exception:  # Another program's file, in whatever form.
        return {}


def _query(meta):
    """Give what was asked for, from the metadata of a capsule; None for any other file."""
    try:
        query = json.loads(meta["query"])
        told = {"source", "asked", "rows", "rows_answered", "row_limit", "sha256"} <= set(meta)
        whole = told and {"catalogue", "fields", "radius_arcmin", "limit_mag"} <= set(query)
    except (KeyError, TypeError, ValueError):  # Of another program or version.
        return None
    return query if whole else None


def _is_comment(line):
    """Whether a line of an ECSV file belongs to its header."""
    return line.startswith("#")
