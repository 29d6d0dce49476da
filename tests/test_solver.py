"""Tests of the rooms solver, patterns and projection: frames are solved or refused."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.table import MaskedColumn, QTable, Table, vstack
from astropy.wcs import WCS
from astropy.wcs.utils import fit_wcs_from_points
from numpy.polynomial import polynomial

from datared import patterns
from datared.astrometry import from_plane, to_plane
from datared.errors import SolveError
from datared.frames import read_product, write_product
from datared.patterns import MIN_LOG_ODDS, find_pattern
from datared.platefit import star_catalogue
from datared.render import star_image
from datared.solver import refine_frame, solve_frame
from datared.sources import detect
from tests.skyfields import MIDDLE, SCALE, SHAPE, field, random_field, sky_errors, solve


@pytest.mark.parametrize("rotation", [0.0, 95.0, 181.0, -47.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_solve_backend(rotation, mirrored):
    """AS-01: any rotation, either parity, 10' off, scale 8 % off: rms < 0.1 px, truth recovered."""
    scene = field(rotation=rotation, mirrored=mirrored, seed=int(rotation) % 7)
    solution = solve(scene, off=10.0, scale=SCALE * 1.08)
    # Two axes with 0.03 px each.
    assert 0.02 < solution.rms_px < 0.06
    assert solution.mirrored is mirrored
    assert solution.scale == pytest.approx(SCALE, rel=1e-4)
    # In a mirrored frame x is negated and the y axis stays where it was.
    turn = (solution.rotation - rotation + 180) % 360 - 180
    assert abs(turn) < 0.01
    assert sky_errors(solution, scene).max() < 0.1
    assert solution.order == 1 and solution.log_odds > 10 * MIN_LOG_ODDS


def test_solve_backend_from_pixels():
    """A drawn frame with noise is detected and solved with rms below 0.1 px."""
    scene = field(160, margin=1.3)
    frame = 500 + star_image(SHAPE, *(scene.sources[k] for k in ("x", "y", "flux")), fwhm=3.0) * 200
    frame += np.random.default_rng(2).normal(0, 10, SHAPE)
    scene.sources = detect(frame)
    solution = solve(scene, off=8.0)
    assert solution.rms_px < 0.1 and solution.n_matched > 60
    assert np.median(sky_errors(solution, scene)) < 0.03


def test_wrong_hint():
    """AS-04: pointing 28' wrong of 30' is found; 50' wrong in the rest of the catalogue."""
    scene = field(900, margin=5.0)
    for off in (28.0, 50.0):
        solution = solve(scene, off=off, search_radius=30 * u.arcmin)
        assert sky_errors(solution, scene).max() < 0.15
    no_hint = solve_frame(scene.sources, scene.catalogue, shape=SHAPE, center=None, scale=SCALE)
    assert sky_errors(no_hint, scene).max() < 0.15


@pytest.mark.parametrize("degrees", [3.0, 60.0, 170.0])
def test_wrong_hint_outside_the_catalogue(degrees):
    """AS-04: a pointing far from all of the catalogue still leaves the catalogue to be searched."""
    scene = field()
    assert sky_errors(solve(scene, off=60 * degrees), scene).max() < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_solve_with_spurious_stars(seed):
    """60 % false detections and 60 % wrong catalogue stars do not hide the pattern."""
    scene = field(260, seed=seed, spurious=0.6, margin=1.3)
    solution = solve(scene, off=5.0, search_radius=15 * u.arcmin)
    # 40 % of 40 % of 150 stars remain, 24; a fit by so few at the corners is worth 0.05 px.
    assert sky_errors(solution, scene).max() < 0.3 * SCALE


@pytest.mark.parametrize("seed", range(6))
def test_random_positions_are_refused(seed):
    """Stars that have nothing to do with the catalogue are refused with the reason."""
    scene, other = field(250, seed=seed), field(250, seed=seed + 100)
    scene.sources = other.sources
    with pytest.raises(SolveError, match=r"no pattern in common.*pixel_scale"):
        solve(scene, search_radius=20 * u.arcmin)


