"""Drawing of detections, and of text, lines and shapes in general. Images are UINT8 [H, W, 3], RGB."""

from ssd_triton.media.drawing.detections import draw_detections

__all__ = ["draw_detections"]
