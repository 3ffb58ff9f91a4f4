"""Drives and detectors, judged by the simulated ground truth."""
