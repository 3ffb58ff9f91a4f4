"""A small network to quantise."""

from __future__ import annotations

OUTPUTS = (("loc", 4), ("conf", 3))
TENSORS = ["pixels", "stem_relu", "skip_out", "map"]
