"""Distortion map of a camera: how far the optics shift the stars, and how large each pixel is."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from .distortion import fit_distortion
from .errors import FrameError, SolveError
from .listing import inventory, product_name, select_lights
from .plates import read_plate
from .projection import to_plane

__all__ = ["DistortionMap", "distortion_map", "night_distortion"]

#: Groups of stars that are left out in turn to see how well the map is known.
GROUPS = 10


@dataclass(frozen=True, eq=False)
class DistortionMap:
    """Distortion at the nodes of a grid over the frame.

    Attributes
    ----------
    x, y : numpy.ndarray of float, shape (n_y, n_x)
        Pixels (0-based) of the nodes.
    dx, dy : numpy.ndarray of float, shape (n_y, n_x)
        Pixels to add to a position to come to where a camera without distortion, of the best
        scale, rotation and shear, would see the star.
    error : numpy.ndarray of float, shape (n_y, n_x)
        Standard deviation of dx and of dy in px, from the stars; NaN where they are not known.
    scale : numpy.ndarray of float, shape (n_y, n_x)
        Arcsec per pixel: root of the area of the sky that a pixel sees.
    area : numpy.ndarray of float, shape (n_y, n_x)
        That area against the one of the pixel in the middle of the frame. An even sky is brighter
        by this factor; a star is not.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    order : int or None
        Order of the polynomial that was fitted to the stars of a night; None for one frame.
    n_frames, n_stars : int
        Frames that were fitted together, and stars on them; 1 and 0 for one frame.
    scatter : float
        Root mean square length in px by which maps of single frames differ from this; NaN where
        there are not two frames with enough stars.
    """

    x: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    error: np.ndarray
    scale: np.ndarray
    area: np.ndarray
    shape: tuple[int, int]
    order: int | None = None
    n_frames: int = 1
    n_stars: int = 0
    scatter: float = np.nan

    @property
    def shift(self):
        """Length of the displacement in px, shape (n_y, n_x)."""
        return np.hypot(self.dx, self.dy)


def distortion_map(wcs, *, shape=None, nodes=(17, 25)):
    r"""Distortion of world coordinates, of any kind (SIP, polynomials of SCAMP, tables).

    The nodes are projected on the plane that touches the sky where the middle of the frame is
    (gnomonic, what a camera without distortion does). With the plane coordinates
    :math:`\vec\xi`, the linear law :math:`\vec\xi \approx \vec a + B \vec p` is fitted to all nodes
    by least squares, and

    .. math:: \vec d = B^{-1} (\vec\xi - \vec a) - \vec p

    is the displacement: that which no change of pointing, scale, rotation or shear can remove. The
    scale is the root of the solid angle between the edges of a pixel.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        World coordinates of a frame, with or without distortion.
    shape : (int, int), optional
        Shape ``(ny, nx)`` of the frame; by default that which the world coordinates carry.
    nodes : (int, int)
        Number of nodes along y and x, from corner to corner of the frame; two or more.

    Returns
    -------
    DistortionMap
        With ``error`` NaN.

    Raises
    ------
    ValueError
        If the shape of the frame is not known, or there are fewer than two nodes along an axis.
    FrameError
        If the frame reaches out of the projection.

    Notes
    -----
    `datared.plots.distortion_map` draws the result. Given world coordinates it draws their
    polynomial itself, against the middle of the frame, with what of it is linear over the frame.

    Examples
    --------
    >>> from datared.instrument import frame_wcs
    >>> found = distortion_map(frame_wcs((100, 200), ra=10.0, dec=20.0, scale=1.0, rotation=0.0))
    >>> found.shift.shape, bool(0.5 < found.shift.max() < 1.5), round(float(found.scale[8, 12]), 3)
    ((17, 25), True, 1.0)
    """
    shape = wcs.array_shape if shape is None else tuple(int(n) for n in shape)
    if shape is None:
        raise ValueError("These world coordinates do not know the size of the frame: give shape.")
    if np.shape(nodes) != (2,) or min(nodes) < 2:
        raise ValueError(f"nodes = {nodes}: give two or more along y and x, such as (17, 25).")
    ny, nx = shape
    y, x = np.meshgrid(
        np.linspace(0, ny - 1, nodes[0]), np.linspace(0, nx - 1, nodes[1]), indexing="ij"
    )
    middle = ((nx - 1) / 2, (ny - 1) / 2)
    ra, dec = _sky(wcs, x, y)
    plane = np.stack(to_plane(ra, dec, *map(float, _sky(wcs, *middle))), axis=-1).reshape(-1, 2)
    if not np.isfinite(plane).all():
        raise FrameError("the frame reaches out of the projection of its world coordinates.")
    dx, dy = _displacement(_offsets(x, y, shape), plane).T.reshape(2, *x.shape)
    area = _area(wcs, x, y)
    return DistortionMap(
        x=x,
        y=y,
        dx=dx,
        dy=dy,
        error=np.full(x.shape, np.nan),
        scale=np.degrees(np.sqrt(area)) * 3600,
        area=area / _area(wcs, *middle),
        shape=(ny, nx),
    )


def night_distortion(night, *, files=None, order=None, nodes=(17, 25), frames=None):
    r"""Distortion map of a night: that which all its frames have in common, with errors.

    The distortion is fitted to the matched stars of all frames (`datared.distortion`). The error is
    that of a jackknife: the stars are left out in ten groups, a star on all its frames (its place
    in the catalogue is wrong on all of them), the distortion is fitted to the others, and

    .. math:: \sigma^2 = \frac{9}{10} \sum_k \frac{|\vec d_k - \bar{\vec d}|^2}{2}

    is the variance of dx and of dy at each node.

    Parameters
    ----------
    night : Night
        A night whose frames are solved (``work/detected``).
    files : sequence of str, optional
        Only these frames, as the inventory names them; by default all. Frames of the shape that
        most of them have are used.
    order : int, optional
        Order of the polynomial; by default chosen by what it predicts. Where that is 1 the map is
        0, without errors; order 3 then says how large a distortion could be that was not seen.
    nodes : (int, int)
        As in `distortion_map`.
    frames : astropy.table.Table, optional
        From `datared.listing.inventory`; the headers are read where it is not given.

    Returns
    -------
    DistortionMap
        Displacements and errors of the night; ``scale`` and ``area`` with the mean scale
        of its frames; ``scatter`` is that of maps fitted to each frame alone.

    Raises
    ------
    SolveError
        If no frame has a plate solution.
    FrameError
        If one of the ``files`` is no light frame of the night.

    References
    ----------
    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    plates = _plates(night, files, frames)
    if not plates:
        raise SolveError(
            "no solved frame to measure the distortion of: run the night up to the stage solved."
        )
    (shape, _), *_ = Counter(plate.shape for plate in plates).most_common(1)
    solutions = [plate.solution for plate in plates if plate.shape == shape]
    # What the optics add to the projection of each frame comes from the fit.
    maps = [distortion_map(_undistorted(one.wcs), shape=shape, nodes=nodes) for one in solutions]
    fit = fit_distortion(solutions, shape=shape, order=order)
    shifts, growth = _shifts(fit, maps[0]), _growth(fit, maps[0])
    error, scatter = np.full(shifts[0].shape, np.nan), np.nan
    if fit.order > 1:
        rest = [[_without(one, group) for one in solutions] for group in range(GROUPS)]
        parts = [_refitted(some, shape, fit.order, maps[0]) for some in rest]
        if all(part is not None for part in parts):
            spread = np.sum((np.array(parts) - np.mean(parts, axis=0)) ** 2, axis=(0, 1))
            error = np.sqrt((GROUPS - 1) / GROUPS * spread / 2)
        single = [_refitted([one], shape, fit.order, maps[0]) for one in solutions]
        # A frame with few stars has no map of its own.
        misfits = [np.sum((one - shifts) ** 2, axis=0) for one in single if one is not None]
        if len(misfits) > 1:
            scatter = float(np.sqrt(np.mean(misfits)))
    return replace(
        maps[0],
        dx=shifts[0],
        dy=shifts[1],
        error=error,
        scale=np.mean([one.scale for one in maps], axis=0) * np.sqrt(growth),
        area=np.mean([one.area for one in maps], axis=0) * growth,
        order=fit.order,
        n_frames=fit.n_frames,
        n_stars=fit.n_stars,
        scatter=scatter,
    )


