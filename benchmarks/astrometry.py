"""Measure detection and plate solving against photutils, sep, source-extractor and solve-field.

Run it from the root of the repository; README.md beside this file says what is measured and how::

    python benchmarks/astrometry.py
    python benchmarks/astrometry.py --only a,b --repeats 5
    python benchmarks/astrometry.py --only d --fields 500

Every number comes from a child process of its own: it imports one side only, does the step once on
a small frame (which loads the compiled code), then on the full one, and reports the time.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import fields
import numpy as np
from common import median, number, row

SEED = 4
SKY, NOISE = 1000.0, 30.0  # ADU
FWHM, BETA = 3.5, 3.5  # px, slope of the wings
SCALE = 1.0  # arcsec/px
DETECTABLE = 5.0  # signal to noise of the faintest star that counts, in the best possible filter
FAINTEST = 0.3  # stars are drawn down to this part of that
SLOPE = 0.75  # N(> flux) goes as flux to the minus this
BRIGHTEST = 6e5  # ADU: no star is saturated
CENTER, ROTATION, CORNER, SHIFT = (150.2, 32.4), 27.0, 3.5, (80.0, -50.0)
POINTING_ERROR, SCALE_ERROR = 7 / 60, 0.015  # deg, a part: what the header has wrong
CATALOGUE_ERROR = 0.005  # arcsec, each axis
#: Columns, rows, detectable stars, search radius in deg: the frame, and a small one for a start.
SMALL = (600, 400, 150, 0.15)
STARS, SEARCH_RADIUS = 1000, 0.5
#: Index files: presets of build-astrometry-index, for quads of 8 to 32 arcmin (field 80 x 53).
PRESETS = (4, 5, 6, 7)
PACKAGES = ("numpy", "numba", "scipy", "astropy", "photutils", "sep", "datared")
PROGRAMS = ("source-extractor", "solve-field", "build-astrometry-index")
MARKERS = ("<!-- table of astrometry -->", "<!-- end of table of astrometry -->")


# --- the frame -----------------------------------------------------------------------------------


def simulate(folder, size, count, search_radius):
    """Write a frame, a catalogue, and the truth that they were made from."""
    from astropy.io import fits
    from astropy.table import Table

    from datared.render import star_image

    folder.mkdir(parents=True, exist_ok=True)
    nx, ny = size
    rng = np.random.default_rng(SEED)
    optics = frame_optics(size)
    cone = search_radius + 0.5 * math.hypot(nx, ny) * SCALE / 3600
    radius = (cone + POINTING_ERROR) * 3600 / SCALE
    n = int(count * FAINTEST**-SLOPE * math.pi * radius**2 / (nx * ny))
    r, angle = radius * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    offset = np.column_stack([r * np.cos(angle), r * np.sin(angle)])
    sky = optics.wcs.wcs_pix2world((np.array([nx, ny]) - 1) / 2 + offset, 0)
    pixel = optics.pixels(*sky.T)
    on = ((pixel > -0.5) & (pixel < np.array([nx, ny]) - 0.5)).all(axis=1)
    # The sum of the squared profile gives the signal to noise in the best possible filter.
    alpha = FWHM / (2 * math.sqrt(2 ** (1 / BETA) - 1))
    best = (BETA - 1) / (alpha * math.sqrt(math.pi * (2 * BETA - 1)))
    snr = rng.random(n) ** (-1 / SLOPE)
    snr *= DETECTABLE / np.sort(snr[on])[-count]
    snr = np.minimum(snr, BRIGHTEST * best / NOISE)
    flux = snr * NOISE / best
    near = ((pixel > -80) & (pixel < np.array([nx, ny]) + 80)).all(axis=1)
    image = star_image((ny, nx), *pixel[near].T, flux[near], fwhm=FWHM, beta=BETA)
    image += SKY
    image += rng.standard_normal(image.shape) * NOISE * np.sqrt(image / SKY)
    fits.writeto(folder / "frame.fits", image.astype(np.float32), overwrite=True)
    hint = (CENTER[0] + 0.8 * POINTING_ERROR / math.cos(math.radians(CENTER[1])),
            CENTER[1] - 0.6 * POINTING_ERROR)  # fmt: skip
    listed = np.flatnonzero(snr >= DETECTABLE)
    listed = listed[np.argsort(-snr[listed])]
    error = rng.normal(0, CATALOGUE_ERROR / 3600, (len(listed), 2))
    error[:, 0] /= math.cos(math.radians(CENTER[1]))
    magnitude = 20 - 2.5 * np.log10(snr[listed]) + rng.normal(0, 0.02, len(listed))
    ra, dec = (sky[listed] + error).T
    catalogue = Table({"ra": ra, "dec": dec, "r": magnitude})
    catalogue.write(folder / "catalogue.fits", overwrite=True)
    # Another sky of as many stars, to be refused.
    order = rng.permutation(len(listed))
    other = Table({"ra": ra[order], "dec": np.sort(dec), "r": magnitude})
    other.write(folder / "other.fits", overwrite=True)
    np.savez(folder / "truth.npz", pixel=pixel[on], snr=snr[on], flux=flux[on])
    facts = {"hint": hint, "scale": SCALE * (1 + SCALE_ERROR), "search_radius": search_radius}
    facts |= {"on": int(np.count_nonzero(snr[on] >= DETECTABLE)), "listed": len(listed)}
    (folder / "facts.json").write_text(json.dumps(facts | {"size": size}))


def frame_optics(size):
    """Give the true optics of a frame of that size."""
    shape = size[::-1]
    return fields.make_optics(
        shape, CENTER, scale=SCALE, rotation=ROTATION, mirrored=False, corner=CORNER, shift=SHIFT
    )


def build_index(folder):
    """Make index files of the catalogue for solve-field, and its configuration."""
    from astropy.table import Table

    need("build-astrometry-index")
    place = folder / "index"
    place.mkdir(exist_ok=True)
    catalogue = Table.read(folder / "catalogue.fits")
    stars = Table({"RA": catalogue["ra"], "DEC": catalogue["dec"], "MAG": catalogue["r"]})
    stars.write(folder / "stars.fits", overwrite=True)
    for preset in PRESETS:
        command = ["build-astrometry-index", "-i", folder / "stars.fits", "-P", str(preset)]
        command += ["-o", place / f"index-{preset}.fits", "-I", f"90{preset}", "-E"]
        command += ["-A", "RA", "-D", "DEC", "-S", "MAG", "-t", folder]
        subprocess.run(command, check=True, capture_output=True)
    lines = ["inparallel", "cpulimit 100", f"add_path {place}", "autoindex"]
    (folder / "engine.cfg").write_text("\n".join(lines) + "\n")


def need(program):
    """Raise if a program is not installed."""
    if shutil.which(program) is None:
        raise RuntimeError(f"{program} is not installed")


def facts_of(folder):
    """Give what is known of a frame."""
    return json.loads((folder / "facts.json").read_text())


def pixels(folder):
    """Read the frame as float32 in the order of the machine."""
    from astropy.io import fits

    return fits.getdata(folder / "frame.fits").astype(np.float32)


# --- what is measured ----------------------------------------------------------------------------
# Each of these prepares the inputs and gives the call that is timed. What a call gives is a list of
# stars in (a), with columns x and y, and a function from pixels to the sky in (b) and (c).


def a_ours(folder, method="sep"):
    """Detect stars in a frame in memory."""
    from datared.sources import detect

    data = pixels(folder)
    return lambda: detect(data, method=method)


def a_ours_file(folder):
    """Read the file and detect stars."""
    from datared.sources import detect

    return lambda: detect(pixels(folder))


def a_ours_segmentation(folder):
    """Detect stars by the segmentation of photutils within our function."""
    return a_ours(folder, method="segmentation")


def a_photutils(folder):
    """Detect stars in the course's old way."""
    from astropy.convolution import convolve
    from photutils.background import Background2D, MedianBackground
    from photutils.segmentation import SourceCatalog, SourceFinder, make_2dgaussian_kernel

    data = pixels(folder)
    columns = ("label", "x_centroid", "y_centroid", "segment_flux", "segment_flux_err")
    columns += ("max_value", "fwhm", "elongation")
    kernel = make_2dgaussian_kernel(FWHM, size=21)
    box = min(300, min(data.shape) // 2)

    def call():
        background = Background2D(
            data, (box, box), filter_size=(3, 3), bkg_estimator=MedianBackground()
        )
        sky = data - background.background
        smooth = convolve(sky, kernel)
        # The convolution leaves a fifth of the noise of a pixel: five sigma of what is left.
        threshold = 5 * _left(kernel.array) * background.background_rms
        segments = SourceFinder(n_pixels=5, progress_bar=False)(smooth, threshold)
        error = background.background_rms
        catalogue = SourceCatalog(sky, segments, convolved_data=smooth, error=error)
        return catalogue.to_table(columns=columns)

    call.names = ("x_centroid", "y_centroid")
    return call


def _left(kernel):
    """Part of the noise of a pixel that a filter leaves."""
    return float(np.sqrt((kernel**2).sum()) / kernel.sum())


def a_sep(folder):
    """Detect stars with sep and its default filter, which leaves 0.375 of the noise."""
    import sep

    data = pixels(folder)

    def call():
        background = sep.Background(data)
        return sep.extract(data - background, 5 * 0.375, err=background.globalrms)

    return call


def a_extractor(folder, kernel="gauss_3.0_7x7.conv", left=0.2217):
    """Detect stars with the program source-extractor; the default writes what ours has."""
    need("source-extractor")
    share = Path("/usr/share/source-extractor")
    if not (share / kernel).is_file():
        raise RuntimeError(f"the file {kernel} of source-extractor is not in {share.name}")
    wanted = ("XWIN_IMAGE", "YWIN_IMAGE", "FLUX_APER(1)", "FLUX_MAX", "FWHM_IMAGE")
    wanted += ("ELONGATION", "SNR_WIN", "FLAGS")
    parameters, output = folder / "extractor.param", folder / "extractor.fits"
    parameters.write_text("\n".join(wanted) + "\n")
    command = ["source-extractor", folder / "frame.fits", "-c", share / "default.sex"]
    settings = {
        "CATALOG_NAME": output,
        "CATALOG_TYPE": "FITS_1.0",
        "PARAMETERS_NAME": parameters,
        "FILTER_NAME": share / kernel,
        "STARNNW_NAME": share / "default.nnw",
        "DETECT_MINAREA": 3,
        "DETECT_THRESH": 5 * left,
        "ANALYSIS_THRESH": 5 * left,
        "PHOT_APERTURES": 3 * FWHM,
        "BACK_SIZE": 64,
        "MEMORY_OBJSTACK": 20000,
        "MEMORY_PIXSTACK": 3000000,
        "VERBOSE_TYPE": "QUIET",
    }
    for name, value in settings.items():
        command += [f"-{name}", str(value)]

    def call():
        subprocess.run(command, check=True, capture_output=True)
        return output

    call.names = ("XWIN_IMAGE", "YWIN_IMAGE")
    call.prepare = lambda: output.unlink(missing_ok=True)
    return call


def a_extractor_default(folder):
    """Detect stars with the program source-extractor and its default filter of 3 x 3 pixels."""
    return a_extractor(folder, "default.conv", 0.375)


def _solver(folder, name="catalogue.fits"):
    """Give a function that solves a list of sources of the frame."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    from datared.catalogs import read_catalogue
    from datared.solver import solve_frame

    facts, catalogue = facts_of(folder), read_catalogue(folder / name)
    options = {
        "shape": tuple(facts["size"][::-1]),
        "center": SkyCoord(*facts["hint"], unit="deg"),
        "scale": facts["scale"],
        "search_radius": facts["search_radius"] * u.deg,
    }
    return lambda sources: solve_frame(sources, catalogue, **options)


def b_ours(folder):
    """Solve a list of sources."""
    from datared.sources import detect

    sources, solve = detect(pixels(folder)), _solver(folder)
    return lambda: solve(sources)


def b_refused(folder):
    """Refuse a list of sources with the catalogue of another sky."""
    from datared.errors import SolveError
    from datared.sources import detect

    sources, solve = detect(pixels(folder)), _solver(folder, "other.fits")

    def call():
        try:
            solve(sources)
        except SolveError:
            return None
        raise RuntimeError("a wrong solution was accepted")

    return call


def c_ours(folder):
    """Read the file, detect, solve; the catalogue is in memory, as it is after the first frame."""
    from datared.sources import detect

    solve = _solver(folder)
    return lambda: solve(detect(pixels(folder)))


def c_ours_catalogue(folder):
    """Read the file and the catalogue, detect, solve."""
    from datared.sources import detect

    return lambda: _solver(folder)(detect(pixels(folder)))


def _solve_field(folder, first, second=None):
    """Give the call of one or two passes of solve-field."""
    need("solve-field")
    if not (folder / "engine.cfg").is_file():
        raise RuntimeError("build-astrometry-index is not installed")
    work = folder / "solve-field"
    base = ["solve-field", "--overwrite", "--no-plots", "--cpulimit", "100", "--no-verify"]
    base += ["--config", folder / "engine.cfg", "--dir", work, "--temp-dir", folder]
    for product in ("new-fits", "match", "rdls", "corr", "index-xyls"):
        base += [f"--{product}", "none"]

    def one(name, options):
        subprocess.run(
            [*base, "--out", name, *map(str, options), folder / "frame.fits"],
            check=True, capture_output=True,
        )  # fmt: skip
        path = work / f"{name}.wcs"
        if not path.is_file():
            raise RuntimeError("solve-field did not solve the frame")
        return path

    def call():
        path = one("first", first)
        return one("second", second(path)) if second else path

    call.prepare = lambda: shutil.rmtree(work, ignore_errors=True)
    return call


def _around(folder, ra, dec, scale, radius, tolerance):
    """Give the options of solve-field for a known pointing and scale."""
    return [
        *("--ra", ra, "--dec", dec, "--radius", radius, "--scale-units", "arcsecperpix"),
        *("--scale-low", scale * (1 - tolerance), "--scale-high", scale * (1 + tolerance)),
    ]


def _then(folder, *options):
    """Give the options of the second pass: what the first one found, and a distortion."""

    def second(path):
        from astropy.io import fits
        from astropy.wcs import WCS

        nx, ny = facts_of(folder)["size"]
        wcs = WCS(fits.getheader(path))
        ra, dec = wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
        scale = math.sqrt(abs(np.linalg.det(wcs.wcs.cd))) * 3600
        return [*_around(folder, ra, dec, scale, 0.1, 0.02), "--tweak-order", 3, *options]

    return second


def c_two(folder):
    """Two passes of the course: blind on the frame at half the size, then all of it with SIP."""
    return _solve_field(folder, ["--downsample", 2, "--no-tweak"], _then(folder))


def c_two_small(folder):
    """Two passes, both on the frame at half the size."""
    first = ["--downsample", 2, "--no-tweak"]
    return _solve_field(folder, first, _then(folder, "--downsample", 2))


def c_one(folder):
    """One pass, on the frame at half the size, with the header's pointing and scale, and SIP."""
    facts = facts_of(folder)
    options = _around(folder, *facts["hint"], facts["scale"], facts["search_radius"], 0.05)
    return _solve_field(folder, [*options, "--tweak-order", 3, "--downsample", 2])


def c_one_extractor(folder):
    """One pass with pointing and scale, where source-extractor finds the stars."""
    need("source-extractor")
    facts = facts_of(folder)
    options = _around(folder, *facts["hint"], facts["scale"], facts["search_radius"], 0.05)
    return _solve_field(folder, [*options, "--tweak-order", 3, "--use-source-extractor"])


CASES = {
    "a": (
        *(a_ours, a_photutils, a_ours_file, a_extractor, a_sep, a_extractor_default),
        a_ours_segmentation,
    ),
    "b": (b_ours, b_refused),
    "c": (c_ours, c_two, c_one, c_ours_catalogue, c_two_small, c_one_extractor),
    "d": (),
}
#: Programs need no start on a small frame: they have no compiled code to load.
OUTSIDE = ("a_extractor", "a_extractor_default", "c_two", "c_two_small", "c_one", "c_one_extractor")
#: For information: measured once.
ONCE = ("a_ours_segmentation", "a_extractor_default", "c_two_small", "c_one_extractor")


# --- how well it is done -------------------------------------------------------------------------


def keep(folder, name, call, value):
    """Save what a case gave: stars as x and y (px, 0-based), solutions as the sky on a grid."""
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    if name.startswith("a_"):
        from astropy.table import Table

        names, offset = getattr(call, "names", ("x", "y")), 0
        if isinstance(value, Path):
            value, offset = Table.read(value, hdu=1), 1
        xy = np.column_stack([np.asarray(value[key], float) for key in names]) - offset
        np.savez(kept / f"{name}.npz", xy=xy)
    elif value is not None:
        from astropy.io import fits
        from astropy.wcs import WCS

        matched = 0 if isinstance(value, Path) else value.n_matched
        wcs = WCS(fits.getheader(value)) if isinstance(value, Path) else value.wcs
        points = fields.grid(facts_of(folder)["size"][::-1], 25)
        sky = wcs.all_pix2world(points, 0)
        np.savez(kept / f"{name}.npz", points=points, sky=sky, matched=matched)


def check_a(folder):
    """Compare each list of stars with the truth."""
    from scipy.spatial import cKDTree

    truth, texts = np.load(folder / "truth.npz"), {}
    pixel, snr = truth["pixel"], truth["snr"]
    everywhere = cKDTree(pixel)
    nx, ny = facts_of(folder)["size"]
    inside = ((pixel > 10) & (pixel < [nx - 11, ny - 11])).all(axis=1)
    # What is closer than two widths to a star of at least its brightness is one source with it.
    partner = cKDTree(pixel).query_pairs(2.5 * FWHM, output_type="ndarray")
    alone = np.ones(len(pixel), bool)
    alone[partner.ravel()] = False
    for case in CASES["a"]:
        path = folder / "kept" / f"{case.__name__}.npz"
        if not path.is_file():
            continue
        found = np.load(path)["xy"]
        tree = cKDTree(found)
        texts[case.__name__] = {"found": len(found)}
        for limit in (7, 10):
            wanted = inside & alone & (snr >= limit)
            distance, _ = tree.query(pixel[wanted])
            texts[case.__name__][f"recall_{limit}"] = float(np.mean(distance < 2))
        bright = inside & alone & (snr >= 50)
        distance, nearest = tree.query(pixel[bright])
        error = (found[nearest] - pixel[bright])[distance < 2]
        texts[case.__name__]["error"] = float(np.sqrt(np.mean(error**2)))
        texts[case.__name__]["false"] = float(np.mean(everywhere.query(found)[0] > 3))
    return texts


def check_sky(folder):
    """Compare each solution with the truth on a grid over the frame."""
    optics, texts = frame_optics(facts_of(folder)["size"]), {}
    for case in (*CASES["b"], *CASES["c"]):
        path = folder / "kept" / f"{case.__name__}.npz"
        if path.is_file():
            kept = np.load(path)
            error = fields.separation(kept["sky"], optics.sky(kept["points"]))
            texts[case.__name__] = {
                "median": float(np.median(error)),
                "worst": float(error.max()),
                "matched": int(kept["matched"]),
            }
    return texts


# --- random fields -------------------------------------------------------------------------------


def some_fields(options, part, parts):
    """Solve every so-many-th random field, and refuse as many lists, until the time is over."""
    start, results = time.perf_counter(), {"fields": [], "lists": []}
    fields.solve(fields.draw(0))
    for kind, until in (("fields", 0.5), ("lists", 1.0)):
        for seed in range(part, options.fields, parts):
            if time.perf_counter() - start > until * 60 * options.minutes:
                break
            field, sources = fields.draw(seed), None
            if kind == "lists":
                field, sources = fields.unrelated(seed)
            result = fields.solve(field, sources)
            result |= {"seed": seed, "stars": field.n_catalogue, "words": field.words}
            if kind == "fields":
                # A refusal is a failure where the field has stars enough, a wrong place always.
                enough = field.n_catalogue >= fields.ENOUGH
                wrong = result.get("worst", math.inf if enough else 0.0) > 1
            else:
                wrong = "worst" in result
            result["wrong"] = wrong
            if wrong and options.failures:
                options.failures.mkdir(parents=True, exist_ok=True)
                listed = field.sources if sources is None else sources
                fields.keep(options.failures / f"{kind}-{seed:04d}.npz", field, listed, result)
            results[kind].append(result)
    return results


# --- in the child --------------------------------------------------------------------------------


def child(name, options):
    """Do one thing and print what came of it as JSON."""
    folder, small, result = options.folder, options.folder / "small", {}
    if name == "simulate":
        simulate(small, SMALL[:2], SMALL[2], SMALL[3])
        nx, ny = (int(n) for n in options.size.split("x"))
        stars = max(100, round(STARS * nx * ny / (4788 * 3194)))
        simulate(folder, (nx, ny), stars, SEARCH_RADIUS)
    elif name == "index":
        start = time.perf_counter()
        build_index(folder)
        result["seconds"] = time.perf_counter() - start
    elif name == "compile":
        first, second = (common.timed(c_ours(small))[1] for _ in range(2))
        result["seconds"] = first - second
    elif name.startswith("check_"):
        result = globals()[name](folder)
    elif name.startswith("fields"):
        result = some_fields(options, *map(int, name.split("_")[1:]))
    else:
        build = globals()[name]
        if name not in OUTSIDE:
            common.timed(build(small))
        call = build(folder)
        before = common.peak_memory()
        value, seconds = common.repeated(call)
        result = {"seconds": statistics.median(seconds), "before_mb": before}
        result["peak_mb"] = common.peak_memory()
        keep(folder, name, call, value)
    print(json.dumps(result))


# --- in the parent -------------------------------------------------------------------------------


def spawn(name, options, *, quiet=False, **environment):
    """Run one child and give its result."""
    arguments = ["--folder", str(options.folder), "--size", options.size]
    arguments += ["--fields", str(options.fields), "--minutes", str(options.minutes)]
    if options.failures:
        arguments += ["--failures", str(options.failures)]
    return common.spawn(__file__, name, arguments, quiet=quiet, **environment)


def measure(options, parts):
    """Run everything and give all numbers: lists of results by the names of cases."""
    results = {}
    if parts & set("abc"):
        stamp = options.folder / "simulated.txt"
        if not stamp.is_file() or stamp.read_text() != options.size:
            if "failed" in spawn("simulate", options):
                sys.exit("The frame could not be simulated.")
            stamp.write_text(options.size)
        if "c" in parts:
            results["index"] = [spawn("index", options)]
        results["facts"] = [facts_of(options.folder)]
    for part in sorted(parts):
        for repeat in range(options.repeats):
            for case in CASES[part]:
                if not repeat or case.__name__ not in ONCE:
                    results.setdefault(case.__name__, []).append(spawn(case.__name__, options))
    if "a" in parts:
        results["check_a"] = [spawn("check_a", options)]
    if parts & set("bc"):
        results["check_sky"] = [spawn("check_sky", options)]
        with tempfile.TemporaryDirectory() as cache:
            results["compile"] = [spawn("compile", options, NUMBA_CACHE_DIR=cache)]
    if "d" in parts:
        results["d"] = [random_fields(options)]
    return results


def random_fields(options):
    """Share the random fields among as many children as there are processors."""
    parts = os.cpu_count() or 1
    names = [f"fields_{k}_{parts}" for k in range(parts)]
    with ThreadPoolExecutor(parts) as pool:
        done = list(pool.map(lambda name: spawn(name, options, quiet=True), names))
    for each in done:
        if "failed" in each:
            return each
    return {kind: [one for each in done for one in each[kind]] for kind in ("fields", "lists")}


#: Part, what, ours, theirs, the least of theirs / ours that is wanted (None: for information).
#: Without theirs, the most seconds that are wanted.
ROWS = (
    ("a", "detection, against the course's old way", "a_ours", "a_photutils", 15),
    ("a", "with reading, against `source-extractor`", "a_ours_file", "a_extractor", 1),
    ("a", "the same, its filter of 3 x 3", "a_ours_file", "a_extractor_default", None),
    ("a", "detection, against sep alone", "a_ours", "a_sep", None),
    ("a", '`method="segmentation"`, the old way', "a_ours_segmentation", "a_photutils", None),
    ("b", "solving alone", "b_ours", None, 0.05),
    ("b", "refusing unrelated stars", "b_refused", None, None),
    ("c", "detection and solving, against two passes", "c_ours", "c_two", 15),
    ("c", "the same, both passes at half size", "c_ours", "c_two_small", None),
    ("c", "against one pass with pointing and scale", "c_ours", "c_one", 5),
    ("c", "the same, with `source-extractor`", "c_ours", "c_one_extractor", None),
    ("c", "reading the catalogue too, one pass", "c_ours_catalogue", "c_one", None),
)
LISTS = {
    "a_ours": "ours",
    "a_ours_segmentation": "ours, segmentation",
    "a_photutils": "the course's old way",
    "a_sep": "sep alone",
    "a_extractor": "`source-extractor`",
    "a_extractor_default": "`source-extractor`, 3 x 3",
}
SOLUTIONS = {
    "b_ours": "ours, from the list",
    "c_ours": "ours",
    "c_two": "two passes",
    "c_two_small": "two passes at half size",
    "c_one": "one pass",
    "c_one_extractor": "one pass, `source-extractor`",
}


def table(results, options, parts):
    """Lines of Markdown: times, accuracy, random fields, machine, versions, command."""
    lines = []
    if parts & set("abc"):
        lines += [
            "| | what | ours (s) | theirs (s) | ratio | wanted | |",
            "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        ]
    for part, what, ours, theirs, wanted in ROWS:
        if part not in parts:
            continue
        values = median(results, ours, "seconds"), median(results, theirs, "seconds")
        why = common.failure(results, ours, theirs)
        if theirs:
            lines.append(row(f"({part})", what, *values, wanted, "least", why))
            continue
        words = why if values[0] is None else ""
        if wanted and not words:
            words = common.verdict(values[0] <= wanted)
        limit = f"≤ {wanted}" if wanted else ""
        lines.append(f"| ({part}) | {what} | {number(values[0])} | | | {limit} | {words} |")
    if "a" in parts:
        lines += ["", *_lists(results["check_a"][0])]
    if parts & set("bc"):
        lines += ["", *_solutions(results["check_sky"][0])]
    if "d" in parts:
        lines += ["", *_fields(results["d"][0], options)]
    lines.append("")
    note = "random fields only"
    if parts & set("abc"):
        once = ", ".join(f"`{name}`" for name in ONCE)
        lines.append(f"* repeats: {options.repeats}, but one of {once}.")
        facts = results["facts"][0]
        note = (
            f"{options.size} pixels, float32, {facts['on']} stars of S/N {DETECTABLE:.0f} or more; "
            f"{facts['listed']} stars in the catalogue"
        )
        peak = median(results, "c_ours", "peak_mb") or median(results, "a_ours", "peak_mb")
        lines.append(f"* peak memory of detection and solving: {number(peak)} MB.")
    seconds = median(results, "compile", "seconds")
    if seconds is not None:
        lines.append(f"* compile time of detection and solving: {seconds:.1f} s, once.")
    if "index" in results and "seconds" in results["index"][0]:
        seconds = results["index"][0]["seconds"]
        lines.append(f"* building the index for `solve-field` (not counted): {seconds:.1f} s.")
    lines.append(f"* programs: {', '.join(version(program) for program in PROGRAMS[:2])}.")
    return lines + [f"* {text}" for text in common.machine(__file__, PACKAGES, options, note)]


def _lists(check):
    """Table of the lists of stars against the truth."""
    if "failed" in check:
        return [f"(a) {check['failed']}"]
    lines = [
        "| detection | found | S/N ≥ 7 | S/N ≥ 10 | false | error of bright stars (px) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, words in LISTS.items():
        if name in check:
            each = check[name]
            parts = (f"{100 * each[key]:.1f} %" for key in ("recall_7", "recall_10", "false"))
            lines.append(
                f"| {words} | {each['found']} | {' | '.join(parts)} | {each['error']:.4f} |"
            )
    return lines


def _solutions(check):
    """Table of the solutions against the truth, and whether ours is the closest."""
    if "failed" in check:
        return [f"(c) {check['failed']}"]
    lines = [
        "| solution | median error (arcsec) | worst over the frame | stars matched |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, words in SOLUTIONS.items():
        if name in check and not (name == "b_ours" and "c_ours" in check):
            each = check[name]
            matched = each["matched"] or ""
            errors = f"{each['median']:.4f} | {each['worst']:.3f}"
            lines.append(f"| {words} | {errors} | {matched} |")
    ours, others = check.get("c_ours"), [n for n in SOLUTIONS if "ours" not in n and n in check]
    for name in others if ours else ():
        closer = all(ours[key] < check[name][key] for key in ("median", "worst"))
        wanted = _met(closer) if name == "c_two" else "yes" if closer else "no"
        lines.append(f"* (c) ours is closer to the truth than {SOLUTIONS[name]}: {wanted}.")
    if others and ours:
        lines.insert(-len(others), "")
    return lines


def _fields(result, options):
    """Lines on the random fields."""
    if "failed" in result:
        return [f"(d) {result['failed']}"]
    done = [one for one in result["fields"] if one["stars"] >= fields.ENOUGH]
    solved = [one for one in done if "worst" in one]
    right = [one for one in solved if one["worst"] <= 1]
    every = [one for one in result["fields"] if "worst" in one]
    off = [one for one in every if one["worst"] > 1]
    elsewhere = [one for one in off if one["median"] > 5]
    lists = result["lists"]
    accepted = [one for one in lists if "worst" in one]
    share = len(right) / max(len(done), 1)
    return [
        "| (d) random fields | | wanted | |",
        "| --- | ---: | ---: | --- |",
        f"| fields tried | {len(result['fields'])} of {options.fields} | | |",
        f"| with {fields.ENOUGH} catalogue stars or more on the frame | {len(done)} | | |",
        f"| of these solved within 1 px everywhere | {math.floor(1e4 * share) / 100:.2f} % "
        f"| ≥ 99 % | {common.verdict(share >= 0.99)} |",
        f"| of all, solutions more than 1 px off somewhere | {len(off)} | 0 | "
        f"{common.verdict(not off)} |",
        f"| of these, at another place of the sky | {len(elsewhere)} | 0 | "
        f"{common.verdict(not elsewhere)} |",
        f"| time of a solution (s): median, 95 % below, longest | {_times(every)} | | |",
        f"| lists of unrelated stars tried | {len(lists)} of {options.fields} | | |",
        f"| of these accepted | {len(accepted)} | 0 | {common.verdict(not accepted)} |",
        f"| time of a refusal (s): median, 95 % below, longest | {_times(lists)} | | |",
        *_failures(result),
    ]


def _failures(result):
    """Lines that name what failed, for whoever wants to look."""
    lines = []
    for kind, what in (("fields", "fields not solved well"), ("lists", "unrelated lists accepted")):
        named = [str(one["seed"]) for one in result[kind] if one["wrong"]]
        if named:
            lines.append(f"* (d) numbers of the {what}: {', '.join(sorted(named, key=int))}.")
    return ["", *lines] if lines else []


def _times(results):
    """Median, 95th percentile and maximum of the times as a text."""
    seconds = [one["seconds"] for one in results]
    return ", ".join(map(number, np.percentile(seconds, [50, 95, 100]))) if seconds else "–"


def _met(good):
    """Words for a target that is a fact."""
    return "yes (met)" if good else "no (**not met**)"


def version(program):
    """Name and version of a program."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    words = (text.stdout + text.stderr).replace(",", " ").split()
    digits = [word for word in words if word[:1].isdigit()]
    return f"{program} {digits[0]}" if digits else program


def main():
    """Read the options and run."""
    parser = common.parser(__doc__, CASES)
    parser.add_argument("--fields", type=int, default=500, help="random fields in (d)")
    parser.add_argument("--minutes", type=float, default=4.0, help="most that (d) may take")
    parser.add_argument("--failures", type=Path, help="save the fields that fail here")
    options, parts = common.chosen(parser, CASES)
    if options.child:
        child(options.child, options)
        return
    common.run(
        options,
        parts,
        measure=measure,
        table=table,
        scratch=("kept", "solve-field"),
        markers=MARKERS,
    )


if __name__ == "__main__":
    main()
