"""All frames of a filter in one solution: right zero points, and error bars that are true."""

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import Table
from scipy import stats

from datared import zeropointmodel
from datared.assembly import read_photometry
from datared.magnitudes import zero_points
from datared.photometry import aperture_photometry
from datared.render import star_image
from datared.repeats import pull_width
from datared.zeropointfit import fit_extinction, fit_zero_points
from tests.test_truth import reduced

TERM, EXTINCTION, CATALOGUE_ERROR, INTRINSIC, OWN = 0.03, 0.15, 0.015, 0.01, 0.004


def make_night(
    seed, *, n=80, airmass=None, haze=0.01, vary=0.05, wrong=0.05, noise=300.0, intrinsic=INTRINSIC
):
    """Simulate magnitudes of n stars on some frames, with outliers; return options and the truth.

    Some stars vary, some have a wrong magnitude in the catalogue, frames have haze of their own.
    """
    rng = np.random.default_rng(seed)
    airmass = np.linspace(1.0, 2.0, 12) if airmass is None else np.asarray(airmass, float)
    magnitude, colour = rng.uniform(12.0, 17.5, n), rng.normal(0.8, 0.4, n)
    zero = 24.0 - EXTINCTION * airmass + rng.normal(0, haze, airmass.size)
    true = (magnitude - TERM * colour)[:, None] - zero
    own = rng.normal(0, OWN, true.shape)
    varies, strange = rng.random(n) < vary, rng.random(n) < wrong
    own[varies] += rng.normal(0, 0.2, (varies.sum(), airmass.size))
    flux = 60 * 10 ** (-0.4 * (true + own))
    measured = flux + rng.normal(size=flux.shape) * np.sqrt(flux / 1.5 + noise**2)
    error = np.sqrt(np.maximum(measured, 0) / 1.5 + noise**2)
    catalogue = magnitude + rng.normal(0, np.hypot(CATALOGUE_ERROR, intrinsic), n)
    catalogue[strange] += rng.choice([-1, 1], strange.sum()) * rng.uniform(0.2, 1.5, strange.sum())
    measured = np.where(measured > 0, measured, np.nan)
    given = {
        "instrumental": -2.5 * np.log10(measured / 60),
        "error": 1.0857 * error / measured,
        "catalogue": catalogue,
        "catalogue_error": np.full(n, CATALOGUE_ERROR),
        "colour": colour,
        "airmass": airmass,
        "exclude": ~(measured > 20 * error),
    }
    return given, {"zero": zero, "varies": varies, "strange": strange, "magnitude": magnitude}


def solve(given, **changed):
    """Solution of a simulated night."""
    given = given | changed
    first = [given.pop(name) for name in ("instrumental", "error", "catalogue", "catalogue_error")]
    return fit_zero_points(*first, **given)


@pytest.fixture(scope="module")
def many():
    """Solutions of 120 nights with 5 % variables and 5 % wrong magnitudes (2 s: many draws)."""
    pairs = [make_night(seed) for seed in range(120)]
    return [(solve(given), truth) for given, truth in pairs]


def test_zp_median_global_pulls_have_width_one(many):
    """ZP-03: the errors of zero points are true, each by itself and all of a night together."""
    pulls = np.array([(found.zero_point - truth["zero"]) / found.error for found, truth in many])
    # The catalogue's error is common to a night's frames: 120 independent draws, not 1440.
    width = np.mean([pull_width(column)[0] for column in pulls.T])
    assert width == pytest.approx(1.0, abs=3 * 0.962 / np.sqrt(120))
    assert abs(np.mean(pulls)) < 3 / np.sqrt(120)
    # Freed of what is common, the frames are independent: 12 of which one mean is taken away.
    own = np.array([
        (away - away.mean()) / found.frame_error / np.sqrt(11 / 12)
        for found, truth in many
        for away in [found.zero_point - truth["zero"]]
    ])  # fmt: skip
    assert pull_width(own)[0] == pytest.approx(1.0, abs=3 * 0.962 / np.sqrt(120 * 11))


def test_colour_term_and_extinction_pulls_have_width_one(many):
    """ZP-06: colour term and extinction are right within errors that are true."""
    for name, error, value in (
        ("colour_term", "colour_term_err", TERM),
        ("extinction", "extinction_err", EXTINCTION),
        ("zero_point_0", "zero_point_0_err", 24.0),
    ):
        pulls = [(getattr(found, name) - value) / getattr(found, error) for found, _ in many]
        width, known = pull_width(pulls)
        assert abs(np.mean(pulls)) < 3 / np.sqrt(120), name
        assert width == pytest.approx(1.0, abs=3 * known), name


