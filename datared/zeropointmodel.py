"""The linear mixed model under `datared.zeropointfit`: frames, stars, and what both scatter.

Each star has an offset that is the same on all frames (the catalogue's error), each frame a zero
point; variances of both kinds are estimated from the residuals, and outliers are left out.
"""

import numpy as np
from astropy.stats import mad_std
from scipy import stats

from .zeropoints import colour_term

__all__ = ["LEAST_ERROR", "MAX_ROUNDS", "MixedModel", "excess_variance"]

#: A star farther from the others than this many standard deviations is not used ...
STAR_CLIP = 3.5
#: ... nor a single measurement that is this far from the star's others ...
MEASUREMENT_CLIP = 5.0
#: ... if not more than this share of the star's (but at least one) are like that ...
FEW = 0.05
#: ... nor a star whose measurements differ by more than chance does once in so many stars.
VARIABLE_CHANCE = 1e-4
#: A frame needs this many stars for a scatter of its own; others get that of all frames.
ENOUGH_FOR_SCATTER = 20
#: Smaller errors (mag) than this are taken for this one.
LEAST_ERROR = 1e-5
#: Rounds of the solution; it is left as soon as nothing changes.
MAX_ROUNDS = 50
#: After so many no star comes back: one at the limit would come and go for ever.
FREE_ROUNDS = 8


