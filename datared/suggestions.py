"""Lines for the night file, from what the frames tell about the camera."""

import math
import re
import textwrap

from .camera import agreement
from .levels import TYPE_FRACTION
from .photontransfer import UNEVEN

__all__ = ["suggest", "trusted_level"]

UNITS = {"gain": "e-/ADU", "read_noise": "e-", "saturation": "ADU, raw"}
#: Part of the full well up to which a pixel is trusted.
TRUSTED = 0.95
#: A value with a larger relative error is not suggested.
WORST = 0.1
#: A configured saturation may be lower than the measured one by this part of it; a turn of the
#: variance that is known worse is not used.
CAREFUL = 0.3
#: Longest line; a longer comment goes on in the next one.
WIDTH = 98
_ENDS = ("level_2", "full_well", "turnover", "turnover_err")
#: Cards that may tell the camera's numbers.
CARDS = {"gain": ("EGAIN", "GAIN"), "read_noise": ("RDNOISE", "READNOIS", "RON", "ENOISE")}


def suggest(camera, *, linearity=None, configured=None, setup=None, header=None, end=None):
    """Lines for the table ``[camera]`` of a night file.

    Each value stands with its error, what it was measured from, how it compares with the night
    file, and what the header says. What cannot be told is a comment with the reason: the text is
    valid in any case.

    Parameters
    ----------
    camera : astropy.table.Table
        From `datared.camera.camera_night`.
    linearity : astropy.table.Table, optional
        From `datared.cameranight.linearity_night`.
    configured : Camera, optional
        What the night file says.
    setup : str, optional
        Which set-up; the first one by default. The others are told in comments.
    header : Mapping, optional
        Header of a raw frame of it.
    end : float, optional
        ADU from which on the numbers of the file cannot be trusted, whatever the pixels hold.

    Returns
    -------
    str
        TOML, which `datared.load_night` reads as a part of a night file. A line about a value that
        differs from the night file begins its comment with ``DIFFERS``.

    Examples
    --------
    >>> from astropy.table import Table
    >>> row = {"setup": "1x1", "filter": "all", "n_bias": 9, "n_pairs": 4, "note": ""}
    >>> row |= {"gain": 0.37571, "gain_err": 0.0004, "read_noise": 3.497, "read_noise_err": 0.01}
    >>> row |= {"converter": math.nan}
    >>> print(suggest(Table([row])), end="")
    [camera]
    gain = 0.3757  # e-/ADU, +- 0.0004, from 4 pairs of flats
    read_noise = 3.50  # e-, +- 0.01, from 9 bias frames
    # saturation: no flats tell where the pixels are full
    """
    header = {} if header is None else header
    rows = [row for row in camera if row["filter"] == "all"]
    setups = [str(row["setup"]) for row in rows]
    if setup not in setups:
        setup = setups[0] if setups else None
    lines = ["[camera]"]
    for row in rows:
        if row["setup"] == setup:
            lines += [_measured(name, row, configured, header) for name in ("gain", "read_noise")]
    if not rows:
        lines.append("# gain, read_noise: no bias frames and flats to measure them from")
    own = [] if linearity is None else [row for row in linearity if row["setup"] == setup]
    ends = [float(row["converter"]) for row in rows if row["setup"] == setup]
    lines.append(_saturation(own, configured, end, header.get("SATURATE"), *ends))
    lines += [_other(row) for row in rows if row["setup"] != setup]
    return "\n".join(part for line in lines for part in _wrapped(line)) + "\n"


def trusted_level(*, level_2, full_well, converter, turnover, turnover_err):
    """Level up to which a pixel is trusted: that of 2 %, or 95 % of that at which it is full.

    Parameters
    ----------
    level_2, full_well : float
        ADU above the bias, see `datared.linearity.Linearity`; NaN where not known, as the others.
    converter, turnover, turnover_err : float
        ADU above the bias, see `datared.photontransfer.CameraNoise`. The turn of the variance
        counts where the others tell no end, and only if it is known to 30 %.

    Returns
    -------
    level : float
        ADU above the bias, NaN where nothing tells it.
    words : str
        What it comes from.

    Examples
    --------
    >>> nothing = dict.fromkeys(("converter", "turnover", "turnover_err"), math.nan)
    >>> trusted_level(level_2=math.nan, full_well=50_000.0, **nothing)
    (47500.0, '95 % of full pixels (50000 ADU) + the bias')
    """
    turnover = turnover if turnover_err < CAREFUL * turnover else math.nan
    ends = (
        (converter, "the converter's end"),
        (full_well, "full pixels"),
        (turnover, "where the variance turns"),
    )
    known = [(end, what) for end, what in ends if math.isfinite(end)]
    end, what = known[0] if known else (math.nan, "")
    if level_2 < TRUSTED * end or not known:
        return level_2, f"the camera is off by 2 % from {level_2:.0f} ADU above the bias on"
    return TRUSTED * end, f"{100 * TRUSTED:.0f} % of {what} ({end:.0f} ADU) + the bias"


