"""The photometry of a night as a batch: killed, broken, large; times, options and flags in it."""

import dataclasses
import inspect
import itertools
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.utils import iers

from datared import assembly, forced, load_night, pipeline, pixels
from datared.apertures import BAD_PIXEL, SATURATED
from datared.errors import ConfigError, DataredError
from datared.forced import forced_photometry, photometry_night, read_photometry
from datared.frames import product_name, read_product, write_product
from datared.masters import masters_night
from datared.night import Camera, PhotometryOptions, Site, make_night
from datared.photometry import aperture_photometry
from datared.reduction import reduce_night
from datared.render import star_image
from datared.times import scintillation
from tests.solvednights import (
    FRAMES,
    GAIN,
    JD,
    READ_NOISE,
    SCALE,
    make_wcs,
    stars_on_sky,
    write_night,
)

#: Results that a night must give again to the byte.
RESULTS = ("photometry.fits", "stars.ecsv", "epochs.ecsv")
SITE = Site(name="Lick", latitude=37.3414, longitude=-121.6429, height=1283.0)

#: Script that measures a night and is killed, with no chance to clean up, when three frames are
#: noted as done. (What is done is noted at once here, so that the moment does not depend on luck.)
MEASURE = """
import os, pickle, signal, sys
from concurrent.futures import ThreadPoolExecutor, wait
from datared import products
from datared.forced import photometry_night

class AtOnce(ThreadPoolExecutor):
    def submit(self, *work, **options):
        future = super().submit(*work, **options)
        wait([future])
        return future

save = products.Manifest.save

def save_and_die(manifest):
    save(manifest)
    if sum(name.startswith("photometry/") for name in manifest.products) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

products.ThreadPoolExecutor = AtOnce
products.SAVE_INTERVAL = -1.0
products.Manifest.save = save_and_die
photometry_night(pickle.load(open(sys.argv[1], "rb")))
"""


def results(night):
    """Bytes of what a night gives."""
    return [(night.work / name).read_bytes() for name in RESULTS]


def many_frames(n):
    """Frames in one filter, one each minute, drifting."""
    return [
        {"file": f"{k:02d}.fits", "filter": "r", "jd": JD + k / 1440, "shift": (0.7 * k, 0.3 * k)}
        for k in range(n)
    ]


def test_photometry_batch_goes_on_after_a_kill(tmp_path):
    """PH-12, HD-07: killed without warning in the middle of the frames, then run again: same bytes.

    It starts a process that imports the package, which takes two seconds.
    """
    import pickle

    whole = write_night(tmp_path / "whole", many_frames(8))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    killed = dataclasses.replace(whole, work=tmp_path / "killed" / "work")
    photometry_night(whole)
    (tmp_path / "night.pickle").write_bytes(pickle.dumps(killed))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "night.pickle")]
    done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(killed.work.glob("photometry/[0-9]*.fits"))) == 3
    assert not (killed.work / "photometry.fits").exists()
    table = photometry_night(killed)
    # What was there is not made again.
    assert sorted(table["status"]) == ["current"] * 3 + ["made"] * 5
    assert results(killed) == results(whole)
    assert not list(killed.work.rglob(".tmp-*"))


def test_killed_run_leaves_no_table_of_other_stars(tmp_path, monkeypatch):
    """PH-12: killed after a new star list was written: the old fluxes are not read with it."""
    night = write_night(tmp_path, FRAMES[:2])
    photometry_night(night)

    def kill(*_):
        raise KeyboardInterrupt

    # The option alone changes no star: what an earlier run measured stays whole until the end.
    other = dataclasses.replace(night.photometry, radii=(3.0,))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forced, "_measure", kill)
        photometry_night(dataclasses.replace(night, photometry=other))
    assert read_photometry(night).radii == (4.0, 6.0)
    moved = dataclasses.replace(night, target_coord=make_wcs().pixel_to_world(103.0, 74.0))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(forced, "_measure", kill)
        photometry_night(moved)
    assert len(Table.read(night.work / "stars.ecsv")) == 25
    with pytest.raises(DataredError, match="run the night up to the stage photometry"):
        read_photometry(moved)


def test_killed_run_leaves_no_table_of_other_epochs(tmp_path, monkeypatch):
    """PH-12: killed between the table of epochs and that of the fluxes: they are not read."""
    night = write_night(tmp_path, FRAMES[:2])
    photometry_night(night)
    write = assembly.atomic_path

    def kill(path):
        if path.name == "photometry.fits":
            raise KeyboardInterrupt
        return write(path)

    other = dataclasses.replace(night.photometry, radii=(3.0,))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(assembly, "atomic_path", kill)
        photometry_night(dataclasses.replace(night, photometry=other))
    assert Table.read(night.work / "epochs.ecsv")["radii"].shape == (2, 1)
    with pytest.raises(DataredError, match="run the night up to the stage photometry"):
        read_photometry(night)


