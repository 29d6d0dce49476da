"""Combination of frames: exact where it can be, right on average where it is noise."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import sigma_clip

from datared.combine import combine
from datared.errors import DataredWarning, FrameError


def noise(n, shape=(100, 100), sigma=1.0, level=0.0, seed=1):
    """Gaussian frames."""
    return np.random.default_rng(seed).normal(level, sigma, (n, *shape)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 17])
def test_median_mean_sum_equal_numpy(n):
    """Without clip and masks the results are numpy's."""
    stack = noise(n, level=1000)
    np.testing.assert_allclose(combine(stack).data, np.median(stack, axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        combine(stack, method="mean").data, stack.mean(axis=0, dtype=float), rtol=1e-6
    )
    np.testing.assert_allclose(
        combine(stack, method="sum").data, stack.sum(axis=0, dtype=float), rtol=1e-6
    )


@pytest.mark.parametrize("clip", [3.0, (2.5, 4.0)])
def test_clip_equals_astropy(clip):
    """One round of the clip is that of astropy.stats.sigma_clip with median and mad_std."""
    stack = noise(15)
    stack[3, :50] += 40
    low, high = (clip, clip) if np.isscalar(clip) else clip
    expected = sigma_clip(
        stack, sigma_lower=low, sigma_upper=high, maxiters=1, axis=0,
        cenfunc="median", stdfunc="mad_std",
    )  # fmt: skip
    result = combine(stack, method="mean", clip=clip, max_iterations=1)
    # Values within rounding of the limit may differ: fewer than one pixel in a thousand.
    assert np.mean(result.count != expected.count(axis=0)) < 1e-3
    same = result.count == expected.count(axis=0)
    np.testing.assert_allclose(result.data[same], expected.mean(axis=0).data[same], atol=1e-5)


def test_clip_is_iterated():
    """Rounds go on with what is left, as a plain loop over numpy's medians does."""
    stack = noise(12, (60, 60), seed=3)
    stack[2] += 9
    kept = np.ma.masked_array(stack.astype(float))
    for _ in range(5):
        middle = np.ma.median(kept, axis=0)
        scatter = 1.4826 * np.ma.median(abs(kept - middle), axis=0)
        kept = np.ma.masked_where(abs(kept - middle) > 3 * scatter, kept)
    result = combine(stack, method="mean", clip=3)
    assert np.mean(result.count != kept.count(axis=0)) < 1e-3


def test_cosmic_in_10_frames():
    """One hit of 59000 ADU in ten frames is gone: within 1 sigma of the truth, not 5900 off."""
    stack = noise(10, (32, 32), sigma=10, level=1000)
    stack[4, 10, 10] += 59_000
    for options in ({}, {"method": "mean", "clip": 5}):
        result = combine(stack, **options)
        assert abs(result.data[10, 10] - 1000) < 10
        assert result.uncertainty[10, 10] < 10


def test_unknown_kw_raises():
    """A misspelt option is an error, as is an unknown value."""
    with pytest.raises(TypeError):
        combine(noise(3), signma_clip=3)
    for options in ({"method": "average"}, {"scale": "mean"}, {"clip": -1}, {"errors": "all"}):
        with pytest.raises(ValueError):
            combine(noise(3), **options)
    with pytest.raises(ValueError, match="mean"):
        combine(noise(3), weights=[1, 2, 3])


def test_no_frame_is_a_named_error_and_one_frame_is_returned():
    """Zero frames raise FrameError; one comes back as it was."""
    with pytest.raises(FrameError, match="no frame"):
        combine([])
    frame = noise(1)[0]
    result = combine([frame])
    np.testing.assert_array_equal(result.data, frame)
    assert result.n_frames == 1 and np.isnan(result.uncertainty).all()


def test_clip_of_two_frames_warns_and_does_nothing():
    """Two values cannot outvote each other (F19)."""
    stack = noise(2)
    with pytest.warns(DataredWarning, match="three"):
        result = combine(stack, clip=3)
    np.testing.assert_allclose(result.data, stack.mean(axis=0), atol=1e-6)


def test_quantised_values_are_not_clipped_away():
    """Whole numbers with a scatter below one step keep nearly all their values."""
    stack = np.rint(noise(9, sigma=0.6, level=500)).astype(np.uint16)
    for frames in (stack, stack.astype(np.float32)):
        result = combine(frames, method="mean", clip=5)
        # P(|x| > 5 * 0.74) is 1e-9 for sigma = 0.6 and its rounding.
        assert result.count.min() == 9
        assert abs(result.data.mean() - stack.mean()) < 1e-4


@pytest.mark.parametrize("n", [5, 7, 10, 20])
@pytest.mark.parametrize(
    "options",
    [{}, {"method": "mean"}, {"method": "mean", "clip": 3}, {"clip": 3}, {"method": "sum"}],
    ids=lambda o: "-".join(map(str, o.values())) or "median",
)
def test_uncertainty_within_3_percent_of_monte_carlo(n, options):
    """Mean uncertainty over standard deviation of the result: 40000 pixels tell it to 0.4 %."""
    result = combine(noise(n, (200, 200), sigma=7, level=100, seed=n), **options)
    assert 0.97 < result.uncertainty.mean(dtype=float) / result.data.std(dtype=float) < 1.03


@pytest.mark.parametrize("sigma", [2.0, 3.0, 6.0])
def test_uncertainty_of_whole_numbers(sigma):
    """Counts with two steps of noise and more: their rounding (1/12) is noise too."""
    stack = np.rint(noise(5, (200, 200), sigma=sigma, level=500, seed=4)).astype(np.uint16)
    result = combine(stack)
    assert 0.95 < result.uncertainty.mean(dtype=float) / result.data.std(dtype=float) < 1.05


def test_uncertainty_of_equal_whole_numbers_is_not_zero():
    """A pixel that reads the same in every frame still has the error of rounding."""
    stack = np.full((9, 4, 4), 503, np.uint16)
    stack[:4, 0, 0] = 487, 489, 491, 497
    sigma = combine(list(stack), clip=5).uncertainty
    assert sigma.min() >= 0.99 / np.sqrt(12 * 9)
    assert sigma[1, 1] == pytest.approx(1 / np.sqrt(12 * 9), rel=0.01)


@pytest.mark.parametrize("floor", [0.5, 1.0, 4.0])
def test_uncertainty_with_a_floor_of_the_scatter(floor):
    """A floor near the noise makes the clip milder; the uncertainty knows."""
    for method in ("median", "mean"):
        stack = noise(5, (200, 200), sigma=7, seed=8)
        result = combine(stack, method=method, clip=3, floor=7 * floor)
        assert 0.97 < result.uncertainty.mean(dtype=float) / result.data.std(dtype=float) < 1.03


def test_uncertainty_from_known_errors():
    """Propagated errors: a mean of unequal frames, by number and by uncertainty planes."""
    sigma = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    stack = noise(5, (200, 200)) * sigma[:, None, None]
    weights = 1 / sigma**2
    expected = weights.sum() ** -0.5
    result = combine(stack, method="mean", weights=weights, errors=sigma)
    np.testing.assert_allclose(result.uncertainty, expected, rtol=1e-5)
    assert abs(result.data.std() / expected - 1) < 0.015  # 4 sigma for 40000 pixels
    frames = [
        CCDData(x, unit="adu", uncertainty=StdDevUncertainty(np.full(x.shape, s)))
        for x, s in zip(stack, sigma, strict=True)
    ]
    planes = combine(frames, method="mean", weights=weights, errors="input")
    np.testing.assert_allclose(planes.uncertainty, result.uncertainty, rtol=1e-5)
    scatter = combine(stack, method="mean", weights=weights)
    assert abs(scatter.uncertainty.mean() / expected - 1) < 0.02
    with pytest.raises(ValueError, match="no uncertainty"):
        combine(stack, errors="input")


def test_weights_are_renormalised_where_masked_or_clipped():
    """The weight of a lost value does not pull the mean to zero."""
    stack = np.full((6, 4, 4), 100, np.float32) + np.arange(6, dtype=np.float32)[:, None, None]
    stack[0, 0, 0] = np.nan
    stack[5, 1, 1] = 1e5
    weights = np.array([4.0, 1, 1, 1, 1, 2])
    result = combine(stack, method="mean", weights=weights, clip=10)
    assert result.data[0, 0] == pytest.approx(np.average(stack[1:, 0, 0], weights=weights[1:]))
    assert result.data[1, 1] == pytest.approx(np.average(stack[:5, 1, 1], weights=weights[:5]))
    assert result.count[0, 0] == result.count[1, 1] == 5


def test_masks_nan_and_infinities_are_left_out():
    """A masked, NaN or infinite value is not used; where none is left the result is masked NaN."""
    stack = noise(4, (8, 8), level=50)
    frames = [CCDData(x.copy(), unit="adu", mask=np.zeros((8, 8), bool)) for x in stack]
    frames[0].mask[2, 2] = True
    frames[1].data[3, 3], frames[2].data[3, 3] = np.nan, np.inf
    for frame in frames:
        frame.mask[5, 5] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = combine(frames)
    assert result.data[2, 2] == pytest.approx(np.median(stack[1:, 2, 2]))
    assert result.data[3, 3] == pytest.approx(np.median(stack[[0, 3], 3, 3]))
    assert result.mask[5, 5] and np.isnan(result.data[5, 5]) and result.mask.sum() == 1
    assert result.count[3, 3] == 2
    total = combine(frames, method="sum")
    assert total.data[2, 2] == pytest.approx(4 * stack[1:, 2, 2].mean(), rel=1e-6)


def test_scale_by_median():
    """Frames of different level agree after scaling, and the level is their mean."""
    levels = [10.0, 20.0, 30.0]
    result = combine([np.full((5, 5), x) for x in levels], scale="median")
    np.testing.assert_allclose(result.data, 20.0, rtol=1e-6)
    with pytest.raises(FrameError, match="median"):
        combine([np.zeros((5, 5)), np.ones((5, 5))], scale="median")


def test_different_shapes_are_refused():
    """Also a single row, which numpy would repeat, with both names and shapes."""
    with pytest.raises(FrameError, match=r"\(4, 4\).*\(1, 4\)"):
        combine([np.ones((4, 4)), np.ones((1, 4))])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_files_equal_arrays(tmp_path, dtype):
    """Files of any type, also unsigned and compressed, give what the arrays give."""
    rng = np.random.default_rng(3)
    top = 250 if dtype == "uint8" else 30_000
    if dtype == "uint16":
        top = 65_000
    stack = rng.integers(0, top, (5, 37, 41)).astype(dtype)
    paths = [tmp_path / f"{i}.fits" for i in range(5)]
    for path, frame in zip(paths, stack, strict=True):
        fits.writeto(path, frame)
    zipped = tmp_path / "0.fits.gz"
    fits.writeto(zipped, stack[0])
    np.testing.assert_array_equal(combine(paths).data, np.median(stack, axis=0))
    again = combine([zipped, *paths[1:]])
    np.testing.assert_array_equal(again.data, np.median(stack, axis=0))


def test_memory_limit_and_threads_do_not_change_the_result(tmp_path):
    """Bands of one row on one thread give the same bytes as one band."""
    stack = (noise(6, (53, 31), sigma=5, level=300)).astype(np.uint16)
    paths = [tmp_path / f"{i}.fits" for i in range(6)]
    for path, frame in zip(paths, stack, strict=True):
        fits.writeto(path, frame)
    one = combine(paths, method="mean", clip=3)
    other = combine(paths, method="mean", clip=3, memory_limit=6 * 31 * 12, threads=1)
    for name in ("data", "uncertainty", "count", "mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_uint16_never_wraps(tmp_path):
    """100 - 110 is -10: values become float32 before anything is done with them."""
    from datared.calibration import master_bias, master_dark

    for name, value in (("bias", 110), ("dark", 100)):
        fits.writeto(tmp_path / f"{name}.fits", np.full((16, 16), value, np.uint16))
    bias = master_bias([tmp_path / "bias.fits"])
    dark = master_dark([tmp_path / "dark.fits"], bias=bias, exptime=1.0)
    np.testing.assert_array_equal(dark.data, -10)
    assert dark.data.dtype == np.float32
