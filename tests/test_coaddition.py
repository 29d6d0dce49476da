"""Co-addition: noise falls, what only one frame shows vanishes, stars keep their light."""

import math
import tracemalloc

import numpy as np
import pytest
from astropy.nddata import CCDData

from datared import coaddition, stackrows
from datared.coaddition import coadd, flux_scales
from datared.errors import DataredWarning, FrameError
from datared.pixels import HOT, OUTSIDE, SATURATED
from datared.render import star_image
from datared.resampling import AlignedRows
from tests.stackfields import SHAPE, make_frame, make_wcs, measure, sky_stars

SIGMA, GAIN = 6.0, 1.5
INNER = (slice(10, -10), slice(10, -10))
ROWS, COLUMNS = np.indices(SHAPE)


def exposures(widths, *, seed=5, extra=None, saturation=None, shift=4.0):
    """Aligned frames of bright and faint stars, dithered, with photon and read noise, and truth.

    ``extra(k, wcs)`` is what frame k has in addition; the noise does not depend on it.
    """
    rng = np.random.default_rng(seed)
    stars = sky_stars(4, rng)
    stars = (*stars[:2], 10 ** rng.uniform(3.5, 5.7, stars[2].size))
    frames = []
    for k, fwhm in enumerate(widths):
        wcs = make_wcs(shift=rng.uniform(-shift, shift, 2), angle=180 * (k % 2))
        frame = make_frame(wcs, stars, fwhm=fwhm)
        noise = np.sqrt(frame.data / GAIN + SIGMA**2) * rng.normal(0, 1, SHAPE)
        frame.data = (frame.data + noise).astype(np.float32)
        if extra is not None:
            frame.data += extra(k, wcs).astype(np.float32)
        if saturation is not None:
            frame.flags[frame.data > saturation] = SATURATED
            frame.data = np.minimum(frame.data, np.float32(saturation))
        frames.append(AlignedRows(frame, make_wcs(), shape=SHAPE))
    return frames, stars


def options(widths):
    """Noise, gain and seeing of such frames."""
    return {"noise": np.full(len(widths), SIGMA), "gain": GAIN, "fwhm": widths}


def trail(frame, *, peak, fwhm=3.0, beta=2.5):
    """Give a frame a satellite trail with the wings of the seeing, on a line of the grid."""
    width = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))

    def extra(k, wcs):
        if k != frame:
            return np.zeros(SHAPE)
        x, y = make_wcs().all_world2pix(*wcs.all_pix2world(COLUMNS, ROWS, 0), 0)
        away = (y - 0.5 * x - 20) / math.hypot(1, 0.5)
        return peak * (1 + (away / width) ** 2) ** (0.5 - beta)

    return extra


def line_distance():
    """Distance of the pixels of the grid from the trail."""
    return np.abs(ROWS - 0.5 * COLUMNS - 20) / math.hypot(1, 0.5)


def near_stars(stars, radius):
    """Pixels of the grid around the stars."""
    x, y = make_wcs().all_world2pix(*stars[:2], 0)
    return (np.hypot(COLUMNS - x[:, None, None], ROWS - y[:, None, None]) < radius).any(axis=0)


# --- depth ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:two frames:datared.errors.DataredWarning")
@pytest.mark.parametrize("n", [2, 3, 4, 8, 16])
def test_stack_depth(n):
    """ST-03: noise falls as 1/sqrt(N) within 5 %, for two frames as for sixteen.

    Interpolation smooths each frame by another amount, which depends on its dither; the expectation
    is the quadratic sum of the scatter of the frames that are stacked, divided by N. 2e4 pixels,
    half of them independent, give the scatter to 0.7 %.
    """
    rng = np.random.default_rng(6)
    frames = []
    for _ in range(n):
        wcs = make_wcs(shift=rng.uniform(-5, 5, 2))
        frame = CCDData(rng.normal(0, SIGMA, SHAPE), unit="adu", wcs=wcs)
        frames.append(AlignedRows(frame, make_wcs(), shape=SHAPE))
    stack = coadd(frames, noise=np.full(n, SIGMA))
    single = [np.std(frame.rows(0, SHAPE[0])[INNER]) for frame in frames]
    assert np.std(stack.data[INNER]) == pytest.approx(math.hypot(*single) / n, rel=0.02)
    assert np.std(stack.data[INNER]) == pytest.approx(np.mean(single) / math.sqrt(n), rel=0.05)
    assert np.median(stack.uncertainty[INNER]) == pytest.approx(SIGMA / math.sqrt(n), rel=1e-5)
    # The highest of three is 5 sigma above the next in 9e-6 of the cases: 2 hits in 3e4 pixels, up
    # or down, each with its 8 neighbours. It is less often for more frames.
    assert sum(stack.n_rejected) < 100


