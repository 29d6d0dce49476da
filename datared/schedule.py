"""The plan of a simulated night: pointings, filters, the mount's flip, seeing, sky and clouds."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from .instrument import frame_wcs
from .observatory import (
    EXTINCTION,
    PIXEL_SCALE,
    ZERO_POINT,
    airmass,
    iso_times,
    sky_level,
)

__all__ = ["CLUSTER_FILTERS", "Exposure", "cluster_exposures", "transit_exposures"]

#: Filters of the cluster night with the exposure times of lights and of lamp flats in seconds; the
#: flats of a filter without lamp flats are taken of the twilight sky.
CLUSTER_FILTERS = {"g": (60.0, 4.0), "r": (30.0, 2.5), "i": (30.0, None)}

#: Wavelengths of the filters in nm: seeing falls with the power 0.2.
WAVELENGTH = {"g": 481.0, "r": 617.0, "i": 752.0}


@dataclass(frozen=True)
class Exposure:
    """Conditions of one exposure of the sky.

    Attributes
    ----------
    start : datetime.datetime
        Begin, UTC.
    exptime : float
        Seconds.
    filter : str
        Filter in the beam.
    ra, dec, rotation : float
        True pointing of the middle of the frame and position angle of its y axis in degrees.
    flipped : bool
        Whether the mount has turned over (after the meridian).
    airmass, fwhm : float
        Airmass; width of the stars in pixels.
    sky : float
        Electrons per second and pixel from the sky.
    sky_slope : tuple of float
        Relative change of the sky over half of the frame along x and y.
    transparency : float
        Share of the light that the air lets through besides the extinction.
    cloudy : bool
        Whether a patchy cloud covers the frame (its mean is ``transparency``).
    trail : bool
        Whether a satellite crosses.
    """

    start: datetime
    exptime: float
    filter: str
    ra: float
    dec: float
    rotation: float
    flipped: bool
    airmass: float
    fwhm: float
    sky: float
    sky_slope: tuple = (0.0, 0.0)
    transparency: float = 1.0
    cloudy: bool = False
    trail: bool = False

    def wcs(self, shape):
        """Sky coordinates of a frame of this shape, as `datared.instrument.frame_wcs`."""
        options = {"ra": self.ra, "dec": self.dec, "rotation": self.rotation}
        return frame_wcs(shape, scale=PIXEL_SCALE, **options)

    def zero_point(self, gain):
        r"""Magnitude of a star that gives one count per second.

        .. math:: Z = Z_\mathrm{e} + 2.5 \log_{10}(T / g) - k X

        Parameters
        ----------
        gain : float
            Electrons per count; 1 gives the zero point of electrons.

        Returns
        -------
        float
            Then the counts of a star are ``10**(-0.4 * (mag - zero_point)) * exptime``.
        """
        outside = ZERO_POINT[self.filter] + 2.5 * np.log10(self.transparency / gain)
        return float(outside - EXTINCTION[self.filter] * self.airmass)


def cluster_exposures(center, *, n_light, flip, rng):
    """Plan the lights of the cluster night.

    Parameters
    ----------
    center : tuple of float
        Right ascension and declination of the cluster in degrees.
    n_light : int
        Number of lights in each filter.
    flip : datetime.datetime
        When the cluster crosses the meridian and the mount turns over, UTC.
    rng : numpy.random.Generator
        Source of dithers, seeing and sky.

    Returns
    -------
    list of Exposure
        In the order of time: g, r, i, g, r, i, ...
    """
    plan = [(n, name) for n in range(n_light) for name in CLUSTER_FILTERS]
    half = len(plan) // 2
    lengths = np.array([CLUSTER_FILTERS[name][0] + 13.0 + rng.uniform(0, 3) for _, name in plan])
    clock = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    clock[half:] += 180.0
    starts = _milliseconds(flip, clock - clock[half] + 90.0)
    exptimes = [CLUSTER_FILTERS[name][0] for _, name in plan]
    air = airmass(iso_times(starts, delay=np.array(exptimes) / 2), ra=center[0], dec=center[1])
    seeing, rotation = rng.uniform(2.25, 2.6), rng.uniform(2.0, 6.0) * rng.choice([-1, 1])
    cloudy, trail = (max(n_light - 2, 0), "r"), (min(1, n_light - 1), "g")
    exposures = []
    for number, (key, start, exptime) in enumerate(zip(plan, starts, exptimes, strict=True)):
        name, flipped = key[1], number >= half
        dither = rng.uniform(-20, 20, 2) * PIXEL_SCALE / 3600
        moon = 0.9 - 0.3 * number / len(plan)
        transparency = 1 - abs(rng.normal(0, 0.015))
        sky = sky_level(name, airmass=air[number], moon=moon)
        if key == cloudy:
            # Nothing but the brightest star comes through; the moon lights the cloud.
            transparency, sky = 0.001, 4 * sky
        fwhm = seeing * air[number] ** 0.6 * (WAVELENGTH[name] / 617.0) ** -0.2
        slope = 0.04 if not flipped else -0.04
        exposures.append(
            Exposure(
                start=start,
                exptime=exptime,
                filter=name,
                ra=center[0] + dither[0] / np.cos(np.radians(center[1])),
                dec=center[1] + dither[1],
                rotation=rotation + rng.normal(0, 0.02) + (180.0 if flipped else 0.0),
                flipped=flipped,
                airmass=float(air[number]),
                fwhm=float(np.clip(fwhm * rng.normal(1.0, 0.05), 2.2, 3.2)),
                sky=float(sky),
                sky_slope=(slope, -0.6 * slope),
                transparency=float(transparency),
                cloudy=key == cloudy,
                trail=key == trail,
            )
        )
    return exposures


def transit_exposures(center, shape, *, n_light, flip, rng):
    """Plan the lights of the transit night.

    Parameters
    ----------
    center : tuple of float
        Right ascension and declination of the middle of the field in degrees.
    shape : tuple of int
        Shape of the frames, ``(ny, nx)``.
    n_light : int
        Number of lights, spread over three hours.
    flip : datetime.datetime
        When the field crosses the meridian and the mount turns over, UTC.
    rng : numpy.random.Generator
        Source of drift, seeing and transparency.

    Returns
    -------
    list of Exposure
        In the order of time. The clouds of the few dimmed frames have no pattern.
    """
    number = np.arange(n_light)
    first = n_light // 3
    # Three hours, whatever the number of frames, so that the transit always has room.
    clock = (
        number * max(10_800.0 / n_light, 65.0)
        + np.where(number >= first, 240.0, 0.0)
        + rng.uniform(0, 2, n_light)
    )
    starts = _milliseconds(flip, clock - clock[min(first, n_light - 1)] + 120.0)
    air = airmass(iso_times(starts, delay=30.0), ra=center[0], dec=center[1])
    share = number / max(n_light - 1, 1)
    # The polar axis is off: stars drift by 30 px in the night; the flip adds a jump.
    direction = rng.uniform(-0.5, 0.5)
    drift = 30.0 * share[:, None] * [np.cos(direction), np.sin(direction)]
    drift = drift - drift.mean(axis=0) + rng.normal(0, 0.35, (n_light, 2))
    drift[number >= first] += [7.0, -11.0]
    waves = 0.015 * np.sin(2 * np.pi * (2.3 * share + rng.random()))
    transparency = 0.99 - 0.10 * share + waves - 0.015
    begin = round(0.15 * n_light)
    dip = np.array([0.22, 0.33, 0.40, 0.36, 0.29, 0.2])
    cloud = np.zeros(n_light)
    cloud[begin : begin + dip.size] = dip[: max(0, min(dip.size, n_light - begin))]
    seeing = rng.uniform(2.65, 2.8) * (1 + 0.06 * np.sin(5 * share + 6 * rng.random()))
    rotation = rng.uniform(2.0, 6.0) * rng.choice([-1, 1])
    exposures = []
    for n in range(n_light):
        flipped = bool(n >= first)
        turn = rotation + (180.0 if flipped else 0.0)
        wcs = frame_wcs(shape, ra=center[0], dec=center[1], scale=PIXEL_SCALE, rotation=turn)
        middle = np.array([shape[1] - 1, shape[0] - 1]) / 2 + drift[n]
        ra, dec = wcs.all_pix2world(*middle, 0)
        fwhm = seeing[n] * air[n] ** 0.6 * rng.normal(1.0, 0.02)
        sky = sky_level("r", airmass=air[n]) * (1 + 2.0 * cloud[n])
        slope = -0.015 if flipped else 0.015
        exposures.append(
            Exposure(
                start=starts[n],
                exptime=60.0,
                filter="r",
                ra=float(ra),
                dec=float(dec),
                rotation=turn,
                flipped=flipped,
                airmass=float(air[n]),
                fwhm=float(np.clip(fwhm, 2.5, 3.3)),
                sky=float(sky),
                sky_slope=(slope, slope),
                transparency=float(transparency[n] * (1 - cloud[n])),
            )
        )
    return exposures


def _milliseconds(start, seconds):
    """Give times after a start, cut to the milliseconds that a header can hold."""
    return [start + timedelta(milliseconds=round(1000 * float(s))) for s in seconds]
