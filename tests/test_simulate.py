"""Two simulated nights: complete, repeatable, and true to their truth."""

import hashlib
import json

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from datared.ephemeris import Ephemeris
from datared.errors import ConfigError
from datared.events import make_planet, published_planet
from datared.night import TransitOptions, load_night
from datared.observatory import COLOUR_TERM, EXTINCTION, PIXEL_SCALE, ZERO_POINT
from datared.render import star_image
from datared.simulate import simulate_cluster, simulate_transit

SMALL_CLUSTER = {"shape": (260, 380), "members": 40, "field": 60}
FEW = {"n_bias": 2, "n_dark": 2, "n_flat": 3}


@pytest.fixture(scope="session")
def small_cluster(tmp_path_factory):
    """Folder of a small cluster night."""
    folder = tmp_path_factory.mktemp("nights") / "cluster"
    return simulate_cluster(folder, seed=3, n_light=4, **SMALL_CLUSTER, **FEW).parent


@pytest.fixture(scope="session")
def small_transit(tmp_path_factory):
    """Folder of a transit night with a fifth of the lights."""
    folder = tmp_path_factory.mktemp("nights") / "transit"
    return simulate_transit(folder, seed=3, n_light=24, field=30, **FEW).parent


def truth(folder, name):
    """Read a table of the truth."""
    return Table.read(folder / "truth" / f"{name}.ecsv")


def true_wcs(folder, file):
    """WCS of a frame from the truth."""
    stem = file.rsplit("/", 1)[-1].removesuffix(".fits")
    return WCS(fits.Header.fromtextfile(folder / "truth" / "wcs" / f"{stem}.txt"))


def true_map(folder, name):
    """Read a map of the truth."""
    return fits.getdata(folder / "truth" / f"{name}.fits").astype(float)


def corrected(folder, row):
    """Counts of a light, corrected by the true maps."""
    counts = fits.getdata(folder / "raw" / row["file"]).astype(float)
    counts -= true_map(folder, "bias") + true_map(folder, "dark_rate") * row["exptime"] / 0.376
    return counts / true_map(folder, f"response_{row['filter']}")


def digest(folder):
    """Name and sha256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def star_pulls(folder, row):
    """Compare measured and true counts of bright lonely stars.

    Gives the differences in units of their errors, relative to the true counts, and the stars.
    """
    stars = truth(folder, "stars")
    x, y = true_wcs(folder, row["file"]).all_world2pix(stars["ra"], stars["dec"], 0)
    image = corrected(folder, row)
    ny, nx = image.shape
    defects = true_map(folder, "defects") > 0
    counts = 10 ** (-0.4 * (stars[f"{row['filter']}_camera"] - row["zero_point"])) * row["exptime"]
    model = star_image(image.shape, x, y, np.asarray(counts), fwhm=row["fwhm"])
    yy, xx = np.mgrid[0:ny, 0:nx]
    pulls, relative, rows = [], [], []
    for k in np.flatnonzero((stars["contamination"] < 0.01) & ~stars["variable"]):
        if not (25 < x[k] < nx - 25 and 25 < y[k] < ny - 25) or stars["kind"][k] == "target":
            continue
        distance = np.hypot(xx - x[k], yy - y[k])
        inside, ring = distance < 8, (distance > 14) & (distance < 22) & ~defects
        if not 1e4 < counts[k] < 5e5 or defects[inside].any():
            continue
        # The ring holds wings and neighbours: the known stars are taken out of it first.
        sky = np.median((image - model)[ring])
        own = star_image(
            image.shape, x[k : k + 1], y[k : k + 1], counts[k : k + 1], fwhm=row["fwhm"]
        )
        others = (model - own)[inside].sum()
        measured = (image[inside] - sky).sum() - others
        variance = inside.sum() * (row["sky"] / 0.376 + (3.5 / 0.376) ** 2) + counts[k] / 0.376
        variance += (inside.sum() * 1.25) ** 2 / ring.sum() * (row["sky"] / 0.376 + 87)
        variance += (
            (counts[k] * row["scintillation"]) ** 2 if "scintillation" in row.colnames else 0
        )
        expected = own[inside].sum()
        assert expected / counts[k] > 0.97
        pulls.append((measured - expected) / np.sqrt(variance))
        relative.append(measured / expected - 1)
        rows.append(k)
    return np.array(pulls), np.array(relative), stars[rows]


def test_same_seed_same_bytes_and_another_seed_another_night(tmp_path):
    """All files of two small nights agree byte by byte; numpy's global state plays no part."""
    options = {"shape": (60, 90), "members": 15, "field": 10, "n_light": 2, **FEW}
    np.random.seed(1)  # noqa: NPY002
    simulate_cluster(tmp_path / "a", seed=7, **options)
    np.random.seed(2)  # noqa: NPY002
    simulate_cluster(tmp_path / "b", seed=7, **options)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    simulate_cluster(tmp_path / "c", seed=8, **options)
    first, second = (
        json.loads((tmp_path / n / "truth" / "parameters.json").read_text()) for n in "ac"
    )
    for name in ("age", "distance", "a_v", "metallicity", "center", "object"):
        assert first[name] != second[name], name


