"""A simulated observatory: its place, its sky, its clock, and the files that its camera writes."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz, Angle, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers

__all__ = [
    "APERTURE",
    "COLOUR_TERM",
    "EXTINCTION",
    "FOCAL_LENGTH",
    "HEIGHT",
    "LATITUDE",
    "LONGITUDE",
    "PIXEL_SCALE",
    "PIXEL_SIZE",
    "SKY_BRIGHTNESS",
    "ZERO_POINT",
    "Recorder",
    "airmass",
    "barycentric_time",
    "camera_magnitudes",
    "iso_times",
    "meridian_ra",
    "site_location",
    "sky_level",
]

#: Place of the observatory: degrees, degrees east, metres. A dry mountain in the south of Spain.
LATITUDE, LONGITUDE, HEIGHT = 37.2236, -2.5461, 2168.0

#: Diameter of the telescope in metres.
APERTURE = 0.35

#: True scale in arcseconds per pixel; the header's FOCALLEN (mm) and XPIXSZ (um, binned 2 x 2)
#: give it only to 0.3 %, as on a real telescope.
PIXEL_SCALE, FOCAL_LENGTH, PIXEL_SIZE = 1.214, 1282.0, 7.52

#: Magnitude (PS1 AB) of a star above the atmosphere that gives one electron per second.
ZERO_POINT = {"g": 21.75, "r": 21.60, "i": 21.15}

#: Extinction in magnitudes per airmass.
EXTINCTION = {"g": 0.19, "r": 0.11, "i": 0.07}

#: Colour term of each filter: its passband is not that of the survey, so a star of colour g - i is
#: brighter by this many magnitudes per magnitude of colour (negative: fainter) in the camera than
#: the survey says. The cluster night has them, the transit night does not.
COLOUR_TERM = {"g": 0.035, "r": -0.012, "i": -0.024}

#: Magnitude of a square arcsecond of dark sky at the zenith.
SKY_BRIGHTNESS = {"g": 21.6, "r": 20.8, "i": 20.0}

#: Local time minus UTC in hours (summer time) for the header's DATE-LOC.
LOCAL_OFFSET = 2

SOFTWARE = "N.I.N.A. 3.1.2.9001 (x64)"


def site_location():
    """Give the place of the observatory as an `astropy.coordinates.EarthLocation`."""
    return EarthLocation.from_geodetic(LONGITUDE * u.deg, LATITUDE * u.deg, HEIGHT * u.m)


def iso_times(starts, *, delay=0.0):
    """Turn starts of exposures into times at the observatory.

    Parameters
    ----------
    starts : sequence of datetime.datetime
        UTC.
    delay : float or array-like of float
        Seconds to add, for example half of the exposure.

    Returns
    -------
    astropy.time.Time
        Scale UTC, with the observatory's place.
    """
    times = Time([s.isoformat() for s in starts], scale="utc", location=site_location())
    return times + np.asarray(delay) * u.s


def airmass(times, *, ra, dec):
    """Airmass of a place on the sky, 1 / cos(zenith distance), without refraction.

    Parameters
    ----------
    times : astropy.time.Time
        Times at the observatory.
    ra, dec : float
        Degrees.

    Returns
    -------
    numpy.ndarray of float
        One for each time.

    Examples
    --------
    >>> from datetime import datetime
    >>> times = iso_times([datetime(2024, 9, 12, 21)])
    >>> ra = meridian_ra(datetime(2024, 9, 12, 21))
    >>> float(airmass(times, ra=ra, dec=LATITUDE)[0]) < 1.001
    True
    """
    # The tables within astropy: no network, and the same numbers everywhere.
    with iers.earth_orientation_table.set(iers.IERS_B.open()):
        place = SkyCoord(ra * u.deg, dec * u.deg).transform_to(
            AltAz(obstime=times, location=site_location())
        )
    return 1 / np.sin(place.alt.rad)


def meridian_ra(start):
    """Right ascension in degrees that is on the observatory's meridian at a UTC time."""
    with iers.earth_orientation_table.set(iers.IERS_B.open()):
        return float(iso_times([start]).sidereal_time("mean")[0].deg)


