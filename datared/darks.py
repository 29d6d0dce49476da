"""Which dark fits a frame: by exposure time and by the temperature of the sensor."""

import math

import numpy as np

__all__ = [
    "RATIO_LIMITS",
    "TEMPERATURE_LIMIT",
    "choose_dark",
    "same_exposure",
    "temperature_groups",
]

#: Exposure times are equal within this part, or this many seconds.
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.005, 0.005
#: Limits of exposure(frame) / exposure(dark) beyond which a scaled dark gets a remark.
RATIO_LIMITS = (0.05, 2.0)
#: Sensor temperatures (deg C) are equal within this; a larger difference gets a remark.
TEMPERATURE_LIMIT = 2.0
#: So many darks make a group beside which a smaller one can be a mistake.
GROUP_SIZE = 3


def choose_dark(
    exptime, darks, *, bias_free=True, allow_bias=False, temperature=math.nan, temperatures=None
):
    """Choose the dark for a frame: exact, else scaled, else none.

    Dark current doubles with every 6 or 7 deg C, so a dark of the right temperature can be scaled
    to another exposure time, but one of the wrong temperature is wrong at any. The order is:

    1. a dark of the same exposure time within 2 deg C of the frame, the nearest in temperature;
    2. a scaled one within 2 deg C with a ratio between 0.05 and 2, the longest;
    3. one of the same exposure time at any temperature, the nearest in temperature;
    4. a scaled one: within 2 deg C before others, the ratio nearest to the limits, the longest.

    A temperature that is not known rules out nothing: it counts as 2 deg C away.

    Parameters
    ----------
    exptime : float
        Exposure time of the frame in s.
    darks : sequence of float
        Exposure times of the master darks in s; of equal ones the first is taken.
    bias_free : bool
        Whether the bias was subtracted from the darks. Only then is what is left proportional to
        time: scaling bias and dark together leaves ``(1 - scale)`` of the bias in the frame.
    allow_bias : bool
        Scale darks that contain the bias all the same.
    temperature : float
        Sensor temperature of the frame in deg C; NaN where it is not known.
    temperatures : sequence of float, optional
        Sensor temperatures of the darks in deg C, NaN where not known.

    Returns
    -------
    which : int or None
        Index of the dark.
    scale : float
        Factor of the dark, ``exptime / darks[which]``; 1 for an exact match, 0 for none.
    match : str
        ``"exact"`` (within 0.5 % or 5 ms), ``"scaled"`` or ``"none"``.

    Examples
    --------
    >>> choose_dark(96, [30, 192])
    (1, 0.5, 'scaled')
    >>> choose_dark(30.001, [30, 192])
    (0, 1.0, 'exact')
    >>> choose_dark(96, [192], bias_free=False)
    (None, 0.0, 'none')
    >>> choose_dark(30, [30, 60], temperature=-10, temperatures=[5, -10])
    (1, 0.5, 'scaled')
    """
    if not (math.isfinite(exptime) and exptime >= 0):
        return None, 0.0, "none"
    known = [math.nan] * len(darks) if temperatures is None else list(temperatures)
    apart = [abs(temperature - own) for own in known]
    apart = [TEMPERATURE_LIMIT if gap != gap else gap for gap in apart]
    near = [i for i, gap in enumerate(apart) if gap <= TEMPERATURE_LIMIT]
    scalable = [i for i, dark in enumerate(darks) if dark > 0 and (bias_free or allow_bias)]
    good = [i for i in scalable if i in near and _beyond(exptime, darks[i]) == 1.0]

    def order(i):
        """Rank of a dark to be scaled: a longer exposure has less noise after scaling."""
        return i not in near, _beyond(exptime, darks[i]), -darks[i], apart[i], i

    for exact, scaled in ((near, good), (range(len(darks)), scalable)):
        same = [i for i in exact if same_exposure(exptime, darks[i])]
        if same:
            return min(same, key=lambda i: (apart[i], abs(exptime - darks[i]), i)), 1.0, "exact"
        if scaled:
            which = min(scaled, key=order)
            return which, exptime / darks[which], "scaled"
    return None, 0.0, "none"


def same_exposure(first, second):
    """Tell whether two exposure times are equal, within 0.5 % or 5 ms.

    Parameters
    ----------
    first, second : float
        Exposure times in s.

    Returns
    -------
    bool
        False where one of them is NaN.

    Examples
    --------
    >>> same_exposure(29.999, 30), same_exposure(0.0, 0.004), same_exposure(30, 30.2)
    (True, True, False)
    """
    return abs(first - second) <= max(RELATIVE_TOLERANCE * max(first, second), ABSOLUTE_TOLERANCE)


def temperature_groups(temperatures, *, wanted=()):
    """Split darks of one exposure time by the temperature of the sensor.

    A gap of more than 2 deg C parts two groups; a slow drift does not. Frames without a temperature
    go with the largest group. Fewer than three frames beside a group of three or more are strays,
    taken before the sensor was cold, unless a frame that needs a dark is within 2 deg C of one.

    Parameters
    ----------
    temperatures : sequence of float
        In deg C, one for each frame; NaN where not known.
    wanted : sequence of float
        Temperatures of the frames that need a dark.

    Returns
    -------
    groups : list of list of int
        Indices of the frames of each group in rising order, the coldest group first.
    rejected : dict
        Index of each stray, with the reason.

    Examples
    --------
    >>> temperature_groups([-10.0, -10.1, -9.9, -5.0, float("nan")])
    ([[0, 1, 2, 4]], {3: 'wrong temperature (-5.0 deg C; the other darks were taken at -10.0)'})
    """
    known = sorted((value, i) for i, value in enumerate(temperatures) if math.isfinite(value))
    unknown = [i for i, value in enumerate(temperatures) if not math.isfinite(value)]
    groups = []
    for value, i in known:
        if not groups or value - temperatures[groups[-1][-1]] > TEMPERATURE_LIMIT:
            groups.append([])
        groups[-1].append(i)
    if not groups:
        return ([unknown] if unknown else []), {}
    largest = max(groups, key=len)
    middle = f"{np.median([temperatures[i] for i in largest]):.1f}"
    rejected = {}
    for group in list(groups):
        needed = any(abs(temperatures[i] - t) <= TEMPERATURE_LIMIT for i in group for t in wanted)
        if len(group) < GROUP_SIZE <= len(largest) and not needed:
            groups.remove(group)
            rejected |= {
                i: f"wrong temperature ({temperatures[i]:.1f} deg C; the other darks were taken "
                f"at {middle})"
                for i in group
            }
    largest += unknown
    return [sorted(group) for group in groups], rejected


def _beyond(exptime, dark):
    """How far, as a factor of at least 1, the ratio of exposure times lies outside its limits."""
    ratio = max(exptime / dark, 1e-9)
    return max(RATIO_LIMITS[0] / ratio, ratio / RATIO_LIMITS[1], 1.0)
