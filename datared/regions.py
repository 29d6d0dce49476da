"""Regions of a raw frame: where its image and its overscan are, said by header or night file.

A sensor may be read by several amplifiers into one frame, each with an overscan of its own, at the
edge or between their images. So the image is a mosaic of pieces; most frames have one.
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np

from .errors import FrameError

__all__ = ["Piece", "Regions", "find_regions", "parse_section"]

_SECTION = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]")

#: What some cameras write where there is no such region.
_NO_SECTION = re.compile(r"\[?\s*0\s*:\s*0\s*,\s*0\s*:\s*0\s*\]?|unknown|none|n/?a", re.I)


@dataclass(frozen=True)
class Piece:
    """A rectangle of the image that one amplifier read.

    Parameters
    ----------
    image : tuple of (slice, slice)
        Its rows and columns in the raw frame.
    place : tuple of (slice, slice)
        Its rows and columns in the trimmed image.
    overscan : tuple of (slice, slice) or None
        Rows and columns of its overscan in the raw frame.
    """

    image: tuple
    place: tuple
    overscan: tuple | None = None


@dataclass(frozen=True)
class Regions:
    """Where image and overscan are in a raw frame.

    Parameters
    ----------
    trim, overscan : tuple of (slice, slice) or None
        Rows and columns, as numpy indexes them; None where there is no such region.
    pieces : tuple of Piece
        What several amplifiers read; then ``trim`` and ``overscan`` are None.
    """

    trim: tuple | None = None
    overscan: tuple | None = None
    pieces: tuple = ()

    @property
    def trimmed(self):
        """Whether borders are cut off."""
        return bool(self.pieces) or self.trim is not None

    @property
    def corrected(self):
        """Whether an overscan is subtracted."""
        return any(piece.overscan for piece in self.pieces) or self.overscan is not None

    def parts(self, shape):
        """Pieces of the image, one at least, in a raw frame of that shape."""
        if self.pieces:
            return self.pieces
        image = self.trim or (slice(0, shape[0]), slice(0, shape[1]))
        place = tuple(slice(0, part.stop - part.start) for part in image)
        return (Piece(image, place, self.overscan),)

    def shape(self, shape):
        """Shape of the image in a raw frame of that shape."""
        places = [part.place for part in self.parts(shape)]
        return tuple(max(place[axis].stop for place in places) for axis in (0, 1))


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

    The camera of the night file comes first: its amplifiers, else its trim and overscan. Then the
    header, for what the camera does not say: the cards of several amplifiers, else TRIMSEC and
    BIASSEC, else DATASEC for the image (left alone where it does not fit, because some cameras
    count unbinned pixels).

    The cards of several amplifiers are those of IRAF's quadformat (TSEC11 or DSEC11 for the image,
    BSEC11 for the overscan, with the labels that AMPLIST lists), or TRIMSEC1 or DATASEC1 with
    BIASSEC1, and so on. Where all have the same image section they describe extensions of another
    file, and are left alone.

    Parameters
    ----------
    header : Mapping
        Header of the raw frame. A frame that was trimmed already (card TRIMMED) has no regions.
    shape : tuple of int
        Shape of the raw frame, ``(ny, nx)``.
    camera : Camera, optional
        With ``trim`` and ``overscan`` as FITS sections or None, and ``amplifiers``, each with
        ``image`` and ``overscan``. A trim cuts what the amplifiers read.

    Returns
    -------
    Regions
        The regions.

    Raises
    ------
    FrameError
        If a region is not inside the frame, or the images of the amplifiers make no rectangle.

    Examples
    --------
    >>> header = {"DATASEC1": "[1:4,1:8]", "BIASSEC1": "[5:6,1:8]",
    ...           "DATASEC2": "[9:12,1:8]", "BIASSEC2": "[7:8,1:8]"}
    >>> find_regions(header, (8, 12)).shape((8, 12))
    (8, 8)
    """
    if header.get("TRIMMED"):
        return Regions()
    trim = _region(camera, "trim", header, "TRIMSEC", shape)
    own = getattr(camera, "amplifiers", ())
    if own:
        amplifiers = [
            (
                f"camera.amplifiers[{i}].image",
                one.image,
                f"camera.amplifiers[{i}].overscan",
                one.overscan,
            )
            for i, one in enumerate(own)
        ]
        # What the header trims was not meant for the sections of the night file.
        trim = _region(camera, "trim", {}, "TRIMSEC", shape)
        return Regions(pieces=_pieces(amplifiers, trim, shape))
    if not getattr(camera, "overscan", None):
        amplifiers = _header_amplifiers(header)
        if amplifiers:
            return Regions(pieces=_pieces(amplifiers, trim, shape))
    if trim is None and header.get("DATASEC"):
        try:
            trim = parse_section(header["DATASEC"], shape, name="DATASEC")
        except FrameError:
            trim = None
    if trim == (slice(0, shape[0]), slice(0, shape[1])):
        trim = None
    return Regions(trim, _region(camera, "overscan", header, "BIASSEC", shape))


