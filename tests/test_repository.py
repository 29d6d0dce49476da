"""The repository keeps its own rules: layout, imports, notebooks, run.py."""

import ast
import graphlib
import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "datared"

# The rooms in the order of the flow: a room imports only rooms above it. A module that is not in
# the list (a part of a room kept in a file of its own) belongs to whichever rooms import it.
ROOMS = """
errors headers night pixels products frames times extinction isochrones isochronegrid transit render
simulate camerabench samples combine background sources cosmics reduction photontransfer camera
linearity darkcurrent flatratio quality catalogs systems astrometry distortionmap photometry psf
zeropointfit standards magnitudes membership sampling clusterfield clusterlikelihood
clusterposterior clusterfit comparison lightcurve rednoise detrending ephemeris transitfit
transitposterior transitmeasure detections clustering movers variability kernels grids resampling
coaddition colourbalance pngfile pictures nightpictures stacking suggestions cameranight plots
cameraplots diagram transitnight variabilitynight exports widgets panels camerareport checks summary
pipeline cli
""".split()


def sources() -> list[Path]:
    """Return the modules of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def tracked() -> list[Path]:
    """Return the files that are, or would be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository, or git is not installed")
    return [ROOT / name for name in sorted(done.stdout.decode().split("\0")) if name]


def project() -> dict:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins() -> dict[str, str]:
    """Return the versions in constraints.txt by normalised name."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.partition(";")[0].strip().split("==")
            found[normalised(name)] = version
    return found


def normalised(name: str) -> str:
    """Return the name of a package as an index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> list[str]:
    """Return the names of the packages required."""
    return [normalised(re.match(r"[\w.-]+", one)[0]) for one in requirements]


# --- files ---------------------------------------------------------------------------------------


def test_environment_agrees_with_pyproject():
    """The conda file names a Python and this project, nothing that could disagree."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert pip == "pip"
    constraint, package = by_pip["pip"]
    assert constraint == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", package)[1].split(",")
    assert set(extras) <= set(project()["project"]["optional-dependencies"])
    oldest = project()["project"]["requires-python"].removeprefix(">=")
    version = python.removeprefix("python=")
    assert tuple(map(int, version.split("."))) >= tuple(map(int, oldest.split(".")))


def test_binder_env_resolves():
    """Every package that pyproject.toml asks for has its tested version in constraints.txt."""
    table = project()["project"]
    extras = table["optional-dependencies"].values()
    wanted = table["dependencies"] + [one for extra in extras for one in extra]
    missing = [name for name in names_of(wanted) if name not in pins()]
    assert missing == []


def test_constraints_are_valid_everywhere():
    """Constraints are plain pins: no address, no path, no option."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.]+( ; .+)?", line), line


def test_hooks_use_the_pinned_tools():
    """A commit hook checks with the version that the tests check with."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {hook["repo"].rpartition("/")[2]: hook["rev"].removeprefix("v") for hook in hooks}
    assert revisions["ruff-pre-commit"] == pins()["ruff"]
    assert revisions["nbstripout"] == pins()["nbstripout"]


def test_files_are_small():
    """No file of the repository reaches 1 MB."""
    large = {str(path): path.stat().st_size for path in tracked() if path.exists()}
    assert {name: size for name, size in large.items() if size >= 1_000_000} == {}


def test_no_absolute_paths():
    """No text names a folder of somebody's computer."""
    personal = re.compile(r"(?<![\w.~:/})])/(home|Users|root|work|tmp)/\w")
    found = []
    for path in tracked():
        if path.suffix in {".py", ".md", ".ipynb", ".toml", ".yml", ".txt", ".csv", ".ecsv"}:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            found += [f"{path.name}: {hit[0]}" for hit in personal.finditer(text)]
    assert found == []


def test_version_is_one():
    """The package and pyproject.toml name the same version, and the changelog has it."""
    version = project()["project"]["version"]
    assert importlib.import_module("datared").__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_night_is_valid(tmp_path):
    """The night.toml of the README can be copied and loaded as it stands."""
    from datared import load_night

    text = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "night.toml").write_text(text)
    (tmp_path / "raw").mkdir()
    (tmp_path / "catalogue.ecsv").touch()
    night = load_night(tmp_path / "night.toml")
    assert night.camera.gain == 0.376
    assert night.work == tmp_path / "work"


# --- the package ---------------------------------------------------------------------------------


