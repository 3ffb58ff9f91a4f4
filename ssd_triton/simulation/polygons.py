"""Distance between convex polygons on the ground."""

from __future__ import annotations

import numpy as np

from ssd_triton.common.arrays import Float64Array


def gap_m(first: Float64Array, second: Float64Array) -> float:
    """Least distance between two convex polygons in metres; 0 where they touch or overlap.

    Args:
        first: Corners in order around it, FP64 [n, 2].
        second: Corners in order around it, FP64 [m, 2].
    """
    if _overlap(first, second):
        return 0.0
    return min(_corners_to_sides_m(first, second), _corners_to_sides_m(second, first))


def _overlap(first: Float64Array, second: Float64Array) -> bool:
    """Separating axis theorem: convex polygons are disjoint only if the normal of one of their sides separates them."""
    for corners in (first, second):
        sides = np.roll(corners, -1, axis=0) - corners
        normals = np.column_stack([-sides[:, 1], sides[:, 0]])
        ours, others = first @ normals.T, second @ normals.T
        if np.any((ours.max(axis=0) < others.min(axis=0)) | (others.max(axis=0) < ours.min(axis=0))):
            return False
    return True


def _corners_to_sides_m(points: Float64Array, corners: Float64Array) -> float:
    sides = np.roll(corners, -1, axis=0) - corners
    offsets = points[:, np.newaxis] - corners
    part = np.clip((offsets * sides).sum(axis=2) / (sides**2).sum(axis=1), 0.0, 1.0)
    return float(np.linalg.norm(offsets - part[..., np.newaxis] * sides, axis=2).min())
