"""What all exports share: names of files, what may be missing, and times checked for physics."""

import contextlib
import math
import re
import unicodedata
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Table

from .errors import ConfigError, DataredError
from .lightcurve import CLOUDY
from .photometry import FLAG_NAMES
from .products import atomic_path
from .times import SECONDS_PER_DAY, airmass, altitude, bjd_tdb

__all__ = [
    "check_times",
    "check_vocabulary",
    "checked_path",
    "flag_words",
    "plain_table",
    "read_text",
    "require",
    "rows_to_export",
    "safe_name",
]

#: Flags with which a brightness is not reported: it is a limit, or of something else.
UNFIT = ("edge", "outside", "saturated", "negative", "no position")

#: Largest difference of two times that are the same (s), and of an airmass (relative): formulas
#: differ by a percent down to 15 degrees, and a header may mean the start of the exposure.
TIME_LIMIT, AIRMASS_LIMIT = 0.05, 0.02

#: Light needs at most this long (s) from the Earth to the barycentre of the Solar System, 1.027 au;
#: TDB has been ahead of UTC by 42 s (1972) and more, and will be by less than 80 s for long.
LIGHT_TRAVEL, CLOCKS = 513.0, (42.0, 80.0)

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_name(text):
    """Make a file name of any text that every file system takes.

    Parameters
    ----------
    text : str
        Such as the name of a star or a night.

    Returns
    -------
    str
        ASCII letters, digits and ``. _ + -``; not empty, at most 100 characters, without a dot or
        a dash in front.

    Examples
    --------
    >>> safe_name("HAT-P-32 b, 2017/12/20"), safe_name("../é?"), safe_name("")
    ('HAT-P-32_b_2017_12_20', 'e', 'night')
    """
    plain = unicodedata.normalize("NFKD", str(text)).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", plain).strip("._-")[:100] or "night"
    return f"_{plain}" if _RESERVED.fullmatch(plain) else plain


def require(wanted):
    """Refuse what is missing, all of it in one message.

    Parameters
    ----------
    wanted : dict of str to (object, str)
        For each name what was given, and what it is and where it comes from.

    Raises
    ------
    ConfigError
        With one sentence for each that is None, empty or not finite.
    """
    problems = [
        f"{name} is missing: {words}"
        for name, (value, words) in wanted.items()
        if value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and not math.isfinite(value))
    ]
    if problems:
        raise ConfigError(*problems)


def check_vocabulary(value, *, name, words, translated, format):
    """Give the word of a format for a name of ours.

    Parameters
    ----------
    value : str
        Our name (of a filter, say) or a word of the format.
    name : str
        What it is, for the message.
    words : sequence of str
        All words of the format.
    translated : dict of str to str
        Our names that mean one of them for sure.
    format : str
        Name of the format, for the message.

    Returns
    -------
    str
        The word.

    Raises
    ------
    ConfigError
        If it is not known.

    Examples
    --------
    >>> check_vocabulary("r", name="filter", words=["SR"], translated={"r": "SR"}, format="AAVSO")
    'SR'
    """
    word = translated.get(value, value)
    if word not in words:
        raise ConfigError(
            f"{name} {value!r} has no name in the {format} format; say which it is: "
            f"{', '.join(words)}"
        )
    return word


