"""Converts whatever a client takes as an image to the bytes of a file that a server decodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from ssd_triton.client.errors import RequestRefusedError
from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.errors import ImageError
from ssd_triton.media.images import as_served, read_served

if TYPE_CHECKING:
    from PIL import Image

ImageInput = Union[bytes, bytearray, memoryview, str, "os.PathLike[str]", AnyArray, "Image.Image"]
"""The content of an image file, its path, an array UINT8 [H, W, 3] RGB, or a Pillow image."""

_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "data:image/")
"""First characters of a JPEG, PNG, GIF or WebP in base64, and of a data URL."""


def encoded(image: ImageInput) -> bytes:
    """Return an image as the content of a file that a server decodes; arrays become PPM, without loss.

    Raises:
        RequestRefusedError: It is none of the types in :data:`ImageInput`, or a file that cannot be read.
    """
    try:
        if isinstance(image, (bytes, bytearray, memoryview)):
            return as_served(bytes(image), "image")
        if isinstance(image, (str, os.PathLike)):
            return _read(image)
    except ImageError as error:
        raise RequestRefusedError(str(error)) from error
    if isinstance(image, np.ndarray):
        return as_ppm(checked_frame(image))
    if type(image).__module__.partition(".")[0] == "PIL":
        from ssd_triton.media.untrusted import RefusedInputError, to_rgb

        try:
            return as_ppm(np.asarray(to_rgb(image)))
        except RefusedInputError as error:
            raise RequestRefusedError(str(error)) from error
    raise RequestRefusedError(
        f"got an image of type {type(image).__name__}, expected the bytes of an image file, a path, an array uint8 "
        "[height, width, 3] RGB, or an image of Pillow"
    )


def checked_frame(frame_rgb: Any) -> AnyArray:
    """Return a frame unchanged after checking that it is UINT8 [H, W, 3].

    Raises:
        RequestRefusedError: It has another type, rank or dtype, or is empty.
    """
    if not isinstance(frame_rgb, np.ndarray):
        raise RequestRefusedError(
            f"got a frame of type {type(frame_rgb).__name__}, expected an array uint8 [height, width, 3] RGB; files go "
            "to detect()"
        )
    if frame_rgb.dtype != np.uint8 or frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or not frame_rgb.size:
        raise RequestRefusedError(
            f"got a frame of {frame_rgb.dtype} {list(frame_rgb.shape)}, expected uint8 [height, width, 3] RGB"
        )
    return frame_rgb


def as_ppm(image_rgb: AnyArray) -> bytes:
    """Return UINT8 [H, W, 3] RGB as a PPM file."""
    height_px, width_px = image_rgb.shape[:2]
    return f"P6 {width_px} {height_px} 255\n".encode() + image_rgb.tobytes()


def _read(path: str | os.PathLike[str]) -> bytes:
    text = os.fspath(path)
    if text.startswith(_BASE64_STARTS) and not Path(text[:255]).exists():
        raise RequestRefusedError(
            "got text that looks like base64, expected a path or the bytes of an image file; decode it first, with "
            "base64.b64decode"
        )
    if "://" in text:
        raise RequestRefusedError(
            f"got the address {text}, expected a path or the bytes of an image file; download it first"
        )
    return read_served(Path(text))
