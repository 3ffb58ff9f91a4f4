"""Boxes of road users at exact places, by the package's camera."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssd_triton.common.detections import Detections
from ssd_triton.driving.camera import Camera


class RoadUser(NamedTuple):
    """A cuboid on the road, whose position is the middle of its near face, seen from the camera."""

    forward_m: float
    lateral_m: float = 0.0
    class_name: str = "car"
    size_m: tuple[float, float, float] = (1.8, 1.5, 4.5)
    """Width, height and length."""


def detections_of(
    camera: Camera,
    labels: tuple[str, ...],
    *users: RoadUser,
    noise_px: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Detections:
    """Boxes around road users, clipped to the image, with noise on every side and a score of 0.9."""
    boxes = np.zeros((len(users), 4), np.float32)
    for box, user in zip(boxes, users, strict=True):
        width_m, height_m, length_m = user.size_m
        corners_m = [
            (user.forward_m + along_m, user.lateral_m + across_m, up_m)
            for along_m in (0.0, length_m)
            for across_m in (-width_m / 2, width_m / 2)
            for up_m in (0.0, height_m)
        ]
        points_px = camera.image_points(np.array(corners_m, np.float32))
        box[:] = np.concatenate([points_px.min(axis=0), points_px.max(axis=0)])
    boxes = boxes.clip(0, np.array([camera.width_px, camera.height_px] * 2, np.float32))
    if rng is not None:
        boxes += rng.normal(0, noise_px, boxes.shape).astype(np.float32)
    class_ids = np.array([labels.index(user.class_name) for user in users], np.int32)
    return Detections(boxes, np.full(len(users), 0.9, np.float32), class_ids)
