"""The demo in real time, without a server: dropped frames, hanging detectors, sources that stop."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from ssd_triton.client.errors import ServerUnreachableError
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import VideoError
from ssd_triton.config import Config
from tests.driving.demo import SIZE_PX, Detector, evenly, events_of, frames_of, raw_stream, run, write_clip


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_quick_detector_drops_nothing_in_real_time(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", evenly(8, fps=10))
    summary = run(config, labels, clip, Detector(), real_time=True)
    assert (summary.frames, summary.dropped_frames, summary.unanswered_frames) == (8, 0, 0)
    assert summary.wall_s > 0.65


@pytest.mark.slow
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
@pytest.mark.slow
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
