"""Artificial stars: what is found and how true it is, against theory and against the truth."""

import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import Table
from scipy.stats import norm

from datared import artificial
from datared.artificial import artificial_stars, completeness, flux_limit, inject_stars
from datared.photometry import aperture_photometry
from datared.psf import moffat_epsf
from datared.render import sensor_counts, star_image
from datared.sources import detect

GAIN, READ_NOISE, SKY, FWHM, OFFSET = 0.5, 5.0, 400.0, 3.0, 100.0


def moffat(shape, x, y, flux):
    """Stars as the simulated nights have them."""
    return star_image(shape, x, y, flux, fwhm=FWHM)


PSF = SimpleNamespace(fwhm=FWHM, image=moffat)
#: Standard deviation of a pixel of the sky, in ADU.
NOISE = math.sqrt(SKY / GAIN + (READ_NOISE / GAIN) ** 2)


def field(seed, *, shape=(240, 240), x=(), y=(), flux=()):
    """A frame in ADU with sky, noise and the given stars."""
    electrons = GAIN * (SKY + moffat(shape, x, y, flux))
    raw = sensor_counts(electrons, gain=GAIN, read_noise=READ_NOISE, offset=OFFSET, seed=seed)
    return CCDData(raw.astype(np.float32) - np.float32(OFFSET), unit="adu")


def crowd(seed, *, n=220, shape=(240, 240), spread=28.0):
    """A frame with a crowded core in its middle: 35 stars within 15 px of it."""
    rng = np.random.default_rng(seed)
    middle = (shape[0] - 1) / 2
    x, y = rng.normal(middle, spread, (2, n))
    return field(rng, shape=shape, x=x, y=y, flux=10 ** rng.uniform(3.0, 4.5, n))


def search(frame):
    """Detect, then sum in a circle of 3 px: a measurement without any PSF."""
    stars = detect(frame, fwhm=FWHM, gain=GAIN)
    table = aperture_photometry(
        frame, stars["x"], stars["y"], radii=3.0, annulus=(12, 20), gain=GAIN,
        read_noise=READ_NOISE,
    )  # fmt: skip
    share = moffat((61, 61), 30.0, 30.0, 1.0)
    growth = aperture_photometry(share, 30.0, 30.0, radii=3.0, annulus=(20, 29), background="none")[
        "flux"
    ][0, 0]
    for name in ("flux", "flux_err"):
        table[name] = table[name][:, 0] / growth
    return table


# --- adding stars --------------------------------------------------------------------------------


def test_artificial_star_light_and_noise():
    """PH-15: an added star has its flux, and each pixel the noise of its own photons, no more."""
    zero = np.zeros((41, 41))
    light = moffat(zero.shape, 20.3, 19.6, 4000.0)
    assert np.allclose(inject_stars(zero, 20.3, 19.6, 4000.0, psf=PSF), light, atol=1e-9)
    repeats = np.array(
        [inject_stars(zero, 20.3, 19.6, 4000.0, psf=PSF, gain=GAIN, seed=k) for k in range(400)]
    )
    # A mean of 400 has a twentieth of the noise of one; a variance an error of sqrt(2 / 400).
    # Pixels with fewer than 50 electrons in all repeats are too Poissonian for a normal limit.
    bright = light * GAIN * 400 > 50
    off = abs(repeats.mean(axis=0) - light) / np.sqrt(light / GAIN / 400)
    assert np.all(off[bright] < 5)
    core = light > 20
    ratio = repeats.var(axis=0, ddof=1)[core] / (light[core] / GAIN)
    assert abs(ratio.mean() - 1) < 4 * math.sqrt(2 / 400 / core.sum())
    # Electrons are whole numbers.
    assert np.allclose(np.rint(repeats * GAIN), repeats * GAIN)


