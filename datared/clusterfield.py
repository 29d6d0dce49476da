"""Stars for the fit of an isochrone: which ones, between which limits, and the field behind."""

from dataclasses import dataclass

import numpy as np

from .errors import DataredError

__all__ = ["Stars", "cluster_sample", "field_density"]

FEWEST = 20  # stars of a fit
LEAST = 0.02  # membership below which a star tells nothing of the cluster
LARGEST_ERROR = 0.1  # mag, at the faint limit
FLAT = 0.1  # share of the field that is spread evenly: strange stars are everywhere
ENOUGH_FIELD = 30  # field stars for a density in all dimensions


@dataclass(frozen=True, eq=False)
class Stars:
    """Stars of a fit, in rising order of the band that has the limits.

    Attributes
    ----------
    rows : numpy.ndarray of int, shape (n,)
        Rows of the table.
    magnitudes, variance : numpy.ndarray, shape (n, n_band)
        Magnitudes and squares of their errors.
    probability, field : numpy.ndarray, shape (n,)
        Membership, and density of the field (per mag to the number of bands).
    band : int
        Index of the band that has the limits.
    limits : numpy.ndarray, shape (4,)
        Bright and faint limit, and typical errors there.
    """

    rows: np.ndarray
    magnitudes: np.ndarray
    variance: np.ndarray
    probability: np.ndarray
    field: np.ndarray
    band: int
    limits: np.ndarray

    def thinned(self, n):
        """Return about n of the stars, evenly along the sequence."""
        keep = np.unique(np.linspace(0, len(self.rows) - 1, n).astype(int))
        parts = ("rows", "magnitudes", "variance", "probability", "field")
        chosen = {name: np.ascontiguousarray(getattr(self, name)[keep]) for name in parts}
        return Stars(**chosen, band=self.band, limits=self.limits)


def cluster_sample(table, *, bands, membership=None, limits=None):
    """Choose the stars of a fit and compute the density of the field at each.

    Parameters
    ----------
    table, bands, membership, limits
        As in `datared.clusterfit.fit_isochrone`.

    Returns
    -------
    Stars
        The stars between the limits whose membership is 0.02 or more.

    Raises
    ------
    DataredError
        When fewer than 20 stars are left.
    """
    columns = [np.ma.filled(np.ma.asarray(table[name], float), np.nan) for name in bands]
    errors = [np.ma.filled(np.ma.asarray(table[f"{name}_err"], float), np.nan) for name in bands]
    magnitudes, errors = np.column_stack(columns), np.column_stack(errors)
    probability = np.ones(len(table))
    if membership is not None:
        probability = np.ma.filled(np.ma.asarray(membership, float), np.nan)
        if probability.shape != (len(table),):
            raise DataredError(
                f"membership has the shape {probability.shape}; the table has {len(table)} rows"
            )
    band = len(bands) // 2
    good = np.isfinite(magnitudes).all(axis=1) & (errors > 0).all(axis=1)
    good &= np.isfinite(probability)
    if good.sum() < FEWEST:
        raise DataredError(
            f"{good.sum()} stars have a magnitude and an error in {', '.join(bands)} and a "
            f"membership; {FEWEST} are needed"
        )
    magnitude, error = magnitudes[:, band], errors[:, band]
    if limits is None:
        worst = errors.max(axis=1)
        limits = magnitude[good].min() - 0.05, _faint_limit(magnitude[good], worst[good])
    bright, faint = limits
    with np.errstate(invalid="ignore"):
        good &= (magnitude > bright) & (magnitude < faint)
    rows = np.flatnonzero(good & (probability >= LEAST))
    if len(rows) < FEWEST:
        raise DataredError(
            f"{len(rows)} stars may be members between {bands[band]} = {bright:.2f} and "
            f"{faint:.2f}; {FEWEST} are needed. Give wider limits, or check the membership"
        )
    rows = rows[np.argsort(magnitude[rows], kind="stable")]
    near = [np.argsort(abs(magnitude[good] - limit))[:FEWEST] for limit in limits]
    sigmas = [float(np.median(error[good][each])) for each in near]
    weights = None if membership is None else 1.0 - np.clip(probability, 0, 1)
    everything = np.flatnonzero(good)
    density = field_density(
        magnitudes[everything],
        None if weights is None else weights[everything],
        band=band,
        limits=(bright, faint),
    )
    return Stars(
        rows=rows,
        magnitudes=np.ascontiguousarray(magnitudes[rows]),
        variance=np.ascontiguousarray(errors[rows] ** 2),
        probability=np.clip(probability[rows], 0.0, 1.0),
        field=density[np.searchsorted(everything, rows)],
        band=band,
        limits=np.array([bright, faint, *sigmas]),
    )


