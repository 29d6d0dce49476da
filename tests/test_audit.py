"""The audit of error bars: on tables whose errors are known to be right or wrong."""

import time

import numpy as np
import pytest
from astropy.table import Table

from datared import photometry as flag
from datared.assembly import Photometry
from datared.audit import SNR_BINS, audit_night, audit_photometry, pull_width
from datared.errors import DataredError
from datared.night import Night
from datared.summary import summarise

SKY = 30.0


def make(filters, *, n_star=400, seed=1, n_radius=1, factor=None, faint=50.0):
    """Measurements of constant stars with photon and sky noise and exact errors.

    Returns the photometry, the true fluxes and the true errors; S/N is 2 to 500.
    """
    rng = np.random.default_rng(seed)
    n_epoch = len(filters)
    truth = np.sort(10 ** rng.uniform(np.log10(faint), 5.5, n_star))[::-1]
    factor = rng.uniform(0.8, 1.2, n_epoch) if factor is None else np.asarray(factor)
    light = (truth[:, None] * factor)[..., None] * np.linspace(1.0, 0.7, n_radius)[::-1]
    error = np.sqrt(light + SKY**2)
    flux = light + error * rng.normal(size=light.shape)
    stars = Table({"star": np.arange(n_star), "ra": np.linspace(10, 11, n_star)})
    stars["dec"], stars["target"] = 5.0, False
    epochs = Table({"epoch": np.arange(n_epoch), "file": [f"{k}.fits" for k in range(n_epoch)]})
    epochs["filter"], epochs["exptime"] = list(filters), 60.0
    place = np.zeros((n_star, n_epoch))
    radii = tuple(3.0 + np.arange(n_radius))
    result = Photometry(
        stars, epochs, flux, error.copy(), np.zeros(flux.shape, int), place, place, place, radii,
        "px", 0, 1.0,
    )  # fmt: skip
    return result, truth, factor


def write(result, folder, *, default=0):
    """Write measurements as the stage photometry does, in a night's work folder."""
    night = Night(name="test", raw=folder / "raw", work=folder / "work")
    night.work.mkdir()
    table = Table({"star": result.stars["star"], "flux": result.flux, "flux_err": result.flux_err})
    table["flags"], table["sky"] = result.flags, result.sky
    table["x"], table["y"] = result.x, result.y
    table.meta = {"NRADII": len(result.radii), "RADUNIT": "px", "DEFRAD": default}
    table.meta |= {f"RADIUS{k}": radius for k, radius in enumerate(result.radii)}
    table.write(night.work / "photometry.fits")
    result.stars.write(night.work / "stars.ecsv")
    result.epochs.write(night.work / "epochs.ecsv")
    return night


def whole(audit, name="g", radius=0):
    """Row of all bins of signal-to-noise together."""
    rows = audit.pulls[(audit.pulls["filter"] == name) & (audit.pulls["radius"] == radius)]
    return rows[-1]