def test_artificial_star_changes_only_its_place():
    """PH-15: the frame itself stays, so do its unit, header, flags and pixels without a value."""
    frame = field(1, shape=(120, 120))
    frame.meta["FILTER"] = "r"
    frame.flags = np.zeros(frame.shape, np.uint16)
    frame.flags[3, 4] = 2
    frame.data[40, 40] = np.nan
    before = frame.data.copy()
    after = inject_stars(frame, [41.0, -90.0], [38.0, 5.0], [900.0, 1e6], psf=PSF)
    assert np.array_equal(frame.data, before, equal_nan=True)
    assert after.unit == frame.unit and after.meta["FILTER"] == "r" and after.flags[3, 4] == 2
    assert np.isnan(after.data[40, 40]) and after.data.dtype == np.float32
    far = np.hypot(*(np.indices(frame.shape) - np.array([38.0, 41.0])[:, None, None])) > 60
    assert np.array_equal(after.data[far], before[far]) and after.data[38, 41] > before[38, 41] + 50


def test_artificial_star_whole_numbers():
    """PH-15: a frame of whole numbers does not cut the light of a faint star to zero."""
    frame = np.zeros((50, 50), np.uint16)
    after = inject_stars(frame, 25.0, 25.0, 30.0, psf=PSF)
    assert abs(after.sum() - 30) < 0.1 and frame.sum() == 0


def test_artificial_stars_need_a_gain():
    """PH-15: without a gain photons cannot be counted, and the error says what to do."""
    frame = field(1, shape=(120, 120))
    with pytest.raises(ValueError, match="photon_transfer"):
        artificial_stars(frame, psf=PSF, fluxes=(100, 200), n=1, seed=1, measure=search)
    for place in (np.nan, np.ma.array(50.0, mask=True)):
        with pytest.raises(ValueError, match="finite numbers"):
            inject_stars(frame, place, 50.0, 100.0, psf=PSF)
    with pytest.raises(ValueError, match="gain -1"):
        inject_stars(frame, 50.0, 50.0, 100.0, psf=PSF, gain=-1.0, seed=1)
    electrons = CCDData(np.zeros((40, 40)), unit="electron")
    added = inject_stars(electrons, 20.0, 20.0, 50.0, psf=PSF, seed=1).data
    assert added.sum() == round(added.sum())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fluxes": (200, 100)}, "smaller one first"),
        ({"fluxes": (0, 100)}, "positive"),
        ({"n": 0}, "at least 1"),
        ({"ratio": 1.0}, "larger than 1"),
        ({"margin": 300.0}, "no place inside a margin"),
        ({"near": ([500.0], [50.0])}, "none of the places"),
        ({"near": ([50.0], [50.0]), "within": -1.0}, "within -1"),
        ({"radius": math.nan}, "radius nan"),
        ({"margin": -1.0}, "margin -1"),
    ],
)
def test_artificial_stars_refuse(options, words):
    """PH-15: an option that means nothing is refused with what would be valid."""
    given = {"fluxes": (100, 200), "n": 5, "seed": 1, "measure": search, "gain": GAIN, **options}
    with pytest.raises(ValueError, match=words):
        artificial_stars(np.zeros((120, 120)), psf=PSF, **given)


# --- the test itself -----------------------------------------------------------------------------


def nothing(frame):
    """A measurement that finds no star."""
    return Table(names=("x", "y", "flux", "flux_err"))


def test_artificial_stars_keep_the_crowding():
    """PH-15: stars of one copy are far from each other and few; places cover the field evenly."""
    shape = (300, 400)
    table = artificial_stars(
        np.zeros(shape), psf=PSF, fluxes=(10, 1000), n=600, seed=3, measure=nothing, gain=GAIN
    )
    assert len(table) == 600 and not table["found"].any()
    for number in range(table.meta["n_frames"]):
        one = table[table["frame"] == number]
        distance = np.hypot(*(np.subtract.outer(one[c], one[c]) for c in ("x", "y")))
        assert np.all(distance[np.triu_indices(len(one), 1)] >= 10 * FWHM)
        # Circles of 5 widths around them cover no more than a tenth of the frame.
        assert len(one) * math.pi * (5 * FWHM) ** 2 <= 0.1 * shape[0] * shape[1]
    assert table["x"].min() >= 3 * FWHM and table["x"].max() <= 399 - 3 * FWHM
    # A mean of 600 even numbers has the error range / sqrt(12 * 600); four of them.
    for values, low, high in (
        (table["x"], 9, 390), (table["y"], 9, 290), (np.log(table["flux"]), *np.log([10, 1000])),
    ):  # fmt: skip
        assert abs(np.mean(values) - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * 600)


