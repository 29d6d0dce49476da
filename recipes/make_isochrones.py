"""Compute the embedded isochrone table, ``datared/data/isochrones.npz``.

Run it in an environment of its own (about two minutes)::

    python3 -m venv isochrone-env && isochrone-env/bin/pip install "cosmic-popsynth==4.3.3"
    isochrone-env/bin/python recipes/make_isochrones.py datared/data/isochrones.npz

and put the SHA-256 of the new table into ``datared.isochrones.CHECKSUM``.

Stars: the single-star formulae of Hurley, Pols & Tout (2000, MNRAS 315, 543), as coded in
``cosmic-popsynth`` (Breivik et al. 2020, ApJ 898, 71), with their winds (``windflag=0``,
Reimers' coefficient 0.5). Two traps: the package counts metallicity from ``zsun=0.014``, but the
formulae are written for 0.02 (with it 1 Msun and Z = 0.02 have 5777 K and 0.96 Lsun at 4.57 Gyr);
and the time steps follow ``pts1..3``: with 0.002 the hook at the end of the main sequence is cut
off here and there, and the turn-off jumps from mass to mass.

Metallicity: [Fe/H] = log10(Z / 0.0152), the solar Z that spectroscopy finds today. With the older
Z = 0.02 for [Fe/H] = 0 the main sequence is 0.012 dex cooler than models with today's Z.

Colours and bolometric corrections: see `DWARFS`, `GIANT_COLOURS` and the functions below, each
with its paper.

Adjusted to PARSEC v1.2S: life times, luminosities and temperatures of the main sequence by 122
coefficients that are smooth in mass, life fraction and metallicity (`LIFE`, `LUMINOSITY`,
`TEMPERATURE`), giants by 7 numbers, B-V of dwarfs by 25 knots (`COLOUR_SHIFT`) and BC_V by one
number (`METAL_BC`). Isochrones of Z = 0.0105 and 0.0205 were used for the first; `calibrate` finds
them again from a folder of such files::

    isochrone-env/bin/python recipes/make_isochrones.py --calibrate folder
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.interpolate import BSpline, PchipInterpolator, RegularGridInterpolator

FEH = np.array([-1.0, -0.85, -0.7, -0.55, -0.4, -0.25, -0.125, 0.0, 0.08, 0.15, 0.22, 0.295])
FORMULA_Z = 0.02  # to which the formulae refer their coefficients
SOLAR_Z = 0.0152  # Z at [Fe/H] = 0: Caffau et al. (2011, Sol. Phys. 268, 255)
FIRST_MASS, LAST_MASS = 0.1, 25.0

# Fractions of the duration of each phase at which a track is kept. Dense at the end of the main
# sequence (the hook) and where the giant branches climb.
_rise = 1.0 - np.logspace(0, -3.5, 24)
PHASES = {
    1: np.concatenate(
        [
            np.linspace(0.0, 0.7, 15),
            [0.74, 0.78, 0.82, 0.85, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985],
            [0.99, 0.9925, 0.995, 0.9975, 0.9999],
        ]
    ),
    2: np.linspace(0.0, 1.0, 13),
    3: _rise,
    4: np.array([0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1]),
    5: _rise,
}

# Mean dwarf sequence: Pecaut & Mamajek (2013, ApJS 208, 9), version 2024.05.15 of the table
# EEM_dwarf_UBVIJHK_colors_Teff: Teff, BC_V, B-V, V-Rc, V-Ic, every second type where it is dense.
# V-Rc hotter than 26000 K is not tabulated there: scaled from V-Ic (the ratio at B1V).
DWARFS = np.array(
    [
        (45900, -4.01, -0.330, -0.137, -0.386), (41400, -3.76, -0.323, -0.133, -0.380),
        (37900, -3.41, -0.318, -0.132, -0.375), (33300, -3.11, -0.312, -0.130, -0.369),
        (31400, -2.99, -0.301, -0.125, -0.355), (29000, -2.83, -0.289, -0.119, -0.338),
        (26000, -2.58, -0.278, -0.115, -0.325), (24500, -2.44, -0.252, -0.114, -0.281),
        (20600, -2.03, -0.215, -0.094, -0.230), (18500, -1.77, -0.198, -0.087, -0.210),
        (17000, -1.54, -0.178, -0.080, -0.192), (15700, -1.34, -0.156, -0.070, -0.165),
        (14500, -1.13, -0.140, -0.062, -0.145), (14000, -1.05, -0.128, -0.058, -0.133),
        (12300, -0.73, -0.109, -0.048, -0.108), (10700, -0.42, -0.070, -0.028, -0.061),
        (9700, -0.21, 0.000, 0.001, 0.004), (9300, -0.14, 0.035, 0.019, 0.044),
        (8840, -0.07, 0.070, 0.042, 0.091), (8600, -0.04, 0.100, 0.050, 0.108),
        (8250, -0.02, 0.140, 0.078, 0.164), (7910, 0.005, 0.185, 0.094, 0.197),
        (7590, 0.02, 0.250, 0.140, 0.288), (7220, 0.01, 0.295, 0.166, 0.339),
        (7020, 0.005, 0.330, 0.190, 0.385), (6820, -0.005, 0.370, 0.213, 0.432),
        (6670, -0.015, 0.410, 0.236, 0.476), (6550, -0.02, 0.440, 0.252, 0.506),
        (6350, -0.03, 0.486, 0.276, 0.553), (6180, -0.04, 0.530, 0.300, 0.599),
        (6050, -0.05, 0.560, 0.312, 0.620), (5930, -0.065, 0.595, 0.341, 0.673),
        (5770, -0.085, 0.650, 0.363, 0.713), (5660, -0.105, 0.680, 0.377, 0.738),
        (5550, -0.125, 0.710, 0.393, 0.766), (5480, -0.14, 0.730, 0.404, 0.786),
        (5380, -0.16, 0.775, 0.423, 0.820), (5290, -0.195, 0.816, 0.443, 0.853),
        (5100, -0.26, 0.884, 0.482, 0.920), (4870, -0.365, 0.990, 0.560, 1.030),
        (4600, -0.52, 1.090, 0.635, 1.182), (4440, -0.63, 1.150, 0.685, 1.272),
        (4300, -0.75, 1.240, 0.759, 1.420), (4090, -0.93, 1.340, 0.802, 1.519),
        (3990, -1.03, 1.363, 0.843, 1.632), (3850, -1.15, 1.420, 0.889, 1.766),
        (3660, -1.42, 1.485, 0.956, 2.005), (3560, -1.62, 1.505, 1.001, 2.173),
        (3430, -1.93, 1.530, 1.079, 2.420), (3270, -2.28, 1.600, 1.178, 2.680),
        (3110, -2.84, 1.690, 1.345, 3.073), (3060, -3.11, 1.830, 1.446, 3.278),
        (2930, -3.58, 1.940, 1.656, 3.664), (2810, -4.13, 2.010, 1.950, 4.100),
        (2680, -4.99, 2.120, 2.180, 4.500),
    ]
)  # fmt: skip

# Adjustment of the formulae to PARSEC v1.2S (Bressan et al. 2012, MNRAS 427, 127; Chen et al. 2014,
# MNRAS 444, 2525), in 1e-4 dex: coefficients of cubic B-splines in log10 of the mass, knots below.
# `calibrate` computes them from isochrones of Z = 0.0105 and 0.0205 with ages from 4 Myr to 12.6
# Gyr; Z = 0.0155 and later releases of PARSEC were kept for the test.
LIFE_KNOTS = np.array([-0.1, 0.05, 0.11, 0.16, 0.22, 0.35, 1.4])
TRACK_KNOTS = np.array([-1, -0.5, -0.25, -0.1, 0, 0.06, 0.11, 0.16, 0.22, 0.5, 1.4])
LIFE = np.array(  # log10 of the life times: constant, [Fe/H]
    [
        [321, -312, 444, -392, 225, 397, -83, -201, -111],
        [1352, -473, 1109, 249, 281, 1858, -1271, 1957, -1473],
    ]
)
LUMINOSITY = np.array(  # log10 L: constant, tau^2, tau^8 (tau: life fraction), [Fe/H]
    [
        [-2088, -2016, -2604, -569, 464, -236, -84, -193, 53, -114, -55, 300, 34],
        [3060, 2835, 2524, 1965, 954, 130, 693, 17, 427, 471, 26, -438, -186],
        [135, 52, -34, -130, -239, -331, 458, 695, -111, -353, 250, 566, 510],
        [-1749, -1492, -1446, -1059, 58, -116, -183, -144, -258, -371, -503, -21, -272],
    ]
)
TEMPERATURE = np.array(  # log10 Teff: the same terms
    [
        [-578, -494, -623, -381, 173, -50, -24, 22, 28, -54, 32, 11, 271],
        [206, 143, 75, -8, -117, -97, 8, 60, 8, -21, 186, -133, -256],
        [-271, -266, -253, -218, -139, 8, 71, 13, -139, -217, -76, -90, 114],
        [-573, -483, -447, -348, -100, -42, -83, 12, -141, -215, -122, -14, 402],
    ]
)
ADJUSTED_FEH = (-0.2, 0.15)  # outside, the adjustment is that of the edge

# Giants, by eye from the same isochrones (dex): log Teff at the base of the giant branch and above
# it (L 4 times larger), of core helium burning (constant, f^6 of its duration f), and log L of core
# helium burning: constant, f^2 below 1.8 Msun and at 2.2 to 4 Msun, nothing above 6 Msun.
GIANT_BASE, GIANT_BRANCH = 0.008, -0.013
CLUMP_TEFF = (-0.006, 0.02)
CLUMP_L = (-0.05, -0.42, -0.27)

# What is added to B-V of the mean sequence at log Teff: towards the synthetic colours of PARSEC
# (CMD 3.3 below 8000 K, 2.7 above), by half of the difference for stars like the Sun.
COLOUR_SHIFT = np.array(
    [
        (3.55, -0.04), (3.58, -0.045), (3.60, -0.034), (3.62, -0.024), (3.64, -0.014),
        (3.66, -0.012), (3.68, -0.009), (3.70, -0.004), (3.72, 0.006), (3.74, 0.016),
        (3.76, 0.014), (3.78, 0.019), (3.80, 0.013), (3.82, 0.005), (3.84, 0.004), (3.88, 0.002),
        (3.90, 0.008), (3.94, 0.004), (3.98, -0.004), (4.02, 0.013), (4.06, 0.0165), (4.10, 0.0090),
        (4.14, 0.004), (4.26, 0.007), (4.40, 0.0),
    ]
)  # fmt: skip
METAL_BC = 0.08  # BC_V per dex of [Fe/H], 6000 to 9000 K: as between the two sets of PARSEC

# theta = a0 + a1 X + a2 X^2 + a3 X [Fe/H] + a4 [Fe/H] + a5 [Fe/H]^2, Teff = 5040 K / theta.
# Dwarfs and subgiants: Casagrande et al. (2010, A&A 512, A54), table 4; used only for the change
# of the colour with metallicity. Giants: Ramirez & Melendez (2005, ApJ 626, 465), table 3 without
# the residual polynomials of table 5 (a few kelvin near solar metallicity).
DWARF_COLOURS = {
    "B-V": (0.5665, 0.4809, -0.0060, -0.0613, -0.0042, -0.0055),
    "V-R": (0.4386, 1.4614, -0.7014, -0.0807, 0.0142, -0.0015),
    "V-I": (0.4033, 0.8171, -0.1987, -0.0409, 0.0319, 0.0012),
}
GIANT_COLOURS = {
    "B-V": (0.5737, 0.4882, -0.0149, 0.0563, -0.1160, -0.0114),
    "V-R": (0.3849, 1.6205, -0.6395, 0.1060, -0.0875, -0.0089),
    "V-I": (0.3575, 0.9069, -0.2025, 0.0395, -0.0551, -0.0061),
}
LOG_TEFF = np.concatenate([np.arange(3.43, 4.0, 0.0075), np.arange(4.0, 4.67, 0.02)])
COLOUR_FEH = np.array([-1.0, -0.75, -0.5, -0.25, 0.0, 0.15, 0.295])


def colour_at(teff, feh, coefficients):
    """Return the colour X that a Teff-colour-[Fe/H] polynomial gives ``teff`` (root on X > -1)."""
    a0, a1, a2, a3, a4, a5 = coefficients
    b = a1 + a3 * feh
    c = a0 + a4 * feh + a5 * feh**2 - 5040.0 / teff
    return -2.0 * c / (b + np.sqrt(np.maximum(b**2 - 4.0 * a2 * c, 0.0)))


def fade(log_teff, low, high):
    """Return 1 below ``low``, 0 above ``high``, smooth between."""
    x = np.clip((high - log_teff) / (high - low), 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def dwarf(log_teff, feh):
    """Return BC_V, B-V, V-R, V-I of dwarfs.

    The mean sequence of the solar neighbourhood, moved by `COLOUR_SHIFT`, and changed with
    metallicity by Casagrande et al. (2010), whose range of 4200 to 7800 K is not left: the change
    is that of its edge. It fades to zero at 10000 K, and from 4800 to 4000 K, where molecules take
    over and PARSEC's B-V no longer follows metallicity.
    """
    order = np.argsort(DWARFS[:, 0])
    axis = np.log10(DWARFS[order, 0])
    out = [PchipInterpolator(axis, DWARFS[order, k])(log_teff) for k in (1, 2, 3, 4)]
    inside = 10 ** np.clip(log_teff, np.log10(4200.0), np.log10(7800.0))
    out[0] += METAL_BC * feh * (fade(log_teff, 3.93, 4.03) - fade(log_teff, 3.72, 3.78))
    out[1] += PchipInterpolator(*COLOUR_SHIFT.T)(np.clip(log_teff, 3.55, 4.4))
    weight = fade(log_teff, np.log10(7800.0), 4.0) * (1.0 - fade(log_teff, 3.60, 3.68))
    for k, name in enumerate(("B-V", "V-R", "V-I"), 1):
        row = DWARF_COLOURS[name]
        out[k] = out[k] + weight * (colour_at(inside, feh, row) - colour_at(inside, 0.0, row))
    return np.array(out)


def giant(log_teff, feh):
    """Return BC_V, B-V, V-R, V-I of giants.

    Colours of Ramirez & Melendez (2005), from 4000 to 6800 K; hotter ones fade into the dwarfs,
    cooler ones keep the difference to the dwarfs of 4000 K. BC of Alonso, Arribas & Martinez-Roger
    (1999, A&AS 140, 261), eqs. 17 and 18, on the zero point of `DWARFS` (Sun -0.085, there -0.12).
    """
    base = dwarf(log_teff, feh)
    inside = np.clip(log_teff, 3.602, 3.83)
    reference = dwarf(inside, feh)
    weight = fade(log_teff, 3.78, 3.86)
    out = [base[0] + weight * (alonso(inside, feh) - reference[0])]
    for k, name in enumerate(("B-V", "V-R", "V-I"), 1):
        colour = colour_at(10**inside, feh, GIANT_COLOURS[name])
        out.append(base[k] + weight * (colour - reference[k]))
    return np.array(out)


def alonso(log_teff, feh):
    """Return BC_V of giants, with the zero point of the dwarf table (+0.035 mag)."""
    x = log_teff - 3.52
    cool = -0.05531 / x - 0.6177 + 4.420 * x - 2.669 * x**2
    cool = cool + 0.6943 * x * feh - 0.1071 * feh - 0.008612 * feh**2
    warm = -0.09930 / x + 0.02887 + 2.275 * x - 4.425 * x**2
    warm = warm + 0.3505 * x * feh - 0.05558 * feh - 0.005375 * feh**2
    weight = fade(log_teff, 3.65, 3.67)
    return weight * cool + (1.0 - weight) * warm + 0.035


def survey_colours(b_v, v_r, v_i):
    """Return V-g, V-r, V-i in the Pan-STARRS1 AB system from Johnson-Cousins colours.

    Tonry et al. (2012, ApJ 750, 99), table 6, quadratic in x = (g - r), x from B - V. For M stars
    (V - R > 0.9) r follows Jordi, Grebel & Ammon (2006, A&A 460, 339), r = R + 0.77 (V-R) - 0.37,
    and i = I + 0.247 (R-I) + 0.329, blended until V - R = 1.1.
    """
    a, b, c = 0.021, 1.094, 0.207 - b_v  # B-V = (B-g) + x - (V-r)
    x = (-b + np.sqrt(b * b - 4.0 * a * c)) / (2.0 * a)
    v_minus_r = 0.005 + 0.462 * x + 0.013 * x**2
    i_minus_cousins = 0.366 + 0.136 * x + 0.018 * x**2
    red = np.clip((v_r - 0.9) / 0.2, 0.0, 1.0)
    v_minus_r_red = v_r - (0.77 * v_r - 0.37)
    i_red = 0.247 * (v_i - v_r) + 0.329
    v_minus_g = v_minus_r - x
    v_minus_r = (1 - red) * v_minus_r + red * v_minus_r_red
    v_minus_i = v_i - ((1 - red) * i_minus_cousins + red * i_red)
    return v_minus_g, v_minus_r, v_minus_i


def colour_table():
    """Return BC of B, V, R, I, g, r, i: shape (2 classes, [Fe/H], log Teff, 7)."""
    table = np.empty((2, COLOUR_FEH.size, LOG_TEFF.size, 7))
    for k, relation in enumerate((dwarf, giant)):
        for j, feh in enumerate(COLOUR_FEH):
            bc, b_v, v_r, v_i = relation(LOG_TEFF, feh)
            v_g, v_sr, v_si = survey_colours(b_v, v_r, v_i)
            below = (-b_v, 0 * bc, v_r, v_i, v_g, v_sr, v_si)  # V minus band
            table[k, j] = bc[:, None] + np.array(below).T
    return table


def settings():
    """Return cosmic's default settings, with those of Hurley et al. (2000) for single stars."""
    import cosmic

    path = Path(cosmic.__file__).parent / "data" / "cosmic-settings.json"
    out = {}
    for category in json.loads(path.read_text()):
        if category["category"] != "bse":
            continue
        for item in category["settings"]:
            value = next(o["name"] for o in item["options"] if o.get("default"))
            if isinstance(value, str) and item["name"] == "fprimc_array":
                value = [2.0 / 21.0] * 16
            elif isinstance(value, str):
                value = json.loads(value)
            out[item["name"]] = value
    out.update(pts1=0.0003, pts2=0.005, pts3=0.005, windflag=0, neta=0.5, zsun=FORMULA_Z)
    return out


