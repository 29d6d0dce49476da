"""What a night came to: for each stage a few numbers that say whether to believe the next one."""

import json

import numpy as np
from astropy.io import fits
from astropy.table import Table

from .assembly import photometry_files, read_photometry
from .listing import product_name

__all__ = ["summarise"]


def summarise(night, stage):
    """Say in a line or two what a stage found.

    Parameters
    ----------
    night : Night
        A night that was reduced up to the stage.
    stage : str
        Name of the stage.

    Returns
    -------
    list of str
        Lines to print; empty for a stage without numbers, or without results.
    """
    lines = {
        "solved": _solved,
        "photometry": _photometry,
        "magnitudes": _magnitudes,
        "diagram": _diagram,
        "lightcurve": _lightcurve,
        "transit": _transit,
        "variables": _variables,
        "stack": _stack,
    }
    return lines[stage](night) if stage in lines else []


def _solved(night):
    """Residuals, scale and seeing of the solved frames."""
    table = _table(night.work / "astrometry.ecsv")
    table = table[table["status"] != "failed"] if len(table) else table
    if not len(table):
        return []
    warned = [f"{row['file']}: {row['warning']}" for row in table if row["warning"]]
    return [
        f"residual {_range(table['rms_px'], '.3f')} px "
        f"({_range(table['rms_arcsec'], '.2f')} arcsec) with {_range(table['n_matched'], '.0f')} "
        "stars",
        f"scale {np.median(table['scale']):.4f} arcsec/px, FWHM {_range(table['fwhm'], '.2f')} px",
        *warned[:5],
        *([f"{len(warned) - 5} more with a warning in astrometry.ecsv"] if len(warned) > 5 else []),
    ]


def _photometry(night):
    """Stars, epochs and radii; what the audit of the error bars says."""
    if not photometry_files(night.work)[0].is_file():
        return []
    result = read_photometry(night)
    radii = ", ".join(f"{radius:g}" for radius in result.radii)
    chosen = result.radii[result.default_radius]
    return [
        f"{len(result.stars)} stars on {len(result.epochs)} frames, radii {radii} "
        f"{result.radius_unit} ({chosen:g} for results)",
        *_audit(night, result.default_radius),
    ]


def _audit(night, radius):
    """Lines on the error bars: widths of the pulls, stars that vary, what could not be audited."""
    pulls, stars = _table(night.work / "pulls.ecsv"), _table(night.work / "audit.ecsv")
    if not len(pulls):
        return []
    rows = pulls[(pulls["radius"] == radius) & np.isinf(pulls["snr_high"]) & (pulls["n"] > 1)]
    rows = rows[rows["snr_low"] == rows["snr_low"].min()] if len(rows) else rows
    lines = []
    if len(rows):
        ratio = stars.meta["median_ratio"]
        widths = ", ".join(f"{row['width']:.2f} ({row['filter']})" for row in rows)
        ratios = ", ".join(f"{ratio[row['filter']]:.2f} ({row['filter']})" for row in rows)
        lines.append(f"pulls of constant stars: width {widths}; 1 if the errors are true")
        lines.append(f"measured/predicted scatter of the brighter half: {ratios}")
        names = np.unique(stars["star"][~np.ma.getmaskarray(stars["chi2"])])
        vary = np.unique(stars["star"][stars["variable"]])
        lines.append(f"{len(vary)} of {len(names)} stars vary more than their errors")
    lost = stars.meta["left_out"].items()
    lines += [f"{name} not audited: {reason}" for name, reason in stars.meta["too_few"].items()]
    lines += [f"{file} left out of the audit: {reason}" for file, reason in list(lost)[:5]]
    more = f"{len(lost) - 5} more frames left out in audit.ecsv"
    return lines + ([more] if len(lost) > 5 else [])


