"""Measure the pre-reduction against ccdproc and against reading the files, all in one run.

Run it from the root of the repository; README.md beside this file says what is measured and how::

    python benchmarks/prereduction.py
    python benchmarks/prereduction.py --only a,b --repeats 5

Every number comes from a child process of its own: it imports one side only, runs the step once on
small frames (which loads the compiled code), then on the full ones, and reports time and memory.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import numpy as np
from common import median, number, peak_memory, timed

SEED = 3
GAIN, READ_NOISE, OFFSET = 0.376, 3.5, 500.0  # e-/ADU, e-, ADU
DARK_TIME, FLAT_TIME, LIGHT_TIME = 300.0, 4.0, 180.0  # s
SKY = {"B": 800.0, "V": 1500.0, "R": 2500.0}  # ADU in a light; one level for each filter
SMALL = (600, 400)
#: Theirs is repeated in (d) only if it takes less than this (s).
PATIENCE = 120.0
PACKAGES = ("numpy", "numba", "astropy", "ccdproc", "astroscrappy", "datared")
MARKERS = ("<!-- table -->", "<!-- end of table -->")


# --- the frames ----------------------------------------------------------------------------------


def simulate(folder, size, parts):
    """Write the raw frames of a night, and the truth that they were made from."""
    nx, ny = size
    rng = np.random.default_rng(SEED)
    y, x = np.ogrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    bias = OFFSET + 4 * x + rng.normal(0, 2, nx) + rng.normal(0, 1, (ny, 1))
    dark = np.full((ny, nx), 30.0)
    hot = rng.integers(0, nx * ny, nx * ny // 2000)
    dark.flat[hot] += rng.exponential(2000, hot.size)
    flat = (1 - 0.2 * (x**2 + y**2)) * rng.normal(1, 0.01, (ny, nx))
    flat /= np.median(flat)
    flat.flat[rng.integers(0, nx * ny, 20)] = 0.02
    stars = _stars(rng, ny, nx)
    models = {"bias": bias, "dark": dark, "flat": flat}
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        np.save(folder / "models" / f"{name}.npy", model.astype(np.float32))
    exposures = []
    if parts & set("ad"):
        names = [f"raw/dark_{i:02d}" for i in range(10)]
        names += [f"more/dark_{i:02d}" for i in range(10, 15)] if "a" in parts else []
        exposures.append(("dark", "", DARK_TIME, dark, 300, names))
    if "d" in parts:
        exposures.append(("bias", "", 0.0, 0 * dark, 0, [f"raw/bias_{i:02d}" for i in range(10)]))
        for band in SKY:
            names = [f"raw/flat_{band}_{i:02d}" for i in range(10)]
            level = 30_000 * flat + dark * (FLAT_TIME / DARK_TIME)
            exposures.append(("flat", band, FLAT_TIME, level, 0, names))
    if parts & set("bcd"):
        for k, (band, sky) in enumerate(SKY.items()):
            numbers = range(k, 20 if "d" in parts else 1, 3)
            names = [f"raw/light_{i:02d}_{band}" for i in numbers]
            level = (sky + stars) * flat + dark * (LIGHT_TIME / DARK_TIME)
            exposures.append(("light", band, LIGHT_TIME, level, 2000, names))
    for sub in ("raw", "more"):
        (folder / sub).mkdir(exist_ok=True)
    done = 0
    for kind, band, exptime, level, hits, names in exposures:
        sigma = np.sqrt(level / GAIN + (READ_NOISE / GAIN) ** 2).astype(np.float32)
        expected = (bias + level).astype(np.float32)
        cards = {"IMAGETYP": kind, "EXPTIME": exptime, "FILTER": band, "OBJECT": "Field"}
        jobs = [(folder / f"{n}.fits", cards, done + i, hits) for i, n in enumerate(names)]
        done += len(names)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda job, e=expected, s=sigma: _write(*job, e, s), jobs))


def _stars(rng, ny, nx):
    """Image of Gaussian stars (ADU), about one in 5000 pixels, some of them saturated."""
    image, offsets = np.zeros((ny, nx)), np.arange(-12, 13)
    count = nx * ny // 5000
    for x, y, flux in zip(
        rng.uniform(13, nx - 14, count),
        rng.uniform(13, ny - 14, count),
        10 ** (3 + 3.5 * rng.random(count) ** 2),
        strict=True,
    ):
        i, j = int(y), int(x)
        row = np.exp(-0.125 * (offsets - (x - j)) ** 2)
        column = np.exp(-0.125 * (offsets - (y - i)) ** 2)
        image[i - 12 : i + 13, j - 12 : j + 13] += flux / 25.13 * column[:, None] * row
    return image


def _write(path, cards, number, hits, expected, sigma):
    """Write one raw frame: expected values, noise, cosmic rays, unsigned 16-bit integers."""
    from astropy.io import fits

    rng = np.random.default_rng([SEED, number])
    data = rng.standard_normal(expected.shape, dtype=np.float32)
    data *= sigma
    data += expected
    struck = _cosmic_rays(rng, data, hits * data.size // 15_000_000)
    if path.name.startswith("light_00"):
        np.save(path.parents[1] / "models" / "struck.npy", struck)
    np.rint(data, out=data)
    np.clip(data, 0, 65535, out=data)
    stamp = f"2024-09-12T{number // 60:02d}:{number % 60:02d}:00"
    header = fits.Header({k: v for k, v in cards.items() if v != ""} | {"DATE-OBS": stamp})
    fits.PrimaryHDU(data.astype(np.uint16), header).writeto(path, overwrite=True)


def _cosmic_rays(rng, data, count):
    """Add straight tracks to an image (in place) and give the flat indices of their pixels."""
    length = rng.integers(1, 15, count)
    track = np.repeat(np.arange(count), length)
    along = np.arange(track.size) - np.repeat(np.cumsum(length) - length, length)
    angle = rng.uniform(0, np.pi, count)
    x = np.rint(rng.uniform(0, data.shape[1], count)[track] + along * np.cos(angle)[track])
    y = np.rint(rng.uniform(0, data.shape[0], count)[track] + along * np.sin(angle)[track])
    inside = (x >= 0) & (x < data.shape[1]) & (y < data.shape[0])
    charge = rng.lognormal(7, 0.7, count)[track] / GAIN
    pixels = (y[inside] * data.shape[1] + x[inside]).astype(np.int64)
    np.add.at(data.reshape(-1), pixels, charge[inside].astype(np.float32))
    return np.unique(pixels)


def masters(folder):
    """Give the true bias, dark and flat as masters of ten frames: data, deviation, bad pixels."""
    bias, dark, flat = (np.load(folder / "models" / f"{n}.npy") for n in ("bias", "dark", "flat"))
    noise = np.full(bias.shape, READ_NOISE / GAIN / np.sqrt(10), np.float32)
    return {
        "bias": (bias, noise, np.zeros(bias.shape, bool)),
        "dark": (dark, np.sqrt(dark / GAIN / 10 + 2 * noise**2).astype(np.float32), dark > 200),
        "flat": (flat, np.full(bias.shape, 0.003, np.float32), flat < 0.1),
    }


# --- what is measured ----------------------------------------------------------------------------
# Each of these prepares the inputs and gives the call that is timed.


def a_files(folder):
    """Give the 15 raw darks."""
    return sorted((folder / "raw").glob("dark_*.fits")) + sorted((folder / "more").glob("*.fits"))


def a_ours(folder, rounds=1):
    """Clipped mean of files."""
    from datared.combine import combine

    return lambda: combine(a_files(folder), method="mean", clip=3.0, max_iterations=rounds)


def a_ours_iterated(folder):
    """Clipped mean, clipped until nothing changes (at most five rounds)."""
    return a_ours(folder, rounds=5)


def a_theirs(folder):
    """Clipped mean of files; ccdproc clips once."""
    import ccdproc

    return lambda: ccdproc.combine(
        [str(path) for path in a_files(folder)],
        method="average",
        sigma_clip=True,
        sigma_clip_low_thresh=3,
        sigma_clip_high_thresh=3,
        sigma_clip_func="median",
        sigma_clip_dev_func="mad_std",
        mem_limit=1e9,
        unit="adu",
    )


def a_bytes(folder):
    """Read the bytes of the files, one file after the other."""
    return lambda: [np.fromfile(path, np.uint8).size for path in a_files(folder)]


def a_getdata(folder):
    """Read the pixels of the files with astropy, one file after the other, as float32."""
    from astropy.io import fits

    return lambda: [fits.getdata(path).astype(np.float32).size for path in a_files(folder)]


def b_ours(folder, uncertainty=True):
    """Calibrate one light in memory."""
    from astropy.nddata import CCDData, StdDevUncertainty

    from datared import pixels
    from datared.frames import read_frame
    from datared.options import Camera
    from datared.reduction import reduce_frame

    frames = {}
    bits = {"bias": 0, "dark": pixels.HOT, "flat": pixels.DEAD}
    for kind, (data, sigma, bad) in masters(folder).items():
        ccd = CCDData(data, unit="adu", flags=bits[kind] * bad.astype(np.uint16), mask=bad)
        ccd.uncertainty = StdDevUncertainty(sigma) if uncertainty else None
        ccd.meta |= {"KIND": kind, "BIASCOR": kind != "bias"}
        frames[kind] = ccd
    camera = Camera(gain=GAIN, read_noise=READ_NOISE)
    light = read_frame(folder / "raw" / "light_00_B.fits", camera=camera)
    scale = LIGHT_TIME / DARK_TIME
    options = {"dark_scale": scale, "camera": camera, "uncertainty": uncertainty}
    return lambda: reduce_frame(light, **frames, **options)


def b_ours_plain(folder):
    """Calibrate one light in memory, without uncertainty."""
    return b_ours(folder, uncertainty=False)


def b_theirs(folder, *, deviation=True, errors=True, dtype=np.float64):
    """Calibrate one light in memory; masters as `ccdproc.combine` gives them, the light as read."""
    import ccdproc
    from astropy import units as u
    from astropy.io import fits
    from astropy.nddata import CCDData, StdDevUncertainty

    frames = {}
    for kind, (data, sigma, bad) in masters(folder).items():
        frames[kind] = CCDData(data.astype(dtype), unit="adu", mask=bad)
        frames[kind].uncertainty = StdDevUncertainty(sigma.astype(dtype)) if errors else None
    with fits.open(folder / "raw" / "light_00_B.fits") as hdus:
        data = hdus[0].data if dtype is np.float64 else hdus[0].data.astype(dtype)
        light = CCDData(data, unit="adu", mask=data > 64_000, meta=hdus[0].header)
    times = {"dark_exposure": DARK_TIME * u.s, "data_exposure": LIGHT_TIME * u.s}

    def call():
        ccd = light
        if deviation:
            noise = {"gain": GAIN * u.electron / u.adu, "readnoise": READ_NOISE * u.electron}
            ccd = ccdproc.create_deviation(ccd, **noise, disregard_nan=True)
        ccd = ccdproc.subtract_bias(ccd, frames["bias"])
        ccd = ccdproc.subtract_dark(ccd, frames["dark"], scale=True, **times)
        return ccdproc.flat_correct(ccd, frames["flat"], norm_value=1)

    return call


def b_theirs_float32(folder):
    """Calibrate one light in memory; masters and light converted to float32 before."""
    return b_theirs(folder, dtype=np.float32)


def b_theirs_without(folder):
    """Leave `create_deviation` out; the masters still have their errors."""
    return b_theirs(folder, deviation=False)


def b_theirs_plain(folder):
    """Leave `create_deviation` out, and take the errors from the masters before."""
    return b_theirs(folder, deviation=False, errors=False)


def b_theirs_plain_float32(folder):
    """Leave all errors out, and convert to float32 before."""
    return b_theirs(folder, deviation=False, errors=False, dtype=np.float32)


def c_light(folder):
    """Give a calibrated light in ADU, float32."""
    from astropy.io import fits

    raw = fits.getdata(folder / "raw" / "light_00_B.fits").astype(np.float32)
    (bias, *_), (dark, *_), (flat, *_) = masters(folder).values()
    return (raw - bias - np.float32(LIGHT_TIME / DARK_TIME) * dark) / flat


def c_ours(folder):
    """Find cosmic rays."""
    from datared.cosmics import find_cosmics

    data = c_light(folder)
    limits = {"sigma": 4.5, "fraction": 0.3, "contrast": 5.0, "max_iterations": 4}
    return lambda: find_cosmics(data, gain=GAIN, read_noise=READ_NOISE, **limits)


def c_theirs(folder):
    """Find cosmic rays; the filter of the fine structure is the median in both."""
    import ccdproc

    data = c_light(folder)
    limits = {"sigclip": 4.5, "sigfrac": 0.3, "objlim": 5.0, "niter": 4}
    noise = {"gain": GAIN, "readnoise": READ_NOISE, "gain_apply": False}
    return lambda: ccdproc.cosmicray_lacosmic(data, **noise, **limits)


def d_ours(folder):
    """Pre-reduction of the night from an empty work folder."""
    import datared

    path = folder / "night.toml"
    path.write_text(
        'name = "Benchmark"\nraw = "raw"\nwork = "work-ours"\n\n'
        f"[camera]\ngain = {GAIN}\nread_noise = {READ_NOISE}\nsaturation = 64000.0\n\n"
        '[reduction]\nmethod = "mean"\n'
    )

    def call():
        result = datared.run(datared.load_night(path), upto="reduced")
        if len(result.problems):
            raise RuntimeError(str(result.problems))
        return folder / "work-ours"

    call.prepare = lambda: _empty(folder / "work-ours")
    return call


def d_theirs(folder, planes=True):
    """Pre-reduction of the night by a loop of intermediate files, as the guide writes it."""
    work = folder / ("work-theirs" if planes else "work-lean")

    def call():
        loop_of_files(folder / "raw", work, planes=planes)
        return work

    call.prepare = lambda: _empty(work)
    return call


def d_lean(folder):
    """Pre-reduction by the same loop in float32, without the planes that nobody asked for."""
    return d_theirs(folder, planes=False)


def _empty(folder):
    """Remove a work folder, and wait until nothing is left to be written to disk."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def loop_of_files(raw, work, *, planes):
    """Reduce a night with ccdproc, in the manner of the CCD reduction guide of astropy.

    The guide lets the uncertainty and the mask of each master go into every frame and onto disk, in
    float64 (``planes``). Without them, masters and frames are float32: half to a quarter the bytes.
    """
    import ccdproc
    from astropy import units as u

    def keep(ccd, path):
        if not planes:
            ccd.uncertainty = ccd.mask = None
            ccd.data = ccd.data.astype(np.float32)
        ccd.write(path)
        return ccd

    def combine(files, path, **options):
        ccd = ccdproc.combine(
            files,
            method="average",
            sigma_clip=True,
            sigma_clip_low_thresh=5,
            sigma_clip_high_thresh=5,
            sigma_clip_func="median",
            sigma_clip_dev_func="mad_std",
            mem_limit=350e6,
            **options,
        )
        return keep(ccd, path)

    def frames(kind):
        return night.ccds(imagetyp=kind, return_fname=True, ccd_kwargs={"unit": "adu"})

    def without_dark(ccd):
        ccd = ccdproc.subtract_bias(ccd, bias)
        return ccdproc.subtract_dark(
            ccd, dark, exposure_time="exptime", exposure_unit=u.second, scale=True
        )

    calibrated, reduced = work / "calibrated", work / "reduced"
    calibrated.mkdir(parents=True)
    reduced.mkdir()
    night = ccdproc.ImageFileCollection(raw, keywords=["imagetyp", "filter", "exptime"])
    files = night.files_filtered(imagetyp="bias", include_path=True)
    bias = combine(files, work / "bias.fits", unit="adu")
    for ccd, name in frames("dark"):
        keep(ccdproc.subtract_bias(ccd, bias), calibrated / name)
    darks = ccdproc.ImageFileCollection(calibrated, glob_include="dark_*")
    dark = combine(darks.files_filtered(include_path=True), work / "dark.fits")
    for ccd, name in frames("flat"):
        keep(without_dark(ccd), calibrated / name)
    flats = ccdproc.ImageFileCollection(calibrated, glob_include="flat_*")
    flat = {}
    for band in sorted(set(flats.summary["filter"])):
        files = flats.files_filtered(filter=band, include_path=True)
        path = work / f"flat_{band}.fits"
        flat[band] = combine(files, path, scale=lambda data: 1 / np.median(data))
    for ccd, name in frames("light"):
        ccd = ccdproc.flat_correct(without_dark(ccd), flat[ccd.header["filter"]])
        ccd.data = ccd.data.astype(np.float32)
        keep(ccd, reduced / name)