def tracks(masses, z):
    """Yield one evolutionary track (record array of the time steps) per initial mass."""
    from cosmic.evolve import Evolve
    from cosmic.sample.initialbinarytable import InitialBinaryTable

    n = masses.size
    table = InitialBinaryTable.InitialBinaries(
        m1=masses, m2=np.zeros(n), porb=np.full(n, -1.0), ecc=np.full(n, -1.0),
        tphysf=np.full(n, 2e7), kstar1=np.where(masses > 0.7, 1, 0), kstar2=np.full(n, 15),
        metallicity=np.full(n, z),
    )  # fmt: skip
    columns = ["tphys", "kstar_1", "mass_1", "lum_1", "teff_1"]
    bcm = Evolve.evolve(
        initialbinarytable=table, BSEDict=settings(), SSEDict={"stellar_engine": "sse"},
        dtp=0.0, nproc=1, bcm_columns=columns,
    )[1]  # fmt: skip
    for k in range(n):
        yield bcm[bcm.bin_num == k].to_records(index=False)


def keep(track):
    """Return phase end times (5,) in log10 Myr and log L, log Teff, mass at all fractions."""
    ends, rows = [], []
    kind = np.where(track.kstar_1 == 0, 1, track.kstar_1).astype(int)
    last = None
    for phase, fractions in PHASES.items():
        part = track[kind == phase]
        if part.size < 3:  # this star skips the phase: a phase of no duration
            if last is None:
                raise ValueError("no main sequence")
            ends.append(ends[-1])
            rows.append(np.repeat(last[None], fractions.size, axis=0))
            continue
        time, first = part.tphys, np.unique(part.tphys, return_index=True)[1]
        start = 10.0 ** ends[-1] if ends else 0.0
        ends.append(np.log10(time[-1]))
        at = start + fractions * (10.0 ** ends[-1] - start)
        values = [np.log10(part.lum_1), np.log10(part.teff_1), part.mass_1]
        rows.append(np.array([np.interp(at, time[first], v[first]) for v in values]).T)
        last = rows[-1][-1]
    return np.array(ends), np.concatenate(rows)


