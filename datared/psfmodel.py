"""The model of a star: the point spread function as a pixel sees it, at any sub-pixel phase."""

import math
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table
from scipy import ndimage

from .psffit import add_stars
from .render import star_image

__all__ = ["EPSF", "finished", "moffat_epsf"]

#: Radius of a model in widths of the stars: a Moffat profile of slope 3.5 has 0.1 % beyond it.
RADIUS = 4.0
#: What the smear by a pixel adds to the FWHM squared, in px^2: 0.46 for a Gaussian, 0.68 for a
#: Moffat profile of slope 3.5. The mean of both is wrong by 1 % of a width of 2.5 px at most.
PIXEL_FWHM2 = 0.57
#: Zeros around the nodes, so that the splines end in them.
MARGIN = 8


@dataclass(frozen=True)
class EPSF:
    """What a star of flux 1 puts into a pixel, as a function of the pixel's distance from it.

    The effective point spread function of Anderson & King (2000, PASP 112, 1360): it holds the
    smear by the pixel, so that a pixel's value is read off and not integrated. Its mean sum over
    the pixels whose centres lie within ``radius`` of the star is 1: fluxes that are fitted with
    it are the light within that radius.

    Attributes
    ----------
    data : numpy.ndarray of float64, shape (m, m)
        Values at nodes ``oversampling`` to the pixel; the star is in the middle node. ``m`` is
        odd.
    oversampling : int
        Nodes per pixel along each axis.
    radius : float
        Beyond it, in pixels, the model is zero.
    fwhm : float
        Width in pixels at half of the height, before the pixels smeared it: the diameter of a
        circle of the same area, less the width of a pixel in quadrature.
    n_stars : int
        Stars from which it was built; 0 for a formula.
    converged : bool
        Whether the building came to rest.
    stars : astropy.table.Table or None
        The stars offered: x, y, ``reason`` (why it was not used; empty for those that were) and, of
        those used, ``flux`` (within ``radius``) and ``misfit`` (root mean square of what is left
        of the star within 1.5 FWHM, noise taken off, relative to the height of the model).

    Raises
    ------
    ValueError
        If the nodes are not m x m with an odd m, do not reach the radius or are not all finite.

    Examples
    --------
    >>> psf = moffat_epsf(fwhm=3.0)
    >>> round(psf.fwhm, 1), round(float(psf.image((41, 41), 20.3, 19.8, 500.0).sum()), 1)
    (3.0, 500.0)
    """

    data: np.ndarray
    oversampling: int
    radius: float
    fwhm: float
    n_stars: int = 0
    converged: bool = True
    stars: Table | None = None
    coefficients: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        """Compute the coefficients of the spline through the nodes.

        Compiled code reads them without a look at the borders: the nodes must reach the radius.
        """
        data = np.asarray(self.data, float)
        if data.ndim != 2 or len(set(data.shape)) > 1 or data.shape[0] % 2 == 0:
            raise ValueError(f"a model has m x m nodes, m odd; here are {data.shape}")
        reach = (data.shape[0] // 2) / self.oversampling
        if not (0 < self.radius <= reach and self.fwhm > 0 and np.isfinite(data).all()):
            raise ValueError(
                f"radius {self.radius} and fwhm {self.fwhm} must be positive, the radius no more "
                f"than the {reach:g} px that the nodes reach, and every node a finite number"
            )
        spline = ndimage.spline_filter(np.pad(data, MARGIN), order=3)
        object.__setattr__(self, "coefficients", np.ascontiguousarray(spline))

    @property
    def rejected(self):
        """Rows of ``stars`` that were not used, with the ``reason`` of each."""
        return None if self.stars is None else self.stars[self.stars["reason"] != ""]

    @property
    def used(self):
        """Rows of ``stars`` from which the model was built."""
        return None if self.stars is None else self.stars[self.stars["reason"] == ""]

    def image(self, shape, x, y, flux):
        """Draw stars.

        Parameters
        ----------
        shape : tuple of int
            Shape of the image, ``(ny, nx)``.
        x, y : array_like of float, shape (n,)
            Positions in pixels, 0-based, ``x`` along axis 1; outside the image is allowed.
        flux : array_like of float, shape (n,)
            Light of each star within ``radius``; a star whose flux is NaN is not drawn.

        Returns
        -------
        numpy.ndarray of float64, shape (ny, nx)
            The image.
        """
        image = np.zeros(shape)
        x, y, flux = (
            np.array(a, float) for a in np.broadcast_arrays(*map(np.atleast_1d, (x, y, flux)))
        )
        light = np.where(np.isfinite(x) & np.isfinite(y), flux, np.nan)
        add_stars(
            image, self.coefficients, self.oversampling, self.radius, x, y, light, 0, shape[0]
        )
        return image


def moffat_epsf(*, fwhm, beta=3.5, radius=None, oversampling=4):
    """Model of stars with a Moffat profile: for frames in which no star shows its shape.

    Parameters
    ----------
    fwhm : float
        Width in pixels, before the pixels smear it.
    beta : float
        Slope of the wings, as for `datared.render.star_image`.
    radius : float, optional
        Radius of the model in pixels; 4 FWHM.
    oversampling : int
        Nodes per pixel.

    Returns
    -------
    EPSF
        The model, exact at its nodes.

    Raises
    ------
    ValueError
        If a number is not positive.
    """
    if not (fwhm > 0 and oversampling >= 1 and (radius is None or radius > 0)):
        raise ValueError(
            f"fwhm {fwhm}, oversampling {oversampling} and radius {radius} must be positive"
        )
    radius = RADIUS * fwhm if radius is None else float(radius)
    half = math.ceil(radius) + 1
    data = np.zeros((2 * half * oversampling + 1,) * 2)
    for j in range(oversampling):
        for i in range(oversampling):
            # A star right of a pixel's centre shows what is left of the model's middle.
            stamp = star_image(
                (2 * half + 2,) * 2,
                half + 1 - i / oversampling,
                half + 1 - j / oversampling,
                1.0,
                fwhm=fwhm,
                beta=beta,
            )
            place = data[j::oversampling, i::oversampling]
            place[:] = stamp[1:, 1:][: place.shape[0], : place.shape[1]]
    return finished(data, oversampling, radius)


def finished(grid, oversampling, radius, n_stars=0, converged=True, stars=None):
    """Model from nodes: scaled to a sum of 1 within the radius, its width measured.

    Parameters
    ----------
    grid : numpy.ndarray of float64, shape (m, m)
        Nodes, the star in the middle one.
    oversampling, radius, n_stars, converged, stars
        As in `EPSF`.

    Returns
    -------
    EPSF
        The model.
    """
    middle = grid.shape[0] // 2
    r = np.hypot(*np.ogrid[-middle : middle + 1, -middle : middle + 1]) / oversampling
    grid = grid * (oversampling**2 / grid[r <= radius].sum())
    # Half of the height on a finer grid, for the light falls steeply there: ten times, or as much
    # as a wide star needs.
    half = math.sqrt(np.count_nonzero(grid > grid.max() / 2) / math.pi)
    finer = min(max(round(200 / half), 1), 10)
    reach = min(round(2 * half + 4), middle) * finer
    nodes = middle + np.mgrid[-reach : reach + 1, -reach : reach + 1] / finer
    core = ndimage.map_coordinates(grid, nodes, order=3)
    area = np.count_nonzero(core > core.max() / 2) / (finer * oversampling) ** 2
    fwhm = math.sqrt(max(4 * area / math.pi - PIXEL_FWHM2, 0.1))
    return EPSF(grid, oversampling, radius, fwhm, n_stars, converged, stars)
