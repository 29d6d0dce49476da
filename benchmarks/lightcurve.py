"""Measure what nights on a transit give, how fast, and a real night beside published results.

Run it from the root of the repository; README.md beside this file says what is measured and how::

    python benchmarks/lightcurve.py --only a --nights 50 --lines transits.jsonl --readme
    python benchmarks/lightcurve.py --only b,c --readme

(a) simulated nights of many seeds, from raw frames to the posterior, against their truth; each in
a process of its own, whose result is a line of a file, so that a run that was stopped goes on where
it was. (b) times of the ensemble, of the matching and of the posterior. (c) HAT-P-32 b.
"""

import json
import math
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import common
import numpy as np

PACKAGES = ("numpy", "numba", "scipy", "astropy", "scikit-learn", "emcee", "exoplanet-core",
            "datared")  # fmt: skip
PARTS = ("a", "b", "c")
MARKERS = {
    part: (f"<!-- table of lightcurve {part} -->", f"<!-- end of table of lightcurve {part} -->")
    for part in PARTS
}
#: Within these the results are wanted (share of the noise, of the period, of the rate).
SCATTER, PERIOD, RATE = 1.15, 0.01, 0.03
PULL_MEAN, PULL_WIDTH = 0.3, (0.8, 1.2)
#: A star or a mover is the one of the truth within so many arcseconds.
SAME = 3.0
#: Part (b): stars and epochs of the ensemble, detections of the matching, epochs of the posterior.
STARS, EPOCHS, DETECTIONS = 5000, 200, 100_000
LIMITS = {"ensemble": 5.0, "matching": 5.0, "posterior": 60.0}
#: Likelihoods of the other side that are timed; all that ours needs would take too long.
SOME = 1000
NOT_MEASURED = "Not measured"
#: HAT-P-32 b: mid-time by the ephemeris of the task, radius ratio, and the field's second variable.
MID_TIME, RADIUS_RATIO = 2458107.71104, 0.1489
SECOND = (31.457, 47.012, 0.0696)
#: What EXOTIC publishes of the same 142 frames, in https://github.com/rzellem/EXOTIC at commit
#: 0278c23a: README.md, and docs/README.md (the same in docs/regions/English/example_output.txt):
#: scatter (%), mid-time (BJD_TDB) and its error, radius ratio and its error.
EXOTIC = {
    "EXOTIC, README": (0.55, 2458107.71406, 0.00097, 0.1541, 0.0033),
    "EXOTIC, docs": (0.5414, 2458107.714007, 0.000856, 0.1503, 0.0009),
}


# --- (a) one simulated night ---------------------------------------------------------------------


def child_night(seed, folder, *, keep):
    """Simulate and measure one night; give the numbers. A night that was kept is gone on with.

    Its seconds are then None: nobody knows how long what is there already took.
    """
    import datared
    from datared.simulate import simulate_transit

    start = time.perf_counter()
    place = folder / f"night-{seed}"
    toml = place / "night.toml"
    fresh = not toml.is_file()
    if fresh:
        # Another run of this seed may have been stopped in the middle.
        shutil.rmtree(place, ignore_errors=True)
        simulate_transit(place, seed=seed)
    simulated = time.perf_counter()
    try:
        truth = json.loads((place / "truth/parameters.json").read_text())
        night = datared.load_night(toml)
        datared.run(night, upto="transit")
        fitted_at = time.perf_counter()
        datared.run(night, upto="variables")
        result = {"seed": seed} | fitted(night, truth) | varying(night, truth)
        seconds = (simulated - start, fitted_at - simulated, time.perf_counter() - fitted_at)
        names = ("simulation_seconds", "transit_seconds", "variables_seconds")
        result |= dict(zip(names, seconds if fresh else (None,) * 3, strict=True))
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    return result | {"seconds": time.perf_counter() - start}


