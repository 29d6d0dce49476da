"""Level and noise of calibration frames and masters, against what was simulated."""

import math
import re

import numpy as np
import pytest
from astropy.io import fits

from datared import load_night, quality
from datared.combine import combine
from datared.quality import calibration_quality, frame_noise, master_noise, noise_factor

SIGMA, GAIN, OFFSET = 9.0, 0.5, 500.0
SHAPE = (128, 160)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]] / 160.0
RESPONSE = np.random.default_rng(9).normal(1, 0.01, SHAPE)
PATTERN = OFFSET + np.random.default_rng(8).normal(0, 5, SHAPE)


def biases(n, *, seed=1, noise=SIGMA, noisy=None):
    """Bias frames in whole counts on a fixed pattern; one of them may be twice as noisy."""
    rng = np.random.default_rng(seed)
    sigma = [noise * (2 if i == noisy else 1) for i in range(n)]
    return [np.rint(PATTERN + rng.normal(0, one, SHAPE)).astype(np.uint16) for one in sigma]


def flat(level, rng, *, light=1.0):
    """Raw flat of a level in ADU above the bias."""
    electrons = rng.poisson(level * GAIN * RESPONSE * light)
    counts = electrons / GAIN + rng.normal(PATTERN, SIGMA)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


# --- the noise law -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["median", "mean"])
@pytest.mark.parametrize("n", [4, 7, 9])
def test_bias_noise_law_of_halves(n, method):
    """PR-16, F22, Q4: measured over expected noise is 1 within 5 %, whatever the pattern."""
    found = master_noise(biases(n), method=method, step=1.0)
    truth = math.hypot(SIGMA, 12**-0.5) / math.sqrt(n)
    factor = {4: 1.092, 7: 1.214, 9: 1.226}[n] if method == "median" else 1.0
    # 20480 pixels tell a deviation to 0.5 %, the experiment its factor to 0.4 %.
    assert 0.95 < found.ratio < 1.05 and abs(found.ratio - 1) < 4 * 0.0065
    assert 0.003 < found.ratio_err < 0.007
    assert found.expected == pytest.approx(factor * truth, rel=0.02)
    assert found.noise == pytest.approx(found.ratio * found.expected)
    assert found.pattern == pytest.approx(5, rel=0.06)


@pytest.mark.parametrize("method", ["median", "mean"])
def test_bias_noise_law_is_broken_by_a_noisy_frame(method):
    """PR-16, F22: one frame of seven with double noise takes the ratio out of [0.95, 1.05]."""
    found = master_noise(biases(7, noisy=3), method=method, step=1.0)
    assert found.ratio > 1.05
    if method == "mean":
        # The halves have 4 and 3 frames; in the second one the variances are 1, 4, 1.
        assert found.ratio == pytest.approx(((1 / 4 + 6 / 9) / (1 / 4 + 1 / 3)) ** 0.5, rel=0.025)
    assert found.single == pytest.approx(SIGMA, rel=0.02)


def test_bias_noise_law_is_broken_by_noise_in_common():
    """PR-16: noise that every other frame shares does not average out."""
    rng = np.random.default_rng(2)
    common = rng.normal(0, SIGMA, SHAPE)
    frames = [frame + common * (i % 2) for i, frame in enumerate(biases(8))]
    # Each half has 4 frames; of the odd ones the common part stays, among neighbours it does not.
    expected = ((2 / 4 + 1) / (2 * 2 / 4)) ** 0.5
    assert master_noise(frames, method="mean").ratio == pytest.approx(expected, rel=0.03)


def test_bias_noise_law_is_that_of_the_combined_frames():
    """F22: the stated noise is the scatter of the master about the true pattern."""
    frames = biases(9, noise=30.0)
    for method, clip in (("median", None), ("mean", 5.0)):
        found = master_noise(frames, method=method, clip=clip, step=1.0)
        whole = combine(frames, method=method, clip=clip, floor=30.0).data
        scatter = np.std(whole - PATTERN, dtype=float)
        assert found.noise == pytest.approx(scatter, rel=0.02)


@pytest.mark.parametrize("noise", [0.8, 1.5, 3.0])
def test_bias_noise_law_of_coarse_counts(noise):
    """F22: medians of whole counts are themselves whole; the expectation knows it."""
    found = master_noise(biases(9, noise=noise), step=1.0)
    assert found.ratio == pytest.approx(1, abs=4 * 0.0075)


def test_flat_noise_law_of_levels_that_fall():
    """F22: flats of the twilight, of unlike levels, are expected to have unlike noise."""
    rng = np.random.default_rng(3)
    levels = np.array([40_000, 30_000, 24_000, 18_000, 14_000, 11_000])
    frames = [flat(level, rng) - PATTERN for level in levels]
    for method, clip in (("mean", 5.0), ("median", 3.0)):
        found = master_noise(frames, method=method, clip=clip, flat=True, step=1.0)
        assert found.ratio == pytest.approx(1, abs=4 * 0.0065)
        assert found.pattern == pytest.approx(0.01, rel=0.05)
    # The read noise is a thousandth of the variance.
    single = np.median(1 / np.sqrt(levels * GAIN))
    assert found.single == pytest.approx(single, rel=0.02)


