"""The post-processing in NumPy: the reference that every exported form is checked against.

Source of the protocol and its constants: NVIDIA DeepLearningExamples ``PyTorch/Detection/SSD`` (``ssd/utils.py``).
It is written for clarity, not for speed. The served forms are :mod:`ssd_triton.detector.postprocessing.onnx_graph`, for
CPUs, and :mod:`ssd_triton.detector.postprocessing.torchscript`, for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ssd_triton.common.arrays import AnyArray, FloatArray
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ExportError
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES, decode, default_boxes_cxcywh

if TYPE_CHECKING:
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
"""Names of the exported forms' outputs, in their order."""
MAX_SCORE_ERROR = 1e-5
MAX_BOX_ERROR_PX = 1e-2
_SEED = 300
_DEFAULTS_CXCYWH = default_boxes_cxcywh()
Run = Callable[[dict[str, AnyArray]], Mapping[str, AnyArray]]
"""An exported form: takes ``loc``, ``conf`` and ``original_size`` and returns :data:`OUTPUTS`, by name."""


def postprocess(
    loc: FloatArray, conf: FloatArray, size_px: tuple[int, int], parameters: PostprocessParameters
) -> Detections:
    """Turn the raw predictions of one image into detections.

    Among equal scores, the order is that of the classes and, within a class, that of the default boxes.

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
        kept = suppress(boxes, best_first[: parameters.topk_candidates], parameters.nms_thresh)
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


def suppress(boxes_xyxy: FloatArray, best_first: npt.NDArray[np.intp], nms_thresh: float) -> list[int]:
    """Greedy non-maximum suppression of the boxes at the given indices; returns the indices of the boxes it keeps."""
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


def check_detections(run: Run, num_labels: int, parameters: PostprocessParameters) -> None:
    """Compare an exported form with the reference on :func:`hard_predictions`, all images in one batch.

    Args:
        run: The exported form.
        num_labels: Classes, background included.
        parameters: Thresholds.

    Raises:
        ExportError: The detections of some images differ; the message names all of them.
    """
    loc, conf, size_px = hard_predictions(num_labels)
    got = run({"loc": loc, "conf": conf, "original_size": size_px})
    count, *detections = (got[name] for name in OUTPUTS)
    problems = []
    for index, expected in enumerate(_expected(num_labels, parameters)):
        n = len(expected)
        if count[index, 0] != n or any(array[index, n:].any() for array in detections):
            problems.append(f"image {index}: got {count[index, 0]} detections, expected {n}")
            continue
        found = Detections(*(array[index, :n] for array in detections))
        unmatched = n - count_matches(found, expected)
        if unmatched or np.any(np.diff(found.scores) > 0):
            problems.append(f"image {index}: {unmatched} of {n} detections differ, or are not sorted by score")
    if problems:
        raise ExportError(f"the post-processing differs from the NumPy reference: {'; '.join(problems)}")


@lru_cache(maxsize=1)
def _expected(num_labels: int, parameters: PostprocessParameters) -> list[Detections]:
    """The reference's detections; cached, since they take seconds and all exported forms need them."""
    images = zip(*hard_predictions(num_labels), strict=True)
    return [postprocess(loc, conf, (int(size[0]), int(size[1])), parameters) for loc, conf, size in images]


def count_matches(found: Detections, expected: Detections) -> int:
    """Count the expected detections that were found, in any order, since rounding of scores may change it."""
    same = found.class_ids[:, np.newaxis] == expected.class_ids
    same &= np.abs(found.scores[:, np.newaxis] - expected.scores) <= MAX_SCORE_ERROR
    same &= np.abs(found.boxes_xyxy[:, np.newaxis] - expected.boxes_xyxy).max(axis=2) <= MAX_BOX_ERROR_PX
    return int(min(same.any(axis=0).sum(), same.any(axis=1).sum()))


def hard_predictions(num_labels: int) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int32]]:
    """Raw predictions of four images, made to be hard to post-process.

    Image 0 has nothing above the threshold. Image 1 has equal logits in many boxes: exact ties, also between classes.
    Image 2 has many candidates of one class. Image 3 has thousands of candidates in all classes, most of them in three,
    close to their default boxes: overlaps of every size.

    Returns:
        ``loc`` FP32 [4, 4, 8732], ``conf`` FP32 [4, num_labels, 8732] and INT32 [4, 2]: width and height in pixels.
    """
    random = np.random.default_rng(_SEED)
    loc = random.normal(0, 1, (4, 4, NUM_DEFAULT_BOXES)).astype(np.float32)
    conf = random.normal(0, 0.1, (4, num_labels, NUM_DEFAULT_BOXES)).astype(np.float32)
    conf[:, 0] += 8
    conf[1, 1 : min(4, num_labels), ::7] = 9
    conf[2, 1, :50] = np.linspace(9, 12, 50, dtype=np.float32)
    loc[2, :, :50] = 0
    conf[3] = random.normal(0, 2.5, conf[3].shape)
    conf[3, 1:4] += 3
    loc[3] *= 0.3
    sizes_px = np.array([[640, 480], [1, 1], [333, 4000], [1242, 375]], np.int32)
    return loc, conf, sizes_px
