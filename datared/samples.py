"""Nights to work with: simulated ones, made when first asked for, and real ones, downloaded once.

They are kept under `home`. The real ones are downloaded from where they are published, file by
file, and compared with their SHA-256; an interrupted download goes on where it stopped. A folder
that already holds copies (a lab's shared disk) is named by the environment variable
``DATARED_DATA`` and used where it is.
"""

import csv
import hashlib
import logging
import os
import re
import shutil
import tempfile
import tomllib
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from . import __version__
from .errors import ConfigError, DataredError
from .settings import night_toml

__all__ = ["SAMPLES", "fetch_sample", "home", "shared_data"]

log = logging.getLogger("datared.samples")

#: Names of the samples, and what they are.
SAMPLES = {
    "cluster": "simulated open cluster in g, r, i with all calibration frames",
    "transit": "simulated transit of a planet in r with all calibration frames",
    "camera": "simulated camera in the laboratory: bias frames, darks and many flats, no stars",
    "ngc6819": "real open cluster NGC 6819 in B and V with all calibration frames (52 MB)",
    "hat-p-32": "real transit of HAT-P-32 b, unfiltered, without calibration frames (93 MB)",
}
#: Modules that make the simulated ones, each with a function ``simulate_<name>``.
_SIMULATED = {"cluster": "simulate", "transit": "simulate", "camera": "camerabench"}
#: Folders and catalogues of the real nights under DATARED_DATA.
_SHARED = {
    "ngc6819": ("nickel-ngc6819", "catalogues/gaia_edr3_ngc6819_members.csv"),
    "hat-p-32": ("hatp32b-transit", "catalogues/tycho2_hatp32_field.csv"),
}
#: Standard stars of the real nights, in the folder ``catalogues`` under DATARED_DATA.
_STANDARDS = {"ngc6819": "Landolt_Standards_2009.txt"}
_DATA = Path(__file__).parent / "data"
_MARKER = "complete.txt"
_OURS = "# Made by datared; it is made again until you edit it. "


def home():
    """Folder of the samples: ``DATARED_HOME`` if it is set, else ``datared`` in the home folder.

    Returns
    -------
    pathlib.Path
        Absolute; it may not exist yet.
    """
    folder = os.environ.get("DATARED_HOME") or "~/datared"
    return Path(folder).expanduser().absolute()


def shared_data():
    """Folder that ``DATARED_DATA`` names, with copies of the real nights.

    Returns
    -------
    pathlib.Path or None
        None where the variable is not set or names no folder.
    """
    folder = os.environ.get("DATARED_DATA")
    if not folder:
        return None
    path = Path(folder).expanduser().absolute()
    return path if path.is_dir() else None


def fetch_sample(name, *, folder=None, seed=None):
    """Get a sample night; what is there already is used.

    Parameters
    ----------
    name : str
        One of `SAMPLES`.
    folder : str or pathlib.Path, optional
        Where to keep it; a folder under `home` where it is not given.
    seed : int, optional
        Another simulated night (1 where it is not given): every seed has its own folder.

    Returns
    -------
    pathlib.Path
        The night file, for `datared.night.load_night`.

    Raises
    ------
    ConfigError
        For an unknown name, or a seed for a real night.
    DataredError
        If a file cannot be downloaded, or is not the published one.
    """
    if name not in SAMPLES:
        raise ConfigError(f"there is no sample {name!r}; there are {', '.join(SAMPLES)}")
    if name not in _SIMULATED and seed is not None:
        raise ConfigError(f"{name} is a real night: it has no seed")
    default = name if seed in (None, 1) else f"{name}-seed{seed}"
    folder = Path(folder).expanduser().absolute() if folder is not None else home() / default
    if name in _SIMULATED:
        return _simulated(name, folder, 1 if seed is None else seed)
    return _real(name, folder)