def test_noise_of_few_frames_is_not_checked():
    """Two or three frames have an expectation but no check; one has neither."""
    for n in (2, 3):
        found = master_noise(biases(n), step=1.0)
        assert np.isnan(found.ratio) and found.expected == pytest.approx(
            SIGMA / n**0.5 * noise_factor(n), rel=0.02
        )
    assert np.isnan(master_noise(biases(1)).expected)


@pytest.mark.parametrize(("n", "factor"), [(1, 1), (2, 1), (3, 1.1602), (99, 1.2487)])
def test_noise_factor_of_a_median(n, factor):
    """F22: exact for 2 and 3 values (order statistics), close to sqrt(pi / 2) for many."""
    assert noise_factor(n) == pytest.approx(factor, rel=4 * 0.0036)
    assert noise_factor(n, method="mean") == pytest.approx(1, rel=4 * 0.0036)


def test_noise_factor_is_that_of_numpy():
    """F22: the same as numpy's median of other random numbers."""
    values = np.random.default_rng(10).normal(0, 1, (8, 200_000))
    assert noise_factor(8) == pytest.approx(np.std(np.median(values, axis=0)) * 8**0.5, rel=0.015)


# --- single frames -------------------------------------------------------------------------------


def test_frame_noise_is_not_dominated_by_hot_pixels():
    """PR-16: a fixed pattern and 2 % of wild pixels leave the noise of a frame as it is."""
    rng = np.random.default_rng(4)
    frames = [frame.astype(float) for frame in biases(4)]
    for frame in frames:
        frame.flat[rng.choice(frame.size, 400, replace=False)] += rng.exponential(5000, 400)
    # 1 / sqrt(2 * 20480) = 0.5 %, times 1.7 for three differences; 2 % of the pixels are lost to
    # the one or the other frame, and of those that stay some are hot by less than 4 deviations.
    assert frame_noise(frames) == pytest.approx(math.hypot(SIGMA, 12**-0.5), rel=0.03)


def test_frame_noise_belongs_to_its_frame():
    """PR-16: a frame with double noise is found, its neighbours are not blamed."""
    noises = frame_noise(biases(6, noisy=2))
    expected = np.full(6, SIGMA)
    expected[2] *= 2
    assert noises == pytest.approx(expected, rel=0.05)
    assert np.isnan(frame_noise(biases(1))).all() and len(frame_noise(biases(2))) == 2


# --- nights --------------------------------------------------------------------------------------


