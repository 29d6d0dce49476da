"""Photometric systems: the published coefficients, and what they do with real stars."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table

from datared.catalogs import read_catalogue
from datared.errors import DataredError
from datared.systems import SYSTEMS, johnson_cousins, transform, transformations
from datared.zeropoints import colour

DATA = Path(os.environ.get("DATARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real catalogues are not here")

PS1_JC = "PS1 to Johnson-Cousins (Tonry 2012)"
PS1_SDSS = "PS1 to SDSS (Tonry 2012)"
SDSS_JC = "SDSS to Johnson-Cousins (Jordi 2006)"
GAIA_JC = "Gaia DR3 to Johnson-Cousins (Carrasco 2022)"
GAIA_SDSS = "Gaia DR3 to SDSS (Carrasco 2022)"


def stars(system, **magnitudes):
    """Table of magnitudes of one system."""
    table = Table({name: np.atleast_1d(np.asarray(v, float)) for name, v in magnitudes.items()})
    for name in table.colnames:
        table[name].meta["system"] = system
    return table


# The equations as the papers print them, typed a second time: m - m_base at a colour of 0.5 and 1.
# One wrong sign or digit in the package differs here by 0.0005 or more.
GOLDEN = [
    (PS1_JC, "B", "g", lambda c: 0.212 + 0.556 * c + 0.034 * c * c),
    (PS1_JC, "V", "r", lambda c: 0.005 + 0.462 * c + 0.013 * c * c),
    (PS1_JC, "R", "r", lambda c: -0.137 - 0.108 * c - 0.029 * c * c),
    (PS1_JC, "I", "i", lambda c: -0.366 - 0.136 * c - 0.018 * c * c),
    (PS1_SDSS, "g", "g", lambda c: 0.013 + 0.145 * c + 0.019 * c * c),
    (PS1_SDSS, "r", "r", lambda c: -0.001 + 0.004 * c + 0.007 * c * c),
    (PS1_SDSS, "i", "i", lambda c: -0.005 + 0.011 * c + 0.010 * c * c),
    (PS1_SDSS, "z", "z", lambda c: 0.013 - 0.039 * c - 0.012 * c * c),
    (SDSS_JC, "B", "g", lambda c: 0.313 * c + 0.219),
    (SDSS_JC, "V", "g", lambda c: -0.565 * c - 0.016),
    (GAIA_JC, "V", "G", lambda c: 0.02704 - 0.01424 * c + 0.2156 * c**2 - 0.01426 * c**3),
    (GAIA_JC, "R", "G", lambda c: 0.02275 - 0.3961 * c + 0.1243 * c**2 + 0.01396 * c**3
     - 0.003775 * c**4),
    (GAIA_JC, "I", "G", lambda c: -0.01753 - 0.76 * c + 0.0991 * c**2),
    (GAIA_JC, "B", "G", lambda c: -0.01448 + 0.6874 * c + 0.3604 * c**2 - 0.06718 * c**3
     + 0.006061 * c**4),
    (GAIA_SDSS, "g", "G", lambda c: -0.2199 + 0.6365 * c + 0.1548 * c**2 - 0.0064 * c**3),
    (GAIA_SDSS, "r", "G", lambda c: 0.09837 - 0.08592 * c - 0.1907 * c**2 + 0.1701 * c**3
     - 0.02263 * c**4),
    (GAIA_SDSS, "i", "G", lambda c: 0.293 - 0.6404 * c + 0.09609 * c**2 + 0.002104 * c**3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "band", "base", "published"), GOLDEN)
def test_systems_coefficients_are_the_published_ones(name, band, base, published):
    """Every coefficient of B to I and g to z, against the equations typed again."""
    for c in (0.5, 1.0):
        if "Gaia" in name:
            table = stars("Gaia Vega", G=16.0, BP=16.3, RP=16.3 - c)
            start = 16.0
        else:
            system = "PS1 AB" if "PS1" in name else "SDSS AB"
            table = stars(system, g=16.0, r=16.0 - c, i=15.8 - c, z=15.7 - c)
            start = float(table[base][0])
        result = transform(table, name)[band]
        assert float(result[0]) == pytest.approx(start + published(c), abs=1e-9)


def test_systems_red_and_infrared_of_jordi():
    """R from r-i and I from i-z, each by its own colour."""
    result = transform(stars("SDSS AB", g=16.5, r=16.0, i=15.8, z=15.7), SDSS_JC)
    assert float(result["R"][0]) == pytest.approx(16.0 - 0.153 * 0.2 - 0.117)
    assert float(result["I"][0]) == pytest.approx(15.8 - 0.386 * 0.1 - 0.397)
    assert result["R"].meta["system"] == "Cousins Vega"
    assert result["B"].meta["system"] == result["V"].meta["system"] == "Johnson Vega"


@pytest.mark.parametrize(
    ("name", "band", "base", "linear"),
    [
        # Tonry et al. 2012 print straight lines beside their parabolas, fitted to the same stars.
        (PS1_JC, "B", "g", (0.213, 0.587)),
        (PS1_JC, "V", "r", (0.006, 0.474)),
        (PS1_JC, "R", "r", (-0.138, -0.131)),
        (PS1_JC, "I", "i", (-0.367, -0.149)),
        (PS1_SDSS, "g", "g", (0.014, 0.162)),
        (PS1_SDSS, "r", "r", (-0.001, 0.011)),
        (PS1_SDSS, "i", "i", (-0.004, 0.020)),
        (PS1_SDSS, "z", "z", (0.013, -0.050)),
    ],
)
def test_systems_parabolas_follow_the_published_lines(name, band, base, linear):
    """An independent fit of the same paper: within the scatter of a star, 0.02 mag at most."""
    c = np.linspace(0.2, 1.0, 9)
    table = stars("PS1 AB", g=16 + 0 * c, r=16 - c, i=15.8 - c, z=15.7 - c)
    result = transform(table, name)[band]
    difference = np.asarray(result) - (np.asarray(table[base]) + linear[0] + linear[1] * c)
    assert np.abs(difference).max() < 0.02


def test_systems_never_meet_silently():
    """Another system, none, and unknown names are refused; so is a colour of two systems."""
    sloan = stars("SDSS AB", g=16.0, r=15.5, i=15.3)
    with pytest.raises(DataredError, match="SDSS AB"):
        transform(sloan, PS1_JC)
    bare = Table({"g": [16.0], "r": [15.5], "i": [15.3]})
    with pytest.raises(DataredError, match="None"):
        transform(bare, PS1_SDSS)
    with pytest.raises(DataredError, match="there are: PS1 to"):
        transform(sloan, "SDSS to Johnson")
    with pytest.raises(DataredError, match="needs the columns BP, G, RP"):
        transform(sloan, GAIA_JC)
    both = transform(stars("PS1 AB", g=16.0, r=15.5, i=15.3, z=15.2, y=15.1), PS1_SDSS)
    assert both["g"].meta["system"] == "SDSS AB" and both["y"].meta["system"] == "PS1 AB"
    with pytest.raises(DataredError, match="a colour needs one system"):
        colour(both["g"], both["y"])
    with pytest.raises(DataredError, match="SDSS AB"):
        transform(both, PS1_SDSS)  # Once is enough.


def test_systems_mask_what_is_outside_and_carry_errors():
    """Outside of the range of colours: masked. The error has all magnitudes and the scatter."""
    table = stars("PS1 AB", cat_g=[16.0, 16.0, 18.0], cat_r=[15.5, 15.5, 15.0])
    table["cat_r"] = MaskedColumn(table["cat_r"], mask=[False, True, False])
    table["cat_r"].meta["system"] = "PS1 AB"
    table["cat_g_err"], table["cat_r_err"] = [0.03] * 3, [0.04] * 3
    result = transform(table, PS1_JC, prefix="cat_")
    assert result["cat_V"].mask.tolist() == [False, True, True]
    assert "cat_I" not in result.colnames and table.colnames[:2] == ["cat_g", "cat_r"]
    # V = r + 0.462 (g-r) + 0.013 (g-r)^2: weights 0.475 and 0.525 at g-r = 0.5.
    expected = np.sqrt((0.475 * 0.03) ** 2 + (0.525 * 0.04) ** 2 + 0.012**2)
    assert float(result["cat_V_err"][0]) == pytest.approx(expected)
    assert result["cat_V_err"].meta["system"] == "Johnson Vega"


def test_systems_of_quantities():
    """A table of quantities gives what a table of columns gives."""
    plain = stars("PS1 AB", g=[16.0, 17.0], r=[15.5, 16.2])
    for name in plain.colnames:
        plain[name].unit = u.mag
    result = transform(QTable(plain), PS1_SDSS)
    assert result["g"].info.meta == {"system": "SDSS AB"}
    expected = np.asarray(transform(plain, PS1_SDSS)["g"])
    assert np.asarray(result["g"].value) == pytest.approx(expected, abs=1e-12)


def test_systems_any_way_to_johnson_and_cousins():
    """Magnitudes that are there, else by what leads there from the table's system, else NaN."""
    own = stars("Landolt Vega", cat_V=[12.0])
    assert johnson_cousins(own, "V", prefix="cat_").tolist() == [12.0]
    survey = stars("PS1 AB", cat_g=[16.0], cat_r=[15.5])
    expected = float(transform(survey, PS1_JC, prefix="cat_")["cat_V"][0])
    assert johnson_cousins(survey, "V", prefix="cat_").tolist() == [expected]
    for table, band in ((survey, "I"), (survey, "g"), (survey, "Halpha"), (survey[:0], "V")):
        assert np.isnan(johnson_cousins(table, band, prefix="cat_")).all()
    gaia = stars("Gaia Vega", G=[16.0], BP=[16.3], RP=[15.5])
    assert johnson_cousins(gaia, "R").tolist() == [float(transform(gaia, GAIA_JC)["R"][0])]
    odd = stars("Tycho Vega", V=[12.0])
    assert np.isnan(johnson_cousins(odd, "V")).all()


