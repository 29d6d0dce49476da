"""The questions of the course: what is asked on which page, and how the right answer is found.

The answers are computed here from formulas, or from the truth of a simulated night; no page of the
book holds them. `datared.checks` compares.
"""

import math

from .asking import Question, number, truth
from .cameraquestions import CAMERA_QUESTIONS
from .resultquestions import RESULT_QUESTIONS
from .stackquestions import STACK_QUESTIONS
from .starquestions import STAR_QUESTIONS

__all__ = ["QUESTIONS", "Question"]

_ARCSEC = math.degrees(1) * 3600


def _bias_noise(truth):
    """Noise in ADU of a master bias: of the mean, and of the median, of the bias frames."""
    single = math.hypot(truth["read_noise"] / truth["gain"], 1 / math.sqrt(12))
    mean = single / math.sqrt(truth["n_bias"])
    return mean, math.sqrt(math.pi / 2) * mean


def _near(width):
    """Range of what is measured, or read from a figure."""
    return 0.96 * width, 1.04 * width


def _installed_samples():
    """Count the sample nights that the installed package knows."""
    from .samples import SAMPLES

    return len(SAMPLES)


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
        **number(22500, 0.0, hint="Each star on each frame in each aperture has one number."),
        mistakes=((lambda t: 4500, "That is one aperture only."),
                  (lambda t: 1500, "That is one frame only.")),
    ),
    Question(
        "Q1", "background",
        "What is the smallest angle that a telescope of 35 cm can separate at 700 nm, in arcsec?",
        unit="arcsec", **number(1.22 * 700e-9 / 0.35 * _ARCSEC),
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
        **number(10**0.4, 0.002), hint="Five magnitudes are exactly a factor of 100.",
        mistakes=((lambda t: 10**-0.4, "That is faint over bright: turn it round."),
                  (lambda t: math.e, "The logarithm of magnitudes has base 10, not e.")),
    ),
    Question(
        "Q3b", "background", "By how many magnitudes does a star change whose flux changes by 1 %?",
        unit="mag", **number(2.5 * math.log10(1.01), 0.012),
        mistakes=((lambda t: math.log10(1.01), "Where is the 2.5?"),
                  (lambda t: 0.01, "Nearly the same number, but not the same: use the logarithm.")),
        hint="Put 1.01 for the ratio of the fluxes.",
    ),
    Question(
        "Q3c", "background", "And by how many magnitudes for a change of 1 ppt (0.1 %)?",
        unit="mag", **number(2.5 * math.log10(1.001), 0.012),
        mistakes=((lambda t: math.log10(1.001), "Where is the 2.5?"),),
        hint="Put 1.001 for the ratio of the fluxes.",
    ),
    Question(
        "B1", "background",
        "Dark frames of 192 s still contain a bias of 1000 ADU. You scale them to a light of 96 s "
        "and subtract. How many ADU of the bias are left in the light?",
        unit="adu", **number((1 - 96 / 192) * 1000, 0.001),
        mistakes=((lambda t: 0, "Scale the bias in the dark as well: it is halved, too."),),
        hint="Write the light as bias plus signal, the dark as bias plus dark current.",
    ),
    Question(
        "B2", "background", "What is the airmass of a star 60 degrees from the zenith?",
        **number(1 / math.cos(math.radians(60)), 0.01),
        mistakes=((lambda t: 1 / math.cos(60), "Your cosine takes radians."),
                  (lambda t: math.cos(math.radians(60)), "Turn it round: the path is longer.")),
        hint="The air is nearly a flat layer.",
    ),
    Question(
        "B3", "background",
        "A star gives 10 000 electrons in an aperture of 50 pixels, the sky gives 30 electrons per "
        "pixel, the read noise is 5 electrons. What is the signal-to-noise ratio?",
        **number(1e4 / math.sqrt(1e4 + 50 * (30 + 25)), 0.005),
        mistakes=((lambda t: 100.0, "That is the star alone, without sky and read noise."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 50 * 25), "You forgot the sky."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 50 * 30), "You forgot the read noise."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 50 * (30 + 5)), "Square the read noise."),
                  (lambda t: 1e4 / math.sqrt(1e4 + 30 + 25), "Each of the 50 pixels adds noise.")),
        hint="Add variances, not standard deviations.",
    ),
    Question(
        "B4", "background", "What is the distance modulus of a cluster at 1000 pc without dust?",
        unit="mag", **number(10.0, 0.001), hint="m - M = 5 log10(d / pc) - 5.",
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
        "A1", "astrometry",
        "Which pixel scale follows from the size of a pixel and the focal length in the header, in "
        "arcsec per pixel?",
        unit="arcsec", **truth("header_scale", 0.001, "any"), relative=True,
        mistakes=((lambda t: 2 * t["header_scale"], "Does XPIXSZ count the binning already?"),
                  (lambda t: t["header_scale"] / 2, "Does XPIXSZ count the binning already?"),
                  (lambda t: t["pixel_scale"], "That is the scale that the stars tell.")),
        hint="Divide the two lengths, in the same unit: that is a small angle, in radians.",
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
        "A4", "astrometry",
        "A linear map is fitted to the stars in the middle of the frame. With which power of the "
        "distance from the middle do the residuals of the other stars grow?",
        answer=lambda t: 3, tolerance=0.5,
        mistakes=((lambda t: (1.6, 2.4),
                   "That is how the scale changes. The displacement is its sum over the way."),
                  (lambda t: (0.6, 1.4), "Then it would be a wrong scale, which the map removes.")),
        hint="Draw both on logarithmic axes, for stars far from the middle, and take the slope.",
    ),
    Question(
        "A5", "astrometry",
        "A linear map is fitted to 5 stars. How many equations are left over to test it?",
        answer=lambda t: 2 * 5 - 6, tolerance=0,
        mistakes=((lambda t: 10, "These are all equations. The unknowns take some of them."),
                  (lambda t: 5, "Each star gives two equations, one for each coordinate."),
                  (lambda t: 2, "That is one coordinate only."),
                  (lambda t: 7, "Each of the coordinates has its own three unknowns.")),
        hint="Count the equations of both coordinates, then the unknowns of both.",
    ),
    Question(
        "A6", "astrometry", "What is the FWHM of the stars on the frame of this page, in arcsec?",
        unit="arcsec", answer=lambda t: t["fwhm"] * t["pixel_scale"], tolerance=0.04,
        relative=True, needs="any",
        mistakes=((lambda t: _near(t["fwhm"]), "That is in pixels."),
                  (lambda t: _near(t["fwhm"] / t["pixel_scale"]),
                   "Multiply: a pixel sees some arcsec."),
                  (lambda t: _near(t["fwhm"] * t["pixel_scale"] / 2.3548),
                   "That is the sigma of the profile, not the full width at half of its height.")),
        hint="The table of detect has the width of each star; take the median of the clean ones.",
    ),
    Question(
        "A7", "astrometry",
        "The noise of one pixel is 10 ADU. How well do the empty pixels of a box of 64 x 64 px "
        "tell the level of the sky (their mean), in ADU?",
        unit="adu", **number(10 / 64, 0.03),
        mistakes=((lambda t: 10, "That is one pixel alone."),
                  (lambda t: 10 / 8, "The box has 64 x 64 pixels, not 64."),
                  (lambda t: 10 / 64**2, "Noise falls with the square root of the number.")),
        hint="A mean of N values is better than one value by the square root of N.",
    ),
    Question(
        "A8", "astrometry",
        "A frame of 1000 x 680 px holds 300 stars of the catalogue. How many of 40 sources at "
        "random places fall within 2 px of one of them, on average?",
        **number(40 * 300 * math.pi * 2**2 / (1000 * 680), 0.02),
        mistakes=((lambda t: 40 * 300 * 2**2 / 680e3, "Around each star there is a circle."),
                  (lambda t: 300 * math.pi * 2**2 / 680e3, "That is one source only."),
                  (lambda t: 40 * 300 * math.pi / 680e3, "The limit is the radius of the circle."),
                  (lambda t: 40 * math.pi * 2**2 / 680e3, "That is one star of the catalogue.")),
        hint="Which part of the frame lies so close to a star of the catalogue?",
    ),
]  # fmt: skip

