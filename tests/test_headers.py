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
NAN = math.nan

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
    """HD-02: NINA: settings, pointing in degrees, own mid time, scale from pixel size and focus."""
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
    """E40: the middle is start plus half the exposure; one outside of it is not believed."""
    cards = {k: v for k, v in NINA.items() if k != "DATE-AVG"}
    row = read_header(header(cards))
    assert row["jd_utc_mid"] - row["jd_utc_start"] == pytest.approx(30 * SECOND, abs=JD_TOLERANCE)
    row = read_header(header(NINA | {"DATE-AVG": "2023-03-15T22:30:30"}))
    assert row["jd_utc_mid"] - row["jd_utc_start"] == pytest.approx(30 * SECOND, abs=JD_TOLERANCE)
    assert "mid-exposure" in row["warning"]


#: What is left of each word when its cards are not there (001 raises KeyError for each of them).
LEFT = {
    "IMAGETYP": ("kind", "light"),  # By the exposure time, with a warning.
    "EXPOSURE EXPTIME": ("exptime", math.nan),
    "DATE-OBS": ("jd_utc_start", math.nan),
    "XBINNING": ("xbin", 1),
    "YBINNING": ("ybin", 1),
    "GAIN": ("gain_setting", math.nan),
    "OFFSET": ("offset", math.nan),
    "CCD-TEMP": ("temperature", math.nan),
    "FILTER": ("filter", ""),
    "FOCALLEN": ("scale", math.nan),
    "RA OBJCTRA": ("ra", math.nan),
    "SITELAT": ("latitude", math.nan),
    "SITELONG": ("longitude", math.nan),
    "SITEELEV": ("height", math.nan),
    "PIERSIDE": ("pier_side", ""),
    "READOUTM": ("readout_mode", ""),
    "OBJECT": ("object", ""),
    "AIRMASS": ("airmass", math.nan),
}


@pytest.mark.parametrize("cards", LEFT)
def test_every_keyword_may_be_missing(cards):
    """HD-03: without its cards a word is NaN or empty, the others are as before; no KeyError."""
    whole = read_header(header(NINA))
    row = read_header(header({k: v for k, v in NINA.items() if k not in cards.split()}))
    word, left = LEFT[cards]
    assert row[word] == left or (row[word] != row[word] and left != left)
    assert set(row) == set(VOCABULARY)
    assert (row["problem"] != "") == (word == "exptime")
    also = {
        "exptime": {"problem"},
        "jd_utc_start": {"date_obs", "jd_utc_mid", "warning"},
        "kind": {"warning"},
        "ra": {"dec"},
    }
    changed = {key for key in row if str(row[key]) != str(whole[key])}
    assert changed - {word} <= also.get(word, set())


def test_empty_header():
    """HD-03: a header without any card gives the vocabulary, with what was looked for."""
    row = read_header(fits.Header())
    assert set(row) == set(VOCABULARY) and "kind of frame is unknown" in row["problem"]
    assert "looked for KIND, IMAGETYP, FRAMETYP" in row["problem"]


def test_e01_missing_exptime():
    """E01, HD-03: EXPTIME falls back on EXPOSURE; without both a light or dark is unusable."""
    cards = {k: v for k, v in NINA.items() if k != "EXPTIME"}
    assert read_header(header(cards))["exptime"] == 60.0
    del cards["EXPOSURE"]
    for kind in ("LIGHT", "DARK"):
        row = read_header(header(cards | {"IMAGETYP": kind}))
        assert math.isnan(row["exptime"])
        assert row["problem"].startswith("no exposure time in the header (looked for EXPTIME, EXP")
    assert read_header(header(cards | {"IMAGETYP": "FLAT"}))["problem"] == ""


def test_exposure_in_milliseconds():
    """PR-04: milliseconds are told by the comment, the text or the card's name."""
    for cards in (
        {"EXPTIME": (250.0, "[ms] exposure")},
        {"EXPOSURE": "250ms"},
        {"EXPOINUS": 250000},
        {"EXPTIME": (0.25, "Exposure time in seconds")},
    ):
        assert read_header(header({"IMAGETYP": "LIGHT"} | cards))["exptime"] == pytest.approx(0.25)