def test_systems_table_names_source_range_and_scatter():
    """The list says of each what it needs, gives and is worth; every system is explained."""
    table = transformations()
    assert {PS1_JC, PS1_SDSS, SDSS_JC, GAIA_JC, GAIA_SDSS} == set(table["name"])
    for row in table:
        assert {row["from"], *row["to"].split(", ")} <= set(SYSTEMS)
        assert any(year in row["source"] for year in ("2006", "2012", "2022"))
        assert len(row["scatter"].split()) == len(row["bands"].split()) and "<" in row["range"]


@pytest.fixture(scope="module")
def literature():
    """Stars of NGC 6819 with V, B-V, PS1 and Gaia magnitudes of other people."""
    path = DATA / "catalogues" / "ngc6819_literature_photometry.csv"
    raw = Table.read(path, format="csv")
    old = read_catalogue(path)
    table = Table()
    for name, column, system in [
        *((band, band, "PS1 AB") for band in "griz"), ("G", "GMAG", "Gaia Vega"),
    ]:  # fmt: skip
        table[name] = numbers(raw[column])
        table[name].meta["system"] = system
    # Only the colour is in the table: any BP and RP with that difference will do.
    table["BP"], table["RP"] = numbers(raw["BP_RP"]), np.zeros(len(raw))
    for name in ("BP", "RP"):
        table[name].meta["system"] = "Gaia Vega"
    table["V"], table["B_V"] = numbers(raw["Vmag"]), numbers(raw["B_V"])
    assert old["V"].meta["system"] == "Landolt Vega"
    # Saturated in Pan-STARRS above 13.6 in g, and noisy below an error of 0.02.
    return table[(table["g"] > 13.6) & (numbers(raw["gerr"]) < 0.02)]


