"""Decoded pictures as they are meant to be seen: square pixels, turned and mirrored as the file says."""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type

from ssd_triton.common.arrays import UInt8Array

_SQUARE = Fraction(1)


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Width of a pixel by its height; 1 where the file does not say."""
    return stream.sample_aspect_ratio or _SQUARE


def upright_size_px(width_px: int, height_px: int, aspect: Fraction) -> tuple[int, int]:
    """Size of a picture with square pixels: its width changes, as players do it."""
    return max(round(width_px * aspect), 1), height_px


class Upright:
    """Makes the pictures of one stream upright.

    Args:
        aspect: Width of a pixel by its height.
    """

    def __init__(self, aspect: Fraction) -> None:
        self._aspect = aspect
        self._matrices: dict[int, tuple[int, ...] | None] = {}

    def rgb(self, picture: av.VideoFrame) -> UInt8Array:
        """Convert to RGB with square pixels, upright: UINT8 [H, W, 3], contiguous."""
        if self._aspect == _SQUARE:
            image_rgb = picture.to_ndarray(format="rgb24")
        else:
            width_px, height_px = upright_size_px(picture.width, picture.height, self._aspect)
            image_rgb = picture.to_ndarray(format="rgb24", width=width_px, height=height_px, interpolation="BICUBIC")
        return np.ascontiguousarray(_displayed(np.asarray(image_rgb, np.uint8), self._matrix(picture)))

    def _matrix(self, picture: av.VideoFrame) -> tuple[int, ...] | None:
        """The picture's display matrix, looked up once for each rotation of the stream.

        A picture of PyAV whose side data was looked at refers to itself: it stays in memory until Python's garbage
        collector passes, which takes hundreds of pictures.
        """
        if picture.rotation not in self._matrices:
            # PyAV's stubs take the container for a mapping of text.
            data: Any = picture.side_data.get(Type.DISPLAYMATRIX.name)
            self._matrices[picture.rotation] = None if data is None else struct.unpack_from("=5i", bytes(data))
        return self._matrices[picture.rotation]


def _displayed(image_rgb: UInt8Array, matrix: tuple[int, ...] | None) -> UInt8Array:
    """Apply the display matrix, rounded to the nearest of the eight ways to turn and mirror by right angles.

    The matrix (ISO/IEC 14496-12, track header box) leads from a stored pixel (x, y) to the displayed one
    (a x + c y, b x + d y).
    """
    if matrix is None:
        return image_rgb
    a, b, _, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return image_rgb[:: _step(d), :: _step(a)]
    return image_rgb.transpose(1, 0, 2)[:: _step(b), :: _step(c)]


def _step(factor: int) -> int:
    return -1 if factor < 0 else 1