def _magnitudes(night):
    """Zero points of each filter, and stars that have a magnitude in all of them."""
    points = _table(night.work / "zeropoints.ecsv")
    stars = _table(night.work / "magnitudes.ecsv")
    if not len(points):
        return []
    lines, good = [], np.ones(len(stars), bool)
    for name in dict.fromkeys(points["filter"]):
        rows = points[points["filter"] == name]
        if np.isfinite(rows["zero_point"]).any():
            lines.append(
                f"{name}: zero point {_range(rows['zero_point'], '.3f')} mag, errors "
                f"{_range(rows['error'], '.4f')}, {_range(rows['n'], '.0f')} stars "
                f"({rows['system'][0]})"
            )
            lines += _terms(name, rows, points.meta.get("filters", {}).get(name, {}))
        else:
            lines.append(f"{name}: instrumental magnitudes only ({rows['reason'][0]})")
        errors = np.ma.filled(np.ma.asarray(stars[f"{name}_err"], float), np.inf)
        with np.errstate(invalid="ignore"):
            good &= errors < 0.1
    filters = ", ".join(dict.fromkeys(points["filter"]))
    return [*lines, f"{good.sum()} of {len(stars)} stars with errors below 0.1 mag in {filters}"]


def _terms(name, rows, numbers):
    """Lines on colour term and extinction of a filter, and on what is unusual."""
    lines, row = [], rows[np.isfinite(rows["zero_point"])][0]
    if np.isfinite(row["colour_term_err"]):
        lines.append(
            f"{name}: colour term {row['colour_term']:+.3f} +- {row['colour_term_err']:.3f} "
            f"({row['colour']})"
        )
    if np.isfinite(numbers.get("extinction", np.nan)):
        lines.append(
            f"{name}: extinction {numbers['extinction']:.3f} +- {numbers['extinction_err']:.3f} "
            "mag per airmass"
        )
    reasons = [str(text) for text in np.ma.filled(rows["reason"], "") if str(text)]
    if reasons:
        lines.append(f"{name}: {len(reasons)} of {len(rows)} epochs: {reasons[0]}")
    return lines


def _diagram(night):
    """Count stars kept and cut, say which members were found and how they move."""
    table = _table(night.work / "cmd.ecsv")
    if not len(table) or "bands" not in table.meta:
        return []
    (blue, red, bright), cuts = table.meta["bands"], table.meta["cuts"]
    most = sorted(cuts.items(), key=lambda item: (-item[1], item[0]))[:3]
    named = f", cut most often: {', '.join(f'{n} {reason}' for reason, n in most)}" if most else ""
    kept = len(table) - sum(cuts.values())
    lines = [f"{bright} against {blue} - {red}: {kept} of {len(table)} stars kept{named}"]
    found = table.meta.get("membership", {})
    if found.get("reason"):
        return [*lines, f"no membership: {found['reason']}"]
    if found:
        motion = ", ".join(
            f"{name} {value:.3f} +- {found['mean_err'][name]:.3f} "
            f"{'mas' if name == 'parallax' else 'mas/yr'}"
            for name, value in sorted(found["mean"].items(), reverse=True)
        )
        lines.append(
            f"{found['n_members']:.0f} of {found['n_measured']} stars with a proper motion are "
            f"members: {motion}"
        )
    return lines


def _lightcurve(night):
    """Epochs, comparison stars, and scatter."""
    path = night.work / "lightcurve.ecsv"
    if not path.is_file():
        return []
    curve = _table(path)
    good = np.isfinite(curve["flux"]) & np.isfinite(curve["bjd_tdb_mid"]) & ~curve["cloudy"]
    flux, error = (np.asarray(curve[name][good]) for name in ("flux", "flux_err"))
    if len(flux) < 2:
        return []
    step = np.std(np.diff(flux)) / np.sqrt(2)
    meta = curve.meta
    return [
        f"{good.sum()} of {len(curve)} epochs in {meta['filter']}, {len(meta['comparison'])} "
        f"comparison stars, radius {meta['radius_value']:g} {meta['radius_unit']}",
        f"scatter from frame to frame {100 * step:.2f} %, stated error "
        f"{100 * np.median(error):.2f} %",
    ]


