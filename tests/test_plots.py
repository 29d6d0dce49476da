"""Figures: what is drawn, the labels, the direction of axes; nothing global changes."""

import inspect
import itertools
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from datared import charts, diagramplots, fieldplots, noiseplots, plots, skyplots
from datared.background import background_map
from datared.diagram import colour_magnitude_table
from datared.errors import FrameError
from datared.instrument import CORNER_DISTORTION, frame_wcs
from datared.sources import detect

RNG = np.random.default_rng(7)
N = 40
A, B, C, D = RNG.normal(10, 1, (4, N))
FRAME = RNG.normal(500, 10, (60, 80))


def solved_frame(rotation=0.0, *, ra=30.0, declination_first=False, galactic=False):
    """A frame with a WCS."""
    wcs = frame_wcs(FRAME.shape, ra=ra, dec=20, scale=1.0, rotation=rotation)
    if declination_first or galactic:
        plain = WCS(naxis=2)
        names = ["GLON-TAN", "GLAT-TAN"] if galactic else ["DEC--TAN", "RA---TAN"]
        plain.wcs.ctype, plain.wcs.crpix = names, wcs.wcs.crpix
        plain.wcs.crval = [20, ra] if declination_first else [ra, 20]
        plain.wcs.cd = wcs.wcs.cd[::-1] if declination_first else wcs.wcs.cd
        wcs = plain
    return CCDData(FRAME, unit="adu", wcs=wcs)


DIAGRAM = Table({"g": A, "g_err": np.full(N, 0.01), "r": B, "r_err": np.full(N, 0.02)})
for name in "gr":
    DIAGRAM[name].meta["system"] = "PS1 AB"
DIAGRAM["g_flags"] = np.arange(N) % 5 == 0


CALLS = {
    "show_frame": (FRAME,),
    "counts_histogram": (FRAME,),
    "noise_law": ([1, 2, 4], [9, 6.4, 4.5]),
    "residual_quiver": (A, B, C, D),
    "field_map": (A, B, C),
    "finder": (FRAME, A, B),
    "detections": (FRAME, Table({"x": A, "y": B})),
    "distortion_map": (frame_wcs((60, 80), ra=30, dec=20, scale=1, rotation=4),),
    "growth_curve": ([1, 2, 3], [[0.5, 0.9, 1], [0.6, 0.8, 1]]),
    "size_magnitude": (A, B),
    "colour_magnitude": (A - B, B),
    "light_curve": (A, B),
    "trend": (A, B),
    "scatter_magnitude": (A, np.abs(B)),
    "zero_point": (A, B),
    "separations": (np.abs(A),),
    "noise_budget": ([1, 2, 3], {"star": [9, 8, 7], "sky": [1, 2, 3]}),
    "pull_histogram": (A - 10,),
    "show_cuts": (colour_magnitude_table(DIAGRAM, bands="gr"),),
}
OPTIONS = {
    "field_map": {"label": "FWHM (px)"}, "trend": {"label": "airmass (1)"},
    "noise_budget": {"label": "radius (px)"},
}  # fmt: skip


def function(name):
    """Function of that name, in `plots` or in a room with figures of one kind."""
    return next(
        getattr(room, name) for room in (plots, noiseplots, diagramplots) if name in room.__all__
    )


def draw(name, **more):
    """Call a function of the room with its data."""
    return function(name)(*CALLS[name], **OPTIONS.get(name, {}), **more)


def test_every_function_is_tested():
    """A new function needs a row in the table above."""
    functions = {n for n in plots.__all__ if callable(getattr(plots, n))}
    pairs = {"compare_frames", "diagram_before_after", "motions_before_after", "night_figure"}
    assert functions | {*noiseplots.__all__, *diagramplots.__all__} == {*CALLS, *pairs}


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
    plain = ("relative flux", "number of", "share of the light", "catalogue - instrumental", "pull")
    for label in (ax.get_xlabel(), ax.get_ylabel()):
        assert "(" in label or label.startswith(plain), label


