"""Make ``book/data/ngc6819_posterior.ecsv``: isochrones fitted to our photometry of NGC 6819.

Run from the repository: ``python recipes/fit_ngc6819.py FOLDER``, some minutes. FOLDER holds
isochrones of PARSEC v1.2S in U to K, one file for each metallicity, from the CMD service of
Padova; they are not part of this package. The table has samples of two posteriors, one with the
embedded isochrones, one with these.
"""

import sys
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack

from datared.clusterfit import fit_isochrone
from datared.isochronefiles import read_isochrones
from datared.isochronegrid import embedded_grid

DATA = Path(__file__).parents[1] / "book" / "data"
BANDS = ("B", "V")
KEPT = ("log_age", "metallicity", "distance_modulus", "a_v", "binary_fraction", "field_fraction")
N_KEPT = 400
# What is known before: [Fe/H] from spectra of the giants (Bragaglia et al. 2001, AJ 121, 327;
# Anthony-Twarog et al. 2014, AJ 148, 51: half way between, and as wide as they differ); our zero
# points and colour terms are good to 0.02 mag.
METALLICITY, ZERO_POINT_ERROR = (0.02, 0.08), 0.02


def fit(stars, name, grid):
    """Return some samples of one posterior and what tells whether they can be trusted."""
    result = fit_isochrone(
        stars, grid=grid, bands=BANDS, metallicity=METALLICITY,
        zero_point_error=ZERO_POINT_ERROR, max_steps=3000, seed=1,
    )  # fmt: skip
    result.summary().pprint_all()
    print(name, result.best, f"{result.n_effective:.0f} independent samples", result.converged)
    # A regular step would meet the same few walkers again and again.
    rows = np.random.default_rng(1).choice(len(result.samples), N_KEPT, replace=False)
    samples = result.samples[list(KEPT)][np.sort(rows)]
    for column in KEPT:
        samples[column] = np.round(samples[column], 4)
    samples.add_column(np.full(N_KEPT, name), index=0, name="isochrones")
    facts = {
        "n_stars": int(result.used.sum()),
        "limits": [round(limit, 3) for limit in result.limits],
        "converged": result.converged,
        "n_effective": round(result.n_effective),
    }
    return samples, facts


def main():
    """Fit both sets and write the table."""
    stars = Table.read(DATA / "ngc6819_photometry.ecsv")
    stars = stars[(stars["V_flags"] == 0) & (stars["B_flags"] == 0)]
    sets = {
        "embedded": embedded_grid(bands=BANDS),
        "PARSEC": read_isochrones(sys.argv[1], bands=list(BANDS)),
    }
    found = {name: fit(stars, name, grid) for name, grid in sets.items()}
    table = vstack([samples for samples, _ in found.values()], metadata_conflicts="silent")
    table.meta = {
        "what": "samples of the posterior of the cluster NGC 6819",
        "made_by": "recipes/fit_ngc6819.py",
        "metallicity_prior": list(METALLICITY),
        "zero_point_error": ZERO_POINT_ERROR,
        "fits": {name: facts for name, (_, facts) in found.items()},
    }
    table.write(DATA / "ngc6819_posterior.ecsv", format="ascii.ecsv", overwrite=True)


if __name__ == "__main__":
    main()