@pytest.mark.parametrize("n_epoch", [3, 5, 40])
def test_pulls_of_true_errors_have_width_one(n_epoch):
    """PH-05, Q7: width 1.00 within its own error with 3, 5 and 40 repeats, in each bin of S/N.

    The mean and the factor come from the same data: uncorrected, three repeats would give 0.82.
    """
    result, truth, factor = make("g" * n_epoch, n_star=2000, seed=n_epoch)
    audit = audit_photometry(result)
    for row in audit.pulls:
        # Of six widths the farthest is 2.6 errors away in one run of 20.
        assert abs(row["width"] - 1) < 3 * row["width_err"], row
        assert abs(row["median"]) < 4 * 1.2533 / np.sqrt(row["n"])
    assert whole(audit)["n"] == sum(audit.pulls["n"][:-1]) > 1500 * n_epoch
    # The mean of 2000 chi-squares is known to sqrt(2 / freedom / 2000).
    known = ~np.ma.getmaskarray(audit.stars["chi2"])
    chi2 = np.asarray(audit.stars["chi2"])[known & (audit.stars["snr"].filled(0) > 5)]
    assert abs(np.mean(chi2) - 1) < 4 * np.sqrt(2 / (n_epoch - 1) / len(chi2))
    # The ratio of 900 stars: 1.25 / sqrt(2 x freedom x 900).
    assert abs(audit.median_ratio["g"] - 1) < 4 * 1.25 / np.sqrt(2 * (n_epoch - 1) * 900)
    assert audit.stars["variable"].sum() == 0 and audit.too_few == {}
    # Factors and means are the true ones within their errors.
    scale = np.median(audit.frames["factor"] / factor)
    off = (audit.frames["factor"] / factor / scale - 1) * factor / audit.frames["factor_err"]
    assert np.abs(off).max() < 5
    # Only bright stars would feel that this scale has an error of its own.
    means = (audit.stars["flux"] - truth / scale) / audit.stars["flux_err"]
    width, width_err = pull_width(means[audit.stars["snr"].filled(0) < 50].filled(np.nan))
    assert abs(width - 1) < 3 * width_err


def test_a_star_is_not_in_its_own_factor():
    """Five stars alike: each against the other four; in its own factor its noise would hide."""
    result, *_ = make("g" * 200, n_star=5, faint=10**5.4)
    row = whole(audit_photometry(result))
    # In its own factor the width would be 0.82; of 1000 pulls it is known to 0.03.
    assert abs(row["width"] - 1) < 3 * row["width_err"] and row["n"] > 980


def test_halved_errors_give_width_two():
    """Errors that are half of the true ones: width 2, ratio 2, and no star is called variable."""
    result, *_ = make("g" * 10, n_star=1000)
    result.flux_err[:] /= 2
    audit = audit_photometry(result)
    row = whole(audit)
    assert abs(row["width"] - 2) < 3 * row["width_err"]
    assert audit.median_ratio["g"] == pytest.approx(2, abs=0.05)
    # Beyond the errors, but not beyond what all stars do.
    assert audit.stars["variable"].sum() <= 1


def test_variable_star_is_named_and_is_in_no_width():
    """One star that varies by 3 %: only its chi-square is large; the others keep theirs."""
    result, *_ = make("g" * 30)
    quiet = audit_photometry(result)
    for star in (3, 60):
        result.flux[star, :, 0] *= 1 + 0.03 * np.sin(np.arange(30))
    audit = audit_photometry(result)
    assert list(np.flatnonzero(audit.stars["variable"])) == [3, 60]
    assert audit.stars["chi2"][3] > 20 and audit.stars["scatter"][3] == pytest.approx(
        0.021, rel=0.2
    )
    others = np.delete(np.arange(400), [3, 60])
    assert np.abs(audit.stars["chi2"] - quiet.stars["chi2"])[others].max() < 0.2
    assert whole(audit)["width"] == pytest.approx(whole(quiet)["width"], abs=0.01)


def test_a_cosmic_ray_spoils_no_mean():
    """One wild measurement of a star with 3 or 8 repeats: left out, counted, mean as without."""
    for n_epoch in (3, 8):
        result, *_ = make("g" * n_epoch)
        free = audit_photometry(result).stars
        result.flux[50, 1, 0] *= 1.5
        stars = audit_photometry(result).stars
        assert stars["n_outliers"][50] == 1 and stars["n"][50] == n_epoch - 1
        assert abs(stars["flux"][50] - free["flux"][50]) < 3 * free["flux_err"][50]
        assert not stars["variable"].any() and stars["n_outliers"].sum() <= 2


