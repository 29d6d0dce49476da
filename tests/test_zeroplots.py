"""Figures of zero points: they show what was given, with units, and change no input."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from datared import charts, zeroplots
from datared.zeropointfit import fit_zero_points

RNG = np.random.default_rng(5)
COLOUR = RNG.uniform(0, 2, 80)
CATALOGUE = RNG.uniform(12, 16, 80)
AIRMASS = np.array([1.0, 1.2, 1.5, 1.9])
ERROR = np.full((80, 4), 0.01)
INSTRUMENTAL = (CATALOGUE - 0.05 * COLOUR)[:, None] - (24 - 0.2 * AIRMASS)
INSTRUMENTAL = INSTRUMENTAL + RNG.normal(0, 0.01, (80, 4))
INSTRUMENTAL[3] -= 0.5
FOUND = fit_zero_points(INSTRUMENTAL, ERROR, CATALOGUE, colour=COLOUR, airmass=AIRMASS)
X, Y = RNG.uniform(0, 100, (2, 80))

CALLS = {
    "zero_point_colour": (
        (COLOUR, CATALOGUE - INSTRUMENTAL[:, 0]),
        {"value": FOUND.zero_point[0], "term": FOUND.colour_term, "used": FOUND.used[:, 0]},
    ),
    "zero_point_residuals": (
        (CATALOGUE[:, None], FOUND.residual),
        {"error": ERROR, "used": FOUND.used},
    ),
    "zero_point_position": ((X, Y, FOUND.residual[:, 1]), {}),
    "zero_point_trend": (
        (AIRMASS, FOUND.zero_point),
        {"error": FOUND.error, "lines": {"": (FOUND.zero_point_0, FOUND.extinction)}},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_zero_point_figures_exist(name):
    """ZP-07, ZP-06: every figure is drawn on the axes given, with units, and NaN is no harm."""
    assert set(CALLS) == set(zeroplots.__all__)
    args, options = CALLS[name]
    before = [np.array(a, copy=True) for a in args]
    draw = getattr(zeroplots, name)
    _, ax = plt.subplots()
    assert draw(*args, **options, ax=ax) is ax
    assert isinstance(draw(*args), Axes)  # A new figure, with nothing but the data.
    assert all("(" in text or text == "airmass" for text in (ax.get_xlabel(), ax.get_ylabel()))
    for old, new in zip(before, args, strict=True):
        assert np.array_equal(old, new, equal_nan=True)
    empty = [np.full(np.shape(a), np.nan) for a in args]
    draw(*empty)
    ax.figure.canvas.draw()


def test_difference_against_magnitude_exists():
    """ZP-07: the fourth figure, difference against magnitude, shows used and left-out stars."""
    difference = CATALOGUE - INSTRUMENTAL[:, 0]
    ax = charts.zero_point(CATALOGUE, difference, used=FOUND.used[:, 0])
    assert "left out (1)" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_colour_term_figure_shows_the_slope():
    """ZP-06: the line has the slope and the zero point; the outlier is a cross."""
    args, options = CALLS["zero_point_colour"]
    ax = zeroplots.zero_point_colour(*args, **options)
    line = ax.lines[-1]
    slope = np.diff(line.get_ydata()) / np.diff(line.get_xdata())
    assert slope[0] == pytest.approx(FOUND.colour_term)
    assert [len(part.get_xdata()) for part in ax.lines[:2]] == [79, 1]
    # 79 stars over 2 mag, each known to 0.005: the slope to 0.001.
    assert slope[0] == pytest.approx(0.05, abs=0.004)


def test_trend_takes_off_medians_and_days():
    """ZP-07: filters share an axis; dates lose their whole day; frames without a value are out."""
    x = 2460566.25 + np.array([0.0, 0.1, 0.2, 0.3])
    ax = zeroplots.zero_point_trend(
        x, [22.0, 21.0, np.nan, 21.2], filters=list("grgr"), label="JD_UTC (d)"
    )
    data = [container.lines[0] for container in ax.containers]
    assert np.allclose(data[0].get_xdata(), [0.25]) and np.allclose(data[0].get_ydata(), [0.0])
    assert np.allclose(data[1].get_ydata(), [-0.1, 0.1])
    assert ax.get_xlabel() == "JD_UTC (d) - 2460566"
    many = zeroplots.zero_point_trend(np.arange(9.0), np.arange(9.0), filters=list("ugrizyBVR"))
    assert len(many.containers) == 9  # More filters than colours.
    line = zeroplots.zero_point_trend(*CALLS["zero_point_trend"][0], lines={"": (24.0, 0.2)})
    assert np.allclose(line.lines[-1].get_ydata(), [23.8, 23.62])


def test_residual_figure_shows_width_and_expectation():
    """ZP-07: the running width of 320 residuals is the noise; the band is the stated error."""
    args, options = CALLS["zero_point_residuals"]
    ax = zeroplots.zero_point_residuals(*args, **options)
    low, high = (line.get_ydata() for line in ax.lines if line.get_linestyle() == "--")
    # Twelve groups of 26: each width known to 20 %, their mean to 6 %.
    assert np.mean(high - low) / 2 == pytest.approx(0.01, rel=0.2)
    assert len(ax.collections) == 1
