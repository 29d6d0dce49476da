"""Exports: what is written reads back, is physics, and is refused where it cannot be valid."""

import csv
import dataclasses
import re
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.table import Table
from astropy.time import Time
from astropy.utils import iers
from typer.testing import CliRunner

from datared import __version__, exports
from datared.aavsofile import AAVSO_FILTERS
from datared.adesfile import fit_motion
from datared.cli import app
from datared.errors import ConfigError, DataredError
from datared.exportchecks import check_times, safe_name
from datared.lightcurve import CLOUDY
from datared.night import Camera, Night, Site
from datared.nightfile import write_night
from datared.photometry import SATURATED
from datared.times import airmass, altitude, bjd_tdb

SITE = Site(name="Lick", latitude=37.3414, longitude=-121.6429, height=1283.0)
STAR = SkyCoord(31.04276, 46.68785, unit="deg")
PLACE = {"position": STAR, "location": SITE.location}
EXPOSURE = 60.0
ADES = {
    "station": "J95", "observers": ["J. Smith", "A. B. Jones"], "design": "Reflector",
    "aperture": 0.35, "detector": "CMO", "catalogue": "Gaia2",
}  # fmt: skip


def light_curve(n=40, *, filter="r"):
    """A night of a star, with a dip: times and air of a real place, one cloud, one lost epoch."""
    rng = np.random.default_rng(11)
    jd = 2458107.6 + np.linspace(0, 0.3, n)
    flux = 1 + rng.normal(0, 0.004, n) - 0.02 * (np.abs(np.arange(n) - n / 2) < n / 6)
    curve = Table({"epoch": np.arange(n), "filter": [filter] * n, "exptime": [EXPOSURE] * n})
    curve["bjd_tdb_mid"] = bjd_tdb(jd, STAR, location=SITE.location)
    curve["jd_utc_mid"] = jd
    curve["airmass"] = airmass(altitude(jd, STAR, location=SITE.location))
    curve["flux"], curve["flux_err"] = flux, np.full(n, 0.004)
    curve["delta_mag"], curve["delta_mag_err"] = -2.5 * np.log10(flux), 1.0857 * 0.004 / flux
    curve["flags"] = np.zeros(n, int)
    curve["flags"][3], curve["flags"][5] = CLOUDY, SATURATED
    for name in ("flux", "flux_err", "delta_mag", "delta_mag_err"):
        curve[name][7] = np.nan
    curve.meta = {"star": 0, "filter": filter, "comparison": [1, 2, 3]}
    return curve


def aavso(curve, path, **options):
    """Write the format with what it needs, but for what a test says."""
    given = {"observer": "XYZ", "star": "HAT-P-32", **PLACE} | options
    return exports.write_aavso(curve, path, **given)


# --- plain tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "ecsv"])
def test_export_table_reads_back_equal(tmp_path, ending):
    """LC-11: CSV and ECSV hold BJD_TDB, magnitude, error, airmass and flags to the last digit."""
    curve = light_curve()
    path = exports.write_table(curve, tmp_path / f"night.{ending}", **PLACE)
    table = exports.read_table(path)
    pairs = {"bjd_tdb": "bjd_tdb_mid", "jd_utc": "jd_utc_mid", "mag": "delta_mag"}
    pairs |= {"mag_err": "delta_mag_err"} | {n: n for n in ("flux", "flux_err", "airmass", "flags")}
    for name, column in pairs.items():
        np.testing.assert_array_equal(np.asarray(table[name]), np.asarray(curve[column]), name)
    assert list(table["flag_names"][[0, 3, 5]]) == ["", "clouds", "saturated"]
    assert set(table["filter"]) == {"r"}
    found = exports.check_table(path, **PLACE)
    assert found["rows"] == 40 and found["airmass"] < 1e-9 and found["bjd_tdb"] < 1e-3
    if ending == "csv":
        # A spreadsheet must see an empty cell, not the word nan.
        assert "nan" not in path.read_text().lower()
    with pytest.raises(ConfigError, match=r"ends in \.csv or \.ecsv"):
        exports.write_table(curve, tmp_path / "night.dat")
    with pytest.raises(ConfigError, match="cannot be read"):
        exports.read_table(tmp_path / "none.csv")


def test_export_without_a_site_has_empty_bjd(tmp_path):
    """PH-13, LC-11: where BJD and airmass are not known, their cells are empty."""
    curve = light_curve()
    curve["bjd_tdb_mid"] = curve["airmass"] = np.nan
    table = exports.read_table(exports.write_table(curve, tmp_path / "a.csv"))
    assert np.isnan(table["bjd_tdb"]).all() and np.isnan(table["airmass"]).all()
    assert np.isfinite(table["jd_utc"]).all()
    report = exports.read_aavso(aavso(curve, tmp_path / "a.txt", location=None))
    assert np.isnan(report["airmass"]).all()
    assert ",na,na,na,na\n" in (tmp_path / "a.txt").read_text()


