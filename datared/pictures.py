"""Pictures of images: three filters, or two, as a colour picture, one as a grey one.

Pictures are for the eye: holes are filled, sharp images are blurred, the noise loses its colours.
All of this is done to copies. Measure on the images, never on their pictures.
"""

import numpy as np
from astropy.nddata import NDData

from .colourbalance import catalogue_balance, colour_balance, sun_magnitude, zero_point_balance
from .errors import FrameError
from .pngfile import write_png

__all__ = [
    "catalogue_balance",
    "colour_balance",
    "colour_image",
    "gray_image",
    "sun_magnitude",
    "write_png",
    "zero_point_balance",
]

#: FWHM of a Gaussian in standard deviations.
FWHM_PER_SIGMA = 2.3548
#: Holes up to twice as many pixels wide are filled from their neighbours.
FILL_STEPS = 3
#: A pixel is filled from so many of its eight neighbours at least.
LEAST_NEIGHBOURS = 3
#: Pixels darker than so many standard deviations of the sky are taken for holes, too.
DARKEST = -3.0
#: Pixels beside a saturated one that saturation may have changed: interpolation mixes them.
GROWTH = 2
#: Width of the ring around a saturated core that gives its colour, in pixels.
RING = 3
#: A core whose ring is fainter than this many standard deviations, or that is not so many times
#: brighter than its ring, is no star: a bad column, for instance.
BRIGHT_RING, CORE_CONTRAST = 5.0, 1.5
#: Black is so many standard deviations below the sky: the sky is not cut off.
BLACK = np.float32(1.5)
#: Light of so many standard deviations in a pixel tells half of its own colour; the other half is
#: that of the square around it, so many pixels to each side.
TRUSTED, HALO = 5.0, 2
#: Pixels that the sky and the brightest light are measured from, at most.
MOST_PIXELS = 250_000
#: Share of the pixels of a colour picture that may be as bright as can be.
FULL = 0.005
#: Rows are stretched in groups of about so many pixels, to use little memory.
GROUP = 1_000_000


def _array(image):
    """Pixels of an array or of a frame as floats of their own precision, not copied."""
    values = np.ma.asarray(image.data if isinstance(image, NDData) else image)
    values = values if values.dtype.kind == "f" else values.astype(float)
    return np.ma.filled(values, np.nan)


def _sample(image):
    """Every n-th pixel of an image, or of images: enough to measure levels."""
    step = max(1, int(np.sqrt(image.shape[-2] * image.shape[-1] / MOST_PIXELS)))
    return image[..., ::step, ::step]


def _sky(image):
    """Level and noise of the sky, without the stars."""
    values = _sample(image).astype(float)
    values = values[np.isfinite(values)]
    if not values.size:
        raise FrameError("No pixel of this image is finite: there is nothing to show.")
    for _ in range(10):
        middle = np.median(values)
        noise = 1.4826 * np.median(np.abs(values - middle))
        inside = np.abs(values - middle) <= 3 * noise
        if noise == 0 or inside.all():
            break
        values = values[inside]
    return float(middle), float(noise) or 1.0


def _grow(mask, steps=1):
    """Mask with its eight neighbours; several times faster than a general dilation."""
    for _ in range(steps):
        wide = mask.copy()
        wide[:, 1:] |= mask[:, :-1]
        wide[:, :-1] |= mask[:, 1:]
        mask = wide.copy()
        mask[1:] |= wide[:-1]
        mask[:-1] |= wide[1:]
    return mask


def _fill_holes(image, noise):
    """Give missing pixels the mean of their neighbours, in place, from the rim inwards."""
    # Far below the sky there is nothing but defects, beside a bad column for instance.
    missing = ~(np.isfinite(image) & (image > DARKEST * noise))
    ny, nx = image.shape
    steps = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if j or i]
    for _ in range(FILL_STEPS):
        if not missing.any():
            return
        y, x = np.nonzero(missing & _grow(~missing))
        total, number = np.zeros(y.size), np.zeros(y.size)
        for j, i in steps:
            there = (y + j >= 0) & (y + j < ny) & (x + i >= 0) & (x + i < nx)
            rows, columns = (y + j)[there], (x + i)[there]
            good = ~missing[rows, columns]
            total[there] += np.where(good, image[rows, columns], 0)
            number[there] += good
        # Beside fewer good ones it is no hole but the rim of a dark part.
        known = number >= LEAST_NEIGHBOURS
        y, x = y[known], x[known]
        image[y, x] = total[known] / number[known]
        missing[y, x] = False


