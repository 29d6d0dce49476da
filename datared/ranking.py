"""Ranking: how good each frame of a night is, and which one the others are compared with."""

import numpy as np
from astropy import units as u
from astropy.wcs.utils import proj_plane_pixel_area

from datared.errors import FrameError

__all__ = ["best_reference", "fwhm_on_sky", "rank_frames"]


def fwhm_on_sky(fwhm, *, wcs=None, scale=None):
    """Width of the stars on the sky from their width in pixels.

    Parameters
    ----------
    fwhm : float or numpy.ndarray of float
        Width in pixels, from `datared.sources.field_fwhm` or a column of it.
    wcs : astropy.wcs.WCS, optional
        Solution of the frame; the size of its pixels at the reference point is taken.
    scale : astropy.units.Quantity, optional
        Size of a pixel on the sky (an angle) instead.

    Returns
    -------
    astropy.units.Quantity
        Width in seconds of arc.

    Raises
    ------
    ValueError
        If both or none of ``wcs`` and ``scale`` are given.

    Examples
    --------
    >>> fwhm_on_sky(4.0, scale=0.37 * u.arcsec)
    <Quantity 1.48 arcsec>
    """
    if (wcs is None) == (scale is None):
        raise ValueError("give either the wcs of the frame or the scale of its pixels")
    if wcs is not None:
        celestial = wcs.celestial
        unit = u.Unit(celestial.wcs.cunit[0])
        scale = np.sqrt(proj_plane_pixel_area(celestial)) * unit
    return fwhm * u.Quantity(scale).to(u.arcsec)


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
