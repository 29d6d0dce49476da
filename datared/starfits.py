"""Star fits: Gaussian and Moffat profiles fitted to all stars of a frame at once."""

import math

import numpy as np
from astropy.table import Table
from numba import njit

from datared import pixels
from datared.profilefit import BETA, covariance, improve, linear, normal_sums
from datared.profilepixels import drop_neighbours, gather, has_core, reject
from datared.profiles import (
    BASE,
    COMPILED,
    FLAT,
    FLUX,
    GAUSS,
    LONG,
    MODEL,
    MOFFAT,
    N_ROWS,
    ROUND_GAUSS,
    SKY,
    SLANT,
    VALUE,
    WEIGHT,
    WIDTH,
    X,
    Y,
    draw,
)
from datared.profilesky import PART, over_parts, profile_sky

__all__ = ["fit_stars", "profile_sky"]

MODELS = ("moffat", "gaussian")
#: Half side of the box in widths and its least value in pixels.
BOX, SMALLEST_BOX = 2.5, 4
#: Narrowest star in pixels, and the widest in first widths.
NARROWEST, WIDEST = 0.5, 4.0
#: A star must lower chi-square by the square of this.
SIGNIFICANT = 5.0
#: Pixels brighter than the model by this many standard deviations, outside the star, are left out.
KAPPA = 5.0
#: Standard deviation in degrees of an angle that nothing tells.
ANY_ANGLE = 90 / math.sqrt(3)


