"""Photometry of a night: one star list, every frame, one table in the order of time."""

import dataclasses
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.table import MaskedColumn, Table, vstack
from astropy.time import Time

from datared import assembly, forced, names, photometry, pixels
from datared.catalogs import identify_target
from datared.errors import DataredError, FrameError
from datared.forced import forced_photometry, photometry_night, read_photometry, sky_to_pixel
from datared.lightcurve import differential_light_curve
from datared.names import KnownObject, resolve_target
from datared.night import Night
from datared.reference import add_catalogue, merge_stars, refine_positions, set_target
from datared.render import star_image
from datared.settings import parse_position
from datared.times import bjd_tdb
from tests.solvednights import FRAMES, GAIN, JD, SCALE, SHAPE, make_wcs, stars_on_sky, write_night


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Four frames, two filters, one flip, measured."""
    night = write_night(tmp_path_factory.mktemp("night"), FRAMES, target=stars_on_sky()[0][5])
    table = photometry_night(night)
    assert list(table["status"]) == ["made"] * 4
    return night


def truth_of(night):
    """Electrons of the stars in the order of the night's star list."""
    sky, electrons = stars_on_sky()
    stars = read_photometry(night).stars
    found = SkyCoord(stars["ra"], stars["dec"], unit="deg")
    index, separation, _ = found.match_to_catalog_sky(sky)
    return index, electrons, separation.arcsec


def test_photometry_batch_has_every_star_on_every_frame(night):
    """PH-12, 001-06: same rows, axes star, epoch, radius; brightest first; ids are row numbers."""
    result = read_photometry(night)
    assert result.flux.shape == result.flux_err.shape == result.flags.shape == (24, 4, 2)
    assert result.sky.shape == result.x.shape == result.y.shape == (24, 4)
    assert list(result.stars["star"]) == list(range(24))
    assert np.all(np.diff(result.stars["brightness"]) <= 0)
    assert result.radii == (4.0, 6.0) and result.radius_unit == "px" and result.gain == GAIN
    # One table per frame, and one readable with Table.read.
    assert len(list((night.work / "photometry").glob("*.fits"))) == 4
    assert Table.read(night.work / "photometry.fits")["flux"].shape == (24, 4, 2)


def test_forced_fluxes_are_right_and_pulls_have_unit_width(night):
    """PH-01, 001-05: on dithered, turned and dimmer frames the fluxes are the injected ones."""
    result = read_photometry(night)
    index, electrons, separation = truth_of(night)
    # Centroids of 0.12 arcsec, averaged over four frames.
    assert np.median(separation) < 0.12
    noiseless = star_image((61, 61), [30.0], [30.0], [1.0], fwhm=2.6, beta=4.5)
    share = photometry.aperture_photometry(noiseless, 30, 30, radii=6, annulus=(9, 14))["flux"][0]
    pulls = []
    for k in (0, 2, 3):
        truth = electrons["g" if k == 3 else "r"][index] * (0.8 if k == 2 else 1.0) * share[0]
        pulls.append((result.flux[:, k, 1] - truth / GAIN) / result.flux_err[:, k, 1])
    # 72 pulls: the width is known to 8 %.
    assert np.std(pulls) == pytest.approx(1.0, abs=0.25)
    assert abs(np.mean(pulls)) < 0.36


def test_pieces_at_the_edge_and_single_detections_are_no_stars(tmp_path):
    """Neither the cut-off half of a star nor what only one frame of a filter shows is measured."""
    edge = (120.0, 1.2, photometry.EDGE)
    more = [(), (edge, (60.0, 40.0, 0)), (edge,)]
    frames = [
        {"file": f"{n}.fits", "filter": "r", "jd": JD + n / 100, "more": more[n]} for n in range(3)
    ]
    night = write_night(tmp_path, frames)
    photometry_night(night)
    stars = read_photometry(night).stars
    assert len(stars) == 24 and list(stars["star"]) == list(range(24))


def test_e41_order_of_time_not_of_names(night):
    """Epochs go by mid time, whatever the files are called."""
    epochs = read_photometry(night).epochs
    assert list(epochs["file"]) == ["b.fits", "a.fits", "sub/c.fits", "d.fits"]
    assert np.all(np.diff(epochs["jd_utc_mid"]) > 0)
    assert list(epochs["filter"]) == ["r", "r", "r", "g"]