def test_transit_same_seed_same_bytes(tmp_path, monkeypatch):
    """The same for a tiny transit night; what is published of the planet changes no frame."""
    options = {"shape": (60, 90), "n_light": 4, "field": 5}
    for name in "ab":
        simulate_transit(tmp_path / name, seed=4, **options, **FEW)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    monkeypatch.setattr("datared.simulate.published_planet", lambda *_: None)
    simulate_transit(tmp_path / "c", seed=4, **options, **FEW)
    with_it, without = digest(tmp_path / "a"), digest(tmp_path / "c")
    assert {name for name in with_it if with_it[name] != without[name]} == {"night.toml"}
    assert "[transit]" not in (tmp_path / "c" / "night.toml").read_text()


def test_a_folder_with_a_night_is_refused(small_cluster):
    """Frames of two nights are never mixed."""
    with pytest.raises(ConfigError, match="already holds a night"):
        simulate_cluster(small_cluster)


def test_cluster_night_is_complete(small_cluster):
    """Every frame that the night promises is there, and the night file loads."""
    night = load_night(small_cluster / "night.toml")
    assert night.camera.gain == 0.376
    assert night.camera.read_noise == 3.5
    kinds = [(h["IMAGETYP"], h.get("FILTER"), h["EXPTIME"]) for h in headers(small_cluster)]
    assert kinds.count(("BIAS", None, 0.0)) == 2
    assert kinds.count(("DARK", None, 30.0)) == kinds.count(("DARK", None, 60.0)) == 2
    for name, light, flat in (("g", 60.0, 4.0), ("r", 30.0, 2.5), ("i", 30.0, 3.0)):
        assert kinds.count(("FLAT", name, flat)) == 3
        assert kinds.count(("LIGHT", name, light)) == 4
    stars = truth(small_cluster, "stars")
    assert stars["member"].sum() == 40
    assert stars["g"].meta["system"] == "PS1 AB"


def headers(folder):
    """All headers of a night."""
    return [fits.getheader(path) for path in sorted((folder / "raw").rglob("*.fits"))]


@pytest.mark.parametrize("name", ["small_cluster", "small_transit"])
def test_header_pointing_is_approximate_and_times_are_true(name, request):
    """Pointing in the header is wrong by 0.5' to 2'; truth times are start + half the exposure."""
    from astropy.time import Time

    folder = request.getfixturevalue(name)
    frames = truth(folder, "frames")
    cards = [fits.getheader(folder / "raw" / file) for file in frames["file"]]
    believed = SkyCoord([c["RA"] for c in cards], [c["DEC"] for c in cards], unit="deg")
    true = SkyCoord(frames["ra_center"], frames["dec_center"], unit="deg")
    error = believed.separation(true).arcmin
    assert 0.5 < error.min() < error.max() < 2.0
    for row, header in zip(frames, cards, strict=True):
        middle = Time(header["DATE-OBS"], scale="utc").jd + header["EXPTIME"] / 2 / 86400
        assert row["jd_utc_mid"] == pytest.approx(middle, abs=1e-9)
        assert header["PIERSIDE"] == ("East" if row["flipped"] else "West")
        assert "CRVAL1" not in header
    assert np.all(np.diff(frames["jd_utc_mid"]) > 0)
    # What the zero point is made of: telescope, air and camera.
    outside = np.array([ZERO_POINT[name] for name in frames["filter"]])
    slope = np.array([EXTINCTION[name] for name in frames["filter"]])
    expected = outside + 2.5 * np.log10(frames["transparency"] / 0.376) - slope * frames["airmass"]
    assert np.allclose(frames["zero_point"], expected, rtol=0, atol=1e-9)
    assert 0.3 < np.mean(frames["flipped"]) < 0.7
    turn = (
        frames["rotation"][frames["flipped"]].mean() - frames["rotation"][~frames["flipped"]].mean()
    )
    assert turn == pytest.approx(180.0, abs=0.1)


