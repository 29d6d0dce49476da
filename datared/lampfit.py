"""Fit of a series of flats: one lamp, many exposure times, and a camera that may bend."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

__all__ = ["Series", "SeriesFit", "best_fit"]

#: The second coefficient of the curve is 0 with this deviation (relative, at the highest level)
#: before anything is measured.
CURVED = 0.01
#: Share of the drift's column that the other terms must leave; below the second one it is told
#: badly.
TOLD, WELL_TOLD = 1e-3, 0.1
#: Rounds of a fit: the offset of the shutter and the flicker of the lamp settle in a few.
ROUNDS = 12
#: Part of a normal distribution below its mean plus one deviation.
ONE_SIGMA = 0.8413447460685429


@dataclass(frozen=True, eq=False)
class Series:
    """Levels of flats of one lamp.

    Parameters
    ----------
    exptimes, levels : numpy.ndarray of float, shape (n,)
        Seconds, and ADU above the bias.
    relative : numpy.ndarray of float, shape (n,)
        Deviations of the levels, in units of them; 0 where not known.
    hours : numpy.ndarray of float, shape (n,) or (0,)
        Time of day; empty where it is not known.
    """

    exptimes: np.ndarray
    levels: np.ndarray
    relative: np.ndarray
    hours: np.ndarray

    def part(self, keep):
        """Take some of the levels.

        Parameters
        ----------
        keep : numpy.ndarray of bool, shape (n,)
            Which.

        Returns
        -------
        Series
            The part.
        """
        hours = self.hours[keep] if self.hours.size else self.hours
        return Series(self.exptimes[keep], self.levels[keep], self.relative[keep], hours)

    def design(self, terms, *, shutter, scale):
        """Write derivatives of the logarithms of the levels by the parameters.

        Parameters
        ----------
        terms : sequence of str
            ``rate`` (its logarithm), ``shutter``, ``drift``, ``c1``, ``c2``.
        shutter : float
            Offset (s) at which they are taken.
        scale : float
            Level (ADU) in units of which the curve is written.

        Returns
        -------
        numpy.ndarray of float, shape (n, number of terms)
            The columns.
        """
        columns = {
            "rate": np.ones(self.levels.size),
            "shutter": 1 / (self.exptimes + shutter),
            "drift": self.hours,
            "c1": self.levels / scale,
            "c2": (self.levels / scale) ** 2,
        }
        return np.stack([columns[name] for name in terms], axis=1)


@dataclass(frozen=True, eq=False)
class SeriesFit:
    """Parameters of a fit, by name: ``fit["rate"]`` is the value and its error.

    Parameters
    ----------
    terms : tuple of str
        Names of the parameters: the logarithm of the rate (ADU/s), the offset of the shutter (s),
        the drift (relative per hour), coefficients of the curve (for levels in units of ``scale``).
    values : numpy.ndarray of float, shape (k,)
        Their values.
    covariance : numpy.ndarray of float, shape (k, k)
        NaN where neither errors nor scatter tell it.
    flicker : float
        Relative scatter of the levels beside their errors.
    scale : float
        Highest level of the series (ADU).
    """

    terms: tuple
    values: np.ndarray
    covariance: np.ndarray
    flicker: float
    scale: float

    def __getitem__(self, name):
        """Value and error of a parameter; 0 and NaN where it was not fitted."""
        if name not in self.terms:
            return 0.0, math.nan
        i = self.terms.index(name)
        return float(self.values[i]), math.sqrt(max(self.covariance[i, i], 0.0))

    def residuals(self, series):
        """Logarithms of levels without those that the fit promises.

        Parameters
        ----------
        series : Series
            The fitted one or another of the same lamp.

        Returns
        -------
        numpy.ndarray of float, shape (n,)
            Negative where a level falls short.
        """
        shutter = self["shutter"][0]
        design = series.design(self.terms, shutter=shutter, scale=self.scale)
        # The column of the shutter is a derivative; the shutter itself stands beside the time.
        values = np.where(np.array(self.terms) == "shutter", 0.0, self.values)
        return np.log(series.levels / (series.exptimes + shutter)) - design @ values

    def missing(self, series):
        """By how much the mean of some levels falls short of the fit.

        Parameters
        ----------
        series : Series
            Levels that took no part in it.

        Returns
        -------
        short, error : float
            Relative; the error is that of the promise and of the levels.
        """
        design = series.design(self.terms, shutter=self["shutter"][0], scale=self.scale)
        middle = design.mean(axis=0)
        square = middle @ self.covariance @ middle
        square += np.mean(series.relative**2 + self.flicker**2) / series.levels.size
        return -float(self.residuals(series).mean()), math.sqrt(square)


def best_fit(series, *, curved=True):
    """Fit with as many terms as a series can tell.

    Parameters
    ----------
    series : Series
        Levels of three exposure times or more, none of them full.
    curved : bool
        Fit the second coefficient of the curve, too, with five exposure times and three levels
        more than other terms. It is known to be small before (0 with a deviation of 1 % at the
        highest level), so that it does no harm where the levels do not tell it, and its error
        counts in those of the others.

    Returns
    -------
    fit : SeriesFit
        The fit: rate and shutter, the first coefficient with four exposure times or more, the drift
        with times of day.
    notes : list of str
        What cannot be told, or badly.
    """
    number, notes = np.unique(series.exptimes).size, []
    terms = ["rate", "shutter"]
    if number >= 4:
        terms.append("c1")
    else:
        notes.append(
            "three exposure times are too few for the non-linearity: it is taken as 0, and the "
            "errors do not count it"
        )
    if series.hours.size:
        told = _told(series, terms) if np.ptp(series.hours) > 0 else 0.0
        if series.levels.size <= len(terms) + 1 or told <= TOLD:
            notes.append(
                "the flats do not tell the drift of the lamp: it is taken as 0, and the errors do "
                "not count it; take the exposure times up and then down"
            )
        else:
            terms.append("drift")
            if told < WELL_TOLD:
                notes.append(
                    "the times of day tell the drift of the lamp badly from the non-linearity: "
                    "take the exposure times up and then down"
                )
    if curved and number >= 5 and series.levels.size > len(terms) + 2:
        terms.append("c2")
    return _fit(series, tuple(terms)), notes


def _told(series, terms):
    """Share of the drift's column that no combination of the others makes."""
    columns = series.design((*terms, "drift"), shutter=0.0, scale=series.levels.max())
    others, drift = columns[:, :-1], columns[:, -1]
    rest = drift - others @ np.linalg.lstsq(others, drift)[0]
    return float(np.sum(rest**2) / np.sum((drift - drift.mean()) ** 2))


