"""The road from above."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ssd_triton.arrays import UInt8Array
from ssd_triton.braking.decision import Decision, RoadObject, State, Zones
from ssd_triton.drawing.canvas import (
    INK,
    MUTED,
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
    rectangle_corners,
    rounded_corners,
    text_extent_px,
    text_size_px,
)
from ssd_triton.drawing.overlay import STATE_COLOURS

_BACKGROUND: Colour = (21, 26, 34)
_GRID: Colour = (44, 52, 64)
_ROAD: Colour = (32, 38, 48)

_WIDTHS_M: Mapping[str, float] = {"person": 0.7, "bicycle": 0.7, "motorcycle": 0.9, "bus": 2.5, "truck": 2.5}
_CAR_WIDTH_M = 1.8
"""Usual widths by class, a car's for others. Markers are as wide; their length is for the look only, since
nothing but the near edge is measured."""

_SHORTEST_RANGE_M, _LONGEST_RANGE_M = 30, 150
_HALF_WIDTH_M = 10
_GRID_ACROSS_M = 5
_EGO_BEHIND = 1.2
"""Length of the drawn car behind its windscreen, in widths of the car."""


def panel_width_px(height_px: int) -> int:
    """Width of the panel beside an image."""
    return max(round(height_px * 0.5), 17 * text_size_px(height_px))


class BirdsEyeView:
    """A panel of the road ahead: grid, corridor, zones, and the road users on it.

    It reaches a little beyond the warning zone, and 10 m to either side, so that the scale across is larger
    than the one along; both are labelled. What lies outside is left out.

    Args:
        height_px: Height of the panel.
        zones: Ranges of the zones, in metres.
        corridor_half_width_m: Half the width of the corridor.
        ego_speed_kmh: Speed of the car, for the caption.
    """

    def __init__(self, height_px: int, zones: Zones, *, corridor_half_width_m: float, ego_speed_kmh: float) -> None:
        self._text_px = text_size_px(height_px)
        self._width_px = panel_width_px(height_px)
        self._line_px = line_width_px(height_px)
        farthest_m = 10 * math.ceil(zones.warn_m * 1.1 / 10)
        self._range_m = min(max(farthest_m, _SHORTEST_RANGE_M), _LONGEST_RANGE_M)
        self._across_px_per_m = self._width_px / (2 * _HALF_WIDTH_M)
        self._top_px = self._text_px * 3.8
        self._zero_px = height_px - self._text_px * 2.6 - _EGO_BEHIND * _CAR_WIDTH_M * self._across_px_per_m
        self._along_px_per_m = (self._zero_px - self._top_px) / self._range_m
        self._background = self._draw_background(height_px, zones, corridor_half_width_m, ego_speed_kmh)

    def draw(self, objects: Sequence[RoadObject], decision: Decision) -> UInt8Array:
        """Draw the panel.

        Returns:
            UINT8 [height_px, width_px, 3], RGB.
        """
        canvas = self._background.copy()
        shown = [
            item
            for item in sorted(objects, key=lambda item: item.position.forward_m)
            if item.position.forward_m < self._range_m and abs(item.position.lateral_m) < _HALF_WIDTH_M
        ]
        markers = [self._marker(item) for item in shown]
        for item, marker in zip(reversed(shown), reversed(markers), strict=True):
            corners = rounded_corners(
                marker.left, marker.top, marker.right, marker.bottom, (marker.right - marker.left) * 0.25
            )
            fill(canvas, corners, _object_colour(item, decision))
            outline(canvas, corners, INK, 1)
        taken = list(markers)
        for item, marker in zip(shown, markers, strict=True):
            self._draw_range(canvas, item, marker, _object_colour(item, decision), taken)
        return canvas

    def _at(self, forward_m: float, lateral_m: float) -> Point:
        """Where a point of the road is in the panel."""
        return (
            self._width_px / 2 + lateral_m * self._across_px_per_m,
            self._zero_px - forward_m * self._along_px_per_m,
        )

    def _row(self, forward_m: float) -> float:
        """The middle of the row of pixels at a range, where a level line is sharp."""
        return math.floor(self._at(forward_m, 0)[1]) + 0.5

    def _draw_background(self, height_px: int, zones: Zones, half_width_m: float, ego_speed_kmh: float) -> UInt8Array:
        canvas = np.empty((height_px, self._width_px, 3), np.uint8)
        canvas[:] = _BACKGROUND
        left, right = self._at(0, -half_width_m)[0], self._at(0, half_width_m)[0]
        fill(canvas, rectangle_corners(left, self._top_px, right, self._zero_px), _ROAD)
        self._draw_grid(canvas)
        near_m = 0.0
        for state, zone_m in ((State.BRAKE, zones.brake_m), (State.WARN, zones.warn_m)):
            far_m = min(zone_m, self._range_m)
            if near_m < far_m:
                y = self._row(far_m)
                fill(canvas, rectangle_corners(left, y, right, self._row(near_m)), STATE_COLOURS[state], 0.28)
                line(canvas, (left, y), (right, y), STATE_COLOURS[state], self._line_px)
            near_m = far_m
        for x in (left, right):
            line(canvas, (x, self._top_px), (x, self._zero_px), MUTED, self._line_px)
        self._draw_ego(canvas)
        self._draw_captions(canvas, zones, ego_speed_kmh)
        return canvas

    def _draw_grid(self, canvas: UInt8Array) -> None:
        size_px = round(self._text_px * 0.9)
        fitting = [step_m for step_m in (5, 10, 20) if step_m * self._along_px_per_m >= 3 * size_px]
        step_m = fitting[0] if fitting else 50
        for range_m in range(0, self._range_m + 1, step_m):
            y = self._row(range_m)
            line(canvas, (0, y), (self._width_px, y), _GRID, 1)
            put_text(canvas, (size_px * 0.5, y + size_px * 0.7), f"{range_m} m", size_px, MUTED)
        for lateral_m in range(-_HALF_WIDTH_M + _GRID_ACROSS_M, _HALF_WIDTH_M, _GRID_ACROSS_M):
            x = self._at(0, lateral_m)[0]
            line(canvas, (x, self._top_px), (x, self._zero_px), _GRID, 1)
            if lateral_m:
                y = self._zero_px + size_px * 0.7
                put_text(canvas, (x, y), f"{lateral_m:+d} m", size_px, MUTED, align="centre")

    def _draw_ego(self, canvas: UInt8Array) -> None:
        """Draw the car itself, its windscreen at range 0, where the camera is."""
        x, y = self._at(0, 0)
        width_px = _CAR_WIDTH_M * self._across_px_per_m
        left, right = x - width_px / 2, x + width_px / 2
        fill(
            canvas, rounded_corners(left, y - width_px * 0.55, right, y + width_px * _EGO_BEHIND, width_px * 0.3), PAPER
        )
        fill(
            canvas,
            rounded_corners(left + width_px * 0.15, y, right - width_px * 0.15, y + width_px * 0.3, width_px * 0.1),
            INK,
        )

    def _draw_captions(self, canvas: UInt8Array, zones: Zones, ego_speed_kmh: float) -> None:
        size_px, height_px = self._text_px, canvas.shape[0]
        zone_caption = f"{ego_speed_kmh:g} km/h: brake {zones.brake_m:.0f} m, warn {zones.warn_m:.0f} m"
        captions = (
            (size_px * 1.1, zone_caption, PAPER),
            (size_px * 2.5, "Ranges from the camera, flat road", MUTED),
            (height_px - size_px, "Demonstration, not a safety system", MUTED),
        )
        for y, text, colour in captions:
            fitting_px = size_px
            while fitting_px > 8 and text_extent_px(text, fitting_px)[0] > self._width_px * 0.94:
                fitting_px -= 1
            put_text(canvas, (self._width_px / 2, y), text, fitting_px, colour, align="centre")

    def _marker(self, item: RoadObject) -> Rectangle:
        """The place of an object, whose near edge is what was measured."""
        x, y = self._at(*item.position)
        width_m = _WIDTHS_M.get(item.class_name, _CAR_WIDTH_M)
        width_px = max(width_m * self._across_px_per_m, self._text_px * 0.8)
        length_px = width_px * (1.0 if item.class_name == "person" else 1.6)
        return Rectangle(
            round(x - width_px / 2), round(max(y - length_px, self._top_px)), round(x + width_px / 2), round(y)
        )

    def _draw_range(
        self, canvas: UInt8Array, item: RoadObject, marker: Rectangle, colour: Colour, taken: list[Rectangle]
    ) -> None:
        """Write an object's range where there is room: beside its marker, below, above, or not at all."""
        text, size_px = f"{item.position.forward_m:.1f} m", self._text_px
        width, height = text_extent_px(text, size_px)
        gap = size_px // 3
        right_of_grid_labels = Rectangle(3 * size_px, 0, self._width_px, canvas.shape[0])
        beside = [(marker.right + gap, marker.bottom - height), (marker.left - gap - width, marker.bottom - height)]
        if item.position.lateral_m < 0:
            beside.reverse()
        middle = (marker.left + marker.right - width) // 2
        for left, top in (*beside, (middle, marker.bottom + 1), (middle, marker.top - height - 1)):
            place = Rectangle(left, top, left + width, top + height)
            if place.within(right_of_grid_labels) and not any(place.overlaps(other) for other in taken):
                fill_rounded(canvas, place, size_px / 4, _BACKGROUND, 0.7)
                put_text(canvas, (left, top + height / 2), text, size_px, colour)
                taken.append(place)
                return


def _object_colour(item: RoadObject, decision: Decision) -> Colour:
    """The state's colour for the object that decided it, light in the corridor, muted beside it."""
    if item is decision.obstacle:
        return STATE_COLOURS[decision.state]
    return PAPER if item.in_corridor else MUTED
