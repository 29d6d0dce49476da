"""Light curves: the target against its comparison stars, with errors that hold the ensemble's.

The steps on arrays come from `datared.ensemble` (comparison stars) and `datared.binning`.
"""

import logging
import warnings

import numpy as np
from astropy.table import Table

from .assembly import photometry_files, read_photometry
from .binning import align_sides, bin_by_count, bin_by_time
from .ensemble import (
    Ensemble,
    comparison_stars,
    ensemble,
    leave_one_out,
    level_sides,
    median_correction,
    spread,
    usable,
)
from .errors import ConfigError, DataredError, DataredWarning
from .photometry import SATURATED
from .products import Manifest, Task, atomic_path, run_tasks

__all__ = [
    "CLOUDY",
    "Ensemble",
    "align_sides",
    "bin_by_count",
    "bin_by_time",
    "comparison_stars",
    "differential_light_curve",
    "differential_night",
    "ensemble",
    "leave_one_out",
    "median_correction",
    "spread",
]

log = logging.getLogger("datared.lightcurve")

#: Flag of an epoch in which the comparison stars have lost more than 30 % of their light; joins
#: those of `datared.photometry.FLAG_NAMES`.
CLOUDY = 1024
CLOUD_LIMIT = 0.7

#: Fewer comparison stars than this, and stars of more different brightness are allowed.
FEW_STARS = 3


def differential_light_curve(photometry, *, star=None, filter=None, radius=None, comparison=()):
    """Light curve of a star against comparison stars.

    The radius is the one in which the comparison stars scatter least against each other. Neither it
    nor the choice of the stars looks at how the target changes.

    Parameters
    ----------
    photometry : datared.forced.Photometry
        Measurements of the night.
    star : int, optional
        The star; the night's target by default.
    filter : str, optional
        The filter; needed where the night has several.
    radius : int, optional
        Index of the radius.
    comparison : sequence of int
        Comparison stars, chosen by `comparison_stars` where it is empty.

    Returns
    -------
    curve, comparisons : astropy.table.Table
        The curve has one row for each epoch in the order of time: ``epoch``, ``file``, ``filter``,
        ``exptime``, ``bjd_tdb_mid``, ``jd_utc_mid``, ``airmass``, ``flux`` (relative, 1 in the
        median), ``flux_err`` (with that of the ensemble), ``delta_mag`` and ``delta_mag_err``
        (target minus ensemble), ``raw`` and ``raw_err`` (counts per second), ``transparency`` and
        ``transparency_err`` (the ensemble), ``n_comparison``, ``flags`` (of the star, and
        `CLOUDY`), ``cloudy``, ``flipped``, ``fwhm``, ``sky``, ``x``, ``y``. For the other table see
        `comparison_stars`; it has ``ra`` and ``dec`` too.

    Raises
    ------
    ConfigError
        If the filters are mixed, or a name is not known.
    DataredError
        If there is no star to compare with.
    """
    rows = _epochs_of(photometry, filter)
    star = _star_of(photometry, star)
    epochs = photometry.epochs[rows]
    flux, error, flags = (
        part[:, rows] for part in (photometry.flux, photometry.flux_err, photometry.flags)
    )
    side = np.asarray(epochs["flipped"], bool)
    rate = np.asarray(epochs["exptime"], float)[None, :, None]
    flux, error = flux / rate, error / rate
    first = photometry.default_radius if radius is None else radius
    if not 0 <= first < flux.shape[2]:
        raise ConfigError(f"radius {radius} is not an index of the radii {photometry.radii}")
    chosen = _choose(
        flux[:, :, first], error[:, :, first], flags[:, :, first], star, comparison, side
    )
    used = np.flatnonzero(chosen["used"])
    floor = _excess(chosen, used)
    scatters = [_scatter(flux, error, flags, used, k, floor, side) for k in range(flux.shape[2])]
    if radius is None and len(used) > 1 and np.isfinite(scatters).any():
        radius = int(np.nanargmin(scatters))
        chosen = _choose(
            flux[:, :, radius], error[:, :, radius], flags[:, :, radius], star, comparison, side
        )
        used = np.flatnonzero(chosen["used"])
    radius = first if radius is None else radius
    good = usable(flux[used, :, radius], error[used, :, radius], flags[used, :, radius])
    common = ensemble(
        np.where(good, flux[used, :, radius], np.nan),
        np.where(good, error[used, :, radius], np.nan),
        floor=_excess(chosen, used),
        side=side,
    )
    curve = _curve(epochs, flux[star, :, radius], error[star, :, radius], common)
    curve["flags"] = flags[star, :, radius] | np.where(curve["cloudy"], CLOUDY, 0)
    for name, part in (("sky", photometry.sky), ("x", photometry.x), ("y", photometry.y)):
        curve[name] = part[star, rows]
    saturated = np.count_nonzero(curve["flags"] & SATURATED)
    if saturated:
        warnings.warn(
            f"star {star} is saturated in {saturated} of {len(curve)} epochs: its flux is a lower "
            "limit there",
            DataredWarning,
            stacklevel=2,
        )
    chosen["ra"], chosen["dec"] = photometry.stars["ra"], photometry.stars["dec"]
    curve.meta = {
        "star": int(star),
        "filter": str(epochs["filter"][0]) if len(epochs) else "",
        "radius": int(radius),
        "radius_value": float(photometry.radii[radius]),
        "radius_unit": photometry.radius_unit,
        "comparison": [int(k) for k in used],
        "scatter_by_radius": [round(float(value), 8) for value in scatters],
    }
    return curve, chosen


