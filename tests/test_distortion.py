"""Tests of the room distortion: one distortion of the night against the frame's own."""

import dataclasses

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import vstack

from datared.distortion import Distortion, better, fit_distortion, prediction_errors
from datared.errors import SolveError
from datared.projection import powers
from datared.solver import refine_frame, solve_frame
from tests.skyfields import SCALE, SHAPE, field, solve


def night(counts, *, distortion=3.0, n=600, seed=100):
    """Frames with the same optics and the ``counts`` brightest stars each; every second flipped."""
    scenes = []
    for k, count in enumerate(counts):
        scene = field(
            n, seed=seed + k, rotation=10 + 0.1 * k + 180 * (k % 2), distortion=distortion,
            margin=1.3,
        )  # fmt: skip
        scene.sources.sort("flux", reverse=True)
        scene.sources = scene.sources[:count]
        scenes.append(scene)
    return scenes


def solved(scenes, **options):
    """Solve each frame for itself."""
    return [solve(scene, off=3.0, search_radius=10 * u.arcmin, **options) for scene in scenes]


def refined(scenes, solutions, distortion):
    """Fit each frame again with the distortion of the night."""
    return [
        refine_frame(s.sources, s.catalogue, own.wcs, shape=SHAPE, distortion=distortion)
        for s, own in zip(scenes, solutions, strict=True)
    ]


def worst_corner(solution, scene):
    """Largest error (arcsec) at true stars in the outer fifth of the frame's radius."""
    pixel, ra, dec = scene.place
    place = np.abs(pixel / (np.array(SHAPE[::-1]) - 1) - 0.5)
    corner = (place <= 0.5).all(axis=1) & (np.hypot(*place.T) > 0.8 * np.hypot(0.5, 0.5))
    assert corner.sum() > 20
    found = solution.wcs.pixel_to_world(*pixel[corner].T)
    return found.separation(SkyCoord(ra[corner], dec[corner], unit="deg")).arcsec.max()


def test_night_distortion_beats_the_frames_own_on_few_stars():
    """AS-02: 25 to 60 stars, 3 px in the corners: shared 0.1" right there, own far worse."""
    scenes = night([25, 40, 60] * 4)
    own = solved(scenes)
    shared = refined(scenes, own, fit_distortion(own, shape=SHAPE))
    # 0.03 px on 25 stars and three terms: 0.02 px in a corner, 0.07 px at four sigma.
    errors = np.array([list(map(worst_corner, kind, scenes)) for kind in (own, shared)])
    assert errors[1].max() <= 0.1
    assert (errors[1] < errors[0]).all() and np.median(errors[0]) > 2 * np.median(errors[1])
    assert all(better(a, b) is b for a, b in zip(own, shared, strict=True))


def test_night_distortion_helps_frames_of_eight_stars():
    """AS-02: eight stars of a night whose other frames have more: right in the corners."""
    scenes = night([25, 60] * 4 + [8] * 4)
    distortion = fit_distortion(solved(scenes[:8]), shape=SHAPE)
    for scene in scenes[8:]:
        # Without bending, eight stars find their pattern to 0.03 px.
        solution = solve(scene, off=3.0, search_radius=10 * u.arcmin, distortion=distortion)
        assert solution.shared and solution.order == 3
        # Eight stars and three terms, some stars all on one side: 0.03 px times three.
        assert worst_corner(solution, scene) < 0.15 * SCALE


def test_night_distortion_does_no_harm_to_rich_frames():
    """AS-02: with a thousand stars a frame the shared distortion is no worse than its own."""
    scenes = night([None] * 3, n=2000)
    own = solved(scenes)
    shared = refined(scenes, own, fit_distortion(own, shape=SHAPE))
    for scene, first, second in zip(scenes, own, shared, strict=True):
        assert len(scene.sources) > 1000
        assert worst_corner(better(first, second), scene) <= worst_corner(first, scene) + 0.005


def test_other_optics_keep_the_frames_own():
    """AS-02: where the distortion of a frame is another one, its own polynomial is kept."""
    scenes = night([None] * 3)
    distortion = fit_distortion(solved(scenes), shape=SHAPE)
    other = night([None], distortion=0.5, seed=300)
    own = solved(other)
    shared = refined(other, own, distortion)
    assert better(own[0], shared[0]) is own[0]
    assert worst_corner(own[0], other[0]) < worst_corner(shared[0], other[0])


