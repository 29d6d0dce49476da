"""Compute the embedded isochrone table, ``datared/data/isochrones.npz``.

Run it in an environment of its own (about one minute)::

    python3 -m venv isochrone-env && isochrone-env/bin/pip install "cosmic-popsynth==4.3.3"
    isochrone-env/bin/python recipes/make_isochrones.py datared/data/isochrones.npz

Stars: the single-star formulae of Hurley, Pols & Tout (2000, MNRAS 315, 543), as coded in
``cosmic-popsynth`` (Breivik et al. 2020, ApJ 898, 71), with their winds (``windflag=0``,
Reimers' coefficient 0.5). Two traps: the package counts metallicity from ``zsun=0.014``, but the
formulae are written for 0.02 (with it 1 Msun and Z = 0.02 have 5777 K and 0.96 Lsun at 4.57 Gyr);
and the time steps follow ``pts1..3``, so that small values give the tracks in full.

Metallicity: [Fe/H] = log10(Z / 0.0152), the solar Z that spectroscopy finds today. With the older
Z = 0.02 for [Fe/H] = 0 the main sequence is 0.012 dex cooler than models with today's Z.

Colours and bolometric corrections: see `DWARFS`, `GIANT_COLOURS` and the functions below, each
with its paper. Nothing here is fitted to other isochrones.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

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

    The mean sequence of the solar neighbourhood, changed with metallicity by Casagrande et al.
    (2010), whose range of 4200 to 7800 K is not left: the change is that of its edge, and fades
    to zero at 10000 K.
    """
    order = np.argsort(DWARFS[:, 0])
    axis = np.log10(DWARFS[order, 0])
    out = [PchipInterpolator(axis, DWARFS[order, k])(log_teff) for k in (1, 2, 3, 4)]
    inside = 10 ** np.clip(log_teff, np.log10(4200.0), np.log10(7800.0))
    weight = fade(log_teff, np.log10(7800.0), 4.0)
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
    out.update(pts1=0.002, pts2=0.005, pts3=0.005, windflag=0, neta=0.5, zsun=FORMULA_Z)
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


def main(path):
    """Compute all tracks and write the table."""
    masses = np.concatenate(
        [np.geomspace(FIRST_MASS, 0.7, 16), np.geomspace(0.7, 2.6, 75)[1:],
         np.geomspace(2.6, LAST_MASS, 45)[1:]]
    )  # fmt: skip
    ends = np.empty((FEH.size, masses.size, len(PHASES)))
    nodes = np.empty((FEH.size, masses.size, sum(f.size for f in PHASES.values()), 3))
    for i, feh in enumerate(FEH):
        for j, track in enumerate(tracks(masses, SOLAR_Z * 10.0**feh)):
            ends[i, j], nodes[i, j] = keep(track)
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
    main(Path(sys.argv[1]))
