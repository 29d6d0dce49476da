"""Fits of a transit by least squares: the trapezoid, and the limb-darkened model.

Times, periods and durations are in days, as in `datared.transit`.
"""

import numpy as np
from astropy.table import Table

from .curvefit import Curve, TransitFit, fit_shape
from .transit import depth_magnitude, in_days, transit_duration, transit_flux, trapezoid

__all__ = ["TransitFit", "fit_transit", "fit_trapezoid", "transit_numbers"]


def fit_trapezoid(
    time, flux, flux_err, *, mid_time=None, depth=0.01, duration=0.1, ingress=None,
    baseline=None, fixed=(), exposure=0.0,
):  # fmt: skip
    """Fit a trapezoid times a linear baseline to a light curve by least squares.

    Parameters
    ----------
    time, flux : array_like of float, shape (n,)
        Times of mid-exposure (days) and relative flux. Points that are not finite are left out.
    flux_err : array_like of float, shape (n,)
        Standard errors of the flux.
    mid_time, depth, duration, ingress : float, optional
        First guesses, as in `trapezoid`. Without ``mid_time`` it is searched over all times;
        without ``ingress`` it starts at 10, 25 and 40 % of the duration.
    baseline : array_like of float, shape (n,) or (n, k), optional
        Columns (time, airmass, side of the pier ...) of the baseline beside the constant. They are
        shifted to zero mean, and solved for linearly at each step.
    fixed : tuple of str, optional
        Names of parameters that keep their guess: ``"mid_time"``, ``"depth"``, ``"duration"``,
        ``"ingress"``.
    exposure : float or Quantity, optional
        Length of one exposure (days).

    Returns
    -------
    TransitFit
        Values also hold ``ingress``.

    Raises
    ------
    ValueError
        When a name in ``fixed`` is unknown, its value is missing or nothing is left to fit, a guess
        is impossible or far from the times, shapes differ, or there are fewer points than
        parameters. That no transit is found is not an error: see ``significant``.

    Notes
    -----
    ``flux = (c0 + c1 x1 + ...) * trapezoid``. Errors are from the covariance of all parameters,
    baseline included, enlarged when chi2 / dof is above 1. An ingress shorter than that of a
    planet that crosses the centre, ``duration k / (1 + k)`` with ``k = sqrt(depth)``, is not
    tried: noise would often prefer it, with far too small errors. For a shallow transit in noise
    (signal to noise below about 20) the errors of the times are still 10 to 25 % too small,
    because a trapezoid has corners; those of `fit_transit` are right. The limb of a real star is
    dark, so that the flat part is about 10 % deeper than ``(Rp/R*)**2``; see `fit_transit`.

    Examples
    --------
    >>> time = np.linspace(-0.1, 0.1, 201)
    >>> flux = trapezoid(time, mid_time=0.01, depth=0.0105, duration=0.08, ingress=0.01)
    >>> fit = fit_trapezoid(time, flux, np.full(201, 0.001))
    >>> round(fit.values["depth"], 4), round(fit.values["mid_time"], 4), fit.significant
    (0.0105, 0.01, True)
    """
    duration = in_days(duration)
    guess = {"mid_time": mid_time, "depth": float(depth), "duration": duration}
    guess["ingress"] = None if ingress is None else in_days(ingress)
    if not duration > 0:
        raise ValueError(f"duration {duration} (days) must be above 0")
    flanks = (0.1, 0.25, 0.4) if ingress is None else (guess["ingress"] / duration,)
    data = Curve(time, flux, flux_err, baseline)

    def model(t, p):
        return trapezoid(t, **{**p, "ingress": _flank(p)}, exposure=exposure)

    span = data.span
    limits = {
        "mid_time": (data.first - span, data.last + span, 1e-4),
        "depth": (-0.5, 0.9, 1e-5),
        "duration": (0.02 * span, 3.0 * span, 1e-4),
        "ingress": (1e-3 * span, 1.5 * span, 1e-4),
    }
    widths = (0.6, 1.0, 1.6) if "duration" not in fixed else (1.0,)
    starts = [
        {**guess, "mid_time": t, "duration": w * duration, "ingress": w * flank * duration}
        for w in widths
        for flank in flanks
        for t in _mid_times(mid_time, data, w * duration)
    ]
    starts = _held(starts, guess, fixed)
    return _result(data, model, starts, limits, fixed, _trapezoid_numbers)


