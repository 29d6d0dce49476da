"""Stacks: light is conserved, noise falls, trails vanish, clouds stay out."""

import math
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from astropy.wcs import WCS, Sip
from matplotlib.image import imread
from reproject import reproject_interp

from datared import stacking
from datared.errors import DataredError, DataredWarning, FrameError
from datared.frames import read_product, write_product
from datared.night import Camera, Night
from datared.pixels import HOT, OUTSIDE, SATURATED
from datared.render import star_image
from datared.stacking import coadd, colour_image, common_grid, gray_image, reproject_frame

SHAPE = (150, 200)


def make_wcs(*, angle=0.0, scale=1.0, shift=(0.0, 0.0), center=(150.0, 20.0), sip=False):
    """WCS of a frame, turned, scaled and shifted against the standard one."""
    wcs = WCS(naxis=2)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = center
    wcs.wcs.crpix = [SHAPE[1] / 2 + 0.5 + shift[0], SHAPE[0] / 2 + 0.5 + shift[1]]
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * scale / 3600
    if sip:
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[3, 0] = a[1, 2] = b[0, 3] = b[2, 1] = 2e-6  # 3 px in the corner
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def sky_stars(n, rng, *, low=2e3, high=2e4):
    """Sky positions and fluxes of isolated stars well inside the standard frame."""
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(35, 165, n), np.linspace(30, 120, n)))
    ra, dec = make_wcs().all_pix2world(x + rng.uniform(-2, 2, x.size), y, 0)
    return ra, dec, rng.uniform(low, high, x.size)


def make_frame(wcs, stars, *, fwhm=3.5, sky=0.0, sigma=0.0, light=1.0, rng=None, extra=0.0):
    """Frame of stars seen through a WCS."""
    ra, dec, flux = stars
    x, y = wcs.all_world2pix(ra, dec, 0)
    data = star_image(SHAPE, x, y, light * flux, fwhm=fwhm) + sky + extra
    if sigma:
        data += rng.normal(0, sigma, SHAPE)
    flags = np.zeros(SHAPE, np.uint16)
    return CCDData(data.astype(np.float32), unit="adu", flags=flags, wcs=wcs, meta=fits.Header())


def measure(image, wcs, stars, *, radius):
    """Sum in circles around the stars, by pixels whose centres are inside."""
    j, i = np.indices(image.shape)
    x, y = wcs.all_world2pix(*stars[:2], 0)
    circles = np.hypot(i - x[:, None, None], j - y[:, None, None]) < radius
    return np.where(circles, np.nan_to_num(image), 0).sum(axis=(1, 2))


@pytest.mark.parametrize("method", ["bilinear", "adaptive", "exact"])
@pytest.mark.parametrize(
    "change",
    [{"angle": 180, "shift": (3.3, -2.7)}, {"angle": 17}, {"scale": 1.3}, {"sip": True}],
    ids=["flip", "rotation", "scale", "distortion"],
)
def test_reproject_flux(change, method):
    """Sums over stars stay within 0.5 %, through flip, rotation, scale and distortion.

    Without noise; the circle of 14 px holds all but 0.3 % of the light, on either grid.
    """
    stars = sky_stars(4, np.random.default_rng(1))
    frame = make_frame(make_wcs(**change), stars)
    out = reproject_frame(frame, make_wcs(), shape=SHAPE, method=method)
    x = measure(out.data, make_wcs(), stars, radius=14) / stars[2]
    reference = make_frame(make_wcs(), stars, fwhm=3.5 * change.get("scale", 1))
    truth = measure(reference.data, make_wcs(), stars, radius=14) / stars[2]
    assert x == pytest.approx(truth, rel=0.005)


