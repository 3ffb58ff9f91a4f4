"""What a scenario is: a road, a car that drives on it, what it meets, and what a braking system must do about it.

Positions are along and across the road: along it from the camera at the start, across it from the middle of the ego
lane, positive to the right. Traffic keeps to the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from ssd_triton.common.errors import UserError
from ssd_triton.simulation.bodies import BODIES, Body

KMH_PER_MPS = 3.6


class WorldError(UserError):
    """A scenario is unknown, or cannot be simulated or drawn as asked."""


@dataclass(frozen=True)
class SpeedPhase:
    """From a time on, an acceleration along the road; braking ends at standstill.

    Attributes:
        start_s: After the start.
        acceleration_mps2: Positive speeds up.
    """

    start_s: float
    acceleration_mps2: float


@dataclass(frozen=True)
class SideMove:
    """A move across the road, once.

    Attributes:
        start_s: After the start.
        duration_s: How long it takes.
        to_offset_m: Where it ends; positive to the right of the middle of the ego lane.
        smooth: As a vehicle changes lanes, with speeds across of 0 at both ends; otherwise at the constant speed of
            someone who walks.
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
        gap_m: At the start, along the road from the ego's front bumper to the nearest point of the target.
        offset_m: At the start, of its middle; positive to the right of the middle of the ego lane.
        speed_mps: At the start, along the road; negative comes towards the ego.
        phases: Accelerations, by time.
        side_move: A lane change, or a way across the road.
        heading_deg: Where it looks while it stands: 0 along the road, 90 to the right. What moves looks where it goes.
        scale: Its size relative to the body's.
        look: Which of the many looks (colour, clothes) it has; another number is another look.
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
        """Its class and outer size."""
        body = BODIES[self.body]
        return Body(body.class_name, *(self.scale * side for side in (body.length_m, body.width_m, body.height_m)))


@dataclass(frozen=True)
class Road:
    """A road with two lanes: straight, and then an arc.

    Attributes:
        curvature_per_m: One over the radius of the arc; positive bends to the right, 0 is straight.
        curve_start_m: Where the arc begins, along the road from the camera at the start.
        lane_width_m: Of each lane; 3.5 m is what Euro NCAP's AEB protocols test on (3.5 m to 3.7 m).
        lanes_right: Lanes of the ego's direction to the right of its own.
        lanes_left: Lanes to the left of it; the ones of oncoming traffic among them.
        parking_right_m: Width of the strip for parked cars between the lanes and the right kerb.
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
    """What a run must fulfil.

    Attributes:
        rule: Where it comes from.
        verdict: ``no contact``; ``residual speed``: impact at most at ``max_impact_kmh``; ``no brake``: BRAKE must
            never be reached; ``none``: nothing is asked for.
        max_impact_kmh: Closing speed at contact.
        min_warning_lead_s: WARN must come this much before BRAKE; None asks for nothing.
        physics: What can be reached at all, in words; empty where that is not in question.
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
        ego_speed_kmh: At the start.
        targets: The first is the one that the criterion is about.
        criterion: What must come of it.
        duration_s: Of the drive, unless it ends in a contact.
        road: What it goes along.
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
        """At the start."""
        return self.ego_speed_kmh / KMH_PER_MPS
