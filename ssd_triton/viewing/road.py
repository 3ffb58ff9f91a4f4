"""Makes the data for the page's road from above, in metres; the marks are those of the demo's view from above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.camera import RoadPoint
from ssd_triton.driving.drawing.corridor import corridor_edges_m, reach_m
from ssd_triton.driving.drawing.road_marks import (
    BAR_AND_ARROW,
    arrow_tip,
    captions,
    drawn_length_m,
    range_bar,
    trigger_lines,
)
from ssd_triton.driving.drawing.state_colours import reported_object
from ssd_triton.driving.drawing.trigger_ranges import TriggerRanges

_NEAREST_M = 0.1
"""Range at which the corridor begins."""


def road_record(
    decision: FrameDecision,
    ranges: TriggerRanges | None,
    trails: Mapping[int, Sequence[RoadPoint]],
    view_range_m: float,
) -> dict[str, Any]:
    """Return everything that is drawn on the road.

    Args:
        decision: Decision for the frame.
        ranges: Trigger ranges for a stationary object; None when the speed is unknown.
        trails: Trails of the objects in the corridor, by track.
        view_range_m: Range at the upper edge of the view.

    Returns:
        JSON values. Points are forward and lateral positions. The farthest objects come first, so that near ones are
        drawn over them.
    """
    far_m = min(reach_m(ranges), view_range_m)
    left, right = corridor_edges_m(decision.corridor, _NEAREST_M, far_m)
    reported = reported_object(decision)
    return {
        "range_m": view_range_m,
        "captions": captions(decision),
        "legend": BAR_AND_ARROW,
        "corridor": {"left": _points(left), "right": _points(right)},
        "triggers": [[state.name, *_points(ends)] for state, ends in trigger_lines(decision, ranges, far_m)],
        "objects": [
            _mark(item, trails.get(item.track_id, ()), is_reported=item is reported)
            for item in sorted(decision.objects, key=lambda item: -item.range_m)
        ],
    }


def _mark(item: TrackedObject, trail: Sequence[RoadPoint], *, is_reported: bool) -> dict[str, Any]:
    """Return the mark of an object; in the corridor it has a name, uncertainty, motion and trail."""
    mark: dict[str, Any] = {
        "at": _points([item.position])[0],
        "size": [item.width_m, drawn_length_m(item)],
        "is_reported": is_reported,
        "in_corridor": item.in_corridor,
        "seen": item.unseen_s <= 0,
    }
    if item.in_corridor:
        mark |= {
            "name": f"#{item.track_id} {item.range_m:.1f} m",
            "disagreement": item.disagreement,
            "bar": [_points(segment) for segment in range_bar(item)],
            "tip": _points([arrow_tip(item)])[0],
            "trail": _points(trail),
        }
    return mark


def _points(points: Iterable[tuple[float, float]]) -> list[list[float]]:
    return [[round(forward_m, 2), round(lateral_m, 2)] for forward_m, lateral_m in points]
