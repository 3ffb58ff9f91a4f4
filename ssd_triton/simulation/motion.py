"""Where everything is at a time: in closed form, so that it does not depend on time steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssd_triton.simulation.scenario import Road, SideMove, SpeedPhase, Target

Float64Array = npt.NDArray[np.float64]

_MOVING_MPS = 0.1
"""From this speed on, what moves looks where it goes."""


@dataclass(frozen=True)
class Pose:
    """A place on the ground and a heading.

    Attributes:
        x_m: Along the road's first metre.
        y_m: To its right.
        heading_rad: From the x-axis towards the y-axis, so that positive turns to the right.
    """

    x_m: float
    y_m: float
    heading_rad: float

    def to_world(self, points_m: Float64Array) -> Float64Array:
        """Points ahead of this pose and to its right, [n, 2] or with heights [n, 3], in the world's axes."""
        cos, sin = math.cos(self.heading_rad), math.sin(self.heading_rad)
        moved = points_m.copy()
        moved[:, 0] = self.x_m + points_m[:, 0] * cos - points_m[:, 1] * sin
        moved[:, 1] = self.y_m + points_m[:, 0] * sin + points_m[:, 1] * cos
        return moved

    def to_local(self, points_m: Float64Array) -> Float64Array:
        """The inverse of :meth:`to_world`."""
        cos, sin = math.cos(self.heading_rad), math.sin(self.heading_rad)
        dx, dy = points_m[:, 0] - self.x_m, points_m[:, 1] - self.y_m
        moved = points_m.copy()
        moved[:, 0] = dx * cos + dy * sin
        moved[:, 1] = dy * cos - dx * sin
        return moved


def road_pose(road: Road, along_m: float, offset_m: float = 0.0) -> Pose:
    """A place on the road, heading along it.

    Args:
        road: The road.
        along_m: Length of its middle line from the camera at the start.
        offset_m: Across it, positive to the right.
    """
    arc_m = along_m - road.curve_start_m
    if road.curvature_per_m == 0 or arc_m <= 0:
        return Pose(along_m, offset_m, 0.0)
    radius_m, heading_rad = 1 / road.curvature_per_m, road.curvature_per_m * arc_m
    return Pose(
        road.curve_start_m + (radius_m - offset_m) * math.sin(heading_rad),
        radius_m - (radius_m - offset_m) * math.cos(heading_rad),
        heading_rad,
    )


def travelled(speed_mps: float, phases: Sequence[SpeedPhase], time_s: float) -> tuple[float, float]:
    """Way and speed after a time of constant accelerations one after the other; braking ends at standstill.

    Args:
        speed_mps: At the start; may be negative.
        phases: By time.
        time_s: At least 0.

    Returns:
        Metres since the start, and metres a second.
    """
    way_m, now_s, acceleration = 0.0, 0.0, 0.0
    for start_s, following in [*((phase.start_s, phase.acceleration_mps2) for phase in phases), (math.inf, 0.0)]:
        lasting_s = min(start_s, time_s) - now_s
        if lasting_s > 0:
            stopping_s = -speed_mps / acceleration if speed_mps * acceleration < 0 else math.inf
            moving_s = min(lasting_s, stopping_s)
            way_m += speed_mps * moving_s + acceleration * moving_s**2 / 2
            speed_mps = 0.0 if stopping_s <= lasting_s else speed_mps + acceleration * moving_s
            now_s += lasting_s
        acceleration = following
    return way_m, speed_mps


def moved_aside(offset_m: float, move: SideMove | None, time_s: float) -> tuple[float, float]:
    """Offset from the middle of the ego lane after a time, and the speed across."""
    if move is None or time_s <= move.start_s:
        return offset_m, 0.0
    if time_s >= move.start_s + move.duration_s:
        return move.to_offset_m, 0.0
    part, way_m = (time_s - move.start_s) / move.duration_s, move.to_offset_m - offset_m
    if not move.smooth:
        return offset_m + way_m * part, way_m / move.duration_s
    turn = math.pi * part
    speed_mps = way_m * math.pi / 2 * math.sin(turn) / move.duration_s
    return offset_m + way_m * (1 - math.cos(turn)) / 2, speed_mps


@dataclass(frozen=True)
class TargetState:
    """A target at a time.

    Attributes:
        target: What it is.
        pose: Of its middle, on the ground.
        along_m: Of its middle along the road, from the camera at the start.
        speed_along_mps: Along the road.
        speed_across_mps: Across it, positive to the right.
        acceleration_mps2: Along the road.
        walked_m: Way since the start, for the phase of walking and of wheels.
    """

    target: Target
    pose: Pose
    along_m: float
    speed_along_mps: float
    speed_across_mps: float
    acceleration_mps2: float
    walked_m: float

    def outline_m(self) -> Float64Array:
        """Corners of its outer rectangle on the ground in the world's axes, FP64 [4, 2], in turn."""
        size = self.target.size
        return self.pose.to_world(rectangle(-size.length_m / 2, size.length_m / 2, size.width_m))


def rectangle(rear_m: float, front_m: float, width_m: float) -> Float64Array:
    """Corners of a rectangle about the x-axis, FP64 [4, 2], in turn."""
    half_m = width_m / 2
    return np.array([[rear_m, -half_m], [front_m, -half_m], [front_m, half_m], [rear_m, half_m]])


def target_state(target: Target, road: Road, front_overhang_m: float, time_s: float) -> TargetState:
    """A target at a time.

    Args:
        target: What it is.
        road: Where it is.
        front_overhang_m: From the camera to the ego's front bumper, from where gaps count.
        time_s: After the start.
    """
    way_m, speed_mps = travelled(target.speed_mps, target.phases, time_s)
    offset_m, across_mps = moved_aside(target.offset_m, target.side_move, time_s)
    heading_rad = math.radians(target.heading_deg)
    along_m = front_overhang_m + target.gap_m + _reach_along_m(target) + way_m
    if math.hypot(speed_mps, across_mps) > _MOVING_MPS:
        heading_rad = math.atan2(across_mps, speed_mps)
    elif target.speed_mps < 0:
        heading_rad = math.pi
    lane = road_pose(road, along_m, offset_m)
    active = [phase.acceleration_mps2 for phase in target.phases if phase.start_s <= time_s]
    return TargetState(
        target,
        Pose(lane.x_m, lane.y_m, lane.heading_rad + heading_rad),
        along_m,
        speed_mps,
        across_mps,
        active[-1] if active and speed_mps != 0 else 0.0,
        abs(way_m) + abs(offset_m - target.offset_m),
    )


def _reach_along_m(target: Target) -> float:
    """From a target's middle to its point nearest to the ego along the road, at the start."""
    heading_rad = math.radians(target.heading_deg)
    length_m, width_m = target.size.length_m, target.size.width_m
    return abs(length_m / 2 * math.cos(heading_rad)) + abs(width_m / 2 * math.sin(heading_rad))