def test_stack_is_a_mean_of_aligned_frames():
    """002-07, ST-03: the mean, less noisy than a median; unequal frames are refused."""
    frames = np.random.default_rng(7).normal(0, 1, (9, 60, 80)).astype(np.float32)
    stack = coadd(frames, noise=np.ones(9))
    assert np.std(stack.data) == pytest.approx(1 / 3, rel=0.05)
    assert np.std(np.median(frames, axis=0)) > 1.15 * np.std(stack.data)
    with pytest.raises(FrameError, match="different size"):
        coadd([frames[0], frames[1, :50]], noise=[1, 1])


@pytest.mark.parametrize("n", [3, 4])
def test_stack_few_frames_are_judged_by_known_noise(n):
    """ST-03: two of three values are often close by chance; that must not cost the third.

    With the scatter of three values as noise a tenth of the pixels would lose one. By the known
    noise nothing is left out of noise, and a deviation of 8 sigma is found.
    """
    frames = np.random.default_rng(8).normal(0, 1, (n, 200, 200)).astype(np.float32)
    frames[1, 100, 50] += 10
    stack = coadd(frames, noise=np.ones(n))
    assert stack.count[100, 50] == n - 1
    assert sum(stack.n_rejected) < 100


@pytest.mark.parametrize("n", [4, 5, 9, 30])
def test_stack_cosmic_ray_costs_its_frame_nine_pixels(n):
    """ST-03: what hits one pixel of a frame is left out with its neighbours, and nothing else.

    Of five values the four good ones are often close by chance: their scatter must not make the
    limit smaller than the noise does. Frames of unequal noise, as after scaling.
    """
    rng = np.random.default_rng(16)
    noise = np.linspace(1, 2, n)
    frames = (noise[:, None, None] * rng.normal(0, 1, (n, 200, 200))).astype(np.float32)
    hit = (slice(5, None, 10), slice(5, None, 10))
    frames[n // 2][hit] += 30
    stack = coadd(frames, noise=noise, fwhm=np.full(n, 3.0))
    # Once in 40 times the median deviation of five values is so large that 20 sigma are no fault.
    found = 0.96 if n == 5 else 0.99
    assert np.mean(stack.count[hit] == n - 1) > found
    assert stack.n_rejected[n // 2] > found * 9 * 400
    # 400 x 16 pixels around are looked at, 0.27 % of which have a wing by chance: 17, and what is
    # beside them. It may be 6 % together.
    assert np.sum(stack.n_rejected) < 1.06 * 9 * 400


def test_stack_two_against_two_leave_no_hole():
    """ST-03: of four values two that agree are no majority; before, all four were left out."""
    rng = np.random.default_rng(17)
    frames = rng.normal(0, 1, (4, 80, 80)).astype(np.float32)
    rows, columns = np.indices((80, 80))
    frames[:2] += 100 * np.exp(-((rows - 40) ** 2 + (columns - 40) ** 2) / 450).astype(np.float32)
    stack = coadd(frames, noise=np.ones(4), fwhm=np.full(4, 3.0))
    assert stack.count.min() >= 2 and not np.any(stack.flags)


def test_stack_scatter_counts_where_it_is_larger_than_the_noise():
    """ST-03: with a stated noise three times too small next to nothing of 9 frames is lost.

    5 * 1.48 median deviations of nine values are 5 sigma, known to a fifth; judged by the stated
    noise 9 % of all values were further than 5 of it.
    """
    frames = np.random.default_rng(14).normal(0, 3, (9, 100, 100)).astype(np.float32)
    stack = coadd(frames, noise=np.ones(9), fwhm=np.full(9, 3.0))
    assert sum(stack.n_rejected) < 0.03 * frames.size


# --- what only one frame shows -------------------------------------------------------------------


@pytest.mark.parametrize("peak", [60.0, 600.0, 6000.0])
@pytest.mark.parametrize("n", [3, 10])
def test_stack_trail_gone_with_its_wings(n, peak):
    """ST-03: of a trail of 10 to 1000 sigma nothing is left at any distance, nor in the stars.

    The noise is the same with and without the trail. Where it was, N - 1 frames are left instead of
    N: the difference has the noise sigma / sqrt(N (N - 1)), in 500 to 4000 pixels of each ring,
    of which a fifth counts as independent. To that comes the wing that is too faint to be found:
    0.25 sigma / N. Without clipping the line has 10 to 1000 sigma / N.
    """
    widths = np.full(n, 3.0)
    clean, stars = exposures(widths)
    dirty, _ = exposures(widths, extra=trail(1, peak=peak))
    without, with_trail = (coadd(frames, **options(widths)) for frames in (clean, dirty))
    left, away = with_trail.data - without.data, line_distance()
    sky = ~near_stars(stars, 10)
    sky[:8], sky[-8:], sky[:, :8], sky[:, -8:] = False, False, False, False
    for low, high in ((0, 2), (2, 4), (4, 7), (7, 12), (12, 25)):
        ring = left[sky & (away >= low) & (away < high)]
        noise = SIGMA / math.sqrt(n * (n - 1)) / math.sqrt(ring.size / 5)
        assert abs(ring.mean()) < 4 * noise + 0.25 * SIGMA / n, (low, high)
    if peak == 6000:
        # A wing of 1 sigma is found, which no pixel shows, 5 px beyond the last of 5 sigma.
        assert np.mean(with_trail.count[sky & (away >= 13) & (away < 15)] < n) > 0.85
    flux = [measure(s.data, make_wcs(), stars, radius=10) for s in (with_trail, without)]
    # A star of S/N > 40 in one frame; 2e3 pixels of trail in its circle are cut to a few.
    bright = stars[2] > 3e4
    assert flux[0][bright] / flux[1][bright] == pytest.approx(1, abs=0.05 if n == 3 else 0.015)


def test_stack_trail_gone_on_a_nebula():
    """ST-03: smooth light is no star: a trail of 10 sigma of its noise is seen on it, too."""
    rng, n = np.random.default_rng(9), 6
    light = 3000 * np.exp(-(((COLUMNS - 100) / 60) ** 2) - ((ROWS - 75) / 50) ** 2)
    scatter = np.sqrt(SIGMA**2 + light / GAIN)
    frames = (light + scatter * rng.normal(0, 1, (n, *SHAPE))).astype(np.float32)
    frames[2, 60:64] += 10 * 45
    stack = coadd(frames, **options(np.full(n, 3.0)))
    assert np.mean(stack.count[60:64] == n - 1) > 0.999
    away = np.abs(ROWS - 62) > 12
    assert np.mean(stack.count[away] == n) > 0.999


def test_stack_asteroid_gone():
    """ST-03: an asteroid of 6 px per frame leaves less than 3 % of the light it would leave.

    2e4 counts in eight places, each known to sigma / sqrt(8 * 7) in 1500 pixels together: 0.5 %.
    """
    widths = np.full(8, 3.0)

    def asteroid(k, wcs):
        place = make_wcs().all_pix2world([60 + 6 * k], [72 + k], 0)
        return star_image(SHAPE, *wcs.all_world2pix(*place, 0), [2e4], fwhm=3.0)

    clean, _ = exposures(widths)
    dirty, _ = exposures(widths, extra=asteroid)
    left, plain = (
        np.nansum((coadd(dirty, **o).data - coadd(clean, **o).data)[62:90, 40:125])
        for o in (options(widths), options(widths) | {"clip": None})
    )
    assert plain == pytest.approx(2e4, rel=0.05)
    assert abs(left) < 0.03 * plain


@pytest.mark.parametrize("n", [3, 8])
def test_stack_cosmic_rays_gone(n):
    """ST-03: of 25 cosmic rays per frame no pixel stays off by 6 sigma but in the stars."""
    widths = np.full(n, 3.0)

    def rays(k, wcs):
        rng, image = np.random.default_rng(100 + k), np.zeros(SHAPE)
        for x, y, turn in rng.uniform((15, 15, 0), (185, 135, np.pi), (25, 3)):
            steps = np.arange(rng.integers(1, 6))
            image[
                (y + steps * np.sin(turn)).astype(int), (x + steps * np.cos(turn)).astype(int)
            ] = 10 ** rng.uniform(2.3, 4)
        return image

    clean, stars = exposures(widths)
    dirty, _ = exposures(widths, extra=rays)
    o = options(widths)
    left = coadd(dirty, **o).data - coadd(clean, **o).data
    plain = coadd(dirty, **o, clip=None).data - coadd(clean, **o, clip=None).data
    pairs = zip(dirty, clean, strict=True)
    hits = sum(np.abs(d.rows(0, 150) - c.rows(0, 150)) > SIGMA / 2 for d, c in pairs)
    # Of three values two that are hit would be the majority.
    sky = ~near_stars(stars, 8) & (hits < n / 2)
    sky[:8], sky[-8:], sky[:, :8], sky[:, -8:] = False, False, False, False
    # Where something was left out the noise of the difference is sigma / sqrt(N (N - 1)), or a
    # little more where two frames of many are hit.
    limit = 6 * SIGMA / math.sqrt(n * (n - 1))
    assert np.count_nonzero(np.abs(plain[sky]) > limit) > 50 * n
    assert np.count_nonzero(np.abs(left[sky]) > 1.5 * limit) == 0


# --- stars stay ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "widths",
    [(2.0, 3.5, 3.5), (2, 2.5, 3, 3.5), (3.5,) * 4 + (2.0,), (2.0,) * 8 + (3.5,), (6, 6.5, 6, 7.5)],
    ids=["sharp_of_3", "four", "sharp_of_5", "wide_of_9", "oversampled"],
)
def test_stack_star_cores_stay(widths):
    """ST-03: through seeing of 2.0 to 3.5 px and dither, bright stars keep their light to 0.1 %.

    Compared with the same frames without clipping, so that the noise is the same and what differs
    is what the clip took.
    """
    widths = np.array(widths, float)
    frames, stars = exposures(widths)
    clipped = coadd(frames, **options(widths))
    plain = coadd(frames, **options(widths), clip=None)
    flux, truth = (measure(s.data, make_wcs(), stars, radius=12) for s in (clipped, plain))
    bright = stars[2] > 3e4
    assert bright.sum() >= 6
    assert flux[bright] / truth[bright] == pytest.approx(1, abs=1e-3)
    assert np.mean(flux[bright] / truth[bright]) == pytest.approx(1, abs=3e-4)


def test_stack_star_cores_stay_without_known_seeing():
    """ST-03: without widths stars stay, too; a sharp frame among wide ones loses nothing."""
    widths = np.array([3.5, 3.5, 2.0, 3.5])
    frames, stars = exposures(widths)
    o = {"noise": np.full(4, SIGMA), "gain": GAIN}
    flux, truth = (
        measure(coadd(frames, **o, clip=clip).data, make_wcs(), stars, radius=12)
        for clip in (5.0, None)
    )
    assert flux / truth == pytest.approx(1, abs=1e-3)


def test_stack_saturated_stars_have_no_holes_and_are_flagged():
    """ST-03: cores of saturated stars keep all frames and their flag; a lost trail leaves none."""
    widths = np.array([2.5, 3.0, 3.5, 3.0])

    def bright_trail(k, wcs):
        return 1e6 * (np.abs(ROWS - 15) < 2) if k == 1 else np.zeros(SHAPE)

    frames, stars = exposures(widths, saturation=8000, extra=bright_trail, shift=1.0)
    stack = coadd(frames, **options(widths))
    saturated = (stack.flags & SATURATED) != 0
    cores = saturated & near_stars(stars, 4)
    assert cores.sum() > 20 and stack.count[cores].min() == 4
    # The trail is in a frame that is turned: it is at row 134 of the grid.
    assert np.any(frames[1].aligned(128, 140)[2] & SATURATED)
    assert not saturated[125:145][:, INNER[1]].any()
    assert stack.count[134, 20:-20].max() == 3
    assert np.all((stack.flags & OUTSIDE != 0) == (stack.count == 0))


# --- borders, weights, input ---------------------------------------------------------------------


def test_stack_nan_borders():
    """ST-03: where frames do not overlap the stack has fewer of them; where none is, NaN."""
    frames = np.full((3, 10, 10), 5.0, np.float32)
    frames[0, :, :4] = frames[1, :, :2] = frames[2, :, :1] = np.nan
    frames[1, :, 3] = 500  # Of two values nobody knows which is wrong.
    options = {"fwhm": [3, 3, 3], "slope": 0.0}
    stack = coadd(frames, noise=[1, 1, 1], exptimes=[10, 20, 30], **options)
    assert stack.count[0].tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert np.isnan(stack.data[:, 0]).all() and np.isnan(stack.uncertainty[:, 0]).all()
    assert stack.data[:, [1, 2, 4, 5, 6, 7, 8, 9]] == pytest.approx(5)
    assert stack.exposure[0, :5].tolist() == [0, 30, 50, 50, 60]
    assert stack.flags[0].tolist() == [OUTSIDE] + [0] * 9


def test_stack_of_one_and_two_frames():
    """ST-03: one frame is itself; of two nothing can be left out, which is said."""
    frame = np.random.default_rng(7).normal(0, 1, (20, 30)).astype(np.float32)
    assert coadd([frame], noise=[1.0]).data == pytest.approx(frame)
    with pytest.warns(DataredWarning, match="two frames"):
        double = coadd([frame, frame + 20], noise=[1.0, 1.0])
    assert double.data == pytest.approx(frame + 10, abs=1e-5)
    assert double.n_rejected == (0, 0)


def test_stack_scales_and_weights():
    """ST-02, ST-03: frames are scaled; weights are inverse variances, or those that are given."""
    truth = np.full((60, 80), 100.0)
    rng = np.random.default_rng(10)
    lights, sigma = np.array([1.0, 0.5, 0.8]), np.array([1.0, 1.0, 2.0])
    frames = [
        (truth * light + rng.normal(0, s, truth.shape)).astype(np.float32)
        for light, s in zip(lights, sigma, strict=True)
    ]
    stack = coadd(frames, noise=sigma, scales=1 / lights, exptimes=[30, 30, 30])
    weights = (lights / sigma) ** 2
    # 4800 pixels: the mean to 0.012, the scatter to 1 %.
    assert np.mean(stack.data) == pytest.approx(100, abs=0.05)
    assert np.std(stack.data) == pytest.approx(weights.sum() ** -0.5, rel=0.04)
    assert stack.uncertainty == pytest.approx(weights.sum() ** -0.5, rel=1e-5)
    assert stack.exposure == pytest.approx(90)
    given = coadd(frames, noise=sigma, scales=1 / lights, weights=[2, 1, 1])
    expected = (2 * frames[0] + 2 * frames[1] + 1.25 * frames[2]) / 4
    assert given.data == pytest.approx(expected, rel=1e-5)
    assert given.uncertainty == pytest.approx(math.sqrt(4 + 4 + 6.25) / 4, rel=1e-5)
    # Photons: s M / g of variance in addition, with a gain for each frame.
    photons = coadd(frames, noise=sigma, scales=1 / lights, gain=[2, 1, 1])
    w = weights / weights.sum()
    variance = np.sum(w**2 * (1 / weights + 100 / lights / [2, 1, 1]))
    assert np.mean(photons.uncertainty) == pytest.approx(math.sqrt(variance), rel=1e-3)


class Lazy:
    """Aligned frame of noise that is made when it is asked for."""

    step = 0.0
    base = np.random.default_rng(11).normal(0, SIGMA, (64, 1400)).astype(np.float32)

    def __init__(self, number, *, shape=(400, 1000), factor=1.0, area=1.0):
        self.name, self.number, self.shape = f"frame {number}", number, shape
        self.factor, self.area, self.read = factor, area, 0

    def rows(self, start, stop):
        """Rows of noise, another for each frame and row."""
        numbers = np.arange(start, stop)
        return self.base[(numbers * 7 + self.number * 13) % 64, self.number :][:, : self.shape[1]]

    def aligned(self, start, stop, *, columns, out):
        """Fill values, variance factors and flags."""
        self.read += (stop - start) * (columns[1] - columns[0])
        out[0][:], out[1][:], out[2][:] = self.rows(start, stop)[:, slice(*columns)], self.factor, 0


def test_stack_interpolation_noise_and_area():
    """ST-03: interpolated noise is smaller, so fainter faults are found; area makes it larger.

    Noise of half the stated one, as between pixels of a bilinear frame: a fault of 3.5 sigma is
    7 of its own. On a grid of double area the noise of an independent pixel is twice as large.
    """
    frames = [Lazy(k, shape=(40, 60), factor=0.25) for k in range(6)]
    for frame in frames:
        frame.base = 0.5 * Lazy.base
    frames[2].base = frames[2].base.copy()
    frames[2].base[(20 * 7 + 26) % 64, 32] = 3.5 * SIGMA
    stack = coadd(frames, noise=np.full(6, SIGMA))
    assert stack.count[20, 30] == 5
    for frame in frames:
        frame.factor = 1.0
    assert coadd(frames, noise=np.full(6, SIGMA)).count[20, 30] == 6
    wide = coadd([Lazy(k, area=2.0) for k in range(4)], noise=np.full(4, SIGMA))
    assert np.median(wide.uncertainty) == pytest.approx(math.sqrt(2) * SIGMA / 2, rel=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "lanczos3"])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.5, 2.0])
