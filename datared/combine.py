"""Combine many frames into one, robustly, with a right uncertainty, in little memory."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .combineoptions import clip_limits, extreme_numbers, per_frame, value_range
from .errors import FrameError
from .pixelstack import combine_pixels, finish_pixels, sorting_network, weigh_pixels
from .rows import FileRows, open_rows, sample_bands

__all__ = ["Combined", "combine", "common_shape"]

_METHODS = {"median": 0, "mean": 1, "sum": 2}
#: Most bytes of one band of rows of all frames. Small bands stay near the processor.
_BAND = 4_000_000
#: A deviation of whole numbers is only known to half a step: 1.4826 * 0.5 steps.
STEP_NOISE = 0.7413


@dataclass(frozen=True)
class Combined:
    """The combination of many frames.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        Combined values; NaN where no value was left.
    mask : numpy.ndarray of bool
        True where no value was left.
    uncertainty : numpy.ndarray of float32
        Standard deviation of ``data``; NaN where one value alone does not tell it.
    count : numpy.ndarray of int16
        Number of values used in each pixel.
    n_frames : int
        Number of frames.
    """

    data: np.ndarray
    mask: np.ndarray
    uncertainty: np.ndarray
    count: np.ndarray
    n_frames: int


def combine(
    frames,
    *,
    method="median",
    clip=None,
    extrema=None,
    limits=None,
    max_iterations=5,
    floor=None,
    scale=None,
    weights=None,
    errors=None,
    memory_limit=512e6,
    threads=None,
):
    r"""Combine frames of one shape, pixel by pixel.

    In each pixel the values :math:`x_i` of the frames that are finite and not masked are multiplied
    by the scale of their frame. With ``clip``, values outside

    .. math:: m - k_\mathrm{low} s \le x_i \le m + k_\mathrm{high} s, \quad
              m = \mathrm{median}(x), \quad s = \max(1.4826\ \mathrm{median}|x_i - m|, s_0)

    are left out, and again with the values that remain until nothing changes. What is left gives
    the median, the mean :math:`\sum w_i x_i / \sum w_i` or the sum (times :math:`N / n`, so that a
    pixel with a lost value is not fainter).

    Parameters
    ----------
    frames : sequence of arrays, CCDData, paths or row sources
        All of one shape ``(ny, nx)``; see `datared.rows.open_rows`. NaN, infinite and masked
        pixels are not used. Files are read by bands of rows, each row once, also with ``scale``.
    method : {"median", "mean", "sum"}
        How to combine.
    clip : float or (float, float), optional
        ``k``, or ``(k_low, k_high)``, in units of s. With fewer than three frames nothing can be
        clipped: a warning says so. A clip by the median works from three frames up; a clip by mean
        and standard deviation would need more than k**2 + 1 frames, because no deviation is
        larger than :math:`(N-1)/\sqrt N` of them.
    extrema : (int, int), optional
        How many of the lowest and of the highest values of each pixel are left out, before the
        clip. Where no value remains the pixel is masked.
    limits : (float, float), optional
        Values outside this range, after scaling, are not used.
    max_iterations : int
        Most rounds of clipping.
    floor : float, optional
        :math:`s_0`, the smallest believable scatter, in units of the scaled frames. By default
        0.74 steps for whole numbers (so that equal counts do not throw out their neighbours),
        else 0.
    scale : None, "median" or array-like of shape (n,)
        Factor of each frame. ``"median"`` divides each by its own median (and multiplies by their
        mean, so that the level stays).
    weights : array-like of float, shape (n,), optional
        Relative inverse variances of the scaled frames, for the mean only. They are renormalised
        in each pixel over the values used.
    errors : None, "input" or array-like of shape (n,)
        Where the uncertainty comes from. None: from the scatter of the values used (for the
        median from those within 5 s). ``"input"``: from the uncertainties of the frames, which
        must be `CCDData` that have them. Numbers: standard deviation of each scaled frame.
    memory_limit : float
        Most bytes, results included. They are 13 bytes for each pixel; less than that and one row
        of all frames is not possible.
    threads : int, optional
        Bands worked on at a time; by default the number of processors. The result does not
        depend on it.

    Returns
    -------
    Combined
        Data, mask, uncertainty and number of values.

    Raises
    ------
    FrameError
        If there is no frame, or the frames differ in shape.
    ValueError
        If an option is not one of those above.

    Notes
    -----
    The scatter of few values is biased low, a clip takes the largest of them, and a median is less
    precise than a mean (by 1.253 for many values). These factors are not looked up but found: the
    same code runs once on pure Gaussian noise for each number of values, and the uncertainty
    is multiplied by what was missing. So the mean uncertainty of many pixels is right for any
    number of values from 2 on; that of a single pixel is as uncertain as a scatter of n values.
    Whole numbers are rounded in that experiment, too: where the noise is only 1 to 2 steps, a
    median is itself a whole number, and noisier for it.

    Examples
    --------
    >>> frames = [np.full((2, 3), value) for value in (1, 2, 9)]
    >>> combine(frames).data
    array([[2., 2., 2.],
           [2., 2., 2.]], dtype=float32)
    """
    sources = [open_rows(frame) for frame in frames]
    shape = common_shape(sources)
    n = len(sources)
    rejection = (*extreme_numbers(extrema, n), *clip_limits(clip, n, max_iterations))
    low, high = value_range(limits)
    if method not in _METHODS:
        raise ValueError(f"Method {method!r} is not one of {', '.join(_METHODS)}.")
    if weights is not None and method != "mean":
        raise ValueError(f"Weights are for method 'mean' only, not for {method!r}.")
    weight = np.empty(0) if weights is None else per_frame(weights, n, "weights")
    factor = _scales(scale, sources, memory_limit / 4 / n)
    step = max(s.step * f for s, f in zip(sources, factor, strict=True))
    if floor is None:
        floor = STEP_NOISE * step
    known = None if errors is None or isinstance(errors, str) else per_frame(errors, n, "errors")
    if isinstance(errors, str) and errors != "input":
        raise ValueError(f"errors {errors!r} is not None, 'input' or one number for each frame.")

    data, sigma = (np.empty(shape, np.float32) for _ in range(2))
    valid, count = (np.empty(shape, np.int16) for _ in range(2))
    threads = threads or min(os.cpu_count() or 1, 8)
    height = _band_height(shape, n, memory_limit, threads)
    options = (_METHODS[method], *rejection)

    def work(start):
        stop = min(start + height, shape[0])
        stack = np.empty((n, (stop - start) * shape[1]), np.float32)
        for i, source in enumerate(sources):
            source.fill(stack[i].reshape(stop - start, -1), start, stop, factor[i])
        if limits is not None:
            stack[(stack < low) | (stack > high)] = np.nan
        variance = _variances(sources, errors, known, factor, start, stop)
        results = (array[start:stop].reshape(-1) for array in (data, sigma, valid, count))
        _combine_band(stack, weight, variance, *options, np.float32(floor), results)
        return set(_numbers(valid[start:stop]))

    with ThreadPoolExecutor(threads) as pool:
        numbers = set().union(*pool.map(work, range(0, shape[0], height)))
        table = _corrections(sigma, valid, count, options, floor, step, errors is not None, numbers)
        # Equal whole numbers have no scatter, but each of them was rounded.
        least = np.zeros(n + 1, np.float32)
        if errors is None:
            least[1:] = step / np.sqrt(12 * np.arange(1, n + 1)) * (n if method == "sum" else 1)

        def finish(start):
            band = slice(start, start + height)
            finish_pixels(*(a[band].reshape(-1) for a in (sigma, valid, count)), table, least)

        list(pool.map(finish, range(0, shape[0], height)))
    return Combined(data, count == 0, sigma, count, n)


def _combine_band(stack, weight, variance, method, *options):
    """Combine one band into the arrays that come last in the options."""
    *rejection, (data, sigma, valid, count) = options
    plain = weight.size == 0 and variance.size == 0
    bounds = np.empty((2, 0 if plain else stack.shape[1]), np.float32)
    network = sorting_network(len(stack))
    combine_pixels(stack, method, *rejection, network, data, sigma, valid, count, bounds)
    if not plain:
        weight = weight if weight.size else np.ones(len(stack))
        weigh_pixels(stack, bounds, *rejection[:2], weight, variance, method, data, sigma, count)


def _band_height(shape, n, memory_limit, threads):
    """Rows of a band, so that the bands of all threads and the results keep to the limit."""
    row = 4 * n * shape[1]
    results = 13 * shape[0] * shape[1]
    # Small bands stay near the processor; very small ones open files too often.
    wanted = max(_BAND // row, 16)
    # A thread holds its band, the errors of the same size, and what it reads.
    allowed = int((memory_limit - results) / threads / 3) // row
    return max(1, min(wanted, allowed, shape[0]))


def common_shape(sources):
    """Shape of all frames, which must be one.

    Parameters
    ----------
    sources : sequence of row sources
        With ``name`` and ``shape``.

    Returns
    -------
    tuple of int
        ``(ny, nx)``.

    Raises
    ------
    FrameError
        If there is no frame, or the shapes differ.
    """
    if not sources:
        raise FrameError("There is no frame to combine; give at least one.")
    first = sources[0]
    for other in sources[1:]:
        if tuple(other.shape) != tuple(first.shape):
            raise FrameError(
                f"{first.name} has shape {tuple(first.shape)} and {other.name} has "
                f"{tuple(other.shape)}: frames of different size cannot be combined."
            )
    return tuple(first.shape)


def _scales(scale, sources, most):
    """Factor of each frame as float32."""
    if isinstance(scale, str):
        if scale != "median":
            raise ValueError(f"scale {scale!r} is not None, 'median' or one number for each frame.")
        medians = np.array([_sample_median(s, most) for s in sources])
        if not np.all(medians > 0):
            bad = sources[int(np.argmin(medians > 0))].name
            raise FrameError(f"{bad} has no positive median: it cannot be scaled by it.")
        scale = medians.mean() / medians
    return per_frame(scale, len(sources), "scale").astype(np.float32)


def _sample_median(source, most):
    """Median of a sample of rows, which a file holds from then on."""
    bands = sample_bands(source.shape, most=most)
    if isinstance(source, FileRows) and not source.kept:
        source.keep(bands)
    return np.nanmedian(np.concatenate([source.rows(start, stop) for start, stop in bands]))


def _variances(sources, errors, known, factor, start, stop):
    """Variances of the scaled values, shape (n, pixels) or (n, 1), or empty for none."""
    if errors is None:
        return np.empty((0, 0), np.float32)
    if known is not None:
        return (known**2).astype(np.float32)[:, None]
    rows = [source.error_rows(start, stop) for source in sources]
    missing = [s.name for s, r in zip(sources, rows, strict=True) if r is None]
    if missing:
        raise ValueError(f"errors='input', but {missing[0]} has no uncertainty.")
    return np.stack([(f * r.ravel()) ** 2 for f, r in zip(factor, rows, strict=True)])


def _numbers(valid):
    """Which numbers of values there are; mostly it is one."""
    least, most = int(valid.min()), int(valid.max())
    return [most] if least == most else np.unique(valid).tolist()


def _corrections(sigma, valid, count, options, floor, step, known_errors, numbers):
    """Factor of the uncertainty for each number of values, indexed by it."""
    table = np.ones(max(numbers) + 1, np.float32)
    plain = options[0] != _METHODS["median"] and options[1:3] == (0, 0) and options[-1] == 0
    if known_errors and plain:
        return table  # The propagated error of a plain mean is exact.
    some = slice(None, None, max(1, sigma.shape[0] // 64))
    if known_errors:
        floor = step = 0.0
    unit = 0.0
    if floor > 0 or step > 0:
        unit = _noise_unit(sigma[some], count[some], valid[some], options, floor, step)
    units = _in_units(floor, step, unit)
    for number in numbers:
        table[number] = _experiment(number, options, *units, known_errors)[0]
    return table


def _noise_unit(sigma, count, valid, options, floor, step):
    """Noise of a single value, of which the scatter that a clip leaves is only a part."""
    observed = _median_scatter(sigma, count)
    n = int(np.median(valid))
    unit = observed
    for _ in range(8):
        if unit == 0:
            return 0.0
        unit = observed / max(_experiment(n, options, *_in_units(floor, step, unit), False)[1], 0.1)
    return unit


def _in_units(floor, step, unit):
    """Floor and step in units of the noise, rounded so that few experiments are needed."""
    if unit == 0:
        return 0.0, 0.0
    return tuple(min(round(value / unit, 1), 5.0) for value in (floor, step))


def _median_scatter(sigma, count):
    """Median standard deviation of the single values, from that of their combination."""
    scatter = sigma * np.sqrt(count)
    scatter = scatter[np.isfinite(scatter) & (scatter > 0)]
    return float(np.median(scatter)) if scatter.size else 0.0


@functools.lru_cache(maxsize=512)
def _experiment(n, options, floor, step, known_errors):
    """Combine n Gaussian values of noise 1: true over stated deviation, and median scatter."""
    if n < 2:
        return 1.0, 1.0
    if options[1:3] == (0, 0):
        n = min(n, 48)  # What holds for 48 values holds for more, but for a number left out.
    pixels = min(40_000, 4_000_000 // n)
    rng = np.random.default_rng(20)
    stack = rng.standard_normal((n, pixels), dtype=np.float32)
    if step > 0:
        # The true value may lie anywhere between two whole numbers.
        phase = rng.uniform(0, step, pixels).astype(np.float32)
        stack = np.rint((stack + phase) / np.float32(step)) * np.float32(step) - phase
    variance = np.ones((n, 1), np.float32) if known_errors else np.empty((0, 0), np.float32)
    data, sigma = np.empty(pixels, np.float32), np.empty(pixels, np.float32)
    valid, count = np.empty(pixels, np.int16), np.empty(pixels, np.int16)
    results = data, sigma, valid, count
    _combine_band(stack, np.empty(0), variance, *options, np.float32(floor), results)
    if np.isnan(sigma).all():  # One value is left, which does not tell its error.
        return 1.0, 1.0
    stated = float(np.nanmean(sigma, dtype=float))
    if stated == 0:  # All values are equal, their noise is far below the step.
        return 1.0, 1.0
    factor = float(np.nanstd(data, dtype=float)) / stated
    return factor, _median_scatter(sigma, count)
