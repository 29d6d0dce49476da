"""Sources: stars found in a frame, with their positions, widths and shapes."""

import functools
import math
import warnings

import numpy as np
import sep
from astropy.stats import mad_std
from astropy.table import Table
from scipy import ndimage
from scipy.spatial import cKDTree

from datared import pixels
from datared.background import background_map
from datared.errors import FrameError
from datared.shapes import (
    SIGMA_TO_FWHM,
    centroid_windowed,
    elongation,
    field_beta,
    moffat_widths,
    peaks,
    windowed_moments,
)

__all__ = [
    "BAD_PIXEL",
    "EDGE",
    "NEIGHBOUR",
    "SATURATED",
    "best_reference",
    "centroid_windowed",
    "detect",
    "field_fwhm",
    "rank_frames",
]

#: Bits of the column ``flags`` (the same numbers as in photometry).
EDGE, SATURATED, BAD_PIXEL, NEIGHBOUR = 1, 4, 8, 32

#: Pixel flags that hide a pixel from detection, unless it was repaired. A saturated pixel is not
#: hidden: without its peak a bright star would be found as a ring of faint ones.
HIDDEN = (
    pixels.HOT | pixels.DEAD | pixels.COSMIC | pixels.NONFINITE | pixels.BAD_COLUMN
    | pixels.LOW_FLAT | pixels.OUTSIDE | pixels.TRAIL
)  # fmt: skip

METHODS = ("sep", "segmentation", "dao")
COLUMNS = ("x", "y", "flux", "peak", "fwhm", "elongation", "sharpness", "snr")


