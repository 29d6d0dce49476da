"""Tests of the rooms sources and shapes: what is found, where, and how wide."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from astropy.table import Table
from scipy.spatial import cKDTree

from datared import pixels
from datared.errors import FrameError
from datared.render import star_image
from datared.sources import (
    BAD_PIXEL,
    EDGE,
    METHODS,
    NEIGHBOUR,
    SATURATED,
    best_reference,
    centroid_windowed,
    detect,
    field_fwhm,
    rank_frames,
)

NOISE = 12.0


def field(n, *, fwhm=3.0, flux=(4.0, 5.0), sky=2000.0, shape=(500, 640), seed=1, beta=3.5, step=40):
    """Frame with ``n`` stars jittered on a grid (no blends), and x, y, flux."""
    rng = np.random.default_rng(seed)
    grid = np.mgrid[
        step // 2 : shape[0] - step // 2 : step, step // 2 : shape[1] - step // 2 : step
    ]
    y, x = grid.reshape(2, -1).astype(float)
    chosen = rng.permutation(x.size)[:n]
    x, y = (a[chosen] + rng.uniform(-8, 8, len(chosen)) for a in (x, y))
    fluxes = 10 ** rng.uniform(*flux, len(chosen))
    frame = sky + star_image(shape, x, y, fluxes, fwhm=fwhm, beta=beta)
    return frame + rng.normal(0, NOISE, shape), x, y, fluxes


def pair_up(table, x, y, radius=1.5):
    """Rows of the table and indices of the truth that belong together."""
    tree = cKDTree(np.column_stack([x, y]))
    distance, index = tree.query(np.column_stack([table["x"], table["y"]]))
    return np.flatnonzero(distance < radius), index[distance < radius]


@pytest.mark.parametrize("method", METHODS)
def test_detection_recall(method):
    """At S/N 10 at least 95 % of the stars are found and at most 1 % of the sources are false."""
    # The matched filter of a star of flux F has S/N F / sqrt(sum p^2)^-1 / noise; for a Moffat of
    # 3 px (beta 3.5) sum p^2 = 0.038, so F = 10 * 12 / sqrt(0.038) = 620.
    psf = star_image((61, 61), [30.0], [30.0], [1.0], fwhm=3.0)
    flux = np.log10(10 * NOISE / np.sqrt((psf**2).sum()))
    frame, x, y, _ = field(180, flux=(flux, flux + 1e-9))
    table = detect(frame, method=method, fwhm=3.0)
    rows, index = pair_up(table, x, y)
    assert len(set(index)) >= 0.95 * len(x)
    assert len(table) - len(rows) <= 0.01 * len(x) + 1


@pytest.mark.parametrize("method", METHODS)
def test_no_sources_gives_an_empty_table(method):
    """Noise alone gives an empty table with all columns, not None (E32)."""
    frame = np.random.default_rng(3).normal(2000, NOISE, (200, 200))
    table = detect(frame, method=method, nsigma=8)
    assert isinstance(table, Table) and len(table) == 0
    assert {"x", "y", "flux", "peak", "fwhm", "elongation", "snr", "flags"} <= set(table.colnames)
    assert np.isnan(field_fwhm(table)) and np.isnan(table.meta["fwhm"])


def test_e32_no_star_detected_on_constant_frame():
    """A frame without any noise has no star and no error."""
    assert len(detect(np.full((100, 100), 5.0))) == 0


def test_methods_agree():
    """Positions and fluxes of the three methods are the same within the noise."""
    frame, *_ = field(100, flux=(4.3, 5.0))
    tables = [detect(frame, method=method) for method in METHODS]
    assert len({len(table) for table in tables}) == 1
    for table in tables[1:]:
        rows, index = pair_up(table, tables[0]["x"], tables[0]["y"], 0.5)
        assert len(rows) == len(table)
        # The centroids start elsewhere and end at the same place.
        assert np.max(abs(table["x"][rows] - tables[0]["x"][index])) < 0.01
        np.testing.assert_allclose(table["flux"][rows], tables[0]["flux"][index], rtol=0.01)


@pytest.mark.parametrize("fwhm", [3.0, 5.0, 9.0])
@pytest.mark.parametrize("beta", [2.5, 3.5, 60.0])
def test_fwhm_accuracy(fwhm, beta):
    """The width is right to 2 % on a sky of 2000 ADU, for winged and for Gaussian stars."""
    frame, *_ = field(60, fwhm=fwhm, flux=(4.3 + np.log10(fwhm / 3), 5.5), beta=beta, step=60)
    table = detect(frame)
    assert table.meta["fwhm"] == pytest.approx(fwhm, rel=0.02)
    bright = table["snr"] > 100
    assert np.median(table["elongation"][bright]) < 1.1


def test_centroids_as_good_as_the_noise():
    """Centroids of stars scatter like the theory of a matched position: 0.6 FWHM / (S/N)."""
    frame, x, y, flux = field(150, flux=(3.7, 3.8), fwhm=4.0)
    table = detect(frame)
    rows, index = pair_up(table, x, y)
    error = np.concatenate([table["x"][rows] - x[index], table["y"][rows] - y[index]])
    psf = star_image((61, 61), [30.0], [30.0], [1.0], fwhm=4.0)
    slope = np.gradient(psf, axis=1)
    best = NOISE / (np.median(flux) * np.sqrt((slope**2).sum()))  # Cramer-Rao limit of the x axis
    # 300 values fix a standard deviation to 4 %; the window costs up to a fifth.
    assert best * 0.85 < error.std() < 1.35 * best
    assert abs(error.mean()) < 4 * best / np.sqrt(300)


def test_centroid_windowed_is_exact_without_noise():
    """Without noise the centroid is right to a hundredth of a pixel, wherever it starts."""
    image = star_image((60, 60), [30.3], [28.8], [1e4], fwhm=3.0)
    x, y = centroid_windowed(image, [30.0], [29.5], fwhm=3.0)
    assert abs(x[0] - 30.3) < 0.01 and abs(y[0] - 28.8) < 0.01
    x, y = centroid_windowed(np.zeros((60, 60)), [30.0], [29.5], fwhm=3.0)
    assert (x[0], y[0]) == (30.0, 29.5)


def test_hot_pixels_are_no_stars():
    """Hot pixels that outnumber the stars are left out by their sharpness and move no width."""
    frame, x, y, _ = field(40, fwhm=3.0)
    rng = np.random.default_rng(8)
    hot = rng.integers(0, 500, 300), rng.integers(0, 640, 300)
    frame[hot] += rng.uniform(300, 5000, 300)
    table = detect(frame)
    rows, index = pair_up(table, x, y)
    # A hot pixel may sit in a star; two of them side by side may pass for one.
    assert len(set(index)) >= 38 and len(table) - len(rows) <= 3
    assert table.meta["fwhm"] == pytest.approx(3.0, rel=0.03)
    assert len(detect(frame, sharpness=None)) > 200


def test_nan_safe_and_masked_pixels():
    """NaN pixels and masked stars do not appear, the others do; the input stays as it was."""
    frame, x, y, _ = field(60)
    frame[:, 300:304] = np.nan
    mask = np.zeros(frame.shape, bool)
    mask[:120, :120] = True
    copy = frame.copy()
    table = detect(frame, mask=mask)
    np.testing.assert_array_equal(frame, copy)
    outside = ~((x < 122) & (y < 122)) & (abs(x - 302) > 6)
    _, index = pair_up(table, x, y)
    assert set(np.flatnonzero(outside)) <= set(index)
    assert not np.any((table["x"] < 110) & (table["y"] < 110))
    for name in ("x", "y", "flux", "snr"):
        assert np.isfinite(table[name]).all()


def test_flags_from_ccd():
    """Saturated, damaged, edge and close stars carry their bits; a saturated star is one star."""
    x, y = np.array([60.0, 120.0, 180.0, 3.0, 60.0, 66.0]), np.array([60.0, 60, 60, 120, 180, 180])
    flux = np.array([9e6, 5e4, 5e4, 5e4, 5e4, 5e4])
    data = 500 + star_image((240, 240), x, y, flux, fwhm=3.0)
    data += np.random.default_rng(4).normal(0, NOISE, data.shape)
    flags = np.zeros(data.shape, np.uint16)
    flags[data > 60000] = pixels.SATURATED
    flags[61, 121] = pixels.HOT
    data = np.minimum(data, 60000)
    data[61, 121] = 60000
    ccd = CCDData(data.astype(np.float32), unit=u.adu, flags=flags, mask=flags != 0)
    table = detect(ccd)
    tree = cKDTree(np.column_stack([table["x"], table["y"]]))
    distance, row = tree.query(np.column_stack([x, y]))
    assert distance.max() < 0.3
    bits = np.asarray(table["flags"])[row]
    assert bits[0] & SATURATED and bits[1] & BAD_PIXEL and bits[3] & EDGE
    assert bits[2] == 0 and bits[4] & NEIGHBOUR and bits[5] & NEIGHBOUR
    assert len(tree.query_ball_point([60.0, 60.0], 6.0)) == 1


def test_bright_neighbours_do_not_swallow_stars():
    """In a crowd on the wings of bright stars each well separated star is found."""
    rng = np.random.default_rng(6)
    grid = np.mgrid[20:380:30, 20:380:30].reshape(2, -1) + rng.uniform(-4, 4, (2, 144))
    flux = 10 ** rng.uniform(4.0, 4.6, 144)
    flux[::9] *= 50
    frame = 2000 + star_image((400, 400), grid[1], grid[0], flux, fwhm=6.0)
    table = detect(frame + rng.normal(0, NOISE, frame.shape))
    _, index = pair_up(table, grid[1], grid[0])
    assert len(set(index)) >= 0.97 * 144


def test_detect_refuses_bad_options():
    """Unknown methods and senseless numbers are refused."""
    with pytest.raises(ValueError, match="sep, segmentation, dao"):
        detect(np.zeros((50, 50)), method="magic")
    with pytest.raises(ValueError, match="positive"):
        detect(np.zeros((50, 50)), nsigma=0)
    with pytest.raises(FrameError):
        detect(np.zeros(50))


def test_best_reference():
    """The sharp, dark frame with many stars wins, not the cloudy first; it can be overridden."""
    table = Table(
        {
            "file": ["a", "b", "c", "d"],
            "n_stars": [3, 100, 100, 500],
            "fwhm": [3.0, 4.0, 3.0, 2.0],
            "noise": [40.0, 10, 10, 10],
            "status": ["made", "made", "made", "failed"],
        }
    )
    assert best_reference(table) == 2
    assert rank_frames(table)[3] == 0
    assert best_reference(table, override="b") == 1 and best_reference(table, override=-4) == 0
    with pytest.raises(FrameError, match="not among"):
        best_reference(table, override="z")
    with pytest.raises(FrameError, match="no frame"):
        best_reference(table[:0])
