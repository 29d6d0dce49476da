"""Frames by the row: read a band of rows of each of many frames without holding the frames."""

import gzip
import math
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from numba import njit

from .errors import FrameError
from .listing import first_image, open_quietly

__all__ = ["ArrayRows", "FileRows", "open_rows", "sample_bands", "standard_deviation"]

#: A frame of at most this many bytes is its own sample; that of a larger one has so many bytes, in
#: so many bands of rows.
WHOLE_BYTES, SAMPLE_BYTES, SAMPLE_BANDS = 4e6, 5e5, 16


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
            self.errors = standard_deviation(frame.uncertainty)
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
        band = np.empty((stop - start, self.shape[1]), np.float32)
        self.fill(band, start, stop)
        return band

    def fill(self, out, start, stop, factor=1.0):
        """Put the rows, times a factor, into an array."""
        np.multiply(self.data[start:stop], np.float32(factor), out=out, casting="unsafe")
        if self.mask is not None:
            out[self.mask[start:stop]] = np.nan

    def error_rows(self, start, stop):
        """Give the standard deviations of the rows, or None where the frame has none."""
        return None if self.errors is None else self.errors[start:stop].astype(np.float32)


class FileRows:
    """Rows of an image in a FITS file, read when asked for.

    Only the asked rows are read, and nothing is mapped (a mapped file would count as resident).
    Compressed files are unpacked once, into a temporary file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    extension : str, optional
        Name of the extension; by default the first image.

    Attributes
    ----------
    header : astropy.io.fits.Header
        Header of the image.
    shape : tuple of int
        ``(ny, nx)``.
    """

    def __init__(self, path, *, extension=None):
        self.path = Path(path)
        self.name = self.path.name
        self.kept = []
        self.unpacked, self.lock = None, threading.Lock()
        try:
            with open_quietly(self.path) as hdus:
                hdu = first_image(hdus) if extension is None else hdus[extension]
                if hdu is None:
                    raise FrameError(f"{self.name}: there is no image in this file")
                self._describe(hdu)
        except FrameError:
            raise
        except Exception as error:  # A damaged file raises many kinds of errors.
            raise FrameError(f"{self.name}: cannot be read ({error})") from error
        size = self.start + math.prod(self.shape) * self.dtype.itemsize
        if self.unpacked is None and self.path.stat().st_size < size:
            raise FrameError(f"{self.name}: the file ends before its image does.")

    def _describe(self, hdu):
        """Take over what is needed of an open image."""
        self.header = hdu.header.copy()
        for card in self.header.cards:
            try:
                _ = card.value
            except fits.VerifyError:
                # One unreadable card, such as a text without quotes, must not lose the frame.
                card.verify("silentfix")
        if self.header["NAXIS"] != 2:
            raise FrameError(
                f"{self.name}: the image has {self.header['NAXIS']} axes; split it into images "
                "with 2 axes"
            )
        bits = self.header["BITPIX"]
        kind = "u1" if bits == 8 else f"{'f' if bits < 0 else 'i'}{abs(bits) // 8}"
        self.dtype = np.dtype(f">{kind}")
        self.shape = (self.header["NAXIS2"], self.header["NAXIS1"])
        self.zero, self.scale = (
            float(self.header.get(key, value)) for key, value in (("BZERO", 0), ("BSCALE", 1))
        )
        self.blank = self.header.get("BLANK", self.header.get("ZBLANK"))
        if self.dtype.kind == "f":
            self.blank = None
        self.start = 0
        if isinstance(hdu, fits.CompImageHDU):
            self._unpack_into_file()
            np.ascontiguousarray(hdu.data, self.dtype).tofile(self.unpacked)
        elif self.path.suffix.lower() == ".gz":
            self._unpack_into_file()
            with gzip.open(self.path, "rb") as stream:
                stream.seek(hdu.fileinfo()["datLoc"])
                shutil.copyfileobj(stream, self.unpacked)
        else:
            self.start = hdu.fileinfo()["datLoc"]

    def _unpack_into_file(self):
        """Open the temporary file, which goes away with this object."""
        self.unpacked = tempfile.TemporaryFile()
        weakref.finalize(self, self.unpacked.close)

    @property
    def step(self):
        """Smallest step between values: BSCALE for whole numbers, else 0."""
        return abs(self.scale) if self.dtype.kind in "iu" else 0.0

    def stored_rows(self, start, stop):
        """Rows ``start`` to ``stop`` as they are stored (big-endian, not scaled)."""
        raw = np.empty((stop - start, self.shape[1]), self.dtype)
        place = start
        for first, band in self.kept:
            a, b = max(first, place), min(first + len(band), stop)
            if a >= b:
                continue
            self._read(raw[place - start : a - start], place)
            raw[a - start : b - start] = band[a - first : b - first]
            place = b
        self._read(raw[place - start :], place)
        return raw

    def keep(self, bands):
        """Read bands of rows, ``(start, stop)`` in ascending order, and hold them.

        They are not read again. What was held before is forgotten.
        """
        self.kept = [(start, self.stored_rows(start, stop)) for start, stop in bands]

    def rows(self, start, stop):
        """Rows ``start`` to ``stop`` as float32, blank pixels NaN."""
        band = np.empty((stop - start, self.shape[1]), np.float32)
        self.fill(band, start, stop)
        return band

    def section(self, rows, columns):
        """Pixels of two slices, as `rows` gives them; what lies beside them is not read."""
        raw = np.empty((rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        with self.path.open("rb", buffering=0) as own, self.lock:
            stream = own if self.unpacked is None else self.unpacked
            for row, values in zip(range(rows.start, rows.stop), raw, strict=True):
                place = self.start + (row * self.shape[1] + columns.start) * self.dtype.itemsize
                buffer = memoryview(values.view(np.uint8))
                if _fill(stream, place, buffer) < len(buffer):
                    raise FrameError(f"{self.name}: the file ends before its image does.")
        out = np.empty(raw.shape, np.float32)
        self._decode_into(raw, out, 1.0)
        return out

    def fill(self, out, start, stop, factor=1.0):
        """Put the rows, times a factor, into an array."""
        if self.dtype == ">f4" and self.zero == 0 and not self.kept and out.flags.c_contiguous:
            # Read where they are wanted: fresh memory costs more than swapping bytes.
            self._read(out.view(">f4"), start)
            out.byteswap(inplace=True)
            out *= np.float32(self.scale * factor)
            return
        self._decode_into(self.stored_rows(start, stop), out, factor)

    def _decode_into(self, raw, out, factor):
        """Put the values of stored numbers, times a factor, into an array."""
        scale, zero = self.scale * factor, self.zero * factor
        if self.dtype == ">i2":
            stored = raw.view("<u2").reshape(-1)
            _decode(stored, np.float32(scale), np.float32(zero), out.reshape(-1))
        elif self.dtype == ">f4" and zero == 0:
            # Swapping first is faster than letting numpy do it number by number.
            np.multiply(raw.byteswap(inplace=True).view("<f4"), np.float32(scale), out=out)
        else:
            out[:] = raw * scale + zero  # Doubles, until the result is known.
        if self.blank is not None:
            out[raw == self.blank] = np.nan

    def error_rows(self, start, stop):
        """None: raw files have no uncertainties."""
        return None

    def _read(self, raw, row):
        """Fill an array with the stored rows from ``row`` on."""
        if raw.size == 0:
            return
        offset = self.start + row * self.shape[1] * self.dtype.itemsize
        buffer = memoryview(raw.view(np.uint8).reshape(-1))
        if self.unpacked is None:
            with self.path.open("rb", buffering=0) as stream:
                number = _fill(stream, offset, buffer)
        else:
            with self.lock:  # Bands are read by several threads, and a file has one position.
                number = _fill(self.unpacked, offset, buffer)
        if number < len(buffer):
            raise FrameError(f"{self.name}: the file ends before its image does.")


def open_rows(frame):
    """Rows of anything that holds a frame.

    Parameters
    ----------
    frame : str, pathlib.Path, array-like, astropy.nddata.CCDData or row source
        Of a file, rows are read when they are asked for. A row source is any object with ``shape``,
        ``name``, ``step``, ``rows(start, stop)``, ``fill(out, start, stop, factor)`` and
        ``error_rows(start, stop)``; it is returned as it is.

    Returns
    -------
    ArrayRows, FileRows or the row source
        Object with those six.

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
    return FileRows(frame) if isinstance(frame, str | Path) else ArrayRows(frame)


def sample_bands(shape, *, most=math.inf):
    """Bands of rows, spread over a frame, from which its level and noise can be told.

    Parameters
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    most : float
        Bytes that all bands together may have at two bytes for a pixel; a frame with fewer, and
        with at most 4 MB, is one band. Of a larger one half a MB is taken.

    Returns
    -------
    list of (int, int)
        First row of each band and the row after its last.

    Examples
    --------
    >>> sample_bands((100, 100))
    [(0, 100)]
    >>> len(sample_bands((4000, 6000))), sample_bands((4000, 6000))[-1]
    (16, (3874, 3876))
    """
    ny, nx = shape
    if 2 * ny * nx <= min(most, WHOLE_BYTES):
        return [(0, ny)]
    height = max(1, int(min(most, SAMPLE_BYTES) / (SAMPLE_BANDS * nx * 2)))
    if ny <= SAMPLE_BANDS * height:
        return [(0, ny)]
    middles = (np.arange(SAMPLE_BANDS) + 0.5) * ny / SAMPLE_BANDS
    return [(start, start + height) for start in (middles - height / 2).astype(int).tolist()]


def standard_deviation(uncertainty):
    """Give the standard deviations of an uncertainty of any kind, without a copy where it has them.

    Parameters
    ----------
    uncertainty : astropy.nddata.NDUncertainty or None
        Such as `CCDData.uncertainty`.

    Returns
    -------
    numpy.ndarray or None
        Standard deviations in the unit of the data; None for None.
    """
    if uncertainty is None or isinstance(uncertainty, StdDevUncertainty):
        return None if uncertainty is None else uncertainty.array
    return uncertainty.represent_as(StdDevUncertainty).array


def _fill(stream, offset, buffer):
    """Read into a buffer from a place of a file; how many bytes there were."""
    stream.seek(offset)
    total = 0
    while total < len(buffer):
        number = stream.readinto(buffer[total:])
        if not number:
            break
        total += number
    return total


@njit(cache=True, nogil=True)
def _decode(raw, scale, zero, out):
    """Big-endian 16-bit integers to physical values, in one pass."""
    for i in range(raw.size):
        swapped = np.int16(np.uint16((raw[i] << 8) & 0xFFFF) | (raw[i] >> 8))
        out[i] = np.float32(swapped) * scale + zero
