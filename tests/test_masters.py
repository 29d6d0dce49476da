"""Masters from calibration frames of a sensor whose bias, dark rate and flat are known."""

import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table

from datared import masters, pixels
from datared.calibration import master_bias, master_dark, master_flat
from datared.errors import ConfigError, FrameError
from datared.frames import inventory, read_product
from datared.matching import choose_dark, match_frames, plan_masters
from datared.night import load_night
from datared.options import Camera
from datared.reduction import reduce_night
from datared.render import star_image

SHAPE = (64, 80)
GAIN, READ_NOISE, OFFSET = 1.5, 6.0, 500.0
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
BIAS = OFFSET + 3.0 * np.sin(X / 9.0)
RATE = np.where((X == 20) & (Y == 30), 10.0, 0.2)  # ADU/s, one hot pixel
FLAT = 1.1 - 0.3 * ((X - 40) ** 2 + (Y - 32) ** 2) / 2000.0
FLAT[50, 60] = 0.2 * FLAT[50, 60]  # one dead pixel
FLAT /= np.median(FLAT)


def expose(light, exptime, rng):
    """Raw frame of a light level in ADU (array or number) and an exposure time."""
    electrons = np.broadcast_to((light * FLAT + RATE * exptime) * GAIN, SHAPE)
    counts = (rng.poisson(electrons) + rng.normal(0, READ_NOISE, SHAPE)) / GAIN + BIAS
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def write(folder, name, data, kind, exptime, *, filter="", **cards):
    """Write a raw frame in the words of NINA."""
    header = fits.Header()
    header["IMAGETYP"], header["EXPTIME"], header["GAIN"] = kind, exptime, 30
    header["DATE-OBS"] = "2024-01-01T20:00:00"
    if filter:
        header["FILTER"] = filter
    header.update(cards)
    folder.mkdir(parents=True, exist_ok=True)
    fits.writeto(folder / f"{name}.fits", data, header)
    return folder / f"{name}.fits"


def series(folder, kind, n, exptime, *, light=0.0, filter="", seed=1, **cards):
    """Write n frames of one kind; the paths."""
    rng = np.random.default_rng(seed)
    name = f"{kind.lower()}{exptime:g}{filter}"
    return [
        write(
            folder,
            f"{name}_{i}",
            expose(light, exptime, rng),
            kind,
            exptime,
            filter=filter,
            **cards,
        )
        for i in range(n)
    ]


def make_night(folder, text=""):
    """Night over folder/raw."""
    (folder / "night.toml").write_text(
        f'raw = "raw"\nwork = "work"\n[camera]\ngain = {GAIN}\nread_noise = {READ_NOISE}\n{text}'
    )
    return load_night(folder)


@pytest.fixture
def bias(tmp_path):
    """Master of nine bias frames."""
    return master_bias(series(tmp_path / "b", "BIAS", 9, 0.0))


def test_master_bias_is_median(tmp_path):
    """PR-01, 000-11: the master is numpy's median, exactly."""
    paths = series(tmp_path, "BIAS", 7, 0.0)
    master = master_bias(paths)
    stack = [fits.getdata(path).astype(np.float32) for path in paths]
    np.testing.assert_array_equal(master.data, np.median(stack, axis=0))
    assert master.meta["NCOMBINE"] == 7 and master.meta["KIND"] == "bias"


@pytest.mark.parametrize("n", [9, 21])
def test_bias_noise_law(tmp_path, n):
    """PR-16, F22, Q4: noise of the master and of a frame are those of the sensor, and stated so."""
    master = master_bias(series(tmp_path, "BIAS", n, 0.0))
    sigma = np.hypot(READ_NOISE / GAIN, 12**-0.5)
    measured = (master.data - BIAS).std(dtype=float)
    # 5120 pixels tell a deviation to 1 %; the factor of a median of 9 is 2 % below 1.253.
    assert 0.95 < measured / (1.2533 * sigma / np.sqrt(n)) < 1.05
    assert 0.95 < master.uncertainty.array.mean() / measured < 1.05
    assert master.meta["READNOIS"] == pytest.approx(sigma, rel=0.06)