def test_names_with_any_letters(tmp_path):
    """PH-12: FITS has no letters but ASCII; names of files and filters come through as they are."""
    frames = [
        {"file": f"données/étoile {k}.fits", "filter": "r", "jd": JD + k / 100} for k in range(2)
    ]
    night = write_night(tmp_path, frames)
    path = night.work / "astrometry.ecsv"
    table = Table.read(path)
    table["filter"] = ["Hα", "Hα", "r"]
    table.write(path, overwrite=True)
    assert list(photometry_night(night)["status"]) == ["made", "made"]
    epochs = read_photometry(night).epochs
    assert list(epochs["file"]) == ["données/étoile 0.fits", "données/étoile 1.fits"]
    assert list(epochs["filter"]) == ["Hα", "Hα"]


def test_solved_frames_of_an_older_version(tmp_path):
    """PH-12: a table of solved frames without their widths says what to do."""
    night = write_night(tmp_path, FRAMES[:1])
    path = night.work / "astrometry.ecsv"
    table = Table.read(path)
    table.remove_column("fwhm_arcsec")
    table.write(path, overwrite=True)
    with pytest.raises(DataredError, match=r"no column fwhm_arcsec.*run the stage solved again"):
        photometry_night(night)


def test_widths_decide_the_star_list(tmp_path):
    """PH-12: the star list is made anew where the width of a frame is another one."""
    night = write_night(tmp_path, FRAMES[:2])
    photometry_night(night)
    path = night.work / "astrometry.ecsv"
    table = Table.read(path)
    table["fwhm_arcsec"] *= 1.5
    table.write(path, overwrite=True)
    before = (night.work / "stars.ecsv").stat().st_mtime_ns
    assert list(photometry_night(night)["status"]) == ["current", "current"]  # The same stars.
    assert (night.work / "stars.ecsv").stat().st_mtime_ns > before


def test_audit_that_fails_does_not_stop_the_night(tmp_path, monkeypatch, caplog):
    """PH-12: the measurements are there; the log tells that they were not judged."""

    def refuse(_):
        raise DataredError("the photometry could not be audited: no reason")

    monkeypatch.setattr(forced, "audit_night", refuse)
    night = write_night(tmp_path, FRAMES[:1])
    assert list(photometry_night(night)["status"]) == ["made"]
    assert "could not be audited: no reason" in caplog.text
    assert len(read_photometry(night).stars) == 24


@pytest.mark.parametrize("known", ["a.fits", "b.fits"])
def test_errors_are_complete_only_with_every_gain(tmp_path, known):
    """PH-05: one frame without a gain: the table says that errors of the night are lower limits."""
    night = write_night(tmp_path, FRAMES[:2])
    night = dataclasses.replace(night, camera=Camera(read_noise=READ_NOISE))
    path = night.work / "solved" / known
    frame = read_product(path)
    frame.meta["GAIN_E"] = GAIN
    write_product(frame, path)
    photometry_night(night)
    meta = Table.read(night.work / "photometry.fits").meta
    assert meta["ERRORS"].startswith("lower limit") and "GAIN_E" not in meta


def test_frames_in_electrons_need_no_gain(tmp_path):
    """PH-05: a count of a frame in electrons is one electron, also in the table."""
    night = write_night(tmp_path, FRAMES[:1])
    night = dataclasses.replace(night, camera=Camera(read_noise=READ_NOISE))
    path = night.work / "solved" / "b.fits"
    frame = read_product(path)
    frame.unit = "electron"
    write_product(frame, path)
    photometry_night(night)
    assert read_photometry(night).gain == 1.0
    assert Table.read(night.work / "photometry.fits").meta["ERRORS"] == "complete"


def test_photometry_batch_lists_broken_frames(tmp_path, caplog):
    """000-34, PH-12: truncated, empty and missing frames are listed; the others are measured."""
    night = write_night(tmp_path, many_frames(6))
    solved, sources = night.work / "solved", night.work / "sources"
    (solved / "01.fits").write_bytes((solved / "01.fits").read_bytes()[:30000])
    (solved / "02.fits").write_bytes(b"")
    (solved / "03.fits").unlink()
    (sources / "04.ecsv").write_text("ra dec x y flux snr flags\n1 2 3\n")
    text = (sources / "05.ecsv").read_text().splitlines(keepends=True)
    text[-1] = " ".join(["nan"] * len(text[-1].split())) + "\n"
    (sources / "05.ecsv").write_text("".join(text))
    table = photometry_night(night)
    failed = table["status"] == "failed"
    assert list(table["file"][failed]) == ["01.fits", "02.fits", "03.fits"]
    assert all(table["reason"][failed]) and not any(table["reason"][~failed])
    result = read_photometry(night)
    # The frame whose list is broken has its pixels: it is measured at the stars of the others.
    assert list(result.epochs["file"]) == ["00.fits", "04.fits", "05.fits"]
    assert len(result.stars) == 24 and "04.ecsv cannot be read" in caplog.text
    # In a line, not in a page on all the formats that it is not.
    told = [record.getMessage() for record in caplog.records if "04.ecsv" in record.getMessage()]
    assert len(told) == 1 and "\n" not in told[0]


