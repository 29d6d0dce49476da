"""Self-checks: right answers pass, unit mistakes get a hint, no answer is told."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.stats import mad_std
from astropy.table import Table
from astropy.time import Time

from datared import checks
from datared.apertures import BAD_PIXEL, EDGE, SATURATED
from datared.checks import check
from datared.curvenumbers import comparison_numbers, curve_numbers
from datared.errors import ConfigError
from datared.nightnumbers import magnitude_numbers, photometry_numbers
from datared.questions import QUESTIONS

TRUTH = {
    "transit": {
        "mid_time": 2460587.43, "ingress_start": 2460587.4085, "egress_end": 2460587.4608,
        "depth": 0.0105, "depth_mid": 0.0116, "radius_ratio": 0.10247,
        "variable": {"period": 0.058}, "mover": {"rate_per_minute": 0.5},
    },
    "cluster": {"age": 1.2, "distance": 2042.0, "metallicity": 0.1, "a_v": 0.325},
    "camera": {"kind": "camera", "full_well": 32_000.0, "dark_rate": 0.08,
               "doubling_temperature": 6.3},
}  # fmt: skip
CAMERA = {"gain": 0.376, "read_noise": 3.5, "pixel_scale": 1.214}
#: The night for a question, by what the question needs.
KINDS = {"": "cluster", "any": "transit"} | {kind: kind for kind in TRUTH}


@pytest.fixture
def night(tmp_path, monkeypatch):
    """Return ``night(kind)``: a night with a truth, 9 bias frames and 15 lights."""
    kinds = Table({"kind": ["bias"] * 9 + ["light"] * 15 + ["dark"] * 3})
    kinds["scale"] = np.where(kinds["kind"] == "light", 206.264806 * 7.52 / 1282, np.nan)
    monkeypatch.setattr(checks, "inventory", lambda night: kinds)

    def make(kind):
        text = json.dumps(TRUTH[kind] | CAMERA)
        (tmp_path / "parameters.json").write_text(text, encoding="utf-8")
        frames = Table({"filter": ["g", "r", "r"], "fwhm": [2.6, 2.4, 2.5]})
        frames.write(tmp_path / "frames.ecsv", overwrite=True)
        return SimpleNamespace(name=kind, truth=tmp_path)

    return make


# Numbers of the formula sheet, not computed with the code that is tested.
GOLDEN = {
    "Q1": 0.503, "Q3a": 2.512, "Q3b": 0.0108, "Q3c": 0.00109, "B1": 500.0, "B2": 2.0,
    "B3": 88.56, "B4": 10.0, "T1": 22500, "P1": 4999.98, "S1": 16, "S2": 0.87,
    "A3": 10, "A5": 4, "A7": 0.15625, "A8": 0.22176, "P2": 76.77, "P7": 4750, "P8": 1.5,
    "PSF1": 1.25, "PSF2": 8000, "PSF3": 0.03266, "Q18c": 1.5524, "Q20a": 2.0, "Q21b": 0.005,
    "V1": 2, "H1": 31.37, "H2": 1.788, "S5": 6.667, "S6": 0.5625, "S7": 5.367, "S8": 24,
    "K1": 0.885, "K4": 0.01577, "K6": 0.03258,
}  # fmt: skip
MEASURED = {
    "transit": {
        "Q18a": 2460587.4095, "Q18b": 2460587.4601, "Q19a": 0.01146, "Q19b": 10.5, "Q21a": 0.1025,
        "D1": 15, "Q4": 3.5 / 0.376 / 3 * 1.2, "A1": 1.21, "A6": 2.93, "V2": 83.5, "V3": 0.49,
    },
    "cluster": {"Q9a": 1.0, "Q9b": 2100, "Q9c": 0.0, "Q9d": 0.4, "D1": 15, "A1": 1.2099,
                "A2": 20.3, "A6": 2.4 * 1.214},
    "camera": {"K2": 32.58, "K3": 9.903, "K5": -21.85},
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_self_checks_accept_golden_numbers(name):
    """Q18, Q20, Q21: numbers of the formula sheet are right, also as scalars and quantities."""
    assert check(name, GOLDEN[name]).ok
    unit = u.Unit(QUESTIONS[name].unit)
    assert check(name, np.float32(GOLDEN[name]) * unit).ok
    assert not check(name, 1.1 * GOLDEN[name])


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in MEASURED for n in MEASURED[k]])
def test_self_checks_read_the_truth_of_the_night(night, kind, name):
    """F14, Q18, Q19, Q21: answers that depend on the night are compared with its truth."""
    value = MEASURED[kind][name]
    assert check(name, value, night=night(kind)).ok
    far = value + 0.05 if value > 2e6 else 2.1 * value + 0.6
    assert not check(name, far, night=night(kind)).ok


def test_self_checks_installation():
    """The number of sample nights is that of the package."""
    samples = pytest.importorskip("datared.samples")
    assert check("I1", len(samples.SAMPLES)).ok


# Wrong answers of each page with questions, worked out by hand, and a word of what is said to them.
HINTS = {
    "Q1": [(2.44e-6, "206265"), (0.503 / 3600, "3600"), (0.503 / 60, "factor 60"),
           (0.4125, "round mirrors"), (503, "1000"), (-0.503, "sign")],
    "Q3a": [(0.398, "turn it round")],
    "Q3b": [(0.00432, "2.5"), (0.01, "logarithm")],
    "B2": [(0.5, "path is longer")],
    "B3": [(99.73, "50 pixels"), (100, "alone"), (94.28, "forgot the sky")],
    "P1": [(8141.57, "still in it"), (8131.57, "every pixel")],
    "S1": [(4, "halve")],
    "S2": [(1.747, "five times less")],
    "S5": [(8.16, "equal weights"), (7.07, "not worthless"), (6.93, "square"), (44.4, "variance")],
    "S6": [(0.75, "height"), (1.778, "turn it round")],
    "S7": [(12, "the noise"), (2.4, "smaller, too"), (26.8, "no trail")],
    "S8": [(1.5, "sum of all"), (0.09375, "turn it round"), (6, "electrons")],
    "K1": [(0.426, "twice"), (0.826, "still in it"), (1.13, "turn it round"), (0.8278, "Square")],
    "K4": [(0.0175, "faint star"), (0.0144, "magnitude of it"), (0.0219, "which levels")],
    "K6": [(0.0162, "one edge"), (0.03, "magnitude of it")],
    "A3": [(20, "two equations")],
    "A4": [(2, "scale changes"), (1.1, "wrong scale")],
    "A5": [(10, "unknowns"), (5, "two equations")],
    "A7": [(1.25, "64 x 64"), (10, "one pixel")],
    "A8": [(0.0706, "circle"), (0.00554, "one source")],
    "P2": [(58.2, "star has noise")],
    "P7": [(3750, "Square"), (95, "50 pixels"), (68.9, "which light")],
    "P8": [(2.25, "squares"), (0.667, "Turn it round")],
    "PSF1": [(1.5625, "variance"), (1.581, "square"), (0.8, "Turn it round")],
    "PSF2": [(10000, "star 2"), (4000, "star 2")],
    "PSF3": [(0.073, "upper end"), (4.9, "number of stars")],
    "Q18c": [(1.5, "first transit"), (1.9, "in squares"), (0.4019, "same period"), (90, "seconds")],
    "Q20a": [(2.5, "prediction has"), (1.43, "in squares"), (3.33, "measurement has")],
    "Q21b": [(0.0012, "areas"), (0.01, "one half"), (0.0346, "drawn from"),
             (0.0417, "relative error")],
    "V1": [(0.866, "at all"), (0.01, "one star")],
    "H1": [(5342, "periods"), (14.6, "how long")],
    "H2": [(0.268, "by area"), (1.46, "the star"), (0.184, "of the Sun")],
    "Q19a": [(10.5, "ppt")],
    "Q19b": [(0.01146, "magnitudes"), (0.0105, "ppt")],
    "Q21a": [(0.0105, "areas")],
    "Q18a": [(2460587.4085 - 8 / 1440, "middle of the exposures")],
    "Q18b": [(60586.9608, "modified"), (0.4608, "whole Julian date")],
    "V2": [(41.8, "all cycles"), (167, "waves"), (0.058, "in days")],
    "V3": [(0.412, "pixels"), (0.75, "from one frame"), (30, "per hour")],
    "Q4": [(3.1 * 0.376, "electrons"), (9.31, "one frame"), (1.034, "square root")],
    "A1": [(1.21 / 3600, "3600"), (1.214, "stars tell"), (2.42, "binning"),
           (7.52e-3 / 1282, "206265")],
    "A6": [(2.4, "pixels"), (2.4 * 0.97, "pixels"), (2.4 / 1.214, "Multiply"),
           (2.4 * 1.214 / 2.3548, "sigma")],
    "Q9a": [(1000, "1000"), (1.4e9, "billion"), (9.1, "logarithm"), (3.0, "turn-off")],
    "Q9b": [(2.2, "1000"), (11.5, "modulus")],
    "Q9d": [(0.105, "E(B-V)"), (0.7, "steep")],
    "K2": [(12.25, "electrons"), (3.5, "square root"), (9.31, "Which light"), (86.6, "variance")],
    "K3": [(13.16, "stops"), (3.96, "2.5"), (10.97, "in ADU")],
    "K5": [(-32.3, "square root"), (1.9, "Colder"), (251.3, "too large")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "answer", "word"), [(name, *row) for name, rows in HINTS.items() for row in rows]
)
def test_self_checks_mistakes_give_a_hint(night, name, answer, word):
    """ED-02, Q9, CC-01, CC-02: a wrong unit, sign or step is named, whatever the page."""
    result = check(name, answer, night=night(KINDS[QUESTIONS[name].needs]))
    assert result.ok is False
    assert word.lower() in result.message.lower()


@pytest.mark.parametrize("page", sorted({q.page for q in QUESTIONS.values() if q.mistakes}))
def test_self_checks_tell_each_mistake_from_all_others(night, page):
    """ED-02: no known mistake of any page passes for right, or gets the hint of another one."""
    tables = {"photometry": own_night, "magnitudes": repeated_night, "lightcurve": curve_night}
    for question in QUESTIONS.values():
        if question.page != page or not question.mistakes:
            continue
        given = (
            tables[question.needs]() if question.needs in tables else night(KINDS[question.needs])
        )
        truth = checks.read_truth(given, question) if question.needs else {}
        for wrong, text in question.mistakes:
            result = check(question.id, np.mean(wrong(truth)), night=given)
            assert text in result.message, (question.id, text, result)


def test_k5_law_of_arrhenius_and_the_rule_of_thumb_are_both_right(night):
    """ED-02: far from -10 deg C the two differ by a kelvin; the page teaches both."""
    rate = 3.5**2 / 600
    energy = np.log(2) * 8.617333e-5 * 263.15**2 / 6.3
    law = 1 / (1 / 263.15 - 8.617333e-5 / energy * np.log(rate / 0.08)) - 273.15
    rule = -10 + 6.3 * np.log2(rate / 0.08)
    assert law - rule > 0.5
    assert check("K5", law, night=night("camera")) and check("K5", rule, night=night("camera"))
    assert not check("K5", law + 0.6, night=night("camera"))
    assert not check("K5", rule - 0.6, night=night("camera"))


def test_q9_metallicity_may_be_in_dex(night):
    """Q9: the fit's table gives [Fe/H] in dex; a plain number is the same."""
    assert check("Q9c", 0.1 * u.dex, night=night("cluster"))
    assert check("Q9c", 0.1, night=night("cluster"))
    # Near 0 the tolerance is wider than the answer: any number would pass for thousandths of it.
    for wrong in (-0.4, 0.6):
        assert "factor" not in check("Q9c", wrong, night=night("cluster")).message


