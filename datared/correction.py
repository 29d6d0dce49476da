"""Correct one light frame: bias, dark and flat, with flags and errors, in bands of rows."""

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from numba import njit

from . import cosmics, pixels
from .calibrated import open_master
from .calibration import LOW_FLAT_LIMIT
from .errors import DataredWarning, FrameError
from .sources import detect, field_fwhm

__all__ = ["camera_noise", "check_dark", "clean", "correct", "to_electrons"]

#: Scaling a dark that contains the bias is reported above this many ADU left over.
BIAS_RESIDUE = 0.5
#: Fewer stars than these do not tell how wide stars are.
LEAST_STARS = 10
#: Pixels along each side of the middle of a frame, where stars are looked for.
MIDDLE = 1000
#: Most bytes of a band of one image: some of them fit into the processor's own memory.
_BAND = 400_000


def correct(
    data,
    flags,
    *,
    bias=None,
    dark=None,
    dark_scale=1.0,
    flat=None,
    gain=None,
    read_noise=None,
    in_place=False,
    threads=None,
    name="frame",
):
    r"""Subtract bias and dark and divide by the flat.

    .. math:: S' = (S - B - s D) / F

    and, where gain g (e-/ADU) and read noise R (e-) are given, the variance

    .. math:: \sigma^2 = \frac{1}{F^2} \left( \frac{\max(S - B, 0)}{g} + \frac{R^2}{g^2}
              + s^2 \sigma_D^2 + c\, \sigma_B^2 + S'^2 \sigma_F^2 \right)

    The dark was made with the same master bias, whose error is in both: what is subtracted is
    :math:`(1 - s) B + s D_\mathrm{raw}`, and so :math:`c = 1 - 2 s`. Without a dark c = 1.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        Trimmed frame in ADU.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Its flags.
    bias, dark, flat : datared.calibrated.MasterRows, CCDData or path, optional
        Masters of the same shape. What is missing is left out.
    dark_scale : float
        s, the exposure time of the frame over that of the dark.
    gain, read_noise : float, optional
        Both, if errors are wanted.
    in_place : bool
        Whether the results may take the place of ``data`` and ``flags``.
    threads : int, optional
        Bands worked on at a time; by default the number of processors.
    name : str
        What to call the frame in messages.

    Returns
    -------
    data : numpy.ndarray of float32, shape (ny, nx)
        S'; NaN where the flat is 0.05 or less.
    flags : numpy.ndarray of uint16
        Flags, with those of the masters, LOW_FLAT and NONFINITE.
    mask : numpy.ndarray of bool
        True where any flag is set.
    sigma : numpy.ndarray of float32 or None
        Standard deviation of S' in ADU.

    Raises
    ------
    FrameError
        If a master has another shape.
    """
    masters = [open_master(master, data.shape, name=name) for master in (bias, dark, flat)]
    new_data, new_flags = (data, flags) if in_place else (np.empty_like(data), np.empty_like(flags))
    mask, sigma = np.empty(data.shape, bool), None
    if gain is not None and read_noise is not None:
        sigma = np.empty(data.shape, np.float32)
    ny, nx = data.shape
    height = max(1, _BAND // (4 * nx))

    def work(start):
        band = slice(start, min(start + height, ny))
        part = None if sigma is None else sigma[band]
        if not in_place:
            new_data[band], new_flags[band] = data[band], flags[band]
        results = new_data[band], new_flags[band], part
        _correct_band(*results, band, masters, dark_scale, gain, read_noise)
        np.not_equal(new_flags[band], 0, out=mask[band])

    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(work, range(0, ny, height)))
    return new_data, new_flags, mask, sigma


def check_dark(dark, scale, bias, *, name="frame"):
    """Warn of what is left when bias and dark are scaled together; refuse a bias taken twice.

    Parameters
    ----------
    dark : datared.calibrated.MasterRows
        Master dark.
    scale : float
        Its factor.
    bias : object or None
        Whether there is a master bias for the frame.
    name : str
        What to call the frame in messages.

    Raises
    ------
    FrameError
        If the dark contains the bias, and a master bias is to be subtracted as well.

    Warns
    -----
    DataredWarning
        If a dark that contains the bias is scaled.
    """
    contains = dark.meta.get("BIASCOR") is False
    if contains and bias is not None:
        raise FrameError(
            f"{name}: the dark contains the bias (BIASCOR = F), which would be subtracted twice; "
            "make the master dark with the master bias."
        )
    if not (contains or (bias is None and "BIASCOR" not in dark.meta)) or scale == 1:
        return
    middle = dark.shape[0] // 2
    residue = (1 - scale) * float(np.nanmedian(dark.rows(middle, middle + 1)))
    if abs(residue) > BIAS_RESIDUE:
        warnings.warn(
            f"{name}: the dark contains the bias and is scaled by {scale:g}: about {residue:.0f} "
            "ADU of the bias stay in the frame. Take bias frames, or darks of the same exposure.",
            DataredWarning,
            stacklevel=4,
        )


