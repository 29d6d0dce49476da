"""The fit of an isochrone: the density of the model, the field, the priors, and drawn clusters."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from datared import clusterfit, clusterposterior
from datared.clusterfield import cluster_sample, field_density
from datared.clusterfit import fit_isochrone
from datared.clusterlikelihood import MASS_RATIOS, log_likelihood, model_density
from datared.clusterposterior import ClusterPosterior
from datared.errors import DataredError
from datared.isochronegrid import embedded_grid
from datared.isochrones import combine_magnitudes
from datared.scene import cluster_stars, draw_masses, field_stars

BANDS = ("g", "i")
ROOT = Path(__file__).resolve().parents[1]
SIGMA, LIMITS = 0.05, np.array([13.0, 18.0, 0.05, 0.05])


@pytest.fixture(scope="module")
def grid():
    """The embedded isochrones in two bands."""
    return embedded_grid(bands=BANDS)


def shifted(grid, modulus=12.0):
    """Mass, apparent magnitudes and phase of a cluster of 1 Gyr."""
    mass, magnitudes = grid.nodes(9.0, 0.0)
    return mass.copy(), magnitudes + modulus, grid.phase.astype(np.int64)


def density_at(grid, stars, *, binary=0.4, slope=-2.0, sigma=SIGMA, limits=LIMITS):
    """Density of the model at places in the plane of g and i, with equal errors."""
    order = np.argsort(stars[:, 1], kind="stable")
    density = np.empty(len(stars))
    inside = model_density(
        *shifted(grid), np.ascontiguousarray(stars[order]), np.full(stars.shape, sigma**2), 1,
        limits, binary, 0.0, slope, MASS_RATIOS, density,
    )  # fmt: skip
    assert inside
    density[order] = density.copy()
    return density


def plane(step):
    """Places that cover i between the limits, and all colours."""
    i = np.arange(LIMITS[0] + step / 2, LIMITS[1], step)
    colour = np.arange(-1.5 + step / 2, 3.9, step)
    i, colour = (axis.ravel() for axis in np.meshgrid(i, colour, indexing="ij"))
    return np.column_stack([i + colour, i])


def test_density_is_normalised_between_the_limits(grid):
    """The density over all colours and the magnitudes between the limits is one star.

    A net of half an error is exact; pieces further than 5 errors are left out (1e-6), and the part
    inside the limits is taken at the middle of each piece (0.03 mag of 5 mag).
    """
    step = SIGMA / 2
    for binary in (0.0, 0.5):
        total = density_at(grid, plane(step), binary=binary).sum() * step**2
        assert total == pytest.approx(1, abs=0.01)


def test_density_is_that_of_drawn_stars(grid):
    """Cells of the diagram hold as many drawn stars as the density says, binaries among them."""
    rng, n, slope = np.random.default_rng(3), 400_000, -2.0
    mass, magnitudes, _ = shifted(grid)
    good = np.isfinite(mass)
    mass, magnitudes = np.maximum.accumulate(mass[good]), magnitudes[good]
    primary = draw_masses(rng, n, low=mass[0], high=mass[-1], slopes=(slope + 1, slope))
    secondary = np.where(rng.random(n) < 0.4, primary * rng.random(n), 0.0)
    g, i = (
        combine_magnitudes(np.interp(primary, mass, m), np.interp(secondary, mass, m, left=np.inf))
        + rng.normal(0, SIGMA, n)
        for m in magnitudes.T
    )
    inside = (i > LIMITS[0]) & (i < LIMITS[1])
    step = 0.02
    places = plane(step)
    density = density_at(grid, places) * step**2
    edges = [np.linspace(*LIMITS[:2], 11), np.linspace(-1.5, 3.9, 28)]  # 25 and 10 steps
    ours = np.histogram2d(places[:, 1], places[:, 0] - places[:, 1], edges, weights=density)[0]
    drawn = np.histogram2d(i[inside], (g - i)[inside], edges)[0] / inside.sum()
    many = drawn * inside.sum() > 400
    assert many.sum() > 15
    # Counts of 400 to 20000 have errors of 5 to 0.7 %; six steps of the mass ratio, each with the
    # light of its middle, are good to 3 %.
    ours, drawn = ours[many], drawn[many]
    error = np.hypot(np.sqrt(drawn / inside.sum()), 0.03 * drawn)
    assert np.std((ours - drawn) / error) < 1.2
    assert ours.sum() == pytest.approx(drawn.sum(), rel=0.005)


def test_nothing_between_the_tip_of_the_giants_and_the_clump(grid):
    """No stars are on the way from phase 3 to 4, and stages without a model leave no hole."""
    mass = np.array([1.0, 1.5, np.nan, 2.0, 2.1])
    magnitudes = np.array([[16, 15.5], [15, 14.5], [np.nan, np.nan], [13.4, 12.4], [14.9, 13.5]])
    phase = np.array([1, 1, 2, 3, 4])
    stars = np.array([[14.15, 12.95], [14.2, 13.45]])
    density = np.empty(2)
    arguments = (stars, np.full((2, 2), 1e-4), 1, np.array([12.0, 17.0, 0.01, 0.01]), 0.0, 0.0)
    assert model_density(
        mass.copy(), magnitudes.copy(), phase.copy(), *arguments, -2.0, MASS_RATIOS, density
    )
    assert density[0] == 0 < density[1]


def test_likelihood_adds_up_members_and_field():
    """A sure member, a sure field star, and one in between."""
    density, field = np.array([2.0, 5.0, 4.0]), np.array([0.5, 0.5, 0.25])
    value = log_likelihood(density, field, np.array([1.0, 0.0, 0.5]), 0.2)
    wanted = np.log(0.8 * 2 + 0.2 * 0.5) + np.log(0.5) + np.log(0.4 * 4 + 0.6 * 0.25)
    assert value == pytest.approx(wanted)


def test_a_star_is_not_its_own_field():
    """A star far from all others has the even part of the field only; the rest adds up to one."""
    rng = np.random.default_rng(5)
    i = np.append(rng.uniform(13, 18, 400), 15.0)
    colour = np.append(rng.normal(1.0, 0.2, 400), -3.0)
    stars = np.column_stack([i + colour, i])
    density = field_density(stars, np.ones(401), band=1, limits=(13.0, 18.0))
    assert density[-1] < 0.1 / 5 < density[:-1].max()
    # Drawn by their own density f, stars have a mean of 1 / f that is the area they cover:
    # without the tails about 5 mag times 2.5 standard deviations to both sides.
    area = np.mean(1 / density[:-1][np.abs(colour[:-1] - 1) < 0.4]) * 0.954
    assert area == pytest.approx(5 * 0.8, rel=0.15)


def drawn_cluster(seed, members=150, field=200):
    """Magnitudes of a cluster and of the field, their memberships, and the truth."""
    rng = np.random.default_rng(seed)
    truth = {"age": 1.05, "metallicity": 0.03, "distance": 2600.0, "a_v": 0.4}
    area = {"center": (300.0, 15.0), "box": (0.33, 0.23), "bright_limit": {"g": 12.9, "r": 12.3}}
    stars = [cluster_stars(rng, members, **truth, **area), field_stars(rng, field, **area)]
    table, n = Table(), members + field
    for band in BANDS:
        true = np.concatenate([np.asarray(part[band]) for part in stars])
        error = 0.004 + 0.006 * 10 ** (0.3 * (true - 15))
        table[band] = true + rng.normal(0, 1, n) * error + rng.normal(0, 0.004)
        table[f"{band}_err"] = error
        table[band].meta["system"] = "PS1 AB"
    # One number that tells members from field stars, which are four of its errors away.
    x = rng.normal(0, 1, n) + np.where(np.arange(n) < members, 0.0, 4.0)
    odds = members * np.exp(-0.5 * x**2) / (field * np.exp(-0.5 * (x - 4) ** 2))
    return table, odds / (1 + odds), truth


@pytest.fixture(scope="module")
def posterior(grid):
    """The posterior of a drawn cluster."""
    table, probability, _ = drawn_cluster(11)
    stars = cluster_sample(table, bands=BANDS, membership=probability)
    model = ClusterPosterior(stars, grid, BANDS, {"a_v": (0.4, 0.1)}, 0.005, known=True)
    point = [9.02, 0.03, 12.07, 0.4, 0.3, 0.03, np.log(0.006), -1.0, 0.0, 0.0]
    return model, np.array(point)


def test_zero_point_is_a_distance_for_the_likelihood(posterior):
    """The same offset of both bands and a shift of the modulus cancel but for the prior."""
    model, point = posterior
    moved = point + np.array([0, 0, 0.005, 0, 0, 0, 0, 0, -0.005, -0.005])
    assert model(moved) == pytest.approx(model(point) - 2 * 0.5, abs=1e-6)


def test_prior_of_the_extinction(posterior, monkeypatch):
    """What is known before counts as a Gaussian; outside of its range a parameter is refused."""
    model, point = posterior
    free = ClusterPosterior(model.stars, model.grid, BANDS, {}, 0.005, known=True)
    assert free(point) == pytest.approx(model(point))
    point = point + np.array([0, 0, 0, 0.1, 0, 0, 0, 0, 0, 0])
    assert model(point) == pytest.approx(free(point) - 0.5)
    assert free(np.where(np.arange(10) == 3, -0.01, point)) == -np.inf
    assert free(np.where(np.arange(10) == 0, 10.5, point)) == -np.inf


def test_grid_of_one_metallicity(posterior):
    """Its metallicity is not a parameter."""
    model, point = posterior
    grid = model.grid
    k = int(np.argmin(abs(grid.metallicities)))
    one = replace(grid, metallicities=grid.metallicities[k : k + 1], **{
        name: getattr(grid, name)[k : k + 1]
        for name in ("mass", "magnitudes", "log_teff", "log_l", "log_g")
    })  # fmt: skip
    single = ClusterPosterior(model.stars, one, BANDS, {"metallicity": (0, 0.1)}, 0.005, known=True)
    assert "metallicity" not in single.names
    point = np.delete(point, 1)
    assert np.isfinite(single(point))


@pytest.fixture(scope="module")
def drawn_fit(grid):
    """A quick fit of a drawn cluster: half the steps that a posterior needs."""
    patch = pytest.MonkeyPatch()
    patch.setattr(clusterposterior, "WALKERS", 24)
    patch.setattr(clusterfit, "BURN_IN", 150)
    table, probability, truth = drawn_cluster(12, members=110)
    fit = fit_isochrone(
        table, grid=grid, bands=BANDS, membership=probability, metallicity=(0.0, 0.1), seed=1,
        max_steps=150,
    )  # fmt: skip
    patch.undo()
    return fit, truth, table


def test_drawn_cluster_is_recovered(drawn_fit):
    """Age to 0.1 dex, distance to 0.1 mag, and the truth within three errors of each.

    About ten seconds: some ten thousand likelihoods of a hundred stars.
    """
    fit, truth, _ = drawn_fit
    true = {
        "log_age": 9 + np.log10(truth["age"]),
        "distance_modulus": 5 * np.log10(truth["distance"] / 10),
        "a_v": truth["a_v"],
        "metallicity": truth["metallicity"],
    }
    for name, value in true.items():
        samples = np.asarray(fit.samples[name])
        assert abs(np.median(samples) - value) < 3 * np.std(samples), name
    assert abs(np.median(fit.samples["log_age"]) - true["log_age"]) < 0.1
    assert abs(np.median(fit.samples["distance_modulus"]) - true["distance_modulus"]) < 0.1
    assert np.std(fit.samples["log_age"]) < 0.05
    # The chain is too short, and the result says so.
    assert not fit.converged and fit.n_steps == 150 and 0.1 < fit.acceptance < 0.6
    assert fit.n_effective == pytest.approx(len(fit.samples) / max(fit.autocorrelation.values()))


def test_summary_and_best(drawn_fit, grid):
    """Intervals are ordered, E(B-V) is A_V / 3.1, and the best values go into the grid."""
    fit, truth, table = drawn_fit
    assert fit.best["age"] == pytest.approx(truth["age"], rel=0.1)
    assert fit.best["distance"].to_value("pc") == pytest.approx(truth["distance"], rel=0.05)
    summary = fit.summary()
    values = {row["parameter"]: row for row in summary}
    for row in summary:
        numbers = [row[name] for name in ("low_95", "low_68", "median", "high_68", "high_95")]
        assert numbers == sorted(numbers)
    assert values["e_bv"]["median"] == pytest.approx(values["a_v"]["median"] / 3.1)
    assert values["age"]["unit"] == "Gyr"
    assert len(grid.at(**fit.best)) > 100
    assert len(fit.used) == len(fit.probability) == len(table)
    assert (
        np.isfinite(fit.probability[fit.used]).all() and np.isnan(fit.probability[~fit.used]).all()
    )
    # Members come first in the table.
    likely = np.nan_to_num(fit.probability) > 0.5
    assert likely[110:].sum() < 0.1 * likely[:110].sum()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bands": ("g",)}, "give two or more"),
        ({"bands": ("g", "K")}, "no band 'K'"),
        ({"system": "SDSS AB"}, "transform one of them"),
        ({"missing": "i_err"}, "no column 'i_err'"),
        ({"rows": 15}, "20 are needed"),
        ({"membership": np.ones(3)}, "membership has the shape"),
        ({"membership": np.zeros(350)}, "may be members"),
        ({"distance_modulus": (30.0, 0.1)}, "from 0 to 25"),
        ({"faint": 30.0}, "no isochrone of the grid comes near"),
    ],
)
def test_what_cannot_be_fitted_is_refused(grid, change, words):
    """The message says what was found and what to do."""
    table, _, _ = drawn_cluster(11)
    table = table[: change.get("rows")]
    if "system" in change:
        table["g"].meta["system"] = change["system"]
    if "missing" in change:
        table.remove_column(change["missing"])
    for band in BANDS:
        table[band] += change.get("faint", 0.0)
    names = ("membership", "distance_modulus")
    options = {name: change[name] for name in names if name in change}
    with pytest.raises(DataredError, match=words):
        fit_isochrone(table, grid=grid, bands=change.get("bands", BANDS), **options)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(os.environ.get("DATARED_DATA", "none")) / "isochrones").is_dir(),
    reason="the real data are not here",
)
def test_ngc6819_with_parsec():
    """A PARSEC isochrone of 2 to 3 Gyr, E(B-V) 0.1 to 0.2, (m-M)0 11.7 to 12.1 is found.

    Half a minute: our own photometry in B and V, without memberships, down to V = 17.5, where the
    models begin to be too blue. [Fe/H] as of the giants' spectra.
    """
    from datared.isochronefiles import read_isochrones

    folder = Path(os.environ["DATARED_DATA"]) / "isochrones" / "parsec12_ubvrijhk"
    stars = Table.read(ROOT / "book" / "data" / "ngc6819_photometry.ecsv")
    stars = stars[(stars["V_flags"] == 0) & (stars["B_flags"] == 0)]
    fit = fit_isochrone(
        stars, grid=read_isochrones(folder, bands=["B", "V"]), bands=("B", "V"),
        metallicity=(0.02, 0.08), zero_point_error=0.02, limits=(11.5, 17.5), max_steps=250, seed=1,
    )  # fmt: skip
    middle = {row["parameter"]: row["median"] for row in fit.summary()}
    assert 2 < middle["age"] < 3
    assert 0.1 < middle["e_bv"] < 0.2
    assert 11.7 < middle["distance_modulus"] < 12.1
