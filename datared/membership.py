"""Which stars belong to a cluster, from their proper motions and parallaxes.

The stars of a cluster move together and are at one distance; the stars before and behind it are
not. So in proper motion and parallax a cluster is a narrow clump on top of a broad cloud, and the
probability that a star belongs to the clump is the share of the clump in the density at its place.

Every star has errors of its own. A mixture of normal distributions that knows them is fitted
(extreme deconvolution: Bovy, Hogg & Roweis 2011, Annals of Applied Statistics 5, 1657), so that a
faint star with a large error is not left out because it is far from the middle of the clump.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from .errors import DataredError
from .memberfit import find_cluster

__all__ = ["MIN_STARS", "Membership", "membership", "motions"]

#: With fewer stars with a proper motion nothing is tried.
MIN_STARS = 20
#: A cluster has so many members at least, and so much makes it better than no cluster: the
#: difference of the Bayesian information criterion (10 is called very strong).
MIN_MEMBERS, MIN_GAIN = 5.0, 10.0

#: Parallax (mas) that decides the limits of a cluster's spread where none is measured.
USUAL_PARALLAX = 0.5

#: Error (mas) that stands for "no parallax": larger than any parallax.
NO_PARALLAX = 1e3

NAMES = ("pm_ra", "pm_dec", "parallax")


@dataclass(frozen=True, eq=False)
class Membership:
    """What `membership` found.

    Parameters
    ----------
    probability : numpy.ndarray of float, shape (n,)
        Probability of each star to belong to the cluster; NaN for a star without a measurement,
        and for all stars where no cluster was found.
    found : bool
        Whether there is a cluster.
    reason : str
        Why none was found; empty otherwise.
    mean, mean_err : dict of str to float
        Motion ``pm_ra`` (with the cosine of the declination), ``pm_dec`` (mas/yr) and, where it was
        measured, ``parallax`` (mas) of the cluster, and their standard errors. The error that all
        stars of a catalogue have in common (0.02 mas/yr and 0.02 mas for Gaia) is not in them.
    spread, spread_err : float
        How much the motions of the members differ in each direction beyond their errors (mas/yr,
        one standard deviation).
    n_measured : int
        Stars with a proper motion.
    n_members : float
        Expected number of members: the sum of the probabilities.
    converged : bool
        Whether the fit came to rest.
    """

    probability: np.ndarray
    found: bool = False
    reason: str = ""
    mean: dict = field(default_factory=dict)
    mean_err: dict = field(default_factory=dict)
    spread: float = np.nan
    spread_err: float = np.nan
    n_measured: int = 0
    n_members: float = 0.0
    converged: bool = False


def motions(table):
    """Proper motions and parallaxes of a table, with their errors.

    Parameters
    ----------
    table : astropy.table.Table
        Columns ``pm_ra`` (with the cosine of the declination), ``pm_dec`` (mas/yr) and, if known,
        ``parallax`` (mas), each with ``<name>_err``; or all of them with ``cat_`` before the name,
        as in the stars of a night.

    Returns
    -------
    values, errors : numpy.ndarray of float, shape (n, 3)
        Proper motion in right ascension, in declination, and parallax. NaN in all three where a
        star has no proper motion with an error, and in the last where it has no parallax.

    Raises
    ------
    DataredError
        If a column of the proper motions or of their errors is missing.

    Examples
    --------
    >>> from astropy.table import Table
    >>> stars = Table({"pm_ra": [-2.9], "pm_ra_err": [0.02], "pm_dec": [-3.9], "pm_dec_err": [0.0]})
    >>> values, errors = motions(stars)  # An error of 0 stands for "not known".
    >>> values
    array([[nan, nan, nan]])
    """
    prefix = "cat_" if "cat_pm_ra" in table.colnames and "pm_ra" not in table.colnames else ""
    needed = [prefix + name + end for name in NAMES[:2] for end in ("", "_err")]
    missing = [name for name in needed if name not in table.colnames]
    if missing:
        raise DataredError(
            f"there is no column {' and no '.join(missing)}: membership needs proper motions with "
            "their errors, as ATLAS-REFCAT2 and Gaia have them"
        )
    values, errors = np.full((2, len(table), 3), np.nan)
    for k, name in enumerate(NAMES):
        if prefix + name in table.colnames and f"{prefix}{name}_err" in table.colnames:
            values[:, k] = _floats(table[prefix + name])
            errors[:, k] = _floats(table[f"{prefix}{name}_err"])
    # A catalogue writes 0 for "not known": an error of 0 is no error.
    good = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    good &= good[:, :2].all(axis=1, keepdims=True)
    return np.where(good, values, np.nan), np.where(good, errors, np.nan)


def _floats(column):
    """Column as floats, NaN where it is masked."""
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)


def membership(table, *, seed=0):
    r"""Find a cluster in proper motion and parallax, and each star's probability to be a member.

    Parameters
    ----------
    table : astropy.table.Table
        Proper motions and parallaxes, see `motions`.
    seed : int
        Seed of the start of the fit.

    Returns
    -------
    Membership
        Probabilities, and the motion and parallax of the cluster. Where there is no cluster, or too
        few stars have a proper motion, ``found`` is False and ``reason`` says why.

    Raises
    ------
    DataredError
        If the table has no column of proper motions or of their errors.

    Notes
    -----
    The density of the stars in proper motion and parallax is

    .. math:: p(x_i) = f\, N(x_i; \mu, V + S_i) + (1 - f) \sum_k w_k N(x_i; \mu_k, V_k + S_i)

    with the squared errors of the star in the diagonal of :math:`S_i`. The first term is the
    cluster: its stars differ by at most 5 km/s and 20 pc. The field is a sum of one to five broad
    terms (at least 10 km/s and 300 pc). The probability is the first term divided by the sum. The
    shares :math:`f` and :math:`w_k` differ between bright and faint stars (up to four classes by
    the size of the error).

    A first guess of the field comes from scikit-learn's ``GaussianMixture``; up to 400 stars are
    tried as the middle of the cluster, and the best one is the start of the fit. A cluster must
    make the Bayesian information criterion better by 10.

    The field must be seen, too: where a catalogue holds members only, there is nothing to separate
    them from. One cluster is looked for, the one that stands out most.
    """
    values, errors = motions(table)
    probability = np.full(len(table), np.nan)
    used = np.isfinite(values[:, 0])
    n = int(used.sum())
    nothing = Membership(probability, n_measured=n)
    if n < MIN_STARS:
        reason = f"only {n} of {len(table)} stars have a proper motion with an error; "
        return replace(nothing, reason=reason + f"{MIN_STARS} are needed")
    x, variance = values[used], errors[used] ** 2
    known = np.isfinite(x[:, 2])
    has_parallax = bool(known.sum() >= MIN_STARS)
    x[~known, 2] = np.median(x[known, 2]) if has_parallax else USUAL_PARALLAX
    variance[~known, 2] = NO_PARALLAX**2
    if not has_parallax:
        x[:, 2], variance[:, 2] = USUAL_PARALLAX, NO_PARALLAX**2
    found = find_cluster(x, variance, seed=seed)
    members = float(found.share.sum())
    if members < MIN_MEMBERS or found.gain < MIN_GAIN:
        reason = f"no group among the {n} stars stands out in proper motion"
        return replace(nothing, reason=reason + (" and parallax" if has_parallax else ""))
    probability[used] = found.share
    names = NAMES if has_parallax else NAMES[:2]
    return replace(
        nothing,
        found=True,
        mean=dict(zip(names, found.centre.tolist(), strict=False)),
        mean_err=dict(zip(names, found.centre_err.tolist(), strict=False)),
        spread=found.spread,
        spread_err=found.spread_err,
        n_members=members,
        converged=found.converged,
    )
