"""The book: a broken one fails to build, the built pages are right and read without a network."""

import functools
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from datared.products import atomic_path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "_build" / "html"
ANALYSIS = ["data", "pre-red", "astrometry", "photometry", "CMD", "lightcurve", "stack", "psf"]
ANALYSIS += ["ngc6819", "hat-p-32", "variables", "camera"]

# --- building ------------------------------------------------------------------------------------


def load_run():
    """Return run.py as a module."""
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_book(folder: Path, *pages: str) -> Path:
    """Write a book with this book's configuration and, for each page, one code cell."""
    (folder / "book").mkdir(parents=True)
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name)
    shutil.copyfile(ROOT / "_config.yml", folder / "_config.yml")
    (folder / "book" / "references.bib").write_text("")
    names = ["intro", *(f"page{n}" for n in range(2, len(pages) + 1))]
    toc = {"format": "jb-book", "root": "book/intro"}
    if names[1:]:
        toc["chapters"] = [{"file": f"book/{name}"} for name in names[1:]]
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, code in zip(names, pages, strict=True):
        cells = [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"# {name}\n\n$x^2$"},
            {
                "cell_type": "code",
                "id": "b",
                "metadata": {},
                "source": code,
                "outputs": [],
                "execution_count": None,
            },
        ]
        notebook = {"cells": cells, "metadata": {"kernelspec": kernel}}
        notebook |= {"nbformat": 4, "nbformat_minor": 5}
        (folder / "book" / f"{name}.ipynb").write_text(json.dumps(notebook))
    return folder


