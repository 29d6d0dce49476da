"""Distortion maps against what the optics were told to do, and against other stars."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from datared import distortionmap
from datared.distortionmap import distortion_map, night_distortion
from datared.errors import FrameError, SolveError
from datared.instrument import CORNER_DISTORTION, frame_wcs, sky_to_pixel
from datared.listing import inventory, select_lights
from datared.night import load_night
from datared.pipeline import run
from datared.plates import Plate
from datared.projection import from_plane
from datared.simulate import simulate_cluster
from datared.solver import Solution

SHAPE = (340, 500)
TURNS = {
    "rotated": [[0.6, -0.8], [0.8, 0.6]],
    "mirrored": [[-1, 0], [0, 1]],
    "sheared": [[1.0, 0.02], [0.0, 0.99]],
    "finer": [[0.5, 0], [0, 0.5]],
}
ROW = {"ra": 30.0, "dec": 20.0, "scale": 1.2, "rotation": 4.0}


def truth_shift(shape, x, y):
    """Displacement of `frame_wcs` at pixels, less its best linear part (by a plain plane fit)."""
    u, v = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2
    k = CORNER_DISTORTION / (np.hypot(*shape) / 2) ** 3
    terms = np.column_stack([np.ones(u.size), u.ravel(), v.ravel()])
    cube = np.column_stack([(k * (u**2 + v**2) * one).ravel() for one in (u, v)])
    plane = np.linalg.lstsq(terms, cube, rcond=None)[0]
    # The plane is taken out of the whole position, so what is left is divided by its steepness.
    rest = (cube - terms @ plane) @ np.linalg.inv(np.eye(2) + plane[1:])
    return rest.T.reshape(2, *u.shape)


# --- one frame -----------------------------------------------------------------------------------


def test_distortion_map_of_known_optics():
    """CC-04: the cubic of a simulated frame comes back without its linear part, to 1e-3 px."""
    found = distortion_map(frame_wcs(SHAPE, **ROW), nodes=(9, 13))
    expected = truth_shift(SHAPE, found.x, found.y)
    # The tangent plane itself bends by r^3 / (3 f^2), here 1e-5 px.
    assert np.abs(np.array([found.dx, found.dy]) - expected).max() < 1e-3
    assert found.shape == SHAPE and found.x.shape == (9, 13)
    assert (found.x[0, 0], found.x[-1, -1], found.y[-1, -1]) == (0, 499, 339)
    assert np.isnan(found.error).all() and np.isnan(found.scatter)


def test_distortion_map_has_no_linear_part():
    """CC-04: no shift, scale, rotation or shear is left in the displacements."""
    found = distortion_map(frame_wcs(SHAPE, **ROW))
    terms = np.column_stack([np.ones(found.x.size), found.x.ravel(), found.y.ravel()])
    left = np.linalg.lstsq(terms, np.column_stack([found.dx.ravel(), found.dy.ravel()]), rcond=None)
    assert np.abs(left[0][0]).max() < 1e-9 and np.abs(left[0][1:]).max() < 1e-11


def test_distortion_map_knows_the_scale_and_the_area():
    """CC-04: a pixel's area grows as (1 + k r^2) (1 + 3 k r^2), the scale as its root."""
    found = distortion_map(frame_wcs(SHAPE, **ROW), nodes=(9, 13))
    k = CORNER_DISTORTION / (np.hypot(*SHAPE) / 2) ** 3
    r2 = (found.x - 249.5) ** 2 + (found.y - 169.5) ** 2
    growth = (1 + k * r2) * (1 + 3 * k * r2)
    # Over the pixel itself k r^2 changes by 1e-7; the projection's own part is (r / f)^2 = 3e-6.
    assert found.area == pytest.approx(growth, rel=1e-5)
    assert found.scale == pytest.approx(1.2 * np.sqrt(growth), rel=1e-5)


@pytest.mark.parametrize("change", TURNS)
def test_distortion_map_is_that_of_the_optics_alone(change):
    """CC-04: pointing, rotation, parity, shear and scale of the frame do not change the map."""
    wcs = frame_wcs(SHAPE, **ROW)
    before = distortion_map(wcs)
    wcs.wcs.cd = wcs.wcs.cd @ np.array(TURNS[change])
    wcs.wcs.crval = [200.0, -70.0]
    after = distortion_map(wcs)
    assert np.hypot(after.dx - before.dx, after.dy - before.dy).max() < 1e-4


def test_distortion_map_without_sip_is_zero():
    """CC-04: the edge case "no SIP": a plain TAN frame has no displacement, and says its scale."""
    wcs = frame_wcs(SHAPE, **ROW)
    wcs.sip, wcs.wcs.ctype = None, ["RA---TAN", "DEC--TAN"]
    found = distortion_map(wcs, shape=SHAPE)
    assert found.shift.max() < 1e-7
    assert found.scale == pytest.approx(1.2, rel=1e-5)