def test_clumps_on_clumps_are_refused():
    """Two different clusters on each other are no pattern: chance is judged locally."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        stars, cluster = rng.normal(0, 60, (150, 2)), rng.normal(0, 60, (300, 2))
        assert find_pattern(stars, cluster, size=(1000, 680), scale=1.0, search_radius=300) is None


def test_repeated_stars_count_once():
    """AS-01: four detections of each star, four rows of each catalogue star: still refused.

    Where one agrees by chance, all four do: that was once believed with odds of 22.
    """
    rng = np.random.default_rng([2, 7])
    known, other = (field(300, seed=int(rng.integers(1e9))) for _ in range(2))
    steps = [3.0 * k for k in range(4)]
    scene = field()
    scene.catalogue = vstack([known.catalogue] * 4)
    scene.catalogue["dec"] += np.repeat(steps, 300) * SCALE / 3600
    scene.sources = vstack([other.sources] * 4)
    scene.sources["x"] += np.repeat(steps, len(other.sources))
    with pytest.raises(SolveError):
        solve(scene, search_radius=10 * u.arcmin)
    # Repeated stars do not hide a pattern that is there.
    scene.sources = vstack([known.sources] * 4)
    assert sky_errors(solve(scene, search_radius=10 * u.arcmin), known).max() < 0.1


def test_grid_of_a_wide_catalogue_is_bounded(monkeypatch):
    """AS-01: a catalogue of half the sky does not fill the memory."""
    monkeypatch.setattr(patterns, "MOST_CELLS", 100)
    stars = np.random.default_rng(1).uniform(-1e6, 1e6, (50, 2))
    painted, low, cell = patterns._paint(stars, 4.5)
    assert max(painted.shape) < 110
    column, row = ((stars - low) / cell).astype(int).T
    assert (painted[row, column] >= 0).all()


def test_sip_fit():
    """AS-02: a distortion of 3 px in the corners is recovered to 0.15 px there."""
    scene = field(500, distortion=3.0)
    solution = solve(scene, off=6.0)
    assert solution.order == 3 and solution.wcs.sip is not None
    pixel, ra, dec = scene.place
    corner = (np.abs(pixel / (np.array(SHAPE[::-1]) - 1) - 0.5) > 0.42).all(axis=1)
    corner &= (np.abs(pixel / (np.array(SHAPE[::-1]) - 1) - 0.5) < 0.5).all(axis=1)
    assert corner.sum() >= 4
    x, y = solution.wcs.all_world2pix(ra[corner], dec[corner], 0)
    assert np.hypot(x - pixel[corner, 0], y - pixel[corner, 1]).max() < 0.15
    assert solution.rms_px < 0.06
    linear = solve(scene, off=6.0, sip_order=1)
    assert linear.order == 1 and linear.rms_px > 3 * solution.rms_px


def test_sip_fit_few_stars_stays_linear():
    """With fewer than 20 stars no distortion is fitted."""
    assert solve(field(30, margin=1.3, distortion=1.0)).order == 1


def test_sip_roundtrip(tmp_path):
    """Sky to pixel and back is exact, by iteration and by AP and BP, also from the file."""
    solution = solve(field(500, distortion=3.0))
    ccd = CCDData(np.zeros(SHAPE, np.float32), unit="adu", wcs=solution.wcs)
    write_product(ccd, tmp_path / "a.fits")
    wcs = read_product(tmp_path / "a.fits").wcs
    assert wcs.wcs.ctype[0] == "RA---TAN-SIP"
    assert WCS(solution.wcs.to_header(relax=True)).sip is not None
    x, y = np.meshgrid(np.linspace(0, SHAPE[1] - 1, 9), np.linspace(0, SHAPE[0] - 1, 7))
    ra, dec = solution.wcs.all_pix2world(x, y, 0)
    again = wcs.all_world2pix(ra, dec, 0, tolerance=1e-8)
    np.testing.assert_allclose(again, [x, y], atol=1e-5)
    # The way of other programs: linear first, then the inverse polynomials.
    focal = np.array(wcs.wcs_world2pix(ra, dec, 0)) - (wcs.wcs.crpix - 1)[:, None, None]
    for shift, terms, truth in ((focal[0], wcs.sip.ap, x), (focal[1], wcs.sip.bp, y)):
        middle = (wcs.wcs.crpix - 1)[0 if truth is x else 1]
        back = shift + polynomial.polyval2d(*focal, terms) + middle
        np.testing.assert_allclose(back, truth, atol=0.01)


def test_meridian_flip():
    """A frame turned by 180 degrees solves to the same sky."""
    before, after = field(distortion=2.0, rotation=12.0), field(distortion=2.0, rotation=192.0)
    first, second = solve(before), solve(after)
    assert abs(abs(first.rotation - second.rotation) - 180) < 0.02
    star = SkyCoord(308.15, 15.6, unit="deg")
    for solution in (first, second):
        x, y = solution.wcs.world_to_pixel(star)
        again = solution.wcs.pixel_to_world(x, y)
        assert again.separation(star) < 0.001 * u.arcsec
    pixel, ra, dec = after.place
    on = ((pixel > 5) & (pixel < np.array(SHAPE[::-1]) - 6)).all(axis=1)
    x, y = second.wcs.all_world2pix(ra[on], dec[on], 0)
    assert np.hypot(x - pixel[on, 0], y - pixel[on, 1]).max() < 0.15


@pytest.mark.parametrize("ra, dec", [(0.01, 20), (359.98, -1), (77, 89.9), (200, -89.95)])
def test_e38_solve_across_ra_zero_and_at_the_pole(ra, dec):
    """E38: right ascension 0 and the pole are sky like any other, also for a known start."""
    center = SkyCoord(ra, dec, unit="deg")
    scene = field(center=center)
    solution = solve(scene, off=5.0, center=center)
    assert sky_errors(solution, scene).max() < 0.1
    again = refine_frame(scene.sources, scene.catalogue, solution.wcs, shape=SHAPE)
    assert sky_errors(again, scene).max() < 0.1
    no_hint = solve_frame(scene.sources, scene.catalogue, shape=SHAPE, center=None, scale=SCALE)
    assert sky_errors(no_hint, scene).max() < 0.1


def test_residual_table():
    """Residuals are measured minus predicted, one row per matched star, rms as reported."""
    scene = field()
    scene.sources["x"][3] += 0.7
    solution = solve(scene)
    matched = solution.matched
    assert len(matched) == solution.n_matched == len(set(matched["catalogue"]))
    row = matched[matched["source"] == 3][0]
    assert row["dx"] == pytest.approx(0.7, abs=0.15) and not row["used"]
    used = matched[matched["used"]]
    rms = np.sqrt(np.mean(used["dx"] ** 2 + used["dy"] ** 2))
    assert rms == pytest.approx(solution.rms_px)
    assert solution.rms_arcsec == pytest.approx(rms * solution.scale)
    x, _ = solution.wcs.all_world2pix(used["ra"], used["dec"], 0)
    np.testing.assert_allclose(used["x"] - x, used["dx"], atol=1e-3)


def test_e32_too_few_stars():
    """Nearly no stars: refused with the numbers."""
    scene = field()
    scene.sources = scene.sources[:3]
    with pytest.raises(SolveError, match=r"3 stars in the frame.*too few"):
        solve(scene)
    with pytest.raises(ValueError, match="positive"):
        solve(scene, scale=0.0)


def test_masked_values_are_not_used():
    """E32: what lies below a mask is no position, in the frame or in the catalogue."""
    scene = field()
    for table, name in ((scene.sources, "x"), (scene.catalogue, "ra")):
        table[name] = MaskedColumn(table[name], mask=np.arange(len(table)) % 5 == 0)
    matched = solve(scene).matched
    assert len(matched) > 60
    assert (matched["source"] % 5 != 0).all() and (matched["catalogue"] % 5 != 0).all()
    scene.catalogue = QTable(scene.catalogue)
    scene.catalogue["ra"] = scene.catalogue["ra"].filled(np.nan) * u.deg
    assert len(solve(scene).matched) == len(matched)


def test_unknown_widths_and_noise():
    """E32: stars without a width or a signal-to-noise ratio are stars all the same."""
    for snr, width in ((50.0, np.nan), (np.nan, 3.0), (np.nan, np.nan)):
        scene = field()
        scene.sources["snr"], scene.sources["fwhm"] = snr, width
        assert sky_errors(solve(scene), scene).max() < 0.1


def test_magnitude_without_values_is_passed_over():
    """E32: an empty column of magnitudes does not decide which stars are bright."""
    table = Table({"ra": [1.0, 2.0, 3.0], "dec": [0.0] * 3, "r": [np.nan] * 3, "G": [12, 10, 11]})
    assert star_catalogue(table)[2].tolist() == [1, 2, 0]


def test_plane_is_the_projection_of_fits():
    """The gnomonic projection equals wcslib's TAN, and its inverse is exact."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [359.9, 70.0], [1, 1]
    rng = np.random.default_rng(9)
    ra, dec = rng.uniform(-8, 8, 50) % 360, rng.uniform(66, 74, 50)
    xi, eta = to_plane(ra, dec, 359.9, 70.0)
    np.testing.assert_allclose((xi, eta), wcs.wcs_world2pix(ra, dec, 0) + np.array(1.0), atol=1e-10)
    np.testing.assert_allclose(from_plane(xi, eta, 359.9, 70.0), (ra, dec), atol=1e-10)
    assert np.isnan(to_plane([180.0], [-70.0], 0.0, 70.0)[0][0])