def test_artificial_stars_near_places():
    """PH-15: stars asked for near some places are there, one in a copy if there is no more room."""
    table = artificial_stars(
        np.zeros((200, 200)), psf=PSF, fluxes=(100, 100), n=60, seed=3, measure=nothing, gain=GAIN,
        near=([60.0, 190.0, 900.0], [70.0, 100.0, 0.0]), within=8.0,
    )  # fmt: skip
    first = np.hypot(table["x"] - 60, table["y"] - 70) <= 8
    # The other place is half behind the margin of 9 px, the third one is not on the frame.
    second = np.hypot(table["x"] - 190, table["y"] - 100) <= 8
    assert np.all(first | second) and 15 < first.sum() < 45 and table["x"].max() <= 190
    assert table.meta["n_frames"] == 60 and np.all(table["flux"] == 100)
    # A circle far larger than the frame is all of the frame, and found without end of trials.
    table = artificial_stars(
        np.zeros((200, 200)), psf=PSF, fluxes=(100, 100), n=200, seed=3, measure=nothing, gain=GAIN,
        near=([30.0], [30.0]), within=1e9,
    )  # fmt: skip
    for name in ("x", "y"):
        assert abs(np.mean(table[name]) - 99.5) < 4 * 181 / math.sqrt(12 * 200)


def test_artificial_stars_in_a_region():
    """PH-15: a part of the frame is measured with its flags; places are those of the frame."""
    frame = field(3, shape=(200, 300))
    frame.flags = np.zeros(frame.shape, np.uint16)
    frame.flags[60, 110] = 2
    seen = []

    def measure(part):
        seen.append((part.shape, part.flags[10, 10], part.unit))
        return search(part)

    table = artificial_stars(
        frame, psf=PSF, fluxes=(9000, 9000), n=6, seed=1, measure=measure, gain=GAIN,
        region=(100, 229, 50, 999), near=([150.0, 180.0], [100.0, 140.0]), within=5.0, per_frame=3,
    )  # fmt: skip
    assert set(seen) == {((150, 130), 2, frame.unit)} and table["found"].all()
    distance = [np.hypot(table["x"] - a, table["y"] - b) for a, b in ((150, 100), (180, 140))]
    assert np.all(np.minimum(*distance) <= 5)
    # The error of a place is about FWHM / (2.35 S/N) = 0.03 px.
    assert np.all(np.hypot(table["x_found"] - table["x"], table["y_found"] - table["y"]) < 0.15)
    with pytest.raises(ValueError, match="is not on a frame of 300 x 200"):
        artificial_stars(
            frame, psf=PSF, fluxes=(9, 9), n=1, seed=1, gain=GAIN, region=(400, 500, 0, 9)
        )


class Backwards:
    """Workers that do the last task first: the order in which copies come must not matter."""

    def __init__(self, workers):
        """Any number of workers."""

    def __enter__(self):
        """Nothing to start."""
        return self

    def __exit__(self, *error):
        """Nothing to stop."""

    @staticmethod
    def map(function, tasks):
        """Results in the order of the tasks."""
        return reversed([function(task) for task in reversed(tasks)])


def test_artificial_stars_same_for_any_number_of_workers(monkeypatch):
    """PH-15: one seed, one table, for 1 and 4 threads and any order; another seed, another one."""
    frame = crowd(5)

    def table(seed, threads):
        return artificial_stars(
            frame, psf=PSF, fluxes=(300, 3000), n=30, seed=seed, measure=search, gain=GAIN,
            threads=threads,
        )  # fmt: skip

    one, four, other = table(7, 1), table(7, 4), table(8, 1)
    monkeypatch.setattr(artificial, "ThreadPoolExecutor", Backwards)
    backwards = table(7, 2)
    assert one["found"].any() and one.meta["n_frames"] > 3
    for name in one.colnames:
        assert np.array(one[name]).tobytes() == np.array(four[name]).tobytes(), name
        assert np.array(one[name]).tobytes() == np.array(backwards[name]).tobytes(), name
    assert not np.array_equal(one["x"], other["x"])


