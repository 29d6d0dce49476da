"""Tests of the room nova, against a server on this computer that plays nova.astrometry.net."""

import json
import threading
import time
import types
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from datared.backends import solve, solve_nova
from datared.errors import SolveError
from datared.nova import KEY_VARIABLE
from tests.skyfields import MIDDLE, SCALE, SHAPE, field, sky_errors
from tests.skyfields import solve as solve_here

OPTIONS = {"shape": SHAPE, "scale": SCALE, "center": MIDDLE}
KEY = "a-secret-key"


class StandIn(BaseHTTPRequestHandler):
    """Answers as the service does: login, upload of a list, submission, job, coordinates."""

    def do_POST(self):
        """Login and upload."""
        length = int(self.headers["Content-Length"])
        form = urllib.parse.parse_qs(self.rfile.read(length).decode())
        request = json.loads(form["request-json"][0])
        play = self.server.play
        if self.path == "/api/login":
            play.logins.append(request["apikey"])
            good = request["apikey"] == KEY
            self._json({"status": "success", "session": "s1"} if good else {"status": "error"})
        elif self.path == "/api/url_upload":
            play.uploads.append(request)
            if play.mode == "no sense":
                self._text("<html>maintenance</html>")
            elif play.mode == "error":
                self.send_error(500)
            else:
                self._json({"status": "success", "subid": len(play.uploads)})
        else:
            self.send_error(404)

    def do_GET(self):
        """Submission, job and result."""
        play = self.server.play
        kind, number = self.path.strip("/").split("/")[-2:]
        if kind == "submissions":
            play.asked += 1
            # The first time the job has no number yet, as in life.
            self._json({"jobs": [] if play.asked == 1 else [int(number)]})
        elif number == "info":
            blind = "center_ra" not in play.uploads[-1]
            status = {"failure": "failure", "slow": "solving"}.get(play.mode, "success")
            if play.mode == "blind" and not blind:
                status = "failure"
            self._json({"status": status})
        elif kind == "wcs_file":
            self._text(play.header if play.mode != "garbage" else "SIMPLE  = nothing of use")
        else:
            self.send_error(404)

    def _json(self, content):
        self._text(json.dumps(content))

    def _text(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def scene():
    """A field of 300 stars with 2 px distortion in the corners."""
    return field(distortion=2.0)


@pytest.fixture
def server(scene, monkeypatch):
    """Give a running stand-in; ``play`` says how it answers and what it was asked."""
    header = solve_here(scene, off=3.0, sip_order=2).wcs.to_header(relax=True)
    full = fits.PrimaryHDU().header
    full.update(header)
    play = types.SimpleNamespace(
        mode="", logins=[], uploads=[], asked=0, header=full.tostring(padding=False)
    )
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    httpd.play = play
    play.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    # The client waits a second between two looks at the server.
    clock = types.SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(0.01))
    monkeypatch.setattr("astroquery.astrometry_net.core.time", clock)
    yield play
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_solve_backend_nova(scene, server, capsys):
    """AS-01, 003-12, 004-07: the service's answer is refined with our catalogue."""
    solution = solve_nova(scene.sources, scene.catalogue, server=server.url, **OPTIONS)
    assert solution.solver == "nova" and solution.tried[0].endswith("solved")
    # Two axes with 0.03 px each.
    assert solution.rms_px < 0.06 and sky_errors(solution, scene).max() < 0.1
    assert server.logins == [KEY]
    sent = server.uploads[0]
    # Stars only, brightest first, as FITS counts pixels; and nothing is made public.
    first = int(np.argmax(scene.sources["flux"]))
    assert sent["x"][0] == pytest.approx(scene.sources["x"][first] + 1)
    assert sent["y"][0] == pytest.approx(scene.sources["y"][first] + 1)
    assert (sent["image_width"], sent["image_height"]) == (1000, 680)
    assert sent["publicly_visible"] == "n" and len(sent["x"]) <= 300
    assert sent["center_ra"] == pytest.approx(308.1) and sent["radius"] == pytest.approx(0.5)
    assert "".join(capsys.readouterr()) == ""


def test_wrong_hint_of_nova_falls_back_to_blind(scene, server):
    """AS-04: no solution at the position: the service is asked again without it."""
    server.mode = "blind"
    solution = solve_nova(
        scene.sources, scene.catalogue, server=server.url,
        **(OPTIONS | {"center": SkyCoord(10, -20, unit="deg")}),
    )  # fmt: skip
    assert solution.tried[0].endswith("RA 10.000 Dec -20.000 deg: no solution")
    assert solution.tried[1] == "nova, anywhere: solved"
    assert "center_ra" not in server.uploads[1]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("failure", "nova, anywhere: no solution. Check that the frame has stars"),
        ("slow", "no answer within the time limit. Give a longer"),
        ("no sense", "makes no sense"),
        ("error", "cannot be reached (HTTPError). Try again later"),
        ("garbage", "an answer without celestial coordinates"),
        ("other sky", "odds"),
    ],
)
def test_failure_of_nova(scene, server, mode, message):
    """AS-05, 003-12: every other end of it is one message with what to do next."""
    server.mode = mode
    sources = field(seed=55).sources if mode == "other sky" else scene.sources
    limit = 0.5 if mode == "slow" else 20.0
    start = time.monotonic()
    with pytest.raises(SolveError) as caught:
        solve_nova(sources, scene.catalogue, server=server.url, time_limit=limit, **OPTIONS)
    assert time.monotonic() - start < 10
    assert message in str(caught.value) and KEY not in str(caught.value)
    if mode != "other sky":
        assert 'solver = "catalogue"' in str(caught.value)


def test_failure_of_nova_wrong_key(scene, server, monkeypatch):
    """AS-05, 003-12: a key that the server does not know is said, and not shown."""
    monkeypatch.setenv(KEY_VARIABLE, "mistyped")
    with pytest.raises(SolveError, match="does not know the key") as caught:
        solve_nova(scene.sources, scene.catalogue, server=server.url, **OPTIONS)
    assert "mistyped" not in str(caught.value) and not server.uploads


def test_failure_of_nova_without_key_or_network(scene, monkeypatch):
    """AS-05, 003-12: no key, no network: what to do, and what works without."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    options = OPTIONS | {"solver": "nova"}
    with pytest.raises(SolveError, match=f"{KEY_VARIABLE} .never into a notebook") as caught:
        solve(scene.sources, scene.catalogue, **options)
    assert 'solver = "catalogue", which needs no key and no network' in str(caught.value)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    # The tests have no network, only this computer.
    with pytest.raises(SolveError, match="cannot be reached"):
        solve(scene.sources, scene.catalogue, **options)
    with pytest.raises(SolveError, match=r"^1 star in the frame: too few to recognise"):
        solve(scene.sources[:1], scene.catalogue, **options)
    with pytest.raises(SolveError, match="a catalogue has to confirm"):
        solve(scene.sources, None, **options)