def barycentric_time(times, *, ra, dec):
    """Give BJD_TDB (days) of a place on the sky (degrees) for times at the observatory."""
    with iers.earth_orientation_table.set(iers.IERS_B.open()):
        delay = times.light_travel_time(SkyCoord(ra * u.deg, dec * u.deg), ephemeris="builtin")
        return (times.tdb + delay).jd


def camera_magnitudes(stars, colour_terms):
    r"""Give the magnitudes of stars in the camera's own passbands.

    .. math:: m_\mathrm{camera} = m - c\,(g - i)

    so that ``m = -2.5 log10(counts / exptime) + zero point + c (g - i)``.

    Parameters
    ----------
    stars : astropy.table.Table
        Columns ``g``, ``r``, ``i`` in magnitudes.
    colour_terms : dict of str to float
        Colour term c of each filter, as `COLOUR_TERM`; a filter that is not named has none.

    Returns
    -------
    dict of str to numpy.ndarray of float
        Magnitudes of each of the three filters.

    Examples
    --------
    >>> red = {"g": [16.0], "r": [15.3], "i": [15.0]}
    >>> float(camera_magnitudes(red, {"g": 0.035})["g"][0])
    15.965
    """
    colour = np.asarray(stars["g"]) - np.asarray(stars["i"])
    return {band: np.asarray(stars[band]) - colour_terms.get(band, 0.0) * colour for band in "gri"}


def sky_level(filter, *, airmass, moon=0.0):
    """Electrons per second and pixel from the sky.

    Parameters
    ----------
    filter : str
        ``"g"``, ``"r"`` or ``"i"``.
    airmass : float
        The sky brightens towards the horizon as its power 0.6.
    moon : float
        Moonlight in units of the dark sky in r; it is bluer than the sky.

    Returns
    -------
    float
        Electrons per second for a pixel of response 1.
    """
    dark = 10 ** (-0.4 * (SKY_BRIGHTNESS[filter] - ZERO_POINT[filter])) * PIXEL_SCALE**2
    blue = {"g": 1.6, "r": 1.0, "i": 0.6}[filter]
    return dark * (airmass**0.6 + blue * moon)


