"""Any camera program's header, read into one vocabulary. Files are never changed.

Dialects that are known: NINA, MaxIm DL, SharpCap, MicroObservatory, Lick Nickel, IAC80, AstroFX,
and whatever follows the FITS standard. What is not in a header comes out as NaN or an empty text,
never as an error; what a later step cannot do without is named in ``problem``.
"""

import math
import re

from .datecards import exposure_times
from .vocabulary import SYNONYMS, VOCABULARY, clean_filter, flat_kind, normalise_kind

__all__ = ["normalise_kind", "read_header"]

#: Names of an empty place of a filter wheel.
_OPEN = re.compile(r"clear|open|empty|none|air|free|dia|c|0", re.I)


def read_header(header, *, path="", synonyms=None):
    """Read one frame's header into the vocabulary of the package.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the image; it is not changed.
    path : str, optional
        Path of the file. Its words (``flats/``, ``bias_01.fits``) tell the kind where the header
        does not.
    synonyms : dict, optional
        For words of the vocabulary (keys of `SYNONYMS`) further cards, tried before ours.

    Returns
    -------
    dict
        The keys of `datared.vocabulary.VOCABULARY`: ``kind``, ``flat_kind`` (``sky``, ``dome``,
        ``panel`` where the header tells it), ``filter``, ``exptime`` (s),
        ``object``, ``date_obs`` (UTC), ``jd_utc_start``, ``jd_utc_mid``, ``ra`` and ``dec`` (deg),
        ``nx``, ``ny``, ``xbin``, ``ybin``, ``gain_setting`` (a setting, not e-/ADU), ``offset``,
        ``readout_mode``, ``temperature`` (deg C), ``pier_side`` (``east``, ``west``), ``airmass``,
        ``latitude``, ``longitude`` (deg, east positive), ``height`` (m), ``has_wcs``, ``scale``
        (arcsec/px), ``problem`` (empty for a usable frame) and ``warning``. A missing number is
        NaN.

    Examples
    --------
    >>> from astropy.io import fits
    >>> row = read_header(fits.Header({"FRAMETYP": "Light", "EXPTIME": 30, "FILTER": "g "}))
    >>> row["kind"], row["filter"], row["exptime"]
    ('light', 'g', 30.0)
    """
    cards = _Cards(header, synonyms or {})
    row = dict(VOCABULARY)
    problems, warnings = [], []
    row["object"] = cards.text("object")
    row["exptime"] = _exposure(cards)
    row["kind"] = _kind(cards, row, str(path), warnings)
    if row["kind"] == "flat":
        row["flat_kind"] = next(filter(None, map(flat_kind, cards.texts("kind", "object"))), "")
    row["filter"] = _filter(cards, warnings)
    times = exposure_times(
        cards.value, exptime=row["exptime"], comment_of=cards.comment, first=cards.keys("date")
    )
    warnings += times.pop("warnings")
    row |= times
    row["ra"], row["dec"] = _pointing(cards, warnings)
    row["nx"], row["ny"] = (int(_float(cards.value(f"NAXIS{i}"), 0)) for i in (1, 2))
    row["xbin"], row["ybin"] = _binning(cards, "xbin", 0), _binning(cards, "ybin", -1)
    for word in ("gain_setting", "offset", "airmass", "height"):
        row[word] = cards.number(word)
    row["readout_mode"] = cards.text("readout_mode")
    row["temperature"] = _temperature(cards)
    side = cards.text("pier_side").lower().removeprefix("pier")
    row["pier_side"] = {"e": "east", "w": "west"}.get(side[:1], "")
    row["latitude"], row["longitude"] = _angle(cards.first("latitude")[1]), _longitude(cards)
    matrix = _wcs_matrix(cards)
    row["has_wcs"] = matrix is not None
    row["scale"] = _scale(cards, matrix)
    problems += _shape_problems(cards)
    if not row["kind"]:
        problems.append(
            f"the kind of frame is unknown ({cards.search('kind')}): name it in a [[frames]] table "
            "of the night file"
        )
    if row["kind"] in ("light", "dark", "darkflat") and row["exptime"] != row["exptime"]:
        problems.append(f"no exposure time in the header ({cards.search('exptime')})")
    done = cards.value("CALSTAT")
    if done is not None and set("BDF") & set(str(done).upper()):
        warnings.append(
            f"CALSTAT = {done!r}: the camera's program has subtracted or divided something already"
        )
    row["problem"], row["warning"] = "; ".join(problems), "; ".join(warnings)
    return row


