"""From a described detector's raw outputs to boxes, scores and classes, in pixels of its input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_triton.common.arrays import AnyArray, FloatArray, IntArray
from ssd_triton.detector.postprocessing.reference import suppress
from ssd_triton.training.errors import TrainingError
from ssd_triton.training.labelling.description import (
    BoxOutputs,
    CentreOutputs,
    DetectorDescription,
    DistanceOutputs,
    InputFormat,
)

Found = tuple[FloatArray, FloatArray, IntArray]
"""Boxes, FP32 [n, 4], left, top, right, bottom; scores, FP32 [n]; classes from 0, INT32 [n]; best first."""


def decode(outputs: Sequence[AnyArray], description: DetectorDescription, score_thresh: float) -> list[Found]:
    """Decode the outputs of a batch.

    Args:
        outputs: Outputs in the network's order; with ``mirror``, the second half of the batch is the mirrored first
            half.
        description: Describes the outputs.
        score_thresh: Detections with lower scores are dropped.

    Returns:
        The detections in each image.

    Raises:
        TrainingError: The outputs are not as described.
    """
    kind = description.outputs
    if isinstance(kind, BoxOutputs):
        return _final(outputs, kind, score_thresh)
    classes = len(description.classes)
    if isinstance(kind, DistanceOutputs):
        boxes, scores = _from_distances(outputs, kind, description.input, classes)
        if description.mirror:
            boxes, scores = _average_mirrored(boxes, scores, kind, description.input)
    else:
        boxes, scores = _from_centres(outputs, kind, classes)
    return [_best(*one, score_thresh, kind.nms_iou) for one in zip(boxes, scores, strict=True)]


def _from_distances(
    outputs: Sequence[AnyArray], kind: DistanceOutputs, size: InputFormat, classes: int
) -> tuple[FloatArray, FloatArray]:
    grids = [(-(-size.height_px // stride), -(-size.width_px // stride)) for stride in kind.strides]
    shapes = [output.shape[1:] for output in outputs]
    bins = shapes[-1][-1] // 4 if shapes and shapes[-1] else 0
    expected = [(rows * columns, depth) for depth in (classes, 4 * bins) for rows, columns in grids]
    if shapes != expected or bins < 2:
        raise TrainingError(
            f"got outputs of {shapes} for each image, expected {expected}: score maps and then maps of 4 × bins, as "
            "strides, classes and the input's size say; correct the description"
        )
    boxes = []
    for stride, (rows, columns), raw in zip(kind.strides, grids, outputs[len(grids) :], strict=True):
        logits = raw.reshape(*raw.shape[:2], 4, bins).astype(np.float32)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        distances = (weights / weights.sum(axis=-1, keepdims=True)) @ np.arange(bins, dtype=np.float32)
        y, x = np.divmod(np.arange(rows * columns), columns)
        centres = (np.stack([x, y], axis=1) + kind.centre).astype(np.float32)
        boxes.append(np.concatenate([centres - distances[..., :2], centres + distances[..., 2:]], axis=-1) * stride)
    return np.concatenate(boxes, axis=1), np.concatenate(outputs[: len(grids)], axis=1).astype(np.float32)


def _average_mirrored(
    boxes: FloatArray, scores: FloatArray, kind: DistanceOutputs, size: InputFormat
) -> tuple[FloatArray, FloatArray]:
    """Average each image's cells with the cells of its mirror image at the mirrored places."""
    places, first = [], 0
    for stride in kind.strides:
        rows, columns = -(-size.height_px // stride), -(-size.width_px // stride)
        cells = np.arange(first, first + rows * columns).reshape(rows, columns)
        places.append(cells[:, ::-1].ravel())
        first += rows * columns
    order, half = np.concatenate(places), len(boxes) // 2
    turned = boxes[half:, order][..., [2, 1, 0, 3]]
    turned[..., [0, 2]] = size.width_px - turned[..., [0, 2]]
    return (boxes[:half] + turned) / 2, (scores[:half] + scores[half:, order]) / 2


def _from_centres(outputs: Sequence[AnyArray], kind: CentreOutputs, classes: int) -> tuple[FloatArray, FloatArray]:
    depth = 4 + classes + kind.objectness
    if len(outputs) != 1 or outputs[0].ndim != 3 or depth not in outputs[0].shape[1:]:
        raise TrainingError(
            f"got outputs of {[output.shape for output in outputs]}, expected one of [N, K, {depth}] or [N, {depth}, "
            "K], as the classes say; correct the description"
        )
    rows = outputs[0].astype(np.float32)
    if rows.shape[2] != depth:
        rows = rows.transpose(0, 2, 1)
    centres, halves, scores = rows[..., :2], rows[..., 2:4] / 2, rows[..., 4:]
    if kind.objectness:
        scores = scores[..., 1:] * scores[..., :1]
    return np.concatenate([centres - halves, centres + halves], axis=-1), scores


def _final(outputs: Sequence[AnyArray], kind: BoxOutputs, score_thresh: float) -> list[Found]:
    named = dict(zip(kind.order, outputs, strict=False))
    if len(outputs) != len(kind.order) or named["boxes"].shape != (*named["scores"].shape, 4):
        raise TrainingError(
            f"got outputs of {[output.shape for output in outputs]}, expected {', '.join(kind.order)} of [N, K, 4], "
            "[N, K] and [N, K]; correct the description"
        )
    found = []
    for boxes, scores, classes in zip(named["boxes"], named["scores"], named["classes"], strict=True):
        order = np.argsort(-scores, kind="stable")
        order = order[(scores[order] >= score_thresh) & (classes[order] >= kind.first_class)]
        found.append(
            (boxes[order].astype(np.float32), scores[order].astype(np.float32), classes[order] - kind.first_class)
        )
    return [(boxes, scores, classes.astype(np.int32)) for boxes, scores, classes in found]


def _best(boxes: FloatArray, scores: FloatArray, score_thresh: float, nms_iou: float) -> Found:
    """Keep boxes with a sufficient score that no better box of their class overlaps too much."""
    places, classes = np.nonzero(scores >= score_thresh)
    order = np.argsort(-scores[places, classes], kind="stable")
    places, classes = places[order], classes[order]
    candidates = boxes[places]
    of_class = (np.flatnonzero(classes == one) for one in np.unique(classes))
    kept = sorted(index for best_first in of_class for index in suppress(candidates, best_first, nms_iou))
    return candidates[kept], scores[places, classes][kept], classes[kept].astype(np.int32)
