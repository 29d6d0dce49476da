"""Isochrone grids on disk: our own file format, and the published grids of MIST."""

import hashlib
import logging
import tarfile
from pathlib import Path

import numpy as np

from .errors import ConfigError, DataredError
from .isochronegrid import IsochroneGrid
from .products import atomic_path
from .samples import home, shared_data

__all__ = ["PUBLISHED", "fetch_isochrones", "load_grid", "save_grid"]

log = logging.getLogger(__name__)

ARRAYS = ("log_ages", "metallicities", "mass", "magnitudes", "phase", "log_teff", "log_l", "log_g")

ADDRESS = "https://waps.cfa.harvard.edu/MIST/data/tarballs_v1.2/{name}.txz"

PUBLISHED = tuple(
    f"MIST_v1.2_vvcrit{rotation}_{system}"
    for system in ("UBVRIplus", "PanSTARRS", "SDSSugriz")
    for rotation in ("0.0", "0.4")
)
"""Published grids that `fetch_isochrones` knows: without and with rotation, for three systems."""

BY_HAND = (
    "PARSEC has no files to download, only a form: open http://stev.oapd.inaf.it/cmd, choose "
    "'isochrone tables', one photometric system, ages in steps of 0.05 dex in log10(age) and a "
    "few metallicities, save the output under a name that ends in .dat, and give that file to "
    "read_isochrones"
)


def save_grid(grid, path):
    """Write a grid to a file of numpy arrays with its checksum.

    Parameters
    ----------
    grid : IsochroneGrid
        The grid.
    path : str or Path
        File to write; it must end in ``.npz``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        When the name does not end in ``.npz``.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ConfigError(f"{path} must end in .npz")
    arrays = {name: np.ascontiguousarray(getattr(grid, name)) for name in ARRAYS}
    arrays["bands"] = np.array(list(grid.bands.items()), dtype=str)
    arrays["source"] = np.array(grid.source, dtype=str)
    arrays["rotation"] = np.array(np.nan if grid.rotation is None else grid.rotation)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays, sha256=np.array(_digest(arrays)))
    return path


def load_grid(path):
    """Read a grid that `save_grid` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    IsochroneGrid
        The grid.

    Raises
    ------
    ConfigError
        When the file is no such grid, is damaged, or its checksum differs. Nothing in the file is
        ever executed (no pickle).
    """
    try:
        # Opened here: numpy leaves a file of its own open when it is damaged.
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            arrays = dict(data)
        said = str(arrays.pop("sha256"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except Exception as error:  # Any error of zip, numpy or a missing array.
        raise ConfigError(
            f"{path} is no grid of save_grid, or is damaged ({type(error).__name__}: {error}); "
            "make it again"
        ) from error
    if said != _digest(arrays):
        raise ConfigError(
            f"{path} is damaged: its checksum differs from its content; make it again"
        )
    rotation = float(arrays.pop("rotation"))
    bands, source = arrays.pop("bands"), str(arrays.pop("source"))
    return IsochroneGrid(
        **arrays,
        bands={str(band): str(system) for band, system in bands},
        source=source,
        rotation=None if np.isnan(rotation) else rotation,
    )


def _digest(arrays):
    """Return the SHA-256 of arrays: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def fetch_isochrones(name, *, folder=None):
    """Download a published set of isochrones once, and return the folder with its files.

    Parameters
    ----------
    name : str
        One of `PUBLISHED`: MIST version 1.2 (Choi et al. 2016, ApJ 823, 102; Dotter 2016) without
        rotation (``vvcrit0.0``) or with (``vvcrit0.4``), in one group of photometric systems.
    folder : str or Path, optional
        Where to keep the files. Default: the folder ``isochrones`` of `samples.home`; a copy in
        ``isochrones`` of the folder that ``DATARED_DATA`` names is used where there is one.

    Returns
    -------
    Path
        Folder with one file ``.iso.cmd`` for each metallicity, for `read_isochrones`.

    Raises
    ------
    ConfigError
        For an unknown name; for PARSEC, with what to do by hand.
    DataredError
        When the file cannot be downloaded, or is not what it was at the first download. The
        message says what works without a network.

    Notes
    -----
    MIST publishes no checksums. The SHA-256 of the first download is kept beside the file, and a
    later download is compared with it.
    """
    import pooch

    if name.upper().startswith("PARSEC"):
        raise ConfigError(BY_HAND)
    if name not in PUBLISHED:
        raise ConfigError(f"no published isochrones {name!r}; valid: {', '.join(PUBLISHED)}")
    if folder is None and shared_data() is not None:
        copy = shared_data() / "isochrones" / name
        if any(copy.glob("*.iso.cmd")):
            return copy
    folder = home() / "isochrones" if folder is None else Path(folder).absolute()
    target = folder / name
    if any(target.glob("*.iso.cmd")):
        return target
    record = folder / f"{name}.sha256"
    known = record.read_text(encoding="ascii").strip() if record.is_file() else None
    address = ADDRESS.format(name=name)
    log.info("downloading %s (some hundred MB)", address)
    level = pooch.get_logger().level
    pooch.get_logger().setLevel(logging.ERROR)
    try:
        archive = Path(pooch.retrieve(address, known_hash=known, fname=f"{name}.txz", path=folder))
    except Exception as error:  # The errors of every network library.
        raise DataredError(
            f"{address} cannot be downloaded ({type(error).__name__}): check the network and run "
            f"the same again; or unpack a copy of {name}.txz from elsewhere into {target}. "
            "Without a network the embedded isochrones work: embedded_grid(), isochrone()"
        ) from error
    finally:
        pooch.get_logger().setLevel(level)
    _unpack(archive, target)
    if known is None:
        record.write_text(pooch.file_hash(archive) + "\n", encoding="ascii")
    archive.unlink()
    return target


def _unpack(archive, target):
    """Unpack the isochrones of a MIST archive into a folder, which then holds all or nothing."""
    try:
        with tarfile.open(archive) as tar:
            members = [m for m in tar if m.isfile() and m.name.endswith(".iso.cmd")]
            if not members:
                raise DataredError(f"{archive.name} holds no file .iso.cmd")
            for member in members:
                member.name = Path(member.name).name  # never a path outside the folder
                tar.extract(member, target.with_name(f".{target.name}"), filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        archive.unlink()
        raise DataredError(
            f"{archive.name} is damaged ({type(error).__name__}); run the same again"
        ) from error
    target.with_name(f".{target.name}").rename(target)
