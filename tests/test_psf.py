"""PSF photometry: the model of a star, stars that overlap, errors that are true, flags."""

import subprocess
import sys

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import Table
from photutils.psf import ImagePSF, PSFPhotometry
from scipy.spatial import cKDTree

from datared import pixels, psfscene
from datared.background import Background
from datared.errors import FrameError
from datared.photometry import FLAG_NAMES, aperture_photometry
from datared.psf import (
    EPSF,
    build_epsf,
    moffat_epsf,
    psf_photometry,
    refine_epsf,
    select_psf_stars,
)
from datared.render import star_image
from datared.sources import detect

SKY, READ_NOISE = 200.0, 5.0


def observe(stars, seed, *, sky=SKY):
    """A frame in electrons of an image of stars: sky, photon noise and read noise."""
    rng = np.random.default_rng(seed)
    values = rng.poisson(stars + sky) + rng.normal(0, READ_NOISE, stars.shape)
    return CCDData(values.astype(np.float32), unit="electron")


def lattice(n, step, seed):
    """Positions of n x n stars, ``step`` pixels apart, at random sub-pixel phases; the shape."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(n), np.arange(n))
    x, y = (a.ravel() * step + 0.5 * step + rng.uniform(-0.5, 0.5, n * n) for a in (x, y))
    return x, y, (n * step,) * 2


def flat_sky(shape, sky=SKY):
    """The sky as it is, for tests of the fit alone."""
    noise = np.float32(np.sqrt(sky + READ_NOISE**2))
    return Background(np.full(shape, sky, np.float32), np.full(shape, noise, np.float32))


def spread(positions, n, draw, apart):
    """Positions with ``n`` more from ``draw``, none closer to another than ``apart``."""
    positions = list(positions)
    for _ in range(n):
        place = draw()
        while positions and np.hypot(*(np.array(positions) - place).T).min() < apart:
            place = draw()
        positions.append(place)
    return positions


@pytest.fixture(scope="module")
def field():
    """A frame of 70 stars (Moffat, FWHM 3.5 px) far from each other; truth; its model."""
    x, y, shape = lattice(10, 80, 3)
    rng = np.random.default_rng(4)
    x, y = x + rng.uniform(-8, 8, x.size), y + rng.uniform(-8, 8, y.size)
    flux = rng.permutation(np.geomspace(2e4, 4e5, x.size))
    ccd = observe(star_image(shape, x, y, flux, fwhm=3.5), 5)
    stars = select_psf_stars(detect(ccd), shape=shape)
    return ccd, x, y, flux, build_epsf(ccd, stars)


def test_psf_model_is_the_profile_at_every_phase():
    """PH-16: a drawn star equals the pixel-integrated profile; its sum within the radius is 1."""
    rng = np.random.default_rng(1)
    x, y = rng.uniform(20, 21, (2, 30))
    psf = moffat_epsf(fwhm=2.5, radius=15)
    truth = np.array([star_image((41, 41), a, b, 1.0, fwhm=2.5) for a, b in zip(x, y, strict=True)])
    ours = np.array([psf.image((41, 41), a, b, 1.0) for a, b in zip(x, y, strict=True)])
    near = np.hypot(*np.ogrid[-20:21, -20:21]) < 13
    scale = truth[:, near].sum() / ours[:, near].sum()
    assert abs(scale * ours - truth)[:, near].max() < 2e-4 * truth.max()
    # The sum is 1 as the mean over the phases: pixels come and go at the rim.
    assert ours.sum(axis=(1, 2)) == pytest.approx(1, abs=2e-4)
    for fwhm in (2.5, 5.0, 20.0):
        assert moffat_epsf(fwhm=fwhm, oversampling=2).fwhm == pytest.approx(fwhm, rel=0.03)


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 6.0])
def test_epsf_fwhm(fwhm):
    """PH-16, 004-14: the model built from stars is as wide as the truth to 3 %, and normalised."""
    x, y, shape = lattice(6, int(12 * fwhm) + 20, 7)
    flux = np.random.default_rng(8).uniform(5e4, 3e5, x.size)
    ccd = observe(star_image(shape, x, y, flux, fwhm=fwhm), 9)
    stars = select_psf_stars(detect(ccd), shape=shape)
    psf = build_epsf(ccd, stars)
    assert psf.n_stars == len(psf.used) >= 25 and psf.converged
    assert psf.oversampling == (4 if fwhm < 5 else 2)
    assert psf.fwhm == pytest.approx(fwhm, rel=0.03)
    side = 2 * int(psf.radius) + 5
    sums = [psf.image((side, side), side / 2 + p, side / 2 - p, 1.0).sum() for p in (0, 0.2, 0.5)]
    assert np.mean(sums) == pytest.approx(1, abs=1e-3)
    # Noise: the highest node of 36 stars of 1.7e5 electrons is known to about 0.5 %.
    truth = moffat_epsf(fwhm=fwhm, radius=psf.radius)
    image = [one.image((side, side), side / 2, side / 2, 1.0) for one in (psf, truth)]
    assert abs(image[0] - image[1]).max() < 0.015 * image[1].max()


def test_epsf_with_few_stars_is_coarser():
    """PH-16: with fewer than 25 stars two nodes per pixel; the width is right all the same."""
    x, y, shape = lattice(3, 70, 11)
    ccd = observe(star_image(shape, x, y, 2e5, fwhm=4.0), 12)
    psf = build_epsf(ccd, Table({"x": x, "y": y}), fwhm=4.0)
    assert (psf.oversampling, psf.n_stars) == (2, 9)
    assert psf.fwhm == pytest.approx(4.0, rel=0.03)
    # A star has 0.3 % of noise; 0.1 % of its light lies beyond the radius.
    assert np.asarray(psf.used["flux"]) == pytest.approx(2e5, rel=0.015)


def test_epsf_selection_says_why():
    """PH-16: each star that is not used has a reason; those used lie all over the frame."""
    x, y, shape = lattice(9, 60, 13)
    flux = np.full(x.size, 1e5)
    table = Table({"x": x, "y": y, "flux": flux, "snr": flux / 300, "fwhm": 4.0 + 0 * x})
    table["peak"], table["flags"] = flux / 20, np.zeros(x.size, np.uint16)
    table["flags"][0], table["flags"][1] = FLAG_NAMES["saturated"], FLAG_NAMES["bad pixel"]
    table["x"][2], table["snr"][3], table["peak"][4] = 5.0, 20.0, 60000.0
    table["fwhm"][5] = 7.0
    table["x"][7], table["y"][7], table["flux"][7] = x[6] + 8, y[6], 5000.0
    table["x"][8] = np.nan
    chosen = select_psf_stars(table, shape=shape, fwhm=4.0, n=32, max_peak=50000)
    assert chosen["reason"][:9].tolist() == [
        "saturated",
        "bad pixels",
        "near the edge",
        "signal-to-noise below 50",
        "peak above the linear range",
        "not as wide as the others",
        "not alone",
        "not alone",
        "no position or flux",
    ]
    used = chosen[chosen["reason"] == ""]
    assert len(used) == 32
    cells = np.unique((used["x"] // (shape[1] / 4)) + 4 * (used["y"] // (shape[0] / 4)))
    assert len(cells) == 16
    assert set(chosen["reason"][9:]) == {"", "enough stars near it"}
    with pytest.raises(ValueError, match="give the width of the stars"):
        select_psf_stars(table, shape=shape)


def test_epsf_few_stars_is_an_error():
    """PH-16: too few stars: the message says how many, why the others fell out, what to do."""
    x, y, shape = lattice(3, 60, 14)
    ccd = observe(star_image(shape, x, y, 1e5, fwhm=4.0), 15)
    stars = Table({"x": x, "y": y, "reason": ["saturated"] * 5 + [""] * 4})
    with pytest.raises(
        FrameError, match=r"needs 5 good stars, here are 4 of 9 \(5 saturated\); lower"
    ):
        build_epsf(ccd, stars, fwhm=4.0)
    ccd.mask = np.zeros(shape, bool)
    ccd.mask[int(y[8]), int(x[8])] = True
    with pytest.raises(FrameError, match=r"here are 3 of 9 \(1 bad pixels, 5 saturated\)"):
        build_epsf(ccd, stars, fwhm=4.0)
    # Where no star stands there is no model, whatever the list says.
    empty = observe(np.zeros(shape), 15)
    stars = Table({"x": np.ma.array(x, mask=np.arange(9) == 0), "y": y})
    with pytest.raises(FrameError, match=r"here are 0 of 9 \(8 no light there, 1 no position\)"):
        build_epsf(empty, stars, fwhm=4.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": np.ones((8, 8))}, "m odd"),
        ({"data": np.full((9, 9), np.nan)}, "finite"),
        ({"radius": 4.5}, "no more than the 4 px"),
        ({"fwhm": -1.0}, "must be positive"),
    ],
)
def test_psf_model_reaches_its_radius(change, words):
    """PH-16: a model whose nodes end before its radius would be read beyond its end."""
    with pytest.raises(ValueError, match=words):
        EPSF(**{"data": np.ones((9, 9)), "oversampling": 1, "radius": 4.0, "fwhm": 3.0} | change)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"fwhm": 0.3}, "above 0.6"),
        ({"radius": 2}, "2 FWHM"),
        ({"oversampling": 2.5}, "whole numbers"),
        ({"iterations": 0}, "whole numbers"),
    ],
)
def test_epsf_refuses_what_means_nothing(option, words):
    """PH-16: an option of which no model can come is named, before any work."""
    stars = Table({"x": [25.0], "y": [25.0]})
    with pytest.raises(ValueError, match=words):
        build_epsf(np.zeros((50, 50)), stars, **{"fwhm": 4.0, **option})


@pytest.mark.parametrize("sky", ["gradient", "negative"])
def test_epsf_and_psf_do_not_mind_the_sky(sky):
    """PH-15, PH-16: on a tilted sky, and on one below zero, model and fluxes are right."""
    x, y, shape = lattice(5, 60, 35)
    image = star_image(shape, x, y, 2e5, fwhm=4.0)
    slope = np.arange(shape[1]) if sky == "gradient" else 0
    ccd = observe(image + slope, 36)
    ccd.data -= np.float32(1000 if sky == "negative" else 0)
    psf = build_epsf(ccd, Table({"x": x, "y": y}), fwhm=4.0)
    assert psf.n_stars == 25 and psf.fwhm == pytest.approx(4.0, rel=0.03)
    table, _ = psf_photometry(ccd, x, y, psf=psf, read_noise=READ_NOISE)
    assert np.mean(table["flux"]) == pytest.approx(2e5, rel=0.004)
    assert np.std((table["flux"] - np.mean(table["flux"])) / table["flux_err"]) < 1.5


def test_psf_isolated(field):
    """PH-15, 000-35: isolated stars have their injected flux to 0.5 %, with the built model."""
    ccd, x, y, flux, psf = field
    rng = np.random.default_rng(16)
    start = x + rng.uniform(-0.7, 0.7, x.size), y + rng.uniform(-0.7, 0.7, y.size)
    table, residual = psf_photometry(ccd, *start, psf=psf, read_noise=READ_NOISE)
    ratio = table["flux"] / flux
    # Single bright stars: noise (0.15 to 0.5 %) and truth together; all: 0.05 % noise.
    assert np.average(ratio, weights=flux) == pytest.approx(1, abs=0.004)
    bright = flux > 1e5
    assert abs(ratio[bright] - 1).max() < 0.005 + 4 * (table["flux_err"] / flux)[bright].max()
    assert np.median(abs(ratio - 1)) < 0.005
    assert np.hypot(table["x"] - x, table["y"] - y).max() < 0.1
    assert table.meta["converged"] and table.meta["errors"] == "complete"
    noise = np.sqrt(SKY + READ_NOISE**2)
    away = psf.image(ccd.shape, x, y, flux) < 1
    assert np.std(residual.data[away]) == pytest.approx(noise, rel=0.02)


@pytest.mark.parametrize("ratio", [1.0, 1 / 3])
def test_psf_pair(field, ratio):
    """PH-15: stars 1.5 FWHM apart, each within 3 %, where an aperture is wrong by 20 %."""
    psf = field[-1]
    x, y, shape = lattice(7, 60, 17)
    angle = np.random.default_rng(18).uniform(0, 2 * np.pi, x.size)
    x2, y2 = x + 1.5 * 3.5 * np.cos(angle), y + 1.5 * 3.5 * np.sin(angle)
    # Noise of the fainter: 0.25 % at least; the worst of 98 stars is allowed 3 %.
    flux = np.concatenate([np.full(x.size, 6e5), np.full(x.size, 6e5 * ratio)])
    x, y = np.concatenate([x, x2]), np.concatenate([y, y2])
    ccd = observe(star_image(shape, x, y, flux, fwhm=3.5), 19)
    table, _ = psf_photometry(ccd, x + 0.3, y - 0.3, psf=psf, read_noise=READ_NOISE)
    assert (table["n_group"] == 2).all() and not table["flags"].any()
    assert abs(table["flux"] / flux - 1).max() < 0.03
    assert abs(np.mean(table["flux"] / flux) - 1) < 0.005
    circle = aperture_photometry(ccd, x, y, radii=3.5 * 1.5, annulus=(20, 28))
    light = moffat_epsf(fwhm=3.5).image((41, 41), 20, 20, 1.0)
    inside = light[np.hypot(*np.ogrid[-20:21, -20:21]) <= 3.5 * 1.5].sum()
    wrong = circle["flux"][:, 0] / (flux * inside) - 1
    assert wrong[x.size // 2 :].min() > 0.2


def test_psf_pairs_are_not_biased():
    """PH-15: pairs 1.5 FWHM apart, 1:1, 1:3 and 1:6: the mean within 1 %, pulls around 0.

    Of 200 pairs a mean pull is known to 0.07; the fainter star of 1:6 has a S/N of 30, and the mean
    of its fluxes is known to 0.24 %.
    """
    fwhm = 2.4
    psf = moffat_epsf(fwhm=fwhm)
    x, y, shape = lattice(25, 42, 37)
    angle = np.random.default_rng(38).uniform(0, 2 * np.pi, x.size)
    ratio = np.array([1.0, 3.0, 6.0])[np.arange(x.size) % 3]
    x = np.concatenate([x, x + 1.5 * fwhm * np.cos(angle)])
    y = np.concatenate([y, y + 1.5 * fwhm * np.sin(angle)])
    flux = np.concatenate([np.full(ratio.size, 2e4), 2e4 / ratio])
    ccd = observe(psf.image(shape, x, y, flux), 39)
    table, _ = psf_photometry(ccd, x + 0.2, y - 0.1, psf=psf, read_noise=READ_NOISE)
    pull = (table["flux"] - flux) / table["flux_err"]
    fainter = np.arange(flux.size) >= ratio.size
    for part in (1.0, 3.0, 6.0):
        for half in (fainter, ~fainter):
            some = half & (np.tile(ratio, 2) == part)
            assert abs(np.mean(table["flux"][some] / flux[some]) - 1) < 0.01, part
            assert abs(np.mean(pull[some])) < 3 * 0.07, part
            assert np.std(pull[some]) == pytest.approx(1, abs=3 * 0.05), part


@pytest.mark.parametrize(("kind", "flux"), [("single", 1e5), ("single", 4000.0), ("pair", 2e4)])
def test_psf_pulls(kind, flux):
    """PH-15: (measured - true) / stated error has a width of 1.0 +- 0.05 for fluxes and places."""
    psf = moffat_epsf(fwhm=3.5)
    x, y, shape = lattice(40 if kind == "single" else 30, 30, 20)
    true = np.full(x.size, flux)
    rng = np.random.default_rng(21)
    if kind == "pair":
        angle = rng.uniform(0, 2 * np.pi, x.size)
        x = np.concatenate([x, x + 1.5 * 3.5 * np.cos(angle)])
        y = np.concatenate([y, y + 1.5 * 3.5 * np.sin(angle)])
        true = np.concatenate([true, true / 2])
    ccd = observe(psf.image(shape, x, y, true), 22)
    start = x + rng.uniform(-0.5, 0.5, x.size), y + rng.uniform(-0.5, 0.5, x.size)
    table, _ = psf_photometry(ccd, *start, psf=psf, read_noise=READ_NOISE)
    # The width of 1600 pulls is known to 1.8 %.
    for name, value in (("flux", true), ("x", x), ("y", y)):
        pull = (table[name] - value) / table[f"{name}_err"]
        assert np.std(pull) == pytest.approx(1, abs=0.05), name
        assert abs(np.mean(pull)) < 0.08, name
    assert np.mean(table["chi2"]) == pytest.approx(1, abs=0.02)


def test_psf_faint_stars_are_not_biased():
    """PH-15: with weights from the model and fixed places S/N 5 is right; no gain, lower limits."""
    psf = moffat_epsf(fwhm=3.5)
    x, y, shape = lattice(40, 30, 23)
    ccd = observe(psf.image(shape, x, y, 450.0), 24)
    table, _ = psf_photometry(ccd, x, y, psf=psf, fixed=True, read_noise=READ_NOISE)
    pull = (table["flux"] - 450) / table["flux_err"]
    assert np.median(450 / table["flux_err"]) == pytest.approx(5, abs=0.7)
    # The mean of 1600 pulls is known to 0.025; weights from the data would give -0.3.
    assert abs(np.mean(pull)) < 0.1 and np.std(pull) == pytest.approx(1, abs=0.05)
    assert not table["x_err"].any() and (table["x"] == x).all()
    bare, _ = psf_photometry(ccd.data, x, y, psf=psf, fixed=True)
    assert bare.meta["errors"].startswith("lower limit")
    assert (bare["flux_err"] < table["flux_err"]).mean() > 0.9


def test_psf_one_call_gives_both(field):
    """004-16: apertures and PSF from one call; after the correction they agree within 1 %."""
    ccd, x, y, flux, psf = field
    radii = (4.0, 8.0)
    table, _ = psf_photometry(
        ccd, x, y, psf=psf, read_noise=READ_NOISE, radii=radii, annulus=(18, 28)
    )
    assert table["aperture_flux"].shape == (x.size, 2) and not table["aperture_flags"].any()
    ratio = table["aperture_flux"][:, 0] / table["flux"]
    bright = flux > 1e5
    assert abs(ratio / np.median(ratio[bright]) - 1)[bright].max() < 0.01
    # Far from other stars the same numbers as from apertures alone: less than their error apart.
    alone = aperture_photometry(
        ccd, table["x"], table["y"], radii=radii, annulus=(18, 28), read_noise=READ_NOISE
    )
    assert table["aperture_flux"] == pytest.approx(np.asarray(alone["flux"]), rel=3e-3)
    assert table["aperture_flux_err"] == pytest.approx(np.asarray(alone["flux_err"]), rel=0.02)
    with pytest.raises(ValueError, match="apertures need both"):
        psf_photometry(ccd, x, y, psf=psf, radii=radii)


def test_psf_apertures_are_free_of_neighbours():
    """004-16: the aperture of a star in a pair is that of the star alone."""
    psf = moffat_epsf(fwhm=3.5)
    x, y, flux = np.array([30.2, 36.0]), np.array([30.4, 30.0]), np.array([1e6, 2e5])
    ccd = observe(psf.image((61, 71), x, y, flux), 25)
    table, _ = psf_photometry(
        ccd, x, y, psf=psf, sky=flat_sky(ccd.shape), radii=5.0, annulus=(18, 26)
    )
    ratio = table["aperture_flux"][:, 0] / table["flux"]
    assert ratio[0] == pytest.approx(ratio[1], rel=0.01)


def test_psf_faint_star_in_the_wing_of_a_bright_one():
    """PH-15: a star 200 times fainter, 2.5 FWHM from a bright one, is right within its error."""
    psf = moffat_epsf(fwhm=3.5)
    x, y, shape = lattice(12, 50, 26)
    x, y = np.concatenate([x, x + 8.0]), np.concatenate([y, y + 3.5])
    flux = np.concatenate([np.full(144, 4e5), np.full(144, 2000.0)])
    ccd = observe(psf.image(shape, x, y, flux), 27)
    table, _ = psf_photometry(ccd, x + 0.2, y, psf=psf, read_noise=READ_NOISE)
    pull = ((table["flux"] - flux) / table["flux_err"])[144:]
    # 144 pulls: the mean is known to 0.08, the width to 6 %.
    assert abs(np.mean(pull)) < 0.3 and np.std(pull) == pytest.approx(1, abs=0.2)


def test_psf_flags_and_pixels_left_out():
    """PH-15: bad, saturated and missing pixels are left out and flagged; NaN where nothing is."""
    psf = moffat_epsf(fwhm=4.0)
    x = np.array([30.3, 80.0, 130.2, 180.0, 1.0, 230.1, -5.0, np.nan, 120.0])
    y = np.array([30.2, 30.4, 30.0, 30.0, 30.0, 31.0, 30.0, 10.0, 70.0])
    flux = np.full(9, 2e5)
    flux[6], flux[8] = 0, -3e4
    shape = (90, 260)
    ccd = observe(psf.image(shape, x, y, flux) + 2000, 28, sky=SKY)
    ccd.data -= np.float32(2000)
    ccd.flags = np.zeros(shape, np.uint16)
    ccd.data[29:32, 81:84] = 5e4
    ccd.flags[29:32, 81:84] = pixels.COSMIC | pixels.REPAIRED
    ccd.data[28:33, 128:133] = 3000.0
    ccd.flags[28:33, 128:133] = pixels.SATURATED
    ccd.data[10:50, 170:191] = np.nan
    sky = Background(np.full(shape, SKY, np.float32), np.full(shape, 47.2, np.float32))
    table, residual = psf_photometry(
        ccd, x, y, psf=psf, gain=1.0, sky=sky, read_noise=READ_NOISE, radii=6.0, annulus=(20, 28)
    )
    names = [{name for name, bit in FLAG_NAMES.items() if bit & flags} for flags in table["flags"]]
    assert names == [
        set(),
        {"bad pixel"},
        {"saturated"},
        {"bad pixel"},
        {"edge"},
        set(),
        {"outside"},
        {"no position"},
        {"negative", "not centred"},
    ]
    measured = [0, 1, 2, 4, 5]
    pull = (table["flux"] - flux) / table["flux_err"]
    assert (abs(pull[measured]) < 4).all()
    assert np.isnan(table["flux"][[3, 6, 7]]).all() and (table["group"][[3, 6, 7]] == -1).all()
    # Less information, larger errors.
    error = table["flux_err"]
    assert error[2] > 1.5 * error[0] and error[1] > 1.02 * error[0] and error[4] > error[0]
    # The blemishes stay in the residual, the stars do not.
    assert residual.data[30, 82] > 3e4 and abs(residual.data[31, 230] - SKY) < 300


def test_psf_star_that_runs_away_keeps_its_place():
    """PH-15: a position drawn farther than the limit by a star not in the list is given back."""
    psf = moffat_epsf(fwhm=4.0)
    ccd = observe(psf.image((80, 80), [40.0], [40.0], [1e5]), 29)
    table, _ = psf_photometry(ccd, [36.8, 40.2], [40.0, 40.1], psf=psf, max_shift=0.5)
    # The first star has no light of its own: its place is not known.
    assert table["flags"][0] & FLAG_NAMES["not centred"] and table["x"][0] == 36.8
    assert table["flux"][1] == pytest.approx(1e5, rel=0.02)
    alone, _ = psf_photometry(ccd, [37.0], [40.0], psf=psf, max_shift=0.5)
    assert alone["flags"][0] & FLAG_NAMES["not centred"] and alone["x"][0] == 37.0
    assert alone["x_err"][0] == 0 and alone["flux"][0] < 9e4


@pytest.fixture(scope="module")
def cluster():
    """A dense cluster: 400 stars in the inner 200 px, 0.7 FWHM apart at least; field stars."""
    rng = np.random.default_rng(30)
    core = spread([], 400, lambda: rng.normal(250, 45, 2), 0.7 * 3.5)
    places = spread(core, 60, lambda: rng.uniform(20, 480, 2), 10.0)
    x, y = np.array(places).T
    flux = np.concatenate([10 ** rng.uniform(2.8, 5, 400), rng.uniform(5e4, 3e5, 60)])
    ccd = observe(star_image((500, 500), x, y, flux, fwhm=3.5), 31)
    return ccd, x, y, flux


def test_psf_crowded_core(cluster):
    """PH-15: in the core of a cluster PSF fluxes are far nearer to the truth than apertures."""
    ccd, x, y, flux = cluster
    psf = moffat_epsf(fwhm=3.5)
    rng = np.random.default_rng(32)
    start = x + rng.normal(0, 0.2, x.size), y + rng.normal(0, 0.2, y.size)
    table, residual = psf_photometry(ccd, *start, psf=psf, read_noise=READ_NOISE)
    assert table["n_group"].max() > 24 and table.meta["converged"]
    # Of 60 pixels chi2 has a median of 0.99 and a scatter of 0.18: 460 stars tell it to 0.01. The
    # noise measured with the stars still in the frame is too large, and it would be 0.95.
    assert np.median(table["chi2"]) == pytest.approx(0.99, abs=0.03)
    # Only stars on which nothing is known of their places lose them.
    assert np.mean((table["flags"] & FLAG_NAMES["not centred"]) > 0) < 0.08
    inner = np.arange(400)
    circle = aperture_photometry(ccd, x, y, radii=3.5, annulus=(12, 20), read_noise=READ_NOISE)
    light = psf.image((41, 41), 20, 20, 1.0)
    share = light[np.hypot(*np.ogrid[-20:21, -20:21]) <= 3.5].sum()
    ours = abs(table["flux"] / flux - 1)[inner]
    theirs = abs(circle["flux"][:, 0] / (share * flux) - 1)[inner]
    bright = flux[inner] > 3000
    assert np.median(ours[bright]) < 0.015 and np.median(theirs[bright]) > 0.1
    assert np.median(ours[~bright]) < 0.2 and np.median(theirs[~bright]) > 1
    pull = ((table["flux"] - flux) / table["flux_err"])[inner]
    assert 1.4826 * np.median(abs(pull)) == pytest.approx(1, abs=0.15)
    noise = np.sqrt(SKY + READ_NOISE**2 + psf.image(ccd.shape, x, y, flux))
    assert np.std((residual.data - SKY)[150:350, 150:350] / noise[150:350, 150:350]) < 1.1


def test_psf_large_group_is_the_same_in_pieces(cluster, monkeypatch):
    """PH-15: a group that is cut into pieces has the fluxes and the errors of the whole."""
    ccd, x, y, _ = cluster
    inner = np.hypot(x - 250, y - 250) < 50
    part = CCDData(ccd.data[180:320, 180:320], unit="electron")
    place = x[inner] - 180, y[inner] - 180
    options = {"psf": moffat_epsf(fwhm=3.5), "sky": flat_sky(part.shape), "fixed": True}
    cut, _ = psf_photometry(part, *place, **options)
    assert cut["n_group"].max() > 24
    monkeypatch.setattr(psfscene, "PIECE", 10**6)
    whole, _ = psf_photometry(part, *place, **options)
    # Both rest when steps are below 0.02 errors; ten of them may be left to one of 170 stars.
    away = abs((cut["flux"] - whole["flux"]) / whole["flux_err"])
    assert away.max() < 0.2 and np.median(away) < 0.01
    assert np.asarray(cut["flux_err"]) == pytest.approx(np.asarray(whole["flux_err"]), rel=0.02)


def test_psf_find_more_ends_without_a_message(caplog):
    """PH-15: a residual without stars is what one hopes for; nobody is asked about the exposure."""
    psf = moffat_epsf(fwhm=3.5)
    ccd = observe(psf.image((100, 100), [50.0], [50.0], [2e4]), 41)
    table, _ = psf_photometry(ccd, [50.0], [50.0], psf=psf, find_more=3)
    assert len(table) == 1 and not caplog.records


def test_psf_find_more_adds_hidden_stars_and_no_others(cluster, field):
    """PH-15: stars missed beside brighter ones are found in the residual; none beside bright."""
    ccd, x, y, _ = cluster
    found = detect(ccd)
    psf = field[-1]
    table, _ = psf_photometry(
        ccd, found["x"], found["y"], psf=psf, read_noise=READ_NOISE, find_more=3
    )
    new = table[table["iteration"] > 0]
    assert len(new) > 50 and (table["iteration"][: len(found)] == 0).all()
    tree = cKDTree(np.column_stack([x, y]))
    distance = tree.query(np.column_stack([new["x"], new["y"]]))[0]
    assert (distance > 0.5 * 3.5).sum() <= 0.02 * len(new)
    # Two stars in one image, far brighter than all noise and half a width apart: what is left of
    # them looks like stars, and none is added.
    image = star_image((300, 300), [149.4, 151.2], [149.5, 150.1], 1.5e6, fwhm=3.5)
    table, residual = psf_photometry(
        observe(image, 33), [150.3], [149.8], psf=moffat_epsf(fwhm=3.5), find_more=2
    )
    assert table["chi2"][0] > 100 and len(detect(residual)) > 0
    assert len(table) == 1


def test_epsf_of_a_crowd_is_refined(cluster):
    """PH-16: from stars with close neighbours only, the second model is far nearer to the truth."""
    ccd, *_ = cluster
    found = detect(ccd)
    stars = select_psf_stars(found, shape=ccd.shape, neighbour_ratio=1.5, n=400)
    far = np.hypot(stars["x"] - 250, stars["y"] - 250) > 110
    stars["reason"][far & (stars["reason"] == "")] = "not in the core"
    first = build_epsf(ccd, stars)
    table, residual = psf_photometry(ccd, found["x"], found["y"], psf=first, find_more=2)
    second = refine_epsf(residual, table, psf=first)
    images = [
        psf.image((41, 41), 20.3, 20.3, 1.0) for psf in (first, second, moffat_epsf(fwhm=3.5))
    ]
    before, after = (np.sqrt(np.sum((image - images[2]) ** 2)) for image in images[:2])
    assert after < before / 2
    assert second.fwhm == pytest.approx(3.5, rel=0.03)
    with pytest.raises(ValueError, match="use build_epsf first"):
        refine_epsf(residual, table, psf=moffat_epsf(fwhm=3.5))


def test_psf_agrees_with_photutils(field):
    """PH-15: isolated stars as from photutils' PSFPhotometry, to a tenth of the error."""
    ccd, x, y, _flux, psf = field
    some = slice(20, 50)
    sky = flat_sky(ccd.shape)
    ours, _ = psf_photometry(ccd, x[some], y[some], psf=psf, sky=sky, fit_radius=1.5)
    # The same pixels and the same weights: photutils takes the error image as it is given.
    side = 2 * int(psf.radius) + 1
    light = psf.image(ccd.shape, ours["x"], ours["y"], ours["flux"])
    rows, columns = np.ogrid[: ccd.shape[0], : ccd.shape[1]]
    mask = np.ones(ccd.shape, bool)
    for a, b in zip(x[some], y[some], strict=True):
        near = (slice(int(b) - side, int(b) + side), slice(int(a) - side, int(a) + side))
        inside = np.hypot(columns[:, near[1]] - a, rows[near[0]] - b) <= 1.5 * psf.fwhm
        mask[near] &= ~inside
    model = ImagePSF(psf.data, oversampling=psf.oversampling)
    theirs = PSFPhotometry(model, side, aperture_radius=5)(
        ccd.data - SKY,
        mask=mask,
        error=np.sqrt(SKY + READ_NOISE**2 + light),
        init_params=Table({"x": x[some], "y": y[some]}),
    )
    assert (abs(theirs["flux_fit"] - ours["flux"]) < 0.1 * ours["flux_err"]).all()
    for name in ("x", "y"):
        assert (abs(theirs[f"{name}_fit"] - ours[name]) < 0.1 * ours[f"{name}_err"]).all()
    assert theirs["flux_err"] == pytest.approx(ours["flux_err"], rel=0.03)