def masked(curve):
    """Give the light curve with one masked epoch in each column of numbers, and of words."""
    table = Table(curve, masked=True, copy=True)
    for row, name in enumerate(("flux", "flags", "airmass", "bjd_tdb_mid", "filter"), 10):
        table[name].mask[row] = True
    return table


def test_export_of_masked_epochs(tmp_path):
    """LC-11: what is masked is not known: an empty cell, and no number that was below the mask."""
    curve = masked(light_curve())
    for ending in ("csv", "ecsv"):
        table = exports.read_table(exports.write_table(curve, tmp_path / f"a.{ending}", **PLACE))
        assert np.isnan([table["flux"][10], table["airmass"][12], table["bjd_tdb"][13]]).all()
        assert (table["flags"][11], table["filter"][14], table["filter"][0]) == (0, "", "r")
    report = exports.read_aavso(aavso(curve, tmp_path / "a.txt"))
    # Without a flux: the saturated one, the lost one, and the masked one.
    assert len(report) == 37 and np.isnan(report["airmass"]).sum() == 1
    assert set(report["filter"]) == {"SR"}
    numbers, _ = exports.write_exoclock(curve, tmp_path / "b.txt", planet="b", **PLACE)
    assert len(exports.read_exoclock(numbers)) == 37


@pytest.mark.parametrize("name", ["", "1", 'a, "b"', "α"])
def test_export_table_keeps_any_filter(tmp_path, name):
    """LC-11: a filter without a name, or with a comma, quotes or Greek letters, reads back."""
    curve = light_curve(filter=name)
    for ending in ("csv", "ecsv"):
        table = exports.read_table(exports.write_table(curve, tmp_path / f"a.{ending}", **PLACE))
        assert set(table["filter"]) == {name}


def test_export_refuses_two_filters(tmp_path):
    """LC-11, 003-17: a report has one filter; that of the first epoch is not given to all."""
    curve = light_curve()
    curve["filter"][::2] = "g"
    for write in (aavso, lambda *given: exports.write_exoclock(*given, planet="b")):
        with pytest.raises(ConfigError, match="filters are g, r: export each by itself"):
            write(curve, tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


def test_export_where_nothing_can_be_written(tmp_path):
    """LC-11, HD-07: a folder that is a file: told with the file that was asked for, all formats."""
    (tmp_path / "file").write_text("x")
    place = tmp_path / "file" / "a"
    for write in (
        lambda: exports.write_table(light_curve(), place.with_suffix(".csv")),
        lambda: aavso(light_curve(), place.with_suffix(".txt")),
        lambda: exports.write_exoclock(light_curve(), place.with_suffix(".txt"), planet="b"),
        lambda: exports.write_ades(moving()[0], place.with_suffix(".psv"), **ADES),
    ):
        with pytest.raises(DataredError, match=r"file/a\.\w+ cannot be written"):
            write()
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataredError, match=r"a\.csv cannot be written"):
        exports.write_table(light_curve(), tmp_path / "a.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "a.csv"}


def test_export_stopped_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    """HD-07, LC-11: stopped after the numbers and before the check: both old files are there."""
    paths = exports.write_exoclock(light_curve(), tmp_path / "a.txt", planet="b", **PLACE)
    before = [path.read_bytes() for path in paths]

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("datared.exoclockfile.check_exoclock", stop)
    with pytest.raises(KeyboardInterrupt):
        exports.write_exoclock(light_curve(30), tmp_path / "a.txt", planet="c", **PLACE)
    assert [path.read_bytes() for path in paths] == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.dat", "x", "ends in .csv or .ecsv"),
        ("a.csv", "", "columns bjd_tdb, jd_utc.* are missing"),
        ("a.csv", "words", "airmass has what is no number"),
        ("a.ecsv", "# %ECSV 1.0\n# ---\n# datatype: [\n", "cannot be read"),
    ],
)
def test_read_table_of_something_else(tmp_path, name, text, said):
    """LC-11: a damaged table is refused with the reason, never with an error of a library."""
    path = tmp_path / name
    if text == "words":
        text = exports.write_table(light_curve(), tmp_path / "b.csv").read_text()
        cell = text.splitlines()[1].split(",")[6]
        text = text.replace(cell, "high")
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        exports.read_table(path)


# --- physics -------------------------------------------------------------------------------------

SHIFTS = {
    "HJD": lambda jd, bjd: bjd - 69.2 / 86400,
    "clock of UTC": lambda jd, bjd: bjd - 32.2 / 86400,
    "local time": lambda jd, bjd: bjd - 8 / 24,
    "JD": lambda jd, bjd: jd,
    "sign of light travel": lambda jd, bjd: 2 * jd + 2 * 69.2 / 86400 - bjd,
}


@pytest.mark.parametrize("fault", SHIFTS)
def test_export_bjd_is_checked_against_place_and_site(tmp_path, fault):
    """PH-13, LC-11: a BJD_TDB that is something else is refused, and no file is written."""
    curve = light_curve()
    curve["bjd_tdb_mid"] = SHIFTS[fault](curve["jd_utc_mid"], curve["bjd_tdb_mid"])
    with pytest.raises(DataredError, match="BJD_TDB"):
        exports.write_table(curve, tmp_path / "a.csv", **PLACE)
    with pytest.raises(DataredError, match="BJD_TDB"):
        exports.write_exoclock(curve, tmp_path / "a.txt", planet="HAT-P-32b", **PLACE)
    assert not list(tmp_path.iterdir())