def test_epochs_have_times_airmass_and_flip(night):
    """BJD of the target, airmass from the site, the flip seen from the sky itself."""
    epochs = read_photometry(night).epochs
    target = stars_on_sky()[0][5]
    direct = bjd_tdb(epochs["jd_utc_mid"], target, location=night.site.location)
    assert np.all(np.abs(epochs["bjd_tdb_mid"] - direct) * 86400 < 0.05)
    assert list(epochs["flipped"]) == [False, False, True, False]
    assert np.all(np.isfinite(epochs["airmass"])) and np.std(epochs["airmass"]) > 0
    assert np.allclose(epochs["fwhm"], [2.6, 3.1, 2.6, 2.6])
    assert np.allclose(epochs["radii"], [[4, 6]] * 4)


def test_target_is_marked(night):
    """The night's target is one row of the list."""
    result = read_photometry(night)
    index, _, _ = truth_of(night)
    assert index[np.asarray(result.stars["target"])].tolist() == [5]


def test_photometry_batch_is_the_same_again_and_on_three_workers(night, tmp_path):
    """PH-12: second run: nothing is made. Another folder, three workers: the same bytes."""
    names = ("photometry.fits", "stars.ecsv", "epochs.ecsv")
    before = [(night.work / name).read_bytes() for name in names]
    assert list(photometry_night(night)["status"]) == ["current"] * 4
    assert [(night.work / name).read_bytes() for name in names] == before
    other = write_night(tmp_path, FRAMES, target=stars_on_sky()[0][5])
    with ProcessPoolExecutor(3) as pool:
        photometry_night(other, executor=pool)
    assert [(other.work / name).read_bytes() for name in names] == before


def test_one_broken_frame_does_not_stop_the_night(tmp_path):
    """000-34: a frame that cannot be read is listed with its reason; the others are measured."""
    night = write_night(tmp_path, FRAMES[:3])
    photometry_night(night)
    # The first frame is the reference of the star list: the next one steps in.
    path = night.work / "solved" / "b.fits"
    path.write_bytes(path.read_bytes()[:4000])
    table = photometry_night(night)
    bad = table[table["status"] == "failed"]
    assert list(bad["file"]) == ["b.fits"] and "b.fits" in bad["reason"][0]
    assert list(read_photometry(night).epochs["file"]) == ["a.fits", "sub/c.fits"]


def test_nothing_measured_leaves_no_table_of_an_earlier_run(tmp_path, monkeypatch):
    """Where every frame fails, the old table is gone and the reason is raised."""
    night = write_night(tmp_path, FRAMES[:3])
    photometry_night(night)
    shutil.rmtree(night.work / "photometry")

    def refuse(*_):
        raise FrameError("clouds everywhere")

    monkeypatch.setattr(forced, "_measure", refuse)
    with pytest.raises(DataredError, match="clouds everywhere"):
        photometry_night(night)
    assert not (night.work / "photometry.fits").exists()


def test_radius_units(tmp_path):
    """PH-04: radii in px, arcsec and widths of the frame are the circles that they say."""
    frames = FRAMES[:2]
    by_unit = {}
    for unit, radius in (("px", 5.0), ("arcsec", 5.0 * SCALE), ("fwhm", 2.0)):
        folder = tmp_path / unit
        night = write_night(
            folder, frames, radii=(radius,), radius_unit=unit, annulus=(2 * radius, 3 * radius)
        )
        photometry_night(night)
        by_unit[unit] = read_photometry(night)
    assert np.allclose(by_unit["px"].epochs["radii"][:, 0], 5.0)
    assert np.allclose(by_unit["arcsec"].epochs["radii"][:, 0], 5.0, rtol=1e-6)
    assert np.allclose(by_unit["fwhm"].epochs["radii"][:, 0], [5.2, 6.2])
    assert np.allclose(by_unit["arcsec"].flux, by_unit["px"].flux, rtol=1e-5)
    assert by_unit["fwhm"].radius_unit == "fwhm" and by_unit["fwhm"].radii == (2.0,)


