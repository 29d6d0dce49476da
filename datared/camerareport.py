"""All that a night tells about its camera, as text for a terminal."""

import math
import textwrap
from dataclasses import replace
from functools import cache

import numpy as np
from astropy.table import Table

from .camera import camera_night
from .cameranight import flats_night, linearity_night, suggest_night
from .darkcurrent import dark_night, dark_temperature
from .distortionmap import night_distortion
from .errors import DataredError
from .listing import inventory
from .quality import calibration_quality

__all__ = ["camera_report"]

#: Lines are not longer, but for names that are.
WIDTH = 98
#: What the parts tell, and what to do with it.
MEANINGS = {
    "Gain and read noise": "electrons per count, and noise of reading a pixel: errors of all "
    "magnitudes rest on them; filters should agree",
    "Linearity and full well": "level of flats against exposure time (levels above the bias): keep "
    "stars below the level where the camera is off by 1 %; the shutter opens late by so many "
    "seconds; the lamp changes by so much in an hour",
    "Dark current and hot pixels": "what pixels collect without light (mean, and share of pixels "
    "that are hotter than the last column): take darks at the temperature of the lights",
    "Flats compared": "largest difference, first / second - 1, in a ninth of the frame, and spots "
    "(dust that moved): flats that differ cannot stand for each other",
    "Distortion": "how far optics shift stars from where a plain scale puts them; the solution of "
    "each frame takes it into account",
    "Calibration frames and masters": "noise that is found against what gain and read noise "
    "promise: a ratio far from 1 has a reason; a master flat has the level 1; the rest of a line's "
    "story is below the table",
    "Suggestions for night.toml": "measured above; put what you trust into the table [camera] of "
    "your night file",
}


def camera_report(night):
    """Tell gain, noise, linearity, dark current, flats and distortion of a night's camera.

    Each part is made from the frames that are there; one that cannot be made says why.

    Parameters
    ----------
    night : Night
        The night. Nothing is written.

    Yields
    ------
    str
        One line after the other, so that the first are there before the last are measured. A part
        has a title, a line that says what is in it, and its numbers. The last part has the
        lines for the night file, see `datared.suggestions.suggest`.

    Raises
    ------
    ConfigError
        If the night has no file at all.
    """
    frames = inventory(night)

    @cache
    def measured():
        return camera_night(night, frames=frames)

    @cache
    def linearity():
        return linearity_night(night, camera=measured(), frames=frames)

    yield from _part("Gain and read noise", lambda: _gain_lines(measured()))
    yield from _part("Linearity and full well", lambda: _linearity_lines(linearity()))
    yield from _part("Dark current and hot pixels", lambda: _dark_lines(night, measured(), frames))
    yield from _part("Flats compared", lambda: _flat_lines(flats_night(night, frames=frames)))
    yield from _part("Distortion", lambda: _distortion_lines(night, frames))
    yield from _part(
        "Calibration frames and masters",
        lambda: _quality_lines(calibration_quality(night, camera=measured(), frames=frames)),
    )
    yield from _part(
        "Suggestions for night.toml",
        lambda: _suggestion_lines(
            suggest_night(night, camera=measured(), linearity=linearity(), frames=frames)
        ),
    )


def _part(title, make):
    """Give the lines of a part with a word of explanation, or the reason why it is missing."""
    yield title
    yield from _wrapped(f"# {MEANINGS[title]}", indent="", further="# ")
    try:
        yield from make()
    except DataredError as error:
        yield from _wrapped(f"not measured: {error}", indent="")
    yield ""


def _gain_lines(measured):
    """Gain and read noise of each set-up and filter."""
    columns = {
        "filter": _filters(measured),
        "bias frames": measured["n_bias"],
        "flats": measured["n_flat"],
        "pairs": measured["n_pairs"],
        "gain (e-/ADU)": _numbers(measured, "gain"),
        "read noise (e-)": _numbers(measured, "read_noise"),
        "read noise (ADU)": _numbers(measured, "read_noise_adu"),
    }
    notes = (_texts(measured, _verdict), _texts(measured, _turn), measured["note"])
    return _setups(measured, columns, notes, "there are neither bias frames nor flats")


