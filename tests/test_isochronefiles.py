"""Isochrones of others: PARSEC and MIST files, damaged ones, our own, and the download."""

import dataclasses
import functools
import http.server
import io
import logging
import os
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from datared import isochronestore
from datared.columntext import read_columns
from datared.errors import ConfigError, DataredError
from datared.isochronefiles import fetch_isochrones, read_isochrones, save_grid
from datared.isochronegrid import embedded_grid
from datared.isochronestages import find_stages
from datared.isochronestore import load_grid

SHARED = Path(os.environ.get("DATARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
PARSEC = SHARED / "isochrones"
OLD = PARSEC / "parsec12_ubvrijhk"
NEW = PARSEC / "parsec33_ubvrijhk_1-4Gyr_step0.5.txt"
GAIA = PARSEC / "parsec_gaiaedr3_z0.0205.dat"
real = pytest.mark.skipif(not OLD.is_dir(), reason="no PARSEC isochrones in DATARED_DATA")


@pytest.fixture(scope="module")
def old():
    """Return the grid of CMD 2.7: three metallicities, 83 ages, UBVRIJHK."""
    return read_isochrones(OLD)


@pytest.fixture(scope="module")
def gaia():
    """Return the grid of CMD 3.6: one metallicity, 63 ages, Gaia."""
    return read_isochrones(GAIA)


def across(points, curve):
    """Return the distances (mag) of points of the diagram from a curve."""
    begin, step = curve[:-1], np.diff(curve, axis=0)
    away = points[:, None] - begin
    along = (away * step).sum(axis=2) / np.maximum((step**2).sum(axis=1), 1e-30)
    along = np.clip(along, 0, 1)[..., None]
    return np.sqrt(((away - along * step) ** 2).sum(axis=2)).min(axis=1)


def diagram(grid, magnitudes, bands, used):
    """Return colour and magnitude of the used points, shape (n, 2)."""
    first, second = (magnitudes[used, list(grid.bands).index(band)] for band in bands)
    return np.column_stack([first - second, second])


# --- PARSEC ---------------------------------------------------------------------------------------


@real
def test_isochrone_grid_parsec_systems(old, gaia):
    """CM-03, CM-05: bands, systems, axes and source are those of the files."""
    assert old.metallicities.tolist() == [-0.153, 0.024, 0.154]
    np.testing.assert_allclose(old.log_ages, np.arange(6.0, 10.11, 0.05), atol=1e-6)
    assert {band: old.bands[band] for band in "BVRIJ"} == {
        "B": "Johnson Vega",
        "V": "Johnson Vega",
        "R": "Cousins Vega",
        "I": "Cousins Vega",
        "J": "Bessell Vega",
    }
    assert "v1.2S" in old.source and "CMD 2.7" in old.source and old.rotation is None
    assert gaia.bands == dict.fromkeys(("G", "BP", "RP"), "Gaia Vega")
    assert "CMD 3.6" in gaia.source
    two = read_isochrones(NEW, bands=("V", "B"))
    assert list(two.bands) == ["V", "B"]
    whole = read_isochrones(NEW)
    np.testing.assert_array_equal(
        two.magnitudes[..., 0], whole.magnitudes[..., list(whole.bands).index("V")]
    )


@real
def test_isochrone_grid_is_the_file_at_its_own_ages():
    """CM-03, CM-05: at an age of the file the grid passes within 0.01 mag of every star of it.

    Two rows can be half a magnitude apart; between them the grid goes straight, as the file does,
    so only corners are cut.
    """
    grid = read_isochrones(NEW, bands=("B", "V"))
    rows = np.loadtxt(NEW)
    for age in (1.0, 2.5, 4.0):
        stars = grid.at(age)
        mine = np.column_stack([stars["B"] - stars["V"], stars["V"]])
        there = (np.abs(rows[:, 2] - np.log10(age) - 9) < 1e-4) & (rows[:, 9] < 8)
        points = np.column_stack([rows[there, 26] - rows[there, 27], rows[there, 27]])
        distance = across(points, mine)
        assert np.median(distance) < 0.001
        assert distance.max() < 0.01
        low = rows[there, 3] < 0.95 * stars["mass"][stars["phase"] == 1][-1]
        values = np.interp(rows[there, 3][low], stars["mass"], stars["V"])
        assert np.median(np.abs(values - rows[there, 27][low])) < 0.01


@real
def test_isochrone_grid_leave_one_out(old, gaia):
    """CM-05: an isochrone that was taken out returns from its neighbours, 0.1 dex apart.

    Main sequence, turn-off and subgiants above 0.75 Msun within 0.03 mag across the curve, 0.002
    mag in the median. Two places are not smooth in PARSEC itself and get 0.08 mag: log age 9.45
    to 9.6, where the hook of the turn-off ends, and the dwarfs below, whose rows are half a
    magnitude apart.
    """
    for grid, bands in ((old, ("B", "V")), (gaia, ("BP", "G"))):
        last = grid.metallicities.size // 2
        for k in np.flatnonzero((grid.log_ages > 7.4) & (grid.log_ages < 10.09)):
            before, truth, after = (grid.magnitudes[last, i] for i in (k - 1, k, k + 1))
            guess = (before + after) / 2
            used = (grid.phase <= 2) & np.isfinite(guess[:, 0])
            distance = across(
                diagram(grid, truth, bands, used),
                diagram(grid, guess, bands, (grid.phase <= 3) & np.isfinite(guess[:, 0])),
            )
            massive = grid.mass[last, k, used] > 0.75
            hook = 9.42 < grid.log_ages[k] < 9.62
            assert np.median(distance) < (0.005 if hook else 0.002), grid.log_ages[k]
            assert distance[massive].max() < (0.08 if hook else 0.03), grid.log_ages[k]
            assert distance.max() < 0.08, grid.log_ages[k]


@real
def test_isochrone_grid_between_metallicities(old):
    """CM-05: Z = 0.0155 from 0.0105 and 0.0205 (0.3 dex): 0.03 mag from 0.3 Msun to the giants."""
    low, middle, high = old.metallicities
    weight = (middle - low) / (high - low)
    for log_age in (8.0, 8.5, 9.0, 9.3, 9.7, 10.0):
        k = int(np.argmin(np.abs(old.log_ages - log_age)))
        guess = (1 - weight) * old.magnitudes[0, k] + weight * old.magnitudes[2, k]
        used = (old.phase >= 1) & (old.phase <= 2) & (old.mass[1, k] > 0.3)
        distance = across(
            diagram(old, old.magnitudes[1, k], ("B", "V"), used),
            diagram(old, guess, ("B", "V"), old.phase <= 3),
        )
        assert np.median(distance) < 0.005
        assert distance.max() < 0.03


@real
def test_isochrone_grid_stages_by_shape_are_those_of_the_labels():
    """CM-03: the stages that version 2.7 does not tell, found by shape where labels tell them.

    In 3.3 and 3.6, 18 Myr to 13 Gyr: end of the main sequence within 0.012 dex in Teff (the label
    ends later than the hottest star), foot of the giants within 0.02 dex in Teff, tip within 2
    rows; the end of helium burning is the least certain: 0.5 dex in log L, 0.15 in the median.
    """
    for path in (GAIA, NEW):
        rows = np.loadtxt(path)
        rows = rows[(rows[:, 9] < 8) & (rows[:, 2] > 7.24)]
        late = []
        for age in np.unique(rows[:, 2]):
            _, _, _, mass, _, _, log_l, log_teff, _, label = rows[rows[:, 2] == age, :10].T
            ends = [int(np.argmax(label >= stage)) - 1 for stage in (2, 3, 4, 7)]
            found = find_stages(mass, log_teff, log_l)
            assert 0 <= log_teff[found.main_sequence] - log_teff[ends[0]] < 0.012, age
            assert abs(log_teff[found.subgiant] - log_teff[ends[1]]) < 0.02, age
            assert abs(found.red_giant - ends[2]) <= 2, age
            late.append(abs(log_l[found.helium] - log_l[ends[3]]))
        assert max(late) < 0.5
        assert np.median(late) < 0.15


@real
def test_isochrone_grid_contracting_stars(old):
    """CM-03: stars below the turn-on are phase 0, and end where stars reach the main sequence.

    Times on the way to the main sequence (Baraffe et al. 2015 and older models alike): about
    10 Myr for 2 Msun, 30 to 50 Myr for 1 Msun, 100 to 200 Myr for 0.5 Msun.
    """
    for age, low, high in ((0.01, 1.6, 2.4), (0.04, 0.8, 1.2), (0.15, 0.4, 0.65)):
        stars = old.at(age, 0.0)
        assert low < stars["mass"][stars["phase"] == 0].max() < high
    assert 0 not in old.at(3.0, 0.0)["phase"]
    # A contracting star of 0.5 Msun is brighter than a settled one.
    young, settled = (old.at(age, 0.0) for age in (0.01, 1.0))
    bright, faint = (np.interp(0.5, stars["mass"], stars["V"]) for stars in (young, settled))
    assert 0.8 < faint - bright < 3.0


@real
def test_isochrone_grid_without_thermal_pulses():
    """CM-03: the thermally pulsing stars of 3.3 and the white dwarfs after them are left out."""
    stars = read_isochrones(NEW).at(2.0)
    assert set(stars["phase"].tolist()) <= {0, 1, 2, 3, 4, 5}
    rows = np.loadtxt(NEW)
    here = np.abs(rows[:, 2] - 9.30103) < 1e-4
    assert stars["mass"][-1] == pytest.approx(rows[here & (rows[:, 9] == 7), 3].max(), rel=1e-4)
    assert stars["V"].max() < 20


@real
def test_isochrone_grid_youngest_ages_end_at_the_main_sequence(old):
    """CM-03: where no star is a giant yet, the later stages are nan, not made up."""
    mass, magnitudes = old.nodes(6.3, 0.0)
    assert np.isnan(mass[old.phase > 1]).all() and np.isnan(magnitudes[old.phase > 1]).all()
    assert np.isfinite(mass[old.phase <= 1]).all()


@real
def test_isochrone_grid_is_read_quickly():
    """CM-05: a PARSEC file of 2.7 MB is read in less than 2 s (processor time)."""
    path = OLD / "0.020500.dat"
    assert path.stat().st_size > 2.6e6
    start = time.process_time()
    read_isochrones(path)
    assert time.process_time() - start < 2.0


# --- damaged and foreign files --------------------------------------------------------------------


@real
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t[: len(t) // 2], "cut off"),
        (lambda t: t.rsplit("\n", 30)[0] + "\n", "cut off"),
        (lambda t: t.replace("9.40001", "9.4oo01", 1), "damaged in line"),
        (lambda t: t.replace("9.40001 ", "9.40001", 1), "damaged in line"),
        (lambda t: t.replace(" 9.40001 ", " nan ", 1), "not finite"),
        (
            lambda t: (
                "# Attention: photometry includes extinction of Av=0.3, with coefficients\n" + t
            ),
            "contains an extinction of A_V = 0.3 mag",
        ),
        (lambda t: t.replace("Gaia EDR3", "JWST Nircam"), "'JWST Nircam.*choose one of UBVRIJHK"),
        (lambda t: t.replace("logTe", "logT"), "isochrone tables"),
        (lambda t: t.replace("MH", "FeH"), "no column MH"),
        (lambda t: t.replace(" 9.40001 ", " 9.41001 ", 1), "log age 9.41: 1 stars only"),
        (lambda t: t.replace("9.40001 1.0", "9.40001 0.1", 1), "masses do not rise"),
        (lambda t: "<!DOCTYPE html><html><body>" + t, "web page"),
        (
            lambda t: t.replace("File generated by CMD", "File generated by Dartmouth"),
            "no isochrone",
        ),
        (lambda t: "", "begins with 'nothing'"),
    ],
)
def test_isochrone_grid_refuses_damaged_files(tmp_path, damage, message):
    """CM-03: a file that is cut off, damaged or foreign is refused, with the reason."""
    path = tmp_path / "a.dat"
    path.write_text(damage(GAIA.read_text()))
    with pytest.raises(ConfigError, match=message):
        read_isochrones(path)


@real
@pytest.mark.parametrize("share", [0.3, 0.62, 0.9, 0.997])
def test_isochrone_grid_refuses_cut_files_of_version_2(tmp_path, share):
    """CM-03: version 2.7 has no last line, so its last isochrone tells a cut."""
    text = (OLD / "0.010500.dat").read_text()
    path = tmp_path / "a.dat"
    cut = int(share * len(text))
    path.write_text(text[:cut])
    with pytest.raises(ConfigError, match="cut off"):
        read_isochrones(path)
    path.write_text(text[: text.rfind("\n", 0, cut) + 1])
    with pytest.raises(ConfigError, match="cut off"):
        read_isochrones(path)


@real
def test_isochrone_grid_refuses_what_does_not_fit_together(tmp_path):
    """CM-05: a folder holds one set of models, each metallicity once."""
    with pytest.raises(ConfigError, match="do not fit together, source is"):
        read_isochrones(PARSEC)
    with pytest.raises(ConfigError, match="no isochrone file"):
        read_isochrones(tmp_path)
    with pytest.raises(ConfigError, match="there is no file"):
        read_isochrones(tmp_path / "no.dat")
    with pytest.raises(ConfigError, match=r"has no band g; it has U, B"):
        read_isochrones(NEW, bands=("g", "V"))
    for name in ("a.dat", "b.dat"):
        (tmp_path / name).write_text(NEW.read_text())
    with pytest.raises(ConfigError, match="same metallicity"):
        read_isochrones(tmp_path)


def test_isochrone_grid_refuses_a_line_that_lost_a_word():
    """CM-03: a lost word moves all after it, also where the wanted columns are still there."""
    text = "# a b c\n1 2 3\n4 6\n7 8 9\n"
    with pytest.raises(ConfigError, match=r"damaged in line 3: 3 numbers.*'4 6'"):
        read_columns("table.txt", text, names=["a", "b", "c"], wanted=["b"])


# --- MIST -----------------------------------------------------------------------------------------

COLUMNS = "EEP {age} initial_mass star_mass log_Teff log_g log_L [Fe/H]_init [Fe/H] {bands} phase"


def mist(feh, *, ages=(9.0, 9.05), bands="PS_g PS_r PS_i", system="PanSTARRS (AB)", **changes):
    """Return a file as MIST writes it: known values at each evolutionary point.

    The lowest mass lies at a later point for older stars; stars after the first pulse follow.
    """
    options = {"av": 0.0, "rotation": 0.4, "age": "log10_isochrone_age_yr", "first": 190, **changes}
    names = COLUMNS.format(age=options["age"], bands=bands).split()
    rule = "# " + "-" * 86
    lines = [
        "# MIST version number  = 1.2     ",
        "# MESA revision number =     7503",
        f"# photometric system   = {system}",
        rule,
        "#  Yinit        Zinit   [Fe/H]   [a/Fe]  v/vcrit",
        f"# 0.2703  1.42857E-02 {feh:8.2f}     0.00 {options['rotation']:8.2f}",
        rule,
        f"# number of isochrones = {len(ages):5d}",
        f"# CCM89 extinction: Av = {options['av']:6.3f}",
        rule,
    ]
    for age in ages:
        points = np.arange(options["first"] + round(100 * (age - 9)), 900)
        values = truth(points, age, feh)
        lines += [
            f"# number of EEPs, cols = {points.size:5d}{len(names):5d}",
            "#    " + "  ".join(str(i + 1) for i in range(len(names))),
            "# " + " ".join(names),
        ]
        shown = age if options["age"].startswith("log") else 10**age
        for point, (mass, log_teff, log_l, log_g, magnitude) in zip(points, values, strict=True):
            stage = np.searchsorted([202, 454, 605, 707, 808], point, side="right")
            lines.append(
                f"{point:5d} {shown:.16E} {mass:.16E} {mass:.16E} {log_teff:.16E} {log_g:.16E} "
                f"{log_l:.16E} {feh:.16E} {feh:.6f} "
                + " ".join(f"{magnitude + i:.6f}" for i in range(len(bands.split())))
                + f" {[-1, 0, 2, 3, 4, 5][stage]:.6f}"
            )
        lines += ["", ""]
    return "\n".join(lines[:-2]) + "\n"


def truth(points, age, feh):
    """Return mass, log Teff, log L, log g and first magnitude at evolutionary points."""
    giants = np.clip((points - 480) / 125, 0, 1)
    log_teff = 3.78 - 0.08 * np.clip((points - 454) / 26, 0, 1) - 0.2 * giants + 0.02 * feh
    log_l = 0.5 + 2.5 * giants
    mass = 0.1 * np.exp(points / 200 - 0.3 * (age - 9))
    magnitude = 12 - points / 100 + 2 * (age - 9) + 0.5 * feh
    return np.column_stack([mass, log_teff, log_l, 4.5 - 3 * giants, magnitude])


def test_isochrone_grid_mist(tmp_path):
    """CM-03, CM-05: MIST points, phases, rotation and systems; pulsing stars left out."""
    for name, feh, first in (("p", 0.25, 190), ("m", -0.5, 200), ("z", 0.0, 190)):
        (tmp_path / f"{name}.iso.cmd").write_text(mist(feh, first=first))
    grid = read_isochrones(tmp_path)
    assert grid.metallicities.tolist() == [-0.5, 0.0, 0.25]
    assert grid.log_ages.tolist() == [9.0, 9.05]
    assert grid.bands == dict.fromkeys("gri", "PS1 AB")
    assert grid.rotation == 0.4
    assert grid.source == "MIST 1.2, PanSTARRS (AB)"
    points = np.arange(190, 808)
    assert grid.phase.size == points.size
    # Subgiants and giants are parted at the foot of the branch, point 480 here.
    borders = points[np.flatnonzero(np.diff(grid.phase)) + 1]
    assert borders.tolist() == [202, 454, 480, 605, 707]
    # The older isochrone begins 5 points later, and the metal-poor ones 10 points.
    for feh, first in ((0.1, 195), (-0.1, 205)):
        mass, magnitudes = grid.nodes(9.02, feh)
        values = truth(points, 9.02, feh)
        known = np.isfinite(mass)
        assert points[known].tolist() == list(range(first, 808))
        np.testing.assert_allclose(magnitudes[known, 0], values[known, 4], atol=1e-5)
        np.testing.assert_allclose(mass[known], values[known, 0], rtol=1e-9)


def test_isochrone_grid_mist_linear_ages_and_other_systems(tmp_path):
    """CM-05: the web form writes ages in years too; UBVRIplus holds three systems."""
    path = tmp_path / "MIST_iso_1.iso.cmd"
    bands = "Bessell_B Bessell_V 2MASS_Ks Kepler_Kp Gaia_G_EDR3"
    text = mist(0.1, bands=bands, system="UBV(RI)c, 2MASS (Vega)", age="isochrone_age_yr")
    path.write_text(text)
    grid = read_isochrones(path)
    assert grid.log_ages.tolist() == [9.0, 9.05]
    assert grid.bands == {
        "B": "Johnson Vega",
        "V": "Johnson Vega",
        "K": "2MASS Vega",
        "G": "Gaia Vega",
    }
    # Kepler is not known here and lies between the others.
    np.testing.assert_allclose(np.diff(grid.magnitudes[0, 0, 50]), [1, 1, 2], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (mist(0.0, av=0.3), "extinction of A_V = 0.3"),
        (mist(0.0, system="PanSTARRS (Vega)"), "of the kind Vega"),
        (mist(0.0, bands="WFC3_F336W", system="HST WFC3 (Vega)"), "'HST WFC3.*choose UBVRIplus"),
        (mist(0.0).rsplit("\n", 200)[0] + "\n", "cut off: it holds"),
        (mist(0.0)[:-60], "damaged in line"),
        (mist(0.0).rsplit(" ", 1)[0], "damaged in line"),
        (mist(0.0).replace("v/vcrit", "v").replace("Yinit", "Y"), "no full MIST header"),
        (mist(0.0).replace("log_g", "gravity"), "no column log_g"),
    ],
)
def test_isochrone_grid_mist_refuses_damaged_files(tmp_path, text, message):
    """CM-03: extinction inside, foreign bands, a cut or damaged file: refused with the reason."""
    path = tmp_path / "a.iso.cmd"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_isochrones(path)


