"""The program ``solve-field`` of astrometry.net: asked for a plate solution, never taken on trust.

The detection stays ours: the program gets a list of stars, not the image. It works in a fresh
folder of its own, so that no file of an earlier run can be taken for its answer.
"""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from .errors import SolveError
from .headerwcs import frame_geometry, read_wcs

__all__ = ["PROGRAM", "Answer", "brightest_stars", "find_field", "find_program"]

#: Name of the program.
PROGRAM = "solve-field"
BRIGHTEST = 500  #: Stars that are given: 200 for the pattern, the others confirm it.
#: Stars matched by the first pass from which on the second one fits a distortion of order 2 and 3.
#: It will match more, some ten for each of the 6 and 10 coefficients; with fewer stars it bends the
#: corners by up to a pixel.
STARS_FOR_ORDER = {2: 60, 3: 80}
#: A file may seem this much older (s) than the start of the program, as file systems round times.
CLOCK_ERROR = 2.0


class Answer(NamedTuple):
    """What a solver outside of the package says.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        World coordinates of the frame.
    pairs : astropy.table.Table
        Stars that it matched: ``x``, ``y`` (px, 0-based) and ``ra``, ``dec`` (deg) of its index.
    log_odds : float
        Natural logarithm of its odds against a chance alignment.
    tried : tuple of str
        One sentence for each pass.
    """

    wcs: WCS
    pairs: Table
    log_odds: float
    tried: tuple = ()


def find_field(
    sources,
    *,
    shape,
    center,
    scale,
    search_radius=30 * u.arcmin,
    scale_tolerance=0.1,
    sip_order=None,
    time_limit=120.0,
    config=None,
):
    """Ask the local astrometry.net program where a frame points, in two passes.

    The first pass finds the field: within the search radius, then anywhere at the given scale,
    then at any scale. Its solution rests on the stars of one pattern, so that a second pass fits
    all matched stars, with distortion where these are enough (Lang et al. 2010, AJ 139, 1782). An
    answer counts only if the exit code is 0 and its files are there, whole and new.

    Parameters
    ----------
    sources, shape, center, scale, search_radius, scale_tolerance
        As for `datared.solver.solve_frame`.
    sip_order : int, optional
        Order of the distortion; by the number of stars where it is not given.
    time_limit : float
        Seconds for all passes together.
    config : str or pathlib.Path, optional
        Its configuration file, which says where the index files are; its own where not given.

    Returns
    -------
    Answer
        The solution of the second pass, or of the first where the second failed.

    Raises
    ------
    SolveError
        If the program or its index files are not there, or if it fails, finds nothing or takes too
        long; with what to do next.
    """
    program = find_program()
    scale = u.Quantity(scale, u.arcsec).value
    radius = u.Quantity(search_radius, u.arcmin).to_value(u.deg)
    stars = brightest_stars(sources)
    options = ["--width", str(shape[1]), "--height", str(shape[0]), "--crpix-center"]
    options += [] if config is None else ["--config", str(config)]
    # Where a child could not be ended it may still have files open.
    with tempfile.TemporaryDirectory(prefix="datared-", ignore_cleanup_errors=True) as folder:
        ask = _Questions(program, stars, Path(folder), options, time_limit)
        attempts = _attempts(center, radius, scale, scale_tolerance)
        for number, (words, hints) in enumerate(attempts):
            # What is left of the time is shared by the attempts to come and the second pass.
            share = ask.seconds_left() / (len(attempts) - number + 1)
            first = ask(f"pass 1, {words}", [*hints, "--no-tweak"], share)
            if first is not None:
                break
        else:
            width, height = (n * scale / 60 for n in shape[::-1])
            raise SolveError(
                f"{len(stars)} stars in the frame; {PROGRAM}: {'; '.join(ask.tried)}. Check that "
                f"the frame has stars and that there are index files for fields of {width:.0f}' x "
                f"{height:.0f}' (patterns of 10 % to 100 % of that), or set [astrometry] solver = "
                '"catalogue"'
            )
        enough = [n for n, least in STARS_FOR_ORDER.items() if len(first.pairs) >= least]
        order = max(1, max(enough, default=1) if sip_order is None else sip_order)
        geometry = frame_geometry(first.wcs, shape)
        hints = ["--verify", str(ask.answer), "--tweak-order", str(order)]
        hints += _near(geometry.middle, 0.5 * math.hypot(*shape) * geometry.scale / 3600)
        hints += _scales(geometry.scale, 0.02)
        second = ask(f"pass 2, order {order}", hints, ask.seconds_left())
        return (second or first)._replace(tried=tuple(ask.tried))


