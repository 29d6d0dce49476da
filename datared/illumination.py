"""Correct a flat for its lamp: the large-scale shape of the night's own sky, frame over frame.

A lamp in the dome lights the field unevenly, and after its flat the brightness of a star depends on
where it stands. The sky is even, but for what stars, moon and clusters add to it; so its shape is
taken between the stars, over several pointings.
"""

import copy
import itertools
import logging
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from scipy import ndimage

from .calibrated import open_master
from .correction import correct
from .errors import FrameError
from .frames import read_frame
from .maps import local_level
from .overscan import find_regions, trim_frame
from .rows import standard_deviation

__all__ = ["Illumination", "illumination", "make_illumination"]

log = logging.getLogger("datared.illumination")

#: Cells along a side of a box; a cell is the mean of its good pixels.
CELLS = 16
#: Fewest frames that can tell the sky from what moves over it.
LEAST_FRAMES = 3
#: Part of the cells of a box, and of the boxes of each ninth of the field, that must show sky.
LEAST_FREE = 0.1
#: Largest relative noise of a box on one frame: the sky of a fainter frame is of no use. Part of a
#: frame that stars may cover: between those of a cluster there is light of the cluster.
FAINT, CROWDED = 0.005, 0.5
#: Spread between pointings (rms) that does no harm, and scatter around the fit worth a warning.
HARMLESS, ROUGH = 0.005, 0.01


class Illumination(NamedTuple):
    """How an illumination map came about; see `illumination`.

    Attributes
    ----------
    n_frames, n_pointings : int
        Frames used, and the pointings they belong to.
    rms, peak_to_peak : float
        Of the boxes around the fitted surface; largest less smallest value of the map.
    spread : float
        Rms difference of the surface of one pointing (with one pointing only, of one frame) from
        that of all: what the sky did, not the lamp.
    boxes : numpy.ndarray of float, shape (ny // box, nx // box)
        Sky in the boxes before the fit, NaN where there is none.
    left_out : tuple of str
        Frames that were not used, each with the reason.
    """

    n_frames: int
    n_pointings: int
    rms: float
    peak_to_peak: float
    spread: float
    boxes: np.ndarray
    left_out: tuple


class _Sky(NamedTuple):
    """Sky of one frame: relative levels of its boxes, their noise, the part on stars."""

    name: str
    pointing: object
    shape: tuple
    levels: np.ndarray
    error: float
    stars: float


def illumination(frames, *, flags=None, pointings=None, box=64, order=2):
    r"""Large-scale shape of the sky on calibrated lights.

    Pixels are averaged in cells of a sixteenth of a box, and cells on stars and their halos left
    out. The level of a box is the mean of its cells within 3 robust deviations, measured below the
    median, where there are no stars. Boxes are divided by the level of their frame, and combined by
    the median over the frames of a pointing, then over pointings. Through them goes
    :math:`I(x, y) = \sum_{i + j \le n} a_{ij} x^i y^j`, fitted robustly (Tukey's biweight): neither
    noise nor the halo of a bright star is in it. The flat times I is the corrected flat.

    Parameters
    ----------
    frames : iterable of array-like, each of shape (ny, nx)
        Calibrated lights (bias, dark and flat done) of one set-up and filter, three or more.
    flags : iterable of array-like, optional
        Flags (or mask) of each frame; flagged pixels and those that are not finite do not count.
    pointings : sequence, optional
        To which pointing each frame belongs (any label, such as the field's name): frames of one
        have the same stars and the same gradient of the sky. By default each has its own.
    box, order : int
        Side of a box in pixels, from 16 to a quarter of the frame; n, 1 to 3.

    Returns
    -------
    map, report : numpy.ndarray of float32, shape (ny, nx), and Illumination
        I with median 1, and numbers to judge it by.

    Raises
    ------
    FrameError
        If fewer than three frames can be used (with errors of a box up to 0.5 %), stars leave no
        sky in a part of the field, or the pointings contradict each other: their spread is more
        than half of the effect, as with moonlight, whose gradient turns.
    ValueError
        If an option is not valid, or shapes differ.

    Notes
    -----
    What the sky of all pointings has in common stays in the map: a gradient that does not turn,
    light scattered in the telescope, a bias that drifted (a few ADU of a faint sky). Stars of known
    magnitude show it. The idea is that of mkillumcor in IRAF's ccdred, which smooths instead.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> tilt = 1 + 0.1 * np.linspace(-1, 1, 256) + np.zeros((256, 1))
    >>> sky = [rng.normal(200 * tilt, 10) for _ in range(3)]
    >>> surface, report = illumination(sky, box=32)
    >>> bool(abs(surface / tilt - 1).max() < 0.01), report.n_frames
    (True, 3)
    """
    skies, bits = [], itertools.repeat(None) if flags is None else flags
    for i, (frame, own) in enumerate(zip(frames, bits, strict=flags is not None)):
        label = i if pointings is None else pointings[i]
        skies.append(_sky(np.asarray(frame), own, box, name=f"frame {i + 1}", pointing=label))
    return _surface(skies, order, [])