def test_cluster_star_fluxes_equal_the_catalogue(small_cluster):
    """Counts of stars follow from their magnitudes and the frame's zero point within the noise."""
    pulls, relative = [], []
    for row in truth(small_cluster, "frames"):
        if not (row["cloudy"] or row["trail"]):
            one, two, _ = star_pulls(small_cluster, row)
            pulls.append(one)
            relative.append(two)
    pulls, relative = np.concatenate(pulls), np.concatenate(relative)
    assert pulls.size > 100
    # Robust, as a particle may hit an aperture; the width is known to 1.2 / sqrt(2 n).
    width = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
    assert width == pytest.approx(1.0, abs=5 * 1.2 / np.sqrt(2 * pulls.size))
    assert abs(np.median(pulls)) < 5 * 1.25 / np.sqrt(pulls.size)
    assert abs(np.median(relative)) < 0.003


def test_camera_magnitudes_hold_the_colour_terms(small_cluster, small_transit):
    """E35: truth lists the camera's own magnitudes, m - c (g - i); the transit night has c = 0."""
    for folder, terms in ((small_cluster, COLOUR_TERM), (small_transit, dict.fromkeys("gri", 0.0))):
        values = json.loads((folder / "truth" / "parameters.json").read_text())
        assert values["colour_terms"] == terms and values["colour"] == "g-i"
        stars = truth(folder, "stars")
        for band, term in terms.items():
            expected = stars[band] - term * (stars["g"] - stars["i"])
            assert np.allclose(stars[f"{band}_camera"], expected, rtol=0, atol=1e-12)
            assert stars[f"{band}_camera"].meta["system"] == "camera"
            assert stars[band].meta["system"] == "PS1 AB"


@pytest.mark.parametrize("band", "gri")
def test_e35_counts_on_the_frames_carry_the_colour_term(small_cluster, band):
    """E35: the residuals of the survey's magnitudes rise with colour, by the term of the filter."""
    colour, residual, error = [], [], []
    for row in truth(small_cluster, "frames"):
        if row["filter"] == band and not (row["cloudy"] or row["trail"]):
            pulls, relative, stars = star_pulls(small_cluster, row)
            value = 2.5 * np.log10(1 + relative) + stars[band] - stars[f"{band}_camera"]
            residual.append(value - np.median(value))
            error.append(1.086 * np.abs(relative / pulls))
            colour.append(stars["g"] - stars["i"])
    colour, residual, error = (np.concatenate(a) for a in (colour, residual, error))
    good = np.abs(residual) < 0.05 + 3 * error  # a particle may hit an aperture
    weights = 1 / np.hypot(error[good], 0.002)
    (slope, _), covariance = np.polyfit(colour[good], residual[good], 1, w=weights, cov="unscaled")
    assert covariance[0, 0] ** 0.5 < 0.006
    assert abs(slope - COLOUR_TERM[band]) < 3 * covariance[0, 0] ** 0.5


def test_transit_star_fluxes_equal_the_catalogue(small_transit):
    """The same in the transit night, with scintillation in the error."""
    rows = [row for row in truth(small_transit, "frames")[::3]]
    pulls = np.concatenate([star_pulls(small_transit, row)[0] for row in rows])
    assert pulls.size > 50
    width = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
    assert width == pytest.approx(1.0, abs=5 * 1.2 / np.sqrt(2 * pulls.size))
    assert abs(np.median(pulls)) < 5 * 1.25 / np.sqrt(pulls.size)


def test_sky_level_of_every_light_is_true(small_cluster):
    """The median of a corrected frame is the sky of the truth to 1 % (gradient and stars)."""
    for row in truth(small_cluster, "frames"):
        assert np.median(corrected(small_cluster, row)) == pytest.approx(row["sky"], rel=0.015)


def test_one_cloudy_frame_shows_almost_no_star(small_cluster):
    """One r frame has lost 99 % of its light: at most three pixels groups stand out of the sky."""
    from scipy.ndimage import gaussian_filter, label

    frames = truth(small_cluster, "frames")
    assert frames["cloudy"].sum() == 1
    row = frames[frames["cloudy"]][0]
    assert row["filter"] == "r"
    image = corrected(small_cluster, row)
    image[true_map(small_cluster, "defects") > 0] = np.median(image)
    smooth = gaussian_filter(image, 1.2) - gaussian_filter(image, 12.0)
    noise = 1.4826 * np.median(np.abs(smooth))
    assert label(smooth > 6 * noise)[1] <= 4


