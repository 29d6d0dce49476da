"""Grids of isochrones: between the models, at their edges, and the sequence of pairs."""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest

from datared.isochronegrid import PHASE_NAMES, IsochroneGrid, binary_sequence, embedded_grid
from datared.isochrones import AGE_RANGE, BANDS, isochrone


@pytest.fixture
def small():
    """Return a grid whose quantities are exactly linear in age and metallicity.

    Two metallicities, three ages, five points; the oldest age has no giants (the last two points).
    """
    feh, ages = np.array([-0.5, 0.5]), np.array([8.0, 9.0, 9.5])
    phase = np.array([0, 1, 1, 3, 3])
    at = np.arange(5) + 10.0 * ages[:, None] + 100.0 * feh[:, None, None]
    last = np.zeros((2, 3, 5), dtype=bool)
    last[:, 2, 3:] = True
    plain = np.where(last, np.nan, at)
    mass = np.where(last, np.nan, np.exp(0.1 * np.arange(5) - 0.2 * ages[:, None] + 0 * at))
    return IsochroneGrid(
        log_ages=ages,
        metallicities=feh,
        bands={"B": "Johnson Vega", "V": "Johnson Vega"},
        mass=mass,
        magnitudes=np.stack([plain, 2 * plain], axis=-1),
        phase=phase,
        log_teff=plain,
        log_l=plain,
        log_g=plain,
        source="test",
        rotation=0.4,
    )


def across(colour, magnitude, stars, bands):
    """Return the distances (mag) of points of the diagram from the curve of a table of stars."""
    first, second = (np.asarray(stars[band], dtype=float) for band in bands)
    curve = np.column_stack([first - second, first])
    begin, step = curve[:-1], np.diff(curve, axis=0)
    away = np.column_stack([colour, magnitude])[:, None] - begin
    length = np.maximum((step**2).sum(axis=1), 1e-30)
    along = np.clip((away * step).sum(axis=2) / length, 0, 1)
    return np.sqrt(((away - along[..., None] * step) ** 2).sum(axis=2)).min(axis=1)


# --- between the models ---------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "feh"), [(8.0, -0.5), (8.4, 0.1), (9.0, 0.5), (8.999, 0.0)])
def test_isochrone_grid_is_linear_at_equal_points(small, age, feh):
    """CM-03, CM-05: magnitudes and log mass are linear in log age and [Fe/H] at each point."""
    mass, magnitudes = small.nodes(age, feh)
    truth = np.arange(5) + 10 * age + 100 * feh
    np.testing.assert_allclose(magnitudes[:, 0], truth, rtol=1e-12)
    np.testing.assert_allclose(magnitudes[:, 1], 2 * truth, rtol=1e-12)
    np.testing.assert_allclose(np.log(mass), 0.1 * np.arange(5) - 0.2 * age, rtol=1e-10)


def test_isochrone_grid_missing_stage_is_nan(small):
    """CM-03: a stage that one neighbour lacks is nan; a neighbour of no weight takes nothing."""
    mass, magnitudes = small.nodes(9.2, 0.0)
    assert np.isnan(mass[3:]).all() and np.isnan(magnitudes[3:]).all()
    assert np.isfinite(mass[:3]).all() and np.isfinite(magnitudes[:3]).all()
    assert np.isfinite(small.nodes(9.0, 0.0)[0]).all()
    stars = small.at(10**0.2, 0.0)
    assert stars["phase"].tolist() == [0, 1, 1]
    assert np.isfinite(stars["B"]).all()


