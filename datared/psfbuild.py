"""The model of a frame's stars, built from the pixels of some of them."""

import math
import warnings

import numpy as np
from astropy.nddata import CCDData
from astropy.table import Table
from scipy.spatial import cKDTree

from .errors import FrameError
from .psfmodel import RADIUS, finished, moffat_epsf
from .psfstars import cut_out, numbers

__all__ = ["build_epsf", "refine_epsf"]

#: So many stars give each node of a grid finer than 2 x 2 per pixel enough samples.
FINE_STARS = 25
#: Wider stars, in pixels, are drawn well by two nodes per pixel.
WIDE = 5.0
#: The builder sees the stars out to so many widths.
CORE = 2.0
#: Narrower stars, in pixels, have no pixel beside the middle one to be fitted in.
LEAST_FWHM = 0.6
#: The building rests when no star moves by more pixels.
CENTRE_ACCURACY = 0.005


def build_epsf(
    ccd,
    stars,
    *,
    fwhm=None,
    oversampling=4,
    radius=None,
    sky=None,
    min_stars=5,
    iterations=4,
    first=None,
):
    """Build the model of a frame's stars, by photutils' EPSFBuilder.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData or numpy.ndarray, shape (ny, nx)
        Reduced frame; flagged, masked and non-finite pixels do not count. Where stars are close,
        give the frame with their neighbours subtracted (see `datared.psf.refine_epsf`).
    stars : astropy.table.Table
        ``x``, ``y`` and, if there, ``reason``: rows with a reason are not used. Result of
        `select_psf_stars`.
    fwhm : float, optional
        Width of the stars in pixels; ``stars.meta["fwhm"]``.
    oversampling : int
        Nodes per pixel. With fewer than 25 stars the model has 2 at most, for each node needs
        samples; of stars wider than 5 px too, for it needs no more.
    radius : float, optional
        Radius of the model in pixels; 4 FWHM.
    sky : datared.background.Background, optional
        Level of the sky; by default each star has the clipped median of a ring from the radius
        to 1.5 radii.
    min_stars : int
        Smallest number of stars.
    iterations : int
        Largest number of rounds of the builder.
    first : EPSF, optional
        Model to begin with, if it has the same oversampling and radius; a Moffat profile of the
        width ``fwhm`` and the slope ``stars.meta["beta"]`` (3.5) by default.

    Returns
    -------
    EPSF
        The model; its ``stars`` tell which stars were used, and why the others were not.

    Raises
    ------
    FrameError
        If fewer than ``min_stars`` stars are usable; the message counts the reasons.
    ValueError
        If an option is not valid.

    Notes
    -----
    Each round sorts the samples of all stars into the nodes by their sub-pixel phases, takes
    clipped medians, smooths them with a kernel that keeps any quartic, centres the model and fits
    it to the stars again. The values near the rim hold more noise than light; outside of 2 FWHM
    the mean of each ring takes their place in proportion to the distance.
    """
    fwhm = stars.meta.get("fwhm") if fwhm is None else fwhm
    if fwhm is None or not fwhm > LEAST_FWHM:
        raise ValueError(
            f"fwhm {fwhm} must be above {LEAST_FWHM:g}: give the width of the stars in pixels"
        )
    counts = {"oversampling": oversampling, "min_stars": min_stars, "iterations": iterations}
    if not all(value >= 1 and value == int(value) for value in counts.values()):
        raise ValueError(f"these must be whole numbers of 1 or more: {counts}")
    radius = RADIUS * fwhm if radius is None else float(radius)
    if not radius >= CORE * fwhm:
        raise ValueError(f"radius {radius:g} px must be {CORE:g} FWHM ({CORE * fwhm:g} px) or more")
    table = Table({name: numbers(stars[name]) for name in ("x", "y")})
    reason = np.asarray(stars["reason"]) if "reason" in stars.colnames else [""] * len(stars)
    table["flux"] = np.nan
    table["reason"] = np.array(reason, "U60")
    table["misfit"] = np.nan
    cutouts = cut_out(ccd, table, fwhm, radius, sky)
    if len(cutouts) < min_stars:
        raise FrameError(_too_few(table, len(cutouts), min_stars))
    if len(cutouts) < FINE_STARS or fwhm > WIDE:
        oversampling = min(oversampling, 2)
    if first is None or (first.oversampling, first.radius) != (oversampling, radius):
        beta = stars.meta.get("beta", 3.5)
        first = moffat_epsf(fwhm=fwhm, beta=beta, radius=radius, oversampling=oversampling)
    core, fitted, converged = _build(cutouts, first, fwhm, iterations)
    for one, good in zip(cutouts, fitted, strict=True):
        if not good:
            table["reason"][one.row] = "the model does not fit"
    cutouts = [one for one, good in zip(cutouts, fitted, strict=True) if good]
    if len(cutouts) < min_stars:
        raise FrameError(_too_few(table, len(cutouts), min_stars))
    grid = _with_wings(core, first, cutouts, fwhm)
    psf = finished(grid, oversampling, radius, len(cutouts), converged, table)
    for one in cutouts:
        table["flux"][one.row], table["misfit"][one.row] = _misfit(one, psf)
    return psf


