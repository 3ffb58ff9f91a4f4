"""Tests of video, images and drawing primitives."""
