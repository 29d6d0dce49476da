"""Lines for the night file: right, valid, and honest about what is not known."""

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from datared import load_night, samples
from datared.camera import camera_night
from datared.camerabench import simulate_camera
from datared.cameranight import linearity_night, suggest_night
from datared.camerareport import camera_report
from datared.cli import app
from datared.options import Camera
from datared.suggestions import suggest

DATA = Path(os.environ.get("DATARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
GAIN, READ_NOISE, OFFSET, SHAPE = 1.5, 6.0, 300.0, (96, 128)
TITLES = (
    "Gain and read noise", "Linearity and full well", "Dark current and hot pixels",
    "Flats compared", "Distortion", "Calibration frames and masters", "Suggestions for night.toml",
)  # fmt: skip


def measured(**changes):
    """Row of `camera_night` of the camera above."""
    row = {"setup": "1x1", "filter": "all", "n_bias": 9, "n_pairs": 4, "note": ""}
    row |= {"gain": 1.5012, "gain_err": 0.004, "read_noise": 6.03, "read_noise_err": 0.02}
    row |= {"converter": np.nan}
    return Table([row | changes])


def full(**changes):
    """Row of `linearity_night` of the camera above."""
    row = {"setup": "1x1", "filter": "V", "saturation": 52_140.0, "full_well": 54_500.0}
    row |= {"turnover": np.nan, "turnover_err": np.nan, "level_2": 54_500.0}
    return Table([row | changes])


def read(text, folder):
    """Camera that datared reads from a night file with these lines."""
    (folder / "raw").mkdir(exist_ok=True)
    path = folder / "night.toml"
    path.write_text('raw = "raw"\nwork = "work"\n' + text, encoding="utf-8")
    assert set(tomllib.loads(text)) == {"camera"}
    return load_night(path).camera


def line_of(text, key):
    """Line about one entry, a comment or not, with what goes on in the next ones."""
    assert max(len(line) for line in text.splitlines()) <= 98, text
    lines = text.replace("\n#     ", " ").splitlines()
    found = [line for line in lines if line.removeprefix("# ").startswith(key)]
    assert len(found) == 1, text
    return found[0]


# --- the lines -----------------------------------------------------------------------------------


def test_suggestions_are_lines_of_a_night_file(tmp_path):
    """CC-02, CC-01: the text is TOML that `load_night` reads, with errors and sources beside."""
    text = suggest(measured(), linearity=full())
    camera = read(text, tmp_path)
    assert (camera.gain, camera.read_noise, camera.saturation) == (1.501, 6.03, 52_100)
    assert line_of(text, "gain").endswith("# e-/ADU, +- 0.004, from 4 pairs of flats")
    assert line_of(text, "read_noise").endswith("# e-, +- 0.02, from 9 bias frames")
    line = "saturation = 52100  # ADU, raw, 95 % of full pixels (54500 ADU) + the bias (flats in V)"
    assert line_of(text, "saturation") == line
    bent = suggest(measured(), linearity=full(level_2=45_640.0, saturation=46_140.0))
    assert "off by 2 % from 45640 ADU above the bias on" in line_of(bent, "saturation")


@pytest.mark.parametrize(
    ("configured", "different"),
    [
        ({}, ()),
        ({"gain": 1.52, "read_noise": 6.2, "saturation": 50_000.0}, ()),
        ({"gain": 3.0, "read_noise": 6.2, "saturation": 40_000.0}, ("gain",)),
        ({"gain": 1.5, "read_noise": 4.0, "saturation": 65_000.0}, ("read_noise", "saturation")),
        ({"gain": 0.7, "saturation": 4000.0}, ("gain", "saturation")),
    ],
    ids=["nothing", "right", "gain", "noise-saturation", "low"],
)
def test_suggestions_say_where_the_night_file_differs(configured, different, tmp_path):
    """CC-02: wrong values are told, right ones too; the measured value stands in the line.

    A saturation that is lower than needed by less than 30 % is only careful.
    """
    text = suggest(measured(), linearity=full(), configured=Camera(**configured))
    assert read(text, tmp_path) == Camera(gain=1.501, read_noise=6.03, saturation=52_100)
    for key in ("gain", "read_noise", "saturation"):
        line = line_of(text, key)
        assert ("DIFFERS" in line) == (key in different), line
        assert (f"night.toml has {configured.get(key, 0):g}" in line) == (key in configured)
        assert ("agrees" in line) == (key in configured and key not in different)


def test_suggestions_read_the_header():
    """PR-12, CC-01: a card that holds e-/ADU agrees; GAIN as an index is told to be none."""
    header = {"EGAIN": 1.51, "GAIN": 120, "RDNOISE": 6.0, "READNOIS": "low"}
    text = suggest(measured(), header=header)
    assert "header EGAIN = 1.51 (agrees), header GAIN = 120 (not e-/ADU)" in line_of(text, "gain")
    assert line_of(text, "read_noise").endswith("; header RDNOISE = 6 (agrees)")
    own = Camera(gain_keyword="EPERADU")
    text = suggest(measured(), header={"EPERADU": 2.9}, configured=own)
    assert "header EPERADU = 2.9 (not e-/ADU)" in line_of(text, "gain")


def test_suggestions_of_what_is_not_known_are_comments(tmp_path):
    """CC-01, CC-02: what was not measured, or badly, is a comment; the text stays valid."""
    nothing = dict.fromkeys(("gain", "gain_err", "read_noise", "read_noise_err"), np.nan)
    text = suggest(measured(**nothing, note="1 flats: two are needed"))
    assert read(text, tmp_path) == Camera()
    assert line_of(text, "gain") == "# gain: 1 flats: two are needed"
    text = suggest(measured(gain_err=0.3), configured=Camera(gain=1.6))
    assert "1.5 +- 0.3 is not good enough; night.toml has 1.6" in line_of(text, "gain")
    # Of levels that do not tell the read noise it is 0, without an error.
    text = suggest(measured(read_noise=0.0, read_noise_err=np.nan, note="not told"))
    assert read(text, tmp_path).read_noise is None
    assert line_of(text, "read_noise") == "# read_noise: not told"
    empty = measured()[:0]
    assert read(suggest(empty), tmp_path) == Camera()
    assert "no bias frames and flats" in suggest(empty)


def test_suggestions_of_a_saturation_without_a_series(tmp_path):
    """CC-02: where no flat is full, only a saturation that no pixel can reach is corrected."""
    none = full(saturation=np.nan, full_well=np.nan, level_2=np.nan)
    text = suggest(measured(), linearity=none, header={"SATURATE": 50_000}, end=64_224.3)
    assert line_of(text, "saturation").endswith("; header SATURATE = 50000 is used")
    for configured, words in (
        (Camera(), "no flats tell where the pixels are full; 64224 ADU is used"),
        (Camera(saturation=60_000.0), "pixels are full; night.toml has 60000"),
    ):
        text = suggest(measured(), linearity=none, configured=configured, end=64_224.3)
        assert words in line_of(text, "saturation") and read(text, tmp_path).saturation is None
    wrong = Camera(saturation=70_000.0)
    text = suggest(measured(), linearity=none, configured=wrong, end=64_224.3)
    assert read(text, tmp_path).saturation == 64_224 and "DIFFERS" in line_of(text, "saturation")
    bent = full(full_well=np.nan, level_2=29_700.0, saturation=30_000.0)
    assert "the camera is off by 2 % from 29700 ADU" in suggest(measured(), linearity=bent)
    turn = {"full_well": np.nan, "saturation": 48_210.0, "turnover": 50_400.0}
    turned = full(**turn, level_2=np.nan, turnover_err=5000.0)
    text = suggest(measured(), linearity=turned)
    words = "95 % of where the variance turns (50400 ADU) + the bias"
    assert words in line_of(text, "saturation")
    # A turn somewhere between two levels that are far apart does not count.
    text = suggest(measured(), linearity=full(**turn, level_2=48_000.0, turnover_err=20_000.0))
    assert "off by 2 % from 48000 ADU above" in line_of(text, "saturation")


@pytest.mark.parametrize(("found", "value"), [(242.6, 242.0), (3897.2, 3890.0), (15_589.0, 15_500)])
def test_suggestions_of_a_saturation_of_few_bits(found, value, tmp_path):
    """CC-02: the saturation is rounded down to three digits, not to hundreds."""
    text = suggest(measured(), linearity=full(saturation=found), header={"SATURATE": 0})
    assert read(text, tmp_path).saturation == value
    none = full(saturation=np.nan)
    text = suggest(measured(), linearity=none, header={"SATURATE": 0}, end=249.9)
    assert line_of(text, "saturation").endswith("250 ADU is used, 98 % of the file's limit")


def test_suggestions_say_that_the_converter_ends_first(tmp_path):
    """CC-02: a plateau at the converter's last number is not told as full pixels.

    The night file is compared as before.
    """
    cut = measured(converter=54_600.0)
    text = suggest(cut, linearity=full(), configured=Camera(saturation=65_000.0))
    line = line_of(text, "saturation")
    assert read(text, tmp_path).saturation == 52_100 and "DIFFERS" in line
    words = "95 % of the converter's end (54600 ADU) + the bias (flats in V)"
    assert words in line and "full pixels" not in line
    # The curve may be off before; pixels of another set-up do not count.
    bent = suggest(cut, linearity=full(level_2=45_640.0, saturation=46_140.0))
    assert "off by 2 % from 45640 ADU" in line_of(bent, "saturation")
    both = Table([*measured(), *measured(setup="2x2", converter=54_600.0)])
    assert "full pixels (54500 ADU)" in line_of(suggest(both, linearity=full()), "saturation")


def test_suggestions_warn_of_several_amplifiers(tmp_path):
    """CC-01: the gain is a mean where the quarters differ; the line says so, and is still read."""
    words = "the gain differs across the frame: 1.51 1.79 | 1.51 1.78 e-/ADU in its quarters"
    note = f"2 flats left out: saturated, or without light; {words}"
    text = suggest(measured(note=note), linearity=full(), header={"GAIN": 30})
    assert read(text, tmp_path).gain == 1.501 and len(text.splitlines()) > 4
    end = f"4 pairs of flats, {words}; header GAIN = 30 (not e-/ADU)"
    assert line_of(text, "gain").endswith(end)
    assert "differs across" not in line_of(text, "read_noise") and "left out" not in text


def test_suggestions_of_two_setups():
    """CC-01: one night file holds one camera; the other settings are comments."""
    both = Table([*measured(), *measured(setup="2x2", gain=0.7, read_noise=9.0)])
    text = suggest(both, setup="2x2")
    assert tomllib.loads(text)["camera"]["gain"] == 0.7
    assert line_of(text, "1x1").endswith("(it needs a night file of its own)")
    assert "1x1: gain 1.501 e-/ADU, read noise 6.03 e- (" in text
    assert tomllib.loads(suggest(both, setup="unknown"))["camera"]["gain"] == 1.501
    nothing = dict.fromkeys(("gain", "gain_err", "read_noise", "read_noise_err"), np.nan)
    both = Table([*measured(), *measured(setup="2x2", **nothing)])
    assert "# 2x2: not measured (" in suggest(both, setup="1x1")
    exact = suggest(measured(gain_err=np.nan, read_noise_err=0.0))
    assert tomllib.loads(exact)["camera"] == {"gain": 1.501, "read_noise": 6.03}


# --- nights --------------------------------------------------------------------------------------


def raw_night(folder, kinds, *, text="", gain=GAIN, **cards):
    """Write a night of raw frames of these kinds."""
    rng = np.random.default_rng(1)
    raw = folder / "raw"
    raw.mkdir(parents=True)
    levels = {"BIAS": 0.0, "DARK": 2.0, "FLAT": 12_000.0, "LIGHT": 50.0}
    for i, kind in enumerate(kinds):
        electrons = rng.poisson(levels[kind] * GAIN, SHAPE) + rng.normal(0, READ_NOISE, SHAPE)
        electrons *= GAIN / gain
        exptime = {"BIAS": 0.0, "FLAT": 5.0}.get(kind, 60.0)
        header = fits.Header({"IMAGETYP": kind, "EXPTIME": exptime, "FILTER": "V", **cards})
        header["DATE-OBS"] = f"2024-01-01T20:00:{i:02d}"
        counts = np.rint(electrons / GAIN + OFFSET).astype(np.uint16)
        fits.writeto(raw / f"{kind.lower()}{i}.fits", counts, header)
    (folder / "night.toml").write_text(f'raw = "raw"\nwork = "work"\n[camera]\n{text}')
    return load_night(folder)


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("", {}),
        ("", {"EGAIN": 1.5}),
        ('gain_keyword = "GAIN"', {"GAIN": 1.5}),
        ("gain = 3.0\nread_noise = 2.0\nsaturation = 2000.0", {"GAIN": 30}),
    ],
    ids=["no-gain", "egain", "keyword", "wrong"],
)
def test_suggestions_of_a_night_are_right(text, cards, tmp_path):
    """CC-01, PR-12: without gain, with a gain card, with wrong values: always what is true."""
    night = raw_night(tmp_path, [*["BIAS"] * 4, *["FLAT"] * 4], text=text, **cards)
    lines = suggest_night(night)
    camera = read(lines, tmp_path)
    # Two pairs of 12 000 pixels tell the gain to 0.9 %, the read noise (e-) by as much.
    assert camera.gain == pytest.approx(GAIN, rel=4 * 0.009)
    assert camera.read_noise == pytest.approx(READ_NOISE, rel=4 * 0.01)
    wrong = "gain = 3.0" in text
    for key in ("gain", "read_noise"):
        assert ("DIFFERS" in line_of(lines, key)) == wrong
    assert ("EGAIN = 1.5 (agrees)" in lines) == ("EGAIN" in cards)


