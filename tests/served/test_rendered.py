"""What a detector finds in rendered traffic, through the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssd_triton.config import Config
from ssd_triton.driving.camera import Camera
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.simulation import find_scenario
from ssd_triton.simulation.clip import render_clip
from tests.conftest import assert_one_line_error


def test_a_clip_through_the_server(
    server: EmbeddedServer,
    config: Config,
    labels: tuple[str, ...],
    run_script: Callable[..., Any],
    tmp_path: Path,
) -> None:
    scenario = replace(find_scenario("ccrm-50"), duration_s=0.3)
    camera = Camera.from_fov((640, 360), horizontal_fov_deg=60, height_m=1.3)
    clip, truth = tmp_path / "clip.mp4", tmp_path / "clip.json"
    render_clip(scenario, clip, camera, config, labels, fps=10, annotations=truth)
    options = ("--url", server.url("grpc"), "--output", tmp_path / "out", "--relevant-range-m", 90)
    result = run_script("tools/evaluate_rendered.py", clip, truth, *options)
    assert result.returncode == 0, result.stderr
    assert "3 images" in result.stdout
    figures = json.loads((tmp_path / "out" / "recall.json").read_text())
    assert figures["relevant"]["vehicle"]["targets"] == 3
    assert 0 <= figures["relevant"]["vehicle"]["found"] <= 3
    assert set(figures["false_boxes_per_frame"]) == {"vehicle", "person", "two-wheeler", "other"}
    for name in ("recall.md", "recall.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    content = json.loads(truth.read_text())
    content["images"].append({"id": 99, "file_name": "000099.jpg"})
    truth.write_text(json.dumps(content))
    assert_one_line_error(
        run_script("tools/evaluate_rendered.py", clip, truth, *options), "has 3 frames", "expected the 4"
    )
