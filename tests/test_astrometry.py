"""Tests of the rooms astrometry, plates, residuals: the frames of a night are solved or refused."""

import dataclasses
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table

from datared import astrometry, nightcatalogue, read_photometry
from datared.astrometry import solve_night
from datared.distortion import Distortion
from datared.errors import ConfigError, DataredError, SolveError
from datared.forced import photometry_night
from datared.frames import read_product, write_product
from datared.listing import product_name
from datared.night import load_night
from datared.plates import Plate, read_plate, write_plate
from datared.products import Outcome
from datared.render import star_image
from datared.residuals import night_table
from tests.skyfields import MIDDLE, SHAPE, field, solve


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
    """E22, AS-05: the clouded frame is listed with its reason, the others are solved without it."""
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


@pytest.mark.parametrize(
    ("sides", "contradicts"),
    [
        (["", "", "", ""], []),
        (["E", "E", "E", "W"], []),
        (["W", "W", "W", "E"], []),
        (["E", "E", "E", "E"], [3]),
        (["W", "E", "E", "W"], [0]),
        (["", "", "", "W"], []),
    ],
)
def test_e25_meridian_flip_is_marked(night, sides, contradicts):
    """E25, AS-08: the rotation marks the turned frame; a card that contradicts is remarked on."""
    for path, side in zip(sorted(night.raw.iterdir()), sides, strict=True):
        fits.setval(path, "PIERSIDE", value=side)
    table = solve_night(night)
    assert list(table["flipped"]) == [False, False, False, True]
    assert not table["mirrored"].any()
    words = {"E": "east", "W": "west", "": ""}
    assert list(table["pier"]) == [words[side] for side in sides]
    # The third frame is a cloud.
    remarked = [number for number, text in enumerate(table["warning"]) if "PIERSIDE" in text]
    assert remarked == contradicts
    if contradicts == [3]:
        assert table["warning"][3].startswith("PIERSIDE says east, but the frame is turned")


def test_meridian_flip_keeps_the_flux(night):
    """E25, AS-08: after the flip a star has the same flux within 0.5 %, and the same place.

    Forced photometry at the same points of the sky. Stars with errors below 0.1 % on each frame
    are compared: 0.5 % are four errors of the ratio of one frame to the mean of two.
    """
    solved = solve_night(night)
    photometry_night(night)
    result = read_photometry(night)
    turned = dict(zip(solved["file"], solved["flipped"], strict=True))
    side = np.array([turned[file] for file in result.epochs["file"]], bool)
    assert side.tolist() == [False, False, True]
    radius = result.default_radius
    flux, error, flags = (a[:, :, radius] for a in (result.flux, result.flux_err, result.flags))
    good = ((flags == 0) & (error < 0.001 * flux)).all(axis=1)
    assert good.sum() >= 10
    ratio = flux[good][:, side].mean(axis=1) / flux[good][:, ~side].mean(axis=1)
    assert np.abs(ratio - 1).max() < 0.005
    # The frame was turned by 180 deg: the same star, seen at the opposite pixel.
    assert np.abs(result.x[good, 0] + result.x[good, 2] - 399).max() < 0.1
    assert np.abs(result.y[good, 0] + result.y[good, 2] - 299).max() < 0.1


def test_residual_table_of_a_night(night):
    """AS-03, 000-31: every star has its place on the sky; header and tables tell how good it is."""
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
    used = stars[stars["used"]]
    distance = np.hypot(used["dx"], used["dy"])
    assert np.sqrt(np.mean(distance**2)) == pytest.approx(table["rms_px"][0], rel=1e-6)
    worst = stars[stars.meta["worst"]]
    assert np.hypot(worst["dx"], worst["dy"]) == distance.max() == table["worst_px"][0]
    assert ccd.meta["ASTRSOLV"] == "catalogue" == table["solver"][0]
    assert ccd.meta["ASTRORD"] == table["order"][0]
    # The width on the sky, and the night as a whole.
    assert table["fwhm_arcsec"][0] == pytest.approx(table["fwhm"][0] * table["scale"][0])
    assert (table.meta["n_frames"], table.meta["n_solved"]) == (4, 3)
    solved = table[table["status"] == "made"]
    assert table.meta["rms_px"] == np.median(solved["rms_px"])
    assert table.meta["worst"] == solved["file"][np.argmax(solved["rms_px"])]
    assert Table.read(night.work / "astrometry.ecsv").meta == table.meta
    world = ccd.wcs.pixel_to_world(stars["x"], stars["y"])
    assert world.separation(SkyCoord(stars["ra"], stars["dec"], unit="deg")).max() < 1 * u.mas


