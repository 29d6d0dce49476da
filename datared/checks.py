"""Self-checks of the reader's answers, with hints to what may have gone wrong.

Nothing here shows a solution: a wrong answer gets a hint. The questions are in `datared.questions`.
"""

import json
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.time import Time

from .errors import ConfigError
from .frames import inventory
from .nightnumbers import magnitude_numbers, photometry_numbers
from .questions import QUESTIONS

__all__ = ["Check", "ask", "check", "questions", "read_truth"]

#: Factors between units that are often taken for each other, and what to ask.
FACTORS = {
    206264.806: "Is your angle in the right unit? A radian has 206265 arcseconds.",
    3600.0: "Is your angle in the right unit? A degree has 3600 arcseconds.",
    86400.0: "Is your time in the right unit? A day has 86400 seconds.",
    1440.0: "Is your time in the right unit? A day has 1440 minutes.",
    60.0: "Is there a factor 60? Think of minutes and seconds, or arcmin and arcsec.",
    24.0: "Is there a factor 24? Think of days and hours.",
    57.2957795: "Is your angle in degrees or in radians?",
    15.0: "Is there a factor 15? An hour of right ascension is 15 degrees.",
    1e9: "Is there a factor of a billion? Think of nanometres and metres, or years.",
    1e6: "Is there a factor of a million? Think of micrometres and metres.",
    1e3: "Is there a factor 1000? Think of thousandths, or of kilo and milli.",
    100.0: "Is there a factor 100? Think of per cent, or of centimetres.",
    921.034: "Is it thousandths of the flux (ppt) or magnitudes?",
    2.0: "Is there a factor 2? Think of radius and diameter, or of start and middle.",
    2.5: "Is there a factor 2.5? Think of the definition of magnitudes.",
}

#: Where the numbers come from that a night's own tables tell.
MEASURED = {"photometry": photometry_numbers, "magnitudes": magnitude_numbers}


@dataclass(frozen=True)
class Check:
    """What came of a check; its text is shown where it is the last line of a cell.

    Parameters
    ----------
    question : str
        Name of the question.
    ok : bool or None
        Right or not; None for an answer in words, that only you can judge.
    message : str
        What to tell the student.
    """

    question: str
    ok: bool | None
    message: str

    def __repr__(self):
        """Text for the reader."""
        text = f"{self.question}: {self.message}"
        # As wide as the text of a page; the lines of a message in several lines stay.
        return "\n".join(
            textwrap.fill(line, 76, subsequent_indent="    ") for line in text.split("\n")
        )

    def __bool__(self):
        """Whether the answer is right."""
        return self.ok is True


def check(question, answer, *, night=None, expected=None, tolerance=None, unit=None):
    """Check an answer.

    Parameters
    ----------
    question : str
        Name of a question of the book (`questions` lists them), or any name if ``expected`` is
        given.
    answer : number, Quantity, Time or str
        A number in the unit of the question; a `Quantity` in any unit that can be converted; a
        `Time` in TDB for a Julian date; words where words are asked.
    night : Night, optional
        The night that the answer was measured on, where the question depends on it: mostly a
        simulated one, with its truth.
    expected : float or (float, float), optional
        A value to compare with (from the literature, say), or the ends of a range, instead of the
        course's own.
    tolerance : float, optional
        Allowed difference; by default that of the question, or 1 % of ``expected``.
    unit : str, optional
        Unit of ``expected`` for a question of your own.

    Returns
    -------
    Check
        With ``ok`` and a message; as a condition it is true for a right answer only.

    Raises
    ------
    ConfigError
        If there is no such question, or the night with its truth is needed and was not given.

    Examples
    --------
    >>> check("Q3a", 2.512)
    Q3a: Right.
    >>> check("Q1", 2.44e-6)
    Q1: Not yet: your number is too small. Is your angle in the right unit? A radian has 206265
    arcseconds.
    >>> check("my own", 3.1, expected=3.0, tolerance=0.2).ok
    True
    """
    known = QUESTIONS.get(question)
    if known is None and expected is None:
        raise ConfigError(
            f"There is no question {question!r}. Known are {', '.join(QUESTIONS)}; for one of your "
            "own give expected="
        )
    if expected is None and known.answer is None:
        return _words(known, answer)
    unit = unit or (known.unit if known else "")
    try:
        value = _value(answer, unit)
    except (TypeError, ValueError, OverflowError, u.UnitsError) as error:
        return Check(question, False, f"Not yet: {error}")
    truth, mistakes = {}, ()
    if expected is None:
        truth = read_truth(night, known) if known.needs else {}
        expected, mistakes = known.answer(truth), known.mistakes
    low, high = (expected, expected) if np.ndim(expected) == 0 else expected
    if tolerance is None:
        tolerance = known.tolerance if known else 0.01
        if known is None or known.relative:
            tolerance *= max(abs(low), abs(high))
    # A little more than the tolerance, so that a difference of exactly this size is accepted.
    slack = tolerance * (1 + 1e-9) + 1e-12
    if low - slack <= value <= high + slack:
        return Check(question, True, "Right.")
    wrong = _known_mistake(value, mistakes, truth)
    if wrong is None:
        size = "large" if value > high else "small"
        hint = _unit_mistake(value, low, high, tolerance, truth, known)
        wrong = f"your number is too {size}. {hint}".strip()
    return Check(question, False, f"Not yet: {wrong}")