def test_distortion_map_of_another_kind_of_polynomial():
    """CC-04: the polynomials of SCAMP (TPV) are drawn as well as SIP."""
    cards = fits.Header()
    cards["CTYPE1"], cards["CTYPE2"] = "RA---TPV", "DEC--TPV"
    cards["CRVAL1"], cards["CRVAL2"], cards["CRPIX1"], cards["CRPIX2"] = 30, 20, 250.5, 170.5
    cards["CD1_1"], cards["CD1_2"], cards["CD2_1"], cards["CD2_2"] = -1 / 3600, 0, 0, 1 / 3600
    half = np.hypot(*SHAPE) / 2 / 3600
    for axis in (1, 2):  # x (1 + k r^2), with 3 px in the corner; PV_7 is x^3, PV_9 is x y^2.
        cards[f"PV{axis}_1"] = 1.0
        cards[f"PV{axis}_7"] = cards[f"PV{axis}_9"] = CORNER_DISTORTION / 3600 / half**3
    found = distortion_map(WCS(cards), shape=SHAPE, nodes=(9, 13))
    expected = truth_shift(SHAPE, found.x, found.y)
    assert np.abs(np.array([found.dx, found.dy]) - expected).max() < 1e-3


def test_distortion_map_says_what_is_missing():
    """CC-04: a frame of unknown size, too few nodes, a frame beyond the projection."""
    wcs = frame_wcs(SHAPE, **ROW)
    wcs.pixel_shape = None
    with pytest.raises(ValueError, match="give shape"):
        distortion_map(wcs)
    with pytest.raises(ValueError, match="two or more along y and x"):
        distortion_map(wcs, shape=SHAPE, nodes=(1, 5))
    wcs.sip, wcs.wcs.ctype = None, ["RA---CAR", "DEC--CAR"]
    wcs.wcs.crval, wcs.wcs.cd = [0, 0], np.eye(2)
    with pytest.raises(FrameError, match="out of the projection"):
        distortion_map(wcs, shape=(40, 300))


# --- a night -------------------------------------------------------------------------------------


def make_plates(rng, *, n_frames=4, n_stars=150, error=0.1, catalogue_error=0.05):
    """Plates of frames with known optics: centroids and the catalogue have errors (px)."""
    half = [0.55 * n * ROW["scale"] / 3600 for n in SHAPE[::-1]]
    sky = from_plane(rng.uniform(-half[0], half[0], n_stars),
                     rng.uniform(-half[1], half[1], n_stars), ROW["ra"], ROW["dec"])  # fmt: skip
    wrong = catalogue_error * ROW["scale"] / 3600
    listed = [sky[0] + rng.normal(0, wrong, n_stars) / np.cos(np.radians(ROW["dec"])),
              sky[1] + rng.normal(0, wrong, n_stars)]  # fmt: skip
    plates = []
    for _ in range(n_frames):
        wcs = frame_wcs(
            SHAPE, **ROW | {"ra": 30 + rng.normal(0, 0.003), "rotation": rng.normal(0, 9)}
        )
        x, y = sky_to_pixel(wcs, *sky)
        inside = (x > 0) & (x < SHAPE[1] - 1) & (y > 0) & (y < SHAPE[0] - 1)
        table = Table(
            {"x": x + rng.normal(0, error, n_stars), "y": y + rng.normal(0, error, n_stars)}
        )
        table["ra"], table["dec"] = listed
        table["catalogue"] = np.arange(n_stars)
        table["error"], table["good"] = np.full(n_stars, error), True
        solution = Solution(wcs=wcs, matched=table[inside], rms_px=error, rms_arcsec=error,
                            n_matched=int(inside.sum()), scale=1.2, rotation=0.0, mirrored=False,
                            order=3, log_odds=99.0)  # fmt: skip
        plates.append(Plate(table, SHAPE, solution))
    return plates


def test_distortion_map_of_a_night_has_true_errors(monkeypatch):
    """CC-04: the deviations from the truth, in units of the errors, have a width of 1.

    A map has 8 free coefficients; over 40 nights their pulls have a width known to
    1 / sqrt(2 * 320) = 4 %, and the errors of a jackknife of ten groups another 1 / sqrt(2 * 9 * 8)
    of each night, which makes the mean square larger by some per cent.
    """
    rng = np.random.default_rng(5)
    pulls = []
    for _ in range(40):
        plates = make_plates(rng)
        monkeypatch.setattr(distortionmap, "_plates", lambda *_, found=plates: found)
        found = night_distortion(None, order=3, nodes=(5, 7))
        expected = truth_shift(SHAPE, found.x, found.y)
        misfit = (np.array([found.dx, found.dy]) - expected) / found.error
        pulls.append(np.mean(misfit**2))
        assert found.order == 3 and found.n_frames == 4 and found.n_stars > 400
        assert found.error.min() > 0.005 and found.error.max() < 0.2
    assert np.sqrt(np.mean(pulls)) == pytest.approx(1.0, abs=0.2)


