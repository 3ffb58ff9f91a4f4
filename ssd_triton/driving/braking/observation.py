"""Observations from single detections: the sides of a box as directions, and which of them belong to the object."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ssd_triton.common.arrays import Float64Array
from ssd_triton.common.boxes import iou_matrix
from ssd_triton.common.detections import Detections
from ssd_triton.config import TrackingConfig
from ssd_triton.driving.camera import Camera

LEFT, TOP, RIGHT, BOTTOM = range(4)

CLASS_GROUPS: Mapping[str, str] = {
    "car": "vehicle",
    "bus": "vehicle",
    "truck": "vehicle",
    "bicycle": "two-wheeler",
    "motorcycle": "two-wheeler",
}
"""Groups of classes that detectors confuse; any other class is a group of its own."""


def group_of(class_name: str) -> str:
    """The group of a class."""
    return CLASS_GROUPS.get(class_name, class_name)


_HIDING_STD = 2.0
"""Sides of two boxes within this many standard deviations may coincide."""


Sides = tuple[bool, bool, bool, bool]


@dataclass(frozen=True)
class Observation:
    """One detection of a tracked class.

    Sides are left, top, right, bottom. A direction is the tangent of the angle to the ego's heading, level with the
    road: to the right for the left and right side, downwards for the top and bottom.

    Attributes:
        box_xyxy: FP64 [4], pixels.
        score: In [0, 1].
        class_name: Its class.
        directions: FP64 [4]; NaN where the lens model has no inverse.
        direction_std: Standard deviation of each direction from the detector's noise, FP64 [4].
        size_std_px: Standard deviation of a side in pixels, across and down, FP64 [2].
        onset_std_px: The same for the onset test.
        cut: Whether each side is cut off by the image's border.
        hidden: Whether each side may be hidden by a nearer object.
        lowest_direction: Direction of the image's bottom border below this box.
    """

    box_xyxy: Float64Array
    score: float
    class_name: str
    directions: Float64Array
    direction_std: Float64Array
    size_std_px: Float64Array
    onset_std_px: Float64Array
    cut: Sides
    hidden: Sides
    lowest_direction: float

    @cached_property
    def known(self) -> Sides:
        """Whether each side belongs to the object and has a direction."""
        left, top, right, bottom = (
            not (cut or hidden or math.isnan(direction))
            for cut, hidden, direction in zip(self.cut, self.hidden, self.directions, strict=True)
        )
        return left, top, right, bottom

    @property
    def height_px(self) -> float:
        """Height of the box."""
        return float(self.box_xyxy[BOTTOM] - self.box_xyxy[TOP])

    @property
    def width_px(self) -> float:
        """Width of the box."""
        return float(self.box_xyxy[RIGHT] - self.box_xyxy[LEFT])


def observe(
    detections: Detections,
    labels: Sequence[str],
    camera: Camera,
    settings: TrackingConfig,
    class_ids: Collection[int],
) -> list[Observation]:
    """Describe detections of the given classes, highest score first.

    Boxes without area, scores up to ``low_score_thresh``, and duplicates are left out.
    """
    kept = _without_duplicates(detections, labels, settings, class_ids)
    boxes = detections.boxes_xyxy[kept].astype(np.float64)
    directions, lowest = _box_directions(boxes, camera)
    sizes_px = np.column_stack([boxes[:, RIGHT] - boxes[:, LEFT], boxes[:, BOTTOM] - boxes[:, TOP]])
    size_std_px = np.hypot(settings.box_noise_px, settings.box_noise_relative * sizes_px)
    onset_std_px = np.hypot(settings.box_noise_px, settings.onset_noise_relative * sizes_px)
    direction_std = np.tile(size_std_px / (camera.fx_px, camera.fy_px), 2)
    cut, hidden = _cut_sides(boxes, camera, settings.border_fraction), _hidden_sides(boxes, size_std_px)
    return [
        Observation(
            box_xyxy=boxes[row],
            score=float(detections.scores[index]),
            class_name=labels[detections.class_ids[index]],
            directions=directions[row],
            direction_std=direction_std[row],
            size_std_px=size_std_px[row],
            onset_std_px=onset_std_px[row],
            cut=cut[row],
            hidden=hidden[row],
            lowest_direction=float(lowest[row]),
        )
        for row, index in enumerate(kept)
    ]


def _without_duplicates(
    detections: Detections, labels: Sequence[str], settings: TrackingConfig, class_ids: Collection[int]
) -> list[int]:
    """Indices of the detections to use: NMS is by class, so keep the best of a group's coinciding boxes."""
    boxes = detections.boxes_xyxy
    has_area = (boxes[:, RIGHT] > boxes[:, LEFT]) & (boxes[:, BOTTOM] > boxes[:, TOP])
    found = np.flatnonzero(has_area & (detections.scores > settings.low_score_thresh)).tolist()
    indices = [index for index in found if int(detections.class_ids[index]) in class_ids]
    groups = [group_of(labels[detections.class_ids[index]]) for index in indices]
    coincide = iou_matrix(boxes[indices], boxes[indices]) >= settings.duplicate_iou_thresh
    kept: list[int] = []
    for row in range(len(indices)):
        if not any(groups[other] == groups[row] and coincide[row, other] for other in kept):
            kept.append(row)
    return [indices[row] for row in kept]


