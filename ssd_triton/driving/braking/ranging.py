"""Range and closing speed of one object, from its ground contact and its apparent size.

Both sources have errors that do not average out: the camera's pitch for the ground contact, and the object's true size
for the apparent size. An extended Kalman filter estimates these errors along with range and closing speed (state:
range, closing speed, the object's share in the closing acceleration, relative error of height and of width, pitch
error). It measures the directions to the lower and the upper edge of the box, and the box's width:

    lower edge   h/(r + i) + p
    upper edge   (h - H·(1 + e_H))/(r + i/2) + p
    width        W·(1 + e_W)/(r + i/2)

with the camera's height h, the class's usual height H, width W and overhang i, the range r and the pitch error p. The
two sources check each other, the filter learns the object's size, and the standard deviation of the range includes the
remaining uncertainty. Ranges count from the camera to the near face, along the ego's heading. The wheels touch the road
behind the near face by the overhang, and the outline is widest and highest about half way there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.config import ObjectSizeConfig, TrackingConfig
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.observation import BOTTOM, LEFT, RIGHT, TOP, Observation, group_of
from ssd_triton.driving.camera import Camera

RANGE, CLOSING, BRAKING, HEIGHT_ERROR, WIDTH_ERROR, PITCH_ERROR = range(6)

_NEAREST_M = 0.3
"""Smallest range: the filter must not cross the camera."""

_FIRST_RANGE_SPREAD = 0.5
"""Relative standard deviation of the range before the first measurement."""

_FIRST_PASSES = 3
"""Number of passes over the first box, each linearised about the range of the pass before."""

_CLOSING_STD_MPS = 10.0
"""Standard deviation of the closing speed before it has been measured."""

_WALKING_STD_MPS = 2.0
"""The same for pedestrians, around the ego's own speed."""

_OUTLIER_STD = 3.0
"""Beyond this many standard deviations, a measurement's weight falls with its distance."""

_STOPPING_S, _LEAST_ACCELERATION_MPS2 = 2.0, 1.0
"""The standard deviation of accelerations would stop the ego in two seconds, and is at least that of usual traffic."""

_LOST_UPDATES = 3
"""This many boxes in a row with such outliers are no coincidence."""

