"""Resampling: light is conserved, faults and errors are carried, other programs agree."""

import math
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS, Sip
from reproject import reproject_interp
from scipy import ndimage

from datared.background import sky_mesh
from datared.combine import combine
from datared.errors import FrameError
from datared.frames import read_product, write_product
from datared.grids import common_grid, pixel_map
from datared.headerwcs import read_wcs
from datared.pixels import COSMIC, HOT, NONFINITE, OUTSIDE, REPAIRED, SATURATED
from datared.resampling import AlignedRows, reproject_frame
from tests.stackfields import SHAPE, make_frame, make_wcs, measure, sky_stars

METHODS = ("bilinear", "lanczos3", "adaptive", "exact")
#: How frames lie against the grid.
CHANGES = {
    "shift": {"shift": (3.3, -2.7)},
    "rotation": {"angle": 31},
    "quarter": {"angle": 90, "shift": (0.3, 0.4)},
    "flip": {"angle": 180, "shift": (3.3, -2.7)},
    "mirrored": {"angle": 17, "mirrored": True},
    "finer": {"scale": 0.5, "shift": (0.3, 0.2)},
    "coarser": {"scale": 2.0, "angle": 5},
    "distortion": {"angle": 8, "sip": True},
}


def area_of_pixels(wcs, grid):
    """Area of the grid's pixels in pixels of the frame, from the middles of their sides."""
    j, i = np.indices(SHAPE)

    def place(dx, dy):
        sky = grid.all_pix2world(i + dx, j + dy, 0)
        return np.array(wcs.all_world2pix(*sky, 0, tolerance=1e-9))

    across, along = place(0.5, 0) - place(-0.5, 0), place(0, 0.5) - place(0, -0.5)
    return np.abs(across[0] * along[1] - across[1] * along[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", CHANGES)
def test_reproject_flux(change, method):
    """ST-01: sums over stars stay within 0.5 %, with Lanczos-3 within 0.1 %, however frames lie.

    Without noise. The same stars, drawn on the grid itself, are the truth; they have 3.5 px FWHM on
    the grid, so 1.75 to 7 px on the frame. A circle of 14 px holds all but 0.3 % of the light.
    """
    options = CHANGES[change]
    stars = sky_stars(4, np.random.default_rng(1))
    frame = make_frame(make_wcs(**options), stars, fwhm=3.5 / options.get("scale", 1))
    out = reproject_frame(frame, make_wcs(), shape=SHAPE, method=method)
    truth = measure(make_frame(make_wcs(), stars).data, make_wcs(), stars, radius=14)
    whole = measure(np.isfinite(out.data), make_wcs(), stars, radius=14)
    inside = whole >= measure(np.ones(SHAPE), make_wcs(), stars, radius=14)
    assert inside.sum() >= (4 if change == "finer" else 8)
    flux = measure(out.data, make_wcs(), stars, radius=14)
    limit = 0.001 if method == "lanczos3" else 0.005
    assert flux[inside] == pytest.approx(truth[inside], rel=limit)


@pytest.mark.parametrize("change", CHANGES)
def test_reproject_agrees_with_reproject_interp(change):
    """ST-01: bilinear is reproject_interp pixel by pixel, to 1e-3 of the noise in every pixel.

    The noise of a pixel: 5 ADU of sky and the photons of the stars (1 e-/ADU), times the area.
    """
    rng, options = np.random.default_rng(2), CHANGES[change]
    wcs = make_wcs(**options)
    frame = make_frame(
        wcs, sky_stars(3, rng), fwhm=3.5 / options.get("scale", 1), sigma=5.0, rng=rng
    )
    ours = reproject_frame(frame, make_wcs(), shape=SHAPE).data
    theirs, _ = reproject_interp((frame.data, wcs), make_wcs(), shape_out=SHAPE)
    # Border pixels, whose middle lies on the border of the frame, are in or out by rounding.
    alone = np.isfinite(ours) != np.isfinite(theirs)
    assert np.count_nonzero(alone) < 2 * sum(SHAPE) / 7
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.mean() > (0.24 if change == "finer" else 0.7)
    area = area_of_pixels(wcs, make_wcs())
    noise = np.hypot(5 * area, np.sqrt(np.maximum(theirs * area, 0)))
    assert np.max((np.abs(ours - theirs * area) / noise)[both]) < 1e-3


@pytest.mark.parametrize("change", ["rotation", "distortion", "coarser"])
def test_lanczos_is_its_formula(change):
    """Values are the sum over 6 x 6 pixels of windowed sincs divided by their sum.

    The weights come from a table of 2048 fractions: a place is wrong by 1/4096 px at most, along x
    and along y. A star changes by 0.4 of its peak from pixel to pixel at most, which makes 1.4e-4
    of it; interpolated noise of 5 ADU by 9 ADU (rms, pi / sqrt(3) sigma), with places wrong by
    1.4e-4 px (rms) 0.002 ADU.
    """
    rng = np.random.default_rng(3)
    wcs, grid = make_wcs(**CHANGES[change]), make_wcs()
    frame = make_frame(wcs, sky_stars(3, rng), sigma=5.0, rng=rng)
    out, factor, _ = AlignedRows(frame, grid, shape=SHAPE).aligned(0, SHAPE[0])
    area = area_of_pixels(wcs, grid)
    inner = np.argwhere(ndimage.binary_erosion(np.isfinite(out), iterations=8))
    for j, i in rng.choice(inner, 300):
        sky = grid.all_pix2world(i, j, 0)
        x, y = np.array(wcs.all_world2pix(*sky, 0, tolerance=1e-9)).tolist()
        weights = []
        for place in (x, y):
            distance = place - (math.floor(place) + np.arange(-2, 4))
            line = np.sinc(distance) * np.sinc(distance / 3)
            weights.append(line / line.sum())
        p, q = math.floor(x) - 2, math.floor(y) - 2
        box = frame.data[q : q + 6, p : p + 6]
        expected = area[j, i] * (weights[1] @ box @ weights[0])
        assert out[j, i] == pytest.approx(expected, abs=0.004 + 1.5e-4 * float(np.ptp(box)))
        squares = area[j, i] ** 2 * (weights[0] ** 2).sum() * (weights[1] ** 2).sum()
        assert factor[j, i] == pytest.approx(squares, rel=2e-3)


@pytest.mark.parametrize("method", METHODS[:2])
def test_reproject_onto_itself_changes_nothing(method):
    """The frame's own grid gives the frame, bad pixels excepted; the input is not changed."""
    rng = np.random.default_rng(3)
    frame = make_frame(make_wcs(), sky_stars(3, rng), sigma=5.0, rng=rng)
    frame.flags[40, 50], frame.flags[60, 70] = HOT, SATURATED
    before = frame.data.copy()
    out = reproject_frame(frame, make_wcs(), shape=SHAPE, method=method)
    # Coordinates come back from the sky with 1e-9 px.
    good = frame.flags != HOT
    assert out.data[good] == pytest.approx(before[good], abs=1e-3)
    assert np.array_equal(frame.data, before)
    assert out.flags[40, 50] == HOT and not np.isfinite(out.data[40, 50])
    assert out.flags[60, 70] == SATURATED and np.isfinite(out.data[60, 70])
    assert np.count_nonzero(out.flags & ~np.uint16(REPAIRED)) == 2


@pytest.mark.parametrize("method", METHODS)
def test_reproject_footprint_and_nan_borders(method):
    """Beyond the frame there is NaN and OUTSIDE, a NaN border is not light."""
    frame = CCDData(np.full(SHAPE, 7.0), unit="adu", wcs=make_wcs())
    frame.data[:, :10] = np.nan
    out = reproject_frame(frame, make_wcs(shift=(30, 0)), shape=SHAPE, method=method)
    outside = (out.flags & OUTSIDE) != 0
    assert outside[:, :29].all() and not outside[:, 31:].any()
    assert np.isnan(out.data[:, :39]).all()
    assert out.data[3:-3, 46:] == pytest.approx(7.0, rel=1e-5)
    assert out.mask[:, :39].all() and not out.mask[3:-3, 46:].any()
    assert np.array_equal(np.isnan(out.data), (out.flags & (OUTSIDE | NONFINITE)) != 0)


@pytest.mark.parametrize("method", METHODS)
def test_reproject_flags_say_where_there_is_no_value(method):
    """ST-01: a value is NaN where, and only where, a bit says that the pixel is useless."""
    rng = np.random.default_rng(12)
    frame = make_frame(make_wcs(angle=20), sky_stars(3, rng), sigma=5.0, rng=rng)
    frame.flags.ravel()[rng.integers(0, frame.data.size, 200)] = HOT
    frame.flags[70:74, 90:95] = SATURATED
    out = reproject_frame(frame, make_wcs(), shape=SHAPE, method=method)
    useless = (out.flags & ~np.uint16(SATURATED | REPAIRED)) != 0
    assert np.array_equal(np.isnan(out.data), useless)
    assert 12 <= np.count_nonzero(out.flags & SATURATED) <= 28
    holes = np.isnan(out.data) & (out.flags & OUTSIDE == 0)
    assert 100 < np.count_nonzero(holes) < (1100 if method in METHODS[:2] else 6000)


def test_reproject_by_a_whole_pixel_at_the_border():
    """Up to the middle of its border pixels the frame is used, and half a pixel beyond them."""
    frame = make_frame(make_wcs(), sky_stars(3, np.random.default_rng(4)), sky=50.0)
    for method in METHODS[:2]:
        out = reproject_frame(frame, make_wcs(shift=(-1.4, 0.4)), shape=SHAPE, method=method)
        assert np.isfinite(out.data).sum() == (SHAPE[1] - 1) * SHAPE[0]
        assert out.data[:, 0] == pytest.approx(out.data[:, 1], abs=0.1)


@pytest.mark.parametrize("method", METHODS[:2])
@pytest.mark.parametrize("change", ["rotation", "finer", "distortion"])
def test_reproject_carries_uncertainty(change, method):
    """ST-01: the stated noise of interpolated pixels is their scatter over many frames of noise."""
    rng, wcs = np.random.default_rng(4), make_wcs(**CHANGES[change])
    values = []
    for _ in range(40):
        frame = CCDData(rng.normal(0, 4, SHAPE), unit="adu", wcs=wcs)
        frame.uncertainty = StdDevUncertainty(np.full(SHAPE, 4.0))
        out = reproject_frame(frame, make_wcs(), shape=SHAPE, method=method)
        values.append(out.data)
    good = np.isfinite(out.data)
    ratio = np.std(values, axis=0, ddof=1)[good] / out.uncertainty.array[good]
    # 40 values give a scatter to 11 %; the mean over 7e3 pixels or more (not all independent) to
    # 0.3 %, less 0.6 % of bias.
    assert np.mean(ratio) == pytest.approx(1, abs=0.018)
    aligned = AlignedRows(frame, make_wcs(), shape=SHAPE, method=method)
    _, factor, _ = aligned.aligned(0, SHAPE[0])
    assert 4 * np.sqrt(factor[good]) == pytest.approx(out.uncertainty.array[good], rel=1e-4)


@pytest.mark.parametrize("method", ["adaptive", "exact"])
def test_methods_of_the_package_reproject_drop_the_uncertainty(method):
    """ST-01: what is not propagated is declared: there is no uncertainty, not a wrong one."""
    frame = CCDData(np.ones(SHAPE), unit="adu", wcs=make_wcs())
    frame.uncertainty = StdDevUncertainty(np.ones(SHAPE))
    assert reproject_frame(frame, make_wcs(), shape=SHAPE, method=method).uncertainty is None


@pytest.mark.parametrize("method", ["adaptive", "exact"])
def test_methods_of_the_package_reproject_with_bad_pixels(method):
    """ST-01: on a coarse grid one bad pixel costs no light and no hole, many are a hole.

    The replaced pixel is 7 % too faint in the core of a star; it has less than 8 % of the light.
    """
    grid, stars = make_wcs(scale=4), sky_stars(3, np.random.default_rng(13))
    grid.wcs.crpix = [25.5, 19.5]
    frame = make_frame(make_wcs(angle=7), stars)
    clean = reproject_frame(frame, grid, shape=(38, 50), method=method)
    x, y = np.rint(frame.wcs.all_world2pix(*stars[:2], 0)).astype(int)
    frame.flags[y, x], frame.data[y, x] = COSMIC, 6e4
    found = reproject_frame(frame, grid, shape=(38, 50), method=method)
    assert np.array_equal(np.isnan(found.data), np.isnan(clean.data))
    assert np.count_nonzero(found.flags & REPAIRED) >= len(x)
    flux, truth = (measure(image.data, grid, stars, radius=5) for image in (found, clean))
    assert flux == pytest.approx(truth, rel=0.01) and not np.array_equal(flux, truth)
    frame.flags[70:82, 90:102], frame.data[70:82, 90:102] = HOT, 6e4
    hole = reproject_frame(frame, grid, shape=(38, 50), method=method).data
    lost = np.isnan(hole) & np.isfinite(clean.data)
    assert 9 <= np.count_nonzero(lost) <= 36
    far = ~ndimage.binary_dilation(lost, iterations=2) & np.isfinite(clean.data)
    assert hole[far] == pytest.approx(found.data[far], abs=0.01)  # The kernel has wide wings.


@pytest.mark.parametrize("method", ["adaptive", "exact"])
def test_saturated_pixels_on_a_coarse_grid(method):
    """ST-01: each saturated pixel of the frame marks the pixel of the coarse grid it lies in."""
    frame = CCDData(np.ones(SHAPE), unit="adu", wcs=make_wcs(angle=7))
    frame.flags = np.zeros(SHAPE, np.uint16)
    y, x = (g.ravel() for g in np.mgrid[20:130:12, 20:180:12])
    frame.flags[y, x] = SATURATED
    grid = make_wcs(scale=4)
    grid.wcs.crpix = [25.5, 19.5]
    out = reproject_frame(frame, grid, shape=(38, 50), method=method)
    i, j = np.rint(grid.all_world2pix(*frame.wcs.all_pix2world(x, y, 0), 0)).astype(int)
    assert np.all(out.flags[j, i] & SATURATED) and np.isfinite(out.data[j, i]).all()
    assert np.count_nonzero(out.flags & SATURATED) < 3 * len(x)


def test_uncertainty_beside_a_bad_pixel_is_not_zero():
    """ST-01: a replaced pixel has no negative variance, however different those around it are."""
    frame = CCDData(np.zeros(SHAPE), unit="adu", wcs=make_wcs(shift=(-0.1, 0)))
    frame.flags = np.zeros(SHAPE, np.uint16)
    frame.uncertainty = StdDevUncertainty(np.ones(SHAPE))
    frame.flags[70, 80], frame.uncertainty.array[70, 82] = HOT, 1e3
    out = reproject_frame(frame, make_wcs(), shape=SHAPE, method="lanczos3")
    assert out.uncertainty.array[np.isfinite(out.data)].min() > 0.5


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("shift", [(3.3, -2.7), (0.5, 0.5), (0.1, 0.45)])
def test_lanczos_bad_pixel_in_a_star(shift, place):
    """One bad pixel makes a hole of at most four pixels; around it a star stays within 1.4 %.

    Of its peak, in every pixel, wherever in the star the bad pixel is (it holds 9e4 ADU, ten times
    the peak): its replacement is wrong by 7 % of the peak at most, and has at most a fifth of the
    weights where there is no hole. The sum of what is left is right to 0.25 % of the star.
    """
    star = (np.array([150.0]), np.array([20.0]), np.array([1e5]))
    wcs = make_wcs(shift=shift)
    frame = make_frame(wcs, star)
    clean = reproject_frame(frame, make_wcs(), shape=SHAPE, method="lanczos3")
    x, y = (int(np.rint(value)) for value in wcs.all_world2pix(150.0, 20.0, 0))
    frame.flags[y, x + place], frame.data[y, x + place] = COSMIC, 9e4
    out = reproject_frame(frame, make_wcs(), shape=SHAPE, method="lanczos3")
    hole = np.isnan(out.data) & np.isfinite(clean.data)
    assert 1 <= np.count_nonzero(hole) <= 4
    assert np.all(out.flags[hole] & COSMIC)
    error = np.where(hole, 0, out.data - clean.data)
    assert np.nanmax(np.abs(error)) < 0.014 * np.nanmax(clean.data)
    assert abs(np.nansum(error)) < 0.0025 * 1e5
    # Pixels that have a small part of the bad one say so.
    touched = (out.flags & REPAIRED) != 0
    assert np.count_nonzero(hole | touched) == 4


def test_lanczos_around_many_bad_pixels():
    """A block of bad pixels is a hole of its own size, plus one pixel; nothing rings around it."""
    rng = np.random.default_rng(5)
    frame = CCDData(rng.normal(0, 5, SHAPE), unit="adu", wcs=make_wcs(shift=(0.3, 0.6)))
    frame.flags = np.zeros(SHAPE, np.uint16)
    frame.flags[60:67, 80:90] = HOT
    frame.data[60:67, 80:90] = 6e4
    frame.data[30, 40:] = np.inf
    frame.flags[:, 120] = HOT
    out = reproject_frame(frame, make_wcs(), shape=SHAPE, method="lanczos3")
    inside = (out.flags & OUTSIDE) == 0
    lost = np.isnan(out.data) & inside
    assert np.count_nonzero(lost) <= 8 * 11 + 2 * 160 + 2 * SHAPE[0]
    assert np.count_nonzero(lost) >= 7 * 10 + 160 + SHAPE[0]
    assert np.abs(out.data[~np.isnan(out.data)]).max() < 6 * 5
    assert np.isfinite(out.data[inside & ~ndimage.binary_dilation(lost)]).all()


@pytest.mark.parametrize("method", METHODS)
def test_stack_needs_wcs(method):
    """ST-01, 002-07: a frame without WCS is refused with what to do; nothing is added unaligned."""
    frame = CCDData(np.zeros(SHAPE), unit="adu")
    with pytest.raises(FrameError, match=r"no WCS.*stage solved"):
        reproject_frame(frame, make_wcs(), shape=SHAPE, method=method)
    with pytest.raises(FrameError, match="no WCS"):
        AlignedRows(frame, make_wcs(), shape=SHAPE)
    with pytest.raises(FrameError, match="no WCS"):
        common_grid([(SHAPE, make_wcs()), frame])


def test_file_without_wcs_is_named(tmp_path):
    """002-07: of many files the one without WCS is named."""
    fits.PrimaryHDU(np.zeros(SHAPE, np.float32)).writeto(tmp_path / "night7.fits")
    with pytest.raises(FrameError, match=r"night7\.fits.*no WCS"):
        AlignedRows(tmp_path / "night7.fits", make_wcs(), shape=SHAPE)


def test_reproject_no_overlap_and_unknown_method():
    """A frame of another part of the sky, or of the other side of it, is refused."""
    frame = CCDData(np.zeros(SHAPE), unit="adu", wcs=make_wcs())
    for center in ((151.0, 20.0), (330.0, -20.0)):
        with pytest.raises(FrameError, match="overlap"):
            reproject_frame(frame, make_wcs(center=center), shape=SHAPE)
    with pytest.raises(ValueError, match="bilinear, lanczos3, adaptive, exact"):
        reproject_frame(frame, make_wcs(), shape=SHAPE, method="cubic")
    with pytest.raises(ValueError, match="bilinear, lanczos3"):
        AlignedRows(frame, make_wcs(), shape=SHAPE, method="exact")


def test_common_grid_of_reference_and_of_all():
    """ST-01, 003-14: the reference's grid has no distortion; the optimal one holds every frame."""
    frames = [
        CCDData(np.zeros(SHAPE), unit="adu", wcs=make_wcs(sip=True)),
        CCDData(np.zeros(SHAPE), unit="adu", wcs=make_wcs(angle=40, shift=(60, 0), scale=0.8)),
    ]
    wcs, shape = common_grid(frames)
    assert shape == SHAPE and wcs.sip is None and frames[0].wcs.sip is not None
    assert wcs.wcs.crval.tolist() == [150, 20]
    scamp, _ = common_grid([(SHAPE, scamp_wcs())])
    place = scamp.all_world2pix(*make_wcs().all_pix2world(10, 20, 0), 0)
    assert np.array(place) == pytest.approx([10, 20], abs=1e-6)
    wcs, shape = common_grid(frames, reference=None)
    assert wcs.proj_plane_pixel_scales()[0].to_value("arcsec") == pytest.approx(0.8, rel=1e-3)
    for frame in frames:
        corners = frame.wcs.all_pix2world([0, 199, 0, 199], [0, 0, 149, 149], 0)
        x, y = wcs.all_world2pix(*corners, 0)
        assert x.min() > -2 and y.min() > -2 and x.max() < shape[1] + 1 and y.max() < shape[0] + 1
    again, size = common_grid([(f.shape, f.wcs) for f in frames], reference=None)
    assert size == shape and again.to_header() == wcs.to_header()


def test_common_grid_can_be_sliced_and_has_no_polynomials():
    """ST-01: grid[::2, ::2] has pixels of twice the size; ZPN becomes a tangential projection."""
    grid, _ = common_grid([(SHAPE, make_wcs(angle=30, mirrored=True))])
    place = grid.all_pix2world(7.0, 9.0, 0)
    expected = make_wcs(angle=30, mirrored=True).all_pix2world(7.0, 9.0, 0)
    assert np.allclose(place, expected, rtol=0, atol=1e-10)
    assert np.allclose(grid[::2, ::2].all_pix2world(3.25, 4.25, 0), place, rtol=0, atol=1e-10)
    header = make_wcs().to_header()
    header.update({"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 40.0})
    grid, _ = common_grid([(SHAPE, WCS(header))])
    assert np.allclose(grid.all_pix2world(7, 9, 0), make_wcs().all_pix2world(7, 9, 0))
    with pytest.raises(FrameError, match="no WCS"):
        common_grid([(SHAPE, WCS(naxis=2))])


def scamp_wcs():
    """WCS with a distortion in the way of SCAMP (TPV), 1 px in the corner."""
    header = make_wcs().to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    for axis in (1, 2):
        header[f"PV{axis}_1"], header[f"PV{axis}_7"] = 1.0, 8.0
    return WCS(header)


def middle(box):
    """Centre of light of a part of an image, as x and y."""
    j, i = np.indices(box.shape)
    return [float(np.sum(k * box, dtype=float) / np.sum(box, dtype=float)) for k in (i, j)]


def test_align_all_frames_to_a_reference():
    """003-14: stars of all frames, however they lie, are at the places of the reference's stars."""
    rng = np.random.default_rng(6)
    stars = sky_stars(3, rng)
    reference = make_frame(make_wcs(sip=True), stars)
    grid, shape = common_grid([reference])
    place = np.rint(grid.all_world2pix(*stars[:2], 0)).astype(int)
    truth = make_frame(grid, stars).data
    wcs_and_scale = [(make_wcs(**change), change.get("scale", 1)) for change in CHANGES.values()]
    for wcs, scale in [(reference.wcs, 1), (scamp_wcs(), 1), *wcs_and_scale]:
        frame = make_frame(wcs, stars, fwhm=3.5 / scale)
        aligned = AlignedRows(frame, grid, shape=shape).rows(0, shape[0])
        found = 0
        for x, y in zip(*place, strict=True):
            box = slice(y - 9, y + 10), slice(x - 9, x + 10)
            if np.isfinite(aligned[box]).all():
                # The distortion makes the star of 3.5 px on the frame a little oval on the grid.
                assert middle(aligned[box]) == pytest.approx(middle(truth[box]), abs=0.02)
                found += 1
        assert found >= 1


def test_grid_in_another_system():
    """A grid in galactic coordinates takes frames in equatorial ones, as reproject_interp does."""
    rng = np.random.default_rng(7)
    frame = make_frame(make_wcs(), sky_stars(3, rng), sigma=5.0, rng=rng)
    middle, grid = SkyCoord(150.0, 20.0, unit="deg").galactic, make_wcs()
    grid.wcs.ctype, grid.wcs.crval = ["GLON-TAN", "GLAT-TAN"], [middle.l.deg, middle.b.deg]
    ours = reproject_frame(frame, grid, shape=SHAPE).data
    theirs, _ = reproject_interp((frame.data, frame.wcs), grid, shape_out=SHAPE)
    both = np.isfinite(ours) & np.isfinite(theirs)
    assert both.mean() > 0.7 and np.abs(ours - theirs)[both].max() < 0.005


@pytest.mark.parametrize("wcs", [make_wcs(angle=70, sip=True), scamp_wcs()], ids=["sip", "tpv"])
def test_pixel_map_is_right_between_its_nodes(wcs):
    """Places are right to 1e-4 px, areas to 1e-4, whatever the distortion."""
    found = pixel_map(wcs, make_wcs(), shape_in=SHAPE, shape_out=SHAPE)
    x, y, area = found.places(0, SHAPE[0])
    j, i = np.indices(SHAPE)
    sky = make_wcs().all_pix2world(i.ravel(), j.ravel(), 0)
    there = np.reshape(wcs.all_world2pix(*sky, 0, tolerance=1e-9), (2, *SHAPE))
    inside = np.all((there > -1) & (there < [[[SHAPE[1]]], [[SHAPE[0]]]]), axis=0)
    assert np.abs(np.array([x, y]) - there)[:, inside].max() < 1e-4
    assert area[inside] == pytest.approx(area_of_pixels(wcs, make_wcs())[inside], rel=1e-4)
    part = found.places(40, 50)
    assert all(np.array_equal(a[40:50], b) for a, b in zip((x, y, area), part, strict=True))


def test_pixel_map_of_a_corner():
    """Places are right to 1e-4 px where only a corner of a distorted frame is on the grid."""
    wcs, grid = make_wcs(sip=True, angle=10), make_wcs()
    grid.wcs.crpix = [-90, -64]
    found = pixel_map(wcs, grid, shape_in=SHAPE, shape_out=(400, 500))
    j, i = (g.ravel() for g in np.mgrid[0:15, 0:15])
    there = wcs.all_world2pix(*grid.all_pix2world(i, j, 0), 0, tolerance=1e-9)
    inside = np.all((np.array(there) > 0) & (there < np.array([[SHAPE[1]], [SHAPE[0]]])), axis=0)
    assert inside.sum() > 15
    ours = [places[:15, :15].ravel() for places in found.places(0, 15)[:2]]
    assert np.abs(np.subtract(ours, there))[:, inside].max() < 1e-4


@pytest.mark.parametrize(("frame", "grid", "scale"), [(20, 20, 1), (60, 60, 1), (200, 300, 0.2)])
def test_pixel_map_of_small_frames_and_grids(frame, grid, scale):
    """Also where frame or grid are hardly wider than the nodes' distance the distortion counts."""
    wcs = make_wcs(scale=scale, angle=5)
    wcs.wcs.ctype, wcs.wcs.crpix = ["RA---TAN-SIP", "DEC--TAN-SIP"], [frame / 2, frame / 2]
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = 0.3 * (2 / frame) ** 3  # 0.3 px at the sides
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    to = make_wcs()
    to.wcs.crpix = [grid / 2 + 3, grid / 2 - 20 * (1 - scale)]
    found = pixel_map(wcs, to, shape_in=(frame, frame), shape_out=(grid, grid))
    # From the frame to the grid the distortion need not be inverted.
    j, i = np.indices((frame, frame))
    y, x = np.array(to.all_world2pix(*wcs.all_pix2world(i.ravel(), j.ravel(), 0), 0))[::-1]
    row, column = np.rint(y).astype(int), np.rint(x).astype(int)
    ours = np.array(found.places(0, grid)[:2])
    on = (row >= 0) & (row < grid) & (column >= 0) & (column < grid)
    row, column = row[on], column[on]
    back = to.all_world2pix(*wcs.all_pix2world(*ours[:, row, column], 0), 0)
    assert on.sum() > 30
    assert np.abs(np.array(back) - [column, row]).max() < 1e-4 / scale


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A frame with faults and uncertainties, turned by 3 degrees, as a file and in memory."""
    rng = np.random.default_rng(8)
    frame = make_frame(make_wcs(angle=183, sip=True), sky_stars(4, rng), sigma=5.0, rng=rng)
    frame.data += 100
    frame.flags.ravel()[rng.integers(0, frame.data.size, 300)] = HOT
    frame.flags[50:53, 70:75] = SATURATED
    frame.data[20, 30] = np.nan
    frame.uncertainty = StdDevUncertainty(rng.uniform(4, 6, SHAPE).astype(np.float32))
    path = tmp_path_factory.mktemp("aligned") / "f.fits"
    write_product(frame, path)
    return path, frame


def same(first, second):
    """Whether arrays have the same bytes."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("method", METHODS[:2])
def test_aligned_rows_are_the_same_by_any_bands_tiles_and_threads(product, method):
    """The same bytes from a file or memory, whole, in bands or in columns, on any threads."""
    path, frame = product
    rows = AlignedRows(path, make_wcs(), shape=SHAPE, method=method)
    whole = rows.aligned(0, SHAPE[0])
    memory = AlignedRows(frame, make_wcs(), shape=SHAPE, method=method)
    for a, b in zip(memory.aligned(0, SHAPE[0]), whole, strict=True):
        # The WCS of the file has one digit less than that in memory.
        assert a == pytest.approx(b, abs=1e-3, nan_ok=True)
    for height in (1, 7, 64):
        bands = [(a, min(a + height, SHAPE[0])) for a in range(0, SHAPE[0], height)]
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda band: rows.aligned(*band), bands))
        assert same([np.concatenate(part) for part in zip(*parts, strict=True)], whole)
    for width in (1, 33, 100):
        tiles = [(a, min(a + width, SHAPE[1])) for a in range(0, SHAPE[1], width)]
        parts = [rows.aligned(20, 90, columns=tile) for tile in tiles]
        joined = [np.hstack(part) for part in zip(*parts, strict=True)]
        assert same(joined, [array[20:90] for array in whole])
    out = tuple(np.empty_like(array) for array in whole)
    assert rows.aligned(0, SHAPE[0], out=out)[0] is out[0] and same(out, whole)
    image = reproject_frame(frame, make_wcs(), shape=SHAPE, method=method)
    assert same([image.data, image.flags], memory.aligned(0, SHAPE[0])[::2])
    errors = memory.error_rows(0, SHAPE[0])
    assert same([errors, errors[30:40]], [image.uncertainty.array, memory.error_rows(30, 40)])
    assert rows.error_rows(5, 9) == pytest.approx(errors[5:9], abs=1e-3, nan_ok=True)


def test_aligned_rows_subtract_the_sky_before(product):
    """The sky of the frame's own pixels is subtracted before they are interpolated."""
    path, frame = product
    mesh = sky_mesh(frame.data, ~np.isfinite(frame.data), box=50)
    level = mesh.level_surface.fill(0, SHAPE[0])
    less = CCDData(frame.data - level, unit="adu", flags=frame.flags, wcs=frame.wcs)
    expected = AlignedRows(less, make_wcs(), shape=SHAPE).aligned(0, SHAPE[0])
    for sky in (mesh, mesh.level_surface):
        rows = AlignedRows(path, make_wcs(), shape=SHAPE, sky=sky)
        assert same(rows.aligned(0, SHAPE[0]), expected)


def test_aligned_rows_are_a_row_source(product):
    """They go where rows of files go; they know their name, share of the grid and area."""
    path, _ = product
    rows = AlignedRows(path, make_wcs(), shape=SHAPE)
    assert (rows.name, rows.shape, rows.step) == ("f.fits", SHAPE, 0.0)
    data, _, bits = rows.aligned(0, SHAPE[0])
    assert rows.overlap == pytest.approx(np.mean(bits & OUTSIDE == 0), abs=0.01)
    assert rows.area == pytest.approx(1.0, abs=0.05)
    twice = np.empty((10, SHAPE[1]), np.float32)
    rows.fill(twice, 70, 80, 2.0)
    assert np.array_equal(twice, 2 * data[70:80], equal_nan=True)
    mean = combine([rows, rows, rows], method="mean").data
    assert np.array_equal(mean, data, equal_nan=True)


def test_aligned_rows_of_a_plain_file(tmp_path):
    """A file without planes for faults, of whole numbers, is read like any other."""
    wcs, rng = make_wcs(angle=40), np.random.default_rng(9)
    data = rng.integers(0, 60000, SHAPE).astype(np.uint16)
    fits.PrimaryHDU(data, wcs.to_header()).writeto(tmp_path / "raw.fits")
    found = AlignedRows(tmp_path / "raw.fits", make_wcs(), shape=SHAPE).aligned(0, SHAPE[0])
    frame = CCDData(data.astype(np.float32), unit="adu", wcs=wcs)
    assert same(AlignedRows(frame, make_wcs(), shape=SHAPE).aligned(0, SHAPE[0]), found)


@pytest.mark.parametrize(("angle", "most"), [(0.5, 1.5), (180.5, 1.5), (45, 5), (90, 2.5)])
def test_only_needed_pixels_are_read(tmp_path, monkeypatch, angle, most):
    """A band of the grid reads about its own number of pixels, also of a flipped or turned frame.

    Beyond that are 7 px of margin on all sides, and the corners of the box around a turned band.
    """
    shape = (1200, 1600)
    wcs, grid = make_wcs(angle=angle), make_wcs()
    wcs.wcs.crpix = grid.wcs.crpix = [800, 600]
    data = np.random.default_rng(10).normal(0, 5, shape)
    write_product(CCDData(data, unit="adu", wcs=wcs, meta=fits.Header()), tmp_path / "f.fits")
    rows = AlignedRows(tmp_path / "f.fits", grid, shape=shape)
    read, original = [], rows.planes.read

    def count(*args, **options):
        data, flags = original(*args, **options)
        read.append(data.size)
        return data, flags

    monkeypatch.setattr(rows.planes, "read", count)
    bands = [rows.aligned(a, a + 100)[0] for a in range(0, 1200, 100)]
    assert sum(read) < most * data.size
    whole = AlignedRows(CCDData(data, unit="adu", wcs=wcs), grid, shape=shape).rows(0, 1200)
    assert same([np.concatenate(bands)], [whole])


def test_frame_between_the_rows_that_are_looked_at_overlaps():
    """A frame of few rows is found on a high grid, wherever it lies."""
    frame, grid = CCDData(np.ones((4, 200)), unit="adu", wcs=make_wcs()), make_wcs()
    for row in range(8):
        grid.wcs.crpix[1] = frame.wcs.wcs.crpix[1] + 300 + row
        rows = AlignedRows(frame, grid, shape=(800, 200))
        assert np.isfinite(rows.rows(0, 800)).any(axis=1).sum() == 4


def test_damaged_files_and_wrong_rows_are_refused(tmp_path):
    """002-07: no memory beyond an image is read: planes of other shapes, lost ends, wrong rows."""
    path, shape, wcs = tmp_path / "f.fits", (600, 800), make_wcs(angle=90)
    wcs.wcs.crpix = [400, 300]
    images = [fits.PrimaryHDU(np.zeros(shape, np.float32), wcs.to_header())]
    for name in ("MASK", "UNCERT"):
        other = fits.ImageHDU(np.zeros((600, 700), np.float32), name=name)
        fits.HDUList([*images, other]).writeto(path, overwrite=True)
        with pytest.raises(FrameError, match=rf"f\.fits: {name} has the shape \(600, 700\)"):
            AlignedRows(path, wcs, shape=shape)
    images[0].writeto(path, overwrite=True)
    upright = make_wcs()
    upright.wcs.crpix = [400, 300]
    for grid in (wcs, upright):  # Whole rows, and parts of rows.
        rows = AlignedRows(path, grid, shape=shape)
        for wrong in ((-1, 5), (590, 601), (9, 8)):
            with pytest.raises(IndexError, match="the grid has 600"):
                rows.aligned(*wrong)
        for wrong in ((-1, 5), (690, 801), (9, 8)):
            with pytest.raises(
                IndexError, match=f"columns {wrong[0]} to .* the grid has {shape[1]}"
            ):
                rows.aligned(0, 5, columns=wrong)
        with path.open("r+b") as stream:
            stream.truncate(500_000)
        with pytest.raises(FrameError, match=r"f\.fits: the file ends"):
            [rows.rows(a, a + 100) for a in range(0, 600, 100)]
        images[0].writeto(path, overwrite=True)


def test_old_coordinates_are_not_kept_beside_the_new(product, tmp_path):
    """003-14: what is written by astropy, too, has the coordinates of the grid only."""
    grid, shape = common_grid([read_product(product[0])])
    out = reproject_frame(read_product(product[0]), grid, shape=shape)
    out.write(tmp_path / "aligned.fits")
    found = read_wcs(fits.getheader(tmp_path / "aligned.fits"), shape)
    expected = grid.all_pix2world([0, 199], [0, 149], 0)
    assert np.allclose(found.all_pix2world([0, 199], [0, 149], 0), expected, rtol=0, atol=1e-8)


@pytest.mark.skipif(not shutil.which("SWarp"), reason="SWarp is not installed")
@pytest.mark.parametrize("change", ["shift", "rotation", "flip", "fine"])
def test_agreement_with_swarp(tmp_path, change):
    """ST-01, 004-13: pixels and star fluxes are those of SWarp, bilinear and Lanczos-3.

    SWarp knows no SIP. Both tabulate the weights of Lanczos-3: 1 % of the noise at most, 1e-4 of
    the flux of a star.
    """
    options = CHANGES.get(change, {"scale": 0.8, "angle": 10})
    rng, wcs = np.random.default_rng(11), make_wcs(**options)
    grid, _ = common_grid([(SHAPE, make_wcs())])
    stars = sky_stars(3, rng)
    frame = make_frame(wcs, stars, sigma=5.0, rng=rng)
    fits.PrimaryHDU(frame.data, wcs.to_header()).writeto(tmp_path / "in.fits")
    header = grid.to_header()
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, SHAPE[1], SHAPE[0]
    header.tofile(tmp_path / "out.head", sep="\n", padding=False)
    for method, limit in (("bilinear", 1e-3), ("lanczos3", 1e-2)):
        subprocess.run(
            ["SWarp", "in.fits", "-c", "/dev/null", "-IMAGEOUT_NAME", "out.fits",
             "-SUBTRACT_BACK", "N", "-RESAMPLING_TYPE", method.upper(), "-PROJECTION_ERR", "0",
             "-WRITE_XML", "N", "-VERBOSE_TYPE", "QUIET"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
        theirs = fits.getdata(tmp_path / "out.fits")
        ours = reproject_frame(frame, grid, shape=SHAPE, method=method).data
        weights = fits.getdata(tmp_path / "coadd.weight.fits")
        # SWarp has nothing within the half width of the kernel from the border.
        both = ndimage.binary_erosion(np.isfinite(ours) & (weights > 0), iterations=4)
        assert both.mean() > 0.5
        noise = np.hypot(5, np.sqrt(np.maximum(theirs, 0)))
        assert np.max((np.abs(ours - theirs) / noise)[both]) < limit
        whole = measure(both, grid, stars, radius=9) >= measure(
            np.ones(SHAPE), grid, stars, radius=9
        )
        assert whole.sum() >= 4
        flux = measure(ours, grid, stars, radius=9) / measure(theirs, grid, stars, radius=9)
        assert flux[whole] == pytest.approx(1, abs=1e-4)
