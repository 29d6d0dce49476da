"""Least squares of a curve: any shape times a baseline that is linear in its coefficients."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

__all__ = ["Curve", "TransitFit", "fit_shape"]


@dataclass(frozen=True, eq=False)
class TransitFit:
    """Result of `datared.transitfit.fit_trapezoid` or `datared.transitfit.fit_transit`.

    Attributes
    ----------
    values, errors : dict of str to float
        Parameters of the model and their standard errors (nan for a parameter that was held, or
        that ended at the edge of its range). Times in days. Always there: ``mid_time``, ``depth``
        (relative flux), ``duration``, ``start`` and ``end`` (first and last contact) and
        ``radius_ratio`` (for the trapezoid sqrt(depth), nan when the depth is not positive).
    baseline : numpy.ndarray, shape (k,)
        Coefficients of the baseline columns, the constant first.
    model, residuals : numpy.ndarray, shape (n,)
        Model flux with baseline at all times, nan where there is none, and flux minus model.
    used : numpy.ndarray of bool, shape (n,)
        Points that took part (finite, with a positive error).
    residual_scatter : float
        Standard deviation of the residuals of the used points, relative flux, with the degrees of
        freedom taken off.
    error_scale : float
        Factor by which the errors were enlarged, ``max(1, sqrt(chi2 / dof))``.
    chi2, dof : float, int
        Of the fit, with the errors as they were given.
    delta_chi2, delta_bic : float
        Chi-square and Bayesian information criterion without a transit minus those with it, both
        with the enlarged errors. A transit is convincing when ``delta_bic`` is above 10.
    significant : bool
        ``delta_bic > 10`` and a positive depth.
    complete : bool
        First and last contact are both inside the observed times. If not, the duration hangs on
        the shape of one flank: hold it at a literature value (``fixed``).
    """

    values: dict
    errors: dict
    baseline: np.ndarray
    model: np.ndarray
    residuals: np.ndarray
    used: np.ndarray
    residual_scatter: float
    error_scale: float
    chi2: float
    dof: int
    delta_chi2: float
    delta_bic: float
    significant: bool
    complete: bool


def filled(values):
    """Return values as an array of float, nan where they are masked."""
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)


class Curve:
    """The used points of a light curve, and the columns of its baseline.

    Parameters
    ----------
    time, flux : array_like of float, shape (n,)
        Times (days) and relative flux. Points that are not finite, or masked, are not used.
    flux_err : float or array_like of float, shape (n,)
        Standard errors of the flux; points without a positive one are not used.
    baseline : array_like of float, shape (n,) or (n, k), or None
        Columns of the baseline beside the constant; they are shifted to zero mean.

    Raises
    ------
    ValueError
        When shapes differ, too few points can be used, they are all of one time, or the times have
        lost their digits.
    """

    def __init__(self, time, flux, flux_err, baseline):
        _check_digits(time)
        self.time, self.flux, error = (filled(v) for v in (time, flux, flux_err))
        if self.time.ndim != 1 or self.time.shape != self.flux.shape:
            raise ValueError(f"time {self.time.shape} and flux {self.flux.shape} must be (n,)")
        if error.ndim and error.shape != self.flux.shape:
            raise ValueError(f"flux_err {error.shape} must be one number or {self.flux.shape}")
        self.error = np.broadcast_to(error, self.flux.shape)
        columns = np.empty((self.time.size, 0)) if baseline is None else filled(baseline)
        columns = columns[:, None] if columns.ndim == 1 else columns
        if columns.ndim != 2 or len(columns) != self.time.size:
            raise ValueError(
                f"the columns of the baseline {columns.shape} must be ({self.time.size}, k)"
            )
        used = np.isfinite(self.time) & np.isfinite(self.flux) & np.isfinite(self.error)
        self.used = used & (self.error > 0) & np.isfinite(columns).all(axis=1)
        if not self.used.sum() > columns.shape[1] + 2:
            raise ValueError(f"only {self.used.sum()} of {self.time.size} points can be used")
        columns = columns - columns[self.used].mean(axis=0)
        self.columns = np.column_stack([np.ones(self.time.size), columns])
        # Columns of any unit are solved for alike.
        sizes = np.abs(self.columns[self.used]).max(axis=0)
        self.sizes = np.where(sizes > 0, sizes, 1.0)
        self.first, self.last = self.time[self.used].min(), self.time[self.used].max()
        self.span = self.last - self.first
        if not self.span > 0:
            raise ValueError(f"all {self.used.sum()} points are of the time {self.first:.6f}")

    def solve(self, shape):
        """Return baseline coefficients and weighted residuals of the used points."""
        weight = 1.0 / self.error[self.used]
        design = (self.columns[self.used] / self.sizes * shape[:, None]) * weight[:, None]
        target = self.flux[self.used] * weight
        coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
        return coefficients / self.sizes, target - design @ coefficients


def _check_digits(time):
    """Raise ValueError where times are stored too coarsely to tell two epochs apart."""
    kind = np.ma.asarray(time).dtype
    if kind.kind == "f" and kind.itemsize < 8 and np.ma.count(time):
        step = float(np.spacing(np.ma.max(np.ma.abs(time))))
        if not step < 1e-5:
            raise ValueError(f"times as {kind} have steps of {step:.2g} d here; give float64")


def fit_shape(data, model, *, starts, limits, fixed, numbers):
    """Fit ``flux = (baseline) * model(time, parameters)`` by variable projection.

    The baseline is solved for at every step by linear least squares, so that only the parameters
    of the shape are searched.

    Parameters
    ----------
    data : Curve
        The light curve.
    model : callable
        ``model(time, parameters)`` with a dict of parameters, returning the shape.
    starts : list of dict
        First guesses; the six with the lowest chi-square are followed.
    limits : dict of str to tuple
        For each parameter: lowest value, highest value, step of the numerical derivative.
    fixed : tuple of str
        Parameters that keep the value of their start.
    numbers : callable
        ``numbers(parameters)`` returns a dict of derived values, which get errors too.

    Returns
    -------
    dict
        ``values, errors, baseline, model, residuals, used, residual_scatter, error_scale, chi2,
        dof, delta_chi2, delta_bic`` as described in `datared.transitfit.TransitFit`.

    Raises
    ------
    ValueError
        When a name in ``fixed`` is unknown, or nothing is free.
    """
    unknown = set(fixed) - set(limits)
    if unknown:
        raise ValueError(f"fixed: unknown {sorted(unknown)}; valid are {sorted(limits)}")
    free = [name for name in limits if name not in fixed]
    if not free:
        raise ValueError(f"all of {', '.join(limits)} are fixed: nothing is left to fit")
    low, high, step = (np.array([limits[name][k] for name in free]) for k in range(3))
    time = data.time[data.used]

    def shape(x, start):
        return model(time, {**start, **dict(zip(free, x, strict=True))})

    def jacobian(function, x):
        columns = []
        for k, h in enumerate(step):
            up, down = x.copy(), x.copy()
            up[k], down[k] = min(x[k] + h, high[k]), max(x[k] - h, low[k])
            columns.append((function(up) - function(down)) / (up[k] - down[k]))
        return np.array(columns).T

    def vector(start):
        return np.clip([start[name] for name in free], low + 2 * step, high - 2 * step)

    ranked = sorted(starts, key=lambda s: np.sum(data.solve(shape(vector(s), s))[1] ** 2))
    best = None
    for start in ranked[:6]:

        def residuals(x, start=start):
            return data.solve(shape(x, start))[1]

        trial = least_squares(
            residuals, vector(start), bounds=(low, high), x_scale=100 * step,
            jac=lambda x, f=residuals: jacobian(f, x), ftol=1e-10, xtol=1e-10,
        )  # fmt: skip
        if best is None or trial.cost < best[0].cost:
            best = trial, start
    result, start = best
    return _collect(data, model, result.x, start, free, low, high, step, jacobian, numbers)


def _collect(data, model, x, start, free, low, high, step, jacobian, numbers):
    """Return the result at the solution ``x``: covariance, errors, significance."""
    time = data.time[data.used]
    weight = 1.0 / data.error[data.used]
    k = len(free)

    def parameters(y):
        return {**start, **dict(zip(free, y, strict=True))}

    coefficients, residuals = data.solve(model(time, parameters(x)))
    chi2 = float(np.sum(residuals**2))
    size = residuals.size
    dof = max(size - k - coefficients.size, 1)
    scale = max(1.0, np.sqrt(chi2 / dof))
    level = (data.columns[data.used] @ coefficients) * weight
    by_shape = jacobian(lambda y: model(time, parameters(y)), x) * level[:, None]
    by_base = data.columns[data.used] * (model(time, parameters(x)) * weight)[:, None]
    full = np.column_stack([by_shape, by_base])
    # A parameter at the edge of its range, or without influence, has no error.
    inside = (x > low + step) & (x < high - step) & (np.abs(by_shape).max(axis=0) > 0)
    keep = np.concatenate([inside, np.ones(coefficients.size, dtype=bool)])
    covariance = np.full((keep.size, keep.size), np.nan)
    # In units of their sizes none of the parameters is lost in the rounding of the others.
    sizes = np.linalg.norm(full[:, keep], axis=0)
    sizes = np.where(sizes > 0, sizes, 1.0)
    part = full[:, keep] / sizes
    inverse = np.linalg.pinv(part.T @ part) / np.outer(sizes, sizes)
    covariance[np.ix_(keep, keep)] = inverse * scale**2

    values = parameters(x)
    errors = dict.fromkeys(values, np.nan)
    errors.update(zip(free, _root(np.diag(covariance)[:k]), strict=True))
    derived = numbers(values)
    gradient = jacobian(lambda y: np.array(list(numbers(parameters(y)).values())), x)
    for name, row in zip(derived, gradient, strict=True):
        moves = row != 0
        variance = row[moves] @ covariance[:k, :k][np.ix_(moves, moves)] @ row[moves]
        errors[name] = _root(variance) if moves.any() else np.nan
    values = {name: float(value) for name, value in {**values, **derived}.items()}
    errors = {name: float(value) for name, value in errors.items()}
    null = float(np.sum(data.solve(np.ones(size))[1] ** 2))
    delta_chi2 = (null - chi2) / scale**2
    delta_bic = delta_chi2 - k * np.log(size)
    everywhere = np.where(np.isfinite(data.time), data.time, data.first)
    curve = (data.columns @ coefficients) * model(everywhere, parameters(x))
    curve[~np.isfinite(data.time)] = np.nan
    rest = data.flux - curve
    return {
        "values": values,
        "errors": errors,
        "baseline": coefficients,
        "model": curve,
        "residuals": rest,
        "used": data.used,
        "residual_scatter": float(np.sqrt(np.sum(rest[data.used] ** 2) / dof)),
        "error_scale": float(scale),
        "chi2": chi2,
        "dof": dof,
        "delta_chi2": float(delta_chi2),
        "delta_bic": float(delta_bic),
    }


def _root(variance):
    """Return the square root; nan where rounding left a singular variance below zero."""
    variance = np.asarray(variance)
    return np.sqrt(np.where(variance > 0, variance, np.nan))
