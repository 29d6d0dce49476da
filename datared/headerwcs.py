"""World coordinates in headers: read, repaired where programs contradict themselves, and judged."""

import copy
import logging
import math
import re
import warnings
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle, SkyCoord
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

__all__ = ["FrameGeometry", "frame_geometry", "implausible", "read_wcs"]

log = logging.getLogger("datared.headerwcs")

#: Cards that describe world coordinates.
WCS_CARDS = re.compile(
    r"WCSAXES|C(TYPE|RVAL|RPIX|UNIT|DELT|ROTA)[12]|(CD|PC)[12]_[12]|PV[12]_\d+|PS[12]_\d+|"
    r"(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH|WCSNAME"
)
_SIP = re.compile(r"(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)")
_SIP_INVERSE = re.compile(r"[AB]P_(ORDER|DMAX|\d+_\d+)")
_POINT = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")
#: Reference systems of the standard that name a system of coordinates.
_SYSTEMS = ("ICRS", "FK5", "FK4", "FK4-NO-E")
_CD = ("CD1_1", "CD1_2", "CD2_1", "CD2_2")
_PC = ("PC1_1", "PC1_2", "PC2_1", "PC2_2")
#: The sides of a pixel may differ by this factor.
LARGEST_STRETCH = 1.2


class FrameGeometry(NamedTuple):
    """How a frame lies on the sky, in its middle.

    Attributes
    ----------
    middle : astropy.coordinates.SkyCoord
        Sky position of the middle of the frame (ICRS).
    matrix : numpy.ndarray of float, shape (2, 2)
        Degrees to the east (first row) and to the north per pixel of x and y.
    scale : float
        Arcsec per pixel.
    rotation : float
        Position angle, north through east, of the frame's y axis in degrees, -180 to 180.
    mirrored : bool
        True if the frame shows the sky as in a mirror.
    """

    middle: SkyCoord
    matrix: np.ndarray
    scale: float
    rotation: float
    mirrored: bool


