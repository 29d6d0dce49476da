"""Tests of the room levels."""

import numpy as np
import pytest
from astropy.io import fits

from datared.levels import saturation_level
from datared.options import Camera
from datared.rows import ArrayRows, FileRows


def test_saturation_level_comes_from_camera_header_or_type(tmp_path):
    """The night file wins, then SATURATE, then 98 % of the integers."""
    path = tmp_path / "a.fits"
    fits.writeto(path, np.zeros((4, 4), np.uint16))
    assert saturation_level(FileRows(path)) == pytest.approx(0.98 * 65535)
    assert saturation_level(FileRows(path), camera=Camera(saturation=4000)) == 4000
    fits.setval(path, "SATURATE", value="full")
    assert saturation_level(FileRows(path)) == pytest.approx(0.98 * 65535)
    fits.setval(path, "SATURATE", value=50_000)
    assert saturation_level(FileRows(path)) == 50_000
    assert saturation_level(ArrayRows(np.zeros((4, 4), np.uint8))) == pytest.approx(0.98 * 255)
    for dtype in (np.float32, np.int32):
        fits.writeto(path, np.zeros((4, 4), dtype), overwrite=True)
        assert saturation_level(FileRows(path)) is None