def test_reproject_agrees_with_the_package_reproject():
    """Pixel by pixel like reproject_interp, to a thousandth of the noise on sky."""
    rng = np.random.default_rng(2)
    frame = make_frame(make_wcs(angle=31, sip=True), sky_stars(3, rng), sigma=5.0, rng=rng)
    wcs = make_wcs()
    ours = reproject_frame(frame, wcs, shape=SHAPE)
    theirs, footprint = reproject_interp((frame.data, frame.wcs), wcs, shape_out=SHAPE)
    inside = (footprint > 0) & np.isfinite(ours.data)
    assert inside.mean() > 0.7
    assert np.mean(inside == (footprint > 0)) > 0.999
    area = reproject_frame(CCDData(np.ones(SHAPE), unit="adu", wcs=frame.wcs), wcs, shape=SHAPE)
    difference = (ours.data - theirs * area.data)[inside]
    # 0.0005 px between the nodes, times steps of 5 ADU from pixel to pixel, 500 in stars.
    assert np.percentile(np.abs(difference), 95) < 0.005
    assert np.abs(difference).max() < 0.5


def test_reproject_onto_itself_changes_nothing():
    """The frame's own grid gives the frame, bad pixels excepted; the input is not changed."""
    rng = np.random.default_rng(3)
    frame = make_frame(make_wcs(), sky_stars(3, rng), sigma=5.0, rng=rng)
    frame.flags[40, 50], frame.flags[60, 70] = HOT, SATURATED
    before = frame.data.copy()
    out = reproject_frame(frame, make_wcs(), shape=SHAPE)
    good = frame.flags != HOT
    # Coordinates come back from the sky with 1e-9 px.
    assert out.data[good & np.isfinite(out.data)] == pytest.approx(
        before[good & np.isfinite(out.data)], abs=1e-3
    )
    assert np.array_equal(frame.data, before)
    assert out.flags[40, 50] == HOT and not np.isfinite(out.data[40, 50])
    assert out.flags[60, 70] == SATURATED and np.isfinite(out.data[60, 70])
    # A neighbour's weight is 1e-9 here, so the hole may touch the pixels beside it, no more.
    assert np.count_nonzero(~np.isfinite(out.data)) <= 9


def test_reproject_footprint_and_nan_borders():
    """Beyond the frame there is NaN and OUTSIDE, a NaN border is not light."""
    frame = CCDData(np.full(SHAPE, 7.0), unit="adu", wcs=make_wcs())
    frame.data[:, :10] = np.nan
    out = reproject_frame(frame, make_wcs(shift=(30, 0)), shape=SHAPE)
    outside = (out.flags & OUTSIDE) != 0
    assert outside[:, :29].all() and not outside[:, 31:].any()
    assert np.isnan(out.data[:, :39]).all()
    assert out.data[:, 42:] == pytest.approx(7.0, rel=1e-5)
    assert out.mask[:, :39].all() and not out.mask[:, 42:].any()


def test_reproject_carries_uncertainty():
    """The stated noise of interpolated pixels is their scatter over many frames of noise."""
    rng, wcs = np.random.default_rng(4), make_wcs(angle=10, shift=(0.3, 0.4))
    values = []
    for _ in range(40):
        frame = CCDData(rng.normal(0, 4, SHAPE), unit="adu", wcs=make_wcs())
        frame.uncertainty = StdDevUncertainty(np.full(SHAPE, 4.0))
        out = reproject_frame(frame, wcs, shape=SHAPE)
        values.append(out.data)
    good = np.isfinite(out.data)
    ratio = np.std(values, axis=0, ddof=1)[good] / out.uncertainty.array[good]
    # 40 values give a scatter to 11 %; the mean over 2e4 pixels to 0.2 %, less 0.6 % of bias.
    assert np.mean(ratio) == pytest.approx(1, abs=0.015)


def test_stack_needs_wcs():
    """002-07: a frame without WCS is refused with what to do; nothing is added unaligned."""
    frame = CCDData(np.zeros(SHAPE), unit="adu")
    with pytest.raises(FrameError, match=r"no WCS.*stage solved"):
        reproject_frame(frame, make_wcs(), shape=SHAPE)
    with pytest.raises(FrameError, match="no WCS"):
        common_grid([frame])


def test_reproject_no_overlap_and_unknown_method():
    """A frame of another part of the sky, or of the other side of it, is refused."""
    frame = CCDData(np.zeros(SHAPE), unit="adu", wcs=make_wcs())
    for center in ((151.0, 20.0), (330.0, -20.0)):
        with pytest.raises(FrameError, match="overlap"):
            reproject_frame(frame, make_wcs(center=center), shape=SHAPE)
    with pytest.raises(ValueError, match="bilinear, adaptive, exact"):
        reproject_frame(frame, make_wcs(), shape=SHAPE, method="cubic")


