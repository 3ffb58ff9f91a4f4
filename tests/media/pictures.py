"""Pictures to draw into, and what has changed in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.media.drawing.canvas import Colour

BoolArray = npt.NDArray[np.bool_]

PERSON, CAR = 1, 3
GREY = 100


def grey_image(width_px: int = 320, height_px: int = 180) -> UInt8Array:
    image = np.full((height_px, width_px, 3), GREY, np.uint8)
    image.setflags(write=False)
    return image


def one(box: tuple[float, float, float, float], class_id: int = CAR) -> Detections:
    return Detections(np.array([box], np.float32), np.array([0.9], np.float32), np.array([class_id], np.int32))


def of_colour(image_rgb: UInt8Array, colour: Colour) -> BoolArray:
    """Where an image has a colour, but for rounding: bool [H, W]."""
    matches: BoolArray = (np.abs(image_rgb.astype(int) - colour) <= 2).all(axis=2)
    return matches


def changed(before: UInt8Array, after: UInt8Array) -> BoolArray:
    """Where two images differ: bool [H, W]."""
    differs: BoolArray = (before != after).any(axis=2)
    return differs
