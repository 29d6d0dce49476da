"""Magnitudes of a night: a zero point for each epoch, a mean magnitude for each star and filter.

The formulas for one frame are in `datared.zeropoints` and can be used from here as well.
"""

import astropy.units as u
import numpy as np
from astropy.table import MaskedColumn, Table

from .apertures import BAD_PIXEL, EDGE, NEIGHBOUR, NO_POSITION, NO_WCS, OUTSIDE, SATURATED
from .assembly import photometry_files, read_photometry, require_photometry
from .errors import DataredError
from .products import Manifest, Task, atomic_path, run_tasks
from .repeats import means_of_repeats
from .zeropoints import (
    ZeroPoint,
    colour,
    instrumental_magnitude,
    jansky_per_adu,
    magnitude_error,
    passband,
    to_jansky,
    zero_point,
)

__all__ = [
    "ZeroPoint",
    "calibrate_night",
    "colour",
    "instrumental_magnitude",
    "jansky_per_adu",
    "magnitude_error",
    "passband",
    "star_magnitudes",
    "to_jansky",
    "zero_point",
    "zero_points",
]

#: System of magnitudes that are not compared with a catalogue.
INSTRUMENTAL = "instrumental"

#: A measurement with one of these is no magnitude; with a doubtful one only if there is no other.
UNUSABLE = EDGE | OUTSIDE | SATURATED | NO_POSITION | NO_WCS
DOUBTFUL = BAD_PIXEL | NEIGHBOUR

#: Stars for a zero point have at least this signal-to-noise, for of the fainter ones a catalogue
#: and a frame list those that noise made brighter; fainter ones only where there are few.
MIN_SIGNALS = (20.0, 10.0, 5.0)
ENOUGH_STARS = 10


def calibrate_night(night, *, executor=None):
    """Calibrate a night: a zero point for each epoch, a magnitude for each star and filter.

    A filter whose passband the catalogue has gets the median zero point of each epoch. A filter
    that it has not keeps instrumental magnitudes; what differs between its epochs for all stars
    (airmass, haze) is removed by the median difference.

    Parameters
    ----------
    night : Night
        A night with photometry.
    executor : object, optional
        Not needed: it takes less than a second.

    Returns
    -------
    astropy.table.Table
        One row for each epoch, also in ``work/zeropoints.ecsv``: ``file``, ``epoch``, ``filter``,
        ``exptime``, ``zero_point`` (NaN where there is none), ``error``, ``scatter``, ``n``,
        ``offset`` (to be added to the instrumental magnitude), ``system``, ``status``, ``reason``.
        The magnitudes are in ``work/magnitudes.ecsv``: ``star``, ``ra``, ``dec``, and for each
        filter ``<f>``, ``<f>_err``, ``<f>_scatter``, ``<f>_chi2`` (per degree of freedom),
        ``<f>_n``, ``<f>_flags``.

    Raises
    ------
    DataredError
        If there is no photometry.
    """
    require_photometry(night)
    product = night.work / "magnitudes.ecsv"
    points = night.work / "zeropoints.ecsv"
    task = Task(
        product,
        photometry_files(night.work),
        {"radius": night.photometry.default_radius},
        _calibrate,
        (night.work, product, points),
        extra=(points,),
    )
    outcome = run_tasks([task], manifest=Manifest(night.work), label="magnitudes")[0]
    if outcome.status == "failed":
        raise DataredError(f"the magnitudes failed: {outcome.reason}")
    table = Table.read(points, format="ascii.ecsv")
    ok = table["offset"].astype(float)
    table["status"] = np.where(np.isfinite(ok), outcome.status, "failed")
    return table


def _calibrate(work, product, points):
    """Task: write both tables of a night."""
    photometry = read_photometry(work)
    zeropoints = zero_points(photometry)
    magnitudes = star_magnitudes(photometry, zeropoints)
    for table, path in ((zeropoints, points), (magnitudes, product)):
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")
    return {"stars": len(magnitudes), "epochs": len(zeropoints)}