def ask(question):
    """Text of a question.

    Parameters
    ----------
    question : str
        Its name.

    Returns
    -------
    str
        The question.

    Examples
    --------
    >>> ask("Q3a")
    'Which ratio of fluxes is a difference of 1 mag?'
    """
    if question not in QUESTIONS:
        raise ConfigError(f"There is no question {question!r}. Known are {', '.join(QUESTIONS)}.")
    return QUESTIONS[question].text


def questions(page=None):
    """List the questions of the book.

    Parameters
    ----------
    page : str, optional
        Only those of this page, such as ``"photometry"``.

    Returns
    -------
    astropy.table.Table
        Columns ``id``, ``page``, ``question``, ``unit``, ``answer`` (``number`` or ``words``) and
        ``night`` (the kind of simulated night that is needed, or ``photometry`` or ``magnitudes``
        where the tables of any night will do).
    """
    pages = {question.page for question in QUESTIONS.values()}
    if page is not None and page not in pages:
        raise ConfigError(
            f"No page {page!r} has questions; these have: {', '.join(sorted(pages))}."
        )
    rows = [
        (q.id, q.page, q.text, q.unit, "words" if q.answer is None else "number", q.needs)
        for q in QUESTIONS.values()
        if page in (None, q.page)
    ]
    return Table(rows=rows, names=("id", "page", "question", "unit", "answer", "night"))


def read_truth(night, question):
    """Truth of a simulated night, as far as a question needs it.

    Parameters
    ----------
    night : Night or None
        The night.
    question : Question
        The question, for its messages.

    Returns
    -------
    dict
        What ``truth/parameters.json`` holds, with the numbers of frames ``n_bias`` and ``n_light``,
        the ``fwhm`` (px) of the first frame in r, or of the first frame, and ``header_scale``, the
        pixel scale (arcsec) by the headers of the lights. For a question about the photometry or
        the magnitudes of the night, the numbers of `datared.nightnumbers` instead.

    Raises
    ------
    ConfigError
        If there is no night, no truth, the truth of another kind of night, or no bright stars.
    """
    if night is None:
        raise ConfigError(
            f"The answer to {question.id} depends on the night: give it, as in "
            f"check({question.id!r}, answer, night=night)"
        )
    if question.needs in MEASURED:
        return _measured(night, question)
    path = None if night.truth is None else Path(night.truth) / "parameters.json"
    if path is None or not path.is_file():
        raise ConfigError(
            f"The night {night.name!r} has no truth beside it: compare with a value from the "
            f"literature, check({question.id!r}, answer, expected=value, tolerance=error)"
        )
    truth = json.loads(path.read_text(encoding="utf-8"))
    kind = "transit" if "mid_time" in truth else "cluster"
    if question.needs not in ("any", kind):
        raise ConfigError(
            f"{question.id} is about a {question.needs} night, {night.name!r} is a {kind} night."
        )
    raw = inventory(night)
    kinds = [str(k) for k in raw["kind"]]
    frames = Table.read(path.with_name("frames.ecsv"))
    frames = frames[frames["filter"] == "r"] if "r" in frames["filter"] else frames
    return truth | {
        "n_bias": kinds.count("bias"),
        "n_light": kinds.count("light"),
        "fwhm": float(frames["fwhm"][0]),
        "header_scale": float(raw["scale"][kinds.index("light")]),
    }


