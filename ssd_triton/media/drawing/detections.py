"""Draws detections as boxes with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.media.drawing.boxes import draw_box, draw_label, inside, place_label, visible_part
from ssd_triton.media.drawing.canvas import Colour, Rectangle, class_colour, text_size_px


def draw_detections(
    image_rgb: UInt8Array,
    detections: Detections,
    labels: Sequence[str],
    *,
    notes: Mapping[int, str] | None = None,
    highlights: Mapping[int, Colour] | None = None,
) -> UInt8Array:
    """Draw a box and a label with class and score for each detection, the best ones on top.

    Args:
        image_rgb: UINT8 [H, W, 3], RGB.
        detections: Boxes in pixels of the image, clipped to it.
        labels: Class names by id, the background first.
        notes: Additional label texts, by index of the detection.
        highlights: Colours of emphasised detections, by index of the detection.

    Returns:
        UINT8 [H, W, 3], RGB, a new image.
    """
    canvas = image_rgb.copy()
    notes, highlights = notes or {}, highlights or {}
    colours = [highlights.get(index, class_colour(class_id)) for index, (_, _, class_id) in enumerate(detections)]
    visible = [visible_part(box_xyxy.tolist(), canvas) for box_xyxy, _, _ in detections]
    for index in sorted(range(len(detections)), key=lambda index: (index in highlights, -index)):
        box = visible[index]
        if box is not None:
            draw_box(canvas, box, colours[index], emphasised=index in highlights)
    size_px = text_size_px(canvas.shape[0])
    room = Rectangle(0, 0, canvas.shape[1], canvas.shape[0])
    labelled: dict[int, tuple[Rectangle, str]] = {}
    for index, (_, score, class_id) in enumerate(detections):
        box = visible[index]
        if box is not None:
            text = " · ".join(filter(None, (f"{labels[class_id]} {score:.2f}", notes.get(index))))
            place = place_label(box, text, size_px, room, [taken for taken, _ in labelled.values()])
            labelled[index] = (place or inside(box, text, size_px), text)
    for index, (place, text) in reversed(labelled.items()):
        draw_label(canvas, place, text, colours[index])
    return canvas
