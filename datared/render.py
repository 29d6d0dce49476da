"""Pixels of a simulated scene: stars through a point spread function, and the sensor's noise."""

import math

import numpy as np
from numba import njit

__all__ = ["sensor_counts", "star_image"]

#: Radius, in units of the half width at half maximum, out to which a star is drawn. Beyond it a
#: Moffat profile with beta = 3.5 holds less than 1e-4 of the flux.
REACH = 40.0


def star_image(shape, x, y, flux, *, fwhm, beta=3.5, out=None):
    r"""Draw stars with a Moffat profile, integrated over the pixels.

    .. math:: I(r) = F \frac{\beta - 1}{\pi \alpha^2} (1 + r^2 / \alpha^2)^{-\beta}, \quad
              \alpha = \frac{\mathrm{FWHM}}{2 \sqrt{2^{1/\beta} - 1}}

    Parameters
    ----------
    shape : tuple of int
        Shape of the image, ``(ny, nx)``.
    x, y : array-like of float, shape (n_star,)
        Positions in pixels, 0-based, ``x`` along axis 1; outside the image is allowed.
    flux : float or array-like of float, shape (n_star,)
        Total flux of each star, that is, over the whole plane.
    fwhm : float or array-like of float, shape (n_star,)
        Full width at half maximum in pixels.
    beta : float
        Slope of the wings, larger than 1. Trujillo et al. (2001) find 2.5 to 4.8 on the sky.
    out : numpy.ndarray of float64, optional
        Image to add the stars to; a new one of zeros where it is not given.

    Returns
    -------
    numpy.ndarray of float64, shape ``(ny, nx)``
        The image (``out`` itself where it was given).

    Raises
    ------
    ValueError
        If ``beta`` is not larger than 1 or a width is not positive.

    Examples
    --------
    >>> image = star_image((101, 101), [50.0], [50.0], [1000.0], fwhm=3.0)
    >>> round(float(image.sum()), 0)
    1000.0
    """
    x, y = (np.atleast_1d(np.asarray(a, float)) for a in (x, y))
    flux, fwhm = (np.full(x.shape, a, float) for a in (flux, fwhm))
    if beta <= 1 or np.any(fwhm <= 0):
        raise ValueError(f"beta {beta} must be larger than 1 and every fwhm positive")
    image = np.zeros(shape) if out is None else out
    _draw(image, x, y, flux, fwhm, float(beta), REACH)
    return image


@njit(cache=True)
def _draw(image, x, y, flux, fwhm, beta, reach):
    """Add each star to the image, by 3-point Gauss-Legendre sums finer towards the centre."""
    node = math.sqrt(0.6) / 2
    nodes = (-node, 0.0, node)
    weights = (5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0)
    ny, nx = image.shape
    for k in range(x.size):
        alpha = fwhm[k] / (2 * math.sqrt(2 ** (1 / beta) - 1))
        peak = flux[k] * (beta - 1) / (math.pi * alpha * alpha)
        size = reach * fwhm[k] / 2
        x0, x1 = max(0, math.ceil(x[k] - size)), min(nx - 1, math.floor(x[k] + size))
        y0, y1 = max(0, math.ceil(y[k] - size)), min(ny - 1, math.floor(y[k] + size))
        for j in range(y0, y1 + 1):
            for i in range(x0, x1 + 1):
                dx, dy = i - x[k], j - y[k]
                r = math.sqrt(dx * dx + dy * dy)
                if r > size:
                    continue
                # Beyond four widths the middle of the pixel is right to 2e-5 of the star's flux.
                if r > 4 * fwhm[k]:
                    image[j, i] += peak * (1 + r * r / (alpha * alpha)) ** -beta
                    continue
                # The profile bends within a pixel only near the centre: cells there are cut finer.
                cuts = 4 if r < 1.5 * fwhm[k] else 1
                cell = 1.0 / cuts
                total = 0.0
                for a in range(cuts):
                    for b in range(cuts):
                        cx = dx - 0.5 + (a + 0.5) * cell
                        cy = dy - 0.5 + (b + 0.5) * cell
                        for p in range(3):
                            for q in range(3):
                                u, v = cx + nodes[p] * cell, cy + nodes[q] * cell
                                core = 1 + (u * u + v * v) / (alpha * alpha)
                                total += weights[p] * weights[q] * core**-beta
                image[j, i] += peak * total * cell * cell


def sensor_counts(
    electrons,
    *,
    gain,
    read_noise,
    offset,
    seed,
    full_scale=65535,
    full_well=math.inf,
    curvature=0.0,
):
    r"""Draw the counts that a sensor writes for the expected electrons in each pixel.

    .. math:: S = \lfloor Q \, (1 - c Q) / g + \mathrm{Normal}(b, R / g) \rceil, \quad
              Q = \min(\mathrm{Poisson}(E), \mathrm{full\ well})

    Parameters
    ----------
    electrons : numpy.ndarray of float
        Expected electrons in each pixel (light and dark current), not negative.
    gain : float
        Electrons per count (e-/ADU).
    read_noise : float
        Read noise in electrons.
    offset : float or numpy.ndarray of float
        Bias level in counts.
    seed : int or numpy.random.Generator
        Seed of the random numbers.
    full_scale : int
        Largest count that the sensor can write; brighter pixels are cut off there.
    full_well : float
        Electrons that a pixel can hold; those above it are lost.
    curvature : float
        Share of the signal that is lost for each electron held: the number c of the formula. A
        sensor with 0 is linear.

    Returns
    -------
    numpy.ndarray of uint16, shape of ``electrons``
        The raw frame.

    Examples
    --------
    >>> frame = sensor_counts(np.full((64, 64), 100.0), gain=0.5, read_noise=3, offset=500, seed=1)
    >>> frame.dtype, abs(float(frame.mean()) - 700) < 2
    (dtype('uint16'), True)
    """
    rng = np.random.default_rng(seed)
    counts = rng.poisson(electrons).astype(np.float32)
    if full_well < math.inf:
        np.minimum(counts, np.float32(full_well), out=counts)
    if curvature:
        counts *= 1 - np.float32(curvature) * counts
    counts /= np.float32(gain)
    counts += rng.standard_normal(counts.shape, dtype=np.float32) * np.float32(read_noise / gain)
    counts += np.asarray(offset, np.float32)
    return np.clip(np.rint(counts), 0, full_scale).astype(np.uint16)
