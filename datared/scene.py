"""A simulated sky: stars of a cluster and of the field, and what a survey lists of them."""

import astropy.units as u
import numpy as np
from astropy.table import Table, vstack
from scipy.spatial import cKDTree

from .isochrones import EXTINCTION, combine_magnitudes, isochrone, magnitudes_at_mass

__all__ = [
    "CATALOGUE_EPOCH",
    "cluster_stars",
    "contamination",
    "draw_masses",
    "field_stars",
    "positions_at",
    "special_star",
    "survey_catalogue",
]

#: Epoch of the positions in a reference catalogue, as in ATLAS-REFCAT2 (that is, of Gaia DR2).
CATALOGUE_EPOCH = 2015.5

#: Kilometres per second of a star at 1 kpc that moves by 1 mas a year.
KMS_PER_MAS = 4.74047

#: Ages (Gyr), metallicities and shares of the three populations of the field.
FIELD_POPULATIONS = ((1.0, 0.0, 0.3), (4.0, -0.1, 0.4), (9.0, -0.3, 0.3))


def draw_masses(rng, n, *, low, high, slopes=(-1.3, -2.3)):
    """Draw initial masses from a mass function of two power laws.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of random numbers.
    n : int
        Number of stars.
    low, high : float
        Limits in solar masses.
    slopes : tuple of float
        Slopes of the number per mass below and above half a solar mass; those of Kroupa (2001,
        MNRAS 322, 231) where not given.

    Returns
    -------
    numpy.ndarray of float, shape (n,)
        Masses in solar masses.

    Examples
    --------
    >>> masses = draw_masses(np.random.default_rng(1), 1000, low=0.1, high=2.0)
    >>> bool(0.1 <= masses.min() < 0.2 < np.median(masses) < 0.5)
    True
    """
    mass = np.geomspace(low, high, 2000)
    number = np.where(mass < 0.5, (2 * mass) ** slopes[0], (2 * mass) ** slopes[1])
    steps = np.diff(mass) * (number[1:] + number[:-1]) / 2
    cumulative = np.concatenate([[0.0], np.cumsum(steps)])
    return np.interp(rng.random(n) * cumulative[-1], cumulative, mass)


def cluster_stars(
    rng, n, *, age, metallicity, distance, a_v, center, box, bright_limit, faint_limit=19.0
):
    """Draw the members of a star cluster from an isochrone.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of random numbers.
    n : int
        Number of members inside the box.
    age, metallicity, distance, a_v : float
        Age in Gyr, [Fe/H], distance in pc and extinction in V in magnitudes.
    center : tuple of float
        Right ascension and declination of the cluster in degrees.
    box : tuple of float
        Width and height of the area in which stars are wanted, in degrees on the sky.
    bright_limit : dict of str to float
        Brightest magnitude in each band; brighter stars would saturate and are left out.
    faint_limit : float
        Faintest magnitude in r.

    Returns
    -------
    astropy.table.Table
        Columns of a scene (see `special_star`). Three stars in ten are unresolved binaries with a
        flat distribution of mass ratios; places follow a Plummer profile.
    """
    model = isochrone(age=age, metallicity=metallicity, distance=distance * u.pc, a_v=a_v)
    mass = np.asarray(model["mass"])
    # A binary can be 0.75 mag brighter than its primary: begin that much below the limit.
    low = mass[np.argmax(np.asarray(model["r"]) < faint_limit + 0.75)]
    kept = []
    while sum(len(part) for part in kept) < n:
        # An old cluster has lost stars of low mass: its mass function is flatter than the field's.
        primary = draw_masses(rng, 4 * n, low=low, high=mass[-1], slopes=(-0.3, -1.0))
        binary = rng.random(4 * n) < 0.3
        secondary = np.where(binary, np.maximum(primary * rng.random(4 * n), mass[0]), 0.0)
        stars = Table({"mass": primary, "mass_secondary": secondary, "binary": binary})
        bright, faint = magnitudes_at_mass(model, primary), magnitudes_at_mass(model, secondary)
        for band in "gri":
            other = np.where(binary, faint[band], np.inf)
            stars[band] = combine_magnitudes(np.asarray(bright[band]), other)
        # Plummer: the fraction p of the stars lies inside core * sqrt(p / (1 - p)), projected.
        share = rng.random(4 * n) * 0.97
        radius = 0.05 * np.sqrt(share / (1 - share))
        angle = rng.random(4 * n) * 2 * np.pi
        stars["xi"], stars["eta"] = radius * np.cos(angle), radius * np.sin(angle)
        inside = (np.abs(stars["xi"]) < box[0] / 2) & (np.abs(stars["eta"]) < box[1] / 2)
        kept.append(stars[inside & _in_limits(stars, bright_limit, faint_limit)])
    stars = vstack(kept)[:n]
    # A cluster moves as one: its stars differ by 0.8 km/s, and its depth is a few parsec.
    stars["distance"] = distance + rng.normal(0, 3.0, n)
    direction = rng.random() * 2 * np.pi
    spread = 0.8 / (KMS_PER_MAS * distance / 1000)
    stars["pm_ra"] = 3.5 * np.cos(direction) + rng.normal(0, spread, n)
    stars["pm_dec"] = 3.5 * np.sin(direction) + rng.normal(0, spread, n)
    return _finish(stars, center, kind="member", member=True)


