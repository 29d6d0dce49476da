"""Overscan and trim: the level read beside the image, and the image without its borders."""

import math
import re
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .errors import FrameError

__all__ = ["Regions", "find_regions", "overscan_level", "parse_section", "trim_frame"]

_SECTION = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]")


@dataclass(frozen=True)
class Regions:
    """Where image and overscan are in a raw frame.

    Parameters
    ----------
    trim, overscan : tuple of (slice, slice) or None
        Rows and columns, as numpy indexes them; None where there is no such region.
    """

    trim: tuple | None = None
    overscan: tuple | None = None

    def shape(self, shape):
        """Shape of the image in a raw frame of that shape."""
        return shape if self.trim is None else tuple(s.stop - s.start for s in self.trim)


def parse_section(text, shape, *, name="section"):
    """Slices of a FITS section.

    Parameters
    ----------
    text : str
        Columns and rows, counted from 1, ends included: ``[1025:1056,1:1024]``.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``; the section must lie inside.
    name : str
        Where the section comes from, for messages.

    Returns
    -------
    tuple of slice
        ``(rows, columns)``.

    Raises
    ------
    FrameError
        If it is no section, or not inside the frame.

    Examples
    --------
    >>> parse_section("[1025:1056,1:1024]", (1024, 1056))
    (slice(0, 1024, None), slice(1024, 1056, None))
    """
    match = _SECTION.fullmatch(str(text).strip())
    if match is None:
        raise FrameError(f"{name} = {text!r} is no section; write it as [x1:x2,y1:y2].")
    x1, x2, y1, y2 = (int(number) for number in match.groups())
    if not (1 <= x1 <= x2 <= shape[1] and 1 <= y1 <= y2 <= shape[0]):
        raise FrameError(
            f"{name} = {text} is not inside the frame, which has {shape[1]} columns and {shape[0]} "
            "rows; correct it in night.toml or the header."
        )
    return slice(y1 - 1, y2), slice(x1 - 1, x2)


def find_regions(header, shape, *, camera=None):
    """Image and overscan of a raw frame.

    The camera of the night file comes first, then TRIMSEC and BIASSEC of the header, then DATASEC
    for the image (left alone where it does not fit, because some cameras count unbinned pixels).

    Parameters
    ----------
    header : Mapping
        Header of the raw frame. A frame that was trimmed already (card TRIMMED) has no regions.
    shape : tuple of int
        Shape of the raw frame, ``(ny, nx)``.
    camera : Camera, optional
        With ``trim`` and ``overscan`` as FITS sections or None.

    Returns
    -------
    Regions
        The regions.

    Raises
    ------
    FrameError
        If a region is not inside the frame.
    """
    if header.get("TRIMMED"):
        return Regions()
    found = {}
    for key, card in (("trim", "TRIMSEC"), ("overscan", "BIASSEC")):
        text = getattr(camera, key, None)
        name = f"camera.{key}" if text else card
        text = text or str(header.get(card, "")).strip()
        found[key] = parse_section(text, shape, name=name) if text else None
    if found["trim"] is None and header.get("DATASEC"):
        try:
            found["trim"] = parse_section(header["DATASEC"], shape, name="DATASEC")
        except FrameError:
            found["trim"] = None
    whole = (slice(0, shape[0]), slice(0, shape[1]))
    if found["trim"] == whole:
        found["trim"] = None
    return Regions(**found)


def overscan_level(overscan, *, shape, regions, smooth=51):
    """Level of the overscan beside each row (or above each column) of the image.

    The median across the overscan, then the mean over ``smooth`` rows: that follows a drift while
    the frame is read, and adds little noise (1.25 R / sqrt(width * smooth)).

    Parameters
    ----------
    overscan : array-like
        Pixels of the overscan region.
    shape : tuple of int
        Shape of the raw frame, ``(ny, nx)``.
    regions : Regions
        Of the raw frame.
    smooth : int
        Rows to average.

    Returns
    -------
    numpy.ndarray of float32
        Shape ``(rows of the image, 1)``, or ``(1, columns of the image)`` for an overscan that is
        wider than high; one value where it lies beside only a part of the rows.
    """
    rows, columns = regions.overscan
    image = regions.trim or (slice(0, shape[0]), slice(0, shape[1]))
    axis = 1 if rows.stop - rows.start >= columns.stop - columns.start else 0
    along, wanted = (rows, image[0]) if axis == 1 else (columns, image[1])
    level = np.nanmedian(np.asarray(overscan, np.float32), axis=axis)
    if along.start > wanted.start or along.stop < wanted.stop:
        level = np.full(wanted.stop - wanted.start, np.nanmedian(level))
    else:
        level = ndimage.uniform_filter1d(level, min(smooth, level.size), mode="nearest")
        level = level[wanted.start - along.start : wanted.stop - along.start]
    return np.expand_dims(level.astype(np.float32), axis)


def trim_frame(ccd, *, regions):
    """Subtract the overscan and cut the image out of a raw frame.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Raw frame, with flags and, where known, world coordinates.
    regions : Regions
        From `find_regions`.

    Returns
    -------
    astropy.nddata.CCDData
        A new frame. World coordinates and the cards CRPIX1 and CRPIX2 are shifted with the
        pixels; cards that describe regions of the raw frame are gone.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.ones((4, 6)), unit="adu", meta={"CRPIX1": 3.0, "CRPIX2": 3.0})
    >>> trimmed = trim_frame(ccd, regions=Regions(trim=(slice(1, 4), slice(2, 6))))
    >>> trimmed.shape, trimmed.meta["CRPIX1"], trimmed.meta["CRPIX2"]
    ((3, 4), 1.0, 2.0)
    """
    result = ccd.copy()
    if ccd.flags is not None:
        result.flags = np.array(ccd.flags)  # A copy of a frame shares its flags.
    if regions.trim is not None:
        rows, columns = regions.trim
        part = (rows, columns)
        wcs = None if ccd.wcs is None else ccd.wcs.slice(part)
        result = type(ccd)(
            np.array(ccd.data[part]),
            unit=ccd.unit,
            mask=None if ccd.mask is None else np.array(ccd.mask[part]),
            flags=None if ccd.flags is None else np.array(ccd.flags[part]),
            meta=result.meta,
            wcs=wcs,
        )
        for card, start in (("CRPIX1", columns.start), ("CRPIX2", rows.start)):
            value = result.meta.get(card)
            if isinstance(value, int | float) and math.isfinite(value):
                result.meta[card] = value - start
        for card in ("TRIMSEC", "BIASSEC", "DATASEC"):
            if card in result.meta:
                del result.meta[card]
        result.meta["TRIMMED"] = True
    if regions.overscan is not None:
        level = overscan_level(ccd.data[regions.overscan], shape=ccd.shape, regions=regions)
        result.data = result.data - level
        result.meta["OVERSCOR"] = round(float(np.mean(level)), 3)
    return result