def test_distortion_is_recovered():
    """AS-02: the coefficients bent the frames, to the noise, whatever outliers do."""
    scenes = night([60] * 10)
    own = solved(scenes)
    for solution in own:
        solution.matched["x"][::20] += 3.0
    found = fit_distortion(own, shape=SHAPE)
    assert found.order == 3 and found.n_frames == 10 and found.n_stars > 500
    # Two axes with 0.03 px each.
    assert found.rms_px == pytest.approx(0.042, rel=0.2)
    half = 0.5 * np.hypot(*SHAPE)
    corner = np.array([[0.7, 0.5], [-0.8, 0.4], [0.0, 0.0]]) * half
    straight = corner + found.displacement(corner)
    # The affine part is free: only what is not linear can be compared, 3 px r^3 bent outwards.
    r2 = (corner**2).sum(axis=1)[:, None] / half**2
    bent = np.array([3.0 * r2[k] * straight[k] / half for k in range(3)])
    assert np.abs(bent + found.displacement(corner)).max() < 0.1
    exponents = powers(3)[3:]
    cubic = found.coefficients[[exponents.index(k) for k in ((3, 0), (1, 2))], 0]
    np.testing.assert_allclose(cubic, -3.0, atol=0.25)


def test_one_wrong_frame_does_not_bend_the_night():
    """AS-02: a frame with wrong matches is left out, also if it has most of the stars."""
    own = solved(night([30] * 4, seed=7))
    wrong = solved(night([200], seed=900))[0]
    rng = np.random.default_rng(3)
    for name in ("x", "y"):
        wrong.matched[name] += rng.uniform(-5, 5, len(wrong.matched))
    assert len(wrong.matched) > sum(len(solution.matched) for solution in own)
    alone, together = (fit_distortion(k, shape=SHAPE) for k in (own, [*own, wrong]))
    assert together.n_frames == 4 and together.order == alone.order == 3
    # The limit for outliers differs a little; the noise of 120 stars is larger (0.05 px).
    np.testing.assert_allclose(together.coefficients, alone.coefficients, atol=0.03)


def test_distortion_none_is_order_one():
    """AS-02: frames without distortion give order 1, and so do frames with few stars."""
    assert fit_distortion(solved(night([60] * 5, distortion=0.0)), shape=SHAPE).order == 1
    flat = fit_distortion(solved(night([12] * 2, distortion=0.0)), shape=SHAPE)
    assert flat.order == 1 and flat.coefficients.shape == (0, 2)
    scene = night([40], distortion=0.0)[0]
    assert solve(scene, distortion=flat).order == 1
    given = fit_distortion(solved(night([60] * 5)), shape=SHAPE, order=2)
    assert given.order == 2 and given.coefficients.shape == (3, 2)


def test_distortion_order_is_lowered_for_few_stars():
    """AS-02: an order that the stars cannot determine is lowered, not fitted to the noise."""
    own = solved(night([20], distortion=0.0))
    assert fit_distortion(own, shape=SHAPE, order=0).order == 1
    given = fit_distortion(own, shape=SHAPE, order=5)
    assert 1 < given.order < 5
    corner = 0.5 * np.array([SHAPE[::-1]])
    # With order 5 there were 15 px at the corner from centroid errors of 0.03 px.
    assert np.abs(given.displacement(corner)).max() < 2.0


def test_distortion_file(tmp_path):
    """AS-02: what is written is read again, also without any terms."""
    for order in (1, 3):
        terms = np.random.default_rng(1).normal(size=(len(powers(order)) - 3, 2))
        first = Distortion(order, terms, SHAPE, 4, 200, 0.05)
        first.write(tmp_path / "distortion.ecsv")
        again = Distortion.read(tmp_path / "distortion.ecsv")
        np.testing.assert_array_equal(again.coefficients, first.coefficients)
        for name in ("order", "shape", "n_frames", "n_stars", "rms_px"):
            assert getattr(again, name) == getattr(first, name)


def test_prediction_errors_are_those_of_a_fit_without_the_star():
    """AS-02: the prediction error equals the residual of a solution that leaves the star out."""
    scene = night([30], distortion=0.0)[0]
    full = solve(scene, sip_order=1)
    errors = prediction_errors(full)
    for row in (0, 7, 20):
        left = scene.sources[np.arange(len(scene.sources)) != full.matched["source"][row]]
        part = solve_frame(
            left, scene.catalogue, shape=SHAPE, center=None, scale=SCALE, sip_order=1
        )
        star = full.matched[row]
        x, y = part.wcs.all_world2pix(star["ra"], star["dec"], 0)
        assert np.hypot(x - star["x"], y - star["y"]) == pytest.approx(errors[row], abs=1e-3)


def test_distortion_errors():
    """AS-02: frames of another shape and nights without stars are refused with the reason."""
    scene = night([40])[0]
    wrong = Distortion(2, np.zeros((3, 2)), (100, 100), 1, 10, 0.1)
    with pytest.raises(ValueError, match=r"frames of \(100, 100\)"):
        solve(scene, distortion=wrong)
    with pytest.raises(SolveError, match="solve the frames first"):
        fit_distortion([], shape=SHAPE)
    own = solve(scene)
    missing = dataclasses.replace(own, matched=vstack([own.matched[:2]]))
    with pytest.raises(SolveError, match="5 matched stars"):
        fit_distortion([missing], shape=SHAPE)
