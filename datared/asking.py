"""What a question of the course is, and short ways to write one down."""

from dataclasses import dataclass

__all__ = ["Question"]


@dataclass(frozen=True)
class Question:
    """One question.

    Parameters
    ----------
    id : str
        Short name, such as ``"Q1"``.
    page : str
        Page of the book that asks it.
    text : str
        The question.
    unit : str
        Unit of the answer (of astropy), empty for a plain number.
    answer : callable, optional
        ``answer(truth)`` gives the number, or the two ends of the accepted range. ``truth`` is a
        dictionary (see `datared.checks.read_truth`), empty for questions that need no night. Not
        given for questions that are answered in words.
    tolerance : float
        Allowed difference, in the unit of the answer.
    relative : bool
        The tolerance is a fraction of the answer instead.
    needs : str
        Where the answer comes from: the truth of a simulated night of the kind ``"cluster"``,
        ``"transit"`` or ``"any"`` of these two, or that of a ``"camera"``; the ``"photometry"``,
        the ``"magnitudes"``, the ``"lightcurve"`` or the ``"comparison"`` stars of any night, also
        of a real one (see `datared.nightnumbers` and `datared.curvenumbers`); or nothing but the
        question, if empty.
    mistakes : tuple of (callable, str)
        Typical wrong answers (a number or a range, found like ``answer``) and what to say.
    hint : str
        Said after any other wrong answer.
    points : tuple of str
        For an answer in words: what to compare it with.
    listed : bool
        The answer is a list of whole numbers, in any order: ``answer`` gives a dictionary of those
        that have to be in it, with the reason of each, and a set of those that may be in it.
    """

    id: str
    page: str
    text: str
    unit: str = ""
    answer: object = None
    tolerance: float = 0.0
    relative: bool = False
    needs: str = ""
    mistakes: tuple = ()
    hint: str = ""
    points: tuple = ()
    listed: bool = False


def number(value, rel=0.01, **more):
    """Keywords of a question with one number and a relative tolerance."""
    return {"answer": lambda truth: value, "tolerance": rel, "relative": True, **more}


def truth(key, tolerance, needs, **more):
    """Keywords of a question whose answer is one entry of the truth of a night."""
    return {"answer": lambda t: t[key], "tolerance": tolerance, "needs": needs, **more}


def measured(key, tolerance, needs="photometry", **more):
    """Keywords of a question whose answer is a number of the night's own tables."""
    return {"answer": lambda t: t[key], "tolerance": tolerance, "needs": needs, **more}
