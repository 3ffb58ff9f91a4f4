"""Images with the worst failures of a detector, and pictures of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.evaluation.annotations import Image
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.metrics import CocoResult, Metrics
from ssd_triton.media.decoding import decode_rgb
from ssd_triton.media.drawing import draw_detections

CLEAR_SCORE = 0.3
"""Detections with lower scores are neither drawn nor counted: an object that only they find is missed."""
LARGE_AREA_PX = 96**2
"""COCO's limit between medium and large objects."""
DEFINITION = (
    f"The worst images have the most large objects (over 96² px, no crowds) that no detection of their class with a "
    f"score above {CLEAR_SCORE} finds at IoU 0.5, plus the summed scores of detections above {CLEAR_SCORE} that find "
    "nothing. Left: ground truth, the missed objects in amber; a score of 1.00 is drawn for all of it. Right: "
    "detections, those that find nothing in red."
)
_AMBER = (255, 191, 0)
_RED = (235, 60, 60)
_GAP_PX = 8


@dataclass
class Miss:
    """Failures on an image: indices into the dataset's annotations and into the results."""

    image: Image
    missed: set[int] = field(default_factory=set)
    missed_large: set[int] = field(default_factory=set)
    false_positives: dict[int, float] = field(default_factory=dict)
    """Scores of boxes that find nothing, by index."""

    @property
    def badness(self) -> float:
        """See :data:`DEFINITION`."""
        return len(self.missed_large) + sum(self.false_positives.values())


def worst_misses(
    dataset: Dataset,
    metrics: Metrics,
    results: Sequence[CocoResult],
    count: int,
    *,
    refused: Collection[str] = (),
) -> list[Miss]:
    """The worst images by :data:`DEFINITION`, the worst first; images without failures are left out.

    Args:
        dataset: Ground truth.
        metrics: Metrics of the results.
        results: Detections in COCO's form.
        count: Number of images, at most.
        refused: File names of refused images, which may not be readable.
    """
    misses = {image.id: Miss(image) for image in dataset.images}
    for match in metrics.matches:
        miss = misses[match.image_id]
        for truth, finder, ignored in zip(match.truth, match.found_by, match.ignored, strict=True):
            if ignored or (finder >= 0 and results[finder]["score"] > CLEAR_SCORE):
                continue
            miss.missed.add(truth)
            if dataset.annotations[truth].area_px > LARGE_AREA_PX:
                miss.missed_large.add(truth)
        scores = {index: results[index]["score"] for index in match.false_positives}
        miss.false_positives.update({index: score for index, score in scores.items() if score > CLEAR_SCORE})
    ranked = sorted(misses.values(), key=lambda miss: (-miss.badness, miss.image.id))
    return [miss for miss in ranked if miss.badness > 0 and miss.image.file_name not in refused][:count]


def draw_miss(dataset: Dataset, results: Sequence[CocoResult], miss: Miss) -> UInt8Array:
    """Ground truth on the left and detections on the right, UINT8 [H, 2 W + gap, 3] RGB."""
    image_rgb = decode_rgb(dataset.read(miss.image), miss.image.file_name)
    class_ids = {category_id: class_id for class_id, category_id in dataset.category_ids.items()}
    labels = {class_id: dataset.category_names[category_id] for class_id, category_id in dataset.category_ids.items()}
    names = [labels.get(class_id, "") for class_id in range(max(labels) + 1)]
    truth = {
        index: (one.bbox, class_ids[one.category_id], 1.0)
        for index, one in enumerate(dataset.annotations)
        if one.image_id == miss.image.id and one.category_id in class_ids
    }
    found = {
        index: (one["bbox"], class_ids[one["category_id"]], one["score"])
        for index, one in enumerate(results)
        if one["image_id"] == miss.image.id and one["score"] > CLEAR_SCORE
    }
    left = draw_detections(
        image_rgb,
        _detections(truth),
        names,
        notes={place: "missed" for place, index in enumerate(truth) if index in miss.missed},
        highlights={place: _AMBER for place, index in enumerate(truth) if index in miss.missed},
    )
    highlights = {place: _RED for place, index in enumerate(found) if index in miss.false_positives}
    right = draw_detections(image_rgb, _detections(found), names, highlights=highlights)
    gap = np.full((image_rgb.shape[0], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _detections(boxes: Mapping[int, tuple[Sequence[float], int, float]]) -> Detections:
    corners = [[box[0], box[1], box[0] + box[2], box[1] + box[3]] for box, _, _ in boxes.values()]
    return Detections(
        np.array(corners, np.float32).reshape(-1, 4),
        np.array([score for _, _, score in boxes.values()], np.float32),
        np.array([class_id for _, class_id, _ in boxes.values()], np.int32),
    )
