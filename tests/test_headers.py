"""Headers of many camera programs come out in one vocabulary, and never raise."""

import math
import os
from pathlib import Path

import pytest
from astropy.io import fits
from astropy.time import Time

from datared.datecards import exposure_times, parse_time
from datared.headers import read_header
from datared.vocabulary import VOCABULARY, clean_filter, normalise_kind

SECOND = 1 / 86400
#: A Julian date in float64 is known to 40 microseconds.
JD_TOLERANCE = 1e-9

NINA = {
    "IMAGETYP": "LIGHT",
    "EXPOSURE": 60.0,
    "EXPTIME": 60.0,
    "DATE-LOC": "2023-03-15T21:30:00.500",
    "DATE-OBS": "2023-03-15T20:30:00.500",
    "DATE-AVG": "2023-03-15T20:30:30.500",
    "XBINNING": 2,
    "YBINNING": 2,
    "GAIN": 30,
    "OFFSET": 50,
    "EGAIN": 0.376,
    "XPIXSZ": 7.52,
    "YPIXSZ": 7.52,
    "CCD-TEMP": -10.0,
    "FILTER": "r",
    "FOCALLEN": 2563.0,
    "RA": 210.80225,
    "DEC": 54.34894,
    "OBJCTRA": "14 03 12",
    "OBJCTDEC": "+54 20 56",
    "SITELAT": 50.73,
    "SITELONG": 7.1,
    "SITEELEV": 60.0,
    "PIERSIDE": "East",
    "READOUTM": "High Gain Mode",
    "OBJECT": "M 101",
    "AIRMASS": 1.2,
}


