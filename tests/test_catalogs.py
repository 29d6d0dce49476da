"""Tests of the rooms catalogs and starlists: reading, moving, matching, asking."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from datared.catalogs import (
    at_epoch,
    fetch_catalogue,
    identify_target,
    match,
    query_catalogue,
    read_catalogue,
)
from datared.errors import DataredError

REFCAT = {
    "RA_ICRS": [359.999, 0.001, np.nan],
    "DE_ICRS": [5.0, 5.1, 5.2],
    "pmRA": [10.0, np.nan, 0.0],
    "pmDE": [-5.0, 2.0, 0.0],
    "Gmag": [14.1, 15.1, 16.1],
    "gmag": [14.5, 15.5, 16.5],
    "e_gmag": [0.01, 0.02, 0.03],
    "rmag": [14.0, 15.0, 16.0],
    "imag": [13.8, 14.8, 15.8],
}


class Service:
    """Stands in for astroquery's Vizier: answers with a table and counts the questions."""

    asked = 0
    rows = Table(REFCAT)
    error = None

    def __init__(self, *, columns, row_limit, column_filters):
        """Take what Vizier takes."""
        self.columns = columns

    def query_region(self, center, *, radius, catalog):
        """Answer."""
        type(self).asked += 1
        if self.error is not None:
            raise self.error
        return [self.rows] if len(self.rows) else []


@pytest.fixture
def service():
    """Give a fresh class of service."""
    return type("FreshService", (Service,), {})


def test_read_catalogue_refcat2(tmp_path):
    """ATLAS-REFCAT2: our names, the PS1 system, and g is gmag, not Gaia's Gmag."""
    Table(REFCAT).write(tmp_path / "refcat.ecsv")
    stars = read_catalogue(tmp_path / "refcat.ecsv")
    assert len(stars) == 2 and stars.meta["family"] == "refcat2"
    assert stars.meta["epoch"] == 2015.5
    np.testing.assert_allclose(stars["g"], [14.5, 15.5])
    np.testing.assert_allclose(stars["G"], [14.1, 15.1])
    assert stars["g"].meta["system"] == stars["g_err"].meta["system"] == "PS1 AB"
    assert stars["G"].meta["system"] == "Gaia Vega"
    np.testing.assert_allclose(stars["pm_ra"], [10.0, 0.0])


def test_read_catalogue_gaia_csv_ignores_columns_it_does_not_need(tmp_path):
    """Gaia as CSV: columns that do not parse are not even read; the epoch is the file's."""
    (tmp_path / "gaia.csv").write_text(
        ",source_id,ref_epoch,ra,dec,pmra,pmdec,phot_g_mean_mag,phot_bp_mean_mag,prob\n"
        "0,2076273713018930048,2016.0,295.1,40.1,-2.0,1.0,12.5,13.0,4.6e-367\n"
        "1,2076273713018930049,2016.0,295.2,40.2,,,13.5,,1e999\n"
    )
    stars = read_catalogue(tmp_path / "gaia.csv")
    assert stars.meta == {"family": "gaia", "epoch": 2016.0}
    assert stars["G"].meta["system"] == "Gaia Vega"
    assert bool(np.ma.getmaskarray(stars["BP"])[1]) and stars["pm_ra"][1] == 0
    assert stars["id"][0] == "2076273713018930048"


def test_read_catalogue_tycho(tmp_path):
    """Tycho-2 rows with RA, Dec and MAG_VT."""
    (tmp_path / "tycho.csv").write_text("RA,Dec,MAG_VT\n31.2653,46.2644,11.2\n")
    stars = read_catalogue(tmp_path / "tycho.csv")
    assert stars["VT"].meta["system"] == "Tycho Vega" and stars["ra"][0] == 31.2653


def test_e39_sexagesimal_catalogue(tmp_path):
    """Positions as text in hours and degrees are understood."""
    (tmp_path / "list.csv").write_text("ra,dec,name\n02:05:00.0,+46 30 00,A\n")
    stars = read_catalogue(tmp_path / "list.csv")
    assert stars["ra"][0] == pytest.approx(31.25) and stars["dec"][0] == pytest.approx(46.5)


