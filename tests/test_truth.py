"""The two simulated nights from raw frames to results, against the truth beside them."""

import json
import shutil

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.stats import sigma_clip
from astropy.table import Table
from astropy.wcs import WCS

from datared import frames, load_night, pipeline, read_photometry
from datared.catalogs import match
from datared.summary import summarise
from datared.transit import fit_transit

pytestmark = pytest.mark.slow


def reduced(once, name, toml, upto):
    """Copy a simulated night and reduce it, once per run."""

    def make(folder):
        shutil.copytree(toml.parent, folder / "night")
        night = load_night(folder / "night")
        for stage in upto:
            pipeline.run(night, upto=stage)

    return load_night(once(f"truth-{name}", make) / "night")


@pytest.fixture(scope="module")
def cluster(once, cluster_toml):
    """The cluster night with magnitudes and stacks."""
    return reduced(once, "cluster", cluster_toml, ("magnitudes", "stack"))


@pytest.fixture(scope="module")
def transit(once, transit_toml):
    """The transit night with its light curve."""
    return reduced(once, "transit", transit_toml, ("lightcurve",))


def true_stars(night, stars):
    """Rows of the star list and of the truth that are the same star, each alone on the sky."""
    truth = Table.read(night.truth / "stars.ecsv")
    i, j, _ = match(
        SkyCoord(stars["ra"], stars["dec"], unit="deg"),
        SkyCoord(truth["ra"], truth["dec"], unit="deg"),
        radius=1 * u.arcsec,
    )
    # Of the light of such a star less than 0.2 % is a neighbour's.
    alone = (truth["contamination"][j] < 0.002) & (truth["kind"][j] != "saturated")
    alone &= ~truth["variable"][j]
    return i[alone], truth[j[alone]]


@pytest.mark.parametrize("name", ["cluster", "transit"])
def test_every_frame_but_the_clouded_one_is_solved(name, request):
    """AS-02, 000-31: residuals below 0.1 px, the sky within 0.1 arcsec of truth to the corners."""
    night = request.getfixturevalue(name)
    truth = Table.read(night.truth / "frames.ecsv")
    table = Table.read(night.work / "astrometry.ecsv")
    cloudy = dict(zip(truth["file"], truth["cloudy"], strict=True))
    failed = [row["file"] for row in table if row["status"] == "failed"]
    assert failed == [file for file, cloud in cloudy.items() if cloud]
    good = table[table["status"] != "failed"]
    assert len(good) == len(truth) - sum(truth["cloudy"]) and good["rms_px"].max() < 0.1
    flipped = dict(zip(truth["file"], truth["flipped"], strict=True))
    assert all(bool(row["flipped"]) == flipped[row["file"]] for row in good)
    for row in good:
        stem = frames.product_name(row["file"])
        ccd = frames.read_product(night.work / "solved" / f"{stem}.fits")
        true = next((night.truth / "wcs").glob(f"*{row['file'].split('/')[-1][:-5]}*"))
        exact = WCS(fits.Header.fromtextfile(true))
        y, x = np.mgrid[0 : ccd.shape[0] : 9j, 0 : ccd.shape[1] : 9j]
        off = ccd.wcs.pixel_to_world(x, y).separation(exact.pixel_to_world(x, y)).arcsec
        assert np.median(off) < 0.03 and off.max() < 0.1


def test_pulls_of_fluxes_have_unit_width(cluster):
    """(measured - true) / error: width 0.9 to 1.1 in every radius and filter."""
    result = read_photometry(cluster)
    i, truth = true_stars(cluster, result.stars)
    assert len(i) > 150
    by_file = {row["file"]: row for row in Table.read(cluster.truth / "frames.ecsv")}
    for radius in range(len(result.radii)):
        pulls = []
        for k, epoch in enumerate(result.epochs):
            frame = by_file[epoch["file"]]
            flux = frame["exptime"] * 10 ** (
                -0.4 * (np.asarray(truth[frame["filter"]]) - frame["zero_point"])
            )
            measured, error = (a[i, k, radius] for a in (result.flux, result.flux_err))
            good = np.isfinite(measured) & (result.flags[i, k, radius] == 0)
            strong = good & (measured > 100 * error)
            # The share of the light inside the radius is the same for all stars of a frame.
            share = np.median(measured[strong] / flux[strong])
            pulls.append(((measured - share * flux) / error)[good])
        pulls = np.concatenate(pulls)
        # With 2000 pulls the width itself is known to 0.03 (median absolute deviation).
        width = 1.4826 * np.median(np.abs(pulls - np.median(pulls)))
        assert len(pulls) > 1500 and 0.9 < width < 1.1, (radius, width)