def field_stars(rng, n, *, center, box, bright_limit, faint_limit=19.0):
    """Draw stars of the Galactic disc along the line of sight.

    Masses follow the mass function, distances the volume times an exponential disc (2 kpc), and
    dust adds 0.4 mag in V for each kpc; so colours, magnitudes, parallaxes and proper motions
    (35 km/s) belong together.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of random numbers.
    n : int
        Number of stars inside the box.
    center, box, bright_limit, faint_limit
        As in `cluster_stars`.

    Returns
    -------
    astropy.table.Table
        Columns of a scene (see `special_star`).
    """
    tables = []
    for age, metallicity, share in FIELD_POPULATIONS:
        model = isochrone(age=age, metallicity=metallicity)
        mass = np.asarray(model["mass"])
        wanted, found = round(share * n) + 1, 0
        while found < wanted:
            stars = Table({"mass": draw_masses(rng, 40 * n, low=mass[0], high=mass[-1])})
            stars["distance"] = rng.gamma(3.0, 2000.0, 40 * n)
            a_v = np.minimum(stars["distance"] / 1000 * 0.4, 2.0)
            modulus = 5 * np.log10(stars["distance"] / 10)
            absolute = magnitudes_at_mass(model, stars["mass"])
            for band in "gri":
                stars[band] = np.asarray(absolute[band]) + modulus + EXTINCTION[band] * a_v
            stars = stars[_in_limits(stars, bright_limit, faint_limit)]
            tables.append(stars[: wanted - found])
            found += len(tables[-1])
    stars = vstack(tables)
    stars = stars[np.sort(rng.permutation(len(stars))[:n])]
    stars["xi"] = rng.uniform(-box[0] / 2, box[0] / 2, n)
    stars["eta"] = rng.uniform(-box[1] / 2, box[1] / 2, n)
    for name in ("pm_ra", "pm_dec"):
        stars[name] = rng.normal(0, 35.0, n) / (KMS_PER_MAS * np.asarray(stars["distance"]) / 1000)
    stars["mass_secondary"] = 0.0
    stars["binary"] = False
    return _finish(stars, center, kind="field", member=False)


