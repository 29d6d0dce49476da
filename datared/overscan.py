"""Overscan and trim: the level read beside the image, and the image without its borders.

Where the regions are is found in `datared.regions`, whose names are known here too.
"""

import math
import re

import numpy as np
from scipy import ndimage

from .errors import FrameError
from .regions import Piece, Regions, find_regions, parse_section

__all__ = [
    "Piece",
    "Regions",
    "cut_rows",
    "find_regions",
    "overscan_image_level",
    "parse_section",
    "subtract_level",
    "trim_frame",
]

_REGION_CARDS = re.compile(r"(TRIM|BIAS|DATA)SEC\d*|[ABDT]SEC\d+")
_PIXEL_CARDS = re.compile(r"(?:CRPIX([12])[A-Z]?|LTV([12]))")


def overscan_image_level(read_section, regions, shape, *, smooth=51):
    r"""Level to subtract from each piece of the image.

    The median across the overscan, then the running mean over ``smooth`` rows (at the ends a line
    through as many): that follows a drift while the frame is read, and adds little noise,
    :math:`1.25 R / \sqrt{w \, n}` for a read noise R and an overscan that is w wide.

    Parameters
    ----------
    read_section : callable
        ``read_section(rows, columns)`` gives the raw pixels of two slices.
    regions : Regions
        Of the raw frame.
    shape : tuple of int
        Shape of the raw frame, ``(ny, nx)``.
    smooth : int
        n, rows to average.

    Returns
    -------
    list of (slice, slice, numpy.ndarray of float32)
        Rows and columns of the trimmed image, and their level: of shape ``(rows, 1)``, or
        ``(1, columns)`` for an overscan that is wider than high; one value where it lies beside
        only a part of the rows. Pieces without an overscan are not in the list.

    Raises
    ------
    FrameError
        If an overscan has no finite pixel.

    Examples
    --------
    >>> raw = np.array([[1, 1, 5, 5, 9], [2, 2, 6, 6, 9]])
    >>> regions = Regions(trim=(slice(0, 2), slice(2, 4)), overscan=(slice(0, 2), slice(0, 2)))
    >>> overscan_image_level(lambda *section: raw[section], regions, raw.shape, smooth=1)
    [(slice(0, 2, None), slice(0, 2, None), array([[1.], [2.]], dtype=float32))]
    """
    return [
        (*part.place, _level(read_section(*part.overscan), part, smooth))
        for part in regions.parts(shape)
        if part.overscan is not None
    ]


def subtract_level(band, levels, *, start=0):
    """Subtract the levels of `overscan_image_level` from rows of the trimmed image, in place.

    Parameters
    ----------
    band : numpy.ndarray of float, shape (n, columns of the trimmed image)
        The rows.
    levels : list of (slice, slice, numpy.ndarray)
        From `overscan_image_level`.
    start : int
        Which row of the trimmed image is the first one.
    """
    for rows, columns, level in levels:
        first, last = max(start, rows.start), min(start + len(band), rows.stop)
        if first < last:
            own = level if len(level) == 1 else level[first - rows.start : last - rows.start]
            band[first - start : last - start, columns] -= own