def test_artificial_stars_bounded_memory():
    """PH-15: no more copies of the frame live at a time than threads work."""
    copies, most = [], []

    def measure(frame):
        copies.append(weakref.ref(frame))
        most.append(sum(one() is not None for one in copies))
        return nothing(frame)

    artificial_stars(
        np.zeros((64, 64)), psf=PSF, fluxes=(1, 1), n=40, seed=1, measure=measure, gain=GAIN,
        threads=2,
    )  # fmt: skip
    assert len(most) >= 20 and max(most) <= 2


@pytest.mark.parametrize(
    ("moved", "factor", "expected"),
    [(0.0, 1.0, True), (1.4, 1.0, True), (1.6, 1.0, False), (0.0, 1.9, True), (0.0, 2.1, False),
     (0.0, 0.45, False), (0.0, math.nan, False)],
)  # fmt: skip
def test_artificial_star_is_found_by_place_and_flux(moved, factor, expected):
    """PH-15: found means within half a width, and within a factor of two in flux."""
    added = []

    def measure(frame):
        j, i = np.unravel_index(np.argmax(frame), frame.shape)
        star = (i + moved, j, 1000.0 * factor, 5.0)
        added.append(star)
        return Table(rows=[star, (2.0, 2.0, 1000.0, 5.0)], names=("x", "y", "flux", "flux_err"))

    class Dot:
        """A star of one pixel."""

        fwhm = FWHM

        @staticmethod
        def image(shape, x, y, flux):
            """All light in the pixel that the star is in."""
            image = np.zeros(shape)
            image[round(y), round(x)] = flux
            return image

    table = artificial_stars(
        np.zeros((80, 80)), psf=Dot, fluxes=(1000, 1000), n=4, seed=1, measure=measure, gain=1e6,
        radius=1.5 + 1.0, near=([40.0], [40.0]), within=0.0,
    )  # fmt: skip
    assert len(added) == 4
    # The star stands at the middle of a pixel here; the radius is that of the test plus one.
    expected = expected or (moved == 1.6)
    assert np.all(table["found"] == expected)
    if expected:
        assert np.allclose(table["flux_found"], 1000 * factor) and np.all(table["flux_err"] == 5)
        assert np.allclose(table["x_found"] - table["x"], moved)
    else:
        assert np.all(np.isnan(table["flux_found"]))


# --- what it tells -------------------------------------------------------------------------------


def test_completeness_half_where_theory_has_it():
    """PH-15: half of the isolated stars are found at the flux that the threshold stands for.

    The filter of `detect` is a Gaussian as wide as a star less its mean, in units of its noise. A
    star of flux F has there the expected height F sum(p K), mean over the places in a pixel; half
    are found where this is the threshold of 5. The true maximum is the largest of the pixels of
    the peak, so the limit is a little lower: half a sigma of the filtered noise at most.
    """
    frame = field(11, shape=(400, 400))
    table = artificial_stars(
        frame, psf=PSF, fluxes=(300, 2700), n=500, seed=2, measure=search, gain=GAIN, ratio=5.0,
        radius=2.0, threads=2,
    )  # fmt: skip
    reach = max(2, math.ceil(1.7 * FWHM))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.exp(-4 * math.log(2) * (x**2 + y**2) / FWHM**2)
    kernel -= kernel.mean()
    kernel /= np.sqrt((kernel**2).sum())
    phases = (np.arange(4) + 0.5) / 4 - 0.5
    heights = [
        (moffat(kernel.shape, reach + dx, reach + dy, 1.0) * kernel).sum()
        for dx in phases for dy in phases
    ]  # fmt: skip
    expected = 5.0 * NOISE / np.mean(heights)
    limit, error = flux_limit(table)
    assert error < 0.05 * limit
    assert expected * (1 - 0.5 / 5.0) - 3 * error < limit < expected + 3 * error
    # The curve itself, bin by bin, is the share of a normal distribution above the threshold.
    rows = completeness(table, bins=6)
    theory = norm.cdf(5.0 * (rows["flux"] / limit - 1))
    slack = 3 * (rows["completeness_high"] - rows["completeness_low"]) / 2 + 0.05
    assert np.all(abs(rows["completeness"] - theory) < slack)
    assert rows["completeness"][0] < 0.1 and rows["completeness"][-1] > 0.95


