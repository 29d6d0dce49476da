"""Transit models against batman and closed formulae; fits against injected transits."""

import numpy as np
import pytest

from datared.ephemeris import Ephemeris
from datared.transit import depth_magnitude, transit_duration, transit_flux, trapezoid
from datared.transitfit import fit_transit, fit_trapezoid, transit_numbers

START = 2458107.5
ORBIT = {"period": 2.15, "scaled_axis": 8.0, "impact": 0.3, "limb_darkening": (0.4, 0.2)}
MINUTE = 1 / 1440
NOISE = 0.005  # per minute: a small telescope


def night(seed, *, minutes=240, mid=0.085, first=0, depth=0.0105):
    """Return times, fluxes and the truth of one noisy transit drawn as a trapezoid."""
    rng = np.random.default_rng(seed)
    time = START + np.arange(first, minutes) * MINUTE
    flux = trapezoid(time, mid_time=START + mid, depth=depth, duration=0.08, ingress=0.01)
    flux = flux * (1 + 0.02 * (time - START - 0.08))
    return time, flux + rng.normal(0, NOISE, time.size)


@pytest.mark.parametrize("exposure", [0.0, 120.0])
@pytest.mark.parametrize("impact", [0.0, 0.3, 0.86, 0.98, 1.05, 1.14])
def test_transit_flux_agrees_with_batman(impact, exposure):
    """LC-09: the model is that of an independent code: full and grazing transits, long exposures.

    Exposures of 2 min are averaged over 11 parts here and 101 parts there; the model is good to
    1e-6 without, and to the 2e-6 of parts at a contact (0.02 in 20 min, over 8 x 11**2) with them.
    """
    batman = pytest.importorskip("batman")
    p = batman.TransitParams()
    p.t0, p.per, p.rp, p.a, p.ecc, p.w = 0.1, 2.15, 0.1489, 6.05, 0.0, 90.0
    p.inc, p.u, p.limb_dark = np.degrees(np.arccos(impact / p.a)), [0.4, 0.2], "quadratic"
    time = np.linspace(-0.1, 0.3, 401)
    flux = transit_flux(
        time, mid_time=0.1, period=2.15, radius_ratio=0.1489, scaled_axis=6.05, impact=impact,
        limb_darkening=(0.4, 0.2), exposure=exposure / 86400,
    )  # fmt: skip
    parts = {"supersample_factor": 101, "exp_time": exposure / 86400} if exposure else {}
    theirs = batman.TransitModel(p, time, **parts).light_curve(p)
    assert flux.min() < 1 - 1e-5
    assert np.abs(flux - theirs).max() < (2e-6 if exposure else 1e-6)


def test_transit_exposure_is_the_mean_over_it():
    """LC-09: sub-sampling equals a fine average to 1e-6, and blurs the ingress."""
    time = np.linspace(-0.06, 0.06, 201)
    options = {"mid_time": 0.0, "radius_ratio": 0.12, **ORBIT}
    exposure = 300 / 86400
    fine = [transit_flux(time + exposure * ((k + 0.5) / 401 - 0.5), **options) for k in range(401)]
    blurred = transit_flux(time, exposure=exposure, **options)
    assert np.abs(np.mean(fine, axis=0) - blurred).max() < 1e-6
    assert np.abs(blurred - transit_flux(time, **options)).max() > 1e-4


def test_transit_planet_behind_the_star_is_not_seen():
    """Half an orbit later there is no dip."""
    flux = transit_flux([0.0, 1.075], mid_time=0, radius_ratio=0.1, **ORBIT)
    assert flux[0] < 0.99 and flux[1] == 1.0


def test_transit_duration_matches_the_model():
    """First contact of the formula is where the model flux leaves 1."""
    half = transit_duration(period=2.15, radius_ratio=0.12, scaled_axis=8.0, impact=0.3) / 2
    edge = transit_flux([-half - 1e-5, -half + 1e-4], mid_time=0, radius_ratio=0.12, **ORBIT)
    assert edge[0] == 1.0 and edge[1] < 1.0
    assert transit_duration(period=2.0, radius_ratio=0.1, scaled_axis=8.0, impact=1.2) == 0


