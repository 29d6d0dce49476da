"""Calibration of single frames against the closed formula, and of whole small nights."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from datared import pixels
from datared.errors import ConfigError, DataredWarning, FrameError
from datared.frames import read_frame, read_product, write_product
from datared.masters import masters_night
from datared.night import load_night
from datared.options import Camera
from datared.overscan import find_regions, parse_section
from datared.reduction import reduce_frame, reduce_night
from datared.render import star_image

SHAPE = (60, 70)
GAIN, READ_NOISE = 0.8, 5.0
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
BIAS = 500.0 + 2.0 * np.cos(Y / 7.0)
RATE = np.where((X == 10) & (Y == 12), 40.0, 0.3)
FLAT = 1.1 - 0.4 * ((X - 35) ** 2 + (Y - 30) ** 2) / 2100.0
FLAT /= np.median(FLAT)


def frame(data, **meta):
    """Raw frame in memory, as read_frame gives it."""
    data = np.asarray(data, np.float32)
    return CCDData(data, unit="adu", flags=np.zeros(data.shape, np.uint16), meta=meta)


def master(data, kind, *, bit=0, where=None, sigma=None, **meta):
    """Master in memory."""
    ccd = frame(data, KIND=kind, **meta)
    if where is not None:
        ccd.flags[where] = bit
    if sigma is not None:
        ccd.uncertainty = StdDevUncertainty(np.full(ccd.shape, sigma, np.float32))
    return ccd


def expose(light, exptime, rng, *, shape=SHAPE):
    """Raw counts for a light level in ADU."""
    electrons = np.broadcast_to((light * FLAT + RATE * exptime) * GAIN, shape)
    counts = (rng.poisson(electrons) + rng.normal(0, READ_NOISE, shape)) / GAIN + BIAS
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def write(folder, name, data, kind, exptime, *, filter="", **cards):
    """Write a raw frame in the words of NINA."""
    header = fits.Header({"IMAGETYP": kind, "EXPTIME": exptime, "GAIN": 30})
    header["DATE-OBS"] = "2024-01-01T20:00:00"
    if filter:
        header["FILTER"] = filter
    header.update(cards)
    folder.mkdir(parents=True, exist_ok=True)
    fits.writeto(folder / f"{name}.fits", data, header)


def write_night(folder, *, kinds=("bias", "dark", "flat"), filters=("r",), text="", lights=2):
    """Small night with the kinds of calibration frames that are asked for."""
    rng, raw = np.random.default_rng(7), folder / "raw"
    for i in range(5):
        if "bias" in kinds:
            write(raw, f"bias{i}", expose(0, 0, rng), "BIAS", 0.0)
        if "dark" in kinds:
            write(raw, f"dark{i}", expose(0, 60, rng), "DARK", 60.0)
        if "flat" in kinds:
            write(raw, f"flat{i}", expose(25_000, 2, rng), "FLAT", 2.0, filter=filters[0])
    for name in filters:
        for i in range(lights):
            cards = {"OBJECT": "M 67", "RA": 132.8, "DEC": 11.8, "PIERSIDE": "West"}
            write(
                raw, f"light_{name}{i}", expose(200, 60, rng), "LIGHT", 60.0, filter=name, **cards
            )
    camera = f"[camera]\ngain = {GAIN}\nread_noise = {READ_NOISE}\n"
    (folder / "night.toml").write_text(f'raw = "raw"\nwork = "work"\n{camera}{text}')
    return load_night(folder)


def test_chain_equals_formula():
    """The whole chain is F1 to 1e-5."""
    rng = np.random.default_rng(1)
    raw, bias = rng.uniform(1000, 60_000, SHAPE), rng.uniform(400, 600, SHAPE)
    dark, flat = rng.uniform(0, 300, SHAPE), rng.uniform(0.5, 1.2, SHAPE)
    result = reduce_frame(
        frame(raw),
        bias=master(bias, "bias"),
        dark=master(dark, "dark", BIASCOR=True),
        dark_scale=0.25,
        flat=master(flat, "flat"),
    )
    np.testing.assert_allclose(result.data, (raw - bias - 0.25 * dark) / flat, rtol=1e-5)
    assert result.data.dtype == np.float32 and result.unit == u.adu


def test_dark_scaling():
    """A light of 96 s with a dark of 192 s: raw - 0.5 dark to 1e-5 (000-15)."""
    raw, dark = np.full(SHAPE, 3000.0), np.full(SHAPE, 400.0)
    result = reduce_frame(frame(raw), dark=master(dark, "dark", BIASCOR=True), dark_scale=0.5)
    np.testing.assert_allclose(result.data, 2800.0, rtol=1e-5)
    assert result.meta["DARKSCAL"] == 0.5 and result.meta["DARKCOR"] is True


def test_dark_scaling_without_bias_warns():
    """F2: bias of 1000 ADU in the dark, 96 s against 192 s: 500 ADU stay, and are named."""
    dark = master(np.full(SHAPE, 1000.0), "dark", BIASCOR=False)
    with pytest.warns(DataredWarning, match="about 500 ADU"):
        result = reduce_frame(frame(np.full(SHAPE, 1000.0)), dark=dark, dark_scale=0.5)
    np.testing.assert_allclose(result.data, 500.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reduce_frame(frame(np.full(SHAPE, 1000.0)), dark=dark, dark_scale=1.0)
    with pytest.raises(FrameError, match="twice"):
        reduce_frame(frame(np.ones(SHAPE)), bias=master(np.ones(SHAPE), "bias"), dark=dark)


def test_flat_plain_division():
    """The centre of a vignetted flat is 1: 100 ADU stay 100; low pixels are NaN, flagged."""
    flat = FLAT / FLAT[30, 35]
    flat[3, 4], flat[5, 6], flat[7, 8] = 0.0, 0.04, np.nan
    result = reduce_frame(frame(100.0 * flat), flat=master(flat, "flat"))
    assert result.data[30, 35] == pytest.approx(100, abs=1e-4)
    bad = [(3, 4), (5, 6), (7, 8)]
    assert all(np.isnan(result.data[p]) and result.flags[p] & pixels.LOW_FLAT for p in bad)
    assert np.isfinite(result.data).sum() == result.data.size - 3
    assert np.count_nonzero(result.mask) == 3


def test_frame_is_not_changed_and_not_calibrated_twice():
    """The input is as it was; what has BIASCOR = T is refused (000-12)."""
    raw = frame(np.full(SHAPE, 900.0), CRPIX1=5.0)
    result = reduce_frame(raw, bias=master(np.full(SHAPE, 100.0), "bias", bit=2, where=(0, 0)))
    assert raw.data.min() == 900 and not raw.flags.any() and "BIASCOR" not in raw.meta
    with pytest.raises(FrameError, match="already"):
        reduce_frame(result, bias=master(np.full(SHAPE, 100.0), "bias"))


def test_flags_are_joined():
    """Flags of raw frame, masters and map meet in one pixel."""
    raw = frame(np.full(SHAPE, 900.0))
    raw.flags[20, 20] = pixels.NONFINITE
    result = reduce_frame(
        raw,
        dark=master(np.ones(SHAPE), "dark", bit=pixels.HOT, where=(20, 20), BIASCOR=True),
        flat=master(np.ones(SHAPE), "flat", bit=pixels.DEAD, where=(20, 20)),
        bad_pixels=np.where((X == 20) & (Y == 20), pixels.BAD_COLUMN, 0),
    )
    assert pixels.describe(result.flags[20, 20]) == ["hot", "dead", "nonfinite", "bad_column"]
    assert np.count_nonzero(result.mask) == 1


def test_saturated_star_flagged(tmp_path):
    """Saturation is that of the raw counts, with neighbours, also where the bias hides it."""
    image = 500 + star_image(SHAPE, [30], [25], [3e6], fwhm=4.0)
    write(tmp_path, "star", np.clip(image, 0, 16383).astype(np.uint16), "LIGHT", 1.0, filter="r")
    camera = Camera(saturation=16383)
    raw = read_frame(tmp_path / "star.fits", camera=camera)
    result = reduce_frame(raw, bias=master(np.full(SHAPE, 500.0), "bias"), camera=camera)
    saturated = image >= 16383
    flagged = (result.flags & pixels.SATURATED) > 0
    assert flagged[saturated].all() and flagged[25, 30]
    np.testing.assert_array_equal(
        flagged, pixels.saturation_mask(np.clip(image, 0, 16383).astype(int), level=16383)
    )


def test_nan_frame():
    """A NaN row, column and block stay where they are, flagged; the rest is finite."""
    data = np.full(SHAPE, 700.0)
    data[5], data[:, 7], data[40:45, 50:55] = np.nan, np.inf, np.nan
    result = reduce_frame(CCDData(data, unit="adu"), bias=master(np.full(SHAPE, 500.0), "bias"))
    bad = ~np.isfinite(data)
    assert ((result.flags & pixels.NONFINITE) > 0).sum() == bad.sum()
    np.testing.assert_allclose(result.data[~bad], 200.0)


@pytest.mark.parametrize("shape", [(30, 70), (1, 70), (60, 1)])
def test_size_mismatch(shape):
    """A master of another size is refused with both shapes, also one that would broadcast."""
    bias = master(np.ones(shape), "bias", MASTER="bias.fits")
    with pytest.raises(FrameError, match=r"light.*\(60, 70\).*bias.fits.*\(" + str(shape[0])):
        reduce_frame(frame(np.ones(SHAPE)), bias=bias, name="light.fits")


def test_trim_shifts_crpix():
    """Trimming moves the reference pixel: a star keeps its sky position, also with SIP."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [10.0, 20.0], [31.0, 26.0], [-1e-3, 1e-3]
    raw = frame(np.arange(60 * 70).reshape(SHAPE), CRPIX1=31.0, CRPIX2=26.0)
    raw.wcs = wcs
    camera = Camera(trim="[11:60,6:55]", overscan="[61:70,1:60]")
    result = reduce_frame(raw, camera=camera)
    assert result.shape == (50, 50)
    assert (result.meta["CRPIX1"], result.meta["CRPIX2"]) == (21.0, 21.0)
    before, after = wcs.pixel_to_world(40, 30), result.wcs.pixel_to_world(30, 25)
    assert before.separation(after).arcsec < 1e-6
    assert tuple(raw.wcs.wcs.crpix) == (31.0, 26.0)


