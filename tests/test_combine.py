"""Combination of frames: exact where it can be, right on average where it is noise."""

import subprocess
import sys
import warnings

import ccdproc
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import mad_std, sigma_clip
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from datared import rows
from datared.combine import combine
from datared.errors import DataredWarning, FrameError
from datared.rows import FileRows, sample_bands


def noise(n, shape=(100, 100), sigma=1.0, level=0.0, seed=1):
    """Gaussian frames."""
    return np.random.default_rng(seed).normal(level, sigma, (n, *shape)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 17])
def test_median_mean_sum_equal_numpy(n):
    """000-11, 003-07: without clip and masks the results are numpy's."""
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
    """PR-02: a hit of 59000 ADU in one of ten frames leaves less than 1 sigma, not 5900 ADU."""
    stack = noise(10, (32, 32), sigma=10, level=1000)
    stack[4, 10, 10] += 59_000
    for options in ({}, {"method": "mean", "clip": 5}):
        result = combine(stack, **options)
        assert abs(result.data[10, 10] - 1000) < 10
        assert result.uncertainty[10, 10] < 10


def test_unknown_kw_raises():
    """PR-02: a misspelt option is an error, as is an unknown value."""
    with pytest.raises(TypeError):
        combine(noise(3), signma_clip=3)
    for options in (
        {"method": "average"}, {"scale": "mean"}, {"clip": -1}, {"errors": "all"},
        {"extrema": (2, 1)}, {"extrema": (0.5, 0)}, {"limits": (5, 1)},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            combine(noise(3), **options)
    with pytest.raises(ValueError, match="mean"):
        combine(noise(3), weights=[1, 2, 3])


def test_no_frame_is_a_named_error_and_one_frame_is_returned():
    """PR-02, E15: zero frames raise FrameError; one comes back as it was."""
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
    [
        {},
        {"method": "mean"},
        {"method": "mean", "clip": 3},
        {"clip": 3},
        {"method": "sum"},
        {"extrema": (1, 1), "method": "mean"},
        {"method": "mean", "clip": (4, 2)},
    ],
    ids=lambda o: "-".join(map(str, o.values())) or "median",
)
def test_uncertainty_within_3_percent_of_monte_carlo(n, options):
    """PR-13: stated over true standard deviation; 40000 pixels tell it to 0.4 %."""
    result = combine(noise(n, (200, 200), sigma=7, level=100, seed=n), **options)
    assert 0.97 < result.uncertainty.mean(dtype=float) / result.data.std(dtype=float) < 1.03


@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5, 2.0, 6.0])
@pytest.mark.parametrize("options", [{}, {"method": "mean", "clip": 5}], ids=["median", "mean"])
def test_uncertainty_of_whole_numbers(sigma, options):
    """Counts with a step of noise and more: their rounding, also of the median, is noise too."""
    # The true level lies anywhere between two counts, as it does over a sensor.
    level = np.random.default_rng(1).uniform(500, 501, (200, 200)).astype(np.float32)
    stack = np.rint(noise(7, (200, 200), sigma=sigma, seed=4) + level).astype(np.uint16)
    result = combine(stack, **options)
    error = (result.data - level).std(dtype=float)
    # Below one step of noise many pixels are equal in all frames, and their scatter is zero.
    assert 0.97 < result.uncertainty.mean(dtype=float) / error < (1.03 if sigma >= 1 else 1.06)


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
    """003-07: the weight of a lost value does not pull the mean to zero."""
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
    """003-07: frames of different level agree after scaling, and the level is their mean."""
    levels = [10.0, 20.0, 30.0]
    result = combine([np.full((5, 5), x) for x in levels], scale="median")
    np.testing.assert_allclose(result.data, 20.0, rtol=1e-6)
    with pytest.raises(FrameError, match="median"):
        combine([np.zeros((5, 5)), np.ones((5, 5))], scale="median")


def test_different_shapes_are_refused():
    """PR-14, E08: also a single row, which numpy would repeat, with both names and shapes."""
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
    scaled = combine(paths, scale="median").data
    np.testing.assert_allclose(scaled, combine(stack, scale="median").data, rtol=1e-6)


