"""Numbers of a night's own photometry that questions of the course ask for."""

import numpy as np

from .apertures import NEIGHBOUR
from .assembly import read_photometry

__all__ = ["photometry_numbers"]


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