def test_transit_golden_numbers():
    """F14, LC-09: 10.5 ppt is 0.01146 mag and Rp/R* = 0.1025, of the formula and of a fit."""
    assert depth_magnitude(0.0105) == pytest.approx(0.01146, abs=5e-6)
    time = np.linspace(-0.1, 0.1, 201)
    flux = trapezoid(time, mid_time=0, depth=0.0105, duration=0.08, ingress=0.01)
    fit = fit_trapezoid(time, flux, NOISE)
    assert fit.values["radius_ratio"] == pytest.approx(0.1025, abs=5e-5)
    assert fit.values["depth"] == pytest.approx(0.0105, abs=1e-6)
    table = {row["quantity"]: row for row in transit_numbers(fit)}
    assert table["depth_ppt"]["value"] == pytest.approx(10.5, abs=1e-3)
    assert table["depth_mag"]["value"] == pytest.approx(0.01146, abs=5e-6)
    # 1 ppt is 0.00109 mag (F23), a little more where the star is fainter by the transit.
    per_ppt = table["depth_mag"]["error"] / table["depth_ppt"]["error"]
    assert per_ppt == pytest.approx(0.001086 / (1 - 0.0105), rel=1e-3)


def test_transit_numbers_hold_contacts_and_o_minus_c():
    """LC-09: first and last contact, duration and O-C with the errors of fit and ephemeris."""
    time, flux = night(1)
    fit = fit_trapezoid(time, flux, NOISE, baseline=time)
    planet = Ephemeris(START + 0.084 - 500 * 2.15, 2.15, 0.0, 2e-6)
    table = {row["quantity"]: row for row in transit_numbers(fit, ephemeris=planet)}
    late = table["o_minus_c"]
    assert late["unit"] == "min"
    assert late["value"] == pytest.approx((fit.values["mid_time"] - START - 0.084) * 1440, abs=1e-4)
    assert late["error"] == pytest.approx(np.hypot(1.44, fit.errors["mid_time"] * 1440), rel=1e-6)
    assert abs(late["value"] - 1.44) < 4 * late["error"]
    length = table["end"]["value"] - table["start"]["value"]
    assert length == pytest.approx(table["duration"]["value"], abs=1e-8)
    # Contacts to 2 min, as the task wants, for a dip of 10.5 ppt in noise of 5 ppt a minute.
    for name, truth in (("start", 0.045), ("end", 0.125)):
        assert abs(table[name]["value"] - START - truth) < 3 * table[name]["error"]
    assert "o_minus_c" not in transit_numbers(fit)["quantity"]


def test_transit_trapezoid_recovered_without_bias():
    """LC-09: 50 nights: depth within 1 ppt and times within 2 min (rms), pulls unbiased."""
    depth, mid, start = [], [], []
    pulls = []
    for seed in range(50):
        time, flux = night(seed)
        fit = fit_trapezoid(time, flux, NOISE, baseline=time)
        truth = {"mid_time": START + 0.085, "depth": 0.0105}
        pulls.append([(fit.values[k] - v) / fit.errors[k] for k, v in truth.items()])
        depth.append(fit.values["depth"] - 0.0105)
        mid.append((fit.values["mid_time"] - START - 0.085) / MINUTE)
        start.append((fit.values["start"] - START - 0.045) / MINUTE)
        assert fit.significant and fit.complete
    pulls = np.array(pulls)
    # Photon limit: 0.7 ppt and 1.4 min per night; 50 nights: mean to 0.1 ppt and 0.2 min.
    assert np.std(depth) < 1e-3 and abs(np.mean(depth)) < 3.5e-4
    assert np.std(mid) < 2.0 and abs(np.mean(mid)) < 0.7 and abs(np.median(start)) < 2.0
    # The mean of 50 pulls has error 0.14, their width 0.10; corners widen the times by 10 to 15 %.
    assert np.all(np.abs(pulls.mean(axis=0)) < 0.5)
    assert np.all((pulls.std(axis=0) > 0.7) & (pulls.std(axis=0) < 1.45))


def test_transit_limb_darkened_recovered_without_bias():
    """50 nights with the real shape: radius ratio and mid-time have honest errors."""
    pulls, ppt = [], []
    for seed in range(50):
        rng = np.random.default_rng(seed + 100)
        time = START + np.arange(240) * MINUTE
        flux = transit_flux(
            time, mid_time=START + 0.08, radius_ratio=np.sqrt(0.0105), exposure=MINUTE, **ORBIT
        )
        flux = 0.98 * flux + rng.normal(0, NOISE, time.size)
        fit = fit_transit(time, flux, NOISE, exposure=MINUTE, **ORBIT)
        truth = {"mid_time": START + 0.08, "radius_ratio": np.sqrt(0.0105)}
        pulls.append([(fit.values[k] - v) / fit.errors[k] for k, v in truth.items()])
        ppt.append(1e3 * fit.values["depth"] - 10.5)
        assert np.isnan(fit.errors["impact"]) and fit.values["impact"] == 0.3
    pulls = np.array(pulls)
    assert np.std(ppt) < 1.0 and abs(np.mean(ppt)) < 0.4
    # Errors of mean and width of 50 pulls: 0.14 and 0.10; three times that.
    assert np.all(np.abs(pulls.mean(axis=0)) < 0.42)
    assert np.all(np.abs(pulls.std(axis=0) - 1.0) < 0.3)


