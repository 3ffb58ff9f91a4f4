"""Judging of drives and detectors by the simulated ground truth."""