def test_overscan_follows_a_drift_along_the_rows():
    """A level that rises by 20 ADU while the frame is read is taken off row by row."""
    drift = 500 + 20 * Y / 60
    data = np.where(X < 60, 100, 0) + drift
    camera = Camera(trim="[1:60,1:60]", overscan="[61:70,1:60]")
    result = reduce_frame(frame(data), camera=camera)
    # Over 51 rows the mean bends at the ends of the ramp: by a quarter of 51 rows of it.
    assert np.abs(result.data - 100).max() < 20 / 60 * 13
    assert np.median(np.abs(result.data - 100)) < 1
    assert result.meta["OVERSCOR"] == pytest.approx(510, abs=1)


def test_trim_region_outside_frame():
    """A region outside the frame is named, with the size of the frame."""
    with pytest.raises(FrameError, match="70 columns and 60 rows"):
        reduce_frame(frame(np.ones(SHAPE)), camera=Camera(trim="[1:71,1:60]"))
    with pytest.raises(FrameError, match="no section"):
        parse_section("1:2,3:4", SHAPE)
    # A header's DATASEC in unbinned pixels is no reason to stop.
    assert find_regions({"DATASEC": "[1:140,1:120]"}, SHAPE).trim is None
    assert find_regions({"TRIMSEC": "[2:70,1:60]"}, SHAPE).trim[1].start == 1


