"""Measure photometry against photutils, sep and source-extractor: time, agreement, memory.

Run it from the root of the repository; README.md beside this file says what is measured and how::

    python benchmarks/photometry.py
    python benchmarks/photometry.py --only a,b --repeats 5
    python benchmarks/photometry.py --only d --frames 50

Every number comes from a child process of its own: it imports one side only, does the step once on
a small frame (which loads the compiled code), then on the full one, and reports time and memory.
"""

import hashlib
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import common
import numpy as np
from common import median, number, row

SEED = 5
SKY, SLOPE_OF_SKY = 1000.0, 0.05  # ADU in the middle, change from left to right
GAIN, READ_NOISE = 1.5, 6.0  # e-/ADU, e-
FWHM, BETA = 3.5, 3.5  # px, slope of the wings
RADII, ANNULUS = (2.8, 4.2, 7.0, 10.5), (14.0, 21.0)  # px
MARGIN = 40  # px between a star and the edge
FAINTEST = 5.0  # signal to noise of the faintest star, in the best possible filter
SLOPE = 0.75  # N(> flux) goes as flux to the minus this
BRIGHTEST = 6e5  # ADU
DEPTH = 4  # the reference frame is the mean of so many
BOX, BOX_OLD = 64, 300  # px, of the mesh of the sky: ours, the course's old way
FIT_RADIUS = 5  # px: shapes are fitted in boxes of 11 x 11
PSF_BOX, PSF_SNR = 9, 20.0  # px: ours fits discs of 1.25 FWHM; of stars for the PSF
FULL, STARS, CROWD = (4788, 3194), 2000, 5000
SMALL = (600, 400)
#: The night of part (d): columns, rows, stars across and down, px between them.
NIGHT_SIZE, NIGHT_GRID, NIGHT_RADII = (640, 512), (80, 63), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
#: Samples of a pixel, along each axis, in source-extractor's apertures.
SAMPLES = 5
PACKAGES = ("numpy", "numba", "scipy", "astropy", "photutils", "sep", "datared")
MARKERS = ("<!-- table of photometry -->", "<!-- end of table of photometry -->")


# --- the frames ----------------------------------------------------------------------------------


def simulate(folder, size):
    """Write the frames, a list of their stars, and the truth that they were made from."""
    from astropy.io import fits
    from photutils.aperture import CircularAperture, aperture_photometry

    from datared.render import star_image

    folder.mkdir(parents=True, exist_ok=True)
    nx, ny = size
    rng = np.random.default_rng(SEED)
    sky = SKY * (1 + SLOPE_OF_SKY * np.linspace(-0.5, 0.5, nx, dtype=np.float32))

    def write(name, stars, depth=1):
        image = stars + sky
        noise = np.sqrt((image / GAIN + (READ_NOISE / GAIN) ** 2) / depth).astype(np.float32)
        noise *= rng.standard_normal(image.shape, dtype=np.float32)
        image += noise
        fits.writeto(folder / name, image.astype(np.float32), overwrite=True)

    x, y, flux, snr = _draw(rng, size, STARS)
    stars = star_image((ny, nx), x, y, flux, fwhm=FWHM, beta=BETA)
    write("frame.fits", stars)
    write("reference.fits", stars, DEPTH)
    # What a perfect sum of each aperture holds, by another program than ours.
    apertures = [CircularAperture(np.column_stack([x, y]), radius) for radius in RADII]
    table = aperture_photometry(stars, apertures, method="exact")
    sums = np.column_stack([table[f"aperture_sum_{k}"] for k in range(len(RADII))])
    np.savez(folder / "truth.npz", x=x, y=y, flux=flux, snr=snr, sums=sums)
    # The list of stars as an image: a small blob at each place, for source-extractor to find.
    blobs = star_image((ny, nx), x, y, 1000.0, fwhm=2.0, beta=10.0)
    fits.writeto(folder / "blobs.fits", blobs.astype(np.float32), overwrite=True)
    x, y, flux, snr = _draw(rng, size, CROWD)
    write("crowd.fits", star_image((ny, nx), x, y, flux, fwhm=FWHM, beta=BETA))
    start = np.column_stack([x, y]) + rng.normal(0, 0.1, (len(x), 2))
    np.savez(folder / "crowd.npz", x=x, y=y, flux=flux, snr=snr, start=start)


def _draw(rng, size, count):
    """Draw positions and fluxes of stars; fewer on a small frame."""
    nx, ny = size
    n = max(100, round(count * nx * ny / (FULL[0] * FULL[1])))
    x, y = (rng.uniform(MARGIN, length - 1 - MARGIN, n) for length in size)
    # The sum of the squared profile gives the signal to noise in the best possible filter.
    alpha = FWHM / (2 * math.sqrt(2 ** (1 / BETA) - 1))
    best = (BETA - 1) / (alpha * math.sqrt(math.pi * (2 * BETA - 1)))
    noise = math.sqrt(SKY / GAIN + (READ_NOISE / GAIN) ** 2)
    snr = np.minimum(FAINTEST * rng.random(n) ** (-1 / SLOPE), BRIGHTEST * best / noise)
    return x, y, snr * noise / best, snr


