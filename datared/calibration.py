"""Master bias, dark and flat: from calibration frames to one frame, with flags and noise."""

import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

from . import pixels
from .calibrated import CalibratedRows, MasterRows, exposure_time
from .combine import combine, common_shape
from .errors import FrameError
from .frames import ascii_text
from .levels import robust_level, robust_noise
from .pairs import read_noise
from .screening import frame_statistics, screen_frames

__all__ = [
    "master_bias",
    "master_dark",
    "master_flat",
]

log = logging.getLogger("datared.calibration")

#: Pixels of a flat at or below this sensitivity are flagged: division would only amplify noise.
LOW_FLAT_LIMIT = 0.05
#: Bytes of a raw frame that are looked at before it is combined.
SAMPLE_MOST = 4e6


def master_bias(frames, *, camera=None, method="median", clip=None, memory_limit=512e6):
    """Combine bias frames.

    Parameters
    ----------
    frames : sequence of paths or astropy.nddata.CCDData
        Raw bias frames of one set-up.
    camera : Camera, optional
        Overscan and trim sections, saturation level.
    method : {"median", "mean"}
        As in `datared.combine.combine`. The mean has less noise (by up to 1.25), and needs a clip.
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
    sources = _sources(frames, memory_limit, camera=camera)
    sources, rejected = _screened(sources, "bias")
    noise = _frame_noise(sources)
    floor = noise if clip is not None and noise > 0 else None
    combined = combine(sources, method=method, clip=clip, floor=floor, memory_limit=memory_limit)
    master = _master(combined, sources, rejected, kind="bias", exptime=0.0)
    master.meta["BIASCOR"] = False
    if len(sources) > 1:
        master.meta["READNOIS"] = (_round(noise), "read noise, ADU")
    return master


def master_dark(
    frames,
    *,
    bias=None,
    camera=None,
    exptime=None,
    method="median",
    clip=None,
    nsigma=5.0,
    min_rate=0.0,
    memory_limit=512e6,
):
    r"""Combine darks of one exposure time, and find the hot pixels.

    Parameters
    ----------
    frames : sequence of paths or astropy.nddata.CCDData
        Raw darks of one set-up and exposure time.
    bias : astropy.nddata.CCDData, path or MasterRows, optional
        Master bias, subtracted from each. Without it the master contains the bias, and must not be
        scaled in time.
    camera, method, clip, memory_limit
        As in `master_bias`.
    exptime : float, optional
        Exposure time in s; by default the card EXPTIME or EXPOSURE of the first frame.
    nsigma, min_rate : float
        Limits for hot pixels, in deviations and in ADU/s, see `datared.pixels.hot_map`.

    Returns
    -------
    astropy.nddata.CCDData
        ADU per exposure (not per second), with flags HOT and BAD_COLUMN, and the uncertainty
        :math:`\sqrt{\sigma^2 + \sigma_B^2}` of the combined darks and of the bias; cards as in
        `master_bias`, and EXPTIME.

    Raises
    ------
    FrameError
        If there is no frame, or shapes differ from each other or from the bias.
    """
    bias = _opened(bias)
    sources = _sources(frames, memory_limit, camera=camera, bias=bias)
    sources, rejected = _screened(sources, "dark")
    noise = _frame_noise(sources)
    floor = noise if clip is not None and noise > 0 else None
    combined = combine(sources, method=method, clip=clip, floor=floor, memory_limit=memory_limit)
    exptime = exposure_time(sources[0].header) if exptime is None else exptime
    master = _master(combined, sources, rejected, kind="dark", exptime=exptime)
    if bias is not None:
        sigma = master.uncertainty.array
        if combined.n_frames == 1:  # Its scatter is not known, but that of the bias frames is.
            sigma[:] = bias.meta.get("READNOIS") or math.nan
        for start in range(0, len(sigma), 64):  # In bands: a bias on disk is never held whole.
            error = bias.error_rows(start, min(start + 64, len(sigma)))
            if error is not None:
                error = np.nan_to_num(error)
                np.hypot(sigma[start : start + 64], error, out=sigma[start : start + 64])
    master.meta["BIASCOR"] = bias is not None
    limits = {"nsigma": nsigma, "min_rate": min_rate, "exptime": exptime}
    hot = pixels.hot_map(master.data, **limits)
    # A column that is shifted by less than the noise of a pixel is subtracted well enough.
    columns = pixels.bad_columns(master.data, least=max(robust_noise(master.data), 1e-6))
    _flag(master, {pixels.HOT: hot, pixels.BAD_COLUMN: columns})
    master.meta["NHOT"] = (int(hot.sum()), "hot pixels")
    return master


def master_flat(
    frames,
    *,
    bias=None,
    dark=None,
    dark_scale=1.0,
    camera=None,
    method="median",
    clip=3.0,
    memory_limit=512e6,
):
    r"""Combine flats of one filter.

    .. math:: M = \mathrm{clipped\ median}_i \frac{F_i - B - s_i D_i}{\mathrm{median}(\ldots)},
              \quad \text{then divided by its own median.}

    Scaling before combining lets twilight flats of any level go together, and the clip takes out
    what is not in the same place on all of them, such as stars. The medians are those of a sample
    of rows, which is the whole frame up to 2 megapixels.

    Parameters
    ----------
    frames : sequence of paths or astropy.nddata.CCDData
        Raw flats of one set-up and filter, of any exposure times.
    bias : astropy.nddata.CCDData, path or MasterRows, optional
        Master bias.
    dark : astropy.nddata.CCDData, path or MasterRows, or sequence of it, optional
        Master dark for all, or one (or None) for each frame.
    dark_scale : float or sequence of float
        Its factor for all, or for each frame.
    camera, method, memory_limit
        As in `master_bias`.
    clip : float or (float, float), optional
        As in `datared.combine.combine`; used for three flats or more.

    Returns
    -------
    astropy.nddata.CCDData
        Dimensionless, median 1, with uncertainty (of the combined flats) and flags DEAD, LOW_FLAT
        and BAD_COLUMN; cards KIND, NCOMBINE, FLATLVL (ADU, median before normalising), FLATNOIS
        (relative noise of a pixel, where two flats or more tell it), NREJECT and for each rejected
        frame REJECT1, REJECT2 ... with its name and the reason.

    Raises
    ------
    FrameError
        If no frame can be used (with the reasons), or the shapes differ.
    """
    bias = _opened(bias)
    darks = list(dark) if isinstance(dark, list | tuple) else [_opened(dark)] * len(frames)
    factors = np.broadcast_to(dark_scale, len(frames))
    most = _most_held(frames, memory_limit)
    sources = [
        CalibratedRows(frame, camera=camera, bias=bias, dark=own, dark_scale=factor, most=most)
        for frame, own, factor in zip(frames, darks, factors, strict=True)
    ]
    _share(sources)
    used, rejected = _screened(sources, "flat")
    levels = [_median(source.sample()[1]) for source in used]
    scale = np.mean(levels) / np.asarray(levels)
    clip, floor = (clip, _pair_noise(used, scale)) if len(used) > 2 else (None, None)
    combined = combine(
        used, method=method, clip=clip, scale=scale, floor=floor, memory_limit=0.75 * memory_limit
    )
    exptime = exposure_time(used[0].header)
    master = _master(combined, used, rejected, kind="flat", exptime=exptime)
    level = _median(master.data)
    master.data /= np.float32(level)
    sigma = master.uncertainty.array
    sigma /= np.float32(level)
    # The unit of an uncertainty is that of its frame, or a copy of the frame is refused.
    master.uncertainty, master.unit = None, u.dimensionless_unscaled
    master.uncertainty = StdDevUncertainty(sigma, copy=False)
    master.meta["BIASCOR"] = bias is not None
    master.meta["DARKCOR"] = any(own is not None for own in darks)
    master.meta["FLATLVL"] = (_round(level), "median in ADU before normalising")
    with np.errstate(invalid="ignore"):
        low = ~(master.data > LOW_FLAT_LIMIT)
    dead, columns = pixels.dead_map(master.data), pixels.bad_columns(master.data, least=0.03)
    _flag(master, {pixels.DEAD: dead, pixels.LOW_FLAT: low, pixels.BAD_COLUMN: columns})
    noise = _relative_noise(sigma, good=master.flags == 0)
    if noise > 0:
        master.meta["FLATNOIS"] = (_round(noise), "relative noise of a pixel")
    return master


def _most_held(frames, memory_limit):
    """Bytes of each raw frame that may be held; together they are a quarter of the memory."""
    return min(SAMPLE_MOST, memory_limit / 4 / max(len(frames), 1))


def _sources(frames, memory_limit, **options):
    """Rows of raw frames."""
    most = _most_held(frames, memory_limit)
    sources = [CalibratedRows(frame, **options, most=most) for frame in frames]
    _share(sources)
    return sources


def _share(sources):
    """Let sources of wide numbers hold fewer: bands are counted at two bytes for a pixel."""
    widest = max((getattr(s.source, "dtype", np.dtype("u2")).itemsize for s in sources), default=2)
    for source in sources:
        source.most *= min(1.0, 2 / widest)


def _screened(sources, kind):
    """Frames that can be used, and for each of the others its name and the reason."""
    common_shape(sources)

    def look(source):
        raw, calibrated = source.sample()
        limit = source.saturation
        return frame_statistics(calibrated, name=source.name, kind=kind, raw=raw, saturation=limit)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        frames = list(pool.map(look, sources))
    reasons, remarks = screen_frames(frames)
    for remark in remarks:
        log.warning("%s", remark)
    rejected = [
        f"{source.name}: {reason}"
        for source, reason in zip(sources, reasons, strict=True)
        if reason
    ]
    for text in rejected:
        log.warning("%s rejected: %s", kind, text)
    used = [source for source, reason in zip(sources, reasons, strict=True) if not reason]
    if not used:
        raise FrameError(f"no usable {kind}: {'; '.join(rejected)}.")
    return used, rejected


def _opened(master):
    """Rows of a master, opened once for all frames."""
    return master if master is None or isinstance(master, MasterRows) else MasterRows(master)


def _flag(master, maps):
    """Set the bits of some maps, and the mask of all."""
    for bit, found in maps.items():
        master.flags |= np.multiply(found, np.uint16(bit), dtype=np.uint16)
    master.mask = master.flags != 0


def _master(combined, sources, rejected, *, kind, exptime):
    """Frame of a combination, with flags and cards."""
    flags = np.multiply(combined.mask, np.uint16(pixels.NONFINITE), dtype=np.uint16)
    master = CCDData(combined.data, unit="adu", flags=flags, mask=combined.mask)
    master.uncertainty = StdDevUncertainty(combined.uncertainty, copy=False)
    master.meta = fits.Header()
    master.meta["KIND"] = kind
    master.meta["NCOMBINE"] = combined.n_frames
    master.meta["EXPTIME"] = float(exptime) if math.isfinite(exptime) else None
    master.meta["MEDLEVEL"] = (_round(robust_level(combined.data)), "level, ADU")
    master.meta["NOISE"] = (_round(robust_level(combined.uncertainty)), "of the master, ADU")
    if sources[0].regions.trimmed:
        master.meta["TRIMMED"] = True
    if sources[0].regions.corrected:
        master.meta["OVERSCOR"] = True
    master.meta["NREJECT"] = (len(rejected), "frames left out")
    for i, text in enumerate(rejected):
        master.meta[f"REJECT{i + 1}"] = ascii_text(text)
    return master


def _frame_noise(sources):
    """Noise of one of some bias frames or darks, NaN for a single one.

    The offset of a frame may drift: the noise is that of a difference about its median.
    """
    if len(sources) < 2:
        return math.nan
    # Of whole numbers a median deviation is one of a few values: 1.05, 2.10, 3.15 ... steps.
    first, second = (source.sample()[1] for source in sources[:2])
    return read_noise(first, second, step=sources[0].step)[0]


def _pair_noise(sources, scale):
    """Noise of a scaled flat, from the difference of the first and the last one.

    The scatter of three or four values alone is often far too small by chance; a clip that
    believed it would take good values out.
    """
    first, last = sources[0].sample()[1] * scale[0], sources[-1].sample()[1] * scale[-1]
    return robust_noise(first - last) / math.sqrt(2)


def _relative_noise(sigma, *, good):
    """Noise of a pixel of a normalised flat, NaN where nothing tells it.

    Of a few frames the errors of single pixels scatter widely; their mean is right (see
    `datared.combine.combine`). What is far above the others is no noise: a star that moved.
    """
    values = sigma[good & np.isfinite(sigma)]
    if not values.size:
        return math.nan
    return float(np.mean(values[values <= 6 * np.median(values)], dtype=float))


def _median(image):
    """Median of the finite pixels, NaN where there are none."""
    values = np.array(image).reshape(-1)
    if np.isnan(values.min(initial=0)) or not np.isfinite(values.max(initial=0)):
        values = values[np.isfinite(values)]
    return float(np.median(values, overwrite_input=True)) if values.size else math.nan


def _round(value):
    """Round a number to what a card holds; None where it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
