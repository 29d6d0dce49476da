"""Figures: what is drawn, the labels, the direction of axes; nothing global changes."""

import inspect

import matplotlib as mpl
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.wcs import WCS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from datared import charts, plots
from datared.errors import FrameError

RNG = np.random.default_rng(7)
N = 40
A, B, C, D = RNG.normal(10, 1, (4, N))
FRAME = RNG.normal(500, 10, (60, 80))


@pytest.fixture(autouse=True)
def close_figures():
    """Leave no figure behind."""
    yield
    plt.close("all")


def solved_frame():
    """A frame with a WCS."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [30, 20], [40, 30], [-3e-4, 3e-4]
    return CCDData(FRAME, unit="adu", wcs=wcs)


CALLS = {
    "show_frame": (FRAME,),
    "counts_histogram": (FRAME,),
    "noise_law": ([1, 2, 4], [9, 6.4, 4.5]),
    "residual_quiver": (A, B, C, D),
    "field_map": (A, B, C),
    "finder": (FRAME, A, B),
    "growth_curve": ([1, 2, 3], [[0.5, 0.9, 1], [0.6, 0.8, 1]]),
    "size_magnitude": (A, B),
    "colour_magnitude": (A - B, B),
    "light_curve": (A, B),
    "trend": (A, B),
    "scatter_magnitude": (A, np.abs(B)),
    "zero_point": (A, B),
    "separations": (np.abs(A),),
}
OPTIONS = {"field_map": {"label": "FWHM (px)"}, "trend": {"label": "airmass (1)"}}


def draw(name, **more):
    """Call a function of the room with its data."""
    return getattr(plots, name)(*CALLS[name], **OPTIONS.get(name, {}), **more)


def test_every_function_is_tested():
    """A new function needs a row in the table above."""
    functions = {n for n in plots.__all__ if callable(getattr(plots, n))}
    assert functions == {*CALLS, "compare_frames"}


@pytest.mark.parametrize("name", CALLS)
def test_plots_draw_on_given_axes_and_return_them(name):
    """The caller's axes are drawn on and returned; no other figure appears."""
    _, ax = plt.subplots()
    assert draw(name, ax=ax) is ax
    assert len(plt.get_fignums()) == 1
    assert ax.has_data() or ax.collections or ax.images


@pytest.mark.parametrize("name", CALLS)
def test_plots_make_new_figure_and_change_nothing_global(name):
    """Without axes there is one new figure; the style and the backend stay."""
    before = dict(mpl.rcParams)
    first = draw(name)
    second = draw(name)
    assert isinstance(first, Axes)
    assert second is not first  # nothing is drawn over an older figure
    assert dict(mpl.rcParams) == before
    first.figure.canvas.draw()  # what cannot be drawn fails here


@pytest.mark.parametrize("name", CALLS)
def test_plots_labels_have_units(name):
    """Each axis says what it is; quantities say their unit in brackets."""
    ax = draw(name)
    plain = ("relative flux", "number of", "share of the light", "catalogue - instrumental")
    for label in (ax.get_xlabel(), ax.get_ylabel()):
        assert "(" in label or label.startswith(plain), label


@pytest.mark.parametrize("name", CALLS)
def test_plots_options_are_keyword_only(name):
    """Data come first, options by name, and there is no ``**kwargs``."""
    parameters = inspect.signature(getattr(plots, name)).parameters.values()
    kinds = {p.name: p.kind for p in parameters}
    assert kinds.pop("ax") is inspect.Parameter.KEYWORD_ONLY
    assert inspect.Parameter.VAR_KEYWORD not in kinds.values()
    for p in parameters:
        assert p.default is inspect.Parameter.empty or p.kind is inspect.Parameter.KEYWORD_ONLY


def test_plots_never_show_or_save():
    """Showing and saving is the caller's."""
    for module in (plots, charts):
        source = inspect.getsource(module)
        assert not any(word in source for word in (".show(", "savefig", "rcParams", "plt.style"))


def test_light_curve_axis_is_inverted_for_magnitudes_only():
    """Brighter is up: magnitudes turned round once, fluxes not."""
    assert not plots.light_curve(A, B, kind="flux").yaxis_inverted()
    ax = plots.light_curve(A, B, kind="magnitude")
    assert ax.yaxis_inverted()
    assert plots.light_curve(A, C, kind="magnitude", ax=ax).yaxis_inverted()  # not turned back
    with pytest.raises(ValueError, match="flux"):
        plots.light_curve(A, B, kind="counts")


