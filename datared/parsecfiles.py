"""Isochrones of PARSEC, as the CMD service of Padova writes them (versions 2.7, 3.3, 3.6)."""

import re

import numpy as np

from .columntext import read_columns
from .errors import ConfigError
from .isochronegrid import IsochroneGrid
from .isochronestages import (
    EQUAL_PHASES,
    GIANT_TEFF,
    Stages,
    contraction_end,
    equal_points,
    find_stages,
)

__all__ = ["read_parsec"]

SYSTEMS = {
    "UBVRIJHK": {
        **{name: (name, "Johnson Vega") for name in "UBV"},
        **{name: (name, "Cousins Vega") for name in "RI"},
        **{name: (name, "Bessell Vega") for name in "JHK"},
    },
    "Gaia EDR3": {
        "G": ("G", "Gaia Vega"),
        "G_BP": ("BP", "Gaia Vega"),
        "G_RP": ("RP", "Gaia Vega"),
    },
    "Pan-STARRS1": {f"{name}P1": (name, "PS1 AB") for name in "grizy"},
    "SDSS": {name: (name, "SDSS AB") for name in "ugriz"},
    "2MASS": {name: (name[0], "2MASS Vega") for name in ("J", "H", "Ks")},
}
"""Word in the header; then column (without "mag") and its band and system."""

SUN = 0.0152  # Z of the Sun in these models
TERMINATED = "#isochrone terminated"  # last line of version 3
CUT_LOG_L, CUT_TEFF = 0.5, 0.1  # dex, more than the ends of neighbouring isochrones differ


def read_parsec(path, text):
    """Return the grid of one file of the CMD service.

    Parameters
    ----------
    path : Path
        Where the text comes from, for the messages.
    text : str
        The whole file, of one or more metallicities and ages.

    Returns
    -------
    IsochroneGrid
        All ages and metallicities of the file. ``metallicities`` is [M/H] of the file.

    Raises
    ------
    ConfigError
        When the file is damaged or cut off, has an unknown photometric system, contains
        extinction, or lacks ages of one of its metallicities.

    Notes
    -----
    Version 3 labels each star (0 contraction, 1 main sequence, 2 subgiants, 3 red giants, 4 to 6
    core helium burning, 7 early asymptotic giants, 8 thermally pulsing, 9 later). The later stages
    of an isochrone that has all labels up to 7 are divided by these; of one that lacks some, and
    in version 2, by shape (`isochronestages.find_stages`). The end of the main sequence is always
    found by shape, and contracting stars by their gravity, because the labels 0 and 1 alternate
    along an isochrone. Labels 8 and 9 are left out.
    """
    comments = [line for line in text.splitlines() if line.startswith("#")]
    heads = [line[1:].split() for line in comments if "logTe" in line]
    if not heads:
        raise ConfigError(
            f"{path} has no line with the names of its columns (logTe, ...); choose 'isochrone "
            "tables' as the kind of output of the CMD service"
        )
    labelled = "Mini" in heads[0]
    # Version 3 writes Bmag for B.
    names = [re.sub(r"mag$", "", name) if labelled else name for name in heads[0]]
    if comments[-1].strip() != TERMINATED if labelled else not text.endswith("\n"):
        raise ConfigError(f"{path} is cut off: its end is missing; get the file again")
    dimmed = re.search(r"includes extinction of Av *= *([\d.]*\d)", "\n".join(comments))
    if dimmed and float(dimmed[1]) != 0:
        raise ConfigError(
            f"{path} contains an extinction of A_V = {dimmed[1]} mag, which would be counted "
            "twice; get the isochrones again with A_V = 0"
        )
    system, bands = _system(path, comments, names)
    stars = "Mini logTe logL logg" if labelled else "M_ini logTe logL/Lo logG"
    keys = "MH logAge label" if labelled else "Z log(age/yr)"
    wanted = [*stars.split(), *bands, *keys.split()]
    data = read_columns(path, text, names=names, wanted=wanted)
    data, keys = data[:, : 4 + len(bands)], data[:, 4 + len(bands) :]
    feh = np.round(keys[:, 0] if labelled else _version_2_metallicity(comments, keys[:, 0]), 4)
    log_age = np.round(keys[:, 1], 4)
    label = keys[:, 2].astype(int) if labelled else np.zeros(log_age.size, dtype=int)
    axes = np.unique(feh), np.unique(log_age)
    values = []
    for z in axes[0]:
        row = []
        for age in axes[1]:
            rows = (feh == z) & (log_age == age) & (label < 8)
            row.append(_track(f"{path}, [M/H] {z:g}, log age {age:g}", data[rows], label[rows]))
        if not labelled and len(row) > 1 and _is_cut(*row[-2:]):
            raise ConfigError(f"{path} is cut off in its last isochrone; get the file again")
        values.append(_aligned(row))
    values = np.array(values)
    version = re.search(r"by CMD ([\d.]+)", text)
    release = re.search(r"release\s+(v[\w.]+)", text)
    return IsochroneGrid(
        log_ages=axes[1],
        metallicities=axes[0],
        bands=dict(bands.values()),
        mass=values[..., 0],
        magnitudes=np.ascontiguousarray(values[..., 4:]),
        phase=EQUAL_PHASES,
        log_teff=values[..., 1],
        log_l=values[..., 2],
        log_g=values[..., 3],
        source=f"PARSEC {release[1] if release else ''}, CMD {version[1]}, {system}",
        rotation=None,
    )


