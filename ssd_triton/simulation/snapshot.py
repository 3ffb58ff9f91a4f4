"""The simulated world at one instant, and the true figures of its targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import Pose, TargetState
from ssd_triton.simulation.scenario import Scenario


@dataclass(frozen=True)
class Snapshot:
    """The world at one instant.

    Attributes:
        time_s: Since the start.
        scenario: The scenario that is driven.
        ego: Point below the camera, and heading.
        ego_along_m: Distance driven since the start.
        ego_speed_mps: Speed over ground.
        ego_deceleration_mps2: Deceleration by braking; at least 0.
        ego_yaw_rate_rad_s: Positive turns to the left, as in :class:`ssd_triton.driving.braking.ego.EgoMotion`.
        camera: The camera with its pitch at this time.
        targets: In the scenario's order.
    """

    time_s: float
    scenario: Scenario
    ego: Pose
    ego_along_m: float
    ego_speed_mps: float
    ego_deceleration_mps2: float
    ego_yaw_rate_rad_s: float
    camera: Camera
    targets: tuple[TargetState, ...]

    @property
    def ego_motion(self) -> EgoMotion:
        """The ego's motion as its own sensors report it."""
        return EgoMotion(self.ego_speed_mps, self.ego_yaw_rate_rad_s)


@dataclass(frozen=True)
class TargetTruth:
    """A target relative to the ego, at one instant.

    Attributes:
        range_m: From the camera to its nearest point, along the ego's heading; negative behind it.
        gap_m: Along the road from the ego's front bumper to its nearest end.
        lateral_m: From the camera to its middle, positive to the right.
        closing_mps: Speed along the road at which the gap shrinks.
        ttc_s: Time to collision, gap over closing speed; infinite where the gap does not shrink or is behind the ego.
    """

    range_m: float
    gap_m: float
    lateral_m: float
    closing_mps: float
    ttc_s: float


def truth_of(snapshot: Snapshot, front_overhang_m: float) -> list[TargetTruth]:
    """Ranges, speeds and times to collision of all targets, in the scenario's order."""
    truths = []
    for state in snapshot.targets:
        outline = snapshot.ego.to_local(state.outline_m())
        centre = snapshot.ego.to_local(np.array([[state.pose.x_m, state.pose.y_m]]))[0]
        # Half of its extent along the road; the curvature of the road within it is neglected.
        half_m = float(np.ptp(outline[:, 0])) / 2
        gap = state.along_m - half_m - snapshot.ego_along_m - front_overhang_m
        closing = snapshot.ego_speed_mps - state.speed_along_mps
        ahead = gap + 2 * half_m > 0
        ttc = max(gap, 0.0) / closing if closing > 0 and ahead else math.inf
        truths.append(TargetTruth(float(outline[:, 0].min()), gap, float(centre[1]), closing, ttc))
    return truths