def test_messages_never_tell_the_answer(night):
    """Whatever is answered, the right number is not in the message."""
    for name, value in {**MEASURED["cluster"], **MEASURED["camera"], **GOLDEN,
                        **MEASURED["transit"]}.items():  # fmt: skip
        for factor in (0.5, 2, -1, 1000, 1.3):
            given = night(KINDS[QUESTIONS[name].needs])
            message = check(name, value * factor, night=given).message
            numbers = [float(n) for n in re.findall(r"(?<!factor )\b\d+\.?\d*", message)]
            assert not any(check(name, n, night=given) for n in numbers), message


def test_answers_in_words_get_points_to_compare():
    """Answers in words are not judged; an empty one is refused."""
    result = check("Q2", "because of saturation")
    assert result.ok is None and not result
    assert "cosmic ray" in repr(result)
    assert check("Q2", " ").ok is False
    assert check("Q2", 3.0).ok is False


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("0.5", "number"),
        (np.nan, "finite"),
        (np.ma.masked, "finite"),
        ([1, 2], "array"),
        (0.5 * u.m, "asked is arcsec"),
        (None, "number"),
        pytest.param(10**400, "large", id="huge"),
        (1j, "complex"),
    ],
)
def test_answers_that_are_no_number(answer, word):
    """What is no number is an answer that is not right yet, not a crash."""
    result = check("Q1", answer)
    assert result.ok is False
    assert word in result.message