CASES = {
    "a": (a_ours, a_ours_iterated, a_theirs, a_bytes, a_getdata),
    "b": (
        *(b_ours, b_theirs, b_theirs_float32),
        *(b_ours_plain, b_theirs_without, b_theirs_plain, b_theirs_plain_float32),
    ),
    "c": (c_ours, c_theirs),
    "d": (d_ours, d_theirs, d_lean),
}


# --- do both sides agree? ------------------------------------------------------------------------


def check_a(folder):
    """Pixels of the clipped mean that agree within four units of float32."""
    ours, theirs = _kept(folder, "a_ours", "data"), _kept(folder, "a_theirs", "data")
    good = np.abs(ours - theirs) <= 4 * np.finfo(np.float32).eps * np.abs(theirs)
    return f"{_percent(good)} of the pixels agree within rounding (wanted 99 %)"


def check_b(folder):
    """Pixels of the calibrated light that agree.

    Two things are taken out of the variance of ccdproc first. It is that of the raw frame, where
    the bias counts as light: B / g too much. And the error of the bias, which is in the dark as
    well (with the other sign), counts as if there were two: 2 s sigma_B^2 too much.
    """
    (bias, noise, _), _, (flat, *_) = masters(folder).values()
    texts = []
    for tail in ("", "_plain"):
        names = ("b_ours" + tail, "b_theirs" + tail)
        good = ~_kept(folder, names[0], "mask") & ~_kept(folder, names[1], "mask")
        ours, theirs = (_kept(folder, name, "data")[good] for name in names)
        equal = np.abs(ours - theirs) <= 1e-5 * np.maximum(np.abs(theirs), 1)
        texts.append(f"data: {_percent(equal)} of {_percent(good)} unmasked pixels within 1e-5")
    good &= _kept(folder, "b_ours", "data") > 0
    ours, theirs = (_kept(folder, n, "uncertainty")[good] for n in ("b_ours", "b_theirs"))
    excess = bias[good] / GAIN + 2 * LIGHT_TIME / DARK_TIME * noise[good] ** 2
    theirs = np.sqrt(theirs.astype(float) ** 2 - excess / flat[good] ** 2)
    texts.append(f"uncertainty: {_percent(np.abs(ours / theirs - 1) <= 1e-3)} within 1e-3")
    return "; ".join(texts) + " (once what ccdproc counts too much is taken out)"