def find_program(name=PROGRAM):
    """Path of a program, or an error that says how to get it.

    Parameters
    ----------
    name : str
        The program.

    Returns
    -------
    str
        Its path.

    Raises
    ------
    SolveError
        If it is not installed; with what to do instead.
    """
    path = shutil.which(name)
    if path is None:
        raise SolveError(
            f"{name} is not installed (no such program on the PATH). Install astrometry.net with "
            "index files for your field (Debian, Ubuntu: apt install astrometry.net "
            "astrometry-data-tycho2; macOS: brew install astrometry-net), or set [astrometry] "
            'solver = "catalogue", which needs no other program and no network'
        )
    return path


def brightest_stars(sources, n=BRIGHTEST):
    """Positions of the brightest stars, as other programs count pixels.

    Parameters
    ----------
    sources : astropy.table.Table
        Detected stars: ``x``, ``y`` (px, 0-based) and ``flux``.
    n : int
        How many at most.

    Returns
    -------
    astropy.table.Table
        ``X``, ``Y`` (px, the first pixel is 1) and ``FLUX``, the brightest first.

    Raises
    ------
    SolveError
        If there are fewer than five.
    """
    x, y, flux = (np.asarray(sources[name], float) for name in ("x", "y", "flux"))
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & np.isfinite(flux))
    rows = rows[np.argsort(-flux[rows], kind="stable")][:n]
    if len(rows) < 5:
        count = "1 star" if len(rows) == 1 else f"{len(rows)} stars"
        raise SolveError(
            f"{count} in the frame: too few to recognise a pattern, 5 are needed. "
            "Lower the detection threshold, or leave the frame out"
        )
    return Table({"X": x[rows] + 1, "Y": y[rows] + 1, "FLUX": flux[rows]})


class _Questions:
    """Asks the program, each time in a folder of its own, and notes what came of it."""

    def __init__(self, program, stars, folder, options, time_limit):
        self.program, self.folder, self.options = program, folder, options
        self.deadline = time.monotonic() + time_limit
        self.tried = []
        self.answer = None
        self.stars = folder / "stars.xyls"
        stars.write(self.stars, format="fits")

    def seconds_left(self):
        """Give the seconds until the time limit."""
        return self.deadline - time.monotonic()

    def __call__(self, words, hints, seconds):
        """Ask once; return an `Answer`, or None."""
        result, outcome = None, "no time left"
        if seconds > 0:
            result, outcome = self._ask(hints, seconds)
        self.tried.append(f"{words}: {outcome}")
        return result

    def _ask(self, hints, seconds):
        """Run the program; return the answer, or None, and what to say of it."""
        out = self.folder / f"run{len(self.tried)}"
        out.mkdir()
        command = [self.program, "--no-plots", "--dir", str(out), "--temp-dir", str(out)]
        command += ["--x-column", "X", "--y-column", "Y", "--sort-column", "FLUX"]
        command += ["--cpulimit", str(math.ceil(seconds)), *self.options, *hints, str(self.stars)]
        start = time.time()
        code, text = _run(command, seconds, log=out / "said.txt")
        if code is None:
            return None, f"stopped after {seconds:.0f} s"
        if code != 0:
            raise SolveError(_why(code, text, self.tried))
        answer = out / "stars.wcs"
        # Without a solution the program ends with code 0, too.
        files = [answer, out / "stars.solved"]
        if not all(path.is_file() and path.stat().st_size for path in files):
            return None, "no solution"
        if min(path.stat().st_mtime for path in files) < start - CLOCK_ERROR:
            return None, "the files of the answer are older than the question"
        try:
            result = _read_answer(answer)
        except (OSError, KeyError, ValueError) as error:
            return None, f"an answer that cannot be read ({error})"
        self.answer = answer
        return result, f"solved, {len(result.pairs)} stars match"


