"""The questions of the page on stacking. See `datared.questions`."""

import math

from .asking import Question, number

#: The questions in the order of the page.
STACK_QUESTIONS = [
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
    Question(
        "S3", "stack",
        "Why can no clipping tell which of two frames a satellite crossed? What would you do?",
        points=("What is the median of two numbers? How far from it is each of them?",
                "What do you know from outside these two pixels: the shape of a trail, the width "
                "of a star?",
                "What do the two frames lose if you mask the trail by hand before the mean?",
                "How many frames will you take the next time?"),
    ),
    Question(
        "S4", "stack",
        "An asteroid moves by ten pixels during your series. Where is it in the stack? How would "
        "you make a stack in which the asteroid is sharp?",
        points=("Does the asteroid lie on the same pixel of the grid in two of the frames?",
                "What does the clipping do with what only one frame shows?",
                "What if you shift the grid of each frame by the way of the asteroid?",
                "What happens to the stars then, and does the clipping help or harm?"),
    ),
    Question(
        "S5", "stack",
        "Three frames, brought to one scale, have a noise of 10, 10 and 20 ADU in a pixel. What is "
        "the noise of their best weighted mean, in ADU?",
        unit="adu", **number(1 / math.sqrt(2 / 10**2 + 1 / 20**2), 0.01),
        mistakes=((lambda t: math.sqrt(600) / 3, "That is the mean with equal weights."),
                  (lambda t: 10 / math.sqrt(2), "The third frame is noisy, but not worthless."),
                  (lambda t: math.sqrt(3) / 0.25, "The weights go with the square of the noise."),
                  (lambda t: 1 / (2 / 100 + 1 / 400), "That is the variance."),
                  (lambda t: 40 / 3 / math.sqrt(3), "The mean of the three noises is not what "
                   "counts: add up what each frame knows.")),
        hint="The weights are 1 / noise^2, and their sum is 1 / variance of the result.",
    ),
    Question(
        "S6", "stack",
        "A frame with pixels of 1.2 arcsec is laid on a grid with pixels of 0.9 arcsec. By which "
        "factor must its interpolated values be multiplied, so that a star keeps its light?",
        **number((0.9 / 1.2) ** 2, 0.01),
        mistakes=((lambda t: 0.75, "A pixel has a width and a height."),
                  (lambda t: (1.2 / 0.9) ** 2, "Turn it round: does a smaller pixel get more?"),
                  (lambda t: 1.2 / 0.9, "Turn it round, and a pixel has a width and a height.")),
        hint="How many of the new pixels share the light of an old one?",
    ),
    Question(
        "S7", "stack",
        "On one of 5 equal frames a trail stands 12 times the noise of a pixel above the sky. How "
        "many times the noise of the mean does it stand above the sky there, without clipping?",
        **number(12 / math.sqrt(5), 0.01),
        mistakes=((lambda t: 12, "The trail gets fainter in the mean, and so does the noise."),
                  (lambda t: 12 / 5, "In ADU it has this share. But the noise is smaller, too."),
                  (lambda t: 12 * math.sqrt(5), "Four of the five frames have no trail there.")),
        hint="Compute the trail and the noise of the mean, both in units of one frame's noise.",
    ),
    Question(
        "S8", "stack",
        "A camera has a gain of 1.5 electrons per ADU. You write the mean of 16 equal frames to a "
        "file. How many electrons stand behind one ADU of this file?",
        **number(24.0, 0.001),
        mistakes=((lambda t: 1.5, "That is one frame, or the sum of all."),
                  (lambda t: 1.5 / 16, "Turn it round: how many photons made one ADU of a mean?"),
                  (lambda t: 6.0, "That is how the noise goes. Count electrons.")),
        hint="How many electrons were counted in all, for one ADU that is left after dividing?",
    ),
]  # fmt: skip
