"""Zero points of one frame and colours: what a magnitude means and which ones may meet.

Signs: ``m_inst = -2.5 log10(flux / exposure)`` and ``m = m_inst + zero_point``, with a colour term
``m = m_inst + zero_point + c colour``. Every magnitude column carries its system in
``meta["system"]``; two systems never meet unnoticed.

A zero point belongs to the aperture of its instrumental magnitudes: the light that the aperture
lacks is in it. Fluxes of another aperture need another zero point, or the aperture correction of
`datared.growth.aperture_correction` (the column ``growth`` of the epochs has the shares of light).
"""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std

from .errors import DataredError, DataredWarning
from .instrumental import (
    colour,
    instrumental_magnitude,
    magnitude_error,
    passband,
    plain_values,
    system_of,
)

__all__ = [
    "ColourTerm",
    "LinearZeroPoint",
    "ZeroPoint",
    "colour",
    "colour_term",
    "instrumental_magnitude",
    "magnitude_error",
    "passband",
    "plain_values",
    "ransac_zero_point",
    "zero_point",
]

#: Error of a median over that of a mean, for Gaussian scatter: sqrt(pi / 2).
MEDIAN_PENALTY = 1.2533

#: Catalogue against instrumental magnitudes has slope 1; farther from it something is wrong.
SLOPE_TOLERANCE = 0.1
#: A straight line needs at least this many stars near it ...
MIN_INLIERS = 5
#: ... over at least this range of magnitudes or colours.
LEAST_RANGE = 0.1


@dataclass(frozen=True)
class ZeroPoint:
    """A zero point and how it was found.

    Parameters
    ----------
    value : float
        ``m_catalogue - m_instrumental``; NaN where there were too few stars.
    error : float
        Its standard error.
    scatter : float
        Standard deviation of one star around it (from the MAD).
    n : int
        Number of stars that were used.
    used : numpy.ndarray of bool
        Which ones.
    system : str
        System of the catalogue's magnitudes.
    """

    value: float
    error: float
    scatter: float
    n: int
    used: np.ndarray
    system: str = ""


def zero_point(instrumental, catalogue, *, exclude=None, clip=3.0, min_stars=3, system=None):
    """Zero point: the median difference, without outliers.

    Stars farther from the median than ``clip`` times the width (from the MAD) are left out, again
    and again until none is.

    Parameters
    ----------
    instrumental, catalogue : array_like of float, shape (n,)
        Magnitudes of the same stars; masked or NaN ones do not count.
    exclude : array_like of bool, shape (n,), optional
        Stars not to use: saturated, flagged, variable.
    clip : float
        Clipping limit in standard deviations.
    min_stars : int
        With fewer stars there is no zero point: NaN, and no error raised.
    system : str, optional
        System that is wanted, for example ``"PS1 AB"``.

    Returns
    -------
    ZeroPoint
        With ``error = 1.2533 scatter / sqrt(n)``.

    Raises
    ------
    DataredError
        If the catalogue's magnitudes are in another system than the one wanted.

    Examples
    --------
    >>> found = zero_point([-5.0, -4.0, -3.0, -6.0], [20.0, 21.01, 21.99, 12.0])
    >>> found.value, found.n
    (25.0, 3)
    """
    known = system_of(catalogue)
    if system is not None and known and known != system:
        raise DataredError(
            f"the catalogue's magnitudes are {known!r}, wanted is {system!r}: transform one of them"
        )
    difference = plain_values(catalogue) - plain_values(instrumental)
    used = np.isfinite(difference)
    if exclude is not None:
        used &= ~np.asarray(exclude, bool)
    while np.count_nonzero(used) >= max(min_stars, 1):
        middle, width = np.median(difference[used]), mad_std(difference[used])
        with np.errstate(invalid="ignore"):
            # Equal differences of most stars have a MAD of zero: then nothing is clipped away.
            far = used & (np.abs(difference - middle) > clip * width) & (width > 0)
        if not far.any() or np.count_nonzero(used & ~far) < min_stars:
            n = int(np.count_nonzero(used))
            error = float(MEDIAN_PENALTY * width / np.sqrt(n))
            return ZeroPoint(float(middle), error, float(width), n, used, system or known)
        used &= ~far
    n = int(np.count_nonzero(used))
    return ZeroPoint(np.nan, np.nan, np.nan, n, used, system or known)


