"""Growth curves: how a star's light grows with the radius, which radius is the best, what it lacks.

All of it comes from how bright stars look in the apertures, never from how a star changes in time.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

__all__ = [
    "ApertureCorrection",
    "aperture_correction",
    "best_radius",
    "growth_curve",
    "recommended_radius",
    "signal_to_noise",
]

#: Magnitudes per relative change of the light.
MAGNITUDES = 2.5 / np.log(10)
#: Stars with less signal-to-noise than this say nothing about an aperture correction.
LEAST_SIGNAL = 20.0
#: Stars farther from the fitted correction than this many standard deviations do not count.
CLIP = 4.0
#: Powers of x and y of the surfaces of order 0, 1 and 2, and the stars that each needs.
TERMS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
N_TERMS, LEAST_STARS = (1, 3, 6), (1, 9, 18)
#: Fewer stars than this do not tell which of them is off: all count.
LEAST_CLIPPED = 10
#: Largest spread of the stars in a term of a surface by the smallest: no line, no corner.
LONGEST = 20.0


@dataclass(frozen=True)
class ApertureCorrection:
    """What to add to magnitudes in a small aperture to have those in a large one.

    Attributes
    ----------
    magnitude : float
        Mean correction of the stars, to be added to magnitudes; negative, for a larger aperture
        holds more light. NaN without a star.
    error : float
        Its standard error.
    scatter : float
        Standard deviation of single stars about the surface beyond their errors.
    n_stars : int
        Stars used.
    order : int
        Order of the surface in x and y: 0 (constant), 1 (plane) or 2, chosen by cross-validation.
    coefficients : numpy.ndarray of float, shape (1,), (3,) or (6,)
        Of 1, u, v, u^2, u v, v^2.
    middle, half : tuple of float
        ``u = (x - middle[0]) / half[0]``, ``v = (y - middle[1]) / half[1]``.
    """

    magnitude: float
    error: float
    scatter: float
    n_stars: int
    order: int
    coefficients: np.ndarray
    middle: tuple
    half: tuple

    def at(self, x, y):
        """Correction at places of the frame; beyond the stars the surface goes on unchecked.

        Parameters
        ----------
        x, y : array_like of float
            Positions in pixels.

        Returns
        -------
        numpy.ndarray of float
            Magnitudes to add.
        """
        design = _design(x, y, self.middle, self.half, len(self.coefficients))
        return design @ self.coefficients


def growth_curve(flux, *, flags=None):
    """Share of a star's light that is inside each radius, from many stars.

    Parameters
    ----------
    flux : array_like of float, shape (..., nr)
        Fluxes; the last axis is the radius, the last radius is taken to hold everything.
    flags : array_like of int, shape (..., nr), optional
        Stars with any flag in any radius do not count.

    Returns
    -------
    numpy.ndarray of float, shape (nr,)
        Median over the stars; NaN where there is none.

    Examples
    --------
    >>> growth_curve([[50.0, 100.0], [30.0, 60.0]])
    array([0.5, 1. ])
    """
    flux = np.asarray(flux, float).reshape(-1, np.shape(flux)[-1])
    good = np.all(np.isfinite(flux) & (flux > 0), axis=1)
    if flags is not None:
        good &= ~np.any(np.reshape(flags, flux.shape), axis=1)
    if not good.any():
        return np.full(flux.shape[1], np.nan)
    return np.median(flux[good] / flux[good, -1:], axis=0)


def signal_to_noise(flux, flux_err, *, flags=None, signal_range=(0.0, np.inf)):
    """Signal-to-noise against radius: the median of stars, each relative to its best radius.

    Parameters
    ----------
    flux, flux_err : array_like of float, shape (..., nr)
        Fluxes and errors; the last axis is the radius.
    flags : array_like of int, shape (..., nr), optional
        Stars with any flag in any radius do not count, unless there are no others.
    signal_range : tuple of float
        Signal-to-noise of the stars that count, in their best radius; all stars are taken where
        none is in the range.

    Returns
    -------
    numpy.ndarray of float, shape (nr,)
        At most 1; NaN where there is no star.

    Examples
    --------
    >>> signal_to_noise([[90.0, 100.0, 102.0]], [[2.0, 2.0, 3.0]])
    array([0.9 , 1.  , 0.68])
    """
    n_radii = np.shape(flux)[-1]
    flux, error = (np.asarray(value, float).reshape(-1, n_radii) for value in (flux, flux_err))
    good = np.all(np.isfinite(flux) & (flux > 0) & np.isfinite(error) & (error > 0), axis=1)
    if flags is not None:
        unflagged = good & ~np.any(np.reshape(flags, flux.shape), axis=1)
        good = unflagged if unflagged.any() else good
    if not good.any():
        return np.full(n_radii, np.nan)
    signal = flux[good] / error[good]
    best = signal.max(axis=1)
    moderate = (best >= signal_range[0]) & (best <= signal_range[1])
    if moderate.any():
        signal, best = signal[moderate], best[moderate]
    return np.median(signal / best[:, None], axis=0)


def best_radius(flux, flux_err, *, flags=None, signal_range=(20.0, 300.0)):
    """Index of the radius that gives the best signal-to-noise for moderately bright stars.

    Very bright stars want large apertures and faint ones small; the choice is for those between.

    Parameters
    ----------
    flux, flux_err, flags, signal_range
        As in `signal_to_noise`.

    Returns
    -------
    int
        Index of the radius whose median relative signal-to-noise is the largest; the middle one
        where no star can tell.

    Examples
    --------
    >>> best_radius([[90.0, 100.0, 101.0]], [[2.0, 2.0, 3.0]])
    1
    """
    signal = signal_to_noise(flux, flux_err, flags=flags, signal_range=signal_range)
    return int(np.argmax(signal)) if np.isfinite(signal).all() else signal.size // 2


def recommended_radius(radii, share, *, sky_noise, n_annulus, gain, flux):
    r"""Radius of the largest signal-to-noise for stars of one brightness, by the CCD equation.

    .. math:: S/N = \frac{F s(r)}{\sqrt{F s(r) / g + n \sigma^2 (1 + n q / n_{an})}},
              \quad n = \pi r^2, \quad q = \pi / 2

    with the growth curve ``s`` between the measured radii.

    Parameters
    ----------
    radii : array_like of float, shape (nr,)
        Radii in pixels, above 0, growing, three or more.
    share : array_like of float, shape (nr,)
        Share of the light in each, see `growth_curve`.
    sky_noise : float
        Standard deviation of one pixel of sky.
    n_annulus : float
        Pixels of the sky annulus, whose median is the sky.
    gain : float or None
        Electrons per unit of the frame; None leaves out the photons of the star.
    flux : float
        Light of the stars, in the unit of the frame.

    Returns
    -------
    float
        Radius in pixels, within the range of ``radii``: the first or last of them means that the
        best one lies beyond.

    Raises
    ------
    ValueError
        If fewer than three radii have a share, they do not grow, or a number is not positive.

    Examples
    --------
    >>> radii = np.arange(1.0, 9.0)
    >>> share = 1 - np.exp(-radii**2 / 2 / 1.5**2)
    >>> setup = {"sky_noise": 10.0, "n_annulus": 1000, "gain": None, "flux": 1000.0}
    >>> round(recommended_radius(radii, share, **setup), 1)  # 1.585 sigma of a Gaussian
    2.3
    """
    radii, share = np.asarray(radii, float), np.asarray(share, float)
    if radii.shape != share.shape or not (np.all(np.diff(radii) > 0) and np.all(radii > 0)):
        raise ValueError(f"radii {radii} must grow, from above 0, with a share {share} for each")
    if not (flux > 0 and n_annulus > 0 and sky_noise >= (0 if gain else 1e-30)):
        found = f"flux {flux}, n_annulus {n_annulus} and sky_noise {sky_noise}"
        raise ValueError(f"{found} must be positive (sky_noise may be 0 where there is a gain)")
    known = np.isfinite(share)
    if known.sum() < 3:
        raise ValueError(f"{known.sum()} of {radii.size} radii have a share of light: 3 are needed")
    # Light per area falls smoothly, where the light itself bends most at the radius looked for.
    curve = PchipInterpolator(radii[known], share[known] / radii[known] ** 2)
    fine = np.linspace(radii[known][0], radii[known][-1], 1001)
    light, area = flux * fine**2 * curve(fine), np.pi * fine**2
    variance = area * sky_noise**2 * (1 + area * np.pi / 2 / n_annulus)
    if gain is not None:
        variance += np.maximum(light, 0) / gain
    return float(fine[np.argmax(light / np.sqrt(variance))])


def aperture_correction(
    flux, flux_err, *, radius, reference, x=None, y=None, flags=None, shape=None
):
    r"""Magnitude that a small aperture lacks against a large one, and how it varies over the frame.

    For each star :math:`\Delta m = -2.5 \log_{10} (F_{ref} / F_r)`. The light of the small
    aperture is a part of that of the large one, so that of its error only little is left in the
    ratio. The errors and what the stars scatter beyond them are the weights of a surface in x and
    y. A plane or a parabola is taken only if it foretells stars that were left out of the fit
    better, by more than the chance of it, and only if the stars are spread over the frame. Fewer
    than 10 stars are all taken for good; the error is then itself uncertain.

    Parameters
    ----------
    flux, flux_err : array_like of float, shape (n, nr)
        Fluxes and errors; the last axis is the radius.
    radius, reference : int
        Index of the small and of the large radius.
    x, y : array_like of float, shape (n,), optional
        Positions in pixels, both or none; a constant is fitted without them.
    flags : array_like of int, shape (n, nr), optional
        Stars with any flag in one of the two radii do not count.
    shape : tuple of int, optional
        ``(ny, nx)`` of the frame; the extent of the stars without it.

    Returns
    -------
    ApertureCorrection
        Correction, from stars with a signal-to-noise of 20 or more in both apertures.

    Examples
    --------
    >>> flux = np.array([[900.0, 1000.0], [1800.0, 2000.0], [450.0, 500.0]])
    >>> found = aperture_correction(flux, flux / 100, radius=0, reference=1)
    >>> round(found.magnitude, 4), found.order
    (-0.1144, 0)
    """
    if (x is None) != (y is None):
        raise ValueError("x and y are needed both, or neither for a constant")
    columns = [radius, reference]
    flux, error = (np.asarray(value, float)[:, columns] for value in (flux, flux_err))
    with np.errstate(invalid="ignore"):
        good = np.all((flux >= LEAST_SIGNAL * error) & (flux > 0) & (error >= 0), axis=1)
    if flags is not None:
        good &= ~np.any(np.asarray(flags)[:, columns], axis=1)
    if x is not None:
        x, y = np.asarray(x, float), np.asarray(y, float)
        good &= np.isfinite(x) & np.isfinite(y)
    (small, large), (small_err, large_err) = flux[good].T, error[good].T
    value = -2.5 * np.log10(large / small)
    ring = np.maximum(large_err**2 - small_err**2, 0) / large**2
    variance = MAGNITUDES**2 * (ring + (small_err * (1 / large - 1 / small)) ** 2)
    x, y = (np.zeros(value.size),) * 2 if x is None else (x[good], y[good])
    middle, half = _extent(x, y, shape)
    if not value.size:
        return ApertureCorrection(np.nan, np.nan, np.nan, 0, 0, np.full(1, np.nan), middle, half)
    designs = [_design(x, y, middle, half, n_terms) for n_terms in N_TERMS]
    order, best = 0, _fit_surface(designs[0], value, variance)
    scale = variance + best[1] ** 2 + 1e-12
    for higher in (1, 2):
        if value.size < LEAST_STARS[higher] or np.linalg.cond(designs[higher]) > LONGEST:
            break
        fit = _fit_surface(designs[higher], value, variance)
        # Paired, star by star: by how much the simpler surface foretells it worse.
        gain = np.minimum(best[3] ** 2 / scale, 100) - np.minimum(fit[3] ** 2 / scale, 100)
        if gain.mean() > 2 * gain.std() / np.sqrt(gain.size):
            order, best = higher, fit
    coefficients, scatter, used, _ = best
    weight = used / (variance + scatter**2 + 1e-12)
    magnitude = float(np.sum(weight * (designs[order] @ coefficients)) / weight.sum())
    what = magnitude, float(1 / np.sqrt(weight.sum())), scatter, int(used.sum()), order
    return ApertureCorrection(*what, coefficients, middle, half)


def _fit_surface(design, value, variance):
    """Return coefficients, scatter, stars used, and what each star is off where it is left out."""
    n_terms = design.shape[1]
    scatter, used = 0.0, np.ones(value.size, bool)
    for _ in range(20):
        root = np.sqrt(used / (variance + scatter**2 + 1e-12))
        coefficients = np.linalg.lstsq(design * root[:, None], value * root, rcond=None)[0]
        residual = value - design @ coefficients
        freedom = max(used.sum() - n_terms, 1)
        # What the residuals scatter beyond the errors, by their weighted mean square.
        excess = np.sum((root * residual) ** 2) / freedom - 1
        beyond = scatter**2 + excess * freedom / max(np.sum(root**2), 1e-30)
        scatter = float(np.sqrt(max(beyond, 0.0)))
        spread = 1.4826 * np.median(np.abs(residual - np.median(residual)))
        limit = CLIP * np.sqrt(np.maximum(variance, spread**2) + 1e-12)
        used = (np.abs(residual) <= limit) | (value.size < LEAST_CLIPPED)
        if used.sum() <= n_terms:
            used = np.ones(value.size, bool)
    weighted = design * root[:, None]
    lever = np.sum(weighted * np.linalg.pinv(weighted).T, axis=1)
    return coefficients, scatter, used, residual / np.maximum(1 - lever, 1e-3)


def _design(x, y, middle, half, n_terms):
    """Return the powers of the coordinates from -1 to 1 over the frame, shape (..., n_terms)."""
    u = (np.asarray(x, float) - middle[0]) / half[0]
    v = (np.asarray(y, float) - middle[1]) / half[1]
    return np.stack([u**p * v**q for p, q in TERMS[:n_terms]], axis=-1)


def _extent(x, y, shape):
    """Return middle and half size of a frame, or of what the stars cover, along x and y."""
    if shape is not None:
        sizes = (float(shape[1]), float(shape[0]))
        return tuple((size - 1) / 2 for size in sizes), tuple(size / 2 for size in sizes)
    if not x.size:
        return (0.0, 0.0), (1.0, 1.0)
    middle = tuple(float(np.ptp(place) / 2 + place.min()) for place in (x, y))
    return middle, tuple(max(float(np.ptp(place) / 2), 1.0) for place in (x, y))
