"""Trends learned from comparison stars: right widths, honest errors, quiet nights lose nothing."""

import warnings

import numpy as np
import pytest

from datared.baselines import baseline_columns
from datared.detrending import choose_columns
from datared.ensemble import solve_ensemble
from datared.errors import DataredWarning
from datared.trends import FEWEST_STARS, LEARNED, learn_trends, trend_chance, trend_widths
from tests.test_detrending import DEPTH, NOISE, night

ALL = {"flip": 6e-3, "time": 5e-4, "airmass": 8e-4, "fwhm": 7e-4, "x": 5e-4, "y": 5e-4, "sky": 4e-4}


def stars_of(curve, widths, *, n=12, seed=0):
    """Curves of n stars that follow the columns of a night, each with its own coefficients."""
    rng = np.random.default_rng([seed, 7])
    columns = baseline_columns(curve, names=LEARNED)
    design = np.column_stack(list(columns.columns.values()))
    width = np.array([widths.get(name, 0.0) for name in columns.colnames])
    noise = NOISE * rng.uniform(0.6, 2, (n, 1))
    curves = 1 + (rng.normal(size=(n, len(width))) * width) @ design.T
    curves += rng.normal(size=curves.shape) * noise
    # Errors are too small by 15 %, as those of the target: the jitter has to find the rest.
    return columns, design, width, curves, np.broadcast_to(0.85 * noise, curves.shape)


def depth_of(curve, shape, design, widths):
    """Depth of the known shape and its error, with normal priors of the other coefficients."""
    flux, error = np.array(curve["flux"]), np.array(curve["flux_err"])
    full = np.column_stack([np.ones(len(flux)), -shape, design])
    prior = np.diag(np.append([1e-6, 1e-6], np.minimum(widths, 1.0) ** -2.0))
    variance = error**2
    for _ in range(8):
        covariance = np.linalg.inv((full.T / variance) @ full + prior)
        values = covariance @ ((full.T / variance) @ flux)
        free = np.sum(1 - np.diag(prior) * np.diag(covariance))
        scatter = np.sum((flux - full @ values) ** 2) / (len(flux) - free)
        variance = error**2 + max(scatter - np.mean(error**2), 0.0)
    return values[1], np.sqrt(covariance[1, 1])


def simulated(seed, widths, *, targets=1, odd=0.0, flip_at=0.55):
    """A night whose targets follow the columns as its comparison stars do, `odd` more in airmass.

    Returns the curve of each target, outside, shape, columns, design, and the curves and errors of
    the comparison stars.
    """
    curve, outside, shape = night(seed, flip_at=flip_at)
    columns, design, width, curves, errors = stars_of(curve, widths, seed=seed)
    rng = np.random.default_rng([seed, 8])
    found = []
    for _ in range(targets):
        own = rng.normal(size=len(width)) * width
        own[columns.colnames.index("airmass")] += odd
        target = curve.copy()
        light = (1 - DEPTH * shape) * (1 + design @ own)
        target["flux"] = light + rng.normal(size=len(curve)) * NOISE
        found.append(target)
    return found, outside, shape, columns, design, (curves, errors)


def test_widths_are_those_of_the_truth():
    """LC-08: over 10 nights of 30 stars each width is right, and what is 0 stays near 0.

    The width of 30 stars is known to 1 / sqrt(60) = 13 %, the mean of 10 to 4 %; the noise of a
    coefficient (0.4 ppt of 130 points of 0.4 %) adds little to 2 ppt and more.
    """
    true = {"flip": 4e-3, "airmass": 2e-3, "y": 3e-3}
    found = []
    for seed in range(10):
        curve, _, _ = night(seed)
        columns, design, width, curves, errors = stars_of(curve, true, n=30, seed=seed)
        widths, n = trend_widths(curves, errors, design)
        assert n == 30 and np.all(widths > 0)
        found.append(widths)
    found = np.sqrt(np.mean(np.square(found), axis=0))
    there = width > 0
    assert found[there] == pytest.approx(width[there], rel=0.15)
    assert np.all(found[~there] < 5e-4), dict(zip(columns.colnames, found, strict=True))


def test_faint_stars_tell_the_width_too():
    """LC-08: trends below the noise of each star are told from what is left to chance (S).

    A coefficient has noise of 6 ppt / sqrt(130) = 0.53 ppt, its width is 0.7 ppt: 60 stars know the
    width to 14 %, and 8 nights of them to 5 %. Without S the width would fall to 0.
    """
    found = []
    for seed in range(8):
        rng = np.random.default_rng([seed, 9])
        columns = rng.normal(size=(130, 2))
        answers = rng.normal(0, 0.7e-3, (60, 1))
        curves = 1 + answers * columns[:, 0] + rng.normal(0, 6e-3, (60, 130))
        found.append(trend_widths(curves, np.full(curves.shape, 6e-3), columns)[0])
    assert np.sqrt(np.mean(np.square(found), axis=0))[0] == pytest.approx(0.7e-3, rel=0.16)