@pytest.mark.parametrize("bits", [12, 14])
def test_suggestions_of_a_night_whose_converter_ends_first(bits, tmp_path):
    """CC-01, CC-02: files of 16 bits from a camera of 12 or 14: where its numbers end is told."""
    rng, last = np.random.default_rng(bits), 2**bits - 1
    night = raw_night(tmp_path, [])
    for i, time in enumerate([0.0] * 4 + [1.0, 2, 3, 4, 5, 6, 8, 10] * 2):
        electrons = rng.poisson(0.2 * last * GAIN * time, SHAPE) + rng.normal(0, READ_NOISE, SHAPE)
        header = fits.Header({"IMAGETYP": "FLAT" if time else "BIAS", "EXPTIME": time})
        header.update({"FILTER": "V", "DATE-OBS": f"2024-01-01T20:{i:02d}:00"})
        pixels = np.clip(np.rint(electrons / GAIN + OFFSET), 0, last).astype(np.uint16)
        fits.writeto(tmp_path / "raw" / f"{i:02d}.fits", pixels, header)
    lines = suggest_night(night)
    camera = read(lines, tmp_path)
    words = f"95 % of the converter's end ({last - OFFSET:.0f} ADU) + the bias (flats in V)"
    assert words in line_of(lines, "saturation")
    assert 0.9 * last < camera.saturation < last
    # Of four pairs of 12 000 pixels that are not cut.
    assert camera.gain == pytest.approx(GAIN, rel=4 * 0.0065)
    (row,) = linearity_night(night)
    assert "the numbers of the file end there: the full well is higher" in row["note"]
    assert row["full_well"] == pytest.approx(last - OFFSET, abs=1)
    again = suggest_night(replace(night, camera=camera))
    assert "DIFFERS" not in again and words in line_of(again, "saturation")