def _blurs(images, fwhm):
    """Gaussian widths (standard deviations) that make all images as wide as the widest."""
    widths = [0.0 if i is None else float(w) for i, w in zip(images, fwhm, strict=True)]
    if not np.isfinite(widths).all():
        return [0.0] * len(widths)
    return [np.sqrt(max(widths) ** 2 - width**2) / FWHM_PER_SIGMA for width in widths]


def _blur(image, sigma):
    """Blur an image in place; what is missing stays missing."""
    from scipy.ndimage import gaussian_filter

    if sigma < 0.2:  # Less is not seen, and cannot be sampled.
        return
    missing = ~np.isfinite(image)
    image[missing] = 0
    gaussian_filter(image, sigma, output=image, mode="nearest", truncate=3.0)
    image[missing] = np.nan


def _colour_cores(channels, saturated, noise):
    """Give saturated cores the colour of the ring around them, in place."""
    from scipy.ndimage import find_objects, label

    cores = _grow(saturated, GROWTH)
    labels, _ = label(cores, np.ones((3, 3), bool))
    for number, (rows, columns) in enumerate(find_objects(labels), start=1):
        box = (
            slice(max(rows.start - RING, 0), rows.stop + RING),
            slice(max(columns.start - RING, 0), columns.stop + RING),
        )
        core = labels[box] == number
        cut = channels[(slice(None), *box)]
        ring = _grow(core, RING) & ~cores[box]
        ring &= np.isfinite(cut).all(axis=0)
        if not ring.any():
            continue
        colour = cut[:, ring].mean(axis=1)
        rim = colour.mean()
        if rim < BRIGHT_RING * noise or colour.min() <= 0:
            continue
        # What saturated is too faint: the channel that implies the most light is right.
        light = np.fmax.reduce(cut[:, core] * (rim / colour)[:, None], axis=0)
        light[np.isnan(light)] = np.fmax.reduce(light, initial=CORE_CONTRAST * rim)
        if np.median(light) < CORE_CONTRAST * rim:
            continue
        cut[:, core] = light * (colour / rim)[:, None]


def _quiet_colours(part):
    """Light above black in units of the noise, without the colours of the noise."""
    from scipy.ndimage import uniform_filter

    signal = np.maximum(part.mean(axis=0), 0)
    light = np.maximum(part + BLACK, 0)
    width = (0, 2 * HALO + 1, 2 * HALO + 1)
    smooth = np.maximum(uniform_filter(part, width, mode="nearest") + BLACK, 0)
    smooth *= light.mean(axis=0) / np.maximum(smooth.mean(axis=0), 1e-3)
    trust = signal**2 / (signal**2 + TRUSTED**2)
    return trust * light + (1 - trust) * smooth


def _compress(light, stretch, softening):
    """Compress the mean of the channels by an arcsinh, in place: their ratios stay."""
    mean = light.mean(axis=0)
    level = np.arcsinh(mean * np.float32(softening / stretch)) / np.float32(softening)
    light *= level / np.where(mean > 0, mean, 1)
    return light


def _white(channels, noise, stretch, softening):
    """Compressed light that is shown as bright as can be: 1, more where much is brighter."""
    light = np.maximum(_sample(channels) / np.float32(noise) + BLACK, 0)
    top = _compress(light, stretch, softening).max(axis=0)
    top = top[np.isfinite(top)]
    # A little more: the light of a burnt-out nebula is the same everywhere.
    return max(1.0, 1.01 * float(np.quantile(top, 1 - FULL))) if top.size else 1.0


