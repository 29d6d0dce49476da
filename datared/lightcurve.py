"""Light curves: the target against its comparison stars, with errors that hold the ensemble's.

The steps on arrays come from `datared.comparison`, `datared.ensemble` and `datared.binning`.
"""

import logging
import warnings

import numpy as np
from astropy.table import Table

from .assembly import photometry_files, read_photometry
from .binning import align_sides, bin_by_count, bin_by_time
from .comparison import comparison_stars, star_colours, star_distances, usable
from .ensemble import level_sides, median_correction, solve_ensemble, spread, sum_ensemble
from .errors import ConfigError, DataredError, DataredWarning
from .photometry import BAD_PIXEL, SATURATED
from .products import Manifest, Task, atomic_path, run_tasks
from .trends import learn_trends

__all__ = [
    "CLOUDY",
    "align_sides",
    "bin_by_count",
    "bin_by_time",
    "comparison_stars",
    "differential_light_curve",
    "differential_night",
    "median_correction",
    "solve_ensemble",
    "spread",
    "sum_ensemble",
]

log = logging.getLogger("datared.lightcurve")

#: Flag of an epoch in which the comparison stars have lost more than 30 % of their light; joins
#: those of `datared.photometry.FLAG_NAMES`.
CLOUDY = 1024
CLOUD_LIMIT = 0.7

#: Ways to put comparison stars together.
METHODS = {"ensemble": solve_ensemble, "sum": sum_ensemble}

#: Fewer comparison stars than this, and stars of more different brightness are allowed.
FEW_STARS = 3

#: The radius is chosen by the half of the comparison stars that is most like the target, but not
#: by fewer than this.
LEAST_ALIKE = 5


def differential_light_curve(
    photometry, *, star=None, filter=None, radius=None, comparison=(), method="ensemble"
):
    """Light curve of a star against comparison stars.

    The radius is the one in which comparison stars as bright as the target scatter least against
    each other. Neither it nor the choice of the stars looks at how the target changes.

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
    method : str
        ``ensemble`` for `solve_ensemble`, or ``sum`` for `sum_ensemble`.

    Returns
    -------
    curve, comparisons : astropy.table.Table
        The curve has one row for each epoch in the order of time: ``epoch``, ``file``, ``filter``,
        ``exptime``, ``bjd_tdb_mid``, ``jd_utc_mid``, ``airmass``, ``flux`` (relative, 1 in the
        median), ``flux_err`` (with that of the ensemble), ``delta_mag`` and ``delta_mag_err``
        (target minus ensemble), ``raw`` and ``raw_err`` (counts per second), ``transparency`` and
        ``transparency_err`` (the ensemble), ``n_comparison``, ``flags`` (of the star, and
        `CLOUDY`), ``cloudy``, ``flipped``, ``fwhm``, ``sky``, ``x``, ``y``. For the other table see
        `comparison_stars`; it has ``ra`` and ``dec`` too. ``meta["trends"]`` of the curve says how
        strongly its comparison stars follow slow changes, see `datared.trends.learn_trends`.

    Raises
    ------
    ConfigError
        If the filters are mixed, or a name is not known.
    DataredError
        If there is no star to compare with, or the star was measured in no epoch.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is not one of {', '.join(METHODS)}")
    rows = _epochs_of(photometry, filter)
    rows = rows[np.argsort(np.asarray(photometry.epochs["jd_utc_mid"])[rows], kind="stable")]
    _tell_copies(photometry.epochs[rows])
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
    like = {"target": star, "named": comparison, "side": side}
    like |= {"colour": star_colours(photometry.stars)}
    like["distance"] = star_distances(photometry.stars, star)
    chosen = _choose(flux[:, :, first], error[:, :, first], flags[:, :, first], **like)
    used = np.flatnonzero(chosen["used"])
    alike = _alike(chosen)
    scatters = [_scatter(flux, error, flags, alike, k, side, method) for k in range(flux.shape[2])]
    if radius is None and np.isfinite(scatters).any():
        radius = int(np.nanargmin(scatters))
        chosen = _choose(flux[:, :, radius], error[:, :, radius], flags[:, :, radius], **like)
        used = np.flatnonzero(chosen["used"])
    radius = first if radius is None else radius
    found = _solve(flux, error, flags, [star, *used], radius, side, method)
    if not found.n.any():
        raise DataredError(
            f"none of the {len(used)} comparison stars is measured in every epoch, as their sum "
            'needs it: use [lightcurve] method = "ensemble", or name other stars'
        )
    if len(used) < FEW_STARS and not len(comparison):
        warnings.warn(
            f"only {len(used)} comparison star{'s' * (len(used) > 1)}: if one varies, the light "
            "curve shows it, and nothing can tell",
            DataredWarning,
            stacklevel=2,
        )
    curve = _curve(epochs, flux[star, :, radius], error[star, :, radius], found)
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
        "method": method,
        "radius": int(radius),
        "radius_value": float(photometry.radii[radius]),
        "radius_unit": photometry.radius_unit,
        "comparison": [int(k) for k in used],
        "scatter_by_radius": [round(float(value), 8) for value in scatters],
        **learn_trends(curve, found),
    }
    return curve, chosen


def differential_night(night, *, filter=None, radius=None, executor=None):
    """Light curve of a night's target.

    Parameters
    ----------
    night : Night
        A night with photometry. Its table ``[lightcurve]`` is used.
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
        "method": night.lightcurve.method,
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


