"""Names of the models in the repository that the package refers to."""

DETECTOR = "ssd_detector"
PREPROCESS = "ssd_preprocess"
POSTPROCESS = "ssd_postprocess"
