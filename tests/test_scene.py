"""The simulated sky: stars that belong together, and a survey with honest errors."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import vstack

from datared.isochrones import isochrone, magnitudes_at_mass
from datared.scene import (
    cluster_stars,
    contamination,
    draw_masses,
    field_stars,
    positions_at,
    special_star,
    survey_catalogue,
)

AREA = {"center": (300.0, 20.0), "box": (0.4, 0.3), "bright_limit": {"g": 12.9, "r": 12.3}}


@pytest.fixture(scope="module")
def cluster():
    """Members of a cluster."""
    age = {"age": 1.0, "metallicity": 0.0, "distance": 2500.0, "a_v": 0.3}
    return cluster_stars(np.random.default_rng(1), 400, **age, **AREA)


@pytest.fixture(scope="module")
def field():
    """Stars of the field."""
    return field_stars(np.random.default_rng(2), 800, **AREA)


def test_masses_follow_the_power_law():
    """Numbers in two ranges above half a solar mass have the ratio of the integrals."""
    masses = draw_masses(np.random.default_rng(3), 100_000, low=0.5, high=2.0)
    expected = (0.5**-1.3 - 1) / (1 - 2**-1.3)
    low, high = np.sum(masses < 1), np.sum(masses >= 1)
    assert low / high == pytest.approx(expected, rel=5 / np.sqrt(high))


def test_members_lie_on_the_isochrone(cluster):
    """Single stars have its magnitudes; three in ten are binaries and never fainter."""
    model = isochrone(age=1.0, distance=2500 * u.pc, a_v=0.3)
    expected = magnitudes_at_mass(model, cluster["mass"])
    single = ~np.asarray(cluster["binary"])
    for band in "gri":
        excess = np.asarray(cluster[band]) - np.asarray(expected[band])
        assert np.abs(excess[single]).max() < 1e-9
        assert excess[~single].max() <= 1e-9
        assert excess.min() > -0.7526
    assert np.mean(~single) == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / 400))
    assert cluster["r"].min() > 12.3
    assert cluster["r"].max() < 19.0
    assert np.sum((cluster["r"] < 13.6) & (cluster["g"] - cluster["r"] > 0.5)) >= 3  # giants


def test_members_move_together_and_the_field_does_not(cluster, field):
    """The cluster's motions scatter by 0.8 km/s, the field's by 35 km/s at each distance."""
    spread = 0.8 / (4.74047 * 2.5)
    assert np.std(cluster["pm_ra"]) == pytest.approx(spread, rel=0.2)
    speed = np.asarray(field["pm_dec"]) * 4.74047 * np.asarray(field["distance"]) / 1000
    assert np.std(speed) == pytest.approx(35.0, rel=5 / np.sqrt(2 * 800))
    assert np.median(cluster["parallax"]) == pytest.approx(0.4, abs=0.001)
    assert np.allclose(field["parallax"] * field["distance"], 1000)


def test_field_has_more_faint_stars_and_realistic_colours(field):
    """Counts rise towards faint magnitudes; colours lie between those of A and M stars."""
    counts = np.histogram(field["r"], [13, 15, 17, 19])[0]
    assert counts[0] < counts[1] < counts[2]
    colour = np.asarray(field["g"] - field["r"])
    assert 0.4 < np.median(colour) < 1.0
    assert -0.3 < colour.min()
    assert colour.max() < 2.0


def test_positions_follow_the_proper_motion():
    """Ten years at 100 mas a year towards the east are one second of arc on the sky."""
    star = special_star(ra=10.0, dec=60.0, r=12.0, kind="field")
    star["pm_ra"] = 100.0
    ra, dec = positions_at(star, 2025.5)
    assert (ra[0] - 10.0) * np.cos(np.radians(60.0)) * 3600 == pytest.approx(1.0, rel=1e-6)
    assert dec[0] == 60.0


def test_catalogue_errors_are_honest(field):
    """Pulls of magnitudes, motions and parallaxes of lonely stars have width 1 (to 5 sigma)."""
    lonely = field[contamination(field, radius=5.0) == 0]
    lonely.sort("ra")
    listed = survey_catalogue(lonely, rng=np.random.default_rng(4), limit=30.0)
    assert len(listed) == len(lonely)
    tolerance = 5 / np.sqrt(2 * len(lonely)) + 0.03  # errors are written with few digits
    pairs = [("g", "gmag"), ("r", "rmag"), ("i", "imag"), ("pm_ra", "pmRA"), ("parallax", "Plx")]
    for ours, theirs in pairs:
        pull = (np.asarray(listed[theirs]) - np.asarray(lonely[ours])) / listed["e_" + theirs]
        assert np.std(pull) == pytest.approx(1.0, abs=tolerance), theirs
    shift = (np.asarray(listed["DE_ICRS"]) - np.asarray(lonely["dec"])) * 3.6e6
    assert np.abs(shift).max() < 5.0
    assert listed["e_rmag"][np.argmin(listed["rmag"])] < listed["e_rmag"][np.argmax(listed["rmag"])]


def test_catalogue_ends_at_its_limit_and_joins_close_pairs(field):
    """No star far below the limit is listed; a pair 1 arcsec apart is one row with both lights."""
    listed = survey_catalogue(field, rng=np.random.default_rng(5), limit=17.0)
    assert 16.8 < listed["rmag"].max() < 17.7
    pair = [special_star(ra=10.0, dec=d, r=14.0, kind="field") for d in (0.0, 1 / 3600)]
    far = special_star(ra=10.0, dec=10 / 3600, r=14.0, kind="field")
    listed = survey_catalogue(vstack([*pair, far]), rng=np.random.default_rng(6))
    assert len(listed) == 2
    joined = listed[np.argmin(listed["DE_ICRS"])]
    assert joined["rmag"] == pytest.approx(14 - 2.5 * np.log10(2), abs=0.03)
    assert joined["DE_ICRS"] * 3600 == pytest.approx(0.5, abs=0.001)


def test_contamination_is_the_light_of_the_neighbour():
    """A neighbour 1 mag fainter adds 10^-0.4; one beyond the radius nothing."""
    stars = [special_star(ra=10.0, dec=d / 3600, r=r, kind="field") for d, r in ((0, 14), (5, 15))]
    near, far = (contamination(vstack(stars), radius=r) for r in (6.0, 4.0))
    assert near == pytest.approx([10**-0.4, 10**0.4])
    assert far == pytest.approx([0.0, 0.0])
