"""Arithmetic of boxes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from ssd_triton.common.arrays import Float64Array, FloatArray

_Boxes = TypeVar("_Boxes", FloatArray, Float64Array)


def iou_matrix(boxes_xyxy: _Boxes, others_xyxy: _Boxes) -> _Boxes:
    """Compute the intersection over union (IoU) of each box of one set with each box of another.

    Args:
        boxes_xyxy: FP32 or FP64 [n, 4].
        others_xyxy: The same dtype, [m, 4].

    Returns:
        The same dtype, [n, m], in [0, 1]; 0 where both boxes are empty.
    """
    low = np.maximum(boxes_xyxy[:, None, :2], others_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], others_xyxy[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    areas, other_areas = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (boxes_xyxy, others_xyxy))
    union = areas[:, None] + other_areas[None] - overlap
    iou: _Boxes = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou
