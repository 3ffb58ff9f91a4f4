"""The loop of the demo without a server: order, time, what is lost, and what is written about it."""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ssd_triton.client.errors import ClientError, ServerUnreachableError
from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError, VideoError
from ssd_triton.config import Config
from ssd_triton.driving.braking import options as braking_options
from ssd_triton.driving.braking.ego import ConstantEgo, EgoMotion, EgoSource, RecordedEgo
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera, save_camera
from ssd_triton.driving.demo import options
from ssd_triton.driving.demo.feed import FrameDetector
from ssd_triton.driving.demo.output import open_demo_source, open_demo_writer
from ssd_triton.driving.demo.run import DemoSettings, run_demo
from ssd_triton.driving.demo.summary import DemoSummary
from ssd_triton.driving.demo.timing import STAGES, StageTimes
from ssd_triton.driving.drawing.states import STATE_COLOURS
from ssd_triton.media.video import VideoWriter, open_source

CAR = 3
SIZE_PX = (320, 180)
CAMERA = Camera.from_fov(SIZE_PX, 60, 1.3)
Answering = Callable[[int], Detections]


def car_at(range_m: float) -> Detections:
    """A car in the corridor, as the camera sees its back."""
    corners = [CAMERA.image_point(range_m, side_m, up_m) for side_m, up_m in ((-0.9, 1.5), (0.9, 0.0))]
    box = [side for corner in corners if corner is not None for side in corner]
    return Detections(np.array([box], np.float32), np.array([0.9], np.float32), np.array([CAR], np.int32))


def nothing(_: int) -> Detections:
    return Detections.empty()


class Detector:
    """Answers from threads, as a client does: after a while, in any order, with an error, or never.

    What happens with answers of a given delay cannot be arranged with a server, and is what is tested.
    """

    def __init__(
        self, answering: Answering = nothing, *, delay_s: float = 0.0, interrupt_at: int | None = None
    ) -> None:
        self.frames = 0
        self._answering = answering
        self._delay_s = delay_s
        self._interrupt_at = interrupt_at
        self._executor = ThreadPoolExecutor(8)

    def submit_frame(self, frame_rgb: UInt8Array) -> Future[Detections]:
        """Answer later, or do as if Ctrl-C were pressed."""
        index = self.frames
        if index == self._interrupt_at:
            raise KeyboardInterrupt
        self.frames += 1
        return self._executor.submit(self._answer, index)

    def _answer(self, index: int) -> Detections:
        # Of two neighbouring frames the later is answered first.
        time.sleep(self._delay_s or (0.0 if index % 2 else 0.01))
        return self._answering(index)


def write_clip(path: Path, times_s: Sequence[float], size_px: tuple[int, int] = SIZE_PX) -> Path:
    """Noise, so that every frame takes up room in the file."""
    random = np.random.default_rng(1)
    with VideoWriter(path, size_px, 25) as writer:
        for time_s in times_s:
            writer.write(random.integers(0, 255, (size_px[1], size_px[0], 3), np.uint8), time_s)
    return path


