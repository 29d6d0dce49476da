"""Variable stars: which light curves of a night change more than their noise, and how."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from .comparison import usable
from .ensemble import solve_ensemble
from .errors import ConfigError
from .periods import chance_of_noise, frequency_grid, noise_power, periodograms, refine_period

__all__ = ["StarCurves", "running_median", "star_curves", "variable_stars", "von_neumann"]

#: Magnitudes are instrumental: this for one count in a second.
ZERO_POINT = 25.0
#: Fewer good epochs than these tell nothing about a star.
LEAST_EPOCHS = 5
#: A star with good measurements in this share of the epochs helps to solve for the common part.
OFTEN = 0.5
#: A single measurement this many standard deviations from those around it is a cosmic ray.
LONELY = 5.0
#: A variable star scatters more than its like by this many standard deviations of their scatter.
LEAST_EXCESS = 3.0
#: The first candidates get a period, even where it may be noise.
REFINED = 20
#: Columns are taken out of curves with at least so many epochs for each of them (the step at the
#: meridian flip always).
PER_COLUMN = 5


@dataclass(frozen=True, eq=False)
class StarCurves:
    """Light curves of all stars of a night in one filter, from `star_curves`.

    Parameters
    ----------
    star : numpy.ndarray of int, shape (n_star,)
        Rows of the star list.
    ra, dec : numpy.ndarray of float, shape (n_star,)
        Positions in degrees.
    time : numpy.ndarray of float, shape (n_epoch,)
        Mid-exposure times in days, BJD_TDB (JD, UTC, where the night has no BJD).
    magnitude : numpy.ndarray of float, shape (n_star,)
        Instrumental magnitudes, 25 for one count in a second; NaN where there is no measurement.
    curves, errors : numpy.ndarray of float, shape (n_star, n_epoch)
        Magnitude minus that of the star, and its error; NaN where there is none.
    columns : numpy.ndarray of float, shape (n_epoch, n_column)
        What changed over the night, each column with mean 0 and width 1.
    names : tuple of str
        Their names.
    filter : str
        The filter.
    """

    star: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    time: np.ndarray
    magnitude: np.ndarray
    curves: np.ndarray
    errors: np.ndarray
    columns: np.ndarray
    names: tuple
    filter: str


def star_curves(photometry, *, filter=None, radius=None):
    """Light curves of all stars of a night, freed from what they have in common.

    All stars are solved together (`datared.ensemble.solve_ensemble`); each is compared with the
    others. A frame without a time is left out; so is a measurement with a flag, and a single one
    that is five standard deviations off those before and after it.

    Parameters
    ----------
    photometry : Photometry
        From `datared.assembly.read_photometry`.
    filter : str, optional
        The filter; needed where there are several.
    radius : int, optional
        Index of the radius; the photometry's default one otherwise.

    Returns
    -------
    StarCurves
        The curves of all stars of the list, in its order. Stars without light have NaN.

    Raises
    ------
    ConfigError
        If there are several filters and none is named, or the name or the radius is not known.
    """
    names = np.asarray(photometry.epochs["filter"]).astype(str)
    there = sorted(set(names))
    if filter is None and len(there) > 1:
        raise ConfigError(f"the night has the filters {', '.join(there)}: choose one with filter=")
    filter = there[0] if filter is None and there else filter
    if filter not in there:
        raise ConfigError(f"there is no filter {filter!r}; there are {', '.join(there) or 'none'}")
    radius = photometry.default_radius if radius is None else radius
    if not 0 <= radius < photometry.flux.shape[2]:
        raise ConfigError(f"radius {radius} is not an index of the radii {photometry.radii}")
    utc = np.ma.filled(np.ma.asarray(photometry.epochs["jd_utc_mid"]).astype(float), np.nan)
    rows = np.flatnonzero((names == filter) & np.isfinite(utc))
    rows = rows[np.argsort(utc[rows], kind="stable")]
    epochs = photometry.epochs[rows]
    rate = np.asarray(epochs["exptime"], float)
    flux, error = (part[:, rows, radius] / rate for part in (photometry.flux, photometry.flux_err))
    good = usable(flux, error, photometry.flags[:, rows, radius])
    flux, error = np.where(good, flux, np.nan), np.where(good, error, np.nan)
    side = np.asarray(epochs["flipped"], bool)
    seldom = np.flatnonzero(good.sum(axis=1) < OFTEN * max(good.sum(axis=1).max(initial=0), 1))
    found = solve_ensemble(flux, error, exclude=seldom, side=side)
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = -2.5 * np.log10(np.where(found.curves > 0, found.curves, np.nan))
        errors = 2.5 / np.log(10) * found.errors / found.curves
        magnitude = ZERO_POINT - 2.5 * np.log10(np.where(found.scale > 0, found.scale, np.nan))
    time = np.ma.filled(np.ma.asarray(epochs["bjd_tdb_mid"]).astype(float), np.nan)
    time = time if np.isfinite(time).all() else utc[rows]
    lonely = _lonely(curves)
    curves, errors = (np.where(lonely, np.nan, part) for part in (curves, errors))
    columns, names = _columns(epochs, photometry.x[:, rows], photometry.y[:, rows], side)
    stars = photometry.stars
    return StarCurves(
        np.asarray(stars["star"]), np.asarray(stars["ra"], float), np.asarray(stars["dec"], float),
        time, magnitude, curves, errors, columns, names, filter,
    )  # fmt: skip


def variable_stars(curves, *, false_alarm=0.01):
    r"""Judge every star: variable, stable or unknown.

    Two independent signs have to agree. *It scatters more than its like*: the robust scatter
    (1.4826 times the median absolute deviation) is compared with the running median of the stars of
    about the same magnitude (`running_median`); the excess is the difference of the logarithms in
    units of the robust scatter of all stars around that curve, and has to be more than 3 (a
    handful of stars tells little about what is common). *It has a period*: the best peak of its
    Lomb-Scargle periodogram (`datared.periods.periodograms`, with the columns of the night) is
    higher than the noise of stars of the same brightness makes at that frequency
    (`datared.periods.noise_power`), and the chance that noise makes one so high in any of the stars
    (`datared.periods.chance_of_noise`) is less than `false_alarm`. Slow noise of one star alone
    cannot be told from a variation.

    Parameters
    ----------
    curves : StarCurves
        From `star_curves`.
    false_alarm : float
        Chance that one constant star or more of the whole list has so high a peak.

    Returns
    -------
    astropy.table.Table
        One row for each star: ``star``, ``ra``, ``dec`` (deg), ``magnitude``, ``n`` (epochs),
        ``scatter`` (mag, of the curve without the columns), ``expected`` (from the errors),
        ``typical`` (of stars of that magnitude), ``excess``, ``von_neumann`` (see `von_neumann`),
        ``period``, ``period_err`` (d; of one sine: an eclipsing star may have twice this period;
        fitted together with the columns airmass and flip; the error grows with the slow noise of
        stars of that magnitude),
        ``amplitude`` (mag, half of the range of the sine; all three NaN behind the first 20 where
        the peak may be noise), ``power`` (z over the noise),
        ``false_alarm`` (of the whole list), ``class`` (``variable``, ``stable``, or ``unknown``
        with fewer than 5 epochs) and ``rank`` (1 is the best candidate: by power, those with an
        excess first; 0 for unknown ones).
    """
    n = np.isfinite(curves.curves).sum(axis=1)
    known = n >= LEAST_EPOCHS
    many = n >= PER_COLUMN * (curves.columns.shape[1] + 3)
    frequency = frequency_grid(curves.time)
    z = np.zeros((len(n), len(frequency)))
    rest = np.array(curves.curves, float)
    # With few epochs nothing else can be told from a star, but the flip's step is in all of them.
    flip = curves.columns[:, [name == "flip" for name in curves.names]]
    # Many columns together imitate a wave as long as the night: they would blur its period.
    common = curves.columns[:, [name in ("airmass", "flip") for name in curves.names]]
    for rows, columns in ((known & many, curves.columns), (known & ~many, flip)):
        if rows.any():
            z[rows], rest[rows] = periodograms(
                curves.time, curves.curves[rows], curves.errors[rows],
                frequency=frequency, columns=columns,
            )  # fmt: skip
    noise = np.ones_like(z)
    noise[known] = noise_power(z[known], curves.magnitude[known])
    z /= noise
    scatter, expected = np.full((2, len(n)), np.nan)
    for k in np.flatnonzero(known):
        line = rest[k][np.isfinite(rest[k])]
        scatter[k] = 1.4826 * np.median(np.abs(line - np.median(line)))
        expected[k] = np.sqrt(np.nanmean(curves.errors[k] ** 2))
    typical, width = running_median(curves.magnitude, scatter, expected)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.log(scatter / typical) / width
    power = z.max(axis=1, initial=0.0)
    chance = chance_of_noise(power, curves.time, frequency=frequency, n_star=int(known.sum()))
    high = excess > LEAST_EXCESS
    name = np.where(high & (chance < false_alarm), "variable", "stable")
    order = np.lexsort((-power, ~high))
    order = order[known[order]]
    rank = np.zeros(len(n), int)
    rank[order] = np.arange(1, len(order) + 1)
    period, period_err, amplitude = np.full((3, len(n)), np.nan)
    wanted = known & (power > 0) & ((rank <= REFINED) | (chance < false_alarm))
    for k in np.flatnonzero(wanted):
        best = np.argmax(z[k])
        period[k], period_err[k], amplitude[k] = refine_period(
            curves.time, curves.curves[k], curves.errors[k],
            frequency=frequency[best], columns=common if many[k] else flip,
        )  # fmt: skip
        # Slow noise makes the error larger, as much as that of a wave in the stars of its like.
        period_err[k] *= np.sqrt(noise[k, best])
    return Table(
        {
            "star": curves.star, "ra": curves.ra, "dec": curves.dec,
            "magnitude": curves.magnitude, "n": n, "scatter": scatter, "expected": expected,
            "typical": typical, "excess": excess, "von_neumann": von_neumann(rest),
            "period": period, "period_err": period_err, "amplitude": amplitude, "power": power,
            "false_alarm": np.where(known, chance, np.nan),
            "class": np.where(known, name, "unknown"), "rank": rank,
        },
        meta={"filter": curves.filter, "columns": list(curves.names), "false_alarm": false_alarm},
    )  # fmt: skip


def von_neumann(curves):
    r"""Give the von Neumann ratio: how much a curve jumps from point to point.

    .. math:: \eta = \frac{\sum (m_{i+1} - m_i)^2 / (n - 1)}{\sum (m_i - \bar m)^2 / (n - 1)}

    It is 2 for white noise, near 0 for a slow change (von Neumann 1941, Annals of Mathematical
    Statistics 12, 367).

    Parameters
    ----------
    curves : array_like of float, shape (n_star, n_epoch)
        Curves in the order of time; NaN where there is none.

    Returns
    -------
    numpy.ndarray of float, shape (n_star,)
        NaN with fewer than 5 points, or without scatter.

    Examples
    --------
    >>> von_neumann([[1.0, -1.0, 1.0, -1.0, 1.0], [0.0, 1.0, 2.0, 3.0, 4.0]]).round(2).tolist()
    [3.33, 0.4]
    """
    ratio = np.full(len(curves), np.nan)
    for k, line in enumerate(np.asarray(curves, float)):
        line = line[np.isfinite(line)]
        total = np.sum((line - line.mean()) ** 2) if len(line) >= LEAST_EPOCHS else 0.0
        if total > 0:
            ratio[k] = np.sum(np.diff(line) ** 2) / total
    return ratio


def running_median(magnitude, scatter, expected, *, n_stars=31):
    """Median scatter of the stars of about the same magnitude, and the width around it.

    The ratio of scatter and expected noise changes slowly with the magnitude: its running median,
    times the expected noise, follows the steep curve of the faint stars too.

    Parameters
    ----------
    magnitude, scatter, expected : array_like of float, shape (n_star,)
        Magnitudes, scatters and expected scatters; stars without one of them do not count.
    n_stars : int
        So many stars, of the nearest magnitudes, make a median.

    Returns
    -------
    typical : numpy.ndarray of float, shape (n_star,)
        The running median; NaN for stars that do not count.
    width : float
        Robust standard deviation of ``ln(scatter / typical)`` of all stars; at least 0.05.
    """
    magnitude, scatter, expected = (
        np.asarray(values, float) for values in (magnitude, scatter, expected)
    )
    typical = np.full(len(scatter), np.nan)
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(np.isfinite(magnitude) & (scatter > 0) & (expected > 0))
    if not len(rows):
        return typical, 0.05
    rows = rows[np.argsort(magnitude[rows], kind="stable")]
    ratio = np.log(scatter[rows] / expected[rows])
    size = min(n_stars, len(rows))
    first = np.clip(np.arange(len(rows)) - size // 2, 0, len(rows) - size)
    middle = np.array([np.median(ratio[k : k + size]) for k in first])
    typical[rows] = np.exp(middle) * expected[rows]
    away = ratio - middle
    return typical, max(1.4826 * float(np.median(np.abs(away - np.median(away)))), 0.05)


def _lonely(curves):
    """Find single measurements far from those of the epochs before and after."""
    lonely = np.zeros(curves.shape, bool)
    for k, line in enumerate(curves):
        rows = np.flatnonzero(np.isfinite(line))
        if len(rows) < 2 * LEAST_EPOCHS:
            continue
        y = np.pad(line[rows], 2, mode="reflect")
        around = np.median([y[:-4], y[1:-3], y[3:-1], y[4:]], axis=0)
        away = np.abs(line[rows] - around)
        # The median difference of noise is 0.6745 standard deviations of it.
        lonely[k, rows] = away > LONELY * np.median(away) / 0.6745
    return lonely


def _columns(epochs, x, y, side):
    """Columns of what changed over the night for all stars: air, width, drift, side."""
    columns, names = [], []
    drift = []
    for place in (x, y):
        # After the flip the field is turned: a drift means something on one side only.
        parts = np.full(place.shape, np.nan)
        for value in np.unique(side):
            part = np.asarray(place[:, side == value], float)
            with np.errstate(invalid="ignore"):
                parts[:, side == value] = part - np.ma.median(
                    np.ma.masked_invalid(part), axis=1, keepdims=True
                ).filled(np.nan)
        drift.append(np.ma.median(np.ma.masked_invalid(parts), axis=0).filled(np.nan))
    known = {"airmass": epochs["airmass"], "fwhm": epochs["fwhm"], "x": drift[0], "y": drift[1]}
    for name, values in {**known, "flip": side}.items():
        values = np.ma.filled(np.ma.asarray(values).astype(float), np.nan)
        if not np.isfinite(values).any():
            continue
        values = np.where(np.isfinite(values), values, np.nanmedian(values))
        if np.std(values) > 1e-9 * max(np.abs(values).max(), 1.0):
            columns.append((values - values.mean()) / values.std())
            names.append(name)
    return np.reshape(columns, (len(columns), len(epochs))).T, tuple(names)
