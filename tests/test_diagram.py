"""The colour-magnitude diagram: table, quality cuts, members, figures, and the stage of a night."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from datared import pipeline
from datared.apertures import BAD_PIXEL, NEIGHBOUR, SATURATED
from datared.catalogs import match, positions
from datared.charts import COLOURS
from datared.diagram import (
    choose_bands,
    colour_magnitude_table,
    diagram_night,
    quality_cuts,
)
from datared.diagramplots import diagram_before_after, motions_before_after, night_figure, show_cuts
from datared.errors import DataredError
from datared.isochrones import isochrone
from datared.membership import NAMES, membership
from datared.night import Night
from datared.options import DiagramOptions
from tests.test_truth import reduced

N = 400
MEMBERS = 120


def magnitudes_table(filters, *, n=N, seed=1, system="PS1 AB", epochs=5):
    """Magnitudes as the stage before gives them; ``epochs`` may be a number for each filter."""
    rng = np.random.default_rng(seed)
    table = Table({"star": np.arange(n), "ra": rng.uniform(10, 10.2, n)})
    table["dec"] = rng.uniform(40, 40.1, n)
    number = epochs if isinstance(epochs, dict) else dict.fromkeys(filters, epochs)
    bright = rng.uniform(13, 18, n)
    for k, name in enumerate(filters):
        values = {
            name: bright - 0.4 * k + rng.normal(0, 0.01, n),
            f"{name}_err": np.full(n, 0.01),
            f"{name}_scatter": np.full(n, 0.01 if number[name] > 1 else np.nan),
            f"{name}_chi2": rng.uniform(0.5, 2, n) if number[name] > 1 else np.full(n, np.nan),
        }
        for key, value in values.items():
            table[key] = MaskedColumn(value, mask=~np.isfinite(value), unit=u.mag)
        for key in (name, f"{name}_err"):
            table[key].unit = u.mag
            table[key].meta["system"] = system if isinstance(system, str) else system[k]
        table[f"{name}_n"], table[f"{name}_flags"] = number[name], 0
    return table


def star_list(magnitudes, *, seed=2, prefix="cat_"):
    """Stars of a night with the motions that a catalogue tells; the first ones are a cluster."""
    rng = np.random.default_rng(seed)
    n = len(magnitudes)
    stars = magnitudes["star", "ra", "dec"].copy()
    member = np.arange(n) < MEMBERS
    for name, mean, width in (("pm_ra", 3, 3), ("pm_dec", -3, 3), ("parallax", 0.4, 0.3)):
        error = rng.uniform(0.05, 0.15, n)
        value = np.where(member, mean, rng.normal(0, width, n)) + rng.normal(0, error)
        for key, numbers in ((name, value), (f"{name}_err", error)):
            unit = u.mas if name == "parallax" else u.mas / u.yr
            stars[prefix + key] = MaskedColumn(numbers, mask=np.arange(n) >= n - 20, unit=unit)
    return stars


def night_of(folder, magnitudes, *, stars=None, **options):
    """A night that was reduced up to its magnitudes."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    magnitudes.write(work / "magnitudes.ecsv", format="ascii.ecsv", overwrite=True)
    if stars is not None:
        stars.write(work / "stars.ecsv", format="ascii.ecsv", overwrite=True)
    return Night(name="test", raw=folder / "raw", work=work, diagram=DiagramOptions(**options))


def read(path):
    """Table of a file."""
    return Table.read(path, format="ascii.ecsv")


# --- table and cuts ------------------------------------------------------------------------------


