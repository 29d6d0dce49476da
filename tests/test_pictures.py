"""Pictures: white is a star like the Sun, colours are those of the stars, nothing is burnt out."""

import logging
import shutil

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.visualization import make_lupton_rgb
from matplotlib import rc_context
from matplotlib.image import imread

from datared import nightpictures, pictures, pngfile
from datared.colourbalance import SUN
from datared.errors import DataredError, FrameError
from datared.frames import read_product, write_product
from datared.night import Camera, Night
from datared.nightpictures import colour_filters, write_pictures
from datared.pictures import (
    catalogue_balance,
    colour_balance,
    colour_image,
    gray_image,
    sun_magnitude,
    write_png,
    zero_point_balance,
)
from datared.pixels import SATURATED
from datared.products import Manifest
from datared.render import star_image
from datared.skyplots import sky_picture
from datared.stackoptions import StackOptions
from datared.systems import transform
from tests.stackfields import SHAPE, make_frame, make_wcs

MIDDLE = (30, 40)


def star(flux=5e4, *, fwhm=4.0, at=(40.0, 30.0)):
    """Image of one star, 60 x 80 pixels."""
    return star_image((60, 80), [at[0]], [at[1]], [flux], fwhm=fwhm)


def noisy(images, *, sigma=5.0, seed=9):
    """Images with noise."""
    rng = np.random.default_rng(seed)
    return [image + rng.normal(0, sigma, image.shape) for image in images]


# --- balance -------------------------------------------------------------------------------------


def test_colour_balance_makes_the_typical_star_white():
    """ST-04: without magnitudes the median star is white; without any star there is an error."""
    rng = np.random.default_rng(3)
    base = rng.uniform(1e3, 1e5, 41)
    fluxes = [2 * base, base, base / 4]
    fluxes[0][:5] = np.nan, -1, 0, 1e9, 1e9  # no flux, and two very red stars
    assert colour_balance(*fluxes) == pytest.approx((0.5, 1, 4))
    with pytest.raises(FrameError, match="No star"):
        colour_balance([np.nan], [1.0], [1.0])


def test_colour_balance_zero_points_make_the_sun_white():
    """ST-04: with zero points of AB and Vega filters a star like the Sun is white, others not.

    The noise of a star's centre is 5 of some 1e3 counts: well below one of 255 levels.
    """
    bands = [("I", "Cousins Vega"), ("r", "SDSS AB"), ("B", "Johnson Vega")]
    zero_points, white = [20.0, 23.0, 21.0], [sun_magnitude(*band) for band in bands]
    scale = zero_point_balance(zero_points, white=white)
    assert scale[1] == 1
    sun = [star(10 ** (0.4 * (z - m - 28)) * 1e3) for z, m in zip(zero_points, white, strict=True)]
    picture = colour_image(*noisy(sun), scale=scale).astype(int)
    assert np.ptp(picture[MIDDLE]) <= 2
    assert picture[MIDDLE].min() > 150
    # With the AB magnitude of the Sun in I the same star would be red by 0.41 mag.
    wrong = zero_point_balance(zero_points, white=[-27.06, *white[1:]])
    assert wrong[0] / scale[0] == pytest.approx(10 ** (0.4 * 0.41), rel=1e-6)
    red = [sun[0] * 2.5, sun[1], sun[2] / 2.5]
    picture = colour_image(*noisy(red), scale=scale).astype(int)
    assert picture[MIDDLE][0] > picture[MIDDLE][1] + 50 > picture[MIDDLE][2] + 100


def test_colour_balance_of_two_images_and_wrong_numbers():
    """ST-04: an image that is not there has the factor 1; numbers that fail are named."""
    assert zero_point_balance([25.0, None, 22.5], white=[-27, None, -27]) == pytest.approx(
        (1, 1, 10)
    )
    with pytest.raises(ValueError, match="2 zero points, but 3"):
        zero_point_balance([25.0, 24.0], white=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="finite"):
        zero_point_balance([25.0, np.nan, 24.0], white=[1.0, 2.0, 3.0])
    with pytest.raises(DataredError, match=r"'V' of the system 'SDSS AB'.*Johnson Vega: U B V"):
        sun_magnitude("V", "SDSS AB")


def test_colour_sun_agrees_with_published_transformations():
    """ST-04: the Sun of Pan-STARRS, transformed by Tonry et al., is the Sun of the other systems.

    Willmer's magnitudes have errors of 3 to 4 %, the transformations 0.01 to 0.04 mag: 0.06 mag.
    """
    table = Table({band: [value] for band, value in SUN["PS1 AB"].items()})
    for band in table.colnames:
        table[band].meta["system"] = "PS1 AB"
    for name in ("PS1 to SDSS (Tonry 2012)", "PS1 to Johnson-Cousins (Tonry 2012)"):
        other = transform(table, name)
        for band in "griz" if "SDSS" in name else "BVRI":
            known = sun_magnitude(band, other[band].meta["system"])
            assert other[band][0] == pytest.approx(known, abs=0.06), band
    # The colours of the Sun by other authors: Ramirez et al. 2012 (ApJ 752, 5), B-V = 0.653.
    sun = SUN["Landolt Vega"]
    assert sun["B"] - sun["V"] == pytest.approx(0.653, abs=0.03)
    assert sun["V"] - sun["R"] == pytest.approx(0.352, abs=0.05)
    assert sun["V"] - sun["I"] == pytest.approx(0.702, abs=0.03)