def test_stack_uncertainty_is_the_scatter_of_boxes(scale, method):
    """ST-01, ST-03: on finer and coarser grids boxes of pixels scatter as the uncertainty says.

    Neighbours are correlated, so single pixels scatter less. With 15 x 28 squares of 10 x 10 pixels
    the scatter is known to 3.5 %: three of these, and 10 % that the rule for coarse grids is off,
    as is the sharing of light between neighbour boxes on fine ones.
    """
    rng, grid = np.random.default_rng(15), make_wcs(scale=scale)
    grid.wcs.crpix = [35.5, 20.5]
    for light in (0.0, 400.0):
        boxes, expected = [], []
        for _ in range(15):
            frames = []
            for k in range(3):
                wcs = make_wcs(shift=rng.uniform(-4, 4, 2), angle=180 * (k % 2))
                data = light + rng.normal(0, math.sqrt(SIGMA**2 + light / GAIN), SHAPE)
                frame = CCDData(data.astype(np.float32), unit="adu", wcs=wcs)
                frames.append(AlignedRows(frame, grid, shape=(40, 70), method=method))
            stack = coadd(frames, noise=np.full(3, SIGMA), gain=GAIN)
            boxes.append(stack.data.reshape(4, 10, 7, 10).mean(axis=(1, 3)))
            expected.append(stack.uncertainty.mean() / 10)
        tolerance = 3 * 0.035 + (0.1 if scale in (0.6, 2.0) else 0.0)
        assert np.std(boxes) / np.mean(expected) == pytest.approx(1, abs=tolerance), light


