"""Residuals: how well the frames of a night are solved, star by star and frame by frame."""

import numpy as np
from astropy.table import Table

__all__ = ["frame_cards", "frame_numbers", "night_table", "residual_table"]

#: A frame is remarked on where it has fewer matched stars than this share of the median of its
#: filter, or residuals larger than this many times the median: thin clouds, wind, bad focus.
FEW_STARS, LARGE_RMS = 0.4, 2.0

_NUMBERS = (
    *("n_stars", "n_matched", "rms_px", "rms_arcsec", "worst_px", "scale", "rotation", "mirrored"),
    *("order", "log_odds", "ra", "dec", "jd_utc_mid", "fwhm", "sky", "noise", "fwhm_arcsec"),
    *("solver", "shared"),
)
_KINDS = {"n_stars": int, "n_matched": int, "order": int, "mirrored": bool, "shared": bool}
_KINDS |= {"solver": str}


def residual_table(stars, solution):
    """List of the detected stars with their sky positions and, where matched, the residuals.

    Parameters
    ----------
    stars : astropy.table.Table
        Detected stars: ``x``, ``y`` (px) and others.
    solution : Solution
        The plate solution of the frame.

    Returns
    -------
    astropy.table.Table
        A copy of ``stars`` with ``ra``, ``dec`` (deg), ``catalogue`` (row of the matched star,
        -1 where there is none), ``dx``, ``dy`` (px, measured minus predicted, NaN where there is
        none) and ``used`` (took part in the fit). ``meta`` has ``rms_px``, ``n_matched`` and
        ``worst``, the row of the star used that is farthest from its place.
    """
    table = stars.copy()
    table["ra"], table["dec"] = solution.wcs.all_pix2world(stars["x"], stars["y"], 0)
    table["catalogue"] = np.full(len(table), -1)
    for name in ("dx", "dy"):
        table[name] = np.full(len(table), np.nan)
    table["used"] = np.zeros(len(table), bool)
    matched = solution.matched
    rows = np.asarray(matched["source"])
    for name in ("catalogue", "dx", "dy", "used"):
        table[name][rows] = matched[name]
    distance = np.where(matched["used"], np.hypot(matched["dx"], matched["dy"]), -1.0)
    table.meta |= {
        "rms_px": solution.rms_px,
        "n_matched": solution.n_matched,
        "worst": int(rows[np.argmax(distance)]),
    }
    return table


def frame_numbers(stars, solution, ccd):
    """Numbers of a frame for the table of the night.

    Parameters
    ----------
    stars : astropy.table.Table
        Its `residual_table`.
    solution : Solution
        Its plate solution.
    ccd : astropy.nddata.CCDData
        The frame, for its shape and the time in its header.

    Returns
    -------
    dict
        The columns of `night_table` that are the frame's own.
    """
    middle = solution.wcs.all_pix2world([[(n - 1) / 2 for n in ccd.shape[::-1]]], 0)[0]
    worst = stars[stars.meta["worst"]]
    names = ("n_matched", "rms_px", "rms_arcsec", "scale", "rotation", "mirrored", "order")
    return {
        "n_stars": len(stars),
        **{name: getattr(solution, name) for name in (*names, "log_odds", "solver", "shared")},
        "worst_px": float(np.hypot(worst["dx"], worst["dy"])),
        "ra": float(middle[0]),
        "dec": float(middle[1]),
        "jd_utc_mid": float(ccd.meta.get("JD_UTC_M") or np.nan),
        **{name: stars.meta[name] for name in ("fwhm", "sky", "noise")},
        "fwhm_arcsec": stars.meta["fwhm"] * solution.scale,
    }


def frame_cards(numbers):
    """Header cards of a solved frame.

    Parameters
    ----------
    numbers : dict
        Its `frame_numbers`.

    Returns
    -------
    dict
        Value and comment for each card.
    """
    return {
        "ASTRRMS": (numbers["rms_arcsec"], "arcsec, rms of the plate solution"),
        "ASTRNST": (numbers["n_matched"], "stars matched with the catalogue"),
        "ASTRSOLV": (numbers["solver"], "what found the field"),
        "ASTRORD": (numbers["order"], "order of the distortion, 1 is none"),
        "FWHM": (numbers["fwhm"], "px, median of the stars"),
        "SKY": (numbers["sky"], "ADU, median sky"),
        "SKYNOISE": (numbers["noise"], "ADU, sky noise of a pixel"),
        "NSTARS": (numbers["n_stars"], "stars detected"),
    }


