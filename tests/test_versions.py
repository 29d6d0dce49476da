"""The package keeps to what every supported Python and library has, and raises no old warnings."""

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "datared"
SOURCES = sorted(PACKAGE.rglob("*.py"))

#: Modules of the standard library that Python 3.12, 3.13 or 3.14 no longer has.
REMOVED = set(
    "aifc asynchat asyncore audioop cgi cgitb chunk crypt distutils imghdr imp lib2to3 mailcap "
    "msilib nis nntplib ossaudiodev pipes pkgutil.find_loader smtpd sndhdr spwd sunau telnetlib "
    "typing.io typing.re uu xdrlib".split()
)
#: Names whose meaning changed (PEP 667) or that warn since Python 3.12.
FORBIDDEN = {"locals", "exec", "eval", "utcnow", "utcfromtimestamp"}

IMPORT_ALL = """
import importlib, pkgutil, sys
import datared
for module in pkgutil.iter_modules(datared.__path__):
    importlib.import_module("datared." + module.name)
print(len([name for name in sys.modules if name.startswith("datared.")]))
"""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_e45_python_3_13(path):
    """E45: no module that newer Pythons have dropped, no storage in locals(), no odd escapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=path.name)
        compile(tree, path.name, "exec")
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            assert name not in FORBIDDEN, f"{name}() in line {node.lineno}"
    assert {name.split(".")[0] for name in found} & REMOVED == set()


def test_e46_every_room_is_imported_without_a_warning():
    """E46: a fresh Python in which every warning is an error imports every room."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(SOURCES) - 1
