"""Transits of planets: the limb-darkened model, the trapezoid, and their numbers.

Times, periods and durations are in days, as plain numbers on one time scale (BJD_TDB for results
that others shall use); `~astropy.units.Quantity` periods and exposures are converted.
"""

import astropy.units as u
import numpy as np
from exoplanet_core import quad_limbdark_light_curve

__all__ = [
    "depth_magnitude",
    "transit_duration",
    "transit_flux",
    "trapezoid",
]


def in_days(value):
    """Return a duration in days as float."""
    return float(value.to_value(u.day)) if isinstance(value, u.Quantity) else float(value)


def exposure_parts(exposure, *, seconds=15, fewest=11, most=200):
    """Return the midpoints of equal parts of one exposure (days), of ``seconds`` or a little less.

    A mean over n parts is wrong by at most the change of the flux in one exposure over 8 n**2, at
    the contacts: 1e-6 for the parts of 15 s. There are at most ``most``, as of almost an hour.
    """
    if not 0 <= exposure < np.inf:
        raise ValueError(f"exposure {exposure} (days) must be 0 or more")
    n = int(np.clip(np.ceil(exposure * 86400 / seconds), fewest, most)) if exposure > 0 else 1
    return exposure * ((np.arange(n) + 0.5) / n - 0.5)


def _separation(time, *, mid_time, period, scaled_axis, impact):
    """Return the distance of planet and star on the sky in stellar radii; infinite behind it."""
    phase = 2 * np.pi * (np.asarray(time, dtype=float) - mid_time) / period
    across = scaled_axis * np.sin(phase)
    along = impact * np.cos(phase)
    return np.where(np.cos(phase) <= 0, np.inf, np.hypot(across, along))


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
        Flux, 1 out of transit (and while the planet is behind the star), nan without a time.

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
    period, exposure = in_days(period), in_days(exposure)
    _check_orbit(period, radius_ratio, scaled_axis, impact, exposure)
    time = np.atleast_1d(np.asarray(time, dtype=float))
    offsets = exposure_parts(exposure)
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
    _check_orbit(in_days(period), radius_ratio, scaled_axis, impact, 0.0)
    half_chord = np.sqrt(max((1.0 + radius_ratio) ** 2 - impact**2, 0.0))
    across = np.sqrt(scaled_axis**2 - impact**2)  # a/R* sin i
    return float(in_days(period) / np.pi * np.arcsin(min(half_chord / across, 1.0)))


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
    duration, ingress, exposure = in_days(duration), in_days(ingress), in_days(exposure)
    if not (duration > 0 and 0 < ingress <= 0.5 * duration * (1 + 1e-9)):
        raise ValueError(
            f"duration {duration} and ingress {ingress} (days) must be positive, and the ingress "
            "at most half of the duration"
        )
    time = np.atleast_1d(np.asarray(time, dtype=float))
    offsets = exposure_parts(exposure)
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
