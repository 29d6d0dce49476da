"""Isochrones: physics, continuity, distance and extinction, and PARSEC as an independent code."""

import os
from importlib.resources import files
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest

from datared.isochrones import (
    BANDS,
    EXTINCTION,
    combine_magnitudes,
    distance_modulus,
    isochrone,
    magnitudes_at_mass,
)

SHARED = Path(os.environ.get("DATARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
PARSEC = SHARED / "isochrones" / "parsec33_ubvrijhk_1-4Gyr_step0.5.txt"


def test_isochrone_file_is_small_and_safe():
    """The embedded table loads with pickle disabled and is below 500 kB."""
    path = files("datared") / "data" / "isochrones.npz"
    assert len(path.read_bytes()) < 500_000
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        assert all(data[name].dtype.kind in "iuf" for name in data.files)


def test_extinction_golden_numbers():
    """F12 and F13: distance modulus, extinction and colour excess."""
    assert distance_modulus(1000 * u.pc) == pytest.approx(10.0)
    near, far = isochrone(age=1.0), isochrone(age=1.0, distance=1 * u.kpc, a_v=1.0)
    for band in BANDS:
        np.testing.assert_allclose(far[band] - near[band], 10 + EXTINCTION[band], atol=1e-9)
        assert far[band].meta["system"] == BANDS[band]
    assert EXTINCTION["g"] - EXTINCTION["r"] == pytest.approx(0.357)
    assert EXTINCTION["r"] - EXTINCTION["i"] == pytest.approx(0.218)
    assert EXTINCTION["g"] - EXTINCTION["i"] == pytest.approx(0.575)
    # Landolt bands: E(B-V) is A_V / 3.3 in broad bands of cool stars.
    assert EXTINCTION["B"] - EXTINCTION["V"] == pytest.approx(1 / 3.315, abs=1e-3)


def test_isochrone_sun():
    """A star like the Sun has its colours, and its luminosity to 10 %."""
    star = magnitudes_at_mass(isochrone(age=4.57), [0.98])[0]
    # M_V = 4.81, B-V = 0.65, V-I = 0.70 (Ramirez et al. 2012); the model Sun is 0.1 mag bright.
    assert abs(star["V"] - 4.81) < 0.15
    assert abs(star["B"] - star["V"] - 0.65) < 0.05
    assert abs(star["V"] - star["I"] - 0.70) < 0.05
    assert abs(star["g"] - star["r"] - 0.44) < 0.06  # Willmer (2018): 0.39 to 0.47


@pytest.mark.parametrize("age", [0.01, 0.1, 1.0, 12.0])
@pytest.mark.parametrize("metallicity", [-1.0, 0.0, 0.295])
def test_isochrone_is_finite_and_rises_in_mass(age, metallicity):
    """All columns are finite, mass rises, the main sequence is continuous."""
    stars = isochrone(age=age, metallicity=metallicity)
    for name in stars.colnames:
        assert np.isfinite(stars[name]).all(), name
    assert (np.diff(stars["mass"]) >= 0).all()
    sequence = stars[stars["phase"] == 1]
    assert sequence["mass"][0] == pytest.approx(0.1)
    assert np.abs(np.diff(sequence["V"])).max() < 0.6
    assert (np.diff(stars["phase"]) >= 0).all()


def test_isochrone_turn_off_moves_evenly():
    """Between the models of the table nothing jumps: the turn-off mass and V are smooth in age."""
    ages = np.geomspace(0.3, 8.0, 60)
    mass = [float(s["mass"][s["phase"] == 1].max()) for s in (isochrone(age=a) for a in ages)]
    slope = np.diff(np.log(mass)) / np.diff(np.log(ages))
    assert (slope < -0.2).all() and (slope > -0.5).all()
    assert np.abs(np.diff(slope)).max() < 0.06


def test_isochrone_metallicity_is_continuous():
    """Metal-rich stars are redder and fainter, in small even steps."""
    mag = []
    for feh in np.linspace(-1, 0.2, 40):  # the formulae flatten above
        star = magnitudes_at_mass(isochrone(age=1.0, metallicity=feh), [0.9])[0]
        mag.append([star["V"], star["B"] - star["V"]])
    steps = np.diff(mag, axis=0)
    assert (steps[:, 0] > 0).all() and (steps[:, 1] > 0).all()
    assert np.abs(np.diff(steps, axis=0)).max() < 0.012


def test_isochrone_grid_outside_is_refused():
    """Ages, metallicities, distances outside the range name the range."""
    with pytest.raises(ValueError, match=r"0\.01 to 13 Gyr"):
        isochrone(age=30.0)
    with pytest.raises(ValueError, match=r"0\.01 to 13 Gyr"):
        isochrone(age=1 * u.Myr)
    with pytest.raises(ValueError, match=r"-1 to 0\.295"):
        isochrone(age=1.0, metallicity=0.5)
    with pytest.raises(ValueError, match="unit"):
        isochrone(age=1.0, distance=100.0)
    with pytest.raises(ValueError, match="a_v"):
        isochrone(age=1.0, a_v=-0.1)
    assert len(isochrone(age=100 * u.Myr)) == len(isochrone(age=0.1))


def test_isochrone_binaries():
    """Equal stars are 0.753 mag brighter; no companion changes nothing."""
    assert combine_magnitudes(10.0, 10.0) == pytest.approx(10 - 2.5 * np.log10(2))
    assert combine_magnitudes(10.0, np.inf) == pytest.approx(10.0)
    both = combine_magnitudes([10.0, 12.0], [15.0, 12.0])
    np.testing.assert_allclose(both, [9.98920, 11.24743], atol=1e-5)


def test_isochrone_magnitudes_at_mass():
    """Masses are interpolated; those outside the living stars are nan with phase 0."""
    stars = isochrone(age=1.0)
    out = magnitudes_at_mass(stars, [stars["mass"][50], 0.05, 5.0])
    assert out["V"][0] == pytest.approx(stars["V"][50])
    assert np.isnan(out["g"][1:]).all() and list(out["phase"]) == [1, 0, 0]
    assert out["g"].meta["system"] == "PS1 AB"


def parsec(path, log_age):
    """Return mass, log Teff, B - V, V of one isochrone of a PARSEC file."""
    lines = path.read_text().splitlines()
    names = next(line[1:].split() for line in lines if line.startswith("# Zini"))
    data = np.array([line.split() for line in lines if not line.startswith("#")], dtype=float)
    data = data[np.abs(data[:, names.index("logAge")] - log_age) < 1e-3]
    mass, teff, b, v = (data[:, names.index(n)] for n in ("Mini", "logTe", "Bmag", "Vmag"))
    return mass, teff, b - v, v


def sequence(mass, teff, colour, v):
    """Return colour and V from 0.5 Msun to the first hottest point, brightest first."""
    end = np.flatnonzero((np.diff(teff) < 0) & (mass[:-1] > 0.75))[0]
    part = slice(np.searchsorted(mass, 0.5), end + 1)
    return colour[part][::-1], v[part][::-1]


@pytest.mark.skipif(not PARSEC.exists(), reason="no PARSEC isochrones in DATARED_DATA")
@pytest.mark.parametrize("age", [1.0, 2.0, 4.0])
def test_isochrone_against_parsec(age):
    """An independent code: main sequence within 0.2 mag in V at given B-V, same turn-off colour."""
    stars = isochrone(age=age)
    stars = stars[stars["phase"] < 3]
    ours = sequence(*(np.array(x) for x in (stars["mass"], stars["log_teff"])),
                    np.array(stars["B"] - stars["V"]), np.array(stars["V"]))  # fmt: skip
    theirs = sequence(*parsec(PARSEC, np.log10(age * 1e9)))
    colour = np.arange(max(ours[0].min(), theirs[0].min()) + 0.1, 1.3, 0.02)
    difference = np.interp(colour, *ours) - np.interp(colour, *theirs)
    # Colour tables of two codes differ by 0.02 mag, times a slope of 5 to 7: 0.15 mag.
    assert np.abs(difference).max() < 0.27
    assert np.sqrt(np.mean(difference**2)) < 0.15