def test_e15_single_bias_is_returned(tmp_path):
    """E15: one frame is its own master."""
    paths = series(tmp_path, "BIAS", 1, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        master = master_bias(paths)
    np.testing.assert_array_equal(master.data, fits.getdata(paths[0]))
    assert master.meta["NCOMBINE"] == 1
    with pytest.raises(FrameError, match="no frame"):
        master_bias([])


def test_master_dark_rate_and_hot_pixel(tmp_path, bias):
    """000-01: darks of 30 and 60 s have one rate, and the hot pixel is flagged."""
    rates = []
    for exptime in (30.0, 60.0):
        dark = master_dark(series(tmp_path, "DARK", 9, exptime), bias=bias)
        assert dark.meta["EXPTIME"] == exptime and dark.meta["BIASCOR"] is True
        assert dark.flags[30, 20] & pixels.HOT
        assert np.count_nonzero(dark.flags) == 1
        rates.append(dark.data / exptime)
        error = np.hypot(dark.uncertainty.array.mean(), bias.uncertainty.array.mean())
        # The mean of 5120 pixels is 70 times better than one; 4 sigma, bias in common.
        assert abs(np.mean(dark.data - RATE * exptime)) < 4 * error / 70 + 0.05
    assert abs(np.mean(rates[0] - rates[1])) < 0.02


def test_cosmic_in_10_darks_e18(tmp_path, bias):
    """E18: a hit in one of ten darks does not show."""
    paths = series(tmp_path, "DARK", 10, 60.0)
    data, header = fits.getdata(paths[3], header=True)
    data[5, 6] = 60_000
    fits.writeto(paths[3], data, header, overwrite=True)
    dark = master_dark(paths, bias=bias)
    assert abs(dark.data[5, 6] - 12) < 5 * dark.uncertainty.array.mean()


def test_flat_median_is_one(tmp_path, bias):
    """Median 1 to 1e-6, true to its noise, with level, number and flags.

    PR-06, 000-17, 000-18, 002-06.
    """
    flat = master_flat(series(tmp_path, "FLAT", 7, 2.0, light=20_000.0, filter="r"), bias=bias)
    assert abs(np.median(flat.data) - 1) < 1e-6
    assert flat.meta["FLATLVL"] == pytest.approx(20_000, rel=0.01)
    assert flat.meta["NCOMBINE"] == 7
    pull = (flat.data - FLAT) / flat.uncertainty.array
    assert 0.9 < 1.4826 * np.median(abs(pull)) < 1.15  # t distribution of six degrees of freedom
    assert np.argwhere(flat.flags & pixels.DEAD).tolist() == [[50, 60]]


def test_sky_flats_reject_stars(tmp_path, bias):
    """Seven twilight flats with falling level and dithered stars: residual below 0.3 %.

    PR-06, 000-06.
    """
    rng = np.random.default_rng(5)
    x, y = rng.uniform(5, 75, 8), rng.uniform(5, 59, 8)
    paths = []
    for i, level in enumerate(np.linspace(38_000, 14_000, 7)):
        dx, dy = rng.uniform(-15, 15, 2)
        stars = star_image(SHAPE, x + dx, y + dy, np.full(8, 40_000.0), fwhm=2.5)
        data = expose(level + stars, 3.0, rng)
        paths.append(write(tmp_path, f"sky{i}", data, "FLAT", 3.0, filter="g"))
    flat = master_flat(paths, bias=bias)
    error = (flat.data / FLAT - 1)[(Y != 50) | (X != 60)]
    # The shot noise of the master is 0.3 %: the residue of stars is the excess of its tail and
    # its mean, not its scatter.
    assert abs(error.mean()) < 0.0005
    assert np.abs(error).max() < 0.003 + 5 * flat.uncertainty.array.mean()
    smooth = error[: 64 * 79].reshape(-1, 16).mean(axis=1)
    assert np.abs(smooth).max() < 0.003 + 4 * flat.uncertainty.array.mean() / 4


def test_e17_saturated_flat_rejected_and_faint_one(tmp_path, bias, caplog):
    """E17, 000-05: saturated and empty flats stay out, with the reason; alone they are an error."""
    good = series(tmp_path, "FLAT", 5, 2.0, light=20_000.0, filter="r")
    bad = [
        write(tmp_path, "sat", np.full(SHAPE, 65535, np.uint16), "FLAT", 9.0, filter="r"),
        write(tmp_path, "empty", expose(0, 0.1, np.random.default_rng(1)), "FLAT", 0.1, filter="r"),
    ]
    flat = master_flat(good + bad, bias=bias)
    assert flat.meta["NCOMBINE"] == 5 and flat.meta["NREJECT"] == 2
    assert "sat.fits: saturated" in flat.meta["REJECT1"]
    assert "empty.fits: too faint" in flat.meta["REJECT2"]
    assert "rejected" in caplog.text
    with pytest.raises(FrameError, match="saturated"):
        master_flat(bad, bias=bias)


def test_e16_flat_with_zero_and_nan(tmp_path):
    """E16: NaN in one flat costs one value; zeros in all are flagged; the median stays finite."""
    flats = [np.full(SHAPE, level, np.float32) for level in (9000, 10_000, 12_000, 14_000)]
    for data in flats:
        data[3, 4] = 0
        data[5, 6] = np.nan
    flats[0][10:20] = np.nan
    paths = [write(tmp_path, f"f{i}", data, "FLAT", 1.0) for i, data in enumerate(flats)]
    flat = master_flat(paths)
    assert abs(np.nanmedian(flat.data) - 1) < 1e-6
    assert flat.flags[3, 4] & pixels.LOW_FLAT and flat.flags[5, 6] & pixels.NONFINITE
    assert np.count_nonzero(flat.flags) == 2


def test_e06_flats_of_two_exposure_times(tmp_path, bias):
    """E06, 000-16, 002-04: each flat gets its own dark and factor."""
    series(tmp_path / "raw", "BIAS", 5, 0.0)
    series(tmp_path / "raw", "DARK", 5, 60.0)
    series(tmp_path / "raw", "FLAT", 3, 2.0, light=9000.0, filter="r")
    series(tmp_path / "raw", "FLAT", 3, 60.0, light=20_000.0, filter="r")
    plan = next(p for p in plan_masters(inventory(make_night(tmp_path))) if p.kind == "flat")
    assert sorted(set(plan.scales)) == [pytest.approx(2 / 60), 1.0]
    table = masters.masters_night(make_night(tmp_path))
    assert set(table["status"]) == {"made"}
    flat = read_product(tmp_path / "work/masters/flat_r.fits")
    # A hot pixel of 600 ADU in 60 s is gone to its noise.
    assert abs(flat.data[30, 20] / FLAT[30, 20] - 1) < 0.03


def test_darkflat(tmp_path):
    """Dark-flats of the same exposure are used: master = median((F - DF) / median).

    PR-05, 004-01, 004-04, F3.
    """
    raw = tmp_path / "raw"
    darks = series(raw, "DARKFLAT", 5, 4.0)
    flats = series(raw, "FLAT", 3, 4.0, light=20_000.0, filter="r")
    series(raw, "DARK", 3, 60.0)
    night = make_night(tmp_path)
    masters.masters_night(night)
    plan = next(p for p in plan_masters(inventory(night)) if p.kind == "flat")
    assert set(plan.darks) == {"darkflat_4s"} and set(plan.scales) == {1.0}
    dark = np.median([fits.getdata(p).astype(float) for p in darks], axis=0)
    stack = np.array([fits.getdata(p).astype(float) - dark for p in flats])
    stack /= np.median(stack, axis=(1, 2), keepdims=True)
    expected = np.median(stack, axis=0)
    flat = read_product(night.work / "masters/flat_r.fits")
    ratio = flat.data / expected * np.median(expected)
    # Of three values one is rarely 3 sigma from the middle one, in some 2 % of the pixels; they
    # move the median that it was divided by, by less than its noise of 0.006 / sqrt(5120).
    assert abs(np.median(ratio) - 1) < 3e-4
    assert np.isclose(ratio, np.median(ratio), rtol=1e-5).mean() > 0.95


def test_dark_per_exposure(tmp_path):
    """PR-03, E05, 000-13: darks of 30, 45 and 192 s (one says 29.999) are three masters."""
    raw = tmp_path / "raw"
    for exptime in (30.0, 45.0, 192.0):
        series(raw, "DARK", 3, exptime)
    write(raw, "odd", expose(0, 30, np.random.default_rng(1)), "DARK", 29.999)
    series(raw, "BIAS", 3, 0.0)
    table = masters.masters_night(make_night(tmp_path))
    made = {row["file"]: row["ncombine"] for row in table if row["kind"] == "dark"}
    assert made == {
        "masters/dark_30s.fits": 4, "masters/dark_45s.fits": 3, "masters/dark_192s.fits": 3,
    }  # fmt: skip
    assert read_product(tmp_path / "work/masters/dark_192s.fits").meta["EXPTIME"] == 192


def test_e08_e09_mixed_setups(tmp_path):
    """Two sizes and two gain settings make masters of their own, and are never mixed.

    E08, E09, HD-04, PR-14.
    """
    raw = tmp_path / "raw"
    series(raw / "a", "BIAS", 3, 0.0)
    for i in range(3):
        write(raw / "b", f"small{i}", np.full((20, 30), 400, np.uint16), "BIAS", 0.0)
        write(raw / "c", f"gain{i}", np.full(SHAPE, 300, np.uint16), "BIAS", 0.0, GAIN=60)
    write(raw / "d", "light", np.full((20, 30), 900, np.uint16), "LIGHT", 10.0, filter="r")
    night = make_night(tmp_path)
    table = masters.masters_night(night)
    assert len(table) == 3 and set(table["ncombine"]) == {3}
    match = match_frames(inventory(night)[-1:], plan_masters(inventory(night)))
    assert read_product(night.work / f"masters/{match['bias'][0]}.fits").shape == (20, 30)
    with pytest.raises(FrameError, match=r"small0.fits.*\(20, 30\).*bias.*\(1, 30\)"):
        # numpy would take the one row off every row.
        one_row = master_bias([CCDData(np.zeros((1, 30), np.float32), unit="adu")])
        master_dark([raw / "b/small0.fits"], bias=one_row, exptime=1.0)
    with pytest.raises(FrameError, match=r"small0.fits.*\(20, 30\)"):
        master_bias([raw / "a/bias0_0.fits", raw / "b/small0.fits"])


@pytest.mark.parametrize(
    ("exptime", "darks", "expected"),
    [
        (30, [30, 60], (0, 1.0, "exact")),
        (29.999, [60, 30], (1, 1.0, "exact")),
        (96, [30, 192], (1, 0.5, "scaled")),
        (20, [30, 60, 120], (2, 20 / 120, "scaled")),
        (1, [30, 600], (0, 1 / 30, "scaled")),
        (300, [30, 60], (1, 5.0, "scaled")),
        (10, [], (None, 0.0, "none")),
        (float("nan"), [10], (None, 0.0, "none")),
        (0.0, [0.0, 10], (0, 1.0, "exact")),
    ],
)
def test_choose_dark(exptime, darks, expected):
    """PR-04: exact, else the longest within the limits, else the nearest to them, else none."""
    which, scale, match = choose_dark(exptime, darks)
    assert (which, match) == (expected[0], expected[2])
    assert scale == pytest.approx(expected[1])


def test_choose_dark_with_bias_only_by_permission():
    """A dark with bias is scaled only when that is asked for; an exact one is always right.

    PR-04.
    """
    assert choose_dark(96, [192], bias_free=False)[2] == "none"
    assert choose_dark(96, [192], bias_free=False, allow_bias=True) == (0, 0.5, "scaled")
    assert choose_dark(192, [192], bias_free=False) == (0, 1.0, "exact")


def test_skip_bias_e11(tmp_path, caplog):
    """PR-01, E11, 000-04: a night without bias: darks keep it (BIASCOR = F), and are not scaled."""
    raw = tmp_path / "raw"
    series(raw, "DARK", 3, 60.0)
    series(raw, "LIGHT", 1, 60.0, light=100.0, filter="r")
    series(raw, "LIGHT", 1, 30.0, light=100.0, filter="r")
    night = make_night(tmp_path)
    table = masters.masters_night(night)
    assert list(table["kind"]) == ["dark"]
    dark = read_product(night.work / "masters/dark_60s.fits")
    assert dark.meta["BIASCOR"] is False and np.median(dark.data) > 400
    lights = inventory(night)[inventory(night)["kind"] == "light"]
    match = match_frames(lights, plan_masters(inventory(night)))
    assert sorted(match["dark_match"]) == ["exact", "none"]
    assert "without bias" in " ".join(match["why"]) and "no bias" in caplog.text


@pytest.mark.filterwarnings("ignore:.*the dark contains the bias")
def test_dark_with_its_bias_is_scaled_only_by_permission(tmp_path):
    """E13: with scale_dark_with_bias a 96 s light keeps half of the 1000 ADU of bias (F2)."""
    raw = tmp_path / "raw"
    series(raw, "DARK", 3, 192.0)
    series(raw, "LIGHT", 1, 96.0, light=100.0, filter="r")
    night = make_night(tmp_path, "[reduction]\nscale_dark_with_bias = true\nuse_flat = false\n")
    masters.masters_night(night)
    match = Table.read(night.work / "matching.ecsv")
    assert list(match["dark_match"]) == ["scaled"] and match["dark_scale"][0] == 0.5
    assert "with its bias" in match["why"][0]
    reduce_night(night)
    level = np.median(read_product(next((night.work / "reduced").glob("*.fits"))).data)
    # The dark current is subtracted right; the light is multiplied by the flat's median.
    assert level == pytest.approx(np.median(0.5 * BIAS + 100 * FLAT), abs=5)


def test_missing_flat_strict_e14(tmp_path):
    """PR-09, E14: strict stops before any file is written, and names frame and filter."""
    raw = tmp_path / "raw"
    series(raw, "BIAS", 3, 0.0)
    series(raw, "DARK", 3, 10.0)
    series(raw, "FLAT", 3, 2.0, light=20_000.0, filter="r")
    series(raw, "LIGHT", 2, 10.0, light=500.0, filter="g")
    night = make_night(tmp_path, "[reduction]\nstrict = true\n")
    with pytest.raises(ConfigError, match="no flat in filter 'g'"):
        masters.masters_night(night)
    assert not night.work.exists()


def test_e04_filters_by_exact_name(tmp_path):
    """E04: R and r stay apart, blanks around do not count."""
    raw = tmp_path / "raw"
    series(raw / "1", "FLAT", 3, 2.0, light=20_000.0, filter="r")
    series(raw / "2", "FLAT", 3, 2.0, light=20_000.0, filter="R", seed=2)
    series(raw / "3", "FLAT", 1, 2.0, light=20_000.0, filter=" r ", seed=3)
    table = masters.masters_night(make_night(tmp_path))
    assert dict(zip(table["filter"], table["ncombine"], strict=True)) == {"r": 4, "R": 3}
    assert len({name.lower() for name in table["file"]}) == 2


def test_e10_temperature_is_remarked(tmp_path):
    """E10: a dark taken 5 degrees colder is used, with a remark."""
    raw = tmp_path / "raw"
    series(raw, "BIAS", 3, 0.0)
    series(raw, "DARK", 3, 10.0, **{"CCD-TEMP": -10.0})
    series(raw, "LIGHT", 1, 10.0, filter="r", **{"CCD-TEMP": -5.0})
    table = inventory(make_night(tmp_path))
    match = match_frames(table[table["kind"] == "light"], plan_masters(table))
    assert "5.0 deg C warmer" in match["why"][0] and match["dark_match"][0] == "exact"


def test_rejected_flats_leave_no_master(tmp_path):
    """E17: where all flats are saturated the night goes on without, and says why."""
    raw = tmp_path / "raw"
    for i in range(3):
        write(raw, f"f{i}", np.full(SHAPE, 65535, np.uint16), "FLAT", 9.0, filter="r")
    series(raw, "LIGHT", 1, 10.0, light=100.0, filter="r")
    night = make_night(tmp_path)
    table = masters.masters_night(night)
    assert table["status"][0] == "failed" and "saturated" in table["reason"][0]
    assert "flat_r" not in (night.work / "matching.ecsv").read_text()


def test_e20_stale_product_is_ignored_and_second_run_is_current(tmp_path):
    """E20, HD-07: old files in the product folder never enter a master; nothing is made twice."""
    raw = tmp_path / "raw"
    series(raw, "BIAS", 3, 0.0)
    night = make_night(tmp_path)
    masters.masters_night(night)
    product = night.work / "masters/bias.fits"
    before = product.read_bytes()
    fits.writeto(night.work / "masters/bias_old.fits", np.full(SHAPE, 9e4, np.float32))
    assert list(masters.masters_night(night)["status"]) == ["current"]
    product.unlink()
    assert list(masters.masters_night(night)["status"]) == ["made"]
    assert product.read_bytes() == before


def test_overscan_is_taken_off_each_frame(tmp_path):
    """PR-11: a bias level that drifts by 40 ADU between frames is gone from the master."""
    camera = Camera(overscan="[81:90,1:64]", trim="[1:80,1:64]")
    rng = np.random.default_rng(1)
    paths = []
    for i, drift in enumerate([0, 40, 15, -20, 5]):
        data = np.hstack([expose(0, 0, rng), np.full((64, 10), 500)]).astype(int) + drift
        paths.append(write(tmp_path, f"b{i}", data.astype(np.uint16), "BIAS", 0.0))
    master = master_bias(paths, camera=camera)
    assert master.shape == SHAPE
    # Median of 5, sigma 4 ADU: 2.1 ADU; six sigma for the largest of 5120 is safe.
    assert np.abs(master.data - (BIAS - 500)).max() < 6 * 2.2


def test_mean_of_a_night_is_clipped(tmp_path):
    """PR-02: method = "mean" in the night file gives masters with less noise, without the hits."""
    rng = np.random.default_rng(2)
    for i in range(9):
        data = expose(0, 0, rng)
        data[5, i] += 20_000
        write(tmp_path / "raw", f"bias{i}", data, "BIAS", 0.0)
    write(tmp_path / "raw", "light", expose(100, 10, rng), "LIGHT", 10.0, filter="r")
    noise = {}
    for method in ("median", "mean"):
        night = make_night(tmp_path, f'[reduction]\nmethod = "{method}"\n')
        assert masters.masters_night(night)["status"][0] == "made"
        master = read_product(night.work / "masters/bias.fits")
        assert np.abs(master.data[5, :9] - BIAS[5, :9]).max() < 5 * READ_NOISE / GAIN / 3
        noise[method] = np.std(master.data - BIAS)
    # The law for nine values: 1.253 sigma/sqrt(N) is 1.22 for so few; 5120 pixels tell it to 1.4 %.
    assert 1.1 < noise["median"] / noise["mean"] < 1.3


def test_uncertainty_of_a_dark_holds_that_of_the_bias(tmp_path):
    """PR-13: pulls of a master dark against the truth, bias included, have width 1."""
    bias = master_bias(series(tmp_path / "b", "BIAS", 9, 0.0, seed=5))
    dark = master_dark(series(tmp_path / "d", "DARK", 9, 30.0, seed=6), bias=bias)
    good = dark.flags == 0
    pulls = ((dark.data - RATE * 30) / dark.uncertainty.array)[good]
    # The error of a pixel from nine values is itself uncertain by 1/4: the robust width is 1.05.
    width = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
    assert 0.95 < width < 1.12
    # Medians of nine: 1.22/3 of the noise. A rms of uncertain errors is 3 % above their mean.
    one = 2 * (READ_NOISE / GAIN) ** 2 + 0.2 * 30 / GAIN
    rms = np.sqrt(np.mean(dark.uncertainty.array[good] ** 2))
    assert rms == pytest.approx(1.03 * 1.22 / 3 * one**0.5, rel=0.04)


def test_outliers_among_their_siblings_stay_out(tmp_path, caplog):
    """000-05: a dark with a light leak, and a flat with another light, are named in the header."""
    rng = np.random.default_rng(3)
    darks = series(tmp_path / "d", "DARK", 5, 30.0)
    leak = expose(0, 30, rng) + np.rint(X * 2).astype(np.uint16)
    darks.append(write(tmp_path / "d", "leak", leak, "DARK", 30.0))
    master = master_dark(darks)
    assert master.meta["NCOMBINE"] == 5 and master.meta["NREJECT"] == 1
    assert master.meta["REJECT1"].startswith("leak.fits: light leak?")
    assert "leak.fits: light leak?" in caplog.text
    clean = master_dark(darks[:5])
    np.testing.assert_array_equal(master.data, clean.data)
    flats = series(tmp_path / "f", "FLAT", 4, 2.0, light=20_000.0, filter="r")
    dome = expose(20_000 * (0.8 + 0.4 * X / X.max()), 2, rng)
    flats.append(write(tmp_path / "f", "lamp", dome, "FLAT", 2.0, filter="r"))
    master = master_flat(flats)
    assert master.meta["NCOMBINE"] == 4 and "falls otherwise" in master.meta["REJECT1"]


def test_flat_takes_the_pixel_response_away(tmp_path, bias):
    """000-08: an independent flat, divided by the master, has the scatter of its photons only."""
    rng = np.random.default_rng(4)
    response = rng.normal(1, 0.02, SHAPE)

    def flats(name, n, light):
        return [
            write(
                tmp_path, f"{name}{i}", expose(light * response, 1.0, rng), "FLAT", 1.0, filter="r"
            )
            for i in range(n)
        ]

    master = master_flat(flats("many", 25, 20_000.0), bias=bias)
    raw = fits.getdata(flats("one", 1, 20_000.0)[0]).astype(float) - bias.data
    good = master.flags == 0
    smooth = raw / FLAT
    before = np.std((smooth / np.median(smooth))[good])
    flat = raw / master.data
    after = np.std((flat / np.median(flat))[good])
    level = np.median(raw)
    # Photons and read noise of the one flat, and those of the 25 that made the master (median).
    expected = (level / GAIN + (READ_NOISE / GAIN) ** 2) ** 0.5 / level * (1 + 1.53 / 25) ** 0.5
    assert before > 2.5 * expected
    assert 0.95 < after / expected < 1.1


def test_illumination_of_a_night(tmp_path):
    """PR-06: with illumination = true a tilted lamp is corrected by the sky of the lights."""
    shape = (256, 320)
    x = np.mgrid[: shape[0], : shape[1]][1]
    lamp = 1 + 0.2 * (x / shape[1] - 0.5)
    rng = np.random.default_rng(9)
    raw = tmp_path / "raw"

    def take(name, light, kind, exptime, **cards):
        counts = 500 + rng.normal(light, np.sqrt(light / GAIN + 16), shape)
        write(raw, name, np.rint(counts).astype(np.uint16), kind, exptime, **cards)

    for i in range(5):
        take(f"bias{i}", 0 * lamp, "BIAS", 0.0)
        take(f"flat{i}", 20_000 * lamp, "FLAT", 2.0, filter="r")
    for i in range(4):
        take(f"light{i}", 400 + 0 * lamp, "LIGHT", 60.0, filter="r", OBJECT=f"field {i}")
    slopes = {}
    for wanted in ("false", "true"):
        text = f"[reduction]\nillumination = {wanted}\n"
        night = make_night(tmp_path, text)
        table = masters.masters_night(night)
        reduced = reduce_night(night)
        sky = read_product(night.work / reduced["product"][0])
        columns = np.median(sky.data, axis=0)
        slopes[wanted] = np.polyfit(np.arange(320) / 320, columns / np.median(columns), 1)[0]
    # 82000 pixels of 17 ADU noise on 400 ADU tell the slope to 0.05 %; four frames made the map.
    assert abs(slopes["false"] + 0.2) < 0.02 and abs(slopes["true"]) < 0.003
    assert set(reduced["flat"]) == {"flat_r_illum"} and "masters/flat_r_illum.fits" in table["file"]
    product = read_product(night.work / "masters/flat_r_illum.fits")
    assert product.meta["ILLUMCOR"] is True and product.meta["NILLUM"] == 4


def test_illumination_that_cannot_be_had_is_a_remark(tmp_path, caplog):
    """With too few lights the plain flat is used, and the tables say why."""
    raw = tmp_path / "raw"
    series(raw, "BIAS", 3, 0.0)
    series(raw, "FLAT", 3, 2.0, light=20_000.0, filter="r")
    series(raw, "LIGHT", 2, 60.0, light=400.0, filter="r")
    night = make_night(tmp_path, "[reduction]\nillumination = true\n")
    table = masters.masters_night(night)
    reduced = reduce_night(night)
    assert set(reduced["flat"]) == {"flat_r"} and set(reduced["status"]) == {"made"}
    assert all("flat not corrected by the sky" in why for why in reduced["why"])
    assert table["status"][table["file"] == "masters/flat_r_illum.fits"][0] == "failed"


def test_rejected_frame_with_any_name(tmp_path):
    """E42: a saturated flat with letters outside ASCII, in a sub-folder, is named as it is."""
    raw = tmp_path / "raw"
    series(raw, "FLAT", 4, 2.0, light=20_000.0, filter="r")
    full = np.full(SHAPE, 65535, np.uint16)
    write(raw / "sub", "flät", full, "FLAT", 2.0, filter="r")
    write(raw, "light", expose(100, 10, np.random.default_rng(1)), "LIGHT", 10.0, filter="r")
    table = masters.masters_night(make_night(tmp_path))
    assert table["status"][table["file"] == "masters/flat_r.fits"][0] == "made"
    assert list(table["file"][table["status"] == "left out"]) == ["sub/flät.fits"]


@pytest.mark.parametrize("card", ["ITIME", None])
def test_flats_with_an_unusual_or_no_exposure_card(tmp_path, card):
    """HD-03: a flat needs no exposure time to be combined, and the card may have another name."""
    paths = series(tmp_path, "FLAT", 3, 2.0, light=20_000.0, filter="r")
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            del hdus[0].header["EXPTIME"]
            if card:
                hdus[0].header[card] = 2.0
    assert abs(np.median(master_flat(paths).data) - 1) < 1e-6


def test_error_of_a_single_dark(tmp_path):
    """E15, PR-13: one dark has no scatter, but the bias frames know the read noise."""
    bias = master_bias(series(tmp_path / "b", "BIAS", 9, 0.0))
    dark = master_dark(series(tmp_path / "d", "DARK", 1, 30.0), bias=bias)
    expected = np.hypot(READ_NOISE / GAIN, np.median(bias.uncertainty.array))
    assert np.median(dark.uncertainty.array) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("dtype", "good", "full"),
    [("u1", 119, 255), ("i2", 15_000, 32_767), ("u2", 30_000, 65_535), ("i4", 100_000, None)],
)
def test_saturation_of_any_type(tmp_path, dtype, good, full):
    """E17, HD-06: what is saturated follows from the numbers that a file can hold."""
    rng = np.random.default_rng(6)

    def flats(level):
        data = np.clip(rng.normal(level, 2, (3, *SHAPE)), 0, level + 20).astype(dtype)
        folder = tmp_path / str(level)
        return [write(folder, f"{i}", x, "FLAT", 1.0, filter="r") for i, x in enumerate(data)]

    assert master_flat(flats(good)).meta["NCOMBINE"] == 3
    if full is not None:
        paths = [
            write(tmp_path / "full", f"{i}", np.full(SHAPE, full, dtype), "FLAT", 1.0, filter="r")
            for i in range(3)
        ]
        with pytest.raises(FrameError, match="saturated"):
            master_flat(paths)


