"""Names of the models that the tools know by name."""

DETECTOR = "ssd_detector"
PREPROCESS = "ssd_preprocess"
PREPROCESS_FRAMES = "ssd_preprocess_frames"
POSTPROCESS = "ssd_postprocess"
