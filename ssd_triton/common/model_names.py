"""Names of the models in the repository that the package refers to."""

ENSEMBLE = "ssd"
"""Encoded images in, detections out."""
DETECTOR = "ssd_detector"
PREPROCESS = "ssd_preprocess"
PREPROCESS_FRAMES = "ssd_preprocess_frames"
POSTPROCESS = "ssd_postprocess"