@pytest.mark.parametrize("name", CALLS)
def test_plots_options_are_keyword_only(name):
    """Data come first, options by name, and there is no ``**kwargs``."""
    parameters = inspect.signature(function(name)).parameters.values()
    kinds = {p.name: p.kind for p in parameters}
    assert kinds.pop("ax") is inspect.Parameter.KEYWORD_ONLY
    assert inspect.Parameter.VAR_KEYWORD not in kinds.values()
    for p in parameters:
        assert p.default is inspect.Parameter.empty or p.kind is inspect.Parameter.KEYWORD_ONLY


def test_plots_never_show_or_save():
    """Showing and saving is the caller's."""
    for module in (plots, charts, skyplots, fieldplots, noiseplots):
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


def test_colour_magnitude_shows_probabilities():
    """CM-06: probable members are dark and on top; a star without a probability is an open circle.

    The colours go from light to dark without a turn, so they are told apart in grey, too.
    """
    p = np.ma.array(np.linspace(0, 1, N), mask=np.arange(N) < 4)
    p[-1] = np.nan
    err = np.full(N, 0.1)
    ax = plots.colour_magnitude(A, B, probability=p, magnitude_err=err, bands="gi", label="stars")
    dots = ax.collections[-1]
    assert np.allclose(dots.get_array(), np.linspace(0, 1, N)[4:-1])
    assert np.allclose(dots.get_offsets()[:, 0], A[4:-1])
    assert (dots.norm.vmin, dots.norm.vmax) == (0, 1)
    light = dots.get_cmap()(np.linspace(0, 1, 50))[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(light) < 0).all()
    circles = next(line for line in ax.lines if line.get_marker() == "o")
    assert len(circles.get_xdata()) == 5 and circles.get_fillstyle() == "none"
    assert ax.figure.axes[1].get_ylabel() == "probability to be a member"
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(names) == ["membership not known", "stars"]
    shuffled = RNG.permutation(N)
    again = plots.colour_magnitude(A[shuffled], B[shuffled], probability=p[shuffled], bands="gi")
    assert (np.diff(again.collections[-1].get_array()) >= 0).all()
    assert again.get_xlabel() == "g - i (mag)" and again.yaxis_inverted()
    again.figure.canvas.draw()


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
    with pytest.raises(FrameError, match="finite"):
        plots.counts_histogram(np.full((5, 5), np.nan))
    plots.show_frame(np.full((5, 5), 3.0)).figure.canvas.draw()


def test_compare_frames_share_their_cuts():
    """Frames side by side are compared with one scale."""
    axes = plots.compare_frames([FRAME, FRAME + 100], titles=["a", "b"])
    limits = {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in axes}
    assert len(axes) == 2 and len(limits) == 1


def test_e33_finder_numbers_only_the_brightest():
    """DT-06: of 5000 stars only the brightest inside the frame are numbered, and the target."""
    x, y = RNG.uniform(0, 59, (2, 5000))
    x[10], x[11] = np.nan, 200.0
    flux = np.zeros(5000)
    flux[[11, 4000, 10, 7]] = 4, 3, 2, 1
    ax = plots.finder(FRAME, x, y, brightness=flux, n_labels=2, target=7)
    assert [text.get_text() for text in ax.texts] == ["4000", "7"]
    assert len(ax.lines) == 4  # the cross around the target
    assert ax.get_xlim() == (-0.5, 79.5)
    ax.figure.canvas.draw()


def test_finder_zooms_on_the_target():
    """DT-06: with a width the chart is a square around the target, and numbers what is in it."""
    x, y = np.array([10.0, 60, 62, 59]), np.array([10.0, 30, 31, 50])
    ax = plots.finder(FRAME, x, y, target=1, width=10)
    assert (ax.get_xlim(), ax.get_ylim()) == ((55, 65), (25, 35))
    assert [text.get_text() for text in ax.texts] == ["1", "2"]
    ax = plots.finder(FRAME, [np.nan], [3.0], target=0, width=10)  # a target without a place
    assert ax.get_xlim() == (34.5, 44.5)


