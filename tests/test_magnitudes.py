"""Magnitudes: signs, zero points, systems that never mix, nights of any number of filters."""

import dataclasses

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.table import Column, MaskedColumn, Table

from datared import magnitudes, zeropointtables
from datared import photometry as flag
from datared.assembly import Photometry
from datared.diagramtable import colour_magnitude_table
from datared.errors import DataredError, DataredWarning
from datared.frames import read_product, write_product
from datared.magnitudes import (
    calibrate_night,
    colour,
    colour_term,
    image_to_jansky,
    instrumental_magnitude,
    jansky_per_adu,
    magnitude_error,
    passband,
    ransac_zero_point,
    star_magnitudes,
    to_jansky,
    zero_point,
    zero_points,
)
from datared.night import MagnitudeOptions, Night
from datared.repeats import pull_width
from datared.summary import summarise
from datared.zeropoints import ZeroPoint

GAIN = 1.5
#: Colour terms in g - r of the camera of `make_photometry`, where they are asked for.
TERMS = {"g": 0.06, "r": -0.04, "V": 0.0}
ZERO = {"g": 22.5, "r": 22.1, "V": 21.0}


def make_photometry(
    filters, *, n_star=200, seed=1, catalogue=("g", "r"), extinction=None, terms=None
):
    """Measurements of stars with known magnitudes, one radius, sky noise of 60 counts."""
    rng = np.random.default_rng(seed)
    truth = {band: rng.uniform(13.0, 18.0, n_star) for band in ZERO}
    if terms is not None:  # Stars with colours as stars have them.
        truth["g"] = truth["r"] + rng.normal(0.7, 0.4, n_star)
    terms = {} if terms is None else terms
    n_epoch = len(filters)
    extinction = np.zeros(n_epoch) if extinction is None else np.asarray(extinction)
    exposure = np.where(np.arange(n_epoch) % 2, 30.0, 60.0)
    flux = np.empty((n_star, n_epoch))
    for k, band in enumerate(filters):
        camera = truth[band] - terms.get(band, 0.0) * (truth["g"] - truth["r"])
        flux[:, k] = exposure[k] * 10 ** (-0.4 * (camera + extinction[k] - ZERO[band]))
    error = np.sqrt(flux / GAIN + 60.0**2)
    measured = flux + rng.normal(size=flux.shape) * error
    error = np.sqrt(np.maximum(measured, 0) / GAIN + 60.0**2)
    stars = Table({"star": np.arange(n_star), "ra": np.linspace(10, 11, n_star)})
    stars["dec"] = 5.0
    for band in catalogue:
        values = truth[band] + rng.normal(0, 0.01, n_star)
        stars[f"cat_{band}"] = MaskedColumn(values, mask=np.arange(n_star) % 5 == 0)
        stars[f"cat_{band}"].meta["system"] = "PS1 AB"
    stars["target"] = False
    epochs = Table({"epoch": np.arange(n_epoch), "file": [f"{k}.fits" for k in range(n_epoch)]})
    epochs["filter"], epochs["exptime"] = list(filters), exposure
    shape = (n_star, n_epoch)
    result = Photometry(
        stars, epochs, measured[..., None], error[..., None], np.zeros((*shape, 1), int),
        np.zeros(shape), np.zeros(shape), np.zeros(shape), (5.0,), "px", 0, GAIN,
    )  # fmt: skip
    return result, truth


def write(result, work, **options):
    """Write measurements as the stage before does; ``options`` are those of the magnitudes."""
    work.mkdir()
    table = Table({"star": result.stars["star"], "flux": result.flux, "flux_err": result.flux_err})
    table["flags"], table["sky"] = result.flags, result.sky
    table["x"], table["y"] = result.x, result.y
    table.meta = {"NRADII": 1, "RADIUS0": 5.0, "RADUNIT": "px", "DEFRAD": 0, "GAIN_E": GAIN}
    table.write(work / "photometry.fits")
    result.stars.write(work / "stars.ecsv")
    result.epochs.write(work / "epochs.ecsv")
    return Night(name="test", raw=work / "raw", work=work, magnitudes=MagnitudeOptions(**options))


def test_instrumental_magnitude_and_error_golden_numbers():
    """F5 and F6: per second, 1.0857 / (S/N); no warning and no number for a negative flux (E29)."""
    assert instrumental_magnitude(100.0 * 37, 37.0) == pytest.approx(-5.0)
    assert magnitude_error(100.0, 1.0) == pytest.approx(0.01086, abs=5e-6)
    values = instrumental_magnitude([-5.0, 0.0, np.nan, 10.0], 1.0)
    assert list(np.isnan(values)) == [True, True, True, False]
    assert list(np.isnan(magnitude_error([-5.0, 10.0], 1.0))) == [True, False]