def test_transit_shape_can_be_fitted():
    """With a good light curve also a/R* and impact are found."""
    rng = np.random.default_rng(4)
    time = np.arange(0, 0.2, MINUTE)
    flux = transit_flux(time, mid_time=0.1, radius_ratio=0.12, **ORBIT)
    flux = flux + rng.normal(0, 1e-4, time.size)
    fit = fit_transit(
        time, flux, 1e-4, **{**ORBIT, "scaled_axis": 7.0, "impact": 0.5},
        free=("mid_time", "radius_ratio", "scaled_axis", "impact"),
    )  # fmt: skip
    for name, truth in {"scaled_axis": 8.0, "impact": 0.3, "radius_ratio": 0.12}.items():
        assert abs(fit.values[name] - truth) < 4 * fit.errors[name], name


def test_transit_absent_is_flagged():
    """LC-09: no dip, no claim: 40 nights of noise, and none is significant."""
    for seed in range(40):
        time, flux = night(seed, depth=0.0)
        assert not fit_trapezoid(time, flux, NOISE, baseline=time).significant


def test_transit_partial_is_flagged_and_times_of_the_seen_flank_hold():
    """LC-09: data that begin in the transit: `complete` is False; the egress holds."""
    time, flux = night(3, first=110)  # begins 0.0086 d before mid-transit
    fit = fit_trapezoid(
        time, flux, NOISE, mid_time=START + 0.08, duration=0.08, fixed=("duration",)
    )
    assert fit.significant and not fit.complete
    assert np.isnan(fit.errors["duration"]) and fit.values["duration"] == 0.08
    assert abs(fit.values["end"] - START - 0.125) < 4 * fit.errors["end"]
    assert fit.errors["end"] < 5 * MINUTE


def test_transit_baseline_and_bad_points():
    """A slope and a flip step are taken out; points that are not finite or masked are left out."""
    time, flux = night(5)
    side = (time > START + 0.1).astype(float)
    flux = flux * (1 + 0.015 * side)
    flux[10], flux[20] = np.nan, np.inf
    error = np.full(time.size, NOISE)
    error[30] = 0.0
    before = flux.copy()
    masked = np.ma.masked_array(flux, np.arange(time.size) == 40)
    fit = fit_trapezoid(time, masked, error, baseline=np.column_stack([time, side]))
    assert fit.used.sum() == time.size - 4 and fit.baseline.shape == (3,) and not fit.used[40]
    assert abs(fit.values["depth"] - 0.0105) < 4 * fit.errors["depth"]
    assert abs(fit.baseline[2] - 0.015) < 0.004  # 4 x 5 mmag / sqrt(~25 effective points)
    np.testing.assert_array_equal(flux, before)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_transit_columns_of_any_unit_give_the_same_fit(unit):
    """Counts of the sky or degrees: depth, mid-time and their errors do not hang on the unit."""
    time, flux = night(5)
    one, other = (fit_trapezoid(time, flux, NOISE, baseline=x * time) for x in (1.0, unit))
    for name in ("depth", "mid_time", "duration"):
        assert other.errors[name] == pytest.approx(one.errors[name], rel=1e-4)
        assert other.values[name] == pytest.approx(one.values[name], abs=1e-3 * one.errors[name])
    assert other.baseline[1] * unit == pytest.approx(one.baseline[1], rel=1e-4)


def test_transit_without_a_time_has_no_model():
    """An epoch without a time has no flux in any model, and no residual of a fit."""
    options = {"mid_time": 0.0, "radius_ratio": 0.1, **ORBIT}
    assert np.isnan(transit_flux([0.0, np.nan], **options)).tolist() == [False, True]
    time, flux = night(5)
    time[7] = np.nan
    fit = fit_trapezoid(time, flux, NOISE, mid_time=START + 0.08)
    assert np.flatnonzero(np.isnan(fit.model)).tolist() == [7]
    assert np.flatnonzero(np.isnan(fit.residuals)).tolist() == [7]


