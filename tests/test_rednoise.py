"""Red noise: beta is 1 for white noise and what theory says for red noise of known kind."""

import re

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.stats import binned_statistic

from datared.rednoise import red_noise

NIGHTS = 60


def times(kind):
    """Times (days): 142 frames of 3 min, with or without a gap of 47 min, and 120 of 1.5 min."""
    if kind == "short":
        return 2460000.5 + np.arange(120) * 1.5 / 1440
    time = 2460000.5 + np.arange(142) * 3.0 / 1440
    return time + (np.arange(142) > 50) * 47 / 1440 if kind == "gap" else time


def fitted(time, order):
    """Columns of a polynomial beside the constant, and the projection on all of them."""
    t = (time - time.mean()) / np.ptp(time)
    columns = np.column_stack([t**k for k in range(order + 1)])
    return columns[:, 1:], columns @ np.linalg.pinv(columns)


@pytest.mark.parametrize(("kind", "order"), [("gap", 0), ("long", 5), ("short", 5)])
def test_beta_of_white_noise_is_one(kind, order):
    """LC-06: beta of white noise is 1, also of what a fit of slow columns left, and in gaps.

    60 nights, each with beta known to 0.10 to 0.17: the root mean square is known to 0.02.
    """
    rng = np.random.default_rng(11)
    time = times(kind)
    columns, hat = fitted(time, order)
    found, plain = [], []
    for _ in range(NIGHTS):
        residual = rng.normal(0, 0.003, len(time))
        residual -= hat @ residual
        found.append(red_noise(time, residual, columns=columns))
        plain.append(red_noise(time, residual).beta)
    beta = np.array([noise.beta for noise in found])
    error = found[0].beta_err
    # The mean of beta itself lies below 1 by half of its variance.
    rms = np.sqrt(np.mean(beta**2))
    assert rms == pytest.approx(1.0, abs=4 * error / np.sqrt(NIGHTS))
    assert np.std(beta) == pytest.approx(error, rel=0.4)  # Known to 9 %.
    if order == 5:
        # Whoever forgets the fit finds white noise to be better than white.
        assert np.sqrt(np.mean(np.square(plain))) < 1 - 4 * error / np.sqrt(NIGHTS)


@pytest.mark.parametrize("memory", [6.0, 30.0])
def test_beta_of_red_noise_of_known_kind(memory):
    """LC-06: noise with an exponential memory (minutes) beside white noise, from its covariance."""
    rng = np.random.default_rng(3)
    time = times("long")
    n = len(time)
    covariance = 0.002**2 * toeplitz(np.exp(-np.arange(n) * 3.0 / memory))
    covariance += 0.003**2 * np.eye(n)
    centre = np.eye(n) - 1 / n
    known = centre @ covariance @ centre
    wanted = []
    for width in np.linspace(10, 30, 9):
        for start in (0, 0.25, 0.5, 0.75):
            number = np.floor(np.arange(n) * 3.0 / width + start + 1e-6).astype(int)
            share = (number[:, None] == number) / np.bincount(number)[number]
            wanted.append(np.sum(share * known) / (len(np.unique(number)) - 1))
    wanted = np.sqrt(np.mean(wanted) / (np.trace(known) / (n - 1)))
    draws = rng.multivariate_normal(np.zeros(n), covariance, NIGHTS)
    beta = np.array([red_noise(time, row - row.mean()).beta for row in draws])
    assert wanted > 1.2
    # The scatter of beta itself tells how well its mean is known; 3 % for the ratio's curvature.
    limit = 4 * np.std(beta) / np.sqrt(NIGHTS) + 0.03
    assert np.sqrt(np.mean(beta**2)) == pytest.approx(wanted, abs=limit)


def test_scatter_of_bins_is_that_of_scipy():
    """Independent: equal bins of 10 points, by scipy; the expectation has the factor of M bins."""
    time = np.arange(120) / 1440
    residual = np.random.default_rng(2).normal(0, 1, 120)
    residual -= residual.mean()
    noise = red_noise(time, residual, widths=(10, 10))
    k = int(np.flatnonzero(noise.used)[0])
    assert noise.widths[k] == 10 and noise.n_bins[k] == 13  # 12 bins, and 13 from other starts.
    rms = []
    for start in (0.0, 0.25, 0.5, 0.75):
        edges = (np.arange(14) - start) * 10 - 1e-3
        mean, count = (
            binned_statistic(np.arange(120.0), residual, how, edges)[0] for how in ("mean", "count")
        )
        rms.append(np.nansum(count * mean**2) / 120)
    assert noise.scatter[k] == pytest.approx(np.sqrt(np.mean(rms)), rel=1e-6)
    assert noise.point_scatter == pytest.approx(np.std(residual, ddof=1))
    # 12.75 bins on average, and 9.4 points in each: sigma / sqrt(N) times sqrt((M - 1) / M).
    wanted = noise.point_scatter / np.sqrt(120 / 12.75) * np.sqrt(11.75 / 12.75)
    assert noise.expected[k] == pytest.approx(wanted, rel=1e-6)
    assert noise.beta == pytest.approx(noise.scatter[k] / noise.expected[k])


