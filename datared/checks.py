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

from .curvenumbers import comparison_numbers, curve_numbers
from .errors import ConfigError
from .frames import inventory
from .mistakes import known_mistake, unit_mistake
from .nightnumbers import magnitude_numbers, photometry_numbers
from .questions import QUESTIONS

__all__ = ["Check", "ask", "check", "questions", "read_truth"]

#: Where the numbers come from that a night's own tables tell.
MEASURED = {
    "photometry": photometry_numbers,
    "magnitudes": magnitude_numbers,
    "lightcurve": curve_numbers,
    "comparison": comparison_numbers,
}


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
    answer : number, Quantity, Time, str or sequence of int
        A number in the unit of the question; a `Quantity` in any unit that can be converted; a
        `Time` in TDB for a Julian date; words where words are asked; a list where one is asked.
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
    if expected is None and known.listed:
        return _members(known, answer, night)
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
    wrong = known_mistake(value, mistakes, truth)
    if wrong is None:
        size = "large" if value > high else "small"
        hint = unit_mistake(value, low, high, tolerance, truth, known)
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
        ``night`` (the kind of simulated night that is needed, or ``photometry``, ``magnitudes``,
        ``lightcurve`` or ``comparison`` where the tables of any night will do).
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
        pixel scale (arcsec) by the headers of the lights; of a ``camera`` only what the file holds.
        For a question about the photometry, the magnitudes or the light curve of the night, the
        numbers of `datared.nightnumbers` or `datared.curvenumbers` instead.

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
    kind = truth.get("kind") or ("transit" if "mid_time" in truth else "cluster")
    # A camera in the laboratory has no lights: it answers the questions about cameras only.
    if question.needs != kind and (question.needs != "any" or kind == "camera"):
        raise ConfigError(
            f"{question.id} is about a {question.needs} night, {night.name!r} is a {kind} night."
        )
    if kind == "camera":
        return truth
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
    wanted = question.answer(numbers)
    if wanted is None or not (question.listed or np.all(np.isfinite(wanted))):
        if question.needs in ("lightcurve", "comparison"):
            raise ConfigError(
                f"The night {night.name!r} cannot answer {question.id}: it has no target, too few "
                "epochs or too few good comparison stars. Take the sample night transit."
            )
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


def _members(question, answer, night):
    """Compare a list of whole numbers with those that have to be and those that may be in it."""
    answer = list(answer) if isinstance(answer, set | frozenset) else answer
    try:
        numbers = np.asarray([] if answer is None else answer)
    except ValueError:  # Lists of different lengths in the list.
        numbers = np.empty(0)
    if not numbers.size or numbers.dtype.kind not in "iu":
        return Check(question.id, False, "Not yet: give a list of whole numbers, such as [2, 5].")
    needed, allowed = question.answer(read_truth(night, question))
    given = set(numbers.ravel().tolist())
    missing, extra = sorted(set(needed) - given), given - set(needed) - set(allowed)
    told = []
    if missing:
        why = ", ".join(dict.fromkeys(needed[k] for k in missing))
        told.append(f"{len(missing)} missing ({why}).")
    if extra:
        told.append(f"{len(extra)} too many.")
    if told:
        return Check(question.id, False, " ".join(["Not yet:", *told, question.hint]).strip())
    return Check(question.id, True, "Right.")
