"""Renders lines of text as masks from cached glyphs: texts change with every frame, their characters do not.

The typeface is the one in Pillow (Aileron, CC0), so that text looks the same on every machine. It has few glyphs beyond
ASCII; superscripts are made of its digits. There is no kerning.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssd_triton.common.arrays import FloatArray, UInt8Array

_OVERSAMPLING = 4
"""Text is rendered this many times larger than shown: at small sizes, rounded advances would swallow the spaces."""

LINE_HEIGHT = 1.25
"""Height of a line relative to the text size, with room for ascenders and descenders."""

_RAISED = {"²": "2", "³": "3"}
_RAISED_SIZE = 0.62
"""Size of superscripts relative to the text; 0.6 to 0.65 is usual in typography."""


def text_width_px(text: str, size_px: int, *, bold: bool = False) -> int:
    """Return the width of a line of text."""
    return _width_px(sum(_glyph(character, size_px, bold)[1] for character in text))


def wrap_text(text: str, size_px: int, width_px: float, max_lines: int) -> list[str]:
    """Wrap a text at spaces; a text longer than ``max_lines`` ends in three dots."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if not lines or text_width_px(longer, size_px) <= width_px:
            lines[-1:] = [longer]
        else:
            lines.append(word)
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    while last and text_width_px(f"{last}...", size_px) > width_px:
        last = last[:-1]
    return [*lines[: max_lines - 1], f"{last}..."]


def fitting_size_px(text: str, size_px: int, width_px: float, *, smallest_px: int = 8) -> int:
    """Return the largest size, at most ``size_px``, at which a text fits into a width."""
    while size_px > smallest_px and text_width_px(text, size_px) > width_px:
        size_px -= 1
    return size_px


@lru_cache(maxsize=4096)
def text_mask(text: str, size_px: int, bold: bool) -> FloatArray:
    """Return the opacity of a line of text, FP32 [h, w] in [0, 1]; bold is stroked, since the font has one weight."""
    height_px = round(size_px * LINE_HEIGHT)
    width_px = text_width_px(text, size_px, bold=bold)
    line = np.zeros((height_px * _OVERSAMPLING, width_px * _OVERSAMPLING), np.uint8)
    x = 0.0
    for mask, advance in (_glyph(character, size_px, bold) for character in text):
        region = line[:, round(x) : round(x) + mask.shape[1]]
        np.maximum(region, mask[:, : region.shape[1]], out=region)
        x += advance
    reduced: FloatArray = cv2.resize(line, (width_px, height_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    return reduced / 255


def _width_px(advance: float) -> int:
    return -(-int(advance + 1) // _OVERSAMPLING)


@lru_cache(maxsize=2048)
def _glyph(character: str, size_px: int, bold: bool) -> tuple[UInt8Array, float]:
    """Return the mask of a character, UINT8 [h, w], and its advance, both oversampled."""
    raised = character in _RAISED
    font = _font(round(size_px * _OVERSAMPLING * (_RAISED_SIZE if raised else 1.0)))
    stroke = size_px * _OVERSAMPLING / 40 if bold else 0.0
    character = _RAISED.get(character, character)
    advance = font.getlength(character)
    image = Image.new(
        "L", (int(advance + 2 * stroke) + 2 * _OVERSAMPLING, round(size_px * LINE_HEIGHT) * _OVERSAMPLING)
    )
    ImageDraw.Draw(image).text((stroke, 0), character, fill=255, font=font, stroke_width=stroke)
    return np.asarray(image), advance + stroke


@lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
