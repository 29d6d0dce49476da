"""Hot pixels counted: how many are how hot, and what was a particle and no hot pixel."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from .errors import FrameError
from .maps import local_level

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
    frames = [np.array(getattr(frame, "data", frame), np.float32) for frame in frames]
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise FrameError(
            f"darks are images of one shape, these {len(frames)} have {shapes}: sort them."
        )
    for name, value in (("exptime", exptime), ("gain", gain)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value} is not a positive number.")
    for frame in frames:
        frame[~np.isfinite(frame)] = np.nan
    excess = np.array([frame - local_level(frame, box=box)[0] for frame in frames])
    mean, number, apart = _agreeing(excess, _temporal(frames, excess, box) ** 2, gain)
    known = number > 0
    # What is fixed in the sensor is the same in all darks: the mean tells how much it scatters.
    noise = local_level(np.where(known, mean, np.nan), box=box)[1]
    noise *= np.sqrt(len(frames) / np.maximum(number, 1))
    hot = known & (mean > NSIGMA * np.maximum(noise, NOISE_FLOOR))
    factor = gain / exptime
    rates = np.sort(factor * mean[hot].astype(float))[::-1]
    limit = NSIGMA * factor * float(max(np.median(noise), NOISE_FLOOR))
    if thresholds is None:
        thresholds = _steps(limit, rates[0] if rates.size else limit)
    thresholds = np.sort(np.asarray(thresholds, float))
    n_pixels, single = int(np.count_nonzero(known)), len(frames) == 1
    values = np.sort(factor * mean[known].astype(float))
    counts = n_pixels - np.searchsorted(values, thresholds, side="right")
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


def _temporal(frames, excess, box):
    """Noise of one dark from dark to dark; of a single one all that scatters in it."""
    if len(frames) == 1:
        noise = local_level(excess[0], box=box)[1]
    else:
        pairs = [local_level(a - b, box=box)[1] for a, b in itertools.pairwise(excess)]
        noise = np.median(pairs, axis=0) / math.sqrt(2)
    return np.maximum(noise, NOISE_FLOOR)


def _agreeing(excess, variance, gain):
    """Mean of the darks that agree with the fainter half, their number, and where one does not."""
    shape = excess.shape[1:]
    mean, number = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    apart = np.zeros(shape, bool)
    for y in range(shape[0]):  # A row at a time stays in the processor's memory.
        values = excess[:, y]
        finite = np.isfinite(values)
        n = np.count_nonzero(finite, axis=0)
        order = np.sort(values, axis=0)  # NaN are sorted to the end.
        low = np.take_along_axis(order, np.maximum(n - 1, 0)[None] // 2, axis=0)[0]
        limit = NSIGMA * np.sqrt(2 * (variance[y] + np.maximum(low, 0) / gain))
        agree = values <= low + limit
        number[y] = np.count_nonzero(agree, axis=0)
        mean[y] = np.where(agree, values, 0).sum(axis=0) / np.maximum(number[y], 1)
        apart[y] = (finite & ~agree).any(axis=0)
    return mean, number, apart


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
