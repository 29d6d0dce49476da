"""Sources: stars found in a frame, with their positions, widths and shapes."""

import logging

import numpy as np
import sep
from astropy.stats import mad_std
from astropy.table import Table
from numba import njit
from scipy.spatial import cKDTree

from datared import finders, pixels
from datared.background import MIN_PIXELS, sky_mesh
from datared.errors import FrameError
from datared.ranking import best_reference, fwhm_on_sky, rank_frames
from datared.shapes import (
    SIGMA_TO_FWHM,
    centroid_windowed,
    elongation,
    field_beta,
    moffat_widths,
    peaks,
    windowed_moments,
)
from datared.skymesh import over_bands

__all__ = [
    "BAD_PIXEL",
    "EDGE",
    "NEIGHBOUR",
    "SATURATED",
    "best_reference",
    "centroid_windowed",
    "detect",
    "field_fwhm",
    "fwhm_on_sky",
    "rank_frames",
]

log = logging.getLogger(__name__)

#: Bits of the column ``flags`` (the same numbers as in photometry).
EDGE, SATURATED, BAD_PIXEL, NEIGHBOUR = 1, 4, 8, 32

#: Pixel flags that hide a pixel from detection, unless it was repaired. A saturated pixel is not
#: hidden: without its peak a bright star would be found as a ring of faint ones.
HIDDEN = (
    pixels.HOT | pixels.DEAD | pixels.COSMIC | pixels.NONFINITE | pixels.BAD_COLUMN
    | pixels.LOW_FLAT | pixels.OUTSIDE | pixels.TRAIL
)  # fmt: skip

METHODS = tuple(finders.METHODS)
#: Clean stars of S/N 20 that fix the first width of the stars well enough (3 % each), and the
#: pixels in which they are looked for at first.
WIDTH_STARS = 30
WIDTH_PIXELS = 2**20
COLUMNS = ("x", "y", "flux", "peak", "fwhm", "elongation", "sharpness", "snr")