@dataclass(frozen=True)
class LinearZeroPoint:
    """A straight line between instrumental and catalogue magnitudes.

    Parameters
    ----------
    slope, slope_err : float
        Slope ``a`` of ``m_catalogue = a m_instrumental + ZP`` and its standard error; NaN where
        the stars do not decide it.
    value, error : float
        Zero point ``ZP`` and its standard error, that is, the line at ``m_instrumental = 0``: far
        from the stars, so that with a slope of 0.99 it differs by 0.1 from `fixed`.
    rms : float
        Standard deviation of the stars around the line.
    n : int
        Number of stars near the line.
    used : numpy.ndarray of bool
        Which ones.
    fixed : ZeroPoint
        Zero point of the same stars with the slope fixed to 1: the one for magnitudes and janskys.
    system : str
        System of the catalogue's magnitudes.
    """

    slope: float
    slope_err: float
    value: float
    error: float
    rms: float
    n: int
    used: np.ndarray
    fixed: ZeroPoint
    system: str = ""


def ransac_zero_point(instrumental, catalogue, *, exclude=None, threshold=None, seed=0):
    """Zero point and slope, ``m_catalogue = a m_instrumental + ZP``, whatever the outliers do.

    RANSAC (Fischler & Bolles 1981): lines through stars drawn at random, of which the one with the
    most stars near it is taken; then a least-squares line through these.

    Parameters
    ----------
    instrumental, catalogue : array_like of float, shape (n,)
        Magnitudes of the same stars; masked or NaN ones do not count.
    exclude : array_like of bool, shape (n,), optional
        Stars not to use: saturated, flagged, variable.
    threshold : float, optional
        Largest distance from the line in mag; by default 3 MAD (as a standard deviation) of the
        distances from the line of median slope (Theil & Sen).
    seed : int
        Seed of the draws: the same seed, the same result.

    Returns
    -------
    LinearZeroPoint
        NaN with fewer than 5 stars near the line, or where all have the same magnitude.

    Warns
    -----
    DataredWarning
        If the slope is farther than 0.1 from 1.

    Examples
    --------
    >>> instrumental = np.linspace(-12.0, -8.0, 9)
    >>> catalogue = instrumental + 25.0
    >>> catalogue[3] = 10.0
    >>> found = ransac_zero_point(instrumental, catalogue)
    >>> round(found.slope, 3), round(found.value, 3), found.n
    (1.0, 25.0, 8)
    """
    x, y = plain_values(instrumental), plain_values(catalogue)
    good = np.isfinite(x) & np.isfinite(y)
    if exclude is not None:
        good &= ~np.asarray(exclude, bool)
    used, system = np.zeros(x.size, bool), system_of(catalogue)
    if np.count_nonzero(good) >= MIN_INLIERS and np.ptp(x[good]) >= LEAST_RANGE:
        used[np.flatnonzero(good)[_near_line(x[good], y[good], threshold, seed)]] = True
    fixed = zero_point(x, y, exclude=~(used if used.any() else good), system=system)
    line = _line(x[used], y[used]) if np.count_nonzero(used) >= MIN_INLIERS else None
    if line is None:
        return LinearZeroPoint(*[np.nan] * 5, int(used.sum()), used, fixed, system)
    (slope, slope_err), (value, error), rms, _ = line
    if abs(slope - 1) > SLOPE_TOLERANCE:
        warnings.warn(
            f"the slope between instrumental and catalogue magnitudes is {slope:.3f}, not 1: look "
            "for saturated stars, a wrong sky level or wrong matches",
            DataredWarning,
            stacklevel=2,
        )
    return LinearZeroPoint(
        slope, slope_err, value, error, rms, int(used.sum()), used, fixed, system
    )


