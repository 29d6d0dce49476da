"""Linearity of a camera: level against exposure time of one lamp, and where the pixels are full."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import stdtrit

from .lampfit import ONE_SIGMA, Series, best_fit

__all__ = ["Linearity", "measure_linearity"]

#: More light makes a level grow; where it grows by less than this part of that (in logarithms,
#: for times that differ by the second factor at least), the pixels are full.
LEAST_GROWTH, LEAST_STEP = 0.5, 1.05
#: The last level is full, too, if it falls short of the curve of the others by this, and by so
#: many deviations.
LEAST_FALL, FALL_SIGMA = 0.02, 5.0
#: Levels above this part of a full well that was seen are left out of the fit.
BELOW_FULL = 0.95
#: Levels within this part of the highest one are of the same plateau.
PLATEAU = 0.02
#: Levels that scatter by more than this do not follow the exposure time.
STEADY = 0.02


@dataclass(frozen=True, eq=False)
class Linearity:
    """How a camera answers to more light.

    Parameters
    ----------
    exptimes, levels, errors : numpy.ndarray of float, shape (n,)
        The series: seconds, ADU above the bias, and their deviations (with the flicker of the
        lamp, where the levels scatter by more than was given).
    expected : numpy.ndarray of float, shape (n,)
        ADU that a linear camera would have given: the line of faint light, with the drift.
    residuals : numpy.ndarray of float, shape (n,)
        ``levels / expected - 1``: the relative non-linearity at each level.
    used : numpy.ndarray of bool, shape (n,)
        Which levels took part in the fit; the others are full, or not to be trusted.
    rate, rate_err : float
        ADU per second of faint light, at the mean time of the series.
    shutter, shutter_err : float
        Seconds that the shutter is open longer than it says.
    drift, drift_err : float
        Relative change of the lamp per hour; NaN where the times do not tell it.
    largest, largest_err : float
        Largest relative non-linearity of the fitted curve at a used level, with its sign.
    level_1, level_2 : float
        ADU above the bias at which the camera is not linear by 1 % and 2 %, be it by the curve or
        because it is full; NaN where it is linear to the end of the series, or not known.
    level_1_err, level_2_err : float
        Their deviations.
    full_well, full_well_err : float
        ADU above the bias that a full pixel shows; NaN where the series does not reach it.
    full_well_e : float
        Electrons in a full pixel, without the non-linearity; NaN without a gain.
    coefficients : tuple of float
        ``c1`` (1/ADU) and ``c2`` (1/ADU^2) of the fitted curve, see `nonlinearity`.
    note : str
        What was left out or cannot be told, and why.
    """

    exptimes: np.ndarray = field(default_factory=lambda: np.empty(0))
    levels: np.ndarray = field(default_factory=lambda: np.empty(0))
    errors: np.ndarray = field(default_factory=lambda: np.empty(0))
    expected: np.ndarray = field(default_factory=lambda: np.empty(0))
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    used: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    rate: float = math.nan
    rate_err: float = math.nan
    shutter: float = math.nan
    shutter_err: float = math.nan
    drift: float = math.nan
    drift_err: float = math.nan
    largest: float = math.nan
    largest_err: float = math.nan
    level_1: float = math.nan
    level_2: float = math.nan
    level_1_err: float = math.nan
    level_2_err: float = math.nan
    full_well: float = math.nan
    full_well_err: float = math.nan
    full_well_e: float = math.nan
    coefficients: tuple = (0.0, 0.0)
    note: str = ""

    def nonlinearity(self, levels):
        """Relative non-linearity of the fitted curve: ``exp(c1 level + c2 level^2) - 1``.

        Parameters
        ----------
        levels : array-like of float
            ADU above the bias. Dividing them by 1 plus the result makes the camera linear.

        Returns
        -------
        numpy.ndarray of float
            0 at level 0; a fraction.
        """
        levels = np.asarray(levels, float)
        return np.expm1(self.coefficients[0] * levels + self.coefficients[1] * levels**2)


def measure_linearity(exptimes, levels, *, errors=None, times=None, saturation=None, gain=None):
    r"""Linearity, shutter offset, drift of the lamp and full well, from flats of one lamp.

    Below the full well the levels are described by

    .. math:: L = R \, (t + s) \, e^{d (T - \bar T)} \, e^{c_1 L + c_2 L^2},

    with the rate `R`, the offset `s` of the shutter and the drift `d` of the lamp with the time `T`
    of day. The last factor is the non-linearity; it is 1 in faint light. The second coefficient is
    fitted with five exposure times and seven levels or more (six without times); before, it is
    known as 0 with a deviation of 1 % at the highest level. Errors hold 68 % of cases, also with
    few levels; those of `level_1` and `level_2` in such series about half of them.

    A series of growing exposure times cannot tell drift from non-linearity: take the times up and
    down again, or a short one in between now and then. Neither is an error of `b` ADU in the bias
    told from a shutter that is off by `b / R` seconds.

    Parameters
    ----------
    exptimes, levels : array-like of float, shape (n,)
        Seconds, and ADU above the bias (mean or median of the same pixels on each flat).
    errors : array-like of float, shape (n,), optional
        Standard deviations of the levels. The flicker of the lamp is found from the scatter and
        added in square; without errors it is all there is.
    times : array-like of float, shape (n,), optional
        Julian dates (days) of mid-exposure. Without them the lamp is taken as constant.
    saturation : float, optional
        ADU above the bias; levels from there on are not to be trusted.
    gain : float, optional
        Electrons per ADU, for the full well in electrons.

    Returns
    -------
    Linearity
        NaN for what cannot be measured, with the reason in its ``note``; with fewer than three
        exposure times that is everything.

    Raises
    ------
    ValueError
        If the columns differ in length.

    References
    ----------
    Janesick, Scientific Charge-Coupled Devices (SPIE 2001), chapter 2 (linearity residuals);
    EMVA Standard 1288, release 3.1 (errors relative to the level; 95 % of saturation).

    Examples
    --------
    >>> seconds = np.array([1.0, 2, 4, 8, 16, 32])
    >>> result = measure_linearity(seconds, 1000 * (seconds + 0.05), errors=np.full(6, 1.0))
    >>> round(result.rate), round(result.shutter, 3), result.level_1
    (1000, 0.05, nan)
    """
    columns = [np.atleast_1d(np.asarray(one, float)) for one in (exptimes, levels)]
    columns.append(np.zeros_like(columns[1]) if errors is None else np.atleast_1d(errors) * 1.0)
    columns.append(np.zeros_like(columns[1]) if times is None else np.atleast_1d(times) * 1.0)
    if len({one.shape for one in columns}) > 1:
        sizes = ", ".join(str(one.size) for one in columns)
        raise ValueError(
            f"the columns have {sizes} entries: give one exposure time, level, error and time "
            "for each flat."
        )
    exptimes, levels, sigma, moments = columns
    limit = math.inf if saturation is None else saturation
    good = np.isfinite(columns).all(axis=0) & (exptimes > 0) & (levels > 0)
    light = good & (levels < limit)
    notes = [] if light.all() else [f"{np.sum(~light)} flats not used: saturated, or no level"]
    hours = 24 * (moments - (moments[light].mean() if light.any() else 0.0))
    hours = np.zeros(0) if times is None else hours
    with np.errstate(divide="ignore", invalid="ignore"):
        series = Series(exptimes, levels, sigma / levels, hours)
    over = _full(series, good)
    full, full_err, text = _full_well(exptimes[over], levels[over], sigma[over])
    notes += text
    used = light & ~over & ~(levels > BELOW_FULL * full)
    nothing = Linearity(exptimes=exptimes, levels=levels, errors=sigma, used=used & False)
    number = np.unique(exptimes[used]).size
    if number < 3:
        words = "one exposure time" if number == 1 else f"{number} exposure times"
        notes.append(f"{words} below the full well: three or more are needed")
        return replace(nothing, note="; ".join(notes))
    fit, text = best_fit(series.part(used))
    notes += text
    if fit.flicker > STEADY:
        notes.append(
            f"the levels scatter by {100 * fit.flicker:.1f} % about the exposure times: "
            "twilight, or a lamp that is not steady"
        )
        return replace(nothing, note="; ".join(notes))
    (rate, rate_err), (shutter, shutter_err), (drift, drift_err) = (
        fit[name] for name in ("rate", "shutter", "drift")
    )
    expected = math.exp(rate) * (exptimes + shutter)
    expected *= np.exp(drift * hours) if "drift" in fit.terms else 1.0
    most = float(levels[used].max())
    largest, largest_err = _largest(fit, np.sort(levels[used]) / most)
    if math.isnan(full):
        notes.append(f"no level is full: the full well is above {levels[good].max():.0f} ADU")
    result = replace(
        nothing,
        errors=np.hypot(sigma, fit.flicker * levels),
        expected=expected,
        residuals=levels / expected - 1,
        used=used,
        rate=math.exp(rate),
        rate_err=math.exp(rate) * rate_err,
        shutter=shutter,
        shutter_err=shutter_err,
        drift=drift if "drift" in fit.terms else math.nan,
        drift_err=drift_err,
        largest=largest,
        largest_err=largest_err,
        full_well=full,
        full_well_err=full_err,
        coefficients=(fit["c1"][0] / most, fit["c2"][0] / most**2),
        note="; ".join(notes),
    )
    ends = [_passes(fit, part, full, full_err) for part in (0.01, 0.02)]
    # The gain is that of faint light: what the camera does not show of a full well counts too.
    electrons = float(full / (1 + result.nonlinearity(full)))
    electrons *= math.nan if gain is None else gain
    (one, one_err), (two, two_err) = ends
    result = replace(result, level_1=one, level_1_err=one_err, full_well_e=electrons)
    return replace(result, level_2=two, level_2_err=two_err)


def _full(series, good):
    """Which levels are full: those from the time on at which more light makes little more."""
    times = np.unique(series.exptimes[good])
    of_time = [good & (series.exptimes == time) for time in times]
    level = np.array([np.exp(np.log(series.levels[rows]).mean()) for rows in of_time])
    end = times.size
    for i in range(times.size):
        before = np.flatnonzero(times <= times[i] / LEAST_STEP)
        if before.size and level[i] > level.max() / 2:
            grown = np.log(level[i] / level[before[-1]]), np.log(times[i] / times[before[-1]])
            if grown[0] < LEAST_GROWTH * grown[1]:
                end = i
                break
    # A last time that is full has no further one to show it: it falls short of the others' curve.
    if end == times.size >= 5:
        last = of_time[end - 1]
        fit, _ = best_fit(series.part(good & (series.exptimes < times[-1])), curved=False)
        short, error = fit.missing(series.part(last))
        end -= 1 if short > max(LEAST_FALL, FALL_SIGMA * error) else 0
    return good & (series.exptimes >= times[end]) if end < times.size else good & False


def _full_well(exptimes, levels, sigma):
    """Level of full pixels, its error, and a note."""
    if not levels.size:
        return math.nan, math.nan, []
    top = levels >= (1 - PLATEAU) * levels.max()
    full, number = float(levels[top].mean()), int(top.sum())
    if np.unique(exptimes[top]).size == 1:
        text = "the full well is seen at one exposure time only: it may not be the end"
        return full, PLATEAU * full, [text]
    scatter = float(levels[top].std(ddof=1) * stdtrit(number - 1, ONE_SIGMA))
    return full, max(scatter, float(np.mean(sigma[top]))) / math.sqrt(number), []


def _curve(fit, scaled):
    """Logarithm of the curve at some levels (in units of the highest), and its error."""
    design = np.stack([scaled * (name == "c1") + scaled**2 * (name == "c2") for name in fit.terms])
    variance = np.einsum("in,ij,jn->n", design, fit.covariance, design)
    return fit.values @ design, np.sqrt(np.maximum(variance, 0.0))


def _largest(fit, scaled):
    """Largest value of the curve at some levels (in units of the highest), and its error."""
    if "c1" not in fit.terms:
        return math.nan, math.nan
    values, errors = _curve(fit, scaled)
    i = int(np.argmax(np.abs(values)))
    return math.expm1(values[i]), math.exp(values[i]) * float(errors[i])


def _passes(fit, part, full, full_err):
    """Level at which the curve, or else the full well, leaves the line by a part; its error."""
    if "c1" not in fit.terms:
        return math.nan, math.nan
    # A curve that is followed up to the full well may pass just below it.
    scaled = np.linspace(0, float(np.fmax(1.0, full / fit.scale)), 2001)
    values, errors = _curve(fit, scaled)
    off, levels = np.abs(np.expm1(values)), scaled * fit.scale
    i = int(np.argmax(off >= part))
    if i:
        slope = abs(values[i] - values[i - 1]) / levels[1]
        return float(levels[i]), float(errors[i]) / slope
    # The curve may pass within its error: so much earlier the level may be.
    early = levels[off + errors >= part]
    return full, max(full_err, full - float(early[0])) if early.size else full_err
