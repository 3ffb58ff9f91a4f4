"""What a viewer must know of a run beside its decisions, along the upper edge of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.drawing.banner import banner_height_px
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS
from ssd_triton.media.drawing.canvas import (
    INK,
    MUTED,
    PAPER,
    Rectangle,
    fill_rounded,
    put_text,
    text_extent_px,
    text_size_px,
)
from ssd_triton.media.drawing.text import wrap_text

NoticeKind = Literal["REPLAY", "UNCALIBRATED", "DEGRADED", "SPEED", "CUT"]


@dataclass(frozen=True)
class Notice:
    """A notice.

    Attributes:
        kind: ``REPLAY``: a recording, whose car does not react. ``UNCALIBRATED``: the mounting of the camera is a
            guess. ``DEGRADED``: too few decisions a second. ``SPEED``: the own speed contradicts the picture. ``CUT``:
            another scene begins.
        text: The reason, in words and figures.
    """

    kind: NoticeKind
    text: str


def draw_notices(canvas: UInt8Array, notices: Sequence[Notice]) -> list[Rectangle]:
    """Draw notices below the banner, one under the other, at the left.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        notices: What to draw.

    Returns:
        The places that they take.
    """
    height, width = canvas.shape[:2]
    size_px = text_size_px(height)
    pad_px, line_px = size_px // 2, round(size_px * 1.4)
    left, top = size_px // 2 + pad_px, banner_height_px(height) + size_px // 2
    taken = []
    for notice in notices:
        name_px = text_extent_px(notice.kind, size_px, bold=True)[0]
        text = wrap_text(notice.text, size_px, width - left - name_px - 5 * pad_px, 1)[0]
        text_px = text_extent_px(text, size_px)[0]
        place = Rectangle(left, top, min(left + name_px + text_px + 3 * pad_px, width), top + line_px)
        fill_rounded(canvas, place, pad_px / 2, INK, 0.72)
        colour = MUTED if notice.kind == "REPLAY" else STATE_COLOURS[State.WARN]
        middle = top + line_px / 2
        put_text(canvas, (left + pad_px, middle), notice.kind, size_px, colour, bold=True)
        put_text(canvas, (left + name_px + 2 * pad_px, middle), text, size_px, PAPER)
        taken.append(place)
        top += line_px + 2
    return taken
