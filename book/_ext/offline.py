"""Make the built pages read without a network.

A Sphinx extension of this book. Equations are drawn by the MathJax that the package
sphinx-mathjax-offline installs: one file that needs no fonts, with its reading aids for the blind.
The scripts of sphinx-thebe, which Jupyter Book always adds and which name another host, are left
out: the launch button opens Binder instead.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from sphinx.errors import ExtensionError

PACKAGE = "sphinx-mathjax-offline"
NEEDED = ("tex-svg-full.js", "a11y", "sre/mathmaps/base.json", "sre/mathmaps/en.json")


def mathjax_folder() -> Path:
    """Return the folder of the installed MathJax."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ExtensionError(f"{PACKAGE} is not installed. Build with: python3 run.py book")
    return Path(spec.origin).parent / "static" / "mathjax"


def use_own_mathjax(app, config):
    """Point the pages to the copy in their own _static folder."""
    config.mathjax_path = "mathjax/tex-svg-full.js"


def copy_mathjax(app, exception):
    """Copy what the pages need of MathJax beside them."""
    if exception is not None or app.builder.format != "html":
        return
    for name in NEEDED:
        source = mathjax_folder() / name
        target = Path(app.outdir) / "_static" / "mathjax" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def drop_thebe(app, pagename, templatename, context, doctree):
    """Leave out the scripts of sphinx-thebe."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(getattr(script, "filename", script))
        and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]


def setup(app):
    """Register with Sphinx."""
    # Late, so that it wins over the configuration file.
    app.connect("config-inited", use_own_mathjax, priority=900)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1.0", "parallel_read_safe": True, "parallel_write_safe": True}
