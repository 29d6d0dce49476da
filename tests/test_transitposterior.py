"""The posterior of a transit: honest errors over many drawn nights, partial transits, no transit.

The nights are short and the chains too, so that many fit into half a minute; that adds a tenth of
the posterior's width to each mean, which changes the width of the pulls by half a percent.
"""

import numpy as np
import pytest
from astropy.table import Table

from datared import sampling, transitposterior
from datared.ephemeris import Ephemeris
from datared.transit import transit_duration, transit_flux
from datared.transitfit import fit_transit
from datared.transitposterior import Normal, Uniform, sample_transit

START, MID, PERIOD = 2458107.6, 2458107.71, 2.15
PRIORS = {
    "scaled_axis": Normal(6.05, 0.05),
    "impact": Normal(0.12, 0.05),
    "u1": Normal(0.35, 0.1),
    "u2": Normal(0.25, 0.1),
    "mid_time": Uniform(MID - 0.03, MID + 0.03),
}
MINUTE = 1 / 1440


@pytest.fixture
def quick(monkeypatch):
    """Few walkers and steps, few points for the evidence."""
    for name, value in {"WALKERS": 24, "BURN_IN": 80, "DRAWS": 300, "FEW": 1000}.items():
        monkeypatch.setattr(transitposterior, name, value)


def night(seed, *, ratio=0.12, noise=0.003, n=60, part=None):
    """One drawn night: orbit, limb darkening and mid-time as the priors say, and a baseline."""
    rng = np.random.default_rng([2024, seed])
    time = START + np.arange(n) * 0.22 / n
    mid = MID + rng.uniform(-0.01, 0.01)
    u1, u2 = rng.normal(0.35, 0.1), rng.normal(0.25, 0.1)
    u1, u2 = max(u1, 0.0), np.clip(u2, -0.5 * max(u1, 0.0), 1 - max(u1, 0.0))
    transit = transit_flux(
        time, mid_time=mid, period=PERIOD, radius_ratio=ratio, limb_darkening=(u1, u2),
        scaled_axis=rng.normal(6.05, 0.05), impact=abs(rng.normal(0.12, 0.05)),
    )  # fmt: skip
    columns = np.column_stack([1 + 30 * (time - START - 0.05) ** 2, time > START + 0.13])
    flux = transit * (0.98 + columns @ [0.015, 0.008]) + noise * rng.normal(size=n)
    keep = {None: time > 0, "ingress": time < mid, "egress": time > mid}[part]
    columns = columns[keep] if part is None else columns[keep, 0]
    return (time[keep], flux[keep], np.full(keep.sum(), noise)), columns, mid


def pulls(fit, mid, ratio):
    """Mean of the samples minus truth, in their widths, and where the truth lies among them."""
    found = []
    for name, truth in (("mid_time", mid), ("radius_ratio", ratio)):
        values = np.asarray(fit.samples[name]) - truth
        found.append([values.mean() / values.std(), np.mean(values < 0)])
    return found


def test_transit_posterior_is_calibrated(quick):
    """LC-09: over 60 nights, radius ratio and mid-time have honest errors.

    White noise, a baseline of two columns, the orbit and the limb darkening unknown within their
    priors. The mean of 60 pulls has the error 0.13, their width 0.09, the share inside the 68 %
    interval 0.06; the limits are three of these, as six numbers are looked at. The seeds count from
    zero: their first 20 nights hold two of 3 sigma, and over the first 240 the pulls of the
    mid-time have the width 1.03 +- 0.05 (long chains: 0.99). About 12 s: 60 posteriors.
    """
    found = []
    for seed in range(60):
        curve, columns, mid = night(seed)
        fit = sample_transit(
            *curve, period=PERIOD, priors=PRIORS, columns=columns, max_steps=100, seed=seed
        )
        assert fit.significant and not fit.converged  # 100 steps are not enough, and it says so
        found.append(pulls(fit, mid, 0.12))
    pull, rank = np.moveaxis(np.array(found), 2, 0)
    assert np.all(np.abs(pull.mean(axis=0)) < 0.39), pull.mean(axis=0)
    assert np.all(np.abs(pull.std(axis=0) - 1) < 0.28), pull.std(axis=0)
    inside = np.mean(np.abs(rank - 0.5) < 0.3413, axis=0)
    assert np.all(np.abs(inside - 0.683) < 0.18), inside


