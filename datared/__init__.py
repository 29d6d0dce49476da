"""Reduce images from a small telescope: from raw frames to diagrams and light curves.

Start with a night::

    import datared

    night = datared.fetch_night("cluster", upto="reduced")   # a simulated one
    night = datared.load_night("night.toml")                 # your own

The rooms of the package are named after the steps (``datared.reduction``, ``datared.astrometry``,
``datared.photometry``, ...). They are loaded when they are first used, so that the import is quick.
"""

import importlib
import logging

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
    "capsules",
    "catalogs",
    "charts",
    "checks",
    "clusterfit",
    "clustering",
    "combine",
    "combineoptions",
    "comparison",
    "correction",
    "cosmics",
    "curveflags",
    "curvenumbers",
    "curveplots",
    "darks",
    "deconvolution",
    "detections",
    "detrending",
    "diagram",
    "diagramplots",
    "diagramtable",
    "distortion",
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
    "forced",
    "frames",
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
    "pictures",
    "pipeline",
    "pixels",
    "plots",
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
