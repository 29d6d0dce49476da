"""Epochs that no model is fitted to: see also the outliers in test_detrending.py."""

import numpy as np
from astropy.table import MaskedColumn, Table

from datared.curveflags import flag_outliers
from datared.photometry import BAD_PIXEL, SATURATED


def test_saturated_epochs_are_flagged():
    """LC-03: a saturated star's flux is a lower limit: flagged. A mended pixel is no reason."""
    n = 40
    flux = 1 + np.random.default_rng(3).normal(0, 0.003, n)
    bits = np.zeros(n, int)
    bits[5:9], bits[7], bits[20] = SATURATED, SATURATED | BAD_PIXEL, BAD_PIXEL
    curve = Table(
        {
            "bjd_tdb_mid": 2460000.5 + np.arange(n) / 720,
            "flux": flux,
            "flux_err": np.full(n, 0.003),
            "flags": MaskedColumn(bits, mask=np.arange(n) == 30),
        }
    )
    found = flag_outliers(curve)
    assert np.flatnonzero(found["flagged"]).tolist() == [5, 6, 7, 8]
    assert set(found["reason"][5:9]) == {"saturated"}