@contextlib.contextmanager
def checked_path(path):
    """Give a temporary path as `datared.products.atomic_path` does, for a file that is checked.

    Parameters
    ----------
    path : str or pathlib.Path
        The file to write.

    Yields
    ------
    pathlib.Path
        The temporary path; it is renamed to ``path`` if nothing went wrong.

    Raises
    ------
    DataredError
        If the file cannot be written. The errors of its check name ``path``, not the temporary one.
    """
    temporary = path
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except DataredError as error:
        raise type(error)(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        raise DataredError(f"{path} cannot be written: {error.strerror or error}") from error


def plain_table(table):
    """Copy a table without masks.

    Parameters
    ----------
    table : astropy.table.Table
        Any table.

    Returns
    -------
    astropy.table.Table
        A copy; what was masked is NaN, an empty text, or 0.
    """
    plain = Table(meta=table.meta)
    for name in table.colnames:
        values = np.ma.asarray(table[name])
        nothing = {"f": np.nan, "U": ""}.get(values.dtype.kind, 0)
        plain[name] = values.filled(nothing)
    return plain


def rows_to_export(curve):
    """Give the epochs of a light curve that can be reported, in the order of time.

    Parameters
    ----------
    curve : astropy.table.Table
        From `datared.lightcurve.differential_light_curve`.

    Returns
    -------
    astropy.table.Table
        The rows, without masks, where time, flux, magnitude and their errors are finite numbers,
        the errors positive and below a magnitude, and the star is neither saturated, negative, at
        the edge, nor without a place.

    Raises
    ------
    ConfigError
        If the curve has several filters: a file has one.
    DataredError
        If there is none, with what is wrong with them.
    """
    columns = ("jd_utc_mid", "flux", "flux_err", "delta_mag", "delta_mag_err")
    curve = plain_table(curve)
    filters = sorted({str(name) for name in curve["filter"]} - {""})
    curve["filter"] = filters[0] if len(filters) == 1 else ""
    if len(filters) > 1:
        raise ConfigError(f"the filters are {', '.join(filters)}: export each by itself")
    values = [np.asarray(curve[name], float) for name in columns]
    finite = np.isfinite(values).all(axis=0) & (values[2] > 0)
    finite &= (values[4] > 0) & (values[4] < 1)
    unfit = sum(FLAG_NAMES[name] for name in UNFIT)
    flagged = (np.asarray(curve["flags"], int) & unfit) != 0
    good = finite & ~flagged
    if not good.any():
        raise DataredError(
            f"there is nothing to export: of {len(curve)} epochs {np.sum(~finite)} have no time, "
            f"no magnitude or no small error, and {np.sum(finite & flagged)} are flagged "
            f"({flag_words(np.bitwise_or.reduce(np.asarray(curve['flags'], int), initial=0))})"
        )
    rows = curve[good]
    rows.sort("jd_utc_mid")
    return rows


def flag_words(flags):
    """Give the names of the flags in a number.

    Parameters
    ----------
    flags : int
        Bits of `datared.photometry.FLAG_NAMES` and `datared.lightcurve.CLOUDY`; no other is named.

    Returns
    -------
    str
        Names, separated by ``;``.

    Examples
    --------
    >>> flag_words(12)
    'saturated; bad pixel'
    """
    names = FLAG_NAMES | {"clouds": CLOUDY}
    return "; ".join(name for name, bit in names.items() if int(flags) & bit)


def read_text(path):
    """Read a text file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file, in UTF-8.

    Returns
    -------
    str
        Its text, without a byte order mark.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def check_times(jd_utc, *, position=None, location=None, airmasses=None, bjd=None):
    """Check times and airmasses for physics, from the place on the sky and on the Earth.

    The airmass is computed again, and the BJD_TDB. Without a position or a location only what must
    hold anywhere is checked: an airmass is 1 or more, and BJD_TDB minus JD_UTC is at most the light
    travel time (8.4 minutes) away from the difference of the clocks.

    Parameters
    ----------
    jd_utc : array_like of float, shape (n,)
        Julian dates (UTC) of mid-exposure, in the order of time.
    position : astropy.coordinates.SkyCoord, optional
        The star.
    location : astropy.coordinates.EarthLocation, optional
        The observatory.
    airmasses, bjd : array_like of float, shape (n,), optional
        What is to be checked; NaN is not.

    Returns
    -------
    dict
        ``airmass``: largest relative difference, ``bjd_tdb``: largest difference in seconds; NaN
        for what could not be computed.

    Raises
    ------
    DataredError
        If something is not possible, or not what comes out.
    """
    jd = np.asarray(jd_utc, float)
    if not (len(jd) and np.isfinite(jd).all() and jd.min() > 2.4e6 and jd.max() < 2.6e6):
        raise DataredError("the times are not Julian dates of this age, or there are none")
    if np.any(np.diff(jd) <= 0):
        row = int(np.argmax(np.diff(jd) <= 0)) + 1
        raise DataredError(
            f"the times do not increase: row {row} has {jd[row]:.6f}; if a frame is there twice, "
            "exclude its copy in the night file"
        )
    found = {"airmass": math.nan, "bjd_tdb": math.nan}
    known = position is not None and location is not None
    if airmasses is not None:
        air = np.asarray(airmasses, float)
        given = np.isfinite(air)
        if np.any(air[given] < 1 - 1e-3) or np.any(air[given] > 40):
            raise DataredError(f"an airmass of {np.nanmin(air):.4f} to {np.nanmax(air):.4f}")
        if known and given.any():
            height = altitude(jd[given], position, location=location)
            away = np.abs(air[given] / airmass(height) - 1)
            found["airmass"] = float(np.max(away))
            if not found["airmass"] <= AIRMASS_LIMIT:
                low = np.min(height.to_value(u.deg))
                raise DataredError(
                    f"the airmass differs by {100 * found['airmass']:.1f} % from that of the place "
                    f"(lowest altitude there {low:.1f} deg): check site, time and position"
                )
    if bjd is not None:
        bjd = np.asarray(bjd, float)
        given = np.isfinite(bjd)
        late = (bjd[given] - jd[given]) * SECONDS_PER_DAY
        low, high = CLOCKS[0] - LIGHT_TRAVEL, CLOCKS[1] + LIGHT_TRAVEL
        if np.any(late < low) or np.any(late > high):
            raise DataredError(
                f"BJD_TDB minus JD_UTC is {late.min():.0f} to {late.max():.0f} s; light and clocks "
                f"make {low:.0f} to {high:.0f} s"
            )
        if known and given.any():
            again = bjd_tdb(jd[given], position, location=location)
            found["bjd_tdb"] = float(np.max(np.abs(bjd[given] - again)) * SECONDS_PER_DAY)
            if not found["bjd_tdb"] <= TIME_LIMIT:
                raise DataredError(
                    f"BJD_TDB differs by {found['bjd_tdb']:.2f} s from what place and site give"
                )
    return found