def test_colour_and_errors():
    """CM-02: colour, magnitude and error bars; two filters or three, whatever their names."""
    source = magnitudes_table(["B", "V", "I"], system="Johnson Vega")
    table = colour_magnitude_table(source, bands=("B", "I", "V"))
    assert np.allclose(table["colour"], source["B"] - source["I"])
    assert np.array_equal(table["magnitude"], source["V"])
    assert np.allclose(table["colour_err"], np.hypot(0.01, 0.01))
    assert table["colour"].unit == u.mag and table["V"].meta["system"] == "Johnson Vega"
    two = colour_magnitude_table(source, bands=("B", "V"))
    assert np.array_equal(two["magnitude"], source["B"]) and two.meta["bands"] == ["B", "V", "B"]
    assert (two["cut"] == "kept").all() and two.meta["cuts"] == {}


def test_colour_of_two_systems_is_refused():
    """CM-02: two magnitude systems never meet; a missing filter is named with those there are."""
    source = magnitudes_table(["g", "V"], system=["PS1 AB", "Johnson Vega"])
    with pytest.raises(DataredError, match=r"'PS1 AB'.*'Johnson Vega'"):
        colour_magnitude_table(source, bands=("g", "V"))
    with pytest.raises(DataredError, match=r"no magnitudes in 'r'; the filters are g, V"):
        colour_magnitude_table(source, bands=("g", "r"))
    with pytest.raises(DataredError, match=r"4 filters for a diagram"):
        colour_magnitude_table(source, bands="grzy")


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [
        ("gri", ("g", "i", "g")),
        ("izg", ("g", "z", "g")),
        (("B", "V"), ("B", "V", "V")),
        (("I", "R", "V", "B", "U"), ("B", "V", "V")),
        (("G", "BP", "RP"), ("BP", "RP", "G")),
        ("uri", ("r", "i", "r")),
        (("g'", "r'"), ("g'", "r'", "g'")),
        (("Ha", "Clear"), ("Ha", "Clear", "Ha")),
        ("r", ()),
    ],
)
def test_filters_are_chosen(filters, chosen):
    """CM-02: any number of filters: B-V, or the two farthest apart; none where there is one."""
    assert choose_bands(magnitudes_table(filters, n=3)) == chosen


def test_filters_of_one_system_are_chosen():
    """CM-02: of filters in several systems, those that share one make the diagram."""
    systems = ["instrumental", "PS1 AB", "PS1 AB", "Johnson Vega"]
    assert choose_bands(magnitudes_table("Hgri", n=3, system=systems)) == ("g", "r", "g")
    assert choose_bands(magnitudes_table("gr", n=3, system=["PS1 AB", "instrumental"])) == ()


@pytest.mark.parametrize(
    ("filters", "chosen"),
    [("IV", ("V", "I", "V")), ("RV", ("V", "R", "V")), ("IRVB", ("B", "V", "V"))],
)
def test_colours_of_johnson_and_cousins(filters, chosen):
    """CM-02: V - R and V - I are colours: Landolt's U, B, V and R, I are one set of standards."""
    systems = [("Cousins" if name in "RI" else "Johnson") + " Vega" for name in filters]
    source = magnitudes_table(filters, n=5, system=systems)
    assert choose_bands(source) == chosen
    table = colour_magnitude_table(source, bands=(filters[-1], filters[0]))
    assert np.allclose(table["colour"], source[filters[-1]] - source[filters[0]])
    assert table["colour"].meta["system"] == "Johnson-Cousins Vega"
    assert table[filters[0]].meta["system"] == source[filters[0]].meta["system"] == "Cousins Vega"


