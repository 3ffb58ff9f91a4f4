"""What a drive is made of, the truth about it, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import Pose, TargetState
from ssd_triton.simulation.scenario import KMH_PER_MPS, Scenario


@dataclass(frozen=True)
class Snapshot:
    """The world at a time.

    Attributes:
        time_s: After the start.
        scenario: What is driven.
        ego: Point below the camera, and heading.
        ego_along_m: Way since the start.
        ego_speed_mps: Speed over ground.
        ego_deceleration_mps2: By braking; at least 0.
        ego_yaw_rate_rad_s: Positive turns to the left, as in :class:`ssd_triton.driving.braking.ego.EgoMotion`.
        camera: As it is pitched at this time.
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
        """What the ego knows of its own motion."""
        return EgoMotion(self.ego_speed_mps, self.ego_yaw_rate_rad_s)


@dataclass(frozen=True)
class TargetTruth:
    """A target against the ego, at a time.

    Attributes:
        range_m: From the camera to its nearest point, along the ego's heading; negative behind it.
        gap_m: Along the road from the ego's front bumper to its nearest end.
        lateral_m: Of its middle, to the right of the camera.
        closing_mps: Speed along the road at which the gap shrinks.
        ttc_s: Time to collision, gap over closing speed; infinite when the gap does not shrink, or is behind.
    """

    range_m: float
    gap_m: float
    lateral_m: float
    closing_mps: float
    ttc_s: float


@dataclass(frozen=True)
class Contact:
    """The ego touched a target.

    Attributes:
        time_s: When.
        target: Which, by its place in the scenario.
        impact_mps: Closing speed along the road, at least 0.
    """

    time_s: float
    target: int
    impact_mps: float


@dataclass(frozen=True)
class Run:
    """What came of a drive.

    Attributes:
        scenario: What was driven.
        seed: Of its noise.
        frames: The world at every frame.
        states: What the controller said at every frame; empty without one.
        contact: The first one; None without.
        min_gap_m: Least distance of the outlines of ego and any target; infinite without targets.
        warn_s: Time of the first frame with WARN or BRAKE; None without.
        brake_s: Time of the first frame with BRAKE; None without.
        ttc_at_warn_s: True time to collision with the first target then.
        ttc_at_brake_s: The same for BRAKE.
        max_deceleration_mps2: The most that the ego braked.
    """

    scenario: Scenario
    seed: int
    frames: tuple[Snapshot, ...]
    states: tuple[State, ...]
    contact: Contact | None
    min_gap_m: float
    warn_s: float | None
    brake_s: float | None
    ttc_at_warn_s: float | None
    ttc_at_brake_s: float | None
    max_deceleration_mps2: float

    @property
    def impact_kmh(self) -> float | None:
        """Closing speed at contact; None without one."""
        return None if self.contact is None else self.contact.impact_mps * KMH_PER_MPS

    @property
    def warning_lead_s(self) -> float | None:
        """From WARN to BRAKE; None without BRAKE."""
        return None if self.brake_s is None or self.warn_s is None else self.brake_s - self.warn_s


def truth_of(snapshot: Snapshot, front_overhang_m: float) -> list[TargetTruth]:
    """Ranges, speeds and times to collision of all targets, in the scenario's order."""
    truths = []
    for state in snapshot.targets:
        outline = snapshot.ego.to_local(state.outline_m())
        centre = snapshot.ego.to_local(np.array([[state.pose.x_m, state.pose.y_m]]))[0]
        # Half of its length as it lies along the road; the road's own bend within it is left out.
        half_m = float(np.ptp(outline[:, 0])) / 2
        gap = state.along_m - half_m - snapshot.ego_along_m - front_overhang_m
        closing = snapshot.ego_speed_mps - state.speed_along_mps
        ahead = gap + 2 * half_m > 0
        ttc = max(gap, 0.0) / closing if closing > 0 and ahead else math.inf
        truths.append(TargetTruth(float(outline[:, 0].min()), gap, float(centre[1]), closing, ttc))
    return truths


def judge(run: Run) -> list[str]:
    """What a run falls short of, by its scenario's criterion, in words; empty when it passes."""
    criterion, impact_kmh = run.scenario.criterion, run.impact_kmh
    failures = []
    if criterion.verdict == "no contact" and impact_kmh is not None:
        failures.append(f"contact at {impact_kmh:.1f} km/h, expected none")
    if criterion.verdict == "residual speed" and (impact_kmh or 0.0) > criterion.max_impact_kmh:
        failures.append(f"contact at {impact_kmh:.1f} km/h, expected at most {criterion.max_impact_kmh:g} km/h")
    if criterion.verdict == "no brake" and run.brake_s is not None:
        failures.append(f"BRAKE at {run.brake_s:.2f} s, expected none")
    lead_s, least_s = run.warning_lead_s, criterion.min_warning_lead_s
    # Times are those of frames, in multiples of 1/fps: the sum of rounding errors must not decide.
    if least_s is not None and lead_s is not None and lead_s < least_s - 1e-6:
        failures.append(f"warning {lead_s:.2f} s before braking, expected at least {least_s:g} s")
    return failures