def test_e26_star_leaves_the_frame(tmp_path):
    """E26: a star that drifts out is NaN and flagged on those frames, and there on the others."""
    frames = [
        {"file": f"{k}.fits", "filter": "r", "jd": JD + k / 100, "shift": (-20.0 * k, 0)}
        for k in range(3)
    ]
    night = write_night(tmp_path, frames)
    photometry_night(night)
    result = read_photometry(night)
    leaving = np.argmin(result.x[:, 0])
    assert list(np.isfinite(result.flux[leaving, :, 1])) == [True, False, False]
    assert result.flags[leaving, 1, 1] & (photometry.EDGE | photometry.OUTSIDE)
    assert result.flags[leaving, 2, 1] & photometry.OUTSIDE
    middle = np.argmin(np.abs(result.x[:, 0] - 100))
    assert np.all(np.isfinite(result.flux[middle]))


def test_e43_target_that_is_not_detected_is_measured_at_its_place(tmp_path):
    """An empty place on the sky gets a row, a flux that is zero within its error, and the mark."""
    empty = make_wcs().pixel_to_world(103.0, 74.0)
    night = write_night(tmp_path, FRAMES[:2], target=empty)
    photometry_night(night)
    result = read_photometry(night)
    row = int(np.flatnonzero(result.stars["target"])[0])
    assert len(result.stars) == 25 and result.stars["n_detected"][row] == 0
    assert np.all(np.abs(result.flux[row] / result.flux_err[row]) < 4)
    assert result.x[row, 0] == pytest.approx(103.0, abs=1e-3)


def test_e43_target_with_proper_motion_is_measured_where_it_is_now(tmp_path):
    """A position of J2000 with a motion is moved to the date of the frames."""
    now = make_wcs().pixel_to_world(103.0, 74.0)
    years = 2451545.0 - FRAMES[0]["jd"]
    moving = SkyCoord(
        now.ra, now.dec + years / 365.25 * 500 * u.mas,
        pm_ra_cosdec=0 * u.mas / u.yr, pm_dec=500 * u.mas / u.yr, obstime=Time("J2000"),
    )  # fmt: skip
    night = write_night(tmp_path, FRAMES[:1], target=moving)
    photometry_night(night)
    result = read_photometry(night)
    row = int(np.flatnonzero(result.stars["target"])[0])
    assert (result.x[row, 0], result.y[row, 0]) == pytest.approx((103.0, 74.0), abs=5e-3)


def test_e43_target_that_moves_otherwise_is_measured_anew(tmp_path):
    """The star list is made again when the target's position or its motion changes, else not."""
    now = make_wcs().pixel_to_world(103.0, 74.0)
    night = write_night(tmp_path, FRAMES[:1], target=now)
    places, statuses = [], []
    for motion in (None, 0.0, 3000.0, 3000.0, -3000.0):
        moving = {"pm_ra_cosdec": 0 * u.mas / u.yr, "obstime": Time("J2000")}
        if motion is not None:
            target = SkyCoord(now.ra, now.dec, pm_dec=motion * u.mas / u.yr, **moving)
            night = dataclasses.replace(night, target_coord=target)
        statuses += list(photometry_night(night)["status"])
        result = read_photometry(night)
        places.append(float(result.y[np.asarray(result.stars["target"]), 0][0]))
    # 23.2 years of 3 arcsec.
    step = (FRAMES[0]["jd"] - 2451545.0) / 365.25 * 3 / SCALE
    np.testing.assert_allclose(places, 74 + step * np.array([0, 0, 1, 1, -1]), atol=0.01)
    assert statuses == ["made", "current", "made", "current", "made"]


@pytest.mark.parametrize("place", [(400.0, 74.0), (-0.6, 74.0), None])
def test_e43_target_outside_of_all_frames_is_told(tmp_path, caplog, place):
    """A wrong position is warned of; the other stars are measured as ever."""
    target = make_wcs().pixel_to_world(*place) if place else SkyCoord(330.0, -40.0, unit="deg")
    night = write_night(tmp_path, FRAMES[:2], target=target)
    photometry_night(night)
    assert "is on no frame" in caplog.text and "target_coord" in caplog.text
    result = read_photometry(night)
    assert np.isnan(result.flux[24]).all() and np.isfinite(result.flux[:20]).all()


