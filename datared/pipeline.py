"""The stages of a night in their order, each from what the one before it left on disk."""

import importlib
import logging
from collections import Counter
from dataclasses import dataclass, field

from astropy.table import Table, unique

from .errors import ConfigError, DataredError
from .listing import inventory, select_lights
from .night import load_night
from .products import atomic_path

__all__ = ["STAGES", "NightResult", "fetch_night", "run", "stages_upto"]

log = logging.getLogger("datared.pipeline")


@dataclass(frozen=True)
class _Stage:
    """A stage: the one it needs, and the room and function that do it for a night."""

    needs: str | None
    room: str
    name: str
    does: str

    def __call__(self, night, *, executor):
        """Do it; the room, and the libraries it needs, are loaded now and not before."""
        room = importlib.import_module(f".{self.room}", __package__)
        return getattr(room, self.name)(night, executor=executor)


#: Every stage after the one it needs. The magnitudes (with the diagram), the light curve (with the
#: transit), the variables and the stack do not depend on each other.
STAGES = {
    "masters": _Stage(None, "masters", "masters_night", "combine bias, dark and flat frames"),
    "reduced": _Stage("masters", "reduction", "reduce_night", "calibrate the light frames"),
    "solved": _Stage("reduced", "astrometry", "solve_night", "find where each frame points"),
    "photometry": _Stage(
        "solved", "forced", "photometry_night", "measure every star on every frame"
    ),
    "magnitudes": _Stage(
        "photometry", "magnitudes", "calibrate_night", "calibrate against a catalogue"
    ),
    "diagram": _Stage("magnitudes", "diagram", "diagram_night", "draw the diagram and its members"),
    "lightcurve": _Stage(
        "photometry", "lightcurve", "differential_night", "compare the target with other stars"
    ),
    "transit": _Stage("lightcurve", "transitnight", "transit_night", "fit the transit of a planet"),
    "variables": _Stage(
        "photometry", "variabilitynight", "variables_night", "look for what varies and what moves"
    ),
    "stack": _Stage("solved", "stacking", "stack_night", "add the frames of each filter"),
}


@dataclass(frozen=True)
class NightResult:
    """What a run did.

    Parameters
    ----------
    night : Night
        The night.
    tables : dict of str to astropy.table.Table
        For each stage that was run, its table: one row for each frame or product.
    problems : astropy.table.Table
        Columns ``stage``, ``file``, ``status``, ``reason``: every frame that failed, or that was
        left out with good reason.
    """

    night: object
    tables: dict = field(default_factory=dict)
    problems: Table = None


def stages_upto(upto):
    """Stages that lead to a stage, in their order.

    Parameters
    ----------
    upto : str or None
        Name of the last stage; all stages where it is None.

    Returns
    -------
    list of str
        Names of stages.

    Raises
    ------
    ConfigError
        If there is no stage of that name.

    Examples
    --------
    >>> stages_upto("solved")
    ['masters', 'reduced', 'solved']
    """
    if upto is None:
        return list(STAGES)
    if upto not in STAGES:
        raise ConfigError(f"There is no stage {upto!r}; the stages are {', '.join(STAGES)}.")
    chain = []
    while upto is not None:
        chain.insert(0, upto)
        upto = STAGES[upto].needs
    return chain


def run(night, *, upto=None, executor=None):
    """Reduce a night up to a stage; what is there already and current is not made again.

    Parameters
    ----------
    night : Night
        The night, from `datared.load_night` or `datared.make_night`.
    upto : str, optional
        Last stage: ``"masters"``, ``"reduced"``, ``"solved"``, ``"photometry"``,
        ``"magnitudes"``, ``"diagram"``, ``"lightcurve"``, ``"transit"``, ``"variables"`` or
        ``"stack"``. All of them by default.
    executor : concurrent.futures.Executor, optional
        Where frames are worked on side by side; one after the other in this process by default.
        The results are the same bytes either way.

    Returns
    -------
    NightResult
        The tables of the stages and every problem.

    Raises
    ------
    ConfigError
        If the stage is not known or the night has no frame that can be used.
    """
    names = stages_upto(upto)
    frames = inventory(night)
    if names != ["masters"]:
        _require_lights(frames, night)
    broken = frames[frames["problem"] != ""]
    rows = [("inventory", str(row["file"]), "failed", str(row["problem"])) for row in broken]
    for text, number in Counter(str(text) for text in frames["warning"] if text).items():
        log.warning("%d files: %s", number, text)
    tables, failed = {}, set()
    for number, name in enumerate(names):
        if STAGES[name].needs in failed:
            failed.add(name)
            rows.append((name, "", "left out", f"it needs the stage {STAGES[name].needs}"))
            continue
        log.info("%s: %s", name, STAGES[name].does)
        try:
            tables[name] = STAGES[name](night, executor=executor)
        except DataredError as error:
            failed.add(name)
            later = names[number + 1 :]
            # What another stage can do without must not stop it; what was asked for by name, and
            # what nothing can do without, is an error.
            if upto is not None or (later and all(_needs(other, failed) for other in later)):
                raise
            log.warning("%s: %s", name, error)
            rows.append((name, "", "failed", str(error)))
            continue
        rows += [
            (name, str(row["file"]), str(row["status"]), str(row["reason"]))
            for row in tables[name]
            if row["status"] in ("failed", "left out")
        ]
    names = ("stage", "file", "status", "reason")
    problems = Table(rows=rows or None, names=names, dtype=[str] * len(names))
    with atomic_path(night.work / "problems.ecsv") as temporary:
        problems.write(temporary, format="ascii.ecsv")
    return NightResult(night, tables, problems)


def _needs(name, others):
    """Whether a stage needs one of others, itself or by a stage between."""
    before = STAGES[name].needs
    return before is not None and (before in others or _needs(before, others))


def _require_lights(frames, night):
    """Refuse a night without a light frame to reduce, before anything is written."""
    if len(select_lights(frames, night)):
        return
    lights = frames[frames["kind"] == "light"]
    there = ", ".join(
        f"{row['filter']} of {str(row['object']) or 'no name'}"
        for row in unique(lights, keys=["object", "filter"])
    )
    raise ConfigError(
        f"There is no light frame to reduce with object = {night.object!r}, "
        f"date = {night.date!r} and exclude_filters = {list(night.exclude_filters)}. "
        + (f"The light frames are {there}." if there else "None of the files is a light frame.")
    )


def fetch_night(name, *, upto=None, seed=None, folder=None, executor=None):
    """Get a sample night and reduce it as far as is asked.

    Parameters
    ----------
    name : str
        ``"cluster"``, ``"transit"`` or ``"camera"`` (simulated), ``"ngc6819"`` or ``"hat-p-32"``
        (downloaded).
    upto : str, optional
        Last stage to do, as in `run`. By default no stage: the raw frames only.
    seed : int, optional
        For simulated nights: another seed is another night, with another truth.
    folder : str or pathlib.Path, optional
        Where the nights live; by default the folder named by the environment variable
        ``DATARED_HOME``, else ``datared`` in the home folder.
    executor : concurrent.futures.Executor, optional
        As in `run`.

    Returns
    -------
    Night
        The night, reduced up to that stage.
    """
    from .samples import fetch_sample

    night = load_night(fetch_sample(name, folder=folder, seed=seed))
    if upto is not None:
        run(night, upto=upto, executor=executor)
    return night
