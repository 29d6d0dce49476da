"""Calibration of single frames against the closed formula, and of whole small nights."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

from datared import pixels
from datared.calibration import master_bias, master_dark, master_flat
from datared.correction import camera_noise, to_electrons
from datared.errors import ConfigError, DataredWarning, FrameError
from datared.frames import read_frame, read_product, write_product
from datared.lightcards import light_cards
from datared.masters import masters_night
from datared.night import load_night
from datared.options import Camera
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
    """PR-08, 000-21, 000-19: the whole chain is F1 to 1e-5."""
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
    """PR-04, 000-15, 000-14: a light of 96 s with a dark of 192 s: raw - 0.5 dark to 1e-5."""
    raw, dark = np.full(SHAPE, 3000.0), np.full(SHAPE, 400.0)
    result = reduce_frame(frame(raw), dark=master(dark, "dark", BIASCOR=True), dark_scale=0.5)
    np.testing.assert_allclose(result.data, 2800.0, rtol=1e-5)
    assert result.meta["DARKSCAL"] == 0.5 and result.meta["DARKCOR"] is True


def test_dark_scaling_without_bias_warns():
    """PR-04, F2: bias of 1000 ADU in the dark, 96 s against 192 s: 500 ADU stay, and are named."""
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
    """The centre of a vignetted flat is 1: 100 ADU stay 100; low pixels are NaN, flagged.

    PR-07, 000-19, 003-08, E16.
    """
    flat = FLAT / FLAT[30, 35]
    flat[3, 4], flat[5, 6], flat[7, 8] = 0.0, 0.04, np.nan
    result = reduce_frame(frame(100.0 * flat), flat=master(flat, "flat"))
    assert result.data[30, 35] == pytest.approx(100, abs=1e-4)
    bad = [(3, 4), (5, 6), (7, 8)]
    assert all(np.isnan(result.data[p]) and result.flags[p] & pixels.LOW_FLAT for p in bad)
    assert np.isfinite(result.data).sum() == result.data.size - 3
    assert np.count_nonzero(result.mask) == 3


def test_frame_is_not_changed_and_not_calibrated_twice():
    """000-12: the input is as it was; what has BIASCOR = T is refused."""
    raw = frame(np.full(SHAPE, 900.0), CRPIX1=5.0)
    result = reduce_frame(raw, bias=master(np.full(SHAPE, 100.0), "bias", bit=2, where=(0, 0)))
    assert raw.data.min() == 900 and not raw.flags.any() and "BIASCOR" not in raw.meta
    with pytest.raises(FrameError, match="already"):
        reduce_frame(result, bias=master(np.full(SHAPE, 100.0), "bias"))


def test_flags_are_joined():
    """PX-06: flags of raw frame, masters and map meet in one pixel."""
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
    """Saturation is that of the raw counts, with neighbours, also where the bias hides it.

    PX-01, 000-10.
    """
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
    """PX-07: a NaN row, column and block stay where they are, flagged; the rest is finite."""
    data = np.full(SHAPE, 700.0)
    data[5], data[:, 7], data[40:45, 50:55] = np.nan, np.inf, np.nan
    result = reduce_frame(CCDData(data, unit="adu"), bias=master(np.full(SHAPE, 500.0), "bias"))
    bad = ~np.isfinite(data)
    assert ((result.flags & pixels.NONFINITE) > 0).sum() == bad.sum()
    np.testing.assert_allclose(result.data[~bad], 200.0)


@pytest.mark.parametrize("shape", [(30, 70), (1, 70), (60, 1)])
def test_size_mismatch(shape):
    """A master of another size is refused with both shapes, also one that would broadcast.

    PR-14, E08.
    """
    bias = master(np.ones(shape), "bias", MASTER="bias.fits")
    with pytest.raises(FrameError, match=r"light.*\(60, 70\).*bias.fits.*\(" + str(shape[0])):
        reduce_frame(frame(np.ones(SHAPE)), bias=bias, name="light.fits")


def test_uncertainty_matches_scatter():
    """PR-13, 003-06: predicted over measured scatter of many lights is 1 within 5 %."""
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
    """PR-13: errors of bias, dark and flat are added as the formula says."""
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
    """PR-08, HD-08, 000-22: a whole night: 200 ADU of light come back flat, with our cards."""
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
    """A light without a flat of its filter is written undivided; the others are complete.

    PR-09, E14.
    """
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
    """PR-10, 002-02, E11, E12: whatever is missing, the lights come out with flags that say so."""
    night = write_night(tmp_path, kinds=kinds)
    masters_night(night)
    table = reduce_night(night)
    assert list(table["status"]) == ["made", "made"]
    meta = read_product(night.work / table["product"][0]).meta
    for kind in ("bias", "dark", "flat"):
        assert meta[f"{kind.upper()}COR"] is (kind in kinds)


def test_no_darks_gives_hot_pixels_from_the_lights(tmp_path, monkeypatch):
    """PX-02: without darks the hot pixel is flagged all the same, and is left as it is."""
    monkeypatch.setattr("datared.hotpixels.STEADY", 1e3)
    night = write_night(tmp_path, kinds=(), lights=6)
    masters_night(night)
    table = reduce_night(night)
    for product in table["product"]:
        ccd = read_product(night.work / product)
        assert np.argwhere(ccd.flags).tolist() == [[12, 10]]
        assert ccd.flags[12, 10] == pixels.HOT and "HOTSUB" not in ccd.meta


def test_cards_are_there_where_their_value_is_known():
    """No card for what is NaN, None or empty; the header's saturation where none is set."""
    row = {"kind": "light", "file": "raw/a.fits", "object": "M 67", "filter": "r", "setup": "s"}
    row |= {"exptime": 60.0, "ra": 132.8, "dec": 11.8, "pier_side": "", "airmass": np.nan}
    cards = light_cards(row | {"jd_utc_mid": np.nan}, {"SATURATE": 60000}, Camera(), None, 9.0)
    assert cards["SATURATE"][0] == 60000 and cards["RON_E"][0] == 9.0
    assert not {"PIERSIDE", "AIRMASS", "JD_UTC_M", "DATE-MID", "GAIN_E"} & set(cards)
    cards = light_cards(row | {"jd_utc_mid": 2460000.5}, {}, Camera(saturation=5e4), 1.5, None)
    assert cards["DATE-MID"][0] == "2023-02-25T00:00:00.000" and cards["SATURATE"][0] == 5e4


