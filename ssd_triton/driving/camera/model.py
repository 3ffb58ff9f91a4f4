"""Projection between image points and road points, for a camera above a flat road.

The camera is a pinhole with the lens distortion of Brown and Conrady (OpenCV's ``k1, k2, p1, p2, k3``), with pitch and
yaw relative to the ego's heading, and without roll.

On a flat road, the range depends on the angle below the horizon alone, and that angle is small far away. At a camera
height of 1.2 m, half a degree of pitch (a loaded boot, a bump) turns 30 m into 38 m; a slope has an even greater
effect. Beyond about 20 m, ranges are only indicative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from ssd_triton.common.arrays import Float64Array, FloatArray
from ssd_triton.common.errors import UserError

_ASPECT_TOLERANCE = 0.01
"""Greatest relative difference in aspect ratio of a scaled image: more than rounding to whole macroblocks (1920x1088
for 1920x1080 is 0.7 %), and less than any crop to another format."""

_UNDISTORTION_ITERATIONS = 200
_UNDISTORTION_TOLERANCE_PX = 1e-3
"""Greatest reprojection error of an undistorted point; beyond it, the lens model has no inverse there, or the iteration
has not found it."""


class CameraError(UserError):
    """The description of a camera, or the data to calibrate it, is missing, unreadable or inconsistent."""


class RoadPoint(NamedTuple):
    """A point on the road, in metres from the point below the camera."""

    forward_m: float
    """Along the ego's heading."""
    lateral_m: float
    """Positive to the right."""


class ImagePoint(NamedTuple):
    """A point in the image, in pixels from its top left corner; the first pixel's centre is at (0.5, 0.5)."""

    x_px: float
    y_px: float


