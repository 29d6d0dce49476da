"""The command line: quiet ends, clear messages, reports that go on where a part fails."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from datared import cameranight, camerareport, listing
from datared.camera import camera_night
from datared.camerareport import camera_report
from datared.cli import NO_READER, NOTHING_DONE, app
from datared.errors import FrameError
from tests.test_suggestions import GAIN, TITLES, raw_night


@pytest.fixture
def night(tmp_path):
    """Night of a few calibration frames."""
    return raw_night(tmp_path, [*["BIAS"] * 4, *["DARK"] * 2, *["FLAT"] * 4])


COMMAND = [sys.executable, "-c", "from datared.cli import app; app()"]


@pytest.mark.parametrize("words", [["inspect"], ["camera"], ["run", "--upto=masters"]])
def test_nobody_reads_on(night, words):
    """002-13: a pipe that is closed, as by ``| head``, is no error: no message, no traceback."""
    name, *options = words
    with subprocess.Popen(
        [*COMMAND, name, str(night.path), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # Long before the first line is written.
        said = process.stderr.read().decode()
        code = process.wait(timeout=60)
    assert "Broken pipe" not in said and "Traceback" not in said and "Error" not in said
    # Of a program that a signal ends the shell says 128 and the number of the signal.
    assert code == NO_READER == 128 + 13


def test_error_that_nobody_reads_is_an_error(tmp_path):
    """002-13: where the message goes into a closed pipe the exit code still tells of the error."""
    with subprocess.Popen([*COMMAND, "inspect", str(tmp_path)], stderr=subprocess.PIPE) as process:
        process.stderr.close()
        assert process.wait(timeout=60) == NOTHING_DONE


def test_run_without_anything_to_write_to(night, monkeypatch):
    """002-13: started with closed output (``>&- 2>&-``) a night is reduced all the same."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as done:
        app(["run", str(night.path), "--upto", "masters"])
    assert done.value.code == 0 and sys.stderr is None
    assert (night.work / "masters").is_dir()


def test_seed_below_zero_is_refused(tmp_path):
    """002-13: numpy knows no such seed; the option says so before anything is written."""
    for words in (["simulate", "camera", str(tmp_path / "new")], ["fetch", "camera"]):
        result = CliRunner().invoke(app, [*words, "--seed", "-1"])
        assert result.exit_code == 2 and "Invalid value" in result.output
        assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "new").exists()


def test_camera_report_goes_on_where_a_part_fails(night, monkeypatch):
    """CC-01, CC-02: what does not rest on a part that fails is told all the same."""

    def fail(*_, **__):
        raise FrameError("the lamp is broken")

    def told(name):
        with monkeypatch.context() as context:
            context.setattr(camerareport, name, fail)
            lines = list(camera_report(night))
        assert [line for line in lines if line in TITLES] == list(TITLES)
        return [TITLES.index([one for one in lines[:k] if one in TITLES][-1])
                for k, line in enumerate(lines) if "the lamp is broken" in line]  # fmt: skip

    assert told("linearity_night") == [1, 6]
    assert told("camera_night") == [0, 1, 2, 5, 6]
    assert told("flats_night") == [3]


def test_camera_report_explains_its_parts(night):
    """CC-01, CC-02, CC-03: below each title stands what it means, as a comment."""
    lines = list(camera_report(night))
    for title in TITLES:
        assert lines[lines.index(title) + 1].startswith("# "), title


def dark_table(error):
    """Return what `dark_night` tells of two set-ups; the relative error is given."""
    celsius = np.array([-20.0, -10.0, 0.0, 10.0])
    rates = 0.1 * 2 ** (celsius / 6.5)
    table = Table({"temperature": np.tile(celsius, 2), "rate": np.append(rates, 2 * rates)})
    table["setup"] = np.repeat(["1x1", "2x2"], 4)
    for name in ("rate_err", "electrons_err"):
        table[name] = error * table["rate"]
    table["electrons"], table["hot_share"], table["hot_limit"] = table["rate"], 0.001, 0.1
    table["n_dark"], table["exptimes"], table["note"] = 5, "60", ""
    return table


@pytest.mark.parametrize("known", [False, True])
def test_camera_report_dark_current_has_the_error_of_the_gain(night, monkeypatch, known):
    """CC-02: electrons are no better known than the gain, where this is measured, too."""
    monkeypatch.setattr(camerareport, "dark_night", lambda *_, **__: dark_table(1e-6))
    row = camera_night(night)[-1]
    share = 1e-6 if known else row["gain_err"] / row["gain"]
    camera = replace(night.camera, gain=GAIN if known else None)
    lines = list(camera_report(replace(night, camera=camera)))
    words = next(line for line in lines if line.split()[:2] == ["10.0", "5"]).split()
    electrons, error = (float(words[k]) for k in (6, 8))
    assert error == pytest.approx(share * electrons, rel=0.05)


def test_camera_report_of_two_setups_names_them(night, monkeypatch):
    """CC-02: each doubling temperature is that of a set-up."""
    monkeypatch.setattr(camerareport, "dark_night", lambda *_, **__: dark_table(0.01))
    found = [text for text in camera_report(night) if "doubles" in text]
    assert [text.split(":")[0] for text in found] == ["1x1", "2x2"]


def test_camera_report_of_darks_without_a_temperature(tmp_path):
    """CC-02: a temperature that no header tells is a dash, as a filter is, and not "nan"."""
    lines = list(camera_report(raw_night(tmp_path, ["DARK"] * 2)))
    start = lines.index("Dark current and hot pixels")
    part = lines[start : lines.index("", start)]
    assert any(line.split()[:2] == ["-", "2"] for line in part)
    assert not any("nan" in line for line in part)


def test_headers_are_handed_on(night, monkeypatch):
    """CC-01: with the list of frames no header is read again."""
    frames = listing.inventory(night)
    camera = camera_night(night)
    monkeypatch.setattr(cameranight, "inventory", None)
    series = cameranight.flat_series(night, frames=frames)
    assert len(series) == 4
    linearity = cameranight.linearity_night(night, camera=camera, frames=frames)
    assert len(cameranight.flats_night(night, frames=frames)) == 0
    options = {"camera": camera, "frames": frames}
    text = cameranight.suggest_night(night, linearity=linearity, **options)
    assert text == cameranight.suggest_night(night, **options)


def test_camera_report_reads_headers_once(night, monkeypatch):
    """CC-01: the list of frames is made once for the whole report; a bad file is told once."""
    (night.raw / "no.fits").write_bytes(b"")
    seen = []
    monkeypatch.setattr(listing, "_row", lambda night, name, path, row=listing._row: (
        seen.append(name) or row(night, name, path)))  # fmt: skip
    list(camera_report(night))
    assert sorted(seen) == sorted({*seen}) and len(seen) == len(list(night.raw.iterdir()))