def test_common_grid_of_reference_and_of_all():
    """The reference's grid has no distortion; the optimal one holds every frame."""
    frames = [
        CCDData(np.zeros(SHAPE), unit="adu", wcs=make_wcs(sip=True)),
        CCDData(np.zeros(SHAPE), unit="adu", wcs=make_wcs(angle=40, shift=(60, 0))),
    ]
    wcs, shape = common_grid(frames)
    assert shape == SHAPE and wcs.sip is None and frames[0].wcs.sip is not None
    assert wcs.wcs.crval.tolist() == [150, 20]
    wcs, shape = common_grid(frames, reference=None)
    for frame in frames:
        corners = frame.wcs.all_pix2world([0, 199, 0, 199], [0, 0, 149, 149], 0)
        x, y = wcs.all_world2pix(*corners, 0)
        assert x.min() > -2 and y.min() > -2 and x.max() < shape[1] + 1 and y.max() < shape[0] + 1


def aligned_frames(n, *, sigma=6.0, trail=None, widths=None, seed=5, lights=None):
    """Aligned frames of stars, dithered by fractions of a pixel and with changing seeing."""
    rng = np.random.default_rng(seed)
    stars = sky_stars(4, rng)
    frames = []
    for k in range(n):
        wcs = make_wcs(shift=rng.uniform(-5, 5, 2), angle=180 * (k % 2))
        extra = np.zeros(SHAPE)
        if k == trail:
            j, i = np.indices(SHAPE)
            extra = 400 * np.exp(-0.5 * ((j - 0.5 * i - 20) / 1.3) ** 2)
        frame = make_frame(
            wcs,
            stars,
            fwhm=3.5 if widths is None else widths[k],
            sigma=sigma,
            light=1.0 if lights is None else lights[k],
            rng=rng,
            extra=extra,
        )
        frames.append(reproject_frame(frame, make_wcs(), shape=SHAPE))
    return frames, stars


def empty_sky(image):
    """Scatter of the sky between the stars."""
    values = image[np.isfinite(image)]
    middle = np.median(values)
    return 1.4826 * np.median(np.abs(values[values < middle] - middle))


@pytest.mark.parametrize("n", [3, 4, 9, 16])
def test_stack_depth(n):
    """Noise falls as 1/sqrt(N) within 5 %.

    Interpolation smooths each frame by another amount, which depends on its dither; the
    expectation is the quadratic sum of the scatter of the frames that are stacked, divided by N.
    3e4 pixels give the scatter to 1 %.
    """
    rng = np.random.default_rng(6)
    frames = []
    for _ in range(n):
        frame = CCDData(
            rng.normal(0, 6, SHAPE), unit="adu", wcs=make_wcs(shift=rng.uniform(-5, 5, 2))
        )
        frames.append(reproject_frame(frame, make_wcs(), shape=SHAPE).data)
    stack = coadd(frames, noise=np.full(n, 6.0))
    inner = (slice(10, -10), slice(10, -10))
    expected = math.sqrt(sum(np.std(f[inner]) ** 2 for f in frames)) / n
    assert np.std(stack.data[inner]) == pytest.approx(expected, rel=0.05)
    assert stack.uncertainty[inner] == pytest.approx(6 / math.sqrt(n), rel=0.02)
    assert stack.count[inner].min() >= n - 1  # 5 sigma: next to nothing of the noise is left out
    assert sum(stack.n_rejected) < 1e-4 * n * stack.data.size


def test_stack_satellite_trail_gone_and_stars_stay():
    """A trail of 65 sigma leaves nothing; stars keep their light though the seeing changes."""
    widths = [3.2, 3.6, 3.3, 4.4, 3.4]
    clean, stars = aligned_frames(5, widths=widths)
    dirty, _ = aligned_frames(5, trail=2, widths=widths)
    noise = np.full(5, 6.0)
    with_trail, without = coadd(dirty, noise=noise), coadd(clean, noise=noise)
    j, i = np.indices(SHAPE)
    # The frame with the trail is not turned, its dither moves the trail by 5 px at most.
    band = np.abs(j - 0.5 * i - 20) < 15
    for box in (band, ~band):
        box = box & np.isfinite(with_trail.data) & np.isfinite(without.data)
        left = (with_trail.data - without.data)[box]
        # Where it was, four frames are left: other noise, but no light. 6 / sqrt(20) each pixel.
        assert abs(left.mean()) < 0.1
    assert with_trail.n_rejected[2] > 800
    flux = measure(without.data, make_wcs(), stars, radius=14)
    single = np.mean([measure(f.data, make_wcs(), stars, radius=14) for f in clean], axis=0)
    # The same noise is in both; what differs is what was left out of stars.
    assert flux / single == pytest.approx(1, abs=0.003)


