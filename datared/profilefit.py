"""Profile fits: least squares of a profile on the pixels of one star (compiled)."""

import math

from numba import njit

from datared.profiles import (
    FLAT,
    FLUX,
    INNER,
    LONG,
    REST,
    SKY,
    SLANT,
    WIDTH,
    X,
    Y,
    draw,
)

__all__ = ["BETA", "covariance", "improve", "linear", "normal_sums"]

#: Slope where nothing tells it, and the range of 1 / beta: nearly a Gaussian to wide wings.
BETA = 3.5
FLATNESS = (0.01, 0.7)
#: Largest elongation parameter: an axis ratio of 7.
LONGEST = 3.5
#: A fit rests when the next step would lower chi-square by less than this: 0.005 of the errors.
RESTING = 2e-5
STEPS = 40
#: Longest step in log width, elongation and 1 / beta.
STRIDE = 0.5


@njit(**INNER, fastmath={"reassoc", "contract"})
def normal_sums(rows, n, free, n_free, normal):
    """Write the products of the free slopes, and in the last column those with the residuals."""
    for a in range(n_free):
        for b in range(a + 2):
            row = rows[free[b]] if b <= a else rows[REST]
            total = 0.0
            slope = rows[free[a]]
            for p in range(n):
                total += slope[p] * row[p]
            if b <= a:
                normal[a, b] = normal[b, a] = total
            else:
                normal[a, 8] = total


@njit(**INNER)
def _solve(normal, size, damping, work, answer):
    """Solve the damped normal equations (Cholesky); False where they cannot be solved."""
    for a in range(size):
        for b in range(a + 1):
            total = normal[a, b] * (1 + damping) if a == b else normal[a, b]
            for c in range(b):
                total -= work[a, c] * work[b, c]
            if a != b:
                work[a, b] = total / work[b, b]
            elif total > 1e-12 * normal[a, a]:
                work[a, a] = math.sqrt(total)
            else:
                return False
    for a in range(size):
        total = normal[a, 8]
        for c in range(a):
            total -= work[a, c] * answer[c]
        answer[a] = total / work[a, a]
    for a in range(size - 1, -1, -1):
        total = answer[a]
        for c in range(a + 1, size):
            total -= work[c, a] * answer[c]
        answer[a] = total / work[a, a]
    return True


@njit(**INNER)
def linear(rows, n, star, profile, free, normal, work, trial):
    """Set flux and sky to their least squares, the shape held; arguments as for `improve`."""
    star[FLUX] = star[SKY] = 0.0
    draw(rows, n, star, profile)
    normal_sums(rows, n, free, free.size, normal)
    if not _solve(normal, free.size, 0.0, work, trial[0]):
        return False
    for a in range(free.size):
        star[free[a]] = trial[0, a]
    return True


@njit(**INNER)
def improve(rows, n, star, profile, free, n_free, limits, normal, work, trial):
    """Least squares by Levenberg and Marquardt's method, in at most 40 steps.

    Parameters
    ----------
    rows, n, star, profile
        As for `draw`; ``star`` is changed.
    free : numpy.ndarray of int64, shape (8,)
        Parameters to fit, the slope of the wings last.
    n_free : int
        Number of them.
    limits : numpy.ndarray of float64, shape (5,)
        First x and y, largest shift (px), smallest and largest log width.
    normal, work, trial : numpy.ndarray of float64, shapes (8, 9), (8, 8) and (2, 8)
        Work space; ``normal`` holds the normal equations at the end.

    Returns
    -------
    n_free : int
        Parameters at the end: a slope at its limit is held. 0 where there is no answer: the
        centre or the width leave their limits, or the equations cannot be solved.
    chi2 : float
        Sum of the squared weighted residuals.
    """
    damping, step, new = 1e-3, trial[0], trial[1]
    chi2 = draw(rows, n, star, profile)
    normal_sums(rows, n, free, n_free, normal)
    for _turn in range(STEPS):
        if not _solve(normal, n_free, damping, work, step):
            return 0, chi2
        gain = 0.0
        for a in range(n_free):
            gain += step[a] * normal[a, 8]
        # Where the parameters are at rest the next step would gain next to nothing.
        if damping <= 1e-3 and gain < RESTING * chi2 / max(n - n_free, 1):
            return n_free, chi2
        for a in range(8):
            new[a] = star[a]
        for a in range(n_free):
            q, move = free[a], step[a]
            if q >= WIDTH:
                most = 0.1 if q == FLAT else STRIDE
                move = min(max(move, -most), most)
            elif q >= X:
                most = 0.5 * math.exp(star[WIDTH])
                move = min(max(move, -most), most)
            new[q] += move
        if n_free and free[n_free - 1] == FLAT:
            held = min(max(new[FLAT], FLATNESS[0]), FLATNESS[1])
            if held != new[FLAT] and abs(held - star[FLAT]) < 0.05:
                # At its limit the slope is held, or the steps of the others would go wrong.
                n_free -= 1
                star[FLAT] = held
                chi2 = draw(rows, n, star, profile)
                normal_sums(rows, n, free, n_free, normal)
                continue
            new[FLAT] = held
        moved = math.hypot(new[X] - limits[0], new[Y] - limits[1])
        new[WIDTH] = min(max(new[WIDTH], limits[3]), limits[4])
        stuck = new[WIDTH] == star[WIDTH] and (new[WIDTH] in (limits[3], limits[4]))
        if moved > limits[2] or stuck or math.hypot(new[LONG], new[SLANT]) > LONGEST:
            return 0, chi2
        after = draw(rows, n, new, profile)
        if after <= chi2:
            small = chi2 - after <= 1e-13 * chi2
            for a in range(8):
                star[a] = new[a]
            chi2 = after
            damping = max(0.1 * damping, 1e-9)
            normal_sums(rows, n, free, n_free, normal)
            if small:
                return n_free, chi2
        else:
            damping *= 10
            # No step helps: the lowest point, as far as the slopes and the last digits can tell.
            if gain < 100 * RESTING * chi2 / max(n - n_free, 1) or damping > 1e7:
                return n_free, chi2
    return 0, chi2


@njit(**INNER)
def covariance(normal, n_free, work, trial, out):
    """Write the inverse of the normal equations; False where there is none."""
    for a in range(n_free):
        for b in range(n_free):
            normal[b, 8] = 1.0 if a == b else 0.0
        if not _solve(normal, n_free, 0.0, work, trial[0]):
            return False
        for b in range(n_free):
            out[a, b] = trial[0, b]
    return True