def _linearity_lines(table):
    """Linearity of each series; what only says that it was not measured stands below."""
    known = table[np.isfinite(table["rate"])]
    columns = {
        "filter": _filters(known),
        "light": known["light"],
        "flats": known["n_flat"],
        "exposure times": known["n_times"],
        "rate (ADU/s)": _numbers(known, "rate"),
        "shutter (s)": _numbers(known, "shutter"),
        "lamp (%/h)": _numbers(known, "drift", 100),
        "off by (%)": _numbers(known, "largest", 100),
        "1 % at (ADU)": _column(known, "level_1"),
        "2 % at (ADU)": _column(known, "level_2"),
        "full well (ADU)": _column(known, "full_well"),
        "full well (e-)": _column(known, "full_well_e"),
    }
    missing = "no series of flats of one lamp with many exposure times"
    yield from _setups(known, columns, (known["note"],), missing, leading=2)
    for row in table[~np.isfinite(table["rate"])]:
        words = " ".join(f"{row['n_flat']} flats {row['filter']} {row['light']}".split())
        yield from _wrapped(f"{words}: {row['note']}", indent="")


def _dark_lines(night, measured, frames):
    """Dark current of each temperature, and the warming that doubles it."""
    gains, share = measured[measured["filter"] == "all"], 0.0
    if night.camera.gain is None and len(gains) == 1 and np.isfinite(gains["gain"][0]):
        night = replace(night, camera=replace(night.camera, gain=float(gains["gain"][0])))
        share = float(gains["gain_err"][0] / gains["gain"][0])
    table = dark_night(night, frames=frames)
    # A gain that is measured adds its own error.
    table["electrons_err"] = np.hypot(table["electrons_err"], share * table["electrons"])
    electrons = np.isfinite(table["electrons"]).any()
    columns = {
        "deg C": _texts(table, lambda row: _fixed(round(row["temperature"], 1) + 0, ".1f") or "-"),
        "darks": table["n_dark"],
        "times (s)": table["exptimes"],
        "rate (ADU/s)": _numbers(table, "rate"),
        "rate (e-/s)": _numbers(table, "electrons"),
        "hot (%)": _texts(table, lambda row: _fixed(100 * row["hot_share"], ".3f")),
        f"above ({'e-' if electrons else 'ADU'}/s)": _column(table, "hot_limit"),
    }
    yield from _setups(table, columns, (table["note"],), "there are no darks")
    setups = sorted(set(table["setup"]))
    for setup in setups:
        own = table[(table["setup"] == setup) & np.isfinite(table["rate"] + table["rate_err"])]
        try:
            law = dark_temperature(own["temperature"], own["rate"], errors=own["rate_err"])
        except ValueError:
            continue  # One temperature, or no dark current: the table shows it.
        text = (
            f"the dark current doubles with every {_plus(law.doubling, law.doubling_err)} K at "
            f"{law.at:.1f} deg C (energy {_plus(law.energy, law.energy_err)} eV)"
        )
        yield from _wrapped(f"{setup}: {text}" if len(setups) > 1 else text, indent="")


def _flat_lines(table):
    """Flats of one filter with different light, or of different times."""
    columns = {
        "filter": _filters(table),
        "first": table["first"],
        "second": table["second"],
        "differ by (%)": _texts(table, lambda row: _fixed(100 * row["largest"], "+.2f")),
        "in sigma": _texts(table, lambda row: _fixed(row["significance"], ".0f")),
        "spots": table["spots"],
    }
    missing = "no filter has flats of two lights, or of two occasions"
    notes = (_texts(table, _spot), table["note"])
    return _setups(table, columns, notes, missing, leading=3)


def _distortion_lines(night, frames):
    """Distortion of the optics, from the solved frames."""
    found = night_distortion(night, frames=frames)
    yield f"{found.n_frames} frames, {found.n_stars} stars"
    if found.order == 1:
        yield "no distortion is seen"
        return
    away = np.unravel_index(np.argmax(found.shift), found.shift.shape)
    error = found.error[away]
    place = f"at ({found.x[away]:.0f}, {found.y[away]:.0f})"
    yield f"positions are shifted by up to {_plus(found.shift[away], error)} px, {place}"
    low, high = found.scale.min(), found.scale.max()
    yield f"scale {low:.5g} to {high:.5g} arcsec per pixel"