def detect(
    data, *, method="sep", nsigma=5.0, fwhm=None, mask=None, box=64, gain=None, sharpness=0.75
):
    r"""Find the stars of a frame and measure where they are and how wide.

    The sky is subtracted (`datared.background.background_map`) and the frame is filtered with a
    Gaussian as wide as a star, the filter that lifts faint stars most out of the noise. What is
    above ``nsigma`` times the noise *of the filtered frame* is a source; touching stars are
    taken apart. Then all methods measure in the same way: windowed centroid, a Moffat profile
    for the width, Gaussian-weighted moments for the shape.

    Parameters
    ----------
    data : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        The frame. Of a CCDData the ``flags`` (bits of `datared.pixels`) are used, else its
        ``mask``. Pixels that are not finite do not count.
    method : {"sep", "segmentation", "dao"}
        ``"sep"``: connected pixels, library sep (fast); ``"segmentation"``: the same idea in
        photutils; ``"dao"``: peaks of the filtered frame, photutils' DAOStarFinder (Stetson
        1987, PASP 99, 191).
    nsigma : float
        Threshold in standard deviations of the filtered frame.
    fwhm : float, optional
        Width of the stars in pixels, for the filter; measured on the brighter stars where it is
        not given.
    mask : numpy.ndarray of bool, shape (ny, nx), optional
        True where a pixel must not be used; added to what the frame itself says.
    box : int
        Size of the boxes of the sky in pixels.
    gain : float, optional
        Electrons per unit of the frame; with it ``snr`` holds the photon noise of the star too.
    sharpness : float or None
        Sources whose peak stands out of its eight neighbours by more than this fraction of its
        height are hot pixels or cosmic rays and are left out; None keeps them.

    Returns
    -------
    astropy.table.Table
        One row per star, brightest first; empty where nothing is found. Columns: ``x``, ``y``
        (px, 0-based), ``flux`` (sum within 1.5 FWHM) and ``peak`` (both above the sky, in the
        unit of the frame), ``fwhm`` (px, of the profile before the pixels smeared it),
        ``elongation`` (long by short axis), ``sharpness``, ``snr`` and ``flags`` (bits EDGE 1,
        SATURATED 4, BAD_PIXEL 8, NEIGHBOUR 32 within two widths). ``meta``: ``fwhm`` of the
        field, ``beta``, ``sky`` and ``noise`` (medians), ``method``.

    Raises
    ------
    ValueError
        If the method is unknown or the threshold is not positive.
    FrameError
        If nearly all pixels are masked.

    Examples
    --------
    >>> from datared.render import star_image
    >>> frame = star_image((120, 120), [40.0, 80.3], [30.0, 70.6], [9000.0, 5000.0], fwhm=4.0)
    >>> frame += np.random.default_rng(3).normal(100.0, 5.0, frame.shape)
    >>> stars = detect(frame)
    >>> len(stars), bool(np.hypot(stars["x"][1] - 80.3, stars["y"][1] - 70.6) < 0.1)
    (2, True)
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; valid are {', '.join(METHODS)}")
    if not nsigma > 0 or (fwhm is not None and not fwhm > 0):
        raise ValueError(f"nsigma {nsigma} and fwhm {fwhm} must be positive")
    values, flags, bad = _planes(data, mask)
    background = background_map(values, mask=bad, box=box)
    # A frame without noise (a drawing) still needs a unit to divide by.
    floor = 1e-6 * max(float(np.abs(background.level).max()), 1e-6)
    background = background._replace(noise=np.maximum(background.noise, np.float32(floor)))
    sky = np.where(bad, np.float32(0), values - background.level)
    measure = functools.partial(
        _measure, sky, background.noise, flags, bad, gain=gain, sharpness=sharpness
    )
    if fwhm is None:
        fwhm = _first_fwhm(sky, background.noise, bad, measure, nsigma)
    x, y = FINDERS[method](sky, background.noise, bad, nsigma, fwhm)
    table = measure(x, y, fwhm)
    table.meta |= {
        "method": method,
        "sky": float(np.median(background.level)),
        "noise": float(np.median(background.noise)),
    }
    return table


def field_fwhm(table):
    """Width of the stars of a frame: median over the bright, clean ones.

    Parameters
    ----------
    table : astropy.table.Table
        Result of `detect`.

    Returns
    -------
    float
        FWHM in pixels; NaN where no star is.
    """
    good = np.isfinite(table["fwhm"])
    for clean in (
        (table["flags"] == 0) & (table["snr"] > 20),
        (table["flags"] | NEIGHBOUR) == NEIGHBOUR,
        good,
    ):
        widths = np.asarray(table["fwhm"][good & clean])[:100]
        if len(widths) >= 3 or (clean is good and len(widths)):
            middle, spread = np.median(widths), mad_std(widths)
            return float(np.median(widths[abs(widths - middle) <= 3 * spread + 1e-9]))
    return float("nan")


def rank_frames(table):
    """Score of each frame as a reference: many stars, sharp, on a dark sky.

    The score is (stars / median) x (median fwhm / fwhm) x sqrt(median noise / noise); it is 0
    for frames with ``status`` "failed" or a number that is missing.

    Parameters
    ----------
    table : astropy.table.Table
        One row per frame with columns ``n_stars``, ``fwhm``, ``noise`` and, if known, ``status``.

    Returns
    -------
    numpy.ndarray of float
        One score per row; 1 is a typical frame.
    """
    parts = [
        np.ma.filled(np.ma.asarray(table[name], float), np.nan)
        for name in ("n_stars", "fwhm", "noise")
    ]
    good = np.all(np.isfinite(parts), axis=0) & np.all(np.array(parts) > 0, axis=0)
    if "status" in table.colnames:
        good &= np.asarray(table["status"]).astype(str) != "failed"
    scores = np.zeros(len(table))
    if good.any():
        stars, fwhm, noise = (part[good] / np.median(part[good]) for part in parts)
        scores[good] = stars / fwhm / np.sqrt(noise)
    return scores


def best_reference(table, *, override=None):
    """Row of the frame that is the best reference, or of the one that you name.

    Parameters
    ----------
    table : astropy.table.Table
        As for `rank_frames`, with a column ``file`` if the override is a name.
    override : int or str, optional
        Row or file name to take instead.

    Returns
    -------
    int
        Row number.

    Raises
    ------
    FrameError
        If no frame is usable, or the named one is not in the table.
    """
    if override is not None and not isinstance(override, str):
        if not -len(table) <= override < len(table):
            raise FrameError(f"reference row {override} is not among the {len(table)} frames")
        return int(override) % len(table)
    if override is not None:
        names = [str(name) for name in table["file"]]
        if override not in names:
            raise FrameError(f"reference frame {override!r} is not among: {', '.join(names)}")
        return names.index(override)
    scores = rank_frames(table)
    if not len(scores) or scores.max() <= 0:
        raise FrameError("no frame can be the reference: none has stars, a width and a noise")
    return int(np.argmax(scores))


def _planes(data, mask):
    """Return pixels as float32, pixel flags as uint16, and the mask of pixels to hide."""
    flags = getattr(data, "flags", None)
    if not hasattr(data, "unit") or flags is None:
        flags = np.zeros(np.shape(data), np.uint16)
        own = getattr(data, "mask", None)
        if own is not None and own is not np.ma.nomask:
            flags[np.broadcast_to(own, flags.shape)] = pixels.NONFINITE
    values = np.array(getattr(data, "data", data) if hasattr(data, "unit") else data, np.float32)
    if values.ndim != 2:
        raise FrameError(f"a frame has two axes, this one has {values.ndim}")
    flags = np.array(flags, np.uint16)
    if mask is not None:
        flags[np.asarray(mask, bool)] |= pixels.NONFINITE
    flags[~np.isfinite(values)] = pixels.NONFINITE
    bad = ((flags & HIDDEN) > 0) & ((flags & pixels.REPAIRED) == 0)
    return values, flags, bad


def _signal(sky, noise, bad, fwhm):
    """Signal to noise of a star at each pixel: a Gaussian filter with its mean taken off.

    A star's light is weighed against the light around it, so that neither the wings of a bright
    star nor the glow of a cluster joins its neighbours to one source (the idea of DAOFIND). With
    weights k of sum zero, sum(k s / n) / sqrt(sum(k^2)) has unit variance on sky.
    """
    sigma = fwhm / SIGMA_TO_FWHM
    reach = max(2, math.ceil(1.7 * fwhm))
    size = 2 * reach + 1
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    signal = np.where(bad, np.float32(0), sky / noise)
    peaked = signal
    for axis in (0, 1):
        peaked = ndimage.correlate1d(peaked, profile, axis, mode="constant")
    total = float(profile.sum()) ** 2
    flat = ndimage.uniform_filter(signal, size, mode="constant")
    scatter = math.sqrt(float((profile**2).sum()) ** 2 - (total / size) ** 2)
    return (peaked - total * flat) / np.float32(scatter)


def _find_sep(sky, noise, bad, nsigma, fwhm):
    """Find connected pixels above the threshold with sep."""
    # The defaults of sep are too small for a frame full of light; it raises when they are met.
    sep.set_extract_pixstack(max(300_000, sky.size))
    sep.set_sub_object_limit(8192)
    found = sep.extract(
        _signal(sky, noise, bad, fwhm), nsigma, mask=bad, minarea=3, filter_kernel=None
    )
    return found["x"], found["y"]


def _find_segmentation(sky, noise, bad, nsigma, fwhm):
    """Find connected pixels above the threshold with photutils."""
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources

    signal = _signal(sky, noise, bad, fwhm)
    # photutils warns where nothing is found; an empty table says the same.
    if not np.any(signal[~bad] > nsigma):
        return np.empty(0), np.empty(0)
    segments = detect_sources(signal, nsigma, 3, mask=bad)
    if segments is None:
        return np.empty(0), np.empty(0)
    segments = deblend_sources(signal, segments, 3, n_levels=32, contrast=0.005, progress_bar=False)
    x, y = np.atleast_2d(SourceCatalog(signal, segments).centroid).T
    return x, y


def _find_dao(sky, noise, bad, nsigma, fwhm):
    """Find peaks of the filtered frame with photutils' DAOStarFinder."""
    from photutils.detection import DAOStarFinder
    from photutils.utils.exceptions import NoDetectionsWarning

    # The finder scales the threshold to the noise of the filtered frame itself; with the frame
    # in units of its noise it holds everywhere. Its own kernel of 1.5 sigma is so small that a
    # star of S/N 10 has half of that in it; 4 sigma is what the other methods use.
    finder = DAOStarFinder(
        nsigma, fwhm, sigma_radius=4.0, sharpness_range=(-10, 10), roundness_range=(-2, 2)
    )
    with warnings.catch_warnings():
        # An empty table says the same as the warning, and as the None that comes back.
        warnings.simplefilter("ignore", NoDetectionsWarning)
        found = finder(np.where(bad, np.float32(0), sky / noise), mask=bad)
    if found is None:
        return np.empty(0), np.empty(0)
    return tuple(np.asarray(found[name], float) for name in ("x_centroid", "y_centroid"))