def test_quantities_are_converted():
    """A quantity may come in any unit of its kind."""
    assert check("Q1", 2.44e-6 * u.rad)
    assert check("B4", 10 * u.mag)
    assert check("T1", 22500 * u.one)


def test_times_must_be_tdb(night):
    """A Time is accepted in the scale that is asked for."""
    moment = Time(2460587.4085, format="jd", scale="tdb")
    assert check("Q18a", moment, night=night("transit"))
    assert "utc" in check("Q18a", moment.utc, night=night("transit")).message


def test_expected_value_for_own_questions_and_literature():
    """An expected value replaces the truth, for questions of the book and for others."""
    assert check("Q21a", 0.149, expected=0.1489, tolerance=0.004)
    assert not check("Q21a", 0.16, expected=0.1489, tolerance=0.004)
    assert check("mine", 5.0, expected=(4, 6)).ok
    assert check("mine", 2000 * u.m, expected=2.0, unit="km").ok
    assert "1000" in check("mine", 2000, expected=2.0).message


def test_check_needs_the_right_night(night):
    """A missing night, a night without truth, and the wrong kind of night are told apart."""
    with pytest.raises(ConfigError, match="night=night"):
        check("Q19a", 0.011)
    with pytest.raises(ConfigError, match="expected="):
        check("Q19a", 0.011, night=SimpleNamespace(name="real", truth=None))
    with pytest.raises(ConfigError, match="transit night"):
        check("Q19a", 0.011, night=night("cluster"))
    for name in ("K2", "K3", "K5"):
        with pytest.raises(ConfigError, match="camera night"):
            check(name, 1.0, night=night("cluster"))
    # A camera in the laboratory has no lights.
    with pytest.raises(ConfigError, match="any night, 'camera' is a camera night"):
        check("D1", 15, night=night("camera"))
    with pytest.raises(ConfigError, match="Q3a"):
        check("Q99", 1)