def test_catalogue_balance_is_that_of_the_zero_points():
    """ST-04: stars with magnitudes give the zero points; outliers and unknown ones do no harm.

    200 stars with a scatter of 0.05 mag: a median is good to 0.0045 mag.
    """
    rng = np.random.default_rng(4)
    zero_points, white = (22.0, 23.0, 24.5), (-27.05, -26.93, -26.54)
    magnitudes = rng.uniform(12, 16, (3, 200))
    fluxes = 10 ** (0.4 * (np.reshape(zero_points, (3, 1)) - magnitudes))
    magnitudes += rng.normal(0, 0.05, magnitudes.shape)
    magnitudes[0, :20], fluxes[1, :30], fluxes[2, :10] = np.nan, -5.0, 1e12
    scale = catalogue_balance(fluxes, magnitudes, white=white)
    assert scale == pytest.approx(zero_point_balance(zero_points, white=white), rel=0.02)
    two = catalogue_balance(
        [fluxes[0], None, fluxes[2]], [magnitudes[0], None, magnitudes[2]], white=white
    )
    assert two[2] / two[0] == pytest.approx(scale[2] / scale[0])
    with pytest.raises(FrameError, match=r"4 stars.*5 are needed"):
        catalogue_balance(fluxes[:, -4:], magnitudes[:, -4:], white=white)


# --- colour pictures -----------------------------------------------------------------------------


def test_colour_image_balance_and_two_colours():
    """ST-04: white stars are white, red ones red; two images make three channels."""
    base = star(at=(20.0, 30.0))
    red, green, blue = noisy([2 * base, base, base / 2])
    red += star(at=(60.0, 30.0))
    picture = colour_image(red, green, blue, scale=(0.5, 1, 2)).astype(int)
    assert np.ptp(picture[30, 20]) < 12
    assert picture[30, 60, 0] > picture[30, 60, 2] + 100
    two = colour_image(red, None, blue, scale=(0.5, 1, 2)).astype(int)
    assert two.shape == (60, 80, 3)
    assert np.ptp(two[30, 20]) < 12
    # Green is the mean of the two others.
    assert two[30, 60, 1] == pytest.approx(two[30, 60, [0, 2]].mean(), abs=2)
    assert np.mean(picture.max(axis=2) == 255) < 0.01


def test_colour_image_refuses_missing_and_different_images():
    """ST-04: stacks of different sizes, or one image only, are refused with what to do."""
    image = star()
    with pytest.raises(FrameError, match=r"\(50, 80\), \(60, 80\).*one grid"):
        colour_image(image, image[:50], image)
    with pytest.raises(FrameError, match="one grid"):
        colour_image(image, image, image, saturated=np.zeros((3, 3), bool))
    with pytest.raises(FrameError, match="two images"):
        colour_image(image, image, None)
    with pytest.raises(FrameError, match="finite"):
        colour_image(image, image, np.full_like(image, np.nan))


def test_colour_image_lupton_colours_agree_with_astropy():
    """ST-04: the ratios of the channels of bright pixels are those of astropy's Lupton picture.

    Its mapping has another brightness, so only the colours are compared. One level of 255 and the
    black one standard deviation below the sky (1 of 300 counts and more): 3 %.
    """
    images = [1.0 * star(8e4), 1.6 * star(8e4), 0.7 * star(8e4)]
    mine = colour_image(*noisy(images, sigma=1.0), stretch=300.0, softening=2.0).astype(float)
    theirs = make_lupton_rgb(*images, stretch=3000, Q=8).astype(float)
    bright = (images[2] > 300) & (theirs.min(axis=2) > 40)
    assert bright.sum() > 20
    for channel in (0, 2):
        ratio = mine[bright, channel] / mine[bright, 1]
        assert ratio == pytest.approx(theirs[bright, channel] / theirs[bright, 1], rel=0.03)
        assert ratio == pytest.approx([1.0 / 1.6, 0, 0.7 / 1.6][channel], rel=0.03)


def test_colour_sky_levels_match():
    """ST-04: the sky is the same dark grey in all channels, whatever its levels and noises were.

    5000 pixels; a median of some 2 levels of scatter is good to less than one level.
    """
    rng = np.random.default_rng(2)
    images = [rng.normal(level, s, (60, 80)) for level, s in ((900, 4), (-30, 6), (5e4, 12))]
    picture = colour_image(*images, scale=(1.0, 1.0, 0.5))
    middle = np.median(picture, axis=(0, 1))
    assert np.ptp(middle) <= 1
    assert 10 < middle.mean() < 40
    assert np.mean(picture == 255) == 0


