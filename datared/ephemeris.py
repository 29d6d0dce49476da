"""When a planet transits: the linear ephemeris, and how far from it a measured time lies."""

from dataclasses import dataclass

import numpy as np

from .transit import in_days

__all__ = ["Ephemeris"]

MINUTES = 1440.0  # of a day
FARTHEST = 36525.0  # days; further off, the two times are surely on different scales
CERTAIN = 3.0  # standard errors of the prediction that `Ephemeris.outside` stays away


@dataclass(frozen=True)
class Ephemeris:
    """Times of mid-transit of a planet, ``T(E) = t0 + E period`` for whole numbers E.

    Parameters
    ----------
    t0 : float
        Time of one mid-transit (BJD_TDB).
    period : float
        Orbital period (days).
    t0_err, period_err : float, optional
        Their standard errors (days), taken as independent of each other. Published ephemerides
        choose ``t0`` so that they are; far from it their covariance would matter.

    Raises
    ------
    ValueError
        When a value is not finite, the period is not positive, or an error is negative.

    Examples
    --------
    >>> planet = Ephemeris(t0=2456000.0, period=2.0, t0_err=0.0003, period_err=1e-6)
    >>> time, error = planet.mid_time(400)
    >>> print(time, round(error, 6))
    2456800.0 0.0005
    >>> minutes, error = planet.observed_minus_calculated(2456800.001, 0.0005)
    >>> print(round(minutes, 2), round(error, 2))
    1.44 1.02
    """

    t0: float
    period: float
    t0_err: float = 0.0
    period_err: float = 0.0

    def __post_init__(self):
        values = (self.t0, self.period, self.t0_err, self.period_err)
        if not all(np.isfinite(values)) or self.period <= 0 or min(values[2:]) < 0:
            raise ValueError(
                f"ephemeris t0 {self.t0} +- {self.t0_err}, period {self.period} +- "
                f"{self.period_err}: give finite days, a positive period and no negative error"
            )

    def epoch_of(self, time):
        """Return the number of the transit nearest to a time.

        Parameters
        ----------
        time : float or array_like of float
            Times (BJD_TDB).

        Returns
        -------
        int, or numpy.ndarray of int
            Number E of the transit whose mid-time is nearest; 0 at ``t0``.

        Raises
        ------
        ValueError
            When a time is not finite, or more than 100 years from ``t0``: then the two are not
            on one scale (JD, reduced JD, MJD).
        """
        epoch = self._nearest(np.asarray(time, dtype=float))
        if not np.all(np.isfinite(epoch)):
            raise ValueError("a time is not finite: leave such epochs out")
        return int(epoch) if epoch.ndim == 0 else epoch.astype(int)

    def _nearest(self, time):
        """Return the numbers of the nearest transits as floats, nan where the time is."""
        off = np.abs(time - self.t0)
        if np.any(off > FARTHEST):
            far = time.ravel()[np.nanargmax(off.ravel())]
            raise ValueError(
                f"time {far:.5f} is more than 100 years from t0 {self.t0:.5f}: give both as "
                "BJD_TDB, with all their digits"
            )
        return np.rint((time - self.t0) / self.period)

    def mid_time(self, epoch):
        """Return the predicted mid-time of a transit and its standard error.

        Parameters
        ----------
        epoch : int or array_like of int
            Number of the transit, as of `epoch_of`.

        Returns
        -------
        time, error : float or numpy.ndarray
            ``t0 + E period`` (BJD_TDB) and ``sqrt(t0_err**2 + (E period_err)**2)`` (days).
        """
        epoch = np.asarray(epoch, dtype=float)
        time, error = self.t0 + epoch * self.period, np.hypot(self.t0_err, epoch * self.period_err)
        return (float(time), float(error)) if epoch.ndim == 0 else (time, error)

    def outside(self, time, *, duration, margin=0.0):
        """Return which times are surely out of transit, from the ephemeris alone.

        What is chosen (comparison stars, aperture, baseline columns) is chosen on these epochs
        only, so that it cannot be chosen for the dip that one hopes to see.

        Parameters
        ----------
        time : array_like of float
            Times (BJD_TDB).
        duration : float or Quantity
            Time from first to last contact (days); see `datared.transit.transit_duration`.
        margin : float or Quantity, optional
            Further time kept out before first and after last contact (days), such as half an
            exposure. Three standard errors of the predicted time are kept out in any case.

        Returns
        -------
        numpy.ndarray of bool
            True out of transit; False where the time is not finite.

        Raises
        ------
        ValueError
            When a time is more than 100 years from ``t0``, or duration or margin is negative.
        """
        duration, margin = in_days(duration), in_days(margin)
        if not (duration >= 0 and margin >= 0):
            raise ValueError(f"duration {duration} and margin {margin} (days) must not be negative")
        time = np.asarray(time, dtype=float)
        predicted, error = self.mid_time(self._nearest(time))
        return np.abs(time - predicted) > 0.5 * duration + margin + CERTAIN * error

    def observed_minus_calculated(self, mid_time, error=0.0):
        """Return observed minus predicted mid-time (O-C) in minutes.

        Parameters
        ----------
        mid_time : float or array_like of float
            Measured time of mid-transit (BJD_TDB).
        error : float or array_like of float, optional
            Its standard error (days).

        Returns
        -------
        minutes, error : float or numpy.ndarray
            Observed minus calculated, positive when the transit is late, and the standard error
            of both together: ``sqrt(error**2 + t0_err**2 + (E period_err)**2)``.

        Raises
        ------
        ValueError
            As `epoch_of`.
        """
        predicted, uncertain = self.mid_time(self.epoch_of(mid_time))
        late = MINUTES * (np.asarray(mid_time, dtype=float) - predicted)
        total = MINUTES * np.hypot(np.asarray(error, dtype=float), uncertain)
        scalar = late.ndim == 0 and total.ndim == 0
        return (float(late), float(total)) if scalar else (late, total)
