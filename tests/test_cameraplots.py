"""Figures of the camera draw what they are given, on the axes they are given."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from datared import plots
from datared.cameraplots import (
    dark_arrhenius,
    dark_time,
    flat_ratio_map,
    hot_histogram,
    linearity_plot,
)
from datared.darkcurrent import dark_current, dark_temperature, hot_pixels
from datared.distortionmap import distortion_map
from datared.flatratio import compare_flats
from datared.instrument import frame_wcs
from datared.linearity import measure_linearity

RNG = np.random.default_rng(1)
TIMES = np.array([1.0, 2, 4, 8, 12, 16, 20, 24])
LEVELS = np.minimum(2500 * TIMES * (1 - 4e-7 * 2500 * TIMES), 50_000)
LINEARITY = measure_linearity(TIMES, LEVELS, errors=np.full(8, 20.0))
DARK_TIMES = np.repeat([0.0, 60, 120, 300], 3)
DARKS = 0.3 * DARK_TIMES + RNG.normal(0, 0.1, 12)
DARKS[4] = 60
CURRENT = dark_current(DARK_TIMES, DARKS, errors=np.full(12, 0.1), gain=0.5)
WARMING = dark_temperature(
    [-20, -10, 0, 10], [0.025, 0.1, 0.35, 1.1], errors=[0.003, 0.003, 0.01, 0.03], at=0
)
FRAMES = RNG.normal(500, 5, (3, 64, 96))
FRAMES[:, [5, 20, 40], [7, 30, 80]] += [100, 1000, 10_000]
HOT = hot_pixels(FRAMES, exptime=100, gain=0.5)
FLATS = RNG.normal(20_000, 100, (2, 120, 160))
FLATS[0, 40:52, 100:112] *= 0.95
FLATS[1] *= np.linspace(0.99, 1.01, 160)
RATIO = compare_flats(*FLATS, regions=(2, 4))
DRAWN = {
    "dark_time": (dark_time, CURRENT),
    "dark_arrhenius": (dark_arrhenius, WARMING),
    "hot_histogram": (hot_histogram, HOT),
    "flat_ratio_map": (flat_ratio_map, RATIO),
}


def texts(ax):
    """Entries of the legend."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("name", DRAWN)
def test_camera_figures_draw_on_given_axes(name):
    """The axes are returned, with a label and a unit on both; no other figure appears."""
    function, data = DRAWN[name]
    figure, ax = plt.subplots()
    assert function(data, ax=ax) is ax and len(plt.get_fignums()) == 1
    assert ax.get_xlabel().endswith(")") and (ax.get_ylabel().endswith((")", "pixels")))
    figure.canvas.draw()
    own = function(data)
    assert own.figure is not figure and len(plt.get_fignums()) == 2
    own.figure.canvas.draw()


def test_linearity_plot_has_the_line_and_the_residuals():
    """CC-02: points, those left out, the full well, and the deviations in percent below."""
    upper, lower = linearity_plot(LINEARITY)
    upper.figure.canvas.draw()
    used = LINEARITY.used
    x, y = upper.containers[0].lines[0].get_data()
    assert np.array_equal(x, TIMES[used]) and np.array_equal(y, LEVELS[used])
    assert any(text.startswith("full well 500") for text in texts(upper))
    assert {"left out", "linear camera", "flats"} < set(texts(upper))
    x, y = lower.containers[0].lines[0].get_data()
    assert x == pytest.approx(LEVELS[used]) and y == pytest.approx(100 * LINEARITY.residuals[used])
    # The curve passes through the points; full pixels do not squeeze it.
    curve = next(line for line in lower.lines if line.get_label() == "fitted curve")
    assert np.interp(x, *curve.get_data()) == pytest.approx(y, abs=0.1)
    assert -6 < lower.get_ylim()[0] < -2
    assert "ADU" in upper.get_ylabel() and lower.get_ylabel() == "deviation (%)"
    axes = plt.figure().subplots(2)
    assert linearity_plot(LINEARITY, axes=axes) == tuple(axes)


def test_dark_time_names_the_rate():
    """The line has the slope of the fit, the legend its number; what is left out is a cross."""
    ax = dark_time(CURRENT, label="-10 °C")
    line = ax.lines[0]
    assert np.ptp(line.get_ydata()) == pytest.approx(300 * CURRENT.rate)
    assert any(text.startswith("-10 °C: 0.15") for text in texts(ax))
    assert texts(ax)[-1].endswith("e-/s") and "left out" in texts(ax)
    cross = next(line for line in ax.lines if line.get_marker() == "x")
    assert list(cross.get_data()) == [[60], [60]]
    count = len(ax.containers)
    dark_time(CURRENT, ax=ax)
    colours = [c.lines[0].get_color() for c in ax.containers]
    assert len(ax.containers) == 2 * count and len(set(colours)) == 2


