"""Positions and speeds as functions of time, in closed form: they do not depend on time steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd_triton.common.arrays import Float64Array
from ssd_triton.simulation.scenario import Road, SideMove, SpeedPhase, Target

_MOVING_MPS = 0.1
"""From this speed on, a target faces its direction of motion."""


@dataclass(frozen=True)
class Pose:
    """A position on the ground and a heading.

    Attributes:
        x_m: Along the road's first metre.
        y_m: To its right.
        heading_rad: From the x-axis towards the y-axis, so that positive turns to the right.
    """

    x_m: float
    y_m: float
    heading_rad: float

    def to_world(self, points_m: Float64Array) -> Float64Array:
        """Transform points ahead of this pose and to its right, [n, 2] or with heights [n, 3], to the world's axes."""
        cos, sin = math.cos(self.heading_rad), math.sin(self.heading_rad)
        moved = points_m.copy()
        moved[:, 0] = self.x_m + points_m[:, 0] * cos - points_m[:, 1] * sin
        moved[:, 1] = self.y_m + points_m[:, 0] * sin + points_m[:, 1] * cos
        return moved

    def to_local(self, points_m: Float64Array) -> Float64Array:
        """Invert :meth:`to_world`."""
        cos, sin = math.cos(self.heading_rad), math.sin(self.heading_rad)
        dx, dy = points_m[:, 0] - self.x_m, points_m[:, 1] - self.y_m
        moved = points_m.copy()
        moved[:, 0] = dx * cos + dy * sin
        moved[:, 1] = dy * cos - dx * sin
        return moved


def road_pose(road: Road, along_m: float, offset_m: float = 0.0) -> Pose:
    """Pose on the road, heading along it.

    Args:
        road: The road.
        along_m: Along its middle line, from the camera at the start.
        offset_m: Across the road, positive to the right.
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
    """Distance and speed after phases of constant acceleration; braking ends at standstill.

    Args:
        speed_mps: Initial speed; may be negative.
        phases: In order of time.
        time_s: At least 0.

    Returns:
        Distance since the start in metres, and speed in metres per second.
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
    """Offset from the middle of the ego lane and lateral speed, at a time."""
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
    """A target at one instant.

    Attributes:
        target: The target.
        pose: Pose of its middle, on the ground.
        along_m: Position of its middle along the road, from the camera at the start.
        speed_along_mps: Speed along the road.
        speed_across_mps: Speed across the road, positive to the right.
        acceleration_mps2: Acceleration along the road.
        walked_m: Distance moved since the start, for the phase of the gait.
    """

    target: Target
    pose: Pose
    along_m: float
    speed_along_mps: float
    speed_across_mps: float
    acceleration_mps2: float
    walked_m: float

    def outline_m(self) -> Float64Array:
        """Corners of its bounding rectangle on the ground, in order around it: FP64 [4, 2] in the world's axes."""
        size = self.target.size
        return self.pose.to_world(rectangle(-size.length_m / 2, size.length_m / 2, size.width_m))


def rectangle(rear_m: float, front_m: float, width_m: float) -> Float64Array:
    """Corners of a rectangle centred on the x-axis, in order around it, FP64 [4, 2]."""
    half_m = width_m / 2
    return np.array([[rear_m, -half_m], [front_m, -half_m], [front_m, half_m], [rear_m, half_m]])


def target_state(target: Target, road: Road, front_overhang_m: float, time_s: float) -> TargetState:
    """State of a target at a time.

    Args:
        target: The target.
        road: Its road.
        front_overhang_m: From the camera to the ego's front bumper, the origin of gaps.
        time_s: Since the start.
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
    """Distance along the road from a target's middle to its point nearest to the ego, at the start."""
    heading_rad = math.radians(target.heading_deg)
    length_m, width_m = target.size.length_m, target.size.width_m
    return abs(length_m / 2 * math.cos(heading_rad)) + abs(width_m / 2 * math.sin(heading_rad))
