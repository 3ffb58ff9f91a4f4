"""Tests of the project, most of them against a real Triton server."""
