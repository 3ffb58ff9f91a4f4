"""Range and closing speed of one object, from its ground contact and its apparent size.

Both sources have errors that do not average out: the camera's pitch for the ground contact, and the object's true size
for the apparent size. Kalman filters estimate these errors along with the motion. Their state is the range r, the
closing speed v, the object's braking b, the logarithms of its size relative to its class's (s_H, s_W), and the pitch
error p. They measure the directions to the lower and the upper edge of the box, and the box's width:

    lower edge   h/(r + i) + p
    upper edge   (h - H·exp(s_H))/(r + i/2) + p
    width        W·exp(s_W)/(r + i/2)

with the camera's height h, the class's usual height H, width W and overhang i. Ranges count from the camera to the near
face, along the ego's heading. The wheels touch the road behind the near face by the overhang, and the outline is widest
and highest about half way there.

One filter for all motions is too slow for what stands, or too wild for what moves. Two hypotheses run side by side,
each with a filter of its own: the object stands (a person walks), or it moves as traffic does. Their weights follow
from how well each predicts the boxes, and they exchange estimates as in the interacting multiple model of Blom and
Bar-Shalom (IEEE Transactions on Automatic Control 33, 1988).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.config import ObjectSizeConfig, TrackingConfig
from ssd_triton.driving.braking.box_model import (
    BRAKING,
    CLOSING,
    HEIGHT_ERROR,
    PITCH_ERROR,
    RANGE,
    WIDTH_ERROR,
    BoxModel,
    raw_ranges,
)
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import BOTTOM, TOP, Observation, group_of
from ssd_triton.driving.camera import Camera

STANDS, MOVES = range(2)
"""The hypotheses."""

_FIRST_WEIGHTS = {"person": (0.95, 0.05)}
_VEHICLE_WEIGHTS = (0.3, 0.7)
"""Weights before the first box, by group. In traffic, more vehicles drive than stand in the way; people walk."""

_RATES_PER_S = np.array([[-0.1, 0.1], [0.05, -0.05]])
"""How often an object passes from one hypothesis (row) to the other: it drives off after 10 s, and stops once in 20."""

_STATES, _BOTH = np.arange(6), np.arange(2)

_LONGEST_STEP_S = 0.5
"""Time step up to which the rates above are probabilities."""

_LEAST_WEIGHT = 1e-3
"""No hypothesis is ever ruled out."""

_NEAREST_M = 0.3
"""Smallest range: the filter must not cross the camera."""

_FIRST_RANGE_SPREAD = 0.5
"""Relative standard deviation of the range before the first measurement."""

_FIRST_PASSES = 3
"""Number of passes over the first box, each linearised about the range of the pass before."""

_STANDING_STD_MPS, _WALKING_STD_MPS = 0.3, 1.5
"""Standard deviation of the speed of what stands, and of who walks (5 km/h)."""

_MOVING_SHARE, _LEAST_MOVING_STD_MPS, _UNKNOWN_STD_MPS = 0.5, 3.0, 10.0
"""Standard deviation of a moving object's speed about the ego's: half of the ego's speed, and at least 3 m/s; 10 m/s
where the ego's is not known."""

_UNKNOWN_ACCELERATION_MPS2 = 3.0
"""Standard deviation of the ego's acceleration where its speed is not known."""

_OUTLIER_STD = 3.0
"""Beyond this many standard deviations, a measurement's weight falls with its distance."""

_SURPRISE_RANGE, _SURPRISE_MPS = 0.05, 1.0
"""Each such box makes the range less certain by this share, and the closing speed by this much."""

_LOST_UPDATES = 3
"""This many boxes in a row with such outliers are no coincidence, nor this many without."""

LONGEST_UNMEASURED_S = 0.5
"""A range without a measurement for longer is worthless."""

_SIZE_TIME_CONSTANT_S = 20.0
"""The detector's idea of an object's outline drifts: the logarithms of the size return to 0 in this time."""


@dataclass(frozen=True)
class Hypothesis:
    """The motion of an object under one hypothesis.

    Attributes:
        weight: Its probability.
        range_m: Range from the camera to the near face.
        closing_mps: Rate at which the range shrinks.
        braking_mps2: Deceleration of the object.
        covariance: Of these three, FP64 [3, 3].
    """

    weight: float
    range_m: float
    closing_mps: float
    braking_mps2: float
    covariance: Float64Array