def spline(log_mass, knots):
    """Return the cubic B-splines of the knots at the masses; constant outside."""
    ends = np.concatenate([[knots[0]] * 3, knots, [knots[-1]] * 3])
    return BSpline.design_matrix(np.clip(log_mass, knots[0], knots[-1]), ends, 3).toarray()


def terms(tau):
    """Return the terms of the life fraction: 1, tau^2, tau^8."""
    return np.stack([np.ones_like(tau), tau**2, tau**8])


def life_shift(log_mass, feh):
    """Return what is added to log10 of the times at which the phases end."""
    constant, slope = LIFE @ spline(log_mass, LIFE_KNOTS).T
    return 1e-4 * (constant + np.clip(feh, *ADJUSTED_FEH) * slope)


def track_shift(coefficients, log_mass, tau, feh):
    """Return what is added to log L or log Teff on the main sequence, shape (mass, tau)."""
    base = spline(log_mass, TRACK_KNOTS)
    slope = base @ coefficients[3] * np.clip(feh, *ADJUSTED_FEH)
    return 1e-4 * (base @ coefficients[:3].T @ terms(tau) + slope[:, None])


def adjust(ends, nodes, log_mass, feh):
    """Adjust the tracks of one metallicity to PARSEC, in place.

    The shift of the end of the main sequence fades along the subgiants into that of the giants.
    """
    ends += life_shift(log_mass, feh)[:, None]
    first = np.cumsum([0] + [f.size for f in PHASES.values()])
    part = {p: slice(a, b) for p, a, b in zip(PHASES, first[:-1], first[1:], strict=True)}
    for k, coefficients in enumerate((LUMINOSITY, TEMPERATURE)):
        shift = track_shift(coefficients, log_mass, PHASES[1], feh)
        nodes[:, part[1], k] += shift
        nodes[:, part[2], k] += shift[:, -1:] * (1.0 - PHASES[2]) + k * GIANT_BASE * PHASES[2]
    rise = np.clip((nodes[:, :, 0] - nodes[:, part[3], 0][:, :1]) / 0.6, 0.0, 1.0)
    branch = GIANT_BASE + (GIANT_BRANCH - GIANT_BASE) * rise
    nodes[:, part[3], 1] += branch[:, part[3]]
    mass = 10.0 ** log_mass[:, None]
    late = np.interp(mass, [1.8, 2.2, 4.0, 6.0], [CLUMP_L[1], CLUMP_L[2], CLUMP_L[2], 0.0])
    constant = np.interp(mass, [4.0, 6.0], [CLUMP_L[0], 0.0])
    nodes[:, part[4], 0] += constant + late * PHASES[4] ** 2
    nodes[:, part[4], 1] += CLUMP_TEFF[0] + CLUMP_TEFF[1] * PHASES[4] ** 6
    fading = (1.0 - PHASES[5]) ** 2
    nodes[:, part[5], 0] += (constant + late) * fading
    nodes[:, part[5], 1] += GIANT_BRANCH + (sum(CLUMP_TEFF) - GIANT_BRANCH) * fading


