"""Video in, from clips that the project's own writer makes, folders of images and cameras."""

from __future__ import annotations

import gc
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.errors import UserError, VideoError
from ssd_triton.media.video import VideoWriter, open_source
from ssd_triton.media.video.window import Window
from tests.media.clips import BLUE, GREEN, OCHRE, RED, corner_colours, quarters, read, write_clip


def write_noise(path: Path, frames: int) -> Path:
    """A clip whose every frame differs from the last, so that each takes up room in the file."""
    random = np.random.default_rng(1)
    with VideoWriter(path, (64, 48), 25) as writer:
        for index in range(frames):
            writer.write(random.integers(0, 255, (48, 64, 3), np.uint8), index / 25)
    return path


# --- Video files ------------------------------------------------------------------------------------------------------


def test_a_source_describes_itself(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [0.0, 0.04, 0.08])
    with open_source(str(path), image_folder_fps=1) as source:
        assert (source.size_px, source.frame_count) == ((64, 48), 3)
        assert source.fps == pytest.approx(25)
        assert source.name.endswith("clip.mp4")


def make_bad_input(kind: str, folder: Path) -> Path:
    """Something that is no video, by its name in the table below."""
    path = folder / "bad.mp4"
    match kind:
        case "empty file":
            path.touch()
        case "text":
            path.write_text("not a video\n" * 50)
        case "random bytes":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "cut in the index":
            path.write_bytes(write_clip(folder / "whole.mp4", [0.0, 0.04]).read_bytes()[:300])
        case "cut before the first frame":
            data = write_clip(folder / "whole.mp4", [0.0, 0.04]).read_bytes()
            path.write_bytes(data[: data.find(b"mdat") + 4])
        case "sound only":
            with wave.open(str(path), "wb") as sound:
                sound.setparams((1, 2, 8000, 0, "NONE", ""))
                sound.writeframes(bytes(1600))
        case "empty folder":
            path.mkdir()
        case "folder without images":
            path.mkdir()
            (path / "notes.txt").write_text("no image")
        case "folder of broken images":
            path.mkdir()
            (path / "1.png").write_text("no image")
            (path / "2.png").write_text("no image")
        case "folder with two sizes":
            path.mkdir()
            Image.fromarray(quarters()).save(path / "1.png")
            Image.fromarray(quarters(32, 32)).save(path / "2.png")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"bad\.mp4: no such file; expected a video file.*give another video"),
        ("empty file", r"bad\.mp4: cannot be read as a video \(Invalid data"),
        ("text", r"bad\.mp4: cannot be read as a video \(Invalid data"),
        ("random bytes", r"bad\.mp4: cannot be read as a video \(Invalid data"),
        ("cut in the index", r"bad\.mp4: holds no video stream"),
        ("cut before the first frame", r"bad\.mp4: no frame of it can be decoded"),
        ("sound only", r"bad\.mp4: holds no video stream"),
        ("empty folder", r"bad\.mp4: got no image.*, expected JPEG, PNG, .*HEIC"),
        ("folder without images", r"bad\.mp4: got no image.*, expected JPEG, PNG, .*HEIC"),
        (
            "folder of broken images",
            r"none of 2 images can be read; the first: .*1\.png: got 8 bytes that begin with b.no image",
        ),
        ("folder with two sizes", r"2\.png: got 32x32 pixels, expected 64x48"),
    ],
)
def test_bad_input_is_refused_on_opening(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(VideoError, match=message) as caught:
        open_source(str(make_bad_input(kind, tmp_path)), image_folder_fps=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_frames_missing_at_the_end_are_counted(tmp_path: Path, share: float) -> None:
    data = write_noise(tmp_path / "whole.mp4", 50).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
    with open_source(str(tmp_path / "cut.mp4"), image_folder_fps=1) as source:
        frames = list(source)
        # The cut goes through a frame, so that one more or less is left.
        assert len(frames) == pytest.approx(50 * share, abs=3)
        assert len(frames) + source.undecodable_frames == pytest.approx(50, abs=1)


def test_a_whole_file_misses_nothing(tmp_path: Path) -> None:
    with open_source(str(write_noise(tmp_path / "whole.mp4", 50)), image_folder_fps=1) as source:
        assert len(list(source)) == 50
        assert source.undecodable_frames == 0


def test_frames_that_were_trimmed_away_are_not_missing(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "clip.mp4", 50)
    data = bytearray(path.read_bytes())
    # ISO/IEC 14496-12, edit list box, version 0: flags, count of entries, then the first one's duration, which is
    # in ticks of the movie header's clock, 1/1000 s.
    start = data.find(b"elst") + 4 + 8
    assert struct.unpack(">I", data[start : start + 4]) == (2000,)
    data[start : start + 4] = struct.pack(">I", 1000)
    path.write_bytes(data)
    with open_source(str(path), image_folder_fps=1) as source:
        assert len(list(source)) == pytest.approx(25, abs=1)
        assert source.undecodable_frames == 0


def test_metadata_in_another_encoding_is_no_hindrance(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [0.0, 0.04])
    data = path.read_bytes()
    assert data.count(b"Lavf") == 1
    path.write_bytes(data.replace(b"Lavf", b"\xe9\xff\xfe\xe9"))
    assert len(read(path)) == 2


def test_reading_goes_on_after_a_damaged_frame(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "clip.mp4", 30)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        position, size = packets[10].pos, packets[10].size
    data = bytearray(path.read_bytes())
    assert position is not None
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with open_source(str(path), image_folder_fps=1) as source:
        frames = list(source)
        assert source.undecodable_frames >= 1
        assert len(frames) + source.undecodable_frames == 30
    assert frames[-1].time_s == pytest.approx(29 / 25)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert not any(abs(frame.time_s - 10 / 25) < 1e-6 for frame in frames)


def test_a_stream_without_timestamps_runs_at_the_nominal_rate(tmp_path: Path) -> None:
    path = tmp_path / "raw.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(5):
            picture = av.VideoFrame.from_ndarray(quarters(), format="rgb24").reformat(format="yuv420p")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    frames = read(path)
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((1, 0, 0, 1), [RED, GREEN, BLUE, OCHRE]),
        ((0, 1, -1, 0), [BLUE, RED, OCHRE, GREEN]),
        ((-1, 0, 0, -1), [OCHRE, BLUE, GREEN, RED]),
        ((0, -1, 1, 0), [GREEN, OCHRE, RED, BLUE]),
        ((-1, 0, 0, 1), [GREEN, RED, OCHRE, BLUE]),
        ((1, 0, 0, -1), [BLUE, OCHRE, RED, GREEN]),
        ((0, 1, 1, 0), [RED, BLUE, GREEN, OCHRE]),
        ((0, -1, -1, 0), [OCHRE, GREEN, BLUE, RED]),
    ],
    ids=[
        *("upright", "clockwise", "upside down", "counterclockwise"),
        *("mirrored", "mirrored upside down", "transposed", "transposed and turned"),
    ],
)
def test_the_display_matrix_is_applied(
    tmp_path: Path, matrix: tuple[int, int, int, int], corners: list[tuple[int, int, int]]
) -> None:
    path = write_clip(tmp_path / "clip.mp4", [0.0])
    data = bytearray(path.read_bytes())
    # ISO/IEC 14496-12, track header box, version 0: the matrix stands 40 bytes after the version.
    start = data.find(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with open_source(str(path), image_folder_fps=1) as source:
        (frame,) = source
        assert source.size_px == (frame.image_rgb.shape[1], frame.image_rgb.shape[0])
    assert frame.image_rgb.shape[:2] == ((48, 64) if matrix[0] else (64, 48))
    assert corner_colours(frame.image_rgb) == corners


def test_pictures_are_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [index / 25 for index in range(30)])
    gc.collect()
    gc.disable()
    try:
        with open_source(str(path), image_folder_fps=1) as source:
            assert sum(1 for _ in source) == 30
        # The first one, whose display matrix was looked at, and the last packet's.
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) < 5
    finally:
        gc.enable()