def test_quality_cuts_say_which_star_and_why():
    """CM-02: each star has the first cut that removed it; what is not there cannot be wrong."""
    source = magnitudes_table("gr", n=9)
    source["g_flags"][0], source["r_flags"][1], source["g_flags"][2] = SATURATED, NEIGHBOUR, 8
    source["g"].mask[[0, 3]] = True
    source["r"][4] = np.nan
    source["g_chi2"][5] = 40.0
    source["r_err"][6] = 0.2
    source["g_err"][7] = source["r_err"][7] = 0.08
    assert quality_cuts(source, bands=("g", "r")).tolist() == [
        "saturated (g)",
        "neighbour (r)",
        "bad pixel (g)",
        "not measured (g)",
        "not measured (r)",
        "exposures disagree (g)",
        "large error (r)",
        "large error (colour)",
        "kept",
    ]
    assert BAD_PIXEL == 8
    table = colour_magnitude_table(source, bands=("g", "r"))
    assert len(table) == 9 and sum(table.meta["cuts"].values()) == 8
    # The filter of the magnitude counts, but not in the error of the colour.
    assert quality_cuts(source, bands=("g", "r", "g"), max_error=0.3)[6:].tolist() == ["kept"] * 3
    plain = source["star", "g", "g_err", "r", "r_err"]
    assert (quality_cuts(plain, bands=("g", "r")) == "kept").sum() == 4


@pytest.mark.parametrize("epochs", [1, 2, {"g": 7, "r": 1}])
def test_any_number_of_epochs(tmp_path, epochs):
    """CM-02, CM-01: one exposure in each filter, or unequal numbers of them, make a diagram."""
    source = magnitudes_table("gr", epochs=epochs)
    made = diagram_night(night_of(tmp_path, source))
    table = read(tmp_path / "work" / "cmd.ecsv")
    assert made["status"].tolist() == ["made"]
    assert (table["cut"] == "kept").all() and np.isfinite(table["colour"]).all()


def test_membership_is_carried_into_the_table():
    """CM-06: probabilities and the distance from the middle of the members, row by row."""
    source = magnitudes_table("gr", n=60)
    p = np.where(np.arange(60) < 10, 0.9, 0.0)
    p[-1] = np.nan
    source["ra"][:10], source["dec"][:10] = 359.99, -5.0
    table = colour_magnitude_table(source, bands="gr", membership=SimpleNamespace(probability=p))
    assert table["membership"].mask.tolist() == [False] * 59 + [True]
    assert np.allclose(table["separation"][:10], 0, atol=1e-6)
    place = positions(table)
    assert np.allclose(table["separation"], place.separation(place[0]).arcmin, atol=1e-6)
    assert "separation" in colour_magnitude_table(source, bands="gr").colnames


# --- the stage -----------------------------------------------------------------------------------


def test_stage_finds_the_members(tmp_path):
    """CM-06, CM-02: members, motion and cuts in work/cmd.ecsv, and the figure beside it."""
    source = magnitudes_table("gri")
    # Another order, and stars that the magnitudes do not have: rows are found by their number.
    order = np.random.default_rng(3).permutation(N)
    night = night_of(tmp_path, source[:-5], stars=star_list(source)[order])
    made = diagram_night(night)
    assert made["file"].tolist() == ["cmd.ecsv"] and made["reason"].tolist() == [""]
    table = read(night.work / "cmd.ecsv")
    chosen = np.ma.filled(table["membership"], 0) >= 0.5
    assert chosen[:MEMBERS].mean() > 0.95 and chosen[MEMBERS:].mean() < 0.05
    assert table["membership"].mask.sum() == 15 and table["pm_ra"].unit == u.mas / u.yr
    told = table.meta["membership"]
    assert told["mean"]["pm_ra"] == pytest.approx(3, abs=4 * told["mean_err"]["pm_ra"])
    assert table.meta["bands"] == ["g", "i", "g"] and table["g"].meta["system"] == "PS1 AB"
    assert (night.work / "cmd.png").read_bytes()[:4] == b"\x89PNG"


def test_stage_is_made_once(tmp_path):
    """CM-02: nothing is made twice; other filters make another diagram, byte for byte the same."""
    source = magnitudes_table("gri")
    night = night_of(tmp_path, source)
    assert diagram_night(night)["status"].tolist() == ["made"]
    first = [(night.work / name).read_bytes() for name in ("cmd.ecsv", "cmd.png")]
    assert diagram_night(night)["status"].tolist() == ["current"]
    other = night_of(tmp_path, source, bands=("r", "i"))
    assert diagram_night(other)["status"].tolist() == ["made"]
    assert read(night.work / "cmd.ecsv").meta["bands"] == ["r", "i", "r"]
    assert diagram_night(night)["status"].tolist() == ["made"]
    assert [(night.work / name).read_bytes() for name in ("cmd.ecsv", "cmd.png")] == first


