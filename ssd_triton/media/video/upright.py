"""Converts decoded pictures to square pixels, rotated and mirrored as the file says."""

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
    """Return the width of a pixel divided by its height; 1 if the file does not say."""
    return stream.sample_aspect_ratio or _SQUARE


def upright_size_px(width_px: int, height_px: int, aspect: Fraction) -> tuple[int, int]:
    """Return the size of a picture with square pixels; the width is adapted, as in video players."""
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
        """Return the picture's display matrix, looked up once for each rotation of the stream.

        Looking at the side data of a PyAV picture creates a reference cycle: the picture then stays in memory until
        Python's garbage collector runs, hundreds of pictures later.
        """
        if picture.rotation not in self._matrices:
            # PyAV's type stubs declare the container as a mapping of texts.
            data: Any = picture.side_data.get(Type.DISPLAYMATRIX.name)
            self._matrices[picture.rotation] = None if data is None else struct.unpack_from("=5i", bytes(data))
        return self._matrices[picture.rotation]


def _displayed(image_rgb: UInt8Array, matrix: tuple[int, ...] | None) -> UInt8Array:
    """Apply the display matrix, rounded to the nearest of the eight rotations and reflections by right angles.

    The matrix (ISO/IEC 14496-12, track header box) maps a stored pixel (x, y) to the displayed pixel
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
