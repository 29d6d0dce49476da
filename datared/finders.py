"""Inside `sources`: where in a frame stars are, by three methods, each on its filtered frame."""

import math
import threading
import warnings
from typing import NamedTuple

import numpy as np
import sep
from numba import njit

from datared import background, skymesh
from datared.shapes import SIGMA_TO_FWHM

__all__ = ["METHODS", "Plane", "filtered", "find"]

#: Pixels above the threshold that touch and make a source.
MIN_AREA = 3
#: The sizes of sep's stacks belong to the whole process: one thread at a time sets and uses them.
_SEP_LOCK = threading.Lock()


class Plane(NamedTuple):
    """What is needed of a frame, or of some of its rows, to find and measure stars.

    Attributes
    ----------
    values : numpy.ndarray of float32, shape (ny, nx)
        The frame.
    sky : numpy.ndarray of float32, shape (ny, nx)
        The frame without its sky, 0 on bad pixels.
    bad : numpy.ndarray of bool, shape (ny, nx)
        True where a pixel is hidden.
    unfit : numpy.ndarray of bool, shape (ny, nx)
        True where a pixel is hidden or saturated, and tells nothing of the width of a star.
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Bits of `datared.pixels`.
    mesh : datared.background.Mesh
        Sky level and noise.
    """

    values: np.ndarray
    sky: np.ndarray
    bad: np.ndarray
    unfit: np.ndarray
    flags: np.ndarray
    mesh: background.Mesh

    def rows(self, first, last):
        """Return the plane of some rows only."""
        mesh = self.mesh._replace(
            level_surface=self.mesh.level_surface.rows(first, last),
            noise_surface=self.mesh.noise_surface.rows(first, last),
        )
        return Plane(*(part[first:last] for part in self[:5]), mesh)


def filtered(plane, fwhm):
    r"""Signal to noise of a star at each pixel: a Gaussian filter with its mean taken off.

    A star's light is weighed against the light around it, so that neither the wings of a bright
    star nor the glow of a cluster joins its neighbours to one source (the idea of DAOFIND,
    Stetson 1987, PASP 99, 191). With weights k of sum zero,

    .. math:: \frac{\sum k s / n}{\sqrt{\sum k^2}}

    (s the sky-subtracted pixel, n its noise) has unit variance where only sky is.

    Parameters
    ----------
    plane : Plane
        The frame.
    fwhm : float
        Width of the stars in pixels.

    Returns
    -------
    numpy.ndarray of float32, shape (ny, nx)
        The filtered frame in units of its own noise; 0 on bad pixels.
    """
    sigma = fwhm / SIGMA_TO_FWHM
    reach = max(2, math.ceil(1.7 * fwhm))
    profile = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    total = profile.sum() ** 2
    scale = 1 / math.sqrt((profile**2).sum() ** 2 - (total / profile.size) ** 2)
    # Both filters are a product of one along y and one along x.
    along = (profile * scale).astype(np.float32)
    flat = np.float32(total * scale / profile.size**2)
    profile = profile.astype(np.float32)
    result = np.empty_like(plane.values)

    def work(first, last):
        signal = background.signal_rows(
            plane.values, plane.bad, plane.mesh, first - reach, last + reach
        )
        _filter(signal, profile, along, flat, result[first:last])
        result[first:last][plane.bad[first:last]] = 0

    skymesh.over_bands(work, len(result))
    return result


def find(method, plane, signal, nsigma, fwhm):
    """First positions of the stars of a frame.

    Parameters
    ----------
    method : {"sep", "segmentation", "dao"}
        As in `datared.sources.detect`.
    plane : Plane
        The frame.
    signal : numpy.ndarray of float32, shape (ny, nx)
        The frame as `filtered` gives it.
    nsigma : float
        Threshold in standard deviations of the filtered frame.
    fwhm : float
        Width of the stars in pixels.

    Returns
    -------
    x, y : numpy.ndarray of float, shape (n,)
        Positions in pixels.
    """
    return METHODS[method](plane, signal, nsigma, fwhm)


