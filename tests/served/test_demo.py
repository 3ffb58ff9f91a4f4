"""The demo and video detection, run as a user runs them, on the real server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from ssd_triton.client.shared_memory import frame_regions
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.media.video import VideoWriter
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import children_of, group_members
from tests.driving.demo import FRAMES, TIMES_S, write_pan
from tests.interruptible import Interruptible
from tests.served.helpers import executed
from tests.served.serving import server_names, server_regions

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
LONG_FRAMES = 200


@pytest.fixture
def clip(tmp_path: Path, photograph_rgb: np.ndarray) -> Path:
    return write_pan(tmp_path / "clip.mp4", photograph_rgb)


def frame_times_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def read_events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "out.events.jsonl").read_text().splitlines()]


def wait_for_output(folder: Path, demo: subprocess.Popen[str]) -> None:
    """Until the output's temporary file is there, with its first frame."""
    deadline_s = time.monotonic() + 60
    while not list(folder.glob(".out*.mp4")):
        assert time.monotonic() < deadline_s
        assert demo.poll() is None
        time.sleep(0.1)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_demo_annotates_a_clip(
    run_script: RunScript, light_server: EmbeddedServer, clip: Path, tmp_path: Path, protocol: str
) -> None:
    url = light_server.url("grpc" if protocol == "grpc" else "http")
    result = run_script(
        "clients/brake_demo.py", "--video", clip, "--url", url, "--protocol", protocol, "--output", "out.mp4"
    )
    assert result.returncode == 0, result.stderr
    assert f"frames       {FRAMES} in" in result.stdout
    for line in ("events       out.events.jsonl", "timeline     out.timeline.png", "output       out.mp4"):
        assert line in result.stdout
    events = read_events(tmp_path)
    assert events[0]["state"] == "NO_DATA"
    assert events[0]["latency_s"] == 0.1
    assert (tmp_path / "out.timeline.png").stat().st_size > 10_000
    assert frame_times_s(tmp_path / "out.mp4") == pytest.approx(frame_times_s(clip), abs=1e-3)
    with av.open(str(tmp_path / "out.mp4")) as container:
        picture = next(container.decode(video=0))
    assert picture.height == 560
    assert picture.width > 480  # the road from above is beside the frame


def test_detect_on_a_video(run_script: RunScript, server: EmbeddedServer, clip: Path, tmp_path: Path) -> None:
    result = run_script("clients/detect.py", clip, "--url", server.url("grpc"), "--output", "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["out/clip.annotated.mp4", "out/detections.json"]
    frames = json.loads((tmp_path / "out/detections.json").read_text())
    assert [frame["frame"] for frame in frames] == list(range(FRAMES))
    assert all([found["class_name"] for found in frame["detections"]] == ["person"] for frame in frames)
    assert len(frame_times_s(tmp_path / "out/clip.annotated.mp4")) == FRAMES


def test_demo_serves_for_itself(run_script: RunScript, photograph_rgb: np.ndarray, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, (512, 600), 10) as writer:
        for time_s in TIMES_S[:2]:
            writer.write(photograph_rgb, time_s)
    result = run_script("clients/brake_demo.py", "--video", clip, "--serve", "--output", "out.mp4")
    assert result.returncode == 0, result.stderr
    assert len(frame_times_s(tmp_path / "out.mp4")) == 2


def test_demo_in_real_time_measures_its_latency(
    run_script: RunScript, light_server: EmbeddedServer, clip: Path, tmp_path: Path
) -> None:
    # The machine may be busy with other tests: an answer that comes late is none.
    options = ("--set", "demo.max_age_s=20", "--video", clip, "--url", light_server.url("grpc"), "--real-time")
    result = run_script("clients/brake_demo.py", *options, "--output", "out.mp4")
    assert result.returncode == 0, result.stderr
    assert "from camera to decision" in result.stdout
    numbers = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    frames, dropped = int(numbers["frames"].split()[0]), int(numbers["dropped"])
    assert frames + dropped == FRAMES
    assert len(frame_times_s(tmp_path / "out.mp4")) == frames
    assert all(event["latency_is_measured"] for event in read_events(tmp_path))


def write_long_clip(path: Path, photograph_rgb: np.ndarray) -> None:
    """So long that it can be disturbed: 20 s."""
    small = np.ascontiguousarray(photograph_rgb[::2, ::2])
    with VideoWriter(path, (256, 300), 10) as writer:
        for index in range(LONG_FRAMES):
            writer.write(small, 0.1 * index)


def test_a_server_that_dies_ends_the_demo_with_one_line(
    config: Config, light_repository: Path, photograph_rgb: np.ndarray, tmp_path: Path
) -> None:
    write_long_clip(tmp_path / "long.mp4", photograph_rgb)
    ports = config.server.for_one_run()
    with EmbeddedServer(light_repository, "onnx_fp32", ports) as doomed:
        settings = ["--set", "demo.server_deadline_s=1", "--video", "long.mp4"]
        command = [sys.executable, str(ROOT / "clients/brake_demo.py"), *settings]
        demo = subprocess.Popen(
            [*command, "--url", doomed.url("grpc"), "--output", "out.mp4"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for_output(tmp_path, demo)
        while executed(doomed, "ssd_detector") < 10:
            assert demo.poll() is None
            time.sleep(0.02)
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 1, errors
    assert "Traceback" not in errors
    assert "error: no answer for" in errors.strip().splitlines()[-1]
    assert "unanswered   0" not in output
    last = read_events(tmp_path)[-1]
    assert last["state"] != "SAFE"  # a WARN from before is held for a while
    assert str(last["reason"]).endswith("no detections for this frame")
    assert 0 < len(frame_times_s(tmp_path / "out.mp4")) < LONG_FRAMES


def test_ctrl_c_leaves_a_playable_file_and_no_server(tmp_path: Path, own_tmp: Path, photograph_rgb: np.ndarray) -> None:
    write_long_clip(tmp_path / "long.mp4", photograph_rgb)
    command = [
        sys.executable,
        str(ROOT / "clients/brake_demo.py"),
        "--video",
        "long.mp4",
        "--serve",
        "--in-flight",
        "2",
        "--output",
        "out.mp4",
    ]
    with Interruptible(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        wait_for_output(tmp_path, demo)
        [server_pid], names = children_of(demo.pid), server_names(own_tmp)
        time.sleep(0.5)
        demo.send_signal(signal.SIGINT)
        output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "interrupted" in output
    assert "Traceback" not in errors
    assert 0 < len(frame_times_s(tmp_path / "out.mp4")) < LONG_FRAMES
    written = ["long.mp4", "out.events.jsonl", "out.mp4", "out.timeline.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    assert read_events(tmp_path)[0]["state"] == "NO_DATA"
    assert len(names) == 1
    assert server_regions(names) == frame_regions(demo.pid) == []
    assert group_members(server_pid) == []
