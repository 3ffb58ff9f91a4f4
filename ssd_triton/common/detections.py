"""Detections of one image, the type that all parts of the package exchange."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ssd_triton.common.arrays import AnyArray, FloatArray, IntArray, shortest
from ssd_triton.common.errors import UserError, listing
from ssd_triton.common.labels import class_name

Index = int | np.integer[Any] | slice | Sequence[int] | AnyArray
"""An index, a slice, several indices, or a Boolean mask with an entry for each detection."""


@dataclass(frozen=True, repr=False)
class Detections:
    """Parallel arrays with an entry for each detection, highest score first.

    ``detections[0]``, ``detections[:5]``, ``detections[detections.scores > 0.5]`` and ``detections[[0, 2]]`` return new
    ``Detections``; no method changes the original.

    Attributes:
        boxes_xyxy: FP32 [n, 4]; left, top, right, bottom in pixels of the original image, not clipped to it.
        scores: FP32 [n], in [0, 1].
        class_ids: INT32 [n]; 1 is the first class. 0, the background, does not occur.
        labels: Class names by id, the background first; None where they are unknown.

    Raises:
        ValueError: The arrays' shapes or dtypes are not those above.
    """

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray
    labels: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        n = len(self.scores)
        for name, array, shape, dtype in (
            ("boxes_xyxy", self.boxes_xyxy, (n, 4), np.float32),
            ("scores", self.scores, (n,), np.float32),
            ("class_ids", self.class_ids, (n,), np.int32),
        ):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name}: got {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}"
                )

    @classmethod
    def empty(cls, labels: tuple[str, ...] | None = None) -> Detections:
        """Return an instance without detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), labels=labels)

    @classmethod
    def from_padded(
        cls,
        num_detections: int,
        boxes_xyxy: FloatArray,
        scores: FloatArray,
        class_ids: IntArray,
        labels: tuple[str, ...] | None = None,
    ) -> Detections:
        """Cut the server's outputs of fixed size to the first ``num_detections``."""
        n = int(num_detections)
        return cls(boxes_xyxy[:n], scores[:n], class_ids[:n], labels=labels)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[FloatArray, float, int]]:
        """Yield ``(box_xyxy, score, class_id)``, highest score first."""
        for box, score, class_id in zip(self.boxes_xyxy, self.scores, self.class_ids, strict=True):
            yield box, float(score), int(class_id)

    def __getitem__(self, index: Index) -> Detections:
        """Select detections by an index, a slice, several indices, or a mask; a single index gives a set of one.

        Raises:
            IndexError: There is no such detection, or a mask has another length.
        """
        chosen: Any = index if isinstance(index, slice) else np.atleast_1d(index)
        if not isinstance(chosen, slice) and not chosen.size and chosen.dtype != np.bool_:
            chosen = chosen.astype(np.intp)  # NumPy makes an empty list an array of floats
        return replace(
            self, boxes_xyxy=self.boxes_xyxy[chosen], scores=self.scores[chosen], class_ids=self.class_ids[chosen]
        )

    def __repr__(self) -> str:
        """Return one line with the number of detections, and class and score of the best ones."""
        names = dict(enumerate(self.labels or ()))
        best = [f"{names.get(class_id, f'class {class_id}')} {score:.2f}" for _, score, class_id in self]
        return f"Detections({len(self)}{': ' if best else ''}{listing(best)})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each detection's class.

        Raises:
            ValueError: The names are unknown: see :meth:`with_labels`.
            ConfigError: A class has no label.
        """
        labels = self.labels
        if labels is None:
            raise ValueError("got detections without class names, expected labels; call with_labels() first")
        return tuple(class_name(labels, class_id) for class_id in self.class_ids.tolist())

    def with_labels(self, labels: tuple[str, ...]) -> Detections:
        """Return the same detections with class names, indexed by class id, the background first."""
        return replace(self, labels=labels)

    def filter(self, *, score_thresh: float = 0.0, class_ids: Collection[int] | None = None) -> Detections:
        """Keep detections with ``score > score_thresh`` and, if ``class_ids`` is given, one of these classes."""
        keep = self.scores > score_thresh
        if class_ids is not None:
            keep &= np.isin(self.class_ids, list(class_ids))
        return self[keep]

    def clipped(self, size_px: tuple[int, int]) -> Detections:
        """Clip boxes to an image of a width and height in pixels, and drop boxes without any area left."""
        boxes_xyxy: FloatArray = np.clip(self.boxes_xyxy, 0, np.array([*size_px, *size_px], np.float32))
        keep = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)
        return replace(self, boxes_xyxy=boxes_xyxy)[keep]

    def to_json(self) -> list[dict[str, object]]:
        """Convert to dictionaries with ``box_xyxy`` in pixels, ``score``, ``class_id``, and ``class_name`` if known.

        Raises:
            ConfigError: A class has no label.
        """
        return [
            {
                "box_xyxy": [round(float(side), 2) for side in box],
                "score": round(score, 5),
                "class_id": class_id,
                **({} if self.labels is None else {"class_name": class_name(self.labels, class_id)}),
            }
            for box, score, class_id in self
        ]

    def to_coco(self, image_id: int, category_ids: Mapping[int, int]) -> list[dict[str, Any]]:
        """Convert to COCO's format of results: ``image_id``, ``category_id``, ``bbox``, ``score``.

        Args:
            image_id: Id of the image in the data set.
            category_ids: Category ids by class id; detections of other classes are dropped.

        Returns:
            A dictionary for each detection; ``bbox`` is left, top, width, height to 1/1000 pixel.
        """
        boxes = self.boxes_xyxy.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        rows = zip(np.round(boxes, 3).tolist(), shortest(self.scores), self.class_ids.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": category_ids[class_id], "bbox": box, "score": score}
            for box, score, class_id in rows
            if class_id in category_ids
        ]

    def to_yolo(self, size_px: tuple[int, int]) -> str:
        """Convert to a YOLO label file: lines of class, centre x, centre y, width, height, without the scores.

        Classes count from 0, without the background. Boxes are clipped to the image, with coordinates relative to its
        width and height.

        Args:
            size_px: Width and height of the image.
        """
        found = self.clipped(size_px)
        low, high = found.boxes_xyxy[:, :2].astype(np.float64), found.boxes_xyxy[:, 2:].astype(np.float64)
        rows = np.hstack([(low + high) / 2, high - low]) / [*size_px, *size_px]
        return "".join(
            f"{class_id - 1} {' '.join(f'{value:.6f}' for value in row)}\n"
            for class_id, row in zip(found.class_ids, rows, strict=True)
        )

    def to_supervision(self) -> Any:
        """Convert to ``supervision.Detections``: same boxes, scores and class ids; names in ``data["class_name"]``.

        Raises:
            UserError: The package supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            if error.name != "supervision":
                raise
            raise UserError("to_supervision() needs the package supervision: pip install supervision") from None
        data = {} if self.labels is None else {"class_name": np.array(self.class_names, np.str_)}
        return supervision.Detections(
            xyxy=self.boxes_xyxy.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.astype(np.int64),
            data=data,
        )
