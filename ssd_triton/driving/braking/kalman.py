"""A Kalman filter of a value and its rate in plain numbers: arrays of two cost many times more than they compute."""

from __future__ import annotations

import math


class RateFilter:
    """A value that changes at a nearly constant rate.

    Args:
        value: First guess.
        std: Its standard deviation.
        rate_std: Of the rate, which is taken as 0 at first; per second.
        drift: By how much the rate changes within a second, standard deviation.

    Attributes:
        value: As estimated.
        rate: Of change, per second.
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
        """The value in a while, and its standard deviation."""
        variance = self._variance + ahead_s * (2 * self._covariance + ahead_s * self._rate_variance)
        return self.value + ahead_s * self.rate, math.sqrt(max(variance, 0.0))

    def predict(self, dt_s: float) -> None:
        """Move on by a time."""
        self.value += self.rate * dt_s
        self._spread(dt_s, 1.0, dt_s)

    def predict_growth(self, dt_s: float, largest_step: float) -> None:
        """Move on the logarithm of a length seen from nearer and nearer, whose rate u grows by u' = u².

        Args:
            dt_s: The time.
            largest_step: Bound on rate times time, below 1.
        """
        step = min(max(self.rate * dt_s, -largest_step), largest_step)
        self.value -= math.log1p(-step)
        self.rate /= 1 - step
        self._spread(dt_s / (1 - step), 1 / (1 - step) ** 2, dt_s)
        self._bound()

    def update(self, value: float, std: float, outlier_std: float = math.inf) -> None:
        """Take in a measurement.

        Args:
            value: What was measured.
            std: Its standard deviation.
            outlier_std: What is off by more standard deviations is trusted the less, the farther off it is.
        """
        surprise, variance = value - self.value, self._variance + std**2
        variance *= max(surprise**2 / (outlier_std**2 * variance), 1.0)
        gain, rate_gain = self._variance / variance, self._covariance / variance
        self.value += gain * surprise
        self.rate += rate_gain * surprise
        # Rounding must not make it negative.
        self._rate_variance = max(self._rate_variance - rate_gain * self._covariance, 0.0)
        self._covariance -= gain * self._covariance
        self._variance -= gain * self._variance

    def _bound(self) -> None:
        """Know at least as much as at first: left to itself, the square of the rate lets all variances explode."""
        scale, rate_scale = 1.0, 1.0
        if self._variance > self._first_variance:
            scale, self._variance = math.sqrt(self._first_variance / self._variance), self._first_variance
        if self._rate_variance > self._first_rate_variance:
            rate_scale = math.sqrt(self._first_rate_variance / self._rate_variance)
            self._rate_variance = self._first_rate_variance
        self._covariance *= scale * rate_scale

    def _spread(self, by_rate: float, of_rate: float, dt_s: float) -> None:
        """Move the covariance on: value += by_rate · rate, rate *= of_rate, and the drift of the rate."""
        self._variance += by_rate * (2 * self._covariance + by_rate * self._rate_variance)
        self._covariance = of_rate * (self._covariance + by_rate * self._rate_variance)
        self._rate_variance *= of_rate**2
        self._variance += self._drift_variance * dt_s**3 / 3
        self._covariance += self._drift_variance * dt_s**2 / 2
        self._rate_variance += self._drift_variance * dt_s
