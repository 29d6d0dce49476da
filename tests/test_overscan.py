"""Overscan and trim, with one amplifier and with several, against frames of known level."""

from types import SimpleNamespace

import ccdproc
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS, Sip

from datared.errors import FrameError
from datared.overscan import (
    Regions,
    cut_rows,
    find_regions,
    overscan_image_level,
    parse_section,
    subtract_level,
    trim_frame,
)

# What the manual of IRAF's quadformat shows of a camera of CTIO with four amplifiers that read a
# part of the sensor, the overscans between the images. IRAF makes an image of 1280 x 1280 of it.
CTIO_SHAPE = (1538, 1686)
CTIO = {
    "AMPLIST": "11 21 12 22",
    "DSEC11": "[1:779,1:769]", "TSEC11": "[11:779,1:769]", "BSEC11": "[790:843,1:769]",
    "DSEC12": "[908:1686,1:769]", "TSEC12": "[908:1418,1:769]", "BSEC12": "[844:897,1:769]",
    "DSEC21": "[1:779,770:1538]", "TSEC21": "[11:779,770:1280]", "BSEC21": "[790:843,770:1538]",
    "DSEC22": "[908:1686,770:1538]", "TSEC22": "[908:1418,770:1280]",
    "BSEC22": "[844:897,770:1538]",
}  # fmt: skip

# Two amplifiers beside each other, each 30 columns and 4 of overscan at the outer edge.
PAIR = {
    "DATASEC1": "[5:34,1:60]", "BIASSEC1": "[1:4,1:60]",
    "DATASEC2": "[35:64,1:60]", "BIASSEC2": "[65:68,1:60]",
}  # fmt: skip


def pair_frame(rng, *, noise=0.0):
    """Raw frame of the pair: 100 ADU and a column gradient, on two levels that drift."""
    y, x = np.mgrid[:60, :68]
    sky = np.where((x >= 4) & (x < 64), 100.0 + (x - 4), 0.0)
    level = np.where(x < 34, 1000.0 + 0.2 * y, 1500.0 - 0.1 * y)
    return sky + level + rng.normal(0, noise, sky.shape)


def amplifiers(*pairs):
    """Camera with amplifiers."""
    return SimpleNamespace(
        trim=None,
        overscan=None,
        amplifiers=tuple(SimpleNamespace(image=a, overscan=b) for a, b in pairs),
    )


CAMERA = amplifiers((PAIR["DATASEC1"], PAIR["BIASSEC1"]), (PAIR["DATASEC2"], PAIR["BIASSEC2"]))


@pytest.mark.parametrize("source", ["header", "camera"])
def test_overscan_per_amplifier(source):
    """PR-11, 003-05: each amplifier's own overscan corrects its own half, row by row."""
    raw = pair_frame(np.random.default_rng(1))
    header, camera = (PAIR, None) if source == "header" else ({}, CAMERA)
    regions = find_regions(header, raw.shape, camera=camera)
    assert regions.trimmed and regions.corrected and regions.shape(raw.shape) == (60, 60)
    result = trim_frame(CCDData(raw, unit="adu", meta=dict(header)), regions=regions)
    # Without noise a linear drift is followed exactly, up to float32.
    np.testing.assert_allclose(
        result.data, 100.0 + np.arange(60)[None, :] + np.zeros((60, 1)), atol=2e-3
    )
    assert result.meta["TRIMMED"] is True and not set(result.meta) & set(PAIR)
    # The mean of the two levels: 1005.9 and 1497.05.
    assert result.meta["OVERSCOR"] == pytest.approx(1251.475, abs=1e-3)