def test_night_of_one_filter_has_no_diagram(tmp_path, caplog):
    """CM-02: one filter is no failure: an empty table, the reason, and no old figure."""
    source = magnitudes_table("gr")
    night = night_of(tmp_path, source)
    diagram_night(night)
    assert (night.work / "cmd.png").is_file()
    night = night_of(tmp_path, magnitudes_table("r"))
    with caplog.at_level("INFO"):
        made = diagram_night(night)
    assert made["status"].tolist() == ["skipped"]
    assert made["reason"][0] == "a colour needs two filters, there is r"
    assert "no diagram: a colour needs two filters" in caplog.text
    table = read(night.work / "cmd.ecsv")
    assert len(table) == 0 and {"star", "colour", "magnitude"} <= set(table.colnames)
    assert not (night.work / "cmd.png").exists()
    mixed = night_of(tmp_path, magnitudes_table("gr", system=["PS1 AB", "instrumental"]))
    assert "in 2 magnitude systems" in diagram_night(mixed)["reason"][0]


def test_stage_without_magnitudes_or_with_a_wrong_filter(tmp_path):
    """CM-02: what is missing is an error that says what to do, before anything is written."""
    night = Night(name="test", raw=tmp_path, work=tmp_path / "work")
    with pytest.raises(DataredError, match=r"magnitudes.ecsv.*run the stage magnitudes"):
        diagram_night(night)
    night = night_of(tmp_path, magnitudes_table("gr"), bands=("g", "z"))
    with pytest.raises(DataredError, match=r"no magnitudes in 'z'"):
        diagram_night(night)
    assert not (night.work / "cmd.ecsv").exists()


@pytest.mark.parametrize("case", ["no list", "no motions", "no errors", "no rows", "no cluster"])
def test_e36_diagram_without_members(tmp_path, caplog, case):
    """CM-06, E36: without usable rows of a catalogue there is a diagram, and the reason is told."""
    source = magnitudes_table("gr")
    stars = star_list(source)
    if case == "no list":
        stars = None
    elif case == "no motions":
        stars = stars["star", "ra", "dec"]
    elif case == "no errors":
        stars = stars["star", "ra", "dec", "cat_pm_ra", "cat_pm_dec"]
    elif case == "no rows":
        for name in stars.colnames[3:]:
            stars[name].mask = np.arange(N) > 3
    else:
        stars = stars[MEMBERS:]
    with caplog.at_level("WARNING"):
        made = diagram_night(night_of(tmp_path, source, stars=stars))
    words = {
        "no list": "no star of the night was found in a catalogue",
        "no motions": "no star of the night was found in a catalogue",
        "no errors": "no column pm_ra_err and no pm_dec_err",
        "no rows": f"only 4 of {N} stars have a proper motion",
        "no cluster": "no group among the 260 stars stands out",
    }[case]
    assert made["status"].tolist() == ["made"] and words in made["reason"][0]
    assert "no membership: " in caplog.text
    table = read(tmp_path / "work" / "cmd.ecsv")
    assert table["membership"].mask.all() and (table["cut"] == "kept").all()
    assert table.meta["membership"]["reason"] == made["reason"][0]
    assert (tmp_path / "work" / "cmd.png").is_file()


