"""The level of the sky under each star, its error and its scatter, from whichever source is asked.

Every source gives an unbiased level and the error that belongs to it.
"""

from typing import NamedTuple

import numpy as np

from .annuli import CLIP, COARSE, ring_mean, ring_median
from .apertures import over_stars
from .background import background_map, sky_statistics
from .profilesky import profile_sky

__all__ = ["BACKGROUNDS", "SkyLevels", "sky_levels"]

#: Where the sky comes from; what each does is told in `datared.photometry.aperture_photometry`.
BACKGROUNDS = ("annulus-median", "annulus-mean", "map", "frame", "profile", "none")

#: With a smaller share of good pixels than this an annulus is poor.
POOR_SHARE = 0.5
#: Closer than this many widths to a star of the list a pixel is no sky for the others: the wings
#: of stars that are too faint to be clipped lift the median, in a crowd by as much as the error of
#: a flux in a large circle, always the same way.
STAR_CORE = 1.5
#: Where less of the scatter than this is a star's profile or noise, something else is there.
LEAST_R_SQUARED = 0.9

#: How far clipped mean, median and mode of Poissonian counts lie below their mean, in electrons: a
#: clipping at 3 standard deviations takes more from the longer tail; third moment over 6 times the
#: variance; 2.5 of the latter less 1.5 of the former.
MEAN_SHIFT = 0.04
MEDIAN_SHIFT = 1 / 6
MODE_SHIFT = 2.5 * MEDIAN_SHIFT - 1.5 * MEAN_SHIFT
#: Sky that scatters less than this, in electrons, is drawn, or so dark that nothing is clipped.
LEAST_NOISE = 0.5
#: Error of a map of `datared.background`, in standard deviations of one pixel: boxes of 64 pixels,
#: each with 2.1 / 64 for its mode, the middle one of nine.
MAP_ERROR = 0.016


class SkyLevels(NamedTuple):
    """Sky under each star.

    Attributes
    ----------
    level, error : numpy.ndarray of float, shape (n,)
        Brightness of one pixel of sky and its error.
    std : numpy.ndarray of float, shape (n,)
        Scatter of one pixel.
    n : numpy.ndarray of float, shape (n,)
        Pixels used.
    poor : numpy.ndarray of bool, shape (n,)
        True where the level is not to be trusted.
    plane : numpy.ndarray of float32, shape (ny, nx) or (0, 0)
        Sky to subtract from the pixels themselves; the level comes with it then.
    rest : numpy.ndarray of float, shape (n,)
        What is to be subtracted from each pixel after the plane.
    own : float or numpy.ndarray, shape (n,)
        Pixels that go to the star's profile and not to the sky, where the level is fitted to the
        pixels of the aperture too; infinite where it comes from elsewhere.
    """

    level: np.ndarray
    error: np.ndarray
    std: np.ndarray
    n: np.ndarray
    poor: np.ndarray
    plane: np.ndarray
    rest: np.ndarray
    own: float | np.ndarray = np.inf


