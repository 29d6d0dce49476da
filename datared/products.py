"""Products on disk: written whole or not at all, and made again only when something changed.

The manifest of a work folder (``manifest.json``) says for every product from which inputs (with
their SHA-256), with which parameters and by which version of the package it was made. A product is
*current* while all three are the same; only then is it skipped.
"""

import collections
import contextlib
import dataclasses
import functools
import glob
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from .errors import FrameError

__all__ = ["Manifest", "Outcome", "Task", "atomic_path", "run_tasks"]

log = logging.getLogger("datared.products")

#: Seconds between two savings of the manifest while tasks run. A kill costs at most this much.
SAVE_INTERVAL = 2.0


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path in the same folder, renamed to ``path`` if nothing went wrong.

    Parameters
    ----------
    path : str or pathlib.Path
        The file to write. Its folder is made where it is missing.

    Yields
    ------
    pathlib.Path
        The temporary path. It ends as ``path`` does, so that formats are still recognised.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "table.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "table.txt").read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Task:
    """One product and how to make it.

    Parameters
    ----------
    product : pathlib.Path
        The file that the function writes.
    inputs : tuple of pathlib.Path
        The files that it is made from; their content decides whether the product is current.
    parameters : dict
        Everything else that decides the product: options, camera, site. Must be plain values,
        paths or dataclasses of them.
    function : callable
        Module-level function (so that it can be sent to another process). It is called with
        ``args``, writes the product through `atomic_path` and returns a dictionary of numbers and
        strings that is kept in the manifest, or None.
    args : tuple
        Arguments of the function: paths and frozen dataclasses, never pixels.
    extra : tuple of pathlib.Path
        Further files that the same call writes.
    """

    product: Path
    inputs: tuple
    parameters: dict
    function: Callable
    args: tuple = ()
    extra: tuple = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Parameters
    ----------
    product : pathlib.Path
        The file.
    status : str
        ``"made"``, ``"current"`` (skipped, was there already) or ``"failed"``.
    reason : str
        Why it failed; empty otherwise.
    result : dict
        The numbers that the function returned, also for a skipped product.
    """

    product: Path
    status: str
    reason: str = ""
    result: dict = dataclasses.field(default_factory=dict)


class Manifest:
    """The record of a work folder: what every product was made from.

    Parameters
    ----------
    work : str or pathlib.Path
        The work folder; it needs not exist yet.
    """

    def __init__(self, work):
        self.work = Path(work)
        self.path = self.work / "manifest.json"
        self.products = {}
        self.files = {}
        if self.path.is_file():
            try:
                stored = json.loads(self.path.read_text(encoding="utf-8"))
                self.products, self.files = stored["products"], stored["files"]
            except (ValueError, KeyError, TypeError):
                # Nothing is lost but time: without its record every product is made again.
                log.warning("%s cannot be read; everything is made again", self.path)

    def name(self, path):
        """Path relative to the work folder, so that a night can be moved as a whole."""
        try:
            return Path(os.path.relpath(path, self.work)).as_posix()
        except ValueError:  # Another drive of Windows.
            return Path(path).absolute().as_posix()

    def sha256(self, path):
        """SHA-256 of a file, remembered until its size or its time of change differ."""
        path = Path(path)
        stat = path.stat()
        known = self.files.get(self.name(path))
        if known and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return known[2]
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self.files[self.name(path)] = [stat.st_size, stat.st_mtime_ns, digest]
        return digest

    def look_at(self, paths):
        """Compute the SHA-256 of many files, several at a time; those that are missing are not."""

        def digest(path):
            with contextlib.suppress(OSError):
                self.sha256(path)

        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            list(pool.map(digest, sorted(paths)))

    def describe(self, task):
        """Say which inputs, parameters and version decide a task's product, as plain values."""
        return {
            "inputs": {self.name(path): self.sha256(path) for path in task.inputs},
            "parameters": _plain(task.parameters),
            "version": code_version(),
        }

    def outcome(self, task, description):
        """Outcome of an earlier run that still holds, or None.

        Parameters
        ----------
        task : Task
            The task.
        description : dict
            Its `describe`.

        Returns
        -------
        Outcome or None
            ``"current"``, or ``"failed"`` for a frame that was refused with the same inputs.
        """
        record = self.products.get(self.name(task.product))
        if record is None or any(record[key] != description[key] for key in description):
            return None
        if record["failed"]:
            return Outcome(task.product, "failed", record["failed"])
        for path in (task.product, *task.extra):
            if not path.is_file() or self.sha256(path) != record["outputs"].get(self.name(path)):
                return None
        return Outcome(task.product, "current", result=record["result"])

    def record(self, task, description, *, result=None, failed=""):
        """Note what a task gave."""
        outputs = () if failed else (task.product, *task.extra)
        self.products[self.name(task.product)] = {
            **description,
            "outputs": {self.name(path): self.sha256(path) for path in outputs},
            "result": _plain(result or {}),
            "failed": failed,
        }

    def save(self):
        """Write ``manifest.json`` whole."""
        # A copy: another thread may add the sum of a file.
        content = {"products": self.products, "files": dict(self.files)}
        _remove_leftovers(self.path)
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def run_tasks(tasks, *, manifest, executor=None, label=""):
    """Make the products that are not current; a failed one never stops the others.

    Parameters
    ----------
    tasks : list of Task
        The tasks; none may need the product of another one in the list.
    manifest : Manifest
        The record of the work folder; it is brought up to date and saved.
    executor : concurrent.futures.Executor, optional
        Where to run them; in this process, one after the other, where it is not given.
    label : str
        Text before the progress bar (shown in a terminal only).

    Returns
    -------
    list of Outcome
        One for each task, in the order of the tasks whatever the order of the work.
    """
    outcomes, waiting = {}, {}
    manifest.look_at({path for task in tasks for path in task.inputs})
    for index, task in enumerate(tasks):
        try:
            description = manifest.describe(task)
        except OSError as error:
            outcomes[index] = _failure(task, manifest, None, error)
            continue
        outcomes[index] = manifest.outcome(task, description)
        if outcomes[index] is None:
            waiting[index] = (task, description)
            _remove_leftovers(task.product, *task.extra)
    saved = time.monotonic()
    # While a product is made, the sum of the one before it is computed.
    hashed = collections.deque()
    with ThreadPoolExecutor(1) as hasher:
        try:
            for index, result, error in _results(waiting, executor, label):
                task, description = waiting[index]
                if error is not None:
                    outcomes[index] = _failure(task, manifest, description, error)
                else:
                    outcomes[index] = Outcome(task.product, "made", result=_plain(result or {}))
                    sums = hasher.submit(manifest.look_at, (task.product, *task.extra))
                    hashed.append((sums, task, description, result))
                while hashed and hashed[0][0].done():
                    _record(manifest, *hashed.popleft())
                if time.monotonic() - saved > SAVE_INTERVAL:
                    manifest.save()
                    saved = time.monotonic()
        finally:
            while hashed:
                _record(manifest, *hashed.popleft())
            manifest.save()
    return [outcomes[index] for index in range(len(tasks))]