def test_magnitudes_are_those_of_the_truth(cluster):
    """No offset beyond 5 mmag in any band, and errors that are true."""
    table = Table.read(cluster.work / "magnitudes.ecsv")
    i, truth = true_stars(cluster, table)
    pulls = []
    for band in "gri":
        assert table[band].meta["system"] == "PS1 AB"
        found = np.ma.filled(np.ma.asarray(table[band], float), np.nan)[i]
        error = np.ma.filled(np.ma.asarray(table[f"{band}_err"], float), np.nan)[i]
        off = found - np.asarray(truth[band])
        good = np.isfinite(off) & (error < 0.02) & (np.asarray(table[f"{band}_flags"])[i] == 0)
        assert good.sum() > 80
        # Errors of 0.01 mag of a star, 80 stars, and 240 catalogue stars with 0.015: 1.7 mmag.
        assert abs(np.median(off[good])) < 0.005
        # The error of the zero point is common to the stars of a band.
        pulls.append((off[good] - np.median(off[good])) / error[good])
    pulls = sigma_clip(np.concatenate(pulls), sigma=4).compressed()
    assert len(pulls) > 240
    # The width of 240 pulls is known to 1 / sqrt(480) = 0.046.
    assert abs(np.std(pulls) - 1) < 3 * 0.046


def test_cmd_truth(cluster):
    """The single members of the cluster stand on their isochrone within 0.03 mag in colour."""
    table = Table.read(cluster.work / "magnitudes.ecsv")
    i, truth = true_stars(cluster, table)
    single = np.asarray(truth["member"] & ~truth["binary"] & (truth["g"] < 17))
    g, red = (np.ma.filled(np.ma.asarray(table[b], float), np.nan)[i] for b in "gi")
    off = (g - red - np.asarray(truth["g"] - truth["i"]))[single]
    off = off[np.isfinite(off)]
    assert len(off) > 40
    assert abs(np.median(off)) < 0.01 and 1.4826 * np.median(np.abs(off)) < 0.03


def test_stack_leaves_the_cloud_out_and_the_trail(cluster):
    """Five frames of g, four of r; the trail's pixels are no brighter than their surroundings."""
    stacks = {b: frames.read_product(cluster.work / "stack" / f"{b}.fits") for b in "gri"}
    assert [stacks[b].meta["NCOMBINE"] for b in "gri"] == [5, 4, 5]
    assert stacks["g"].meta["EXPTIME"] == 300 and stacks["r"].meta["EXPTIME"] == 120
    assert (cluster.work / "stack" / "colour.png").is_file()


def test_light_curve_holds_the_planet(transit):
    """Scatter at most 1.15 times the expected one; depth and time within three errors."""
    truth = json.loads((transit.truth / "parameters.json").read_text())
    curve = Table.read(transit.work / "lightcurve.ecsv")
    true = Table.read(transit.truth / "lightcurves.ecsv")
    assert list(curve["file"]) == list(true["file"])
    assert np.abs(curve["bjd_tdb_mid"] - true["bjd_tdb_mid"]).max() * 86400 < 10
    twinkle = Table.read(transit.truth / "frames.ecsv")["scintillation"]
    good = np.isfinite(curve["flux"]) & ~curve["cloudy"]
    time, flux, side = (np.array(curve[n])[good] for n in ("bjd_tdb_mid", "flux", "flipped"))
    error = np.hypot(curve["flux_err"], twinkle)[good]
    rest = flux / np.array(true["target"])[good]
    for value in np.unique(side):
        rest[side == value] /= np.median(rest[side == value])
    # The ratio of 110 epochs is known to 7 %.
    assert np.std((rest - 1) / error) < 1.15
    fit = fit_transit(
        time, flux, error, baseline=side.astype(float), exposure=60 / 86400,
        **{k: truth[k] for k in ("period", "scaled_axis", "impact", "limb_darkening")},
    )  # fmt: skip
    assert fit.significant
    off = fit.values["mid_time"] - truth["mid_time"]
    assert abs(off) < 3 * fit.errors["mid_time"] and abs(off) * 1440 < 2
    depth, depth_err = fit.values["depth"], fit.errors["depth"]
    assert abs(depth - truth["depth"]) < 3 * depth_err and depth_err < 0.001


def test_summary_says_what_was_found(cluster, transit):
    """The lines that `datared run` prints hold the numbers of the tables."""
    assert "px (0.0" in summarise(cluster, "solved")[0]
    magnitudes = summarise(cluster, "magnitudes")
    assert magnitudes[0].startswith("g: zero point 22.") and "PS1 AB" in magnitudes[0]
    assert [line.split(":")[1] for line in summarise(cluster, "stack")] == [
        " 5 frames, 300 s",
        " 5 frames, 150 s",
        " 4 frames, 120 s",
    ]
    assert summarise(cluster, "masters") == [] and summarise(cluster, "lightcurve") == []
    dip = summarise(transit, "lightcurve")[-1]
    assert dip.startswith("a dip of 1.") and "BJD_TDB 2460587.44" in dip


def test_injected_troublemakers_are_no_comparison_stars(transit):
    """The saturated star, the variable and the one that leaves the frame are refused, by name."""
    comparisons = Table.read(transit.work / "comparisons.ecsv")
    truth = Table.read(transit.truth / "stars.ecsv")
    stars = SkyCoord(comparisons["ra"], comparisons["dec"], unit="deg")
    for kind, word in (("saturated", "saturated"), ("variable", "scatter"), ("edge", "edge")):
        star = truth[truth["kind"] == kind][0]
        separation = stars.separation(SkyCoord(star["ra"], star["dec"], unit="deg"))
        row = comparisons[int(np.argmin(separation))]
        assert separation.min() < 2 * u.arcsec
        assert not row["used"] and word in row["reason"], (kind, row["reason"])
