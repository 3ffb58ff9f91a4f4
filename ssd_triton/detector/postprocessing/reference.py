"""The protocol in PyTorch, PIL and NumPy alone: what every deployed form is compared with.

Source of the protocol and its constants: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/utils.py``,
``ssd/evaluate.py``). Clarity comes before speed here; the served post-processing is
:mod:`ssd_triton.detector.postprocessing.onnx_graph`, and :mod:`ssd_triton.detector.postprocessing.pytorch` on a GPU.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssd_triton.common.arrays import FloatArray, UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX, decode, default_boxes_cxcywh
from ssd_triton.detector.network.ssd import ServedDetector, predict

if TYPE_CHECKING:
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

_DEFAULTS_CXCYWH = default_boxes_cxcywh()


def preprocess(encoded: bytes) -> tuple[UInt8Array, tuple[int, int]]:
    """Decode and resize one image.

    EXIF orientation is not applied and the aspect ratio is not kept; the filter is PIL's antialiased bilinear one.

    Returns:
        UINT8 [300, 300, 3] RGB, and the original (width, height) in pixels.
    """
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    resized = image.resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BILINEAR)
    return np.array(resized), image.size


def detect(detector: ServedDetector, encoded: bytes, parameters: PostprocessParameters | None = None) -> Detections:
    """Detect objects in one encoded image, from file bytes to boxes in its pixels."""
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

    image, size_px = preprocess(encoded)
    loc, conf = predict(detector, image[np.newaxis])
    return postprocess(loc[0], conf[0], size_px, parameters or PostprocessParameters())


def postprocess(
    loc: FloatArray, conf: FloatArray, size_px: tuple[int, int], parameters: PostprocessParameters
) -> Detections:
    """Turn the raw predictions of one image into detections.

    Equal scores keep the order of the default boxes within a class, and the order of the classes between them.

    Args:
        loc: FP32 [4, 8732], offsets.
        conf: FP32 [num_labels, 8732], logits, the background first.
        size_px: Width and height of the original image.
        parameters: Thresholds.
    """
    boxes = decode(loc.T, _DEFAULTS_CXCYWH)
    scores = _softmax(conf)
    kept_boxes, kept_scores, kept_classes = [], [], []
    for class_id in range(1, len(scores)):
        candidates = np.flatnonzero(scores[class_id] > np.float32(parameters.score_thresh))
        best_first = candidates[np.argsort(-scores[class_id, candidates], kind="stable")]
        kept = _suppress(boxes, best_first[: parameters.topk_candidates], parameters.nms_thresh)
        kept_boxes.append(boxes[kept])
        kept_scores.append(scores[class_id, kept])
        kept_classes.append(np.full(len(kept), class_id, np.int32))
    all_scores = np.concatenate(kept_scores)
    best = np.argsort(-all_scores, kind="stable")[: parameters.detections_per_img]
    width_px, height_px = size_px
    to_pixels = np.array([width_px, height_px, width_px, height_px], np.float32)
    return Detections(
        np.concatenate(kept_boxes)[best] * to_pixels, all_scores[best], np.concatenate(kept_classes)[best]
    )


def _softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the first axis."""
    exponentials = np.exp(logits - logits.max(axis=0))
    probabilities: FloatArray = exponentials / exponentials.sum(axis=0)
    return probabilities


def _suppress(boxes_xyxy: FloatArray, best_first: npt.NDArray[np.intp], nms_thresh: float) -> list[int]:
    """Greedy non-maximum suppression of the boxes at the given indices; returns the indices that stay."""
    kept = []
    while len(best_first):
        kept.append(int(best_first[0]))
        overlap = iou(boxes_xyxy[best_first[0]], boxes_xyxy[best_first[1:]])
        best_first = best_first[1:][overlap < np.float32(nms_thresh)]
    return kept


def iou(box_xyxy: FloatArray, boxes_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of one box [4] with each of [n, 4]: FP32 [n]; 0 where both are empty."""
    top_left = np.maximum(box_xyxy[:2], boxes_xyxy[:, :2])
    bottom_right = np.minimum(box_xyxy[2:], boxes_xyxy[:, 2:])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=1)
    area = np.prod(box_xyxy[2:] - box_xyxy[:2])
    union = area + np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1) - intersection
    overlap: FloatArray = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return overlap
