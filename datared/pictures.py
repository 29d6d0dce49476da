"""Pictures of stacks: three filters as a colour image, one as a grey one."""

import numpy as np
from astropy.nddata import NDData

from .errors import FrameError

__all__ = ["colour_balance", "colour_image", "gray_image"]


def _array(image):
    """Pixels of an array or of a frame as floats."""
    return np.asarray(image.data if isinstance(image, NDData) else image, float)


def _noise(image):
    """Median and robust standard deviation of the finite pixels."""
    values = image[np.isfinite(image)]
    if not values.size:
        raise FrameError("No pixel of this image is finite: there is nothing to show.")
    middle = np.median(values)
    return float(middle), float(1.4826 * np.median(np.abs(values - middle))) or 1.0


def colour_balance(red, green, blue):
    """Factors that make the typical star white.

    Parameters
    ----------
    red, green, blue : array-like of float, shape (n,)
        Fluxes of the same stars in the three images.

    Returns
    -------
    tuple of float
        Factors of the three images: the median ratio of the fluxes to those in ``green``, inverted.

    Raises
    ------
    FrameError
        If no star has a positive flux in all three.

    Examples
    --------
    >>> colour_balance([4.0, 8.0], [2.0, 4.0], [1.0, 2.0])
    (0.5, 1.0, 2.0)
    """
    fluxes = np.asarray([red, green, blue], float)
    with np.errstate(invalid="ignore"):
        fluxes = fluxes[:, np.all(fluxes > 0, axis=0)]
    if not fluxes.size:
        raise FrameError("No star has a positive flux in all three images.")
    return tuple(float(np.median(fluxes[1] / band)) for band in fluxes)


def colour_image(red, green, blue, *, scale=(1.0, 1.0, 1.0), stretch=10.0, softening=8.0):
    r"""Colour image that keeps the colours of bright stars.

    The mean of the channels is compressed by an arcsinh and all three are multiplied by the same
    factor, so that the ratio of the channels, the colour, stays (Lupton et al. 2004, PASP 116,
    133):

    .. math:: f(I) = \mathrm{asinh}(Q I / S) / Q

    Parameters
    ----------
    red, green, blue : array-like of shape (ny, nx)
        Images, from the longest to the shortest wavelength, on the same grid; the median is taken
        off as sky. NaN becomes black. With ``green=None`` it is the mean of the other two.
    scale : tuple of float
        Factors of the three images, see `colour_balance`.
    stretch : float
        S, in units of the noise of the images: smaller shows fainter things.
    softening : float
        Q: larger compresses the bright end more.

    Returns
    -------
    numpy.ndarray of uint8, shape (ny, nx, 3)
        Red, green, blue; row 0 is the bottom of the sky image (show it with ``origin="lower"``).

    Raises
    ------
    FrameError
        If images are missing or differ in size.
    """
    if red is None or blue is None:
        raise FrameError("A colour image needs two images at least: red and blue.")
    images = []
    for image, factor in zip((red, green, blue), scale, strict=True):
        if image is None:
            images.append(None)
            continue
        image = np.asarray(
            getattr(image, "data", image) if hasattr(image, "unit") else image, float
        )
        images.append(factor * (image - _noise(image)[0]))
    if images[1] is None and images[0].shape == images[2].shape:
        images[1] = (images[0] + images[2]) / 2
    shapes = {None if image is None else image.shape for image in images}
    if len(shapes) != 1:
        raise FrameError(
            f"The images have the shapes {[np.shape(i) for i in (red, green, blue)]}: bring them "
            "to one grid first (common_grid, reproject_frame)."
        )
    noise = float(np.mean([_noise(image)[1] for image in images]))
    # Black is one standard deviation below the sky, so that the sky is not cut off.
    channels = np.clip(np.nan_to_num(np.stack(images, axis=-1), nan=-noise) + noise, 0, None)
    mean = channels.mean(axis=-1, keepdims=True)
    level = np.arcsinh(softening * mean / (stretch * noise)) / softening
    channels *= level / np.where(mean > 0, mean, 1)
    # Too bright pixels become fainter in all channels: white would take their colour.
    channels /= np.maximum(channels.max(axis=-1, keepdims=True), 1)
    return np.rint(255 * channels).astype(np.uint8)


def gray_image(image, *, cuts=(-1.5, 99.8), softening=0.05):
    """Grey image with an arcsinh scale: the sky dark, faint stars seen, bright ones not all white.

    Parameters
    ----------
    image : array-like of shape (ny, nx)
        Counts; an offset of the whole image changes nothing. NaN becomes black.
    cuts : tuple of float
        Black, in standard deviations of the sky from its median; white, a percentile.
    softening : float
        Where, between the cuts, the scale turns from linear to logarithmic.

    Returns
    -------
    numpy.ndarray of uint8, shape (ny, nx)
        0 is black; row 0 is the bottom of the sky image.

    Examples
    --------
    >>> sky = np.random.default_rng(1).normal(500.0, 5.0, (50, 50))
    >>> gray_image(sky).dtype
    dtype('uint8')
    """
    image = _array(image)
    middle, noise = _noise(image)
    low = middle + cuts[0] * noise
    # On an empty sky the percentile would turn noise into stars.
    high = max(float(np.nanpercentile(image, cuts[1])), middle + 10 * noise)
    level = np.clip((np.nan_to_num(image, nan=low) - low) / (high - low), 0, 1)
    grey = np.arcsinh(level / softening) / np.arcsinh(1 / softening)
    return np.rint(255 * grey).astype(np.uint8)
