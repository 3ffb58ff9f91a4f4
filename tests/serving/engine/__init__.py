"""Tests of the engine of the one process, without a GPU."""