def test_zp_median_is_right_within_its_error():
    """ZP-03: outliers of a fifth of the stars do not move it; the error is the one it has."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(300):
        instrumental = rng.uniform(-12, -8, 100)
        catalogue = instrumental + 25.0 + rng.normal(0, 0.03, 100)
        catalogue[:15] += rng.uniform(0.3, 2, 15)
        found.append(zero_point(instrumental, catalogue))
    values = np.array([z.value for z in found])
    # 0.03 x 1.2533 / sqrt(85) = 0.0041; one-sided outliers shift the median by a little.
    assert abs(np.mean(values) - 25.0) < 0.002
    assert np.std(values) == pytest.approx(np.mean([z.error for z in found]), rel=0.15)
    assert all(abs(value - 25) < 0.02 for value in values)


def test_zero_point_ignores_masked_nan_and_excluded_stars():
    """A masked, a NaN and an excluded (saturated) star do not count; the sign is m_cat - m_inst."""
    instrumental = np.array([-5.0, -6.0, -7.0, -8.0, np.nan, -9.0])
    catalogue = MaskedColumn([20.0, 19.0, 18.0, 99.0, 18.0, 30.0], mask=[0, 0, 0, 1, 0, 0])
    result = zero_point(instrumental, catalogue, exclude=[0, 0, 0, 0, 0, 1])
    assert result.value == 25.0 and result.n == 3
    assert list(result.used) == [True, True, True, False, False, False]


def test_e37_fewer_than_three_stars_give_no_zero_point():
    """E37, ZP-03: two stars: NaN with the number, no crash, no warning; none at all: the same."""
    result = zero_point([-5.0, -6.0], [20.0, 19.0])
    assert np.isnan(result.value) and result.n == 2
    assert np.isnan(zero_point([], []).value)


def test_equal_differences_have_no_error():
    """Noise-free stars have a MAD of zero and keep their zero point."""
    result = zero_point([-5.0, -6.0, -7.0, -8.0], [20.0, 19.0, 18.0, 17.0])
    assert (result.value, result.error, result.n) == (25.0, 0.0, 4)


def test_systems_never_mix():
    """A colour of two systems, a zero point in another one, a colour of an unknown one: refused."""
    g, r = (MaskedColumn([15.0, 16.0], name=name, mask=[0, 1]) for name in "gr")
    g.meta["system"], r.meta["system"] = "PS1 AB", "Johnson Vega"
    with pytest.raises(DataredError, match="one system"):
        colour(g, r)
    with pytest.raises(DataredError, match="transform"):
        zero_point([1.0, 2.0], g, system="SDSS AB")
    r.meta["system"] = "PS1 AB"
    index = colour(g, r)
    assert index.name == "g-r" and index.meta["system"] == "PS1 AB" and index.mask[1]
    with pytest.raises(DataredError, match="None"):
        colour(Column([1.0], name="a"), Column([1.0], name="b"))


def test_to_jy_golden_number_and_guard():
    """ZP-05, F11: 16.4 AB is 1.00006e-3 Jy; Vega is refused; the value of one count."""
    assert to_jansky(16.4, system="PS1 AB").to_value("Jy") == pytest.approx(1.00006e-3, rel=1e-5)
    column = MaskedColumn([16.4, 16.4, 3.0], mask=[0, 0, 1])
    column.meta["system"] = "SDSS AB"
    values = to_jansky(column).to_value("Jy")
    assert np.allclose(values[:2], 1.00006e-3, rtol=1e-5) and np.isnan(values[2])
    for system in (None, "Johnson Vega", "instrumental"):
        with pytest.raises(DataredError, match="AB"):
            to_jansky(16.4, system=system)
    with pytest.raises(DataredError, match="leave system out"):
        to_jansky(column, system="PS1 AB")
    counts = 60.0 * 10 ** (-0.4 * (16.4 - 22.0))
    total = counts * jansky_per_adu(22.0, 60.0, system="PS1 AB").to_value("Jy")
    assert total == pytest.approx(1.00006e-3, rel=1e-5)


def frame_of_a_star(magnitude=16.4, *, zero=22.0, exposure=60.0, **options):
    """One star without sky on a frame, its light spread over some pixels."""
    data = np.zeros((20, 30), np.float32)
    light = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    data[8:11, 12:15] = exposure * 10 ** (-0.4 * (magnitude - zero)) * light
    meta = fits.Header({"EXPTIME": exposure, "GAIN_E": 0.5, "SKY": 100.0, "SKYNOISE": 4.0})
    return CCDData(data, unit="adu", meta=meta, **options)


AB = ZeroPoint(22.0, 0.01, 0.02, 50, np.ones(50, bool), "PS1 AB")


def test_to_jy_of_an_image(tmp_path):
    """ZP-05, 004-10: the pixels of a 16.4 mag AB star sum to 1.0000e-3 Jy; all cards follow."""
    flags = np.zeros((20, 30), np.uint16)
    flags[3, 4] = 8
    ccd = frame_of_a_star(flags=flags, mask=flags > 0)
    before = ccd.data.copy()
    image = image_to_jansky(ccd, AB)
    # float32: 1e-7 of a pixel.
    assert image.data.sum(dtype=float) == pytest.approx(1.00006e-3, rel=1e-5)
    assert image.unit == u.Jy and image.meta["BUNIT"] == "Jy"
    assert image.data.dtype == np.float32 and np.array_equal(ccd.data, before)
    assert np.array_equal(image.flags, flags) and image.mask[3, 4]
    factor = image.meta["JY_COUNT"]
    assert image.meta["SKY"] / ccd.meta["SKY"] == pytest.approx(factor)
    # Photons of the star, and so their noise, are the same in both images.
    assert image.data.sum() * image.meta["GAIN_E"] == pytest.approx(before.sum() * 0.5, rel=1e-5)
    write_product(image, tmp_path / "jansky.fits")
    back = read_product(tmp_path / "jansky.fits")
    assert back.unit == u.Jy and np.array_equal(back.data, image.data)
    for unit, scale in ((u.adu / u.s, 60.0), (u.electron, 1.0)):
        other = CCDData(before / np.float32(scale), unit=unit, meta=dict(ccd.meta))
        assert np.allclose(image_to_jansky(other, AB).data, image.data, rtol=1e-5)
    assert np.allclose(image_to_jansky(ccd, AB, exposure=120).data, image.data / 2, rtol=1e-5)


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_to_jy_carries_the_uncertainty(kind):
    """ZP-05, 004-10: relative errors are the same in janskys, whatever they are written as."""
    value = {StdDevUncertainty: 3.0, VarianceUncertainty: 9.0, InverseVariance: 1 / 9}[kind]
    ccd = frame_of_a_star(uncertainty=kind(np.full((20, 30), value)))
    image = image_to_jansky(ccd, AB)
    sigma = image.uncertainty.represent_as(StdDevUncertainty).array
    assert np.allclose(sigma, 3.0 * image.meta["JY_COUNT"])


def test_to_jy_of_an_image_is_guarded():
    """ZP-05, 004-10: slope off by 0.1, Vega, no zero point, twice, no exposure time: refused."""
    ccd = frame_of_a_star()
    image_to_jansky(ccd, AB, slope=1.09)
    for options, text in (
        ({"slope": 1.11}, "slope is 1.110"),
        ({"slope": 0.85}, "slope is 0.850"),
        ({"slope": np.nan}, "slope is nan"),
    ):
        with pytest.raises(DataredError, match=text):
            image_to_jansky(ccd, AB, **options)
    for changed, text in (
        ({"system": "Johnson Vega"}, "AB magnitudes only"),
        ({"system": ""}, "AB magnitudes only"),
        ({"value": np.nan}, "too few good stars"),
    ):
        with pytest.raises(DataredError, match=text):
            image_to_jansky(ccd, dataclasses.replace(AB, **changed))
    with pytest.raises(DataredError, match="image is in Jy"):
        image_to_jansky(image_to_jansky(ccd, AB), AB)
    del ccd.meta["EXPTIME"]
    with pytest.raises(DataredError, match="exposure time is None"):
        image_to_jansky(ccd, AB)
    # A straight line brings its own slope; its zero point is that of slope 1.
    instrumental = np.linspace(-12, -8, 40)
    catalogue = Column(1.05 * (instrumental + 10) + 12.0)
    catalogue.meta["system"] = "PS1 AB"
    line = ransac_zero_point(instrumental, catalogue)
    image = image_to_jansky(frame_of_a_star(), line)
    assert image.meta["ZP_MAG"] == pytest.approx(22.0) and line.value == pytest.approx(22.5)
    with pytest.warns(DataredWarning, match="slope"):
        line = ransac_zero_point(instrumental, 1.2 * instrumental + 25)
    line = dataclasses.replace(line, fixed=AB)
    with pytest.raises(DataredError, match=r"slope is 1\.200"):
        image_to_jansky(frame_of_a_star(), line)


def test_ransac_with_a_quarter_of_outliers():
    """ZP-04, 004-09: 25 % outliers: zero point and slope within 0.01, twice the same."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        instrumental = rng.uniform(-12, -8, 300)
        catalogue = Column(instrumental + 25.0 + rng.normal(0, 0.005, 300))
        catalogue[:75] += rng.uniform(0.1, 3, 75)
        catalogue.meta["system"] = "PS1 AB"
        found = ransac_zero_point(instrumental, catalogue)
        # 225 stars of 0.005 over 4 mag: the slope to 0.0003, the line at 0 to 0.003.
        assert found.value == pytest.approx(25.0, abs=0.01)
        assert found.slope == pytest.approx(1.0, abs=0.01)
        assert found.error == pytest.approx(0.003, rel=0.3)
        assert found.slope_err == pytest.approx(0.0003, rel=0.3)
        assert found.rms == pytest.approx(0.005, rel=0.15)
        assert found.n == found.used.sum() and not found.used[:75].sum() > 2 and found.n > 215
        assert found.fixed.value == pytest.approx(25.0, abs=0.002)
        assert found.system == found.fixed.system == "PS1 AB"
        again = ransac_zero_point(instrumental, catalogue)
        assert (again.value, again.slope) == (found.value, found.slope)
        assert np.array_equal(again.used, found.used)