@pytest.mark.parametrize("last", [65_535, 40_000])
def test_suggestions_of_flats_far_below_and_beyond_the_end(last, tmp_path):
    """CC-02: flats of 4000 ADU and full ones: 4000 ADU is no turn; the converter's end is one."""
    rng, night = np.random.default_rng(3), raw_night(tmp_path, ["BIAS"] * 4)
    for i, level in enumerate([4000.0] * 2 + [60_000.0] * 2):
        electrons = np.minimum(rng.poisson(level * GAIN, SHAPE), 45_000 * GAIN)
        counts = (electrons + rng.normal(0, READ_NOISE, SHAPE)) / GAIN + OFFSET
        header = fits.Header({"IMAGETYP": "FLAT", "EXPTIME": 5.0, "FILTER": "V"})
        header["DATE-OBS"] = f"2024-01-01T20:10:{i:02d}"
        pixels = np.clip(np.rint(counts), 0, last).astype(np.uint16)
        fits.writeto(tmp_path / "raw" / f"sky{i:02d}.fits", pixels, header)
    text = suggest_night(night)
    saturation = read(text, tmp_path).saturation
    if last == 40_000:
        assert saturation == pytest.approx(OFFSET + 0.95 * (last - OFFSET), abs=100)
    else:
        assert saturation is None and "no flats tell where" in line_of(text, "saturation")


