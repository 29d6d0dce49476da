"""Standard stars: the air above a site, sparse fields, and zero points outside the atmosphere."""

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table, vstack
from astropy.wcs import WCS

from datared.assembly import Photometry
from datared.atmosphere import site_extinction
from datared.errors import ConfigError, DataredError, SolveError
from datared.frames import inventory, write_product
from datared.night import Camera, make_night
from datared.projection import from_plane
from datared.skyshift import MAX_CHANCE, find_translation, solve_shift
from datared.standardfit import COLOUR_TERMS, solve_standards
from datared.standards import epoch_zero_points, measure_standards, standard_solution

SHAPE = (1000, 1000)


def test_site_extinction_is_that_of_the_literature():
    """ZP-03: molecules as Green (1992) has them, and clear nights of known observatories."""
    # Green 1992, ICQ 14, 55: 0.1451 mag at 0.51 um at sea level, less by exp(-h / 7.996 km).
    for height in (0.0, 2400.0):
        dust = 0.05 * 0.51**-0.8 * np.exp(-height / 1500)
        ozone = 1.11 * 0.3 * 0.1375 * np.exp(-188 * 0.08**2)
        molecules = site_extinction(0.51, height) - dust - ozone
        assert molecules == pytest.approx(0.1451 * np.exp(-height / 7996), abs=2e-4)
    # La Silla at 2400 m, averages of many nights: U 0.46, B 0.22, V 0.12, R 0.08, I 0.04 (+- 0.03).
    for band, usual in {"B": 0.22, "V": 0.12, "R": 0.08, "I": 0.04}.items():
        assert site_extinction(band, 2400.0) == pytest.approx(usual, abs=0.03)
    assert site_extinction("B", 0.0) > site_extinction("B", 1283.0) > site_extinction("V", 1283.0)
    with pytest.raises(DataredError, match=r"known are U, B, V.*extinction"):
        site_extinction("Halpha", 0.0)


# --- a photometric night, as numbers ------------------------------------------------------------

TRUTH = {"B": (22.9, 0.26, -0.06), "V": (23.1, 0.15, -0.09)}


def photometric_night(seed, *, noise=0.01, airmasses=(1.05, 1.4, 1.8, 2.2), n_stars=12, camera=""):
    """Measurements of three fields of standards at four airmasses, in B and V."""
    random = np.random.default_rng(seed)
    v = random.uniform(10, 14, n_stars)
    b_v = random.uniform(-0.1, 1.8, n_stars)
    rows = []
    for name, (zero, k, c) in TRUTH.items():
        for field in range(3):
            stars = np.arange(field, n_stars, 3)
            for j, airmass in enumerate(airmasses):
                for s in stars:
                    magnitude = v[s] + b_v[s] * (name == "B")
                    seen = magnitude - zero + k * airmass - c * b_v[s]
                    rows.append(
                        {
                            "file": f"{name}{field}{j}", "filter": name, "star": f"S{s}",
                            "airmass": airmass, "magnitude": seen + random.normal(0, noise),
                            "magnitude_err": noise, "used": True, "camera": camera,
                            "cat_B": v[s] + b_v[s], "cat_B_err": 0.002,
                            "cat_V": v[s], "cat_V_err": 0.002,
                        }
                    )  # fmt: skip
    table = Table(rows)
    for band in "BV":
        table[f"cat_{band}"].meta["system"] = "Johnson Vega"
    return table


def test_standards_of_a_photometric_night():
    """ZP-03: zero point, extinction and colour term together, unbiased, with true errors.

    The errors come from the noise put in; over 40 nights the mean pull is 0 within 3 / sqrt(40) and
    the width 1 within 3 / sqrt(80).
    """
    pulls, scatter = {"zero_point_0": [], "extinction": [], "colour_term": []}, []
    for seed in range(40):
        table = photometric_night(seed)
        found, measured = solve_standards(table)
        scatter.append(np.std(measured["residual"], ddof=6))
        for row in found:
            truth = dict(zip(pulls, TRUTH[row["filter"]], strict=True))
            assert row["extinction_source"] == row["colour_source"] == "fitted"
            assert row["colour"] == "B-V" and row["system"] == "Johnson Vega"
            for name, value in truth.items():
                pulls[name].append((row[name] - value) / row[f"{name}_err"])
            assert abs(row["zero_point_0"] - truth["zero_point_0"]) < 0.05
    for name in ("extinction", "colour_term"):
        assert abs(np.mean(pulls[name])) < 3 / np.sqrt(80), name
        assert np.std(pulls[name]) == pytest.approx(1, abs=3 / np.sqrt(160)), name
    # The zero point's error also has what a flat leaves in each star, which is not in these data.
    assert abs(np.mean(pulls["zero_point_0"])) < 0.3 and np.std(pulls["zero_point_0"]) < 1.2
    assert found["n_stars"][0] == 12 and found["n_frames"][0] == 12
    # 40 nights of 90 free residuals: their scatter is known to 0.01 / sqrt(2 x 3600).
    assert np.sqrt(np.mean(np.square(scatter))) == pytest.approx(0.01, abs=0.0004)


