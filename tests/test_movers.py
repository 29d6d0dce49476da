"""Moving sources: found with the right rate, direction and errors, and none where there is none."""

import numpy as np
import pytest
from astropy.table import vstack

from datared.errors import ConfigError
from datared.movers import moving_sources
from datared.tracks import Detections, Pool, Track, near_track
from tests.variablenights import EPS, T0, night, to_sky


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 60.0), (200.0, 0.0), (0.0, 89.99)])
def test_e38_moving_source_found(ra, dec):
    """MV-02, 004-18, 004-19, E38: 0.5 arcsec/min among 200 stars, rate to 3 %, direction, R2."""
    lists, times = night(1, rate=0.5, ra=ra, dec=dec)
    movers, detections = moving_sources(lists, times, eps=EPS)
    assert len(movers) == 1
    mover = movers[0]
    assert mover["rate"] == pytest.approx(0.5, rel=0.03)
    assert abs(mover["rate"] - 0.5) < 4 * mover["rate_err"]
    assert mover["r2"] > 0.999
    assert mover["n"] > 50
    # Near the pole north turns over the field: the direction is that at the place of the mover.
    middle = (mover["t0"] - times[0]) * 1440 * 0.5
    way = np.array([middle - 0.5, middle, middle + 0.5])
    angle = np.radians(108.0)
    track = to_sky(30 + way * np.sin(angle), -40 + way * np.cos(angle), ra, dec)
    east = ((track[0][2] - track[0][0] + 180) % 360 - 180) * np.cos(np.radians(track[1][1]))
    truth = np.degrees(np.arctan2(east, track[1][2] - track[1][0])) % 360
    away = (mover["position_angle"] - truth + 180) % 360 - 180
    assert abs(away) < 4 * mover["position_angle_err"] + 0.01
    assert abs(mover["dec0"] - track[1][1]) * 3600 < 5 * mover["position_err"]
    # The second table is made of rows of the lists, with the residuals of the fit.
    assert len(detections) == mover["n"]
    for row in detections[::10]:
        assert row["ra"] == lists[row["frame"]]["ra"][row["row"]]
        assert row["jd_utc_mid"] == times[row["frame"]]
    rest = np.concatenate([detections["residual_east"], detections["residual_north"]])
    assert np.std(rest) == pytest.approx(mover["scatter"], rel=0.1)


def test_moving_faster_than_eps_is_linked_from_noise_points():
    """MV-02: 5 arcsec/min is 7.5 arcsec from frame to frame, five times the matching radius."""
    lists, times = night(2, rate=5.0, n_frames=40, snr=15.0, angle=300.0)
    movers, _ = moving_sources(lists, times, eps=EPS)
    assert len(movers) == 1
    assert movers["rate"][0] == pytest.approx(5.0, rel=0.003)
    assert movers["position_angle"][0] == pytest.approx(300.0, abs=0.2)
    assert len(moving_sources(lists, times, eps=EPS, max_rate=3.0)[0]) == 0


def test_moving_two_sources_and_an_order_of_frames_that_is_mixed():
    """MV-02: two movers at once; the order of the frames does not matter, nor one without a time.

    The same sources are found, and the detections lead back to the frames as they were given.
    """
    first, times = night(3, rate=0.5)
    other, _ = night(4, rate=1.5, angle=20.0, n_stars=0, stars=(np.zeros((2, 0)), np.zeros(0)))
    lists = [vstack([a, b]) for a, b in zip(first, other, strict=True)]
    order = np.random.default_rng(3).permutation(len(lists))
    mixed = [*(lists[k] for k in order), lists[0]]
    late = np.append(times[order], np.nan)
    straight = moving_sources(lists, times, eps=EPS)
    turned = moving_sources(mixed, late, eps=EPS)
    assert sorted(straight[0]["rate"].round(2)) == [0.5, 1.5]
    assert np.allclose(straight[0]["rate"], turned[0]["rate"], rtol=1e-12)
    assert np.allclose(straight[1]["ra"], turned[1]["ra"], rtol=0, atol=1e-12)
    frame = np.asarray(turned[1]["frame"])
    assert order[frame].tolist() == straight[1]["frame"].tolist()