def test_isochrone_grid_mist_of_two_rotations_is_refused(tmp_path):
    """CM-05: one grid has one rotation."""
    (tmp_path / "a.iso.cmd").write_text(mist(0.0))
    (tmp_path / "b.iso.cmd").write_text(mist(0.25, rotation=0.0))
    with pytest.raises(ConfigError, match=r"rotation is 0\.4 and 0\.0"):
        read_isochrones(tmp_path)


# --- our own files --------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Return a grid and the file it was saved to."""
    (tmp_path / "a.iso.cmd").write_text(mist(0.1))
    grid = read_isochrones(tmp_path / "a.iso.cmd")
    return grid, save_grid(grid, tmp_path / "a.npz")


def test_isochrone_checksum_of_a_saved_grid(saved, tmp_path):
    """CM-03: a grid comes back as it was; the file holds no pickle and says its checksum."""
    grid, path = saved
    for back in (load_grid(path), read_isochrones(path)):
        for name in grid.__dataclass_fields__:
            if isinstance(getattr(grid, name), np.ndarray):
                np.testing.assert_array_equal(getattr(back, name), getattr(grid, name))
            else:
                assert getattr(back, name) == getattr(grid, name)
    assert save_grid(grid, tmp_path / "b.npz").read_bytes() == path.read_bytes()
    still = dataclasses.replace(grid, rotation=None)
    assert load_grid(save_grid(still, tmp_path / "c.npz")).rotation is None
    with pytest.raises(ConfigError, match="must end in"):
        save_grid(grid, tmp_path / "a.txt")


