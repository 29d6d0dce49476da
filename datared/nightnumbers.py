"""Numbers of a night's own photometry that questions of the course ask for."""

import numpy as np

from .apertures import NEIGHBOUR
from .assembly import read_photometry
from .magnitudes import star_magnitudes, zero_points

__all__ = ["magnitude_numbers", "photometry_numbers"]

#: Radii whose scatter is this close to the smallest one are as good.
AS_GOOD = 0.03


def photometry_numbers(night):
    r"""Answer the questions of the page on photometry from the tables of a night.

    Parameters
    ----------
    night : Night or Photometry
        A night with photometry, or its tables.

    Returns
    -------
    dict of str to float
        ``flip_scatter``: scatter, in per cent, of the mean flux after the meridian flip over that
        before, of the stars without flags and with a signal-to-noise ratio of more than 100 on all
        frames in r. ``photons_rule``: per cent of the measurements without flags and with a
        signal-to-noise ratio of more than 5 in which the photons of the star, :math:`F / g`, make
        more than half of :math:`\sigma_F^2`. ``neighbours_small`` and ``neighbours_large``: per
        cent of all measurements with the flag *neighbour* in the smallest and in the largest
        radius. ``correction``: median over the stars that on the first frame have no flag and a
        signal-to-noise ratio of more than 100 in all radii, of
        :math:`-2.5 \log_{10}(F_\mathrm{next} / F_\mathrm{smallest})`, in magnitudes, from the
        smallest radius to the next one; ``correction_largest``: to the largest radius. The first
        two are in the default radius. A number that the night does not tell (no gain, no flip, one
        radius only, too few stars) is NaN.

    Raises
    ------
    DataredError
        If the night has no photometry yet.
    """
    phot = night if hasattr(night, "flux_err") else read_photometry(night)
    k = phot.default_radius
    flux, error, flags = (a[:, :, k] for a in (phot.flux, phot.flux_err, phot.flags))
    # The sum over nothing is zero and 0 / 0 is NaN: a table without rows tells nothing.
    with np.errstate(invalid="ignore"):
        neighbour = 100 * np.sum((phot.flags & NEIGHBOUR) > 0, axis=(0, 1)) / np.float64(flux.size)
    order = np.argsort(phot.radii)
    small, following, large = order[0], order[min(1, len(order) - 1)], order[-1]
    return {
        "flip_scatter": _flip_scatter(flux, error, flags, phot.epochs),
        "photons_rule": _photons_rule(flux, error, flags, phot.gain),
        "neighbours_small": float(neighbour[small]),
        "neighbours_large": float(neighbour[large]),
        "correction": _correction(phot, small, following),
        "correction_largest": _correction(phot, small, large),
    }


def magnitude_numbers(night):
    r"""Answer the questions about the scatter of magnitudes from the tables of a night.

    Parameters
    ----------
    night : Night or Photometry
        A night with photometry, or its tables.

    Returns
    -------
    dict of str to float
        For the filter i (or the first one of a night that has no i), and stars that in every
        radius have no flag and a scatter from at least three exposures. ``best_radius_low`` and
        ``best_radius_high``: the smallest and the largest radius (in units of the table's) with the
        least median scatter or at most 3 % more. ``largest_over_best``: median scatter with the
        largest radius over the least one. ``smallest_over_best``: the same for the smallest radius.
        ``repeat_chi2``: median of ``chi2`` in the default radius, over the stars without a flag
        that have all exposures. NaN where the night does not tell.

    Raises
    ------
    DataredError
        If the night has no photometry yet.
    """
    phot = night if hasattr(night, "flux_err") else read_photometry(night)
    names = ("best_radius_low", "best_radius_high", "largest_over_best", "smallest_over_best")
    names = (*names, "repeat_chi2")
    filters = [str(name) for name in phot.epochs["filter"]]
    if not filters or not phot.flux.size:
        return dict.fromkeys(names, np.nan)
    band = "i" if "i" in filters else filters[0]
    tables = [star_magnitudes(phot, zero_points(phot, radius=k)) for k in range(phot.flux.shape[2])]
    clean = [np.asarray(t[f"{band}_flags"]) == 0 for t in tables]
    scatter = [np.ma.filled(np.ma.asarray(t[f"{band}_scatter"], float), np.nan) for t in tables]
    often = [np.asarray(t[f"{band}_n"]) >= 3 for t in tables]
    use = np.all([*clean, *often, *np.isfinite(scatter)], axis=0)
    default = phot.default_radius
    chi2 = np.ma.filled(np.ma.asarray(tables[default][f"{band}_chi2"], float), np.nan)
    n = np.asarray(tables[default][f"{band}_n"])
    # A frame lost to a cloud has no star at all: then "all exposures" are all others.
    repeated = clean[default] & np.isfinite(chi2) & (n == n.max())
    if use.sum() < 5 or repeated.sum() < 5:
        return dict.fromkeys(names, np.nan)
    order = np.argsort(phot.radii)
    typical = np.median(np.array(scatter)[order][:, use], axis=1)
    good = np.asarray(phot.radii)[order][typical <= (1 + AS_GOOD) * typical.min()]
    ratio = typical / typical.min()
    values = (good.min(), good.max(), ratio[-1], ratio[0], np.median(chi2[repeated]))
    return dict(zip(names, map(float, values), strict=True))


def _photons_rule(flux, error, flags, gain):
    """Per cent of the good measurements whose variance is mostly the photons of the star."""
    with np.errstate(invalid="ignore"):
        good = (flags == 0) & (flux > 5 * error)
    if not gain or not good.any():
        return np.nan
    return float(100 * np.mean(flux[good] / gain > error[good] ** 2 / 2))


def _correction(phot, small, large):
    """Magnitudes from a small to a large radius on the first frame."""
    if small == large or not phot.flux.size:
        return np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        strong = np.all(phot.flux[:, 0] > 100 * phot.flux_err[:, 0], axis=1)
    strong &= np.all(phot.flags[:, 0] == 0, axis=1)
    if not strong.any():
        return np.nan
    ratio = phot.flux[strong, 0, large] / phot.flux[strong, 0, small]
    return float(np.median(-2.5 * np.log10(ratio)))


def _flip_scatter(flux, error, flags, epochs):
    """Scatter (per cent, from the MAD) of the ratio of the mean fluxes after and before."""
    mine = np.asarray(epochs["filter"]) == "r"
    flipped = np.asarray(epochs["flipped"], bool)
    before, after = mine & ~flipped, mine & flipped
    if not (before.any() and after.any()):
        return np.nan
    with np.errstate(invalid="ignore"):
        use = np.all((flags == 0) & (flux > 100 * error), axis=1, where=mine)
    if use.sum() < 5:
        return np.nan
    ratio = flux[use][:, after].mean(axis=1) / flux[use][:, before].mean(axis=1)
    ratio /= np.median(ratio)
    return float(100 * 1.4826 * np.median(np.abs(ratio - 1)))
