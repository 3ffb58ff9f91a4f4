"""Geometry by hand-computed values, decisions by tables, and the loop of the demo."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.arrays import UInt8Array
from ssd_triton.braking import options
from ssd_triton.braking.decision import (
    RoadObject,
    State,
    decide,
    gate_class_ids,
    locate,
    zones,
)
from ssd_triton.braking.demo import DemoSettings, DemoSummary, open_demo_source, open_demo_writer, run_demo
from ssd_triton.braking.geometry import GroundCamera, RoadPoint
from ssd_triton.braking.timing import STAGES, StageTimes
from ssd_triton.config import BrakingConfig, Config, DemoConfig
from ssd_triton.detections import Detections
from ssd_triton.drawing.overlay import STATE_COLOURS
from ssd_triton.errors import ConfigError, UserError, VideoError
from ssd_triton.files import ROOT
from ssd_triton.video import VideoWriter, open_source

LEVEL = GroundCamera(width_px=1000, height_px=600, horizontal_fov_deg=90, height_m=1.25, pitch_deg=0)
"""Its focal length is 500 px and its horizon row 300."""

PERSON, CAR, TRAFFIC_LIGHT, TRUCK = 1, 3, 10, 8


def make_detections(*items: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    """Of class ids, scores and boxes."""
    return Detections(
        np.array([box for _, _, box in items], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in items], np.float32),
        np.array([class_id for class_id, _, _ in items], np.int32),
    )


# --- Geometry --------------------------------------------------------------------------------------------------------


def test_focal_length_and_horizon() -> None:
    assert LEVEL.focal_length_px == pytest.approx(500)
    assert LEVEL.horizon_y_px == 300
    # KITTI: 721.5 px at 1242 px width; its horizon is at the principal point's row, 172.85, and not in the middle.
    kitti = GroundCamera(1242, 375, math.degrees(2 * math.atan(1242 / 2 / 721.5)), 1.65, 1.1633)
    assert kitti.focal_length_px == pytest.approx(721.5)
    assert kitti.horizon_y_px == pytest.approx(172.85, abs=0.01)


@pytest.mark.parametrize(
    ("x_px", "y_px", "expected"),
    [
        # Range: 1.25 m · 500 px / rows below the horizon; to the side: columns / 500 px · range.
        (500, 350, (12.5, 0.0)),
        (540, 350, (12.5, 1.0)),
        (460, 350, (12.5, -1.0)),
        (500, 425, (5.0, 0.0)),
        (500, 600, (2.0833333, 0.0)),
        (500, 800, (1.25, 0.0)),
        (500, 301, (625.0, 0.0)),
        (500, 300, None),
        (500, 299, None),
        (500, 0, None),
    ],
)
def test_road_point_of_a_level_camera(x_px: float, y_px: float, expected: tuple[float, float] | None) -> None:
    point = LEVEL.road_point(x_px, y_px)
    assert point == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("pitch_deg", "y_px", "forward_m"),
    [
        # The axis meets the road at height / tan(pitch); 45° above it the ray is level.
        (30, 300, 1.25 / math.tan(math.radians(30))),
        (10, 300, 1.25 / math.tan(math.radians(10))),
        (30, 300 + 500 * math.tan(math.radians(15)), 1.25),
        (30, 300 - 500 * math.tan(math.radians(30)) - 0.01, None),
        (-10, 300, None),
        (-10, 300 + 500 * math.tan(math.radians(55)), 1.25),
    ],
)
def test_road_point_of_a_tilted_camera(pitch_deg: float, y_px: float, forward_m: float | None) -> None:
    point = GroundCamera(1000, 600, 90, 1.25, pitch_deg).road_point(500, y_px)
    assert (None if point is None else point.forward_m) == (None if forward_m is None else pytest.approx(forward_m))


@pytest.mark.parametrize("pitch_deg", [-5.0, 0.0, 1.16, 20.0])
@pytest.mark.parametrize("point", [(3.0, 0.0), (8.0, -2.5), (30.0, 4.0), (120.0, -0.1)])
def test_road_to_image_and_back(pitch_deg: float, point: tuple[float, float]) -> None:
    camera = GroundCamera(1242, 375, 81.4, 1.65, pitch_deg)
    image_point = camera.image_point(*point)
    assert image_point is not None
    assert image_point.y_px > camera.horizon_y_px
    assert camera.road_point(*image_point) == pytest.approx(point)


def test_a_point_behind_the_camera_is_not_in_the_image() -> None:
    assert LEVEL.image_point(-1.0, 0.0) is None
    assert LEVEL.image_point(0.0, 0.0) is None


def test_half_a_degree_of_pitch_turns_30_m_into_38_m() -> None:
    seen = GroundCamera(1000, 600, 90, 1.2, 0.0).image_point(30.0, 0.0)
    assert seen is not None
    believed = GroundCamera(1000, 600, 90, 1.2, -0.5).road_point(*seen)
    assert believed is not None
    assert believed.forward_m == pytest.approx(38.4, abs=0.1)


# --- Decision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "brake_m", "warn_m"),
    [
        # Speed, reaction, deceleration, lead.
        ((0, 1.0, 5.0, 0.8), 0.0, 0.0),
        ((36, 0.0, 5.0, 0.0), 10.0, 10.0),
        ((36, 1.0, 5.0, 0.8), 20.0, 28.0),
        ((50, 0.0, 5.0, 0.8), 19.29, 30.40),
        ((50, 1.0, 5.0, 0.8), 33.18, 44.29),
        ((72, 1.0, 10.0, 0.5), 40.0, 50.0),
    ],
)
def test_zones(config: Config, keys: tuple[float, ...], brake_m: float, warn_m: float) -> None:
    names = ("ego_speed_kmh", "reaction_time_s", "deceleration_mps2", "warning_lead_time_s")
    settings = config.braking.model_copy(update=dict(zip(names, keys, strict=True)))
    assert zones(settings).brake_m == pytest.approx(brake_m, abs=0.01)
    assert zones(settings).warn_m == pytest.approx(warn_m, abs=0.01)


@pytest.fixture
def braking(config: Config) -> BrakingConfig:
    """36 km/h: BRAKE up to 20 m, WARN up to 28 m."""
    return BrakingConfig(
        ego_speed_kmh=36,
        reaction_time_s=1,
        deceleration_mps2=5,
        warning_lead_time_s=0.8,
        corridor_half_width_m=1.25,
        classes=config.braking.classes,
    )


@pytest.mark.parametrize(
    ("objects", "state", "obstacle", "reason"),
    [
        ([], State.SAFE, None, "nothing in the corridor"),
        ([(5.0, False)], State.SAFE, None, "nothing in the corridor"),
        ([(28.1, True)], State.SAFE, 0, "car at 28.1 m: beyond the warning zone of 28.0 m"),
        ([(28.0, True)], State.WARN, 0, "car at 28.0 m: braking zone in 0.8 s"),
        ([(22.0, True)], State.WARN, 0, "car at 22.0 m: braking zone in 0.2 s"),
        ([(20.0, True)], State.BRAKE, 0, "car at 20.0 m: stopping from 36 km/h takes 20.0 m"),
        ([(0.1, True)], State.BRAKE, 0, "car at 0.1 m: stopping from 36 km/h takes 20.0 m"),
        (
            [(30.0, True), (19.0, True), (25.0, True)],
            State.BRAKE,
            1,
            "car at 19.0 m: stopping from 36 km/h takes 20.0 m",
        ),
        ([(5.0, False), (25.0, True)], State.WARN, 1, "car at 25.0 m: braking zone in 0.5 s"),
    ],
)
def test_decide(
    braking: BrakingConfig, objects: list[tuple[float, bool]], state: State, obstacle: int | None, reason: str
) -> None:
    on_road = [
        RoadObject(index, "car", RoadPoint(forward_m, 0.0), in_corridor)
        for index, (forward_m, in_corridor) in enumerate(objects)
    ]
    decision = decide(on_road, braking)
    assert (decision.state, decision.reason) == (state, reason)
    assert decision.obstacle is (None if obstacle is None else on_road[obstacle])


def test_a_standing_car_never_brakes(braking: BrakingConfig) -> None:
    standing = braking.model_copy(update={"ego_speed_kmh": 0.0})
    assert decide([RoadObject(0, "car", RoadPoint(0.5, 0.0), True)], standing).state is State.SAFE


def test_locate(labels: tuple[str, ...], braking: BrakingConfig) -> None:
    detections = make_detections(
        (TRAFFIC_LIGHT, 0.9, (490, 300, 510, 350)),
        (CAR, 0.8, (450, 300, 550, 350)),
        (CAR, 0.7, (500, 300, 600, 350)),
        (PERSON, 0.6, (490, 100, 510, 290)),
        (TRUCK, 0.5, (-200, 100, 300, 700)),
    )
    class_ids = gate_class_ids(labels, braking.classes)
    objects = locate(detections, labels, LEVEL, class_ids=class_ids, corridor_half_width_m=1.25)
    assert [(item.index, item.class_name, item.in_corridor) for item in objects] == [
        (1, "car", True),
        # Its bottom centre is 50 px to the right at 12.5 m: 1.25 m, which still counts.
        (2, "car", True),
        # Below the image; 450 px to the left at 1.5625 m.
        (4, "truck", False),
    ]
    assert [item.position for item in objects] == [
        pytest.approx((12.5, 0.0)),
        pytest.approx((12.5, 1.25)),
        pytest.approx((1.5625, -1.40625)),
    ]


def test_locate_nothing(labels: tuple[str, ...]) -> None:
    assert locate(Detections.empty(), labels, LEVEL, class_ids={CAR}, corridor_half_width_m=1.25) == []


@pytest.mark.parametrize(
    ("classes", "hint"),
    [
        (["car", "motorcycl"], "got 'motorcycl', expected a class of the model; did you mean 'motorcycle'?"),
        (["qqq"], "got 'qqq', expected a class of the model; see the file at labels_path"),
        (["background"], "got 'background', expected a class of the model"),
    ],
)
def test_classes_that_the_model_does_not_know(labels: tuple[str, ...], classes: list[str], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gate_class_ids(labels, classes)
    assert hint in str(caught.value)


def test_the_configured_classes_are_known(config: Config, labels: tuple[str, ...]) -> None:
    ids = gate_class_ids(labels, config.braking.classes)
    assert {labels[class_id] for class_id in ids} == {"person", "bicycle", "car", "motorcycle", "bus", "truck"}


# --- Flags -----------------------------------------------------------------------------------------------------------


def parse(config: Config, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_camera_arguments(parser, config)
    options.add_braking_arguments(parser, config)
    return parser.parse_args(arguments)


def test_without_flags_the_configuration_holds(config: Config) -> None:
    args = parse(config)
    assert options.camera_settings(args) == config.camera
    assert options.braking_settings(args) == config.braking


def test_flags_override_the_configuration(config: Config) -> None:
    args = parse(config, "--pitch-deg", "-2.5", "--ego-speed-kmh", "30", "--classes", "person", "car")
    assert options.camera_settings(args) == config.camera.model_copy(update={"pitch_deg": -2.5})
    expected = {"ego_speed_kmh": 30.0, "classes": ("person", "car")}
    assert options.braking_settings(args) == config.braking.model_copy(update=expected)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--pitch-deg", "45"),
        ("--height-m", "0"),
        ("--horizontal-fov-deg", "180"),
        ("--ego-speed-kmh", "-1"),
        ("--ego-speed-kmh", "nan"),
        ("--ego-speed-kmh", "inf"),
        ("--deceleration-mps2", "zero"),
    ],
)
def test_flags_have_the_limits_of_the_configuration(
    config: Config, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(config, flag, value)
    assert caught.value.code == 2
    assert f"argument {flag}: Input should be" in capsys.readouterr().err


def test_a_score_is_between_0_and_1() -> None:
    assert options.value_of(DemoConfig, "score_thresh")("0.25") == 0.25
    with pytest.raises(argparse.ArgumentTypeError, match=r"less than or equal to 1, got '1\.1'"):
        options.value_of(DemoConfig, "score_thresh")("1.1")


# --- Times -----------------------------------------------------------------------------------------------------------


def test_times_before_the_first_frame() -> None:
    times = StageTimes(in_flight=1)
    assert times.summary() == {}
    assert times.recent() == [(name, None, None) for name in (*STAGES, "pipeline")]


def test_times_are_medians_and_overlapping_requests_multiply_the_rate() -> None:
    times = StageTimes(in_flight=4)
    for seconds in (0.1, 0.2, 9.0):
        times.add("detect", time.perf_counter() - seconds)
    by_name = {rate.name: rate for rate in times.recent()}
    ms, fps = by_name["detect x4"].ms, by_name["detect x4"].fps
    assert ms == pytest.approx(200, abs=5)
    assert fps == pytest.approx(20, abs=0.5)
    summary = times.summary()["detect"]
    # The 95th percentile of three values lies nine tenths of the way from the second to the third.
    assert summary.median_ms == pytest.approx(200, abs=5)
    assert summary.p95_ms == pytest.approx(8120, abs=20)


# --- The demo --------------------------------------------------------------------------------------------------------


class AlternatingDetector:
    """A car in the braking zone on every second frame; of two neighbouring frames the later is answered first.

    What overtakes what cannot be arranged with a server, and whether frames keep their order is what is tested.
    """

    def __init__(self, *, interrupt_at: int | None = None) -> None:
        self.frames = 0
        self._interrupt_at = interrupt_at
        self._executor = ThreadPoolExecutor(4)

    def submit_frame(self, frame_rgb: UInt8Array) -> Future[Detections]:
        """Answer later, or do as if Ctrl-C were pressed."""
        index = self.frames
        if index == self._interrupt_at:
            raise KeyboardInterrupt
        self.frames += 1
        return self._executor.submit(self._answer, index)

    def _answer(self, index: int) -> Detections:
        time.sleep(0.0 if index % 2 else 0.02)
        car = (CAR, 0.9, (140.0, 60.0, 180.0, 170.0))
        return make_detections(car) if index % 2 else Detections.empty()


def run(
    tmp_path: Path, config: Config, labels: tuple[str, ...], detector: AlternatingDetector, times_s: list[float]
) -> DemoSummary:
    """Run the demo on a clip with the given timestamps."""
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, (320, 180), 25) as writer:
        for time_s in times_s:
            writer.write(np.full((180, 320, 3), 90, np.uint8), time_s)
    settings = DemoSettings(labels, config.camera, config.braking, score_thresh=0.5, in_flight=4)
    output = tmp_path / "out.mp4"
    with open_demo_source(str(clip), output=output, image_folder_fps=10) as source:
        return run_demo(source, detector, open_demo_writer(source, output), settings)


def test_frames_keep_their_order_and_their_times(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    times_s = [0.0, 0.04, 0.1, 0.3, 0.31, 0.5, 0.9, 1.0, 1.5, 1.6, 1.7]
    summary = run(tmp_path, config, labels, AlternatingDetector(), times_s)
    assert (summary.frames, summary.undecodable_frames, summary.interrupted) == (11, 0, False)
    assert summary.state_counts == {State.SAFE: 6, State.BRAKE: 5}
    assert set(summary.stages) == set(STAGES)
    assert summary.stages["detect"].p95_ms > 20
    with open_source(str(summary.output), image_folder_fps=1) as source:
        frames = list(source)
    assert [frame.time_s for frame in frames] == pytest.approx(times_s, abs=1e-5)
    for frame in frames:
        expected = STATE_COLOURS[State.BRAKE if frame.index % 2 else State.SAFE]
        # Beside the lettering in the banner, where compression blurs little.
        assert np.abs(frame.image_rgb[10:16, 2:6].mean(axis=(0, 1)) - expected).max() < 12


def test_the_summary_names_every_figure(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    text = str(run(tmp_path, config, labels, AlternatingDetector(), [0.0, 0.04, 0.08]))
    assert "frames       3 in " in text
    assert "undecodable  0" in text
    assert "SAFE 2, WARN 0, BRAKE 1" in text
    assert all(f"\n{stage} " in text for stage in STAGES)
    assert text.endswith("out.mp4")


def test_ctrl_c_leaves_the_frames_until_then(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    detector = AlternatingDetector(interrupt_at=6)
    summary = run(tmp_path, config, labels, detector, [index / 25 for index in range(10)])
    assert summary.interrupted
    # Six frames were sent, and three of them were still under way.
    assert summary.frames == 3
    with open_source(str(summary.output), image_folder_fps=1) as source:
        assert sum(1 for _ in source) == 3


def test_ctrl_c_before_the_first_frame_leaves_nothing(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config, labels, AlternatingDetector(interrupt_at=0), [0.0, 0.04])
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: would be overwritten"):
        open_demo_source(str(tmp_path / "clip.mp4"), output=tmp_path / "x" / ".." / "clip.mp4", image_folder_fps=10)


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        open_demo_source(str(tmp_path / "none.mp4"), output=tmp_path / "out.mp4", image_folder_fps=10)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "error: no clip given; expected a video file, a folder of images or a camera index; run: make demo"),
        (["--video", "missing.mp4"], 1, "error: missing.mp4: no such file"),
        (["--video", "missing.mp4", "--classes", "lorry"], 1, "error: braking.classes: got 'lorry'"),
        (["--pitch-deg", "90"], 2, "error: argument --pitch-deg: Input should be less than 45, got '90'"),
    ],
)
def test_the_command_refuses_before_a_server_is_started(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    command = [sys.executable, str(ROOT / "clients" / "brake_demo.py"), "--serve", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "starting tritonserver" not in done.stderr
    if code == 1:
        assert len(done.stderr.splitlines()) == 1