def _transit(night):
    """Say what was fitted to the transit, with the errors that hold the red noise."""
    path = night.work / "transit.json"
    if not path.is_file():
        return []
    numbers = json.loads(path.read_text(encoding="utf-8"))
    noise, found = numbers["noise"], numbers.get("posterior")
    if noise["scatter"] is None:
        return [f"nothing could be fitted: {numbers['trapezoid']['reason']}"]
    beta = f", beta {noise['beta']:.2f}" if noise["beta"] is not None else ""
    lines = [
        f"{numbers['n_used']} of {numbers['n_epochs']} epochs, {_baseline(numbers)}; scatter "
        f"around the model {100 * noise['scatter']:.2f} %{beta}"
    ]
    if found and found["significant"]:
        rows, ratio = found["parameters"], found["published_radius_ratio"]
        published = "" if ratio is None else f" (published {ratio:.4f})"
        told = {name: (rows[name]["median"], rows[name]["error_red"]) for name in rows}
        lines += [
            "Rp/R* {:.4f} +- {:.4f}".format(*told["radius_ratio"])
            + published
            + ", mid-time BJD_TDB {:.5f} +- {:.5f}".format(*told["mid_time"]),
            "{:+.1f} +- {:.1f} min after the prediction".format(*told["o_minus_c"])
            + f"; evidence for a transit (natural logarithm) {found['log_evidence_red']:.0f}",
        ]
    if "ephemeris" not in numbers:
        lines.append("no [transit] in the night file: a trapezoid only, no posterior")
    if not found:
        lines += _trapezoid(numbers["trapezoid"])
    return lines + numbers["notes"]


def _baseline(numbers):
    """Say what is in the baseline of a transit fit."""
    columns = ", ".join(["a constant", *numbers["columns"]])
    if numbers.get("columns_reason", "").startswith("as large"):
        columns = (
            f"a constant and trends as large as those of {numbers['trend_stars']} comparison stars"
        )
    if numbers.get("pattern_width"):
        columns += f" and the slow noise of the flat ({100 * numbers['pattern_width']:.2f} %)"
    return f"baseline of {columns}"


def _trapezoid(fit):
    """Line on the dip of a trapezoid, where there is one: a first look, nothing to publish."""
    if not fit["significant"]:
        return ["no dip is seen"]
    value, sigma = fit["values"], fit["errors"]
    return [
        f"a dip of {100 * value['depth']:.2f} +- {100 * sigma['depth']:.2f} % at BJD_TDB "
        f"{value['mid_time']:.5f} +- {sigma['mid_time']:.5f}, {24 * value['duration']:.2f} h long"
    ]


def _variables(night):
    """Count the stars that vary and the sources that move."""
    stars, movers = _table(night.work / "variables.ecsv"), _table(night.work / "movers.ecsv")
    lines = []
    if len(stars) and "class" in stars.colnames:
        kinds = np.array(stars["class"]).astype(str)
        # A star has a row in each filter.
        vary = list(dict.fromkeys(int(star) for star in stars["star"][kinds == "variable"]))
        known = len(np.unique(stars["star"][kinds != "unknown"]))
        named = f" ({', '.join(map(str, vary[:5]))}{' ...' if len(vary) > 5 else ''})"
        lines.append(f"{len(vary)} of {known} stars vary{named if vary else ''}")
    if len(stars) or len(movers):
        lines.append(f"{len(movers)} moving sources")
    return lines


def _stack(night):
    """Frames and total exposure of each stack, and which frames are in none."""
    table = _table(night.work / "stack.ecsv")
    lines = []
    for name in sorted(set(table["filter"])) if len(table) else ():
        path = night.work / "stack" / f"{product_name(str(name))}.fits"
        if path.is_file():
            meta = fits.getheader(path)
            lines.append(f"{path.name}: {meta['NCOMBINE']} frames, {meta['EXPTIME']:g} s")
    for row in table[table["status"] == "left out"][:5] if len(table) else ():
        lines.append(f"left out: {row['file']}: {row['reason']}")
    return lines


def _table(path):
    """Table of a file; an empty one where the stage wrote none."""
    return Table.read(path, format="ascii.ecsv") if path.is_file() else Table()


def _range(values, form):
    """Lowest and highest finite value, or the one where they print alike."""
    values = np.asarray(np.ma.filled(np.ma.asarray(values, float), np.nan))
    values = values[np.isfinite(values)]
    if not values.size:
        return "unknown"
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"
