"""Tests of the rooms archives, starlists and catalogs: reading, moving, matching, identifying."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from datared.catalogs import at_epoch, identify_target, match, positions, read_catalogue
from datared.errors import DataredError, DataredWarning
from datared.names import resolve_target
from datared.reference import set_target
from datared.starlists import normalise

CATALOGUES = Path(os.environ.get("DATARED_DATA", "none")) / "catalogues"

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


def test_e39_positions_as_any_file_writes_them(tmp_path):
    """E39, E38: exponents, a typographic minus, empty cells, masks and units are not misread."""
    rows = [
        ("5.1e-05", "-3.2e-05"),
        ("1e2", "\u22120.5"),
        ("100.5", ""),
        ("null", "3"),
        ("350", "4"),
    ]
    text = "ra,dec\n" + "".join(f"{ra},{dec}\n" for ra, dec in rows)
    (tmp_path / "plain.csv").write_text(text, encoding="utf-8")
    stars = read_catalogue(tmp_path / "plain.csv")
    assert stars["ra"].tolist() == [5.1e-5, 100.0, 350.0]
    assert stars["dec"].tolist() == [-3.2e-5, -0.5, 4.0]
    text = "ra,dec\n10 20 30,-00 30 00\n10 30 00,\n11:00:00,\u221205:30:00\n"
    (tmp_path / "hours.csv").write_text(text, encoding="utf-8")
    stars = read_catalogue(tmp_path / "hours.csv")
    np.testing.assert_allclose(stars["ra"], [155.125, 165.0], rtol=1e-12)
    np.testing.assert_allclose(stars["dec"], [-0.5, -5.5], rtol=1e-12)
    units = Table({"ra": [10.0] * u.hourangle, "dec": [-0.5] * u.rad})
    place = positions(normalise(units))
    assert place.separation(SkyCoord(10 * u.hourangle, -0.5 * u.rad)).arcsec[0] < 1e-6
    masked = MaskedColumn(["14.5", "x"], mask=[False, True])
    masked = Table({"ra": [1.0, 2.0], "dec": [1.0, 2.0], "gmag": masked, "rmag": masked})
    masked["imag"], masked["id"] = masked["gmag"], masked["gmag"]
    stars = normalise(masked)
    assert stars["g"].mask.tolist() == [False, True] and stars["id"].tolist() == ["14.5", ""]


def test_read_catalogue_errors_say_what_to_do(tmp_path):
    """No file, no positions: one sentence that names them."""
    with pytest.raises(DataredError, match="is not there"):
        read_catalogue(tmp_path / "none.csv")
    (tmp_path / "swapped.csv").write_text("dec,ra\n195.5,40\n5,41\n")
    with pytest.raises(DataredError, match=r"swapped.csv.*declination of 195.5 deg.*swapped"):
        read_catalogue(tmp_path / "swapped.csv")
    (tmp_path / "blanks.txt").write_text("ra dec gmag\n1 2 3\n")
    with pytest.raises(DataredError, match="separated by comma, bar, tab or semicolon, in: ra dec"):
        read_catalogue(tmp_path / "blanks.txt")
    (tmp_path / "bad.csv").write_text("a,id\n1,2\n")
    with pytest.raises(DataredError, match="no columns of position"):
        read_catalogue(tmp_path / "bad.csv")


def test_read_catalogue_ps1_leaves_out_what_is_no_star(tmp_path):
    """ZP-01: Pan-STARRS without galaxies and saturated or absent magnitudes, dates from MJD."""
    rows = Table(
        {
            "objID": [1, 2, 3, 4, 5],
            "RAJ2000": [10.0, 10.1, 10.2, 10.3, 10.4],
            "DEJ2000": [5.0, 5.1, 5.2, 5.3, 5.4],
            "Epoch": [56000.0, 56100.0, 56200.0, 56300.0, 56400.0],
            "Qual": [52, 53, 52, 60, 32],  # good; extended; good; good; only suspect
            "gmag": [15.0, 15.0, 15.0, 13.2, 15.0],
            "e_gmag": [0.004, 0.004, 0.004, 0.001, 0.004],
            "rmag": [14.5, 14.5, 14.5, -999.0, 14.5],
            "e_rmag": [0.0, 0.004, 0.004, -999.0, 0.004],
            "imag": [14.3, 14.3, 14.3, 14.1, 14.3],
            "iKmag": [14.35, 14.3, 14.0, 14.1, 14.3],  # the third is 0.3 mag brighter as a whole
            "ymag": [14.2, 14.2, 14.2, 11.9, 14.2],
        }
    )
    rows.write(tmp_path / "ps1.ecsv")
    stars = read_catalogue(tmp_path / "ps1.ecsv")
    assert stars.meta["family"] == "ps1" and stars["id"].tolist() == ["1", "4"]
    assert {stars[band].meta["system"] for band in "griy"} == {"PS1 AB"}
    assert np.ma.getmaskarray(stars["g"]).tolist() == [False, True]  # 13.2: saturated
    assert np.ma.getmaskarray(stars["r"]).tolist() == [False, True]  # -999: no measurement
    assert np.ma.getmaskarray(stars["y"]).tolist() == [False, True]
    assert bool(np.ma.getmaskarray(stars["r_err"])[0])  # an error of 0 is none
    np.testing.assert_allclose(stars["epoch"], Time([56000.0, 56300.0], format="mjd").jyear)
    rows["Qual"] = 1
    with pytest.raises(DataredError, match="none of its 5 rows is a star"):
        normalise(rows)


def test_read_catalogue_sdss_is_not_ps1():
    """ZP-01: SDSS has its own system; galaxies, second entries and unclean stars are left out."""
    rows = Table({"RA_ICRS": [1.0, 2.0, 3.0, 4.0], "DE_ICRS": [1.0, 2.0, 3.0, 4.0]})
    rows["class"], rows["mode"], rows["clean"] = [6, 3, 6, 6], [1, 1, 2, 1], [1, 1, 1, 0]
    rows["MJD"] = [53000.0] * 4
    for band in "ugriz":
        rows[f"{band}pmag"], rows[f"e_{band}pmag"] = [15.0] * 4, [0.01] * 4
    stars = normalise(rows)
    assert stars.meta["family"] == "sdss" and stars["ra"].tolist() == [1.0]
    assert {stars[band].meta["system"] for band in "ugriz"} == {"SDSS AB"}
    assert stars.meta["epoch"] == pytest.approx(Time(53000.0, format="mjd").jyear, abs=1e-5)
    rows["class"], rows["mode"], rows["clean"] = 6, 1, 1
    assert "epoch" not in normalise(rows).colnames  # all of one night
    # The default columns of VizieR have model magnitudes: SDSS too, though g, r, i alone would
    # look like ATLAS-REFCAT2.
    model = Table({"RA_ICRS": [1.0], "DE_ICRS": [1.0]})
    for band in "ugriz":
        model[f"{band}mag"] = [15.0]
    assert normalise(model)["g"].meta["system"] == "SDSS AB"
    # UCAC4 has those of APASS.
    model.rename_columns(["umag", "zmag"], ["Bmag", "Vmag"])
    stars = normalise(model)
    assert stars["r"].meta["system"] == "SDSS AB" and stars.meta["epoch"] == 2000.0


def test_read_catalogue_tycho_takes_the_mean_place():
    """ZP-01: Tycho-2's observed places are of 1991.5; the mean ones of 2000 go before them."""
    rows = Table({"RA(ICRS)": [10.0, 20.0], "DE(ICRS)": [5.0, 6.0], "EpRA-1990": [1.5, 1.75]})
    rows["RAmdeg"] = MaskedColumn([10.001, 0.0], mask=[False, True])
    rows["DEmdeg"] = MaskedColumn([5.001, 0.0], mask=[False, True])
    rows["pmRA"] = MaskedColumn([423.5, 0.0], mask=[False, True])
    rows["pmDE"] = MaskedColumn([423.5, 0.0], mask=[False, True])
    rows["VTmag"] = [9.0, 10.0]
    stars = normalise(rows)
    assert stars["ra"].tolist() == [10.001, 20.0] and stars["epoch"].tolist() == [2000.0, 1991.75]
    assert stars["pm_ra"].tolist() == [423.5, 0.0]