def numbers(column):
    """Column as floats, NaN where there is no number."""
    values = []
    for text in np.ma.filled(np.ma.asarray(column).astype(str), "nan"):
        try:
            values.append(float(text))
        except ValueError:
            values.append(np.nan)
    return np.array(values)


def middle(values):
    """Median, its standard error from the MAD, and the number of values."""
    values = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    values = values[np.isfinite(values)]
    width = 1.4826 * np.median(np.abs(values - np.median(values)))
    return float(np.median(values)), float(width), len(values)


@needs_data
@pytest.mark.real
def test_systems_real_stars_of_ngc6819(literature):
    """V, B-V, Pan-STARRS and Gaia of the same stars agree after the transformations.

    Most of these stars vary by some 0.05 mag, at other times for each survey, and the old V has a
    zero point that differs by 0.04 from paper to paper. Medians agree within 0.04 mag, or within
    1.5 times the published scatter of a star where that is more: these stars are reddened giants
    and dwarfs. A wrong sign is 0.1 to 0.5 mag in a linear term, 0.03 to 0.8 in a constant.
    """
    ps1, gaia = transform(literature, PS1_JC), transform(literature, GAIA_JC)
    sdss, gaia_sdss = transform(literature, PS1_SDSS), transform(literature, GAIA_SDSS)
    jordi = transform(sdss, SDSS_JC)
    for ours, theirs, limit, width, least in [
        (ps1["V"], literature["V"], 0.04, 0.08, 100),
        (ps1["B"] - ps1["V"], literature["B_V"], 0.04, 0.07, 100),
        (gaia["V"], literature["V"], 0.045, 0.10, 100),
        (gaia["V"], ps1["V"], 0.04, 0.04, 200),
        (gaia["R"], ps1["R"], 0.04, 0.04, 200),
        (gaia["I"], ps1["I"], 0.04, 0.04, 200),
        (gaia["B"], ps1["B"], 0.09, 0.06, 200),
        # Two ways from Pan-STARRS to Johnson and Cousins: through SDSS, and directly.
        (jordi["B"], ps1["B"], 0.03, 0.03, 200),
        (jordi["V"], ps1["V"], 0.02, 0.03, 200),
        (jordi["R"], ps1["R"], 0.09, 0.03, 200),
        (jordi["I"], ps1["I"], 0.03, 0.03, 200),
        (gaia_sdss["g"], sdss["g"], 0.06, 0.06, 150),
        (gaia_sdss["r"], sdss["r"], 0.05, 0.04, 150),
        (gaia_sdss["i"], sdss["i"], 0.06, 0.04, 150),
    ]:
        offset, spread, n = middle(np.ma.asarray(ours) - np.ma.asarray(theirs))
        assert n >= least and abs(offset) < limit and spread < width, (offset, spread, n)