@dataclass
class Recorder:
    """Writes frames as the capture program N.I.N.A. does.

    Attributes
    ----------
    folder : pathlib.Path
        Where the folders BIAS, DARK, FLAT and LIGHT are made.
    object_name : str
        Name of what is observed.
    ra, dec : float
        Its place in degrees, as the observer typed it.
    rng : numpy.random.Generator
        Source of the small changes of the sensor's temperature.
    counts : dict
        Number of frames written, by kind and filter.
    setpoint : float
        Temperature in degrees Celsius to which the sensor is cooled.
    label : str
        What a frame without a pointing shows, such as ``"dome flat"``; nothing by default.
    """

    folder: Path
    object_name: str
    ra: float
    dec: float
    rng: np.random.Generator
    counts: dict = field(default_factory=dict)
    setpoint: float = -10.0
    label: str = ""

    def record(
        self,
        data,
        *,
        kind,
        start,
        exptime,
        filter=None,
        pointing=None,
        airmass=1.0,
        pier_side="West",
        rotator=0.0,
    ):
        """Write one raw frame.

        Parameters
        ----------
        data : numpy.ndarray of uint16, shape (ny, nx)
            Counts.
        kind : str
            ``"BIAS"``, ``"DARK"``, ``"FLAT"`` or ``"LIGHT"``.
        start : datetime.datetime
            Begin of the exposure, UTC.
        exptime : float
            Seconds.
        filter : str, optional
            Filter in the beam.
        pointing : tuple of float, optional
            What the mount believes: right ascension and declination in degrees. Without it the
            header says nothing about telescope, object and the next three.
        airmass : float
            Airmass in the middle of the exposure.
        pier_side : str
            ``"West"`` (telescope looks east) or ``"East"``.
        rotator : float
            Angle of the camera in degrees.

        Returns
        -------
        str
            Path of the file below the raw folder, with ``/``.
        """
        number = self.counts.get((kind, filter, exptime), 0)
        self.counts[kind, filter, exptime] = number + 1
        temperature = self.setpoint + round(float(self.rng.normal(0, 0.06)), 1)
        cards = _camera_cards(kind, start, exptime, temperature, self.setpoint)
        if filter is not None:
            cards["FILTER"] = (filter, "Active filter name")
            cards["FWHEEL"] = ("ZWO EFW", "Filter wheel name")
        if pointing is not None:
            cards.update(self._pointing_cards(pointing, airmass, pier_side, rotator))
        elif self.label:
            cards["OBJECT"] = (self.label, "Name of the object of interest")
        header = fits.Header()
        for key, (value, comment) in cards.items():
            header[key] = (value, comment)
        stamp = f"{start + timedelta(hours=LOCAL_OFFSET):%Y-%m-%d_%H-%M-%S}"
        words = [stamp, filter, f"{temperature:.2f}", f"{exptime:.2f}s", f"{number:04d}"]
        path = self.folder / kind / ("_".join(w for w in words if w) + ".fits")
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.PrimaryHDU(data, header).writeto(path)
        return path.relative_to(self.folder).as_posix()

    def _pointing_cards(self, pointing, airmass, pier_side, rotator):
        """Cards about the telescope and the object."""
        ra = Angle(self.ra, u.deg).to_string(u.hour, sep=" ", pad=True, precision=0)
        dec = Angle(self.dec, u.deg).to_string(u.deg, sep=" ", pad=True, precision=0)
        return {
            "TELESCOP": ("35 cm f/3.7 Newton", "Name of telescope"),
            "FOCALLEN": (FOCAL_LENGTH, "[mm] Focal length"),
            "RA": (round(pointing[0], 7), "[deg] RA of telescope"),
            "DEC": (round(pointing[1], 7), "[deg] Declination of telescope"),
            "AIRMASS": (round(float(airmass), 5), "Airmass at frame center"),
            "PIERSIDE": (pier_side, "Telescope pointing state"),
            "SITEELEV": (HEIGHT, "[m] Observation site elevation"),
            "SITELAT": (LATITUDE, "[deg] Observation site latitude"),
            "SITELONG": (LONGITUDE, "[deg] Observation site longitude"),
            "ROTATOR": (round(rotator, 2), "[deg] Mechanical rotator angle"),
            "OBJECT": (self.object_name, "Name of the object of interest"),
            "OBJCTRA": (ra, "[H M S] RA of imaged object"),
            "OBJCTDEC": ("+" + dec if self.dec >= 0 else dec, "[D M S] Dec of imaged object"),
        }


def _camera_cards(kind, start, exptime, temperature, setpoint):
    """Cards that every frame has."""
    local = start + timedelta(hours=LOCAL_OFFSET)
    return {
        "IMAGETYP": (kind, "Type of exposure"),
        "EXPOSURE": (exptime, "[s] Exposure duration"),
        "EXPTIME": (exptime, "[s] Exposure duration"),
        "DATE-LOC": (_stamp(local), "Time of observation (local)"),
        "DATE-OBS": (_stamp(start), "Time of observation (UTC)"),
        "XBINNING": (2, "X axis binning factor"),
        "YBINNING": (2, "Y axis binning factor"),
        "GAIN": (30, "Sensor gain"),
        "OFFSET": (10, "Sensor gain offset"),
        "XPIXSZ": (PIXEL_SIZE, "[um] Pixel X axis size"),
        "YPIXSZ": (PIXEL_SIZE, "[um] Pixel Y axis size"),
        "INSTRUME": ("ZWO ASI2600MM Pro", "Imaging instrument name"),
        "SET-TEMP": (setpoint, "[degC] CCD temperature setpoint"),
        "CCD-TEMP": (round(temperature, 1), "[degC] CCD temperature"),
        "READOUTM": ("Default", "Sensor readout mode"),
        "EQUINOX": (2000.0, "Equinox of celestial coordinate system"),
        "SWCREATE": (SOFTWARE, "Software that created this file"),
    }


def _stamp(time):
    """ISO time with milliseconds."""
    return time.isoformat(timespec="milliseconds")
