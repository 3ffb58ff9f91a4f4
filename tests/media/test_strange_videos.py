"""Videos as strangers have them: cover pictures, other pixels than square ones, odd names, addresses."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import av.stream
import numpy as np
import pytest
from PIL import Image

from ssd_triton.common.errors import VideoError
from ssd_triton.measuring.request_cases import encode
from ssd_triton.media.video import VideoWriter, open_source
from tests.media.clips import BLUE, GREEN, OCHRE, RED, corner_colours, quarters, read, write_clip


def write_with_aspect(path: Path, aspect: Fraction, size_px: tuple[int, int] = (144, 108)) -> Path:
    """A clip of one frame whose pixels are `aspect` times as wide as they are high."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size_px, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        frame = av.VideoFrame.from_ndarray(quarters(*size_px), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_with_cover(path: Path, frames: int) -> Path:
    """A clip whose first stream is a cover picture, as music players and editors write it."""
    cover = encode(Image.new("RGB", (640, 640)), "JPEG")
    with av.open(str(path), "w") as container:
        attached = container.add_stream("mjpeg", rate=1)
        attached.width, attached.height, attached.pix_fmt = 640, 640, "yuvj420p"
        attached.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packet = av.Packet(cover)
        packet.stream, packet.pts, packet.dts, packet.time_base = attached, 0, 0, Fraction(1)
        container.start_encoding()
        container.mux(packet)
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode(None))
    return path


# --- Streams and pixels -----------------------------------------------------------------------------------------------


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = write_with_cover(tmp_path / "clip.mkv", 20)
    with av.open(str(path)) as container:
        streams = container.streams.video
        assert len(streams) == 2
    frames = read(path)
    assert len(frames) == 20
    assert {frame.image_rgb.shape for frame in frames} == {(48, 64, 3)}


@pytest.mark.parametrize(
    ("aspect", "size_px"),
    [
        (Fraction(1), (144, 108)),
        (Fraction(4, 3), (192, 108)),
        (Fraction(8, 9), (128, 108)),
        (Fraction(1, 4), (36, 108)),
    ],
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size_px: tuple[int, int]) -> None:
    path = write_with_aspect(tmp_path / "clip.mp4", aspect)
    with open_source(str(path), image_folder_fps=1) as source:
        assert source.size_px == size_px
        (frame,) = source
    assert corner_colours(frame.image_rgb) == [RED, GREEN, BLUE, OCHRE]


def test_an_absurd_aspect_is_refused(tmp_path: Path) -> None:
    path = write_with_aspect(tmp_path / "clip.mp4", Fraction(100), (1920, 1080))
    with pytest.raises(VideoError, match=r"clip\.mp4: pictures of 192000x1080 square pixels .*at most 50000000"):
        open_source(str(path), image_folder_fps=1)


def test_written_pixels_are_square_by_name(tmp_path: Path) -> None:
    with av.open(str(write_clip(tmp_path / "clip.mp4", [0.0]))) as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == 1


# --- Folders and images -----------------------------------------------------------------------------------------------


def test_numbered_frames_are_in_natural_order(tmp_path: Path) -> None:
    for number in range(1, 13):
        Image.fromarray(np.full((16, 16, 3), 20 * number, np.uint8)).save(tmp_path / f"frame_{number}.png")
    assert [int(frame.image_rgb.mean()) // 20 for frame in read(tmp_path)] == list(range(1, 13))


def test_frames_of_16_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 77 * 257, np.uint16)).save(tmp_path / "1.png")
    (frame,) = read(tmp_path)
    assert frame.image_rgb.mean() == 77


def test_what_is_beside_the_frames_takes_no_time(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(quarters()).save(tmp_path / f"{number}.jpg")
        (tmp_path / f"._{number}.jpg").write_bytes(bytes.fromhex("0005160700020000") + bytes(50))
    (tmp_path / "a.jpg").symlink_to("nowhere")
    (tmp_path / "b.jpg").mkdir()
    with open_source(str(tmp_path), image_folder_fps=10) as source:
        assert [frame.time_s for frame in source] == [0.0, 0.1, 0.2]
        assert len(source.skipped) == 5
        assert source.undecodable_frames == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_an_image_is_a_video_of_one_frame(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if kind != "AVIF" else 1
    (tmp_path / "clip.mp4").write_bytes(encode(Image.fromarray(quarters(1100, 700)), kind, exif=exif))
    (frame,) = read(tmp_path / "clip.mp4")
    assert frame.image_rgb.shape == (700, 1100, 3)


# --- Names and addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2024-05-01T12:30:05.mp4", "http:clip.mp4", "%20?#.mp4", os.fsdecode(b"caf\xe9.mp4")])
def test_odd_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(Path(name), [0.0, 0.1])
    assert len(read(name)) == 2


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serves `tmp_path`."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_video_is_read_from_an_address(tmp_path: Path, address: str) -> None:
    write_clip(tmp_path / "clip.mp4", [0.0, 0.1, 0.2])
    with open_source(f"{address}/clip.mp4", image_folder_fps=1) as source:
        assert len(list(source)) == 3
        assert not source.is_live
        assert source.name.endswith("/clip.mp4")
        assert "secret" not in source.name


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "AVIF"])
def test_an_image_at_an_address_is_refused(tmp_path: Path, address: str, kind: str) -> None:
    (tmp_path / "picture").write_bytes(encode(Image.fromarray(quarters()), kind))
    with pytest.raises(VideoError, match=r"picture: one image; expected .*download the image") as caught:
        open_source(f"{address}/picture", image_folder_fps=1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("s3://bucket/clip.mp4", r"s3://bucket/clip\.mp4: an address of another kind; expected .*http\(s\) or rtsp"),
        (
            "http://127.0.0.1:9/clip.mp4",
            r"http://127.0.0.1:9/clip\.mp4: cannot be read as a video \(Connection refused",
        ),
        ("rtsp://127.0.0.1:9/live", r"rtsp://127.0.0.1:9/live: cannot be read as a video \(Connection refused"),
    ],
)
def test_addresses_that_are_refused(spec: str, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        open_source(spec, image_folder_fps=1)


def test_a_file_named_like_an_address_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter(Path("12:30.mp4"), (64, 48), 10) as writer:
        writer.write(quarters(), 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["12:30.mp4"]
