"""The night as a whole: stages, currency, failures, kills, and the command line."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from datared import load_night, pipeline, read_photometry
from datared.cli import app
from datared.errors import ConfigError, DataredError
from datared.listing import inventory
from datared.masters import masters_night
from datared.matching import plan_masters
from datared.reduction import reduce_night
from datared.summary import summarise

#: Results that a night must give again to the byte.
RESULTS = ("photometry.fits", "stars.ecsv", "epochs.ecsv")
#: Cards without which there is no image.
STRUCTURE = ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "EXTEND", "BZERO", "BSCALE")


@pytest.fixture(scope="module")
def small_toml(once):
    """Return night.toml of a transit night of six frames, never reduced (read-only)."""

    def make(folder):
        from datared.simulate import simulate_transit

        simulate_transit(folder, seed=3, n_light=6)

    return once("small-transit", make) / "night.toml"


@pytest.fixture
def small(small_toml, tmp_path):
    """Return night.toml of a copy of the small night, free to change."""
    folder = tmp_path / "night"
    shutil.copytree(small_toml.parent, folder)
    return folder / "night.toml"


def digests(work):
    """SHA-256 of every result."""
    return {name: hashlib.sha256((work / name).read_bytes()).hexdigest() for name in RESULTS}


@pytest.fixture(scope="module")
def clean_digests(small_toml, once):
    """Return the digests of an undisturbed run in this process."""

    def make(folder):
        shutil.copytree(small_toml.parent, folder / "night")
        pipeline.run(load_night(folder / "night"), upto="photometry")

    return digests(once("small-transit-reduced", make) / "night" / "work")


def test_stages_lead_to_the_one_asked_for():
    """The light curve does not need the magnitudes, nor the stack the photometry."""
    assert pipeline.stages_upto("lightcurve") == [
        "masters",
        "reduced",
        "solved",
        "photometry",
        "lightcurve",
    ]
    assert pipeline.stages_upto("stack") == ["masters", "reduced", "solved", "stack"]
    assert pipeline.stages_upto("transit")[-2:] == ["lightcurve", "transit"]
    assert pipeline.stages_upto("variables")[-2:] == ["photometry", "variables"]
    assert pipeline.stages_upto("diagram")[-3:] == ["photometry", "magnitudes", "diagram"]
    assert pipeline.stages_upto(None) == list(pipeline.STAGES)
    with pytest.raises(ConfigError, match=r"no stage 'cmd'.*photometry"):
        pipeline.stages_upto("cmd")


@pytest.fixture
def stages(monkeypatch):
    """Return ``stages(broken)``: stages that only note their name, and fail if told so."""

    def replace(broken):
        done = []

        def does(name):
            def stage(night, *, executor):
                done.append(name)
                if name in broken:
                    raise DataredError(f"{name} is broken")
                return Table({"file": [name], "status": ["made"], "reason": [""]})

            return stage

        for name, stage in pipeline.STAGES.items():
            call = does(name)
            fake = type("Fake", (), {"needs": stage.needs, "does": name, "__call__": None})
            fake.__call__ = staticmethod(call)
            monkeypatch.setitem(pipeline.STAGES, name, fake())
        return done

    return replace


@pytest.mark.parametrize(
    ("broken", "left_out"),
    [
        ("transit", []),
        ("variables", []),
        ("lightcurve", ["transit"]),
        ("magnitudes", ["diagram"]),
        ("photometry", ["magnitudes", "diagram", "lightcurve", "transit", "variables"]),
        ("stack", []),
    ],
)
def test_a_failing_stage_stops_only_what_needs_it(small, stages, broken, left_out):
    """HD-07, LC-09: the stages that do not need it are done; it is listed, and so are the others.

    Asked for by name, the same failure is an error.
    """
    done = stages({broken})
    result = pipeline.run(load_night(small))
    expected = [name for name in pipeline.STAGES if name not in left_out]
    assert done == expected and set(result.tables) == set(expected) - {broken}
    found = {str(row["stage"]): str(row["status"]) for row in result.problems}
    assert found == {broken: "failed"} | dict.fromkeys(left_out, "left out")
    rows = result.problems[result.problems["stage"] == broken]
    assert rows["reason"][0] == f"{broken} is broken"
    with pytest.raises(DataredError, match=f"{broken} is broken"):
        pipeline.run(load_night(small), upto=broken)


def test_a_stage_that_all_need_ends_the_run(small, stages):
    """HD-07: without solved frames nothing is left to do: an error, not a list of problems."""
    done = stages({"solved"})
    with pytest.raises(DataredError, match="solved is broken"):
        pipeline.run(load_night(small))
    assert done == ["masters", "reduced", "solved"]


def test_exit_code_where_a_stage_fails(small, stages):
    """HD-01, HD-07: 1, with a line for what failed and for what it took along; in a file too.

    Asked for by name it is 2. So does a night in three filters whose light curve names none.
    """
    stages({"lightcurve"})
    result = CliRunner().invoke(app, ["run", str(small)])
    assert result.exit_code == 1, result.output
    lines = [line.strip() for line in result.output.splitlines()]
    assert "lightcurve, failed: lightcurve is broken" in lines
    assert "transit, left out: it needs the stage lightcurve" in lines
    assert "2 problems (also in problems.ecsv):" in lines
    assert any(line.startswith("variables  1 made") for line in lines)
    table = Table.read(small.parent / "work" / "problems.ecsv")
    assert list(table["stage"]) == ["lightcurve", "transit"]
    for stage in ("lightcurve", "transit"):
        result = CliRunner().invoke(app, ["run", str(small), "--upto", stage])
        assert result.exit_code == 2 and "datared: lightcurve is broken" in result.output
    stages({"stack"})
    assert CliRunner().invoke(app, ["run", str(small)]).exit_code == 1
    stages(set())
    assert CliRunner().invoke(app, ["run", str(small)]).exit_code == 0
    assert len(Table.read(small.parent / "work" / "problems.ecsv")) == 0


def test_work_folder_that_cannot_be_written(small, tmp_path):
    """HD-01: exit code 2 and a line that names the folder, where a trace of the program was."""
    (tmp_path / "file").write_text("x")
    result = CliRunner().invoke(app, ["run", str(small), "--work", str(tmp_path / "file" / "w")])
    assert result.exit_code == 2 and "file" in result.output and "datared:" in result.output
    assert isinstance(result.exception, SystemExit)


def test_summary_counts_a_star_once(small):
    """MV-01: a star has a row in each filter; it varies, and is counted, once."""
    night = load_night(small)
    night.work.mkdir()
    rows = [(4, "g", "variable"), (4, "r", "variable"), (5, "g", "stable"), (6, "r", "unknown")]
    Table(rows=rows, names=["star", "filter", "class"]).write(night.work / "variables.ecsv")
    assert summarise(night, "variables") == ["1 of 2 stars vary (4)", "0 moving sources"]


def test_summary_tells_of_a_dip_once(small):
    """LC-09: without a posterior the trapezoid is told, by the transit's line, as a first look."""
    night = load_night(small)
    night.work.mkdir()
    fit = {"values": {"depth": 0.0102, "mid_time": 2460000.5, "duration": 0.05}}
    fit |= {"errors": {"depth": 0.0011, "mid_time": 0.0004}, "significant": True}
    numbers = {"n_used": 9, "n_epochs": 10, "columns": ["flip"], "notes": [], "trapezoid": fit}
    numbers["noise"] = {"scatter": 0.004, "beta": None}

    def lines():
        (night.work / "transit.json").write_text(json.dumps(numbers))
        return summarise(night, "transit")

    assert lines()[1:] == [
        "no [transit] in the night file: a trapezoid only, no posterior",
        "a dip of 1.02 +- 0.11 % at BJD_TDB 2460000.50000 +- 0.00040, 1.20 h long",
    ]
    fit["significant"] = False
    assert lines()[2] == "no dip is seen"
    median = {"median": 0.1, "error_red": 0.01}
    names = ("radius_ratio", "mid_time", "o_minus_c")
    numbers["posterior"] = {"parameters": dict.fromkeys(names, median), "log_evidence_red": 30.0}
    numbers["posterior"] |= {"significant": True, "published_radius_ratio": None}
    numbers["ephemeris"] = {}
    assert lines()[1].startswith("Rp/R* 0.1000 +- 0.0100, mid-time") and len(lines()) == 3
    assert ", baseline of a constant, flip; scatter" in lines()[0]
    numbers |= {"columns_reason": "as large as in the comparison stars", "trend_stars": 20}
    trends = "baseline of a constant and trends as large as those of 20 comparison stars"
    assert f", {trends}; scatter" in lines()[0]
    numbers["pattern_width"] = 0.0021
    assert f", {trends} and the slow noise of the flat (0.21 %); scatter" in lines()[0]


