"""The pipeline's result for a frame: the tracked road users and the decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import RoadPoint

BoxXyxy = tuple[float, float, float, float]


@dataclass(frozen=True)
class TrackedObject:
    """A tracked road user.

    Ranges count from the camera, times to collision from the front bumper. A name with ``std`` is the standard
    deviation of the quantity in the rest of the name.

    Attributes:
        track_id: Number of the track, from 1.
        class_name: Its most likely class.
        box_xyxy: Its last box, in pixels of the image.
        score: Score of the last box.
        position: Middle of its near face.
        range_m: From the camera to its near face, along the ego's heading; the same as in ``position``.
        range_std_m: Includes the errors of the calibration and of the class's size.
        range_from_ground_m: Range from the last box's ground contact alone; None where that is not visible.
        range_from_size_m: Range from the last box's size alone; None where that is not visible.
        closing_speed_mps: Rate at which the range shrinks; negative when it grows.
        closing_speed_std_mps: Large until the speed has been measured.
        lateral_speed_mps: Speed across the corridor, positive to the right.
        offset_m: From the middle of the corridor, positive to the right.
        width_m: Usual width of its class.
        ttc_range_s: Time to collision from range and closing speed; None when not closing in.
        ttc_scale_s: Time to collision from the growth of the image alone; None when not growing.
        ttc_s: The one of the two that decides; see :mod:`ssd_triton.driving.braking.hazard`.
        disagreement: Whether the two differ by more than their noise explains.
        in_corridor: Whether it is in the corridor, or will be when the ego gets there.
        in_corridor_s: Time for which ``in_corridor`` has been true without interruption.
        surely_in_corridor: As ``in_corridor``, with the certainty that BRAKE needs.
        corridor_probability: Probability that it is in the corridor, or will be when the ego gets there.
        age_s: Time since its first detection.
        unseen_s: Time since its last detection; if above 0, the other values are extrapolated.
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
    in_corridor_s: float
    surely_in_corridor: bool
    corridor_probability: float
    age_s: float
    unseen_s: float


CauseKind = Literal["range", "scale", "onset", "lateral"]
"""Evidence for a state.

``range``: required deceleration by range and closing speed; ``scale``: time to collision by the growth of the image;
``onset``: required deceleration behind a vehicle that has begun to brake hard; ``lateral``: required deceleration for
an object that is about to enter the corridor.
"""


@dataclass(frozen=True)
class Cause:
    """Why the state is WARN or BRAKE: one object, one figure and the threshold that it passed.

    Attributes:
        state: The state that it called for.
        time_s: Time of the frame that it describes; for a hold, the last frame that called for the state.
        track_id: The object's track.
        class_name: Its class.
        kind: The evidence.
        value: The figure: the required deceleration in m/s², or the time to collision in s.
        threshold: The limit in force: a deceleration must reach it, a time must not exceed it.
        unit: ``m/s²`` or ``s``.
        ahead_s: How many seconds ahead of the frame the value is predicted; 0 for BRAKE.
        range_m: Range of the object at ``time_s``.
        closing_speed_mps: Its closing speed at ``time_s``.
        held: Whether the state is only held, and nothing in the present frame calls for it.
    """

    state: State
    time_s: float
    track_id: int
    class_name: str
    kind: CauseKind
    value: float
    threshold: float
    unit: Literal["m/s²", "s"]
    ahead_s: float
    range_m: float
    closing_speed_mps: float
    held: bool = False


@dataclass(frozen=True)
class FrameDecision:
    """The decision on a frame, and its reason.

    Attributes:
        time_s: Time of the frame.
        state: State shown to the driver.
        obstacle: The most urgent object in the corridor; None without one.
        reason: Explanation with figures, rendered from ``cause`` where there is one.
        required_deceleration_mps2: Deceleration required to avoid the obstacle after latency and reaction; infinite
            when it is too late; None without an obstacle or without ego speed.
        time_to_collision_s: The obstacle's ``ttc_s``.
        objects: All tracked objects.
        ego: The ego's motion.
        corridor: The ego's predicted path.
        latency_s: From camera to decision, as included in ``delay_s``.
        delay_s: From the frame to the start of braking: latency, confirmation by further frames, and reaction.
        cause: Why the state is WARN or BRAKE; None in any other state. A held state keeps its last cause.
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
    delay_s: float
    cause: Cause | None = None


def explain(cause: Cause, time_s: float) -> str:
    """Render a cause in words and figures.

    Args:
        cause: The cause.
        time_s: Time of the frame that shows it.
    """
    what = f"{cause.class_name} #{cause.track_id} at {cause.range_m:.1f} m"
    if cause.closing_speed_mps > 0:
        what += f", closing at {cause.closing_speed_mps * KMH_PER_MPS:.0f} km/h"
    when = f" in {cause.ahead_s:.1f} s" if cause.ahead_s else ""
    if cause.unit == "s":
        figure = f"{cause.value:.1f} s to collision by image scale, limit {cause.threshold:.1f} s"
    elif math.isinf(cause.value):
        figure = f"too late to stop{when}"
    else:
        figure = f"requires {cause.value:.1f} m/s²{when}, limit {cause.threshold:.1f}"
    note = {"onset": "; it brakes hard", "lateral": "; it enters the corridor"}.get(cause.kind, "")
    held = f"held since {time_s - cause.time_s:.1f} s: " if cause.held else ""
    return f"{held}{what}: {figure}{note}"
