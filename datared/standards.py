r"""Zero points of a night from frames of standard stars, outside of the atmosphere.

The frames of a standard field are calibrated as those of the night, placed by the scale and the
orientation of the night's solved frames, and measured with the night's apertures. What is wanted:

.. math:: m = m_{inst} + ZP_0 - k X + c \, (m_1 - m_2)

with the instrumental magnitude of all the light, the airmass X, the extinction k and the colour
term c.
"""

from pathlib import Path

import numpy as np
from astropy.table import Table
from scipy.spatial import cKDTree

from .assembly import photometry_files, read_photometry
from .errors import DataredError
from .growth import aperture_correction
from .products import Manifest, Task, atomic_path, run_tasks
from .standardfields import measure_standards, standard_frames
from .standardfit import solve_standards

__all__ = ["epoch_zero_points", "measure_standards", "standard_solution"]

#: Neighbours with more than this share of a star's light spoil its curve of growth.
ALONE = 0.02


def standard_solution(night):
    """Solve for zero points outside of the atmosphere, with extinction and colour terms.

    Parameters
    ----------
    night : Night
        A night with photometry and ``[magnitudes] standards``.

    Returns
    -------
    astropy.table.Table
        One row for each filter, also in ``work/standards.ecsv``: ``filter``, ``zero_point_0`` and
        ``zero_point_0_err`` (at airmass 0 and colour 0, for all the light of a star),
        ``extinction`` (mag per airmass), ``extinction_err``, ``extinction_source`` ("given",
        "fitted", "site"), ``colour`` (such as "B-V", empty for none), ``colour_term``,
        ``colour_term_err``, ``colour_source`` ("fitted", "published", "none"), ``colour_mean``
        and ``airmass`` (means of the standards), ``zero_point`` (at that airmass),
        ``zero_point_err``, ``scatter`` (mag, of one measurement beyond its error), ``n_stars``,
        ``n_frames``, ``n`` (measurements used), ``system``. The single measurements are in
        ``work/standardstars.ecsv``, see `measure_standards`. What is current is not made again.

    Raises
    ------
    ConfigError
        If the night has no standards, or no frame of them.
    DataredError
        If no standard star could be measured, or the extinction is not known.
    """
    lights = standard_frames(night)
    product, single = night.work / "standards.ecsv", night.work / "standardstars.ecsv"
    made = [night.work / name for name in ("astrometry.ecsv", "matching.ecsv")]
    files = [night.magnitudes.standards, *photometry_files(night.work), *made]
    files += [Path(str(path)) for path in lights["path"]]
    parts = {name: getattr(night, name) for name in ("camera", "site", "photometry")}
    task = Task(
        product,
        tuple(path for path in files if path.is_file()),
        {"extinction": night.magnitudes.extinction, **parts},
        _solve,
        (night, product, single),
        extra=(single,),
    )
    outcome = run_tasks([task], manifest=Manifest(night.work), label="standards")[0]
    if outcome.status == "failed":
        raise DataredError(outcome.reason)
    solution = Table.read(product, format="ascii.ecsv")
    for name in solution.colnames:
        if solution[name].dtype.kind in "UO":  # An empty text comes back from the file as masked.
            solution[name] = [str(text) for text in np.ma.filled(solution[name], "")]
    return solution


def _solve(night, product, single):
    """Task: measure the standards, fit them and write both tables."""
    measured = measure_standards(night)
    site = night.site
    solution, measured = solve_standards(
        measured,
        height=None if site is None else site.height,
        extinction=night.magnitudes.extinction,
        filters=dict.fromkeys(np.asarray(read_photometry(night).epochs["filter"]).astype(str)),
    )
    if not len(solution):
        raise DataredError(
            f"none of {len(measured)} measurements of standard stars is without flags, in a filter "
            "of the catalogue and with an airmass (give [site] where the headers have none)"
        )
    for table, path in ((measured, single), (solution, product)):
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")
    return {"stars": len(measured)}


