"""Shared by all other subpackages: errors, files, detections, processes, progress."""
