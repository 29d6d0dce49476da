"""Writing images as a FITS file, in bands by several threads: large products are written often."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from astropy.io import fits

__all__ = ["write_images"]

#: FITS files are made of blocks of this many bytes.
_BLOCK = 2880
#: Bytes that are written at a time.
_BAND = 4_000_000


def write_images(images, path):
    """Write images into a new file, the first as the primary one.

    Parameters
    ----------
    images : sequence of (astropy.io.fits.Header, numpy.ndarray)
        Cards to write (those that describe the array are added) and data of shape (ny, nx), float32
        or uint16. Of the others the card EXTNAME gives the name.
    path : str or pathlib.Path
        The file; what is there is replaced.

    Notes
    -----
    The bytes are the same however many threads write them. Unsigned integers are stored with BZERO
    = 32768, as the standard says.
    """
    parts, start = [], 0
    for k, (header, data) in enumerate(images):
        text = _header(header, data, primary=k == 0, extend=len(images) > 1)
        parts.append((start, text, data))
        start += len(text) + -(-data.nbytes // _BLOCK) * _BLOCK
    path = Path(path)
    with path.open("wb") as stream:
        stream.truncate(start)  # What is not written below is zeros: the ends of the blocks.
        for begin, text, _ in parts:
            stream.seek(begin)
            stream.write(text)

    def write(job):
        place, band = job
        with path.open("r+b", buffering=0) as stream:
            stream.seek(place)
            view = memoryview(_stored(band)).cast("B")
            while len(view):
                view = view[stream.write(view) :]

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(write, _jobs(parts)))


def _jobs(parts):
    """Bands of all images: where each begins in the file, and its rows."""
    for start, text, data in parts:
        row = data.itemsize * data.shape[1]
        height = max(1, _BAND // row)
        for y in range(0, data.shape[0], height):
            yield start + len(text) + y * row, data[y : y + height]


def _stored(band):
    """Values as they are stored: big-endian, and unsigned integers less 32768."""
    if band.dtype == np.uint16:
        band = band ^ np.uint16(0x8000)
    return np.ascontiguousarray(band).byteswap()


def _header(header, data, *, primary, extend):
    """Header of an image as bytes, filled to whole blocks."""
    unsigned = data.dtype == np.uint16
    # The cards follow from type and shape; zeros that repeat one number need no memory.
    like = np.broadcast_to(np.zeros(1, np.int16 if unsigned else np.float32), data.shape)
    hdu = fits.PrimaryHDU(like, header) if primary else fits.ImageHDU(like, header)
    if primary and extend:
        hdu.header.set("EXTEND", True, after="NAXIS2")
    if unsigned:
        hdu.header.set("BSCALE", 1)
        hdu.header.set("BZERO", 32768)
    hdu.verify("silentfix+ignore")
    return hdu.header.tostring().encode("ascii")