def test_best_frame_is_the_first_of_those_with_nearly_as_many_stars(tmp_path):
    """A star more on a later frame is chance; 3 % more stars are another frame's depth."""
    more = [(30.0 + 5 * k, 60.0, 0) for k in range(2)]
    frames = [
        {"file": f"{k}.fits", "filter": "r", "jd": JD + k / 100, "more": more[:k]} for k in (0, 1)
    ]
    for stars, best in ((24, "1.fits"), (40, "0.fits")):
        folder = tmp_path / best
        night = write_night(folder, frames)
        for path in (night.work / "sources").glob("*.ecsv") if stars > 24 else ():
            table = Table.read(path, format="ascii.ecsv")
            far = Table(table[:16])
            far["dec"] += 0.5
            vstack([table, far]).write(path, format="ascii.ecsv", overwrite=True)
        photometry_night(night)
        assert read_photometry(night).stars.meta["best"] == {"r": best}


def test_without_a_site_bjd_is_missing(tmp_path):
    """PH-13: no site: no BJD; the airmass of the header stays."""
    night = dataclasses.replace(write_night(tmp_path, FRAMES[:1]), site=None)
    photometry_night(night)
    epochs = read_photometry(night).epochs
    assert np.isnan(epochs["bjd_tdb_mid"]).all() and epochs["airmass"][0] == pytest.approx(1.3)


def test_e34_one_exposure_keeps_three_axes(tmp_path):
    """A single frame has the same shape of table as many."""
    night = write_night(tmp_path, FRAMES[:1])
    photometry_night(night)
    assert read_photometry(night).flux.shape == (24, 1, 2)


def test_catalogue_columns_carry_their_system(tmp_path):
    """The star list has the catalogue's magnitudes, one to one, with their systems."""
    sky, _ = stars_on_sky()
    rows = Table({"RA_ICRS": sky.ra.deg[:20], "DE_ICRS": sky.dec.deg[:20]})
    for band in "gri":
        rows[f"{band}mag"], rows[f"e_{band}mag"] = np.linspace(14, 18, 20), 0.01
    rows.write(tmp_path / "catalogue.ecsv", format="ascii.ecsv")
    night = write_night(tmp_path, FRAMES[:2], catalogue=tmp_path / "catalogue.ecsv")
    photometry_night(night)
    stars = read_photometry(night).stars
    index, _, _ = truth_of(night)
    assert stars["cat_g"].meta["system"] == "PS1 AB"
    assert np.ma.getmaskarray(stars["cat_g"]).sum() == 4
    known = ~np.ma.getmaskarray(stars["cat_g"])
    expected = np.linspace(14, 18, 24)[0] + np.arange(24) * 4 / 19
    assert np.allclose(np.asarray(stars["cat_g"])[known], expected[index[known]], atol=1e-6)


def test_missing_stages_say_what_to_run(tmp_path):
    """Before its time the photometry says which stage is missing."""
    night = Night(name="x", raw=tmp_path / "raw", work=tmp_path / "work")
    with pytest.raises(DataredError, match="stage solved"):
        photometry_night(night)
    with pytest.raises(DataredError, match="stage photometry"):
        read_photometry(night)
    (tmp_path / "work").mkdir()
    table = Table(rows=[("a.fits", "r", "failed")], names=("file", "filter", "status"))
    table.write(night.work / "astrometry.ecsv", format="ascii.ecsv")
    with pytest.raises(DataredError, match="none of the 1 frames"):
        photometry_night(night)


def test_frame_without_wcs_is_flagged():
    """Without world coordinates: every row NaN with its flag, no error."""
    ccd = CCDData(np.ones((50, 50), np.float32), unit="adu")
    table = forced_photometry(ccd, stars_on_sky()[0], radii=3, annulus=(6, 10))
    assert len(table) == 24 and np.isnan(table["flux"]).all()
    assert np.all(table["flags"] & photometry.NO_WCS)


def test_far_star_is_not_folded_into_the_frame():
    """A star far outside and one on the other side of the sky get no place on the frame."""
    place = SkyCoord([150.0, 150.9, 330.0, np.nan], [40.0, 40.0, -40.0, 40.0], unit="deg")
    x, y = sky_to_pixel(make_wcs(), place, shape=SHAPE)
    assert (x[0], y[0]) == (pytest.approx(99), pytest.approx(74))
    assert not -0.5 <= x[1] <= 199.5
    assert np.isnan(x[2:]).all() or not np.any((x[2:] > 0) & (x[2:] < 200))
    assert np.isnan(x[3])