def check_c(folder):
    """Overlap of the masks, and the part of the struck pixels that each finds."""
    ours, theirs = (_kept(folder, name, "mask") for name in ("c_ours", "c_theirs"))
    struck = np.load(folder / "models" / "struck.npy")
    union = np.count_nonzero(ours | theirs)
    return (
        f"intersection over union {np.count_nonzero(ours & theirs) / max(union, 1):.4f} of {union} "
        f"pixels; of the struck pixels ours finds {_percent(ours.flat[struck])}, "
        f"theirs {_percent(theirs.flat[struck])}"
    )


def check_d(folder):
    """Difference of one reduced light of each filter, in units of its noise."""
    from astropy.io import fits

    texts = []
    for k, (band, sky) in enumerate(SKY.items()):
        name = f"light_{k:02d}_{band}.fits"
        theirs = fits.getdata(folder / "work-theirs" / "reduced" / name, ext=0)
        with fits.open(folder / "work-ours" / "reduced" / name) as hdus:
            good, ours = hdus["MASK"].data == 0, hdus[0].data
            ours, theirs = ours[good], theirs[good]
        ours = ours * np.median(theirs / ours)  # The flat has median 1 in ours, mean 1 in theirs.
        noise = np.sqrt(np.maximum(ours, sky) / GAIN + (READ_NOISE / GAIN) ** 2)
        texts.append(f"{band} {_percent(np.abs(ours - theirs) < 0.1 * noise)}")
    return f"pixels of a light within a tenth of its noise: {', '.join(texts)}"


