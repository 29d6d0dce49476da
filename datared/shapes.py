"""Shapes: where the image of a star is centred, how wide it is and how round."""

import math

import numpy as np
from numba import njit

from datared.widths import field_beta, moffat_widths

__all__ = [
    "SIGMA_TO_FWHM",
    "centroid_windowed",
    "elongation",
    "field_beta",
    "moffat_widths",
    "peaks",
    "windowed_moments",
]

SIGMA_TO_FWHM = 2 * math.sqrt(2 * math.log(2))
#: Variance of a square of one pixel along each axis, px^2: what a pixel adds to a profile.
PIXEL_VARIANCE = 1 / 12
#: Narrowest window in pixels: in a smaller one the sum over pixels is no longer the integral.
SIGMA_MIN = 1.1
#: Times that the window takes the shape of the star before the shape is read: 1 leaves 2 % of an
#: elongation of 2, none leaves 7 %; more adds noise.
SHAPE_STEPS = 1
#: Slope of the Moffat profile that fills a masked pixel, and the largest number of times that it
#: is filled with the centre found before; each leaves about a tenth of the error.
FILL_BETA, FILL_STEPS = 3.5, 8


def centroid_windowed(data, x, y, *, fwhm, mask=None):
    r"""Centroids in a Gaussian window that moves with the star.

    .. math:: x' = x + 2 \frac{\sum w_i I_i (x_i - x)}{\sum w_i I_i}

    until it rests (Bertin's XWIN_IMAGE). With the window as wide as the star the error is close
    to that of a fit of the profile. The window is never narrower than 2.6 px.

    A missing pixel would pull the centroid to the other side. It gets the value
    :math:`m \sum I_i / \sum m_i` of the good pixels around it (3 x 3, or more until three are
    good), with a Moffat profile m of the given width at the centroid, found in turns.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        Frame without sky.
    x, y : array-like of float, shape (n,)
        First positions in pixels.
    fwhm : float
        Width of the stars in pixels.
    mask : numpy.ndarray of bool, shape (ny, nx), optional
        True where a pixel must not be used. Pixels that are not finite never are.

    Returns
    -------
    x, y : numpy.ndarray of float, shape (n,)
        Better positions; the first ones where no better were found.

    Raises
    ------
    ValueError
        If the shape of the mask is not that of the frame.
    """
    x, y = np.array(x, float, ndmin=1), np.array(y, float, ndmin=1)
    frame = np.ascontiguousarray(data, np.float32)
    bad = ~np.isfinite(frame)
    if mask is not None:
        if np.shape(mask) != frame.shape:
            raise ValueError(f"the mask has the shape {np.shape(mask)}, the frame {frame.shape}")
        bad |= mask
    sigma = fwhm / SIGMA_TO_FWHM
    if bad.any():
        # Filled for one star after the other, so the frame that was given must not be used.
        frame = np.where(bad, np.float32(0), frame)
        _masked_centroids(frame, bad, x, y, sigma)
    else:
        windowed_moments(frame, x, y, sigma, np.full((x.size, 3), np.nan))
    return x, y


def elongation(shape):
    r"""Long by short axis of stars, freed of the pixels' smear.

    .. math:: e = \sqrt{\frac{h + r}{h - r}}, \quad h = \frac{m_{xx} + m_{yy}}{2} - \frac{1}{12},
              \quad r = \sqrt{\left(\frac{m_{xx} - m_{yy}}{2}\right)^2 + m_{xy}^2}

    Parameters
    ----------
    shape : numpy.ndarray of float, shape (n, 3)
        Moments xx, yy and xy in px^2, from `windowed_moments`.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        1 for a round star; NaN where the moments are NaN. Noise makes it larger, never smaller.
    """
    xx, yy, xy = shape.T
    half, root = (xx + yy) / 2 - PIXEL_VARIANCE, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return np.sqrt(np.maximum(half + root, 1e-3) / np.maximum(half - root, 1e-3))


