"""Are the error bars true? What a night says about them by itself, from its repeats.

A star that is constant has the same flux on every frame, but for what clouds and exposure do to all
stars alike. What is left, in units of the stated error, must have a width of one.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from astropy.table import MaskedColumn, Table, vstack
from scipy import stats

from .assembly import photometry_files, read_photometry, require_photometry
from .errors import DataredError
from .products import Manifest, Task, atomic_path, run_tasks
from .repeats import MIN_REPEATS, SNR_BINS, compare_repeats, middle, pull_width

__all__ = ["SNR_BINS", "Audit", "audit_night", "audit_photometry", "pull_width"]


@dataclass(frozen=True)
class Audit:
    """What the repeats of a night say about its errors, from `audit_photometry`.

    Parameters
    ----------
    stars : astropy.table.Table
        One row for each star and filter: ``star``, ``filter``, ``n`` (measurements in the mean),
        ``n_outliers`` (single ones left out of it), ``flux`` and ``flux_err`` (mean, in counts of a
        frame with factor 1), ``snr`` (of one measurement), ``chi2`` (per degree of freedom),
        ``scatter`` and ``expected`` (of one measurement, in units of the flux), ``variable``.
        Masked where there are too few repeats.
    pulls : astropy.table.Table
        One row for each filter, radius and bin of signal-to-noise, and one for all bins together
        (``snr_low`` 5, ``snr_high`` infinite): ``filter``, ``radius`` (index), ``snr_low``,
        ``snr_high``, ``n`` (pulls), ``n_stars``, ``median``, ``width``, ``width_err``.
    frames : astropy.table.Table
        One row for each frame: ``epoch``, ``file``, ``filter``, ``factor``, ``factor_err``,
        ``n_stars`` (that carry the factor), ``width`` (of their pulls, 1 in the median), ``used``,
        ``reason``.
    median_ratio : dict of str to float
        For each filter: median of scatter / expected of the brighter half of the stars, free of the
        bias that it has with few repeats.
    too_few : dict of str to str
        For each filter that could not be audited, why.
    """

    stars: Table
    pulls: Table
    frames: Table
    median_ratio: dict
    too_few: dict


def audit_photometry(photometry, *, radius=None):
    r"""Compare the repeats of every star with their stated errors. No truth is needed.

    With the factor ``T_t`` of a frame (exposure, airmass, clouds) and the mean ``m_k`` of a star:

    .. math:: p_{kt} = \frac{F_{kt} / T_t - m_k}{\sqrt{\mathrm{Var}(F_{kt} / T_t - m_k)}}

    ``T_t`` is the weighted mean of ``F_jt / m_j`` over bright unflagged stars that do not vary,
    without star ``k`` itself; its own error is in the variance, and so is the part of a star's
    noise that its mean took away. So the pulls of true errors have width 1 with three repeats as
    with 200.

    Parameters
    ----------
    photometry : Photometry
        Measurements of a night.
    radius : int, optional
        Index of the radius for the table of stars; the default radius of the night by default.

    Returns
    -------
    Audit
        Stars, pulls (of all radii) and frames.

    Raises
    ------
    IndexError
        If there is no such radius.

    Notes
    -----
    Measurements with a flag (saturated, edge, bad pixel, neighbour ...) do not count; a negative
    flux does, or faint stars would lose one side of their noise. Variable stars are in the table of
    stars and not in the widths. A frame on which the stars do not agree (a cloud over a part of it)
    is left out and listed with the reason.

    What repeats cannot see is what is the same in all of them: an error of the flat if the stars
    stay on their pixels, a sky that is always wrong, a neighbour. With dithered frames the noise of
    the flat shows. A width above 1 for bright stars only is an error that grows with the flux:
    the flat, scintillation, light lost outside of an aperture whose share changes over the frame,
    or, with a radius of 2 or 3 pixels, the place of a star in them.
    """
    chosen = photometry.default_radius if radius is None else radius
    if not 0 <= chosen < len(photometry.radii):
        raise IndexError(f"radius {radius} is not an index of the radii {photometry.radii}")
    names = np.asarray(photometry.epochs["filter"]).astype(str)
    stars, pulls, frames, ratio, too_few = [], [], [], {}, {}
    for name in dict.fromkeys(names):
        epochs = np.flatnonzero(names == name)
        for k in range(len(photometry.radii)):
            parts = (photometry.flux, photometry.flux_err, photometry.flags)
            found = compare_repeats(*(part[:, epochs, k] for part in parts))
            if k == chosen:
                stars.append(_star_table(photometry, found, name))
                frames.append(_frame_table(photometry, epochs, found))
                ratio[str(name)] = _median_ratio(found)
                n = int(found["frames"].sum())
                if n < MIN_REPEATS:
                    of = "" if n == len(epochs) else f" of {len(epochs)} with stars that agree"
                    too_few[str(name)] = (
                        f"too few repeats: {n} frame{'s' * (n != 1)}{of}, 3 are needed"
                    )
            pulls += _pull_rows(found, name, k)
    columns = ("filter", "radius", "snr_low", "snr_high", "n", "n_stars", "median", "width")
    table = Table(rows=pulls, names=(*columns, "width_err"))
    return Audit(vstack(stars), table, vstack(frames), ratio, too_few)


def audit_night(night):
    """Audit the photometry of a night.

    Parameters
    ----------
    night : Night
        A night with photometry.

    Returns
    -------
    astropy.table.Table
        The table of stars, see `Audit`, as in ``work/audit.ecsv``; its ``meta`` has
        ``median_ratio``, ``too_few`` and ``left_out`` (frames with the reason). The table of pulls
        is in ``work/pulls.ecsv``.

    Raises
    ------
    DataredError
        If there is no photometry.
    """
    require_photometry(night)
    product, pulls = night.work / "audit.ecsv", night.work / "pulls.ecsv"
    files = photometry_files(night.work)
    task = Task(product, files, {}, _write_audit, (night.work, product, pulls), extra=(pulls,))
    outcome = run_tasks([task], manifest=Manifest(night.work), label="audit")[0]
    if outcome.status == "failed":
        raise DataredError(f"the photometry could not be audited: {outcome.reason}")
    return Table.read(product, format="ascii.ecsv")


def _write_audit(work, product, pulls):
    """Task: write both tables of a night."""
    audit = audit_photometry(read_photometry(work))
    lost = audit.frames[~audit.frames["used"]]
    audit.stars.meta = {
        "median_ratio": {name: round(value, 4) for name, value in audit.median_ratio.items()},
        "too_few": audit.too_few,
        "left_out": {str(row["file"]): str(row["reason"]) for row in lost},
    }
    for table, path in ((audit.stars, product), (audit.pulls, pulls)):
        table = table.copy()
        for name in table.colnames:
            if table[name].dtype.kind == "f":
                table[name].format = ".6g"
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")
    return {"stars": len(audit.stars)}


def _median_ratio(found):
    """Median of scatter / expected of the brighter half of the stars."""
    with np.errstate(invalid="ignore"):
        rows = found["enough"] & (found["snr"] >= SNR_BINS[0])
    if not rows.any():
        return np.nan
    rows &= found["mean"] >= np.median(found["mean"][rows])
    freedom = found["n"][rows] - 1
    # Half of the constant stars are below the median of the chi-square, not below its mean.
    ratio = np.sqrt(found["chi2"][rows] / (stats.chi2.ppf(0.5, freedom) / freedom))
    return float(np.median(ratio))


def _pull_rows(found, name, radius):
    """Rows of the table of pulls of one filter and radius."""
    pulls = np.where(found["variable"][:, None], np.nan, found["pulls"])
    snr, rows = found["snr_each"], []
    for low, high in [*pairwise(SNR_BINS), (SNR_BINS[0], np.inf)]:
        with np.errstate(invalid="ignore"):
            inside = (snr >= low) & (snr < high) & np.isfinite(pulls)
        n, stars = int(inside.sum()), int(inside.any(axis=1).sum())
        centre = middle(pulls[inside])
        width = pull_width(pulls[inside], n_means=stars)
        rows.append((name, radius, low, high, n, stars, centre, *width))
    return rows


def _star_table(photometry, found, name):
    """Table of the stars of one filter."""
    table = Table({"star": photometry.stars["star"]})
    table["filter"] = name
    table["n"] = np.where(found["enough"], found["n"], found["good"])
    table["n_outliers"] = found["n_outliers"]
    scatter = found["expected"] * np.sqrt(found["chi2"])
    values = {"flux": found["mean"], "flux_err": found["sigma"], "snr": found["snr"]}
    values |= {"chi2": found["chi2"], "scatter": scatter, "expected": found["expected"]}
    for key, value in values.items():
        table[key] = MaskedColumn(value, mask=~found["enough"] | ~np.isfinite(value))
    table["variable"] = found["variable"]
    return table


def _frame_table(photometry, epochs, found):
    """Table of the frames of one filter."""
    table = photometry.epochs["epoch", "file", "filter"][epochs]
    table["factor"], table["factor_err"] = found["factor"], found["factor_err"]
    table["n_stars"], table["width"] = found["n_stars"], found["widths"]
    table["used"] = found["frames"]
    table["reason"] = [
        "" if row["used"]
        else f"its stars disagree {row['width']:.1f} times as much as usual" if row["n_stars"]
        else "no star to compare with"
        for row in table
    ]  # fmt: skip
    return table