def epoch_zero_points(photometry, solution, *, radius=None):
    """Give the zero point of every epoch of a night, for one of its apertures.

    Zero points of `standard_solution` are for all the light of a star. What an aperture lacks is
    measured on each frame, on its bright stars that stand alone.

    Parameters
    ----------
    photometry : datared.forced.Photometry
        Measurements of the night.
    solution : astropy.table.Table
        Result of `standard_solution`.
    radius : int, optional
        Index of the aperture; the night's default where it is not given.

    Returns
    -------
    astropy.table.Table
        One row for each epoch, in its order: ``file``, ``epoch``, ``filter``, ``exptime``,
        ``airmass``, ``correction`` (of the aperture, added to magnitudes), ``correction_err``,
        ``zero_point`` (at colour 0; NaN where there is none), ``error``, ``common_error`` (the part
        that all epochs of a filter share: the standards' and the extinction's), ``n`` (stars of
        the aperture correction), ``colour``, ``colour_term``, ``colour_term_err``, ``pivot``
        (colour of the standards, where the error of the colour term does nothing), ``system``,
        ``reason``.
    """
    radius = photometry.default_radius if radius is None else radius
    last = photometry.flux.shape[2] - 1
    epochs = photometry.epochs
    known = {str(row["filter"]): row for row in solution}
    rows = []
    for k, epoch in enumerate(epochs):
        name, air = str(epoch["filter"]), float(epoch["airmass"])
        alone = _alone(photometry, k, radius)
        found = aperture_correction(
            photometry.flux[alone, k], photometry.flux_err[alone, k],
            flags=photometry.flags[alone, k], radius=radius, reference=last,
        )  # fmt: skip
        row = {
            **{key: epoch[key] for key in ("file", "epoch", "filter", "exptime")},
            **{"airmass": air, "correction": 0.0, "correction_err": 0.0, "n": found.n_stars},
            **{"zero_point": np.nan, "error": np.nan, "colour": "", "colour_term": 0.0},
            **{"colour_term_err": 0.0, "pivot": 0.0, "system": "instrumental", "reason": ""},
            "common_error": np.nan,
        }
        if radius != last:
            row["correction"], row["correction_err"] = found.magnitude, found.error
        if name in known:
            standard = known[name]
            away = air - float(standard["airmass"])
            row["zero_point"] = (
                float(standard["zero_point"]) - standard["extinction"] * away + row["correction"]
            )
            row["common_error"] = float(
                np.hypot(standard["zero_point_err"], standard["extinction_err"] * away)
            )
            row["error"] = float(np.hypot(row["common_error"], row["correction_err"]))
            row["pivot"] = float(np.nan_to_num(standard["colour_mean"]))
            for key in ("colour", "colour_term", "colour_term_err", "system"):
                row[key] = standard[key]
        row["reason"] = _why(row, name in known)
        rows.append(row)
    return Table(rows)


def _why(row, standards):
    """Say why an epoch has no zero point; empty where it has one."""
    if not standards:
        return f"no standard star was measured in {row['filter']}"
    if not np.isfinite(row["airmass"]):
        return "the airmass is not known: give [site]"
    return "" if np.isfinite(row["zero_point"]) else "no bright star stands alone on the frame"


def _alone(photometry, k, radius):
    """Stars of an epoch with little light of others around, out to the largest aperture."""
    place = np.column_stack([photometry.x[:, k], photometry.y[:, k]])
    flux = np.nan_to_num(photometry.flux[:, k, radius])
    rows = np.flatnonzero(np.isfinite(place).all(axis=1))
    reach = photometry.epochs["radii"][k][-1] + 0.5 * np.nan_to_num(photometry.epochs["fwhm"][k])
    result = np.zeros(len(flux), bool)
    for i, near in zip(
        rows, cKDTree(place[rows]).query_ball_point(place[rows], reach), strict=True
    ):
        others = np.maximum(flux[rows[near]], 0).sum() - max(flux[i], 0)
        result[i] = flux[i] > 0 and others <= ALONE * flux[i]
    return result
