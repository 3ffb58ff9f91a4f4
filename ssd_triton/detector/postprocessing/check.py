"""Whether an exported post-processing makes the detections that the NumPy reference makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ssd_triton.common.arrays import AnyArray
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import ExportError
from ssd_triton.detector.export.samples import synthetic_predictions
from ssd_triton.detector.postprocessing.reference import postprocess

if TYPE_CHECKING:
    from ssd_triton.detector.postprocessing.parameters import PostprocessParameters

MAX_SCORE_ERROR = 1e-5
MAX_BOX_ERROR_PX = 1e-2
_DETECTIONS = ("detection_boxes", "detection_scores", "detection_classes")
Run = Callable[[dict[str, AnyArray]], Mapping[str, AnyArray]]
"""Takes ``loc``, ``conf`` and ``original_size``, and gives the four outputs by name."""


def check_detections(run: Run, num_labels: int, parameters: PostprocessParameters) -> None:
    """Compare with the reference, image by image, in one batch.

    The predictions are made to be hard: none above the threshold, exact ties, many overlapping candidates.

    Args:
        run: The exported form.
        num_labels: Background included.
        parameters: Thresholds.

    Raises:
        ExportError: Names every image whose detections differ.
    """
    loc, conf, size_px = synthetic_predictions(num_labels)
    got = run({"loc": loc, "conf": conf, "original_size": size_px})
    problems = []
    for index, expected in enumerate(_expected(num_labels, parameters)):
        n = len(expected)
        padding = [got[name][index, n:] for name in _DETECTIONS]
        if got["num_detections"][index, 0] != n or any(array.any() for array in padding):
            problems.append(f"image {index}: got {got['num_detections'][index, 0]} detections, expected {n}")
            continue
        found = Detections(*(got[name][index, :n] for name in _DETECTIONS))
        unmatched = n - count_matches(found, expected)
        if unmatched or np.any(np.diff(found.scores) > 0):
            problems.append(f"image {index}: {unmatched} of {n} detections differ, or they are not in order of score")
    if problems:
        raise ExportError(f"the post-processing differs from the NumPy reference: {'; '.join(problems)}")


@lru_cache(maxsize=1)
def _expected(num_labels: int, parameters: PostprocessParameters) -> list[Detections]:
    """The reference's, which take seconds: every exported form is compared with the same."""
    images = zip(*synthetic_predictions(num_labels), strict=True)
    return [postprocess(loc, conf, (int(size[0]), int(size[1])), parameters) for loc, conf, size in images]


def count_matches(found: Detections, expected: Detections) -> int:
    """Expected detections that were found, in any order: scores a rounding error apart may change places."""
    same = found.class_ids[:, np.newaxis] == expected.class_ids
    same &= np.abs(found.scores[:, np.newaxis] - expected.scores) <= MAX_SCORE_ERROR
    same &= np.abs(found.boxes_xyxy[:, np.newaxis] - expected.boxes_xyxy).max(axis=2) <= MAX_BOX_ERROR_PX
    return int(min(same.any(axis=0).sum(), same.any(axis=1).sum()))
