"""The command that detects in images, run as a user runs it, on a real server."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.conftest import assert_one_line_error

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


def test_detect_what_strangers_have(
    run_script: RunScript, tmp_path: Path, server: EmbeddedServer, photograph: bytes
) -> None:
    picture = Image.open(io.BytesIO(photograph)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.2.jpg", "a.jpg", "a.jfif"):
        picture.save(folder / name, "JPEG", quality=95, exif=exif)
    picture.save(folder / "a", "JPEG2000", irreversible=False)
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / "grey.png")
    for name in ("._a.jpg", "notes.txt"):
        (folder / name).write_bytes(bytes.fromhex("0005160700020000"))
    (folder / "z.jpg").symlink_to("nowhere")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photograph)
    result = run_script("clients/detect.py", "in", "--url", server.url("grpc"), "--output", "out")
    assert result.returncode == 0, result.stderr
    assert "3 of 9 entries are no images and were skipped" in result.stderr
    assert "caf\\xe9.annotated.jpg" in result.stdout
    found = {one["file"]: one for one in json.loads((tmp_path / "out/detections.json").read_text())}
    assert len({one["annotated"] for one in found.values()}) == 6
    assert found["in/a.jpg"]["detections"] == found["in/a.jfif"]["detections"] == found["in/a.2.jpg"]["detections"]
    for one in found.values():
        assert [box["class_name"] for box in one["detections"]] == ["person"]
        with Image.open(tmp_path / "out" / one["annotated"]) as drawn:
            assert drawn.size == picture.size
    with Image.open(tmp_path / "out/grey.annotated.jpg") as drawn:
        assert np.asarray(drawn).mean() < 200


def test_detect_refuses_addresses_of_images(run_script: RunScript, tmp_path: Path, server: EmbeddedServer) -> None:
    result = run_script("clients/detect.py", "s3://bucket/a.jpg", "--url", server.url("grpc"), "--output", "out")
    assert_one_line_error(result, "s3://bucket/a.jpg: an address of another kind", "http(s) or rtsp", "download it")
