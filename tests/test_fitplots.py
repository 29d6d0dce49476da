"""Figures of a fitted isochrone: corner of the posterior, and diagram with its isochrones."""

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.axes import Axes

from datared.errors import DataredError
from datared.fitplots import posterior_corner, posterior_diagram
from datared.isochronegrid import embedded_grid


@pytest.fixture(scope="module")
def samples():
    """Samples of a posterior in which the distance and the extinction hang together."""
    rng, n = np.random.default_rng(1), 4000
    table = Table({"log_age": 9.0 + rng.normal(0, 0.01, n), "metallicity": np.zeros(n)})
    table["a_v"] = 0.4 + rng.normal(0, 0.05, n)
    table["distance_modulus"] = 12.0 + 0.9 * (table["a_v"] - 0.4) + rng.normal(0, 0.02, n)
    return table


def test_corner_shows_what_varies(samples):
    """Three parameters, a metallicity that was held, and labels with units at the edges only."""
    axes = posterior_corner(samples)
    assert axes.shape == (3, 3)
    assert [ax.get_xlabel() for ax in axes[-1]] == [
        "log age (yr)",
        "distance\nmodulus (mag)",
        "$A_V$ (mag)",
    ]
    assert not axes[0, 1].get_visible() and axes[1, 0].get_visible()
    assert axes[0, 0].get_title() == "8.9999 ± 0.0099"
    axes[0, 0].figure.canvas.draw()


def test_contours_hold_68_and_95_percent(samples):
    """So many of the samples are inside, but for the corners that straight pieces cut."""
    ax = posterior_corner(samples, names=["distance_modulus", "a_v"])[1, 0]
    (contours,) = ax.collections
    paths = contours.get_paths()
    points = np.column_stack([samples["distance_modulus"], samples["a_v"]])
    inner = np.mean(paths[1].contains_points(points))
    outer = np.mean(paths[0].contains_points(points))  # That of the ring takes its hole in.
    assert inner == pytest.approx(0.68, abs=0.03)
    assert outer == pytest.approx(0.95, abs=0.02)


def test_truth_is_marked_and_in_the_frame(samples):
    """A truth far from the samples widens the axes."""
    axes = posterior_corner(samples, truth={"log_age": 9.2, "a_v": 0.4})
    assert axes[0, 0].get_xlim()[1] > 9.2 and axes[2, 0].get_xlim()[1] > 9.2
    assert len(axes[2, 0].lines) == 1 and len(axes[1, 0].lines) == 0


@pytest.mark.parametrize("name", ["nothing", "metallicity"])
def test_corner_refuses_what_it_cannot_show(samples, name):
    """A column that is not there, and one that does not vary."""
    with pytest.raises(DataredError, match=name):
        posterior_corner(samples, names=[name])
    with pytest.raises(DataredError, match="no parameter"):
        posterior_corner(samples[["metallicity"]])


def test_diagram_with_isochrones_of_the_posterior(samples):
    """Bright stars are at the top, isochrones are broken at the tip of the giants."""
    grid = embedded_grid(bands=("g", "i"))
    rng = np.random.default_rng(2)
    i = rng.uniform(13, 18, 60)
    table = Table({"g": i + rng.uniform(0.2, 1.5, 60), "i": i})
    for band in "gi":
        table[band].meta["system"] = "PS1 AB"
    table["g"][3] = np.nan
    probability = np.where(np.arange(60) < 40, 0.9, np.nan)
    ax = posterior_diagram(
        table, samples, grid=grid, bands=("g", "i"), probability=probability, n=5
    )
    assert isinstance(ax, Axes)
    assert ax.get_xlabel() == "g − i (mag, PS1 AB)" and ax.get_ylabel() == "i (mag, PS1 AB)"
    bottom, top = ax.get_ylim()
    assert bottom > 17.9 > 13.1 > top
    grey, blue, *curves = ax.lines
    assert (len(blue.get_xdata()), len(grey.get_xdata())) == (39, 20)
    assert len(curves) == 5 and all(np.isnan(line.get_xdata()).any() for line in curves)
    assert "5 isochrones of the posterior" in [t.get_text() for t in ax.get_legend().get_texts()]
    # The main sequence is where the grid has it.
    model = grid.at(1.0, 0.0, a_v=0.4)
    x, y = curves[0].get_xdata(), curves[0].get_ydata()
    k = np.nanargmin(abs(y - 17.0))
    wanted = np.interp(17.0 - 12.0, model["i"][:150][::-1], (model["g"] - model["i"])[:150][::-1])
    assert x[k] == pytest.approx(wanted, abs=0.1)
