"""Measure what a night on a star cluster gives: simulated nights of many seeds against their truth.

Run it from the root of the repository; README.md beside this file says what is measured and how::

    python benchmarks/cluster.py --nights 20 --lines nights.jsonl --readme

Each night is simulated, reduced, calibrated and fitted in a process of its own. Its result is one
line of a file, so a run that was stopped goes on where it was: nights in the file are not repeated.
"""

import json
import math
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import common
import numpy as np

PACKAGES = ("numpy", "numba", "scipy", "astropy", "emcee", "datared")
MARKERS = ("<!-- table of cluster -->", "<!-- end of table of cluster -->")
BANDS = ("g", "r", "i")
#: What is known before of the metallicity: that of clusters near the Sun.
METALLICITY = (0.0, 0.1)
#: Error that all parallaxes of Gaia have in common (mas).
COMMON_PARALLAX = 0.02
MEMBER = 0.5
FITTED = {"log_age": "age (dex)", "distance_modulus": "distance modulus (mag)", "a_v": "A_V (mag)",
          "metallicity": "[Fe/H] (dex)"}  # fmt: skip
#: Within these the results are wanted.
TARGETS = {"zero_points": 5.0, "colour_terms": 2.0, "sequence": 0.03, "log_age": 0.1,
           "distance_modulus": 0.1}  # fmt: skip


# --- one night -----------------------------------------------------------------------------------