class RangeFilter:
    """Range and closing speed of one track; see the module.

    Args:
        seen: The first observation.
        ego: The ego's motion.
        size: Usual size of the class.
        camera: Its height and pitch uncertainty are used.
        settings: Noise.
        curvature_per_m: See :meth:`update`.

    Attributes:
        unmeasured_s: Time since the last box with a measurement of the range; others were cut or hidden.
    """

    def __init__(
        self,
        seen: Observation,
        ego: EgoMotion,
        size: ObjectSizeConfig,
        camera: Camera,
        settings: TrackingConfig,
        *,
        curvature_per_m: float = 0.0,
    ) -> None:
        self._model = BoxModel(size, camera, settings.box_noise_relative)
        self._size = size
        self._camera = camera
        self._settings = settings
        self._ego_speed_mps = ego.speed_mps
        self._group = group_of(seen.class_name)
        raw = raw_ranges(seen, size, camera.height_m)
        nearest_visible_m = camera.height_m / seen.lowest_direction if seen.lowest_direction > 0 else math.inf
        seen_m = raw.from_size_m or raw.from_ground_m or math.inf
        range_m = min(seen_m, nearest_visible_m if seen.cut[BOTTOM] else math.inf)
        if math.isinf(range_m):
            # Neither edges nor width are known: the cut height of the box is a lower bound of the object's.
            range_m = size.height_m / max(seen.height_px, 1.0) / float(seen.direction_std[TOP] / seen.size_std_px[1])
        self._outlying_updates = self._fitting_updates = 0
        self.unmeasured_s = math.inf
        for _ in range(_FIRST_PASSES):
            self._start(max(range_m, _NEAREST_M))
            self.update(seen, curvature_per_m)
            range_m = self.range_m

    def _start(self, range_m: float) -> None:
        """Set means FP64 [2, 6], covariances FP64 [2, 6, 6] and weights FP64 [2] for a rough range."""
        self._means = np.zeros((2, 6))
        self._means[:, RANGE] = range_m
        stds = np.empty((2, 6))
        stds[:, RANGE] = _FIRST_RANGE_SPREAD * range_m
        stds[:, CLOSING] = self._moving_std_mps()
        stds[:, BRAKING] = self._braking_std_mps2()
        stds[:, HEIGHT_ERROR] = self._size.height_spread
        stds[:, WIDTH_ERROR] = self._size.width_spread
        stds[:, PITCH_ERROR] = self._pitch_std_rad()
        stds[STANDS, CLOSING] = self._standing_std_mps()
        self._means[STANDS, CLOSING] = self._ego_speed_mps or 0.0
        self._covariances = np.zeros((2, 6, 6))
        self._covariances[:, range(6), range(6)] = stds**2
        self._weights = np.array(_FIRST_WEIGHTS.get(self._group, _VEHICLE_WEIGHTS))
        if self._ego_speed_mps is None:
            self._weights = np.array([0.0, 1.0])
        self._pooled: tuple[list[float], list[list[float]]] | None = None

    def set_camera(self, camera: Camera) -> None:
        """Continue with another calibration: the error of the pitch, as estimated so far, belongs to the old one."""
        self._means[:, PITCH_ERROR] += math.radians(camera.pitch_deg - self._camera.pitch_deg)
        self._camera = camera
        self._model = replace(self._model, camera=camera)
        variances = self._covariances[:, PITCH_ERROR, PITCH_ERROR]
        self._covariances[:, PITCH_ERROR, PITCH_ERROR] = np.maximum(variances, self._pitch_std_rad() ** 2)
        self._pooled = None

    @property
    def is_lost(self) -> bool:
        """Whether measurements have been missing for long, or the last boxes contradict an estimate that fitted before.

        Boxes that have contradicted each other from the start only make the estimate less certain.
        """
        jumped = self._outlying_updates >= _LOST_UPDATES and self._fitting_updates >= _LOST_UPDATES
        return jumped or self.unmeasured_s > LONGEST_UNMEASURED_S

    @property
    def hypotheses(self) -> Iterator[Hypothesis]:
        """The hypotheses with their weights."""
        for weight, (range_m, closing_mps, braking_mps2), covariance in zip(
            self._weights.tolist(), self._means[:, :3].tolist(), self._covariances[:, :3, :3], strict=True
        ):
            yield Hypothesis(weight, range_m, closing_mps, braking_mps2, covariance)

    @property
    def standing(self) -> float:
        """Probability that the object stands, or walks."""
        return float(self._weights[STANDS])

    @property
    def is_oncoming(self) -> bool:
        """Whether the object comes towards the ego, beyond one standard deviation of its speed."""
        ego_mps = self._ego_speed_mps
        return ego_mps is not None and self.closing_speed_mps - self.closing_speed_std_mps > ego_mps + _STANDING_STD_MPS

    @property
    def range_m(self) -> float:
        """Range from the camera to the near face."""
        return self._mean[RANGE]

    @property
    def outline_range_m(self) -> float:
        """Range from the camera to the widest part of the outline."""
        return self.range_m + self._size.overhang_m / 2

    @property
    def range_std_m(self) -> float:
        """Standard deviation of the range, pitch and size errors included."""
        return math.sqrt(self._covariance[RANGE][RANGE])

    @property
    def closing_speed_mps(self) -> float:
        """Rate at which the range shrinks."""
        return self._mean[CLOSING]

    @property
    def closing_speed_std_mps(self) -> float:
        """Standard deviation of the closing speed."""
        return math.sqrt(self._covariance[CLOSING][CLOSING])

    @property
    def closing_rate_per_s(self) -> float:
        """Closing speed over range: one over the time until the object's outline reaches the camera."""
        return self.closing_speed_mps / self.outline_range_m

    @property
    def closing_rate_std_per_s(self) -> float:
        """Standard deviation of :attr:`closing_rate_per_s`; correlated errors of range and speed cancel."""
        rate_per_s, covariance = self.closing_rate_per_s, self._covariance
        variance = covariance[CLOSING][CLOSING] + rate_per_s * (
            rate_per_s * covariance[RANGE][RANGE] - 2 * covariance[RANGE][CLOSING]
        )
        return math.sqrt(max(variance, 0.0)) / self.outline_range_m

    def predict(self, dt_s: float, ego: EgoMotion) -> None:
        """Advance by a time step, with the change of the ego's speed where both speeds are known."""
        self._mix(dt_s)
        if ego.speed_mps is not None and self._ego_speed_mps is not None:
            change_mps = ego.speed_mps - self._ego_speed_mps
            self._means[:, RANGE] -= change_mps * dt_s / 2
            self._means[:, CLOSING] += change_mps
        self._ego_speed_mps = ego.speed_mps
        self.unmeasured_s += dt_s
        settings, size = self._settings, self._size
        transition = _transition(dt_s, settings.pitch_time_constant_s, settings.acceleration_time_constant_s)
        self._means = self._means @ transition.T
        np.maximum(self._means[:, RANGE], _NEAREST_M, out=self._means[:, RANGE])
        self._covariances = transition @ self._covariances @ transition.T
        # What a state forgets, it gets back as its usual variance.
        usual = np.zeros((2, 6))
        usual[:, BRAKING] = self._braking_std_mps2()
        usual[:, HEIGHT_ERROR:] = size.height_spread, size.width_spread, self._pitch_std_rad()
        noise = usual**2 * (1 - transition[_STATES, _STATES] ** 2)
        noise[:, CLOSING] = settings.speed_drift_mps**2 * dt_s
        self._covariances[:, _STATES, _STATES] += noise
        self._pooled = None

    def _mix(self, dt_s: float) -> None:
        """Let each hypothesis start from its own estimate and that of the other one, from which an object may come."""
        if self._ego_speed_mps is None:
            self._weights = np.array([0.0, 1.0])
            return
        joint = self._weights[:, None] * (np.eye(2) + _RATES_PER_S * min(dt_s, _LONGEST_STEP_S))  # [from, to]
        weights = joint.sum(axis=0)
        stayed = joint[_BOTH, _BOTH] / weights
        stds = self._braking_std_mps2()
        means, covariances = self._means[::-1].copy(), self._covariances[::-1].copy()
        # What comes to stand has the ego's speed as its closing speed; any braking ends.
        _replace(means[STANDS], covariances[STANDS], CLOSING, self._ego_speed_mps, self._standing_std_mps())
        _replace(means[STANDS], covariances[STANDS], BRAKING, 0.0, stds[STANDS])
        _replace(means[MOVES], covariances[MOVES], BRAKING, 0.0, stds[MOVES])
        apart = self._means - means
        stay, come = stayed[:, None], 1 - stayed[:, None]
        self._means = stay * self._means + come * means
        spread = stay * come * apart
        stay, come = stay[..., None], come[..., None]
        self._covariances = stay * self._covariances + come * covariances + spread[:, :, None] * apart[:, None]
        self._weights = weights

    def update(self, seen: Observation, curvature_per_m: float = 0.0) -> None:
        """Correct by the sides of a box that belong to the object.

        Args:
            seen: The box.
            curvature_per_m: Curvature of the corridor, which vehicles mostly follow.
        """
        surprise, slopes, stds = self._model.measured(seen, self._means, self._weights, self.range_m, curvature_per_m)
        if not len(stds):
            self._outlying_updates = 0
            return
        self.unmeasured_s = 0.0
        spread = self._covariances @ slopes.transpose(0, 2, 1)  # [2, 6, m]
        innovation = slopes @ spread  # [2, m, m]
        own = np.arange(len(stds))
        innovation[:, own, own] += stds**2
        variance = innovation[:, own, own]
        excess = surprise**2 / (_OUTLIER_STD**2 * variance)
        innovation[:, own, own] += variance * np.maximum(excess - 1, 0.0)
        information = np.linalg.inv(innovation)
        gain = spread @ information  # [2, 6, m]
        distance = ((surprise[:, None] @ information)[:, 0] * surprise).sum(axis=1)
        log_likelihood = -0.5 * (distance + np.log(np.linalg.det(innovation)))
        self._means = self._means + (gain @ surprise[..., None])[..., 0]
        np.maximum(self._means[:, RANGE], _NEAREST_M, out=self._means[:, RANGE])
        covariances = self._covariances - gain @ spread.transpose(0, 2, 1)
        self._covariances = (covariances + covariances.transpose(0, 2, 1)) / 2
        weights = self._weights * np.exp(np.maximum(log_likelihood - log_likelihood.max(), -50.0))
        if self._ego_speed_mps is not None:
            weights = np.maximum(weights / weights.sum(), _LEAST_WEIGHT)
        self._weights = weights / weights.sum()
        self._doubt(bool((excess[int(self._weights.argmax())] > 1).any()))
        self._pooled = None

    def _doubt(self, outlying: bool) -> None:
        """A box that contradicts the most probable hypothesis costs certainty."""
        self._outlying_updates = self._outlying_updates + 1 if outlying else 0
        self._fitting_updates = min(self._fitting_updates, _LOST_UPDATES) if outlying else self._fitting_updates + 1
        if outlying:
            self._covariances[:, RANGE, RANGE] += (_SURPRISE_RANGE * self._means[:, RANGE]) ** 2
            self._covariances[:, CLOSING, CLOSING] += _SURPRISE_MPS**2

    def _pool(self) -> tuple[list[float], list[list[float]]]:
        """Mean and covariance over the hypotheses, of range, closing speed and braking."""
        if self._pooled is None:
            means, weights = self._means[:, :3], self._weights
            mean = weights @ means
            apart = means - mean
            spread = self._covariances[:, :3, :3] + apart[:, :, None] * apart[:, None, :]
            self._pooled = mean.tolist(), (weights @ spread.reshape(2, 9)).reshape(3, 3).tolist()
        return self._pooled

    @property
    def _mean(self) -> list[float]:
        return self._pool()[0]

    @property
    def _covariance(self) -> list[list[float]]:
        return self._pool()[1]

    def _standing_std_mps(self) -> float:
        return _WALKING_STD_MPS if self._group == "person" else _STANDING_STD_MPS

    def _moving_std_mps(self) -> float:
        if self._ego_speed_mps is None:
            return _UNKNOWN_STD_MPS
        return max(_MOVING_SHARE * self._ego_speed_mps, _LEAST_MOVING_STD_MPS)

    def _braking_std_mps2(self) -> Float64Array:
        """Standard deviation of the braking by hypothesis, FP64 [2]."""
        settings = self._settings
        unknown = _UNKNOWN_ACCELERATION_MPS2 if self._ego_speed_mps is None else 0.0
        return np.array([0.1, math.hypot(settings.acceleration_std_mps2, unknown)])

    def _pitch_std_rad(self) -> float:
        """Standard deviation of the pitch: of the mounting, but at least of the car on its springs."""
        return max(self._camera.pitch_std_rad, math.radians(self._settings.pitch_std_deg))


def _replace(mean: Float64Array, covariance: Float64Array, state: int, value: float, std: float) -> None:
    """Set one state of a mean FP64 [6] and a covariance FP64 [6, 6], independent of the others."""
    mean[state] = value
    covariance[state, :] = covariance[:, state] = 0.0
    covariance[state, state] = std**2


@lru_cache(maxsize=64)
def _transition(dt_s: float, pitch_time_constant_s: float, acceleration_time_constant_s: float) -> Float64Array:
    """How the state changes in a time step, FP64 [6, 6]."""
    sizes = math.exp(-dt_s / _SIZE_TIME_CONSTANT_S)
    easing, settling = math.exp(-dt_s / acceleration_time_constant_s), math.exp(-dt_s / pitch_time_constant_s)
    transition = np.diag([1.0, 1.0, easing, sizes, sizes, settling])
    transition[RANGE, CLOSING] = -dt_s
    transition[RANGE, BRAKING] = -(dt_s**2) / 2
    transition[CLOSING, BRAKING] = dt_s
    return transition
