"""The questions of the pages on results: diagram, light curve. See `datared.questions`."""

import math

from .asking import Question, measured, number, truth

_JD_HINT = "The transit lasts from where the light leaves its level to where it is back."
_NOT_BJD = (
    "You are some minutes off. Is it where the light leaves its level? Is it BJD_TDB, of the "
    "middle of the exposures?"
)


def _magnitudes(depth):
    """Depth in magnitudes of a relative depth."""
    return -2.5 * math.log10(1 - depth)


def _modulus(distance):
    """Distance modulus of a distance in pc."""
    return 5 * math.log10(distance) - 5


def _better_scatter(numbers):
    """Range (mmag) of what a better calibration than that of the page reaches."""
    before, levelled = 1e3 * numbers["scatter"], 1e3 * numbers["scatter_sides"]
    # Stars that do not calibrate themselves scatter up to 30 % more.
    return 0.6 * levelled, max(levelled, min(1.3 * levelled, 0.88 * before))


def _contact(key):
    """Keywords of a question for a contact time, with 4 minutes of room.

    Over twelve simulated nights the fit of the page is off by 1.3 (start) and 2.0 minutes (end) in
    the root mean square, and a trapezoid by 2.5.
    """
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
        "Q13a", "lightcurve",
        "One airmass costs 0.11 mag. By how many magnitudes does the air alone dim all stars from "
        "the lowest airmass of the night to the highest?",
        unit="mag", answer=lambda t: 0.11 * t["airmass_range"], tolerance=0.05, relative=True,
        needs="lightcurve",
        mistakes=((lambda t: t["airmass_range"], "That is the change of the airmass."),
                  (lambda t: 0.11 * (1 + t["airmass_range"]),
                   "That much is lost in all. By how much does the loss change?")),
        hint="The table of epochs has a column airmass. Only its change makes a trend.",
    ),
    Question(
        "Q13b", "lightcurve", "Which trends do all stars share, and where do they come from?",
        points=("What changes with the height of the star above the horizon? Is it enough?",
                "What happens in front of the telescope for a few frames only?",
                "What else in the air changes slowly, with no help of the airmass?",
                "Does a change of the seeing change the flux in a small aperture?"),
    ),
    Question(
        "Q14a", "lightcurve",
        "How large is, with your better calibration, the scatter of the tested comparison stars "
        "(1.4826 times the MAD of each calibrated curve, the median of them), in mmag?",
        unit="mmag", needs="lightcurve",
        answer=_better_scatter, tolerance=0.02, relative=True,
        mistakes=((lambda t: (0.91e3 * t["scatter"], 1.15e3 * t["scatter"]),
                   "That is the scatter of the calibration on the page. What jumps at the gap?"),
                  (lambda t: (0.0, 0.4e3 * t["scatter_sides"]),
                   "Less than the photons allow. Does a star calibrate itself?")),
        hint="Which stars lose their vote? Which jump do the panels show, and who is guilty?",
    ),
    Question(
        "Q14b", "lightcurve", "How would you calibrate better? Write it as equations, discuss it.",
        points=("What is the same for all stars on one frame? Write it as c(t).",
                "How do you find c(t) without using the target?",
                "Should a bright star have the same vote as a faint one? Which weights are best?",
                "Can a star that is part of c(t) be a fair test of c(t)?",
                "What happens to c(t) on a frame on which one star is missing?",
                "Did the scatter outside the transit become smaller?"),
    ),
    Question(
        "Q15a", "lightcurve",
        "Which of the stars 0 to 20, without the target, are no good comparison stars? Give the "
        "list of their numbers.",
        needs="comparison", listed=True,
        answer=lambda t: (t["refused"], t["judged"]) if t["refused"] else None,
        hint="Look at the curve of each star, and at its flags in photometry.flags.",
    ),
    Question(
        "Q15b", "lightcurve", "Which properties does a good comparison star have, and why?",
        points=("Its brightness: why not too faint, why not too bright?",
                "Its colour: does the air dim blue and red stars alike?",
                "Its distance from the target: what changes across the sky and across the flat?",
                "Its neighbours: what happens when the seeing changes?",
                "How do you see that it is not variable itself?",
                "Compare with the column reason of comparisons.ecsv. Which reason did you miss?"),
    ),
    Question(
        "Q16a", "lightcurve",
        "Take the two tested stars whose calibrated curves have the highest correlation. Give each "
        "side of the flip its own median, for each of them. Which correlation is left?",
        **measured("correlation_sides", 0.05, "lightcurve"),
        mistakes=((lambda t: (t["correlation"] - 0.02, t["correlation"] + 0.02),
                   "That is the correlation before the sides were levelled."),),
        hint="Subtract from each star the median of each side of the gap, then use np.ma.corrcoef.",
    ),
    Question(
        "Q16b", "lightcurve", "Plot comparison stars, calibrated the same way: what do you see?",
        points=("Are two of the curves correlated? Are others anti-correlated?",
                "What have two correlated stars in common? Where are they on the sensor?",
                "Which value do you expect from noise alone? (One over the root of the number.)",
                "Why does a common median make the others a little anti-correlated?"),
    ),
    Question(
        "Q17a", "lightcurve",
        "On how many frames did the helper leave out at least one comparison star?",
        **measured("left_out", 0.5, "comparison"),
        hint="The column n_comparison of the curve counts the stars of each frame.",
    ),
    Question(
        "Q17b", "lightcurve", "Which stars have large residuals, and why? Which do you leave out?",
        points=("What do their flags say?", "Do they cross the edge, a bad pixel, a neighbour?",
                "Is it one point or a run of points? What makes a single one?",
                "Is the residual a fault of the frame or a property of the star?",
                "Would you leave a point out if it were on the other side of the curve?"),
    ),
    Question("Q18a", "lightcurve", "When does the transit start (BJD_TDB)?",
             **_contact("ingress_start")),
    Question("Q18b", "lightcurve", "When does the transit end (BJD_TDB)?",
             **_contact("egress_end")),
    Question(
        "Q18c", "lightcurve",
        "A first transit is known to 0.4 min and the period to 0.06 s. How large is the error of "
        "the time that is predicted 1500 orbits later, in minutes?",
        unit="min", **number(math.hypot(0.4, 1500 * 0.06 / 60), 0.01),
        mistakes=((lambda t: 1.5, "The first transit has an error, too."),
                  (lambda t: 1.9, "Independent errors are added in squares."),
                  (lambda t: math.hypot(0.4, math.sqrt(1500) * 0.06 / 60),
                   "It is the same period in all orbits: its error adds up 1500 times."),
                  (lambda t: 90.0, "That is in seconds, and of the period alone.")),
        hint="The predicted time is the first one plus 1500 periods.",
    ),
    Question(
        "Q19a", "lightcurve", "How deep is the transit, in magnitudes?", unit="mag",
        answer=lambda t: (_magnitudes(t["depth"]), _magnitudes(t["depth_mid"])),
        tolerance=0.0017, needs="transit",  # Twelve nights scatter by 0.0013.
        mistakes=((lambda t: (1e3 * t["depth"] - 1, 1e3 * t["depth_mid"] + 1),
                   "This looks like ppt, not magnitudes."),),
        hint="Compare the level outside with the bottom of the dip.",
    ),
    Question(
        "Q19b", "lightcurve", "How deep is the transit, in ppt (thousandths of the flux)?",
        answer=lambda t: (1e3 * t["depth"], 1e3 * t["depth_mid"]), tolerance=1.6, needs="transit",
        mistakes=((lambda t: (_magnitudes(t["depth"]) - 1e-3, _magnitudes(t["depth_mid"]) + 1e-3),
                   "This looks like magnitudes, or like a fraction of one, not ppt."),),
        hint="Compare the level outside with the bottom of the dip.",
    ),
    Question(
        "Q20a", "lightcurve",
        "A transit comes 3.0 ± 1.2 min later than predicted, and the prediction has an error of "
        "0.9 min. By how many standard deviations do the two differ?",
        **number(3.0 / math.hypot(1.2, 0.9), 0.01),
        mistakes=((lambda t: 3.0 / 1.2, "The prediction has an error, too."),
                  (lambda t: 3.0 / (1.2 + 0.9), "Independent errors are added in squares."),
                  (lambda t: 3.0 / 0.9, "The measurement has an error, too.")),
        hint="First the error of the difference, from both errors.",
    ),
    Question(
        "Q20b", "lightcurve", "Is your result consistent with the literature (or the truth)?",
        points=("By how many of your uncertainties do they differ?",
                "Did you add the error of the published value?",
                "Is your uncertainty believable? What does the scatter of wide bins say?",
                "Was it measured in the same way, in the same filter?"),
    ),
    Question(
        "Q21a", "lightcurve", "What is the ratio of the radii of planet and star?",
        **truth("radius_ratio", 0.008, "transit"),  # Twelve nights scatter by 0.006.
        mistakes=((lambda t: (t["depth"] - 1e-3, t["depth_mid"] + 1e-3),
                   "This is the ratio of the areas."),),
        hint="The planet covers a part of the area of the star.",
    ),
    Question(
        "Q21b", "lightcurve",
        "Another planet covers 14.4 ± 1.2 ppt of the area of its star. How large is the error of "
        "the ratio of the radii?",
        **number(0.5 * 0.0012 / math.sqrt(0.0144), 0.01),
        mistakes=((lambda t: 0.0012, "That is the error of the ratio of the areas."),
                  (lambda t: 0.0012 / 0.12, "The power of the root is one half."),
                  (lambda t: math.sqrt(0.0012), "The error is not what the root is drawn from."),
                  (lambda t: 0.5 * 1.2 / 14.4, "That is the relative error.")),
        hint="The relative error of a root is half of that of what is under it.",
    ),
]  # fmt: skip