def test_light_curve_label_carries_scale_and_day():
    """The day that was taken off is in the label, and the points are where they should be."""
    time = 2460587.4 + np.arange(5) / 100
    bad = np.array([False, False, True, False, False])
    ax = plots.light_curve(time, np.ones(5), error=np.full(5, 0.1), flagged=bad, model=np.ones(5))
    assert ax.get_xlabel() == "BJD_TDB - 2460587 (d)"
    assert ax.lines[0].get_xdata() == pytest.approx((time - 2460587)[~bad])
    assert "flagged" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_colour_magnitude_turns_the_axis_once_and_overlays_the_isochrone():
    """Bright stars at the top, also when drawn twice; labels name bands and system."""
    model = ([0.1, 0.2, np.nan], [3, 4, 5])
    ax = plots.colour_magnitude(A, B, model=model, bands="gir", system="PS1 AB")
    plots.colour_magnitude(A, C, colour_err=np.full(N, 0.1), bands="gir", ax=ax)
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "g - i (mag)"
    assert plots.colour_magnitude(A, B, system="PS1 AB").get_ylabel() == "g (mag, PS1 AB)"
    assert "isochrone" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_show_frame_cuts_are_not_pulled_by_one_star():
    """One star of 60000 counts leaves the sky grey: cuts within 10 sigma of the sky."""
    frame = FRAME.copy()
    frame[20:23, 30:33], frame[0] = 60000, np.nan
    for cuts in ("zscale", 98):
        norm = plots.show_frame(frame, cuts=cuts).images[0].norm
        assert 400 < norm.vmin < 500 < norm.vmax < 600
    norm = plots.show_frame(frame, cuts=(0, 1), stretch="asinh").images[0].norm
    assert (norm.vmin, norm.vmax) == (0, 1)


def test_show_frame_wcs_axes_and_unit():
    """A solved frame gets sky coordinates along its axes; the bar has the unit of the frame."""
    ax = plots.show_frame(solved_frame(), wcs=True)
    assert "right ascension" in ax.coords[0].get_axislabel()
    assert ax.figure.axes[1].get_ylabel() == "signal (ADU)"
    with pytest.raises(FrameError, match="WCS"):
        plots.show_frame(FRAME, wcs=True)


@pytest.mark.parametrize("bad", [{"cuts": "minmax"}, {"stretch": "log"}])
def test_show_frame_refuses_unknown_options(bad):
    """A misspelt option is an error that says what is valid."""
    with pytest.raises(ValueError, match=r"is not"):
        plots.show_frame(FRAME, **bad)


def test_show_frame_without_finite_pixel():
    """A frame of NaN says so instead of a blank figure; a constant frame is drawn."""
    with pytest.raises(FrameError, match="finite"):
        plots.show_frame(np.full((5, 5), np.nan))
    plots.show_frame(np.full((5, 5), 3.0)).figure.canvas.draw()


def test_compare_frames_share_their_cuts():
    """Frames side by side are compared with one scale."""
    axes = plots.compare_frames([FRAME, FRAME + 100], titles=["a", "b"])
    limits = {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in axes}
    assert len(axes) == 2 and len(limits) == 1


def test_e33_finder_numbers_only_the_brightest():
    """With 5000 stars only the brightest are numbered; rows that are not finite are passed over."""
    x, y = RNG.uniform(0, 60, (2, 5000))
    x[10] = np.nan
    flux = np.zeros(5000)
    flux[[4000, 10, 7]] = 3, 2, 1
    ax = plots.finder(FRAME, x, y, brightness=flux, n_labels=2, target=7)
    assert [text.get_text() for text in ax.texts] == ["4000", "7"]
    assert len(ax.lines) == 4  # the cross around the target
    assert ax.get_xlim() == (-0.5, 79.5)


def test_noise_law_passes_through_the_first_point():
    """The law is scaled to the smallest number, wherever it stands in the list."""
    ax = plots.noise_law([4, 1], [5.0, 10.0], factor=1.253)
    assert ax.lines[0].get_ydata() == pytest.approx([10, 5])
    assert ax.lines[1].get_ydata() == pytest.approx([12.53, 6.265])


def test_residual_quiver_typical_arrow_has_the_length_asked():
    """An arrow of the rms is drawn ``length`` pixels long."""
    ax = plots.residual_quiver([10, 50], [20, 30], [0.1, 0], [0, 0.1], length=25)
    assert ax.collections[0].scale == pytest.approx(0.1 / 25)
    plots.residual_quiver([], [], [], []).figure.canvas.draw()


def test_masked_columns_are_left_out():
    """Masked values of a table are not drawn."""
    column = np.ma.array(A, mask=np.arange(N) < 3)
    assert len(plots.zero_point(column, B).lines[0].get_xdata()) == N - 3
    ax = plots.scatter_magnitude(A, B, expected={"photons": (C, D)}, marked={"target": [2]})
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["stars", "photons", "target"]


def test_counts_histogram_of_whole_counts_is_no_comb():
    """Bins hold the same number of whole counts: neighbours do not jump."""
    ax = plots.counts_histogram(np.rint(RNG.normal(500, 30, (300, 300))), bins=90)
    edges = np.unique(ax.patches[0].get_xy()[:, 0])
    widths = np.unique(np.round(np.diff(edges), 6))
    assert len(widths) == 1 and widths[0] == round(widths[0])
