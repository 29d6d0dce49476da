"""Matching of many star lists by DBSCAN: who belongs to whom, and nothing twice on a frame."""

import warnings

import numpy as np
import pytest
from astropy.table import Table

from datared.clustering import match_detections
from datared.detections import night_detections, read_detections
from datared.errors import ConfigError, DataredError, DataredWarning

SIGMA = 0.15  # arcsec, the error of one coordinate


def sky_lists(east, north, *, ra=0.0, dec=0.0, n_frames=40, missing=0.05, noise=0, seed=1):
    """Simulate detections of stars at tangent-plane offsets (arcsec); return lists and truth.

    Every list is in an order of its own; ``noise`` cosmic rays come to each frame (truth -1).
    """
    rng = np.random.default_rng(seed)
    east, north = np.asarray(east, float), np.asarray(north, float)
    a, d = np.radians([ra, dec])
    middle = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    to_east = np.array([-np.sin(a), np.cos(a), 0.0])
    to_north = np.cross(middle, to_east)
    size = max(np.ptp(east), np.ptp(north), 60.0) / 2
    lists, truth = [], []
    for _ in range(n_frames):
        seen = np.flatnonzero(rng.random(len(east)) >= missing)
        plane = np.stack([east[seen], north[seen]]) + rng.normal(0, SIGMA, (2, len(seen)))
        plane = np.radians(np.hstack([plane, rng.uniform(-size, size, (2, noise))]) / 3600)
        sky = middle + plane[0][:, None] * to_east + plane[1][:, None] * to_north
        sky /= np.linalg.norm(sky, axis=1, keepdims=True)
        order = rng.permutation(len(sky))
        place = {
            "ra": np.degrees(np.arctan2(sky[:, 1], sky[:, 0]))[order] % 360,
            "dec": np.degrees(np.arcsin(sky[:, 2]))[order],
        }
        lists.append(Table(place))
        truth.append(np.append(seen, np.full(noise, -1))[order])
    return lists, np.concatenate(truth)


def purity_completeness(cluster, truth):
    """Share of a cluster's detections that are of one star; share of a star's in one cluster."""
    cluster = np.asarray(cluster)
    own = kept = 0
    for name in np.unique(cluster[cluster >= 0]):
        stars, counts = np.unique(truth[cluster == name], return_counts=True)
        own += counts.max() if stars[counts.argmax()] >= 0 else 0
    for star in np.unique(truth[truth >= 0]):
        names = cluster[truth == star]
        kept += np.unique(names[names >= 0], return_counts=True)[1].max(initial=0)
    return own / np.count_nonzero(cluster >= 0), kept / np.count_nonzero(truth >= 0)


def matched_once(table):
    """Tell whether no cluster has two detections of a frame."""
    pairs = [(c, f) for c, f in zip(table["cluster"], table["frame"], strict=True) if c >= 0]
    return len(pairs) == len(set(pairs))


PLACES = [(0.0, 0.0), (0.0, 85.0), (123.0, 90.0), (0.0, -90.0), (359.9999, 47.0)]


@pytest.mark.parametrize(("ra", "dec"), PLACES)
def test_e38_dbscan_purity_and_completeness(ra, dec):
    """MV-01, 004-17, E38: 40 frames, 300 stars, 5 % missing, at RA 0, at Dec 85 and at the poles.

    15 cosmic rays on each frame; 30 of the stars are 8 standard deviations from another one.
    """
    rng = np.random.default_rng(5)
    east, north = rng.uniform(-900, 900, (2, 300))
    angle = rng.uniform(0, 2 * np.pi, 30)
    east[:30] = east[30:60] + 8 * SIGMA * np.cos(angle)
    north[:30] = north[30:60] + 8 * SIGMA * np.sin(angle)
    lists, truth = sky_lists(east, north, ra=ra, dec=dec, noise=15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataredWarning)  # of the close pairs
        table = match_detections(lists, eps=1.0)
    purity, completeness = purity_completeness(table["cluster"], truth)
    assert purity >= 0.99
    assert completeness >= 0.99
    assert table["cluster"].max() + 1 == 300
    assert matched_once(table)
    # The rows lead back to the lists.
    assert len(table) == sum(len(one) for one in lists)
    assert table["row"][table["frame"] == 7].tolist() == list(range(len(lists[7])))


