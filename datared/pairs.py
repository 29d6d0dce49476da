"""Noise from pairs of frames of the same thing: in their difference all that is fixed cancels."""

import math

import numpy as np

from .calibrated import CalibratedRows
from .combine import STEP_NOISE
from .overscan import cut_rows

__all__ = [
    "clipped_level",
    "count_step",
    "difference_variance",
    "pair_variance",
    "read_noise",
    "sample_frame",
]

#: Side of the boxes (px) within which the ratio of two flats is taken as constant.
BOX = 32
#: Bands of rows that are read of any frame, so that its middle is among them.
LEAST_BANDS = 5
#: Values further than this many deviations from the median are left out, and the part of its
#: variance that a normal distribution keeps then.
CLIP = 4.0
KEPT = 1 - 2 * CLIP * math.exp(-(CLIP**2) / 2) / math.sqrt(2 * math.pi) / math.erf(CLIP / 2**0.5)
#: A box with more than this part of its pixels saturated, or less than this part of them usable,
#: is left out.
SATURATED_PART, USABLE_PART = 0.01, 0.5
#: A pixel of a flat that is further from the level of its box than this part of it (and than the
#: noise allows) is dead, hot or of a bad column: the law of the others is not its own.
UNLIKE = 0.3


def read_noise(first, second, *, step=None):
    r"""Read noise from the difference of two bias frames.

    .. math:: R^2 = \mathrm{var}(B_1 - B_2) / 2 - q^2 / 12

    The fixed pattern cancels; the variance is taken about a plane in each box of 32 pixels, so that
    a drift of the offset does not count, and without values beyond 4 deviations (hot pixels,
    particles), for whose loss it is corrected. The second term takes off the rounding to counts of
    step `q`.

    Parameters
    ----------
    first, second : array-like of shape (ny, nx)
        Bias frames in ADU, raw or without overscan.
    step : float, optional
        Step of the raw counts in ADU; by default it is found (1 for whole numbers, 16 for a 12-bit
        camera that fills 16 bits, 0 for others).

    Returns
    -------
    noise, error : float
        ADU, of one frame; NaN where nothing is finite. Noise below half a step cannot be told from
        rounding: the error is then that of the rounding.

    Examples
    --------
    >>> frames = np.random.default_rng(1).normal(500, 8, (2, 128, 128))
    >>> noise, error = read_noise(*frames)
    >>> abs(noise - 8) < 3 * error < 0.2
    True
    """
    step = count_step(first, second) if step is None else step
    variance, error = difference_variance(first, second, step=step)
    if not math.isfinite(variance):
        return math.nan, math.nan
    noise = math.sqrt(max(variance / 2 - step**2 / 12, 0.0))
    rounding = step / math.sqrt(12)
    return noise, rounding if noise < step / 2 else error / (4 * noise or math.inf)


def pair_variance(first, second, *, saturation=None, step=None):
    r"""Level and variance of the noise of a pixel, from two flats of any levels.

    In each box of 32 pixels the second flat is scaled to the first, :math:`r = F_1 / F_2` (of
    their medians), which takes out drifts of the lamp, the fall of the twilight, its gradient, and
    with the difference all that is the same on both: vignetting, dust, response of each pixel.
    With gain `g` and read noise `R` of a frame,

    .. math:: V = \frac{\mathrm{var}(F_1 - r F_2)}{1 + r^2} - \frac{q^2}{12} = \frac{L}{g} + R^2,
              \qquad L = F_1 \frac{1 + r}{1 + r^2},

    for any `r`; for equal flats, V is half of the variance of the difference, and L their level.
    Values beyond 4 deviations (hot pixels, particles), dead pixels and columns, and boxes that
    differ from the others (stars of a twilight flat), are left out; the law being linear, the means
    over the boxes obey it too.

    Parameters
    ----------
    first, second : array-like of shape (ny, nx)
        Flats in ADU without bias. Dark current may stay: its electrons are as noisy as light.
    saturation : float, optional
        In the same units; a box in which more than 1 % of the pixels reach it is left out.
    step : float, optional
        As in `read_noise`.

    Returns
    -------
    level, variance, error : float
        ADU, ADU squared and the deviation of the variance; NaN where no box can be used.
    """
    step = count_step(first, second) if step is None else step
    level, ratio, raw, number = _flat_boxes(first, second, saturation, step)
    level = level * (1 + ratio) / (1 + ratio**2)
    raw = raw / (1 + ratio**2)
    # What is alike in boxes of different brightness is the variance in units of the level.
    (level, variance), error = _mean_boxes((level, raw), raw, number, measure=raw / level)
    return level, variance - step**2 / 12, error


