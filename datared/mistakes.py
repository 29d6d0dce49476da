"""What a wrong number comes from: a typical mistake of its question, a sign, a unit."""

import numpy as np

__all__ = ["known_mistake", "unit_mistake"]

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


def known_mistake(value, mistakes, truth):
    """Say which of the typical mistakes gives a number.

    Parameters
    ----------
    value : float
        The number.
    mistakes : tuple of (callable, str)
        As of `datared.asking.Question`.
    truth : dict
        What the mistakes are computed from.

    Returns
    -------
    str or None
        What to say; None where it is none of them.
    """
    found = []
    for wrong, text in mistakes:
        ends = wrong(truth)
        first, last = (ends, ends) if np.ndim(ends) == 0 else ends
        margin = 0.0 if np.ndim(ends) else max(0.01 * abs(first), 1e-9)
        if first - margin <= value <= last + margin:
            found.append((abs(value - (first + last) / 2), text))
    # Two mistakes may give nearly the same number: the closer one was made.
    return min(found)[1] if found else None


def unit_mistake(value, low, high, tolerance, truth, question):
    """Hint for a number that is right but for a sign or a unit, else the question's own hint.

    Parameters
    ----------
    value : float
        The wrong number.
    low, high : float
        Ends of the range of right answers.
    tolerance : float
        How far outside of it an answer may be.
    truth : dict
        What the answer was computed from; the ``gain`` is used.
    question : datared.asking.Question or None
        The question; None for one of the reader's own.

    Returns
    -------
    str
        What to say; it may be empty.
    """
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
