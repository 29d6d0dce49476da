"""Reading isochrones that others computed: one file, or a folder of metallicities."""

from pathlib import Path

import numpy as np

from .errors import ConfigError
from .isochronegrid import IsochroneGrid
from .isochronestore import fetch_isochrones, load_grid, save_grid
from .mistfiles import read_mist
from .parsecfiles import read_parsec

__all__ = ["fetch_isochrones", "read_isochrones", "save_grid"]

SUFFIXES = (".dat", ".txt", ".cmd", ".npz")


def read_isochrones(path, *, bands=None):
    """Read published isochrones.

    Parameters
    ----------
    path : str or Path
        A file: text of the CMD service (PARSEC, http://stev.oapd.inaf.it/cmd, tested with its
        versions 2.7, 3.3 and 3.6), a MIST file ``.iso.cmd``, or a file of `save_grid`. Or a folder
        with one such file for each metallicity.
    bands : sequence of str, optional
        Bands to keep, in this order ("B", "V", ...). Default: all that are known.

    Returns
    -------
    IsochroneGrid
        The ages that all metallicities share.

    Raises
    ------
    ConfigError
        When the file is missing, is no isochrone file, is damaged or cut off, is in a photometric
        system that is not known here, contains extinction, lacks a band, or the files of a folder
        do not fit together. The message says what was found and what to do.

    Notes
    -----
    How the stages of life are found is told by `read_parsec` and `read_mist`. Stars from the first
    thermal pulse on are left out. ``metallicities`` are what the files call [M/H] or [Fe/H],
    which are the same for scaled-solar models.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ConfigError(
                f"no isochrone file in {path}; expected names that end in {', '.join(SUFFIXES)}"
            )
    elif path.is_file():
        files = [path]
    else:
        raise ConfigError(f"there is no file {path}; give a file of isochrones or a folder")
    grids = [_keep(_read_file(file), bands, file) for file in files]
    return grids[0] if len(grids) == 1 else _join(grids, files)


def _read_file(path):
    """Return the grid of one file."""
    if path.suffix.lower() == ".npz":
        return load_grid(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    start = text[:3000]
    if "<html" in start.lower():
        raise ConfigError(
            f"{path} is a web page, not isochrones; save the file that the page links to"
        )
    if "MIST version" in start:
        return read_mist(path, text)
    if "by CMD" in start:
        return read_parsec(path, text)
    first = text.lstrip().split("\n", 1)[0][:60] or "nothing"
    raise ConfigError(
        f"{path} begins with {first!r}, which is no isochrone file that is known here; readable "
        "are the text of the CMD service (PARSEC) and MIST files (.iso.cmd)"
    )


def _keep(grid, bands, path):
    """Return the grid with the wanted bands."""
    if bands is None:
        return grid
    have = list(grid.bands)
    lacking = [band for band in bands if band not in have]
    if lacking or not bands:
        raise ConfigError(
            f"{path} has no band {', '.join(lacking) or 'of that choice'}; it has "
            f"{', '.join(have)}. Get isochrones in another photometric system, or ask for others"
        )
    fields = {name: getattr(grid, name) for name in grid.__dataclass_fields__}
    fields["bands"] = {band: grid.bands[band] for band in bands}
    used = [have.index(band) for band in bands]
    fields["magnitudes"] = np.ascontiguousarray(grid.magnitudes[..., used])
    return IsochroneGrid(**fields)


def _join(grids, files):
    """Return one grid of the grids of several files."""
    first = grids[0]
    for grid, file in zip(grids, files, strict=True):
        for what in ("source", "rotation", "bands"):
            one, other = getattr(first, what), getattr(grid, what)
            if one != other:
                raise ConfigError(
                    f"{files[0].name} and {file.name} do not fit together, {what} is {one!r} and "
                    f"{other!r}; keep the files of one set of models in a folder of their own"
                )
    feh = np.concatenate([grid.metallicities for grid in grids])
    order = np.argsort(feh)
    if np.any(np.diff(feh[order]) == 0):
        raise ConfigError(
            f"two files in {files[0].parent} have the same metallicity (they have "
            f"{', '.join(f'{value:g}' for value in feh[order])}); keep one of them"
        )
    ages = sorted(set.intersection(*(set(grid.log_ages.tolist()) for grid in grids)))
    if not ages:
        raise ConfigError(f"the files in {files[0].parent} have no age in common")
    # MIST files begin at different evolutionary points, but all end at the same.
    size = max(grid.phase.size for grid in grids)
    fields = {"phase": max((grid.phase for grid in grids), key=len)}
    for name in ("mass", "log_teff", "log_l", "log_g", "magnitudes"):
        parts = []
        for grid in grids:
            values = getattr(grid, name)[:, np.isin(grid.log_ages, ages)]
            before = [(0, 0)] * values.ndim
            before[2] = (size - grid.phase.size, 0)
            parts.append(np.pad(values, before, constant_values=np.nan))
        fields[name] = np.concatenate(parts)[order]
    return IsochroneGrid(
        log_ages=np.array(ages),
        metallicities=feh[order],
        bands=first.bands,
        source=first.source,
        rotation=first.rotation,
        **fields,
    )