def _quality_lines(table):
    """Masters, and the frames that they are made of."""
    if not len(table):
        yield "there are no calibration frames"
    for wanted in (True, False):
        own = table[table["master"] == wanted]
        columns = {
            ("master" if wanted else "frame"): own["file"],
            "frames": _texts(own, lambda row: str(row["frames"]) if row["master"] else ""),
            "level (ADU)": _column(own, "level", ".5g"),
            "noise": _column(own, "noise", ".4g"),
            "expected": _column(own, "expected", ".4g"),
            "ratio": _column(own, "ratio", ".3f"),
            "pattern": _column(own, "pattern", ".4g"),
        }
        yield from _setups(own, columns, (own["remarks"],), None)


def _suggestion_lines(text):
    """Lines for the night file; a long comment goes on in the next line."""
    for line in text.splitlines():
        yield from _wrapped(line, indent="", further="#     ")


def _setups(table, columns, notes, missing, *, leading=1):
    """Lines of a table, one block for each set-up, without empty columns; notes below it.

    The first columns (``leading``) name the row.
    """
    if not len(table) and missing:
        yield missing
    for setup in sorted(set(table["setup"])):
        own = np.array(table["setup"]) == setup
        shown = Table({name: np.array(values)[own] for name, values in columns.items()})
        names = [" ".join(str(row[i]) for i in range(leading)).strip() for row in shown]
        empty = [name for name in shown.colnames if not any(str(one) for one in shown[name])]
        number = leading - len({*shown.colnames[:leading]} & {*empty})
        shown.remove_columns(empty)
        yield str(setup)
        yield from _lines(shown, number)
        for column in notes:
            same = {}
            for name, note in zip(names, np.array(column)[own], strict=True):
                same.setdefault(str(note), []).append(name)
            for note, which in same.items():
                yield from _wrapped(f"{', '.join(which)}: {note}") if note else ()


def _lines(table, leading):
    """Lines of a table; what is too wide stands below, with the leading columns again."""
    names, start = table.colnames, leading
    while start < len(names):
        for stop in range(len(names), start, -1):
            part = table[names[:leading] + names[start:stop]]
            lines = part.pformat(max_lines=-1, max_width=-1)
            if len(lines[0]) + 2 <= WIDTH:
                break
        yield from (f"  {line}".rstrip() for line in lines)
        start = stop


def _wrapped(text, *, indent="  ", further=None):
    """Lines of a text."""
    further = indent + "    " if further is None else further
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=further, **options)


def _texts(table, make):
    """Column of texts, one for each row."""
    return np.array([make(row) for row in table], dtype="U")


def _filters(table):
    """Names of the filters; frames without one have a dash."""
    return _texts(table, lambda row: str(row["filter"]) or "-")


def _numbers(table, name, factor=1):
    """Column of numbers with their errors."""
    return _texts(table, lambda row: _plus(factor * row[name], factor * row[f"{name}_err"]))


def _column(table, name, form=None):
    """Column of numbers; nothing where they are not known."""
    return _texts(table, lambda row: _fixed(row[name], form) if form else _short(row[name]))


def _fixed(value, form):
    """Write a number in a format; nothing where it is not known."""
    return format(value, form) if math.isfinite(value) else ""


def _plus(value, error):
    """Write a number with its error; nothing where it is not known."""
    if not math.isfinite(value):
        return ""
    if not (math.isfinite(error) and error > 0):
        return _short(value)
    digits = 1 - math.floor(math.log10(error))
    if digits <= 0:
        return f"{value:.0f} +- {error:.0f}"
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def _short(value):
    """Write a number with few digits; nothing where it is not known."""
    if not math.isfinite(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict(row):
    """Verdict on the numbers that are in use, if any: the suggestions stand at the end."""
    pairs = ("gain", "e-/ADU"), ("read_noise", "e-")
    used = [
        f"{name.replace('_', ' ')} {_short(row[f'{name}_configured'])} {unit}"
        for name, unit in pairs
        if math.isfinite(row[f"{name}_configured"])
    ]
    parts = [part for part in str(row["verdict"]).split("; ") if "configured: put" not in part]
    return f"in use are {', '.join(used)}: {'; '.join(parts)}" if used and parts else ""


def _turn(row):
    """Tell where the variance turns."""
    text = _plus(row["turnover"], row["turnover_err"])
    return f"pixels fill up: the variance falls from {text} ADU above the bias on" if text else ""


def _spot(row):
    """Place and depth of the surest spot."""
    if not math.isfinite(row["change"]):
        return ""
    return f"surest spot {100 * row['change']:+.1f} % at ({row['x']:.0f}, {row['y']:.0f})"
