"""Figures of PSF photometry, and the chapter that shows them: optional, and never on the way."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import yaml
from astropy.nddata import CCDData
from astropy.table import Table
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from datared import psfplots
from datared.errors import FrameError
from datared.psf import moffat_epsf
from datared.recovery import completeness

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = ROOT / "book" / "psf.ipynb"


def scene(shape=(60, 80)):
    """A frame with two stars on a sky of 500 ADU, and the frame without them."""
    rng = np.random.default_rng(1)
    residual = rng.normal(500.0, 5.0, shape)
    frame = residual + PSF.image(shape, [30.0, 34.0], [30.0, 31.0], [9000.0, 4000.0])
    return CCDData(frame, unit="adu"), CCDData(residual, unit="adu")


def recovered(n=400):
    """Artificial stars: half of those of flux 300 are found; the true error is twice the stated."""
    rng = np.random.default_rng(2)
    flux = 10 ** rng.uniform(2, 4, n)
    found = rng.random(n) < 1 / (1 + (300 / flux) ** 4)
    measured = np.where(found, flux + rng.normal(0, 40, n), np.nan)
    return completeness(
        Table({"flux": flux, "found": found, "flux_found": measured, "flux_err": np.full(n, 20.0)})
    )


PSF = moffat_epsf(fwhm=3.0)
FIGURES = {
    "show_psf": ((PSF,), {"curves": {"Moffat": ([0.0, 1.5], [1.0, 0.5])}}),
    "show_residual": (scene(), {"stars": ([30.0], [30.0])}),
    "completeness_curve": ((recovered(),), {"limit": 300.0, "label": "core"}),
    "error_curve": ((recovered(),), {"label": "core"}),
}


def draw(name, **more):
    """Call a figure of the room with its data."""
    arguments, options = FIGURES[name]
    return getattr(psfplots, name)(*arguments, **options, **more)


def test_every_figure_is_tested():
    """No figure is left out of these tests."""
    assert set(psfplots.__all__) == set(FIGURES)


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_psf_figures_follow_the_rules(name):
    """PH-15: data first, options by keyword, labels with units, own axes on request, no trace."""
    before = dict(mpl.rcParams)
    figures = len(plt.get_fignums())
    result = draw(name)
    many = [result] if isinstance(result, Axes) else result
    assert len(plt.get_fignums()) == figures + 1
    for ax in many:
        assert ax.get_xlabel().endswith(")") or "/" in ax.get_ylabel()
        assert ax.has_data()
    many[0].figure.canvas.draw()
    assert dict(mpl.rcParams) == before
    parameters = inspect.signature(getattr(psfplots, name)).parameters
    kinds = [one.kind for one in parameters.values()]
    first = len(FIGURES[name][0])
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[first:])
    word = "ax" if isinstance(result, Axes) else "axes"
    assert parameters[word].default is None
    own = plt.figure().subplots(1, len(many), squeeze=False)[0]
    again = draw(name, **{word: own[0] if word == "ax" else own})
    assert again is own[0] if word == "ax" else all(a is b for a, b in zip(again, own, strict=True))


def test_psf_profile_shows_the_nodes():
    """PH-15: image and profile show the model relative to its middle, in pixels of the frame."""
    left, right = psfplots.show_psf(PSF)
    image = left.images[0].get_array()
    assert image.max() == 1.0 and image.shape == PSF.data.shape
    side = PSF.data.shape[0] / PSF.oversampling
    assert np.allclose(left.images[0].get_extent(), [-side / 2, side / 2] * 2)
    r, height = right.lines[0].get_data()
    assert r.max() <= PSF.radius
    # A Moffat profile smeared by a pixel: half of its height lies a little outside of FWHM / 2.
    half = np.interp(0.5, height[np.argsort(-r)], -np.sort(-r))
    assert 1.5 < half < 1.7
    assert f"{PSF.fwhm / 2:.2f} px" in right.get_legend().get_texts()[-1].get_text()
    nothing = SimpleNamespace(data=np.zeros((5, 5)), oversampling=1, fwhm=2.0)
    with pytest.raises(FrameError, match="no positive value"):
        psfplots.show_psf(nothing)


def test_residual_panels_have_true_scales():
    """PH-15: frame = model + residual; grey levels are shared, the residual is even around zero."""
    frame, residual = scene()
    axes = psfplots.show_residual(frame, residual, region=(15, 50, 12, 47), noise=5.0)
    before, model, left = (ax.images[0] for ax in axes)
    assert np.allclose(before.get_array(), model.get_array() + left.get_array())
    assert before.norm.vmin == model.norm.vmin and before.norm.vmax == model.norm.vmax
    assert left.norm.vmax == -left.norm.vmin == 40.0
    assert abs(np.median(np.asarray(left.get_array())[12:48, 15:51])) < 1e-9
    assert axes[0].get_xlim() == (14.5, 50.5) and axes[2].get_ylim() == (11.5, 47.5)
    # The two panels of counts and that of what is left have a scale each, with a label and a unit.
    labels = [ax.get_xlabel() for ax in axes[0].figure.axes[3:]]
    assert labels == ["without sky (ADU)", "without sky (ADU)", "left over (ADU)"]
    assert [ax.get_title() for ax in axes] == ["frame", "model", "residual"]
    with pytest.raises(FrameError, match="has no residual of shape"):
        psfplots.show_residual(frame, residual.data[:5])
    with pytest.raises(FrameError, match="no pixel of the region"):
        psfplots.show_residual(frame, np.full(frame.shape, np.nan))


def test_completeness_curve_draws_the_table():
    """PH-15: points with their ranges, the half line once, two curves in two colours and shapes."""
    table = recovered()
    ax = psfplots.completeness_curve(table, limit=300.0, label="core")
    psfplots.completeness_curve(table, label="outside", ax=ax)
    points = [container[0] for container in ax.containers]
    assert np.allclose(points[0].get_ydata(), table["completeness"])
    assert points[0].get_color() != points[1].get_color()
    assert points[0].get_marker() != points[1].get_marker()
    assert ax.get_xscale() == "log"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "half are found: 300 ADU" in texts
    level = [line for line in ax.lines if np.allclose(line.get_ydata(), 0.5)]
    assert len(level) == 1


def test_error_curve_draws_both_errors():
    """PH-15: true and stated errors in per cent of the flux; bins without errors are left out."""
    table = recovered()
    ax = psfplots.error_curve(table)
    good = np.isfinite(table["true_error"])
    assert not good.all()
    true, stated = ax.containers[0][0], ax.lines[-1]
    assert np.allclose(true.get_ydata(), 100 * table["true_error"][good])
    assert np.allclose(stated.get_ydata(), 100 * table["stated_error"][good])


def test_psf_figures_of_nothing_are_drawn():
    """PH-15: no star came back, an empty table, a frame without values: a figure, not a crash."""
    table = recovered()
    none = table.copy()
    none["true_error"] = np.nan
    for empty in (none, table[:0]):
        psfplots.error_curve(empty).figure.canvas.draw()
    psfplots.completeness_curve(table[:0]).figure.canvas.draw()
    blank, residual = np.full((20, 20), np.nan), np.zeros((20, 20))
    psfplots.show_residual(blank, residual)[0].figure.canvas.draw()


# --- the chapter ---------------------------------------------------------------------------------


def cells():
    """Return the cells of the chapter."""
    return json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]


def test_psf_chapter_is_optional():
    """000-28: no other page, and no part of the package, leads to the chapter or needs it."""
    pages = [p for end in ("*.md", "*.ipynb") for p in (ROOT / "book").glob(end) if p != CHAPTER]
    pages += [ROOT / "README.md"]
    assert len(pages) > 8
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"\bpsf\.(ipynb|html|md)|\(psf\)|\{doc\}`psf", text), page.name
        assert not re.search(r"psf\.ecsv", text), page.name
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    parts = [part["caption"] for part in toc["parts"]]
    (own,) = [part for part in toc["parts"] if {"file": "book/psf"} in part["chapters"]]
    assert own["caption"] == "Going further" and parts.index("Results") < parts.index(
        own["caption"]
    )
    # No stage of a night is PSF photometry.
    from datared.pipeline import STAGES

    assert not any("psf" in name or "psf" in stage.room for name, stage in STAGES.items())


def test_psf_chapter_shows_both_from_one_call():
    """004-16, PH-15: the chapter gets PSF and aperture fluxes from one call and compares them."""
    code = "\n".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code")
    call = re.search(r"psf_photometry\((.*?)\n\)", code, re.DOTALL)[1]
    assert "**circle" in call and re.search(r'circle = {"radii": .*, "annulus": ', code)
    assert "aperture_flux" in code
    tests = [c for c in cells() if "test" in c["metadata"].get("tags", ())]
    assert any("< 0.01" in "".join(c["source"]) for c in tests)


def test_psf_chapter_figures_are_described():
    """PH-15: each figure has a text for those who cannot see it, and one that says what to see."""
    page = cells()
    figures = [
        k for k, cell in enumerate(page)
        if re.search(r"plt\.(figure|subplots)|psfplots\.|show_frame", "".join(cell["source"]))
        and cell["cell_type"] == "code"
        and not {"remove-cell"} & set(cell["metadata"].get("tags", ()))
        and "import" not in "".join(cell["source"])[:6]
    ]  # fmt: skip
    assert len(figures) >= 5
    for k in figures:
        assert len(page[k]["metadata"]["mystnb"]["image"]["alt"]) > 60, page[k]["id"]
        following = next(c for c in page[k + 1 :] if c["cell_type"] == "markdown")
        assert "".join(following["source"]).startswith("**What to see.**"), page[k]["id"]


@pytest.mark.slow
def test_book_builds_without_psf_chapter(tmp_path):
    """000-28: the book builds with warnings as errors when the chapter is taken out.

    The cells are not run here: what a page leads to is what could break.
    """
    shutil.copytree(ROOT / "book", tmp_path / "book")
    shutil.copytree(ROOT / "datared", tmp_path / "datared")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    (tmp_path / "book" / "psf.ipynb").unlink()
    for name in ("LICENSE", "CHANGELOG.md", "README.md", "CONTRIBUTING.md"):
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, tmp_path / name)
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc["parts"]:
        part["chapters"] = [one for one in part["chapters"] if one["file"] != "book/psf"]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    settings["execute"]["execute_notebooks"] = "off"
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    start = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start, "build", ".", "--all", "-W", "-n", "--keep-going"],
        cwd=tmp_path, env=dict(os.environ, PYTHONUTF8="1"), capture_output=True, text=True,
        encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (tmp_path / "_build" / "html" / "book" / "photometry.html").is_file()
    assert not (tmp_path / "_build" / "html" / "book" / "psf.html").exists()