def _kept(folder, case, key):
    """Give an array that a case left."""
    return np.load(folder / "kept" / f"{case}-{key}.npy")


def _percent(good):
    """Part of True as a text that never rounds up to all of them."""
    part = np.count_nonzero(good) / max(good.size, 1)
    return f"{np.floor(1e5 * part) / 1e3:.3f} %"


# --- in the child --------------------------------------------------------------------------------


def child(name, folder, size, parts):
    """Do one thing and print what came of it as JSON."""
    small = folder / "small"
    result = {}
    if name == "simulate":
        simulate(small, SMALL, parts)
        simulate(folder, size, parts)
    elif name == "imports_ours":
        _imports("ours")
    elif name == "imports_theirs":
        _imports("theirs")
    elif name == "compile":
        result["seconds"] = _compile(small, parts)
    elif name.startswith("check_"):
        result["text"] = globals()[name](folder)
    else:
        _imports("ours" if "ours" in name else "theirs")
        result |= _measure(name, folder, small)
    result.setdefault("peak_mb", peak_memory())
    print(json.dumps(result))


def _imports(side):
    """Import what a side needs."""
    if side == "ours":
        import datared.combine
        import datared.pipeline
        import datared.reduction  # noqa: F401
    else:
        import astropy
        import ccdproc  # noqa: F401

        astropy.log.setLevel("WARNING")


