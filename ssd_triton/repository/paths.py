"""Names of the models that the tools know by name."""

DETECTOR = "ssd_detector"
POSTPROCESS = "ssd_postprocess"
