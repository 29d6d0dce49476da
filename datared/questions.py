"""The questions of the course: what is asked on which page, and how the right answer is found.

The answers are computed here from formulas, or from the truth of a simulated night; no page of the
book holds them. `datared.checks` compares.
"""

import math
from dataclasses import dataclass

__all__ = ["QUESTIONS", "Question"]


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
        Kind of the simulated night that the answer comes from: ``"cluster"``, ``"transit"``,
        ``"any"``, or empty.
    mistakes : tuple of (callable, str)
        Typical wrong answers (a number or a range, found like ``answer``) and what to say.
    hint : str
        Said after any other wrong answer.
    points : tuple of str
        For an answer in words: what to compare it with.
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


def _number(value, rel=0.01, **more):
    """Keywords of a question with one number and a relative tolerance."""
    return {"answer": lambda truth: value, "tolerance": rel, "relative": True, **more}


def _truth(key, tolerance, needs, **more):
    """Keywords of a question whose answer is one entry of the truth of a night."""
    return {"answer": lambda t: t[key], "tolerance": tolerance, "needs": needs, **more}


def _magnitudes(depth):
    """Depth in magnitudes of a relative depth."""
    return -2.5 * math.log10(1 - depth)


def _bias_noise(truth):
    """Noise in ADU of a master bias: of the mean, and of the median, of the bias frames."""
    single = math.hypot(truth["read_noise"] / truth["gain"], 1 / math.sqrt(12))
    mean = single / math.sqrt(truth["n_bias"])
    return mean, math.sqrt(math.pi / 2) * mean


def _installed_samples():
    """Count the sample nights that the installed package knows."""
    from .samples import SAMPLES

    return len(SAMPLES)


_ARCSEC = math.degrees(1) * 3600
_JD_HINT = "The transit lasts from where the light leaves its level to where it is back."
_NOT_BJD = "You are some minutes off. Is it BJD_TDB, and of the middle of the exposures?"


def _contact(key):
    """Keywords of a question for a contact time: 4 minutes (a trapezoid's own error is 3)."""
    minutes = 1 / 1440
    ranges = [lambda t, s=s: (t[key] + s * 4 * minutes, t[key] + s * 12 * minutes) for s in (-1, 1)]
    return {
        **_truth(key, 4 * minutes, "transit", unit="d", hint=_JD_HINT),
        "mistakes": tuple((lambda t, r=r: tuple(sorted(r(t))), _NOT_BJD) for r in ranges),
    }


