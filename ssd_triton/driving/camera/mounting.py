"""The mounting of a camera, from road points at known positions, or from the road's vanishing point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from ssd_triton.common.arrays import Float64Array, FloatArray
from ssd_triton.driving.camera.model import Camera, CameraError

MIN_POINTS = 4
_MIN_SPREAD_M = 0.2
"""Least standard deviation of the points across their best-fitting line."""
_MAX_RMS = 0.02
"""Greatest root mean square error of a valid fit, in image widths: a typing error or a swapped sign leaves more,
careless measuring much less."""

_ITERATIONS = 100
_INITIAL_DAMPING = 1e-3
_STEP = 1e-6
"""Step of the numeric derivatives, in metres and degrees."""
_CONVERGED = 1e-10


class RoadReference(NamedTuple):
    """A road point at a known position, and its image point."""

    forward_m: float
    """From the point below the camera along the car's heading."""
    lateral_m: float
    """Positive to the right."""
    x_px: float
    y_px: float


@dataclass(frozen=True, eq=False)
class MountingFit:
    """A camera whose height, pitch and yaw fit road points.

    Attributes:
        camera: The camera with the fitted mounting.
        errors_px: FP32 [n], reprojection error of each point.
        rms_px: Root mean square of the errors.
        height_std_m: Standard deviation of the height, from the remaining errors.
        pitch_std_deg: Standard deviation of the pitch.
        yaw_std_deg: Standard deviation of the yaw.
    """

    camera: Camera
    errors_px: FloatArray
    rms_px: float
    height_std_m: float
    pitch_std_deg: float
    yaw_std_deg: float


def fit_mounting(intrinsics: Camera, references: Sequence[RoadReference]) -> MountingFit:
    """Fit height, pitch and yaw by least squares of the reprojection error.

    The fit starts from the free pose of the points (OpenCV's IPPE: Collins and Bartoli, "Infinitesimal Plane-Based Pose
    Estimation", IJCV 2014) and continues by Levenberg-Marquardt without roll or offset.

    Args:
        intrinsics: A camera whose mounting is ignored.
        references: Four or more points that are not collinear.

    Raises:
        CameraError: The points are too few, not finite or collinear, or fit no camera above the road.
    """
    values = np.array(references, np.float64).reshape(-1, 4)
    _check_references(values)
    mounting = _initial_mounting(intrinsics, values)
    if not np.isfinite(_residuals_px(intrinsics, values, mounting)).all():
        raise _no_fit("no upright pose that sees all of them")
    mounting, jacobian, residuals = _levenberg_marquardt(intrinsics, values, mounting)
    errors_px = np.linalg.norm(residuals.reshape(-1, 2), axis=1)
    rms_px = math.sqrt(float(np.mean(errors_px**2)))
    if rms_px > _MAX_RMS * intrinsics.width_px:
        limit_px = _MAX_RMS * intrinsics.width_px
        raise _no_fit(f"a reprojection error of {rms_px:.1f} px, expected at most {limit_px:.0f}")
    variance = float(np.sum(residuals**2)) / (residuals.size - mounting.size)
    height_std_m, pitch_std_deg, yaw_std_deg = np.sqrt(
        variance * np.diag(np.linalg.inv(jacobian.T @ jacobian))
    ).tolist()
    return MountingFit(
        camera=_mounted(intrinsics, mounting),
        errors_px=errors_px.astype(np.float32),
        rms_px=rms_px,
        height_std_m=height_std_m,
        pitch_std_deg=pitch_std_deg,
        yaw_std_deg=yaw_std_deg,
    )


def look_towards(intrinsics: Camera, x_px: float, y_px: float) -> Camera:
    """Set pitch and yaw so that the road vanishes at a point of the image without lens distortion.

    Args:
        intrinsics: A camera whose pitch and yaw are ignored.
        x_px: Column in which lines along the ego's heading meet.
        y_px: Row of the horizon.
    """
    pitch = math.atan((intrinsics.cy_px - y_px) / intrinsics.fy_px)
    yaw = math.atan((intrinsics.cx_px - x_px) / intrinsics.fx_px * math.cos(pitch))
    return replace(intrinsics, pitch_deg=math.degrees(pitch), yaw_deg=math.degrees(yaw))


