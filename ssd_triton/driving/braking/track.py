"""A track of one object: its predicted box, and the filters of its range, speed and offset."""

from __future__ import annotations

import math

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.config import ObjectSizeConfig, TrackingConfig
from ssd_triton.driving.braking.box_model import RawRanges, excess_width, raw_ranges, shape_spread
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.kalman import RateFilter
from ssd_triton.driving.braking.observation import LEFT, RIGHT, Observation, group_of
from ssd_triton.driving.braking.onset import OnsetTest
from ssd_triton.driving.braking.ranging import RangeFilter
from ssd_triton.driving.braking.scale import ScaleFilter
from ssd_triton.driving.camera import Camera, RoadPoint

_SIDE_ACCELERATION_PER_S2 = 2.0
"""Standard deviation of the change in speed of a box's sides within a second, in heights of the box."""

_FIRST_SIDE_SPEED_PER_S = 1.0
"""Standard deviation of the initial speed of a box's sides, in heights of the box per second."""

_STEP = 0.1
"""Additional standard deviation of the sides of people and two-wheelers, which are not rigid, in heights of the box."""

_CROSSING_STD_MPS, _VEHICLE_CROSSING_STD_MPS = 3.0, 1.0
"""Standard deviation of a new object's lateral speed: between a runner and a bicycle; vehicles take 3 to 5 s for a lane
change of 3.5 m."""

_TURNED_SPREADS, _TURNED_GAIN = 2.0, 0.2
"""A vehicle counts as turned out of the corridor when its box, averaged over about 10 boxes, is wider for its height
than the boxes of 98 % of the vehicles that are not turned. For a car, this is an angle of 6°."""

_EVIDENCE_S, _FIRST_EVIDENCE = 0.3, 0.3
"""Time over which the scores of a track's detections are averaged, and the weight of the first one."""

_OFFSET_STD_M = 0.1
"""Standard deviation between the middle of a box and that of its object, in addition to the detector's noise: postures,
mirrors, shadows."""


class BoxFilter:
    """A Kalman filter of a box's sides at constant speeds; all have the same noise, and so share one covariance.

    Args:
        seen: The first observation.

    Attributes:
        box_xyxy: Estimated box, FP64 [4], pixels.
    """

    def __init__(self, seen: Observation) -> None:
        self.box_xyxy: Float64Array = seen.box_xyxy.copy()
        self._speeds_px_s = np.zeros(4)
        self._step = 0.0 if group_of(seen.class_name) == "vehicle" else _STEP
        self._variance = self._noise_px2(seen)
        self._covariance, self._speed_variance = 0.0, (_FIRST_SIDE_SPEED_PER_S * seen.height_px) ** 2

    def predict(self, dt_s: float) -> None:
        """Advance by a time step."""
        self.box_xyxy = self.box_xyxy + dt_s * self._speeds_px_s
        # Opposite sides must not cross.
        self.box_xyxy[2:] = np.maximum(self.box_xyxy[2:], self.box_xyxy[:2] + 1.0)
        drift = (_SIDE_ACCELERATION_PER_S2 * float(self.box_xyxy[3] - self.box_xyxy[1])) ** 2
        self._variance += dt_s * (2 * self._covariance + dt_s * self._speed_variance) + drift * dt_s**3 / 3
        self._covariance += dt_s * self._speed_variance + drift * dt_s**2 / 2
        self._speed_variance += drift * dt_s

    def update(self, seen: Observation) -> None:
        """Correct by an observation."""
        variance = self._variance + self._noise_px2(seen)
        gain, speed_gain = self._variance / variance, self._covariance / variance
        surprise_px = seen.box_xyxy - self.box_xyxy
        self.box_xyxy = self.box_xyxy + gain * surprise_px
        self._speeds_px_s = self._speeds_px_s + speed_gain * surprise_px
        self._speed_variance -= speed_gain * self._covariance
        self._covariance -= gain * self._covariance
        self._variance -= gain * self._variance

    def _noise_px2(self, seen: Observation) -> float:
        """Variance of a side, by the detector and by the object's steps."""
        return float(seen.size_std_px.max()) ** 2 + (self._step * seen.height_px) ** 2


