"""The bird's-eye view of the road."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.braking.decision import FrameDecision, TrackedObject
from ssd_triton.driving.camera import RoadPoint
from ssd_triton.driving.drawing.corridor import corridor_edges_m, reach_m
from ssd_triton.driving.drawing.road_marks import (
    BAR_AND_ARROW,
    Trails,
    arrow_tip,
    captions,
    drawn_length_m,
    range_bar,
    trigger_lines,
)
from ssd_triton.driving.drawing.state_colours import DISAGREEMENT, STATE_COLOURS, label_colour, reported_object
from ssd_triton.driving.drawing.trigger_ranges import TriggerRanges
from ssd_triton.media.drawing.canvas import (
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
    rounded_corners,
    text_extent_px,
    text_size_px,
)
from ssd_triton.media.drawing.text import fitting_size_px

_BACKGROUND: Colour = (21, 26, 34)
_GRID: Colour = (44, 52, 64)

_EGO_WIDTH_M = 1.8

DISCLAIMER = "Demonstration, not a safety system"


def panel_width_px(height_px: int) -> int:
    """Width of the panel beside an image."""
    return max(round(height_px * 0.5), 17 * text_size_px(height_px))


class BirdsEyeView:
    """A panel with the road ahead: grid, corridor and road users.

    Road users in the corridor are drawn with trail, speed and range uncertainty, all others as muted marks. The scale
    is the same in both directions.

    Args:
        height_px: Height of the panel.
        range_m: Range at its upper edge.
    """

    def __init__(self, height_px: int, range_m: float) -> None:
        self._text_px = text_size_px(height_px)
        self._width_px = panel_width_px(height_px)
        self._line_px = line_width_px(height_px)
        self._range_m = range_m
        self._top_px = self._text_px * 4.6
        below_px = self._text_px * 3.2
        # In images of a few rows there is no room between the captions.
        self._px_per_m = max(height_px - self._top_px - below_px, 1.0) / (range_m + 2.5)
        self._zero_px = height_px - below_px - 2.5 * self._px_per_m
        self._background = self._draw_background(height_px)
        self._trails = Trails()

    def draw(self, panel: UInt8Array, decision: FrameDecision, ranges: TriggerRanges | None) -> None:
        """Draw the panel.

        Args:
            panel: UINT8 [height_px, width_px, 3], RGB; drawn into.
            decision: Decisions come in order of time.
            ranges: Trigger ranges for a stationary object; None when the speed is unknown.
        """
        panel[:] = self._background
        self._draw_corridor(panel, decision, ranges)
        self._draw_ego(panel)
        trails = self._trails.follow(decision)
        nearest_last = sorted(decision.objects, key=lambda item: -item.range_m)
        markers = []
        for item in nearest_last:
            colour = label_colour(item, decision)
            if item.in_corridor:
                self._draw_trail(panel, trails[item.track_id], colour)
            markers.append((item, self._draw_marker(panel, item, colour), colour))
        # The captions cover whatever reaches up to them.
        panel[: round(self._top_px) - self._text_px] = _BACKGROUND
        taken = [marker for _, marker, _ in markers]
        for item, marker, colour in reversed(markers):
            if item.in_corridor:
                self._draw_name(panel, item, marker, colour, taken)
        self._draw_captions(panel, decision)

    def _at(self, forward_m: float, lateral_m: float) -> Point:
        """Position of a road point in the panel."""
        return self._width_px / 2 + lateral_m * self._px_per_m, self._zero_px - forward_m * self._px_per_m

    def _draw_background(self, height_px: int) -> UInt8Array:
        canvas = np.empty((height_px, self._width_px, 3), np.uint8)
        canvas[:] = _BACKGROUND
        size_px = round(self._text_px * 0.9)
        step_m = next((step for step in (5, 10, 20, 50) if step * self._px_per_m >= 3 * size_px), 100)
        half_m = self._width_px / 2 / self._px_per_m
        for range_m in range(0, int(self._range_m) + 1, step_m):
            y = math.floor(self._at(range_m, 0)[1]) + 0.5
            line(canvas, (0, y), (self._width_px, y), _GRID, 1)
            put_text(canvas, (size_px * 0.4, y - size_px * 0.6), f"{range_m} m", size_px, MUTED)
        for number in range(-int(half_m // step_m), int(half_m // step_m) + 1):
            x = self._at(0, number * step_m)[0]
            line(canvas, (x, self._top_px), (x, self._at(-2.5, 0)[1]), _GRID, 1)
            text = f"{number * step_m:+d} m"
            if (
                number
                and abs(number * step_m * self._px_per_m) + text_extent_px(text, size_px)[0] / 2 < self._width_px / 2
            ):
                put_text(canvas, (x, self._zero_px + size_px * 0.8), text, size_px, MUTED, align="centre")
        return canvas

    def _draw_corridor(self, panel: UInt8Array, decision: FrameDecision, ranges: TriggerRanges | None) -> None:
        far_m = min(reach_m(ranges), self._range_m)
        left, right = ([self._at(*point) for point in edge] for edge in corridor_edges_m(decision.corridor, 0.1, far_m))
        if len(left) < 2:
            return
        colour = STATE_COLOURS[decision.state]
        fill(panel, [*left, *reversed(right)], colour, 0.25)
        for edge in (left, right):
            outline(panel, edge, colour, self._line_px, closed=False)
        for state, (start, end) in trigger_lines(decision, ranges, far_m):
            line(panel, self._at(*start), self._at(*end), STATE_COLOURS[state], self._line_px + 1)

    def _draw_ego(self, panel: UInt8Array) -> None:
        """Draw the front of the ego, with the camera at range 0."""
        x, y = self._at(0, 0)
        width_px = _EGO_WIDTH_M * self._px_per_m
        left, right, bottom = x - width_px / 2, x + width_px / 2, self._at(-2.5, 0)[1]
        fill(panel, rounded_corners(left, y - 1.2 * self._px_per_m, right, bottom, width_px * 0.25), PAPER)
        glass = rounded_corners(left + width_px * 0.15, y, right - width_px * 0.15, y + width_px * 0.3, width_px * 0.1)
        fill(panel, glass, INK)

    def _draw_trail(self, panel: UInt8Array, positions: Sequence[RoadPoint], colour: Colour) -> None:
        """Draw an object's trail."""
        trail = [self._at(*position) for position in positions]
        if len(trail) > 1:
            faded = (round(channel * 0.6 + base * 0.4) for channel, base in zip(colour, _BACKGROUND, strict=True))
            outline(panel, trail, (next(faded), next(faded), next(faded)), self._line_px, closed=False)

    def _draw_marker(self, panel: UInt8Array, item: TrackedObject, colour: Colour) -> Rectangle:
        """Draw an object from its measured near face; in the corridor with its uncertainty and motion."""
        x, y = self._at(*item.position)
        width_px = max(item.width_m * self._px_per_m, self._text_px * 0.5)
        length_px = max(drawn_length_m(item) * self._px_per_m, self._text_px * 0.5)
        left, right, top = x - width_px / 2, x + width_px / 2, y - length_px
        corners = rounded_corners(left, top, right, y, width_px * 0.25)
        fill(panel, corners, colour, 1.0 if item.unseen_s == 0 else 0.4)
        outline(panel, corners, INK, 1)
        if item.in_corridor:
            self._draw_motion(panel, item)
        return Rectangle(math.floor(left), math.floor(top), math.ceil(right), math.ceil(y))

    def _draw_motion(self, panel: UInt8Array, item: TrackedObject) -> None:
        """Draw a bar of one standard deviation of the range, and an arrow to where the object will be."""
        for segment in range_bar(item):
            start, end = (self._at(*point) for point in segment)
            line(panel, start, end, INK, self._line_px + 2)
            line(panel, start, end, PAPER, self._line_px)
        _draw_arrow(panel, self._at(*item.position), self._at(*arrow_tip(item)), PAPER, self._line_px)

    def _draw_name(
        self, panel: UInt8Array, item: TrackedObject, marker: Rectangle, colour: Colour, taken: list[Rectangle]
    ) -> None:
        """Draw an object's number and range where there is room: beside its marker, above it, or not at all."""
        text, size_px = f"#{item.track_id} {item.range_m:.1f} m", self._text_px
        width, height = text_extent_px(text, size_px)
        gap = size_px // 3
        room = Rectangle(3 * size_px, round(self._top_px) - size_px, self._width_px, round(self._zero_px))
        beside = [(marker.right + gap, marker.bottom - height), (marker.left - gap - width, marker.bottom - height)]
        if item.position.lateral_m < 0:
            beside.reverse()
        for left, top in (*beside, ((marker.left + marker.right - width) // 2, marker.top - height - 1)):
            place = Rectangle(left, top, left + width, top + height)
            if place.within(room) and not any(place.overlaps(other) for other in taken):
                fill_rounded(panel, place, size_px / 4, _BACKGROUND, 0.7)
                put_text(panel, (left, top + height / 2), text, size_px, colour)
                taken.append(place)
                return

    def _draw_captions(self, panel: UInt8Array, decision: FrameDecision) -> None:
        size_px, height_px = self._text_px, panel.shape[0]
        of_ego, of_times = captions(decision)
        obstacle = reported_object(decision)
        disagreement = obstacle is not None and obstacle.disagreement
        self._caption(panel, size_px * 1.1, of_ego, PAPER)
        self._caption(panel, size_px * 2.5, of_times, DISAGREEMENT if disagreement else PAPER)
        self._caption(panel, height_px - size_px * 2.1, BAR_AND_ARROW, MUTED)
        self._caption(panel, height_px - size_px * 0.8, DISCLAIMER, MUTED)

    def _caption(self, panel: UInt8Array, y: float, text: str, colour: Colour) -> None:
        size_px = fitting_size_px(text, self._text_px, self._width_px * 0.95)
        put_text(panel, (self._width_px / 2, y), text, size_px, colour, align="centre")


def _draw_arrow(panel: UInt8Array, start: Point, tip: Point, colour: Colour, width_px: int) -> None:
    """Draw an arrow, unless it would be shorter than its head."""
    dx, dy = tip[0] - start[0], tip[1] - start[1]
    length, head_px = math.hypot(dx, dy), 3.0 * width_px + 2
    if length < head_px:
        return
    ux, uy = dx / length, dy / length
    base = (tip[0] - ux * head_px, tip[1] - uy * head_px)
    line(panel, start, base, colour, width_px)
    half = head_px * 0.55
    fill(panel, [tip, (base[0] - uy * half, base[1] + ux * half), (base[0] + uy * half, base[1] - ux * half)], colour)
