"""What the pipeline tells about a frame: the road users that it follows, and what it decided."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import RoadPoint

BoxXyxy = tuple[float, float, float, float]


@dataclass(frozen=True)
class TrackedObject:
    """A road user that has been followed over some frames.

    Ranges count from the camera, times to collision until the front bumper is reached; a name with ``std`` is the
    standard deviation of what the rest of it names.

    Attributes:
        track_id: Its number, from 1.
        class_name: The class it was taken for most.
        box_xyxy: Its last box, in pixels of the image.
        score: Of that box.
        position: Where it is: its near face's middle.
        range_m: From the camera to its near face, along the car's heading; what its position says.
        range_std_m: The calibration's and the class's share included.
        range_from_ground_m: From where the last box stands on the road alone; None where that is not seen.
        range_from_size_m: From the last box's size alone; None where that is not seen.
        closing_speed_mps: How fast the range shrinks; negative when it grows.
        closing_speed_std_mps: A small one tells that the speed has been measured, and is not a first guess.
        lateral_speed_mps: Across the car's way, positive to the right.
        offset_m: From the middle of the corridor, positive to the right.
        width_m: Usual width of its class.
        ttc_range_s: Time to collision from range and closing speed; None when it does not close in.
        ttc_scale_s: Time to collision from the growth of the image alone; None when it does not grow.
        ttc_s: The one of the two that is decided on; see :mod:`ssd_triton.driving.braking.hazard`.
        disagreement: Whether the two contradict each other by more than their noise explains.
        in_corridor: Whether it is in the car's way, or will be when the car gets there.
        surely_in_corridor: The same beyond some doubt, which BRAKE takes.
        age_s: For how long it has been followed.
        unseen_s: How long ago its last box was detected; above 0, all else is extrapolated.
    """

    track_id: int
    class_name: str
    box_xyxy: BoxXyxy
    score: float
    position: RoadPoint
    range_m: float
    range_std_m: float
    range_from_ground_m: float | None
    range_from_size_m: float | None
    closing_speed_mps: float
    closing_speed_std_mps: float
    lateral_speed_mps: float
    offset_m: float
    width_m: float
    ttc_range_s: float | None
    ttc_scale_s: float | None
    ttc_s: float | None
    disagreement: bool
    in_corridor: bool
    surely_in_corridor: bool
    age_s: float
    unseen_s: float


@dataclass(frozen=True)
class FrameDecision:
    """What is decided on a frame, and why.

    Attributes:
        time_s: When the frame was taken.
        state: What the driver is told.
        obstacle: What called for it, or what comes nearest to calling for something; None without either.
        reason: In words, with figures.
        required_deceleration_mps2: What it takes to avoid the obstacle, once latency and reaction have passed;
            infinite when it is too late; None without an obstacle or without ego speed.
        time_to_collision_s: The obstacle's ``ttc_s``.
        objects: All that is followed.
        ego: How the car moves.
        corridor: Where it is going.
        latency_s: From camera to decision, as counted into the reaction.
    """

    time_s: float
    state: State
    obstacle: TrackedObject | None
    reason: str
    required_deceleration_mps2: float | None
    time_to_collision_s: float | None
    objects: tuple[TrackedObject, ...]
    ego: EgoMotion
    corridor: Corridor
    latency_s: float
