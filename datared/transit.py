"""Transits of planets: the limb-darkened model, the trapezoid, and their fits.

Times, periods and durations are in days, as plain numbers on one time scale (BJD_TDB for results
that others shall use); `~astropy.units.Quantity` periods and exposures are converted.
"""

import astropy.units as u
import numpy as np
from exoplanet_core import quad_limbdark_light_curve

from datared.curvefit import Curve, TransitFit, fit_shape

__all__ = [
    "TransitFit",
    "depth_magnitude",
    "fit_transit",
    "fit_trapezoid",
    "transit_duration",
    "transit_flux",
    "trapezoid",
]


def _days(value):
    """Return a duration in days as float."""
    return float(value.to_value(u.day)) if isinstance(value, u.Quantity) else float(value)


def _offsets(exposure):
    """Return the midpoints of equal parts of one exposure (days), for averages good to 1e-6."""
    n = max(11, int(np.ceil(exposure * 86400 / 15))) if exposure > 0 else 1
    return exposure * ((np.arange(n) + 0.5) / n - 0.5)


def _separation(time, *, mid_time, period, scaled_axis, impact):
    """Return the sky distance planet to star in stellar radii; infinite behind the star."""
    phase = 2 * np.pi * (np.asarray(time, dtype=float) - mid_time) / period
    across = scaled_axis * np.sin(phase)
    along = impact * np.cos(phase)
    return np.where(np.cos(phase) > 0, np.hypot(across, along), np.inf)


def transit_flux(
    time, *, mid_time, period, radius_ratio, scaled_axis, impact, limb_darkening, exposure=0.0
):
    """Return the relative flux of a star with a transiting planet on a circular orbit.

    Parameters
    ----------
    time : array_like of float, shape (n,)
        Times of mid-exposure in days.
    mid_time : float
        Time of mid-transit in days, on the same scale.
    period : float or Quantity
        Orbital period (days).
    radius_ratio : float
        Radius of the planet in radii of the star, ``Rp/R*``.
    scaled_axis : float
        Semi-major axis in radii of the star, ``a/R*``.
    impact : float
        Sky distance of the planet from the centre of the star at mid-transit, in radii of the
        star: ``b = a/R* cos i``.
    limb_darkening : tuple of 2 floats
        Coefficients (u1, u2) of the quadratic law
        ``I(mu) = 1 - u1 (1 - mu) - u2 (1 - mu)**2``.
    exposure : float or Quantity, optional
        Length of one exposure (days); the flux is averaged over it. 0 takes the instant.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        Flux, 1 out of transit (and while the planet is behind the star).

    Raises
    ------
    ValueError
        When a parameter is outside its physical range.

    Notes
    -----
    Exact quadratic limb darkening of Agol, Luger & Foreman-Mackey (2020, AJ 159, 123), as
    compiled in ``exoplanet_core``.

    Examples
    --------
    >>> flux = transit_flux([-0.2, 0.0], mid_time=0.0, period=2.0, radius_ratio=0.1,
    ...                     scaled_axis=8.0, impact=0.0, limb_darkening=(0.0, 0.0))
    >>> [round(float(value), 6) for value in flux]
    [1.0, 0.99]
    """
    period, exposure = _days(period), _days(exposure)
    _check_orbit(period, radius_ratio, scaled_axis, impact, exposure)
    time = np.atleast_1d(np.asarray(time, dtype=float))
    offsets = _offsets(exposure)
    distance = _separation(
        time[:, None] + offsets,
        mid_time=mid_time,
        period=period,
        scaled_axis=scaled_axis,
        impact=impact,
    )
    distance = np.minimum(distance, 2.0 + radius_ratio)  # infinity would give nan
    dip = quad_limbdark_light_curve(*limb_darkening, distance.ravel(), float(radius_ratio))
    return 1.0 + dip.reshape(distance.shape).mean(axis=1)


def _check_orbit(period, radius_ratio, scaled_axis, impact, exposure):
    """Raise ValueError when a parameter of the orbit is not physical."""
    if not (period > 0 and exposure >= 0):
        raise ValueError(f"period {period} must be > 0 and exposure {exposure} >= 0 (days)")
    if not radius_ratio >= 0:
        raise ValueError(f"radius_ratio {radius_ratio} must be >= 0")
    if not scaled_axis > 1 or not 0 <= impact < scaled_axis:
        raise ValueError(
            f"scaled_axis {scaled_axis} must be > 1 and impact {impact} from 0 to below it"
        )


