"""The banner with the state and its reason, along the upper edge of an image."""

from __future__ import annotations

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS, STATE_NAMES
from ssd_triton.media.drawing.canvas import (
    INK,
    PAPER,
    fill,
    line_width_px,
    outline,
    put_text,
    rectangle_corners,
    text_extent_px,
    text_size_px,
)
from ssd_triton.media.drawing.text import wrap_text

_LINES = 2
"""Number of lines of the reason; a shorter one leaves the rest empty, so that the height is constant."""


def banner_height_px(image_height_px: int) -> int:
    """Height of the banner without the frame."""
    return round(text_size_px(image_height_px) * 3.1)


def draw_banner(canvas: UInt8Array, state: State, reason: str) -> None:
    """Draw the state and its reason along the upper edge, and a frame in its colour unless it is SAFE.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        state: The state.
        reason: Wrapped to two lines, and then cut off.
    """
    height, width = canvas.shape[:2]
    size_px, bar_px, colour = text_size_px(height), banner_height_px(height), STATE_COLOURS[state]
    name_px = round(size_px * 1.3)
    if state is not State.SAFE:
        # Half of the line's width lies outside the image.
        outline(canvas, rectangle_corners(0, 0, width, height), colour, 4 * line_width_px(height))
    fill(canvas, rectangle_corners(0, 0, width, bar_px), INK, 0.78)
    widest_px = max(text_extent_px(name, name_px, bold=True)[0] for name in STATE_NAMES.values())
    block_px = widest_px + round(name_px * 1.2)
    fill(canvas, rectangle_corners(0, 0, block_px, bar_px), colour)
    put_text(canvas, (block_px / 2, bar_px / 2), STATE_NAMES[state], name_px, INK, align="centre", bold=True)
    left = block_px + size_px * 0.8
    lines = wrap_text(reason, size_px, width - left - size_px * 0.8, _LINES)
    line_px = size_px * 1.3
    for number, text in enumerate(lines):
        y = bar_px / 2 + line_px * (number - (len(lines) - 1) / 2)
        put_text(canvas, (left, y), text, size_px, PAPER)