def difference_variance(first, second, *, relative=False, saturation=None, step=0.0):
    """Variance of the difference of two frames, in which those of the two add.

    Parameters
    ----------
    first, second : array-like of shape (ny, nx)
        Frames in ADU.
    relative : bool
        Of flats (without bias) of any levels: each in units of its local level.
    saturation, step : float, optional
        As in `pair_variance`; rounding is not taken off.

    Returns
    -------
    variance, error : float
        ADU squared, or dimensionless; NaN where no box can be used.
    """
    if not relative:
        raw, number = _box_variances(_boxes(first) - _boxes(second), step)
        (variance,), error = _mean_boxes((raw,), raw, number)
        return variance, error
    level, _, raw, number = _flat_boxes(first, second, saturation, step)
    raw = raw / level**2
    (variance,), error = _mean_boxes((raw,), raw, number, measure=raw * level)
    return variance, error


def count_step(*images):
    """Step of raw counts.

    Parameters
    ----------
    *images : array-like of shape (ny, nx)
        Their first rows are looked at.

    Returns
    -------
    float
        Largest number of which all differences are multiples; 0 where not all values are whole.

    Examples
    --------
    >>> count_step([[160, 176], [1600, 160]]), count_step([[0.5, 1.0]])
    (16.0, 0.0)
    """
    values = np.unique(np.concatenate([np.asarray(image)[:BOX].ravel() for image in images]))
    values = values[np.isfinite(values)].astype(float)
    if not values.size or not np.array_equal(values, np.rint(values)):
        return 0.0
    return float(np.gcd.reduce(np.diff(values).astype(np.int64))) or 1.0


def clipped_level(frame):
    """Level of a frame at the end of the converter's numbers.

    Pixels that are full still have the read noise, and differ from each other. Beyond the last
    number of the converter (4095 of 12 bits, 16 383 of 14) all have one value.

    Parameters
    ----------
    frame : array-like of shape (ny, nx)
        ADU, without the overscan or not, but with the bias.

    Returns
    -------
    float
        Median of the frame, if most of its finite values are that of the next pixel; else NaN.

    Examples
    --------
    >>> clipped_level([[4095, 4095, 4000], [4095, 4095, 4095]]), clipped_level([[7, 8, 9]])
    (4095.0, nan)
    """
    frame = np.asarray(frame)
    # An overscan that was taken off differs by the row (or the column) and by the amplifier.
    for first, second in ((frame[:, 1:], frame[:, :-1]), (frame[1:], frame[:-1])):
        known = np.isfinite(first) & np.isfinite(second)
        if np.count_nonzero((first == second) & known) > known.sum() / 2:
            return float(np.nanmedian(frame))
    return math.nan


