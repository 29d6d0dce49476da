"""Photon transfer: the gain of a camera from the noise of its flats."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["UNEVEN", "CameraNoise", "join_notes", "photon_transfer", "with_parts", "with_quarters"]

#: Less than this part of the variance that fainter levels promise is that of full pixels.
FALLEN = 0.8
#: Levels above this part of the first one whose variance has fallen are left out.
BELOW_TURN = 0.9
#: So many levels, which span such a factor, tell how the law bends.
BENT_LEVELS, BENT_SPAN = 5, 3.0
#: Cameras bend by about this part of the variance at the highest level: what the levels do not
#: tell is taken from here, so that a straight fit does not pretend to know.
BEND = 0.05
#: Gains of the quarters of a frame differ if it is by this part of them, and by so many deviations;
#: the note on them begins with these words.
DIFFERENT, DIFFERENT_SIGMA = 0.02, 5.0
UNEVEN = "the gain differs across the frame"


@dataclass(frozen=True, eq=False)
class CameraNoise:
    """Gain and read noise, and what they were measured from.

    Parameters
    ----------
    gain, gain_err : float
        Electrons per ADU, and its standard deviation; NaN where not measured.
    read_noise, read_noise_err : float
        Electrons.
    read_noise_adu, read_noise_adu_err : float
        The same in ADU, known without the gain.
    levels, variances, errors : numpy.ndarray of float, shape (n,)
        The points of the fit: ADU, ADU squared, and the deviations of the latter.
    used : numpy.ndarray of bool, shape (n,)
        Which of them took part.
    note : str
        What was left out or could not be measured, and why.
    curvature, curvature_err : float
        Of the law, in 1/ADU: 0 where it is a straight line.
    turnover, turnover_err : float
        ADU above the bias at which the variance is largest, since the pixels are full beyond; NaN
        where the levels do not reach it. Where the light is uneven it is too low by as much as the
        brightest parts are above the mean.
    converter : float
        ADU above the bias where the converter's numbers end: a flat has one and the same value in
        most pixels, without the read noise that full pixels have. NaN where no flat reaches it.
    quarters, quarters_err : numpy.ndarray of float, shape (2, 2)
        Gain of each quarter of the frame (lower rows and left columns first), NaN where not
        measured. The errors count that the law may bend, where the quarters differ in light.
    """

    gain: float = math.nan
    gain_err: float = math.nan
    read_noise: float = math.nan
    read_noise_err: float = math.nan
    read_noise_adu: float = math.nan
    read_noise_adu_err: float = math.nan
    levels: np.ndarray = field(default_factory=lambda: np.empty(0))
    variances: np.ndarray = field(default_factory=lambda: np.empty(0))
    errors: np.ndarray = field(default_factory=lambda: np.empty(0))
    used: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    note: str = ""
    curvature: float = 0.0
    curvature_err: float = math.nan
    turnover: float = math.nan
    turnover_err: float = math.nan
    converter: float = math.nan
    quarters: np.ndarray = field(default_factory=lambda: np.full((2, 2), np.nan))
    quarters_err: np.ndarray = field(default_factory=lambda: np.full((2, 2), np.nan))

    def law(self, levels):
        """Variance that the fitted law gives.

        Parameters
        ----------
        levels : array-like of float
            ADU above the bias.

        Returns
        -------
        numpy.ndarray of float
            ADU squared; NaN where the gain is not known.
        """
        levels = np.asarray(levels, float)
        noise = np.nan_to_num(self.read_noise_adu)
        return levels / self.gain * (1 + self.curvature * levels) + noise**2


def join_notes(*notes):
    """Make one text of several.

    Parameters
    ----------
    *notes : str
        Texts that may be empty.

    Returns
    -------
    str
        Those that are not, with semicolons between them.
    """
    return "; ".join(note for note in notes if note)


def with_quarters(whole, parts):
    """Add to the result of the frames those of their quarters.

    Parameters
    ----------
    whole : CameraNoise
        From the whole frames.
    parts : sequence of CameraNoise
        Those of the quarters: lower left, lower right, upper left, upper right.

    Returns
    -------
    CameraNoise
        With the gains of the quarters, and a note where they differ by more than 2 % and 5
        deviations, as those of several amplifiers do.
    """
    gains, errors = np.array([(part.gain, part.gain_err) for part in parts]).T
    for i, part in enumerate(parts):
        if part.used.any() and not part.curvature:
            # Where one quarter has more light, a bend that is not known looks like another gain.
            levels = [float(np.mean(one.levels[one.used])) for one in (part, whole)]
            bent = BEND / 2 * abs(levels[0] / levels[1] - 1) * gains[i]
            errors[i] = math.hypot(errors[i], bent)
    whole = replace(whole, quarters=gains.reshape(2, 2), quarters_err=errors.reshape(2, 2))
    return replace(whole, note=join_notes(whole.note, _quarters_note(whole)))


def with_parts(whole, results):
    """Add to the result of all flats what those of each filter tell of quarters and converter.

    Parameters
    ----------
    whole : CameraNoise
        From all levels together.
    results : sequence of CameraNoise
        Those of the filters.

    Returns
    -------
    CameraNoise
        With the weighted means of the quarters, and the note on them.
    """
    ends = [one.converter for one in results if math.isfinite(one.converter)]
    quarters = [(one.quarters, one.quarters_err) for one in results]
    gains, errors = np.array(quarters, float).reshape(-1, 2, 2, 2).swapaxes(0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(np.isfinite(gains + errors), 1 / errors**2, 0.0)
        mean = np.sum(weight * np.nan_to_num(gains), axis=0) / weight.sum(axis=0)
        error = weight.sum(axis=0) ** -0.5
    whole = replace(whole, quarters=mean, quarters_err=error, converter=min(ends, default=math.nan))
    return replace(whole, note=join_notes(whole.note, _quarters_note(whole)))


def _quarters_note(result):
    """Gains of the quarters, if they differ surely; else nothing."""
    gains, errors = result.quarters, result.quarters_err
    if not np.isfinite(gains + errors).any():
        return ""
    low, high = np.nanargmin(gains), np.nanargmax(gains)
    sure = DIFFERENT_SIGMA * math.hypot(errors.flat[low], errors.flat[high])
    if not gains.flat[high] - gains.flat[low] > max(sure, DIFFERENT * gains.flat[low]):
        return ""
    shown = " | ".join(" ".join(f"{gain:.3g}" for gain in row) for row in gains)
    return f"{UNEVEN}: {shown} e-/ADU in its quarters (first rows first): several amplifiers?"


def photon_transfer(levels, variances, *, errors=None, read_noise=None):
    r"""Gain and read noise from the noise of flats.

    .. math:: V = \frac{L}{g} (1 + c L) + R^2

    is fitted with weights. The law is straight (`c` = 0) for a linear camera. One that loses the
    part `a` of a level loses about 3 `a` of the variance, and charge that is pushed into the
    neighbours of a bright pixel makes the noise less, too. So `c` is fitted where five levels or
    more span a factor of 3, with 0 and 5 % of the highest variance as what is known before: the
    gain is that of faint light. A level whose variance falls below 80 % of what the fainter
    ones promise is saturated; it is left out, and so are those just below the turn of the curve.

    Parameters
    ----------
    levels, variances : array-like of float, shape (n,)
        From `pair_variance`: ADU above the bias, and ADU squared.
    errors : array-like of float, shape (n,), optional
        Standard deviations of the variances. Without them all have the same relative one, found
        from the residuals.
    read_noise : float or (float, float), optional
        Read noise in ADU (and its error) from `read_noise`; it counts as a point at level 0. A
        single level needs it.

    Returns
    -------
    CameraNoise
        With errors of one standard deviation, larger where the points scatter by more than theirs.

    Raises
    ------
    ValueError
        If the columns differ in length, or one level comes without read noise.

    References
    ----------
    Janesick, Scientific Charge-Coupled Devices (SPIE 2001), chapter 2 (the law, its turn at the
    full well); Astier et al. 2019, A&A 629, A36 (why the curve bends).

    Examples
    --------
    >>> result = photon_transfer([1000, 2000, 4000], [525, 1025, 2025])
    >>> round(result.gain, 3), round(result.read_noise, 3)
    (2.0, 10.0)
    """
    levels, variances = (np.atleast_1d(one).astype(float) for one in (levels, variances))
    relative = errors is None
    errors = 0.01 * variances if relative else np.atleast_1d(errors).astype(float)
    if not levels.shape == variances.shape == errors.shape:
        raise ValueError(
            f"{levels.size} levels, {variances.size} variances and {errors.size} errors: give one "
            "of each for each pair of flats."
        )
    noise, noise_err = (read_noise, 0.0) if np.ndim(read_noise) == 0 else read_noise
    noise, noise_err = (
        None if noise is None or math.isnan(noise) else noise,
        float(np.nan_to_num(noise_err)),
    )
    if noise is None and levels.size == 1:
        raise ValueError(
            "one level cannot tell the gain from the read noise: give read_noise from two bias "
            "frames, or flats of a second level."
        )
    used, note = _unsaturated(levels, variances, errors, noise)
    points = {"levels": levels, "variances": variances, "errors": errors}
    if noise is not None:
        points |= {"read_noise_adu": noise, "read_noise_adu_err": noise_err}
    points["turnover"], points["turnover_err"], end = _turnover(levels, variances, used)
    # Just below the full well its edge cuts the noise, and some pixels are full already.
    points["used"] = used = used & (levels <= BELOW_TURN * end)
    x, y, sigma = levels[used], variances[used], errors[used]
    if not x.size:
        return CameraNoise(**points, note=join_notes(note, "no level is left that can be used"))
    if noise is None and np.unique(x).size == 1:
        text = "one level is left: give read_noise from two bias frames, or flats of a second level"
        return CameraNoise(**points, note=join_notes(note, text))
    follows, bent = np.full(x.size, relative), _may_bend(x)
    if noise is not None:
        # A point at level 0; without an error of its own it is as good as exact.
        least = max(2 * noise * noise_err, noise_err**2, 1e-6 * y.min())
        x, y, sigma = np.append(x, 0.0), np.append(y, noise**2), np.append(sigma, least)
        follows = np.append(follows, False)
    curve = _line(x, y, sigma, follows, terms="lcb" if bent else "lc")
    if not curve[0][0] > 0:
        text = "the variance does not grow with the level: take flats of levels further apart"
        text += ", and two bias frames" if noise is None else ""
        return CameraNoise(**points, note=join_notes(note, text))
    if not curve[0][1] > 0:
        note = join_notes(note, "these levels do not tell the read noise")
        curve = _line(x, y, sigma, follows, terms="l")
    (slope, square, bend), covariance = curve
    gain, adu = 1 / slope, math.sqrt(square)
    # The error of a square that is near 0 is that of the root itself.
    half = 1 / max(2 * adu, covariance[1, 1] ** 0.25) if adu else math.nan
    # Errors of 1 / slope, sqrt(square), their product, and bend / slope.
    jacobian = np.array(
        [
            [-(gain**2), 0, 0],
            [0, half, 0],
            [-adu * gain**2, half * gain, 0],
            [-bend * gain**2, 0, gain],
        ]
    )
    gain_err, adu_err, err, bend_err = np.sqrt(np.diag(jacobian @ covariance @ jacobian.T)).tolist()
    if not adu and noise is not None:
        adu_err, err = noise_err, gain * noise_err
    points |= {"read_noise_adu": adu, "read_noise_adu_err": adu_err}
    result = CameraNoise(gain, gain_err, gain * adu, err, **points, note=note)
    return replace(result, curvature=bend * gain, curvature_err=bend_err) if bend else result


def _may_bend(levels):
    """Whether there are levels enough to tell a curve from a line."""
    enough = np.unique(levels).size >= BENT_LEVELS
    return enough and levels.max() > BENT_SPAN * levels.min()


def _turnover(levels, variances, used):
    """Level with the largest variance, its error, and the first level at which it has fallen."""
    top = levels[used][np.argmax(variances[used])] if used.any() else math.nan
    above = levels[~used & np.isfinite(variances) & (levels > top)]
    if not above.size:
        return math.nan, math.nan, math.inf
    below = levels[used & (levels < top)].max(initial=0.0)
    # The turn lies somewhere between the neighbours of the largest variance that was measured.
    return float(top), float(above.min() - below) / math.sqrt(12), float(above.min())


def _unsaturated(levels, variances, errors, noise):
    """Which levels have the variance that the fainter ones promise, and a note on the others."""
    used = np.isfinite(levels) & (levels > 0) & (variances > 0) & (errors > 0)
    silent = ~used
    for i in np.argsort(levels):
        below = used & (levels < levels[i])
        if not (used[i] and below.any()):
            continue
        if noise is None:
            promised = variances[below].max()
        else:
            slope = np.median((variances[below] - noise**2) / levels[below])
            promised = noise**2 + slope * levels[i]
        used[i] = variances[i] > min(FALLEN * promised, promised - 4 * errors[i])
    left = (
        ("the variance falls", ~used & ~silent),
        ("without noise or light (full, or copies of one frame)", silent),
    )
    texts = [
        f"left out, {why}: {', '.join(f'{level:.0f}' for level in levels[which])} ADU"
        for why, which in left
        if which.any()
    ]
    return used, join_notes(*texts)


def _line(x, y, sigma, follows, *, terms):
    """Coefficients of x, 1 and x^2 and their covariance; some errors are 1 % of the fitted line.

    What is not among the terms (l, c, b) stays 0; the bend is known to be small before.
    """
    scale = np.array([x.max(), 1.0, x.max() ** 2])
    wanted = np.array([term in terms for term in "lcb"])
    design = np.stack([x, np.ones_like(x), x**2], axis=1) / scale * wanted
    before = np.diag([0.0, 0.0, 1 / (BEND * y.max()) ** 2 if wanted[2] else 0.0])
    for _ in range(3 if np.any(follows) else 1):
        inverse = np.linalg.pinv((design / sigma[:, None] ** 2).T @ design + before)
        parameters = inverse @ (design.T @ (y / sigma**2))
        model = design @ parameters
        sigma = np.where(follows & (model > 0), 0.01 * model, sigma)
    free = x.size - len(terms)
    square = float(np.sum(((y - model) / sigma) ** 2)) / free if free > 0 else math.nan
    # Points that scatter by more than their errors have larger ones; relative ones are unknown.
    factor = square if np.any(follows) else np.fmax(square, 1.0)
    return (parameters / scale).tolist(), inverse * factor / np.outer(scale, scale)
