"""Figures of a colour-magnitude diagram: which cut removed which star, members before and after."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .charts import BLUE, COLOURS, GREY, colour_magnitude, finite_rows
from .diagramtable import KEPT, floats

__all__ = ["diagram_before_after", "motions_before_after", "night_figure", "show_cuts"]

#: Markers of the cuts; with the colours, what is cut is told apart by its shape.
MARKERS = "xs^Dv*P<>+"


def _names(table):
    """Bands and system of a table, as `charts.colour_magnitude` takes them."""
    system = table["magnitude"].meta.get("system", "")
    return {"bands": tuple(table.meta["bands"]), "system": system}


def show_cuts(table, *, errors=True, ax=None):
    """Colour-magnitude diagram of the stars that stay, and of those that each cut removed.

    Parameters
    ----------
    table : astropy.table.Table
        From `datared.diagram.colour_magnitude_table`.
    errors : bool
        Draw the error bars of the stars that stay.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes. The legend has the number of stars of each cut, also of those that have no place
        in the diagram because a magnitude is missing.
    """
    cut = np.asarray(table["cut"]).astype(str)
    kept = cut == KEPT
    colour, magnitude = floats(table["colour"]), floats(table["magnitude"])
    bars = {}
    if errors:
        bars = {f"{n}_err": floats(table[f"{n}_err"])[kept] for n in ("colour", "magnitude")}
    ax = colour_magnitude(
        colour[kept], magnitude[kept], label=f"kept ({kept.sum()})", ax=ax, **bars, **_names(table)
    )
    kinds = np.array([text.rpartition(" (")[0] for text in cut])
    colours = [c for name, c in COLOURS.items() if name not in ("blue", "black")]
    for k, kind in enumerate(dict.fromkeys(kinds[~kept])):
        rows = kinds == kind
        ax.plot(
            colour[rows], magnitude[rows], MARKERS[k % len(MARKERS)], markersize=5,
            fillstyle="none", color=colours[k % len(colours)], label=f"{kind} ({rows.sum()})",
        )  # fmt: skip
    handles, labels = ax.get_legend_handles_labels()
    first = next(i for i, text in enumerate(labels) if text.startswith("kept ("))
    order = [first, *(i for i in range(len(labels)) if i != first)]
    ax.legend([handles[i] for i in order], [labels[i] for i in order], fontsize="small")
    return ax


def _two_axes(axes):
    """Two axes beside each other: those given, or those of a new figure."""
    if axes is None:
        axes = plt.figure(figsize=(9, 4.2), layout="constrained").subplots(1, 2)
    before, after = axes
    return before, after


def _same_limits(before, after):
    """Give the second axes the limits of the first, so that the two can be compared."""
    after.set(xlim=before.get_xlim(), ylim=before.get_ylim())


def diagram_before_after(table, keep, *, axes=None):
    """Colour-magnitude diagram of all good stars, and of those that are kept as members.

    Parameters
    ----------
    table : astropy.table.Table
        From `datared.diagram.colour_magnitude_table`. Stars that a quality cut removed are in
        neither.
    keep : array-like of bool, shape (n,)
        Stars kept as members, for instance ``table["membership"] > 0.5`` or also
        ``table["separation"] < 5``.
    axes : sequence of two matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        Before and after, with the same limits; after, the colour is the probability of the star
        where it is known.
    """
    before, after = _two_axes(axes)
    good = table[np.asarray(table["cut"]) == KEPT]
    colour_magnitude(floats(good["colour"]), floats(good["magnitude"]), ax=before, **_names(table))
    before.set_title(f"all stars ({len(good)})")
    _draw_members(table, keep, after)
    _same_limits(before, after)
    return [before, after]


def _draw_members(table, keep, ax):
    """Draw the stars that passed the cuts and are kept, in the colour of their probability."""
    keep = (np.asarray(table["cut"]) == KEPT) & np.ma.filled(np.ma.asarray(keep), False).astype(
        bool
    )
    stars = table[keep]
    probability = floats(stars["membership"])
    known = probability if np.isfinite(probability).any() else None
    place = floats(stars["colour"]), floats(stars["magnitude"])
    colour_magnitude(*place, probability=known, ax=ax, **_names(table))
    ax.set_title(f"members ({len(stars)})")


def motions_before_after(table, keep, *, axes=None):
    """Proper motions of all stars, and of those that are kept: a cluster is a narrow clump.

    Parameters
    ----------
    table : astropy.table.Table
        Columns ``pm_ra`` (with the cosine of the declination) and ``pm_dec`` (mas/yr).
    keep : array-like of bool, shape (n,)
        Stars kept as members.
    axes : sequence of two matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        Before and after, with the same limits, which hold 90 % of the stars and all that are kept.
    """
    before, after = _two_axes(axes)
    keep = np.ma.filled(np.ma.asarray(keep), False).astype(bool)
    all_stars = finite_rows(table["pm_ra"], table["pm_dec"])
    kept = finite_rows(table["pm_ra"][keep], table["pm_dec"][keep])
    before.plot(*all_stars, ".", markersize=3, color=BLUE)
    after.plot(*all_stars, ".", markersize=2, color=GREY, alpha=0.4, label="all stars")
    after.plot(*kept, ".", markersize=4, color=BLUE, label="members")
    after.legend()
    for ax, values, name in ((before, all_stars, "all stars"), (after, kept, "members")):
        ax.set(xlabel=r"$\mu_\alpha \cos\delta$ (mas/yr)", ylabel=r"$\mu_\delta$ (mas/yr)")
        ax.set_title(f"{name} ({len(values[0])})")
    for k, limits in enumerate((before.set_xlim, before.set_ylim)):
        if all_stars[k].size:
            low, high = np.percentile(all_stars[k], [5, 95])
            low, high = min(low, *kept[k], low), max(high, *kept[k], high)
            limits(low - 0.05 * (high - low) - 0.1, high + 0.05 * (high - low) + 0.1)
    before.invert_xaxis()  # East is at the left, as on the sky.
    _same_limits(before, after)
    return [before, after]


def night_figure(table):
    """Draw the figure of a night: the cuts; with proper motions, also members before and after.

    Parameters
    ----------
    table : astropy.table.Table
        From `datared.diagram.colour_magnitude_table`, with the proper motions where known.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, not shown and not saved; it needs no display.
    """
    probability = floats(table["membership"])
    if not np.isfinite(probability).any() or "pm_ra" not in table.colnames:
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        show_cuts(table, ax=figure.subplots())
        return figure
    figure = Figure(figsize=(11, 9.5), layout="constrained")
    rows = figure.subplots(2, 2)
    with np.errstate(invalid="ignore"):
        keep = probability >= 0.5
    motions_before_after(table, keep, axes=rows[0])
    show_cuts(table, ax=rows[1][0])
    _draw_members(table, keep, rows[1][1])
    _same_limits(*rows[1])
    return figure