def read_wcs(header, shape):
    """Celestial world coordinates of a header, with the usual faults repaired.

    Repaired are: distortion terms (SIP) without their name in CTYPE and the name without terms;
    SIP terms of order 1, which are none; CD together with PC, CDELT or CROTA (CD wins, it is the
    later convention); numbers and angles written as text, with right ascension in hours; the old
    card RADECSYS and reference systems that do not exist. The polynomials of SCAMP (PV, under the
    name TAN or TPV) are kept.

    Parameters
    ----------
    header : astropy.io.fits.Header
        The header; it is not changed.
    shape : tuple of int
        Shape of the image, ``(ny, nx)``.

    Returns
    -------
    astropy.wcs.WCS or None
        None where there is no celestial one, where a number of its reference point is missing, or
        where it cannot be understood (which is logged).

    Examples
    --------
    >>> cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": "10:00:00", "CRVAL2": 5.0,
    ...          "CRPIX1": 50.5, "CRPIX2": 50.5, "CDELT1": -0.001, "CDELT2": 0.001, "CROTA2": 90.0}
    >>> wcs = read_wcs(fits.Header(cards), (100, 100))
    >>> frame_geometry(wcs, (100, 100)).middle.ra.deg.round(6)
    np.float64(150.0)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # Nobody can act on other programs' faults.
        cards = _cards(header)
        if not cards.get("CTYPE1"):
            return None
        if missing := [key for key in _POINT if not isinstance(cards.get(key), int | float)]:
            # wcslib would take 0.
            log.warning("the world coordinates of a header have no number in %s", missing[0])
            return None
        if not any(cards.get(key, 0.0) for key in _CD) and any(key in cards for key in _CD):
            # wcslib would take it for pixels of one degree.
            log.warning("the world coordinates of a header have a CD matrix of zeros")
            return None
        try:
            wcs = WCS(cards)
            usable = wcs.has_celestial and wcs_to_celestial_frame(wcs) is not None
        except Exception as error:  # wcslib's errors have many types.
            log.warning("the world coordinates of a header cannot be read: %s", error)
            return None
    if not usable:
        return None
    wcs.array_shape = shape
    return wcs


def _cards(header):
    """Cards of the world coordinates without contradictions."""
    cards = fits.Header()
    for card in header.cards:
        # Of other axes, such as that of a cube with one plane, nothing is read.
        if not WCS_CARDS.fullmatch(card.keyword) or card.keyword == "WCSAXES":
            continue
        value = _value(card)
        # The old name of the reference system is refused by newer programs.
        name = "RADESYS" if card.keyword == "RADECSYS" else card.keyword
        cards[name] = value.strip() if isinstance(value, str) else value
    _numbers(cards)
    if cards.get("RADESYS") not in _SYSTEMS:
        cards.remove("RADESYS", ignore_missing=True)
    # The polynomials of TPV say the same as the terms: both would count twice.
    has_sip = _has_terms(cards, "A", "B") and not str(cards.get("CTYPE1")).endswith("TPV")
    if not has_sip:
        _remove(cards, _SIP)
    elif not _has_terms(cards, "AP", "BP"):
        _remove(cards, _SIP_INVERSE)
    for key in ("CTYPE1", "CTYPE2"):
        # Some programs write the terms without the name of the distortion, or the name alone.
        name = str(cards.get(key, "")).removesuffix("-SIP")
        if has_sip and re.fullmatch(r"[A-Z-]{4}-[A-Z]{3}", name):
            name += "-SIP"
        cards[key] = name
    if any(key in cards for key in _CD):
        for key in (*_PC, "CDELT1", "CDELT2", "CROTA1", "CROTA2"):
            cards.remove(key, ignore_missing=True)
    elif any(key in cards for key in _PC):
        for key in ("CROTA1", "CROTA2"):
            cards.remove(key, ignore_missing=True)
    return cards


def _value(card):
    """Value of a card; what is not FITS, such as 10:00:00 without quotes, is a text."""
    try:
        return card.value
    except fits.VerifyError:
        card = copy.copy(card)
        card.verify("silentfix")
        return card.value


def _has_terms(cards, *names):
    """Whether both axes have polynomials of which one is above the first order."""
    orders = [cards.get(f"{name}_ORDER") for name in names]
    return all(isinstance(order, int | float) for order in orders) and max(orders) > 1


def _remove(cards, pattern):
    """Remove the cards whose names fit a pattern."""
    for key in [key for key in cards if pattern.fullmatch(key)]:
        del cards[key]


def _numbers(cards):
    """Turn numbers that were written as text into numbers; "19:41:18" is hours or degrees."""
    for key in list(cards):
        value = cards[key]
        if not isinstance(value, str) or re.fullmatch(r"CTYPE\d|CUNIT\d|RADESYS|WCSNAME", key):
            continue
        try:
            cards[key] = float(value)
        except ValueError:
            axis = re.fullmatch(r"CRVAL([12])", key)
            if not axis or not re.search(r"\d", value):
                del cards[key]
                continue
            hours = str(cards.get(f"CTYPE{axis[1]}")).startswith("RA")
            try:
                cards[key] = Angle(value, unit=u.hourangle if hours else u.deg).deg
            except ValueError:
                del cards[key]


def frame_geometry(wcs, shape):
    """Where the middle of a frame points, its scale, rotation and parity.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial world coordinates of any projection and distortion.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.

    Returns
    -------
    FrameGeometry
        The values; NaN where the coordinates have none there.

    Examples
    --------
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [9, 80], [5, 5]
    >>> wcs.wcs.cdelt = [-0.001, 0.001]
    >>> geometry = frame_geometry(wcs, (9, 9))
    >>> round(geometry.scale, 6), geometry.mirrored
    (3.6, False)
    """
    middle = [(n - 1) / 2 for n in shape[::-1]]
    step = 0.5 * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")
        points = wcs.pixel_to_world(*(middle + step).T).icrs
    # On the plane that touches the sky in the middle, so that it also holds at the pole.
    x, y, z = points.cartesian.xyz.value
    ra, dec = points[0].ra.rad, points[0].dec.rad
    east = -np.sin(ra) * x + np.cos(ra) * y
    north = np.cos(dec) * z - np.sin(dec) * (np.cos(ra) * x + np.sin(ra) * y)
    plane = np.degrees([east, north])
    matrix = np.column_stack([plane[:, 1] - plane[:, 2], plane[:, 3] - plane[:, 4]])
    determinant = float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    return FrameGeometry(
        middle=points[0],
        matrix=matrix,
        scale=math.sqrt(abs(determinant)) * 3600,
        rotation=float(np.degrees(np.arctan2(matrix[0, 1], matrix[1, 1]))),
        mirrored=determinant > 0,
    )


def implausible(wcs, shape, *, scale=None, scale_tolerance=0.1):
    """Say why world coordinates cannot be those of a frame.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        World coordinates as `read_wcs` gives them.
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    scale : float, optional
        Size of a pixel in arcsec, where it is known.
    scale_tolerance : float
        Largest relative error of the scale.

    Returns
    -------
    str
        The reason; empty if nothing speaks against them. Only stars can confirm them.
    """
    geometry = frame_geometry(wcs, shape)
    if not np.isfinite(geometry.matrix).all() or not geometry.scale > 0:
        return "the frame lies outside of the projection"
    long, short = np.linalg.svd(geometry.matrix, compute_uv=False)
    if short <= 0 or long > LARGEST_STRETCH * short:
        return f"its pixels would be {long * 3600:.3g} x {short * 3600:.3g} arcsec"
    if scale and abs(geometry.scale / scale - 1) > scale_tolerance:
        return (
            f"its scale of {geometry.scale:.4g} arcsec/px is not the expected {scale:.4g} within "
            f"{scale_tolerance:.0%}"
        )
    return ""