def _faint_limit(magnitude, error):
    """Magnitude where errors become large, or where the numbers fall, whichever is brighter."""
    order = np.argsort(magnitude)
    magnitude, error = magnitude[order], error[order]
    n = max(FEWEST, len(magnitude) // 20)
    running = np.array([np.median(error[max(k - n, 0) : k + n]) for k in range(len(error))])
    noisy = np.flatnonzero(running > LARGEST_ERROR)
    limit = magnitude[noisy[0]] if noisy.size else magnitude[-1]
    # The fainter half only: the brighter one may have a gap, or a clump of giants.
    counts, edges = np.histogram(magnitude, np.arange(np.median(magnitude), magnitude[-1], 0.25))
    if counts.size > 2:
        smooth = np.convolve(counts, [0.25, 0.5, 0.25], mode="same")
        falling = np.flatnonzero(smooth[smooth.argmax() :] < 0.6 * smooth.max())
        if falling.size:
            limit = min(limit, edges[smooth.argmax() + falling[0]])
    return float(limit)


def field_density(magnitudes, weights, *, band, limits):
    """Density of the stars that are no members, at each star.

    Parameters
    ----------
    magnitudes : numpy.ndarray, shape (n, n_band)
        Magnitudes of all stars between the limits.
    weights : numpy.ndarray, shape (n,), or None
        Probability to be a field star; None where nothing is known.
    band : int
        Index of the band that has the limits.
    limits : tuple of float
        Bright and faint limit.

    Returns
    -------
    numpy.ndarray, shape (n,)
        Per mag to the number of bands, over the magnitudes between the limits and over the
        colours of the stars. A smooth density of the other field stars in magnitude and colours,
        and a tenth of an even one. With fewer than 30 field stars, or no weights, the smooth part
        is one in magnitude only, and even in colour.
    """
    n, n_band = magnitudes.shape
    others = [b for b in range(n_band) if b != band]
    points = np.column_stack([magnitudes[:, band], magnitudes[:, others] - magnitudes[:, [band]]])
    size = 1.0
    for colour in points[:, 1:].T:
        low, high = np.quantile(colour, [0.005, 0.995])
        size *= high - low + 0.2
    even = 1.0 / (size * (limits[1] - limits[0]))
    known = weights is not None and weights.sum() > ENOUGH_FIELD
    if not known:
        points, weights = points[:, :1], np.ones(n)
    total = np.ones((n, n))
    effective = weights.sum() ** 2 / np.sum(weights**2)
    for k, values in enumerate(points.T):
        middle = np.average(values, weights=weights)
        spread = np.sqrt(np.average((values - middle) ** 2, weights=weights))
        width = max(spread, 1e-3) * effective ** (-1.0 / (points.shape[1] + 4))
        kernel = np.exp(-0.5 * ((values[:, None] - values[None]) / width) ** 2)
        # What a kernel would put beyond the limits is left out.
        area = kernel_area(values, width, limits) if k == 0 else np.ones(n)
        total *= kernel / (np.sqrt(2 * np.pi) * width * area)
    total *= weights
    # A star must not make its own field.
    np.fill_diagonal(total, 0.0)
    smooth = total.sum(axis=1) / np.maximum(weights.sum() - weights, 1e-9)
    return (1 - FLAT) * (smooth if known else smooth / size) + FLAT * even


def kernel_area(values, width, limits):
    """Part of a Gaussian around each value that lies between the limits."""
    from scipy.special import ndtr

    return ndtr((limits[1] - values) / width) - ndtr((limits[0] - values) / width)
