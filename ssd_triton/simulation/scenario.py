"""Scenarios: a road, the ego on it, its targets, and the criterion for the braking system.

Positions along the road count from the camera at the start. Offsets across it count from the middle of the ego lane,
positive to the right. Traffic keeps to the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ssd_triton.common.errors import UserError
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.simulation.bodies import BODIES, Body


class SimulationError(UserError):
    """A scenario is unknown, or cannot be simulated or drawn as requested."""


@dataclass(frozen=True)
class SpeedPhase:
    """An acceleration along the road from a time on; braking ends at standstill.

    Attributes:
        start_s: Since the start of the scenario.
        acceleration_mps2: Positive accelerates.
    """

    start_s: float
    acceleration_mps2: float


@dataclass(frozen=True)
class SideMove:
    """A single move across the road.

    Attributes:
        start_s: Since the start of the scenario.
        duration_s: Duration of the move.
        to_offset_m: Final offset; positive to the right of the middle of the ego lane.
        smooth: Whether the lateral speed is 0 at both ends, as in a lane change; otherwise it is constant, as for a
            pedestrian.
    """

    start_s: float
    duration_s: float
    to_offset_m: float
    smooth: bool


@dataclass(frozen=True)
class Target:
    """One road user.

    Attributes:
        body: A key of :data:`ssd_triton.simulation.bodies.BODIES`.
        gap_m: Initial distance along the road from the ego's front bumper to the nearest point of the target.
        offset_m: Initial offset of its middle; positive to the right of the middle of the ego lane.
        speed_mps: Initial speed along the road; negative is oncoming.
        phases: Accelerations, in order of time.
        side_move: A lane change, or a walk across the road.
        heading_deg: Heading while stationary: 0 along the road, 90 to the right. A moving target faces its direction of
            motion.
        scale: Size relative to the body's.
        look: Number of its appearance (colour, clothes).
    """

    body: str
    gap_m: float
    offset_m: float = 0.0
    speed_mps: float = 0.0
    phases: tuple[SpeedPhase, ...] = ()
    side_move: SideMove | None = None
    heading_deg: float = 0.0
    scale: float = 1.0
    look: int = 0

    def __post_init__(self) -> None:
        if self.body not in BODIES:
            raise ValueError(f"body: got {self.body!r}, expected one of {', '.join(BODIES)}")

    @cached_property
    def size(self) -> Body:
        """Class and outer size."""
        body = BODIES[self.body]
        return Body(body.class_name, *(self.scale * side for side in (body.length_m, body.width_m, body.height_m)))


@dataclass(frozen=True)
class Road:
    """A road that is straight and then an arc.

    Attributes:
        curvature_per_m: One over the radius of the arc; positive bends to the right, 0 is straight.
        curve_start_m: Start of the arc, along the road from the camera at the start.
        lane_width_m: Width of each lane; Euro NCAP's AEB protocols test on 3.5 m to 3.7 m.
        lanes_right: Lanes to the right of the ego's, in its direction.
        lanes_left: Lanes to the left of the ego's, including oncoming ones.
        parking_right_m: Width of the parking strip between the lanes and the right kerb.
        parking_left_m: The same on the left.
    """

    curvature_per_m: float = 0.0
    curve_start_m: float = 0.0
    lane_width_m: float = 3.5
    lanes_right: int = 0
    lanes_left: int = 1
    parking_right_m: float = 0.0
    parking_left_m: float = 0.0


Verdict = Literal["no contact", "residual speed", "no brake", "none"]


@dataclass(frozen=True)
class Criterion:
    """The requirement on a run.

    Attributes:
        rule: Its source.
        verdict: ``no contact``; ``residual speed``: no impact above ``max_impact_kmh``; ``no brake``: BRAKE must never
            be reached; ``none``: no requirement.
        max_impact_kmh: Closing speed at contact.
        min_warning_lead_s: Least time from WARN to BRAKE; None for no requirement.
        physics: Text about the physical limits; empty where they do not matter.
    """

    rule: str
    verdict: Verdict
    max_impact_kmh: float = 0.0
    min_warning_lead_s: float | None = None
    physics: str = ""


@dataclass(frozen=True)
class Scenario:
    """A named drive.

    Attributes:
        name: Unique in the catalogue.
        ego_speed_kmh: Initial speed.
        targets: Road users. Times to collision and false warnings refer to the first one; a contact with any of them
            counts.
        criterion: The requirement.
        duration_s: Duration of the drive, unless a contact ends it.
        road: The road.
        ego_phases: Accelerations of the ego while it does not brake.
    """

    name: str
    ego_speed_kmh: float
    targets: tuple[Target, ...]
    criterion: Criterion
    duration_s: float
    road: Road = field(default_factory=Road)
    ego_phases: tuple[SpeedPhase, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < math.inf:
            raise ValueError(f"duration_s: got {self.duration_s}, expected more than 0")
        if not 0 <= self.ego_speed_kmh < math.inf:
            raise ValueError(f"ego_speed_kmh: got {self.ego_speed_kmh}, expected at least 0")

    @property
    def ego_speed_mps(self) -> float:
        """Initial speed."""
        return self.ego_speed_kmh / KMH_PER_MPS
