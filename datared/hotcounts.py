"""Hot pixels counted: how many are how hot, and what was a particle and no hot pixel."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numba import njit

from .boxlevels import box_noise, interpolate_boxes, smooth_level
from .errors import FrameError

__all__ = ["HotPixels", "hot_pixels"]

#: A pixel is hot, or two darks differ, from so many deviations on. At 5 a perfect sensor of a
#: megapixel has 0.3 wrong ones.
NSIGMA = 5.0
#: Whole counts may scatter by nothing; half a step (in ADU) is the least that is believed.
NOISE_FLOOR = 0.5
#: Rates at which the number of hotter pixels is counted by default, times powers of ten.
STEPS = (1.0, 2.0, 5.0)


@dataclass(frozen=True, eq=False)
class HotPixels:
    """Hot pixels of a sensor at one temperature.

    Attributes
    ----------
    table : astropy.table.Table
        For each threshold ``rate`` (e-/s above the surroundings): ``number`` of pixels above it,
        ``number_err`` (its Poisson error), ``share`` of all pixels, and ``seen``, False where the
        noise of these darks hides or feigns pixels of that rate.
    rates : numpy.ndarray of float, shape (n_hot,)
        Rates of the hot pixels in e-/s, the hottest first.
    map : numpy.ndarray of bool, shape (ny, nx)
        Where they are.
    limit : float
        Rate in e-/s from which on a pixel can be told to be hot: 5 deviations of the noise.
    n_pixels : int
        Number of pixels that were looked at.
    n_darks : int
        Number of darks.
    n_particles : int or None
        Pixels that a particle hit in one of the darks: bright there, and not in the others. None
        for a single dark, in which a particle is taken for a hot pixel.
    n_unsteady : int or None
        Hot pixels that are brighter in some of the darks than in the others, by more than noise.
    """

    table: Table
    rates: np.ndarray
    map: np.ndarray
    limit: float
    n_pixels: int
    n_darks: int
    n_particles: int | None
    n_unsteady: int | None


def hot_pixels(darks, *, exptime, gain=1.0, thresholds=None, box=32):
    r"""Count hot pixels, and tell them from the particles that hit the sensor.

    From each dark its smooth level is taken off (the common dark current, glow, bias). The excess
    :math:`x_i` of a pixel is compared with the lower median :math:`m` over the darks: a value with

    .. math:: x_i - m > 5 \sqrt{2 (\sigma^2 + m / g)}

    with the noise :math:`\sigma` from dark to dark is a particle (or the pixel is unsteady) and
    left out. The mean of the others, times :math:`g / t`, is the rate. A pixel is hot where the
    mean is above 5 deviations of the means around it.

    Parameters
    ----------
    darks : array-like of shape (ny, nx), or sequence of them
        Darks of one exposure time and temperature in ADU, raw or without bias; two or more, that
        particles can be told.
    exptime : float
        t, exposure time in s.
    gain : float
        g in e-/ADU; with 1 all rates are in ADU/s (and the photon noise of m is not right).
    thresholds : array-like of float, optional
        Rates to count at, in e-/s; by default 1, 2, 5 times powers of ten, from what the noise
        lets see to the hottest pixel.
    box : int
        Side in pixels over which the level is smooth.

    Returns
    -------
    HotPixels
        The counts.

    Raises
    ------
    FrameError
        If there is no dark, or they differ in shape.
    ValueError
        If the exposure time or the gain is not positive.

    Notes
    -----
    A rate is above the surroundings, so the typical pixel has none. The hottest pixels may be
    full before the exposure ends; their rate is then a lower limit.

    Examples
    --------
    >>> darks = np.random.default_rng(1).normal(500, 4, (2, 64, 64))
    >>> darks[:, 10, 20] += 300
    >>> darks[0, 30, 40] += 900
    >>> hot = hot_pixels(darks, exptime=60, gain=2.0)
    >>> hot.rates.round(1).tolist(), hot.n_particles
    ([9.9], 1)
    """
    frames = [darks] if getattr(darks, "ndim", 3) == 2 else list(darks)
    frames = [np.asarray(getattr(frame, "data", frame), np.float32) for frame in frames]
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise FrameError(
            f"darks are images of one shape, these {len(frames)} have {shapes}: sort them."
        )
    for name, value in (("exptime", exptime), ("gain", gain)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value} is not a positive number.")
    excess = np.empty((len(frames), *shapes[0]), np.float32)
    for one, frame in zip(excess, frames, strict=True):
        np.subtract(frame, smooth_level(frame, box=box), out=one)
    mean, wider, apart = (np.empty(shapes[0], kind) for kind in (np.float32, np.float32, bool))
    _fill_agreeing(excess, _temporal_variance(excess, box), gain, mean, wider, apart)
    # What is fixed in the sensor is the same in all darks: the mean tells how much it scatters.
    noise, y, x = box_noise(mean, box)
    noise = NSIGMA * np.maximum(noise, NOISE_FLOOR)
    hot = mean > np.multiply(wider, interpolate_boxes(noise, y, x, mean.shape), out=wider)
    factor = gain / exptime
    rates = np.sort(factor * mean[hot].astype(float))[::-1]
    limit = factor * float(np.median(noise))
    if thresholds is None:
        thresholds = _steps(limit, rates[0] if rates.size else limit)
    thresholds = np.sort(np.asarray(thresholds, float))
    n_pixels, single = int(np.count_nonzero(np.isfinite(mean))), len(frames) == 1
    least = thresholds / factor
    values = np.sort(mean[mean > np.min(least, initial=np.inf)].astype(float))
    counts = values.size - np.searchsorted(values, least, side="right")
    table = Table(
        {
            "rate": thresholds,
            "number": counts,
            "number_err": np.sqrt(counts),
            "share": counts / max(n_pixels, 1),
            "seen": thresholds >= limit,
        }
    )
    return HotPixels(
        table=table,
        rates=rates,
        map=hot,
        limit=limit,
        n_pixels=n_pixels,
        n_darks=len(frames),
        n_particles=None if single else int(np.count_nonzero(apart & ~hot)),
        n_unsteady=None if single else int(np.count_nonzero(apart & hot)),
    )


def _temporal_variance(excess, box):
    """Variance of one dark from dark to dark; of a single one all that scatters in it."""
    if len(excess) == 1:
        noise, y, x = box_noise(excess[0], box)
    else:
        with np.errstate(invalid="ignore"):  # Two infinite values have no difference.
            pairs = [box_noise(a - b, box) for a, b in itertools.pairwise(excess)]
        noise = np.median([pair[0] for pair in pairs], axis=0) / math.sqrt(2)
        _, y, x = pairs[0]
    return interpolate_boxes(np.maximum(noise, NOISE_FLOOR) ** 2, y, x, excess.shape[1:])


@njit(cache=True, nogil=True)
def _fill_agreeing(excess, variance, gain, mean, wider, apart):
    """Write the mean of the darks that agree with the fainter half, NaN where there is none.

    Also by how much its noise is larger than that of a mean of all, and whether one was left out.
    """
    values = np.empty(len(excess), np.float32)
    for y in range(excess.shape[1]):
        for x in range(excess.shape[2]):
            n = 0
            for i in range(len(excess)):  # Sorted by insertion: there are few.
                v, place = excess[i, y, x], n
                if not np.isfinite(v):
                    continue
                while place > 0 and values[place - 1] > v:
                    values[place] = values[place - 1]
                    place -= 1
                values[place] = v
                n += 1
            low = values[max(n - 1, 0) // 2]
            limit = low + NSIGMA * math.sqrt(2 * (variance[y, x] + max(low, 0.0) / gain))
            total, k = 0.0, 0
            while k < n and values[k] <= limit:
                total += values[k]
                k += 1
            mean[y, x] = total / k if k else np.nan
            wider[y, x] = math.sqrt(len(excess) / max(k, 1))
            apart[y, x] = k < n


def _steps(low, high):
    """Round numbers from below a limit to the largest value."""
    first, last = (
        math.floor(math.log10(low)) if low > 0 else -2,
        math.ceil(math.log10(max(high, 1e-9))),
    )
    values = [step * 10.0**power for power in range(first, last + 1) for step in STEPS]
    above = [value for value in values if low <= value <= high]
    below = [value for value in values if value < low]
    return below[-1:] + above
