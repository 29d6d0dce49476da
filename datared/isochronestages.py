"""Stages of life along one isochrone, and points that mean the same in every isochrone.

A file of isochrones gives stars of rising initial mass, more where life is fast. The rows of two
isochrones do not correspond: the stages of life are found first, then each is divided evenly.
"""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "EQUAL_PHASES",
    "Stages",
    "contraction_end",
    "equal_points",
    "find_stages",
    "giant_foot",
]

SECTIONS = (
    ("contraction", 0, 60),
    ("main sequence", 1, 120),
    ("hook, cooling", 1, 25),
    ("hook, heating", 1, 15),
    ("subgiants", 2, 40),
    ("red giants", 3, 60),
    ("helium, descent", 4, 25),
    ("helium, loop out", 4, 30),
    ("helium, loop back", 4, 30),
    ("early asymptotic giants", 5, 40),
)
"""Name, phase and number of points of each section of an isochrone."""

EQUAL_PHASES = np.repeat([phase for _, phase, _ in SECTIONS], [n for *_, n in SECTIONS])
"""Phase of each point of `equal_points`, shape (n_point,); see `isochronegrid.PHASE_NAMES`."""

TEFF_WEIGHT = 5.0  # one step along the track: hypot(5 d log Teff, d log L)
GIANT_TEFF = 3.75  # log10 K; no main-sequence star that begins to leave is cooler
NOISE_TEFF = 0.0015  # dex; rounding and ripples of the tables
DROP = 0.1  # dex in L below the tip of the red giants; helium-burning stars are at least so faint
HELIUM_SHARE = 0.9  # of the mass range after the tip burns helium in the core
CONTRACTED = 0.03  # dex in log g
HOOK_DEPTH = 0.1  # dex in Teff, more than any hook


@dataclass(frozen=True)
class Stages:
    """Rows of one isochrone where a stage of life ends; None where no star is so old.

    Parameters
    ----------
    main_sequence : int
        Last row of the main sequence: central hydrogen is used up.
    subgiant : int or None
        Last row before the red giants (the foot of the giant branch).
    red_giant : int or None
        Tip of the red-giant branch.
    helium : int or None
        Last row with helium burning in the core.
    """

    main_sequence: int
    subgiant: int | None = None
    red_giant: int | None = None
    helium: int | None = None


def find_stages(mass, log_teff, log_l):
    """Find the stages of life of one isochrone from its shape.

    Parameters
    ----------
    mass, log_teff, log_l : numpy.ndarray, shape (n,)
        Initial mass (Msun, rising), log10 of temperature (K) and luminosity (Lsun), without
        thermally pulsing or later stars.

    Returns
    -------
    Stages
        Rows where the stages end.

    Notes
    -----
    From the shape in the plane of log L and log Teff:

    * end of the main sequence: the last hottest point before the giants (after the hook, where
      there is one);
    * foot of the giant branch: the point farthest from the straight line from there to the tip;
    * tip: the luminosity before the deepest drop (0.1 dex at least);
    * helium: the first 90 % of the mass range after the tip. Mass is a clock: stars at a stage
      differ in mass by as much as the stage lasts.

    Against the labels of PARSEC CMD 3.3 and 3.6 (18 Myr to 13 Gyr) the tip agrees to two rows,
    the foot to 0.02 dex in Teff, and the end of helium burning, where stars move fast, to 0.5 dex
    in log L (0.1 in the middle).
    """
    hot = int(log_teff.argmax())
    cool = hot + np.flatnonzero(log_teff[hot:] < GIANT_TEFF)
    if cool.size == 0:
        return Stages(_first_top(log_teff))
    foot = int(cool[0])
    while foot + 1 < mass.size and log_l[foot + 1] < log_l[foot]:
        foot += 1
    highest = np.maximum.accumulate(log_l[foot:])
    deepest = int((highest - log_l[foot:]).argmax())
    if highest[deepest] - log_l[foot + deepest] < DROP:
        tip = mass.size - 1
    else:
        tip = foot + int(log_l[foot : foot + deepest + 1].argmax())
    end = int(cool[0])
    for row in range(end, -1, -1):
        if log_teff[row] > log_teff[end]:
            end = row
        elif log_teff[row] < log_teff[end] - NOISE_TEFF:
            break
    subgiant = end + giant_foot(log_teff[end : tip + 1], log_l[end : tip + 1])
    if tip == mass.size - 1:
        return Stages(end, subgiant, tip)
    share = mass[tip] + HELIUM_SHARE * (mass[-1] - mass[tip])
    return Stages(end, subgiant, tip, max(int(np.searchsorted(mass, share)) - 1, tip + 1))


