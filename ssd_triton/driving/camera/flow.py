"""Motion of the picture between two frames of a drive: whether the camera moves, and where it is heading.

Corners are tracked by Lucas and Kanade's method forwards and backwards (Shi and Tomasi, "Good Features to Track", CVPR
1994; Kalal et al., "Forward-Backward Error", ICPR 2010). The essential matrix of their paths (Nistér's five points in
RANSAC) separates the camera's turning from its motion; the motion points to the focus of expansion, which lies on the
horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ssd_triton.common.arrays import FloatArray, UInt8Array
from ssd_triton.driving.camera.model import Camera

_WIDTH_PX = 640
"""Larger pictures are scaled to this width."""
_STEP_S = 0.2
"""Time between the frames of a sample, and between samples."""
_RARE_STEP_S = 1.0
"""Time between samples where few are enough."""
_LEAST_MOVED = 0.3
"""Share of the picture that moves when the car does; other traffic moves less."""

_CORNERS, _QUALITY, _APART_PX = 200, 0.01, 8
_WINDOW = (15, 15)
_LEVELS = 3
"""Levels of the pyramid: paths of up to some 60 pixels."""
_LARGEST_RETURN_ERROR_PX = 0.5
"""A corner was lost if tracking it backwards ends farther from its start."""
_FEWEST = 30
"""With fewer tracked corners, the motion is unknown."""
_MOVED_PX = 0.5
"""Shorter paths are noise of compression and tracking."""
_INLIER_PX = 0.7
_CONFIDENCE = 0.999
_MOST_ASIDE = 0.6
"""Largest sideways part of the direction of motion (37°): a car drives ahead, so any other result is an error."""


@dataclass(frozen=True)
class PictureMotion:
    """The motion between two frames.

    Attributes:
        moved_share: Share of the tracked corners that moved; None where too few could be tracked.
        heading_deg: Pitch and yaw of the camera relative to its motion, as in
            :class:`~ssd_triton.driving.camera.Camera`; None where it cannot be determined.
    """

    moved_share: float | None
    heading_deg: tuple[float, float] | None

    @property
    def is_moving(self) -> bool | None:
        """Whether the car moves; None while unknown."""
        return None if self.moved_share is None else self.moved_share > _LEAST_MOVED


@dataclass(frozen=True, eq=False)
class Sample:
    """A downscaled frame of a drive, with the motion since a frame about 0.2 s earlier.

    Attributes:
        image_rgb: UINT8 [h, w, 3], RGB.
        motion: The motion.
    """

    image_rgb: UInt8Array
    motion: PictureMotion


class MotionSampler:
    """Takes samples from the frames of a drive; most frames are skipped.

    Args:
        camera: For images of the size of the frames; its mounting is ignored.

    Attributes:
        camera: The same camera, for images of the samples' size.
    """

    def __init__(self, camera: Camera) -> None:
        width_px = min(_WIDTH_PX, camera.width_px)
        height_px = max(round(camera.height_px * width_px / camera.width_px), 1)
        scale = width_px / camera.width_px
        # Rounding the height moves the middle by less than half a small pixel.
        self.camera = replace(
            camera,
            width_px=width_px,
            height_px=height_px,
            fx_px=camera.fx_px * scale,
            fy_px=camera.fy_px * scale,
            cx_px=camera.cx_px * scale,
            cy_px=camera.cy_px * scale,
            pitch_deg=0.0,
            yaw_deg=0.0,
        )
        self.restart()

    def restart(self) -> None:
        """Forget the last frame, as after a cut."""
        self._before: UInt8Array | None = None
        self._next_s = -math.inf

    def take(self, time_s: float, image_rgb: UInt8Array, *, rarely: bool) -> Sample | None:
        """Process a frame; returns a sample, or None where the frame is skipped.

        Args:
            time_s: Time of the frame; frames come in order of time.
            image_rgb: UINT8 [H, W, 3], RGB.
            rarely: Whether one sample a second is enough.
        """
        if time_s < self._next_s:
            return None
        size_px = (self.camera.width_px, self.camera.height_px)
        small_rgb = cv2.resize(image_rgb, size_px, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small_rgb, cv2.COLOR_RGB2GRAY)
        before, self._before = self._before, grey
        has_gap = time_s - self._next_s > _STEP_S
        self._next_s = time_s + _STEP_S
        if before is None or has_gap:
            return None
        if rarely:
            self._before, self._next_s = None, time_s + _RARE_STEP_S - _STEP_S
        return Sample(small_rgb, picture_motion(before, grey, self.camera))


def picture_motion(before: UInt8Array, after: UInt8Array, camera: Camera) -> PictureMotion:
    """Measure the motion between two frames.

    Args:
        before: UINT8 [H, W], grey, about 0.2 s before ``after``.
        after: UINT8 [H, W], grey.
        camera: For images of this size, without lens distortion; its mounting is ignored.
    """
    start_px, end_px = _tracked(before, after)
    if len(start_px) < _FEWEST:
        return PictureMotion(None, None)
    moved = np.linalg.norm(end_px - start_px, axis=1) > _MOVED_PX
    heading = _heading_deg(start_px, end_px, camera) if np.count_nonzero(moved) >= _FEWEST else None
    return PictureMotion(float(moved.mean()), heading)


def _tracked(before: UInt8Array, after: UInt8Array) -> tuple[FloatArray, FloatArray]:
    """Corners in both images, FP32 [n, 2] each."""
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, _QUALITY, _APART_PX)
    if corners is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=_WINDOW, maxLevel=_LEVELS)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, winSize=_WINDOW, maxLevel=_LEVELS)
    error_px = np.linalg.norm((back - corners)[:, 0], axis=1)
    kept = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (error_px < _LARGEST_RETURN_ERROR_PX)
    return corners[kept][:, 0], there[kept][:, 0]


def _heading_deg(start_px: FloatArray, end_px: FloatArray, camera: Camera) -> tuple[float, float] | None:
    matrix = np.array([[camera.fx_px, 0, camera.cx_px], [0, camera.fy_px, camera.cy_px], [0, 0, 1]])
    cv2.setRNGSeed(0)
    essential, inliers = cv2.findEssentialMat(start_px, end_px, matrix, cv2.RANSAC, _CONFIDENCE, _INLIER_PX)
    if essential is None or essential.shape != (3, 3):
        return None
    agreeing, rotation, shift, _ = cv2.recoverPose(essential, start_px, end_px, matrix, mask=inliers)
    right, down, ahead = (-rotation.T @ shift)[:, 0].tolist()
    if agreeing < _FEWEST or math.hypot(right, down) > _MOST_ASIDE or ahead <= 0:
        return None
    # The camera looks up by as much as its motion points down in the image.
    return -math.degrees(math.atan2(down, ahead)), -math.degrees(math.atan2(right, ahead))