def cut_rows(read_rows, regions, shape, *, start, stop):
    """Rows of the trimmed image, from rows of the raw frame; none of them is read twice.

    Parameters
    ----------
    read_rows : callable
        ``read_rows(start, stop)`` gives whole rows of the raw frame.
    regions : Regions
        Of the raw frame.
    shape : tuple of int
        Shape of the raw frame, ``(ny, nx)``.
    start, stop : int
        First row of the trimmed image, and the one after the last.

    Returns
    -------
    numpy.ndarray, shape (stop - start, columns of the trimmed image)
        Raw values; a view where the image is one piece.

    Examples
    --------
    >>> raw = np.arange(12).reshape(3, 4)
    >>> regions = Regions(trim=(slice(1, 3), slice(0, 2)))
    >>> cut_rows(lambda start, stop: raw[start:stop], regions, raw.shape, start=1, stop=2)
    array([[8, 9]])
    """
    parts = regions.parts(shape)
    if len(parts) == 1:
        rows, columns = parts[0].image
        return read_rows(rows.start + start, rows.start + stop)[:, columns]
    band, known = None, {}
    for part in parts:
        first, last = max(start, part.place[0].start), min(stop, part.place[0].stop)
        if first >= last:
            continue
        above = part.image[0].start - part.place[0].start
        if (first, above) not in known:  # Amplifiers side by side share their rows.
            known[first, above] = read_rows(first + above, last + above)
        raw = known[first, above]
        if band is None:
            band = np.empty((stop - start, regions.shape(shape)[1]), raw.dtype)
        band[first - start : last - start, part.place[1]] = raw[:, part.image[1]]
    return band


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
        A new frame. World coordinates and the cards CRPIX1, CRPIX2, LTV1 and LTV2 are shifted with
        the pixels (where there are several pieces, with that of the reference pixel); cards that
        describe regions of the raw frame are gone.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.ones((4, 6)), unit="adu", meta={"CRPIX1": 3.0, "CRPIX2": 3.0})
    >>> trimmed = trim_frame(ccd, regions=Regions(trim=(slice(1, 4), slice(2, 6))))
    >>> trimmed.shape, trimmed.meta["CRPIX1"], trimmed.meta["CRPIX2"]
    ((3, 4), 1.0, 2.0)
    """
    shape, whole = ccd.shape, regions.shape(ccd.shape)

    def cut(array):
        if array is None:
            return None
        rows = cut_rows(lambda a, b: array[a:b], regions, shape, start=0, stop=whole[0])
        return np.array(rows)

    error = ccd.uncertainty
    result = type(ccd)(
        cut(ccd.data),
        unit=ccd.unit,
        mask=cut(ccd.mask),
        flags=cut(ccd.flags),
        uncertainty=None if error is None else type(error)(cut(error.array)),
        meta=ccd.meta.copy(),
        wcs=ccd.wcs,
    )
    if regions.trimmed:
        y, x = _shift(ccd, regions)
        if ccd.wcs is not None:
            result.wcs = ccd.wcs.slice((slice(y, None), slice(x, None)))
            result.wcs.array_shape = whole
        for card in list(result.meta):
            match = _PIXEL_CARDS.fullmatch(card)
            value = result.meta[card] if match else None
            if isinstance(value, int | float) and math.isfinite(value):
                result.meta[card] = value - (x if "1" in match.groups() else y)
            elif _REGION_CARDS.fullmatch(card):
                del result.meta[card]
        result.meta["TRIMMED"] = True
    if regions.corrected:
        levels = overscan_image_level(lambda *section: ccd.data[section], regions, shape)
        result.data = np.asarray(result.data, np.result_type(result.data, np.float32))
        subtract_level(result.data, levels)
        result.meta["OVERSCOR"] = round(float(np.mean([level.mean() for *_, level in levels])), 3)
    return result


def _shift(ccd, regions):
    """Rows and columns by which the piece with the reference pixel moves."""

    def distance(piece):
        return sum(
            max(part.start - (value - 1), value - 1 - (part.stop - 1), 0)
            for part, value in zip(piece.image, (reference[1], reference[0]), strict=True)
        )

    reference = [ccd.meta.get(f"CRPIX{axis}") for axis in (1, 2)]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in reference):
        reference = [1, 1] if ccd.wcs is None else ccd.wcs.wcs.crpix
    piece = min(regions.parts(ccd.shape), key=distance)
    return tuple(a.start - b.start for a, b in zip(piece.image, piece.place, strict=True))


def _level(overscan, part, smooth):
    """Level of one overscan beside its piece: see `overscan_image_level`."""
    rows, columns = part.overscan
    axis = 1 if rows.stop - rows.start >= columns.stop - columns.start else 0
    along, wanted = (rows, part.image[0]) if axis == 1 else (columns, part.image[1])
    overscan = np.asarray(overscan, np.float32)
    good = np.isfinite(overscan)
    if not good.all():
        if not good.any():
            raise FrameError("the overscan has no finite pixel; correct its region.")
        overscan = np.where(good, overscan, np.median(overscan[good]))
    level = np.median(overscan, axis=axis)
    if along.start > wanted.start or along.stop < wanted.stop:
        level = np.full(wanted.stop - wanted.start, np.median(level))
    else:
        level = _running_mean(level, smooth)[wanted.start - along.start : wanted.stop - along.start]
    return np.expand_dims(level.astype(np.float32), axis)


def _running_mean(values, width):
    """Mean of the values around each; at the ends a line through as many."""
    half = (min(width, values.size) - 1) // 2
    if half < 1:
        return values
    x = np.arange(-half, half + 1)
    mean = ndimage.uniform_filter1d(values.astype(np.float64), 2 * half + 1, mode="nearest")
    for end, part in ((values[: x.size], slice(0, half)), (values[-x.size :], slice(-half, None))):
        slope = np.sum(x * end) / np.sum(x * x)
        mean[part] = np.mean(end, dtype=float) + slope * x[part]
    return mean