def build(folder: Path) -> subprocess.CompletedProcess:
    """Build a book exactly as run.py does."""
    run = load_run()
    return subprocess.run(
        run.book_command(sys.executable, str(folder)),
        cwd=folder,
        env=run.child_environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.mark.slow
def test_right_book_builds(tmp_path):
    """A page whose cell runs makes a build that succeeds, from a path with a blank."""
    folder = tiny_book(tmp_path / "a book", "import sys\nsys.executable")
    done = build(folder)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    page = (folder / "_build" / "html" / "book" / "intro.html").read_text(encoding="utf-8")
    # The kernel is the Python that builds, whatever other kernels this user has.
    assert Path(sys.executable).parent.as_posix() in page.replace("\\\\", "/")


@pytest.mark.slow
def test_crashing_notebook_fails_the_build(tmp_path):
    """A crash in a cell fails the build, and the second build of the same broken book too."""
    folder = tiny_book(tmp_path / "book", "1 / 0")
    for _ in range(2):
        done = build(folder)
        assert done.returncode != 0
        report = folder / "_build" / "html" / "reports" / "book" / "intro.err.log"
        assert "ZeroDivisionError" in report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_warning_in_a_cell_fails_the_build(tmp_path):
    """A warning that a cell prints fails the build instead of standing in the page."""
    done = build(tiny_book(tmp_path / "book", "import warnings\nwarnings.warn('mind this')"))
    assert done.returncode != 0
    assert "stderr" in done.stdout + done.stderr


# A page that notes its home and ends only if the other one begins while it runs.
MEETING = """\
import os, time
from pathlib import Path
with open("{0}.txt", "a") as notes:
    print(os.environ["DATARED_HOME"], file=notes)
end = time.monotonic() + 100
while not Path("{1}.txt").exists():
    assert time.monotonic() < end, "the other page does not run"
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_two_notebooks_execute_side_by_side(tmp_path, monkeypatch):
    """Two pages run at a time, each in a home of its own; one that crashes fails the build."""
    monkeypatch.setenv("DATARED_HOME", str(tmp_path / "nights"))
    (tmp_path / "nights").mkdir()
    pages = MEETING.format("one", "two"), MEETING.format("two", "one") + "1 / 0"
    folder = tiny_book(tmp_path / "book", *pages, "open('three.txt', 'w')")
    off = folder / "book" / "page3.ipynb"
    notebook = json.loads(off.read_text(encoding="utf-8"))
    notebook["metadata"]["mystnb"] = {"execution_mode": "off"}
    off.write_text(json.dumps(notebook), encoding="utf-8")
    done = build(folder)
    assert done.returncode != 0
    reports = list((folder / "_build" / "html" / "reports").rglob("*.err.log"))
    assert [report.name for report in reports] == ["page2.err.log"]
    assert "ZeroDivisionError" in reports[0].read_text(encoding="utf-8")
    one, two = ((folder / "book" / f"{n}.txt").read_text().splitlines() for n in ("one", "two"))
    assert len(one) == len(two) == 1  # executed once
    assert one != two
    assert not (folder / "_build" / "home").exists()
    assert not (folder / "book" / "three.txt").exists()  # The page says so itself.


@functools.cache
def sidebyside():
    """Return the extension that executes the notebooks, as a module."""
    path = ROOT / "book" / "_ext" / "sidebyside.py"
    spec = importlib.util.spec_from_file_location("sidebyside", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_first_rows_share_no_night(toc):
    """The pages that make the nights side by side exist, and no night is in both rows."""
    extension = sidebyside()
    assert set(extension.NEXT) < set(toc)
    nights = []
    for row in extension.FIRST:
        assert set(row) < set(toc)
        texts = [(ROOT / f"{name}.ipynb").read_text(encoding="utf-8") for name in row]
        nights.append(set(re.findall(r'fetch_night\(\\"([^"\\]+)', "".join(texts))))
    assert all(nights) and not set.intersection(*nights)


def fake_app(folder, **settings):
    """Return what the extension needs of Sphinx; the pages are the notebooks of the folder."""
    from myst_nb.core.config import NbParserConfig

    env = types.SimpleNamespace(
        doc2path=lambda name: str(folder / f"{name}.ipynb"),
        mystnb_config=NbParserConfig(**{"execution_mode": "force"} | settings),
    )
    return types.SimpleNamespace(env=env, outdir=folder / "_build" / "html", executed_pages={})


@pytest.mark.parametrize(
    ("settings", "page", "ours"),
    [
        ({}, {}, True),
        ({"execution_mode": "off"}, {}, False),
        ({"execution_mode": "cache"}, {}, False),
        ({"execution_mode": "auto"}, {}, True),  # It has no output yet.
        ({"execution_excludepatterns": ["book/*"]}, {}, False),
        ({"execution_excludepatterns": ["other/*"]}, {}, True),
        ({"execution_in_temp": True}, {}, False),
        ({"execution_raise_on_error": True}, {}, False),
        ({}, {"mystnb": {"execution_timeout": 5}}, False),
        ({}, {"execution": {"allow_errors": True}}, False),
    ],
)
def test_settings_of_book_and_pages_are_heeded(tmp_path, settings, page, ours):
    """What MyST-NB would not execute, or not in the plain way, is left to it."""
    path = tiny_book(tmp_path, "1") / "book" / "intro.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"] |= page
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert sidebyside().is_ours(fake_app(tmp_path, **settings).env, "book/intro") == ours


def test_errors_are_shown_where_the_book_allows_them(tmp_path):
    """With `allow_errors` in the settings of the book a page goes on behind an error."""
    tiny_book(tmp_path, "1 / 0")
    app = fake_app(tmp_path, execution_allow_errors=True)
    extension = sidebyside()
    extension.before_reading(app, app.env, ["book/intro"])
    assert "ZeroDivisionError" in app.executed_pages["book/intro"]
    assert not app.outdir.parent.exists()  # No report, and no second home for one page.


def test_second_home_has_the_nights_of_the_first(tmp_path, monkeypatch):
    """The second row finds the nights made; what it makes anew does not change the first's."""
    first = tmp_path / "nights"
    (first / "cluster" / "work").mkdir(parents=True)
    product = first / "cluster" / "work" / "a.fits"
    product.write_text("made")
    monkeypatch.setenv("DATARED_HOME", str(first))
    app = fake_app(tmp_path)
    for _ in range(2):  # a home of an earlier build is replaced
        second = Path(sidebyside().second_home(app)["DATARED_HOME"])
        copy = second / "cluster" / "work" / "a.fits"
        assert copy.read_text() == "made" and copy.stat().st_mtime_ns == product.stat().st_mtime_ns
        with atomic_path(copy) as temporary:
            temporary.write_text("made again")
    assert product.read_text() == "made"


def test_second_home_is_empty_without_links(tmp_path, monkeypatch):
    """Without a first home, or on a disk without links, the second row makes its own nights."""
    app = fake_app(tmp_path)
    monkeypatch.setenv("DATARED_HOME", str(tmp_path / "missing"))
    assert not Path(sidebyside().second_home(app)["DATARED_HOME"]).exists()
    (tmp_path / "nights").mkdir()
    (tmp_path / "nights" / "a.fits").touch()
    monkeypatch.setenv("DATARED_HOME", str(tmp_path / "nights"))

    def no_link(*_, **__):
        raise OSError("no links on this disk")

    monkeypatch.setattr(os, "link", no_link)
    assert not Path(sidebyside().second_home(app)["DATARED_HOME"]).exists()


# --- reading the built pages ---------------------------------------------------------------------


# What a page loads by itself, by tag and attribute, and by the relation of a <link>.
LOADS = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "track": ("src",),
}
LOADING_LINKS = {"stylesheet", "icon", "shortcut", "preload", "prefetch", "modulepreload"}