def test_uncertainty_matches_scatter():
    """Predicted over measured scatter of many lights is 1 within 5 % (PR-13)."""
    rng = np.random.default_rng(3)
    camera = SimpleNamespace(gain=GAIN, read_noise=READ_NOISE, trim=None, overscan=None)
    results = [
        reduce_frame(
            frame(expose(300, 60, rng)),
            bias=master(BIAS, "bias", sigma=0.0),
            dark=master(RATE * 60, "dark", sigma=0.0, BIASCOR=True),
            flat=master(FLAT, "flat", sigma=0.0),
            camera=camera,
            uncertainty=True,
        )
        for _ in range(30)
    ]
    scatter = np.std([r.data for r in results], axis=0, ddof=1)
    predicted = np.mean([r.uncertainty.array for r in results], axis=0)
    # 4200 pixels of 30 frames tell the ratio to 0.2 %.
    assert 0.98 < np.sqrt(np.mean(predicted**2) / np.mean(scatter**2)) < 1.02


def test_uncertainty_holds_the_noise_of_the_masters():
    """Errors of bias, dark and flat are added as the formula says (the bias is in the dark, too)."""
    camera = SimpleNamespace(gain=2.0, read_noise=4.0, trim=None, overscan=None)
    result = reduce_frame(
        frame(np.full(SHAPE, 1100.0)),
        bias=master(np.full(SHAPE, 100.0), "bias", sigma=3.0),
        dark=master(np.full(SHAPE, 200.0), "dark", sigma=6.0, BIASCOR=True),
        dark_scale=0.5,
        flat=master(np.full(SHAPE, 0.9), "flat", sigma=0.01),
        camera=camera,
        uncertainty=True,
    )
    expected = (1000 / 2 + 4 + 0.5**2 * 6**2 + (1 - 2 * 0.5) * 3**2) / 0.81 + (
        1000 * 0.01 / 0.9
    ) ** 2
    np.testing.assert_allclose(result.uncertainty.array, np.sqrt(expected), rtol=1e-5)
    with pytest.warns(DataredWarning, match="gain"):
        assert reduce_frame(frame(np.ones(SHAPE)), uncertainty=True).uncertainty is None