def test_scatters_are_those_of_the_truth(many):
    """ZP-03: intrinsic scatter of stars 0.010 and of measurements 0.004 are found."""
    stars = np.mean([found.star_scatter**2 for found, _ in many]) ** 0.5
    frames = np.mean([found.frame_scatter**2 for found, _ in many]) ** 0.5
    # About 40 bright stars: a variance of 0.018^2 is known to 22 % on one night, to 2 % from all;
    # 0.010^2 is what is left of it after 0.015^2, so to 7 %, its root to 3.5 %.
    assert stars == pytest.approx(INTRINSIC, rel=0.12)
    assert frames == pytest.approx(OWN, rel=0.05)


def test_variables_and_wrong_catalogue_magnitudes_are_left_out(many):
    """ZP-03: most troublemakers are rejected, few of the others are."""
    caught = total = wrongly = others = 0
    for found, truth in many:
        bad = truth["varies"] | truth["strange"]
        bright = (truth["magnitude"] < 15) & np.isfinite(found.residual).all(axis=1)
        caught, total = caught + (found.rejected & bad & bright).sum(), total + (bad & bright).sum()
        wrongly, others = wrongly + (found.rejected & ~bad).sum(), others + (~bad).sum()
    assert caught > 0.98 * total > 300
    # 3.5 standard deviations and one in 10 000: 6 in 10 000 by chance, more where few stars
    # decide what is usual.
    assert wrongly < 0.005 * others


def test_solution_is_that_of_the_full_covariance():
    """ZP-03: the same as generalised least squares with the whole matrix written out."""
    rng = np.random.default_rng(3)
    n, frames = 12, 3
    catalogue, colour = rng.uniform(12, 15, n), rng.uniform(0, 2, n)
    error = rng.uniform(0.001, 0.003, (n, frames))
    offset, known = rng.normal(0, 0.02, n), rng.uniform(0.005, 0.015, n)
    y = 24 + 0.1 * np.arange(frames) + 0.04 * colour[:, None] + offset[:, None]
    y = y + rng.normal(size=(n, frames)) * error
    exclude = rng.random((n, frames)) < 0.15
    found = fit_zero_points(
        catalogue[:, None] - y, error, catalogue, known, colour=colour, exclude=exclude
    )
    assert not found.rejected.any() and np.array_equal(found.used, ~exclude)
    star, frame = np.nonzero(found.used)
    tau = found.frame_scatter[frame] ** 2
    covariance = np.diag(error[star, frame] ** 2 + tau)
    spread = known[star] ** 2 + found.star_scatter**2
    covariance += (star[:, None] == star) * spread
    design = np.column_stack([*(frame == k for k in range(frames)), colour[star]]).astype(float)
    inverse = np.linalg.inv(covariance)
    wanted = np.linalg.inv(design.T @ inverse @ design)
    values = wanted @ (design.T @ inverse @ y[star, frame])
    # Errors are brought to the expected brightness: by less than 0.3 % here.
    assert np.allclose([*found.zero_point, found.colour_term], values, atol=2e-5)
    # All of it is widened by one number, for the scatter of 12 stars is itself uncertain: at
    # most to the 68 % of Student's distribution with 10 degrees of freedom.
    ratio = found.covariance / wanted
    assert np.allclose(ratio, ratio[0, 0], rtol=0.01)
    assert 1 < np.sqrt(ratio[0, 0]) < 1.053
    assert np.allclose(found.error, np.sqrt(np.diag(found.covariance)[:frames]))


def test_errors_of_few_stars_are_true():
    """E37, ZP-03: eight stars on one frame, 150 draws: pulls of the zero point have width 1."""
    pulls = []
    for seed in range(150):
        given, truth = make_night(seed, n=8, airmass=[1.2], vary=0, wrong=0)
        given["exclude"] = truth["magnitude"][:, None] > 17
        found = solve(given, colour=None)
        assert found.n[0] >= 3
        # Without a colour term the mean colour of the stars is in the zero point.
        mean = np.mean(given["colour"][found.used[:, 0]])
        pulls.append((found.zero_point[0] - truth["zero"][0] - TERM * mean) / found.error[0])
    width, known = pull_width(pulls)
    assert width == pytest.approx(1.0, abs=3 * known)


def test_catalogue_error_is_common_to_all_frames():
    """ZP-03: a hundred frames do not make a catalogue better; a colour term needs its pivot."""
    found = [solve(make_night(1, airmass=np.full(k, 1.2), vary=0, wrong=0)[0]) for k in (2, 40)]
    n = found[1].n[0]
    for solution in found:
        # sqrt(0.015^2 + 0.010^2) / sqrt(n), with the scatter of this draw (known to 10 %).
        assert solution.common_error == pytest.approx(0.018 / np.sqrt(n), rel=0.3)
        total = np.hypot(solution.common_error, solution.frame_error)
        at_zero = np.hypot(total, solution.pivot * solution.colour_term_err)
        assert np.allclose(solution.error, at_zero, rtol=0.02)
    assert found[1].pivot == pytest.approx(0.8, abs=0.15)
    # The faint stars of each frame add little of their own.
    assert np.all(found[1].frame_error < 0.5 * found[1].common_error)


