"""Writes annotated images, and a crop of each detection. Needs Pillow and OpenCV."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.files import atomic_output
from ssd_triton.media.drawing import draw_detections

_QUALITY = 92
"""JPEG quality that keeps text and thin lines clean."""


def write_annotated(path: Path, image_rgb: UInt8Array, found: Detections, labels: tuple[str, ...]) -> None:
    """Write an image, UINT8 [H, W, 3] RGB, with its detections drawn on it as JPEG."""
    _write_jpeg(path, draw_detections(image_rgb, found, labels))


def write_crops(folder: Path, stem: str, image_rgb: UInt8Array, found: Detections) -> None:
    """Write the part of an image in each box as ``FOLDER/CLASS/STEM.N.jpg``; N counts from 1, the best score first.

    Boxes are clipped to the image and widened to whole pixels.

    Args:
        folder: Folder for all crops.
        stem: Name of the image without suffix; it may begin with folders.
        image_rgb: UINT8 [H, W, 3] RGB.
        found: Detections with class names.
    """
    found = found.clipped((image_rgb.shape[1], image_rgb.shape[0]))
    for number, ((box_xyxy, _, _), name) in enumerate(zip(found, found.class_names, strict=True), 1):
        left, top = np.floor(box_xyxy[:2]).astype(int)
        right, bottom = np.ceil(box_xyxy[2:]).astype(int)
        of_class = folder / re.sub(r"[^\w -]", "_", name)
        _write_jpeg(of_class / f"{stem}.{number}.jpg", image_rgb[top:bottom, left:right])


def _write_jpeg(path: Path, image_rgb: UInt8Array) -> None:
    with atomic_output(path) as temporary:
        Image.fromarray(image_rgb).save(temporary, "JPEG", quality=_QUALITY)
