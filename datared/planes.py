"""Planes: data, faults and uncertainties of a frame, read by the part."""

from pathlib import Path

import numpy as np
from numba import njit

from .errors import FrameError
from .grids import shape_and_wcs
from .headerwcs import read_wcs
from .listing import open_quietly
from .pixels import NONFINITE
from .rows import FileRows, standard_deviation

__all__ = ["FramePlanes"]

_NOTHING, _NO_FLAGS = np.empty((0, 0), np.float32), np.empty((0, 0), np.uint16)
_LARGEST, _FINE, _NONFINITE = np.float32(3.4e38), np.uint16(0), np.uint16(NONFINITE)


class FramePlanes:
    """Data, flags and uncertainties of a frame in memory or in a file, by the part.

    Parameters
    ----------
    frame : str, pathlib.Path or astropy.nddata.CCDData
        FITS file with a WCS, as `datared.frames.write_product` writes it (of a file without the
        extensions MASK and UNCERT the pixels that are not finite are known to be bad); or a frame.

    Attributes
    ----------
    name : str
        Name of the file, for messages.
    shape : tuple of int
        ``(ny, nx)``.
    wcs : astropy.wcs.WCS
        Coordinates.
    meta : astropy.io.fits.Header
        Header.
    unit : astropy.units.Unit or str
        Unit of the pixels.
    has_errors : bool
        Whether there are uncertainties.

    Raises
    ------
    FrameError
        If it has no WCS, or the file is no image or its images differ in shape.
    """

    def __init__(self, frame):
        if isinstance(frame, str | Path):
            self.data = FileRows(frame)
            with open_quietly(frame) as hdus:
                there = [name for name in ("MASK", "UNCERT") if name in hdus]
            self.flags, self.errors = (
                FileRows(frame, extension=name) if name in there else None
                for name in ("MASK", "UNCERT")
            )
            self.name, self.meta, self.shape = self.data.name, self.data.header, self.data.shape
            for name, plane in zip(("MASK", "UNCERT"), (self.flags, self.errors), strict=True):
                if plane is not None and plane.shape != self.shape:
                    # The compiled loops would read other memory.
                    raise FrameError(
                        f"{self.name}: {name} has the shape {plane.shape}, the image {self.shape}; "
                        "reduce the frame again"
                    )
            self.unit = self.meta.get("BUNIT", "adu")
            _, self.wcs = shape_and_wcs(
                (self.shape, read_wcs(self.meta, self.shape)), name=self.name
            )
        else:
            self.shape, self.wcs = shape_and_wcs(frame)
            self.data, self.errors = frame.data, standard_deviation(frame.uncertainty)
            self.flags = frame.flags
            if self.flags is None and frame.mask is not None:
                self.flags = np.where(frame.mask, NONFINITE, 0)
            self.name, self.meta, self.unit = "this frame", frame.meta, frame.unit
        self.has_errors = self.errors is not None

    def read(self, rows, columns, *, sky=None, square=False):
        """Read a part of the frame.

        Parameters
        ----------
        rows, columns : slice
            The part, with its start and stop.
        sky : datared.skymesh.Surface, optional
            Sky to subtract; its ``fill(first, last)`` gives whole rows.
        square : bool
            Read variances instead of the data.

        Returns
        -------
        data : numpy.ndarray of float32
            A new array.
        flags : numpy.ndarray of uint16
            Bits of `datared.pixels`, a new array; `NONFINITE` also where the file does not say so.
        """
        plane = self.errors if square else self.data
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        level = _NOTHING
        if sky is not None and not square:
            level = np.ascontiguousarray(sky.fill(rows.start, rows.stop)[:, columns])
        if _is_plain(plane, ">f4", 0) and _is_plain(self.flags, ">i2", 32768):
            data, flags = np.empty(shape, np.float32), np.empty(shape, np.uint16)
            stored, bits = _stored(plane, rows, columns).view(np.uint32), _NO_FLAGS
            if self.flags is not None:
                bits = _stored(self.flags, rows, columns).view(np.uint16)
            _decode(stored, bits, level, data.view(np.uint32), data, flags)
        else:
            data, flags = _part(plane, rows, columns), np.zeros(shape, np.uint16)
            if level.size:
                data -= level
            if self.flags is not None:
                flags[:] = _part(self.flags, rows, columns)
            flags[~np.isfinite(data)] |= np.uint16(NONFINITE)
        return data * data if square else data, flags


def _is_plain(plane, dtype, zero):
    """Whether an image is stored in a file as products have it; or there is none."""
    if plane is None:
        return True
    plain = isinstance(plane, FileRows) and plane.unpacked is None and plane.dtype == dtype
    return plain and (plane.zero, plane.scale, plane.blank) == (zero, 1, None)


def _stored(plane, rows, columns):
    """Two slices of an image as it is stored in a file, as a new array."""
    if columns.stop - columns.start == plane.shape[1]:
        return plane.stored_rows(rows.start, rows.stop)
    # For this moment only, so that no more than the part counts as memory.
    try:
        whole = np.memmap(plane.path, plane.dtype, "r", plane.start, plane.shape)
    except ValueError as error:
        raise FrameError(f"{plane.name}: the file ends before its image does.") from error
    return np.array(whole[rows, columns], plane.dtype, order="C")


def _part(plane, rows, columns):
    """Two slices of a file's image or of an array, as a new array of float32."""
    if not isinstance(plane, FileRows):
        return np.array(plane[rows, columns], np.float32, order="C")
    if columns.stop - columns.start == plane.shape[1]:
        return plane.rows(rows.start, rows.stop)
    return plane.section(rows, columns)


@njit(cache=True, nogil=True)
def _decode(stored, stored_flags, sky, bits, data, flags):
    """Turn rows as they are in a file (big-endian) into data without sky, and flags.

    ``bits`` is the memory of ``data`` as whole numbers. Without flags in the file, or without sky,
    these have no rows.
    """
    for j in range(stored.shape[0]):
        raw, swapped = stored[j], bits[j]
        for i in range(raw.size):
            n = raw[i]
            swapped[i] = (n >> 24) | ((n >> 8) & 0xFF00) | ((n << 8) & 0xFF0000) | (n << 24)
        values, faults = data[j], flags[j]
        if sky.shape[0]:
            level = sky[j]
            for i in range(values.size):
                values[i] -= level[i]
        if stored_flags.shape[0]:
            raw_flags = stored_flags[j]
            for i in range(values.size):
                faults[i] = ((raw_flags[i] >> 8) | (raw_flags[i] << 8)) ^ 0x8000
        else:
            for i in range(values.size):
                faults[i] = 0
        for i in range(values.size):
            faults[i] |= _FINE if abs(values[i]) <= _LARGEST else _NONFINITE