def fit_stars(
    data,
    x,
    y,
    *,
    fwhm,
    model="moffat",
    noise=None,
    mask=None,
    gain=None,
    radius=None,
    elliptical=True,
    fit_sky=True,
    beta=None,
    threads=None,
):
    r"""Fit a profile to each star of a list: position, flux, sky, width, elongation and slope.

    With the squared distance :math:`\rho` in half widths at half maximum, along the axes of an
    ellipse, the light of a star of flux F is

    .. math:: F \, \frac{4 \ln 2}{\pi w^2} \, 2^{-\rho} \quad \text{(Gaussian)}, \qquad
              F \, \frac{4 k (\beta - 1)}{\pi w^2} \, (1 + k \rho)^{-\beta},
              \quad k = 2^{1/\beta} - 1 \quad \text{(Moffat 1969)}

    where w is the geometric mean of the widths of both axes. The model is averaged over each
    pixel, so the width is that of the light that falls on the sensor, not that of the light
    smeared by the pixels; this holds down to a FWHM of 1.5 px. The least squares are found by
    Levenberg and Marquardt's method, all stars in compiled loops.

    With ``model="gaussian", elliptical=False, fit_sky=False`` this is the problem that
    ``photutils.psf.fit_2dgaussian`` with ``fix_fwhm=False`` solves.

    Parameters
    ----------
    data : numpy.ndarray or astropy.nddata.CCDData, shape (ny, nx)
        The frame, which may be masked. Pixels that are not finite do not count, nor those that
        are masked; where a CCDData has flags (bits of `datared.pixels`) these decide alone:
        saturated pixels do not count, nor bad ones that are not repaired.
    x, y : array-like of float, shape (n,)
        First positions in pixels, good to half a width; masked ones are not fitted.
    fwhm : float
        Typical FWHM of the stars in pixels, good to a factor of 2.
    model : {"moffat", "gaussian"}
        The profile.
    noise : float or numpy.ndarray of float, shape (ny, nx), optional
        Standard deviation of each pixel without the star's own photons, in the unit of the
        frame. Without it all pixels weigh the same, and the errors come from the residuals.
    mask : numpy.ndarray of bool, shape (ny, nx), optional
        True where a pixel must not be used.
    gain : float, optional
        Electrons per unit of the frame. With it the star's photons add
        :math:`m / g` to the variance of a pixel, with m from the model; needs ``noise``.
    radius : float, optional
        The pixels used are the square of this many to each side of the pixel nearest to the
        first position; 2.5 ``fwhm``, at least 4, where it is not given. Wider knows the sky better,
        narrower sees fewer neighbours.
    elliptical : bool
        False: round stars.
    fit_sky : bool
        True: a constant below the star; False: the sky is already subtracted.
    beta : float, optional
        Slope of the Moffat profile, above 1 to 1e6; fitted for each star, from 1.43 to 100, where
        it is not given. Faint stars (S/N below 50) do not tell it: take the median of the bright
        ones. With a slope below 2 most of the ``flux`` is in wings that nobody sees.
    threads : int, optional
        Number of threads; by default that of the processors, at most 8. The result is the same.

    Returns
    -------
    astropy.table.Table
        One row per star, in the given order, with an ``_err`` column for what was fitted (NaN for
        what was not): ``x``, ``y`` (px), ``flux`` (the integral of the model over the whole
        plane) and ``sky`` (per pixel) in the unit of the frame, ``fwhm`` (geometric mean),
        ``fwhm_major``, ``fwhm_minor`` (px), ``theta`` (of the long axis, degrees from +x towards
        +y, -90 to 90; its error is 52, that of any angle, where the star is round),
        ``elongation`` (long by short axis, at least 1), ``beta`` (a Gaussian has none: NaN).
        Then ``chi2`` (per degree of freedom; without ``noise`` the variance of the residuals),
        ``r_squared`` (share of the variance in the box that the model explains), ``n_pix`` and
        ``ok``. Where no star was found the row is NaN and ``ok`` is False. ``meta``: ``n_failed``,
        ``model``, ``radius``.

    Raises
    ------
    ValueError
        If an option is not valid, or shapes differ.
    FrameError
        If the frame has not two axes.

    Notes
    -----
    A row is NaN where fewer than half of the pixels within half a width are good (edge,
    saturated or masked core), where the fit leaves the position by more than a width (1.5 px), is
    narrower than 0.5 px, wider than four first widths or longer than 7 : 1, or where it lowers
    chi-square by less than 25 (5 sigma): no star there. By chance half of the stars with a S/N
    (of the best filter) of 5 are below that, a tenth or less at 7, and 1 % or less from 10 on.
    No fit takes more than 6 x 40 steps.

    Neighbours: pixels more than a width away that are much brighter than those opposite to them
    through the star, or 5 standard deviations above the model on one side only, are left out.
    That removes a neighbour at 2.5 widths or more; closer pairs need `datared.psf`.

    The errors are those of the linear problem. Without ``noise`` they are right for stars whose
    own photons do not matter.

    Examples
    --------
    Width and elongation across the field, from stars whose slope is that of the bright ones:

    >>> from datared.render import star_image
    >>> x, y = np.meshgrid([30.2, 90.4, 150.1], [28.7, 88.3, 150.9])
    >>> x, y = x.ravel(), y.ravel()
    >>> frame = star_image((180, 180), x, y, np.geomspace(3e4, 3e3, 9), fwhm=3 + 0.004 * x)
    >>> frame += np.random.default_rng(1).normal(200.0, 5.0, frame.shape)
    >>> bright = fit_stars(frame, x[:5], y[:5], fwhm=3.0, noise=5.0)
    >>> stars = fit_stars(frame, x, y, fwhm=3.0, noise=5.0, beta=np.median(bright["beta"]))
    >>> slope, middle = np.polyfit(stars["x"] - 90, stars["fwhm"], 1, w=1 / stars["fwhm_err"])
    >>> bool(abs(slope - 0.004) < 0.001), round(float(middle), 1)
    (True, 3.4)
    >>> stars.meta["n_failed"], bool(np.median(stars["elongation"]) < 1.1)
    (0, True)

    Seeing through the night: the median of a list of ``stars["fwhm"][stars["ok"]]``, one for each
    frame, times the seconds of arc of a pixel.
    """
    x, y = (np.ma.filled(np.ma.array(a, float, ndmin=1), np.nan) for a in (x, y))
    values, skip = _planes(data, mask)
    sigma = np.require(np.atleast_2d(1.0 if noise is None else noise), np.float32, "CW")
    numbers = {"fwhm": fwhm, "radius": radius, "gain": gain, "threads": threads}
    if model not in MODELS:
        raise ValueError(f"model {model!r} is unknown; valid are {', '.join(MODELS)}")
    if any(value is not None and not 0 < value < math.inf for value in numbers.values()):
        raise ValueError(f"these numbers must be positive and finite: {numbers}")
    if beta is not None and not 1 < beta <= 1e6:
        raise ValueError(
            f"beta {beta} must be larger than 1 (or the flux is infinite), at most 1e6"
        )
    if gain is not None and noise is None:
        raise ValueError(
            "gain needs noise, the standard deviation of a pixel of sky, besides: give that of "
            "datared.background.background_map(data).noise, or leave out gain"
        )
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x and y must be lists of one length, these are {x.shape} and {y.shape}")
    for name, plane in (("noise", sigma), ("mask", skip)):
        if plane.shape not in (values.shape, (1, 1)):
            raise ValueError(f"{name} has the shape {plane.shape}, the frame {values.shape}")
    radius = max(round(BOX * fwhm), SMALLEST_BOX) if radius is None else radius
    profile = MOFFAT if model == "moffat" else GAUSS if elliptical else ROUND_GAUSS
    order = [FLUX, X, Y, WIDTH] + [SKY] * bool(fit_sky) + [LONG, SLANT] * bool(elliptical)
    lines = np.array([FLUX] + [SKY] * bool(fit_sky), np.int64)
    # The slope comes last: it is dropped from the fit where it is at its limit.
    order = np.array(order + [FLAT] * (profile == MOFFAT and beta is None), np.int64)
    result, cov = np.full((len(x), 11), np.nan), np.full((len(x), 8, 8), np.nan)
    first = np.array([float(fwhm), 1 / (beta or BETA)])
    photons = 0.0 if gain is None else 1 / gain

    def part(k):
        few = slice(k, k + PART)
        frame = values, skip, sigma, noise is not None, photons, float(radius)
        how = first, True, profile, lines, order
        _fits(*frame, x[few], y[few], *how, result[few], cov[few])

    over_parts(part, len(x), threads)
    table = _table(result, cov, profile, elliptical)
    table.meta |= {"model": model, "radius": radius}
    return table


