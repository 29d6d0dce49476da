"""The questions of the page on the camera itself. See `datared.questions`."""

import math

from .asking import Question, number

__all__ = ["CAMERA_QUESTIONS"]


def _near(value):
    """Range around a number that is measured on the page."""
    return 0.97 * value, 1.03 * value


def _cold(truth, *, electrons):
    """Temperatures (deg C) at which a dark of 600 s holds so many electrons: law and rule of thumb.

    The law of Arrhenius, and the doubling of -10 deg C at every temperature, differ by a kelvin
    where it is far from -10 deg C. Both are taught.
    """
    kelvin, doubling = 263.15, truth["doubling_temperature"]
    change = doubling * math.log2(600 * truth["dark_rate"] / electrons)
    return tuple(sorted((kelvin / (1 + change / kelvin) - 273.15, kelvin - change - 273.15)))


#: The questions in the order of the page.
CAMERA_QUESTIONS = [
    Question(
        "K1", "camera",
        "Two flats have the level 20 000 ADU above the bias. Their difference has the standard "
        "deviation 220 ADU, the read noise is 40 ADU. What is the gain, in e-/ADU?",
        **number(20_000 / (220**2 / 2 - 40**2), 0.01),
        mistakes=((lambda t: 20_000 / (220**2 - 40**2), "In a difference the noise is twice."),
                  (lambda t: 20_000 / (220**2 / 2), "The read noise is still in it."),
                  (lambda t: (220**2 / 2 - 40**2) / 20_000, "Turn it round: the slope is 1/gain."),
                  (lambda t: 20_000 / (220**2 / 2 - 40), "Square the read noise.")),
        hint="First the variance of one flat, then without that of the read-out.",
    ),
    Question(
        "K2", "camera",
        "How many ADU of light does a pixel of this camera need, so that the noise of the light is "
        "as large as the read noise?",
        unit="adu", answer=lambda t: t["read_noise"] ** 2 / t["gain"], tolerance=0.06,
        relative=True, needs="camera",
        mistakes=((lambda t: _near(t["read_noise"] ** 2), "That is in electrons."),
                  (lambda t: _near(t["read_noise"]), "Whose square root is the read noise?"),
                  (lambda t: _near((t["read_noise"] / t["gain"]) ** 2),
                   "That is the variance in ADU. Which level has this variance?"),
                  (lambda t: _near(t["read_noise"] / t["gain"]),
                   "That is the read noise. Which light has this noise?")),
        hint="In electrons it is simple: the variance of the light is its number of electrons.",
    ),
    Question(
        "K3", "camera",
        "By how many magnitudes differ two stars, if the brightest pixel of one just fills the "
        "full well and that of the other one is as faint as the read noise?",
        unit="mag", answer=lambda t: 2.5 * math.log10(t["full_well"] / t["read_noise"]),
        tolerance=0.06, needs="camera",
        mistakes=((lambda t: math.log2(t["full_well"] / t["read_noise"]),
                   "These are factors of two (stops), not magnitudes."),
                  (lambda t: math.log10(t["full_well"] / t["read_noise"]), "Where is the 2.5?"),
                  (lambda t: 2.5 * math.log10(t["full_well"] / t["gain"] / t["read_noise"]),
                   "One of your numbers is in ADU, the other one in electrons.")),
        hint="Take both in electrons. Their ratio is called the dynamic range.",
    ),
    Question(
        "K4", "camera",
        "The share of the light that a camera loses is proportional to the level: at 50 000 ADU it "
        "is 2 %. The brightest pixels of two stars have 40 000 and 4000 ADU. By how many "
        "magnitudes is the difference of these two pixels wrong?",
        unit="mag", **number(2.5 * math.log10((1 - 0.0016) / (1 - 0.016)), 0.02),
        mistakes=((lambda t: -2.5 * math.log10(1 - 0.016), "The faint star loses light as well."),
                  (lambda t: 0.016 - 0.0016, "Nearly: make a magnitude of it."),
                  (lambda t: -2.5 * math.log10(1 - 0.02), "At which levels are the pixels?")),
        hint="First the lost share of each of the two, then the ratio of what is left.",
    ),
    Question(
        "K5", "camera",
        "At which temperature, in degrees Celsius, does the dark current of 600 s have the same "
        "noise as the read-out of this camera?",
        answer=lambda t: _cold(t, electrons=t["read_noise"] ** 2), tolerance=0.5, needs="camera",
        mistakes=((lambda t: _cold(t, electrons=t["read_noise"]),
                   "The noise of electrons is the square root of their number."),
                  (lambda t: [-20 - end for end in _cold(t, electrons=t["read_noise"] ** 2)[::-1]],
                   "Colder or warmer? Less dark current is needed, or more?")),
        hint="How many electrons have this noise? How often must the current be halved for that?",
    ),
    Question(
        "K6", "camera",
        "The light on your flats is 1.5 % too bright at the right edge and 1.5 % too faint at the "
        "left. A star lies at the right edge before the meridian flip and at the left after it. "
        "By how many magnitudes does its light curve jump?",
        unit="mag", **number(2.5 * math.log10(1.015 / 0.985), 0.02),
        mistakes=((lambda t: 2.5 * math.log10(1.015), "That is one edge only."),
                  (lambda t: 0.03, "Nearly: make a magnitude of it.")),
        hint="The star is divided by the flat: by which number before, by which after the flip?",
    ),
    Question(
        "K7", "camera",
        "The flats of the evening and of the morning differ by a ring of 4 % near the middle of "
        "the frame. What do you do with the night?",
        points=("What makes a ring, and when did it come?",
                "Can the lights tell it? Does the sky of an early and of a late frame show it?",
                "Which flats fit to which frames? What does a mean of both do?",
                "Which stars are concerned, and by how much?"),
    ),
]  # fmt: skip
