"""The command of the demo: its flags, and what it refuses before a server is started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.commands.parser import parse_verb
from ssd_triton.commands.verbs import demo
from ssd_triton.common.errors import UserError, VideoError
from ssd_triton.driving.camera import Camera, save_camera
from ssd_triton.driving.demo.output import open_demo_source
from tests.conftest import assert_one_line_error
from tests.driving.demo import write_clip, write_pan

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def clip(tmp_path: Path, photograph_rgb: np.ndarray) -> Path:
    return write_pan(tmp_path / "clip.mp4", photograph_rgb)


@pytest.mark.parametrize(
    ("video", "words"),
    [("none.mp4", ["none.mp4"]), ("99", ["camera 99"]), ("text.mp4", ["text.mp4"]), ("folder", ["folder"])],
)
def test_demo_on_what_is_no_video(run_main: RunScript, tmp_path: Path, video: str, words: list[str]) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "folder").mkdir()
    assert_one_line_error(run_main("clients/brake_demo.py", "--serve", "--video", video), *words)


def test_demo_without_a_server(run_script: RunScript, clip: Path, tmp_path: Path) -> None:
    result = run_script("clients/brake_demo.py", "--video", clip, "--url", "127.0.0.1:9", "--output", "out.mp4")
    assert_one_line_error(result, "no Triton server answers at 127.0.0.1:9")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: would be overwritten"):
        open_demo_source(str(tmp_path / "clip.mp4"), output=tmp_path / "x" / ".." / "clip.mp4", image_folder_fps=10)


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        open_demo_source(str(tmp_path / "none.mp4"), output=tmp_path / "out.mp4", image_folder_fps=10)


@pytest.mark.parametrize(
    ("flags", "speeds_mps"),
    [
        ((), (50 / 3.6, 50 / 3.6)),
        (("--ego-speed-kmh", "36"), (10.0, 10.0)),
        (("--no-ego-speed",), (None, None)),
        (("--ego-speed-csv", "speed.csv"), (5.0, None)),
    ],
)
def test_the_speed_is_constant_recorded_or_unknown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    speeds_mps: tuple[float | None, float | None],
) -> None:
    (tmp_path / "speed.csv").write_text("time_s,speed_kmh\n0,36\n0.4,0\n")
    monkeypatch.chdir(tmp_path)
    _, args, config = parse_verb("demo", ["--video", "clip.mp4", *flags])
    ego = demo.ego_source(args, config)
    for time_s, speed_mps in zip((0.2, 9.0), speeds_mps, strict=True):
        assert ego.at(time_s).speed_mps == (None if speed_mps is None else pytest.approx(speed_mps))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--video", "missing.mp4"], 1, "error: missing.mp4: no such file"),
        (["--video", "clip.mp4", "--classes", "lorry"], 1, "error: braking.classes: got 'lorry'"),
        (["--video", "clip.mp4", "--camera", "none.yml"], 1, "error: cannot read none.yml"),
        (["--video", "clip.mp4", "--camera", "square.yml"], 1, "error: square.yml: got images of 320x180 pixels"),
        (["--video", "clip.mp4", "--ego-speed-csv", "none.csv"], 1, "error: cannot read none.csv"),
        (["--video", "clip.mp4", "--ego-speed-csv", "day.csv"], 1, "error: day.csv: got times from 45005 to 45006 s"),
        (["--video", "clip.mp4", "--ego-speed-csv", "epoch.csv"], 1, "error: epoch.csv: got epoch milliseconds"),
        (["--ego-speed-csv", "day.csv"], 1, "error: got --ego-speed-csv without --video"),
        (["--ego-speed-kmh", "36"], 1, "error: got --ego-speed-kmh without --video"),
        (["--video", "x" * 300], 1, "cannot be read (File name too long)"),
        (["--pitch-deg", "90"], 2, "error: argument --pitch-deg: input should be less than 45, got '90'"),
        (["--no-ego-speed", "--ego-speed-csv", "x"], 2, "not allowed with argument"),
    ],
)
def test_the_command_refuses_before_a_server_is_started(
    run_main: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    write_clip(tmp_path / "clip.mp4", [0.0])
    save_camera(Camera.from_fov((200, 200), 60, 1.3), tmp_path / "square.yml")
    (tmp_path / "day.csv").write_text("time_s,speed_kmh\n45005,50\n45006,50\n")
    (tmp_path / "epoch.csv").write_text("time_s,speed_kmh\n1714566605000,50\n1714566605100,50\n")
    done = run_main("clients/brake_demo.py", "--serve", *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "starting tritonserver" not in done.stderr
    if code == 1:
        assert len(done.stderr.splitlines()) == 1
