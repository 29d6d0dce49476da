"""What changes in a simulated sky: a planet's transit, a pulsating star, a moving object."""

import math

import numpy as np
from astropy.table import Table, vstack

from .observatory import PIXEL_SCALE
from .scene import field_stars, special_star
from .transit import transit_flux

__all__ = ["light_curves", "make_planet", "moving_object", "published_planet", "transit_stars"]

#: Where the special stars of the transit night stand before the flip, as fractions of the frame:
#: kind, x, y, r, g - r.
SPECIAL = (
    ("target", 0.68, 0.56, 12.62, 0.85),
    ("saturated", 0.47, 0.72, 11.20, 0.55),
    ("variable", 0.33, 0.33, 14.00, 0.35),
    ("edge", 0.010, 0.47, 13.30, 0.60),
    ("comparison", 0.58, 0.30, 12.65, 0.75),
    ("comparison", 0.42, 0.53, 12.95, 0.60),
    ("comparison", 0.25, 0.70, 13.10, 0.50),
    ("comparison", 0.80, 0.76, 13.20, 0.90),
    ("comparison", 0.74, 0.20, 13.30, 0.65),
    ("comparison", 0.20, 0.22, 13.60, 0.70),
    ("comparison", 0.52, 0.85, 13.75, 0.55),
)

#: Parameters of the planet besides its size: a K dwarf's; times in days.
PLANET = {"period": 1.0917, "scaled_axis": 6.2, "impact": 0.6, "limb_darkening": (0.45, 0.20)}

#: Errors of what is published of the planet before the night, of a mid-time so many periods ago.
PUBLISHED = {"t0": 3e-4, "period": 1e-6, "scaled_axis": 0.1, "impact": 0.05, "limb_darkening": 0.1}
PERIODS_AGO = 300

#: The pulsating star: m = m0 + amplitude * sin(2 pi (t - t0) / period); magnitudes, days.
VARIABLE = {"amplitude": 0.1, "period": 0.058}


def transit_stars(exposures, shape, *, field, center, rng):
    """Make the stars of the transit night.

    Parameters
    ----------
    exposures : list of datared.schedule.Exposure
        The first one is the frame of the places in `SPECIAL`.
    shape : tuple of int
        Shape of the frames, ``(ny, nx)``.
    field : int
        Number of stars of the field within about the frame.
    center : tuple of float
        Right ascension and declination of the field in degrees.
    rng : numpy.random.Generator
        Source of the stars.

    Returns
    -------
    astropy.table.Table
        A scene; field stars keep 20 arcseconds away from the special ones.
    """
    wcs = exposures[0].wcs(shape)
    special = []
    for kind, x, y, r, colour in SPECIAL:
        shift = rng.uniform(-0.02, 0.02, 2) * (kind != "edge")
        place = wcs.all_pix2world((x + shift[0]) * shape[1], (y + shift[1]) * shape[0], 0)
        r = r + rng.uniform(-0.05, 0.05)
        options = {"g_r": colour, "r_i": 0.45 * colour - 0.05, "distance": rng.uniform(300, 600)}
        special.append(
            special_star(ra=float(place[0]), dec=float(place[1]), r=r, kind=kind, **options)
        )
    special = vstack(special)
    special["variable"] = special["kind"] == "variable"
    box = (1.4 * shape[1] * PIXEL_SCALE / 3600, 1.4 * shape[0] * PIXEL_SCALE / 3600)
    others = field_stars(rng, 2 * field, center=center, box=box, bright_limit={"r": 13.5})
    cosine = np.cos(np.radians(center[1]))
    far = np.hypot(
        (np.asarray(others["ra"])[:, None] - np.asarray(special["ra"])) * cosine,
        np.asarray(others["dec"])[:, None] - np.asarray(special["dec"]),
    )
    return vstack([special, others[far.min(axis=1) > 20 / 3600]])


def make_planet(times, depth, rng):
    """Choose the planet's transit so that it lies well within the night.

    Parameters
    ----------
    times : array-like of float
        BJD_TDB of the middles of the exposures.
    depth : float
        Square of the ratio of the radii.
    rng : numpy.random.Generator
        Source of the shift of the mid-time by up to three minutes.

    Returns
    -------
    dict
        ``mid_time`` (BJD_TDB), ``period`` (d), ``radius_ratio``, ``scaled_axis``, ``impact``,
        ``limb_darkening``, ``depth`` (= radius_ratio squared), ``depth_mid`` (loss of light at
        mid-transit), ``duration`` (d, first to last contact), ``ingress_start``, ``egress_end``.
    """
    start, end = float(times[0]), float(times[-1])
    mid_time = start + 0.67 * (end - start) + rng.uniform(-3, 3) / 1440
    planet = {"mid_time": mid_time, **PLANET, "radius_ratio": math.sqrt(depth)}
    chord = math.sqrt((1 + planet["radius_ratio"]) ** 2 - planet["impact"] ** 2)
    tilt = math.sqrt(1 - (planet["impact"] / planet["scaled_axis"]) ** 2)
    duration = planet["period"] / math.pi * math.asin(chord / planet["scaled_axis"] / tilt)
    at_middle = float(transit_flux(np.array([mid_time]), **planet)[0])
    planet |= {"depth": depth, "depth_mid": 1 - at_middle, "duration": duration}
    return planet | {
        "ingress_start": mid_time - duration / 2,
        "egress_end": mid_time + duration / 2,
    }


