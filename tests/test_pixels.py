"""Flags, maps of bad pixels and their repair, on sensors with known defects."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from scipy import ndimage

from datared import maps, photometry, pixels
from datared.background import background_map, sky_statistics
from datared.coaddition import coadd
from datared.frames import read_product, write_product
from datared.overscan import find_regions, trim_frame
from datared.render import star_image
from datared.sources import detect

NGC = Path(os.environ.get("DATARED_DATA", "")) / "nickel-ngc6819"


def scattered(n, shape, seed):
    """Mask of n pixels at random places."""
    mask = np.zeros(shape, bool)
    mask.ravel()[np.random.default_rng(seed).choice(mask.size, n, replace=False)] = True
    return mask


# --- saturation ----------------------------------------------------------------------------------


def bleed(charge, full):
    """Image in which charge above the full well has flowed along its column, and what is full."""
    image = np.minimum(charge, full)
    for column in np.flatnonzero((charge > full).any(axis=0)):
        rows = np.flatnonzero(charge[:, column] > full[:, column])
        excess = np.sum((charge - full)[rows, column]) / 2
        for start, step in ((rows.max(), 1), (rows.min(), -1)):
            left, row = excess, start + step
            while left > 0 and 0 <= row < len(image):
                taken = min(left, full[row, column] - image[row, column])
                image[row, column] += taken
                left, row = left - taken, row + step
    return image, image >= full


def bleeding_star(*, x=100.0, noise=0.03, seed=1):
    """Charge (e-) of a star that bleeds, and the full pixels.

    Full wells of 30000 e- scatter, and the trail holds less and less, down to 0.8 of it.
    """
    rng = np.random.default_rng(seed)
    shape = (300, 200)
    full = 30_000 * rng.normal(1, noise, shape) * (1 - np.abs(np.arange(300) - 40) / 1300)[:, None]
    scene = 500 + star_image(shape, [x, 40.0], [150.0, 60.0], [2e7, 2e5], fwhm=4.0)
    return bleed(rng.poisson(scene).astype(float), full)


@pytest.mark.parametrize(
    ("dtype", "factor", "level", "top"),
    [
        ("uint16", 0.6, 16383, 16383),  # 14 bits: clipped below the full well of 18000 ADU
        ("int32", 8.0, 0.95 * 240_000, 2**31),  # sums of binned pixels, above 65535
        ("float32", 8.0, 0.95 * 240_000, 1e9),
        ("float32", 1 / 28_000, 1.0, 1.0),  # stretched, and clipped at 1
        (">u2", 2.0, 0.95 * 60_000, 65535),  # as it lies in a file
    ],
)
@pytest.mark.parametrize("x", [100.0, 4.0])
def test_saturated_star_flagged_with_its_trail(dtype, factor, level, top, x):
    """PX-01, 000-10: every full pixel of a bleeding star is flagged, and nothing but neighbours."""
    charge, full = bleeding_star(x=x)
    raw = np.minimum(charge * factor, top)
    raw = (raw if dtype[0] == "f" else np.rint(raw)).astype(dtype)
    assert np.ptp(np.nonzero(full)[0]) > 100  # the trail is much longer than the star is wide
    found = pixels.saturation_mask(raw, level=level)
    assert found[full].all()
    # The ends of the trail hold any amount; they and the neighbours are two pixels, star light
    # above half of the level one more.
    assert not found[~ndimage.binary_dilation(full, np.ones((3, 3)), iterations=3)].any()
    assert not found[55:65, 35:45].any()  # the star beside it, of half the level


def test_saturation_mask_follows_a_trail_and_nothing_else():
    """PX-01: two trails that lie beside each other are whole, another star in the column is not."""
    raw = np.full((200, 120), 1000, np.uint16)
    for column in (2, 66, 82, 118):
        raw[20:120, column] = 55_000
        raw[70, column] = 65_535
        raw[150:153, column] = 50_000  # a star above the trail, not saturated
    mask = pixels.saturation_mask(raw, level=64_224, grow=0)
    expected = np.zeros(raw.shape, bool)
    expected[20:120, [2, 66, 82, 118]] = True
    np.testing.assert_array_equal(mask, expected)
    plain = pixels.saturation_mask(raw, level=64_224, grow=0, trail=1)
    np.testing.assert_array_equal(plain, raw >= 64_224)


def test_saturation_mask_in_a_bright_flat_takes_no_column():
    """PX-01, E17: one saturated hot pixel in a flat at 60 to 90 % of the level takes 9 pixels."""
    rng = np.random.default_rng(3)
    y = np.arange(400)[:, None]
    flat = 64_224 * (0.6 + 0.3 * np.exp(-(((y - 200) / 90.0) ** 2))) + rng.normal(
        0, 150, (400, 300)
    )
    flat[200, 150] = flat[60, 3] = 65_535
    mask = pixels.saturation_mask(flat.astype(np.uint16), level=64_224)
    assert mask.sum() == 18 and mask[199:202, 149:152].all() and mask[59:62, 2:5].all()


def test_saturation_mask_grows_by_one_and_takes_no_nan():
    """PX-01: neighbours, also diagonal ones, are taken along."""
    raw = np.zeros((7, 7))
    raw[3, 3], raw[0, 0] = 65535, np.nan
    mask = pixels.saturation_mask(raw, level=65000)
    assert mask.sum() == 9 and mask[2:5, 2:5].all()
    assert pixels.saturation_mask(raw, level=65000, grow=0).sum() == 1
    assert not pixels.saturation_mask(np.full((3, 3), 65535, np.uint16), level=7e4).any()
    assert pixels.saturation_mask(np.full((3, 3), 64225, np.uint16), level=64224.3).all()
    assert not pixels.saturation_mask(np.full((3, 3), 64224, np.uint16), level=64224.3).any()
    for options in ({"level": np.nan}, {"level": 1, "trail": 1.1}):
        with pytest.raises(ValueError, match="give a number"):
            pixels.saturation_mask(raw, **options)


def test_saturation_mask_makes_no_float_copy():
    """PX-01: raw integers are compared as they are; only columns with a trail are looked at."""
    raw = np.full((1000, 2000), 900, np.uint16)
    raw[500:510, 700] = 65535
    pixels.saturation_mask(raw, level=64224)
    tracemalloc.start()
    pixels.saturation_mask(raw, level=64224)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Three masks of a byte while one grows; floats would be four bytes and more.
    assert peak < 3.5 * raw.size


# --- maps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_hot_map_finds_all_and_little_else(seed):
    """PX-02, 004-02: on a warm sensor with gradient and glow: recall 1, false fraction < 1e-5."""
    shape = (600, 500)
    y, x = np.mgrid[:600, :500]
    dark = 20 + 0.05 * x + 200 * np.exp(-(y + x) / 80)
    dark += np.random.default_rng(seed).normal(0, 3, shape)
    truth = scattered(50, shape, seed + 100)
    dark[truth] += 60
    dark[7], dark[:, 9] = np.nan, np.inf
    found = pixels.hot_map(dark)
    assert found[truth & np.isfinite(dark)].all()
    # 5 sigma: 2.9e-7 of 300000 pixels is 0.1 expected; 3 are allowed, which is 1e-5.
    assert np.count_nonzero(found & ~truth) <= 3


def test_hot_map_of_quantised_dark():
    """PX-02: a dark of whole numbers nearly without noise has no hot pixel but the hot one."""
    dark = np.full((100, 100), 5.0)
    dark[::7, ::5] = 6
    dark[50, 50] = 30
    assert np.argwhere(pixels.hot_map(dark)).tolist() == [[50, 50]]


def test_hot_map_min_rate():
    """PX-02: an excess below the rate that matters is left alone."""
    dark = np.random.default_rng(1).normal(0, 0.1, (64, 64))
    dark[5, 5], dark[9, 9] = 10, 100
    assert np.argwhere(pixels.hot_map(dark, exptime=100, min_rate=0.5)).tolist() == [[9, 9]]
    with pytest.raises(ValueError, match="exposure time"):
        pixels.hot_map(dark, exptime=np.nan, min_rate=0.5)


def test_hot_map_by_rate_is_the_same_from_30_s_and_60_s():
    """PX-02, 000-01: with a least rate the map does not depend on the exposure time."""
    rng = np.random.default_rng(5)
    shape = (300, 300)
    rate = 0.2 + 0.002 * np.arange(300) + np.zeros(shape)
    hot, warm = scattered(50, shape, 6), scattered(300, shape, 7)
    rate[warm] += 0.25
    rate[hot] += rng.uniform(4, 60, 50)
    darks = {t: rng.normal(rate * t, np.sqrt(2.0 + rate * t / 9)) for t in (30.0, 60.0)}
    maps_of = {t: pixels.hot_map(d, exptime=t, min_rate=2.0) for t, d in darks.items()}
    # 60 ADU is 25 sigma of the shorter dark, and so is the least excess from it.
    np.testing.assert_array_equal(maps_of[30.0], hot)
    np.testing.assert_array_equal(maps_of[60.0], hot)
    # By the noise alone, the longer dark shows the warm ones too.
    by_noise = {t: pixels.hot_map(dark) for t, dark in darks.items()}
    assert by_noise[60.0][warm].mean() > 0.5 > 0.2 > by_noise[30.0][warm].mean()


class Source:
    """Rows of an image, and how many were in memory at a time."""

    most = 0

    def __init__(self, image):
        self.image, self.shape = image, image.shape

    def rows(self, start, stop):
        """Rows ``start`` to ``stop``."""
        Source.most = max(Source.most, stop - start)
        return self.image[start:stop]


@pytest.mark.parametrize("drift", [0.0, 8.0])
def test_hot_map_from_lights(drift):
    """PX-02: hot pixels of drifting lights are found, stars are not, even if they stand still."""
    rng = np.random.default_rng(4)
    shape = (150, 150)
    truth = scattered(30, shape, 5)
    # Corners of the frame, and the seam between the bands that are worked on.
    truth[[0, 0, 149, 149, 29, 30], [0, 149, 0, 149, 70, 77]] = True
    truth[75], truth[77, 40] = False, True
    x, y = rng.uniform(10, 140, (2, 60))
    frames = []
    for i in range(12):
        frame = star_image(shape, x + drift * i, y, np.full(60, 5000.0), fwhm=2.2)
        frame += 300 + 100 * truth
        frames.append(np.rint(frame + rng.normal(0, 5, shape)))
        frames[-1][75] = np.nan
    frames[3][70:75] = np.nan
    found = pixels.hot_map_from_lights(frames)
    near = star_image(shape, x, y, np.full(60, 5000.0), fwhm=2.2) > 10
    # Under a star that stands still nothing can be told.
    assert found[truth & ~near if drift == 0 else truth].all()
    assert np.count_nonzero(found & ~truth) == 0
    # Row sources give the same, a band at a time.
    np.testing.assert_array_equal(pixels.hot_map_from_lights(map(Source, frames)), found)
    assert Source.most == 32


def test_hot_map_from_few_lights_is_refused():
    """PX-02: four frames are too few, and so are five of two cameras."""
    with pytest.raises(ValueError, match="five"):
        pixels.hot_map_from_lights(np.ones((4, 9, 9)))
    with pytest.raises(ValueError, match=r"\(9, 8\), \(9, 9\)"):
        pixels.hot_map_from_lights([*np.ones((4, 9, 9)), np.ones((9, 8))])


@pytest.mark.parametrize("corner", [0.55, 0.35])
def test_dead_map_with_vignetting_and_dust(corner):
    """PX-03, 004-03, E16: 20 dead pixels, zero, NaN and inf are found; corner and dust are not."""
    shape = (300, 400)
    y, x = np.mgrid[:300, :400]
    flat = 1 - (1 - corner) * ((x - 200) ** 2 + (y - 150) ** 2) / (200**2 + 150**2)
    for row, column, depth in ((90, 100, 0.3), (200, 300, 0.15), (60, 330, 0.05)):
        ring = np.hypot(x - column, y - row)
        flat[(ring > 5) & (ring < 12)] *= 1 - depth
    flat *= np.random.default_rng(1).normal(1, 0.01, shape)
    truth = scattered(24, shape, 6)
    flat[truth] *= 0.3
    for place, value in zip(np.argwhere(truth), (0, np.nan, np.inf, -0.1), strict=False):
        flat[tuple(place)] = value
    np.testing.assert_array_equal(pixels.dead_map(flat), truth)


def test_dead_map_of_zeros_and_nan():
    """PX-03, E16: a flat without light is dead everywhere, and does not fail."""
    for value in (0.0, np.nan, -1.0):
        assert pixels.dead_map(np.full((50, 60), value)).all()
    noise = np.random.default_rng(1).normal(-0.3, 1, (50, 60))
    assert pixels.dead_map(noise)[noise <= 0].all()


def test_local_level_does_not_see_small_things():
    """PX-02: a plane comes back to a tenth of the noise whatever small is on it, to the borders."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:205, :333]
    plane = 100 + 0.03 * x - 0.02 * y
    image = plane + rng.normal(0, 4, plane.shape)
    image[::9, ::7] = 1e5
    image[100:150, 50:100], image[100:150, 200:250] = np.nan, np.inf
    level, noise = maps.local_level(image)
    # A median of 1024 has 1.25 sigma / 32, twice that where a border is extrapolated; one in 63
    # pixels is bright, which moves the median by 0.02 sigma. Five sigma of all that is 0.4 sigma.
    assert np.abs(level - plane).max() < 0.4 * 4
    assert np.abs(level - plane).mean() < 0.08 * 4
    assert noise.mean() == pytest.approx(4, rel=0.05)