def child(seed, options):
    """Measure one night and print the numbers as a line."""
    import datared
    from datared.simulate import simulate_cluster

    start = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix=f"night-{seed}-", dir=options.folder))
    try:
        toml = simulate_cluster(folder / "night", seed=seed)
        with toml.open("a", encoding="utf-8") as file:
            file.write('\n[diagram]\nbands = ["g", "i", "r"]\n')
        night = datared.load_night(toml)
        datared.run(night, upto="diagram")
        result = {"seed": seed, "reduction_seconds": time.perf_counter() - start}
        result |= calibration(night) | members(night)
        result |= fitted(night, options.steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result["seconds"] = time.perf_counter() - start
    print(json.dumps(result))


def calibration(night):
    """Zero points (mmag) and colour terms (in their errors) minus the truth."""
    from astropy.table import Table

    from datared.assembly import read_photometry

    photometry = read_photometry(night.work)
    points = Table.read(night.work / "zeropoints.ecsv")
    truth = {row["file"]: row for row in Table.read(night.truth / "frames.ecsv")}
    lost = lost_light(photometry, truth, int(points.meta["radius"]))
    true = np.array([truth[name]["zero_point"] for name in points["file"]])
    away = 1000 * (np.ma.filled(points["zero_point"], np.nan) - true - lost)
    bands = np.asarray(points["filter"]).astype(str)
    terms = json.loads((night.truth / "parameters.json").read_text())["colour_terms"]
    found = {}
    for band in BANDS:
        row = points[np.flatnonzero(bands == band)[0]]
        found[band] = float((row["colour_term"] - terms[band]) / row["colour_term_err"])
    return {
        "frames": int(np.isfinite(away).sum()),
        "zero_points": float(np.nanmax(np.abs(away))),
        "zero_points_mean": {band: float(np.nanmean(away[bands == band])) for band in BANDS},
        "colour_terms": found,
    }


def lost_light(photometry, truth, radius):
    """Light outside the aperture of each frame in magnitudes, from its true profile."""
    from astropy.nddata import CCDData

    from datared.photometry import aperture_photometry
    from datared.render import star_image

    place = 80.0 + 160.0 * np.arange(3) + np.array([-0.3, 0.1, 0.4])
    x, y = (axis.ravel() for axis in np.meshgrid(place, place))
    lost = []
    for epoch in photometry.epochs:
        image = star_image((480, 480), x, y, 1e5, fwhm=truth[epoch["file"]]["fwhm"])
        annulus = 4 * epoch["fwhm"], 6 * epoch["fwhm"]
        options = {"radii": tuple(epoch["radii"]), "annulus": annulus}
        found = aperture_photometry(CCDData(image, unit="adu"), x, y, **options)
        lost.append(2.5 * math.log10(np.mean(found["flux"], axis=0)[radius] / 1e5))
    return np.array(lost)


def members(night):
    """Purity and completeness of the members, and how far their sequence is from the truth."""
    from astropy.table import Table

    table = Table.read(night.work / "cmd.ecsv")
    truth = Table.read(night.truth / "stars.ecsv")
    ours, theirs = matched(table, truth)
    known = np.ma.filled(table["membership"], np.nan)[ours]
    measured = np.isfinite(known)
    chosen, real = known >= MEMBER, np.asarray(truth["member"])[theirs]
    kept = np.asarray(table["cut"]).astype(str)[ours] == "kept"
    single = kept & real & ~np.asarray(truth["binary"])[theirs]
    single &= np.asarray(truth["g"])[theirs] < 17
    colour = np.ma.filled(table["g"] - table["i"], np.nan)[ours]
    off = colour - np.asarray(truth["g"] - truth["i"])[theirs]
    return {
        "members": int(chosen.sum()),
        "purity": float(np.mean(real[chosen])),
        "completeness": float(np.mean(chosen[real & measured])),
        "sequence": float(np.nanmedian(off[single])),
    }


def matched(table, truth):
    """Rows of both tables that are the same star, to an arcsecond."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    ours = SkyCoord(table["ra"], table["dec"], unit="deg")
    theirs = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    j, separation, _ = ours.match_to_catalog_sky(theirs)
    near = separation < 1 * u.arcsec
    return np.flatnonzero(near), j[near]


def fitted(night, steps):
    """Posterior of the isochrone against the truth, without and with the mean parallax."""
    from astropy.table import Table

    from datared.clusterfit import fit_isochrone
    from datared.isochronegrid import embedded_grid

    table = Table.read(night.work / "cmd.ecsv")
    parameters = json.loads((night.truth / "parameters.json").read_text())
    true = {"log_age": 9.0 + math.log10(parameters["age"])}
    true |= {name: parameters[name] for name in ("distance_modulus", "a_v", "metallicity")}
    # A large error is no fault: the fit has its own limit, and knows what it does to the numbers.
    cut = np.asarray(table["cut"]).astype(str)
    table = table[(cut == "kept") | np.char.startswith(cut, "large error")]
    start = time.perf_counter()
    fit = fit_isochrone(
        table, grid=embedded_grid(), bands=BANDS, membership=table["membership"],
        metallicity=METALLICITY, seed=1, max_steps=steps,
    )  # fmt: skip
    result = {"fit_seconds": time.perf_counter() - start, "converged": fit.converged}
    result |= {"n_effective": fit.n_effective, "stars": int(fit.used.sum()), "fit": {}}
    for name in FITTED:
        result["fit"][name] = against(fit.samples[name], true[name])
    mean = table.meta["membership"]["mean"]["parallax"]
    error = math.hypot(table.meta["membership"]["mean_err"]["parallax"], COMMON_PARALLAX)
    # The samples are weighted by the parallax: the same as a prior, and no second fit.
    parallax = 10 ** (2 - 0.2 * np.asarray(fit.samples["distance_modulus"]))
    weights = np.exp(-0.5 * ((parallax - mean) / error) ** 2)
    result["parallax"] = [mean, error]
    result["fit_with_parallax"] = {
        name: against(fit.samples[name], true[name], weights) for name in FITTED
    }
    return result


def against(samples, true, weights=None):
    """Median minus truth, standard deviation, and the share of the samples below the truth."""
    values = np.asarray(samples, float)
    weights = np.ones(len(values)) if weights is None else weights
    order = np.argsort(values)
    below = np.cumsum(weights[order]) / weights.sum()
    median = values[order][np.searchsorted(below, 0.5)]
    mean = np.average(values, weights=weights)
    sigma = math.sqrt(np.average((values - mean) ** 2, weights=weights))
    return [float(median - true), sigma, float(weights[values < true].sum() / weights.sum())]


# --- all nights ----------------------------------------------------------------------------------


def table(nights, options):
    """Lines of the tables."""
    lines = [
        "| seed | zero points (mmag) | colour terms g, r, i (errors) | sequence (mag) | purity (%) "
        "| completeness (%) | age (dex) | distance modulus (mag) | stars | converged |",
        "| ---: | ---: | --- | ---: | ---: | ---: | --- | --- | ---: | --- |",
    ]
    for night in nights:
        terms = ", ".join(f"{night['colour_terms'][band]:+.1f}" for band in BANDS)
        age, distance = (
            f"{night['fit'][name][0]:+.3f} ± {night['fit'][name][1]:.3f}"
            for name in ("log_age", "distance_modulus")
        )
        lines.append(
            f"| {night['seed']} | {night['zero_points']:.1f} | {terms} | {night['sequence']:+.3f} "
            f"| {100 * night['purity']:.1f} | {100 * night['completeness']:.1f} | {age} "
            f"| {distance} | {night['stars']} | {'yes' if night['converged'] else 'no'} |"
        )
    lines += ["", *goals(nights), "", *coverage(nights), ""]
    seconds = statistics.median(night["seconds"] for night in nights)
    note = f"{len(nights)} nights, {seconds:.0f} s each ({options.workers} at a time)"
    return lines + [f"* {line}" for line in common.machine(__file__, PACKAGES, options, note)]


def goals(nights):
    """Rows of what was wanted."""
    lines = ["| wanted of every night | worst | nights within | |", "| --- | ---: | ---: | --- |"]

    def add(words, values, good):
        within = sum(good)
        met = common.verdict(within == len(nights))
        lines.append(
            f"| {words} | {max(values, key=abs):.3g} | {within} of {len(nights)} | {met} |"
        )

    def below(name, words, values):
        add(words, values, [abs(value) <= TARGETS[name] for value in values])

    below("zero_points", "zero points ≤ 5 mmag (worst frame)", [n["zero_points"] for n in nights])
    below("sequence", "sequence ≤ 0.03 mag", [n["sequence"] for n in nights])
    for name, words in (("log_age", "age ≤ 0.1 dex"), ("distance_modulus", "distance ≤ 0.1 mag")):
        below(name, words, [night["fit"][name][0] for night in nights])
    for name in ("purity", "completeness"):
        values = [100 * night[name] for night in nights]
        within = sum(value >= 90 for value in values)
        lines.append(
            f"| {name} ≥ 90 % | {min(values):.1f} | {within} of {len(nights)} "
            f"| {common.verdict(within == len(nights))} |"
        )
    terms = [night["colour_terms"][band] for night in nights for band in BANDS]
    share = np.mean(np.abs(terms) <= TARGETS["colour_terms"])
    # 95 % of honest errors are within 2; less than two standard errors of that share is not.
    met = common.verdict(share >= 0.954 - 2 * math.sqrt(0.954 * 0.046 / len(terms)))
    lines.append(
        f"| colour terms within 2 errors (95 % of them) | {max(terms, key=abs):.3g} "
        f"| {100 * share:.0f} % of {len(terms)} | {met} |"
    )
    return lines


def coverage(nights):
    """Rows on bias and honesty of the posterior."""
    lines = [
        "| fit | mean difference | scatter | stated error | truth inside 68 % | inside 95 % "
        "| unbiased | honest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    n = len(nights)
    for key, words in (("fit", ""), ("fit_with_parallax", ", with the mean parallax")):
        for name in FITTED:
            if key != "fit" and name not in ("log_age", "distance_modulus"):
                continue
            away, sigma, below = np.array([night[key][name] for night in nights]).T
            mean, scatter = np.mean(away), np.std(away, ddof=1) if n > 1 else math.nan
            inside = [int(np.sum(np.abs(below - 0.5) < half)) for half in (0.3413, 0.475)]
            # The mean of n differences has an error of scatter / sqrt(n); of n truths the number
            # outside 95 % is binomial, more than this happens to one honest fit in 40.
            unbiased = common.verdict(abs(mean) <= 2 * scatter / math.sqrt(n)) if n > 1 else "–"
            honest = common.verdict(n - inside[1] <= 0.05 * n + 2 * math.sqrt(0.0475 * n))
            lines.append(
                f"| {FITTED[name]}{words} | {mean:+.4f} ± {scatter / math.sqrt(n):.4f} "
                f"| {scatter:.4f} | {np.median(sigma):.4f} | {inside[0]} of {n} "
                f"| {inside[1]} of {n} | {unbiased} | {honest} |"
            )
    return lines


def main():
    """Read the options and run."""
    parser = common.nights_parser(__doc__, nights=20, minutes=60)
    parser.add_argument("--steps", type=int, default=1200, help="most steps of a fit")
    options = parser.parse_args()
    if options.child is not None:
        child(int(options.child), options)
        return
    with common.scratch(options):
        nights = common.run_nights(__file__, options, ["--steps", str(options.steps)])
    if not nights:
        raise SystemExit("no night was measured; the reasons are above")
    lines = table(nights, options)
    print("\n".join(lines))
    if options.readme:
        common.write_readme(lines, MARKERS)


if __name__ == "__main__":
    main()
