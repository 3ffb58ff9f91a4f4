"""Measures servers and detectors under load, and writes reports."""