def test_same_rows_in_every_table(tmp_path):
    """001-06, 000-33, PH-01: each frame has one table, with the rows of the star list, in order."""
    night = write_night(tmp_path, FRAMES, target=stars_on_sky()[0][5])
    photometry_night(night)
    stars = read_photometry(night).stars
    assert list(stars["star"]) == list(range(len(stars)))
    for frame in FRAMES:
        table = Table.read(night.work / "photometry" / f"{product_name(frame['file'])}.fits")
        assert list(table["star"]) == list(stars["star"])
        assert table["flux"].shape == table["flags"].shape == (len(stars), 2)
        assert table.meta["RAWNAME"] == frame["file"] and table.meta["FILTER"] == frame["filter"]
        # They are the same stars: the places on the sky are those of the list.
        wcs = make_wcs(frame.get("shift", (0, 0)), frame.get("angle", 0.0))
        sky = wcs.pixel_to_world(table["x"], table["y"])
        assert sky.separation(SkyCoord(stars["ra"], stars["dec"], unit="deg")).arcsec.max() < 1e-2


def test_target_and_references_are_measured_alike(tmp_path):
    """000-27, 001-05: one call, one table, the same apertures for the target and for the others."""
    night = write_night(tmp_path, FRAMES[:2], target=stars_on_sky()[0][5])
    photometry_night(night)
    result = read_photometry(night)
    row = int(np.flatnonzero(result.stars["target"])[0])
    assert result.flux.shape == (24, 2, 2)
    # Alone it has the same flux as among the others.
    frame = read_product(night.work / "solved" / "b.fits")
    place = SkyCoord([result.stars["ra"][row]], [result.stars["dec"][row]], unit="deg")
    alone = forced_photometry(
        frame, place, radii=(4.0, 6.0), annulus=(9.0, 14.0), gain=GAIN, read_noise=READ_NOISE
    )
    np.testing.assert_allclose(alone["flux"][0], result.flux[row, 0], rtol=1e-6)
    np.testing.assert_allclose(alone["flux_err"][0], result.flux_err[row, 0], rtol=1e-6)


def test_e27_nan_coordinate_masks_its_row_only(tmp_path):
    """E27, PH-08: a star without a position is NaN and flagged; the others are as without it."""
    night = write_night(tmp_path, FRAMES[:1])
    frame = read_product(night.work / "solved" / "b.fits")
    sky = stars_on_sky()[0]
    ra, dec = sky.ra.deg.copy(), sky.dec.deg.copy()
    ra[3], dec[7] = np.nan, np.nan
    options = {"radii": (4.0,), "annulus": (9.0, 14.0), "gain": GAIN}
    table = forced_photometry(frame, SkyCoord(ra, dec, unit="deg"), **options)
    whole = forced_photometry(frame, sky, **options)
    missing = np.isin(np.arange(24), (3, 7))
    assert np.isnan(table["flux"][missing]).all() and np.all(table["flags"][missing] != 0)
    assert np.array_equal(table["flux"][~missing], whole["flux"][~missing])


def test_frames_with_few_cards_are_measured(tmp_path):
    """PH-12: what a header lacks is missing in the table of epochs, and is no reason to stop."""
    night = dataclasses.replace(write_night(tmp_path, FRAMES[:2]), site=None)
    path = night.work / "solved" / "a.fits"
    frame = read_product(path)
    for card in ("AIRMASS", "FWHM", "SKY", "SKYNOISE", "EXPTIME", "ASTRRMS", "JD_UTC_M"):
        del frame.meta[card]
    write_product(frame, path)
    assert list(photometry_night(night)["status"]) == ["made", "made"]
    epochs = read_photometry(night).epochs
    # Without a time it comes last.
    assert list(epochs["file"]) == ["b.fits", "a.fits"]
    for name in ("airmass", "fwhm", "sky", "exptime", "rms", "jd_utc_mid", "bjd_tdb_mid"):
        assert np.isnan(epochs[name][1]) and (np.isfinite(epochs[name][0]) or name[0] == "b")
    assert np.isfinite(read_photometry(night).flux[:20]).all()


#: Start of the exposure of each dialect, 2017 December 20, and the cards that say so.
DIALECTS = {
    "whole seconds": ("11:35:20", {"DATE-OBS": "2017-12-20T11:35:20"}),
    "fraction": ("11:36:20.456", {"DATE-OBS": "2017-12-20T11:36:20.456"}),
    "with Z": ("11:37:20.5", {"DATE-OBS": "2017-12-20T11:37:20.5Z"}),
    "two cards": ("11:38:20.25", {"DATE-OBS": "2017-12-20", "TIME-OBS": "11:38:20.25"}),
    "MJD": ("11:39:20", {"MJD-OBS": round(Time("2017-12-20T11:39:20").mjd, 9)}),
    "middle": ("11:40:20", {"DATE-OBS": "2017-12-20T11:40:20", "DATE-AVG": "2017-12-20T11:40:51"}),
}
EXPOSURE = 60.0