def test_residual_limit_passes_or_fails(night):
    """AS-03: frames with a larger rms than max_rms fail with both numbers, and lose their file."""
    table = solve_night(night)
    good = table["status"] == "made"
    limit = float(np.sort(table["rms_px"][good])[1]) * 1.001
    night = dataclasses.replace(
        night, astrometry=dataclasses.replace(night.astrometry, max_rms=limit)
    )
    again = solve_night(night)
    failed = [row["file"] for row in again if "max_rms" in row["reason"]]
    assert failed == [table["file"][good][np.argmax(table["rms_px"][good])]]
    assert (again["status"] == "made").sum() == 2
    reason = str(again["reason"][list(again["file"]).index(failed[0])])
    assert "more than max_rms" in reason and "clouds" in reason
    assert not (night.work / "solved" / f"{product_name(failed[0])}.fits").exists()


def test_residual_warnings_of_thin_clouds():
    """AS-03: few stars or large residuals, against the frames of the same filter, are remarked."""
    lights = Table({"file": list("abcdef"), "filter": list("rrrrrB"), "pier_side": [""] * 6})
    numbers = {"rms_px": 0.1, "n_matched": 60, "rotation": 0.0, "jd_utc_mid": 1.0}
    changes = ({}, {"n_matched": 20}, {"rms_px": 0.25}, {}, {}, {"rms_px": 0.3, "n_matched": 9})
    outcomes = [Outcome(None, "made", "", numbers | change) for change in changes]
    table = night_table(lights, outcomes)
    assert list(table["warning"]) == [
        "",
        "few stars: 20 matched, 60 on others",
        "large residuals: 0.25 px, 0.10 on others",
        "",
        "",
        "",
    ]


def test_solve_night_same_with_workers_and_skips(night):
    """AS-09, 003-13: two workers write the same bytes as one; a second run makes nothing."""
    solve_night(night)
    folders = [night.work / name for name in ("detected", "solved", "sources")]
    files = sorted(path for folder in folders for path in folder.iterdir())
    files += [night.work / "distortion.ecsv", night.work / "astrometry.ecsv"]
    # The frame with clouds was looked at, but is not solved.
    assert len(files) == 4 + 3 + 3 + 2
    first = {path: path.read_bytes() for path in files}
    again = solve_night(night)
    assert list(again["status"]) == ["current", "current", "failed", "current"]
    assert again["n_matched"][0] > 30
    for path in files:
        path.unlink()
    with ThreadPoolExecutor(2) as executor:
        solve_night(night, executor=executor)
    assert {path: path.read_bytes() for path in files} == first


@pytest.mark.parametrize("phase", ["first looks", "distortion", "final"])
def test_parallel_and_resumable_after_a_kill(night, phase, monkeypatch):
    """AS-09, 003-13: whatever a kill interrupts, the next run goes on there: same bytes."""
    whole = solve_night(night)
    files = sorted(p for p in night.work.rglob("*") if p.is_file() and "reduced" not in p.parts)
    files = [path for path in files if path.name != "manifest.json"]
    first = {path: path.read_bytes() for path in files}
    for folder in ("detected", "solved", "sources"):
        shutil.rmtree(night.work / folder)
    for path in [*night.work.glob("*.ecsv"), night.work / "manifest.json"]:
        path.unlink()
    target = {
        "first looks": "_look_at_file",
        "distortion": "_fit_files",
        "final": "_solve_file",
    }[phase]
    function, calls = getattr(astrometry, target), []

    def killed(*args):
        calls.append(args)
        if phase == "distortion" or len(calls) == 2:
            raise KeyboardInterrupt
        return function(*args)

    monkeypatch.setattr(astrometry, target, killed)
    with pytest.raises(KeyboardInterrupt):
        solve_night(night)
    assert not (night.work / "astrometry.ecsv").exists()
    counts = {}

    def counted(name):
        function = originals[name]

        def call(*args):
            counts[name] = counts.get(name, 0) + 1
            return function(*args)

        return call

    originals = {"_look_at_file": astrometry._look_at_file, "_solve_file": astrometry._solve_file}
    originals[target] = function
    for name in originals:
        monkeypatch.setattr(astrometry, name, counted(name))
    table = solve_night(night)
    # What was there is not made again: the first frame of the phase that was interrupted.
    assert counts.get("_look_at_file", 0) == {"first looks": 3}.get(phase, 0)
    assert counts["_solve_file"] == {"final": 3}.get(phase, 4)
    table["status"] = ["made" if s == "current" else s for s in table["status"]]
    table.write(night.work / "astrometry.ecsv", format="ascii.ecsv", overwrite=True)
    assert {path: path.read_bytes() for path in files} == first
    assert list(table["n_matched"]) == list(whole["n_matched"])


