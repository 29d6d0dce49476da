"""The questions of the pages on results: diagram, light curve, stack. See `datared.questions`."""

import math

from .asking import Question, measured, number, truth

_JD_HINT = "The transit lasts from where the light leaves its level to where it is back."
_NOT_BJD = "You are some minutes off. Is it BJD_TDB, and of the middle of the exposures?"


def _magnitudes(depth):
    """Depth in magnitudes of a relative depth."""
    return -2.5 * math.log10(1 - depth)


def _modulus(distance):
    """Distance modulus of a distance in pc."""
    return 5 * math.log10(distance) - 5


def _contact(key):
    """Keywords of a question for a contact time: 4 minutes (a trapezoid's own error is 3)."""
    minutes = 1 / 1440
    ranges = [lambda t, s=s: (t[key] + s * 4 * minutes, t[key] + s * 12 * minutes) for s in (-1, 1)]
    return {
        **truth(key, 4 * minutes, "transit", unit="d", hint=_JD_HINT),
        "mistakes": tuple((lambda t, r=r: tuple(sorted(r(t))), _NOT_BJD) for r in ranges),
    }


#: The questions in the order of the pages.
RESULT_QUESTIONS = [
    Question(
        "Q6a", "CMD",
        "With which radius of the table (in FWHM) is the median scatter of the stars in i, from "
        "one exposure to the next, smallest?",
        answer=lambda t: (t["best_radius_low"], t["best_radius_high"]), tolerance=0.01,
        needs="magnitudes",
        mistakes=((lambda t: (t["best_radius_high"] + 0.9, 10.0),
                   "A large circle holds all of the light, and much noise of the sky."),),
        hint="Take the column i_scatter of the same stars, those without a flag, in each radius.",
    ),
    Question(
        "Q6b", "CMD",
        "How many times larger is this scatter with the largest radius than with the best one?",
        **measured("largest_over_best", 0.12, "magnitudes"), relative=True,
        mistakes=((lambda t: 1 / t["largest_over_best"], "Turn the ratio round."),),
        hint="Take medians of the same stars: no flag and 3 exposures or more in every radius.",
    ),
    Question(
        "Q6c", "CMD", "Which aperture radius gives the most accurate diagram, and how do you know?",
        points=("What do you plot to compare radii? The scatter against what?",
                "Is the best radius for bright stars the best one for faint stars, too?",
                "What is the smallest circle bad for, and what the largest?",
                "What do the individual exposures of one filter tell you about the errors?",
                "Is a small scatter all that you want? What may be wrong in every exposure alike?"),
    ),
    Question(
        "Q7a", "CMD",
        "What is the median of i_chi2 over the stars with all five exposures and without a flag?",
        **measured("repeat_chi2", 0.06, "magnitudes"),
        hint="Use the column of your table as it is, and a median: a mean follows a few odd stars.",
    ),
    Question(
        "Q7b", "CMD", "How are the uncertainties computed, and what do they stand for?",
        points=("Which sources of noise are in them, which are not?",
                "Divide each deviation from the mean by its error: how wide should that be?",
                "With true errors the median chi2 of five exposures is 0.84. Why is it not 1?",
                "Does the error of the zero point move all stars together?",
                "Which error moves the stars of one colour only?"),
    ),
    Question(
        "Q8", "CMD", "Which features do you see in the observed diagram?",
        points=("Where are most stars? What is the bright end of that sequence called?",
                "Is there a second sequence, parallel and brighter? How much brighter, and why?",
                "Which stars are bright and red, and why do most of them crowd in one place?",
                "Which stars are in no sequence at all? Do they move with the cluster?"),
    ),
    Question(
        "Q9a", "CMD", "What is the age of the cluster, in Gyr?", unit="Gyr",
        **truth("age", 0.3, "cluster"), relative=True, hint="Look at the turn-off point.",
        mistakes=((lambda t: (8 + math.log10(t["age"]), 10 + math.log10(t["age"])),
                   "This looks like the logarithm of the age in years."),),
    ),
    Question(
        "Q9b", "CMD", "What is its distance, in pc?", unit="pc",
        **truth("distance", 0.15, "cluster"), relative=True,
        mistakes=((lambda t: (_modulus(t["distance"]) - 1, _modulus(t["distance"]) + 1),
                   "This looks like the distance modulus: asked is the distance itself."),),
        hint="Distance moves the isochrone up and down. Is the extinction applied?",
    ),
    Question(
        "Q9c", "CMD", "What is its metallicity [Fe/H]?", **truth("metallicity", 0.25, "cluster"),
        unit="dex",
        hint="Dust and metals both make stars redder: change them together.",
    ),
    Question(
        "Q9d", "CMD", "What is its extinction A_V, in mag?", unit="mag",
        **truth("a_v", 0.2, "cluster"),
        mistakes=((lambda t: (t["a_v"] / 3.1 - 0.03, t["a_v"] / 3.1 + 0.03),
                   "Is this the reddening E(B-V)? A_V is larger."),),
        hint="Look at the steep part of the main sequence: dust moves it sideways.",
    ),
    Question(
        "Q10", "CMD", "Why are these estimates and their uncertainties hard to get?",
        points=("Which two parameters do nearly the same to the diagram?",
                "Which stars do you compare with: all, or the members? What of pairs?",
                "How would you find the range of parameters that still fits?",
                "What does a fit with a posterior add, and what does it take for granted?"),
    ),
    Question(
        "Q11", "CMD", "How do your numbers compare with the literature (or the truth)?",
        points=("Is the difference larger than your uncertainty? Than both together?",
                "How wide is the range of the published values, compared with each one's error?",
                "What was measured there in another way than here?"),
    ),
    Question(
        "Q12", "CMD", "Which assumptions may be wrong?",
        points=("Have all stars the same age, distance and dust?",
                "Are all stars single? Are all stars members?",
                "Do the models know rotation, mixing and the colours of cool stars?",
                "Is the law of the dust the same everywhere?",
                "How sure are the zero points and the colour terms themselves?"),
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
        **truth("radius_ratio", 0.006, "transit"),
        mistakes=((lambda t: (t["depth"] - 1e-3, t["depth_mid"] + 1e-3),
                   "This is the ratio of the areas."),),
        hint="The planet covers a part of the area of the star.",
    ),
    Question(
        "S1", "stack",
        "The sky noise of one frame is 12 ADU. How many equal frames make it 3 ADU in their mean?",
        **number(16, 0.0, hint="The noise of a mean falls as the square root of the number."),
        mistakes=((lambda t: 4, "Four frames halve the noise. Go on."),),
    ),
    Question(
        "S2", "stack", "How many magnitudes deeper is the mean of 5 equal frames than one frame?",
        unit="mag", **number(2.5 * math.log10(math.sqrt(5)), 0.02),
        mistakes=((lambda t: 2.5 * math.log10(5), "That is five times less noise. Is it?"),),
        hint="The noise falls as the square root; turn that ratio into magnitudes.",
    ),
]  # fmt: skip
