"""Frames are listed, read and written without a raw file ever being touched."""

import dataclasses
import gzip
import hashlib
import logging
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS, Sip

from datared import frames
from datared.errors import ConfigError, FrameError
from datared.fitswriter import write_images
from datared.frames import (
    count_groups,
    inventory,
    product_name,
    read_frame,
    read_product,
    select_lights,
    write_product,
)
from datared.listing import evening_date
from datared.matching import match_frames, plan_masters
from datared.night import Camera, FrameRule, Site, make_night
from datared.pixels import HOT, NONFINITE, SATURATED

SHAPE = (6, 8)


def write(path, *, data=None, **cards):
    """Write a raw frame with some cards (underscores stand for hyphens)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.full(SHAPE, 100, dtype=np.uint16) if data is None else data
    hdu = fits.PrimaryHDU(data)
    standard = {"IMAGETYP": "LIGHT", "EXPTIME": 30.0, "FILTER": "r", "OBJECT": "M 1"}
    for key, value in (standard | cards).items():
        if value is not None:
            hdu.header[key.replace("_", "-")] = value
    hdu.writeto(path)
    return path


@pytest.fixture
def raw(tmp_path):
    """Make an empty raw folder."""
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def night_of(raw, **options):
    """Night with a raw folder."""
    return make_night(raw, work=raw.parent / "work", **options)


def replaced(night, **values):
    """Night with other values."""
    return dataclasses.replace(night, **values)


def shared_data():
    """Folder with the real files, or skip."""
    folder = os.environ.get("DATARED_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not Path(folder).is_dir():
        pytest.skip("the real data are not here: set DATARED_DATA")
    return Path(folder)


def checksums(folder):
    """Check sums of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- inventory ---------------------------------------------------------------------------------


def test_inventory_counts(raw):
    """HD-01, 002-01: all kinds mixed in one folder are sorted by header; counts are right."""
    for index in range(3):
        write(raw / f"x{index}.fits", IMAGETYP="BIAS", EXPTIME=0.0, FILTER="g")
        write(raw / f"y{index}.fits", IMAGETYP="DARK", EXPTIME=60.0)
        write(raw / f"z{index}.fits", IMAGETYP="FLAT", FILTER="g" if index else "r")
        write(raw / f"l{index}.fits", FILTER="g")
    table = inventory(night_of(raw))
    assert len(table) == 12 and list(table["file"]) == sorted(table["file"])
    groups = {
        (row["kind"], row["filter"]): (row["exptime"], row["frames"]) for row in count_groups(table)
    }
    assert groups == {
        ("bias", ""): (0.0, 3),
        ("dark", ""): (60.0, 3),
        ("flat", "g"): (30.0, 2),
        ("flat", "r"): (30.0, 1),
        ("light", "g"): (30.0, 3),
    }


def test_inventory_of_nothing(raw):
    """HD-01: no file is an error that says where and what was looked for."""
    with pytest.raises(ConfigError, match="no FITS file under"):
        inventory(night_of(raw))


def test_file_variety(raw):
    """HD-05: endings in any case, compressed, in sub-folders, image not in the first unit."""
    source = write(raw / "a.fits")
    shutil.copy(source, raw / "b.FIT")
    shutil.copy(source, raw / "c.Fts")
    (raw / "sub" / "deep").mkdir(parents=True)
    for name in ("d.fits.gz", "g.FTS.GZ"):
        with gzip.open(raw / "sub" / name, "wb") as stream:
            stream.write(source.read_bytes())
    header = fits.getheader(source)
    data = fits.getdata(source)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, header)]).writeto(raw / "e.fits.fz")
    # A smooth image is far smaller in the file than its header says: that is no truncation.
    smooth = fits.CompImageHDU(np.full((200, 300), 100, np.int16), fits.Header({"FILTER": "r"}))
    fits.HDUList([fits.PrimaryHDU(), smooth]).writeto(raw / "light_g.fz")
    assert (raw / "light_g.fz").stat().st_size < 200 * 300
    smooth_row = next(row for row in inventory(night_of(raw)) if row["file"] == "light_g.fz")
    assert (smooth_row["kind"], smooth_row["nx"]) == ("light", 300)
    assert "truncated" not in smooth_row["problem"]
    (raw / "light_g.fz").unlink()
    table_hdu = fits.BinTableHDU.from_columns([fits.Column("n", "J", array=[1])])
    fits.HDUList([fits.PrimaryHDU(), table_hdu, fits.ImageHDU(data, header)]).writeto(
        raw / "sub" / "deep" / "f.fits"
    )
    (raw / "notes.txt").write_text("no frame")
    (raw / "._a.fits").write_text("what another system leaves behind")
    table = inventory(night_of(raw))
    names = ["a.fits", "b.FIT", "c.Fts", "e.fits.fz", "sub/d.fits.gz", "sub/deep/f.fits"]
    names.append("sub/g.FTS.GZ")
    assert list(table["file"]) == names and set(table["problem"]) == {""}
    assert set(table["setup"]) == {"8x6 bin1x1"} and set(table["filter"]) == {"r"}
    for path in table["path"]:
        ccd = read_frame(path)
        assert ccd.data.dtype == np.dtype("f4") and ccd.data.dtype.isnative
        np.testing.assert_array_equal(ccd.data, 100.0)
    assert len({product_name(name) for name in names}) == len(names)


