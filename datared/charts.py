"""Figures of results: diagrams of stars, calibrations. Reached through `plots`."""

import matplotlib.pyplot as plt
import numpy as np

__all__ = [
    "colour_magnitude",
    "growth_curve",
    "scatter_magnitude",
    "separations",
    "size_magnitude",
    "zero_point",
]

#: Okabe and Ito's colours by name.
COLOURS = {
    "blue": "#0072B2",
    "red": "#D55E00",
    "green": "#009E73",
    "pink": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
}
BLUE, RED = COLOURS["blue"], COLOURS["red"]
#: Curves and notes on top of data; a middle grey is seen on white and on dark pages.
GREY = "#777777"


def new_axes(ax, *, projection=None):
    """Return the given axes, or those of a new figure."""
    return plt.figure().add_subplot(projection=projection) if ax is None else ax


def finite_rows(*columns):
    """Columns as float arrays without the rows in which one of them is not finite."""
    arrays = [np.ma.filled(np.ma.asarray(c, dtype=float), np.nan) for c in columns]
    good = np.all(np.isfinite(arrays), axis=0)
    return [array[good] for array in arrays]


def growth_curve(radii, fraction, *, best=None, unit="px", ax=None):
    """Share of a star's light inside an aperture against its radius.

    Parameters
    ----------
    radii : array-like of float, shape (nr,)
        Radii of the apertures.
    fraction : array-like of float, shape (nr,) or (n_star, nr)
        Shares of the light; of many stars, the median is drawn over thin lines.
    best : float, optional
        Radius to mark.
    unit : str
        Unit of the radii: ``"px"``, ``"arcsec"`` or ``"FWHM"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    fraction = np.atleast_2d(np.ma.filled(np.ma.asarray(fraction, dtype=float), np.nan))
    fraction = fraction[np.isfinite(fraction).any(axis=1)]
    ax = new_axes(ax)
    if len(fraction) > 1:
        ax.plot(radii, fraction.T, color=COLOURS["sky"], linewidth=0.5, alpha=0.5)
    ax.plot(radii, np.nanmedian(fraction, axis=0), "o-", color=BLUE)
    ax.axhline(1, color=GREY, linewidth=0.8)
    if best is not None:
        ax.axvline(best, color=RED, linestyle="--", label=f"chosen: {best:.3g} {unit}")
        ax.legend()
    ax.set(xlabel=f"radius of the aperture ({unit})", ylabel="share of the light")
    return ax


def size_magnitude(magnitude, size, *, saturated=None, unit="px", ax=None):
    """Width of each source against its magnitude: stars make a horizontal "chimney".

    Parameters
    ----------
    magnitude : array-like of float, shape (n,)
        Instrumental magnitudes.
    size : array-like of float, shape (n,)
        FWHM. Cosmic rays and hot pixels lie below the stars, galaxies and blends above.
    saturated : array-like of bool, shape (n,), optional
        Stars to draw as crosses.
    unit : str
        Unit of the sizes.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    flagged = np.zeros(len(magnitude), bool) if saturated is None else np.asarray(saturated, bool)
    ax = new_axes(ax)
    magnitude, size, flagged = finite_rows(magnitude, size, flagged)
    flagged = flagged > 0
    ax.plot(magnitude[~flagged], size[~flagged], ".", color=BLUE, label="stars")
    if flagged.any():
        ax.plot(magnitude[flagged], size[flagged], "x", color=RED, label="saturated")
        ax.legend()
    ax.set(xlabel="instrumental magnitude (mag)", ylabel=f"FWHM ({unit})")
    return ax


