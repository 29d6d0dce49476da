"""What would be done with a night, in words, before anything is computed or written."""

import re
from collections import Counter

from .errors import ConfigError
from .listing import select_lights
from .matching import match_frames, plan_masters

__all__ = ["outlook"]

#: Frames that are named one by one for their remarks; the others are counted.
NAMED = 10
#: A remark that says no more than the line above it.
_SCALED = re.compile(r"dark of \S+ s scaled by [^, ]+")


def outlook(night, frames):
    """Say which masters a night can have, and which frame would get which of them, and why.

    Nothing is read but the listing, and nothing is written.

    Parameters
    ----------
    night : Night
        The night.
    frames : astropy.table.Table
        Its listing, from `datared.listing.inventory`.

    Returns
    -------
    list of str
        Lines to print. Frames that are treated alike share one; a remark that is not the same for
        all of them is listed with the name of the frame.
    """
    options = night.reduction
    wanted = {key: getattr(options, key) for key in ("use_bias", "use_dark", "use_flat")}
    wanted["allow_bias"] = options.scale_dark_with_bias
    lights = select_lights(frames, night)
    plans = plan_masters(frames, **wanted)
    lines = ["Masters:", *(line for plan in plans for line in _describe(plan))]
    if not plans:
        lines.append("  none: there is no calibration frame that can be used")
    lines += ["", "Which frame gets what:"]
    flats = frames[(frames["kind"] == "flat") & (frames["problem"] == "")]
    for rows in (lights, flats[: len(flats) * options.use_flat]):
        lines += _treatments(match_frames(rows, plans, **wanted), wanted)
    lines += _left_out(frames, lights)
    if options.strict:
        try:
            match_frames(lights, plans, strict=True, **wanted)
        except ConfigError as error:
            count = len(error.problems) - 1  # The last one says what to do.
            lines.append(f"strict = true: a run stops here, for want of these ({count} frames).")
    return lines


def _describe(plan):
    """Lines about one planned master: its frames, what is taken off them, remarks."""
    times = sorted({f"{time:g}" for time in plan.exptimes if time == time}, key=float)
    words = f"{len(plan.files)} {plan.kind} frame{'s' * (len(plan.files) > 1)}"
    if plan.filter:
        words += f" in {plan.filter}"
    if plan.kind != "bias" and times:
        words += f" of {', '.join(times)} s"
    if plan.kind in ("dark", "darkflat") and plan.temperature == plan.temperature:
        words += f" at {plan.temperature:.1f} deg C"
    scaled = {f"{d} x {s:.3g}" for d, s in zip(plan.darks, plan.scales, strict=True) if d}
    taken = [plan.bias, *sorted(scaled)] if plan.bias else sorted(scaled)
    words += f", minus {' and '.join(taken)}" if taken else ""
    lines = [f"  {plan.name:16s} {words}"]
    lines += [f"      {remark}" for remark in _remarks(plan.why)]
    return lines + [f"      not used: {file}: {reason}" for file, reason in plan.rejected]


def _treatments(matching, wanted):
    """Lines about frames: one for those that are treated alike, then their remarks."""
    groups = {}
    setups = len(set(matching["setup"])) > 1
    for row in matching:
        dark = str(row["dark"])
        if dark:
            factor = "" if row["dark_match"] == "exact" else f" x {row['dark_scale']:.3g}"
            dark += f"{factor} ({row['dark_match']})"
        parts = [("bias", str(row["bias"])), ("dark", dark)]
        if row["kind"] == "light":
            parts.append(("flat", str(row["flat"])))
        text = ", ".join(name or f"no {kind}" for kind, name in parts if wanted[f"use_{kind}"])
        what = f"{row['filter']} {row['exptime']:g} s" + f" [{row['setup']}]" * setups
        groups.setdefault((str(row["kind"]), what, text or "nothing"), []).append(row)
    lines = []
    for (kind, what, text), rows in groups.items():
        lines.append(f"  {len(rows):4d} {kind}{'s' * (len(rows) > 1)} {what} -> {text}")
        said = text.split(", ")
        remarks = [[t for t in _remarks(row["why"]) if t not in said] for row in rows]
        shared = [text for text in remarks[0] if all(text in other for other in remarks)]
        lines += [f"         {text}" for text in shared]
        own = [
            (row["file"], [t for t in r if t not in shared])
            for row, r in zip(rows, remarks, strict=True)
        ]
        own = [f"         {file}: {'; '.join(texts)}" for file, texts in own if texts]
        lines += own[:NAMED]
        if len(own) > NAMED:
            lines.append(f"         and {len(own) - NAMED} more with such remarks")
    return lines


def _remarks(why):
    """Remarks that say more than the line above them."""
    return [text for text in str(why).split("; ") if text and not _SCALED.fullmatch(text)]


def _left_out(frames, lights):
    """Lines about frames that are not reduced, and about what is odd in the headers."""
    usable = frames[(frames["kind"] == "light") & (frames["problem"] == "")]
    lines = []
    if len(lights) < len(usable):
        lines.append(
            f"  {len(usable) - len(lights)} of {len(usable)} light frames are left out (object, "
            "date or exclude_filters)"
        )
    if not len(usable):
        lines.append("  there is no light frame that can be used")
    nights = Counter(str(date) or "no time" for date in usable["night"])
    if len(nights) > 1:
        counts = ", ".join(f"{date}: {count}" for date, count in sorted(nights.items()))
        lines.append(f"  light frames by night: {counts}")
    remarks = Counter(str(text) for text in frames["warning"] if text)
    return lines + [f"  {count} files: {text}" for text, count in remarks.items()]
