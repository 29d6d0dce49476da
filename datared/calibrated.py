"""Calibrated frames by the row: raw rows without overscan, bias and dark; rows of masters."""

import math
import threading
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData

from . import pixels
from .errors import FrameError
from .levels import saturation_level
from .overscan import cut_rows, find_regions, overscan_image_level, subtract_level
from .rows import FileRows, open_rows, sample_bands, standard_deviation

__all__ = ["CalibratedRows", "MasterRows", "exposure_time", "open_master"]

#: Bands of a master that are remembered: the same one is needed for each frame of a stack.
_REMEMBERED = 8


class MasterRows:
    """Rows of a master: its values, their standard deviations and its flags.

    Parameters
    ----------
    master : str, pathlib.Path or astropy.nddata.CCDData
        File of a product, of which only the asked rows are read, or a frame in memory.

    Attributes
    ----------
    meta : astropy.io.fits.Header or dict
        Header.
    shape : tuple of int
        ``(ny, nx)``.
    name : str
        What to call it in messages: its file where it has one, else its kind.
    """

    def __init__(self, master):
        self.bands, self.lock = {}, threading.Lock()
        if isinstance(master, CCDData):
            self.meta, self.shape = master.meta, master.shape
            sigma = standard_deviation(master.uncertainty)
            self.planes = [np.asarray(master.data, np.float32), sigma, _flags(master)]
        else:
            data = FileRows(master)
            self.meta, self.shape = data.header, data.shape
            self.planes = [data, _plane(master, "UNCERT"), _plane(master, "MASK")]
        self.name = str(self.meta.get("MASTER") or self.meta.get("KIND", ""))
        if not self.name and not isinstance(master, CCDData):
            self.name = Path(master).name

    def load(self, *, errors=True):
        """Read the whole master into memory, its errors only if they are wanted; returns itself."""
        whole = (0, self.shape[0])
        values, flags = self.rows(*whole), self.flag_rows(*whole)
        flags = None if flags is None or not flags.any() else flags
        self.planes = [values, self.error_rows(*whole) if errors else None, flags]
        self.bands.clear()
        return self

    def rows(self, start, stop):
        """Values of rows ``start`` to ``stop``, float32; not to be changed."""
        return self._band(0, start, stop)

    def error_rows(self, start, stop):
        """Give the standard deviations, float32, or None. They are NaN where nothing tells them."""
        return self._band(1, start, stop)

    def flag_rows(self, start, stop):
        """Give the flags, uint16, or None."""
        return self._band(2, start, stop)

    def _band(self, plane, start, stop):
        """Rows of one plane; those of a file are remembered for a while."""
        source = self.planes[plane]
        if source is None:
            return None
        if isinstance(source, np.ndarray):
            return source[start:stop]
        band = self.bands.get((plane, start, stop))
        if band is None:
            band = source.rows(start, stop) if plane < 2 else _bits(source, start, stop)
            with self.lock:  # Several threads ask, and a dictionary must not change under next.
                while len(self.bands) >= 3 * _REMEMBERED:
                    self.bands.pop(next(iter(self.bands)))
                self.bands[plane, start, stop] = band
        return band


def open_master(master, shape, *, name="frame"):
    """Rows of a master that must have the shape of a frame.

    Parameters
    ----------
    master : None, str, pathlib.Path, astropy.nddata.CCDData or MasterRows
        The master; None where there is none.
    shape : tuple of int
        Shape of the trimmed frame. Another one is refused, also one that numpy would stretch.
    name : str
        What to call the frame in messages.

    Returns
    -------
    MasterRows or None
        The master.

    Raises
    ------
    FrameError
        If the shapes differ.
    """
    if master is None:
        return None
    master = master if isinstance(master, MasterRows) else MasterRows(master)
    if tuple(master.shape) != tuple(shape):
        raise FrameError(
            f"{name} has shape {tuple(shape)} and the master {master.name} has "
            f"{tuple(master.shape)}: they are of different set-ups."
        )
    return master