def test_export_bjd_within_light_travel_without_a_site():
    """PH-13: hours between BJD and JD are refused though nobody knows the place."""
    curve = light_curve()
    check_times(curve["jd_utc_mid"], bjd=curve["bjd_tdb_mid"])
    with pytest.raises(DataredError, match="light and clocks"):
        check_times(curve["jd_utc_mid"], bjd=curve["bjd_tdb_mid"] + 0.01)


def test_export_airmass_is_recomputed(tmp_path):
    """LC-11: the airmass of the file is that of astropy for the place, the time and the site."""
    path = aavso(light_curve(), tmp_path / "a.txt")
    table = exports.read_aavso(path)
    with iers.conf.set_temp("auto_download", False):
        frame = AltAz(obstime=Time(table["date"], format="jd"), location=SITE.location)
        secant = STAR.transform_to(frame).secz.value
    # The secant and the formula of Kasten & Young differ by less than a percent up to airmass 4.
    assert np.max(np.abs(table["airmass"] / secant - 1)) < 0.01
    found = exports.check_aavso(path, **PLACE)
    # Half of the fourth decimal.
    assert found["airmass"] < 0.5e-4 and found["rows"] == 38


WRONG_PLACES = {
    "longitude west as east": EarthLocation.from_geodetic(121.6429, 37.3414, 1283),
    "south": EarthLocation.from_geodetic(-121.6429, -37.3414, 1283),
    "two degrees off": EarthLocation.from_geodetic(-118.6429, 37.3414, 1283),
}


@pytest.mark.parametrize("fault", [*WRONG_PLACES, "an hour late", "another star"])
def test_export_airmass_of_another_place_is_refused(tmp_path, fault):
    """LC-11, 003-17: site, time or star that do not fit the airmass; the old file stays."""
    path = tmp_path / "a.txt"
    path.write_text("what was there")
    curve, place = light_curve(), dict(PLACE)
    if fault in WRONG_PLACES:
        place["location"] = WRONG_PLACES[fault]
    elif fault == "an hour late":
        curve["jd_utc_mid"] += 1 / 24
    else:
        place["position"] = STAR.directional_offset_by(180 * u.deg, 5 * u.deg)
    with pytest.raises(DataredError, match="airmass differs"):
        aavso(curve, path, **place)
    assert path.read_text() == "what was there" and len(list(tmp_path.iterdir())) == 1


def test_export_refuses_impossible_times():
    """PH-13: not Julian dates, twice the same, or an airmass below 1."""
    for times in ([], [58107.1, 58107.2], [np.nan], [2458107.6, np.nan]):
        with pytest.raises(DataredError, match="Julian"):
            check_times(times)
    with pytest.raises(DataredError, match=r"row 1 has 2458107\.6.* exclude its copy"):
        check_times([2458107.6, 2458107.6])
    with pytest.raises(DataredError, match="airmass of 0"):
        check_times([2458107.6, 2458107.7], airmasses=[1.1, 0.9])


# --- AAVSO ---------------------------------------------------------------------------------------


def test_export_aavso_reads_back(tmp_path):
    """LC-11: header lines, 15 fields, 'na' for what is missing; numbers as in the light curve."""
    curve = light_curve()
    path = aavso(curve, tmp_path / "a.txt", magnitude=11.29)
    text = path.read_text()
    lines = text.splitlines()
    assert lines[:6] == [
        "#TYPE=EXTENDED", "#OBSCODE=XYZ", f"#SOFTWARE=datared {__version__}",
        "#DELIM=,", "#DATE=JD", "#OBSTYPE=CCD",
    ]  # fmt: skip
    assert text.isascii() and "nan" not in text.lower().replace(",na,", "")
    # Saturated, and without a flux: not reported.
    left = np.delete(np.arange(40), [5, 7])
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    assert len(rows) == 38 and {len(row) for row in rows} == {15}
    for row, k in zip(rows, left, strict=True):
        assert abs(float(row[1]) - curve["jd_utc_mid"][k]) < 1e-7
        assert abs(float(row[2]) - 11.29 - curve["delta_mag"][k]) < 1e-4 and "." in row[2]
        assert abs(float(row[3]) - curve["delta_mag_err"][k]) < 1e-4
        assert (row[0], row[4:11]) == (
            "HAT-P-32", ["SR", "NO", "STD", "ENSEMBLE", "na", "na", "na"],
        )  # fmt: skip
    limits = (30, 16, 8, 6, 5, 3, 3, 20, 8, 20, 8, 7, 5, 20, 2000)
    assert all(len(word) <= most for row in rows for word, most in zip(row, limits, strict=True))
    table = exports.read_aavso(path)
    assert table["notes"][3] == "clouds" and table["notes"][0] == "na"
    assert not table["fainter"].any() and table.meta["OBSCODE"] == "XYZ"
    assert set(exports.read_aavso(aavso(curve, tmp_path / "b.txt"))["mtype"]) == {"DIF"}
    # In the order of time, whatever that of the table was.
    assert aavso(curve[::-1], tmp_path / "b.txt", magnitude=11.29).read_text() == text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"observer": ""}, "observer is missing: the observer code that the AAVSO"),
        ({"star": "  "}, "star is missing"),
        ({"observer": "X", "star": "S"}, "2 to 5"),
        ({"observer": "Müller"}, "no AAVSO code"),
        ({"filter": "Clear"}, "filter 'Clear' has no name in the AAVSO format.*CV, CR"),
        ({"filter": "sr"}, "has no name"),
        ({"star": "S" * 31}, "31 characters; AAVSO takes 30"),
        ({"star": "RR Lyr, the star"}, "without , # and"),
        ({"star": "η Car"}, "plain ASCII"),
        ({"comparison": "C" * 21}, "takes 20"),
        ({"chart": "X" * 21}, "takes 20"),
        ({"magnitude": 12345.0}, "takes 8"),
        ({"magnitude": np.nan}, "magnitude nan is no number"),
    ],
)
def test_export_aavso_refuses_what_is_not_valid(tmp_path, options, said):
    """LC-11: the message says what is missing or too long; nothing is written."""
    with pytest.raises(ConfigError, match=said):
        aavso(light_curve(), tmp_path / "a.txt", **options)
    assert not list(tmp_path.iterdir())


