"""Simulated nights in memory: detections with a moving source, photometry with a variable star."""

import numpy as np
from astropy.table import Table

from datared.assembly import Photometry
from datared.sources import EDGE

#: Of the detections: arcsec/px, width in arcsec, side of the frame in px, matching radius, start.
SCALE, WIDTH, SIZE = 1.2, 2.6, 700
EPS = 1.4
T0 = 2460000.5

#: Of the photometry: period (d) and amplitude (mag) of the variable star, number of stars and
#: frames; electrons per count, and the noise of an aperture in counts.
PERIOD, AMPLITUDE = 0.058, 0.1
N_STAR, N_EPOCH = 150, 120
GAIN, SKY = 2.0, 60.0


def error_of(snr):
    """Error of one coordinate (arcsec) of a centroid: width over signal-to-noise, with a floor."""
    return np.hypot(0.5 * WIDTH / snr, 0.02)


def to_sky(east, north, ra, dec):
    """Positions (deg) of offsets (arcsec) in the tangent plane of a place."""
    a, d = np.radians([ra, dec])
    middle = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    to_east = np.array([-np.sin(a), np.cos(a), 0.0])
    plane = np.radians(np.stack([east, north], axis=1) / 3600)
    sky = middle + plane @ np.stack([to_east, np.cross(middle, to_east)])
    return (
        np.degrees(np.arctan2(sky[:, 1], sky[:, 0])) % 360,
        np.degrees(np.arctan2(sky[:, 2], np.hypot(sky[:, 0], sky[:, 1]))),
    )


def night(
    seed, *, rate=None, angle=108.0, start=(30.0, -40.0), snr=40.0, n_frames=60, minutes=1.5,
    n_stars=200, ra=0.0, dec=60.0, drift=2.0, chance=0.97, times=None, stars=None,
    rays=10,
):  # fmt: skip
    """Simulate the detections of a night; return lists and times.

    200 stars of signal-to-noise 5 to 500 (the faintest are often missed), on each frame ten cosmic
    rays; three hot pixels that nobody knows on a detector that drifts over the sky; and a mover.
    Two sources within one width of each other are one detection, between them.
    """
    rng = np.random.default_rng(seed)
    half = 0.5 * SIZE * SCALE
    if stars is None:
        place = rng.uniform(-1.2 * half, 1.2 * half, (2, n_stars))
        light = 10 ** rng.uniform(0.7, 2.7, n_stars)
    else:
        place, light = (np.asarray(one, float) for one in stars)
    hot = rng.uniform(0, SIZE, (2, 3))
    times = T0 + np.arange(n_frames) * minutes / 1440 if times is None else np.asarray(times)
    lists = []
    for k, time in enumerate(times):
        seen = rng.random(len(light)) < np.where(light < 8, 0.6, chance)
        east, north, power = place[0][seen], place[1][seen], light[seen]
        if rate is not None and rng.random() < chance:
            way = rate * (time - times[0]) * 1440
            east = np.append(east, start[0] + way * np.sin(np.radians(angle)))
            north = np.append(north, start[1] + way * np.cos(np.radians(angle)))
            power = np.append(power, snr)
            near = np.hypot(east[:-1] - east[-1], north[:-1] - north[-1])
            if near.size and near.min() < WIDTH:
                one = np.argmin(near)
                share = power[-1] / (power[-1] + power[one])
                east[one] += share * (east[-1] - east[one])
                north[one] += share * (north[-1] - north[one])
                east, north, power = east[:-1], north[:-1], power[:-1]
        east, north = np.stack([east, north]) + rng.normal(size=(2, len(power))) * error_of(power)
        x, y = (east + half) / SCALE + drift * k, (north + half) / SCALE - 0.7 * drift * k
        struck = rng.uniform(0, SIZE, (2, rays))
        x, y = np.hstack([x, struck[0], hot[0]]), np.hstack([y, struck[1], hot[1]])
        east = np.append(east, (np.hstack([struck[0], hot[0]]) - drift * k) * SCALE - half)
        north = np.append(north, (np.hstack([struck[1], hot[1]]) + 0.7 * drift * k) * SCALE - half)
        power = np.append(power, np.full(rays + 3, 20.0))
        inside = (x > 0) & (x < SIZE) & (y > 0) & (y < SIZE)
        order = rng.permutation(np.flatnonzero(inside))
        sky = to_sky(east[order], north[order], ra, dec)
        cut = (np.abs(x[order] - SIZE / 2) > SIZE / 2 - 2) | (y[order] < 2)
        columns = (*sky, x[order], y[order], 100 * power[order], power[order], cut * EDGE)
        names = ("ra", "dec", "x", "y", "flux", "snr", "flags")
        lists.append(Table(dict(zip(names, columns, strict=True))))
    return lists, times


