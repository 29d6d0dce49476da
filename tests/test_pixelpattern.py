"""Noise of the flat under a drifting star: simulated pixel by pixel, and described by its columns.

The stars are recorded on a map of pixels whose flats are wrong, each by itself. What that does to
the flux of a star is summed over its pixels; no formula of the room is used for it.
"""

import numpy as np
import pytest
from astropy.table import Table

from datared.ensemble import solve_ensemble
from datared.pixelpattern import pattern_columns
from datared.transitbaseline import transit_baseline
from datared.transitoptions import TransitOptions
from datared.trends import learn_trends, trend_widths

N, STEP, FWHM = 120, 0.25, 3.0
#: Standard deviation of the star's image (pixels).
S = FWHM / (2 * np.sqrt(2 * np.log(2)))
#: Error of the flat of one pixel, and white noise of a frame.
FLAT, WHITE = 0.01, 0.002
#: Error of the flux in one frame: each pixel counts with the star's share in it.
RMS = FLAT / (np.sqrt(4 * np.pi) * S)


def drift(step=STEP, *, n=N):
    """Light curve without noise of a star that drifts askew, 0.03 px of guiding with it."""
    rng = np.random.default_rng(3)
    x, y = np.outer([0.8, 0.6], step * np.arange(n)) + rng.normal(0, 0.03 if step else 0, (2, n))
    curve = Table({"x": 10 + x, "y": 10 + y, "fwhm": np.full(n, FWHM)})
    curve["flux"], curve["flux_err"] = 1.0, WHITE
    curve["bjd_tdb_mid"] = 2460000.5 + np.arange(n) / 720
    curve["flipped"] = False
    return curve