def test_read_catalogue_landolt(tmp_path):
    """Landolt's standards: VizieR's text, magnitudes from V and the colours with their errors."""
    (tmp_path / "landolt.txt").write_text(
        "#\n#   VizieR Astronomical Server\n"
        ' |mag|mag|mag|mag|mag|mag|mag|mag|mag|mag|"h:m:s"|"d:m:s"|mas/yr|mas/yr\n'
        "Name|Vmag|e_Vmag|B-V|e_B-V|U-B|e_U-B|V-R|e_V-R|V-I|e_V-I|RAJ2000|DEJ2000|pmRA|pmDE\n"
        "Z1 A |12.334| 0.0030| 0.405| 0.0040| 0.156| 0.0120| 0.262| 0.0040| 0.535| 0.0040|"
        "00 30 16.313|-46 27 58.57|    1.00|   -5.40\n"
        "Z1 B |10.000|       |-0.200| 0.0040|-1.000| 0.0120| 0.100| 0.0040| 0.200| 0.0040|"
        "23 49 12.526|+02 24 04.42|  993.70| -966.70\n"
    )
    stars = read_catalogue(tmp_path / "landolt.txt")
    assert stars["id"].tolist() == ["Z1 A", "Z1 B"] and stars.meta["family"] == "landolt"
    place = SkyCoord("00h30m16.313s -46d27m58.57s")
    assert positions(stars)[0].separation(place).arcsec < 1e-6
    found = [float(stars[band][0]) for band in "UBVRI"]
    np.testing.assert_allclose(found, [12.895, 12.739, 12.334, 12.072, 11.799], rtol=1e-12)
    errors = [float(stars[f"{band}_err"][0]) for band in "UBVRI"]
    np.testing.assert_allclose(errors, [0.013, 0.005, 0.003, 0.005, 0.005], rtol=1e-12)
    assert {stars[band].meta["system"] for band in "UBVRI"} == {"Landolt Vega"}
    assert bool(np.ma.getmaskarray(stars["V_err"])[1]) and stars["pm_ra"][1] == 993.7