def test_hot_pixel_of_a_night_without_darks_is_subtracted(tmp_path, monkeypatch):
    """PX-02: its excess is taken off and its flag with it; with darks there is nothing to do."""
    # 2400 ADU of dark current, more than 50 times the noise, would stay as they are.
    monkeypatch.setattr("datared.hotpixels.STEADY", 1e3)
    text = '[reduction]\nrepair = "subtract"\n'
    night = write_night(tmp_path / "none", kinds=(), lights=6, text=text)
    masters_night(night)
    for product in reduce_night(night)["product"]:
        ccd = read_product(night.work / product)
        assert not ccd.flags.any() and not ccd.mask.any()
        # One hot pixel is its own factor: what is left is the median of those around.
        around = np.delete(ccd.data[10:15, 8:13].ravel(), 12)
        assert ccd.data[12, 10] == pytest.approx(np.median(around), abs=1)
        # The hot pixel gives photons of 49 electrons of noise in 2400.
        assert ccd.meta["HOTSUB"] == pytest.approx(1, abs=0.1)
    night = write_night(tmp_path / "dark", text=text)
    masters_night(night)
    ccd = read_product(night.work / reduce_night(night)["product"][0])
    assert pixels.describe(ccd.flags[12, 10]) == ["hot"] and "HOTSUB" not in ccd.meta


def test_mask_roundtrip(tmp_path):
    """PX-06: flags written with a reduced frame come back bit for bit."""
    raw = frame(np.full(SHAPE, 900.0))
    raw.flags[3, 4], raw.flags[9, 9] = pixels.SATURATED, pixels.HOT | pixels.TRAIL
    result = reduce_frame(raw)
    write_product(result, tmp_path / "x.fits")
    np.testing.assert_array_equal(read_product(tmp_path / "x.fits").flags, result.flags)


def test_reduce_night_same_bytes_on_two_workers_and_current_after(tmp_path):
    """HD-07: one or two processes give the same files; the second run makes nothing."""
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
    """Without masters the message says what to do; a corrupt light does not stop the others.

    E21.
    """
    night = write_night(tmp_path, lights=3)
    with pytest.raises(ConfigError, match="masters first"):
        reduce_night(night)
    path = tmp_path / "raw/light_r1.fits"
    path.write_bytes(path.read_bytes()[:6000])
    masters_night(night)
    table = reduce_night(night)
    assert list(table["file"][table["status"] == "made"]) == ["light_r0.fits", "light_r2.fits"]


