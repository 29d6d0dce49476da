"""The steps of `datared.ensemble`: zero points, residuals and their scatter, one at a time.

Axis 0 is the star, axis 1 the epoch.
"""

import numpy as np
from scipy.stats import chi2

#: A measurement that is this many standard deviations away counts as missing.
CLIP = 5.0

#: A star that loses a larger share of its measurements like that is variable: they count again.
MANY_CLIPPED = 0.05

#: Two standard deviations: a star has another scatter than all stars have in common.
OWN = 2.0

#: A frame has scatter of its own where chance alone does as much in one frame of so many.
RARE = 1e-3

#: Largest number of steps of a solution for the zero points; a few are enough.
MAX_STEPS = 50

#: Largest changes of a level or a zero point in one round: none becomes negative.
LARGEST = -0.5, 1.0


def median(values, axis):
    """Median along an axis without NaN; NaN where there is none. Much faster than nanmedian."""
    values = np.sort(np.moveaxis(values, axis, -1), axis=-1)
    n = np.isfinite(values).sum(axis=-1)
    if not values.size:
        return np.full(len(values), np.nan)
    rows = np.arange(len(values))
    return (values[rows, np.maximum(n - 1, 0) // 2] + values[rows, n // 2]) / 2


def positive(values):
    """Put NaN for values that are not above zero."""
    return np.where(values > 0, values, np.nan)


def first_guess(off, variance, vote):
    """Scatter of each star and wild measurements, from residuals against medians."""
    off = np.where(vote, off, np.nan)
    width = np.square(1.4826 * median(np.abs(off), 1)) - median(variance, 1)
    intrinsic = np.sqrt(np.nan_to_num(np.maximum(width, 0)))
    n = np.maximum(vote.sum(axis=0), 1)
    middle = np.square(1.4826 * median(np.abs(off), 0)) / n
    pull = np.abs(off) / np.sqrt(variance + intrinsic[:, None] ** 2 + middle)
    frame = np.fmax(1.4826 * median(pull, 0), 1)
    return intrinsic, (pull > CLIP * frame) & (n > 2)


def zero_point_step(weight, pull):
    """Return the least-squares changes of zero points and levels (conjugate gradients).

    Without the levels of the stars the normal equations have one row for each frame (Schur
    complement). The changes of groups of frames without a common star have no mean.
    """
    frame, star = weight.sum(axis=0), weight.sum(axis=1)
    frame, star = np.where(frame > 0, frame, 1.0), np.where(star > 0, star, 1.0)
    share, root = weight / star[:, None], np.sqrt(frame)
    left = (pull.sum(axis=0) - share.T @ pull.sum(axis=1)) / root
    change, way, square = np.zeros(len(frame)), left, left @ left
    for _ in range(MAX_STEPS):
        if square < 1e-8:  # 1e-4 of an error, of all frames together
            break
        moved = way - (weight.T @ (share @ (way / root))) / root
        length = square / max(way @ moved, 1e-300)
        change, left = change + length * way, left - length * moved
        square, before = left @ left, square
        way = left + square / before * way
    change = np.clip(change / root, *LARGEST)
    return change, (pull.sum(axis=1) - weight @ change) / star


def improve(flux, scale, common, weight, sides):
    """Make one step towards the least squares: zero points and levels of all stars at once."""
    pull = np.where(weight > 0, flux / (scale[:, None] * common) - 1, 0.0) * weight
    common = common.copy()
    total = np.array([weight[:, part].sum(axis=1) for part in sides])
    step = np.zeros(total.shape)
    for n, part in enumerate(sides):
        change, step[n] = zero_point_step(weight[:, part], pull[:, part])
        common[part] *= 1 + change
    first = np.argmax(total.sum(axis=1))
    for n, part in enumerate(sides):
        both = (total[n] > 0) & (total[first] > 0)
        if n != first and both.any():
            # What all stars do at the flip is the sky's, the rest is each star's own step.
            tie = np.median(np.log1p(step[n][both]) - np.log1p(step[first][both]))
            common[part] *= np.exp(tie)
            step[n] -= tie
    star = total.sum(axis=0)
    change = (total * step).sum(axis=0) / np.where(star > 0, star, 1.0)
    return scale * (1 + np.clip(change, *LARGEST)), common


def lever(weight, sides):
    """Factor on the variance of each zero point for levels that come from the same frames."""
    result = np.ones(weight.shape[1])
    for part in sides:
        w = weight[:, part]
        total, star = w.sum(axis=0), w.sum(axis=1)
        share = (w**2 / np.where(star > 0, star, 1.0)[:, None]).sum(axis=0)
        share /= np.where(total > 0, total, 1.0)
        result[part] = 1 / np.maximum(1 - share, 1e-9)
    return result


def left_out(flux, error, scale, common, weight, lever, intrinsic, excess):
    """Curves against all other stars, their errors, and how much of `excess` ** 2 is in these."""
    level = scale[:, None] * common
    relative, variance = flux / level, np.square(error / level)
    pull = np.where(weight > 0, weight * (relative - 1), 0.0)
    noise = variance + intrinsic[:, None] ** 2 + excess**2
    noise = np.where(weight > 0, weight**2 * noise, 0.0)
    rest = weight.sum(axis=0) - weight
    rest = np.where(rest > 1e-9 * weight, rest, np.nan)
    others = 1 + (pull.sum(axis=0) - pull) / rest
    square = rest**2 / lever
    curves = relative / others
    share = curves**2 * (1 + ((weight**2).sum(axis=0) - weight**2) / square)
    others_variance = (noise.sum(axis=0) - noise) / square
    errors = np.sqrt(variance / others**2 + curves**2 * (excess**2 + others_variance))
    return curves, errors, share


def off_level(curves, sides):
    """Residuals of each star against its own level on each side."""
    off = np.array(curves)
    for part in sides:
        off[:, part] = off[:, part] / median(off[:, part], 1)[:, None] - 1
    return off


def star_scatter(off, errors, intrinsic, clean, weight, n_sides):
    """Scatter of each star beyond its errors: its own, or what all stars have in common."""
    clean = clean & np.isfinite(off) & np.isfinite(errors)
    precision = np.where(clean, 1 / np.square(errors**2 + intrinsic[:, None] ** 2 + 1e-30), 0.0)
    total = precision.sum(axis=1)
    n = clean.sum(axis=1)
    freedom = n / np.maximum(n - n_sides, 1)
    found = np.where(clean, precision * (off**2 * freedom[:, None] - errors**2), 0.0).sum(axis=1)
    found, sigma = found / total, np.sqrt(2 / total) * freedom
    voters = np.flatnonzero((weight > 0).any(axis=1) & np.isfinite(found) & (n > n_sides))
    base = 0.0
    if len(voters):
        order = voters[np.argsort(found[voters])]
        half = np.cumsum(1 / sigma[order])
        base = max(found[order[np.searchsorted(half, half[-1] / 2)]], 0.0)
    own = (np.abs(found - base) > OWN * sigma) & (n > n_sides)
    return np.sqrt(np.where(own, np.maximum(found, 0), base))


def frame_scatter(off, errors, intrinsic, excess, share, weight):
    """Scatter of the stars of each frame beyond their errors, where it is no chance."""
    clean = (weight > 0) & np.isfinite(off) & np.isfinite(errors)
    n = clean.sum(axis=0)
    known = errors**2 + intrinsic[:, None] ** 2
    bare = np.maximum(known - share * excess**2, 1e-30)
    total = np.where(clean, off**2 / bare, 0.0).sum(axis=0) * (1 - 1 / np.maximum(n, 1))
    rare = total > chi2.isf(RARE, np.maximum(n - 1, 1))
    precision = np.where(clean, 1 / np.square(known + 1e-30), 0.0)
    found = np.where(clean, precision * (off**2 - bare), 0.0).sum(axis=0)
    found /= np.where(clean, precision * share, 0.0).sum(axis=0)
    return np.sqrt(np.where(rare & (n > 2), np.maximum(found, 0), 0.0))


def wild_ones(off, sigma, known, weight, far, wild):
    """Measurements without a vote, and stars that have too many of them to be told by that."""
    use = weight > 0
    pull = np.nan_to_num(np.where(known & ~far, np.abs(off) / sigma, 0.0))
    n = use.sum(axis=0)
    frame = np.fmax(1.4826 * median(np.where(use, pull, np.nan), 0), 1)
    big = (pull > CLIP * frame) & (n > 2)
    # A star of great weight shifts the others: of these only the farthest of a frame.
    small = weight < 0.1 * weight.sum(axis=0)
    far = far | (big & (small | (pull == pull.max(axis=0, initial=0))))
    wild = wild | (far.sum(axis=1) > np.maximum(MANY_CLIPPED * known.sum(axis=1), 1))
    return far & ~wild[:, None], wild