def test_ransac_errors_are_true():
    """ZP-04, 004-09: pulls of slope and zero point over 100 draws have width 1."""
    pulls = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        instrumental = rng.uniform(-12, -8, 60)
        catalogue = instrumental + 25.0 + rng.normal(0, 0.02, 60)
        catalogue[:10] -= rng.uniform(0.5, 3, 10)
        found = ransac_zero_point(instrumental, catalogue)
        pulls.append([(found.value - 25) / found.error, (found.slope - 1) / found.slope_err])
    for part in np.transpose(pulls):
        width, known = pull_width(part)
        assert width == pytest.approx(1.0, abs=3 * known)


def test_ransac_where_no_line_can_be():
    """ZP-04: the same magnitude for all, or too few stars: NaN; MAD 0: exact; slope 1.2: told."""
    same = ransac_zero_point(np.full(20, -10.0), np.full(20, 15.0))
    assert np.isnan([same.slope, same.value, same.rms]).all() and same.n == 0
    # The slope is unknown, and still there is a zero point.
    assert same.fixed.value == 25.0
    few = ransac_zero_point([-10.0, -9.0, -8.0, np.nan, -7.0], [15.0, 16.0, 17.0, 18.0, 18.0])
    assert np.isnan(few.value) and few.fixed.value == 25.0
    scattered = ransac_zero_point(np.arange(6.0), [25.0, 29.0, 22.0, 33.0, 19.0, 20.0], threshold=1)
    assert np.isnan(scattered.value) and scattered.n < 5
    instrumental = np.linspace(-12, -8, 30)
    catalogue = MaskedColumn(instrumental + 25.0, mask=np.arange(30) == 4)
    catalogue[:8] += 1.0
    exact = ransac_zero_point(instrumental, catalogue, exclude=np.arange(30) == 9)
    assert exact.value == pytest.approx(25.0, abs=1e-9) and exact.n == 21
    assert exact.slope == pytest.approx(1.0, abs=1e-9) and not exact.used[[4, 9]].any()
    with pytest.warns(DataredWarning, match="slope .* is 1.200"):
        ransac_zero_point(instrumental, 1.2 * instrumental + 25.0)


def test_colour_term_of_one_frame():
    """ZP-06: the slope against the colour, whatever outliers do; NaN where there is no range."""
    pulls = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        index, instrumental = rng.normal(0.7, 0.4, 80), rng.uniform(-12, -8, 80)
        catalogue = instrumental + 24.5 + 0.05 * index + rng.normal(0, 0.02, 80)
        catalogue[:10] += rng.choice([-1, 1], 10) * rng.uniform(0.3, 2, 10)
        found = colour_term(instrumental, catalogue, index)
        pulls.append([(found.value - 0.05) / found.error])
        pulls[-1].append((found.zero_point - 24.5) / found.zero_point_err)
    for part in np.transpose(pulls):
        width, known = pull_width(part)
        assert width == pytest.approx(1.0, abs=3 * known) and abs(np.mean(part)) < 3 / np.sqrt(60)
    assert found.scatter == pytest.approx(0.02, rel=0.3) and 60 < found.n < 72
    one = colour_term(instrumental, catalogue, np.full(80, 0.7))
    assert np.isnan(one.value) and one.n == 80
    assert np.isnan(colour_term([1.0], [2.0], [0.1]).value)


def test_passband_names():
    """Names of filters lead to bands; case is kept."""
    names = ["g'", "Sloan r", "SDSS-i", "Bessell_V", "R", "none", ""]
    assert [passband(name) for name in names] == ["g", "r", "i", "V", "R", "none", ""]


