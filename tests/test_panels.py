"""Figures of calibration frames: cuts, smoothing, labels; nothing global changes."""

import inspect

import matplotlib as mpl
import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from datared import panels
from datared.camera import CameraNoise, photon_transfer
from datared.errors import FrameError

SHAPE = (120, 160)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def master(kind="bias", *, level=500.0, noise=5.0, unit="adu"):
    """A master with a slope of 4 noises over its height and 300 flagged pixels of 60 000."""
    rng = np.random.default_rng(1)
    data = level + noise * (4 * Y / SHAPE[0] - 2 + rng.normal(0, 1, SHAPE))
    flags = np.zeros(SHAPE, np.uint16)
    flags.flat[rng.choice(data.size, 300, replace=False)] = 2
    data[flags != 0] = 60_000
    ccd = CCDData(data, unit=unit, flags=flags, mask=flags != 0)
    ccd.meta["KIND"] = kind
    return ccd


def cuts_of(ax):
    """Black and white of a panel."""
    return ax.images[0].norm.vmin, ax.images[0].norm.vmax


def draw(name, **more):
    """Call a figure of the room with its data."""
    fit = photon_transfer([1e3, 1e4, 3e4], [600, 5100, 15_100])
    calls = {
        "show_master": ((master(),), {}),
        "transfer_curve": ((fit.levels, fit.variances), {"fit": fit, "errors": fit.errors}),
        "noise_ratio": ((["bias", "flat_V"], [1.01, 1.2]), {"errors": [0.01, 0.02]}),
    }
    arguments, options = calls[name]
    return getattr(panels, name)(*arguments, **options, **more)


FIGURES = ("show_master", "transfer_curve", "noise_ratio")


def test_every_figure_is_tested():
    """A new figure needs a row in the table above."""
    assert set(panels.__all__) == {*FIGURES, "smooth_image"}


@pytest.mark.parametrize("name", FIGURES)
def test_panels_draw_on_given_axes_and_return_them(name):
    """PR-16: the caller's axes are drawn on and returned; no other figure, no global style."""
    before = dict(mpl.rcParams)
    many = name == "show_master"
    _, axes = plt.subplots(1, 2 if many else 1)
    drawn = draw(name, **{"axes" if many else "ax": axes})
    assert np.all(np.ravel(drawn) == np.ravel(axes)) and len(plt.get_fignums()) == 1
    assert dict(mpl.rcParams) == before
    for ax in np.ravel(axes):
        assert ax.has_data() or ax.images
    plt.gcf().canvas.draw()


@pytest.mark.parametrize("name", FIGURES)
def test_panels_make_a_new_figure_with_units(name):
    """Without axes there is a new figure each time; every axis has a unit in brackets."""
    first, second = np.ravel(draw(name)), np.ravel(draw(name))
    assert first[0].figure is not second[0].figure
    for ax in first:
        assert isinstance(ax, Axes) and "(" in ax.get_xlabel()
        assert name == "noise_ratio" or "(" in ax.get_ylabel()


@pytest.mark.parametrize("name", panels.__all__)
def test_panels_options_are_keyword_only(name):
    """Data come first, options by name, and there is no ``**kwargs``."""
    for p in inspect.signature(getattr(panels, name)).parameters.values():
        assert p.kind is not inspect.Parameter.VAR_KEYWORD
        assert p.default is inspect.Parameter.empty or p.kind is inspect.Parameter.KEYWORD_ONLY


def test_panels_never_show_or_save():
    """Showing and saving is the caller's."""
    source = inspect.getsource(panels)
    assert not any(word in source for word in (".show(", "savefig", "rcParams", "plt.style"))


def test_master_cuts_are_those_of_unflagged_pixels():
    """PR-16: 300 pixels of 60 000 do not turn the rest black; 99 % of the others are inside."""
    good = master().data[master().flags == 0]
    for ccd in (master(), CCDData(master().data, unit="adu", mask=master().mask)):
        low, high = cuts_of(panels.show_master(ccd, smooth=0)[0])
        assert np.mean((good >= low) & (good <= high)) == pytest.approx(0.99, abs=0.001)
        assert 470 < low < 490 and 510 < high < 530
    bad = CCDData(np.full(SHAPE, np.nan), unit="adu")
    with pytest.raises(FrameError, match="without a flag"):
        panels.show_master(bad)


