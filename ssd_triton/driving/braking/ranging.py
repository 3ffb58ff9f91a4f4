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

One filter for all motions is too slow for what stands, or too wild for what moves. Two hypotheses run side by side, each
with a filter of its own: the object stands (a person walks), or it moves as traffic does. Their weights follow from how
well each predicts the boxes, and they exchange estimates as in the interacting multiple model of Blom and Bar-Shalom
(IEEE Transactions on Automatic Control 33, 1988).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.config import ObjectSizeConfig, TrackingConfig
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import BOTTOM, LEFT, RIGHT, TOP, Observation, group_of
from ssd_triton.driving.camera import Camera

RANGE, CLOSING, BRAKING, HEIGHT_ERROR, WIDTH_ERROR, PITCH_ERROR = range(6)

STANDS, MOVES = range(2)
"""The hypotheses."""

_FIRST_WEIGHTS = {"person": (0.95, 0.05)}
_VEHICLE_WEIGHTS = (0.3, 0.7)
"""Weights before the first box, by group. In traffic, more vehicles drive than stand in the way; people walk."""

_RATES_PER_S = np.array([[-0.1, 0.1], [0.05, -0.05]])
"""How often an object passes from one hypothesis (row) to the other: it drives off after 10 s, and stops once in 20."""

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
"""This many boxes in a row with such outliers are no coincidence."""

LONGEST_UNMEASURED_S = 0.5
"""A range without a measurement for longer is worthless."""

_SIZE_TIME_CONSTANT_S = 20.0
"""The detector's idea of an object's outline drifts: the logarithms of the size return to 0 in this time."""

_LASTING_ERROR = math.sqrt(3)
"""Upper and lower edges err for many frames alike, where a shadow or the next car merges with a vehicle. That part of
their error does not average out, and exceeds the relative noise of a box by this factor: both together are twice the
noise. On the KITTI drive, lower edges are off by a fifth of the height for a second."""

_SIDE_ON = math.log(1.35)
"""A box wider than usual for its height by this factor shows the side of a vehicle, and not its rear."""


@dataclass(frozen=True)
class RawRanges:
    """Ranges from one box alone, in metres; None where a border cuts off the needed sides, or at the horizon."""

    from_ground_m: float | None
    from_size_m: float | None


def raw_ranges(seen: Observation, size: ObjectSizeConfig, camera_height_m: float) -> RawRanges:
    """Ranges from the ground contact alone, and from the size alone: the height, or else the width."""
    _, down_top, _, down_bottom = seen.directions
    left, top, right, bottom = seen.known
    ground_m = None
    if bottom and down_bottom > 0:
        ground_m = max(camera_height_m / down_bottom - size.overhang_m, 0.0)
    size_m = None
    if top and bottom:
        size_m = max(size.height_m / (down_bottom - down_top) - size.overhang_m / 2, 0.0)
    elif left and right:
        size_m = max(size.width_m / (seen.directions[RIGHT] - seen.directions[LEFT]) - size.overhang_m / 2, 0.0)
    return RawRanges(ground_m, size_m)


def excess_width(seen: Observation, size: ObjectSizeConfig) -> float:
    """Logarithm of a vehicle's aspect ratio relative to the usual one of its rear; 0 where it is unknown."""
    if group_of(seen.class_name) != "vehicle" or not all(seen.known):
        return 0.0
    return math.log(seen.width_px / seen.height_px * size.height_m / size.width_m)