def test_suggestions_of_a_night_with_two_amplifiers(tmp_path):
    """CC-01: the gain that is suggested is told to be a mean, with those of the quarters."""
    gain = np.where(np.arange(SHAPE[1]) < SHAPE[1] // 2, GAIN, 1.4 * GAIN)
    kinds = [*["BIAS"] * 4, *["FLAT"] * 8]
    one, two = raw_night(tmp_path / "one", kinds), raw_night(tmp_path / "two", kinds, gain=gain)
    lines = suggest(camera_night(two))
    assert "the gain differs across the frame: 1." in line_of(lines, "gain")
    (flats,) = linearity_night(two, camera=camera_night(two))
    assert "one exposure time" in flats["note"] and flats["n_flat"] == 8
    assert GAIN < read(lines, tmp_path).gain < 1.4 * GAIN
    assert "differs across" not in suggest(camera_night(one))


def test_suggestions_of_a_night_with_too_bright_flats(tmp_path):
    """CC-02: twilight flats of which some are full: the turn of the variance tells where.

    Pixels hold 40 000 ADU above the bias; the flats have 10 000 to 50 000 ADU.
    """
    night = raw_night(tmp_path, ["BIAS"] * 4)
    rng = np.random.default_rng(2)
    for i, level in enumerate([10_000, 20_000, 30_000, 36_000, 43_000, 50_000] * 2):
        electrons = np.minimum(rng.poisson(level * GAIN, SHAPE), 40_000 * GAIN)
        counts = (electrons + rng.normal(0, READ_NOISE, SHAPE)) / GAIN + OFFSET
        cards = {"IMAGETYP": "FLAT", "OBJECT": "twilight flat", "EXPTIME": 5.0, "FILTER": "V"}
        header = fits.Header(cards | {"DATE-OBS": f"2024-01-01T20:10:{i:02d}"})
        pixels = np.rint(counts).astype(np.uint16)
        fits.writeto(tmp_path / "raw" / f"sky{i:02d}.fits", pixels, header)
    text = suggest_night(night)
    camera = read(text, tmp_path)
    assert camera.gain == pytest.approx(GAIN, rel=4 * 0.009)
    # The largest variance that is seen is that of 36 000 ADU.
    assert camera.saturation == pytest.approx(OFFSET + 0.95 * 36_000, abs=300)
    assert "95 % of where the variance turns" in line_of(text, "saturation")


@pytest.mark.real
@pytest.mark.skipif(
    not DATA.is_dir(), reason="the real nights are not here: set DATARED_DATA to their folder"
)
def test_suggestions_of_the_real_night(tmp_path):
    """CC-01, PR-12: NGC 6819 has 1.8 e-/ADU; the header's GAIN = 1 is told to be no gain."""
    night = load_night(samples.fetch_sample("ngc6819", folder=tmp_path / "night"))
    text = suggest_night(night)
    camera = read(text, tmp_path)
    assert camera.gain == pytest.approx(1.8, rel=0.03)
    assert camera.read_noise == pytest.approx(10.1, rel=0.05)
    assert "header GAIN = 1 (not e-/ADU)" in line_of(text, "gain") and "DIFFERS" not in text


# --- the command ---------------------------------------------------------------------------------


def test_camera_command_tells_all(tmp_path):
    """CC-01, CC-02, CC-03: ``datared camera night.toml`` has every part, the suggestions last."""
    frames = [*["BIAS"] * 4, *["DARK"] * 3, *["FLAT"] * 4]
    raw_night(tmp_path, frames, text="gain = 3.0")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["camera", str(tmp_path / "night.toml")])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    places = [lines.index(title) for title in TITLES]
    assert places == sorted(places)
    assert max(len(line) for line in lines) < 100 and result.output.isascii()
    assert "gain differs by" in result.output and "configured 3" in result.output
    assert "no series of flats" in result.output and "DIFFERS" in result.output
    assert any(line.startswith("flat_V.fits") or " flat_V.fits" in line for line in lines)
    shown = "\n".join(lines[places[-1] + 1 :])
    assert tomllib.loads(shown)["camera"]["gain"] == pytest.approx(GAIN, rel=4 * 0.009)
    assert sorted(tmp_path.rglob("*")) == before  # Nothing is written.


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["BIAS"], "one bias frame: two are needed"),
        (["BIAS"] * 3, "there are no darks"),
        (["FLAT"] * 3, "no bias frames"),
        (["DARK"] * 2, "there are neither bias frames nor flats"),
        (["LIGHT"] * 2, "no bias frames and flats to measure them from"),
        (["BIAS", "BIAS", "FLAT"], "two of one filter are needed"),
    ],
    ids=["bias", "biases", "flats", "darks", "lights", "one-flat"],
)
def test_camera_command_with_missing_frames(kinds, words, tmp_path):
    """CC-01, CC-02: each part is there, or says what is missing; never an error."""
    lines = list(camera_report(raw_night(tmp_path, kinds)))
    assert [line for line in lines if line in TITLES] == list(TITLES)
    assert words in " ".join(" ".join(lines).split())
    assert max(len(line) for line in lines) < 100
    text = "\n".join(lines[lines.index(TITLES[-1]) + 1 :])
    assert set(tomllib.loads(text)["camera"]) <= {"gain", "read_noise"}


