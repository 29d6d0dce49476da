"""Positions moved to where the stars are: windowed centroids of stars cut out of a frame."""

import math

import numpy as np
from numba import njit

from . import pixels
from .annuli import ring_median
from .apertures import BROKEN, cut_out, over_stars
from .shapes import SIGMA_TO_FWHM, centroid_windowed

__all__ = ["recentre_stars"]

#: A star with less signal-to-noise than this in the window has no centroid: noise would lead it.
LEAST_SIGNAL = 5.0
#: A star that is moved by less than this at the first step, in pixels, is where it should be.
AT_REST = 1e-4
#: Width in pixels of stars below which the window is that of this width.
NARROWEST = 2.6


def recentre_stars(data, flags, x, y, *, limit, fwhm, annulus, threads=None):
    """Move positions to the windowed centroids of their stars.

    Parameters
    ----------
    data, flags, x, y
        As in `datared.annuli.ring_median`.
    limit : float
        Largest shift in pixels.
    fwhm : float
        Width of the stars in pixels.
    annulus : tuple of float
        Inner and outer radius, in pixels, of the annulus whose clipped median is the sky.
    threads : int, optional
        Number of threads.

    Returns
    -------
    x, y : numpy.ndarray of float, shape (n,)
        New positions; the given ones where the centroid is farther away than the limit, or where
        there is none: no light of S/N 5 in a window as wide as a star.
    centred : numpy.ndarray of bool, shape (n,)
        True where a centroid was found.
    """
    new_x, new_y = x.copy(), y.copy()
    sky = np.empty((x.size, 6))
    signal = np.zeros(x.size)
    sigma = max(fwhm, NARROWEST) / SIGMA_TO_FWHM
    # The window, as far as it may go.
    half = math.ceil(4 * sigma) + math.ceil(2.5 * sigma) + 2
    nobody = np.empty(0, np.int64), 0.0

    def work(rows):
        ring_median(data, flags, x, y, annulus, nobody, rows, sky)
        rows = rows[np.isfinite(sky[rows, 0])]
        size = 2 * half + 1
        stamps = np.empty((rows.size * size, size), np.float32)
        bad = np.empty(stamps.shape, bool)
        start = np.empty((rows.size, 3))
        _stamps(data, flags, x, y, sky, sigma, rows, stamps, bad, start, signal)
        found_x, found_y = centroid_windowed(stamps, *start.T[:2], fwhm=fwhm, mask=bad)
        moved = found_x - start[:, 0], found_y - start[:, 1]
        # What does not rest and has not moved has run away.
        lost = (moved[0] == 0) & (moved[1] == 0) & ~(start[:, 2] < AT_REST)
        signal[rows[lost]] = 0.0
        new_x[rows] += moved[0]
        new_y[rows] += moved[1]

    over_stars(work, y, threads)
    with np.errstate(invalid="ignore"):
        centred = (signal >= LEAST_SIGNAL) & (np.hypot(new_x - x, new_y - y) <= limit)
    return np.where(centred, new_x, x), np.where(centred, new_y, y), centred


@njit(cache=True, nogil=True)
def _stamps(data, flags, x, y, sky, sigma, rows, stamps, bad, start, signal):
    """Cut stars out, one above the other, and write their signal-to-noise in the window.

    ``start`` gets the positions in the stamps and the length of the first step in pixels.
    """
    size = stamps.shape[1]
    value, state = np.empty((size, size)), np.empty((size, size), np.uint16)
    no_sky = np.empty((0, 0), np.float32)
    for m in range(rows.size):
        k = rows[m]
        left, bottom = round(x[k]) - size // 2, round(y[k]) - size // 2
        cut_out(data, flags, no_sky, left, bottom, value, state)
        cx, cy = x[k] - left, y[k] - bottom
        start[m, 0], start[m, 1] = cx, cy + m * size
        light = along = up = weights = 0.0
        for b in range(size):
            for a in range(size):
                stamps[m * size + b, a], bad[m * size + b, a] = 0.0, False
                if state[b, a] & pixels.OUTSIDE:
                    continue
                if state[b, a] & BROKEN and not state[b, a] & pixels.REPAIRED:
                    bad[m * size + b, a] = True
                    continue
                excess = value[b, a] - sky[k, 0]
                stamps[m * size + b, a] = excess
                w = math.exp(-0.5 * ((a - cx) ** 2 + (b - cy) ** 2) / sigma**2)
                light += w * excess
                along += w * excess * (a - cx)
                up += w * excess * (b - cy)
                weights += w * w
        start[m, 2] = 2 * math.hypot(along, up) / light if light > 0 else math.inf
        noise = sky[k, 2] * math.sqrt(weights)
        signal[k] = light / noise if noise > 0 else light * math.inf
