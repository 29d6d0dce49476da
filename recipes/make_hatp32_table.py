"""Make ``book/data/hat-p-32``: our own measurements of stars around HAT-P-32 in one night.

Run from the repository: ``python recipes/make_hatp32_table.py``. The 142 raw frames (93 MB) are
downloaded, or taken from the folder that DATARED_DATA names, and reduced up to the photometry with
the settings of ``datared/data/hat-p-32.toml``: some minutes. The work folder of a night that was
reduced before can be given instead: ``python recipes/make_hatp32_table.py nights/hat-p-32/work``.

The folder has the three files of a night's photometry, but only for some of the stars: the target,
the second variable star of the field, the stars that the target is compared with, and some of its
brightness that are refused. So the page gets the light curve that the whole night gives.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

import datared
from datared import lightcurve

FOLDER = Path(__file__).parents[1] / "book" / "data" / "hat-p-32"
#: The other star of the field that changes within hours, and how near a star must be to be it.
VARIABLE = SkyCoord(31.457, 47.012, unit="deg")
NEAR = 5 * u.arcsec
#: 142 epochs x 5 radii of so many stars stay below 700 kB.
N_STARS = 70
#: Decimals of numbers in the two text files: far below their noise.
DECIMALS = {
    "ra": 6, "dec": 6, "brightness": 1, "snr": 1, "x": 2, "y": 2, "cat_separation": 2,
    "cat_pm_ra": 2, "cat_pm_dec": 2,
    "jd_utc_mid": 8, "bjd_tdb_mid": 8, "airmass": 5, "fwhm": 3, "sky": 2, "sky_noise": 3,
    "rms": 3, "scale": 4, "radii": 2, "growth": 4,
}  # fmt: skip


def chosen_stars(photometry):
    """Rows of the stars for the table, in the order of the night's list (brightest first).

    Parameters
    ----------
    photometry : Photometry
        All stars of the night; one of them is the target.

    Returns
    -------
    ndarray of int, shape (N_STARS,)
        Target, second variable, comparison stars of the night, and stars that are refused.
    """
    stars = photometry.stars
    target = int(np.flatnonzero(stars["target"])[0])
    away = SkyCoord(stars["ra"], stars["dec"], unit="deg").separation(VARIABLE)
    variable = int(np.argmin(away))
    if away[variable] > NEAR:
        raise SystemExit(f"no star within {NEAR} of {VARIABLE.to_string()}: nothing is written")
    used = np.zeros(len(stars), bool)
    # The stars are chosen twice: in the default radius, and in the one that they then decide for.
    for radius in (photometry.default_radius, None):
        _, compared = lightcurve.differential_light_curve(photometry, radius=radius)
        used |= np.asarray(compared["used"], bool)
    first = list(dict.fromkeys([target, variable, *np.flatnonzero(used).tolist()]))
    if len(first) > N_STARS:
        raise SystemExit(f"{len(first)} stars are needed: N_STARS must be as many at least")
    # To them come stars as bright as the target that a selection must refuse.
    unlike = np.abs(np.log(stars["brightness"] / stars["brightness"][target]))
    marked = photometry.flags[:, :, photometry.default_radius] != 0
    refused = np.flatnonzero(np.mean(marked, axis=1) > 0.1)
    more = [int(k) for k in refused[np.argsort(unlike[refused], kind="stable")] if k not in first]
    return np.sort((first + more)[:N_STARS])


def smaller(photometry, rows):
    """Photometry of some of the stars only, with as many digits as they deserve."""
    stars, epochs = photometry.stars[rows], photometry.epochs.copy()
    stars["star"] = np.arange(len(rows))
    stars.meta |= {
        "what": "HAT-P-32, MicroObservatory 6 inch, 2017-12-20: 142 frames of 60 s, no filter",
        "made_by": "recipes/make_hatp32_table.py",
        "stars_of_the_night": len(photometry.stars),
    }
    for table in (stars, epochs):
        for name in DECIMALS.keys() & set(table.colnames):
            table[name] = np.round(table[name], DECIMALS[name])
    cubes = ("flux", "flux_err", "flags", "sky", "x", "y")
    return replace(
        photometry, stars=stars, epochs=epochs, **{n: getattr(photometry, n)[rows] for n in cubes}
    )


def write(photometry, folder):
    """Write the three files that `datared.read_photometry` reads."""
    cube = Table({"star": np.asarray(photometry.stars["star"], np.int16)})
    for name in ("flux", "flux_err"):
        cube[name] = getattr(photometry, name).astype(np.float32)
    cube["flags"] = photometry.flags.astype(np.int16)
    for name in ("sky", "x", "y"):
        cube[name] = getattr(photometry, name).astype(np.float32)
    cube.meta = {"NRADII": len(photometry.radii), "RADUNIT": photometry.radius_unit}
    cube.meta |= {f"RADIUS{k}": radius for k, radius in enumerate(photometry.radii)}
    cube.meta |= {"DEFRAD": photometry.default_radius, "GAIN_E": photometry.gain}
    folder.mkdir(parents=True, exist_ok=True)
    cube.write(folder / "photometry.fits", format="fits", overwrite=True)
    for name in ("stars", "epochs"):
        table = getattr(photometry, name)
        table.write(folder / f"{name}.ecsv", format="ascii.ecsv", overwrite=True)


def main():
    """Reduce the night in a scratch folder, or take one that is there, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", nargs="?", help="work folder of a night that has its photometry")
    work = parser.parse_args().work
    with tempfile.TemporaryDirectory() as folder:
        if work is None:
            place = Path(folder) / "hat-p-32"
            work = datared.fetch_night("hat-p-32", upto="photometry", folder=place).work
        photometry = datared.read_photometry(Path(work))
    write(smaller(photometry, chosen_stars(photometry)), FOLDER)


if __name__ == "__main__":
    main()