class _Cards:
    """Safe access to a header: a missing, undefined or unreadable card is None."""

    def __init__(self, header, synonyms):
        self.header = header
        self.synonyms = synonyms

    def keys(self, word):
        """Cards of a word of the vocabulary, the user's before ours."""
        return (*self.synonyms.get(word, ()), *SYNONYMS[word])

    def value(self, key):
        """Value of a card, or None."""
        try:
            value = self.header[key]
        except Exception:  # A card that breaks the standard raises many kinds of errors.
            return None
        if isinstance(value, str | bool | int | float) and str(value).strip():
            return value
        return None

    def comment(self, key):
        """Comment of a card, or an empty text."""
        try:
            return str(self.header.comments[key])
        except Exception:  # As above.
            return ""

    def first(self, word):
        """First card of a word that has a value: key and value, or an empty key and None."""
        for key in self.keys(word):
            value = self.value(key)
            if value is not None:
                return key, value
        return "", None

    def text(self, word):
        """Value of a word as text without blanks around it."""
        value = self.first(word)[1]
        return "" if value is None else str(value).strip()

    def texts(self, *words):
        """Values of all cards of some words, as texts."""
        values = (self.value(key) for word in words for key in self.keys(word))
        return [str(value) for value in values if value is not None]

    def search(self, word):
        """Say which cards of a word were looked for, and what is in those that there are."""
        found = [(key, self.value(key)) for key in self.keys(word)]
        said = [f"{key} = {value!r}" for key, value in found if value is not None]
        # A semicolon parts the problems of a frame.
        text = f"looked for {', '.join(self.keys(word))}" + (f": {', '.join(said)}" if said else "")
        return text.replace(";", ",")

    def number(self, word):
        """Value of a word as a float, NaN where there is none."""
        return _float(self.first(word)[1])


