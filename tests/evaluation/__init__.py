"""Tests of evaluation of detections and of braking."""