def test_stack_scaling():
    """Fluxes of frames behind thin clouds are scaled; the fainter frame has the lower weight."""
    lights = np.array([1.0, 0.7, 0.9, 0.8])
    frames, stars = aligned_frames(4, lights=lights, sigma=2.0)
    fluxes = [measure(f.data, make_wcs(), stars, radius=9) for f in frames]
    scales, scatter = stacking.flux_scales(fluxes)
    # 16 stars of S/N > 60 (2 ADU, 250 px): the median is good to 0.5 %.
    assert scales == pytest.approx(1 / lights, rel=0.01)
    assert scatter.max() < 0.03
    stack = coadd(frames, noise=np.full(4, 2.0), scales=scales, exptimes=np.full(4, 30.0))
    flux = measure(stack.data, make_wcs(), stars, radius=9)
    assert np.median(flux / fluxes[0]) == pytest.approx(1, abs=0.01)
    weights = 1 / (scales * 2) ** 2
    inner = stack.uncertainty[60:90, 80:120]
    assert np.median(inner) == pytest.approx(1 / math.sqrt(weights.sum()), rel=0.01)
    assert stack.exposure[75, 100] == 120


def test_flux_scales_with_few_stars():
    """Fewer than five common stars give no scale, whatever else is there."""
    fluxes = np.full((2, 8), 100.0)
    fluxes[1, 4:] = np.nan
    scales, _ = stacking.flux_scales(fluxes)
    assert scales[0] == 1 and np.isnan(scales[1])


def test_stack_of_one_and_two_frames():
    """One frame is itself; of two nothing can be left out, which is said."""
    frame = np.random.default_rng(7).normal(0, 1, (20, 30)).astype(np.float32)
    single = coadd([frame], noise=[1.0])
    assert single.data == pytest.approx(frame)
    with pytest.warns(DataredWarning, match="two frames"):
        double = coadd([frame, frame + 2], noise=[1.0, 1.0])
    assert double.data == pytest.approx(frame + 1, abs=1e-5)
    assert double.n_rejected == (0, 0)


def test_stack_nan_borders():
    """Where frames do not overlap the stack has fewer of them; where none is, NaN."""
    frames = np.full((3, 10, 10), 5.0, np.float32)
    frames[0, :, :4] = frames[1, :, :2] = frames[2, :, :1] = np.nan
    stack = coadd(frames, noise=[1, 1, 1], exptimes=[10, 20, 30])
    assert stack.count[0].tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert np.isnan(stack.data[:, 0]).all() and np.isnan(stack.uncertainty[:, 0]).all()
    assert stack.data[:, 1:] == pytest.approx(5)
    assert stack.exposure[0, :5].tolist() == [0, 30, 50, 50, 60]


