"""Makes the data that the page draws for a frame of a drive: boxes, state, and the evidence for the decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_triton.common.detections import Detections
from ssd_triton.common.units import KMH_PER_MPS
from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.drawing.corridor import corridor_edges_m, reach_m
from ssd_triton.driving.drawing.notices import Notice
from ssd_triton.driving.drawing.objects import describe
from ssd_triton.driving.drawing.state_colours import STATE_NAMES, reported_object
from ssd_triton.driving.drawing.trigger_ranges import TriggerRanges


def frame_record(
    decision: FrameDecision,
    detections: Detections | None,
    notices: Sequence[Notice],
    *,
    camera: Camera,
    ranges: TriggerRanges | None,
) -> dict[str, Any]:
    """Return everything that the page draws for a decision.

    Args:
        decision: Decision for the frame.
        detections: Detections, of which those without a track are drawn too; None for a frame without data.
        notices: Notices in force.
        camera: Camera of the frame.
        ranges: Trigger ranges for a stationary object; None when the speed is unknown.

    Returns:
        JSON values, with boxes and edges in pixels of the frame.
    """
    reported = reported_object(decision)
    far_m = min(reach_m(ranges), math.inf if decision.obstacle is None else decision.obstacle.range_m)
    return {
        "time_s": round(decision.time_s, 3),
        "state": decision.state.name,
        "state_name": STATE_NAMES[decision.state],
        "notices": [[notice.kind, notice.text] for notice in notices],
        "reason": decision.reason,
        "has_data": detections is not None,
        "objects": [_object(item, is_reported=item is reported) for item in decision.objects],
        "others": [] if detections is None else np.round(detections.boxes_xyxy, 1).tolist(),
        "corridor_px": _corridor_px(decision, camera, far_m),
        "evidence": _evidence(decision),
    }


def timeline_record(decision: FrameDecision) -> list[float | str | None]:
    """Return a point of the timeline.

    Its values are time, state, range, standard deviation of the range, own speed, closing speed, time to collision by
    range, time to collision by scale, and required deceleration.
    """
    item, ego_mps = reported_object(decision), decision.ego.speed_mps
    ego_kmh = None if ego_mps is None else ego_mps * KMH_PER_MPS
    of_item: tuple[float | None, ...] = (None,) * 5
    if item is not None:
        closing_kmh = item.closing_speed_mps * KMH_PER_MPS
        of_item = (item.range_m, item.range_std_m, closing_kmh, item.ttc_range_s, item.ttc_scale_s)
    figures = (*of_item[:2], ego_kmh, *of_item[2:], decision.required_deceleration_mps2)
    return [round(decision.time_s, 3), decision.state.name, *map(_number, figures)]


def _object(item: TrackedObject, *, is_reported: bool) -> dict[str, Any]:
    return {
        "box_xyxy": [round(side, 1) for side in item.box_xyxy],
        "label": describe(item),
        "name": f"#{item.track_id} {item.range_m:.0f} m",
        "is_reported": is_reported,
        "in_corridor": item.in_corridor,
        "disagreement": item.in_corridor and item.disagreement,
        "seen": item.unseen_s <= 0,
    }


def _corridor_px(decision: FrameDecision, camera: Camera, far_m: float) -> list[list[float]]:
    """Return the corridor's outline in the frame, from the lower edge to a range; empty if it is not visible."""
    lower_edge = camera.road_point(camera.width_px / 2, camera.height_px)
    if lower_edge is None or lower_edge.forward_m >= far_m:
        return []
    left, right = corridor_edges_m(decision.corridor, lower_edge.forward_m, far_m)
    outline_m = [(forward_m, lateral_m, 0.0) for forward_m, lateral_m in (*left, *reversed(right))]
    if not outline_m:
        return []
    points = camera.image_points(np.array(outline_m, np.float32)).tolist()
    return [[round(x, 1), round(y, 1)] for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _evidence(decision: FrameDecision) -> list[list[str]]:
    """Return names and values of the evidence, as texts with units."""
    rows = [
        ("own speed", _text(decision.ego.speed_mps, "km/h", KMH_PER_MPS)),
        ("deceleration needed", _demand(decision.required_deceleration_mps2)),
        ("time to collision", _text(decision.time_to_collision_s, "s")),
        ("latency, camera to decision", _text(decision.latency_s, "ms", 1e3)),
    ]
    item = reported_object(decision)
    if item is not None:
        rows += [
            ("object", f"#{item.track_id} {item.class_name}, score {item.score:.2f}"),
            ("range", f"{item.range_m:.1f} ± {item.range_std_m:.1f} m"),
            ("by ground contact", _text(item.range_from_ground_m, "m")),
            ("by size", _text(item.range_from_size_m, "m")),
            ("closing speed", f"{item.closing_speed_mps:.1f} ± {item.closing_speed_std_mps:.1f} m/s"),
            ("time to collision by range", _text(item.ttc_range_s, "s")),
            ("time to collision by scale", _text(item.ttc_scale_s, "s")),
            ("do they agree?", "no" if item.disagreement else "yes"),
            ("offset from the corridor's middle", f"{item.offset_m:+.1f} m, positive to the right"),
            ("tracked for", f"{item.age_s:.1f} s"),
        ]
    return [list(row) for row in rows]


def _demand(value: float | None) -> str:
    return "too late to stop" if value == math.inf else _text(value, "m/s²")


def _text(value: float | None, unit: str, factor: float = 1.0) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value * factor:.1f} {unit}"


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 2)