def test_completeness_binomial():
    """PH-15: shares with Wilson's range, robust errors, and bins as asked for."""
    rng = np.random.default_rng(1)
    n = 4000
    table = Table({"flux": np.full(n, 100.0), "found": rng.random(n) < 0.5})
    table["flux_err"] = np.where(table["found"], 4.0, np.nan)
    table["flux_found"] = np.where(table["found"], 102 + rng.normal(0, 8, n), np.nan)
    table["flux_found"][:40] *= 30  # One in a hundred is nonsense.
    (row,) = completeness(table, bins=1)
    assert row["n"] == n and row["n_found"] == table["found"].sum()
    half = (row["completeness_high"] - row["completeness_low"]) / 2
    assert abs(half - 0.5 / math.sqrt(n)) < 1e-4 and abs(row["completeness"] - 0.5) < 4 * half
    # Errors of a median and of a MAD of 2000 values: 1.25 and 1.17 times 8 % / sqrt(2000).
    assert abs(row["bias"] - 0.02) < 4 * row["bias_err"] and row["bias_err"] < 0.003
    assert abs(row["true_error"] / 0.08 - 1) < 0.1 and abs(row["stated_error"] - 0.04) < 1e-9
    assert abs(row["error_ratio"] - 2) < 0.2
    # Known values of Wilson's range for one sigma: 0 of 4 and 4 of 4.
    few = Table({"flux": [1.0] * 4, "flux_found": [1.0] * 4, "flux_err": [0.1] * 4})
    for all_found, low, high in ((False, 0.0, 0.2), (True, 0.8, 1.0)):
        few["found"] = all_found
        (row,) = completeness(few, bins=[0.5, 2.0])
        assert math.isclose(row["completeness_low"], low, abs_tol=1e-12)
        assert math.isclose(row["completeness_high"], high, abs_tol=1e-12)
    assert np.isnan(completeness(few[:2], bins=1)["bias"][0])
    for function in (completeness, flux_limit):
        with pytest.raises(ValueError, match="no artificial star"):
            function(few[:0])
    for bins in (0, -1, [5.0], [5.0, 1.0]):
        with pytest.raises(ValueError, match="rising edges"):
            completeness(few, bins=bins)


@pytest.mark.parametrize("top", [1.0, 0.8])
def test_flux_limit_of_known_curve(top):
    """PH-15: the flux of two shares of a known curve, with an error that is true.

    The curve ends at 1, or at 0.8 as in a crowd where bright stars are lost, too.
    """
    pulls = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        flux = 10 ** rng.uniform(1, 3, 800)
        found = rng.random(800) < top / (1 + (100 / flux) ** 6)
        table = Table({"flux": flux, "found": found})
        one = []
        for share in (0.5, 0.7):
            truth = 100 * (share / (top - share)) ** (1 / 6)
            value, error = flux_limit(table, share=share)
            one.append((value - truth) / error)
        pulls.append(one)
    # The width of 24 pulls is uncertain by 1 / sqrt(48), their mean by 1 / sqrt(24).
    assert np.all(abs(np.std(pulls, axis=0) - 1) < 4 / math.sqrt(48))
    assert np.all(abs(np.mean(pulls, axis=0)) < 4 / math.sqrt(24))