def test_second_run_is_skipped(small):
    """HD-07: nothing is made twice; the second run says so for every frame."""
    night = load_night(small)
    first = pipeline.run(night, upto="solved")
    assert {str(s) for s in first.tables["solved"]["status"]} == {"made"}
    before = {p: p.stat().st_mtime_ns for p in (night.work / "solved").iterdir()}
    second = pipeline.run(night, upto="solved")
    assert all({str(s) for s in table["status"]} == {"current"} for table in second.tables.values())
    assert before == {p: p.stat().st_mtime_ns for p in (night.work / "solved").iterdir()}


def test_same_on_two_workers(small, clean_digests):
    """Two processes give the same bytes as one."""
    night = load_night(small)
    with ProcessPoolExecutor(2) as executor:
        pipeline.run(night, upto="photometry", executor=executor)
    assert digests(night.work) == clean_digests


def test_e21_truncated_frame_is_listed_and_the_night_goes_on(small):
    """E21, 000-34: one broken light: the others are measured, it is named, the exit code is 1."""
    night = load_night(small)
    lights = [row for row in pipeline.inventory(night) if row["kind"] == "light"]
    broken = Path(lights[2]["path"])
    broken.chmod(0o644)
    broken.write_bytes(broken.read_bytes()[:20000])
    result = CliRunner().invoke(app, ["run", str(small), "--upto", "photometry"])
    assert result.exit_code == 1, result.output
    assert broken.name in result.output
    assert len(read_photometry(night).epochs) == 5
    problems = Table.read(night.work / "problems.ecsv")
    assert any(broken.name in str(file) for file in problems["file"])


