"""One fit of the transit in a light curve, with all that is chosen chosen out of transit.

The priors are of the night file; neither the mid-time nor the radius of the planet has one.
"""

import numpy as np
from astropy.table import Table

from .baselines import numbers as floats
from .detrending import flag_outliers
from .ephemeris import Ephemeris
from .errors import DataredError
from .rednoise import red_noise
from .transit import transit_duration
from .transitbaseline import transit_baseline
from .transitfit import TransitFit, fit_trapezoid
from .transitposterior import CERTAIN, Normal, Uniform, sample_transit

__all__ = ["FEWEST", "measure_transit", "too_few", "usable_epochs"]

#: Fewer epochs that can be used, and nothing is fitted.
FEWEST = 10
#: Radius of a planet of which none is published: only the window depends on it, by little.
USUAL_RADIUS = 0.1
#: What the light curve measures; the rest of the posterior comes from its priors.
MEASURED = (
    *("mid_time", "radius_ratio", "depth", "depth_mid", "depth_ppt", "depth_mag", "duration"),
    *("start", "end"),
)


def measure_transit(curve, options, *, seed=0, max_steps=6000):
    """Measure the transit in a light curve.

    Epochs with clouds and single wild values are left out (`datared.detrending.flag_outliers`). The
    columns of the baseline and their priors are of the epochs that the ephemeris puts out of
    transit, and of the comparison stars (`datared.transitbaseline.transit_baseline`), never of the
    dip. Then there is one fit, with uniform priors for the mid-time (within the window) and for the
    radius, and the errors are enlarged by the red noise of its residuals.

    Parameters
    ----------
    curve : astropy.table.Table
        Light curve, from `datared.lightcurve.differential_light_curve`.
    options : TransitOptions
        What is known of the planet; only a trapezoid is fitted where that is nothing.
    seed : int
        Seed of the sampler.
    max_steps : int
        Most steps of each walker.

    Returns
    -------
    numbers : dict
        Plain values, as in ``transit.json``: ``trapezoid``; with an ephemeris ``ephemeris`` and,
        where a transit was predicted, ``posterior``: of each parameter the ``median``, intervals of
        68 and 95 %, the ``error`` (half of the 68 % interval) and the ``error_red``, beta times as
        large where beta is above 1 (only of what the light curve measures); ``noise`` (scatter of
        the residuals, beta and its error); ``columns`` (of the fit), ``column_widths`` (of the
        priors of their coefficients, infinite where they are free), ``columns_reason``,
        ``pattern_width`` (noise of the flat under the drifting star, None where there is none) and
        ``pattern_columns`` (in how many columns it is), ``trend_stars`` (number of comparison stars
        that taught these) and ``columns_chosen`` (of the trapezoid); ``flagged``; ``notes`` (what a
        reader must know).
    table : astropy.table.Table
        One row for each epoch: time, flux, error, ``model`` (with the baseline), ``baseline``,
        ``residual``, ``outside`` (of the predicted transit), ``used``, ``reason``.
    columns : astropy.table.Table
        From `datared.detrending.choose_columns`; empty where nothing was chosen.
    samples : astropy.table.Table
        The posterior; empty where there is none.

    Raises
    ------
    DataredError
        If fewer than 10 epochs can be used.
    """
    used, reasons = usable_epochs(curve)
    problem = too_few(reasons)
    if problem:
        raise DataredError(problem)
    time = floats(curve, "bjd_tdb_mid")
    exposure = float(np.median(floats(curve, "exptime")[used])) / 86400
    numbers = _opening(curve, used, reasons)
    notes = numbers["notes"]
    outside, expected = np.ones(len(curve), bool), None
    if options.known:
        expected = _expected(options, time[used], exposure)
        outside = expected.pop("ephemeris").outside(
            time, duration=expected["duration"], margin=exposure / 2
        )
        numbers["ephemeris"] = expected
        _tell_window(notes, expected, time, outside, used)
    baseline = transit_baseline(curve, used=used, outside=outside, options=options)
    notes += baseline.notes
    sampled = expected is not None and expected["covered"] > 0
    columns = baseline.columns if sampled else baseline.chosen
    numbers["columns"] = [name for name in columns.colnames if name not in baseline.pattern]
    numbers["columns_reason"] = baseline.reason
    numbers["column_widths"] = {name: baseline.widths[name] for name in numbers["columns"]}
    numbers["pattern_width"] = max([baseline.widths[n] for n in baseline.pattern], default=None)
    numbers["pattern_columns"] = len(baseline.pattern)
    numbers["trend_stars"] = int(curve.meta.get("trend_stars", 0))
    numbers["columns_chosen"] = baseline.chosen.colnames
    # What is not used has a model all the same.
    data = (time, np.where(used, floats(curve, "flux"), np.nan), floats(curve, "flux_err"))
    numbers["trapezoid"], fit = _trapezoid(data, baseline.chosen, expected, exposure)
    samples = Table()
    if sampled:
        fit = _sample(data, baseline, options, expected, exposure, seed, max_steps)
        samples, columns = fit.samples, _told(fit, baseline)
    table = _epochs(curve, used, reasons, outside, fit, baseline.chosen)
    numbers["noise"] = _noise(table, columns)
    if len(samples):
        numbers["posterior"] = _posterior(fit, options, numbers["noise"], notes)
    return numbers, table, baseline.sets, samples


