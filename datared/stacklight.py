"""Inside the stage stack: how the light of frames compares, and which are behind clouds."""

import math
from dataclasses import dataclass

import numpy as np

from .coaddition import LEAST_STARS

__all__ = ["FrameLight", "cloud_reasons", "compare_light", "weighted_median"]

#: Frames whose stars disagree about their light by more than this are behind patchy clouds.
MOST_PATCHY = 0.1
#: No star is trusted to more than this fraction of its light: it may vary.
TRUSTED = 0.01


@dataclass(frozen=True, eq=False)
class FrameLight:
    """How the light of frames compares with that of one of them, the first at the beginning.

    Parameters
    ----------
    scales : numpy.ndarray of float, shape (n_frame,)
        Factors that bring the counts of a frame to those of that one.
    light : numpy.ndarray of float, shape (n_frame,)
        Light per second, as a share of that frame's; NaN with fewer than five common stars.
    patchy : numpy.ndarray of float, shape (n_frame,)
        Scatter of that share from star to star, as a fraction of it, from its quartiles; beyond
        what the errors of the fluxes make.
    """

    scales: np.ndarray
    light: np.ndarray
    patchy: np.ndarray

    def relative_to(self, frame):
        """Give scales and light relative to another frame, by its number."""
        light = self.light[frame]
        light = self.light / light if light > 0 else self.light
        return FrameLight(self.scales / self.scales[frame], light, self.patchy)


def compare_light(frames):
    """Compare the light of the stars on frames.

    The stars are compared with those of the first frame. Where most of the others disagree with
    it, it is asked whether the first itself is behind patchy clouds: it is if it is patchy seen
    from another frame, from which fewer frames are patchy.

    Parameters
    ----------
    frames : sequence of StackFrame
        From `datared.stackframes.look_at`, all with the same stars.

    Returns
    -------
    FrameLight
        Scales and light relative to the first frame, and patchiness. A frame with too few common
        stars gets the scale of its exposure time and of the usual light of the others.
    """
    flux, error = (np.array([getattr(f, name) for f in frames]) for name in ("flux", "flux_err"))
    seconds = np.array([frame.exptime for frame in frames])
    light, patchy = _seen_from(0, flux, error)
    if 2 * np.sum(patchy > MOST_PATCHY) > np.isfinite(light[1:]).sum():
        for k in range(1, len(frames)):
            other = _seen_from(k, flux, error)
            fewer = np.sum(other[1] > MOST_PATCHY) < np.sum(patchy > MOST_PATCHY)
            if fewer and other[1][0] > MOST_PATCHY:
                light, patchy = other
    light = light / seconds
    known = light > 0
    usual = np.median(light[known]) if known.any() else 1.0
    scales = 1 / seconds / np.where(known, light, usual)
    return FrameLight(scales, light, patchy).relative_to(0)


def _seen_from(first, flux, error):
    """Light of the frames as a share of that of one of them, and its patchiness."""
    light, patchy = np.full(len(flux), np.nan), np.zeros(len(flux))
    for k, stars in enumerate(np.isfinite(flux) & np.isfinite(flux[first])):
        if stars.sum() < LEAST_STARS:
            continue
        share = flux[k, stars] / flux[first, stars]
        usual = np.median(share)
        noise = np.hypot(error[k, stars], usual * error[first, stars]) / flux[first, stars]
        light[k] = usual = weighted_median(share, 1 / np.hypot(noise, TRUSTED * usual))
        if usual > 0:
            # A MAD would not see a cloud over less than half of the stars, a standard deviation
            # would see a trail over some of them.
            scatter = np.ptp(np.percentile(share, [25, 75])) / 1.349
            # Quartiles of n values give a scatter to 1.16 / sqrt(n) of it; up to three times that
            # is still noise.
            most = np.median(noise) * (1 + 3.5 / math.sqrt(share.size))
            patchy[k] = math.sqrt(max(scatter**2 - most**2, 0)) / usual
    return light, patchy


def cloud_reasons(light, *, least):
    """Say which frames are behind clouds.

    Parameters
    ----------
    light : FrameLight
        From `compare_light`.
    least : float
        Share of the usual light that a frame must have.

    Returns
    -------
    list of str
        Why a frame should be left out; empty for a clear one.
    """
    known = np.isfinite(light.light)
    usual = np.median(light.light[known]) if known.any() else 1.0
    reasons = []
    for share, patchy in zip(light.light, light.patchy, strict=True):
        if share < least * usual:
            text = f"clouds: its stars have {max(share / usual, 0):.0%} of their usual light"
        elif patchy > MOST_PATCHY:
            text = f"patchy clouds: the light of its stars varies by {patchy:.0%}"
        else:
            text = ""
        reasons.append(text)
    return reasons


def weighted_median(values, weights):
    """Value that halves the weights.

    Parameters
    ----------
    values, weights : numpy.ndarray of float, shape (n,)
        Values and their weights, which are positive.

    Returns
    -------
    float
        Between the two middle values, as far as their weights say.
    """
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(weights.sum() / 2, below, values[order]))