def _planes(data, mask):
    """Return the pixels of a frame, and a plane of those that must not be used (or one False)."""
    values, flags = pixels.frame_planes(data)
    # One kind of array, or the loops are compiled for each kind anew.
    values = np.require(values, np.float32, "CW")
    skip = None if mask is None else np.asarray(mask, bool)
    if flags is not None:
        bad = (flags & pixels.SATURATED) | np.where(flags & pixels.REPAIRED, 0, flags)
        skip = bad > 0 if skip is None else skip | (bad > 0)
    return values, np.require(np.zeros((1, 1)) if skip is None else skip, bool, "CW")


def _table(result, cov, profile, elliptical):
    """Turn parameters and their covariances into the columns of the table."""
    flux, sky, x, y, width, long, slant, flat, chi2, r_squared, n_pix = result.T
    ok, error = np.isfinite(chi2), np.sqrt(np.diagonal(cov, axis1=1, axis2=2)).T
    fwhm, size, root = np.exp(width), np.hypot(long, slant), np.sqrt(1 + long**2 + slant**2)
    ratio = size + root
    # Unit vector of (long, slant): what is along it is the elongation, across it the angle.
    some = size > 0
    c = np.divide(long, size, out=np.ones_like(size), where=some)
    s = np.divide(slant, size, out=np.zeros_like(size), where=some)
    ll, ls, ss = cov[:, LONG, LONG], cov[:, LONG, SLANT], cov[:, SLANT, SLANT]
    along, across = (
        c * c * ll + 2 * c * s * ls + s * s * ss,
        s * s * ll - 2 * c * s * ls + c * c * ss,
    )
    mixed = (c * cov[:, WIDTH, LONG] + s * cov[:, WIDTH, SLANT]) / root
    axes = [cov[:, WIDTH, WIDTH] + a * mixed + along / (4 * root**2) for a in (1, -1)]
    axes = [np.sqrt(a) if elliptical else error[WIDTH] for a in axes]
    turn = 0.5 * np.sqrt(across) / np.maximum(size, 1e-9)
    theta = 0.5 * np.arctan2(slant, long) if elliptical else np.full(len(x), np.nan)
    moffat = profile == MOFFAT
    columns = {
        "x": (x, error[X]),
        "y": (y, error[Y]),
        "flux": (flux, error[FLUX]),
        "sky": (sky, error[SKY]),
        "fwhm": (fwhm, fwhm * error[WIDTH]),
        "fwhm_major": (fwhm * np.sqrt(ratio), fwhm * np.sqrt(ratio) * axes[0]),
        "fwhm_minor": (fwhm / np.sqrt(ratio), fwhm / np.sqrt(ratio) * axes[1]),
        "theta": (np.degrees(theta), np.minimum(np.degrees(turn), ANY_ANGLE)),
        "elongation": (ratio, ratio / root * np.sqrt(along)),
        "beta": (1 / flat, error[FLAT] / flat**2) if moffat else (np.full(len(x), np.nan),) * 2,
    }
    table = Table()
    for name, (value, err) in columns.items():
        table[name], table[f"{name}_err"] = value, err
    table["chi2"], table["r_squared"] = chi2, r_squared
    table["n_pix"], table["ok"] = np.where(ok, n_pix, 0).astype(np.int64), ok
    table.meta["n_failed"] = int(np.count_nonzero(~ok))
    return table