_LIST = [
    Question(
        "O1", "intro", "Which pages do you need if you only want a light curve?",
        points=("Which page makes the table that the light curve is drawn from?",
                "Which pages does that page need? Follow the arrows backwards.",
                "Is the colour-magnitude diagram on the way? Is the stack?"),
    ),
    Question(
        "I1", "installation", "How many sample nights does your installation know?",
        answer=lambda truth: _installed_samples(),
        hint="Count the names in datared.samples.SAMPLES.",
    ),
    Question(
        "T1", "tools",
        "300 stars on 15 frames in 5 apertures: how many numbers does the column flux hold?",
        **_number(22500, 0.0, hint="Each star on each frame in each aperture has one number."),
        mistakes=((lambda t: 4500, "That is one aperture only."),
                  (lambda t: 1500, "That is one frame only.")),
    ),
    Question(
        "Q1", "background",
        "What is the smallest angle that a telescope of 35 cm can separate at 700 nm, in arcsec?",
        unit="arcsec", **_number(1.22 * 700e-9 / 0.35 * _ARCSEC),
        mistakes=((lambda t: 700e-9 / 0.35 * _ARCSEC, "There is a factor for round mirrors."),
                  (lambda t: 1.22 * 700e-9 / 0.175 * _ARCSEC,
                   "D is the diameter, not the radius.")),
        hint="The formula gives radians, with both lengths in metres.",
    ),
    Question(
        "Q2", "background", "Why take several exposures instead of one long one?",
        points=("What happens to the brightest stars in a long exposure?",
                "What happens when the telescope does not follow the sky perfectly?",
                "What can you do about a cosmic ray with one frame? With five?",
                "What does it help to move the telescope a little between frames?",
                "What is lost when a satellite passes? And what does each read-out cost?"),
    ),
    Question(
        "Q3a", "background", "Which ratio of fluxes is a difference of 1 mag?",
        **_number(10**0.4, 0.002), hint="Five magnitudes are exactly a factor of 100.",
        mistakes=((lambda t: 10**-0.4, "That is faint over bright: turn it round."),
                  (lambda t: math.e, "The logarithm of magnitudes has base 10, not e.")),
    ),
    Question(
        "Q3b", "background", "By how many magnitudes does a star change whose flux changes by 1 %?",
        unit="mag", **_number(2.5 * math.log10(1.01), 0.012),
        mistakes=((lambda t: math.log10(1.01), "Where is the 2.5?"),
                  (lambda t: 0.01, "Nearly the same number, but not the same: use the logarithm.")),
        hint="Put 1.01 for the ratio of the fluxes.",
    ),
    Question(
        "Q3c", "background", "And by how many magnitudes for a change of 1 ppt (0.1 %)?",
        unit="mag", **_number(2.5 * math.log10(1.001), 0.012),
        mistakes=((lambda t: math.log10(1.001), "Where is the 2.5?"),),
        hint="Put 1.001 for the ratio of the fluxes.",
    ),
    Question(
        "B1", "background",
        "Dark frames of 192 s still contain a bias of 1000 ADU. You scale them to a light of 96 s "
        "and subtract. How many ADU of the bias are left in the light?",
        unit="adu", **_number((1 - 96 / 192) * 1000, 0.001),
        mistakes=((lambda t: 0, "Scale the bias in the dark as well: it is halved, too."),),
        hint="Write the light as bias plus signal, the dark as bias plus dark current.",
    ),
    Question(
        "B2", "background", "What is the airmass of a star 60 degrees from the zenith?",
        **_number(1 / math.cos(math.radians(60)), 0.01),
        mistakes=((lambda t: 1 / math.cos(60), "Your cosine takes radians."),
                  (lambda t: math.cos(math.radians(60)), "Turn it round: the path is longer.")),
        hint="The air is nearly a flat layer.",
    ),
    Question(
        "B3", "background",
        "A star gives 10 000 electrons in an aperture of 50 pixels, the sky gives 30 electrons per "
        "pixel, the read noise is 5 electrons. What is the signal-to-noise ratio?",
        **_number(1e4 / math.sqrt(1e4 + 50 * (30 + 25)), 0.005),
        mistakes=((lambda t: 100.0, "That is the star alone, without sky and read noise."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 50 * 25), "You forgot the sky."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 50 * 30), "You forgot the read noise."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 50 * (30 + 5)), "Square the read noise."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 30 + 25), "Each of the 50 pixels adds noise.")),
        hint="Add variances, not standard deviations.",
    ),
    Question(
        "B4", "background", "What is the distance modulus of a cluster at 1000 pc without dust?",
        unit="mag", **_number(10.0, 0.001), hint="m - M = 5 log10(d / pc) - 5.",
        mistakes=((lambda t: 15.0, "Subtract the 5: at 10 pc the modulus is zero."),),
    ),
    Question(
        "D1", "data", "How many light frames does the night have?",
        answer=lambda t: t["n_light"], needs="any",
        hint="Count the rows of the inventory whose kind is light.",
    ),
    Question(
        "Q4", "pre-red",
        "What pixel-to-pixel standard deviation (in ADU) do you expect of the master bias?",
        unit="adu", answer=_bias_noise, tolerance=0.08, relative=True, needs="any",
        mistakes=((lambda t: t["read_noise"] / t["gain"], "That is one frame, not the master."),
                  (lambda t: t["read_noise"] / t["gain"] / t["n_bias"],
                   "Noise falls with the square root of the number of frames.")),
        hint="Start from the noise of one bias, measured robustly: hot pixels do not count.",
    ),
    Question(
        "Q5", "pre-red",
        "Why is the standard deviation of a dark much larger than that of a bias of equal level?",
        points=("Which pixels make it? Look at the far right of the histogram.",
                "How large is the width from the MAD, for both frames?",
                "Which of the two numbers describes a typical pixel?"),
    ),
    Question(
        "A1", "astrometry", "What is the pixel scale of the solved frames, in arcsec per pixel?",
        unit="arcsec", **_truth("pixel_scale", 0.005, "any"), relative=True,
        hint="The solution has the scale; or take the distance of two stars on the sky and in px.",
    ),
    Question(
        "A2", "astrometry", "How wide is the sky on one frame of 1000 px, in arcminutes?",
        unit="arcmin", answer=lambda t: 1000 * t["pixel_scale"] / 60, tolerance=0.2,
        needs="cluster",
        hint="The width in pixels times the sky of one pixel; an arcminute has 60 arcseconds.",
    ),
    Question(
        "A3", "astrometry", "How many stars does a fit of order 3 need at the very least?",
        answer=lambda t: 10, tolerance=0,
        mistakes=((lambda t: 20, "Each star gives two equations, one for each coordinate."),
                  (lambda t: 3, "Count the terms: 1, x, y, x^2, x y, ...")),
        hint="Count the terms of a polynomial of order 3 in x and y.",
    ),
    Question(
        "P1", "photometry",
        "A circle of radius 10 px holds 8141.57 ADU, the ring from 20 to 30 px holds 15707.96 ADU. "
        "How many ADU come from the star?",
        unit="adu", answer=lambda t: 8141.57 - 15707.96 / 5, tolerance=0.5,
        mistakes=((lambda t: 8141.57, "The sky is still in it."),
                  (lambda t: 8141.57 - 15707.96, "The ring is larger than the circle."),
                  (lambda t: 8141.57 - 10, "Subtract the sky of every pixel, not of one.")),
        hint="First the sky per pixel from the ring, then the sky inside the circle.",
    ),
    Question(
        "P2", "photometry",
        "What is the error of the flux in P1, with a gain of 2 e-/ADU and a noise of 3 ADU in a "
        "pixel of the sky? (The sky is a mean.)",
        unit="adu", tolerance=0.7,
        answer=lambda t: math.sqrt(5000 / 2 + 100 * math.pi * 9 * (1 + 1 / 5)),
        mistakes=((lambda t: math.sqrt(100 * math.pi * 9 * 1.2), "The star has noise too."),
                  (lambda t: math.sqrt(2500 + 100 * math.pi * 9), "The sky has an error too."),
                  (lambda t: math.sqrt(5000 + 100 * math.pi * 9 * 1.2),
                   "The noise of counted light is its square root in electrons, not in ADU.")),
        hint="Add three variances: of the star's light, of the pixels in the circle, of the sky.",
    ),
    Question(
        "Q6", "CMD", "Which aperture radius gives the most accurate diagram, and how do you know?",
        points=("What do you plot to compare radii? The scatter against what?",
                "Why is the smallest radius bad, and why the largest?",
                "What do the individual exposures of one filter tell you about the errors?"),
    ),
    Question(
        "Q7", "CMD", "How are the uncertainties computed, and what do they stand for?",
        points=("Which sources of noise are in them, which are not?",
                "Divide each deviation from the mean by its error: how wide should that be?",
                "Does the error of the zero point move all stars together?"),
    ),
    Question(
        "Q8", "CMD", "Which features do you see in the observed diagram?",
        points=("Where are most stars? What is the bright end of that sequence called?",
                "Is there a second sequence, parallel and brighter? What could it be?",
                "Which stars are in no sequence at all?"),
    ),
    Question(
        "Q9a", "CMD", "What is the age of the cluster, in Gyr?", unit="Gyr",
        **_truth("age", 0.3, "cluster"), relative=True, hint="Look at the turn-off point.",
    ),
    Question(
        "Q9b", "CMD", "What is its distance, in pc?", unit="pc",
        **_truth("distance", 0.15, "cluster"), relative=True,
        hint="Distance moves the isochrone up and down. Is the extinction applied?",
    ),
    Question(
        "Q9c", "CMD", "What is its metallicity [Fe/H]?", **_truth("metallicity", 0.25, "cluster"),
        hint="Dust and metals both make stars redder: change them together.",
    ),
    Question(
        "Q9d", "CMD", "What is its extinction A_V, in mag?", unit="mag",
        **_truth("a_v", 0.2, "cluster"),
        hint="Look at the steep part of the main sequence: dust moves it sideways.",
    ),
    Question(
        "Q10", "CMD", "Why are these estimates and their uncertainties hard to get?",
        points=("Which two parameters do nearly the same to the diagram?",
                "Which stars do you compare with: all, or the members?",
                "How would you find the range of parameters that still fits?"),
    ),
    Question(
        "Q11", "CMD", "How do your numbers compare with the literature (or the truth)?",
        points=("Is the difference larger than your uncertainty? Than both together?",
                "What was measured there in another way than here?"),
    ),
    Question(
        "Q12", "CMD", "Which assumptions may be wrong?",
        points=("Have all stars the same age, distance and dust?",
                "Are all stars single? Are all stars members?",
                "How sure are the models and the zero points themselves?"),
    ),
    Question(
        "Q13", "lightcurve", "Which trends do all stars share, and where do they come from?",
        points=("What changes with the height of the star above the horizon?",
                "What happens in front of the telescope for a few frames only?",
                "Does a change of the seeing change the flux in a small aperture?"),
    ),
    Question(
        "Q14", "lightcurve", "How would you calibrate better? Write it as equations and try it.",
        points=("What is the same for all stars on one frame? Write it as c(t).",
                "How do you find c(t) without using the target?",
                "Did the scatter outside the transit become smaller?"),
    ),
    Question(
        "Q15", "lightcurve", "Which properties does a good comparison star have, and why?",
        points=("Its brightness: why not too faint, why not too bright?",
                "Its colour, its distance from the target: what changes across the sky?",
                "How do you see that it is not variable itself?"),
    ),
    Question(
        "Q16", "lightcurve", "Plot the comparison stars, calibrated the same way: what do you see?",
        points=("Are two of the curves correlated? Compute the coefficient.",
                "What would two correlated stars have in common?"),
    ),
    Question(
        "Q17", "lightcurve", "Which stars have large residuals, and why? Which do you leave out?",
        points=("What do their flags say?", "Do they cross the edge, a bad pixel, a neighbour?",
                "Is the residual a fault of the frame or a property of the star?"),
    ),
    Question("Q18a", "lightcurve", "When does the transit start (BJD_TDB)?",
             **_contact("ingress_start")),
    Question("Q18b", "lightcurve", "When does the transit end (BJD_TDB)?",
             **_contact("egress_end")),
    Question(
        "Q19a", "lightcurve", "How deep is the transit, in magnitudes?", unit="mag",
        answer=lambda t: (_magnitudes(t["depth"]), _magnitudes(t["depth_mid"])),
        tolerance=0.0011, needs="transit",
        mistakes=((lambda t: (1e3 * t["depth"] - 1, 1e3 * t["depth_mid"] + 1),
                   "This looks like ppt, not magnitudes."),),
        hint="Compare the level outside with the bottom of the dip.",
    ),
    Question(
        "Q19b", "lightcurve", "How deep is the transit, in ppt (thousandths of the flux)?",
        answer=lambda t: (1e3 * t["depth"], 1e3 * t["depth_mid"]), tolerance=1.0, needs="transit",
        mistakes=((lambda t: (_magnitudes(t["depth"]) - 1e-3, _magnitudes(t["depth_mid"]) + 1e-3),
                   "This looks like magnitudes, or like a fraction of one, not ppt."),),
        hint="Compare the level outside with the bottom of the dip.",
    ),
    Question(
        "Q20", "lightcurve", "Is your result consistent with the literature (or the truth)?",
        points=("By how many of your uncertainties do they differ?",
                "Is your uncertainty believable? What does the scatter say?"),
    ),
    Question(
        "Q21", "lightcurve", "What is the ratio of the radii of planet and star?",
        **_truth("radius_ratio", 0.006, "transit"),
        mistakes=((lambda t: (t["depth"] - 1e-3, t["depth_mid"] + 1e-3),
                   "This is the ratio of the areas."),),
        hint="The planet covers a part of the area of the star.",
    ),
    Question(
        "S1", "stack",
        "The sky noise of one frame is 12 ADU. How many equal frames make it 3 ADU in their mean?",
        **_number(16, 0.0, hint="The noise of a mean falls as the square root of the number."),
        mistakes=((lambda t: 4, "Four frames halve the noise. Go on."),),
    ),
    Question(
        "S2", "stack", "How many magnitudes deeper is the mean of 5 equal frames than one frame?",
        unit="mag", **_number(2.5 * math.log10(math.sqrt(5)), 0.02),
        mistakes=((lambda t: 2.5 * math.log10(5), "That is five times less noise. Is it?"),),
        hint="The noise falls as the square root; turn that ratio into magnitudes.",
    ),
]  # fmt: skip

#: Every question by its name.
QUESTIONS = {question.id: question for question in _LIST}