def test_bad_columns_whole_and_part():
    """PX-03: a bright column, the upper part of a dark one and the first one; no other."""
    rng = np.random.default_rng(2)
    image = rng.normal(100, 5, (512, 200)) + 0.5 * np.arange(200)
    image[:, 60] += 15
    image[256:, 120] -= 20
    image[:, 0] += 200
    found = pixels.bad_columns(np.rint(image))
    assert found[:, [0, 60]].all() and found[256:, 120].all() and not found[:256, 120].any()
    assert np.count_nonzero(found) == 2 * 512 + 256
    image[3], image[:, 80] = np.nan, np.nan
    assert pixels.bad_columns(image)[:, [0, 60]].all()


@pytest.mark.parametrize("seed", range(5))
def test_bad_columns_of_a_good_sensor(seed):
    """PX-03: noise, a steep slope and a vignetted corner have no bad column."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:384, :600]
    flat = 1 - 0.5 * ((x - 300) ** 2 + (y - 192) ** 2) / (300**2 + 192**2)
    image = flat * rng.normal(1, 0.01, flat.shape) + 0.003 * x
    assert not pixels.bad_columns(image, least=0.03).any()
    assert not pixels.bad_columns(rng.normal(0, 1, flat.shape)).any()


@pytest.mark.real
@pytest.mark.skipif(not NGC.is_dir(), reason="the real nights are not here: set DATARED_DATA")
def test_bad_columns_of_the_nickel_telescope():
    """PX-03: the bad column 256 of a real night is flagged from end to end, and few others."""

    def stack(pattern):
        header = {"TRIMSEC": "[1:1024,1:1024]", "BIASSEC": "[1025:1056,1:1024]"}
        result = []
        for path in sorted(NGC.glob(pattern)):
            raw = CCDData(fits.getdata(path).astype(np.float32), unit="adu")
            result.append(trim_frame(raw, regions=find_regions(header, raw.shape)).data)
        return np.array(result)

    bias = np.median(stack("bias/*"), axis=0)
    for band in "BV":
        light = stack(f"flat/flat{band}*") - bias
        flat = np.median(light / np.median(light, axis=(1, 2), keepdims=True), axis=0)
        share = pixels.bad_columns(flat, least=0.03).mean(axis=0)
        assert share[256] == 1
        # Two neighbours share their light unequally (0.86 and 1.18); the sensor ends in columns
        # of 1.9 and 2.4 with a step to the next. What else there is, is one short piece.
        others = np.setdiff1d(np.flatnonzero(share), [0, 1, 256, 783, 784, 1022, 1023])
        assert len(others) <= 1 and (share[others] < 0.15).all()
        assert (share[[0, 783, 784, 1023]] == 1).all()


# --- repair --------------------------------------------------------------------------------------


def plane_with_faults():
    """Plane, its faulty image and flags: a pixel, a cluster of 5 x 5, a column, a saturated one."""
    y, x = np.mgrid[:60, :80]
    plane = 1000 + 2.0 * x + 3.0 * y
    flags = np.zeros(plane.shape, np.uint16)
    flags[10, 20] = pixels.HOT
    flags[30:35, 40:45] = pixels.DEAD
    flags[:, 70] = pixels.BAD_COLUMN
    flags[0, 0] = pixels.COSMIC
    flags[50, 60] = pixels.SATURATED
    return plane, np.where(flags > 0, 60_000.0, plane), flags


def test_repair_modes_on_a_plane():
    """PX-04, 004-05: repaired to 1 %, flag kept, 5 x 5 cluster too; inputs are as they were."""
    plane, data, flags = plane_with_faults()
    repaired, bits = pixels.repair_gaussian(data, flags)
    bad = (flags != 0) & (flags != pixels.SATURATED)
    np.testing.assert_allclose(repaired[bad], plane[bad], rtol=0.01)
    assert (bits[bad] == (flags[bad] | pixels.REPAIRED)).all()
    np.testing.assert_array_equal(repaired[~bad], data[~bad].astype(np.float32))
    assert repaired[50, 60] == 60_000 and bits[50, 60] == pixels.SATURATED
    assert data[10, 20] == 60_000 and flags[10, 20] == pixels.HOT
    with pytest.raises(ValueError, match="same shape"):
        pixels.repair_gaussian(data, flags[:1])


def test_repair_equals_a_filter_of_the_whole_image():
    """PX-04: the same as two Gaussian filters of scipy, to the rounding of float32."""
    rng = np.random.default_rng(9)
    data = rng.normal(1000, 30, (90, 120)).astype(np.float32)
    flags = (pixels.HOT * (rng.random(data.shape) < 0.05)).astype(np.uint16)
    flags[40:44] |= np.uint16(pixels.SATURATED)
    flags[10:24, 30:44] = pixels.HOT
    data[60, 60] = np.nan
    good = (flags == 0) & np.isfinite(data)
    options = {"sigma": 1.5, "mode": "constant", "truncate": 4.0}
    weight = ndimage.gaussian_filter(good.astype(float), **options)
    total = ndimage.gaussian_filter(np.where(good, data, 0).astype(float), **options)
    wanted = (flags & pixels.HOT) > 0
    repaired, bits = pixels.repair_gaussian(data, flags)
    assert ((bits & pixels.REPAIRED > 0) == (wanted & (weight > 1e-4))).all()
    assert 0 < np.count_nonzero(wanted & (weight <= 1e-4) & (weight > 0))
    done = bits & pixels.REPAIRED > 0
    np.testing.assert_allclose(repaired[done], (total[done] / weight[done]), rtol=3e-7)


def test_repair_leaves_what_has_no_good_neighbour():
    """PX-04: inside a large hole nothing is invented."""
    flags = np.zeros((41, 41), np.uint16)
    flags[5:36, 5:36] = pixels.DEAD
    data = np.where(flags > 0, np.nan, 7.0)
    repaired, bits = pixels.repair_gaussian(data, flags)
    assert np.isnan(repaired[20, 20]) and bits[20, 20] == pixels.DEAD
    assert repaired[5, 5] == pytest.approx(7.0)


@pytest.mark.parametrize("mode", ["mask", "gaussian"])
def test_repair_modes_in_a_star_core(mode):
    """PX-04, 004-05: a bad pixel of 1e6 in a star is told by its photometry in both modes."""
    rng = np.random.default_rng(10)
    scene = star_image((80, 120), [30, 80], [40, 40], [5e4, 5e4], fwhm=5.0)
    data = (scene + rng.normal(100, 5, scene.shape)).astype(np.float32)
    ccd = CCDData(data, unit="adu", flags=np.zeros(scene.shape, np.uint16))
    ccd.data[40, 31], ccd.flags[40, 31] = 1e6, pixels.HOT
    if mode == "gaussian":
        ccd.data, ccd.flags = pixels.repair_gaussian(ccd.data, ccd.flags)
    table = photometry.aperture_photometry(ccd, [30, 80], 40, radii=8, annulus=(14, 20), gain=1.0)
    names = [photometry.describe_flags(bits[0]) for bits in table["flags"]]
    assert names == [["bad pixel"], []]
    if mode == "gaussian":
        # The pixel next to the peak holds 3 % of the star; a mean around it lacks a part of that.
        assert table["flux"][0, 0] == pytest.approx(table["flux"][1, 0], rel=0.02)


def test_masked_pixel_enters_no_sum():
    """PX-04, PX-06, 004-05: masked pixels of 1e6 change no sky, no detection, no mean of frames."""
    rng = np.random.default_rng(11)
    shape = (200, 240)
    x, y = np.array([40.0, 120.0, 200.0]), np.array([50.0, 120.0, 150.0])
    clean = star_image(shape, x, y, np.full(3, 4e4), fwhm=4.0) + rng.normal(300, 8, shape)
    clean = clean.astype(np.float32)
    near = np.hypot(*(np.indices(shape)[:, None] - np.array([y, x])[:, :, None, None])).min(0) < 10
    bad = scattered(400, shape, 12) & ~near
    flags = pixels.COSMIC * bad.astype(np.uint16)
    frames = [
        CCDData(np.where(bad, value, clean), unit="adu", flags=flags, mask=bad)
        for value in (1e6, 300.0)
    ]
    spoilt, tame = frames
    for function in (background_map, sky_statistics):
        one, other = (np.array(function(f.data, mask=f.mask)) for f in frames)
        np.testing.assert_array_equal(one, other)
    options = {"radii": 8, "annulus": (12, 20), "gain": 1.0}
    one, other = (photometry.aperture_photometry(f, x, y, **options) for f in frames)
    for name in ("flux", "flux_err", "sky", "flags"):
        np.testing.assert_array_equal(one[name], other[name])
    one, other = (detect(f) for f in frames)
    assert len(one) == len(other) == 3
    for name in ("x", "y", "flux"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6)
    good = CCDData(clean, unit="adu", flags=np.zeros(shape, np.uint16))
    stack = coadd([spoilt, good], noise=[8.0, 8.0], clip=None)
    np.testing.assert_allclose(stack.data[bad], clean[bad], rtol=1e-6)
    assert tame.data[bad].max() == 300


# --- flags ---------------------------------------------------------------------------------------


def test_flag_bits_are_distinct():
    """PX-06: every name has a bit of its own that fits uint16, and comes back by name."""
    bits = list(pixels.FLAG_NAMES.values())
    assert sum(bits) == 2 ** len(bits) - 1 <= 65535
    assert pixels.describe(sum(bits)) == list(pixels.FLAG_NAMES)


def test_mask_roundtrip_is_honoured(tmp_path):
    """PX-06: every flag survives the disk, and is honoured by sky, sources and photometry."""
    rng = np.random.default_rng(13)
    data = rng.normal(50, 3, (120, 120)).astype(np.float32)
    flags = np.zeros(data.shape, np.uint16)
    for i, bit in enumerate(pixels.FLAG_NAMES.values()):
        flags[60, 50 + i] = bit
        flags[20 + 4 * i, 100] = sum(pixels.FLAG_NAMES.values()) - bit
    data[flags > 0] = 1e6
    write_product(CCDData(data, unit="adu", flags=flags, mask=flags > 0), tmp_path / "a.fits")
    ccd = read_product(tmp_path / "a.fits")
    np.testing.assert_array_equal(ccd.flags, flags)
    np.testing.assert_array_equal(ccd.mask, flags > 0)
    sky = sky_statistics(ccd.data, ccd.mask)
    assert sky.std == pytest.approx(3, rel=0.05) and sky.mean == pytest.approx(50, abs=0.2)
    table = photometry.aperture_photometry(ccd, [55, 20], [45, 90], radii=4, annulus=(12, 18))
    assert table["sky"] == pytest.approx(50, abs=1)
    assert len(detect(ccd)) == 0
    # A product of another program has no MASK: what is not finite is masked all the same.
    fits.writeto(tmp_path / "b.fits", np.where(flags > 0, np.nan, data))
    np.testing.assert_array_equal(read_product(tmp_path / "b.fits").mask, flags > 0)


def test_nan_frame_end_to_end():
    """PX-07: a NaN row, column and block: background finite, stars elsewhere to the last bit."""
    rng = np.random.default_rng(14)
    shape = (256, 320)
    x, y = np.array([40.0, 160.0, 280.0, 90.0]), np.array([60.0, 60.0, 200.0, 180.0])
    clean = star_image(shape, x, y, np.full(4, 3e4), fwhm=4.0) + rng.normal(200, 6, shape)
    clean = clean.astype(np.float32)
    lost = np.zeros(shape, bool)
    lost[120], lost[:, 159], lost[230:250, 20:60] = True, True, True
    data = np.where(lost, np.nan, clean)
    ccd = CCDData(data, unit="adu", flags=pixels.NONFINITE * lost.astype(np.uint16), mask=lost)
    background = background_map(ccd.data, mask=ccd.mask)
    assert np.isfinite(background.level).all() and np.isfinite(background.noise).all()
    whole = background_map(clean)
    # A mesh of 64 pixels with 2 % of them lost: a fortieth of the noise is ample.
    assert np.abs(background.level - whole.level).max() < 6 / 10
    options = {"radii": 6, "annulus": (12, 20), "gain": 1.0}
    before = photometry.aperture_photometry(clean, x, y, **options)
    for frame in (ccd, data):
        after = photometry.aperture_photometry(frame, x, y, bad_pixels="nan", **options)
        assert np.isnan(after["flux"][:, 0]).tolist() == [False, True, False, False]
        filled = photometry.aperture_photometry(frame, x, y, **options)
        assert filled["flux"][1, 0] == pytest.approx(before["flux"][1, 0], rel=0.01)
        assert photometry.describe_flags(filled["flags"][1, 0]) == ["bad pixel"]
        assert photometry.describe_flags(after["flags"][1, 0]) == ["bad pixel"]
        for name in ("flux", "flux_err", "sky"):
            np.testing.assert_array_equal(after[name][[0, 2, 3]], before[name][[0, 2, 3]])
    found = detect(ccd)
    distance = np.hypot(found["x"][:, None] - x, found["y"][:, None] - y)
    assert (distance.min(axis=0)[[0, 2, 3]] < 0.2).all() and (distance.min(axis=1) < 2.5).all()
    repaired, bits = pixels.repair_gaussian(ccd.data, ccd.flags)
    assert np.isfinite(repaired[120]).all() and (bits[120] & pixels.NONFINITE).all()