@pytest.mark.parametrize(
    ("answer", "right"), [(2.76, True), (3.47, True), (2.4, False), (4, False)]
)
def test_self_check_of_a_slope_that_is_measured(answer, right):
    """ED-01: a slope from real stars scatters: 2.8 to 3.5 over 28 frames of two nights."""
    assert check("A4", answer).ok is right


def test_self_check_of_a_rounded_answer():
    """ED-01: two digits are enough, for right answers and for typical mistakes."""
    assert check("A7", 0.16) and not check("A7", 0.15)
    assert check("A8", 0.22)
    assert "circle" in check("A8", 0.07).message
    assert "one source" in check("A8", 0.0055).message


def test_questions_count_and_pages():
    """ED-01: all 21 topics, and at least one question on each page that had none."""
    topics = {int(m[1]) for q in QUESTIONS if (m := re.match(r"Q(\d+)", q))}
    assert topics == set(range(1, 22))
    pages = {q.page for q in QUESTIONS.values()}
    assert {"intro", "installation", "data", "astrometry", "photometry", "stack"} <= pages
    assert len(checks.questions()) == len(QUESTIONS)
    stack = checks.questions("stack")
    assert list(stack["id"]) == [f"S{n}" for n in range(1, 9)]
    assert set(stack["id"][stack["answer"] == "words"]) == {"S3", "S4"}
    camera = checks.questions("camera")
    assert list(camera["id"]) == [f"K{n}" for n in range(1, 8)]
    assert list(camera["id"][camera["answer"] == "words"]) == ["K7"]
    assert set(checks.questions("variables")["id"]) == {"V1", "V2", "V3", "V4"}
    assert set(checks.questions("hat-p-32")["id"]) == {"H1", "H2", "H3", "H4"}
    for page in ("astrometry", "photometry"):
        asked = checks.questions(page)
        assert len(asked) >= 5 and set(asked["answer"]) == {"number"}
    for q in QUESTIONS.values():
        assert (q.answer is None) == bool(q.points), q.id
        assert checks.ask(q.id) == q.text
    with pytest.raises(ConfigError, match="photometry"):
        checks.questions("photo")


def test_truth_of_a_simulated_night(transit_toml):
    """The whole way: a simulated night's own truth and inventory answer its questions."""
    from datared.night import load_night

    night = load_night(transit_toml)
    truth = json.loads((night.truth / "parameters.json").read_text(encoding="utf-8"))
    assert check("Q18a", truth["ingress_start"], night=night)
    assert check("Q21a", truth["radius_ratio"], night=night)
    assert check("D1", 120, night=night)
    assert check("A1", 206.264806 * 7.52 / 1282, night=night)  # XPIXSZ and FOCALLEN
    frames = Table.read(night.truth / "frames.ecsv")
    assert check("A6", frames["fwhm"][0] * truth["pixel_scale"], night=night)


# A night of 60 stars on 4 frames in r (2 after the flip) in 3 radii, with numbers that are known.
def own_night(*, gain=2.0, flipped=(False, False, True, True)):
    """Tables of a night without truth: a real night has no more."""
    rng = np.random.default_rng(4)
    light = 10 ** np.linspace(2.0, 6.0, 60)[:, None, None] * np.ones((60, 4, 3))
    flux = light * np.array([0.5, 0.9, 1.0])
    # The stars scatter by 1 % after the flip, far more than their errors say.
    flux[:, 2:] *= 1.3 * (1 + 0.01 * rng.standard_normal((60, 1, 1)))
    error = np.sqrt(flux / 2.0 + 100.0)
    flags = np.zeros(flux.shape, int)
    flags[:6, :, 0] = flags[:12, :, 2] = 32
    flags[-8:] |= 4  # the brightest are saturated
    epochs = Table({"filter": ["r"] * 4, "flipped": list(flipped)})
    tables = {"flux": flux, "flux_err": error, "flags": flags, "radii": (1.0, 2.0, 3.0)}
    return SimpleNamespace(name="own", epochs=epochs, gain=gain, default_radius=1, **tables)