def track_masses():
    """Return the initial masses of the tracks in Msun."""
    return np.concatenate(
        [np.geomspace(FIRST_MASS, 0.7, 16), np.geomspace(0.7, 2.6, 75)[1:],
         np.geomspace(2.6, LAST_MASS, 45)[1:]]
    )  # fmt: skip


def read_parsec(path):
    """Yield log10 age (yr), masses, log L, log Teff of the isochrones of a CMD 2.7 table."""
    rows = [x.split()[:6] for x in path.read_text().splitlines() if not x.startswith("#")]
    data = np.array(rows, dtype=float)
    for log_age in np.unique(data[:, 1]):
        part = data[data[:, 1] == log_age]
        yield log_age, part[:, 2], part[:, 4], part[:, 5]


def halfway(log_teff, start):
    """Return where a track or isochrone is halfway between its hottest point and 5000 K.

    The crossing of the Hertzsprung gap is short, so that this point dates the end of the main
    sequence whatever the shape of its hook: returned is a (fractional) index, nan if not reached.
    """
    cool = np.flatnonzero(np.append(log_teff[start:], 0.0) < 3.72)[0]
    hot = start + np.argmax(log_teff[start : start + max(cool, 1)])
    middle = 0.5 * (log_teff[hot] + 3.70)
    below = np.flatnonzero(log_teff[hot:] < middle)
    if below.size == 0 or below[0] == 0:
        return np.nan
    k = hot + below[0]
    return k - (middle - log_teff[k]) / (log_teff[k - 1] - log_teff[k])


