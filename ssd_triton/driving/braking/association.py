"""Association of tracks with observations.

As in ByteTrack (Zhang et al., 2022), the tracker matches detections of high score first, and then the remaining tracks
with detections of low score. Those of low score never start a track. The assignment maximises the overlap of the boxes
with the tracks' predicted boxes (``scipy.optimize.linear_sum_assignment``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from ssd_triton.common.arrays import Float64Array
from ssd_triton.common.boxes import iou_matrix
from ssd_triton.driving.braking.observation import Observation, group_of


def match(
    expected_xyxy: Float64Array, groups: Sequence[str], seen: Sequence[Observation], iou_thresh: float
) -> list[tuple[int, int]]:
    """Match tracks with observations of the same group.

    Args:
        expected_xyxy: Predicted boxes of the tracks, FP64 [n, 4], pixels.
        groups: Groups of the tracks, n.
        seen: Observations, m.
        iou_thresh: Least overlap of a match.

    Returns:
        Pairs of a track's and an observation's index; each index occurs at most once.
    """
    if not len(expected_xyxy) or not seen:
        return []
    seen_xyxy: Float64Array = np.array([item.box_xyxy for item in seen])
    overlaps = iou_matrix(expected_xyxy, seen_xyxy)
    same = np.array([[group == group_of(item.class_name) for item in seen] for group in groups])
    overlaps[~same | (overlaps < iou_thresh)] = 0.0
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if overlaps[row, column] > 0]
