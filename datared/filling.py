"""The compiled loop under `datared.pixels.repair_gaussian`: only bad pixels are visited."""

import math

import numpy as np
from numba import njit

__all__ = ["fill_gaussian"]


@njit(cache=True, nogil=True)
def fill_gaussian(data, flags, wanted, sigma, least):
    """Replace pixels by the Gaussian-weighted mean of the good ones around them, in place.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        Image.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Pixels with any flag, or without a finite value, are not used.
    wanted : numpy.ndarray of int, shape (n,)
        Indices into the flattened image; each of these pixels has a flag, and so none of them is a
        neighbour of another one.
    sigma : float
        Width of the weights in pixels; they end at 4 sigma.
    least : float
        A pixel stays as it is where the weights of its good neighbours add up to less than this
        part of all weights.

    Returns
    -------
    numpy.ndarray of bool, shape (n,)
        True where the pixel was replaced.
    """
    ny, nx = data.shape
    reach = int(4 * sigma + 0.5)
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    profile /= profile.sum()
    done = np.zeros(wanted.size, np.bool_)
    for k in range(wanted.size):
        row, column = wanted[k] // nx, wanted[k] % nx
        weight, total = 0.0, 0.0
        for j in range(max(0, row - reach), min(ny, row + reach + 1)):
            for i in range(max(0, column - reach), min(nx, column + reach + 1)):
                if flags[j, i] == 0 and math.isfinite(data[j, i]):
                    w = profile[j - row + reach] * profile[i - column + reach]
                    weight += w
                    total += w * data[j, i]
        if weight > least:
            data[row, column] = total / weight
            done[k] = True
    return done