def test_transit_what_is_fixed_keeps_its_guess():
    """A mid-time or an ingress that is held is the one that was given, though others fit better."""
    time, flux = night(5)
    wrong = {"mid_time": START + 0.07, "ingress": 0.02}
    for name, value in wrong.items():
        fit = fit_trapezoid(time, flux, NOISE, duration=0.08, fixed=(name,), **{name: value})
        assert fit.values[name] == value and np.isnan(fit.errors[name])
    fit = fit_transit(
        time, flux, NOISE, mid_time=wrong["mid_time"], free=("radius_ratio",), **ORBIT
    )
    assert fit.values["mid_time"] == wrong["mid_time"]
    for fixed in (("mid_time",), ("ingress",)):
        with pytest.raises(ValueError, match=f"fixed {fixed[0]} needs its value"):
            fit_trapezoid(time, flux, NOISE, fixed=fixed)
    with pytest.raises(ValueError, match="nothing is left to fit"):
        fit_transit(time, flux, NOISE, mid_time=START + 0.085, free=(), **ORBIT)


def test_transit_ingress_is_the_one_that_is_drawn():
    """A dip like a V: the reported ingress is at most half of the duration, as in the model."""
    time = START + np.arange(240) * MINUTE
    dip = trapezoid(time, mid_time=START + 0.08, depth=0.03, duration=0.08, ingress=0.04)
    flux = dip + np.random.default_rng(8).normal(0, 0.002, 240)
    fit = fit_trapezoid(time, flux, 0.002, duration=0.05, ingress=0.05)
    names = ("mid_time", "depth", "duration", "ingress")
    drawn = trapezoid(time, **{name: fit.values[name] for name in names})
    np.testing.assert_allclose(fit.model, fit.baseline[0] * drawn, atol=1e-9)
    assert fit.values["ingress"] == pytest.approx(0.04, abs=0.004)


def test_transit_errors_grow_with_the_scatter():
    """Errors given too small by three are enlarged by chi-square."""
    time, flux = night(6)
    honest, proud = (
        fit_trapezoid(time, flux, e, mid_time=START + 0.085) for e in (0.005, 0.005 / 3)
    )
    assert proud.error_scale == pytest.approx(3.0, rel=0.15)
    assert proud.errors["depth"] == pytest.approx(honest.errors["depth"], rel=0.15)
    assert proud.residual_scatter == pytest.approx(NOISE, rel=0.15)


def test_transit_errors_say_what_is_wrong():
    """Wrong names, sizes and parameters are refused."""
    time, flux = night(7)
    with pytest.raises(ValueError, match="valid are"):
        fit_trapezoid(time, flux, NOISE, fixed=("depht",))
    with pytest.raises(ValueError, match="valid are"):
        fit_transit(time, flux, NOISE, free=("period",), **ORBIT)
    with pytest.raises(ValueError, match="can be used"):
        fit_trapezoid(time, flux * np.nan, NOISE)
    with pytest.raises(ValueError, match="only 0 of 0"):
        fit_trapezoid([], [], NOISE)
    with pytest.raises(ValueError, match="all 240 points are of the time 2458107"):
        fit_transit(np.full(240, START), flux, NOISE, **ORBIT)
    with pytest.raises(ValueError, match=r"steps of 0\.25 d here; give float64"):
        fit_trapezoid(time.astype(np.float32), flux, NOISE)
    with pytest.raises(ValueError, match=r"columns of the baseline \(239,\s*1\) must be"):
        fit_trapezoid(time, flux, NOISE, baseline=time[1:])
    for guess, words in (
        ({"mid_time": 0.585}, "mid_time 0.585 is far from the times, 2458107.5"),
        ({"duration": -0.1}, "duration -0.1"),
    ):
        with pytest.raises(ValueError, match=words):
            fit_trapezoid(time, flux, NOISE, **guess)
    with pytest.raises(ValueError, match="no transit with impact 1"):
        fit_transit(time, flux, NOISE, **{**ORBIT, "impact": 1.3})
    with pytest.raises(ValueError, match="exposure -1"):
        fit_trapezoid(time, flux, NOISE, exposure=-1)
    with pytest.raises(ValueError, match="at most half"):
        trapezoid(time, mid_time=0, depth=0.01, duration=0.1, ingress=0.06)
    with pytest.raises(ValueError, match="must be > 1"):
        transit_flux(time, mid_time=0, radius_ratio=0.1, **{**ORBIT, "scaled_axis": 0.5})
