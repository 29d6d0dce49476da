"""Hot pixels of a night without darks: their excess is taken off, a star under it stays."""

import numpy as np
import pytest
from astropy.nddata import CCDData

from datared import pixels
from datared.hotpixels import hot_excess, subtract_hot


@pytest.fixture
def night():
    """Return ``frame(warmth, star)``, the map of a night and the true excess of its hot pixels."""
    rng = np.random.default_rng(8)
    hot = np.zeros((80, 90), bool)
    hot[rng.integers(5, 75, 60), rng.integers(5, 85, 60)] = True
    excess = np.where(hot, rng.uniform(8, 60, hot.shape), 0)
    yy, xx = np.mgrid[:80, :90]

    def frame(warmth, star=None):
        data = 350 + warmth * excess + rng.normal(0, 1.4, hot.shape)
        if star is not None:
            data += 900 * np.exp(-0.5 * ((xx - star[0]) ** 2 + (yy - star[1]) ** 2) / 1.2)
        flags = np.where(hot, pixels.HOT, 0).astype(np.uint16)
        return CCDData(data.astype(np.float32), unit="adu", flags=flags, mask=flags > 0)

    median = np.median([frame(1.0).data for _ in range(25)], axis=0)
    map_ = CCDData(median, unit="adu", flags=np.where(hot, pixels.HOT, 0).astype(np.uint16))
    return frame, map_, excess, hot


def test_hot_pixels_without_darks_are_subtracted(night):
    """PX-02: what is left is the noise, on a colder and a warmer frame; the factor is right.

    The factor is a median of 12 ratios, each known to 1.4 x 1.2 / 50: 1.2 % of it in all.
    """
    frame, map_, _, hot = night
    for warmth in (0.8, 1.0, 1.3):
        ccd = frame(warmth)
        before = ccd.data.copy()
        factor = subtract_hot(ccd, map_)
        assert factor == pytest.approx(warmth, rel=0.05) and ccd.meta["HOTSUB"][0] == factor
        mended = hot & (ccd.flags == 0)
        assert mended.sum() > 0.9 * hot.sum() and not ccd.mask[mended].any()
        left = ccd.data[mended] - 350
        assert np.std(left) < 2.3 and abs(np.mean(left)) < 3 * 1.6 / np.sqrt(len(left))
        assert np.array_equal(ccd.data[~hot], before[~hot])


def test_star_over_a_hot_pixel_keeps_its_light(night):
    """PX-02: the sum of a star on a hot pixel is that without one, to the noise."""
    frame, map_, excess, _ = night
    y, x = np.argwhere(excess == excess.max())[0]
    ccd = frame(1.1, star=(x + 0.3, y - 0.2))
    subtract_hot(ccd, map_)
    yy, xx = np.mgrid[:80, :90]
    inside = np.hypot(xx - x - 0.3, yy - y + 0.2) < 5
    total = np.sum(ccd.data[inside] - 350)
    # 2 pi sigma^2 of the profile; 78 pixels of noise 1.4, and hot pixels known to a few percent.
    assert total == pytest.approx(900 * 2 * np.pi * 1.2, abs=4 * 1.4 * 9)


def test_unsteady_and_saturated_pixels_stay_flagged(night):
    """PX-02: an excess far above the noise, and a saturated pixel, are left as they are."""
    frame, map_, _, hot = night
    rows = np.argwhere(hot)
    map_.data[tuple(rows[0])] += 5000
    ccd = frame(1.0)
    ccd.flags[tuple(rows[1])] |= pixels.SATURATED
    before = ccd.data.copy()
    subtract_hot(ccd, map_)
    for row in rows[:2]:
        assert ccd.data[tuple(row)] == before[tuple(row)] and ccd.flags[tuple(row)] & pixels.HOT
    nothing = CCDData(map_.data, unit="adu", flags=np.zeros(hot.shape, np.uint16))
    assert np.isnan(subtract_hot(frame(1.0), nothing))


def test_excess_is_against_good_neighbours():
    """PX-02: a hot neighbour does not lower the excess; in a corner three pixels are enough."""
    image = np.full((6, 6), 10.0)
    hot = np.zeros((6, 6), bool)
    hot[2, 2] = hot[2, 3] = hot[0, 0] = True
    image[hot] = [25, 40, 90]
    assert hot_excess(image, hot).tolist() == [15, 30, 80]
    assert np.isnan(hot_excess(np.ones((3, 3)), np.ones((3, 3), bool))).all()


def test_whole_counts_stay_whole(night):
    """PX-02: the median of a sky of whole counts, found by its equal values, does not jump."""
    frame, map_, _, hot = night
    ccd = frame(1.07)
    ccd.data = np.rint(ccd.data)
    subtract_hot(ccd, map_)
    assert np.array_equal(ccd.data, np.rint(ccd.data)) and (ccd.flags[hot] == 0).any()
    broken = frame(1.07)
    subtract_hot(broken, map_)
    assert not np.array_equal(broken.data, np.rint(broken.data))


def test_sharp_star_that_did_not_drift_keeps_its_light(night):
    """PX-02: a star of FWHM 1.5 px that looks like a hot pixel stays as it is, and flagged."""
    frame, map_, _, _ = night
    yy, xx = np.mgrid[:80, :90]
    star = 60 * np.exp(-0.5 * ((xx - 40) ** 2 + (yy - 30) ** 2) / (1.5 / 2.355) ** 2)
    ccd = frame(1.0)
    ccd.data += star.astype(np.float32)
    map_.data = map_.data + star
    for flagged in (map_, ccd):
        flagged.flags[28:33, 38:43] = 0
        flagged.flags[30, 40] = pixels.HOT
    before = ccd.data[30, 40]
    subtract_hot(ccd, map_)
    assert ccd.data[30, 40] == before and ccd.flags[30, 40] == pixels.HOT


def test_star_over_one_of_few_hot_pixels_does_not_set_the_factor():
    """PX-02: four hot pixels, a star over the brightest: the median of all four tells the factor.

    Noise of 1 under excesses of 40 to 100 in five frames: 2 % and less of each ratio.
    """
    rng = np.random.default_rng(4)
    clean = np.full((60, 60), 100.0)
    places = [(10, 10), (10, 40), (40, 10), (40, 40)]
    flags = np.zeros((60, 60), np.uint16)
    for place, excess in zip(places, (100, 80, 60, 40), strict=True):
        clean[place] += excess
        flags[place] = pixels.HOT
    noise = rng.normal(size=(6, 60, 60))
    map_ = CCDData(np.median(clean + noise[:5], axis=0), unit="adu", flags=flags)
    data = (clean + noise[5]).astype(np.float32)
    yy, xx = np.mgrid[:60, :60]
    data += (900 * np.exp(-0.5 * ((xx - 10) ** 2 + (yy - 10) ** 2) / 1.2)).astype(np.float32)
    ccd = CCDData(data, unit="adu", flags=flags.copy(), mask=flags > 0)
    assert subtract_hot(ccd, map_) == pytest.approx(1.0, abs=0.06)
    # A frame in which they are not hot at all is left alone.
    cold = CCDData((200 - clean).astype(np.float32), unit="adu", flags=flags.copy())
    before = cold.data.copy()
    assert np.isnan(subtract_hot(cold, map_)) and np.array_equal(cold.data, before)