def camera_noise(camera, header, *, bias=None):
    """Gain and read noise that hold for a frame.

    The gain is that of the night file; else that of the card which the night file names
    (``gain_keyword``); else of the card EGAIN. The card GAIN is a setting or an index in most
    programs, and is not read unless it is named. The read noise is that of the night file, else
    that which the master bias measured.

    Parameters
    ----------
    camera : Camera or None
        With ``gain`` (e-/ADU), ``gain_keyword`` and ``read_noise`` (e-).
    header : Mapping
        Header of the frame. A frame that is in electrons (card GAINCOR) has a gain of 1.
    bias : datared.calibrated.MasterRows or CCDData, optional
        Master bias; its card READNOIS is in ADU.

    Returns
    -------
    gain, read_noise : float or None
        Electrons per ADU, and electrons; None where it is not known.

    Examples
    --------
    >>> camera_noise(None, {"GAIN": 30, "EGAIN": 0.376})
    (0.376, None)
    """
    cards = (getattr(camera, "gain_keyword", None), "EGAIN")
    gain = getattr(camera, "gain", None)
    for card in cards:
        value = header.get(card) if card else None
        if gain is None and isinstance(value, int | float) and 0 < value < math.inf:
            gain = float(value)
    noise = getattr(camera, "read_noise", None)
    measured = None if bias is None else bias.meta.get("READNOIS")
    if noise is None and gain is not None and isinstance(measured, int | float):
        noise = float(measured) * gain
    return gain, noise


def clean(ccd, *, gain, read_noise, cosmic_rays="", repair="mask", name="frame"):
    """Flag the cosmic rays of a calibrated frame and, if wanted, repair its bad pixels.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Frame after the flat, in ADU, with flags.
    gain, read_noise : float or None
        e-/ADU and electrons.
    cosmic_rays : {"", "laplacian", "median"}
        How they are found, see `datared.cosmics.find_cosmics`; not at all by default.
    repair : {"mask", "gaussian", "subtract"}
        Fill bad pixels by `datared.pixels.repair_gaussian`, or leave them as they are.
    name : str
        What to call the frame in messages.

    Returns
    -------
    astropy.nddata.CCDData
        The frame, or a new one.

    Raises
    ------
    FrameError
        If cosmic rays are wanted and the noise is not known.
    ValueError
        If an option is not one of those above.
    """
    if cosmic_rays and None in (gain, read_noise):
        raise FrameError(
            f"{name}: cosmic rays cannot be told from noise without gain and read noise; give "
            "gain and read_noise in the table [camera] of night.toml."
        )
    if repair not in ("mask", "gaussian", "subtract"):
        raise ValueError(f"repair {repair!r} is not one of mask, gaussian, subtract.")
    if cosmic_rays:
        options = {"gain": gain, "read_noise": read_noise, "method": cosmic_rays}
        ccd = cosmics.flag_cosmics(ccd, **options, fwhm=_star_width(ccd))
    if repair == "gaussian":
        ccd.data, ccd.flags = pixels.repair_gaussian(ccd.data, ccd.flags)
        ccd.mask = ccd.flags != 0
    return ccd


def to_electrons(ccd, *, gain, name="frame"):
    """Multiply a frame by its gain, in place; the card GAINCOR says so, and it is done once only.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Frame in ADU.
    gain : float or None
        e-/ADU. Without it the frame stays in ADU, with a warning.
    name : str
        What to call the frame in messages.

    Raises
    ------
    FrameError
        If the frame is in electrons already.
    """
    if ccd.unit == u.electron or ccd.meta.get("GAINCOR"):
        raise FrameError(f"{name}: is in electrons already; the gain is used once only.")
    if gain is None:
        warnings.warn(
            f"{name}: stays in ADU, because the gain is not known; give gain in the table [camera] "
            "of night.toml.",
            DataredWarning,
            stacklevel=4,
        )
        return
    factor = np.float32(gain)
    ccd.data *= factor
    sigma = ccd.uncertainty
    # The unit of an uncertainty must be that of the data at any moment.
    ccd.uncertainty = None
    ccd.unit = u.electron
    if sigma is not None:
        ccd.uncertainty = StdDevUncertainty(factor * sigma.array, copy=False)
    ccd.meta["GAINCOR"] = True