def test_overscan_per_amplifier_of_a_quad_with_the_overscan_in_the_middle():
    """PR-11: four amplifiers as IRAF's quadformat has them; their mosaic is IRAF's, 1280 x 1280."""
    y, x = np.mgrid[: CTIO_SHAPE[0], : CTIO_SHAPE[1]]
    level = np.where(x < 843, 400, 500) + np.where(y < 769, 0, 50)
    raw = level.astype(np.float32)
    for label in ("11", "12", "21", "22"):
        rows, columns = parse_section(CTIO["DSEC" + label], CTIO_SHAPE)
        raw[rows, columns] += np.arange(columns.stop - columns.start)[None, :] % 7 + 1000
    header = fits.Header(CTIO)
    regions = find_regions(header, CTIO_SHAPE)
    assert regions.shape(CTIO_SHAPE) == (1280, 1280)
    result = trim_frame(CCDData(raw, unit="adu", meta=header), regions=regions)
    expected = np.concatenate([np.arange(10, 779) % 7, np.arange(511) % 7]) + 1000.0
    np.testing.assert_array_equal(result.data, np.broadcast_to(expected, (1280, 1280)))
    # An image section without its trim is taken whole.
    untrimmed = {key: text for key, text in CTIO.items() if not key.startswith("TSEC")}
    assert find_regions(untrimmed, CTIO_SHAPE).shape(CTIO_SHAPE) == (1538, 779 * 2)


def test_overscan_per_amplifier_by_bands_reads_no_row_twice():
    """PR-11: bands of any height give the same image as the whole frame, each raw row read once."""
    rng = np.random.default_rng(2)
    raw = rng.uniform(0, 1000, CTIO_SHAPE).astype(np.float32)
    regions = find_regions(CTIO, CTIO_SHAPE)
    whole = trim_frame(CCDData(raw, unit="adu", meta=dict(CTIO)), regions=regions).data
    levels = overscan_image_level(lambda *section: raw[section], regions, CTIO_SHAPE)
    read = []

    def rows(start, stop):
        read.extend(range(start, stop))
        return raw[start:stop]

    result = np.empty((1280, 1280), np.float32)
    for start in range(0, 1280, 300):
        stop = min(start + 300, 1280)
        band = cut_rows(rows, regions, CTIO_SHAPE, start=start, stop=stop)
        subtract_level(band, levels, start=start)
        result[start:stop] = band
    np.testing.assert_array_equal(result, whole)
    assert sorted(read) == list(range(1280))


def test_overscan_level_equals_ccdproc():
    """003-05: without smoothing, the same as ``ccdproc.subtract_overscan`` with its median."""
    rng = np.random.default_rng(3)
    raw = rng.normal(500, 5, (80, 70)) + np.linspace(0, 20, 80)[:, None]
    ccd = CCDData(raw, unit="adu")
    other = ccdproc.subtract_overscan(ccd, overscan=ccd[:, 60:], median=True).data[:, :60]
    regions = find_regions({"TRIMSEC": "[1:60,1:80]", "BIASSEC": "[61:70,1:80]"}, raw.shape)
    levels = overscan_image_level(lambda *section: raw[section], regions, raw.shape, smooth=1)
    ours = raw[:, :60].copy()
    subtract_level(ours, levels)
    np.testing.assert_allclose(ours, other, atol=1e-4)


def test_overscan_follows_a_drift_to_the_ends():
    """PR-11: a linear drift of 20 ADU is followed at the first and last row as in the middle."""
    drift = np.linspace(500, 520, 200)[:, None]
    raw = drift + np.where(np.arange(70) < 60, 100.0, 0.0)
    regions = find_regions({"TRIMSEC": "[1:60,1:200]", "BIASSEC": "[61:70,1:200]"}, raw.shape)
    result = trim_frame(CCDData(raw, unit="adu", meta={}), regions=regions)
    np.testing.assert_allclose(result.data, 100, atol=1e-3)
    assert result.meta["OVERSCOR"] == pytest.approx(510, abs=0.01)


def test_overscan_level_has_the_noise_it_says():
    """PR-11: 1.25 R / sqrt(width x smooth) in the middle rows of many frames."""
    rng = np.random.default_rng(4)
    shape, noise = (400, 52), 8.0
    regions = find_regions({"TRIMSEC": "[1:20,1:400]", "BIASSEC": "[21:52,1:400]"}, shape)
    levels = []
    for _ in range(60):
        raw = rng.normal(0, noise, shape)
        levels.append(overscan_image_level(lambda *s, raw=raw: raw[s], regions, shape)[0][2][:, 0])
    middle = np.array(levels)[:, 30:-30]
    # A median of 32 values is a little better than 1.253; 60 frames of 7 independent values each
    # tell a deviation to 3.5 %.
    assert middle.std() == pytest.approx(1.24 * noise / np.sqrt(32 * 51), rel=0.1)