class CalibratedRows:
    """Rows of a raw frame without overscan, borders, bias and dark: a row source for `combine`.

    Parameters
    ----------
    frame : str, pathlib.Path or astropy.nddata.CCDData
        The raw frame.
    camera : Camera, optional
        Overscan and trim sections.
    bias, dark : MasterRows, str, pathlib.Path or astropy.nddata.CCDData, optional
        Masters to subtract.
    dark_scale : float
        Factor of the dark.
    most : float
        Bytes of the raw frame that may be held, so that a part which is looked at first (for the
        level, or for the overscan) is not read again.
    """

    def __init__(self, frame, *, camera=None, bias=None, dark=None, dark_scale=1.0, most=4e6):
        self.source = open_rows(frame)
        self.frame, self.camera, self.name = frame, camera, self.source.name
        self.header = frame.meta if isinstance(frame, CCDData) else self.source.header
        self.step = self.source.step
        self.regions = find_regions(self.header, self.source.shape, camera=camera)
        self.shape = self.regions.shape(self.source.shape)
        self.dark_scale = np.float32(dark_scale)
        self.bias = open_master(bias, self.shape, name=self.name)
        self.dark = open_master(dark, self.shape, name=self.name)
        self.most, self.levels = most, None
        if self.dark is not None and bias is not None and self.dark.meta.get("BIASCOR") is False:
            raise FrameError(
                f"{self.name}: the dark contains the bias (BIASCOR = F), which would be subtracted "
                "twice; make the master dark with the master bias."
            )

    @property
    def saturation(self):
        """Raw level (ADU) that counts as saturated, or None where nothing tells it."""
        return saturation_level(self.source, header=self.header, camera=self.camera)

    def rows(self, start, stop):
        """Calibrated rows; where a master has no value neither have they."""
        band = np.empty((stop - start, self.shape[1]), np.float32)
        self.fill(band, start, stop)
        return band

    def fill(self, out, start, stop, factor=1.0):
        """Put the calibrated rows, times a factor, into an array."""
        if self.regions.trimmed:
            out[:] = self._cut(start, stop)
        else:
            self.source.fill(out, start, stop)
        if self.regions.corrected:
            subtract_level(out, self._overscan(), start=start)
        if self.bias is not None:
            out -= self.bias.rows(start, stop)
        if self.dark is not None:
            out -= self.dark_scale * self.dark.rows(start, stop)
        if factor != 1:
            out *= np.float32(factor)

    def error_rows(self, start, stop):
        """None: the scatter between frames is the error."""
        return None

    def image(self):
        """All rows."""
        return self.rows(0, self.shape[0])

    def sample(self):
        """Rows spread over the frame, from which its level and noise can be told.

        Returns
        -------
        raw, calibrated : numpy.ndarray of float32, shape (rows, nx)
            The same rows as they are (trimmed), and calibrated. All rows of a small frame.
        """
        bands = self._hold()
        raw = [self._cut(start, stop) for start, stop in bands]
        return np.concatenate(raw), np.concatenate([self.rows(a, b) for a, b in bands])

    def _cut(self, start, stop):
        """Rows of the trimmed image, raw."""
        source, regions = self.source, self.regions
        return cut_rows(source.rows, regions, source.shape, start=start, stop=stop)

    def _hold(self):
        """Bands of the sample, which the source holds from now on."""
        bands = sample_bands(self.shape, most=self.most)
        if isinstance(self.source, FileRows) and not self.source.kept:
            if bands == [(0, self.shape[0])]:
                self.source.keep([(0, self.source.shape[0])])
            else:
                wanted = set()
                for part in self.regions.parts(self.source.shape):
                    above = part.image[0].start - part.place[0].start
                    for start, stop in bands:
                        a, b = max(start, part.place[0].start), min(stop, part.place[0].stop)
                        wanted |= {(a + above, b + above)} if a < b else set()
                self.source.keep(sorted(wanted))
        return bands

    def _overscan(self):
        """Levels of the overscan, measured once."""
        if self.levels is None:
            self._hold()

            def section(rows, columns):
                if isinstance(self.source, FileRows):
                    return self.source.section(rows, columns)
                return self.source.rows(rows.start, rows.stop)[:, columns]

            self.levels = overscan_image_level(section, self.regions, self.source.shape)
        return self.levels


def exposure_time(header):
    """Exposure time (s) in a header, NaN where there is none.

    Parameters
    ----------
    header : Mapping
        Header.

    Returns
    -------
    float
        Seconds.
    """
    for card in ("EXPTIME", "EXPOSURE"):
        if isinstance(header.get(card), int | float):
            return float(header[card])
    return math.nan


def _plane(path, name):
    """Rows of an extension, or None where there is none."""
    try:
        return FileRows(path, extension=name)
    except FrameError:
        return None


def _bits(source, start, stop):
    """Give the flags as they are: whole numbers of 16 bits, stored with an offset."""
    stored = source.stored_rows(start, stop)
    if source.dtype == ">i2" and source.zero == 32768:
        return stored.byteswap().view("<u2") ^ np.uint16(0x8000)
    return (stored.astype(np.int64) + int(source.zero)).astype(np.uint16)


def _flags(master):
    """Give the flags of a master in memory; a mask without flags counts as dead."""
    if master.flags is not None:
        return np.asarray(master.flags, np.uint16)
    if master.mask is None:
        return None
    return pixels.DEAD * np.asarray(master.mask, bool).astype(np.uint16)
