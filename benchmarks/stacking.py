"""Measure the stacking against reproject, ccdproc and SWarp, all in one run.

Run it from the root of the repository; README.md beside this file says what is measured and how::

    python benchmarks/stacking.py
    python benchmarks/stacking.py --only a,c --repeats 5

Every number comes from a child process of its own: it imports one side only, runs the step once on
small frames (which loads the compiled code), then on the full ones, and reports time and memory.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import common
import numpy as np
from common import median, number, peak_memory, timed

SEED = 11
N_FRAMES = 10
SCALE = 0.4  # arcsec per pixel
CENTER = (150.0, 30.0)  # deg
SKY, GAIN, READ_NOISE = 800.0, 1.2, 8.0  # ADU, e-/ADU, e-
NOISE = float(np.hypot(np.sqrt(SKY / GAIN), READ_NOISE / GAIN))  # ADU
RADIUS = 10.0  # px, of the apertures that compare light
SMALL = "600x400"
#: A case that takes longer than this (s) is measured once.
PATIENCE = 100.0
PACKAGES = ("numpy", "numba", "astropy", "reproject", "ccdproc", "datared")
MARKERS = ("<!-- stacking -->", "<!-- end of stacking -->")


# --- the frames ----------------------------------------------------------------------------------


def frame_wcs(size, shift, rotation):
    """Coordinates of a frame (TAN without distortion, which all programs read alike)."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = CENTER
    wcs.wcs.crpix = [(size[0] + 1) / 2 + shift[0], (size[1] + 1) / 2 + shift[1]]
    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.cd = turn @ np.diag([-SCALE / 3600, SCALE / 3600])
    return wcs