def _measure(name, folder, small):
    """Time one case: up to five calls within ten seconds, the median counts."""
    build = globals()[name]
    timed(build(small))
    call = build(folder)
    inputs = peak_memory()
    value, seconds = common.repeated(call)
    result = {"seconds": statistics.median(seconds), "peak_mb": peak_memory(), "before_mb": inputs}
    kept = folder / "kept"
    if isinstance(value, Path):
        files = [path.stat().st_size for path in value.rglob("*") if path.is_file()]
        result |= {"disk_mb": sum(files) / 1e6, "files": len(files)}
    elif name[0] in "abc" and name not in ("a_bytes", "a_getdata"):
        kept.mkdir(exist_ok=True)
        for key, array in _arrays(value).items():
            np.save(kept / f"{name}-{key}.npy", array)
    return result


def _arrays(value):
    """Give the planes of whatever a case returns."""
    if isinstance(value, tuple):
        return {"mask": value[1]}
    if isinstance(value, np.ndarray):
        return {"mask": value}
    uncertainty = getattr(value.uncertainty, "array", value.uncertainty)
    planes = {"data": value.data, "mask": value.mask, "uncertainty": uncertainty}
    return {key: np.asarray(plane) for key, plane in planes.items() if plane is not None}


def _compile(small, parts):
    """Sum of what the first calls take longer than the second ones, with an empty cache."""
    _imports("ours")
    total = 0.0
    for build in (case for part in sorted(parts) for case in CASES[part]):
        if "ours" not in build.__name__:
            continue
        times = []
        for _ in range(2):
            start = time.perf_counter()
            call = build(small)
            building = time.perf_counter() - start
            times.append(building + timed(call)[1])
        total += max(times[0] - times[1], 0.0)
    return total


