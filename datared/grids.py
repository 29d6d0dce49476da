"""Grids: on which pixels the frames of a stack meet, and where those pixels lie in a frame."""

import math
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area, wcs_to_celestial_frame
from scipy import ndimage

from .errors import FrameError
from .kernels import place_rows

__all__ = ["PixelMap", "common_grid", "pixel_map", "shape_and_wcs"]

#: Places are computed at nodes and interpolated between them with cubic polynomials. The nodes are
#: set closer, from the first of these distances in pixels on of which four fit into the frame and
#: into the grid, until that is right to TOLERANCE px.
STEPS = (64, 32, 16, 8, 4, 2)
TOLERANCE = 1e-5


@dataclass(frozen=True)
class PixelMap:
    """Where the pixels of a grid lie in a frame.

    Attributes
    ----------
    x, y : numpy.ndarray of float64, shape (n_y, n_x)
        Places in the frame (0-based pixels) of the nodes: the pixels -step, 0, step, 2 step ... of
        the grid, on to two beyond its border. NaN where there is no such place on the sky.
    step : int
        Distance of the nodes in pixels of the grid.
    shape_in, shape_out : tuple of int
        ``(ny, nx)`` of the frame and of the grid.
    """

    x: np.ndarray
    y: np.ndarray
    step: int
    shape_in: tuple
    shape_out: tuple

    def places(self, start, stop):
        """Places of all pixels of some rows of the grid.

        Parameters
        ----------
        start, stop : int
            First row, and the row after the last.

        Returns
        -------
        x, y : numpy.ndarray of float64, shape (stop - start, nx)
            Places in the frame.
        area : numpy.ndarray of float32, shape (stop - start, nx)
            Area of a pixel of the grid in pixels of the frame.
        """
        x, y = np.empty((2, stop - start, self.shape_out[1]))
        return x, y, self._place(start, 0, x, y)

    def _place(self, row, column, x, y):
        """Fill arrays with the places of the pixels from a row and a column on; give the areas."""
        area = np.empty(x.shape, np.float32)
        place_rows(self.x, self.y, self.step, row, column, x, y, area)
        return area

    def box(self, rows, columns, *, margin=0):
        """Part of the frame in which a part of the grid lies.

        Parameters
        ----------
        rows, columns : tuple of int
            First row (column) of the part of the grid, and the one after the last.
        margin : int
            Pixels to add on all sides.

        Returns
        -------
        rows, columns : slice
            Part of the frame, cut to the frame; empty if there is no overlap.
        """
        inside = np.zeros((2, 2), int)
        some = [*range(*rows, 32), rows[1] - 1]
        x, y = np.empty((2, len(some), columns[1] - columns[0]))
        for k, row in enumerate(some):
            self._place(row, columns[0], x[k : k + 1], y[k : k + 1])
        for k, (places, size) in enumerate(((y, self.shape_in[0]), (x, self.shape_in[1]))):
            if not np.isfinite(places).any():
                return slice(0, 0), slice(0, 0)
            # Between two of the rows a column bends by far less than the pixel that is added.
            low, high = np.nanmin(places) - 1 - margin, np.nanmax(places) + 2 + margin
            inside[k] = np.clip([math.floor(low), math.ceil(high)], 0, size)
        if 2 * (inside[1, 1] - inside[1, 0]) > self.shape_in[1]:
            inside[1] = 0, self.shape_in[1]  # Whole rows are read faster than most of each.
        return slice(*inside[0].tolist()), slice(*inside[1].tolist())


