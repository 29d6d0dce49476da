"""The catalogues that can be asked for at VizieR, and how their answers are judged."""

import warnings
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from datared.errors import DataredError, DataredWarning

__all__ = ["ROW_LIMIT", "SOURCES", "Source", "ask", "make_query"]

#: Rows that one query may return. VizieR stops there without a word.
ROW_LIMIT = 100000


class Source(NamedTuple):
    """A catalogue that can be asked for.

    Parameters
    ----------
    table : str
        Name of the table at VizieR.
    columns : tuple of str
        Columns asked for, as VizieR calls them.
    limit, band : str
        Column that a faint limit is put on, and what we call it.
    filters : dict
        Conditions on columns that go with every query.
    south, north : float
        Declinations (deg) between which there are stars.
    empty : str
        What to do about an empty answer.
    """

    table: str
    columns: tuple
    limit: str
    band: str
    filters: dict = {}  # noqa: RUF012  (never changed)
    south: float = -90.0
    north: float = 90.0
    empty: str = "check the position"


def _with_errors(text):
    """Columns of magnitudes, each followed by its error."""
    return tuple(name for band in text.split() for name in (band, f"e_{band}"))


_MOTION = ("pmRA", "e_pmRA", "pmDE", "e_pmDE")

#: What can be asked for, by our names.
SOURCES = {
    "refcat2": Source(
        "J/ApJ/867/105/refcat2",
        ("RA_ICRS", "DE_ICRS", *_MOTION, *_with_errors("Gmag gmag rmag imag zmag"), "dupvar"),
        "rmag",
        "r",
    ),
    "gaia": Source(
        "I/355/gaiadr3",
        ("Source", "RA_ICRS", "DE_ICRS", "Plx", "e_Plx", *_MOTION, "RUWE",
         *_with_errors("Gmag BPmag RPmag")),
        "Gmag",
        "G",
    ),
    "ps1": Source(
        "II/349/ps1",
        ("objID", "RAJ2000", "DEJ2000", "Epoch", "Qual", "iKmag",
         *_with_errors("gmag rmag imag zmag ymag")),
        "rmag",
        "r",
        south=-30.0,
        empty="check the position, or take refcat2, which covers the whole sky",
    ),
    "sdss": Source(
        "V/154/sdss16",
        ("objID", "RA_ICRS", "DE_ICRS", "pmRA", "pmDE", "MJD", "mode", "class", "clean",
         *_with_errors("upmag gpmag rpmag ipmag zpmag")),
        "rpmag",
        "r",
        filters={"mode": "=1", "class": "=6", "clean": "=1"},
        south=-26.0,
        north=86.0,
        empty="SDSS covers a third of the sky, mostly far from the Milky Way: take refcat2 or ps1",
    ),
    "tycho2": Source(
        "I/259/tyc2",
        ("RAmdeg", "DEmdeg", "RA(ICRS)", "DE(ICRS)", "EpRA-1990", "pmRA", "pmDE",
         *_with_errors("BTmag VTmag")),
        "VTmag",
        "VT",
    ),
}  # fmt: skip


def make_query(name, center, radius, limit_mag):
    """Everything that is asked, as it is written into a capsule.

    Parameters
    ----------
    name : str
        Name in `SOURCES`.
    center : astropy.coordinates.SkyCoord
        Middle of the field, or the middles of several.
    radius : astropy.units.Quantity or float
        Radius of each; a bare number is in arcmin.
    limit_mag : float or None
        Faintest magnitude wanted.

    Returns
    -------
    dict
        ``catalogue``, ``columns``, ``fields`` (pairs of right ascension and declination, deg),
        ``radius_arcmin``, ``limit_mag``, ``filters`` and ``row_limit``; plain values, so that it
        can be written as text.

    Raises
    ------
    DataredError
        If the name is unknown, or position, radius or limit mean nothing.
    """
    if name not in SOURCES:
        raise DataredError(f"catalogue {name!r} is unknown; valid are {', '.join(SOURCES)}")
    source = SOURCES[name]
    radius = float(u.Quantity(radius, u.arcmin).value)
    fields = [
        [round(float(place.ra.deg), 5), round(float(place.dec.deg), 5)]
        for place in np.atleast_1d(center.icrs)
    ]
    if not (0 < radius <= 600 and fields and np.isfinite(fields).all()):
        raise DataredError(
            f"a cone of {radius:g} arcmin around {fields} deg cannot be asked for; give a finite "
            "position and a radius between 0 and 600 arcmin"
        )
    if limit_mag is not None and not np.isfinite(limit_mag):
        raise DataredError(f"limit_mag = {limit_mag} is no magnitude; give a number such as 17")
    limit = {} if limit_mag is None else {source.limit: f"<{limit_mag:g}"}
    return {
        "catalogue": source.table,
        "columns": list(source.columns),
        "fields": fields,
        "radius_arcmin": round(radius, 3),
        "limit_mag": None if limit_mag is None else float(limit_mag),
        "filters": source.filters | limit,
        "row_limit": ROW_LIMIT,
    }