def sample_frame(frame, *, camera=None, raw=False, pixels=1_000_000):
    """Bands of rows of a frame, without overscan and borders: enough to measure its noise.

    Parameters
    ----------
    frame : path or astropy.nddata.CCDData
        Raw frame; frames of one size give the same rows.
    camera : Camera, optional
        Its overscan and trim sections.
    raw : bool
        Leave the level of the overscan in the frame.
    pixels : int
        About how many pixels to read; a smaller frame is read whole.

    Returns
    -------
    numpy.ndarray of float32, shape (rows, nx)
        ADU. Rows come in bands of 32, spread over the frame.
    """
    source = CalibratedRows(frame, camera=camera)
    ny, nx = source.shape
    bands = [(0, ny)]
    if ny * nx > pixels and ny >= BOX:
        number = max(min(LEAST_BANDS, ny // BOX), min(pixels // (BOX * nx), ny // BOX))
        bands = [(y, y + BOX) for y in np.linspace(0, ny - BOX, number).astype(int).tolist()]
    if raw:
        raw_rows, shape = source.source.rows, source.source.shape
        rows = [cut_rows(raw_rows, source.regions, shape, start=a, stop=b) for a, b in bands]
    else:
        rows = [source.rows(y0, y1) for y0, y1 in bands]
    return np.concatenate(rows)


def _boxes(image):
    """Boxes of an image, shape (box, y, x); what does not fill a box at the end is left out."""
    image = np.asarray(image, np.float32)  # Unsigned integers would wrap around at 0.
    ny, nx = image.shape
    y, x = min(BOX, ny), min(BOX, nx)
    image = image[: ny // y * y, : nx // x * x].reshape(ny // y, y, nx // x, x)
    return image.swapaxes(1, 2).reshape(-1, y, x)


def _flat_boxes(first, second, saturation, step):
    """For each box: level of the first flat, ratio, variance of the scaled difference, number."""
    first, second = _boxes(first), _boxes(second)
    levels = [_medians(boxes) for boxes in (first, second)]
    with np.errstate(invalid="ignore", divide="ignore"):
        good = (levels[0] > 0) & (levels[1] > 0)
        for boxes in (first, second) if saturation is not None else ():
            good &= np.mean(boxes >= saturation, axis=(1, 2)) <= SATURATED_PART
        ratio = np.where(good, levels[0] / levels[1], np.nan)
    scaled = second * ratio.astype(np.float32)[:, None, None]
    return levels[0], ratio, *_box_variances(first - scaled, step, flats=first, levels=levels[0])


def _medians(boxes):
    """Median of the finite values of each box, NaN where too few are."""
    boxes = boxes.reshape(len(boxes), -1)
    finite = np.isfinite(boxes)
    if finite.all():
        return np.median(boxes, axis=1).astype(float)
    medians = np.full(len(boxes), np.nan)
    for i in np.flatnonzero(finite.mean(axis=1) >= USABLE_PART):
        medians[i] = np.median(boxes[i][finite[i]])
    return medians


def _box_variances(boxes, step, *, flats=None, levels=None):
    """Variance of each box about a plane, without outliers, and the number of values left.

    Of differences of flats those pixels are left out that are unlike the level of their box.
    """
    values = boxes - _medians(boxes).astype(np.float32)[:, None, None]
    floor = STEP_NOISE * step
    # Whole numbers make the median deviation coarse: it only opens the way for the variance.
    limit = 1.5 * CLIP * np.fmax(1.4826 * _medians(np.abs(values)), floor)
    if flats is not None:
        far = np.fmax(UNLIKE * levels, limit).astype(np.float32)[:, None, None]
        unlike = np.abs(flats - levels.astype(np.float32)[:, None, None]) > far
        values = np.where(unlike, np.float32(np.nan), values)
    variance = number = None
    for _ in range(3):
        good = np.abs(values) <= limit.astype(np.float32)[:, None, None]
        number = np.count_nonzero(good, axis=(1, 2))
        values = _flattened(values, good)
        squares = np.sum(np.where(good, values, 0) ** 2, axis=(1, 2), dtype=float)
        variance = squares / np.maximum(number - 3, 1)
        limit = CLIP * np.fmax(np.sqrt(variance), floor)
    # Without a value there is no variance; a plane takes three of them.
    return np.where(number > 3, variance / KEPT, np.nan), number


def _flattened(boxes, good):
    """Boxes without the plane that fits their good values."""
    _, ny, nx = boxes.shape
    for shape in ((1, 1, 1), (1, ny, 1), (1, 1, nx)):
        slope = np.linspace(-1, 1, max(shape), dtype=np.float32).reshape(shape)
        weight = np.sum(good * slope**2, axis=(1, 2), keepdims=True)
        part = np.sum(np.where(good, boxes * slope, 0), axis=(1, 2), keepdims=True)
        boxes = boxes - slope * (part / np.maximum(weight, np.float32(1e-9)))
    return boxes


def _mean_boxes(columns, raw, number, *, measure=None):
    """Means of columns over the boxes like each other, and the deviation of that of ``raw``.

    Boxes are compared by ``measure``, the variance in units in which it is alike in all.
    """
    measure = raw if measure is None else measure
    good = np.isfinite(measure) & (number > 1)
    if not good.any():
        return [math.nan] * len(columns), math.nan
    middle = np.median(measure[good])
    scatter = 1.4826 * np.median(np.abs(measure[good] - middle))
    expected = middle * math.sqrt(2 / np.median(number[good]))
    good[good] = np.abs(measure[good] - middle) <= CLIP * max(scatter, expected)
    weight = number[good] / np.sum(number[good])
    means = [float(np.sum(weight * column[good])) for column in columns]
    # What photons and read-out scatter, or what the boxes really scatter where that is more.
    error = np.sqrt(np.sum((weight * raw[good]) ** 2 * 2 / number[good]))
    if len(weight) > 1 and middle > 0:
        relative = np.std(measure[good], ddof=1) / middle / math.sqrt(len(weight))
        error = max(error, relative * np.sum(weight * raw[good]))
    return means, float(error)