def _tell_copies(epochs):
    """Warn of frames of the same time: one may be a copy of the other."""
    same = np.flatnonzero(np.diff(np.asarray(epochs["jd_utc_mid"])) == 0)
    if len(same):
        log.warning(
            "%d frames have the same time as the one before (%s and %s are the first): is one a "
            "copy of the other? Exclude it in the night file",
            len(same), epochs["file"][same[0]], epochs["file"][same[0] + 1],
        )  # fmt: skip


def _choose(flux, error, flags, *, named, **like):
    """Comparison stars; of more different brightness where there are few."""
    table = comparison_stars(flux, error, flags, named=named, **like)
    if table["used"].sum() < FEW_STARS and not len(named):
        wider = comparison_stars(flux, error, flags, flux_range=(0.02, 50.0), **like)
        if wider["used"].sum() > table["used"].sum():
            table = wider
    if not table["used"].any():
        reasons = [str(reason).split(" in ")[0].split(":")[0] for reason in table["reason"]]
        reasons = [text.split(" by ")[0] for text in reasons if text != "the target"]
        counts = {text: reasons.count(text) for text in dict.fromkeys(reasons)}
        told = "; ".join(f"{n} {text}" for text, n in counts.items()) or "there is no other star"
        raise DataredError(
            f"no star to compare star {like['target']} with ({told}). Name some with "
            "[lightcurve] comparison = [...]"
        )
    return table


def _alike(chosen):
    """Rows of the comparison stars by which the radius is chosen: most like the target in flux."""
    rows = np.flatnonzero(chosen["used"])
    unlike = np.abs(np.log(np.asarray(chosen["ratio"])[rows]))
    return rows[np.sort(np.argsort(unlike, kind="stable")[: max(len(rows) // 2, LEAST_ALIKE)])]


def _clean(flux, error, flags, rows, radius, method):
    """Fluxes and errors of comparison stars in one radius, NaN where they are not to be used."""
    flux, error, flags = (part[rows, :, radius] for part in (flux, error, flags))
    # No term of a sum may be missing: there pixels that were filled in are better than none.
    flags = flags & ~BAD_PIXEL if method == "sum" else flags
    return np.where(usable(flux, error, flags), flux, np.nan), error


def _solve(flux, error, flags, rows, radius, side, method):
    """Solve for the comparison stars in one radius; the first row is the star and has no vote."""
    clean, clean_err = _clean(flux, error, flags, rows, radius, method)
    clean[0] = flux[rows[0], :, radius]
    return METHODS[method](clean, clean_err, exclude=[0], side=side)


def _scatter(flux, error, flags, rows, radius, side, method):
    """Scatter of comparison stars against each other in one radius: the median of them."""
    found = METHODS[method](*_clean(flux, error, flags, rows, radius, method), side=side)
    scatter = spread(level_sides(found.curves, side))
    return float(np.nanmedian(scatter)) if np.isfinite(scatter).any() else np.nan


def _curve(epochs, flux, error, found):
    """Table of the star against the ensemble."""
    names = ("epoch", "file", "filter", "exptime", "bjd_tdb_mid", "jd_utc_mid", "airmass")
    curve = epochs[names].copy()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = flux / found.flux
        # In this form a star without light has an error too.
        common = np.hypot(found.error / found.flux, found.excess)
        ratio_err = np.hypot(error / found.flux, ratio * common)
        cloudy = found.flux < CLOUD_LIMIT
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
    curve["transparency"], curve["transparency_err"] = found.flux, found.error
    curve["n_comparison"], curve["cloudy"] = found.n, cloudy
    curve["flipped"], curve["fwhm"] = epochs["flipped"], epochs["fwhm"]
    return curve


def _write_curve(work, options, curve_path, stars_path):
    """Task: light curve and comparison stars of a night's target."""
    curve, chosen = differential_light_curve(read_photometry(work), **options)
    for table, path in ((curve, curve_path), (chosen, stars_path)):
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")
    return {"radius": curve.meta["radius"], "comparison": len(curve.meta["comparison"])}
