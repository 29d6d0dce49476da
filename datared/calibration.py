"""Master bias, dark and flat: from calibration frames to one frame, with flags and noise."""

import logging
import math

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

from . import pixels
from .combine import combine
from .errors import FrameError
from .frames import read_frame
from .overscan import find_regions, overscan_level
from .rows import open_rows

__all__ = [
    "CalibratedRows",
    "master_bias",
    "master_dark",
    "master_flat",
    "master_name",
    "robust_noise",
]

log = logging.getLogger("datared.calibration")

#: A flat above this part of the saturation level is rejected; above the second one it is reported.
FLAT_SATURATED, FLAT_BRIGHT = 0.9, 0.7
#: A flat is rejected if more than this part of its pixels is saturated.
FLAT_SATURATED_PIXELS = 0.02
#: A flat fainter than this part of the saturation level is rejected; below the second, reported.
FLAT_FAINT, FLAT_DIM = 0.01, 0.1
#: Pixels of a flat at or below this sensitivity are flagged: division would only amplify noise.
LOW_FLAT_LIMIT = 0.05


class CalibratedRows:
    """Rows of a raw frame without overscan, borders, bias and dark: see `datared.rows`."""

    def __init__(self, frame, *, camera=None, bias=None, dark=None, dark_scale=1.0):
        self.source = open_rows(frame)
        self.frame, self.camera, self.name = frame, camera, self.source.name
        self.step = self.source.step
        header = frame.meta if isinstance(frame, CCDData) else _header(frame)
        self.regions = find_regions(header, self.source.shape, camera=camera)
        self.shape = self.regions.shape(self.source.shape)
        self.level = None
        self.dark_scale = np.float32(dark_scale)
        self.bias, self.dark = (_master_data(m, self.shape, self.name) for m in (bias, dark))

    def rows(self, start, stop):
        """Calibrated rows; where a master has no value neither have they."""
        above, columns = 0, slice(None)
        if self.regions.trim is not None:
            above, columns = self.regions.trim[0].start, self.regions.trim[1]
        band = self.source.rows(start + above, stop + above)[:, columns]
        if self.regions.overscan is not None:
            if self.level is None:
                region = self.regions.overscan
                raw = self.source.rows(region[0].start, region[0].stop)[:, region[1]]
                self.level = overscan_level(raw, shape=self.source.shape, regions=self.regions)
            band = band - (self.level[start:stop] if len(self.level) > 1 else self.level)
        if self.bias is not None:
            band = band - self.bias[start:stop]
        if self.dark is not None:
            band = band - self.dark_scale * self.dark[start:stop]
        return band

    def error_rows(self, start, stop):
        """None: the scatter between frames is the error."""
        return None

    def image(self):
        """All rows."""
        return self.rows(0, self.shape[0])


def master_bias(frames, *, camera=None, clip=None, memory_limit=512e6):
    """Combine bias frames by their median.

    Parameters
    ----------
    frames : sequence of paths or astropy.nddata.CCDData
        Raw bias frames of one set-up.
    camera : Camera, optional
        Overscan and trim sections, saturation level.
    clip : float or (float, float), optional
        As in `datared.combine.combine`.
    memory_limit : float
        Bytes, as in `datared.combine.combine`.

    Returns
    -------
    astropy.nddata.CCDData
        ADU, with uncertainty and flags; cards KIND, NCOMBINE, BIASCOR, MEDLEVEL, NOISE, READNOIS
        (ADU, from the difference of the first two frames; two are needed).

    Raises
    ------
    FrameError
        If there is no frame, or the shapes differ.
    """
    sources = [CalibratedRows(frame, camera=camera) for frame in frames]
    combined = combine(sources, clip=clip, memory_limit=memory_limit)
    master = _master(combined, sources, kind="bias", exptime=0.0)
    master.meta["BIASCOR"] = False
    if len(sources) > 1:
        # The offset of a frame may drift: the noise is that of the difference about its median.
        difference = sources[0].image() - sources[1].image()
        master.meta["READNOIS"] = (
            _round(robust_noise(difference) / math.sqrt(2)),
            "read noise, ADU",
        )
    return master