def simulate_night(folder, frames):
    """Write the solved frames and star lists of a night, as the stages before photometry do."""
    from astropy.nddata import CCDData
    from astropy.table import Table
    from astropy.wcs import WCS

    from datared.frames import write_product
    from datared.render import star_image

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "solved").mkdir(parents=True)
    (folder / "sources").mkdir()
    rng = np.random.default_rng(SEED)
    (nx, ny), (across, down) = NIGHT_SIZE, NIGHT_GRID
    x, y = np.meshgrid(np.linspace(12, nx - 13, across), np.linspace(12, ny - 13, down))
    x, y = (value.ravel() + rng.uniform(-1, 1, value.size) for value in (x, y))
    flux = 10 ** rng.uniform(3, 5, x.size)
    scene = star_image((ny, nx), x, y, flux, fwhm=2.5, beta=BETA) + SKY
    noise = np.sqrt(scene / GAIN + (READ_NOISE / GAIN) ** 2).astype(np.float32)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 40.0], [nx / 2, ny / 2]
    wcs.wcs.cd = np.array([[-1.0, 0.0], [0.0, 1.0]]) / 3600
    wcs.array_shape = ny, nx
    sky = wcs.pixel_to_world(x, y)
    listed = Table({"x": x, "y": y, "flux": flux, "snr": flux / 200, "flags": 0 * x.astype(int)})
    listed["ra"], listed["dec"] = sky.ra.deg, sky.dec.deg
    rows = []
    for k in range(frames):
        name = f"light_{k:03d}"
        data = scene + noise * rng.standard_normal(scene.shape, dtype=np.float32)
        ccd = CCDData(data.astype(np.float32), unit="adu", wcs=wcs)
        ccd.flags = np.zeros(data.shape, np.uint16)
        cards = {
            "FILTER": "r", "EXPTIME": 60.0, "JD_UTC_M": 2460000.5 + k / 1000, "FWHM": 2.5,
            "SKY": SKY, "SKYNOISE": 26.0, "ASTRRMS": 0.05, "AIRMASS": 1.3,
        }  # fmt: skip
        write_product(ccd, folder / "solved" / f"{name}.fits", header_cards=cards)
        target = folder / "sources" / f"{name}.ecsv"
        if k:
            shutil.copyfile(folder / "sources" / "light_000.ecsv", target)
        else:
            listed.write(target, format="ascii.ecsv")
        rows.append((f"{name}.fits", "r", "made", "", 2.5))
    names = ("file", "filter", "status", "reason", "fwhm_arcsec")
    table = Table(rows=rows, names=names)
    table.write(folder / "astrometry.ecsv", format="ascii.ecsv")


def need(program):
    """Raise if a program is not installed."""
    if shutil.which(program) is None:
        raise RuntimeError(f"{program} is not installed")


def pixels(folder, name="frame.fits"):
    """Read a frame as float32 in the order of the machine."""
    from astropy.io import fits

    return fits.getdata(folder / name).astype(np.float32)


def truth_of(folder, name="truth.npz"):
    """Give what a frame was made from."""
    with np.load(folder / name) as arrays:
        return dict(arrays)


def noise_of(sky):
    """Noise of each pixel with this much light, in ADU."""
    return np.sqrt(np.maximum(sky, 0) / GAIN + (READ_NOISE / GAIN) ** 2)


# --- what is measured ----------------------------------------------------------------------------
# Each of these prepares the inputs and gives the call that is timed. What a call in (a) gives is a
# table of ours, a tuple of fluxes (and errors) in the order of the list, or the path of a file.


OURS = {"radii": RADII, "annulus": ANNULUS, "gain": GAIN, "read_noise": READ_NOISE, "fwhm": FWHM}


def measured(data, x, y, background="map"):
    """Give our photometry of a frame in memory; the map is measured here."""
    from datared.background import background_map
    from datared.photometry import aperture_photometry

    sky = background_map(data, box=BOX) if background == "map" else None
    return aperture_photometry(data, x, y, background=background, sky=sky, **OURS)


def a_ours(folder, background="map"):
    """Map of the sky, and forced photometry with it."""
    data, truth = pixels(folder), truth_of(folder)
    return lambda: measured(data, truth["x"], truth["y"], background)


def a_ours_annulus(folder):
    """Measure with the sky of each star from a clipped annulus (default)."""
    return a_ours(folder, "annulus-median")


def a_ours_file(folder):
    """Read the frame, map of the sky, forced photometry, write the table."""
    truth = truth_of(folder)
    return _file_to_file(folder, lambda: (truth["x"], truth["y"]))


def a_ours_detects(folder):
    """Find the stars of the reference frame, then all of `a_ours_file`."""
    from datared.sources import detect

    def places():
        stars = detect(pixels(folder, "reference.fits"))
        return np.asarray(stars["x"]), np.asarray(stars["y"])

    return _file_to_file(folder, places)


def _file_to_file(folder, places):
    """Give the call that reads a frame, measures at some places and writes a FITS table."""
    output = folder / "ours.fits"

    def call():
        x, y = places()
        table = measured(pixels(folder), x, y)
        table.meta = {}
        table.write(output)
        return table

    call.prepare = lambda: output.unlink(missing_ok=True)
    return call


def _apertures(folder):
    """Give the apertures of photutils."""
    from photutils.aperture import CircularAperture

    truth = truth_of(folder)
    places = np.column_stack([truth["x"], truth["y"]])
    return [CircularAperture(places, radius) for radius in RADII]


def a_photutils(folder, box=BOX_OLD):
    """Measure each aperture on the frame and on the map of the sky, as the course always did."""
    from photutils.aperture import ApertureStats
    from photutils.background import Background2D

    data, apertures = pixels(folder), _apertures(folder)

    def call():
        sky = Background2D(data, box).background
        sums = [ApertureStats(data, each).sum - ApertureStats(sky, each).sum for each in apertures]
        return (np.column_stack(sums),)

    return call


def a_photutils_64(folder):
    """Do the same with our boxes for the sky."""
    return a_photutils(folder, BOX)


def a_photutils_list(folder):
    """Measure all apertures of the subtracted frame in one call."""
    from photutils.aperture import aperture_photometry
    from photutils.background import Background2D

    data, apertures = pixels(folder), _apertures(folder)

    def call():
        table = aperture_photometry(data - Background2D(data, BOX).background, apertures)
        return (np.column_stack([table[f"aperture_sum_{k}"] for k in range(len(RADII))]),)

    return call


def a_photutils_annulus(folder):
    """Subtract the clipped median of an annulus around each star."""
    from astropy.stats import SigmaClip
    from photutils.aperture import ApertureStats, CircularAnnulus, aperture_photometry

    data, apertures = pixels(folder), _apertures(folder)
    annuli = CircularAnnulus(apertures[0].positions, *ANNULUS)

    def call():
        clip = SigmaClip(3.0)
        sky = ApertureStats(data, annuli, sigma_clip=clip, sum_method="center").median
        table = aperture_photometry(data, apertures)
        sums = [table[f"aperture_sum_{k}"] - sky * each.area for k, each in enumerate(apertures)]
        return (np.column_stack(sums),)

    return call