@pytest.fixture(scope="module")
def dialects(tmp_path_factory):
    """Raw frames with times in all forms, calibrated, solved by hand and measured; the night."""
    folder = tmp_path_factory.mktemp("dialects")
    (folder / "raw").mkdir()
    sky, electrons = stars_on_sky()
    wcs = make_wcs()
    x, y = wcs.world_to_pixel(sky)
    rng = np.random.default_rng(8)
    for number, (name, (_, cards)) in enumerate(DIALECTS.items()):
        data = star_image((150, 200), x, y, electrons["r"], fwhm=2.6, beta=4.5) + 300.0
        data = rng.poisson(data).astype(np.float32)
        header = fits.Header(
            {"IMAGETYP": "Light Frame", "FILTER": "r", "EXPTIME": EXPOSURE, **cards}
        )
        fits.writeto(folder / "raw" / f"{number} {name}.fits", data, header)
    night = make_night(
        folder / "raw", work=folder / "work", radius=5.0, site=SITE,
        camera=Camera(gain=GAIN, read_noise=READ_NOISE, pixel_scale=SCALE),
        target=f"{sky[5].ra.deg:.6f} {sky[5].dec.deg:.6f}",
    )  # fmt: skip
    masters_night(night)
    reduced = reduce_night(night)
    (night.work / "sources").mkdir()
    rows = []
    for row in reduced:
        stem = product_name(str(row["file"]))
        frame = read_product(night.work / "reduced" / f"{stem}.fits")
        frame.wcs = wcs
        write_product(frame, night.work / "solved" / f"{stem}.fits", header_cards={"FWHM": 2.6})
        table = Table({"ra": sky.ra.deg, "dec": sky.dec.deg, "x": x, "y": y})
        table["flux"], table["snr"], table["flags"] = electrons["r"], 50.0, 0
        table.write(night.work / "sources" / f"{stem}.ecsv", format="ascii.ecsv")
        rows.append((str(row["file"]), "r", "made", "", 2.6 * SCALE))
    names = ("file", "filter", "status", "reason", "fwhm_arcsec")
    table = Table(rows=rows, names=names)
    table.write(night.work / "astrometry.ecsv", format="ascii.ecsv")
    assert list(photometry_night(night)["status"]) == ["made"] * len(DIALECTS)
    return night


def test_bjd_of_every_header_dialect(dialects):
    """PH-13, 003-17: middle in UTC and BJD_TDB within 0.05 s, from the header to the epochs.

    The reference is astropy's own sum of its clock and its light travel time, one frame at a time.
    """
    epochs = read_photometry(dialects).epochs
    assert [str(file)[2:-5] for file in epochs["file"]] == list(DIALECTS)
    # By name, in no order of positions.
    location = EarthLocation.from_geodetic(
        height=1283.0 * u.m, lat=37.3414 * u.deg, lon=-121.6429 * u.deg
    )
    star = stars_on_sky()[0][5]
    with iers.conf.set_temp("auto_download", False):
        for row, (name, (clock, _)) in zip(epochs, DIALECTS.items(), strict=True):
            middle = Time(f"2017-12-20T{clock}", scale="utc", location=location)
            middle += (EXPOSURE / 2 + (1.0 if name == "middle" else 0.0)) * u.s
            travel = middle.light_travel_time(star, kind="barycentric")
            expected = Time(middle.tdb + travel, format="jd")
            assert abs(Time(row["jd_utc_mid"], format="jd", scale="utc") - middle) < 0.05 * u.s
            late = row["bjd_tdb_mid"] - expected.jd1 - expected.jd2
            assert abs(late) * 86400 < 0.05, name
            height = star.transform_to(AltAz(obstime=middle, location=location)).alt.rad
            # Kasten & Young and the secant differ by less than a percent above 15 degrees.
            assert row["airmass"] == pytest.approx(1 / np.sin(height), rel=0.01)
    assert np.all(epochs["exptime"] == EXPOSURE)


def test_bjd_without_a_site_is_masked_and_the_rest_is_there(dialects, tmp_path):
    """PH-13: no site, no BJD: NaN, and no wrong number; the middle in UTC stays."""
    work = tmp_path / "work"
    shutil.copytree(dialects.work, work)
    night = dataclasses.replace(dialects, work=work, site=None)
    photometry_night(night)
    epochs = read_photometry(night).epochs
    assert np.isnan(epochs["bjd_tdb_mid"]).all() and np.isfinite(epochs["jd_utc_mid"]).all()
    assert np.isnan(epochs["airmass"]).all()
    np.testing.assert_array_equal(
        epochs["jd_utc_mid"], read_photometry(dialects).epochs["jd_utc_mid"]
    )


def test_site_order_is_by_name(tmp_path):
    """003-17: latitude, longitude and height go by name, in any order, and by nothing else."""
    (tmp_path / "raw").mkdir()
    lines = {"latitude": 37.3414, "longitude": -121.6429, "height": 1283.0, "name": '"Lick"'}
    for order in itertools.islice(itertools.permutations(lines), 0, 24, 5):
        site = "\n".join(f"{key} = {lines[key]}" for key in order)
        (tmp_path / "night.toml").write_text(f'raw = "raw"\nwork = "work"\n[site]\n{site}\n')
        location = load_night(tmp_path).site.location
        assert location.lat.deg == pytest.approx(37.3414)
        assert location.lon.deg == pytest.approx(-121.6429)
        assert location.height.to_value("m") == pytest.approx(1283.0, abs=1e-3)
    with pytest.raises(TypeError, match="positional"):
        Site("Lick", 37.3414, -121.6429, 1283.0)
    # Exchanged, the latitude is off the globe: it is refused.
    (tmp_path / "night.toml").write_text(
        'raw = "raw"\nwork = "work"\n[site]\nlatitude = -121.6429\nlongitude = 37.3414\n'
    )
    with pytest.raises(ConfigError, match=r"site\.latitude .*between -90 and 90"):
        load_night(tmp_path)


