"""Draws anti-aliased text, lines and filled shapes into an RGB image in place, clipped to the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ssd_triton.common.arrays import Float64Array, UInt8Array
from ssd_triton.media.drawing.text import LINE_HEIGHT, text_mask, text_width_px

Colour = tuple[int, int, int]
"""RGB, 0 to 255 each."""
Point = tuple[float, float]
"""Horizontal and vertical position in pixels from the top left corner."""

INK: Colour = (15, 19, 26)
PAPER: Colour = (236, 240, 245)
MUTED: Colour = (140, 150, 165)

_CLASS_COLOURS: tuple[Colour, ...] = (
    (205, 200, 140),
    (240, 128, 190),
    (45, 205, 185),
    (100, 168, 250),
    (170, 142, 250),
    (150, 185, 200),
    (60, 205, 240),
    (190, 150, 210),
    (130, 145, 250),
    (225, 175, 160),
)
"""Light enough for dark text, and distinct from the red, amber and green of states."""

_SUBPIXEL_BITS = 4
"""OpenCV's ``shift``: coordinates are in 1/16 pixel, so that slanted and moving lines do not jump."""

_QUARTERS = [
    [(math.cos(angle), math.sin(angle)) for angle in np.linspace(number * math.pi / 2, (number + 1) * math.pi / 2, 7)]
    for number in range(4)
]
"""Points on a unit circle, by quarter, clockwise from the lower right quarter."""

_COORDINATE_LIMIT_PX = 1e5
"""Limit of coordinates: far outside any image, and within 32-bit integers of 1/16 pixel."""


@dataclass(frozen=True)
class Rectangle:
    """Pixels from ``left``, ``top`` up to but excluding ``right``, ``bottom``."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Rectangle) -> bool:
        """Whether the two share a pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Rectangle) -> bool:
        """Whether this rectangle lies entirely inside the other."""
        return (
            other.left <= self.left
            and other.top <= self.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


def class_colour(class_id: int) -> Colour:
    """Return the colour of a class; classes with consecutive ids differ."""
    return _CLASS_COLOURS[class_id % len(_CLASS_COLOURS)]


def text_size_px(image_height_px: int) -> int:
    """Return the size of ordinary text: about 45 lines in the height of the image, but never too small to read."""
    return max(11, round(image_height_px / 45))


def line_width_px(image_height_px: int) -> int:
    """Return the width of ordinary lines."""
    return max(1, round(image_height_px / 360))


def text_extent_px(text: str, size_px: int, *, bold: bool = False) -> tuple[int, int]:
    """Return width and height of a line of text, including ascenders and descenders."""
    return text_width_px(text, size_px, bold=bold), round(size_px * LINE_HEIGHT)


def put_text(
    canvas: UInt8Array,
    position: Point,
    text: str,
    size_px: int,
    colour: Colour,
    *,
    align: Literal["left", "centre", "right"] = "left",
    bold: bool = False,
) -> None:
    """Draw one line of text, vertically centred on ``position`` and horizontally aligned to it."""
    mask = text_mask(text, size_px, bold)
    height, width = mask.shape
    left = math.floor(position[0] - {"left": 0.0, "centre": width / 2, "right": float(width)}[align])
    top = math.floor(position[1] - height / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    if x0 < x1 and y0 < y1:
        opacity = mask[y0 - top : y1 - top, x0 - left : x1 - left, np.newaxis]
        region = canvas[y0:y1, x0:x1]
        region[:] = region + (np.array(colour, np.float32) - region) * opacity + 0.5


def line(canvas: UInt8Array, start: Point, end: Point, colour: Colour, width_px: int) -> None:
    """Draw a straight line."""
    cv2.line(canvas, _fixed(start), _fixed(end), colour, width_px, cv2.LINE_AA, _SUBPIXEL_BITS)


def outline(canvas: UInt8Array, points: Sequence[Point], colour: Colour, width_px: int, *, closed: bool = True) -> None:
    """Draw the edges of a polygon or, if not ``closed``, a line through the points."""
    cv2.polylines(canvas, [_fixed_array(points)], closed, colour, width_px, cv2.LINE_AA, _SUBPIXEL_BITS)


def fill(canvas: UInt8Array, points: Sequence[Point], colour: Colour, opacity: float = 1.0) -> None:
    """Fill a polygon; ``opacity`` from 0 to 1."""
    height, width = canvas.shape[:2]
    corners = np.asarray(points, np.float64)
    x0, y0 = (int(side) for side in np.clip(np.floor(corners.min(axis=0)) - 1, 0, (width, height)))
    x1, y1 = (int(side) for side in np.clip(np.ceil(corners.max(axis=0)) + 2, 0, (width, height)))
    if x0 < x1 and y0 < y1:
        region = canvas[y0:y1, x0:x1]
        painted = region.copy()
        cv2.fillPoly(
            painted,
            [_fixed_array(corners - (x0, y0))],
            colour,
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )
        region[:] = cv2.addWeighted(painted, opacity, region, 1 - opacity, 0)


def fill_rounded(canvas: UInt8Array, area: Rectangle, radius_px: float, colour: Colour, opacity: float = 1.0) -> None:
    """Fill a rectangle with rounded corners."""
    fill(canvas, rounded_corners(area.left, area.top, area.right, area.bottom, radius_px), colour, opacity)


def rounded_corners(left: float, top: float, right: float, bottom: float, radius_px: float) -> list[Point]:
    """Return the polygon of a rectangle with rounded corners."""
    radius = max(0.0, min(radius_px, (right - left) / 2, (bottom - top) / 2))
    near_x, far_x, near_y, far_y = left + radius, right - radius, top + radius, bottom - radius
    centres = ((far_x, far_y), (near_x, far_y), (near_x, near_y), (far_x, near_y))
    return [
        (x + radius * cos, y + radius * sin)
        for (x, y), quarter in zip(centres, _QUARTERS, strict=True)
        for cos, sin in quarter
    ]


def rectangle_corners(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Return the polygon of a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _fixed(point: Point) -> tuple[int, int]:
    """Convert a point to OpenCV's coordinates, where integers are centres of pixels, not edges."""
    x, y = (
        round((min(max(side, -_COORDINATE_LIMIT_PX), _COORDINATE_LIMIT_PX) - 0.5) * (1 << _SUBPIXEL_BITS))
        for side in point
    )
    return x, y


def _fixed_array(points: Sequence[Point] | Float64Array) -> npt.NDArray[np.int32]:
    limited = np.clip(np.asarray(points, np.float64), -_COORDINATE_LIMIT_PX, _COORDINATE_LIMIT_PX)
    fixed: npt.NDArray[np.int32] = np.rint((limited - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    return fixed