LONGEST_UNMEASURED_S = 0.5
"""A range without a measurement for longer is worthless."""

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
        self._walks = seen.class_name == "person"
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
            self._mean, self._covariance = self._prior(range_m)
            self.update(seen, curvature_per_m)
            range_m = float(self._mean[RANGE])

    def _prior(self, range_m: float) -> tuple[Float64Array, Float64Array]:
        """Initial mean and covariance for a rough range."""
        # Half of the ego's speed lies between stationary objects and those that drive at the ego's speed.
        closing_mps, closing_std_mps = (self._ego_speed_mps or 0.0) / 2, _CLOSING_STD_MPS
        if self._walks and self._ego_speed_mps is not None:
            closing_mps, closing_std_mps = self._ego_speed_mps, _WALKING_STD_MPS
        stds = (
            _FIRST_RANGE_SPREAD * range_m,
            closing_std_mps,
            self._acceleration_std_mps2(),
            self._size.height_spread,
            self._size.width_spread,
            self._pitch_std_rad(),
        )
        return np.array([max(range_m, _NEAREST_M), closing_mps, 0.0, 0.0, 0.0, 0.0]), np.diag(np.square(stds))

    def set_camera(self, camera: Camera) -> None:
        """Continue with another calibration: the error of the pitch, as estimated so far, belongs to the old one."""
        turned_rad = math.radians(camera.pitch_deg - self._camera.pitch_deg)
        self._camera = camera
        self._mean[PITCH_ERROR] += turned_rad
        self._covariance[PITCH_ERROR, PITCH_ERROR] = max(
            self._covariance[PITCH_ERROR, PITCH_ERROR], self._pitch_std_rad() ** 2
        )

    @property
    def is_lost(self) -> bool:
        """Whether measurements have been missing for long, or the last boxes contradict the estimate."""
        return self._outlying_updates >= _LOST_UPDATES or self.unmeasured_s > LONGEST_UNMEASURED_S

    @property
    def range_m(self) -> float:
        """Range from the camera to the near face."""
        return float(self._mean[RANGE])

    @property
    def braking_std_mps2(self) -> float:
        """Standard deviation of the braking."""
        return self._std(BRAKING)

    @property
    def outline_range_m(self) -> float:
        """Range from the camera to the widest part of the outline."""
        return self.range_m + self._size.overhang_m / 2

    @property
    def range_std_m(self) -> float:
        """Standard deviation of the range, pitch and size errors included."""
        return self._std(RANGE)

    @property
    def closing_speed_mps(self) -> float:
        """Rate at which the range shrinks."""
        return float(self._mean[CLOSING])

    @property
    def closing_speed_std_mps(self) -> float:
        """Standard deviation of the closing speed."""
        return self._std(CLOSING)

    @property
    def braking_mps2(self) -> float:
        """Deceleration of the object; negative when it accelerates."""
        return float(self._mean[BRAKING])

    @property
    def closing_rate_per_s(self) -> float:
        """Closing speed over range: one over the time until the object's outline reaches the camera."""
        return self.closing_speed_mps / self.outline_range_m

    @property
    def closing_rate_std_per_s(self) -> float:
        """Standard deviation of :attr:`closing_rate_per_s`; correlated errors of range and speed cancel."""
        rate_per_s, covariance = self.closing_rate_per_s, self._covariance
        variance = float(
            covariance[CLOSING, CLOSING]
            + rate_per_s * (rate_per_s * covariance[RANGE, RANGE] - 2 * covariance[RANGE, CLOSING])
        )
        return math.sqrt(max(variance, 0.0)) / self.outline_range_m

    def _std(self, index: int) -> float:
        # Rounding may make the variance slightly negative.
        return math.sqrt(max(float(self._covariance[index, index]), 0.0))

    def predict(self, dt_s: float, ego: EgoMotion) -> None:
        """Advance by a time step, with the change of the ego's speed where both speeds are known."""
        if ego.speed_mps is not None and self._ego_speed_mps is not None:
            change_mps = ego.speed_mps - self._ego_speed_mps
            self._mean[RANGE] -= change_mps * dt_s / 2
            self._mean[CLOSING] += change_mps
        self._ego_speed_mps = ego.speed_mps
        self.unmeasured_s += dt_s
        settings = self._settings
        decay = math.exp(-dt_s / settings.pitch_time_constant_s)
        easing = math.exp(-dt_s / settings.acceleration_time_constant_s)
        transition = np.diag([1.0, 1.0, easing, 1.0, 1.0, decay])
        transition[RANGE, CLOSING] = -dt_s
        transition[RANGE, BRAKING] = -(dt_s**2) / 2
        transition[CLOSING, BRAKING] = dt_s
        self._mean = transition @ self._mean
        self._mean[RANGE] = max(self._mean[RANGE], _NEAREST_M)
        self._covariance = transition @ self._covariance @ transition.T
        self._covariance[PITCH_ERROR, PITCH_ERROR] += self._pitch_std_rad() ** 2 * (1 - decay**2)
        self._covariance[BRAKING, BRAKING] += self._acceleration_std_mps2() ** 2 * (1 - easing**2)
        self._covariance[CLOSING, CLOSING] += settings.speed_drift_mps**2 * dt_s

    def update(self, seen: Observation, curvature_per_m: float = 0.0) -> None:
        """Correct by the sides of a box that belong to the object.

        Args:
            seen: The box.
            curvature_per_m: Curvature of the corridor, which vehicles mostly follow.
        """
        left, top, right, bottom = seen.known
        self._outlying = False
        if bottom:
            self._update_lower(seen.directions[BOTTOM], seen.direction_std[BOTTOM] * self._doubt_of_height(seen))
        elif seen.cut[BOTTOM] and seen.lowest_direction > self._expected_lower():
            # The contact lies below the image: the object is nearer than the road at the image's lower border.
            self._update_lower(seen.lowest_direction, seen.direction_std[BOTTOM])
        if top and (bottom or seen.cut[BOTTOM]):
            self._update_upper(seen.directions[TOP], seen.direction_std[TOP] * self._doubt_of_height(seen))
        if left and right and group_of(seen.class_name) == "vehicle" and self._excess_width(seen) < _SIDE_ON:
            width = float(seen.directions[RIGHT] - seen.directions[LEFT])
            self._update_width(width, self._width_std(seen, width, curvature_per_m))
        self._outlying_updates = self._outlying_updates + 1 if self._outlying else 0

    def _acceleration_std_mps2(self) -> float:
        """Standard deviation of the object's acceleration: less in slow traffic, where other vehicles are slow too."""
        if self._walks:
            return _LEAST_ACCELERATION_MPS2
        limit_mps2 = self._settings.acceleration_std_mps2
        if self._ego_speed_mps is None:
            return limit_mps2
        return min(limit_mps2, max(self._ego_speed_mps / _STOPPING_S, _LEAST_ACCELERATION_MPS2))

    def _pitch_std_rad(self) -> float:
        """Standard deviation of the pitch: of the mounting, but at least of the car on its springs."""
        return max(self._camera.pitch_std_rad, math.radians(self._settings.pitch_std_deg))

    def _excess_width(self, seen: Observation) -> float:
        """Logarithm of a whole box's aspect ratio relative to the usual one; 0 where it is unknown."""
        if group_of(seen.class_name) != "vehicle" or not all(seen.known):
            return 0.0
        return math.log(seen.width_px / seen.height_px * self._size.height_m / self._size.width_m)

    def _doubt_of_height(self, seen: Observation) -> float:
        """Factor on the error of the upper and lower edge of a box that is too high for its width.

        Detectors mistake a vehicle's shadow or reflection for a part of it.
        """
        return max(1.0, -self._excess_width(seen) / self._shape_spread())

    def _width_std(self, seen: Observation, width: float, curvature_per_m: float) -> float:
        """Standard deviation of a width as a direction, from the detector's noise and a visible side of the vehicle."""
        noise = math.sqrt(2) * float(seen.direction_std[LEFT])
        turned_by = min(abs(curvature_per_m) * self.range_m, 1.0)
        bend = turned_by * self._size.length_m / (self.range_m + self._size.length_m)
        return (
            noise + bend + self._visible_side(seen) + width * max(self._excess_width(seen) - self._shape_spread(), 0.0)
        )

    def _shape_spread(self) -> float:
        """Relative standard deviation of the ratio of width to height within the class."""
        return math.hypot(self._size.height_spread, self._size.width_spread)

    def _visible_side(self, seen: Observation) -> float:
        """Width that the visible side of a vehicle beside the corridor may add to its box, as a direction."""
        middle = abs(float(seen.directions[LEFT] + seen.directions[RIGHT])) / 2
        aside_m = max(middle * self.range_m - self._size.width_m / 2, 0.0)
        return aside_m * self._size.length_m / (self.range_m * (self.range_m + self._size.length_m))

    def _contact_range_m(self) -> float:
        return self.range_m + self._size.overhang_m

    def _expected_lower(self) -> float:
        return self._camera.height_m / self._contact_range_m() + float(self._mean[PITCH_ERROR])

    def _update_lower(self, direction: float, std: float) -> None:
        slope = np.array([-self._camera.height_m / self._contact_range_m() ** 2, 0.0, 0.0, 0.0, 0.0, 1.0])
        self._update(direction - self._expected_lower(), slope, std)

    def _update_upper(self, direction: float, std: float) -> None:
        range_m, height_m = self.outline_range_m, self._size.height_m
        below_camera_m = self._camera.height_m - height_m * (1 + self._mean[HEIGHT_ERROR])
        slope = np.array([-below_camera_m / range_m**2, 0.0, 0.0, -height_m / range_m, 0.0, 1.0])
        self._update(direction - below_camera_m / range_m - self._mean[PITCH_ERROR], slope, std)

    def _update_width(self, width: float, std: float) -> None:
        range_m, width_m = self.outline_range_m, self._size.width_m
        expected = width_m * (1 + self._mean[WIDTH_ERROR]) / range_m
        slope = np.array([-expected / range_m, 0.0, 0.0, 0.0, width_m / range_m, 0.0])
        self._update(width - expected, slope, std)

    def _update(self, surprise: float, slope: Float64Array, std: float) -> None:
        spread = self._covariance @ slope
        variance = float(slope @ spread) + std**2
        self.unmeasured_s = 0.0
        excess = surprise**2 / (_OUTLIER_STD**2 * variance)
        self._outlying = self._outlying or excess > 1
        gain = spread / (variance * max(excess, 1.0))
        self._mean = self._mean + gain * surprise
        self._mean[RANGE] = max(self._mean[RANGE], _NEAREST_M)
        self._covariance = self._covariance - gain[:, None] * spread
