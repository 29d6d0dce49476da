"""Samples are made or downloaded once, whole, and checked."""

import csv
import functools
import hashlib
import http.server
import os
import shutil
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from datared import camerabench, samples, simulate
from datared.errors import ConfigError, DataredError
from datared.frames import inventory, select_lights
from datared.night import load_night
from datared.samples import SAMPLES, fetch_sample, home
from datared.settings import write_night


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    """Give each test a home of its own, no shared data, and downloads without waiting."""
    monkeypatch.setenv("DATARED_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DATARED_DATA", raising=False)
    monkeypatch.setattr("pooch.core.time", types.SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def toy(monkeypatch):
    """Replace the simulation by a quick one that counts its calls."""
    calls = []

    def simulate_cluster(folder, *, seed=1):
        calls.append(seed)
        (folder / "raw").mkdir(parents=True)
        (folder / "raw" / "a.fits").write_bytes(bytes([seed]))
        if seed == 13:
            raise KeyboardInterrupt
        return write_night({"raw": "raw", "work": "work"}, folder / "night.toml")

    monkeypatch.setattr(simulate, "simulate_cluster", simulate_cluster)
    return calls


@pytest.fixture
def server(tmp_path):
    """Serve a folder on this machine; yields the folder, the address and the requests so far."""
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
        yield folder, f"http://127.0.0.1:{httpd.server_port}", requests
        httpd.shutdown()
        thread.join()


@pytest.fixture
def published(server, monkeypatch):
    """Publish three small frames as ngc6819; yields the served folder and the requests."""
    folder, address, requests = server
    rows = []
    for name in ("bias/b 0.fits", "science/s0.fits", "science/s1.fits"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        header = fits.Header({"EXPTIME": 1.0, "OBSTYPE": "OBJECT", "FILTNAM": "V"})
        fits.PrimaryHDU(np.full((4, 5), len(rows), np.uint16), header).writeto(path)
        content = path.read_bytes()
        source = f"{address}/{name.replace(' ', '%20')}"
        digest = hashlib.sha256(content).hexdigest()
        rows.append({"file": name, "bytes": len(content), "sha256": digest, "source": source})
    monkeypatch.setattr(samples, "_registry", lambda name: rows)
    return folder, requests


def test_home_follows_the_environment(monkeypatch, tmp_path):
    """DATARED_HOME moves the samples; nothing is made by asking."""
    assert home() == tmp_path / "home" and not home().exists()
    monkeypatch.delenv("DATARED_HOME")
    assert home() == Path("~/datared").expanduser()


def test_unknown_sample():
    """The error lists the valid names; a real night has no seed."""
    with pytest.raises(ConfigError, match="cluster, transit, camera, ngc6819, hat-p-32"):
        fetch_sample("clutser")
    with pytest.raises(ConfigError, match="no seed"):
        fetch_sample("ngc6819", seed=3)


def test_simulated_once(toy):
    """A simulated night is made once per seed, and its work folder is never touched."""
    path = fetch_sample("cluster")
    assert path == home() / "cluster" / "night.toml" and load_night(path).raw.is_dir()
    (path.parent / "work").mkdir()
    assert fetch_sample("cluster") == path and fetch_sample("cluster", seed=1) == path
    other = fetch_sample("cluster", seed=7)
    assert toy == [1, 7] and other.parent.name == "cluster-seed7"
    assert (other.parent / "raw" / "a.fits").read_bytes() == b"\7"
    (path.parent / "complete.txt").write_text("made by an older version")
    fetch_sample("cluster")
    assert toy == [1, 7, 1] and (path.parent / "work").is_dir()
    assert not list(path.parent.glob(".making-*"))


def test_camera_sample_comes_from_its_own_module(monkeypatch):
    """CC-01: the camera is made by its module, and again when the source of that changes."""
    made = []

    def simulate_camera(folder, *, seed=1):
        made.append(seed)
        (folder / "raw").mkdir(parents=True)
        return write_night({"raw": "raw", "work": "work"}, folder / "night.toml")

    monkeypatch.setattr(camerabench, "simulate_camera", simulate_camera)
    path = fetch_sample("camera", seed=4)
    assert path == home() / "camera-seed4" / "night.toml" and fetch_sample("camera", seed=4) == path
    assert made == [4]
    assert samples._source_digest("camerabench") != samples._source_digest("simulate")
    monkeypatch.setattr(samples, "_source_digest", lambda module: f"new {module}")
    assert fetch_sample("camera", seed=4) == path and made == [4, 4]
    assert "new camerabench" in (path.parent / "complete.txt").read_text(encoding="utf-8")


def test_interrupted_simulation_is_made_again(toy, tmp_path):
    """A simulation that was stopped leaves nothing that counts as a night."""
    folder = tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt):
        fetch_sample("cluster", folder=folder, seed=13)
    assert not (folder / "night.toml").exists()
    fetch_sample("cluster", folder=folder, seed=2)
    assert (folder / "raw" / "a.fits").read_bytes() == b"\2"


def test_own_files_are_never_replaced(toy, tmp_path):
    """A folder with somebody's own night is refused."""
    own = tmp_path / "own" / "raw"
    own.mkdir(parents=True)
    (own / "a.fits").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="not of a sample"):
        fetch_sample("cluster", folder=tmp_path / "own")
    assert (own / "a.fits").read_bytes() == b"precious" and not toy


def test_download(published):
    """All files arrive under their names; a second call asks for nothing."""
    path = fetch_sample("ngc6819")
    night = load_night(path)
    files = sorted(p.relative_to(night.raw).as_posix() for p in night.raw.rglob("*.fits"))
    assert files == ["bias/b 0.fits", "science/s0.fits", "science/s1.fits"]
    assert len(published[1]) == 3
    assert fetch_sample("ngc6819") == path and len(published[1]) == 3
    table = inventory(night)
    assert list(table["object"]) == ["", "NGC 6819", "NGC 6819"]