def _float(value, default=math.nan):
    """Float at the beginning of a header value, or the default."""
    match = re.match(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?", str(value))
    return default if match is None else float(re.sub("[dD]", "e", match.group()))


def _exposure(cards):
    """Exposure time in seconds; the unit is in the text, the comment or the card's name."""
    for key in cards.keys("exptime"):
        value = cards.value(key)
        seconds = _float(value)
        if value is None or not seconds >= 0:
            continue
        unit = re.search(r"[a-z]+", str(value).lower()) if isinstance(value, str) else None
        words = unit.group() if unit and unit.group() not in "ed" else cards.comment(key)
        if key == "EXPOINUS" or re.search(r"\b(us|microsec\w*)\b", words, re.I):
            return seconds / 1e6
        if re.search(r"\b(ms|msec|millisec\w*)\b", words, re.I):
            return seconds / 1e3
        return seconds
    return math.nan


def _kind(cards, row, path, warnings):
    """Kind from the header's word, then the object's name, then the words of the path."""
    exptime = row["exptime"]
    by_name = normalise_kind(row["object"], exptime=exptime)
    part, by_path = _kind_of_path(path, exptime)
    for key in cards.keys("kind"):
        value = cards.value(key)
        kind = normalise_kind(value, exptime=exptime) if value is not None else ""
        if kind == "light" and "object" in str(value).lower() and by_name:
            return by_name  # OBSTYPE = OBJECT says no more than "not a dark".
        if kind == "dark" and by_name == "bias" and exptime != exptime:
            return "bias"
        if kind:
            if {kind, by_path} in ({"light", other} for other in ("bias", "dark", "flat")):
                warnings.append(
                    f"{key} = {value!r}, but the name {part!r} says {by_path}: {key} is believed; "
                    "correct it in [[frames]] where it is wrong"
                )
            return kind
    if by_name:
        return by_name
    if by_path:
        warnings.append(f"the kind of frame is read from the name {part!r}")
        return by_path
    strange = [text for text in cards.texts("kind") if re.search("[A-Za-z]", text)]
    if exptime > 0 and not strange:
        warnings.append("no kind of frame in the header: taken as a light frame")
        return "light"
    return ""


def _kind_of_path(path, exptime):
    """Last part of a path whose words tell a kind, and the kind; or two empty texts."""
    for part in reversed(re.split(r"[/\\]", path)):
        words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", part)
        kinds = [normalise_kind(word, exptime=exptime) for word in words]
        found = {kind for kind in kinds if kind}
        if found:
            mixed = {"dark", "flat"} <= found
            return part, "darkflat" if mixed else kinds[_first_true(kinds)]
    return "", ""


def _first_true(values):
    """Index of the first value that is not empty."""
    return next(index for index, value in enumerate(values) if value)


def _filter(cards, warnings):
    """Filter name; FILTER wins over a different name in another card, with a warning."""
    names = {key: clean_filter(cards.value(key)) for key in cards.keys("filter")}
    key = next((key for key, name in names.items() if name), None)
    if key == "FILTER1" and names["FILTER2"] and _OPEN.fullmatch(names[key]):
        key = "FILTER2"  # Two wheels: the first one is open.
    if key is None:
        return ""
    for other in ("INSFILTE", "FILTNAM", "FILTERID"):
        if names[other] and names[other] != names[key]:
            warnings.append(
                f"{key} says {names[key]!r}, {other} says {names[other]!r}: {key} is used"
            )
    return names[key]


def _angle(value):
    """Degrees (or hours) of a number, of a text with one, or of a sexagesimal text; else NaN."""
    if not isinstance(value, str):
        return math.nan if value is None else _float(value)
    parts = re.sub("[hdms°'\":]", " ", value.strip().lower()).split()
    try:
        numbers = [abs(float(part)) for part in parts[:3]]
    except ValueError:
        return math.nan
    sign = -1.0 if value.strip().startswith("-") else 1.0
    return sign * sum(n / 60**i for i, n in enumerate(numbers)) if numbers else math.nan


def _pointing(cards, warnings):
    """Pointing in degrees: a number is in degrees, a sexagesimal right ascension in hours."""
    pairs = list(zip(cards.keys("ra"), cards.keys("dec"), strict=False))
    if str(cards.value("CTYPE1") or "").upper().startswith("RA"):
        pairs.append(("CRVAL1", "CRVAL2"))
    for ra_key, dec_key in pairs:
        ra_value, dec_value = cards.value(ra_key), cards.value(dec_key)
        ra, dec = _angle(ra_value), _angle(dec_value)
        if ra != ra or dec != dec:
            continue
        sexagesimal = isinstance(ra_value, str) and re.search(r"\d[\s:hd]+\d", ra_value.strip())
        if sexagesimal or re.search(r"\bhours?\b|\[h\]", cards.comment(ra_key), re.I):
            ra *= 15.0
        if -360.0 <= ra <= 360.0 and abs(dec) <= 90.0:
            return ra % 360.0, dec
        warnings.append(f"{ra_key}, {dec_key} = {ra_value!r}, {dec_value!r} are no position")
    return math.nan, math.nan


def _binning(cards, word, index):
    """Binning factor; BINNING and CCDSUM hold both ("2x2", "2 2"), CDELT1U a signed step."""
    key, value = cards.first(word)
    if key in ("BINNING", "CCDSUM"):
        value = (re.findall(r"\d+", str(value)) or ["1"])[index]
    factor = abs(_float(value, 1.0))
    return max(1, round(factor))


def _temperature(cards):
    """Sensor temperature in deg C; kelvins are told by the comment or by being above 150."""
    for key in (*cards.keys("temperature"), "SET-TEMP"):
        value = _float(cards.value(key))
        if value != value:
            continue
        kelvin = "kelvin" in cards.comment(key).lower()
        if kelvin and value < 0:
            continue  # MicroObservatory writes -1 for "no data".
        return value - 273.15 if kelvin or value > 150 else value
    return math.nan


def _longitude(cards):
    """Longitude in degrees, east positive, in (-180, 180]."""
    key, value = cards.first("longitude")
    longitude = _angle(value)
    if longitude != longitude:
        return math.nan
    comment = cards.comment(key).lower()
    origin = f"{cards.value('CREATOR')} {cards.value('REFERENC')}".lower()
    # MicroObservatory counts longitudes to the west, and does not say so.
    west = "microobservatory" in origin or re.search(r"\bwest\b|\+\s*w\b", comment)
    longitude = -longitude if west else longitude
    return longitude - 360.0 if longitude > 180.0 else longitude


def _wcs_matrix(cards):
    """2 x 2 matrix (deg/px) of a celestial WCS, or None where the header has none."""
    types = [str(cards.value(f"CTYPE{i}") or "").upper()[:4] for i in (1, 2)]
    if not any("RA" in kind for kind in types) or not any("DEC" in kind for kind in types):
        return None
    names = ("1_1", "1_2", "2_1", "2_2")
    cd = [_float(cards.value(f"CD{name}")) for name in names]
    if any(value == value for value in cd):
        return [0.0 if value != value else value for value in cd]
    steps = [_float(cards.value(f"CDELT{i}")) for i in (1, 2)]
    if any(step != step for step in steps):
        return None
    pc = [_float(cards.value(f"PC{n}"), d) for n, d in zip(names, (1, 0, 0, 1), strict=True)]
    return [steps[0] * pc[0], steps[0] * pc[1], steps[1] * pc[2], steps[1] * pc[3]]


def _scale(cards, matrix):
    """Pixel scale in arcsec/px from the WCS, a card, or pixel size (um) and focal length."""
    if matrix is not None:
        area = abs(matrix[0] * matrix[3] - matrix[1] * matrix[2])
        if area > 0:
            return 3600.0 * math.sqrt(area)
    scale = cards.number("scale")
    if scale > 0:
        return scale
    pixel, focal = _float(cards.value("XPIXSZ")), _float(cards.value("FOCALLEN"))
    return 206.264806 * pixel / focal if pixel > 0 and focal > 0 else math.nan


def _shape_problems(cards):
    """Why an image cannot be used for its shape or its colours."""
    problems = []
    axes = _float(cards.value("NAXIS"), 2)
    if axes != 2:
        problems.append(f"the image has {axes:.0f} axes (NAXIS); split it into images with 2 axes")
    for card in ("BAYERPAT", "COLORTYP"):
        value = cards.value(card)
        if value is None or str(value).strip().upper() in ("0", "MONO", "NONE"):
            continue
        problems.append(
            f"a colour camera's frame ({card} = {value!r}): its pixels have different filters; "
            "extract one colour (for example every second green pixel) into a file of its own"
        )
        break
    return problems