def _system(path, comments, names):
    """Return the photometric system of the header and {column: (band, system)}."""
    lines = [line.split(":", 1)[1] for line in comments if "hotometric system:" in line]
    said = re.sub(r"<[^>]*>", "", lines[0]).strip() if lines else "none"
    bands = {}
    for word, columns in SYSTEMS.items():
        if word.lower() in said.lower():
            bands.update({name: band for name, band in columns.items() if name in names})
    if not bands:
        raise ConfigError(
            f"{path} has the photometric system {said!r}, which is not known here; choose one of "
            f"{', '.join(SYSTEMS)} in the form of the CMD service"
        )
    return said.split("(")[0].strip(), bands


def _version_2_metallicity(comments, z):
    """Return [M/H] of each star of a file of version 2, which has it in comments only."""
    pairs = re.findall(r"Isochrone\s+Z = *([\d.]+).*?\[M/H\] = *([-+\d.]+)", "\n".join(comments))
    said = {round(float(value), 6): float(feh) for value, feh in pairs}
    return np.array([said.get(round(value, 6), np.log10(value / SUN)) for value in z])


def _track(where, columns, label):
    """Return the stars of one isochrone and its stages of life."""
    if len(columns) < 20:
        raise ConfigError(f"{where}: {len(columns)} stars only; get the file again")
    mass, log_teff, log_l = columns[:, 0], columns[:, 1], columns[:, 2]
    if np.any(np.diff(mass) < 0):
        raise ConfigError(f"{where}: the masses do not rise; the file is damaged, get it again")
    stages = find_stages(mass, log_teff, log_l)
    if {2, 3, 4, 7} <= set(label.tolist()):
        # The label of the main sequence ends up to 0.01 dex in Teff after the hottest star.
        ends = (int(np.argmax(label >= stage)) - 1 for stage in (3, 4, 7))
        stages = Stages(stages.main_sequence, *ends)
    return columns, stages


def _is_cut(before, last):
    """Say whether the last isochrone ends at an earlier stage than the one before it."""
    (one, stages), (other, last_stages) = before, last
    if one[-1, 1] > GIANT_TEFF:
        return False  # the very youngest end at hot stars, each in its own way
    ends_earlier = stages.helium is not None and last_stages.helium is None
    step = np.abs(one[-1] - other[-1])
    return ends_earlier or step[1] > CUT_TEFF or step[2] > CUT_LOG_L


def _aligned(row):
    """Return the isochrones of one metallicity at equal points, shape (n_age, n_point, k)."""
    young = [columns[: stages.main_sequence + 1] for columns, stages in row]
    mass = np.geomspace(
        min(columns[0, 0] for columns in young), max(columns[-1, 0] for columns in young), 500
    )
    # A star settles on the main sequence where its gravity is highest, whatever the age.
    log_g = np.full(mass.size, -np.inf)
    for columns in young:
        values = np.interp(mass, columns[:, 0], columns[:, 3], left=-np.inf, right=-np.inf)
        log_g = np.maximum(log_g, values)
    inside = np.isfinite(log_g)
    out = []
    for (columns, stages), start in zip(row, young, strict=True):
        begin = contraction_end(start[:, 0], start[:, 3], mass[inside], log_g[inside])
        out.append(equal_points(columns, columns[:, 1], columns[:, 2], stages, begin))
    return np.array(out)