def test_self_checks_of_photometry_come_from_the_tables_of_any_night():
    """ED-02, PH-10: P3 to P6 need no truth; their numbers are what the tables were made of."""
    night = own_night()
    assert check("P5", 100 * 12 / 60, night=night)
    assert check("P6", -2.5 * np.log10(0.9 / 0.5), night=night)
    assert "largest" in check("P6", -2.5 * np.log10(1.0 / 0.5), night=night).message
    assert "smallest" in check("P5", 100 * 6 / 60, night=night).message
    assert "share" in check("P6", 0.5 / 0.9, night=night).message
    assert "sign" in check("P6", 2.5 * np.log10(0.9 / 0.5), night=night).message
    # F / 2 > (F / 2 + 100) / 2 where F > 200; only stars of S/N > 5 are asked about.
    flux, error = night.flux[:-8, :, 1], night.flux_err[:-8, :, 1]
    good = flux / error > 5
    assert check("P4", 100 * np.mean(flux[good] > 200), night=night)
    # Stars were made to scatter by 1 %. A MAD of n of them is known to 1.17 / sqrt(2 n).
    strong = np.all(flux > 100 * error, axis=1)
    ratio = flux[strong, 2] / flux[strong, 0]
    scatter = photometry_numbers(night)["flip_scatter"]
    assert scatter == pytest.approx(100 * mad_std(ratio / np.median(ratio)), rel=1e-4)
    assert scatter == pytest.approx(1, abs=3 * 1.17 / np.sqrt(2 * strong.sum()))
    assert check("P3", scatter, night=night) and not check("P3", 2 * scatter, night=night)
    assert "MAD alone" in check("P3", scatter / 1.4826, night=night).message
    assert "flag" in check("P3", 2 * scatter, night=night).message
    assert "per cent" in check("P3", scatter / 100, night=night).message


@pytest.mark.parametrize(
    ("name", "more"),
    [("P3", {"flipped": (True,) * 4}), ("P4", {"gain": None})],
)
def test_self_checks_of_photometry_say_what_the_night_lacks(name, more):
    """ED-02: a night without a flip or a gain cannot answer, and the message says so."""
    with pytest.raises(ConfigError, match="sample night cluster"):
        check(name, 1.0, night=own_night(**more))
    with pytest.raises(ConfigError, match="night=night"):
        check(name, 1.0)
    assert check("P5", 20.0, night=own_night(**more))
    # An empty line of the form does not keep the others from being checked.
    assert "number in first" in check(name, None, night=own_night(**more)).message


def test_self_checks_of_photometry_of_odd_tables():
    """ED-02: per cent are a unit; one radius has no next one; empty tables tell nothing."""
    assert check("P5", 20 * u.percent, night=own_night())
    assert check("P5", 0.2 * u.one, night=own_night())
    night = own_night()
    night.radii, night.default_radius = night.radii[:1], 0
    for name in ("flux", "flux_err", "flags"):
        setattr(night, name, getattr(night, name)[:, :, :1])
    assert check("P5", 10.0, night=night)
    with pytest.raises(ConfigError, match="one radius"):
        check("P6", 0.0, night=night)
    for part in (np.s_[:0], np.s_[:, :0]):
        night = own_night()
        for name in ("flux", "flux_err", "flags"):
            setattr(night, name, getattr(night, name)[part])
        night.epochs = night.epochs[: night.flux.shape[1]]
        assert np.isnan(list(photometry_numbers(night).values())).all()


def repeated_night(*, n_exposure=5, radii=(1.0, 1.5, 3.0), noise=(0.02, 0.03, 0.06)):
    """Tables of 400 stars of equal brightness in i, with a known scatter in each radius."""
    rng = np.random.default_rng(8)
    shape = (400, n_exposure, len(radii))
    flux = 1e5 * (1 + np.array(noise) * rng.standard_normal(shape))
    flags = np.zeros(shape, int)
    flags[:20, 0, 0], flags[20:60, 0, -1] = 32, 32
    epochs = Table({"file": [f"{n}.fits" for n in range(n_exposure)], "filter": ["i"] * n_exposure})
    epochs["epoch"], epochs["exptime"] = np.arange(n_exposure), 30.0
    epochs["flipped"] = epochs["epoch"] > 2
    stars = Table({"star": np.arange(400), "ra": np.full(400, 10.0), "dec": np.full(400, 20.0)})
    error = 1e5 * np.broadcast_to(noise, shape)
    tables = {"flux": flux, "flux_err": error, "flags": flags, "stars": stars, "epochs": epochs}
    return SimpleNamespace(name="own", gain=None, radii=radii, default_radius=0, **tables)