def night_table(lights, outcomes):
    """Table of a night: one row per frame, with remarks where it differs from the others.

    Parameters
    ----------
    lights : astropy.table.Table
        The frames: ``file``, ``filter``, ``pier_side``.
    outcomes : list of datared.products.Outcome
        What became of each, with its `frame_numbers`.

    Returns
    -------
    astropy.table.Table
        The columns and ``meta`` that `datared.astrometry.solve_night` describes. Of frames that
        failed, counts are 0 and other numbers NaN.
    """
    columns = {
        "file": [str(file) for file in lights["file"]],
        "filter": [str(name) for name in lights["filter"]],
        "status": [outcome.status for outcome in outcomes],
        "reason": [outcome.reason for outcome in outcomes],
    }
    table = Table(columns, dtype=["U"] * 4) if outcomes else Table(names=columns, dtype=["U1"] * 4)
    for name in _NUMBERS:
        kind = _KINDS.get(name, float)
        empty = np.nan if kind is float else kind()
        values = [outcome.result.get(name) for outcome in outcomes]
        values = [empty if value is None else value for value in values]
        table[name] = np.array(values, "U" if kind is str else kind)
    table["pier"] = np.array([str(side) for side in lights["pier_side"]], "U")
    flipped, wrong = _flips(table)
    table.add_column(flipped, name="flipped", index=table.colnames.index("mirrored") + 1)
    table["warning"] = np.array(_warnings(table, wrong), "U")
    solved = table[np.isfinite(table["rms_px"])]
    table.meta = {"n_frames": len(table), "n_solved": len(solved)}
    if len(solved):
        table.meta |= {
            "n_matched": float(np.median(solved["n_matched"])),
            "rms_px": float(np.median(solved["rms_px"])),
            "worst": str(solved["file"][np.argmax(solved["rms_px"])]),
        }
    return table


def _flips(table):
    """Frames that are turned against the first, and those whose side of the pier contradicts.

    The rotation decides: it is measured. The card is written by a program that may not know.
    """
    flipped, wrong = np.full(len(table), False), np.full(len(table), False)
    solved = np.flatnonzero(np.isfinite(table["rotation"]))
    if not len(solved):
        return flipped, wrong
    # Unknown times sort last, so that the first frame is one whose place is known.
    first = solved[np.lexsort((solved, table["jd_utc_mid"][solved]))[0]]
    turn = np.radians(table["rotation"] - table["rotation"][first])
    flipped[solved] = np.cos(turn[solved]) < 0
    known = solved[table["pier"][solved] != ""]
    # Which side is which, as most frames have it.
    same = flipped[known] == (table["pier"][known] == "east")
    if np.count_nonzero(same) * 2 < len(known):
        same = ~same
    wrong[known] = ~same
    return flipped, wrong


def _warnings(table, wrong):
    """Remarks on each frame; empty where there is none."""
    texts = []
    for row, contradicts in zip(table, wrong, strict=True):
        remarks = []
        # A comparison with oneself says nothing.
        same = np.isfinite(table["rms_px"]) & (table["filter"] == row["filter"])
        if np.isfinite(row["rms_px"]) and np.count_nonzero(same) > 2:
            stars, rms = (float(np.median(table[name][same])) for name in ("n_matched", "rms_px"))
            if row["n_matched"] < FEW_STARS * stars:
                remarks.append(f"few stars: {row['n_matched']} matched, {stars:.0f} on others")
            if row["rms_px"] > LARGE_RMS * rms:
                remarks.append(f"large residuals: {row['rms_px']:.2f} px, {rms:.2f} on others")
        if contradicts:
            remarks.append(
                f"PIERSIDE says {row['pier']}, but the frame is "
                f"{'turned' if row['flipped'] else 'not turned'}: the rotation counts"
            )
        texts.append("; ".join(remarks))
    return texts