def special_star(*, ra, dec, r, kind, g_r=0.6, r_i=0.25, distance=500.0):
    """Make one star of a chosen place and brightness, as a table of one row.

    Parameters
    ----------
    ra, dec : float
        Place in degrees (it does not move).
    r : float
        Magnitude in r.
    kind : str
        What it is for: ``"target"``, ``"comparison"``, ``"saturated"``, ``"variable"``, ...
    g_r, r_i : float
        Colours.
    distance : float
        Distance in pc.

    Returns
    -------
    astropy.table.Table
        Columns ``ra``, ``dec`` (deg, at `CATALOGUE_EPOCH`), ``pm_ra`` (with the cosine of the
        declination), ``pm_dec`` (mas/yr), ``parallax`` (mas), ``distance`` (pc), ``g``, ``r``,
        ``i`` (PS1 AB), ``mass``, ``mass_secondary`` (solar; 0 where unknown), ``member``,
        ``binary``, ``variable``, ``kind``.

    Examples
    --------
    >>> special_star(ra=10.0, dec=20.0, r=12.0, kind="target")["g"][0]
    np.float64(12.6)
    """
    row = {"mass": [0.0], "distance": [distance], "g": [r + g_r], "r": [r], "i": [r - r_i]}
    stars = Table({**row, "pm_ra": [0.0], "pm_dec": [0.0], "mass_secondary": [0.0]})
    stars["binary"] = False
    stars["xi"], stars["eta"] = 0.0, 0.0
    return _finish(stars, (ra, dec), kind=kind, member=False)


def positions_at(stars, epoch):
    """Give right ascension and declination (degrees) of stars at an epoch in years.

    Parameters
    ----------
    stars : astropy.table.Table
        A scene.
    epoch : float
        Julian year.

    Returns
    -------
    tuple of numpy.ndarray of float
        Right ascensions and declinations in degrees, moved along straight lines.
    """
    years = epoch - CATALOGUE_EPOCH
    dec = np.asarray(stars["dec"]) + np.asarray(stars["pm_dec"]) * years / 3.6e6
    step = np.asarray(stars["pm_ra"]) * years / 3.6e6 / np.cos(np.radians(dec))
    return np.asarray(stars["ra"]) + step, dec


def contamination(stars, *, radius=12.0, band="r"):
    """Light of neighbours closer than a radius, in units of each star's own light.

    Parameters
    ----------
    stars : astropy.table.Table
        A scene.
    radius : float
        In arcseconds.
    band : str
        Band in which the light is compared.

    Returns
    -------
    numpy.ndarray of float, shape (n_star,)
        0 for a star that is alone.
    """
    flux = 10 ** (-0.4 * np.asarray(stars[band]))
    total = np.zeros(len(stars))
    for a, b in _pairs(stars, radius):
        total[a] += flux[b] / flux[a]
        total[b] += flux[a] / flux[b]
    return total