def test_second_run_takes_no_time(night, monkeypatch):
    """AS-09: a second run calls nothing that takes time, and the catalogue is read once."""
    reads = []
    read = nightcatalogue.read_catalogue
    monkeypatch.setattr(
        nightcatalogue, "read_catalogue", lambda path: reads.append(path) or read(path)
    )
    nightcatalogue._stars.cache_clear()
    solve_night(night)
    assert len(reads) == 1

    def never(*args, **options):
        raise AssertionError("a current product is not made again")

    for name in ("detect", "solve", "read_product", "read_plate", "fit_distortion", "better"):
        monkeypatch.setattr(astrometry, name, never)
    again = solve_night(night)
    assert list(again["status"]) == ["current", "current", "failed", "current"]


def test_failed_frame_is_tried_with_the_distortion_of_the_night(night, monkeypatch):
    """E22, AS-05: what the first look does not solve may be solved with what the night knows."""
    lens = Distortion(2, np.zeros((3, 2)), (300, 400), 3, 100, 0.05)
    monkeypatch.setattr(astrometry, "fit_distortion", lambda *args, **options: lens)
    look = astrometry._look

    def blinded(reduced, catalogue, options):
        plate = look(reduced, catalogue, options)
        hidden = reduced.name == "light1.fits"
        return plate._replace(solution=None, reason="was not found") if hidden else plate

    monkeypatch.setattr(astrometry, "_look", blinded)
    table = solve_night(night)
    assert list(table["status"]) == ["made", "made", "failed", "made"]
    assert table["shared"][1] and table["rms_px"][1] < 0.1
    # Without a distortion there is nothing new to try.
    night = dataclasses.replace(
        night, astrometry=dataclasses.replace(night.astrometry, night_distortion=False)
    )
    table = solve_night(night)
    assert list(table["status"]) == ["made", "failed", "failed", "made"]
    assert table["reason"][1] == "was not found" and not table["shared"].any()


def test_frame_that_was_not_calibrated(night, caplog):
    """E22, AS-05: the reason says so without a traceback; when it is there it is solved."""
    solve_night(night)
    reduced = night.work / "reduced" / "light1.fits"
    reduced.rename(night.work / "elsewhere.fits")
    caplog.clear()
    table = solve_night(night)
    assert list(table["status"]) == ["made", "failed", "failed", "made"]
    assert table["reason"][1] == "there is no calibrated frame: see the stage reduced"
    assert not any(record.exc_info for record in caplog.records)
    for folder, ending in (("solved", "fits"), ("sources", "ecsv")):
        assert not (night.work / folder / f"light1.{ending}").exists()
    (night.work / "elsewhere.fits").rename(reduced)
    assert list(solve_night(night)["status"]) == ["made", "made", "failed", "made"]


def test_catalogue_that_cannot_be_read_is_said_once(night, caplog):
    """E23, AS-05: one error for the night, before any frame is looked at."""
    night.astrometry.catalogue.write_text("no table", encoding="utf-8")
    with pytest.raises(DataredError, match=r"catalogue\.ecsv cannot be read"):
        solve_night(night)
    assert not (night.work / "detected").exists() and not caplog.records


def test_distortion_of_an_earlier_run_is_removed(night):
    """003-13: files that no frame of this run gave are not left for it."""
    solve_night(night)
    left = night.work / "distortion_200x150_bin2x2.ecsv"
    shutil.copy(night.work / "distortion.ecsv", left)
    solve_night(night)
    assert (night.work / "distortion.ecsv").exists() and not left.exists()
    stars = Table.read(night.astrometry.catalogue)
    stars[:4].write(night.astrometry.catalogue, overwrite=True)
    assert list(solve_night(night)["status"]) == ["failed"] * 4
    assert not list(night.work.glob("distortion*"))


