"""Figures of what changes over the field of a camera. Reached through `plots`."""

import numpy as np

from .charts import BLUE, finite_rows, new_axes

__all__ = ["distortion_map", "field_map", "residual_quiver"]


def residual_quiver(x, y, dx, dy, *, length=50.0, cells=None, shape=None, unit="px", ax=None):
    """Arrows from where stars should be to where they are: the pattern tells what is missing.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        Positions in pixels.
    dx, dy : array-like of float, shape (n,)
        Residuals.
    length : float
        Length, in pixels of the frame, of the arrow for the typical (root mean square) residual.
    cells : int, optional
        Draw one arrow for the median of each cell (of at least three stars) of a grid with so
        many cells along x. Noise becomes small, so what many frames have in common is seen.
    shape : (int, int), optional
        Shape ``(ny, nx)`` of the frame, for the limits of the axes and the cells.
    unit : str
        Unit of the residuals.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the key arrow has the length of the root mean square.
    """
    x, y, dx, dy = finite_rows(x, y, dx, dy)
    ax = new_axes(ax)
    ax.set_title(" ", loc="right")  # Room for the key, which the layout does not know.
    name = "rms"
    if cells is not None and x.size:
        x, y, dx, dy = _cell_medians(x, y, dx, dy, cells, shape)
        name = "rms of the medians"
    if x.size:
        rms = float(np.sqrt(np.mean(dx**2 + dy**2)))
        size = rms or 1.0
        arrows = ax.quiver(
            x, y, dx, dy, angles="xy", scale_units="xy", scale=size / length, color=BLUE,
            width=0.003,
        )  # fmt: skip
        ax.quiverkey(arrows, 0.1, 1.04, size, f"{name} {rms:.2g} {unit}", labelpos="E")
    ax.set(xlabel="x (px)", ylabel="y (px)", aspect="equal")
    if shape is not None:
        ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5))
    return ax


def _cell_medians(x, y, dx, dy, cells, shape):
    """Medians of positions and residuals in the square cells of a grid."""
    width = x.max() + 1e-9 if shape is None else shape[1] - 0.5
    size = (width + 0.5) / cells
    column, row = (np.floor((a + 0.5) / size).astype(int) for a in (x, y))
    _, cell, number = np.unique(column + (cells + 1) * row, return_inverse=True, return_counts=True)
    full = np.flatnonzero(number >= 3)
    return [np.array([np.median(values[cell == one]) for one in full]) for values in (x, y, dx, dy)]


def distortion_map(field, *, shape=None, length=60.0, ax=None):
    """How the optics bend the picture: shift of the stars, and change of the scale, over the frame.

    The arrows go from where a star is seen to where a camera without distortion would see it. The
    colour is the angle that one pixel sees, against that in the middle of the frame.

    Parameters
    ----------
    field : astropy.wcs.WCS or datared.distortionmap.DistortionMap
        World coordinates of a frame, with or without distortion (SIP or tables): their polynomial
        is drawn, which is 0 in the middle. Or a map, such as that of a night: what no change of
        scale, rotation or shear can remove is drawn, with the typical error in the title.
    shape : (int, int), optional
        Shape ``(ny, nx)`` of the frame; by default that which the world coordinates carry.
    length : float
        Length, in pixels of the frame, of the longest arrow.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the key arrow has the length of the largest shift.

    Raises
    ------
    ValueError
        If the shape of the frame is not known.
    """
    ax = new_axes(ax)
    if hasattr(field, "dx"):
        ny, nx = field.shape
        x, y, change, shading = field.x, field.y, 100 * (field.area**0.5 - 1), "gouraud"
        # Arrows at the border would point out of the figure.
        steps = [max(2, round(n / 12)) for n in x.shape]
        few = tuple(slice(step // 2, None, step) for step in steps)
        arrows = [values[few] for values in (x, y, field.dx, field.dy)]
        error = np.nanmedian(field.error) if np.isfinite(field.error).any() else 0.0
    else:
        shape = field.array_shape if shape is None else shape
        if shape is None:
            raise ValueError(
                "These world coordinates do not know the size of the frame: give shape."
            )
        ny, nx = shape
        step, shading, error = nx / 50, "auto", 0.0
        y, x = np.meshgrid(
            np.arange(step / 2, ny, step), np.arange(step / 2, nx, step), indexing="ij"
        )
        middle = _area(field, (nx - 1) / 2, (ny - 1) / 2)
        change = 100 * (_area(field, x, y) ** 0.5 / middle**0.5 - 1)
        few = (slice(2, None, 4), slice(2, None, 4))
        arrows = [x[few], y[few], *_shift(field, x[few], y[few])]
    colours = ax.pcolormesh(x, y, change, cmap="cividis", shading=shading, rasterized=True)
    bar = ax.figure.colorbar(colours, ax=ax, fraction=0.046 * ny / nx, pad=0.02)
    bar.set_label("scale against the middle (%)")
    bar.formatter.set_powerlimits((-3, 4))
    largest = float(np.hypot(*arrows[2:]).max())
    ax.set_title(" ", loc="right")  # Room for the key.
    if largest > 1e-6:
        drawn = ax.quiver(
            *arrows, angles="xy", scale_units="xy", scale=largest / length, color="white",
            width=0.004, edgecolor="black", linewidth=0.5,
        )  # fmt: skip
        text = f"{largest:.2g} px" + (f", errors {error:.1g} px" if error else "")
        ax.quiverkey(drawn, 0.1, 1.04, largest, text, labelpos="E", facecolor="black")
    else:
        ax.set_title("no distortion", loc="left")
    ax.set(xlabel="x (px)", ylabel="y (px)", aspect="equal")
    ax.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5))
    return ax


def _shift(wcs, x, y):
    """Displacement (px) by the distortion at pixels (x, y)."""
    place = wcs.pix2foc(np.ravel(x), np.ravel(y), 0)
    return [np.reshape(p, np.shape(x)) - q for p, q in zip(place, (x, y), strict=True)]


def _area(wcs, x, y):
    """Area, in pixels without distortion, that the pixel at (x, y) covers."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    half = 0.5
    (xr, yr), (xl, yl) = _shift(wcs, x + half, y), _shift(wcs, x - half, y)
    (xu, yu), (xd, yd) = _shift(wcs, x, y + half), _shift(wcs, x, y - half)
    return (1 + xr - xl) * (1 + yu - yd) - (xu - xd) * (yr - yl)


def field_map(x, y, value, *, label, ax=None):
    """Colour each star of a frame by a number, such as its FWHM: shows what changes over the field.

    Parameters
    ----------
    x, y : array-like of float, shape (n,)
        Positions in pixels.
    value : array-like of float, shape (n,)
        The number; colours span its 5 % to 95 % range.
    label : str
        What the number is, with its unit: ``"FWHM (px)"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    x, y, value = finite_rows(x, y, value)
    low, high = np.percentile(value, [5, 95]) if value.size else (0, 1)
    ax = new_axes(ax)
    dots = ax.scatter(x, y, c=value, cmap="viridis", vmin=low, vmax=high, s=16)
    ax.figure.colorbar(dots, ax=ax, label=label)
    ax.set(xlabel="x (px)", ylabel="y (px)", aspect="equal")
    return ax