def test_export_aavso_needs_a_comparison_star_an_ending_and_data(tmp_path):
    """LC-11: one comparison star has to be named; a night of nothing is not reported."""
    curve = light_curve()
    with pytest.raises(ConfigError, match=r"\.txt, \.csv, \.tsv"):
        aavso(curve, tmp_path / "a.dat")
    curve.meta["comparison"] = [4]
    with pytest.raises(ConfigError, match="one star that was compared with"):
        aavso(curve, tmp_path / "a.txt")
    aavso(curve, tmp_path / "a.txt", comparison="000-BBB-123")
    with pytest.raises(DataredError, match="nothing to export: of 0 epochs"):
        aavso(curve[:0], tmp_path / "b.txt", comparison="000-BBB-123")
    curve["flags"] = SATURATED
    with pytest.raises(DataredError, match=r"nothing to export: of 40 .* \(saturated\)"):
        aavso(curve, tmp_path / "b.txt", comparison="000-BBB-123")


def test_read_aavso_of_others(tmp_path):
    """LC-11: the reader takes what the format allows: other delimiters, limits, comments."""
    path = tmp_path / "report.txt"
    head = (
        "#type=Extended\n#obscode=TST01\n#SOFTWARE=x\n#DELIM={}\n#DATE=JD\n#OBSTYPE=CCD\n# hello\n"
    )
    fields = ["SS CYG", "2450702.1234", "<11.135", "na", "V", "NO", "STD", "105", "na", "na", "na"]
    fields += ["na", "na", "070613", "na"]
    for delimiter, word in ((",", "comma"), (";", ";"), ("\t", "tab"), ("!", "!")):
        path.write_text(head.format(word) + delimiter.join(fields) + "\n")
        row = exports.read_aavso(path)[0]
        assert (row["name"], row["date"], row["mag"]) == ("SS CYG", 2450702.1234, 11.135)
        assert row["fainter"] and np.isnan(row["mag_err"]) and row["chart"] == "070613"
        assert exports.check_aavso(path)["rows"] == 1
    good = head.format(",") + ",".join(fields) + "\n"
    for old, new, said in (
        ("#obscode=TST01\n", "", "OBSCODE"),
        ("Extended", "Visual", "not EXTENDED"),
        (",070613", "", "line 8: 14 fields"),
        ("2450702.1234", "yesterday", "line 8: date"),
        ("<11.135", "nan", "line 8: mag is 'nan', no number and not 'na'"),
    ):
        path.write_text(good.replace(old, new))
        with pytest.raises(ConfigError, match=said):
            exports.read_aavso(path)
    for old, new, said in (
        (",V,", ",Green,", "filter"),
        (",NO,", ",MAYBE,", "trans"),
        ("STD,105", "DIF,na", "comparison star"),
        ("<11.135", "na", "magnitude or a date"),
        (",na,V", ",-0.1,V", "not positive"),
        ("2450702.1234", "50702.1234", "Julian"),
    ):
        path.write_text(good.replace(old, new))
        with pytest.raises(DataredError, match=said):
            exports.check_aavso(path)


def test_aavso_filters_are_those_of_the_format():
    """LC-11: each name at most five capitals; ours mean what they say."""
    assert all(re.fullmatch("[A-Z]{1,5}", name) for name in AAVSO_FILTERS)
    assert len(set(AAVSO_FILTERS)) == len(AAVSO_FILTERS) == 31


# --- ExoClock ------------------------------------------------------------------------------------


