"""The camera: its model, its file, and its calibration."""

from ssd_triton.driving.camera.file import configured_camera, load_camera, save_camera
from ssd_triton.driving.camera.model import Camera, CameraError, ImagePoint, RoadPoint

__all__ = ["Camera", "CameraError", "ImagePoint", "RoadPoint", "configured_camera", "load_camera", "save_camera"]
