"""Star profiles: Gaussian and Moffat, averaged over the pixels, with their slopes (compiled)."""

import math

import numpy as np
from numba import njit

__all__ = ["COMPILED", "GAUSS", "INNER", "MOFFAT", "N_ROWS", "ROUND_GAUSS", "draw"]

#: How the loops over the pixels of stars are compiled: numbers without a value become NaN, which
#: ends the fit of one star, and no error, which would end those of all stars.
COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}
#: The same for those that only compiled loops call: they have no way in from Python, which would
#: take longer to compile; called from there they crash (tests take their ``py_func``).
INNER = COMPILED | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

#: Places of the parameters of a star: flux, sky, x, y (px), log of the FWHM (px), two parts of the
#: elongation, and 1 / beta of the Moffat profile.
FLUX, SKY, X, Y, WIDTH, LONG, SLANT, FLAT = range(8)
#: Rows of the work space after the eight slopes: value, weight, column and row of each pixel, the
#: star's model (no sky), the weighted residual, and the variance without the star.
VALUE, WEIGHT, COLUMN, ROW, MODEL, REST, BASE = range(8, 15)
N_ROWS = 15

#: Profiles: Moffat, Gaussian, and a Gaussian that stays round.
MOFFAT, GAUSS, ROUND_GAUSS = range(3)
#: Below this width in pixels the pixels near the centre are cut into 2 x 2 cells.
FINE = 2.5
LN2 = math.log(2.0)