def test_e40_export_exoclock_is_the_start_of_the_exposure(tmp_path):
    """E40, LC-11: three columns with the start; start plus half the exposure is the middle."""
    curve = light_curve()
    numbers, info = exports.write_exoclock(
        curve, tmp_path / "HAT-P-32.txt", planet="HAT-P-32b", **PLACE
    )
    raw = np.loadtxt(numbers)
    left = np.delete(np.arange(40), [5, 7])
    assert raw.shape == (38, 3)
    late = (np.asarray(curve["jd_utc_mid"])[left] - raw[:, 0]) * 86400
    np.testing.assert_allclose(late, EXPOSURE / 2, atol=0.002)
    np.testing.assert_allclose(raw[:, 1:], np.transpose([curve["flux"], curve["flux_err"]])[left],
                               atol=1e-8)  # fmt: skip
    said = info.read_text()
    for line in ("Time format: JD_UTC", "Time stamp: Exposure start", "Flux format: Flux",
                 "Filter: r'", "Exposure time in seconds: 60", "Planet: HAT-P-32b"):  # fmt: skip
        assert f"{line}\n" in said
    table = exports.read_exoclock(numbers)
    np.testing.assert_allclose(table["jd_utc_mid"], curve["jd_utc_mid"][left], atol=2e-8)
    assert table.meta == {"planet": "HAT-P-32b", "filter": "r'", "exposure": 60.0}
    assert exports.check_exoclock(numbers, curve=curve[left], **PLACE)["bjd_tdb"] < 0.002
    # The middle where the start belongs is found out.
    raw[:, 0] += EXPOSURE / 2 / 86400
    np.savetxt(numbers, raw, fmt="%.8f")
    with pytest.raises(DataredError, match=r"off by 30\.00 s"):
        exports.check_exoclock(numbers, curve=curve[left], **PLACE)


def test_export_exoclock_refuses(tmp_path):
    """LC-11: no planet, a filter that it does not have, two exposure times, no flux."""
    curve = light_curve()
    path = tmp_path / "a.txt"
    with pytest.raises(ConfigError, match="planet is missing"):
        exports.write_exoclock(curve, path, planet="")
    with pytest.raises(ConfigError, match="filter 'Halpha' has no name in the ExoClock format"):
        exports.write_exoclock(curve, path, planet="b", filter="Halpha")
    curve["exptime"][20:] = 30.0
    with pytest.raises(ConfigError, match="30, 60 s"):
        exports.write_exoclock(curve, path, planet="b")
    curve["flux"] = np.nan
    with pytest.raises(DataredError, match="nothing to export"):
        exports.write_exoclock(curve, path, planet="b")
    assert not list(tmp_path.iterdir())


def test_export_exoclock_of_a_real_camera(tmp_path):
    """LC-11: exposure times that differ by milliseconds are one; a path may have any letters."""
    curve = light_curve()
    curve["exptime"] += np.random.default_rng(1).normal(0, 1e-3, 40)
    numbers, info = exports.write_exoclock(curve, tmp_path / "été.txt", planet="b", **PLACE)
    assert exports.read_exoclock(numbers).meta["exposure"] == 60
    assert "Upload été.txt at" in info.read_text("utf-8")


def test_read_exoclock_of_something_else(tmp_path):
    """LC-11: BJD, or magnitudes, in the file of another program are not read as JD and flux."""
    numbers, info = exports.write_exoclock(light_curve(), tmp_path / "a.txt", planet="b")
    good = info.read_text()
    for old, new in (
        ("JD_UTC", "BJD_TDB"),
        ("Exposure start", "Mid-exposure"),
        (": Flux", ": Mag"),
    ):
        info.write_text(good.replace(old, new))
        with pytest.raises(ConfigError, match="only"):
            exports.read_exoclock(numbers)
    info.write_text(good.replace("seconds: 60", "seconds:"))
    with pytest.raises(ConfigError, match="exposure time"):
        exports.read_exoclock(numbers)
    info.write_text(good)
    numbers.write_text("\n")
    with pytest.raises(ConfigError, match="three columns"):
        exports.read_exoclock(numbers)
    numbers.write_text("1 2\n")
    with pytest.raises(ConfigError, match="three columns"):
        exports.read_exoclock(numbers)
    numbers.write_text("2458107.6 0.0 0.1\n")
    with pytest.raises(DataredError, match="positive"):
        exports.check_exoclock(numbers)
    numbers.write_text("2458107.6 8123.0 0.1\n")
    with pytest.raises(DataredError, match="not relative"):
        exports.check_exoclock(numbers)


# --- ADES ----------------------------------------------------------------------------------------

KEYS = ("jd_utc_mid", "ra", "dec")
RATES = {1: (0.5, 107.0, 359.995, 23.2), 4: (3.0, 290.0, 0.004, -45.0)}