def test_killed_ten_times_gives_the_same_bytes(small, clean_digests):
    """HD-07: killed at ten random moments of its progress (no chance to clean up), then run on."""
    night = load_night(small)
    command = [sys.executable, "-c", "from datared.cli import app; app()", "run", str(small)]
    command += ["--upto", "photometry"]
    killed = 0
    # A clean run leaves 31 files; a kill comes when so many are there, while the next is written.
    for files in np.sort(np.random.default_rng(10).integers(1, 30, 10)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if sum(path.suffix in (".fits", ".ecsv") for path in night.work.rglob("*")) >= files:
                time.sleep(0.02)
                process.kill()
                killed += process.wait() == -signal.SIGKILL
            time.sleep(0.002)
    assert killed >= 8
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digests(night.work) == clean_digests
    assert not list(night.work.rglob(".tmp-*"))


def test_exit_codes(small, tmp_path):
    """HD-01: 0 for all done; 2 for nothing done (no file, bad option, no frame), with a reason."""
    runner = CliRunner()
    assert runner.invoke(app, ["run", str(small), "--upto", "masters"]).exit_code == 0
    missing = runner.invoke(app, ["run", str(tmp_path / "no.toml")])
    assert missing.exit_code == 2 and "no.toml" in missing.output
    assert runner.invoke(app, ["run", str(small), "--upto", "cmd"]).exit_code == 2
    assert runner.invoke(app, ["run"]).exit_code == 2
    (tmp_path / "empty").mkdir()
    nothing = runner.invoke(app, ["inspect", str(tmp_path / "empty")])
    assert nothing.exit_code == 2 and "empty" in nothing.output


def test_inspect_lists_every_frame_and_writes_nothing(small):
    """HD-01, E44, 000-02: a line a file, counts, what gets what; a read-only night is enough."""
    raw = small.parent / "raw"
    before = sorted(small.parent.rglob("*"))
    folders = [small.parent, *(path for path in before if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        result = CliRunner().invoke(app, ["inspect", str(small)])
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    files = list(raw.rglob("*.fits"))
    assert sum(".fits" in line for line in lines) == len(files)
    assert f"{len(files)} files:" in lines
    assert "Masters:" in lines and "Which frame gets what:" in lines
    assert any(
        line.startswith("     6 lights r 60 s -> bias, dark_60s (exact), ") for line in lines
    )
    assert sorted(small.parent.rglob("*")) == before


def test_inspect_of_folders_and_of_one_night(small, tmp_path):
    """HD-01, 003-01, 002-12: a folder without a night file, calibration elsewhere, one date."""
    raw = small.parent / "raw"
    lights = raw / "LIGHT"
    (tmp_path / "only").mkdir()
    lights.rename(tmp_path / "only" / "LIGHT")
    folder = str(tmp_path / "only")
    alone = CliRunner().invoke(app, ["inspect", folder])
    assert alone.exit_code == 0 and "6 lights r 60 s -> no bias, no dark, no flat" in alone.output
    both = CliRunner().invoke(app, ["inspect", folder, "--calibration", str(raw)])
    assert "6 lights r 60 s -> bias, dark_60s (exact), flat_r" in both.output
    other = CliRunner().invoke(app, ["inspect", folder, "--date", "1999-12-31"])
    assert other.exit_code == 0 and "6 of 6 light frames are left out" in other.output
    wrong = CliRunner().invoke(app, ["inspect", folder, "--date", "31.12.1999"])
    assert wrong.exit_code == 2 and "must be the date" in wrong.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["night", "only"]


#: For each option of `datared run` its words, and what they change in the night.
OPTIONS = {
    "work": (["--work", "{folder}/out"], lambda night: night.work.name == "out"),
    "calibration": (["--calibration", "{raw}"], lambda night: night.calibration == night.raw),
    "object": (["--object", "M 1"], lambda night: night.object == "M 1"),
    "date": (["--date", "2026-02-14"], lambda night: night.date == "2026-02-14"),
    "target": (["--target", "31.5 46"], lambda night: night.target_coord.ra.deg == 31.5),
    "exclude-filter": (
        ["-x", "U", "B", "-x", "R", "--exclude-filter", "I"],
        lambda night: night.exclude_filters == ("U", "B", "R", "I"),
    ),
    "radius": (
        ["--radius", "4", "6.5"],
        lambda night: (
            (night.photometry.radii, night.photometry.radius_unit) == ((4, 6.5), "px")
            and night.photometry.annulus == pytest.approx((10.4, 15.6))
        ),
    ),
    "catalogue": (["--catalogue", "{raw}/../night.toml"], lambda n: n.astrometry.catalogue),
    "scale": (["--scale", "0.6"], lambda night: night.camera.pixel_scale == 0.6),
    "gain": (["--gain", "0.376"], lambda night: night.camera.gain == 0.376),
    "no-bias": (["--no-bias"], lambda night: not night.reduction.use_bias),
    "no-dark": (["--no-dark"], lambda night: not night.reduction.use_dark),
    "no-flat": (["--no-flat"], lambda night: not night.reduction.use_flat),
    "strict": (["--strict"], lambda night: night.reduction.strict),
}
#: Options that are no setting of the night; each has a test of its own.
OTHERS = {"night", "lights", "upto", "workers"}


@pytest.mark.parametrize("way", ["file", "folder"])
@pytest.mark.parametrize("option", OPTIONS)
def test_cli_options_work(tmp_path, monkeypatch, option, way):
    """002-13, 003-03: each option of run is honoured, with a night file as with a folder."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "night.toml").write_text('raw = "raw"\nwork = "work"\n[camera]\nread_noise = 3\n')
    seen = []
    monkeypatch.setattr("datared.cli._run", lambda night, upto, workers: seen.append(night))
    words, changed = OPTIONS[option]
    words = [word.format(folder=tmp_path, raw=tmp_path / "raw") for word in words]
    start = [str(tmp_path / "night.toml")]
    if way == "folder":
        start = ["--lights", str(tmp_path / "raw"), "--work", str(tmp_path / "w")]
    for arguments in (start, [*start, *words]):
        result = CliRunner().invoke(app, ["run", *arguments])
        assert result.exit_code == 0, result.output
    assert not _holds(changed, seen[0]) and changed(seen[1])
    # What the option is not about stays as the file says.
    assert way == "folder" or seen[1].camera.read_noise == 3


def _holds(condition, night):
    """Whether a condition holds, False also where it cannot be asked."""
    try:
        return condition(night)
    except AttributeError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_cli_workers_and_upto(small, monkeypatch, workers):
    """002-13: --workers opens so many processes, --upto names the last stage."""
    seen = []

    def run(night, *, upto, executor):
        seen.append((upto, getattr(executor, "_max_workers", 1)))
        return pipeline.NightResult(night, {}, Table(names=["status"], dtype=[str]))

    monkeypatch.setattr(pipeline, "run", run)
    options = ["--upto", "solved", "--workers", str(workers)]
    result = CliRunner().invoke(app, ["run", str(small), *options])
    assert result.exit_code == 0 and seen == [("solved", workers)]


def test_cli_options_are_all_tested():
    """002-13: an option that is added must be in the list above: none is there without effect."""
    import typer

    command = typer.main.get_command(app).commands["run"]
    names = {max(p.opts, key=len).lstrip("-") for p in command.params if p.name != "help"}
    assert names == set(OPTIONS) | OTHERS


def test_umbc_layout_run_without_a_file(small, tmp_path):
    """002-12, 002-13: folders and options, no night.toml; list options take several values."""
    raw = small.parent / "raw"
    options = ["--lights", str(raw), "--work", str(tmp_path / "out"), "--scale", "1.214"]
    options += ["--catalogue", str(small.parent / "catalogue.ecsv"), "--no-flat", "--upto"]
    options += ["photometry", "--exclude-filter", "U", "B", "--radius", "4", "6"]
    result = CliRunner().invoke(app, ["run", *options])
    assert result.exit_code == 0, result.output
    table = Table.read(tmp_path / "out" / "photometry.fits")
    assert table["flux"].shape[1:] == (6, 2)
    excluded = CliRunner().invoke(
        app, ["run", *options[:-5], "-x", "U", "r", "--work", str(tmp_path / "other")]
    )
    assert excluded.exit_code == 2, excluded.output
    assert "no light frame" in excluded.output and "r of DRT 3" in excluded.output
    assert not (tmp_path / "other" / "manifest.json").exists()


def test_raw_frames_are_never_changed(small):
    """CF-02, E44: a read-only raw folder is enough, and every byte is as before."""
    raw = small.parent / "raw"
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in raw.rglob("*.fits")}
    for path in [*before, *{p.parent for p in before}]:
        path.chmod(0o555)
    try:
        pipeline.run(load_night(small), upto="reduced")
    finally:
        for folder in {p.parent for p in before}:
            folder.chmod(0o755)
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in raw.rglob("*.fits")}


def test_run_takes_no_unknown_option(small):
    """002-13: a misspelt option is refused, not swallowed."""
    result = CliRunner().invoke(app, ["run", str(small), "--no-flats"])
    assert result.exit_code == 2 and "--no-flats" in result.output
    assert not (small.parent / "work").exists()


def test_chain_equals_steps(small, tmp_path):
    """003-10, 003-11: the chain in one call and stage by stage give the same files, byte for byte.

    There is one file for each master and light, and nothing in between; other files stay.
    """
    shutil.copytree(small.parent, tmp_path / "steps")
    chain, steps = load_night(small), load_night(tmp_path / "steps")
    for night in (chain, steps):
        (night.work / "masters").mkdir(parents=True)
        (night.work / "masters" / "notes.txt").write_text("mine")
    pipeline.run(chain, upto="reduced")
    masters_night(steps)
    reduce_night(steps)
    found = []
    for work in (chain.work, steps.work):
        paths = [path for path in work.rglob("*") if path.is_file()]
        found.append({p.relative_to(work).as_posix(): p.read_bytes() for p in paths})
    products, other = ({n: d for n, d in f.items() if n.endswith(".fits")} for f in found)
    assert products == other
    assert len([name for name in products if name.startswith("reduced/")]) == 6
    names = {plan.name for plan in plan_masters(inventory(chain))}
    assert {Path(n).stem for n in products if n.startswith("masters/")} == names
    tables = ({n: d for n, d in f.items() if n.endswith("matching.ecsv")} for f in found)
    assert next(tables) == next(tables)
    folders = {name.split("/")[0] for name in products}
    assert folders == {"masters", "reduced"} and found[0]["masters/notes.txt"] == b"mine"


def test_header_overrides_are_recorded_in_products(small):
    """003-03: object, exposure and camera of the night file are in the cards of the products."""
    text = small.read_text()
    assert "[[frames]]" not in text
    first = sorted((small.parent / "raw" / "LIGHT").iterdir())[0].name
    rules = '[[frames]]\nmatch = "LIGHT/*"\nobject = "NGC 6819"\n'
    small.write_text(f'{text}{rules}[[frames]]\nmatch = "LIGHT/{first}"\nexptime = 30.0\n')
    options = ["--upto", "reduced", "--gain", "0.5", "--object", "ngc6819"]
    result = CliRunner().invoke(app, ["run", str(small), *options])
    assert result.exit_code == 0, result.output
    cards = [fits.getheader(path) for path in sorted((small.parent / "work/reduced").iterdir())]
    assert {card["OBJECT"] for card in cards} == {"NGC 6819"}
    assert sorted(card["EXPTIME"] for card in cards) == [30.0] + [60.0] * 5
    assert {(card["GAIN_E"], card["BUNIT"]) for card in cards} == {(0.5, "adu")}


def test_missing_keywords_of_one_light(small):
    """HD-03: a light without any card that is not needed goes through with the others."""
    path = sorted((small.parent / "raw" / "LIGHT").iterdir())[2]
    path.chmod(0o644)
    needed = {"IMAGETYP", "EXPTIME", "FILTER", "OBJECT"}
    needed |= {"GAIN", "OFFSET", "XBINNING", "YBINNING", "READOUTM"}  # They are the set-up.
    with fits.open(path, mode="update") as hdus:
        header = hdus[0].header
        for card in [key for key in header if key and key not in needed | set(STRUCTURE)]:
            header.remove(card, ignore_missing=True, remove_all=True)
    night = load_night(small)
    result = CliRunner().invoke(app, ["run", str(small), "--upto", "reduced"])
    assert result.exit_code == 0, result.output
    assert len(list((night.work / "reduced").iterdir())) == 6 and "DATE-OBS" not in header