def light(seed, *, variable=None, n_star=N_STAR, n_epoch=N_EPOCH, minutes=1.5, filters=("r",)):
    """Simulate the photometry of a night in which star ``variable`` changes by 0.1 mag.

    Stars of 300 to 300,000 counts; a cloud; a drift over a flat field that is wrong by 1 % from
    edge to edge, which turns with the field at the meridian flip; extinction that differs with the
    colour of the star; seeing that takes light out of the aperture, more for some stars; and a
    third of a per cent of all measurements struck by cosmic rays.
    """
    rng = np.random.default_rng(seed)
    time = 2460000.5 + np.arange(n_epoch) * minutes / 1440
    level = 10 ** rng.uniform(2.5, 5.5, n_star)
    flipped = np.arange(n_epoch) >= n_epoch // 3
    x = rng.uniform(0, 700, n_star)[:, None] + 0.4 * np.arange(n_epoch)
    y = rng.uniform(0, 500, n_star)[:, None] - 0.2 * np.arange(n_epoch)
    x, y = np.where(flipped, 700 - x, x), np.where(flipped, 500 - y, y)
    airmass = 1.0 + 0.6 * ((np.arange(n_epoch) - 20) / n_epoch) ** 2
    fwhm = 2.6 * (1 + 0.1 * np.cumsum(rng.normal(size=n_epoch)) / np.sqrt(n_epoch))
    truth = np.ones((n_star, n_epoch))
    if variable is not None:
        wave = AMPLITUDE * np.sin(2 * np.pi * (time - time[0]) / PERIOD)
        truth[variable] = 10 ** (-0.4 * wave)
        level[variable] = 3e4
    change = 0.010 * (x / 700 - y / 1000) + rng.normal(0, 0.02, n_star)[:, None] * (airmass - 1)
    change = change + rng.normal(0.2, 0.05, n_star)[:, None] * (fwhm / 2.6 - 1)
    clear = np.ones(n_epoch)
    clear[n_epoch // 2 : n_epoch // 2 + 9] = 0.7
    flux = level[:, None] * truth * clear * (1 - change) * 10 ** (-0.06 * (airmass - 1))
    error = np.sqrt(flux / GAIN + SKY**2 + (0.002 * flux) ** 2)
    measured = flux + rng.normal(size=flux.shape) * error
    struck = rng.random(flux.shape) < 0.003
    measured = np.where(struck, measured + 0.5 * flux + 2000, measured)
    stars = Table({"star": np.arange(n_star), "ra": 10 + x[:, 0] / 3600, "dec": y[:, 0] / 3600})
    stars["target"] = np.arange(n_star) == 0
    epochs = Table({"epoch": np.arange(n_epoch), "exptime": np.full(n_epoch, 60.0)})
    epochs["filter"] = [filters[k % len(filters)] for k in range(n_epoch)]
    epochs["bjd_tdb_mid"], epochs["jd_utc_mid"] = time, time - 0.002
    epochs["airmass"], epochs["fwhm"], epochs["flipped"] = airmass, fwhm, flipped
    epochs["radii"], epochs["scale"] = fwhm[:, None], 1.2
    flux, error = measured[:, :, None], error[:, :, None]
    flags = np.zeros(flux.shape, int)
    return Photometry(
        stars, epochs, flux, error, flags, np.zeros(x.shape), x, y, (1.0,), "fwhm", 0, GAIN
    )