class Page(HTMLParser):
    """One built page: what it loads, links to and says."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.loads, self.links, self.ids, self.images, self.classes = [], [], set(), [], set()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        """Note what a tag loads or links to."""
        values = {name: value or "" for name, value in attrs}
        self.classes |= set(values.get("class", "").split())
        if "id" in values:
            self.ids.add(values["id"])
        for name in LOADS.get(tag, ()):
            if values.get(name):
                self.loads.append(values[name])
        if tag == "img":
            self.images.append(values)
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", values.get("style", ""))

    def target(self, link: str) -> Path:
        """Return the file that a relative link means."""
        name = unquote(urlsplit(link).path)
        return (self.path.parent / name).resolve() if name else self.path


def is_foreign(address: str) -> bool:
    """Tell whether an address leads to another host."""
    parts = urlsplit(address.strip())
    return bool(parts.netloc) or parts.scheme in {"http", "https", "ftp", "ws", "wss"}


@pytest.fixture(scope="module")
def toc() -> list[str]:
    """Return the names of the pages in their order."""
    table = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = [one["file"] for part in table["parts"] for one in part["chapters"]]
    return [table["root"], *chapters]


@pytest.fixture(scope="module")
def built(toc) -> dict[str, Page]:
    """Return the built pages, or skip: `python3 run.py book` makes them."""
    found = {name: PAGES / f"{name}.html" for name in toc}
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing:
        message = f"not built: {', '.join(missing)} (python3 run.py book)"
        if os.environ.get("DATARED_BOOK_BUILT"):
            pytest.fail(message)
        pytest.skip(message)
    return {name: Page(path) for name, path in found.items()}


def test_toc_order(toc):
    """The course goes from raw frames to stars to results."""
    order = [name.removeprefix("book/") for name in toc]
    assert order[:4] == ["intro", "background", "installation", "tools"]
    steps = ["data", "pre-red", "astrometry", "photometry"]
    assert [name for name in order if name in steps] == steps
    assert order.index("photometry") < min(order.index("CMD"), order.index("lightcurve"))
    assert order.index("astrometry") < order.index("stack")


def test_every_page_is_in_the_toc(toc):
    """No chapter lies in the folder without being built, none in the list is missing."""
    there = {path for end in ("*.md", "*.ipynb") for path in (ROOT / "book").glob(end)}
    assert {f"book/{path.stem}" for path in there} == set(toc)


def test_glossary_is_in_order():
    """The terms of the glossary are in the order of the alphabet, and none stands twice."""
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    terms = [term.lower() for term in re.findall(r"^(\w.*)\n  \S", text, re.MULTILINE)]
    assert len(terms) > 90
    assert [pair for pair in itertools.pairwise(terms) if pair[0] >= pair[1]] == []


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.ipynb")), ids=lambda p: p.stem)
def test_cells_are_short_and_pictures_have_a_text(path):
    """A cell that a reader unfolds, and a guard, has 20 lines at most; each picture has a text."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert len(code.splitlines()) <= 20, code
            if re.search(r"plt\.(figure|subplots|show|hist|plot)\(|imshow\(|;$", code):
                assert len(cell["metadata"]["mystnb"]["image"]["alt"]) > 60, code


