"""Age, distance and reddening of a cluster from its stars' magnitudes, with a posterior.

Every star is a single star of the isochrone, an unresolved binary, or something else: a star of the
field, a blend, a variable. The likelihood adds the three up, so nothing has to be cut by hand.
"""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Table

from .clusterfield import cluster_sample
from .clusterposterior import ClusterPosterior
from .errors import DataredError
from .sampling import sample_posterior, summary_table

__all__ = ["MAIN", "IsochroneFit", "fit_isochrone"]

MAIN = ("log_age", "metallicity", "distance_modulus", "a_v")
"""The parameters of the cluster, whose convergence is judged."""

R_V = 3.1
BURN_IN = 300  # steps
SLOPE = (-1.8, 1.0)  # of the mass function: between Salpeter's and that of an old cluster


@dataclass(frozen=True, eq=False)
class IsochroneFit:
    """Result of `fit_isochrone`.

    Attributes
    ----------
    samples : astropy.table.Table
        Samples of the posterior, one per row: ``log_age`` (log10 of years), ``metallicity``
        ([Fe/H]), ``distance_modulus`` (true, mag), ``a_v`` (mag), ``binary_fraction``,
        ``field_fraction`` (share of the members that do not follow the model), ``scatter``
        (intrinsic, mag in each band), ``mass_slope``, ``offset_<band>`` (error of the zero point,
        mag), ``log_posterior``.
    best : dict
        The most probable sample: ``age`` (Gyr), ``metallicity``, ``distance`` (Quantity, pc),
        ``a_v``, as `IsochroneGrid.at` and `isochrones.isochrone` take them.
    acceptance : float
        Share of the proposed steps that was accepted; 0.1 to 0.5 is healthy.
    autocorrelation : dict of str to float
        Autocorrelation time in steps of each parameter of `MAIN` that was free; infinite while a
        walker is stuck.
    n_effective : float
        Number of independent samples: all samples divided by the longest autocorrelation time.
    n_steps : int
        Steps of each walker after the burn-in.
    converged : bool
        Whether the chain is at least 25 autocorrelation times long. If not, its intervals are a
        rough guide only.
    bands : tuple of str
        Bands of the fit; the second of two, or the middle one, had the limits.
    limits : tuple of float
        Bright and faint limit in that band.
    used : numpy.ndarray of bool, shape (n,)
        Rows of the table that took part.
    probability : numpy.ndarray, shape (n,)
        For each row, how probably it follows the best model as a member; nan if not used.
    source : str
        Source of the isochrones.
    """

    samples: Table
    best: dict
    acceptance: float
    autocorrelation: dict
    n_effective: float
    n_steps: int
    converged: bool
    bands: tuple
    limits: tuple
    used: np.ndarray
    probability: np.ndarray
    source: str

    def summary(self):
        """Return median and intervals of every parameter.

        Returns
        -------
        astropy.table.Table
            Columns ``parameter``, ``median``, ``low_68``, ``high_68``, ``low_95``, ``high_95``,
            ``unit``. Beside the parameters: ``age`` (Gyr), ``distance`` (pc) and ``e_bv``
            (``a_v / 3.1``, mag). Intervals are central: equal parts lie below and above.
        """
        table = self.samples
        derived = {
            "age": 10.0 ** (table["log_age"] - 9.0),
            "distance": 10.0 ** (table["distance_modulus"] / 5.0 + 1.0),
            "e_bv": table["a_v"] / R_V,
        }
        columns = {name: table[name] for name in table.colnames if name != "log_posterior"}
        offsets = {f"offset_{band}": "mag" for band in self.bands}
        return summary_table(columns | derived, units=UNITS | offsets)


UNITS = {
    "log_age": "dex(yr)",
    "metallicity": "dex",
    "distance_modulus": "mag",
    "a_v": "mag",
    "scatter": "mag",
    "age": "Gyr",
    "distance": "pc",
    "e_bv": "mag",
}