@njit(**COMPILED)
def draw(rows, n, star, profile):
    r"""Write the model of a star, averaged over each pixel, its weighted slopes and residuals.

    With the squared distance in half widths
    :math:`\rho = A\,dx^2 + B\,dy^2 + 2C\,dx\,dy` the profiles are

    .. math:: 2^{-\rho} \quad\mathrm{and}\quad (1 + k \rho)^{-\beta}, \quad k = 2^{1/\beta} - 1

    The average of f over a square cell of side q is, to fourth order (Taylor series),
    :math:`f + q^2 (f_{xx} + f_{yy}) / 24 + q^4 (f_{xxxx} + f_{yyyy}) / 1920 + q^4 f_{xxyy} / 576`.
    The slopes have the second order: they steer the steps, the model decides where they end.

    Parameters
    ----------
    rows : numpy.ndarray of float64, shape (15, n_max)
        The work space, filled by `datared.profilepixels.gather`.
    n : int
        Number of pixels.
    star : numpy.ndarray of float64, shape (8,)
        Parameters.
    profile : int
        `MOFFAT`, `GAUSS` or `ROUND_GAUSS`; the last is exact and quick.

    Returns
    -------
    float
        Chi-square.
    """
    if profile == ROUND_GAUSS:
        return _draw_round(rows, n, star)
    round_, long, slant = math.sqrt(1 + star[LONG] ** 2 + star[SLANT] ** 2), star[LONG], star[SLANT]
    scale = 4 * math.exp(-2 * star[WIDTH])
    qa, qb, qc = scale * (round_ - long), scale * (round_ + long), -scale * slant
    both = scale * slant / round_
    la, lb = scale * (long / round_ - 1), scale * (long / round_ + 1)
    flat = star[FLAT]
    if profile == GAUSS:
        k = power = k_flat = h_flat = 0.0
        c1 = c2 = c3 = c4 = LN2
        height = scale * LN2 / math.pi
    else:
        power = 1 / flat
        k = 2**flat - 1
        c1, c2, c3, c4 = power * k, (power + 1) * k, (power + 2) * k, (power + 3) * k
        height = scale * k * (power - 1) / math.pi
        k_flat = LN2 * 2**flat
        h_flat = k_flat / k - 1 / (flat * (1 - flat))
    short = star[WIDTH] - 0.5 * math.log(round_ + math.hypot(long, slant))
    # In units of the half width squared: the wings do not bend within a pixel.
    fine = 16.0 if short < math.log(FINE) else 0.0
    chi2 = 0.0
    for p in range(n):
        sum_m = sum_x = sum_y = sum_a = sum_b = sum_c = sum_f = 0.0
        dx, dy = rows[COLUMN, p] - star[X], rows[ROW, p] - star[Y]
        cut = 2 if qa * dx * dx + qb * dy * dy + 2 * qc * dx * dy < fine else 1
        q2 = 1 / (24 * cut * cut)
        q22 = q2 * q2
        q4 = 0.3 * q22
        for cell in range(cut * cut):
            dx = rows[COLUMN, p] - star[X] + ((cell % cut) + 0.5) / cut - 0.5
            dy = rows[ROW, p] - star[Y] + ((cell // cut) + 0.5) / cut - 0.5
            hx, hy = qa * dx + qc * dy, qb * dy + qc * dx
            rho = hx * dx + hy * dy
            ux, uy = 2 * hx, 2 * hy
            if profile == GAUSS:
                log, t = LN2 * rho, 1.0
                m = math.exp(-log)
            else:
                log, t = math.log(1 + k * rho), 1 / (1 + k * rho)
                m = math.exp(-power * log)
            f1 = -c1 * t * m
            f2 = -c2 * t * f1
            f3 = -c3 * t * f2
            f4 = -c4 * t * f3
            xx, yy = ux * ux, uy * uy
            second = q2 * (f2 * (xx + yy) + 2 * f1 * (qa + qb))
            fourth = q4 * (
                f4 * (xx * xx + yy * yy)
                + 12 * f3 * (qa * xx + qb * yy)
                + 12 * f2 * (qa * qa + qb * qb)
            ) + q22 * (
                f4 * xx * yy
                + f3 * (2 * qb * xx + 2 * qa * yy + 8 * qc * ux * uy)
                + f2 * (4 * qa * qb + 8 * qc * qc)
            )
            m += second + fourth
            slope = f1 + q2 * (f3 * (xx + yy) + 2 * f2 * (qa + qb))
            sum_m += m
            sum_x -= ux * slope + 4 * q2 * f2 * (qa * ux + qc * uy)
            sum_y -= uy * slope + 4 * q2 * f2 * (qc * ux + qb * uy)
            sum_a += dx * dx * slope + q2 * (4 * f2 * ux * dx + 2 * f1)
            sum_b += dy * dy * slope + q2 * (4 * f2 * uy * dy + 2 * f1)
            sum_c += 2 * dx * dy * slope + 4 * q2 * f2 * (ux * dy + uy * dx)
            if profile == MOFFAT:
                sum_f += m * (log * power * power - power * k_flat * rho * t + h_flat)
        unit = height / (cut * cut)
        root = math.sqrt(rows[WEIGHT, p])
        rows[MODEL, p] = star[FLUX] * unit * sum_m
        rest = root * (rows[VALUE, p] - star[SKY] - rows[MODEL, p])
        rows[REST, p] = rest
        chi2 += rest * rest
        unit *= root
        rows[FLUX, p] = unit * sum_m
        rows[SKY, p] = root
        unit *= star[FLUX]
        rows[X, p] = unit * sum_x
        rows[Y, p] = unit * sum_y
        rows[WIDTH, p] = -2 * unit * (sum_m + qa * sum_a + qb * sum_b + qc * sum_c)
        rows[LONG, p] = unit * (sum_a * la + sum_b * lb)
        rows[SLANT, p] = unit * (both * (sum_a + sum_b) - scale * sum_c)
        rows[FLAT, p] = unit * sum_f
    return chi2


@njit(**INNER)
def _draw_round(rows, n, star):
    r"""As `draw`, for a round Gaussian: exact products of differences of the error function.

    .. math:: m = \frac{1}{4} \left[\mathrm{erf}\frac{dx + 1/2}{\sqrt 2 \sigma}
              - \mathrm{erf}\frac{dx - 1/2}{\sqrt 2 \sigma}\right]
              \left[\mathrm{erf}\frac{dy + 1/2}{\sqrt 2 \sigma}
              - \mathrm{erf}\frac{dy - 1/2}{\sqrt 2 \sigma}\right]
    """
    sigma = math.exp(star[WIDTH]) / math.sqrt(8 * LN2)
    low, high = np.empty(2), np.empty(2)
    for axis in range(2):
        low[axis], high[axis] = math.inf, -math.inf
        for p in range(n):
            low[axis] = min(low[axis], rows[COLUMN + axis, p])
            high[axis] = max(high[axis], rows[COLUMN + axis, p])
    size = int(max(high[0] - low[0], high[1] - low[1])) + 1 if n else 0
    # For both axes and each column or row: the integral, its slopes by centre and log width.
    part = np.empty((2, 3, size))
    for axis in range(2):
        edge = low[axis] - 0.5 - star[X + axis]
        before = math.erf(edge / (math.sqrt(2.0) * sigma))
        slope_before = math.exp(-0.5 * (edge / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)
        for i in range(size):
            after = math.erf((edge + 1) / (math.sqrt(2.0) * sigma))
            slope = math.exp(-0.5 * ((edge + 1) / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)
            part[axis, 0, i] = 0.5 * (after - before)
            part[axis, 1, i] = slope_before - slope
            part[axis, 2, i] = edge * slope_before - (edge + 1) * slope
            edge += 1
            before, slope_before = after, slope
    chi2 = 0.0
    for p in range(n):
        i, j = int(rows[COLUMN, p] - low[0]), int(rows[ROW, p] - low[1])
        unit = part[0, 0, i] * part[1, 0, j]
        root = math.sqrt(rows[WEIGHT, p])
        rows[MODEL, p] = star[FLUX] * unit
        rest = root * (rows[VALUE, p] - star[SKY] - rows[MODEL, p])
        rows[REST, p] = rest
        chi2 += rest * rest
        rows[FLUX, p] = root * unit
        rows[SKY, p] = root
        root *= star[FLUX]
        rows[X, p] = root * part[0, 1, i] * part[1, 0, j]
        rows[Y, p] = root * part[0, 0, i] * part[1, 1, j]
        rows[WIDTH, p] = root * (part[0, 2, i] * part[1, 0, j] + part[0, 0, i] * part[1, 2, j])
    return chi2