def colour_image(
    red, green, blue, *, scale=(1.0, 1.0, 1.0), stretch=12.0, softening=8.0, saturated=None,
    fwhm=None,
):  # fmt: skip
    r"""Colour picture that keeps the colours of bright stars.

    The mean of the channels is compressed by an arcsinh and all three are multiplied by the same
    factor, so that the ratio of the channels, the colour, stays (Lupton et al. 2004, PASP 116,
    133):

    .. math:: f(I) = \mathrm{asinh}(Q I / S) / Q

    The channels are full where they reach 1. If more than 0.5 % of the pixels would be full, in a
    bright nebula for instance, the whole picture is made darker.

    Pixels with hardly any light would have random colours: they get those of the 5 x 5 pixels
    around them.

    Parameters
    ----------
    red, green, blue : array-like of shape (ny, nx)
        Images, from the longest to the shortest wavelength, on the same grid; the level of the sky
        is taken off each. With ``green=None`` it is the mean of the other two. Holes of a few
        pixels, and pixels far below the sky, are filled from their neighbours; where an image has
        nothing, the picture is black.
    scale : tuple of float
        Factors of the three images, see `colour_balance` and `catalogue_balance`.
    stretch : float
        S, in units of the noise of the images: smaller shows fainter things.
    softening : float
        Q: larger compresses the bright end more.
    saturated : array-like of bool, shape (ny, nx), optional
        Pixels that are saturated in any of the images: they get the colour of the ring around them.
        Otherwise a core has the colour of what saturated less.
    fwhm : tuple of float, optional
        Widths of the stars in the images in pixels (anything for an image that is not there). The
        sharper images are blurred to the widest; otherwise stars have rims of another colour.

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
    images = [None if image is None else _array(image) for image in (red, green, blue)]
    shapes = {image.shape for image in images if image is not None}
    if saturated is not None:
        shapes.add(np.shape(saturated))
    if len(shapes) != 1:
        raise FrameError(
            f"The images have the shapes {sorted(shapes)}: bring them to one grid first "
            "(common_grid, reproject_frame)."
        )
    shape = shapes.pop()
    channels, noises = np.empty((3, *shape), np.float32), []
    blurs = [0.0] * 3 if fwhm is None else _blurs(images, fwhm)
    for channel, image, factor, blur in zip(channels, images, scale, blurs, strict=True):
        if image is not None:
            level, noise = _sky(image)
            np.subtract(image, level, out=channel, casting="same_kind")
            channel *= factor
            _fill_holes(channel, factor * noise)
            _blur(channel, blur)
            noises.append(_sky(channel)[1])
    if green is None:
        channels[1] = (channels[0] + channels[2]) / 2
    noise = float(np.mean(noises))
    if saturated is not None and np.any(saturated):
        _colour_cores(channels, np.asarray(saturated, bool), noise)
    white = np.float32(_white(channels, noise, stretch, softening))
    picture = np.empty((*shape, 3), np.uint8)
    rows = max(1, GROUP // shape[1])
    for start in range(0, shape[0], rows):
        first = max(0, start - HALO)
        part = channels[:, first : start + rows + HALO] / np.float32(noise)
        # A colour needs all three.
        part[:, ~np.isfinite(part).all(axis=0)] = -BLACK
        light = _quiet_colours(part)[:, start - first :][:, :rows]
        light = _compress(light, stretch, softening) / white
        # Too bright pixels become fainter in all channels: white would take their colour.
        light /= np.maximum(light.max(axis=0), 1)
        picture[start : start + rows] = np.moveaxis(np.rint(255 * light), 0, -1)
    return picture


def gray_image(image, *, cuts=(-1.5, 99.9), softening=3.0):
    r"""Grey picture with an arcsinh scale: dark sky, faint stars seen, bright ones not all white.

    .. math:: \mathrm{grey} = \mathrm{asinh}\frac{v - v_0}{k \sigma}
              \Big/ \mathrm{asinh}\frac{v_1 - v_0}{k \sigma}

    with the noise :math:`\sigma` of the sky, so that faint stars look the same whatever the
    brightest star is.

    Parameters
    ----------
    image : array-like of shape (ny, nx)
        Counts; an offset of the whole image changes nothing. Holes of a few pixels, and pixels far
        below the sky, are filled from their neighbours; larger holes are black.
    cuts : tuple of float
        Black, in standard deviations of the sky from its level; white, a percentile.
    softening : float
        k: how many standard deviations above black the scale turns from linear to logarithmic.

    Returns
    -------
    numpy.ndarray of uint8, shape (ny, nx)
        0 is black; row 0 is the bottom of the sky image.

    Raises
    ------
    FrameError
        If no pixel is finite.

    Examples
    --------
    >>> sky = np.random.default_rng(1).normal(500.0, 5.0, (50, 50))
    >>> gray_image(sky).dtype
    dtype('uint8')
    """
    image = _array(image)
    level, noise = _sky(image)
    # In units of the noise from here on.
    image = ((image - level) / noise).astype(np.float32, copy=False)
    _fill_holes(image, 1.0)
    # On an empty sky the percentile would turn noise into stars.
    high = max(float(np.percentile(image[np.isfinite(image)], cuts[1])), 10.0)
    np.nan_to_num(image, copy=False, nan=cuts[0])
    image = np.clip(image, cuts[0], high, out=image)
    image -= np.float32(cuts[0])
    grey = np.arcsinh(image / np.float32(softening), out=image)
    grey /= np.arcsinh((high - cuts[0]) / softening)
    return np.rint(255 * grey).astype(np.uint8)
