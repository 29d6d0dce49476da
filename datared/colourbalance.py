"""White balance: factors of the images of a colour picture that make one kind of star white.

A camera sees more of the light of one filter than of another. Where the zero points of the images
are known, a star like the Sun can be made white; where not, the typical star of the field is.
"""

import numpy as np

from .errors import DataredError, FrameError

__all__ = [
    "SUN",
    "catalogue_balance",
    "colour_balance",
    "sun_magnitude",
    "zero_point_balance",
]

#: Apparent magnitudes of the Sun by system and band. Only their differences are used.
#: Willmer (2018, ApJS 236, 47), table 3; their errors are 3 to 4 %.
SUN = {
    "Johnson Vega": {"U": -25.97, "B": -26.13, "V": -26.76},
    "Cousins Vega": {"R": -27.15, "I": -27.47},
    "Tycho Vega": {"BT": -25.99, "VT": -26.69},
    "SDSS AB": {"u": -25.18, "g": -26.47, "r": -26.93, "i": -27.05, "z": -27.07},
    "PS1 AB": {"g": -26.54, "r": -26.93, "i": -27.05, "z": -27.07, "y": -27.07},
}
SUN["Landolt Vega"] = SUN["Johnson Vega"] | SUN["Cousins Vega"]
#: With fewer stars than this a zero point is not trusted.
LEAST_STARS = 5


def sun_magnitude(band, system):
    """Magnitude of the Sun, whose colours are those of a white star.

    Parameters
    ----------
    band : str
        Name of the band, such as ``"V"``.
    system : str
        Its system, one of `datared.systems.SYSTEMS`. AB and Vega magnitudes of the Sun differ: by
        0.13 in B, by 0.41 in I.

    Returns
    -------
    float
        Apparent magnitude, from Willmer (2018, ApJS 236, 47), table 3; see `SUN`.

    Raises
    ------
    DataredError
        If the Sun is not known in this band and system.

    Examples
    --------
    >>> round(sun_magnitude("B", "Johnson Vega") - sun_magnitude("V", "Johnson Vega"), 2)
    0.63
    """
    try:
        return SUN[system][band]
    except KeyError:
        known = "; ".join(f"{name}: {' '.join(bands)}" for name, bands in SUN.items())
        raise DataredError(
            f"The Sun's magnitude in {band!r} of the system {system!r} is not known. "
            f"There are {known}."
        ) from None


def zero_point_balance(zero_points, *, white):
    r"""Factors that make a star of known magnitudes white, from the zero points of the images.

    With the zero point :math:`Z` (magnitude of a star of one count) and the magnitude :math:`m` of
    the white star in the same band, this star has :math:`10^{0.4 (Z - m)}` counts in an image. The
    factor is the inverse.

    Parameters
    ----------
    zero_points : sequence of float or None
        Zero points of the red, green and blue image; None for an image that is not there.
    white : sequence of float or None
        Magnitudes of the white star in the same bands and systems, see `sun_magnitude`. Each
        image may have another system, AB or Vega. A constant added to all changes nothing.

    Returns
    -------
    tuple of float
        Factors relative to the green image, or to the red one where there is no green; 1 for an
        image that is not there.

    Raises
    ------
    ValueError
        If the lengths differ or a number is not finite.

    Examples
    --------
    >>> zero_point_balance([25.0, 25.0, 22.5], white=[-27.0, -27.0, -27.0])
    (1.0, 1.0, 10.0)
    """
    if len(zero_points) != len(white):
        raise ValueError(f"{len(zero_points)} zero points, but {len(white)} magnitudes of white")
    known = [k for k, value in enumerate(zero_points) if value is not None]
    shifts = {k: float(zero_points[k]) - float(white[k]) for k in known}
    if not known or not np.isfinite(list(shifts.values())).all():
        raise ValueError(f"zero points {zero_points} and white {white}: all must be finite")
    anchor = shifts[1] if 1 in shifts else shifts[known[0]]
    return tuple(
        10 ** (0.4 * (anchor - shifts[k])) if k in shifts else 1.0 for k in range(len(zero_points))
    )


def catalogue_balance(fluxes, magnitudes, *, white):
    """Factors that make a star of known magnitudes white, from stars of known magnitudes.

    The zero point of each image is the median of magnitude plus 2.5 log10(flux) of its stars; then
    as `zero_point_balance`.

    Parameters
    ----------
    fluxes : sequence of (array-like of float of shape (n,), or None)
        Fluxes of the stars in the red, green and blue image; None for an image that is not there.
    magnitudes : sequence of (array-like of float of shape (n,), or None)
        Their magnitudes in the three bands, of a catalogue or of the night; NaN where not known.
    white : sequence of float or None
        Magnitudes of the white star, see `sun_magnitude`.

    Returns
    -------
    tuple of float
        Factors, see `zero_point_balance`.

    Raises
    ------
    FrameError
        If an image has fewer than five stars of known flux and magnitude.
    """
    zero_points = []
    for flux, magnitude in zip(fluxes, magnitudes, strict=True):
        if flux is None:
            zero_points.append(None)
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.asarray(magnitude, float) + 2.5 * np.log10(np.asarray(flux, float))
        values = values[np.isfinite(values)]
        if values.size < LEAST_STARS:
            raise FrameError(
                f"{values.size} stars have a flux and a magnitude, {LEAST_STARS} are needed"
            )
        zero_points.append(float(np.median(values)))
    return zero_point_balance(zero_points, white=white)


def colour_balance(red, green, blue):
    """Factors that make the typical star white: for images of which no zero point is known.

    Parameters
    ----------
    red, green, blue : array-like of float, shape (n,)
        Fluxes of the same stars in the three images.

    Returns
    -------
    tuple of float
        Factors of the three images: the median ratio of the fluxes to those in ``green``, inverted.

    Raises
    ------
    FrameError
        If no star has a positive flux in all three.

    Examples
    --------
    >>> colour_balance([4.0, 8.0], [2.0, 4.0], [1.0, 2.0])
    (0.5, 1.0, 2.0)
    """
    fluxes = np.asarray([red, green, blue], float)
    with np.errstate(invalid="ignore"):
        fluxes = fluxes[:, np.all(fluxes > 0, axis=0)]
    if not fluxes.size:
        raise FrameError("No star has a positive flux in all three images.")
    return tuple(float(np.median(fluxes[1] / band)) for band in fluxes)
