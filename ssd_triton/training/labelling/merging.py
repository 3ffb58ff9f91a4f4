"""Merging of a detector's boxes with an image's annotations: boxes become objects, are ignored, or are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ssd_triton.common.arrays import FloatArray
from ssd_triton.common.detections import Detections
from ssd_triton.config import LabelConfig
from ssd_triton.detector.postprocessing.reference import iou

OBJECT, IGNORED = "objects", "ignored"
"""Boxes of the detector that are added: as an object, or as ``iscrowd: 1``, which training ignores."""
KNOWN, CONTRADICTING = "known", "contradicting"
"""Boxes that are dropped: an annotation of the same object exists, or an annotation has another class there."""


@dataclass(frozen=True)
class Truth:
    """Annotations of an image.

    Attributes:
        boxes_xyxy: FP32 [n, 4], pixels.
        class_ids: Their classes, by id of the labels.
        crowds: Whether each is a crowd.
        covered: Classes whose objects are all annotated.
    """

    boxes_xyxy: FloatArray
    class_ids: tuple[int, ...]
    crowds: tuple[bool, ...]
    covered: Collection[int]


@dataclass
class Counts:
    """Numbers of a detector's boxes by outcome and class id."""

    of: dict[str, Counter[int]] = field(
        default_factory=lambda: {name: Counter() for name in (OBJECT, IGNORED, KNOWN, CONTRADICTING)}
    )


@dataclass(frozen=True)
class NewBox:
    """A box to add to an image.

    Attributes:
        box_xyxy: Pixels.
        score: Score of the detector.
        class_id: Id of its class in the labels.
        ignored: Whether training ignores it.
    """

    box_xyxy: Sequence[float]
    score: float
    class_id: int
    ignored: bool


def new_boxes(found: Detections, truth: Truth, settings: LabelConfig, counts: Counts) -> list[NewBox]:
    """Choose the detector's boxes to add to the annotations of an image; the annotations themselves stay.

    - A class that the annotations cover gains no object. Boxes that they may have missed are ignored: neither object
      nor background.
    - Of the other classes, boxes from ``settings.object_score`` on are objects, and the others are ignored.
    - A box on an annotated object of another class contradicts the annotation, and is dropped.

    Args:
        found: Detections with class ids of the labels, from ``settings.ignore_score`` on.
        truth: Annotations of the image.
        settings: Thresholds.
        counts: Updated with the outcome of each box.
    """
    added = []
    for box, score, class_id in found:
        verdict = _verdict(box, score, class_id, truth, settings)
        counts.of[verdict][class_id] += 1
        if verdict in {OBJECT, IGNORED}:
            added.append(NewBox(box.tolist(), score, class_id, verdict == IGNORED))
    return added


def _verdict(box: FloatArray, score: float, class_id: int, truth: Truth, settings: LabelConfig) -> str:
    overlaps = iou(box, truth.boxes_xyxy).tolist() if truth.class_ids else []
    pairs = zip(overlaps, truth.class_ids, truth.crowds, strict=True)
    if any((other == class_id or crowd) and overlap >= settings.known_iou for overlap, other, crowd in pairs):
        return KNOWN
    if max(overlaps, default=0.0) >= settings.contradiction_iou:
        return CONTRADICTING
    return IGNORED if class_id in truth.covered or score < settings.object_score else OBJECT
