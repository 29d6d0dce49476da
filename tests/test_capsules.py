"""Tests of the rooms vizier and capsules: asking for catalogues, keeping and checking answers.

The answers are made up, in the form in which VizieR writes them, and go through astroquery's own
parser: names, units and empty cells are what a real answer would give.
"""

import json
import shutil
import types
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from datared import vizier
from datared.capsules import (
    check_capsule,
    covering_capsule,
    fetch_catalogue,
    night_field,
    query_catalogue,
    write_capsule,
)
from datared.catalogs import at_epoch, read_catalogue
from datared.cli import app
from datared.errors import ConfigError, DataredError, DataredWarning
from datared.night import load_night
from datared.render import star_image
from tests.skyfields import MIDDLE, field

CENTER = SkyCoord(0.0, 5.0, unit="deg")

#: Names, types and units of VizieR's columns, and two or three stars of each catalogue.
ANSWERS = {
    "refcat2": (
        "J/ApJ/867/105/refcat2",
        "RA_ICRS,double,deg DE_ICRS,double,deg pmRA,float,mas/yr e_pmRA,float,mas/yr "
        "pmDE,float,mas/yr e_pmDE,float,mas/yr Gmag,float,mag e_Gmag,float,mag gmag,float,mag "
        "e_gmag,float,mag rmag,float,mag e_rmag,float,mag imag,float,mag e_imag,float,mag "
        "zmag,float,mag e_zmag,float,mag dupvar,short,",
        [
            "359.99 5.01 10.0 0.1 -5.0 0.1 14.1 0.01 14.5 0.01 14.0 0.01 13.8 0.01 13.7 0.01 2",
            "0.01 4.99 - - - - 15.1 0.01 15.5 0.02 15.0 0.02 14.8 0.02 14.7 0.02 0",
            "0.05 5.05 1.0 0.1 2.0 0.1 16.1 0.01 16.5 0.02 16.0 0.02 15.8 0.02 - - 1",
        ],
    ),
    "gaia": (
        "I/355/gaiadr3",
        "Source,long, RA_ICRS,double,deg DE_ICRS,double,deg Plx,double,mas e_Plx,float,mas "
        "pmRA,double,mas/yr e_pmRA,float,mas/yr pmDE,double,mas/yr e_pmDE,float,mas/yr "
        "RUWE,double, Gmag,double,mag e_Gmag,double,mag BPmag,double,mag e_BPmag,double,mag "
        "RPmag,double,mag e_RPmag,double,mag",
        [
            "2745000000000000001 0.01 5.01 1.5 0.02 3.0 0.02 4.0 0.02 1.01 "
            "12.0 0.003 12.5 0.004 11.4 0.004",
            "2745000000000000002 0.02 5.02 - - - - - - - 19.0 0.003 - - - -",
        ],
    ),
    "ps1": (
        "II/349/ps1",
        "objID,long, RAJ2000,double,deg DEJ2000,double,deg Epoch,double,d Qual,short, "
        "iKmag,double,mag gmag,double,mag e_gmag,double,mag rmag,double,mag e_rmag,double,mag "
        "imag,double,mag e_imag,double,mag zmag,double,mag e_zmag,double,mag ymag,double,mag "
        "e_ymag,double,mag",
        [
            "114000000000000001 0.01 5.01 56200.5 52 14.82 15.5 0.003 15.0 0.003 14.8 0.003 "
            "14.7 0.003 14.6 0.004",
            "114000000000000002 0.02 5.02 56300.5 61 14.8 15.5 0.003 15.0 0.003 14.8 0.003 "
            "14.7 0.003 14.6 0.004",
            "114000000000000003 0.03 5.03 56300.5 60 - 15.5 0.003 13.1 0.003 - - - - - -",
        ],
    ),
    "sdss": (
        "V/154/sdss16",
        "objID,long, RA_ICRS,double,deg DE_ICRS,double,deg pmRA,double,mas/yr pmDE,double,mas/yr "
        "MJD,int,d mode,short, class,short, clean,short, upmag,float,mag e_upmag,float,mag "
        "gpmag,float,mag e_gpmag,float,mag rpmag,float,mag e_rpmag,float,mag ipmag,float,mag "
        "e_ipmag,float,mag zpmag,float,mag e_zpmag,float,mag",
        [
            "1237000000000000001 0.01 5.01 3.0 -3.0 53000 1 6 1 18.0 0.02 16.0 0.01 15.5 0.01 "
            "15.3 0.01 15.2 0.01",
            "1237000000000000002 0.02 5.02 - - 54000 1 6 1 18.0 0.02 16.0 0.01 15.5 0.01 "
            "15.3 0.01 - -",
        ],
    ),
    "tycho2": (
        "I/259/tyc2",
        "RAmdeg,double,deg DEmdeg,double,deg RA(ICRS),double,deg DE(ICRS),double,deg "
        "EpRA-1990,float,yr pmRA,float,mas/yr pmDE,float,mas/yr BTmag,float,mag e_BTmag,float,mag "
        "VTmag,float,mag e_VTmag,float,mag",
        [
            "0.011 5.011 0.010 5.010 1.5 420.0 420.0 10.5 0.03 10.0 0.02",
            "- - 0.020 5.020 1.75 - - - - 11.0 0.05",
        ],
    ),
}


