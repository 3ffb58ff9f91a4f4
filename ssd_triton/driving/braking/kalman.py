"""A Kalman filter of a value and its rate in plain floats: arrays of two would be many times slower."""

from __future__ import annotations

import math


class RateFilter:
    """A value that changes at a nearly constant rate.

    Args:
        value: Initial value.
        std: Its standard deviation.
        rate_std: Standard deviation of the initial rate, 0; per second.
        drift: Standard deviation of the rate's change within a second.

    Attributes:
        value: Estimated value.
        rate: Estimated rate of change, per second.
    """

    def __init__(self, value: float, std: float, rate_std: float, drift: float) -> None:
        self.value = value
        self.rate = 0.0
        self._variance = self._first_variance = std**2
        self._covariance = 0.0
        self._rate_variance = self._first_rate_variance = rate_std**2
        self._drift_variance = drift**2

    @property
    def rate_variance(self) -> float:
        """Variance of the rate."""
        return self._rate_variance

    def foresee(self, ahead_s: float) -> tuple[float, float]:
        """Extrapolate the value by a time; returns it and its standard deviation."""
        variance = self._variance + ahead_s * (2 * self._covariance + ahead_s * self._rate_variance)
        return self.value + ahead_s * self.rate, math.sqrt(max(variance, 0.0))

    def predict(self, dt_s: float) -> None:
        """Advance by a time step."""
        self.value += self.rate * dt_s
        self._spread(dt_s, 1.0, dt_s)

    def predict_growth(self, dt_s: float, largest_step: float) -> None:
        """Advance the logarithm of the apparent size of an approaching object; its rate u grows by u' = u².

        Args:
            dt_s: Time step.
            largest_step: Bound on rate times time step, below 1.
        """
        step = min(max(self.rate * dt_s, -largest_step), largest_step)
        self.value -= math.log1p(-step)
        self.rate /= 1 - step
        self._spread(dt_s / (1 - step), 1 / (1 - step) ** 2, dt_s)
        self._bound()

    def update(self, value: float, std: float, outlier_std: float = math.inf) -> None:
        """Correct by a measurement.

        Args:
            value: The measured value.
            std: Its standard deviation.
            outlier_std: Beyond this many standard deviations, a measurement's weight falls with its distance.
        """
        surprise, variance = value - self.value, self._variance + std**2
        variance *= max(surprise**2 / (outlier_std**2 * variance), 1.0)
        gain, rate_gain = self._variance / variance, self._covariance / variance
        self.value += gain * surprise
        self.rate += rate_gain * surprise
        # Rounding must not make the variance negative.
        self._rate_variance = max(self._rate_variance - rate_gain * self._covariance, 0.0)
        self._covariance -= gain * self._covariance
        self._variance -= gain * self._variance

    def _bound(self) -> None:
        """Limit the variances to their initial values: the squared rate would otherwise let them diverge."""
        scale, rate_scale = 1.0, 1.0
        if self._variance > self._first_variance:
            scale, self._variance = math.sqrt(self._first_variance / self._variance), self._first_variance
        if self._rate_variance > self._first_rate_variance:
            rate_scale = math.sqrt(self._first_rate_variance / self._rate_variance)
            self._rate_variance = self._first_rate_variance
        self._covariance *= scale * rate_scale

    def _spread(self, by_rate: float, of_rate: float, dt_s: float) -> None:
        """Advance the covariance for value += by_rate · rate and rate *= of_rate, plus the drift of the rate."""
        self._variance += by_rate * (2 * self._covariance + by_rate * self._rate_variance)
        self._covariance = of_rate * (self._covariance + by_rate * self._rate_variance)
        self._rate_variance *= of_rate**2
        self._variance += self._drift_variance * dt_s**3 / 3
        self._covariance += self._drift_variance * dt_s**2 / 2
        self._rate_variance += self._drift_variance * dt_s
