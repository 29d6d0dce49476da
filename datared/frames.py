"""Frames on disk: raw ones are read, products are written and read. No raw file is ever changed."""

import logging
import re
import warnings
from contextlib import contextmanager

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyWarning

from .errors import FrameError
from .fitswriter import write_images
from .headerwcs import WCS_CARDS, read_wcs
from .levels import saturation_level
from .listing import count_groups, inventory, product_name, select_lights
from .pixels import NONFINITE, OUTSIDE, SATURATED, saturation_mask
from .products import atomic_path
from .rows import FileRows, standard_deviation

__all__ = [
    "ascii_text",
    "count_groups",
    "inventory",
    "product_name",
    "read_frame",
    "read_product",
    "select_lights",
    "write_product",
]

log = logging.getLogger("datared.frames")

_SCALING = ("BZERO", "BSCALE", "BLANK", "ZBLANK", "O_BZERO")
_STRUCTURE = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|XTENSION|PCOUNT|GCOUNT|GROUPS|BZERO|BSCALE|BLANK|ZBLANK|O_BZERO|"
    r"CHECKSUM|DATASUM|EXTNAME|EXTVER|INHERIT|END|Z(IMAGE|BITPIX|NAXIS\d*|TILE\d+|CMPTYPE|NAME\d+|"
    r"VAL\d+|QUANTIZ|DITHER0|SIMPLE|EXTEND|PCOUNT|GCOUNT|TENSION|HECKSUM|DATASUM)"
)
_TIME_CARDS = re.compile(r"DATE.*|MJD.*|TIMESYS|TELAPSE|XPOSURE|OBSGEO.*")


def read_frame(path, *, camera=None):
    """Read one raw frame.

    The values are converted before anything is subtracted: raw frames are mostly unsigned 16-bit
    integers, which wrap around at 0 (100 - 110 gives 65526).

    Parameters
    ----------
    path : str or pathlib.Path
        FITS file, also compressed (``.fz``, ``.gz``); its first image is read.
    camera : Camera, optional
        Its ``saturation`` (ADU) decides which pixels are saturated; else the header's SATURATE;
        else 98 % of the largest value of the file's integer type.

    Returns
    -------
    astropy.nddata.CCDData
        ``data`` float32, shape (ny, nx), in adu; ``flags`` uint16 bits of `datared.pixels`
        (``NONFINITE``, and ``SATURATED`` with trails and neighbours, see `saturation_mask` there);
        ``mask`` where any bit is set; ``meta`` a copy of the header without the cards that scaled
        the integers; ``wcs`` if it is a celestial one, else None.

    Raises
    ------
    FrameError
        If there is no image with two axes, or the file is damaged.
    """
    source = FileRows(path)
    header = source.header
    data = source.rows(0, source.shape[0])
    flags = np.zeros(data.shape, dtype=np.uint16)
    if source.dtype.kind == "f" or source.blank is not None:
        flags[~np.isfinite(data)] |= np.uint16(NONFINITE)
    level = saturation_level(source, camera=camera)
    if level is not None:
        flags[saturation_mask(data, level=np.float32(level))] |= np.uint16(SATURATED)
    for card in _SCALING:
        header.remove(card, ignore_missing=True, remove_all=True)
    return CCDData(
        data,
        unit=u.adu,
        mask=flags != 0,
        flags=flags,
        meta=header,
        wcs=read_wcs(header, data.shape),
    )


def write_product(ccd, path, *, header_cards=None):
    """Write a product, whole or not at all; the same input gives the same bytes.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Image. Its ``flags`` (uint16 bits) are written; a mask without flags is written as
        ``NONFINITE`` where the data are not finite and ``OUTSIDE`` elsewhere.
    path : str or pathlib.Path
        FITS file, replaced if it is there.
    header_cards : dict, optional
        Cards to set, ``{"NCOMBINE": 9}`` or ``{"NCOMBINE": (9, "frames combined")}``; they win over
        those of ``ccd.meta``. NaN and None are written as undefined cards.

    Notes
    -----
    The primary image is float32 with the cards of ``ccd.meta``, the unit in BUNIT, and the full
    world coordinates of ``ccd.wcs`` with their distortion (SIP). Extension MASK has the bits
    (uint16), UNCERT the standard deviation (float32) if there is an uncertainty.
    """
    header = _kept_cards(ccd.meta, replaced=WCS_CARDS if ccd.wcs is not None else None)
    with _quiet():
        if ccd.wcs is not None:
            for card in ccd.wcs.to_header(relax=True).cards:  # Without relax the SIP is lost.
                if not _TIME_CARDS.fullmatch(card.keyword):
                    header[card.keyword] = (card.value, card.comment)
        header["BUNIT"] = (ccd.unit.to_string(), "unit of the pixels")
        for key, entry in (header_cards or {}).items():
            value, comment = entry if isinstance(entry, tuple) else (entry, None)
            name = key if len(key) <= 8 else f"HIERARCH {key}"
            header[name] = (_card_value(value), comment)
        images = [(header, np.asarray(ccd.data, dtype=np.float32))]
        images.append((fits.Header({"EXTNAME": "MASK"}), _bits(ccd)))
        if ccd.uncertainty is not None:
            sigma = np.asarray(standard_deviation(ccd.uncertainty), dtype=np.float32)
            images.append((fits.Header({"EXTNAME": "UNCERT"}), sigma))
        with atomic_path(path) as temporary:
            write_images(images, temporary)