def votable(name, rows=None):
    """Write the text of VizieR's answer: names, types and units; an empty cell has no value."""
    table, columns, stars = ANSWERS[name]
    fields = [column.split(",") for column in columns.split()]
    rows = stars if rows is None else rows
    text = "".join(
        f'<FIELD name="{n}" ID="f{k}" datatype="{t}"' + (f' unit="{unit}"/>' if unit else "/>")
        for k, (n, t, unit) in enumerate(fields)
    )
    cells = "".join(
        "<TR>" + "".join(f"<TD>{v if v != '-' else ''}</TD>" for v in row.split()) + "</TR>"
        for row in rows
    )
    data = f"<DATA><TABLEDATA>{cells}</TABLEDATA></DATA>" if rows else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><VOTABLE version="1.4" '
        'xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE ID="r" name="c">'
        f'<TABLE ID="t" name="{table}">{text}{data}</TABLE></RESOURCE></VOTABLE>'
    ).encode()


def asked_place(sent):
    """Read the position from the lines of a question."""
    ra, dec = next(line for line in sent if line.startswith("-c="))[3:].split("+")
    return SkyCoord(float(ra), float(dec), unit="deg")


@pytest.fixture
def archive(monkeypatch):
    """Answer in the place of the network; ``sent`` lists the questions that astroquery wrote."""
    from astroquery.vizier import VizierClass

    state = types.SimpleNamespace(sent=[], error=None, rows=None, next_rows=None, timeout=None)

    def request(self, method, url, *, data, timeout, cache):
        state.sent.append(data)
        state.timeout, state.cache = timeout, cache
        if state.error is not None:
            raise state.error
        name = next(n for n, (table, *_) in ANSWERS.items() if f"-source={table}" in data)
        rows = state.rows if state.next_rows is None else state.next_rows()
        return types.SimpleNamespace(content=votable(name, rows))

    monkeypatch.setattr(VizierClass, "_request", request)
    return state


@pytest.mark.parametrize(
    ("name", "bands", "system", "epoch"),
    [
        ("refcat2", "griz", "PS1 AB", 2015.5),
        ("gaia", ("G", "BP", "RP"), "Gaia Vega", 2016.0),
        ("ps1", "grizy", "PS1 AB", 2012.9),
        ("sdss", "ugriz", "SDSS AB", 2005.35),
        ("tycho2", ("BT", "VT"), "Tycho Vega", 1995.9),
    ],
)
def test_catalogue_sources(tmp_path, archive, name, bands, system, epoch):
    """ZP-01: each catalogue is asked by its right name and read with its own system and epoch."""
    stars = query_catalogue(name, CENTER, radius=10, cache=tmp_path)
    assert len(stars) >= 2 and stars.meta["epoch"] == pytest.approx(epoch, abs=0.05)
    for band in bands:
        assert stars[band].meta["system"] == stars[f"{band}_err"].meta["system"] == system
        assert stars[band].unit == u.mag
    sent = archive.sent[0].splitlines()
    assert f"-source={ANSWERS[name][0]}" in sent and "-c.rm=10.0" in sent
    assert asked_place(sent).separation(CENTER).arcsec < 0.1
    asked = next(line for line in sent if line.startswith("-out="))[5:].split(",")
    # What is asked for is what the recorded answer has: no column is left to chance.
    assert sorted(asked) == sorted(c.split(",")[0] for c in ANSWERS[name][1].split())
    assert np.isfinite(np.ma.filled(stars["pm_ra"], np.nan)).all()
    if name == "refcat2":
        assert stars["g"].tolist() == [14.5, 15.5, 16.5] and stars["G"][0] == np.float32(14.1)
    if name == "ps1":  # a galaxy less, and a saturated r without a value
        assert len(stars) == 2 and stars["r"].mask.tolist() == [False, True]
    if name == "gaia":
        assert stars["id"].tolist()[1] == "2745000000000000002" and stars["parallax"].mask[1]


