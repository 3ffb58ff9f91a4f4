"""The loop of the demo without a server: order, time, what is lost, and what is written about it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import av
import numpy as np
import pytest

from ssd_triton.client.errors import ClientError, ServerUnreachableError
from ssd_triton.common.detections import Detections
from ssd_triton.config import Config
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.demo.pace import Pace
from ssd_triton.driving.demo.timing import STAGES, StageTimes
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS
from tests.driving.demo import Detector, evenly, events_of, frames_of, raw_stream, run, write_clip

# --- Times of the stages ----------------------------------------------------------------------------------------------


def test_times_before_the_first_frame() -> None:
    times = StageTimes(in_flight=1)
    assert times.summary() == {}
    assert times.recent() == [(name, None, None) for name in (*STAGES, "pipeline")]


def test_times_are_medians_and_overlapping_requests_multiply_the_rate() -> None:
    times = StageTimes(in_flight=4)
    for seconds in (0.1, 0.2, 9.0):
        times.add("detect", time.perf_counter() - seconds)
    by_name = {rate.name: rate for rate in times.recent()}
    ms, fps = by_name["detect"].ms, by_name["detect"].fps
    assert ms == pytest.approx(200, abs=5)
    assert fps == pytest.approx(20, abs=0.5)
    summary = times.summary()["detect"]
    # The 95th percentile of three values lies nine tenths of the way from the second to the third.
    assert summary.p50_ms == pytest.approx(200, abs=5)
    assert summary.p95_ms == pytest.approx(8120, abs=20)


def test_the_busiest_stages_are_those_that_hold_up_the_others() -> None:
    times = StageTimes(in_flight=4)
    took_s = {"read": 0.1, "decide": 0.2, "draw": 0.4, "write": 0.6, "detect": 2.0}
    for stage, seconds in took_s.items():
        times.add(stage, time.perf_counter() - seconds)
    assert times.busiest(1.0) == ("draw, decide, read", pytest.approx(0.7, abs=0.01))
    times.add("write", time.perf_counter() - 0.2)
    assert times.busiest(1.0) == ("write", pytest.approx(0.8, abs=0.01))
    times.add("detect", time.perf_counter() - 1.6)
    assert times.busiest(1.0) == ("detect", pytest.approx(0.9, abs=0.01))


# --- Every frame of a file --------------------------------------------------------------------------------------------


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
    assert re.search(r"\nbusiest      [a-z, ]+: \d+% of the time\n", text)
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


# --- What is lost -----------------------------------------------------------------------------------------------------


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


@pytest.mark.slow
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


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


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


def test_a_slow_run_says_so_and_decides_with_its_usual_latency() -> None:
    pace = Pace(min_rate_hz=9)
    for index in range(40):
        pace.add(index / 20, has_data=True)
    assert (pace.doubt, pace.lowest_hz, pace.latency) == ("", None, None)
    for index in range(40, 60):
        pace.add(index / 20, has_data=index % 4 == 0)
    assert pace.lowest_hz == pytest.approx(12.5)
    for index in range(60, 80):
        pace.add(index / 20, has_data=index % 4 == 0)
    assert pace.lowest_hz == pytest.approx(5)
    assert pace.doubt == "it reacts late: fewer than 9 decisions a second"
    # One late answer of twenty changes nothing.
    latencies_s = [pace.add_latency(latency_s) for latency_s in [0.2] * 19 + [0.9]]
    assert latencies_s[-1] == pytest.approx(0.2)
    assert pace.figures == "5.0 decisions a second, latency 200 ms"
    assert pace.latency is not None
    assert pace.latency.p95_ms == pytest.approx(235, abs=1)
