"""Notices about the state of a run, along the upper edge of the image."""

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
        reason: Text that changes only when the reason does.
        figures: Text that may change with every frame; may be empty.
    """

    kind: NoticeKind
    reason: str
    figures: str = ""

    @property
    def text(self) -> str:
        """Reason and figures."""
        return "; ".join(filter(None, (self.reason, self.figures)))


def draw_notices(canvas: UInt8Array, notices: Sequence[Notice]) -> list[Rectangle]:
    """Draw notices below the banner, one under the other, at the left.

    Args:
        canvas: UINT8 [H, W, 3], RGB; drawn into.
        notices: What to draw; a text is wrapped to two lines, and then cut off.

    Returns:
        The rectangles that they cover.
    """
    height, width = canvas.shape[:2]
    size_px = text_size_px(height)
    pad_px, line_px = size_px // 2, round(size_px * 1.4)
    left, top = size_px // 2 + pad_px, banner_height_px(height) + size_px // 2
    taken = []
    for notice in notices:
        name_px = text_extent_px(notice.kind, size_px, bold=True)[0]
        lines = wrap_text(notice.text, size_px, width - left - name_px - 5 * pad_px, 2)
        text_px = max(text_extent_px(text, size_px)[0] for text in lines)
        right, bottom = min(left + name_px + text_px + 3 * pad_px, width), top + line_px * len(lines)
        place = Rectangle(left, top, right, bottom)
        fill_rounded(canvas, place, pad_px / 2, INK, 0.72)
        colour = MUTED if notice.kind == "REPLAY" else STATE_COLOURS[State.WARN]
        put_text(canvas, (left + pad_px, top + line_px / 2), notice.kind, size_px, colour, bold=True)
        for number, text in enumerate(lines):
            put_text(canvas, (left + name_px + 2 * pad_px, top + line_px * (number + 0.5)), text, size_px, PAPER)
        taken.append(place)
        top = bottom + 2
    return taken
