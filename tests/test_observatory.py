"""The simulated observatory: airmass, clock, sky and the files of its camera."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from astropy.io import fits

from datared.observatory import (
    LATITUDE,
    PIXEL_SCALE,
    SKY_BRIGHTNESS,
    ZERO_POINT,
    Recorder,
    airmass,
    barycentric_time,
    iso_times,
    meridian_ra,
    sky_level,
)

START = datetime(2024, 10, 3, 22, 0, 0, 250000)


def test_airmass_is_least_on_the_meridian():
    """On the meridian it is 1 / cos(latitude - declination), and it grows to both sides."""
    hours = [START + timedelta(hours=h) for h in (-2, 0, 2)]
    air = airmass(iso_times(hours), ra=meridian_ra(START), dec=10.0)
    # Precession since J2000 moves the star by 0.3 deg along and 0.13 deg across the meridian.
    assert air[1] == pytest.approx(1 / np.cos(np.radians(LATITUDE - 10.0)), rel=0.003)
    assert air[0] > air[1] + 0.05
    assert air[2] > air[1] + 0.05


def test_barycentric_time_differs_by_light_time_and_leap_seconds():
    """TDB - UTC is 69.184 s in 2024; light needs at most 8.4 minutes more or less."""
    times = iso_times([START], delay=30.0)
    assert times.jd[0] == pytest.approx(2460587.416666667 + 30.25 / 86400, abs=1e-8)
    along = barycentric_time(times, ra=10.0, dec=4.0)  # opposite to the Sun
    away = barycentric_time(times, ra=190.0, dec=-4.0)
    assert (along - times.jd)[0] * 1440 == pytest.approx(69.184 / 60 + 8.3, abs=0.1)
    assert ((along + away) / 2 - times.jd)[0] * 86400 == pytest.approx(69.184, abs=0.1)


def test_sky_level_is_the_brightness_of_the_sky():
    """A pixel of the zenith gets the light of its area at the dark sky's brightness."""
    for name in "gri":
        per_arcsec = sky_level(name, airmass=1.0) / PIXEL_SCALE**2
        assert ZERO_POINT[name] - 2.5 * np.log10(per_arcsec) == pytest.approx(SKY_BRIGHTNESS[name])
    assert sky_level("r", airmass=2.0) > sky_level("r", airmass=1.0)


def test_recorder_writes_the_dialect_of_nina(tmp_path):
    """A light has the cards of N.I.N.A. and no sky coordinates; a bias says nothing of the sky."""
    recorder = Recorder(tmp_path, "DR 1", 10.5, -5.25, np.random.default_rng(1))
    data = np.full((4, 6), 40000, np.uint16)
    options = {"start": START, "exptime": 60.0}
    name = recorder.record(data, kind="LIGHT", filter="g", pointing=(10.52, -5.24), **options)
    with fits.open(tmp_path / name) as hdus:
        header = hdus[0].header
        assert hdus[0].data.dtype == np.uint16
        assert np.array_equal(hdus[0].data, data)
    assert header["IMAGETYP"] == "LIGHT"
    assert header["DATE-OBS"] == "2024-10-03T22:00:00.250"
    assert header["DATE-LOC"] == "2024-10-04T00:00:00.250"
    assert (header["GAIN"], header["OFFSET"]) == (30, 10)
    assert header["EXPTIME"] == header["EXPOSURE"] == 60.0
    assert header["OBJCTRA"] == "00 42 00"
    assert header["OBJCTDEC"] == "-05 15 00"
    assert header["SWCREATE"].startswith("N.I.N.A.")
    assert not any(key.startswith(("CRVAL", "CTYPE", "DATE-END", "DATE    ")) for key in header)
    bias = recorder.record(data, kind="BIAS", start=START, exptime=0.0)
    assert "RA" not in fits.getheader(tmp_path / bias)
    assert bias.startswith("BIAS/")
    assert recorder.record(data, kind="BIAS", **options) != bias
