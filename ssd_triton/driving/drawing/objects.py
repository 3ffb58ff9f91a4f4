"""Boxes of tracked road users and of other detections, in the camera's image."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.drawing.state_colours import label_colour, object_colour, reported_object
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


def draw_objects(
    canvas: UInt8Array, decision: FrameDecision, room: Rectangle, kept_free: Sequence[Rectangle] = ()
) -> None:
    """Draw the boxes of tracked objects with their labels.

    Objects in the corridor are emphasised. Objects not detected in this frame have a thin box at their last position.
    Labels avoid other boxes. A label without room is shortened or, if that is not enough, left out; the reported object
    always has one.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        decision: The decision with the objects.
        room: Area for labels.
        kept_free: Places in it that labels must not take.
    """
    shown = [(item, box) for item in decision.objects if (box := visible_part(item.box_xyxy, canvas)) is not None]
    reported = reported_object(decision)
    shown.sort(key=lambda pair: (pair[0] is not reported, not pair[0].in_corridor, pair[0].range_m))
    for item, box in reversed(shown):
        colour = object_colour(item, decision)
        if item.unseen_s > 0:
            outline(canvas, rectangle_corners(*box), colour, 1)
        else:
            draw_box(canvas, box, colour, emphasised=item.in_corridor)
    size_px = text_size_px(canvas.shape[0])
    taken = [*kept_free]
    boxes = [Rectangle(*map(round, box)) for _, box in shown]
    for index, (item, box) in enumerate(shown):
        is_reported, short = item is reported, f"#{item.track_id} {item.range_m:.0f} m"
        others = boxes[:index] + boxes[index + 1 :]
        tries = [(describe(item), taken + others), (short, taken + others)]
        if is_reported:
            tries.append((short, taken))
        for text, avoided in tries:
            place = place_label(box, text, size_px, room, avoided)
            if place is not None:
                break
        if place is None and is_reported:
            place = inside((box[0], max(box[1], room.top), *box[2:]), text, size_px)
        if place is not None:
            draw_label(canvas, place, text, label_colour(item, decision))
            taken.append(place)


def describe(item: TrackedObject) -> str:
    """Number, class and range; in the corridor also its standard deviation, and the time to collision.

    Both times are given where they disagree.
    """
    if not item.in_corridor:
        return f"#{item.track_id} {item.class_name} {item.range_m:.0f} m"
    parts = [f"#{item.track_id} {item.class_name} {item.range_m:.1f} ± {item.range_std_m:.1f} m"]
    if item.disagreement:
        parts.append(f"TTC {seconds(item.ttc_range_s)} by range, {seconds(item.ttc_scale_s)} by scale!")
    elif item.ttc_s is not None and item.ttc_s <= _LONGEST_TTC_S:
        parts.append(f"TTC {seconds(item.ttc_s)}")
    if item.unseen_s > 0:
        parts.append(f"unseen {item.unseen_s:.1f} s")
    return " · ".join(parts)


def seconds(value: float | None) -> str:
    """Format a time to collision; a dash for none."""
    return "-" if value is None or not math.isfinite(value) or value > _LONGEST_TTC_S else f"{value:.1f} s"


def draw_others(canvas: UInt8Array, detections: Detections, decision: FrameDecision) -> None:
    """Draw thin boxes around detections without a confirmed track: other classes, and new objects.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        detections: Detections of the frame.
        decision: The decision with the tracked objects.
    """
    tracked = [item.box_xyxy for item in decision.objects]
    width_px = line_width_px(canvas.shape[0])
    for box_xyxy, _, _ in detections:
        sides = box_xyxy.tolist()
        is_tracked = any(max(abs(a - b) for a, b in zip(sides, box, strict=True)) < 1.0 for box in tracked)
        box = visible_part(sides, canvas)
        if box is not None and not is_tracked:
            outline(canvas, rectangle_corners(*box), MUTED, width_px)
