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

A single filter for all motions is either too slow for stationary objects or too noisy for moving ones. Therefore two
hypotheses run side by side, see :mod:`ssd_triton.driving.braking.hypotheses`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssd_triton.config import ObjectSizeConfig, TrackingConfig
from ssd_triton.driving.braking.box_model import (
    CLOSING,
    PITCH_ERROR,
    RANGE,
    BoxModel,
    Measurement,
    raw_ranges,
)
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.hypotheses import (
    NEAREST_M,
    STANDING_BRAKING_STD_MPS2,
    STANDS,
    Estimates,
    Hypothesis,
    transition_of,
)
from ssd_triton.driving.braking.observation import BOTTOM, TOP, Observation, group_of
from ssd_triton.driving.camera import Camera

_FIRST_WEIGHTS = {"person": (0.95, 0.05)}
_VEHICLE_WEIGHTS = (0.3, 0.7)
"""Weights of the hypotheses (stationary, moving) before the first box, by group. Most vehicles in the way move. People
stand or walk, and both belong to the first hypothesis."""

_FIRST_RANGE_SPREAD = 0.5
"""Relative standard deviation of the range before the first measurement."""

_FIRST_PASSES = 3
"""Number of passes over the first box, each linearised about the range of the pass before."""

_STANDING_STD_MPS, _WALKING_STD_MPS = 0.3, 1.5
"""Standard deviation of the speed of a stationary object, and of a person, who may walk (5 km/h)."""

_MOVING_SHARE, _LEAST_MOVING_STD_MPS, _UNKNOWN_STD_MPS = 0.5, 3.0, 10.0
"""Standard deviation of a moving object's speed about the ego's: half of the ego's speed, and at least 3 m/s; 10 m/s
where the ego's is not known."""

_UNKNOWN_ACCELERATION_MPS2 = 3.0
"""Standard deviation of the ego's acceleration where its speed is not known."""

_SURPRISE_RANGE, _SURPRISE_MPS = 0.05, 1.0
"""Standard deviations that a box which contradicts the estimate adds: relative to the range, and of the closing
speed."""

_LOST_UPDATES = 3
"""An object is lost after this many contradicting boxes in a row, if at least as many fitted before."""

LONGEST_UNMEASURED_S = 0.5
"""A range without a measurement for longer than this is not used."""

_NO_MEASUREMENT = Measurement((0.0, 0.0), ((0.0,) * 6, (0.0,) * 6), 1.0)


