"""Contents of the bird's-eye view, as positions on the road and as text: for the demo's video and for the live page."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import RoadPoint
from ssd_triton.driving.drawing.objects import seconds
from ssd_triton.driving.drawing.state_colours import reported_object
from ssd_triton.driving.drawing.trigger_ranges import TriggerRanges

Segment = tuple[RoadPoint, RoadPoint]

BAR_AND_ARROW = "bars: 1 std, arrows: 1 s ahead"
"""Caption that explains :func:`range_bar` and :func:`arrow_tip`."""

_LENGTHS_M: Mapping[str, float] = {"person": 0.6, "bicycle": 1.7, "motorcycle": 2.1, "bus": 9.0, "truck": 7.0}
_CAR_LENGTH_M = 4.4
"""Drawn lengths by class, a car's for others; for illustration only, since only the near face is measured."""
_TRAIL_S = 1.5
"""Length of a track's trail."""
_ARROW_S = 1.0
_CAP_M = 0.6
"""Half the width of the caps of a bar of uncertainty."""


def drawn_length_m(item: TrackedObject) -> float:
    """Length of an object behind its near face."""
    return _LENGTHS_M.get(item.class_name, _CAR_LENGTH_M)


def range_bar(item: TrackedObject) -> tuple[Segment, Segment, Segment]:
    """One standard deviation of the range around an object, along the line of sight; and its two caps."""
    forward_m, lateral_m = item.position
    distance_m = max(math.hypot(forward_m, lateral_m), 0.1)
    ahead, aside = forward_m / distance_m, lateral_m / distance_m
    along_m = item.range_std_m * distance_m / max(item.range_m, 0.1)
    near, far = (RoadPoint(forward_m + side * ahead, lateral_m + side * aside) for side in (-along_m, along_m))

    def cap(end: RoadPoint) -> Segment:
        across = aside * _CAP_M, -ahead * _CAP_M
        return (
            RoadPoint(end.forward_m + across[0], end.lateral_m + across[1]),
            RoadPoint(end.forward_m - across[0], end.lateral_m - across[1]),
        )

    return (near, far), cap(near), cap(far)


def arrow_tip(item: TrackedObject) -> RoadPoint:
    """Where an object will be after a second, relative to the ego."""
    return RoadPoint(
        item.position.forward_m - item.closing_speed_mps * _ARROW_S,
        item.position.lateral_m + item.lateral_speed_mps * _ARROW_S,
    )


def trigger_lines(decision: FrameDecision, ranges: TriggerRanges | None, far_m: float) -> list[tuple[State, Segment]]:
    """Lines across the corridor where a stationary object triggers a state, up to a range."""
    if ranges is None:
        return []
    lines: list[tuple[State, Segment]] = []
    corridor = decision.corridor
    for state, range_m in ((State.BRAKE, ranges.brake_m), (State.WARN, ranges.warn_m)):
        left_m, right_m = (corridor.lateral_m(range_m, side * corridor.half_width_m) for side in (-1, 1))
        if 0 < range_m <= far_m and left_m is not None and right_m is not None:
            lines.append((state, (RoadPoint(range_m, left_m), RoadPoint(range_m, right_m))))
    return lines


def captions(decision: FrameDecision) -> tuple[str, str]:
    """Own speed with the demand, and both times to collision of the reported object."""
    speed_mps, item = decision.ego.speed_mps, reported_object(decision)
    speed = "speed unknown" if speed_mps is None else f"{speed_mps * KMH_PER_MPS:.0f} km/h"
    times = "TTC -"
    if item is not None:
        times = f"TTC {seconds(item.ttc_range_s)} by range, {seconds(item.ttc_scale_s)} by scale"
        times += "!" if item.disagreement else ""
    return f"{speed}, {_demand(decision)}", times


class Trails:
    """Where the tracked objects were."""

    def __init__(self) -> None:
        self._trails: dict[int, deque[tuple[float, RoadPoint]]] = {}

    def follow(self, decision: FrameDecision) -> dict[int, list[RoadPoint]]:
        """Extend the trails of the present tracks, and forget the others.

        Args:
            decision: Decisions come in order of time.

        Returns:
            The trails of objects in the corridor, by track, oldest point first.
        """
        ids = {item.track_id for item in decision.objects}
        self._trails = {track_id: trail for track_id, trail in self._trails.items() if track_id in ids}
        for item in decision.objects:
            trail = self._trails.setdefault(item.track_id, deque())
            trail.append((decision.time_s, item.position))
            while decision.time_s - trail[0][0] > _TRAIL_S:
                trail.popleft()
        return {
            item.track_id: [position for _, position in self._trails[item.track_id]]
            for item in decision.objects
            if item.in_corridor
        }


def _demand(decision: FrameDecision) -> str:
    """What the decision is about, in words: the cause of the state, or else the deceleration to avoid the obstacle."""
    cause = decision.cause
    if cause is not None:
        if cause.held:
            return "held"
        if cause.unit == "s":
            return f"{cause.value:.1f} s left, limit {cause.threshold:.1f} s"
        return "too late to stop" if math.isinf(cause.value) else f"needs {cause.value:.1f} m/s²"
    if decision.obstacle is None and decision.state is not State.SAFE:
        return "no data"
    needed = decision.required_deceleration_mps2
    if needed is None:
        return "corridor clear" if decision.obstacle is None else "demand unknown"
    return "demand uncertain" if math.isinf(needed) else f"needs {needed:.1f} m/s²"
