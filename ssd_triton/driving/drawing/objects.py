"""The road users that are followed, in the camera's image."""

from __future__ import annotations

import math

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.drawing.state_colours import DISAGREEMENT, object_colour
from ssd_triton.media.drawing.boxes import draw_box, draw_label, inside, place_label, visible_part
from ssd_triton.media.drawing.canvas import (
    MUTED,
    Rectangle,
    line_width_px,
    outline,
    rectangle_corners,
    text_size_px,
)

_LONGEST_TTC_S = 99.0
"""Longer times to collision are not written."""


def draw_objects(canvas: UInt8Array, decision: FrameDecision, room: Rectangle) -> None:
    """Draw the boxes of what is followed, with number, class, range and time to collision.

    What is in the corridor is set off. What was not seen in this frame has a thin box at its last place. Where there
    is no room for a label, it is shortened, or left out beside the corridor.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        decision: With the objects.
        room: Where labels may be.
    """
    shown = [(item, box) for item in decision.objects if (box := visible_part(item.box_xyxy, canvas)) is not None]
    told = None if decision.obstacle is None else decision.obstacle.track_id
    shown.sort(key=lambda pair: (pair[0].track_id != told, not pair[0].in_corridor, pair[0].range_m))
    for item, box in reversed(shown):
        colour = object_colour(item, decision)
        if item.unseen_s > 0:
            outline(canvas, rectangle_corners(*box), colour, 1)
        else:
            draw_box(canvas, box, colour, emphasised=item.in_corridor)
    size_px = text_size_px(canvas.shape[0])
    taken: list[Rectangle] = []
    in_the_way = [Rectangle(*map(round, box)) for item, box in shown if item.in_corridor]
    for item, box in shown:
        kept_free = taken if item.in_corridor else taken + in_the_way
        background = DISAGREEMENT if item.disagreement else object_colour(item, decision)
        for text in (describe(item), f"#{item.track_id} {item.range_m:.0f} m"):
            place = place_label(box, text, size_px, room, kept_free)
            if place is not None:
                break
        if place is None and item.in_corridor:
            place = inside((box[0], max(box[1], room.top), *box[2:]), text, size_px)
        if place is not None:
            draw_label(canvas, place, text, background)
            taken.append(place)


def describe(item: TrackedObject) -> str:
    """Number, class, range with its standard deviation, and time to collision; both times where they contradict."""
    parts = [f"#{item.track_id} {item.class_name} {item.range_m:.1f} ± {item.range_std_m:.1f} m"]
    if item.disagreement:
        parts.append(f"TTC {seconds(item.ttc_range_s)} by range, {seconds(item.ttc_scale_s)} by scale!")
    elif item.ttc_s is not None and item.ttc_s <= _LONGEST_TTC_S:
        parts.append(f"TTC {seconds(item.ttc_s)}")
    if item.unseen_s > 0:
        parts.append(f"unseen {item.unseen_s:.1f} s")
    return " · ".join(parts)


def seconds(value: float | None) -> str:
    """A time to collision; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) or value > _LONGEST_TTC_S else f"{value:.1f} s"


def draw_others(canvas: UInt8Array, detections: Detections, decision: FrameDecision) -> None:
    """Draw thin boxes around what was detected and is not followed: other classes, and what was seen too few times.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        detections: Of the frame.
        decision: With the objects that are followed.
    """
    followed = [item.box_xyxy for item in decision.objects]
    width_px = line_width_px(canvas.shape[0])
    for box_xyxy, _, _ in detections:
        sides = box_xyxy.tolist()
        is_followed = any(max(abs(a - b) for a, b in zip(sides, box, strict=True)) < 1.0 for box in followed)
        box = visible_part(sides, canvas)
        if box is not None and not is_followed:
            outline(canvas, rectangle_corners(*box), MUTED, width_px)