def test_faint_stars_do_not_pull_the_zero_point():
    """ZP-03: stars that noise made bright do not count more; 40 nights of S/N 20 to 60."""
    away = []
    for seed in range(40):
        given, truth = make_night(seed, n=250, haze=0, vary=0, wrong=0, noise=1500.0)
        # Chosen by what they are, not by what the noise made of them: that is another bias.
        signal = 60 * 10 ** (-0.4 * (truth["magnitude"] - 23.8)) / 1500
        given["exclude"] = np.repeat((signal < 15)[:, None] | (signal > 60)[:, None], 12, axis=1)
        found = solve(given, colour=None)
        away.append(np.mean(found.zero_point - truth["zero"] - TERM * 0.8))
    # The mean of 40 nights is known to 0.0005; weights by the measured brightness make 0.003.
    assert abs(np.mean(away)) < 3 * np.std(away) / np.sqrt(40) + 0.0005


def test_patchy_cloud_has_larger_errors_and_harms_no_other_frame():
    """ZP-03: a frame on which every star lost another amount counts less, and says so."""
    given, truth = make_night(4, airmass=np.full(8, 1.1), haze=0, vary=0, wrong=0)
    cloud = np.random.default_rng(1).exponential(0.1, len(given["catalogue"]))
    given["instrumental"][:, 3] += cloud
    found = solve(given)
    others = np.arange(8) != 3
    assert found.frame_scatter[3] > 0.05 > 0.02 > found.frame_scatter[others].max()
    assert found.frame_error[3] > 3 * found.frame_error[others].max()
    assert np.all(np.abs((found.zero_point - truth["zero"]) / found.error)[others] < 3)
    # A mean loss of 0.1, and half of it in the least cloudy stars: not a zero point to trust.
    assert -0.12 < found.zero_point[3] - truth["zero"][3] < -0.04


def test_stars_at_the_limit_do_not_come_and_go(monkeypatch):
    """ZP-03: 2500 stars, some of them at the limit of the clipping: the rounds come to an end."""
    rng = np.random.default_rng(3)
    catalogue, colour = rng.uniform(12, 18, 2500), rng.normal(0.8, 0.4, 2500)
    error = np.repeat((0.002 * 10 ** (0.3 * (catalogue - 12)))[:, None], 8, axis=1)
    instrumental = (catalogue - 0.03 * colour)[:, None] - 24 + rng.normal(size=error.shape) * error
    listed = catalogue + rng.normal(0, 0.02, 2500)
    options = {"catalogue_error": np.full(2500, 0.02), "colour": colour}
    found = []
    for rounds in (25, 26):
        monkeypatch.setattr(zeropointmodel, "MAX_ROUNDS", rounds)
        found.append(fit_zero_points(instrumental, error, listed, **options))
    assert np.array_equal(found[0].zero_point, found[1].zero_point)
    assert found[0].star_scatter == found[1].star_scatter
    assert not found[0].used[found[0].rejected].any() and found[0].rejected.sum() < 20


def test_e37_frames_with_few_stars_have_no_zero_point():
    """E37: two stars on one frame: NaN there, the others do not change; no star at all: NaN."""
    given, _ = make_night(5)
    whole = solve(given)
    given["exclude"] = given["exclude"].copy()
    given["exclude"][np.flatnonzero(~given["exclude"][:, 2])[2:], 2] = True
    found = solve(given)
    others = np.arange(12) != 2
    assert np.isnan(found.zero_point[2]) and np.isnan(found.error[2]) and found.n[2] == 0
    assert not found.used[:, 2].any() and np.isnan(found.covariance[2]).all()
    assert np.allclose(found.zero_point[others], whole.zero_point[others], atol=0.001)
    nothing = solve(given, exclude=np.ones_like(given["exclude"]))
    assert np.isnan(nothing.zero_point).all() and not nothing.used.any()
    assert np.isnan(nothing.extinction) and np.isnan(nothing.colour_term_err)