@njit(**COMPILED)
def _fits(
    data, skip, noise, known, photons, radius, x, y, first, square, profile, lines, order, out, cov
):
    """Fit each star; write parameters, chi-square per degree of freedom, R^2 and pixels."""
    ny, nx = data.shape
    side = 2 * int(min(radius, nx + ny)) + 1
    most = min(side, ny) * min(side, nx)
    rows = np.empty((N_ROWS, most))
    star, limits = np.empty(8), np.empty(5)
    normal, work, trial = np.empty((8, 9)), np.empty((8, 8)), np.empty((2, 8))
    part, values = np.empty((8, 8)), np.empty(most)
    n_order, fwhm = order.size, first[0]
    for k in range(x.size):
        n = gather(data, skip, noise, x[k], y[k], radius, square, rows)
        n = drop_neighbours(rows, n, x[k], y[k], radius, fwhm, data, skip, values)
        if n < n_order + 3 or not has_core(rows, n, x[k], y[k], max(0.5 * fwhm, 1.0)):
            continue
        for a in range(8):
            star[a] = 0.0
        star[X], star[Y], star[WIDTH], star[FLAT] = x[k], y[k], math.log(fwhm), first[1]
        limits[0], limits[1], limits[2] = x[k], y[k], max(fwhm, 1.5)
        limits[3], limits[4] = math.log(NARROWEST), math.log(WIDEST * fwhm)
        good = linear(rows, n, star, profile, lines, normal, work, trial)
        good = good and star[FLUX] > 0
        n_free, chi2 = n_order, 0.0
        for turn in range(6):
            if not good:
                break
            n_free, chi2 = improve(
                rows, n, star, profile, order, n_order, limits, normal, work, trial
            )
            good = n_free > 0 and star[FLUX] > 0
            if not good:
                break
            chi2 = draw(rows, n, star, profile)
            sigma = math.sqrt(chi2 / (n - n_free))
            kept = reject(rows, n, star, math.exp(star[WIDTH]), sigma, KAPPA, 0.0, data, skip)
            if kept == n and (photons == 0 or turn > 1):
                break
            n = kept
            good = n >= n_order + 3
            if photons > 0:
                for p in range(n):
                    rows[WEIGHT, p] = 1 / (rows[BASE, p] + photons * max(rows[MODEL, p], 0.0))
        if not good:
            continue
        chi2 = draw(rows, n, star, profile)
        normal_sums(rows, n, order, n_free, normal)
        if not covariance(normal, n_free, work, trial, part):
            continue
        weight = mean = total = empty = 0.0
        for p in range(n):
            weight += rows[WEIGHT, p]
            mean += rows[WEIGHT, p] * rows[VALUE, p]
        mean /= weight
        for p in range(n):
            total += rows[WEIGHT, p] * (rows[VALUE, p] - mean) ** 2
            empty += rows[WEIGHT, p] * rows[VALUE, p] ** 2
        reduced = chi2 / (n - n_free)
        scale = 1.0 if known else reduced
        if (total if lines.size == 2 else empty) - chi2 < SIGNIFICANT**2 * scale:
            continue
        for a in range(8):
            out[k, a] = star[a]
        out[k, 8], out[k, 9], out[k, 10] = reduced, 1 - chi2 / total, n
        for a in range(n_free):
            for b in range(n_free):
                cov[k, order[a], order[b]] = part[a, b] * scale
