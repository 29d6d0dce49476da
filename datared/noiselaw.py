"""The noise law of masters: what averaging promises, and what two halves of the frames show."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from .combine import combine
from .pairs import difference_variance

__all__ = ["MasterNoise", "frame_noise", "master_noise", "noise_factor"]

#: With fewer frames than these halves cannot be compared.
HALVES = 4


@dataclass(frozen=True)
class MasterNoise:
    """Noise of a master, measured and expected.

    Parameters
    ----------
    single : float
        Noise of one frame (median of the frames).
    expected : float
        Noise of the master that follows from it.
    noise : float
        Noise of the master, from the difference of two masters of half the frames each.
    ratio, ratio_err : float
        ``noise / expected`` and its error; NaN with fewer than four frames.
    pattern : float
        Scatter of the master from pixel to pixel beyond its noise: what the frames have in common.
    """

    single: float
    expected: float
    noise: float
    ratio: float
    ratio_err: float
    pattern: float


def noise_factor(n, *, method="median", clip=None):
    r"""How much noisier than :math:`\sigma / \sqrt n` the combination of n frames is.

    It is found by combining Gaussian noise with `datared.combine.combine` itself: 1 for a mean, and
    for a median from 1 (of 2 frames) to 1.253 (of many).

    Parameters
    ----------
    n : int
        Number of frames.
    method, clip
        As in `datared.combine.combine`.

    Returns
    -------
    float
        The factor, to 0.4 %.

    Examples
    --------
    >>> [round(noise_factor(n), 1) for n in (2, 3, 99)]
    [1.0, 1.2, 1.2]
    """
    return _experiment((1.0,) * n, method, clip) * math.sqrt(n)


def frame_noise(frames, *, relative=False, saturation=None, step=0.0):
    r"""Noise of each frame of a series, from the differences with its neighbours.

    What is fixed in all frames does not count, nor do values beyond 4 deviations, such as hot
    pixels. With :math:`D_{ij}` the variance of the difference of two frames,

    .. math:: \sigma_i^2 = (D_{ij} + D_{ik} - D_{jk}) / 2

    is that of frame i alone, however noisy its neighbours j and k are.

    Parameters
    ----------
    frames : sequence of array-like, each of shape (ny, nx)
        Frames in ADU.
    relative : bool
        The frames are flats (without bias): scale them to each other, give noise in units of the
        level.
    saturation, step : float, optional
        As in `datared.pairs.pair_variance`.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        ADU, or dimensionless; two frames have the same (flats that which photons give them), one
        has NaN.
    """
    n = len(frames)
    options = {"relative": relative, "saturation": saturation, "step": step}
    known = {}

    def difference(i, j):
        """Variance of the difference of two frames, measured once."""
        if (i, j) not in known:
            known[i, j] = known[j, i] = difference_variance(frames[i], frames[j], **options)[0]
        return known[i, j]

    if n < 2:
        return np.full(n, math.nan)
    if n == 2:
        # Photons make the relative variance of flats fall with the level.
        part = [np.nanmedian(frame) if relative else 1.0 for frame in reversed(frames)]
        return np.sqrt(difference(0, 1) * np.array(part) / np.sum(part))
    noises = np.empty(n)
    for i in range(n):
        start = min(max(i - 1, 0), n - 3)
        j, k = (m for m in range(start, start + 3) if m != i)
        square = (difference(i, j) + difference(i, k) - difference(j, k)) / 2
        noises[i] = math.sqrt(max(square, 0.0))
    return noises


def master_noise(frames, *, method="median", clip=None, flat=False, saturation=None, step=0.0):
    r"""Compare the noise of a master with what averaging promises.

    Expected is :math:`f \sigma / \sqrt N`, with the median noise of the frames and the factor of
    `noise_factor`. (Flats of unlike levels are simulated with the noise that photons give each,
    whole numbers with their rounding.) Measured is the difference of two masters, of every other
    frame each, in which the pattern of the sensor cancels. Frames that are noisier than the others,
    or noise that they share, make the ratio larger than 1.

    Parameters
    ----------
    frames : sequence of array-like, each of shape (ny, nx)
        The frames in ADU; flats without bias.
    method, clip
        As in `datared.combine.combine`.
    flat : bool
        The frames are flats, scaled to each other; noise is in units of the level.
    saturation, step : float, optional
        As in `datared.pairs.pair_variance`.

    Returns
    -------
    MasterNoise
        ADU, or dimensionless for flats.
    """
    frames = [np.asarray(frame, np.float32) for frame in frames]
    noises = frame_noise(frames, relative=flat, saturation=saturation, step=step)
    levels = np.array([np.nanmedian(frame) for frame in frames]) if flat else np.ones(len(frames))
    # Photons make the relative noise of flats fall with the root of the level.
    if not np.any(noises > 0):
        return MasterNoise(*[math.nan] * 6)
    promised = np.nanmedian(noises * np.sqrt(levels)) / np.sqrt(levels)
    single, n = float(np.median(promised)), len(frames)

    def promise(part):
        """Noise of the master of some frames."""
        noise = tuple(np.round(promised[part] / single, 2).tolist())
        # Scaled flats are no whole numbers any more.
        coarse = 0.0 if flat else round(step / single, 1)
        return single * _experiment(noise, method, clip, coarse)

    def master(part):
        """Combine some frames."""
        some = [frames[i] / np.float32(levels[i]) for i in range(n)[part]]
        limits = {"clip": clip, "floor": single} if clip and len(some) > 2 else {}
        return combine(some, method=method, threads=1, **limits).data

    whole, coarse = master(slice(None)), {"step": 0.0 if flat else step}
    expected, noise, ratio, error = promise(slice(None)), math.nan, math.nan, math.nan
    if n >= HALVES:
        halves = slice(0, None, 2), slice(1, None, 2)
        images = [master(part) for part in halves]
        variance, error = difference_variance(*images, relative=flat, **coarse)
        ratio = math.sqrt(variance) / math.hypot(*(promise(part) for part in halves))
        error *= ratio / 2 / (variance or math.nan)
        noise = ratio * expected
    scatter = difference_variance(whole, np.zeros_like(whole), **coarse)[0]
    pattern = math.sqrt(max(scatter - (expected if math.isnan(noise) else noise) ** 2, 0.0))
    return MasterNoise(single, expected, noise, ratio, error, pattern)


@functools.lru_cache(maxsize=256)
def _experiment(noises, method, clip, step=0.0):
    """Noise of the combination of Gaussian values with these deviations, rounded to steps."""
    rng = np.random.default_rng(len(noises))
    limits = {"clip": clip, "floor": 1.0} if clip and len(noises) > 2 else {}
    shape = (200, 200)
    # Where between two steps the level of a pixel lies is the same in all frames.
    phase = rng.random(shape, np.float32)
    results = []
    for _ in range(2):
        frames = []
        for noise in noises:
            own = math.sqrt(max(noise**2 - step**2 / 12, 0.0))
            frame = rng.standard_normal(shape, np.float32) * np.float32(own)
            if step:
                frame = np.float32(step) * np.rint(frame / np.float32(step) + phase)
            frames.append(frame)
        results.append(combine(frames, method=method, threads=1, **limits).data)
    return float(np.std(results[0] - results[1], dtype=float)) / math.sqrt(2)