def test_download_goes_on(published, monkeypatch):
    """After an interruption only what is missing or cut is downloaded."""
    folder, requests = published
    hidden = folder / "science" / "s1.fits"
    hidden.rename(folder / "away")
    with pytest.raises(DataredError, match=r"1 of 3 files are left.*DATARED_DATA"):
        fetch_sample("ngc6819")
    assert not (home() / "ngc6819" / "night.toml").exists()
    (folder / "away").rename(hidden)
    raw = home() / "ngc6819" / "raw"
    (raw / "science" / "s0.fits").write_bytes(b"cut")
    requests.clear()
    fetch_sample("ngc6819")
    assert sorted(set(requests)) == ["/science/s0.fits", "/science/s1.fits"]


def test_wrong_checksum_is_refused(published):
    """A file that is not the published one is not kept."""
    folder, _ = published
    path = folder / "science" / "s0.fits"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataredError, match="SHA-256 differs"):
        fetch_sample("ngc6819")
    assert not (home() / "ngc6819" / "raw" / "science" / "s0.fits").exists()


def test_e47_offline_message(monkeypatch):
    """Without a network the message says what to do."""
    row = {"file": "a.fits", "bytes": 1, "sha256": "0" * 64, "source": "http://127.0.0.1:9/a.fits"}
    monkeypatch.setattr(samples, "_registry", lambda name: [row])
    with pytest.raises(DataredError, match="check the network"):
        fetch_sample("hat-p-32")


def test_shared_copy_first(published, tmp_path, monkeypatch):
    """A whole copy under DATARED_DATA is used in place; one that lacks a file is not."""
    folder, requests = published
    data = tmp_path / "shared data"
    shutil.copytree(folder, data / "nickel-ngc6819")
    (data / "catalogues").mkdir()
    catalogue = data / "catalogues" / "gaia_edr3_ngc6819_members.csv"
    catalogue.write_text("ra,dec\n")
    monkeypatch.setenv("DATARED_DATA", str(data))
    night = load_night(fetch_sample("ngc6819"))
    assert night.raw == data / "nickel-ngc6819" and not requests
    assert night.astrometry.catalogue == catalogue and night.work == home() / "ngc6819" / "work"
    (data / "nickel-ngc6819" / "science" / "s1.fits").unlink()
    assert load_night(fetch_sample("ngc6819")).raw == home() / "ngc6819" / "raw"
    assert len(requests) == 3


def test_standards_are_downloaded_beside_the_night(published, monkeypatch, caplog):
    """E47, ZP-03: the list of standards is got once; without it all else goes on, and says so."""
    folder, requests = published
    night_files, path = samples._registry("ngc6819"), folder / "Landolt_Standards_2009.txt"
    address = night_files[0]["source"].partition("/bias")[0]
    text = b"Name,RAJ2000,DEJ2000,Vmag\n"
    row = {
        "file": path.name, "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest(),
        "source": f"{address}/{path.name}",
    }  # fmt: skip
    monkeypatch.setattr(
        samples, "_registry", lambda name: [row] if name == "standards" else night_files
    )
    night = load_night(fetch_sample("ngc6819"))
    assert night.magnitudes.standards is None
    assert "no zero points from standard stars" in caplog.text
    assert "a copy in catalogues/" in caplog.text
    path.write_bytes(text)
    night = load_night(fetch_sample("ngc6819"))
    assert night.magnitudes.standards.read_bytes() == text
    n = len(requests)
    assert load_night(fetch_sample("ngc6819")).magnitudes.standards == night.magnitudes.standards
    assert len(requests) == n


def test_edited_night_file_is_kept(published):
    """A night file that the user changed is never written over; an untouched one may be."""
    path = fetch_sample("ngc6819")
    text = path.read_text()
    path.write_text(text.replace("gain = 1.8", "gain = 1.7"))
    fetch_sample("ngc6819")
    assert "gain = 1.7" in path.read_text()
    first, rest = text.split("\n", 1)
    path.write_text(samples._first_line("raw = 'old'\n") + "\nraw = 'old'\n")
    fetch_sample("ngc6819")
    assert path.read_text() == text and first.startswith("#") and rest


def test_registries_and_templates():
    """Every real sample has a registry with whole digests and a valid template."""
    counts = {"ngc6819": (24, 52.3e6), "hat-p-32": (142, 93.2e6)}
    for name, (count, size) in counts.items():
        assert name in SAMPLES
        with (samples._DATA / f"{name}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == count == len({row["file"] for row in rows})
        assert sum(int(row["bytes"]) for row in rows) == pytest.approx(size, rel=0.01)
        rows += samples._registry("standards")
        for row in rows:
            assert len(row["sha256"]) == 64 and row["source"].startswith("https://")


@pytest.mark.real
def test_real_samples(monkeypatch):
    """The real nights load from the shared copies, with the right frames of the right object."""
    data = Path(os.environ.get("DATARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not data.is_dir():
        pytest.skip("the real data are not here: set DATARED_DATA")
    monkeypatch.setenv("DATARED_DATA", str(data))
    for name, counts in {"ngc6819": (24, 6), "hat-p-32": (142, 142)}.items():
        night = load_night(fetch_sample(name))
        table = inventory(night)
        assert (len(table), len(select_lights(table, night))) == counts
        assert night.raw.is_relative_to(data) and night.astrometry.catalogue.is_file()
        assert night.site.longitude < -100
        assert (night.target_coord is None) == (name == "ngc6819")
        row = next(row for row in samples._registry(name))
        path = night.raw / row["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