def fit_isochrone(
    table,
    *,
    grid,
    bands,
    membership=None,
    metallicity=None,
    distance_modulus=None,
    a_v=None,
    zero_point_error=0.005,
    limits=None,
    max_steps=2000,
    seed=0,
):
    """Fit an isochrone to the magnitudes of a cluster's stars.

    Parameters
    ----------
    table : astropy.table.Table
        For each band the columns ``<band>`` and ``<band>_err`` (mag), with ``meta["system"]``.
        Rows with a masked or infinite value are not used.
    grid : IsochroneGrid
        Isochrones with all bands.
    bands : sequence of str
        Two bands or more. The limits are in the second of two, in the middle one of three.
    membership : array_like of float, shape (n,), optional
        Probability that a star is a member, from its motion; nan counts as not used. Without it,
        every star may be a member, and the share of the field is fitted.
    metallicity, distance_modulus, a_v : tuple of float, optional
        Mean and standard deviation of what is known before: [Fe/H] from spectra, the distance
        modulus (true, without extinction) from parallaxes, the extinction from a map. Where not
        given, every value of the grid, or from 0 to 25 mag and 0 to 6 mag, is equally probable.
    zero_point_error : float, optional
        Standard error of the zero point of each band (mag), the same for all stars.
    limits : tuple of float, optional
        Bright and faint limit of complete data. By default the brightest star, and where the
        median error reaches 0.1 mag or, if that is brighter, where the numbers of stars fall.
    max_steps : int, optional
        Most steps of each of the 32 walkers; fewer where the chain is long enough before.
    seed : int, optional
        The same seed gives the same samples.

    Returns
    -------
    IsochroneFit
        Samples of the posterior, and whether they have converged.

    Raises
    ------
    DataredError
        When a band is missing, in two systems, or fewer than 20 stars can be used.

    Notes
    -----
    With the membership p, the share of outliers f and of binaries b, a star has the likelihood::

        p (1 - f) [(1 - b) S + b B] + (1 - p (1 - f)) F

    S and B are the densities of single stars and of binaries in the space of the magnitudes,
    along the isochrone and weighted by the mass function (a free slope, flatter by one below 0.5
    Msun; mass ratios equally frequent from 0 to 1), convolved with the star's own errors and the
    scatter, and normalised between the limits. F is the density of the field stars, smoothed.
    Ages are equally probable per dex. The sampler is that of Foreman-Mackey et al. (2013, PASP
    125, 306), with the moves of ter Braak & Vrugt (2008, Stat. Comput. 18, 435).

    The intervals know of the noise, not of the models: another set of isochrones moves the age by
    0.05 to 0.1 dex.
    """
    bands = tuple(bands)
    _check_systems(table, grid, bands)
    stars = cluster_sample(table, bands=bands, membership=membership, limits=limits)
    priors = {
        "metallicity": metallicity,
        "distance_modulus": distance_modulus,
        "a_v": a_v,
        "mass_slope": SLOPE,
    }
    known = membership is not None
    model = ClusterPosterior(stars, grid, bands, priors, zero_point_error, known=known)
    start = model.starting_points(np.random.default_rng([seed, 1]))
    judged = {name: model.index[name] for name in MAIN if name in model.index}
    chain = sample_posterior(
        model, start, judged=judged, burn_in=BURN_IN, max_steps=max_steps, seed=seed
    )
    flat = chain.points.reshape(-1, chain.points.shape[2])
    samples = Table({name: flat[:, k] for k, name in enumerate(model.names)})
    if "metallicity" not in samples.colnames:
        samples.add_column(np.full(len(samples), model.metallicity), index=1, name="metallicity")
    samples["log_scatter"] = np.exp(samples["log_scatter"])
    samples.rename_column("log_scatter", "scatter")
    samples["log_posterior"] = chain.log_posterior.ravel()
    top = int(np.argmax(samples["log_posterior"]))
    row = samples[top]
    probability = np.full(len(table), np.nan)
    probability[stars.rows] = model.probabilities(flat[top])
    used = np.zeros(len(table), bool)
    used[stars.rows] = True
    return IsochroneFit(
        samples=samples,
        best={
            "age": float(10.0 ** (row["log_age"] - 9.0)),
            "metallicity": float(row["metallicity"]),
            "distance": float(10.0 ** (row["distance_modulus"] / 5.0 + 1.0)) * u.pc,
            "a_v": float(row["a_v"]),
        },
        acceptance=chain.acceptance,
        autocorrelation=chain.autocorrelation,
        n_effective=chain.n_effective,
        n_steps=chain.points.shape[0],
        converged=chain.converged,
        bands=bands,
        limits=(float(stars.limits[0]), float(stars.limits[1])),
        used=used,
        probability=probability,
        source=grid.source,
    )


def _check_systems(table, grid, bands):
    """Refuse bands that are missing, or that are not in the grid's system."""
    if len(bands) < 2:
        raise DataredError(f"{len(bands)} band for the fit: give two or more, such as ('g', 'i')")
    for band in bands:
        if band not in grid.bands:
            raise DataredError(
                f"the isochrones ({grid.source}) have no band {band!r}; they have "
                f"{', '.join(grid.bands)}"
            )
        for name in (band, f"{band}_err"):
            if name not in table.colnames:
                raise DataredError(f"the table has no column {name!r}: {table.colnames}")
        system = table[band].meta.get("system", "unknown")
        if system != grid.bands[band]:
            raise DataredError(
                f"{band} of the stars is in the system {system!r}, that of the isochrones "
                f"in {grid.bands[band]!r}; transform one of them first (datared.systems.transform)"
            )