def numbers_of(text):
    """Numbers in a text."""
    return tuple(float(number) for number in re.findall(r"\d+(?:\.\d+)?", text))


def test_default_radii_are_what_is_documented_and_what_is_measured(tmp_path):
    """003-18: the documented radii are those that a night without options is measured in."""
    options = PhotometryOptions()
    text = " ".join(inspect.getdoc(PhotometryOptions).split())
    radii = re.search(r"By default ([\d., and]+) times the FWHM of the frame", text).group(1)
    annulus = re.search(r"By default ([\d., and]+) times the FWHM\.", text).group(1)
    assert numbers_of(radii) == options.radii == (1.0, 1.5, 2.0, 2.5, 3.0)
    assert numbers_of(annulus) == options.annulus and options.radius_unit == "fwhm"
    night = write_night(tmp_path, FRAMES[:2])
    night = dataclasses.replace(night, photometry=options)
    photometry_night(night)
    result = read_photometry(night)
    assert result.radii == options.radii and result.radius_unit == "fwhm"
    for row, frame in zip(result.epochs, FRAMES, strict=False):
        np.testing.assert_allclose(row["radii"], np.array(radii_px(frame, options)), rtol=1e-6)
    meta = Table.read(night.work / "photometry.fits").meta
    assert (meta["ANNULUS0"], meta["ANNULUS1"]) == options.annulus
    assert [meta[f"RADIUS{k}"] for k in range(5)] == list(options.radii)
    # The first circle holds what a circle of one FWHM holds.
    one = read_product(night.work / "solved" / "b.fits")
    direct = forced_photometry(
        one, SkyCoord(result.stars["ra"], result.stars["dec"], unit="deg"),
        radii=2.6, annulus=(4 * 2.6, 6 * 2.6), gain=GAIN, read_noise=READ_NOISE, fwhm=2.6,
    )  # fmt: skip
    np.testing.assert_allclose(direct["flux"][:, 0], result.flux[:, 0, 0], rtol=1e-6)


def radii_px(frame, options):
    """Radii in pixels of a frame of `FRAMES`."""
    return [radius * frame.get("fwhm", 2.6) for radius in options.radii]


def seeing_night(folder, **options):
    """Four frames in two filters with different seeing."""
    frames = [
        {"file": f"{k}.fits", "filter": "gr"[k % 2], "jd": JD + k / 100, "fwhm": fwhm}
        for k, fwhm in enumerate((2.4, 2.6, 3.6, 3.0))
    ]
    night = write_night(folder, frames, **options)
    photometry_night(night)
    return read_photometry(night)


def test_radius_units_with_changing_seeing(tmp_path):
    """PH-04: with different seeing each unit gives its circles, and the table says which."""
    expected = {
        "px": [5.0] * 4,
        "arcsec": [5.0 / SCALE] * 4,
        "fwhm": [5 * 2.4, 5 * 2.6, 5 * 3.6, 5 * 3.0],
        # The medians of (2.4, 3.6) and of (2.6, 3.0): one radius for each filter.
        "night-fwhm": [5 * 3.0, 5 * 2.8, 5 * 3.0, 5 * 2.8],
    }
    for unit, widths in expected.items():
        result = seeing_night(
            tmp_path / unit, radii=(1.0, 5.0), radius_unit=unit, annulus=(6.0, 8.0)
        )
        assert result.radius_unit == unit and result.radii == (1.0, 5.0)
        np.testing.assert_allclose(result.epochs["radii"][:, 1], widths, rtol=1e-6)
        meta = Table.read(tmp_path / unit / "work" / "photometry.fits").meta
        assert meta["RADUNIT"] == unit and meta["ANNULUS1"] == 8.0


def test_radius_that_is_not_there_is_told_of(tmp_path, caplog):
    """PH-04: a default radius beyond the list is left out, and the log says so."""
    result = measured(tmp_path, default_radius=2)
    assert result.default_radius in (0, 1)
    assert "photometry.default_radius = 2 is left out: there are 2 radii" in caplog.text


def test_night_fwhm_needs_a_width(tmp_path):
    """PH-04: a night without any width has no radii in widths; each frame says so."""
    night = write_night(tmp_path, FRAMES[:1], radius_unit="night-fwhm")
    path = night.work / "astrometry.ecsv"
    table = Table.read(path)
    table["fwhm_arcsec"] = np.nan
    table.write(path, overwrite=True)
    with pytest.raises(Exception, match="no FWHM is known, so radii in night-fwhm"):
        photometry_night(night)


