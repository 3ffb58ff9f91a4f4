"""A frame of the braking demonstration: the camera's image with its overlays, and the road from above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_triton.arrays import UInt8Array
from ssd_triton.braking.decision import Decision, RoadObject, zones
from ssd_triton.braking.geometry import GroundCamera
from ssd_triton.braking.timing import StageRate
from ssd_triton.config import BrakingConfig
from ssd_triton.detections import Detections
from ssd_triton.drawing.birdseye import BirdsEyeView, panel_width_px
from ssd_triton.drawing.detections import draw_detections
from ssd_triton.drawing.overlay import STATE_COLOURS, banner_height_px, draw_banner, draw_corridor, draw_stage_times


def scene_size_px(image_size_px: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a composed frame, for those of the camera's image."""
    width_px, height_px = image_size_px
    return width_px + panel_width_px(height_px), height_px


class Scene:
    """Composes the frames of one video; what is the same in all of them is drawn once.

    Args:
        camera: Of the size of the frames.
        settings: Speed, zones and corridor.
        labels: Class names by id, the background first.
    """

    def __init__(self, camera: GroundCamera, settings: BrakingConfig, labels: Sequence[str]) -> None:
        self._camera = camera
        self._settings = settings
        self._labels = labels
        self._zones = zones(settings)
        self._birds_eye = BirdsEyeView(
            camera.height_px,
            self._zones,
            corridor_half_width_m=settings.corridor_half_width_m,
            ego_speed_kmh=settings.ego_speed_kmh,
        )

    def compose(
        self,
        image_rgb: UInt8Array,
        detections: Detections,
        objects: Sequence[RoadObject],
        decision: Decision,
        rates: Sequence[StageRate],
    ) -> UInt8Array:
        """Draw one frame.

        Args:
            image_rgb: UINT8 [H, W, 3], RGB, of the camera's size.
            detections: What was detected in it.
            objects: Those of the detections that are on the road.
            decision: What follows from them.
            rates: How long the stages take.

        Returns:
            UINT8 [H, W + panel, 3], RGB; the panel is to the right.
        """
        notes = {item.index: f"{item.position.forward_m:.1f} m" for item in objects}
        obstacle = decision.obstacle
        highlights = {obstacle.index: STATE_COLOURS[decision.state]} if obstacle else {}
        view = draw_corridor(image_rgb, self._camera, decision, self._zones, self._settings.corridor_half_width_m)
        view = draw_detections(
            view,
            detections,
            self._labels,
            notes=notes,
            highlights=highlights,
            top_margin_px=banner_height_px(image_rgb.shape[0]),
        )
        view = draw_stage_times(view, rates)
        view = draw_banner(view, decision)
        return np.hstack([view, self._birds_eye.draw(objects, decision)])
