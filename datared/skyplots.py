"""Figures of the sky: a frame and what was found on it. Reached through `plots`."""

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.visualization import AsinhStretch, ImageNormalize, LinearStretch, ZScaleInterval
from matplotlib.patheffects import withStroke

from .charts import BLUE, COLOURS, RED, new_axes
from .errors import FrameError

#: Bits of `datared.sources` in the column ``flags``.
EDGE, SATURATED = 1, 4

__all__ = [
    "detections",
    "finder",
    "show_frame",
    "sky_picture",
]


def image_values(frame):
    """Pixels of a frame as floats (masked ones kept), and the name of their unit."""
    unit = getattr(frame, "unit", None)
    unit = "ADU" if unit is None else str(unit)
    values = frame.data if isinstance(frame, NDData) else frame
    data = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
    return data, {"adu": "ADU", "electron": "electrons", "": "relative"}.get(unit, unit)


def _numbers(column):
    """Floats of a column; masked ones are NaN."""
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)


def _whole(column, missing):
    """Whole numbers of a column; masked ones are ``missing``."""
    return np.ma.filled(np.ma.asarray(column), missing).astype(int)


#: Names of sky coordinates by their physical type.
SKY_NAMES = {
    "pos.eq.ra": "right ascension",
    "pos.eq.dec": "declination",
    "pos.galactic.lon": "galactic longitude",
    "pos.galactic.lat": "galactic latitude",
}


def _label_sky(coords):
    """Name the coordinates along the axes by what they are: a header may list declination first."""
    for coord in coords:
        kind = coord.default_label or coord.coord_type
        unit = "h m s" if coord.get_format_unit() == u.hourangle else "deg"
        coord.set_axislabel(f"{SKY_NAMES.get(kind, kind)} ({unit})")


def show_frame(
    frame, *, cuts="zscale", stretch="linear", wcs=False, cmap="gray", colorbar=True, title=None,
    ax=None,
):  # fmt: skip
    """Show a frame with sensible cuts: without cuts a few bright stars make all else black.

    Parameters
    ----------
    frame : numpy.ndarray of shape (ny, nx) or astropy.nddata.CCDData
        Counts; not-a-number pixels are left white.
    cuts : "zscale", float or (float, float)
        Counts shown as black and as white: around the sky by the ZScale rule of IRAF, or so that
        this percentage of the pixels is inside, or given.
    stretch : {"linear", "asinh"}
        Grey levels between the cuts. ``"asinh"`` shows faint and bright things together.
    wcs : bool
        Right ascension and declination along the axes (the frame must have a ``wcs``; ``ax`` must
        have it as its projection).
    cmap : str
        Colour map of matplotlib, such as ``"gray"`` or ``"viridis"``.
    colorbar : bool
        Draw the scale of the counts.
    title : str, optional
        Text above the frame.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Raises
    ------
    FrameError
        If no pixel is finite, or ``wcs`` is asked of a frame without one.
    """
    data, unit = image_values(frame)
    values = data[np.isfinite(data)]
    if not values.size:
        raise FrameError("No pixel of this frame is finite: there is nothing to show.")
    sky_axes = getattr(frame, "wcs", None) if wcs else None
    if wcs and sky_axes is None:
        raise FrameError("This frame has no WCS: solve it first, or leave out wcs=True.")
    if isinstance(cuts, str):
        if cuts != "zscale":
            raise ValueError(f"cuts {cuts!r} is not 'zscale', a percentage or two numbers.")
        low, high = ZScaleInterval().get_limits(values)
    elif np.ndim(cuts) == 0:
        low, high = np.percentile(values, [50 - cuts / 2, 50 + cuts / 2])
    else:
        low, high = cuts
    if high <= low:
        high = low + 1
    stretches = {"linear": LinearStretch(), "asinh": AsinhStretch(0.05)}
    if stretch not in stretches:
        raise ValueError(f"stretch {stretch!r} is not one of {', '.join(stretches)}.")
    norm = ImageNormalize(vmin=low, vmax=high, stretch=stretches[stretch], clip=False)
    ax = new_axes(ax, projection=sky_axes)
    image = ax.imshow(data, origin="lower", cmap=cmap, norm=norm, interpolation="nearest")
    if wcs:
        _label_sky(ax.coords)
    else:
        ax.set(xlabel="x (px)", ylabel="y (px)")
    if colorbar:
        height = 0.046 * data.shape[0] / data.shape[1]  # As high as the frame.
        ax.figure.colorbar(image, ax=ax, label=f"signal ({unit})", fraction=height, pad=0.02)
    if title:
        ax.set_title(title)
    return ax


