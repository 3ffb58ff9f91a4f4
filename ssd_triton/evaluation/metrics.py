"""COCO figures of detections, by pycocotools.

The protocol is that of https://cocodataset.org/#detection-eval for boxes: IoU 0.50 to 0.95, at most 100 detections an
image, crowds count neither as found nor as missed.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ssd_triton.common.arrays import AnyArray
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.errors import EvaluationError

FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
"""In the order of pycocotools' ``stats``; small is below 32², large above 96² pixels of area."""
IOU_50, IOU_75 = 0, 5
"""Indices of IoU 0.50 and 0.75 among COCO's ten thresholds."""
_ALL_AREAS, _DETECTIONS_100 = 0, 2
"""Indices among pycocotools' area ranges and limits of detections."""
_NEEDED = ("pycocotools", "matplotlib")

CocoResult = dict[str, Any]
"""``image_id``, ``category_id``, ``bbox`` (left, top, width, height in pixels), ``score``."""


@dataclass(frozen=True)
class ClassMetrics:
    """One category; AP is None where it has no ground truth."""

    category_id: int
    name: str
    objects: int
    """Ground-truth boxes without crowds."""
    ap: float | None
    ap50: float | None


@dataclass(frozen=True)
class Matches:
    """Which boxes of an image and a category were found, at IoU 0.50.

    Attributes:
        image_id: Id of the image.
        category_id: Id of the category.
        truth: Indices into the dataset's annotations.
        found_by: For each of them, the index of the detection that found it among the results, or -1.
        ignored: For each of them, whether it is a crowd.
        false_positives: Indices, among the results, of detections that found nothing.
    """

    image_id: int
    category_id: int
    truth: tuple[int, ...]
    found_by: tuple[int, ...]
    ignored: tuple[bool, ...]
    false_positives: tuple[int, ...]


@dataclass(frozen=True)
class Metrics:
    """Figures of an evaluation, in [0, 1]; None without ground truth.

    Attributes:
        figures: Values by the names in :data:`FIGURES`.
        classes: Figures of every evaluated category, by category id.
        precision: [10, 101], mean over the categories, by IoU threshold and recall 0.00 to 1.00; NaN without any.
        matches: Matches by image and category.
    """

    figures: Mapping[str, float | None]
    classes: tuple[ClassMetrics, ...]
    precision: AnyArray
    matches: tuple[Matches, ...]

    @property
    def ap(self) -> float:
        """AP over IoU 0.50 to 0.95, all areas; 0 without ground truth."""
        return self.figures["AP"] or 0.0


def check_installed() -> None:
    """Check that everything needed is installed before the work begins.

    Raises:
        EvaluationError: pycocotools or matplotlib is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise EvaluationError(
            f"evaluation needs {' and '.join(missing)}, which is not installed: run \"pip install -e '.[eval]'\""
        )


def evaluate(dataset: Dataset, results: Sequence[CocoResult]) -> Metrics:
    """Compute the figures of detections on a dataset.

    Args:
        dataset: Ground truth, and the images that count.
        results: Detections in COCO's form, by image and, within an image, by falling score.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(_truth(dataset), _found(dataset, results), "bbox")
        evaluation.params.imgIds = [image.id for image in dataset.images]
        evaluation.params.catIds = sorted(dataset.category_ids.values())
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [None if value < 0 else float(value) for value in evaluation.stats]
    # [IoU, recall, category, area, limit of detections]; -1 where there is no ground truth.
    precision = evaluation.eval["precision"][:, :, :, _ALL_AREAS, _DETECTIONS_100]
    with_truth = (precision > -1).all(axis=(0, 1))
    return Metrics(
        dict(zip(FIGURES, stats, strict=True)),
        _classes(dataset, precision, with_truth),
        precision[:, :, with_truth].mean(axis=2) if with_truth.any() else np.full(precision.shape[:2], np.nan),
        tuple(_matches(evaluation)),
    )


def _classes(dataset: Dataset, precision: AnyArray, with_truth: AnyArray) -> tuple[ClassMetrics, ...]:
    objects = [one.category_id for one in dataset.annotations if not one.iscrowd]
    return tuple(
        ClassMetrics(
            category_id,
            dataset.category_names[category_id],
            objects.count(category_id),
            float(precision[:, :, index].mean()) if with_truth[index] else None,
            float(precision[IOU_50, :, index].mean()) if with_truth[index] else None,
        )
        for index, category_id in enumerate(sorted(dataset.category_ids.values()))
    )


def _matches(evaluation: Any) -> list[Matches]:
    """Matches for all areas, which pycocotools puts first within each category."""
    parameters = evaluation.params
    per_category = len(parameters.areaRng) * len(parameters.imgIds)
    found = []
    for index in range(len(parameters.catIds)):
        start = index * per_category
        for one in evaluation.evalImgs[start : start + len(parameters.imgIds)]:
            if one is None:
                continue
            # Ids were given from 1 (see _truth), which makes 0 mean unmatched.
            unmatched = (one["dtMatches"][IOU_50] == 0) & ~one["dtIgnore"][IOU_50].astype(bool)
            found.append(
                Matches(
                    one["image_id"],
                    one["category_id"],
                    tuple(int(key) - 1 for key in one["gtIds"]),
                    tuple(int(key) - 1 for key in one["gtMatches"][IOU_50]),
                    tuple(bool(value) for value in one["gtIgnore"]),
                    tuple(int(key) - 1 for key, alone in zip(one["dtIds"], unmatched, strict=True) if alone),
                )
            )
    return found


def _truth(dataset: Dataset) -> Any:
    """Build the ground truth with ids from 1: pycocotools takes a box with id 0 as never found."""
    boxes = [
        {
            "id": index,
            "image_id": one.image_id,
            "category_id": one.category_id,
            "bbox": list(one.bbox),
            "area": one.area_px,
            "iscrowd": int(one.iscrowd),
        }
        for index, one in enumerate(dataset.annotations, start=1)
    ]
    return _index(dataset, boxes)


def _found(dataset: Dataset, results: Sequence[CocoResult]) -> Any:
    """Build the results as pycocotools' ``loadRes`` does, which fails on an empty list."""
    boxes = [
        {**one, "id": index, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for index, one in enumerate(results, start=1)
    ]
    return _index(dataset, boxes)


def _index(dataset: Dataset, boxes: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.id} for image in dataset.images],
        "categories": [{"id": category_id} for category_id in dataset.category_names],
        "annotations": boxes,
    }
    coco.createIndex()
    return coco
