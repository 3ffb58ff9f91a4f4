"""Boxes with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssd_triton.arrays import FloatArray, UInt8Array
from ssd_triton.detections import Detections
from ssd_triton.drawing.canvas import (
    INK,
    Colour,
    Rectangle,
    class_colour,
    fill,
    fill_rounded,
    line_width_px,
    outline,
    put_text,
    rectangle_corners,
    text_extent_px,
    text_size_px,
)


def draw_detections(
    image_rgb: UInt8Array,
    detections: Detections,
    labels: Sequence[str],
    *,
    notes: Mapping[int, str] | None = None,
    highlights: Mapping[int, Colour] | None = None,
    top_margin_px: int = 0,
) -> UInt8Array:
    """Draw a box and a label with class and score for each detection, the best ones on top.

    Args:
        image_rgb: UINT8 [H, W, 3], RGB.
        detections: Boxes in pixels of the image; parts outside it are cut off.
        labels: Class names by id, the background first.
        notes: Text to add to the label of the detection at an index.
        highlights: Colour that a detection at an index is set off with, in place of its class's.
        top_margin_px: Rows at the upper edge to keep free of labels, for what is drawn there later.

    Returns:
        UINT8 [H, W, 3], RGB, a new image.
    """
    canvas = image_rgb.copy()
    notes, highlights = notes or {}, highlights or {}
    colours = [highlights.get(index, class_colour(class_id)) for index, (_, _, class_id) in enumerate(detections)]
    visible = [_clip(box_xyxy, canvas) for box_xyxy, _, _ in detections]
    for index in sorted(range(len(detections)), key=lambda index: (index in highlights, -index)):
        box = visible[index]
        if box is not None:
            _draw_box(canvas, box, colours[index], emphasised=index in highlights)
    size_px = text_size_px(canvas.shape[0])
    room = Rectangle(0, top_margin_px, canvas.shape[1], canvas.shape[0])
    chips: dict[int, tuple[Rectangle, str]] = {}
    for index, (_, score, class_id) in enumerate(detections):
        box = visible[index]
        if box is not None:
            text = " · ".join(filter(None, (f"{labels[class_id]} {score:.2f}", notes.get(index))))
            chips[index] = (_place_chip(box, text, size_px, room, [chip for chip, _ in chips.values()]), text)
    for index, (chip, text) in reversed(chips.items()):
        fill_rounded(canvas, chip, size_px / 5, colours[index])
        put_text(canvas, (chip.left + size_px * 0.4, (chip.top + chip.bottom) / 2), text, size_px, INK)
    return canvas


def _clip(box_xyxy: FloatArray, canvas: UInt8Array) -> tuple[float, float, float, float] | None:
    """The visible part of a box; None if there is none."""
    height, width = canvas.shape[:2]
    left, right = (min(max(float(side), 0.0), float(width)) for side in box_xyxy[[0, 2]])
    top, bottom = (min(max(float(side), 0.0), float(height)) for side in box_xyxy[[1, 3]])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _draw_box(canvas: UInt8Array, box: tuple[float, float, float, float], colour: Colour, *, emphasised: bool) -> None:
    width_px = line_width_px(canvas.shape[0])
    corners = rectangle_corners(*box)
    if emphasised:
        fill(canvas, corners, colour, 0.18)
        width_px += 1
    # A dark line below keeps the box visible before a bright sky.
    outline(canvas, corners, INK, width_px + 2)
    outline(canvas, corners, colour, width_px)


def _place_chip(
    box: tuple[float, float, float, float], text: str, size_px: int, room: Rectangle, taken: Sequence[Rectangle]
) -> Rectangle:
    """Find a place for a label at a box: above it, inside it, or below; inside if there is none."""
    width = text_extent_px(text, size_px)[0] + round(size_px * 0.8)
    height = round(size_px * 1.4)
    left = max(room.left, min(round(box[0]), room.right - width))
    upper, lower = max(round(box[1]), room.top), round(box[3])
    places = [
        Rectangle(left, top, left + width, top + height) for top in (upper - height, upper, lower, lower - height)
    ]
    for place in places:
        if place.within(room) and not any(place.overlaps(other) for other in taken):
            return place
    return places[1]
