"""Magnitudes of a night: a zero point for each epoch, a mean magnitude for each star and filter.

The formulas for one frame are in `datared.zeropoints`, the solution of all frames in
`datared.zeropointfit`; they can be used from here as well.
"""

import astropy.units as u
import numpy as np
from astropy.table import MaskedColumn, Table

from .apertures import BAD_PIXEL, NEIGHBOUR
from .assembly import photometry_files, read_photometry, require_photometry
from .errors import DataredError
from .instrumental import (
    colour,
    instrumental_magnitude,
    magnitude_error,
    passband,
    plain_values,
)
from .janskys import image_to_jansky, jansky_per_adu, to_jansky
from .products import Manifest, Task, atomic_path, run_tasks
from .repeats import means_of_repeats
from .standards import standard_solution
from .starcolours import apply_colour_terms
from .systems import transform
from .zeropointframes import UNUSABLE, catalogue_colour, colour_bands
from .zeropoints import ZeroPoint, colour_term, ransac_zero_point, zero_point
from .zeropointtables import (
    INSTRUMENTAL,
    NOTHING,
    between_epochs,
    empty_points,
    from_catalogue,
    from_standards,
    repeated_frames,
)

__all__ = [
    "ZeroPoint",
    "calibrate_night",
    "colour",
    "colour_term",
    "image_to_jansky",
    "instrumental_magnitude",
    "jansky_per_adu",
    "magnitude_error",
    "passband",
    "ransac_zero_point",
    "star_magnitudes",
    "to_jansky",
    "zero_point",
    "zero_points",
]

#: A measurement with one of these is in a mean only if there is no other.
DOUBTFUL = BAD_PIXEL | NEIGHBOUR


def calibrate_night(night, *, executor=None):
    """Calibrate a night: a zero point for each epoch, a magnitude for each star and filter.

    How is said by ``night.magnitudes`` (`datared.options.MagnitudeOptions`). A filter whose
    passband the catalogue has gets a zero point for each epoch, and with the method ``"global"`` a
    colour term. With ``standards`` zero points come from the frames of a standard field instead. A
    filter without either keeps instrumental magnitudes; what differs between its epochs for all
    stars (airmass, haze) is removed by the median difference.

    Parameters
    ----------
    night : Night
        A night with photometry.
    executor : object, optional
        Not needed: it takes about a second.

    Returns
    -------
    astropy.table.Table
        One row for each epoch, also in ``work/zeropoints.ecsv``: see `zero_points`, and ``status``.
        The magnitudes are in ``work/magnitudes.ecsv``: see `star_magnitudes`.

    Raises
    ------
    DataredError
        If there is no photometry, or an option does not fit the catalogue.
    """
    require_photometry(night)
    options = night.magnitudes
    product = night.work / "magnitudes.ecsv"
    points = night.work / "zeropoints.ecsv"
    settings = {"method": options.method, "colour": options.colour}
    settings["transformation"] = options.transformation
    inputs, standards = list(photometry_files(night.work)), None
    if options.standards is not None:
        standards = standard_solution(night)
        inputs.append(night.work / "standards.ecsv")
    task = Task(
        product,
        inputs,
        {"radius": night.photometry.default_radius} | settings,
        _calibrate,
        (night.work, product, points, settings, standards),
        extra=(points,),
    )
    outcome = run_tasks([task], manifest=Manifest(night.work), label="magnitudes")[0]
    if outcome.status == "failed":
        raise DataredError(f"the magnitudes failed: {outcome.reason}")
    table = Table.read(points, format="ascii.ecsv")
    ok = table["offset"].astype(float)
    table["status"] = np.where(np.isfinite(ok), outcome.status, "failed")
    return table


def _calibrate(work, product, points, settings, standards):
    """Task: write both tables of a night."""
    photometry = read_photometry(work)
    zeropoints = zero_points(photometry, standards=standards, **settings)
    magnitudes = star_magnitudes(photometry, zeropoints)
    for table, path in ((zeropoints, points), (magnitudes, product)):
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")
    return {"stars": len(magnitudes), "epochs": len(zeropoints)}


def zero_points(
    photometry, *, radius=None, method="global", colour="auto", transformation="", standards=None
):
    """Zero point of every epoch.

    A zero point belongs to its aperture: it also makes up for the light that the aperture lacks.
    Take the radius of the fluxes that it is for.

    Parameters
    ----------
    photometry : datared.forced.Photometry
        Measurements.
    radius : int, optional
        Index of the aperture; the default radius by default.
    method, colour, transformation : str
        See `datared.options.MagnitudeOptions`. Each frame alone (``"median"``, ``"ransac"``) has
        no colour term.
    standards : astropy.table.Table, optional
        Result of `datared.standards.standard_solution`: its filters get their zero points from it.

    Returns
    -------
    astropy.table.Table
        One row for each epoch: ``file``, ``epoch``, ``filter``, ``exptime``, ``zero_point`` (at
        colour 0; NaN where there is none), ``error``, ``frame_error`` (the part of it that other
        epochs do not share), ``scatter`` (of one star), ``n``, ``offset`` (to be added to the
        instrumental magnitude), ``colour`` (such as ``g-i``, empty for none), ``colour_term``,
        ``colour_term_err``, ``airmass``, ``system``, ``reason`` (why there is none, or what is
        unusual). ``meta["filters"]`` has for each filter what `datared.zeropointfit` found:
        extinction, scatters, the error that all epochs share.

    Raises
    ------
    DataredError
        If the colour or the transformation does not fit the catalogue.
    """
    radius = photometry.default_radius if radius is None else radius
    flux, error, flags = (
        part[:, :, radius] for part in (photometry.flux, photometry.flux_err, photometry.flags)
    )
    stars = photometry.stars
    if transformation:
        stars = transform(stars, transformation, prefix="cat_")
    table = empty_points(photometry.epochs)
    names = np.asarray(table["filter"]).astype(str)
    filters = [str(name) for name in dict.fromkeys(names)]
    bands = colour_bands(stars, filters, colour) if method == "global" else ()
    repeats = repeated_frames(flux, table)
    numbers = {}
    for name in filters:
        epochs = np.array([k for k in np.flatnonzero(names == name) if k not in repeats], int)
        part = flux[:, epochs], error[:, epochs], flags[:, epochs]
        if f"cat_{passband(name)}" in stars.colnames:
            numbers[name] = from_catalogue(table, epochs, part, stars, bands, method)
        # Instrumental: no catalogue in this band, or no frame with enough of its stars.
        if not np.isfinite(table["offset"][epochs]).any():
            numbers[name] = between_epochs(table, epochs, part)
    for k, first in repeats.items():
        table["reason"][k] = f"the same frame as {table['file'][first]}"
    if standards is not None:
        numbers |= from_standards(table, photometry, standards, radius, repeats)
    table.meta = {"radius": int(radius), "method": method, "filters": numbers}
    table.meta["transformation"] = transformation
    for name in ("colour", "system", "reason"):
        table[name] = table[name].astype(str)  # As texts of any length they cannot be written.
    return table


