"""The linear ephemeris: numbers of transits, predicted times and their errors, what is outside."""

import astropy.units as u
import numpy as np
import pytest

from datared.ephemeris import Ephemeris

PLANET = Ephemeris(t0=2456819.856194, period=2.150008096, t0_err=0.00004, period_err=8e-8)
NIGHT = 2458107.71104  # BJD_TDB, 599 periods later
MINUTE = 1 / 1440


def test_ephemeris_predicts_hat_p_32():
    """LC-09: 2456819.856194 + 599 x 2.150008096 is the mid-time of 2017-12-20, with its error."""
    assert PLANET.epoch_of(NIGHT) == 599 and isinstance(PLANET.epoch_of(NIGHT), int)
    time, error = PLANET.mid_time(599)
    assert time == pytest.approx(NIGHT, abs=1e-5)
    # By hand: 599 x 8e-8 d = 4.792e-5 d, and 4e-5 d of t0 beside it.
    assert error == pytest.approx(6.242e-5, rel=1e-3)


def test_ephemeris_epochs_before_and_arrays():
    """Transits before t0 have negative numbers; a quarter of a period around each belongs to it."""
    numbers = np.array([-3, 0, 7])
    time, error = PLANET.mid_time(numbers)
    for shift in (-0.25, 0.0, 0.25):
        assert PLANET.epoch_of(time + shift * PLANET.period).tolist() == [-3, 0, 7]
    assert error[1] == PLANET.t0_err and error[2] > error[0] > error[1]


def test_observed_minus_calculated_has_the_error_of_both():
    """LC-09: a transit 4.3 min late is +4.3 min; drawn ephemerides scatter as the error says."""
    late, error = PLANET.observed_minus_calculated(PLANET.mid_time(599)[0] + 4.3 * MINUTE, 0.0007)
    assert late == pytest.approx(4.3, abs=1e-5)
    assert error == pytest.approx(np.hypot(0.0007 * 1440, 6.242e-5 * 1440), rel=1e-3)
    rng = np.random.default_rng(1)
    drawn = [
        Ephemeris(*rng.normal([PLANET.t0, PLANET.period], [PLANET.t0_err, PLANET.period_err]))
        .observed_minus_calculated(rng.normal(NIGHT, 5e-5))[0]
        for _ in range(2000)
    ]  # fmt: skip
    # The width of 2000 draws is known to 1.6 %.
    stated = PLANET.observed_minus_calculated(NIGHT, 5e-5)[1]
    assert np.std(drawn) == pytest.approx(stated, rel=0.05)


def test_outside_keeps_transit_margin_and_error_out():
    """Nothing is chosen on the answer: in-transit epochs, margin and 3 sigma are never outside."""
    mid, error = PLANET.mid_time(599)
    half, margin = 1.56 / 24, 10 * MINUTE
    edge = half + margin + 3 * error
    time = mid + np.array([-edge - 1e-6, -edge + 1e-6, 0.0, half, edge - 1e-6, edge + 1e-6])
    outside = PLANET.outside(time, duration=3.12 * u.hour, margin=10 * u.min)
    assert outside.tolist() == [True, False, False, False, False, True]
    # Each time is compared with the transit nearest to it, also many orbits on.
    assert PLANET.outside(time + 10 * PLANET.period, duration=2 * half)[[0, 2, 5]].tolist() == [
        True,
        False,
        True,
    ]
    poor = Ephemeris(PLANET.t0, PLANET.period, 0.02, 0.0)
    assert not poor.outside(time, duration=2 * half, margin=margin).any()
    assert PLANET.outside([np.nan, mid + 1.0], duration=0.1).tolist() == [False, True]


def test_ephemeris_refuses_what_cannot_be():
    """Other time scales, periods of nothing and times that are no numbers have clear messages."""
    with pytest.raises(ValueError, match="BJD_TDB, with all their digits"):
        PLANET.epoch_of(58107.2)
    with pytest.raises(ValueError, match="more than 100 years"):
        PLANET.outside([NIGHT, 8107.7], duration=0.1)
    with pytest.raises(ValueError, match="leave such epochs out"):
        PLANET.epoch_of([NIGHT, np.nan])
    with pytest.raises(ValueError, match="not be negative"):
        PLANET.outside([NIGHT], duration=-0.1)
    for values in ((2456819.8, 0.0), (np.nan, 2.0), (2456819.8, 2.0, -1e-4)):
        with pytest.raises(ValueError, match="positive period"):
            Ephemeris(*values)
