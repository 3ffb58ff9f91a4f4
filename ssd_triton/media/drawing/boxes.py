"""Draws boxes and their labels."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.media.drawing.canvas import (
    INK,
    Colour,
    Rectangle,
    fill,
    fill_rounded,
    line_width_px,
    outline,
    put_text,
    rectangle_corners,
    text_extent_px,
    text_size_px,
)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def visible_part(box_xyxy: Sequence[float], canvas: UInt8Array) -> Box | None:
    """Return the part of a box inside the image; None if the box lies outside."""
    height, width = canvas.shape[:2]
    left, right = (min(max(float(side), 0.0), float(width)) for side in (box_xyxy[0], box_xyxy[2]))
    top, bottom = (min(max(float(side), 0.0), float(height)) for side in (box_xyxy[1], box_xyxy[3]))
    return (left, top, right, bottom) if left < right and top < bottom else None


def draw_box(canvas: UInt8Array, box: Box, colour: Colour, *, emphasised: bool) -> None:
    """Draw the edges of a box; ``emphasised`` makes them thicker and tints the inside."""
    width_px = line_width_px(canvas.shape[0])
    corners = rectangle_corners(*box)
    if emphasised:
        fill(canvas, corners, colour, 0.18)
        width_px += 1
    # A dark line underneath keeps the box visible against a bright sky.
    outline(canvas, corners, INK, width_px + 2)
    outline(canvas, corners, colour, width_px)


def place_label(box: Box, text: str, size_px: int, room: Rectangle, taken: Sequence[Rectangle]) -> Rectangle | None:
    """Find a place for a label above, inside, below or beside a box, within ``room``; None if all places are taken."""
    width, height = _label_extent_px(text, size_px)
    left = max(room.left, min(round(box[0]), room.right - width))
    upper, lower = max(round(box[1]), room.top), round(box[3])
    left_of, right_of = round(box[0]) - width, round(box[2])
    above_and_below = [(left, top) for top in (upper - height, upper, lower, lower - height)]
    for x, top in (*above_and_below, (right_of, upper), (left_of, upper)):
        place = Rectangle(x, top, x + width, top + height)
        if place.within(room) and not any(place.overlaps(other) for other in taken):
            return place
    return None


def inside(box: Box, text: str, size_px: int) -> Rectangle:
    """Return the place for a label in the upper left corner of a box, whether or not it is taken."""
    width, height = _label_extent_px(text, size_px)
    left, top = max(round(box[0]), 0), max(round(box[1]), 0)
    return Rectangle(left, top, left + width, top + height)


def draw_label(canvas: UInt8Array, place: Rectangle, text: str, background: Colour, colour: Colour = INK) -> None:
    """Draw a label at a place that :func:`place_label` found."""
    size_px = text_size_px(canvas.shape[0])
    fill_rounded(canvas, place, size_px / 5, background)
    put_text(canvas, (place.left + size_px * 0.4, (place.top + place.bottom) / 2), text, size_px, colour)


def _label_extent_px(text: str, size_px: int) -> tuple[int, int]:
    return text_extent_px(text, size_px)[0] + round(size_px * 0.8), round(size_px * 1.4)