def test_e34_unequal_epochs_and_one_exposure_per_filter(tmp_path):
    """E34, CM-01, 001-13: three epochs of g, one of r, unequal exposure times: both magnitudes."""
    extinction = [0.1, 0.12, 0.3, 0.15]
    result, truth = make_photometry("ggrg", extinction=extinction)
    night = write(result, tmp_path / "work")
    points = calibrate_night(night)
    assert list(points["status"]) == ["made"] * 4
    for row, extra in zip(points, extinction, strict=True):
        # 120 stars of S/N > 20 with a scatter of 2 %: 0.0025.
        assert row["zero_point"] == pytest.approx(ZERO[row["filter"]] - extra, abs=0.008)
        assert 0.0007 < row["error"] < 0.004
    table = Table.read(night.work / "magnitudes.ecsv")
    assert table["g"].meta["system"] == table["r_err"].meta["system"] == "PS1 AB"
    assert list(np.unique(table["g_n"])) == [3] and list(np.unique(table["r_n"])) == [1]
    for band in "gr":
        bright = truth[band] < 16.5
        pulls = (table[band] - truth[band])[bright] / table[f"{band}_err"][bright]
        # About 140 pulls with a common zero point: widths known to 6 %.
        assert np.std(pulls) == pytest.approx(1.0, abs=0.2)
        assert abs(np.mean((table[band] - truth[band])[bright])) < 0.005
    chi2 = np.asarray(table["g_chi2"])
    # Two degrees of freedom, 200 stars: the mean is known to 7 %.
    assert np.nanmean(chi2) == pytest.approx(1.0, abs=0.25)
    assert np.ma.getmaskarray(table["r_chi2"]).all()
    assert list(calibrate_night(night)["status"]) == ["current"] * 4


def test_mean_magnitudes_are_unbiased_at_low_signal():
    """Weights do not follow a star's own noise: ten epochs of S/N 10 have no bias."""
    result, _ = make_photometry("g" * 10, n_star=2000, seed=4)
    # Only photons: the case in which noisy weights hurt most.
    rng = np.random.default_rng(9)
    photons = 100.0
    counts = rng.poisson(photons, result.flux.shape) / GAIN
    result.flux[:], result.flux_err[:] = counts, np.sqrt(counts / GAIN)
    result.epochs["exptime"] = 60.0
    points = zero_points(result)
    points["offset"], points["error"] = 0.0, 0.0
    table = star_magnitudes(result, points)
    bias = np.mean(10 ** (-0.4 * np.asarray(table["g"]))) / (photons / GAIN / 60) - 1
    # 2000 stars x 10 epochs x 100 photons: known to 0.07 %; naive weights are 1 % low.
    assert abs(bias) < 0.003


def test_saturated_excluded():
    """PH-09: a saturated star is in no zero point and no magnitude, but is listed with its flag."""
    result, _ = make_photometry("gg")
    result.flags[7, :, 0] = flag.SATURATED
    result.flux[7] = 1e9
    result.flags[9, 0, 0] = flag.EDGE
    result.flux[9, 0] = np.nan
    result.flags[11, 0, 0] = flag.BAD_PIXEL
    result.flux[11, 0] *= 3
    points = zero_points(result)
    table = star_magnitudes(result, points)
    assert len(table) == 200 and list(table["star"][7:8]) == [7]
    assert np.ma.getmaskarray(table["g"])[7] and table["g_flags"][7] == flag.SATURATED
    assert table["g_n"][7] == 0 and table["g_n"][9] == 1
    # One clean measurement and one with a bad pixel: the clean one counts.
    assert table["g_n"][11] == 1 and table["g_flags"][11] == 0
    free, _ = make_photometry("gg")
    assert np.allclose(zero_points(free)["zero_point"], points["zero_point"], atol=0.002)
    # Most of the stars, and a third of their light gone: in a zero point it would show.
    result.flags[20:150] |= flag.SATURATED
    result.flux[20:150] *= 0.7
    assert np.allclose(zero_points(result)["zero_point"], points["zero_point"], atol=0.012)


def test_e29_negative_flux_is_a_masked_magnitude_and_stays_a_flux():
    """E29, PH-05: no NaN, no warning; the flux and its error are kept, and count in a mean."""
    result, _ = make_photometry("ggg")
    result.flux[8] = -50.0
    result.flux[12, 0, 0], result.flux_err[12] = -40.0, 60.0
    result.flags[:] |= np.where(result.flux < 0, flag.NEGATIVE, 0)
    before = result.flux.copy()
    table = star_magnitudes(result, zero_points(result))
    for name in ("g", "g_err", "g_scatter"):
        assert np.ma.getmaskarray(table[name])[8]
    assert table["g_n"][8] == 3 and table["g_flags"][8] == flag.NEGATIVE
    assert np.isfinite(table["g"].compressed()).all() and len(table["g"].compressed()) == 199
    assert np.array_equal(result.flux, before) and np.isfinite(result.flux_err[8]).all()
    # A faint star that is negative once: leaving that one out would make it too bright.
    faint, _ = make_photometry("ggg")
    faint.flux[12, :, 0] = [-40.0, 50.0, 80.0]
    faint.flux_err[12] = 60.0
    faint.flags[12, 0] = flag.NEGATIVE
    faint.epochs["exptime"] = 60.0
    points = zero_points(faint)
    points["offset"], points["error"] = 25.0, 0.0
    mean = 10 ** (-0.4 * (star_magnitudes(faint, points)["g"][12] - 25.0)) * 60
    assert mean == pytest.approx(30.0, abs=3.0)


@pytest.mark.parametrize("n_epoch", [3, 5, 8])
def test_one_trail_or_cosmic_ray_spoils_no_mean_magnitude(n_epoch):
    """A flux that is 20 % or ten times too high once: left out; constant stars lose nothing."""
    result, _ = make_photometry("g" * n_epoch)
    free = star_magnitudes(result, zero_points(result))
    bright = np.flatnonzero(free["g_err"].filled(1) < 0.004)[:2]
    result.flux[bright[0], 1] *= 1.2
    result.flux[bright[1], 2] *= 10
    table = star_magnitudes(result, zero_points(result))
    # A mean of n - 1 of n measurements moves by its error over sqrt(n - 1).
    shift = (table["g"] - free["g"])[bright] / free["g_err"][bright]
    assert np.abs(shift).max() < 3 / np.sqrt(n_epoch - 1)
    assert list(table["g_n"][bright]) == [n_epoch - 1] * 2
    assert (free["g_n"] == n_epoch).all() and (table["g_n"] == n_epoch).sum() == 198
    # Of two measurements nobody can tell the wrong one.
    pair, _ = make_photometry("gg")
    pair.flux[bright[0], 1] *= 1.2
    assert (star_magnitudes(pair, zero_points(pair))["g_n"] == 2).all()