def test_stage_with_a_fit(tmp_path, monkeypatch, caplog):
    """CM-02: with fit = true the kept stars and their probabilities go to the fit; both files."""
    seen = {}

    def fit_isochrone(table, *, grid, bands, membership, metallicity):
        seen.update(table=table, grid=grid, bands=bands, membership=membership)
        seen.update(metallicity=metallicity)
        return SimpleNamespace(
            samples=Table({"log_age": np.arange(6000.0), "a_v": np.zeros(6000)}),
            best={"age": 1.0, "distance": 2500 * u.pc, "metallicity": 0.0, "a_v": 0.1},
            summary=lambda: Table({"parameter": ["age"], "median": [1.0], "unit": ["Gyr"]}),
            bands=bands, limits=(13.0, 18.0), used=np.ones(len(table), bool), converged=False,
            acceptance=0.3, n_effective=900.0, source="test",
        )  # fmt: skip

    monkeypatch.setattr("datared.clusterfit.fit_isochrone", fit_isochrone)
    source = magnitudes_table(["i'", "g'"])
    source["g'_flags"][0], source["g'_err"][1] = SATURATED, 0.2
    night = night_of(tmp_path, source, stars=star_list(source), fit=True)
    made = diagram_night(night)
    assert made["file"].tolist() == ["cmd.ecsv", "isochrone.json"]
    assert made["status"].tolist() == ["made", "made"]
    assert seen["bands"] == ("g", "i") and dict(seen["grid"].bands) == {
        "g": "PS1 AB",
        "i": "PS1 AB",
    }
    # A large error is no fault: the fit has a limit of its own.
    assert read(night.work / "cmd.ecsv").meta["cuts"].keys() == {
        "saturated (g')",
        "large error (g')",
    }
    assert seen["metallicity"] == (0.0, 0.2)
    assert len(seen["table"]) == N - 1 and seen["table"]["g"].meta["system"] == "PS1 AB"
    assert np.isfinite(seen["membership"]).sum() == N - 1 - 20
    told = json.loads((night.work / "isochrone.json").read_text())
    assert told["best"]["distance"] == 2500 and told["summary"]["age"]["median"] == 1.0
    samples = read(night.work / "posterior.ecsv")
    # Fewer are enough, from the whole chain, in their order.
    assert len(samples) == 5000 and (np.diff(samples["log_age"]) > 0).all()
    assert samples["log_age"].mean() == pytest.approx(2999.5, rel=0.02)
    # A chain that has not converged is told of at every run.
    for again in (made, diagram_night(night)):
        assert "the chain is too short" in again["reason"][1]
    assert caplog.text.count("the chain is too short") == 2
    assert again["status"].tolist() == ["current", "current"]
    # A night that asks for no fit has none left.
    diagram_night(night_of(tmp_path, source))
    assert not (night.work / "isochrone.json").exists()
    # A list with motions of the bright stars only must not leave the others out of the fit.
    motions = star_list(source)
    motions["cat_pm_ra"].mask[40:] = True
    diagram_night(night_of(tmp_path, source, stars=motions, fit=True))
    assert seen["membership"] is None and len(seen["table"]) == N - 1


@pytest.mark.parametrize(("filters", "words"), [("gi", "'instrumental'"), (("Ha", "r"), "'Ha'")])
def test_stage_with_a_fit_that_cannot_be(tmp_path, filters, words):
    """CM-02: instrumental magnitudes have no isochrones: a diagram, and a fit that failed."""
    source = magnitudes_table(filters, system="instrumental")
    made = diagram_night(night_of(tmp_path, source, fit=True))
    assert made["status"].tolist() == ["made", "failed"]
    assert words in made["reason"][1]


# --- figures -------------------------------------------------------------------------------------


def cut_table():
    """A table with members, motions and five stars that are cut."""
    source = magnitudes_table("gr")
    source["g_flags"][[0, 1, 2]] = SATURATED, NEIGHBOUR, NEIGHBOUR
    source["r_err"][3] = 0.3
    source["g"].mask[4] = True
    stars = star_list(source, prefix="")
    table = colour_magnitude_table(source, bands="gr", membership=membership(stars))
    for name in stars.colnames[3:]:
        table[name] = stars[name]
    return table


