"""Solved nights with known stars, written as the stage before the photometry writes them."""

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS

from datared.frames import product_name, write_product
from datared.night import AstrometryOptions, Camera, Night, PhotometryOptions, Site
from datared.render import sensor_counts, star_image

GAIN, READ_NOISE, OFFSET, SCALE = 1.5, 6.0, 200.0, 1.2
SHAPE, CENTER = (150, 200), SkyCoord(150.0, 40.0, unit="deg")
JD = 2460000.5


def make_wcs(shift=(0.0, 0.0), angle=0.0):
    """World coordinates around the centre, shifted by pixels and turned by degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [CENTER.ra.deg, CENTER.dec.deg]
    wcs.wcs.crpix = [100 + shift[0], 75 + shift[1]]
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = SCALE / 3600 * np.array([[-c, s], [s, c]])
    wcs.array_shape = SHAPE
    return wcs


def stars_on_sky(n=24, seed=3):
    """Isolated stars with positions on the sky and electrons in the filters g and r."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(25, 175, 6), np.linspace(20, 130, 4))
    x, y = (value.ravel() + rng.uniform(-3, 3, n) for value in (x, y))
    sky = make_wcs().pixel_to_world(x, y)
    g = 10 ** rng.uniform(3.9, 5.2, n)
    return sky, {"g": g, "r": g * rng.uniform(1.5, 2.5, n)}


def write_night(folder, frames, *, target=None, catalogue=None, **photometry_options):
    """Write solved frames and their star lists as the stage before does; return the night.

    ``frames``: dictionaries with file, filter, jd and optionally shift, angle, fwhm, factor, cards.
    """
    work = folder / "work"
    sky, electrons = stars_on_sky()
    rows = []
    for number, frame in enumerate(frames):
        wcs = make_wcs(frame.get("shift", (0, 0)), frame.get("angle", 0.0))
        fwhm, factor = frame.get("fwhm", 2.6), frame.get("factor", 1.0)
        x, y = wcs.world_to_pixel(sky)
        light = electrons[frame["filter"]] * factor
        scene = star_image(SHAPE, x, y, light, fwhm=fwhm, beta=4.5) + 150.0
        raw = sensor_counts(scene, gain=GAIN, read_noise=READ_NOISE, offset=OFFSET, seed=number)
        ccd = CCDData(raw.astype(np.float32) - np.float32(OFFSET), unit="adu", wcs=wcs)
        ccd.flags = np.zeros(SHAPE, np.uint16)
        cards = {
            "FILTER": frame["filter"], "EXPTIME": 60.0, "JD_UTC_M": frame["jd"], "FWHM": fwhm,
            "SKY": 100.0, "SKYNOISE": 8.0, "ASTRRMS": 0.05, "AIRMASS": 1.3,
        }  # fmt: skip
        name = product_name(frame["file"])
        write_product(ccd, work / "solved" / f"{name}.fits", header_cards=cards)
        rng = np.random.default_rng(100 + number)
        inside = (x > 0) & (x < SHAPE[1] - 1) & (y > 0) & (y < SHAPE[0] - 1)
        inside &= rng.uniform(size=len(x)) < frame.get("found", 1.0)
        # Centroids of a tenth of a pixel.
        seen = wcs.pixel_to_world(*(v[inside] + rng.normal(0, 0.1, inside.sum()) for v in (x, y)))
        table = Table({"x": x[inside], "y": y[inside], "flux": light[inside] / GAIN})
        table["snr"], table["ra"], table["dec"] = 50.0, seen.ra.deg, seen.dec.deg
        table["flags"] = 0
        for x_more, y_more, flags in frame.get("more", ()):
            there = wcs.pixel_to_world(x_more, y_more)
            table.add_row((x_more, y_more, 1e4, 50.0, there.ra.deg, there.dec.deg, flags))
        (work / "sources").mkdir(exist_ok=True)
        table.write(work / "sources" / f"{name}.ecsv", format="ascii.ecsv")
        rows.append((frame["file"], frame["filter"], "made", "", fwhm * SCALE))
    rows.append(("cloud.fits", "r", "failed", "no stars", np.nan))
    table = Table(rows=rows, names=("file", "filter", "status", "reason", "fwhm_arcsec"))
    table.write(work / "astrometry.ecsv", format="ascii.ecsv")
    options = {"radii": (4.0, 6.0), "radius_unit": "px", "annulus": (9.0, 14.0)}
    return Night(
        name="test",
        raw=folder / "raw",
        work=work,
        camera=Camera(gain=GAIN, read_noise=READ_NOISE),
        site=Site(name="here", latitude=37.3, longitude=-121.6, height=1283.0),
        target_coord=target,
        astrometry=AstrometryOptions(catalogue=catalogue),
        photometry=PhotometryOptions(**(options | photometry_options)),
    )


FRAMES = [
    {"file": "b.fits", "filter": "r", "jd": JD},
    {"file": "a.fits", "filter": "r", "jd": JD + 0.01, "shift": (3.3, -4.1), "fwhm": 3.1},
    {"file": "sub/c.fits", "filter": "r", "jd": JD + 0.02, "angle": 180.0, "factor": 0.8},
    {"file": "d.fits", "filter": "g", "jd": JD + 0.03},
]
