"""Ground truth in the image: which part of which target is seen, and what a detector could make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray, UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import DetectionNoiseConfig
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import Float64Array, Pose, TargetState
from ssd_triton.simulation.rendering.meshes import shape_points

_NEAR_M = 0.3
"""What is nearer to the lens than this is not seen: it lies within the ego's own bonnet."""

_SCORE_RANGE = (0.75, 0.98)
"""Scores of simulated detections: above any threshold in use, so that misses come from the miss rate alone."""


@dataclass(frozen=True)
class SeenTarget:
    """A target in the image.

    Attributes:
        index: Its place among the targets.
        box_xyxy: Around its visible part, FP64 [4], left, top, right, bottom in pixels, within the image.
        visible_share: Part of its silhouette that lies in the image and is not hidden by others, above 0 up to 1.
        range_m: From the camera to its nearest point, along the ego's heading.
    """

    index: int
    box_xyxy: Float64Array
    visible_share: float
    range_m: float


def seen_targets(
    states: Sequence[TargetState], ego: Pose, camera: Camera, min_side_px: float = 1.0
) -> list[SeenTarget]:
    """Find what is seen of each target, nearest first.

    Args:
        states: Targets, at one time.
        ego: Where the camera is, and where the car heads.
        camera: As it is mounted and pitched at that time.
        min_side_px: Visible parts that are narrower or lower are left out.
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
            found.append(SeenTarget(index, box_xyxy, share, range_m))
    return found


def _silhouette(state: TargetState, ego: Pose, camera: Camera) -> tuple[FloatArray, float]:
    """Convex hull of a target in the image, FP32 [n, 2] in pixels, not clipped; and its range."""
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
    """Box of what is visible of a hull, and its share of the whole."""
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
    # Where nothing hides a side, the box keeps its exact place between pixels.
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


def noisy_detections(
    seen: Sequence[SeenTarget],
    states: Sequence[TargetState],
    labels: Sequence[str],
    noise: DetectionNoiseConfig,
    rng: np.random.Generator,
) -> Detections:
    """What a detector with known errors reports.

    As many random numbers are drawn for targets that are not seen as for those that are, so that runs which differ in
    one target have the same noise on the others.

    Args:
        seen: What is seen of the targets.
        states: All targets.
        labels: Class names by id.
        noise: Standard deviation of each box side, miss rate, and the least share that must be visible.
        rng: Source of the noise.
    """
    sides_px = rng.normal(0.0, 1.0, (len(states), 4)) * noise.box_px
    missed = rng.random(len(states)) < noise.miss_rate
    scores = rng.uniform(*_SCORE_RANGE, len(states))
    reported = [
        item
        for item in seen
        if item.visible_share >= noise.min_visible_share
        and not missed[item.index]
        and item.box_xyxy[3] - item.box_xyxy[1] >= noise.min_height_px
    ]
    reported.sort(key=lambda item: -scores[item.index])
    if not reported:
        return Detections.empty()
    indices = [item.index for item in reported]
    return Detections(
        (np.array([item.box_xyxy for item in reported]) + sides_px[indices]).astype(np.float32),
        scores[indices].astype(np.float32),
        np.array([labels.index(states[index].target.size.class_name) for index in indices], np.int32),
    )
