"""Which frames make which master, and which frame gets which bias, dark and flat, and why."""

import math
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from .errors import ConfigError

__all__ = ["MasterPlan", "choose_dark", "match_frames", "plan_masters"]

#: Exposure times are equal within this part, or this many seconds.
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 0.005, 0.005
#: Limits of exposure(frame) / exposure(dark) beyond which a scaled dark gets a remark.
RATIO_LIMITS = (0.05, 2.0)
#: Difference of sensor temperatures (deg C) that gets a remark.
TEMPERATURE_LIMIT = 2.0


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


def choose_dark(exptime, darks, *, bias_free=True, allow_bias=False):
    """Choose the dark for an exposure time: exact, else scaled, else none.

    Parameters
    ----------
    exptime : float
        Exposure time of the frame in s.
    darks : sequence of float
        Exposure times of the master darks in s; of equal ones the first is taken.
    bias_free : bool
        Whether the bias was subtracted from the darks. Only then is what is left proportional to
        time: scaling bias and dark together leaves ``(1 - scale)`` of the bias in the frame.
    allow_bias : bool
        Scale darks that contain the bias all the same.

    Returns
    -------
    which : int or None
        Index of the dark.
    scale : float
        Factor of the dark, ``exptime / darks[which]``; 1 for an exact match, 0 for none.
    match : str
        ``"exact"`` (within 0.5 % or 5 ms), ``"scaled"`` (the longest with a ratio between 0.05 and
        2, else the one nearest to that) or ``"none"``.

    Examples
    --------
    >>> choose_dark(96, [30, 192])
    (1, 0.5, 'scaled')
    >>> choose_dark(30.001, [30, 192])
    (0, 1.0, 'exact')
    >>> choose_dark(96, [192], bias_free=False)
    (None, 0.0, 'none')
    """
    if not (math.isfinite(exptime) and exptime >= 0):
        return None, 0.0, "none"
    exact = [(abs(exptime - dark), i) for i, dark in enumerate(darks) if _same(exptime, dark)]
    if exact:
        return min(exact)[1], 1.0, "exact"
    if not (bias_free or allow_bias):
        return None, 0.0, "none"
    # A dark with a longer exposure has less noise after scaling.
    usable = sorted((-dark, i) for i, dark in enumerate(darks) if dark > 0)
    if not usable:
        return None, 0.0, "none"

    def beyond(item):
        """How far, as a factor, the ratio lies outside its limits."""
        ratio = max(exptime / -item[0], 1e-9)
        return max(RATIO_LIMITS[0] / ratio, ratio / RATIO_LIMITS[1], 1.0)

    which = min(usable, key=beyond)[1]
    return which, exptime / darks[which], "scaled"