def shared_data():
    """Folder with the real files, or skip."""
    folder = os.environ.get("DATARED_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not Path(folder).is_dir():
        pytest.skip("the real data are not here: set DATARED_DATA")
    return Path(folder)


def header(cards):
    """FITS header of a 2-D image with some cards."""
    made = fits.Header()
    image = {"SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 6}
    for key, value in (image | cards).items():
        made[key] = value
    return made


def real_header(name):
    """Header of a real file."""
    return fits.getheader(shared_data() / name)


def test_nina_headers():
    """NINA: settings, pointing in degrees, own mid time, scale from pixel size and focus."""
    row = read_header(header(NINA))
    assert (row["kind"], row["filter"], row["object"]) == ("light", "r", "M 101")
    assert (row["gain_setting"], row["offset"], row["readout_mode"]) == (30, 50, "High Gain Mode")
    assert (row["ra"], row["dec"], row["pier_side"]) == (210.80225, 54.34894, "east")
    assert (row["nx"], row["ny"], row["xbin"], row["ybin"]) == (8, 6, 2, 2)
    assert (row["latitude"], row["longitude"], row["height"]) == (50.73, 7.1, 60.0)
    assert row["scale"] == pytest.approx(0.6052, abs=1e-3)
    start = Time("2023-03-15T20:30:00.500", scale="utc").jd
    assert row["jd_utc_start"] == pytest.approx(start, abs=JD_TOLERANCE)
    assert row["jd_utc_mid"] == pytest.approx(start + 30 * SECOND, abs=JD_TOLERANCE)
    assert row["problem"] == "" and row["warning"] == ""


def test_e40_mid_exposure():
    """The middle is start plus half of the exposure, and a middle outside of it is not believed."""
    cards = {k: v for k, v in NINA.items() if k != "DATE-AVG"}
    row = read_header(header(cards))
    assert row["jd_utc_mid"] - row["jd_utc_start"] == pytest.approx(30 * SECOND, abs=JD_TOLERANCE)
    row = read_header(header(NINA | {"DATE-AVG": "2023-03-15T22:30:30"}))
    assert row["jd_utc_mid"] - row["jd_utc_start"] == pytest.approx(30 * SECOND, abs=JD_TOLERANCE)
    assert "mid-exposure" in row["warning"]


def test_every_keyword_may_be_missing():
    """A header without any one (or all) of its cards gives NaN or empty texts, never an error."""
    for missing in NINA:
        row = read_header(header({k: v for k, v in NINA.items() if k != missing}))
        assert set(row) == set(VOCABULARY)
        assert row["problem"] == ""
    row = read_header(fits.Header())
    assert set(row) == set(VOCABULARY) and "kind of frame is unknown" in row["problem"]


def test_e01_missing_exptime():
    """EXPTIME falls back on EXPOSURE; without both a light or dark is unusable, a flat is not."""
    cards = {k: v for k, v in NINA.items() if k != "EXPTIME"}
    assert read_header(header(cards))["exptime"] == 60.0
    del cards["EXPOSURE"]
    for kind in ("LIGHT", "DARK"):
        row = read_header(header(cards | {"IMAGETYP": kind}))
        assert math.isnan(row["exptime"]) and "exposure time" in row["problem"]
    assert read_header(header(cards | {"IMAGETYP": "FLAT"}))["problem"] == ""


def test_exposure_in_milliseconds():
    """Milliseconds are told by the comment, the text or the card's name."""
    for cards in (
        {"EXPTIME": (250.0, "[ms] exposure")},
        {"EXPOSURE": "250ms"},
        {"EXPOINUS": 250000},
        {"EXPTIME": (0.25, "Exposure time in seconds")},
    ):
        assert read_header(header({"IMAGETYP": "LIGHT"} | cards))["exptime"] == pytest.approx(0.25)


def test_e03_insfilte():
    """INSFILTE is read as the filter; the header is not changed."""
    cards = header({"IMAGETYP": "object", "EXPTIME": 5.0, "INSFILTE": "V "})
    before = cards.tostring()
    assert read_header(cards)["filter"] == "V"
    assert cards.tostring() == before


def test_insfilte_and_filter_differ():
    """FILTER wins over INSFILTE with a warning, and a user's card over both."""
    cards = header({"IMAGETYP": "LIGHT", "EXPTIME": 5, "FILTER": "R", "INSFILTE": "V", "MINE": "B"})
    row = read_header(cards)
    assert row["filter"] == "R" and "INSFILTE" in row["warning"]
    assert read_header(cards, synonyms={"filter": ("MINE",)})["filter"] == "B"


def test_e04_filter_names():
    """Blanks and quotes go, case and primes stay: Johnson R and Sloan r are two filters."""
    assert [clean_filter(v) for v in (" r ", "'r'", "R", "r'", '"g"', "", None, 3)] == [
        "r", "r", "R", "r'", "g", "", "", "3"
    ]  # fmt: skip


def test_kinds():
    """The words of many programs for a kind."""
    words = {
        "light": ["Light Frame", "object", "LIGHT", "Science", "standard"],
        "bias": ["Bias Frame", "zero", "BIAS"],
        "dark": ["Dark Frame", "dark", "Dark_1"],
        "flat": ["Flat Field", "FLAT", "Flat_V_1", "Sky Flat", "Flat_b", "DomeFlat"],
        "darkflat": ["DARKFLAT", "Dark Flat", "flat-dark"],
        "": ["M 31", "Dark Cloud", "Barnard 33 dark nebula", "", "flatness test"],
    }
    for kind, values in words.items():
        assert {normalise_kind(value) for value in values} == {kind}, values
    assert normalise_kind("DARK", exptime=0.0) == "bias"


def test_sharpcap_headers():
    """SharpCap: FRAMETYP, no IMAGETYP, black level as offset."""
    cards = {"FRAMETYP": "Dark", "EXPTIME": 10.0, "GAIN": 150, "BLKLEVEL": 20, "FILTER": "g"}
    row = read_header(header(cards))
    assert (row["kind"], row["gain_setting"], row["offset"]) == ("dark", 150, 20)


def test_kind_from_names_as_last_resort():
    """Without a card the object's name tells the kind, then the file's, then the folder's."""
    cards = header({"EXPTIME": 30.0, "FILTER": "V"})
    assert read_header(cards, path="darks_08/a.fits")["kind"] == "dark"
    assert read_header(cards, path="night/Flat_V_001.fits")["kind"] == "flat"
    assert read_header(cards, path="flats/M31.fits")["kind"] == "flat"
    row = read_header(cards, path="night/M31_001.fits")
    assert row["kind"] == "light" and "taken as a light" in row["warning"]
    cards["OBJECT"] = "Bias"
    assert read_header(cards, path="x/flat.fits")["kind"] == "bias"
    cards["IMAGETYP"] = "LIGHT"
    assert read_header(cards, path="flats/dark_1.fits")["kind"] == "light"


def test_e39_pointing_in_all_forms():
    """Numbers are degrees; sexagesimal right ascensions are hours; the sign of -0 is kept."""
    for ra, dec in [
        (295.324875, 40.183194),
        ("19:41:17.97", "40:10:59.5"),
        ("19 41 17.97", "+40 10 59.5"),
        ("295.324875", "40.183194"),
        ("19h41m17.97s", "+40d10m59.5s"),
    ]:
        row = read_header(header({"RA": ra, "DEC": dec}))
        assert row["ra"] == pytest.approx(295.324875, abs=1e-5)
        assert row["dec"] == pytest.approx(40.183194, abs=1e-5)
    row = read_header(header({"OBJCTRA": "14 03 13", "OBJCTDEC": "-00 18 18"}))
    assert row["ra"] == pytest.approx(210.8041667) and row["dec"] == pytest.approx(-0.305)
    row = read_header(header({"RA": "99:00:00", "DEC": "95:00:00"}))
    assert math.isnan(row["ra"]) and "no position" in row["warning"]


def test_times_in_all_forms():
    """Fractions, Z, offsets, two cards, old dates, other time scales, Julian dates."""
    want = Time("2013-03-11T03:35:20", scale="utc").jd
    for cards in (
        {"DATE-OBS": "2013-03-11T03:35:20"},
        {"DATE-OBS": "2013-03-11T03:35:20.000Z"},
        {"DATE-OBS": "2013-03-10T20:35:20-0700"},
        {"DATE-OBS": "2013-03-11T09:05:20+05:30"},
        {"DATE-OBS": "2013-03-11", "TIME-OBS": "03:35:20"},
        {"DATE-OBS": "11/03/13", "UT": "03:35:20.0"},
        {"DATE-BEG": "2013-03-11T03:35:20.00"},
        {"DATE-OBS": "2013-03-11T03:35:55", "TIMESYS": "TAI"},
        {"JD": want},
        {"MJD-OBS": want - 2400000.5},
    ):
        times = exposure_times(cards.get, exptime=10.0)
        assert times["jd_utc_start"] == pytest.approx(want, abs=JD_TOLERANCE), cards
        assert times["jd_utc_mid"] == pytest.approx(want + 5 * SECOND, abs=JD_TOLERANCE)
        # MJD and JD in float64 are good to 40 us, far below the millisecond that is written.
        assert times["date_obs"] == "2013-03-11T03:35:20.000", cards
    assert parse_time("2013-13-11T03:35:20") is None
    assert math.isnan(exposure_times({"DATE-OBS": "2013-03-11"}.get, exptime=1)["jd_utc_mid"])


def test_local_time_is_noticed():
    """A DATE-OBS that differs by hours from the Julian date is used with a warning."""
    cards = {"DATE-OBS": "2013-03-10T20:35:20", "JD": Time("2013-03-11T03:35:20").jd}
    times = exposure_times(cards.get, exptime=10.0)
    assert "-7.00 h" in times["warnings"][0]


def test_site_order():
    """Latitude and longitude are taken by name; east is positive but for MicroObservatory."""
    row = read_header(header({"SITELONG": "-96 27 12", "SITELAT": "46 52 01"}))
    assert row["latitude"] == pytest.approx(46.8669, abs=1e-4)
    assert row["longitude"] == pytest.approx(-96.4533, abs=1e-4)
    assert read_header(header({"LONGITUD": 253.0}))["longitude"] == pytest.approx(-107.0)


def test_colour_and_cube_refused():
    """Bayer frames and cubes have a problem that says what to do."""
    row = read_header(header(NINA | {"BAYERPAT": "RGGB"}))
    assert "colour" in row["problem"] and "extract" in row["problem"]
    assert "3 axes" in read_header(header(NINA | {"NAXIS": 3}))["problem"]


def test_unreadable_card_is_missing():
    """A card outside the FITS standard is as good as none."""
    cards = fits.Header.fromstring("EXPTIME =  6 0.0 0 / bad".ljust(80) + "FILTER  = ".ljust(80))
    row = read_header(cards)
    assert row["filter"] == "" and isinstance(row["exptime"], float)


def test_maxim_headers():
    """MaxIm DL: sexagesimal pointing and site, scale, and every file of the zoo is read."""
    row = read_header(real_header("header-zoo/maximdl_5_21_header.fit"))
    assert (row["kind"], row["filter"], row["object"]) == ("light", "R", "ey-uma")
    assert row["ra"] == pytest.approx(135.5917, abs=1e-4)
    assert row["longitude"] == pytest.approx(-97.2033, abs=1e-4)
    assert row["scale"] == pytest.approx(0.5583, abs=1e-4)
    files = sorted((shared_data() / "header-zoo").glob("*.fit"))
    kinds = [read_header(fits.getheader(path))["kind"] for path in files]
    assert [kinds.count(kind) for kind in ("bias", "dark", "flat", "light")] == [6, 5, 1, 9]


def test_microobservatory_headers():
    """Local time with offset, rounded MJD, longitude counted to the west, kelvins."""
    row = read_header(real_header("hatp32b-transit/HATP-32171220013343.FITS"))
    want = Time("2017-12-20T01:33:43.317", scale="utc").jd
    assert row["jd_utc_start"] == pytest.approx(want, abs=JD_TOLERANCE)
    assert row["date_obs"] == "2017-12-20T01:33:43.317"
    assert (row["latitude"], row["longitude"]) == (31.68, -110.88)
    assert row["temperature"] == pytest.approx(-2.15)
    assert (row["kind"], row["filter"], row["scale"]) == ("light", "Clear", 5.21)
    assert row["ra"] == pytest.approx(31.312099)


def test_nickel_headers():
    """OBSTYPE and OBJECT together tell the kind; CDELT1U the binning; WCS the scale."""
    kinds = {"bias/bias0": "bias", "dark/dark0": "dark", "flat/flatB0": "flat"}
    for name, kind in (kinds | {"science/ngc_b0": "light", "standard/land_v0": "light"}).items():
        row = read_header(real_header(f"nickel-ngc6819/{name}.fits"))
        assert row["kind"] == kind, name
    assert (row["filter"], row["xbin"], row["ybin"], row["has_wcs"]) == ("V", 2, 2, True)
    assert row["scale"] == pytest.approx(0.370, abs=1e-3)
    assert row["ra"] == pytest.approx(294.37, abs=0.01) and row["temperature"] < -100
    assert row["date_obs"] == "2019-09-24T05:33:51.110"


@pytest.mark.parametrize("side", ["West", "pierWest", "W"])
def test_pier_side(side):
    """The words for the side of the pier."""
    assert read_header(header({"PIERSIDE": side}))["pier_side"] == "west"