def zero_points(photometry, *, radius=None):
    """Zero point of every epoch; see `calibrate_night`.

    Parameters
    ----------
    photometry : datared.forced.Photometry
        Measurements.
    radius : int, optional
        Index of the aperture; the default radius by default.

    Returns
    -------
    astropy.table.Table
        One row for each epoch.
    """
    radius = photometry.default_radius if radius is None else radius
    flux, error = photometry.flux[:, :, radius], photometry.flux_err[:, :, radius]
    exposure = np.asarray(photometry.epochs["exptime"], float)
    magnitude = instrumental_magnitude(flux, exposure)
    flagged = photometry.flags[:, :, radius] != 0
    table = photometry.epochs["file", "epoch", "filter", "exptime"].copy()
    n = len(table)
    for name in ("zero_point", "error", "scatter"):
        table[name] = np.full(n, np.nan)
    table["n"], table["offset"] = np.zeros(n, int), np.full(n, np.nan)
    system, reason = [INSTRUMENTAL] * n, [""] * n
    names = np.asarray(photometry.epochs["filter"]).astype(str)
    for name in dict.fromkeys(names):
        epochs = np.flatnonzero(names == name)
        column = f"cat_{passband(name)}"
        if column in photometry.stars.colnames:
            catalogue = photometry.stars[column]
            for k in epochs:
                for limit in MIN_SIGNALS:
                    with np.errstate(invalid="ignore"):
                        exclude = flagged[:, k] | ~(flux[:, k] > limit * error[:, k])
                    found = zero_point(magnitude[:, k], catalogue, exclude=exclude)
                    if found.n >= ENOUGH_STARS:
                        break
                table["zero_point"][k], table["error"][k] = found.value, found.error
                table["scatter"][k], table["n"][k] = found.scatter, found.n
                table["offset"][k], system[k] = found.value, found.system
                if not found.n or np.isnan(found.value):
                    reason[k] = f"only {found.n} stars of the catalogue, 3 are needed"
        # Instrumental: no catalogue in this band, or no frame with enough of its stars.
        if not np.isfinite(table["offset"][epochs]).any():
            with np.errstate(invalid="ignore"):
                exclude = flagged | ~(flux > MIN_SIGNALS[-1] * error)
            table["offset"][epochs] = common_offsets(magnitude[:, epochs], exclude[:, epochs])
            for k in epochs:
                system[k] = INSTRUMENTAL
                reason[k] = reason[k] or f"no {passband(name)} magnitudes in the catalogue"
    table["system"], table["reason"] = system, reason
    table.meta = {"radius": radius}
    return table


def common_offsets(magnitude, exclude):
    """Offsets that bring the epochs of one filter to a common level.

    ``-c(t)`` with ``c(t) = median_k [m_k(t) - median_t m_k]``, in the median over the epochs zero.

    Parameters
    ----------
    magnitude : numpy.ndarray of float, shape (n_star, n_epoch)
        Magnitudes.
    exclude : numpy.ndarray of bool, shape (n_star, n_epoch)
        Measurements not to use.

    Returns
    -------
    numpy.ndarray of float, shape (n_epoch,)
        To be added; NaN for an epoch without a star.
    """
    magnitude = np.ma.masked_invalid(np.where(exclude, np.nan, magnitude))
    # A star seen in a few epochs only has another median: the common stars come first.
    seen = magnitude.count(axis=1)
    common = magnitude[seen == seen.max()] if seen.size and seen.max() > 0 else magnitude[:0]
    if not len(common):
        return np.zeros(magnitude.shape[1]) if magnitude.shape[1] == 1 else _nan(magnitude)
    change = common - np.ma.median(common, axis=1, keepdims=True)
    offset = -np.ma.median(change, axis=0).filled(np.nan)
    return offset - np.nanmedian(offset)


def _nan(magnitude):
    """NaN for each epoch."""
    return np.full(magnitude.shape[1], np.nan)