def moving(noise=0.15):
    """Detections of two sources that move across RA 0; and the epochs, with start and middle."""
    rng = np.random.default_rng(3)
    jd = 2460587.35 + np.arange(30) * 90 / 86400
    rows = []
    for number, (rate, angle, ra0, dec0) in RATES.items():
        start = SkyCoord(ra0, dec0, unit="deg")
        way = rate * (jd - jd[0]) * 1440
        path = start.directional_offset_by(angle * u.deg, way * u.arcsec)
        east, north = rng.normal(0, noise, (2, 30))
        ra = path.ra.deg + east / 3600 / np.cos(path.dec.rad)
        rows += list(zip([number] * 30, jd, ra % 360, path.dec.deg + north / 3600, strict=True))
    detections = Table(rows=rows, names=["id", "jd_utc_mid", "ra", "dec"])
    detections["used"] = True
    detections["used"][2] = False
    epochs = Table({"jd_utc_start": jd - 30 / 86400, "jd_utc_mid": jd})
    movers = Table({"id": list(RATES), "rate": [r[0] for r in RATES.values()]})
    # Error of a slope: noise / sqrt(sum of squares of the times).
    movers["rate_err"] = noise / np.sqrt(np.sum(((jd - jd.mean()) * 1440) ** 2))
    return detections, epochs, movers


def test_export_ades_positions_give_the_rate_back(tmp_path):
    """LC-11, MV-02: the lines of the file, fitted again, move as the sources do."""
    detections, epochs, movers = moving()
    path = exports.write_ades(detections, tmp_path / "m.psv", movers=movers, epochs=epochs, **ADES)
    found = exports.check_ades(path)
    assert list(found["trkSub"]) == ["DR00001", "DR00004"] and list(found["n"]) == [29, 30]
    error = float(movers["rate_err"][0])
    for row, (rate, angle, _, _) in zip(found, RATES.values(), strict=True):
        # Four of their errors, of two numbers of each source.
        assert row["rate"] == pytest.approx(rate, abs=4 * error)
        assert row["position_angle"] == pytest.approx(angle, abs=4 * np.degrees(error / rate))
        assert 0.5 * error < row["rate_err"] < 2 * error
        assert 0.1 < row["rms_ra"] < 0.2 and 0.1 < row["rms_dec"] < 0.2
    table = exports.read_ades(path)
    # Six decimals of a degree are 1.8 milliarcseconds; two of a second are 5 ms.
    kept = detections[detections["used"]]
    np.testing.assert_allclose(table["ra"], kept["ra"], atol=6e-7)
    np.testing.assert_allclose(table["dec"], kept["dec"], atol=6e-7)
    np.testing.assert_allclose(table["jd_utc_mid"], kept["jd_utc_mid"], atol=0.0051 / 86400)
    assert (table["ra"] < 360).all() and np.ptp(table["ra"]) > 359
    assert table.meta["observers"]["name"] == ["J. Smith", "A. B. Jones"]
    assert table.meta["submitter"]["name"] == ["J. Smith"] and table.meta["version"] == "2022"


def test_e40_export_ades_time_is_the_middle_in_utc(tmp_path):
    """E40: obsTime is the middle of the exposure; its start is refused."""
    detections, epochs, movers = moving()
    path = exports.write_ades(detections, tmp_path / "m.psv", epochs=epochs, **ADES)
    stamp = re.search(r"\|(\d{4}-\d\d-\d\dT[\d:.]+Z)\|", path.read_text()).group(1)
    first = Time(epochs["jd_utc_mid"][0], format="jd", scale="utc")
    assert abs((Time(stamp[:-1], scale="utc") - first).sec) < 0.006
    detections["jd_utc_mid"] -= 30 / 86400
    with pytest.raises(DataredError, match=r"30\.0. s from the middle"):
        exports.write_ades(detections, tmp_path / "n.psv", epochs=epochs, **ADES)
    # Twice the rate is refused too.
    detections, epochs, movers = moving()
    movers["rate"] *= 2
    with pytest.raises(DataredError, match=r"DR00001 moves 0\.5\d* arcsec/min, not 1\.0"):
        exports.write_ades(detections, tmp_path / "n.psv", movers=movers, **ADES)
    assert [p.name for p in tmp_path.iterdir()] == ["m.psv"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("station", "", "station is missing: the observatory code of the Minor Planet Center"),
        ("station", "J9", "3 or 4"),
        ("observers", [], "observers is missing"),
        ("observers", "Smith", "initials and surname"),
        ("observers", "J. Smith\n! line", "initials and surname"),
        ("design", "Reflector\n# comment", "must be one line"),
        ("design", "", "design is missing"),
        ("aperture", None, "aperture is missing: the diameter"),
        ("aperture", 350.0, "not possible; give it in metres"),
        ("detector", "CMOS", "say which it is: CCD, CMO"),
        ("catalogue", "", "catalogue is missing.*Gaia2"),
        ("catalogue", "refcat2", "has no name in the ADES format"),
    ],
)
def test_export_ades_refuses_what_is_not_valid(tmp_path, name, value, said):
    """LC-11: the message says what is missing, and what is valid; nothing is written."""
    with pytest.raises(ConfigError, match=said):
        exports.write_ades(moving()[0], tmp_path / "m.psv", **(ADES | {name: value}))
    assert not list(tmp_path.iterdir())


