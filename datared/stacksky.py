"""Inside the stage stack: the sky of a frame as it is subtracted, by the row."""

import numpy as np
from scipy.interpolate import CubicSpline

from . import skymesh

__all__ = ["BOX", "RowSky", "sky_nodes"]

#: Boxes of the sky. They are larger than for photometry: the light between the stars of a cluster
#: is not sky.
BOX = 128


class RowSky:
    """Sky of a frame at the rows asked for; small enough to be kept for hundreds of frames.

    Parameters
    ----------
    nodes : numpy.ndarray of float, shape (n_y, n_x)
        Sky in the middles of the boxes of a mesh.
    shape : tuple of int
        ``(ny, nx)`` of the frame.
    """

    def __init__(self, nodes, shape):
        rows, columns = (skymesh.box_edges(size, BOX) for size in shape)
        # A frame with one row for each row of boxes: its pieces along x are those of the nodes.
        self.along_x = skymesh.surface(nodes, (np.arange(len(nodes) + 1), columns))
        values = self.along_x.coefficients.astype(float).reshape(len(nodes), -1)
        middles = (rows[:-1] + rows[1:] - 1) / 2
        if len(nodes) == 1:
            middles, values = middles[0] + np.arange(2.0), np.repeat(values, 2, axis=0)
        self.along_y = CubicSpline(middles, values, bc_type="natural")

    def fill(self, first, last, out=None):
        """Return the sky of some rows.

        Parameters
        ----------
        first, last : int
            The first row and the one after the last.
        out : numpy.ndarray of float32, shape (last - first, nx), optional
            Where to put it.

        Returns
        -------
        numpy.ndarray of float32, shape (last - first, nx)
            The sky in the unit of the frame, as `datared.skymesh.Surface.fill` gives it.
        """
        row = np.arange(first, last, dtype=float)
        inside = np.clip(row, self.along_y.x[0], self.along_y.x[-1])
        values = self.along_y(inside)
        beyond = row != inside
        if beyond.any():  # There it goes straight on.
            away = (row - inside)[beyond, None]
            values[beyond] += away * self.along_y(inside[beyond], 1)
        shape = (last - first, *self.along_x.coefficients.shape[1:])
        pieces = values.astype(np.float32).reshape(shape)
        return self.along_x._replace(coefficients=pieces).fill(0, last - first, out)


def sky_nodes(level, *, kind, shape):
    """Sky in the boxes of a mesh, as a map, a plane or one level.

    A plane and a level are fitted to the boxes, again and again without those that are away from
    it by more than 2.5 times their scatter. The scatter is that of the lower half: extended light
    only adds.

    Parameters
    ----------
    level : numpy.ndarray of float, shape (n_y, n_x)
        Sky of the boxes (`datared.background.sky_mesh`).
    kind : {"map", "plane", "level"}
        What to make of it.
    shape : tuple of int
        ``(ny, nx)`` of the frame.

    Returns
    -------
    numpy.ndarray of float, shape (n_y, n_x)
        Sky of the boxes to subtract.
    """
    if kind == "map":
        return level
    rows, columns = (skymesh.box_edges(size, BOX) for size in shape)
    y, x = ((edges[:-1] + edges[1:]) / (2 * edges[-1]) for edges in (rows, columns))
    y, x = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
    terms = [np.ones(level.size)]
    if kind == "plane":
        # A row of boxes says nothing of the slope across it.
        terms += [one for one in (x, y) if np.ptp(one) > 0]
    terms, values = np.column_stack(terms), level.ravel()
    kept = np.ones(values.size, bool)
    for _ in range(20):
        fit = terms @ np.linalg.lstsq(terms[kept], values[kept], rcond=None)[0]
        away = values - fit
        middle = np.median(away[kept])
        scatter = middle - np.percentile(away[kept], 15.87)
        good = np.abs(away - middle) <= 2.5 * scatter + 1e-9 * np.abs(values).max()
        if good.sum() < 2 * terms.shape[1] or np.array_equal(good, kept):
            break
        kept = good
    return fit.reshape(level.shape)