def a_sep(folder):
    """Map of the sky, and exact sums with their errors on the subtracted frame."""
    import sep

    data, truth = pixels(folder), truth_of(folder)

    def call():
        sky = sep.Background(data, bw=BOX, bh=BOX)
        left, noise = data - sky, sky.rms()
        sums = [
            sep.sum_circle(left, truth["x"], truth["y"], radius, err=noise, gain=GAIN, subpix=0)
            for radius in RADII
        ]
        return tuple(np.column_stack([each[k] for each in sums]) for k in range(2))

    return call


def a_sep_annulus(folder):
    """Subtract the mean of an annulus around each star."""
    import sep

    data, truth = pixels(folder), truth_of(folder)

    def call():
        place = truth["x"], truth["y"]
        sums = [sep.sum_circle(data, *place, r, bkgann=ANNULUS, subpix=0)[0] for r in RADII]
        return (np.column_stack(sums),)

    return call


def _extractor(folder, images, columns, **more):
    """Give the call of source-extractor on one image, or on one for finding and one to measure."""
    need("source-extractor")
    share = Path("/usr/share/source-extractor")
    parameters, output = folder / "extractor.param", folder / "extractor.fits"
    command = ["source-extractor", ",".join(str(folder / name) for name in images)]
    settings = {
        "CATALOG_NAME": output,
        "CATALOG_TYPE": "FITS_1.0",
        "PARAMETERS_NAME": parameters,
        "FILTER_NAME": share / "default.conv",
        "STARNNW_NAME": share / "default.nnw",
        "DETECT_THRESH": 2.0,
        "PHOT_APERTURES": ",".join(f"{2 * radius:.1f}" for radius in RADII),
        "GAIN": GAIN,
        "MASK_TYPE": "NONE",
        "BACK_SIZE": BOX,
        "MEMORY_OBJSTACK": 20000,
        "MEMORY_PIXSTACK": 3000000,
        "VERBOSE_TYPE": "QUIET",
    }
    command += ["-c", share / "default.sex"]
    for name, value in (settings | more).items():
        command += [f"-{name}", str(value)]

    def call():
        parameters.write_text("\n".join(columns) + "\n")
        subprocess.run(command, check=True, capture_output=True)
        return output

    call.prepare = lambda: output.unlink(missing_ok=True)
    return call


PLACE = ("X_IMAGE_DBL", "Y_IMAGE_DBL")
SUMS = (f"FLUX_APER({len(RADII)})", f"FLUXERR_APER({len(RADII)})")


def a_extractor(folder):
    """Find the stars of the reference frame, and measure them on this one."""
    return _extractor(folder, ("reference.fits", "frame.fits"), PLACE + SUMS)


def a_extractor_blobs(folder):
    """Find the blobs that stand for the list of stars, and measure on the frame."""
    settings = {"BACK_TYPE": "MANUAL,AUTO", "BACK_VALUE": "0.0,0.0", "FILTER": "N"}
    settings |= {"THRESH_TYPE": "ABSOLUTE", "DETECT_THRESH": 20.0, "ANALYSIS_THRESH": 20.0}
    return _extractor(folder, ("blobs.fits", "frame.fits"), PLACE + SUMS, **settings)


def a_extractor_finds(folder):
    """Find the stars of the reference frame, and measure nothing."""
    return _extractor(folder, ("reference.fits",), PLACE)


def fitted(folder):
    """Give the frame without sky, its noise, and the pixels on which the stars are brightest."""
    from datared.background import background_map

    data, truth = pixels(folder), truth_of(folder)
    left = data - background_map(data, box=BOX).level
    noise = noise_of(data).astype(np.float32)
    return left, noise, np.rint(truth["x"]), np.rint(truth["y"])


def b_ours(folder, **options):
    """Fit circular Gaussians without a sky, the same problem as the other side's."""
    from datared.starfits import fit_stars

    left, noise, x, y = fitted(folder)
    same = {"model": "gaussian", "elliptical": False, "fit_sky": False, "radius": FIT_RADIUS}
    options = options or same
    return lambda: fit_stars(left, x, y, fwhm=FWHM, noise=noise, **options)


def b_ours_moffat(folder):
    """Fit elliptical Moffat profiles with a sky (default)."""
    return b_ours(folder, model="moffat")


def b_theirs(folder):
    """Fit each star by a call of its own, on a cutout: the whole frame would cost more."""
    from photutils.psf import fit_2dgaussian

    left, noise, x, y = fitted(folder)
    size = 2 * FIT_RADIUS + 1
    options = {"fwhm": FWHM, "fix_fwhm": False, "fit_shape": size}

    def call():
        fits = np.full((len(x), 5), np.nan)
        for k in range(len(x)):
            i, j = int(x[k]), int(y[k])
            cut = slice(j - FIT_RADIUS, j + size - FIT_RADIUS), slice(i - FIT_RADIUS, i + size - 5)
            fit = fit_2dgaussian(
                left[cut], error=noise[cut], xypos=(FIT_RADIUS, FIT_RADIUS), **options
            )
            fits[k] = _fit_columns(fit.results)[0]
        fits[:, :2] += np.column_stack([x, y]) - FIT_RADIUS
        return fits

    return call


def b_theirs_batch(folder):
    """Fit all stars by one call."""
    from photutils.psf import fit_2dgaussian

    left, noise, x, y = fitted(folder)
    options = {"fwhm": FWHM, "fix_fwhm": False, "fit_shape": 2 * FIT_RADIUS + 1}
    places = np.column_stack([x, y])
    return lambda: _fit_columns(fit_2dgaussian(left, error=noise, xypos=places, **options).results)


def _fit_columns(results):
    """Give positions, flux, width and flags of a fit of photutils."""
    names = ("x_fit", "y_fit", "flux_fit", "fwhm_fit", "flags")
    return np.column_stack([np.asarray(results[name], float) for name in names])


