"""Figures of errors: which noise rules where, and whether the error bars are true."""

import numpy as np

from .charts import COLOURS, GREY, RED, finite_rows, new_axes

__all__ = ["noise_budget", "pull_histogram"]

#: Colour and hatch of each layer: the hatch tells them apart without colour.
LAYERS = (
    ("orange", ""), ("sky", "//"), ("blue", ""), ("green", "xx"), ("pink", ""), ("red", ".."),
    ("black", ""),
)  # fmt: skip


def noise_budget(x, variances, *, label, legend=True, ax=None):
    """Share of each source of noise in the variance, as stacked layers: what rules where.

    Parameters
    ----------
    x : array-like of float, shape (n,)
        What the budget is drawn against: magnitudes, fluxes, radii.
    variances : dict of str to array-like of float, shape (n,)
        Variance from each source, all in one unit, from the lowest layer up. At most seven.
    label : str
        What ``x`` is, with its unit: ``"radius (px)"``.
    legend : bool
        Name the layers in a legend above the axes.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the layers add up to 100 % at each ``x``.

    Raises
    ------
    ValueError
        If there are no variances, more than seven, or negative ones.
    """
    if not 1 <= len(variances) <= len(LAYERS):
        raise ValueError(f"{len(variances)} sources of noise: give 1 to {len(LAYERS)}")
    x, *parts = finite_rows(x, *(np.broadcast_to(v, np.shape(x)) for v in variances.values()))
    parts = np.array(parts)
    if np.any(parts < 0):
        names = [name for name, part in zip(variances, parts, strict=True) if np.any(part < 0)]
        raise ValueError(f"a variance is not negative; look at {', '.join(names)}")
    # Where there is no variance at all there are no shares of it.
    some = parts.sum(axis=0) > 0
    x, parts = x[some], parts[:, some]
    order = np.argsort(x)
    share = 100 * parts / parts.sum(axis=0)
    ax = new_axes(ax)
    layers = ax.stackplot(
        x[order], share[:, order], labels=list(variances), edgecolor="white", linewidth=0.6
    )
    for layer, (colour, hatch) in zip(layers, LAYERS, strict=False):
        layer.set(facecolor=COLOURS[colour], hatch=hatch)
    ax.set(xlabel=label, ylabel="share of the variance (%)", ylim=(0, 100))
    ax.margins(x=0)
    if legend:
        # The legend reads like the layers: the topmost first.
        handles, names = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def pull_histogram(pulls, *, label=None, limit=5.0, ax=None):
    """Histogram of pulls with the normal curve of width 1, which they follow if errors are true.

    Parameters
    ----------
    pulls : array-like of float
        Deviations divided by their errors, of any shape; what is not finite does not count.
    label : str, optional
        Name of the measurements in the legend.
    limit : float
        Pulls beyond are counted in the outermost bins, so that none is hidden.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.
    """
    (pulls,) = finite_rows(np.ravel(np.ma.filled(np.ma.asarray(pulls, dtype=float), np.nan)))
    ax = new_axes(ax)
    bins = np.linspace(-limit, limit, 51)
    inside = np.clip(pulls, bins[0], bins[-1])
    ax.hist(inside, bins=bins, density=pulls.size > 0, color=COLOURS["sky"], label=label)
    grid = np.linspace(-limit, limit, 201)
    normal = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    ax.plot(grid, normal, color=RED, label="normal, width 1")
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set(xlabel="pull: deviation / error", ylabel="measurements (share per unit)")
    ax.legend()
    return ax
