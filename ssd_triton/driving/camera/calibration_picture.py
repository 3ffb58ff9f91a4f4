"""A picture for checking a calibration by eye: a metre grid of the road, drawn on a frame."""

from __future__ import annotations

import numpy as np

from ssd_triton.common.arrays import Float64Array, FloatArray, UInt8Array
from ssd_triton.driving.camera.model import Camera
from ssd_triton.media.drawing.canvas import (
    INK,
    PAPER,
    Colour,
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

_GRID: Colour = (60, 205, 240)
_CORRIDOR: Colour = (62, 184, 120)
_HORIZON: Colour = (240, 128, 190)
_SEGMENT: Colour = (245, 176, 48)

_FORWARD_STEP_M = 5
_FARTHEST_M = 50
_LATERAL_STEP_M = 1.75
"""Half a lane of 3.5 m, the width on most motorways: every second line should match lane markings or lane centres."""
_LATERAL_LINES = 3
"""Number of lines on either side of the middle."""
_SAMPLES = 60
"""Number of straight pieces of a line, for lens distortion."""
_INFINITY_M = 1e6


def draw_metre_grid(
    image_rgb: UInt8Array, camera: Camera, corridor_half_width_m: float, *, title: str = ""
) -> UInt8Array:
    """Draw the road's metre grid as a camera sees it.

    The grid has lines across the road every 5 m up to 50 m, lines along it every 1.75 m, the filled corridor, and the
    horizon.

    Args:
        image_rgb: UINT8 [H, W, 3], RGB, of the camera's size.
        camera: The calibrated camera.
        corridor_half_width_m: Half the width of the corridor.
        title: Text for the upper edge.

    Returns:
        A new image of the same size.
    """
    canvas = image_rgb.copy()
    width_px = line_width_px(canvas.shape[0])
    forward_m = np.geomspace(_nearest_m(camera), _FARTHEST_M, _SAMPLES)
    edges = [_seen(camera, forward_m, np.full(_SAMPLES, side_m)) for side_m in _sides(corridor_half_width_m)]
    corridor = np.concatenate([edges[0], edges[1][::-1]])
    if np.isfinite(corridor).all():
        fill(canvas, _finite_points(corridor), _CORRIDOR, 0.25)
    for number in range(-_LATERAL_LINES, _LATERAL_LINES + 1):
        _draw_curve(canvas, _seen(camera, forward_m, np.full(_SAMPLES, number * _LATERAL_STEP_M)), _GRID, width_px)
    for edge in edges:
        _draw_curve(canvas, edge, _CORRIDOR, width_px + 1)
    across_m = np.linspace(*_sides(_LATERAL_LINES * _LATERAL_STEP_M), _SAMPLES)
    ranges_m = range(_FORWARD_STEP_M, _FARTHEST_M + 1, _FORWARD_STEP_M)
    for range_m in ranges_m:
        _draw_curve(canvas, _seen(camera, np.full(_SAMPLES, float(range_m)), across_m), _GRID, width_px)
    horizon = _seen(camera, np.full(_SAMPLES, _INFINITY_M), np.linspace(-2, 2, _SAMPLES) * _INFINITY_M)
    _draw_curve(canvas, horizon, _HORIZON, width_px)
    _draw_range_labels(canvas, camera, list(ranges_m))
    if title:
        _draw_label(canvas, (text_size_px(canvas.shape[0]), 1.5 * text_size_px(canvas.shape[0])), title)
    return canvas


def draw_segments(image_rgb: UInt8Array, camera: Camera, segments_px: FloatArray) -> UInt8Array:
    """Draw the lane segments of a vanishing point.

    Args:
        image_rgb: UINT8 [H, W, 3], RGB, of the camera's size.
        camera: Only its intrinsics and distortion are used.
        segments_px: FP32 [n, 4], x and y of both ends, without lens distortion.

    Returns:
        A new image of the same size.
    """
    canvas = image_rgb.copy()
    ends_px = camera.distorted(segments_px.reshape(-1, 2)).reshape(-1, 2, 2)
    for start, end in ends_px.tolist():
        line(canvas, (start[0], start[1]), (end[0], end[1]), _SEGMENT, 2 * line_width_px(canvas.shape[0]))
    return canvas


def _nearest_m(camera: Camera) -> float:
    """Range at which the grid starts: just below the lower edge of the image."""
    lower_edge = camera.road_point(camera.width_px / 2, camera.height_px)
    return 1.0 if lower_edge is None else min(max(lower_edge.forward_m * 0.7, 0.1), _FORWARD_STEP_M)


def _sides(half_width_m: float) -> tuple[float, float]:
    return -half_width_m, half_width_m


def _seen(camera: Camera, forward_m: Float64Array, lateral_m: Float64Array) -> FloatArray:
    """Image points of road points, FP32 [n, 2]."""
    return camera.image_points(np.column_stack([forward_m, lateral_m, np.zeros_like(forward_m)]).astype(np.float32))


def _finite_points(points_px: FloatArray) -> list[Point]:
    return [(x, y) for x, y in points_px.tolist() if np.isfinite(x)]


def _draw_curve(canvas: UInt8Array, points_px: FloatArray, colour: Colour, width_px: int) -> None:
    points = _finite_points(points_px)
    if points:
        outline(canvas, points, colour, width_px, closed=False)


def _draw_range_labels(canvas: UInt8Array, camera: Camera, ranges_m: list[int]) -> None:
    """Draw the ranges beside the middle line, where there is room between them."""
    size_px = text_size_px(canvas.shape[0])
    free_below = float(canvas.shape[0])
    for range_m in ranges_m:
        middle = camera.image_point(range_m, 0.0)
        if middle is not None and middle.y_px + size_px * 0.7 < free_below:
            _draw_label(canvas, (middle.x_px + size_px * 0.4, middle.y_px), f"{range_m} m")
            free_below = middle.y_px - size_px * 0.7


def _draw_label(canvas: UInt8Array, position: Point, text: str) -> None:
    size_px = text_size_px(canvas.shape[0])
    width_px, height_px = text_extent_px(text, size_px)
    left, top, pad_px = round(position[0]), round(position[1] - height_px / 2), size_px // 3
    fill_rounded(canvas, Rectangle(left, top, left + width_px + 2 * pad_px, top + height_px), pad_px, INK, 0.7)
    put_text(canvas, (left + pad_px, position[1]), text, size_px, PAPER)
