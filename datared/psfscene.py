"""Inside `psf`: a frame as sky and stars, and the rounds in which its groups are fitted."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from . import pixels, skymesh
from .background import background_map
from .psffit import add_stars, box_residuals, fit_pieces, inspect_stars

__all__ = ["Fitted", "Scene"]

#: Stars of a piece at most: larger groups are cut.
PIECE = 24
#: A star whose usable pixels hold less of its light is not measured.
LEAST_SHARE = 0.1
#: One that lost half of it is fitted in a disc of so many widths: its wings are good.
WIDE = 2.5
#: Slopes count to this distance in widths; there the model has fallen to 0.3 % of its height.
REACH = 2.5
#: Rounds in which the discs of pixels follow the stars; later a pixel that comes and goes would
#: never let the fit rest.
FOLLOW = 6
#: The fit rests when no step is larger than this share of its standard deviation.
REST = 0.02
#: From round `FOLLOW` on a star has no position of its own where its error is larger than this,
#: or where a brighter star is closer than this, in widths.
UNSURE, MERGED = 0.25, 0.35
#: From this round on, neither has one that still takes steps larger than this, in its errors.
PATIENCE, RESTLESS = 18, 0.3
#: Steps of stars that go to and fro are shortened to this share at most.
LEAST_STEP = 0.1
#: From round `PATIENCE` on steps of stars that creep on and on become so much longer at most.
CREEP = 3.0
#: Largest step of a position along an axis in one round, in widths.
STEP = 0.2
#: The sky is measured again before this round, or before if the stars rest: long before `PATIENCE`,
#: for all stars take a step when it changes.
SKY_TURN = 10
#: Size of the boxes in which the sky is measured again without the stars, in pixels.
BOX = 64


class Fitted(NamedTuple):
    """Stars of a frame after the fit.

    Attributes
    ----------
    stars : numpy.ndarray of float64, shape (n, 3)
        x, y and flux; a flux of NaN where a star was not measured.
    errors : numpy.ndarray of float64, shape (n, 4)
        Standard deviations of these, and the reduced chi-square.
    runaway : numpy.ndarray of bool, shape (n,)
        Whether the first position was given back to the star.
    group, n_group : numpy.ndarray of int, shape (n,)
        Number of the group, -1 for stars without, and how many stars it has.
    """

    stars: np.ndarray
    errors: np.ndarray
    runaway: np.ndarray
    group: np.ndarray
    n_group: np.ndarray


class Scene:
    """A frame without its sky, and the light of all stars in it.

    Parameters
    ----------
    ccd, psf, sky, gain, read_noise, flat_noise, threads
        As for `datared.psf.psf_photometry`.

    Attributes
    ----------
    flags : numpy.ndarray of uint16, shape (ny, nx)
        Bits of `datared.pixels`.
    frame, model, noise : numpy.ndarray of float32, shape (ny, nx)
        Frame without sky, light of the stars, scatter of a pixel of sky.
    rounds : int
        Rounds made so far.
    converged : bool
        Whether the last fit came to rest.
    """

    def __init__(self, ccd, psf, sky, gain, read_noise, flat_noise, threads):
        self.psf = psf
        data, flags = pixels.frame_planes(ccd)
        data = np.ascontiguousarray(data, np.float32)
        self.flags = (
            np.zeros(data.shape, np.uint16) if flags is None else np.array(flags, order="C")
        )
        self.flags[~np.isfinite(data)] |= pixels.NONFINITE
        self.usable = (self.flags == 0).astype(np.uint8)
        self.measure_sky = sky is None
        if sky is None:
            sky = background_map(data, mask=self.usable == 0)
        self.noise = np.array(sky.noise, np.float32)
        self.frame = data - np.asarray(sky.level, np.float32)
        self.frame[self.usable == 0] = 0
        self.model = np.zeros_like(self.frame)
        # A drawing without noise still needs something to divide by.
        self.floor = max(
            read_noise / gain if gain else 0.0, 1e-6 * float(np.abs(self.frame).max()), 1e-12
        )
        np.maximum(self.noise, np.float32(self.floor), out=self.noise)
        self.inverse_gain = 1 / gain if gain else 0.0
        self.flat_noise = float(flat_noise)
        self.threads = threads or min(os.cpu_count() or 1, 8)
        self.rounds, self.converged = 0, False

    def fit(self, x, y, inside, free, bits, *, start, rounds, trial, fit_radius, group, max_shift):
        """Fit stars until they rest.

        Parameters
        ----------
        x, y : numpy.ndarray of float64, shape (n,)
            First positions in pixels.
        inside : numpy.ndarray of bool, shape (n,)
            Which of them are on the frame.
        free : numpy.ndarray of bool, shape (n,)
            Which of them may move.
        bits : numpy.ndarray of uint16, shape (n,)
            Flags are added to it.
        start : numpy.ndarray of float64, shape (n, 3), optional
            x, y and flux from which to begin; the first positions and no light by default.
        rounds : int
            Largest number of rounds.
        trial : bool
            Whether this is a trial, for which the sky stays as it is.
        fit_radius, group, max_shift : float
            In widths, as for `datared.psf.psf_photometry`.

        Returns
        -------
        Fitted
            The stars.
        """
        psf, width = self.psf, self.psf.fwhm
        spline = psf.coefficients, psf.oversampling
        n = x.size
        stars = np.column_stack([x, y, np.zeros(n)]) if start is None else start.copy()
        errors, runaway = np.full((n, 4), np.nan), np.zeros(n, bool)
        radius = np.full(n, min(fit_radius * width, psf.radius))
        share = np.zeros(n)
        some = np.flatnonzero(inside)
        flags, part = bits[some], np.zeros(some.size)
        room = spline[0], spline[1], self.usable, self.flags
        inspect_stars(*room, x[some], y[some], radius[some], flags, part)
        bits[some], share[some] = flags, part
        lost = inside & (share < 0.5)
        radius[lost] = np.maximum(radius[lost], min(WIDE * width, psf.radius))
        alive = inside & (share > 0)
        if lost.any():
            some = np.flatnonzero(lost)
            part = np.zeros(some.size)
            inspect_stars(
                *room, x[some], y[some], radius[some], np.zeros(some.size, np.uint16), part
            )
            alive[some] = part >= LEAST_SHARE
        stars[~alive] = np.nan
        groups, n_group, pieces = _pieces(x, y, alive, group * width)
        free = free & alive
        centres, steps = np.column_stack([x, y]), np.zeros((n, 3))
        damp, before = np.ones(n), np.zeros((n, 3))
        resting, again = False, trial or not self.measure_sky
        self.converged = False
        for turn in range(rounds):
            self.draw(stars)
            if not again and (resting or turn == SKY_TURN):
                self._sky_again()
                again = True
            move = free & (turn > 0 if start is None else True) & (stars[:, 2] > 0)
            if turn < FOLLOW:
                centres[alive] = stars[alive, :2]
            args = (
                self.frame, self.model, self.noise, self.usable, self.inverse_gain, self.flat_noise,
                *spline, min(REACH * width, psf.radius), *pieces,
            )  # fmt: skip
            rest = stars, centres, radius, move, STEP * width, errors, steps
            self._share_out(fit_pieces, len(pieces[2]), args, rest)
            size = steps / np.where(errors[:, :3] > 0, errors[:, :3], np.inf)
            damp = _damping(damp, size, before, CREEP if turn >= PATIENCE else 1)
            before = size
            stars[alive] += (damp[:, None] * steps)[alive]
            far = np.hypot(stars[:, 0] - x, stars[:, 1] - y) > max_shift * width
            far = free & (far | self._without_place(stars, errors, turn))
            stars[far, :2] = np.column_stack([x, y])[far]
            # Those that only cannot rest stay where they are: to move them would stir up others.
            restless = free & (turn >= PATIENCE) & (np.abs(size).max(axis=1) > RESTLESS)
            runaway |= far | restless
            free &= ~runaway
            self.rounds += 1
            resting = turn > 0 and not far.any() and (np.abs(size[alive]) <= REST).all()
            if resting and again:
                self.converged = True
                break
        runaway |= free & (stars[:, 2] <= 0)
        self.draw(stars)
        errors[~alive] = np.nan
        return Fitted(stars, errors, runaway, groups, n_group)

    def _without_place(self, stars, errors, turn):
        """Tell which stars have no position of their own: nothing holds it."""
        if turn < FOLLOW:
            return np.zeros(len(stars), bool)
        width, flux = self.psf.fwhm, np.nan_to_num(stars[:, 2])
        lost = (flux <= 0) | (errors[:, :2].max(axis=1) > UNSURE * width)
        known = np.flatnonzero(np.isfinite(stars[:, 2]))
        if known.size:
            tree = cKDTree(stars[known, :2])
            pairs = known[tree.query_pairs(MERGED * width, output_type="ndarray")]
            lost[np.where(flux[pairs[:, 0]] < flux[pairs[:, 1]], pairs[:, 0], pairs[:, 1])] = True
        return lost

    def draw(self, stars):
        """Draw the light of all stars into ``model``."""
        psf = self.psf
        x, y, flux = (np.ascontiguousarray(column) for column in stars.T)

        def work(first, last):
            self.model[first:last] = 0
            room = self.model, psf.coefficients, psf.oversampling, psf.radius
            add_stars(*room, x, y, flux, first, last)

        skymesh.over_bands(work, len(self.model))

    def _share_out(self, work, n, before, after):
        """Call compiled work on runs of pieces, in several threads; each star is written once."""
        cuts = np.linspace(0, n, min(n, 8 * self.threads) + 1).astype(int)
        with ThreadPoolExecutor(self.threads) as pool:
            jobs = [pool.submit(work, *before, a, b, *after) for a, b in pairwise(cuts)]
            for job in jobs:
                job.result()

    def _sky_again(self):
        """Take off the mean of what is left without the stars; measure the noise there."""
        rows, columns = (skymesh.box_edges(size, BOX) for size in self.frame.shape)
        level, scatter = np.empty((2, len(rows) - 1, len(columns) - 1))
        planes = self.frame, self.model, self.noise, self.usable, self.inverse_gain
        with ThreadPoolExecutor(self.threads) as pool:
            list(
                pool.map(
                    lambda a: box_residuals(*planes, rows, columns, level, scatter, a),
                    range(len(rows) - 1),
                )
            )
        if not np.isfinite(scatter).any():
            return
        edges = rows, columns
        level = skymesh.surface(skymesh.smooth(level, 3), edges)
        noise = skymesh.surface(skymesh.smooth(scatter, 3), edges, self.floor)

        def work(first, last):
            self.frame[first:last] -= level.fill(first, last)
            self.frame[first:last][self.usable[first:last] == 0] = 0
            noise.fill(first, last, self.noise[first:last])

        skymesh.over_bands(work, len(self.frame))


def _damping(damp, step, before, most):
    """Shorten the steps of stars that go to and fro, lengthen those of stars that creep one way.

    Both are pairs too close to be told apart well.
    """
    along, length = (step * before).sum(axis=1), np.square(before).sum(axis=1)
    damp = np.where(along < -0.25 * length, 0.5, 1.2) * damp
    return np.clip(damp, LEAST_STEP, np.where(along > 0.5 * length, most, 1))


def _pieces(x, y, alive, link):
    """Group stars, friends of friends, and cut large groups.

    Returns
    -------
    group, n_group : numpy.ndarray of int, shape (n,)
        As in `Fitted`.
    pieces : tuple of numpy.ndarray of int
        ``members``, ``starts`` and ``own`` as for `datared.psffit.fit_pieces`.
    """
    group, n_group = np.full(x.size, -1), np.zeros(x.size, int)
    known = np.flatnonzero(alive)
    members, starts, own = [], [0], []
    if known.size:
        places = np.column_stack([x[known], y[known]])
        pairs = cKDTree(places).query_pairs(link, output_type="ndarray")
        both = np.concatenate([pairs, pairs[:, ::-1]])
        graph = coo_matrix((np.ones(len(both)), both.T), shape=(known.size,) * 2).tocsr()
        number, label = connected_components(graph, directed=False)
        group[known] = label
        n_group[known] = np.bincount(label, minlength=number)[label]
        order = np.argsort(label, kind="stable")
        for one in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
            for piece in _cut(one, places):
                own.append(piece.size)
                if one.size > piece.size:
                    # Those near a piece are of its group; its own come first.
                    near = np.unique(graph[piece].indices)
                    piece = np.concatenate([piece, np.setdiff1d(near, piece)])
                members.append(piece)
                starts.append(starts[-1] + piece.size)
    flat = known[np.concatenate(members)] if members else np.empty(0, int)
    return group, n_group, (flat, np.array(starts), np.array(own, int))


def _cut(stars, places):
    """Cut a group in halves along its longer side until its pieces are small."""
    if stars.size <= PIECE:
        return [np.sort(stars)]
    axis = int(np.argmax(np.ptp(places[stars], axis=0)))
    order = stars[np.lexsort((stars, places[stars, axis]))]
    half = stars.size // 2
    return _cut(order[:half], places) + _cut(order[half:], places)