def refine_epsf(residual, table, *, psf, oversampling=4, min_stars=5):
    """Build the model again from its stars, now without their neighbours.

    In a crowded field no star is alone. A first model is good enough to subtract the neighbours;
    two or three turns of `psf_photometry` and `refine_epsf` come to rest.

    Parameters
    ----------
    residual : astropy.nddata.CCDData
        The frame without its stars, second result of `psf_photometry`.
    table : astropy.table.Table
        Its first result: the stars.
    psf : EPSF
        The model that was fitted, built by `build_epsf`.
    oversampling, min_stars : int
        As for `build_epsf`.

    Returns
    -------
    EPSF
        A better model, from the same stars.

    Raises
    ------
    ValueError
        If the model was not built from stars.
    FrameError
        If too few stars are left.
    """
    if psf.stars is None:
        raise ValueError("this model is a formula, not built from stars: use build_epsf first")
    used = psf.used
    good = np.flatnonzero(np.isfinite(table["x"]) & np.isfinite(table["flux"]))
    places = np.column_stack([table["x"], table["y"]])[good]
    distance, row = cKDTree(places).query(np.column_stack([used["x"], used["y"]]))
    row = np.unique(good[row[distance < 0.5 * psf.fwhm]])
    stars = table[row]["x", "y", "flux"]
    frame = CCDData(residual.data + psf.image(residual.shape, *stars.columns.values()), unit="adu")
    frame.flags = residual.flags
    stars.meta = {"fwhm": psf.fwhm}
    return build_epsf(
        frame, stars, oversampling=oversampling, radius=psf.radius, min_stars=min_stars, first=psf
    )


def _build(cutouts, first, fwhm, iterations):
    """Improve a first model of the core: nodes, (x, y, flux) of the stars, fitted, converged.

    The builder has the pixels within two widths only: farther out a node holds more noise than
    light, and the time goes with the number of nodes.
    """
    # photutils takes a while to import, and only this function needs it.
    from astropy.modeling.fitting import LevMarLSQFitter
    from photutils.psf import EPSFBuilder, EPSFStar, EPSFStars, ImagePSF

    oversampling = first.oversampling
    half = cutouts[0].values.shape[0] // 2
    core = min(math.ceil(CORE * fwhm), half)
    inner = slice(half - core, half + core + 1)
    middle, side = first.data.shape[0] // 2, oversampling * (2 * core + 1) // 2
    nodes = slice(middle - side, middle + side + 1)
    start = ImagePSF(first.data[nodes, nodes], oversampling=oversampling, fill_value=0.0)
    with warnings.catch_warnings():
        # What the builder warns of is in the reasons of the stars and in `converged`.
        warnings.simplefilter("ignore")
        stars = EPSFStars(
            [
                EPSFStar(
                    np.where(one.good, one.values, 0.0)[inner, inner],
                    weights=one.good[inner, inner].astype(float),
                    cutout_center=(one.x - half + core, one.y - half + core),
                    flux=one.flux,
                    id_label=k + 1,
                )
                for k, one in enumerate(cutouts)
            ]
        )
        builder = EPSFBuilder(
            oversampling=oversampling,
            smoothing_kernel=_smoothing(fwhm * oversampling),
            recentering_boxsize=2 * math.ceil(fwhm) + 1,
            fitter=LevMarLSQFitter(),
            fit_shape=min(2 * round(fwhm) + 1, 2 * core - 1),
            center_accuracy=CENTRE_ACCURACY,
            maxiters=iterations,
            progress_bar=False,
        )
        try:
            result = builder.build_epsf(stars, epsf=start)
        except ValueError as error:
            raise FrameError(
                f"no model could be built from {len(cutouts)} stars: {error}"
            ) from None
    for one, star in zip(cutouts, result.fitted_stars.all_stars, strict=True):
        one.x, one.y = (float(c) + half - core for c in star.cutout_center)
        one.flux = float(star.flux)
    lost = {int(k) for k in result.excluded_star_indices}
    fitted = [k not in lost and one.flux > 0 for k, one in enumerate(cutouts)]
    return np.asarray(result.epsf.data, float), np.array(fitted), bool(result.converged)


