"""A frame of the braking demonstration: the camera's image with its overlays, and the road from above."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import BrakingConfig, TrackingConfig
from ssd_triton.driving.braking.decision import FrameDecision
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.drawing.banner import banner_height_px, draw_banner
from ssd_triton.driving.drawing.birdseye import BirdsEyeView, panel_width_px
from ssd_triton.driving.drawing.corridor import draw_corridor
from ssd_triton.driving.drawing.objects import draw_objects, draw_others
from ssd_triton.driving.drawing.status_bar import RunStatus, draw_status, status_height_px
from ssd_triton.driving.drawing.trigger_ranges import trigger_ranges
from ssd_triton.media.drawing.canvas import PAPER, Rectangle, put_text, text_size_px

_DIMMED = 0.4
"""Brightness of an image of which nothing is known."""


def frame_size_px(image_size_px: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a composed frame, for those of the camera's image."""
    width_px, height_px = image_size_px
    return width_px + panel_width_px(height_px), height_px


class FrameComposer:
    """Composes the frames of one video, in order of time.

    Args:
        camera: Of the size of the frames.
        braking: For the ranges of WARN and BRAKE.
        tracking: For the detector's noise.
        range_m: How far the road is shown from above.
    """

    def __init__(self, camera: Camera, braking: BrakingConfig, tracking: TrackingConfig, range_m: float) -> None:
        self._camera = camera
        self._braking = braking
        # The middle of a box is the mean of two sides.
        bearing_std_rad = tracking.box_noise_px / math.sqrt(2) / camera.fx_px
        self._birds_eye = BirdsEyeView(camera.height_px, range_m, bearing_std_rad)

    def compose(
        self, image_rgb: UInt8Array, detections: Detections | None, decision: FrameDecision, status: RunStatus
    ) -> UInt8Array:
        """Draw one frame.

        Args:
            image_rgb: UINT8 [H, W, 3], RGB, of the camera's size; of a frame that could not be decoded, the one before.
            detections: What was detected in it; None without data, for which the image is dimmed.
            decision: What follows from them.
            status: The figures of the run.

        Returns:
            UINT8 [H, W + panel, 3], RGB; the panel is to the right.
        """
        height, width = image_rgb.shape[:2]
        picture = np.empty((height, width + panel_width_px(height), 3), np.uint8)
        view, panel = picture[:, :width], picture[:, width:]
        zones = trigger_ranges(decision, self._braking)
        if detections is None:
            view[:] = cv2.convertScaleAbs(image_rgb, alpha=_DIMMED)
        else:
            view[:] = image_rgb
            draw_corridor(view, self._camera, decision, zones)
            draw_others(view, detections, decision)
        lowest = height - status_height_px((width, height), status)
        draw_objects(view, decision, Rectangle(0, banner_height_px(height), width, lowest))
        draw_status(view, status)
        if detections is None:
            size_px = 2 * text_size_px(height)
            put_text(view, (width / 2, height / 2), "no data of this frame", size_px, PAPER, align="centre", bold=True)
        draw_banner(view, decision.state, decision.reason)
        self._birds_eye.draw(panel, decision, zones)
        return picture