def survey_catalogue(stars, *, rng, limit=18.0, resolution=2.5):
    """List stars as a survey would: with errors, a limit, and close pairs seen as one.

    Column names are those of ATLAS-REFCAT2 at VizieR (J/ApJ/867/105; Tonry et al. 2018, ApJ 867,
    105); ``Gmag`` follows from g, r and i by table A.2 of Evans et al. (2018, A&A 616, A4),
    ``zmag`` by the mean locus of stars, i - z = 0.47 (r - i).

    Parameters
    ----------
    stars : astropy.table.Table
        A scene.
    rng : numpy.random.Generator
        Source of the errors.
    limit : float
        Magnitude in r at which half of the stars are listed.
    resolution : float
        Pairs closer than this (arcsec) are one row with the light of both.

    Returns
    -------
    astropy.table.Table
        Sorted by right ascension; places at `CATALOGUE_EPOCH`.
    """
    merged = _merge_pairs(stars, resolution)
    found = merged["r"] < limit + 0.15 * rng.standard_normal(len(merged))
    merged = merged[found]
    merged.sort("ra")
    n = len(merged)
    # Errors of Gaia DR2 double for each 1.7 mag beyond 14 (Lindegren et al. 2018, A&A 616, A2).
    growth = 10 ** (0.18 * np.maximum(np.asarray(merged["r"]) - 14.0, 0.0))
    place, motion, plx = 0.03 * growth, 0.06 * growth, 0.035 * growth
    table = Table()
    cosine = np.cos(np.radians(merged["dec"]))
    table["RA_ICRS"] = merged["ra"] + rng.normal(0, 1, n) * place / 3.6e6 / cosine
    table["DE_ICRS"] = merged["dec"] + rng.normal(0, 1, n) * place / 3.6e6
    table["Plx"] = np.round(merged["parallax"] + rng.normal(0, 1, n) * plx, 2)
    table["e_Plx"] = np.round(plx, 2)
    for ours, theirs in (("pm_ra", "pmRA"), ("pm_dec", "pmDE")):
        table[theirs] = np.round(merged[ours] + rng.normal(0, 1, n) * motion, 2)
        table["e_" + theirs] = np.round(motion, 2)
    g_i = np.asarray(merged["g"] - merged["i"])
    merged["G"] = merged["r"] - 0.12879 + 0.24662 * g_i - 0.027464 * g_i**2 - 0.049465 * g_i**3
    merged["z"] = merged["i"] - 0.47 * (merged["r"] - merged["i"])
    for band in ("G", "g", "r", "i", "z"):
        floor, slope = (0.001, 0.0005) if band == "G" else (0.004, 0.002)
        error = np.hypot(floor, slope * 10 ** (0.3 * (np.asarray(merged[band]) - 14.5)))
        table[band + "mag"] = np.round(merged[band] + rng.normal(0, 1, n) * error, 3)
        table["e_" + band + "mag"] = np.round(np.maximum(error, 0.001), 3)
    table["RA_ICRS"].unit = table["DE_ICRS"].unit = "deg"
    table.meta["catalogue"] = "simulated, in the columns of ATLAS-REFCAT2 (VizieR J/ApJ/867/105)"
    table.meta["epoch"] = CATALOGUE_EPOCH
    return table


def _in_limits(stars, bright_limit, faint_limit):
    """Mark stars that neither saturate in a band nor are too faint in r."""
    good = np.asarray(stars["r"]) < faint_limit
    for band, limit in bright_limit.items():
        good &= np.asarray(stars[band]) > limit
    return good


def _finish(stars, center, *, kind, member):
    """Complete a table of stars: places on the sky from offsets in degrees, labels, order."""
    stars["dec"] = center[1] + np.asarray(stars["eta"])
    stars["ra"] = center[0] + np.asarray(stars["xi"]) / np.cos(np.radians(stars["dec"]))
    stars["parallax"] = 1000.0 / np.asarray(stars["distance"])
    stars["member"] = member
    stars["variable"] = False
    stars["kind"] = np.full(len(stars), kind, dtype="U10")
    names = "ra dec pm_ra pm_dec parallax distance g r i mass mass_secondary member binary"
    return stars[[*names.split(), "variable", "kind"]]


def _pairs(stars, radius):
    """Index pairs of stars closer than a radius in arcseconds, in a flat sky."""
    dec = np.asarray(stars["dec"])
    x = (np.asarray(stars["ra"]) - stars["ra"][0]) * np.cos(np.radians(dec))
    tree = cKDTree(np.column_stack([x, dec]) * 3600)
    return sorted(tree.query_pairs(radius))


def _merge_pairs(stars, resolution):
    """Join each close pair into its brighter star: light is added, places are averaged by it."""
    merged = stars.copy()
    gone = np.zeros(len(stars), bool)
    for a, b in _pairs(stars, resolution):
        if merged["r"][b] < merged["r"][a]:
            a, b = b, a
        if gone[a] or gone[b]:
            continue
        weight = 1 / (1 + 10 ** (-0.4 * (merged["r"][a] - merged["r"][b])))
        for name in ("ra", "dec"):
            merged[name][a] += weight * (merged[name][b] - merged[name][a])
        for band in "gri":
            merged[band][a] = combine_magnitudes(merged[band][a], merged[band][b])
        gone[b] = True
    return merged[~gone]
