"""Time of an exposure from any camera program's header, as Julian dates in UTC."""

import datetime
import math
import re

__all__ = ["exposure_times", "parse_date", "parse_time"]

#: Julian date from which `datetime.date.toordinal` counts.
_JD_ORDINAL_ZERO = 1721424.5
_MJD_ZERO = 2400000.5

_DATE = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})")
_OLD_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{2}|\d{4})")
_CLOCK = re.compile(
    r"(\d{1,2})[: ](\d{1,2})(?:[: ](\d{1,2}(?:\.\d*)?))?\s*(Z|UTC|UT|[+-]\d{2}:?\d{2})?", re.I
)

START_CARDS = ("DATE-OBS", "DATE-BEG", "UT-OBS", "DATE_OBS", "DATEOBS", "DATE-STA", "UTSTART")
CLOCK_CARDS = ("TIME-OBS", "UT", "UTC", "UT-OBS", "UTC-OBS", "UTSTART", "TIME-BEG", "TIME")
MIDDLE_CARDS = ("DATE-AVG", "DATE-MID")
DAY_CARDS = {"MJD-OBS": _MJD_ZERO, "MJD-BEG": _MJD_ZERO, "JD": 0.0, "JD-OBS": 0.0, "JD_UTC": 0.0}
MIDDLE_DAY_CARDS = {"JD_UTC_M": 0.0, "MJD-MID": _MJD_ZERO, "MJD-AVG": _MJD_ZERO}

#: Names of TIMESYS that are not UTC, and astropy's names for them.
_ATOMIC = {"TAI": "tai", "TT": "tt", "TDT": "tt", "TDB": "tdb", "GPS": "tai"}
_GPS_TO_TAI = 19.0 / 86400.0
#: A card may be rounded to 0.001 d; a difference beyond twice that is one of time zones.
_SAME_TIME = 0.002


def parse_date(text):
    """Calendar date in a header value.

    Parameters
    ----------
    text : str
        ``2013-03-11``, ``2013/03/11`` or the old form ``11/03/13`` (day/month/year; years below
        50 are taken to be of this century, as programs of today still write it).

    Returns
    -------
    datetime.date or None
        None where there is no valid date at the beginning of the text.

    Examples
    --------
    >>> parse_date("23/08/18")
    datetime.date(2018, 8, 23)
    """
    text = str(text).strip()
    match = _DATE.match(text)
    if match:
        year, month, day = (int(part) for part in match.groups())
    else:
        match = _OLD_DATE.match(text)
        if not match:
            return None
        day, month, year = (int(part) for part in match.groups())
        if year < 100:
            year += 2000 if year < 50 else 1900
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


def parse_time(date_text, clock_text=""):
    """Moment in UTC from one or two header values.

    Parameters
    ----------
    date_text : str
        A date, with or without time of day: ``2017-12-19T18:33:43.317-0700``. An offset is
        subtracted, so that the result is UTC; without one the time is UTC already.
    clock_text : str, optional
        Time of day, used only where ``date_text`` has none.

    Returns
    -------
    datetime.datetime or None
        Without time zone, in UTC; None where date or time of day cannot be read.

    Examples
    --------
    >>> parse_time("2017-12-19T18:33:43.317-0700").isoformat()
    '2017-12-20T01:33:43.317000'
    """
    date_text = str(date_text).strip()
    date = parse_date(date_text)
    if date is None:
        return None
    parts = re.split(r"[T ]", date_text, maxsplit=1, flags=re.I)
    clock = parts[1] if len(parts) == 2 and parts[1].strip() else str(clock_text)
    match = _CLOCK.fullmatch(clock.strip())
    if not match:
        return None
    hours, minutes, seconds, zone = match.groups()
    if int(hours) > 24 or int(minutes) > 59 or float(seconds or 0) >= 61:
        return None
    moment = datetime.datetime(date.year, date.month, date.day) + datetime.timedelta(
        hours=int(hours), minutes=int(minutes), seconds=float(seconds or 0)
    )
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "")
        offset = datetime.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        moment -= offset if zone[0] == "+" else -offset
    return moment