def detect(
    data,
    *,
    method="sep",
    nsigma=5.0,
    fwhm=None,
    mask=None,
    box=64,
    gain=None,
    sharpness=0.75,
    brightest=None,
    quiet=False,
):
    r"""Find the stars of a frame and measure where they are and how wide.

    The sky is subtracted (`datared.background.background_map`) and the frame is filtered with a
    Gaussian as wide as a star, the filter that lifts faint stars most out of the noise. What is
    above ``nsigma`` times the noise *of the filtered frame* is a source; touching stars are
    taken apart, two equal ones from 1.75 FWHM on. Then all methods measure in the same way:
    windowed centroid, a Moffat profile for the width, Gaussian-weighted moments for the shape.

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
    brightest : int, optional
        Measure only so many of the brightest sources: a coarse list, enough to solve the plate
        of a crowded frame. All are measured where it is not given.
    quiet : bool
        True: no message where nothing is found, for frames on which no star is expected.

    Returns
    -------
    astropy.table.Table
        One row per star, brightest first; empty, with a message in the log, where nothing is
        found. Columns: ``x``, ``y``
        (px, 0-based), ``flux`` (sum within 1.5 FWHM) and ``peak`` (both above the sky, in the
        unit of the frame), ``fwhm`` (px, of the profile before the pixels smeared it),
        ``elongation`` (long by short axis), ``sharpness``, ``snr`` and ``flags`` (bits EDGE 1,
        SATURATED 4, BAD_PIXEL 8, NEIGHBOUR 32 within two widths). ``meta``: ``fwhm`` of the
        field, ``beta``, ``sky`` and ``noise`` (medians), ``method``.

    Raises
    ------
    ValueError
        If the method is unknown, or a number is not positive.
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
    numbers = {"nsigma": nsigma, "fwhm": fwhm, "gain": gain, "brightest": brightest}
    if any(value is not None and not value > 0 for value in numbers.values()):
        raise ValueError(f"these numbers must be positive: {numbers}")
    plane = _plane(data, mask, box)
    if fwhm is None:
        fwhm = _first_fwhm(plane, nsigma, sharpness)
    signal = finders.filtered(plane, fwhm)
    x, y = finders.find(method, plane, signal, nsigma, fwhm)
    table = _measure(plane, signal, x, y, fwhm, gain, sharpness, brightest)
    table.meta |= {
        "method": method,
        "sky": float(np.median(plane.mesh.level)),
        "noise": float(np.median(plane.mesh.noise)),
    }
    if not len(table) and not quiet:
        log.warning(
            "no star above %g sigma on a sky of %.5g +- %.3g; is the frame exposed, in focus and "
            "not hidden by its mask? A lower nsigma finds fainter stars",
            nsigma,
            table.meta["sky"],
            table.meta["noise"],
        )
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
        FWHM in pixels (`fwhm_on_sky` gives seconds of arc); NaN where no star is.
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


def _plane(data, mask, box):
    """Return pixels, flags, hidden pixels and sky of a frame in the form that the finders use."""
    values, flags = pixels.frame_planes(data)
    values = np.ascontiguousarray(values, np.float32)
    flags = np.zeros(values.shape, np.uint16) if flags is None else np.array(flags, order="C")
    if mask is not None:
        mask = np.asarray(mask, bool)
        # A repaired pixel too: who masks it says that the repair is no good here.
        flags[mask] = flags[mask] & ~np.uint16(pixels.REPAIRED) | pixels.NONFINITE
    finite = np.isfinite(values)
    if not finite.all():
        flags[~finite] = pixels.NONFINITE
    bad = np.zeros(values.shape, bool)
    # Most pixels carry no flag: it is faster to look at those that do.
    some = np.flatnonzero(flags)
    bits = flags.ravel()[some]
    bad.ravel()[some[((bits & HIDDEN) > 0) & ((bits & pixels.REPAIRED) == 0)]] = True
    full = some[(bits & pixels.SATURATED) > 0]
    unfit = bad.copy() if len(full) else bad
    unfit.ravel()[full] = True
    if values.size - np.count_nonzero(bad) < max(1, min(MIN_PIXELS, values.size)):
        raise FrameError("no star can be found: nearly all pixels are masked or not finite")
    mesh = sky_mesh(values, bad, box=box)
    plane = finders.Plane(values, np.empty_like(values), bad, unfit, flags, mesh)

    def subtract(first, last):
        sky = mesh.level_surface.fill(first, last, plane.sky[first:last])
        np.subtract(values[first:last], sky, out=sky)
        sky[bad[first:last]] = 0

    over_bands(subtract, len(values))
    return plane


def _first_fwhm(plane, nsigma, sharpness):
    """Width of the stars, from the middle rows of the frame if there are enough stars on them."""
    ny, nx = plane.sky.shape
    height = WIDTH_PIXELS // nx
    while True:
        first = max(0, (ny - height) // 2)
        part = plane.rows(first, min(ny, first + max(height, 1)))
        width, n_clean = _width(part, nsigma, sharpness)
        if n_clean >= WIDTH_STARS or height >= ny:
            return width
        height = max(4 * height, 1)


def _width(plane, nsigma, sharpness):
    """Width of the stars from a first search with a filter of 3 px, 3.0 where none is found."""
    width, n_clean = 3.0, 0
    for _ in range(2):
        signal = finders.filtered(plane, width)
        x, y = finders.find("sep", plane, signal, max(nsigma, 7.0), width)
        table = _measure(plane, signal, x, y, width, None, sharpness, None)
        found = field_fwhm(table)
        n_clean = np.count_nonzero((table["flags"] == 0) & (table["snr"] > 20))
        if not np.isfinite(found) or abs(found / width - 1) < 0.15:
            break
        width = float(np.clip(found, 1.5, 30.0))
    return width, n_clean


def _measure(plane, signal, x, y, width, gain, sharpness, brightest):
    """Measure stars at first positions; return the table of `detect`."""
    sky, bad = plane.sky, plane.bad
    ny, nx = sky.shape
    inside = np.isfinite(x) & np.isfinite(y)
    x, y = np.array(x, float)[inside], np.array(y, float)[inside]
    noise = plane.mesh.noise_surface.at(x, y)
    # In a frame with a noise of one everywhere; each star has its own.
    peak, around, error = peaks(sky, np.broadcast_to(np.float32(1), sky.shape), x, y)
    error = error * noise
    if sharpness is not None:
        # The neighbours may be low by chance: only what stays sharp one and a half of their
        # errors away is no star.
        keep = around + 1.5 * error >= (1 - sharpness) * peak
        x, y, peak, around, noise = (a[keep] for a in (x, y, peak, around, noise))
    if brightest is not None and len(x) > 2 * brightest:
        # The filtered frame tells the flux well enough to leave the faint half alone.
        row, column = (np.clip(np.rint(a), 0, n - 1).astype(int) for a, n in ((y, ny), (x, nx)))
        keep = np.argsort(-signal[row, column], kind="stable")[: 2 * brightest]
        x, y, peak, around, noise = (a[keep] for a in (x, y, peak, around, noise))
    sharp = np.divide(peak - around, peak, out=np.full(len(x), np.nan), where=peak > 0)
    shape = np.full((x.size, 3), np.nan)
    windowed_moments(sky, x, y, width / SIGMA_TO_FWHM, shape)
    beta = field_beta(sky, plane.unfit, x, y, width, peak, noise if len(x) else np.ones(1))
    fwhm, _ = moffat_widths(sky, plane.unfit, x, y, float(width), beta)
    fitted = np.flatnonzero(np.isfinite(fwhm))
    if sharpness is not None and len(fitted) > 2:
        typical = np.median(fwhm[fitted[np.argsort(-peak[fitted])]][:50])
        # The width of a faint star is narrow by chance; its relative error is about one over the
        # signal to noise of its peak.
        keep = ~(fwhm * (1 + 2 * noise / np.maximum(peak, noise)) < 0.5 * typical)
        x, y, peak, sharp, fwhm, shape, noise = (
            a[keep] for a in (x, y, peak, sharp, fwhm, shape, noise)
        )
    radius = 1.5 * width
    flux = flux_err = np.empty(0)
    if len(x):
        flux, unit, _ = sep.sum_circle(sky, x, y, radius, err=1.0, mask=bad, subpix=5)
        photons = 0.0 if gain is None else np.maximum(flux, 0) / gain
        flux_err = np.sqrt((unit * noise) ** 2 + photons)
    bits = np.where(
        (x < radius) | (y < radius) | (x > nx - 1 - radius) | (y > ny - 1 - radius), EDGE, 0
    )
    bits |= np.where(_touches(plane.flags, pixels.SATURATED, x, y, max(width, 2.0)), SATURATED, 0)
    bits |= np.where(_touches(plane.flags, HIDDEN, x, y, width), BAD_PIXEL, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (x, y, flux, peak, fwhm, elongation(shape), sharp, flux / flux_err)
    table = Table(dict(zip(COLUMNS, columns, strict=True)))
    table["flags"] = bits.astype(np.uint16)
    table = table[np.isfinite(table["flux"]) & (table["flux"] > 0)]
    # Ties are broken by position, so that the order never depends on the finder.
    table = table[np.lexsort((table["x"], table["y"], -table["flux"]))]
    table = _separate(table, width)[:brightest]
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


@njit(cache=True)
def _touches(flags, bits, x, y, radius):
    """Tell for each star whether a pixel with one of the bits lies within the radius."""
    ny, nx = flags.shape
    found = np.zeros(x.size, np.bool_)
    for k in range(x.size):
        for j in range(max(0, int(y[k] - radius)), min(ny, int(y[k] + radius) + 2)):
            for i in range(max(0, int(x[k] - radius)), min(nx, int(x[k] + radius) + 2)):
                if flags[j, i] & bits and (i - x[k]) ** 2 + (j - y[k]) ** 2 <= radius * radius:
                    found[k] = True
    return found