def giant_foot(log_teff, log_l):
    """Return the row of the foot of the giant branch, where the subgiants turn upwards.

    Parameters
    ----------
    log_teff, log_l : numpy.ndarray, shape (n,)
        log10 of temperature (K) and luminosity (Lsun) from the end of the main sequence to the
        tip of the giants.

    Returns
    -------
    int
        The point farthest from the straight line between the two ends.
    """
    x, y = TEFF_WEIGHT * (log_teff - log_teff[0]), log_l - log_l[0]
    return int(np.abs(x * y[-1] - y * x[-1]).argmax())


def _first_top(log_teff):
    """Return the first row after which stars get clearly cooler; the last row otherwise."""
    highest = np.maximum.accumulate(log_teff)
    falls = np.flatnonzero(highest - log_teff > 0.02)
    # Contracting stars have a small dip of their own, at temperatures below 10000 K.
    falls = falls[log_teff[falls] > 4.0]
    end = int(falls[0]) if falls.size else log_teff.size - 1
    return int(log_teff[: end + 1].argmax())


def contraction_end(mass, log_g, settled_mass, settled_log_g):
    """Return the first row of an isochrone whose star has finished its contraction.

    Parameters
    ----------
    mass, log_g : numpy.ndarray, shape (n,)
        Initial mass (Msun) and log10 of surface gravity of one isochrone up to the turn-off.
    settled_mass, settled_log_g : numpy.ndarray, shape (m,)
        Gravity of stars on the zero-age main sequence, by mass.

    Returns
    -------
    int
        Row; n - 1 when all stars contract still.

    Notes
    -----
    A young star is larger than on the main sequence. It counts as contracting while its log g is
    more than 0.03 dex below that of the zero-age main sequence.
    """
    settled = np.interp(mass, settled_mass, settled_log_g)
    ready = np.flatnonzero(log_g > settled - CONTRACTED)
    return int(ready[0]) if ready.size else mass.size - 1


def equal_points(columns, log_teff, log_l, stages, start):
    """Return the columns of one isochrone at points that mean the same in every isochrone.

    Parameters
    ----------
    columns : numpy.ndarray, shape (n, k)
        Any quantities, one row per star.
    log_teff, log_l : numpy.ndarray, shape (n,)
        log10 of temperature (K) and luminosity (Lsun).
    stages : Stages
        Of `find_stages` or of the labels of the file.
    start : int
        Row where the main sequence begins, of `contraction_end`.

    Returns
    -------
    numpy.ndarray, shape (n_point, k)
        Values at the points of `EQUAL_PHASES`; nan where the isochrone has no such stage.

    Notes
    -----
    Each section is divided evenly in length along the track, ``hypot(5 d log Teff, d log L)``.
    Further dividing points are the two ends of the hook at the turn-off and, while helium burns,
    the faintest star and the bluest one after it. A section that an isochrone lacks (the hook of
    old stars) has length zero, so that it vanishes smoothly from age to age.
    """
    out = np.full((EQUAL_PHASES.size, columns.shape[1]), np.nan)
    end = stages.main_sequence
    start = min(start, end)
    top, red = _hook(log_teff, start, end)
    marks = [(0, start), (start, top), (top, red), (red, end)]
    if stages.subgiant is not None:
        marks += [(end, stages.subgiant), (stages.subgiant, stages.red_giant)]
    if stages.helium is not None:
        first, last = stages.red_giant + 1, stages.helium
        faint = first + int(log_l[first : last + 1].argmin())
        blue = faint + int(log_teff[faint : last + 1].argmax())
        marks += [(first, faint), (faint, blue), (blue, last), (last, log_l.size - 1)]
    at = 0
    for (low, high), (_, _, number) in zip(marks, SECTIONS, strict=False):
        rows = slice(low, high + 1)
        steps = np.hypot(TEFF_WEIGHT * np.diff(log_teff[rows]), np.diff(log_l[rows]))
        length = np.concatenate([[0.0], np.cumsum(steps)])
        places = np.linspace(0.0, length[-1], number)
        for k in range(columns.shape[1]):
            out[at : at + number, k] = np.interp(places, length, columns[rows, k])
        at += number
    return out


def _hook(log_teff, start, end):
    """Return the rows of the turn-off and of the coolest point of the hook after it."""
    red = end
    for row in range(end, start - 1, -1):
        if log_teff[row] < log_teff[red]:
            red = row
        elif log_teff[row] > log_teff[red] + NOISE_TEFF:
            return start + int(log_teff[start : red + 1].argmax()), red
        if log_teff[row] < log_teff[end] - HOOK_DEPTH:
            break
    return end, end
