"""Resampling: the same sky on another grid of pixels, with the light of stars conserved."""

import math

import astropy.units as u
import numpy as np
import reproject
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs.utils import proj_plane_pixel_area
from numba import njit
from reproject.mosaicking import find_optimal_celestial_wcs

from .errors import FrameError
from .pixels import NONFINITE, OUTSIDE, REPAIRED, SATURATED

__all__ = ["common_grid", "pixel_map", "reproject_frame"]

#: Coordinates are computed at nodes and interpolated between them. The nodes are set closer, from
#: the first of these distances in pixels on, until the interpolation is right to TOLERANCE.
STEPS = (32, 16, 8, 4, 2)
TOLERANCE = 5e-4
#: Bits that do not make a pixel useless for a picture: the core of a saturated star is wrong, but a
#: hole would be worse. They are carried to the result.
KEPT = SATURATED | REPAIRED
METHODS = ("bilinear", "adaptive", "exact")


def common_grid(frames, *, reference=0):
    """Grid of pixels for several frames.

    Parameters
    ----------
    frames : sequence of astropy.nddata.CCDData
        Frames with a WCS.
    reference : int or None
        The frame whose centre, scale, orientation and size the grid takes, without its distortion.
        None makes the grid that holds all frames, north up, with the finest of their scales.

    Returns
    -------
    wcs : astropy.wcs.WCS
        Coordinates of the grid, free of distortion.
    shape : tuple of int
        ``(ny, nx)``.

    Raises
    ------
    FrameError
        If a frame has no WCS.
    """
    for frame in frames:
        _require_wcs(frame)
    if reference is None:
        inputs = [(frame.shape, frame.wcs) for frame in frames]
        area = min(proj_plane_pixel_area(frame.wcs.celestial) for frame in frames)
        return find_optimal_celestial_wcs(inputs, resolution=math.sqrt(area) * u.deg)
    wcs = frames[reference].wcs.deepcopy()
    wcs.sip = None
    wcs.wcs.ctype = [name.removesuffix("-SIP") for name in wcs.wcs.ctype]
    return wcs, tuple(frames[reference].shape)


def pixel_map(wcs_in, wcs_out, *, shape_in, shape_out, step):
    """Where the pixels of a new grid lie in a frame.

    Parameters
    ----------
    wcs_in, wcs_out : astropy.wcs.WCS
        Coordinates of the frame, and of the new grid.
    shape_in, shape_out : tuple of int
        ``(ny, nx)`` of both.
    step : int
        Distance of the nodes in pixels of the new grid.

    Returns
    -------
    tuple of numpy.ndarray of float64
        ``x`` and ``y`` in the frame at the pixels 0, step, 2 step, ... of the new grid, the last
        ones at or beyond its border; NaN where there is no such place on the sky.
    """
    ny, nx = (math.ceil((n - 1) / step) + 1 for n in shape_out)
    j, i = np.mgrid[0 : max(ny, 2), 0 : max(nx, 2)] * step
    sky = wcs_out.all_pix2world(i.ravel(), j.ravel(), 0)
    place = np.column_stack(wcs_in.wcs_world2pix(*sky, 0))
    # Far from the frame a distortion means nothing, and its inverse may not be found.
    size = np.array(shape_in[::-1])
    with np.errstate(invalid="ignore"):
        near = np.all((place > -0.25 * size) & (place < 1.25 * size), axis=1)
    if near.any():
        sky = np.column_stack(sky)[near]
        place[near] = wcs_in.all_world2pix(sky, 0, quiet=True)
    return place[:, 0].reshape(j.shape), place[:, 1].reshape(j.shape)


def reproject_frame(ccd, wcs, *, shape, method="bilinear"):
    r"""Put a frame on another grid.

    The value is the brightness interpolated at the place of the new pixel, times the ratio of the
    areas of the pixels, so that the sum over a star stays:

    .. math:: v(i, j) = A(i, j) \sum_k w_k s_k, \quad A = |\partial (x, y) / \partial (i, j)|

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Frame with a WCS; subtract its sky before. Pixels with a flag (saturated and repaired ones
        excepted) and masked pixels without flags are not used.
    wcs : astropy.wcs.WCS
        Coordinates of the new grid.
    shape : tuple of int
        ``(ny, nx)`` of the new grid.
    method : {"bilinear", "adaptive", "exact"}
        Mean of the four nearest pixels, weighted by distance; or the anti-aliased and the exact
        (area of overlap) method of the package reproject. Take one of the latter for a grid that is
        more than twice coarser; they are slower and drop the uncertainty.

    Returns
    -------
    astropy.nddata.CCDData
        ``data`` float32, NaN where nothing is known; ``flags``: `OUTSIDE` where the grid reaches
        beyond the frame, else the bits of the nearest pixel; ``uncertainty`` (standard deviation)
        if there was one. Interpolation makes neighbouring pixels correlated: their scatter is
        smaller than the noise of an aperture suggests.

    Raises
    ------
    FrameError
        If the frame has no WCS or does not overlap with the grid.
    ValueError
        If the method is not known.
    """
    _require_wcs(ccd)
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}.")
    flags = ccd.flags
    if flags is None:
        flags = np.zeros(ccd.shape, np.uint16)
        if ccd.mask is not None:
            flags[np.asarray(ccd.mask, bool)] = NONFINITE
    flags = np.ascontiguousarray(flags, np.uint16)
    data = np.array(ccd.data, np.float32)
    data[(flags & ~np.uint16(KEPT)) != 0] = np.nan
    variance = np.empty((0, 0), np.float32)
    if ccd.uncertainty is not None and method == "bilinear":
        sigma = ccd.uncertainty.represent_as(StdDevUncertainty).array
        variance = np.asarray(sigma, np.float32) ** 2
    x, y, step = _fine_map(ccd.wcs, wcs, ccd.shape, shape)
    out, spread, area = (np.full(shape, np.nan, np.float32) for _ in range(3))
    bits = np.full(shape, OUTSIDE, np.uint16)
    _resample(data, variance, flags, x, y, step, out, spread, area, bits)
    if np.all(bits & OUTSIDE):
        raise FrameError("the frame does not overlap with the grid")
    if method != "bilinear":
        out = _by_reproject(data, ccd.wcs, wcs, shape, method) * area
    out[(bits & OUTSIDE) != 0] = np.nan
    bits[~np.isfinite(out) & (bits & ~np.uint16(KEPT) == 0)] |= np.uint16(NONFINITE)
    return CCDData(
        out,
        unit=ccd.unit,
        flags=bits,
        mask=bits != 0,
        uncertainty=StdDevUncertainty(np.sqrt(spread)) if variance.size else None,
        meta=ccd.meta.copy(),
        wcs=wcs,
    )


