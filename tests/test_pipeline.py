"""The night as a whole: stages, currency, failures, kills, and the command line."""

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from datared import load_night, pipeline, read_photometry
from datared.cli import app
from datared.errors import ConfigError

#: Results that a night must give again to the byte.
RESULTS = ("photometry.fits", "stars.ecsv", "epochs.ecsv")


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
    assert pipeline.stages_upto(None) == list(pipeline.STAGES)
    with pytest.raises(ConfigError, match=r"no stage 'cmd'.*photometry"):
        pipeline.stages_upto("cmd")


def test_second_run_is_skipped(small):
    """Nothing is made twice; the second run says so for every frame."""
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
    """One broken light: the others are measured, the broken one is named, the exit code is 1."""
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
    """Killed at ten random moments of its progress (no chance to clean up), then run to the end."""
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
    """0: all done. 2: nothing could be done (no file, bad option, empty folder), with a reason."""
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
    """One line a file, the groups counted, and no work folder."""
    result = CliRunner().invoke(app, ["inspect", str(small)])
    assert result.exit_code == 0, result.output
    assert sum(".fits" in line for line in result.output.splitlines()) == len(
        list((small.parent / "raw").rglob("*.fits"))
    )
    assert not (small.parent / "work").exists()


def test_umbc_layout_run_without_a_file(small, tmp_path):
    """Folders and options instead of a night.toml; list options take several values."""
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
    """A read-only raw folder is enough, and every byte is as before."""
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
    """A misspelt option is refused, not swallowed."""
    result = CliRunner().invoke(app, ["run", str(small), "--no-flats"])
    assert result.exit_code == 2 and "--no-flats" in result.output
    assert not (small.parent / "work").exists()