def test_e03_insfilte():
    """E03, HD-02, 003-02: INSFILTE is read as the filter; the header is not changed."""
    cards = header({"IMAGETYP": "object", "EXPTIME": 5.0, "INSFILTE": "V "})
    before = cards.tostring()
    assert read_header(cards)["filter"] == "V"
    assert cards.tostring() == before


def test_insfilte_and_filter_differ():
    """HD-02: FILTER wins over INSFILTE with a warning, and a user's card over both."""
    cards = header({"IMAGETYP": "LIGHT", "EXPTIME": 5, "FILTER": "R", "INSFILTE": "V", "MINE": "B"})
    row = read_header(cards)
    assert row["filter"] == "R" and "INSFILTE" in row["warning"]
    assert read_header(cards, synonyms={"filter": ("MINE",)})["filter"] == "B"


def test_e04_filter_names():
    """E04, PR-06: blanks and quotes go, case and primes stay: R and r are two filters."""
    assert [clean_filter(v) for v in (" r ", "'r'", "R", "r'", '"g"', "", None, 3)] == [
        "r", "r", "R", "r'", "g", "", "", "3"
    ]  # fmt: skip


def test_kinds():
    """HD-02, 002-02: the words of many programs for a kind."""
    words = {
        "light": ["Light Frame", "object", "LIGHT", "Science", "Standard Star", "EXPOSE"],
        "bias": ["Bias Frame", "zero", "BIAS", "Offset"],
        "dark": ["Dark Frame", "dark", "Dark_1", "thermal"],
        "flat": ["Flat Field", "FLAT", "Flat_V_1", "Sky Flat", "Flat_b", "DomeFlat", "LAMPFLAT"],
        "darkflat": ["DARKFLAT", "Dark Flat", "flat-dark"],
        "": ["M 31", "Dark Cloud", "Barnard 33 dark nebula", "", "flatness test"],
    }
    for kind, values in words.items():
        assert {normalise_kind(value) for value in values} == {kind}, values
    assert normalise_kind("DARK", exptime=0.0) == "bias"


@pytest.mark.parametrize(
    "cards",
    [
        {"IMAGETYP": "Bias Frame", "EXPTIME": 0.0},
        {"IMAGETYP": "zero", "EXPTIME": 0.0},
        {"FRAMETYP": "BIAS"},
        {"IMAGETYP": "Dark Frame", "EXPTIME": 0.0},
        {"OBSTYPE": "DARK", "EXPOSURE": 0.001},
        {"OBSTYPE": "DARK", "OBJECT": "Bias"},
        {"IMAGETYP": "DARK", "EXPOINUS": 32},
    ],
)
def test_six_headers_of_a_bias(cards):
    """000-03: bias and zero frames, and darks of at most a millisecond, are bias frames."""
    row = read_header(header(cards), path="x/a.fits")
    assert (row["kind"], row["problem"]) == ("bias", "")
    assert read_header(header({"IMAGETYP": "DARK", "EXPTIME": 0.0011}))["kind"] == "dark"


def test_unknown_kind_names_its_card():
    """HD-02: a word that is not understood is a problem with card and word, not taken for a light.

    The name of the file may still tell.
    """
    cards = header({"IMAGETYP": "Tricolor; x", "EXPTIME": 30.0, "FILTER": "V"})
    row = read_header(cards, path="night/a.fits")
    assert row["kind"] == "" and "; " not in row["problem"]
    assert "looked for KIND, IMAGETYP, FRAMETYP" in row["problem"]
    assert "IMAGETYP = 'Tricolor, x'" in row["problem"] and "[[frames]]" in row["problem"]
    assert read_header(cards, path="flats/a.fits")["kind"] == "flat"


def test_user_cards_are_named_in_problems():
    """HD-02, 003-03: the cards of the night file are among those looked for."""
    row = read_header(header({"IMAGETYP": "LIGHT"}), synonyms={"exptime": ("MYEXP",)})
    assert "(looked for MYEXP, EXPTIME, " in row["problem"]
    row = read_header(header({"IMAGETYP": "LIGHT", "EXPTIME": -1.0}))
    assert "EXPTIME = -1.0" in row["problem"]


