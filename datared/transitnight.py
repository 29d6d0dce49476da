"""The stage ``transit`` of a night: its products on disk."""

import json
import logging
import math

from astropy.table import Table

from .errors import DataredError
from .products import Manifest, Task, atomic_path, run_tasks
from .transitmeasure import measure_transit, too_few, usable_epochs

__all__ = ["transit_night"]

log = logging.getLogger("datared.transitnight")

#: Times with all their digits on disk.
DATES = ("mid_time", "start", "end")
PRODUCTS = ("transit.json", "transit.ecsv", "transit_columns.ecsv", "transit_posterior.ecsv")


def transit_night(night, *, executor=None):
    """Fit the transit in the light curve of a night's target.

    With a table ``[transit]`` in the night file (`datared.night.TransitOptions`) the posterior of a
    limb-darkened transit is sampled; without it, a trapezoid is fitted and nothing else.

    Parameters
    ----------
    night : Night
        A night with a light curve (``work/lightcurve.ecsv``).
    executor : object, optional
        Not needed: it takes less than a minute.

    Returns
    -------
    astropy.table.Table
        One row for each product with ``file``, ``status`` and ``reason``: ``work/transit.json``
        (all numbers, see
        `datared.transitmeasure.measure_transit`), ``transit.ecsv`` (curve, model, residuals),
        ``transit_columns.ecsv`` (the sets of baseline columns), ``transit_posterior.ecsv`` (the
        samples; these two have no rows where there is no ephemeris) and ``transit.png``. A night
        without a target, or with too few epochs, has one row with the status ``skipped``.

    Raises
    ------
    DataredError
        If there is a target but no light curve, or the fit fails.
    """
    work = night.work
    source, figure = work / "lightcurve.ecsv", work / "transit.png"
    product, *others = (work / name for name in PRODUCTS)
    reason = ""
    if not source.is_file():
        if night.target_coord is not None:
            raise DataredError(f"there is no {source.name} in {work}; run the stage lightcurve")
        reason = "the night has no target with a position; set target_coord in its night file"
    else:
        reason = too_few(usable_epochs(Table.read(source, format="ascii.ecsv"))[1])
    if reason:
        log.info("no transit: %s", reason)
        for path in (product, *others, figure):  # Of an earlier run.
            path.unlink(missing_ok=True)
        return Table({"file": [product.name], "status": ["skipped"], "reason": [reason]})
    task = Task(
        product,
        (source,),
        {"transit": night.transit},
        _write_transit,
        (work, night.transit),
        extra=(*others, figure),
    )
    outcome = run_tasks([task], manifest=Manifest(work), label="transit")[0]
    if outcome.status == "failed":
        raise DataredError(f"there is no transit fit: {outcome.reason}")
    notes = "; ".join(json.loads(product.read_text(encoding="utf-8"))["notes"])
    if notes:
        log.warning("transit: %s", notes)
    names = [path.name for path in (product, *others, figure)]
    return Table(
        {
            "file": names,
            "status": [outcome.status] * len(names),
            "reason": [notes] + [""] * (len(names) - 1),
        }
    )


def _write_transit(work, options):
    """Task: measure the transit of a night and write its products."""
    from .transitplots import night_figure

    curve = Table.read(work / "lightcurve.ecsv", format="ascii.ecsv")
    numbers, table, sets, samples = measure_transit(curve, options)
    if "collinear" in sets.meta:
        sets.meta["collinear"] = [list(pair) for pair in sets.meta["collinear"]]
    numbers = _plain(numbers)
    with atomic_path(work / "transit.png") as temporary:
        night_figure(table, numbers, samples=samples).savefig(temporary, dpi=120)
    for product, name in ((table, "transit"), (sets, "transit_columns")):
        with atomic_path(work / f"{name}.ecsv") as temporary:
            product.write(temporary, format="ascii.ecsv")
    for name in samples.colnames:
        samples[name].info.format = ".10g" if name in DATES else ".7g"
    with atomic_path(work / "transit_posterior.ecsv") as temporary:
        samples.write(temporary, format="ascii.ecsv")
    with atomic_path(work / "transit.json") as temporary:
        text = json.dumps(numbers, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return {"significant": numbers.get("posterior", numbers["trapezoid"]).get("significant")}


def _plain(value):
    """Value of JSON's types only; None where it is not finite, as JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
