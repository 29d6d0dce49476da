#!/usr/bin/env python3
"""Build the book, run the tests: `python3 run.py book`, `python3 run.py test`.

Uses the standard library only. Makes `.venv` beside this file, installs the package and what the
book and the tests need (versions from constraints.txt) and then runs the command in it. Later runs
skip the installation, and need no network, until pyproject.toml or constraints.txt change.

    book    execute every notebook and build the pages in _build/html
    test    lint, check the format, run the tests; further words go to pytest: test -k currency
    lab     open the chapters in JupyterLab
    serve   show the built pages on this computer at http://127.0.0.1:8000
    clean   remove the built pages and caches; clean --all removes .venv too

The exit code is that of the command that failed, 0 if none did.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.sha256"
PAGES = ROOT / "_build" / "html"
OLDEST = (3, 11)


def say(text: str) -> None:
    """Print a line now, also into a pipe, so that it stands before what the child prints."""
    print(text, flush=True)


def run(command: list[str], environment: dict[str, str] | None = None) -> int:
    """Run a command in the root of the repository and return its exit code."""
    code = subprocess.call(command, cwd=ROOT, env=environment)
    # A child killed by signal n is reported as -n; a shell says 128 + n.
    return 128 - code if code < 0 else code


# --- the virtual environment ---------------------------------------------------------------------


def venv_python() -> Path:
    """Return the path of the environment's Python, which differs on Windows."""
    return VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"


def fingerprint() -> str:
    """Return a hash that changes when the environment has to be installed again.

    The folder is part of it: an editable installation points to where it was made.
    """
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update(name.encode() + (ROOT / name).read_bytes())
    return digest.hexdigest()


def missing_parts() -> str:
    """Return what to install first on this system, or an empty text."""
    if sys.version_info[:2] < OLDEST:
        return (
            f"This is Python {sys.version.split()[0]}; datared needs 3.11 or later. Install one "
            "from https://www.python.org/downloads/ or your package manager and call it: "
            "python3.12 run.py book"
        )
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return ""
    major, minor = sys.version_info[:2]
    return (
        "This Python cannot make virtual environments (its venv or ensurepip module is missing). "
        f"On Debian or Ubuntu: sudo apt install python{major}.{minor}-venv   "
        "On other systems install Python from https://www.python.org/downloads/ or conda."
    )