def test_colour_saturated_cores_take_the_colour_of_their_rim():
    """ST-04: a red star that is saturated in red has a core of its own colour, not of the rest."""
    base = star(4e5, fwhm=5.0)
    images = noisy([2 * base, base, base / 2])
    full = images[0] > 8e3
    images[0][full] = 8e3
    assert 20 < full.sum() < 200
    burnt = colour_image(*images).astype(float)
    mended = colour_image(*images, saturated=full).astype(float)
    assert burnt[MIDDLE][1] > burnt[MIDDLE][0]
    inside = mended[full]
    assert inside[:, 1] / inside[:, 0] == pytest.approx(0.5, abs=0.05)
    assert inside[:, 2] / inside[:, 0] == pytest.approx(0.25, abs=0.05)
    # The core is as bright as its rim or brighter, and holes in it are no black dots.
    images[0][full] = np.nan
    holes = colour_image(*images, saturated=full).astype(float)
    assert holes[full][:, 0].min() >= holes[30, 46, 0] > 150
    # Where all images have a large hole it gets the brightest light of the core.
    y, x = np.indices(full.shape)
    wide = np.hypot(y - 30, x - 40) < 6
    images = noisy([share * star(4e5, fwhm=7.0) for share in (2, 1, 0.5)])
    for image in images:
        image[wide] = np.nan
    holes = colour_image(*images, saturated=wide).astype(float)
    assert holes[wide][:, 0].min() >= holes[30, 48, 0]
    assert holes[wide][:, 1] / holes[wide][:, 0] == pytest.approx(0.5, abs=0.05)
    # A bad column that is flagged as saturated is no core: it keeps what is there.
    column = np.zeros(full.shape, bool)
    column[:, 5] = True
    for glow in (0.0, 100.0):  # Also in a nebula of 20 standard deviations.
        images = noisy([base + glow * (np.arange(80) < 30)] * 3)
        assert np.array_equal(colour_image(*images), colour_image(*images, saturated=column))


@pytest.mark.parametrize("shares", [(2.0, 1.0, 0.6), (2.0, 2.0, 2.0)])
@pytest.mark.parametrize("flagged", [False, True])
def test_colour_bright_nebula_is_not_burnt_out(shares, flagged):
    """ST-04: where much of an image is bright the picture is darker: 1 % of it is full at most."""
    y, x = np.indices((120, 160))
    glow = 1e5 * np.exp(-0.5 * np.square(np.hypot(y - 60, x - 80) / 16))
    full = 2 * glow > 6e4
    images = noisy([np.minimum(share * glow, 6e4) for share in shares])
    picture = colour_image(*images, saturated=full if flagged else None).astype(int)
    assert np.mean(full) > 0.02
    assert np.mean(picture.max(axis=2) == 255) < 0.01
    assert picture.max() > 240
    # Noise of 5 in 1200 counts and more: the colours are those of the nebula.
    rim = (glow > 2e3) & ~full
    for channel in (1, 2):
        right = shares[channel] / shares[0]
        assert picture[rim, channel] / picture[rim, 0] == pytest.approx(right, abs=0.02)


def test_colour_images_that_do_not_overlap_make_a_black_picture():
    """ST-04: where no pixel has a value in all images there is no light to show."""
    images = noisy([star(), star(), star()])
    images[0][:, :50] = images[2][:, 30:] = np.nan
    assert not colour_image(*images).any()


def test_colour_holes_are_filled_and_borders_black():
    """ST-04: missing pixels and columns are filled; where one image has nothing it is black."""
    whole = noisy([star(), star(), star()])
    images = [image.copy() for image in whole]
    images[0][:, 39] = images[0][:, 60:63] = np.nan
    images[1][31, 41] = np.nan
    images[2][:20] = np.nan
    before = [image.copy() for image in images]
    picture = colour_image(*images)
    assert (picture[:17] == 0).all()
    true, filled = (p.astype(int)[25:36, 35:46] for p in (colour_image(*whole), picture))
    # Beside the top of a star of FWHM 4 the mean of the neighbours is a fifth too low.
    assert np.abs(true - filled).max() < 50
    assert filled[5, 5].min() > 180
    assert np.median(picture[25:55, 61]) > 10
    # A column below the sky is a defect, not a dark line.
    for image in whole:
        image[20:, 5] = -60.0
    column = colour_image(*whole)[25:55, 5].astype(int)
    assert np.median(column) > 10
    assert column.max() < 60
    for image, old in zip(images, before, strict=True):
        assert np.array_equal(image, old, equal_nan=True)