def test_reduce_night_is_the_truth(tmp_path):
    """A whole night: 200 ADU of light come back flat, with our cards."""
    night = write_night(tmp_path, text="[reduction]\nuncertainty = true\n")
    masters_night(night)
    table = reduce_night(night)
    assert list(table["status"]) == ["made", "made"] and set(table["dark_match"]) == {"exact"}
    ccd = read_product(night.work / table["product"][0])
    error = (ccd.data - 200)[~ccd.mask]
    # 4200 pixels of 20 ADU noise: 0.3 ADU for the mean, and half of that from the masters.
    assert abs(error.mean()) < 1.5
    pull = (ccd.data - 200)[~ccd.mask] / ccd.uncertainty.array[~ccd.mask]
    assert 0.95 < pull.std() < 1.05
    assert pixels.describe(ccd.flags[12, 10]) == ["hot"]
    expected = {
        "KIND": "light", "FILTER": "r", "EXPTIME": 60.0, "OBJECT": "M 67", "BIASCOR": True,
        "DARKCOR": True, "FLATCOR": True, "DARKSCAL": 1.0, "GAIN_E": GAIN,
        "RON_E": READ_NOISE, "BIASFILE": "bias.fits", "DARKFILE": "dark_60s.fits",
        "FLATFILE": "flat_r.fits", "GAIN": 30, "PIERSIDE": "west",
    }  # fmt: skip
    assert {key: ccd.meta[key] for key in expected} == expected
    assert ccd.meta["RA_DEG"] == pytest.approx(132.8)
    assert ccd.meta["JD_UTC_M"] == pytest.approx(2460311.3333333 + 30 / 86400, abs=1e-6)
    assert ccd.meta["DATE-MID"].startswith("2024-01-01T20:00:30")