def test_moving_none_where_nothing_moves():
    """MV-02: no false one in 6 nights of stars, cosmic rays and unknown hot pixels that drift."""
    found = [len(moving_sources(*night(seed, n_frames=30), eps=EPS)[0]) for seed in range(10, 16)]
    assert found == [0] * 6


def test_moving_none_by_chance_in_a_rain_of_cosmic_rays():
    """MV-02: 800 rays on each of 6 frames: three are on a line often; chance says how often."""
    lists, times = night(30, n_frames=6, n_stars=40, rays=800, drift=0.0)
    options = {"eps": EPS, "max_rate": 5.0, "min_detections": 3}
    assert len(moving_sources(lists, times, **options)[0]) == 0


def test_moving_hot_pixels_are_not_sources():
    """MV-02: a hot pixel draws a straight line over the sky while the telescope drifts."""
    lists, times = night(5, n_frames=40, drift=1.0, n_stars=60)
    # The same detections on a detector that stays where it is would be three movers.
    still = [table.copy() for table in lists]
    for k, table in enumerate(still):
        table["x"] -= 1.0 * k
        table["y"] += 0.7 * k
    assert len(moving_sources(lists, times, eps=EPS)[0]) == 0
    assert len(moving_sources(still, times, eps=EPS)[0]) == 3


def test_moving_past_stars():
    """MV-02: four stars on the way: blends are left out, rate and direction stay right."""
    way = np.arange(4, 44, 10.0)
    line = np.radians(108.0)
    place = np.stack([30 + way * np.sin(line) + 0.6, -40 + way * np.cos(line)])
    rng = np.random.default_rng(6)
    place = np.hstack([place, rng.uniform(-400, 400, (2, 80))])
    light = np.append(np.full(4, 60.0), 10 ** rng.uniform(0.8, 2.5, 80))
    lists, times = night(6, rate=0.5, stars=(place, light))
    movers, _ = moving_sources(lists, times, eps=EPS)
    assert len(movers) == 1
    # Half of the way is within a star's width.
    assert 25 <= movers["n"][0] <= 40
    assert movers["rate"][0] == pytest.approx(0.5, rel=0.01)
    assert movers["position_angle"][0] == pytest.approx(108.0, abs=1.0)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4])
def test_moving_few_frames_are_no_claim(n_frames):
    """MV-02: on two frames (or up to four) two cosmic rays are a mover too: no claim."""
    movers, detections = moving_sources(*night(7, rate=1.0, n_frames=n_frames), eps=EPS)
    assert len(movers) == len(detections) == 0
    assert {"rate", "rate_err", "r2"} <= set(movers.colnames)


def test_moving_on_as_many_frames_as_are_asked_for():
    """MV-02: seen on eight frames it is a mover; not where nine are asked for."""
    lists, times = night(7, rate=1.0, n_frames=8, chance=1.0)
    assert moving_sources(lists, times, eps=EPS)[0]["n"].tolist() == [8]
    assert len(moving_sources(lists, times, eps=EPS, min_detections=9)[0]) == 0


def test_moving_stars_with_high_proper_motion_are_none():
    """MV-02: Barnard's star (10.4 arcsec a year) over 20 nights, and over two years."""
    nightly = (np.arange(20)[:, None] + np.arange(3) / 24).ravel()
    yearly = (np.arange(24)[:, None] * 30.4 + np.arange(2) / 24).ravel()
    for days in (nightly, yearly):
        rate = 10.4 / 365.25 / 1440
        lists, times = night(8, rate=rate, times=T0 + days, snr=200.0, n_stars=80, drift=0.0)
        assert len(moving_sources(lists, times, eps=EPS)[0]) == 0


