"""What a night file says of a planet: when its transits are, and what is known of its orbit."""

import math
from dataclasses import dataclass

__all__ = ["COLUMNS", "TransitOptions", "transit_problems"]

#: Columns of a light curve that can describe what is not the planet, see `datared.detrending`.
COLUMNS = ("time", "time2", "airmass", "fwhm", "x", "y", "sky", "flip")

#: Of numbers: lowest, highest, and what they are. Of pairs: the ranges of the two.
RANGES = {
    "t0": (2.4e6, 2.6e6, "a full Julian date, BJD_TDB"),
    "t0_err": (0.0, 10.0, "days"),
    "period": (0.05, 1e5, "days"),
    "period_err": (0.0, 10.0, "days"),
    "radius_ratio": (0.001, 0.5, "radii of the star"),
    "limb_darkening_err": (1e-6, 1.0, "of each coefficient, above 0"),
}
PAIRS = {
    "scaled_axis": ((1.01, 1000.0), (1e-6, 1000.0), "value and error of a/R*"),
    "impact": ((0.0, 1.5), (1e-6, 1.5), "value and error, in radii of the star"),
    "limb_darkening": ((-1.0, 2.0), (-1.0, 1.0), "the coefficients u1 and u2 of the quadratic law"),
}
NEEDED = ("t0", "period", "scaled_axis", "impact", "limb_darkening")


@dataclass(frozen=True)
class TransitOptions:
    """The planet of the target, as it was published. Without it only a trapezoid is fitted.

    What is measured has no such prior: neither the mid-time nor the radius of the planet.

    Parameters
    ----------
    t0, t0_err : float or None, float
        Mid-time of one transit and its standard error (BJD_TDB, days).
    period, period_err : float or None, float
        Period of the orbit and its standard error (days).
    scaled_axis : tuple of float
        Semi-major axis in radii of the star, and its standard error: a normal prior.
    impact : tuple of float
        Impact parameter in radii of the star, and its standard error: a normal prior.
    limb_darkening : tuple of float
        Coefficients u1 and u2 of the quadratic law in the filter of the night: normal priors.
    limb_darkening_err : float
        Standard error of each of the two.
    radius_ratio : float or None
        Published radius of the planet in radii of the star. It is used for the window that is
        kept out of choices (there 0.1 where none is published), and to compare with; never in the
        fit.
    columns : tuple of str
        Columns of the light curve in the fit beside a constant: ``time``, ``time2``, ``airmass``,
        ``fwhm``, ``x``, ``y``, ``sky``, ``flip``. Chosen out of transit where empty.
    reference : str
        Where the numbers are from, for tables and figures.
    """

    t0: float | None = None
    t0_err: float = 0.0
    period: float | None = None
    period_err: float = 0.0
    scaled_axis: tuple = ()
    impact: tuple = ()
    limb_darkening: tuple = ()
    limb_darkening_err: float = 0.1
    radius_ratio: float | None = None
    columns: tuple = ()
    reference: str = ""

    @property
    def known(self):
        """bool: Whether the night file says when transits are and what the orbit is."""
        return self.period is not None


def transit_problems(options):
    """Say what is wrong with the ``[transit]`` table of a night file.

    Parameters
    ----------
    options : TransitOptions
        The table as it was read; it was there.

    Returns
    -------
    list of str
        What was found, what is valid, what to do; one sentence each. Empty where all is well.
    """
    problems = [
        f"transit.{name} is missing: a table [transit] needs {', '.join(NEEDED)}"
        for name in NEEDED
        if getattr(options, name) in (None, ())
    ]
    for name, (low, high, words) in RANGES.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            problems.append(
                f"transit.{name} = {value!r} must be between {low:.7g} and {high:.7g} ({words})"
            )
    for name, (*ranges, words) in PAIRS.items():
        values = getattr(options, name)
        if values != () and not _inside(values, ranges):
            shown = " and ".join(f"{low:g} to {high:g}" for low, high in ranges)
            problems.append(
                f"transit.{name} = {list(values)!r} must be two numbers: {words} ({shown})"
            )
    unknown = [name for name in options.columns if name not in COLUMNS]
    if unknown:
        problems.append(f"transit.columns: {unknown!r} is unknown; valid: {', '.join(COLUMNS)}")
    twice = [name for name in dict.fromkeys(options.columns) if options.columns.count(name) > 1]
    if twice:
        problems.append(f"transit.columns: {twice!r} is named twice; name each column once")
    return problems


def _inside(values, ranges):
    """Whether there are as many numbers as ranges, each in its own."""
    if len(values) != len(ranges):
        return False
    for value, (low, high) in zip(values, ranges, strict=True):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and low <= value <= high):
            return False
    return True
