"""The colour-magnitude diagram of a night: its table, the quality cuts, the members, the figure."""

import json
import logging

import numpy as np
from astropy.table import MaskedColumn, Table

from .diagramtable import KEPT, ORDER, choose_bands, colour_magnitude_table, floats, quality_cuts
from .errors import DataredError
from .magnitudes import passband
from .membership import Membership, membership
from .products import Manifest, Task, atomic_path, run_tasks

__all__ = ["choose_bands", "colour_magnitude_table", "diagram_night", "quality_cuts"]

log = logging.getLogger("datared.diagram")

#: Columns that say how a star moves, as in the table of a night.
MOTIONS = ("pm_ra", "pm_ra_err", "pm_dec", "pm_dec_err", "parallax", "parallax_err")

#: Samples of the posterior that are kept on disk, at most.
SAMPLES = 5000
#: Columns of the table of a night without a diagram.
EMPTY = ("star", "ra", "dec", "colour", "colour_err", "magnitude", "magnitude_err")

#: [Fe/H] of open clusters near the Sun, and its spread: what is known before a fit.
NEARBY = (0.0, 0.2)


def diagram_night(night, *, executor=None):
    """Make the colour-magnitude diagram of a night, with members where the catalogue tells motions.

    Parameters
    ----------
    night : Night
        A night with magnitudes. ``[diagram]`` names the filters (`choose_bands` otherwise), and
        with ``fit = true`` an isochrone is fitted to the stars and their probabilities
        (`datared.clusterfit`, [Fe/H] = 0.0 +- 0.2 known before), of the embedded set or of the
        file ``isochrones``.
    executor : object, optional
        Not needed.

    Returns
    -------
    astropy.table.Table
        One row for each product with ``file``, ``status`` and ``reason``. The stars are in
        ``work/cmd.ecsv`` (see `colour_magnitude_table`; with the proper motions and parallaxes of
        the catalogue where it has them) and the figure in ``work/cmd.png``; the fit in
        ``work/isochrone.json`` and ``work/posterior.ecsv``. A night of one filter has no diagram:
        an empty ``cmd.ecsv`` and the status ``skipped``.

    Raises
    ------
    DataredError
        If there are no magnitudes, or the filters asked for cannot make a diagram.
    """
    work = night.work
    source, stars = work / "magnitudes.ecsv", work / "stars.ecsv"
    if not source.is_file():
        raise DataredError(f"there is no {source.name} in {work}; run the stage magnitudes first")
    magnitudes = Table.read(source, format="ascii.ecsv")
    product, figure = work / "cmd.ecsv", work / "cmd.png"
    fitted = (work / "isochrone.json", work / "posterior.ecsv")
    bands = tuple(night.diagram.bands) or choose_bands(magnitudes)
    if not bands:
        return _no_diagram(magnitudes, product, (figure, *fitted))
    colour_magnitude_table(magnitudes, bands=bands)  # What cannot be is said before any work.
    inputs = (source, stars) if stars.is_file() else (source,)
    tasks = [Task(product, inputs, {"bands": bands}, _draw, (work, bands), extra=(figure,))]
    outcomes = run_tasks(tasks, manifest=Manifest(work), label="diagram")
    if outcomes[0].status == "failed":
        raise DataredError(f"there is no diagram: {outcomes[0].reason}")
    reasons = [outcomes[0].result.get("reason") or ""]
    if reasons[0]:
        log.warning("no membership: %s", reasons[0])
    if night.diagram.fit:
        file = night.diagram.isochrones
        known = [] if file is None else sorted(file.iterdir()) if file.is_dir() else [file]
        inputs = (product, *(path for path in known if path.is_file()))
        task = Task(fitted[0], inputs, {"isochrones": file}, _fit, (work, file), extra=fitted[1:])
        outcomes += run_tasks([task], manifest=Manifest(work), label="isochrone")
        reasons.append(outcomes[1].reason)
        if outcomes[1].result.get("converged") is False:
            reasons[1] = "the chain is too short: its intervals are a rough guide only"
            log.warning("isochrone: %s", reasons[1])
    else:
        # A fit of an earlier run must not pass for one of this diagram.
        for path in fitted:
            path.unlink(missing_ok=True)
    return Table(
        {
            "file": [outcome.product.name for outcome in outcomes],
            "status": [outcome.status for outcome in outcomes],
            "reason": reasons,
        }
    )


def _no_diagram(magnitudes, product, others):
    """Leave an empty table, and nothing of an earlier run, for a night without a colour."""
    filters = [n for n in magnitudes.colnames if f"{n}_err" in magnitudes.colnames]
    systems = {magnitudes[n].meta.get("system") for n in filters}
    reason = f"a colour needs two filters, there is {', '.join(filters) or 'none'}"
    if len(filters) > 1:
        reason = f"the filters {', '.join(filters)} are in {len(systems)} magnitude systems"
    log.info("no diagram: %s", reason)
    for path in others:
        path.unlink(missing_ok=True)
    with atomic_path(product) as temporary:
        Table(names=EMPTY, dtype=[int] + 6 * [float]).write(temporary, format="ascii.ecsv")
    return Table({"file": [product.name], "status": ["skipped"], "reason": [reason]})


