"""Calibration of a camera by three methods, and the camera file with its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_triton.common.arrays import FloatArray, UInt8Array
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.common.progress import progress
from ssd_triton.driving.camera.calibration_picture import draw_metre_grid, draw_segments
from ssd_triton.driving.camera.file import save_camera
from ssd_triton.driving.camera.model import Camera, CameraError
from ssd_triton.driving.camera.mounting import RoadReference, fit_mounting, look_towards
from ssd_triton.driving.camera.vanishing_point import find_segments, find_vanishing_point
from ssd_triton.media.video import VideoSource

CAMERA_SUFFIXES = (".yml", ".yaml")


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated camera.

    Attributes:
        camera: Intrinsics and mounting.
        notes: Method and accuracy, a line each.
        image_rgb: UINT8 [H, W, 3], RGB: a frame for the picture of the calibration.
        segments_px: FP32 [n, 4], the lane segments used from that frame, without lens distortion.
    """

    camera: Camera
    notes: tuple[str, ...]
    image_rgb: UInt8Array
    segments_px: FloatArray


def calibrate_from_points(
    intrinsics: Camera, references: Sequence[RoadReference], image_rgb: UInt8Array
) -> Calibration:
    """Calibrate height, pitch and yaw from four or more road points at known positions.

    Raises:
        CameraError: The points are too few, collinear, or fit no camera above the road.
    """
    fit = fit_mounting(intrinsics, references)
    notes = [
        f"method: {len(references)} road points, reprojection error {fit.rms_px:.2f} px RMS",
        f"standard deviations: height {fit.height_std_m:.3f} m, pitch {fit.pitch_std_deg:.2f} deg, "
        f"yaw {fit.yaw_std_deg:.2f} deg",
    ]
    notes += [
        f"point {point.forward_m:g} m ahead, {point.lateral_m:g} m to the right, at ({point.x_px:g}, {point.y_px:g}): "
        f"error {error_px:.2f} px"
        for point, error_px in zip(references, fit.errors_px.tolist(), strict=True)
    ]
    return _calibration(fit.camera, notes, image_rgb)


def calibrate_from_horizon(
    intrinsics: Camera, horizon_y_px: float, vanishing_x_px: float | None, image_rgb: UInt8Array
) -> Calibration:
    """Calibrate pitch from the horizon's row, and yaw from the column in which lane lines meet.

    Args:
        intrinsics: A camera of known height; its pitch and yaw are ignored.
        horizon_y_px: Row of the horizon in the image, including lens distortion.
        vanishing_x_px: Column; None leaves the yaw at 0.
        image_rgb: UINT8 [H, W, 3], RGB.

    Raises:
        CameraError: The lens model has no inverse there.
    """
    seen_x_px = intrinsics.cx_px if vanishing_x_px is None else vanishing_x_px
    x_px, y_px = intrinsics.undistorted(np.array([[seen_x_px, horizon_y_px]], np.float32))[0].tolist()
    if math.isnan(x_px):
        raise CameraError(
            f"the lens model has no inverse at ({seen_x_px:g}, {horizon_y_px:g}), expected a point inside the image; "
            "check the horizon and the distortion"
        )
    camera = look_towards(intrinsics, intrinsics.cx_px if vanishing_x_px is None else x_px, y_px)
    column = "straight ahead" if vanishing_x_px is None else f"vanishing point in column {vanishing_x_px:g}"
    return _calibration(camera, [f"method: horizon in row {horizon_y_px:g}, {column}; height as given"], image_rgb)


