"""Cosmic rays: found where they were put, stars left alone, and the same mask as astroscrappy's."""

import os
from pathlib import Path

import astroscrappy
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from scipy import ndimage
from threadpoolctl import threadpool_limits

from datared import pixels
from datared.cosmics import find_cosmics, flag_cosmics
from datared.disturbances import cosmic_rays
from datared.errors import DataredWarning
from datared.render import star_image

DATA = Path(os.environ.get("DATARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
real = pytest.mark.skipif(
    not DATA.is_dir(), reason="the real nights are not here: set DATARED_DATA to their folder"
)
GAIN, READ_NOISE, SKY = 1.8, 6.0, 150.0
#: Noise of the sky in electrons.
NOISE = (SKY + READ_NOISE**2) ** 0.5
MODEL = {"gain": GAIN, "read_noise": READ_NOISE}


def simulated(shape=(500, 700), *, seed, fwhm=3.0, stars=60, hits=60, apart=0):
    """Frame in ADU of stars up to a peak of 50 000 ADU, with tracks.

    Stars are anywhere, or some ``apart`` pixels from each other and from the edges. Returns the
    frame, the charge of the tracks in electrons, and x and y of the stars.
    """
    rng = np.random.default_rng(seed)
    ny, nx = shape
    x, y = rng.uniform(0, nx, stars), rng.uniform(0, ny, stars)
    if apart:
        y, x = np.mgrid[apart : ny - apart : apart, apart : nx - apart : apart].reshape(2, -1)
        x, y = (a + rng.uniform(-apart / 6, apart / 6, a.size) for a in (x, y))
    peak = rng.permutation(np.geomspace(5 * NOISE, 50_000 * GAIN, x.size))
    one = star_image((61, 61), [30.0], [30.0], [1.0], fwhm=fwhm).max()
    light = star_image(shape, x, y, peak / one, fwhm=fwhm) + SKY
    charge = np.zeros(shape)
    if hits:
        charge, _ = cosmic_rays(shape, exptime=60.0, rng=rng, rate=hits * 680_000 / (nx * ny))
    frame = rng.poisson(light) + charge + rng.normal(0, READ_NOISE, shape)
    return (frame / GAIN).astype(np.float32), charge, (x, y)


def oracle(data, *, mask=None, sigma=4.5, **options):
    """Mask of astroscrappy with its defaults, which are those of ``ccdproc.cosmicray_lacosmic``."""
    options = {"gain": GAIN, "readnoise": READ_NOISE, "satlevel": np.inf, **options}
    with threadpool_limits(1):  # Its threads get in the way of other tests, and of each other.
        return astroscrappy.detect_cosmics(data, inmask=mask, sigclip=sigma, **options)[0]


def agreement(ours, other):
    """Pixels in both masks over pixels in either."""
    return np.count_nonzero(ours & other) / np.count_nonzero(ours | other)


def cores(shape, x, y, *, fwhm):
    """Pixels within half the FWHM (at most 6 pixels) of the centre of a star."""
    mask, reach = np.zeros(shape, bool), np.arange(-3, 4)
    for a, b in zip(x, y, strict=True):
        rows, columns = round(b) + reach[:, None], round(a) + reach
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        near = inside & ((rows - b) ** 2 + (columns - a) ** 2 <= (fwhm / 2) ** 2)
        mask[tuple(index[near] for index in np.broadcast_arrays(rows, columns))] = True
    return mask


# --- truth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["laplacian", "median"])
@pytest.mark.parametrize("fwhm", [2.5, 3.0, 4.0])
def test_cosmics_finds_tracks(fwhm, method):
    """PX-05, 003-09, 004-11: at least 90 % of the tracks are found, by either method."""
    found = total = above = both = 0
    for seed in (1, 2, 3):
        data, charge, _ = simulated(seed=seed, fwhm=fwhm)
        frame = flag_cosmics(CCDData(data, unit="adu"), method=method, fwhm=fwhm, **MODEL)
        hits = (frame.flags & pixels.COSMIC) != 0
        labels, n = ndimage.label(charge > 0, np.ones((3, 3)))
        found += np.count_nonzero(ndimage.maximum(hits, labels, range(1, n + 1)))
        total += n
        # Half the least charge of a track in a pixel, 125 electrons, is 4.6 times the noise.
        strong = charge > 6 * NOISE
        above, both = above + strong.sum(), both + (strong & hits).sum()
    assert total > 150
    assert found >= 0.9 * total
    assert both >= 0.9 * above


@pytest.mark.parametrize("method", ["laplacian", "median"])
@pytest.mark.parametrize("fwhm", [2.5, 3.0, 4.0])
def test_cosmics_spares_star_cores(fwhm, method):
    """PX-05, 004-11: no star core is hit, from 5 sigma to near saturation, without any advice."""
    for seed in (1, 2, 3):
        data, _, (x, y) = simulated(seed=seed, fwhm=fwhm, hits=0, apart=30)
        frame = flag_cosmics(CCDData(data, unit="adu"), method=method, **MODEL)
        core = cores(data.shape, x, y, fwhm=fwhm)
        assert core.sum() > 500
        assert not (frame.flags[core] & pixels.COSMIC).any()


def test_cosmics_on_noise_alone():
    """PX-05: on noise alone fewer than 1 pixel in 100 000 is hit, whatever the level."""
    shape = (1000, 1000)
    for sky in (0.0, 20.0, 5000.0):
        rng = np.random.default_rng(4)
        data = rng.poisson(sky, shape) + rng.normal(0, READ_NOISE, shape)
        frame = flag_cosmics(CCDData(data, unit="electron"), read_noise=READ_NOISE)
        assert frame.meta["NCOSMIC"] < 1e-5 * data.size


def test_cosmics_undersampled():
    """PX-05: below a FWHM of 2 pixels there is a warning, and no star is taken for a track."""
    for seed, fwhm in ((1, 1.5), (2, 1.8)):
        data, charge, (x, y) = simulated(seed=seed, fwhm=fwhm, apart=30)
        core = cores(data.shape, x, y, fwhm=2) & ~ndimage.binary_dilation(charge > 0, iterations=3)
        # Without a word on the width, stars are hit: the frame is a test.
        assert find_cosmics(data, **MODEL)[core].sum() > 3
        with pytest.warns(DataredWarning, match=rf"FWHM of {fwhm:.2f} .* sigma \d+.* contrast"):
            hits = find_cosmics(data, fwhm=fwhm, **MODEL)
        assert not hits[core].any()
    # Limits at 1.8: r = exp(11.3 / 1.8 - 4.3) = 7.2, so 29 sigma: strong tracks are found.
    strong = charge > 60 * NOISE
    assert strong.sum() > 20 and hits[strong].mean() > 0.6


def test_cosmics_fwhm_raises_limits_smoothly():
    """PX-05: from 2 to 2.4 pixels the limits rise without a warning; wider stars change nothing."""
    data, charge, (x, y) = simulated(seed=6, fwhm=2.1, apart=20)
    core = cores(data.shape, x, y, fwhm=2) & ~ndimage.binary_dilation(charge > 0, iterations=3)
    plain = find_cosmics(data, **MODEL)
    assert not find_cosmics(data, fwhm=2.1, **MODEL)[core].any()
    assert np.array_equal(find_cosmics(data, fwhm=3.0, **MODEL), plain)


# --- the independent program -------------------------------------------------------------------


@pytest.mark.parametrize("fwhm", [1.8, 3.0, 5.0])
def test_cosmics_agrees_with_astroscrappy(fwhm):
    """PX-05, 004-11: 99.5 % of the flagged pixels are the same, both ways, edges included."""
    data, *_ = simulated(seed=1, fwhm=fwhm)
    assert agreement(find_cosmics(data, **MODEL), oracle(data)) >= 0.995
    # Another frame with pixels that are bad already, a level that was taken off, other limits.
    data, *_ = simulated(seed=2, fwhm=fwhm)
    bad = ndimage.binary_dilation(data > 20_000, np.ones((3, 3)))
    bad |= np.random.default_rng(2).random(data.shape) < 1e-3
    ours = find_cosmics(data - 50, sky=50, mask=bad, sigma=6, fraction=0.5, contrast=3, **MODEL)
    other = oracle(data, mask=bad, sigma=6, sigfrac=0.5, objlim=3)
    assert agreement(ours, other) >= 0.995
    assert not ours[ndimage.binary_dilation(bad, np.ones((3, 3)))].any()


@pytest.mark.parametrize("k", range(8))
def test_cosmics_agrees_under_other_conditions(k):
    """PX-05: faint and bright sky, no read noise, dead pixels, variance, other limits: as theirs.

    Eight small frames from the many combinations; the masks of 60 others were identical.
    """
    rng = np.random.default_rng(k)
    shape = tuple(rng.integers(100, 200, 2))
    data, *_ = simulated(shape, seed=k, fwhm=rng.uniform(1.2, 5), stars=20, hits=40)
    data += np.float32(10 ** rng.uniform(0, 4)) if k % 2 else np.float32(-SKY / GAIN)
    data[rng.random(shape) < 0.01 * (k % 3)] = -50
    mask = rng.random(shape) < 0.01 if k % 4 else None
    variance = (np.abs(data) * rng.uniform(0.5, 2, shape) + 10).astype(np.float32)
    variance = variance if k % 3 == 0 else None
    values = rng.uniform(3, 8), rng.uniform(0.1, 1), rng.uniform(1, 10), int(rng.integers(1, 7))
    noise = float(rng.choice([0.0, 1.0, 20.0]))
    ours = dict(zip(("sigma", "fraction", "contrast", "max_iterations"), values, strict=True))
    hits = find_cosmics(data, gain=GAIN, read_noise=noise, mask=mask, variance=variance, **ours)
    theirs = dict(zip(("sigma", "sigfrac", "objlim", "niter"), values, strict=True))
    other = oracle(data, mask=mask, readnoise=noise, invar=variance, **theirs)
    assert other.sum() > 50
    assert agreement(hits, other) >= 0.995


def test_cosmics_agrees_in_every_round():
    """PX-05: also the first and the second search give the mask of astroscrappy."""
    data, *_ = simulated(seed=7, hits=150)
    masks = []
    for rounds in (1, 2, 4):
        masks.append(find_cosmics(data, max_iterations=rounds, **MODEL))
        assert agreement(masks[-1], oracle(data, niter=rounds)) >= 0.995
    assert masks[0].sum() < masks[1].sum()


def test_cosmics_agrees_on_wide_hits():
    """PX-05: a hit that is wider than the medians is worked off from its rim, in the same way."""
    data, *_ = simulated(seed=8, hits=0)
    data[100:108, 200:212] += 2000
    data[300:303, 400:440] += 5000
    assert agreement(find_cosmics(data, **MODEL), oracle(data)) >= 0.995


@real
@pytest.mark.real
@pytest.mark.parametrize("name", ["ngc_b0", "ngc_v2"])
def test_cosmics_agrees_on_ngc6819(name):
    """PX-05: the same mask as astroscrappy's on an open cluster, overscan off and flat-fielded."""
    folder = DATA / "nickel-ngc6819"

    def trimmed(path):
        raw = fits.getdata(path).astype(np.float32)
        return raw[:, :1024] - np.median(raw[:, 1026:], axis=1)[:, None]

    band = name[4].upper()
    flat = np.median(
        [trimmed(path) for path in (folder / "flat").glob(f"flat{band}*.fits")], axis=0
    )
    flat = np.clip(flat / np.median(flat), 0.1, None)
    raw = trimmed(folder / "science" / f"{name}.fits")
    saturated = pixels.saturation_mask(raw, level=55_000)
    ours = find_cosmics(raw / flat, gain=1.8, read_noise=10.8, mask=saturated)
    other = oracle(raw / flat, mask=saturated, gain=1.8, readnoise=10.8)
    assert ours.sum() > 500
    assert agreement(ours, other) >= 0.995


@real
@pytest.mark.real
def test_cosmics_agrees_on_hat_p_32():
    """PX-05: the same mask as astroscrappy's on frames of a small telescope with hot pixels."""
    for path in sorted((DATA / "hatp32b-transit").glob("*.FITS"))[::50]:
        raw = fits.getdata(path).astype(np.float32)
        saturated = pixels.saturation_mask(raw, level=4000)
        ours = find_cosmics(raw, gain=1.0, read_noise=15.0, mask=saturated)
        other = oracle(raw, mask=saturated, gain=1.0, readnoise=15.0)
        assert agreement(ours, other) >= 0.995


@pytest.mark.parametrize("fwhm", [2.5, 3.0, 4.0])
def test_cosmics_spares_close_pairs(fwhm):
    """PX-05, 004-11: no core of a bright pair is hit; astroscrappy grows false hits over them."""
    rng = np.random.default_rng(16)
    y, x = np.mgrid[30:480:40, 30:680:40].reshape(2, -1)
    turn = rng.uniform(0, 2 * np.pi, x.size)
    x = np.concatenate([x, x + 2 * fwhm * np.cos(turn)]) + rng.uniform(-0.5, 0.5, 2 * x.size)
    y = np.concatenate([y, y + 2 * fwhm * np.sin(turn)])
    one = star_image((61, 61), [30.0], [30.0], [1.0], fwhm=fwhm).max()
    flux = np.repeat([60_000, 20_000], turn.size) / one
    data = rng.poisson(star_image((500, 700), x, y, flux, fwhm=fwhm) + SKY) / GAIN
    core = cores(data.shape, x, y, fwhm=fwhm)
    assert oracle(data)[core].sum() > 100
    assert not flag_cosmics(CCDData(data, unit="adu"), **MODEL).mask[core].any()


def test_cosmics_protects_stars_at_edges():
    """PX-05, 004-11: a star in the fourth row is a hit for astroscrappy, not for the pipeline."""
    x, y = np.arange(30.0, 270, 20), np.full(12, 3.2)
    light = star_image((100, 300), x, y, np.full(12, 50_000.0), fwhm=3.0) + SKY
    data = np.random.default_rng(9).poisson(light) / GAIN
    data[3, 40] += 1500
    core = cores(data.shape, x, y, fwhm=2)
    assert oracle(data)[core].any() and find_cosmics(data, **MODEL)[core].any()
    frame = flag_cosmics(CCDData(data, unit="adu"), **MODEL)
    for hits in (find_cosmics(data, protect_stars=True, **MODEL), frame.mask):
        assert hits[3, 40] and np.abs(np.argwhere(hits) - (3, 40)).max() <= 1


# --- what goes in ------------------------------------------------------------------------------


def test_cosmics_threads_and_types_change_nothing():
    """PX-05: 1, 2 or 5 threads, other types and orders: the same mask, and the data untouched."""
    data, *_ = simulated(seed=10)
    before = data.copy()
    hits = find_cosmics(data, threads=1, **MODEL)
    assert hits.dtype == bool and hits.any()
    for threads in (2, 5):
        assert np.array_equal(find_cosmics(data, threads=threads, **MODEL), hits)
    data.flags.writeable = False
    for same in (data, data.astype(float), data.astype(">f4"), np.asfortranarray(data)):
        assert np.array_equal(find_cosmics(same, **MODEL), hits)
    assert np.array_equal(data, before)


def test_cosmics_nan_and_mask():
    """PX-05: NaN and masked pixels are never hit, and what is far from them is as without them."""
    data, charge, _ = simulated(seed=11)
    hits = find_cosmics(data, **MODEL)
    holes = data.copy()
    holes[50:60, 100:300] = np.nan
    holes[:, 400] = np.inf
    holes[200, 200] = -np.inf
    lost = ~np.isfinite(holes)
    found = find_cosmics(holes, **MODEL)
    near = ndimage.binary_dilation(lost, np.ones((3, 3)), iterations=10)
    assert not found[ndimage.binary_dilation(lost, np.ones((3, 3)))].any()
    assert np.array_equal(found[~near], hits[~near])
    # A single lost pixel beside a track does not hide it.
    j, i = np.argwhere(hits & (charge > 50 * NOISE))[0]
    holes = data.copy()
    holes[j, i + 3] = np.nan
    assert find_cosmics(holes, **MODEL)[j, i]
    assert not find_cosmics(np.full((40, 40), np.nan), **MODEL).any()
    # The value of a bad pixel does not matter for what is not beside it.
    mask = np.zeros(data.shape, bool)
    mask[::50, ::50] = True
    wild = np.where(mask, 1e8, data)
    found, same = (find_cosmics(image, mask=mask, **MODEL) for image in (wild, data))
    assert not found[ndimage.binary_dilation(mask, np.ones((3, 3)))].any()
    assert agreement(found, same) > 0.99


def test_cosmics_variance_plane_is_the_noise_model():
    """PX-05, 004-11: a variance of sky and read noise gives the mask of gain and read noise."""
    data, *_ = simulated(seed=12)
    variance = data / GAIN + (READ_NOISE / GAIN) ** 2
    for method in ("laplacian", "median"):
        hits = find_cosmics(data, method=method, **MODEL)
        assert agreement(find_cosmics(data, variance=variance, method=method), hits) > 0.999
    hits = flag_cosmics(CCDData(data, unit="adu"), **MODEL).mask
    frame = CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.sqrt(variance)))
    assert agreement(flag_cosmics(frame).mask, hits) > 0.999
    # Its own noise model matters: four times the variance hides the faint ones.
    assert find_cosmics(data, variance=4 * variance).sum() < 0.9 * find_cosmics(data, **MODEL).sum()
    # Electrons instead of ADU: the gain counts as 1.
    electrons = CCDData(data * GAIN, unit="electron")
    frame = flag_cosmics(electrons, gain=GAIN, read_noise=READ_NOISE)
    assert agreement(frame.mask, hits) > 0.999