def test_frame_with_a_cloud_over_a_part_is_left_out():
    """A frame whose stars lose 0 to 20 %: listed with the reason; chi-squares stay at one."""
    result, *_ = make("g" * 8)
    rng = np.random.default_rng(5)
    result.flux[:, 2] *= rng.uniform(0.8, 1.0, 400)[:, None]
    audit = audit_photometry(result)
    assert list(audit.frames["used"]) == [k != 2 for k in range(8)]
    assert "disagree" in audit.frames["reason"][2]
    assert abs(whole(audit)["width"] - 1) < 3 * whole(audit)["width_err"]
    assert np.median(audit.stars["n"]) == 7 and not audit.stars["variable"].any()
    # All of the stars of a frame lost alike is a factor, no disagreement.
    result, *_ = make("g" * 8, factor=[1, 1, 0.3, 1, 1, 1, 1, 1])
    assert audit_photometry(result).frames["used"].all()


@pytest.mark.parametrize("sign", [0, -1])
def test_frame_on_which_no_star_is_seen_is_left_out(sign):
    """A frame of sky noise alone, or of negative fluxes: no factor, listed, and no pull of it."""
    result, *_ = make("g" * 6)
    noise = np.random.default_rng(3).normal(0, SKY, 400)
    # The sum of the noise of the bright stars is below zero.
    result.flux[:, 2, 0] = noise - 5 if sign == 0 else -result.flux[:, 2, 0]
    result.flux_err[:, 2] = SKY
    audit = audit_photometry(result)
    assert list(audit.frames["used"]) == [k != 2 for k in range(6)]
    assert audit.frames["reason"][2] == "no star to compare with"
    assert np.median(audit.stars["n"]) == 5 and not audit.stars["variable"].any()


def test_stars_that_drift_over_hot_pixels_still_carry_the_factors():
    """A third of all measurements flagged: no star is good on nearly all frames; widths are one."""
    result, *_ = make("g" * 60, n_star=300)
    hot = np.random.default_rng(4).random((300, 60)) < 0.35
    result.flags[hot] = flag.BAD_PIXEL
    audit = audit_photometry(result)
    assert audit.frames["used"].all() and audit.frames["n_stars"].min() >= 10
    assert abs(whole(audit)["width"] - 1) < 3 * whole(audit)["width_err"]
    assert abs(audit.median_ratio["g"] - 1) < 4 * 1.25 / np.sqrt(2 * 38 * 130)


def test_flagged_and_missing_measurements_do_not_count():
    """NaN, saturated, bad pixels: not there; a negative flux: there, or faint stars would shine."""
    result, *_ = make("g" * 10, faint=5.0)
    result.flux[5, 2:9] = np.nan
    result.flux_err[6] = np.nan
    result.flags[7, :5] = flag.SATURATED
    result.flux[7, :5] *= 3
    result.flags[:, :][result.flux < 0] |= flag.NEGATIVE
    result.flags[8] = flag.NEIGHBOUR
    audit = audit_photometry(result)
    assert list(audit.stars["n"][5:9]) == [3, 0, 5, 0]
    assert list(np.ma.getmaskarray(audit.stars["chi2"])[5:9]) == [False, True, False, True]
    assert audit.stars["chi2"][7] < 5 and not audit.stars["variable"].any()
    faint = audit.stars["n"][-50:]
    assert (result.flags[-50:] & flag.NEGATIVE).any() and faint.min() >= 9
    assert np.isfinite(audit.stars["flux"].compressed()).all()


def test_a_filter_with_few_frames_gets_words_not_numbers():
    """One frame in r, two in i: "too few repeats"; g beside them is audited as alone."""
    result, *_ = make("grgigig")
    audit = audit_photometry(result)
    assert "too few repeats: 1 frame, 3 are needed" in audit.too_few["r"]
    assert "2 frames" in audit.too_few["i"] and "g" not in audit.too_few
    assert np.isnan(audit.median_ratio["r"]) and np.isfinite(audit.median_ratio["g"])
    assert list(audit.stars["filter"][::400]) == ["g", "r", "i"]
    assert audit.stars["chi2"].mask[400:].all() and not audit.stars["chi2"].mask[:300].any()
    assert whole(audit, "r")["n"] == 0 and whole(audit, "g")["n"] > 1000
    # No star that two frames share, or none at all: nothing can be said, and nothing breaks.
    nothing = make("ggg", n_star=3)[0]
    nothing.flux[:] = np.nan
    for empty in (nothing, make("ggg", n_star=0)[0]):
        assert audit_photometry(empty).too_few["g"].startswith("too few repeats: 0 frames of 3")