def _box_directions(boxes: Float64Array, camera: Camera) -> tuple[Float64Array, Float64Array]:
    """Directions of the sides of boxes at their middles, FP64 [n, 4], and of the image's bottom below, FP64 [n]."""
    left, top, right, bottom = boxes.T
    x_px, y_px = (left + right) / 2, (top + bottom) / 2
    border_px = np.full_like(x_px, camera.height_px)
    points_px = np.stack([[left, x_px, right, x_px, x_px], [y_px, top, y_px, bottom, border_px]], axis=-1)  # [5, n, 2]
    to_right, down = _directions(points_px.reshape(-1, 2), camera).T.reshape(2, 5, -1)
    return np.stack([to_right[LEFT], down[TOP], to_right[RIGHT], down[BOTTOM]], axis=-1), down[4]


def _directions(points_px: Float64Array, camera: Camera) -> Float64Array:
    """Tangents to the right and downwards of the rays through image points, level with the road; FP64 [n, 2]."""
    seen = camera.undistorted(points_px.astype(np.float32)).astype(np.float64) if camera.distortion else points_px
    x = (seen[:, 0] - camera.cx_px) / camera.fx_px
    y = (seen[:, 1] - camera.cy_px) / camera.fy_px
    pitch, yaw = math.radians(camera.pitch_deg), math.radians(camera.yaw_deg)
    down = y * math.cos(pitch) + math.sin(pitch)
    level = math.cos(pitch) - y * math.sin(pitch)
    ahead = level * math.cos(yaw) - x * math.sin(yaw)
    ahead[ahead <= 0] = np.nan
    return np.column_stack([(x * math.cos(yaw) + level * math.sin(yaw)) / ahead, down / ahead])


def _cut_sides(boxes: Float64Array, camera: Camera, border_fraction: float) -> list[Sides]:
    """Whether each side of the boxes lies at the image's border."""
    across_px, down_px = border_fraction * camera.width_px, border_fraction * camera.height_px
    near = np.column_stack(
        [
            boxes[:, LEFT] <= across_px,
            boxes[:, TOP] <= down_px,
            boxes[:, RIGHT] >= camera.width_px - across_px,
            boxes[:, BOTTOM] >= camera.height_px - down_px,
        ]
    )
    return _by_box(near)


def _hidden_sides(boxes: Float64Array, size_std_px: Float64Array) -> list[Sides]:
    """Whether each side of the boxes may belong to a nearer box: one that ends lower in the image, and overlaps."""
    left, right, bottom = (boxes[:, side, None] for side in (LEFT, RIGHT, BOTTOM))
    other_left, other_top, other_right, other_bottom = (boxes[None, :, side] for side in range(4))
    across_px, down_px = (_HIDING_STD * size_std_px[:, axis, None] for axis in range(2))
    in_front = (other_bottom > bottom + down_px) & (other_top < bottom)
    middle = (left + right) / 2
    hidden = np.stack(
        [
            in_front & (other_left < left) & (left - across_px < other_right),
            np.zeros_like(in_front),
            in_front & (other_right > right) & (right + across_px > other_left),
            in_front & (other_left < middle) & (middle < other_right),
        ],
        axis=-1,
    )
    return _by_box(hidden.any(axis=1))


def _by_box(flags: npt.NDArray[np.bool_]) -> list[Sides]:
    """Convert BOOL [n, 4] to tuples."""
    return [(left, top, right, bottom) for left, top, right, bottom in flags.tolist()]