def test_next_links_follow_the_toc(built, toc):
    """The button at the foot of a page leads to the next page of the list."""
    for name, following in itertools.pairwise(toc):
        link = re.search(r'class="right-next"\s+href="([^"]+)"', built[name].text)
        assert link, name
        assert built[name].target(link[1]) == built[following].path.resolve()


def test_titles(built):
    """Each page has a title of its own."""
    titles = [
        re.search(r"<title>(.*?)</title>", page.text, re.DOTALL)[1] for page in built.values()
    ]
    assert all(title.strip() for title in titles)
    assert len(set(titles)) == len(titles)


def test_built_html_has_figures(built):
    """Each analysis page shows at least one figure that its own cells made."""
    for name in ANALYSIS:
        made = [one for one in built[f"book/{name}"].images if "_images/" in one.get("src", "")]
        assert made, name


def test_diagnostic_figures_exist(built):
    """DT-07, AS-03, 004-20, 004-22: the figures of the measurements are on the built pages."""
    least_figures = {"astrometry": 8, "photometry": 11, "psf": 7, "lightcurve": 9}
    least_figures |= {"hat-p-32": 9, "variables": 6, "stack": 11, "camera": 7}
    for name, least in least_figures.items():
        made = [i for i in built[f"book/{name}"].images if "_images/" in i.get("src", "")]
        assert len(made) >= least, name
        assert all(len(one["alt"]) > 60 for one in made)


def test_figures_are_there(built):
    """Every figure is a file, not empty, and has a text for those who cannot see it."""
    for name, page in built.items():
        for image in page.images:
            if not image.get("src", "").startswith("data:"):
                assert page.target(image["src"]).stat().st_size > 0, (name, image)
            assert "alt" in image, (name, image)


def test_no_error_text(built):
    """No page shows an error, a warning of the build or a cell that crashed."""
    signs = ["Traceback (most recent call last)", "CellExecutionError", "&lt;ipython-input-"]
    for name, page in built.items():
        assert [sign for sign in signs if sign in page.text] == [], name
        assert {"system-message", "problematic", "stderr", "traceback"} & page.classes == set(), (
            name
        )
    assert list((PAGES / "reports").rglob("*.log")) == []


def test_pages_load_nothing_from_other_hosts(built):
    """Scripts, styles, images and fonts come with the book."""
    for name, page in built.items():
        assert [one for one in page.loads if is_foreign(one)] == [], name
        for inline in re.findall(r"<style[^>]*>(.*?)</style>", page.text, re.DOTALL):
            assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", inline), name
    for style in PAGES.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", text), style.name