def shape_spread(size: ObjectSizeConfig) -> float:
    """Relative standard deviation of the ratio of width to height within a class."""
    return math.hypot(size.height_spread, size.width_spread)


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
        self._outlying_updates = 0
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
        self._pool()

    def set_camera(self, camera: Camera) -> None:
        """Continue with another calibration: the error of the pitch, as estimated so far, belongs to the old one."""
        self._means[:, PITCH_ERROR] += math.radians(camera.pitch_deg - self._camera.pitch_deg)
        self._camera = camera
        variances = self._covariances[:, PITCH_ERROR, PITCH_ERROR]
        self._covariances[:, PITCH_ERROR, PITCH_ERROR] = np.maximum(variances, self._pitch_std_rad() ** 2)
        self._pool()

    @property
    def is_lost(self) -> bool:
        """Whether measurements have been missing for long, or the last boxes contradict the estimate."""
        return self._outlying_updates >= _LOST_UPDATES or self.unmeasured_s > LONGEST_UNMEASURED_S

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
        return float(self._mean[RANGE])

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
        settings = self._settings
        transition = _transition(dt_s, settings.pitch_time_constant_s, settings.acceleration_time_constant_s)
        self._means = self._means @ transition.T
        np.maximum(self._means[:, RANGE], _NEAREST_M, out=self._means[:, RANGE])
        self._covariances = transition @ self._covariances @ transition.T
        noise = self._covariances[:, range(6), range(6)]
        noise[:, PITCH_ERROR] += self._pitch_std_rad() ** 2 * (1 - transition[PITCH_ERROR, PITCH_ERROR] ** 2)
        noise[:, BRAKING] += self._braking_std_mps2() ** 2 * (1 - transition[BRAKING, BRAKING] ** 2)
        noise[:, CLOSING] += settings.speed_drift_mps**2 * dt_s
        forgotten = 1 - transition[HEIGHT_ERROR, HEIGHT_ERROR] ** 2
        noise[:, HEIGHT_ERROR] += self._size.height_spread**2 * forgotten
        noise[:, WIDTH_ERROR] += self._size.width_spread**2 * forgotten
        self._covariances[:, range(6), range(6)] = noise
        self._pool()

    def _mix(self, dt_s: float) -> None:
        """Let each hypothesis start from the estimates of those that an object may have passed from."""
        if self._ego_speed_mps is None:
            self._weights = np.array([0.0, 1.0])
            return
        passing = np.eye(2) + _RATES_PER_S * min(dt_s, 0.5)
        joint = self._weights[:, None] * passing  # [from, to]
        weights = joint.sum(axis=0)
        shares = joint / np.maximum(weights, 1e-12)
        # What an object enters a hypothesis with: [from, to, 6] and [from, to, 6, 6].
        means = np.repeat(self._means[:, None], 2, axis=1)
        covariances = np.repeat(self._covariances[:, None], 2, axis=1)
        stds = self._braking_std_mps2()
        self._enter(means, covariances, STANDS, CLOSING, self._ego_speed_mps, self._standing_std_mps())
        self._enter(means, covariances, STANDS, BRAKING, 0.0, stds[STANDS])
        self._enter(means, covariances, MOVES, BRAKING, 0.0, stds[MOVES])
        mixed = (shares[:, :, None] * means).sum(axis=0)
        apart = means - mixed
        spread = covariances + apart[..., :, None] * apart[..., None, :]
        self._means, self._covariances = mixed, (shares[:, :, None, None] * spread).sum(axis=0)
        self._weights = weights

    @staticmethod
    def _enter(means: Float64Array, covariances: Float64Array, to: int, state: int, value: float, std: float) -> None:
        """Set what an object that enters a hypothesis from the other one has: a mean, and its standard deviation."""
        of = 1 - to
        means[of, to, state] = value
        covariances[of, to, state, :] = covariances[of, to, :, state] = 0.0
        covariances[of, to, state, state] = std**2

    def update(self, seen: Observation, curvature_per_m: float = 0.0) -> None:
        """Correct by the sides of a box that belong to the object.

        Args:
            seen: The box.
            curvature_per_m: Curvature of the corridor, which vehicles mostly follow.
        """
        rows = self._measured(seen, curvature_per_m)
        if not rows:
            self._outlying_updates = 0
            return
        self.unmeasured_s = 0.0
        surprise = np.array([row[0] for row in rows]).T  # [2, m]
        slopes = np.array([row[1] for row in rows]).transpose(1, 0, 2)  # [2, m, 6]
        noise = np.array([row[2] for row in rows]) ** 2  # [m]
        spread = self._covariances @ slopes.transpose(0, 2, 1)  # [2, 6, m]
        innovation = slopes @ spread  # [2, m, m]
        own = range(len(rows))
        innovation[:, own, own] += noise
        variance = innovation[:, own, own]
        excess = surprise**2 / (_OUTLIER_STD**2 * variance)
        innovation[:, own, own] += variance * np.maximum(excess - 1, 0.0)
        weighted = np.linalg.solve(innovation, surprise[..., None])[..., 0]  # [2, m]
        distance = (surprise * weighted).sum(axis=1)
        log_likelihood = -0.5 * (distance + np.log(np.linalg.det(innovation)))
        gain = np.linalg.solve(innovation, spread.transpose(0, 2, 1)).transpose(0, 2, 1)  # [2, 6, m]
        self._means = self._means + (gain @ surprise[..., None])[..., 0]
        np.maximum(self._means[:, RANGE], _NEAREST_M, out=self._means[:, RANGE])
        covariances = self._covariances - gain @ spread.transpose(0, 2, 1)
        self._covariances = (covariances + covariances.transpose(0, 2, 1)) / 2
        weights = self._weights * np.exp(np.maximum(log_likelihood - log_likelihood.max(), -50.0))
        if self._ego_speed_mps is not None:
            weights = np.maximum(weights / weights.sum(), _LEAST_WEIGHT)
        self._weights = weights / weights.sum()
        self._doubt(bool((excess[int(self._weights.argmax())] > 1).any()))
        self._pool()

    def _doubt(self, outlying: bool) -> None:
        """A box that contradicts the most probable hypothesis costs certainty."""
        self._outlying_updates = self._outlying_updates + 1 if outlying else 0
        if outlying:
            self._covariances[:, RANGE, RANGE] += (_SURPRISE_RANGE * self._means[:, RANGE]) ** 2
            self._covariances[:, CLOSING, CLOSING] += _SURPRISE_MPS**2

    def _pool(self) -> None:
        """Mean and covariance over the hypotheses, of range, closing speed and braking."""
        means, weights = self._means[:, :3], self._weights
        mean = weights @ means
        apart = means - mean
        spread = self._covariances[:, :3, :3] + apart[:, :, None] * apart[:, None, :]
        self._mean: list[float] = mean.tolist()
        self._covariance: list[list[float]] = (weights[:, None, None] * spread).sum(axis=0).tolist()

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

    def _measured(self, seen: Observation, curvature_per_m: float) -> list[tuple[Float64Array, Float64Array, float]]:
        """Surprise FP64 [2], slope FP64 [2, 6] and standard deviation of each measurement of a box."""
        left, top, right, bottom = seen.known
        rows = []
        doubt = self._doubt_of_height(seen)
        if bottom:
            rows.append(self._lower(seen.directions[BOTTOM], self._edge_std(seen) * doubt))
        elif seen.cut[BOTTOM]:
            row = self._lower(seen.lowest_direction, seen.direction_std[BOTTOM])
            if row[0] @ self._weights > 0:
                # The contact lies below the image: the object is nearer than the road at the image's lower border.
                rows.append(row)
        if top and (bottom or seen.cut[BOTTOM]):
            rows.append(self._upper(seen.directions[TOP], self._edge_std(seen) * doubt))
        if left and right and self._group == "vehicle" and excess_width(seen, self._size) < _SIDE_ON:
            width = float(seen.directions[RIGHT] - seen.directions[LEFT])
            rows.append(self._width(width, self._width_std(seen, width, curvature_per_m)))
        return rows

    def _edge_std(self, seen: Observation) -> float:
        """Standard deviation of the upper and lower edge as directions."""
        height = float(seen.directions[BOTTOM] - seen.directions[TOP])
        return math.hypot(float(seen.direction_std[TOP]), _LASTING_ERROR * self._settings.box_noise_relative * height)

    def _lower(self, direction: float, std: float) -> tuple[Float64Array, Float64Array, float]:
        contact_m = self._means[:, RANGE] + self._size.overhang_m
        expected = self._camera.height_m / contact_m
        slope = np.zeros((2, 6))
        slope[:, RANGE] = -expected / contact_m
        slope[:, PITCH_ERROR] = 1.0
        return direction - expected - self._means[:, PITCH_ERROR], slope, float(std)

    def _upper(self, direction: float, std: float) -> tuple[Float64Array, Float64Array, float]:
        outline_m = self._means[:, RANGE] + self._size.overhang_m / 2
        height_m = self._size.height_m * np.exp(self._means[:, HEIGHT_ERROR])
        below_camera_m = self._camera.height_m - height_m
        slope = np.zeros((2, 6))
        slope[:, RANGE] = -below_camera_m / outline_m**2
        slope[:, HEIGHT_ERROR] = -height_m / outline_m
        slope[:, PITCH_ERROR] = 1.0
        return direction - below_camera_m / outline_m - self._means[:, PITCH_ERROR], slope, float(std)

    def _width(self, width: float, std: float) -> tuple[Float64Array, Float64Array, float]:
        outline_m = self._means[:, RANGE] + self._size.overhang_m / 2
        expected = self._size.width_m * np.exp(self._means[:, WIDTH_ERROR]) / outline_m
        slope = np.zeros((2, 6))
        slope[:, RANGE] = -expected / outline_m
        slope[:, WIDTH_ERROR] = expected
        return width - expected, slope, float(std)

    def _doubt_of_height(self, seen: Observation) -> float:
        """Factor on the error of the upper and lower edge of a box that is too high for its width.

        Detectors mistake a vehicle's shadow or reflection for a part of it.
        """
        return max(1.0, -excess_width(seen, self._size) / shape_spread(self._size))

    def _width_std(self, seen: Observation, width: float, curvature_per_m: float) -> float:
        """Standard deviation of a width as a direction, from the detector's noise and a visible side of the vehicle."""
        noise = math.sqrt(2) * float(seen.direction_std[LEFT])
        turned_by = min(abs(curvature_per_m) * self.range_m, 1.0)
        bend = turned_by * self._size.length_m / (self.range_m + self._size.length_m)
        return (
            noise
            + bend
            + self._visible_side(seen)
            + width * max(excess_width(seen, self._size) - shape_spread(self._size), 0.0)
        )

    def _visible_side(self, seen: Observation) -> float:
        """Width that the visible side of a vehicle beside the corridor may add to its box, as a direction."""
        middle = abs(float(seen.directions[LEFT] + seen.directions[RIGHT])) / 2
        aside_m = max(middle * self.range_m - self._size.width_m / 2, 0.0)
        return aside_m * self._size.length_m / (self.range_m * (self.range_m + self._size.length_m))


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
