"""What is laid over the camera's image: the state, the times of the stages, and the corridor on the road."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssd_triton.arrays import UInt8Array
from ssd_triton.braking.decision import Decision, State, Zones
from ssd_triton.braking.geometry import GroundCamera, ImagePoint
from ssd_triton.braking.timing import StageRate
from ssd_triton.drawing.canvas import (
    INK,
    MUTED,
    PAPER,
    Colour,
    Rectangle,
    fill,
    fill_rounded,
    line,
    line_width_px,
    outline,
    put_text,
    rectangle_corners,
    text_extent_px,
    text_size_px,
)

STATE_COLOURS: Mapping[State, Colour] = {
    State.SAFE: (62, 184, 120),
    State.WARN: (245, 176, 48),
    State.BRAKE: (235, 78, 78),
}


def banner_height_px(image_height_px: int) -> int:
    """Height of what :func:`draw_banner` draws, but for its frame."""
    return round(text_size_px(image_height_px) * 2.4)


def draw_banner(image_rgb: UInt8Array, decision: Decision) -> UInt8Array:
    """Draw the state and its reason along the upper edge, and a frame in its colour unless it is SAFE."""
    canvas = image_rgb.copy()
    height, width = canvas.shape[:2]
    size_px = round(text_size_px(height) * 1.15)
    bar_px = banner_height_px(height)
    colour = STATE_COLOURS[decision.state]
    if decision.state is not State.SAFE:
        # Half of the line lies outside the image.
        outline(canvas, rectangle_corners(0, 0, width, height), colour, 4 * line_width_px(height))
    fill(canvas, rectangle_corners(0, 0, width, bar_px), INK, 0.78)
    block_px = max(text_extent_px(state.name, size_px, bold=True)[0] for state in State) + round(size_px * 1.6)
    fill(canvas, rectangle_corners(0, 0, block_px, bar_px), colour)
    put_text(canvas, (block_px / 2, bar_px / 2), decision.state.name, size_px, INK, align="centre", bold=True)
    put_text(canvas, (block_px + size_px * 0.8, bar_px / 2), decision.reason, size_px, PAPER)
    return canvas


def draw_stage_times(image_rgb: UInt8Array, rates: Sequence[StageRate]) -> UInt8Array:
    """Draw a table of times in the lower left corner."""
    canvas = image_rgb.copy()
    size_px = text_size_px(canvas.shape[0])
    rows = [(rate.name, "" if rate.ms is None else f"{rate.ms:.1f} ms", _fps(rate.fps)) for rate in rates]
    gap_px = 2 * round(size_px * 0.45)
    columns_px = [max(text_extent_px(row[column], size_px)[0] for row in rows) for column in range(3)]
    line_px = round(size_px * 1.35)
    left = top_margin = round(size_px * 0.7)
    right = left + sum(columns_px) + 4 * gap_px
    bottom = canvas.shape[0] - top_margin
    top = bottom - line_px * len(rows) - gap_px
    fill_rounded(canvas, Rectangle(left, top, right, bottom), size_px / 3, INK, 0.72)
    edges_px = (left + gap_px + columns_px[0] + gap_px + columns_px[1], right - gap_px)
    for number, (name, time, rate) in enumerate(rows):
        y = top + gap_px / 2 + line_px * (number + 0.5)
        put_text(canvas, (left + gap_px, y), name, size_px, MUTED)
        put_text(canvas, (edges_px[0], y), time, size_px, PAPER, align="right")
        put_text(canvas, (edges_px[1], y), rate, size_px, PAPER, align="right")
    return canvas


def draw_corridor(
    image_rgb: UInt8Array, camera: GroundCamera, decision: Decision, zones: Zones, half_width_m: float
) -> UInt8Array:
    """Draw the car's corridor on the road in the state's colour, and where the two zones end.

    It ends with the warning zone, or at the obstacle, behind which the road is hidden.
    """
    canvas = image_rgb.copy()
    lower_edge = camera.road_point(camera.width_px / 2, camera.height_px)
    if lower_edge is None:
        return canvas
    near_m, far_m = lower_edge.forward_m, zones.warn_m
    if decision.obstacle is not None:
        far_m = min(far_m, decision.obstacle.position.forward_m)
    near, far = (_crossbar(camera, range_m, half_width_m) for range_m in (near_m, far_m))
    if near_m >= far_m or near is None or far is None:
        return canvas
    colour, width_px = STATE_COLOURS[decision.state], line_width_px(canvas.shape[0])
    fill(canvas, [near[0], far[0], far[1], near[1]], colour, 0.22)
    for side in (0, 1):
        line(canvas, near[side], far[side], colour, width_px)
    for state, range_m in ((State.WARN, zones.warn_m), (State.BRAKE, zones.brake_m)):
        bar = _crossbar(camera, range_m, half_width_m)
        if bar is not None and near_m < range_m <= far_m:
            _draw_zone_end(canvas, state, range_m, bar)
    return canvas


def _draw_zone_end(canvas: UInt8Array, state: State, range_m: float, bar: tuple[ImagePoint, ImagePoint]) -> None:
    """Draw a line across the corridor and its range beside it: on the left for WARN, on the right for BRAKE.

    In the distance both zones end in neighbouring rows, where labels on one side would overlap.
    """
    line(canvas, *bar, STATE_COLOURS[state], line_width_px(canvas.shape[0]) + 1)
    text, size_px = f"{range_m:.0f} m", text_size_px(canvas.shape[0])
    width_px, height_px = text_extent_px(text, size_px)
    pad_px = size_px // 3
    x, y = bar[0] if state is State.WARN else bar[1]
    left = round(x) - width_px - 2 * pad_px if state is State.WARN else round(x) + pad_px
    top = round(y - height_px / 2)
    label = Rectangle(left, top, left + width_px + pad_px, top + height_px)
    fill_rounded(canvas, label, pad_px, INK, 0.6)
    put_text(canvas, ((label.left + label.right) / 2, y), text, size_px, PAPER, align="centre")


def _crossbar(camera: GroundCamera, range_m: float, half_width_m: float) -> tuple[ImagePoint, ImagePoint] | None:
    """Left and right end of the line across the corridor at a range; None where the camera cannot see it."""
    left, right = (camera.image_point(range_m, side_m) for side_m in (-half_width_m, half_width_m))
    return (left, right) if left is not None and right is not None else None


def _fps(fps: float | None) -> str:
    if fps is None:
        return "-"
    return f"{fps:.{1 if fps < 100 else 0}f} fps" if fps < 1000 else "> 999 fps"