def test_name_against_header():
    """HD-02: a light frame in a folder of flats is believed to be a light, with a warning."""
    cards = header({"IMAGETYP": "LIGHT", "EXPTIME": 30.0, "DATE-OBS": "2020-01-01T00:00:00"})
    row = read_header(cards, path="flats/001.fits")
    assert row["kind"] == "light"
    assert "IMAGETYP = 'LIGHT', but the name 'flats' says flat" in row["warning"]
    assert read_header(cards, path="lights/001.fits")["warning"] == ""


def test_flat_kind():
    """000-07: how a flat was lit is told by its header, where it tells, and never needed."""
    for cards, kind in (
        ({"IMAGETYP": "Sky Flat"}, "sky"),
        ({"OBSTYPE": "SKYFLAT"}, "sky"),
        ({"IMAGETYP": "FLAT", "OBJECT": "twilight flat V"}, "sky"),
        ({"IMAGETYP": "DOME FLAT"}, "dome"),
        ({"IMAGETYP": "FLAT", "OBJECT": "flat panel"}, "panel"),
        ({"IMAGETYP": "Flat Field"}, ""),
    ):
        row = read_header(header(cards))
        assert (row["kind"], row["flat_kind"], row["problem"]) == ("flat", kind, "")
    assert read_header(header({"IMAGETYP": "LIGHT", "OBJECT": "dome"}))["flat_kind"] == ""


def test_calibrated_by_the_camera_is_a_warning():
    """000-12: what MaxIm DL has calibrated already is said before it is calibrated again."""
    assert "CALSTAT = 'BDF'" in read_header(header(NINA | {"CALSTAT": "BDF"}))["warning"]
    assert read_header(header(NINA | {"CALSTAT": "  "}))["warning"] == ""


def test_sharpcap_headers():
    """HD-02: SharpCap: FRAMETYP, no IMAGETYP, black level as offset."""
    cards = {"FRAMETYP": "Dark", "EXPTIME": 10.0, "GAIN": 150, "BLKLEVEL": 20, "FILTER": "g"}
    row = read_header(header(cards))
    assert (row["kind"], row["gain_setting"], row["offset"]) == ("dark", 150, 20)


def test_kind_from_names_as_last_resort():
    """HD-02: without a card the object's name tells the kind, then the file's, the folder's."""
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
    """E39, HD-02: numbers are degrees, sexagesimal right ascensions hours; -0 keeps its sign."""
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
    """HD-02: fractions, Z, offsets, two cards, old dates, other time scales, Julian dates."""
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
    """HD-05: Bayer frames and cubes have a problem with the card and what to do."""
    row = read_header(header(NINA | {"BAYERPAT": "RGGB"}))
    assert "colour" in row["problem"] and "extract" in row["problem"]
    assert "BAYERPAT = 'RGGB'" in row["problem"]
    assert "COLORTYP = 2" in read_header(header(NINA | {"COLORTYP": 2}))["problem"]
    for grey in ({"COLORTYP": 0}, {"BAYERPAT": "MONO"}, {"BAYERPAT": ""}):
        assert read_header(header(NINA | grey))["problem"] == ""
    assert "3 axes" in read_header(header(NINA | {"NAXIS": 3}))["problem"]


def test_unreadable_card_is_missing():
    """HD-03: a card outside the FITS standard is as good as none."""
    cards = fits.Header.fromstring("EXPTIME =  6 0.0 0 / bad".ljust(80) + "FILTER  = ".ljust(80))
    row = read_header(cards)
    assert row["filter"] == "" and isinstance(row["exptime"], float)


def test_maxim_headers():
    """HD-02: MaxIm DL: sexagesimal pointing and site, scale from pixel size and focal length."""
    row = read_header(real_header("header-zoo/maximdl_5_21_header.fit"))
    assert (row["kind"], row["filter"], row["object"]) == ("light", "R", "ey-uma")
    assert row["ra"] == pytest.approx(135.5917, abs=1e-4)
    assert row["longitude"] == pytest.approx(-97.2033, abs=1e-4)
    assert row["scale"] == pytest.approx(0.5583, abs=1e-4)


