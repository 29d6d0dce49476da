"""The text of a night file, written from settings."""

import json
import re
from pathlib import Path

__all__ = ["night_toml", "write_night"]


def night_toml(settings):
    """Text of a night file.

    Parameters
    ----------
    settings : dict
        As in the file: plain values, lists, paths; dictionaries for tables, lists of dictionaries
        for ``[[frames]]`` and ``[[camera.amplifiers]]``. Entries that are None are left out.

    Returns
    -------
    str
        Valid TOML; `load_night` reads the same settings from it.

    Examples
    --------
    >>> print(night_toml({"raw": "raw", "camera": {"gain": 0.376}}), end="")
    raw = "raw"
    <BLANKLINE>
    [camera]
    gain = 0.376
    """
    return "".join(_lines(settings))


def write_night(settings, path):
    """Write a night file.

    Parameters
    ----------
    settings : dict
        See `night_toml`.
    path : str or pathlib.Path
        The file; its folder must exist.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = Path(path)
    path.write_text(night_toml(settings), encoding="utf-8", newline="\n")
    return path


def _lines(values, where=""):
    """Lines ``key = value`` of a table, then those of the tables in it."""
    plain, tables = [], []
    for key, value in values.items():
        name = where + _key(key)
        if isinstance(value, dict):
            tables += [f"\n[{name}]\n", *_lines(value, name + ".")]
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            for item in value:
                tables += [f"\n[[{name}]]\n", *_lines(item, name + ".")]
        elif value is not None:
            plain.append(f"{_key(key)} = {_literal(value)}\n")
    return plain + tables


def _key(key):
    """Key as TOML writes it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _literal(value):
    """Value as TOML writes it."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()  # numpy's numbers have another repr.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, Path):
        value = value.as_posix()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise TypeError(f"a night file has no way to write {value!r}")