def master_dark(
    frames, *, bias=None, camera=None, exptime=None, clip=None, nsigma=5.0, memory_limit=512e6
):
    """Combine darks of one exposure time by their median, and find the hot pixels.

    Parameters
    ----------
    frames : sequence of paths or astropy.nddata.CCDData
        Raw darks of one set-up and exposure time.
    bias : astropy.nddata.CCDData, optional
        Master bias, subtracted from each. Without it the master contains the bias, and must not be
        scaled in time.
    camera, clip, memory_limit
        As in `master_bias`.
    exptime : float, optional
        Exposure time in s; by default the card EXPTIME or EXPOSURE of the first frame.
    nsigma : float
        Limit for hot pixels, see `datared.pixels.hot_map`.

    Returns
    -------
    astropy.nddata.CCDData
        ADU per exposure (not per second), with uncertainty and flags HOT and BAD_COLUMN; cards as
        in `master_bias`, and EXPTIME.

    Raises
    ------
    FrameError
        If there is no frame, or shapes differ from each other or from the bias.
    """
    sources = [CalibratedRows(frame, camera=camera, bias=bias) for frame in frames]
    combined = combine(sources, clip=clip, memory_limit=memory_limit)
    exptime = _exptime(sources) if exptime is None else exptime
    master = _master(combined, sources, kind="dark", exptime=exptime)
    master.meta["BIASCOR"] = bias is not None
    hot = pixels.hot_map(master.data, nsigma=nsigma)
    # A column that is shifted by less than the noise of a pixel is subtracted well enough.
    columns = pixels.bad_columns(master.data, least=max(robust_noise(master.data), 1e-6))
    master.flags |= pixels.HOT * hot.astype(np.uint16)
    master.flags |= pixels.BAD_COLUMN * columns.astype(np.uint16)
    master.mask = master.flags != 0
    master.meta["NHOT"] = (int(hot.sum()), "hot pixels")
    return master


def master_flat(
    frames, *, bias=None, dark=None, dark_scale=1.0, camera=None, clip=3.0, memory_limit=512e6
):
    r"""Combine flats of one filter.

    .. math:: M = \mathrm{clipped\ median}_i \frac{F_i - B - s_i D_i}{\mathrm{median}(\ldots)},
              \quad \text{then divided by its own median.}

    Scaling before combining lets twilight flats of any level go together, and the clip takes out
    what is not in the same place on all of them, such as stars.

    Parameters
    ----------
    frames : sequence of paths or astropy.nddata.CCDData
        Raw flats of one set-up and filter, of any exposure times.
    bias : astropy.nddata.CCDData, optional
        Master bias.
    dark : astropy.nddata.CCDData or sequence of it, optional
        Master dark for all, or one (or None) for each frame.
    dark_scale : float or sequence of float
        Its factor for all, or for each frame.
    camera, memory_limit
        As in `master_bias`.
    clip : float or (float, float), optional
        As in `datared.combine.combine`; used for three flats or more.

    Returns
    -------
    astropy.nddata.CCDData
        Dimensionless, median 1, with uncertainty and flags DEAD, LOW_FLAT and BAD_COLUMN; cards
        KIND, NCOMBINE, FLATLVL (ADU, median before normalising), NREJECT and for each rejected
        frame REJECT1, REJECT2 ... with its name and the reason.

    Raises
    ------
    FrameError
        If no frame can be used (with the reasons), or the shapes differ.
    """
    darks = list(dark) if isinstance(dark, list | tuple) else [dark] * len(frames)
    factors = np.broadcast_to(dark_scale, len(frames))
    used, levels, rejected = [], [], []
    for frame, own, factor in zip(frames, darks, factors, strict=True):
        source = CalibratedRows(frame, camera=camera, bias=bias, dark=own, dark_scale=factor)
        level, reason = _flat_level(source)
        if reason:
            rejected.append(f"{source.name}: {reason}")
            log.warning("flat %s rejected: %s", source.name, reason)
        else:
            used.append(source)
            levels.append(level)
    if not used:
        raise FrameError(f"no usable flat: {'; '.join(rejected) or 'there is no frame'}.")
    scale = np.mean(levels) / np.asarray(levels)
    clip, floor = (clip, _pair_noise(used, scale)) if len(used) > 2 else (None, None)
    combined = combine(used, clip=clip, scale=scale, floor=floor, memory_limit=memory_limit)
    master = _master(combined, used, kind="flat", exptime=_exptime(used))
    level = _median(master.data)
    master.data /= np.float32(level)
    master.uncertainty = StdDevUncertainty(combined.uncertainty / np.float32(level))
    master.unit = u.dimensionless_unscaled
    master.meta["BIASCOR"] = bias is not None
    master.meta["DARKCOR"] = any(own is not None for own in darks)
    master.meta["FLATLVL"] = (_round(level), "median in ADU before normalising")
    master.meta["NREJECT"] = len(rejected)
    for i, text in enumerate(rejected):
        master.meta[f"REJECT{i + 1}"] = text[:68]
    with np.errstate(invalid="ignore"):
        low = ~(master.data > LOW_FLAT_LIMIT)
    for bit, found in (
        (pixels.DEAD, pixels.dead_map(master.data)),
        (pixels.LOW_FLAT, low),
        (pixels.BAD_COLUMN, pixels.bad_columns(master.data, least=0.03)),
    ):
        master.flags |= bit * found.astype(np.uint16)
    master.mask = master.flags != 0
    return master


