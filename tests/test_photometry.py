"""Aperture photometry of a frame: exact areas, golden numbers, errors that are true, flags."""

import math

import numpy as np
import pytest
from astropy.nddata import CCDData
from photutils.aperture import CircularAnnulus, CircularAperture
from photutils.aperture import aperture_photometry as photutils_photometry

from datared import photometry, pixels
from datared.photometry import (
    FLAG_NAMES,
    aperture_photometry,
    best_radius,
    describe_flags,
    growth_curve,
)
from datared.render import sensor_counts, star_image
from datared.times import scintillation

GAIN, READ_NOISE, OFFSET = 0.5, 5.0, 300.0


def disc_scene():
    """The scene of F4: a sky of 10 and a star of 5000 counts in one disc of radius 6."""
    frame = np.full((101, 101), 10.0)
    y, x = np.mgrid[:101, :101]
    disc = np.hypot(x - 50, y - 50) <= 6
    frame[disc] += 5000 / disc.sum()
    return frame


def observe(expected, seed):
    """A frame in counts, offset subtracted, of the expected electrons."""
    raw = sensor_counts(expected, gain=GAIN, read_noise=READ_NOISE, offset=OFFSET, seed=seed)
    return CCDData(raw.astype(np.float32) - np.float32(OFFSET), unit="adu")


def flagged(data, **bits):
    """A frame with pixel flags set at (x, y)."""
    ccd = CCDData(np.asarray(data, np.float32), unit="adu")
    ccd.flags = np.zeros(ccd.shape, np.uint16)
    for name, (x, y) in bits.items():
        ccd.flags[y, x] |= getattr(pixels, name.upper())
    ccd.mask = ccd.flags != 0
    return ccd


def test_exact_overlap_equals_photutils():
    """Sums equal photutils' exact method at any phase, radius and near the edge of the frame."""
    rng = np.random.default_rng(4)
    frame = rng.normal(100, 20, (80, 120))
    x, y = rng.uniform(-0.4, 119.4, 60), rng.uniform(-0.4, 79.4, 60)
    radii = (0.3, 1.0, 2.7, 6.0, 11.5)
    ours = aperture_photometry(
        frame, x, y, radii=radii, annulus=(12, 20), background="none", partial="keep"
    )
    for k, radius in enumerate(radii):
        theirs = photutils_photometry(frame, CircularAperture(np.transpose([x, y]), radius))
        # Both are exact: what is left is rounding, relative to an area of at most 415 x 100.
        assert np.allclose(ours["flux"][:, k], theirs["aperture_sum"], rtol=1e-10, atol=1e-8)


def test_master_equation_golden_number():
    """F4 literally: 8141.57 - 3141.59 = 4999.98, and areas to 1e-6 of the hand computation."""
    frame = np.full((101, 101), 10.0)
    # The golden number comes from a star whose sum in the aperture is 8141.57.
    frame[50, 50] += 8141.57 - 314.159265 * 10
    row = aperture_photometry(frame, 50, 50, radii=10, annulus=(20, 30), background="annulus-mean")[
        0
    ]
    assert row["flux"][0] == pytest.approx(4999.98, abs=0.01)
    assert row["sky"] == pytest.approx(10, rel=1e-12)
    assert row["n_sky"] == pytest.approx(math.pi * (30**2 - 20**2), rel=1e-6)
    # By hand: sum in the aperture minus its area times counts in the annulus over its area.
    rng = np.random.default_rng(1)
    frame = disc_scene() + rng.normal(0, 3, (101, 101))
    place = [(50.3, 49.6)]
    aperture, ring = CircularAperture(place, 10), CircularAnnulus(place, 20, 30)
    sums = [photutils_photometry(frame, shape)["aperture_sum"][0] for shape in (aperture, ring)]
    by_hand = sums[0] - aperture.area / ring.area * sums[1]
    row = aperture_photometry(
        frame, *place[0], radii=10, annulus=(20, 30), background="annulus-mean"
    )[0]
    assert row["flux"][0] == pytest.approx(by_hand, rel=1e-6)


