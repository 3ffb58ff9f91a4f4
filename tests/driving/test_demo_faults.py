"""What goes wrong in the demo without a server: slow encoders, clocks that jump."""

from __future__ import annotations

import json
import time
from pathlib import Path

import av
import numpy as np
import pytest

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.config import Config
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.demo.output import open_demo_source, open_demo_writer
from ssd_triton.driving.demo.run import run_demo
from tests.driving.demo import Detector, demo_settings, evenly, frames_of, run, write_clip

# --- Slow readers -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_slow_encoder_drops_frames_in_real_time_and_holds_few(
    tmp_path: Path, config: Config, labels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes much longer than reading does, also on a busy machine."""
    clip = write_clip(tmp_path / "clip.mp4", evenly(60, fps=1000))
    detector = Detector()
    with open_demo_source(str(clip), output=tmp_path / "out.mp4", image_folder_fps=10) as source:
        writer = open_demo_writer(source, tmp_path / "out.mp4", "veryslow")
        write = writer.write

        def write_slowly(image_rgb: UInt8Array, time_s: float) -> None:
            time.sleep(0.1)
            write(image_rgb, time_s)

        monkeypatch.setattr(writer, "write", write_slowly)
        summary = run_demo(source, detector, writer, demo_settings(config, labels, real_time=True))
    assert summary.frames + summary.dropped_frames == 60
    assert summary.dropped_frames > 0
    assert detector.frames == summary.frames
    assert len(frames_of(summary.outputs.video)) == summary.frames


# --- Clocks that jump -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real_time", [False, True])
@pytest.mark.slow
def test_a_clock_that_jumps_forward(tmp_path: Path, config: Config, labels: tuple[str, ...], real_time: bool) -> None:
    """By an hour: every frame is there once, with its time, and nobody waits for that hour."""
    times_s = [*evenly(8), *(3600 + time_s for time_s in evenly(8))]
    summary = run(config, labels, write_clip(tmp_path / "clip.mp4", times_s), Detector(), real_time=real_time)
    assert (summary.frames + summary.dropped_frames, summary.retimed_frames) == (16, 0)
    # Where a clip is played as a camera, a busy machine may be late for a frame or two.
    assert summary.dropped_frames <= (3 if real_time else 0)
    assert summary.wall_s < 15
    written_s = [time_s for time_s, _ in frames_of(summary.outputs.video)]
    assert len(written_s) == summary.frames
    nearest_s = [min(times_s, key=lambda time_s, one=one: abs(time_s - one)) for one in written_s]
    assert written_s == pytest.approx(nearest_s, abs=1e-3)
    assert nearest_s == sorted(set(nearest_s))
    # Tracks do not outlive the gap: the frames behind it begin without data.
    assert summary.state_counts[State.NO_DATA] >= 2
    assert set(summary.state_counts) <= {State.NO_DATA, State.SAFE}


@pytest.mark.slow
def test_a_clock_that_jumps_back(tmp_path: Path, config: Config, labels: tuple[str, ...]) -> None:
    """Two recordings joined as they are: the second begins at zero again."""
    clip = write_clip(tmp_path / "clip.mp4", evenly(10))
    part = tmp_path / "part.ts"
    with av.open(str(clip)) as source, av.open(str(part), "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    summary = run(config, labels, joined, Detector())
    assert summary.frames == 20
    assert summary.retimed_frames >= 8
    times_s = [time_s for time_s, _ in frames_of(summary.outputs.video)]
    assert len(times_s) == 20
    assert np.diff(times_s).min() > 0
    assert json.loads(summary.outputs.events.read_text().splitlines()[-1])["state"] == "SAFE"
