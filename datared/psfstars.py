"""The stars that show the point spread function: chosen, and cut out of the frame."""

import math
from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std
from scipy.spatial import cKDTree

from .background import sky_statistics
from .pixels import frame_planes
from .psfmodel import RADIUS
from .shapes import centroid_windowed
from .sources import BAD_PIXEL, EDGE, SATURATED

__all__ = ["Cutout", "cut_out", "numbers", "select_psf_stars"]

#: What has less light than this, in standard deviations, shows no shape.
FAINTEST = 5.0
#: Reasons for not using a star that its flags tell, in the order in which they are looked for.
FLAG_REASONS = {SATURATED: "saturated", BAD_PIXEL: "bad pixels", EDGE: "near the edge"}


def select_psf_stars(
    table,
    *,
    shape,
    fwhm=None,
    radius=None,
    n=60,
    min_snr=50.0,
    neighbour_ratio=0.03,
    max_peak=None,
):
    """Choose the stars that show the point spread function: bright, clean, alone, everywhere.

    Parameters
    ----------
    table : astropy.table.Table
        Stars of the frame, result of `datared.sources.detect`: all of them, for each may be the
        neighbour of another.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    fwhm : float, optional
        Width of the stars in pixels; ``table.meta["fwhm"]``.
    radius : float, optional
        Radius of the model in pixels; 4 FWHM.
    n : int
        Largest number of stars. They are taken in turn from 4 x 4 parts of the frame, the
        brightest of each first.
    min_snr : float
        Smallest signal-to-noise ratio.
    neighbour_ratio : float
        A star is not alone if stars within the radius and a width more have together more than
        this share of its flux.
    max_peak : float, optional
        Highest peak above the sky, where the sensor ceases to be linear.

    Returns
    -------
    astropy.table.Table
        All rows of ``table`` with a further column ``reason``: why a star is not used, and empty
        for the chosen ones.

    Raises
    ------
    ValueError
        If the width is not known.

    Examples
    --------
    >>> from astropy.table import Table
    >>> stars = Table({"x": [50.0, 20.0], "y": [50.0, 5.0], "flux": [9e4, 8e4], "snr": [300, 280]})
    >>> select_psf_stars(stars, shape=(101, 101), fwhm=3.0)["reason"].tolist()
    ['', 'near the edge']
    """
    fwhm = table.meta.get("fwhm") if fwhm is None else fwhm
    if fwhm is None or not fwhm > 0:
        raise ValueError(f"fwhm {fwhm} must be positive: give the width of the stars in pixels")
    radius = RADIUS * fwhm if radius is None else float(radius)
    chosen = table.copy()
    x, y, flux = (numbers(table[name]) for name in ("x", "y", "flux"))
    reason = np.full(len(table), "", "U40")

    def reject(where, why):
        reason[where & (reason == "")] = why

    known = np.isfinite(x) & np.isfinite(y) & (flux > 0)
    reject(~known, "no position or flux")
    if "flags" in table.colnames:
        for bit, why in FLAG_REASONS.items():
            reject((np.asarray(table["flags"]) & bit) > 0, why)
    edge = math.ceil(radius) + 1
    inside = (x >= edge) & (y >= edge) & (x <= shape[1] - 1 - edge) & (y <= shape[0] - 1 - edge)
    reject(~inside, "near the edge")
    if max_peak is not None:
        reject(np.asarray(table["peak"]) > max_peak, "peak above the linear range")
    if "snr" in table.colnames:
        reject(~(np.asarray(table["snr"]) >= min_snr), f"signal-to-noise below {min_snr:g}")
    reject(_neighbour_light(x, y, flux, known, radius + fwhm) > neighbour_ratio, "not alone")
    if "fwhm" in table.colnames:
        width = np.asarray(table["fwhm"], float)
        good = width[(reason == "") & np.isfinite(width)]
        if len(good):
            limit = max(4 * mad_std(good), 0.1 * np.median(good))
            reject(~(abs(width - np.median(good)) <= limit), "not as wide as the others")
    part = np.floor(4 * np.clip(y / shape[0], 0, 0.999)) * 4 + np.floor(
        4 * np.clip(x / shape[1], 0, 0.999)
    )
    order = np.argsort(-flux, kind="stable")
    order = order[reason[order] == ""]
    turn = np.zeros(len(table), int)
    for one in np.unique(part[order]):
        turn[order[part[order] == one]] = np.arange(np.count_nonzero(part[order] == one))
    late = order[np.lexsort((-flux[order], turn[order]))][n:]
    reason[late] = "enough stars near it"
    chosen["reason"] = reason
    return chosen


