"""Every variant against PyTorch FP32 on identical real images: raw outputs and final detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd_triton.common.arrays import AnyArray, UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.report import Table
from ssd_triton.detector.export.compare import relative_error
from ssd_triton.detector.network.ssd import ServedDetector, predict
from ssd_triton.detector.postprocessing.parameters import PostprocessParameters
from ssd_triton.detector.postprocessing.reference import iou, postprocess
from ssd_triton.serving.runnable import RunnableVariant

_SAME_OBJECT_IOU = 0.9
_SAME_SCORE = 0.05
_CLEAR_SCORE = 0.3
"""Detections with lower scores may differ by rounding; those with higher scores must agree."""


@dataclass(frozen=True)
class Parity:
    """How far one variant is from PyTorch FP32."""

    variant: str
    loc_error: float
    conf_error: float
    """Relative L2 errors of the raw outputs."""
    clear_detections: int
    """Detections of the reference with a clear score."""
    matched_detections: int
    """Of these, the detections that the variant has, too: same class, IoU at least 0.9, score within 0.05."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether raw outputs are within the tolerance and every clear detection is matched; NaN does not pass."""
        within = self.loc_error <= self.tolerance and self.conf_error <= self.tolerance
        return within and self.matched_detections == self.clear_detections


def check_parity(
    detector: ServedDetector, variants: list[RunnableVariant], images_rgb: UInt8Array, tolerances: dict[str, float]
) -> list[Parity]:
    """Compare variants with a detector in FP32 on the CPU.

    Args:
        detector: The reference, in FP32 and evaluation mode, on the CPU.
        variants: The variants, on the device they run on.
        images_rgb: UINT8 [N, 300, 300, 3] real images.
        tolerances: Relative error allowed, by the precision that a variant runs in. Variants of other precisions are
            left out: INT8 is judged by its accuracy.
    """
    expected_loc, expected_conf = predict(detector, images_rgb)
    expected = _detections(expected_loc, expected_conf)
    results = []
    for variant in variants:
        if variant.precision not in tolerances:
            continue
        loc, conf = variant.run(images_rgb)
        pairs = zip(expected, _detections(loc, conf), strict=True)
        clear = [(reference.filter(score_thresh=_CLEAR_SCORE), found) for reference, found in pairs]
        results.append(
            Parity(
                variant.name,
                relative_error(loc, expected_loc),
                relative_error(conf, expected_conf),
                clear_detections=sum(len(reference) for reference, _ in clear),
                matched_detections=sum(_count_matched(reference, found) for reference, found in clear),
                tolerance=tolerances[variant.precision],
            )
        )
    return results


def parity_table(results: Sequence[Parity]) -> Table:
    """One variant a row."""
    rows = [
        [
            one.variant,
            f"{one.loc_error:.1e}",
            f"{one.conf_error:.1e}",
            f"{one.tolerance:.0e}",
            f"{one.matched_detections} of {one.clear_detections}",
            "ok" if one.passed else "FAILED",
        ]
        for one in results
    ]
    return Table(["variant", "loc", "conf", "tolerance", "clear detections matched", ""], rows)


def _detections(loc: AnyArray, conf: AnyArray) -> list[Detections]:
    """Detections of each image, boxes in pixels of the network's input."""
    parameters = PostprocessParameters()
    return [postprocess(one_loc, one_conf, (300, 300), parameters) for one_loc, one_conf in zip(loc, conf, strict=True)]


def _count_matched(reference: Detections, found: Detections) -> int:
    """Count the detections of the reference that were also found."""
    matched = 0
    for box, score, class_id in reference:
        same = (found.class_ids == class_id) & (np.abs(found.scores - score) <= _SAME_SCORE)
        matched += bool((same & (iou(box, found.boxes_xyxy) >= _SAME_OBJECT_IOU)).any())
    return matched