def solve_random(seeds, *, chance=False):
    """Solve random fields; return (right, wrong, refused) numbers of those with 20 known stars.

    With ``chance`` the detections are those of another field: whatever is found is wrong.
    """
    right = wrong = refused = 0
    for seed in seeds:
        scene = random_field(seed)
        if chance:
            ny, nx = scene.hints["shape"]
            other = random_field(seed + 5000)
            scene.sources = other.sources
            scene.sources["x"] *= nx / other.hints["shape"][1]
            scene.sources["y"] *= ny / other.hints["shape"][0]
        try:
            solution = solve_frame(scene.sources, scene.catalogue, **scene.hints)
        except SolveError:
            refused += scene.n_common >= 20 or chance
            continue
        # Centroids are wrong by 1 px at most, and a straight line may miss a bend of 3 px.
        good = not chance and scene.wcs_error(solution) < 5
        right += good and scene.n_common >= 20
        wrong += not good
    return right, wrong, refused


def test_solve_backend_random_fields():
    """AS-01: random fields, 30 % false detections, wrong hints: all are solved, none wrongly."""
    # At most 1 % may fail: one in twenty would be a failure at 18 % probability.
    right, wrong, refused = solve_random((*range(20), 35))
    assert wrong == 0 and refused == 0 and right >= 16


