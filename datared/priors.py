"""What is known before a measurement: priors of the parameters of a fit."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

__all__ = ["Normal", "Uniform", "shifted"]


@dataclass(frozen=True)
class Normal:
    """Gaussian prior: what is known before, such as a published value and its error.

    Parameters
    ----------
    mean, sigma : float
        Mean and standard deviation.

    Raises
    ------
    ValueError
        When they are not finite, or ``sigma`` is not positive.
    """

    mean: float
    sigma: float

    def __post_init__(self):
        if not (np.isfinite(self.mean) and np.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"{self}: give a finite mean and a standard deviation above 0")

    def log_density(self, values):
        """Return the logarithm of the probability density at the values."""
        scaled = (np.asarray(values, dtype=float) - self.mean) / self.sigma
        return -0.5 * scaled**2 - np.log(self.sigma * np.sqrt(2.0 * np.pi))

    def quantile(self, share):
        """Return the values below which the prior has the given shares of its probability."""
        return self.mean + self.sigma * ndtri(share)

    def __str__(self):
        return f"normal, {self.mean:.10g} +- {self.sigma:.4g}"


@dataclass(frozen=True)
class Uniform:
    """Prior that takes every value of a range as equally probable.

    Parameters
    ----------
    low, high : float
        The range.

    Raises
    ------
    ValueError
        When they are not finite, or ``high`` is not above ``low``.
    """

    low: float
    high: float

    def __post_init__(self):
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.high > self.low):
            raise ValueError(f"{self}: give two finite values, the lower one first")

    def log_density(self, values):
        """Return the logarithm of the probability density at the values."""
        values = np.asarray(values, dtype=float)
        inside = (values >= self.low) & (values <= self.high)
        return np.where(inside, -np.log(self.high - self.low), -np.inf)

    def quantile(self, share):
        """Return the values below which the prior has the given shares of its probability."""
        return self.low + (self.high - self.low) * np.asarray(share, dtype=float)

    def __str__(self):
        return f"uniform from {self.low:.10g} to {self.high:.10g}"


def shifted(prior, step):
    """Return the prior of a quantity to which a number was added.

    Parameters
    ----------
    prior : Normal or Uniform
        Prior of the quantity.
    step : float
        The number.

    Returns
    -------
    Normal or Uniform
        Prior of the sum.
    """
    if isinstance(prior, Normal):
        return Normal(prior.mean + step, prior.sigma)
    return Uniform(prior.low + step, prior.high + step)
