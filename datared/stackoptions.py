"""What a night file says of stacks: on which grid, how interpolated, clipped and weighted."""

from dataclasses import dataclass

__all__ = ["StackOptions", "stack_problems"]

#: Texts of which one must be given.
CHOICES = {
    "grid": ("reference", "optimal"),
    "method": ("lanczos3", "bilinear"),
    "weights": ("noise", "seeing"),
    "sky": ("map", "plane", "level"),
}
#: Of numbers: lowest, highest, and what they are.
RANGES = {
    "clip": (0.0, 100.0, "standard deviations; 0 leaves nothing out"),
    "worst_seeing": (0.01, 100.0, "arcsec"),
    "least_light": (0.0, 1.0, "a fraction of the usual light"),
}


@dataclass(frozen=True)
class StackOptions:
    """How the frames of a filter become one image.

    Parameters
    ----------
    grid : str
        ``"reference"``: the pixels of the night's best frame; ``"optimal"``: north up, as large as
        all frames together, with the finest of their pixel scales.
    method : str
        How frames are interpolated: ``"lanczos3"`` (sharp) or ``"bilinear"`` (no ringing at bad
        pixels and saturated stars, but blurs), see `datared.resampling`.
    clip : float
        Values that differ from the others by more than this many standard deviations are left
        out; 0 leaves nothing out.
    weights : str
        ``"noise"``: frames count by their inverse variance. ``"seeing"``: divided by the square of
        their FWHM, too, for sharper stars.
    worst_seeing : float or None
        Frames with a FWHM above this (arcsec) are left out.
    least_light : float
        Frames whose stars have less than this share of their usual light are left out: clouds.
    sky : str
        What is subtracted from each frame: ``"map"`` (follows the sky in boxes of 128 pixels), or,
        where the frame holds extended light such as a galaxy, ``"plane"`` or ``"level"``.
    colour : tuple of str
        Three filters, or two, of the colour picture, from red to blue. Chosen from the night's
        where empty.
    """

    grid: str = "reference"
    method: str = "lanczos3"
    clip: float = 5.0
    weights: str = "noise"
    worst_seeing: float | None = None
    least_light: float = 0.6
    sky: str = "map"
    colour: tuple = ()


def stack_problems(options):
    """Say what is wrong with the ``[stack]`` table of a night file.

    Parameters
    ----------
    options : StackOptions
        The table as it was read.

    Returns
    -------
    list of str
        What was found and what is valid; one sentence each. Empty where all is well.
    """
    problems = [
        f"stack.{name} = {getattr(options, name)!r} must be one of {', '.join(choices)}"
        for name, choices in CHOICES.items()
        if getattr(options, name) not in choices
    ]
    for name, (low, high, words) in RANGES.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            problems.append(
                f"stack.{name} = {value!r} must be between {low:g} and {high:g} ({words})"
            )
    names = options.colour
    texts = all(isinstance(name, str) and name.strip() for name in names)
    if not texts or len(names) not in (0, 2, 3) or len(set(names)) < len(names):
        problems.append(
            f"stack.colour = {list(names)!r} must be a list of three or two filters from red to "
            'blue: ["i", "r", "g"] or ["V", "B"]'
        )
    return problems