def _master(combined, sources, *, kind, exptime):
    """Frame of a combination, with flags and cards."""
    flags = pixels.NONFINITE * combined.mask.astype(np.uint16)
    master = CCDData(combined.data, unit="adu", flags=flags, mask=combined.mask.copy())
    master.uncertainty = StdDevUncertainty(combined.uncertainty)
    master.meta = fits.Header()
    master.meta["KIND"] = kind
    master.meta["NCOMBINE"] = combined.n_frames
    master.meta["EXPTIME"] = float(exptime)
    master.meta["MEDLEVEL"] = (_round(_median(combined.data)), "median, ADU")
    master.meta["NOISE"] = (_round(_median(combined.uncertainty)), "of the master, ADU")
    if sources[0].regions.trim is not None:
        master.meta["TRIMMED"] = True
    if sources[0].regions.overscan is not None:
        master.meta["OVERSCOR"] = True
    return master


def _flat_level(source):
    """Median of a calibrated flat, and why it cannot be used (or an empty text)."""
    raw = source.frame
    if not isinstance(raw, CCDData):
        raw = read_frame(raw, camera=source.camera)
    part = source.regions.trim or (slice(None), slice(None))
    limit = source.camera.saturation if source.camera is not None else None
    limit = limit or raw.meta.get("SATURATE") or (64224.0 if source.step else None)
    flags = 0 if raw.flags is None else raw.flags[part]
    bright = np.count_nonzero(np.bitwise_and(flags, pixels.SATURATED)) / raw.data[part].size
    level, median = _median(source.image()), _median(raw.data[part])
    if bright > FLAT_SATURATED_PIXELS or (limit and median > FLAT_SATURATED * limit):
        return level, f"saturated (median {median:.0f} ADU, {100 * bright:.1f} % of pixels)"
    if not level > FLAT_FAINT * (limit or 0):
        return level, f"too faint ({level:.0f} ADU above the dark)"
    if limit and (median > FLAT_BRIGHT * limit or level < FLAT_DIM * limit):
        log.warning("flat %s: level of %.0f ADU of %.0f", source.name, median, limit)
    return level, ""


def _pair_noise(sources, scale):
    """Noise of a scaled flat, from the difference of the first and the last one.

    The scatter of three or four values alone is often far too small by chance; a clip that
    believed it would take good values out.
    """
    first, last = sources[0].image() * scale[0], sources[-1].image() * scale[-1]
    return robust_noise(first - last) / math.sqrt(2)


def _header(path):
    """Header of the first image of a file."""
    with fits.open(path) as hdus:
        return next(h for h in hdus if h.is_image and h.header.get("NAXIS", 0) > 0).header.copy()


def _exptime(sources):
    """Exposure time in the first header, NaN where there is none."""
    frame = sources[0].frame
    header = frame.meta if isinstance(frame, CCDData) else _header(frame)
    for card in ("EXPTIME", "EXPOSURE"):
        if isinstance(header.get(card), int | float):
            return float(header[card])
    return math.nan


def master_name(master):
    """Name of a master in messages: its file where it has one, else its kind."""
    return str(master.meta.get("MASTER") or master.meta.get("KIND", ""))


def _master_data(master, shape, name):
    """Pixels of a master of the same shape; numpy would stretch one row over the frame."""
    if master is None:
        return None
    if master.shape != tuple(shape):
        raise FrameError(
            f"{name} has shape {tuple(shape)} and the master {master_name(master)} has "
            f"{master.shape}: they are of different set-ups."
        )
    return np.asarray(master.data, np.float32)


def robust_noise(image):
    """Robust standard deviation of all pixels, 1.4826 times the median absolute deviation.

    Parameters
    ----------
    image : array_like of float
        Pixels; what is not finite is left out.

    Returns
    -------
    float
        In the unit of the pixels; NaN where there is none.
    """
    values = np.asarray(image)
    values = values[np.isfinite(values)]
    return (
        float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else math.nan
    )


def _median(image):
    """Median of the finite pixels, NaN where there are none."""
    values = np.asarray(image)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else math.nan


def _round(value):
    """Round a number to what a card holds; None where it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