def crowd(folder):
    """Give the frame with more stars, where they are said to be, and its sky."""
    from datared.background import background_map

    data, truth = pixels(folder, "crowd.fits"), truth_of(folder, "crowd.npz")
    return data, *truth["start"].T, background_map(data, box=BOX)


def c_epsf(folder):
    """Find the stars, choose some and build the effective PSF."""
    from datared.psf import build_epsf, select_psf_stars
    from datared.sources import detect

    data, _, _, sky = crowd(folder)

    def call():
        stars = select_psf_stars(detect(data), shape=data.shape, min_snr=PSF_SNR)
        return build_epsf(data, stars, sky=sky)

    return call


def _epsf(folder):
    """Give the effective PSF that `c_epsf` kept."""
    import pickle

    return pickle.loads((folder / "kept" / "epsf.pickle").read_bytes())


def c_ours(folder):
    """Fit all stars in tiles."""
    from datared.psf import psf_photometry

    data, x, y, sky = crowd(folder)
    psf = _epsf(folder)
    options = {"psf": psf, "sky": sky, "gain": GAIN, "read_noise": READ_NOISE}
    return lambda: psf_photometry(data, x, y, **options)[0]


def c_theirs(folder):
    """Fit all stars by photutils with the same PSF, groups and starting positions."""
    from astropy.table import Table
    from photutils.psf import ImagePSF, PSFPhotometry, SourceGrouper

    data, x, y, sky = crowd(folder)
    epsf = _epsf(folder)
    left, noise = data - sky.level, noise_of(data)
    start = Table({"x": x, "y": y})
    model = ImagePSF(np.asarray(epsf.data, float), oversampling=epsf.oversampling)
    options = {"grouper": SourceGrouper(2 * FWHM), "aperture_radius": FWHM}

    def call():
        fit = PSFPhotometry(model, PSF_BOX, **options)
        return fit(left, error=noise, init_params=start)

    return call


def d_one(folder, workers=1):
    """Measure the night in one process."""
    from datared.forced import photometry_night
    from datared.night import Camera, Night, PhotometryOptions, Site

    night = Night(
        name="benchmark",
        raw=folder / "night" / "raw",
        work=folder / "night",
        camera=Camera(gain=GAIN, read_noise=READ_NOISE),
        site=Site(name="here", latitude=37.3, longitude=-121.6, height=1283.0),
        photometry=PhotometryOptions(radii=NIGHT_RADII, radius_unit="px", annulus=(6.0, 10.0)),
    )

    def call():
        if workers == 1:
            done = photometry_night(night)
        else:
            with ProcessPoolExecutor(workers) as pool:
                done = photometry_night(night, executor=pool)
        failed = [str(line["reason"]) for line in done if line["status"] != "made"]
        if failed:
            raise RuntimeError(f"{len(failed)} frames were not measured: {failed[0]}")
        return night

    call.prepare = lambda: _forget(night.work)
    return call


def d_two(folder):
    """Measure the night in two processes."""
    return d_one(folder, workers=2)