def star_magnitudes(photometry, zeropoints):
    """Mean magnitude of every star in every filter.

    Fluxes are brought to one zero point and averaged with their inverse variances, which are freed
    of the star's own noise: a star that happened to be bright would have a larger error and count
    less. Of three measurements or more, a single one that is far from the others (a satellite's
    trail, a particle) is left out and not counted in ``<f>_n``; so it is in ``chi2`` and
    ``scatter``. A star whose mean flux is not positive has a masked magnitude; one that is
    saturated has none and is still listed, with its flag.

    With a colour term ``m = m_inst + ZP + c C``, and the colour C of a star comes from these
    magnitudes themselves, else from the catalogue, else it is the median of the stars' colours
    (see `datared.starcolours`).

    Parameters
    ----------
    photometry : datared.forced.Photometry
        Measurements.
    zeropoints : astropy.table.Table
        Result of `zero_points`.

    Returns
    -------
    astropy.table.Table
        One row for each star: ``star``, ``ra``, ``dec``, and for each filter ``<f>``, ``<f>_err``
        (with the error that the zero points have in common), ``<f>_scatter``, ``<f>_chi2`` (per
        degree of freedom), ``<f>_n``, ``<f>_flags``.
    """
    radius = zeropoints.meta["radius"]
    stars = photometry.stars
    names = np.asarray(zeropoints["filter"]).astype(str)
    offset = np.asarray(zeropoints["offset"], float)
    own_error = "frame_error" if "frame_error" in zeropoints.colnames else "error"
    own_error = np.nan_to_num(plain_values(zeropoints[own_error]))
    columns, levels, terms = {}, {}, {}
    for name in dict.fromkeys(names):
        epochs = np.flatnonzero((names == name) & np.isfinite(offset))
        flux, error, flags = (
            part[:, epochs, radius]
            for part in (photometry.flux, photometry.flux_err, photometry.flags)
        )
        unit = 10 ** (-0.4 * offset[epochs]) / np.asarray(zeropoints["exptime"], float)[epochs]
        # The error of a zero point is common to all stars of its epoch, not to the epochs.
        frame = own_error[epochs] / 1.0857
        values = _mean_fluxes(flux * unit, error * unit, flags, unit, frame, photometry.gain)
        mean, sigma, scatter, chi2, n, bits = values
        levels[name] = instrumental_magnitude(mean, 1.0), magnitude_error(mean, sigma)
        columns[name] = {"scatter": magnitude_error(mean, scatter), "chi2": chi2}
        columns[name] |= {"n": n, "flags": bits}
        terms[name] = _terms(zeropoints, name, epochs)
    if name := zeropoints.meta.get("transformation"):
        stars = transform(stars, name, prefix="cat_")
    levels = apply_colour_terms(levels, terms, lambda *asked: catalogue_colour(stars, *asked))
    table = stars["star", "ra", "dec"].copy()
    table.meta = {"radius": radius, "filters": terms}
    for name, found in columns.items():
        found = {"": levels[name][0], "err": levels[name][1]} | found
        for key, value in found.items():
            column = f"{name}_{key}" if key else name
            is_number = key in ("n", "flags")
            table[column] = value if is_number else MaskedColumn(value, mask=~np.isfinite(value))
            if key in ("", "err", "scatter"):
                table[column].unit = u.mag
                table[column].meta["system"] = terms[name]["system"]
    return table


def _terms(zeropoints, name, epochs):
    """Colour term and system of a filter, with what its epochs have in common."""
    numbers = zeropoints.meta.get("filters", {}).get(name, NOTHING)
    row = {"system": INSTRUMENTAL, "colour": "", "colour_term": 0.0, "colour_term_err": np.nan}
    if epochs.size and "colour" in zeropoints.colnames:
        row = {key: zeropoints[key][epochs[0]] for key in row}
        row |= {key: float(row[key]) for key in ("colour_term", "colour_term_err")}
    elif epochs.size:
        row["system"] = zeropoints["system"][epochs[0]]
    # A text that was read from a file may be masked where it is empty.
    row |= {key: "" if np.ma.is_masked(row[key]) else str(row[key]) for key in ("system", "colour")}
    common = {key: float(np.nan_to_num(numbers[key])) for key in ("common_error", "pivot")}
    return row | common


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