# --- in the parent -------------------------------------------------------------------------------


def spawn(name, options, **environment):
    """Run one child and give its result."""
    arguments = ["--folder", str(options.folder), "--size", options.size, "--only", options.only]
    return common.spawn(__file__, name, arguments, **environment)


def measure(options, parts):
    """Run everything and give all numbers: lists of results by the names of cases."""
    stamp = options.folder / "simulated.json"
    wanted = {"size": options.size, "parts": sorted(parts)}
    there = json.loads(stamp.read_text()) if stamp.is_file() else {"size": "", "parts": []}
    if there["size"] != options.size or not parts <= set(there["parts"]):
        if "failed" in spawn("simulate", options):
            sys.exit("The frames could not be simulated.")
        stamp.write_text(json.dumps(wanted))
    results = {name: [spawn(name, options)] for name in ("imports_ours", "imports_theirs")}
    for part in sorted(parts):
        cases = [case.__name__ for case in CASES[part]]
        for repeat in range(options.repeats):
            for name in cases:
                earlier = results.setdefault(name, [])
                slow = part == "d" and "ours" not in name and repeat
                if slow and earlier[0].get("seconds", np.inf) > PATIENCE:
                    continue
                earlier.append(spawn(name, options))
        results[f"check_{part}"] = [spawn(f"check_{part}", options)]
    with tempfile.TemporaryDirectory() as cache:
        results["compile"] = [spawn("compile", options, NUMBA_CACHE_DIR=cache)]
    raw = [path.stat().st_size for path in (options.folder / "raw").glob("*.fits")]
    results["raw"] = [{"disk_mb": sum(raw) / 1e6, "files": len(raw)}]
    return results


