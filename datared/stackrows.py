"""A window on many aligned frames that moves down the image while they are co-added."""

import itertools
import math

import numpy as np
from astropy.nddata import CCDData
from numba import njit

from .clipping import CODE, find_outliers, grow_wings, widen
from .pixels import OUTSIDE, REPAIRED, SATURATED
from .rows import ArrayRows, open_rows

__all__ = ["RowWindow", "column_tiles", "open_aligned"]

#: Rounds in which the wings of what was left out are searched, two pixels further each time.
ROUNDS = 3
#: Rows that a step of the work looks beyond the rows it works on: median and steepness, each
#: round, and the last widening.
REACH = (2, *[2] * ROUNDS, 1)
#: Rows above its own that a step looks at, at most: those around the pixels around its pixels.
LOOK_BACK = 4
#: Bytes that the windows of all threads have together, and the 6 bytes of a pixel of a window:
#: value, code and state.
WINDOW_BYTES, PIXEL_BYTES = 128e6, 6
#: Rows of all frames that are read at a time; with few, a turned frame would have to read many more
#: rows of its file than it gives. And columns of the narrowest tile.
STEP_ROWS, LEAST_COLUMNS = 64, 64
#: Bits of a row's mark beside those of the rounds: there is a hole, there is a saturated pixel.
HOLE, SATURATED_ROW = 1 << 40, 1 << 41