@pytest.mark.parametrize("sigma", [0.8, 1.4, 1.7, 5.7])
def test_read_noise_card_is_finer_than_a_count(tmp_path, sigma):
    """PR-16: READNOIS of whole numbers is not one of a few values."""
    rng = np.random.default_rng(11)
    data = np.rint(rng.normal(500, sigma, (2, *SHAPE))).astype(np.uint16)
    paths = [write(tmp_path, f"{i}", x, "BIAS", 0.0) for i, x in enumerate(data)]
    # 5120 pixels tell it to 1 %.
    assert master_bias(paths).meta["READNOIS"] == pytest.approx(sigma, rel=0.04)


def test_bias_is_not_subtracted_twice_from_flats(tmp_path, bias):
    """000-12: a dark that contains the bias is refused beside a master bias."""
    dark = master_dark(series(tmp_path / "d", "DARK", 3, 2.0))
    flats = series(tmp_path / "f", "FLAT", 3, 2.0, light=3000.0, filter="r")
    with pytest.raises(FrameError, match="twice"):
        master_flat(flats, bias=bias, dark=dark)


def test_e20_hot_map_of_an_earlier_run_is_not_used(tmp_path):
    """E20: when too few lights are left for a map of hot pixels, the old one is gone."""
    raw = tmp_path / "raw"
    paths = series(raw, "LIGHT", 6, 60.0, light=200.0, filter="r")
    night = make_night(tmp_path)
    masters.masters_night(night)
    assert list((night.work / "masters").glob("hot_*.fits"))
    for path in paths[:3]:
        path.unlink()
    masters.masters_night(night)
    assert not list((night.work / "masters").glob("hot_*.fits"))
    product = reduce_night(night)["product"][0]
    assert "HOTFILE" not in read_product(night.work / product).meta


def test_changed_memory_limit_makes_masters_again(tmp_path):
    """HD-07: what decides the sample of a large frame decides whether a master is current."""
    series(tmp_path / "raw", "BIAS", 3, 0.0)
    status = [
        masters.masters_night(make_night(tmp_path, f"[reduction]\nmemory_limit = {limit}\n"))[
            "status"
        ][0]
        for limit in (512.0, 512.0, 64.0)
    ]
    assert status == ["made", "current", "made"]