def test_colour_stars_have_no_rims_where_the_seeing_differs():
    """ST-04: a white star with other widths in the filters is white from the core to the wing."""
    widths = (3.0, 3.6, 4.2)
    images = noisy([star(2e5, fwhm=width) for width in widths])
    y, x = np.indices((60, 80))
    near = np.hypot(y - 30, x - 40) < 5
    plain = colour_image(*images).astype(int)[near]
    even = colour_image(*images, fwhm=widths).astype(int)[near]
    # The profiles are not Gaussian, so a little is left.
    assert np.ptp(plain, axis=1).max() > 60
    assert np.ptp(even, axis=1).max() < 25
    same = colour_image(*images, fwhm=(np.nan, 3.6, 4.2))
    assert np.array_equal(same, colour_image(*images))


def test_colour_noise_is_grey_but_faint_light_keeps_its_colour(monkeypatch):
    """ST-04: the grain of the sky has little colour; a nebula below the noise keeps its own."""
    y, x = np.indices((120, 160))
    glow = np.hypot(y - 60, x - 80) < 30
    images = noisy([5.0 * glow, 2.5 * glow, 0.0 * glow], sigma=5.0)
    quiet = colour_image(*images).astype(float)
    monkeypatch.setattr(pictures, "TRUSTED", 1e-3)
    loud = colour_image(*images).astype(float)
    colour = [np.std(p[~glow][:, 0] - p[~glow][:, 2]) for p in (quiet, loud)]
    light = [np.std(p[~glow].mean(axis=1)) for p in (quiet, loud)]
    assert colour[0] < 0.5 * colour[1]
    assert light[0] == pytest.approx(light[1], rel=0.1)
    # S/N 1, 0.5 and 0 of a pixel; their levels are those of so much more light.
    inside = quiet[glow].mean(axis=0) - quiet[~glow].mean(axis=0)
    assert inside[0] > 10
    assert inside[1] / inside[0] == pytest.approx(0.5, abs=0.15)
    assert abs(inside[2]) < 0.3 * inside[0]


def test_colour_image_is_the_same_in_any_groups(monkeypatch):
    """ST-04: rows are worked on in groups; where a group ends is not seen."""
    images = noisy([star(), star(), star()])
    whole = colour_image(*images)
    monkeypatch.setattr(pictures, "GROUP", 80 * 7)
    # Sums in another order differ in the last bit: one level where a number is rounded.
    assert np.abs(whole.astype(int) - colour_image(*images)).max() <= 1


# --- grey pictures -------------------------------------------------------------------------------


def test_gray_png_does_not_depend_on_the_offset():
    """ST-05: a constant added to the image changes no grey; an empty sky is not stretched."""
    rng = np.random.default_rng(10)
    image = rng.normal(0, 5, (60, 80)) + star(2e4)
    assert np.array_equal(gray_image(image), gray_image(image + 1000.0))
    assert np.array_equal(gray_image(image), gray_image(7 * image))
    assert gray_image(image).max() == 255
    assert np.mean(gray_image(image) == 255) < 0.01
    assert np.median(gray_image(rng.normal(0, 5, (60, 80)))) < 80
    with pytest.raises(FrameError, match="finite"):
        gray_image(np.full((4, 4), np.nan))


def test_gray_png_of_any_kind_of_numbers():
    """ST-05: whole numbers, other byte orders and masked pixels give the picture of the floats."""
    image = np.round(noisy([star(2e4) + 500.0])[0])
    grey = gray_image(image)
    for kind in ("u2", ">i2", "i8", "f4", ">f4"):
        assert np.array_equal(gray_image(image.astype(kind)), grey), kind
    masked = image > 520
    holes = gray_image(np.where(masked, np.nan, image))
    for kind in (int, float):
        assert np.array_equal(gray_image(np.ma.array(image, kind, mask=masked)), holes)


def test_gray_png_shows_faint_stars_beside_bright_ones():
    """ST-05: a star of 10 standard deviations is seen well whatever the brightest star is."""
    for flux in (1e4, 1e6):
        image = noisy([star(flux) + star(1000.0, at=(15.0, 15.0))])[0]
        grey = gray_image(image).astype(int)
        assert grey[15, 15] > np.median(grey) + 30
        assert grey[MIDDLE] > grey[15, 15] + 40
        assert 5 < np.median(grey) < 60
    holes = image.copy()
    holes[30, 39:42], holes[:, -10:] = np.nan, np.nan
    holes[:, 5] = -60.0
    grey = gray_image(holes)
    assert grey[MIDDLE] > 200
    assert (grey[:, -7:] == 0).all()
    assert np.median(grey[:, 5]) > 5


# --- files ---------------------------------------------------------------------------------------


