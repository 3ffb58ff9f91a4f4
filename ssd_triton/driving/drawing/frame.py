"""A frame of the braking demonstration: the camera's image with overlays, beside the bird's-eye view."""

from __future__ import annotations

import cv2
import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.config import BrakingConfig
from ssd_triton.driving.braking.decision import FrameDecision
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.drawing.banner import banner_height_px, draw_banner
from ssd_triton.driving.drawing.birdseye import BirdsEyeView, panel_width_px
from ssd_triton.driving.drawing.corridor import draw_corridor
from ssd_triton.driving.drawing.notices import draw_notices
from ssd_triton.driving.drawing.objects import draw_objects, draw_others
from ssd_triton.driving.drawing.status_bar import RunStatus, draw_status, status_height_px
from ssd_triton.driving.drawing.trigger_ranges import trigger_ranges
from ssd_triton.media.drawing.canvas import PAPER, Rectangle, put_text, text_size_px

_DIMMED = 0.4
"""Brightness of an image without data."""


def frame_size_px(image_size_px: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a composed frame for a camera's image of a size."""
    width_px, height_px = image_size_px
    return width_px + panel_width_px(height_px), height_px


class FrameComposer:
    """Composes the frames of one video, in order of time.

    Args:
        camera: For images of the size of the frames; may be set at any time, as its calibration becomes better.
        braking: For the trigger ranges of WARN and BRAKE.
        range_m: Range of the bird's-eye view.
    """

    def __init__(self, camera: Camera, braking: BrakingConfig, range_m: float) -> None:
        self.camera = camera
        self._braking = braking
        self._birds_eye = BirdsEyeView(camera.height_px, range_m)

    def compose(
        self, image_rgb: UInt8Array, detections: Detections | None, decision: FrameDecision, status: RunStatus
    ) -> UInt8Array:
        """Draw one frame.

        Args:
            image_rgb: UINT8 [H, W, 3], RGB, of the camera's size; the previous image for a frame that could not be
                decoded.
            detections: Detections of the frame; None (no data) dims the image.
            decision: The decision on the frame.
            status: The figures of the run.

        Returns:
            UINT8 [H, W + panel, 3], RGB; the panel is on the right.
        """
        height, width = image_rgb.shape[:2]
        picture = np.empty((height, width + panel_width_px(height), 3), np.uint8)
        view, panel = picture[:, :width], picture[:, width:]
        ranges = trigger_ranges(decision, self._braking)
        kept_free = []
        if detections is None:
            view[:] = cv2.convertScaleAbs(image_rgb, alpha=_DIMMED)
        else:
            view[:] = image_rgb
            kept_free = draw_corridor(view, self.camera, decision, ranges)
            draw_others(view, detections, decision)
        kept_free += draw_notices(view, status.notices)
        lowest = height - status_height_px((width, height), status)
        draw_objects(view, decision, Rectangle(0, banner_height_px(height), width, lowest), kept_free)
        draw_status(view, status)
        if detections is None:
            size_px = 2 * text_size_px(height)
            put_text(view, (width / 2, height / 2), "no data for this frame", size_px, PAPER, align="centre", bold=True)
        draw_banner(view, decision.state, decision.reason)
        self._birds_eye.draw(panel, decision, ranges)
        return picture
