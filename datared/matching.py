"""Which frames make which master, and which frame gets which bias, dark and flat, and why."""

import math
from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table

from .darks import (
    RATIO_LIMITS,
    TEMPERATURE_LIMIT,
    choose_dark,
    same_exposure,
    temperature_groups,
)
from .errors import ConfigError

__all__ = ["MasterPlan", "choose_dark", "match_frames", "plan_masters", "safe_name"]

#: Fewer frames than these cannot tell one bad value from the others reliably.
FEW_FRAMES = 5


@dataclass(frozen=True)
class MasterPlan:
    """One master that a night can have.

    Parameters
    ----------
    name : str
        Stem of its file.
    kind : str
        ``"bias"``, ``"dark"``, ``"darkflat"`` or ``"flat"``.
    setup, filter : str
        Set-up of its frames; filter of a flat, else empty.
    exptime, temperature : float
        Median exposure time (s) and sensor temperature (deg C, NaN where not known).
    files, paths, exptimes : tuple
        Its frames: names, paths and exposure times.
    bias : str
        Name of the master bias for them, or empty.
    darks : tuple of str
        For a flat: for each frame the name of the master dark, or empty.
    scales : tuple of float
        For a flat: for each frame the factor of that dark.
    why : str
        What was chosen and why.
    rejected : tuple
        Frames that would belong to it but are not used: pairs of file name and reason.
    """

    name: str
    kind: str
    setup: str
    filter: str
    exptime: float
    temperature: float
    files: tuple
    paths: tuple
    exptimes: tuple
    bias: str = ""
    darks: tuple = ()
    scales: tuple = ()
    why: str = ""
    rejected: tuple = ()


def plan_masters(
    table, *, use_bias=True, use_dark=True, use_flat=True, allow_bias=False, failed=()
):
    """Group the calibration frames of a night into masters.

    Bias frames make one master for each set-up; darks and dark-flats one for each set-up, exposure
    time and temperature (see `datared.darks.temperature_groups`; the name has the temperature
    where there are several); flats one for each set-up and filter. The filter of a bias or dark
    does not matter.

    Parameters
    ----------
    table : astropy.table.Table
        Inventory; rows with a problem are left out. Its light and flat frames tell which dark
        temperatures are needed.
    use_bias, use_dark, use_flat : bool
        Kinds to leave out.
    allow_bias : bool
        As in `choose_dark`.
    failed : sequence of str
        Names of masters that could not be made: they are left out, and not chosen for others. The
        other masters keep their names.

    Returns
    -------
    list of MasterPlan
        Bias first, then darks, then flats.
    """
    rows = [dict(zip(row.colnames, row, strict=True)) for row in table if not row["problem"]]
    setups = sorted({row["setup"] for row in rows if row["kind"] in _KINDS})
    suffix = {s: "" if len(setups) < 2 else "_" + safe_name(s) for s in setups}
    plans, names = [], set()
    for kind in _KINDS:
        if not {"bias": use_bias, "flat": use_flat}.get(kind, use_dark):
            continue
        for setup in setups:
            here = [row for row in rows if row["setup"] == setup]
            for stem, group, rejected in _groups(here, kind):
                plan = _plan(kind, setup, group, rejected, plans, allow_bias)
                name = _unique(stem + suffix[setup], names)
                if name not in failed:
                    plans.append(replace(plan, name=name))
    return plans