def make_illumination(
    lights,
    *,
    flat,
    bias=None,
    dark=None,
    dark_scale=1.0,
    camera=None,
    pointings=None,
    most=12,
    box=64,
    order=2,
):
    r"""Correct a master flat for its illumination, with raw lights of the same night.

    The flat F becomes :math:`F I`, its error :math:`\sigma I`, with I of `illumination`; both are
    divided by the median of :math:`F I`.

    Parameters
    ----------
    lights : sequence of str or pathlib.Path
        Raw lights of one set-up and filter in order of time, of all fields of the night.
    flat : astropy.nddata.CCDData
        Master flat. It is not changed.
    bias, dark, dark_scale, camera
        As in `datared.calibration.master_flat`; ``dark`` for all lights or a sequence.
    pointings : sequence, optional
        To which pointing each light belongs; by default the card OBJECT tells.
    most : int
        Lights to use, alike of each pointing that is given, and there spread over the night.
    box, order
        As in `illumination`.

    Returns
    -------
    astropy.nddata.CCDData
        Corrected flat with median 1, flags as before, and the cards ILLUMCOR = T, ILLUMRMS,
        ILLUMSPR, ILLUMPTP (as in `Illumination`), NILLUM and NILLUMPT (frames and pointings).

    Raises
    ------
    FrameError
        If the flat was corrected before, or as in `illumination`. The plain flat is then the best.
    """
    if flat.meta.get("ILLUMCOR"):
        raise FrameError("the flat was corrected before (ILLUMCOR = T); start from the plain one.")
    lights = list(lights)
    darks = list(dark) if isinstance(dark, list | tuple) else [dark] * len(lights)
    scales = np.broadcast_to(dark_scale, len(lights))
    masters = {"flat": open_master(flat, flat.shape), "bias": open_master(bias, flat.shape)}
    skies, problems = [], []
    for i in _spread([0] * len(lights) if pointings is None else pointings, most):
        name = Path(lights[i]).name
        try:
            raw = read_frame(lights[i], camera=camera)
            light = trim_frame(raw, regions=find_regions(raw.meta, raw.shape, camera=camera))
            own = {"dark": darks[i], "dark_scale": float(scales[i]), "name": name}
            data, bits, *_ = correct(light.data, light.flags, **masters, **own)
        except FrameError as error:
            problems.append(str(error))
            continue
        label = raw.meta.get("OBJECT", "") if pointings is None else pointings[i]
        skies.append(_sky(data, bits, box, name=name, pointing=label))
    surface, report = _surface(skies, order, problems)
    log.info("illumination from %d lights; left out: %s", report.n_frames, report.left_out)
    return _corrected(flat, surface, report)