def test_catalogue_cache_hit(tmp_path, archive):
    """004-08: the second question makes no request; query, date, rows and sum are in the file."""
    first = query_catalogue("refcat2", CENTER, radius=10, cache=tmp_path / "cache")
    second = query_catalogue("refcat2", CENTER, radius=10, cache=tmp_path / "cache")
    assert len(archive.sent) == 1 and archive.cache is False
    assert len(first) == len(second) == 3 and second["g"].meta["system"] == "PS1 AB"
    path = fetch_catalogue("refcat2", CENTER, radius=10 * u.arcmin, cache=tmp_path / "cache")
    told = check_capsule(path)
    assert told["table"] == "J/ApJ/867/105/refcat2" and told["asked"][:2] == "20"
    assert (told["rows"], told["rows_answered"], told["row_limit"]) == (3, 3, vizier.ROW_LIMIT)
    assert told["fields"] == [[0.0, 5.0]] and told["radius_arcmin"] == 10.0
    assert "e_gmag" in json.loads(second.meta["query"])["columns"]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [path.name]


@pytest.mark.parametrize("word", [("14.5", "12.5"), ("PS1 AB", "SDSS AB"), ("2015.5", "2000.0")])
def test_catalogue_cache_that_was_changed_is_refused(tmp_path, archive, word):
    """ZP-01: a magnitude, a system or an epoch changed by hand is found by whoever reads."""
    path = write_capsule("refcat2", CENTER, tmp_path / "field.ecsv", radius=10)
    text = path.read_text()
    assert word[0] in text
    path.write_text(text.replace(*word))
    for read in (read_catalogue, check_capsule):
        with pytest.raises(DataredError, match=r"field.ecsv was changed after it was written"):
            read(path)
    with pytest.raises(DataredError, match="was changed"):
        fetch_catalogue("refcat2", CENTER, radius=5, cache=tmp_path)


def test_catalogue_cache_hit_of_a_wider_and_deeper_capsule(tmp_path, archive):
    """ZP-01: a capsule that covers the cone is used; one that is shallower or aside is not."""
    ask = {"cache": tmp_path}
    wide = fetch_catalogue("refcat2", CENTER, radius=30, limit_mag=17, **ask)
    inside = CENTER.directional_offset_by(200 * u.deg, 15 * u.arcmin)
    assert fetch_catalogue("refcat2", inside, radius=15, limit_mag=16, **ask) == wide
    assert covering_capsule(tmp_path, "refcat2", inside, radius=15 * u.arcmin, limit_mag=17) == wide
    for radius, limit in ((15.1, 16), (15, 17.5), (15, None)):
        found = covering_capsule(tmp_path, "refcat2", inside, radius=radius, limit_mag=limit)
        assert found is None
    assert covering_capsule(tmp_path, "gaia", inside, radius=15, limit_mag=16) is None
    assert covering_capsule(tmp_path / "none", "gaia", inside, radius=15) is None
    assert len(archive.sent) == 1
    # The table has only what was asked for: here the two stars within 1.5 arcmin.
    near = query_catalogue("refcat2", CENTER, radius=1.5, limit_mag=14.5, **ask)
    assert len(archive.sent) == 1 and near["r"].tolist() == [14.0]
    (tmp_path / "other.ecsv").write_text("# no table of ours\n1 2\n")
    (tmp_path / "plain.ecsv").write_text("a b\n1 2\n")
    (tmp_path / "picture.ecsv").write_bytes(b"#\xff\xfe\x00")
    assert fetch_catalogue("refcat2", CENTER, radius=30, limit_mag=17, **ask) == wide


