"""Errors and warnings of the package: what callers may want to catch."""

__all__ = ["ConfigError", "DataredError", "DataredWarning", "FrameError", "SolveError"]


class DataredError(Exception):
    """Base of every error that the package raises on purpose."""


class ConfigError(DataredError):
    """A night file, an option or a folder is not usable.

    Parameters
    ----------
    *problems : str
        One sentence for each problem: what was found, what is valid, what to do.

    Attributes
    ----------
    problems : list of str
        The sentences, in the order in which they were found.
    """

    def __init__(self, *problems):
        self.problems = [str(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


class FrameError(DataredError):
    """One frame cannot be used; the message is the reason. The night goes on without it."""


class SolveError(FrameError):
    """No plate solution was found for one frame."""


class DataredWarning(UserWarning):
    """Something that a user should know, though the work goes on."""
