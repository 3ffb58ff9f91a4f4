"""From image points to points on the road, and back, for a pinhole camera above a flat road.

The range of a flat-road camera rests on one angle below the horizon, of which little is left far away: at a
camera height of 1.2 m, half a degree of pitch (a full boot, a hump) turns 30 m into 38 m, and a road that
bends up or down does worse. Beyond about 20 m the numbers are an indication only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class RoadPoint(NamedTuple):
    """A point on the road, in metres from the point below the camera."""

    forward_m: float
    lateral_m: float
    """Positive to the right."""


class ImagePoint(NamedTuple):
    """A point in the image, in pixels from its top left corner; the first pixel's centre is at (0.5, 0.5)."""

    x_px: float
    y_px: float


@dataclass(frozen=True)
class GroundCamera:
    """A pinhole camera without roll or lens distortion, its optical axis through the middle of the image.

    Attributes:
        width_px: Width of the image.
        height_px: Height of the image.
        horizontal_fov_deg: Angle between its left and right edges, above 0 and below 180.
        height_m: Height of the lens above the road, above 0.
        pitch_deg: Positive looks down, from -45 to 45.
    """

    width_px: int
    height_px: int
    horizontal_fov_deg: float
    height_m: float
    pitch_deg: float

    @property
    def focal_length_px(self) -> float:
        """Distance of the image plane from the lens, in pixels."""
        return self.width_px / 2 / math.tan(math.radians(self.horizontal_fov_deg) / 2)

    @property
    def horizon_y_px(self) -> float:
        """Image row in which the flat road ends; it can lie outside the image."""
        return self.height_px / 2 - self.focal_length_px * math.tan(math.radians(self.pitch_deg))

    def road_point(self, x_px: float, y_px: float) -> RoadPoint | None:
        """Point of the road that is seen at an image point; None at the horizon and above it.

        Image points may lie outside the image, as the lower edge of a box that reaches below it does.
        """
        right, down, ahead = self._ray(x_px, y_px)
        if down <= 0 or ahead <= 0:
            return None
        return RoadPoint(self.height_m * ahead / down, self.height_m * right / down)

    def image_point(self, forward_m: float, lateral_m: float) -> ImagePoint | None:
        """Image point at which a point of the road is seen; None if it lies behind the image plane.

        The image point can lie outside the image.
        """
        sin, cos = self._pitch_sin_cos()
        depth_m = forward_m * cos + self.height_m * sin
        if depth_m <= 0:
            return None
        below_axis_m = self.height_m * cos - forward_m * sin
        scale_px_per_m = self.focal_length_px / depth_m
        return ImagePoint(
            self.width_px / 2 + lateral_m * scale_px_per_m, self.height_px / 2 + below_axis_m * scale_px_per_m
        )

    def _ray(self, x_px: float, y_px: float) -> tuple[float, float, float]:
        """Direction of an image point: to the right, down and ahead, level with the road; of any length."""
        sin, cos = self._pitch_sin_cos()
        right = (x_px - self.width_px / 2) / self.focal_length_px
        below_axis = (y_px - self.height_px / 2) / self.focal_length_px
        return right, below_axis * cos + sin, cos - below_axis * sin

    def _pitch_sin_cos(self) -> tuple[float, float]:
        pitch = math.radians(self.pitch_deg)
        return math.sin(pitch), math.cos(pitch)