def test_isochrone_grid_continuous(small):
    """CM-05: no jump at the ages and metallicities of the grid, nor between them."""
    for grid in (small, embedded_grid()):
        feh, age = grid.metallicities[0], grid.log_ages[1]
        here = grid.nodes(age, feh)[1]
        for step in (-1e-7, 1e-7):
            # 100 mag per dex is far more than any slope of the models.
            there = grid.nodes(age + step, feh + abs(step))[1]
            both = np.isfinite(there)
            assert np.abs(there - here)[both].max() < 1e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.nodes(7.9, 0.0), r"7\.9 is outside this grid, which goes from 8 to 9\.5"),
        (lambda g: g.nodes(9.0, 0.6), r"0\.6 is outside this grid, which goes from -0\.5 to 0\.5"),
        (lambda g: g.nodes(float("nan"), 0.0), "outside this grid"),
        (lambda g: g.at(20.0), r"\(0\.1 to 3\.16 Gyr\)"),
        (lambda g: g.at(-1.0), "must be positive"),
        (lambda g: g.at(1.0, a_v=-0.1), "a_v"),
        (lambda g: g.at(1.0, distance=100), "unit"),
    ],
)
def test_isochrone_grid_out_of_range_says_the_range(small, call, message):
    """CM-05: outside the grid nothing is made up; the message says what is valid."""
    with pytest.raises(ValueError, match=message):
        call(small)