@pytest.mark.parametrize(
    ("keyword", "header", "expected"),
    [
        (None, {"GAIN": 30, "EGAIN": 0.5}, 0.376),  # The night file wins.
        (None, {"GAIN": 30}, None),  # A setting is no gain.
        (None, {"GAIN": 30, "EGAIN": 0.5}, 0.5),
        ("GAIN", {"GAIN": 4.23, "EGAIN": 0.5}, 4.23),
        ("GAIN", {}, None),
        (None, {"EGAIN": "n/a"}, None),
    ],
)
def test_gain_setting_is_not_gain(keyword, header, expected):
    """PR-12: e-/ADU come from the night file, a card that it names, or EGAIN; never from GAIN."""
    camera = Camera(gain=0.376 if expected == 0.376 else None, gain_keyword=keyword)
    assert camera_noise(camera, header)[0] == expected


def test_read_noise_of_the_bias_frames_where_none_is_given():
    """PR-13: the master bias has measured the read noise; the night file's number wins."""
    bias = master(np.zeros(SHAPE), "bias", READNOIS=7.5)
    assert camera_noise(Camera(gain=2.0), {}, bias=bias) == (2.0, 15.0)
    assert camera_noise(Camera(gain=2.0, read_noise=4.0), {}, bias=bias) == (2.0, 4.0)
    assert camera_noise(Camera(), {}, bias=bias) == (None, None)


def test_electrons_once():
    """PR-12, 003-06: the gain is used once, on data and error, and the unit says so."""
    camera = Camera(gain=2.5, read_noise=5.0)
    raw = frame(np.full(SHAPE, 1100.0))
    options = {"bias": master(np.full(SHAPE, 100.0), "bias"), "camera": camera, "uncertainty": True}
    counts = reduce_frame(raw, **options)
    electrons = reduce_frame(raw, **options, electrons=True)
    assert electrons.unit == u.electron and counts.unit == u.adu
    np.testing.assert_allclose(electrons.data, 2500.0)
    np.testing.assert_allclose(electrons.uncertainty.array, 2.5 * counts.uncertainty.array)
    # Poisson's law holds in electrons: the square of the error is the signal and the read noise.
    np.testing.assert_allclose(electrons.uncertainty.array**2, 2500 + 25, rtol=1e-5)
    with pytest.raises(FrameError, match="calibrated already"):
        reduce_frame(electrons, camera=camera, electrons=True)
    with pytest.raises(FrameError, match="electrons already"):
        to_electrons(electrons, gain=2.5)
    with pytest.warns(DataredWarning, match="stays in ADU"):
        assert reduce_frame(raw, electrons=True).unit == u.adu


def test_electrons_in_a_night(tmp_path):
    """PR-12: products in electrons say so to later steps: unit, and a gain of 1."""
    night = write_night(tmp_path, text="[reduction]\nelectrons = true\n")
    masters_night(night)
    ccd = read_product(night.work / reduce_night(night)["product"][0])
    assert ccd.unit == u.electron and ccd.meta["GAIN_E"] == 1 and ccd.meta["RON_E"] == READ_NOISE
    assert abs(np.median(ccd.data) - 200 * GAIN) < 1.5


def test_uncertainty_holds_the_bias_once():
    """PR-13: pulls of whole reductions, masters included, have width 1 for any scale of the dark.

    Each trial has its own few bias frames and darks, so that their noise counts: with two of each,
    the error of the bias is as large as the read noise itself.
    """
    rng = np.random.default_rng(12)
    camera = SimpleNamespace(gain=1.0, read_noise=10.0, trim=None, overscan=None)
    for scale in (0.3, 1.0, 1.7):
        pulls = []
        for _ in range(6):
            noise = rng.normal(0, 10, (5, *SHAPE))
            noisy = noise.astype(np.float32)
            bias = master(500 + noisy[0], "bias", sigma=10.0)
            raw_dark = 500 + noisy[1:3].mean(axis=0)
            dark = master(raw_dark - bias.data, "dark", BIASCOR=True)
            dark.uncertainty = StdDevUncertainty(np.full(SHAPE, np.hypot(10 / 2**0.5, 10)))
            light = 500 + 900 + rng.normal(0, 30, SHAPE) + noisy[3]
            result = reduce_frame(
                frame(light), bias=bias, dark=dark, dark_scale=scale, camera=camera,
                uncertainty=True,
            )  # fmt: skip
            pulls.append((result.data - 900) / result.uncertainty.array)
        # 25200 pulls tell a width to 0.45 %; the Poisson part follows the noisy value.
        assert 0.98 < np.std(pulls) < 1.02


