"""The star list of a night: every star of a drifting field, and nothing else."""

import tracemalloc

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from datared.nightstars import night_stars
from datared.sources import EDGE

NX, NY, SCALE, WIDTH = 400, 300, 2.0, 5.0  # px, px, arcsec/px, arcsec
N_FRAMES, DRIFT = 60, 4.0  # px from frame to frame along x
RA, DEC = 120.0, 35.0
#: Frames of bad seeing.
BLURRED = range(25, 45)
#: Centroids of a tenth of a pixel for the faintest, as detection gives them at S/N 5.
CENTROID = 0.15


def sky_of(x, y, number=0):
    """Positions on the sky of pixels of a frame; the field drifts along x from frame to frame."""
    east, north = -(x + DRIFT * number - NX / 2) * SCALE, (y - NY / 2) * SCALE
    ra = RA + east / 3600 / np.cos(np.radians(DEC))
    return ra, DEC + north / 3600


def drifting_night(seed=1, *, filters=("r",), n_frames=N_FRAMES):
    """Simulate the detections of a drifting night; return lists, filters and truth.

    180 stars along the strip of sky that drifts over the frame, 40 of them too faint to be found
    each time; on each frame five cosmic rays, on some a trail in pieces; a hot pixel that nobody
    knows, which moves over the sky as the frame does; a planet that moves; pieces of stars at the
    edges; twenty frames blurred to three widths, on which close pairs are one.
    """
    rng = np.random.default_rng(seed)
    n = 180
    x = rng.uniform(5, NX + DRIFT * (n_frames - 1) - 5, n)
    y = rng.uniform(5, NY - 5, n)
    # No two of the stars nearer than 3 widths, but for five pairs of 2.5 widths.
    for k in range(1, n):
        while np.min(np.hypot(x[:k] - x[k], y[:k] - y[k])) < 3 * WIDTH / SCALE:
            x[k], y[k] = rng.uniform(5, NX + DRIFT * (n_frames - 1) - 5), rng.uniform(5, NY - 5)
    x[:5], y[:5] = x[5:10] + 2.5 * WIDTH / SCALE, y[5:10]
    flux = 10 ** rng.uniform(3.0, 5.0, n)
    chance = np.where(np.arange(n) < 140, 0.97, 0.6)
    flux[140:] = 10 ** rng.uniform(2.7, 3.0, 40)
    lists, names = [], []
    for k in range(n_frames):
        here = x - DRIFT * k
        seen = (here > 4) & (here < NX - 5) & (rng.uniform(size=n) < chance)
        place = [
            np.stack([here[seen], y[seen]]) + rng.normal(0, CENTROID, (2, seen.sum())),
            rng.uniform([[0], [0]], [[NX], [NY]], (2, 5)),
            [[200.0], [100.0]],  # the hot pixel
            [[50 + 3.0 * k], [250 - 2.0 * k]],  # the planet, against the stars
        ]
        light = [flux[seen], rng.uniform(1e3, 1e4, 5), [5e3], [8e3]]
        flags = [np.zeros(seen.sum()), np.zeros(5), [0], [0]]
        if k % 9 == 4 and k not in BLURRED:  # a trail, found in pieces of two widths
            along = np.arange(0, NX, 2 * WIDTH / SCALE)
            place.append(np.stack([along, 40 + 0.5 * along + rng.normal(0, 0.3, along.size)]))
            light.append(np.full(along.size, 3e3))
            flags.append(np.zeros(along.size))
        cut = np.flatnonzero((here > -2) & (here < 4))  # pieces at the edge, in the wrong place
        place.append(np.stack([np.full(cut.size, 1.5), y[cut]]))
        light.append(flux[cut] / 3)
        flags.append(np.full(cut.size, EDGE))
        if k in BLURRED:  # of a blurred pair there is the middle
            first = place[0]
            pairs = [(a, a + 5) for a in range(5) if seen[a] and seen[a + 5]]
            index = np.cumsum(seen) - 1
            for a, b in pairs:
                middle = (first[:, index[a]] + first[:, index[b]]) / 2
                first[:, index[a]] = first[:, index[b]] = middle
        place, light, flags = (
            np.concatenate(place, axis=1),
            np.concatenate(light),
            np.concatenate(flags),
        )
        # Clouds: another scale for each frame.
        light = light * rng.uniform(0.7, 1.0)
        ra, dec = sky_of(*place, k)
        lists.append(
            Table(
                {
                    "ra": ra, "dec": dec, "x": place[0], "y": place[1], "flux": light,
                    "snr": light / 50, "flags": flags.astype(int),
                }
            )
        )  # fmt: skip
        names.append(filters[k % len(filters)])
    widths = np.full(n_frames, WIDTH)
    widths[BLURRED] = 3 * WIDTH
    ra, dec = sky_of(x, y)
    covered = [((x - DRIFT * k > 4) & (x - DRIFT * k < NX - 5)) for k in range(n_frames)]
    truth = Table({"ra": ra, "dec": dec, "flux": flux, "covered": np.sum(covered, axis=0)})
    return lists, names, widths, truth


def compare(stars, truth):
    """For each star of the list the star of the truth and the distance in arcsec."""
    found = SkyCoord(stars["ra"], stars["dec"], unit="deg")
    index, separation, _ = found.match_to_catalog_sky(
        SkyCoord(truth["ra"], truth["dec"], unit="deg")
    )
    return index, separation.arcsec


