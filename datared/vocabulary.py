"""The words for frames: kinds, the names of header cards, and what the package calls them."""

import math
import re

__all__ = ["KINDS", "SYNONYMS", "VOCABULARY", "clean_filter", "flat_kind", "normalise_kind"]

KINDS = ("bias", "dark", "darkflat", "flat", "light")

#: Cards for each word of the vocabulary, in the order in which they are tried.
SYNONYMS = {
    "kind": (
        "KIND",
        "IMAGETYP",
        "FRAMETYP",
        "OBSTYPE",
        "IMAGETYPE",
        "FRAME",
        "PICTTYPE",
        "IMGTYPE",
    ),
    "filter": ("FILTER", "INSFILTE", "FILTNAM", "FILTERID", "FILTER1", "FILTER2", "INSFLNAM"),
    "exptime": ("EXPTIME", "EXPOSURE", "EXP_TIME", "EXPOSE", "ITIME", "TEXP", "EXPOINUS"),
    "object": ("OBJECT", "OBJNAME", "TARGET", "TARGNAME"),
    "date": (),
    "ra": ("RA", "OBJCTRA", "TELRA", "RA_OBJ", "RA-OBJ"),
    "dec": ("DEC", "OBJCTDEC", "TELDEC", "DEC_OBJ", "DEC-OBJ"),
    "xbin": ("XBINNING", "XBIN", "BINX", "CCDXBIN", "BINNING", "CCDSUM", "CDELT1U"),
    "ybin": ("YBINNING", "YBIN", "BINY", "CCDYBIN", "BINNING", "CCDSUM", "CDELT2U"),
    "gain_setting": ("GAIN",),
    "offset": ("OFFSET", "BLKLEVEL", "BLACKLVL"),
    "readout_mode": ("READOUTM", "READMODE", "READ-SPD"),
    "temperature": ("CCD-TEMP", "CCDTEMP", "TEMPDET", "DET-TEMP", "CAMTEMP", "TEMPERAT"),
    "pier_side": ("PIERSIDE", "PIER-SID", "SIDEPIER"),
    "airmass": ("AIRMASS", "SECZ"),
    "latitude": ("SITELAT", "LAT-OBS", "OBSLAT", "LATITUDE", "GEOLAT"),
    "longitude": ("SITELONG", "LONG-OBS", "OBSLONG", "LONGITUD", "GEOLON"),
    "height": ("SITEELEV", "ALT-OBS", "OBSALT", "HEIGHT", "ELEVATIO", "GEOALT"),
    "scale": ("SCALE", "PIXSCALE", "IM_SCALE", "SECPIX", "PIXSCAL1"),
}

#: Columns that `read_header` gives, with the value of an unreadable header.
VOCABULARY = {
    "kind": "",
    "flat_kind": "",
    "filter": "",
    "exptime": math.nan,
    "object": "",
    "date_obs": "",
    "jd_utc_start": math.nan,
    "jd_utc_mid": math.nan,
    "ra": math.nan,
    "dec": math.nan,
    "nx": 0,
    "ny": 0,
    "xbin": 1,
    "ybin": 1,
    "gain_setting": math.nan,
    "offset": math.nan,
    "readout_mode": "",
    "temperature": math.nan,
    "pier_side": "",
    "airmass": math.nan,
    "latitude": math.nan,
    "longitude": math.nan,
    "height": math.nan,
    "has_wcs": False,
    "scale": math.nan,
    "problem": "",
    "warning": "",
}

#: Dark frames not longer than this (s) are bias frames: some cameras have no other word for them.
BIAS_EXPTIME = 1e-3

_WORDS = {
    "bias": {"bias", "biases", "biasframe", "masterbias", "zero", "zeros", "offset", "offsets"},
    "dark": {"dark", "darks", "darkframe", "masterdark", "thermal", "thermals"},
    "flat": {
        *("flat", "flats", "flatframe", "flatfield", "masterflat", "twilight"),
        *("skyflat", "skyflats", "sflat", "twiflat", "duskflat", "dawnflat"),
        *("domeflat", "domeflats", "dflat", "lampflat", "panelflat"),
    },
    "darkflat": {"darkflat", "darkflats", "flatdark", "flatdarks"},
    "light": {
        *("light", "lights", "lightframe", "object", "science", "sci", "target", "snapshot"),
        *("standard", "standards", "expose"),
    },
}
#: Words that may stand beside a kind without changing it ("Dark Frame", "Dome Flat B").
_FILLERS = {
    *("frame", "frames", "field", "fields", "image", "exposure", "master", "star"),
    *("dome", "sky", "morning", "evening", "dusk", "dawn", "lamp", "panel", "projector"),
}
#: Words that tell how a flat was lit.
_LIT = {
    "sky": re.compile(r"sky|twi|dusk|dawn|morning|evening|sflat", re.I),
    "dome": re.compile(r"dome|dflat", re.I),
    "panel": re.compile(r"panel|lamp|projector|light ?box", re.I),
}


def normalise_kind(value, *, exptime=math.nan):
    """Kind of frame that a header's or a user's word means.

    Parameters
    ----------
    value : str
        Such as ``Light Frame``, ``object``, ``zero``, ``Flat Field``, ``DARKFLAT``, ``Flat_V_1``.
    exptime : float, optional
        Exposure time in seconds: a dark of at most a millisecond is a bias.

    Returns
    -------
    str
        One of `KINDS`, or an empty text where the words mean none of them (a name such as "Dark
        Cloud" is none).

    Examples
    --------
    >>> normalise_kind("Flat Field"), normalise_kind("DARK", exptime=0.0), normalise_kind("M 31")
    ('flat', 'bias', '')
    """
    words = [word for word in re.findall(r"[a-z]+", str(value).lower()) if len(word) > 2]
    found = {kind for word in words for kind, known in _WORDS.items() if word in known}
    rest = [w for w in words if w not in _FILLERS and not any(w in k for k in _WORDS.values())]
    if not found or rest:
        return ""
    if "darkflat" in found or {"dark", "flat"} <= found:
        return "darkflat"
    kind = next(kind for kind in ("bias", "dark", "flat", "light") if kind in found)
    return "bias" if kind == "dark" and exptime <= BIAS_EXPTIME else kind


def flat_kind(value):
    """How a flat was lit, by the words of a header.

    Parameters
    ----------
    value : str
        Such as ``Sky Flat``, ``DOMEFLAT``, ``twilight flat B``, ``Lamp Flat``.

    Returns
    -------
    str
        ``sky``, ``dome`` or ``panel`` (also any other lamp); empty where the words do not tell.

    Examples
    --------
    >>> flat_kind("DomeFlat"), flat_kind("Twilight flat"), flat_kind("Flat Field")
    ('dome', 'sky', '')
    """
    return next((kind for kind, words in _LIT.items() if words.search(str(value))), "")


def clean_filter(value):
    """Filter name without surrounding blanks and quotes; its case is kept, and a prime (``r'``).

    Parameters
    ----------
    value : object
        The header's value; None for a missing card.

    Returns
    -------
    str
        The name; empty where there is none. A Johnson R and a Sloan r stay apart.
    """
    name = "" if value is None else str(value).strip()
    if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"":
        name = name[1:-1].strip()
    return name