def test_unrelated_fields_are_refused():
    """AS-01: detections of one sky are never found in the catalogue of another."""
    assert solve_random((1, 4), chance=True)[:2] == (0, 0)


def test_brightest_200_are_enough():
    """004-06: the 200 brightest of 1000 detections give the same solution to 0.1"."""
    scene = field(2600, seed=5, distortion=2.0)
    full = solve(scene, off=8.0)
    scene.sources.sort("flux", reverse=True)
    assert len(scene.sources) > 900
    scene.sources = scene.sources[:200]
    few = solve(scene, off=8.0)
    assert few.n_matched > 190 and few.order == full.order == 3
    # 200 stars with 0.03 px on 10 terms: 0.015 px in the middle, three times that in a corner.
    assert sky_errors(few, scene).max() < 0.1


def test_hot_pixels_are_no_stars():
    """AS-01: columns and lattices of hot pixels are refused, and do not hide the stars."""
    scene = field(200, seed=3)
    rng = np.random.default_rng(6)
    column = Table({"x": np.full(80, 312.0), "y": rng.uniform(0, SHAPE[0], 80)})
    lattice = np.stack(np.meshgrid(np.arange(20, 1000, 60.0), np.arange(20, 680, 60.0)), -1)
    lattice = Table(dict(zip("xy", lattice.reshape(-1, 2).T, strict=True)))
    bright = float(np.median(scene.sources["flux"]))
    stars = scene.sources
    for hot in (column, lattice):
        hot["flux"] = bright * rng.uniform(0.5, 2, len(hot))
        scene.sources = hot
        with pytest.raises(SolveError, match="hot pixels"):
            solve(scene, search_radius=10 * u.arcmin)
    scene.sources = vstack([stars, column])
    assert sky_errors(solve(scene, off=4.0), scene).max() < 0.1


def disturbed(wcs, *, shift=0.0, scale=0.0, turn=0.0):
    """Return a WCS without SIP that is wrong by px, relative scale and degrees."""
    start = wcs.deepcopy()
    start.sip, start.wcs.ctype = None, ["RA---TAN", "DEC--TAN"]
    start.wcs.crpix = start.wcs.crpix + shift * np.array([0.8, -0.6])
    angle = np.radians(turn)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    start.wcs.cd = matrix @ start.wcs.cd * (1 + scale)
    start.wcs.set()
    return start


