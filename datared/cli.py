"""Command line: ``datared fetch``, ``simulate``, ``inspect``, ``camera``, ``run``, ``export``."""

import logging
import os
import re
import sys
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from .errors import ConfigError, DataredError

__all__ = ["app"]

#: Exit codes: done, but some frames failed and are listed; nothing could be done; nobody reads on
#: (``| head``), as a shell tells it of any program.
SOME_FAILED, NOTHING_DONE, NO_READER = 1, 2, 141

STATUSES = ("made", "current", "skipped", "left out", "failed")

app = typer.Typer(
    help="Reduce images from a small telescope: from raw frames to diagrams and light curves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _ListOptions(TyperCommand):
    """Let ``--exclude-filter U B`` mean ``--exclude-filter U --exclude-filter B``."""

    many = ("--exclude-filter", "-x", "--radius")

    def parse_args(self, ctx, args):
        """Repeat the name of a list option before each of its values."""
        spelled, name = [], None
        for arg in args:
            if arg.startswith("-") and not _is_number(arg):
                name = arg if arg in self.many else None
                if name is None:
                    spelled.append(arg)
            elif name is not None and not arg.endswith(".toml"):
                spelled += [name, arg]
            else:
                spelled.append(arg)
        return super().parse_args(ctx, spelled)


def _is_number(text):
    """Whether a word is a number, so that -5 is no option."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _say(text="", *, err=False):
    """Print a line; leave quietly where nobody reads on, as behind ``| head``.

    An error that nobody reads is still an error, with its own exit code.
    """
    try:
        typer.echo(text, err=err)
    except BrokenPipeError:
        # What is still to be written at the end goes nowhere, without a further error.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (sys.stderr if err else sys.stdout).fileno())
        os.close(nowhere)
        if not err:
            raise typer.Exit(NO_READER) from None


@contextmanager
def _honest_exit(work=None):
    """Turn an error of ours, or of the disk, into a message and exit code 2; log what happens."""
    closing = ExitStack()
    if sys.stderr is None:  # Closed by the caller (``2>&-``); progress bars write to it.
        nowhere = closing.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        closing.enter_context(redirect_stderr(nowhere))
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.WARNING)
    console.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("datared")
    handlers = [console]
    try:
        if work is not None:
            Path(work).mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(Path(work) / "log.txt", encoding="utf-8"))
            layout = "%(asctime)s %(levelname)s %(name)s %(message)s"
            handlers[-1].setFormatter(logging.Formatter(layout))
        logger.setLevel(logging.INFO)
        for handler in handlers:
            logger.addHandler(handler)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: logger.warning("%s", message)
            yield
    except (DataredError, OSError) as error:
        # A full disk or a folder that is read only is nobody's bug.
        _say(f"datared: {error}", err=True)
        raise typer.Exit(NOTHING_DONE) from error
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        closing.close()


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="cluster, transit, camera, ngc6819 or hat-p-32")],
    seed: Annotated[
        int | None, typer.Option(help="for simulated nights: another night", min=0)
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="where the nights live")] = None,
):
    """Get a sample night (simulated or downloaded) and print the path of its night.toml."""
    from .samples import fetch_sample

    with _honest_exit():
        _say(fetch_sample(name, folder=folder, seed=seed))


@app.command()
def simulate(
    kind: Annotated[str, typer.Argument(help="cluster, transit or camera")],
    folder: Annotated[Path, typer.Argument(help="new folder for the night")],
    seed: Annotated[int, typer.Option(help="another seed is another night", min=0)] = 1,
):
    """Write a simulated night with its truth beside it and print the path of its night.toml."""
    from .camerabench import simulate_camera
    from .simulate import simulate_cluster, simulate_transit

    with _honest_exit():
        kinds = {"cluster": simulate_cluster, "transit": simulate_transit}
        kinds["camera"] = simulate_camera
        if kind not in kinds:
            raise ConfigError(f"No night {kind!r} to simulate; there are {', '.join(kinds)}.")
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty; name a new folder.")
        _say(kinds[kind](folder, seed=seed))


@app.command()
def inspect(
    night: Annotated[Path, typer.Argument(help="night.toml, or a folder of frames")],
    calibration: Annotated[Path | None, typer.Option(help="folder of bias, dark, flat")] = None,
    date: Annotated[str | None, typer.Option(help="only the night of this date")] = None,
):
    """List every frame and what is wrong with it, the masters, and which frame gets which."""
    with _honest_exit():
        from .listing import count_groups, inventory
        from .night import load_night, make_night
        from .outlook import outlook

        settings = {"calibration": _absolute(calibration), "date": date}
        if night.is_dir() and not (night / "night.toml").is_file():
            # A listing writes nothing, so the work folder is never made.
            work = night.resolve().with_name(night.resolve().name + "-work")
            opened = make_night(night, work=work, settings=settings)
        else:
            opened = load_night(night, settings=settings)
        frames = inventory(opened)
        columns = ("file", "kind", "filter", "exptime", "object", "date_obs", "temperature")
        listed = frames[[*columns, "setup", "problem"]]
        listed["temperature"].format = ".1f"
        _show(listed)
        _say(f"\n{len(frames)} files:")
        _show(count_groups(frames))
        _say("")
        for line in outlook(opened, frames):
            _say(line)
        if not any(row["problem"] == "" for row in frames):
            raise ConfigError(f"None of the {len(frames)} files can be used; see the list above.")


@app.command()
def camera(night: Annotated[Path, typer.Argument(help="night.toml")]):
    """Tell all about the camera: gain, noise, linearity, darks, flats. Writes nothing."""
    with _honest_exit():
        from .camerareport import camera_report
        from .night import load_night

        for line in camera_report(load_night(night)):
            _say(line)


@app.command()
def catalog(
    where: Annotated[
        str | None, typer.Argument(help="night.toml, or a name or position in quotes")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="refcat2 (default), gaia, ps1, sdss or tycho2")
    ] = None,
    radius: Annotated[float | None, typer.Option(help="arcmin; 20, or what a night needs")] = None,
    limit_mag: Annotated[float | None, typer.Option(help="faintest (r, G or VT)")] = None,
    output: Annotated[Path | None, typer.Option(help="file to write (.ecsv)")] = None,
    check: Annotated[Path | None, typer.Option(help="only check such a file")] = None,
):
    """Get the reference stars of a field once, as a file that needs no network afterwards."""
    with _honest_exit():
        from .capsules import check_capsule, write_capsule
        from .names import resolve_target

        if (where is None) == (check is None):
            raise ConfigError("Name one: a night.toml, name or position, or a file to --check.")
        if check is not None:
            _tell_capsule(check, check_capsule(check))
            _say("its SHA-256 is right")
            return
        folder, name = Path.cwd(), where
        if where.endswith(".toml") or (Path(where) / "night.toml").is_file():
            night, center, field = _night_cone(where)
            folder, name, source = night.path.parent, night.name, source or night.astrometry.source
            radius = field if radius is None else radius
            limit_mag = night.astrometry.limit_mag if limit_mag is None else limit_mag
        else:
            center, radius = resolve_target(where), 20.0 if radius is None else radius
        source = source or "refcat2"
        if output is None:
            words = re.sub(r"[^\w.+-]+", "_", name).strip("_")
            output = folder / f"{source}_{words}.ecsv"
        write_capsule(source, center, output, radius=radius, limit_mag=limit_mag)
        _tell_capsule(output, check_capsule(output))
        from .settings import night_toml

        inside = output.absolute().is_relative_to(folder.absolute())
        shown = output.absolute().relative_to(folder.absolute()) if inside else output.absolute()
        _say("for night.toml:" + night_toml({"astrometry": {"catalogue": shown}}).rstrip())


def _night_cone(where):
    """Give a night, and the middle and radius of the sky that it needs."""
    from .capsules import night_field
    from .listing import inventory, select_lights
    from .night import load_night

    night = load_night(where)
    lights = select_lights(inventory(night), night)
    if not len(lights):
        raise ConfigError(f"{night.path} has no light frame that could tell where it points.")
    return night, *night_field(night, lights)


def _tell_capsule(path, told):
    """Print what is in a file of reference stars."""
    fields = " and ".join(f"{ra:.5f} {dec:+.5f}" for ra, dec in told["fields"])
    limit = "" if told["limit_mag"] is None else f", to magnitude {told['limit_mag']:g}"
    _say(
        f"{path}: {told['rows']} stars of {told['source']} ({told['table']}) within "
        f"{told['radius_arcmin']:g} arcmin of {fields} deg{limit}, asked for on {told['asked']}"
    )


@app.command(cls=_ListOptions)
def run(
    night: Annotated[Path | None, typer.Argument(help="night.toml")] = None,
    upto: Annotated[str | None, typer.Option(help="last stage; all by default")] = None,
    workers: Annotated[int, typer.Option(help="processes side by side", min=1)] = 1,
    lights: Annotated[Path | None, typer.Option(help="folder of frames, without a file")] = None,
    calibration: Annotated[Path | None, typer.Option(help="folder of bias, dark, flat")] = None,
    work: Annotated[Path | None, typer.Option(help="folder for the results")] = None,
    object_: Annotated[str | None, typer.Option("--object", help="only this object")] = None,
    date: Annotated[str | None, typer.Option(help="only this night, such as 2026-02-14")] = None,
    target: Annotated[
        str | None, typer.Option(help="name or position, as 'RR Lyr' or '31.04 46.69'")
    ] = None,
    exclude_filter: Annotated[
        list[str] | None, typer.Option("--exclude-filter", "-x", help="leave these filters out")
    ] = None,
    radius: Annotated[list[float] | None, typer.Option(help="aperture radius in pixels")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="reference catalogue")] = None,
    scale: Annotated[float | None, typer.Option(help="pixel scale in arcsec")] = None,
    gain: Annotated[float | None, typer.Option(help="electrons per ADU")] = None,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="do not subtract the bias")] = False,
    no_dark: Annotated[bool, typer.Option("--no-dark", help="do not subtract darks")] = False,
    no_flat: Annotated[bool, typer.Option("--no-flat", help="do not divide by flats")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="stop if a master is missing")] = False,
):
    """Reduce a night, from night.toml or from folders, and list what went wrong.

    Options given here win over those of a night.toml.
    """
    from .night import aperture_settings, load_night, make_night

    settings = {
        "work": _absolute(work),
        "calibration": _absolute(calibration),
        "object": object_,
        "date": date,
        "target": target,
        "exclude_filters": exclude_filter or None,
        "camera": {"gain": gain, "pixel_scale": scale},
        "astrometry": {"catalogue": _absolute(catalogue)},
        "photometry": aperture_settings(radius) if radius else {},
        "reduction": {
            "use_bias": False if no_bias else None,
            "use_dark": False if no_dark else None,
            "use_flat": False if no_flat else None,
            "strict": True if strict else None,
        },
    }
    with _honest_exit():
        if (night is None) == (lights is None):
            raise ConfigError("Name one: a night.toml, or --lights with a folder of frames.")
        if night is not None:
            opened = load_night(night, settings=settings)
        elif work is None:
            raise ConfigError("Name a folder for the results: --work DIR.")
        else:
            opened = make_night(lights, work=work, settings=settings)
    with _honest_exit(opened.work):
        _run(opened, upto, workers)


def _run(night, upto, workers):
    """Run the stages, print each with its counts, and leave with an honest exit code."""
    from .pipeline import run as run_night
    from .summary import summarise

    pool = ProcessPoolExecutor(workers) if workers > 1 else nullcontext()
    with pool as executor:
        result = run_night(night, upto=upto, executor=executor)
    for stage, table in result.tables.items():
        counts = Counter(str(status) for status in table["status"])
        words = (f"{counts[status]} {status}" for status in STATUSES if counts[status])
        _say(f"{stage:10s} {', '.join(words)}")
        for line in summarise(night, stage):
            _say(f"           {line}")
    _say(f"results in {night.work}")
    if len(result.problems):
        _say(f"\n{len(result.problems)} problems (also in problems.ecsv):")
        for row in result.problems:
            file = f"{row['file']}: " if row["file"] else ""
            _say(f"  {row['stage']}, {row['status']}: {file}{row['reason']}")
    if "failed" in result.problems["status"]:
        raise typer.Exit(SOME_FAILED)


@app.command()
def export(
    night: Annotated[Path, typer.Argument(help="night.toml")],
    format_: Annotated[str, typer.Option("--format", help="aavso, exoclock, ades, csv or ecsv")],
    output: Annotated[Path | None, typer.Option(help="file; else in the work folder")] = None,
    observer: Annotated[str, typer.Option(help="AAVSO code, or for ades 'J. Smith'")] = "",
    star: Annotated[str | None, typer.Option(help="name of the star or planet")] = None,
    filter_: Annotated[
        str | None, typer.Option("--filter", help="name of the filter in that format")
    ] = None,
    magnitude: Annotated[
        float | None, typer.Option(help="aavso: the star's where the difference is 0")
    ] = None,
    comparison: Annotated[str | None, typer.Option(help="aavso: name of a single one")] = None,
    station: Annotated[str, typer.Option(help="ades: observatory code of the MPC")] = "",
    design: Annotated[str, typer.Option(help="ades: telescope, such as Reflector")] = "",
    aperture: Annotated[float | None, typer.Option(help="ades: its diameter in metres")] = None,
    detector: Annotated[str, typer.Option(help="ades: CCD or CMO (CMOS)")] = "",
    catalogue: Annotated[str, typer.Option(help="ades: such as Gaia2")] = "",
):
    """Write the light curve or the moving sources in the format of an archive, checked."""
    with _honest_exit():
        from .exports import export_night
        from .night import load_night

        options = {"observer": observer, "star": star, "filter": filter_, "magnitude": magnitude}
        options |= {"comparison": comparison, "station": station, "design": design}
        options |= {"aperture": aperture, "detector": detector, "catalogue": catalogue}
        for path in export_night(load_night(night), format=format_, path=output, **options):
            _say(path)


def _absolute(path):
    """Path as a text that does not depend on a folder, or None."""
    return None if path is None else str(path.expanduser().absolute())


def _show(table):
    """Print a table whole, whatever the size of the terminal."""
    for line in table.pformat(max_lines=-1, max_width=-1):
        _say(line)