def measured(folder, **options):
    """A night of one frame measured with some options."""
    night = write_night(folder, FRAMES[:1], **options)
    photometry_night(night)
    return read_photometry(night)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The night of one frame, measured without options."""
    return measured(tmp_path_factory.mktemp("plain"))


def test_background_option_has_its_effect(tmp_path, plain):
    """PH-01: each way to the sky is another table that says so; all agree within their errors."""
    results = {}
    for name in ("annulus-mean", "map", "frame", "none"):
        results[name] = measured(tmp_path / name, background=name)
        meta = Table.read(tmp_path / name / "work" / "photometry.fits").meta
        assert meta["BACKGR"] == name
    first = plain
    for name in ("annulus-mean", "map", "frame"):
        other = results[name]
        assert not np.array_equal(first.flux, other.flux)
        pull = (first.flux - other.flux) / first.flux_err
        assert np.nanmedian(np.abs(pull)) < 1
    # Without a sky the sky is in the flux: 100 counts per pixel of 113.
    extra = results["none"].flux[:, 0, 1] - first.flux[:, 0, 1]
    assert np.nanmedian(extra) == pytest.approx(100 * np.pi * 36, rel=0.02)


def test_recentre_option_has_its_effect(tmp_path, plain):
    """PH-01: apertures follow their stars only when asked; the table has the shifts then."""
    moved = measured(tmp_path, recentre=2.0)
    table = Table.read(tmp_path / "work" / "photometry.fits")
    assert table["shift"].shape == (24, 1) and table.meta["RECENTRE"] == 2.0
    assert not np.array_equal(plain.x, moved.x)
    # The star list has the error of a centroid, a tenth of a pixel.
    assert 0 < np.nanmedian(table["shift"]) < 0.5
    # Without the option there is no such column.
    result = seeing_night(tmp_path / "still", radii=(4.0,))
    table = Table.read(tmp_path / "still" / "work" / "photometry.fits")
    assert "shift" not in table.colnames and "RECENTRE" not in table.meta and len(result.stars)


def spoiled(folder, *, bits, number=4, **options):
    """A night of one frame with a flagged pixel beside the middle of one star; its row."""
    sky = stars_on_sky()[0]
    night = write_night(folder, FRAMES[:1], target=sky[number], **options)
    path = night.work / "solved" / "b.fits"
    frame = read_product(path)
    x, y = (round(float(value)) for value in make_wcs().world_to_pixel(sky[number]))
    frame.flags[y + 1, x + 1] |= bits
    frame.data[y + 1, x + 1] = 30000.0
    write_product(frame, path)
    photometry_night(night)
    result = read_photometry(night)
    return result, int(np.flatnonzero(result.stars["target"])[0])


def test_bad_pixels_option_has_its_effect(tmp_path, caplog, plain):
    """PH-06, PX flags: a hot pixel costs the flux, or is filled; flagged in both, and told of."""
    lost, row = spoiled(tmp_path / "nan", bits=pixels.HOT, bad_pixels="nan")
    assert np.isnan(lost.flux[row]).all() and np.all(lost.flags[row] & BAD_PIXEL)
    assert 'photometry.bad_pixels = "fill"' in caplog.text and "1 of 1 frames" in caplog.text
    caplog.clear()
    filled, row = spoiled(tmp_path / "fill", bits=pixels.HOT, bad_pixels="fill")
    assert np.all(filled.flags[row] & BAD_PIXEL) and "bad pixels" not in caplog.text
    # The other side of the star stands in: a few percent of it, where the pixel was three times it.
    np.testing.assert_allclose(filled.flux[row], plain.flux[row], rtol=0.05)
    assert Table.read(tmp_path / "fill" / "work" / "photometry.fits").meta["BADPIX"] == "fill"


@pytest.mark.parametrize(
    ("way", "advice"),
    [
        ("nan", 'photometry.bad_pixels = "fill"'),
        ("fill", "so are the pixels opposite to them"),
    ],
)
def test_many_measurements_lost_to_bad_pixels_are_told_of(tmp_path, caplog, way, advice):
    """PH-06: where more than a fifth of all fluxes is lost the log says what to do."""
    night = write_night(tmp_path, FRAMES[:1], bad_pixels=way)
    path = night.work / "solved" / "b.fits"
    frame = read_product(path)
    x, y = make_wcs().world_to_pixel(stars_on_sky()[0])
    for k in range(6):
        row, column = round(float(y[k])), round(float(x[k]))
        frame.flags[row - 2 : row + 3, column - 2 : column + 3] |= pixels.HOT
    write_product(frame, path)
    photometry_night(night)
    assert "25 % of all fluxes are lost to bad pixels" in caplog.text and advice in caplog.text


def test_target_cut_by_the_edge_is_not_lost_to_bad_pixels(tmp_path, caplog):
    """PH-06: what the edge of the frame took is not blamed on a bad pixel beside it."""
    night = write_night(tmp_path, FRAMES[:1], target=make_wcs().pixel_to_world(1.0, 74.0))
    path = night.work / "solved" / "b.fits"
    frame = read_product(path)
    frame.flags[74, 0:3] |= pixels.HOT
    write_product(frame, path)
    photometry_night(night)
    assert "is on no frame" in caplog.text and "bad pixels" not in caplog.text


def test_saturated_target_is_told_of(tmp_path, caplog):
    """PH-09: a saturated target is measured and flagged, and the log says so."""
    result, row = spoiled(tmp_path, bits=pixels.SATURATED)
    assert np.isfinite(result.flux[row]).all() and np.all(result.flags[row] & SATURATED)
    assert "is saturated on 1 of 1 frames" in caplog.text and "lower limit" in caplog.text


def test_scintillation_option_has_its_effect(tmp_path, plain):
    """PH-13: with diameter and site the errors hold the scintillation of the air, in quadrature."""
    night = write_night(tmp_path / "air", FRAMES[:1], scintillation=True)
    camera = dataclasses.replace(night.camera, diameter=20.0)
    night = dataclasses.replace(night, camera=camera)
    photometry_night(night)
    air = read_photometry(night)
    relative = scintillation(
        60.0, diameter=20.0, airmass=air.epochs["airmass"][0], height=night.site.height
    )
    expected = np.hypot(plain.flux_err, relative * plain.flux)
    np.testing.assert_allclose(air.flux_err, expected, rtol=1e-4)
    assert np.nanmax(air.flux_err / plain.flux_err) > 1.2
    assert np.array_equal(air.flux, plain.flux, equal_nan=True)


def test_scintillation_is_refused_without_diameter_or_site(tmp_path):
    """PH-13: what is missing is named, with what to do."""
    (tmp_path / "raw").mkdir()
    wanted = {"photometry": {"scintillation": True}}
    with pytest.raises(ConfigError) as error:
        make_night(tmp_path / "raw", work=tmp_path / "work", settings=wanted)
    assert len(error.value.problems) == 2
    assert "[camera] has no diameter" in str(error.value) and "table [site]" in str(error.value)
    camera = Camera(diameter=20.0)
    night = make_night(
        tmp_path / "raw", work=tmp_path / "work", settings=wanted, camera=camera, site=SITE
    )
    assert night.photometry.scintillation and night.camera.diameter == 20.0


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("background", "maps", "must be one of annulus-median, annulus-mean, map, frame, profile"),
        ("bad_pixels", "mask", "must be one of nan, fill"),
        ("recentre", 0.0, r"must be between 0.001 and 1000 \(px\)"),
        ("scintillation", "yes", "must be true or false"),
        ("radius_unit", "night", "must be one of px, arcsec, fwhm, night-fwhm"),
        ("recenter", 1.0, "did you mean recentre"),
    ],
)
def test_options_say_what_is_valid(tmp_path, option, value, told):
    """PH-01: a wrong value of a new option is refused with what it may be."""
    (tmp_path / "raw").mkdir()
    with pytest.raises(ConfigError, match=told):
        make_night(
            tmp_path / "raw", work=tmp_path / "work", settings={"photometry": {option: value}}
        )


def test_bad_pixels_are_treated_alike_by_default():
    """PH-06: the options of a night, of a frame and of sky positions have the same default."""
    of_calls = {
        inspect.signature(call).parameters["bad_pixels"].default
        for call in (aperture_photometry, forced_photometry)
    }
    assert of_calls == {PhotometryOptions().bad_pixels} == {"fill"}


def test_epochs_have_the_curve_of_growth(tmp_path):
    """PH-01: each epoch has the share of light in each radius, that of its profile."""
    result = seeing_night(tmp_path, radii=(1.5, 3.0, 6.0), annulus=(9.0, 14.0))
    growth = np.asarray(result.epochs["growth"])
    assert growth.shape == (4, 3) and np.all(growth[:, 2] == 1)
    for row, fwhm in zip(growth, (2.4, 2.6, 3.6, 3.0), strict=True):
        alone = star_image((61, 61), [30.2], [30.4], [1.0], fwhm=fwhm, beta=4.5)
        light = forced_light(alone, (1.5, 3.0, 6.0))
        # Two dozen stars of S/N 100 with centroids of a tenth of a pixel.
        np.testing.assert_allclose(row[:2], light[:2] / light[2], atol=0.02)
    assert growth[0, 0] > growth[3, 0] > growth[2, 0]


def forced_light(image, radii):
    """Light of a single star in some radii, by counting pixels of a fine grid."""
    fine = np.repeat(np.repeat(image, 20, axis=0), 20, axis=1) / 400
    y, x = np.indices(fine.shape) / 20 - 0.475
    return np.array([fine[np.hypot(x - 30.2, y - 30.4) <= radius].sum() for radius in radii])


def test_memory_of_a_large_night(tmp_path):
    """PH-12: 200 frames, 5000 stars and 6 radii are put together in less than 2 GB; it reads well.

    The process is another one, as the largest memory of this one is that of all tests before it.
    The table of one frame stands for all of them: what counts is that each is read.
    """
    n_frames, n_stars = 200, 5000
    rng = np.random.default_rng(2)
    flux = 10 ** rng.uniform(2, 5, (n_stars, 1)) * np.linspace(0.7, 1.0, 6)
    columns = {
        "star": np.arange(n_stars, dtype=np.int32),
        **{name: rng.uniform(0, 2000, n_stars).astype(np.float32) for name in ("x", "y")},
        "flux": flux.astype(np.float32),
        "flux_err": np.sqrt(flux).astype(np.float32),
        "flags": np.zeros((n_stars, 6), np.int16),
        **{name: np.ones(n_stars, np.float32) for name in ("sky", "sky_err", "sky_std", "n_sky")},
    }
    radii = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
    setup = {
        "radii": radii, "unit": "px", "annulus": (6.0, 9.0), "background": "annulus-median",
        "bad_pixels": "fill", "recentre": None, "default_radius": None,
    }  # fmt: skip
    table = Table(columns)
    table.meta = assembly.setup_cards(setup) | {
        "JD_UTC_M": JD + 0.123456789, "FWHM": 3.0, "SCALE": 1.2, "FACTOR": 1.0, "ANGLE": 0.0,
        "GAIN_E": 1.5, "ERRORS": "complete", "EXPTIME": 60.0,
    }  # fmt: skip
    table.write(tmp_path / "frame.fits")
    stars = Table({"star": columns["star"], "ra": rng.uniform(10, 11, n_stars)})
    stars["dec"], stars["target"] = rng.uniform(20, 21, n_stars), False
    stars.write(tmp_path / "stars.ecsv")
    code = f"""