def match_frames(
    table, plans, *, strict=False, use_bias=True, use_dark=True, use_flat=True, allow_bias=False
):
    """Match frames with masters.

    Parameters
    ----------
    table : astropy.table.Table
        Rows of the inventory, usually the light frames.
    plans : list of MasterPlan
        From `plan_masters`.
    strict : bool
        Raise where a frame lacks a correction, instead of a remark.
    use_bias, use_dark, use_flat : bool
        Corrections that are wanted at all.
    allow_bias : bool
        As in `choose_dark`.

    Returns
    -------
    astropy.table.Table
        Columns ``file``, ``kind``, ``filter``, ``exptime``, ``setup``, ``bias``, ``dark``,
        ``dark_match`` (exact, scaled, none), ``dark_scale``, ``flat`` (names of masters, or empty)
        and ``why``.

    Raises
    ------
    ConfigError
        With ``strict``, naming every frame that lacks something.
    """
    lines, problems = [], []
    for row in table:
        setup, exptime = str(row["setup"]), float(row["exptime"])
        bias = _first(plans, "bias", setup)
        dark, scale, match, why = _dark_for(row, plans, bool(bias), allow_bias)
        flat = _first(plans, "flat", setup, str(row["filter"])) if row["kind"] == "light" else None
        missing = []
        if use_bias and bias is None:
            missing.append(_reason(plans, "bias", setup))
        if use_dark and dark is None:
            missing.append(why or _reason(plans, "dark", setup))
        elif why:
            missing.append(why)
        lacks_flat = use_flat and row["kind"] == "light" and flat is None
        if lacks_flat:
            missing.append(_reason(plans, "flat", setup, str(row["filter"])))
        if (use_bias and bias is None) or (use_dark and dark is None) or lacks_flat:
            problems.append(f"{row['file']}: {'; '.join(missing)}.")
        names = ["" if plan is None else plan.name for plan in (bias, dark, flat)]
        lines.append(
            (
                *(row["file"], row["kind"], row["filter"], exptime, setup, *names[:2]),
                *(match, scale, names[2], "; ".join(missing)),
            )
        )
    if strict and problems:
        raise ConfigError(*problems, "Add the frames, or set strict = false to go on without.")
    names = "file kind filter exptime setup bias dark dark_match dark_scale flat why".split()
    kinds = (str, str, str, float, str, str, str, str, float, str, str)
    return Table(rows=lines, names=names, dtype=kinds)


def safe_name(text):
    """Make a part of a file name from header text.

    Parameters
    ----------
    text : str
        Such as a filter or a set-up.

    Returns
    -------
    str
        Letters, digits and hyphens only; a prime is told (``r'`` gives ``r-p``). Different texts
        may give the same name.

    Examples
    --------
    >>> safe_name("r'"), safe_name("../5 MHz")
    ('r-p', '---5-MHz')
    """
    plain = (c if c.isascii() and c.isalnum() else "-p" if c == "'" else "-" for c in str(text))
    return "".join(plain) or "none"


_KINDS = ("bias", "dark", "darkflat", "flat")


def _groups(rows, kind):
    """Split the frames of a set-up by what must not be mixed: name, frames, rejected frames."""
    own = [row for row in rows if row["kind"] == kind]
    if kind == "bias":
        return [("bias", own, ())] if own else []
    if kind == "flat":
        filters = sorted({str(row["filter"]) for row in own})
        return [
            (f"flat_{safe_name(name)}", [row for row in own if row["filter"] == name], ())
            for name in filters
        ]
    wanted = [float(row["temperature"]) for row in rows if row["kind"] in ("light", "flat")]
    groups = []
    for row in sorted(own, key=lambda row: (row["exptime"], row["file"])):
        # The first of a group is the measure: a chain of small steps must not join all.
        if groups and same_exposure(groups[-1][0]["exptime"], row["exptime"]):
            groups[-1].append(row)
        else:
            groups.append([row])
    result = []
    for group in groups:
        group.sort(key=lambda row: row["file"])
        warmth = [float(row["temperature"]) for row in group]
        parts, strays = temperature_groups(warmth, wanted=wanted)
        largest = max(parts, key=len)
        stem = f"{kind}_{np.median([row['exptime'] for row in group]):g}s"
        for part in parts:
            middle = np.nanmedian([warmth[i] for i in part]) if len(parts) > 1 else 0.0
            name = stem if len(parts) == 1 else f"{stem}_{round(float(middle))}C"
            frames = [group[i] for i in part]
            reasons = [(str(group[i]["file"]), strays[i]) for i in sorted(strays)]
            result.append((name, frames, tuple(reasons) if part is largest else ()))
    return result