def test_filter_without_catalogue_is_instrumental(tmp_path):
    """No V in the catalogue: instrumental magnitudes, with the haze between the epochs removed."""
    extinction = [0.0, 0.2, 0.1]
    result, truth = make_photometry("VVV", extinction=extinction)
    night = write(result, tmp_path / "work")
    points = calibrate_night(night)
    assert np.isnan(points["zero_point"]).all() and set(points["system"]) == {"instrumental"}
    assert all("catalogue" in reason for reason in points["reason"])
    # Each epoch against the middle one; the hazy one's stars are made brighter.
    assert np.allclose(points["offset"], [0.1, -0.1, 0.0], atol=0.01)
    table = Table.read(night.work / "magnitudes.ecsv")
    bright = truth["V"] < 16
    difference = (table["V"] - truth["V"])[bright]
    assert np.std(difference) < 0.02 and table["V"].meta["system"] == "instrumental"
    assert np.nanmean(np.asarray(table["V_chi2"])) == pytest.approx(1.0, abs=0.3)


def test_cloudy_epoch_without_stars_is_left_out():
    """An epoch with too few stars has no zero point and no part in the magnitudes."""
    result, _ = make_photometry("ggg")
    result.flux[:, 1] = 0.1
    points = zero_points(result)
    assert list(np.isnan(points["zero_point"])) == [False, True, False]
    assert "only 0 stars" in points["reason"][1]
    assert set(star_magnitudes(result, points)["g_n"]) == {2}
    two, _ = make_photometry("ggg")
    known = ~np.ma.getmaskarray(two.stars["cat_g"]) & (
        two.flux[:, 1, 0] > 30 * two.flux_err[:, 1, 0]
    )
    two.flags[np.flatnonzero(known)[2:], 1] = flag.SATURATED
    two.flux[~known, 1] = 0.1
    assert "only 2 stars" in zero_points(two)["reason"][1]


def test_hazy_epoch_takes_fainter_stars():
    """Where few stars reach S/N 20 the limit is lowered instead of losing the epoch."""
    result, _ = make_photometry("g", n_star=60, extinction=[4.3])
    points = zero_points(result)
    assert points["n"][0] >= 3
    assert points["zero_point"][0] == pytest.approx(ZERO["g"] - 4.3, abs=4 * points["error"][0])


def test_missing_photometry_says_what_to_run(tmp_path):
    """Without photometry there is nothing to calibrate, and the message says so."""
    with pytest.raises(DataredError, match="stage photometry"):
        calibrate_night(Night(name="x", raw=tmp_path, work=tmp_path / "work"))


def test_e34_one_exposure_per_filter(tmp_path):
    """E34, CM-01, 001-13: g and r once each: one-epoch columns stay two-dimensional, and work."""
    result, truth = make_photometry("gr", terms=TERMS)
    night = write(result, tmp_path / "work")
    points = calibrate_night(night)
    assert len(points) == 2 and set(points["status"]) == {"made"}
    assert list(points["frame_error"]) == [0, 0] and set(points["colour"]) == {"g-r"}
    table = Table.read(night.work / "magnitudes.ecsv")
    for band in "gr":
        assert set(table[f"{band}_n"]) == {1} and np.ma.getmaskarray(table[f"{band}_chi2"]).all()
        pulls = (table[band] - truth[band]) / table[f"{band}_err"]
        # 200 pulls: their width is known to 7 %.
        assert pull_width(np.ma.filled(pulls, np.nan))[0] == pytest.approx(1.0, abs=0.2)


def test_one_exposure_in_one_filter_only(tmp_path):
    """E34, CM-01: a single frame of a night: no colour, a zero point and magnitudes."""
    result, truth = make_photometry("r")
    night = write(result, tmp_path / "work")
    points = calibrate_night(night)
    assert points["zero_point"][0] == pytest.approx(ZERO["r"], abs=4 * points["error"][0])
    # Empty texts come back from a file as masked.
    assert not str(points["colour"].filled("")[0] if hasattr(points["colour"], "mask") else "")
    table = Table.read(night.work / "magnitudes.ecsv")
    assert {"r", "r_err", "r_n"} < set(table.colnames) and "g" not in table.colnames
    assert np.ma.median(np.abs(table["r"] - truth["r"])[truth["r"] < 15]) < 0.01


def test_e35_two_filters_under_one_object_name_stay_apart():
    """E35: the same stars in g and r, in turn: each filter has its own zero points and columns."""
    result, truth = make_photometry("grgrgr")
    result.epochs["object"] = "NGC 1"
    points = zero_points(result)
    table = star_magnitudes(result, points)
    for band in "gr":
        rows = points["filter"] == band
        assert np.allclose(points["zero_point"][rows], ZERO[band], atol=0.005)
        assert set(table[f"{band}_n"]) == {3}
        bright = truth[band] < 15
        # Mixed, the magnitudes would differ by mags, and chi2 be in the thousands.
        assert np.ma.max(np.abs(table[band] - truth[band])[bright]) < 0.03
        assert np.ma.median(table[f"{band}_chi2"]) < 2
    # Two names of one passband are two filters as well: nobody says that they are the same glass.
    result.epochs["filter"] = ["g", "r", "SDSS g", "r", "g", "r"]
    names = star_magnitudes(result, zero_points(result)).colnames
    assert {"g", "SDSS g", "r"} < set(names)


