"""The command that detects in images, run as a user runs it, on a real server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ssd_triton.client.results import results_path
from ssd_triton.common.files import ROOT
from tests.conftest import assert_one_line_error
from tests.interruptible import Interruptible
from tests.media.clips import read, write_clip
from tests.media.rtsp import rtsp_camera
from tests.media.web import web_server

if TYPE_CHECKING:
    from ssd_triton.common.result_format import ResultFormat
    from ssd_triton.serving.server import EmbeddedServer


DETECT = [sys.executable, str(ROOT / "clients/detect.py")]
HIDE = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def hide(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in ("PIL", "cv2", "av") else find(name, path, target)

PathFinder.find_spec = classmethod(hide)
"""
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_detect_images(
    run_script: RunScript, tmp_path: Path, light_server: EmbeddedServer, photograph: bytes, protocol: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/person.jpg").write_bytes(photograph)
    (tmp_path / "in/broken.jpg").write_bytes(photograph[:1000])
    (tmp_path / "in/notes.txt").write_text("not an image, and not looked at")
    url = light_server.url("grpc" if protocol == "grpc" else "http")
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
    run_script: RunScript, tmp_path: Path, light_server: EmbeddedServer, photograph: bytes
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(photograph)
    result = run_script("clients/detect.py", "a", "b", "--url", light_server.url("grpc"), "--output", "out")
    assert result.stdout.split() == ["out/1.annotated.jpg", "out/1.2.annotated.jpg", "out/detections.json"]


def test_detect_what_strangers_have(
    run_script: RunScript, tmp_path: Path, light_server: EmbeddedServer, photograph: bytes
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
    result = run_script("clients/detect.py", "in", "--url", light_server.url("grpc"), "--output", "out")
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


def test_detect_in_everything_at_once(
    tmp_path: Path, light_server: EmbeddedServer, photograph: bytes, photograph_rgb: np.ndarray
) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/1.jpg").write_bytes(photograph)
    (tmp_path / "in/broken.jpg").write_bytes(photograph[:1000])
    write_clip(tmp_path / "clip.mp4", [0.0, 0.1, 0.2], photograph_rgb)
    command = [*DETECT, "-", "in", "in/**/1.jpg", "clip.mp4", "nothing.mp4", "--recursive", "--format", "jsonl"]
    (tmp_path / "nothing.mp4").write_bytes(b"no video")
    result = subprocess.run(
        [*command, "--crops", "--classes", "car, person", "--url", light_server.url("grpc"), "--output", "out"],
        cwd=tmp_path,
        input=photograph,
        capture_output=True,
        timeout=120,
        check=False,
    )
    lines = result.stderr.decode().splitlines()
    assert result.returncode == 1, lines
    assert [re.sub(r"\d+ ms", "N ms", line) for line in lines if line.endswith(" ms")] == [
        "standard input: 1 person, N ms",
        "in/sub/1.jpg: 1 person, N ms",
        "in/sub/1.jpg: 1 person, N ms",
    ]
    assert any(re.fullmatch(r"clip.mp4: 3 frames: person in 3, [0-9.]+ frames/s", line) for line in lines)
    assert [line.split(": ")[1] for line in lines if line.startswith("refused")] == ["in/broken.jpg", "nothing.mp4"]
    records = [json.loads(line) for line in (tmp_path / "out/detections.jsonl").read_text().splitlines()]
    files = ["-", "in/broken.jpg", "in/sub/1.jpg", "in/sub/1.jpg", *["clip.mp4"] * 3, "nothing.mp4"]
    assert [record["file"] for record in records] == files
    assert [record.get("annotated") for record in records[:4]] == [
        "stdin.annotated.jpg",
        None,
        "sub/1.annotated.jpg",
        "1.annotated.jpg",
    ]
    crops = sorted(str(path.relative_to(tmp_path / "out/crops")) for path in (tmp_path / "out/crops").rglob("*.jpg"))
    frames = [f"person/clip_00000{frame}.1.jpg" for frame in range(3)]
    assert crops == ["person/1.1.jpg", *frames, "person/stdin.1.jpg", "person/sub/1.1.jpg"]
    left, top, right, bottom = records[0]["detections"][0]["box_xyxy"]
    with Image.open(tmp_path / "out/crops/person/stdin.1.jpg") as crop:
        assert abs(crop.width - (min(right, 512) - max(left, 0))) < 2
        assert abs(crop.height - (min(bottom, 600) - max(top, 0))) < 2
    assert len(read(tmp_path / "out/clip.annotated.mp4")) == 3


@pytest.mark.parametrize("kind", ["coco", "yolo", "csv"])
def test_detect_writes_data_sets_without_pictures(
    run_script: RunScript, tmp_path: Path, light_server: EmbeddedServer, photograph: bytes, kind: ResultFormat
) -> None:
    path = results_path(tmp_path / "out", kind)
    (tmp_path / "1.jpg").write_bytes(photograph)
    options = ("--no-pictures", "--format", kind, "--url", light_server.url("grpc"), "--output", "out")
    result = run_script("clients/detect.py", "1.jpg", *options)
    assert result.stdout.split() == [f"out/{path.name}"], result.stderr
    assert not list((tmp_path / "out").glob("*.jpg"))
    if kind == "coco":
        dataset = json.loads(path.read_text())
        assert [(one["width"], one["height"]) for one in dataset["images"]] == [(512, 600)]
        assert [one["category_id"] for one in dataset["annotations"]] == [1]
    elif kind == "yolo":
        assert (tmp_path / "out/labels/1.txt").read_text().startswith("0 0.")
    else:
        assert ",person," in path.read_text()


def test_ctrl_c_ends_a_stream_and_keeps_what_was_found(
    tmp_path: Path, light_server: EmbeddedServer, photograph_rgb: np.ndarray
) -> None:
    with rtsp_camera(photograph_rgb) as address:
        command = [*DETECT, address.replace("//", "//me:secret@"), "--url", light_server.url("grpc"), "--output", "out"]
        with Interruptible(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            deadline_s = time.monotonic() + 60
            while not list(tmp_path.glob("out/.live.annotated.*")) and time.monotonic() < deadline_s:
                time.sleep(0.1)
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stdout.split() == ["out/live.annotated.mp4", "out/detections.json"]
    frames = json.loads((tmp_path / "out/detections.json").read_text())
    assert len(frames) >= 3
    assert len(read(tmp_path / "out/live.annotated.mp4")) == len(frames)
    assert f"{address}: {len(frames)} frames: " in stderr
    assert "secret" not in stderr + json.dumps(frames)


def test_detect_with_a_clients_installation(tmp_path: Path, light_server: EmbeddedServer, photograph: bytes) -> None:
    """Without Pillow, OpenCV and PyAV, which imports are made to miss."""
    (tmp_path / "1.jpg").write_bytes(photograph)
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing/sitecustomize.py").write_text(HIDE)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}/missing:{os.environ.get('PYTHONPATH', '')}"}

    def detect(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*DETECT, *arguments, "--url", light_server.url("grpc"), "--output", "out"]
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(command, check=False, **options)  # type: ignore[call-overload, no-any-return]

    result = detect("1.jpg")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["out/detections.json"]
    assert result.stderr.splitlines()[0] == "no pictures: they need Pillow and OpenCV: pip install 'ssd-triton[video]'"
    assert len(result.stderr.splitlines()) == 2
    assert_one_line_error(detect("1.jpg", "--format", "coco"), "Pillow", "pip install 'ssd-triton[video]'")
    assert_one_line_error(detect("rtsp://127.0.0.1:9/live"), "pip install 'ssd-triton[video]'")


def test_detect_refuses_unknown_classes(run_script: RunScript) -> None:
    result = run_script("clients/detect.py", "1.jpg", "--classes", "car,preson")
    assert_one_line_error(result, "got the class 'preson'", "did you mean 'person'?")


def test_detect_in_an_image_of_the_web(
    run_main: RunScript, tmp_path: Path, light_server: EmbeddedServer, photograph: bytes
) -> None:
    with web_server({"/photo?id=7": photograph}) as address:
        options = (f"{address}/photo?id=7", "--url", light_server.url("grpc"), "--output", "out")
        result = run_main("clients/detect.py", *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["out/photo.annotated.jpg", "out/detections.json"]
    [found] = json.loads((tmp_path / "out/detections.json").read_text())
    assert found["file"] == f"{address}/photo?id=7"
    assert [one["class_name"] for one in found["detections"]] == ["person"]


def test_detect_refuses_other_addresses(run_main: RunScript, tmp_path: Path, light_server: EmbeddedServer) -> None:
    result = run_main("clients/detect.py", "s3://bucket/a.jpg", "--url", light_server.url("grpc"), "--output", "out")
    assert_one_line_error(result, "s3://bucket/a.jpg: an address of another kind", "http(s) or rtsp", "download it")