def test_e21_corrupt_files_listed(raw, caplog):
    """E21, HD-05: truncated, empty and text files are listed with a reason; others are used."""
    good = write(raw / "good.fits", data=np.zeros((50, 60), np.uint16))
    content = good.read_bytes()
    (raw / "cut.fits").write_bytes(content[:-3000])
    (raw / "text.fits").write_text("this is no FITS file")
    (raw / "empty.fits").write_bytes(b"")
    with gzip.open(raw / "cut.fits.gz", "wb") as stream:
        stream.write(content)
    packed = (raw / "cut.fits.gz").read_bytes()
    (raw / "cut.fits.gz").write_bytes(packed[: len(packed) // 2])
    fits.HDUList(
        [fits.PrimaryHDU(), fits.CompImageHDU(np.arange(3000, dtype=np.int16).reshape(50, 60))]
    ).writeto(raw / "cut2.fz")
    (raw / "cut2.fz").write_bytes((raw / "cut2.fz").read_bytes()[:-2880])
    fits.PrimaryHDU().writeto(raw / "noimage.fits")
    with caplog.at_level(logging.WARNING, "datared"):
        table = inventory(night_of(raw))
    problems = {row["file"]: row["problem"] for row in table}
    assert problems.pop("good.fits") == ""
    assert "truncated" in problems["cut.fits"] and "truncated" in problems["cut2.fz"]
    assert "no image" in problems["noimage.fits"]
    assert all(problems.values()) and len(problems) == 6
    assert all(name in caplog.text for name in problems)
    for name in problems:
        with pytest.raises(FrameError):
            read_frame(raw / name)


def test_cube_and_bayer_refused(raw):
    """HD-05: a cube and a colour frame have a problem with advice; reading a cube raises."""
    write(raw / "cube.fits", data=np.zeros((3, 4, 5), np.uint16))
    write(raw / "bayer.fits", BAYERPAT="RGGB")
    table = inventory(night_of(raw))
    assert "colour" in table["problem"][0] and "3 axes" in table["problem"][1]
    with pytest.raises(FrameError, match="2 axes"):
        read_frame(raw / "cube.fits")


def test_no_filter_anywhere(raw):
    """E02, HD-03: without any filter card the lights and flats share one pseudo-filter."""
    write(raw / "a.fits", FILTER=None)
    write(raw / "b.fits", FILTER=None, IMAGETYP="FLAT")
    write(raw / "c.fits", FILTER="g", IMAGETYP="DARK")
    assert list(inventory(night_of(raw))["filter"]) == ["none", "none", "g"]


def test_e02_missing_filter_refused(raw):
    """E02, HD-03: a light without filter beside others is a problem; a rule mends it."""
    write(raw / "a.fits", FILTER="")
    write(raw / "b.fits")
    night = night_of(raw)
    reason = inventory(night)["problem"][0]
    assert reason.startswith("no filter in the header (looked for FILTER, INSFILTE, ")
    named = inventory(replaced(night, headers={"filter": ("MYFILT",)}))["problem"][0]
    assert "(looked for MYFILT, FILTER, " in named
    table = inventory(replaced(night, rules=(FrameRule(match="a*", filter="g"),)))
    assert list(table["filter"]) == ["g", "r"] and set(table["problem"]) == {""}


@pytest.mark.parametrize(
    "cards", [{"XBINNING": 2, "YBINNING": 2}, {"GAIN": 30}, {"OFFSET": 5}, {"READOUTM": "Fast"}]
)
def test_e08_e09_setups_differ(raw, cards):
    """E08, E09, HD-04: binning, gain setting, offset and readout mode make other set-ups."""
    write(raw / "a.fits")
    write(raw / "b.fits", **cards)
    assert len(set(inventory(night_of(raw))["setup"])) == 2


def test_header_overrides(raw):
    """003-03: rules win over headers, later over earlier; what they supply is no problem."""
    write(
        raw / "science" / "a.fits",
        IMAGETYP="what",
        EXPTIME=None,
        OBJECT="x",
        DATE_OBS="2020-01-01T00:00:00",
    )
    write(raw / "science" / "b.fits")
    night = night_of(raw)
    table = inventory(night)
    assert "kind of frame" in table["problem"][0] or table["kind"][0] == "light"
    rules = (
        FrameRule(match="science/*", object="NGC 6819", kind="light"),
        FrameRule(match="science/a*", exptime=10.0, object="SA 111"),
    )
    table = inventory(replaced(night, rules=rules))
    assert list(table["object"]) == ["SA 111", "NGC 6819"] and list(table["kind"]) == ["light"] * 2
    assert set(table["problem"]) == {""} and table["exptime"][0] == 10.0
    assert (table["jd_utc_mid"][0] - table["jd_utc_start"][0]) * 86400 == pytest.approx(5, abs=1e-4)
    rules = (FrameRule(match="*b.fits", exclude="trailed"),)
    assert "trailed" in inventory(replaced(night, rules=rules))["problem"][1]


def test_user_synonyms(raw):
    """HD-02: a card named in the night file is read first."""
    write(raw / "a.fits", MYFILT="Ha")
    night = replaced(night_of(raw), headers={"filter": ("MYFILT",)})
    assert inventory(night)["filter"][0] == "Ha"


def test_two_targets_one_night(raw):
    """003-01, 003-04, E35: objects are told apart, ignoring case and blanks but nothing else."""
    for index, name in enumerate(("ASAS", "asas", " ASAS ", "ASAS-2", "M 1")):
        write(raw / f"{index}.fits", OBJECT=name)
    write(raw / "dark.fits", OBJECT="ASAS", IMAGETYP="DARK")
    night = night_of(raw)
    table = inventory(night)
    for name in ("ASAS", "asas", " ASAS "):
        assert len(select_lights(table, night, object=name)) == 3
    assert len(select_lights(table, night, object="AS")) == 0
    assert len(select_lights(table, night)) == 5
    assert list(select_lights(table, replaced(night, object="m1"))["file"]) == ["4.fits"]


def test_two_targets_one_night_of_several(raw, caplog):
    """003-01, E41: date and object choose among several nights and targets in one tree.

    The night goes on after midnight; calibration frames of any date stay.
    """
    for folder, times in {
        "260213": ("2026-02-13T21:00:00", "2026-02-14T05:00:00"),
        "260214": ("2026-02-14T18:00:00", "2026-02-15T00:10:00", "2026-02-15T10:59:00"),
        "260215": ("2026-02-15T19:00:00",),
    }.items():
        for index, time in enumerate(times):
            for name in ("ASAS", "M 1"):
                write(raw / folder / f"{name}{index}.fits", OBJECT=name, DATE_OBS=time)
        write(raw / folder / "bias.fits", IMAGETYP="BIAS", EXPTIME=0.0, DATE_OBS=times[0])
    write(raw / "no-time.fits")
    night = night_of(raw, date="2026-02-14", object="asas")
    table = inventory(night)
    assert list(select_lights(table, night)["file"]) == [f"260214/ASAS{i}.fits" for i in range(3)]
    assert len(select_lights(table, replaced(night, object=None))) == 6
    assert list(table["kind"]).count("bias") == 3 and not any(table["problem"])
    assert "1 light frames without a time: left out of 2026-02-14" in caplog.text
    assert len(select_lights(table, replaced(night, date="2026-02-16"))) == 0
    assert "no light frame of the night 2026-02-16; there are: 2026-02-13, " in caplog.text


@pytest.mark.parametrize(
    ("longitude", "nights"),
    [
        # 09:30 and 10:30 UTC are 23:10 and 0:10 of the same night in Hawaii, the morning in Bonn;
        # 11:45 and 12:15 UTC are before and after local noon at 0 degrees only.
        (None, ["13", "13", "13", "14"]),
        (0.0, ["13", "13", "13", "14"]),
        (7.1, ["13", "13", "14", "14"]),
        (-155.5, ["13", "13", "13", "13"]),
        (149.1, ["14", "14", "14", "14"]),
    ],
)
def test_night_begins_at_local_noon(raw, longitude, nights):
    """003-01: a night is from noon to noon in local mean time: of site, else header, else UTC."""
    for index, clock in enumerate(("09:30", "10:30", "11:45", "12:15")):
        write(raw / f"{index}.fits", DATE_OBS=f"2026-02-14T{clock}:00", SITELONG=longitude)
    night = night_of(raw)
    assert list(inventory(night)["night"]) == [f"2026-02-{day}" for day in nights]
    site = Site(latitude=20.0, longitude=-155.5)
    assert set(inventory(replaced(night, site=site))["night"]) == {"2026-02-13"}


def test_evening_date_of_the_calendar():
    """003-01: the date is that of the calendar, by an independent conversion (astropy's)."""
    from astropy.time import Time

    for date in ("2000-02-29", "2024-12-31", "2026-02-14", "1999-01-01"):
        noon = Time(f"{date}T12:00:00", scale="utc").jd
        for hours in (0.01, 12, 23.99):
            assert evening_date(noon + hours / 24) == date
        assert evening_date(noon - 0.01) < date
    assert evening_date(float("nan")) == evening_date(0.0) == ""


def test_exclude_filters(raw):
    """E04, 002-13: excluded filters are left out by their exact name."""
    for name in ("B", "b", "V"):
        write(raw / f"{name}.fits" if name != "b" else raw / "small.fits", FILTER=name)
    night = night_of(raw, exclude_filters=("B",))
    assert set(select_lights(inventory(night), night)["filter"]) == {"b", "V"}
    assert len(select_lights(inventory(night), night, filter="V")) == 1


def test_e41_time_order(raw):
    """E41: frames over midnight are ordered by time where asked for; unknown ones come last."""
    write(raw / "a.fits", DATE_OBS="2020-01-02T00:10:00")
    write(raw / "b.fits", DATE_OBS="2020-01-01T23:50:00")
    write(raw / "0.fits")
    night = night_of(raw)
    assert list(inventory(night, order="time")["file"]) == ["b.fits", "a.fits", "0.fits"]
    assert list(inventory(night)["file"]) == ["0.fits", "a.fits", "b.fits"]
    with pytest.raises(ValueError, match="order must be"):
        inventory(night, order="size")


def test_umbc_layout(raw):
    """002-12, 002-02: lights here, calibration there in a folder per exposure; same names."""
    write(raw / "001.fits")
    calibration = raw.parent / "calib"
    for seconds in (8, 150):
        write(calibration / f"darks_{seconds:02d}" / "001.fits", IMAGETYP="DARK", EXPTIME=seconds)
    write(calibration / "001.fits", IMAGETYP="BIAS", EXPTIME=0)
    table = inventory(night_of(raw, calibration=calibration))
    assert len(table) == 4 and len(set(table["file"])) == 4
    assert sorted(table["kind"]) == ["bias", "dark", "dark", "light"]
    # The same folder given twice is listed once.
    assert len(inventory(night_of(raw, calibration=raw))) == 1


def test_folder_of_calibration_tells_the_kind(raw):
    """002-12: frames without any word for their kind are darks in a folder that is called darks."""
    write(raw / "001.fits")
    darks = raw.parent / "darks"
    write(darks / "001.fits", IMAGETYP=None, OBJECT="")
    write(darks / "30s" / "002.fits", IMAGETYP=None, OBJECT="")
    table = inventory(night_of(raw, calibration=darks))
    assert sorted(table["kind"]) == ["dark", "dark", "light"]


def test_e20_products_among_raw_frames_are_refused(raw):
    """E20, HD-07: what an earlier reduction left in the raw folder is listed and never combined."""
    write(raw / "bias.fits", IMAGETYP="BIAS", EXPTIME=0.0)
    ccd = read_frame(raw / "bias.fits")
    write_product(ccd, raw / "old" / "bias.fits", header_cards={"KIND": "bias", "MASTER": "b"})
    write_product(ccd, raw / "old" / "a.fits", header_cards={"KIND": "light", "RAWFILE": "a.fits"})
    table = inventory(night_of(raw))
    problems = dict(zip(table["file"], table["problem"], strict=True))
    assert problems["bias.fits"] == ""
    assert "a product of an earlier reduction (it has the card MASTER)" in problems["old/bias.fits"]
    assert "card RAWFILE" in problems["old/a.fits"]


#: Cards of a usual header, one for each word of the vocabulary.
CARDS = {
    "DATE_OBS": "2026-02-14T20:00:00", "XBINNING": 1, "YBINNING": 1, "GAIN": 30, "OFFSET": 10,
    "CCD_TEMP": -10.0, "RA": 10.0, "DEC": 20.0, "SITELAT": 50.0, "SITELONG": 7.0,
    "SITEELEV": 60.0, "PIERSIDE": "East", "READOUTM": "Fast", "AIRMASS": 1.2, "SCALE": 0.6,
}  # fmt: skip


@pytest.mark.parametrize("missing", [*CARDS, "IMAGETYP", "EXPTIME", "FILTER", "OBJECT"])
def test_missing_keyword_in_a_night(raw, missing):
    """HD-03: one light without a keyword is listed and matched; exposure and filter are needed."""
    for kind, count in (("BIAS", 2), ("DARK", 2), ("FLAT", 2), ("LIGHT", 2)):
        for index in range(count):
            write(raw / f"{kind}{index}.fits", **CARDS | {"IMAGETYP": kind})
    (raw / "LIGHT1.fits").unlink()
    write(raw / "LIGHT1.fits", **CARDS | {missing: None})
    night = night_of(raw)
    table = inventory(night)
    assert list(table["kind"]).count("light") == 2
    needed = missing in ("EXPTIME", "FILTER")
    assert [bool(problem) for problem in table["problem"]] == [False] * 7 + [needed]
    lights = select_lights(table, night)
    result = match_frames(lights, plan_masters(table))
    assert len(result) == 2 - needed
    whole = ["bias", "dark_30s", "flat_r"]
    # Another set-up has no masters, and is not mixed with this one.
    apart = missing in ("GAIN", "OFFSET", "READOUTM")
    for row, names in zip(result, [whole, ["", "", ""] if apart else whole], strict=False):
        assert list(row["bias", "dark", "flat"]) == names


def test_e44_raw_is_never_written(raw):
    """E44, CF-02: with a read-only raw tree everything works, and no byte of it changes."""
    write(raw / "a.fits")
    write(raw / "sub" / "b.fits")
    before = checksums(raw)
    for path in [*raw.rglob("*"), raw]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        night = night_of(raw)
        for path in inventory(night)["path"]:
            write_product(read_frame(path), night.work / "p.fits")
        assert checksums(raw) == before
    finally:
        for path in [raw, *raw.rglob("*")]:
            path.chmod(0o755)


def test_open_is_read_only(raw, monkeypatch):
    """CF-02: raw files are opened for reading only (root could write to a read-only tree)."""
    path = write(raw / "a.fits")
    modes = []
    original = fits.open

    def spy(*args, **kwargs):
        modes.append(kwargs.get("mode", "readonly"))
        return original(*args, **kwargs)

    monkeypatch.setattr(fits, "open", spy)
    inventory(night_of(raw))
    read_frame(path)
    assert modes == ["readonly", "readonly"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("a/b.fits", "a_b.fits"),
        ("a/b.fits", "a__b.fits"),
        ("a b.fits", "a_b.fits"),
        ("a.fits", "a.fit"),
        ("a.fits.gz", "a.fits.fits"),
        ("ä.fits", "ö.fits"),
        ("x" * 200 + "1.fits", "x" * 200 + "2.fits"),
    ],
)
def test_e42_safe_product_names(a, b):
    """E42: names are safe and differ where the files do."""
    names = product_name(a), product_name(b)
    assert names[0] != names[1]
    for name in names:
        assert len(name) < 150 and not set(name) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-"
        )
    assert product_name("../../etc/passwd").count("/") == 0
    assert not product_name("../x.fits").startswith(".")