def test_slow_wave_raises_beta_and_a_fit_of_it_does_not():
    """A wave of one hour is red; once it is fitted, the rest is white."""
    time = times("long")
    wave = 0.004 * np.sin(2 * np.pi * time * 24)
    residual = np.random.default_rng(5).normal(0, 0.003, len(time))
    red, white = red_noise(time, residual + wave), red_noise(time, residual)
    assert red.beta > 1.5 and abs(white.beta - 1) < 3 * white.beta_err
    # Averages over 20 min keep sinc(1/3) = 0.83 of the wave, those over a full hour nothing.
    kept = 0.004**2 / 2 * 0.83**2 + 0.003**2 / (20 / 3)
    wanted = np.sqrt(kept / ((0.004**2 / 2 + 0.003**2) / (20 / 3)))
    ratio = red.scatter / red.expected
    at = {width: ratio[np.argmin(abs(red.widths - width))] for width in (20, 60)}
    assert at[20] == pytest.approx(wanted, abs=3 * white.beta_err)
    assert at[60] < 0.75 * at[20]


def test_nan_order_and_repeats_do_not_matter():
    """Points without a value do not count; the order of the points is nothing; same every time."""
    time = times("gap")
    residual = np.random.default_rng(6).normal(0, 0.003, len(time))
    columns = np.column_stack([time - time[0], np.where(time > time[70], 1.0, 0.0)])
    whole = red_noise(time[3:], residual[3:], columns=columns[3:])
    residual[:3] = np.nan
    mixed = np.random.default_rng(1).permutation(len(time))
    again = red_noise(time[mixed], np.ma.masked_invalid(residual[mixed]), columns=columns[mixed])
    assert again.beta == pytest.approx(whole.beta, rel=1e-9)
    assert again.beta_err == pytest.approx(whole.beta_err, rel=1e-9)


@pytest.mark.parametrize(
    ("time", "residual", "reason"),
    [
        ([], [], "no point is finite"),
        ([1.0, 1.0], [0.1, 0.2], "2 points of one time"),
        (np.arange(8) / 1440, np.arange(8) - 3.5, "8 points in 7 min.*make no 3 bins of 10 to 30"),
        (np.arange(20) / 48, np.arange(20) - 9.5, "one in 30.0 min, make no"),
        (np.arange(90) / 1440, np.zeros(90), "do not scatter"),
    ],
)
def test_red_noise_that_cannot_be_told_says_why(time, residual, reason):
    """Too few points, bins without company, or no scatter: beta is NaN, with the reason."""
    noise = red_noise(time, residual)
    assert np.isnan(noise.beta) and np.isnan(noise.beta_err)
    assert re.search(reason, noise.reason), noise.reason


def test_fit_that_leaves_nothing_is_told():
    """Five points and six columns: the reason is the fit, not that nothing scatters."""
    columns = np.random.default_rng(0).normal(size=(5, 6))
    noise = red_noise(np.arange(5) / 1440, np.arange(5.0), columns=columns)
    assert np.isnan(noise.beta) and noise.reason.startswith("5 points, of which a fit of 5 columns")


def test_red_noise_refuses_wrong_shapes():
    """Shapes that differ and widths out of order are refused with what was found."""
    with pytest.raises(ValueError, match=r"\(3,\) and residual \(2,\)"):
        red_noise([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="two positive numbers in order"):
        red_noise([1, 2, 3], [1, 2, 3], widths=(30, 10))
    with pytest.raises(ValueError, match="two positive numbers in order"):
        red_noise([1, 2, 3], [1, 2, 3], widths=(10, np.inf))
    with pytest.raises(ValueError, match=r"columns \(2,\) must be \(n, p\) with n = 3"):
        red_noise([1, 2, 3], [1, 2, 3], columns=[1, 2])