def test_isochrone_checksum_detects_changes(saved, tmp_path):
    """CM-03: one changed number, a missing array, a cut file, a pickle: refused."""
    _, path = saved
    with np.load(path) as data:
        arrays = dict(data)
    arrays["magnitudes"][0, 0, 10, 0] += 1e-9
    np.savez(tmp_path / "changed.npz", **arrays)
    with pytest.raises(ConfigError, match="checksum differs"):
        load_grid(tmp_path / "changed.npz")
    del arrays["sha256"]
    np.savez(tmp_path / "none.npz", **arrays)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-500])
    np.savez(tmp_path / "pickle.npz", sha256=np.array([{}], dtype=object))
    for name in ("none", "cut", "pickle"):
        with pytest.raises(ConfigError, match="no grid of save_grid, or is damaged"):
            load_grid(tmp_path / f"{name}.npz")
    with pytest.raises(ConfigError, match="there is no file"):
        load_grid(tmp_path / "absent.npz")


# --- download -------------------------------------------------------------------------------------

NAME = "MIST_v1.2_vvcrit0.4_PanSTARRS"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Publish a small MIST archive on this machine; yields the folder and the requests."""
    folder = tmp_path / "published"
    folder.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{httpd.server_port}/{{name}}.txz"
        monkeypatch.setattr(isochronestore, "ADDRESS", address)
        monkeypatch.delenv("DATARED_DATA", raising=False)
        publish(folder, {f"{NAME}/feh_p0.00.iso.cmd": mist(0.0), f"{NAME}/README": "text"})
        yield folder, requests
        httpd.shutdown()
        thread.join()


def publish(folder, contents):
    """Write the archive with some files."""
    with tarfile.open(folder / f"{NAME}.txz", "w:xz") as tar:
        for name, text in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))


def test_isochrone_grid_is_fetched_once(server, tmp_path, caplog):
    """CM-03: downloaded, unpacked, kept; the second call asks nobody."""
    _, requests = server
    with caplog.at_level(logging.INFO):
        folder = fetch_isochrones(NAME, folder=tmp_path / "cache")
    assert [path.name for path in folder.iterdir()] == ["feh_p0.00.iso.cmd"]
    assert list(read_isochrones(folder).bands) == ["g", "r", "i"]
    assert any("some hundred MB" in record.message for record in caplog.records)
    assert fetch_isochrones(NAME, folder=tmp_path / "cache") == folder
    assert len(requests) == 1


def test_isochrone_checksum_of_a_download(server, tmp_path):
    """CM-03: a later download that is another file is refused."""
    published, _ = server
    folder = fetch_isochrones(NAME, folder=tmp_path / "cache")
    for path in folder.iterdir():
        path.unlink()
    publish(published, {"a/feh_p0.00.iso.cmd": mist(0.3)})
    with pytest.raises(DataredError, match="cannot be downloaded"):
        fetch_isochrones(NAME, folder=tmp_path / "cache")
    assert list(folder.iterdir()) == []


def test_isochrone_grid_download_stays_in_its_folder(server, tmp_path):
    """CM-03: names in the archive cannot leave the folder; a damaged one leaves nothing behind."""
    published, _ = server
    publish(published, {"../../outside.iso.cmd": mist(0.0)})
    folder = fetch_isochrones(NAME, folder=tmp_path / "cache")
    assert [path.name for path in folder.iterdir()] == ["outside.iso.cmd"]
    assert not list(tmp_path.glob("*.cmd"))
    archive = published / f"{NAME}.txz"
    archive.write_bytes(archive.read_bytes()[:300])
    with pytest.raises(DataredError, match="damaged"):
        fetch_isochrones(NAME, folder=tmp_path / "other")
    assert not (tmp_path / "other" / "isochrones" / NAME).exists()


def test_e47_no_network(tmp_path, monkeypatch):
    """E47: without a network the embedded grid works, and the message says what to do.

    The published address cannot be tried here: port 1 of this machine stands for it.
    """
    monkeypatch.setattr(isochronestore, "ADDRESS", "http://127.0.0.1:1/{name}.txz")
    monkeypatch.delenv("DATARED_DATA", raising=False)
    with pytest.raises(DataredError) as caught:
        fetch_isochrones(NAME, folder=tmp_path)
    for words in ("check the network", "unpack a copy of", str(tmp_path), "embedded_grid()"):
        assert words in str(caught.value)
    assert len(embedded_grid().at(1.0)) > 100
    # A copy put there by hand is used.
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "a.iso.cmd").write_text(mist(0.0))
    assert fetch_isochrones(NAME, folder=tmp_path) == tmp_path / NAME


def test_e47_shared_copy(tmp_path, monkeypatch):
    """E47: a lab's shared folder serves instead of the network."""
    monkeypatch.setenv("DATARED_DATA", str(tmp_path))
    (tmp_path / "isochrones" / NAME).mkdir(parents=True)
    (tmp_path / "isochrones" / NAME / "a.iso.cmd").write_text(mist(0.0))
    assert fetch_isochrones(NAME) == tmp_path / "isochrones" / NAME


def test_e47_parsec_is_got_by_hand():
    """E47: PARSEC has a form only; the message tells the steps. Unknown names list the known."""
    with pytest.raises(ConfigError, match=r"(?s)stev\.oapd\.inaf\.it/cmd.*read_isochrones"):
        fetch_isochrones("parsec")
    with pytest.raises(ConfigError, match=f"valid: .*{NAME}"):
        fetch_isochrones("BaSTI")