def test_dark_arrhenius_names_energy_and_doubling():
    """The law goes through the points, the rate is logarithmic, the legend has the numbers."""
    ax = dark_arrhenius(WARMING, unit="e-/s")
    ax.figure.canvas.draw()
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "dark current (e-/s)"
    x, y = ax.lines[0].get_data()
    assert np.interp(0, x, y) == pytest.approx(WARMING.rate, rel=1e-3)
    assert "eV\ndoubles in" in texts(ax)[0] and texts(ax)[0].endswith("K at 0 °C")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert "0.1" in labels and "0.5" in labels


def test_dark_arrhenius_without_a_rate():
    """A rate below zero has no place on a logarithmic scale; the others have theirs."""
    rates, errors = [-0.001, 0.1, 0.35, 1.1], [0.003, 0.003, 0.01, 0.03]
    ax = dark_arrhenius(dark_temperature([-40, -10, 0, 10], rates, errors=errors))
    assert len(ax.containers[0].lines[0].get_xdata()) == 3


def test_hot_histogram_counts_down():
    """At each rate the curve is the number of hotter pixels, from all of them to the last."""
    ax = hot_histogram(HOT, label="-10 °C")
    x, y = ax.lines[0].get_data()
    assert x == pytest.approx([HOT.limit, 0.5, 5, 50], rel=0.2) and list(y) == [3, 3, 2, 1]
    # A step has the height of its right end: between 0.5 and 5 e-/s two are hotter.
    assert ax.lines[0].get_drawstyle() == "steps-pre"
    assert texts(ax) == ["-10 °C: 3 of 6144 pixels"]
    ax.figure.canvas.draw()
    (share,) = ax.child_axes
    labels = [label.get_text() for label in share.get_yticklabels()]
    assert share.get_ylabel() == "share of all pixels (%)" and "0.02" in labels
    hot_histogram(HOT, ax=ax)
    assert (
        len({line.get_linestyle() for line in ax.lines if line.get_drawstyle() == "steps-pre"}) == 2
    )
    none = hot_pixels(FRAMES[:, 41:, :29], exptime=100)
    assert hot_histogram(none).get_legend() is not None


def test_flat_ratio_map_has_numbers_and_circles():
    """CC-03: the figure exists: colours in percent, a number in each region, a circle per spot."""
    ax = flat_ratio_map(RATIO)
    ax.figure.canvas.draw()
    assert np.asarray(ax.images[0].get_array()) == pytest.approx(100 * (RATIO.smoothed - 1))
    assert ax.images[0].norm.vmin == -ax.images[0].norm.vmax
    assert len(ax.texts) == 8 and len(ax.patches) == len(RATIO.spots) == 1
    assert ax.patches[0].center == pytest.approx((106, 46), abs=2)
    first = float(ax.texts[0].get_text().split("\n")[0])
    assert first == pytest.approx(100 * (RATIO.regions["ratio"][0] - 1), abs=0.01)
    bare = flat_ratio_map(RATIO, numbers=False, limit=2.0)
    assert not bare.texts and bare.images[0].norm.vmax == 2.0


def test_distortion_figure_of_a_map():
    """CC-04: the figure exists: arrows of a map without its linear part, with its error."""
    field = distortion_map(frame_wcs((60, 80), ra=30, dec=20, scale=1, rotation=4))
    ax = plots.distortion_map(field)
    ax.figure.canvas.draw()
    arrows = next(one for one in ax.collections if hasattr(one, "U"))
    rows = [
        np.argmin(np.hypot(field.x - x, field.y - y))
        for x, y in zip(arrows.X, arrows.Y, strict=True)
    ]
    assert 0 < min(arrows.X) and max(arrows.X) < 79 and 0 < min(arrows.Y) and max(arrows.Y) < 59
    assert pytest.approx(field.dx.flat[rows]) == arrows.U
    assert pytest.approx(field.dy.flat[rows]) == arrows.V
    mesh = np.asarray(ax.collections[0].get_array()).ravel()
    assert mesh == pytest.approx(100 * (np.sqrt(field.area.ravel()) - 1))
    ax = plots.distortion_map(replace(field, error=np.full(field.x.shape, 0.02)))
    key = next(one for one in ax.artists if hasattr(one, "text"))
    assert key.text.get_text().endswith("px, errors 0.02 px")