def test_png_top_up_and_bounded(tmp_path, monkeypatch):
    """ST-04, ST-05: the top of the sky image is up; a large picture is binned by a whole factor."""
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[50:, :10] = 200, 100, 50
    write_png(picture, tmp_path / "a.png", title="A title")
    there = imread(tmp_path / "a.png")
    assert there.shape[:2] == (60, 80)
    assert 255 * there[0, 0, :3] == pytest.approx([200, 100, 50])
    assert there[-1, 0, :3].max() == 0
    assert b"A title" in (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(pngfile, "LONGEST", 30)
    write_png(picture, tmp_path / "a.png")
    there = 255 * imread(tmp_path / "a.png")[..., :3]
    assert there.shape == (20, 26, 3)
    assert there[0, 0] == pytest.approx([200, 100, 50])
    # Row 3 from the top has one of three rows with light, column 3 one of three.
    assert there[3, 0] == pytest.approx([67, 33, 17], abs=1)
    write_png(picture[..., 0], tmp_path / "g.png")
    grey = 255 * imread(tmp_path / "g.png")
    assert grey.reshape(20, 26, -1)[0, 0, 0] == pytest.approx(200)


@pytest.mark.parametrize("shape", [(3, 9000), (9000, 3), (1, 5)])
def test_png_of_a_strip(tmp_path, shape):
    """ST-05: a strip narrower than the factor that it is binned by is a picture, with axes, too."""
    picture = np.full((*shape, 3), 60, np.uint8)
    write_png(picture, tmp_path / "strip.png")
    there = 255 * imread(tmp_path / "strip.png")[..., :3]
    factor = max(1, max(shape) // 1800)
    assert there.shape[:2] == tuple(max(1, n // factor) for n in shape)
    assert there.min() == there.max() == pytest.approx(60)
    write_png(picture, tmp_path / "axes.png", wcs=make_wcs())
    assert min(imread(tmp_path / "axes.png").shape[:2]) > 80
    with pytest.raises(FrameError, match="no pixels"):
        write_png(picture[:, :0], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("factor", [1, 2])
def test_png_with_sky_axes(tmp_path, monkeypatch, factor):
    """ST-04: the picture is inside the axes pixel by pixel, also when it is binned."""
    picture = np.zeros((*SHAPE, 3), np.uint8)
    picture[100:120, 40:60] = 0, 255, 0
    monkeypatch.setattr(pngfile, "LONGEST_AXES", SHAPE[1] // factor)
    write_png(picture, tmp_path / "axes.png", wcs=make_wcs(), title="DR 1: red i, blue g")
    there = imread(tmp_path / "axes.png")[..., :3]
    ny, nx = SHAPE[0] // factor, SHAPE[1] // factor
    assert there.shape == (60 + ny + 45, 100 + nx + 30, 3)
    inside = there[45 : 45 + ny, 100 : 100 + nx][::-1]
    block = (inside == (0, 1, 0)).all(axis=2)
    rows, columns = np.nonzero(block)
    assert (rows.min(), rows.max() + 1) == (100 // factor, 120 // factor)
    assert (columns.min(), columns.max() + 1) == (40 // factor, 60 // factor)
    assert block.sum() == (20 // factor) ** 2


def test_png_does_not_depend_on_the_style(tmp_path):
    """ST-04: the style of a user, or of the book, changes nothing and makes no warning."""
    picture = np.zeros((*SHAPE, 3), np.uint8)
    write_png(picture, tmp_path / "a.png", wcs=make_wcs(), title="A title")
    style = {"figure.constrained_layout.use": True, "axes.grid": True, "font.size": 20}
    with rc_context(style):
        write_png(picture, tmp_path / "b.png", wcs=make_wcs(), title="A title")
        write_png(picture, tmp_path / "plain.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("angle", [0, 90, 180, 215])
@pytest.mark.parametrize("mirrored", [False, True])
def test_sky_picture_points_to_the_north_and_east(angle, mirrored):
    """ST-04: letters and bar agree with the WCS, whatever way up the camera was."""
    wcs = make_wcs(angle=angle, mirrored=mirrored)
    ax = sky_picture(np.zeros(SHAPE, np.uint8), wcs)
    texts = {text.get_text(): np.array(text.get_position()) for text in ax.texts}
    assert set(texts) == {"N", "E", "30 arcsec"}  # The field is 200 arcsec wide.
    lines = [np.transpose(line.get_data()) for line in ax.lines]
    corner = lines[0][0]
    sky = {k: wcs.pixel_to_world(*p) for k, p in (*texts.items(), ("corner", corner))}
    for name, position_angle in (("N", 0), ("E", 90)):
        found = sky["corner"].position_angle(sky[name]).deg
        assert abs((found - position_angle + 180) % 360 - 180) < 2
        assert (texts[name] > 0).all() and (texts[name] < (SHAPE[1], SHAPE[0])).all()
    # Of a binned picture the axes have the pixels of the WCS.
    half = sky_picture(np.zeros((SHAPE[0] // 2, SHAPE[1] // 2), np.uint8), wcs, factor=2)
    assert half.get_xlim() == ax.get_xlim() == (-0.5, SHAPE[1] - 0.5)
    assert half.images[0].get_extent() == ax.images[0].get_extent()
    ends = wcs.pixel_to_world(*lines[2].T)
    assert ends[0].separation(ends[1]).arcsec == pytest.approx(30, rel=0.02)


# --- nights --------------------------------------------------------------------------------------

#: Zero points of the stacks of the night in the tests.
ZERO_POINTS = {"i": 25.5, "r": 26.0, "g": 25.0}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder with stacks in i, r, g of 36 stars, the first like the Sun, and their magnitudes."""
    folder = tmp_path_factory.mktemp("stacks")
    rng = np.random.default_rng(12)
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(20, 180, 6), np.linspace(20, 130, 6)))
    ra, dec = make_wcs().all_pix2world(x, y, 0)
    redder = rng.uniform(0.2, 1.5, x.size)
    redder[0] = 0
    table = Table({"star": np.arange(x.size), "ra": ra, "dec": dec})
    for name, share in (("i", 0.0), ("r", 0.3), ("g", 1.0)):
        sun = SUN["PS1 AB"]
        table[name] = 16 + sun[name] - sun["r"] + share * redder - 4 * (redder == 0)
        table[name].meta["system"] = "PS1 AB"
        table[f"{name}_err"] = 0.01
        flux = 10 ** (0.4 * (ZERO_POINTS[name] - np.asarray(table[name])))
        frame = make_frame(make_wcs(), (ra, dec, flux), sigma=1.0, rng=rng)
        frame.meta.update({"FILTER": name, "EXPTIME": 60.0})
        write_product(frame, folder / "stack" / f"{name}.fits")
    table.write(folder / "magnitudes.ecsv", format="ascii.ecsv")
    return folder


@pytest.fixture
def made(written, tmp_path):
    """Give the paths of copies of the stacks, by their filters."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return {name: tmp_path / "stack" / f"{name}.fits" for name in ZERO_POINTS}


def night_of(made, **options):
    """Night whose stacks these are."""
    work = made["r"].parents[1]
    stack = StackOptions(**options)
    return Night(name="t", raw=work, work=work, camera=Camera(gain=1.5), object="DR 1", stack=stack)


def picture_of(night):
    """Pixels of the colour picture, row 0 at the bottom."""
    return np.round(255 * imread(night.work / "stack" / "colour.png")[::-1, :, :3]).astype(int)


def scale_of(night):
    """Factors and words in the record of the colour picture."""
    record = Manifest(night.work).products["stack/colour.png"]["result"]
    return record["scale"], record["white"]


#: What 36 stars of S/N 100 and more must give, to 1 %.
RIGHT = zero_point_balance(
    list(ZERO_POINTS.values()), white=[SUN["PS1 AB"][name] for name in ZERO_POINTS]
)


def test_write_pictures_with_the_magnitudes_of_the_night(made, caplog):
    """ST-04, ST-05: all pictures are there; the star like the Sun is white, the title says so."""
    night = night_of(made)
    with caplog.at_level(logging.INFO, "datared"):
        paths = write_pictures(night, made)
    names = [path.name for path in paths]
    assert names == ["i.png", "r.png", "g.png", "colour.png", "colour_axes.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)
    scale, white = scale_of(night)
    assert scale == pytest.approx(RIGHT, rel=0.01)
    title = "DR 1: red i, green r, blue g; white: a star like the Sun (magnitudes of the night)"
    assert title in caplog.text and white in title
    assert title.encode() in (night.work / "stack" / "colour_axes.png").read_bytes()
    picture = picture_of(night)
    # The first star is at 20, 20; S/N of its centre is more than 50, of 255 levels.
    assert np.ptp(picture[20, 20]) <= 8
    red = picture[130, 180]
    assert red[0] > red[2] + 20
    assert np.mean(picture.max(axis=2) == 255) < 0.01
    assert np.median(picture) < 60


def test_write_pictures_with_the_catalogue(made):
    """ST-04: without magnitudes of the night those of the catalogue make the Sun white."""
    night = night_of(made)
    table = Table.read(night.work / "magnitudes.ecsv", format="ascii.ecsv")
    (night.work / "magnitudes.ecsv").unlink()
    names = ("i", "r", "g", "i_err", "r_err", "g_err")
    table.rename_columns(names, [f"cat_{name}" for name in names])
    table.write(night.work / "stars.ecsv", format="ascii.ecsv")
    write_pictures(night, made)
    scale, white = scale_of(night)
    assert scale == pytest.approx(RIGHT, rel=0.01)
    assert white == "a star like the Sun (magnitudes of the catalogue)"


def test_write_pictures_with_a_catalogue_of_other_bands(made):
    """ST-04: a catalogue of Gaia is transformed, and the Sun is that of the bands that come out.

    The stars of Gaia are those that the transformation brings to the magnitudes of the stacks.
    """
    night = night_of(made, colour=("r", "g"))
    ours = Table.read(night.work / "magnitudes.ecsv", format="ascii.ecsv")
    (night.work / "magnitudes.ecsv").unlink()

    def gaia(colour, bright):
        stars = Table({"cat_G": bright, "cat_BP": bright + colour, "cat_RP": bright + 0 * colour})
        for name in stars.colnames:
            stars[name].meta["system"] = "Gaia Vega"
        return stars

    name = "Gaia DR3 to SDSS (Carrasco 2022)"
    colours = np.linspace(0.4, 2.0, 500)
    sloan = transform(gaia(colours, np.zeros(500)), name, prefix="cat_")
    wanted = np.asarray(ours["g"] - ours["r"])
    rows = np.searchsorted(np.asarray(sloan["cat_g"] - sloan["cat_r"]), wanted).clip(0, 499)
    stars = gaia(colours[rows], np.asarray(ours["r"] - sloan["cat_r"][rows]))
    stars["ra"], stars["dec"] = ours["ra"], ours["dec"]
    stars.write(night.work / "stars.ecsv", format="ascii.ecsv")
    write_pictures(night, made)
    scale, white = scale_of(night)
    assert white == "a star like the Sun (magnitudes of the catalogue)"
    sun = SUN["SDSS AB"]
    right = zero_point_balance(
        [ZERO_POINTS["r"], None, ZERO_POINTS["g"]], white=[sun["r"], None, sun["g"]]
    )
    assert scale == pytest.approx(right, rel=0.01)


def test_write_pictures_without_magnitudes_makes_the_typical_star_white(made):
    """ST-04: magnitudes without a system are no magnitudes; the picture says what is white."""
    night = night_of(made)
    table = Table.read(night.work / "magnitudes.ecsv", format="ascii.ecsv")
    for name in "irg":
        table[name].meta["system"] = "instrumental"
    table.write(night.work / "magnitudes.ecsv", format="ascii.ecsv", overwrite=True)
    write_pictures(night, made)
    scale, white = scale_of(night)
    assert white == "the typical star"
    # Half of the stars are redder than 0.85 in g - i: blue is lifted for them.
    colour = np.median(np.asarray(table["g"] - table["r"])) - (-26.54 + 26.93)
    assert scale[2] / RIGHT[2] == pytest.approx(10 ** (0.4 * colour), rel=0.03)


def test_write_pictures_where_no_star_has_a_magnitude(made, caplog):
    """ST-04: lists without a star on the stacks, and stacks without stars, make a picture, too."""
    night = night_of(made)
    table = Table.read(night.work / "magnitudes.ecsv", format="ascii.ecsv")
    table["dec"] = -table["dec"]
    table.write(night.work / "magnitudes.ecsv", format="ascii.ecsv", overwrite=True)
    table[:0].write(night.work / "stars.ecsv", format="ascii.ecsv")
    assert len(write_pictures(night, made)) == 5
    assert scale_of(night)[1] == "the typical star"
    for path in made.values():
        frame = read_product(path)
        frame.data[:] = np.random.default_rng(5).normal(0, 1, frame.shape)
        write_product(frame, path)
    with caplog.at_level(logging.INFO, "datared"):
        assert len(write_pictures(night, made)) == 5
    assert scale_of(night) == ([1.0, 1.0, 1.0], "equal counts")
    assert "0 stars have a flux and a magnitude" in caplog.text


def test_write_pictures_of_two_filters_and_of_one(made, caplog):
    """ST-04: two filters make a two-colour picture; one, or unknown ones, none but a reason."""
    night = night_of(made, colour=("i", "g"))
    write_pictures(night, made)
    scale, _ = scale_of(night)
    assert scale == pytest.approx((1, 1, RIGHT[2] / RIGHT[0]), rel=0.01)
    picture = picture_of(night)
    assert np.ptp(picture[20, 20]) <= 8
    for options, stacks, words in (
        ({}, {"r": made["r"]}, "it needs two filters"),
        ({"colour": ("i", "V")}, made, "stack.colour names V, of which there is no stack"),
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO, "datared"):
            paths = write_pictures(night_of(made, **options), stacks)
        assert [path.name for path in paths] == [f"{name}.png" for name in stacks]
        assert words in caplog.text


def test_write_pictures_is_current_the_second_time(made):
    """ST-04: nothing is made again until the stacks or the magnitudes change."""
    night = night_of(made)
    paths = write_pictures(night, made)
    before = [path.stat().st_mtime_ns for path in paths]
    assert write_pictures(night, made) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    table = Table.read(night.work / "magnitudes.ecsv", format="ascii.ecsv")
    table["g"] = table["g"] + 0.5
    table.write(night.work / "magnitudes.ecsv", format="ascii.ecsv", overwrite=True)
    first = scale_of(night)[0][2]
    write_pictures(night, made)
    assert scale_of(night)[0][2] / first == pytest.approx(10**-0.2, rel=1e-3)
    assert [path.stat().st_mtime_ns for path in paths][:3] == before[:3]


def test_write_pictures_of_stacks_of_other_sizes(made, caplog):
    """ST-04: stacks of different sizes make no colour picture; the grey ones are there."""
    frame = read_product(made["g"])
    write_product(frame[:100], made["g"])
    paths = write_pictures(night_of(made), made)
    assert [path.name for path in paths] == ["i.png", "r.png", "g.png"]
    assert "one grid" in caplog.text


def expose(path, number, covered, *, exptime=60.0):
    """Write the exposure map of a stack of so many frames, of which these cover a pixel."""
    stack = read_product(path)
    stack.meta["NCOMBINE"], stack.meta["EXPTIME"] = number, number * exptime
    write_product(stack, path)
    seconds = CCDData(exptime * np.asarray(covered, np.float32), unit="s", wcs=make_wcs())
    write_product(seconds, path.with_name(f"{path.stem}_exposure.fits"))


#: Frames of the stack, frames at its border and in one pixel inside, what is black then.
COVERED = {
    "five, two": (5, 2, 5, True),
    "five, three": (5, 3, 1, False),
    "three, one": (3, 1, 2, True),
    "three, two": (3, 2, 2, False),
    "two, one": (2, 1, 2, False),
}


@pytest.fixture
def painted(monkeypatch):
    """Pictures by their names; nothing is drawn."""
    pictures_made = {}

    def keep(picture, path, **_):
        pictures_made[path.name] = picture.astype(int)
        path.write_bytes(b"")

    monkeypatch.setattr(nightpictures, "write_png", keep)
    return pictures_made


@pytest.mark.parametrize("case", COVERED)
def test_write_pictures_show_no_cosmic_rays_where_few_frames_overlap(made, painted, case):
    """ST-04: a cosmic ray that nothing can clip is no coloured dot; the border is black there."""
    number, border, inside, black = COVERED[case]
    covered = np.full(SHAPE, number)
    covered[:, :20], covered[75, 100] = border, inside
    stack = read_product(made["r"])
    stack.data[70:73, 5:8] = 5e3
    write_product(stack, made["r"])
    write_pictures(night_of(made), made)
    without = painted["colour.png"]
    assert np.ptp(without[71, 6]) > 100  # Without a map all is shown: a green dot.
    for path in made.values():
        expose(path, number, np.full(SHAPE, number))
    expose(made["r"], number, covered)
    write_pictures(night_of(made), made)
    picture = painted["colour.png"]
    # Three pixels at the rim are filled. The white star is cut there, and still white.
    assert (picture[:, :17] == 0).all() == black
    assert np.ptp(picture[20, 17:22], axis=1).max() < 10
    start = 25 if black else 0
    assert np.abs(picture - without)[:, start:90].max() <= 2
    assert picture[75, 100].min() > 0  # A hole is filled.
    assert scale_of(night_of(made))[0] == pytest.approx(RIGHT, rel=0.01)


@pytest.mark.parametrize("parts", [[(0, 70)] * 3, [(0, 110), (55, 165), (90, 200)]])
def test_write_pictures_of_a_mosaic_are_not_black(made, painted, parts):
    """ST-04: where few frames overlap nearly everywhere, in one filter or another, all is shown."""
    for path, (start, stop) in zip(made.values(), parts, strict=True):
        covered = np.ones(SHAPE)
        covered[:, start:stop] = 4
        expose(path, 6, covered)
    write_pictures(night_of(made), made)
    picture = painted["colour.png"]
    assert min(np.median(picture[:, :50]), np.median(picture[:, 150:])) > 5


def test_write_pictures_knows_saturated_cores(made):
    """ST-04: the flags of the stacks tell which cores are saturated."""
    frame = read_product(made["i"])
    peak = frame.data[18:23, 18:23]
    full = peak > 0.3 * peak.max()
    peak[full] = 0.3 * peak.max()
    flags = frame.flags.copy()
    flags[18:23, 18:23][full] = SATURATED
    frame.flags = flags
    night = night_of(made)
    write_product(frame, made["i"])
    write_pictures(night, made)
    assert np.ptp(picture_of(night)[20, 20]) <= 20


def test_write_pictures_does_not_measure_saturated_stars(made):
    """ST-04: stars that lost half of their light to saturation in one filter make no balance."""
    x, y = make_wcs().all_world2pix(
        *Table.read(made["g"].parents[1] / "magnitudes.ecsv")["ra", "dec"].columns.values(), 0
    )
    frame = read_product(made["g"])
    flags = frame.flags.copy()
    for i, j in np.rint(np.transpose([x, y])[10:]).astype(int):
        frame.data[j - 6 : j + 7, i - 6 : i + 7] /= 2
        flags[j, i] = SATURATED
    frame.flags = flags
    write_product(frame, made["g"])
    night = night_of(made)
    write_pictures(night, made)
    assert scale_of(night)[0] == pytest.approx(RIGHT, rel=0.02)


def test_colour_filters_by_their_wavelengths():
    """ST-04: three filters from red to blue, by their wavelengths and not by their names."""
    assert colour_filters(["B", "V", "R", "I"]) == ("I", "V", "B")
    assert colour_filters(["g'", "SDSS r", "i"]) == ("i", "SDSS r", "g'")
    assert colour_filters(["OIII", "H-alpha", "S II"]) == ("S II", "H-alpha", "OIII")
    assert colour_filters(["Red", "Green", "Blue", "Clear"]) == ("Red", "Green", "Blue")
    assert colour_filters(["clear", "r"]) == ()
