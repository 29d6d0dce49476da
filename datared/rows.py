"""Frames by the row: read a band of rows of each of many frames without holding the frames."""

import contextlib
import math
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData
from numba import njit

from .errors import FrameError
from .frames import read_frame

__all__ = ["ArrayRows", "FileRows", "open_rows"]


class ArrayRows:
    """Rows of an image in memory.

    Parameters
    ----------
    frame : array-like of shape (ny, nx) or astropy.nddata.CCDData
        The image. Masked pixels of a `CCDData` are given as NaN.
    name : str
        What to call it in messages.
    """

    def __init__(self, frame, *, name="array"):
        self.name = name
        self.data = np.asarray(getattr(frame, "data", frame))
        if isinstance(frame, np.ma.MaskedArray):
            self.data = frame.data
        if self.data.ndim != 2:
            raise FrameError(f"{name}: an image has 2 axes, this has shape {self.data.shape}.")
        mask = getattr(frame, "mask", None)
        self.mask = None if mask is None or mask is np.ma.nomask else np.asarray(mask, bool)
        self.errors = None
        if isinstance(frame, CCDData) and frame.uncertainty is not None:
            self.errors = np.sqrt(frame.uncertainty.represent_as(_variance()).array)
        self.shape = self.data.shape

    @property
    def step(self):
        """Smallest step between values: 1 where they are whole numbers, else 0."""
        if self.data.dtype.kind in "iub":
            return 1.0
        sample = self.data[self.shape[0] // 2]
        sample = sample[np.isfinite(sample)]
        # Raw counts that were turned into floats still have the step of the counts.
        return 1.0 if sample.size and np.array_equal(sample, np.rint(sample)) else 0.0

    def rows(self, start, stop):
        """Rows ``start`` to ``stop`` as float32, masked pixels NaN (a copy)."""
        band = self.data[start:stop].astype(np.float32)
        if self.mask is not None:
            band[self.mask[start:stop]] = np.nan
        return band

    def error_rows(self, start, stop):
        """Give the standard deviations of the rows, or None where the frame has none."""
        return None if self.errors is None else self.errors[start:stop].astype(np.float32)


class FileRows:
    """Rows of the first image in an uncompressed FITS file, read when asked for.

    Only the asked rows are read, and no memory is kept: a mapped file would count as resident.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.name = self.path.name
        with fits.open(self.path, memmap=True) as hdus:
            hdu = next((h for h in hdus if h.is_image and h.header.get("NAXIS", 0) > 0), None)
            if hdu is None or isinstance(hdu, fits.CompImageHDU):
                raise FrameError(f"{self.name}: no image that can be read by rows.")
            header = hdu.header
            if header["NAXIS"] != 2:
                raise FrameError(f"{self.name}: an image has 2 axes, this has {header['NAXIS']}.")
            self.start = hdu.fileinfo()["datLoc"]
            self.shape = (header["NAXIS2"], header["NAXIS1"])
            self.dtype = np.dtype({8: ">u1"}.get(header["BITPIX"], _big_endian(header["BITPIX"])))
            self.zero, self.scale = header.get("BZERO", 0.0), header.get("BSCALE", 1.0)
            self.blank = header.get("BLANK") if self.dtype.kind in "iu" else None
        if self.path.stat().st_size < self.start + math.prod(self.shape) * self.dtype.itemsize:
            raise FrameError(f"{self.name}: the file ends before its image does.")

    @property
    def step(self):
        """Smallest step between values: BSCALE for whole numbers, else 0."""
        return abs(float(self.scale)) if self.dtype.kind in "iu" else 0.0

    def rows(self, start, stop):
        """Rows ``start`` to ``stop`` as float32, blank pixels NaN."""
        nx = self.shape[1]
        offset = self.start + start * nx * self.dtype.itemsize
        raw = np.fromfile(self.path, self.dtype, (stop - start) * nx, offset=offset)
        if self.dtype == ">i2":
            band = np.empty(raw.size, np.float32)
            _decode(raw.view("<u2"), np.float32(self.scale), np.float32(self.zero), band)
        else:
            band = (raw * float(self.scale) + float(self.zero)).astype(np.float32)
        band = band.reshape(stop - start, nx)
        if self.blank is not None:
            band[(raw == self.blank).reshape(band.shape)] = np.nan
        return band

    def error_rows(self, start, stop):
        """None: raw files have no uncertainties."""
        return None


def open_rows(frame):
    """Rows of anything that holds a frame.

    Parameters
    ----------
    frame : str, pathlib.Path, array-like, astropy.nddata.CCDData or row source
        A file is read by bands of rows where its format allows it (FITS, not compressed), else it
        is read whole. A row source is any object with ``shape``, ``name``, ``step``,
        ``rows(start, stop)`` and ``error_rows(start, stop)``; it is returned as it is.

    Returns
    -------
    ArrayRows, FileRows or the row source
        Object with those five.

    Raises
    ------
    FrameError
        If the file or array is not an image with two axes.

    Examples
    --------
    >>> source = open_rows(np.arange(6, dtype=np.uint16).reshape(2, 3))
    >>> source.rows(1, 2)
    array([[3., 4., 5.]], dtype=float32)
    """
    if hasattr(frame, "rows") and hasattr(frame, "shape"):
        return frame
    if not isinstance(frame, str | Path):
        return ArrayRows(frame)
    if Path(frame).suffix.lower() in (".fits", ".fit", ".fts"):
        with contextlib.suppress(FrameError, OSError):
            return FileRows(frame)
    # Compressed, or strange: the room of frames reads it whole, or says what is wrong. Saturated
    # pixels are values here, as they are in a file that is read by rows.
    return ArrayRows(read_frame(frame).data, name=Path(frame).name)


@njit(cache=True, nogil=True)
def _decode(raw, scale, zero, out):
    """Big-endian 16-bit integers to physical values, in one pass."""
    for i in range(raw.size):
        swapped = np.int16(np.uint16((raw[i] << 8) & 0xFFFF) | (raw[i] >> 8))
        out[i] = np.float32(swapped) * scale + zero


def _big_endian(bitpix):
    """Give the data type of FITS for a BITPIX."""
    return f">{'f' if bitpix < 0 else 'i'}{abs(bitpix) // 8}"


def _variance():
    """Class of variances, loaded late because few frames have any."""
    from astropy.nddata import VarianceUncertainty

    return VarianceUncertainty
