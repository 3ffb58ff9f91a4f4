"""INT8: calibration, ranges, and the quantised graph."""