def test_distortion_map_of_a_night_leaves_a_star_out_on_all_its_frames(monkeypatch):
    """CC-04: errors of the catalogue, the same on all frames, do not average out of the error."""
    errors = []
    for n_frames in (3, 12):
        plates = make_plates(np.random.default_rng(6), n_frames=n_frames, error=0.02,
                             catalogue_error=0.2)  # fmt: skip
        monkeypatch.setattr(distortionmap, "_plates", lambda *_, found=plates: found)
        errors.append(np.median(night_distortion(None, order=3).error))
    # With four times the frames independent errors would be half as large.
    assert errors[1] > 0.75 * errors[0]


def test_distortion_map_of_frames_of_one_shape(monkeypatch):
    """CC-04: a binned frame among the others is left out; the scatter is that of single frames."""
    plates = make_plates(np.random.default_rng(7), catalogue_error=0)
    odd = replace(plates[0].solution, matched=plates[0].solution.matched[:50])
    plates.append(Plate(Table(), (170, 250), odd))
    monkeypatch.setattr(distortionmap, "_plates", lambda *_: plates)
    found = night_distortion(None)
    assert found.shape == SHAPE and found.n_frames == 4
    # One of four frames has twice the error of all, and sqrt(3 / 4) of that from their mean. The
    # 24 free coefficients tell it to 14 %, the jackknife the error to about 12 %.
    expected = np.sqrt(0.75) * 2 * np.sqrt(2 * np.mean(found.error**2))
    assert found.scatter == pytest.approx(expected, rel=3 * 0.18)
    monkeypatch.setattr(distortionmap, "_plates", lambda *_: [])
    with pytest.raises(SolveError, match="up to the stage solved"):
        night_distortion(None)


def test_distortion_map_of_a_night_with_a_poor_frame(monkeypatch):
    """CC-04: a frame with four stars changes nothing; one frame alone has no scatter."""
    plates = make_plates(np.random.default_rng(8))
    few = replace(plates[0].solution, matched=plates[0].solution.matched[:4])
    maps = []
    for found in (plates, [*plates, Plate(Table(), SHAPE, few)], plates[:1]):
        monkeypatch.setattr(distortionmap, "_plates", lambda *_, found=found: found)
        maps.append(night_distortion(None, order=3))
    assert np.array_equal(maps[1].dx, maps[0].dx) and maps[1].scatter == maps[0].scatter
    assert maps[1].n_frames == 4 and np.isnan(maps[2].scatter)
    assert np.isfinite(maps[2].error).all()


def test_distortion_map_of_a_night_that_shows_none_has_no_errors(monkeypatch):
    """CC-04: with too few stars for a polynomial the map is 0, and how well is not known."""
    plates = make_plates(np.random.default_rng(9), n_frames=3, n_stars=12)
    monkeypatch.setattr(distortionmap, "_plates", lambda *_: plates)
    found = night_distortion(None)
    assert found.order == 1 and found.shift.max() < 1e-9 and np.isnan(found.error).all()
    assert np.isnan(found.scatter)


@pytest.fixture(scope="module")
def solved(once):
    """A small cluster night, solved, and its truth."""

    def make(folder):
        path = simulate_cluster(folder / "night", seed=1, n_bias=2, n_dark=2, n_flat=2, n_light=2)
        run(load_night(path), upto="solved")

    return load_night(once("distortion-cluster", make) / "night" / "night.toml")


def test_distortion_map_of_the_cluster_is_true(solved):
    """CC-04: the map of a simulated night, from raw frames, is within 0.1 px of the truth."""
    found = night_distortion(solved)
    header = fits.Header.fromtextfile(sorted((solved.truth / "wcs").glob("*.txt"))[0])
    truth = distortion_map(WCS(header), shape=found.shape)
    misfit = np.hypot(found.dx - truth.dx, found.dy - truth.dy)
    assert truth.shift.max() > 1.3
    assert misfit.max() < 0.1
    assert np.sqrt(np.mean(misfit**2)) < 3 * np.sqrt(2 * np.mean(found.error**2))
    assert found.scale == pytest.approx(truth.scale, rel=2e-4)
    assert found.area == pytest.approx(truth.area, rel=2e-4)


def test_distortion_map_of_half_a_night(solved):
    """CC-04: with ``files`` only the stars of those frames count; halves agree in their errors."""
    files = [str(name) for name in select_lights(inventory(solved), solved)["file"]]
    halves = [night_distortion(solved, files=files[i::2]) for i in (0, 1)]
    assert sum(half.n_frames for half in halves) == night_distortion(solved).n_frames
    assert_maps_agree(*halves)
    with pytest.raises(FrameError, match=r"no light frame nowhere\.fits: give files as"):
        night_distortion(solved, files=[*files, "nowhere.fits"])


def assert_maps_agree(one, two):
    """Two maps differ by what their errors allow: the mean square of the pulls is near 1 or less.

    Both have the errors of the same catalogue, so it may be smaller.
    """
    variance = one.error**2 + two.error**2
    square = ((one.dx - two.dx) ** 2 + (one.dy - two.dy) ** 2) / (2 * variance)
    assert 0 < np.mean(square) < 2
