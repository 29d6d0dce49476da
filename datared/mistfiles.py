"""Isochrones of MIST, the files ``.iso.cmd`` with magnitudes."""

import re

import numpy as np

from .columntext import read_columns
from .errors import ConfigError
from .isochronegrid import IsochroneGrid
from .isochronestages import giant_foot

__all__ = ["read_mist"]

BANDS = {
    **{f"Bessell_{name}": (name, "Johnson Vega") for name in "UBV"},
    **{f"Bessell_{name}": (name, "Cousins Vega") for name in "RI"},
    **{f"2MASS_{name}": (name[0], "2MASS Vega") for name in ("J", "H", "Ks")},
    **{f"Gaia_{name}_EDR3": (name, "Gaia Vega") for name in ("G", "BP", "RP")},
    **{f"PS_{name}": (name, "PS1 AB") for name in "grizy"},
    **{f"SDSS_{name}": (name, "SDSS AB") for name in "ugriz"},
}
"""Column, its band and system."""

SETTLED, TURNED_OFF, TIP, SPENT, PULSING = 202, 454, 605, 707, 808
"""Primary evolutionary points: zero-age main sequence, end of the main sequence, tip of the red
giants, end of core helium burning, first thermal pulse (Dotter 2016, ApJS 222, 8)."""

COLUMNS = ["EEP", "initial_mass", "log_Teff", "log_L", "log_g"]


def read_mist(path, text):
    """Return the grid of one MIST file.

    Parameters
    ----------
    path : Path
        Where the text comes from, for the messages.
    text : str
        The whole file: one metallicity and rotation, one or more ages.

    Returns
    -------
    IsochroneGrid
        All ages of the file; ``rotation`` is v / v_crit of its header.

    Raises
    ------
    ConfigError
        When the file is damaged or cut off, has no known band, or contains extinction.

    Notes
    -----
    MIST numbers the stars of an isochrone by equivalent evolutionary point (EEP): these are the
    points of the grid. Its phases -1, 0, 3 and 4 are our 0, 1, 4 and 5. Its phase 2 holds
    subgiants and red giants; they are parted at the foot of the giant branch. Thermally pulsing
    stars and all later ones (from EEP 808) are left out.
    """
    comments = [line for line in text.splitlines() if line.startswith("#")]
    head = _header(path, comments)
    if head["av"] != 0:
        raise ConfigError(
            f"{path} contains an extinction of A_V = {head['av']:g} mag, which would be counted "
            "twice; get the isochrones again with A_V = 0"
        )
    names = next((line[1:].split() for line in comments if "initial_mass" in line), [])
    age_name = next((n for n in names if n.endswith("isochrone_age_yr")), "isochrone_age_yr")
    bands = {name: band for name, band in BANDS.items() if name in names}
    if not bands:
        raise ConfigError(
            f"{path} has the photometric system {head['system']!r}, none of whose bands is known "
            "here; choose UBVRIplus, PanSTARRS or SDSSugriz"
        )
    kind = re.search(r"\((AB|Vega|ST)\)", head["system"])
    if kind and any(system.split()[-1] != kind[1] for _, system in bands.values()):
        raise ConfigError(
            f"{path} has magnitudes of the kind {kind[1]}, where {', '.join(bands)} are expected "
            f"in {', '.join(sorted({system for _, system in bands.values()}))}"
        )
    data = read_columns(path, text, names=names, wanted=[*COLUMNS, age_name, *bands])
    counts = [int(line.split("=")[1].split()[0]) for line in comments if "number of EEPs" in line]
    if len(counts) != head["isochrones"] or sum(counts) != len(data):
        raise ConfigError(
            f"{path} is cut off: it holds {len(data)} stars in {len(counts)} isochrones, where "
            f"its header says {sum(counts)} in {head['isochrones']}; get the file again"
        )
    age = data[:, len(COLUMNS)]
    log_age = np.round(age if age_name.startswith("log10") else np.log10(age), 4)
    log_ages, which = np.unique(log_age, return_inverse=True)
    point = data[:, 0].astype(int)
    low, used = int(point.min()), point < PULSING
    values = np.full((log_ages.size, PULSING - low, data.shape[1]), np.nan)
    values[which[used], point[used] - low] = data[used]
    return IsochroneGrid(
        log_ages=log_ages,
        metallicities=np.array([head["feh"]]),
        bands=dict(bands.values()),
        mass=values[None, ..., 1],
        magnitudes=np.ascontiguousarray(values[None, ..., len(COLUMNS) + 1 :]),
        phase=_phases(values, np.arange(low, PULSING)),
        log_teff=values[None, ..., 2],
        log_l=values[None, ..., 3],
        log_g=values[None, ..., 4],
        source=f"MIST {head['version']}, {head['system']}",
        rotation=head["rotation"],
    )


def _header(path, comments):
    """Return what the header of a file says."""
    text = "\n".join(comments[:60])
    abundances = re.search(r"# *Yinit.*\n#((?: +\S+){5})", text)
    fields = {
        "version": re.search(r"MIST version number *= *(\S+)", text),
        "system": re.search(r"photometric system *= *(\S.*)", text),
        "isochrones": re.search(r"number of isochrones *= *(\d+)", text),
        "av": re.search(r"xtinction:.*= *([\d.]+)", text),
    }
    lacking = [name for name, found in fields.items() if found is None]
    if lacking or not abundances:
        raise ConfigError(
            f"{path} has no full MIST header ({', '.join(lacking) or 'Yinit'} is missing); "
            "magnitudes are in the files .iso.cmd, not in .iso"
        )
    _, _, feh, _, rotation = (float(word) for word in abundances[1].split())
    return {
        "version": fields["version"][1],
        "system": fields["system"][1].strip(),
        "isochrones": int(fields["isochrones"][1]),
        "av": float(fields["av"][1]),
        "feh": feh,
        "rotation": rotation,
    }


def _phases(values, points):
    """Return the phase of each evolutionary point."""
    feet = []
    branch = (points >= TURNED_OFF) & (points < TIP)
    for isochrone in values[:, branch]:
        if branch.any() and np.all(np.isfinite(isochrone)):
            feet.append(giant_foot(isochrone[:, 2], isochrone[:, 3]))
    # One border for all ages: the grid has one phase for each point.
    foot = TURNED_OFF + (int(np.median(feet)) if feet else 0)
    return np.searchsorted([SETTLED, TURNED_OFF, foot, TIP, SPENT], points, side="right")
