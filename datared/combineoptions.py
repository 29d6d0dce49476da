"""The options of `datared.combine`, checked and in one form."""

import warnings

import numpy as np

from .errors import DataredWarning

__all__ = ["clip_limits", "extreme_numbers", "per_frame", "value_range"]


def clip_limits(clip, n, max_iterations):
    """Limits and rounds of the clip, none of them where it is not possible.

    Parameters
    ----------
    clip : None, float or (float, float)
        As in `datared.combine.combine`.
    n, max_iterations : int
        Number of frames, most rounds.

    Returns
    -------
    low, high : numpy.float32
        Limits in deviations.
    iterations : int
        Rounds; 0 for no clip.
    """
    if clip is None:
        return *(np.float32(0),) * 2, 0
    low, high = (clip, clip) if np.ndim(clip) == 0 else clip
    if not (low > 0 and high > 0):
        raise ValueError(f"clip {clip!r} must be one or two positive numbers.")
    if n < 3:
        warnings.warn(
            f"{n} frame(s) cannot be clipped: three are the least. Nothing was clipped.",
            DataredWarning,
            stacklevel=3,
        )
        return *(np.float32(0),) * 2, 0
    return np.float32(low), np.float32(high), int(max_iterations)


def per_frame(values, n, name):
    """One number for each frame, ones where nothing is given.

    Parameters
    ----------
    values : None or array-like of shape (n,)
        Finite numbers, none negative.
    n : int
        Number of frames.
    name : str
        What they are, for messages.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)
        The numbers.
    """
    if values is None:
        return np.ones(n)
    values = np.asarray(values, float)
    if values.shape != (n,) or not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ValueError(f"{name} must be {n} finite numbers, none negative, one for each frame.")
    return values


def extreme_numbers(extrema, n):
    """How many of the lowest and of the highest values are left out.

    Parameters
    ----------
    extrema : None or (int, int)
        As in `datared.combine.combine`.
    n : int
        Number of frames.

    Returns
    -------
    tuple of int
        Lowest and highest.
    """
    low, high = (0, 0) if extrema is None else extrema
    whole = all(isinstance(number, int | np.integer) for number in (low, high))
    if not (whole and low >= 0 and high >= 0 and low + high < n):
        raise ValueError(
            f"extrema {extrema!r} must be two whole numbers, lowest and highest values to leave "
            f"out, together fewer than the {n} frames."
        )
    return int(low), int(high)


def value_range(limits):
    """Range of the values that are used.

    Parameters
    ----------
    limits : None or (float, float)
        As in `datared.combine.combine`.

    Returns
    -------
    tuple of numpy.float32
        Lower and upper limit.
    """
    low, high = (-np.inf, np.inf) if limits is None else limits
    if not low < high:
        raise ValueError(f"limits {limits!r} must be two numbers, the lower one first.")
    return np.float32(low), np.float32(high)