def calibrate(folder):
    """Print LIFE, LUMINOSITY and TEMPERATURE as the PARSEC isochrones of a folder give them.

    The files are tables of CMD 2.7, named after Z: 0.010500.dat and 0.020500.dat.
    """
    lives, points = [], []
    masses = track_masses()
    log_mass = np.log10(masses)
    main = PHASES[1].size
    late = main + PHASES[2].size + PHASES[3].size
    for z in (0.0105, 0.0205):
        feh = np.log10(z / SOLAR_Z)
        ends, nodes = (np.array(x) for x in zip(*map(keep, tracks(masses, z)), strict=True))
        times = times_of(ends)[:, :late]
        ours = []
        for time, node in zip(times, nodes, strict=True):
            k = halfway(node[:late, 1], np.argmax(node[:main, 1]))
            ours.append(np.interp(k, np.arange(late), np.log10(np.maximum(time, 1e-9))) + 6.0)
        ours = np.array(ours)
        known = np.isfinite(ours)
        isochrones = [x for x in read_parsec(Path(folder) / f"{z:.6f}.dat") if x[0] > 6.6]
        dated = [x for x in isochrones if 7.0 < x[0] < 10.11]
        theirs = []
        for _, mass, _, log_teff in dated:
            above = mass > 0.7
            start = np.flatnonzero(np.diff(log_teff[above]) < 0)[0]
            k = halfway(log_teff[above], start)
            theirs.append(np.log10(np.interp(k, np.arange(above.sum()), mass[above])))
        shift = [x[0] for x in dated] - np.interp(theirs, log_mass[known], ours[known])
        lives += [(m, feh, s) for m, s in zip(theirs, shift, strict=True)]
        points.append((feh, ends, nodes[:, :main], isochrones))
    mass, feh, shift = np.array(lives).T
    base = spline(mass, LIFE_KNOTS)
    bend = 0.02 * np.diff(np.eye(base.shape[1]), 2, axis=0)  # keeps free ends straight
    smooth = np.kron(np.diag([1.0, 0.3]), bend)
    life = solve(np.hstack([base, base * feh[:, None]]), shift, smooth).reshape(2, -1)
    print("LIFE", np.round(1e4 * life).astype(int).tolist())
    rows = []
    for feh, ends, nodes, isochrones in points:
        base = spline(log_mass, LIFE_KNOTS)
        end = ends[:, 0] + 6.0 + base @ (life[0] + feh * life[1])
        for log_age, mass, *theirs in isochrones:
            x = np.log10(mass)
            tau = 10.0 ** (log_age - np.interp(x, log_mass, end))
            # Before a fraction of 0.015 a star may still contract.
            use = (tau > 0.015) | ((mass < 0.7) & (log_age > 9.0))
            use &= (tau < 0.99) & (mass < LAST_MASS) & (mass > FIRST_MASS)
            at = np.transpose([x[use], tau[use]])
            ours = RegularGridInterpolator((log_mass, PHASES[1]), nodes[..., :2])(at)
            wanted = np.transpose(theirs)[use] - ours
            rows.append(np.column_stack([at, np.full(use.sum(), feh), wanted]))
    rows = np.concatenate(rows)
    cells = np.round(rows[:, :3] / [0.02, 0.03, 0.1])  # even weight for equal areas
    _, which, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    weight = 1.0 / np.sqrt(count[which.ravel()])
    base = spline(rows[:, 0], TRACK_KNOTS)
    n = base.shape[1]
    parts = [base * term[:, None] for term in terms(rows[:, 1])]
    matrix = np.hstack([*parts, base * rows[:, 2:3]])
    bend = np.kron(np.eye(4), 0.3 * np.diff(np.eye(n), 2, axis=0))
    smooth = np.vstack([bend, 0.05 * np.eye(4 * n)])
    for name, wanted, scale in (
        ("LUMINOSITY", rows[:, 3], 0.02),
        ("TEMPERATURE", rows[:, 4], 0.004),
    ):
        now = weight
        for _ in range(6):  # robust: what lies further out than `scale` counts less
            out = solve(matrix * now[:, None], wanted * now, smooth)
            now = weight / np.maximum(1.0, np.abs(wanted - matrix @ out) / scale)
        print(name, np.round(1e4 * out).astype(int).reshape(4, n).tolist())