#: What each header of the zoo says, read by eye: kind, filter, exposure (s), start (UTC), object,
#: sensor temperature (deg C), right ascension (deg).
ZOO = {
    "aspen_trimmed": ("flat", "R", 1.0, "2017-04-12T03:28:40", "", -7.91, NAN),
    "biastest1": ("bias", "", 0.0, "2012-02-06T11:45:25", "", -35.03, 210.804),
    "biastest2": ("bias", "", 0.0, "2012-02-06T03:04:58", "", -34.87, 103.021),
    "biastest3": ("bias", "", 0.0, "2012-02-06T03:17:08", "", -35.16, 103.021),
    "biastest4": ("bias", "", 0.0, "2012-02-06T04:15:37", "", -35.09, 103.021),
    "biastest5": ("bias", "", 0.0, "2012-02-06T07:01:33", "", -35.12, 103.021),
    "celestron_nightscape_10100_astro_fx_v106": (
        *("light", "", 60.0, "2016-06-29T04:58:11", "Mette", -5.94, NAN),
    ),
    "darktest1": ("dark", "", 30.0, "2012-02-06T11:45:25", "", -35.03, 210.804),
    "darktest2": ("dark", "", 30.0, "2012-02-06T03:04:58", "", -34.87, 103.021),
    "darktest3": ("dark", "", 30.0, "2012-02-06T03:17:08", "", -35.16, 103.021),
    "darktest4": ("dark", "", 30.0, "2012-02-06T04:15:37", "", -35.09, 103.021),
    "darktest5": ("dark", "", 30.0, "2012-02-06T07:01:33", "", -35.12, 103.021),
    # Its name says flat, its header IMAGETYP = BIAS and 0 s.
    "flattest": ("bias", "", 0.0, "2012-02-06T11:45:25", "", -35.03, 210.804),
    "maximdl_5_21_header": ("light", "R", 90.0, "2013-03-11T03:35:20", "ey-uma", -42.00, 135.592),
    "maximdl_5_23_header": ("light", "B", 90.0, "2013-10-16T06:46:34", "ngc-6946", -40.01, 308.733),
    "maximdl_6_16_header": ("light", "B", 90.0, "2013-10-16T06:46:34", "ngc-6946", -40.01, 308.733),
    "maximdl_6_18_header": (
        *("light", "r", 90.0, "2018-08-23T08:49:30", "kelt-16-b", -19.98, 314.268),
    ),
    "uint16": ("light", "R", 90.0, "2012-06-05T04:17:00", "", -19.91, 210.8125),
    "uint16_missing_filter": ("light", "", 90.0, "2012-06-05T04:17:00", "", -19.91, 210.8125),
    "uint16_no_pointing": ("light", "R", 90.0, "2012-06-05T04:17:00", "", -19.91, NAN),
    "uint16_not_m101": ("light", "R", 90.0, "2012-06-05T04:17:00", "", -19.91, 210.8125),
}


@pytest.mark.real
@pytest.mark.parametrize("name", ZOO)
def test_header_zoo(name):
    """HD-01, HD-02, E04: each of the 21 headers is classified as it was read by eye."""
    row = read_header(real_header(f"header-zoo/{name}.fit"))
    kind, band, exptime, start, target, temperature, ra = ZOO[name]
    assert (row["kind"], row["filter"], row["exptime"]) == (kind, band, exptime)
    assert (row["date_obs"], row["object"]) == (f"{start}.000", target)
    assert row["temperature"] == pytest.approx(temperature, abs=0.006)
    assert row["ra"] == pytest.approx(ra, abs=0.001, nan_ok=True)
    assert ("COLORTYP = 2" in row["problem"]) == name.startswith("celestron")
    assert row["warning"] == "" and len(list((shared_data() / "header-zoo").glob("*.fit"))) == 21


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