def _fit(series, terms):
    """Weighted least squares of the logarithms of the levels, with the flicker of the lamp."""
    shutter = flicker = 0.0
    scale, number = float(series.levels.max()), series.levels.size
    before = np.diag([1 / CURVED**2 if name == "c2" else 0.0 for name in terms])
    for _ in range(ROUNDS):
        variance = np.maximum(series.relative**2 + flicker**2, 1e-18)
        design = series.design(terms, shutter=shutter, scale=scale)
        left = np.log(series.levels / (series.exptimes + shutter))
        weighted = design / variance[:, None]
        covariance = np.linalg.pinv(weighted.T @ design + before)
        values = covariance @ (weighted.T @ left)
        rest = left - design @ values
        shutter = max(shutter + float(values[1]), -0.9 * float(series.exptimes.min()))
        # What is known before makes a parameter count less than one.
        free = number - float(np.sum(covariance * (weighted.T @ design)))
        flicker = _flicker(rest, series.relative, free) if number > len(terms) else 0.0
    values[1] = shutter
    if number > len(terms):
        # A scatter that few levels tell is itself unsure: Student's distribution is wider.
        share = flicker**2 / max(float(np.mean(variance)), 1e-18)
        covariance = covariance * (1 + share * (stdtrit(free, ONE_SIGMA) ** 2 - 1))
    elif not np.any(series.relative > 0):
        covariance = covariance * math.nan
    return SeriesFit(terms, values, covariance, flicker, scale)


def _flicker(rest, relative, free):
    """Scatter beside the known errors with which chi square is what it should be."""
    if np.sum(rest**2 / np.maximum(relative**2, 1e-30)) <= free:
        return 0.0
    low, high = 0.0, float(np.sum(rest**2)) / free
    for _ in range(30):
        middle = (low + high) / 2
        excess = np.sum(rest**2 / np.maximum(relative**2 + middle, 1e-30)) - free
        low, high = (middle, high) if excess > 0 else (low, middle)
    return math.sqrt(high)
