"""Dark current: electrons that gather without light, fitted against time and temperature."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from .weightedfit import fit_columns, fit_line, widened_fit

__all__ = ["DarkCurrent", "DarkTemperature", "dark_current", "dark_temperature"]

#: Boltzmann's constant in eV/K (exact since 2019), and 0 deg C in K.
BOLTZMANN, FREEZING = 8.617333262e-5, 273.15
#: Points further from the line than this many errors, and less likely than this, are left out.
CLIP, CHANCE = 5.0, 1e-4
#: Seconds to which exposure times are told apart, and deg C for temperatures.
SAME_TIME, SAME_TEMPERATURE = 1e-3, 0.05

MISFIT = "the law of Arrhenius does not fit: look at each rate, give errors."


@dataclass(frozen=True, eq=False)
class DarkCurrent:
    """Dark current of a typical pixel at one temperature.

    Attributes
    ----------
    rate, rate_err : float
        ADU/s, and its standard deviation.
    offset, offset_err : float
        ADU: level of an exposure of no time, 0 where the bias was subtracted rightly.
    electrons, electrons_err : float
        The rate in e-/s; NaN without a gain.
    exptimes, levels, errors : numpy.ndarray of float, shape (n,)
        The points: s, ADU, ADU.
    residuals : numpy.ndarray of float, shape (n,)
        Levels less the line, in ADU.
    used : numpy.ndarray of bool, shape (n,)
        Which points took part.
    chi2 : float
        Chi squared per degree of freedom with the errors as given; NaN where none is free.
    note : str
        What was left out, or that no dark current was seen.
    """

    rate: float
    rate_err: float
    offset: float
    offset_err: float
    electrons: float
    electrons_err: float
    exptimes: np.ndarray
    levels: np.ndarray
    errors: np.ndarray
    residuals: np.ndarray
    used: np.ndarray
    chi2: float
    note: str


@dataclass(frozen=True, eq=False)
class DarkTemperature:
    """Dark current against temperature.

    Attributes
    ----------
    energy, energy_err : float
        Activation energy in eV.
    doubling, doubling_err : float
        Warming in K that doubles the rate, at the temperature ``at``; NaN for an energy of 0.
    at : float
        Reference temperature in deg C.
    rate, rate_err : float
        Rate at the reference temperature, in the unit of the rates.
    temperatures, rates, errors : numpy.ndarray of float, shape (n,)
        The points: deg C, and rates with their standard deviations.
    residuals : numpy.ndarray of float, shape (n,)
        Rates less the law.
    chi2 : float
        Chi squared per degree of freedom with the errors as given; NaN where none is free.
    scatter : float
        Relative scatter of the rates that was added to their errors.
    """

    energy: float
    energy_err: float
    doubling: float
    doubling_err: float
    at: float
    rate: float
    rate_err: float
    temperatures: np.ndarray
    rates: np.ndarray
    errors: np.ndarray
    residuals: np.ndarray
    chi2: float
    scatter: float

    def rates_at(self, temperatures):
        """Rates of the law at other temperatures.

        Parameters
        ----------
        temperatures : array-like of float
            Degrees Celsius.

        Returns
        -------
        numpy.ndarray of float
            In the unit of the rates.
        """
        return self.rate * np.exp(-self.energy * _inverse(temperatures, self.at))


def dark_current(exptimes, levels, *, errors=None, gain=None):
    r"""Dark current and bias offset from the levels of darks of several exposure times.

    .. math:: L = b + r t

    is fitted with weights. Bias frames are darks of no time. Points further than 5 errors (5 ADU
    without) and 5 robust deviations, more where points are few, from a robust line (a light leak, a
    disturbed frame) are left out.

    Parameters
    ----------
    exptimes : array-like of float, shape (n,)
        Exposure times in s, two different ones at least.
    levels : array-like of float, shape (n,)
        Levels of the darks in ADU, such as those of `datared.darkcurrent.dark_frames`. Points that
        are not finite do not count, and are not in the result.
    errors : array-like of float, shape (n,), optional
        Standard deviations of the levels; without them all have the same one, found from the
        residuals.
    gain : float or (float, float), optional
        Electrons per ADU (and its error).

    Returns
    -------
    DarkCurrent
        With errors of one standard deviation. Where ``chi2`` is above 1 (the bias drifts from frame
        to frame) a scatter is added to the errors of all points, so large that it becomes 1. Two
        points cannot tell a drift; then it is in no error, and ``note`` says so.

    Raises
    ------
    ValueError
        If the columns differ in length, an error is not positive, or there is one exposure time.

    Examples
    --------
    >>> result = dark_current([0, 30, 60, 120], [500, 503, 506, 512], errors=[0.1] * 4, gain=2.0)
    >>> round(result.rate, 3), round(result.offset, 3), round(result.electrons, 3)
    (0.1, 500.0, 0.2)
    """
    t, y, sigma, given = fit_columns(exptimes, levels, errors, "levels", "exposure times")
    if not t.size or np.ptp(t) <= SAME_TIME:
        raise ValueError(
            f"{t.size} levels of one exposure time cannot tell dark current from bias: add bias "
            "frames (0 s) or darks of another time."
        )
    used = _alike(t, y, sigma)
    points, free = (t[used], y[used], sigma[used]), np.count_nonzero(used) - 2
    (slope, offset), covariance, pulls = fit_line(*points)
    chi2 = float(np.sum(pulls**2)) / free if free > 0 else math.nan
    if not given:  # Then two points tell the line, and nothing of its error.
        covariance, chi2 = covariance * chi2, math.nan
    elif chi2 > 1:
        most = 1.01 * math.sqrt(np.sum(fit_line(*points[:2], np.ones(free + 2))[2] ** 2) / free)
        _, ((slope, offset), covariance, _) = widened_fit(
            lambda drift: fit_line(*points[:2], np.hypot(points[2], drift)), free, most
        )
    rate_err, offset_err = np.sqrt(np.diag(covariance)).tolist()
    gain = math.nan if gain is None else gain
    factor, factor_err = gain if np.ndim(gain) else (gain, 0.0)
    notes = []
    if not used.all():
        left = [f"{y[i]:.4g} ADU at {t[i]:g} s" for i in np.flatnonzero(~used)]
        notes.append(f"left out, unlike the others: {', '.join(left)}")
    if given and free <= 0:
        notes.append("two levels cannot tell whether the bias drifts: the error has no part for it")
    if slope < 3 * rate_err:
        notes.append(f"no dark current seen: below {max(slope, 0) + 3 * rate_err:.2g} ADU/s")
    return DarkCurrent(
        rate=slope,
        rate_err=rate_err,
        offset=offset,
        offset_err=offset_err,
        electrons=factor * slope,
        electrons_err=math.hypot(factor * rate_err, factor_err * slope),
        exptimes=t,
        levels=y,
        errors=sigma if given else np.full(t.shape, math.nan),
        residuals=y - offset - slope * t,
        used=used,
        chi2=chi2,
        note="; ".join(notes),
    )


def dark_temperature(temperatures, rates, *, errors=None, at=None):
    r"""Activation energy and doubling temperature of the dark current.

    The law of Arrhenius,

    .. math:: r = r_0 \exp\left[-\frac{E}{k}\left(\frac{1}{T} - \frac{1}{T_0}\right)\right],
              \qquad T_2 = \frac{k T_0^2 \ln 2}{E},

    is fitted to the rates themselves (not to their logarithms: a rate may be negative within its
    error). :math:`T_2` is the warming that doubles the rate, from its steepness at :math:`T_0`.

    Parameters
    ----------
    temperatures : array-like of float, shape (n,)
        Temperatures of the sensor in deg C, two different ones at least.
    rates : array-like of float, shape (n,)
        Dark currents in any unit. Points that are not finite do not count, and are not in the
        result.
    errors : array-like of float, shape (n,), optional
        Their standard deviations; without them all have the same relative one.
    at : float, optional
        Reference temperature in deg C; by default where the points determine the rate best.

    Returns
    -------
    DarkTemperature
        With errors of one standard deviation. Where ``chi2`` is above 1 a relative scatter is added
        to the errors of all points, so large that it becomes 1 (but no more than the rates
        themselves): a thermometer that is wrong by 0.1 K makes the rate wrong by 1 %.

    Raises
    ------
    ValueError
        If the columns differ in length, an error is not positive, the law does not fit, or the
        rates do not show dark current at two temperatures.

    Notes
    -----
    Silicon makes dark current in two ways, with the energy of its band gap (1.1 eV; warm, alike in
    all pixels) and of half of it (cold, by impurities). What a camera shows is between, so the
    law holds over some 30 K; where ``chi2`` is far above 1 it does not.

    References
    ----------
    Widenhorn, Blouke, Weber, Rest & Bodegom 2002, Proc. SPIE 4669, 193.

    Examples
    --------
    >>> result = dark_temperature([-20, -10, 0], [0.0287, 0.1, 0.3175], at=0)
    >>> round(result.energy, 2), round(result.doubling, 1)
    (0.72, 6.2)
    """
    celsius, r, sigma, given = fit_columns(temperatures, rates, errors, "rates", "temperatures")
    seen = r > 0 if not given else r > 2 * sigma
    if not given and not seen.all():
        raise ValueError(f"a rate of {r.min():g} has no relative error: give errors.")
    if not seen.any() or np.ptp(celsius[seen]) <= SAME_TEMPERATURE:
        raise ValueError(
            f"{r.size} rates, of which {np.count_nonzero(seen)} show dark current, at one "
            "temperature: take darks at another one, 10 deg C away or more, or longer ones."
        )
    weight = np.where(seen, (r / sigma) ** 2 if given else 1.0, 0.0)
    zero = float(np.average(celsius, weights=weight)) if at is None else float(at)
    x = _inverse(celsius, zero)
    # Logarithms give the start.
    (slope, start), *_ = fit_line(x[seen], np.log(r[seen]), np.ones(np.count_nonzero(seen)))
    scatter, free = 0.0 if given else 1.0, r.size - 2
    start = (start, -slope)
    parameters, inverse, model, pulls = _arrhenius(x, r, sigma if given else 0, scatter, start)
    chi2 = float(np.sum(pulls**2)) / free if given and free > 0 else math.nan
    if not given:
        scatter = math.sqrt(np.sum((r / model - 1) ** 2) / free) if free > 0 else math.nan
        inverse = inverse * scatter**2
    elif chi2 > 1:

        def wider(part):
            try:
                return _arrhenius(x, r, sigma, part, parameters)
            except ValueError:  # With so large a scatter nothing holds the law: less is enough.
                return None, None, None, np.zeros(1)

        scatter, (parameters, inverse, model, _) = widened_fit(wider, free, 1.0)
        if model is None:
            raise ValueError(MISFIT)
    rate, energy = math.exp(parameters[0]), float(parameters[1])
    relative, energy_err = np.sqrt(np.diag(inverse)).tolist()
    doubling = BOLTZMANN * (zero + FREEZING) ** 2 * math.log(2) / (energy or math.nan)
    return DarkTemperature(
        energy=energy,
        energy_err=energy_err,
        doubling=doubling,
        doubling_err=abs(doubling * energy_err / (energy or math.nan)),
        at=zero,
        rate=rate,
        rate_err=rate * relative,
        temperatures=celsius,
        rates=r,
        errors=sigma if given else np.full(r.shape, math.nan),
        residuals=r - model,
        chi2=chi2,
        scatter=scatter,
    )


def _inverse(temperatures, zero):
    """Return (1/T - 1/T0) / k in 1/eV, for temperatures in deg C."""
    kelvin = np.asarray(temperatures, float) + FREEZING
    return (1 / kelvin - 1 / (zero + FREEZING)) / BOLTZMANN


def _arrhenius(x, rates, sigma, scatter, start):
    """Weighted fit of ``exp(a - E x)``: (a, E), their covariance, the model, and the pulls."""
    parameters = np.array(start, float)
    for _ in range(200):
        with np.errstate(all="ignore"):
            model = np.exp(parameters[0] - parameters[1] * x)
            weight = 1 / np.hypot(sigma, scatter * model)
            design = (model * weight)[:, None] * np.column_stack([np.ones_like(x), -x])
        if not np.isfinite(design).all():
            raise ValueError(MISFIT)
        inverse = np.linalg.pinv(design.T @ design)
        step = inverse @ (design.T @ ((rates - model) * weight))
        # A rate far above the model calls for a step beyond all reason: at most a factor e.
        parameters += step / max(1.0, np.abs(step[0] - step[1] * x).max())
        if np.all(np.abs(step) < 1e-9 * np.maximum(1, np.abs(parameters))):
            break
    else:
        raise ValueError(MISFIT)
    model = np.exp(parameters[0] - parameters[1] * x)
    return parameters, inverse, model, (rates - model) / np.hypot(sigma, scatter * model)


def _alike(x, y, sigma):
    """Which points lie near a robust line (the median of the slopes of all pairs)."""
    i, j = np.triu_indices(x.size, 1)
    apart = np.abs(x[i] - x[j]) > SAME_TIME
    i, j = i[apart], j[apart]
    residual = y - np.median((y[i] - y[j]) / (x[i] - x[j])) * x
    residual -= np.median(residual)
    scatter = 1.4826 * np.median(np.abs(residual))
    # The median deviation of n points is known as badly as the standard one of 0.37 n.
    limit = max(CLIP, stdtrit(0.37 * max(x.size - 2, 1), 1 - CHANCE))
    used = np.abs(residual) <= np.maximum(CLIP * sigma, limit * scatter)
    # Of three points, or where one exposure time would be left, nothing can be told to be wrong.
    told = x.size > 3 and np.ptp(x[used]) > SAME_TIME
    return used if told else np.ones(x.shape, bool)
