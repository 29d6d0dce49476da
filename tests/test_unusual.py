"""Cameras and nights that are not like the usual ones: each was once done wrong."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from typer.testing import CliRunner

from datared import pairs, panels, pixels
from datared.calibration import master_bias, master_dark, master_flat
from datared.camera import camera_night, measure_camera
from datared.cli import app
from datared.correction import clean
from datared.errors import DataredWarning, FrameError
from datared.headers import read_header
from datared.listing import evening_date, inventory
from datared.masters import masters_night
from datared.night import load_night
from datared.overscan import find_regions
from datared.quality import calibration_quality
from datared.regions import Regions
from datared.render import star_image
from datared.screening import frame_statistics, screen_frames


def night(folder, frames, text=""):
    """Night of some frames: kind, image, cards."""
    (folder / "raw").mkdir(parents=True)
    for i, (kind, image, cards) in enumerate(frames):
        h = fits.Header({"IMAGETYP": kind, "DATE-OBS": f"2024-01-01T20:{i:02d}:00"} | cards)
        fits.writeto(folder / "raw" / f"{i:02d}.fits", image, h)
    (folder / "night.toml").write_text('raw = "raw"\nwork = "work"\n' + text)
    return load_night(folder)


def noise(level, sigma=9.0, shape=(128, 128), seed=1):
    """Counts of a level with noise."""
    return np.rint(np.random.default_rng(seed).normal(level, sigma, shape)).astype(np.uint16)


@pytest.mark.parametrize("cards", [{"EXP_TIME": 2.0}, {"EXPTIME": "2.0 s"}])
def test_flat_of_any_exposure_card(tmp_path, cards):
    """HD-02, HD-03: a flat whose time is in another card, or a text, is made."""
    n = night(
        tmp_path,
        [("Bias", noise(500, seed=i), {"EXPTIME": 0.0}) for i in range(3)]
        + [("Flat", noise(20000, 90, seed=i), {"FILTER": "V"} | cards) for i in range(3)]
        + [("Light", noise(600), {"FILTER": "V"} | cards)],
    )
    table = masters_night(n)
    assert list(table["status"]) == ["made", "made"], list(table["reason"])
    assert fits.getval(n.work / "masters" / "flat_V.fits", "EXPTIME") == 2.0


@pytest.mark.parametrize("n", [10, 11])
@pytest.mark.parametrize(("step", "sigma"), [(16, 0.7), (1, 0.5), (4, 1.0)])
def test_hot_map_of_a_12_bit_camera(step, sigma, n):
    """PX-02: steps of 16 and 4 counts, or little noise, are no hot pixels."""
    r = np.random.default_rng(3)
    phase = 100 + 0.6 * r.random((300, 300))

    def stack(more):
        return [
            CCDData(
                np.float32(step)
                * np.rint(phase + more + r.normal(0, sigma, phase.shape)).astype(np.float32),
                unit="adu",
                meta={"EXPTIME": 60.0},
            )
            for _ in range(n)
        ]

    bias, darks = master_bias(stack(0)), stack(0.1)
    for one in darks:
        one.data[150, 100] += 20 * step
    for given in (bias, None):
        dark = master_dark(darks, bias=given)
        assert dark.flags[150, 100] & pixels.HOT and dark.meta["NHOT"] < 30


@pytest.mark.parametrize(("x", "y"), [(0, 0), (0, 300), (300, 0), (600, 600)])
def test_amplifier_glow_is_no_bad_column(x, y):
    """A steep glow is not masked; a column beside it is found all the same."""
    Y, X = np.mgrid[:600, :600]
    glow = 5000 * np.exp(-np.hypot(X - x, Y - y) / 40)
    dark = 50 + glow + np.random.default_rng(5).normal(0, 3, X.shape) * np.sqrt(1 + glow / 50)
    dark[:, 200] += 30
    found = pixels.bad_columns(dark, least=3.0)
    assert found[:, 200].all() and found.sum() == 600


@pytest.mark.parametrize("shape", [(1600, 2400), (3194, 4788)])
def test_samples_of_large_frames_hold_the_middle(shape):
    """PR-16: the sample of a wide frame has bands at its ends and in its middle."""
    rows = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None], shape)
    sample = pairs.sample_frame(CCDData(rows, unit="adu"), pixels=150_000)[:, 0]
    assert sample[0] == 0 and sample[-1] == shape[0] - 1
    assert np.abs(sample - shape[0] / 2).min() < 20


@pytest.mark.parametrize("kind", [np.int32, np.int16])
def test_saturation_of_other_integers(tmp_path, kind):
    """E17: 32-bit flats are not full at 64224, signed ones of 16 bits are at 32767."""
    paths = []
    for i in range(3):
        image = np.random.default_rng(i).normal(
            120_000 if kind is np.int32 else 34_000, 300, (100, 100)
        )
        paths.append(tmp_path / f"{i}.fits")
        fits.writeto(
            paths[-1],
            np.minimum(image, np.iinfo(kind).max).astype(kind),
            fits.Header({"EXPTIME": 1.0}),
        )
    if kind is np.int32:
        assert master_flat(paths).meta["FLATLVL"] == pytest.approx(120_000, rel=0.01)
    else:
        with pytest.raises(FrameError, match="saturated"):
            master_flat(paths)


def test_flats_with_dark_corners_are_alike():
    """Boxes without light say nothing about a lamp; the one other flat is found."""
    Y, X = np.mgrid[:512, :512] / 511 - 0.5
    light = (np.hypot(X, Y) < 0.45) * (1 - X**2 - Y**2)
    r = np.random.default_rng(4)
    frames = []
    for i in range(5):
        image = r.poisson(r.uniform(1e4, 4e4) * light * (1 - 0.5 * X * (i == 3))) + r.normal(
            0, 8, X.shape
        )
        frames.append(
            frame_statistics(image, name=f"{i}", kind="flat", raw=image + 500, saturation=64224.0)
        )
    assert [bool(t) for t in screen_frames(frames).reasons] == [False, False, False, True, False]


def test_night_of_a_longitude_to_the_east_of_180():
    """003-01: 204.5 degrees east are 155.5 west: the same evening."""
    assert evening_date(2461086.9, longitude=204.5) == evening_date(2461086.9, longitude=-155.5)


def test_quality_leaves_rejected_bias_frames_out(tmp_path):
    """PR-16: darks are listed above the bias frames that are used."""
    n = night(
        tmp_path,
        [("Bias", noise(1500 if i == 0 else 500, seed=i), {"EXPTIME": 0.0}) for i in range(5)]
        + [("Dark", noise(540, seed=9 + i), {"EXPTIME": 60.0}) for i in range(5)],
    )
    table = calibration_quality(n)
    assert table["level"][table["kind"] == "dark"] == pytest.approx(40, abs=1)


def test_gain_of_one_bias_and_a_saturated_pair():
    """CC-01: one level and no read noise: a note, and no gain."""
    r = np.random.default_rng(1)
    flats = [500 + r.poisson(10000, (128, 128)) for _ in range(2)]
    flats += [np.minimum(500 + r.poisson(40000, (128, 128)), 40400) for _ in range(2)]
    result = measure_camera([np.rint(r.normal(500, 5, (128, 128)))], flats)
    assert np.isnan(result.gain) and "two bias frames" in result.note


def test_egain_is_compared(tmp_path):
    """PR-12: the gain that the reduction takes from EGAIN is compared with the flats."""
    r = np.random.default_rng(1)
    n = night(
        tmp_path,
        [("Bias", noise(500, seed=i), {"EXPTIME": 0.0, "EGAIN": 0.5}) for i in range(2)]
        + [
            (
                "Flat",
                (500 + r.poisson(10000, (128, 128)) / 0.376).astype(np.uint16),
                {"EXPTIME": 1.0, "FILTER": "V", "EGAIN": 0.5},
            )
            for _ in range(2)
        ],
    )
    assert "gain differs" in camera_night(n)["verdict"][-1]


@pytest.mark.parametrize("text", ["UNKNOWN", "N/A", "none", "[0:0,0:0]"])
def test_no_section(text):
    """PR-11: cards that say that there is no section are none."""
    assert find_regions({"BIASSEC": text, "TRIMSEC": text}, (50, 70)) == Regions()


def test_rules_settle_what_a_frame_needs(tmp_path):
    """HD-03: what a rule makes of a frame decides whether it needs a time."""
    n = night(
        tmp_path,
        [("Light", noise(5), {"FILTER": "V"}), ("weird", noise(5), {"FILTER": "V"})],
        '[[frames]]\nmatch = "00*"\nkind = "bias"\n[[frames]]\nmatch = "01*"\nkind = "light"\n',
    )
    bias, light = inventory(n)["problem"]
    assert bias == "" and "no exposure time" in light


def test_filters_of_a_transfer_curve_have_their_own_colours():
    """CC-01: error bars do not use up the markers."""
    ax = None
    for name in "BVRI":
        ax = panels.transfer_curve([1, 2, 3], [1, 2, 3], errors=[0.1] * 3, label=name, ax=ax)
    points = [line for line in ax.lines if line.get_marker() in "osD^v"]
    assert [line.get_marker() for line in points] == list("osD^")


def test_two_filter_wheels():
    """HD-02: an empty place in the first wheel gives the word to the second."""
    names = [
        read_header(fits.Header({"IMAGETYP": "flat", "FILTER1": "Clear", "FILTER2": f}))["filter"]
        for f in "BV"
    ]
    assert names == ["B", "V"]


def test_cosmics_of_a_night_spare_sharp_stars():
    """PX-05: stars of 1.5 px are measured first and are not taken for tracks."""
    r = np.random.default_rng(2)
    x, y = r.uniform(10, 390, (2, 300))
    image = r.poisson(
        100 + star_image((400, 400), x, y, 10 ** r.uniform(3.5, 5.5, 300), fwhm=1.5)
    ) + r.normal(0, 5, (400, 400))
    ccd = CCDData(
        image.astype(np.float32),
        unit="adu",
        flags=np.zeros(image.shape, np.uint16),
        mask=np.zeros(image.shape, bool),
    )
    with pytest.warns(DataredWarning, match="as sharp as cosmic rays"):
        flags = clean(ccd, gain=1.0, read_noise=5.0, cosmic_rays="laplacian").flags
    assert not flags[np.rint(y).astype(int), np.rint(x).astype(int)].any()


def test_gain_of_flats_clipped_below_the_saturation_less_overscan(tmp_path):
    """CC-01: the saturation of samples is lower by what the overscan takes off."""
    Y, X = np.mgrid[:512, :512] / 511 - 0.5
    r, frames = np.random.default_rng(2), []
    for kind in ("Bias", "Flat"):
        for _ in range(4):
            image = r.normal(8500, 5, (512, 546))
            if kind == "Flat":
                image[:, :512] += r.poisson(
                    57_000 * 1.15 * np.clip(1 - 1.6 * (X**2 + Y**2), 0.1, 1)
                )
            frames.append(
                (
                    kind,
                    np.clip(np.rint(image), 0, 65535).astype(np.uint16),
                    {
                        "EXPTIME": 1.0,
                        "FILTER": "V",
                        "BIASSEC": "[513:546,1:512]",
                        "TRIMSEC": "[1:512,1:512]",
                    },
                )
            )
    assert camera_night(night(tmp_path, frames))["gain"][0] == pytest.approx(1.0, rel=0.01)


def test_inspect_of_a_folder_reads_its_night(tmp_path):
    """HD-01: a folder with a night.toml is read as that night."""
    night(
        tmp_path,
        [("Light", noise(5), {"EXPTIME": 1.0, "FILTER": "V"})],
        '[[frames]]\nmatch = "*"\nexclude = "clouds"\n',
    )
    assert (
        "excluded by the night file: clouds"
        in CliRunner().invoke(app, ["inspect", str(tmp_path)]).output
    )