def star_magnitudes(photometry, zeropoints):
    """Mean magnitude of every star in every filter; see `calibrate_night`.

    Fluxes are brought to one zero point and averaged with their inverse variances, which are freed
    of the star's own noise: a star that happened to be bright would have a larger error and count
    less. Of three measurements or more, a single one that is far from the others (a satellite's
    trail, a particle) is left out and not counted in ``<f>_n``; so it is in ``chi2`` and
    ``scatter``. A star whose mean flux is not positive has a masked magnitude; one that is
    saturated has none and is still listed, with its flag.

    Parameters
    ----------
    photometry : datared.forced.Photometry
        Measurements.
    zeropoints : astropy.table.Table
        Result of `zero_points`.

    Returns
    -------
    astropy.table.Table
        One row for each star.
    """
    radius = zeropoints.meta["radius"]
    stars = photometry.stars
    table = stars["star", "ra", "dec"].copy()
    table.meta = {"radius": radius}
    names = np.asarray(zeropoints["filter"]).astype(str)
    for name in dict.fromkeys(names):
        offset = np.asarray(zeropoints["offset"], float)
        epochs = np.flatnonzero((names == name) & np.isfinite(offset))
        flux, error, flags = (
            part[:, epochs, radius]
            for part in (photometry.flux, photometry.flux_err, photometry.flags)
        )
        unit = 10 ** (-0.4 * offset[epochs]) / np.asarray(zeropoints["exptime"], float)[epochs]
        # The error of a zero point is common to all stars of its epoch, not to the epochs.
        common = np.nan_to_num(np.asarray(zeropoints["error"], float)[epochs]) / 1.0857
        values = _mean_fluxes(flux * unit, error * unit, flags, unit, common, photometry.gain)
        mean, sigma, scatter, chi2, n, bits = values
        magnitude = instrumental_magnitude(mean, 1.0)
        columns = {
            name: magnitude,
            f"{name}_err": magnitude_error(mean, sigma),
            f"{name}_scatter": magnitude_error(mean, scatter),
            f"{name}_chi2": chi2,
        }
        systems = [str(zeropoints["system"][k]) for k in epochs] or [INSTRUMENTAL]
        for key, value in columns.items():
            table[key] = MaskedColumn(value, mask=~np.isfinite(value))
            if not key.endswith("_chi2"):
                table[key].unit = u.mag
                table[key].meta["system"] = systems[0]
        table[f"{name}_n"], table[f"{name}_flags"] = n, bits
    return table


def _mean_fluxes(flux, error, flags, unit, common, gain):
    """Weighted mean, its error, scatter, chi2, number and flags for every star (axis 0)."""
    usable = np.isfinite(flux) & np.isfinite(error) & ((flags & UNUSABLE) == 0)
    clean = usable & ((flags & DOUBTFUL) == 0)
    used = np.where(clean.any(axis=1)[:, None], clean, usable)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.where(used, error**2, np.inf)
        # The median: one trail or particle must not decide what photons are expected.
        first = np.ma.median(np.ma.masked_array(flux, ~used), axis=1).filled(np.nan)[:, None]
        variance = variance + np.where(used, (first * common) ** 2, 0)
        if gain:
            # Photons expected from the median flux in place of those that came.
            photons = (np.maximum(first, 0) - np.maximum(flux, 0)) * unit / gain
            variance = np.where(used, np.maximum(variance + photons, 0.1 * variance), np.inf)
        snr = first[:, 0] / np.sqrt(variance.min(axis=1, initial=np.inf))
        used, mean, sigma, *_ = means_of_repeats(flux, variance, 1 / variance, snr)
        n = used.sum(axis=1)
        away = np.where(used, flux - mean[:, None], 0)
        scatter = np.sqrt(np.sum(away**2, axis=1) / np.where(n > 1, n - 1, np.nan))
        chi2 = np.sum(away**2 / variance, axis=1) / np.where(n > 1, n - 1, np.nan)
    seen = np.where(used.any(axis=1)[:, None], used, True)
    bits = np.bitwise_or.reduce(np.where(seen, flags, 0), axis=1, initial=0)
    return mean, sigma, scatter, chi2, n, bits
