"""Two simulated nights with known truth: a star cluster in g, r, i, and a transit in r."""

import math
from datetime import datetime, timedelta

import numpy as np
from astropy.table import vstack
from astropy.time import Time

from .events import light_curves, make_planet, moving_object, published_planet, transit_stars
from .instrument import make_sensor
from .observatory import (
    APERTURE,
    COLOUR_TERM,
    EXTINCTION,
    HEIGHT,
    LATITUDE,
    LONGITUDE,
    PIXEL_SCALE,
    Recorder,
    camera_magnitudes,
    meridian_ra,
)
from .observing import (
    empty_folder,
    record_light,
    take_calibrations,
    take_light,
    truth_table,
    write_truth,
)
from .scene import (
    cluster_stars,
    contamination,
    field_stars,
    positions_at,
    special_star,
    survey_catalogue,
)
from .schedule import CLUSTER_FILTERS, cluster_exposures, transit_exposures
from .settings import write_night
from .times import scintillation

__all__ = ["simulate_cluster", "simulate_transit"]


def simulate_cluster(
    folder,
    *,
    seed=1,
    shape=(680, 1000),
    n_bias=9,
    n_dark=9,
    n_flat=8,
    n_light=5,
    members=300,
    field=400,
    age=None,
    metallicity=None,
    distance=None,
    a_v=None,
):
    """Write a night on an open cluster: raw frames, truth, reference catalogue, night file.

    Lights alternate between the filters, dithered by up to 20 pixels; the mount flips in the
    middle. One r frame (in the last set but one) is behind a thick, patchy cloud, one g frame has a
    satellite trail, one star saturates. The flats in i are of the twilight sky, with stars. The
    camera's filters are not quite the survey's: see `datared.observatory.COLOUR_TERM`.

    Parameters
    ----------
    folder : str or pathlib.Path
        Where ``raw/``, ``truth/``, ``catalogue.ecsv`` and ``night.toml`` go.
    seed : int
        Another seed gives another cluster, camera and weather; the same seed the same bytes.
    shape : tuple of int
        Shape of the frames, ``(ny, nx)``.
    n_bias, n_dark, n_flat, n_light : int
        Number of bias frames, of darks at each of two exposure times, of flats in each filter and
        of lights in each filter.
    members, field : int
        Number of stars of the cluster and of the field within about the frame.
    age, metallicity, distance, a_v : float, optional
        Age (Gyr), [Fe/H], distance (pc) and extinction (mag) of the cluster; drawn from the seed
        where not given (0.8 to 1.3 Gyr, -0.15 to 0.15, 2300 to 3000 pc, 0.15 to 0.6).

    Returns
    -------
    pathlib.Path
        The night file.

    Raises
    ------
    ConfigError
        If the folder already holds raw frames.
    """
    folder = empty_folder(folder)
    streams, rngs = _streams(seed)
    rng = streams[0]
    drawn = (rng.uniform(0.8, 1.3), rng.uniform(-0.15, 0.15), rng.uniform(2300, 3000))
    drawn = (*drawn, rng.uniform(0.15, 0.6))
    names = ("age", "metallicity", "distance", "a_v")
    given = (age, metallicity, distance, a_v)
    cluster = {
        name: round(value, 3) if wish is None else wish
        for name, value, wish in zip(names, drawn, given, strict=True)
    }

    flip = datetime(2024, 9, 12, 20, 50) + timedelta(seconds=round(rng.uniform(-1500, 1500)))
    center = (meridian_ra(flip), rng.uniform(8.0, 25.0))
    epoch = Time(flip).jyear
    box = (1.4 * shape[1] * PIXEL_SCALE / 3600, 1.4 * shape[0] * PIXEL_SCALE / 3600)
    area = {"center": center, "box": box, "bright_limit": {"g": 12.9, "r": 12.3}}
    east, north = 0.2 * box[0] / math.cos(math.radians(center[1])), -0.17 * box[1]
    bright = special_star(ra=center[0] + east, dec=center[1] + north, r=9.6, kind="saturated")
    stars = cluster_stars(streams[1], members, **cluster, **area)
    stars = _numbered(vstack([stars, field_stars(streams[1], 2 * field, **area), bright]))
    catalogue = survey_catalogue(stars, rng=streams[2])
    stars["ra"], stars["dec"] = positions_at(stars, epoch)
    camera = camera_magnitudes(stars, COLOUR_TERM)

    sensor = make_sensor(shape, filters=list(CLUSTER_FILTERS), seed=streams[3])
    recorder = Recorder(folder / "raw", f"DR {seed}", *center, streams[4])
    exposures = cluster_exposures(center, n_light=n_light, flip=flip, rng=streams[5])
    take_calibrations(
        sensor,
        recorder,
        afternoon=datetime(2024, 9, 12, 16, 2, 11, 318000),
        dusk=datetime(2024, 9, 12, 18, 38, 4, 907000),
        n_bias=n_bias,
        darks={30.0: n_dark, 60.0: n_dark},
        n_flat=n_flat,
        panel_flats={name: t for name, (_, t) in CLUSTER_FILTERS.items() if t},
        twilight_flats=[name for name, (_, t) in CLUSTER_FILTERS.items() if not t],
        rngs=rngs,
    )
    files, n_cosmic = [], []
    for exposure in exposures:
        mag = camera[exposure.filter]
        data, hits = take_light(
            sensor, exposure, ra=stars["ra"], dec=stars["dec"], mag=mag, rng=next(rngs)
        )
        files.append(record_light(recorder, exposure, data, error=(0.9, -1.1)))
        n_cosmic.append(hits)
    frames = truth_table(exposures, files=files, n_cosmic=n_cosmic, gain=sensor.gain, place=center)
    parameters = {"seed": seed, "object": recorder.object_name, "center": list(center), **cluster}
    parameters |= {"distance_modulus": 5 * math.log10(cluster["distance"]) - 5, "epoch": epoch}
    write_truth(
        folder / "truth",
        sensor,
        stars=stars,
        frames=frames,
        exposures=exposures,
        parameters=parameters | _camera_parameters(sensor, COLOUR_TERM),
        epoch=epoch,
    )
    catalogue.write(folder / "catalogue.ecsv")
    return _night_file(folder, sensor, name=f"cluster {seed}", object_name=recorder.object_name)