@pytest.mark.parametrize("rotation", [0.0, 45.0, 90.0, 184.6])
@pytest.mark.parametrize("declination_first", [False, True])
def test_finder_has_right_ascension_on_the_longitude_axis(rotation, declination_first):
    """DT-06: the coordinate called right ascension is the longitude, however a frame is turned."""
    frame = solved_frame(rotation, declination_first=declination_first)
    ax = plots.finder(frame, A, B, n_labels=3, wcs=True)
    labels = {coord.coord_type: coord.get_axislabel() for coord in ax.coords}
    assert labels == {
        "longitude": "right ascension (h m s)", "latitude": "declination (deg)",
    }  # fmt: skip
    ax.figure.canvas.draw()
    # The name stands at the edge where the numbers of this coordinate stand.
    for coord in ax.coords:
        assert coord.get_axislabel_position()[0] == coord.get_ticklabel_position()[0]


def test_finder_of_a_galactic_frame_says_so():
    """Coordinates are named by what they are, and the longitude there is in degrees."""
    ax = plots.finder(solved_frame(galactic=True), A, B, wcs=True)
    assert [c.get_axislabel() for c in ax.coords] == [
        "galactic longitude (deg)", "galactic latitude (deg)",
    ]  # fmt: skip


def test_detections_tell_the_kinds_apart():
    """Stars, saturated or cut ones, and what no catalogue knows have a marker and a number each."""
    sources = Table({"x": A, "y": B, "flags": np.zeros(N, int), "catalogue": np.arange(N)})
    sources["flags"][:3] = 1, 4, 5
    sources["flags"][5] = 32  # a neighbour is nothing odd
    sources["catalogue"][2:9] = -1
    ax = plots.detections(FRAME, sources)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["in the catalogue (31)", "not in the catalogue (6)", "edge or saturated (3)"]
    assert len({line.get_marker() for line in ax.lines}) == 3
    assert ax.lines[1].get_xdata() == pytest.approx(A[3:9])
    plots.detections(FRAME, sources[:0]).figure.canvas.draw()


def test_detections_do_not_draw_what_is_masked():
    """A masked place is not drawn, and a masked row of the catalogue is no match."""
    sources = Table({"x": A, "y": B, "flags": np.zeros(N), "catalogue": np.arange(N)}, masked=True)
    sources["x"].mask[0] = sources["catalogue"].mask[1] = True
    ax = plots.detections(FRAME, sources)
    known, unknown = (line.get_xdata() for line in ax.lines)
    assert np.isnan(known[0]) and known[1:] == pytest.approx(A[2:])
    assert unknown == pytest.approx(A[1:2])


def diagnostic_figures(frame, night):
    """Draw what one should see of a frame and of a night (DT-07): name and axes."""
    background = background_map(frame.data)
    sources = detect(frame, gain=1.0)
    magnitude = -2.5 * np.log10(sources["flux"])
    return {
        "background": plots.show_frame(background.level, colorbar=True),
        "residual": plots.show_frame(frame.data - background.level),
        "detections": plots.detections(frame, sources),
        "chimney": plots.size_magnitude(magnitude, sources["fwhm"]),
        "fwhm over the field": plots.field_map(
            sources["x"], sources["y"], sources["fwhm"], label="FWHM (px)"
        ),
        "seeing against time": plots.trend(night["jd"], night["seeing"], label="FWHM (arcsec)"),
    }