# --- reading -----------------------------------------------------------------------------------


def test_uint16_never_wraps(raw):
    """HD-06, E19, E46: 100 - 110 is -10, not 65526, also with ccdproc."""
    one = read_frame(write(raw / "a.fits", data=np.full(SHAPE, 100, np.uint16)))
    two = read_frame(write(raw / "b.fits", data=np.full(SHAPE, 110, np.uint16)))
    assert one.data.dtype == np.float32
    np.testing.assert_array_equal(one.data - two.data, -10.0)
    np.testing.assert_array_equal(one.subtract(two).data, -10.0)
    import ccdproc

    np.testing.assert_array_equal(ccdproc.subtract_bias(one, two).data, -10.0)


@pytest.mark.parametrize(
    ("dtype", "ending"),
    [(dtype, "fits") for dtype in ("u1", "i2", "u2", "i4", "u4", "f4", "f8")]
    + [(dtype, "fits.fz") for dtype in ("u1", "i2", "u2", "i4", "f4", "f8")],
)
def test_numeric_types(raw, dtype, ending):
    """HD-06: every number type comes out as native float32 with the right values."""
    values = np.arange(48).reshape(SHAPE).astype(dtype)
    path = raw / f"a.{ending}"
    if ending == "fits":
        fits.PrimaryHDU(values).writeto(path)
    else:
        lossless = {"compression_type": "GZIP_1", "quantize_level": 0}
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(values, **lossless)]).writeto(path)
    ccd = read_frame(path)
    assert ccd.data.dtype == np.dtype("f4") and ccd.data.flags.c_contiguous
    np.testing.assert_array_equal(ccd.data, np.arange(48.0).reshape(SHAPE))