class RangeFilter:
    """Range and closing speed of one track; see the module.

    Args:
        seen: The first observation.
        ego: The ego's motion.
        size: Usual size of the class.
        camera: Its height and pitch uncertainty are used.
        settings: Noise of boxes and motion.
        curvature_per_m: See :meth:`update`.

    Attributes:
        range_m: Range from the camera to the near face.
        range_std_m: Its standard deviation, errors of pitch and size included.
        closing_speed_mps: Rate at which the range shrinks.
        closing_speed_std_mps: Its standard deviation.
        unmeasured_s: Time since the last box with a measurement of the range; others were cut or hidden.
        is_found: Whether the filter must restart: the last box is the first measurement after a loss, or completes a
            loss.
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
            # Neither edges nor width are known: the height of the cut box is a lower bound of the object's height.
            range_m = size.height_m / max(seen.height_px, 1.0) / float(seen.direction_std[TOP] / seen.size_std_px[1])
        self._outlying_updates = self._fitting_updates = 0
        self.unmeasured_s = math.inf
        self.is_found = False
        for _ in range(_FIRST_PASSES):
            self._start(max(range_m, NEAREST_M))
            self.update(seen, curvature_per_m)
            range_m = self.range_m

    def _start(self, range_m: float) -> None:
        """Set the estimates for a rough range."""
        means = np.zeros((1, 2, 6))
        means[..., RANGE] = range_m
        stds = np.array([self._usual_std()])
        stds[..., RANGE] = _FIRST_RANGE_SPREAD * range_m
        stds[..., CLOSING] = self._moving_std_mps()
        stds[:, STANDS, CLOSING] = self._standing_std_mps()
        means[:, STANDS, CLOSING] = self._ego_speed_mps or 0.0
        covariances = np.zeros((1, 2, 6, 6))
        covariances[..., range(6), range(6)] = stds**2
        weights = _FIRST_WEIGHTS.get(self._group, _VEHICLE_WEIGHTS) if self._ego_speed_mps is not None else (0.0, 1.0)
        self._settle(Estimates(means, covariances, np.array([weights])))

    def _settle(self, estimates: Estimates, pooled: tuple[list[float], list[list[float]]] | None = None) -> None:
        """Continue with new estimates.

        Args:
            estimates: Estimates of this object.
            pooled: Mean and covariance over the hypotheses, if they have been computed already.
        """
        if pooled is None:
            means, covariances = estimates.pooled()
            pooled = means[0], covariances[0]
        self._estimates = estimates
        self._mean, self._covariance = pooled
        self.range_m, self.closing_speed_mps, _ = self._mean
        self.range_std_m = math.sqrt(self._covariance[RANGE][RANGE])
        self.closing_speed_std_mps = math.sqrt(self._covariance[CLOSING][CLOSING])

    def set_camera(self, camera: Camera) -> None:
        """Continue with another calibration; the pitch error, estimated relative to the old one, is converted."""
        means, covariances = self._estimates.means.copy(), self._estimates.covariances.copy()
        means[..., PITCH_ERROR] += math.radians(camera.pitch_deg - self._camera.pitch_deg)
        self._camera = camera
        self._model = replace(self._model, camera=camera)
        variances = covariances[..., PITCH_ERROR, PITCH_ERROR]
        covariances[..., PITCH_ERROR, PITCH_ERROR] = np.maximum(variances, self._pitch_std_rad() ** 2)
        self._settle(Estimates(means, covariances, self._estimates.weights))

    @property
    def is_lost(self) -> bool:
        """Whether measurements have been missing for long, or the last boxes contradict an estimate that fitted before.

        Boxes that have contradicted each other from the start only make the estimate less certain.
        """
        jumped = self._outlying_updates >= _LOST_UPDATES and self._fitting_updates >= _LOST_UPDATES
        return jumped or self.unmeasured_s > LONGEST_UNMEASURED_S

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The hypotheses with their weights."""
        return self._estimates.hypotheses()

    @property
    def standing(self) -> float:
        """Probability that the object is stationary; a person may also walk."""
        return float(self._estimates.weights[0, STANDS])

    @property
    def is_oncoming(self) -> bool:
        """Whether the object comes towards the ego, beyond one standard deviation of its speed."""
        ego_mps = self._ego_speed_mps
        return ego_mps is not None and self.closing_speed_mps - self.closing_speed_std_mps > ego_mps + _STANDING_STD_MPS

    @property
    def outline_range_m(self) -> float:
        """Range from the camera to the widest part of the outline."""
        return self.range_m + self._size.overhang_m / 2

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
        self.predict_all([self], dt_s, ego)

    @classmethod
    def predict_all(cls, filters: Sequence[RangeFilter], dt_s: float, ego: EgoMotion) -> None:
        """Advance filters in one call, as :meth:`predict` does; they must have been advanced together before."""
        if not filters:
            return
        settings, before_mps = filters[0]._settings, filters[0]._ego_speed_mps
        estimates, change_mps = Estimates.joined([one._estimates for one in filters]), 0.0
        if before_mps is not None:
            standing_std_mps = np.array([one._standing_std_mps() for one in filters])
            estimates = estimates.mixed(dt_s, before_mps, standing_std_mps, settings.acceleration_std_mps2)
            change_mps = 0.0 if ego.speed_mps is None else ego.speed_mps - before_mps
        else:
            estimates = estimates.moving()
        for one in filters:
            one._ego_speed_mps = ego.speed_mps
            one.unmeasured_s += dt_s
        estimates = estimates.predicted(
            transition_of(dt_s, settings.pitch_time_constant_s, settings.acceleration_time_constant_s),
            np.array([one._usual_std() for one in filters]),
            settings.speed_drift_mps**2 * dt_s,
            change_mps,
            dt_s,
        )
        cls._share(filters, estimates)

    def update(self, seen: Observation, curvature_per_m: float = 0.0) -> None:
        """Correct by the sides of a box that belong to the object.

        Args:
            seen: The box.
            curvature_per_m: Curvature of the corridor, which vehicles mostly follow.
        """
        self.update_all([self], [seen], curvature_per_m)

    @classmethod
    def update_all(
        cls, filters: Sequence[RangeFilter], seen: Sequence[Observation], curvature_per_m: float = 0.0
    ) -> None:
        """Correct each filter by its box in one call, as :meth:`update` does."""
        measured: list[RangeFilter] = []
        table: list[list[Measurement]] = []
        for one, box in zip(filters, seen, strict=True):
            measurements = one._measurements(box, curvature_per_m)
            if measurements:
                measured.append(one)
                table.append(measurements + [_NO_MEASUREMENT] * (3 - len(measurements)))
            else:
                one.is_found = False
                one._outlying_updates = 0
        if not measured:
            return
        surprises = np.array([[item.surprises for item in row] for row in table]).swapaxes(1, 2)
        slopes = np.array([[item.slopes for item in row] for row in table]).swapaxes(1, 2)
        stds = np.array([[item.std for item in row] for row in table])
        estimates, outlying = Estimates.joined([one._estimates for one in measured]).corrected(
            surprises, slopes, stds, weighted=measured[0]._ego_speed_mps is not None
        )
        for row, is_outlying in enumerate(outlying.tolist()):
            measured[row]._judge(is_outlying)
        # A box that contradicts the most probable hypothesis costs certainty.
        ranges_m = estimates.means[..., RANGE]
        estimates.covariances[..., RANGE, RANGE] += outlying[:, None] * (_SURPRISE_RANGE * ranges_m) ** 2
        estimates.covariances[..., CLOSING, CLOSING] += outlying[:, None] * _SURPRISE_MPS**2
        cls._share(measured, estimates)

    def _measurements(self, seen: Observation, curvature_per_m: float) -> list[Measurement]:
        means, weights = self._estimates.means[0].tolist(), self._estimates.weights[0].tolist()
        return self._model.measured(seen, means, weights, self.range_m, curvature_per_m)

    def _judge(self, is_outlying: bool) -> None:
        """Update the counts of contradicting and of fitting boxes, after a box with a measurement."""
        was_lost = self.is_lost
        self.unmeasured_s = 0.0
        self._outlying_updates = self._outlying_updates + 1 if is_outlying else 0
        self._fitting_updates = min(self._fitting_updates, _LOST_UPDATES) if is_outlying else self._fitting_updates + 1
        self.is_found = was_lost or self.is_lost

    @staticmethod
    def _share(filters: Sequence[RangeFilter], estimates: Estimates) -> None:
        """Give each filter its own part of the estimates."""
        means, covariances = estimates.pooled()
        for row, one in enumerate(filters):
            one._settle(estimates[row], (means[row], covariances[row]))

    def _standing_std_mps(self) -> float:
        return _WALKING_STD_MPS if self._group == "person" else _STANDING_STD_MPS

    def _moving_std_mps(self) -> float:
        if self._ego_speed_mps is None:
            return _UNKNOWN_STD_MPS
        return max(_MOVING_SHARE * self._ego_speed_mps, _LEAST_MOVING_STD_MPS)

    def _usual_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Standard deviation of each state of both hypotheses without a measurement; 0 for range and closing speed."""
        size, unknown = self._size, _UNKNOWN_ACCELERATION_MPS2 if self._ego_speed_mps is None else 0.0
        moving = math.hypot(self._settings.acceleration_std_mps2, unknown)
        errors = size.height_spread, size.width_spread, self._pitch_std_rad()
        return (0.0, 0.0, STANDING_BRAKING_STD_MPS2, *errors), (0.0, 0.0, moving, *errors)

    def _pitch_std_rad(self) -> float:
        """Standard deviation of the pitch: that of the mounting, but at least that of the car on its springs."""
        return max(self._camera.pitch_std_rad, math.radians(self._settings.pitch_std_deg))
