"""Magnitudes: signs, zero points, systems that never mix, nights of any number of filters."""

import numpy as np
import pytest
from astropy.table import Column, MaskedColumn, Table

from datared import photometry as flag
from datared.assembly import Photometry
from datared.errors import DataredError
from datared.magnitudes import (
    calibrate_night,
    colour,
    instrumental_magnitude,
    jansky_per_adu,
    magnitude_error,
    passband,
    star_magnitudes,
    to_jansky,
    zero_point,
    zero_points,
)
from datared.night import Night

GAIN = 1.5
ZERO = {"g": 22.5, "r": 22.1, "V": 21.0}


def make_photometry(filters, *, n_star=200, seed=1, catalogue=("g", "r"), extinction=None):
    """Measurements of stars with known magnitudes, one radius, sky noise of 60 counts."""
    rng = np.random.default_rng(seed)
    truth = {band: rng.uniform(13.0, 18.0, n_star) for band in ZERO}
    n_epoch = len(filters)
    extinction = np.zeros(n_epoch) if extinction is None else np.asarray(extinction)
    exposure = np.where(np.arange(n_epoch) % 2, 30.0, 60.0)
    flux = np.empty((n_star, n_epoch))
    for k, band in enumerate(filters):
        flux[:, k] = exposure[k] * 10 ** (-0.4 * (truth[band] + extinction[k] - ZERO[band]))
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


def write(result, work):
    """Write measurements as the stage before does."""
    work.mkdir()
    table = Table({"star": result.stars["star"], "flux": result.flux, "flux_err": result.flux_err})
    table["flags"], table["sky"] = result.flags, result.sky
    table["x"], table["y"] = result.x, result.y
    table.meta = {"NRADII": 1, "RADIUS0": 5.0, "RADUNIT": "px", "DEFRAD": 0, "GAIN_E": GAIN}
    table.write(work / "photometry.fits")
    result.stars.write(work / "stars.ecsv")
    result.epochs.write(work / "epochs.ecsv")
    return Night(name="test", raw=work / "raw", work=work)


def test_instrumental_magnitude_and_error_golden_numbers():
    """F5 and F6: per second, 1.0857 / (S/N); no warning and no number for a negative flux (E29)."""
    assert instrumental_magnitude(100.0 * 37, 37.0) == pytest.approx(-5.0)
    assert magnitude_error(100.0, 1.0) == pytest.approx(0.01086, abs=5e-6)
    values = instrumental_magnitude([-5.0, 0.0, np.nan, 10.0], 1.0)
    assert list(np.isnan(values)) == [True, True, True, False]
    assert list(np.isnan(magnitude_error([-5.0, 10.0], 1.0))) == [True, False]


def test_zp_median_is_right_within_its_error():
    """Outliers of a fifth of the stars do not move it; the error is the one that it has."""
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
    """Two stars: NaN with the number, no crash and no warning; none at all: the same."""
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
    """F11: 16.4 AB is 1.00006e-3 Jy; Vega magnitudes are refused; the value of one count."""
    assert to_jansky(16.4, system="PS1 AB").to_value("Jy") == pytest.approx(1.00006e-3, rel=1e-5)
    column = Column([16.4, 16.4])
    column.meta["system"] = "SDSS AB"
    assert np.allclose(to_jansky(column).to_value("Jy"), 1.00006e-3, rtol=1e-5)
    for system in (None, "Johnson Vega", "instrumental"):
        with pytest.raises(DataredError, match="AB"):
            to_jansky(16.4, system=system)
    counts = 60.0 * 10 ** (-0.4 * (16.4 - 22.0))
    total = counts * jansky_per_adu(22.0, 60.0, system="PS1 AB").to_value("Jy")
    assert total == pytest.approx(1.00006e-3, rel=1e-5)


def test_passband_names():
    """Names of filters lead to bands; case is kept."""
    names = ["g'", "Sloan r", "SDSS-i", "Bessell_V", "R", "none", ""]
    assert [passband(name) for name in names] == ["g", "r", "i", "V", "R", "none", ""]


def test_unequal_epochs_and_one_exposure_per_filter(tmp_path):
    """E34: three epochs of g, one of r, unequal exposure times: every star has both magnitudes."""
    extinction = [0.1, 0.12, 0.3, 0.15]
    result, truth = make_photometry("ggrg", extinction=extinction)
    night = write(result, tmp_path / "work")
    points = calibrate_night(night)
    assert list(points["status"]) == ["made"] * 4
    for row, extra in zip(points, extinction, strict=True):
        # 120 stars of S/N > 20 with a scatter of 2 %: 0.0025.
        assert row["zero_point"] == pytest.approx(ZERO[row["filter"]] - extra, abs=0.008)
        assert 0.001 < row["error"] < 0.004
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