def test_export_ades_needs_positions_and_finite_magnitudes(tmp_path):
    """LC-11: nothing found, two positions, a band that is none, a magnitude that is none."""
    detections, _, _ = moving()
    path = tmp_path / "m.psv"
    with pytest.raises(DataredError, match="no position"):
        exports.write_ades(detections[:0], path, **ADES)
    with pytest.raises(DataredError, match="2 positions; a motion needs three"):
        exports.write_ades(detections[:3], path, **ADES)
    lost = detections.copy()
    lost["jd_utc_mid"][9] = np.nan
    with pytest.raises(DataredError, match="not finite: jd_utc_mid, ra, dec"):
        exports.write_ades(lost, path, **ADES)
    # What six decimals make of the last bit of the circle is its first.
    detections["ra"][0] = 360 - 1e-8
    assert exports.read_ades(exports.write_ades(detections, path, **ADES))["ra"][0] == 0
    detections["mag"], detections["mag_err"] = 15.41, 0.03
    with pytest.raises(ConfigError, match="band None has no name"):
        exports.write_ades(detections, path, **ADES)
    table = exports.read_ades(exports.write_ades(detections, path, band="Sr", **ADES))
    assert set(table["mag"]) == {15.41} and set(table["band"]) == {"Sr"}
    detections["mag"][4] = np.nan
    with pytest.raises(DataredError, match="magnitude is missing"):
        exports.write_ades(detections, path, band="Sr", **ADES)
    for masked_one in (Table(detections, masked=True, copy=True), detections["id", *KEYS, "mag"]):
        masked_one["mag"] = np.ma.masked_equal([15.4] * 59 + [0.0], 0)
        with pytest.raises(DataredError, match="or its error"):
            exports.write_ades(masked_one, path, band="Sr", **ADES)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("! mpcCode J95\n", "", "no observatory mpcCode"),
        ("! design Reflector\n", "", "no telescope design"),
        ("|J95|", "|J96|", "station of a line"),
        ("DR00001", "DR000000001", "trkSub"),
        ("Z|", "|", "obsTime"),
        ("|CMO|", "|XYZ|", "mode"),
        ("|Gaia2", "|USNOA1", "astCat"),
        ("rmsDec", "rmsFit", "rmsDec are missing"),
    ],
)
def test_check_ades_finds_faults(tmp_path, old, new, said):
    """LC-11: a file that somebody edited is not taken."""
    path = exports.write_ades(moving()[0], tmp_path / "m.psv", **ADES)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataredError, match=said):
        exports.check_ades(path)


