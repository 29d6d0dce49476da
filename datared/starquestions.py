"""The questions of the pages on measuring stars: apertures, shapes. See `datared.questions`."""

import math

from .asking import Question, measured, number

#: The questions in the order of the pages.
STAR_QUESTIONS = [
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
        "P3", "photometry",
        "How large is the scatter, in per cent, of the mean flux after the meridian flip over that "
        "before, of the stars without flags and with S/N > 100 on all frames in r?",
        unit="percent", **measured("flip_scatter", 0.25), relative=True,
        mistakes=((lambda t: (0.6 * t["flip_scatter"], 0.72 * t["flip_scatter"]),
                   "The MAD alone is not yet a standard deviation."),
                  (lambda t: (1.28 * t["flip_scatter"], 4 * t["flip_scatter"]),
                   "Too wide. Leave out what has a flag on any of these frames; use the MAD.")),
        hint="Divide each ratio by the median of all ratios. A few wild stars must not count.",
    ),
    Question(
        "P4", "photometry",
        "In how many per cent of the good measurements (default radius, no flag, S/N > 5) do the "
        "photons of the star make more than half of the variance?",
        unit="percent", **measured("photons_rule", 1.0),
        mistakes=((lambda t: 100 - t["photons_rule"], "These are those where they do not."),),
        hint="Compare flux / gain with half of flux_err squared, for all stars and frames.",
    ),
    Question(
        "P5", "photometry",
        "How many per cent of all measurements (stars times frames) have the flag neighbour in the "
        "largest radius?",
        unit="percent", **measured("neighbours_large", 0.3),
        mistakes=((lambda t: t["neighbours_small"], "That is the smallest radius."),),
        hint="The flags are bits: take the one of the neighbour out with the operator &.",
    ),
    Question(
        "P6", "photometry",
        "Which aperture correction leads on the first frame from the smallest radius of the table "
        "to the next larger one, in magnitudes?",
        unit="mag", **measured("correction", 0.005),
        mistakes=((lambda t: t["correction_largest"], "That leads to the largest radius."),
                  (lambda t: 10 ** (0.4 * t["correction"]), "That is the share of the light."),
                  (lambda t: t["correction"] / 2.5, "Where is the 2.5?")),
        hint="Take the bright stars without a flag in any radius, and the median of all of them.",
    ),
    Question(
        "P7", "photometry",
        "An aperture has 50 pixels. Each holds 60 electrons of the sky and 10 of the dark current, "
        "and the read noise is 5 electrons. How many electrons come from a star whose own noise is "
        "as large as that of the 50 pixels?",
        **number(50 * (60 + 10 + 5**2), 0.005),
        mistakes=((lambda t: 50 * (60 + 10 + 5), "Square the read noise."),
                  (lambda t: 50 * (60 + 5**2), "You forgot the dark current."),
                  (lambda t: 60 + 10 + 5**2, "Each of the 50 pixels adds noise."),
                  (lambda t: math.sqrt(50 * 95), "That is the noise. Which light has this noise?")),
        hint="Compare variances. The variance of counted light is its number of electrons.",
    ),
    Question(
        "P8", "photometry",
        "A constant star has a reduced chi-square of 2.25 over many frames. By which factor are "
        "its error bars too small, if nothing else is wrong?",
        **number(math.sqrt(2.25), 0.01),
        mistakes=((lambda t: 2.25, "The chi-square is made of squares."),
                  (lambda t: 1 / 1.5, "Turn it round: they must become larger."),
                  (lambda t: 2.25**2, "Do not square it again: it is made of squares already.")),
        hint="The chi-square is the mean of the squared pulls. How wide are the pulls?",
    ),
    Question(
        "PSF1", "psf",
        "Two stars of the same flux on a bright sky have the overlap 0.6. By which factor is the "
        "error bar of each larger than that of a star that stands alone?",
        **number(1 / math.sqrt(1 - 0.6**2), 0.01),
        mistakes=((lambda t: 1 / (1 - 0.6**2), "That is the factor of the variance."),
                  (lambda t: 1 / math.sqrt(1 - 0.6), "The overlap enters with its square."),
                  (lambda t: 1 / (1 - 0.6), "Look at the covariance matrix once more."),
                  (lambda t: math.sqrt(1 - 0.6**2), "Turn it round: the error bar grows.")),
        hint="The variance is on the diagonal of the covariance matrix; an error bar is its root.",
    ),
    Question(
        "PSF2", "psf",
        "For two stars the sums of p1 p1 and of p2 p2 are 0.05, that of p1 p2 is 0.025; the sums "
        "of p1 D and p2 D are 500 and 400 ADU. What is the flux of star 1, in ADU?",
        unit="adu", answer=lambda t: 8000.0, tolerance=1.0,
        mistakes=((lambda t: 10000.0, "That takes the light of star 2 for that of star 1."),
                  (lambda t: 4000.0, "That is star 2."),
                  (lambda t: 6000.0, "Divide by the determinant of the matrix.")),
        hint="Two equations: 0.05 F1 + 0.025 F2 = 500 and 0.025 F1 + 0.05 F2 = 400.",
    ),
    Question(
        "PSF3", "psf",
        "120 of 150 artificial stars are found: the completeness is 0.80. What is its error bar?",
        **number(math.sqrt(0.8 * 0.2 / 150), 0.02),
        mistakes=((lambda t: math.sqrt(120) / 150,
                   "That would be right for a count without an upper end; here it is 150 at most."),
                  (lambda t: 0.8 * 0.2 / 150, "That is the variance."),
                  (lambda t: math.sqrt(0.8 * 0.2 * 150),
                   "That is the error of the number of stars, not of the share.")),
        hint="Each star is found or not: the variance of a share p of n stars is p (1 - p) / n.",
    ),
    Question(
        "PSF4", "psf",
        "Why are only few artificial stars added to one copy of the frame, far from each other?",
        points=("Which stars decide how hard it is to find a faint one?",
                "What changes if the artificial stars are as dense as the real ones, or denser?",
                "Is the share that you find then too small or too large for the true sky?"),
    ),
    Question(
        "PSF5", "psf",
        "The model of the stars is too wide by a tenth. What do you see in the residual, and what "
        "happens to the fluxes of single stars and of pairs?",
        points=("Is light left over in the middle of a bright star, and in the ring around it?",
                "Do the fluxes of all single stars change by the same factor?",
                "To which star of a pair does the fit give the light of the other one's wings?",
                "Which number of the table tells you of a wrong model?"),
    ),
]  # fmt: skip