def test_cosmics_sky_is_added_again():
    """PX-05: where the sky was taken off, its noise is still there, as a number or an image."""
    data, *_ = simulated(seed=13)
    hits = find_cosmics(data, **MODEL)
    for sky in (SKY / GAIN, np.linspace(0, 100, data.size).reshape(data.shape)):
        assert agreement(find_cosmics(data - sky, sky=sky, **MODEL), hits) > 0.995
    assert find_cosmics(data - SKY / GAIN, **MODEL).sum() > 1.2 * hits.sum()


def test_cosmics_median_method_has_an_effect():
    """003-09: the median method finds most of what the Laplacian finds, in one search."""
    data, charge, _ = simulated(seed=14)
    simple, full = (find_cosmics(data, method=m, **MODEL) for m in ("median", "laplacian"))
    assert 0 < simple.sum() < full.sum()
    assert simple[charge > 10 * NOISE].mean() > 0.9
    above = (data - ndimage.median_filter(ndimage.median_filter(data, (1, 5)), (5, 1))) * GAIN
    assert np.all(above[simple] > 4.5 * READ_NOISE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "laplace"}, "method 'laplace' is not one of laplacian, median"),
        ({"gain": 0}, "gain is 0; it must be a positive number"),
        ({"gain": np.nan}, "gain is nan"),
        ({"read_noise": -1}, "read_noise is -1; it must be 0 or more"),
        ({"gain": None}, "give gain and read_noise, or a variance"),
        ({"sigma": 0}, "sigma is 0"),
        ({"contrast": np.inf}, "contrast is inf"),
        ({"fraction": 1.5}, "fraction is 1.5; it must be above 0 and at most 1"),
        ({"max_iterations": 0}, "max_iterations is 0; it must be 1 or more"),
        ({"fwhm": -2}, "fwhm is -2"),
        ({"mask": np.zeros((3, 3), bool)}, r"mask has shape \(3, 3\); it must be \(20, 30\)"),
        ({"variance": np.zeros((3, 3))}, r"variance has shape \(3, 3\)"),
        ({"sky": np.zeros((3, 3))}, r"sky has shape \(3, 3\)"),
    ],
)
def test_cosmics_refuses_nonsense(options, message):
    """PX-05: an error says what was found and what is valid."""
    with pytest.raises(ValueError, match=message):
        find_cosmics(np.zeros((20, 30)), **{**MODEL, **options})