def test_cuts_are_shown():
    """CM-02: the figure has every star that was measured, and the number of each cut."""
    ax = show_cuts(cut_table())
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[0] == f"kept ({N - 5})"
    assert sorted(names[1:]) == [
        "large error (1)", "neighbour (2)", "not measured (1)", "saturated (1)",
    ]  # fmt: skip
    drawn = {line.get_label(): line for line in ax.lines}
    assert len(drawn["neighbour (2)"].get_xdata()) == 2
    markers = {line.get_marker() for label, line in drawn.items() if label in names}
    assert len(markers) == 4
    assert ax.yaxis_inverted() and ax.get_ylabel() == "g (mag, PS1 AB)"
    assert ax.get_xlabel() == "g - r (mag)"
    ax.figure.canvas.draw()


def test_before_and_after():
    """CM-06: the same axes before and after; what is kept has the colour of its probability."""
    table = cut_table()
    keep = (table["membership"] > 0.5) & (table["separation"] < 5)
    before, after = diagram_before_after(table, keep)
    expected = np.sum(np.ma.filled(keep, False) & (table["cut"] == "kept"))
    assert before.get_title() == f"all stars ({N - 5})"
    assert after.get_title() == f"members ({expected})" and 20 < expected < MEMBERS
    assert before.get_xlim() == after.get_xlim() and before.get_ylim() == after.get_ylim()
    dots = after.collections[0]
    assert len(dots.get_offsets()) == expected and dots.get_cmap().name == "cividis_r"
    for ax in (before, after):
        assert ax.get_xlabel() == "g - r (mag)" and ax.get_ylabel() == "g (mag, PS1 AB)"
    bar = after.figure.axes[-1]
    assert bar.get_ylabel() == "probability to be a member"
    without = table.copy()
    without["membership"].mask = True
    assert not diagram_before_after(without, np.ones(N, bool))[1].collections


def test_motions_before_and_after():
    """CM-06: all proper motions, then the members among them; east is at the left."""
    table = cut_table()
    axes = plt.figure().subplots(1, 2)
    before, after = motions_before_after(table, table["membership"] >= 0.5, axes=axes)
    assert before is axes[0] and after is axes[1]
    assert before.get_title() == f"all stars ({N - 20})"
    assert len(after.lines[1].get_xdata()) == pytest.approx(MEMBERS, abs=8)
    assert before.get_xlim()[0] > before.get_xlim()[1] and before.get_xlim() == after.get_xlim()
    for ax in axes:
        assert "mas/yr" in ax.get_xlabel() and "mas/yr" in ax.get_ylabel()
    motions_before_after(table[:0], np.zeros(0, bool))[0].figure.canvas.draw()


def test_figure_of_a_night():
    """CM-06, CM-02: four panels with members, one without; no window and no global state."""
    table = cut_table()
    figure = night_figure(table)
    assert len(figure.axes) == 5 and not plt.get_fignums()
    figure.canvas.draw()
    plain = table.copy()
    plain.remove_column("pm_ra")
    table["membership"].mask = True
    for other in (plain, table):
        assert len(night_figure(other).axes) == 1


def test_colours_of_the_cuts_are_safe():
    """CM-02: only the colours that colour-blind readers tell apart are used."""
    ax = show_cuts(cut_table())
    names = [text.get_text() for text in ax.get_legend().get_texts()[1:]]
    used = [to_hex(line.get_color()).upper() for line in ax.lines if line.get_label() in names]
    assert len(set(used)) == 4 and set(used) <= {c.upper() for c in COLOURS.values()}


# --- the simulated night -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(once, cluster_toml):
    """The simulated cluster night, reduced (shared with the tests of the truth), with a diagram."""
    night = reduced(once, "cluster", cluster_toml, ("magnitudes", "stack"))

    def make(folder):
        for name in ("magnitudes.ecsv", "stars.ecsv"):
            shutil.copy(night.work / name, folder)
        diagram_night(replace(night, work=folder))

    return replace(night, work=once("cluster-diagram", make))


