"""Cameras of the KITTI data set (Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssd_triton.common.files import relative_to_cwd
from ssd_triton.driving.camera.model import Camera, CameraError

KITTI_HEIGHT_M = 1.65
"""Height of the cameras above the road: the sensor set-up in the paper."""

_PROJECTION_SHAPE = (3, 4)


def load_kitti_camera(path: Path, size_px: tuple[int, int], camera: str = "00") -> Camera:
    """Load the camera of rectified KITTI images, assumed level and straight ahead; rectified images have no distortion.

    Args:
        path: A calibration file with lines of ``NAME: numbers``, such as ``calib_cam_to_cam.txt``.
        size_px: Width and height of the images.
        camera: Number of the camera; ``P_rect_NN`` is its projection matrix, [3, 4] by rows.

    Raises:
        CameraError: The file cannot be read or does not hold that matrix.
    """
    key, name = f"P_rect_{camera}", relative_to_cwd(path)
    try:
        rows = dict(row.split(":", 1) for row in path.read_text(encoding="utf-8").splitlines() if ":" in row)
        projection = np.array(rows[key].split(), np.float64).reshape(_PROJECTION_SHAPE)
    except OSError as error:
        raise CameraError(f"cannot read {name} ({error}); give a calibration file of KITTI") from error
    except (KeyError, ValueError) as error:
        raise CameraError(f"{name}: expected a line {key} of 12 numbers; give a calibration file of KITTI") from error
    width_px, height_px = size_px
    return Camera(
        width_px,
        height_px,
        fx_px=float(projection[0, 0]),
        fy_px=float(projection[1, 1]),
        # The first pixel's centre is at (0, 0) there.
        cx_px=float(projection[0, 2]) + 0.5,
        cy_px=float(projection[1, 2]) + 0.5,
        height_m=KITTI_HEIGHT_M,
    )