def test_filter_missing_in_the_catalogue_or_on_most_frames():
    """CM-01: a filter that the catalogue has not, and one of a single frame, beside others."""
    result, truth = make_photometry("gVgVVr", terms=TERMS)
    points = zero_points(result)
    table = star_magnitudes(result, points)
    assert list(points["system"]) == ["PS1 AB" if f in "gr" else "instrumental" for f in "gVgVVr"]
    assert [str(text) for text in points["colour"]] == ["g-r", "", "g-r", "", "", "g-r"]
    assert table["V"].meta["system"] == "instrumental" and set(table["V_n"]) == {3}
    assert np.ma.median(np.abs(table["r"] - truth["r"])[truth["r"] < 15]) < 0.01
    with pytest.raises(DataredError, match="one system"):
        colour(table["V"], table["r"])


def test_repeated_frame_counts_once():
    """CM-01: a copy of a frame in another folder is named and does not make errors smaller."""
    result, _ = make_photometry("ggr")
    once = star_magnitudes(result, zero_points(result))
    twice = dataclasses.replace(result, **{
        name: np.concatenate([part, part[:, :1]], axis=1)
        for name in ("flux", "flux_err", "flags", "sky", "x", "y")
        for part in [getattr(result, name)]
    }, epochs=result.epochs[[0, 1, 2, 0]])  # fmt: skip
    twice.epochs["file"] = ["0.fits", "1.fits", "2.fits", "copy.fits"]
    points = zero_points(twice)
    assert points["reason"][3] == "the same frame as 0.fits" and np.isnan(points["offset"][3])
    again = star_magnitudes(twice, points)
    assert np.array_equal(again["g_n"], once["g_n"])
    assert np.allclose(again["g_err"], once["g_err"]) and np.allclose(again["g"], once["g"])


def test_magnitudes_with_colour_term_are_those_of_the_truth():
    """ZP-06: magnitudes in the catalogue's system for blue and red stars, with true errors."""
    result, truth = make_photometry("ggrr", n_star=600, terms=TERMS)
    points = zero_points(result)
    for band in "gr":
        row = points[points["filter"] == band][0]
        assert row["colour"] == "g-r"
        assert row["colour_term"] == pytest.approx(TERMS[band], abs=3 * row["colour_term_err"])
        assert row["zero_point"] == pytest.approx(ZERO[band], abs=3 * row["error"])
        assert 0.0005 < row["colour_term_err"] < 0.003
    table = star_magnitudes(result, points)
    index = truth["g"] - truth["r"]
    for band in "gr":
        away = table[band] - truth[band]
        bright = (truth["r"] < 16) & ~np.ma.getmaskarray(away)
        slope = np.polyfit(index[bright], away[bright], 1)[0]
        # 300 stars of 0.005 over 0.4 mag: 0.001, and the error of the term as much.
        assert abs(slope) < 0.004 < abs(TERMS[band]) / 5
        width, known = pull_width(np.ma.filled(away / table[f"{band}_err"], np.nan))
        assert width == pytest.approx(1.0, abs=3 * known)
    # Without a colour term the slope stays in.
    plain = star_magnitudes(result, zero_points(result, colour="none"))
    away = (plain["g"] - truth["g"])[bright]
    assert np.polyfit(index[bright], away, 1)[0] == pytest.approx(-TERMS["g"], abs=0.005)


def test_star_without_a_colour_gets_the_median_one_and_its_error():
    """ZP-06: seen in r only, and not in the catalogue: the median colour, and what that costs."""
    result, truth = make_photometry("gr", n_star=400, terms=TERMS)
    known = star_magnitudes(result, zero_points(result))
    alone = np.arange(400) % 5 == 0  # These are masked in the catalogue.
    result.flags[alone, 0] = flag.SATURATED
    table = star_magnitudes(result, zero_points(result))
    assert np.ma.getmaskarray(table["g"])[alone].all()
    bright = alone & (truth["r"] < 15)
    error = np.asarray(table["r_err"])[bright]
    # The spread of the colours, 0.4, times the term; the stars with a colour have 0.003.
    assert np.median(error) == pytest.approx(abs(TERMS["r"]) * 0.4, rel=0.25)
    pulls = np.asarray(table["r"] - truth["r"])[bright] / error
    width, sigma = pull_width(pulls)
    assert width == pytest.approx(1.0, abs=3 * sigma)
    assert np.median(np.asarray(known["r_err"])[bright]) < 0.3 * np.median(error)
    # In the catalogue: its colour.
    result.flags[~alone & (truth["r"] < 15), 0] = flag.SATURATED
    table = star_magnitudes(result, zero_points(result))
    from_catalogue = ~alone & (truth["r"] < 15)
    assert np.max(np.abs(table["r"] - truth["r"])[from_catalogue]) < 0.02


def test_every_star_flagged_falls_back_and_says_so():
    """ZP-03: all have a neighbour: they are used, and the reason says it; saturated never are."""
    result, _ = make_photometry("ggr")
    result.flags[:, 0] = flag.NEIGHBOUR
    result.flags[:, 1] = flag.SATURATED
    points = zero_points(result)
    assert "flagged ones were used (neighbour)" in points["reason"][0]
    assert points["zero_point"][0] == pytest.approx(ZERO["g"], abs=0.01) and points["n"][0] > 100
    assert np.isnan(points["zero_point"][1]) and "only 0 stars" in points["reason"][1]
    assert points["reason"][2] == ""
    # Three bright ones without a flag are enough to leave the others alone.
    known = ~np.ma.getmaskarray(result.stars["cat_g"])
    bright = np.flatnonzero(known & (result.flux[:, 0, 0] > 100 * result.flux_err[:, 0, 0]))
    result.flags[bright[:3], 0] = 0
    points = zero_points(result)
    assert points["n"][0] == 3 and points["reason"][0] == ""


@pytest.mark.parametrize("method", ["median", "ransac"])
def test_methods_frame_by_frame(method, tmp_path):
    """ZP-03, ZP-04: the median and RANSAC give each frame a zero point, without a colour term."""
    result, _ = make_photometry("ggr", extinction=[0.1, 0.4, 0.2])
    night = write(result, tmp_path / "work", method=method)
    points = calibrate_night(night)
    for row, extra in zip(points, [0.1, 0.4, 0.2], strict=True):
        assert row["zero_point"] == pytest.approx(ZERO[row["filter"]] - extra, abs=0.008)
        assert row["error"] == row["frame_error"] == pytest.approx(0.0025, rel=0.6)
        assert row["colour_term"] == 0 and np.isnan(row["colour_term_err"])
    assert list(calibrate_night(night)["status"]) == ["current"] * 3
    changed = dataclasses.replace(night, magnitudes=MagnitudeOptions(method="global"))
    assert list(calibrate_night(changed)["status"]) == ["made"] * 3


