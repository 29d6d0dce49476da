"""Correct one light frame: bias, dark and flat, with flags and errors, in bands of rows."""

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from . import pixels
from .calibrated import open_master
from .calibration import LOW_FLAT_LIMIT
from .errors import DataredWarning, FrameError

__all__ = ["check_dark", "correct"]

#: Scaling a dark that contains the bias is reported above this many ADU left over.
BIAS_RESIDUE = 0.5
#: Most bytes of a band of one image: some of them fit into the processor's own memory.
_BAND = 200_000


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
    threads=None,
    name="frame",
):
    r"""Subtract bias and dark and divide by the flat, in place.

    .. math:: S' = (S - B - s D) / F

    and, where gain g (e-/ADU) and read noise R (e-) are given, the variance

    .. math:: \sigma^2 = \frac{1}{F^2} \left( \frac{\max(S - B, 0)}{g} + \frac{R^2}{g^2}
              + s^2 \sigma_D^2 + c\, \sigma_B^2 + S'^2 \sigma_F^2 \right)

    The dark was made with the same master bias, whose error is in both: what is subtracted is
    :math:`(1 - s) B + s D_\mathrm{raw}`, and so :math:`c = 1 - 2 s`. Without a dark c = 1.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        Trimmed frame in ADU; it becomes S'. NaN where the flat is 0.05 or less.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Flags; those of the masters, LOW_FLAT and NONFINITE are added.
    bias, dark, flat : datared.calibrated.MasterRows, CCDData or path, optional
        Masters of the same shape. What is missing is left out.
    dark_scale : float
        s, the exposure time of the frame over that of the dark.
    gain, read_noise : float, optional
        Both, if errors are wanted.
    threads : int, optional
        Bands worked on at a time; by default the number of processors.
    name : str
        What to call the frame in messages.

    Returns
    -------
    numpy.ndarray of float32, shape (ny, nx), or None
        Standard deviation of ``data`` in ADU.

    Raises
    ------
    FrameError
        If a master has another shape.
    """
    masters = [open_master(master, data.shape, name=name) for master in (bias, dark, flat)]
    sigma = None
    if gain is not None and read_noise is not None:
        sigma = np.empty(data.shape, np.float32)
    ny, nx = data.shape
    height = max(1, _BAND // (4 * nx))

    def work(start):
        band = slice(start, min(start + height, ny))
        part = None if sigma is None else sigma[band]
        _correct_band(data[band], flags[band], part, band, masters, dark_scale, gain, read_noise)

    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(work, range(0, ny, height)))
    return sigma


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


def _correct_band(data, flags, sigma, rows, masters, scale, gain, read_noise):
    """Correct some rows in place; ``sigma`` is filled where it is not None."""
    span = (rows.start, rows.stop)
    bias, dark, flat = masters
    for master in masters:
        if master is not None and master.flag_rows(*span) is not None:
            flags |= master.flag_rows(*span)
    if bias is not None:
        data -= bias.rows(*span)
    if sigma is not None:
        np.maximum(data, 0, out=sigma)
        sigma *= np.float32(1 / gain)
        sigma += np.float32((read_noise / gain) ** 2)
        if dark is not None:
            _add_variance(sigma, dark.error_rows(*span), scale**2)
        if bias is not None:
            shared = dark is not None and dark.meta.get("BIASCOR") is not False
            _add_variance(sigma, bias.error_rows(*span), 1 - 2 * scale if shared else 1)
    if dark is not None:
        data -= dark.rows(*span) if scale == 1 else np.float32(scale) * dark.rows(*span)
    if flat is not None:
        _divide(data, flags, sigma, flat, span)
    if sigma is not None:
        # Of a foreign dark, made with another bias, the difference could be negative.
        np.maximum(sigma, 0, out=sigma)
        np.sqrt(sigma, out=sigma)
    if not math.isfinite(data.sum(dtype=np.float64)):
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
    if sigma is None:
        return
    error = flat.error_rows(*span)
    if error is not None:
        relative = data * error
        relative *= relative
        sigma += relative
    sigma /= sensitivity
    sigma /= sensitivity


def _add_variance(variance, error, factor):
    """Add a variance times a factor, from its standard deviation."""
    if error is not None:
        square = error * error
        square *= np.float32(factor)
        variance += square
