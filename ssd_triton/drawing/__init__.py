"""Pictures of detections and decisions.

Every function takes UINT8 [H, W, 3] RGB images, leaves them as they are and returns a new one.
"""

from ssd_triton.drawing.detections import draw_detections
from ssd_triton.drawing.scene import Scene, scene_size_px

__all__ = ["Scene", "draw_detections", "scene_size_px"]