def test_annulus_neighbour_golden_numbers():
    """One neighbour of 20000 in the annulus: literal 1055.84 lower sky, clipped median unharmed."""
    frame = np.full((101, 101), 10.0)
    frame[50, 50] += 4999.98
    frame[50, 75] += 19720.7  # F4's neighbour of 20000 as far as it falls into the annulus
    literal = aperture_photometry(
        frame, 50, 50, radii=10, annulus=(20, 30), background="annulus-mean"
    )
    clipped = aperture_photometry(frame, 50, 50, radii=10, annulus=(20, 30))
    assert literal["flux"][0, 0] == pytest.approx(1055.84, abs=0.05)
    assert clipped["flux"][0, 0] == pytest.approx(4999.98, abs=0.01)
    assert clipped["sky"][0] == 10


def test_annulus_partly_outside_counts_what_is_inside():
    """The sky near an edge is the sky inside, not diluted by nothing."""
    frame = np.full((60, 60), 10.0)
    for background in ("annulus-mean", "annulus-median"):
        row = aperture_photometry(frame, 8, 30, radii=5, annulus=(12, 18), background=background)[0]
        assert row["sky"] == pytest.approx(10, rel=1e-12)
        assert row["flux"][0] == pytest.approx(0, abs=1e-9)


def test_forced_photometry_of_500_stars():
    """500 stars: median error below 0.2 %, and the scatter is the one that is predicted."""
    rng = np.random.default_rng(11)
    grid = np.arange(500)
    x = 25 + 40 * (grid % 25) + rng.uniform(-1, 1, 500)
    y = 25 + 40 * (grid // 25) + rng.uniform(-1, 1, 500)
    electrons = 10 ** rng.uniform(4.5, 5.2, 500)
    scene = star_image((850, 1040), x, y, electrons, fwhm=3.2, beta=4.5) + 200.0
    table = aperture_photometry(
        observe(scene, 5),
        x,
        y,
        radii=(8.0,),
        annulus=(12, 17),
        gain=GAIN,
        read_noise=READ_NOISE,
        fwhm=3.2,
    )
    # A Moffat of beta 4.5 holds 99.9 % within 8 px; the rest is known from the model.
    noiseless = star_image((101, 101), [50.0], [50.0], [1.0], fwhm=3.2, beta=4.5)
    share = aperture_photometry(noiseless, 50, 50, radii=8.0, annulus=(12, 17))["flux"][0, 0]
    truth = electrons / GAIN * share
    relative = table["flux"][:, 0] / truth - 1
    assert np.median(np.abs(table["flux_err"][:, 0] / truth)) < 0.006
    # The median of 500 errors of 0.5 % each is known to 1.25 x 0.5 % / sqrt(500) = 0.03 %.
    assert abs(np.median(relative)) < 0.002
    pulls = (table["flux"][:, 0] - truth) / table["flux_err"][:, 0]
    # The standard deviation of 500 numbers is known to 1 / sqrt(1000) = 3.2 %; 3 of these.
    assert np.std(pulls) == pytest.approx(1.0, abs=0.095)
    assert abs(np.mean(pulls)) < 0.135
    assert not np.any(table["flags"])


@pytest.mark.parametrize("background", ["annulus-median", "annulus-mean"])
def test_pull_distribution(background):
    """The error is true from S/N 5 to 300, with small and large annuli, in 100 realisations."""
    x, y = np.meshgrid(np.arange(12) * 40 + 30.0, np.arange(4) * 50 + 30.0)
    x, y = x.ravel() + 0.3, y.ravel() - 0.2
    electrons = np.repeat([300.0, 2000.0, 20000.0, 150000.0], 12)
    scene = star_image((215, 505), x, y, electrons, fwhm=3.0, beta=4.5) + 60.0
    # The narrow annulus has few pixels: there the error of the level matters most.
    setup = {"radii": (3.0, 6.0), "annulus": (10, 13), "background": background}
    truth = aperture_photometry(scene / GAIN, x, y, **setup)["flux"]
    pulls = []
    for seed in range(100):
        frame = observe(scene, seed)
        table = aperture_photometry(frame, x, y, gain=GAIN, read_noise=READ_NOISE, **setup)
        pulls.append((table["flux"] - truth) / table["flux_err"])
    pulls = np.array(pulls)
    # 4800 pulls each: their width is known to 1.0 %, their mean to 0.014; three of these.
    for k in range(2):
        assert np.std(pulls[..., k]) == pytest.approx(1.0, abs=0.03)
        assert abs(np.mean(pulls[..., k])) < 0.07
    # The fainter half in the small circle, 1.4 %; areas in place of squared shares give 0.93.
    assert np.std(pulls[:, :24, 0]) == pytest.approx(1.0, abs=0.04)
    # By brightness: 1200 pulls, 2.0 %; three and a half of these for eight numbers.
    widths = pulls.reshape(100, 4, 12, 2).std(axis=(0, 2))
    assert np.all(np.abs(widths - 1) < 0.07)


def test_without_gain_the_error_is_a_lower_limit():
    """Without a gain the photons are missing from the error, and the table says so."""
    frame = observe(star_image((61, 61), [30.0], [30.0], [50000.0], fwhm=3.0) + 50, 1)
    known = aperture_photometry(
        frame, 30, 30, radii=6, annulus=(10, 15), gain=GAIN, background="annulus-mean"
    )
    unknown = aperture_photometry(
        frame, 30, 30, radii=6, annulus=(10, 15), background="annulus-mean"
    )
    assert known.meta["errors"] == "complete"
    assert unknown.meta["errors"].startswith("lower limit")
    photons = known["flux"][0, 0] / GAIN
    difference = known["flux_err"][0, 0] ** 2 - unknown["flux_err"][0, 0] ** 2
    # Pixels at the rim count with their share squared: a little less than the star's photons.
    assert difference == pytest.approx(photons, rel=0.01)


def test_electron_frames_have_a_gain_of_one():
    """A frame in electrons needs no gain."""
    counts = observe(star_image((61, 61), [30.0], [30.0], [50000.0], fwhm=3.0) + 50, 1)
    electrons = CCDData(counts.data * np.float32(GAIN), unit="electron")
    in_counts = aperture_photometry(counts, 30, 30, radii=6, annulus=(10, 15), gain=GAIN)
    table = aperture_photometry(electrons, 30, 30, radii=6, annulus=(10, 15))
    assert table.meta["errors"] == "complete"
    assert table["flux_err"][0, 0] == pytest.approx(in_counts["flux_err"][0, 0] * GAIN, rel=1e-5)


def test_scintillation_is_added_in_quadrature():
    """Young's formula with its golden number, and its place in the error."""
    # 0.09 x 35^(-2/3) x 1.5^1.75 / sqrt(120) by hand.
    assert scintillation(60, diameter=35, airmass=1.5) == pytest.approx(1.561e-3, rel=1e-3)
    frame = disc_scene()
    plain = aperture_photometry(frame, 50, 50, radii=10, annulus=(20, 30), gain=1.0)[0]
    shaken = aperture_photometry(
        frame, 50, 50, radii=10, annulus=(20, 30), gain=1.0, scintillation=0.01
    )[0]
    extra = shaken["flux_err"][0] ** 2 - plain["flux_err"][0] ** 2
    assert extra == pytest.approx((0.01 * plain["flux"][0]) ** 2, rel=1e-9)


def test_coarsely_digitised_sky_is_not_rounded():
    """The sky of whole counts is known to a fraction of a count (median of grouped data)."""
    rng = np.random.default_rng(8)
    levels = []
    for _ in range(200):
        frame = np.rint(rng.normal(10.37, 0.8, (41, 41)))
        levels.append(aperture_photometry(frame, 20, 20, radii=3, annulus=(8, 15))["sky"][0])
    # 506 pixels of width 0.85: error of the median 0.047; of 200 medians 0.0034; and 0.021 because
    # counts are not spread evenly within a step of this width. The plain median is 10: 0.37 off.
    assert np.mean(levels) == pytest.approx(10.37, abs=0.035)
    assert np.std(levels) < 0.06


def test_flags_table():
    """Every flag is raised by its cause, in the radius that it concerns, and by nothing else."""
    rng = np.random.default_rng(3)
    x = np.array([30.0, 5.0, 70.0, 110.0, 150.0, 30.0, 38.0, 110.0, -30.0, np.nan])
    y = np.array([30.0, 30.0, 30.0, 30.0, 30.0, 90.0, 90.0, 90.0, 30.0, 30.0])
    flux = np.array([9e3, 9e3, 9e3, 9e3, 9e3, 9e3, 9e3, -9e3, 9e3, 9e3])
    scene = star_image((120, 180), x[:8], y[:8], flux[:8], fwhm=3.0)
    ccd = flagged(scene + rng.normal(50, 3, scene.shape), saturated=(70, 30), hot=(110, 34))
    ring = np.hypot(*(np.mgrid[:120, :180] - np.array([30, 150])[:, None, None]))
    ccd.flags[(ring > 10) & (ring < 14.6)] |= pixels.TRAIL
    table = aperture_photometry(ccd, x, y, radii=(3, 6), annulus=(10, 15), gain=1.0, fwhm=3.0)
    names = [[describe_flags(bits) for bits in row] for row in table["flags"]]
    assert names[0] == [[], []]
    assert names[1] == [[], ["edge"]]
    assert names[2] == [["saturated"], ["saturated"]]
    assert names[3] == [[], ["bad pixel"]]
    assert names[4] == [["poor annulus"], ["poor annulus"]]
    assert names[5] == names[6] == [[], ["neighbour"]]
    assert names[7] == [["negative"], ["negative"]]
    assert names[8] == [["outside"], ["outside"]]
    assert names[9] == [["no position"], ["no position"]]
    assert [bit for bit in FLAG_NAMES.values()] == [1 << k for k in range(9)]


def test_e26_edge_star_is_no_truncated_sum():
    """A star whose aperture crosses the edge is NaN and flagged; its sum only when asked for."""
    frame = np.full((60, 60), 1.0)
    table = aperture_photometry(frame, [3, 30, 90], 30, radii=(2, 5), annulus=(8, 14))
    assert list(np.isnan(table["flux"]).ravel()) == [False, True, False, False, True, True]
    assert list(np.isnan(table["flux_err"]).ravel()) == [False, True, False, False, True, True]
    assert table["flags"][2, 0] == photometry.OUTSIDE
    kept = aperture_photometry(
        frame, 3, 30, radii=5, annulus=(8, 14), background="none", partial="keep"
    )
    inside = math.pi * 25 - (25 * math.acos(3.5 / 5) - 3.5 * math.sqrt(25 - 3.5**2))
    assert kept["flux"][0, 0] == pytest.approx(inside, rel=1e-9)
    assert kept["flags"][0, 0] == photometry.EDGE


def test_edge_of_the_valid_part_counts_as_edge():
    """Pixels outside of a trimmed or shifted frame are an edge, wherever they lie."""
    frame = star_image((60, 60), [30.0], [30.0], [100.0], fwhm=2.0)
    ccd = flagged(frame, outside=(33, 30))
    table = aperture_photometry(ccd, 30, 30, radii=(2, 5), annulus=(8, 14))
    assert list(np.isnan(table["flux"][0])) == [False, True]
    assert list(table["flags"][0]) == [0, photometry.EDGE]


def test_e27_nan_coordinate_masks_its_row_only():
    """One star without a position leaves the others untouched."""
    frame = disc_scene()
    alone = aperture_photometry(frame, 50, 50, radii=10, annulus=(20, 30), gain=1.0)
    table = aperture_photometry(
        frame, [np.nan, 50, 50], [50, 50, np.inf], radii=10, annulus=(20, 30), gain=1.0
    )
    assert list(np.isnan(table["flux"][:, 0])) == [True, False, True]
    assert list(table["flags"][:, 0]) == [photometry.NO_POSITION, 0, photometry.NO_POSITION]
    assert table["flux"][1, 0] == alone["flux"][0, 0]
    assert np.isnan(table["sky"][0])


def test_e28_nan_pixel_in_the_aperture():
    """A pixel without a value: NaN and flagged in the radii that hold it, never a low sum."""
    frame = disc_scene()
    frame[50, 54] = np.nan
    frame[20, 50] = np.inf  # in the annulus: left out
    table = aperture_photometry(frame, 50, 50, radii=(3, 10), annulus=(20, 30))
    assert list(np.isnan(table["flux"][0])) == [False, True]
    assert list(table["flags"][0]) == [0, photometry.BAD_PIXEL]
    assert table["sky"][0] == 10


def test_e31_bad_pixel_in_the_star_core_is_flagged():
    """A hot or repaired pixel with a value: flux kept, flag set; a masked frame likewise."""
    frame = disc_scene()
    good = aperture_photometry(frame, 50, 50, radii=10, annulus=(20, 30))[0]
    for name in ("hot", "dead", "cosmic", "repaired", "bad_column", "low_flat", "trail"):
        ccd = flagged(frame, **{name: (50, 51)})
        row = aperture_photometry(ccd, 50, 50, radii=10, annulus=(20, 30))[0]
        assert row["flags"][0] == photometry.BAD_PIXEL
        assert row["flux"][0] == pytest.approx(good["flux"][0], rel=1e-6)
    masked = CCDData(frame, unit="adu", mask=np.hypot(*(np.mgrid[:101, :101] - 50)) < 1)
    row = aperture_photometry(masked, 50, 50, radii=10, annulus=(20, 30))[0]
    assert row["flags"][0] == photometry.BAD_PIXEL


def test_flagged_pixels_never_enter_the_sky():
    """A flagged pixel in the annulus does not count, in either kind of sky."""
    frame = disc_scene()
    ccd = flagged(frame, hot=(75, 50))
    ccd.data[50, 75] = 1e6
    for background in ("annulus-median", "annulus-mean"):
        row = aperture_photometry(ccd, 50, 50, radii=10, annulus=(20, 30), background=background)
        assert row["sky"][0] == pytest.approx(10, rel=1e-6)
        assert row["n_sky"][0] < math.pi * 500


def test_annulus_without_a_good_pixel():
    """No sky, no flux: NaN and flagged, without a warning."""
    ccd = flagged(disc_scene())
    ccd.flags[np.hypot(*(np.mgrid[:101, :101] - 50)) > 15] = pixels.TRAIL
    row = aperture_photometry(ccd, 50, 50, radii=10, annulus=(20, 30), gain=1.0)[0]
    assert np.isnan(row["flux"][0]) and np.isnan(row["flux_err"][0]) and np.isnan(row["sky"])
    assert row["flags"][0] == photometry.POOR_ANNULUS


def test_e29_negative_flux_has_a_finite_error():
    """A hole in the sky keeps its flux and has the error of the sky."""
    rng = np.random.default_rng(2)
    frame = rng.normal(100, 4, (61, 61))
    frame[30, 30] -= 400
    row = aperture_photometry(frame, 30, 30, radii=4, annulus=(8, 16), gain=1.0)[0]
    assert row["flux"][0] < -300
    assert row["flags"][0] == photometry.NEGATIVE
    # 50 pixels of width 4, and the level from 600 of them.
    assert row["flux_err"][0] == pytest.approx(4 * math.sqrt(50.3 * 1.13), rel=0.15)


def test_nan_frame_leaves_other_stars_unchanged():
    """A row, a column and a block of NaN: stars elsewhere have the same numbers to the last bit."""
    rng = np.random.default_rng(6)
    x, y = np.array([30.0, 90.0, 150.0]), np.full(3, 40.0)
    frame = star_image((80, 180), x, y, np.full(3, 8000.0), fwhm=3) + rng.normal(50, 3, (80, 180))
    before = aperture_photometry(frame, x, y, radii=5, annulus=(10, 15))
    frame[3], frame[:, 90], frame[60:70, 0:9] = np.nan, np.nan, np.nan
    after = aperture_photometry(frame, x, y, radii=5, annulus=(10, 15))
    assert list(np.isnan(after["flux"][:, 0])) == [False, True, False]
    assert np.array_equal(before["flux"][::2], after["flux"][::2])


def test_faint_neighbour_does_not_matter():
    """A neighbour is flagged where it matters to this star, not to both alike."""
    frame = star_image((61, 61), [28.0, 35.0], [30.0, 30.0], [1e5, 300.0], fwhm=2.5) + 20.0
    table = aperture_photometry(frame, [28, 35], 30, radii=(4,), annulus=(12, 20), fwhm=2.5)
    assert list(table["flags"][:, 0]) == [0, photometry.NEIGHBOUR]


def test_growth_curve_and_best_radius():
    """The curve of growth is the Moffat's; the best radius is within 20 % of the true optimum."""
    fwhm, beta, radii = 4.0, 4.5, np.arange(1.0, 12.1, 0.5)
    x, y = np.meshgrid(np.arange(8) * 50 + 30.0, np.arange(5) * 50 + 30.0)
    x, y = x.ravel() + 0.2, y.ravel() + 0.4
    sky = 400.0
    scene = star_image((260, 410), x, y, np.full(40, 6000.0), fwhm=fwhm, beta=beta) + sky
    table = aperture_photometry(observe(scene, 3), x, y, radii=radii, annulus=(15, 20), gain=GAIN)
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    inside = 1 - (1 + (radii / alpha) ** 2) ** (1 - beta)
    curve = growth_curve(table["flux"], flags=table["flags"])
    # Beyond a radius of two widths the noise of 40 stars of S/N 40 is about a percent.
    assert np.allclose(curve[4:], inside[4:] / inside[-1], atol=0.03)
    signal = (
        6000
        * inside
        / np.sqrt(
            6000 * inside + math.pi * radii**2 * (sky + READ_NOISE**2) * (1 + radii**2 / 175 * 1.57)
        )
    )
    chosen = radii[best_radius(table["flux"], table["flux_err"], flags=table["flags"])]
    assert chosen == pytest.approx(radii[np.argmax(signal)], rel=0.2)


def test_options_that_mean_nothing_are_refused():
    """Each wrong option is named with what would be valid."""
    frame = disc_scene()
    good = {"radii": 10, "annulus": (20, 30)}
    for option, message in [
        ({"radii": (3, -1)}, "positive"),
        ({"annulus": (30, 20)}, "inner and a larger outer"),
        ({"background": "mean"}, "annulus-median"),
        ({"gain": 0.0}, "positive"),
        ({"partial": True}, "'keep'"),
    ]:
        with pytest.raises(ValueError, match=message):
            aperture_photometry(frame, 50, 50, **{**good, **option})
    with pytest.raises(ValueError, match="two axes"):
        aperture_photometry(frame[0], 50, 50, **good)


def test_input_is_not_modified_and_empty_list_is_fine():
    """No star, no row; the frame and the positions stay as they are."""
    frame = disc_scene()
    before = frame.copy()
    x = np.array([50.0])
    aperture_photometry(frame, x, x, radii=10, annulus=(20, 30))
    assert np.array_equal(frame, before) and x[0] == 50
    empty = aperture_photometry(frame, [], [], radii=(3, 10), annulus=(20, 30))
    assert len(empty) == 0 and empty["flux"].shape == (0, 2)