def own_imports(path: Path) -> set[str]:
    """Return the rooms that a module imports, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("datared.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = f"datared.{module}" if module else "datared"
            if module == "datared":
                found |= {name.name for name in node.names}
            elif module.startswith("datared."):
                found.add(module.split(".")[1])
    return found & {path.stem for path in PACKAGE.glob("*.py")}


def all_imports() -> dict[str, set[str]]:
    """Return what each module of the package imports from it."""
    return {path.stem: own_imports(path) for path in sources() if path.stem != "__init__"}


def test_no_circular_imports():
    """The modules of the package can be put in an order."""
    graphlib.TopologicalSorter(all_imports()).prepare()


@pytest.mark.parametrize("room", ROOMS)
def test_architecture(room):
    """A room imports, also through modules that are no rooms, only rooms above it."""
    graph = all_imports()
    assert room in graph, f"no module {room}.py"
    seen, waiting = set(), [room]
    while waiting:
        for name in graph[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    below = ROOMS[ROOMS.index(room) + 1 :]
    assert sorted(seen.intersection(below)) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_rooms_are_small(path):
    """A room has at most 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_no_bare_except(path):
    """No error disappears: no bare except, no except that only passes over everything."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}"
            broad = isinstance(node.type, ast.Name) and node.type.id in {
                "Exception",
                "BaseException",
            }
            only_passes = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            assert not (broad and only_passes), f"line {node.lineno}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_no_global_state(path):
    """The package does not print, ask, change folder or reach into namespaces."""
    forbidden = {"print", "input", "globals", "locals", "eval", "exec", "chdir"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "chdir":
                name = "chdir"
            assert name not in forbidden, f"{name}() in line {node.lineno}"
        assert not isinstance(node, ast.Global), f"global in line {node.lineno}"


@pytest.mark.parametrize("room", sorted(path.stem for path in sources() if path.stem[0] != "_"))
def test_api_documented(room):
    """Every public name has a docstring; those of the rooms name every argument."""
    is_room = room in importlib.import_module("datared").__all__
    module = importlib.import_module(f"datared.{room}")
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        assert thing.__doc__, f"{room}.{name} has no docstring"
        if inspect.isfunction(thing) and is_room:
            unnamed = [
                argument
                for argument in inspect.signature(thing).parameters
                if not re.search(rf"\b{argument}\b", thing.__doc__)
            ]
            assert unnamed == [], f"{room}.{name} does not describe {unnamed}"


@pytest.mark.parametrize("room", sorted(path.stem for path in sources() if path.stem[0] != "_"))
def test_no_open_keywords(room):
    """No public function takes **kwargs, which would swallow a misspelt option."""
    module = importlib.import_module(f"datared.{room}")
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if inspect.isfunction(thing) and room != "plots":
            kinds = {one.kind for one in inspect.signature(thing).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds, f"{room}.{name}"


def seconds_to_import(module: str) -> float:
    """Return how long a fresh Python takes to import a module, the best of five."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)
        best = min(best, time.perf_counter() - start)
    return best


def test_import_is_quick():
    """Importing datared costs less than half a second more than importing astropy."""
    # The best of five: other programs only ever make a run slower.
    assert seconds_to_import("datared") < seconds_to_import("astropy") + 0.5


def test_config_import_creates_nothing(tmp_path):
    """Importing the package leaves home, the sample folder and the working folder untouched."""
    environment = dict(os.environ, HOME=str(tmp_path), USERPROFILE=str(tmp_path))
    environment |= {"DATARED_HOME": str(tmp_path / "nights"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-B", "-c", "import datared; dir(datared)"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


# --- notebooks -----------------------------------------------------------------------------------

NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))
HIDDEN = {"remove-cell", "remove-input", "hide-cell", "hide-input"}


def code_cells(path: Path) -> list[dict]:
    """Return the code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def visible(cells: list[dict]) -> list[dict]:
    """Return the cells whose code a reader sees at once."""
    return [cell for cell in cells if not HIDDEN & set(cell["metadata"].get("tags", ()))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_outputs(path):
    """Outputs come from the build; none is stored."""
    for cell in code_cells(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None, cell["source"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_thin(path):
    """5 to 12 visible code cells of at most 15 lines, and no function body above 15 lines."""
    cells = visible(code_cells(path))
    assert 5 <= len(cells) <= 12
    for cell in cells:
        assert len("".join(cell["source"]).strip().splitlines()) <= 15, cell["source"]
    for cell in code_cells(path):
        plain = re.sub(r"(?m)^\s*[%!].*$", "", "".join(cell["source"]))
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.body[0].lineno < 15, node.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_open_alike(path):
    """A chapter starts with a title, says what it needs and gives, and runs on its own Python."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    first = "".join(notebook["cells"][0]["source"])
    assert first.startswith("# ")
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"][:3])
    for words in ("You will", "You need", "You get", "Runtime"):
        assert words in text, words
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


# --- run.py --------------------------------------------------------------------------------------