def test_camera_command_of_a_laboratory_night(once, tmp_path):
    """CC-01, CC-02, CC-03: `camera`: all is in tables, and the lines at the end make a night file.

    The night file of this sample says nothing about the camera.
    """

    def make(folder):
        simulate_camera(folder, seed=3, shape=(160, 240), n_bias=6, n_dark=1, n_flat=3)

    folder = once("small-bench", make)
    night = load_night(folder)
    assert night.camera == Camera()
    lines = list(camera_report(night))
    text = "\n".join(lines)
    for words in ("shutter (s)", "full well (e-)", "1 % at (ADU)", "rate (e-/s)", "doubles with"):
        assert words in text
    assert max(len(line) for line in lines) < 100 and " nan" not in text and " -0.0 " not in text
    for row in camera_night(night):
        assert f"{row['gain']:.4f}" in text and f"{row['read_noise']:.3f}" in text
    assert len([line for line in lines if ".fits" in line and " 2024" not in line]) > 60
    assert "3 flats r sky: twilight" in text and "surest spot" in text
    assert "no solved frame to measure the distortion of" in text
    truth = json.loads((folder / "truth" / "parameters.json").read_text())
    camera = read("\n".join(lines[lines.index(TITLES[-1]) + 1 :]), tmp_path)
    assert camera.gain == pytest.approx(truth["gain"], rel=0.02)
    assert camera.read_noise == pytest.approx(truth["read_noise"], rel=0.05)
    assert 0.75 * truth["saturation"] < camera.saturation < truth["saturation"]
    # With these lines in the night file all agrees.
    again = suggest_night(replace(night, camera=camera))
    assert "DIFFERS" not in again and again.count("agrees") == 3
