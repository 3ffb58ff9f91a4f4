"""The Triton model repository: its configurations, and the artefacts that they name."""