def test_stack_of_flagged_frames_and_files(tmp_path):
    """ST-03: of a CCDData with flags saturated pixels are used, hot ones are not; files work."""
    rng = np.random.default_rng(12)
    frames = []
    for k in range(3):
        data = rng.normal(50, 1, (20, 30)).astype(np.float32)
        flags = np.zeros(data.shape, np.uint16)
        flags[5, 5], flags[7, 7] = SATURATED, HOT if k == 0 else 0
        # A core of which the plateau is higher where the frame was scaled.
        data[12:19, 12:19], flags[12:19, 12:19] = 6e4 + 2e4 * (k == 0), SATURATED
        frames.append(CCDData(data, unit="adu", flags=flags, mask=flags != 0))
    stack = coadd(frames, noise=np.ones(3))
    assert stack.count[12:19, 12:19].min() == 3
    assert stack.count[5, 5] == 3 and stack.flags[5, 5] == SATURATED
    assert stack.count[7, 7] == 2 and stack.flags[7, 7] == 0
    paths = [tmp_path / f"{k}.fits" for k in range(3)]
    for frame, path in zip(frames, paths, strict=True):
        CCDData(frame.data, unit="adu").write(path)
    files = coadd(paths, noise=np.ones(3))
    plain = coadd([frame.data for frame in frames], noise=np.ones(3))
    assert files.data.tobytes() == plain.data.tobytes()


