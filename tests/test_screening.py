"""Which calibration frames are left out: simulated good sets lose none, every fault is found."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from datared.overscan import find_regions, trim_frame
from datared.render import star_image
from datared.screening import FrameStatistics, frame_statistics, screen_frames

NGC = Path(os.environ.get("DATARED_DATA", "")) / "nickel-ngc6819"

# A band of 8 rows in the middle of each of 16 rows of boxes, in a frame of 800 rows.
BANDS = np.concatenate([np.arange(50 * k + 21, 50 * k + 29) for k in range(16)])
Y, X = np.mgrid[:16, :16] / 15 - 0.5
NOISE, ERROR, FULL = 8.0, 0.3, 64_224.0


def darks(n, rng, kind="dark"):
    """Statistics of good bias or dark frames: levels and ramps drift, the noise of a box is 0.3."""
    glow = 40 * np.exp(-np.hypot(X - 0.5, Y + 0.5) / 0.2)
    frames = []
    for i in range(n):
        boxes = 20 + 1.0 * rng.normal() + glow * (1 + 0.02 * rng.normal())
        boxes = boxes + 1.5 * rng.normal() * Y + rng.normal(0, ERROR, Y.shape)
        noise = NOISE * rng.normal(1, 0.03)
        frames.append(FrameStatistics(f"{kind}{i}.fits", kind, boxes, noise, ERROR))
    return frames


def flats(n, rng, *, twilight=True):
    """Statistics of good flats: vignetted to 0.6, a gradient of 2 % that turns, stars in boxes."""
    vignetting = 1 - 0.8 * (X**2 + Y**2)
    frames = []
    for i in range(n):
        level = rng.uniform(12_000, 40_000) if twilight else 25_000 * rng.normal(1, 0.02)
        angle = rng.uniform(0, 2 * np.pi)
        boxes = vignetting * (1 + 0.02 * (X * np.cos(angle) + Y * np.sin(angle)))
        boxes = boxes * rng.normal(1, 5e-4, X.shape)
        for j, k in rng.integers(0, 16, (3, 2)):
            boxes[j, k] *= 1 + rng.uniform(0, 0.5)  # a star that fills a part of its box
        frames.append(
            FrameStatistics(
                f"flat{i}.fits",
                "flat",
                level * boxes,
                np.sqrt(level),
                5.0,
                level + 500,
                0.001,
                FULL,
            )
        )
    return frames


def changed(frame, **changes):
    """Copy of the statistics with other values."""
    return FrameStatistics(**{**frame.__dict__, **changes})


MAKE = {"bias": lambda n, rng: darks(n, rng, "bias"), "dark": darks, "flat": flats}


@pytest.mark.parametrize("n", [3, 7, 30])
@pytest.mark.parametrize("kind", list(MAKE))
def test_good_frames_are_never_left_out(kind, n):
    """E17, 000-05: of 100 sets of good frames none loses one, and nobody is warned."""
    for seed in range(100):
        found = screen_frames(MAKE[kind](n, np.random.default_rng(seed)))
        assert found.reasons == [""] * n and found.remarks == [], seed


@pytest.mark.parametrize("n", [3, 7, 30])
def test_good_darks_of_an_unsteady_camera_are_never_left_out(n):
    """E17: levels that scatter by the noise of a pixel, and a ramp below it, are no fault."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        frames = darks(n, rng)
        frames = [changed(f, boxes=f.boxes + NOISE * rng.normal()) for f in frames]
        frames[-1] = changed(frames[-1], boxes=frames[-1].boxes + 6 * X)
        assert screen_frames(frames) == ([""] * n, []), seed


@pytest.mark.parametrize("n", [3, 7, 30])
@pytest.mark.parametrize("kind", ["bias", "dark"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (200.0, "light leak? level above its siblings' by"),
        (-200.0, "level below its siblings' by"),
        (120 * (X + 0.5), "light leak? brighter than its siblings by up to"),
        (150 * ((X > 0.3) & (Y > 0.3)), "light leak? brighter than its siblings by up to 1"),
        (-60 * (X > 0.2), "another pattern than its siblings, fainter by up to"),
    ],
)
def test_light_leak_and_pattern_of_a_dark(n, kind, fault, words):
    """E17: a level or a gradient that the siblings do not have is found, with its size."""
    for seed in range(5):
        frames = MAKE[kind](n, np.random.default_rng(seed))
        bad = seed % n
        frames[bad] = changed(frames[bad], boxes=frames[bad].boxes + fault)
        reasons = screen_frames(frames).reasons
        assert reasons[bad].startswith(words), reasons[bad]
        assert [bool(reason) for reason in reasons] == [k == bad for k in range(n)]


@pytest.mark.parametrize("factor", [1.8, 0.5])
def test_dark_of_another_noise(factor):
    """A read-out with another noise is no sibling."""
    frames = darks(5, np.random.default_rng(1))
    frames[2] = changed(frames[2], noise=factor * NOISE)
    reasons = screen_frames(frames).reasons
    assert f"noise of {factor * NOISE:.3g} ADU, its siblings have" in reasons[2]
    assert not any(reasons[:2] + reasons[3:])


