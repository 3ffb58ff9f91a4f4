"""Names of the models in the repository that the package refers to."""

DETECTOR = "ssd_detector"
PREPROCESS = "ssd_preprocess"
PREPROCESS_FRAMES = "ssd_preprocess_frames"
POSTPROCESS = "ssd_postprocess"