def test_transit_partial_posterior_is_wider_and_honest(quick):
    """LC-09: with ingress or egress only, the mid-time's error grows, and still holds.

    One flank of two knows the time sqrt(2) times worse, and the length of the transit adds to that.
    Where a bent baseline can be taken for the flank, the error is many times as large. The root
    mean square of 8 pulls is known to 25 %.
    """
    wider, pull = [], []
    for seed in range(4):
        width = {}
        for part in (None, "ingress", "egress"):
            curve, columns, mid = night(seed, part=part)
            fit = sample_transit(
                *curve, period=PERIOD, priors=PRIORS, columns=columns, max_steps=100, seed=seed
            )
            width[part] = np.std(fit.samples["mid_time"])
            if part:
                pull.append(pulls(fit, mid, 0.12)[0][0])
                wider.append(width[part] / width[None])
    assert 1.3 < np.median(wider) < 4 and min(wider) > 1
    assert 0.4 < np.sqrt(np.mean(np.square(pull))) < 1.7


def test_transit_absent_is_not_claimed(quick):
    """No planet: the evidence is against a transit, with no false alarm in 15 nights of noise.

    The chance of a Bayes factor above e**5 without a transit is below 1/150 for each night; here
    the mid-time is free all night. At most two of 15 may favour a transit at all (chance of each
    below 10 %).
    """
    ratios = []
    for seed in range(15):
        curve, columns, _ = night(seed, ratio=0.0)
        priors = {name: prior for name, prior in PRIORS.items() if name != "mid_time"}
        fit = sample_transit(
            *curve, period=PERIOD, priors=priors, columns=columns, max_steps=60, seed=seed
        )
        assert not fit.significant and fit.delta_bic < 0
        ratios.append(fit.log_evidence_ratio)
    assert np.median(ratios) < -1 and np.sum(np.array(ratios) > 0) <= 2


@pytest.fixture(scope="module")
def good():
    """A full run on one night with a flip, a bad point and named columns."""
    (time, flux, error), columns, mid = night(3, noise=0.0015)
    flux[5], error[6] = np.nan, 0.0
    columns = Table({"airmass": columns[:, 0], "flip": columns[:, 1]})
    fit = sample_transit(time, flux, error, period=PERIOD, priors=PRIORS, columns=columns, seed=1)
    return fit, (time, flux, error), columns, mid


def test_posterior_reports_convergence(good):
    """LC-09: a run of normal length is at least 25 autocorrelation times long, and says so."""
    fit, *_ = good
    assert fit.converged and fit.n_steps >= 25 * max(fit.autocorrelation.values())
    assert set(fit.autocorrelation) == {*PRIORS, "radius_ratio", "log_jitter"}
    assert fit.n_effective > 500 and 0.1 < fit.acceptance < 0.6


def test_posterior_agrees_with_least_squares(good):
    """The numbers of `fit_transit`, held at the medians of orbit and limb darkening."""
    fit, curve, columns, _ = good
    middle = {name: np.median(fit.samples[name]) for name in fit.samples.colnames}
    square = fit_transit(
        *curve, period=PERIOD, scaled_axis=middle["scaled_axis"], impact=middle["impact"],
        limb_darkening=(middle["u1"], middle["u2"]),
        baseline=np.column_stack([columns["airmass"], columns["flip"]]),
    )  # fmt: skip
    for name in ("mid_time", "radius_ratio"):
        values = np.asarray(fit.samples[name])
        assert abs(np.mean(values) - square.values[name]) < 0.3 * np.std(values)
        assert np.std(values) > 0.9 * square.errors[name] / square.error_scale
    assert np.array_equal(fit.used, square.used)