def test_dbscan_splits_chains_of_close_stars():
    """MV-01: a chain of six stars that are nearer than eps, and a trail over one of the frames."""
    step = 0.8
    lists, truth = sky_lists(np.arange(6) * step, np.zeros(6), n_frames=30)
    trail = Table({"ra": lists[4]["ra"][:1] + np.arange(12) * 1e-4, "dec": np.zeros(12)})
    whole = Table({n: np.append(lists[4][n], trail[n]) for n in ("ra", "dec")})
    before = sum(len(one) for one in lists[:5])
    truth = np.insert(truth, before, np.full(12, -1))
    lists[4] = whole
    with pytest.warns(DataredWarning, match="more than half the separation"):
        table = match_detections(lists, eps=1.0)
    assert matched_once(table)
    # The trail may take the place of a star on its own frame: 6 of 30 x 6 detections.
    purity, completeness = purity_completeness(table["cluster"], truth)
    assert completeness > 1 - 6 / 170 - 0.02
    assert purity > 1 - 6 / 170 - 0.02
    sizes = np.bincount(table["cluster"][table["cluster"] >= 0])
    assert (sizes >= 20).sum() == 6


def test_dbscan_clusters_again_what_a_split_left_over():
    """MV-01: a slow mover that passes a star is one chain with it; its pieces become clusters."""
    rng = np.random.default_rng(3)
    lists, truth = [], []
    for k in range(40):
        east, north = np.array([0.0, 0.4 * (k - 20)]), np.array([0.0, 0.9])
        place = np.stack([east, north]) + rng.normal(0, 0.05, (2, 2))
        lists.append(Table({"ra": 10 + place[0] / 3600, "dec": place[1] / 3600}))
        truth += [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataredWarning)
        table = match_detections(lists, eps=1.0)
    assert matched_once(table)
    cluster, truth = np.asarray(table["cluster"]), np.array(truth)
    # The star is whole; the mover has pieces on both sides of it and hardly any noise.
    star = np.bincount(cluster[(truth == 0) & (cluster >= 0)]).argmax()
    assert np.sum(cluster[truth == 0] == star) >= 38
    assert np.sum(cluster[truth == 1] < 0) <= 2
    assert len(np.unique(cluster[(truth == 1) & (cluster != star)])) >= 3


def test_dbscan_warns_of_a_large_eps():
    """MV-01: two stars at 3 arcsec, a warning from eps = 1.5 arcsec on."""
    lists, truth = sky_lists([0.0, 3.0], [0.0, 0.0], missing=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = match_detections(lists, eps=1.4)
    assert purity_completeness(table["cluster"], truth) == (1.0, 1.0)
    with pytest.warns(DataredWarning, match="1 pairs of sources"):
        table = match_detections(lists, eps=2.0)
    # One detection of each frame still is of one star.
    assert purity_completeness(table["cluster"], truth) == (1.0, 1.0)


def test_dbscan_edges():
    """MV-01: empty lists, one frame, noise, positions that are missing, and wrong options."""
    empty = Table({"ra": np.zeros(0), "dec": np.zeros(0)})
    assert len(match_detections([], eps=1.0)) == 0
    assert len(match_detections([empty, empty], eps=1.0)) == 0
    one = Table({"ra": [10.0, 20.0, np.nan], "dec": [0.0, 5.0, 5.0]})
    assert match_detections([one, empty], eps=1.0)["cluster"].tolist() == [-1, -1, -1]
    three = match_detections([one, one, empty, one[:1]], eps=1.0, min_samples=3)
    assert three["cluster"].tolist() == [0, -1, -1, 0, -1, -1, 0]
    for options in ({"eps": 0.0}, {"eps": np.nan}, {"eps": 1.0, "min_samples": 0}):
        with pytest.raises(ConfigError, match="give"):
            match_detections([one], **options)


def test_detections_of_a_night_are_read_with_their_times(tmp_path):
    """MV-01: lists, times and filters of a night; a broken list is empty and named in the log."""
    with pytest.raises(DataredError, match="up to the stage photometry"):
        night_detections(tmp_path)
    epochs = {"file": ["b.fits", "a/c.fits"], "filter": ["g", "r"], "jd_utc_mid": [1.5, 2.5]}
    Table(epochs).write(tmp_path / "epochs.ecsv", format="ascii.ecsv")
    names = ("x", "y", "flux", "snr", "flags", "ra", "dec", "other")
    table = Table({name: [1.0, 2.0] for name in names})
    table["ra"][1] = np.nan
    (tmp_path / "sources").mkdir()
    table.write(tmp_path / "sources" / "a__c.ecsv", format="ascii.ecsv")
    lists, frames = night_detections(tmp_path)
    assert [len(one) for one in lists] == [0, 1]
    assert frames["jd_utc_mid"].tolist() == [1.5, 2.5]
    assert frames["filter"].tolist() == ["g", "r"]
    assert set(lists[1].colnames) == {"ra", "dec", "x", "y", "flux", "snr", "flags"}
    assert len(read_detections(tmp_path / "nothing.ecsv")) == 0