@dataclass(frozen=True)
class Camera:
    """A camera above a flat road, without roll.

    Attributes:
        width_px: Width of the image.
        height_px: Height of the image.
        fx_px: Focal length in pixel widths.
        fy_px: Focal length in pixel heights.
        cx_px: Column of the principal point, where the optical axis meets the image.
        cy_px: Row of the principal point. The first pixel's centre is at (0.5, 0.5); OpenCV's calibration puts it at
            (0, 0), so add 0.5 to OpenCV's ``cx`` and ``cy``.
        height_m: Height of the lens above the road.
        pitch_deg: Positive looks down; between -90 and 90.
        yaw_deg: Positive points the optical axis to the right of the car's heading; between -90 and 90.
        distortion: OpenCV's k1, k2, p1, p2 and, optionally, k3; empty for none.
        pitch_std_rad: Standard deviation of the pitch about ``pitch_deg``; by default that of a calibrated camera in a
            car that pitches on its springs and carries loads.
        calibrated: Whether the mounting is known well enough to brake by ranges; False for a guess and for an unsure
            estimate.
    """

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    height_m: float
    pitch_deg: float = 0.0
    yaw_deg: float = 0.0
    distortion: tuple[float, ...] = ()
    pitch_std_rad: float = math.radians(0.5)
    calibrated: bool = True

    @classmethod
    def from_fov(
        cls,
        size_px: tuple[int, int],
        horizontal_fov_deg: float,
        height_m: float,
        pitch_deg: float = 0.0,
        yaw_deg: float = 0.0,
    ) -> Camera:
        """Make a camera with square pixels and the optical axis through the middle of the image.

        Args:
            size_px: Width and height of the image.
            horizontal_fov_deg: Angle between the image's left and right edge, above 0 and below 180.
            height_m: As in the class.
            pitch_deg: As in the class.
            yaw_deg: As in the class.
        """
        width_px, height_px = size_px
        focal_length_px = width_px / 2 / math.tan(math.radians(horizontal_fov_deg) / 2)
        return cls(
            width_px,
            height_px,
            fx_px=focal_length_px,
            fy_px=focal_length_px,
            cx_px=width_px / 2,
            cy_px=height_px / 2,
            height_m=height_m,
            pitch_deg=pitch_deg,
            yaw_deg=yaw_deg,
        )

    @property
    def horizon_y_px(self) -> float:
        """Row of the horizon, without lens distortion; it can lie outside the image."""
        return self.cy_px - self.fy_px * math.tan(math.radians(self.pitch_deg))

    def road_point(self, x_px: float, y_px: float) -> RoadPoint | None:
        """Project an image point to the road.

        The image point may lie outside the image, such as the lower edge of a box that is cut off.

        Returns:
            None at and above the horizon, and where the lens model has no inverse.
        """
        forward_m, lateral_m = self._road_points(np.array([[x_px, y_px]], np.float64))[0].tolist()
        return None if math.isnan(forward_m) else RoadPoint(forward_m, lateral_m)

    def road_points(self, points_px: FloatArray) -> FloatArray:
        """Project many image points to the road.

        Args:
            points_px: FP32 [n, 2], x and y in pixels.

        Returns:
            FP32 [n, 2], forward and lateral in metres; NaN where there is no road.
        """
        return self._road_points(points_px.astype(np.float64)).astype(np.float32)

    def image_point(self, forward_m: float, lateral_m: float, up_m: float = 0.0) -> ImagePoint | None:
        """Project a point on or above the road to the image; the result can lie outside the image.

        Returns:
            None behind the image plane, and where the lens model folds back.
        """
        x_px, y_px = self._image_points(np.array([[forward_m, lateral_m, up_m]], np.float64))[0].tolist()
        return None if math.isnan(x_px) else ImagePoint(x_px, y_px)

    def image_points(self, points_m: FloatArray) -> FloatArray:
        """Project many points on or above the road to the image.

        Args:
            points_m: FP32 [n, 3], forward, lateral and up in metres.

        Returns:
            FP32 [n, 2], x and y in pixels; NaN for points that are not visible.
        """
        return self._image_points(points_m.astype(np.float64)).astype(np.float32)

    def undistorted(self, points_px: FloatArray) -> FloatArray:
        """Move image points to where the same camera without lens distortion would see them.

        Args:
            points_px: FP32 [n, 2], x and y in pixels.

        Returns:
            FP32 [n, 2], x and y in pixels; NaN where the lens model has no inverse.
        """
        rays = self._undistort(points_px.astype(np.float64))
        return (rays * (self.fx_px, self.fy_px) + (self.cx_px, self.cy_px)).astype(np.float32)

    def distorted(self, points_px: FloatArray) -> FloatArray:
        """Invert :meth:`undistorted`.

        Args:
            points_px: FP32 [n, 2], x and y in pixels.

        Returns:
            FP32 [n, 2], x and y in pixels; NaN where the lens model folds back.
        """
        rays = (points_px.astype(np.float64) - (self.cx_px, self.cy_px)) / (self.fx_px, self.fy_px)
        return self._distort(rays).astype(np.float32)

    def scaled_to(self, width_px: int, height_px: int) -> Camera:
        """The same camera for images of another size.

        Raises:
            CameraError: The aspect ratio differs by more than 1 %: the image is cropped, and a crop moves the
                principal point.
        """
        scale_x, scale_y = width_px / self.width_px, height_px / self.height_px
        if abs(scale_x / scale_y - 1) > _ASPECT_TOLERANCE:
            raise CameraError(
                f"got images of {width_px}x{height_px} pixels, expected {self.width_px}x{self.height_px} as the "
                "camera was calibrated for, or the same aspect; run: ssd-triton calibrate --help"
            )
        return replace(
            self,
            width_px=width_px,
            height_px=height_px,
            fx_px=self.fx_px * scale_x,
            fy_px=self.fy_px * scale_y,
            cx_px=self.cx_px * scale_x,
            cy_px=self.cy_px * scale_y,
        )

    def with_pitch(self, pitch_deg: float) -> Camera:
        """The same camera at another pitch."""
        return replace(self, pitch_deg=pitch_deg)

    def with_height(self, height_m: float) -> Camera:
        """The same camera at another height."""
        return replace(self, height_m=height_m)

    @cached_property
    def _rotation(self) -> Float64Array:
        """Rotation FP64 [3, 3] from the ego's axes (right, down, ahead) to the camera's (right, down, optical axis)."""
        pitch, yaw = math.radians(self.pitch_deg), math.radians(self.yaw_deg)
        sin_pitch, cos_pitch, sin_yaw, cos_yaw = math.sin(pitch), math.cos(pitch), math.sin(yaw), math.cos(yaw)
        return np.array(
            [
                [cos_yaw, 0.0, -sin_yaw],
                [-sin_pitch * sin_yaw, cos_pitch, -sin_pitch * cos_yaw],
                [cos_pitch * sin_yaw, sin_pitch, cos_pitch * cos_yaw],
            ]
        )

    @cached_property
    def _matrix(self) -> Float64Array:
        """OpenCV's camera matrix, FP64 [3, 3]."""
        return np.array([[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]])

    @cached_property
    def _squared_radius_limit(self) -> float:
        """Squared distance from the axis, at focal length 1, up to which the radial distortion is monotonic.

        Beyond it the polynomial folds back: a ray farther out would be seen farther in.
        """
        if not self.distortion:
            return math.inf
        k1, k2, k3 = (*self.distortion[:2], self.distortion[4] if len(self.distortion) > 4 else 0.0)
        # The derivative of r·(1 + k1·r² + k2·r⁴ + k3·r⁶), as a polynomial in r².
        roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1.0])
        return min((root.real for root in roots if abs(root.imag) < 1e-12 and root.real > 0), default=math.inf)

    def _road_points(self, points_px: Float64Array) -> Float64Array:
        rays = self._undistort(points_px)
        right, down, ahead = (np.column_stack([rays, np.ones(len(rays))]) @ self._rotation).T
        # Comparisons with NaN are false: points without a ray stay NaN.
        on_road = (down > 0) & (ahead > 0)
        scale_m = np.full(len(rays), np.nan)
        np.divide(self.height_m, down, out=scale_m, where=on_road)
        return np.column_stack([ahead * scale_m, right * scale_m])

    def _image_points(self, points_m: Float64Array) -> Float64Array:
        forward_m, lateral_m, up_m = points_m.T
        in_camera = np.column_stack([lateral_m, self.height_m - up_m, forward_m]) @ self._rotation.T
        depth_m = in_camera[:, 2:]
        rays = np.full((len(points_m), 2), np.nan)
        np.divide(in_camera[:, :2], depth_m, out=rays, where=depth_m > 0)
        return self._distort(rays)

    def _distort(self, rays: Float64Array) -> Float64Array:
        """Image points in pixels of rays at focal length 1, FP64 [n, 2]; NaN where the lens model folds back."""
        if not self.distortion or not len(rays):
            return rays * (self.fx_px, self.fy_px) + (self.cx_px, self.cy_px)
        seen = (rays**2).sum(axis=1) < self._squared_radius_limit
        points_px = np.full_like(rays, np.nan)
        if seen.any():
            in_camera = np.column_stack([rays[seen], np.ones(np.count_nonzero(seen))])
            still = np.zeros(3)
            projected, _ = cv2.projectPoints(in_camera, still, still, self._matrix, np.array(self.distortion))
            points_px[seen] = projected[:, 0]
        return points_px

    def _undistort(self, points_px: Float64Array) -> Float64Array:
        """Rays at focal length 1 of image points, FP64 [n, 2]; NaN where the lens model has no inverse."""
        if not self.distortion or not len(points_px):
            return (points_px - (self.cx_px, self.cy_px)) / (self.fx_px, self.fy_px)
        criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, _UNDISTORTION_ITERATIONS, 1e-6)
        rays: Float64Array = cv2.undistortPointsIter(
            points_px[:, np.newaxis], self._matrix, np.array(self.distortion), None, None, criteria
        )[:, 0]
        error_px = np.linalg.norm(self._distort(rays) - points_px, axis=1)
        rays[~(error_px < _UNDISTORTION_TOLERANCE_PX)] = np.nan
        return rays