def test_coadd_refuses_wrong_input():
    """No frames, another shape, other numbers of options: each has its message."""
    frame = np.zeros((4, 5), np.float32)
    with pytest.raises(FrameError, match="no frame"):
        coadd([], noise=[])
    with pytest.raises(FrameError, match="shape"):
        coadd([frame, frame, frame.T], noise=[1, 1, 1])
    with pytest.raises(ValueError, match="noise must be 2"):
        coadd([frame, frame], noise=[1, 0])


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """A night of 6 solved r frames (a trail, a cloud, one elsewhere) and 3 g, stacked."""
    folder = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(8)
    stars = sky_stars(5, rng, low=4e3, high=2e5)
    lights = {"r": [1, 0.95, 0.3, 1, 0.97, 1], "g": [1, 1, 1]}
    rows = []
    for name in lights:
        for k, light in enumerate(lights[name]):
            elsewhere = name == "r" and k == 5
            wcs = make_wcs(
                shift=rng.uniform(-4, 4, 2),
                angle=180 * (k % 2),
                center=(152.0, 20.0) if elsewhere else (150.0, 20.0),
            )
            here = (stars[0] + 2 * elsewhere, *stars[1:])
            frame = make_frame(wcs, here, sky=300, sigma=8.0, light=light, rng=rng)
            if (name, k) == ("r", 1):
                frame.data[70:73] += 2000
            frame.meta.update({"EXPTIME": 30.0, "FILTER": name, "JD_UTC_M": 2460000.5 + k})
            frame.meta.update({"FWHM": 3.5, "OBJECT": "M 0"})
            write_product(frame, folder / "solved" / f"{name}{k}.fits")
            rows.append((f"{name}{k}.fits", name, "made", 25 if light > 0.5 else 9, 3.5, 8.0))
    table = Table(rows=rows, names=("file", "filter", "status", "n_stars", "fwhm", "noise"))
    table["status"] = table["status"].astype("U8")
    table.add_row(("x.fits", "r", "failed", 0, np.nan, np.nan))
    table.write(folder / "astrometry.ecsv")
    night = Night(name="test", raw=folder / "raw", work=folder, camera=Camera(gain=1.5))
    return night, stacking.stack_night(night), stars


def test_stack_header(stacked):
    """Number of frames, total time and mid time are those of the frames used; the WCS is kept."""
    night, table, stars = stacked
    image = read_product(night.work / "stack" / "r.fits")
    assert image.meta["NCOMBINE"] == 4
    assert image.meta["EXPTIME"] == 120
    assert image.meta["OBJECT"] == "M 0" and image.meta["FILTER"] == "r"
    used = np.asarray(table["status"] == "made") & np.asarray(table["filter"] == "r")
    # Days 0, 1, 3 and 4, with weights that differ by the 5 % of the light.
    assert image.meta["JD_UTC_M"] == pytest.approx(2460002.5, abs=0.1)
    assert used.sum() == 4
    x, y = image.wcs.all_world2pix(stars[0], stars[1], 0)
    peaks = image.data[np.rint(y).astype(int), np.rint(x).astype(int)]
    assert peaks.min() > 30 * empty_sky(image.data)
    # Counts of the total time: a star has those of one exposure of 120 s.
    flux = measure(image.data, image.wcs, stars, radius=14)
    alone = measure(star_image(SHAPE, x, y, stars[2], fwhm=3.5), image.wcs, stars, radius=14)
    bright = stars[2] > 5e4
    assert np.median((flux / alone)[bright]) / 4 == pytest.approx(1, abs=0.01)
    # Scaled counts stand for fewer electrons: by the mean light of the frames.
    assert image.meta["EGAIN"] == pytest.approx(1.5 * np.mean([1, 0.95, 1, 0.97]), rel=0.01)
    # Bilinear weights of random dithers leave 2/3 of the noise, between 1/2 and 1 for each frame.
    assert 1.1 < image.meta["NOISECOR"] < 2
    noise = 4 * 8 / math.sqrt(4) * np.mean([1, 1 / 0.95, 1, 1 / 0.97])
    assert image.meta["NOISECOR"] * image.meta["SKYNOISE"] == pytest.approx(noise, rel=0.05)
    exposure = read_product(night.work / "stack" / "r_exposure.fits")
    assert exposure.data.max() == 120


def test_stack_night_leaves_out_clouds_and_says_why(stacked):
    """The clouded frame and the one without overlap are listed with their reasons."""
    _, table, _ = stacked
    reasons = {str(row["file"]): str(row["reason"]) for row in table if row["reason"]}
    assert set(reasons) == {"r2.fits", "r5.fits"}
    # 0.3 of the best frame, 0.31 of the usual one.
    assert "clouds" in reasons["r2.fits"] and "31%" in reasons["r2.fits"]
    assert "overlap" in reasons["r5.fits"]
    rows = {str(row["file"]): row for row in table}
    assert rows["r1.fits"]["n_rejected"] > 400  # the trail
    assert rows["r1.fits"]["scale"] / rows["r0.fits"]["scale"] == pytest.approx(1 / 0.95, rel=0.01)


