"""What disturbs a simulated frame: particles, satellites, clouds, stars in twilight flats."""

import math

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from .render import star_image

__all__ = ["cosmic_rays", "patchy_cloud", "satellite_trail", "star_trails"]


def cosmic_rays(shape, *, exptime, rng, rate=8.0):
    """Draw the tracks of particles.

    Parameters
    ----------
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    exptime : float
        Seconds.
    rng : numpy.random.Generator
        Source of random numbers.
    rate : float
        Hits per minute on a frame of 1000 x 680 pixels; smaller frames get fewer.

    Returns
    -------
    charge : numpy.ndarray of float, shape (ny, nx)
        Electrons left in each pixel.
    n_hit : int
        Number of particles.
    """
    ny, nx = shape
    charge = np.zeros(shape)
    n_hit = int(rng.poisson(rate * exptime / 60 * nx * ny / 680_000))
    for _ in range(n_hit):
        length, angle = 1 + rng.exponential(5.0), rng.random() * 2 * np.pi
        steps = np.arange(0.0, length, 0.25)
        x = np.rint(rng.random() * nx + steps * math.cos(angle)).astype(int)
        y = np.rint(rng.random() * ny + steps * math.sin(angle)).astype(int)
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        energy = 10 ** rng.uniform(2.7, 3.7)
        np.add.at(charge, (y[inside], x[inside]), energy * 0.25)
    return charge, n_hit


def satellite_trail(shape, *, rng, peak, fwhm):
    """Draw the straight trail of a satellite.

    Parameters
    ----------
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    rng : numpy.random.Generator
        Source of its place and direction.
    peak : float
        Electrons per pixel on its middle line.
    fwhm : float
        Width in pixels.

    Returns
    -------
    numpy.ndarray of float, shape (ny, nx)
        Electrons.
    """
    ny, nx = shape
    y, x = np.mgrid[0:ny, 0:nx]
    angle = rng.uniform(0.15, 0.5) * rng.choice([-1, 1])
    x0, y0 = rng.uniform(0.35, 0.65) * nx, rng.uniform(0.3, 0.45) * ny
    distance = (x - x0) * math.sin(angle) - (y - y0) * math.cos(angle)
    return peak * np.exp(-4 * math.log(2) * (distance / fwhm) ** 2)


def patchy_cloud(shape, *, rng, transparency):
    """Draw what a cloud lets through.

    Parameters
    ----------
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    rng : numpy.random.Generator
        Source of the pattern.
    transparency : float
        Mean share of the light that passes; it varies by a factor of about two over the frame.

    Returns
    -------
    numpy.ndarray of float, shape (ny, nx)
        Share of the light that passes each pixel.
    """
    coarse = gaussian_filter(rng.standard_normal((16, 16)), 1.5)
    coarse = zoom(coarse, (shape[0] / 16, shape[1] / 16), order=1)[: shape[0], : shape[1]]
    pattern = np.exp(0.5 * (coarse - coarse.mean()) / coarse.std())
    return transparency * pattern / pattern.mean()


def star_trails(shape, *, rng, n, flux, length, shift, fwhm):
    """Draw stars that trail through a twilight flat, the telescope being moved between frames.

    Parameters
    ----------
    shape : tuple of int
        Shape of the frame, ``(ny, nx)``.
    rng : numpy.random.Generator
        Source of places and fluxes; the same state gives the same field.
    n : int
        Number of stars.
    flux : float
        Electrons of the faintest; the others follow a power law up to 50 times that.
    length : float
        Length of the trails in pixels, along x.
    shift : tuple of float
        Displacement of this frame in pixels, ``(dx, dy)``.
    fwhm : float
        Width in pixels.

    Returns
    -------
    numpy.ndarray of float, shape (ny, nx)
        Electrons.
    """
    ny, nx = shape
    x, y = rng.uniform(-0.1 * nx, 1.1 * nx, n), rng.uniform(-0.1 * ny, 1.1 * ny, n)
    total = flux * np.minimum(rng.random(n) ** -0.8, 50.0)
    steps = np.linspace(-length / 2, length / 2, max(2, round(length)))
    spread_x = (x[:, None] + shift[0] + steps[None, :]).ravel()
    spread_y = np.repeat(y + shift[1], steps.size)
    return star_image(
        shape, spread_x, spread_y, np.repeat(total / steps.size, steps.size), fwhm=fwhm
    )
