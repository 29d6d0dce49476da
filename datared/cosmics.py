"""Cosmic rays on one frame: found by their sharp edges, flagged, and repaired where asked for.

The Laplacian method is that of van Dokkum (2001, PASP 113, 1420), in the steps of astroscrappy
(McCully et al. 2018) with its separable medians, to give the same mask. Most of a frame is
dismissed by one cheap look at every pixel; medians are taken only where a track is possible.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from astropy import units as u
from astropy.nddata import VarianceUncertainty

from . import laplacian, pixels
from .errors import DataredWarning

__all__ = ["find_cosmics", "flag_cosmics"]

_METHODS = ("laplacian", "median")
_REPAIRS = ("mask", "gaussian")


def find_cosmics(
    data,
    *,
    gain=None,
    read_noise=None,
    mask=None,
    variance=None,
    sky=0.0,
    method="laplacian",
    sigma=4.5,
    fraction=0.3,
    contrast=5.0,
    max_iterations=4,
    protect_stars=False,
    fwhm=None,
    threads=None,
):
    r"""Find the pixels that cosmic rays hit.

    With :math:`M_n` the separable median of n x n pixels (of rows, then of columns), the image D in
    electrons and its variance V, which is :math:`D + R^2` where none is given:

    .. math:: N = \sqrt{M_7(V)}, \quad S = L^+ / 2N, \quad S' = S - M_7(S), \quad
              F = (M_5(D) - M_9(M_5(D))) / N

    A pixel is hit where :math:`S' > \text{sigma}` and :math:`S' > \text{contrast} \times F`.
    :math:`L^+` is the positive part of the Laplacian on half pixels. The fine structure F of a
    star is about as high as its Laplacian; a track has none. Neighbours with S' above ``sigma`` are
    hit as well, and their neighbours above ``fraction * sigma``. Then what is hit is replaced by
    the mean of the good pixels in 5 x 5, and the search is done again until it finds nothing new.

    The method ``"median"`` compares :math:`(D - M_5(D)) / N` with ``sigma``, and S with twice the
    ``contrast``; it does so once and without neighbours. It is simpler, misses the faint parts of
    tracks, and now and then hits a star that is hardly above the noise.

    Parameters
    ----------
    data : array-like of shape (ny, nx)
        Image in ADU after bias, dark and flat, with its sky. It is not changed. Values that are not
        finite are never hit, and count as the mean of what is around them.
    gain : float, optional
        Gain in electrons per ADU; needed where there is no ``variance``.
    read_noise : float, optional
        Read noise R in electrons; needed where there is no ``variance``.
    mask : array-like of bool, shape (ny, nx), optional
        Pixels that are bad already (saturated, hot ...). They and their eight neighbours are not
        searched, and replace no others.
    variance : array-like of shape (ny, nx), optional
        Variance of each pixel in ADU squared, in place of gain and read noise.
    sky : float or array-like of shape (ny, nx)
        Level in ADU that was taken off the image: its noise is still there.
    method : {"laplacian", "median"}
        How a hit stands out.
    sigma : float
        Limit for S'. On noise alone, 3 pixels in 100 000 are hit at 4.5, and 4 in a million at 5.
    fraction : float
        Limit for neighbours of a hit, as part of ``sigma``: above 0, at most 1.
    contrast : float
        Limit for the ratio of S' to F. A higher one spares sharper stars.
    max_iterations : int
        Most searches.
    protect_stars : bool
        Depart from astroscrappy in two places where it takes stars for hits. In the fourth row or
        column from an edge, where :math:`M_9` does not fit, F is that of the pixel next to it
        instead of 0. Neighbours join a hit only where S' is above half of ``contrast`` times F:
        else one false hit on the flank of a star or between two of them spreads over the cores.
    fwhm : float, optional
        Full width at half maximum of the stars in pixels. The ratio of S' to F of a star, at worst,
        is :math:`r = \exp(11.3 / \mathrm{fwhm} - 4.3)` (a fit to Gaussian stars integrated over
        pixels, anywhere on a pixel, 1.2 to 4 wide). ``contrast`` is raised to 2 r and ``sigma`` to
        4 r where they are less: from 2.4 pixels downwards.
    threads : int, optional
        Number of threads; by default that of the processors, at most 8. The result is the same.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where a cosmic ray hit. The outermost 3 pixels, where no median fits, are not searched.

    Raises
    ------
    ValueError
        If the method is unknown, a number is out of its range, shapes differ, or there is neither a
        variance nor gain and read noise.

    Warns
    -----
    DataredWarning
        If ``fwhm`` is below 2: stars are as sharp as tracks, and only strong tracks are found.

    Examples
    --------
    >>> image = np.random.default_rng(1).normal(100, 10, (64, 64))
    >>> image[20, 30:34] += 900
    >>> np.argwhere(find_cosmics(image, gain=1.0, read_noise=3.0)).tolist()
    [[20, 30], [20, 31], [20, 32], [20, 33]]
    """
    _one_of(method, _METHODS, "method")
    data = _plane(data, "data")
    if variance is not None:
        gain, extra = 1.0, 0.0
        variance = _plane(variance, "variance", data.shape)
    elif gain is None or read_noise is None:
        raise ValueError("The noise is not known: give gain and read_noise, or a variance.")
    else:
        extra = _number(read_noise, "read_noise", "0 or more electrons", least=0) ** 2
    gain = _number(gain, "gain", "a positive number of electrons per ADU")
    sigma = _number(sigma, "sigma", "a positive number")
    contrast = _number(contrast, "contrast", "a positive number")
    fraction = _number(fraction, "fraction", "above 0 and at most 1", most=1)
    max_iterations = int(_number(max_iterations, "max_iterations", "1 or more", least=1))
    if fwhm is not None:
        fwhm = _number(fwhm, "fwhm", "a positive number of pixels")
        sigma, contrast = _raised(sigma, contrast, fwhm)
    if np.ndim(sky):
        data, sky = data + _plane(sky, "sky", data.shape), 0.0

    bad = np.zeros(data.shape, np.uint8)
    if mask is not None:
        _same_shape(mask, "mask", data.shape)
        bad[:] = np.asarray(mask, bool)
    hits = np.zeros(data.shape, np.uint8)
    if min(data.shape) < 9:
        return hits.view(bool)
    blocks = tuple(-(-n // laplacian.BLOCK) for n in data.shape)
    bands = [(first, min(first + 8, blocks[0])) for first in range(0, blocks[0], 8)]
    simple = method == "median"
    contrast = 2 * contrast if simple else contrast
    limits = tuple(np.float32(v) for v in (extra, sigma, fraction * sigma, contrast))
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, 8)) as pool:

        def load(values, offset, factor):
            image, floor = np.empty_like(data), np.empty(blocks, np.float32)
            arguments = (values, np.float32(offset), np.float32(factor), image, bad, floor)
            lost = sum(pool.map(lambda band: laplacian.load(*arguments, *band), bands))
            return lost, image, floor

        def search(band):
            work = (np.empty(data.shape[1], t) for t in (np.float32, np.uint8))
            work = (*work, np.empty(27, np.float32))
            options = (simple, protect_stars, work, hits, fresh)
            laplacian.search(scene, tops, kept, limits, *options, *band)

        lost, image, floor = load(data, sky, gain)
        planes = [(image, floor, _level(image, bad))]
        if variance is not None:
            more, image, floor = load(variance, 0, 1)
            lost += more
            planes.append((image, floor, _level(image, bad)))
        fresh, active = np.zeros(blocks, np.uint8), np.ones(blocks, np.uint8)
        odd = bad & 2 if lost else None
        if bad.any():
            bad = laplacian.around(bad, np.maximum)
        if lost:  # As if they were hits, but they are never among them.
            for image, floor, level in planes:
                laplacian.clean(image, bad, odd, active, floor, level, fresh.copy())
        scene, floors = (planes[0][0], planes[-1][0], bad), (planes[0][1], planes[-1][1])
        # Zeros that nothing touches take no memory.
        kept = np.zeros((3, *data.shape), np.float32)
        for iteration in range(max_iterations):
            tops = laplacian.tops(floors, active, limits, simple=simple)
            list(pool.map(search, bands))
            if not fresh.any() or iteration == max_iterations - 1:
                break
            near, changed = laplacian.around(fresh, np.maximum), np.zeros_like(fresh)
            for image, floor, level in planes:
                laplacian.clean(image, bad, hits, near, floor, level, changed)
            fresh[:] = 0
            active = laplacian.around(changed, np.maximum)
            laplacian.forget(active, kept)
    return hits.view(bool)


def flag_cosmics(
    ccd,
    *,
    gain=None,
    read_noise=None,
    method="laplacian",
    repair="mask",
    sky=0.0,
    sigma=5.0,
    contrast=5.0,
    fwhm=None,
    threads=None,
):
    """Flag the cosmic rays on a calibrated frame, and repair them if asked for.

    Pixels with a flag are not searched. Stars are protected better than by astroscrappy (see
    ``protect_stars`` of `find_cosmics`), and ``sigma`` is 5: on noise alone, 4 pixels in a million
    are hit.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Frame after bias, dark and flat, in adu or electron, with its sky. It is not changed.
    gain : float, optional
        Gain in electrons per ADU. It counts as 1 where the frame is in electron.
    read_noise : float, optional
        Read noise in electrons. Without it the uncertainty of the frame is used.
    method : {"laplacian", "median"}
        How cosmic rays are found, see `find_cosmics`.
    repair : {"mask", "gaussian"}
        Whether the values stay as they are, or are replaced by the Gaussian-weighted mean of the
        good pixels around (`datared.pixels.repair_gaussian`). The flag is kept in both.
    sky : float or array-like of shape (ny, nx)
        Level that was taken off the frame, in its unit.
    sigma, contrast, fwhm, threads
        As in `find_cosmics`.

    Returns
    -------
    astropy.nddata.CCDData
        Copy with the flag ``COSMIC`` (and ``REPAIRED`` where repaired), the mask set where there is
        any flag, and the number of pixels that were hit as ``NCOSMIC`` in its header.

    Raises
    ------
    ValueError
        As `find_cosmics`; or if the way of repair is unknown, or the frame is in another unit.

    Examples
    --------
    >>> from astropy.nddata import CCDData
    >>> image = np.random.default_rng(1).normal(100, 10, (64, 64))
    >>> image[20, 30] += 900
    >>> frame = flag_cosmics(CCDData(image, unit="adu"), gain=1.0, read_noise=3.0)
    >>> frame.meta["NCOSMIC"], pixels.describe(frame.flags[20, 30])
    (1, ['cosmic'])
    """
    _one_of(repair, _REPAIRS, "repair")
    variance = None
    if read_noise is None and ccd.uncertainty is not None:
        variance = ccd.uncertainty.represent_as(VarianceUncertainty).array
    elif ccd.unit == u.electron:
        gain = 1.0
    elif ccd.unit != u.adu:
        raise ValueError(f"The frame is in {ccd.unit}; it must be in adu or electron.")
    if ccd.flags is not None:
        flags = np.array(ccd.flags, np.uint16)
    else:
        flags = np.zeros(ccd.shape, np.uint16)
        if ccd.mask is not None:
            flags[np.asarray(ccd.mask, bool)] = pixels.OUTSIDE
        flags[~np.isfinite(ccd.data)] = pixels.NONFINITE
    hits = find_cosmics(
        ccd.data,
        gain=gain,
        read_noise=read_noise,
        mask=flags != 0,
        variance=variance,
        sky=sky,
        method=method,
        sigma=sigma,
        contrast=contrast,
        protect_stars=True,
        fwhm=fwhm,
        threads=threads,
    )
    flags[hits] |= np.uint16(pixels.COSMIC)
    result = ccd.copy()
    if repair == "gaussian":
        result.data, flags = pixels.repair_gaussian(ccd.data, flags, bits=pixels.COSMIC)
    result.flags, result.mask = flags, flags != 0
    result.meta["NCOSMIC"] = int(np.count_nonzero(hits))
    return result


def _one_of(value, names, what):
    """Refuse a name that is not among those that are known."""
    if value not in names:
        raise ValueError(f"{what} {value!r} is not one of {', '.join(names)}.")


def _number(value, name, valid, *, least=None, most=np.inf):
    """Value as float, if it is a finite number in its range (above 0 where no least is given)."""
    value = float(value)
    if not (value > 0 if least is None else value >= least) or value > most or value == np.inf:
        raise ValueError(f"{name} is {value:g}; it must be {valid}.")
    return value


def _same_shape(values, name, shape):
    """Refuse an image of another shape."""
    if np.shape(values) != shape:
        raise ValueError(f"{name} has shape {np.shape(values)}; it must be {shape}.")


def _plane(values, name, shape=None):
    """Image as float32 that compiled code can read."""
    values = np.require(np.asarray(values), np.float32, ["C", "W"])
    if shape is not None:
        _same_shape(values, name, shape)
    elif values.ndim != 2:
        raise ValueError(f"{name} has {values.ndim} axes; an image has 2.")
    return values


def _raised(sigma, contrast, fwhm):
    """Limits that stars of this width stay below, with a warning where they are very sharp."""
    ratio = float(np.exp(11.3 / fwhm - 4.3))
    sigma, contrast = max(sigma, 4 * ratio), max(contrast, 2 * ratio)
    if fwhm < 2:
        warnings.warn(
            f"Stars with a FWHM of {fwhm:.2f} pixels are as sharp as cosmic rays. The limits are "
            f"raised to sigma {sigma:.1f} and contrast {contrast:.1f}; faint tracks are missed.",
            DataredWarning,
            stacklevel=3,
        )
    return sigma, contrast


def _level(image, bad):
    """Median of the good pixels, of a grid of them where the image is large."""
    step = max(1, int((image.size / 250_000) ** 0.5))
    sample = image[::step, ::step][bad[::step, ::step] == 0]
    return np.float32(np.median(sample)) if sample.size else np.float32(0)
