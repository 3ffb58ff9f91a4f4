"""Ground truth in the image: the visible part of each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ssd_triton.common.arrays import Float64Array, FloatArray, UInt8Array
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import Pose, TargetState
from ssd_triton.simulation.rendering.target_meshes import shape_points

_NEAR_M = 0.3
"""Points nearer to the lens are not visible: they lie within the ego's own bonnet."""


@dataclass(frozen=True)
class VisibleTarget:
    """The visible part of a target.

    Attributes:
        index: Index of the target.
        box_xyxy: Bounding box of its visible part, FP64 [4], in pixels, within the image.
        visible_share: Share of its silhouette that lies in the image and is not occluded, above 0 and up to 1.
        range_m: From the camera to its nearest point, along the ego's heading.
    """

    index: int
    box_xyxy: Float64Array
    visible_share: float
    range_m: float


def visible_targets(
    states: Sequence[TargetState], ego: Pose, camera: Camera, min_side_px: float = 1.0
) -> list[VisibleTarget]:
    """Find the visible part of each target, nearest first.

    Args:
        states: Targets at one instant.
        ego: Position of the camera, and heading of the car.
        camera: The camera with its pitch at that time.
        min_side_px: Least width and height of a visible part.
    """
    silhouettes = [(index, *_silhouette(state, ego, camera)) for index, state in enumerate(states)]
    nearest_first = sorted(silhouettes, key=lambda item: item[2])
    hulls: list[FloatArray] = []
    found = []
    for index, hull_px, range_m in nearest_first:
        if len(hull_px) < 3:
            continue
        box_xyxy, share = _visible_part(hull_px, hulls, (camera.width_px, camera.height_px))
        hulls.append(hull_px)
        if share > 0 and min(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1]) >= min_side_px:
            found.append(VisibleTarget(index, box_xyxy, share, range_m))
    return found


def _silhouette(state: TargetState, ego: Pose, camera: Camera) -> tuple[FloatArray, float]:
    """Convex hull of a target in the image, FP32 [n, 2] in pixels, not clipped; and the target's range."""
    points_m = ego.to_local(shape_points(state))
    range_m = float(points_m[:, 0].min())
    points_px = camera.image_points(points_m[points_m[:, 0] > _NEAR_M].astype(np.float32))
    points_px = points_px[np.isfinite(points_px).all(axis=1)]
    if len(points_px) < 3:
        return np.zeros((0, 2), np.float32), range_m
    limit_px = 16.0 * camera.width_px
    return cv2.convexHull(np.clip(points_px, -limit_px, limit_px))[:, 0], range_m


def _visible_part(
    hull_px: FloatArray, nearer_px: Sequence[FloatArray], size_px: tuple[int, int]
) -> tuple[Float64Array, float]:
    """Box of the visible part of a hull, and the part's share of the whole."""
    full = np.array([*hull_px.min(axis=0), *hull_px.max(axis=0)], np.float64)
    box = _clip(full, size_px)
    area_px = float(cv2.contourArea(hull_px))
    if box[2] <= box[0] or box[3] <= box[1] or area_px <= 0:
        return box, 0.0
    inside_px = area_px
    if not np.array_equal(box, full):
        corners = np.array([[0, 0], [size_px[0], 0], size_px, [0, size_px[1]]], np.float32)
        inside_px = float(cv2.intersectConvexConvex(hull_px, corners)[0])
    hiding = [nearer for nearer in nearer_px if _boxes_touch(nearer, box)]
    if not hiding:
        return box, inside_px / area_px
    left, top, right, bottom = (int(side) for side in (*np.floor(box[:2]), *np.ceil(box[2:])))
    mask = _filled(hull_px, (left, top, right, bottom))
    whole = np.count_nonzero(mask)
    for nearer in hiding:
        mask &= ~_filled(nearer, (left, top, right, bottom))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows) or not whole:
        return box, 0.0
    around = np.array([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1], np.float64)
    # Sides that nothing occludes keep their subpixel position.
    visible = np.concatenate([np.maximum(box[:2], around[:2]), np.minimum(box[2:], around[2:])])
    return visible, inside_px / area_px * np.count_nonzero(mask) / whole


def _clip(box_xyxy: Float64Array, size_px: tuple[int, int]) -> Float64Array:
    limits = np.array([*size_px, *size_px], np.float64)
    return np.clip(box_xyxy, 0.0, limits)


def _boxes_touch(hull_px: FloatArray, box_xyxy: Float64Array) -> bool:
    low, high = hull_px.min(axis=0), hull_px.max(axis=0)
    return bool(np.all(low < box_xyxy[2:]) and np.all(high > box_xyxy[:2]))


def _filled(hull_px: FloatArray, window: tuple[int, int, int, int]) -> UInt8Array:
    """Mask of a hull within a window of whole pixels, UINT8 0 or 255."""
    left, top, right, bottom = window
    mask = np.zeros((bottom - top, right - left), np.uint8)
    # The first pixel's centre is at (0.5, 0.5) for the camera, and at (0, 0) for OpenCV.
    corners = np.round((hull_px - (left + 0.5, top + 0.5)) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_8, 4)
    return mask