@pytest.mark.parametrize("wide", [False, True])
def test_overscan_above_the_image_and_beside_a_part_of_it(wide):
    """PR-11: an overscan above gives a level for each column; a short one gives one value."""
    raw = 300.0 + np.arange(40)[None, :] + np.zeros((56, 1))
    text = "[1:40,51:56]" if wide else "[37:40,11:30]"
    header = {"TRIMSEC": "[1:36,1:50]", "BIASSEC": text}
    regions = find_regions(header, raw.shape)
    ((rows, columns, level),) = overscan_image_level(lambda *s: raw[s], regions, raw.shape)
    assert (rows, columns) == (slice(0, 50), slice(0, 36))
    if wide:
        assert level.shape == (1, 36)
        np.testing.assert_allclose(level[0], 300 + np.arange(36), rtol=1e-6)
    else:
        assert level.shape == (50, 1) and np.unique(level).tolist() == [337.5]


def test_overscan_with_pixels_without_a_value():
    """PR-11, PX-07: a lost pixel, or a lost row, of the overscan spoils no row of the image."""
    raw = np.full((60, 70), 400.0)
    raw[10, 62], raw[20] = np.inf, np.nan
    regions = find_regions({"TRIMSEC": "[1:60,1:60]", "BIASSEC": "[61:70,1:60]"}, raw.shape)
    result = trim_frame(CCDData(raw, unit="adu"), regions=regions)
    assert np.count_nonzero(result.data == 0) == 59 * 60 and np.isnan(result.data[20]).all()
    raw[:, 60:] = np.nan
    with pytest.raises(FrameError, match="no finite pixel"):
        trim_frame(CCDData(raw, unit="adu"), regions=regions)


