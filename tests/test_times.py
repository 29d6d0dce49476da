"""Times: mid-exposure, the barycentre, airmass, all without a network."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers

from datared.times import airmass, altitude, bjd_tdb, mid_exposure, scintillation

SITE = EarthLocation.from_geodetic(lon=-121.6429 * u.deg, lat=37.3414 * u.deg, height=1283 * u.m)
STAR = SkyCoord(31.04276, 46.68785, unit="deg")


def seconds(days):
    """Days as seconds."""
    return np.asarray(days) * 86400


def test_bjd_equals_astropy_to_a_twentieth_of_a_second():
    """A night of mid times is what astropy gives one by one; two years, both sides of the Sun."""
    jd = np.concatenate([2458107.6 + np.linspace(0, 0.3, 7), 2458290.6 + np.linspace(0, 0.3, 7)])
    direct = []
    with iers.conf.set_temp("auto_download", False):
        for day in jd:
            time = Time(day, format="jd", scale="utc", location=SITE)
            direct.append((time.tdb + time.light_travel_time(STAR, "barycentric")).jd)
    result = bjd_tdb(jd, STAR, location=SITE)
    assert np.all(np.abs(seconds(result - direct)) < 0.05)
    # The travel time has both signs over a year and stays within 8.4 minutes; TDB is UTC + 69.2 s.
    travel = seconds(result - jd) - 69.184
    assert travel.min() < -60 < 60 < travel.max()
    assert np.all(np.abs(travel) < 8.4 * 60)


def test_bjd_against_an_independent_number():
    """BJD_TDB of the J2000 Sun-ward direction: the Earth is near perihelion, 0.983 au away."""
    jd = 2451545.0
    sun = SkyCoord(281.29, -23.03, unit="deg")  # the Sun on 2000 January 1.5 (Astronomical Almanac)
    travel = seconds(bjd_tdb([jd], sun, location=SITE)[0] - jd) - 64.184
    # Barycentre and Sun differ by up to 2.5 light seconds times a solar radius; the place on Earth
    # by 0.02 s.
    assert travel == pytest.approx(-0.9833 * 499.005, abs=4)


def test_e40_middle_of_the_exposure_counts():
    """The middle is the start plus half the exposure, for one frame and for many."""
    start = np.array([2460000.5, 2460000.6])
    assert np.allclose(seconds(mid_exposure(start, 60.0) - start), 30.0, atol=1e-4)
    assert np.allclose(seconds(mid_exposure(start, [10.0, 200.0]) - start), [5, 100], atol=1e-4)


def test_missing_time_stays_missing():
    """A frame without a time gets no time, and the others keep theirs."""
    result = bjd_tdb([2458107.6, np.nan, 2458107.7], STAR, location=SITE)
    assert list(np.isfinite(result)) == [True, False, True]
    assert list(np.isfinite(altitude([np.nan, 2458107.7], STAR, location=SITE))) == [False, True]


def test_far_dates_need_no_network():
    """A date beyond the installed tables of Earth rotation is computed, without a warning."""
    assert np.isfinite(bjd_tdb([2466000.5], STAR, location=SITE)).all()
    assert np.isfinite(altitude([2466000.5], STAR, location=SITE)).all()


def test_positions_of_every_frame():
    """One position for each time gives the same as one by one."""
    jd = np.array([2458107.6, 2458107.7])
    many = SkyCoord([31.0, 32.0], [46.0, 47.0], unit="deg")
    single = [bjd_tdb(jd[k : k + 1], many[k], location=SITE)[0] for k in range(2)]
    assert np.array_equal(bjd_tdb(jd, many, location=SITE), single)


def test_airmass_golden_numbers():
    """F16: at a zenith distance of 60 degrees the secant is 2; the better formula is near it."""
    assert airmass(30 * u.deg, formula="secant") == pytest.approx(2, abs=1e-12)
    assert airmass(90 * u.deg) == pytest.approx(1, abs=1e-3)
    # Kasten & Young 1989, table: 38 airmasses at the horizon, 10.3 at 5 degrees.
    assert airmass(1e-9 * u.deg) == pytest.approx(37.92, abs=0.05)
    assert airmass(5 * u.deg) == pytest.approx(10.31, abs=0.05)
    assert np.isnan(airmass(-1 * u.deg))
    with pytest.raises(ValueError, match="secant"):
        airmass(30 * u.deg, formula="young")


def test_altitude_equals_astropy():
    """The altitude of a night in one call equals astropy's, frame by frame."""
    jd = 2458107.6 + np.linspace(0, 0.4, 5)
    with iers.conf.set_temp("auto_download", False):
        direct = [
            STAR.transform_to(AltAz(obstime=Time(day, format="jd"), location=SITE)).alt.deg
            for day in jd
        ]
    assert np.allclose(altitude(jd, STAR, location=SITE).to_value("deg"), direct, atol=1e-6)


def test_scintillation_falls_with_time_and_grows_with_airmass():
    """Four times the time halves it; airmass 2 raises it by 2^1.75."""
    once = scintillation(60.0, diameter=35, airmass=1.0)
    assert scintillation(240.0, diameter=35, airmass=1.0) == pytest.approx(once / 2)
    assert scintillation(60.0, diameter=35, airmass=2.0) == pytest.approx(once * 2**1.75)
