"""Tests of what needs a running server."""