@pytest.mark.skipif(not CATALOGUES.is_dir(), reason="the shared catalogues are not here")
def test_read_catalogue_real_landolt_and_literature():
    """The files of the course read as they are: every star, and known values of one."""
    stars = read_catalogue(CATALOGUES / "Landolt_Standards_2009.txt")
    assert len(stars) == 595
    star = stars[stars["id"] == "TPhe B"][0]
    assert (round(star["B"], 3), round(star["I"], 3)) == (12.739, 11.799)
    old = read_catalogue(CATALOGUES / "ngc6819_literature_photometry.csv")
    assert old["V"].meta["system"] == "Landolt Vega" and old["B"].count() == 202


def test_variable_stars_of_refcat2_are_named():
    """ZP-01: the flag of Gaia's variables is kept as a column; 4 means a duplicate only."""
    rows = Table(REFCAT)
    rows["dupvar"] = [1, 4, 0]
    assert normalise(rows)["variable"].tolist() == [True, False]


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
    # Each star from its own year: the same sky.
    early = at_epoch(stars, Time(2005.0, format="jyear").jd)
    mixed = stars.copy()
    mixed["ra"][1], mixed["dec"][1] = early["ra"][1], early["dec"][1]
    mixed["epoch"] = [2016.0, 2005.0]
    again = at_epoch(mixed, Time(2026.0, format="jyear").jd)
    assert positions(again).separation(positions(moved)).max() < 1 * u.mas
    assert again["epoch"].tolist() == pytest.approx([2026.0, 2026.0])