@dataclass(frozen=True)
class ColourTerm:
    """Zero point and colour term of one frame.

    Parameters
    ----------
    value, error : float
        Colour term ``c`` of ``m_catalogue = m_instrumental + ZP + c colour`` (mag per mag) and its
        standard error; NaN with fewer than 5 stars or all of one colour.
    zero_point, zero_point_err : float
        ``ZP``, at colour 0, and its standard error.
    scatter : float
        Standard deviation of one star around the line.
    n : int
        Number of stars that were used.
    used : numpy.ndarray of bool
        Which ones.
    """

    value: float
    error: float
    zero_point: float
    zero_point_err: float
    scatter: float
    n: int
    used: np.ndarray


def colour_term(instrumental, catalogue, colour, *, exclude=None, clip=3.0):
    """Colour term of one frame: how the zero point changes with the colour of the stars.

    A straight line by least squares, without stars farther from it than ``clip`` standard
    deviations (from the MAD). Frames of a whole night: `datared.zeropointfit.fit_zero_points`.

    Parameters
    ----------
    instrumental, catalogue : array_like of float, shape (n,)
        Magnitudes of the same stars; masked or NaN ones do not count.
    colour : array_like of float, shape (n,)
        Their colours in the catalogue.
    exclude : array_like of bool, shape (n,), optional
        Stars not to use.
    clip : float
        Clipping limit in standard deviations.

    Returns
    -------
    ColourTerm
        Colour term and zero point at colour 0.

    Examples
    --------
    >>> index = np.linspace(0.0, 2.0, 9)
    >>> found = colour_term(index * 0 - 10.0, 15.0 + 0.04 * index, index)
    >>> round(found.value, 4), round(found.zero_point, 4), found.n
    (0.04, 25.0, 9)
    """
    index = plain_values(colour)
    difference = plain_values(catalogue) - plain_values(instrumental)
    good = np.isfinite(difference) & np.isfinite(index)
    if exclude is not None:
        good &= ~np.asarray(exclude, bool)
    if np.count_nonzero(good) < MIN_INLIERS or np.ptp(index[good]) < LEAST_RANGE:
        return ColourTerm(*[np.nan] * 5, int(good.sum()), good)
    used, residual = good, np.where(good, difference, np.nan)
    residual = residual - np.nanmedian(residual)
    for _ in range(20):
        width = mad_std(residual[used])
        keep = good & (np.abs(residual) <= max(clip * width, 1e-9))
        if np.count_nonzero(keep) < MIN_INLIERS or np.ptp(index[keep]) < LEAST_RANGE:
            break
        line = _line(index[keep], difference[keep])
        residual = difference - line[1][0] - line[0][0] * index
        if np.array_equal(keep, used):
            break
        used = keep
    slope, intercept, rms, _ = _line(index[used], difference[used])
    return ColourTerm(*slope, *intercept, rms, int(used.sum()), used)


def _near_line(x, y, threshold, seed):
    """Which points lie near the line on which most of them do."""
    from scipy.stats import theilslopes
    from sklearn.linear_model import RANSACRegressor

    if threshold is None:
        slope, middle, *_ = theilslopes(y, x)
        # All on one line have a MAD of zero: then rounding is all that they may differ by.
        threshold = max(3 * mad_std(y - middle - slope * x), 1e-6)
    search = RANSACRegressor(residual_threshold=threshold, random_state=seed, max_trials=1000)
    # Far from zero the lines through two points would lose digits.
    search.fit((x - x.mean())[:, None], y - y.mean())
    return np.flatnonzero(search.inlier_mask_)


def _line(x, y):
    """Least-squares line: slope and intercept with their errors, rms, middle of x."""
    middle = x.mean()
    spread = np.sum((x - middle) ** 2)
    slope = np.sum((x - middle) * y) / spread
    level = y.mean()
    rms = np.sqrt(np.sum((y - level - slope * (x - middle)) ** 2) / (x.size - 2))
    slope_err = rms / np.sqrt(spread)
    error = np.hypot(rms / np.sqrt(x.size), middle * slope_err)
    values = (slope, slope_err), (level - slope * middle, error)
    return *(tuple(map(float, pair)) for pair in values), float(rms), float(middle)