def works(python: Path) -> bool:
    """Tell whether an environment's Python starts, is new enough and has pip."""
    probe = f"import sys, pip; sys.exit(sys.version_info[:2] < {OLDEST})"
    try:
        done = subprocess.run([str(python), "-c", probe], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def install() -> int:
    """Make `.venv` and install into it, unless it is up to date; return an exit code."""
    python = venv_python()
    if STAMP.is_file() and STAMP.read_text() == fingerprint() and works(python):
        return 0
    if not works(python):
        problem = missing_parts()
        if problem:
            print(problem, file=sys.stderr)
            return 1
        say(f"Making {VENV}")
        code = run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        if code:
            return code
    say("Installing (some minutes the first time, 1.5 GB on disk)")
    start = time.monotonic()
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    code = run([*pip, "-c", "constraints.txt", "-e", ".[test,book]"])
    if code:
        print("The installation failed; the reason stands above.", file=sys.stderr)
        return code
    STAMP.write_text(fingerprint())
    say(f"Installed in {time.monotonic() - start:.0f} s")
    return 0


def child_environment() -> dict[str, str]:
    """Return the environment of the commands: this user's, without what would change the result."""
    environment = dict(os.environ)
    # A backend set outside would replace the notebooks' own and leave the pages without figures;
    # a foreign Jupyter path could bring a kernel that runs another Python.
    for name in ("MPLBACKEND", "JUPYTER_PATH", "PYTHONHOME"):
        environment.pop(name, None)
    environment["JUPYTER_PREFER_ENV_PATH"] = "1"
    environment["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    environment["PYTHONUTF8"] = "1"
    environment["IPYTHONDIR"] = str(VENV / "ipython")
    environment["VIRTUAL_ENV"] = str(VENV)
    environment["PATH"] = os.pathsep.join([str(venv_python().parent), environment.get("PATH", "")])
    # Where sample nights are kept between runs; git ignores this folder.
    environment.setdefault("DATARED_HOME", str(ROOT / "nights"))
    return environment


# --- the commands --------------------------------------------------------------------------------


def book_command(python: str, folder: str = ".") -> list[str]:
    """Return the command that builds a book.

    Without -W a crashed notebook exits 0, and so does, without --all, the second build of a broken
    book; --keep-going reports every broken page, not only the first.
    """
    start = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    return [python, "-c", start, "build", folder, "--all", "-W", "-n", "--keep-going"]


def book(arguments: list[str]) -> int:
    """Execute the notebooks, build the pages and say where they are."""
    start = time.monotonic()
    # Pages of an earlier build would otherwise stay among the new ones.
    shutil.rmtree(ROOT / "_build", ignore_errors=True)
    code = run([*book_command(str(venv_python())), *arguments], child_environment())
    for report in sorted((PAGES / "reports").rglob("*.err.log")):
        print(f"\n{report}\n{report.read_text(encoding='utf-8')[-3000:]}", file=sys.stderr)
    index = PAGES / "index.html"
    if code:
        print(f"The book is not right (exit code {code}); see above.", file=sys.stderr)
    elif index.is_file():
        say(f"Built in {time.monotonic() - start:.0f} s: {index}")
    return code


def test(arguments: list[str]) -> int:
    """Lint, check the format and run the tests: all three, so that one run shows every problem."""
    python = str(venv_python())
    environment = child_environment()
    codes = [
        run([python, "-m", "ruff", "check", "."], environment),
        run([python, "-m", "ruff", "format", "--check", "."], environment),
    ]
    if any(codes):
        print("ruff found problems (above); the tests follow all the same.", file=sys.stderr)
    # One file stays on one worker, so that what a file's tests share is made once.
    workers = ["-n", str(min(os.cpu_count() or 1, 8)), "--dist", "loadfile"]
    codes.append(run([python, "-m", "pytest", *workers, *arguments], environment))
    return next((code for code in codes if code), 0)


def lab(arguments: list[str]) -> int:
    """Open the chapters in JupyterLab."""
    return run([str(venv_python()), "-m", "jupyterlab", "book", *arguments], child_environment())


def serve(arguments: list[str]) -> int:
    """Show the built pages on this computer."""
    if not (PAGES / "index.html").is_file():
        print("There are no pages yet. Build them first: python3 run.py book", file=sys.stderr)
        return 1
    port = arguments[:1] or ["8000"]
    say(f"http://127.0.0.1:{port[0]}  (stop with Ctrl-C)")
    server = ["-m", "http.server", *port, "--bind", "127.0.0.1", "--directory", str(PAGES)]
    return run([sys.executable, *server])


def clean(arguments: list[str]) -> int:
    """Remove what the other commands made, never a night."""
    unwanted = [ROOT / "_build", *ROOT.glob("*.egg-info"), *ROOT.glob(".*_cache")]
    unwanted += [ROOT / ".hypothesis"]
    for folder in ("datared", "tests", "book"):
        unwanted += (ROOT / folder).rglob("__pycache__")
        unwanted += (ROOT / folder).rglob(".ipynb_checkpoints")
    if "--all" in arguments:
        unwanted.append(VENV)
    for folder in unwanted:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


COMMANDS = {"book": book, "test": test, "lab": lab, "serve": serve, "clean": clean}


def main(arguments: list[str]) -> int:
    """Run the command named by the first argument; return the exit code."""
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        say(__doc__ or "")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        given = f"unknown command {arguments[0]!r}" if arguments else "no command given"
        print(f"{given}; valid: {', '.join(COMMANDS)}. More: run.py --help", file=sys.stderr)
        return 2
    name, rest = arguments[0], arguments[1:]
    if name not in ("serve", "clean"):
        code = install()
        if code:
            return code
    return COMMANDS[name](rest)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