def calibrate_from_clip(intrinsics: Camera, source: VideoSource, max_frames: int) -> Calibration:
    """Calibrate pitch and yaw from the vanishing point of the lane lines in a clip of a straight road.

    Args:
        intrinsics: A camera of known height; its pitch and yaw are ignored.
        source: An open source.
        max_frames: Number of frames to use, 3 or more; evenly spaced if the source states its length.

    Raises:
        CameraError: No lane lines were found.
        VideoError: The source cannot be read.
    """
    images_rgb = _spread_frames(source, max_frames)
    segments = [
        find_segments(image_rgb, intrinsics)
        for image_rgb in progress(images_rgb, total=len(images_rgb), description="lane lines", unit="frames")
    ]
    found = find_vanishing_point(segments, source.size_px)
    camera = look_towards(intrinsics, *found.point)
    upper = look_towards(intrinsics, found.point.x_px + found.std_px[0], found.point.y_px + found.std_px[1])
    notes = [
        f"method: vanishing point of lane lines in {source.name}; height as given",
        f"vanishing point ({found.point.x_px:.1f} +- {found.std_px[0]:.1f}, {found.point.y_px:.1f} +- "
        f"{found.std_px[1]:.1f}) px without lens distortion, lines on both sides in {found.supporting_frames} of "
        f"{found.frames} frames",
        f"standard deviations: pitch {abs(upper.pitch_deg - camera.pitch_deg):.2f} deg, yaw "
        f"{abs(upper.yaw_deg - camera.yaw_deg):.2f} deg; a bend, a slope or a wrong field of view adds to them",
    ]
    counts = np.bincount(found.frame_indices, minlength=len(images_rgb))
    shown = int(counts.argmax())
    return _calibration(camera, notes, images_rgb[shown], found.segments_px[found.frame_indices == shown])


def write_calibration(calibration: Calibration, path: Path, corridor_half_width_m: float) -> Path:
    """Write the camera file, and beside it a picture (``.png``) of the road with a metre grid.

    Returns:
        The picture's path.

    Raises:
        CameraError: The path is not that of a YAML file, or the mounting is out of range.
    """
    check_output(path)
    camera = calibration.camera
    title = (
        f"height {camera.height_m:.2f} m, pitch {camera.pitch_deg:.2f}°, yaw {camera.yaw_deg:.2f}°; lines across every "
        "5 m, along every 1.75 m"
    )
    picture = draw_segments(calibration.image_rgb, camera, calibration.segments_px)
    picture = draw_metre_grid(picture, camera, corridor_half_width_m, title=title)
    save_camera(camera, path, calibration.notes)
    picture_path = path.with_suffix(".png")
    with atomic_output(picture_path) as temporary:
        Image.fromarray(picture).save(temporary)
    return picture_path


def check_output(path: Path) -> None:
    """Refuse a path that does not name a YAML file.

    Raises:
        CameraError: The suffix is another one.
    """
    if path.suffix not in CAMERA_SUFFIXES:
        raise CameraError(f"got {relative_to_cwd(path)}, expected a file {' or '.join(CAMERA_SUFFIXES)}; give --output")


def frame_at(source: VideoSource, time_s: float) -> UInt8Array:
    """The first frame at or after a time, UINT8 [H, W, 3], RGB.

    Raises:
        CameraError: The source ends before that time.
        VideoError: The source cannot be read.
    """
    end_s = 0.0
    for frame in source:
        if frame.time_s >= time_s:
            return frame.image_rgb
        end_s = frame.time_s
    raise CameraError(f"{source.name}: got --at-s {time_s:g}, expected at most {end_s:.2f}, where the clip ends")


def _calibration(
    camera: Camera, notes: Sequence[str], image_rgb: UInt8Array, segments_px: FloatArray | None = None
) -> Calibration:
    dated = (*notes, f"date: {datetime.now(timezone.utc):%Y-%m-%d}")
    return Calibration(camera, dated, image_rgb, np.zeros((0, 4), np.float32) if segments_px is None else segments_px)


def _spread_frames(source: VideoSource, max_frames: int) -> list[UInt8Array]:
    """Frames of a source, evenly spaced if it states its length, otherwise the first ones."""
    step = max(1, math.ceil((source.frame_count or 0) / max_frames))
    images_rgb: list[UInt8Array] = []
    for frame in source:
        if frame.index % step == 0:
            images_rgb.append(frame.image_rgb)
        if len(images_rgb) == max_frames:
            break
    return images_rgb