@pytest.mark.parametrize("filters", [("r",), ("g", "r")])
def test_star_list_of_a_drifting_night_is_complete_and_pure(filters):
    """PH-01, 001-05: every star that is seen again is listed once; cosmics and trails are not."""
    lists, names, widths, truth = drifting_night(filters=filters)
    stars = night_stars(lists, filters=names, radius=0.5 * WIDTH, widths=widths)
    index, separation = compare(stars, truth)
    # Pure: each one is a star, and no star is there twice. A median of many centroids.
    assert separation.max() < 0.5 * WIDTH
    assert len(set(index)) == len(index)
    # Complete: what was seen on the sky by many frames. A tenth of those that left soon is lost to
    # chance, none of the bright ones that were there for ten frames and more.
    often = np.flatnonzero(truth["covered"] >= 10)
    assert set(often) <= set(index)
    # The best frame alone has not much more than the stars of its own field.
    best = night_stars(lists[:1], filters=names[:1], radius=0.5 * WIDTH)
    assert len(stars) > 1.4 * len(best)
    assert stars.meta["added"] > 0


def test_star_list_is_numbered_from_the_brightest():
    """PH-01: numbers are row numbers in the order of brightness on one scale, whatever frame."""
    lists, names, widths, truth = drifting_night()
    stars = night_stars(lists, filters=names, radius=0.5 * WIDTH, widths=widths)
    assert list(stars["star"]) == list(range(len(stars)))
    assert np.all(np.diff(stars["brightness"]) <= 0)
    index, _ = compare(stars, truth)
    # Clouds take up to 30 % of the light of a frame: the stars of all frames have one scale.
    ratio = np.asarray(stars["brightness"]) / truth["flux"][index]
    assert np.ptp(ratio[np.asarray(stars["brightness"]) > 2e3]) < 0.05


def test_star_list_keeps_what_the_best_frames_say():
    """On a night without drift the list is that of the best frame, as far as it is seen again."""
    lists, _, widths, _ = drifting_night()
    still = [lists[0].copy() for _ in range(6)]
    for k, table in enumerate(still):
        table["ra"] = np.where(np.arange(len(table)) < len(table) - 8, table["ra"], 100.0 + k)
    stars = night_stars(still, filters=["r"] * 6, radius=0.5 * WIDTH, widths=widths[:6])
    assert len(stars) == len(lists[0]) - 8 and stars.meta["best"] == {"r": 0}
    assert stars.meta["added"] == 0


def test_star_hidden_on_the_best_frame_is_listed():
    """A star that a cosmic ray hid on the best frame, and that all others show, is a star."""
    lists, _, widths, _ = drifting_night()
    still = [lists[0].copy() for _ in range(6)]
    hidden = still[0][3]
    place = SkyCoord(hidden["ra"], hidden["dec"], unit="deg")
    still[0].remove_row(3)
    for k in (2, 3, 4):
        still[0].add_row(still[0][k])  # So that it has most of the detections nevertheless.
        still[0]["ra"][-1] = 100.0 + k
    stars = night_stars(still, filters=["r"] * 6, radius=0.5 * WIDTH, widths=widths[:6])
    near = place.separation(SkyCoord(stars["ra"], stars["dec"], unit="deg")).arcsec
    assert stars.meta["added"] == 1 and np.count_nonzero(near < 1) == 1


def test_blend_with_another_middle_in_each_filter_is_listed_once():
    """PH-01: a pair that no frame takes apart is one row, not one for each filter."""
    lists, _, _, _ = drifting_night()
    still = [lists[0][(np.asarray(lists[0]["flags"]) & EDGE) == 0] for _ in range(10)]
    filters = ["r", "g"] * 5
    for k, table in enumerate(still):
        # Arcsec: nearer to one star in r, to the other one in g; on the best frame of g too far.
        north = {"r": 0.0, "g": 2.0 + 0.8 * (k == 1)}[filters[k]]
        table["dec"][3] += north / 3600
    stars = night_stars(still, filters=filters, radius=2.5)
    sky = SkyCoord(stars["ra"], stars["dec"], unit="deg")
    place = SkyCoord(lists[0]["ra"][3], lists[0]["dec"][3], unit="deg")
    assert np.count_nonzero(place.separation(sky).arcsec < 3) == 1
    assert len(stars) == len(still[0])


def test_star_list_of_a_single_frame_and_of_none():
    """One frame cannot ask for a second look; no detections give an empty list with its columns."""
    lists, _, _, _ = drifting_night()
    whole = lists[0][(np.asarray(lists[0]["flags"]) & EDGE) == 0]
    assert len(night_stars([whole], filters=["r"], radius=2.5)) == len(whole)
    empty = night_stars([lists[0][:0]], filters=["r"], radius=2.5)
    assert len(empty) == 0 and "n_detected" in empty.colnames


def test_star_list_of_many_cosmic_rays_needs_little_memory():
    """PH-12: detections that are alone in their place cost no row of a table of all frames.

    60 frames of 12 megapixels with 100 stars and 1000 cosmic rays each: a number for each of these
    on each frame would be 29 MB, for flux and signal-to-noise twice as much.
    """
    rng = np.random.default_rng(4)
    stars_x, stars_y = rng.uniform(50, 3950, 100), rng.uniform(50, 2950, 100)
    lists = []
    for _ in range(60):
        # Some star is hidden on each frame, so that none has all of them.
        seen = rng.uniform(size=100) < 0.9
        x = np.concatenate([stars_x[seen], rng.uniform(300, 3700, 1000)])
        y = np.concatenate([stars_y[seen], rng.uniform(300, 2700, 1000)])
        ra, dec = sky_of(x, y)
        columns = {"ra": ra, "dec": dec, "x": x, "y": y, "flux": np.full(x.size, 3e3)}
        lists.append(Table(columns | {"snr": np.full(x.size, 60.0), "flags": np.zeros(x.size)}))
    tracemalloc.start()
    stars = night_stars(lists, filters=["r"] * 60, radius=0.5 * WIDTH)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert len(stars) == 100 and stars.meta["added"] > 0
    assert peak < 29
