"""The stage ``variables`` of a night: its variable stars and its moving sources."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack

from .apertures import NEIGHBOUR
from .assembly import photometry_files, read_photometry, require_photometry
from .detections import chord, night_detections
from .errors import DataredError
from .movers import moving_sources
from .products import Manifest, Task, atomic_path, run_tasks
from .reference import unit_vectors
from .tracks import Track
from .variability import star_curves, variable_stars

__all__ = ["flag_passages", "variables_night"]

log = logging.getLogger("datared.variabilitynight")


def variables_night(night, *, executor=None):
    """Look for what varies and what moves in a night.

    Parameters
    ----------
    night : Night
        A night with photometry.
    executor : object, optional
        Not needed.

    Returns
    -------
    astropy.table.Table
        One row for each product with ``file``, ``status`` and ``reason``. Written are
        ``work/movers.ecsv`` with ``work/mover_detections.ecsv`` (see
        `datared.movers.moving_sources`; the detections with ``file`` and ``filter``) and the figure
        ``work/movers.png``; and ``work/variables.ecsv`` (see
        `datared.variability.variable_stars`, with ``filter``; the filters of a night one after the
        other; without what a mover passes, see `flag_passages`) with the figure
        ``work/variables.png`` (of the filter with the most frames).

    Raises
    ------
    DataredError
        If there is no photometry, or its tables cannot be read.
    """
    require_photometry(night)
    work = night.work
    names = [[work / f for f in ("movers.ecsv", "mover_detections.ecsv", "movers.png")]]
    names.append([work / name for name in ("variables.ecsv", "variables.png")])
    _, frames = night_detections(work, read=False)
    lists = tuple(Path(path) for path in frames["path"] if Path(path).is_file())
    inputs = [(*photometry_files(work)[1:], *lists), (*photometry_files(work), names[0][0])]
    functions, outcomes = (_write_movers, _write_variables), []
    # Movers first: while one passes a star, the star seems to vary.
    for files, known, function in zip(names, inputs, functions, strict=True):
        task = Task(files[0], known, {}, function, (work, *files), extra=tuple(files[1:]))
        outcomes += run_tasks([task], manifest=Manifest(work), label="variables")
        if outcomes[-1].status == "failed":
            # The figure of an earlier run must not pass for one of this table.
            for path in files:
                path.unlink(missing_ok=True)
            raise DataredError(f"there is no {files[0].name}: {outcomes[-1].reason}")
    log.info(
        "%d variable stars, %d moving sources",
        outcomes[1].result.get("variable", 0),
        outcomes[0].result.get("movers", 0),
    )
    return Table(
        {
            "file": [outcome.product.name for outcome in outcomes],
            "status": [outcome.status for outcome in outcomes],
            "reason": [outcome.reason for outcome in outcomes],
        }
    )


def flag_passages(photometry, movers):
    """Flag the measurements of stars that a moving source passes: it brings its light along.

    Parameters
    ----------
    photometry : Photometry
        From `datared.assembly.read_photometry`.
    movers : astropy.table.Table
        From `datared.movers.moving_sources`.

    Returns
    -------
    Photometry
        A copy with the flag for light of a neighbour (`datared.apertures.NEIGHBOUR`) where a mover
        is within the aperture of a star and three widths (FWHM) more.
    """
    flags, epochs = photometry.flags.copy(), photometry.epochs
    sky = unit_vectors(photometry.stars)
    width = np.ma.filled(np.ma.asarray(epochs["fwhm"]).astype(float), np.nan)
    width = np.where(np.isfinite(width), width, np.nanmax(width, initial=0.0))
    size = np.asarray(epochs["radii"], float) + 3 * width[:, None]
    reach = chord(size * np.asarray(epochs["scale"], float)[:, None])
    for mover in movers:
        place = unit_vectors(Table({"ra": [mover["ra0"]], "dec": [mover["dec0"]]}))[0]
        rate = np.array([mover["rate_ra"], mover["rate_dec"]])
        track = Track(place, 0.0, np.zeros(2), rate, 0.0, 0.0, 1.0, np.zeros(0, int))
        minutes = (np.asarray(epochs["jd_utc_mid"], float) - mover["t0"]) * 1440
        away = np.linalg.norm(sky[:, None] - track.sky(minutes), axis=2)
        flags[away[:, :, None] < reach] |= NEIGHBOUR
    return replace(photometry, flags=flags)


def _write_variables(work, product, figure):
    """Task: table and figure of the variable stars of all filters of a night."""
    from .variabilityplots import variables_figure

    movers = Table.read(work / "movers.ecsv", format="ascii.ecsv")
    photometry = flag_passages(read_photometry(work), movers)
    names = np.asarray(photometry.epochs["filter"]).astype(str)
    tables, shown = [], None
    for name in sorted(set(names)):
        curves = star_curves(photometry, filter=name)
        table = variable_stars(curves)
        if shown is None or len(curves.time) > len(shown[0].time):
            shown = curves, table.copy()
        table.add_column(np.full(len(table), name), name="filter", index=1)
        tables.append(table)
    columns = {table.meta["filter"]: table.meta["columns"] for table in tables}
    false_alarm = tables[0].meta["false_alarm"]
    for table in tables:
        table.meta.clear()
    table = vstack(tables)
    table.meta = {"columns": columns, "false_alarm": false_alarm}
    with atomic_path(figure) as temporary:
        variables_figure(*shown).savefig(temporary)
    with atomic_path(product) as temporary:
        table.write(temporary, format="ascii.ecsv")
    return {"variable": int(np.sum(table["class"] == "variable"))}


def _write_movers(work, product, found, figure):
    """Task: tables and figure of the moving sources of a night."""
    from .variabilityplots import movers_figure

    lists, frames = night_detections(work)
    stars = Table.read(photometry_files(work)[1], format="ascii.ecsv")
    radius = float(stars.meta.get("radius_arcsec", 1.5))
    movers, detections = moving_sources(lists, frames["jd_utc_mid"], eps=radius)
    for name in ("file", "filter"):
        words = np.asarray(frames[name]).astype(str)[np.asarray(detections["frame"], int)]
        detections.add_column(words, name=name, index=1)
    movers.meta = {"eps_arcsec": radius, "frames": len(frames)}
    with atomic_path(figure) as temporary:
        movers_figure(movers, detections).savefig(temporary)
    for table, path in ((detections, found), (movers, product)):
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")
    return {"movers": len(movers)}