def test_standards_leave_outliers_out():
    """ZP-03: a wrong identification and a cloud on one star do not move the zero point."""
    table = photometric_night(3)
    clean, _ = solve_standards(photometric_night(3))
    table["magnitude"][[5, 40, 70]] += [1.5, -0.8, 0.4]
    found, measured = solve_standards(table)
    assert table["used"].all() and "residual" not in table.colnames  # The input stays.
    assert np.count_nonzero(~measured["used"]) >= 3 and not measured["used"][[5, 40, 70]].any()
    for name in ("zero_point_0", "extinction", "colour_term"):
        assert np.abs(np.array(found[name]) - np.array(clean[name])).max() < 0.006


def test_standards_without_a_number_do_not_count():
    """ZP-03, ZP-06: no airmass, magnitude, error or colour: that one is left out, not all the rest.

    One of 12 stars or a few of 96 measurements less changes the fit by a fraction of its errors.
    """
    clean, _ = solve_standards(photometric_night(3))
    table = photometric_night(3)
    table["airmass"][3], table["magnitude"][14], table["magnitude_err"][60] = (np.nan,) * 3
    table["cat_B"][table["star"] == "S7"] = np.nan
    found, measured = solve_standards(table)
    assert table["used"].all() and "residual" not in table.colnames  # The input stays.
    assert found["n_stars"].tolist() == [11, 11] and found["n"].tolist() == [42, 43]
    left_out = ~measured["used"]
    assert left_out[[3, 14, 60]].all() and left_out[table["star"] == "S7"].all()
    assert set(found["colour"]) == {"B-V"} and set(found["colour_source"]) == {"fitted"}
    for name in ("zero_point_0", "extinction", "colour_term"):
        change = np.abs(np.array(found[name]) - np.array(clean[name]))
        assert np.all(change < np.array(clean[f"{name}_err"])), name
    table["airmass"] = np.nan
    assert len(solve_standards(table, height=1283.0)[0]) == 0


def test_standards_extinction_given_or_of_the_site():
    """ZP-03: what the user gives wins; a small range of airmass leaves the site's height."""
    few = photometric_night(1, airmasses=(1.40, 1.42, 1.44))
    site, _ = solve_standards(few, height=1283.0)
    assert set(site["extinction_source"]) == {"site"}
    b = site[site["filter"] == "B"][0]
    assert b["extinction"] == pytest.approx(site_extinction("B", 1283.0))
    assert b["extinction_err"] == 0.03
    # At the airmass of the standards nothing hangs on it.
    assert b["zero_point"] == pytest.approx(22.9 - 0.26 * 1.42, abs=0.02)
    assert b["zero_point_0_err"] > 0.04 > b["zero_point_err"]
    given, _ = solve_standards(few, height=1283.0, extinction={"B": 0.26})
    assert given["extinction_source"].tolist() == ["given", "site"]
    assert given["zero_point_0"][0] == pytest.approx(22.9, abs=0.02)
    many, _ = solve_standards(photometric_night(1), extinction={"B": 0.31})
    assert many["extinction_source"].tolist() == ["given", "fitted"]
    with pytest.raises(DataredError, match=r"extinction of the air in B .*\[site\]"):
        solve_standards(few)


