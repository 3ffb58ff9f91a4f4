"""The ego's corridor on the road, in the camera's image."""

from __future__ import annotations

import math

import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.braking.corridor import Corridor
from ssd_triton.driving.braking.decision import FrameDecision
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS
from ssd_triton.driving.drawing.trigger_ranges import TriggerRanges
from ssd_triton.media.drawing.canvas import (
    INK,
    PAPER,
    Point,
    Rectangle,
    fill,
    fill_rounded,
    line,
    line_width_px,
    outline,
    put_text,
    text_extent_px,
    text_size_px,
)

UNKNOWN_SPEED_REACH_M = 40.0
"""Drawn length of the corridor when the speed is unknown."""

_SHORTEST_REACH_M = 10.0
"""Least drawn length, for a stationary ego."""

_SAMPLES = 24
"""Number of straight pieces of an edge, for curves and lens distortion."""


def corridor_edges_m(corridor: Corridor, near_m: float, far_m: float) -> tuple[list[Point], list[Point]]:
    """Left and right edge of the corridor from near to far: forward and lateral positions in metres.

    Samples are denser nearby, where they are farther apart in the image.
    """
    left: list[Point] = []
    right: list[Point] = []
    for forward_m in np.geomspace(max(near_m, 0.1), far_m, _SAMPLES).tolist():
        sides = [corridor.lateral_m(forward_m, side_m) for side_m in (-corridor.half_width_m, corridor.half_width_m)]
        if sides[0] is None or sides[1] is None:
            break
        left.append((forward_m, sides[0]))
        right.append((forward_m, sides[1]))
    return left, right


def reach_m(ranges: TriggerRanges | None) -> float:
    """Drawn length of the corridor on a clear road."""
    return UNKNOWN_SPEED_REACH_M if ranges is None else max(ranges.warn_m, _SHORTEST_REACH_M)


def draw_corridor(
    canvas: UInt8Array, camera: Camera, decision: FrameDecision, ranges: TriggerRanges | None
) -> list[Rectangle]:
    """Draw the corridor in the state's colour, with the trigger ranges of WARN and BRAKE.

    It ends at the range of WARN, or at the obstacle that hides the road behind it.

    Args:
        canvas: UINT8 [H, W, 3], RGB, of the camera's size; drawn into.
        camera: The image's camera.
        decision: The decision on the frame.
        ranges: Trigger ranges for a stationary object; None when the speed is unknown.

    Returns:
        The rectangles of its labels.
    """
    lower_edge = camera.road_point(camera.width_px / 2, camera.height_px)
    if lower_edge is None:
        return []
    near_m, far_m = lower_edge.forward_m, reach_m(ranges)
    if decision.obstacle is not None:
        far_m = min(far_m, decision.obstacle.range_m)
    if near_m >= far_m:
        return []
    edges_m = corridor_edges_m(decision.corridor, near_m, far_m)
    left, right = (_seen(camera, edge) for edge in edges_m)
    if len(left) < 2 or len(right) < 2:
        return []
    colour, width_px = STATE_COLOURS[decision.state], line_width_px(canvas.shape[0])
    fill(canvas, [*left, *reversed(right)], colour, 0.22)
    for edge in (left, right):
        outline(canvas, edge, colour, width_px, closed=False)
    drawn = [] if ranges is None else [(State.WARN, ranges.warn_m), (State.BRAKE, ranges.brake_m)]
    labels = [
        _draw_trigger_range(canvas, camera, decision.corridor, state, range_m)
        for state, range_m in drawn
        if near_m < range_m <= far_m
    ]
    return [label for label in labels if label is not None]


def _draw_trigger_range(
    canvas: UInt8Array, camera: Camera, corridor: Corridor, state: State, range_m: float
) -> Rectangle | None:
    """Draw a line across the corridor and its range beside it: on the left for WARN, on the right for BRAKE.

    Both lines can lie in neighbouring rows, where labels on the same side would overlap.
    """
    sides_m = [corridor.lateral_m(range_m, side_m) for side_m in (-corridor.half_width_m, corridor.half_width_m)]
    bar = _seen(camera, [(range_m, side_m) for side_m in sides_m if side_m is not None])
    if len(bar) < 2:
        return None
    line(canvas, bar[0], bar[1], STATE_COLOURS[state], line_width_px(canvas.shape[0]) + 1)
    text, size_px = f"{state.name.lower()} {range_m:.0f} m", text_size_px(canvas.shape[0])
    width_px, height_px = text_extent_px(text, size_px)
    pad_px = size_px // 3
    x, y = bar[0] if state is State.WARN else bar[1]
    left = round(x) - width_px - 2 * pad_px if state is State.WARN else round(x) + pad_px
    top = round(y - height_px / 2)
    label = Rectangle(left, top, left + width_px + pad_px, top + height_px)
    fill_rounded(canvas, label, pad_px, INK, 0.6)
    put_text(canvas, ((label.left + label.right) / 2, y), text, size_px, PAPER, align="centre")
    return label


def _seen(camera: Camera, points_m: list[Point]) -> list[Point]:
    """Image points of the visible ones of road points."""
    if not points_m:
        return []
    on_road = np.array([(forward_m, lateral_m, 0.0) for forward_m, lateral_m in points_m], np.float32)
    return [(x, y) for x, y in camera.image_points(on_road).tolist() if math.isfinite(x) and math.isfinite(y)]
