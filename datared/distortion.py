"""Distortion: how the optics bend the frames of a night, from the stars of all of them."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from datared.errors import SolveError
from datared.products import atomic_path
from datared.projection import design, least_squares, powers, to_plane

__all__ = ["Distortion", "better", "fit_distortion", "prediction_errors"]

#: Orders that are tried; 1 is no distortion.
ORDERS = (1, 2, 3, 4, 5)
#: Stars needed for each coefficient and axis, over all frames.
STARS_PER_TERM = 4
#: Groups of stars that are left out in turn.
FOLDS = 10
#: Outliers are farther than so many sigma of one axis.
CLIP = 4.5


@dataclass(frozen=True)
class Distortion:
    """Distortion of a camera: what is added to a pixel position to make the frame undistorted.

    Attributes
    ----------
    order : int
        Order of the polynomial; 1 is no distortion.
    coefficients : numpy.ndarray of float, shape (n_terms, 2)
        Displacements in x and y (px) for each term x^p y^q of order 2 and higher, in the order of
        `datared.projection.powers`; x and y are offsets from the middle of the frame in units of
        half its diagonal.
    shape : tuple of int
        Shape of the frames, ``(ny, nx)``.
    n_frames, n_stars : int
        Number of frames and of stars on them that were used.
    rms_px : float
        Root mean square length of the residuals of the stars used.
    """

    order: int
    coefficients: np.ndarray
    shape: tuple[int, int]
    n_frames: int
    n_stars: int
    rms_px: float

    def terms(self):
        """Coefficients for offsets in pixels.

        Returns
        -------
        numpy.ndarray of float, shape (n_terms, 2)
            As ``coefficients``, but x and y are in px.
        """
        half = 0.5 * np.hypot(*self.shape)
        exponents = powers(self.order)[3:]
        return self.coefficients / np.array([half ** (p + q) for p, q in exponents])[:, None]

    def displacement(self, pixel):
        """Displacement at positions of the frame.

        Parameters
        ----------
        pixel : numpy.ndarray of float, shape (n, 2)
            Offsets from the middle of the frame in px.

        Returns
        -------
        numpy.ndarray of float, shape (n, 2)
            Pixels to add to ``pixel``.

        Examples
        --------
        >>> terms = np.array([[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
        >>> lens = Distortion(2, terms, (61, 81), n_frames=1, n_stars=9, rms_px=0.1)
        >>> lens.displacement(np.array([[25.0, 0.0]])).round(2).tolist()
        [[0.73, 0.0]]
        """
        return design(pixel, self.order)[:, 3:] @ self.terms()

    def write(self, path):
        """Write as a small table (ECSV), which `Distortion.read` reads.

        Parameters
        ----------
        path : str or pathlib.Path
            The file.
        """
        table = Table({"dx": self.coefficients[:, 0], "dy": self.coefficients[:, 1]})
        exponents = np.array(powers(self.order)[3:], int).reshape(-1, 2)
        table.add_columns([exponents[:, 0], exponents[:, 1]], indexes=[0, 0], names=["p", "q"])
        table["dx"].unit = table["dy"].unit = "pix"
        names = ("order", "n_frames", "n_stars", "rms_px")
        table.meta = {name: getattr(self, name) for name in names} | {"shape": list(self.shape)}
        with atomic_path(path) as temporary:
            table.write(temporary, format="ascii.ecsv")

    @classmethod
    def read(cls, path):
        """Read what `Distortion.write` wrote.

        Parameters
        ----------
        path : str or pathlib.Path
            The file.

        Returns
        -------
        Distortion
            The same distortion.
        """
        table = Table.read(path, format="ascii.ecsv")
        coefficients = np.column_stack([table["dx"], table["dy"]]).astype(float).reshape(-1, 2)
        meta = dict(table.meta)
        shape = tuple(meta.pop("shape"))
        return cls(coefficients=coefficients, shape=shape, **meta)


def fit_distortion(solutions, *, shape, order=None):
    """Fit one distortion to the matched stars of many frames of the same optics.

    Each frame keeps its own pointing, scale, rotation and shear, which are projected out; what is
    left of all frames is one linear least squares fit. Outliers are clipped. Stars are left out in
    groups to choose the order: a star on many frames has the same catalogue error on each, and
    leaving it out on one only would reward a fit of that error.

    Parameters
    ----------
    solutions : iterable of datared.solver.Solution
        Plate solutions of frames of the same shape.
    shape : tuple of int
        Shape of the frames, ``(ny, nx)``.
    order : int, optional
        Order of the polynomial (1 is none), lowered only if there are not stars for it; chosen
        by cross-validation where it is not given.

    Returns
    -------
    Distortion
        The distortion; of order 1 if the stars show none or are too few.

    Raises
    ------
    SolveError
        If no frame has the five matched stars that are needed.
    """
    order = None if order is None else max(1, int(order))
    frames = [_frame(solution, shape, order or max(ORDERS)) for solution in solutions]
    frames = [frame for frame in frames if len(frame.weight) >= 5]
    if not frames:
        raise SolveError("no frame with 5 matched stars: solve the frames first")
    for _ in range(5):
        parts = [_without_affine(frame) for frame in frames]
        terms, rest, star = (np.concatenate(part) for part in zip(*parts, strict=True))
        chosen, coefficients = _choose(terms, rest, star, order)
        residuals = [_straighten(frame, coefficients) for frame in frames]
        misfits = [f.weight * np.hypot(*r.T) for f, r in zip(frames, residuals, strict=True)]
        used = np.concatenate([r[f.keep] for f, r in zip(frames, residuals, strict=True)])
        n_frames = len(frames)
        # The median of a Rayleigh distribution is 1.177 sigma of one axis.
        # The median frame counts, not the median star: one rich frame must not set the limit.
        usual = np.median([np.median(misfit) for misfit in misfits])
        limit = max(CLIP * usual / 1.177, 1e-9)
        before = [frame.keep for frame in frames]
        for frame, misfit in zip(frames, misfits, strict=True):
            frame.keep = misfit <= limit
        if all(np.array_equal(f.keep, b) for f, b in zip(frames, before, strict=True)):
            break
        frames = [frame for frame in frames if np.count_nonzero(frame.keep) >= 5] or frames
    return Distortion(
        order=chosen,
        coefficients=coefficients,
        shape=tuple(int(n) for n in shape),
        n_frames=n_frames,
        n_stars=len(used),
        rms_px=float(np.sqrt(np.mean(np.sum(used**2, axis=1)))),
    )


def prediction_errors(solution):
    """How far each matched star is from where the other stars of its frame predict it.

    Parameters
    ----------
    solution : datared.solver.Solution
        Plate solution; where its distortion is the night's, the frame's own stars determine
        only the linear part.

    Returns
    -------
    numpy.ndarray of float, shape (n_matched,)
        Distances in px, one per row of ``solution.matched``. For a star that took part in the fit
        it is the residual divided by one minus its leverage: the exact residual of a fit without
        it.
    """
    matched = solution.matched
    used = np.asarray(matched["used"], bool)
    distance = np.hypot(matched["dx"], matched["dy"]).astype(float)
    pixel = np.column_stack([matched["x"], matched["y"]])[used] - solution.wcs.wcs.crpix + 1
    terms = design(pixel / max(np.abs(pixel).max(), 1), 1 if solution.shared else solution.order)
    weight = 1 / np.asarray(matched["error"], float)[used]
    _, leverage = least_squares(terms, np.zeros((len(terms), 2)), weight)
    distance[used] /= 1 - np.minimum(leverage, 0.95)
    return distance


def better(own, shared):
    """Choose between a frame's own distortion and that of the night by what they predict.

    Every star is predicted by a fit without it (`prediction_errors`), in units of its error. The
    night's distortion, which more stars have determined, is taken unless the frame's own
    predicts better by more than two standard errors: then the optics of this frame were
    different.

    Parameters
    ----------
    own, shared : datared.solver.Solution
        The frame fitted with a polynomial of its own, and with the distortion of the night.

    Returns
    -------
    datared.solver.Solution
        One of the two.
    """
    if own.order == shared.order == 1:
        return own
    misfits = []
    for solution in (own, shared):
        error = np.asarray(solution.matched["error"], float)
        rows = np.asarray(solution.matched["source"])
        misfits.append(dict(zip(rows.tolist(), prediction_errors(solution) / error, strict=True)))
    limit = CLIP * min(np.median(list(values.values())) for values in misfits) / 1.177
    rows = sorted(misfits[0].keys() | misfits[1].keys())
    # A star that one of the two does not match is as wrong there as an outlier.
    first, second = (
        np.minimum([values.get(row, limit) for row in rows], limit) for values in misfits
    )
    return own if _predicts_better(first, second) else shared


def _predicts_better(first, second):
    """Whether the first misfits are smaller in square by more than two standard errors."""
    gain = second**2 - first**2
    return gain.mean() > 2 * gain.std() / np.sqrt(len(gain))


@dataclass
class _Frame:
    """Stars of one frame: terms of the polynomial, and where the sky says the star is (px)."""

    terms: np.ndarray
    pixel: np.ndarray
    ideal: np.ndarray
    weight: np.ndarray
    star: np.ndarray
    keep: np.ndarray


def _frame(solution, shape, order):
    """Good matched stars of a solution."""
    matched = solution.matched[np.asarray(solution.matched["good"], bool)]
    wcs = solution.wcs.wcs
    pixel = np.column_stack([matched["x"], matched["y"]]) - (np.array(shape[::-1]) - 1) / 2
    plane = np.column_stack(to_plane(matched["ra"], matched["dec"], *wcs.crval))
    return _Frame(
        terms=design(pixel / (0.5 * np.hypot(*shape)), order),
        pixel=pixel,
        ideal=plane @ np.linalg.inv(wcs.cd.T),
        weight=1 / np.asarray(matched["error"], float),
        star=np.asarray(matched["catalogue"]),
        keep=np.ones(len(matched), bool),
    )


def _without_affine(frame):
    """Weighted terms and displacements of the stars kept, less their best affine part."""
    keep, weight = frame.keep, frame.weight[frame.keep, None]
    values = np.hstack([frame.terms[:, 3:], frame.ideal - frame.pixel])[keep] * weight
    q, _ = np.linalg.qr(frame.terms[keep, :3] * weight)
    values = values - q @ (q.T @ values)
    return values[:, :-2], values[:, -2:], frame.star[keep]


def _straighten(frame, coefficients):
    """Take the affine difference to the sky out of ``ideal``; return the residuals (px)."""
    straight = frame.pixel + frame.terms[:, 3 : 3 + len(coefficients)] @ coefficients
    terms = np.column_stack([np.ones(len(straight)), straight])
    scale = np.array([1.0, *np.abs(straight).max(axis=0)])
    affine, _ = least_squares(
        (terms / scale)[frame.keep], frame.ideal[frame.keep], frame.weight[frame.keep]
    )
    affine /= scale[:, None]
    frame.ideal = (frame.ideal - affine[0]) @ np.linalg.inv(affine[1:])
    return straight - frame.ideal


def _choose(terms, rest, star, order):
    """Order and coefficients: the given order, or the one that predicts left out stars best."""
    if order is not None:
        while order > 1 and len(rest) < 2 * len(powers(order)):
            order -= 1
        return order, _solve(terms[:, : len(powers(order)) - 3], rest)
    _, number = np.unique(star, return_inverse=True)
    fold = number % FOLDS
    misfits = {}
    for n in ORDERS:
        columns = terms[:, : len(powers(n)) - 3]
        if n > 1 and len(rest) < STARS_PER_TERM * len(powers(n)):
            break
        left = rest.copy()
        for k in range(FOLDS):
            out = fold == k
            left[out] -= columns[out] @ _solve(columns[~out], rest[~out])
        misfits[n] = np.hypot(*left.T)
    limit = CLIP * min(np.median(values) for values in misfits.values()) / 1.177
    # One number for each star of the sky: its misfits on several frames are not independent.
    misfits = {n: np.bincount(number, np.minimum(v, limit) ** 2) for n, v in misfits.items()}
    best = 1
    for n in misfits:
        if _predicts_better(np.sqrt(misfits[n]), np.sqrt(misfits[best])):
            best = n
    return best, _solve(terms[:, : len(powers(best)) - 3], rest)


def _solve(terms, values):
    """Least squares by the normal equations; the terms are weighted already."""
    return np.linalg.pinv(terms.T @ terms, rcond=1e-13, hermitian=True) @ (terms.T @ values)