def _fine_map(wcs_in, wcs_out, shape_in, shape_out):
    """Nodes that are close enough, and their distance."""
    for step in STEPS:
        x, y = pixel_map(wcs_in, wcs_out, shape_in=shape_in, shape_out=shape_out, step=step)
        inside = (x > -1) & (x < shape_in[1]) & (y > -1) & (y < shape_in[0])
        error = 0.0
        for nodes in (x, y):
            for axis in (0, 1):
                # Linear interpolation is wrong by an eighth of the second difference, and both
                # axes add.
                bend = np.abs(np.diff(nodes, 2, axis=axis))
                middle = inside[1:-1] if axis == 0 else inside[:, 1:-1]
                error = max(error, bend[middle].max(initial=0.0) / 4)
        if error < TOLERANCE:
            break
    return x, y, step


def _require_wcs(ccd):
    """Refuse a frame without coordinates."""
    if getattr(ccd, "wcs", None) is None:
        raise FrameError(
            "this frame has no WCS: it cannot be laid over others. Solve it first (stage solved)"
        )


def _by_reproject(data, wcs_in, wcs_out, shape, method):
    """Brightness on the new grid by the package reproject."""
    if method == "exact":
        out, _ = reproject.reproject_exact((data, wcs_in), wcs_out, shape_out=shape)
    else:
        out, _ = reproject.reproject_adaptive(
            (data, wcs_in), wcs_out, shape_out=shape, kernel="gaussian", conserve_flux=False
        )
    return out.astype(np.float32)


@njit(cache=True)
def _resample(data, variance, flags, node_x, node_y, step, out, spread, areas, bits):
    """Fill the last four arrays; coordinates come from the nodes, linearly between them."""
    ny, nx = data.shape
    for j in range(out.shape[0]):
        b = min(j // step, node_x.shape[0] - 2)
        v = (j - b * step) / step
        for i in range(out.shape[1]):
            a = min(i // step, node_x.shape[1] - 2)
            t = (i - a * step) / step
            x0, x1 = node_x[b, a], node_x[b, a + 1]
            x2, x3 = node_x[b + 1, a], node_x[b + 1, a + 1]
            y0, y1 = node_y[b, a], node_y[b, a + 1]
            y2, y3 = node_y[b + 1, a], node_y[b + 1, a + 1]
            x = (1 - v) * ((1 - t) * x0 + t * x1) + v * ((1 - t) * x2 + t * x3)
            y = (1 - v) * ((1 - t) * y0 + t * y1) + v * ((1 - t) * y2 + t * y3)
            if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5):
                continue
            xt, yt = (1 - v) * (x1 - x0) + v * (x3 - x2), (1 - v) * (y1 - y0) + v * (y3 - y2)
            xv, yv = (1 - t) * (x2 - x0) + t * (x3 - x1), (1 - t) * (y2 - y0) + t * (y3 - y1)
            area = abs(xt * yv - xv * yt) / (step * step)
            areas[j, i] = area
            nearest_x, nearest_y = min(int(x + 0.5), nx - 1), min(int(y + 0.5), ny - 1)
            bits[j, i] = flags[nearest_y, nearest_x]
            # In the outer half pixel the border is repeated.
            x, y = min(max(x, 0.0), nx - 1.0), min(max(y, 0.0), ny - 1.0)
            p, q = min(int(x), max(nx - 2, 0)), min(int(y), max(ny - 2, 0))
            fx, fy = x - p, y - q
            total, square = 0.0, 0.0
            for n in range(2):
                for m in range(2):
                    weight = (fx if m else 1 - fx) * (fy if n else 1 - fy)
                    if weight > 0:  # A bad pixel without weight does no harm.
                        total += weight * data[q + n, p + m]
                        if variance.size:
                            square += weight * weight * variance[q + n, p + m]
            out[j, i] = area * total
            spread[j, i] = area * area * square