def _draw(work, bands):
    """Task: write table and figure of a night's diagram."""
    from .diagramplots import night_figure

    magnitudes = Table.read(work / "magnitudes.ecsv", format="ascii.ecsv")
    moving = _motions(work / "stars.ecsv", magnitudes)
    try:
        if moving is None:
            raise DataredError("no star of the night was found in a catalogue with proper motions")
        found = membership(moving)
    except DataredError as error:
        found = Membership(np.full(len(magnitudes), np.nan), reason=str(error))
    table = colour_magnitude_table(magnitudes, bands=bands, membership=found)
    for name in MOTIONS:
        if moving is not None and name in moving.colnames:
            table[name] = moving[name]
    kept = (table["cut"] == KEPT) & (np.ma.filled(table["membership"], 0) >= 0.5)
    numbers = {"members": int(kept.sum()), "reason": found.reason}
    table.meta["membership"] = {
        "reason": found.reason,
        "n_measured": found.n_measured,
        "n_members": round(found.n_members, 2),
        "mean": {key: round(value, 5) for key, value in found.mean.items()},
        "mean_err": {key: round(value, 5) for key, value in found.mean_err.items()},
    }
    with atomic_path(work / "cmd.ecsv") as temporary:
        table.write(temporary, format="ascii.ecsv")
    with atomic_path(work / "cmd.png") as temporary:
        night_figure(table).savefig(temporary, dpi=120)
    return {"stars": len(table), "kept": int((table["cut"] == KEPT).sum()), **numbers}


def _motions(path, magnitudes):
    """Proper motions and parallaxes of the catalogue for each row of the magnitudes, or None."""
    stars = Table.read(path, format="ascii.ecsv") if path.is_file() else Table()
    names = [name for name in MOTIONS if f"cat_{name}" in stars.colnames]
    if "pm_ra" not in names:
        return None
    row = {star: k for k, star in enumerate(stars["star"])}
    # The row of a star that is not in the list is one after the last, with no number.
    rows = np.array([row.get(star, len(stars)) for star in magnitudes["star"]], dtype=int)
    table = Table()
    for name in names:
        column = stars[f"cat_{name}"]
        values = np.append(floats(column), np.nan)[rows]
        table[name] = MaskedColumn(values, mask=~np.isfinite(values), unit=column.unit)
    return table


def _fit(work, file):
    """Task: fit an isochrone to the stars without a fault; write summary and samples."""
    from .clusterfit import fit_isochrone
    from .isochronefiles import read_isochrones
    from .isochronegrid import embedded_grid

    table = Table.read(work / "cmd.ecsv", format="ascii.ecsv")
    # A large error is no fault: the fit has its own limit, and a cut on the error would bias it.
    cut = np.asarray(table["cut"]).astype(str)
    table = table[(cut == KEPT) | np.char.startswith(cut, "large error")]
    names = dict.fromkeys(table.meta["bands"])
    stars = Table({"star": table["star"]})
    for name in names:
        for end in ("", "_err"):
            stars[passband(name) + end] = table[name + end]
    bands = [passband(name) for name in names]
    bands = tuple(sorted(bands, key=lambda b: ORDER.index(b) if b in ORDER else len(ORDER)))
    grid = embedded_grid(bands=bands) if file is None else read_isochrones(file, bands=bands)
    known = floats(table["membership"])
    # Stars without a probability do not count in the fit: a shallow list of motions would leave
    # the giants only. Then the share of the field is fitted with the rest.
    deep = np.mean(np.isfinite(known)) > 0.5
    if not deep and np.isfinite(known).any():
        log.info("fit without membership: known for %d of %d", np.isfinite(known).sum(), len(known))
    fit = fit_isochrone(
        stars,
        grid=grid,
        bands=bands,
        membership=known if deep else None,
        metallicity=NEARBY,
    )
    # Samples that follow each other in a chain are alike: a part of them says as much.
    rows = np.random.default_rng(0).permutation(len(fit.samples))[:SAMPLES]
    with atomic_path(work / "posterior.ecsv") as temporary:
        fit.samples[np.sort(rows)].write(temporary, format="ascii.ecsv")
    best = {name: float(getattr(value, "value", value)) for name, value in fit.best.items()}
    told = {
        "bands": list(fit.bands),
        "limits": list(fit.limits),
        "stars": int(np.sum(fit.used)),
        "best": best,
        "summary": {
            str(row["parameter"]): {
                name: row[name].item() for name in row.colnames if name != "parameter"
            }
            for row in fit.summary()
        },
        "converged": bool(fit.converged),
        "acceptance": float(fit.acceptance),
        "n_effective": float(fit.n_effective),
        "isochrones": fit.source,
    }
    with atomic_path(work / "isochrone.json") as temporary:
        temporary.write_text(json.dumps(told, indent=1), encoding="utf-8")
    return {"converged": told["converged"], **best}