def _spread(pointings, most):
    """Give indices of at most so many frames, alike of each pointing and spread in time."""
    groups = {}
    for i, label in enumerate(pointings):
        groups.setdefault(label, []).append(i)
    chosen = []
    # The smallest first: what it cannot give is taken from the others.
    for done, own in enumerate(sorted(groups.values(), key=len)):
        share = min(len(own), -((len(chosen) - most) // (len(groups) - done)))
        chosen += [own[k] for k in np.linspace(0, len(own) - 1, share).round().astype(int)]
    return sorted(chosen)


def _sky(data, flags, box, *, name, pointing):
    """Measure the sky in the boxes of one calibrated frame."""
    if data.ndim != 2 or not CELLS <= box <= min(data.shape) / 4:
        valid = f"must be {CELLS} to a quarter of the side of a frame"
        raise ValueError(f"box = {box} pixels {valid}; {name} has shape {data.shape}.")
    good = np.isfinite(data)
    if flags is not None:
        if np.shape(flags) != data.shape:
            raise ValueError(f"{name} has shape {data.shape}, and its flags {np.shape(flags)}.")
        good &= np.asarray(flags) == 0
    cells = _cells(data, good, [CELLS * (size // box) for size in data.shape])
    stars = _stars(cells)
    part = np.count_nonzero(stars) / max(np.count_nonzero(np.isfinite(cells)), 1)
    levels, errors = _box_levels(np.where(stars, np.nan, cells))
    level = float(_median(levels.ravel()))
    level = level if level > 0 else math.nan
    error = float(_median(errors.ravel())) / level
    return _Sky(name, pointing, data.shape, levels / level, error, part)


def _cells(data, good, counts):
    """Means of the good pixels of cells, NaN where fewer than half of a cell's pixels are good."""
    total, number = np.where(good, data, 0), good
    for axis, count in enumerate(counts):
        edges = np.linspace(0, data.shape[axis], count + 1).astype(int)[:-1]
        total = np.add.reduceat(total, edges, axis=axis, dtype=np.float64)
        number = np.add.reduceat(number, edges, axis=axis, dtype=np.float64)
    enough = number >= 0.5 * data.size / math.prod(counts)
    return np.where(enough, total / np.maximum(number, 1), np.nan)


def _stars(cells):
    """Cells on stars and their halos: what stands out of a smooth level, seen in three widths."""
    known, stars = np.isfinite(cells), np.zeros(cells.shape, bool)
    for _ in range(4):
        level, _noise = local_level(np.where(stars, np.nan, cells), box=4 * CELLS)
        excess, stands_out = np.where(known, cells - level, 0), np.zeros(cells.shape, bool)
        for width in (1, 3, 7):
            weight = ndimage.uniform_filter(known.astype(float), width)
            smooth = ndimage.uniform_filter(excess, width) / np.maximum(weight, 0.1)
            # Below the level there are no stars: that side of it is the noise.
            noise = 1.4826 * _median(-smooth[known & ~stars & (smooth < 0)])
            stands_out |= smooth > 3.5 * noise
        stars = ndimage.binary_dilation(stands_out) & known
    return stars


def _box_levels(cells):
    """Levels of boxes of cells and their standard deviations, NaN where too few cells are left."""
    n = cells.shape[0] // CELLS
    values = cells.reshape(n, CELLS, -1, CELLS).swapaxes(1, 2).reshape(n, -1, CELLS**2)
    for _ in range(5):
        below = _median(values)[..., None] - values
        width = 1.4826 * np.nan_to_num(_median(np.where(below > 0, below, np.nan)))[..., None]
        values = np.where(np.abs(below) <= 3 * width, values, np.nan)
    number = np.count_nonzero(np.isfinite(values), axis=-1)
    number = np.where(number < LEAST_FREE * CELLS**2, np.nan, number)
    return np.nansum(values, axis=-1) / number, width[..., 0] / np.sqrt(number)


def _surface(skies, order, left_out):
    """Combine the skies of frames and fit the surface: the map and the report."""
    if order not in (1, 2, 3):
        raise ValueError(f"order {order!r} is not one of 1, 2, 3: what a lamp does is smooth.")
    skies, left_out = _usable(skies, left_out)
    pointings = {}
    for sky in skies:
        pointings.setdefault(sky.pointing, []).append(sky.levels)
    units, what = [_combined(levels) for levels in pointings.values()], "pointings"
    if len(pointings) == 1:
        log.warning("one pointing only: a gradient of its sky cannot be told from the lamp's")
        units, what = [sky.levels for sky in skies], "frames"
    boxes = _combined(units)
    terms = _fit(boxes, order)
    fitted = _evaluate(terms, boxes.shape)
    effect = np.std(fitted)
    turned = [np.var(_evaluate(_fit(unit / boxes, order), boxes.shape)) for unit in units]
    spread = math.sqrt(sum(turned) / (len(units) - 1))
    if spread > max(0.5 * effect, HARMLESS):
        raise FrameError(
            f"the sky of {len(units)} {what} differs by {spread:.1%} (rms), their common shape is "
            f"{effect:.1%}: not the lamp but the sky, such as moonlight; use frames of a dark sky."
        )
    residual = boxes / fitted - 1
    scatter = 148.26 * _median(np.abs(residual).ravel())
    if scatter > 100 * ROUGH:
        log.warning("the sky scatters by %.1f %% around a surface of order %d", scatter, order)
    surface = _evaluate(terms, skies[0].shape)
    surface = (surface / np.median(surface)).astype(np.float32)
    numbers = math.sqrt(np.nanmean(residual**2)), float(np.ptp(surface)), spread, boxes
    return surface, Illumination(len(skies), len(pointings), *numbers, tuple(left_out))


def _usable(skies, left_out):
    """Skies that can be used, and the frames left out, each with its reason."""
    shapes = {sky.shape for sky in skies}
    if len(shapes) > 1:
        raise ValueError(f"frames of one set-up have one shape, these have {sorted(shapes)}.")
    used = [sky for sky in skies if sky.error <= FAINT]
    for sky in skies:
        if not sky.error <= FAINT:
            text = f"its boxes have errors of {sky.error:.1%}, at most {FAINT:.1%} is of use"
            left_out.append(f"{sky.name}: the sky is too faint: {text}.")
    free = [sky for sky in used if sky.stars <= CROWDED]
    if len(free) >= LEAST_FRAMES:  # Else crowded ones are better than none.
        left_out += [f"{s.name}: stars cover {s.stars:.0%}." for s in used if s.stars > CROWDED]
        used = free
    if len(used) < LEAST_FRAMES:
        found = f"{len(used)} usable frames, and {LEAST_FRAMES} are needed to see the sky's shape."
        raise FrameError(" ".join([found, *left_out]))
    return used, left_out


def _combined(maps):
    """Median of maps of boxes, each brought to the level of the others."""
    maps = np.array(maps)
    for _ in range(3):
        middle = _median(np.moveaxis(maps, 0, -1))
        maps = maps / _median((maps / middle).reshape(len(maps), -1))[:, None, None]
    return middle / _median(middle.ravel())


def _fit(boxes, order):
    """Terms, shape (n + 1, n + 1), of the polynomial through boxes: along y, along x."""
    good = np.isfinite(boxes)
    ninths = [p for rows in np.array_split(good, 3) for p in np.array_split(rows, 3, axis=1)]
    if min(part.mean() for part in ninths) < LEAST_FREE:
        raise FrameError("stars leave no sky in a part of the field; use frames of emptier fields.")
    y, x = np.meshgrid(*_centres(boxes.shape), indexing="ij")
    powers = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
    design = np.stack([y[good] ** i * x[good] ** j for i, j in powers], axis=1)
    target, weight = boxes[good], np.ones(np.count_nonzero(good))
    for step in range(50):
        root = np.sqrt(weight)
        found = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
        distance = np.abs(target - design @ found)
        scale = max(1.4826 * float(np.median(distance)), 1e-6)
        if step < 10:  # Least distances first: they do not need a good start.
            weight = 1 / np.maximum(distance, 0.1 * scale)
        else:
            weight = np.clip(1 - (distance / (4.685 * scale)) ** 2, 0, None) ** 2
    terms = np.zeros((order + 1, order + 1))
    terms[tuple(zip(*powers, strict=True))] = found
    return terms


def _evaluate(terms, shape):
    """Values of a polynomial at the centres of the pixels (or boxes) of an image."""
    return np.polynomial.polynomial.polygrid2d(*_centres(shape), terms)


def _centres(shape):
    """Centres of pixels (or boxes) along each axis, on the way from -1 to 1."""
    return [(2 * np.arange(size) + 1) / size - 1 for size in shape]


def _median(values):
    """Median of the finite values along the last axis, NaN where there is none."""
    values = np.sort(values, axis=-1)  # NaN are sorted to the end.
    if not values.size:
        return np.float64(np.nan)
    n = np.count_nonzero(np.isfinite(values), axis=-1)[..., None]
    ends = np.take_along_axis(values, np.concatenate([np.maximum(n - 1, 0), n], -1) // 2, axis=-1)
    return ends.mean(axis=-1)


def _corrected(flat, surface, report):
    """Flat times the map, with median 1."""
    surface = surface / np.float32(np.nanmedian(flat.data * surface))
    sigma = standard_deviation(flat.uncertainty)
    planes = {name: copy.copy(getattr(flat, name)) for name in ("flags", "mask", "meta", "wcs")}
    if sigma is not None:
        planes["uncertainty"] = StdDevUncertainty(sigma * surface)
    result = CCDData(flat.data * surface, unit=flat.unit, **planes)
    numbers = {"RMS": report.rms, "PTP": report.peak_to_peak, "SPR": report.spread}
    result.meta.update(ILLUMCOR=True, NILLUM=report.n_frames, NILLUMPT=report.n_pointings)
    result.meta.update({f"ILLUM{key}": round(value, 5) for key, value in numbers.items()})
    return result