def test_missing_flat_lenient(tmp_path, caplog):
    """A light without a flat of its filter is written undivided; the others are complete."""
    night = write_night(tmp_path, filters=("r", "g"))
    masters_night(night)
    table = reduce_night(night)
    done = {
        row["filter"]: read_product(night.work / row["product"]).meta["FLATCOR"] for row in table
    }
    assert done == {"r": True, "g": False} and set(table["status"]) == {"made"}
    assert "no flat in filter 'g'" in caplog.text
    assert "no flat" in table["why"][table["filter"] == "g"][0]


def test_missing_flat_is_not_missing_when_not_wanted(tmp_path):
    """With use_flat = false nothing is divided and nothing is missing, also with strict."""
    text = "[reduction]\nuse_flat = false\nstrict = true\n"
    night = write_night(tmp_path, filters=("r", "g"), text=text)
    masters_night(night)
    table = reduce_night(night)
    assert set(table["flat"]) == {""} and set(table["why"]) == {""}


@pytest.mark.parametrize("kinds", [("bias", "flat"), ("bias",), ("flat",), ("dark", "flat"), ()])
def test_no_darks(tmp_path, kinds):
    """Whatever is missing, the lights come out with flags that say so (PR-10, E11, E12)."""
    night = write_night(tmp_path, kinds=kinds)
    masters_night(night)
    table = reduce_night(night)
    assert list(table["status"]) == ["made", "made"]
    meta = read_product(night.work / table["product"][0]).meta
    for kind in ("bias", "dark", "flat"):
        assert meta[f"{kind.upper()}COR"] is (kind in kinds)


def test_no_darks_gives_hot_pixels_from_the_lights(tmp_path):
    """Without darks the hot pixel is flagged all the same."""
    night = write_night(tmp_path, kinds=(), lights=6)
    masters_night(night)
    table = reduce_night(night)
    for product in table["product"]:
        ccd = read_product(night.work / product)
        assert np.argwhere(ccd.flags).tolist() == [[12, 10]]
        assert ccd.flags[12, 10] == pixels.HOT


def test_mask_roundtrip(tmp_path):
    """Flags written with a reduced frame come back bit for bit."""
    raw = frame(np.full(SHAPE, 900.0))
    raw.flags[3, 4], raw.flags[9, 9] = pixels.SATURATED, pixels.HOT | pixels.TRAIL
    result = reduce_frame(raw)
    write_product(result, tmp_path / "x.fits")
    np.testing.assert_array_equal(read_product(tmp_path / "x.fits").flags, result.flags)


def test_reduce_night_same_bytes_on_two_workers_and_current_after(tmp_path):
    """One or two processes give the same files; the second run makes nothing."""
    night = write_night(tmp_path)
    masters_night(night)
    table = reduce_night(night)
    paths = [night.work / name for name in table["product"]]
    before = [path.read_bytes() for path in paths]
    assert set(reduce_night(night)["status"]) == {"current"}
    again = reduce_night(night)
    assert list(again["level"]) == list(table["level"])
    for path in paths:
        path.unlink()
    with ProcessPoolExecutor(2) as executor:
        masters_night(night, executor=executor)
        assert set(reduce_night(night, executor=executor)["status"]) == {"made"}
    assert [path.read_bytes() for path in paths] == before


def test_reduce_night_needs_masters_and_lists_a_broken_frame(tmp_path):
    """Without masters the message says what to do; a corrupt light does not stop the others."""
    night = write_night(tmp_path, lights=3)
    with pytest.raises(ConfigError, match="masters first"):
        reduce_night(night)
    path = tmp_path / "raw/light_r1.fits"
    path.write_bytes(path.read_bytes()[:6000])
    masters_night(night)
    table = reduce_night(night)
    assert list(table["file"][table["status"] == "made"]) == ["light_r0.fits", "light_r2.fits"]