def simulate(folder, size):
    """Write the frames of a dithered, once flipped series, and the positions and light of stars.

    Stars are Gaussians integrated over pixels. The seeing changes from frame to frame, a satellite
    crosses the fourth, and particles hit all.
    """
    from astropy.io import fits

    nx, ny = size
    rng = np.random.default_rng(SEED)
    count = max(nx * ny // 8000, 60)
    reference = frame_wcs(size, (0, 0), 0.0)
    x, y = rng.uniform(0, nx, count), rng.uniform(0, ny, count)
    ra, dec = reference.wcs_pix2world(x, y, 0)
    flux = 10 ** rng.uniform(3.0, 5.5, count)
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "truth.npz", ra=ra, dec=dec, flux=flux)

    def write(k):
        own = np.random.default_rng([SEED, k])
        shift = own.uniform(-40, 40, 2) if k else np.zeros(2)
        turn = own.uniform(-0.3, 0.3) + (180.0 if k >= N_FRAMES // 2 else 0.0) if k else 0.0
        wcs = frame_wcs(size, shift, turn)
        data = own.standard_normal((ny, nx), dtype=np.float32)
        data *= np.float32(NOISE)
        data += np.float32(SKY)
        draw_stars(data, *wcs.wcs_world2pix(ra, dec, 0), flux, own.uniform(2.4, 3.4) / 2.3548, own)
        if k == 3:
            line = np.arange(nx)
            rows = (0.2 * ny + 0.6 * ny * line / nx).astype(int)
            for offset, light in ((-1, 100.0), (0, 300.0), (1, 100.0)):
                data[rows + offset, line] += light
        hits = own.integers(0, nx * ny, nx * ny // 8000)
        data.reshape(-1)[hits] += own.lognormal(7, 0.7, hits.size).astype(np.float32)
        header = wcs.to_header()
        header["EXPTIME"], header["GAIN"], header["FILTER"] = 60.0, GAIN, "r"
        path = folder / "frames" / f"frame_{k:02d}.fits"
        fits.PrimaryHDU(data, header).writeto(path, overwrite=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(N_FRAMES)))


def draw_stars(data, x, y, flux, sigma, rng):
    """Add stars with their photon noise to an image (in place)."""
    from scipy.special import erf

    ny, nx = data.shape
    half = 12
    edges = np.arange(-half, half + 2) - 0.5
    for a, b, light in zip(x, y, flux, strict=True):
        i, j = round(float(b)), round(float(a))
        if not (half <= i < ny - half and half <= j < nx - half):
            continue
        row = np.diff(erf((edges - (a - j)) / (sigma * np.sqrt(2)))) / 2
        column = np.diff(erf((edges - (b - i)) / (sigma * np.sqrt(2)))) / 2
        star = light * column[:, None] * row
        star += rng.standard_normal(star.shape) * np.sqrt(star / GAIN)
        data[i - half : i + half + 1, j - half : j + half + 1] += star.astype(np.float32)


def paths_of(folder):
    """Frames of a folder."""
    return sorted((folder / "frames").glob("frame_*.fits"))


def grid_of(folder):
    """Coordinates and shape of the first frame: the grid of all stacks."""
    from astropy.io import fits
    from astropy.wcs import WCS

    header = fits.getheader(paths_of(folder)[0])
    return WCS(header), (header["NAXIS2"], header["NAXIS1"])


def one_frame(folder):
    """Pixels and coordinates of a frame to be laid on the grid: the last one, which is flipped."""
    from astropy.io import fits
    from astropy.wcs import WCS

    with fits.open(paths_of(folder)[-1]) as hdus:
        data = hdus[0].data.astype(np.float32) - np.float32(SKY)
        return data, WCS(hdus[0].header)


# --- (a) one frame -------------------------------------------------------------------------------


def a_ours(folder, method="bilinear"):
    """Put one frame in memory on the grid of another."""
    from astropy import units as u
    from astropy.nddata import CCDData

    from datared.resampling import reproject_frame

    data, own = one_frame(folder)
    wcs, shape = grid_of(folder)
    frame = CCDData(data, unit=u.adu, wcs=own)
    return lambda: reproject_frame(frame, wcs, shape=shape, method=method).data


def a_ours_lanczos(folder):
    """Do the same with Lanczos-3."""
    return a_ours(folder, "lanczos3")


def a_theirs(folder):
    """Do it by reproject_interp."""
    from reproject import reproject_interp

    data, own = one_frame(folder)
    wcs, shape = grid_of(folder)
    return lambda: reproject_interp((data, own), wcs, shape_out=shape, return_footprint=False)


# --- (b) ten frames against ccdproc, (c) against SWarp, (d) two hundred --------------------------


def stack(folder, *, method):
    """Stack the frames of a folder from their files; the result is written."""
    from astropy.io import fits

    from datared.background import sky_mesh
    from datared.coaddition import coadd
    from datared.resampling import AlignedRows
    from datared.rows import open_rows
    from datared.stacksky import BOX, RowSky

    wcs, shape = grid_of(folder)
    paths = paths_of(folder)

    def prepare(path):
        """Sky and noise of one frame."""
        rows = open_rows(path)
        data = rows.rows(0, rows.shape[0])
        mesh = sky_mesh(data, np.zeros(data.shape, bool), box=BOX)
        return RowSky(mesh.level, shape), float(np.median(mesh.noise))

    def call():
        with ThreadPoolExecutor(2) as pool:
            skies = list(pool.map(prepare, paths))
        frames = [
            AlignedRows(path, wcs, shape=shape, method=method, sky=sky)
            for path, (sky, _) in zip(paths, skies, strict=True)
        ]
        result = coadd(frames, noise=[noise for _, noise in skies], gain=GAIN)
        hdus = [fits.PrimaryHDU(result.data, wcs.to_header()), fits.ImageHDU(result.uncertainty)]
        fits.HDUList(hdus).writeto(folder / f"ours-{method}.fits", overwrite=True)
        return result.data

    return call


def b_ours(folder):
    """Stack ten frames, bilinear."""
    return stack(folder, method="bilinear")


def b_theirs(folder):
    """Project ten frames by ccdproc, subtract their sky and combine them with clipping."""
    import astropy.units as u
    import ccdproc
    from astropy.stats import mad_std
    from photutils.background import Background2D

    target, shape = grid_of(folder)

    def call():
        frames = []
        for path in paths_of(folder):
            frame = ccdproc.CCDData.read(path, unit="adu")
            sky = Background2D(frame.data, 128, filter_size=3)
            frame = frame.subtract(sky.background * u.adu, handle_meta="first_found")
            frames.append(ccdproc.wcs_project(frame, target, target_shape=shape))
        result = ccdproc.combine(
            frames,
            method="average",
            sigma_clip=True,
            sigma_clip_low_thresh=5,
            sigma_clip_high_thresh=5,
            sigma_clip_func=np.ma.median,
            sigma_clip_dev_func=mad_std,
            mem_limit=1e9,
        )
        return np.asarray(result.data, np.float32)

    return call


def c_ours(folder):
    """Stack ten frames by Lanczos-3."""
    return stack(folder, method="lanczos3")


def c_swarp(folder, *extra):
    """Stack ten frames by SWarp: Lanczos-3, clipped mean, its own sky, the same grid."""
    from astropy.io import fits

    program = next((found for name in ("SWarp", "swarp") if (found := shutil.which(name))), None)
    if program is None:
        raise RuntimeError("SWarp is not installed")
    wcs, shape = grid_of(folder)
    header = wcs.to_header()
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, shape[1], shape[0]
    output = folder / "swarp.fits"
    # The grid of the result is given by a header of its own.
    (folder / "swarp.head").write_text(header.tostring(sep="\n") + "\nEND     \n")
    scratch = folder / "resampled"
    scratch.mkdir(exist_ok=True)
    settings = {
        "IMAGEOUT_NAME": output,
        "WEIGHTOUT_NAME": folder / "swarp.weight.fits",
        "RESAMPLING_TYPE": "LANCZOS3",
        "COMBINE_TYPE": "CLIPPED",
        "CLIP_SIGMA": 5.0,
        "BACK_SIZE": 128,
        "BACK_FILTERSIZE": 3,
        "RESAMPLE_DIR": scratch,
        "VMEM_DIR": scratch,
        "GAIN_KEYWORD": "GAIN",
        "FSCALASTRO_TYPE": "FIXED",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "QUIET",
        "NTHREADS": os.cpu_count(),
    }
    words = [program, *map(str, paths_of(folder)), "-c", os.devnull, *extra]
    words += [word for key, value in settings.items() for word in (f"-{key}", str(value))]

    def call():
        subprocess.run(words, check=True, cwd=scratch, capture_output=True, text=True)
        return fits.getdata(output)

    return call


def c_swarp_memory(folder):
    """Do the same with as much memory as SWarp likes."""
    return c_swarp(folder, "-MEM_MAX", "4000", "-COMBINE_BUFSIZE", "4000")


def d_many(folder):
    """Stack two hundred files: each of the ten under twenty names."""
    many = folder / "many"
    (many / "frames").mkdir(parents=True, exist_ok=True)
    for k in range(20 * N_FRAMES):
        path = many / "frames" / f"frame_{k:03d}.fits"
        if not path.exists():
            os.link(paths_of(folder)[k % N_FRAMES], path)
    return stack(many, method="lanczos3")


CASES = {
    "a": (a_ours, a_ours_lanczos, a_theirs),
    "b": (b_ours, b_theirs),
    "c": (c_ours, c_swarp, c_swarp_memory),
    "d": (d_many,),
}


# --- is it right? --------------------------------------------------------------------------------


def kept(folder, name):
    """Load the result that a case left."""
    return np.load(folder / "kept" / f"{name}.npy")


def check_a(folder):
    """Compare one frame on the new grid with reproject, and the light of stars with the truth."""
    theirs, ours, sharp = (kept(folder, name) for name in ("a_theirs", "a_ours", "a_ours_lanczos"))
    wcs, _ = grid_of(folder)
    _, own = one_frame(folder)
    area = own.proj_plane_pixel_area() / wcs.proj_plane_pixel_area()
    inside = np.isfinite(ours) & np.isfinite(theirs)
    worst = float(np.max(np.abs(ours[inside] * area.value - theirs[inside])))
    flux, true = star_light(folder, sharp)
    return (
        f"bilinear against `reproject_interp`: {worst:.4f} ADU at most, {worst / NOISE:.1e} of the "
        f"noise of a pixel; Lanczos-3: the light of the {flux.size} stars above 10^5 ADU is "
        f"{np.median(flux / true):.4f} of the truth"
    )


def star_light(folder, image, least=1e5):
    """Light of bright stars on a stack in circles, and the truth."""
    from photutils.aperture import ApertureStats, CircularAperture

    truth = np.load(folder / "truth.npz")
    wcs, shape = grid_of(folder)
    x, y = wcs.wcs_world2pix(truth["ra"], truth["dec"], 0)
    apart = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(x.size)
    good = (truth["flux"] > least) & (apart.min(axis=1) > 3 * RADIUS)
    good &= (np.minimum(x, shape[1] - x) > 120) & (np.minimum(y, shape[0] - y) > 120)
    # No sky is taken off: that of the images is zero.
    circles = CircularAperture(np.column_stack([x[good], y[good]]), RADIUS)
    return ApertureStats(np.nan_to_num(image), circles).sum, truth["flux"][good]


def facts(folder, image):
    """Words on a stack: light of the stars, noise, what is left of the satellite."""
    flux, true = star_light(folder, image)
    ny, nx = image.shape
    inner = image[ny // 2 - ny // 8 : ny // 2 + ny // 8, nx // 4 : -nx // 4]
    middle = np.nanmedian(inner)
    noise = 1.4826 * np.nanmedian(np.abs(inner - middle))
    line = np.arange(nx // 5, nx - nx // 5)
    rows = (0.2 * ny + 0.6 * ny * line / nx).astype(int)
    trail = np.nanmedian(image[rows, line]) - middle
    ratio = flux / true
    return (
        f"light of {flux.size} stars {np.median(ratio):.4f} of the truth (scatter "
        f"{1.4826 * np.median(np.abs(ratio - np.median(ratio))):.4f}), noise {noise:.2f} ADU, "
        f"satellite {trail:+.2f} ADU"
    )


def check_b(folder):
    """Facts of the two stacks."""
    names = ("b_ours", "b_theirs")
    texts = [f"`{name}`: {facts(folder, kept(folder, name))}" for name in names]
    return "; ".join(texts) + f"; one frame has a noise of {NOISE:.1f} ADU"


def check_c(folder):
    """Facts of the two stacks."""
    names = [name for name in ("c_ours", "c_swarp") if (folder / f"kept/{name}.npy").is_file()]
    texts = [f"`{name}`: {facts(folder, kept(folder, name))}" for name in names]
    return "; ".join(texts) + f"; one frame has a noise of {NOISE:.1f} ADU"


def check_d(folder):
    """Facts of the stack of two hundred."""
    return f"`d_many`: {facts(folder, kept(folder, 'd_many'))} (the ten frames repeat)"


# --- in the child --------------------------------------------------------------------------------


def child(name, folder, size):
    """Do one thing and print what came of it as JSON."""
    small = folder / "small"
    result = {}
    if name == "simulate":
        for place, words in ((small, SMALL), (folder, size)):
            simulate(place, tuple(int(word) for word in words.split("x")))
    elif name == "compile":
        result["seconds"] = compiled(small)
    elif name.startswith("check_"):
        result["text"] = globals()[name](folder)
    else:
        build = globals()[name]
        if "swarp" not in name:
            timed(build(small))
        call = build(folder)
        value, seconds = common.repeated(call, limit=20.0)
        result = {"seconds": statistics.median(seconds), "runs": len(seconds)}
        (folder / "kept").mkdir(exist_ok=True)
        np.save(folder / "kept" / f"{name}.npy", value)
        if "swarp" in name:
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            result["peak_mb"] = peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    result.setdefault("peak_mb", peak_memory())
    print(json.dumps(result))


def compiled(small):
    """Sum of what the first calls take longer than the second ones, with an empty cache."""
    total = 0.0
    for build in (a_ours, a_ours_lanczos, b_ours, c_ours):
        times = []
        for _ in range(2):
            start = time.perf_counter()
            timed(build(small))
            times.append(time.perf_counter() - start)
        total += max(times[0] - times[1], 0.0)
    return total


# --- in the parent -------------------------------------------------------------------------------


def spawn(name, options, **environment):
    """Run one child and give its result."""
    arguments = ["--folder", str(options.folder), "--size", options.size]
    return common.spawn(__file__, name, arguments, **environment)


def measure(options, parts):
    """Run everything and give all numbers: lists of results by the names of cases."""
    stamp = options.folder / "simulated.txt"
    if not stamp.is_file() or stamp.read_text() != options.size:
        if "failed" in spawn("simulate", options):
            sys.exit("The frames could not be simulated.")
        stamp.write_text(options.size)
    results = {}
    for part in sorted(parts):
        for repeat in range(options.repeats):
            for case in CASES[part]:
                earlier = results.setdefault(case.__name__, [])
                if repeat and earlier[0].get("seconds", np.inf) > PATIENCE:
                    continue
                earlier.append(spawn(case.__name__, options))
        results[f"check_{part}"] = [spawn(f"check_{part}", options)]
    with tempfile.TemporaryDirectory() as cache:
        results["compile"] = [spawn("compile", options, NUMBA_CACHE_DIR=cache)]
    return results


#: Part, what, ours, theirs, wanted (the least of theirs / ours).
ROWS = (
    ("a", "one frame on another grid, bilinear, against `reproject_interp`",
     "a_ours", "a_theirs", None),
    ("a", "the same, ours by Lanczos-3", "a_ours_lanczos", "a_theirs", None),
    ("b", "ten frames, bilinear and clipped, against `wcs_project` and `ccdproc.combine`",
     "b_ours", "b_theirs", 40),
    ("c", "ten frames, Lanczos-3 and clipped, against SWarp", "c_ours", "c_swarp", 4),
    ("c", "the same, SWarp with 4 GB of memory", "c_ours", "c_swarp_memory", 4),
)  # fmt: skip


def table(results, options, parts):
    """Lines of Markdown: the table, agreement, memory, machine, versions, command."""
    lines = [
        "| | what | ours (s) | theirs (s) | ratio | wanted | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for part, what, ours, theirs, wanted in ROWS:
        if part in parts:
            values = median(results, ours, "seconds"), median(results, theirs, "seconds")
            why = common.failure(results, ours, theirs)
            lines.append(common.row(f"({part})", what, *values, wanted, "least", why))
    if "d" in parts:
        seconds = median(results, "d_many", "seconds")
        lines.append(
            f"| (d) | two hundred frames, Lanczos-3 and clipped | {number(seconds)} | | | | |"
        )
    for part, name, words in (("c", "c_ours", "ten"), ("d", "d_many", "two hundred")):
        if part in parts:
            peak = median(results, name, "peak_mb")
            met = "" if peak is None else common.verdict(peak < 1000)
            text = f"| ({part}) | peak memory with {words} frames, in MB | {number(peak)} | "
            other = number(median(results, "c_swarp", "peak_mb")) if part == "c" else ""
            lines.append(f"{text}{other} | | < 1000 | {met} |")
    seconds = median(results, "compile", "seconds")
    verdict = "" if seconds is None else common.verdict(seconds < 20)
    lines += [f"| | compile time of all of it | {number(seconds)} | | | < 20 | {verdict} |", ""]
    for part in sorted(parts):
        check = results[f"check_{part}"][0]
        lines.append(f"* ({part}) {check.get('text') or check['failed']}.")
    for name in ("b_ours", "b_theirs", "c_swarp_memory"):
        if name[0] in parts:
            peak = number(median(results, name, "peak_mb"))
            lines.append(f"* peak memory of `{name}`: {peak} MB.")
    runs = {name: len(each) for name, each in results.items() if name[1] == "_"}
    few = [f"`{name}` {n}" for name, n in runs.items() if n < options.repeats]
    lines.append(f"* repeats: {options.repeats}{', but ' + ', '.join(few) if few else ''}.")
    note = f"{N_FRAMES} of {options.size} pixels, float32"
    facts_ = common.machine(__file__, PACKAGES, options, note)
    return lines + [f"* {text}" for text in facts_]


def main():
    """Read the options and run."""
    parser = common.parser(__doc__, CASES)
    options, parts = common.chosen(parser, CASES)
    if options.child:
        child(options.child, options.folder, options.size)
        return
    common.run(
        options, parts, measure=measure, table=table, scratch=("kept", "many", "resampled"),
        markers=MARKERS,
    )  # fmt: skip


if __name__ == "__main__":
    main()