def test_match_one_to_one():
    """ZP-02: each star is in one pair at most and the closest pair wins."""
    a = SkyCoord([10.0, 10.0003], [0.0, 0.0], unit="deg")
    b = SkyCoord([10.0002, 50.0, np.nan], [0.0, 0.0, 0.0], unit="deg")
    i, j, separation = match(a, b, radius=2)
    assert i.tolist() == [1] and j.tolist() == [0]
    assert separation[0].to_value("arcsec") == pytest.approx(0.36)
    for empty in (a[:0], SkyCoord([90.0], [0.0], unit="deg")):
        i, j, separation = match(empty, b, radius=1 * u.arcsec)
        assert len(i) == len(j) == len(separation) == 0


def test_match_one_to_one_is_the_closest_first():
    """ZP-02: in a crowd the pairs are those of going through all pairs from the closest on."""
    rng = np.random.default_rng(11)
    first = SkyCoord(rng.uniform(20, 20.02, 300), rng.uniform(40, 40.02, 300), unit="deg")
    second = SkyCoord(rng.uniform(20, 20.02, 400), rng.uniform(40, 40.02, 400), unit="deg")
    i, j, separation = match(first, second, radius=8)
    every = first[:, None].separation(second).arcsec
    pairs, taken1, taken2 = [], set(), set()
    for k in np.argsort(every, axis=None):
        a, b = np.unravel_index(k, every.shape)
        if every[a, b] > 8:
            break
        if a not in taken1 and b not in taken2:
            taken1.add(a)
            taken2.add(b)
            pairs.append((int(a), int(b)))
    assert len(i) > 250 and list(zip(i.tolist(), j.tolist(), strict=True)) == sorted(pairs)
    np.testing.assert_allclose(separation.value, every[i, j], rtol=1e-6)


def test_match_one_to_one_double_stars_and_masked_columns():
    """ZP-02: of a double star each component finds its own; a masked place matches nothing."""
    table = Table({"dec": [5.0, 5.0, 5.0], "g": MaskedColumn([14.0, 0, 0], mask=[0, 1, 1])})
    table["ra"] = MaskedColumn([10.0, 10.0004, 10.00001], mask=[False, False, True])
    seen = SkyCoord([10.00038, 10.00001], [5.0, 5.0], unit="deg")
    i, j, _ = match(seen, positions(table), radius=2)
    assert i.tolist() == [0, 1] and j.tolist() == [1, 0]


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
    """000-32, MV-04: RR Lyr is found among the detected stars; 30 arcsec away it is refused."""
    rr_lyr = SkyCoord("19h25m27.9s +42d47m03.7s")
    table = Table({"ra": [291.0, rr_lyr.ra.deg + 2e-4, np.nan], "dec": [42.0, rr_lyr.dec.deg, 0.0]})
    row, separation = identify_target(table, rr_lyr, limit=2 * u.arcsec)
    assert row == 1 and separation.to_value("arcsec") == pytest.approx(0.53, abs=0.01)
    with pytest.raises(DataredError, match=r"30\.[0-9] arcsec away.*set_target"):
        identify_target(table, rr_lyr.directional_offset_by(180 * u.deg, 30 * u.arcsec), limit=3)
    with pytest.raises(DataredError, match="has no star"):
        identify_target(table[:0], rr_lyr)
    with pytest.raises(DataredError, match="no star within nan"):
        identify_target(table, rr_lyr, limit=np.nan)


