"""What archives call things: columns, epochs, magnitude systems, and which rows are good stars."""

import numpy as np
from astropy import units as u

__all__ = [
    "EXTRA_NAMES",
    "FAMILIES",
    "KNOWN_NAMES",
    "POSITION_NAMES",
    "is_star",
    "magnitudes",
]

#: Our column names and, in lower case, what catalogues call them. The first one found is taken.
POSITION_NAMES = {
    "ra": ("ra_icrs", "raj2000", "ra", "_raj2000", "_ra.icrs", "ramdeg", "ramean"),
    "dec": ("de_icrs", "dej2000", "dec", "_dej2000", "_de.icrs", "demdeg", "decmean"),
    "pm_ra": ("pmra", "pm_ra", "pmra_cosdec"),
    "pm_dec": ("pmde", "pmdec", "pm_dec"),
    "id": ("source_id", "source", "objid", "id", "star", "name"),
}

#: Further columns that are kept where they are: ours, theirs, and the unit.
EXTRA_NAMES = {
    "parallax": (("parallax", "plx"), u.mas),
    "parallax_err": (("parallax_error", "e_plx"), u.mas),
    "pm_ra_err": (("pmra_error", "e_pmra"), u.mas / u.yr),
    "pm_dec_err": (("pmdec_error", "e_pmde"), u.mas / u.yr),
    "ruwe": (("ruwe",), None),
}


def _bands(names, system, *, value="{}", error="e_{}"):
    """Magnitudes of a family whose columns are called by one rule."""
    return {ours: ((value.format(t),), (error.format(t),), system) for ours, t in names.items()}


_GAIA = {"G": "G", "BP": "BP", "RP": "RP"}

#: Families of catalogues: what is known by which columns (all must be there), the epoch of the
#: positions, and the magnitudes with their systems. The first that fits is taken.
FAMILIES = {
    "landolt": ({"vmag", "b-v", "v-i"}, 2000.0, {}),
    "ubv": ({"vmag", "b_v"}, 2000.0, {}),
    "ps1": (
        {"gmag", "rmag", "ymag"},
        2012.5,
        _bands({n: f"{n}mag" for n in "grizy"}, "PS1 AB"),
    ),
    "ps1 (MAST)": (
        {"gmeanpsfmag", "rmeanpsfmag"},
        2012.5,
        _bands(
            {n: n for n in "grizy"}, "PS1 AB", value="{}meanpsfmag", error="{}meanpsfmagerr"
        ),
    ),
    "sdss": (
        {"gpmag", "rpmag"},
        2004.0,
        _bands({n: f"{n}pmag" for n in "ugriz"}, "SDSS AB"),
    ),
    "sdss (model)": (
        {"umag", "gmag", "rmag"},
        2004.0,
        _bands({n: f"{n}mag" for n in "ugriz"}, "SDSS AB"),
    ),
    # Its magnitudes are those of APASS; by g, r and i alone it would look like ATLAS-REFCAT2.
    "ucac4": (
        {"bmag", "vmag", "gmag", "rmag", "imag"},
        2000.0,
        _bands({n: f"{n}mag" for n in "gri"}, "SDSS AB"),
    ),
    "refcat2": (
        {"gmag", "rmag", "imag"},
        2015.5,
        _bands({n: f"{n}mag" for n in "griz"}, "PS1 AB")
        | {"G": (("Gmag",), ("e_Gmag",), "Gaia Vega")},
    ),
    "gaia": (
        {"phot_g_mean_mag"},
        2016.0,
        _bands({b: f"phot_{b.lower()}_mean_mag" for b in _GAIA}, "Gaia Vega", error="{}_error"),
    ),
    "gaia (VizieR)": (
        {"bpmag", "rpmag"},
        2016.0,
        {
            "G": (("Gmag", "gmag"), ("e_Gmag", "e_gmag"), "Gaia Vega"),
            "BP": (("bpmag",), ("e_bpmag",), "Gaia Vega"),
            "RP": (("rpmag",), ("e_rpmag",), "Gaia Vega"),
        },
    ),
    "tycho2": ({"mag_vt"}, 2000.0, _bands({b: f"mag_{b.lower()}" for b in ("BT", "VT")},
                                          "Tycho Vega")),
    "tycho2 (VizieR)": ({"vtmag"}, 2000.0, _bands({b: f"{b.lower()}mag" for b in ("BT", "VT")},
                                                  "Tycho Vega")),
}  # fmt: skip

