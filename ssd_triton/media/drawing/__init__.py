"""Draws detections, text, lines and shapes into images, UINT8 [H, W, 3] RGB."""

from ssd_triton.media.drawing.detections import draw_detections

__all__ = ["draw_detections"]