def transit_duration(*, period, radius_ratio, scaled_axis, impact):
    """Return the time from first to last contact (T14) in days, for a circular orbit.

    Parameters
    ----------
    period : float or Quantity
        Orbital period (days).
    radius_ratio, scaled_axis, impact : float
        As in `transit_flux`.

    Returns
    -------
    float
        ``P/pi arcsin( sqrt((1 + Rp/R*)**2 - b**2) / (a/R* sin i) )`` (Winn 2010, arXiv:1001.2010,
        eq. 14), or 0 when the planet misses the star.

    Examples
    --------
    >>> round(24 * transit_duration(period=2.15, radius_ratio=0.1489, scaled_axis=6.05,
    ...                             impact=0.12), 2)
    3.12
    """
    _check_orbit(_days(period), radius_ratio, scaled_axis, impact, 0.0)
    half_chord = np.sqrt(max((1.0 + radius_ratio) ** 2 - impact**2, 0.0))
    across = np.sqrt(scaled_axis**2 - impact**2)  # a/R* sin i
    return float(_days(period) / np.pi * np.arcsin(min(half_chord / across, 1.0)))


def trapezoid(time, *, mid_time, depth, duration, ingress, exposure=0.0):
    """Return the relative flux of a transit drawn as a trapezoid.

    Parameters
    ----------
    time : array_like of float, shape (n,)
        Times of mid-exposure in days.
    mid_time : float
        Time of mid-transit (days).
    depth : float
        Depth of the flat part in relative flux (0.0105 is 10.5 ppt).
    duration : float or Quantity
        Time from first to last contact, T14 (days).
    ingress : float or Quantity
        Time of the ingress, as long as the egress; at most half of the duration (days).
    exposure : float or Quantity, optional
        Length of one exposure (days), over which the flux is averaged.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        Flux, 1 outside.

    Raises
    ------
    ValueError
        When the ingress is longer than half of the duration, or one of them is not positive.

    Examples
    --------
    >>> flux = trapezoid([0.0, 0.045, 0.1], mid_time=0, depth=0.01, duration=0.1, ingress=0.01)
    >>> [round(float(value), 4) for value in flux]
    [0.99, 0.995, 1.0]
    """
    duration, ingress, exposure = _days(duration), _days(ingress), _days(exposure)
    if not (duration > 0 and 0 < ingress <= 0.5 * duration * (1 + 1e-9)):
        raise ValueError(
            f"duration {duration} and ingress {ingress} (days) must be positive, and the ingress "
            "at most half of the duration"
        )
    time = np.atleast_1d(np.asarray(time, dtype=float))
    offsets = _offsets(exposure)
    inside = 0.5 * duration - np.abs(time[:, None] + offsets - mid_time)
    return 1.0 - depth * np.clip(inside / ingress, 0.0, 1.0).mean(axis=1)


def depth_magnitude(depth):
    """Return the depth of a transit in magnitudes, ``2.5 log10(1 / (1 - depth))``.

    Parameters
    ----------
    depth : float or array_like
        Depth in relative flux, below 1.

    Returns
    -------
    float or numpy.ndarray
        Depth in magnitudes.

    Examples
    --------
    >>> round(float(depth_magnitude(0.0105)), 5)
    0.01146
    """
    return -2.5 * np.log1p(-np.asarray(depth, dtype=float)) / np.log(10.0)


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
        When a name in ``fixed`` is unknown, shapes differ, or there are fewer points than
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
    flanks = (0.1, 0.25, 0.4) if ingress is None else (_days(ingress) / _days(duration),)
    ingress = flanks[0] * _days(duration)
    guess = {
        "mid_time": mid_time,
        "depth": float(depth),
        "duration": _days(duration),
        "ingress": ingress,
    }
    data = Curve(time, flux, flux_err, baseline)

    def model(t, p):
        ratio = np.sqrt(max(p["depth"], 1e-6))
        shortest = ratio / (1.0 + ratio) * p["duration"]  # a planet across the centre
        flank = min(max(p["ingress"], shortest), 0.5 * p["duration"])
        return trapezoid(
            t, mid_time=p["mid_time"], depth=p["depth"], duration=p["duration"], ingress=flank,
            exposure=exposure,
        )  # fmt: skip

    span = data.span
    limits = {
        "mid_time": (data.first - span, data.last + span, 1e-4),
        "depth": (-0.5, 0.9, 1e-5),
        "duration": (0.02 * span, 3.0 * span, 1e-4),
        "ingress": (1e-3 * span, 1.5 * span, 1e-4),
    }
    widths = (0.6, 1.0, 1.6) if "duration" not in fixed else (1.0,)
    starts = [
        {
            **guess,
            "mid_time": t,
            "duration": w * guess["duration"],
            "ingress": w * flank * guess["duration"],
        }
        for w in widths
        for flank in flanks
        for t in _mid_times(mid_time, data, w * guess["duration"])
    ]
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
    period = _days(period)

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
    starts = [{**guess, "mid_time": t} for t in _mid_times(mid_time, data, width)]

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
    return {"start": p["mid_time"] - half, "end": p["mid_time"] + half, "radius_ratio": ratio}


def _mid_times(mid_time, data, width):
    """Return times at which a search starts: near the guess, or all over the night."""
    if mid_time is None:
        count = int(np.clip(4 * data.span / width, 9, 200))
        return np.linspace(data.first, data.last, count)
    return mid_time + width * np.array([-0.3, 0.0, 0.3])