FINDERS = {"sep": _find_sep, "segmentation": _find_segmentation, "dao": _find_dao}


def _first_fwhm(sky, noise, bad, measure, nsigma):
    """Width of the stars from a first search with a filter of 3 px, 3.0 where none is found."""
    width = 3.0
    for _ in range(2):
        x, y = _find_sep(sky, noise, bad, max(nsigma, 7.0), width)
        found = field_fwhm(measure(x, y, width))
        if not np.isfinite(found) or abs(found / width - 1) < 0.15:
            break
        width = float(np.clip(found, 1.5, 30.0))
    return width


def _measure(sky, noise, flags, bad, x, y, width, *, gain, sharpness):
    """Measure stars at first positions; return the table of `detect`."""
    ny, nx = sky.shape
    inside = np.isfinite(x) & np.isfinite(y)
    x, y = np.array(x, float)[inside], np.array(y, float)[inside]
    peak, around, error = peaks(sky, noise, x, y)
    if sharpness is not None:
        # The neighbours may be low by chance: only what stays sharp one and a half of their
        # errors away is no star.
        keep = around + 1.5 * error >= (1 - sharpness) * peak
        x, y, peak, around = x[keep], y[keep], peak[keep], around[keep]
    sharp = np.divide(peak - around, peak, out=np.full(len(x), np.nan), where=peak > 0)
    shape = np.full((x.size, 3), np.nan)
    windowed_moments(sky, x, y, width / SIGMA_TO_FWHM, shape)
    beta = field_beta(sky, bad, x, y, width, peak, noise)
    fwhm, _ = moffat_widths(sky, bad, x, y, float(width), beta)
    fitted = np.flatnonzero(np.isfinite(fwhm))
    if sharpness is not None and len(fitted) > 2:
        typical = np.median(fwhm[fitted[np.argsort(-peak[fitted])]][:50])
        keep = ~(fwhm < 0.5 * typical)
        x, y, peak, sharp, fwhm, shape = (a[keep] for a in (x, y, peak, sharp, fwhm, shape))
    radius = 1.5 * width
    if len(x):
        flux, flux_err, _ = sep.sum_circle(
            sky, x, y, radius, err=noise, mask=bad, gain=gain, subpix=5
        )
    else:
        flux = flux_err = np.empty(0)
    bits = np.where(
        (x < radius) | (y < radius) | (x > nx - 1 - radius) | (y > ny - 1 - radius), EDGE, 0
    )
    bits |= np.where(_touches(flags & pixels.SATURATED, x, y, max(width, 2.0)), SATURATED, 0)
    bits |= np.where(_touches(flags & HIDDEN, x, y, width), BAD_PIXEL, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (x, y, flux, peak, fwhm, elongation(shape), sharp, flux / flux_err)
    table = Table(dict(zip(COLUMNS, columns, strict=True)))
    table["flags"] = bits.astype(np.uint16)
    table = table[np.isfinite(table["flux"]) & (table["flux"] > 0)]
    # Ties are broken by position, so that the order never depends on the finder.
    table = table[np.lexsort((table["x"], table["y"], -table["flux"]))]
    table = _separate(table, width)
    table.meta["fwhm"] = field_fwhm(table)
    table.meta["beta"] = beta
    return table


def _separate(table, width):
    """Drop the fainter of two rows on one star; flag stars with a neighbour within two widths."""
    if len(table) < 2:
        return table
    near = cKDTree(np.column_stack([table["x"], table["y"]])).query_pairs(
        2 * width, output_type="ndarray"
    )
    distance = np.hypot(*(np.diff(table[name][near], axis=1)[:, 0] for name in ("x", "y")))
    keep = np.ones(len(table), bool)
    keep[near.max(axis=1, initial=0)[distance < 0.5 * width]] = False
    table["flags"][near[distance >= 0.5 * width].ravel()] |= NEIGHBOUR
    return table[keep]


def _touches(flags, x, y, radius):
    """Tell for each star whether a flagged pixel lies within the radius."""
    rows, columns = np.nonzero(flags)
    if not len(rows) or not len(x):
        return np.zeros(len(x), bool)
    distance, _ = cKDTree(np.column_stack([columns, rows])).query(np.column_stack([x, y]))
    return distance <= radius
