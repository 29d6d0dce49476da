"""What the benchmarks share: options, children that measure, medians, rows of tables, README."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

README = Path(__file__).parent / "README.md"


def timed(call):
    """Prepare, call, and give the result and the time it took.

    A call may have an attribute ``prepare``, which runs before it and is not timed.
    """
    getattr(call, "prepare", lambda: None)()
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


def repeated(call, *, limit=10.0, most=5):
    """Call up to five times within ten seconds; give the last result and all times."""
    value, seconds = None, []
    while not seconds or (sum(seconds) < limit and len(seconds) < most):
        value = None  # Two results at once would be the peak of the memory.
        value, elapsed = timed(call)
        seconds.append(elapsed)
    return value, seconds


def peak_memory():
    """Peak of the resident memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def spawn(script, name, arguments, *, quiet=False, **environment):
    """Run one child of a script and give its result; a failure is a result too.

    The result is printed too, unless it is long (``quiet``).
    """
    done = subprocess.run(
        [sys.executable, script, "--child", name, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        result = {"failed": lines[-1]}
    else:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    if not quiet or "failed" in result:
        print(f"{name}: {result}", file=sys.stderr, flush=True)
    return result


def read_lines(path):
    """Results of nights by seed; no file is no result."""
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["seed"]: line for line in lines}


def nights_parser(text, *, nights, minutes):
    """Options of the scripts that simulate nights."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--nights", type=int, default=nights)
    parser.add_argument("--first", type=int, default=101, help="seed of the first night")
    parser.add_argument("--workers", type=int, default=2, help="nights at a time")
    parser.add_argument("--minutes", type=float, default=minutes, help="no night begins after")
    parser.add_argument("--lines", type=Path, help="one line per night; goes on where it ends")
    parser.add_argument("--folder", type=Path, help="nights are simulated here, and removed")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


@contextlib.contextmanager
def scratch(options):
    """Complete the options: a folder, which is removed where nobody named it, and its lines."""
    places = {str(options.lines), str(options.folder), "--lines", "--folder"}
    options.words = [word for word in sys.argv[1:] if word not in places]
    options.load = os.getloadavg()[0]
    temporary = tempfile.mkdtemp(prefix="benchmark-") if options.folder is None else None
    options.folder = Path(temporary or options.folder).absolute()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.lines = options.lines or options.folder / "nights.jsonl"
    try:
        yield
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def run_nights(script, options, arguments=()):
    """Run a child for each seed that has no line in the file yet; return the results of all.

    Each child has one core: the libraries of linear algebra would take all.
    """
    seeds = range(options.first, options.first + options.nights)
    done = read_lines(options.lines)
    deadline = time.monotonic() + 60 * options.minutes

    def one(seed):
        if time.monotonic() > deadline:
            return
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        given = [*arguments, "--folder", str(options.folder)]
        result = spawn(script, str(seed), given, quiet=True, **limits)
        if "failed" in result:
            return
        print(f"night {seed}: {result['seconds']:.0f} s", file=sys.stderr, flush=True)
        with options.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(one, [seed for seed in seeds if seed not in done]))
    done = read_lines(options.lines)
    return [done[seed] for seed in seeds if seed in done]


def median(results, name, key):
    """Median of a number over the repeats, None where it was not measured."""
    values = [result[key] for result in results.get(name, ()) if key in result]
    return statistics.median(values) if values else None


def failure(results, *names):
    """Why one of the cases has no result, in the words of its error."""
    lines = [each["failed"] for name in names for each in results.get(name, ()) if "failed" in each]
    return lines[0].split(": ", 1)[-1] if lines else "not measured"


def number(value):
    """Three digits, or a dash."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def row(part, what, ours, theirs, wanted, kind, why="not measured"):
    """Row of the table; without ``wanted`` the ratio is for information.

    ``kind`` tells whether ``wanted`` is the least of theirs / ours or the most of ours / theirs.
    """
    if ours is None or theirs is None:
        return f"| {part} | {what} | {number(ours)} | {number(theirs)} | | | {why} |"
    ratio = theirs / ours if kind == "least" else ours / theirs
    line = f"| {part} | {what} | {number(ours)} | {number(theirs)} | {number(ratio)} |"
    if wanted is None:
        return line + " | |"
    met = ratio >= wanted if kind == "least" else ratio <= wanted
    return f"{line} {'≥' if kind == 'least' else '≤'} {wanted} | {verdict(met)} |"


def verdict(met):
    """Word for a target."""
    return "met" if met else "**not met**"


def machine(script, packages, options, note):
    """Lines on the processor, the memory, the versions, the frames and the command."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in packages]
    words = " ".join([f"python benchmarks/{Path(script).name}", *options.words])
    yield f"machine: {model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}."
    yield f"versions: {', '.join(versions)}."
    yield f"frames: {note}. Load of the machine before the run: {options.load:.1f}."
    yield f"command: `{words}`, {time.strftime('%Y-%m-%d')}."


def words(options):
    """Words of the command line without the places of files: they are nobody's business."""
    places = {str(options.folder), str(options.json), "--folder", "--json"}
    return [word for word in sys.argv[1:] if word not in places]


def write_readme(lines, markers):
    """Put a table between two markers of README.md."""
    before, rest = README.read_text(encoding="utf-8").split(markers[0])
    after = rest.split(markers[1])[1]
    text = "\n".join([markers[0], "", *lines, "", markers[1]])
    README.write_text(before + text + after, encoding="utf-8")


def parser(text, parts):
    """Options that all scripts have; ``parts`` are the names of what can be measured."""
    options = argparse.ArgumentParser(description=text.splitlines()[0])
    options.add_argument("--only", default=",".join(parts), help="parts, such as a,b")
    options.add_argument("--repeats", type=int, default=3, help="of each measurement")
    options.add_argument("--size", default="4788x3194", help="columns x rows")
    options.add_argument("--folder", type=Path, help="keep the simulated files here")
    options.add_argument("--json", type=Path, help="write all numbers to this file")
    options.add_argument("--readme", action="store_true", help="put the table into README.md")
    options.add_argument("--child", help=argparse.SUPPRESS)
    return options


def chosen(given, parts):
    """Read the options; give them and the parts to measure."""
    options = given.parse_args()
    some = set(options.only.split(","))
    if not some <= set(parts):
        given.error(f"--only {options.only}: the parts are {', '.join(parts)}")
    options.words = words(options)
    return options, some


def run(options, parts, *, measure, table, scratch, markers):
    """Measure in a folder that is there, print the table and write what is asked for.

    Folders named in ``scratch`` do not stay, nor does a folder that nobody named.
    """
    temporary = tempfile.mkdtemp(prefix="benchmark-") if options.folder is None else None
    options.folder = Path(temporary or options.folder).absolute()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.load = os.getloadavg()[0]
    try:
        results = measure(options, parts)
    finally:
        for name in scratch:
            shutil.rmtree(options.folder / name, ignore_errors=True)
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    lines = table(results, options, parts)
    print("\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.readme:
        write_readme(lines, markers)
