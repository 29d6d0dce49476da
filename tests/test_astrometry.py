"""Tests of the rooms astrometry, solver, patterns and projection: frames are solved or refused."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS
from numpy.polynomial import polynomial

from datared.astrometry import from_plane, solve_frame, solve_night, to_plane
from datared.errors import ConfigError, SolveError
from datared.frames import read_product, write_product
from datared.listing import product_name
from datared.night import load_night
from datared.patterns import MIN_LOG_ODDS, find_pattern
from datared.render import star_image
from datared.sources import detect

SHAPE, SCALE, MIDDLE = (680, 1000), 1.214, SkyCoord(308.1, 15.55, unit="deg")


@dataclasses.dataclass
class Field:
    """Stars of the sky, where they fall on a frame, and the catalogue."""

    catalogue: Table
    sources: Table
    place: object  # function from ra, dec (deg) to pixels


def field(
    n=300, *, seed=1, rotation=33.0, mirrored=False, scale=SCALE, shape=SHAPE, center=MIDDLE,
    distortion=0.0, spurious=0.0, missing=0.0, error=0.03, margin=1.6,
):  # fmt: skip
    """Simulated frame: ``n`` catalogue stars on ``margin`` squared frames around the middle.

    ``distortion`` is the cubic displacement of the corners in px. ``spurious`` is the share of
    detections that are no stars and of catalogue stars that are not there; ``missing`` the share
    of catalogue stars that are not detected.
    """
    rng = np.random.default_rng(seed)
    half = margin * np.array(shape[::-1]) / 2
    offset = rng.uniform(-1, 1, (n, 2)) * half
    magnitude = 10 + 6 * np.sqrt(rng.random(n))
    middle = (np.array(shape[::-1]) - 1) / 2
    angle = np.radians(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    ideal = offset @ turn.T
    xi, eta = -ideal[:, 0] * scale / 3600, ideal[:, 1] * scale / 3600
    ra, dec = from_plane(xi, eta, center.ra.deg, center.dec.deg)
    r2 = (offset**2).sum(axis=1) / (middle**2).sum()
    pixel = offset * (1 + distortion * r2 / np.hypot(*middle))[:, None]
    if mirrored:
        pixel[:, 0] *= -1
    pixel += middle
    seen = ((pixel > 1) & (pixel < np.array(shape[::-1]) - 2)).all(axis=1)
    seen &= rng.random(n) >= missing
    x, y = (pixel[seen] + rng.normal(0, error, (seen.sum(), 2))).T
    flux = 10 ** (-0.4 * (magnitude[seen] - 20)) * rng.normal(1, 0.1, seen.sum())
    catalogue = Table({"ra": ra, "dec": dec, "r": magnitude + rng.normal(0, 0.1, n)})
    if spurious:
        k = int(len(x) * spurious / (1 - spurious))
        x = np.append(x, rng.uniform(0, shape[1], k))
        y = np.append(y, rng.uniform(0, shape[0], k))
        flux = np.append(flux, rng.choice(flux, k))
        drop = rng.random(n) < spurious
        catalogue["ra"][drop], catalogue["dec"][drop] = (
            rng.permutation(catalogue[name][drop]) for name in ("ra", "dec")
        )
    sources = Table({"x": x, "y": y, "flux": flux})
    return Field(catalogue, sources, (pixel, ra, dec))


def solve(scene, *, off=0.0, scale=SCALE, shape=SHAPE, center=MIDDLE, **options):
    """Solve with a pointing that is ``off`` arcmin wrong."""
    hint = center.directional_offset_by(70 * u.deg, off * u.arcmin)
    return solve_frame(
        scene.sources, scene.catalogue, shape=shape, center=hint, scale=scale, **options
    )


def sky_errors(solution, scene, shape=SHAPE):
    """Distances (arcsec) between truth and solution for the true stars on the frame."""
    pixel, ra, dec = scene.place
    on = ((pixel >= 0) & (pixel <= np.array(shape[::-1]) - 1)).all(axis=1)
    found = solution.wcs.pixel_to_world(*pixel[on].T)
    return found.separation(SkyCoord(ra[on], dec[on], unit="deg")).arcsec


@pytest.mark.parametrize("rotation", [0.0, 95.0, 181.0, -47.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_solve_backend(rotation, mirrored):
    """Any rotation, either parity, 10' off, scale 8 % off: rms below 0.1 px, truth recovered."""
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
    """Pointing 28' wrong of 30' is found; 50' wrong is found in the rest of the catalogue."""
    scene = field(900, margin=5.0)
    for off in (28.0, 50.0):
        solution = solve(scene, off=off, search_radius=30 * u.arcmin)
        assert sky_errors(solution, scene).max() < 0.15
    no_hint = solve_frame(scene.sources, scene.catalogue, shape=SHAPE, center=None, scale=SCALE)
    assert sky_errors(no_hint, scene).max() < 0.15


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


def test_sip_fit():
    """A distortion of 3 px in the corners is recovered to 0.15 px there."""
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


@pytest.mark.parametrize("center", [SkyCoord(0.01, 20, unit="deg"), SkyCoord(77, 89.9, unit="deg")])
def test_e38_solve_across_ra_zero_and_at_the_pole(center):
    """Right ascension 0 and the pole are sky like any other."""
    scene = field(center=center)
    solution = solve(scene, off=5.0, center=center)
    assert sky_errors(solution, scene).max() < 0.1


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


