"""Compiled code: where it is kept if neither the package nor the home folder can be written."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import datared

#: Compiles and runs one small function of a room, and says where its code is kept.
CODE = """
{before}
import numpy as np
import datared.kernels

flags = np.zeros((3, 4), np.uint16)
datared.kernels.flags_around(flags, flags.copy())
print(datared.kernels.flags_around.stats.cache_path)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Give a folder with a copy of the package in which no folder for compiled code can be made.

    A file is in its place: rights alone do not stop everybody.
    """
    place = tmp_path_factory.mktemp("package")
    source = Path(datared.__file__).parent
    shutil.copytree(source, place / "datared", ignore=shutil.ignore_patterns("__pycache__", "data"))
    (place / "datared" / "__pycache__").touch()
    return place


def run(package, temporary, *, before="", home=os.devnull, **more):
    """Run the code with the package, a home and a temporary folder; give the path of the cache."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    environment |= {"PYTHONPATH": str(package), "HOME": str(home), "TMPDIR": str(temporary)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", **more}
    command = [sys.executable, "-c", CODE.format(before=before)]
    done = subprocess.run(
        command, env=environment, cwd=temporary, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(done.stdout.strip())


@pytest.mark.skipif(os.name != "posix", reason="homes and rights of other systems differ")
def test_compiled_code_is_kept_where_a_folder_can_be_written(package, tmp_path):
    """Without a package folder or a home to write, rooms work; their code is kept for next time.

    Folders that can be written are used as before, and one that is named by the user goes first.
    """
    # numba may have been imported before.
    cache = run(package, tmp_path, before="import numba")
    own = tmp_path / f"datared-{os.getuid()}"
    assert cache.parent == own and list(cache.glob("*flags_around*.nbc"))
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    named, home = tmp_path / "named", tmp_path / "home"
    home.mkdir()
    assert run(package, tmp_path, NUMBA_CACHE_DIR=str(named)).parent == named
    assert run(package, tmp_path, home=home).is_relative_to(home)


#: What somebody else may have put in the place of the folder; anybody can write where it is.
TRAPS = {
    "open to others": lambda own: (own.mkdir(), own.chmod(0o777)),
    "file": lambda own: own.touch(),
    "link": lambda own: own.symlink_to(own.with_name("nothing")),
    "link to a folder": lambda own: (
        own.with_name("theirs").mkdir(0o700),
        own.symlink_to(own.with_name("theirs")),
    ),
}


@pytest.mark.skipif(os.name != "posix", reason="rights of other systems differ")
@pytest.mark.parametrize("trap", TRAPS)
def test_compiled_code_is_not_kept_where_others_can_write(trap, tmp_path, monkeypatch):
    """Code in a folder of others would be run: another one is made, which nobody can foresee."""
    own = tmp_path / f"datared-{os.getuid()}"
    TRAPS[trap](own)
    monkeypatch.setattr(datared, "_can_be_written", lambda folder: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # What the test changes is put back, and numba of this process is not told.
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    datared._let_numba_cache()
    other = Path(os.environ["NUMBA_CACHE_DIR"])
    assert other != own and other.parent == tmp_path
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
