"""Names of targets: a small list that needs no network, positions as text, and Simbad."""

import csv
import difflib
import functools
import re
import warnings
from importlib import resources
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time

from datared.errors import DataredError
from datared.settings import parse_position

__all__ = ["KnownObject", "known_names", "known_object", "position_at", "resolve_target"]


class KnownObject(NamedTuple):
    """An object of the list.

    Parameters
    ----------
    name : str
        As it is usually written.
    kind : {"cluster", "variable", "host"}
        Cluster, variable star, or star with a transiting planet.
    position : astropy.coordinates.SkyCoord
        ICRS at J2000, with the proper motion of stars; good to a few arcsec for stars, to about an
        arcmin for clusters.
    """

    name: str
    kind: str
    position: SkyCoord


def known_names():
    """Names of the objects that are known without network.

    Returns
    -------
    list of str
        Clusters, variable stars and hosts of planets, by right ascension within each kind.
    """
    return list(dict.fromkeys(row["name"] for row in _rows().values()))


def known_object(name):
    """Look an object up in the list that comes with the package.

    Case, blanks and hyphens do not count; a planet (``HAT-P-32 b``) stands for its star.

    Parameters
    ----------
    name : str
        Name or another name: ``"M 67"``, ``"NGC2682"``, ``"hat-p-32 b"``.

    Returns
    -------
    KnownObject or None
        None where the list does not have it.

    Examples
    --------
    >>> known_object("ngc2682").name, known_object("WASP-12 b").kind
    ('M 67', 'host')
    >>> known_object("no such star") is None
    True
    """
    rows, plain = _rows(), _plain(name)
    row = rows.get(plain)
    # A planet has a small letter; a capital one may be a star of a pair.
    if row is None and re.search(r"[b-i]\s*$", str(name)):
        row = rows.get(plain[:-1])
        row = row if row is not None and row["kind"] == "host" else None
    if row is None:
        return None
    return KnownObject(
        row["name"],
        row["kind"],
        _coordinates(*(float(row[key]) for key in ("ra", "dec", "pm_ra", "pm_dec"))),
    )


def resolve_target(text, *, jd=None, online=True, service=None):
    """Position of a target that is given by its name or as a position.

    First the list of the package is looked at, then the text is read as a position, and last
    Simbad is asked.

    Parameters
    ----------
    text : str or astropy.coordinates.SkyCoord
        Name, or position as `datared.settings.parse_position` reads it: hours and degrees with
        colons, blanks or letters, or two plain numbers in degrees. Coordinates are passed on.
    jd : float, optional
        Julian date to which the position is moved, as far as the proper motion is known.
    online : bool
        Whether Simbad may be asked.
    service : callable, optional
        What to ask instead of `astroquery.simbad.Simbad`; called without arguments it gives an
        object with ``add_votable_fields(...)`` and ``query_object(name)``.

    Returns
    -------
    astropy.coordinates.SkyCoord
        ICRS, at J2000 where no date is given.

    Raises
    ------
    DataredError
        If the name is not known, or Simbad cannot be asked.

    Examples
    --------
    >>> resolve_target("RR Lyr").to_string("hmsdms", precision=0)
    '19h25m28s +42d47m04s'
    >>> resolve_target("19:25:27.9 +42:47:03.7").ra.deg.round(5)
    np.float64(291.36625)
    """
    if isinstance(text, SkyCoord):
        return text if jd is None else position_at(text, jd)
    known = known_object(text)
    position = parse_position(text) if known is None else known.position
    if position is None:
        position = _ask_simbad(str(text).strip(), online, service)
    return position if jd is None else position_at(position, jd)


def position_at(coord, jd):
    """Move a position to a date by the proper motion that it carries.

    Parameters
    ----------
    coord : astropy.coordinates.SkyCoord
        With ``pm_ra_cosdec``, ``pm_dec`` and ``obstime``, or without.
    jd : float
        Julian date (UTC); a date that is not finite leaves the position as it is.

    Returns
    -------
    astropy.coordinates.SkyCoord
        ICRS, a plain position without motion.
    """
    coord = coord.icrs
    moves = "s" in coord.data.differentials and coord.obstime is not None
    if not moves or not np.isfinite(jd):
        return SkyCoord(coord.ra, coord.dec)
    # Years of either scale: a minute is nothing here, and no leap second is asked of the future.
    years = (Time(jd, format="jd", scale="utc").jyear - coord.obstime.jyear) * u.yr
    # Along the great circle of the motion: right at the poles too.
    east, north = coord.pm_ra_cosdec * years, coord.pm_dec * years
    return SkyCoord(coord.ra, coord.dec).directional_offset_by(
        np.arctan2(east, north), np.hypot(east, north)
    )


@functools.cache
def _rows():
    """Rows of the list by plain name."""
    path = resources.files("datared") / "data" / "objects.csv"
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {
        _plain(name): row for row in rows for name in (row["name"], *row["aliases"].split(";"))
        if name
    }  # fmt: skip


def _plain(name):
    """Name without case, blanks, hyphens and catalogue prefixes that mean the same."""
    plain = re.sub(r"[\s_\-–'’]+", "", str(name)).lower()
    return re.sub(r"^messier(?=\d)", "m", plain)


def _coordinates(ra, dec, pm_ra=0.0, pm_dec=0.0):
    """Coordinates at J2000, with a proper motion (mas/yr) where there is one."""
    if not (pm_ra or pm_dec):
        return SkyCoord(ra, dec, unit="deg")
    motion = {"pm_ra_cosdec": pm_ra * u.mas / u.yr, "pm_dec": pm_dec * u.mas / u.yr}
    return SkyCoord(ra, dec, unit="deg", obstime=Time("J2000"), **motion)


def _ask_simbad(name, online, service):
    """Position of a name from Simbad."""
    near = difflib.get_close_matches(name, known_names(), n=3, cutoff=0.7)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    advice = (
        'Give its position, such as "02:04:10.28 +46:41:16.2" (hours, degrees) or '
        f'"31.0428 46.6878" (degrees).{hint}'
    )
    unknown = f"{name!r} is no position and not among the {len(known_names())} objects of the list"
    if not name:
        raise DataredError(f"the name of the target is empty. {advice}")
    if not online:
        raise DataredError(f"{unknown}, and Simbad is not asked. {advice}")
    try:
        if service is None:
            from astroquery.simbad import Simbad

            service = Simbad
        simbad = service()
        with warnings.catch_warnings():
            # An unknown name is told of below; the field names belong to astroquery.
            warnings.simplefilter("ignore")
            simbad.add_votable_fields("pmra", "pmdec")
            found = simbad.query_object(name)
    except Exception as error:
        raise DataredError(
            f"{unknown}, and Simbad cannot be asked ({type(error).__name__}). {advice}"
        ) from error
    if found is None or not len(found):
        raise DataredError(f"{unknown}, and Simbad does not know it. {advice}")
    ra, dec, pm_ra, pm_dec = (
        float(np.ma.filled(np.ma.asarray(found[key], dtype=float), np.nan)[0])
        for key in ("ra", "dec", "pmra", "pmdec")
    )
    if not np.isfinite(ra + dec):
        raise DataredError(f"Simbad knows {name!r}, but not where it is. {advice}")
    return _coordinates(ra, dec, *np.nan_to_num([pm_ra, pm_dec]))
