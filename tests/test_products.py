"""Currency of products: what is skipped, what is made again, what a failure leaves."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from datared import products
from datared.errors import FrameError
from datared.products import Manifest, Task, atomic_path, run_tasks


def copy_upper(source, product):
    """Write the source in capitals; a source that says bad is refused."""
    text = source.read_text()
    if text == "bad":
        raise FrameError("the frame says bad")
    if text == "crash":
        raise ZeroDivisionError("a fault of ours")
    with atomic_path(product) as temporary:
        temporary.write_text(text.upper())
    return {"length": len(text)}


@pytest.fixture
def tasks(tmp_path):
    """Three tasks of one file each."""
    names = ["a", "b", "c"]
    for name in names:
        (tmp_path / name).write_text(f"text {name}")
    work = tmp_path / "work"
    return [
        Task(
            work / name,
            (tmp_path / name,),
            {"k": 5},
            copy_upper,
            (tmp_path / name, work / name),
        )
        for name in names
    ]


def run(tasks, **options):
    """Run with a manifest read from disk, as a new process would."""
    manifest = Manifest(tasks[0].product.parent)
    return [o.status for o in run_tasks(tasks, manifest=manifest, **options)]


def test_second_run_is_skipped_and_keeps_its_result(tasks):
    """Nothing is made twice, and the numbers of a skipped task are still there."""
    assert run(tasks) == ["made"] * 3
    before = [task.product.stat().st_mtime_ns for task in tasks]
    outcomes = run_tasks(tasks, manifest=Manifest(tasks[0].product.parent))
    assert [o.status for o in outcomes] == ["current"] * 3
    assert [o.result for o in outcomes] == [{"length": 6}] * 3
    assert [task.product.stat().st_mtime_ns for task in tasks] == before


def test_changed_input_parameter_or_product_is_made_again(tasks):
    """Each of the three reasons alone makes one product again."""
    run(tasks)
    tasks[0].inputs[0].write_text("other")
    tasks[1] = dataclasses.replace(tasks[1], parameters={"k": 6})
    tasks[2].product.write_text("half")
    assert run(tasks) == ["made"] * 3
    assert tasks[0].product.read_text() == "OTHER"
    assert tasks[2].product.read_text() == "TEXT C"


def test_changed_code_makes_everything_again(tasks, monkeypatch):
    """A product of other code is not current."""
    run(tasks)
    monkeypatch.setattr(products, "code_version", lambda: "other")
    assert run(tasks) == ["made"] * 3


def test_failed_frame_leaves_no_stale_product_and_stops_nothing(tasks):
    """The old product of a frame that now fails is gone; the others are made."""
    run(tasks)
    tasks[1].inputs[0].write_text("bad")
    outcomes = run_tasks(tasks, manifest=Manifest(tasks[0].product.parent))
    assert [o.status for o in outcomes] == ["current", "failed", "current"]
    assert outcomes[1].reason == "the frame says bad"
    assert not tasks[1].product.exists()


def test_refused_frame_is_remembered_but_a_crash_is_tried_again(tasks):
    """A frame's own fault is final for the same input; any other fault is not."""
    tasks[0].inputs[0].write_text("bad")
    tasks[1].inputs[0].write_text("crash")
    run(tasks)
    stored = json.loads((tasks[0].product.parent / "manifest.json").read_text())["products"]
    assert stored["a"]["failed"] == "the frame says bad"
    assert "b" not in stored
    assert run(tasks) == ["failed", "failed", "current"]


def test_missing_input_is_a_failure_of_that_task_only(tasks):
    """A file that vanished is named; the rest goes on."""
    tasks[0].inputs[0].unlink()
    outcomes = run_tasks(tasks, manifest=Manifest(tasks[0].product.parent))
    assert [o.status for o in outcomes] == ["failed", "made", "made"]
    assert "a" in outcomes[0].reason


def test_any_executor_gives_the_same_order(tasks):
    """Outcomes come in the order of the tasks."""
    with ThreadPoolExecutor(2) as executor:
        outcomes = run_tasks(tasks, manifest=Manifest(tasks[0].product.parent), executor=executor)
    assert [o.product.name for o in outcomes] == ["a", "b", "c"]


def test_unreadable_manifest_costs_time_only(tasks):
    """A broken manifest is a fresh start."""
    run(tasks)
    (tasks[0].product.parent / "manifest.json").write_text("{")
    assert run(tasks) == ["made"] * 3


def test_atomic_path_leaves_nothing_behind_on_error(tmp_path):
    """A writer that dies leaves the old file as it was."""
    (tmp_path / "t.txt").write_text("old")
    with pytest.raises(OSError, match="full"), atomic_path(tmp_path / "t.txt") as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert [p.name for p in tmp_path.iterdir()] == ["t.txt"]
    assert (tmp_path / "t.txt").read_text() == "old"


def test_killed_run_leaves_no_half_file_for_good(tasks):
    """A temporary file of a killed run is swept away when its product is made; the record's too."""
    left = [tasks[0].product.with_name(name) for name in (".tmp-1-a", ".tmp-1-manifest.json")]
    left[0].parent.mkdir()
    for path in left:
        path.write_text("half")
    run(tasks)
    assert not any(path.exists() for path in left)


def test_manifest_survives_a_move_of_the_night(tasks, tmp_path):
    """Paths in the manifest are relative: a moved night is still current."""
    run(tasks)
    moved = tmp_path.parent / (tmp_path.name + "-moved")
    tmp_path.rename(moved)
    tasks = [
        dataclasses.replace(
            task,
            product=moved / "work" / task.product.name,
            inputs=(moved / task.product.name,),
            args=(moved / task.product.name, moved / "work" / task.product.name),
        )
        for task in tasks
    ]
    assert run(tasks) == ["current"] * 3


def test_name_of_a_file_on_another_drive_is_its_whole_path(tmp_path, monkeypatch):
    """Windows has no relative path to another drive; the file is named in full."""

    def refuse(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    manifest = Manifest(tmp_path / "work")
    assert manifest.name(tmp_path / "raw" / "a.fits") == "../raw/a.fits"
    monkeypatch.setattr(products.os.path, "relpath", refuse)
    assert manifest.name(tmp_path / "a.fits") == (tmp_path / "a.fits").as_posix()