def exposure_times(value_of, *, exptime, comment_of=lambda key: "", first=()):
    """Start and middle of an exposure.

    Text cards with a date win over Julian-date cards, which some programs round to 0.001 d
    (86 s). The middle is start + exposure time / 2, or the header's own middle where it has one
    that fits.

    Parameters
    ----------
    value_of : callable
        Gives the value of a card, or None where it is missing or unreadable.
    exptime : float
        Exposure time in seconds; may be NaN.
    comment_of : callable, optional
        Gives the comment of a card.
    first : sequence of str, optional
        Cards with the start that are tried before the known ones.

    Returns
    -------
    dict
        ``jd_utc_start``, ``jd_utc_mid`` (float, NaN where unknown), ``date_obs`` (ISO text of the
        start in UTC, or empty) and ``warnings`` (list of str).
    """
    warnings = []
    moment, card = _start(value_of, first)
    start = math.nan if moment is None else _julian_date(moment)
    days = ((_number(value_of(key)), zero) for key, zero in DAY_CARDS.items())
    rounded = next((day + zero for day, zero in days if day > 1), math.nan)
    if moment is None and rounded == rounded:
        start = rounded
        warnings.append("the time is that of a Julian-date card, which may be rounded")
    elif moment is None:
        warnings.append("no date and time of the exposure in the header")
    elif abs(start - rounded) > _SAME_TIME + (exptime if exptime > 0 else 0.0) / 86400:
        warnings.append(
            f"{card} and the Julian-date card differ by {(start - rounded) * 24:+.2f} h: "
            f"{card} is taken as UTC, check that it is not local time"
        )
    elif rounded != rounded and _says_local(comment_of(card), value_of(card)):
        warnings.append(f"the comment of {card} says local time, but it has no offset from UTC")
    scale = str(value_of("TIMESYS") or "UTC").strip().upper()
    shift = _ahead_of_utc(start, scale) if scale in _ATOMIC and start == start else 0.0
    start -= shift
    middle = _middle(value_of) - shift
    expected = start + exptime / 2 / 86400
    if middle != middle:
        middle = expected
    elif abs(middle - expected) * 86400 > exptime / 2 + 2.0:
        # A middle outside the exposure is a program's error, never the middle.
        warnings.append("the header's own mid-exposure time lies outside the exposure")
        middle = expected
    date_obs = _iso(_moment(start) if moment is None or shift else moment)
    return {
        "jd_utc_start": start,
        "jd_utc_mid": middle,
        "date_obs": date_obs,
        "warnings": warnings,
    }


def _start(value_of, first):
    """Start as a datetime and the card that it is from; None where no text card has it."""
    clocks = [str(value_of(card)).strip() for card in CLOCK_CARDS]
    # A card with a full date is no time of day: the UT-OBS of some programs has both.
    clock = next((text for text in clocks if _CLOCK.fullmatch(text)), "")
    for cards, time_of_day in (
        ((*first, *START_CARDS), ""),
        ((*first, *START_CARDS, "DATE"), clock),
    ):
        for card in cards:
            value = value_of(card)
            moment = None if value is None else parse_time(value, time_of_day)
            # DATE alone is when the file was written; its time of day is not the exposure's.
            if moment is not None and (card != "DATE" or clock):
                return moment, card
    return None, ""


def _middle(value_of):
    """Julian date of the header's own middle of the exposure, NaN where it has none."""
    for card, zero in MIDDLE_DAY_CARDS.items():
        day = _number(value_of(card))
        if day > 1:
            return day + zero
    for card in MIDDLE_CARDS:
        moment = None if value_of(card) is None else parse_time(value_of(card))
        if moment is not None:
            return _julian_date(moment)
    return math.nan


def _julian_date(moment):
    """Julian date of a datetime."""
    seconds = (moment - datetime.datetime(moment.year, moment.month, moment.day)).total_seconds()
    return _JD_ORDINAL_ZERO + moment.toordinal() + seconds / 86400


def _moment(jd):
    """Datetime of a Julian date, None where it has none."""
    if not 1721426 < jd < 5373484:  # Years 1 to 9999; False also for NaN.
        return None
    return datetime.datetime(1, 1, 1) + datetime.timedelta(days=jd - _JD_ORDINAL_ZERO - 1)


def _iso(moment):
    """ISO text of a datetime, to the millisecond; empty for None."""
    if moment is None:
        return ""
    # isoformat cuts off digits; half a millisecond more makes it round.
    return (moment + datetime.timedelta(microseconds=500)).isoformat(timespec="milliseconds")


def _ahead_of_utc(jd, scale):
    """Days by which an atomic time scale is ahead of UTC."""
    from astropy.time import Time

    shift = jd - Time(jd, format="jd", scale=_ATOMIC[scale]).utc.jd
    return shift - _GPS_TO_TAI if scale == "GPS" else shift


def _says_local(comment, value):
    """Whether a card's comment says local time while its value has no offset."""
    has_zone = re.search(r"(Z|[+-]\d{2}:?\d{2})$", str(value).strip().split("T")[-1])
    return not has_zone and re.search(r"\blocal\b|\bLT\b", str(comment), re.I) is not None


def _number(value):
    """Float of a header value, NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