@pytest.mark.parametrize(
    ("cards", "place"),
    [
        ({"RA_DEG": 0.0, "DEC_DEG": 0.0}, (0.0, 0.0)),
        ({"RA_DEG": 308.0, "DEC_DEG": 0.0}, (308.0, 0.0)),
        ({"RA_DEG": None, "DEC_DEG": 0.0}, (10.0, 20.0)),
        ({}, (10.0, 20.0)),
    ],
)
def test_pointing_of_zero_is_one(cards, place):
    """AS-04: a pointing at RA 0 or on the equator counts; without one it is the target's."""
    ccd = CCDData(np.zeros((30, 40)), unit="adu", meta=fits.Header(cards))
    options = {"pixel_scale": 1.2, "hint": [10.0, 20.0], "search_radius": 5.0}
    options |= {"scale_tolerance": 0.1, "sip_order": None}
    center = astrometry._hints(ccd, "frame.fits", options)["center"]
    assert (center.ra.deg, center.dec.deg) == pytest.approx(place)


def put_wcs(path, wcs):
    """Write world coordinates into a reduced frame."""
    with fits.open(path, mode="update") as hdus:
        hdus[0].header.update(wcs.to_header(relax=True))


def test_existing_wcs_kept(night):
    """AS-06: coordinates that the stars confirm stay as they are, with all their terms."""
    first = solve_night(night)
    path = night.work / "reduced" / "light0.fits"
    true = read_product(night.work / "solved" / "light0.fits").wcs
    # Another program's: the reference point elsewhere, a distortion of next to nothing.
    wcs = true.deepcopy()
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.crval = true.wcs_pix2world([[0, 0]], 0)[0]
    put_wcs(path, wcs)
    table = solve_night(night)
    assert table["solver"][0] == "header" and table["solver"][1] == "catalogue"
    ccd = read_product(night.work / "solved" / "light0.fits")
    assert ccd.meta["ASTRSOLV"] == "header" and list(ccd.wcs.wcs.crpix) == [1.0, 1.0]
    assert ccd.wcs.wcs.crval == pytest.approx(wcs.wcs.crval, abs=1e-10)
    assert table["rms_px"][0] < 1.3 * first["rms_px"][0] + 0.05
    assert table["rotation"][0] == pytest.approx(first["rotation"][0], abs=0.05)
    # Where the night file says so, it is solved anew.
    options = dataclasses.replace(night.astrometry, keep_wcs=False)
    table = solve_night(dataclasses.replace(night, astrometry=options))
    assert table["solver"][0] == "catalogue"


def test_existing_wcs_that_is_rough_is_improved(night):
    """AS-06: coordinates that are right but 3 px off are confirmed and fitted anew."""
    solve_night(night)
    true = read_product(night.work / "solved" / "light0.fits").wcs
    wcs = true.deepcopy()
    wcs.wcs.crpix = true.wcs.crpix + 3
    put_wcs(night.work / "reduced" / "light0.fits", wcs)
    table = solve_night(night)
    assert table["solver"][0] == "header" and table["rms_px"][0] < 0.1
    ccd = read_product(night.work / "solved" / "light0.fits")
    assert ccd.wcs.pixel_to_world(199.5, 149.5).separation(MIDDLE) < 0.3 * u.arcsec


def test_existing_wcs_of_a_blind_pointing_is_replaced(night):
    """AS-06, AS-04: where the telescope believed to point, 2' off, is a hint and no more."""
    solve_night(night)
    true = read_product(night.work / "solved" / "light0.fits").wcs
    wcs = true.deepcopy()
    wcs.wcs.crval = true.wcs.crval + np.array([0.02, -0.03])
    path = night.work / "reduced" / "light0.fits"
    put_wcs(path, wcs)
    for card in ("RA_DEG", "DEC_DEG"):
        fits.delval(path, card)
    table = solve_night(night)
    assert table["solver"][0] == "catalogue" and table["rms_px"][0] < 0.1
    ccd = read_product(night.work / "solved" / "light0.fits")
    assert ccd.wcs.pixel_to_world(199.5, 149.5).separation(MIDDLE) < 0.3 * u.arcsec