def test_stack_night_is_current_the_second_time(stacked):
    """Nothing is made again, the numbers are still there, no temporary folder is left."""
    night, table, _ = stacked
    before = (night.work / "stack" / "r.fits").read_bytes()
    again = stacking.stack_night(night)
    assert set(again["status"]) == {"current", "left out"}
    assert again["scale"].tolist() == pytest.approx(table["scale"].tolist(), nan_ok=True)
    assert (night.work / "stack" / "r.fits").read_bytes() == before
    names = {path.name for path in (night.work / "stack").iterdir()}
    assert names == {
        *(f"{f}{end}" for f in "rg" for end in (".fits", "_exposure.fits", ".png")),
        "colour.png",
    }


def test_stack_night_same_bytes_with_files_on_disk(stacked, monkeypatch):
    """Frames that do not fit in memory go through files; the result is the same."""
    night, _, _ = stacked
    before = (night.work / "stack" / "g.fits").read_bytes()
    other = replace(night, camera=Camera(gain=1.5, pixel_scale=1.0))
    (night.work / "stack" / "g.fits").unlink()
    monkeypatch.setattr(stacking, "IN_MEMORY", 0)
    stacking.stack_night(other)
    assert (night.work / "stack" / "g.fits").read_bytes() == before
    assert not list((night.work / "stack").glob("*_aligned"))


def test_stack_night_without_solved_frames(tmp_path):
    """A night that is not solved says which stage is missing."""
    night = Night(name="none", raw=tmp_path / "raw", work=tmp_path / "work")
    with pytest.raises(DataredError, match="stage solved"):
        stacking.stack_night(night)


def test_stack_night_pictures(stacked):
    """Pictures are written, top of the sky up, sky dark, and at most 1 % of the pixels white."""
    night, _, _ = stacked
    for name in ("r.png", "colour.png"):
        picture = imread(night.work / "stack" / name)[..., :3]
        assert picture.shape == (*SHAPE, 3)
        assert np.mean(picture.max(axis=2) >= 1) < 0.01
        assert np.median(picture) < 0.35
    image = read_product(night.work / "stack" / "r.fits")
    top = np.flipud(imread(night.work / "stack" / "r.png")[..., 0])
    assert np.corrcoef(top.ravel(), np.nan_to_num(np.arcsinh(image.data / 50)).ravel())[0, 1] > 0.8


def test_colour_image_balance_and_two_colours():
    """White stars are white, red ones red; two images make three channels; sizes must agree."""
    rng = np.random.default_rng(9)
    base = star_image((60, 80), [20.0], [30.0], [5e4], fwhm=4.0)
    noise = rng.normal(0, 5, (3, 60, 80))
    red, green, blue = 2 * base + noise[0], base + noise[1], base / 2 + noise[2]
    red += star_image((60, 80), [60.0], [30.0], [5e4], fwhm=4.0)
    picture = colour_image(red, green, blue, scale=(0.5, 1, 2)).astype(int)
    assert np.ptp(picture[30, 20]) < 12
    assert picture[30, 60, 0] > picture[30, 60, 2] + 100
    assert colour_image(red, None, blue).shape == (60, 80, 3)
    assert np.mean(picture == 255) < 0.01
    with pytest.raises(FrameError, match="shapes"):
        colour_image(red, green[:50], blue)
    with pytest.raises(FrameError, match="two images"):
        colour_image(red, green, None)
    red[:5] = np.nan
    assert colour_image(red, green, blue).dtype == np.uint8


def test_gray_png_does_not_depend_on_the_offset():
    """A constant added to the image changes no grey; an empty sky is not stretched to white."""
    rng = np.random.default_rng(10)
    image = rng.normal(0, 5, (60, 80)) + star_image((60, 80), [40.0], [30.0], [2e4], fwhm=4.0)
    assert np.array_equal(gray_image(image), gray_image(image + 1000.0))
    assert gray_image(image).max() == 255 and np.mean(gray_image(image) == 255) < 0.01
    assert np.median(gray_image(rng.normal(0, 5, (60, 80)))) < 120
    with pytest.raises(FrameError, match="finite"):
        gray_image(np.full((4, 4), np.nan))