def _record(manifest, sums, task, description, result):
    """Note a product when its sum is known."""
    sums.result()
    manifest.record(task, description, result=result)


def _remove_leftovers(*paths):
    """Remove the temporary files of a run that was killed while it wrote these files."""
    for path in paths:
        for left in path.parent.glob(f".tmp-*-{glob.escape(path.name)}"):
            left.unlink(missing_ok=True)


def _results(waiting, executor, label):
    """Yield index, result and error of every waiting task as they end."""
    bar = functools.partial(tqdm, total=len(waiting), desc=label, disable=None, leave=False)
    if executor is None:
        for index, (task, _) in bar(waiting.items()):
            yield index, *_attempt(lambda task=task: task.function(*task.args))
        return
    futures = {
        executor.submit(task.function, *task.args): index for index, (task, _) in waiting.items()
    }
    for future in bar(as_completed(futures)):
        yield futures[future], *_attempt(future.result)


def _attempt(call):
    """Return result and error of a call: one bad frame must never stop the night."""
    try:
        return call(), None
    except Exception as error:
        return None, error


def _failure(task, manifest, description, error):
    """Remove what an earlier run left, note the reason, and remember it if it is the frame's."""
    for path in (task.product, *task.extra):
        path.unlink(missing_ok=True)
    manifest.products.pop(manifest.name(task.product), None)
    if isinstance(error, FrameError):
        reason = str(error)
        manifest.record(task, description, failed=reason)
        log.warning("%s: %s", task.product.name, reason)
    else:
        reason = f"{type(error).__name__}: {error}"
        log.error("%s: %s", task.product.name, reason, exc_info=error)
    return Outcome(task.product, "failed", reason)


def _plain(value):
    """Value made of JSON's types only, so that a stored one compares equal to a new one."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _plain(value.item())
    if isinstance(value, float) and value != value:
        return None  # JSON has no NaN.
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


@functools.cache
def code_version():
    """Version of the package and eight digits of its source: a changed line is a new version."""
    from . import __version__

    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"