def read_product(path):
    """Read a product that `write_product` wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        FITS file.

    Returns
    -------
    astropy.nddata.CCDData
        ``data`` float32, ``flags`` uint16, ``mask`` (any bit set), ``uncertainty`` (standard
        deviation, or None), ``meta`` and ``wcs`` (None where there is no celestial one).

    Raises
    ------
    FrameError
        If the file is missing or damaged.
    """
    try:
        with _quiet(), fits.open(path, memmap=False) as hdus:
            header = hdus[0].header.copy()
            data = np.ascontiguousarray(hdus[0].data, dtype=np.float32)
            flags = sigma = None
            if "MASK" in hdus:
                flags = np.ascontiguousarray(hdus["MASK"].data, dtype=np.uint16)
            if "UNCERT" in hdus:
                sigma = np.ascontiguousarray(hdus["UNCERT"].data, dtype=np.float32)
    except Exception as error:  # As in read_frame.
        raise FrameError(f"{path}: cannot be read ({error})") from error
    if flags is None:
        flags = np.where(np.isfinite(data), 0, NONFINITE).astype(np.uint16)
    return CCDData(
        data,
        unit=_unit(header.get("BUNIT", "adu")),
        flags=flags,
        mask=flags != 0,
        uncertainty=None if sigma is None else StdDevUncertainty(sigma, copy=False),
        meta=header,
        wcs=read_wcs(header, data.shape),
    )


def _unit(text):
    """Read a unit: units have their own capitals (Jy), and other programs write ADU."""
    try:
        return u.Unit(str(text))
    except ValueError:
        return u.Unit(str(text).lower())


@contextmanager
def _quiet():
    """Without the warnings about other programs' headers: nobody can act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


def _kept_cards(meta, *, replaced=None):
    """Header with the cards of ``meta`` that FITS can hold and that still describe the data."""
    header = fits.Header()
    cards = meta.cards if isinstance(meta, fits.Header) else fits.Header(meta).cards
    with _quiet():
        for card in cards:
            try:
                card.verify("silentfix")
                keyword, value, comment = card.keyword, card.value, card.comment
                if _STRUCTURE.fullmatch(keyword) or (replaced and replaced.fullmatch(keyword)):
                    continue
                if not keyword and not str(value).strip():
                    continue  # Blank cards only keep room for others.
                name = keyword if len(keyword) <= 8 else f"HIERARCH {keyword}"
                kept = fits.Card(name, _card_value(value), ascii_text(comment))
                str(kept)  # Formatting is what fails for a card outside the standard.
                header.append(kept, end=True)
            except Exception as error:
                log.warning("a header card is left out, it is not valid FITS: %s", error)
    return header


def _card_value(value):
    """Value as FITS can hold it: no NaN, no letters outside ASCII, no numpy types."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return fits.card.Undefined()
    return ascii_text(value) if isinstance(value, str) else value


def ascii_text(text):
    """Text with a question mark for every letter that FITS does not know.

    Parameters
    ----------
    text : object
        Any text.

    Returns
    -------
    str
        Printable ASCII.
    """
    text = str(text).encode("ascii", "replace").decode("ascii")
    return re.sub(r"[^\x20-\x7e]", " ", text)


def _bits(ccd):
    """Bits (uint16) of an image's flags, or of its mask where it has no flags."""
    if ccd.flags is not None:
        return np.asarray(ccd.flags, dtype=np.uint16)
    bits = np.zeros(ccd.shape, dtype=np.uint16)
    if ccd.mask is not None:
        bits[np.asarray(ccd.mask, dtype=bool) & np.isfinite(ccd.data)] = OUTSIDE
    bits[~np.isfinite(ccd.data)] = NONFINITE
    return bits