def test_standards_colour_term_of_few_stars():
    """ZP-06: too few stars or colours: the published term of the camera, or none."""
    table = photometric_night(5, camera="Nickel Direct Camera")
    # One of these stars: neither extinction over 0.03 in airmass nor a colour term.
    one = table[(table["star"] == "S0") & (table["airmass"] < 1.5)]
    found, _ = solve_standards(one, height=1283.0)
    for row in found:
        assert row["colour_source"] == "published" and row["n_stars"] == 1
        assert row["colour_term"] == COLOUR_TERMS["Nickel Direct Camera"][row["filter"]][1]
    published, one["camera"] = found, ["another"] * len(one)
    found, _ = solve_standards(one, height=1283.0)
    # The zero point is that of a star of colour 0, not of the colour of the standard.
    for row, other in zip(published, found, strict=True):
        change = row["colour_term"] * row["colour_mean"]
        assert row["zero_point"] == pytest.approx(other["zero_point"] - change, abs=1e-6)
    assert set(found["colour_source"]) == {"none"} and not np.any(found["colour_term"])
    assert np.all(found["colour_term_err"] >= 0.05)
    # In one filter there is no colour.
    alone, _ = solve_standards(one[one["filter"] == "V"], height=1283.0)
    assert alone["colour"][0] == "" and alone["colour_term"][0] == 0
    # A band that the catalogue has not: no row, and no crash.
    one["filter"] = ["Halpha"] * len(one)
    assert len(solve_standards(one, height=1283.0)[0]) == 0


# --- sparse fields ------------------------------------------------------------------------------


