"""Inside the stage stack: one look at each frame, for its sky, noise and the light of its stars.

What is kept of a frame is small, so that hundreds of frames can be looked at before their pixels
are read a second time, band by band, for the stack.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.wcs import WCS
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .apertures import EDGE, OUTSIDE, SATURATED
from .background import sky_mesh
from .detections import chord
from .errors import FrameError
from .frames import read_product
from .headerwcs import read_wcs
from .nightstars import pixel_scale, sky_to_pixel
from .photometry import aperture_photometry
from .pixels import SATURATED as SATURATED_PIXEL
from .reference import unit_vectors
from .rows import FileRows
from .stacksky import BOX, RowSky, sky_nodes

__all__ = [
    "StackFrame",
    "card_number",
    "look_at",
    "open_frame",
    "same_field",
]

#: Exponent of the Moffat profile by which light beyond the circle is counted.
BETA = 3.5


@dataclass(frozen=True, eq=False)
class StackFrame:
    """What a stack needs to know of a frame.

    Parameters
    ----------
    path : pathlib.Path
        The solved frame.
    header : astropy.io.fits.Header
        Its header.
    shape : tuple of int
        ``(ny, nx)``.
    wcs : astropy.wcs.WCS
        World coordinates.
    scale : float
        Arcsec per pixel.
    exptime : float
        Exposure time in seconds.
    fwhm : float
        Width of its stars in arcsec; NaN where it is not known.
    gain : float or None
        Electrons per count.
    sky : RowSky or None
        What is to be subtracted; None until `look_at`.
    noise : float
        Standard deviation of a pixel of sky, in the unit of the frame.
    flux, flux_err : numpy.ndarray of float, shape (n_star,), or None
        Light of the stars on this frame; NaN where one is not well measured.
    """

    path: Path
    header: object
    shape: tuple
    wcs: WCS
    scale: float
    exptime: float
    fwhm: float
    gain: float | None
    sky: object = None
    noise: float = math.nan
    flux: np.ndarray | None = None
    flux_err: np.ndarray | None = None


def open_frame(path, *, gain=None):
    """Read what the header of a solved frame says.

    Parameters
    ----------
    path : pathlib.Path
        The frame; its pixels are not read.
    gain : float, optional
        Electrons per count, where the header has no GAIN_E.

    Returns
    -------
    StackFrame
        The frame, not looked at yet.

    Raises
    ------
    FrameError
        If the file is missing or damaged, or has neither world coordinates nor an exposure time.
    """
    source = FileRows(path)
    header, shape = source.header, source.shape
    wcs = read_wcs(header, shape)
    if wcs is None:
        raise FrameError(f"{path.name}: no WCS, it cannot be laid over others. Solve it first")
    exptime, width = (card_number(header, card) for card in ("EXPTIME", "FWHM"))
    if not exptime > 0:
        raise FrameError(f"{path.name}: its exposure time is not known (EXPTIME)")
    scale = pixel_scale(wcs)
    own = card_number(header, "GAIN_E")
    return StackFrame(
        path=path,
        header=header,
        shape=shape,
        wcs=wcs,
        scale=scale,
        exptime=exptime,
        fwhm=width * scale if width > 0 else math.nan,
        gain=own if own > 0 else gain,
    )


def look_at(frame, stars, *, radius, sky):
    """Measure the sky of a frame, its noise, and the light of stars.

    Stars are measured here, before a frame is interpolated: so its scale does not depend on how
    that is done. Their sky is a map of it: the median of a ring is lifted by the wings of all faint
    stars in it, in a crowd by more the worse the seeing is. The light beyond the circle is added as
    a Moffat profile of the frame's width has it.

    Parameters
    ----------
    frame : StackFrame
        From `open_frame`.
    stars : astropy.coordinates.SkyCoord, shape (n_star,)
        Stars to measure.
    radius : float
        Radius of the circle in arcsec, the same for all frames.
    sky : {"map", "plane", "level"}
        See `sky_nodes`.

    Returns
    -------
    StackFrame
        With ``sky``, ``noise``, ``flux`` and ``flux_err``.

    Raises
    ------
    FrameError
        If the file is damaged, has no good pixels, or no noise.
    """
    image = read_product(frame.path)
    image.uncertainty = None
    bad = (image.flags & ~np.uint16(SATURATED_PIXEL)) != 0
    bad |= ~np.isfinite(image.data)
    mesh = sky_mesh(image.data, bad, box=BOX)
    noise = float(np.median(mesh.noise))
    if not noise > 0:
        raise FrameError(f"{frame.path.name}: its sky has no noise, so it is no image of the sky")
    flux = errors = np.full(len(stars), np.nan)
    if len(stars):
        x, y = sky_to_pixel(frame.wcs, stars, shape=frame.shape)
        radius = radius / frame.scale
        image.data -= RowSky(mesh.level, frame.shape).fill(0, frame.shape[0])
        table = aperture_photometry(
            image, x, y, radii=[radius], annulus=(1.25 * radius, 1.75 * radius), gain=frame.gain,
            fwhm=frame.fwhm / frame.scale if frame.fwhm > 0 else None, background="none",
        )  # fmt: skip
        # Nearly every large circle holds a bad pixel somewhere; the one opposite to it stands in.
        spoilt = table["flags"][:, 0] & (EDGE | OUTSIDE | SATURATED) != 0
        inside = _light_inside(radius * frame.scale, frame.fwhm)
        flux, errors = (
            np.where(spoilt, np.nan, table[n][:, 0]) / inside for n in ("flux", "flux_err")
        )
    nodes = sky_nodes(mesh.level, kind=sky, shape=frame.shape)
    return replace(
        frame,
        sky=RowSky(nodes, frame.shape),
        noise=noise,
        flux=flux,
        flux_err=errors,
    )


def _light_inside(radius, fwhm):
    """Share of the light of a star within a circle; 1 where its width is not known."""
    if not fwhm > 0:
        return 1.0
    return 1 - (1 + 4 * (2 ** (1 / BETA) - 1) * (radius / fwhm) ** 2) ** (1 - BETA)


def same_field(table, *, side):
    """Find the field of the sky that has the most frames of a night.

    Frames whose middles are closer than the short side of a frame overlap and are of one field; so
    are those that others link in this way.

    Parameters
    ----------
    table : astropy.table.Table
        One row for each frame: ``ra`` and ``dec`` of its middle in degrees.
    side : float
        Short side of a frame in arcsec.

    Returns
    -------
    numpy.ndarray of bool, shape (n_frame,)
        True for the frames of the field; of two with as many frames the first in the table.
        False where the middle is not known.

    Raises
    ------
    FrameError
        If no middle is known.
    """
    middles = unit_vectors({n: np.ma.filled(table[n], np.nan) for n in ("ra", "dec")})
    known = np.isfinite(middles).all(axis=1)
    if not known.any():
        raise FrameError("ra and dec of all solved frames are missing: solve the night again")
    pairs = cKDTree(middles[known]).query_pairs(chord(side), output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(known.sum(), known.sum()))
    labels = connected_components(links, directed=False)[1]
    field = np.zeros(len(table), bool)
    field[known] = labels == np.argmax(np.bincount(labels))
    return field


def card_number(header, card):
    """Read the number of a header card.

    Parameters
    ----------
    header : astropy.io.fits.Header
        The header.
    card : str
        Its name.

    Returns
    -------
    float
        NaN where there is none.
    """
    value = header.get(card)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known else math.nan