def _smoothing(width):
    """Kernel that fits a quartic to the nodes of a square of 0.75 widths and keeps its middle."""
    half = max(2, round(0.375 * width))
    v, u = np.mgrid[-half : half + 1, -half : half + 1] / half
    powers = [(a, b) for a in range(5) for b in range(5 - a)]
    terms = np.stack([(u**a * v**b).ravel() for a, b in powers], axis=1)
    return np.linalg.pinv(terms)[0].reshape(u.shape)


def _with_wings(core, first, cutouts, fwhm):
    """Put the built core into a model whose wings are the first model, scaled in rings."""
    oversampling, middle = first.oversampling, first.data.shape[0] // 2
    half = cutouts[0].values.shape[0] // 2
    edges = np.arange(1.25 * fwhm, first.radius + 0.5 * fwhm, 0.5 * fwhm)
    rows, columns = np.mgrid[: 2 * half + 1, : 2 * half + 1]
    ring, ratio, weight = [], [], []
    for one in cutouts:
        model = first.image(one.values.shape, one.x, one.y, 1.0)
        use = one.good & (model > 0)
        ring.append(np.digitize(np.hypot(columns - one.x, rows - one.y), edges)[use])
        ratio.append((one.values / one.flux)[use] / model[use])
        weight.append(np.square(model[use] * one.flux / max(one.noise, 1e-12)))
    ring, ratio, weight = (np.concatenate(a) for a in (ring, ratio, weight))
    scale = np.ones(len(edges))
    for k in range(1, len(edges)):
        some, w = ratio[ring == k], weight[ring == k]
        if not len(some):
            scale[k] = scale[k - 1]
            continue
        level = _weighted_median(some, w)
        # A neighbour's light in the wings of a star is not the star's.
        keep = abs(some - level) <= np.maximum(4 / np.sqrt(w), 0.3 * abs(level))
        scale[k] = np.sum((some * w)[keep]) / np.sum(w[keep]) if keep.any() else level
    r = np.hypot(*np.ogrid[-middle : middle + 1, -middle : middle + 1]) / oversampling
    grid = first.data * np.interp(r, (edges[:-1] + edges[1:]) / 2, scale[1:])
    side = core.shape[0] // 2
    nodes = slice(middle - side, middle + side + 1)
    share = np.clip((r[nodes, nodes] / fwhm - 1.25) / 0.5, 0, 1)
    grid[nodes, nodes] = (1 - share) * core + share * grid[nodes, nodes]
    return grid


def _weighted_median(values, weights):
    """Value below which lies half of the weight."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return values[order][np.searchsorted(total, 0.5 * total[-1])]


def _misfit(one, psf):
    """Flux of a star and the root mean square of what its model leaves within 1.5 widths.

    The noise is taken off, and the square root is in units of the height of the model.

    The photons of the star are not taken off: their number is not known without a gain.
    """
    model = psf.image(one.values.shape, one.x, one.y, 1.0)
    rows, columns = np.ogrid[: model.shape[0], : model.shape[1]]
    near = one.good & (np.hypot(columns - one.x, rows - one.y) <= 1.5 * psf.fwhm)
    values, model = one.values[near], model[near]
    flux = np.sum(values * model) / np.sum(model**2)
    square = np.mean((values - flux * model) ** 2) - one.noise**2
    return flux, math.sqrt(max(square, 0.0)) / (flux * psf.data.max())


def _too_few(table, n, min_stars):
    """Say how many stars were usable, why the others were not, and what to do."""
    reasons, counts = np.unique(table["reason"], return_counts=True)
    found = ", ".join(f"{c} {r}" for r, c in zip(reasons, counts, strict=True) if r)
    return (
        f"a model of the stars needs {min_stars} good stars, here are {n} of {len(table)}"
        f"{f' ({found})' if found else ''}; lower min_snr, raise neighbour_ratio or n in "
        "select_psf_stars, build from a deeper frame or the co-added one, or use moffat_epsf"
    )