def _check_references(values: Float64Array) -> None:
    if len(values) < MIN_POINTS:
        raise CameraError(f"got {len(values)} points, expected {MIN_POINTS} or more; give more of --point")
    if not np.isfinite(values).all():
        raise CameraError("got a point with nan or inf, expected metres and pixels; give finite numbers to --point")
    for points, what in ((values[:, :2], "on the road"), (values[:, 2:], "in the image")):
        if len(np.unique(points, axis=0)) < MIN_POINTS:
            raise CameraError(f"got the same point {what} twice, expected {MIN_POINTS} different ones; check --point")
    road_m = values[:, :2] - values[:, :2].mean(axis=0)
    spread_m = float(np.linalg.svd(road_m, compute_uv=False)[-1]) / math.sqrt(len(values))
    if spread_m < _MIN_SPREAD_M:
        raise CameraError(
            f"the points lie on a line: {spread_m:.2f} m of spread across it, expected {_MIN_SPREAD_M} m or more; "
            "choose the corners of a rectangle on the road"
        )


def _initial_mounting(intrinsics: Camera, values: Float64Array) -> Float64Array:
    """Height, pitch and yaw of the best free pose, FP64 [3]."""
    in_plane = np.column_stack([values[:, 1], values[:, 0], np.zeros(len(values))])
    ideal_px = intrinsics.undistorted(values[:, 2:].astype(np.float32)).astype(np.float64)
    if not np.isfinite(ideal_px).all():
        raise CameraError("a point lies where the lens model has no inverse; expected points well inside the image")
    focal_px = (intrinsics.fx_px, intrinsics.fy_px)
    rays = (ideal_px - (intrinsics.cx_px, intrinsics.cy_px)) / focal_px
    found, rotation_vector, translation = cv2.solvePnP(in_plane, rays, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE)
    if not found:
        raise _no_fit("no pose that sees all of them")
    rotation, _ = cv2.Rodrigues(rotation_vector)
    height_m = -float(rotation[:, 2] @ translation[:, 0])
    if height_m <= 0:
        raise CameraError(
            f"the points are seen from below the road (height {height_m:.2f} m), expected a camera above it; check the "
            "order (forward, then lateral, positive to the right) and that y counts downwards"
        )
    right, ahead, up = rotation[2]
    return np.array([height_m, math.degrees(math.asin(-up)), math.degrees(math.atan2(right, ahead))])


def _levenberg_marquardt(
    intrinsics: Camera, values: Float64Array, mounting: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """The mounting [3] with the least residuals [2n], and the derivatives [2n, 3] of the residuals."""
    damping, residuals = _INITIAL_DAMPING, _residuals_px(intrinsics, values, mounting)
    jacobian = _jacobian(intrinsics, values, mounting)
    for _ in range(_ITERATIONS):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ residuals)
        tried = _residuals_px(intrinsics, values, mounting + step)
        # A step that puts a point out of sight gives NaN, and the comparison is false.
        if np.sum(tried**2) < np.sum(residuals**2):
            mounting, residuals, damping = mounting + step, tried, damping / 10
            jacobian = _jacobian(intrinsics, values, mounting)
        else:
            damping *= 10
        if np.abs(step).max() < _CONVERGED:
            break
    return mounting, jacobian, residuals


def _residuals_px(intrinsics: Camera, values: Float64Array, mounting: Float64Array) -> Float64Array:
    """Projected minus given image points, FP64 [2n]."""
    camera = _mounted(intrinsics, mounting)
    seen = [camera.image_point(forward_m, lateral_m) for forward_m, lateral_m in values[:, :2]]
    points_px = np.array([(math.nan, math.nan) if point is None else point for point in seen])
    residuals: Float64Array = (points_px - values[:, 2:]).ravel()
    return residuals


def _jacobian(intrinsics: Camera, values: Float64Array, mounting: Float64Array) -> Float64Array:
    """Derivatives of the residuals by height, pitch and yaw, FP64 [2n, 3], by central differences."""
    columns = [
        _residuals_px(intrinsics, values, mounting + step) - _residuals_px(intrinsics, values, mounting - step)
        for step in np.eye(3) * _STEP
    ]
    return np.column_stack(columns) / (2 * _STEP)


def _mounted(intrinsics: Camera, mounting: Float64Array) -> Camera:
    height_m, pitch_deg, yaw_deg = mounting.tolist()
    return replace(intrinsics, height_m=height_m, pitch_deg=pitch_deg, yaw_deg=yaw_deg)


def _no_fit(got: str) -> CameraError:
    return CameraError(
        f"the points fit no camera: got {got}; check the field of view and the metres (forward, then lateral, positive "
        "to the right) and pixels of each --point"
    )