class Track:
    """One tracked object.

    Args:
        track_id: Number of the track.
        time_s: Time of the first observation.
        seen: The first observation.
        ego: The ego's motion.
        corridor: The ego's corridor.
        camera: Its height and pitch uncertainty are used.
        settings: Noise and sizes.

    Attributes:
        evidence: Recent mean of its detections' scores, with 0 for the time before and for frames that missed it.
    """

    def __init__(
        self,
        track_id: int,
        time_s: float,
        seen: Observation,
        *,
        ego: EgoMotion,
        corridor: Corridor,
        camera: Camera,
        settings: TrackingConfig,
    ) -> None:
        self.track_id = track_id
        self.first_s = self.last_seen_s = time_s
        self.hits = 1
        self.seen = seen
        self.evidence = _FIRST_EVIDENCE * seen.score
        self.group = group_of(seen.class_name)
        self._settings = settings
        self._camera = camera
        self._votes: dict[str, float] = {seen.class_name: seen.score}
        self.class_name = seen.class_name
        self.box = BoxFilter(seen)
        self._elapsed_s = 0.0
        self._entered_s = math.inf
        self._start_filters(seen, ego, corridor)

    @property
    def size(self) -> ObjectSizeConfig:
        """Usual size of its class."""
        return self._settings.object_sizes[self.class_name]

    @property
    def raw(self) -> RawRanges:
        """Ranges from the last box alone."""
        return raw_ranges(self.seen, self.size, self._camera.height_m)

    def set_camera(self, camera: Camera) -> None:
        """Continue with another calibration."""
        self._camera = camera
        self.range.set_camera(camera)

    @property
    def is_turned(self) -> bool:
        """Whether a vehicle shows more of its side than one that follows the corridor would at its place.

        Such a vehicle is on another road, or farther along a bend that the ego has not reached.
        """
        return self.group == "vehicle" and self._turned > _TURNED_SPREADS * shape_spread(self.size)

    @property
    def is_leaving(self) -> bool:
        """Whether its last box touched exactly one side border of the image: it is about to leave the view."""
        left, _, right, _ = self.seen.cut
        return left != right

    @property
    def lateral_m(self) -> float:
        """Lateral position of its middle when last seen, relative to the ego's heading; positive to the right."""
        return self._middle().lateral_m

    def stay_s(self, time_s: float, *, in_corridor: bool) -> float:
        """Time for which the object has been in the corridor without interruption; call this once per frame."""
        if not in_corridor:
            self._entered_s = math.inf
        self._entered_s = min(self._entered_s, time_s)
        return time_s - self._entered_s if in_corridor else 0.0

    def offset_std_by_range_m(self, corridor: Corridor) -> float:
        """Part of the offset's standard deviation that comes from the range; it does not average out over frames."""
        return self._std_by_range_m(corridor, self._middle())

    def _std_by_range_m(self, corridor: Corridor, middle: RoadPoint) -> float:
        farther = 1 + self.range.range_std_m / self.range.range_m
        far_m = corridor.offset_m(middle.forward_m * farther, middle.lateral_m * farther)
        return abs(far_m - corridor.offset_m(*middle))

    def predict(self, dt_s: float, ego: EgoMotion) -> None:
        """Advance everything but the range by a time step; the tracker advances the ranges of all tracks at once."""
        self.evidence *= math.exp(-dt_s / _EVIDENCE_S)
        self._elapsed_s += dt_s
        self.box.predict(dt_s)
        self.scale.predict(dt_s)
        self.offset.predict(dt_s)
        self.onset_test.predict(dt_s, ego)

    def update(self, time_s: float, seen: Observation, ego: EgoMotion, corridor: Corridor) -> None:
        """Correct by an observation at the predicted time; the tracker has already corrected the range with it."""
        self.last_seen_s = time_s
        self.hits += 1
        self.seen = seen
        self.evidence += seen.score * (1 - math.exp(-self._elapsed_s / _EVIDENCE_S))
        self._elapsed_s = 0.0
        self.box.update(seen)
        self._votes[seen.class_name] = self._votes.get(seen.class_name, 0.0) + seen.score
        class_name = max(self._votes, key=self._votes.__getitem__)
        is_found = self.range.is_found
        if is_found or class_name != self.class_name:
            # The filters restart: another class has another size, and another object has another range. After a jump,
            # the track must be confirmed again.
            self.class_name = class_name
            self.hits = 1 if is_found else self.hits
            self._start_filters(seen, ego, corridor)
            return
        self.scale.update(seen)
        self.onset_test.update(seen, self.size)
        self._see_side(corridor)
        self._follow(corridor, ego)
        self.offset.update(*self._measured_offset(corridor))

    def _start_filters(self, seen: Observation, ego: EgoMotion, corridor: Corridor) -> None:
        self.scale = ScaleFilter(seen, use_width=self.group == "vehicle")
        self.range = RangeFilter(
            seen, ego, self.size, self._camera, self._settings, curvature_per_m=corridor.curvature_per_m
        )
        self.onset_test = OnsetTest()
        self._turned = 0.0
        self._corridor = corridor
        # While the ego follows its circle, a stationary object keeps its offset from the corridor, but not its lateral
        # position: with the offset, only true crossing appears as a rate.
        self.offset = RateFilter(
            *self._measured_offset(corridor),
            _VEHICLE_CROSSING_STD_MPS if self.group == "vehicle" else _CROSSING_STD_MPS,
            self._settings.lateral_acceleration_std_mps2,
        )

    def _see_side(self, corridor: Corridor) -> None:
        """Average how much wider a vehicle's box is than its rear and the side visible at its position explain."""
        if not all(self.seen.known):
            return
        range_m, size = self.range.range_m, self.size
        bearing = float(self.seen.directions[LEFT] + self.seen.directions[RIGHT]) / 2
        along = abs(corridor.curvature_per_m * range_m - bearing)
        side = along * size.length_m / size.width_m * range_m / (range_m + size.length_m)
        self._turned += _TURNED_GAIN * (excess_width(self.seen, size) - math.log1p(side) - self._turned)

    def _follow(self, corridor: Corridor, ego: EgoMotion) -> None:
        """Compensate the offset for a change of the corridor's curvature."""
        before, self._corridor = self._corridor, corridor
        if corridor.curvature_per_m == before.curvature_per_m:
            return
        # An object at speed v along the road moves across a path of curvature k, at range r, at the rate -k·r·v.
        own_mps = 0.0 if ego.speed_mps is None else ego.speed_mps - self.range.closing_speed_mps
        bent_per_m = corridor.curvature_per_m - before.curvature_per_m
        shift_m = self._measure_offset_m(corridor) - self._measure_offset_m(before)
        self.offset.value += shift_m
        self.offset.rate -= bent_per_m * self.range.range_m * own_mps

    def _middle(self) -> RoadPoint:
        """Position of the object's middle when last seen."""
        range_m, half_m = self.range.range_m, self.size.width_m / 2
        left, right = float(self.seen.directions[LEFT]), float(self.seen.directions[RIGHT])
        left_known, _, right_known, _ = self.seen.known
        if left_known != right_known:
            # The visible edge of an object beside the corridor, if it faces the corridor, belongs to its far end.
            side, edge = (1.0, left) if left_known else (-1.0, -right)
            edge_range_m = range_m + (self.size.length_m if edge > 0 else 0.0)
            return RoadPoint(edge_range_m, side * (edge * edge_range_m + half_m))
        middle_m = (left + right) / 2 * range_m
        if math.isnan(middle_m):
            return RoadPoint(range_m, 0.0)
        if self.group == "vehicle":
            # The visible side widens the box towards the corridor; the outer edge belongs to the near end.
            outer_m = max(abs(left), abs(right)) * range_m - half_m
            middle_m = math.copysign(max(abs(middle_m), outer_m), middle_m)
        return RoadPoint(range_m, middle_m)

    def _measure_offset_m(self, corridor: Corridor) -> float:
        return corridor.offset_m(*self._middle())

    def _measured_offset(self, corridor: Corridor) -> tuple[float, float]:
        """Offset from the last box, and its standard deviation, in metres."""
        middle = self._middle()
        noise_m = float(self.seen.direction_std[LEFT]) / math.sqrt(2) * self.range.range_m
        left_known, _, right_known, _ = self.seen.known
        one_sided_m = 0.0 if left_known and right_known else self.size.width_m / 4
        std_m = math.hypot(noise_m, self._std_by_range_m(corridor, middle), one_sided_m, _OFFSET_STD_M)
        return corridor.offset_m(*middle), std_m
