"""Recall and false boxes of a detector in simulated traffic, by kind and range.

AP is not a good measure for braking. Here a truck detected as a car counts as found, hidden road users are not counted,
and there is a single score threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from ssd_triton.common.arrays import Float64Array
from ssd_triton.common.boxes import iou_matrix
from ssd_triton.common.detections import Detections
from ssd_triton.common.labels import class_name
from ssd_triton.driving.braking.observation import group_of
from ssd_triton.evaluation.annotations import Annotation, Annotations, Image, read_annotations_as

KINDS = ("vehicle", "person", "two-wheeler", "other")
"""Groups of classes; a confusion within a group is no error. Braking ignores ``other``. The simulated world only has
the first two."""
RANGES_M = (0.0, 10.0, 20.0, 30.0, 40.0, 60.0, 90.0)
"""Borders of the bands of range for which recall is reported."""
_Metres = Annotated[float, Field(allow_inf_nan=False)]


class RenderedAnnotation(Annotation):
    """A road user of the simulated world; see :class:`ssd_triton.simulation.truth_files.CocoWriter`."""

    visibility: Annotated[float, Field(gt=0, le=1)]
    range_m: _Metres
    offset_m: Annotated[_Metres, Field(ge=0)]


class RenderedAnnotations(Annotations):
    """The annotations of rendered images."""

    annotations: tuple[RenderedAnnotation, ...]


@dataclass(frozen=True)
class Criteria:
    """Criteria for found road users and false boxes.

    Attributes:
        score_thresh: Only detections with higher scores count.
        match_iou_thresh: Least IoU of a detection with the road user that it finds.
        false_iou_thresh: A box is false if its IoU with every road user of its kind is lower.
        min_visibility: Road users with a smaller visible part do not have to be found.
        relevant_range_m: Largest range of a relevant road user.
        relevant_offset_m: Largest distance of a relevant road user from the camera's path.
    """

    score_thresh: float
    match_iou_thresh: float
    false_iou_thresh: float
    min_visibility: float
    relevant_range_m: float
    relevant_offset_m: float


@dataclass(frozen=True)
class Seen:
    """A road user that had to be found.

    Attributes:
        kind: One of :data:`KINDS`.
        range_m: Distance from the camera.
        relevant: Whether it is near, and in or beside the camera's path.
        found: Whether a detection matched it.
    """

    kind: str
    range_m: float
    relevant: bool
    found: bool


@dataclass(frozen=True)
class JudgedFrame:
    """One image, judged.

    Attributes:
        image: The image.
        seen: Road users that had to be found.
        missed: Boxes (xyxy, pixels) and class ids of road users that were missed.
        detections: Detections above the score threshold.
        false: Indices of false boxes among ``detections``.
    """

    image: Image
    seen: tuple[Seen, ...]
    missed: Detections
    detections: Detections
    false: tuple[int, ...]


@dataclass(frozen=True)
class Recall:
    """Recall of some road users."""

    targets: int
    found: int

    @classmethod
    def of(cls, seen: Iterable[Seen]) -> Recall:
        """Count road users, and those found."""
        found = [item.found for item in seen]
        return cls(len(found), sum(found))

    @property
    def part(self) -> float | None:
        """Recall in [0, 1]; None without road users."""
        return self.found / self.targets if self.targets else None


@dataclass(frozen=True)
class Visibility:
    """The figures of a detector on rendered images.

    Attributes:
        frames: Each image, judged.
        criteria: Criteria of the judgement.
        false_boxes: False boxes of all images, by kind.
    """

    frames: tuple[JudgedFrame, ...]
    criteria: Criteria
    false_boxes: Mapping[str, int]

    def recall(self, kind: str, near_m: float, far_m: float) -> Recall:
        """Recall of a kind in a band of ranges."""
        return Recall.of(item for item in self._seen() if item.kind == kind and near_m <= item.range_m < far_m)

    def relevant_recall(self, kind: str | None = None) -> Recall:
        """Recall of relevant road users, of one kind or of all."""
        return Recall.of(item for item in self._seen() if item.relevant and kind in (None, item.kind))

    def false_per_frame(self, kind: str) -> float:
        """False boxes of a kind an image."""
        return self.false_boxes[kind] / len(self.frames)

    def _seen(self) -> Iterator[Seen]:
        return (item for frame in self.frames for item in frame.seen)


def kind_of(class_name: str) -> str:
    """One of :data:`KINDS`."""
    group = group_of(class_name)
    return group if group in KINDS else "other"


def read_rendered(path: Path) -> RenderedAnnotations:
    """Read the annotations of rendered images.

    Raises:
        EvaluationError: It is no COCO file, or lacks visibility, range and offset, like annotations of photographs.
    """
    return read_annotations_as(
        path, RenderedAnnotations, "the annotations.json of ssd-triton render-dataset or ssd-triton render-scenario"
    )


def judge(
    truth: RenderedAnnotations, detections: Iterable[Detections], labels: Sequence[str], criteria: Criteria
) -> Visibility:
    """Compare detections with the ground truth.

    Args:
        truth: Ground truth; its categories are named as in ``labels``.
        detections: Detections of each image, in the order of the annotations' images, in its pixels.
        labels: Class names by id, the background first.
        criteria: Criteria of the judgement.
    """
    by_image: dict[int, list[RenderedAnnotation]] = {image.id: [] for image in truth.images}
    for one in truth.annotations:
        by_image[one.image_id].append(one)
    names = {category.id: category.name for category in truth.categories}
    frames = tuple(
        _judge_frame(image, by_image[image.id], found, names, labels, criteria)
        for image, found in zip(truth.images, detections, strict=True)
    )
    false_boxes = dict.fromkeys(KINDS, 0)
    for frame in frames:
        for index in frame.false:
            false_boxes[kind_of(class_name(labels, int(frame.detections.class_ids[index])))] += 1
    return Visibility(frames, criteria, false_boxes)


def _judge_frame(  # noqa: PLR0917
    image: Image,
    targets: Sequence[RenderedAnnotation],
    detections: Detections,
    names: Mapping[int, str],
    labels: Sequence[str],
    criteria: Criteria,
) -> JudgedFrame:
    found = detections.filter(score_thresh=criteria.score_thresh)
    target_kinds = np.array([kind_of(names[one.category_id]) for one in targets], object)
    found_kinds = np.array([kind_of(class_name(labels, int(class_id))) for class_id in found.class_ids], object)
    boxes = _boxes_xyxy(targets)
    overlaps = iou_matrix(boxes, found.boxes_xyxy.astype(np.float64))
    overlaps[target_kinds[:, None] != found_kinds[None, :]] = 0.0
    matched = _matched(overlaps, criteria.match_iou_thresh)
    asked = [index for index, one in enumerate(targets) if one.visibility >= criteria.min_visibility]
    seen = tuple(
        Seen(
            str(target_kinds[index]),
            targets[index].range_m,
            targets[index].range_m <= criteria.relevant_range_m
            and targets[index].offset_m <= criteria.relevant_offset_m,
            index in matched,
        )
        for index in asked
    )
    missed = [index for index in asked if index not in matched]
    best = overlaps.max(axis=0, initial=0.0)
    return JudgedFrame(
        image,
        seen,
        Detections(
            boxes[missed].astype(np.float32),
            np.ones(len(missed), np.float32),
            np.array([labels.index(names[targets[index].category_id]) for index in missed], np.int32),
        ),
        found,
        tuple(int(index) for index in np.flatnonzero(best < criteria.false_iou_thresh)),
    )


def _boxes_xyxy(targets: Sequence[RenderedAnnotation]) -> Float64Array:
    boxes = np.array([one.bbox for one in targets], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _matched(overlaps: Float64Array, iou_thresh: float) -> set[int]:
    """Match targets and detections one to one, as many as possible; return the indices of the targets found."""
    enough = overlaps >= iou_thresh
    rows, columns = linear_sum_assignment(np.where(enough, 1.0 + overlaps, 0.0), maximize=True)
    return {int(row) for row, column in zip(rows, columns, strict=True) if enough[row, column]}
