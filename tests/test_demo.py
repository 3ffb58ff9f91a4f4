"""The demo and video detection, run as a user runs them, on the real server; and what is found on real drives."""

from __future__ import annotations

import csv
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

from ssd_triton.client import DetectorClient
from ssd_triton.client.ahead import submit_ahead
from ssd_triton.detections import Detections
from ssd_triton.files import ROOT
from ssd_triton.server import EmbeddedServer
from ssd_triton.video import VideoWriter, open_source
from tests.conftest import assert_one_line_error, children_of, group_members

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]
TIMES_S = (0.0, 0.1, 0.2, 0.35, 0.45, 0.6)
FRAMES = len(TIMES_S)


@pytest.fixture
def clip(tmp_path: Path, photograph_rgb: np.ndarray) -> Path:
    """A short clip that pans over the photograph, with uneven frame times."""
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, (480, 560), 10) as writer:
        for index in range(FRAMES):
            writer.write(
                np.ascontiguousarray(photograph_rgb[2 * index : 560 + 2 * index, :480]),
                0.1 * index + 0.05 * (index > 2),
            )
    return path


def frame_times_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_demo_annotates_a_clip(
    run_script: RunScript, server: EmbeddedServer, clip: Path, tmp_path: Path, protocol: str
) -> None:
    url = server.url("grpc" if protocol == "grpc" else "http")
    result = run_script(
        "clients/brake_demo.py", "--video", clip, "--url", url, "--protocol", protocol, "--output", "out.mp4"
    )
    assert result.returncode == 0, result.stderr
    assert f"frames       {FRAMES} in" in result.stdout
    assert "output       out.mp4" in result.stdout
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


def test_demo_serves_for_itself(run_script: RunScript, clip: Path, tmp_path: Path) -> None:
    result = run_script("clients/brake_demo.py", "--video", clip, "--serve", "--output", "out.mp4")
    assert result.returncode == 0, result.stderr
    assert len(frame_times_s(tmp_path / "out.mp4")) == FRAMES


def test_demo_without_a_clip_says_which_to_give(run_script: RunScript) -> None:
    start_s = time.monotonic()
    assert_one_line_error(run_script("clients/brake_demo.py", "--serve"), "no clip given", "make demo VIDEO=")
    assert time.monotonic() - start_s < 10


@pytest.mark.parametrize(
    ("video", "words"),
    [("none.mp4", ["none.mp4"]), ("99", ["camera 99"]), ("text.mp4", ["text.mp4"]), ("folder", ["folder"])],
)
def test_demo_on_what_is_no_video(run_script: RunScript, tmp_path: Path, video: str, words: list[str]) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "folder").mkdir()
    assert_one_line_error(run_script("clients/brake_demo.py", "--serve", "--video", video), *words)


def test_demo_without_a_server(run_script: RunScript, clip: Path, tmp_path: Path) -> None:
    result = run_script("clients/brake_demo.py", "--video", clip, "--url", "127.0.0.1:9", "--timeout-s", 1)
    assert_one_line_error(result, "no Triton server answers at 127.0.0.1:9")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_ctrl_c_leaves_a_playable_file_and_no_server(tmp_path: Path, photograph_rgb: np.ndarray) -> None:
    with VideoWriter(tmp_path / "long.mp4", (512, 600), 10) as writer:
        for index in range(200):
            writer.write(photograph_rgb, 0.1 * index)
    regions = set(Path("/dev/shm").iterdir())
    command = [
        sys.executable,
        str(ROOT / "clients/brake_demo.py"),
        "--video",
        "long.mp4",
        "--serve",
        "--output",
        "out.mp4",
    ]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + 60
    while not list(tmp_path.glob(".out*")):  # the output's temporary name, from its first frame on
        assert time.monotonic() < deadline_s
        assert demo.poll() is None
        time.sleep(0.1)
    [server_pid] = children_of(demo.pid)
    time.sleep(2)
    demo.send_signal(signal.SIGINT)
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "interrupted" in output
    assert "Traceback" not in errors
    assert 0 < len(frame_times_s(tmp_path / "out.mp4")) < 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4", "out.mp4"]
    assert set(Path("/dev/shm").iterdir()) <= regions
    assert group_members(server_pid) == []


# --- real drives ------------------------------------------------------------------------------------------------------


def detections_of(client: DetectorClient, path: Path) -> list[Detections]:
    with open_source(str(path), image_folder_fps=10) as source:
        answers = submit_ahead(source, lambda frame: client.submit_frame(frame.image_rgb), client.in_flight)
        return [future.result().filter(score_thresh=0.5) for _, future in answers]


def test_both_cars_are_found_in_every_frame(
    grpc_detector: DetectorClient, data: Callable[[str], Path], labels: tuple[str, ...]
) -> None:
    frames = detections_of(grpc_detector, data("clips/udacity_vehicle_test_video.mp4"))
    assert len(frames) == 38
    for found in frames:
        assert [labels[class_id] for class_id in found.class_ids].count("car") == 2


def test_the_lead_car_is_found_where_the_lidar_sees_it(
    grpc_detector: DetectorClient, data: Callable[[str], Path], labels: tuple[str, ...]
) -> None:
    """A car's box must hold the lidar's point on the lead car, projected with the drive's own calibration."""
    folder = data("kitti_approach")
    points_px = lidar_points_px(folder)
    frames = detections_of(grpc_detector, folder / "images")
    assert len(frames) == len(points_px) == 78
    car = labels.index("car")
    hits = 0
    for found, (x_px, y_px) in zip(frames, points_px, strict=True):
        left, top, right, bottom = found.boxes_xyxy[found.class_ids == car].T
        # The lead car alone: its box is a few metres wide, not one that fills the picture.
        inside = (left < x_px) & (x_px < right) & (top < y_px) & (y_px < bottom) & (right - left < 400)
        hits += bool(inside.any())
    assert hits >= 76


def lidar_points_px(folder: Path) -> list[tuple[float, float]]:
    """The lead car's middle, as the lidar measures it, in pixels of each frame."""
    matrices: dict[str, np.ndarray] = {}
    for line in (folder / "calib.txt").read_text().splitlines():
        name, _, values = line.partition(":")
        if not name.startswith("#"):
            numbers = np.array(values.split(), np.float64)
            matrices[name] = numbers.reshape({16: (4, 4), 9: (3, 3), 12: (3, 4)}[len(numbers)])
    rectify = np.eye(4)
    rectify[:3, :3] = matrices["R_rect_00"]
    projection = matrices["P_rect_00"] @ rectify @ matrices["RT"]
    points = []
    with (folder / "lidar_truth.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            # Ahead, in the middle, a little above the rear bumper; the lidar is 1.73 m above the road.
            x, y, w = projection @ [float(row["median_x_m"]), 0.0, -0.9, 1.0]
            points.append((x / w, y / w))
    return points
