"""Tests of what serves the detector, without a running server."""