def test_exactly_one_star_saturates_in_the_cluster(small_cluster):
    """Only the star made for it reaches full scale; no member does."""
    stars = truth(small_cluster, "stars")
    hot = true_map(small_cluster, "defects") > 0
    bright = stars[stars["kind"] == "saturated"][0]
    for row in truth(small_cluster, "frames"):
        raw = fits.getdata(small_cluster / "raw" / row["file"]).astype(float)
        y, x = np.nonzero((raw >= 65535) & ~hot)
        place = true_wcs(small_cluster, row["file"]).all_world2pix(bright["ra"], bright["dec"], 0)
        assert row["cloudy"] == (x.size == 0)
        assert np.all(np.hypot(x - place[0], y - place[1]) < 12)


def test_twilight_flats_fall_and_hold_stars_that_the_median_removes(small_cluster):
    """Levels fall from 40 000 to 12 000; single flats have trails, their median has not."""
    files = sorted((small_cluster / "raw" / "FLAT").glob("*_i_*.fits"))
    flats = [fits.getdata(path).astype(float) for path in files]
    assert np.median(flats[0]) == pytest.approx(40_000, rel=0.02)
    assert np.median(flats[-1]) == pytest.approx(12_000, rel=0.02)
    bias, response = true_map(small_cluster, "bias"), true_map(small_cluster, "response_i")
    ratio = np.array([(flat - bias) / response for flat in flats])
    ratio /= np.median(ratio, axis=(1, 2))[:, None, None]
    good = true_map(small_cluster, "defects") == 0
    excess = (ratio - np.median(ratio, axis=0))[:, good]
    assert excess.max() > 0.05
    assert np.median(ratio, axis=0)[good].max() < 1.05


def test_transit_truth_has_the_depth_and_the_variable(small_transit):
    """Radius ratio squared is 10.5 ppt; the dip is a little deeper; the variable swings 0.1 mag."""
    curves = truth(small_transit, "lightcurves")
    values = json.loads((small_transit / "truth" / "parameters.json").read_text())
    assert values["radius_ratio"] ** 2 == pytest.approx(0.0105)
    assert 1 - curves["target"].min() == pytest.approx(values["depth_mid"], abs=2e-4)
    assert 0.0105 < values["depth_mid"] < 0.0125
    times = curves["bjd_tdb_mid"]
    out = (times < values["ingress_start"] - 0.001) | (times > values["egress_end"] + 0.001)
    assert np.allclose(curves["target"][out], 1.0, rtol=0, atol=1e-12)
    assert out[:5].all()
    assert out[-3:].all()
    mag = -2.5 * np.log10(curves["variable"])
    assert np.ptp(mag) == pytest.approx(0.2, abs=0.01)
    assert list(curves["file"]) == list(truth(small_transit, "frames")["file"])


def test_transit_night_file_says_of_the_planet_what_a_paper_would(small_transit):
    """LC-09: the table [transit] reads back; it predicts the night's transit, and gives no radius.

    The truth lies within four of the errors that are told, here 37 s for the mid-time.
    """
    planet = json.loads((small_transit / "truth" / "parameters.json").read_text())
    told = load_night(small_transit / "night.toml").transit
    assert told.known and told.columns == () and told.radius_ratio == TransitOptions().radius_ratio
    assert "radius_ratio" not in (small_transit / "night.toml").read_text()
    expected = Ephemeris(told.t0, told.period, told.t0_err, told.period_err)
    epoch = expected.epoch_of(planet["mid_time"])
    middle, error = expected.mid_time(epoch)
    assert epoch == 300 and error * 86400 == pytest.approx(36.7, abs=0.1)
    assert 0 < abs(middle - planet["mid_time"]) < 4 * error
    for name in ("scaled_axis", "impact"):
        value, sigma = getattr(told, name)
        assert abs(value - planet[name]) < 4 * sigma
    away = np.subtract(told.limb_darkening, planet["limb_darkening"])
    assert np.all(np.abs(away) < 4 * told.limb_darkening_err)


