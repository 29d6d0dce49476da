"""FITS files on disk: found in folders, opened for reading, checked to be whole."""

import gzip
import os
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

from astropy.io import fits

__all__ = ["find_files", "first_image", "is_fits_name", "open_quietly", "truncation"]

_FITS_NAME = re.compile(r".+\.(fits|fit|fts)(\.gz|\.fz)?|.+\.fz", re.I)


def is_fits_name(name):
    """Tell whether a file is a FITS file by its name.

    Parameters
    ----------
    name : str
        Name of the file.

    Returns
    -------
    bool
        True for ``.fits``, ``.fit``, ``.fts``, also with ``.gz`` or ``.fz``, and for ``.fz``; in
        upper or lower case.

    Examples
    --------
    >>> is_fits_name("M31.FIT"), is_fits_name("a.fits.gz"), is_fits_name("notes.txt")
    (True, True, False)
    """
    return _FITS_NAME.fullmatch(name) is not None


def find_files(*roots):
    """Find the FITS files of folders and their sub-folders.

    Parameters
    ----------
    *roots : pathlib.Path
        The folders. Hidden files and folders are passed over; links are followed, but no folder is
        read twice.

    Returns
    -------
    dict of str to pathlib.Path
        Paths by the names relative to their root, with ``/``; where two roots have the same name
        the second one begins with the name of its root.
    """
    files, seen = {}, set()
    for root in roots:
        for folder, folders, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # The second root, or a link back into the tree.
                folders[:] = []
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if is_fits_name(name) and not name.startswith("."):
                    path = Path(folder) / name
                    relative = path.relative_to(root).as_posix()
                    if relative in files:
                        relative = f"{root.name}/{relative}"
                    files[relative] = path
    return files


@contextmanager
def open_quietly(path):
    """Open a FITS file for reading, with the stored numbers, without warnings about its cards.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Yields
    ------
    astropy.io.fits.HDUList
        The open file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, mode="readonly", memmap=False, do_not_scale_image_data=True) as hdus:
            yield hdus


def first_image(hdus):
    """Find the first unit of an open file that holds an image.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
        The open file.

    Returns
    -------
    astropy.io.fits HDU or None
        The unit, or None where there is no image.
    """
    for hdu in hdus:
        if hdu.is_image and hdu.header.get("NAXIS", 0) > 0:
            return hdu
    return None


def truncation(path, hdu):
    """Tell whether a file is too short for what its header announces.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    hdu : astropy.io.fits HDU
        Its unit with the image.

    Returns
    -------
    str
        The reason; empty for a whole file.

    Raises
    ------
    EOFError, OSError
        Where a gzip stream ends too early or its check sum is wrong.
    """
    if path.suffix.lower() == ".gz":
        with gzip.open(path, "rb") as stream:  # The check sum is at the end of the stream.
            while stream.read(1 << 22):
                pass
        return ""
    size = path.stat().st_size
    place = hdu.fileinfo()
    # A compressed image is a table in the file; only its span in whole blocks (2880) is known.
    compressed = isinstance(hdu, fits.CompImageHDU)
    needed = place["datLoc"] + (place["datSpan"] - 2879 if compressed else hdu.size)
    if size >= needed:
        return ""
    return f"the file is truncated: {size} bytes, but its header announces {needed}; copy it again"
