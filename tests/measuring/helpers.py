"""A sweep as small as can be."""

from __future__ import annotations

SMALL = """
description: As small as can be.
target: cpu
variants: [onnx_fp32]
rounds: 1
window: {images: 1, requests_per_slot: 1, stability_percent: 100, max_trials: 40, timeout_s: 100}
loads: [{model: ssd, concurrency: [1]}]
"""