def simulate_transit(
    folder,
    *,
    seed=1,
    shape=(430, 640),
    n_bias=9,
    n_dark=9,
    n_flat=8,
    n_light=120,
    field=130,
    depth=0.0105,
    flat_slope=0.012,
):
    """Write a night on a transiting planet: raw frames, truth, reference catalogue, night file.

    Frames of 60 s in r, one each 90 s (fewer frames have longer pauses). The mount flips after a
    third of them, twenty minutes before the transit; the flats are lit unevenly, so the flip makes
    a step in the light curve. The stars drift by 30 pixels; a cloud takes 20 to 40 % of the light
    of six frames. Stars in the truth have a ``kind``: ``target``, ``comparison``, ``saturated``,
    ``variable``, ``edge`` (leaves the frame), ``field``.

    Parameters
    ----------
    folder, seed, shape, n_bias, n_dark, n_flat, n_light, field
        As in `simulate_cluster`; darks have one exposure time.
    depth : float
        Square of the ratio of the radii of planet and star; limb darkening makes the dip in the
        middle of the transit a little deeper.
    flat_slope : float
        Wrong light on the flats: relative change from the middle to the edge along x.

    Returns
    -------
    pathlib.Path
        The night file.

    Raises
    ------
    ConfigError
        If the folder already holds raw frames.
    """
    folder = empty_folder(folder)
    streams, rngs = _streams(seed)
    rng = streams[0]
    flip = datetime(2024, 10, 3, 21, 10) + timedelta(seconds=round(rng.uniform(-1500, 1500)))
    center = (meridian_ra(flip), rng.uniform(8.0, 25.0))
    epoch = Time(flip).jyear
    exposures = transit_exposures(center, shape, n_light=n_light, flip=flip, rng=streams[5])
    stars = transit_stars(exposures, shape, field=field, center=center, rng=streams[1])
    stars = _numbered(stars)
    catalogue = survey_catalogue(stars, rng=streams[2])
    stars["ra"], stars["dec"] = positions_at(stars, epoch)
    target = stars[stars["kind"] == "target"][0]
    place = (float(target["ra"]), float(target["dec"]))

    sensor = make_sensor(shape, filters=["r"], seed=streams[3])
    recorder = Recorder(folder / "raw", f"DRT {seed}", *place, streams[4])
    take_calibrations(
        sensor,
        recorder,
        afternoon=datetime(2024, 10, 3, 16, 2, 40, 55000),
        dusk=datetime(2024, 10, 3, 18, 5, 0),
        n_bias=n_bias,
        darks={60.0: n_dark},
        n_flat=n_flat,
        panel_flats={"r": 2.5},
        twilight_flats=(),
        rngs=rngs,
        illumination=flat_slope,
    )
    nothing = {"files": ["?"] * n_light, "n_cosmic": [0] * n_light}
    frames = truth_table(exposures, **nothing, gain=sensor.gain, place=place)
    frames["scintillation"] = scintillation(
        frames["exptime"], diameter=100 * APERTURE, airmass=frames["airmass"], height=HEIGHT
    )
    planet = make_planet(frames["bjd_tdb_mid"], depth, rng)
    curves = light_curves(frames, planet, rng)
    mover = moving_object(exposures, shape, streams[1])
    files, n_cosmic = [], []
    for number, exposure in enumerate(exposures):
        noise = next(rngs)
        factor = 1 + frames["scintillation"][number] * noise.standard_normal(len(stars) + 3)
        factor[: len(stars)][stars["kind"] == "target"] *= curves["target"][number]
        factor[: len(stars)][stars["kind"] == "variable"] *= curves["variable"][number]
        # The mover is drawn in three places along its way during the exposure.
        step = exposure.exptime / 60 * mover.meta["rate_per_minute"] / 3 * np.array([-1, 0, 1])
        ra = mover["ra"][number] + step * mover.meta["ra_per_arcsec"]
        dec = mover["dec"][number] + step * mover.meta["dec_per_arcsec"]
        data, hits = take_light(
            sensor,
            exposure,
            ra=np.concatenate([stars["ra"], ra]),
            dec=np.concatenate([stars["dec"], dec]),
            mag=np.concatenate([stars["r"], np.full(3, mover.meta["r"] + 2.5 * math.log10(3))]),
            rng=noise,
            factor=factor,
        )
        files.append(record_light(recorder, exposure, data, error=(-0.8, 1.0)))
        n_cosmic.append(hits)
    frames.replace_column("file", files)
    frames["n_cosmic"] = n_cosmic
    for table in (curves, mover):
        table.replace_column("file", files)
    parameters = {"seed": seed, "object": recorder.object_name, "center": list(center), **planet}
    parameters |= {"target": list(place), "flat_slope": flat_slope, "epoch": epoch}
    parameters |= {"mover": mover.meta, "variable": curves.meta["variable"]}
    write_truth(
        folder / "truth",
        sensor,
        stars=stars,
        frames=frames,
        exposures=exposures,
        parameters=parameters | _camera_parameters(sensor, {}),
        epoch=epoch,
    )
    curves.meta.clear()
    curves.write(folder / "truth" / "lightcurves.ecsv")
    mover.write(folder / "truth" / "mover.ecsv")
    catalogue.write(folder / "catalogue.ecsv")
    return _night_file(
        folder,
        sensor,
        name=f"transit {seed}",
        object_name=recorder.object_name,
        target=f"{place[0]:.6f} {place[1]:.6f}",
        transit=published_planet(planet, np.random.default_rng([seed, 7])),
    )