def _plan(kind, setup, group, rejected, plans, allow_bias):
    """Plan of one group, with its own bias and darks among the earlier plans."""
    exptime = float(np.median([row["exptime"] for row in group]))
    temperatures = [float(row["temperature"]) for row in group]
    known = [value for value in temperatures if math.isfinite(value)]
    bias = _first(plans, "bias", setup) if kind != "bias" else None
    remarks = [] if bias or kind == "bias" else ["no bias: not subtracted"]
    if len(group) == 1:
        remarks.append("a single frame: nothing can be rejected")
    elif len(group) < FEW_FRAMES:
        remarks.append(f"{len(group)} frames: take {FEW_FRAMES} or more, so that outliers show")
    if known and max(known) - min(known) > TEMPERATURE_LIMIT:
        remarks.append(f"sensor temperature from {min(known):.1f} to {max(known):.1f} deg C")
    if kind != "bias" and 0 < len(known) < len(group):
        remarks.append(f"{len(group) - len(known)} frames without a temperature")
    lamps = sorted({str(row.get("flat_kind", "")) for row in group} - {""})
    if len(lamps) > 1:
        remarks.append(f"{' and '.join(lamps)} flats together")
    darks, scales = [], []
    if kind == "flat":
        for row in group:
            dark, scale, _, why = _dark_for(row, plans, bool(bias), allow_bias)
            darks.append("" if dark is None else dark.name)
            scales.append(float(scale))
            remarks += [why or _reason(plans, "dark", setup)] if dark is None or why else []
    return MasterPlan(
        name="",
        kind=kind,
        setup=str(setup),
        filter=str(group[0]["filter"]) if kind == "flat" else "",
        exptime=exptime,
        temperature=float(np.median(known)) if known else math.nan,
        files=tuple(str(row["file"]) for row in group),
        paths=tuple(str(row["path"]) for row in group),
        exptimes=tuple(float(row["exptime"]) for row in group),
        bias="" if bias is None else bias.name,
        darks=tuple(darks),
        scales=tuple(scales),
        why="; ".join(dict.fromkeys(remarks)),
        rejected=rejected,
    )


def _dark_for(row, plans, has_bias, allow_bias):
    """Plan of the dark for a frame, its scale, the kind of match and a remark."""
    setup, exptime = str(row["setup"]), float(row["exptime"])
    own = {k: [p for p in plans if p.kind == k and p.setup == setup] for k in ("dark", "darkflat")}
    # Dark-flats were taken for the flats; a light uses them only where there is nothing else.
    darks = own["darkflat"] + own["dark"] if row["kind"] == "flat" else own["dark"]
    darks = darks or own["darkflat"]
    times = [plan.exptime for plan in darks]
    which, scale, match = choose_dark(
        exptime,
        times,
        bias_free=has_bias,
        allow_bias=allow_bias,
        temperature=float(row["temperature"]),
        temperatures=[plan.temperature for plan in darks],
    )
    if which is None:
        if darks and not math.isfinite(exptime):
            return None, 0.0, "none", "no dark: the exposure time is not known"
        if darks:
            text = ", ".join(f"{time:g}" for time in sorted(set(times)))
            return (
                *(None, 0.0, "none"),
                f"no dark of {exptime:g} s (there are {text} s, but without bias none can be "
                "scaled unless scale_dark_with_bias is set)",
            )
        return None, 0.0, "none", ""
    remarks = []
    if match == "scaled":
        remarks.append(f"dark of {darks[which].exptime:g} s scaled by {scale:.4g}")
        if not RATIO_LIMITS[0] <= scale <= RATIO_LIMITS[1]:
            remarks[-1] += f", outside {RATIO_LIMITS[0]:g} to {RATIO_LIMITS[1]:g}"
        if not has_bias:
            remarks[-1] += f", with its bias: {1 - scale:.2g} of the bias stays in the frame"
    difference = float(row["temperature"]) - darks[which].temperature
    if abs(difference) > TEMPERATURE_LIMIT:
        remarks.append(
            f"{abs(difference):.1f} deg C {'warm' if difference > 0 else 'cold'}er than "
            f"{darks[which].name}"
        )
    return darks[which], scale, match, "; ".join(remarks)


def _first(plans, kind, setup, name=None):
    """First plan of a kind, set-up and filter, or None."""
    for plan in plans:
        if plan.kind == kind and plan.setup == setup and name in (None, plan.filter):
            return plan
    return None


def _reason(plans, kind, setup, name=None):
    """Why there is no master of a kind."""
    text = f"no {kind}" + (f" in filter {name!r}" if name is not None else "")
    others = [p for p in plans if p.kind == kind and name in (None, p.filter)]
    if others:
        text += f" for set-up {setup} ({others[0].name} is for {others[0].setup})"
    return text


def _unique(name, names):
    """Name that also a file system without case can tell from the earlier ones (r and R)."""
    stem, count = name, 1
    while name.lower() in names:
        count += 1
        name = f"{stem}-{count}"
    names.add(name.lower())
    return name