@pytest.fixture
def night(tmp_path):
    """Night of four small frames (the third a cloud, the fourth flipped), reduced by drawing."""
    shape = (300, 400)
    (tmp_path / "raw").mkdir()
    scenes = [field(150, shape=shape, rotation=3, margin=1.5) for _ in range(4)]
    for axis, name in ((1, "x"), (0, "y")):
        scenes[3].sources[name] = shape[axis] - 1 - scenes[3].sources[name]
    scenes[0].catalogue.write(tmp_path / "catalogue.ecsv")
    (tmp_path / "night.toml").write_text(
        'name = "n"\nraw = "raw"\nwork = "work"\n[camera]\npixel_scale = 1.2\n'
        '[astrometry]\ncatalogue = "catalogue.ecsv"\nsearch_radius = 10.0\n'
    )
    night = load_night(tmp_path / "night.toml")
    for k, scene in enumerate(scenes):
        name, jd = f"light{k}.fits", 2460000.5 + k / 24
        image = star_image(shape, *(scene.sources[c] for c in ("x", "y", "flux")), fwhm=3.0) * 100
        image = 400 + image * (k != 2) + np.random.default_rng(k).normal(0, 8, shape)
        header = fits.Header({"IMAGETYP": "LIGHT", "FILTER": "r", "EXPTIME": 60.0, "OBJECT": "f"})
        header["DATE-OBS"] = f"2023-02-25T0{k}:00:00"
        fits.writeto(tmp_path / "raw" / name, image.astype(np.uint16), header)
        cards = {"RA_DEG": MIDDLE.ra.deg + 0.03, "DEC_DEG": MIDDLE.dec.deg, "JD_UTC_M": jd}
        ccd = CCDData(image.astype(np.float32), unit="adu", meta=header)
        write_product(
            ccd, night.work / "reduced" / f"{product_name(name)}.fits", header_cards=cards
        )
    return night


def test_e22_one_frame_of_a_night_fails(night):
    """The clouded frame is listed with its reason and has no files; the others are solved."""
    stale = night.work / "solved" / "light2.fits"
    stale.parent.mkdir()
    stale.write_text("left by an earlier run")
    table = solve_night(night)
    assert list(table["status"]) == ["made", "made", "failed", "made"]
    assert "stars in the frame" in table["reason"][2] and not stale.exists()
    good = table["status"] == "made"
    assert np.all(table["rms_px"][good] < 0.1) and np.all(table["n_matched"][good] > 30)
    assert np.isnan(table["rms_px"][2]) and table["n_matched"][2] == 0
    stored = Table.read(night.work / "astrometry.ecsv")
    assert stored.colnames == table.colnames and list(stored["file"]) == list(table["file"])


def test_e25_meridian_flip_is_marked(night):
    """The frame after the flip is marked by its rotation alone."""
    table = solve_night(night)
    assert list(table["flipped"]) == [False, False, False, True]
    assert not table["mirrored"].any()


def test_residual_table_of_a_night(night):
    """Header and star list of a solved frame tell how good the solution is."""
    table = solve_night(night)
    ccd = read_product(night.work / "solved" / "light0.fits")
    assert ccd.meta["ASTRRMS"] == pytest.approx(table["rms_arcsec"][0])
    assert ccd.meta["ASTRNST"] == table["n_matched"][0]
    assert ccd.meta["FWHM"] == pytest.approx(3.0, rel=0.03)
    assert ccd.meta["SKY"] == pytest.approx(400, abs=1)
    assert ccd.meta["SKYNOISE"] == pytest.approx(8, rel=0.05)
    stars = Table.read(night.work / "sources" / "light0.ecsv")
    assert len(stars) == table["n_stars"][0] == ccd.meta["NSTARS"]
    assert (stars["catalogue"] >= 0).sum() == table["n_matched"][0]
    world = ccd.wcs.pixel_to_world(stars["x"], stars["y"])
    assert world.separation(SkyCoord(stars["ra"], stars["dec"], unit="deg")).max() < 1 * u.mas


def test_solve_night_same_with_workers_and_skips(night):
    """Two workers write the same bytes as one, and a second run finds everything current."""
    solve_night(night)
    files = sorted((night.work / "solved").iterdir()) + sorted((night.work / "sources").iterdir())
    first = {path: path.read_bytes() for path in files}
    again = solve_night(night)
    assert list(again["status"]) == ["current", "current", "failed", "current"]
    assert again["n_matched"][0] > 30
    for path in files:
        path.unlink()
    with ThreadPoolExecutor(2) as executor:
        solve_night(night, executor=executor)
    assert {path: path.read_bytes() for path in files} == first


def test_broken_wcs_of_the_camera_is_replaced(night):
    """A reduced frame with a wrong WCS gets ours, and nothing of the old one is left (E24)."""
    path = night.work / "reduced" / "light0.fits"
    with fits.open(path, mode="update") as hdus:
        cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 10.0}
        hdus[0].header.update(cards | {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-3, "CD1_1": 1.0})
    solve_night(night)
    wcs = read_product(night.work / "solved" / "light0.fits").wcs
    assert wcs.pixel_to_world(199.5, 149.5).separation(MIDDLE) < 0.3 * u.arcsec
    header = fits.getheader(night.work / "solved" / "light0.fits")
    assert header.get("A_2_0") != 1e-3


def test_solve_night_without_catalogue_or_position(night):
    """Neither a catalogue nor a pointing: one message that says what to give."""
    options = dataclasses.replace(night.astrometry, catalogue=None)
    with pytest.raises(ConfigError, match="no catalogue and no position"):
        solve_night(dataclasses.replace(night, astrometry=options))