def usable_epochs(curve):
    """Tell which epochs of a light curve can be fitted.

    Parameters
    ----------
    curve : astropy.table.Table
        As from `datared.lightcurve.differential_light_curve`.

    Returns
    -------
    used : numpy.ndarray of bool
        Epochs with flux, error and time, without clouds and single wild values.
    reason : numpy.ndarray of str
        Why another one is not; empty where it is.
    """
    flags = flag_outliers(curve)
    reason = np.array(flags["reason"]).astype("U40")
    reason[(reason == "") & ~np.isfinite(floats(curve, "bjd_tdb_mid"))] = "no time"
    return reason == "", reason


def too_few(reason):
    """Say that too few epochs can be used for a transit, and why.

    Parameters
    ----------
    reason : numpy.ndarray of str
        Of each epoch, from `usable_epochs`.

    Returns
    -------
    str
        How many can be used, and how many are left out for what; empty where 10 can be used.
    """
    left = int(np.sum(reason == ""))
    if left >= FEWEST:
        return ""
    why = ", ".join(f"{n} {text}" for text, n in _counts(reason).items()) or "none"
    return f"{left} epochs can be used; a transit needs {FEWEST} (left out: {why})"


def _counts(reason):
    """Count the epochs of each reason for which some are left out."""
    return {str(text): int(np.sum(reason == text)) for text in np.unique(reason) if text}


def _opening(curve, used, reasons):
    """First of the numbers: what the light curve is."""
    return {
        "star": int(curve.meta["star"]) if "star" in curve.meta else None,
        "filter": str(curve.meta.get("filter", "")),
        "n_epochs": len(curve),
        "n_used": int(used.sum()),
        "flagged": _counts(reasons),
        "notes": [],
    }


def _expected(options, time, exposure):
    """Give what the ephemeris says of this night."""
    planet = Ephemeris(options.t0, options.period, options.t0_err, options.period_err)
    epoch = planet.epoch_of(float(np.median(time)))
    middle, error = planet.mid_time(epoch)
    duration = transit_duration(
        period=options.period,
        radius_ratio=USUAL_RADIUS if options.radius_ratio is None else options.radius_ratio,
        scaled_axis=options.scaled_axis[0],
        impact=options.impact[0],
    )
    half = duration / 2 + exposure / 2
    seen = np.abs(time - middle) < half
    return {
        "ephemeris": planet,
        "t0": options.t0, "t0_err": options.t0_err,
        "period": options.period, "period_err": options.period_err,
        "epoch": epoch, "mid_time": middle, "mid_time_err": error, "duration": duration,
        # Where the mid-time is looked for: as far as a transit may be late and still be this one.
        "window": [middle - duration / 2 - 3 * error, middle + duration / 2 + 3 * error],
        "covered": int(seen.sum()),
        "before": int(np.sum(time < middle - half)), "after": int(np.sum(time > middle + half)),
        "reference": options.reference,
    }  # fmt: skip


def _tell_window(notes, expected, time, outside, used):
    """Say what the epochs can tell of the predicted transit."""
    first, last = np.min(time[used]), np.max(time[used])
    if not expected["covered"]:
        notes.append(
            f"no transit is expected: the nearest is at BJD_TDB {expected['mid_time']:.5f} +- "
            f"{expected['mid_time_err']:.5f}, the epochs are from {first:.5f} to {last:.5f}"
        )
        return
    if not np.any(outside & used):
        notes.append("every epoch may be in transit: depth and level cannot be told apart well")
    elif not (expected["before"] and expected["after"]):
        missing = "after" if expected["before"] else "before"
        notes.append(
            f"partial transit: no epoch {missing} it, so that the baseline is extrapolated and the "
            "mid-time leans on the published duration"
        )


def _trapezoid(data, columns, expected, exposure):
    """Fit the trapezoid that a student fits, and give its numbers."""
    guess = {}
    if expected and expected["covered"]:
        guess = {"mid_time": expected["mid_time"], "duration": expected["duration"]}
    try:
        fit = fit_trapezoid(*data, baseline=_design(columns), exposure=exposure, **guess)
    except ValueError as problem:
        return {"reason": str(problem)}, None
    names = ("significant", "complete", "residual_scatter", "delta_bic")
    numbers = {"values": fit.values, "errors": fit.errors}
    return numbers | {name: getattr(fit, name) for name in names}, fit


def _design(columns):
    """Columns as an array; None without any."""
    names = columns.colnames
    return np.column_stack([columns[name] for name in names]) if names else None