def fit_transit(
    time, flux, flux_err, *, period, scaled_axis, impact, limb_darkening, radius_ratio=0.1,
    mid_time=None, free=("mid_time", "radius_ratio"), baseline=None, exposure=0.0,
):  # fmt: skip
    """Fit the limb-darkened transit model times a linear baseline by least squares.

    Parameters
    ----------
    time, flux, flux_err : array_like of float, shape (n,)
        As in `fit_trapezoid`.
    period, scaled_axis, impact, limb_darkening, radius_ratio, mid_time : float
        As in `transit_flux`; first guesses of what is free. Without ``mid_time`` it is searched.
    free : tuple of str, optional
        Names of what is fitted, of ``"mid_time"``, ``"radius_ratio"``, ``"scaled_axis"`` and
        ``"impact"``. The last two hang together and need a good light curve.
    baseline, exposure : optional
        As in `fit_trapezoid`.

    Returns
    -------
    TransitFit
        Values also hold ``scaled_axis`` and ``impact``. The depth is ``radius_ratio**2``.

    Raises
    ------
    ValueError
        As in `fit_trapezoid`.
    """
    guess = {
        "mid_time": mid_time,
        "radius_ratio": float(radius_ratio),
        "scaled_axis": float(scaled_axis),
        "impact": float(impact),
    }
    data = Curve(time, flux, flux_err, baseline)
    period = in_days(period)

    def model(t, p):
        return transit_flux(t, period=period, limb_darkening=limb_darkening, exposure=exposure, **p)

    limits = {
        "mid_time": (data.first - data.span, data.last + data.span, 1e-5),
        "radius_ratio": (0.0, 0.9, 1e-4),
        "scaled_axis": (max(1.05, 0.2 * scaled_axis), 5.0 * scaled_axis, 1e-3),
        "impact": (0.0, min(1.5, 0.2 * scaled_axis), 1e-3),
    }
    unknown = set(free) - set(guess)
    if unknown:
        raise ValueError(f"free: unknown {sorted(unknown)}; valid are {sorted(guess)}")
    fixed = tuple(name for name in guess if name not in free)
    width = transit_duration(
        period=period, radius_ratio=radius_ratio, scaled_axis=scaled_axis, impact=impact
    )
    if not width > 0:
        raise ValueError(
            f"there is no transit with impact {impact} and radius_ratio {radius_ratio}"
        )
    starts = [{**guess, "mid_time": t} for t in _mid_times(mid_time, data, width)]
    starts = _held(starts, guess, fixed)

    def numbers(p):
        long = transit_duration(
            period=period, **{k: p[k] for k in ("radius_ratio", "scaled_axis", "impact")}
        )
        mid = p["mid_time"]
        ratio = p["radius_ratio"]
        return {
            "depth": ratio**2, "duration": long, "start": mid - long / 2, "end": mid + long / 2
        }  # fmt: skip

    return _result(data, model, starts, limits, fixed, numbers)


def _result(curve, model, starts, limits, fixed, numbers):
    """Fit, and return the TransitFit."""
    fit = fit_shape(curve, model, starts=starts, limits=limits, fixed=fixed, numbers=numbers)
    values = fit["values"]
    return TransitFit(
        **fit,
        significant=bool(fit["delta_bic"] > 10 and values["depth"] > 0),
        complete=bool(values["start"] > curve.first and values["end"] < curve.last),
    )


def _trapezoid_numbers(p):
    """Return what follows from the parameters of a trapezoid."""
    half = 0.5 * p["duration"]
    ratio = np.sqrt(p["depth"]) if p["depth"] > 0 else np.nan
    ends = {"start": p["mid_time"] - half, "end": p["mid_time"] + half}
    return ends | {"radius_ratio": ratio, "ingress": _flank(p)}


def _flank(p):
    """Return the ingress as it is drawn: not shorter than that of a planet across the centre."""
    ratio = np.sqrt(max(p["depth"], 1e-6))
    shortest = ratio / (1.0 + ratio) * p["duration"]
    return min(max(p["ingress"], shortest), 0.5 * p["duration"])


def _held(starts, guess, fixed):
    """Return the starts with the guess of what is fixed."""
    for name in fixed:
        if name in guess and guess[name] is None:
            raise ValueError(f"fixed {name} needs its value")
    return [{**start, **{n: guess[n] for n in fixed if n in guess}} for start in starts]


def _mid_times(mid_time, data, width):
    """Return times at which a search starts: near the guess, or all over the night."""
    if mid_time is None:
        count = int(np.clip(4 * data.span / width, 9, 200))
        return np.linspace(data.first, data.last, count)
    far = data.span + 2.0 * width
    if not data.first - far <= mid_time <= data.last + far:
        raise ValueError(
            f"mid_time {mid_time} is far from the times, {data.first:.5f} to {data.last:.5f}: give "
            "both on one scale"
        )
    return mid_time + width * np.array([-0.3, 0.0, 0.3])


def transit_numbers(fit, *, ephemeris=None):
    """Return the numbers of a fitted transit, for a report.

    Parameters
    ----------
    fit : TransitFit
        Result of `fit_trapezoid` or `fit_transit`.
    ephemeris : Ephemeris, optional
        Adds the row ``o_minus_c``, observed minus calculated mid-time, with the error of both.

    Returns
    -------
    astropy.table.Table
        Columns ``quantity``, ``value``, ``error`` (nan for what was held) and ``unit``; rows
        ``mid_time``, ``start``, ``end`` (first and last contact), ``duration``, ``depth_ppt``,
        ``depth_mag`` (``2.5 log10(1 / (1 - depth))``) and ``radius_ratio`` (Rp/R*; for the
        trapezoid ``sqrt(depth)``).

    Examples
    --------
    >>> time = np.linspace(-0.1, 0.1, 201)
    >>> flux = trapezoid(time, mid_time=0.01, depth=0.0105, duration=0.08, ingress=0.01)
    >>> table = transit_numbers(fit_trapezoid(time, flux, np.full(201, 0.001)))
    >>> print(table["quantity"][5], round(float(table["value"][5]), 5), table["unit"][5])
    depth_mag 0.01146 mag
    """
    value, error = fit.values, fit.errors
    depth = value["depth"]
    slope = 2.5 / np.log(10.0) / (1.0 - depth)  # of the magnitude with the depth
    rows = [(name, value[name], error[name], "d") for name in ("mid_time", "start", "end")]
    rows += [
        ("duration", value["duration"], error["duration"], "d"),
        ("depth_ppt", 1e3 * depth, 1e3 * error["depth"], "ppt"),
        ("depth_mag", float(depth_magnitude(depth)), slope * error["depth"], "mag"),
        ("radius_ratio", value["radius_ratio"], error["radius_ratio"], ""),
    ]
    if ephemeris is not None:
        late = ephemeris.observed_minus_calculated(value["mid_time"], error["mid_time"])
        rows.append(("o_minus_c", *late, "min"))
    return Table(rows=rows, names=("quantity", "value", "error", "unit"))
