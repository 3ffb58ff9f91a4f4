"""Two hypotheses on the motion of objects: Kalman filters side by side, for all objects at once.

An object is stationary (a person may walk), or it moves like traffic. Each hypothesis has its own filter. Their weights
follow from how well each predicts the boxes, and they exchange estimates as in the interacting multiple model of Blom
and Bar-Shalom (IEEE Transactions on Automatic Control 33, 1988). For such small matrices, a call of NumPy takes longer
than its arithmetic, so one call processes all objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ssd_triton.common.arrays import Float64Array
from ssd_triton.driving.braking.box_model import BRAKING, CLOSING, RANGE

STANDS, MOVES = range(2)
"""The hypotheses."""

NEAREST_M = 0.3
"""Smallest range: the filter must not cross the camera."""

STANDING_BRAKING_STD_MPS2 = 0.1
"""Standard deviation of the braking of a stationary object: practically none."""

_RATES_PER_S = np.array([[-0.1, 0.1], [0.05, -0.05]])
"""Transition rates from one hypothesis (row) to the other: an object drives off after 10 s, and stops after 20 s, on
average."""

_STATES, _BOTH = np.arange(6), np.arange(2)

_LONGEST_STEP_S = 0.5
"""Longest time step to which the rates above are applied."""

_LEAST_WEIGHT = 1e-3
"""No hypothesis is ever ruled out."""

_OUTLIER_STD = 3.0
"""Beyond this many standard deviations, a measurement's weight falls with its distance."""

_SIZE_TIME_CONSTANT_S = 20.0
"""Time constant with which the logarithms of the size return to 0, because the detected outline of an object drifts."""