@pytest.mark.parametrize("n", [3, 7, 30])
@pytest.mark.parametrize("twilight", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        np.where(X > 0.3, 0.6, 1.0),  # the edge of the dome, over a fifth of the field
        1 + 0.25 * X,  # the Moon, or a lamp that is not in front
        1 - 0.5 * (X**2 + Y**2),  # another filter or stop: other vignetting
    ],
    ids=["shadow", "gradient", "vignetting"],
)
def test_flat_of_another_light(n, twilight, fault):
    """A flat whose light falls otherwise is found among twilight and dome flats."""
    for seed in range(5):
        frames = flats(n, np.random.default_rng(seed), twilight=twilight)
        bad = seed % n
        frames[bad] = changed(frames[bad], boxes=frames[bad].boxes * fault)
        reasons = screen_frames(frames).reasons
        assert "falls otherwise" in reasons[bad] and "(limit 5.0 %)" in reasons[bad]
        assert [bool(reason) for reason in reasons] == [k == bad for k in range(n)]


def test_e17_saturated_and_faint_flats_by_themselves():
    """E17: saturated by its median or by its pixels, faint, dark or without a value."""
    good = flats(1, np.random.default_rng(2))[0]
    for changes, reason in (
        ({"raw_level": 60_000.0}, "saturated (median 60000 ADU, 0.1 % of pixels)"),
        ({"raw_level": 40_000.0, "saturated": 0.031}, "saturated (median 40000 ADU, 3.1 % of"),
        ({"boxes": np.full((16, 16), 600.0)}, "too faint (600 ADU above the dark)"),
        ({"boxes": np.full((16, 16), -3.0), "saturation": None}, "too faint (-3 ADU above"),
        ({"boxes": np.full((16, 16), np.nan)}, "no finite pixel"),
    ):
        # Alone, and among siblings, where it is no measure for the others.
        for others in ([], flats(4, np.random.default_rng(3))):
            found = screen_frames([changed(good, **changes), *others])
            assert found.reasons[0].startswith(reason)
            assert not any(found.reasons[1:]) and not found.remarks


def test_level_of_flats_is_reported():
    """000-05: outside 10 to 70 % of the saturation, and for uneven light, there is a remark."""
    good = flats(1, np.random.default_rng(2))[0]
    even = good.boxes / good.level
    for level, words in (
        (50_000, "level of 50500 ADU of 64224, outside 10 to 70 %"),
        (4000, "4500"),
    ):
        found = screen_frames([changed(good, boxes=level * even, raw_level=level + 500.0)])
        assert found.reasons == [""] and words in found.remarks[0]
        assert found.remarks[0].startswith("flat0.fits: ")
    uneven = changed(good, boxes=good.boxes * np.where(X > 0.3, 0.3, 1.0))
    assert "uneven light, from 0." in screen_frames([uneven]).remarks[0]
    # Without a saturation level there is nothing to compare with.
    free = changed(good, boxes=4000 * even, saturation=None)
    assert screen_frames([free]) == ([""], [])


def test_two_frames_and_a_split_half_tell_nothing():
    """Fewer than three frames have no outlier; if half differ, all are kept and it is said."""
    frames = darks(2, np.random.default_rng(4))
    frames[1] = changed(frames[1], boxes=frames[1].boxes + 500)
    assert screen_frames(frames) == (["", ""], [])
    # Each of the three has a leak of its own somewhere.
    frames = darks(3, np.random.default_rng(5))
    for k in (0, 1, 2):
        leak = 300 * (np.abs(X + 0.35 - 0.35 * k) < 0.1)
        frames[k] = changed(frames[k], boxes=frames[k].boxes + leak)
    found = screen_frames(frames)
    assert found.reasons == ["", "", ""]
    assert found.remarks[0].startswith("dark0.fits and its siblings are not alike")
    # Five with other noise each way: four of five differ from the middle one.
    frames = darks(5, np.random.default_rng(6))
    frames = [changed(f, noise=s) for f, s in zip(frames, (2.0, 3.0, 8.0, 20.0, 30.0), strict=True)]
    found = screen_frames(frames)
    assert found.reasons == [""] * 5 and found.remarks[0].startswith("4 of 5 frames differ")
    # Two of five may go.
    frames = [changed(f, noise=s) for f, s in zip(frames, (8.0, 8.0, 8.0, 3.0, 40.0), strict=True)]
    assert [bool(reason) for reason in screen_frames(frames).reasons] == [False] * 3 + [True] * 2


def test_frames_that_are_no_siblings_are_refused():
    """Maps of different shape, or frames of different kind, are not compared."""
    good = darks(2, np.random.default_rng(8))
    with pytest.raises(ValueError, match=r"dark0.fits \(dark, \(16, 16\)\)"):
        screen_frames([good[0], changed(good[1], boxes=np.ones((4, 4)))])
    with pytest.raises(ValueError, match="differ in kind"):
        screen_frames([good[0], *flats(1, np.random.default_rng(8))])
    assert screen_frames([]) == ([], [])