#: Part, what, ours, theirs, wanted, whether that is the least of theirs / ours or the most of
#: ours / theirs.
ROWS = (
    ("a", "clipped mean of 15 raw files, one round", "a_ours", "a_theirs", 40, "least"),
    ("a", "the same, up to 5 rounds (default)", "a_ours_iterated", "a_theirs", 40, "least"),
    ("a", "one round, against reading the bytes", "a_ours", "a_bytes", 5, "most"),
    ("a", "one round, against reading the pixels", "a_ours", "a_getdata", 5, "most"),
    ("b", "one light with uncertainty", "b_ours", "b_theirs", 20, "least"),
    ("b", "the same, theirs in float32", "b_ours", "b_theirs_float32", 20, "least"),
    ("b", "one light without", "b_ours_plain", "b_theirs_without", 15, "least"),
    ("b", "the same, masters stripped", "b_ours_plain", "b_theirs_plain", 15, "least"),
    ("b", "the same, and in float32", "b_ours_plain", "b_theirs_plain_float32", 15, "least"),
    ("c", "cosmic rays in one light", "c_ours", "c_theirs", 10, "least"),
    ("d", "whole pre-reduction of 70 raw frames", "d_ours", "d_theirs", 15, "least"),
    ("d", "the same, against a lean loop", "d_ours", "d_lean", 15, "least"),
)


def table(results, options, parts):
    """Lines of Markdown: the table, agreement, memory, machine, versions, command."""
    lines = [
        "| | what | ours (s) | theirs (s) | ratio | wanted | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for part, what, ours, theirs, wanted, kind in ROWS:
        if part not in parts or theirs not in results:
            continue
        values = median(results, ours, "seconds"), median(results, theirs, "seconds")
        lines.append(common.row(f"({part})", what, *values, wanted, kind))
    for theirs, loop in (("d_theirs", ""), ("d_lean", ", lean loop")) if "d" in parts else ():
        peaks = (median(results, name, "peak_mb") for name in ("d_ours", theirs))
        lines.append(common.row("(d)", f"peak memory of that{loop}, in MB", *peaks, 4, "least"))
    seconds = median(results, "compile", "seconds")
    verdict = "" if seconds is None else common.verdict(seconds < 10)
    lines.append(f"| | compile time of all of it | {number(seconds)} | | | < 10 | {verdict} |")
    lines += ["", "| memory (MB) | before the call | peak |", "| --- | ---: | ---: |"]
    for side, name in (("ours", "imports_ours"), ("theirs", "imports_theirs")):
        peak = median(results, name, "peak_mb")
        lines.append(f"| interpreter with the imports of {side} | | {number(peak)} |")
    for name in (case.__name__ for part in sorted(parts) for case in CASES[part]):
        if name in results:
            both = (number(median(results, name, key)) for key in ("before_mb", "peak_mb"))
            lines.append(f"| `{name}` | {' | '.join(both)} |")
    lines.append("")
    for part in sorted(parts):
        check = results[f"check_{part}"][0]
        lines.append(f"* ({part}) {check.get('text') or check['failed']}.")
    for name in ("raw", "d_ours", "d_theirs", "d_lean") if "d" in parts else ():
        if name in results and "disk_mb" in results[name][0]:
            disk = results[name][0]
            lines.append(f"* disk: `{name}` {disk['disk_mb']:.0f} MB in {disk['files']} files.")
    runs = {
        name: len(each) for name, each in results.items() if name[0] in "abcd" and name[1] == "_"
    }
    few = [f"`{name}` {n}" for name, n in runs.items() if n < options.repeats]
    lines.append(f"* repeats: {options.repeats}{', but ' + ', '.join(few) if few else ''}.")
    note = f"{options.size} pixels, uint16"
    facts = common.machine(__file__, PACKAGES, options, note)
    return lines + [f"* {text}" for text in facts]


def main():
    """Read the options and run."""
    parser = common.parser(__doc__, CASES)
    options, parts = common.chosen(parser, CASES)
    if options.child:
        size = tuple(int(number) for number in options.size.split("x"))
        child(options.child, options.folder, size, parts)
        return
    common.run(
        options,
        parts,
        measure=measure,
        table=table,
        scratch=("kept", "work-ours", "work-theirs", "work-lean"),
        markers=MARKERS,
    )


if __name__ == "__main__":
    main()