def test_coadd_refuses_wrong_input():
    """ST-03: no frames, another shape, wrong numbers: each has its message."""
    frame = np.zeros((4, 5), np.float32)
    with pytest.raises(FrameError, match="no frame"):
        coadd([], noise=[])
    with pytest.raises(FrameError, match="shape"):
        coadd([frame, frame, frame.T], noise=[1, 1, 1])
    for name in ("noise", "scales", "exptimes", "gain", "weights", "fwhm"):
        numbers = {"noise": [1, 1, 1]} | {name: [1, 0, 1]}
        with pytest.raises(ValueError, match=f"{name} must be 3 positive"):
            coadd([frame] * 3, **numbers)
    with pytest.raises(ValueError, match="noise must be 3 positive"):
        coadd([frame] * 3, noise=[1, 1])
    for limits in ({"clip": 0}, {"clip": -5.0}, {"clip": math.nan}, {"slope": -1.0}):
        with pytest.raises(ValueError, match="clip is a positive number"):
            coadd([frame] * 3, noise=[1, 1, 1], **limits)


# --- threads and memory --------------------------------------------------------------------------


def test_stack_same_bytes_for_any_threads_and_windows(monkeypatch):
    """ST-03: threads, parts and windows change nothing, with trails, stars and borders."""
    widths = np.linspace(2.5, 3.5, 5)
    frames, _ = exposures(widths, extra=trail(1, peak=900.0))

    def outcome(**choice):
        s = coadd(frames, **options(widths), **choice)
        return b"".join(
            a.tobytes() for a in (s.data, s.uncertainty, s.exposure, s.count, s.flags)
        ), s.n_rejected

    expected = outcome(threads=1)
    assert expected[1][1] > 500
    assert outcome(threads=3) == expected
    for part, step, window, least in (
        (16, 8, 128e6, 64), (37, 1, 128e6, 64), (150, 7, 0, 90), (1, 64, 0, 41), (64, 16, 0, 13)
    ):  # fmt: skip
        monkeypatch.setattr(coaddition, "PART_ROWS", part)
        monkeypatch.setattr(stackrows, "STEP_ROWS", step)
        monkeypatch.setattr(stackrows, "WINDOW_BYTES", window)
        monkeypatch.setattr(stackrows, "LEAST_COLUMNS", least)
        assert outcome(threads=2 if part > 1 else 40) == expected, (part, step, window, least)