def errors_of_flat(curve, n_star, *, seed=0):
    """Relative flux errors of stars that drift as this one, each over a flat of its own."""
    rng = np.random.default_rng(seed)
    pixel = np.arange(int(np.max([curve["x"], curve["y"]])) + 11)
    across = np.exp(-((pixel - np.asarray(curve["x"])[:, None]) ** 2) / (2 * S**2))
    down = np.exp(-((pixel - np.asarray(curve["y"])[:, None]) ** 2) / (2 * S**2))
    image = (down[:, :, None] * across[:, None, :]).reshape(len(curve), -1)
    image /= image.sum(axis=1, keepdims=True)
    found = []
    for _ in range(n_star // 100):
        flat = rng.normal(0, FLAT, (image.shape[1], 100))
        found.append((image @ flat).T)
    return np.concatenate(found)


def values(columns):
    """Columns as an array."""
    return np.column_stack(list(columns.itercols()))


@pytest.fixture(scope="module")
def stars():
    """Return the curve, its columns as an array, and the errors of 3000 stars without noise."""
    curve = drift()
    return curve, values(pattern_columns(curve)), errors_of_flat(curve, 3000)


def test_columns_have_the_covariance_of_stars_on_a_bad_flat(stars):
    """LC-06, LC-08: the covariance of 3000 stars is that of the columns, within its own error."""
    _, design, error = stars
    # 3000 stars of 7 independent pieces each: the rms is known to 1 / sqrt(2 x 21000) = 0.5 %.
    assert np.sqrt(np.mean(error**2)) == pytest.approx(RMS, rel=0.015)
    error = error - error.mean(axis=1, keepdims=True)
    true = error.T @ error / len(error) / RMS**2
    ours = design @ design.T
    share = np.trace(ours) / np.trace(true)
    assert 0.9 < share < 1.02
    # The correlation at each lag: known to 0.007 (21000 pieces), and 0.01 for what has no column.
    for lag in (0, 2, 5, 8, 12, 20, 40):
        there = np.mean(np.diagonal(true, lag))
        tolerance = 0.03 if lag else 0.1
        assert np.mean(np.diagonal(ours, lag)) == pytest.approx(there, abs=tolerance), lag
    # Along each column the stars scatter as it says: 3000 stars know a variance to 2.6 %.
    along = np.sum((error @ design) ** 2, axis=0) / len(error) / RMS**2
    assert along == pytest.approx(np.sum(design**2, axis=0) ** 2, rel=4 * 0.026)


def test_common_width_is_the_noise_of_the_flat(stars):
    """LC-06, LC-08: 40 stars tell sqrt(1 / 4 pi) FLATNOIS / s, beside a column of their own.

    40 stars with about 10 coefficients know it to 1 / sqrt(2 x 400) = 3.5 %, and noise of 2 ppt
    takes little of that; the root of n / (n - 2) adds 2.6 %.
    """
    _, design, error = stars
    rng = np.random.default_rng(5)
    air = rng.normal(size=N)
    own = rng.normal(0, 6e-3, (40, 1))
    curves = 1 + error[:40] + own * air + rng.normal(0, WHITE, (40, N))
    widths, n = trend_widths(
        curves,
        np.full(curves.shape, WHITE),
        np.column_stack([air, design]),
        groups=["airmass", *["pattern"] * design.shape[1]],
    )
    assert n == 40 and np.ptp(widths[1:]) == 0
    assert widths[1] == pytest.approx(RMS * np.sqrt(40 / 38), rel=3 * 0.035)
    assert widths[0] == pytest.approx(np.std(own), rel=0.1)


def test_no_error_of_the_flat_has_no_width(stars):
    """LC-06, LC-08: white noise alone, with errors that are right: a width far below the noise.

    40 stars with 2 ppt in 120 frames know a pattern's variance to (2 ppt)**2 / sum(column**2),
    about 0.2 ppt squared each, and 0.2 / (2 x 400)**(1/4) = 0.04 ppt together.
    """
    _, design, _ = stars
    white = np.random.default_rng(6).normal(1, WHITE, (40, N))
    names = ["pattern"] * design.shape[1]
    widths, _ = trend_widths(white, np.full(white.shape, WHITE), design, groups=names)
    assert widths[0] < 0.15e-3


def test_pulls_of_the_depth_are_one_with_the_pattern(stars):
    """LC-06, LC-09: 800 boxes: depth errors are right with the columns, far too small without.

    The width of 800 pulls is known to 1 / sqrt(1600) = 2.5 %, that of the pattern learned from 200
    others to 1.6 %: 3 % together.
    """
    _, design, error = stars
    rng = np.random.default_rng(7)
    box = np.zeros(N)
    box[35:85] = 1
    curves = 1 + error + rng.normal(0, WHITE, error.shape)
    names = ["pattern"] * design.shape[1]
    stated = np.full((200, N), WHITE)
    learned = trend_widths(curves[800:1000], stated, design, groups=names)[0]
    curves = curves[:800] - 0.01 * box

    def pulls(columns, widths):
        full = np.column_stack([np.ones(N), -box, columns])
        prior = np.diag(np.append([0, 0], widths**-2.0))
        covariance = np.linalg.inv(full.T @ full / WHITE**2 + prior)
        depth = covariance[1] @ full.T @ curves.T / WHITE**2
        return (depth - 0.01) / np.sqrt(covariance[1, 1])

    honest = pulls(design, learned)
    assert np.std(honest) == pytest.approx(1, abs=3 * 0.03)
    assert abs(np.mean(honest)) < 3 / np.sqrt(800)
    assert np.std(pulls(design[:, :0], learned[:0])) > 2


def test_no_columns_where_there_is_no_slow_noise():
    """LC-06, LC-08: fast or no drift, few epochs, and curves without place or width: none."""
    assert pattern_columns(drift()).colnames[0] == "pattern01"
    assert pattern_columns(drift(10.0)).colnames == []  # New pixels in each frame.
    assert pattern_columns(drift(0.0)).colnames == []  # Always the same: the star's level.
    for n, wanted in ((9, []), (10, ["pattern01"])):  # At two places, each for half of the time.
        few = drift(0.0, n=n)
        few["x"][n // 2 :] += 20
        assert pattern_columns(few).colnames == wanted, n
    for name in ("x", "y", "fwhm"):
        curve = drift()
        curve.remove_column(name)
        assert pattern_columns(curve).colnames == [], name
    curve = drift()
    curve["fwhm"] = np.nan
    assert pattern_columns(curve).colnames == []
    # One column for each five epochs at most, however many axes there are.
    fast = pattern_columns(drift(0.9))
    assert len(fast.colnames) == N // 5


def test_columns_are_nothing_where_nothing_is_fitted():
    """LC-06, LC-08: 0 in epochs that are not used, mean 0 in the others; the slowest first."""
    curve = drift()
    curve["flux"][7] = np.nan
    curve["x"][11] = np.nan
    used = np.arange(N) != 20
    columns = values(pattern_columns(curve, used=used))
    out = np.isin(np.arange(N), (7, 11, 20))
    assert np.all(columns[out] == 0) and np.all(np.any(columns[~out] != 0, axis=1))
    assert np.allclose(columns.mean(axis=0), 0, atol=1e-12)
    assert np.all(np.diff(np.sum(columns**2, axis=0)) < 0)
    # A star that was not used may be anywhere.
    curve["x"][20] = 1e6
    assert np.array_equal(values(pattern_columns(curve, used=used)), columns)


def test_sign_of_a_column_is_fixed():
    """LC-06, HD-07: the largest value of each column is positive, and each call gives the same."""
    columns = values(pattern_columns(drift()))
    assert np.array_equal(columns.max(axis=0), np.abs(columns).max(axis=0))
    assert np.array_equal(values(pattern_columns(drift())), columns)
    # Where the star is on the detector has no meaning.
    moved = drift()
    moved["x"] += 500
    assert np.allclose(values(pattern_columns(moved)), columns, atol=1e-8)


def test_night_learns_the_pattern_and_the_fit_has_it(stars):
    """LC-06, LC-08: from fluxes of 25 stars to the columns and priors of the target's fit.

    25 stars know the width to 4.5 %. Each is against the mean of the others, which has a 24th of
    their variance: 2 %.
    """
    curve, design, error = stars
    rng = np.random.default_rng(8)
    flux = 1e5 * (1 + error[1000:1026] + rng.normal(0, WHITE, (26, N)))
    solution = solve_ensemble(flux, WHITE * flux, exclude=[0])
    told = learn_trends(curve, solution)
    assert told["trend_stars"] == 25
    width = told["trends"]["pattern"]
    assert width == pytest.approx(RMS * np.sqrt(25 / 23), rel=3 * 0.05)
    curve = curve.copy()
    curve["flux"] = 1 + error[2000] + rng.normal(0, WHITE, N)
    used = np.ones(N, bool)
    outside = ~np.isin(np.arange(N), np.arange(35, 85))
    known = TransitOptions(t0=2460000.5, period=2.0)
    for trends, there in ((told["trends"], True), ({"time": 1e-4}, False), ({}, False)):
        curve.meta["trends"] = trends
        base = transit_baseline(curve, used=used, outside=outside, options=known)
        assert bool(base.pattern) == there
        assert len(base.widths) == len(base.columns.colnames)
        assert not set(base.pattern) & set(base.chosen.colnames)
    curve.meta["trends"] = told["trends"]
    # Whatever else the target follows, its noise of the flat is that of all stars.
    curve["flux"] += 0.02 * np.linspace(-1, 1, N)
    base = transit_baseline(curve, used=used, outside=outside, options=known)
    assert base.reason.startswith("free") and np.isinf(base.widths["time"])
    assert {base.widths[name] for name in base.pattern} == {width}
    assert len(base.pattern) == design.shape[1]