def plan_masters(table, *, use_bias=True, use_dark=True, use_flat=True, allow_bias=False):
    """Group the calibration frames of a night into masters.

    Bias frames make one master for each set-up, darks and dark-flats one for each set-up and
    exposure time, flats one for each set-up and filter.

    Parameters
    ----------
    table : astropy.table.Table
        Inventory; rows with a problem are left out.
    use_bias, use_dark, use_flat : bool
        Kinds to leave out.
    allow_bias : bool
        As in `choose_dark`.

    Returns
    -------
    list of MasterPlan
        Bias first, then darks, then flats.
    """
    rows = [dict(zip(row.colnames, row, strict=True)) for row in table if not row["problem"]]
    setups = sorted({row["setup"] for row in rows if row["kind"] in _KINDS})
    suffix = {s: "" if len(setups) < 2 else "_" + s.replace(" ", "-") for s in setups}
    plans = []
    for kind in _KINDS:
        if not {"bias": use_bias, "flat": use_flat}.get(kind, use_dark):
            continue
        for setup in setups:
            own = [row for row in rows if row["kind"] == kind and row["setup"] == setup]
            for group in _groups(own, kind):
                plans.append(_plan(kind, setup, suffix[setup], group, plans, allow_bias))
    return _unique(plans)


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
    if not lines:
        return Table(names=names, dtype=["U1" if kind is str else kind for kind in kinds])
    columns = zip(*lines, strict=True)
    return Table([np.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=names)


_KINDS = ("bias", "dark", "darkflat", "flat")


def _same(first, second):
    """Whether two exposure times are equal within the tolerance."""
    return abs(first - second) <= max(RELATIVE_TOLERANCE * max(first, second), ABSOLUTE_TOLERANCE)


def _groups(rows, kind):
    """Split frames of one kind and set-up by what must not be mixed."""
    if kind == "bias":
        return [rows] if rows else []
    if kind == "flat":
        filters = sorted({row["filter"] for row in rows})
        return [[row for row in rows if row["filter"] == name] for name in filters]
    groups = []
    for row in sorted(rows, key=lambda row: (row["exptime"], row["file"])):
        # The first of a group is the measure: a chain of small steps must not join all.
        if groups and _same(groups[-1][0]["exptime"], row["exptime"]):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [sorted(group, key=lambda row: row["file"]) for group in groups]


def _plan(kind, setup, suffix, group, plans, allow_bias):
    """Plan of one group, with its own bias and darks among the earlier plans."""
    exptime = float(np.median([row["exptime"] for row in group]))
    temperatures = [float(row["temperature"]) for row in group]
    known = [value for value in temperatures if math.isfinite(value)]
    name = {"flat": f"flat_{_safe(str(group[0]['filter']))}", "bias": "bias"}.get(
        kind, f"{kind}_{exptime:g}s"
    )
    bias = _first(plans, "bias", setup) if kind != "bias" else None
    remarks = [] if bias or kind == "bias" else ["no bias: not subtracted"]
    if len(group) == 1:
        remarks.append("a single frame: nothing can be rejected")
    if known and max(known) - min(known) > TEMPERATURE_LIMIT:
        remarks.append(f"sensor temperature from {min(known):.1f} to {max(known):.1f} deg C")
    darks, scales = [], []
    if kind == "flat":
        for row in group:
            dark, scale, _, why = _dark_for(row, plans, bool(bias), allow_bias)
            darks.append("" if dark is None else dark.name)
            scales.append(float(scale))
            remarks += [why or "no dark"] if dark is None or why else []
    return MasterPlan(
        name=name + suffix,
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
    )


def _dark_for(row, plans, has_bias, allow_bias):
    """Plan of the dark for a frame, its scale, the kind of match and a remark."""
    setup, exptime = str(row["setup"]), float(row["exptime"])
    own = {k: [p for p in plans if p.kind == k and p.setup == setup] for k in ("dark", "darkflat")}
    # Dark-flats were taken for the flats; a light uses them only where there is nothing else.
    darks = own["darkflat"] + own["dark"] if row["kind"] == "flat" else own["dark"]
    darks = darks or own["darkflat"]
    times = [plan.exptime for plan in darks]
    which, scale, match = choose_dark(exptime, times, bias_free=has_bias, allow_bias=allow_bias)
    if which is None:
        if darks and not math.isfinite(exptime):
            return None, 0.0, "none", "no dark: the exposure time is not known"
        if darks:
            text = ", ".join(f"{time:g}" for time in times)
            return (
                *(None, 0.0, "none"),
                f"no dark of {exptime:g} s (there are {text} s; without bias none can be scaled "
                "unless scale_dark_with_bias is set)",
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
            f"{abs(difference):.1f} deg C {'warm' if difference > 0 else 'cold'}er than it"
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
        text += f" for set-up {setup} (there is one for {others[0].setup})"
    return text


def _safe(text):
    """Text with letters and digits only, and r' told from r."""
    return "".join(c if c.isalnum() else "-p" if c == "'" else "-" for c in text) or "none"


def _unique(plans):
    """Plans with names that also a file system without case can tell apart (r and R)."""
    seen, result = {}, []
    for plan in plans:
        count = seen[plan.name.lower()] = seen.get(plan.name.lower(), 0) + 1
        name = plan.name if count == 1 else f"{plan.name}-{count}"
        result.append(MasterPlan(**{**plan.__dict__, "name": name}))
    return result