def fitted(night, truth):
    """Mid-time and depth against the truth, and the scatter against what must be there."""
    from astropy.table import Table

    numbers = json.loads((night.work / "transit.json").read_text())
    found, noise = numbers["posterior"], numbers["noise"]
    result = {"beta": noise["beta"], "used": numbers["n_used"]}
    result |= {"reason": numbers["columns_reason"], "pattern_width": numbers["pattern_width"]}
    result["converged"] = bool(found["converged"])
    for name in ("mid_time", "depth"):
        one = found["parameters"][name]
        result[name] = [one["median"] - truth[name], one["error"], one["error_red"]]
    curve = Table.read(night.work / "lightcurve.ecsv")
    fit = Table.read(night.work / "transit.ecsv")
    frames = Table.read(night.truth / "frames.ecsv")
    air = dict(zip(frames["file"], frames["scintillation"], strict=True))
    used = np.asarray(fit["used"], bool)
    # Not flux_err: that holds the scatter that all stars show in a frame, which is to be explained.
    star = np.asarray(curve["raw_err"] / curve["raw"], float)[used] ** 2
    others = np.asarray(curve["transparency_err"] / curve["transparency"], float)[used] ** 2
    air = np.array([air[name] for name in curve["file"][used]]) ** 2
    result["scatter"] = noise["point_scatter"]
    result["expected"] = math.sqrt(float(np.mean(star + others + air)))
    result["expected_alone"] = math.sqrt(float(np.mean(star + air)))
    return result


def varying(night, truth):
    """Compare the variable star and the mover with the truth, and count false ones."""
    from astropy.table import Table

    stars = Table.read(night.truth / "stars.ecsv")
    special = {str(row["kind"]): row for row in stars}
    table = Table.read(night.work / "variables.ecsv")
    called = np.asarray(table["class"]).astype(str) == "variable"
    where = {
        kind: distance(table["ra"], table["dec"], special[kind]["ra"], special[kind]["dec"]) < SAME
        for kind in ("variable", "target")
    }
    true = np.flatnonzero(called & where["variable"])
    period = float(table["period"][true[0]]) if len(true) else math.nan
    # The target has a transit: it is no false one, whether it is found or not.
    wrong = called & ~where["variable"] & ~where["target"]
    result = {
        "variable": bool(len(true)),
        "period": period / truth["variable"]["period"] - 1,
        "rank": int(table["rank"][true[0]]) if len(true) else None,
        "false_variables": int(wrong.sum()),
        "stars": len(table),
    }
    movers = Table.read(night.work / "movers.ecsv")
    path = Table.read(night.truth / "mover.ecsv")
    times = np.asarray(Table.read(night.truth / "frames.ecsv")["jd_utc_mid"], float)
    good = []
    for row in movers:
        ra, dec = (np.interp(row["t0"], times, path[name]) for name in ("ra", "dec"))
        if distance(row["ra0"], row["dec0"], ra, dec) < SAME:
            good.append(row)
    rate = truth["mover"]["rate_per_minute"]
    result |= {"mover": bool(good), "false_movers": len(movers) - min(len(good), 1)}
    result["rate"] = float(good[0]["rate"]) / rate - 1 if good else math.nan
    result["rate_err"] = float(good[0]["rate_err"]) / rate if good else math.nan
    return result


def distance(ra, dec, ra0, dec0):
    """Separation in arcseconds of places that are near each other."""
    east = (np.asarray(ra) - ra0) * math.cos(math.radians(dec0))
    return 3600 * np.hypot(east, np.asarray(dec) - dec0)