def test_q6_best_radius_and_ratio_come_from_the_tables_of_the_night():
    """Q6: the radius of least scatter and the ratio of the scatters, of any night's own tables."""
    night = repeated_night()
    numbers = magnitude_numbers(night)
    assert numbers["best_radius_low"] == numbers["best_radius_high"] == 1.0
    # Medians of 340 standard deviations of 5 values: each known to 1.25 * 0.36 / sqrt(340) = 2.4 %.
    assert numbers["largest_over_best"] == pytest.approx(3.0, rel=4 * 0.034)
    assert numbers["smallest_over_best"] == 1.0
    assert check("Q6a", 1.0, night=night) and not check("Q6a", 1.5, night=night)
    assert "noise of the sky" in check("Q6a", 3.0, night=night).message
    ratio = numbers["largest_over_best"]
    assert check("Q6b", ratio, night=night) and check("Q6b", 1.1 * ratio, night=night)
    assert not check("Q6b", 1.2 * ratio, night=night)
    assert "round" in check("Q6b", 1 / ratio, night=night).message
    # Two radii that are as good as each other are both right.
    equal = repeated_night(noise=(0.02, 0.0201, 0.06))
    assert check("Q6a", 1.0, night=equal) and check("Q6a", 1.5, night=equal)


def test_q7_pull_test_without_truth_comes_from_the_tables_of_the_night():
    """Q7: the median chi2 of five exposures is 0.84 where errors are true, and follows them."""
    night = repeated_night()
    # Ten wild stars, and another radius whose errors are wrong: neither matters to the median.
    night.flux[60:70] = 1e5 * (1 + 0.2 * np.random.default_rng(9).standard_normal((10, 5, 3)))
    night.flux_err = night.flux_err * np.array([1.0, 1.0, 0.3])
    # The median of chi2(4) / 4 is 0.839; of 380 stars known to 1.25 * 0.71 / sqrt(380) = 0.045.
    value = magnitude_numbers(night)["repeat_chi2"]
    assert value == pytest.approx(0.839, abs=3 * 0.045)
    assert check("Q7a", value + 0.05, night=night) and not check("Q7a", value + 0.08, night=night)
    night.flux_err = night.flux_err / 2
    assert magnitude_numbers(night)["repeat_chi2"] == pytest.approx(4 * value, rel=0.02)
    assert not check("Q7a", value, night=night)


def test_q7_frame_without_stars_does_not_count():
    """Q7: a frame that a cloud took leaves the question as it is; no star was on all frames."""
    night = repeated_night(n_exposure=6)
    night.flux[:, 5] = np.nan
    rest = repeated_night(n_exposure=6)
    for name in ("flux", "flux_err", "flags"):
        setattr(rest, name, getattr(rest, name)[:, :5])
    rest.epochs = rest.epochs[:5]
    value = magnitude_numbers(night)["repeat_chi2"]
    assert value == pytest.approx(magnitude_numbers(rest)["repeat_chi2"], rel=1e-6)
    assert check("Q7a", value, night=night)


@pytest.mark.parametrize("name", ["Q6a", "Q6b", "Q7a"])
def test_self_checks_of_magnitudes_say_what_the_night_lacks(name):
    """Q6, Q7: one exposure in a filter, or none at all, has no scatter; the message says so."""
    for night in (repeated_night(n_exposure=1), repeated_night()):
        if len(night.epochs) > 1:
            night.flux, night.flux_err, night.flags = (
                a[:0] for a in (night.flux, night.flux_err, night.flags)
            )
        with pytest.raises(ConfigError, match="too few"):
            check(name, 1.0, night=night)
    with pytest.raises(ConfigError, match="night=night"):
        check(name, 1.0)