def test_flux_limit_refuses():
    """PH-15: without stars on both sides, or above what bright stars reach, there is no limit."""
    flux = np.geomspace(10, 1000, 400)
    table = Table({"flux": flux, "found": (flux > 100) & (np.arange(400) % 2 == 0)})
    with pytest.raises(ValueError, match=r"bright stars reach 0\.50"):
        flux_limit(table, share=0.9)
    # Neatly separated stars have no slope, but a limit.
    table["found"] = flux > 100
    assert abs(flux_limit(table)[0] / 100 - 1) < 0.02
    for found, words in ((True, "add fainter"), (False, "add bright")):
        table["found"] = found
        with pytest.raises(ValueError, match=words):
            flux_limit(table)
    with pytest.raises(ValueError, match="between 0 and 1"):
        flux_limit(table, share=1.0)


def test_true_error_isolated_and_in_the_core():
    """PH-15: stated errors are true for isolated stars; in a crowd they are too small."""
    options = {"psf": PSF, "fluxes": (2000, 8000), "seed": 4, "measure": search, "gain": GAIN}
    alone = artificial_stars(field(21, shape=(400, 400)), n=240, threads=2, **options)
    core = artificial_stars(
        crowd(22, shape=(180, 180)), n=50, near=([89.5], [89.5]), within=30.0, threads=2, **options
    )
    (alone,), (core,) = (completeness(one, bins=1) for one in (alone, core))
    # The width of 240 pulls, from their MAD, is uncertain by 1.17 / sqrt(240) = 0.075.
    assert abs(alone["error_ratio"] - 1) < 3 * 0.075 and alone["completeness"] == 1
    # The sky of `search` is a median; its bias is far below the noise of one star.
    assert abs(alone["bias"]) < 4 * alone["bias_err"]
    assert core["error_ratio"] > 2 * alone["error_ratio"] and core["completeness"] < 0.9
    assert core["true_error"] > 2 * alone["true_error"]


def test_psf_fit_brings_back_more_of_the_core():
    """PH-15: in a core the PSF brings back stars that circles lose, with errors nearly true.

    The measurement is given by its options: `detect`, then `psf_photometry`.
    """
    model = moffat_epsf(fwhm=FWHM)
    frame = crowd(22, n=100, spread=30.0, shape=(180, 180))
    common = {
        "psf": model, "fluxes": (2000, 8000), "n": 40, "seed": 4, "gain": GAIN,
        "near": ([89.5], [89.5]), "within": 30.0, "per_frame": 2, "threads": 2,
    }  # fmt: skip
    options = {"read_noise": READ_NOISE, "find_more": 1, "threads": 1}
    (fitted,) = completeness(artificial_stars(frame, measure=options, **common), bins=1)
    (summed,) = completeness(artificial_stars(frame, measure=search, **common), bins=1)
    # The difference of two shares of 40 stars is uncertain by 0.1 (circles: 0.45, PSF: 0.80).
    assert fitted["completeness"] - summed["completeness"] > 0.2
    # Stars that are taken for one remain; the width of 32 pulls is uncertain by 0.2.
    assert fitted["error_ratio"] < 1.9 and abs(fitted["bias"]) < 4 * fitted["bias_err"]
    # Options of the search reach it: with this threshold nothing is found.
    once = options | {"find_more": 0}
    blind = artificial_stars(frame, measure=once, detection={"nsigma": 1e5}, **common | {"n": 2})
    assert not blind["found"].any()
    # Isolated stars: the width of 120 pulls is uncertain by 1.17 / sqrt(120) = 0.11.
    alone = artificial_stars(
        field(21, shape=(300, 300)), psf=model, fluxes=(2000, 8000), n=120, seed=4, gain=GAIN,
        measure=options, detection={"nsigma": 6.0},
    )  # fmt: skip
    (alone,) = completeness(alone, bins=1)
    assert abs(alone["error_ratio"] - 1) < 3 * 0.11 and alone["completeness"] == 1
    assert abs(alone["bias"]) < 4 * alone["bias_err"]


def test_reached_through_artificial():
    """PH-15: all that belongs to the test is in one room."""
    assert {"artificial_stars", "completeness", "flux_limit", "inject_stars"} == set(
        artificial.__all__
    )