def raw_stream(clip: Path) -> bytes:
    """The same pictures as a raw H.264 stream, which has no times and may be joined to another."""
    raw = clip.with_suffix(".h264")
    with av.open(str(clip)) as source, av.open(str(raw), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return raw.read_bytes()


def demo_settings(
    config: Config, labels: tuple[str, ...], *, real_time: bool = False, ego: EgoSource | None = None, **demo: object
) -> DemoSettings:
    return DemoSettings(
        labels=labels,
        camera=CAMERA,
        ego=ego or ConstantEgo(EgoMotion(15.0)),
        braking=config.braking,
        tracking=config.tracking,
        demo=config.demo.model_copy(update=demo),
        in_flight=4,
        real_time=real_time,
    )


def run(
    config: Config,
    labels: tuple[str, ...],
    clip: Path,
    detector: FrameDetector,
    *,
    real_time: bool = False,
    ego: EgoSource | None = None,
    **demo: object,
) -> DemoSummary:
    """Run the demo on a clip; its files are out.* beside it."""
    settings = demo_settings(config, labels, real_time=real_time, ego=ego, **demo)
    output = clip.with_name("out.mp4")
    with open_demo_source(str(clip), output=output, image_folder_fps=10) as source:
        return run_demo(source, detector, open_demo_writer(source, output, "ultrafast"), settings)


def frames_of(path: Path) -> list[tuple[float, UInt8Array]]:
    with open_source(str(path), image_folder_fps=1) as source:
        return [(frame.time_s, frame.image_rgb) for frame in source]


def events_of(summary: DemoSummary) -> list[dict[str, object]]:
    return [json.loads(line) for line in summary.outputs.events.read_text().splitlines()]


def evenly(frames: int, fps: float = 25.0) -> list[float]:
    return [index / fps for index in range(frames)]


# --- Times of the stages ---------------------------------------------------------------------------------------------


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
    assert summary.p50_ms == pytest.approx(200, abs=5)
    assert summary.p95_ms == pytest.approx(8120, abs=20)


# --- Every frame of a file -------------------------------------------------------------------------------------------


def test_frames_keep_their_order_and_their_times(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    times_s = [0.0, 0.04, 0.1, 0.3, 0.31, 0.5, 0.9, 1.0, 1.5, 1.6, 1.7]
    summary = run(config, labels, write_clip(tmp_path / "clip.mp4", times_s), Detector())
    assert (summary.frames, summary.dropped_frames, summary.undecodable_frames) == (11, 0, 0)
    assert not summary.interrupted
    assert summary.state_counts == {State.NO_DATA: 2, State.SAFE: 9}
    assert set(summary.stages) == set(STAGES)
    assert summary.stages["detect"].p95_ms > 9
    assert summary.latency is None
    frames = frames_of(summary.outputs.video)
    assert [time_s for time_s, _ in frames] == pytest.approx(times_s, abs=1e-5)
    for index, (_, image) in enumerate(frames):
        expected = STATE_COLOURS[State.SAFE if index > 1 else State.NO_DATA]
        # Beside the lettering in the banner, where compression blurs little.
        assert np.abs(image[10:16, 4:8].mean(axis=(0, 1)) - expected).max() < 14


def test_the_summary_names_every_figure(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    text = str(run(config, labels, write_clip(tmp_path / "clip.mp4", evenly(3)), Detector()))
    for line in ("frames       3 in ", "dropped      0", "undecodable  0", "retimed      0", "unanswered   0"):
        assert line in text
    assert "NO_DATA 2, SAFE 1, WARN 0, BRAKE 0" in text
    assert "first        WARN never, BRAKE never" in text
    assert "latency      100 ms, assumed" in text
    assert all(f"\n{stage} " in text for stage in STAGES)
    assert "out.events.jsonl" in text
    assert "out.timeline.png" in text
    assert text.endswith("out.mp4")


def test_a_single_frame(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    summary = run(config, labels, write_clip(tmp_path / "clip.mp4", [0.0]), Detector())
    assert summary.state_counts == {State.NO_DATA: 1}
    assert len(frames_of(summary.outputs.video)) == 1


def test_times_that_go_back_are_counted(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    """A raw stream has no times at all, so that the nominal rate is taken; each such frame is counted."""
    raw = tmp_path / "raw.h264"
    raw.write_bytes(raw_stream(write_clip(tmp_path / "clip.mp4", evenly(5))))
    summary = run(config, labels, raw, Detector())
    assert summary.frames == 5
    assert summary.retimed_frames >= 4
    assert np.diff([time_s for time_s, _ in frames_of(summary.outputs.video)]).min() > 0.03


# --- WARN and BRAKE, and what is written about them ------------------------------------------------------------------


def approach(config: Config, labels: tuple[str, ...], folder: Path, **keywords: object) -> DemoSummary:
    """15 m/s towards a standing car 48 m away, for two seconds."""
    clip = write_clip(folder / "clip.mp4", evenly(50))
    detector = Detector(lambda index: car_at(48 - 15 * index / 25))
    return run(config, labels, clip, detector, **keywords)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def approached(tmp_path_factory: pytest.TempPathFactory, config: Config, labels: tuple[str, ...]) -> DemoSummary:
    return approach(config, labels, tmp_path_factory.mktemp("approach"))


def test_an_approach_warns_before_it_brakes(approached: DemoSummary, config: Config) -> None:
    first = approached.first_s
    assert first[State.BRAKE] - first[State.WARN] >= config.braking.warning_time_s - 1e-6
    assert f"WARN at {first[State.WARN]:.2f} s, BRAKE at {first[State.BRAKE]:.2f} s" in str(approached)


def test_events_hold_every_change_and_every_decision(approached: DemoSummary) -> None:
    events = events_of(approached)
    changes = [(item["state_before"], item["state"]) for item in events if item["event"] == "state"]
    assert changes == [(None, "NO_DATA"), ("NO_DATA", "SAFE"), ("SAFE", "WARN"), ("WARN", "BRAKE")]
    urgent = [item for item in events if item["state"] in {"WARN", "BRAKE"}]
    assert len(urgent) == approached.state_counts[State.WARN] + approached.state_counts[State.BRAKE]
    assert [item["time_s"] for item in urgent] == pytest.approx([item["frame"] / 25 for item in urgent], abs=1e-4)  # type: ignore[operator]


def test_events_hold_the_evidence(approached: DemoSummary) -> None:
    brake = next(item for item in events_of(approached) if item["state"] == "BRAKE")
    obstacle = brake["obstacle"]
    assert isinstance(obstacle, dict)
    true_range_m = 48 - 15 * float(str(brake["time_s"]))
    assert obstacle["range_m"] == pytest.approx(true_range_m, abs=2.0)
    assert obstacle["closing_speed_mps"] == pytest.approx(15, abs=2.0)
    assert obstacle["class_name"] == "car"
    assert obstacle["in_corridor"]
    assert brake["ego_speed_kmh"] == pytest.approx(54.0)
    assert brake["latency_s"] == pytest.approx(0.1)
    assert not brake["latency_is_measured"]
    assert "car at" in str(brake["reason"])


def test_the_timeline_shows_the_states_and_the_curves(approached: DemoSummary) -> None:
    with Image.open(approached.outputs.timeline) as picture:
        image = np.asarray(picture.convert("RGB")).astype(int)
    assert image.shape[0] > 600
    assert image.shape[1] > 800
    red, green, blue = np.moveaxis(image, 2, 0)
    # Bands of SAFE, WARN and BRAKE, and the blue curves.
    bands = {"safe": (green > red + 15) & (green > blue + 5), "warn": (red > 240) & (green > 215) & (blue < 205)}
    bands["brake"] = (red > 240) & (green < 210) & (blue < 210)
    for name, band in bands.items():
        assert band.mean() > 0.02, name
    assert ((blue > 180) & (red < 80) & (green < 130)).sum() > 500


def test_the_speed_may_come_from_a_record(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    """The car stands: nothing to warn of, though the boxes grow; before the record begins, nothing is known."""
    record = RecordedEgo([0.1, 2.0], [EgoMotion(0.0), EgoMotion(0.0)], max_gap_s=5.0)
    summary = approach(config, labels, tmp_path, ego=record)
    assert set(summary.first_s) == {State.NO_DATA, State.SAFE}
    assert events_of(summary)[0]["ego_speed_kmh"] is None
    assert events_of(summary)[1]["ego_speed_kmh"] in {None, 0.0}


# --- What is lost ----------------------------------------------------------------------------------------------------


def damaged(path: Path) -> Path:
    """A clip in which the data of two frames are overwritten."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for index in (10, 11):
        start, size = packets[index]
        assert start is not None
        data[start + 4 : start + size] = bytes(size - 4)
    path.write_bytes(data)
    return path


def test_frames_that_do_not_decode_are_no_data(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    summary = run(config, labels, damaged(write_clip(tmp_path / "clip.mp4", evenly(30))), Detector())
    assert summary.undecodable_frames >= 2
    assert summary.frames == 30
    # Those at the start, and those that were lost.
    assert summary.state_counts[State.NO_DATA] == 2 + summary.undecodable_frames
    lost = [item for item in events_of(summary) if item["frame"] is None]
    assert [item["state"] for item in lost][:1] == ["NO_DATA"]
    times_s, images = zip(*frames_of(summary.outputs.video), strict=True)
    assert list(times_s) == pytest.approx(evenly(30), abs=1e-3)
    dark = [image[100:120, 40:280].mean() < 80 for image in images]
    assert sum(dark) == summary.undecodable_frames


def test_frames_without_an_answer_are_no_data(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    def answering(index: int) -> Detections:
        if index in {5, 6, 12}:
            raise ServerUnreachableError("gone for a moment")
        return Detections.empty()

    summary = run(config, labels, write_clip(tmp_path / "clip.mp4", evenly(20)), Detector(answering))
    assert (summary.frames, summary.unanswered_frames) == (20, 3)
    assert summary.state_counts == {State.NO_DATA: 5, State.SAFE: 15}
    assert summary.failure is None


def test_a_server_that_is_gone_for_good_ends_the_run(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    def answering(index: int) -> Detections:
        if index >= 6:
            time.sleep(0.05)
            raise ServerUnreachableError("connection refused")
        return Detections.empty()

    clip = write_clip(tmp_path / "clip.mp4", evenly(100))
    summary = run(config, labels, clip, Detector(answering), server_deadline_s=0.3)
    assert 6 < summary.frames < 100
    assert State.SAFE in summary.first_s
    assert isinstance(summary.failure, ServerUnreachableError)
    assert "the last problem: connection refused" in str(summary.failure)
    assert len(frames_of(summary.outputs.video)) == summary.frames
    assert events_of(summary)[-1]["state"] == "NO_DATA"


def test_without_any_answer_the_run_fails(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    def refuse(_: int) -> Detections:
        raise ServerUnreachableError("connection refused")

    summary = run(config, labels, write_clip(tmp_path / "clip.mp4", evenly(4)), Detector(refuse))
    assert isinstance(summary.failure, ClientError)
    assert set(summary.state_counts) == {State.NO_DATA}


# --- Real time -------------------------------------------------------------------------------------------------------


def test_a_slow_detector_drops_frames_in_real_time(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", evenly(40))
    summary = run(config, labels, clip, Detector(delay_s=0.16), real_time=True, real_time_in_flight=2)
    # 1.6 s of video; two frames under way, 0.16 s each.
    assert summary.frames + summary.dropped_frames == 40
    assert 10 <= summary.dropped_frames <= 32
    assert 1.5 < summary.wall_s < 4
    assert summary.latency is not None
    assert 155 < summary.latency.p50_ms < 400
    # What was measured is what was counted.
    latencies_s = [float(str(item["latency_s"])) for item in events_of(summary)]
    assert min(latencies_s) > 0.155
    assert all(item["latency_is_measured"] for item in events_of(summary))
    times_s = [time_s for time_s, _ in frames_of(summary.outputs.video)]
    assert np.diff(times_s).max() < 0.5


def test_a_quick_detector_drops_nothing_in_real_time(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", evenly(8, fps=10))
    summary = run(config, labels, clip, Detector(), real_time=True)
    assert (summary.frames, summary.dropped_frames, summary.unanswered_frames) == (8, 0, 0)
    assert summary.wall_s > 0.65


def test_a_detector_that_hangs_is_no_data_and_ends_the_run(
    tmp_path: Path, config: Config, labels: tuple[str, ...]
) -> None:
    released = threading.Event()

    def answering(index: int) -> Detections:
        if index >= 5:
            released.wait(20)
        return Detections.empty()

    detector = Detector(answering)
    clip = write_clip(tmp_path / "clip.mp4", evenly(100))
    try:
        summary = run(config, labels, clip, detector, real_time=True, max_age_s=0.15, server_deadline_s=0.8)
    finally:
        released.set()
    assert isinstance(summary.failure, ServerUnreachableError)
    assert "no answer within 0.15 s" in str(summary.failure)
    assert summary.wall_s < 4
    assert summary.unanswered_frames >= 3
    assert events_of(summary)[-1]["state"] == "NO_DATA"
    # Two requests hang; nothing more is sent, and nothing piles up.
    assert detector.frames == 7


@pytest.mark.parametrize("real_time", [False, True])
def test_a_source_that_stops_ends_the_run(
    tmp_path: Path, config: Config, labels: tuple[str, ...], real_time: bool
) -> None:
    """As a camera that is pulled out: a recording that goes on in another size."""
    clips = [
        write_clip(tmp_path / "small.mp4", evenly(6)),
        write_clip(tmp_path / "large.mp4", evenly(6), (2 * SIZE_PX[0], 2 * SIZE_PX[1])),
    ]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(map(raw_stream, clips)))
    summary = run(config, labels, joined, Detector(), real_time=real_time)
    assert isinstance(summary.failure, VideoError)
    assert "got 640x360 pixels, expected 320x180" in str(summary.failure)
    assert summary.frames >= 1
    assert len(frames_of(summary.outputs.video)) == summary.frames


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_the_frames_until_then(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", evenly(10))
    summary = run(config, labels, clip, Detector(interrupt_at=6))
    assert summary.interrupted
    # Six frames were sent, and three of them were still under way.
    assert summary.frames == 3
    assert len(frames_of(summary.outputs.video)) == 3
    assert [item["state"] for item in events_of(summary)] == ["NO_DATA", "SAFE"]
    assert summary.outputs.timeline.is_file()


def test_ctrl_c_before_the_first_frame_leaves_nothing(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(config, labels, write_clip(tmp_path / "clip.mp4", evenly(2)), Detector(interrupt_at=0))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"clip\.mp4: would be overwritten"):
        open_demo_source(str(tmp_path / "clip.mp4"), output=tmp_path / "x" / ".." / "clip.mp4", image_folder_fps=10)


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: no such file"):
        open_demo_source(str(tmp_path / "none.mp4"), output=tmp_path / "out.mp4", image_folder_fps=10)


def parse(config: Config, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_demo_arguments(parser, config)
    braking_options.add_braking_arguments(parser, config)
    return parser.parse_args(arguments)


def test_flags_override_the_configuration(config: Config) -> None:
    assert options.demo_settings(parse(config), config) == config.demo
    args = parse(config, "--score-thresh", "0.25", "--video", "7", "--output", "x.mp4")
    expected = {"score_thresh": 0.25, "video": 7, "output": Path("x.mp4")}
    assert options.demo_settings(args, config) == config.demo.model_copy(update=expected)


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
    config: Config,
    flags: tuple[str, ...],
    speeds_mps: tuple[float | None, float | None],
) -> None:
    (tmp_path / "speed.csv").write_text("time_s,speed_kmh\n0,36\n0.4,0\n")
    monkeypatch.chdir(tmp_path)
    ego = options.ego_source(parse(config, *flags), config)
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
        (["--pitch-deg", "90"], 2, "error: argument --pitch-deg: Input should be less than 45, got '90'"),
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
    done = run_main("clients/brake_demo.py", "--serve", *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "starting tritonserver" not in done.stderr
    if code == 1:
        assert len(done.stderr.splitlines()) == 1
