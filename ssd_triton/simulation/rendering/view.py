"""Position, camera and light of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssd_triton.common.arrays import Float64Array, FloatArray
from ssd_triton.driving.camera import Camera
from ssd_triton.simulation.motion import Pose
from ssd_triton.simulation.rendering.weather import Weather


@dataclass(frozen=True)
class View:
    """The view of one image.

    Attributes:
        ego: Position of the camera, and heading of the car.
        camera: A pinhole camera.
        weather: Light and air.
    """

    ego: Pose
    camera: Camera
    weather: Weather

    def project(self, points_m: Float64Array) -> tuple[Float64Array, FloatArray]:
        """Transform points of the world, FP64 [n, 3], to the car's axes, and to pixels of the image, FP32 [n, 2]."""
        local_m = self.ego.to_local(points_m)
        return local_m, self.camera.image_points(local_m.astype(np.float32))

    def window(self, points_px: FloatArray, margin_px: float = 0.0) -> tuple[int, int, int, int]:
        """Bounding window of points in whole pixels of the image: left, top, right, bottom; empty where right <= left.

        It is also empty where a point lies behind the image plane.
        """
        if not np.isfinite(points_px).all():
            return 0, 0, 0, 0
        limits = (self.camera.width_px, self.camera.height_px)
        low = np.clip(np.floor(points_px.min(axis=0) - margin_px), 0, limits).astype(int)
        high = np.clip(np.ceil(points_px.max(axis=0) + margin_px), 0, limits).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])