def test_master_smoothed_shows_the_large_pattern():
    """PR-16: beside the master its smoothed version, whose cuts are those of the pattern alone."""
    first, second = panels.show_master(master(), smooth=5)
    smoothed = np.asarray(second.images[0].get_array())
    # The slope is 4 noises; a Gaussian of 5 px leaves 1 / (2 sqrt(pi) 5) = 6 % of the noise.
    inner = smoothed[20:-20, 20:-20] - (500 + 5 * (4 * Y / SHAPE[0] - 2))[20:-20, 20:-20]
    assert np.std(inner) == pytest.approx(5 * 0.0564, rel=0.2)
    assert np.ptp(cuts_of(second)) < 0.75 * np.ptp(cuts_of(first))
    assert second.get_title() == "smoothed, σ = 5 px" and first.get_title() == "bias"


def test_smooth_image_passes_over_bad_pixels():
    """A constant stays constant beside what is masked or not finite, and up to the borders."""
    image = np.full((40, 50), 7.0)
    mask = np.zeros(image.shape, bool)
    image[5, 5], image[20:23, 30], mask[20:23, 30] = np.nan, 1e9, True
    assert panels.smooth_image(image, sigma=2, mask=mask) == pytest.approx(7.0)
    mask[:, :25] = True
    lost = np.isnan(panels.smooth_image(image, sigma=1, mask=mask))
    assert lost[:, :18].all() and not lost[:, 25:].any()


def test_master_flat_is_shown_around_one():
    """PR-16: the level 1 is between black and white, and the bar does not say ADU."""
    flat = master("flat", level=1.2, noise=0.01, unit=u.dimensionless_unscaled)
    axes = panels.show_master(flat)
    for ax in axes:
        low, high = cuts_of(ax)
        assert low == 1.0 and 1.2 < high < 1.3
    assert "signal (relative)" in [ax.get_ylabel() for ax in axes[0].figure.axes]
    array = np.ma.masked_greater(flat.data - 0.2, 100)  # Without a card the level tells.
    low, high = cuts_of(panels.show_master(array, smooth=0)[0])
    assert 0.9 < low < 1 < high < 1.1


def test_transfer_curve_names_gain_and_marks_what_was_left_out():
    """CC-01: the line is the law, its name has gain and read noise with errors."""
    levels, variances = np.array([1e3, 1e4, 3e4, 5e4]), np.array([600.0, 5100, 15_100, 300])
    fit = photon_transfer(levels, variances, errors=0.01 * variances)
    ax = panels.transfer_curve(levels, variances, errors=fit.errors, used=fit.used, fit=fit)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "left out" in names and "pairs of flats" in names
    assert any(name.startswith("gain 2.0") and "± 0.0" in name for name in names)
    assert any("read noise 20" in name for name in names)
    line = next(one for one in ax.lines if one.get_label().startswith("gain"))
    assert line.get_ydata()[0] == pytest.approx(100, rel=0.02)  # R^2 at level 0
    assert ax.get_xlim()[1] > 5e4
    # A second filter, brighter, on the same axes: nothing is cut off, the marker is another one.
    panels.transfer_curve([8e4], [41_000], label="R", ax=ax)
    assert ax.get_xlim()[1] > 8e4 and ax.get_ylim()[1] > 41_000
    panels.transfer_curve([1.0], [1.0], fit=CameraNoise()).figure.canvas.draw()


def test_noise_ratio_marks_what_is_outside():
    """PR-16: each master has its line; one outside the band is a square, an unknown one named."""
    ax = panels.noise_ratio(["bias", "dark", "flat"], np.ma.array([1.0, 1.3, 0], mask=[0, 0, 1]))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["bias", "dark", "flat"]
    markers = {line.get_marker(): line.get_xdata() for line in ax.lines if len(line.get_xdata())}
    assert markers["o"] == pytest.approx([1.0]) and markers["s"] == pytest.approx([1.3])
    assert [text.get_text().strip() for text in ax.texts] == ["not checked"]
    assert ax.yaxis_inverted() and ax.get_xlim()[0] < 0.95 and ax.get_xlim()[1] > 1.3