def test_one_frame_and_noise_free_stars():
    """E34: one exposure: zero point, colour term and intrinsic scatter of the stars."""
    given, truth = make_night(6, n=300, airmass=[1.2])
    found = solve(given)
    assert abs(found.zero_point[0] - truth["zero"][0]) < 3 * found.error[0] < 0.015
    assert found.star_scatter == pytest.approx(INTRINSIC, abs=0.005)
    assert np.isnan(found.extinction) and found.frame_error[0] == 0
    catalogue = np.linspace(12, 15, 8)
    exact = fit_zero_points(catalogue[:, None] - 24.0, np.zeros((8, 1)), catalogue)
    assert exact.zero_point[0] == pytest.approx(24.0, abs=1e-6) and exact.n[0] == 8


def test_colour_term_needs_stars_of_different_colours():
    """ZP-06: one colour for all, or none known: no colour term, and still a zero point."""
    given, _ = make_night(7)
    for colour in (np.full(80, 0.8), np.full(80, np.nan), None):
        found = solve(given, colour=colour)
        assert found.colour_term == 0 and np.isnan(found.colour_term_err)
        assert np.isfinite(found.zero_point).all() and found.pivot == 0


def test_catalogue_errors_that_are_none_count_as_usual():
    """ZP-03: NaN, infinite and negative errors of a catalogue: the median one; none at all: 0."""
    given, _ = make_night(8)
    whole = solve(given)
    for wrong in (np.nan, np.inf, -1.0):
        some = given["catalogue_error"].copy()
        some[::3] = wrong
        found = solve(given, catalogue_error=some)
        assert np.array_equal(found.zero_point, whole.zero_point)
        unknown = solve(given, catalogue_error=np.full(80, wrong))
        assert np.array_equal(unknown.error, solve(given, catalogue_error=np.zeros(80)).error)


def test_extinction_needs_a_range_of_airmass():
    """ZP-03: hardly any change of airmass, or two frames: NaN, no number made of noise."""
    assert np.isnan(fit_extinction([23.8, 23.79, 23.8], [0.01] * 3, [1.0, 1.05, 1.1])).all()
    assert np.isnan(fit_extinction([23.8, 23.6], [0.01] * 2, [1.0, 2.0])).all()
    airmass = np.linspace(1, 2, 9)
    zero = 24 - 0.2 * airmass + np.random.default_rng(1).normal(0, 0.005, 9)
    zero[4] -= 0.6
    value, error, outside, outside_err = fit_extinction(zero, np.full(9, 0.001), airmass)
    # A cloud of 0.6 mag: left out. Eight frames over 1 mag of 0.005 each: 0.006.
    assert value == pytest.approx(0.2, abs=3 * 0.006) and 0.003 < error < 0.012
    assert abs(outside - 24) < 3 * outside_err


def test_cluster_zero_points_within_5_mmag_of_truth(once, cluster_toml):
    """ZP-03, ZP-06: zero points to 5 mmag, colour terms within their errors, at two radii.

    The true zero point is that of all the light: the share that is in the aperture, less the one
    that the annulus takes for sky, is measured on the true profile. The night is shared with the
    tests of the truth (half a minute of a reduction if they do not run).
    """
    night = reduced(once, "cluster", cluster_toml, ("magnitudes", "stack"))
    photometry = read_photometry(night)
    truth = {row["file"]: row for row in Table.read(night.truth / "frames.ecsv")}
    terms = {"g": 0.035, "r": -0.012, "i": -0.024}
    place = 80.0 + 160.0 * np.arange(3) + np.array([-0.3, 0.1, 0.4])
    x, y = (axis.ravel() for axis in np.meshgrid(place, place))
    share = []
    for epoch in photometry.epochs:
        fwhm = truth[epoch["file"]]["fwhm"]
        image = CCDData(star_image((480, 480), x, y, 1e5, fwhm=fwhm), unit="adu")
        annulus = 4 * epoch["fwhm"], 6 * epoch["fwhm"]
        found = aperture_photometry(image, x, y, radii=tuple(epoch["radii"]), annulus=annulus)
        share.append(np.mean(found["flux"], axis=0) / 1e5)
    for radius in (photometry.default_radius, 3):
        points = zero_points(photometry, radius=radius)
        true = [truth[name]["zero_point"] for name in points["file"]]
        lost = 2.5 * np.log10(np.array(share)[:, radius])
        away = np.asarray(points["zero_point"]) - true - lost
        assert np.abs(away).max() < 0.005
        assert np.std(away / points["error"]) < 2
        rows = {name: points[points["filter"] == name][0] for name in terms}
        assert all(
            row["colour"] == "g-i" and row["colour_term_err"] < 0.003 for row in rows.values()
        )
        pulls = [
            (row["colour_term"] - terms[name]) / row["colour_term_err"]
            for name, row in rows.items()
        ]
        # Chance alone makes it larger in one of a hundred nights: 11.3 for three terms.
        assert np.sum(np.square(pulls)) < stats.chi2.isf(0.01, 3)