def column_tiles(n, width, threads):
    """Cut an image into tiles, so narrow that the windows of all threads have room in the memory.

    Parameters
    ----------
    n : int
        Number of frames.
    width : int
        Columns of the image.
    threads : int
        Number of windows at a time.

    Returns
    -------
    list of (int, int)
        First column of each tile, and the one after its last.

    Examples
    --------
    >>> column_tiles(10, 5000, 2), len(column_tiles(200, 5000, 2))
    ([(0, 5000)], 8)
    """
    columns = WINDOW_BYTES / (threads * PIXEL_BYTES * n * (STEP_ROWS + sum(REACH) + LOOK_BACK))
    number = math.ceil(width / max(columns - 2 * sum(REACH), LEAST_COLUMNS))
    return list(itertools.pairwise(width * k // number for k in range(number + 1)))


class RowWindow:
    """Rows of all frames around those of the result that are being made.

    The steps of the work (reading, the search for outliers, the rounds, the last widening, the
    mean) follow each other down the image, each some rows behind the one before, because it needs
    to look at them. So every row is read once, but for some at the start and end of the part. It
    has as many columns beyond its own on both sides: the result does not depend on where parts,
    tiles and windows end.

    Parameters
    ----------
    sources : sequence of row sources
        Aligned frames, of one shape.
    rows, columns : tuple of int
        Part of the result to make: first row (column), and the one after the last.
    scales : numpy.ndarray of float, shape (n,)
        Factors of the frames.
    areas : numpy.ndarray of float, shape (n,)
        Variance of an independent pixel of the grid in units of that of a pixel of the frame.
    noise : numpy.ndarray of float, shape (5, n)
        Of each scaled frame the variance of the sky and of one unit of light, and how far its
        stars may be above and below the median in units of the contrast, and above in units of
        the rise towards a star; see `datared.coaddition.coadd`.
    rule : numpy.ndarray of float, shape (2,), or None
        Clip and slope; None leaves nothing out.
    """

    def __init__(self, sources, rows, columns, *, scales, areas, noise, rule):
        self.sources, self.rows, self.columns = sources, rows, columns
        self.scales, self.areas, self.noise, self.rule = scales, areas, noise, rule
        self.reach = () if rule is None else REACH
        ny, nx = sources[0].shape
        beyond = np.cumsum((0, *self.reach[::-1]))[::-1].tolist()
        # Row that each step does next, and the row after its last; columns that all of them do.
        self.done = [max(0, rows[0] - far) for far in beyond]
        self.last = [min(ny, rows[1] + far) for far in beyond]
        self.wide = max(0, columns[0] - beyond[0]), min(nx, columns[1] + beyond[0])
        self.first_row, self.height = self.done[0], 0
        kept = sum(self.reach) + LOOK_BACK if self.reach else 0
        self.step = min(STEP_ROWS, self.last[0] - self.done[0])
        shape = (len(sources), self.step + kept, self.wide[1] - self.wide[0])
        self.values = np.empty(shape, np.float32)
        self.codes, self.states = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        self.marks = np.zeros(shape[:2], np.int64)
        self.models = np.empty((4, *shape[1:]), np.float32)

    def average(self, weights, exptimes, results):
        """Make the rows of the result.

        Parameters
        ----------
        weights, exptimes : numpy.ndarray of float, shape (n,)
            Weight and exposure time of each frame.
        results : tuple of numpy.ndarray, shape (ny, nx)
            Mean, uncertainty and exposure as float32, number of frames as int16, and flags as
            uint16, of which the part is filled.

        Returns
        -------
        numpy.ndarray of int64, shape (n,)
            Number of pixels that were left out of each frame.
        """
        rejected = np.zeros(len(self.sources), np.int64)
        made, (first, last) = self.rows[0], self.columns
        while made < self.rows[1]:
            self._read()
            for k, reach in enumerate(self.reach):
                upto = self.done[k] - reach if self.done[k] < self.last[k] else self.last[k + 1]
                if upto > self.done[k + 1]:
                    self._search(k, self.done[k + 1], upto)
                    self.done[k + 1] = upto
            if self.done[-1] > made:
                rows = tuple(array[made : self.done[-1]] for array in results)
                place = made - self.first_row, first - self.wide[0], first, last
                _average(
                    self.values, self.states, self.marks, place, weights, self.noise, exptimes,
                    rejected, (*rows, OUTSIDE, SATURATED),
                )  # fmt: skip
                made = self.done[-1]
        return rejected

    def _read(self):
        """Move the window down and read the next rows of all frames."""
        start = self.done[0]
        stop = min(start + self.step, self.last[0])
        first = max(self.first_row, min(self.done[1:]) - LOOK_BACK) if self.reach else start
        kept, old = start - first, slice(first - self.first_row, start - self.first_row)
        new = slice(kept, kept + stop - start)
        # One by one: numpy copies what overlaps, and all frames at once would be much.
        for array in (*self.values, *self.codes, *self.states, *self.models, *self.marks):
            array[:kept] = array[old]
        self.models[:, new] = -np.inf
        shape = (stop - start, self.values.shape[2])
        factor, bits = np.empty(shape, np.float32), np.empty(shape, np.uint16)
        for i, source in enumerate(self.sources):
            values, extra = self.values[i, new], (factor, bits)
            if hasattr(source, "aligned"):
                source.aligned(start, stop, columns=self.wide, out=(values, factor, bits))
            else:
                columns = slice(*self.wide)
                if shape[1] == source.shape[1]:
                    source.fill(values, start, stop)
                elif hasattr(source, "section"):  # Of a file no more is read than is needed.
                    values[:] = source.section(slice(start, stop), columns)
                else:
                    values[:] = source.rows(start, stop)[:, columns]
                flagged = isinstance(source, _FlaggedRows)
                extra = factor[:0], source.flags[start:stop, columns] if flagged else bits[:0]
            _prepare(
                values, np.float32(self.scales[i]), extra[0], self.areas[i], extra[1], SATURATED,
                self.codes[i, new], self.states[i, new], self.marks[i, new],
            )  # fmt: skip
        self.first_row, self.done[0], self.height = first, stop, new.stop

    def _search(self, k, start, stop):
        """One step of the search for what to leave out, in rows of the image."""
        span = (start - self.first_row, stop - self.first_row, self.height)
        if k == 0:
            window = self.values, self.codes, self.states, self.marks, self.models
            find_outliers(*window, span, self.noise, self.rule)
        elif k <= ROUNDS:
            window = self.values, self.states, self.marks, self.models
            grow_wings(*window, span, self.noise, self.rule, k)
        else:
            widen(self.states, self.marks, span, ROUNDS + 1)


class _FlaggedRows(ArrayRows):
    """Rows of a frame with flags, which decide what is used."""

    def __init__(self, frame):
        super().__init__(frame)
        self.flags = np.ascontiguousarray(frame.flags, np.uint16)
        self.mask = (self.flags & ~np.uint16(SATURATED | REPAIRED)) != 0


def open_aligned(frame):
    """Rows of an aligned frame.

    Parameters
    ----------
    frame : str, pathlib.Path, array-like, astropy.nddata.CCDData or row source
        As for `datared.rows.open_rows`. Of a CCDData with flags all pixels are used that are at
        most saturated or repaired, whatever the mask says.

    Returns
    -------
    row source
        The frame itself where it is one.

    Raises
    ------
    FrameError
        If the file or array is not an image with two axes.

    Examples
    --------
    >>> open_aligned(np.ones((2, 3))).rows(0, 1)
    array([[1., 1., 1.]], dtype=float32)
    """
    if isinstance(frame, CCDData) and frame.flags is not None:
        return _FlaggedRows(frame)
    return open_rows(frame)


@njit(cache=True, nogil=True)
def _prepare(values, scale, factor, area, bits, bit, codes, states, marks):
    """Scale rows of one frame in place; fill its codes, states and marks.

    ``factor`` and ``bits`` are empty where the frame has none.
    """
    unit = np.float32(CODE / area)
    for r in range(values.shape[0]):
        row, mark = values[r], 0
        finite = True
        for x in range(row.size):
            row[x] *= scale
            finite &= abs(row[x]) < np.inf
        if not finite:
            mark |= HOLE
            for x in range(row.size):
                row[x] = row[x] if abs(row[x]) < np.inf else np.nan
        code, state = codes[r], states[r]
        for x in range(row.size):
            code[x] = CODE
            state[x] = 0
        if factor.size:
            for x in range(row.size):
                # Rounded up, so that the noise is never taken for too small; most for a hole.
                share = factor[r, x] * unit + np.float32(0.999)
                code[x] = np.uint8(share if 1 < share < 255 else 255)
        if bits.size:
            found = False
            for x in range(row.size):
                saturated = (bits[r, x] & bit) != 0
                state[x] = 128 if saturated else 0
                found |= saturated
            mark |= SATURATED_ROW if found else 0
        marks[r] = mark


@njit(cache=True, nogil=True)
def _average(values, states, marks, place, weights, noise, exptimes, rejected, results):
    """Weighted mean of what is left, into rows of the results; count what was left out.

    ``place`` has the row and column of the window, and the columns of the result.
    """
    start, left, first, last = place
    n, width = values.shape[0], last - first
    data, sigma, exposure, count, flags, outside, saturated = results
    # Sums of weights, variances of sky and of one unit of light, and exposure times.
    sums, total, used = np.empty((4, width)), np.empty(width), np.empty(width, np.bool_)
    for r in range(data.shape[0]):
        number, bits = count[r, first:last], flags[r, first:last]
        number[:], bits[:], sums[:], total[:] = 0, 0, 0, 0
        for i in range(n):
            row, w = values[i, start + r, left : left + width], weights[i]
            state = states[i, start + r, left : left + width]
            shares = w, w * w * noise[0, i], w * w * noise[1, i], exptimes[i]
            if marks[i, start + r] == 0:
                for x in range(width):
                    number[x] += 1
                    total[x] += w * row[x]
                for k in range(4):
                    for x in range(width):
                        sums[k, x] += shares[k]
                continue
            # One sum at a time and without branches, so that several pixels are done at once.
            lost = 0
            for x in range(width):
                finite, left_out = abs(row[x]) < np.inf, state[x] & 31 != 0
                used[x] = finite & (not left_out)
                lost += finite & left_out
            rejected[i] += lost
            for x in range(width):
                number[x] += used[x]
                bits[x] |= saturated if used[x] & (state[x] > 127) else 0
            for x in range(width):
                total[x] += w * row[x] if used[x] else 0.0
            for k in range(4):
                for x in range(width):
                    sums[k, x] += shares[k] if used[x] else 0.0
        means, errors, times = data[r, first:last], sigma[r, first:last], exposure[r, first:last]
        for x in range(width):
            times[x] = sums[3, x]
            if number[x] == 0:
                means[x], errors[x], bits[x] = np.nan, np.nan, outside
                continue
            mean = total[x] / sums[0, x]
            variance = sums[1, x] + max(mean, 0.0) * sums[2, x]
            means[x], errors[x] = mean, math.sqrt(variance) / sums[0, x]