def test_merge_across_zero_hours_and_near_the_pole():
    """E38: the same star on both sides of 0h, at declination 88, is one star."""
    first = Table({"ra": [359.9999, 10.0], "dec": [88.0, 88.0], "flux": [2.0, 1.0]})
    second = Table({"ra": [0.0001, 20.0], "dec": [88.0, 88.0], "flux": [4.0, 9.0]})
    first["snr"] = second["snr"] = 9.0
    merged = merge_stars({"g": first, "r": second}, radius=1.0)
    assert sorted(np.round(merged["ra"], 3) % 360) == [0.0, 10.0, 20.0]
    # The scale of the second list is halved: its star of 9 is 4.5.
    assert merged["brightness"].tolist() == [4.5, 2.0, 1.0]
    better = refine_positions(merged, [first, second], radius=3.0)
    star = np.flatnonzero(better["n_detected"] == 2)
    middle = SkyCoord(better["ra"][star], better["dec"][star], unit="deg")
    assert middle.separation(SkyCoord(0, 88, unit="deg")).arcsec[0] < 1e-3


def test_refined_positions_are_better():
    """The median over 25 frames is five times better than a single one."""
    rng = np.random.default_rng(5)
    sky, _ = stars_on_sky()
    frames = []
    for _ in range(25):
        east, north = rng.normal(0, 0.3, (2, 24)) / 3600
        ra = sky.ra.deg + east / np.cos(sky.dec.rad)
        frames.append(Table({"ra": ra, "dec": sky.dec.deg + north}))
    start = frames[0].copy()
    better = refine_positions(start, frames, radius=2.0)
    error = SkyCoord(better["ra"], better["dec"], unit="deg").separation(sky).arcsec
    # 0.3 x 1.25 / 5 on each axis: 0.106 rms of the length, known to 15 %.
    assert np.sqrt(np.mean(error**2)) < 0.106 * 1.4
    assert np.all(better["n_detected"] == 25)


def test_reference_functions_leave_their_input_alone():
    """Marking a target and adding a catalogue return copies."""
    stars = Table({"star": [0], "ra": [10.0], "dec": [5.0]})
    marked = set_target(stars, SkyCoord(10.0, 5.00001, unit="deg"), radius=1.0)
    assert stars.colnames == ["star", "ra", "dec"] and marked["target"].tolist() == [True]
    assert not set_target(stars, None, radius=1.0)["target"].any()
    catalogue = Table({"ra": [10.0], "dec": [5.0], "pm_ra": [0.0], "pm_dec": [0.0], "g": [15.0]})
    catalogue["g"].meta["system"] = "PS1 AB"
    added = add_catalogue(stars, catalogue, jd=JD, radius=1.0)
    assert added["cat_g"][0] == 15.0 and "cat_g" not in stars.colnames
    assert added["cat_separation"].unit == u.arcsec
    catalogue["id"] = MaskedColumn(["HD 1"], mask=[True])
    assert add_catalogue(stars, catalogue, jd=JD, radius=1.0)["cat_id"].tolist() == [""]


def test_star_by_number_coordinates_or_name(night, monkeypatch):
    """003-16, MV-04: a row of the table by its number, by a position, or by a name; no input."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("nobody is there to answer"))
    result = read_photometry(night)
    row = int(np.flatnonzero(result.stars["target"])[0])
    place = stars_on_sky()[0][5]
    assert identify_target(result.stars, place, limit=2)[0] == row
    assert identify_target(result.stars, parse_position(place.to_string("hmsdms")))[0] == row
    known = SkyCoord(result.stars["ra"][row], result.stars["dec"][row], unit="deg")
    monkeypatch.setattr(names, "known_object", lambda _: KnownObject("Test 1", "star", known))
    assert identify_target(result.stars, resolve_target("Test 1", online=False))[0] == row
    by_number, _ = differential_light_curve(result, star=row, filter="r")
    by_mark, _ = differential_light_curve(result, filter="r")
    assert np.array_equal(by_number["flux"], by_mark["flux"])


def test_files_and_flags_are_where_they_are_said_to_be():
    """Names that other rooms rely on."""
    assert [path.name for path in assembly.photometry_files(Path("w"))] == [
        "photometry.fits",
        "stars.ecsv",
        "epochs.ecsv",
    ]
    assert forced.photometry_files is assembly.photometry_files
    assert pixels.SATURATED == 1