def common_grid(frames, *, reference=0):
    """Grid of pixels for several frames.

    Parameters
    ----------
    frames : sequence of astropy.nddata.CCDData or of (tuple of int, astropy.wcs.WCS)
        Frames with a WCS; or their shapes ``(ny, nx)`` and WCS, so that no pixel need be read.
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
    pairs = [shape_and_wcs(frame) for frame in frames]
    if reference is None:
        from reproject.mosaicking import find_optimal_celestial_wcs

        area = min(proj_plane_pixel_area(wcs.celestial) for _, wcs in pairs)
        return find_optimal_celestial_wcs(pairs, resolution=math.sqrt(area) * u.deg)
    shape, wcs = pairs[reference]
    return _undistorted(wcs, shape), tuple(shape)


def _undistorted(wcs, shape):
    """Coordinates with the linear part of others, without SIP or the polynomials of SCAMP."""
    plain = WCS(naxis=2)
    names = [name.removesuffix("-SIP") for name in wcs.wcs.ctype]
    if wcs.wcs.get_pv():
        # The polynomials of SCAMP (TPV) and of ZPN bend a tangential projection.
        names = [name[:-3] + "TAN" for name in names]
    plain.wcs.ctype, plain.wcs.cunit = names, wcs.wcs.cunit
    plain.wcs.crval, plain.wcs.crpix = wcs.wcs.crval, wcs.wcs.crpix
    # With CDELT, and not with a CD matrix: astropy's slices of coordinates, such as wcs[::2, ::2]
    # for twice the pixels, change nothing else.
    scale = math.sqrt(proj_plane_pixel_area(wcs.celestial))
    plain.wcs.cdelt = np.array([-scale, scale])
    plain.wcs.pc = wcs.pixel_scale_matrix / plain.wcs.cdelt[:, None]
    plain.wcs.radesys, plain.wcs.equinox = wcs.wcs.radesys, wcs.wcs.equinox
    plain.wcs.lonpole, plain.wcs.latpole = wcs.wcs.lonpole, wcs.wcs.latpole
    plain.array_shape = shape
    plain.wcs.set()
    return plain


def shape_and_wcs(frame, *, name="this frame"):
    """Shape and coordinates of a frame.

    Parameters
    ----------
    frame : astropy.nddata.CCDData or (tuple of int, astropy.wcs.WCS)
        A frame, or the two themselves.
    name : str
        What to call it in the message.

    Returns
    -------
    shape : tuple of int
        ``(ny, nx)``.
    wcs : astropy.wcs.WCS
        Its coordinates.

    Raises
    ------
    FrameError
        If it has no WCS of the sky.
    """
    shape, wcs = frame if isinstance(frame, tuple) else (frame.shape, getattr(frame, "wcs", None))
    if wcs is None or not wcs.has_celestial:
        raise FrameError(
            f"{name} has no WCS: it cannot be laid over others. Solve it first (stage solved)"
        )
    return tuple(shape), wcs


def pixel_map(wcs_in, wcs_out, *, shape_in, shape_out):
    r"""Find where the pixels of a grid lie in a frame.

    World coordinates take microseconds for each pixel, so they are computed at nodes, and cubic
    polynomials lie between those. Their error is :math:`3/128` of the fourth difference of the
    nodes; the nodes are close enough for :math:`10^{-5}` px.

    Parameters
    ----------
    wcs_in, wcs_out : astropy.wcs.WCS
        Coordinates of the frame, and of the grid.
    shape_in, shape_out : tuple of int
        ``(ny, nx)`` of both.

    Returns
    -------
    PixelMap
        The places.
    """
    areas = [proj_plane_pixel_area(wcs.celestial) for wcs in (wcs_in, wcs_out)]
    size = min(*shape_out, min(shape_in) * math.sqrt(areas[0] / areas[1]))
    for step in [step for step in STEPS if 4 * step <= size] or STEPS[-1:]:
        x, y = _nodes(wcs_in, wcs_out, shape_in, shape_out, step)
        inside = (x > -1) & (x < shape_in[1]) & (y > -1) & (y < shape_in[0])
        error = 0.0
        for axis in (0, 1):
            # Of the five nodes of a fourth difference any may be the one in the frame.
            touched = ndimage.maximum_filter1d(inside, 5, axis=axis)
            touched = touched[2:-2] if axis == 0 else touched[:, 2:-2]
            for nodes in (x, y):
                bend = np.abs(np.diff(nodes, 4, axis=axis))[touched]
                error = max(error, 3 / 128 * np.max(np.nan_to_num(bend, nan=np.inf), initial=0.0))
        if error < TOLERANCE:
            break
    return PixelMap(x, y, step, tuple(shape_in), tuple(shape_out))


def _nodes(wcs_in, wcs_out, shape_in, shape_out, step):
    """Places of the nodes in the frame, as two arrays."""
    # The polynomial of a pixel needs one node before and two after it.
    ny, nx = (max((n - 1) // step + 4, 5) for n in shape_out)
    j, i = (np.mgrid[0:ny, 0:nx] - 1.0) * step
    sky = np.array(wcs_out.all_pix2world(i.ravel(), j.ravel(), 0))
    sky = _same_system(sky[[wcs_out.wcs.lng, wcs_out.wcs.lat]], wcs_in, wcs_out)
    sky = sky[[wcs_in.wcs.lng, wcs_in.wcs.lat]].T
    place = wcs_in.wcs_world2pix(sky, 0)
    # Far from the frame a distortion means nothing, and its inverse may not be found.
    size = np.array(shape_in[::-1])
    with np.errstate(invalid="ignore"):
        near = np.all((place > -0.25 * size) & (place < 1.25 * size), axis=1)
    near = ndimage.binary_dilation(near.reshape(j.shape), np.ones((3, 3)), iterations=3).ravel()
    near &= np.isfinite(place).all(axis=1)
    if near.any():
        place[near] = wcs_in.all_world2pix(sky[near], 0, tolerance=1e-7, quiet=True)
    return place[:, 0].reshape(j.shape), place[:, 1].reshape(j.shape)


def _same_system(sky, wcs_in, wcs_out):
    """Longitudes and latitudes (deg) of the grid's system in that of the frame."""
    theirs, ours = wcs_to_celestial_frame(wcs_in), wcs_to_celestial_frame(wcs_out)
    if theirs.is_equivalent_frame(ours):
        return sky
    there = SkyCoord(*sky, unit="deg", frame=ours).transform_to(theirs).spherical
    return np.array([there.lon.deg, there.lat.deg])