def _region(camera, key, header, card, shape):
    """Slices of a region from the camera, or else from the header; None where there is none."""
    own = getattr(camera, key, None)
    text = own or str(header.get(card, "")).strip()
    if not own and _NO_SECTION.fullmatch(text):
        return None
    return parse_section(text, shape, name=f"camera.{key}" if own else card) if text else None


def _header_amplifiers(header):
    """Names and texts of image and overscan of each amplifier that a header describes."""
    labels = str(header.get("AMPLIST", "")).split()
    for images, bias in ((("TSEC", "DSEC"), "BSEC"), (("TRIMSEC", "DATASEC"), "BIASSEC")):
        known = [re.fullmatch(rf"{bias}(\d+)", card) for card in header]
        found = []
        for label in labels or [match[1] for match in known if match]:
            image = next((f"{name}{label}" for name in images if header.get(f"{name}{label}")), "")
            if image and header.get(f"{bias}{label}"):
                found.append((image, header[image], f"{bias}{label}", header[f"{bias}{label}"]))
        texts = {str(text).replace(" ", "") for _, text, _, _ in found}
        if found and (len(texts) > 1 or len(found) == 1):
            return found
    return []


def _pieces(amplifiers, trim, shape):
    """Pieces of the image, put together without what lies between them."""
    found = []
    for image_name, image, overscan_name, overscan in amplifiers:
        section = parse_section(image, shape, name=image_name)
        region = parse_section(overscan, shape, name=overscan_name)
        if trim is not None:
            section = tuple(_common(own, other) for own, other in zip(section, trim, strict=True))
        if all(part.start < part.stop for part in section):
            found.append((section, region, image_name, overscan_name))
    grid = [
        sorted({(section[axis].start, section[axis].stop) for section, *_ in found})
        for axis in (0, 1)
    ]
    apart = all(a[1] <= b[0] for edges in grid for a, b in itertools.pairwise(edges))
    if not found or not apart or len(found) != len(grid[0]) * len(grid[1]):
        names = ", ".join(f"{name} = {text}" for name, text, _, _ in amplifiers)
        raise FrameError(
            f"the images of the amplifiers make no rectangle: {names}. They must be side by side, "
            "of the same height or width, without overlap; correct night.toml or the header."
        )
    for _, region, _, name in found:
        for section, _, image_name, _ in found:
            if all(
                _common(a, b).start < _common(a, b).stop
                for a, b in zip(section, region, strict=True)
            ):
                raise FrameError(f"{name} lies in the image, {image_name}; correct one of them.")
    places = []
    for edges in grid:
        ends = np.cumsum([stop - start for start, stop in edges]).tolist()
        places.append(dict(zip(edges, map(slice, [0, *ends[:-1]], ends), strict=True)))
    return tuple(
        Piece(
            section,
            tuple(places[axis][section[axis].start, section[axis].stop] for axis in (0, 1)),
            region,
        )
        for section, region, *_ in found
    )


def _common(first, second):
    """Slice of what two slices share; empty where that is nothing."""
    return slice(max(first.start, second.start), min(first.stop, second.stop))