def ask(query, name, *, service=None, timeout=60.0, kept=None):
    """Ask VizieR and judge the answer.

    Parameters
    ----------
    query : dict
        From `make_query`.
    name : str
        Name in `SOURCES`.
    service, timeout
        See `datared.capsules.fetch_catalogue`.
    kept : pathlib.Path, optional
        Folder that has no capsule for this field, for the message.

    Returns
    -------
    list of astropy.table.Table
        The rows as they came, of each field.

    Raises
    ------
    DataredError
        If there is nothing at this declination, the network is away or too slow, or the answer is
        empty or cut off.
    """
    source = SOURCES[name]
    places = [SkyCoord(*field, unit="deg") for field in query["fields"]]
    for place in places:
        _check_coverage(name, source, place, query["radius_arcmin"] * u.arcmin)
    return [_ask_cone(query, name, place, service, timeout, kept) for place in places]


def _ask_cone(query, name, center, service, timeout, kept):
    """Rows of one field."""
    source, radius = SOURCES[name], query["radius_arcmin"] * u.arcmin
    field = f"within {radius:.1f} of {center.to_string('hmsdms', precision=0)}"
    if service is None:
        from astroquery.vizier import Vizier

        service = Vizier
    try:
        vizier = service(
            columns=query["columns"],
            row_limit=query["row_limit"],
            column_filters=query["filters"],
            timeout=timeout,
        )
        # astroquery's own cache would give an old empty answer again.
        answer = vizier.query_region(center, radius=radius, catalog=query["catalogue"], cache=False)
        rows = answer[0] if len(answer) else ()
    except Exception as error:
        missing = f"{kept} has no file that covers the field {field}; " if kept else ""
        raise DataredError(
            f"catalogue {name} cannot be asked for ({_reason(error, timeout)}): {missing}ask once "
            "with a network (`datared catalog`), or give a file as [astrometry] catalogue"
        ) from error
    if not len(rows):
        raise DataredError(f"catalogue {name} has no star {field}; {source.empty}")
    if len(rows) >= query["row_limit"]:
        raise DataredError(
            f"catalogue {name} was cut off at {len(rows)} rows {field}; ask for a smaller radius "
            "or give a brighter limit_mag (--limit-mag, or limit_mag in [astrometry])"
        )
    return rows


def _check_coverage(name, source, center, radius):
    """Refuse a field where the catalogue has no star; warn where the field crosses its end."""
    dec, reach = float(center.dec.deg), float(radius.to_value(u.deg))
    span = f"{name} covers declinations from {source.south:g} to {source.north:g} deg"
    if not source.south <= dec <= source.north:
        raise DataredError(f"{span}; this field is at {dec:+.1f}. Take refcat2 or gaia")
    # A field with a pole in it does not end there.
    south, north = max(dec - reach, -90.0), min(dec + reach, 90.0)
    if south < source.south or north > source.north:
        message = f"{span}: this field reaches beyond, and a part of it will have no stars"
        warnings.warn(message, DataredWarning, stacklevel=4)


def _reason(error, timeout):
    """Why the network did not answer, in a few words."""
    kind = type(error).__name__
    if "timeout" in kind.lower():
        return f"no answer within {timeout:g} s: try again later, or a smaller radius"
    if isinstance(error, OSError):
        return f"no connection to VizieR, {kind}"
    return f"{kind}: {str(error).strip().splitlines()[0][:120] if str(error).strip() else 'failed'}"