def _wrapped(line):
    """Parts of a line; the comment goes on after a comma if it can, else between words."""
    further, parts = "#     ", [""]
    for piece in re.split(r"(?<=[,;]) ", line):
        if parts[-1] and len(parts[-1]) + len(piece) >= WIDTH:
            parts.append(further + piece)
        else:
            parts[-1] += f" {piece}" if parts[-1] else piece
    options = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": further}
    return [short for part in parts for short in textwrap.wrap(part, WIDTH, **options)]


def _measured(name, row, configured, header):
    """Line of the gain or the read noise."""
    value, error = float(row[name]), float(row[f"{name}_err"])
    known = getattr(configured, name, None)
    if not value > 0 or error > WORST * value:
        why = str(row["note"]) or "not measured"
        if value > 0:
            why = f"{value:.3g} +- {error:.2g} is not good enough"
        return f"# {name}: {why}" + (f"; night.toml has {known:g}" if known is not None else "")
    source = (
        f"{row['n_pairs']} pairs of flats" if name == "gain" else f"{row['n_bias']} bias frames"
    )
    shown = _shown(value, error)
    words = [UNITS[name]]
    words += [f"+- {error:.1g}"] if math.isfinite(error) and error > 0 else []
    words += [f"from {source}"]
    wrong = known is not None and not agreement(name, value, error, known)
    if known is not None:
        words.append(f"night.toml has {known:g}" + ("" if wrong else ": agrees"))
    cards = _cards(name, value, error, configured, header)
    uneven = [part for part in str(row["note"]).split("; ") if part.startswith(UNEVEN)]
    words += uneven if name == "gain" else []
    text = ", ".join(words) + (f"; {cards}" if cards else "")
    return f"{name} = {shown}  # {'DIFFERS: ' if wrong else ''}{text}"


def _cards(name, value, error, configured, header):
    """Tell what the header says about the gain or the read noise."""
    keys = CARDS[name]
    if name == "gain" and getattr(configured, "gain_keyword", None):
        keys = (configured.gain_keyword, *keys)
    texts = []
    for key in dict.fromkeys(keys):
        found = header.get(key)
        if isinstance(found, int | float) and not isinstance(found, bool):
            same = agreement(name, value, error, found)
            why = "agrees" if same else f"not {UNITS[name]}"
            texts.append(f"header {key} = {found:g} ({why})")
    return ", ".join(texts)


def _saturation(rows, configured, end, card, converter=math.nan):
    """Line of the saturation; without one, ``card`` is used, else the end of the numbers."""
    known = getattr(configured, "saturation", None)
    has = f"night.toml has {known:g}" if known is not None else ""
    found = [row for row in rows if math.isfinite(row["saturation"])]
    if found:
        row = min(found, key=lambda one: one["saturation"])
        step = 10.0 ** (math.floor(math.log10(row["saturation"])) - 2)
        value = math.floor(row["saturation"] / step) * step
        numbers = {name: float(row[name]) for name in _ENDS}
        why = trusted_level(**numbers, converter=converter)[1]
        wrong = known is not None and not (1 - CAREFUL) * value <= known <= float(row["saturation"])
        words = [UNITS["saturation"], f"{why} (flats in {row['filter'] or 'no filter'})"]
        words += [has + ("" if wrong else ": agrees")] if has else []
        return f"saturation = {value:g}  # {'DIFFERS: ' if wrong else ''}{', '.join(words)}"
    if end is not None and known is not None and known > end / TYPE_FRACTION * 1.0001:
        text = f"the numbers of the file end before, at {end / TYPE_FRACTION:.0f}"
        return f"saturation = {math.floor(end):g}  # DIFFERS: {UNITS['saturation']}, {has}, {text}"
    text = "# saturation: no flats tell where the pixels are full"
    text += f"; {has}" if has else ""
    if known is None and isinstance(card, int | float) and 0 < card < math.inf:
        text += f"; header SATURATE = {card:g} is used"
    elif known is None and end is not None:
        text += f"; {end:.0f} ADU is used, 98 % of the file's limit"
    return text


def _other(row):
    """Comment about another set-up."""
    pairs = ("gain", "e-/ADU"), ("read_noise", "e-")
    numbers = ", ".join(
        f"{name.replace('_', ' ')} {row[name]:.4g} {unit}" for name, unit in pairs if row[name] > 0
    )
    return f"# {row['setup']}: {numbers or 'not measured'} (it needs a night file of its own)"


def _shown(value, error):
    """Value with as many digits as its error allows."""
    digits = 4 - math.ceil(math.log10(value)) if not error > 0 else -math.floor(math.log10(error))
    return f"{value:.{max(digits, 0)}f}"