import resource, pathlib
from datared.assembly import assemble, read_photometry
folder = pathlib.Path({str(tmp_path)!r})
frames = [(folder / "frame.fits", f"{{k:03d}}.fits", "r") for k in range({n_frames})]
assemble(frames, folder / "stars.ecsv", {setup!r}, None,
         folder / "photometry.fits", folder / "epochs.ecsv")
read_photometry(folder)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    megabytes = int(done.stdout) / 1024
    assert 200 < megabytes < 2000
    result = Table.read(tmp_path / "photometry.fits")
    assert result["flux"].shape == (n_stars, n_frames, 6)
    assert np.all(result["flux"] == columns["flux"][:, None])
    epochs = Table.read(tmp_path / "epochs.ecsv")
    assert list(epochs["file"][[0, 199]]) == ["000.fits", "199.fits"]
    assert epochs["growth"].shape == (200, 6)


@pytest.fixture(scope="module")
def small(once):
    """Return a transit night of six frames, reduced from its raw frames up to the photometry."""

    def make(folder):
        from datared.simulate import simulate_transit

        simulate_transit(folder, seed=3, n_light=6)

    def reduce(folder):
        shutil.copytree(once("small-transit", make), folder / "night")
        pipeline.run(load_night(folder / "night"), upto="photometry")

    return load_night(once("small-transit-reduced", reduce) / "night" / "night.toml")