def test_identify_target_in_a_global_catalogue(tmp_path):
    """004-23, 000-32: a name is matched to a catalogue's row, both moved to the date of the frame.

    RR Lyr moves by 0.22 arcsec/yr: its place of J2000 is 5.8 arcsec off that of the date.
    """
    (tmp_path / "gaia.csv").write_text(
        "source_id,ref_epoch,ra,dec,pmra,pmdec,phot_g_mean_mag\n"
        "1,2016.0,291.3700,42.7900,0.0,0.0,12.0\n"
        "2,2016.0,291.36563961,42.78352063,-109.567,-195.506,7.6\n"
    )
    jd = 2461000.5
    catalogue = at_epoch(read_catalogue(tmp_path / "gaia.csv"), jd)
    row, separation = identify_target(catalogue, resolve_target("RR Lyr", jd=jd), limit=0.5)
    assert catalogue["id"][row] == "2" and separation < 0.3 * u.arcsec
    with pytest.raises(DataredError, match="no star within"):
        identify_target(catalogue, resolve_target("RR Lyr"), limit=0.5)


def test_identify_target_with_two_candidates():
    """MV-04: a second star within the limit is told of; two that are nearly as near are refused."""
    target = SkyCoord(120.0, 30.0, unit="deg")
    near, far = (target.directional_offset_by(0 * u.deg, d * u.arcsec) for d in (0.4, 2.5))
    table = Table({"ra": [far.ra.deg, near.ra.deg], "dec": [far.dec.deg, near.dec.deg]})
    with pytest.warns(DataredWarning, match=r"row 1 at 0\.40 arcsec and row 0 at 2\.50 arcsec"):
        row, separation = identify_target(table, target, limit=3)
    assert row == 1 and separation.value == pytest.approx(0.4, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert identify_target(table, target, limit=2)[0] == 1
    other = target.directional_offset_by(90 * u.deg, 0.6 * u.arcsec)
    table["ra"][0], table["dec"][0] = other.ra.deg, other.dec.deg
    with pytest.raises(DataredError, match=r"two stars.*row 1 at 0\.40.*row 0 at 0\.60"):
        identify_target(table, target, limit=3)
    # The same star twice, exactly at the place: a distance of 0 is not twice as far as 0.
    table["ra"], table["dec"] = target.ra.deg, target.dec.deg
    with pytest.raises(DataredError, match="two stars"):
        identify_target(table, target, limit=3)


def test_e43_target_that_is_in_no_list_gets_a_forced_position():
    """E43, MV-04: what identify_target refuses is added to the star list at its own place."""
    stars = Table({"star": [0, 1], "ra": [10.0, 10.1], "dec": [5.0, 5.1], "snr": [50.0, 40.0]})
    target = SkyCoord(10.05, 5.05, unit="deg")
    with pytest.raises(DataredError, match="no star within"):
        identify_target(stars, target)
    added = set_target(stars, target, radius=3.0)
    row, separation = identify_target(added, target)
    assert row == 2 and separation < 1 * u.mas and added["target"].tolist() == [False, False, True]
    assert added["star"][2] == 2 and np.isnan(added["snr"][2])
    # A row without a place is never the target.
    stars["ra"][0] = np.nan
    near = set_target(stars, SkyCoord(10.1, 5.1, unit="deg"), radius=3.0)
    assert near["target"].tolist() == [False, True]
    assert set_target(stars, target, radius=3.0)["target"].tolist() == [False, False, True]


@pytest.mark.skipif(not CATALOGUES.is_dir(), reason="the shared catalogues are not here")
def test_match_one_to_one_follows_astropy_on_real_stars():
    """ZP-02: Gaia and the literature of NGC 6819: the pairs that astropy finds mutually nearest."""
    gaia = positions(read_catalogue(CATALOGUES / "gaia_edr3_ngc6819_members.csv"))
    old = positions(read_catalogue(CATALOGUES / "ngc6819_literature_photometry.csv"))
    i, j, separation = match(gaia, old, radius=1.0)
    there, apart, _ = gaia.match_to_catalog_sky(old)
    back, _, _ = old.match_to_catalog_sky(gaia)
    mutual = np.flatnonzero((back[there] == np.arange(len(gaia))) & (apart.arcsec < 1.0))
    assert len(i) == 46 and i.tolist() == mutual.tolist() and j.tolist() == there[mutual].tolist()
    assert np.median(separation.value) < 0.3
