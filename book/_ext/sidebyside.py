"""Execute the notebooks two at a time.

A Sphinx extension of this book. MyST-NB executes a notebook when Sphinx reads it, one after the
other. Here they are executed before the first is read, and each is handed to MyST-NB with its
outputs. A page that fails is a warning of the build, as with MyST-NB, and its traceback is written
where MyST-NB would write it. A page that MyST-NB would not execute, or that has settings of its
own, is left to MyST-NB.

Pages write in the sample nights, and two programs must not write in one night. So the nights are
made by two rows of pages that share none. Then the second row gets a home of its own, in which the
files of the first are linked, not copied: datared replaces a product, it never changes one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import traceback
from pathlib import Path

import nbformat
from myst_nb.core.execute import NotebookClientDirect, create_client
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from sphinx.util import logging

#: The pages that go first, in two rows side by side; no night is in both. The second begins with
#: pages without a night: meanwhile CMD compiles what the light curve needs too.
FIRST = (
    ("book/CMD",),
    ("book/hat-p-32", "book/ngc6819", "book/lightcurve", "book/variables"),
)
#: The longest of the others, so that both rows end at about the same time.
NEXT = ("book/stack", "book/psf", "book/pre-red", "book/photometry")

log = logging.getLogger(__name__)


def is_ours(env, name):
    """Whether a page is executed here: a notebook that MyST-NB would execute in its folder."""
    path, config = env.doc2path(name), env.mystnb_config
    if not path.endswith(".ipynb") or config.execution_in_temp or config.execution_raise_on_error:
        return False
    notebook = nbformat.read(path, 4)
    if {config.metadata_key, "execution"} & set(notebook.metadata):
        return False
    return isinstance(create_client(notebook, path, config, log), NotebookClientDirect)


async def execute(app, name, environment):
    """Execute one page and keep its text with the outputs."""
    path, start = Path(app.env.doc2path(name)), time.monotonic()
    notebook, config = nbformat.read(path, 4), app.env.mystnb_config
    client = NotebookClient(
        notebook,
        timeout=config.execution_timeout,
        allow_errors=config.execution_allow_errors,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        await client.async_execute(env=environment)
        log.info("%s: executed in %.0f s", name, time.monotonic() - start)
    except (CellExecutionError, CellTimeoutError) as error:
        report = Path(app.outdir, "reports", f"{name}.err.log")
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(traceback.format_exc(), encoding="utf-8")
        log.warning("failed: %s, see %s", type(error).__name__, report, location=name)
    except Exception as error:  # The kernel died, or there is none: the build ends.
        log.error("%s: %s", type(error).__name__, error, location=name)
        raise
    # As a page may say itself: MyST-NB has nothing to execute any more.
    notebook.metadata[config.metadata_key] = {"execution_mode": "off"}
    app.executed_pages[name] = nbformat.writes(notebook)


async def execute_row(app, names, environment):
    """Execute pages one after another; two rows may take from one list."""
    while names:
        await execute(app, names.pop(0), environment)


def second_home(app):
    """Return the environment of the second row: a home with the files of the first home."""
    first = Path(os.environ.get("DATARED_HOME") or "~/datared").expanduser()
    second = Path(app.outdir).parent / "home"
    shutil.rmtree(second, ignore_errors=True)
    try:
        shutil.copytree(first, second, copy_function=os.link)
    except OSError:
        # No such folder, or a disk that has no links: the pages make their nights themselves.
        shutil.rmtree(second, ignore_errors=True)
    return {**os.environ, "DATARED_HOME": str(second)}


async def execute_pages(app, names):
    """Execute all pages, two at a time."""
    rows = [[name for name in row if name in names] for row in FIRST]
    await asyncio.gather(*(execute_row(app, row, dict(os.environ)) for row in rows))
    rest = [name for name in names if name not in {*FIRST[0], *FIRST[1]}]
    rest.sort(key=lambda name: NEXT.index(name) if name in NEXT else len(NEXT))
    if len(rest) < 2:
        await execute_row(app, rest, dict(os.environ))
        return
    homes = [dict(os.environ), second_home(app)]
    await asyncio.gather(*(execute_row(app, rest, home) for home in homes))
    shutil.rmtree(homes[1]["DATARED_HOME"], ignore_errors=True)


def before_reading(app, env, docnames):
    """Execute the notebooks among the pages that Sphinx will read."""
    app.executed_pages = {}
    names = [name for name in docnames if is_ours(env, name)]
    # The other loop of Windows cannot wait for the sockets of a kernel.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(execute_pages(app, names))


def read(app, docname, source):
    """Hand over a page with its outputs."""
    source[0] = app.executed_pages.pop(docname, source[0])


def setup(app):
    """Register with Sphinx."""
    app.connect("env-before-read-docs", before_reading)
    app.connect("source-read", read)
    return {"version": "1.0", "parallel_read_safe": True, "parallel_write_safe": True}