def test_stack_same_bytes_for_any_tiles_of_arrays_and_files(monkeypatch, tmp_path):
    """ST-03: tiles of columns change nothing in stacks of arrays, frames with flags and files."""
    rng = np.random.default_rng(18)
    arrays = rng.normal(0, 1, (5, 40, 60)).astype(np.float32)
    arrays[1, 10:14, 20:45] += 30
    arrays[2, :, 17:19] = np.nan
    flags = np.where(arrays[3] > 2, SATURATED, np.where(arrays[3] < -2, HOT, 0)).astype(np.uint16)
    paths = [tmp_path / f"{k}.fits" for k in range(5)]
    for array, path in zip(arrays, paths, strict=True):
        CCDData(array, unit="adu").write(path)
    flagged = [*arrays[:3], CCDData(arrays[3], unit="adu", flags=flags), arrays[4]]

    def outcome():
        stacks = [coadd(frames, noise=np.ones(5)) for frames in (arrays, flagged, paths)]
        assert np.any(stacks[1].flags & SATURATED) and stacks[0].n_rejected[1] > 80
        return [(s.data.tobytes(), s.flags.tobytes(), s.n_rejected) for s in stacks]

    expected = outcome()
    assert expected[0] == expected[2]
    monkeypatch.setattr(stackrows, "WINDOW_BYTES", 0)
    monkeypatch.setattr(stackrows, "LEAST_COLUMNS", 7)
    assert outcome() == expected