def solve(matrix, values, smooth):
    """Return the least-squares solution, held smooth by further rows."""
    rows = np.vstack([matrix, smooth])
    return np.linalg.lstsq(rows, np.append(values, np.zeros(len(smooth))), rcond=None)[0]


def times_of(ends):
    """Return the times in Myr of all points of the tracks from the ends of the phases."""
    ends = 10.0**ends
    starts = np.concatenate([np.zeros((ends.shape[0], 1)), ends[:, :-1]], axis=1)
    column = np.concatenate([np.full(f.size, k) for k, f in enumerate(PHASES.values())])
    fraction = np.concatenate(list(PHASES.values()))
    return starts[:, column] + fraction * (ends - starts)[:, column]


def main(path):
    """Compute all tracks and write the table."""
    masses = track_masses()
    ends = np.empty((FEH.size, masses.size, len(PHASES)))
    nodes = np.empty((FEH.size, masses.size, sum(f.size for f in PHASES.values()), 3))
    for i, feh in enumerate(FEH):
        for j, track in enumerate(tracks(masses, SOLAR_Z * 10.0**feh)):
            ends[i, j], nodes[i, j] = keep(track)
        adjust(ends[i], nodes[i], np.log10(masses), feh)
    nodes[..., 2] /= masses[None, :, None]
    steps = np.array([2e-4, 1e-4, 1e-3])  # log L, log Teff, mass/initial mass
    zero = np.array([0.0, 4.0, 0.0])  # keeps log Teff inside 16 bits
    coded = np.round((nodes - zero) / steps)
    if np.abs(coded).max() > np.iinfo(np.int16).max:
        raise ValueError("a quantity does not fit into 16 bits")
    coded = coded.astype(np.int16)
    # Differences along the track and from mass to mass are small numbers, which pack well.
    coded = np.diff(coded, axis=2, prepend=np.int16(0))
    coded = np.diff(coded, axis=1, prepend=np.int16(0))
    np.savez_compressed(
        path, feh=FEH, mass=masses, end=ends.astype(np.float32), step=steps, zero=zero,
        nodes=np.ascontiguousarray(np.moveaxis(coded, 3, 0)),
        phase=np.concatenate([np.full(f.size, p, np.int8) for p, f in PHASES.items()]),
        fraction=np.concatenate(list(PHASES.values())),
        colour_log_teff=LOG_TEFF, colour_feh=COLOUR_FEH,
        colour=np.round(colour_table() * 1000).astype(np.int16),
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "--calibrate":
        calibrate(sys.argv[2])
    else:
        main(Path(sys.argv[1]))
