"""Figures of light curves: they show what was given, with units, and bear gaps and odd values."""

import inspect

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from datared import curveplots
from datared.rednoise import red_noise

RNG = np.random.default_rng(4)
N = 60
TIME = 2460587.35 + np.arange(N) / 480
FLUX = np.array([3e4, 5e3, 1e3])[:, None] * (1 + RNG.normal(0, 0.01, (3, N)))
NOISE = red_noise(TIME, RNG.normal(0, 0.003, N))


def curve():
    """A light curve with the columns that trends are drawn of."""
    table = Table({"bjd_tdb_mid": TIME, "flux": FLUX[0] / 3e4, "airmass": 1 + np.arange(N) / 90})
    table["fwhm"], table["sky"] = 3 + RNG.normal(0, 0.1, N), 100.0
    table["x"], table["y"] = np.where(np.arange(N) > 35, 900.0, 100.0), np.nan
    table["flipped"] = np.arange(N) > 35
    return table


CALLS = {
    "light_curve": ((TIME, FLUX[0] / 3e4), {}),
    "trend": ((TIME, FLUX[0]), {"label": "sky (counts)"}),
    "raw_curves": ((TIME, FLUX), {}),
    "comparison_curves": ((TIME, FLUX), {}),
    "bin_scatter": ((NOISE,), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_curve_figures_exist(name):
    """LC-02, LC-08: each figure is drawn on the axes given, has units, and changes no input."""
    assert {*CALLS, "trends"} == set(curveplots.__all__)
    args, options = CALLS[name]
    before = [np.array(a, copy=True) for a in args if a is not NOISE]
    draw = getattr(curveplots, name)
    _, ax = plt.subplots()
    assert draw(*args, **options, ax=ax) is ax
    assert isinstance(draw(*args, **options), Axes) and len(plt.get_fignums()) == 2
    plain = ("relative flux", "flux (star", "star / ensemble")
    labels = (ax.get_xlabel(), ax.get_ylabel())
    assert all("(" in text or text.startswith(plain) for text in labels)
    for old, new in zip(before, args, strict=False):
        assert np.array_equal(old, new)
    for parameter in list(inspect.signature(draw).parameters.values())[len(args) :]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ax.figure.canvas.draw()


def drawn(ax):
    """The values of the points drawn for each star, in the order of the stars."""
    return [np.asarray(line.get_ydata(), float) for line in ax.lines if len(line.get_ydata()) == N]


def test_raw_curves_as_flux_and_as_magnitudes():
    """LC-02: fluxes over the median, or magnitudes on an axis that is turned round."""
    ax = curveplots.raw_curves(TIME, FLUX, step=0.1, names=["a", "b", "c"])
    assert not ax.yaxis_inverted() and "shifted" in ax.get_ylabel()
    for k, values in enumerate(drawn(ax)):
        assert np.allclose(values, FLUX[k] / np.median(FLUX[k]) + 0.1 * k)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["c", "b", "a"]
    ax = curveplots.raw_curves(TIME, FLUX, kind="magnitude")
    assert ax.yaxis_inverted() and "shifted" not in ax.get_ylabel()
    for k, values in enumerate(drawn(ax)):
        assert np.allclose(values, -2.5 * np.log10(FLUX[k]))
    # A second list on the same axes does not turn it back.
    assert curveplots.raw_curves(TIME, FLUX, kind="magnitude", ax=ax).yaxis_inverted()
    # Upwards is brighter: the shift makes a magnitude smaller.
    ax = curveplots.raw_curves(TIME, FLUX, kind="magnitude", step=1.0)
    assert np.allclose(drawn(ax)[2], -2.5 * np.log10(FLUX[2]) - 2)


def test_raw_curves_bear_negative_and_missing_fluxes():
    """LC-02, E29: a negative flux is drawn as flux, and counted where it has no magnitude."""
    odd = np.ma.array(FLUX.copy())
    odd[0, 3:6] = -20.0
    odd[1, 7] = np.nan
    odd[1, 8] = np.ma.masked
    odd[2] = np.nan
    ax = curveplots.raw_curves(TIME, odd)
    values = drawn(ax)
    assert np.all(values[0][3:6] < 0) and np.isnan(values[1][[7, 8]]).all()
    assert np.isfinite(values[1]).sum() == N - 2 and not np.isfinite(values[2]).any()
    ax = curveplots.raw_curves(TIME, odd, kind="magnitude")
    assert np.isnan(drawn(ax)[0][3:6]).all()
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert told == ["star 2", "star 1", "star 0 (3 without magnitude)"]
    ax.figure.canvas.draw()
    nothing = curveplots.raw_curves(np.full(N, np.nan), np.full((2, N), np.nan))
    nothing.figure.canvas.draw()
    curveplots.raw_curves(TIME, np.empty((0, N))).figure.canvas.draw()


def test_curves_refuse_what_does_not_fit():
    """A kind that is not known, shapes and names that differ: the error says what was found."""
    with pytest.raises(ValueError, match="kind 'counts' is not 'flux' or 'magnitude'"):
        curveplots.raw_curves(TIME, FLUX, kind="counts")
    for draw in (curveplots.raw_curves, curveplots.comparison_curves):
        with pytest.raises(ValueError, match=r"\(60, 3\) must be \(n_star, n_epoch = 60\)"):
            draw(TIME, FLUX.T)
        with pytest.raises(ValueError, match="2 names for 3 stars"):
            draw(TIME, FLUX, names=["a", "b"])


def test_comparison_curves_say_how_much_each_star_scatters():
    """LC-04: each star on its own level; the robust scatter of 1 % is in the legend."""
    ax = curveplots.comparison_curves(TIME, FLUX, names=[11, 12, 13], step=0.1)
    for k, values in enumerate(drawn(ax)):
        assert np.median(values) == pytest.approx(1 + 0.1 * k)
    for text in ax.get_legend().get_texts():
        # 60 points by the median deviation: known to 15 %.
        assert float(text.get_text().split(": ")[1].split()[0]) == pytest.approx(1.0, abs=0.4)
    # Without a step the stars do not overlap.
    free = drawn(curveplots.comparison_curves(TIME, FLUX))
    assert np.median(free[1]) - np.median(free[0]) > 4 * np.std(free[0])


def test_trends_draw_what_the_curve_has():
    """LC-08: one panel for each column with a value; flagged epochs and the flip are marked."""
    table = curve()
    table["fwhm"] = MaskedColumn(table["fwhm"], mask=np.arange(N) == 7)
    bad = np.arange(N) < 4
    axes = curveplots.trends(table, flagged=bad)
    labels = [ax.get_ylabel() for ax in axes]
    assert labels == ["relative flux", "airmass", "FWHM (px)", "sky (counts)", "x (px)"]
    assert axes[-1].get_xlabel() == "BJD_TDB - 2460587 (d)"
    for ax, name in zip(axes, ("flux", "airmass", "fwhm", "sky", "x"), strict=True):
        wanted = np.ma.filled(np.ma.asarray(table[name][~bad], float), np.nan)
        assert np.array_equal(ax.lines[0].get_ydata(), wanted, equal_nan=True)
        good, crosses, flip = ax.lines[:3]
        assert len(good.get_xdata()) == N - 4 and len(crosses.get_xdata()) == 4
        assert flip.get_xdata()[0] == pytest.approx(np.mean(TIME[35:37]) - 2460587)
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == ["flagged", "meridian flip"]
    axes[0].figure.canvas.draw()
    _, given = plt.subplots(2, 1)
    assert curveplots.trends(table, names=["airmass", "y"], axes=given) == list(given)
    with pytest.raises(ValueError, match=r"no column \['seeing'\]; there are"):
        curveplots.trends(table, names=["seeing"])
    with pytest.raises(ValueError, match="1 axes for the 2 panels"):
        curveplots.trends(table, names=["airmass", "x"], axes=given[:1])


def test_bin_scatter_has_the_line_of_white_noise():
    """LC-06: the points are those of the result in per cent, the line falls as white noise does."""
    ax = curveplots.bin_scatter(NOISE)
    line, points = ax.lines[:2]
    assert np.allclose(points.get_ydata(), 100 * NOISE.scatter)
    assert np.allclose(line.get_ydata(), 100 * NOISE.expected)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert f"beta = {NOISE.beta:.2f}" in ax.get_legend().get_texts()[1].get_text()
    # Twice as long, the square root of two less; the last bins know their own mean.
    short = NOISE.points < 6
    slope = np.polyfit(np.log(NOISE.points[short]), np.log(NOISE.expected[short]), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.06)
    assert ax.patches  # The band of the widths that made beta.


def test_stars_without_light_and_no_panels_are_drawn():
    """A star whose median is zero or below has no relative flux; no panel at all is no failure."""
    flux = np.vstack([np.zeros(4), -np.ones(4), [1.0, 2.0, 3.0, 2.0]])
    for draw in (curveplots.raw_curves, curveplots.comparison_curves):
        ax = draw(np.arange(4.0), flux, step=0.0)
        finite = [
            np.isfinite(line.get_ydata()).all() for line in ax.lines if len(line.get_xdata()) == 4
        ]
        assert finite == [False, False, True]
        ax.figure.canvas.draw()
    curve = Table({"bjd_tdb_mid": np.arange(4.0), "flipped": [False, False, True, True]})
    assert len(curveplots.trends(curve, names=[])) == 1


def test_bin_scatter_without_beta():
    """A night that is too short, and residuals that are all zero, are drawn all the same."""
    for noise in (
        red_noise([], []),
        red_noise(TIME[:5], np.arange(5.0)),
        red_noise(TIME, 0 * TIME),
    ):
        ax = curveplots.bin_scatter(noise)
        assert not ax.patches or noise.used.any()
        assert ax.get_legend().get_texts()[-1].get_text() == "residuals"
        ax.figure.canvas.draw()