def differential_night(night, *, filter=None, radius=None, executor=None):
    """Light curve of a night's target.

    Parameters
    ----------
    night : Night
        A night with photometry. Its ``lightcurve.filter`` and ``lightcurve.comparison`` are used.
    filter : str, optional
        The filter instead of the night's.
    radius : int, optional
        Index of the radius; the one with the least scatter of the comparison stars by default.
    executor : object, optional
        Not needed: it takes less than a second.

    Returns
    -------
    astropy.table.Table
        As from `differential_light_curve`, with ``status`` and ``reason``; also in
        ``work/lightcurve.ecsv``, and the comparison stars in ``work/comparisons.ecsv``. A night
        without a target has one row with the status ``skipped``.

    Raises
    ------
    ConfigError
        If the night has several filters and none is named.
    DataredError
        If there is no photometry or no comparison star.
    """
    curve_path, stars_path = night.work / "lightcurve.ecsv", night.work / "comparisons.ecsv"
    photometry = read_photometry(night)
    if not np.any(photometry.stars["target"]):
        reason = "the night has no target with a position; set target_coord in its night file"
        log.info("no light curve: %s", reason)
        # A curve of an earlier run, when there was a target, must not pass for this one's.
        for path in (curve_path, stars_path):
            path.unlink(missing_ok=True)
        return Table({"file": [curve_path.name], "status": ["skipped"], "reason": [reason]})
    filter = night.lightcurve.filter if filter is None else filter
    _epochs_of(photometry, filter)  # What the user has to decide is asked before any work.
    options = {
        "filter": filter,
        "radius": radius,
        "comparison": tuple(int(star) for star in night.lightcurve.comparison),
    }
    task = Task(
        curve_path,
        photometry_files(night.work),
        options,
        _write_curve,
        (night.work, options, curve_path, stars_path),
        extra=(stars_path,),
    )
    outcome = run_tasks([task], manifest=Manifest(night.work))[0]
    if outcome.status == "failed":
        raise DataredError(f"there is no light curve: {outcome.reason}")
    curve = Table.read(curve_path, format="ascii.ecsv")
    curve["status"], curve["reason"] = outcome.status, ""
    return curve


def _epochs_of(photometry, filter):
    """Rows of the epochs in one filter; several are refused unless one is named."""
    names = np.asarray(photometry.epochs["filter"]).astype(str)
    found = sorted(set(names))
    if filter is None:
        if len(found) > 1:
            raise ConfigError(
                f"the night has the filters {', '.join(found)}: a light curve has one; name it "
                'with filter=... or [lightcurve] filter = "..."'
            )
        return np.arange(len(names))
    rows = np.flatnonzero(names == filter)
    if not len(rows):
        raise ConfigError(f"no epoch in filter {filter!r}; there are {', '.join(found)}")
    return rows


