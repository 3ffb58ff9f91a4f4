"""The command that detects in images, run as a user runs it, on a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from ssd_triton.serving.server import EmbeddedServer


RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_detect_images(
    run_script: RunScript, tmp_path: Path, server: EmbeddedServer, photograph: bytes, protocol: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/person.jpg").write_bytes(photograph)
    (tmp_path / "in/broken.jpg").write_bytes(photograph[:1000])
    (tmp_path / "in/notes.txt").write_text("not an image, and not looked at")
    url = server.url("grpc" if protocol == "grpc" else "http")
    result = run_script("clients/detect.py", "in", "--url", url, "--protocol", protocol, "--output", "out")
    assert result.returncode == 1
    assert result.stdout.split() == ["out/person.annotated.jpg", "out/detections.json"]
    assert "refused: in/broken.jpg: batch element 0" in result.stderr
    assert "Traceback" not in result.stderr
    broken, person = json.loads((tmp_path / "out/detections.json").read_text())
    assert "damaged" in broken["error"]
    assert [found["class_name"] for found in person["detections"]] == ["person"]
    with Image.open(tmp_path / "out/person.annotated.jpg") as picture:
        assert picture.size == (512, 600)
        drawn = np.asarray(picture.convert("RGB")).astype(int)
    with Image.open(tmp_path / "in/person.jpg") as original:
        plain = np.asarray(original.convert("RGB")).astype(int)
    left = round(person["detections"][0]["box_xyxy"][0])
    assert np.abs(drawn - plain)[300, max(left - 4, 0) : left + 5].max() > 60


def test_detect_two_files_of_one_name(
    run_script: RunScript, tmp_path: Path, server: EmbeddedServer, photograph: bytes
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(photograph)
    result = run_script("clients/detect.py", "a", "b", "--url", server.url("grpc"), "--output", "out")
    assert result.stdout.split() == ["out/1.annotated.jpg", "out/1.2.annotated.jpg", "out/detections.json"]