def test_catalogue_cache_with_files_of_killed_runs_and_other_versions(tmp_path, archive):
    """E36, ZP-01: what is no whole capsule of this version never hides a good one."""
    good = fetch_catalogue("refcat2", CENTER, radius=10, cache=tmp_path)
    archive.error = ConnectionError("no route")
    text = good.read_text()
    (tmp_path / f".tmp-99-{good.name}").write_text(text[: len(text) * 3 // 4])
    for number, word in enumerate(("fields", "query:", "radius_arcmin", "sha256", "rows:")):
        assert word in text
        other = tmp_path / f"other{number}.ecsv"
        other.write_text(text.replace(word, f"old_{word}"))
        assert fetch_catalogue("refcat2", CENTER, radius=10, cache=tmp_path) == good, word
    other.write_text(text.replace('"fields', '"places').replace("sha256", "sum"))
    with pytest.raises(DataredError, match=r"no capsule.*this version"):
        check_capsule(other)


def test_capsule_cut_off_in_the_middle_is_said_to_be_damaged(tmp_path, archive):
    """ZP-01: a file of which only a part came over is refused in one line that says what to do."""
    path = write_capsule("refcat2", CENTER, tmp_path / "field.ecsv", radius=10)
    text = path.read_text()
    for part in (0.05, 0.5, 0.97):
        path.write_text(text[: int(len(text) * part)])
        with pytest.raises(DataredError, match="a damaged one: get it again") as error:
            read_catalogue(path)
        assert "\n" not in str(error.value)
    # Whole lines that are missing do not make it unreadable; the sum finds it.
    path.write_text("".join(text.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataredError, match="was changed after it was written"):
        read_catalogue(path)


def test_capsule_is_refused_where_it_cannot_be_written(tmp_path, archive):
    """ZP-01: another ending would not be read again; a folder is no file: told without a trace."""
    for name in ("field.csv", "field"):
        with pytest.raises(DataredError, match=r"must end in \.ecsv"):
            write_capsule("refcat2", CENTER, tmp_path / name, radius=10)
    assert not archive.sent and not list(tmp_path.iterdir())
    (tmp_path / "folder.ecsv").mkdir()
    with pytest.raises(DataredError, match="cannot be written"):
        write_capsule("refcat2", CENTER, tmp_path / "folder.ecsv", radius=10)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.ecsv"]


def test_capsule_without_positions_or_names(tmp_path, archive):
    """ZP-01: rows without a place are no stars; a missing name comes back without harm."""
    archive.rows = ["- - " + " ".join("-" * 15)] * 2
    with pytest.raises(DataredError, match="none of its 2 rows is a star with a position"):
        fetch_catalogue("refcat2", CENTER, radius=10, cache=tmp_path)
    assert not list(tmp_path.iterdir())
    archive.rows = ["- 0.01 5.01 " + " ".join("-" * 13), ANSWERS["gaia"][2][1]]
    path = fetch_catalogue("gaia", CENTER, radius=10, cache=tmp_path)
    names = np.ma.filled(read_catalogue(path)["id"], "")
    assert names.tolist() == ["", "2745000000000000002"]


def test_e36_catalogue_offline(tmp_path, archive):
    """E36, ZP-01: without network the cache answers; where it cannot, one message says so."""
    fetch_catalogue("refcat2", CENTER, radius=10, cache=tmp_path)
    archive.error = ConnectionError("no route")
    assert len(query_catalogue("refcat2", CENTER, radius=10, cache=tmp_path)) == 3
    with pytest.raises(DataredError) as error:
        query_catalogue("gaia", CENTER, radius=10, cache=tmp_path)
    text = str(error.value)
    assert "gaia cannot be asked for (no connection to VizieR" in text and "\n" not in text
    assert str(tmp_path) in text and "within 10.0 arcmin of 00h00m00s +05d00m00s" in text
    assert "datared catalog" in text and "[astrometry] catalogue" in text
    # The tests' own lock on the network gives the same message.
    archive.error = OSError("tests have no network")
    with pytest.raises(DataredError, match="no connection to VizieR, OSError"):
        fetch_catalogue("gaia", CENTER, radius=10, cache=tmp_path)


def test_e36_catalogue_time_out(tmp_path, archive):
    """E36: the time-out reaches astroquery, and an answer that does not come is told as such."""
    from requests.exceptions import ReadTimeout

    archive.error = ReadTimeout("HTTPSConnectionPool(host='vizier', port=443): Read timed out.")
    with pytest.raises(DataredError, match="no answer within 7 s: try again"):
        fetch_catalogue("gaia", CENTER, radius=10, cache=tmp_path, timeout=7)
    assert archive.timeout == 7
    archive.error = ValueError("first line\nsecond line")
    with pytest.raises(DataredError, match=r"\(ValueError: first line\)"):
        fetch_catalogue("gaia", CENTER, radius=10, cache=tmp_path)


def test_e36_catalogue_empty_or_cut_off(tmp_path, archive, monkeypatch):
    """E36, ZP-01: an empty answer and one that stops at the row limit are errors."""
    monkeypatch.setattr("datared.vizier.ROW_LIMIT", 3)
    with pytest.raises(DataredError, match=r"cut off at 3 rows.*smaller radius.*--limit-mag"):
        fetch_catalogue("refcat2", CENTER, radius=10, cache=tmp_path)
    assert "-out.max=3" in archive.sent[0]
    archive.rows = []
    with pytest.raises(DataredError, match=r"refcat2 has no star within 10\.0 arcmin of 00h00m00s"):
        fetch_catalogue("refcat2", CENTER, radius=10, cache=tmp_path)
    with pytest.raises(DataredError, match=r"sdss has no star.*third of the sky"):
        fetch_catalogue("sdss", CENTER, radius=10, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_catalogue_refuses_what_means_nothing(tmp_path, archive):
    """ZP-01: an unknown name, no radius, no position: what is valid is said, nothing is asked."""
    with pytest.raises(DataredError, match="valid are refcat2, gaia, ps1, sdss, tycho2"):
        fetch_catalogue("ps9", CENTER, radius=10, cache=tmp_path)
    for radius in (0, -3, np.nan, 700):
        with pytest.raises(DataredError, match="radius between 0 and 600"):
            fetch_catalogue("gaia", CENTER, radius=radius, cache=tmp_path)
    with pytest.raises(DataredError, match="finite position"):
        fetch_catalogue("gaia", SkyCoord(np.nan, 5, unit="deg"), radius=5, cache=tmp_path)
    for limit in (np.nan, np.inf):
        with pytest.raises(DataredError, match="is no magnitude"):
            fetch_catalogue("gaia", CENTER, radius=5, limit_mag=limit, cache=tmp_path)
    assert not archive.sent


def test_catalogue_without_coverage_is_said_before_asking(tmp_path, archive):
    """ZP-01: Pan-STARRS ends at -30 deg: south of it no question is sent; on the edge a warning."""
    south = SkyCoord(10.0, -42.0, unit="deg")
    with pytest.raises(DataredError, match=r"ps1 covers declinations from -30.*at -42\.0.*refcat2"):
        fetch_catalogue("ps1", south, radius=10, cache=tmp_path)
    with pytest.raises(DataredError, match="sdss covers declinations from -26 to 86"):
        fetch_catalogue("sdss", SkyCoord(0.0, 89.0, unit="deg"), radius=10, cache=tmp_path)
    assert not archive.sent
    with pytest.warns(DataredWarning, match="this field reaches beyond"):
        fetch_catalogue("ps1", SkyCoord(10.0, -29.9, unit="deg"), radius=10, cache=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pole = SkyCoord(10.0, 89.95, unit="deg")
        assert fetch_catalogue("ps1", pole, radius=10, cache=tmp_path).is_file()


def test_e38_catalogue_across_ra_zero_and_at_the_pole(tmp_path, archive):
    """E38: the stars left and right of RA 0, and around the pole, are in one cone."""
    stars = query_catalogue("refcat2", CENTER, radius=2, cache=tmp_path)
    assert stars["ra"].tolist() == [359.99, 0.01]
    pole = SkyCoord(0.0, 89.99, unit="deg")
    archive.rows = [
        f"{ra} 89.99 0 0 0 0 14.1 0.01 14.5 0.01 14.0 0.01 13.8 0.01 13.7 0.01 2"
        for ra in (0.0, 90.0, 180.0, 270.0)
    ]
    assert len(query_catalogue("refcat2", pole, radius=1.3, cache=tmp_path)) == 4
    assert asked_place(archive.sent[-1].splitlines()).separation(pole).arcsec < 0.1
    # A capsule around another place of the pole, 1.2 arcmin away, covers a small cone here.
    other = SkyCoord(180.0, 89.99, unit="deg")
    assert len(query_catalogue("refcat2", other, radius=0.1, cache=tmp_path)) == 1
    assert len(archive.sent) == 2


def test_capsule_stars_move_to_the_night(tmp_path, archive):
    """ZP-01: what was written and read again still moves by its proper motions, star by star."""
    path = write_capsule("tycho2", CENTER, tmp_path / "tycho.ecsv", radius=10)
    stars = read_catalogue(path)
    moved = at_epoch(stars, 2451545.0 + 10 * 365.25)
    north = (moved["dec"] - stars["dec"]) * 3600
    np.testing.assert_allclose(north, [4.2, 0.0], atol=2e-3)
    assert stars["epoch"].tolist() == [2000.0, 1991.75] and stars.meta["source"] == "tycho2"


def test_capsule_of_two_fields(tmp_path, archive):
    """ZP-01: target and standard field share one file, each star once where they overlap."""
    near = CENTER.directional_offset_by(0 * u.deg, 30 * u.arcmin)
    far = SkyCoord(40.0, 5.0, unit="deg")
    fields = SkyCoord([CENTER.ra, near.ra, far.ra], [CENTER.dec, near.dec, far.dec])
    path = write_capsule("tycho2", fields, tmp_path / "both.ecsv", radius=10)
    told = check_capsule(path)
    # The stand-in gives the same two stars for every field.
    assert len(archive.sent) == 3 and (told["rows"], told["rows_answered"]) == (2, 6)
    assert told["fields"][2] == [40.0, 5.0]
    stars = read_catalogue(path)
    assert stars["VT"].meta["system"] == "Tycho Vega" and stars["epoch"].tolist() == [2000, 1991.75]
    for place, radius in ((far, 10), (fields, 10), (fields[1:], 4)):
        assert covering_capsule(tmp_path, "tycho2", place, radius=radius) == path
    between = SkyCoord(20.0, 5.0, unit="deg")
    assert covering_capsule(tmp_path, "tycho2", between, radius=1) is None
    assert covering_capsule(tmp_path, "tycho2", fields, radius=11) is None
    one_of_two = SkyCoord([0.0, 20.0], [5.0, 5.0], unit="deg")
    assert covering_capsule(tmp_path, "tycho2", one_of_two, radius=1) is None
    assert len(query_catalogue("tycho2", fields, radius=2, cache=tmp_path)) == 2
    assert len(query_catalogue("tycho2", fields[1:], radius=2, cache=tmp_path)) == 0
    # Two fields of one date each: the dates go into a column.
    replies = iter([[ANSWERS["sdss"][2][0]], [ANSWERS["sdss"][2][1]]])
    archive.next_rows = lambda: next(replies)
    path = write_capsule("sdss", fields[::2], tmp_path / "dates.ecsv", radius=10)
    np.testing.assert_allclose(read_catalogue(path)["epoch"], [2003.98, 2006.72], atol=0.01)


def test_check_capsule_needs_a_capsule(tmp_path):
    """A catalogue without a query is no capsule, and is told so."""
    (tmp_path / "list.csv").write_text("ra,dec\n1,2\n")
    with pytest.raises(DataredError, match="no capsule: it has no query"):
        check_capsule(tmp_path / "list.csv")


def test_night_field():
    """The catalogue of a night reaches beyond the corners by the search radius."""
    lights = {"ra": [np.nan, 10.0, 50.0], "dec": [np.nan, 5.0, 5.0]}
    lights |= {"nx": [3000] * 3, "ny": [4000] * 3, "scale": [np.nan, 1.2, 1.2]}
    night = types.SimpleNamespace(
        target_coord=None,
        camera=types.SimpleNamespace(pixel_scale=None),
        astrometry=types.SimpleNamespace(search_radius=30.0),
    )
    center, radius = night_field(night, lights)
    assert center.ra.deg.tolist() == [10.0, 50.0]
    assert radius.to_value("arcmin") == pytest.approx(55 + 30)
    night.target_coord = SkyCoord(10.2, 5.0, unit="deg")  # 12 arcmin from the first pointing
    assert night_field(night, lights)[0].ra.deg.tolist() == [10.2, 50.0]
    lights["scale"] = [np.nan] * 3
    with pytest.raises(ConfigError, match="pixel_scale"):
        night_field(night, lights)
    night.target_coord, lights["ra"] = None, [np.nan] * 3
    with pytest.raises(ConfigError, match="no catalogue and no position"):
        night_field(night, lights)


def run(*arguments):
    """Run the command; the output has the messages too."""
    result = CliRunner().invoke(app, ["catalog", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_catalog_command_for_a_name(tmp_path, archive, monkeypatch):
    """ZP-01: a file for a field by name: what was written, how many stars, the line to put in."""
    monkeypatch.chdir(tmp_path)
    done = run("NGC 6819", "--radius", 20, "--source", "gaia", "--limit-mag", 18)
    assert done.exit_code == 0, done.output
    assert "gaia_NGC_6819.ecsv: 2 stars of gaia (I/355/gaiadr3) within 20 arcmin" in done.output
    assert "to magnitude 18" in done.output and "asked for on 20" in done.output
    assert 'for night.toml:\n[astrometry]\ncatalogue = "gaia_NGC_6819.ecsv"' in done.output
    assert "Gmag=<18" in archive.sent[0].splitlines()
    assert asked_place(archive.sent[0].splitlines()).separation(
        SkyCoord("19h41m18s +40d11m12s")
    ) < 1 * u.arcmin  # fmt: skip
    named = run("00:00:00 +05:00:00", "--output", tmp_path / "x y" / "mine.ecsv")
    assert named.exit_code == 0 and check_capsule(tmp_path / "x y" / "mine.ecsv")["rows"] == 3
    assert 'catalogue = "x y/mine.ecsv"' in named.output and "within 20 arcmin" in named.output
    # Of a moving star the place of J2000.
    star = run("RR Lyr")
    assert star.exit_code == 0 and "of 291.36629 +42.78436 deg" in star.output


def test_catalog_command_for_a_night(tmp_path, archive, once):
    """ZP-01: the cone of a night is known from its frames; the file lies beside the night file."""

    def make(folder):
        from datared.simulate import simulate_transit

        simulate_transit(folder, seed=3, n_light=6)

    folder = tmp_path / "my night"
    shutil.copytree(once("small-transit", make), folder)
    done = run(folder / "night.toml", "--source", "refcat2")
    assert done.exit_code == 0, done.output
    night = load_night(folder)
    told = check_capsule(next(folder.glob("refcat2_*.ecsv")))
    assert len(told["fields"]) == 1
    assert SkyCoord(*told["fields"][0], unit="deg").separation(night.target_coord).arcsec < 1
    search = night.astrometry.search_radius
    assert search + 1 < told["radius_arcmin"] < search + 10  # 0.55 of a diagonal more
    line = next(line for line in done.output.splitlines() if line.startswith("catalogue = "))
    path = folder / line.split('"')[1]
    assert path.parent == folder
    given = load_night(folder, settings={"astrometry": {"catalogue": path.name}})
    assert given.astrometry.catalogue == path


def test_catalog_command_checks_a_file(tmp_path, archive):
    """ZP-01: --check tells what is in a file, and refuses a changed one with exit code 2."""
    path = write_capsule("refcat2", CENTER, tmp_path / "field.ecsv", radius=10)
    good = run("--check", path)
    assert good.exit_code == 0 and "its SHA-256 is right" in good.output
    path.write_text(path.read_text().replace("14.5", "14.6"))
    bad = run("--check", path)
    assert bad.exit_code == 2 and "datared: " in bad.output and "was changed" in bad.output


def test_e36_catalog_command_errors_are_one_sentence(tmp_path, archive, monkeypatch):
    """E36: nothing named, an unknown catalogue, no network: exit code 2, one line, no file."""
    monkeypatch.chdir(tmp_path)
    archive.error = ConnectionError("no route")
    for arguments, words in (
        ((), "Name one: a night.toml, name or position, or a file to --check"),
        (("M 67", "--check", "x.ecsv"), "Name one"),
        (("M 67", "--source", "ps9"), "valid are refcat2, gaia, ps1, sdss, tycho2"),
        (("M 67",), "no connection to VizieR"),
        (("10 -50", "--source", "ps1"), "ps1 covers declinations"),
        (("M 67", "--radius", "-1"), "radius between 0 and 600"),
        (("nowhere.toml",), "there is no night file"),
        (("--check", "none.ecsv"), "is not there"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2 and words in done.output, done.output
        assert len(done.output.strip().splitlines()) == 1, done.output
    assert not list(tmp_path.iterdir())


def drawn_night(folder, archive):
    """Two raw frames and a night file without a catalogue; the archive answers with its stars."""
    shape = (300, 400)
    scene = field(150, shape=shape, rotation=3, margin=1.5)
    image = star_image(shape, *(scene.sources[c] for c in ("x", "y", "flux")), fwhm=3.0) * 100
    (folder / "raw").mkdir(parents=True)
    for k in range(2):
        header = fits.Header({"IMAGETYP": "LIGHT", "FILTER": "r", "EXPTIME": 60.0, "OBJECT": "f"})
        header["DATE-OBS"] = f"2023-02-25T0{k}:00:00"
        raw = np.random.default_rng(k).normal(400 + image, 8).astype(np.uint16)
        fits.writeto(folder / "raw" / f"light{k}.fits", raw, header)
    (folder / "night.toml").write_text(
        f'name = "Übung"\nraw = "raw"\nwork = "work"\ntarget = "{MIDDLE.ra.deg} {MIDDLE.dec.deg}"\n'
        "[camera]\npixel_scale = 1.2\n[astrometry]\nsearch_radius = 10.0\n"
        "[reduction]\nuse_bias = false\nuse_dark = false\nuse_flat = false\n",
        encoding="utf-8",
    )
    archive.rows = [
        f"{ra} {dec} 0 0.1 0 0.1 {r} 0.01 {r} 0.01 {r} 0.01 {r} 0.01 {r} 0.01 0"
        for ra, dec, r in scene.catalogue["ra", "dec", "r"]
    ]
    return folder / "night.toml"


def test_e36_night_without_a_named_catalogue_from_the_archive_to_magnitudes(tmp_path, archive):
    """E36, 004-08, ZP-01: asked for once, used to solve and to calibrate, and then offline too.

    The flux of a star and its magnitude in the catalogue differ by 10 % each, 0.14 mag together:
    the median of 50 stars and more is known to 0.025 mag, and 0.1 mag are four errors.
    """
    toml = drawn_night(tmp_path / "online", archive)
    run_to = ("run", str(toml), "--upto", "magnitudes")
    first = CliRunner().invoke(app, run_to)
    assert first.exit_code == 0 and len(archive.sent) == 1, first.output
    work = toml.parent / "work"
    solved = Table.read(work / "astrometry.ecsv", format="ascii.ecsv")
    assert [path.name for path in (work / "catalogues").iterdir()] == [solved.meta["catalogue"]]
    stars = Table.read(work / "stars.ecsv", format="ascii.ecsv")
    assert stars["cat_r"].meta["system"] == "PS1 AB" and stars["cat_r"].count() > 50
    measured = Table.read(work / "magnitudes.ecsv", format="ascii.ecsv")
    known = np.ma.filled(stars["cat_r"], np.nan)[measured["star"]]
    assert abs(np.nanmedian(np.ma.filled(measured["r"], np.nan) - known)) < 0.1
    # The teacher's file, for a room without network; there the night is made anew with it.
    teacher = run(toml)
    assert teacher.exit_code == 0 and len(archive.sent) == 2, teacher.output
    archive.error = ConnectionError("no route")
    again = CliRunner().invoke(app, run_to)
    assert again.exit_code == 0 and "made" not in again.output, again.output
    room = drawn_night(tmp_path / "offline", archive)
    alone = CliRunner().invoke(app, ["run", str(room), "--upto", "photometry"])
    assert alone.exit_code == 2 and "datared catalog" in alone.output, alone.output
    shutil.copy(toml.parent / "refcat2_Übung.ecsv", room.parent)
    given = ("--catalogue", str(room.parent / "refcat2_Übung.ecsv"))
    done = CliRunner().invoke(app, ["run", str(room), "--upto", "photometry", *given])
    assert done.exit_code == 0 and len(archive.sent) == 3, done.output
    assert (room.parent / "work" / "stars.ecsv").read_bytes() == (work / "stars.ecsv").read_bytes()