def test_night_is_audited_and_written(tmp_path):
    """Both tables on disk, read back with their types; without photometry the error says so."""
    result, *_ = make("ggggr", n_radius=2, n_star=100)
    with pytest.raises(DataredError, match="stage photometry"):
        audit_night(Night(name="test", raw=tmp_path / "raw", work=tmp_path / "work"))
    night = write(result, tmp_path, default=1)
    stars = audit_night(night)
    assert len(stars) == 200 and stars["chi2"].mask.sum() >= 100
    assert stars.meta["too_few"] == {"r": "too few repeats: 1 frame, 3 are needed"}
    assert 0.8 < stars.meta["median_ratio"]["g"] < 1.2 and stars.meta["left_out"] == {}
    pulls = Table.read(night.work / "pulls.ecsv")
    assert len(pulls) == 2 * 2 * len(SNR_BINS) and np.isinf(pulls["snr_high"][-1])
    before = (night.work / "audit.ecsv").read_bytes()
    audit_night(night)
    assert (night.work / "audit.ecsv").read_bytes() == before
    with pytest.raises(IndexError, match="radius 2"):
        audit_photometry(result, radius=2)


def test_large_night_is_fast():
    """5000 stars x 200 frames in a second or so for a radius (0.4 s): no loop over stars."""
    result, *_ = make("g" * 200, n_star=5000)
    start = time.perf_counter()
    audit = audit_photometry(result)
    # Twenty times the usual time: the machine may be busy.
    assert time.perf_counter() - start < 10
    assert abs(whole(audit)["width"] - 1) < 0.01


def test_width_of_pulls():
    """The percentiles' width and its error, against a thousand repetitions; NaN for too few."""
    rng = np.random.default_rng(8)
    widths = [pull_width(rng.normal(0, 1, 200))[0] for _ in range(1000)]
    assert np.mean(widths) == pytest.approx(1, abs=0.01)
    assert np.std(widths) == pytest.approx(0.962 / np.sqrt(200), rel=0.07)
    assert np.isnan(pull_width([1.0, np.nan])).all()


def test_summary_of_a_stage_that_was_not_run_is_empty(tmp_path):
    """A night without any result: no line, and nothing breaks, whatever stage is asked for."""
    night = Night(name="test", raw=tmp_path / "raw", work=tmp_path / "work")
    for stage in (
        "solved",
        "photometry",
        "magnitudes",
        "diagram",
        "lightcurve",
        "stack",
        "masters",
    ):
        assert summarise(night, stage) == [], stage


def test_summary_tells_widths_and_variables(tmp_path):
    """The stage's lines: a width and a ratio for each filter, variable stars, what is missing."""
    result, *_ = make("ggggggr", n_star=300)
    result.flux[4] *= np.linspace(0.9, 1.1, 7)[:, None]
    night = write(result, tmp_path)
    assert len(summarise(night, "photometry")) == 1
    audit_night(night)
    lines = summarise(night, "photometry")[1:]
    assert lines[0].startswith("pulls of constant stars: width ") and "(g); 1 if" in lines[0]
    assert 0.9 < float(lines[0].split()[5]) < 1.1
    assert lines[1].startswith("measured/predicted scatter of the brighter half: ")
    assert lines[2].startswith("1 of ") and lines[2].endswith("vary more than their errors")
    assert lines[3] == "r not audited: too few repeats: 1 frame, 3 are needed" and len(lines) == 4