def with_truth(night):
    """Rows of the diagram and of the truth that are the same star."""
    table, truth = read(night.work / "cmd.ecsv"), Table.read(night.truth / "stars.ecsv")
    i, j, _ = match(positions(table), positions(truth), radius=1 * u.arcsec)
    return table[i], truth[j]


@pytest.mark.slow
def test_cmd_truth(cluster):
    """CM-02: single members stand within 0.03 mag of the isochrone that they were made from."""
    table, truth = with_truth(cluster)
    made = json.loads((cluster.truth / "parameters.json").read_text())
    model = isochrone(
        age=made["age"], metallicity=made["metallicity"], a_v=made["a_v"],
        distance=made["distance"] * u.pc,
    )  # fmt: skip
    main = model[model["phase"] == 1][::-1]
    single = np.asarray((table["cut"] == "kept") & truth["member"] & ~truth["binary"])
    g, colour = (np.ma.filled(table[name], np.nan) for name in ("magnitude", "colour"))
    offset = colour - np.interp(g, main["g"], main["g"] - main["i"])
    error = np.asarray(table["colour_err"])
    # Above g = 14.7 the turn-off is too steep for a colour at a magnitude.
    for low in (14.7, 16.0, 17.0, 18.0):
        some = single & (g > low) & (g < low + 1)
        # The noise of a median of so many stars, and 0.005 mag of two zero points: well below 0.03.
        assert some.sum() >= 10
        assert 1.25 * np.median(error[some]) / np.sqrt(some.sum()) + 0.007 < 0.03
        assert abs(np.median(offset[some])) < 0.03
    bright = single & (g > 14.7) & (g < 17)
    assert 1.4826 * np.median(np.abs(offset[bright])) < 0.03


@pytest.mark.slow
def test_membership_of_the_simulated_night(cluster):
    """CM-06: of the stars called members 90 % are, and 90 % of the members are called so."""
    table, truth = with_truth(cluster)
    known = ~np.ma.getmaskarray(table["membership"])
    chosen, member = np.ma.filled(table["membership"], 0) >= 0.5, np.asarray(truth["member"])
    assert (chosen & member).sum() / chosen.sum() >= 0.9
    assert (chosen & member).sum() / (member & known).sum() >= 0.9
    told = table.meta["membership"]
    for name in NAMES:
        true = np.mean(truth[name][member & known])
        assert abs(told["mean"][name] - true) < 4 * told["mean_err"][name]


def test_stage_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    """CM-02: no stage needs the diagram; a wrong filter is a problem of this stage alone."""
    night = night_of(tmp_path, magnitudes_table("gr"), bands=("g", "z"))
    frames = Table({"file": ["a.fits"], "problem": [""], "warning": [""]})
    monkeypatch.setattr(pipeline, "inventory", lambda night: frames)
    monkeypatch.setattr(pipeline, "_require_lights", lambda frames, night: None)
    done = Table({"file": ["a.fits"], "status": ["made"], "reason": [""]})
    stages = {name: FakeStage(pipeline.STAGES[name], done) for name in pipeline.STAGES}
    stages["diagram"] = pipeline.STAGES["diagram"]
    monkeypatch.setattr(pipeline, "STAGES", stages)
    result = pipeline.run(night)
    assert list(result.tables) == [name for name in stages if name != "diagram"]
    (row,) = result.problems
    assert row["stage"] == "diagram" and "no magnitudes in 'z'" in row["reason"]
    with pytest.raises(DataredError, match="'z'"):
        pipeline.run(night, upto="diagram")


class FakeStage:
    """A stage that is done already."""

    def __init__(self, stage, table):
        self.needs, self.does, self.table = stage.needs, stage.does, table

    def __call__(self, night, *, executor):
        """Give the table."""
        return self.table