def test_few_stars_and_missing_values():
    """LC-08, E37: of fewer than 8 stars nothing is told; NaN and a star of few epochs cost none."""
    curve, _, _ = night(1)
    _, design, _, curves, errors = stars_of(curve, ALL, n=FEWEST_STARS - 1)
    widths, n = trend_widths(curves, errors, design)
    assert n == FEWEST_STARS - 1 and np.isnan(widths).all()
    _, design, _, curves, errors = stars_of(curve, ALL, n=30)
    whole = trend_widths(curves, errors, design)[0]
    curves[:, ::10] = np.nan
    curves[3, 12:] = np.nan  # 10 epochs for 8 coefficients
    errors = np.array(errors)
    errors[5, 4] = -1.0
    widths, n = trend_widths(curves, errors, design)
    assert n == 29 and np.isfinite(widths).all()
    assert widths[0] == pytest.approx(whole[0], rel=0.2)
    assert trend_widths(np.empty((0, 130)), np.empty((0, 130)), design)[1] == 0
    assert trend_widths(curves, errors, np.empty((130, 0)))[0].size == 0
    with pytest.raises(ValueError, match=r"columns \(7, 2\) \(n_epoch, k\)"):
        trend_widths(curves, errors, np.ones((7, 2)))


@pytest.mark.parametrize(
    ("widths", "flip_at"),
    [({}, 2), ({"flip": 6e-3, "time": 3e-3}, 0.55), (ALL, 0.55)],
    ids=["quiet", "flip and slope", "all"],
)
def test_pulls_of_the_depth_are_one_with_learned_widths(widths, flip_at):
    """LC-08, LC-10: over 15 nights the error of the depth is right, with trends and without.

    Each night has 8 targets. The width of 120 pulls is known to 6.5 %, their mean to 0.09. What 12
    stars know of a width (20 %) is shared by a night: 5 % of 15 nights, 8 % of the pulls in all.
    """
    pulls, errors = [], []
    for seed in range(15):
        targets, _, shape, _, design, stars = simulated(seed, widths, targets=8, flip_at=flip_at)
        learned = trend_widths(*stars, design)[0]
        for curve in targets:
            depth, error = depth_of(curve, shape, design, learned)
            pulls.append((depth - DEPTH) / error)
            errors.append(error)
    assert abs(np.mean(pulls)) < 0.27 and 0.76 < np.std(pulls) < 1.24
    if not widths:
        # Nothing is lost: dip and ground of 65 epochs each, errors of 0.3 % (0.53 ppt).
        assert np.mean(errors) < 0.6e-3


def test_choosing_columns_and_being_sure_of_them_is_not_enough():
    """LC-08: why trends are learned: with a flip and a slope, chosen columns have wide pulls."""
    pulls = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataredWarning)
        for seed in range(24):
            (curve,), outside, shape, *_ = simulated(seed, {"flip": 6e-3, "time": 3e-3})
            names = choose_columns(curve, outside=outside, names=LEARNED).meta["chosen"]
            columns = baseline_columns(curve, names=names)
            design = np.column_stack(list(columns.columns.values()))
            depth, error = depth_of(curve, shape, design, np.ones(len(names)))
            pulls.append((depth - DEPTH) / error)
    assert np.std(pulls) > 1.2  # 1.6 over 150 nights


def test_target_unlike_its_comparison_stars_is_found():
    """LC-08: of targets like the others 5 % look unlike, of those with a trend of 8 ppt all."""
    like, unlike = [], []
    for seed in range(20):
        targets, outside, _, columns, design, stars = simulated(seed, ALL, targets=3)
        learned = trend_widths(*stars, design)[0]
        widths = dict(zip(columns.colnames, learned, strict=True))
        for curve in targets:
            like.append(trend_chance(curve, columns, widths, outside=outside))
        (curve,) = simulated(seed, ALL, odd=8e-3)[0]
        unlike.append(trend_chance(curve, columns, widths, outside=outside))
    # 5 % of 60 are 3 +- 1.7; a mean chance of 60 is 0.5 +- 0.04; 12 stars leave widths unsure.
    assert np.sum(np.array(like) < 0.05) <= 8 and 0.35 < np.mean(like) < 0.65
    assert np.mean(np.array(unlike) < 0.05) > 0.9
    few = np.zeros(len(curve), bool)
    few[:15] = True
    assert trend_chance(curve, columns, widths, outside=few) == 1.0


def test_learning_does_not_look_at_the_target():
    """LC-03, LC-08: whatever the target does, the same is learned; wild values have no vote."""
    curve, _, _ = night(3)
    _, _, _, curves, _ = stars_of(curve, ALL, n=12)
    flux = np.vstack([curve["flux"], curves]) * 1e5
    flux[4, 50] *= 3

    def learned(first):
        flux[0] = first * 1e5
        side = np.asarray(curve["flipped"])
        solution = solve_ensemble(flux, 0.003 * np.abs(flux), exclude=[0], side=side)
        return learn_trends(curve, solution)

    usual = learned(np.asarray(curve["flux"]))
    assert usual["trend_stars"] == 12 and set(LEARNED) <= set(usual["trends"])
    assert learned(0.5 + np.arange(130) / 130) == usual
    assert 2e-3 < usual["trends"]["flip"] < 1.2e-2
    curve["flux"] = np.nan
    assert learned(np.ones(130)) == {"trends": {}, "trend_stars": 0}
