"""What every test shares: no display, no network, sample nights made once per run."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

# Before anything imports pyplot: a test never opens a window.
os.environ["MPLBACKEND"] = "Agg"

# The real nights, if nobody said where they are: in a folder shared by neighbouring clones. The
# tests that need them skip themselves where there is none.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("DATARED_DATA", str(SHARED))

LOCAL_HOSTS = {"127.0.0.1", "::1", "localhost", ""}


@pytest.fixture(autouse=True)
def no_network(request, monkeypatch):
    """Refuse connections to other hosts, unless the test is marked ``network``."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def connect_locally(self, address):
        if isinstance(address, tuple) and address[0] not in LOCAL_HOSTS:
            raise OSError(f"tests have no network (connection to {address[0]})")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """Keep sample nights out of the user's folders: a fresh home for each test."""
    monkeypatch.setenv("DATARED_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(autouse=True)
def no_figures():
    """Start without a figure: a test may count those that are open, whatever ran before it."""
    # Most tests draw nothing: they do not wait for pyplot.
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Return ``once(name, make)``: the folder that ``make(folder)`` filled, once per test run.

    Workers of one run share the folder; the others wait for the one that came first. Treat what is
    in it as read-only (copy it to write to it).
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def get(name, make):
        folder, done, failed = (shared / f"{name}{end}" for end in ("", ".done", ".failed"))
        try:
            folder.mkdir()
        except FileExistsError:
            deadline = time.monotonic() + 300
            while not done.exists():
                if failed.exists() or time.monotonic() > deadline:
                    pytest.fail(f"another worker could not make {name!r}")
                time.sleep(0.1)
            return folder
        try:
            make(folder)
        except BaseException:
            failed.touch()
            raise
        done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def cluster_toml(once) -> Path:
    """Return night.toml of the simulated cluster night, seed 1 (read-only)."""
    return _simulated(once, "cluster")


@pytest.fixture(scope="session")
def transit_toml(once) -> Path:
    """Return night.toml of the simulated transit night, seed 1 (read-only)."""
    return _simulated(once, "transit")


def _simulated(once, name):
    """Simulate a night once per run."""

    def make(folder):
        from datared import simulate

        getattr(simulate, f"simulate_{name}")(folder, seed=1)

    return once(name, make) / "night.toml"