@pytest.fixture
def run():
    """Return run.py as a module."""
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(run, tmp_path, monkeypatch):
    """Return run.py at work in another folder, whose path has a blank."""
    root = tmp_path / "a clone"
    root.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(run, "ROOT", root)
    monkeypatch.setattr(run, "VENV", root / ".venv")
    monkeypatch.setattr(run, "STAMP", root / ".venv" / "installed.sha256")
    monkeypatch.setattr(run, "PAGES", root / "_build" / "html")
    return run


def test_run_needs_only_the_standard_library():
    """run.py starts in a Python without any package."""
    command = [sys.executable, "-I", "-S", str(ROOT / "run.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "book" in done.stdout


def test_exit_codes_of_run_py():
    """A missing or misspelt command exits 2 and names the valid ones."""
    for words in ([], ["bok"]):
        command = [sys.executable, str(ROOT / "run.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "book, test, lab, serve, clean" in done.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_run_returns_the_exit_code_of_the_child(clone, code):
    """What the child returns is what run.py returns."""
    assert clone.run([sys.executable, "-c", f"raise SystemExit({code})"]) == code


def test_run_installs_only_when_the_lists_change(clone, monkeypatch):
    """The second run installs nothing; a change of either list installs again."""
    commands = []

    def record(command, environment=None):
        commands.append(command)
        clone.VENV.mkdir(exist_ok=True)
        return 0

    monkeypatch.setattr(clone, "run", record)
    monkeypatch.setattr(clone, "works", lambda python: bool(commands))
    assert clone.install() == 0
    assert [command[1:3] for command in commands] == [["-m", "venv"], ["-m", "pip"]]
    assert commands[-1][-3:] == ["constraints.txt", "-e", ".[test,book]"]
    assert clone.install() == 0 and len(commands) == 2
    for name in ("pyproject.toml", "constraints.txt"):
        before = len(commands)
        with (clone.ROOT / name).open("a") as file:
            file.write("# changed\n")
        assert clone.install() == 0 and len(commands) == before + 1


def test_run_does_not_stamp_a_failed_installation(clone, monkeypatch):
    """After a failure the next run installs again, and the failure's exit code is returned."""
    monkeypatch.setattr(clone, "works", lambda python: True)
    monkeypatch.setattr(clone, "run", lambda command, environment=None: 7)
    assert clone.install() == 7
    assert not clone.STAMP.exists()


def test_run_says_what_to_install_where_ensurepip_is_missing(clone, monkeypatch, capsys):
    """Without ensurepip the message names the package, and nothing is made."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        clone.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find(name)
    )
    assert clone.main(["book"]) == 1
    assert "-venv" in capsys.readouterr().err
    assert not clone.VENV.exists()


def test_run_guards_the_environment(run, monkeypatch):
    """A backend set outside does not reach the notebooks; the nights' folder does."""
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    monkeypatch.setenv("DATARED_HOME", "elsewhere")
    environment = run.child_environment()
    assert "MPLBACKEND" not in environment
    assert environment["DATARED_HOME"] == "elsewhere"
    monkeypatch.delenv("DATARED_HOME")
    assert run.child_environment()["DATARED_HOME"] == str(ROOT / "nights")


def test_clean_keeps_nights(clone):
    """`clean --all` removes pages, caches and .venv, and never a night."""
    for name in ("_build/html", ".venv/bin", "nights/cluster", ".pytest_cache"):
        (clone.ROOT / name).mkdir(parents=True)
    assert clone.main(["clean"]) == 0
    assert clone.VENV.exists()
    assert clone.main(["clean", "--all"]) == 0
    left = {path.name for path in clone.ROOT.iterdir()}
    assert left == {"pyproject.toml", "constraints.txt", "nights"}


def test_every_requirement_has_a_test():
    """The requirements that are done are named by the tests that check them."""
    ranges = {"HD-": range(1, 9), "CF-": (1, 2), "PR-": range(1, 17), "PX-": range(1, 8)}
    ranges |= {"DT-": range(1, 8), "AS-": range(1, 10), "ZP-": range(1, 8)}
    ranges |= {"E": range(1, 48), "PH-": range(1, 17), "CM-": range(1, 7)}
    ranges |= {"LC-": range(1, 12), "MV-": range(1, 5), "ST-": range(1, 6), "CC-": range(1, 5)}
    ranges |= {"000-": range(1, 37), "002-": range(1, 12)}
    ranges |= {"003-": range(1, 19), "004-": range(1, 24)}
    wanted = {f"{start}{i:02}" for start, numbers in ranges.items() for i in numbers}
    for path in (ROOT / "tests").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = f"{node.name.upper()} {ast.get_docstring(node)}".replace("_", " ")
                wanted -= set(re.findall(r"\b(?:[A-Z]{2}-\d\d|E\d\d|\d{3}-\d\d)\b", words))
    assert sorted(wanted) == []