def _star_of(photometry, star):
    """Row of the star: the one that is named, or the target."""
    if star is None:
        rows = np.flatnonzero(photometry.stars["target"])
        if not len(rows):
            raise ConfigError("the star list has no target: name a star, or set target_coord")
        return int(rows[0])
    if not 0 <= star < len(photometry.stars):
        raise ConfigError(f"star {star} is not one of 0 to {len(photometry.stars) - 1}")
    return int(star)


def _choose(flux, error, flags, star, named, side):
    """Comparison stars; of more different brightness where there are few."""
    table = comparison_stars(flux, error, flags, target=star, named=named, side=side)
    if table["used"].sum() < FEW_STARS and not len(named):
        wider = comparison_stars(
            flux, error, flags, target=star, flux_range=(0.02, 50.0), side=side
        )
        if wider["used"].sum() > table["used"].sum():
            table = wider
    if not table["used"].any():
        reasons = [str(reason).split(" in ")[0].split(":")[0] for reason in table["reason"]]
        counts = {text: reasons.count(text) for text in dict.fromkeys(reasons)}
        told = "; ".join(f"{n} {text}" for text, n in counts.items())
        raise DataredError(
            f"no star to compare star {star} with ({told}). Name some with "
            "[lightcurve] comparison = [...]"
        )
    return table


def _scatter(flux, error, flags, used, radius, floor, side):
    """Scatter of the comparison stars against each other in one radius: the median of them."""
    flux, error, flags = (part[used, :, radius] for part in (flux, error, flags))
    good = usable(flux, error, flags)
    flux, error = np.where(good, flux, np.nan), np.where(good, error, np.nan)
    if len(used) < 2:
        return np.nan
    common = ensemble(flux, error, floor=floor, side=side)
    scatter = spread(level_sides(leave_one_out(flux, error, common)[0], side))
    return float(np.nanmedian(scatter)) if np.isfinite(scatter).any() else np.nan


def _excess(chosen, used):
    """Scatter that the comparison stars have beyond their errors, for the weights."""
    excess = chosen["scatter"][used] ** 2 - chosen["expected"][used] ** 2
    excess = excess[np.isfinite(excess)]
    return float(np.sqrt(max(np.median(excess), 0.0))) if len(excess) else 0.0


def _curve(epochs, flux, error, common):
    """Table of the star against the ensemble."""
    names = ("epoch", "file", "filter", "exptime", "bjd_tdb_mid", "jd_utc_mid", "airmass")
    curve = epochs[names].copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = flux / common.flux
        # In this form a star without light has an error too.
        ratio_err = np.hypot(error, ratio * common.error) / common.flux
        cloudy = common.flux < CLOUD_LIMIT
    clear = ratio[np.isfinite(ratio) & ~cloudy]
    level = (
        np.median(clear) if clear.size else np.nanmedian(ratio) if np.isfinite(ratio).any() else 1
    )
    curve["flux"], curve["flux_err"] = ratio / level, ratio_err / level
    with np.errstate(invalid="ignore", divide="ignore"):
        positive = np.where(ratio > 0, ratio / level, np.nan)
        curve["delta_mag"] = -2.5 * np.log10(positive)
        curve["delta_mag_err"] = 2.5 / np.log(10) * ratio_err / level / positive
    curve["raw"], curve["raw_err"] = flux, error
    curve["transparency"], curve["transparency_err"] = common.flux, common.error
    curve["n_comparison"], curve["cloudy"] = common.n, cloudy
    curve["flipped"], curve["fwhm"] = epochs["flipped"], epochs["fwhm"]
    return curve


def _write_curve(work, options, curve_path, stars_path):
    """Task: light curve and comparison stars of a night's target."""
    curve, chosen = differential_light_curve(read_photometry(work), **options)
    for table, path in ((curve, curve_path), (chosen, stars_path)):
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")
    return {"radius": curve.meta["radius"], "comparison": len(curve.meta["comparison"])}