def test_cosmics_small_frames():
    """PX-05: a frame without room for the medians has no hits; one axis is no frame."""
    assert not find_cosmics(np.ones((8, 50)), **MODEL).any()
    with pytest.raises(ValueError, match="data has 1 axes"):
        find_cosmics(np.ones(8), **MODEL)
    image = np.random.default_rng(1).normal(100, 5, (9, 9))
    image[4, 4] += 900
    assert np.argwhere(find_cosmics(image, **MODEL)).tolist() == [[4, 4]]


# --- frames ------------------------------------------------------------------------------------


def frame_with_flags(seed=15):
    """Frame with a saturated star, a bad column and an uncertainty, and the tracks on it."""
    data, charge, _ = simulated(seed=seed)
    flags = np.zeros(data.shape, np.uint16)
    flags[pixels.saturation_mask(data, level=30_000)] = pixels.SATURATED
    flags[:, 100] |= pixels.BAD_COLUMN
    sigma = StdDevUncertainty(np.full_like(data, NOISE / GAIN))
    ccd = CCDData(data, unit="adu", flags=flags, mask=flags != 0, uncertainty=sigma)
    ccd.meta["FILTER"] = "V"
    return ccd, charge


def test_cosmics_flags_of_a_frame():
    """PX-05, 004-11: the flag is set beside the others, the values stay, the input too."""
    ccd, charge = frame_with_flags()
    before = ccd.data.copy(), ccd.flags.copy(), ccd.mask.copy()
    frame = flag_cosmics(ccd, **MODEL)
    hits = (frame.flags & pixels.COSMIC) != 0
    assert hits[charge > 10 * NOISE].mean() > 0.9
    assert frame.meta["NCOSMIC"] == hits.sum() and frame.meta["FILTER"] == "V"
    assert frame.flags.dtype == np.uint16 and frame.unit == u.adu
    assert np.array_equal(frame.flags & ~np.uint16(pixels.COSMIC), ccd.flags)
    assert not hits[ndimage.binary_dilation(ccd.flags != 0, np.ones((3, 3)))].any()
    assert np.array_equal(frame.mask, frame.flags != 0)
    assert np.array_equal(frame.data, ccd.data)
    assert np.array_equal(frame.uncertainty.array, ccd.uncertainty.array)
    for old, now in zip(before, (ccd.data, ccd.flags, ccd.mask), strict=True):
        assert np.array_equal(old, now)
    assert "NCOSMIC" not in ccd.meta
    # A mask without flags is respected, and kept.
    masked = CCDData(ccd.data, unit="adu", mask=ccd.flags != 0)
    again = flag_cosmics(masked, **MODEL)
    assert np.array_equal((again.flags & pixels.COSMIC) != 0, hits) and again.mask[5, 100]


