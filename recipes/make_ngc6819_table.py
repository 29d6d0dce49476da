"""Make ``book/data/ngc6819_photometry.ecsv``: our own B and V of the stars of NGC 6819.

Run from the repository: ``python recipes/make_ngc6819_table.py``. The raw frames (52 MB) are
downloaded, or taken from the folder that DATARED_DATA names, which also has the list of standard
stars. The night is reduced from the raw frames to calibrated magnitudes, with the settings of
``datared/data/ngc6819.toml``; nothing of another catalogue is written into the table.
"""

import tempfile
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import MaskedColumn, Table

import datared

PATH = Path(__file__).parents[1] / "book" / "data" / "ngc6819_photometry.ecsv"


def photometry_table(night):
    """Table of a reduced night: positions, magnitudes, their own errors, numbers and flags."""
    found = Table.read(night.work / "magnitudes.ecsv", format="ascii.ecsv")
    solution = Table.read(night.work / "standards.ecsv", format="ascii.ecsv")
    table = Table()
    for name in ("ra", "dec"):
        table[name] = np.round(np.asarray(found[name], float), 6)
        table[name].unit = u.deg
    terms, filters = found.meta["filters"], {}
    colour = values(found["B"]) - values(found["V"])
    for name in ("V", "B"):
        term = terms[name]
        # What all stars have in common is told once, below: it widens no sequence.
        common = term["common_error"] ** 2
        # A star without a colour has no known share in it: that stays in its own error.
        common = common + (term["colour_term_err"] * np.nan_to_num(colour - term["pivot"])) ** 2
        own = np.sqrt(np.maximum(values(found[f"{name}_err"]) ** 2 - common, 1e-6))
        for column, numbers in ((name, values(found[name])), (f"{name}_err", own)):
            table[column] = MaskedColumn(np.round(numbers, 4), mask=~np.isfinite(numbers))
            table[column].unit = u.mag
            table[column].meta["system"] = found[name].meta["system"]
        for key in ("n", "flags"):
            table[f"{name}_{key}"] = np.asarray(found[f"{name}_{key}"], int)
        row = solution[solution["filter"] == name][0]
        keys = ("zero_point_0", "extinction", "colour_term", "colour_term_err", "airmass")
        filters[name] = {key: round(float(row[key]), 4) for key in keys}
        filters[name] |= {"zero_point_err": round(float(term["common_error"]), 4)}
        filters[name] |= {key: str(row[key]) for key in ("extinction_source", "colour_source")}
    table = table[np.isfinite(values(table["V"])) | np.isfinite(values(table["B"]))]
    order = np.argsort(values(table["V"]), kind="stable")
    table = table[order]
    table.meta = {
        "what": "NGC 6819, Lick Nickel 1 m, 2019-09-24: aperture photometry of 3 x 60 s in B and V",
        "made_by": "recipes/make_ngc6819_table.py",
        "zero": "Landolt 111-1925 (Landolt 2009, AJ 137, 4186)",
        "filters": filters,
    }
    return table


def values(column):
    """Column as plain floats, NaN where it is masked."""
    return np.ma.filled(np.ma.asarray(column, dtype=float), np.nan)


def main():
    """Reduce the night in a scratch folder and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        night = datared.fetch_night("ngc6819", upto="magnitudes", folder=Path(folder) / "ngc6819")
        table = photometry_table(night)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    table.write(PATH, format="ascii.ecsv", overwrite=True)


if __name__ == "__main__":
    main()
