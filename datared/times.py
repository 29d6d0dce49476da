"""Times and air: the middle of an exposure on the usual clocks, airmass, scintillation.

Everything here works without a network: positions of the Earth come from astropy's built-in
ephemeris, and Earth rotation from the tables that are installed with astropy.
"""

import contextlib
import warnings

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz
from astropy.time import Time
from astropy.utils import iers
from astropy.utils.exceptions import AstropyWarning
from erfa import ErfaWarning

__all__ = ["airmass", "altitude", "bjd_tdb", "mid_exposure", "scintillation"]

SECONDS_PER_DAY = 86400.0


def mid_exposure(start, exposure):
    """Middle of an exposure from its start, both on the same clock.

    Parameters
    ----------
    start : float or array_like of float
        Julian date of the start (days).
    exposure : float or array_like of float
        Exposure time in seconds.

    Returns
    -------
    float or numpy.ndarray of float
        Julian date of the middle: ``start + exposure / 2``.

    Examples
    --------
    >>> round(float(mid_exposure(2460000.5, 60.0) - 2460000.5) * 86400, 3)
    30.0
    """
    return np.asarray(start, float)[()] + np.asarray(exposure, float)[()] / 2 / SECONDS_PER_DAY


def bjd_tdb(jd_utc, position, *, location):
    r"""Barycentric Julian date on the TDB clock, for light that comes from a position.

    .. math:: \mathrm{BJD_{TDB}} = \mathrm{JD_{TDB}} + \hat n \cdot \vec r / c

    with the direction of the source and the place of the observer as seen from the barycentre of
    the Solar System (Eastman, Siverd & Gaudi 2010, PASP 122, 935). The second term is at most
    8.4 minutes; the clock differs from UTC by 69.2 s since 2017.

    Parameters
    ----------
    jd_utc : array_like of float, shape (n,)
        Julian dates of mid-exposure, UTC. NaN stays NaN.
    position : astropy.coordinates.SkyCoord
        Where the light comes from: one position or ``n`` of them. Half a degree makes up to 4 s.
    location : astropy.coordinates.EarthLocation
        The observatory.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        BJD_TDB in days.

    Notes
    -----
    The built-in ephemeris is right to some microseconds in light travel time. Dates for which the
    installed tables know no Earth rotation are computed with UT1 = UTC, which is wrong by less
    than a second in the rotation and by less than 2 microseconds in the result.

    Examples
    --------
    >>> from astropy.coordinates import EarthLocation, SkyCoord
    >>> site = EarthLocation.from_geodetic(13.0 * u.deg, 52.4 * u.deg, 100 * u.m)
    >>> mid = bjd_tdb([2459000.5], SkyCoord(10.0, 20.0, unit="deg"), location=site)
    >>> bool(abs(mid[0] - 2459000.5) < 0.008)
    True
    """
    jd_utc = np.atleast_1d(np.asarray(jd_utc, float))
    known = np.isfinite(jd_utc)
    result = np.full(jd_utc.shape, np.nan)
    if known.any():
        position = position[known] if position.shape else position
        with _offline():
            time = Time(jd_utc[known], format="jd", scale="utc", location=location)
            travel = time.light_travel_time(position, kind="barycentric", ephemeris="builtin")
            result[known] = (time.tdb + travel).jd
    return result


def altitude(jd_utc, position, *, location):
    """Altitude of a position above the horizon, without refraction.

    Parameters
    ----------
    jd_utc : array_like of float, shape (n,)
        Julian dates, UTC. NaN stays NaN.
    position : astropy.coordinates.SkyCoord
        One position or ``n`` of them.
    location : astropy.coordinates.EarthLocation
        The observatory.

    Returns
    -------
    astropy.units.Quantity, shape (n,)
        Altitude in degrees.
    """
    jd_utc = np.atleast_1d(np.asarray(jd_utc, float))
    known = np.isfinite(jd_utc)
    result = np.full(jd_utc.shape, np.nan)
    if known.any():
        position = position[known] if position.shape else position
        with _offline():
            time = Time(jd_utc[known], format="jd", scale="utc")
            frame = AltAz(obstime=time, location=location)
            result[known] = position.transform_to(frame).alt.deg
    return result * u.deg


def airmass(height, *, formula="kasten-young"):
    r"""Airmass at an altitude.

    The plane-parallel ``1 / cos z`` is a good number above 20 degrees. Nearer to the horizon the
    curvature of the Earth counts; the default has it (Kasten & Young 1989, Applied Optics 28,
    4735), with the altitude ``h`` in degrees:

    .. math:: X = 1 / [\sin h + 0.50572 \, (h + 6.07995)^{-1.6364}]

    Parameters
    ----------
    height : astropy.units.Quantity
        Altitude above the horizon, without refraction.
    formula : str
        ``"kasten-young"`` or ``"secant"`` (``1 / cos z``).

    Returns
    -------
    numpy.ndarray of float
        Airmass, NaN below the horizon.

    Raises
    ------
    ValueError
        If the formula is not one of the two.

    Examples
    --------
    >>> round(float(airmass(30 * u.deg, formula="secant")), 3)
    2.0
    >>> round(float(airmass(30 * u.deg)), 3)
    1.994
    """
    degrees = np.asarray(u.Quantity(height).to_value(u.deg), float)
    degrees = np.where(degrees > 0, degrees, np.nan)
    if formula == "secant":
        return 1 / np.sin(np.radians(degrees))
    if formula != "kasten-young":
        raise ValueError(f"formula {formula!r} is not known; say 'kasten-young' or 'secant'")
    return 1 / (np.sin(np.radians(degrees)) + 0.50572 * (degrees + 6.07995) ** -1.6364)


def scintillation(exposure, *, diameter, airmass, height=0.0):
    r"""Relative scatter of a star's flux by the turbulence of the air.

    .. math:: 0.09 \, D^{-2/3} X^{1.75} e^{-h / 8000} / \sqrt{2 t}

    (Young 1967, AJ 72, 747; in practice right to a factor of 1.5.)

    Parameters
    ----------
    exposure : float
        Exposure time ``t`` in seconds.
    diameter : float
        Diameter ``D`` of the telescope in centimetres.
    airmass : float or array_like of float
        Airmass ``X``.
    height : float
        Height ``h`` of the site in metres.

    Returns
    -------
    float or numpy.ndarray of float
        Standard deviation of the relative flux.

    Examples
    --------
    >>> round(float(scintillation(60.0, diameter=35.0, airmass=1.5)) * 1000, 2)
    1.56
    """
    tube = 0.09 * diameter ** (-2 / 3) * np.exp(-height / 8000)
    return tube * np.asarray(airmass, float) ** 1.75 / np.sqrt(2 * exposure)


@contextlib.contextmanager
def _offline():
    """Let astropy neither reach for the network nor stop at dates beyond its tables."""
    with (
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
        warnings.catch_warnings(),
    ):
        # erfa warns of leap seconds that are not yet decided; one second at most, in the future.
        warnings.filterwarnings("ignore", message=".*dubious year.*", category=ErfaWarning)
        # The 50-year mean pole instead of a prediction: below an arcsecond in altitude.
        warnings.filterwarnings("ignore", message=".*polar motions.*", category=AstropyWarning)
        yield
