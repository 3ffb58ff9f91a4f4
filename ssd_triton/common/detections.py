"""Detections of one image, as all rooms of the package exchange them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from ssd_triton.common.arrays import FloatArray, IntArray
from ssd_triton.common.labels import class_name


@dataclass(frozen=True)
class Detections:
    """Parallel arrays with an entry for each detection, highest score first.

    Attributes:
        boxes_xyxy: FP32 [n, 4]; left, top, right, bottom in pixels of the original image, not clipped to it.
        scores: FP32 [n], in [0, 1].
        class_ids: INT32 [n]; 1 is the first class. 0, the background, does not occur.

    Raises:
        ValueError: The arrays' shapes or dtypes are not those above.
    """

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray

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
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    @classmethod
    def from_padded(
        cls, num_detections: int, boxes_xyxy: FloatArray, scores: FloatArray, class_ids: IntArray
    ) -> Detections:
        """Cut the server's outputs of fixed size to the first ``num_detections``."""
        n = int(num_detections)
        return cls(boxes_xyxy[:n], scores[:n], class_ids[:n])

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[FloatArray, float, int]]:
        """Yield ``(box_xyxy, score, class_id)``, highest score first."""
        for box, score, class_id in zip(self.boxes_xyxy, self.scores, self.class_ids, strict=True):
            yield box, float(score), int(class_id)

    def filter(self, *, score_thresh: float = 0.0, class_ids: Collection[int] | None = None) -> Detections:
        """Keep detections with ``score > score_thresh`` and, where given, one of the classes."""
        keep = self.scores > score_thresh
        if class_ids is not None:
            keep &= np.isin(self.class_ids, list(class_ids))
        return Detections(self.boxes_xyxy[keep], self.scores[keep], self.class_ids[keep])

    def to_json(self, labels: tuple[str, ...]) -> list[dict[str, object]]:
        """A dictionary for each detection: ``box_xyxy`` in pixels, ``score``, ``class_id``, ``class_name``.

        Raises:
            ConfigError: A class has no label.
        """
        return [
            {
                "box_xyxy": [round(float(side), 2) for side in box],
                "score": round(score, 5),
                "class_id": class_id,
                "class_name": class_name(labels, class_id),
            }
            for box, score, class_id in self
        ]