def test_posterior_curves_and_coefficients(good):
    """Model = baseline times transit; the coefficients are those of the columns as given."""
    fit, (time, flux, _), _, mid = good
    outside = np.abs(time - mid) > 0.08
    np.testing.assert_allclose(fit.model[outside], fit.baseline[outside], atol=1e-9)
    assert np.nanmin(fit.model / fit.baseline) == pytest.approx(1 - fit.best["depth_mid"], abs=2e-4)
    np.testing.assert_allclose(fit.residuals, flux - fit.model)
    assert fit.used.sum() == len(time) - 2 and np.isfinite(fit.model).all()
    assert np.std(fit.residuals[fit.used]) == pytest.approx(0.0015, rel=0.25)
    table = {row["name"]: (row["value"], row["error"]) for row in fit.coefficients}
    for name, truth in {"airmass": 0.015, "flip": 0.008}.items():
        value, sigma = table[name]
        assert abs(value - truth) < 4 * sigma < 0.02, name
    assert abs(table["constant"][0] - fit.baseline[fit.used].mean()) < 4 * table["constant"][1]


def test_posterior_summary_has_the_transit_numbers(good):
    """F14, LC-09: depth in ppt and magnitudes, Rp/R* = sqrt(depth), duration, contacts, O-C."""
    fit, *_ = good
    ephemeris = Ephemeris(MID - 100 * PERIOD, PERIOD, 0.0, 1e-5)
    rows = {row["parameter"]: row for row in fit.summary(ephemeris=ephemeris)}
    middle = {name: row["median"] for name, row in rows.items()}
    for row in rows.values():
        numbers = [row[name] for name in ("low_95", "low_68", "median", "high_68", "high_95")]
        assert numbers == sorted(numbers)
    assert middle["depth_ppt"] == pytest.approx(1e3 * middle["radius_ratio"] ** 2, rel=1e-6)
    assert middle["depth_mag"] == pytest.approx(
        2.5 * np.log10(1 / (1 - middle["depth_mid"])), rel=1e-3
    )
    length = transit_duration(
        period=PERIOD,
        **{name: fit.best[name] for name in ("radius_ratio", "scaled_axis", "impact")},
    )
    assert fit.best["duration"] == pytest.approx(length)
    assert fit.best["end"] - fit.best["start"] == pytest.approx(length, abs=1e-8)
    assert middle["o_minus_c"] == pytest.approx((middle["mid_time"] - MID) * 1440, abs=0.15)
    # The ephemeris is wrong by 100 x 1e-5 d = 1.44 min.
    half = 0.5 * (rows["o_minus_c"]["high_68"] - rows["o_minus_c"]["low_68"])
    own = np.std(fit.samples["mid_time"]) * 1440
    assert half == pytest.approx(np.hypot(1.44, own), rel=0.1)
    assert rows["mid_time"]["unit"] == "d" and rows["depth_mag"]["unit"] == "mag"
    assert fit.priors["mid_time"].startswith("uniform from 2458107.68")
    assert "0.12 +- 0.05" in fit.priors["impact"] and "constant" in fit.priors["baseline"]


def test_posterior_jitter_takes_what_the_errors_leave_out(quick):
    """Errors given too small by two: the jitter fills up, and the errors of the result hold."""
    (time, flux, error), columns, _ = night(4)
    fits = [
        sample_transit(
            time, flux, scale * error, period=PERIOD, priors=PRIORS, columns=columns, max_steps=200
        )
        for scale in (1.0, 0.5)
    ]
    jitter = np.median(np.exp(fits[1].samples["log_jitter"]))
    assert jitter == pytest.approx(0.003 * np.sqrt(0.75), rel=0.25)  # 60 epochs: 9 %, three times
    honest, proud = (np.std(fit.samples["radius_ratio"]) for fit in fits)
    assert proud == pytest.approx(honest, rel=0.3)


def test_posterior_of_the_same_seed_is_the_same(quick):
    """Every number of two runs agrees, whatever the order of other work; another seed differs."""
    curve, columns, _ = night(5)
    runs = [
        sample_transit(
            *curve, period=PERIOD, priors=PRIORS, columns=columns, max_steps=30, seed=seed
        )
        for seed in (2, 2, 3)
    ]
    first, second, other = (np.array(run.samples.as_array().tolist()) for run in runs)
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    assert runs[0].log_evidence_ratio == runs[1].log_evidence_ratio