def test_one_frame_is_its_own_zero_point():
    """ZP-03, ZP-04: for one frame the methods are the formulas for one frame."""
    result, _ = make_photometry("g")
    magnitude = instrumental_magnitude(result.flux[:, 0, 0], 60.0)
    exclude = ~(result.flux[:, 0, 0] > 20 * result.flux_err[:, 0, 0])
    catalogue = result.stars["cat_g"]
    alone = zero_point(magnitude, catalogue, exclude=exclude)
    assert zero_points(result, method="median")["zero_point"][0] == alone.value
    line = ransac_zero_point(magnitude, catalogue, exclude=exclude)
    assert zero_points(result, method="ransac")["zero_point"][0] == line.fixed.value
    both = zero_points(result)["zero_point"][0]
    assert both == pytest.approx(alone.value, abs=3 * alone.error)


def test_colour_of_the_colour_term_is_chosen_and_refused():
    """ZP-06: auto takes the ends of the spectrum, in one system; a band that is not there: told."""
    result, _ = make_photometry("gr", terms=TERMS)
    stars = result.stars
    stars["cat_i"] = stars["cat_r"].copy()
    stars["cat_G"], stars["cat_V"] = stars["cat_g"].copy(), stars["cat_g"].copy()
    stars["cat_V"].meta["system"] = "Johnson Vega"
    # The catalogue's i is no help as long as the night has no i.
    assert set(zero_points(result)["colour"]) == {"g-r"}
    assert set(zero_points(result, colour="g-i")["colour"]) == {"g-i"}
    assert set(zero_points(result, colour="none")["colour"]) == {""}
    for wrong in ("g-V", "g-K", "g-g"):
        with pytest.raises(DataredError, match="in one system; it has g, r, i, G, V"):
            zero_points(result, colour=wrong)


def test_transformation_brings_the_catalogue_into_another_system(tmp_path):
    """ZP-06: zero points and magnitudes in the system of the transformed catalogue."""
    result, truth = make_photometry("gr", terms=TERMS)
    name = "PS1 to SDSS (Tonry 2012)"
    night = write(result, tmp_path / "work", transformation=name)
    points = calibrate_night(night)
    assert set(points["system"]) == {"SDSS AB"}
    table = Table.read(night.work / "magnitudes.ecsv")
    assert table["g"].meta["system"] == "SDSS AB"
    index = truth["g"] - truth["r"]
    sloan = truth["g"] + 0.013 + 0.145 * index + 0.019 * index**2
    # A parabola is no straight line: the ends of the colours differ by 0.01.
    usual = (truth["r"] < 15) & (index > 0) & (index < 1.2)
    assert np.ma.median(np.abs(table["g"] - sloan)[usual]) < 0.01
    with pytest.raises(DataredError, match="there is no transformation 'x'"):
        calibrate_night(dataclasses.replace(night, magnitudes=MagnitudeOptions(transformation="x")))


def test_colours_from_the_catalogue_are_of_the_system_of_the_magnitudes():
    """ZP-06: a star without a colour of its own: the transformed catalogue's, not the plain one."""
    result, truth = make_photometry("gr", n_star=400, terms={"r": -0.2})
    options = {"transformation": "PS1 to SDSS (Tonry 2012)"}
    whole = star_magnitudes(result, zero_points(result, **options))
    points = zero_points(result, **options)
    alone = (np.arange(400) % 5 > 2) & (truth["r"] < 16)
    result.flags[alone, 0] = flag.SATURATED
    table = star_magnitudes(result, points)
    assert np.ma.getmaskarray(table["g"])[alone].all()
    # Median of 90 colours, known to 0.02, times 0.2: 0.0005. Those of PS1 are smaller by 0.1.
    assert abs(np.ma.median((table["r"] - whole["r"])[alone])) < 3 * 0.0005
    # A catalogue of another system says nothing: the median colour, with its spread.
    points["system"] = np.full(2, "Johnson Vega")
    other = star_magnitudes(result, points)
    before, error = (np.median(np.asarray(part["r_err"])[alone]) for part in (table, other))
    spread = np.std(truth["g"] - truth["r"])
    assert error == pytest.approx(0.2 * spread, rel=0.25) and error > 5 * before


def test_one_filter_whose_colours_nobody_knows(monkeypatch):
    """ZP-06: V alone, with a colour term in B - V: magnitudes for the standards' mean colour."""
    result, truth = make_photometry("V", catalogue=("g",))
    points = zero_points(result)
    points["offset"], points["system"] = ZERO["V"], np.array(["Johnson Vega"])
    points["colour"] = np.array(["B-V"])
    points["colour_term"], points["colour_term_err"] = 0.1, 0.01
    points.meta["filters"]["V"]["pivot"] = 0.6
    table = star_magnitudes(result, points)
    away = np.ma.filled(table["V"] - truth["V"], np.nan)[truth["V"] < 14]
    assert np.mean(away) == pytest.approx(0.06, abs=0.005)
    error = np.asarray(table["V_err"])[truth["V"] < 14]
    assert np.median(error) == pytest.approx(0.05, rel=0.05)


