"""Names of the models that the tools know by name."""

DETECTOR = "ssd_detector"
PREPROCESS = "ssd_preprocess"
POSTPROCESS = "ssd_postprocess"
