"""Tests of the network, its weights, exports and engines."""