def test_published_planet_has_the_errors_that_it_tells():
    """LC-09: over 400 draws the pulls of every number have mean 0 and width 1.

    The mean is known to 1 / sqrt(400), the width to 1 / sqrt(800): four of these. Digits that are
    rounded off are at most a tenth of the error.
    """
    planet = make_planet([2460587.0, 2460587.2], 0.0105, np.random.default_rng(1))
    pulls = []
    for seed in range(400):
        told = published_planet(planet, np.random.default_rng([seed, 7]))
        t0 = planet["mid_time"] - 300 * planet["period"]
        pulls.append([
            (told["t0"] - t0) / told["t0_err"],
            (told["period"] - planet["period"]) / told["period_err"],
            *((told[n][0] - planet[n]) / told[n][1] for n in ("scaled_axis", "impact")),
            *np.subtract(told["limb_darkening"], planet["limb_darkening"])
            / told["limb_darkening_err"],
        ])  # fmt: skip
    pulls = np.array(pulls)
    assert np.all(np.abs(pulls.mean(axis=0)) < 4 / np.sqrt(400))
    assert np.all(np.abs(pulls.std(axis=0) - 1) < 4 / np.sqrt(800))
    # Each has a draw of its own.
    assert np.all(np.abs(np.corrcoef(pulls.T) - np.eye(6)) < 4 / np.sqrt(400))
    again = published_planet(planet, np.random.default_rng([399, 7]))
    assert again == told


def test_transit_field_drifts_and_a_star_crosses_the_edge(small_transit):
    """Stars move by 30 px in the night besides the flip; the star at the edge leaves the frame."""
    frames, stars = truth(small_transit, "frames"), truth(small_transit, "stars")
    edge = stars[stars["kind"] == "edge"][0]
    target = stars[stars["kind"] == "target"][0]
    places, inside = [], []
    for row in frames:
        wcs = true_wcs(small_transit, row["file"])
        places.append(wcs.all_world2pix(target["ra"], target["dec"], 0))
        x, _ = wcs.all_world2pix(edge["ra"], edge["dec"], 0)
        inside.append(-0.5 < x < 639.5)
    places, side = np.array(places), np.asarray(frames["flipped"])
    assert 0 < np.sum(inside) < len(inside)
    assert inside[0]
    parts = [np.hypot(*(places[s][-1] - places[s][0])) for s in (side, ~side)]
    # The flip takes part of the way out of the sum; places jitter by 0.35 px.
    assert 24 < sum(parts) < 34


def test_mover_goes_half_an_arcsecond_a_minute(small_transit):
    """Its places are 0.5 arcsec a minute apart, and it shines where the truth says."""
    frames, mover = truth(small_transit, "frames"), truth(small_transit, "mover")
    places = SkyCoord(mover["ra"], mover["dec"], unit="deg")
    minutes = np.ptp(frames["jd_utc_mid"]) * 1440
    assert places[0].separation(places[-1]).arcsec / minutes == pytest.approx(0.5, rel=1e-3)
    found = 0
    for number in (0, 10, 23):
        image = corrected(small_transit, frames[number])
        wcs = true_wcs(small_transit, frames["file"][number])
        x, y = wcs.all_world2pix(mover["ra"][number], mover["dec"][number], 0)
        box = image[
            round(float(y)) - 3 : round(float(y)) + 4, round(float(x)) - 3 : round(float(x)) + 4
        ]
        counts = 10 ** (-0.4 * (mover.meta["r"] - frames["zero_point"][number])) * 60
        # A box of 7 x 7 px holds 85 to 95 % of the light; the noise is about 4 %.
        found += 0.7 < (box - np.median(image)).sum() / counts < 1.2
    assert found >= 2


def test_flats_of_the_transit_night_are_lit_unevenly(small_transit):
    """A flat over the true response rises by 1.2 % from the middle to the edge."""
    flat = fits.getdata(sorted((small_transit / "raw" / "FLAT").glob("*.fits"))[0]).astype(float)
    ratio = (flat - true_map(small_transit, "bias")) / true_map(small_transit, "response_r")
    ratio[true_map(small_transit, "defects") > 0] = np.nan
    profile = np.nanmedian(ratio, axis=0)
    slope = np.polyfit(np.linspace(-1, 1, profile.size), profile / np.nanmedian(ratio), 1)[0]
    assert slope == pytest.approx(0.012, abs=0.001)


def test_reference_catalogue_covers_more_than_the_frame(small_cluster):
    """Columns are ATLAS-REFCAT2's; listed stars lie around the frame and beyond it."""
    table = Table.read(small_cluster / "catalogue.ecsv")
    for name in ("RA_ICRS", "DE_ICRS", "pmRA", "pmDE", "Plx", "Gmag", "gmag", "e_gmag", "zmag"):
        assert name in table.colnames
    height = np.ptp(table["DE_ICRS"]) * 3600 / PIXEL_SCALE
    assert height > 1.2 * 260