def sky(*, turned=False):
    """World coordinates of a frame of 1000 x 1000 pixels of 0.37 arcsec, near (294.4, +0.4)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [294.4, 0.4], [500.5, 500.5]
    wcs.wcs.cd = np.array([[-1.03e-4, 3e-6], [3e-6, -1.03e-4]]) * (-1 if turned else 1)
    return wcs


def field(seed, *, n_field=200, n_standards=3, shift=(60.0, -45.0), turned=False):
    """Stars of a frame with some standards among them, and the standards."""
    random = np.random.default_rng(seed)
    place = random.uniform(0, 1000, (n_field, 2))
    v = 19 - random.exponential(2.0, n_field)
    b_v = random.normal(0.9, 0.25, n_field)
    own = random.uniform(100, 900, (n_standards, 2))
    own_v, own_colour = random.uniform(10.5, 13, n_standards), random.uniform(0.2, 1.8, n_standards)
    sources = Table(
        {
            "x": np.append(place[:, 0], own[:, 0]), "y": np.append(place[:, 1], own[:, 1]),
            "V": np.append(v, own_v) + random.normal(0, 0.05, n_field + n_standards),
        }
    )  # fmt: skip
    sources["B"] = sources["V"] + np.append(b_v, own_colour)
    sources["flux"] = 10 ** (-0.4 * sources["V"])
    ra, dec = sky(turned=turned).wcs_pix2world(own - shift, 0).T
    catalogue = Table({"ra": ra, "dec": dec, "V": own_v, "B": own_v + own_colour})
    return sources, catalogue


def test_solve_shift_finds_three_standards():
    """AS-05, ZP-03: with the brightness the place is found to 0.01 px, however little is known."""
    for seed in range(10):
        sources, catalogue = field(seed)
        for options in ({"bands": ("V",), "calibrated": False}, {"bands": ("B", "V")}):
            found = solve_shift(
                sources, catalogue, sky(), radius=1.5 * u.arcmin, shape=SHAPE, **options
            )
            assert sorted(found.pairs["source"]) == [200, 201, 202]
            assert found.n_inside == 3 and found.chance < MAX_CHANCE
            x, y = found.wcs.wcs_world2pix(catalogue["ra"], catalogue["dec"], 0)
            assert np.abs(x - sources["x"][200:]).max() < 0.01
            assert np.abs(y - sources["y"][200:]).max() < 0.01


@pytest.mark.parametrize("calibrated", [True, False])
def test_solve_shift_where_magnitudes_are_missing(calibrated):
    """AS-05: a standard without a magnitude is left aside; what was not measured is no match.

    The other three standards tell the place.
    """
    sources, catalogue = field(1, n_standards=4)
    catalogue["V"][0] = np.nan
    sources["V"][:150] = np.nan
    options = {"radius": 1.5 * u.arcmin, "shape": SHAPE, "bands": ("V",), "calibrated": calibrated}
    found = solve_shift(sources, catalogue, sky(), **options)
    assert sorted(zip(found.pairs["source"], found.pairs["star"], strict=True)) == [
        (201, 1), (202, 2), (203, 3),
    ]  # fmt: skip
    assert found.n_inside == 3
    sources["V"] = np.nan
    with pytest.raises(SolveError, match="no shift within"):
        solve_shift(sources, catalogue, sky(), **options)


def test_solve_shift_of_a_turned_frame():
    """AS-05: a mount that crossed the meridian turned the frame by 180 degrees."""
    sources, catalogue = field(2, turned=True)
    steps = WCS(naxis=2)  # The same with PC and CDELT.
    steps.wcs.ctype, steps.wcs.crval, steps.wcs.crpix = (
        sky().wcs.ctype,
        sky().wcs.crval,
        [500.5] * 2,
    )
    steps.wcs.cdelt, steps.wcs.pc = [1e-4, 1e-4], sky().wcs.cd / 1e-4
    for wcs in (sky(), steps):
        found = solve_shift(
            sources, catalogue, wcs, radius=1.5 * u.arcmin, shape=SHAPE, bands=("B", "V")
        )
        assert sorted(found.pairs["source"]) == [200, 201, 202]
        assert found.wcs.pixel_scale_matrix[0, 0] > 0


def test_solve_shift_refuses_chance():
    """AS-05: other stars are no standards: at most the allowed share of random fields passes.

    With 60 fields and an allowed chance of 0.01 each, one is expected at most; 4 would be 3 sigma.
    """
    passed = 0
    for seed in range(20):
        sources, _ = field(seed, n_standards=0)
        _, catalogue = field(seed + 1000)
        for bands, calibrated in (((), True), (("V",), False), (("B", "V"), True)):
            try:
                solve_shift(
                    sources, catalogue, sky(), radius=1.5 * u.arcmin, shape=SHAPE, bands=bands,
                    calibrated=calibrated,
                )  # fmt: skip
            except SolveError:
                continue
            passed += 1
    assert passed < 4


def test_solve_shift_of_a_single_standard():
    """AS-05: one star is known by its brightness and colour only where these are rare."""
    sources, catalogue = field(7, n_standards=1)
    options = {"radius": 1.0 * u.arcmin, "shape": SHAPE}
    with pytest.raises(SolveError, match=r"1 standard stars of 1 .* places fit .* by chance"):
        solve_shift(sources, catalogue, sky(), **options)
    with pytest.raises(SolveError, match="places fit as well"):
        solve_shift(sources, catalogue, sky(), bands=("V",), calibrated=False, **options)
    sources["V"][200], sources["B"][200] = 11.9, 11.8  # Bright and blue, as no other one.
    catalogue["V"], catalogue["B"] = 11.9, 11.8
    found = solve_shift(sources, catalogue, sky(), bands=("B", "V"), **options)
    assert found.pairs["source"].tolist() == [200]
    # A second one like it nearby: there is no telling which.
    twin = sources[[200]].copy()
    twin["x"] += 30
    with pytest.raises(SolveError, match="2 places fit as well"):
        solve_shift(vstack([sources, twin]), catalogue, sky(), bands=("B", "V"), **options)
    # All but it, or too far away: nowhere.
    with pytest.raises(SolveError, match=r"no shift within 1\.0'"):
        solve_shift(sources[:200], catalogue, sky(), bands=("B", "V"), **options)
    with pytest.raises(SolveError, match=r"no shift within 0\.2'"):
        solve_shift(sources, catalogue, sky(), bands=("B", "V"), radius=0.2 * u.arcmin, shape=SHAPE)


def test_find_translation_by_vote():
    """AS-05: two frames of a field that drifted, with other stars lost in each."""
    sources, _ = field(4)
    second = sources.copy()
    second["x"] += 7.3
    second["y"] -= 4.1
    random = np.random.default_rng(1)
    first, second = (t[random.uniform(size=len(t)) < 0.7] for t in (sources, second))
    assert find_translation(first, second) == pytest.approx([7.3, -4.1], abs=1e-6)
    assert np.isnan(find_translation(first[:3], second[3:6])).all()


# --- zero points of the night's frames ----------------------------------------------------------


def star_frames(*, seeing=(0.80, 0.72), airmass=(1.1, 1.9), filters=("V", "V"), crowded=True):
    """Photometry of 40 stars on two frames of different seeing; some have bright neighbours."""
    random = np.random.default_rng(8)
    n = 40
    x, y = 50.0 + 100 * (np.arange(n) % 8), 50.0 + 100 * (np.arange(n) // 8)
    light = 10 ** random.uniform(5, 6, n)
    if crowded:
        # The first twelve stand in pairs, 15 px from each other.
        x[:6], y[:6] = x[6:12] + 15, y[6:12]
    shares = np.array([[share, 1.0] for share in seeing])
    zero = np.array([23.1 - 0.15 * air for air in airmass])
    flux = light[:, None, None] * 10 ** (-0.4 * (25 - zero))[None, :, None] * shares[None]
    if crowded:
        flux[:12, :, 1] += 0.5 * flux[np.r_[6:12, :6], :, 1]
    epochs = Table(
        {
            "file": ["a", "b"], "epoch": [0, 1], "filter": list(filters), "exptime": [1.0, 1.0],
            "airmass": airmass, "radii": [[5.0, 15.0]] * 2, "fwhm": [5.0, 6.0],
        }
    )  # fmt: skip
    place = [np.repeat(part[:, None], 2, axis=1) for part in (x, y)]
    none = np.zeros(flux.shape, int)
    return Photometry(
        Table({"star": np.arange(n)}), epochs, flux, 0.001 * flux, none, none[:, :, 0], *place,
        (1.0, 3.0), "fwhm", 0, None,
    ), light  # fmt: skip


SOLUTION = Table(
    [
        {
            "filter": "V", "zero_point_0": 23.1, "zero_point": 23.1 - 0.15 * 1.4, "airmass": 1.4,
            "zero_point_err": 0.01, "extinction": 0.15, "extinction_err": 0.03, "colour": "B-V",
            "colour_term": -0.08, "colour_term_err": 0.02, "colour_mean": 0.4,
            "system": "Johnson Vega",
        }
    ]
)  # fmt: skip


def test_epoch_zero_points_correct_air_and_aperture():
    """ZP-03: other airmass and seeing, and yet the same magnitudes, from stars that stand alone."""
    photometry, light = star_frames()
    points = epoch_zero_points(photometry, SOLUTION)
    # What the small circle lacks is known from stars alone; with their neighbours it would be more.
    assert points["correction"] == pytest.approx(2.5 * np.log10([0.80, 0.72]), abs=1e-3)
    assert points["n"].tolist() == [28, 28]
    magnitude = -2.5 * np.log10(photometry.flux[:, :, 0]) + np.array(points["zero_point"])
    assert magnitude[12:] == pytest.approx(
        np.repeat((25 - 2.5 * np.log10(light[12:]))[:, None], 2, axis=1), abs=2e-3
    )
    # Errors: the standards', and the extinction's by how far away in airmass they are.
    assert points["common_error"] == pytest.approx(np.hypot(0.01, 0.03 * np.array([0.3, 0.5])))
    assert np.all(points["error"] > points["common_error"]) and np.all(points["pivot"] == 0.4)
    largest = epoch_zero_points(photometry, SOLUTION, radius=1)
    assert not np.any(largest["correction"])


def test_epoch_zero_points_that_are_not_known():
    """ZP-03, E37: a filter without standards and a frame without airmass have none, and say why."""
    photometry, _ = star_frames(filters=("V", "R"), airmass=(np.nan, 1.2))
    points = epoch_zero_points(photometry, SOLUTION)
    assert np.isnan(points["zero_point"]).all()
    assert "airmass is not known" in points["reason"][0]
    assert "no standard star was measured in R" in points["reason"][1]


def test_standards_must_be_named(tmp_path):
    """ZP-03: without a list of standards the message says which setting is missing."""
    (tmp_path / "raw").mkdir()
    night = make_night(tmp_path / "raw", work=tmp_path / "work")
    with pytest.raises(ConfigError, match=r"\[magnitudes\] standards"):
        measure_standards(night)


# --- a night of two standard fields, from raw frames --------------------------------------------

ZERO, AIR, TERM = {"B": 21.0, "V": 21.4}, {"B": 0.30, "V": 0.18}, {"B": -0.05, "V": 0.03}


def write_frame(path, name, band, airmass, stars, random):
    """A raw frame of 400 x 400 px: stars of 4 px on a sky of 200 counts, with photons and bias."""
    size, width = 400, 4 / 2.3548
    image = np.full((size, size), 200.0)
    y, x = np.mgrid[0:size, 0:size]
    for star in stars:
        near = (slice(max(int(star["y"]) - 14, 0), int(star["y"]) + 15),
                slice(max(int(star["x"]) - 14, 0), int(star["x"]) + 15))  # fmt: skip
        index = star["B"] - star["V"]
        seen = star[band] - ZERO[band] + AIR[band] * airmass - TERM[band] * index
        light = 10 ** (-0.4 * seen) * 20.0 / (2 * np.pi * width**2)
        away = (x[near] - star["x"]) ** 2 + (y[near] - star["y"]) ** 2
        image[near] += light * np.exp(-0.5 * away / width**2)
    image = random.normal(image, np.sqrt(image))
    header = fits.Header(
        {
            "IMAGETYP": "Light Frame", "OBJECT": name, "FILTER": band, "EXPTIME": 20.0,
            "DATE-OBS": "2025-03-01T03:00:00", "AIRMASS": airmass, "GAIN": 1.0,
        }
    )  # fmt: skip
    place = SkyCoord(*FIELDS[name], unit="deg")
    header["RA"] = place.ra.to_string(u.hourangle, sep=":", precision=2)
    header["DEC"] = place.dec.to_string(u.deg, sep=":", precision=1, alwayssign=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.writeto(path, np.clip(image, 0, 65535).astype(np.uint16), header)


#: Cluster and two standard fields: right ascension and declination of the header.
FIELDS = {"cluster": (150.0, 20.0), "SA 1": (152.0, 0.5), "SA 2": (190.0, -0.5)}
#: Where the camera looks against the header (deg), and its orientation.
OFFSET = (0.010, -0.004)


def camera_wcs(name):
    """World coordinates of a frame of 400 px of 1 arcsec, with the night's pointing error."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [float(v) for v in from_plane(*OFFSET, *FIELDS[name])]
    wcs.wcs.crpix = [200.5, 200.5]
    wcs.wcs.cd = np.array([[-1.0, 0.02], [0.02, 1.0]]) / 3600
    return wcs


