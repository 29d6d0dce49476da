"""Shapes: where the image of a star is centred, how wide it is and how round."""

import math

import numpy as np
from numba import njit

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
#: A pixel smears a profile by the width of a square: variance 1/12 px^2, as a FWHM squared.
PIXEL_FWHM2 = SIGMA_TO_FWHM**2 / 12
#: Slopes of Moffat profiles that are tried on a frame; 20 is close to a Gaussian.
BETAS = (2.0, 2.5, 3.0, 3.5, 4.5, 6.0, 20.0)


def centroid_windowed(data, x, y, *, fwhm):
    r"""Centroids in a Gaussian window that moves with the star.

    .. math:: x' = x + 2 \frac{\sum w_i I_i (x_i - x)}{\sum w_i I_i}

    until it rests (Bertin's XWIN_IMAGE). With the window as wide as the star the error is close
    to that of a fit of the profile.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        Frame without sky.
    x, y : array-like of float, shape (n,)
        First positions in pixels.
    fwhm : float
        Width of the stars in pixels.

    Returns
    -------
    x, y : numpy.ndarray of float, shape (n,)
        Better positions; the first ones where no better were found.
    """
    x, y = np.array(x, float, ndmin=1), np.array(y, float, ndmin=1)
    shape = np.full((x.size, 3), np.nan)
    windowed_moments(np.ascontiguousarray(data, np.float32), x, y, fwhm / SIGMA_TO_FWHM, shape)
    return x, y


def elongation(shape):
    """Long by short axis from the moments (xx, yy, xy)."""
    xx, yy, xy = shape.T
    half, root = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return np.sqrt((half + root) / np.maximum(half - root, 1e-3))


def peaks(sky, noise, x, y):
    """Highest pixel near each position, the mean of its eight neighbours, and its error."""
    ny, nx = sky.shape
    column = np.clip(np.rint(x).astype(int), 1, max(nx - 2, 1))
    row = np.clip(np.rint(y).astype(int), 1, max(ny - 2, 1))
    steps = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
    best = np.argmax([sky[row + j, column + i] for j, i in steps], axis=0)
    row = np.clip(row + best // 3 - 1, 1, max(ny - 2, 1))
    column = np.clip(column + best % 3 - 1, 1, max(nx - 2, 1))
    around = np.mean([sky[row + j, column + i] for j, i in steps if (j, i) != (0, 0)], axis=0)
    return sky[row, column].astype(float), around, noise[row, column] / math.sqrt(8)


def field_beta(sky, bad, x, y, width, peak, noise):
    """Slope of the Moffat profile that fits the brightest well-detected stars best."""
    bright = np.argsort(-peak)[: 40 + len(peak) // 20]
    # The very brightest may be saturated; the next ones are as good.
    bright = bright[len(bright) // 4 :]
    bright = bright[peak[bright] > 10 * np.median(noise)] if len(bright) else bright
    if len(bright) < 3:
        return 3.5
    misfits = [
        np.nanmedian(moffat_widths(sky, bad, x[bright], y[bright], float(width), beta)[1])
        for beta in BETAS
    ]
    return BETAS[int(np.argmin(misfits))]


@njit(cache=True)
def windowed_moments(sky, x, y, sigma, shape):
    """Move positions to their windowed centroids; write the shape's moments (xx, yy, xy)."""
    ny, nx = sky.shape
    reach = math.ceil(4 * sigma)
    for k in range(x.size):
        cx, cy = x[k], y[k]
        total = 0.0
        xx = yy = xy = 0.0
        for _step in range(30):
            i0, j0 = round(cx), round(cy)
            total = sx = sy = xx = yy = xy = 0.0
            for j in range(max(0, j0 - reach), min(ny, j0 + reach + 1)):
                for i in range(max(0, i0 - reach), min(nx, i0 + reach + 1)):
                    dx, dy = i - cx, j - cy
                    r2 = (dx * dx + dy * dy) / (sigma * sigma)
                    if r2 > 16:
                        continue
                    w = math.exp(-0.5 * r2) * sky[j, i]
                    total += w
                    sx += w * dx
                    sy += w * dy
                    xx += w * dx * dx
                    yy += w * dy * dy
                    xy += w * dx * dy
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
        # The product of two Gaussians has the inverse variance 1/star + 1/window.
        xx, yy, xy = xx / total, yy / total, xy / total
        det = xx * yy - xy * xy
        if det <= 0:
            continue
        a, b, c = yy / det - 1 / sigma**2, xx / det - 1 / sigma**2, -xy / det
        det = a * b - c * c
        if det > 0 and a > 0:
            shape[k] = b / det, a / det, -c / det


@njit(cache=True)
def moffat_widths(sky, bad, x, y, width, beta):
    """Fit round Moffat profiles on a constant; return FWHM and relative misfit of each star.

    Gauss-Newton in height, constant and the logarithm of alpha squared.
    """
    ny, nx = sky.shape
    fwhm, misfit = np.full(x.size, np.nan), np.full(x.size, np.nan)
    narrow = 4 * (2 ** (1 / beta) - 1)
    radius = 1.5 * width + 1.5
    n_max = (2 * int(radius) + 3) ** 2
    r2, value = np.empty(n_max), np.empty(n_max)
    for k in range(x.size):
        n = 0
        for j in range(max(0, int(y[k] - radius)), min(ny, int(y[k] + radius) + 2)):
            for i in range(max(0, int(x[k] - radius)), min(nx, int(x[k] + radius) + 2)):
                d2 = (i - x[k]) ** 2 + (j - y[k]) ** 2
                if d2 <= radius * radius and not bad[j, i]:
                    r2[n], value[n] = d2, sky[j, i]
                    n += 1
        if n < 8:
            continue
        log_a2 = math.log((width * width + PIXEL_FWHM2) / narrow)
        height = constant = 0.0
        good = False
        for _step in range(40):
            a2 = math.exp(log_a2)
            # Height and constant by linear least squares at this width.
            sm = smm = sv = smv = 0.0
            for p in range(n):
                m = (1 + r2[p] / a2) ** -beta
                sm += m
                smm += m * m
                sv += value[p]
                smv += m * value[p]
            det = n * smm - sm * sm
            if det <= 0:
                break
            height = (n * smv - sm * sv) / det
            constant = (sv - height * sm) / n
            if height <= 0:
                break
            # One step in the width, with the derivative freed of its part along the other two.
            sd = sdm = 0.0
            for p in range(n):
                t = 1 + r2[p] / a2
                m = t**-beta
                d = height * beta * m * (r2[p] / a2) / t
                sd += d
                sdm += d * m
            c1 = (n * sdm - sm * sd) / det
            c0 = (sd - c1 * sm) / n
            top = bottom = ssq = 0.0
            for p in range(n):
                t = 1 + r2[p] / a2
                m = t**-beta
                d = height * beta * m * (r2[p] / a2) / t - c0 - c1 * m
                rest = value[p] - constant - height * m
                top += d * rest
                bottom += d * d
                ssq += rest * rest
            if bottom <= 0:
                break
            move = min(max(top / bottom, -0.5), 0.5)
            log_a2 = min(max(log_a2 + move, -3.0), 9.0)
            misfit[k] = math.sqrt(ssq / n) / height
            if abs(move) < 1e-4:
                good = True
                break
        if good:
            w2 = math.exp(log_a2) * narrow
            fwhm[k] = math.sqrt(max(w2 - PIXEL_FWHM2, 0.01))
    return fwhm, misfit