def _simulated(name, folder, seed):
    """Make a simulated night unless it is there, whole and by this version of the simulation."""
    marker, module = folder / _MARKER, _SIMULATED[name]
    wanted = f"{name} seed {seed} by {__version__}+{_source_digest(module)}\n"
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return folder / "night.toml"
    if not marker.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} has files that are not of a sample; give an empty or a new folder"
        )
    simulate = getattr(import_module(f".{module}", __package__), f"simulate_{name}")

    log.info("making the simulated night %s in %s", name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text("incomplete\n", encoding="utf-8")
    for left in folder.glob(".making-*"):
        _remove(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
        made = simulate(Path(scratch) / folder.name, seed=seed)
        # What a user or a run put beside them (work/) stays.
        for item in sorted(Path(made).parent.iterdir()):
            _remove(folder / item.name)
            item.rename(folder / item.name)
    marker.write_text(wanted, encoding="utf-8", newline="\n")
    return folder / "night.toml"


def _remove(path):
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _source_digest(module):
    """Eight digits of the source of a module, of the modules it uses, and of the package's tables.

    A night that an older simulation made is no longer the night that the chapters describe.
    """
    package = Path(__file__).parent
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        path = package / f"{name}.py"
        if name not in seen and path.is_file():
            seen.add(name)
            waiting += re.findall(r"^from \.(\w+) import", path.read_text(encoding="utf-8"), re.M)
    paths = [package / f"{name}.py" for name in sorted(seen)] + sorted(_DATA.glob("*.npz"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _real(name, folder):
    """Find or download a real night, and write its night file."""
    files = _registry(name)
    raw = _shared_copy(name, files)
    if raw is None:
        raw = folder / "raw"
        _download(name, files, raw, shared=_SHARED[name][0])
    settings = tomllib.loads((_DATA / f"{name}.toml").read_text(encoding="utf-8"))
    data = shared_data()
    catalogue = None if data is None else data / _SHARED[name][1]
    if catalogue is not None and catalogue.is_file():
        settings.setdefault("astrometry", {})["catalogue"] = catalogue
    standards = _standards(name, folder)
    if standards is not None:
        settings.setdefault("magnitudes", {})["standards"] = standards
    inside = raw.is_relative_to(folder)
    settings = {
        "name": settings.pop("name"),
        "raw": raw.relative_to(folder).as_posix() if inside else raw,
        "work": "work",
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return _write_unless_edited(folder / "night.toml", night_toml(settings))


def _standards(name, folder):
    """List of standard stars of a real night: a shared copy, or downloaded; None without."""
    file, data = _STANDARDS.get(name), shared_data()
    if file is not None and data is not None and (data / "catalogues" / file).is_file():
        return data / "catalogues" / file
    rows = [row for row in _registry("standards") if row["file"] == file]
    if not rows:
        return None
    try:
        _download(name, rows, folder, shared="catalogues")
    except DataredError as error:
        # All else goes on without it, with instrumental magnitudes.
        log.warning("no zero points from standard stars: %s", error)
        return None
    return folder / file


def _write_unless_edited(path, body):
    """Write a night file whose first line tells whether a user has changed it since."""
    if path.is_file():
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
        if first != _first_line(rest):
            log.info("%s has been edited and is kept", path)
            return path
    path.write_text(f"{_first_line(body)}\n{body}", encoding="utf-8", newline="\n")
    return path


def _first_line(body):
    """Comment with the digest of a file's body."""
    return f"{_OURS}{hashlib.sha256(body.encode()).hexdigest()[:12]}"


def _registry(name):
    """Files of a real night: dictionaries with ``file``, ``bytes``, ``sha256`` and ``source``."""
    with (_DATA / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return [{**row, "bytes": int(row["bytes"])} for row in csv.DictReader(stream)]


def _lacking(files, folder):
    """Files that are not in a folder with their full size."""
    return [row for row in files if _size(folder / row["file"]) != row["bytes"]]


def _size(path):
    """Size of a file, -1 where there is none."""
    return path.stat().st_size if path.is_file() else -1


def _shared_copy(name, files):
    """Folder under DATARED_DATA that holds the whole night, or None."""
    data = shared_data()
    if data is None:
        return None
    folder = data / _SHARED[name][0]
    lacking = _lacking(files, folder)
    if not lacking:
        return folder
    log.warning("%s lacks %d of %d files of %s", folder, len(lacking), len(files), name)
    return None


def _download(name, files, folder, *, shared):
    """Download the files that a folder lacks, one by one, each compared with its SHA-256.

    ``shared`` is the folder under DATARED_DATA that would have them.
    """
    import pooch

    lacking = _lacking(files, folder)
    if not lacking:
        return
    log.info("downloading %d files of %s to %s", len(lacking), name, folder)
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={row["file"]: f"sha256:{row['sha256']}" for row in files},
        urls={row["file"]: row["source"] for row in files},
        retry_if_failed=2,
    )
    with _quiet_pooch(pooch):
        # pooch writes to a temporary file, compares, then renames: what has a name is whole.
        for row in tqdm(lacking, desc=name, unit="file", disable=None, leave=False):
            try:
                fetcher.fetch(row["file"])
            except ValueError as error:
                raise DataredError(
                    f"{row['source']} is not the file that was published (its SHA-256 differs): "
                    "try again later; if it stays so, report it"
                ) from error
            except Exception as error:  # The errors of every network library.
                left = len(_lacking(files, folder))
                raise DataredError(
                    f"{row['source']} cannot be downloaded ({type(error).__name__}): check the "
                    f"network and run the same again, {left} of {len(files)} files are left; or "
                    f"set DATARED_DATA to a folder with a copy in {shared}/"
                ) from error


@contextmanager
def _quiet_pooch(pooch):
    """Without pooch's own messages; ours say the same once."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
