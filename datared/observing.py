"""A simulated night's work: single exposures with all that belongs to them, and their truth."""

import json
import math
from datetime import timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .disturbances import cosmic_rays, patchy_cloud, satellite_trail, star_trails
from .errors import ConfigError
from .instrument import expose, sky_to_pixel
from .observatory import EXTINCTION, barycentric_time, camera_magnitudes, iso_times
from .render import star_image

__all__ = [
    "empty_folder",
    "record_light",
    "take_calibrations",
    "take_light",
    "truth_table",
    "write_maps",
    "write_truth",
]


def empty_folder(folder):
    """Make the folder of a simulated night.

    Parameters
    ----------
    folder : str or pathlib.Path
        Where the night goes.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ConfigError
        If raw frames of another night would be mixed in.
    """
    folder = Path(folder)
    if (folder / "raw").exists() or (folder / "night.toml").exists():
        raise ConfigError(
            f"{folder} already holds a night: give a folder that does not exist, or remove it first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def take_light(sensor, exposure, *, ra, dec, mag, rng, factor=1.0):
    """Expose on the sky.

    Expected electrons are (sky + stars) x cloud x response + dark current, then charge of
    particles, photon and read noise.

    Parameters
    ----------
    sensor : datared.instrument.Sensor
        The camera.
    exposure : datared.schedule.Exposure
        The conditions.
    ra, dec : array-like of float, shape (n_star,)
        Places in degrees at the time of the exposure.
    mag : array-like of float, shape (n_star,)
        Magnitudes above the atmosphere in the camera's own band.
    rng : numpy.random.Generator
        Source of all randomness of the frame.
    factor : float or array-like of float, shape (n_star,)
        Factor on each star's light, for variables and scintillation.

    Returns
    -------
    counts : numpy.ndarray of uint16
        The raw frame.
    n_cosmic : int
        Number of particles that hit it.
    """
    shape = sensor.shape
    x, y = sky_to_pixel(exposure.wcs(shape), ra, dec)
    zero_point = exposure.zero_point(1.0)
    flux = 10 ** (-0.4 * (np.asarray(mag) - zero_point)) * exposure.exptime * factor
    reach = 20 * exposure.fwhm
    near = (np.abs(x - shape[1] / 2) < shape[1] / 2 + reach) & (
        np.abs(y - shape[0] / 2) < shape[0] / 2 + reach
    )
    light = star_image(shape, x[near], y[near], flux[near], fwhm=exposure.fwhm)
    if exposure.cloudy:
        light *= patchy_cloud(shape, rng=rng, transparency=1.0)
    if exposure.trail:
        peak = 2.0 * exposure.sky * exposure.exptime
        light += satellite_trail(shape, rng=rng, peak=peak, fwhm=1.2 * exposure.fwhm)
    light += exposure.sky * exposure.exptime * _plane(shape, *exposure.sky_slope)
    charge, n_cosmic = cosmic_rays(shape, exptime=exposure.exptime, rng=rng)
    options = {"exptime": exposure.exptime, "filter": exposure.filter, "charge": charge}
    return expose(sensor, light, rng=rng, **options), n_cosmic


def record_light(recorder, exposure, data, *, error):
    """Write a raw light, with a header that is wrong about where the telescope points.

    Parameters
    ----------
    recorder : datared.observatory.Recorder
        Writes the file.
    exposure : datared.schedule.Exposure
        The conditions.
    data : numpy.ndarray of uint16, shape (ny, nx)
        Counts.
    error : tuple of float
        What the mount's place is wrong by, to the east and to the north, in arcminutes; after the
        flip -0.6 times that.

    Returns
    -------
    str
        Path of the file below the raw folder, with ``/``.
    """
    side = -0.6 if exposure.flipped else 1.0
    ra = exposure.ra + side * error[0] / 60 / math.cos(math.radians(exposure.dec))
    return recorder.record(
        data,
        kind="LIGHT",
        start=exposure.start,
        exptime=exposure.exptime,
        filter=exposure.filter,
        pointing=(ra % 360, exposure.dec + side * error[1] / 60),
        airmass=exposure.airmass,
        pier_side="East" if exposure.flipped else "West",
        rotator=exposure.rotation % 180,
    )


def take_calibrations(
    sensor,
    recorder,
    *,
    afternoon,
    dusk,
    n_bias,
    darks,
    n_flat,
    panel_flats,
    twilight_flats,
    rngs,
    illumination=0.0,
):
    """Take bias frames, darks and flats, and write them.

    Parameters
    ----------
    sensor : datared.instrument.Sensor
        The camera.
    recorder : datared.observatory.Recorder
        Writes the files.
    afternoon, dusk : datetime.datetime
        Begin of the bias frames, darks and panel flats, and of the twilight flats, UTC.
    n_bias, n_flat : int
        Number of bias frames, and of flats in each filter.
    darks : dict of float to int
        Number of darks for each exposure time in seconds.
    panel_flats : dict of str to float
        Exposure time in seconds for each filter with flats of a constant lamp (30 000 counts).
    twilight_flats : sequence of str
        Filters with flats of the darkening sky, 40 000 to 12 000 counts, with stars.
    rngs : iterator of numpy.random.Generator
        One for each frame.
    illumination : float
        Wrong light on the flats: relative change over half of the frame along x.
    """
    plan = [("BIAS", 0.0)] * n_bias
    plan += [("DARK", exptime) for exptime, n in darks.items() for _ in range(n)]
    clock = afternoon
    for kind, exptime in plan:
        rng = next(rngs)
        charge, _ = cosmic_rays(sensor.shape, exptime=exptime, rng=rng)
        data = expose(sensor, None, exptime=exptime, rng=rng, charge=charge)
        recorder.record(data, kind=kind, start=clock, exptime=exptime)
        clock += timedelta(seconds=exptime, milliseconds=1437)
    lamp = _plane(sensor.shape, illumination, 0.0)
    for name, exptime in panel_flats.items():
        for number in range(n_flat):
            level = 29_500 * sensor.gain * (1 - 0.004 * number)
            data = expose(sensor, lamp * level, exptime=exptime, rng=next(rngs), filter=name)
            recorder.record(data, kind="FLAT", start=clock, exptime=exptime, filter=name)
            clock += timedelta(seconds=exptime, milliseconds=1437)
    clock = dusk
    for name in twilight_flats:
        place = next(rngs).integers(2**63)
        for number in range(n_flat):
            step = number / max(n_flat - 1, 1)
            level = (40_000 * 0.3**step - 500) * sensor.gain
            stars = star_trails(
                sensor.shape,
                rng=np.random.default_rng(place),
                n=max(4, sensor.bias.size // 17_000),
                flux=1500.0,
                length=25.0,
                shift=(35.0 * number, 22.0 * number),
                fwhm=2.7,
            )
            rng = next(rngs)
            data = expose(sensor, lamp * level + stars, exptime=3.0, rng=rng, filter=name)
            recorder.record(data, kind="FLAT", start=clock, exptime=3.0, filter=name)
            clock += timedelta(seconds=25, milliseconds=211)


def truth_table(exposures, *, files, n_cosmic, gain, place):
    """List what is true of each exposure of the sky.

    Parameters
    ----------
    exposures : list of datared.schedule.Exposure
        The conditions.
    files : list of str
        Paths below the raw folder.
    n_cosmic : list of int
        Numbers of particles.
    gain : float
        Electrons per count.
    place : tuple of float
        Right ascension and declination in degrees for the barycentric times.

    Returns
    -------
    astropy.table.Table
        One row per frame. ``sky`` is in counts of the whole exposure in the middle of the frame,
        ``fwhm`` in pixels, ``extinction`` and ``zero_point`` in magnitudes: a star's counts are
        ``10**(-0.4 * (mag - zero_point)) * exptime``, extinction and transparency included, where
        ``mag`` is its magnitude in the camera's own band.
    """
    half = np.array([e.exptime for e in exposures]) / 2
    table = Table({"file": files, "filter": [e.filter for e in exposures]})
    table["exptime"] = 2 * half
    times = iso_times([e.start for e in exposures], delay=half)
    table["jd_utc_mid"] = times.jd
    table["bjd_tdb_mid"] = barycentric_time(times, ra=place[0], dec=place[1])
    for ours, theirs in (("ra_center", "ra"), ("dec_center", "dec"), ("rotation", "rotation")):
        table[ours] = [getattr(e, theirs) for e in exposures]
    table["flipped"] = [e.flipped for e in exposures]
    table["fwhm"] = [e.fwhm for e in exposures]
    table["sky"] = [e.sky * e.exptime / gain for e in exposures]
    table["zero_point"] = [e.zero_point(gain) for e in exposures]
    table["transparency"] = [e.transparency for e in exposures]
    table["extinction"] = [EXTINCTION[e.filter] * e.airmass for e in exposures]
    for name in ("airmass", "cloudy", "trail"):
        table[name] = [getattr(e, name) for e in exposures]
    table["n_cosmic"] = n_cosmic
    return table


def write_truth(folder, sensor, *, stars, frames, exposures, parameters, epoch):
    """Write what is true of a night.

    Files are ``stars.ecsv``, ``frames.ecsv``, ``defects.fits`` (bits of `datared.pixels`),
    ``bias.fits`` (counts), ``dark_rate.fits`` (e-/s), ``response_<filter>.fits`` (median 1),
    ``wcs/<stem of the raw file>.txt`` (a header with TAN-SIP) and ``parameters.json``.

    Parameters
    ----------
    folder : pathlib.Path
        Where they go.
    sensor : datared.instrument.Sensor
        The camera.
    stars : astropy.table.Table
        The scene, with places at ``epoch``. Written with the magnitudes in the camera's own bands,
        ``g_camera``, ``r_camera``, ``i_camera``, besides those of the survey.
    frames : astropy.table.Table
        From `truth_table`.
    exposures : list of datared.schedule.Exposure
        In the order of ``frames``.
    parameters : dict
        What can be written as JSON; ``colour_terms`` are those of the camera.
    epoch : float
        Julian year of the places in ``stars``.
    """
    (folder / "wcs").mkdir(parents=True, exist_ok=True)
    stars = stars.copy()
    stars.meta["epoch"] = epoch
    for band, value in camera_magnitudes(stars, parameters["colour_terms"]).items():
        stars[band].meta["system"] = "PS1 AB"
        stars[f"{band}_camera"] = value
        stars[f"{band}_camera"].meta["system"] = "camera"
    stars.write(folder / "stars.ecsv", overwrite=True)
    frames.write(folder / "frames.ecsv", overwrite=True)
    write_maps(folder, sensor)
    for file, exposure in zip(frames["file"], exposures, strict=True):
        header = exposure.wcs(sensor.shape).to_header(relax=True)
        stem = file.rsplit("/", 1)[-1].removesuffix(".fits")
        header.totextfile(folder / "wcs" / f"{stem}.txt", overwrite=True)
    text = json.dumps(parameters, indent=2) + "\n"
    (folder / "parameters.json").write_text(text, encoding="utf-8")


def write_maps(folder, sensor):
    """Write the maps of a camera into a folder: the files of `write_truth` that end in ``.fits``.

    Parameters
    ----------
    folder : pathlib.Path
        Where they go.
    sensor : datared.instrument.Sensor
        The camera.
    """
    maps = {"defects": sensor.defects, "bias": sensor.bias, "dark_rate": sensor.dark_rate}
    maps |= {f"response_{name}": value for name, value in sensor.response.items()}
    for name, value in maps.items():
        value = value if value.dtype == np.uint16 else value.astype(np.float32)
        fits.PrimaryHDU(value).writeto(folder / f"{name}.fits", overwrite=True)


def _plane(shape, slope_x, slope_y):
    """Make a plane: 1 in the middle, 1 +- slope at the edges."""
    ny, nx = shape
    x, y = np.linspace(-1, 1, nx)[None, :], np.linspace(-1, 1, ny)[:, None]
    return 1 + slope_x * x + slope_y * y