def published_planet(planet, rng):
    """Make up what others published of the planet: the truth with errors.

    Parameters
    ----------
    planet : dict
        From `make_planet`.
    rng : numpy.random.Generator
        Source of the errors.

    Returns
    -------
    dict
        The table ``[transit]`` of a night file; see `datared.transitoptions.TransitOptions`. The
        radius is not in it.
    """

    def drawn(name, value, digits):
        return round(float(value + PUBLISHED[name] * rng.standard_normal()), digits)

    return {
        "t0": drawn("t0", planet["mid_time"] - PERIODS_AGO * planet["period"], 5),
        "t0_err": PUBLISHED["t0"],
        "period": drawn("period", planet["period"], 7),
        "period_err": PUBLISHED["period"],
        "scaled_axis": [drawn("scaled_axis", planet["scaled_axis"], 2), PUBLISHED["scaled_axis"]],
        "impact": [drawn("impact", planet["impact"], 2), PUBLISHED["impact"]],
        "limb_darkening": [drawn("limb_darkening", u, 2) for u in planet["limb_darkening"]],
        "limb_darkening_err": PUBLISHED["limb_darkening"],
        "reference": "made up with the night",
    }


def light_curves(frames, planet, rng):
    """Compute the true light of the target and of the variable star, without air and noise.

    Parameters
    ----------
    frames : astropy.table.Table
        Truth of the frames.
    planet : dict
        From `make_planet`.
    rng : numpy.random.Generator
        Source of the pulsation's phase.

    Returns
    -------
    astropy.table.Table
        Columns ``file``, ``jd_utc_mid``, ``bjd_tdb_mid``, ``airmass``, ``target`` and ``variable``
        (mean over the exposure, in units of the star's light without transit or at its mean
        magnitude); ``meta["variable"]``.
    """
    table = frames["file", "jd_utc_mid", "bjd_tdb_mid", "airmass"].copy()
    times = np.asarray(frames["bjd_tdb_mid"])
    names = ("mid_time", "period", "radius_ratio", "scaled_axis", "impact", "limb_darkening")
    exposure = float(frames["exptime"][0]) / 86400
    table["target"] = transit_flux(times, **{n: planet[n] for n in names}, exposure=exposure)
    variable = {**VARIABLE, "t0": float(times[0]) + rng.random() * VARIABLE["period"]}
    phase = 2 * np.pi * (times - variable["t0"]) / variable["period"]
    table["variable"] = 10 ** (-0.4 * variable["amplitude"] * np.sin(phase))
    table.meta["variable"] = variable
    return table


def moving_object(exposures, shape, rng, *, rate=0.5, r=15.4):
    """Path of a minor planet through the field.

    Parameters
    ----------
    exposures : list of datared.schedule.Exposure
        The conditions.
    shape : tuple of int
        Shape of the frames, ``(ny, nx)``.
    rng : numpy.random.Generator
        Source of its direction.
    rate : float
        Arcseconds per minute.
    r : float
        Its magnitude in r.

    Returns
    -------
    astropy.table.Table
        Columns ``file``, ``ra``, ``dec`` (degrees, in the middle of the exposure); the meta data
        hold ``rate_per_minute`` (arcsec), ``position_angle`` (deg), ``r``, and the steps in
        degrees for one arcsecond of its way.
    """
    angle = rng.uniform(100.0, 130.0)
    # On its way towards the east and south it crosses the quarter of the frame without target.
    wcs = exposures[0].wcs(shape)
    ra0, dec0 = (float(v) for v in wcs.all_pix2world(0.62 * shape[1], 0.44 * shape[0], 0))
    ra_step = math.sin(math.radians(angle)) / 3600 / math.cos(math.radians(dec0))
    dec_step = math.cos(math.radians(angle)) / 3600
    minutes = np.array([(e.start - exposures[0].start).total_seconds() / 60 for e in exposures])
    table = Table({"file": ["?"] * len(exposures)})
    table["ra"], table["dec"] = ra0 + ra_step * rate * minutes, dec0 + dec_step * rate * minutes
    table.meta |= {"rate_per_minute": rate, "position_angle": angle, "r": r}
    table.meta |= {"ra_per_arcsec": ra_step, "dec_per_arcsec": dec_step}
    return table