@pytest.fixture
def standard_night(tmp_path, monkeypatch):
    """Two fields of five standards at airmass 1.1 and 1.9, and what the night came to so far."""
    random = np.random.default_rng(11)
    catalogue = []
    write_frame(tmp_path / "raw" / "c.fits", "cluster", "V", 1.0, [], random)
    for name in ("SA 1", "SA 2"):
        n = 25
        stars = Table({key: random.uniform(25, 375, n) for key in "xy"})
        stars["V"] = np.r_[random.uniform(9.5, 11.5, 5), random.uniform(12.0, 14.5, n - 5)]
        stars["B"] = stars["V"] + random.uniform(-0.1, 1.7, n)
        # No two of them in each other's aperture.
        far = [np.hypot(*(np.array([s["x"] - stars["x"], s["y"] - stars["y"]]))) for s in stars]
        stars = stars[[d[d > 0].min() > 25 or k < 5 for k, d in enumerate(far)]]
        ra, dec = camera_wcs(name).wcs_pix2world(stars["x"][:5], stars["y"][:5], 0)
        for k in range(5):
            catalogue.append((f"{name}-{k}", ra[k], dec[k], stars["V"][k], stars["B"][k]))
        for k, airmass in enumerate((1.1, 1.9)):
            for band in "BV":
                path = tmp_path / "raw" / f"{name.replace(' ', '')}{band}{k}.fits"
                write_frame(path, name, band, airmass, stars, random)
    lines = ["Name,RAJ2000,DEJ2000,Vmag,e_Vmag,B-V,e_B-V,V-I"]
    lines += [
        f"{n},{a:.7f},{d:.7f},{v:.4f},0.002,{b - v:.4f},0.002," for n, a, d, v, b in catalogue
    ]
    (tmp_path / "standards.csv").write_text("\n".join(lines) + "\n")
    night = make_night(
        tmp_path / "raw", work=tmp_path / "work", object="cluster",
        camera=Camera(gain=1.0, read_noise=1.0, pixel_scale=1.0),
        settings={"magnitudes": {"standards": str(tmp_path / "standards.csv")}},
    )  # fmt: skip
    rows = inventory(night)
    setup = str(rows["setup"][0])
    (night.work / "solved").mkdir(parents=True)
    match = {"kind": "light", "setup": setup, "bias": "", "dark": "", "flat": ""}
    Table([{"filter": f, "exptime": 20.0, "dark_scale": 0.0, **match} for f in "BV"]).write(
        night.work / "matching.ecsv", format="ascii.ecsv"
    )
    place = from_plane(*OFFSET, *FIELDS["cluster"])
    row = {"file": "c.fits", "status": "made", "ra": float(place[0]), "dec": float(place[1])}
    Table([row]).write(night.work / "astrometry.ecsv", format="ascii.ecsv")
    ccd = CCDData(np.zeros((400, 400), np.float32), unit="adu", wcs=camera_wcs("cluster"))
    write_product(ccd, night.work / "solved" / "c.fits")
    photometry, _ = star_frames(filters=("V", "B"), crowded=False)
    photometry.epochs["radii"] = [[4.0, 12.0]] * 2
    for room in ("standards", "standardfields"):
        monkeypatch.setattr(f"datared.{room}.read_photometry", lambda _: photometry)
    return night


