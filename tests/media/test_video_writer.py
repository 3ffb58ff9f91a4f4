"""The video writer: times, colours, interruptions, full disks."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import av
import numpy as np
import pytest

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import VideoError
from ssd_triton.media.video import VideoWriter, open_source
from tests.interruptible import Interruptible, sigint
from tests.media.clips import BLUE, GREEN, OCHRE, RED, corner_colours, quarters, read, write_clip


def test_without_a_frame_there_is_no_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "new" / "clip.mp4", [])
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    "times_s",
    [
        [0.0],
        [0.0, 0.04, 0.08, 0.12],
        [index * 1001 / 30000 for index in range(10)],
        [0.0, 0.033, 0.1, 0.5, 0.52, 1.7, 1.70002, 9.0],
    ],
    ids=["single", "25 fps", "NTSC", "variable"],
)
def test_timestamps_come_back(tmp_path: Path, times_s: list[float]) -> None:
    frames = read(write_clip(tmp_path / "clip.mp4", times_s))
    assert [frame.index for frame in frames] == list(range(len(times_s)))
    # Half a tick of the 90 kHz clock.
    np.testing.assert_allclose([frame.time_s for frame in frames], times_s, rtol=0, atol=0.5 / 90_000 + 1e-9)


def test_the_first_frame_is_at_zero(tmp_path: Path) -> None:
    frames = read(write_clip(tmp_path / "clip.mp4", [5.0, 5.04, 5.5]))
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.04, 0.5])


def test_colours_come_back(tmp_path: Path) -> None:
    (frame,) = read(write_clip(tmp_path / "clip.mp4", [0.0]))
    assert corner_colours(frame.image_rgb) == [RED, GREEN, BLUE, OCHRE]
    assert frame.image_rgb.dtype == np.uint8
    assert frame.image_rgb.flags.c_contiguous


def test_the_format_is_one_that_players_take(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [0.0, 0.033, 0.1, 0.5, 0.52, 1.7, 2.0])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.duration is not None
        assert stream.time_base is not None
        # The last frame stays for one frame at the nominal 25 fps.
        assert float(stream.duration * stream.time_base) == pytest.approx(2.04, abs=1e-3)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")


@pytest.mark.parametrize("size_px", [(65, 48), (64, 49), (65, 49), (1, 1)])
def test_odd_sizes_grow_by_one(tmp_path: Path, size_px: tuple[int, int]) -> None:
    width, height = size_px
    (frame,) = read(write_clip(tmp_path / "clip.mp4", [0.0], np.full((height, width, 3), 200, np.uint8)))
    assert frame.image_rgb.shape == (height + height % 2, width + width % 2, 3)
    # The added row and column go on with the picture, without a dark edge.
    assert np.abs(frame.image_rgb.astype(int) - 200).max() <= 3


@pytest.mark.parametrize("time_s", [-1.0, 0.5, 0.999, 1.0, 1.000001])
def test_times_advance(tmp_path: Path, time_s: float) -> None:
    with VideoWriter(tmp_path / "clip.mp4", (64, 48), 25) as writer:
        writer.write(quarters(), 1.0)
        with pytest.raises(ValueError, match=r"time_s: got .*, expected more than 1\.000000"):
            writer.write(quarters(), time_s)
    assert len(read(tmp_path / "clip.mp4")) == 1


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((48, 64), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((64, 48, 3), np.uint8),
        np.zeros((48, 64, 3), np.float32),
    ],
)
def test_other_shapes_and_dtypes_are_refused(tmp_path: Path, image: UInt8Array) -> None:
    with VideoWriter(tmp_path / "clip.mp4", (64, 48), 25) as writer, pytest.raises(ValueError, match="image_rgb: got"):
        writer.write(image, 0.0)
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("name", ["clip", "clip.avi", "folder.mp4", "file/clip.mp4"])
def test_places_that_cannot_be_written_are_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VideoError, match=rf"{name}: cannot be written \(.*\); give another --output"):
        VideoWriter(tmp_path / name, (64, 48), 25)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_a_playable_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(error), VideoWriter(path, (64, 48), 25) as writer:
        for index in range(3):
            writer.write(quarters(), index / 25)
        raise error
    assert [frame.time_s for frame in read(path)] == pytest.approx([0.0, 0.04, 0.08])
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_before_the_first_frame_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, (64, 48), 25):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


WRITE_UNTIL_INTERRUPTED = """
import itertools, sys
from pathlib import Path
import numpy as np
from ssd_triton.media.video.writer import VideoWriter
with VideoWriter(Path(sys.argv[1]), (64, 48), 25) as writer:
    for index in itertools.count():
        writer.write(np.full((48, 64, 3), index % 256, np.uint8), index / 25)
        if index == 100:
            print("writing", flush=True)
"""


def test_ctrl_c_leaves_a_playable_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    arguments = [sys.executable, "-c", WRITE_UNTIL_INTERRUPTED, str(path)]
    with Interruptible(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in stderr
    with open_source(str(path), image_folder_fps=1) as source:
        times_s = [frame.time_s for frame in source]
        assert len(times_s) == source.frame_count
        assert len(times_s) > 100
        assert times_s == pytest.approx([index / 25 for index in range(len(times_s))])
        assert source.undecodable_frames == 0
    assert list(tmp_path.iterdir()) == [path]


def write_interrupted(path: Path, at_line: int) -> bool:
    """Write 41 frames; whether SIGINT came, which it does at the given line that the writer runs for the last of them.

    Lines are counted on to the end of the file, without those of ``__exit__``: until it defers signals, nothing does.
    """
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal count
        if frame.f_code.co_filename != inspect.getfile(VideoWriter) or frame.f_code.co_name == "__exit__":
            return None
        if event == "line":
            count += 1
            if count == at_line:
                signal.raise_signal(signal.SIGINT)
        return trace

    try:
        with VideoWriter(path, (64, 48), 25) as writer:
            for index in range(40):
                writer.write(quarters(), index / 25)
            sys.settrace(trace)
            writer.write(quarters(), 40 / 25)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_an_interrupt_at_any_line_loses_no_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    at_line = 1
    with sigint(signal.default_int_handler):
        while write_interrupted(path, at_line):
            times_s = [frame.time_s for frame in read(path)]
            assert len(times_s) in (40, 41)
            assert times_s == pytest.approx([index / 25 for index in range(len(times_s))])
            assert list(tmp_path.iterdir()) == [path]
            at_line += 1
    assert at_line > 20


WRITE_UNTIL_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from ssd_triton.common.errors import VideoError
from ssd_triton.media.video.writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
random = np.random.default_rng(0)
try:
    with VideoWriter(Path(sys.argv[1]), (64, 48), 25) as writer:
        for index in range(200):
            writer.write(random.integers(0, 255, (48, 64, 3), np.uint8), index / 25)
except VideoError as error:
    print(error)
"""


def test_a_full_disk_is_reported_and_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    arguments = [sys.executable, "-c", WRITE_UNTIL_FULL, str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.endswith("clip.mp4: cannot be written (File too large); give another --output\n")
    assert len(done.stdout.splitlines()) == 1
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]