def test_plate_roundtrip(tmp_path):
    """003-13, AS-07: the first look at a frame is the same after writing and reading."""
    scene = field(300, distortion=2.0)
    scene.sources.meta = {"fwhm": 2.5, "sky": np.float32(100), "method": "sep", "beta": np.nan}
    solution = solve(scene)
    write_plate(Plate(scene.sources, SHAPE, solution), tmp_path / "a.fits")
    again = read_plate(tmp_path / "a.fits")
    assert again.shape == SHAPE and again.reason == "" and again.stars.meta["fwhm"] == 2.5
    for name in scene.sources.colnames:
        np.testing.assert_array_equal(again.stars[name], scene.sources[name])
    for name in solution.matched.colnames:
        np.testing.assert_array_equal(again.solution.matched[name], solution.matched[name])
    for name in ("rms_px", "order", "mirrored", "log_odds", "tried", "solver", "shared"):
        assert getattr(again.solution, name) == getattr(solution, name)
    x, y = np.meshgrid(np.linspace(0, 999, 9), np.linspace(0, 679, 7))
    found, true = (s.wcs.all_pix2world(x, y, 0) for s in (again.solution, solution))
    np.testing.assert_allclose(found, true, rtol=0, atol=1e-11)
    write_plate(again, tmp_path / "b.fits")
    write_plate(Plate(scene.sources[:0], SHAPE, reason="clouds"), tmp_path / "c.fits")
    assert read_plate(tmp_path / "c.fits").reason == "clouds"
    assert read_plate(tmp_path / "c.fits").solution is None


def test_e23_solver_that_is_not_there_is_said_once(night, monkeypatch, tmp_path):
    """E23, 004-07: one message for the night; what is current already needs no solver."""
    options = dataclasses.replace(night.astrometry, solver="solve-field")
    other = dataclasses.replace(night, astrometry=options)
    # Solved where the program is, then looked at where it is not.
    solve = astrometry.solve
    with monkeypatch.context() as there:
        there.setattr(astrometry, "find_program", lambda: "somewhere")
        there.setattr(
            astrometry, "solve", lambda *a, **o: solve(*a, **(o | {"solver": "catalogue"}))
        )
        first = solve_night(other)
    monkeypatch.setenv("PATH", str(tmp_path))
    again = solve_night(other)
    assert list(again["status"]) == ["current", "current", "failed", "current"]
    assert list(again["rms_px"][[0, 1, 3]]) == list(first["rms_px"][[0, 1, 3]])
    shutil.rmtree(night.work / "detected")
    with pytest.raises(SolveError, match=r"apt install astrometry\.net"):
        solve_night(other)
    assert not (night.work / "detected").exists()


@pytest.mark.skipif(os.name != "posix", reason="the program in its place is a shell script")
def test_e22_solver_program_fails_and_is_tried_again(night, monkeypatch, tmp_path):
    """E22, AS-05: a program that ends with code 1: its frames are listed, and tried next time."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "solve-field"
    program.write_text("#!/bin/sh\necho it broke\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    options = dataclasses.replace(night.astrometry, solver="solve-field")
    night = dataclasses.replace(night, astrometry=options)
    true = {}
    for path in sorted((night.work / "reduced").iterdir()):
        true[path] = path.read_bytes()
    table = solve_night(night)
    assert list(table["status"]) == ["failed"] * 4
    assert all("code 1: it broke" in str(table["reason"][k]) for k in (0, 1, 3))
    # The failure leaves the frames untouched, and is not remembered.
    assert {path: path.read_bytes() for path in true} == true
    program.write_text("#!/bin/sh\nexit 0\n")
    table = solve_night(night)
    assert "no solution" in str(table["reason"][0])


def test_broken_wcs_of_the_camera_is_replaced(night):
    """E24, AS-06: a frame with a wrong WCS gets ours, and nothing of the old one is left."""
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
    """AS-05: neither a catalogue nor a pointing: one message that says what to give."""
    options = dataclasses.replace(night.astrometry, catalogue=None)
    with pytest.raises(ConfigError, match="no catalogue and no position"):
        solve_night(dataclasses.replace(night, astrometry=options))