def part_a(options):
    """Lines of the tables of the nights."""
    nights = common.run_nights(__file__, options, ["--keep"] if options.keep else [])
    if not nights:
        raise SystemExit("no night was measured; the reasons are above")
    lines = [
        "| seed | mid-time (s) | depth (ppm) | scatter / noise | beta | flat (ppm) "
        "| variable: period (%) | mover: rate (%) | false |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for night in nights:
        late, deep = 86400 * np.array(night["mid_time"]), 1e6 * np.array(night["depth"])
        lines.append(
            f"| {night['seed']} | {late[0]:+.0f} ± {late[2]:.0f} | {deep[0]:+.0f} ± {deep[2]:.0f} "
            f"| {night['scatter'] / night['expected']:.3f} | {night['beta']:.2f} "
            f"| {1e6 * (night['pattern_width'] or 0):.0f} | {percent(night['period'])} "
            f"| {percent(night['rate'])} | {night['false_variables'] + night['false_movers']} |"
        )
    lines += ["", *goals_a(nights), "", *pulls(nights), ""]
    note = f"{len(nights)} nights of {options.nights}"
    fresh = [night for night in nights if night["transit_seconds"] is not None]
    if fresh:
        whole, part = (
            statistics.median(night[key] for night in fresh)
            for key in ("seconds", "transit_seconds")
        )
        note += (
            f", {whole:.0f} s each ({options.workers} at a time), {part:.0f} s of them from raw "
            "frames to the posterior"
        )
    if len(fresh) < len(nights):
        note += f"; {len(nights) - len(fresh)} were kept from an earlier run and are not timed"
    return lines + machine(options, note)


def percent(value):
    """Signed percent, or what is to be read where it is not known."""
    return f"{100 * value:+.2f}" if math.isfinite(value) else "not found"


def goals_a(nights):
    """Rows of what was wanted of every night."""
    lines = ["| wanted of every night | worst | nights within | |", "| --- | ---: | ---: | --- |"]

    def add(words, values, good):
        within = sum(bool(one) for one in good)
        met = common.verdict(within == len(nights))
        worst = max(values, key=lambda value: abs(value) if math.isfinite(value) else math.inf)
        told = ("no", "yes")[worst] if isinstance(worst, bool) else f"{worst:.3g}"
        lines.append(f"| {words} | {told} | {within} of {len(nights)} | {met} |")

    for key, whose in (("expected", "star and comparison stars"), ("expected_alone", "the star")):
        ratios = [night["scatter"] / night[key] for night in nights]
        words = f"scatter ≤ {SCATTER} x noise of {whose} (median {statistics.median(ratios):.3f})"
        add(words, ratios, [ratio <= SCATTER for ratio in ratios])
    for key, words, limit in (
        ("period", "variable found, period ≤ 1 %", PERIOD),
        ("rate", "mover found, rate ≤ 3 %", RATE),
    ):
        values = [100 * night[key] for night in nights]
        add(words, values, [abs(value) <= 100 * limit for value in values])
    for key in ("false_variables", "false_movers"):
        values = [night[key] for night in nights]
        add(f"no {key.replace('_', ' ')}", values, [value == 0 for value in values])
    converged = [night["converged"] for night in nights]
    add("posterior converged", [min(converged)], converged)
    return lines


def pulls(nights):
    """Rows of the pulls: difference from the truth in errors."""
    lines = [
        "| pulls | mean | width | within 1 | within 2 | largest | wanted "
        f"(mean within {PULL_MEAN}, width {PULL_WIDTH[0]} to {PULL_WIDTH[1]}) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    n = len(nights)
    for name, words in (("mid_time", "mid-time"), ("depth", "depth")):
        for column, kind in ((2, "stated error"), (1, "without the red noise")):
            pull = np.array([night[name][0] / night[name][column] for night in nights])
            mean, width = float(np.mean(pull)), float(np.std(pull, ddof=1)) if n > 1 else math.nan
            met = abs(mean) <= PULL_MEAN and PULL_WIDTH[0] <= width <= PULL_WIDTH[1]
            within = [int(np.sum(np.abs(pull) <= k)) for k in (1, 2)]
            lines.append(
                f"| {words}, {kind} | {mean:+.2f} ± {width / math.sqrt(n):.2f} "
                f"| {width:.2f} ± {width / math.sqrt(2 * max(n - 1, 1)):.2f} | {within[0]} of {n} "
                f"| {within[1]} of {n} | {np.max(np.abs(pull)):.2f} | {common.verdict(met)} |"
            )
    return lines


# --- (b) times -----------------------------------------------------------------------------------


def many_stars(stars=STARS, epochs=EPOCHS):
    """Fluxes of stars behind clouds, with errors; some vary, some measurements are missing."""
    rng = np.random.default_rng(5)
    flux = 10 ** rng.uniform(3.0, 6.5, stars)
    common_light = 1 - 0.4 * np.exp(-(((np.arange(epochs) - 120) / 8) ** 2))
    common_light *= 1 + 0.05 * np.sin(np.arange(epochs) / 30)
    true = flux[:, None] * common_light
    noise = np.sqrt(true + 2e3 + (0.002 * true) ** 2)
    values = true + noise * rng.standard_normal(true.shape)
    varies = rng.random(stars) < 0.02
    swing = 0.1 * np.sin(np.arange(epochs) / rng.uniform(3, 30, stars)[:, None])
    values *= 1 + np.where(varies[:, None], swing, 0)
    values[rng.random(true.shape) < 0.05] = np.nan
    return values, np.where(np.isfinite(values), noise, np.nan), common_light


def away_from(found, true):
    """Scatter of the found light around the true one (mmag), without a common factor."""
    magnitude = -2.5 * np.log10(np.asarray(found) / true)
    return 1000 * float(np.std(magnitude - np.median(magnitude)))


def child_ensemble_ours():
    """All stars at once by ours."""
    from datared.ensemble import solve_ensemble

    solve_ensemble(*many_stars(50, 30)[:2])
    flux, error, true = many_stars()
    found, seconds = common.repeated(lambda: solve_ensemble(flux, error))
    return {"seconds": statistics.median(seconds), "away": away_from(found.flux, true)}


def child_ensemble_theirs():
    """All stars at once as a sparse system of linear equations (Honeycutt 1992), by scipy."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import lsqr

    flux, error, true = many_stars()

    def solve():
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore")
            magnitude = -2.5 * np.log10(flux)
        star, epoch = np.nonzero(np.isfinite(magnitude))
        weight = flux[star, epoch] / error[star, epoch] / 1.0857
        each = np.arange(len(star))
        rows = np.concatenate([each, each])
        places = np.concatenate([star, len(flux) + epoch])
        shape = (len(star), sum(flux.shape))
        system = coo_array((np.concatenate([weight, weight]), (rows, places)), shape=shape).tocsr()
        solution = lsqr(system, weight * magnitude[star, epoch], atol=1e-9, btol=1e-9)[0]
        return 10 ** (-0.4 * solution[len(flux) :])

    found, seconds = common.repeated(solve)
    return {"seconds": statistics.median(seconds), "away": away_from(found, true)}


def sky_lists(detections=DETECTIONS, frames=EPOCHS):
    """Give detections of stars on many frames: RA, Dec, frame, and the star (-1: none)."""
    rng = np.random.default_rng(9)
    stars = int(detections / frames / 0.92)
    # Around RA 0, nine in ten of the stars are seen on a frame, and two in a hundred are false.
    ra0, dec0 = rng.uniform(-0.25, 0.25, stars), rng.uniform(29.8, 30.2, stars)
    rows = []
    for frame in range(frames):
        seen = np.flatnonzero(rng.random(stars) < 0.9)
        false = rng.poisson(0.02 * stars)
        ra = ra0[seen] + rng.normal(0, 0.2, len(seen)) / 3600 / math.cos(math.radians(30))
        dec = dec0[seen] + rng.normal(0, 0.2, len(seen)) / 3600
        ra = np.concatenate([ra, rng.uniform(-0.25, 0.25, false)]) % 360
        dec = np.concatenate([dec, rng.uniform(29.8, 30.2, false)])
        rows.append((ra, dec, np.full(len(ra), frame), np.concatenate([seen, np.full(false, -1)])))
    return [np.concatenate(part) for part in zip(*rows, strict=True)]


def judge(cluster, frame, star):
    """Share of right detections in the clusters, and of all of the stars that are in theirs."""
    kept = cluster >= 0
    inside, of = cluster[kept], star[kept]
    pairs, counts = np.unique(np.column_stack([inside, of]), axis=0, return_counts=True)
    # Most of a cluster says which star it is; one cluster is a star's.
    order = np.argsort(-counts, kind="stable")
    owner, taken, right = {}, set(), 0
    for (one, true), count in zip(pairs[order], counts[order], strict=True):
        if true >= 0 and one not in owner and true not in taken:
            owner[one] = true
            taken.add(true)
            right += int(count)
    twice = len(inside) - len(np.unique(np.column_stack([inside, frame[kept]]), axis=0))
    return {"purity": right / kept.sum(), "completeness": right / (star >= 0).sum(), "twice": twice}


def child_matching_ours():
    """Match the detections by ours."""
    from astropy.table import Table

    from datared.clustering import match_detections

    def lists(ra, dec, frame):
        return [
            Table({"ra": ra[frame == k], "dec": dec[frame == k]}) for k in range(max(frame) + 1)
        ]

    ra, dec, frame, star = sky_lists()
    match_detections(lists(*sky_lists(1000, 20)[:3]), eps=1.5, min_samples=10)
    tables = lists(ra, dec, frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Some stars are nearer to each other than two eps.
        found, seconds = common.repeated(lambda: match_detections(tables, eps=1.5, min_samples=10))
    told = judge(np.asarray(found["cluster"]), frame, star)
    return {"seconds": statistics.median(seconds), "detections": len(ra)} | told


def child_matching_theirs():
    """Match the detections by scikit-learn alone."""
    from sklearn.cluster import DBSCAN

    ra, dec, frame, star = sky_lists()

    def match():
        a, d = np.radians(ra), np.radians(dec)
        sky = np.column_stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
        return DBSCAN(eps=2 * math.sin(math.radians(1.5 / 3600) / 2), min_samples=10).fit_predict(
            sky
        )

    found, seconds = common.repeated(match)
    return {"seconds": statistics.median(seconds)} | judge(found, frame, star)


def one_transit():
    """Make a light curve of 200 epochs with a transit and two columns; give the planet too."""
    from datared.transit import transit_flux

    rng = np.random.default_rng(2)
    time_of = 2460000.0 + np.linspace(-0.12, 0.12, EPOCHS)
    planet = {"period": 2.15, "radius_ratio": 0.149, "scaled_axis": 6.05, "impact": 0.12}
    planet |= {"mid_time": 2460000.004, "limb_darkening": (0.35, 0.25)}
    columns = np.column_stack([np.linspace(-1.7, 1.7, EPOCHS), rng.standard_normal(EPOCHS)])
    flux = transit_flux(time_of, exposure=60 / 86400, **planet) * (1 + columns @ [0.002, -0.001])
    return time_of, flux + rng.normal(0, 0.004, EPOCHS), np.full(EPOCHS, 0.004), columns, planet


def child_posterior_ours():
    """Sample the posterior by ours, until it has converged."""
    from datared.transitposterior import BURN_IN, WALKERS, Normal, sample_transit

    at, flux, error, columns, planet = one_transit()
    priors = {"scaled_axis": Normal(6.05, 0.04), "impact": Normal(0.12, 0.05)}
    priors |= {"u1": Normal(0.35, 0.1), "u2": Normal(0.25, 0.1)}
    options = {"period": planet["period"], "priors": priors, "exposure": 60 / 86400}
    sample_transit(at, flux, error, columns=columns, max_steps=10, **options)
    start = time.perf_counter()
    found = sample_transit(at, flux, error, columns=columns, seed=1, **options)
    seconds = time.perf_counter() - start
    result = {"seconds": seconds, "converged": bool(found.converged), "steps": found.n_steps}
    result["likelihoods"], result["walkers"] = WALKERS * (BURN_IN + found.n_steps), WALKERS
    for name in ("mid_time", "radius_ratio"):
        values = np.asarray(found.samples[name])
        result[name] = [float(np.median(values)) - planet[name], float(np.std(values))]
    return result


def child_posterior_theirs():
    """Seconds of one likelihood by batman, with the baseline solved by numpy, one at a time."""
    import batman

    at, flux, _, columns, planet = one_transit()
    known = batman.TransitParams()
    known.t0, known.per, known.rp = planet["mid_time"], planet["period"], planet["radius_ratio"]
    known.a, known.ecc, known.w = planet["scaled_axis"], 0.0, 90.0
    known.inc = math.degrees(math.acos(planet["impact"] / planet["scaled_axis"]))
    known.u, known.limb_dark = list(planet["limb_darkening"]), "quadratic"
    model = batman.TransitModel(known, at, supersample_factor=3, exp_time=60 / 86400)
    design = np.column_stack([np.ones(len(at)), columns])
    rng = np.random.default_rng(1)

    def some():
        total = 0.0
        for _ in range(SOME):
            known.t0 = planet["mid_time"] + 1e-4 * rng.standard_normal()
            known.rp = planet["radius_ratio"] + 1e-3 * rng.standard_normal()
            shape = model.light_curve(known)[:, None] * design
            level = np.linalg.solve(shape.T @ shape, shape.T @ flux)
            total += float(np.sum((flux - shape @ level) ** 2))
        return total

    _, seconds = common.repeated(some)
    return {"one": statistics.median(seconds) / SOME}


def part_b(options):
    """Lines of the table of times."""
    names = [f"{what}_{side}" for what in LIMITS for side in ("ours", "theirs")]
    results = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            results[name].append(common.spawn(__file__, name, ["--folder", str(options.folder)]))
    lines = [
        "| | ours (s) | wanted | | theirs (s) | ratio | ours | theirs |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- | --- |",
    ]

    def got(name, key):
        return common.median(results, name, key)

    ones, runs = got("posterior_theirs", "one"), got("posterior_ours", "likelihoods")
    theirs = {
        "ensemble": got("ensemble_theirs", "seconds"),
        "matching": got("matching_theirs", "seconds"),
        "posterior": None if ones is None or runs is None else ones * runs,
    }
    words = {
        "ensemble": f"ensemble, {STARS} stars x {EPOCHS} epochs",
        "matching": f"matching, {got('matching_ours', 'detections') or DETECTIONS:.0f} detections",
        "posterior": f"posterior, {EPOCHS} epochs",
    }
    for what, limit in LIMITS.items():
        ours, other = got(f"{what}_ours", "seconds"), theirs[what]
        met = "" if ours is None else common.verdict(ours <= limit)
        ratio = None if None in (ours, other) else other / ours
        said = [quality(what, side, got) for side in ("ours", "theirs")]
        lines.append(
            f"| {words[what]} | {common.number(ours)} | ≤ {limit:g} | {met} "
            f"| {common.number(other)} | {common.number(ratio)} | {said[0]} | {said[1]} |"
        )
    lines.append("")
    for name in names:
        if got(name, "seconds") is None and got(name, "one") is None:
            lines.append(f"* `{name}`: {common.failure(results, name)}.")
    return lines + machine(options, f"simulated; median of {options.repeats} runs")


def quality(what, side, got):
    """Words on how right a result of part (b) is."""
    name = f"{what}_{side}"
    if what == "ensemble" and got(name, "away") is not None:
        return f"{got(name, 'away'):.3f} mmag from the truth"
    if what == "matching" and got(name, "purity") is not None:
        return (
            f"purity {100 * got(name, 'purity'):.2f} %, completeness "
            f"{100 * got(name, 'completeness'):.2f} %, {got(name, 'twice'):.0f} twice in a frame"
        )
    if what == "posterior" and side == "ours" and got(name, "steps") is not None:
        converged = "converged" if got(name, "converged") else "**not converged**"
        return f"{got(name, 'steps'):.0f} steps of {got(name, 'walkers'):.0f} walkers, {converged}"
    if what == "posterior" and got(name, "one") is not None:
        return f"{1000 * got(name, 'one'):.2f} ms each, as many as ours needs"
    return ""


# --- (c) HAT-P-32 b ------------------------------------------------------------------------------


def child_hat(folder):
    """Measure the real night from raw frames to the posterior and the variables."""
    from astropy.table import Table

    import datared
    from datared.samples import fetch_sample

    folder = Path(tempfile.mkdtemp(prefix="hat-", dir=folder))
    try:
        toml = fetch_sample("hat-p-32", folder=folder / "night")
        night = datared.load_night(toml)
        start = time.perf_counter()
        datared.run(night, upto="transit")
        seconds = time.perf_counter() - start
        datared.run(night, upto="variables")
        numbers = json.loads((night.work / "transit.json").read_text())
        found, noise = numbers["posterior"], numbers["noise"]
        result = {"seconds": seconds, "scatter": noise["scatter"], "beta": noise["beta"]}
        result |= {"converged": bool(found["converged"]), "columns": numbers["columns"]}
        for name in ("mid_time", "radius_ratio"):
            one = found["parameters"][name]
            result[name] = [one["median"], one["error"], one["error_red"]]
        table = Table.read(night.work / "variables.ecsv")
        away = distance(table["ra"], table["dec"], *SECOND[:2])
        nearest = int(np.argmin(away))
        result |= {"away": float(away[nearest]), "rank": int(table["rank"][nearest])}
        result["period"] = float(table["period"][nearest])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def part_c(options):
    """Lines of the table of HAT-P-32 b."""
    ours = common.spawn(__file__, "hat", ["--folder", str(options.folder)])
    if "failed" in ours:
        return [f"{NOT_MEASURED}: {ours['failed']}."]
    late = 1440 * (ours["mid_time"][0] - MID_TIME)
    errors = [1440 * value for value in ours["mid_time"][1:]]
    ratio, *wide = ours["radius_ratio"]
    others = list(EXOTIC.values())
    met = common.verdict
    rows = [
        ("scatter per frame (%)", f"{100 * ours['scatter']:.3f}",
         [f"{one[0]:.3g}" for one in others], "≤ 0.42", met(100 * ours["scatter"] <= 0.42)),
        ("beta (10 to 30 minutes)", f"{ours['beta']:.2f}", ["", ""], "< 1.3",
         met(ours["beta"] < 1.3)),
        ("mid-time (BJD_TDB − 2458107)", f"{ours['mid_time'][0] - 2458107:.5f}",
         [f"{one[1] - 2458107:.5f}" for one in others], "", ""),
        ("minus the ephemeris (min)", f"{late:+.2f} ± {errors[1]:.2f}",
         [f"{1440 * (one[1] - MID_TIME):+.2f} ± {1440 * one[2]:.2f}" for one in others],
         "≤ 2.5 errors and 3 min", met(abs(late) <= min(3, 2.5 * errors[1]))),
        ("of it without the red noise (min)", f"± {errors[0]:.2f}", ["", ""], "", ""),
        ("Rp/R*", f"{ratio:.4f} ± {wide[1]:.4f}",
         [f"{one[3]:.4f} ± {one[4]:.4f}" for one in others],
         f"≤ 2 errors of {RADIUS_RATIO}", met(abs(ratio - RADIUS_RATIO) <= 2 * wide[1])),
        ("rank of the second variable", f"{ours['rank']}", ["", ""], "first three",
         met(0 < ours["rank"] <= 3 and ours["away"] < 15)),
        ("its period (d)", f"{ours['period']:.4f}", ["", ""], f"near {SECOND[2]}", ""),
        ("raw frames to posterior (s)", f"{ours['seconds']:.0f}", ["", ""], "", ""),
    ]  # fmt: skip
    lines = [
        f"| HAT-P-32 b | ours | {' | '.join(EXOTIC)} | wanted | |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    lines += [
        f"| {words} | {value} | {' | '.join(theirs)} | {wanted} | {verdict} |"
        for words, value, theirs, wanted, verdict in rows
    ]
    lines += ["", f"* baseline columns: {', '.join(ours['columns']) or 'none'}."]
    return lines + machine(options, "142 raw frames of 2017-12-20, no calibration frames")


# --- all -----------------------------------------------------------------------------------------


def machine(options, note):
    """Lines on the machine and the command."""
    return [f"* {line}" for line in common.machine(__file__, PACKAGES, options, note)]


def child(name, folder, *, keep):
    """Run what a child measures and print it as a line."""
    if name.isdigit():
        result = child_night(int(name), folder, keep=keep)
    elif name == "hat":
        result = child_hat(folder)
    else:
        result = globals()[f"child_{name}"]()
    print(json.dumps(result))


def main():
    """Read the options and run."""
    parser = common.nights_parser(__doc__, nights=50, minutes=120)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, such as a,b")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement of part (b)")
    parser.add_argument("--keep", action="store_true", help="leave the nights in --folder")
    options = parser.parse_args()
    if options.keep and options.folder is None:
        parser.error("--keep needs a --folder: one that nobody named does not stay")
    if options.child is not None:
        child(options.child, options.folder, keep=options.keep)
        return
    chosen = options.only.split(",")
    if not set(chosen) <= set(PARTS):
        parser.error(f"--only {options.only}: the parts are {', '.join(PARTS)}")
    with common.scratch(options):
        for part in chosen:
            lines = globals()[f"part_{part}"](options)
            print("\n".join(lines))
            # A table that is there is better than the reason why there is no new one.
            if options.readme and not lines[0].startswith(NOT_MEASURED):
                common.write_readme(lines, MARKERS[part])


if __name__ == "__main__":
    main()