def test_standards_of_several_fields_from_raw_frames(standard_night):
    """ZP-03, ZP-06: two fields at two airmasses: zero points, extinction and colour terms come out.

    The standards have a signal-to-noise of 300 or more: 0.003 mag, of which 16 measurements in each
    filter leave 0.001 to 0.003 in what is fitted; 5 times that is allowed.
    """
    solution = standard_solution(standard_night)
    assert solution["filter"].tolist() == ["B", "V"]
    for row in solution:
        band = row["filter"]
        # Two of them have a neighbour, which is a flag.
        assert (row["n_stars"], row["n_frames"], row["n"]) == (8, 4, 16)
        assert row["extinction_source"] == row["colour_source"] == "fitted"
        assert row["zero_point_0"] == pytest.approx(ZERO[band], abs=0.02)
        assert row["extinction"] == pytest.approx(AIR[band], abs=0.01)
        assert row["colour_term"] == pytest.approx(TERM[band], abs=0.01)
        assert row["scatter"] < 0.01 and row["system"] == "Johnson Vega"
    made = (standard_night.work / "standards.ecsv").stat().st_mtime_ns
    again = standard_solution(standard_night)  # Nothing changed: nothing is made again.
    assert (standard_night.work / "standards.ecsv").stat().st_mtime_ns == made
    assert again["colour"].tolist() == ["B-V", "B-V"]
    measured = Table.read(standard_night.work / "standardstars.ecsv")
    assert len(measured) == 40 and measured["chance"].max() < 1e-4
    assert set(measured["object"]) == {"SA 1", "SA 2"}
    assert np.nanmax(np.abs(measured["residual"])) < 0.03