def _measured(night, question):
    """Numbers of the night's own photometry, where they tell what this question asks."""
    numbers = MEASURED[question.needs](night)
    if not np.all(np.isfinite(question.answer(numbers))):
        raise ConfigError(
            f"The night {night.name!r} cannot answer {question.id}: it has too few bright stars "
            "without flags, one radius only, no gain, or no meridian flip, or too few exposures. "
            "Take the sample night cluster."
        )
    return numbers


def _value(answer, unit):
    """Answer as a float in the unit of the question."""
    if isinstance(answer, Time):
        if answer.scale != "tdb":
            raise ValueError(f"the time scale is {answer.scale}; asked is BJD in TDB.")
        return float(answer.jd)
    if answer is None:
        raise ValueError("put your number in first.")
    if isinstance(answer, str):
        raise ValueError(f"this answer is a number, {answer!r} is not one.")
    if isinstance(answer, u.Quantity):
        wanted = u.Unit(unit)
        if not answer.unit.is_equivalent(wanted):
            raise ValueError(
                f"the answer has the unit {answer.unit}; asked is {unit or 'a plain number'}."
            )
        answer = answer.to_value(wanted)
    array = np.ma.filled(np.ma.asarray(answer, dtype=float), np.nan)
    if array.size != 1:
        raise ValueError(f"one number is asked, this is an array of shape {array.shape}.")
    value = float(array.reshape(-1)[0])
    if not math.isfinite(value):
        raise ValueError("your number is not finite: something was masked or divided by zero.")
    return value


def _words(question, answer):
    """Points to compare an answer in words with; only an empty one is refused."""
    if not isinstance(answer, str) or not answer.strip():
        return Check(question.id, False, "Not yet: write your answer in words, in quotes.")
    points = "\n".join(f"  - {point}" for point in question.points)
    return Check(question.id, None, f"Compare your answer with these points.\n{points}")


def _known_mistake(value, mistakes, truth):
    """Say which of the typical mistakes gives this number, or None."""
    found = []
    for wrong, text in mistakes:
        ends = wrong(truth)
        first, last = (ends, ends) if np.ndim(ends) == 0 else ends
        margin = 0.0 if np.ndim(ends) else max(0.01 * abs(first), 1e-9)
        if first - margin <= value <= last + margin:
            found.append((abs(value - (first + last) / 2), text))
    # Two mistakes may give nearly the same number: the closer one was made.
    return min(found)[1] if found else None


def _unit_mistake(value, low, high, tolerance, truth, question):
    """Hint for a number that is right but for a sign or a unit, else the question's own hint."""
    own, asked = (question.hint, question.unit) if question else ("", "")
    if low > 2.4e6:  # A Julian date.
        if abs(value + 2400000.5 - low) < 0.5:
            return "This is a modified Julian date: the offset to a Julian date is 2400000.5."
        return own if abs(value - low) < 1 else f"Give the whole Julian date. {own}"
    # The finer of two candidates wins: 60 must not pass for 57.3.
    margin = min(max(0.01, tolerance / max(abs(low), abs(high), 1e-300)), 0.02)

    def near(factor, margin=margin):
        ends = sorted((low * factor, high * factor))
        return ends[0] - margin * abs(ends[0]) <= value <= ends[1] + margin * abs(ends[1])

    if low * high > 0:
        if near(-1.0):
            return "Look at the sign."
        if truth and question.unit == "adu" and (near(truth["gain"]) or near(1 / truth["gain"])):
            return "Is your number in electrons or in ADU?"
        for factor, text in FACTORS.items():
            # Of a factor of two the question's own hint says more. Only magnitudes are like ppt.
            if (factor < 3 and own) or (factor == 921.034 and asked not in ("", "mag")):
                continue
            if near(factor) or near(1 / factor):
                return text
        coarse = tolerance / max(abs(low), abs(high))  # Rough answers have rough mistakes.
        for factor in (1e3, 1e6, 1e9):
            # A tolerance as wide as the answer itself, as of [Fe/H] near 0, tells no factor.
            if coarse < 0.5 and (near(factor, coarse) or near(1 / factor, coarse)):
                return FACTORS[factor]
        if near(1 / (low * high)):
            return "Is it the reciprocal that is asked?"
    return own