def _sample(data, baseline, options, expected, exposure, seed, max_steps):
    """Sample the posterior, with priors for what is known only."""
    u1, u2 = options.limb_darkening
    width = options.limb_darkening_err
    priors = {
        "mid_time": Uniform(*expected["window"]),
        "scaled_axis": Normal(*options.scaled_axis),
        "impact": Normal(*options.impact),
        "u1": Normal(u1, width),
        "u2": Normal(u2, width),
    }
    columns = baseline.columns
    try:
        return sample_transit(
            *data,
            period=options.period,
            priors=priors,
            columns=columns if columns.colnames else None,
            column_widths=list(baseline.widths.values()) if columns.colnames else None,
            exposure=exposure,
            seed=seed,
            max_steps=max_steps,
        )
    except ValueError as error:
        raise DataredError(str(error)) from error


def _told(fit, baseline):
    """Columns whose coefficients the light curve tells more of than their priors do."""
    error = dict(zip(fit.coefficients["name"], fit.coefficients["error"], strict=True))
    # What the data tell of a coefficient is 1 - (error / width)^2 (MacKay 1992).
    names = [name for name, width in baseline.widths.items() if error[name] ** 2 < width**2 / 2]
    return baseline.columns[names] if names else Table()


def _epochs(curve, used, reasons, outside, fit, columns):
    """Table of the epochs with model and residual; NaN where nothing could be fitted."""
    names = [n for n in ("epoch", "file", "bjd_tdb_mid", "flux", "flux_err") if n in curve.colnames]
    table = curve[names].copy()
    table.meta = {}
    nothing = np.full(len(curve), np.nan)
    table["model"] = nothing if fit is None else fit.model
    table["baseline"] = nothing
    if isinstance(fit, TransitFit):
        parts = [] if _design(columns) is None else [_design(columns)]
        design = np.column_stack([np.ones(len(curve)), *parts])
        design[:, 1:] -= design[used, 1:].mean(axis=0)
        table["baseline"] = design @ fit.baseline
    elif fit is not None:
        table["baseline"] = fit.baseline
    table["residual"] = floats(table, "flux") - table["model"]
    table["outside"], table["used"], table["reason"] = outside, used, reasons
    return table


def _noise(table, columns):
    """Scatter of the residuals, and how much of it is not white."""
    used = np.asarray(table["used"], bool)
    residual = np.asarray(table["residual"], float)[used]
    if not np.isfinite(residual).all():
        return {"scatter": None, "beta": None, "reason": "nothing could be fitted"}
    time = floats(table, "bjd_tdb_mid")[used]
    dip = np.asarray(table["model"] / table["baseline"], float)[used] - 1
    # In the order of time, and each time once: two frames of one time have no slope.
    once, first, back = np.unique(time, return_index=True, return_inverse=True)
    slope = np.gradient(dip[first], once)[back] if len(once) > 1 else np.zeros_like(dip)
    fitted = [dip, slope]
    if columns.colnames:
        fitted.append(_design(columns)[used])
    found = red_noise(time, residual, columns=np.column_stack(fitted))
    return {
        "scatter": float(np.std(residual)),
        "point_scatter": found.point_scatter,
        "stated_error": float(np.median(floats(table, "flux_err")[used])),
        "beta": found.beta,
        "beta_err": found.beta_err,
        "reason": found.reason,
    }


def _posterior(fit, options, noise, notes):
    """Numbers of the posterior, with errors without and with the red noise."""
    planet = Ephemeris(options.t0, options.period, options.t0_err, options.period_err)
    beta = noise["beta"] if noise["beta"] and noise["beta"] > 1 else 1.0
    parameters = {}
    for row in fit.summary(ephemeris=planet):
        one = {name: float(row[name]) for name in row.colnames[1:-1]} | {"unit": str(row["unit"])}
        one["error"] = (one["high_68"] - one["low_68"]) / 2
        one["error_red"] = one["error"] * beta if row["parameter"] in MEASURED else None
        parameters[str(row["parameter"])] = one
    late, middle = parameters["o_minus_c"], parameters["mid_time"]
    late["error_red"] = planet.observed_minus_calculated(middle["median"], middle["error_red"])[1]
    # Likelihoods of red noise grow as those of fewer, independent epochs.
    certain = fit.log_evidence_ratio / beta**2
    seen = bool(certain > CERTAIN)
    if not seen:
        notes.append(
            f"no transit is seen: the evidence for one is {certain:.1f} (natural logarithm, "
            f"{CERTAIN:g} is needed); the numbers are no measurement"
        )
    if not fit.converged:
        notes.append("the chain is too short: its intervals are a rough guide only")
    return {
        "parameters": parameters,
        "best": fit.best,
        "priors": fit.priors,
        "published_radius_ratio": options.radius_ratio,
        "coefficients": {str(row["name"]): [row["value"], row["error"]]
                         for row in fit.coefficients},
        "log_evidence_ratio": fit.log_evidence_ratio,
        "log_evidence_error": fit.log_evidence_error,
        "log_evidence_red": certain,
        "delta_bic": fit.delta_bic,
        "significant": seen,
        "converged": fit.converged,
        "acceptance": fit.acceptance,
        "n_steps": fit.n_steps,
        "n_effective": fit.n_effective,
        "autocorrelation": fit.autocorrelation,
    }  # fmt: skip