def test_moving_less_than_a_width_is_no_claim():
    """MV-02: a star that drifts by 0.9 arcsec in 90 min (refraction, a blend) is no mover."""
    lists, times = night(9, rate=0.01, snr=150.0, n_stars=80)
    assert len(moving_sources(lists, times, eps=EPS)[0]) == 0
    # It is the way that counts: with a smaller radius it is a claim.
    assert len(moving_sources(lists, times, eps=0.3)[0]) == 1


def test_moving_errors_have_pulls_of_unit_width():
    """MV-02, 004-19: over 80 nights pulls of rate, direction and place have mean 0, width 1.

    Scatters of 12 detections (20 degrees of freedom) make the pulls of Student's distribution,
    with a width of 1.05. That of 80 pulls is known to 8.5 %: the limits are three times that.
    """
    rng = np.random.default_rng(9)
    stars = rng.uniform(-400, 400, (2, 20)), 10 ** rng.uniform(0.9, 2.5, 20)
    pulls = []
    for seed in range(80):
        lists, times = night(
            100 + seed, rate=0.8, angle=200.0, n_frames=12, drift=0.0, stars=stars, snr=25.0,
            dec=40.0, start=(0.0, 0.0),
        )  # fmt: skip
        movers, _ = moving_sources(lists, times, eps=EPS)
        assert len(movers) == 1
        mover = movers[0]
        way = 0.8 * (mover["t0"] - times[0]) * 1440
        line = np.radians([200.0])
        _, dec = to_sky(way * np.sin(line), way * np.cos(line), 0.0, 40.0)
        pulls.append(
            (
                (mover["rate"] - 0.8) / mover["rate_err"],
                (mover["position_angle"] - 200.0) / mover["position_angle_err"],
                (mover["dec0"] - dec[0]) * 3600 / mover["position_err"],
            )
        )
    mean, width = np.mean(pulls, axis=0), np.std(pulls, axis=0)
    assert np.all(np.abs(mean) < 3.5 / np.sqrt(80))
    assert np.all(np.abs(width - np.sqrt(20 / 18)) < 0.255)


def test_moving_track_takes_from_each_frame_its_own_detection():
    """MV-02: of three frames, two with a detection near the line; that of another one is nearer."""
    north = np.radians(np.array([0.5, 0.0, 0.4, 30.0]) / 3600)
    sky = np.column_stack([np.cos(north), np.zeros(4), np.sin(north)])
    detections = Detections(sky, np.array([0, 1, 2, 2]), np.arange(3.0), np.ones(4))
    zero = np.zeros(2)
    track = Track(np.array([1.0, 0.0, 0.0]), 1.0, zero, zero, 0.1, 0.1, 1.0, np.zeros(0, int))
    pool = Pool(detections, np.array([True, False, True, True]))
    for frames, found in (([0, 1, 2], [0, 2]), ([0], [0]), ([1], []), ([], [])):
        assert near_track(track, frames, pool, detections.minutes, 1.0).tolist() == found
    empty = Pool(detections, np.zeros(4, bool))
    assert near_track(track, [0, 1], empty, detections.minutes, 1.0).tolist() == []


def test_moving_says_what_is_wrong():
    """MV-02: as many times as lists; options that make sense; no lists at all is no mover."""
    lists, times = night(1, n_frames=3)
    with pytest.raises(ConfigError, match="3 lists and 2 times"):
        moving_sources(lists, times[:2], eps=EPS)
    with pytest.raises(ConfigError, match="at least 3"):
        moving_sources(lists, times, eps=EPS, min_detections=2)
    with pytest.raises(ConfigError, match="not a radius"):
        moving_sources(lists, times, eps=0.0)
    assert len(moving_sources([], [], eps=EPS)[0]) == 0
    assert len(moving_sources([table[:0] for table in lists], times, eps=EPS)[0]) == 0