def _plates(night, files, frames):
    """Plates of the frames of a night that have a solution."""
    frames = inventory(night) if frames is None else frames
    names = [str(name) for name in select_lights(frames, night)["file"]]
    wanted = set(names) if files is None else set(map(str, files))
    unknown = sorted(wanted.difference(names))
    if unknown:
        raise FrameError(
            f"the night has no light frame {', '.join(unknown)}: give files as the inventory names "
            f"them, such as {', '.join(names[:1]) or '(it has none)'}."
        )
    paths = [night.work / "detected" / f"{product_name(n)}.fits" for n in names if n in wanted]
    plates = [read_plate(path) for path in paths if path.is_file()]
    return [plate for plate in plates if plate.solution is not None]


def _without(solution, group):
    """Return the solution without the stars of one group."""
    rows = np.asarray(solution.matched["catalogue"]) % GROUPS != group
    return replace(solution, matched=solution.matched[rows])


def _refitted(solutions, shape, order, grid):
    """Displacements by a fit of this order; None where there are not stars for it."""
    try:
        fit = fit_distortion(solutions, shape=shape, order=order)
    except SolveError:
        return None
    return _shifts(fit, grid) if fit.order == order else None


def _offsets(x, y, shape):
    """Offsets of the nodes from the middle of the frame in px, shape (n, 2)."""
    ny, nx = shape
    return np.column_stack([x.ravel() - (nx - 1) / 2, y.ravel() - (ny - 1) / 2])