def peaks(sky, noise, x, y):
    """Highest pixel near each position, the mean of its eight neighbours, and its error.

    Parameters
    ----------
    sky : numpy.ndarray, shape (ny, nx)
        Frame without sky.
    noise : numpy.ndarray, shape (ny, nx)
        Standard deviation of its pixels.
    x, y : numpy.ndarray of float, shape (n,)
        Positions in pixels.

    Returns
    -------
    peak, around, error : numpy.ndarray of float, shape (n,)
        Highest of the 3 x 3 pixels at the position, the mean of the eight around that one, and
        the standard deviation of that mean.
    """
    ny, nx = sky.shape
    column = np.clip(np.rint(x).astype(int), 1, max(nx - 2, 1))
    row = np.clip(np.rint(y).astype(int), 1, max(ny - 2, 1))
    steps = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
    best = np.argmax([sky[row + j, column + i] for j, i in steps], axis=0)
    row = np.clip(row + best // 3 - 1, 1, max(ny - 2, 1))
    column = np.clip(column + best % 3 - 1, 1, max(nx - 2, 1))
    around = np.mean([sky[row + j, column + i] for j, i in steps if (j, i) != (0, 0)], axis=0)
    return sky[row, column].astype(float), around, noise[row, column] / math.sqrt(8)


@njit(cache=True, nogil=True)
def windowed_moments(sky, x, y, sigma, shape):
    """Move positions to their windowed centroids; write the moments of the stars.

    The window starts round and then takes the shape of the star, so that the shape is right for
    any profile with elliptical contours. Each star is on its own: lists can be cut and measured in
    several threads.

    Parameters
    ----------
    sky : numpy.ndarray of float32, shape (ny, nx)
        Frame without sky.
    x, y : numpy.ndarray of float64, shape (n,)
        First positions in pixels; changed in place where the centroid rests.
    sigma : float
        Standard deviation of the window in pixels, as wide as the stars; at least 1.1 px is taken.
    shape : numpy.ndarray of float64, shape (n, 3)
        Place for xx, yy and xy in px^2, as the pixels see the star (their smear included);
        untouched where they cannot be measured.
    """
    sigma = max(sigma, SIGMA_MIN)
    reach = math.ceil(4 * sigma)
    weight = np.empty(2 * reach + 1)
    for k in range(x.size):
        cx, cy = x[k], y[k]
        a = b = 1 / sigma**2
        c = total = 0.0
        for _step in range(30):
            total, sx, sy, xx, yy, xy = _window_sums(sky, cx, cy, reach, a, b, c, weight)
            if total <= 0:
                break
            cx += 2 * sx / total
            cy += 2 * sy / total
            if math.hypot(cx - x[k], cy - y[k]) > 2.5 * sigma:
                total = 0.0
                break
            if math.hypot(sx, sy) < 5e-5 * total:
                break
        if total <= 0:
            continue
        x[k], y[k] = cx, cy
        for step in range(SHAPE_STEPS + 1):
            # The product of two Gaussians has the inverse variance 1/star + 1/window.
            xx, yy, xy = xx / total, yy / total, xy / total
            det = xx * yy - xy * xy
            if det <= 0:
                break
            p, q, r = yy / det - a, xx / det - b, -xy / det - c
            det = p * q - r * r
            if det <= 0 or p <= 0:
                break
            shape[k, 0], shape[k, 1], shape[k, 2] = q / det, p / det, -r / det
            # A window far from the first would leave its box or starve of pixels.
            half, root = (p + q) / 2, math.hypot((p - q) / 2, r)
            if step == SHAPE_STEPS or half + root > 8 * sigma**-2 or half - root < sigma**-2 / 4:
                break
            a, b, c = p, q, r
            total, sx, sy, xx, yy, xy = _window_sums(sky, cx, cy, reach, a, b, c, weight)
            if total <= 0:
                break


@njit(cache=True, nogil=True)
def _window_sums(sky, cx, cy, reach, a, b, c, weight):
    """Sum light and its moments in the window exp(-(a dx^2 + b dy^2 + 2 c dx dy) / 2)."""
    ny, nx = sky.shape
    left, right = max(0, round(cx) - reach), min(nx, round(cx) + reach + 1)
    for i in range(left, right):
        weight[i - left] = math.exp(-0.5 * a * (i - cx) ** 2)
    total = sx = sy = xx = yy = xy = 0.0
    for j in range(max(0, round(cy) - reach), min(ny, round(cy) + reach + 1)):
        dy = j - cy
        # Along a row the mixed term is a geometric series: no exponential for each pixel.
        w, ratio = (
            math.exp(-0.5 * b * dy * dy - c * dy * (left - cx)),
            math.exp(-c * dy),
        )
        r0 = r1 = r2 = 0.0
        for i in range(left, right):
            light = w * weight[i - left] * sky[j, i]
            w *= ratio
            r0 += light
            r1 += light * (i - cx)
            r2 += light * (i - cx) ** 2
        total += r0
        sx += r1
        sy += dy * r0
        xx += r2
        yy += dy * dy * r0
        xy += dy * r1
    return total, sx, sy, xx, yy, xy


@njit(cache=True, nogil=True)
def _masked_centroids(sky, bad, x, y, sigma):
    """Move positions to their centroids; bad pixels of ``sky`` are filled for each star anew."""
    ny, nx = sky.shape
    shape = np.empty((1, 3))
    reach = math.ceil(6.5 * max(sigma, SIGMA_MIN))
    for k in range(x.size):
        # Far off, or no number: no pixel is near.
        if not (-reach < x[k] < nx + reach and -reach < y[k] < ny + reach):
            continue
        for _turn in range(FILL_STEPS):
            before_x, before_y = x[k], y[k]
            filled = 0
            for j in range(max(0, round(y[k]) - reach), min(ny, round(y[k]) + reach + 1)):
                for i in range(max(0, round(x[k]) - reach), min(nx, round(x[k]) + reach + 1)):
                    if bad[j, i]:
                        sky[j, i] = _likely(sky, bad, i, j, x[k], y[k], sigma)
                        filled += 1
            windowed_moments(sky, x[k : k + 1], y[k : k + 1], sigma, shape)
            if not filled or math.hypot(x[k] - before_x, y[k] - before_y) < 1e-3:
                break


@njit(cache=True, nogil=True)
def _likely(sky, bad, i, j, x, y, sigma):
    """Value of a pixel by the good ones around it, and by the profile of a star at x, y."""
    ny, nx = sky.shape
    scale = 4 * (2 ** (1 / FILL_BETA) - 1) / (SIGMA_TO_FWHM**2 * (sigma**2 + PIXEL_VARIANCE))
    for size in range(1, 5):
        light, weight, n = 0.0, 0.0, 0
        for b in range(max(0, j - size), min(ny, j + size + 1)):
            for a in range(max(0, i - size), min(nx, i + size + 1)):
                if not bad[b, a]:
                    light += sky[b, a]
                    weight += (1 + scale * ((a - x) ** 2 + (b - y) ** 2)) ** -FILL_BETA
                    n += 1
        if n >= 3:
            return light / weight * (1 + scale * ((i - x) ** 2 + (j - y) ** 2)) ** -FILL_BETA
    return 0.0
