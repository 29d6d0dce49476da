"""Reduce images from a small telescope: from raw frames to diagrams and light curves.

Start with a night::

    import datared

    night = datared.fetch_night("cluster", upto="reduced")   # a simulated one
    night = datared.load_night("night.toml")                 # your own

The rooms of the package are named after the steps (``datared.reduction``, ``datared.astrometry``,
``datared.photometry``, ...). They are loaded when they are first used, so that the import is quick.
"""

import contextlib
import importlib
import logging
import os
import sys
from pathlib import Path

__version__ = "0.1.0"

_ROOM_OF = {
    "fetch_night": "pipeline",
    "run": "pipeline",
    "export_night": "exports",
    "load_night": "night",
    "make_night": "night",
    "inventory": "frames",
    "select_lights": "frames",
    "read_frame": "frames",
    "read_product": "frames",
    "read_photometry": "forced",
    "ConfigError": "errors",
    "DataredError": "errors",
    "DataredWarning": "errors",
    "FrameError": "errors",
    "SolveError": "errors",
}
_ROOMS = (
    "aavsofile",
    "adesfile",
    "apertures",
    "archives",
    "artificial",
    "assembly",
    "astrometry",
    "atmosphere",
    "audit",
    "backends",
    "background",
    "baselines",
    "binning",
    "calibrated",
    "calibration",
    "camera",
    "camerabench",
    "cameranight",
    "cameraplots",
    "camerareport",
    "capsules",
    "catalogs",
    "charts",
    "checks",
    "clusterfit",
    "clustering",
    "coaddition",
    "colourbalance",
    "combine",
    "combineoptions",
    "comparison",
    "correction",
    "cosmics",
    "curveflags",
    "curvenumbers",
    "curveplots",
    "darkcurrent",
    "darks",
    "deconvolution",
    "detections",
    "detrending",
    "diagram",
    "diagramplots",
    "diagramtable",
    "distortion",
    "distortionmap",
    "ensemble",
    "ephemeris",
    "errors",
    "exoclockfile",
    "exportchecks",
    "exports",
    "extinction",
    "fieldplots",
    "filling",
    "finders",
    "fitplots",
    "fitswriter",
    "flatratio",
    "forced",
    "frames",
    "grids",
    "growth",
    "headers",
    "headerwcs",
    "hotpixels",
    "illumination",
    "isochronefiles",
    "isochronegrid",
    "isochrones",
    "isochronestore",
    "janskys",
    "levels",
    "lightcurve",
    "linearity",
    "listing",
    "magnitudes",
    "maps",
    "masters",
    "matching",
    "memberfit",
    "membership",
    "movers",
    "names",
    "night",
    "nightpictures",
    "noiselaw",
    "noiseplots",
    "nova",
    "outlook",
    "overscan",
    "pairs",
    "panels",
    "patterns",
    "periods",
    "photometry",
    "photontransfer",
    "pictures",
    "pipeline",
    "pixels",
    "plots",
    "pngfile",
    "priors",
    "products",
    "projection",
    "psf",
    "psfplots",
    "quality",
    "ranking",
    "recovery",
    "rednoise",
    "reduction",
    "reference",
    "regions",
    "render",
    "repeats",
    "resampling",
    "residuals",
    "rows",
    "samples",
    "sampling",
    "screening",
    "shapes",
    "simulate",
    "skyplots",
    "skyshift",
    "solvefield",
    "solver",
    "sources",
    "stacking",
    "standardfields",
    "standardfit",
    "standards",
    "starfits",
    "starlists",
    "suggestions",
    "summary",
    "systems",
    "times",
    "tracks",
    "transit",
    "transitfit",
    "transitmeasure",
    "transitnight",
    "transitoptions",
    "transitplots",
    "transitposterior",
    "trends",
    "variability",
    "variabilitynight",
    "variabilityplots",
    "vizier",
    "widgets",
    "zeroplots",
    "zeropointfit",
    "zeropoints",
)

__all__ = ["__version__", *_ROOM_OF, *_ROOMS]


# Without a handler of the user's, messages stay silent: a library does not write to the screen.
logging.getLogger("datared").addHandler(logging.NullHandler())


def _let_numba_cache():
    """Give numba a folder for its compiled code where it would find none.

    It takes the folder of the rooms, else that of the user's caches, and fails if it can write
    neither. Then the temporary folder must do, and there a folder that is the user's alone: what
    lies in it is run.
    """
    caches = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    places = [Path(__file__).parent / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # Not everybody has a home.
        places.append(Path(os.environ.get("XDG_CACHE_HOME", caches)).expanduser() / "numba")
    if os.environ.get("NUMBA_CACHE_DIR") or any(map(_can_be_written, places)):
        return
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        folder = Path(tempfile.gettempdir(), f"datared-{user}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        found = folder.lstat()
        # A folder (not a link), of this user, and closed to others.
        if os.name == "posix" and (found.st_mode & 0o170077, found.st_uid) != (0o040000, user):
            folder = tempfile.mkdtemp(prefix="datared-")
    except OSError:
        return  # Without any folder numba says what is missing.
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        importlib.import_module("numba.core.config").reload_config()


def _can_be_written(folder):
    """Whether a folder, or the one in which it would be made, can be written."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK) and folder.is_dir()


_let_numba_cache()


def __getattr__(name):
    """Load a room, or one of the functions above, when it is first asked for."""
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    """Names for completion in an interactive session."""
    return sorted(__all__)
