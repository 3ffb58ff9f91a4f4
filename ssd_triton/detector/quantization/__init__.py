"""INT8: calibration on training images, and the quantised graph."""