def colour_magnitude(
    colour, magnitude, *, colour_err=None, magnitude_err=None, probability=None, model=None,
    model_label="isochrone", bands=("g", "r"), system="", label=None, ax=None,
):  # fmt: skip
    """Colour-magnitude diagram: bright stars at the top, red stars at the right.

    Parameters
    ----------
    colour, magnitude : array-like of float, shape (n,)
        Colour index (magnitude in the first band minus that in the second), and magnitude.
    colour_err, magnitude_err : array-like of float, shape (n,), optional
        Error bars.
    probability : array-like of float, shape (n,), optional
        Probability of each star to be a member (0 to 1), shown as its colour: the darker, the more
        probable. A star without one is an open circle.
    model : (array-like, array-like), optional
        Colours and magnitudes of a model isochrone, with distance and extinction applied; a row
        that is not finite makes a gap.
    model_label : str
        Name of the model in the legend.
    bands : (str, str)
        Bands of the colour; a third entry is the band of the magnitude (by default the first).
    system : str
        Magnitude system for the label, such as ``"PS1 AB"``.
    label : str, optional
        Name of the stars in the legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw; its magnitude axis is turned round if it is not yet.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    ax = new_axes(ax)
    if probability is not None:
        _draw_members(ax, colour, magnitude, colour_err, magnitude_err, probability, label)
    elif colour_err is None and magnitude_err is None:
        ax.plot(*finite_rows(colour, magnitude), ".", label=label)
    else:
        ax.errorbar(
            colour, magnitude, xerr=colour_err, yerr=magnitude_err, fmt=".", elinewidth=0.6,
            ecolor=GREY, label=label,
        )  # fmt: skip
    if model is not None:
        ax.plot(*(np.asarray(m, float) for m in model), color=RED, zorder=3, label=model_label)
    unit = f"mag, {system}" if system else "mag"
    ax.set(
        xlabel=f"{bands[0]} - {bands[1]} (mag)", ylabel=f"{bands[-1 if bands[2:] else 0]} ({unit})"
    )
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    return ax


def _draw_members(ax, colour, magnitude, colour_err, magnitude_err, probability, label):
    """Draw stars in the colour of their probability, the probable ones on top."""
    colour, magnitude, probability = (
        np.ma.filled(np.ma.asarray(a, dtype=float), np.nan)
        for a in (colour, magnitude, probability)
    )
    if colour_err is not None or magnitude_err is not None:
        ax.errorbar(
            colour, magnitude, xerr=colour_err, yerr=magnitude_err, fmt="none", elinewidth=0.6,
            ecolor=GREY, zorder=1,
        )  # fmt: skip
    unknown = ~np.isfinite(probability)
    if unknown.any():
        ax.plot(
            colour[unknown], magnitude[unknown], "o", markersize=3, color=GREY, fillstyle="none",
            label="membership not known",
        )  # fmt: skip
    order = np.argsort(np.where(unknown, -1.0, probability), kind="stable")[unknown.sum() :]
    dots = ax.scatter(
        colour[order], magnitude[order], c=probability[order], cmap="cividis_r", vmin=0, vmax=1,
        s=12, zorder=2, label=label,
    )  # fmt: skip
    ax.figure.colorbar(dots, ax=ax, label="probability to be a member")


def scatter_magnitude(magnitude, scatter, *, expected=None, marked=None, unit="mag", ax=None):
    """Scatter of each star's light curve against its magnitude, with the noise that is expected.

    Parameters
    ----------
    magnitude, scatter : array-like of float, shape (n,)
        Mean magnitude and robust scatter of the stars.
    expected : dict of str to (array-like, array-like), optional
        Curves by name: magnitudes and noise, for instance ``{"photons": (m, s), "sky": (m, t)}``.
    marked : dict of str to array-like of int, optional
        Rows of stars to mark, by name: ``{"target": [3], "variable": [7, 9]}``.
    unit : str
        Unit of the scatter.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the scatter is on a logarithmic scale.
    """
    ax = new_axes(ax)
    ax.plot(*finite_rows(magnitude, scatter), ".", color=BLUE, label="stars")
    styles = ["-", "--", ":", "-."]
    for i, (name, curve) in enumerate((expected or {}).items()):
        m, s = finite_rows(*curve)
        order = np.argsort(m)
        ax.plot(m[order], s[order], color=GREY, linestyle=styles[i % 4], label=name)
    for (name, rows), style in zip((marked or {}).items(), "s^Dv*" * 9, strict=False):
        m, s = (np.asarray(a, float)[np.asarray(rows, int)] for a in (magnitude, scatter))
        ax.plot(m, s, style, color=RED, fillstyle="none", markersize=8, label=name)
    ax.set(yscale="log", xlabel="magnitude (mag)", ylabel=f"scatter ({unit})")
    ax.legend()
    return ax


def zero_point(magnitude, difference, *, value=None, scatter=None, used=None, ax=None):
    """Catalogue minus instrumental magnitude of the stars: a horizontal band is a zero point.

    Parameters
    ----------
    magnitude : array-like of float, shape (n,)
        Magnitudes from the catalogue (or colours: then set the label of the axis yourself).
    difference : array-like of float, shape (n,)
        Catalogue magnitude minus instrumental magnitude.
    value, scatter : float, optional
        Zero point and scatter of one star, drawn as a line and a band.
    used : array-like of bool, shape (n,), optional
        Stars that made the zero point; the others are drawn as crosses.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    used = np.ones(len(magnitude), bool) if used is None else np.asarray(used, bool)
    magnitude, difference, used = finite_rows(magnitude, difference, used)
    used = used > 0
    ax = new_axes(ax)
    ax.plot(magnitude[used], difference[used], ".", color=BLUE, label=f"used ({used.sum()})")
    if not used.all():
        left = f"left out ({(~used).sum()})"
        ax.plot(magnitude[~used], difference[~used], "x", color=RED, label=left)
    if value is not None:
        ax.axhline(value, color=GREY, label=f"zero point {value:.3f} mag")
        if scatter is not None:
            ax.axhspan(value - scatter, value + scatter, color=GREY, alpha=0.2, linewidth=0)
    ax.set(xlabel="catalogue magnitude (mag)", ylabel="catalogue - instrumental (mag)")
    ax.legend()
    return ax


def separations(separation, *, radius=None, ax=None):
    """Histogram of the distances of matched stars: a good match has a peak well inside the limit.

    Parameters
    ----------
    separation : array-like of float, shape (n,)
        Distances in arcseconds.
    radius : float, optional
        Limit of the match in arcseconds.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    (separation,) = finite_rows(separation)
    ax = new_axes(ax)
    ax.hist(separation, bins=40, color=BLUE)
    if radius is not None:
        ax.axvline(radius, color=RED, linestyle="--", label=f"limit {radius:.2g} arcsec")
        ax.legend()
    ax.set(xlabel="separation (arcsec)", ylabel="number of stars")
    return ax