def test_standards_of_a_field_that_is_not_there(standard_night):
    """AS-05, ZP-03: frames of another field are refused with the reason: no zero point at all."""
    path = standard_night.magnitudes.standards
    lines = path.read_text().splitlines()
    random = np.random.default_rng(0)
    for k, line in enumerate(lines[1:], 1):
        cells = line.split(",")
        cells[2] = f"{float(cells[2]) + random.uniform(-0.02, 0.02):.7f}"
        lines[k] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataredError, match=r"no standard star was found\. SA 1: .* SA 2: "):
        measure_standards(standard_night)
    night = replace(
        standard_night, magnitudes=replace(standard_night.magnitudes, standard_object="SA 9")
    )
    with pytest.raises(ConfigError, match="no light frame of a standard field"):
        measure_standards(night)


def test_standards_of_a_field_with_bad_frames(standard_night):
    """AS-05, ZP-03: an empty, a cloudy and a cut frame are left out; the others count."""
    raw = standard_night.raw
    random = np.random.default_rng(5)
    for name, stars in (("SA1B9", []), ("SA1V9", [{"x": 200.0, "y": 100.0, "V": 11.0, "B": 11.5}])):
        write_frame(raw / f"{name}.fits", "SA 1", name[3], 1.1, stars, random)
    whole = (raw / "SA1V0.fits").read_bytes()
    (raw / "SA1V8.fits").write_bytes(whole[: len(whole) // 2])
    solution = standard_solution(standard_night)
    assert solution["n_frames"].tolist() == [4, 4]
    for row in solution:
        assert row["zero_point_0"] == pytest.approx(ZERO[row["filter"]], abs=0.02)
    measured = Table.read(standard_night.work / "standardstars.ecsv")
    assert set(measured["file"]).isdisjoint({"SA1B9.fits", "SA1V9.fits", "SA1V8.fits"})