def _star_width(ccd):
    """FWHM (px) of the stars in the middle of a frame, None where there are too few.

    Sharp stars look like tracks; how sharp they are the frame itself tells.
    """
    part = tuple(
        slice(max(0, (size - MIDDLE) // 2), max(0, (size - MIDDLE) // 2) + MIDDLE)
        for size in ccd.shape
    )
    stars = detect(np.ascontiguousarray(ccd.data[part]), mask=np.ascontiguousarray(ccd.mask[part]))
    width = field_fwhm(stars) if len(stars) >= LEAST_STARS else 0.0
    return width if width > 0 else None


def _correct_band(data, flags, sigma, rows, masters, scale, gain, read_noise):
    """Correct some rows in place; ``sigma`` is filled where it is not None."""
    span = (rows.start, rows.stop)
    bias, dark, flat = masters
    for master in masters:
        if master is not None and master.flag_rows(*span) is not None:
            flags |= master.flag_rows(*span)
    if bias is not None:
        data -= bias.rows(*span)
    # Without bias frames the bias goes with the dark; it has no photons.
    early = bias is None and dark is not None and dark.meta.get("BIASCOR") is not True
    early = early and not dark.meta.get("OVERSCOR")
    if early:
        data -= dark.rows(*span) if scale == 1 else np.float32(scale) * dark.rows(*span)
    if sigma is not None:
        _photon_variance(*map(_flat, (sigma, data)), 1 / gain, (read_noise / gain) ** 2)
        if dark is not None:
            _add_variance(sigma, dark.error_rows(*span), scale**2)
        if bias is not None:
            shared = dark is not None and dark.meta.get("BIASCOR") is not False
            _add_variance(sigma, bias.error_rows(*span), 1 - 2 * scale if shared else 1.0)
    if dark is not None and not early:
        data -= dark.rows(*span) if scale == 1 else np.float32(scale) * dark.rows(*span)
    if flat is not None:
        _divide(data, flags, sigma, flat, span)
    elif sigma is not None:
        _deviation(*map(_flat, (sigma, data, np.zeros_like(data), np.ones_like(data))))
    if not math.isfinite(np.add.reduce(data, axis=None, dtype=np.float64)):
        flags |= np.multiply(~np.isfinite(data), np.uint16(pixels.NONFINITE), dtype=np.uint16)


def _divide(data, flags, sigma, flat, span):
    """Divide by the flat; where it is too low the result is NaN and flagged."""
    sensitivity = flat.rows(*span)
    with np.errstate(invalid="ignore"):
        low = ~(sensitivity > LOW_FLAT_LIMIT)
    if low.any():
        sensitivity = np.where(low, np.float32(np.nan), sensitivity)
        flags |= np.multiply(low, np.uint16(pixels.LOW_FLAT), dtype=np.uint16)
    data /= sensitivity
    if sigma is not None:
        error = flat.error_rows(*span)
        error = np.zeros_like(data) if error is None else error
        _deviation(*map(_flat, (sigma, data, error, sensitivity)))


def _flat(image):
    """Image as one row of float32, as the compiled loops want it."""
    return np.ascontiguousarray(image, np.float32).reshape(-1)


def _add_variance(variance, error, factor):
    """Add the square of an error times a factor (in place)."""
    if error is not None:
        _add_square(_flat(variance), _flat(error), factor)


@njit(cache=True, nogil=True)
def _photon_variance(variance, data, inverse_gain, read_variance):
    """Variance of the photons and of reading, from the counts above the bias."""
    inverse_gain, read_variance = np.float32(inverse_gain), np.float32(read_variance)
    for i in range(data.size):
        counts = data[i] if data[i] > 0 else np.float32(0)
        variance[i] = counts * inverse_gain + read_variance


@njit(cache=True, nogil=True)
def _add_square(variance, error, factor):
    """Add the squares of the errors that are known: a single dark has no scatter to tell it."""
    factor = np.float32(factor)
    for i in range(error.size):
        square = factor * error[i] * error[i]
        variance[i] += square if square == square else np.float32(0)


@njit(cache=True, nogil=True, error_model="numpy")
def _deviation(sigma, data, error, flat):
    """Turn the variance before the flat into the standard deviation after it (in place)."""
    for i in range(data.size):
        relative = error[i] * data[i]
        relative = relative if relative == relative else np.float32(0)
        # Of a foreign dark, made with another bias, the difference could be negative.
        variance = sigma[i] if sigma[i] > 0 else np.float32(0)
        sigma[i] = np.sqrt(variance + relative * relative) / flat[i]