def test_read_ades_of_others(tmp_path):
    """LC-11: the forms that the standard allows: padded fields, other orders and fields."""
    path = tmp_path / "x.psv"
    head = "# version=2017\n# observatory\n! mpcCode 568\n! name Mauna Kea\n# comment\n! line a b\n"
    body = (
        "permID |mode|stn |obsTime                 |ra         |dec        |astCat|mag \n"
        "1234456| CCD|568 |2016-08-29T12:32:34.25Z |215.10254  |-12.547944 | Gaia1|21.9\n"
    )
    path.write_text(head + body)
    row = exports.read_ades(path)[0]
    assert (row["ra"], row["dec"], row["mag"], row["permID"]) == (
        215.10254, -12.547944, 21.9, "1234456",
    )  # fmt: skip
    expected = Time("2016-08-29T12:32:34.25", scale="utc").jd
    assert row["jd_utc_mid"] == pytest.approx(expected, abs=1e-9)
    for text, said in (
        (body, "no '# version='"),
        (head, "no position"),
        (head + body.replace("|21.9", ""), "7 of 8 fields"),
        (head + body.replace("215.", "x"), "x10254"),
        (head + body.replace("obsTime", "time   "), "obsTime are missing"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            exports.read_ades(path)
    with pytest.raises(DataredError, match="two times"):
        fit_motion([2460000.5], [1.0], [2.0])


# --- a night -------------------------------------------------------------------------------------


@pytest.fixture
def night(tmp_path):
    """A night with the results that exports need."""
    work = tmp_path / "work"
    work.mkdir()
    detections, epochs, movers = moving()
    comparisons = Table({"star": [0, 1], "ra": [STAR.ra.deg, 31.1], "dec": [STAR.dec.deg, 46.7]})
    tables = {"lightcurve": light_curve(), "comparisons": comparisons, "epochs": epochs}
    for name, table in (tables | {"movers": movers, "mover_detections": detections}).items():
        table.write(work / f"{name}.ecsv", format="ascii.ecsv")
    camera = Camera(diameter=35.0)
    return Night(
        name="HAT-P-32 b / 2017", raw=tmp_path, work=work, site=SITE, camera=camera,
        target="HAT-P-32 b",
    )  # fmt: skip


def test_export_night_in_every_format(night, tmp_path):
    """LC-11: one call for each format, with clean names in the work folder, and what reads them."""
    ades = {key: value for key, value in ADES.items() if key not in ("observers", "aperture")}
    options = {
        "aavso": {"observer": "XYZ"}, "exoclock": {}, "csv": {}, "ecsv": {},
        "ades": {"observer": "J. Smith, A. B. Jones", **ades},
    }  # fmt: skip
    for name, given in options.items():
        path = exports.export_night(night, format=name, **given)[0]
        assert path.parent == night.work / "export"
        assert path.name == f"HAT-P-32_b_2017_{name}{exports.FORMATS[name]}"
        read = getattr(exports, f"read_{name}", exports.read_table)
        assert len(read(path)) >= 38
    # The star of the planet for the AAVSO, the planet for ExoClock.
    folder = night.work / "export"
    assert set(exports.read_aavso(folder / "HAT-P-32_b_2017_aavso.txt")["name"]) == {"HAT-P-32"}
    planet = exports.read_exoclock(folder / "HAT-P-32_b_2017_exoclock.txt").meta["planet"]
    assert planet == "HAT-P-32 b"
    header = exports.read_ades(folder / "HAT-P-32_b_2017_ades.psv").meta
    assert header["telescope"]["aperture"] == ["0.35"]
    named = exports.export_night(night, format="csv", path=tmp_path / "mine" / "a.csv")
    assert named == [tmp_path / "mine" / "a.csv"] and named[0].is_file()


def test_export_night_refuses(night):
    """LC-11: an unknown format, an option that does nothing, and a result that is not there."""
    with pytest.raises(ConfigError, match="format 'etd' is not one of aavso, exoclock"):
        exports.export_night(night, format="etd")
    with pytest.raises(ConfigError, match="csv has no use for observer, station"):
        exports.export_night(night, format="csv", observer="XYZ", station="J95")
    with pytest.raises(ConfigError, match="observer is missing"):
        exports.export_night(night, format="aavso")
    (night.work / "movers.ecsv").unlink()
    with pytest.raises(DataredError, match="up to variables first"):
        exports.export_night(night, format="ades")
    (night.work / "lightcurve.ecsv").unlink()
    with pytest.raises(DataredError, match="up to lightcurve first"):
        exports.export_night(night, format="csv")
    assert not (night.work / "export").exists()


@pytest.mark.parametrize(
    ("target", "star"),
    [("WASP-12b", "WASP-12"), ("WASP-94 A b", "WASP-94 A"), ("b Per", "b Per"),
     ("RR Lyr", "RR Lyr"), ("T CrB", "T CrB"), ("31.04 46.69", "the field")],
)  # fmt: skip
def test_export_name_of_the_star(night, target, star):
    """LC-11: the AAVSO gets the star, whatever the planet's name; a position is no name."""
    named = dataclasses.replace(night, target=target, object="the field")
    path = exports.export_night(named, format="aavso", observer="XYZ")[0]
    assert set(exports.read_aavso(path)["name"]) == {star}


def test_export_of_damaged_results(night):
    """LC-11: tables that do not fit, or that are no tables, are told; nothing is written."""
    stars = night.work / "comparisons.ecsv"
    table = Table.read(stars)
    table[1:].write(stars, format="ascii.ecsv", overwrite=True)
    with pytest.raises(DataredError, match="do not fit: run the stage lightcurve again"):
        exports.export_night(night, format="csv")
    stars.write_text("# %ECSV 1.0\n# ---\n# datatype: [\n")
    with pytest.raises(DataredError, match=r"comparisons\.ecsv cannot be read"):
        exports.export_night(night, format="csv")
    assert not (night.work / "export").exists()


def test_export_names_are_clean():
    """LC-11: a name of a night never leaves its folder, whatever it is."""
    assert safe_name("a/../b\\c:d*") == "a_.._b_c_d"
    assert safe_name("..") == safe_name("") == safe_name("星") == "night"
    assert safe_name("con") == "_con" and safe_name("NUL.txt") == "_NUL.txt"
    assert len(safe_name("x" * 500)) == 100 and safe_name("-rf") == "rf"


def test_export_command(night, tmp_path):
    """LC-11: datared export writes the file and tells where; what is missing is told, code 2."""
    write_night(
        {"name": night.name, "raw": "raw", "work": "work", "target": night.target,
         "site": {"latitude": SITE.latitude, "longitude": SITE.longitude, "height": SITE.height}},
        tmp_path / "night.toml",
    )  # fmt: skip
    (tmp_path / "raw").mkdir()
    toml = str(tmp_path / "night.toml")
    done = CliRunner().invoke(app, ["export", toml, "--format", "aavso", "--observer", "XYZ"])
    assert done.exit_code == 0, done.output
    path = Path(done.output.strip())
    assert exports.read_aavso(path).meta["OBSCODE"] == "XYZ" and path.parent.name == "export"
    options = ["--format", "aavso", "--observer", "XYZ", "--filter", "Clear"]
    refused = CliRunner().invoke(app, ["export", toml, *options])
    assert refused.exit_code == 2 and "CV, CR" in refused.output
    (tmp_path / "file").write_text("x")
    options = ["--format", "csv", "--output", str(tmp_path / "file" / "a.csv")]
    refused = CliRunner().invoke(app, ["export", toml, *options])
    assert refused.exit_code == 2 and "cannot be written" in refused.output