def test_q6_q7_aperture_and_errors_are_asked_and_taught():
    """Q6, Q7: asked in words on the page of the diagram; the page on photometry shows the plots."""
    assert "scatter" in check("Q6c", "the one with the least scatter").message.lower()
    assert "how wide" in check("Q7b", "from the CCD equation").message.lower()
    book = Path(__file__).resolve().parents[1] / "book"
    cells = json.loads((book / "photometry.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    for word in ("pull_histogram(", "scatter_magnitude(", "signal-to-noise", "individual frames"):
        assert word in text, word


# What the pages on stacks and cameras show, in this order, and how many exercises they have.
STEPS = {
    "stack": (4, ["reproject_interp(", "noise_two_ways(", '"lanczos3", "exact"', "[::2, ::2]",
                  "stack_night(", "np.nanmedian(ratios", "by_seeing", "clip=None", "naive",
                  "_exposure.fits", "noise_law(", "EGAIN", "zero_point(", "catalogue_balance(",
                  "gray_image("]),
    "camera": (2, ["V = difference.var() / (1 + r)", "photon_transfer(levels", "per_second =",
                   "measure_linearity(", "dark_current(", "dark_temperature(", "hot_pixels(",
                   "compare_flats(", "night_distortion(", "suggest_night(",
                   "## How close to the truth", "## Which gain setting", "## Your own camera"]),
}  # fmt: skip


@pytest.mark.parametrize("page", STEPS)
def test_page_shows_what_it_teaches(page):
    """ST-01 to ST-05, CC-01 to CC-04, ED-01: by hand first, then the helper."""
    book = Path(__file__).resolve().parents[1] / "book"
    cells = json.loads((book / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    exercises, steps = STEPS[page]
    places = [text.find(step) for step in steps]
    assert -1 not in places and places == sorted(places)
    assert text.count("} Try it yourself") >= exercises
    # What is true of one night only is asserted for that one: the page works for other seeds.
    assert len(re.findall(r'if (seed|truth\["seed"\]) == 1', text)) >= 4


# A night of 14 stars on 80 frames, in two apertures, whose faults are put in one by one.
NOISE = 0.003


def curve_night(*, step=0.02, n_epoch=80, flip=40):
    """Tables of a night with a target (star 1), two stars of one flat, and three bad stars."""
    rng = np.random.default_rng(11)
    n_star = 14
    light = 1e6 * 10 ** (-0.04 * np.arange(n_star))
    common = 1 + 0.05 * np.sin(np.arange(n_epoch) / 9.0)
    relative = 1 + NOISE * rng.standard_normal((n_star, n_epoch))
    flipped = np.arange(n_epoch) >= flip
    relative[[3, 4]] *= np.where(flipped, 1 + step, 1.0)  # two places of the same wrong flat
    relative[[5, 6]] *= np.where(flipped, 1 - step, 1.0)
    relative[7] *= 1 + 0.1 * np.sin(np.arange(n_epoch) / 4.0)
    flux = light[:, None] * common * relative
    flags = np.zeros(flux.shape, int)
    flags[0] = SATURATED
    flags[9, :30], flux[9, :30] = EDGE, np.nan
    flags[10, [11, 50]] = BAD_PIXEL
    stack = [np.stack([a, a], axis=2) for a in (flux * 60, NOISE * flux * 60, flags)]
    epochs = Table({"epoch": np.arange(n_epoch), "filter": ["r"] * n_epoch, "flipped": flipped})
    epochs["file"] = [f"{k}.fits" for k in range(n_epoch)]
    epochs["exptime"], epochs["fwhm"] = 60.0, 2.5
    epochs["bjd_tdb_mid"] = epochs["jd_utc_mid"] = 2460587.4 + np.arange(n_epoch) / 960
    epochs["airmass"] = np.linspace(1.1, 1.4, n_epoch)
    stars = Table({"star": np.arange(n_star), "target": np.arange(n_star) == 1})
    stars["ra"], stars["dec"] = 30 + 0.02 * np.arange(n_star), 40 + 0.01 * np.arange(n_star)
    places = np.tile(np.arange(n_star)[:, None] * 40.0 + 20, n_epoch)
    return SimpleNamespace(
        name="curve", stars=stars, epochs=epochs, radii=(1.0, 1.5), default_radius=0, gain=2.0,
        radius_unit="fwhm", flux=stack[0], flux_err=stack[1], flags=stack[2], sky=0 * flux,
        sky_err=0 * flux, x=places, y=places,
    )  # fmt: skip


def test_q13_to_q17_numbers_come_from_the_tables_of_the_night():
    """Q13, Q14, Q16, Q17, LC-03: injected airmass, noise, steps and bad pixels are the answers."""
    night = curve_night()
    numbers = curve_numbers(night)
    assert numbers["airmass_range"] == pytest.approx(0.3)
    # The MAD of 80 values is known to 1.17 / sqrt(160), the median of nine to about half of it;
    # the common median of twelve takes up to a tenth of the noise.
    noise = 2.5 / np.log(10) * NOISE
    assert numbers["scatter_sides"] == pytest.approx(noise, rel=0.15)
    assert numbers["scatter"] > 1.15 * numbers["scatter_sides"]
    # Two stars with the same step of 0.02 in 0.003 noise, then only noise: 1 / sqrt(80) each.
    assert numbers["correlation"] > 0.8 > 3.5 / np.sqrt(80) > abs(numbers["correlation_sides"])
    assert comparison_numbers(night)["left_out"] == 2
    assert check("Q13a", 0.033, night=night)
    assert "change of the airmass" in check("Q13a", 0.3, night=night).message
    assert "in all" in check("Q13a", 0.143, night=night).message
    assert check("Q14a", 1e3 * noise, night=night) and check("Q14a", noise * u.mag, night=night)
    assert "jumps" in check("Q14a", 1e3 * numbers["scatter"], night=night).message
    assert "calibrate itself" in check("Q14a", 0.3e3 * noise, night=night).message
    assert check("Q16a", numbers["correlation_sides"] + 0.04, night=night)
    assert "before" in check("Q16a", numbers["correlation"], night=night).message
    assert check("Q17a", 2, night=night) and not check("Q17a", 3, night=night)


def test_q15_list_of_stars_is_compared_with_the_reasons_of_the_package():
    """Q15, LC-04: the injected bad stars are asked for; doubts about brightness are free."""
    night = curve_night()
    numbers = comparison_numbers(night)
    assert numbers["refused"] == {0: "saturated", 7: "variable", 9: "at the edge"}
    for right in ([0, 7, 9], (9, 7, 0), {0, 7, 9}, np.array([0, 7, 9])):
        assert check("Q15a", right, night=night).ok
    missed = check("Q15a", [0, 9], night=night)
    assert missed.ok is False and "1 missing (variable)" in missed.message
    assert "1 too many" in check("Q15a", [0, 7, 9, 2], night=night).message
    for wrong in (None, [], "0, 7, 9", [0.5, 7.0], 3.5, [[0], [7, 9]], {"a": 1}):
        answer = check("Q15a", wrong, night=night)
        assert answer.ok is False and "list of whole numbers" in answer.message
    # A star that is refused for its brightness may be in the list, and need not.
    night.flux[13] /= 50
    assert 13 in comparison_numbers(night)["judged"]
    assert check("Q15a", [0, 7, 9], night=night) and check("Q15a", [0, 7, 9, 13], night=night)


@pytest.mark.parametrize("name", ["Q13a", "Q14a", "Q15a", "Q16a", "Q17a"])
def test_self_checks_of_light_curves_say_what_the_night_lacks(name):
    """Q13 to Q17: a night without a flip, a target or stars cannot answer; the message says so."""
    with pytest.raises(ConfigError, match="night=night"):
        check(name, 1, night=None) if name != "Q15a" else check(name, [1])
    night = curve_night()
    for part in ("flux", "flux_err", "flags", "x", "y", "sky", "sky_err"):
        setattr(night, part, getattr(night, part)[:2])
    night.stars = night.stars[:2]
    night.epochs["airmass"] = np.nan
    with pytest.raises(ConfigError, match="sample night transit"):
        check(name, [1] if name == "Q15a" else 1, night=night)
    if name in ("Q14a", "Q16a"):
        with pytest.raises(ConfigError, match="sample night transit"):
            check(name, 1, night=curve_night(flip=80))


def test_answers_are_not_in_the_book():
    """ED-01: no page, not even a hidden cell of it, computes with the answers of the package."""
    book = Path(__file__).resolve().parents[1] / "book"
    for path in sorted([*book.glob("*.ipynb"), *book.glob("*.md")]):
        text = path.read_text(encoding="utf-8")
        assert "QUESTIONS" not in text and ".answer(" not in text, path.name
    # What a question asks for stands in no sentence and no line of code.
    told = {
        "astrometry": r"\b10 (terms|stars are needed)|0\.156|0\.22[12]\b|20\.2\d?\b",
        "photometry": r"\b(4750|4999\.98|76\.[78]\d*)\b|\bfactor (of )?1\.5\b(?! or so)",
    }
    for page in ("CMD", "lightcurve"):
        page_text = (book / f"{page}.ipynb").read_text(encoding="utf-8")
        assert all(rf"\"{name}\"" in page_text for name in checks.questions(page)["id"]), page
        assert not re.search(r"check\(\\?[\"']", page_text), page
    # Depth and radius of the simulated planet, of the formula sheet.
    assert not re.search(r"\b(10\.5|11\.[56]|0\.0105|0\.0114\d?|0\.102\d?)\b", page_text)
    # The page on shapes is optional (000-28): the others stand without it.
    if (book / "psf.ipynb").is_file():
        told["psf"] = r"\b(8000|0\.0327)\b"
    told["stack"] = r"\b(6\.6[67]\d*|0\.56\d*|5\.3[67]\d*|0\.87\d*)\b|\b24 electrons"
    told["camera"] = r"\b(0\.885?|0\.015[78]\d*|0\.032\d+|41\.\d+|9\.6\d*|16\.[123]\d*)\b"
    told |= {"variables": r"\b(83\.5\d*|0\.058)\b", "hat-p-32": r"\b(31\.[34]\d?|1\.79)\b"}
    for page, numbers in told.items():
        cells = json.loads((book / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
        assert not re.search(numbers, text), page
        # A cell that hands an answer to the check, shown or hidden, tells it.
        assert not re.search(r"check\([\"']", text), page
        asked = set(re.findall(r"Question ([A-Z]+\d):", text))
        assert asked == set(checks.questions(page)["id"])
        assert all(f'"{name}"' in text for name in asked if QUESTIONS[name].answer)
