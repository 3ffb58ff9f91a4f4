"""Default boxes of SSD300 and the encoding of boxes against them, in NumPy.

Source of every constant: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), in the form that NVIDIA's
DeepLearningExamples ``PyTorch/Detection/SSD`` trains with (``ssd/utils.py``).
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np

from ssd_triton.common.arrays import FloatArray

IMAGE_SIZE_PX = 300
CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2


class FeatureMap(NamedTuple):
    """One of the six feature maps from which boxes are predicted."""

    cells: int
    """Cells along each side."""
    step_px: int
    """Distance between the centres of neighbouring cells, in pixels of the 300 x 300 input."""
    scale_px: int
    """Side of the smaller square default box."""
    next_scale_px: int
    """Side of the smaller square of the next map; the larger square's side is the geometric mean of both."""
    aspect_ratios: tuple[int, ...]
    """Each ratio gives one wide and one tall box."""

    @property
    def boxes_per_cell(self) -> int:
        """Two squares, and two boxes for each aspect ratio."""
        return 2 + 2 * len(self.aspect_ratios)


FEATURE_MAPS = (
    FeatureMap(38, 8, 21, 45, (2,)),
    FeatureMap(19, 16, 45, 99, (2, 3)),
    FeatureMap(10, 32, 99, 153, (2, 3)),
    FeatureMap(5, 64, 153, 207, (2, 3)),
    FeatureMap(3, 100, 207, 261, (2,)),
    FeatureMap(1, 300, 261, 315, (2,)),
)
NUM_DEFAULT_BOXES = sum(level.cells**2 * level.boxes_per_cell for level in FEATURE_MAPS)
"""8,732."""


def default_boxes_cxcywh() -> FloatArray:
    """Return the default boxes, FP32 [8732, 4]: centre x, centre y, width, height as fractions of the image, in [0, 1].

    Their order is that of the network's outputs: feature map, then box shape, then row, then column.
    """
    boxes = [
        (center_x, center_y, width, height)
        for level in FEATURE_MAPS
        for width, height in _box_shapes(level)
        for center_y in _cell_centers(level)
        for center_x in _cell_centers(level)
    ]
    return np.clip(np.array(boxes, np.float64), 0.0, 1.0).astype(np.float32)


def _box_shapes(level: FeatureMap) -> list[tuple[float, float]]:
    """Widths and heights of a cell's default boxes as fractions of the image."""
    small = level.scale_px / IMAGE_SIZE_PX
    large = sqrt(small * level.next_scale_px / IMAGE_SIZE_PX)
    shapes = [(small, small), (large, large)]
    for ratio in level.aspect_ratios:
        shapes += [(small * sqrt(ratio), small / sqrt(ratio)), (small / sqrt(ratio), small * sqrt(ratio))]
    return shapes


def _cell_centers(level: FeatureMap) -> list[float]:
    """Centres of the cells along one side as fractions of the image."""
    return [(index + 0.5) * level.step_px / IMAGE_SIZE_PX for index in range(level.cells)]


def to_xyxy(boxes_cxcywh: FloatArray) -> FloatArray:
    """Convert [..., 4] from centre and size to left, top, right, bottom."""
    center, half_size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return np.concatenate([center - half_size, center + half_size], axis=-1)


def to_cxcywh(boxes_xyxy: FloatArray) -> FloatArray:
    """Convert [..., 4] from left, top, right, bottom to centre and size."""
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return np.concatenate([(top_left + bottom_right) / 2, bottom_right - top_left], axis=-1)


def encode(boxes_xyxy: FloatArray, defaults_cxcywh: FloatArray) -> FloatArray:
    """Return the offsets that the network should predict for boxes, each relative to its default box.

    Args:
        boxes_xyxy: [n, 4], fractions of the image, of positive width and height.
        defaults_cxcywh: [n, 4], the default box that each box is assigned to.

    Returns:
        FP32 [n, 4]: the inverse of :func:`decode`.
    """
    boxes = to_cxcywh(boxes_xyxy)
    center = (boxes[:, :2] - defaults_cxcywh[:, :2]) / defaults_cxcywh[:, 2:] / CENTER_VARIANCE
    size = np.log(boxes[:, 2:] / defaults_cxcywh[:, 2:]) / SIZE_VARIANCE
    offsets: FloatArray = np.concatenate([center, size], axis=1).astype(np.float32)
    return offsets


def decode(offsets: FloatArray, defaults_cxcywh: FloatArray) -> FloatArray:
    """Return the boxes that the network's offsets describe; they are not clamped to the image.

    Args:
        offsets: FP32 [..., n, 4], as the network predicts them.
        defaults_cxcywh: FP32 [n, 4].

    Returns:
        FP32 [..., n, 4]: left, top, right, bottom as fractions of the image.
    """
    center = defaults_cxcywh[:, :2] + offsets[..., :2] * np.float32(CENTER_VARIANCE) * defaults_cxcywh[:, 2:]
    size: FloatArray = defaults_cxcywh[:, 2:] * np.exp(offsets[..., 2:] * np.float32(SIZE_VARIANCE))
    return to_xyxy(np.concatenate([center, size], axis=-1))
