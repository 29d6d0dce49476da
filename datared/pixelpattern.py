"""What the errors of a flat field do to a star that drifts over it: slow noise of a known form."""

import numpy as np
from astropy.table import Table

from .baselines import epoch_mask, measured, numbers

__all__ = ["pattern_columns"]

#: Noise that follows fewer frames than this together is as good as white.
SLOW = 3.0
#: A pattern with less than this many frames in it is lost in the noise of the frames.
LEAST = 1.0
#: Epochs for each column, at least.
EPOCHS_EACH = 5


def pattern_columns(curve, *, used=None):
    r"""Columns that describe the errors of the flat field under a star that drifts.

    The error of each pixel's flat stays the same all night. A star that moves slowly lies on nearly
    the same pixels in one frame and in the next, so it keeps nearly the same error: averaging
    frames does not help. With pixel errors that are independent, and a Gaussian image of standard
    deviation s, the errors of two frames in which the star is d apart have the correlation

    .. math:: \rho(d) = \exp\left(-\frac{d^2}{4 s^2}\right)

    (the overlap of the two images). The columns are the axes of this correlation, each as long as
    its noise: coefficients that are independent and normal with one common standard deviation give
    noise with it. That standard deviation, the error of the flat in one frame, is the same for all
    stars.

    Parameters
    ----------
    curve : astropy.table.Table
        A light curve with ``x``, ``y`` and ``fwhm`` (pixels), n rows.
    used : array_like of bool, shape (n,), optional
        Epochs that are fitted; by default those with a finite flux and a positive error.

    Returns
    -------
    astropy.table.Table
        n rows, columns ``pattern01``, ``pattern02`` ..., the slowest first; 0 in epochs that are
        not used. Their mean is 0, as no fit can tell a pattern that never changes from the star.
        No column where the star moves over new pixels within 3 frames (the noise is white then),
        or does not move at all.

    Examples
    --------
    >>> n = np.arange(100.0)
    >>> curve = Table({"flux": 1 + 0 * n, "flux_err": 0.01 + 0 * n, "fwhm": 3.0 + 0 * n})
    >>> curve["x"], curve["y"] = 0.25 * n, 0 * n
    >>> len(pattern_columns(curve).colnames) > 5
    True
    >>> curve["x"] *= 40
    >>> pattern_columns(curve).colnames
    []
    """
    empty = Table()
    if not {"x", "y", "fwhm"} <= set(curve.colnames):
        return empty
    x, y, fwhm = (numbers(curve, name) for name in ("x", "y", "fwhm"))
    used = measured(curve) & epoch_mask(used, len(curve)) & np.isfinite(x) & np.isfinite(y)
    width = fwhm[used & (fwhm > 0)]
    if used.sum() < 2 * EPOCHS_EACH or not width.size:
        return empty
    x, y = x[used], y[used]
    apart = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    same = np.exp(-apart / (4 * (np.median(width) / 2.3548) ** 2))
    # Without the mean, which is the star's level.
    same = same - same.mean(axis=0) - same.mean(axis=1)[:, None] + same.mean()
    size, axes = np.linalg.eigh(same)
    size, axes = size[::-1], axes[:, ::-1]
    if size[0] < SLOW:
        return empty
    columns = Table()
    for k in range(min(int(np.sum(size > LEAST)), int(used.sum()) // EPOCHS_EACH)):
        value = np.zeros(len(curve))
        # The sign of an axis is free: fixed here, so that results repeat on every machine.
        sign = np.sign(axes[np.argmax(np.abs(axes[:, k])), k])
        value[used] = sign * np.sqrt(size[k]) * axes[:, k]
        columns[f"pattern{k + 1:02}"] = value
    return columns