def test_scaling_and_blank(raw):
    """HD-06: BSCALE and BZERO are applied, BLANK is NaN and flagged, the cards are dropped."""
    hdu = fits.PrimaryHDU(np.array([[0, 10], [-5, 20]], dtype=np.int16))
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 2.0, 1000.0, -5
    # astropy would scale the numbers back while writing; the bytes are put together by hand.
    header = hdu.header.tostring()
    pixels = np.array([[0, 10], [-5, 20]], dtype=">i2").tobytes().ljust(2880, b"\0")
    (raw / "a.fits").write_bytes(header.encode() + pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ccd = read_frame(raw / "a.fits")
    np.testing.assert_array_equal(ccd.data, [[1000.0, 1020.0], [np.nan, 1040.0]])
    assert ccd.flags.tolist() == [[0, 0], [NONFINITE, 0]] and ccd.mask.sum() == 1
    assert not {"BSCALE", "BZERO", "BLANK"} & set(ccd.meta)


def test_e30_saturation_from_raw(raw):
    """PX-01: saturated pixels: camera, then header, then 98 % of the type's range."""
    data = np.full((12, 12), 1000, np.uint16)
    places = ([2, 2, 8, 8], [2, 8, 2, 8])  # So far apart that no neighbours are shared.
    data[places] = 3000, 50000, 64300, 65535
    path = write(raw / "a.fits", data=data)

    def count(ccd):
        assert np.count_nonzero(ccd.flags) == 9 * np.count_nonzero(ccd.flags[places])
        return np.count_nonzero(ccd.flags[places] & SATURATED)

    assert count(read_frame(path)) == 2
    assert count(read_frame(path, camera=Camera(saturation=50000))) == 3
    assert count(read_frame(path, camera=Camera())) == 2
    assert count(read_frame(write(raw / "b.fits", data=data, SATURATE=2500.0))) == 4
    assert count(read_frame(write(raw / "c.fits", data=data.astype("f4")))) == 0
    ccd = read_frame(path)
    assert ccd.flags.dtype == np.uint16 and ccd.unit == u.adu
    np.testing.assert_array_equal(ccd.mask, ccd.flags != 0)


def test_e24_sip_is_repaired(raw):
    """SIP terms without the name in CTYPE, or the name without terms, give a right WCS."""
    wcs = sip_wcs()
    for name, order in (("RA---TAN", True), ("RA---TAN-SIP", False)):
        header = wcs.to_header(relax=True)
        header["CTYPE1"], header["CTYPE2"] = name, name.replace("RA-", "DEC")
        if not order:
            for key in [k for k in header if k[:2] in ("A_", "B_")]:
                del header[key]
        path = raw / f"{order}.fits"
        fits.PrimaryHDU(np.zeros(SHAPE, np.float32), header).writeto(path)
        read = read_frame(path).wcs
        assert (read.sip is not None) == order
        assert read.wcs.ctype[0] == ("RA---TAN-SIP" if order else "RA---TAN")
    assert read_frame(write(raw / "none.fits")).wcs is None


# --- products ----------------------------------------------------------------------------------


def sip_wcs():
    """World coordinates with a distortion of many pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.crval, wcs.wcs.crpix = [210.8, 54.3], [4.0, 3.0]
    wcs.wcs.cd = np.array([[-1.7e-4, 2e-6], [2e-6, 1.7e-4]])
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], b[0, 3] = 1e-3, -2e-4
    wcs.sip = Sip(a, b, np.zeros((4, 4)), np.zeros((4, 4)), wcs.wcs.crpix)
    return wcs


def product(**cards):
    """Product with everything: flags, uncertainty, distortion."""
    rng = np.random.default_rng(3)
    flags = np.zeros(SHAPE, np.uint16)
    flags[1, 2], flags[3, 3] = HOT | 512, SATURATED
    header = fits.Header()
    for key, value in cards.items():
        header[key] = value
    return CCDData(
        rng.normal(100, 5, SHAPE).astype(np.float32),
        unit=u.adu,
        mask=flags != 0,
        flags=flags,
        uncertainty=StdDevUncertainty(np.full(SHAPE, 5, np.float32)),
        meta=header,
        wcs=sip_wcs(),
    )


def test_product_roundtrip(tmp_path):
    """Pixels, bits, uncertainty, unit, cards and the distorted WCS survive the disk."""
    ccd = product(OBJECT="M 1", NCOMBINE=3)
    path = tmp_path / "new" / "p.fits"
    write_product(ccd, path, header_cards={"FWHM": (2.5, "px"), "NCOMBINE": 9, "SKY": np.nan})
    back = read_product(path)
    np.testing.assert_array_equal(back.data, ccd.data)
    np.testing.assert_array_equal(back.flags, ccd.flags)
    np.testing.assert_array_equal(back.mask, ccd.flags != 0)
    np.testing.assert_array_equal(back.uncertainty.array, 5.0)
    assert back.unit == u.adu and back.data.dtype == np.dtype("f4") and back.data.dtype.isnative
    assert (back.meta["FWHM"], back.meta["NCOMBINE"], back.meta["OBJECT"]) == (2.5, 9, "M 1")
    x, y = np.mgrid[0:8:3, 0:6:2].reshape(2, -1)
    sky = ccd.wcs.pixel_to_world(x, y)
    # 12 digits of CRVAL are written: 1e-9 deg, some microarcseconds.
    assert back.wcs.pixel_to_world(x, y).separation(sky).arcsec.max() < 1e-4
    plain = ccd.wcs.deepcopy()
    plain.sip = None
    assert plain.pixel_to_world(x, y).separation(sky).arcsec.max() > 1e-3  # The test can see it.
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK", "UNCERT"]
        assert hdus[0].header["BITPIX"] == -32 and "BZERO" not in hdus[0].header


def test_product_header(tmp_path, raw):
    """Original cards stay; cards outside the standard and HIERARCH cards do not stop writing."""
    path = write(raw / "a.fits", TELESCOP="Dob", GAIN=30)
    content = path.read_bytes()
    odd = [
        "HIERARCH ESO DET OUT1 GAIN = 1.5 / with blanks",
        "ROTATOR = nan / as some programs write",
        "OBSERVER= 'J\u00f6rg'",
        "lowcase = 5",
        "BAD.KEY = 'x'",
        "LONG    = '" + "y" * 60 + "' / " + "z" * 60,
    ]
    cards = b"".join(card.encode("latin-1")[:80].ljust(80) for card in odd)
    end = content.index(b"END" + b" " * 77)
    path.write_bytes((content[:end] + cards + b"END").ljust(2880) + content[2880:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ccd = read_frame(path)
        write_product(ccd, tmp_path / "p.fits", header_cards={"A_LONG_KEYWORD": 3})
        back = read_product(tmp_path / "p.fits")
    assert back.meta["TELESCOP"] == "Dob" and back.meta["GAIN"] == 30
    assert back.meta["ESO DET OUT1 GAIN"] == 1.5 and back.meta["A_LONG_KEYWORD"] == 3
    np.testing.assert_array_equal(back.data, ccd.data)


def test_product_same_bytes(tmp_path):
    """The same input gives the same bytes."""
    for name in ("a.fits", "b.fits"):
        write_product(product(OBJECT="x"), tmp_path / name)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_product_mask_without_flags(tmp_path):
    """A mask without flags is kept as bits."""
    data = np.ones(SHAPE, np.float32)
    data[0, 0] = np.nan
    mask = np.zeros(SHAPE, bool)
    mask[1, 1] = True
    write_product(CCDData(data, unit="electron", mask=mask), tmp_path / "p.fits")
    back = read_product(tmp_path / "p.fits")
    assert back.unit == u.electron and back.uncertainty is None and back.wcs is None
    assert np.argwhere(back.mask).tolist() == [[0, 0], [1, 1]]


def test_products_are_valid_fits(tmp_path):
    """HD-08: what is written is what astropy's own writer gives, to the bit, and verifies."""
    rng = np.random.default_rng(5)
    data = rng.normal(0, 1e4, (301, 407)).astype(np.float32)
    data[3, 4] = np.nan
    bits = rng.integers(0, 65536, data.shape).astype(np.uint16)
    header = fits.Header({"OBJECT": "M 67", "HIERARCH long keyword": 3.5, "LONGTEXT": "x" * 150})
    written, expected = tmp_path / "ours.fits", tmp_path / "astropy.fits"
    write_images([(header, data), (fits.Header({"EXTNAME": "MASK"}), bits)], written)
    hdus = fits.HDUList([fits.PrimaryHDU(data, header), fits.ImageHDU(bits, name="MASK")])
    hdus.writeto(expected)
    with fits.open(written) as ours, fits.open(expected) as theirs:
        ours.verify("exception")
        assert [hdu.name for hdu in ours] == ["PRIMARY", "MASK"]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.data, other.data)
            assert one.data.dtype == other.data.dtype
            assert {c.keyword: c.value for c in one.header.cards} == {
                c.keyword: c.value for c in other.header.cards
            }
    assert written.stat().st_size == expected.stat().st_size


