"""Strict reader of text tables: columns of numbers, comments with ``#``, names given apart."""

import numpy as np

from .errors import ConfigError

__all__ = ["read_columns"]


def read_columns(path, text, *, names, wanted):
    r"""Return some columns of a text table.

    Parameters
    ----------
    path : Path
        Where the text comes from, for the messages.
    text : str
        The whole file. Lines that begin with ``#`` are comments.
    names : list of str
        Names of all columns, in order.
    wanted : list of str
        Names of the columns to return.

    Returns
    -------
    numpy.ndarray, shape (n, len(wanted))
        One row per line of numbers.

    Raises
    ------
    ConfigError
        When a column is missing, there are no numbers, or a line is damaged (its number is told).

    Examples
    --------
    >>> read_columns("table.txt", "# a b\n1 2\n3 4\n", names=["a", "b"], wanted=["b"])
    array([[2.],
           [4.]])
    """
    lacking = [name for name in wanted if name not in names]
    if lacking:
        raise ConfigError(f"{path} has no column {', '.join(lacking)}; it has {', '.join(names)}")
    lines = [line for line in text.splitlines() if _is_data(line)]
    if not lines:
        raise ConfigError(f"{path} has a header but no numbers: it is cut off; get it again")
    try:
        values = np.loadtxt(lines, usecols=[names.index(name) for name in wanted], ndmin=2)
    except ValueError:
        values = None
    # A line that lost a word, or a last line that is cut, may still hold the wanted columns.
    whole = _holds(lines[-1], len(names)) and all(len(li.split()) == len(names) for li in lines)
    if values is None or not whole:
        for number, line in enumerate(text.splitlines(), 1):
            if _is_data(line) and not _holds(line, len(names)):
                raise ConfigError(
                    f"{path} is damaged in line {number}: {len(names)} numbers are expected, "
                    f"found {line.strip()[:60]!r}; get the file again"
                )
    if not np.all(np.isfinite(values)):
        raise ConfigError(f"{path} holds values that are not finite; get the file again")
    return values


def _is_data(line):
    """Say whether a line holds numbers: it is not empty and no comment."""
    return bool(line.strip()) and line.lstrip()[0] != "#"


def _holds(line, count):
    """Say whether a line holds this many numbers."""
    try:
        return len([float(word) for word in line.split()]) == count
    except ValueError:
        return False