def numbers(column):
    """Return a column as floats, NaN where it is masked.

    Parameters
    ----------
    column : array_like
        Numbers, masked or not.

    Returns
    -------
    numpy.ndarray of float64
        A copy of them.
    """
    return np.ma.filled(np.ma.array(column, float, copy=True), np.nan)


def _neighbour_light(x, y, flux, known, radius):
    """Light of all other stars within the radius, relative to a star's own."""
    light = np.zeros(len(x))
    where = np.flatnonzero(known)
    if len(where) > 1:
        tree = cKDTree(np.column_stack([x[where], y[where]]))
        pairs = where[tree.query_pairs(radius, output_type="ndarray")]
        np.add.at(light, pairs[:, 0], flux[pairs[:, 1]])
        np.add.at(light, pairs[:, 1], flux[pairs[:, 0]])
    return np.divide(light, flux, out=np.full(len(x), np.inf), where=known)


@dataclass
class Cutout:
    """Pixels around one star.

    Attributes
    ----------
    row : int
        Row of the star in the table.
    values : numpy.ndarray of float64, shape (m, m)
        Pixels without the sky.
    good : numpy.ndarray of bool, shape (m, m)
        Which of them count.
    x, y, flux : float
        The star, x and y in pixels of the cutout.
    noise : float
        Scatter of a pixel of sky.
    """

    row: int
    values: np.ndarray
    good: np.ndarray
    x: float
    y: float
    flux: float
    noise: float


def _good_pixels(ccd):
    """Return the pixels of a frame and a mask of those that tell nothing."""
    data, flags = frame_planes(ccd)
    bad = ~np.isfinite(data)
    if flags is not None:
        bad |= flags != 0
    return data, bad


def cut_out(ccd, table, fwhm, radius, sky):
    """Cut out the stars of a table; write in it why others cannot be.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        The frame.
    table : astropy.table.Table
        ``x``, ``y`` and ``reason``; rows with a reason are passed over.
    fwhm, radius : float
        Width of the stars and radius of the cutouts, in pixels.
    sky : datared.background.Background or None
        Level of the sky; by default that of the ring around each star.

    Returns
    -------
    list of Cutout
        One for each row whose ``reason`` is still empty.
    """
    data, bad = _good_pixels(ccd)
    half = math.ceil(radius)
    outer = math.ceil(1.5 * radius)
    ny, nx = data.shape
    cutouts = []
    for row, (x, y, reason) in enumerate(table.iterrows("x", "y", "reason")):
        if reason:
            continue
        if not (math.isfinite(x) and math.isfinite(y)):
            table["reason"][row] = "no position"
            continue
        i, j = round(x), round(y)
        if not (half <= i < nx - half and half <= j < ny - half):
            table["reason"][row] = "near the edge"
            continue
        top, left = max(0, j - outer), max(0, i - outer)
        part = slice(top, j + outer + 1), slice(left, i + outer + 1)
        values, hidden = np.array(data[part], float), bad[part]
        level = noise = 0.0
        if sky is not None:
            values -= sky.level[part]
            noise = float(sky.noise[j, i])
        else:
            rows, columns = np.ogrid[: values.shape[0], : values.shape[1]]
            ring = np.hypot(columns + left - x, rows + top - y) > radius
            if np.count_nonzero(ring & ~hidden) < 2 * outer:
                table["reason"][row] = "no sky around it"
                continue
            level, noise = sky_statistics(values, hidden | ~ring)[1:]
        inner = (
            slice(j - top - half, j - top + half + 1),
            slice(i - left - half, i - left + half + 1),
        )
        values, hidden = values[inner] - level, hidden[inner]
        core = np.hypot(
            *np.ogrid[j - half - y : j + half + 0.5 - y, i - half - x : i + half + 0.5 - x]
        )
        if hidden[core <= fwhm].any() or hidden.mean() > 0.1:
            table["reason"][row] = "bad pixels"
            continue
        cx, cy = centroid_windowed(
            np.where(hidden, 0, values), x - i + half, y - j + half, fwhm=fwhm
        )
        centre = float(cx[0]), float(cy[0])
        near = ~hidden & (core <= 1.5 * fwhm)
        light = float(values[near].sum())
        if not light > FAINTEST * noise * math.sqrt(np.count_nonzero(near)):
            table["reason"][row] = "no light there"
            continue
        cutouts.append(Cutout(row, values, ~hidden, *centre, light, noise))
    return cutouts