def test_memory_limit_and_threads_do_not_change_the_result(tmp_path):
    """PR-15: bands of one row on one thread give the same bytes as one band."""
    stack = (noise(6, (53, 31), sigma=5, level=300)).astype(np.uint16)
    paths = [tmp_path / f"{i}.fits" for i in range(6)]
    for path, frame in zip(paths, stack, strict=True):
        fits.writeto(path, frame)
    one = combine(paths, method="mean", clip=3)
    other = combine(paths, method="mean", clip=3, memory_limit=6 * 31 * 12, threads=1)
    for name in ("data", "uncertainty", "count", "mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_uint16_never_wraps(tmp_path):
    """HD-06, E19: 100 - 110 is -10; values become float32 before anything is done with them."""
    from datared.calibration import master_bias, master_dark

    for name, value in (("bias", 110), ("dark", 100)):
        fits.writeto(tmp_path / f"{name}.fits", np.full((16, 16), value, np.uint16))
    bias = master_bias([tmp_path / "bias.fits"])
    dark = master_dark([tmp_path / "dark.fits"], bias=bias, exptime=1.0)
    np.testing.assert_array_equal(dark.data, -10)
    assert dark.data.dtype == np.float32


def test_extrema_and_limits_leave_values_out():
    """003-07: the lowest and highest values go, and those outside a range, with any method."""
    stack = noise(9, (20, 20), level=100)
    ordered = np.sort(stack, axis=0)
    result = combine(stack, method="mean", extrema=(1, 2))
    np.testing.assert_allclose(result.data, ordered[1:7].mean(axis=0), rtol=1e-6)
    assert set(result.count.ravel()) == {6}
    result = combine(stack, extrema=(0, 4))
    np.testing.assert_allclose(result.data, np.median(ordered[:5], axis=0), rtol=1e-6)
    inside = np.ma.masked_outside(stack, 99.0, 101.5)
    result = combine(stack, method="mean", limits=(99.0, 101.5))
    np.testing.assert_array_equal(result.count, inside.count(axis=0))
    np.testing.assert_allclose(result.data, inside.mean(axis=0).filled(np.nan), rtol=1e-6)
    few = stack.copy()
    few[2:, 3, 3] = np.nan
    result = combine(few, extrema=(1, 1))
    assert result.mask[3, 3] and np.isnan(result.data[3, 3]) and result.mask.sum() == 1


def test_combine_options_have_effect():
    """003-07: every option changes the result of the same frames."""
    stack = noise(9, (30, 30), sigma=5, level=100, seed=2) * np.linspace(1, 1.2, 9)[:, None, None]
    stack[4, :5] += 300
    mean = {"method": "mean"}
    plain = combine(stack, **mean)
    options = (
        {"method": "median"}, {"method": "sum"}, mean | {"clip": 3}, mean | {"extrema": (1, 1)},
        mean | {"limits": (0, 200)}, mean | {"scale": "median"}, mean | {"weights": np.arange(9.0)},
        mean | {"clip": 3, "max_iterations": 1}, mean | {"clip": 3, "floor": 500.0},
        mean | {"clip": (3, 9)},
    )  # fmt: skip
    results = [plain.data, *(combine(stack, **o).data for o in options)]
    same = [
        (i, j)
        for i in range(11)
        for j in range(i)
        if np.allclose(results[i], results[j], rtol=1e-6)
    ]
    assert same == [(9, 0)]  # A clip with a floor above everything is a plain mean.
    assert not np.array_equal(
        combine(stack, **mean, errors=np.ones(9)).uncertainty, plain.uncertainty
    )


def test_ccdproc_is_wrong_on_the_same_frames():
    """The library that this room replaces: three faults, and the right numbers here."""
    stack = noise(10, (60, 60), sigma=10, level=1000)
    stack[3, 5, 5] += 60_000
    frames = [CCDData(x, unit="adu") for x in stack]
    # 1. A misspelt option is taken without a word, and has no effect.
    clip = {"method": "average", "sigma_clip": True, "sigma_clip_func": "median"}
    right, misspelt = (
        ccdproc.combine(frames, **clip, **{name: 1.0})
        for name in ("sigma_clip_high_thresh", "sigma_clip_high_tresh")
    )
    default = ccdproc.combine(frames, **clip)
    assert np.array_equal(misspelt.data, default.data)
    assert not np.array_equal(right.data, default.data)
    with pytest.raises(TypeError, match="clipp"):
        combine(frames, method="mean", clipp=3)
    # 2. Weights are not renormalised where a pixel is masked.
    frames[0].mask = np.zeros((60, 60), bool)
    frames[0].mask[7, 7] = True
    weights = np.array([10.0, *[1.0] * 9])
    theirs = ccdproc.combine(
        frames, method="average", weights=weights[:, None, None] * np.ones((60, 60))
    )
    ours = combine(frames, method="mean", weights=weights)
    expected = stack[1:, 7, 7].mean()
    assert abs(ours.data[7, 7] - expected) < 1e-3 < abs(theirs.data[7, 7] - expected)
    # 3. The uncertainty of a clipped mean and of a median is too low.
    clean = noise(5, (200, 200), sigma=10, level=1000, seed=6)
    for method, name in (("average", "mean"), ("median", "median")):
        theirs = ccdproc.combine([CCDData(x, unit="adu") for x in clean], method=method)
        ours = combine(clean, method=name)
        true = ours.data.std(dtype=float)
        assert theirs.uncertainty.array.mean() / true < 0.91
        assert 0.97 < ours.uncertainty.mean(dtype=float) / true < 1.03


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5)),
        elements=st.one_of(st.integers(-999, 999), st.just(np.nan)),
    )
)
@example(np.array([-5, 1, 1, 0, 0], np.float32).reshape(5, 1, 1))
def test_any_stack_equals_numpy(stack):
    """Median, mean and robust scatter of whatever values, with any that are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        median, mean = np.nanmedian(stack, axis=0), np.nanmean(stack, axis=0, dtype=float)
        limit = 3 * mad_std(stack, axis=0, ignore_nan=True)
    np.testing.assert_allclose(combine(stack).data, median, rtol=1e-6)
    np.testing.assert_allclose(combine(stack, method="mean").data, mean, rtol=1e-5, atol=1e-3)
    if len(stack) > 2:
        once = combine(stack, method="mean", clip=3, max_iterations=1, floor=0)
        kept = np.abs(stack - median) <= limit * (1 + 1e-6)
        enough = np.isfinite(stack).sum(axis=0) > 2
        np.testing.assert_array_equal(once.count[enough], kept.sum(axis=0)[enough])


def test_no_row_of_a_file_is_read_twice(tmp_path, monkeypatch):
    """Bands, and samples that are looked at first, read each byte of the pixels once."""
    stack = noise(4, (200, 50), sigma=5, level=300).astype(np.uint16)
    paths = [tmp_path / f"{i}.fits" for i in range(4)]
    for path, frame in zip(paths, stack, strict=True):
        fits.writeto(path, frame)
    read = []
    original = FileRows._read
    monkeypatch.setattr(
        FileRows,
        "_read",
        lambda self, raw, row: (read.append(raw.nbytes), original(self, raw, row)),
    )
    plain = combine(paths, method="mean", clip=3, memory_limit=1e5)
    assert sum(read) == stack.nbytes
    read.clear()
    sources = [FileRows(path) for path in paths]
    for source in sources:
        source.keep(sample_bands(source.shape, most=2000))
        assert len(source.kept) > 3
    np.testing.assert_array_equal(combine(sources, method="mean", clip=3).data, plain.data)
    assert sum(read) == stack.nbytes


@pytest.mark.parametrize(("shape", "limit"), [((1000, 1500), 64), ((40, 60_000), 100)])
def test_memory_stays_within_the_limit(tmp_path, shape, limit):
    """PR-15: 60 files that are 360 MB and more as float32 need less, results included."""
    frame = noise(1, shape, sigma=5, level=300)[0].astype(np.uint16)
    paths = [tmp_path / f"{i}.fits" for i in range(60)]
    fits.writeto(paths[0], frame)
    for path in paths[1:]:
        path.hardlink_to(paths[0])
    program = (
        "import resource, sys, numpy as np\n"
        "from datared.combine import combine\n"
        "combine(np.ones((60, 4, 4), np.uint16), method='mean', clip=3)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"result = combine(sys.argv[1:], method='mean', clip=3, memory_limit={limit}e6)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    if sys.platform != "linux":
        pytest.skip("the unit of ru_maxrss differs, and Windows has none")
    command = [sys.executable, "-c", program, *map(str, paths)]
    grown = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < limit


def test_compressed_files_do_not_count_as_memory(tmp_path):
    """HD-05: files packed by tiles or by gzip give the bytes of the plain ones, band by band."""
    stack = noise(3, (60, 80), sigma=5, level=300).astype(np.uint16)
    plain = combine(stack, memory_limit=1e5)
    for i, frame in enumerate(stack):
        fits.writeto(tmp_path / f"{i}.fits.gz", frame)
        fits.CompImageHDU(frame).writeto(tmp_path / f"{i}.fits.fz")
    for ending in ("fits.gz", "fits.fz"):
        sources = [FileRows(tmp_path / f"{i}.{ending}") for i in range(3)]
        assert all(source.unpacked is not None for source in sources)
        np.testing.assert_array_equal(combine(sources, memory_limit=1e5).data, plain.data)


def test_blank_pixels_of_files_are_left_out(tmp_path):
    """BLANK marks pixels without a value, also in bands."""
    stack = noise(3, (20, 20), sigma=5, level=300).astype(np.int16)
    for i, frame in enumerate(stack):
        frame[4, i] = -32768
        fits.writeto(tmp_path / f"{i}.fits", frame, fits.Header({"BLANK": -32768}))
    result = combine(sorted(tmp_path.glob("*.fits")))
    assert result.count[4, :3].tolist() == [2, 2, 2] and result.count.min() == 2
    assert result.data[4, 0] == stack[1:, 4, 0].mean()


def test_extrema_of_whole_numbers_with_errors_or_weights():
    """Values that equal a bound do not come back where the frame of a value matters."""
    stack = np.rint(noise(8, (40, 40), sigma=2, level=500)).astype(np.float32)
    plain = combine(stack, method="mean", extrema=(1, 1))
    for options in ({"errors": np.ones(8)}, {"weights": np.ones(8)}):
        other = combine(stack, method="mean", extrema=(1, 1), **options)
        np.testing.assert_allclose(other.data, plain.data, rtol=1e-6)
        np.testing.assert_array_equal(other.count, plain.count)


def test_a_weight_of_zero_is_no_value():
    """Frames of weight 0 neither count nor make the error smaller."""
    stack = noise(6, (200, 200), sigma=1)
    result = combine(stack, method="mean", weights=[1, 1, 1, 0, 0, 0])
    assert set(result.count.ravel()) == {3}
    # The scatter of three values, on average: 3^-1/2 within 10 % (its bias is that of six).
    assert 0.9 < result.uncertainty.mean() / result.data.std() < 1.1


@pytest.mark.parametrize("extrema", [(10, 10), (25, 25)])
def test_uncertainty_of_many_frames_without_their_extrema(extrema):
    """PR-13: also where more values are left out than an experiment of 48 has."""
    stack = noise(100, (100, 100), sigma=5, seed=3)
    result = combine(stack, method="mean", extrema=extrema)
    # 10000 pixels tell the ratio to 0.7 %.
    assert 0.97 < result.uncertainty.mean(dtype=float) / result.data.std(dtype=float) < 1.03


def test_rounding_of_a_sum_is_that_of_all_its_frames():
    """Four equal whole numbers: each is wrong by 12^-1/2, their sum by twice that."""
    sigma = combine(np.full((4, 5, 5), 700, np.uint16), method="sum").uncertainty
    np.testing.assert_allclose(sigma, 2 / np.sqrt(12), rtol=1e-5)


def test_scale_by_median_reads_once(tmp_path, monkeypatch):
    """Also the sample that gives the median is not read again."""
    stack = noise(3, (1600, 1500), sigma=5, level=300).astype(np.uint16)
    paths = [tmp_path / f"{i}.fits" for i in range(3)]
    for path, frame in zip(paths, stack, strict=True):
        fits.writeto(path, frame)
    read = []
    original = rows._fill
    monkeypatch.setattr(rows, "_fill", lambda s, o, b: (read.append(len(b)), original(s, o, b))[1])
    combine(paths, scale="median")
    assert sum(read) == stack.nbytes