def sky_levels(
    data, flags, x, y, *, order, annulus, background, sky=None, gain=None, read_noise=0.0, fwhm,
    threads,
):  # fmt: skip
    """Sky under stars.

    Parameters
    ----------
    data, flags, x, y
        As in `datared.annuli.ring_median`.
    order : numpy.ndarray of int
        Stars, sorted by ``x``, whose pixels are left out of the annuli of the others.
    annulus : tuple of float
        Inner and outer radius in pixels.
    background : str
        One of `BACKGROUNDS`.
    sky : datared.background.Background, optional
        The map, for ``"map"``; made with its defaults where there is none.
    gain, read_noise, fwhm, threads
        As in `datared.photometry.aperture_photometry`.

    Returns
    -------
    SkyLevels
        NaN where there is no sky.
    """
    no_plane = np.empty((0, 0), np.float32)
    if background == "map":
        return _from_map(data, flags, x, y, sky, gain, read_noise)
    if background == "profile":
        if not flags.size:
            flags = np.zeros(data.shape, np.uint16)
        level, error, std, n, r_squared = profile_sky(
            data, flags, x, y, radius=annulus[1], fwhm=fwhm
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            poor = ~(r_squared >= LEAST_R_SQUARED)
            # A mean of as many pixels would have this error.
            own = np.nan_to_num(n - (std / error) ** 2)
        return SkyLevels(level, error, std, n, poor, no_plane, level, own)
    results = np.empty((x.size, 6))
    if background == "annulus-mean":
        over_stars(lambda rows: ring_mean(data, flags, x, y, annulus, rows, results), y, threads)
    else:
        listed = order, STAR_CORE * fwhm
        over_stars(
            lambda rows: ring_median(data, flags, x, y, annulus, listed, rows, results), y, threads
        )
    level, error, std, n, share, median = results.T.copy()
    if background == "annulus-median":
        shift = np.where(median > 0, MEDIAN_SHIFT, MEAN_SHIFT)
        level += shift * _skewness(std, gain, read_noise)
    elif background == "frame":
        found = np.isfinite(std)
        one, spread, n_frame, shift = _whole_frame(data, _bad(flags))
        one += shift * float(_skewness(np.float64(spread), gain, read_noise))
        level = np.where(found, one, np.nan)
        error = np.where(found, spread * np.sqrt(np.pi / 2 / n_frame), np.nan)
    elif background == "none":
        level = error = np.where(np.isfinite(std), 0.0, np.nan)
    # The few pixels of a narrow annulus may all be good, and still be too few.
    poor = (share < POOR_SHARE) | np.isnan(std)
    return SkyLevels(level, error, std, n, poor, no_plane, level)


def _bad(flags):
    """Return the mask of the flagged pixels, None where there are no flags."""
    return flags != 0 if flags.size else None


def _from_map(data, flags, x, y, sky, gain, read_noise):
    """Levels of a map, and the scatter that goes with it."""
    if sky is None:
        sky = background_map(data, mask=_bad(flags))
    plane, noise = (np.ascontiguousarray(one, np.float32) for one in (sky.level, sky.noise))
    if plane.shape != data.shape or noise.shape != data.shape:
        raise ValueError(f"the sky has the shape {plane.shape}, the frame {data.shape}")
    known = np.isfinite(x) & np.isfinite(y)
    known[known] = (np.abs(x[known]) < 1e9) & (np.abs(y[known]) < 1e9)
    column, row = (
        np.clip(np.rint(np.where(known, place, 0)).astype(int), 0, size - 1)
        for place, size in ((x, data.shape[1]), (y, data.shape[0]))
    )
    level, std = (np.where(known, one[row, column], np.nan).astype(float) for one in (plane, noise))
    # Where the steps of the digitisation are wider than the noise the map has means.
    with np.errstate(invalid="ignore"):
        shift = np.where(std < _step(data), MEAN_SHIFT, MODE_SHIFT)
    rest = shift * _skewness(std, gain, read_noise)
    poor = np.zeros(x.size, bool)
    n = np.where(known, 0.5 * np.pi / MAP_ERROR**2, 0)
    return SkyLevels(level + rest, MAP_ERROR * std, std, n, poor, plane, rest)


def _whole_frame(data, bad):
    """Clipped median of a frame, its standard deviation, number of pixels kept, and shift."""
    sky = sky_statistics(data, bad)
    good = np.abs(data - sky.median) <= CLIP * sky.std
    if bad is not None:
        good &= ~bad
    values = data[good]
    # Among equal whole counts: where in their step the median falls, as for annuli.
    below, above = values[values < sky.median], values[values > sky.median]
    ties = values.size - below.size - above.size
    if ties < 2 or not below.size or not above.size:
        return sky.median, sky.std, values.size, MEDIAN_SHIFT
    if ties > COARSE * values.size:
        return sky.mean, sky.std, values.size, MEAN_SHIFT
    step = min(sky.median - float(below.max()), float(above.min()) - sky.median)
    level = sky.median + step * ((0.5 * values.size - below.size) / ties - 0.5)
    return level, sky.std, values.size, MEDIAN_SHIFT


def _step(data):
    """Step of the digitisation, 0 where the values of the pixels are nearly all different."""
    values = data.ravel()[:: max(data.size // 4096, 1)]
    values = values[np.isfinite(values)]
    different = np.unique(values)
    if different.size < 2 or different.size > values.size / 2:
        return 0.0
    return float(np.diff(different).min())


def _skewness(std, gain, read_noise):
    """Third moment over the variance of sky with this scatter, in counts; 0 without a gain."""
    if gain is None:
        return np.zeros_like(std)
    with np.errstate(invalid="ignore", divide="ignore"):
        poissonian = 1 - np.square(read_noise / (gain * std))
        real = gain * std > LEAST_NOISE
    return np.where(real, np.maximum(poissonian, 0), 0) / gain