def test_standard_field_replaces_the_catalogue(tmp_path, monkeypatch):
    """ZP-03: zero points of a standard field for its filters; the catalogue for the others."""
    result, truth = make_photometry("VgV", extinction=[0.1, 0.0, 0.2])
    solution = Table({"filter": ["V"], "zero_point_err": [0.01], "extinction": [0.12]})
    for key, value in (
        ("extinction_err", 0.02),
        ("zero_point_0", 21.1),
        ("zero_point_0_err", 0.03),
    ):
        solution[key] = value
    rows = Table({"zero_point": [20.9, np.nan, 20.8], "error": [0.0125, np.nan, 0.0125]})
    rows["common_error"], rows["pivot"] = 0.01, 0.0
    rows["n"], rows["colour_term"], rows["colour_term_err"] = 5, 0.0, np.nan
    rows["colour"], rows["system"], rows["reason"] = "", "Johnson Vega", "standard field"
    monkeypatch.setattr(zeropointtables, "epoch_zero_points", lambda *_, **__: rows)
    points = zero_points(result, standards=solution)
    assert list(points["system"]) == ["Johnson Vega", "PS1 AB", "Johnson Vega"]
    assert list(points["zero_point"][[0, 2]]) == [20.9, 20.8]
    # 0.0125 with 0.010 common to all epochs: 0.0075 of its own.
    assert np.allclose(points["frame_error"][[0, 2]], 0.0075)
    assert points.meta["filters"]["V"]["extinction"] == 0.12
    table = star_magnitudes(result, points)
    bright = truth["V"] < 14
    assert table["V"].meta["system"] == "Johnson Vega"
    assert np.ma.median((table["V"] - truth["V"])[bright]) == pytest.approx(0.0, abs=0.006)
    assert np.isnan(points["scatter"][[0, 2]]).all() and np.isfinite(points["scatter"][1])
    # Nothing is better known than the standards are.
    assert np.ma.min(table["V_err"]) > 0.01
    night = write(result, tmp_path / "work", standards=tmp_path / "landolt.ecsv")
    solved = []

    def solve(night):
        solved.append(night)
        solution.write(night.work / "standards.ecsv", overwrite=True)
        return solution

    monkeypatch.setattr(magnitudes, "standard_solution", solve)
    assert list(calibrate_night(night)["system"]) == list(points["system"]) and solved == [night]


def test_summary_of_magnitudes_and_diagram(tmp_path):
    """CM-02, ZP-06: lines on zero points, colour terms, stars cut and members; none of nothing."""
    result, _ = make_photometry("ggrr", terms=TERMS)
    night = write(result, tmp_path / "work")
    assert summarise(night, "magnitudes") == summarise(night, "diagram") == []
    points = calibrate_night(night)
    lines = summarise(night, "magnitudes")
    assert lines[0].startswith("g: zero point 22.") and lines[0].endswith("stars (PS1 AB)")
    row = points[points["filter"] == "g"][0]
    term = f"{row['colour_term']:+.3f} +- {row['colour_term_err']:.3f}"
    assert lines[1] == f"g: colour term {term} (g-r)"
    magnitudes = Table.read(night.work / "magnitudes.ecsv")
    magnitudes["g_err"][:7], magnitudes["r_err"][7:16] = 0.5, 0.5
    magnitudes.remove_columns(["g_chi2", "r_chi2"])
    table = colour_magnitude_table(magnitudes, bands=("g", "r"))
    told = {"reason": "too few stars", "n_members": 0.0, "n_measured": 12}
    for found, line in (
        ({}, None),
        (told, "no membership: too few stars"),
        (
            {"reason": "", "n_members": 41.6, "n_measured": 180}
            | {"mean": {"parallax": 0.4131, "pm_dec": -2.6, "pm_ra": 2.3362}}
            | {"mean_err": {"parallax": 0.0042, "pm_dec": 0.008, "pm_ra": 0.0087}},
            "42 of 180 stars with a proper motion are members: pm_ra 2.336 +- 0.009 mas/yr, "
            "pm_dec -2.600 +- 0.008 mas/yr, parallax 0.413 +- 0.004 mas",
        ),
    ):
        table.meta["membership"] = found
        table.write(night.work / "cmd.ecsv", overwrite=True)
        lines = summarise(night, "diagram")
        assert lines[0] == (
            "g against g - r: 184 of 200 stars kept, cut most often: 9 large error (r), "
            "7 large error (g)"
        )
        assert lines[1:] == ([] if line is None else [line])
    # A night of one filter has an empty table.
    Table({"star": []}).write(night.work / "cmd.ecsv", overwrite=True)
    assert summarise(night, "diagram") == []


@pytest.mark.parametrize("catalogue", [("g", "r"), ("g", "V")])
def test_standard_field_and_catalogue_never_meet_in_one_filter(catalogue, monkeypatch):
    """ZP-03: an epoch that the standards do not reach has no zero point, not another one."""
    result, truth = make_photometry("VVV", catalogue=catalogue)
    solution = Table({"filter": ["V"], "extinction": [0.12], "extinction_err": [0.02]})
    solution["zero_point_0"], solution["zero_point_0_err"] = 21.1, 0.03
    rows = Table({"zero_point": [21.0, np.nan, 21.0], "error": [0.01, np.nan, 0.01]})
    rows["common_error"], rows["pivot"], rows["n"] = [0.005, np.nan, 0.005], 0.0, [9, 1, 9]
    rows["colour"], rows["colour_term"], rows["colour_term_err"] = "", 0.0, np.nan
    rows["system"], rows["reason"] = "Johnson Vega", ["", "no bright star", ""]
    monkeypatch.setattr(zeropointtables, "epoch_zero_points", lambda *_, **__: rows)
    points = zero_points(result, standards=solution)
    assert set(points["system"]) == {"Johnson Vega"} and points["reason"][1] == "no bright star"
    for name in ("zero_point", "offset", "error", "frame_error"):
        assert list(np.isnan(points[name])) == [False, True, False], name
    table = star_magnitudes(result, points)
    assert set(table["V_n"]) == {2}
    assert np.ma.median(np.abs(table["V"] - truth["V"])[truth["V"] < 15]) < 0.01
    # A field of standards that reaches no epoch at all leaves the catalogue's solution alone.
    rows["zero_point"] = np.nan
    alone = zero_points(result)
    assert np.array_equal(zero_points(result, standards=solution)["offset"], alone["offset"])


def test_results_are_the_same_for_any_order_of_stars():
    """ZP-03: the solution does not hang on the order of rows, nor on who computes it."""
    result, _ = make_photometry("ggr", terms=TERMS)
    order = np.random.default_rng(1).permutation(200)
    mixed = dataclasses.replace(result, stars=result.stars[order], **{
        name: getattr(result, name)[order]
        for name in ("flux", "flux_err", "flags", "sky", "x", "y")
    })  # fmt: skip
    for name in ("zero_point", "error", "colour_term"):
        assert np.allclose(zero_points(result)[name], zero_points(mixed)[name], atol=1e-9)
