"""Dust and distance: golden numbers, published laws, continuity, refusals."""

import astropy.units as u
import numpy as np
import pytest

from datared import isochrones
from datared.extinction import (
    EXTINCTION,
    LAWS,
    WAVELENGTHS,
    colour_excess,
    distance_modulus,
    extinction_ratio,
    extinction_table,
)
from datared.isochrones import BANDS, isochrone


def test_extinction_golden_numbers():
    """CM-04, F13: A_g, A_r, A_i = 1.205, 0.848, 0.630 A_V and their colour excesses."""
    assert [extinction_ratio(band) for band in "gri"] == [1.205, 0.848, 0.630]
    assert colour_excess(("g", "r"), 1.0) == pytest.approx(0.357)
    assert colour_excess(("r", "i"), 1.0) == pytest.approx(0.218)
    assert colour_excess(("g", "i"), 2.0) == pytest.approx(2 * 0.575)
    # Landolt bands: E(B-V) is A_V / 3.315 in broad bands (Schlegel et al. 1998, table 6).
    assert colour_excess(("B", "V"), 3.315) == pytest.approx(1.0)
    assert isochrones.EXTINCTION is EXTINCTION


def test_extinction_distance_modulus():
    """CM-04, F12: 1000 pc is 10.0; with extinction m - M = 5 log10(d / pc) - 5 + A."""
    assert distance_modulus(1000 * u.pc) == pytest.approx(10.0)
    assert isochrones.distance_modulus is distance_modulus
    near, far = isochrone(age=1.0), isochrone(age=1.0, distance=1 * u.kpc, a_v=1.0)
    for band in BANDS:
        np.testing.assert_allclose(far[band] - near[band], 10 + EXTINCTION[band], atol=1e-9)
        assert far[band].meta["system"] == BANDS[band]
    with pytest.raises(ValueError, match="unit"):
        distance_modulus(100.0)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="positive"):
            distance_modulus(wrong * u.pc)


def test_extinction_agrees_with_published_bands():
    """CM-04: a law at the effective wavelength gives the broad-band values of the literature.

    U, J, H, K: Schlegel et al. (1998), table 6; G, BP, RP: the values of the CMD service for a G2
    star. A band is not one wavelength: 5 % for the narrow ones, 10 % for Gaia and U.
    """
    near = {"J": 0.902, "H": 0.576, "K": 0.367}
    for band, value in near.items():
        assert extinction_ratio(band) == pytest.approx(value / 3.315, rel=0.07)
    assert extinction_ratio("U") == pytest.approx(5.434 / 3.315, rel=0.10)
    for band, value in {"G": 0.836, "BP": 1.083, "RP": 0.634}.items():
        assert extinction_ratio(band) == pytest.approx(value, rel=0.10)
    for band in "BRIgri":
        assert extinction_ratio(band, law="O94") == pytest.approx(EXTINCTION[band], rel=0.07)


@pytest.mark.parametrize("law", LAWS)
def test_extinction_laws_fall_with_wavelength(law):
    """CM-04: every law covers every band, is 1 at V, and dust dims blue light more."""
    order = sorted(WAVELENGTHS, key=lambda band: WAVELENGTHS[band][0])
    ratios = np.array([extinction_ratio(band, law=law) for band in order])
    assert extinction_ratio("V", law=law) == 1.0
    assert (np.diff(ratios) < 0).all() and 0.09 < ratios[-1] < ratios[0] < 1.7


def test_extinction_is_continuous_in_r_v():
    """CM-04: near R_V = 3.1 the ratios approach the published ones; grey dust reddens less."""
    for band in WAVELENGTHS:
        assert extinction_ratio(band, r_v=3.1 + 1e-6) == pytest.approx(
            extinction_ratio(band), abs=1e-6
        )
    values = [colour_excess(("B", "V"), 1.0, r_v=r_v) for r_v in (2.5, 3.1, 4.0, 5.5)]
    assert (np.diff(values) < 0).all()


def test_extinction_law_golden_numbers():
    """CM-04: F99 and CCM89 against the package's own curves at the wavelengths given."""
    from dust_extinction.parameter_averages import CCM89, F99

    for law, model in (("F99", F99), ("CCM89", CCM89)):
        wave = np.array([WAVELENGTHS[band][0] for band in ("g", "V")]) * u.AA
        at_g, at_v = model(Rv=3.1)(wave)
        assert extinction_ratio("g", law=law) == pytest.approx(at_g / at_v, rel=1e-12)


def test_extinction_table_tells_its_sources():
    """CM-04: every band has its survey, wavelength, number and source."""
    table = extinction_table()
    assert list(table["band"]) == list(WAVELENGTHS) and table["wavelength"].unit == u.AA
    source = dict(zip(table["band"], table["source"], strict=True))
    assert source["B"] == "Schlegel et al. (1998)" and "O'Donnell" in source["K"]
    assert all(source.values())
    assert "scaled to R_V 5" in extinction_table(r_v=5.0)["source"][1]
    assert set(extinction_table(law="F99")["source"]) == {LAWS["F99"]}


def test_extinction_colour_excess_of_many_stars():
    """CM-04: arrays go through; a plain number gives a plain number."""
    values = colour_excess(("g", "r"), [0.0, 1.0, 2.0])
    np.testing.assert_allclose(values, [0.0, 0.357, 0.714])
    assert isinstance(colour_excess(("g", "r"), 1), float)


def test_extinction_refusals():
    """CM-04: unknown bands and laws, impossible numbers: the message says what is valid."""
    with pytest.raises(ValueError, match="choose one of U, B, V"):
        extinction_ratio("W1")
    with pytest.raises(ValueError, match="choose one of CCM89"):
        extinction_ratio("g", law="mine")
    with pytest.raises(ValueError, match=r"goes from 2\.0 to 6\.0"):
        extinction_ratio("g", r_v=1.0)
    for wrong in (-0.1, np.nan, [0.1, -0.1]):
        with pytest.raises(ValueError, match="a_v"):
            colour_excess(("g", "r"), wrong)
    for bands in ("gr", ("g",), ("g", "r", "i")):
        with pytest.raises(ValueError, match="two names"):
            colour_excess(bands, 0.1)
