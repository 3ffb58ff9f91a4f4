"""Tests of cameras, tracking, braking and the demo."""