# --- Folders of images, cameras, windows ------------------------------------------------------------------------------


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    for name, grey in (("b.PNG", 20), ("a.png", 10), ("c.bmp", 30)):
        Image.fromarray(np.full((8, 12), grey, np.uint8), "L").save(folder / name)
    (folder / "notes.txt").write_text("no image")
    with open_source(str(folder), image_folder_fps=8) as source:
        frames = list(source)
        assert (source.size_px, source.fps, source.frame_count) == ((12, 8), 8, 3)
    assert [frame.time_s for frame in frames] == [0.0, 0.125, 0.25]
    for frame, grey in zip(frames, (10, 20, 30), strict=True):
        np.testing.assert_array_equal(frame.image_rgb, np.full((8, 12, 3), grey, np.uint8))


def test_damaged_images_of_a_folder_are_counted_and_their_time_passes(tmp_path: Path) -> None:
    for name in ("1.jpg", "3.jpg", "4.jpg"):
        Image.fromarray(quarters(256, 256)).save(tmp_path / name)
    data = (tmp_path / "3.jpg").read_bytes()
    (tmp_path / "3.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "2.jpg").write_text("no image")
    with open_source(str(tmp_path), image_folder_fps=10) as source:
        assert [(frame.index, frame.time_s) for frame in source] == [(0, 0.0), (1, 0.3)]
        assert source.undecodable_frames == 2


def test_a_missing_camera_is_named() -> None:
    with pytest.raises(VideoError, match=r"camera 99: gives no picture; expected a video file.*check that it is"):
        open_source("99", image_folder_fps=10)


def test_digits_with_a_folder_before_them_are_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match="0: no such file"):
        open_source("./0", image_folder_fps=10)


def test_opencv_without_windows_is_explained() -> None:
    with pytest.raises(UserError, match="pip uninstall -y opencv-python-headless && pip install 'opencv-python=="):
        Window("test")