def _streams(seed):
    """Make generators for the parts of a night, and an endless row of them for the frames."""
    parts, frames = np.random.SeedSequence(seed).spawn(2)

    def endless():
        while True:
            yield np.random.default_rng(frames.spawn(1)[0])

    return [np.random.default_rng(part) for part in parts.spawn(6)], endless()


def _numbered(stars):
    """Add identifiers and the light of neighbours."""
    stars.add_column(np.arange(1, len(stars) + 1), name="id", index=0)
    stars["contamination"] = contamination(stars)
    return stars


def _camera_parameters(sensor, colour_terms):
    """Truth of the camera and the air."""
    return {
        "colour": "g-i",
        "colour_terms": {band: colour_terms.get(band, 0.0) for band in "gri"},
        "gain": sensor.gain,
        "read_noise": sensor.read_noise,
        "offset": 500.0,
        "pixel_scale": PIXEL_SCALE,
        "extinction": EXTINCTION,
    }


def _night_file(folder, sensor, *, name, object_name, target=None, transit=None):
    """Write night.toml, last of all: a folder that has one is complete."""
    settings = {
        "name": name,
        "raw": "raw",
        "work": "work",
        "truth": "truth",
        "object": object_name,
        "target": target,
        "camera": {
            "gain": sensor.gain,
            "read_noise": sensor.read_noise,
            "saturation": 64000.0,
            "pixel_scale": PIXEL_SCALE,
        },
        "site": {
            "name": "simulated observatory",
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
            "height": HEIGHT,
        },
        "astrometry": {"catalogue": "catalogue.ecsv", "search_radius": 5.0},
        "transit": transit,
    }
    return write_night(settings, folder / "night.toml")
