"""Cameras that the tests share: level, and with the distortion of real lenses."""

from __future__ import annotations

import pytest

from ssd_triton.driving.camera import Camera

LEVEL = Camera.from_fov((1000, 600), horizontal_fov_deg=90, height_m=1.25)
"""Its focal length is 500 px and its horizon row 300."""

BARREL = (-0.3, 0.1, 0.001, -0.001)
"""Lens distortion as a cheap wide-angle lens has it: 13 % at the corners of 1280x720 pixels and 60°."""
PINCUSHION = (0.15, -0.02, -0.0005, 0.001, 0.003)
LENSES = pytest.mark.parametrize("distortion", [(), BARREL, PINCUSHION], ids=["pinhole", "barrel", "pincushion"])