def _shifts(fit, grid):
    """Displacements dx and dy, shape (2, n_y, n_x), of a fitted distortion at the nodes."""
    pixel = _offsets(grid.x, grid.y, grid.shape)
    return _displacement(pixel, pixel + fit.displacement(pixel)).T.reshape(2, *grid.x.shape)


def _growth(fit, grid):
    """Area that a pixel covers without the distortion, against the one in the middle."""
    pixel = np.vstack([_offsets(grid.x, grid.y, grid.shape), [0.0, 0.0]])
    edges = [pixel + step for step in 0.5 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])]
    right, left, up, down = (edge + fit.displacement(edge) for edge in edges)
    (a, b), (c, d) = (right - left).T, (up - down).T
    area = a * d - b * c
    return (area[:-1] / area[-1]).reshape(grid.x.shape)


def _undistorted(wcs):
    """World coordinates without their polynomial."""
    plain = wcs.deepcopy()
    plain.sip = None
    plain.wcs.ctype = [name.removesuffix("-SIP") for name in wcs.wcs.ctype]
    return plain


def _displacement(pixel, plane):
    """Pixels that no linear law between pixels and plane coordinates can remove."""
    # In units of half the frame the fit is well conditioned.
    unit = np.abs(pixel).max()
    terms = np.column_stack([np.ones(len(pixel)), pixel / unit])
    linear = np.linalg.lstsq(terms, plane, rcond=None)[0]
    return (plane - linear[0]) @ np.linalg.inv(linear[1:]) * unit - pixel


def _sky(wcs, x, y):
    """Sky positions in degrees of pixels."""
    return wcs.all_pix2world(x, y, 0)


def _area(wcs, x, y):
    """Solid angle in sr that the pixels see."""
    edges = [(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]
    left, right, down, up = (_vectors(*_sky(wcs, x + i, y + j)) for i, j in edges)
    return np.linalg.norm(np.cross(right - left, up - down), axis=-1)


def _vectors(ra, dec):
    """Return unit vectors, shape (..., 3), towards positions in degrees."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