def _read_answer(path):
    """Read the files that hold an answer."""
    with warnings.catch_warnings():
        # Its units are not those of FITS, nor are the letters of some folders that it names.
        warnings.simplefilter("ignore", AstropyWarning)
        header = fits.getheader(path)
        found = Table.read(path.with_suffix(".corr"), format="fits")
        odds = Table.read(path.with_suffix(".match"), format="fits")["LOGODDS"]
    # The index files are in ICRS; EQUINOX alone would mean FK5, which is 0.02" off.
    header["RADESYS"] = "ICRS"
    wcs = read_wcs(header, (header["IMAGEH"], header["IMAGEW"]))
    if wcs is None:
        raise ValueError("no celestial coordinates")
    pairs = Table(
        {
            "x": np.asarray(found["field_x"], float) - 1,
            "y": np.asarray(found["field_y"], float) - 1,
            "ra": np.asarray(found["index_ra"], float),
            "dec": np.asarray(found["index_dec"], float),
        }
    )
    return Answer(wcs, pairs, float(np.max(odds)))


def _run(command, seconds, *, log):
    """Exit code and text of a program; None where it was ended because of the time."""
    # Into a file: the end of a pipe would be waited for as long as any child has it open.
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            # Its own group: the program starts others, and all of them must end.
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except BaseException as error:
            _end(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return None, ""
    return process.returncode, log.read_text(encoding="utf-8", errors="replace")


def _end(process):
    """End a program and, where there are groups of processes, all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # It may have ended just now.
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _why(code, text, tried):
    """Say why the program ended with an error."""
    before = "".join(f"{sentence}; " for sentence in tried)
    if "at least one index" in text or "You must list" in text:
        return (
            f"{before}{PROGRAM} has no index files. Install those for your field (Debian, Ubuntu: "
            "apt install astrometry-data-tycho2 for fields above 0.5 deg; smaller ones: "
            "http://data.astrometry.net) and name their folder in astrometry.cfg, or set "
            '[astrometry] solver = "catalogue"'
        )
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    said = f": {lines[-1][:200]}" if lines else " without a word"
    return (
        f"{before}{PROGRAM} ended with code {code}{said}. Try it by hand on one frame, or set "
        '[astrometry] solver = "catalogue"'
    )


def _attempts(center, radius, scale, tolerance):
    """Hints of the first pass, from the narrowest to none, with words for them."""
    scales = _scales(scale, tolerance)
    around = f'at {scale:.3f}"/px +- {tolerance:.0%}'
    attempts = [(f"anywhere {around}", scales), ("anywhere at any scale", [])]
    if center is not None and np.isfinite(center.ra.deg) and np.isfinite(center.dec.deg):
        center = center.icrs
        place = f"within {60 * radius:.0f}' of RA {center.ra.deg:.3f} Dec {center.dec.deg:.3f} deg"
        attempts.insert(0, (f"{place} {around}", [*scales, *_near(center, radius)]))
    return attempts


def _scales(scale, tolerance):
    """Options for the size of a pixel."""
    low, high = (f"{scale * factor:.8g}" for factor in (1 - tolerance, 1 + tolerance))
    return ["--scale-units", "arcsecperpix", "--scale-low", low, "--scale-high", high]


def _near(center, radius):
    """Options for the position, and for the distance from it in degrees."""
    values = {"--ra": center.ra.deg, "--dec": center.dec.deg, "--radius": max(radius, 0.01)}
    # With "=": a negative declination is no option.
    return [f"{name}={value:.8f}" for name, value in values.items()]
