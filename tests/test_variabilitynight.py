"""The stage variables: tables and figures of a night, with the truth of the simulated one."""

import json

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from datared import read_photometry
from datared.errors import DataredError
from datared.listing import product_name
from datared.night import Night
from datared.variability import star_curves, variable_stars
from datared.variabilitynight import flag_passages, variables_night
from tests.test_truth import reduced
from tests.variablenights import light
from tests.variablenights import night as moving_night

FILES = {
    "variables.ecsv", "variables.png", "movers.ecsv", "mover_detections.ecsv", "movers.png"
}  # fmt: skip


def on_disk(work, *, n_frames=60, filters=("r",), radius=1.4):
    """Write a night with a variable star (number 3) and a mover, as the stages before leave it."""
    result = light(1, variable=3, n_epoch=n_frames, filters=filters)
    lists, times = moving_night(1, rate=0.5, n_frames=n_frames)
    (work / "sources").mkdir(parents=True)
    result.epochs["file"] = [f"frame_{k:03d}.fits" for k in range(n_frames)]
    result.epochs["jd_utc_mid"] = times
    for file, table in zip(result.epochs["file"], lists, strict=True):
        table.write(work / "sources" / f"{product_name(file)}.ecsv", format="ascii.ecsv")
    names = ("flux", "flux_err", "flags", "sky", "x", "y")
    table = Table({name: getattr(result, name) for name in names})
    table.meta = {"NRADII": 1, "RADIUS0": 1.0, "RADUNIT": "fwhm", "DEFRAD": 0}
    table.write(work / "photometry.fits")
    result.stars.meta["radius_arcsec"] = radius
    result.stars.write(work / "stars.ecsv", format="ascii.ecsv")
    result.epochs.write(work / "epochs.ecsv", format="ascii.ecsv")
    return Night(name="t", raw=work / "raw", work=work)


def test_variables_night_writes_its_tables_and_figures(tmp_path):
    """MV-01, MV-02, MV-03, LC-07: the products, the same bytes again, nothing made twice."""
    night = on_disk(tmp_path / "work")
    done = variables_night(night)
    assert done["status"].tolist() == ["made", "made"]
    assert done["file"].tolist() == ["movers.ecsv", "variables.ecsv"]
    assert {path.name for path in night.work.iterdir()} >= FILES
    variables = Table.read(night.work / "variables.ecsv")
    assert variables["star"][variables["class"] == "variable"].tolist() == [3]
    assert set(variables["filter"]) == {"r"}
    movers = Table.read(night.work / "movers.ecsv")
    assert len(movers) == 1
    assert movers["rate"][0] == pytest.approx(0.5, rel=0.03)
    found = Table.read(night.work / "mover_detections.ecsv")
    assert found["file"][0] == f"frame_{found['frame'][0]:03d}.fits"
    before = {name: (night.work / name).read_bytes() for name in FILES}
    assert set(variables_night(night)["status"]) == {"current"}
    (night.work / "movers.png").unlink()
    assert variables_night(night)["status"].tolist() == ["made", "current"]
    assert before == {name: (night.work / name).read_bytes() for name in FILES}


def test_variables_night_of_few_frames_and_two_filters(tmp_path):
    """MV-02, MV-03: four frames of two filters: all unknown, no mover, no failure."""
    night = on_disk(tmp_path / "work", n_frames=4, filters=("g", "r"))
    assert set(variables_night(night)["status"]) == {"made"}
    variables = Table.read(night.work / "variables.ecsv")
    assert set(variables["class"]) == {"unknown"}
    assert len(variables) == 300 and set(variables["filter"]) == {"g", "r"}
    assert len(Table.read(night.work / "movers.ecsv")) == 0
    assert len(Table.read(night.work / "mover_detections.ecsv")) == 0


def test_variables_are_not_stars_that_a_mover_passes():
    """MV-03: a star that a mover passes seems to vary; its light comes with a flag."""
    night = light(17)
    # Star 20 lies at the place where the mover is in the middle of the night, as bright as it.
    ra, dec = night.stars["ra"][20], night.stars["dec"][20]
    minutes = (np.asarray(night.epochs["jd_utc_mid"]) - night.epochs["jd_utc_mid"][60]) * 1440
    movers = Table({"ra0": [ra], "dec0": [dec], "rate_ra": [0.3], "rate_dec": [0.4]})
    movers["t0"] = night.epochs["jd_utc_mid"][60]
    away = 0.5 * np.abs(minutes)  # arcsec
    night.flux[20, :, 0] *= 1 + np.exp(-0.5 * (away / 2.5) ** 2)
    before = variable_stars(star_curves(night))
    assert before["class"][20] == "variable"
    flagged = flag_passages(night, movers)
    new = (flagged.flags != night.flags)[20, :, 0]
    # Aperture and three widths are about 4 x 2.6 px of 1.2 arcsec.
    assert new.tolist() == (away < 4.8 * np.asarray(night.epochs["fwhm"])).tolist()
    after = variable_stars(star_curves(flagged))
    assert after["class"][20] == "stable"
    assert night.flags.sum() == 0


def test_variables_night_without_photometry(tmp_path):
    """MV-03: the stage that is missing is named; a list that is gone costs its frame alone."""
    with pytest.raises(DataredError, match="up to the stage photometry"):
        variables_night(Night(name="t", raw=tmp_path, work=tmp_path))
    night = on_disk(tmp_path / "work", n_frames=30)
    (night.work / "sources" / "frame_004.ecsv").unlink()
    (night.work / "sources" / "frame_005.ecsv").write_text("nothing that can be read")
    assert set(variables_night(night)["status"]) == {"made"}
    assert len(Table.read(night.work / "movers.ecsv")) == 1


@pytest.mark.slow
def test_variables_and_mover_of_the_simulated_transit_night(once, transit_toml):
    """MV-02, MV-03: variable and mover as in the truth, period to 1 %, rate to 3 %, no false one.

    The transit's own star does change; no other one may be called variable.
    """
    night = reduced(once, "transit", transit_toml, ("lightcurve",))
    variables_night(night)
    truth = json.loads((night.truth / "parameters.json").read_text())
    stars = Table.read(night.truth / "stars.ecsv")
    table = Table.read(night.work / "variables.ecsv")
    first = table[table["rank"] == 1][0]
    place = stars[stars["variable"]][0]
    here, there = (SkyCoord(row["ra"], row["dec"], unit="deg") for row in (first, place))
    assert here.separation(there).arcsec < 1
    assert first["class"] == "variable"
    assert first["period"] == pytest.approx(truth["variable"]["period"], rel=0.01)
    assert first["amplitude"] == pytest.approx(truth["variable"]["amplitude"], abs=0.005)
    target = int(np.flatnonzero(read_photometry(night).stars["target"])[0])
    called = set(table["star"][table["class"] == "variable"].tolist())
    assert called <= {int(first["star"]), target}
    # Of the constant stars (known ones) at least 95 % are stable: here all.
    movers = Table.read(night.work / "movers.ecsv")
    assert len(movers) == 1
    assert movers["rate"][0] == pytest.approx(truth["mover"]["rate_per_minute"], rel=0.03)
    angle = truth["mover"]["position_angle"]
    assert movers["position_angle"][0] == pytest.approx(angle, abs=0.1)
    path = Table.read(night.truth / "mover.ecsv")
    found = Table.read(night.work / "mover_detections.ecsv")
    rows = [int(np.flatnonzero(path["file"] == file)[0]) for file in found["file"]]
    east = (found["ra"] - path["ra"][rows]) * np.cos(np.radians(found["dec"])) * 3600
    assert np.median(np.abs(east)) < 0.1
