"""Periods of many light curves at once: Lomb-Scargle with columns for what the night does."""

import numpy as np

__all__ = ["chance_of_noise", "frequency_grid", "noise_power", "periodograms", "refine_period"]

#: Numbers of an array of stars and frequencies that are worked on at a time.
BLOCK = 2_000_000
#: Steps of the grid in one natural width of a peak, 1 / span.
OVERSAMPLING = 10
#: The shortest period in units of the time from one frame to the next.
SHORTEST = 5.0


def frequency_grid(time):
    """Frequencies that a night can tell from each other, from one cycle in the night on.

    Parameters
    ----------
    time : array_like of float, shape (n_epoch,)
        Times in days.

    Returns
    -------
    numpy.ndarray of float, shape (n_frequency,)
        Cycles in a day, from 1 / span to a fifth of the rate of the frames, ten in a natural width
        of a peak. Empty where the times leave no room.
    """
    time = np.unique(np.asarray(time, float))
    if len(time) < 2:
        return np.zeros(0)
    span, step = time[-1] - time[0], np.median(np.diff(time))
    return np.arange(1 / span, 1 / (SHORTEST * step), 1 / (OVERSAMPLING * span))


def periodograms(time, values, errors, *, frequency, columns=None):
    r"""Compute the Lomb-Scargle periodograms of many stars, with their chance to be noise.

    At every frequency a sine is fitted together with a constant and with the linear columns, by
    weighted least squares [1]_: what the columns explain is no signal, and what they take from a
    sine is accounted for. The power is

    .. math:: p = 1 - \chi^2_\mathrm{sine} / \chi^2_\mathrm{columns}, \quad
              z = -\tfrac{\nu}{2} \ln (1 - p)

    with the degrees of freedom :math:`\nu` of the fit with the sine: for white noise of any size,
    the chance of more than z at one frequency is :math:`e^{-z}` [2]_.

    Parameters
    ----------
    time : array_like of float, shape (n_epoch,)
        Times in days.
    values, errors : array_like of float, shape (n_star, n_epoch)
        Curves and their errors (only their ratios count); NaN where there is none.
    frequency : array_like of float, shape (n_frequency,)
        Cycles in a day.
    columns : array_like of float, shape (n_epoch, n_column), optional
        What changes over the night: airmass, position on the detector. All finite.

    Returns
    -------
    z : numpy.ndarray of float, shape (n_star, n_frequency)
        Minus the logarithm of the chance; 0 where a star cannot tell: fewer than three degrees of
        freedom, or less than one cycle.
    rest : numpy.ndarray of float, shape (n_star, n_epoch)
        The curves without constant and columns.

    References
    ----------
    .. [1] Zechmeister & Kuerster 2009, A&A 496, 577 (floating mean); VanderPlas 2018, ApJS 236, 16.
    .. [2] Baluev 2008, MNRAS 385, 1279, table 1.
    """
    time, y, errors = (np.asarray(part, float) for part in (time, values, errors))
    design = np.ones((len(time), 1))
    if columns is not None:
        design = np.column_stack([design, columns])
    # Thousands of stars over several nights would fill the memory.
    size = max(1, BLOCK // max(len(frequency) * design.shape[1], 1))
    z, rest = np.zeros((len(y), len(frequency))), np.zeros(y.shape)
    for k in range(0, len(y), size):
        part = slice(k, k + size)
        z[part], rest[part] = _block(time, y[part], errors[part], frequency, design)
    return z, rest


def _block(time, y, errors, frequency, design):
    """Periodograms of some stars, see `periodograms`."""
    known = np.isfinite(y) & np.isfinite(errors) & (errors > 0)
    weight = np.where(known, 1 / np.where(known, errors, 1.0) ** 2, 0.0)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
    weighted = weight[:, None, :] * design.T
    inverse = np.linalg.pinv(weighted @ design, rcond=1e-9, hermitian=True)
    rank = np.round(np.einsum("kpq,kqp->k", inverse, weighted @ design))
    fit = (inverse @ (weighted @ np.where(known, y, 0.0)[:, :, None]))[:, :, 0]
    rest = np.where(known, y - fit @ design.T, 0.0)
    angle = 2 * np.pi * np.outer(time - time.mean(), frequency)
    cosine, sine = np.cos(angle), np.sin(angle)
    with_cos, with_sin = weighted @ cosine, weighted @ sine
    back_cos, back_sin = inverse @ with_cos, inverse @ with_sin
    cc = weight @ cosine**2 - np.sum(with_cos * back_cos, axis=1)
    ss = weight @ sine**2 - np.sum(with_sin * back_sin, axis=1)
    cs = weight @ (cosine * sine) - np.sum(with_cos * back_sin, axis=1)
    yc, ys = (weight * rest) @ cosine, (weight * rest) @ sine
    yy = np.sum(weight * rest**2, axis=1)[:, None]
    determinant = cc * ss - cs**2
    # Where the columns imitate both parts of the sine there is nothing left to fit.
    good = (determinant > 1e-6) & (yy > 0)
    top = ss * yc**2 + cc * ys**2 - 2 * cs * yc * ys
    power = np.where(good, top / np.where(good, yy * determinant, 1.0), 0.0)
    freedom = (known.sum(axis=1) - rank - 2)[:, None]
    span = np.array([np.ptp(time[row]) if row.any() else 0.0 for row in known])[:, None]
    able = (freedom >= 3) & (np.asarray(frequency) * span >= 1 - 1e-9)
    z = -0.5 * freedom * np.log1p(-np.clip(power, 0.0, 1 - 1e-12))
    return np.where(able, z, 0.0), np.where(known, rest, np.nan)


def chance_of_noise(z, time, *, frequency, n_star=1):
    r"""Give the chance that noise makes a peak so high at any frequency of any star.

    At one frequency the chance is :math:`e^{-z}`. Of a range of frequencies up to f there are
    :math:`W \sqrt{z}\, e^{-z}` peaks above z on average [1]_, so that for one star and for K stars

    .. math:: p = 1 - (1 - e^{-z}) \exp\left(-W \sqrt{z}\, e^{-z}\right), \quad
              W = f \sqrt{4 \pi \operatorname{var}(t)}, \quad P = 1 - (1 - p)^K

    (the correction of Sidak, which is that of Bonferroni for small chances).

    Parameters
    ----------
    z : array_like of float
        The highest peak of a star.
    time : array_like of float, shape (n_epoch,)
        Times in days.
    frequency : array_like of float, shape (n_frequency,)
        Cycles in a day, rising.
    n_star : int
        Number of stars that were searched.

    Returns
    -------
    numpy.ndarray of float
        Chances; 1 where there is no frequency.

    References
    ----------
    .. [1] Baluev 2008, MNRAS 385, 1279.
    """
    z = np.asarray(z, float)
    if not len(frequency):
        return np.ones(z.shape)
    width = frequency[-1] * np.sqrt(4 * np.pi * np.var(time))
    with np.errstate(divide="ignore"):
        log = np.log1p(-np.exp(-z)) - width * np.sqrt(z) * np.exp(-z)
        return -np.expm1(max(n_star, 1) * log)


def noise_power(z, magnitude, *, n_stars=60, width=2 * OVERSAMPLING):
    """Give the power that noise has in stars of about the same brightness, at each frequency.

    Light curves of a night have slow waves in common, the brighter stars more than the faint ones.
    Of white noise the median of z is 0.69, and one star in five has more than 1.61. What the stars
    have more is the factor by which noise is stronger at that frequency; four fifths of them must
    not be variable.

    Parameters
    ----------
    z : numpy.ndarray of float, shape (n_star, n_frequency)
        From `periodograms`.
    magnitude : numpy.ndarray of float, shape (n_star,)
        Magnitudes; NaN is last.
    n_stars : int
        Stars that are compared, those of the nearest magnitudes. With fewer than 20 stars only
        their median counts: one or two variable ones would be a fifth.
    width : int
        Frequencies of a running mean of it.

    Returns
    -------
    numpy.ndarray of float, shape (n_star, n_frequency)
        Factors, at least 1.
    """
    n = len(z)
    factor = np.ones_like(z)
    if n < 3 or not z.shape[1]:
        return factor
    order = np.argsort(magnitude, kind="stable")
    half, step = min(n_stars, n) // 2, max(1, n_stars // 6)
    shares = np.array([0.5, 0.8] if n >= 20 else [0.5])
    for first in range(0, n, step):
        low = int(np.clip(first + step // 2 - half, 0, n - 2 * half))
        levels = np.quantile(z[order[low : low + 2 * half]], shares, axis=0)
        power = np.max(levels / -np.log(1 - shares)[:, None], axis=0)
        size = min(width, len(power)) | 1
        padded = np.pad(power, size // 2, mode="edge")
        smooth = np.convolve(padded, np.ones(size) / size, "valid")[: len(power)]
        # The slowest waves are the strongest: a mean of neighbours must not hide them.
        factor[order[first : first + step]] = np.maximum(np.maximum(smooth, power), 1.0)
    return factor


def refine_period(time, value, error, *, frequency, columns=None):
    r"""Refine the period of one star near a frequency, and fit its sine.

    The error is that of a least-squares fit of white noise, with the scatter about the sine:

    .. math:: \sigma_P = P^2 \sigma_f, \quad
              \sigma_f^2 = 2 s^2 \Big/ \frac{d^2 \chi^2}{d f^2}

    Without columns and gaps it is :math:`\sqrt{6 / N}\, \sigma / (\pi T A)` of N points over the
    time T, for an amplitude A [1]_. Noise that lasts longer than a frame makes it too small.

    Parameters
    ----------
    time, value, error : array_like of float, shape (n_epoch,)
        Its curve; NaN where there is none.
    frequency : float
        Where the peak is, in cycles in a day.
    columns : array_like of float, shape (n_epoch, n_column), optional
        As in `periodograms`.

    Returns
    -------
    period : float
        In days.
    period_err : float
        Its error.
    amplitude : float
        Half of the range of the sine.

    References
    ----------
    .. [1] Montgomery & O'Donoghue 1999, Delta Scuti Star Newsletter 13, 28.
    """
    time = np.asarray(time, float)
    known = np.isfinite(value) & np.isfinite(error)
    t, y, w = time[known], np.asarray(value)[known], 1 / np.asarray(error)[known]
    design = np.ones((len(t), 1))
    if columns is not None:
        design = np.column_stack([design, np.asarray(columns)[known]])

    def fit(f):
        angle = 2 * np.pi * f * (t - t.mean())
        terms = np.column_stack([design, np.cos(angle), np.sin(angle)])
        best = np.linalg.lstsq(terms * w[:, None], y * w, rcond=1e-9)[0]
        return np.sum(((y - terms @ best) * w) ** 2), np.hypot(*best[-2:])

    span = np.ptp(t)
    half = 0.5 / span
    for _ in range(4):
        grid = frequency + half * np.linspace(-1, 1, 21)
        # Less than one cycle in the night is no period.
        grid = grid[grid >= (1 - 1e-9) / span]
        frequency = grid[np.argmin([fit(f)[0] for f in grid])]
        half /= 8
    chi2, amplitude = fit(frequency)
    step = 0.05 / span
    bend = (fit(frequency + step)[0] - 2 * chi2 + fit(frequency - step)[0]) / step**2
    scatter = chi2 / max(len(t) - design.shape[1] - 3, 1)
    error = np.sqrt(2 * scatter / bend) if bend > 0 else np.nan
    return 1 / frequency, error / frequency**2, amplitude