def test_cosmics_repair_gaussian_keeps_flag():
    """PX-05, 004-11: repaired pixels are near the truth, flagged as hit and as repaired."""
    ccd, charge = frame_with_flags()
    frame = flag_cosmics(ccd, repair="gaussian", **MODEL)
    hits = (frame.flags & pixels.COSMIC) != 0
    repaired = (frame.flags & pixels.REPAIRED) != 0
    assert hits.any() and np.array_equal(repaired, hits)
    assert frame.mask[hits].all()
    assert np.array_equal(frame.data[~hits], ccd.data[~hits])
    # On sky, far from stars: the mean of about ten neighbours scatters less than one pixel does.
    sky = hits & (ndimage.median_filter(ccd.data, 15) < (SKY + 2) / GAIN) & (charge > 10 * NOISE)
    assert sky.sum() > 100
    rest = frame.data[sky] * GAIN - SKY
    assert abs(np.median(rest)) < NOISE and np.std(rest) < 1.5 * NOISE


def test_cosmics_frame_refuses_nonsense():
    """PX-05: unknown repair, unit or noise: the error names what is valid."""
    data = np.ones((20, 20))
    with pytest.raises(ValueError, match="repair 'fill' is not one of mask, gaussian"):
        flag_cosmics(CCDData(data, unit="adu"), repair="fill", **MODEL)
    with pytest.raises(ValueError, match="must be in adu or electron"):
        flag_cosmics(CCDData(data, unit="Jy"), **MODEL)
    with pytest.raises(ValueError, match="give gain and read_noise, or a variance"):
        flag_cosmics(CCDData(data, unit="adu"), gain=1.0)