def test_posterior_seed_is_that_of_start_sampler_and_evidence(quick, monkeypatch):
    """Each of the three random parts follows the seed: with one start, the walkers still differ."""
    given = []
    for name in ("sample_posterior", "log_evidence"):
        original = getattr(transitposterior, name)

        def noted(*args, original=original, **options):
            given.append((options["seed"], args[1] if "burn_in" in options else None))
            return original(*args, **options)

        monkeypatch.setattr(transitposterior, name, noted)
    curve, columns, _ = night(5)
    for seed in (2, 3):
        sample_transit(
            *curve, period=PERIOD, priors=PRIORS, columns=columns, max_steps=10, seed=seed
        )
    assert [seed for seed, _ in given] == [2, 2, 3, 3]
    assert not np.array_equal(given[0][1], given[2][1])


def test_posterior_thinning_keeps_every_walker(quick, monkeypatch):
    """LC-09: samples are whole steps, whatever the number of steps: all walkers, equally often.

    504 steps of 24 walkers are thinned by 12: taken point by point that would be two walkers.
    """
    chains = []

    def recorded(*args, **options):
        chains.append(sampling.sample_posterior(*args, **options))
        return chains[-1]

    monkeypatch.setattr(transitposterior, "sample_posterior", recorded)
    curve, columns, _ = night(5)
    fit = sample_transit(*curve, period=PERIOD, priors=PRIORS, columns=columns, max_steps=504)
    radius = chains[0].points[:, :, 1]
    rows, walkers = np.nonzero(np.isin(radius, fit.samples["radius_ratio"]))
    assert len(fit.samples) == 42 * 24 and set(walkers) == set(range(24))
    assert set(range(0, 504, 12)) <= set(rows)
    assert fit.best["log_posterior"] == chains[0].log_posterior.max()


def test_posterior_column_widths_hold_a_coefficient(quick):
    """A width of 1e-6 for the flip holds its coefficient at zero; the other, 0.015, is as free."""
    curve, columns, _ = night(5)
    options = {"period": PERIOD, "priors": PRIORS, "columns": columns, "max_steps": 60}
    free = sample_transit(*curve, **options)
    held = sample_transit(*curve, **options, column_widths=[np.inf, 1e-6])
    assert free.coefficients["value"][2] > 0.004 and free.coefficients["error"][2] > 5e-4
    assert np.abs(held.coefficients["value"][2]) < 1e-5
    assert held.coefficients["error"][2] == pytest.approx(1e-6, rel=0.01)
    assert held.coefficients["error"][1] > 5e-4
    assert "column 1 0 +- 1e-06" in held.priors["baseline"]
    assert "column 1" in free.priors["baseline"] and "e-06" not in free.priors["baseline"]


def test_posterior_says_what_cannot_be_fitted():
    """Too few points, other shapes and negative flux are refused before a long run."""
    (time, flux, error), columns, _ = night(6)
    options = {"period": PERIOD, "priors": PRIORS, "columns": columns}
    with pytest.raises(ValueError, match="can be used"):
        sample_transit(time, flux * np.nan, error, **options)
    with pytest.raises(ValueError, match="relative flux is positive"):
        sample_transit(time, -flux, error, **options)
    with pytest.raises(ValueError, match="must be"):
        sample_transit(time[:-1], flux, error, **options)
    with pytest.raises(ValueError, match=r"columns of the baseline \(59, 2\) must be \(60, k\)"):
        sample_transit(time, flux, error, **options | {"columns": columns[:-1]})
    with pytest.raises(ValueError, match="only 0 of 0"):
        sample_transit([], [], [], period=PERIOD, priors=PRIORS)
    for name, wrong in {"period": (0.0, np.nan, -2.0), "exposure": (-0.1, np.nan)}.items():
        for value in wrong:
            with pytest.raises(ValueError, match=f"{name} {value}"):
                sample_transit(time, flux, error, **options | {name: value})
    reduced = {**PRIORS, "mid_time": Uniform(0.68, 0.74)}
    with pytest.raises(ValueError, match="BJD_TDB, with all their digits"):
        sample_transit(time, flux, error, **options | {"priors": reduced})
    with pytest.raises(ValueError, match="must be one number"):
        sample_transit(time, flux, error[:-1], **options)
    with pytest.raises(ValueError, match="no scaled_axis"):
        sample_transit(time, flux, error, period=PERIOD, priors={})