@pytest.mark.parametrize("change", [{"shift": 25.0}, {"scale": 0.01}, {"turn": 0.5}, {}])
def test_refine_frame(change):
    """AS-02: a WCS 25 px, 1 % or 0.5 degrees wrong is fitted anew with the distortion."""
    scene = field(400, distortion=3.0, spurious=0.3, seed=2)
    exact = solve(scene)
    start = disturbed(exact.wcs, **change)
    solution = refine_frame(
        scene.sources, scene.catalogue, start, shape=SHAPE, solver="header", tried=["kept nothing"]
    )
    assert solution.order == exact.order and solution.n_matched == exact.n_matched
    assert sky_errors(solution, scene).max() < 0.3
    assert solution.solver == "header" and solution.tried[0] == "kept nothing"
    assert any("stars agree with a shift" in sentence for sentence in solution.tried)


def test_refine_frame_is_right_or_refuses():
    """AS-02: starts that are wrong by anything are either mended or refused, never half right."""
    rng = np.random.default_rng(8)
    outcomes = []
    for seed in range(40):
        scene = field(150, seed=seed, distortion=2.0, shape=(3194, 4788), spurious=0.3, margin=1.4)
        truth = build(scene)
        start = disturbed(
            truth, shift=rng.uniform(0, 45), scale=rng.uniform(-0.03, 0.03),
            turn=rng.uniform(-1.5, 1.5),
        )  # fmt: skip
        try:
            solution = refine_frame(scene.sources, scene.catalogue, start, shape=(3194, 4788))
        except SolveError:
            outcomes.append("refused")
            continue
        outcomes.append("solved")
        # In px: a straight line misses the bend of 2 px by less than that.
        assert np.quantile(sky_errors(solution, scene, (3194, 4788)), 0.9) < 2 * SCALE
    assert set(outcomes) == {"refused", "solved"}


def build(scene, shape=(3194, 4788)):
    """WCS of a simulated frame from the truth, without its distortion."""
    pixel, ra, dec = scene.place
    middle = np.hypot(*(pixel - (np.array(shape[::-1]) - 1) / 2).T) < 0.4 * shape[0]
    sky = SkyCoord(ra[middle], dec[middle], unit="deg")
    return fit_wcs_from_points(pixel[middle].T, sky, proj_point=MIDDLE, projection="TAN")


def test_refine_frame_refuses():
    """AS-01: another field, a WCS of no sky and a frame of three stars are refused with reasons."""
    scene = field(seed=2)
    wcs = solve(scene).wcs
    other = field(seed=77)
    with pytest.raises(SolveError, match="WCS of the header"):
        refine_frame(other.sources, scene.catalogue, wcs, shape=SHAPE)
    # Among many stars enough match by chance to fit them all over the frame: only odds tell.
    for seed in range(3):
        known, other = field(3000, seed=seed), field(1000, seed=seed + 50)
        with pytest.raises(SolveError, match="odds do not confirm"):
            refine_frame(other.sources, known.catalogue, wcs, shape=SHAPE)
    with pytest.raises(SolveError, match="not one of the sky"):
        refine_frame(scene.sources, scene.catalogue, WCS(naxis=2), shape=SHAPE)
    with pytest.raises(SolveError, match=r"3 stars in the frame.*too few"):
        refine_frame(scene.sources[:3], scene.catalogue, wcs, shape=SHAPE)


def test_tried_says_what_was_done():
    """AS-01: the solution and the error tell what was tried, the error what to try next."""
    scene = field()
    solution = solve(scene, off=5.0)
    assert solution.solver == "catalogue" and "log odds" in solution.tried[-1]
    assert f"{len(scene.sources)} stars in the frame" in solution.tried[0]
    scene.catalogue = scene.catalogue[:15]
    with pytest.raises(SolveError, match=r"within 30'.*only 15 stars there.*pixel_scale"):
        solve(scene, scale=3 * SCALE)


def test_odds_of_chance_are_low():
    """AS-01: the best odds of unrelated lists are far below a billion to one."""
    best = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        stars, known = rng.uniform(-500, 500, (120, 2)), rng.uniform(-900, 900, (800, 2))
        affine = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        for shift in rng.uniform(-200, 200, (40, 2)):
            affine[0] = shift
            pattern = patterns._refine(stars, known, affine, 1.1, 3.0, (1000, 1000))
            best.append(-np.inf if pattern is None else pattern.log_odds)
    # Of 480 starts the best is worth less than one star that agrees.
    assert max(best) < 0.5 * MIN_LOG_ODDS