def test_psf_same_bytes_for_any_threads(cluster):
    """PH-15: one thread or five: the same bytes."""
    ccd, x, y, _ = cluster
    psf = moffat_epsf(fwhm=3.5)
    results = []
    for threads in (1, 5):
        table, residual = psf_photometry(
            ccd, x, y, psf=psf, threads=threads, radii=4.0, annulus=(12, 20)
        )
        results.append(b"".join(np.asarray(c).tobytes() for c in table.columns.values()))
        results[-1] += residual.data.tobytes()
    assert results[0] == results[1]


def test_psf_does_not_know_where_the_frame_is_cut(field):
    """PH-15: a star has the same flux wherever it lies relative to the bands and boxes."""
    ccd, x, y, _flux, psf = field
    whole, _ = psf_photometry(ccd, x, y, psf=psf, sky=flat_sky(ccd.shape))
    part = CCDData(ccd.data[77:, 31:], unit="electron")
    inside = (x > 60) & (y > 110)
    cut, _ = psf_photometry(part, x[inside] - 31, y[inside] - 77, psf=psf, sky=flat_sky(part.shape))
    assert cut["flux"] == pytest.approx(np.asarray(whole["flux"][inside]), rel=1e-5)


def test_psf_of_a_large_frame_in_little_memory():
    """PH-15: 5,000 stars on 4788 x 3194 pixels in less than 1 GB, all of the process."""
    program = """
import resource, time
import numpy as np
from datared.psf import moffat_epsf, psf_photometry
from datared.psffit import add_stars
rng = np.random.default_rng(1)
psf = moffat_epsf(fwhm=3.5)
x, y, flux = rng.uniform(0, 4787, 5000), rng.uniform(0, 3193, 5000), 10 ** rng.uniform(3, 5.5, 5000)
frame = np.full((3194, 4788), 200, np.float32)
add_stars(frame, psf.coefficients, 4, psf.radius, x, y, flux, 0, 3194)
# Rows of one noise, moved: to draw 15 million numbers would take longer than the fit.
noise = rng.standard_normal(2 * 4788, dtype=np.float32)
for row, first in zip(frame, rng.integers(0, 4788, 3194)):
    row += noise[first : first + 4788] * np.sqrt(row + np.float32(25))
start = time.perf_counter()
table, _ = psf_photometry(frame, x, y, psf=psf, gain=1.0)
seconds = time.perf_counter() - start
pull = (table["flux"] - flux) / table["flux_err"]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, seconds, 1.4826 * np.median(abs(pull)))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    kilobytes, seconds, width = (float(word) for word in run.stdout.split())
    if sys.platform == "darwin":
        kilobytes /= 1024
    assert kilobytes < 1e6 and seconds < 30
    assert width == pytest.approx(1, abs=0.05)


def test_psf_is_not_on_the_main_path():
    """000-28: the pipeline and the photometry of a night do not import the rooms of PSF."""
    program = (
        "import sys, datared.pipeline, datared.forced, datared.lightcurve, datared.magnitudes;"
        "sys.exit(any(name.startswith('datared.psf') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "option",
    ["fit_radius", "group", "max_shift", "gain", "iterations", "read_noise", "flat_noise"],
)
def test_psf_refuses_what_means_nothing(option):
    """PH-15: an option that is not positive is named; a noise may be 0."""
    psf = moffat_epsf(fwhm=3.0)
    value = -1.0 if option.endswith("noise") else 0
    with pytest.raises(ValueError, match=option):
        psf_photometry(np.zeros((50, 50)), 25, 25, psf=psf, **{option: value})


def test_psf_masked_position_is_none():
    """PH-15: what lies behind the mask of a column is no position."""
    psf = moffat_epsf(fwhm=3.0)
    ccd = observe(psf.image((60, 90), [30.0, 60.0], [30.0, 30.0], 5e4), 40)
    places = Table({"x": [30.0, 60.0], "y": [30.0, 30.0]}, masked=True)
    places["x"].mask[1] = True
    table, _ = psf_photometry(ccd, places["x"], places["y"], psf=psf)
    assert np.isfinite(table["flux"]).tolist() == [True, False]
    assert table["flags"].tolist() == [0, FLAG_NAMES["no position"]]
    chosen = Table({"x": [50.0], "y": [50.0], "flux": np.ma.array([9e4], mask=[True])})
    chosen = select_psf_stars(chosen, shape=(101, 101), fwhm=3.0)
    assert chosen["reason"].tolist() == ["no position or flux"]