def test_repair_modes_of_the_night(tmp_path):
    """PX-04, 004-05: mask keeps the value of a bad pixel, gaussian fills it; both keep the flag."""
    results = {}
    for mode in ("mask", "gaussian"):
        night = write_night(tmp_path / mode, text=f'[reduction]\nrepair = "{mode}"\n')
        masters_night(night)
        results[mode] = read_product(night.work / reduce_night(night)["product"][0])
    kept, filled = results["mask"], results["gaussian"]
    assert pixels.describe(kept.flags[12, 10]) == ["hot"]
    assert pixels.describe(filled.flags[12, 10]) == ["hot", "repaired"]
    around = np.median(kept.data[8:17, 6:15])
    # The hot pixel gives 2400 ADU of dark current, and so a noise of 60 ADU; the others 20 ADU.
    assert abs(filled.data[12, 10] - around) < 30
    good = kept.flags == 0
    np.testing.assert_array_equal(kept.data[good], filled.data[good])


def test_cosmic_rays_of_the_night(tmp_path):
    """PX-05, 004-11, 003-09: off by default; found after the flat where the night file asks."""
    found = {}
    for method in ("", "laplacian", "median"):
        text = f'[reduction]\ncosmic_rays = "{method}"\n'
        night = write_night(tmp_path / (method or "off"), text=text)
        path = night.raw / "light_r0.fits"
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[30, 40:44] += 3000
        masters_night(night)
        ccd = read_product(night.work / reduce_night(night)["product"][0])
        found[method] = (ccd.flags & pixels.COSMIC) != 0
    assert not found[""].any()
    assert found["laplacian"][30, 40:44].all() and found["laplacian"].sum() < 12
    # The median method finds the middle of a track, and not its faint ends.
    assert found["median"][30, 41:43].all() and found["median"].sum() < 12


def test_cosmic_rays_need_the_noise():
    """PX-05: without gain and read noise the message says what to put where."""
    with pytest.raises(FrameError, match="read_noise in the table"):
        reduce_frame(frame(np.ones(SHAPE)), cosmic_rays="laplacian")
    with pytest.raises(ValueError, match="mask, gaussian"):
        reduce_frame(frame(np.ones(SHAPE)), repair="median")


def test_chain_equals_steps(tmp_path):
    """003-10, PR-08: the night by one call is what the steps give one by one, bit for bit."""
    night = write_night(tmp_path)
    masters_night(night)
    table = reduce_night(night)
    raw = sorted(night.raw.glob("*.fits"))
    groups = {
        kind: [p for p in raw if p.name.startswith(kind)] for kind in ("bias", "dark", "flat")
    }
    bias = master_bias(groups["bias"], camera=night.camera)
    dark = master_dark(groups["dark"], bias=bias, camera=night.camera, exptime=60.0)
    flat = master_flat(groups["flat"], bias=bias, dark=dark, dark_scale=2 / 60, camera=night.camera)
    light = read_frame(night.raw / table["file"][0], camera=night.camera)
    result = reduce_frame(light, bias=bias, dark=dark, flat=flat, camera=night.camera)
    product = read_product(night.work / table["product"][0])
    np.testing.assert_array_equal(result.data, product.data)
    np.testing.assert_array_equal(result.flags, product.flags)


def test_products_are_counts_not_rates(tmp_path):
    """002-08, E07: twice the exposure gives twice the counts, each with the dark of its time."""
    night = write_night(tmp_path, lights=1)
    rng = np.random.default_rng(8)
    cards = {"OBJECT": "M 67", "filter": "r"}
    write(night.raw, "long", expose(400, 120, rng), "LIGHT", 120.0, **cards)
    masters_night(night)
    table = reduce_night(night)
    assert dict(zip(table["exptime"], table["dark_scale"], strict=True)) == {60.0: 1.0, 120.0: 2.0}
    levels = [np.median(read_product(night.work / p).data) for p in table["product"]]
    assert levels == pytest.approx([200, 400], abs=1.5)


def test_uncertainty_without_bias_frames():
    """PR-13, E11: the bias that goes with the dark has no photons."""
    rng = np.random.default_rng(21)
    camera = SimpleNamespace(gain=1.0, read_noise=5.0, trim=None, overscan=None)
    dark = master(np.full(SHAPE, 1020.0), "dark", sigma=0.0, BIASCOR=False)
    pulls = []
    for _ in range(5):
        light = 1000 + rng.poisson(220, SHAPE) + rng.normal(0, 5, SHAPE)
        result = reduce_frame(frame(light), dark=dark, camera=camera, uncertainty=True)
        pulls.append((result.data - 200) / result.uncertainty.array)
    # The 20 electrons of dark current went with the bias: 245 instead of 225 in the variance.
    assert np.std(pulls) == pytest.approx((245 / 225) ** 0.5, abs=0.03)