#: Of the pages that go further: what varies and moves, and a real planet.
_FURTHER = [
    Question(
        "V1", "variables",
        "Of 200 constant stars, how many do you expect to be called variable, if each has a chance "
        "of 1 % to look so by accident?",
        **number(200 * 0.01, hint="Each star is one try."),
        mistakes=((lambda t: 1 - 0.99**200, "That is the chance that it happens at all."),
                  (lambda t: 0.01, "That is one star. You look at 200.")),
    ),
    Question(
        "V2", "variables", "What is the period of the variable star of the night, in minutes?",
        unit="min", answer=lambda t: 1440 * t["variable"]["period"], tolerance=0.03, relative=True,
        needs="transit",
        mistakes=((lambda t: _near(720 * t["variable"]["period"]),
                   "Fold the curve with your period: do all cycles look the same?"),
                  (lambda t: _near(2880 * t["variable"]["period"]),
                   "Fold the curve with your period: how many waves are in one period?"),
                  (lambda t: _near(t["variable"]["period"]), "That is in days.")),
        hint="Read the place of the highest peak of the periodogram.",
    ),
    Question(
        "V3", "variables", "How fast does the moving object move, in arcsec per minute?",
        answer=lambda t: t["mover"]["rate_per_minute"], tolerance=0.06, relative=True,
        needs="transit",  # With a ruler on the figure.
        mistakes=((lambda t: _near(t["mover"]["rate_per_minute"] / t["pixel_scale"]),
                   "That is in pixels per minute."),
                  (lambda t: _near(1.5 * t["mover"]["rate_per_minute"]),
                   "That is from one frame to the next: how many minutes lie between them?"),
                  (lambda t: _near(60 * t["mover"]["rate_per_minute"]),
                   "That is arcsec per hour.")),
        hint="Divide the whole way by the whole time. Did you multiply RA by cos(dec)?",
    ),
    Question(
        "V4", "variables",
        "An object moves 12 arcsec from one frame to the next. The matching radius is 2 arcsec. "
        "What does the clustering make of it, and how would you find it?",
        points=("How many neighbours does each of its detections have?",
                "What do you do with the detections that are in no cluster?",
                "How many of them lie by chance on a straight line, at the right times?"),
    ),
    Question(
        "H1", "hat-p-32",
        "An ephemeris has T0 known to 0.000049 d and a period of 2.150 d known to 0.00000013 d. "
        "How many years after T0 is the predicted time uncertain by one minute?",
        unit="yr",
        **number(2.15 * math.sqrt(1 / 1440**2 - 4.9e-5**2) / 1.3e-7 / 365.25, 0.02),
        mistakes=((lambda t: _near(1 / 1440 / 1.3e-7), "That is the number of periods."),
                  (lambda t: _near(1 / 1440 / 1.3e-7 / 365.25),
                   "That is the number of periods over 365.25: how long is a period?")),
        hint="The error of E times P is E times the error of P.",
    ),
    Question(
        "H2", "hat-p-32",
        "The star has 1.225 radii of the Sun, one radius of the Sun is 9.73 radii of Jupiter, and "
        "the planet takes away 2.25 % of the light. How many radii of Jupiter has the planet? "
        "(Leave limb darkening aside.)",
        **number(1.225 * 9.73 * math.sqrt(0.0225), 0.01),
        mistakes=((lambda t: 1.225 * 9.73 * 0.0225, "Light is covered by area, not by radius."),
                  (lambda t: 9.73 * math.sqrt(0.0225), "How large is the star?"),
                  (lambda t: 1.225 * math.sqrt(0.0225), "That is in radii of the Sun.")),
        hint="The depth is the ratio of the areas of the two discs.",
    ),
    Question(
        "H3", "hat-p-32", "Which part of your result would be better with flat frames, which not?",
        points=("What does a star do on the camera in this night?",
                "What would be left if the mount followed the sky perfectly?",
                "What does a flat do against the noise of the photons?"),
    ),
    Question(
        "H4", "hat-p-32",
        "Somebody fits all sets of columns to the whole curve, and keeps the one that makes the "
        "dip deepest. What happens to the depth, and to its error?",
        points=("How many sets are there? One of them gives the deepest dip by accident.",
                "Does the error of the fit know of the search?",
                "How could you test it on stars without a planet?"),
    ),
]  # fmt: skip

#: Every question by its name.
QUESTIONS = {
    question.id: question
    for question in [
        *_LIST, *STAR_QUESTIONS, *RESULT_QUESTIONS, *STACK_QUESTIONS, *CAMERA_QUESTIONS,
        *_FURTHER,
    ]
}  # fmt: skip
