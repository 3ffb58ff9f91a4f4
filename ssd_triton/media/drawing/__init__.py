"""Pictures of detections and decisions.

What is exported here leaves its images as they are and returns new ones; all images are UINT8 [H, W, 3], RGB.
"""

from ssd_triton.media.drawing.detections import draw_detections

__all__ = ["draw_detections"]
