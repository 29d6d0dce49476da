"""Inside the stage stack: a stack as files, with a header that says what it is made of."""

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.time import Time

from .background import sky_mesh
from .frames import ascii_text, write_product
from .nightstars import pixel_scale
from .stackframes import card_number
from .stacksky import BOX

__all__ = ["write_stack"]

#: Cards that are true of one exposure, not of a stack.
OF_ONE_FRAME = (
    *("DATE-LOC", "DATE-END", "DATE-AVG", "MJD-OBS", "MJD-AVG", "MJD-END", "JD", "JD-OBS"),
    *("EXPOSURE", "SATURATE", "SKY", "NSTARS", "RAWFILE", "AIRMASS", "PIERSIDE", "ASTRORD"),
    *("EGAIN", "GAIN_E", "RON_E"),
)
#: Most names of frames that a header can list.
MOST_NAMES = 999
#: Of a large image every so many pixels tell its usual uncertainty.
STRIDE = 4


def write_stack(stack, product, frames, *, wcs, scales, weights, filter_name, options):
    r"""Write a stack as the counts of one long exposure, and its exposure map.

    The image is the weighted mean times STACKSCL, the ratio of the total exposure time to that of
    the reference frame. Of a source that gives L counts in the scaled frames, frame i has
    :math:`s_i L / g_i` of variance from photons after scaling, so that the image has the gain

    .. math:: g = \left(c \sum_i w_i^2 s_i / g_i\right)^{-1}

    with the scales s, the gains of the frames, the weights w (their sum is 1) and c = STACKSCL.

    Parameters
    ----------
    stack : datared.coaddition.Stack
        The stack. Its data and uncertainty are multiplied in place, to save memory.
    product : pathlib.Path
        ``work/stack/<filter>.fits``; the map is written beside it.
    frames : sequence of StackFrame
        The frames in it; the header is that of the first, to which the scales refer.
    wcs : astropy.wcs.WCS
        Coordinates of the grid.
    scales, weights : numpy.ndarray of float, shape (n_frame,)
        Scales and weights of the frames; the sum of the weights is 1.
    filter_name : str
        Name of the filter.
    options : dict
        Settings of ``[stack]``, and ``uncertainty``.
    """
    total = float(sum(frame.exptime for frame in frames))
    factor = total / frames[0].exptime
    stack.data[:] *= np.float32(factor)
    stack.uncertainty[:] *= np.float32(factor)
    cards = _light_cards(frames, scales, weights, factor) | _time_cards(frames, weights, total)
    cards |= _own_cards(frames, filter_name, options)
    widths = np.array([frame.fwhm for frame in frames]) / pixel_scale(wcs)
    cards["FWHM"] = (_mean(widths, weights), "px, weighted mean of the frames")
    scatter = float(np.median(sky_mesh(stack.data, ~np.isfinite(stack.data), box=BOX).noise))
    alone = float(np.nanmedian(stack.uncertainty[::STRIDE, ::STRIDE]))
    unit = frames[0].header.get("BUNIT", "adu")
    cards["SKYNOISE"] = (scatter, f"{unit}, scatter of the sky from pixel to pixel")
    cards["NOISECOR"] = (alone / scatter if scatter > 0 else 1.0, "noise / SKYNOISE")
    meta = frames[0].header.copy()
    for card in OF_ONE_FRAME:
        meta.remove(card, ignore_missing=True, remove_all=True)
    sigma = StdDevUncertainty(stack.uncertainty, copy=False) if options["uncertainty"] else None
    image = CCDData(
        stack.data,
        unit=unit,
        flags=stack.flags,
        uncertainty=sigma,
        meta=meta,
        wcs=wcs,
    )
    write_product(image, product, header_cards=cards)
    seconds = CCDData(stack.exposure, unit="s", meta=fits.Header(), wcs=wcs)
    beside = product.with_name(f"{product.stem}_exposure.fits")
    write_product(seconds, beside)


def _light_cards(frames, scales, weights, factor):
    """Cards of what a count is worth."""
    cards = {
        "STACKSCL": (factor, "image / weighted mean of the scaled frames"),
        "SKYSUB": (True, "sky subtracted"),
    }
    gains = [frame.gain for frame in frames]
    if None in gains:
        return cards
    gains = np.array(gains)
    gain = 1 / (factor * float(np.sum(weights**2 * scales / gains)))
    cards["EGAIN"] = (gain, "e- per count, effective")
    cards["GAIN_E"] = (gain, "e- per count of this image")
    noise = np.array([card_number(frame.header, "RON_E") for frame in frames])
    noise = factor * gain * float(np.sqrt(np.sum((weights * scales * noise / gains) ** 2)))
    cards["RON_E"] = (noise, "e-, of all frames together")
    return cards


def _time_cards(frames, weights, total):
    """Cards of when and how long."""
    days = np.array([card_number(frame.header, "JD_UTC_M") for frame in frames])
    middle = _mean(days, weights)
    cards = {
        "NCOMBINE": (len(frames), "frames combined"),
        "EXPTIME": (total, "s, total exposure time"),
        "JD_UTC_M": (middle, "weighted mean of the mid-exposures"),
        "AIRMASS": (
            _mean(np.array([card_number(frame.header, "AIRMASS") for frame in frames]), weights),
            "weighted mean of the frames",
        ),
    }
    if np.isfinite(middle):
        moment = Time(middle, format="jd", scale="utc").isot
        cards["DATE-MID"] = (moment, "UTC, weighted mean of the mid-exposures")
    for card in ("DATE-OBS", "DATE-BEG"):
        if starts := [str(f.header[card]) for f in frames if f.header.get(card)]:
            cards[card] = (min(starts), "of the first frame")
    return cards


def _own_cards(frames, filter_name, options):
    """Cards of how the stack was made, and from which frames."""
    cards = {
        "KIND": ("stack", "kind of frame"),
        "FILTER": (ascii_text(filter_name), "filter"),
        "STACKGRD": (options["grid"], "grid: of the reference frame, or optimal"),
        "STACKINT": (options["method"], "interpolation"),
        "STACKCLP": (options["clip"], "clipping limit in sigma, 0 for none"),
        "STACKWGT": (options["weights"], "weights"),
        "STACKSKY": (options["sky"], "what was subtracted as sky"),
    }
    for k, frame in enumerate(frames[:MOST_NAMES], 1):
        cards[f"IMCMB{k:03d}"] = ascii_text(frame.header.get("RAWFILE") or frame.path.name)
    return cards


def _mean(values, weights):
    """Weighted mean of the values that are known; NaN where none is."""
    known = np.isfinite(values)
    return float(np.average(values[known], weights=weights[known])) if known.any() else np.nan