def test_stack_memory_is_bounded(monkeypatch):
    """ST-03: 200 frames need the result and two windows of a size that does not grow with them.

    The frames would be 320 MB. The result has 16 bytes a pixel; what one frame hands over and the
    models of the rows come to the windows. Next to nothing is read twice: 9 rows and columns
    around each tile.
    """
    frames = [Lazy(k) for k in range(200)]
    coadd(frames[:5], noise=np.full(5, SIGMA), threads=2)  # Compiled code is no part of it.
    for frame in frames:
        frame.read = 0
    monkeypatch.setattr(stackrows, "WINDOW_BYTES", 40e6)
    tracemalloc.start()
    try:
        stack = coadd(frames, noise=np.full(200, SIGMA), threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ny, nx = frames[0].shape
    assert peak < 16 * ny * nx + 1.1 * 40e6 + 1e6
    tiles = math.ceil(nx / (40e6 / (2 * 6 * 200 * 77) - 18))
    # Rows are made in two parts.
    assert max(frame.read for frame in frames) == (ny + 2 * 9) * (nx + (tiles - 1) * 2 * 9)
    assert np.std(stack.data) == pytest.approx(SIGMA / math.sqrt(200), rel=0.1)


def test_stack_turned_frames_are_read_about_once(monkeypatch):
    """ST-03: of a frame turned by a degree, narrow tiles read little more than they give.

    A row of 2000 pixels rises by 35 rows of the frame, one of a tile of 200 by 3.5. With 16 pixels
    around each part that is read, and 9 around each tile, they need 1.50 times the pixels that they
    give. Whole rows need 1.72 times, and in steps of 24 rows 2.19 times, although they are read in
    parts, too.
    """
    shape, wcs = (256, 2000), make_wcs()
    turned = make_wcs(angle=1.0)
    frames, read = [], []
    for _ in range(3):
        frame = CCDData(np.zeros(shape, np.float32), unit="adu", wcs=turned)
        frames.append(AlignedRows(frame, wcs, shape=shape))
        original = frames[-1].planes.read

        def count(rows, columns, original=original, **options):
            read.append((rows.stop - rows.start) * (columns.stop - columns.start))
            return original(rows, columns, **options)

        monkeypatch.setattr(frames[-1].planes, "read", count)
    monkeypatch.setattr(stackrows, "WINDOW_BYTES", 2 * 6 * 3 * 77 * 218)
    stack = coadd(frames, noise=np.ones(3), threads=2)
    used = 3 * np.mean(stack.count == 3) * stack.data.size
    assert 1 < sum(read) / used < 1.6


# --- scales --------------------------------------------------------------------------------------


def test_flux_scales_of_thin_clouds():
    """ST-02: scales are found from common stars in spite of noise and of a variable star."""
    rng, lights = np.random.default_rng(13), np.array([1.0, 0.7, 0.9])
    fluxes = np.outer(lights, rng.uniform(1e4, 1e5, 40)) * rng.normal(1, 0.01, (3, 40))
    fluxes[1, 3] *= 2
    scales, scatter = flux_scales(fluxes)
    # 1.25 * 1.4 % / sqrt(40), but for the reference itself.
    assert scales == pytest.approx(1 / lights, rel=0.01)
    assert scatter[1:] == pytest.approx(0.014, rel=0.5)


def test_flux_scales_with_few_stars():
    """ST-02: fewer than five common stars give no scale, whatever else is there."""
    fluxes = np.full((2, 8), 100.0)
    fluxes[1, 4:] = np.nan
    scales, _ = flux_scales(fluxes)
    assert scales[0] == 1 and np.isnan(scales[1])