def _forget(work):
    """Remove from a work folder what the photometry wrote."""
    for path in work.iterdir():
        if path.name not in ("solved", "sources", "astrometry.ecsv"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


CASES = {
    "a": (
        *(a_ours, a_photutils, a_ours_annulus, a_photutils_64, a_ours_file, a_extractor),
        *(a_extractor_finds, a_photutils_list, a_photutils_annulus, a_sep, a_sep_annulus),
        *(a_ours_detects, a_extractor_blobs),
    ),
    "b": (b_ours, b_theirs, b_ours_moffat, b_theirs_batch),
    "c": (c_epsf, c_ours, c_theirs),
    "d": (d_one, d_two),
    "e": (),
}
#: Programs need no start on a small frame, and a night is long enough without one.
OUTSIDE = ("a_extractor", "a_extractor_finds", "a_extractor_blobs", "d_one", "d_two")
#: For information, or slow: measured once.
ONCE = (
    *("a_photutils_list", "a_photutils_annulus", "a_sep_annulus", "a_ours_detects"),
    *("a_extractor_blobs", "b_theirs_batch", "c_epsf", "c_theirs", "d_one", "d_two"),
)


# --- how well it is done -------------------------------------------------------------------------


def keep(folder, name, value):
    """Save what a case gave, for the checks; give what is said of it at once."""
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    if name in ("a_ours_detects", "a_extractor_finds"):
        from astropy.table import Table

        return {"found": len(Table.read(value, hdu=1) if isinstance(value, Path) else value)}
    if name.startswith("a_extractor"):
        place, flux, error = _extracted(value)
        np.savez(kept / f"{name}.npz", place=place, flux=flux, error=error)
        return {"found": len(place)}
    if name.startswith("a_"):
        if not isinstance(value, tuple):
            value = np.asarray(value["flux"]), np.asarray(value["flux_err"])
        np.savez(kept / f"{name}.npz", **dict(zip(("flux", "error"), value, strict=False)))
    elif name == "b_ours":
        names = ("x", "y", "flux", "fwhm")
        fits, errors = ([value[key + tail] for key in names] for tail in ("", "_err"))
        np.savez(kept / "b_ours.npz", fits=np.transpose(fits), errors=np.transpose(errors))
    elif name == "b_theirs":
        np.savez(kept / "b_theirs.npz", fits=value)
    elif name == "c_epsf":
        import pickle

        (kept / "epsf.pickle").write_bytes(pickle.dumps(value))
        return {"stars": int(value.n_stars)}
    elif name in ("c_ours", "c_theirs"):
        tail = "_fit" if name == "c_theirs" else ""
        columns = [np.asarray(value[key + tail], float) for key in ("x", "y", "flux")]
        error = np.asarray(value["flux_err"], float)
        np.savez(kept / f"{name}.npz", fits=np.column_stack(columns), error=error)
    elif name.startswith("d_"):
        return _night_facts(value)
    return {}


def _extracted(path):
    """Give positions (0-based), fluxes and errors from a catalogue of source-extractor."""
    from astropy.table import Table

    table = Table.read(path, hdu=1)
    place = np.column_stack([np.asarray(table[name], float) for name in PLACE]) - 1
    return place, np.asarray(table["FLUX_APER"], float), np.asarray(table["FLUXERR_APER"], float)


def _night_facts(night):
    """Give the checksums of the tables of a night, and their shape."""
    from astropy.table import Table

    from datared.forced import photometry_files

    files = photometry_files(night.work)
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    shape = Table.read(files[0])["flux"].shape
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    children *= 1 if sys.platform == "darwin" else 1024
    size = files[0].stat().st_size / 1e6
    return {"sums": sums, "shape": shape, "child_mb": children / 1e6, "file_mb": size}


def check_photutils(folder):
    """Compare our sums of the same pixels in the same circles with those of photutils."""
    from photutils.aperture import aperture_photometry

    data, truth = pixels(folder) - np.float32(SKY), truth_of(folder)
    table = aperture_photometry(data, _apertures(folder), method="exact")
    theirs = np.column_stack([table[f"aperture_sum_{k}"] for k in range(len(RADII))])
    return _differences(_plain_sums(data, truth["x"], truth["y"]), theirs, truth["sums"])


def check_extractor(folder):
    """Compare our sums of the same pixels in the same circles with those of source-extractor.

    Each side gets the frame without sky, so that the sky is none of the difference. The positions
    are those that source-extractor found on the reference frame. It cuts a pixel at the rim into
    5 x 5 samples; what that makes is computed by sep, which has the same code (samples minus
    exact), and taken out in the second comparison. A sample on the rim itself may count or not,
    by the rounding of each program: an aperture whose sampled sum changes when its radius changes
    by the last digit of a position in float32 is left out.
    """
    import sep
    from astropy.io import fits
    from scipy.spatial import cKDTree

    truth = truth_of(folder)
    data = (pixels(folder).astype(float) - SKY).astype(np.float32)
    fits.writeto(folder / "left.fits", data, overwrite=True)
    settings = {"BACK_TYPE": "AUTO,MANUAL", "BACK_VALUE": "0.0,0.0"}
    call = _extractor(folder, ("reference.fits", "left.fits"), PLACE + SUMS, **settings)
    place, theirs, _ = _extracted(common.timed(call)[0])
    distance, star = cKDTree(np.column_stack([truth["x"], truth["y"]])).query(place)
    found = distance < 1
    place, theirs, light = place[found], theirs[found], truth["sums"][star[found]]
    ours = _plain_sums(data, *place.T)

    digit = np.spacing(place.max(axis=1).astype(np.float32)).astype(float)

    def sums(samples, more=0.0):
        radii = (radius + more * digit for radius in RADII)
        return np.column_stack(
            [sep.sum_circle(data, *place.T, r, subpix=samples)[0] for r in radii]
        )

    sampled, exact = sums(SAMPLES), sums(0)
    clear = sums(SAMPLES, -1) == sums(SAMPLES, 1)
    corrected = theirs - (sampled - exact)
    return {
        "apertures": int(clear.size),
        "clear": int(clear.sum()),
        "raw": _differences(ours, theirs, light),
        "sampling": _differences(exact, sampled, light),
        "corrected": _differences(ours[clear], corrected[clear], light[clear]),
    }


def _plain_sums(data, x, y):
    """Our sums of a frame from which nothing is subtracted."""
    from datared.photometry import aperture_photometry

    return np.asarray(aperture_photometry(data, x, y, background="none", **OURS)["flux"])


def _differences(ours, theirs, light):
    """Largest and typical difference of sums, in units of the light in each aperture."""
    part = np.abs(ours - theirs) / light
    return {"median": float(np.median(part)), "p99": float(np.percentile(part, 99)),
            "largest": float(part.max())}  # fmt: skip


def check_truth(folder):
    """Compare all fluxes of (a) with the light that is in the apertures."""
    from scipy.spatial import cKDTree

    truth, texts = truth_of(folder), {}
    light, area = truth["sums"], math.pi * np.square(RADII)
    sky = SKY * (1 + SLOPE_OF_SKY * (truth["x"] / (truth["x"].max() + MARGIN) - 0.5))
    noise = np.sqrt(light / GAIN + area * noise_of(sky)[:, None] ** 2)
    tree = cKDTree(np.column_stack([truth["x"], truth["y"]]))
    for case in CASES["a"]:
        path = folder / "kept" / f"{case.__name__}.npz"
        if not path.is_file():
            continue
        with np.load(path) as arrays:
            kept = dict(arrays)
        star = np.arange(len(light))
        if "place" in kept:
            distance, nearest = tree.query(kept["place"])
            near = distance < 1
            star, kept = nearest[near], {key: value[near] for key, value in kept.items()}
        away = kept["flux"] - light[star]
        weight = (light / noise**2)[star]
        bias = 100 * (away * weight).sum(axis=0) / (light[star] * weight).sum(axis=0)
        texts[case.__name__] = {"bias": bias.tolist(), "scatter": _width(away / noise[star])}
        if "error" in kept:
            texts[case.__name__]["pull"] = _width(away / kept["error"])
    texts["noise"] = (100 / np.sqrt(np.square(light / noise).sum(axis=0))).tolist()
    return texts


def _width(values):
    """Half of the interval that holds 68 %, as a standard deviation without its outliers."""
    low, high = np.nanpercentile(values, [15.865, 84.135])
    return float((high - low) / 2)


def check_fits(folder):
    """Compare the fits of (b) in units of their error, and both with the truth."""
    from scipy.spatial import cKDTree

    truth, result = truth_of(folder), {}
    with np.load(folder / "kept" / "b_ours.npz") as kept:
        ours, errors = kept["fits"], kept["errors"]
    with np.load(folder / "kept" / "b_theirs.npz") as kept:
        theirs = kept["fits"]
    # Flag 8 of photutils: the fit did not converge.
    good = np.isfinite(ours).all(axis=1) & np.isfinite(theirs).all(axis=1)
    good &= (theirs[:, 4].astype(int) & 8) == 0
    places = np.column_stack([truth["x"], truth["y"]])
    # One profile does not describe two stars: then each side ends where its limits let it.
    alone = cKDTree(places).query(places, 2)[0][:, 1] > 3 * FWHM
    part = np.abs(ours - theirs[:, :4]) / errors
    result["pairs"] = int((good & ~alone).sum())
    result["same_pairs"] = int((part[good & ~alone] <= 0.1).all(axis=1).sum())
    away = [np.hypot(*(each[:, :2] - places).T) > FWHM for each in (ours, theirs)]
    result["away"] = [int((each & good & ~alone).sum()) for each in away]
    good &= alone
    part = part[good]
    result["stars"], result["compared"] = len(ours), int(good.sum())
    missing = [~np.isfinite(each[:, :4]).all(axis=1) for each in (ours, theirs)]
    result["without"] = [int(each.sum()) for each in missing]
    result["brightest"] = float(truth["snr"][missing[0]].max()) if missing[0].any() else None
    result["names"] = ("x", "y", "flux", "fwhm")
    result["within"] = np.mean(part <= 0.1, axis=0).tolist()
    result["p99"] = np.percentile(part, 99, axis=0).tolist()
    result["all"] = float(np.mean((part <= 0.1).all(axis=1)))
    bright = good & (truth["snr"] > 50)
    for name, fits in (("ours", ours), ("theirs", theirs)):
        away = fits[bright][:, :2] - places[bright]
        result[f"{name}_px"] = float(np.sqrt(np.median(away**2)))
    return result


def check_psf(folder):
    """Compare the fluxes of (c) with the truth, and with each other."""
    from scipy.spatial import cKDTree

    truth, result = truth_of(folder, "crowd.npz"), {}
    place = np.column_stack([truth["x"], truth["y"]])
    distance = cKDTree(place).query(place, 2)[0][:, 1]
    for name in ("c_ours", "c_theirs"):
        path = folder / "kept" / f"{name}.npz"
        if not path.is_file():
            continue
        with np.load(path) as kept:
            fits, error = kept["fits"], kept["error"]
        fits, error = fits[: len(place)], error[: len(place)]
        ratio = fits[:, 2] / truth["flux"]
        bright = (truth["snr"] > 100) & np.isfinite(ratio)
        # The profile has light beyond the PSF; where its sum ends is a convention.
        zero = np.median(ratio[bright & (distance > 8 * FWHM)])
        pull = (fits[:, 2] / zero - truth["flux"]) / error
        result[name] = {"zero": float(zero), "missing": int(np.isnan(ratio).sum())}
        for key, which in (
            ("far", distance > 4 * FWHM),
            ("near", (distance > 0.5 * FWHM) & (distance < 2 * FWHM)),
        ):
            chosen = ratio[bright & which] / zero - 1
            result[name][key] = 100 * _width(chosen) if len(chosen) > 4 else None
            result[name][f"n_{key}"] = len(chosen)
        result[name]["pull"] = _width(pull)
    return result


# --- in the child --------------------------------------------------------------------------------


def child(name, options):
    """Do one thing and print what came of it as JSON."""
    folder, small, result = options.folder, options.folder / "small", {}
    if name == "simulate":
        simulate(small, SMALL)
        simulate(folder, tuple(int(n) for n in options.size.split("x")))
    elif name == "simulate_night":
        simulate_night(folder / "night", options.frames)
    elif name == "compile":
        result |= compiled(small)
    elif name.startswith("check_"):
        result = globals()[name](folder)
    else:
        build = globals()[name]
        if name not in OUTSIDE:
            value, _ = common.timed(build(small))
            if name == "c_epsf":
                keep(small, name, value)
        call = build(folder)
        before = common.peak_memory()
        value, seconds = common.repeated(call, limit=5.0, most=1 if name in ONCE else 5)
        result = {"seconds": statistics.median(seconds), "before_mb": before}
        result["peak_mb"] = common.peak_memory()
        result |= keep(folder, name, value)
    print(json.dumps(result))


def compiled(small):
    """Processor time that first calls take more than second ones, with an empty cache."""
    result = {"total": 0.0}
    for build in (a_ours, a_ours_annulus, b_ours, b_ours_moffat, c_ours):
        try:
            call, spent = build(small), []
            for _ in range(2):
                start = time.process_time()
                call()
                spent.append(time.process_time() - start)
        except (ImportError, OSError, TypeError, ValueError) as error:
            result[build.__name__] = str(error)
            continue
        result[build.__name__] = max(spent[0] - spent[1], 0.0)
        result["total"] += result[build.__name__]
    return result


# --- in the parent -------------------------------------------------------------------------------


def spawn(name, options, **environment):
    """Run one child and give its result."""
    arguments = ["--folder", str(options.folder), "--size", options.size]
    arguments += ["--frames", str(options.frames)]
    return common.spawn(__file__, name, arguments, **environment)


def measure(options, parts):
    """Run everything and give all numbers: lists of results by the names of cases."""
    results = {}
    if parts & set("abce"):
        stamp = options.folder / "simulated.txt"
        if not stamp.is_file() or stamp.read_text() != options.size:
            if "failed" in spawn("simulate", options):
                sys.exit("The frames could not be simulated.")
            stamp.write_text(options.size)
    if "d" in parts and "failed" in spawn("simulate_night", options):
        sys.exit("The night could not be simulated.")
    for part in sorted(parts):
        for repeat in range(options.repeats):
            for case in CASES[part]:
                if not repeat or case.__name__ not in ONCE:
                    results.setdefault(case.__name__, []).append(spawn(case.__name__, options))
    checks = {"a": ("photutils", "extractor", "truth"), "b": ("fits",), "c": ("psf",)}
    for part in sorted(parts & set(checks)):
        for name in checks[part]:
            results[f"check_{name}"] = [spawn(f"check_{name}", options)]
    if "e" in parts:
        if not (options.folder / "small" / "kept" / "epsf.pickle").is_file():
            spawn("c_epsf", options)
        with tempfile.TemporaryDirectory() as cache:
            results["compile"] = [spawn("compile", options, NUMBA_CACHE_DIR=cache)]
    return results


#: Part, what, ours, theirs, the least of theirs / ours that is wanted (None: for information).
ROWS = (
    ("a", "map of the sky and sums, against `ApertureStats`", "a_ours", "a_photutils", 15),
    ("a", "the same, sky from clipped annuli (default)", "a_ours_annulus", "a_photutils", 15),
    ("a", "map and sums, theirs with our boxes", "a_ours", "a_photutils_64", 15),
    ("a", "against `aperture_photometry` with a list", "a_ours", "a_photutils_list", None),
    ("a", "annuli, against clipped annuli of photutils", "a_ours_annulus", "a_photutils_annulus",
     None),
    ("a", "map and sums, against sep", "a_ours", "a_sep", None),
    ("a", "annuli, against mean annuli of sep", "a_ours_annulus", "a_sep_annulus", None),
    ("a", "from file to file, against `source-extractor`", "a_ours_file", "a_extractor", 1),
    ("a", "the same, ours finds the stars as well", "a_ours_detects", "a_extractor", None),
    ("a", "the same, theirs finds blobs", "a_ours_file", "a_extractor_blobs", None),
    ("b", "circular Gaussians, against one call for each", "b_ours", "b_theirs", 100),
    ("b", "against one call for all", "b_ours", "b_theirs_batch", None),
    ("b", "elliptical Moffat with sky (default), the former", "b_ours_moffat", "b_theirs", None),
    ("c", "PSF fits", "c_ours", "c_theirs", None),
)  # fmt: skip
LISTS = {
    "a_ours": "ours, map",
    "a_ours_annulus": "ours, clipped annuli",
    "a_photutils": "`Background2D` and `ApertureStats`",
    "a_photutils_64": "the same, our boxes",
    "a_photutils_annulus": "photutils, clipped annuli",
    "a_sep": "sep, map",
    "a_sep_annulus": "sep, mean annuli",
    "a_extractor": "`source-extractor`",
    "a_extractor_blobs": "`source-extractor`, blobs",
}


def table(results, options, parts):
    """Lines of Markdown: times, accuracy, the night, machine, versions, command."""
    lines = []
    if parts & set("abc"):
        lines += [
            "| | what | ours (s) | theirs (s) | ratio | wanted | |",
            "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        ]
        for part, what, ours, theirs, wanted in ROWS:
            if part in parts:
                values = median(results, ours, "seconds"), median(results, theirs, "seconds")
                why = common.failure(results, ours, theirs)
                lines.append(row(f"({part})", what, *values, wanted, "least", why))
    for part, build in (("a", _photometry), ("b", _fits), ("c", _psf), ("d", _night)):
        if part in parts:
            lines += ["", *build(results)]
    lines.append("")
    if "e" in parts:
        lines += _compile(results["compile"][0])
    repeated = [name for name in ONCE if name in results]
    once = ", ".join(f"`{name}`" for name in repeated)
    lines.append(f"* repeats: {options.repeats}{', but one of ' + once if once else ''}.")
    lines.append(f"* program: {version('source-extractor')}.")
    note = f"{options.frames} of {NIGHT_SIZE[0]}x{NIGHT_SIZE[1]} pixels in (d)"
    if parts & set("abce"):
        note = f"{options.size} pixels, float32; {note}"
    return lines + [f"* {text}" for text in common.machine(__file__, PACKAGES, options, note)]


def _photometry(results):
    """Accuracy of (a), and what source-extractor spends on what."""
    lines = []
    truth = results["check_truth"][0]
    if "failed" in truth:
        lines.append(f"(a) {truth['failed']}")
    else:
        radii = " | ".join(f"r = {radius}" for radius in RADII)
        lines += [
            f"| flux against the truth: mean bias (%) | {radii} | scatter | pulls |",
            f"| --- | {'---: | ' * len(RADII)}---: | ---: |",
        ]
        for name, words in LISTS.items():
            if name in truth:
                bias = " | ".join(f"{value:+.3f}" for value in truth[name]["bias"])
                pull = f"{truth[name]['pull']:.3f}" if "pull" in truth[name] else ""
                lines.append(f"| {words} | {bias} | {truth[name]['scatter']:.3f} | {pull} |")
        noise = " | ".join(f"± {value:.3f}" for value in truth["noise"])
        lines.append(f"| of it by the noise of this frame | {noise} | | |")
    lines += ["", "| same pixels, same circles | typical difference | 99 % below | largest | | |",
              "| --- | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    check, extractor = results["check_photutils"][0], results["check_extractor"][0]
    if "failed" in check:
        lines.append(f"| photutils, exact | | | | | {check['failed']} |")
    else:
        lines.append(_difference("photutils, exact", check, 1e-4))
    if "failed" in extractor:
        lines.append(f"| `source-extractor` | | | | | {extractor['failed']} |")
    else:
        lines.append(_difference("`source-extractor`", extractor["raw"], None))
        words = f"what {SAMPLES} x {SAMPLES} samples make (sep)"
        lines.append(_difference(words, extractor["sampling"], None))
        words = "`source-extractor`, with that taken out"
        lines.append(_difference(words, extractor["corrected"], 1e-4))
        lines += [
            "",
            f"* (a) `source-extractor`: its last row has {extractor['clear']} of "
            f"{extractor['apertures']} apertures; the others have a sample on the rim.",
        ]
    lines += [""] if "failed" in extractor else []
    both, finds = (
        median(results, name, "seconds") for name in ("a_extractor", "a_extractor_finds")
    )
    ours, found = median(results, "a_ours_file", "seconds"), median(results, "a_extractor", "found")
    if both and finds and ours:
        lines.append(
            f"* (a) `source-extractor` takes {number(finds)} s of its {number(both)} s without the "
            f"second frame, to find {found:.0f} stars; what is left for the measurement is "
            f"{number(both - finds)} s, {number((both - finds) / ours)} of the time of ours from "
            "file to file."
        )
    peaks = [number(median(results, f"a_{name}", "peak_mb")) for name in ("ours", "photutils")]
    return [*lines, f"* (a) peak memory: ours {peaks[0]} MB, photutils {peaks[1]} MB."]


def _difference(words, check, limit):
    """Row of differences, with a target where there is one."""
    numbers = " | ".join(f"{check[key]:.1e}" for key in ("median", "p99", "largest"))
    if limit is None:
        return f"| {words} | {numbers} | | |"
    return f"| {words} | {numbers} | ≤ {limit:.0e} | {common.verdict(check['largest'] <= limit)} |"


def _fits(results):
    """Agreement of (b)."""
    check = results["check_fits"][0]
    if "failed" in check:
        return [f"(b) {check['failed']}"]
    lines = [
        f"| fits against those of photutils | {' | '.join(check['names'])} | wanted | |",
        f"| --- | {'---: | ' * len(check['names'])}---: | --- |",
    ]
    within = " | ".join(_percent(value) for value in check["within"])
    lines.append(f"| within a tenth of the error | {within} | | |")
    most = " | ".join(f"{value:.4f}" for value in check["p99"])
    met = common.verdict(max(check["p99"]) <= 0.1)
    lines.append(f"| 99 % of the differences are below (errors) | {most} | ≤ 0.1 | {met} |")
    brightest = ""
    if check["brightest"] is not None:
        brightest = f" (the brightest of them with a S/N of {check['brightest']:.1f})"
    lines += [
        "",
        f"* (b) the table has {check['compared']} of {check['stars']} stars, which stand alone; "
        f"all four numbers within a tenth of the error: {_percent(check['all'])}.",
        f"* (b) {check['pairs']} more have a neighbour within three FWHM: {check['same_pairs']} of "
        f"these fits agree; more than a FWHM off the true place are {check['away'][0]} of ours, "
        f"{check['away'][1]} of theirs.",
        f"* (b) without a fit: ours {check['without'][0]}{brightest}, "
        f"theirs {check['without'][1]}.",
        f"* (b) positions of bright stars, typical error: ours {check['ours_px']:.4f} px, theirs "
        f"{check['theirs_px']:.4f} px.",
    ]
    return lines


def _percent(part):
    """Part as a text that never rounds up to all of them."""
    return f"{math.floor(1e4 * part) / 100:.2f} %"


def _psf(results):
    """Memory and accuracy of (c)."""
    lines = []
    peak, before = (median(results, "c_ours", key) for key in ("peak_mb", "before_mb"))
    if peak is None:
        return [f"(c) {common.failure(results, 'c_epsf', 'c_ours')}"]
    lines += [
        "| PSF fits | peak memory (MB) | wanted | | alone: scatter (%) | pairs: scatter (%) "
        "| pulls | no flux |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    check = results["check_psf"][0]
    for name, words in (("c_ours", "ours"), ("c_theirs", "photutils")):
        most = median(results, name, "peak_mb")
        limit = f"≤ 1000 | {common.verdict(most <= 1000)}" if name == "c_ours" else " | "
        line = f"| {words} | {number(most)} | {limit} |"
        if name in check:
            each = check[name]
            near = "–" if each["near"] is None else f"{each['near']:.2f}"
            far = "–" if each["far"] is None else f"{each['far']:.2f}"
            line += f" {far} | {near} | {each['pull']:.3f} | {each['missing']} |"
        elif "failed" in check:
            line += f" {check['failed']} | | | |"
        elif most is not None:
            line += " | | | |"
        if most is not None:
            lines.append(line)
    seconds, stars, most = (
        median(results, "c_epsf", key) for key in ("seconds", "stars", "peak_mb")
    )
    lines += [
        "",
        f"* (c) before the call the memory is {number(before)} MB. Building the PSF from "
        f"{stars:.0f} stars (not counted): {number(seconds)} s, {number(most)} MB.",
    ]
    if "c_ours" in check:
        lines.append(
            f"* (c) bright stars: {check['c_ours']['n_far']} stand alone, "
            f"{check['c_ours']['n_near']} have a neighbour within two widths."
        )
    return lines


def _night(results):
    """Memory, time and bytes of (d)."""
    one, two = results["d_one"][0], results["d_two"][0]
    if "failed" in one or "failed" in two:
        return [f"(d) {common.failure(results, 'd_one', 'd_two')}"]
    lines = ["| (d) a night | one process | two | wanted | |",
             "| --- | ---: | ---: | ---: | --- |"]  # fmt: skip
    lines.append(f"| time (s) | {number(one['seconds'])} | {number(two['seconds'])} | | |")
    total = two["peak_mb"] + 2 * two["child_mb"]
    met = common.verdict(max(one["peak_mb"], total) <= 2000)
    lines.append(f"| peak memory (MB) | {one['peak_mb']:.0f} | {total:.0f} | ≤ 2000 | {met} |")
    same = one["sums"] == two["sums"]
    lines.append(f"| the same bytes | | {'yes' if same else 'no'} | yes | {common.verdict(same)} |")
    shape = " x ".join(str(length) for length in one["shape"])
    return [
        *lines,
        "",
        f"* (d) fluxes of {shape} (stars, frames, radii) in a file of {one['file_mb']:.0f} MB, "
        "read by `Table.read`. The memory of two is that of the first process and twice the "
        "largest of the others.",
    ]


def _compile(result):
    """Lines on the time to compile."""
    if "failed" in result:
        return [f"* (e) {result['failed']}."]
    total, words = result.pop("total"), []
    for name, seconds in result.items():
        words.append(
            f"`{name}` {seconds:.1f} s" if isinstance(seconds, float) else f"`{name}`: {seconds}"
        )
    met = common.verdict(total < 10 and all(isinstance(each, float) for each in result.values()))
    return [
        f"* (e) compile time (of the processor): {total:.1f} s (wanted < 10 s: {met}): "
        f"{', '.join(words)}."
    ]


def version(program):
    """Name and version of a program."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    digits = [word for word in (text.stdout + text.stderr).split() if word[:1].isdigit()]
    return f"{program} {digits[0]}" if digits else program


def main():
    """Read the options and run."""
    parser = common.parser(__doc__, CASES)
    parser.add_argument("--frames", type=int, default=200, help="of the night in (d)")
    options, parts = common.chosen(parser, CASES)
    if options.child:
        child(options.child, options)
        return
    common.run(
        options,
        parts,
        measure=measure,
        table=table,
        scratch=("kept", "small/kept", "night"),
        markers=MARKERS,
    )


if __name__ == "__main__":
    main()
