"""Widths: Moffat profiles fitted to the stars of a frame, pixel by pixel."""

import math

import numpy as np
from numba import njit

__all__ = ["field_beta", "moffat_widths"]

#: Values of 1 / beta tried on a frame: from a Gaussian (nearly 0) to the widest wings.
FLATNESS = np.linspace(0.01, 0.51, 6)
#: Slope where the stars do not tell it; seeing gives 2.5 to 4.8 (Trujillo et al. 2001).
BETA = 3.5
#: A pixel this many times above the scatter, and not so on the other side, is a neighbour's.
KAPPA = 4.0
#: Narrowest star in pixels; a hot pixel ends here. The pixel integral below is good to 1 px.
FWHM_MIN = 0.8
#: A star is fitted out to this many widths and pixels more.
REACH, MARGIN = 1.75, 1.5


def field_beta(sky, bad, x, y, width, peak, noise):
    """Slope of the Moffat profile that fits the bright stars of a field best.

    Each star is fitted with six slopes. The sum of squares, in units of the star's peak, is close
    to a parabola in 1 / beta; the median parabola of the stars has its lowest point at the answer.

    Parameters
    ----------
    sky, bad, x, y, width
        As for `moffat_widths`.
    peak : numpy.ndarray of float, shape (n,)
        Height of the stars above the sky.
    noise : numpy.ndarray
        Standard deviation of the pixels; only stars above ten times its median are used.

    Returns
    -------
    float
        Beta between 1.96 and 100 (a Gaussian); 3.5 where fewer than three stars tell it.
    """
    bright = np.argsort(-peak)[: min(40 + len(peak) // 20, 200)]
    # The very brightest may be saturated; the next ones are as good.
    bright = bright[len(bright) // 4 :]
    bright = bright[peak[bright] > 10 * np.median(noise)] if len(bright) else bright
    x, y, width = x[bright], y[bright], float(width)
    misfit = np.array([moffat_widths(sky, bad, x, y, width, 1 / f)[1] for f in FLATNESS])
    # In units of the peak all stars have one parabola. The noise only lifts it, differently for
    # each star, so the mean of each star's own values is taken off.
    loss = (misfit / peak[bright]) ** 2
    loss = loss[:, np.isfinite(loss).all(axis=0)]
    if loss.shape[1] < 3:
        return BETA
    loss = np.median(loss - loss.mean(axis=0), axis=1)
    best = min(max(int(np.argmin(loss)), 1), len(FLATNESS) - 2)
    before, middle, after = loss[best - 1 : best + 2]
    bend = before + after - 2 * middle
    lowest = best + 0.5 * (before - after) / bend if bend > 0 else float(np.argmin(loss))
    return 1 / float(np.interp(lowest, np.arange(len(FLATNESS)), FLATNESS))


def moffat_widths(sky, bad, x, y, width, beta):
    r"""Fit round Moffat profiles, integrated over the pixels, on a constant.

    .. math:: m(r) = (1 + r^2 / \alpha^2)^{-\beta}, \quad
              \mathrm{FWHM} = 2 \alpha \sqrt{2^{1/\beta} - 1}

    Gauss-Newton in height, constant, position and the logarithm of alpha squared, over the pixels
    within 1.75 widths + 1.5 px. Pixels of a neighbour (high, while the other side of the star is
    not) are left out. Each star is on its own: lists can be cut and measured in several threads.

    Parameters
    ----------
    sky : numpy.ndarray of float32, shape (ny, nx)
        Frame without sky.
    bad : numpy.ndarray of bool, shape (ny, nx)
        True where a pixel must not be used.
    x, y : numpy.ndarray of float64, shape (n,)
        Positions in pixels, good to a third of the width.
    width : float
        Typical FWHM of the field in pixels.
    beta : float
        Slope of the profile.

    Returns
    -------
    fwhm : numpy.ndarray of float64, shape (n,)
        FWHM in pixels of the profile before the pixels smeared it; 0.8 for what is narrower, NaN
        where no fit was found. Of a long star the geometric mean of its axes, less 2 % at an
        elongation of 1.5 and 4 to 7 % at 2.
    misfit : numpy.ndarray of float64, shape (n,)
        Root mean square of the residuals, in the unit of the frame.
    """
    side = 2 * int(REACH * width + MARGIN) + 3
    fwhm, misfit = np.full(len(x), np.nan), np.full(len(x), np.nan)
    rows = np.ones((8, side * side))
    room = np.empty((6, 7)), np.empty(3), np.empty((side, side))
    _fit_stars(sky, bad, x, y, float(width), float(beta), rows, *room, fwhm, misfit)
    return fwhm, misfit


@njit(cache=True, nogil=True)
def _fit_stars(sky, bad, x, y, width, beta, rows, sums, star, stamp, fwhm, misfit):
    """Write width and misfit of each star.

    The rows of ``rows`` are, for each pixel: 1, the profile, its slopes by x, y and log alpha^2,
    the value, x and y.
    """
    ny, nx = sky.shape
    side = stamp.shape[0]
    radius = REACH * width + MARGIN
    narrow = 4 * (2 ** (1 / beta) - 1)
    first = math.log(width * width / narrow)
    low, high = math.log(FWHM_MIN**2 / narrow), first + math.log(36)
    for k in range(x.size):
        n = 0
        left, under = int(x[k] - radius), int(y[k] - radius)
        for j in range(max(0, under), min(ny, under + side)):
            for i in range(max(0, left), min(nx, left + side)):
                d2 = (i - x[k]) ** 2 + (j - y[k]) ** 2
                if d2 <= radius * radius and not bad[j, i]:
                    rows[5, n], rows[6, n], rows[7, n] = sky[j, i], i - left, j - under
                    n += 1
        star[0], star[1], star[2] = x[k] - left, y[k] - under, first
        good = False
        for turn in range(7):
            # A neighbour would draw the centre to it: it rests until the neighbour is left out.
            good = n >= 8 and _fit(rows, n, sums, star, beta, low, high, turn > 0)
            if not good:
                break
            kept = _without_neighbours(rows, n, sums, star, 0.8 * width, stamp)
            offset = math.hypot(sums[2, 5], sums[3, 5]) / sums[1, 5]
            if kept == n and (turn > 0 or offset < 0.02 * width):
                break
            n = kept
        if good:
            fwhm[k] = math.sqrt(math.exp(star[2]) * narrow)
            misfit[k] = math.sqrt(max(sums[5, 5], 0.0) / n)


@njit(cache=True, nogil=True)
def _fit(rows, n, sums, star, beta, low, high, free):
    """Improve star (x, y, log alpha^2) until its width rests; tell whether it does."""
    for _step in range(40):
        _profile(rows, n, star, beta)
        if not _solve(rows, n, sums) or sums[1, 5] <= 0:
            return False
        height, before = sums[1, 5], star[2]
        dx = dy = 0.0
        if free:
            dx = min(max(sums[2, 5] / height, -0.3), 0.3)
            dy = min(max(sums[3, 5] / height, -0.3), 0.3)
            star[0] += dx
            star[1] += dy
        star[2] = max(before + min(max(sums[4, 5] / height, -0.5), 0.5), low)
        if star[2] > high:
            return False
        # The steps shrink twentyfold and more: these leave less than 1e-4 of the width.
        if abs(star[2] - before) < 4e-3 and max(abs(dx), abs(dy)) < 0.02:
            return True
    return False


@njit(cache=True, nogil=True)
def _profile(rows, n, star, beta):
    r"""Write the Moffat profile, averaged over each pixel, and its slopes.

    The average of m over a square of one pixel is, to fourth order (Taylor series),
    m + (m_xx + m_yy) / 24 + (m_xxxx + m_yyyy) / 1920 + m_xxyy / 576: one power for each pixel.
    """
    a2 = math.exp(star[2])
    for p in range(n):
        dx, dy = rows[6, p] - star[0], rows[7, p] - star[1]
        xx, yy = dx * dx / a2, dy * dy / a2
        u = xx + yy
        t = 1 / (1 + u)
        m = t**beta
        # Derivatives of (1 + u)^-beta by u.
        f1 = -beta * m * t
        f2 = -(beta + 1) * f1 * t
        f3 = -(beta + 2) * f2 * t
        f4 = -(beta + 3) * f3 * t
        second = (f1 + u * f2) / (6 * a2)
        fourth = (24 * f2 + 48 * u * f3 + 16 * (xx * xx + yy * yy) * f4) / 1920
        fourth = (fourth + (4 * f2 + 8 * u * f3 + 16 * xx * yy * f4) / 576) / (a2 * a2)
        rows[1, p] = m + second + fourth
        # Slopes to second order: they steer the steps, the profile decides where they end.
        slope = f1 + (2 * f2 + u * f3) / (6 * a2)
        rows[2, p] = -2 * dx / a2 * slope
        rows[3, p] = -2 * dy / a2 * slope
        rows[4, p] = -u * slope - second


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _solve(rows, n, sums):
    """Least squares of row 5 by rows 0 to 4: answers in sums[:5, 5], sum of squares in [5, 5]."""
    size = len(sums)
    for a in range(size):
        for b in range(a + 1):
            total = 0.0
            for p in range(n):
                total += rows[a, p] * rows[b, p]
            sums[a, b] = sums[b, a] = total
        sums[a, 6] = sums[a, a]
    for a in range(size - 1):
        # Rows that cannot be told apart leave nothing to divide by.
        if not sums[a, a] > 1e-7 * sums[a, 6]:
            return False
        for b in range(a + 1, size):
            factor = sums[b, a] / sums[a, a]
            for c in range(a + 1, size):
                sums[b, c] -= factor * sums[a, c]
    for a in range(size - 2, -1, -1):
        for b in range(a + 1, size - 1):
            sums[a, 5] -= sums[a, b] * sums[b, 5]
        sums[a, 5] /= sums[a, a]
    return True


@njit(cache=True, nogil=True)
def _without_neighbours(rows, n, sums, star, inner, stamp):
    """Drop pixels beyond inner that rise above the fit on one side only; count what stays."""
    for j in range(stamp.shape[0]):
        for i in range(stamp.shape[1]):
            stamp[j, i] = 0.0
    below, count = 0.0, 1
    for p in range(n):
        rest = rows[5, p] - sums[0, 5] - sums[1, 5] * rows[1, p]
        stamp[int(rows[7, p]), int(rows[6, p])] = rest
        # A neighbour adds light: the pixels below the fit tell the scatter without it.
        if rest < 0:
            below += rest * rest
            count += 1
    limit = KAPPA * math.sqrt(below / count)
    kept = 0
    for p in range(n):
        j, i = int(rows[7, p]), int(rows[6, p])
        rest = stamp[j, i]
        if rest > limit and math.hypot(i - star[0], j - star[1]) > inner:
            jm, im = round(2 * star[1]) - j, round(2 * star[0]) - i
            inside = 0 <= jm < stamp.shape[0] and 0 <= im < stamp.shape[1]
            # A trailed star and wings that the profile lacks rise on both sides.
            if rest - (stamp[jm, im] if inside else 0.0) > limit:
                continue
        rows[5, kept], rows[6, kept], rows[7, kept] = rows[5, p], i, j
        kept += 1
    return kept