def _find_sep(_plane, signal, nsigma, _fwhm):
    """Find connected pixels above the threshold with sep."""
    # sep raises where its stack of pixels is too small, and takes long to make a large one.
    counts = skymesh.over_bands(
        lambda first, last: np.count_nonzero(signal[first:last] > nsigma), len(signal)
    )
    with _SEP_LOCK:
        sep.set_extract_pixstack(sum(counts) + 2 * signal.shape[1] + 1000)
        sep.set_sub_object_limit(8192)
        found = sep.extract(signal, nsigma, minarea=MIN_AREA, filter_kernel=None)
    return found["x"], found["y"]


def _find_segmentation(_plane, signal, nsigma, _fwhm):
    """Find connected pixels above the threshold with photutils."""
    from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources

    # photutils warns where nothing is found; an empty table says the same.
    if not np.any(signal > nsigma):
        return np.empty(0), np.empty(0)
    segments = detect_sources(signal, nsigma, MIN_AREA)
    if segments is None:
        return np.empty(0), np.empty(0)
    segments = deblend_sources(
        signal, segments, MIN_AREA, n_levels=32, contrast=0.005, progress_bar=False
    )
    x, y = np.atleast_2d(SourceCatalog(signal, segments).centroid).T
    return x, y


def _find_dao(plane, _signal, nsigma, fwhm):
    """Find peaks of the filtered frame with photutils' DAOStarFinder."""
    from photutils.detection import DAOStarFinder
    from photutils.utils.exceptions import NoDetectionsWarning

    # The finder scales the threshold to the noise of the filtered frame itself; with the frame
    # in units of its noise it holds everywhere. Its own kernel of 1.5 sigma is so small that a
    # star of S/N 10 has half of that in it; 4 sigma is what the other methods use. Its own
    # least separation, 2.5 FWHM, would leave out one of two stars that the others take apart.
    finder = DAOStarFinder(
        nsigma,
        fwhm,
        sigma_radius=4.0,
        sharpness_range=(-10, 10),
        roundness_range=(-2, 2),
        min_separation=fwhm,
    )
    with warnings.catch_warnings():
        # An empty table says the same as the warning, and as the None that comes back.
        warnings.simplefilter("ignore", NoDetectionsWarning)
        found = finder(
            background.signal_rows(plane.values, plane.bad, plane.mesh, 0, len(plane.sky)),
            mask=plane.bad,
        )
    if found is None:
        return np.empty(0), np.empty(0)
    return tuple(np.asarray(found[name], float) for name in ("x_centroid", "y_centroid"))


METHODS = {"sep": _find_sep, "segmentation": _find_segmentation, "dao": _find_dao}


@njit(cache=True, nogil=True)
def _filter(signal, profile, along, flat, result):
    """Filter some rows; ``signal`` has as many more above and below as the profile reaches."""
    ny, nx = result.shape
    size = profile.size
    reach = size // 2
    peaked = np.zeros(nx + 2 * reach, np.float32)
    summed = np.zeros(nx + 2 * reach, np.float32)
    inner_peaked, inner_summed = peaked[reach : reach + nx], summed[reach : reach + nx]
    # Slices of one axis let the compiler work on many pixels at a time.
    for j in range(ny):
        row, out = signal[j + reach], result[j]
        for i in range(nx):
            inner_peaked[i] = profile[reach] * row[i]
            inner_summed[i] = row[i]
        for k in range(reach):
            weight, above, below = profile[k], signal[j + k], signal[j + size - 1 - k]
            for i in range(nx):
                pair = above[i] + below[i]
                inner_peaked[i] += weight * pair
                inner_summed[i] += pair
        for i in range(nx):
            out[i] = along[reach] * inner_peaked[i] - flat * inner_summed[i]
        for k in range(reach):
            weight, m = along[k], size - 1 - k
            peaked_left, peaked_right = peaked[k : k + nx], peaked[m : m + nx]
            summed_left, summed_right = summed[k : k + nx], summed[m : m + nx]
            for i in range(nx):
                pair = summed_left[i] + summed_right[i]
                out[i] += weight * (peaked_left[i] + peaked_right[i]) - flat * pair