def test_e30_saturated_star_flagged_from_raw_frames(small):
    """E30, PH-09: a star that saturates the raw frames is flagged in the table of the night."""
    result = read_photometry(small)
    truth = Table.read(small.truth / "stars.ecsv")
    found = SkyCoord(result.stars["ra"], result.stars["dec"], unit="deg")
    bright = truth[truth["kind"] == "saturated"]
    place = SkyCoord(bright["ra"], bright["dec"], unit="deg")
    row, separation, _ = place.match_to_catalog_sky(found)
    assert np.all(separation.arcsec < 2)
    assert np.all(result.flags[row] & SATURATED) and np.isfinite(result.flux[row]).all()
    # Half as bright as the limit is not saturated; nor is what is far from it.
    far = np.all(found[:, None].separation(place[None, :]).arcsec > 60, axis=1)
    faint = far & (np.arange(len(found)) > 10)
    assert not np.any(result.flags[faint] & SATURATED)


def test_noise_of_the_flat_reaches_the_errors(small):
    """PH-01: the master flat says how noisy it is, and so does each frame, down to its table."""
    master = read_product(small.work / "masters" / "flat_r.fits")
    noise = master.meta["FLATNOIS"]
    # What the uncertainty plane says; eight flats of some 20000 electrons: a third of a percent.
    good = master.flags == 0
    assert noise == pytest.approx(np.mean(master.uncertainty.array[good]), rel=0.02)
    assert 0.001 < noise < 0.006
    for folder in ("reduced", "solved"):
        for path in (small.work / folder).glob("*.fits"):
            assert fits.getheader(path)["FLATNOIS"] == noise
    path = sorted((small.work / "photometry").glob("*.fits"))[0]
    assert Table.read(path).meta["FLATNOIS"] == pytest.approx(noise)


def test_noise_of_the_flat_is_in_the_errors(tmp_path, plain):
    """PH-01: the card of a noisy flat makes the errors of bright stars larger."""
    night = write_night(tmp_path / "flat", FRAMES[:1])
    path = night.work / "solved" / "b.fits"
    frame = read_product(path)
    frame.meta["FLATNOIS"] = 0.05
    write_product(frame, path)
    photometry_night(night)
    flat = read_photometry(night)
    growth = flat.flux_err / plain.flux_err
    assert np.all(growth[:3, 0] > 1.5) and np.all(growth > 1)
    assert growth[0, 0, 0] > growth[-1, 0, 0]
