"""Figures of variable and moving sources: what is drawn is what the tables say."""

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.figure import Figure

from datared.errors import ConfigError
from datared.movers import moving_sources
from datared.variability import star_curves, variable_stars
from datared.variabilityplots import (
    folded_curves,
    mover_motion,
    movers_figure,
    variable_scatter,
    variables_figure,
)
from tests.variablenights import EPS, light, night


@pytest.fixture(scope="module")
def varied():
    """Curves and table of a night with one variable star, number 41."""
    curves = star_curves(light(1, variable=41))
    return curves, variable_stars(curves)


@pytest.fixture(scope="module")
def moved():
    """Movers and detections of a night with one mover."""
    return moving_sources(*night(1, rate=0.5), eps=EPS)


def lines_of(ax):
    """Lines of an axes by their label."""
    return {line.get_label(): line for line in ax.get_lines()}


def test_scatter_curve_figure_names_the_variable_star(varied):
    """LC-07, 004-22: all stars, the running median, the expected noise; the variable is named."""
    _, table = varied
    ax = variable_scatter(table, ax=Figure().subplots())
    lines = lines_of(ax)
    assert {"stars", "running median", "from the errors", "variable"} <= set(lines)
    assert len(lines["stars"].get_xdata()) == len(table)
    assert lines["variable"].get_xdata().tolist() == [table["magnitude"][41]]
    assert lines["variable"].get_ydata().tolist() == [table["scatter"][41]]
    assert [text.get_text() for text in ax.texts] == ["41"]
    assert ax.get_yscale() == "log"
    assert "mag" in ax.get_xlabel() and "mag" in ax.get_ylabel()
    # Among stars as bright as they are, the curves run through the stars.
    typical = lines["running median"]
    assert np.all(np.diff(typical.get_xdata()) > 0)
    own = np.interp(table["magnitude"], typical.get_xdata(), typical.get_ydata())
    assert np.median(np.abs(np.log(np.asarray(table["scatter"]) / own))) < 0.2


def test_variables_folded_curve_has_the_phase_of_the_period(varied):
    """LC-07, MV-03: the folded curve of the variable star follows its sine; bright is up."""
    curves, table = varied
    figure = Figure()
    axes = folded_curves(curves, table, stars=[41], axes=[figure.subplots()])
    assert len(axes) == 1
    sine = lines_of(axes[0])["sine"]
    assert np.ptp(sine.get_ydata()) / 2 == pytest.approx(0.1, abs=0.01)
    points = axes[0].containers[0].lines[0]
    model = np.interp(points.get_xdata(), sine.get_xdata(), sine.get_ydata())
    # Cosmic rays are left out; what remains is the noise of the star.
    assert np.std(points.get_ydata() - model) < 1.5 * table["expected"][41]
    assert axes[0].yaxis_inverted()
    assert f"{table['period'][41]:.4f} d" in axes[0].get_title()
    three = folded_curves(curves, table)
    assert len(three) == 3
    assert "star 41" in three[0].get_title()


def test_variables_folded_curve_without_a_period():
    """LC-07, MV-03: five frames have no period: empty axes, no failure; a wrong star is named."""
    curves = star_curves(light(1, n_epoch=5))
    table = variable_stars(curves)
    assert np.isnan(table["period"]).all() and 3 in table["rank"]
    axes = folded_curves(curves, table, axes=Figure().subplots(1, 3))
    assert [ax.get_title().split(": ")[1] for ax in axes] == 3 * ["no period"]
    assert not any(ax.has_data() for ax in axes)
    with pytest.raises(ConfigError, match=r"no star \[999\]"):
        folded_curves(curves, table, stars=[3, 999])


def test_moving_figure_has_the_fit_and_its_residuals(moved):
    """MV-02, 004-20: RA and Dec against time with the fitted line, the residuals below."""
    movers, detections = moved
    axes = mover_motion(movers[0], detections)
    assert len(axes) == 4
    for ax, rate in zip(axes[:2], ("rate_ra", "rate_dec"), strict=True):
        lines = lines_of(ax)
        points, line = lines.pop("detections"), lines.popitem()[1]
        x, y = line.get_xdata(), line.get_ydata()
        assert np.diff(y)[0] / np.diff(x)[0] == pytest.approx(movers[rate][0])
        away = points.get_ydata() - np.interp(points.get_xdata(), x, y)
        assert np.std(away) < 1.5 * movers["scatter"][0]
        assert abs(np.mean(away)) < 1e-6
    assert "arcsec" in axes[0].get_ylabel() and "min" in axes[2].get_xlabel()
    rest = axes[2].get_lines()[0].get_ydata()
    assert np.allclose(rest, detections["residual_east"])


def test_variables_figures_of_a_night(varied, moved, tmp_path):
    """LC-07, 004-20, 004-22: the figures of the stage are written, also where nothing was found."""
    curves, table = varied
    none = table.copy()
    none["class"] = "stable"
    figures = [
        variables_figure(curves, table),
        variables_figure(curves, none),
        movers_figure(*moved),
        movers_figure(moved[0][:0], moved[1][:0]),
    ]
    for k, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{k}.png")
        assert (tmp_path / f"{k}.png").stat().st_size > 2000
    assert len(figures[0].get_axes()) == 2
    assert len(figures[1].get_axes()) == 1
    assert figures[3].texts[0].get_text() == "no moving source was found"
    empty = Table(table[:0], copy=True)
    assert len(variables_figure(curves, empty).get_axes()) == 1