def test_read_catalogue_errors_say_what_to_do(tmp_path):
    """No file, no positions: one sentence that names them."""
    with pytest.raises(DataredError, match="is not there"):
        read_catalogue(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_text("a,id\n1,2\n")
    with pytest.raises(DataredError, match="no columns of position"):
        read_catalogue(tmp_path / "bad.csv")


def test_at_epoch_follows_astropy():
    """Proper motion is applied as astropy does, near the pole and across RA 0 too (E38)."""
    stars = Table({"ra": [0.0001, 120.0], "dec": [89.99, -30.0]})
    stars["pm_ra"], stars["pm_dec"] = [-900.0, 300.0], [-500.0, 700.0]
    stars.meta["epoch"] = 2016.0
    moved = at_epoch(stars, Time(2026.0, format="jyear").jd)
    expected = SkyCoord(
        stars["ra"] * u.deg, stars["dec"] * u.deg, distance=10 * u.pc,
        pm_ra_cosdec=stars["pm_ra"] * u.mas / u.yr, pm_dec=stars["pm_dec"] * u.mas / u.yr,
        obstime=Time(2016.0, format="jyear"),
    ).apply_space_motion(Time(2026.0, format="jyear"))  # fmt: skip
    found = SkyCoord(moved["ra"], moved["dec"], unit="deg")
    assert found.separation(SkyCoord(expected.ra, expected.dec)).max() < 1 * u.mas
    assert stars["ra"][0] == 0.0001
    np.testing.assert_array_equal(at_epoch(stars, np.nan)["ra"], stars["ra"])


def test_match_one_to_one():
    """Each star is in one pair at most and the closest pair wins."""
    a = SkyCoord([10.0, 10.0003], [0.0, 0.0], unit="deg")
    b = SkyCoord([10.0002, 50.0, np.nan], [0.0, 0.0, 0.0], unit="deg")
    i, j, separation = match(a, b, radius=2)
    assert i.tolist() == [1] and j.tolist() == [0]
    assert separation[0].to_value("arcsec") == pytest.approx(0.36)
    for empty in (a[:0], SkyCoord([90.0], [0.0], unit="deg")):
        i, j, separation = match(empty, b, radius=1 * u.arcsec)
        assert len(i) == len(j) == len(separation) == 0


@pytest.mark.parametrize("center", [(0.0, 0.0), (0.0, 89.9995), (123.0, -89.9999)])
def test_e38_match_across_ra_zero_and_at_the_pole(center):
    """On the sphere there is no seam: every shifted star finds itself."""
    rng = np.random.default_rng(7)
    middle = SkyCoord(*center, unit="deg")
    angle, distance = rng.uniform(0, 360, 60) * u.deg, np.sqrt(rng.uniform(0, 1, 60)) * u.arcmin
    stars = middle.directional_offset_by(angle, distance)
    again = stars.directional_offset_by(77 * u.deg, 0.3 * u.arcsec)
    order = rng.permutation(60)
    i, j, separation = match(stars, again[order], radius=1)
    apart = stars.separation(stars[:, None]).arcsec + 99 * np.eye(60)
    assert apart.min() > 0.3  # no two stars of this seed are near enough to be swapped
    assert len(i) == 60 and np.array_equal(order[j], i)
    np.testing.assert_allclose(separation.value, 0.3, rtol=1e-4)


def test_identify_target():
    """RR Lyr is found among the detected stars; 30 arcsec away it is refused with the distance."""
    rr_lyr = SkyCoord("19h25m27.9s +42d47m03.7s")
    table = Table({"ra": [291.0, rr_lyr.ra.deg + 2e-4, np.nan], "dec": [42.0, rr_lyr.dec.deg, 0.0]})
    row, separation = identify_target(table, rr_lyr, limit=2 * u.arcsec)
    assert row == 1 and separation.to_value("arcsec") == pytest.approx(0.53, abs=0.01)
    with pytest.raises(DataredError, match=r"30\.[0-9] arcsec away"):
        identify_target(table, rr_lyr.directional_offset_by(180 * u.deg, 30 * u.arcsec), limit=3)
    with pytest.raises(DataredError, match="has no star"):
        identify_target(table[:0], rr_lyr)


def test_catalogue_cache_hit(tmp_path, service):
    """The second question is answered from the disk, with query, date and sum recorded."""
    ask = {"radius": 10, "cache": tmp_path / "cache", "service": service}
    center = SkyCoord(0.0, 5.0, unit="deg")
    first = query_catalogue("refcat2", center, **ask)
    second = query_catalogue("refcat2", center, **ask)
    assert service.asked == 1 and len(first) == len(second) == 2
    assert second["g"].meta["system"] == "PS1 AB" and second.meta["epoch"] == 2015.5
    assert "J/ApJ/867/105" in second.meta["query"] and second.meta["asked"][:2] == "20"
    path = fetch_catalogue("refcat2", center, **ask)
    assert len(read_catalogue(path)) == 2
    assert not list((tmp_path / "cache").glob(".tmp*"))
    path.write_text(path.read_text().replace("14.5", "12.5"))
    with pytest.raises(DataredError, match="was changed"):
        query_catalogue("refcat2", center, **ask)


def test_catalogue_offline(tmp_path, service):
    """Without network: the cache answers, and where it has no answer one message says so (E36)."""
    center = SkyCoord(0.0, 5.0, unit="deg")
    query_catalogue("refcat2", center, radius=10, cache=tmp_path, service=service)
    service.error = ConnectionError("no route")
    stars = query_catalogue("refcat2", center, radius=10, cache=tmp_path, service=service)
    assert len(stars) == 2
    with pytest.raises(DataredError, match=r"no route.*cache has no gaia_.*Ask once"):
        query_catalogue("gaia", center, radius=10, cache=tmp_path, service=service)


def test_e36_catalogue_empty_or_cut_off(tmp_path, service, monkeypatch):
    """An empty answer and one that stops at the row limit are errors, not catalogues."""
    center = SkyCoord(0.0, -80.0, unit="deg")
    ask = {"radius": 10, "cache": tmp_path, "service": service}
    monkeypatch.setattr("datared.catalogs.ROW_LIMIT", 3)
    with pytest.raises(DataredError, match="cut off at 3 rows"):
        query_catalogue("refcat2", center, **ask)
    service.rows = service.rows[:0]
    with pytest.raises(DataredError, match="no star within"):
        query_catalogue("refcat2", center, **ask)
    with pytest.raises(DataredError, match="valid are refcat2, gaia, tycho2"):
        query_catalogue("ps9", center, **ask)
    assert not list(tmp_path.iterdir())