def finder(
    frame, x, y, *, brightness=None, n_labels=25, target=None, width=None, cuts="zscale",
    wcs=False, ax=None,
):  # fmt: skip
    """Finder chart: the frame with circles around the brightest stars and their numbers.

    Parameters
    ----------
    frame : numpy.ndarray or astropy.nddata.CCDData
        The frame.
    x, y : array-like of float, shape (n,)
        Positions of the stars in pixels; their numbers are their rows.
    brightness : array-like of float, shape (n,), optional
        Flux that tells the brightest; by default the order of the rows.
    n_labels : int
        How many of the stars that the chart shows are numbered; more cannot be read.
    target : int or (float, float), optional
        Row, or position in pixels, of the star to mark with a cross of lines.
    width : float, optional
        Show only a square of this width (px) around the target, or around the middle of the frame.
    cuts
        As in `show_frame`.
    wcs : bool
        Right ascension and declination along the axes.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    x, y = _numbers(x), _numbers(y)
    ny, nx = np.shape(frame)
    left, right, bottom, top = -0.5, nx - 0.5, -0.5, ny - 0.5
    place = None
    if target is not None:
        place = (x[target], y[target]) if np.ndim(target) == 0 else target
        place = place if np.isfinite(place).all() else None
    if width is not None:
        a, b = ((nx - 1) / 2, (ny - 1) / 2) if place is None else place
        left, right, bottom, top = a - width / 2, a + width / 2, b - width / 2, b + width / 2
    rank = -np.arange(x.size, dtype=float) if brightness is None else brightness
    rank = _numbers(rank)
    shown = np.isfinite(rank) & (x > left) & (x < right) & (y > bottom) & (y < top)
    rows = np.flatnonzero(shown)
    rows = rows[np.argsort(-rank[rows], kind="stable")][:n_labels]
    ax = show_frame(frame, cuts=cuts, wcs=wcs, cmap="gray_r", colorbar=False, ax=ax)
    size = 0.014 * max(right - left, top - bottom)
    style = {"facecolors": "none", "marker": "o", "s": 60}
    ax.scatter(x[rows], y[rows], edgecolors=BLUE, linewidths=0.8, **style)
    # A white rim keeps the numbers readable on stars and on the grain of the sky.
    rim = [withStroke(linewidth=2.5, foreground="white")]
    for row in rows:
        # At the right and the upper edge the number stands on the other side of its star.
        aside, above = x[row] < right - 4 * size, y[row] < top - 3 * size
        ax.annotate(
            str(row), (x[row] + size * (1 if aside else -1), y[row] + size * (1 if above else -1)),
            ha="left" if aside else "right", va="bottom" if above else "top", color=BLUE,
            fontsize=9, weight="bold", clip_on=True, path_effects=rim,
        )  # fmt: skip
    if place is not None:
        px, py = place
        for step in (-1, 1):
            # The star itself stays free, as on the charts that observers draw.
            ax.plot([px + step * size, px + 4 * step * size], [py, py], color=RED)
            ax.plot([px, px], [py + step * size, py + 4 * step * size], color=RED)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    return ax


def detections(frame, sources, *, cuts="zscale", title=None, ax=None):
    """Show what was found on a frame, and what is odd about it.

    Circles are stars; triangles touch the edge of the frame or are saturated; crosses are what the
    catalogue does not know (where the sources were compared with one): faint stars, but also
    cosmic rays, hot pixels, the trail of a satellite.

    Parameters
    ----------
    frame : numpy.ndarray or astropy.nddata.CCDData
        The frame.
    sources : astropy.table.Table
        Columns ``x`` and ``y`` (px); if there are any, ``flags`` (bits 1 at the edge, 4 saturated)
        and ``catalogue`` (row in the catalogue, or -1).
    cuts
        As in `show_frame`.
    title : str, optional
        Text above the frame.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, with the number of each kind in the legend.
    """
    ax = show_frame(frame, cuts=cuts, cmap="gray_r", colorbar=False, title=title, ax=ax)
    kind = np.zeros(len(sources), int)
    if "catalogue" in sources.colnames:
        kind[_whole(sources["catalogue"], -1) < 0] = 1
    if "flags" in sources.colnames:
        kind[(_whole(sources["flags"], 0) & (EDGE | SATURATED)) > 0] = 2
    names = ["stars" if (kind != 1).all() else "in the catalogue", "not in the catalogue"]
    styles = [("o", BLUE), ("x", RED), ("^", COLOURS["pink"])]
    for k, (name, style) in enumerate(zip([*names, "edge or saturated"], styles, strict=True)):
        rows = kind == k
        if k == 0 or rows.any():
            marker, colour = style
            x, y = (_numbers(sources[c])[rows] for c in ("x", "y"))
            ax.plot(
                x, y, marker, color=colour, fillstyle="none", markersize=6, markeredgewidth=0.8,
                linestyle="none", label=f"{name} ({rows.sum()})",
            )  # fmt: skip
    ax.set(xlim=(-0.5, np.shape(frame)[1] - 0.5), ylim=(-0.5, np.shape(frame)[0] - 0.5))
    ax.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    if title:
        ax.set_title(title, loc="left")
    return ax


#: Lengths of scale bars, in arcseconds.
BARS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000)


def sky_picture(picture, wcs, *, factor=1, title=None, ax=None):
    """Show a finished picture with sky axes, arrows to the north and the east, and a scale bar.

    Parameters
    ----------
    picture : numpy.ndarray of uint8, shape (ny, nx) or (ny, nx, 3)
        Grey or colour picture, see `datared.pictures`; row 0 is the bottom.
    wcs : astropy.wcs.WCS
        Its sky coordinates; ``ax`` must have it as its projection.
    factor : int
        Pixels of the WCS on a side of a pixel of the picture, where the picture is binned.
    title : str, optional
        Text above the picture.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; their pixels are those of the WCS.
    """
    ny, nx = (factor * n for n in picture.shape[:2])
    ax = new_axes(ax, projection=wcs)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
    ax.imshow(
        picture, origin="lower", interpolation="nearest",
        extent=(-0.5, nx - 0.5, -0.5, ny - 0.5), **grey,
    )  # fmt: skip
    _label_sky(ax.coords)
    _draw_compass(ax, wcs, nx, ny)
    if title:
        ax.set_title(title, loc="left")
    return ax


def _draw_compass(ax, wcs, nx, ny):
    """Arrows to the north and the east in the lower left corner, a scale bar in the lower right."""
    # A dark rim keeps the white lines visible on stars.
    rim = [withStroke(linewidth=3, foreground="black")]
    middle = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    scale = np.sqrt(wcs.proj_plane_pixel_area()).to_value(u.arcsec)
    length, edge = 0.08 * min(nx, ny), 0.04 * min(nx, ny)
    tips = {}
    for name, angle in (("N", 0 * u.deg), ("E", 90 * u.deg)):
        there = wcs.world_to_pixel(middle.directional_offset_by(angle, 10 * scale * u.arcsec))
        step = np.array(there) - ((nx - 1) / 2, (ny - 1) / 2)
        tips[name] = length * step / np.hypot(*step)
    # The corner is as far from the edges as the arrows that point towards it are long.
    corner = edge + np.max([np.maximum(-1.3 * tip, 0) for tip in tips.values()], axis=0)
    for name, tip in tips.items():
        ends = np.transpose([corner, corner + tip])
        ax.plot(*ends, color="white", linewidth=1.5, path_effects=rim)
        ax.text(
            *(corner + 1.3 * tip), name, color="white", ha="center", va="center", path_effects=rim
        )
    bars = [bar for bar in BARS if bar <= 0.25 * nx * scale]
    if bars:
        right, size = nx - edge, bars[-1] / scale
        ax.plot([right - size, right], [edge, edge], color="white", path_effects=rim)
        text = next(
            f"{bars[-1] // unit} {name}"
            for unit, name in ((3600, "deg"), (60, "arcmin"), (1, "arcsec"))
            if bars[-1] >= unit
        )
        ax.text(
            right - size / 2, 1.3 * edge, text, color="white", ha="center", va="bottom",
            path_effects=rim,
        )  # fmt: skip
    ax.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5))