def test_diagnostic_figures():
    """DT-07: all six come from a frame with a slope and ten stars; each shows what is in it."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:200, :300]
    data = 500 + 0.2 * x + rng.normal(0, 5, x.shape)
    places = rng.uniform((20, 20), (280, 180), (10, 2))
    for a, b in places:
        data += 2000 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 1.5**2))
    night = {"jd": 2460587.4 + np.arange(5) / 100, "seeing": [2.1, 2.2, 2.4, 2.2, 2.3]}
    found = diagnostic_figures(CCDData(data, unit="adu"), night)
    assert len(found) == 6
    for ax in found.values():
        assert ax.get_xlabel() and ax.get_ylabel()
        ax.figure.canvas.draw()
    level = np.asarray(found["background"].images[0].get_array())
    assert level[:, 224].mean() - level[:, 32].mean() == pytest.approx(0.2 * 192, abs=0.7)
    rest = np.asarray(found["residual"].images[0].get_array())
    # The level of a box of 64 px is known to 1.25 x 5 / 64 = 0.1.
    assert abs(np.median(rest[:, 180:230]) - np.median(rest[:, 30:80])) < 5 * 0.1 * np.sqrt(2)
    assert len(found["detections"].lines[0].get_xdata()) == 10
    assert np.median(found["chimney"].lines[0].get_ydata()) == pytest.approx(3.53, rel=0.05)


def test_diagnostic_figures_are_in_the_chapters():
    """DT-07: the pages on finding and on measuring stars call the functions of the six figures."""
    book = Path(__file__).resolve().parents[1] / "book"
    code = ""
    for name in ("astrometry", "photometry"):
        cells = json.loads((book / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        code += "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    wanted = {
        "background": "background.level",
        "residual": "data - background.level",
        "detections": "plots.detections(",
        "chimney": "plots.size_magnitude(",
        "FWHM over the field": "plots.field_map(",
        "seeing against time": 'phot.epochs["fwhm"]',
    }
    assert [name for name, call in wanted.items() if call not in code] == []


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


def test_residual_quiver_of_cells_shows_what_frames_share():
    """AS-03: in medians of 400 arrows the noise falls by 16, what all share stays."""
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0, (80, 60), (19200, 2)).T - 0.5
    dx, dy = rng.normal([[0.3], [0]], 1, (2, 19200))
    # Two stars alone make no median.
    x, y, dx, dy = (np.append(a, [b, b]) for a, b in ((x, 75), (y, 90), (dx, 99), (dy, 99)))
    ax = plots.residual_quiver(x, y, dx, dy, cells=8, shape=(60, 80))
    arrows = ax.collections[0]
    assert len(arrows.U) == 48
    # The error of a median is 1.253 / 20; of the mean of all 48, 1.253 / 139.
    assert arrows.U.mean() == pytest.approx(0.3, abs=4 * 1.253 / 139)
    assert np.std(arrows.V) == pytest.approx(1.253 / 20, rel=4 / np.sqrt(2 * 48))
    assert ax.get_xlim() == (-0.5, 79.5)


def test_distortion_map_shows_shift_and_scale():
    """CC-04: the corner of a simulated frame moves by what was put in, the scale by 3 k r^2 / 2."""
    shape = (680, 1000)
    ax = plots.distortion_map(frame_wcs(shape, ra=30, dec=20, scale=1.2, rotation=4))
    arrows, mesh = (ax.collections[i] for i in (1, 0))
    r = np.hypot(arrows.X - 499.5, arrows.Y - 339.5)
    k = CORNER_DISTORTION / (np.hypot(*shape) / 2) ** 3
    assert np.hypot(arrows.U, arrows.V) == pytest.approx(k * r**3, rel=1e-6)
    # The area of a pixel grows as (1 + k r^2) (1 + 3 k r^2), the scale as its root.
    r2 = (10 - 499.5) ** 2 + (10 - 339.5) ** 2  # the first cell
    growth = np.sqrt((1 + k * r2) * (1 + 3 * k * r2)) - 1
    assert mesh.get_array().ravel()[0] == pytest.approx(100 * growth, rel=1e-3)


def test_distortion_map_without_distortion():
    """CC-04: without SIP the map says so; without a size the message asks for it."""
    wcs = solved_frame(galactic=True).wcs
    ax = plots.distortion_map(wcs, shape=(60, 80))
    assert ax.get_title(loc="left") == "no distortion"
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="shape"):
        plots.distortion_map(wcs)


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


def test_noise_budget_layers_add_up_and_are_told_apart():
    """PH-10, DT-07: shares of the variance reach 100 %, whatever the order of x; hatches differ."""
    x = np.array([3.0, 1.0, 2.0])
    ax = noiseplots.noise_budget(x, {"star": 3 * x, "sky": x**2, "read": 1.0}, label="radius (px)")
    bottom, middle, top = (layer.get_paths()[0].vertices for layer in ax.collections)
    # The upper edge of a layer at each radius: 9, 3 and 6 of 19, 5 and 11.
    edge = {float(a): float(b) for a, b in bottom[len(x) + 1 :] if b > 0}
    assert list(edge) == [3.0, 2.0, 1.0]  # from right to left, without a step back
    assert edge == pytest.approx({1.0: 100 * 3 / 5, 2.0: 100 * 6 / 11, 3.0: 100 * 9 / 19})
    assert top[:, 1].max() == pytest.approx(100) and middle[:, 1].max() < 100
    # Neighbours differ in colour and, for readers without colours, in hatch.
    for one, other in itertools.pairwise(ax.collections):
        assert one.get_hatch() != other.get_hatch()
        assert tuple(one.get_facecolor()[0]) != tuple(other.get_facecolor()[0])
    # The legend names the topmost layer first, as the eye finds it.
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["read", "sky", "star"]
    assert noiseplots.noise_budget(x, {"a": x}, label="r (px)", legend=False).get_legend() is None
    # Where nothing has a variance there is nothing to share: the place is left out.
    ax = noiseplots.noise_budget([0.0, 1.0, 2.0], {"a": [0, 1, 1], "b": [0, 1, 3]}, label="r (px)")
    assert ax.get_xlim() == (1, 2)


@pytest.mark.parametrize("bad", [{}, {"star": [1.0, -1.0]}, {str(k): 1.0 for k in range(8)}])
def test_noise_budget_refuses_what_is_no_variance(bad):
    """A negative variance, none and more than eight colours are errors that say so."""
    with pytest.raises(ValueError, match=r"star|give 1 to 7"):
        noiseplots.noise_budget([1.0, 2.0], bad, label="radius (px)")


def test_pull_histogram_hides_no_wild_value():
    """The area is 1, what lies outside is in the last bins, what is not finite does not count."""
    ax = noiseplots.pull_histogram(np.array([[0.1, 0.2, 99.0], [-99.0, np.nan, 0.3]]))
    heights = np.array([bar.get_height() for bar in ax.patches])
    assert heights.sum() * 0.2 == pytest.approx(1)
    assert heights[[0, -1]] == pytest.approx(1 / 5 / 0.2)
    grid, normal = (np.asarray(a) for a in ax.lines[0].get_data())
    assert np.interp(0, grid, normal) == pytest.approx(0.3989, abs=1e-4)
    noiseplots.pull_histogram([np.nan])  # nothing to draw is no error


def test_curve_of_growth_marks_the_recommended_radius():
    """PH-10, 000-23: the figure has the median over the stars and the radius that was chosen."""
    share = [[0.5, 0.9, 1.0], [0.6, 0.8, 1.0], [0.7, 0.7, 1.0]]
    ax = plots.growth_curve([2.0, 4.0, 6.0], share, best=4.2)
    assert ax.lines[-3].get_ydata() == pytest.approx([0.6, 0.8, 1.0])
    assert ax.lines[-1].get_xdata() == [4.2, 4.2]
    assert "4.2 px" in ax.get_legend().get_texts()[0].get_text()