#: Brighter stars are saturated in Pan-STARRS (Magnier et al. 2013, ApJS 204, 20).
PS1_SATURATION = {"g": 13.5, "r": 13.5, "i": 13.5, "z": 13.0, "y": 12.0}

#: Colours, quality and dates: further columns that the rules below or `starlists` look at.
OTHER_NAMES = """
b-v b_v u-b u_b v-r v_r v-i v_i e_vmag e_b-v e_b_v e_u-b e_u_b e_v-r e_v_r e_v-i e_v_i
qual qualityflag ikmag imeankronmag class mode clean dupvar
epoch epochmean mjd obsdate ref_epoch epra-1990
""".split()

#: Every column name that is understood, in lower case (where case tells two apart, as it is).
KNOWN_NAMES = {
    *OTHER_NAMES,
    *(name for known in POSITION_NAMES.values() for name in known),
    *(name for known, _ in EXTRA_NAMES.values() for name in known),
    *(name for needed, _, _ in FAMILIES.values() for name in needed),
    *(
        name
        for _, _, bands in FAMILIES.values()
        for values, errors, _ in bands.values()
        for name in (*values, *errors)
    ),
}


def is_star(values, n, family):
    """Tell which rows are good entries of point sources, as far as the columns say.

    Parameters
    ----------
    values : callable
        Gives the numbers of the first column among some names, or None: ``values("mjd")``.
    n : int
        Number of rows.
    family : str
        Name in `FAMILIES`.

    Returns
    -------
    numpy.ndarray of bool, shape (n,)
        False for galaxies, doubtful and second entries of Pan-STARRS and SDSS. Pan-STARRS: not
        extended by its bits or by the PSF minus the Kron magnitude in i (0.05 mag), and good in
        single exposures or in the stack. SDSS: star, primary, clean photometry.
    """
    star = np.ones(n, bool)
    if family.startswith("ps1"):
        quality = values("qual", "qualityflag")
        if quality is not None:
            bits = np.nan_to_num(quality).astype(int)
            # Bits 1, 2: extended; 4, 16: good in single exposures or in the stack.
            star &= (bits & 3 == 0) & (bits & 20 != 0)
        point, whole = values("imag", "imeanpsfmag"), values("ikmag", "imeankronmag")
        if point is not None and whole is not None:
            with np.errstate(invalid="ignore"):
                galaxy = (point - whole > 0.05) & (np.abs(point) < 40) & (np.abs(whole) < 40)
            star &= ~galaxy
    if family.startswith("sdss"):
        for name, wanted in (("class", 6), ("mode", 1), ("clean", 1)):
            column = values(name)
            if column is not None:
                star &= column == wanted
    return star


def magnitudes(values, family, bands):
    """Magnitudes of a family, NaN where there is none.

    Parameters
    ----------
    values : callable
        As for `is_star`.
    family : str
        Name in `FAMILIES`.
    bands : dict
        Its magnitudes there.

    Returns
    -------
    dict
        ``{"g": (values, errors or None, "PS1 AB")}``, arrays of floats.
    """
    if family in ("landolt", "ubv"):
        return _from_colours(values)
    result = {}
    for ours, (theirs, errors, system) in bands.items():
        value, error = values(*theirs), values(*errors)
        if value is None:
            continue
        wrong = ~(np.abs(value) < 40)
        if family == "refcat2":
            wrong |= value == 0  # The catalogue's own files write 0 where there is nothing.
        if family.startswith("ps1"):
            wrong |= value < PS1_SATURATION[ours]
        result[ours] = (np.where(wrong, np.nan, value), error, system)
    return result


def _from_colours(values):
    """Magnitudes of a table that has V and colours, as Landolt's has."""
    system, known = "Landolt Vega", {}
    known["V"] = (values("vmag"), values("e_vmag"))
    for ours, base, name, sign in (
        ("B", "V", "b-v", 1), ("U", "B", "u-b", 1), ("R", "V", "v-r", -1), ("I", "V", "v-i", -1)
    ):  # fmt: skip
        other = name.replace("-", "_")
        colour, error = values(name, other), values(f"e_{name}", f"e_{other}")
        if colour is not None and base in known:
            value, base_error = known[base]
            errors = None if error is None or base_error is None else np.hypot(base_error, error)
            known[ours] = (value + sign * colour, errors)
    order = [name for name in "UBVRI" if name in known]
    return {name: (*known[name], system) for name in order}