def test_isochrone_grid_of_one_metallicity(small):
    """CM-05: a grid of one metallicity gives that one, and refuses others by name."""
    fields = {name: getattr(small, name) for name in small.__dataclass_fields__}
    for name in ("metallicities", "mass", "magnitudes", "log_teff", "log_l", "log_g"):
        fields[name] = fields[name][:1]
    single = IsochroneGrid(**fields)
    assert single.at(1.0).meta["metallicity"] == -0.5
    np.testing.assert_array_equal(single.nodes(8.3, -0.497)[0], single.nodes(8.3, -0.5)[0])
    with pytest.raises(ValueError, match=r"has \[Fe/H\] = -0\.5 only"):
        single.nodes(8.3, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_ages": np.array([9.0, 8.0, 9.5])}, "log_ages must rise"),
        ({"phase": np.array([1, 0, 1, 3, 3])}, "phases must not fall"),
        ({"bands": {"B": "Johnson Vega"}}, "magnitudes has the shape"),
        ({"mass": np.ones((2, 3, 4))}, "mass has the shape"),
    ],
)
def test_isochrone_grid_refuses_shapes_that_do_not_fit(small, change, message):
    """CM-03: a grid that contradicts itself cannot be made."""
    fields = {name: getattr(small, name) for name in small.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        IsochroneGrid(**{**fields, **change})


# --- tables ---------------------------------------------------------------------------------------


def test_isochrone_grid_table_is_that_of_isochrone():
    """CM-05: the table of a grid has the columns, units and systems of `isochrone`."""
    mine = embedded_grid().at(1 * u.Gyr, 0.1, distance=1 * u.kpc, a_v=0.3)
    theirs = isochrone(age=1.0, metallicity=0.1, distance=1 * u.kpc, a_v=0.3)
    others = set(BANDS) - {"g", "r", "i"}
    assert mine.colnames == [name for name in theirs.colnames if name not in others]
    for band in ("g", "r", "i"):
        assert mine[band].meta["system"] == BANDS[band]
        assert mine[band].unit == u.mag
    assert set(theirs.meta) <= set(mine.meta)
    assert np.all(np.diff(mine["mass"]) >= 0)
    assert set(PHASE_NAMES) >= set(mine["phase"].tolist())


def test_isochrone_grid_distance_and_extinction(small):
    """CM-04, CM-05: 1 kpc is 10 mag; A_V dims V by itself and B by the ratio of the law."""
    near, far = small.at(1.0), small.at(1.0, distance=1 * u.kpc, a_v=0.31)
    np.testing.assert_allclose(far["V"] - near["V"], 10.31, atol=1e-9)
    np.testing.assert_allclose(far["B"] - far["V"] - (near["B"] - near["V"]), 0.1, atol=0.01)


# --- the embedded grid ----------------------------------------------------------------------------


@pytest.mark.parametrize(("log_age", "feh"), [(7.62, 0.03), (8.41, 0.2), (9.37, -0.1), (9.9, 0.11)])
def test_isochrone_grid_embedded_is_the_embedded_model(log_age, feh):
    """CM-05: between its models the embedded grid stays within 0.03 mag of `isochrone`.

    Across the curve in the diagram for all stars (0.05 mag for the asymptotic giants, whose
    colours bend with metallicity); at equal mass on the main sequence from 0.3 Msun (below, the
    rows are too far apart to be joined by lines) to 90 % of the last mass (nearer to the end, life
    is so fast that 0.01 in mass means magnitudes).
    """
    age = 10 ** (log_age - 9)
    mine, theirs = embedded_grid().at(age, feh), isochrone(age=age, metallicity=feh)
    for phase in (1, 2, 3, 4, 5):
        near = np.abs(mine["phase"] - phase) <= 1
        there = theirs["phase"] == phase
        distance = across(
            theirs["g"][there] - theirs["i"][there], theirs["g"][there], mine[near], ("g", "i")
        )
        assert distance.max() < (0.03 if phase < 5 else 0.05)
    last = theirs["mass"][theirs["phase"] == 1][-1]
    low = (theirs["mass"] > 0.3) & (theirs["mass"] < 0.9 * last)
    for band in ("g", "r", "i"):
        values = np.interp(theirs["mass"][low], mine["mass"], mine[band])
        assert np.abs(values - theirs[band][low]).max() < 0.03


def test_isochrone_grid_embedded_covers_the_embedded_range():
    """CM-05: the oldest and youngest age of `isochrone` are inside, and the same object returns."""
    grid = embedded_grid()
    for age in AGE_RANGE:
        assert len(grid.at(age, 0.0)) > 100
    assert embedded_grid() is grid
    with pytest.raises(ValueError, match="'Ks' in the embedded isochrones; valid: B, V"):
        embedded_grid(bands=("g", "Ks"))


def test_isochrone_grid_loads_without_pickle():
    """CM-03: the embedded isochrones are read in a Python that refuses to unpickle anything."""
    code = (
        "import pickle, _pickle\n"
        "def refuse(*args, **kwargs): raise RuntimeError('pickle')\n"
        "import numpy as np\n"
        "pickle.load = pickle.loads = _pickle.load = _pickle.loads = refuse\n"
        "np.load.__globals__['pickle'].load = refuse\n"
        "from datared import isochronegrid\n"
        "isochronegrid.EMBEDDED_STEP = 1.0\n"
        "assert len(isochronegrid.embedded_grid(bands=('V',)).at(1.0)) > 100\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- pairs ----------------------------------------------------------------------------------------


def test_isochrone_grid_binary_sequence():
    """CM-05: equal pairs are 0.753 mag brighter, single stars unchanged, others in between."""
    single = embedded_grid().at(1.0)
    none, half, equal = (binary_sequence(single, mass_ratio=q) for q in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(none["g"], single["g"])
    np.testing.assert_allclose(equal["g"], single["g"] - 2.5 * np.log10(2))
    assert np.all((half["g"] < single["g"] + 1e-9) & (half["g"] > equal["g"] - 1e-9))
    # By hand for one star: the light of masses 1.6 and 0.8.
    at = [np.interp(m, single["mass"], single["r"]) for m in (1.6, 0.8)]
    light = -2.5 * np.log10(sum(10 ** (-0.4 * value) for value in at))
    row = np.interp(1.6, half["mass"], half["r"])
    assert row == pytest.approx(light, abs=2e-3)  # the curve is drawn through points
    assert half["g"].meta["system"] == "PS1 AB"
    # A companion below the lowest mass gives no light.
    faint = half["companion_mass"] < single["mass"][0]
    assert faint.any()
    np.testing.assert_allclose(half["i"][faint], single["i"][faint])


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_isochrone_grid_binary_sequence_refuses_other_ratios(ratio):
    """CM-05: the brighter star is the more massive one: ratios go from 0 to 1."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        binary_sequence(embedded_grid().at(1.0), mass_ratio=ratio)