def sip_wcs():
    """World coordinates with a distortion of some pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crval, wcs.wcs.crpix = [10.0, 20.0], [31.0, 26.0]
    wcs.wcs.cdelt = [-1e-3, 1e-3]
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], a[1, 1], b[0, 2] = 2e-3, -1e-3, 3e-3
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


@pytest.mark.parametrize("start", [(5, 10), (0, 0), (30, 40)])
def test_trim_shifts_crpix_with_sip(start):
    """PR-11, 003-05: a star keeps its sky position when borders go, distortion included."""
    y0, x0 = start
    meta = fits.Header({"CRPIX1": 31.0, "CRPIX2": 26.0, "CRPIX1A": 5, "LTV2": 0.0})
    meta["TRIMSEC"] = f"[{x0 + 1}:60,{y0 + 1}:55]"
    flags = np.zeros((60, 70), np.uint16)
    flags[40, 50] = 3
    raw = CCDData(
        np.arange(4200.0).reshape(60, 70), unit="adu", meta=meta, wcs=sip_wcs(), flags=flags,
        mask=flags > 0, uncertainty=StdDevUncertainty(np.full((60, 70), 2.0)),
    )  # fmt: skip
    result = trim_frame(raw, regions=find_regions(meta, raw.shape))
    assert result.shape == result.wcs.array_shape == (55 - y0, 60 - x0)
    assert result.data[40 - y0, 50 - x0] == raw.data[40, 50]
    assert result.flags[40 - y0, 50 - x0] == 3 and np.count_nonzero(result.mask) == 1
    assert result.uncertainty.array.shape == result.shape
    assert (result.meta["CRPIX1"], result.meta["CRPIX2"]) == (31.0 - x0, 26.0 - y0)
    assert (result.meta["CRPIX1A"], result.meta["LTV2"]) == (5 - x0, -y0)
    for x, y in ((50, 40), (55, 53)):
        before, after = raw.wcs.pixel_to_world(x, y), result.wcs.pixel_to_world(x - x0, y - y0)
        assert before.separation(after).arcsec < 1e-6
    # The distortion matters: without it the star would be pixels of 3.6" away.
    plain, full = (f(55, 53, 0) for f in (raw.wcs.wcs_pix2world, raw.wcs.all_pix2world))
    assert np.hypot(*np.subtract(plain, full)) * 3600 > 3.6
    assert tuple(raw.wcs.wcs.crpix) == (31.0, 26.0) and raw.meta["CRPIX1"] == 31.0
    assert tuple(raw.wcs.sip.crpix) == (31.0, 26.0)


def test_trim_shifts_crpix_of_several_amplifiers():
    """PR-11: the reference pixel moves with the piece that holds it."""
    for crpix, shift in (((700.0, 100.0), 10), ((1000.0, 100.0), 10 + 128), ((-50.0, 9.0), 10)):
        meta = {**CTIO, "CRPIX1": crpix[0], "CRPIX2": crpix[1]}
        ccd = CCDData(np.zeros(CTIO_SHAPE, np.float32), unit="adu", meta=meta)
        result = trim_frame(ccd, regions=find_regions(meta, CTIO_SHAPE))
        assert (result.meta["CRPIX1"], result.meta["CRPIX2"]) == (crpix[0] - shift, crpix[1])


@pytest.mark.parametrize(
    ("header", "camera", "name"),
    [
        ({"TRIMSEC": "[1:71,1:60]"}, None, "TRIMSEC"),
        ({"BIASSEC": "[61:71,1:60]"}, None, "BIASSEC"),
        ({}, SimpleNamespace(trim="[1:70,0:60]", overscan=None), r"camera\.trim"),
        ({}, SimpleNamespace(trim=None, overscan="[1:70,1:61]"), r"camera\.overscan"),
        (PAIR | {"BIASSEC2": "[65:99,1:60]"}, None, "BIASSEC2"),
        ({}, amplifiers(("[1:30,1:60]", "[61:71,1:60]")), r"camera\.amplifiers\[0\]\.overscan"),
    ],
)
def test_region_outside_frame_names_its_source(header, camera, name):
    """PR-11: a region outside the frame is an error that says where it was written."""
    with pytest.raises(FrameError, match=name + r".*70 columns and 60 rows"):
        find_regions(header, (60, 70), camera=camera)


def test_regions_that_mean_nothing_are_refused_or_left_alone():
    """PR-11: overlaps are errors; sections of another file's extensions are not for this frame."""
    with pytest.raises(FrameError, match="no section"):
        parse_section("1:2,3:4", (60, 70))
    overlap = amplifiers(("[1:30,1:60]", "[61:65,1:60]"), ("[30:60,1:60]", "[66:70,1:60]"))
    with pytest.raises(FrameError, match="no rectangle"):
        find_regions({}, (60, 70), camera=overlap)
    with pytest.raises(FrameError, match=r"overscan lies in the image.*image"):
        find_regions({}, (60, 70), camera=amplifiers(("[1:60,1:60]", "[60:65,1:60]")))
    same = {"DATASEC1": "[1:50,1:60]", "DATASEC2": "[1:50,1:60]"}
    same |= {"BIASSEC1": "[51:60,1:60]", "BIASSEC2": "[51:60,1:60]"}
    assert find_regions(same, (60, 70)) == Regions()
    assert find_regions(PAIR | {"TRIMMED": True}, (60, 70)) == Regions()
    # A header's DATASEC in unbinned pixels is no reason to stop.
    assert find_regions({"DATASEC": "[1:140,1:120]"}, (60, 70)).trim is None


def test_night_file_comes_before_the_header():
    """PR-11: what night.toml says of trim, overscan or amplifiers wins over the header's cards."""
    header = PAIR | {"TRIMSEC": "[7:60,1:60]"}
    assert find_regions(header, (60, 68)).shape((60, 68)) == (60, 54)
    assert find_regions(header, (60, 68), camera=CAMERA).shape((60, 68)) == (60, 60)
    plain = SimpleNamespace(trim="[1:60,1:60]", overscan="[61:68,1:60]", amplifiers=())
    regions = find_regions(header, (60, 68), camera=plain)
    assert not regions.pieces and regions.overscan[1] == slice(60, 68)
    cut = SimpleNamespace(trim="[35:60,1:60]", overscan=None, amplifiers=())
    (piece,) = find_regions(header, (60, 68), camera=cut).pieces
    assert piece.image[1] == slice(34, 60) and piece.overscan[1] == slice(64, 68)