def test_local_links_resolve(built):
    """A link inside the book leads to a page, or a place in a page, that exists."""
    by_path = {page.path.resolve(): page for page in built.values()}
    broken = []
    for name, page in built.items():
        for link in page.links:
            if is_foreign(link) or link.startswith(("mailto:", "javascript:", "data:")):
                continue
            target, place = page.target(link), unquote(urlsplit(link).fragment)
            known = by_path.get(target)
            if not target.exists() or (place and known and place not in known.ids):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_source_links_name_real_files(built):
    """The buttons for editing and for Binder name files of this repository."""
    for name, page in built.items():
        edits = [link for link in page.links if "/edit/main/" in link]
        assert edits, name
        assert (ROOT / edits[0].partition("/edit/main/")[2]).is_file()
    for name in ANALYSIS:
        launch = [one for one in built[f"book/{name}"].links if "mybinder.org" in one]
        assert launch, name
        assert (ROOT / unquote(launch[0]).partition("tree/")[2]).is_file()


# --- looking at the built pages ------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Return a browser, or skip where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for path in map(shutil.which, names) if path), None)
    if program is None:
        pytest.skip("no chromium on this computer")
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


# How far the widest element stands out of the window, and which one it is.
OVERFLOW = """() => {
    const room = document.documentElement.clientWidth;
    const over = document.documentElement.scrollWidth - room;
    if (over <= 1) return "";
    const wide = [...document.querySelectorAll("article *")]
        .filter(one => one.getBoundingClientRect().right > room + 1).slice(0, 3)
        .map(one => one.tagName + "." + one.className);
    return over + " px too wide: " + wide.join(", ");
}"""

# Equations that the page has, those drawn, and the errors in them: MathJax draws a command that it
# does not know in red.
EQUATIONS = """() => ["article .math", "article mjx-container",
     "article mjx-container :is([data-mml-node=merror], [fill=red])"]
    .map(one => document.querySelectorAll(one).length)"""


@pytest.mark.slow
def test_pages_read_without_network(built, browser):
    """In a browser without network every equation is drawn and nothing is wider than the window."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    foreign, problems, equations = [], [], 0
    context.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:", "blob:"))
            else foreign.append(request.url)
        ),
    )
    tab = context.new_page()
    for name, page in built.items():
        tab.set_viewport_size({"width": 1280, "height": 900})
        tab.goto(page.path.resolve().as_uri(), wait_until="load")
        if tab.evaluate(EQUATIONS)[0]:
            tab.wait_for_function("() => window.MathJax?.startup?.promise", timeout=20_000)
            tab.evaluate("() => MathJax.startup.promise.then(() => null)")
        wanted, drawn, wrong = tab.evaluate(EQUATIONS)
        equations += wanted
        if drawn < wanted or wrong:
            problems.append(f"{name}: {wanted} equations, {drawn} drawn, {wrong} wrong")
        for width in (1280, 400):
            tab.set_viewport_size({"width": width, "height": 900})
            overflow = tab.evaluate(OVERFLOW)
            if overflow:
                problems.append(f"{name} at {width} px: {overflow}")
    context.close()
    assert foreign == []
    assert problems == []
    assert equations > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CMD", "ngc6819"])
def test_keyboard_moves_the_isochrone(built, browser, name):
    """CM-05: in the built page a slider moved by the keyboard changes the drawn isochrone."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    tab = context.new_page()
    problems = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(built[f"book/{name}"].path.resolve().as_uri(), wait_until="load")
    figure = tab.locator(".datared-explorer")
    assert figure.count() == 1
    line = figure.locator("path.single")
    before, read = line.get_attribute("d"), figure.locator(".state").text_content()
    figure.get_by_label("Age", exact=True).press("ArrowRight")
    assert line.get_attribute("d") != before
    assert figure.locator(".state").text_content() != read
    assert len(figure.evaluate("one => one.outerHTML").encode()) < 400_000
    # The theme's button for light and dark changes the figure with the page.
    grounds = set()
    for theme in ("light", "dark"):
        tab.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        grounds.add(figure.evaluate("one => getComputedStyle(one).backgroundColor"))
    assert len(grounds) == 2
    context.close()
    assert problems == []