def test_statistics_of_a_frame_are_its_own():
    """Level, noise, map and saturation of an image; a sample of rows tells the same."""
    rng = np.random.default_rng(9)
    y, x = np.mgrid[:800, :640]
    truth = 12_000 * (1 - 0.3 * np.hypot(x - 320, y - 400) / 500)
    stars = star_image(truth.shape, *rng.uniform(0, 640, (2, 40)), np.full(40, 3e5), fwhm=4.0)
    image = truth + rng.normal(0, 110, truth.shape)
    raw = np.rint(np.clip(image + stars + 500, 0, 16383)).astype(np.uint16)
    raw[:8] = 16383
    image = raw - 500.0
    image[:8], image[100, 100] = np.nan, np.inf
    found = frame_statistics(image, name="a", kind="flat", raw=raw, saturation=16383)
    assert found.saturated == pytest.approx(0.01, abs=0.002)
    assert found.raw_level == pytest.approx(np.median(truth) + 500, rel=0.005)
    expected = truth.reshape(16, 50, 16, 40).mean(axis=(1, 3))
    # 2000 pixels of 110 ADU tell a level to 3 ADU of 12000; stars raise a mean by up to 3 %.
    away = np.abs(found.boxes[1:] / expected[1:] - 1)
    mean = (truth + stars).reshape(16, 50, 16, 40).mean(axis=(1, 3))[1:] / expected[1:] - 1
    assert np.median(away) < 3e-4 and away.max() < mean.max() / 3
    assert found.error == pytest.approx(1.1 * found.noise / np.sqrt(2000))
    # The slope in a box of 50 x 40 pixels adds to 110 ADU.
    assert 110 < found.noise < 160
    some = frame_statistics(image[BANDS], name="a", kind="flat", raw=raw[BANDS], saturation=16383)
    assert np.median(np.abs(some.boxes[1:] / expected[1:] - 1)) < 1e-3


def test_statistics_of_small_quiet_and_empty_frames():
    """Boxes have 8 pixels at least; equal counts have no noise; nothing finite is told so."""
    found = frame_statistics(np.full((20, 70), 7), name="a", kind="bias")
    assert found.boxes.shape == (2, 8) and found.noise == 0 and found.level == 7
    three = [changed(found, boxes=found.boxes + k) for k in (0, 0, 2)]
    assert screen_frames(three) == (["", "", ""], [])
    empty = frame_statistics(np.full((20, 70), np.nan), name="a", kind="dark", raw=np.zeros((2, 2)))
    assert np.isnan(empty.noise) and np.isnan(empty.level)
    assert screen_frames([empty]).reasons == ["no finite pixel (0 of all)"]


def test_light_leak_in_images_from_end_to_end():
    """E17: of five darks of 8 ADU noise the one with a glow of 40 ADU at one side goes."""
    rng = np.random.default_rng(10)
    glow = 40 * np.exp(-np.arange(300) / 80.0)
    frames = [np.rint(rng.normal(500, 8, (256, 300)) + glow * (k == 3)) for k in range(5)]
    found = screen_frames(
        [frame_statistics(f, name=f"d{k}", kind="dark") for k, f in enumerate(frames)]
    )
    assert [bool(reason) for reason in found.reasons] == [False, False, False, True, False]
    assert found.reasons[3].startswith("light leak?")


@pytest.mark.real
@pytest.mark.skipif(not NGC.is_dir(), reason="the real nights are not here: set DATARED_DATA")
def test_good_frames_of_the_nickel_telescope():
    """E17, 000-05: no bias, dark or flat of a good real night is left out or reported."""
    header = {"TRIMSEC": "[1:1024,1:1024]", "BIASSEC": "[1025:1056,1:1024]"}
    bias = 0.0
    for pattern, kind in (
        ("bias/*", "bias"),
        ("dark/*", "dark"),
        ("flat/flatB*", "flat"),
        ("flat/flatV*", "flat"),
    ):
        statistics, images = [], []
        for path in sorted(NGC.glob(pattern)):
            raw = fits.getdata(path)
            ccd = CCDData(raw.astype(np.float32), unit="adu")
            images.append(trim_frame(ccd, regions=find_regions(header, raw.shape)).data - bias)
            rows = np.flatnonzero(np.arange(1024) % 64 < 8)
            statistics.append(
                frame_statistics(
                    images[-1][rows],
                    name=path.name,
                    kind=kind,
                    raw=raw[rows, :1024],
                    saturation=FULL,
                )
            )
        assert len(statistics) == 3
        assert screen_frames(statistics) == (["", "", ""], []), pattern
        if kind == "bias":
            bias = np.median(images, axis=0)
        if kind == "flat":
            # The first one through a dome slit that moved, and one with the lamp too bright.
            x = np.arange(16) / 16
            shadow = changed(statistics[0], boxes=statistics[0].boxes * np.where(x > 0.8, 0.6, 1))
            bright = changed(statistics[1], raw_level=63_000.0)
            assert "falls otherwise" in screen_frames([shadow, *statistics[1:]]).reasons[0]
            assert "saturated" in screen_frames([statistics[0], bright]).reasons[1]