class MixedModel:
    """The mixed model of one filter: what is known of it, and its solution in rounds.

    Parameters
    ----------
    y : numpy.ndarray of float, shape (n_star, n_frame)
        Catalogue minus instrumental magnitudes.
    sigma : numpy.ndarray of float, shape (n_star, n_frame)
        Errors of the measurements.
    known : numpy.ndarray of float, shape (n_star,)
        Variances of the catalogue.
    index : numpy.ndarray of float, shape (n_star,), or None
        Colours; None for no colour term.
    good : numpy.ndarray of bool, shape (n_star, n_frame)
        Measurements that may be used.
    frames : numpy.ndarray of int
        Numbers of the frames that have enough of them.

    Attributes
    ----------
    frames, zero, tau : numpy.ndarray, shape (n,)
        Numbers of the frames that have a solution, their zero points and the variance of a
        measurement beyond its error.
    c, spread : float
        Colour term, and variance of the stars' offsets beyond the errors of the catalogue.
    used : numpy.ndarray of bool, shape (n_star, n)
        Measurements in the solution.
    rejected : numpy.ndarray of bool, shape (n_star,)
        Stars that vary or do not agree with the catalogue.
    covariance : numpy.ndarray of float, shape (n, n) or (n + 1, n + 1)
        Of the zero points and the colour term.
    """

    def __init__(self, y, sigma, known, index, good, frames):
        self.shape, self.frames, self.index, self.known = y.shape, frames, index, known
        self.y, self.good = y[:, frames], good[:, frames]
        # What is not used must not be NaN: a NaN times a weight of zero is one.
        self.given = np.where(self.good, sigma[:, frames], 1.0)
        self.sigma, self.used = self.given, self.good.copy()
        self.tau, self.spread = np.zeros(frames.size), 0.0
        self.zero, self.c = np.zeros(frames.size), 0.0
        self.rejected = np.zeros(len(y), bool)

    def solve(self, min_stars):
        """Find the solution: a robust start, then rounds of fit, scatters and outliers.

        Parameters
        ----------
        min_stars : int
            A frame of which fewer stars agree keeps all of its stars.
        """
        if not self.frames.size:
            return
        self._start()
        for count in range(MAX_ROUNDS):
            before = np.array([*self.zero, self.c, self.spread, *self.tau])
            used = self._without_outliers(min_stars)
            if count >= FREE_ROUNDS:
                fewer = used & self.used
                used = np.where(fewer.sum(axis=0) < min_stars, self.used, fewer)
            same = np.array_equal(used, self.used)
            self.used = used
            self._fit()
            self._scatters()
            after = np.array([*self.zero, self.c, self.spread, *self.tau])
            if same and count > 2 and np.abs(after - before).max() < 1e-7:
                break
        self._fit()
        self.rejected = self.good.any(axis=1) & ~self.used.any(axis=1)
        self._widen()

    def _widen(self):
        """Widen the covariance for a scatter that is itself known from few stars only."""
        _, total, variance, _ = self._weights(self.used)
        some = total > 0
        freedom = max(some.sum() - 1 - (self.index is not None), 1)
        # Student's distribution: where its central 68 % end.
        wider = stats.t.ppf(stats.norm.cdf(1), freedom)
        share = self.spread / np.median(variance[some] + 1 / total[some])
        self.covariance = self.covariance * (1 + (wider - 1) * share) ** 2

    def _start(self):
        """Medians of frames and stars, a clipped line through the colours, widths from MADs."""
        y = np.where(self.good, self.y, np.nan)
        self.zero = np.nanmedian(y, axis=0)
        star = _median_of_rows(y - self.zero)
        if self.index is not None:
            found = colour_term(np.zeros(star.size), star, self.index)
            self.c = found.value if np.isfinite(found.value) else 0.0
        for _ in range(3):
            star = _median_of_rows(self.residual(y))
            self.zero = self.zero + np.nanmedian(self.residual(y) - star[:, None], axis=0)
            self.zero = self.zero + np.nanmedian(_median_of_rows(self.residual(y)))
        star = _median_of_rows(self.residual(y))
        noise = np.where(self.good, self.sigma**2, np.nan)
        if self.frames.size > 1:
            inner = self.residual(y) - star[:, None]
            inner[self.good.sum(axis=1) < 2] = np.nan
            bright = noise <= np.nanmedian(noise, axis=0)
            for k in range(self.frames.size):
                rows = bright[:, k] & np.isfinite(inner[:, k])
                if rows.sum() >= min(ENOUGH_FOR_SCATTER, 5):
                    excess = mad_std(inner[rows, k]) ** 2 - np.median(noise[rows, k])
                    self.tau[k] = max(excess, 0.0)
        rows = np.isfinite(star)
        total = np.nansum(1 / (noise + self.tau), axis=1)
        usual = np.median(self.known[rows] + 1 / total[rows])
        self.spread = max(mad_std(star[rows]) ** 2 - usual, 0.0)

    def residual(self, y):
        """Return what the zero points and the colour term leave.

        Parameters
        ----------
        y : numpy.ndarray of float, shape (n_star, n)
            Catalogue minus instrumental magnitudes on the frames of the solution.

        Returns
        -------
        numpy.ndarray of float, shape (n_star, n)
            ``y - zero point - c colour``.
        """
        term = 0.0 if self.index is None else self.c * self.index[:, None]
        return y - self.zero - term

    def _weights(self, mask):
        """Weights of measurements, their sums, variances of the stars, shares of the offsets."""
        weight = np.where(mask, 1 / (self.sigma**2 + self.tau), 0.0)
        total = weight.sum(axis=1)
        variance = self.known + self.spread
        return weight, total, variance, variance / (1 + variance * total)

    def _fit(self):
        """Generalised least squares for zero points and colour term, with their covariance."""
        self._expected_errors()
        weight, total, _, share = self._weights(self.used)
        y = np.where(self.used, self.y, 0.0)
        normal = np.diag(weight.sum(axis=0)) - weight.T @ (share[:, None] * weight)
        # V^-1 y for each star, from the inverse of a diagonal matrix and a constant.
        solved = weight * (y - (share * (weight * y).sum(axis=1))[:, None])
        right = solved.sum(axis=0)
        if self.index is not None:
            x = np.where(total > 0, self.index, 0.0)
            cross = weight.T @ (x * (1 - share * total))
            corner = np.sum(x**2 * total * (1 - share * total))
            normal = np.block([[normal, cross[:, None]], [cross[None, :], corner]])
            right = np.append(right, np.sum(x * solved.sum(axis=1)))
        self.covariance = np.linalg.inv(normal)
        values = self.covariance @ right
        self.zero = values[: self.frames.size]
        self.c = values[-1] if self.index is not None else 0.0

    def _expected_errors(self):
        """Errors at the brightness that is expected of a star instead of the measured one."""
        residual = np.where(self.used, self.residual(self.y), 0.0)
        weight, _, _, share = self._weights(self.used)
        offset = share * (weight * residual).sum(axis=1)
        excess = np.where(self.used, np.clip(residual - offset[:, None], -0.5, 0.5), 0.0)
        self.sigma = np.maximum(self.given * 10 ** (0.4 * excess), LEAST_ERROR)

    def _scatters(self):
        """Scatter of the frames and of the stars, by the method of moments."""
        weight, total, variance, _ = self._weights(self.used)
        residual = np.where(self.used, self.residual(self.y), 0.0)
        some = total > 0
        mean = np.where(some, (weight * residual).sum(axis=1) / np.where(some, total, 1), 0.0)
        several = self.used & (self.used.sum(axis=1) > 1)[:, None]
        if self.frames.size > 1 and several.any():
            away2 = (residual - mean[:, None]) ** 2
            left = 1 - weight / np.where(some, total, 1)[:, None]
            w2 = np.where(several, weight**2, 0.0)
            enough = several.sum(axis=0) >= ENOUGH_FOR_SCATTER
            n = several.sum(axis=0)
            away2 = away2 * (n / np.maximum(n - 1, 1))  # The zero point took one away.
            both = excess_variance(away2, left * self.sigma**2, left, w2)
            each = [
                excess_variance(
                    away2[:, k], left[:, k] * self.sigma[:, k] ** 2, left[:, k], w2[:, k]
                )
                for k in range(self.frames.size)
            ]
            self.tau = np.where(enough, each, both)
            weight, total, variance, _ = self._weights(self.used)
        n = some.sum()
        freedom = max(n - 1 - (self.index is not None), 1)
        noise = self.known[some] + 1 / total[some]
        w2 = 1 / (variance[some] + 1 / total[some]) ** 2
        self.spread = excess_variance(mean[some] ** 2 * n / freedom, noise, np.ones(n), w2)

    def _without_outliers(self, min_stars):
        """Judge all measurements anew: those to be used."""
        residual = np.where(self.good, self.residual(self.y), np.nan)
        noise = np.sqrt(self.given**2 + self.tau)
        centre = _median_of_rows(residual)
        with np.errstate(invalid="ignore"):
            far = np.abs(residual - centre[:, None]) > MEASUREMENT_CLIP * noise
        # One measurement may be spoilt by a particle; a star of which more are far varies.
        count, n_far = self.good.sum(axis=1), far.sum(axis=1)
        few = (count > 2) & (n_far <= np.maximum(1, FEW * count))
        used = self.good & ~(far & few[:, None])
        weight, total, variance, _ = self._weights(used)
        some = total > 0
        total = np.where(some, total, 1.0)
        mean = np.where(used, weight * residual, 0.0).sum(axis=1) / total
        chi2 = np.where(used, weight * (residual - mean[:, None]) ** 2, 0.0).sum(axis=1)
        n = used.sum(axis=1)
        limit = stats.chi2.isf(VARIABLE_CHANCE, np.maximum(n - 1, 1))
        varies = (n > 1) & (chi2 > limit)
        stray = np.abs(mean) > STAR_CLIP * np.sqrt(variance + 1 / total)
        used &= ~(some & (varies | stray))[:, None]
        # Where hardly a star agrees with the others, nobody knows which of them is right.
        return np.where(used.sum(axis=0) < min_stars, self.good, used)

    def offsets(self):
        """Return the offset of each star and its error, drawn towards 0; NaN if it is not used.

        Returns
        -------
        offset, error : numpy.ndarray of float, shape (n_star,)
            Magnitudes.
        """
        weight, total, _, share = self._weights(self.used)
        left = np.where(self.used, self.residual(self.y), 0.0)
        some = total > 0
        offset = np.where(some, share * (weight * left).sum(axis=1), np.nan)
        return offset, np.where(some, np.sqrt(share), np.nan)


def excess_variance(square, expected, share, weight):
    """Variance beyond the expected one, by the method of moments; not below 0.

    Parameters
    ----------
    square : numpy.ndarray of float, shape (n,)
        Squares of the residuals.
    expected : numpy.ndarray of float, shape (n,)
        What they are expected to be by the errors alone.
    share : numpy.ndarray of float, shape (n,)
        Share of the searched variance that is left in each of them.
    weight : numpy.ndarray of float, shape (n,)
        Weights.

    Returns
    -------
    float
        ``sum w (square - expected) / sum w share``.
    """
    below = np.sum(weight * share)
    return float(max(np.sum(weight * (square - expected)) / below, 0.0)) if below > 0 else 0.0


def _median_of_rows(values):
    """Median of each row without its NaN; NaN for a row of nothing else."""
    some = np.isfinite(values).any(axis=1)
    result = np.full(len(values), np.nan)
    result[some] = np.nanmedian(values[some], axis=1)
    return result