@dataclass(frozen=True)
class Hypothesis:
    """The motion of an object under one hypothesis.

    Attributes:
        weight: Its probability.
        range_m: Range from the camera to the near face.
        closing_mps: Rate at which the range shrinks.
        braking_mps2: Deceleration of the object.
        covariance: Covariance of these three, 3 rows of 3.
    """

    weight: float
    range_m: float
    closing_mps: float
    braking_mps2: float
    covariance: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Estimates:
    """Estimates of n objects under both hypotheses.

    Attributes:
        means: FP64 [n, 2, 6].
        covariances: FP64 [n, 2, 6, 6].
        weights: Probability of each hypothesis, FP64 [n, 2].
    """

    means: Float64Array
    covariances: Float64Array
    weights: Float64Array

    @classmethod
    def joined(cls, parts: Sequence[Estimates]) -> Estimates:
        """The estimates of several objects in one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.means for part in parts]),
            np.concatenate([part.covariances for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )

    def __getitem__(self, row: int) -> Estimates:
        """The estimates of one object; its arrays are views."""
        return Estimates(self.means[row : row + 1], self.covariances[row : row + 1], self.weights[row : row + 1])

    def pooled(self) -> tuple[list[list[float]], list[list[list[float]]]]:
        """Means and covariances over the hypotheses of range, closing speed and braking, for each object."""
        means, weights = self.means[:, :, :3], self.weights[:, None]
        mean = weights @ means  # [n, 1, 3]
        apart = means - mean
        spread = self.covariances[:, :, :3, :3] + apart[..., None] * apart[:, :, None]
        covariance = (weights @ spread.reshape(-1, 2, 9)).reshape(-1, 3, 3)
        return mean[:, 0].tolist(), covariance.tolist()

    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """Both hypotheses on the first object."""
        means, covariances = self.means[0, :, :3].tolist(), self.covariances[0, :, :3, :3].tolist()
        return tuple(
            Hypothesis(weight, range_m, closing_mps, braking_mps2, covariance)
            for weight, (range_m, closing_mps, braking_mps2), covariance in zip(
                self.weights[0].tolist(), means, covariances, strict=True
            )
        )

    def moving(self) -> Estimates:
        """Rule out that the objects are stationary: without the ego's speed, this cannot be determined."""
        return replace(self, weights=np.tile([0.0, 1.0], (len(self.weights), 1)))

    def mixed(
        self, dt_s: float, ego_mps: float, standing_std_mps: Float64Array, moving_braking_std_mps2: float
    ) -> Estimates:
        """Mix into each hypothesis the estimate of the other one, since an object may change from one to the other.

        Args:
            dt_s: Time step.
            ego_mps: Speed of the ego.
            standing_std_mps: Standard deviation of the speed of a stationary object, FP64 [n].
            moving_braking_std_mps2: Standard deviation of the braking of a moving object.
        """
        joint = self.weights[:, :, None] * (np.eye(2) + _RATES_PER_S * min(dt_s, _LONGEST_STEP_S))  # [n, from, to]
        weights = joint.sum(axis=1)
        stayed = joint[:, _BOTH, _BOTH] / weights
        means, covariances = self.means[:, ::-1].copy(), self.covariances[:, ::-1].copy()
        # An object that has just stopped closes in at the ego's speed, and does not brake.
        _replace(means[:, STANDS], covariances[:, STANDS], CLOSING, ego_mps, standing_std_mps)
        _replace(means[:, STANDS], covariances[:, STANDS], BRAKING, 0.0, STANDING_BRAKING_STD_MPS2)
        _replace(means[:, MOVES], covariances[:, MOVES], BRAKING, 0.0, moving_braking_std_mps2)
        apart = self.means - means
        stay, come = stayed[..., None], 1 - stayed[..., None]
        mean = stay * self.means + come * means
        spread = stay * come * apart
        stay, come = stay[..., None], come[..., None]
        covariance = stay * self.covariances + come * covariances + spread[..., None] * apart[:, :, None]
        return Estimates(mean, covariance, weights)

    def predicted(
        self, transition: Float64Array, usual_std: Float64Array, closing_variance: float, change_mps: float, dt_s: float
    ) -> Estimates:
        """Advance by a time step.

        Args:
            transition: Transition matrix of the state, FP64 [6, 6].
            usual_std: Standard deviation of each state without measurements, FP64 [n, 2, 6]. A state that decays
                returns to it.
            closing_variance: Growth of the closing speed's variance.
            change_mps: Change of the ego's speed.
            dt_s: Time step.
        """
        means = self.means.copy()
        means[..., RANGE] -= change_mps * dt_s / 2
        means[..., CLOSING] += change_mps
        means = means @ transition.T
        np.maximum(means[..., RANGE], NEAREST_M, out=means[..., RANGE])
        noise = usual_std**2 * (1 - transition[_STATES, _STATES] ** 2)
        noise[..., CLOSING] = closing_variance
        covariances = transition @ self.covariances @ transition.T
        covariances[..., _STATES, _STATES] += noise
        return Estimates(means, covariances, self.weights)

    def corrected(
        self, surprises: Float64Array, slopes: Float64Array, stds: Float64Array, *, weighted: bool
    ) -> tuple[Estimates, npt.NDArray[np.bool_]]:
        """Correct by measurements; a measurement with slope 0 and surprise 0 changes nothing.

        Args:
            surprises: Measured minus expected values, FP64 [n, 2, m].
            slopes: Derivatives of the expected values with respect to the state, FP64 [n, 2, m, 6].
            stds: Standard deviations of the measurements, FP64 [n, m].
            weighted: Whether both hypotheses keep a least weight; False where one of them is ruled out already.

        Returns:
            The estimates, and whether a measurement contradicts an object's most probable hypothesis, BOOL [n].
        """
        spread = self.covariances @ slopes.swapaxes(2, 3)  # [n, 2, 6, m]
        innovation = slopes @ spread  # [n, 2, m, m]
        own = np.arange(stds.shape[1])
        innovation[..., own, own] += stds[:, None] ** 2
        variance = innovation[..., own, own]
        excess = surprises**2 / (_OUTLIER_STD**2 * variance)
        innovation[..., own, own] += variance * np.maximum(excess - 1, 0.0)
        information = np.linalg.inv(innovation)
        gain = spread @ information  # [n, 2, 6, m]
        distance = ((surprises[..., None, :] @ information)[..., 0, :] * surprises).sum(axis=2)
        log_likelihood = -0.5 * (distance + np.log(np.linalg.det(innovation)))
        means = self.means + (gain @ surprises[..., None])[..., 0]
        np.maximum(means[..., RANGE], NEAREST_M, out=means[..., RANGE])
        covariances = self.covariances - gain @ spread.swapaxes(2, 3)
        covariances = (covariances + covariances.swapaxes(2, 3)) / 2
        best = log_likelihood.max(axis=1, keepdims=True)
        weights = self.weights * np.exp(np.maximum(log_likelihood - best, -50.0))
        if weighted:
            weights = np.maximum(weights / weights.sum(axis=1, keepdims=True), _LEAST_WEIGHT)
        weights = weights / weights.sum(axis=1, keepdims=True)
        outlying = (excess[np.arange(len(weights)), weights.argmax(axis=1)] > 1).any(axis=1)
        return Estimates(means, covariances, weights), outlying


def _replace(
    means: Float64Array, covariances: Float64Array, state: int, value: float, std: float | Float64Array
) -> None:
    """Set one state of means FP64 [n, 6] and covariances FP64 [n, 6, 6], independent of the others."""
    means[:, state] = value
    covariances[:, state, :] = covariances[:, :, state] = 0.0
    covariances[:, state, state] = np.square(std)


@lru_cache(maxsize=64)
def transition_of(dt_s: float, pitch_time_constant_s: float, acceleration_time_constant_s: float) -> Float64Array:
    """Transition matrix of the state for a time step, FP64 [6, 6]."""
    sizes = math.exp(-dt_s / _SIZE_TIME_CONSTANT_S)
    easing, settling = math.exp(-dt_s / acceleration_time_constant_s), math.exp(-dt_s / pitch_time_constant_s)
    transition = np.diag([1.0, 1.0, easing, sizes, sizes, settling])
    transition[RANGE, CLOSING] = -dt_s
    transition[RANGE, BRAKING] = -(dt_s**2) / 2
    transition[CLOSING, BRAKING] = dt_s
    return transition