def test_product_is_whole_or_not_there(tmp_path, monkeypatch):
    """A failure while writing leaves the old product and no temporary file."""
    path = tmp_path / "p.fits"
    write_product(product(), path)
    before = path.read_bytes()

    def broken(images, name):
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(frames, "write_images", broken)
    with pytest.raises(OSError, match="disk full"):
        write_product(product(), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_broken_product_is_a_frame_error(tmp_path):
    """A missing or cut product raises the error that stops one frame only."""
    with pytest.raises(FrameError):
        read_product(tmp_path / "none.fits")


# --- real nights -------------------------------------------------------------------------------


@pytest.mark.real
def test_inventory_of_real_nights(tmp_path):
    """142 lights in time order with mid times in UTC; 24 Nickel frames of six groups."""
    night = make_night(shared_data() / "hatp32b-transit", work=tmp_path / "w")
    table = inventory(night, order="time")
    assert len(table) == 142 and set(table["problem"]) == {""} and set(table["kind"]) == {"light"}
    assert list(table["file"]) == sorted(table["file"])
    # 7.04 h from first to last frame (README of the data), one frame in about 3 minutes.
    assert np.ptp(table["jd_utc_mid"]) * 24 == pytest.approx(7.04, abs=0.02)
    np.testing.assert_allclose((table["jd_utc_mid"] - table["jd_utc_start"]) * 86400, 30, atol=1e-3)
    ccd = read_frame(table["path"][0], camera=Camera(saturation=4095))
    assert ccd.data.max() == 4095 and (ccd.flags & SATURATED > 0).any() and ccd.wcs is None
    night = make_night(shared_data() / "nickel-ngc6819", work=tmp_path / "w")
    groups = {
        (r["kind"], r["filter"], r["exptime"]): r["frames"] for r in count_groups(inventory(night))
    }
    assert groups == {
        ("bias", "", 0.0): 3,
        ("dark", "", 60.0): 3,
        ("flat", "B", 30.0): 3,
        ("flat", "V", 10.0): 3,
        ("light", "B", 60.0): 6,
        ("light", "V", 60.0): 6,
    }


@pytest.mark.real
def test_header_zoo_is_listed(tmp_path):
    """HD-01, HD-05, HD-08: all 21 files are listed; two are refused by the name of the keyword.

    Each of them can be read and written.
    """
    table = inventory(make_night(shared_data() / "header-zoo", work=tmp_path / "w"))
    problems = {row["file"]: row["problem"] for row in table if row["problem"]}
    assert len(table) == 21 and len(problems) == 2
    missing = problems.pop("uint16_missing_filter.fit")
    assert missing.startswith("no filter in the header (looked for FILTER, INSFILTE, FILTNAM")
    colour = problems.pop("celestron_nightscape_10100_astro_fx_v106.fit")
    assert colour.startswith("a colour camera's frame (COLORTYP = 2)")
    kinds = list(table["kind"])
    assert [kinds.count(kind) for kind in ("bias", "dark", "flat", "light")] == [6, 5, 1, 9]
    for path in table["path"]:
        ccd = read_frame(path)
        write_product(ccd, tmp_path / "p.fits")
        np.testing.assert_array_equal(read_product(tmp_path / "p.fits").data, ccd.data)