def write_night(folder, frames, text=""):
    """Night of ``(kind, filter, image, cards)``."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for i, (kind, name, image, cards) in enumerate(frames):
        header = fits.Header({"IMAGETYP": kind, "EXPTIME": 0.0 if kind == "BIAS" else 5.0})
        header["DATE-OBS"] = f"2024-01-01T20:{i:02d}:00"
        if name:
            header["FILTER"] = name
        header.update({"CCD-TEMP": -10.0} | cards)
        fits.writeto(raw / f"{kind.lower()}{i:02d}.fits", image, header)
    (folder / "night.toml").write_text(f'raw = "raw"\nwork = "work"\n{text}')
    return load_night(folder)


@pytest.fixture
def frames():
    """5 bias frames, 5 darks, 5 flats."""
    rng = np.random.default_rng(5)
    result = [("BIAS", "", image, {}) for image in biases(5)]
    result += [("DARK", "", flat(40 * np.ones(SHAPE), rng), {}) for _ in range(5)]
    result += [("FLAT", "V", flat(20_000, rng), {}) for _ in range(5)]
    return result


def remarks_of(table, *, master):
    """Remarks of the frames, or of the masters, by name."""
    return {row["file"]: row["remarks"] for row in table if row["master"] == master}


def test_quality_table_of_a_good_night(tmp_path, frames):
    """PR-16, Q4, 002-05: level, noise and expectation of each frame and master; nothing to say."""
    night = write_night(tmp_path, frames)
    table = calibration_quality(night)
    assert not (tmp_path / "work").exists()
    assert len(table) == 15 + 3 and table["master"].sum() == 3
    assert set(remarks_of(table, master=False).values()) == {""}
    assert remarks_of(table, master=True) == dict.fromkeys(
        ("bias.fits", "dark_5s.fits", "flat_V.fits"), "noise as promised"
    )
    single = table[~table["master"]]
    levels = {"bias": OFFSET, "dark": 40, "flat": 20_000}
    for kind, level in levels.items():
        own = single[single["kind"] == kind]
        noise = math.sqrt(SIGMA**2 + 1 / 12 + (0 if kind == "bias" else level / GAIN))
        assert own["level"] == pytest.approx(level, abs=0.7 if kind != "flat" else 30)
        # 0.5 % times 1.7; gain and read noise of the expectation were measured to 1 %.
        assert own["noise"] == pytest.approx(noise, rel=4 * 0.0086)
        assert own["ratio"] == pytest.approx(1, abs=4 * 0.0135)
        assert np.all(own["temperature"] == -10) and np.all(own["frames"] == 1)
    made = table[table["master"]]
    assert list(made["frames"]) == [5, 5, 5]
    assert np.all((made["ratio"] > 0.95) & (made["ratio"] < 1.05))
    assert made["expected"][0] == pytest.approx(1.194 * SIGMA / 5**0.5, rel=0.02)


def test_quality_of_a_noisy_bias_is_told(tmp_path, frames):
    """PR-16, F22: a noisy frame has the remark, and spoils the mean, but not the median."""
    rng = np.random.default_rng(7)
    spoilt = np.rint(PATTERN + rng.normal(0, 1.4 * SIGMA, SHAPE)).astype(np.uint16)
    frames[3] = ("BIAS", "", spoilt, {})
    night = write_night(tmp_path, frames, '[reduction]\nmethod = "mean"\n')
    table = calibration_quality(night)
    row = table[list(table["file"]).index("bias03.fits")]
    assert row["ratio"] == pytest.approx(1.4, rel=0.04)
    assert row["remarks"] == f"noise is {row['ratio']:.2f} x what gain and read noise promise"
    # Two frames in the second half, one of them noisy: 1 / 3 + (1 + 1.96) / 4 for 1 / 3 + 1 / 2.
    master = table[table["master"]][0]
    assert master["ratio"] == pytest.approx(1.135, rel=0.03)
    assert "a frame is noisier" in master["remarks"]


def test_quality_of_flats_bright_dim_uneven_and_saturated(tmp_path, frames):
    """000-05, PR-16: a flat of 60 000 ADU is told, so are faint, uneven and saturated ones."""
    rng = np.random.default_rng(6)
    light = 1.3 - 1.1 * (X + Y) / 1.8
    saturated = np.full(SHAPE, 65_535, np.uint16)
    frames += [
        ("FLAT", "B", flat(52_000, rng), {}),
        ("FLAT", "B", flat(4_000, rng), {}),
        ("FLAT", "B", flat(60_000, rng), {}),
        ("FLAT", "R", flat(20_000, rng, light=light), {}),
        ("FLAT", "R", saturated, {}),
    ]
    table = calibration_quality(write_night(tmp_path, frames))
    found = remarks_of(table, master=False)
    assert found["flat15.fits"] == "bright: 82 % of saturation (70 % is the most)"
    assert found["flat16.fits"] == "dim: 6.3 % of saturation (10 % is the least)"
    assert found["flat17.fits"].startswith("left out: saturated")
    assert "bright: 94 % of saturation" in found["flat17.fits"]
    assert found["flat18.fits"].startswith("uneven: the darkest part has ")
    assert found["flat19.fits"].startswith("left out: saturated")
    assert table["saturated"][list(table["file"]).index("flat19.fits")] == 1
    made = remarks_of(table, master=True)
    assert "only 2 frames (5 or more are better)" in made["flat_B.fits"]
    levels = re.search(r"levels from (\d+) to (\d+) ADU", made["flat_B.fits"]).groups()
    assert [int(level) for level in levels] == pytest.approx([4000, 52_000], rel=0.001)
    assert made["flat_R.fits"].startswith("only 1 frame (5 or more")


def test_quality_counts_frames_and_compares_temperatures(tmp_path, frames):
    """002-05: few frames are told; a warm frame and one of another level, too."""
    frames = frames[:7] + frames[10:]  # Two darks only.
    frames[2] = (*frames[2][:3], {"CCD-TEMP": -4.0})
    frames[4] = ("BIAS", "", frames[4][2] + np.uint16(8), {})
    table = calibration_quality(write_night(tmp_path, frames))
    found = remarks_of(table, master=False)
    assert found["bias02.fits"] == "temperature is +6.0 deg C from that of its siblings"
    assert found["bias04.fits"] == "level is +8.0 ADU from that of its siblings"
    assert remarks_of(table, master=True)["dark_5s.fits"] == (
        "only 2 frames (5 or more are better); noise not checked (4 frames are needed)"
    )


def test_quality_lists_frames_that_cannot_be_used(tmp_path, frames):
    """A truncated frame is in the table with the reason; flats without bias say so."""
    night = write_night(tmp_path, frames[5:])
    path = night.raw / "dark00.fits"
    path.write_bytes(path.read_bytes()[:9000])
    table = calibration_quality(night)
    row = table[list(table["file"]).index("dark00.fits")]
    assert row["remarks"].startswith("not used: ") and "truncated" in row["remarks"]
    assert np.isnan(row["level"]) and row["temperature"] == -10
    assert "no bias: the level includes it" in remarks_of(table, master=True)["flat_V.fits"]
    assert np.isnan(table["expected"][~table["master"]]).all()


def test_quality_of_a_night_without_calibration_frames(tmp_path):
    """A night of lights has an empty table, with its columns."""
    image = np.full((64, 64), 900, np.uint16)
    table = calibration_quality(write_night(tmp_path, [("LIGHT", "V", image, {})]))
    assert len(table) == 0 and table.colnames == list(quality._COLUMNS)
