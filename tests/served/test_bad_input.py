"""Each bad input fails alone and clearly; the requests beside it succeed and the server stays healthy."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpc_client
from PIL import Image
from tritonclient.utils import InferenceServerException

from ssd_triton.client import DetectorClient, RequestRefusedError
from ssd_triton.common.detections import Detections
from ssd_triton.measuring.attack.files import empty_picture
from ssd_triton.measuring.request_cases import encode
from ssd_triton.serving.server import EmbeddedServer
from tests.served.helpers import assert_equal


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that would decode to width x height pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


def animated_gif(photograph_rgb: np.ndarray) -> bytes:
    frames = [Image.fromarray(np.roll(photograph_rgb, shift, axis=1)) for shift in (0, 40)]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


REFUSED = {
    "empty": (lambda jpeg, rgb: b"", ["got 0 bytes"]),
    "text": (lambda jpeg, rgb: b"hello world, this is no image", ["got 29 bytes", "hello world", "expected one of"]),
    "text like an error of Triton": (lambda jpeg, rgb: b"is not ready", ["got 12 bytes", "is not ready"]),
    "html": (lambda jpeg, rgb: b"<!DOCTYPE html><html></html>", ["<!DOCTYPE"]),
    "truncated JPEG": (lambda jpeg, rgb: jpeg[: len(jpeg) // 2], ["damaged", "truncated"]),
    "JPEG header only": (lambda jpeg, rgb: jpeg[:30], ["batch element 0"]),
    "truncated PNG": (lambda jpeg, rgb: encode(Image.fromarray(rgb), "PNG")[:20_000], ["damaged"]),
    "1 x 1": (lambda jpeg, rgb: encode(Image.new("RGB", (1, 1)), "PNG"), ["got 1 x 1 px", "8 px or more"]),
    "animation": (lambda jpeg, rgb: animated_gif(rgb), ["animation", "several images", "expected a single image"]),
    "bomb": (lambda jpeg, rgb: bomb(50_000, 50_000), ["got 50000 x 50000 px", "at most 50000000 pixels"]),
    "floating point": (lambda jpeg, rgb: encode(Image.new("F", (64, 64)), "TIFF"), ["floating-point"]),
    "PDF": (lambda jpeg, rgb: encode(Image.fromarray(rgb), "PDF"), ["%PDF", "expected one of JPEG"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_alone(
    light_detector: DetectorClient, photograph: bytes, photograph_rgb: np.ndarray, case: str
) -> None:
    make, words = REFUSED[case]
    bad = make(photograph, photograph_rgb)
    good = light_detector.detect(photograph)
    before, refusal, after = light_detector.map([photograph, bad, photograph])
    assert isinstance(refusal, RequestRefusedError)
    for word in words:
        assert word in str(refusal)
    assert "\n" not in str(refusal)
    for answer in (before, after):
        assert isinstance(answer, Detections)
        assert_equal(answer, good)
    assert light_detector.is_ready()


def test_a_bomb_is_refused_before_it_is_decoded(light_grpc_detector: DetectorClient) -> None:
    start_s = time.monotonic()
    with pytest.raises(RequestRefusedError):
        light_grpc_detector.detect(bomb(30_000, 30_000))
    # Decoding 900 million pixels takes several seconds and 2.7 GB.
    assert time.monotonic() - start_s < 2


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (empty_picture("WEBP", 16_383, 3050), "batch element 2: got images of 149904450 pixels in one request"),
        (b"x", "batch element 2: got 1 bytes"),
    ],
)
def test_a_batch_is_checked_before_one_of_its_images_is_decoded(
    light_server: EmbeddedServer, light_grpc_detector: DetectorClient, last: bytes, words: str
) -> None:
    large = empty_picture("WEBP", 16_383, 3050)
    before_s = cpu_time_s(light_server)
    with pytest.raises(RequestRefusedError, match=words):
        light_grpc_detector.detect_batch([large, large, last])
    # Decoding a large one takes about a second.
    assert cpu_time_s(light_server) - before_s < 0.5


def cpu_time_s(server: EmbeddedServer) -> float:
    """Of the server and all its processes so far."""
    root = psutil.Process(server.pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def test_one_bad_image_fails_its_batch_and_is_named(light_grpc_detector: DetectorClient, photograph: bytes) -> None:
    with pytest.raises(RequestRefusedError, match="batch element 2: got 1 bytes"):
        light_grpc_detector.detect_batch([photograph, photograph, b"x"])


def test_a_stream_goes_on_after_a_refusal(light_grpc_detector: DetectorClient, photograph: bytes) -> None:
    good, refusal, also_good = light_grpc_detector.stream([photograph, b"is not ready", photograph])
    assert isinstance(refusal, RequestRefusedError)
    assert isinstance(good, Detections)
    assert isinstance(also_good, Detections)
    assert_equal(good, also_good)


ACCEPTED = {
    "RGBA": lambda rgb: encode(Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])), "PNG"),
    "PPM": lambda rgb: encode(Image.fromarray(rgb), "PPM"),
    "BMP": lambda rgb: encode(Image.fromarray(rgb), "BMP"),
    "TIFF": lambda rgb: encode(Image.fromarray(rgb), "TIFF"),
    "lossless WebP": lambda rgb: encode(Image.fromarray(rgb), "WEBP", lossless=True),
    "rotated by EXIF": lambda rgb: encode(Image.fromarray(rgb), "PNG", exif=rotated_exif()),
}


def rotated_exif() -> Image.Exif:
    """Orientation 6: to be turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("case", ACCEPTED)
def test_same_pixels_same_detections(
    light_grpc_detector: DetectorClient, photograph_rgb: np.ndarray, case: str
) -> None:
    expected = light_grpc_detector.detect_frame(photograph_rgb)
    assert_equal(light_grpc_detector.detect(ACCEPTED[case](photograph_rgb)), expected)


def test_sixteen_bits_keep_their_high_byte(light_grpc_detector: DetectorClient, photograph_rgb: np.ndarray) -> None:
    grey = np.asarray(Image.fromarray(photograph_rgb).convert("L"))
    sixteen = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    assert sixteen.mode == "I;16"
    expected = light_grpc_detector.detect(encode(Image.fromarray(grey), "PNG"))
    assert len(expected) > 1
    for kind in ("PNG", "TIFF"):
        assert_equal(light_grpc_detector.detect(encode(sixteen, kind)), expected)


@pytest.mark.parametrize(
    "case",
    {
        "palette PNG": lambda rgb: encode(Image.fromarray(rgb).quantize(256), "PNG"),
        "palette with transparency": lambda rgb: encode(Image.fromarray(rgb).quantize(255), "PNG", transparency=3),
        "still GIF": lambda rgb: encode(Image.fromarray(rgb), "GIF"),
        "CMYK JPEG": lambda rgb: encode(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=95),
        "grey JPEG": lambda rgb: encode(Image.fromarray(rgb).convert("L"), "JPEG", quality=95),
        "grey with alpha": lambda rgb: encode(Image.fromarray(rgb).convert("LA"), "PNG"),
        "progressive JPEG": lambda rgb: encode(Image.fromarray(rgb), "JPEG", quality=95, progressive=True),
    }.items(),
    ids=lambda case: case[0],
)
def test_converted_images_still_show_the_person(
    grpc_detector: DetectorClient, photograph_rgb: np.ndarray, labels: tuple[str, ...], case: tuple[str, object]
) -> None:
    found = grpc_detector.detect(case[1](photograph_rgb)).filter(score_thresh=0.5)  # type: ignore[operator]
    assert [labels[class_id] for class_id in found.class_ids] == ["person"]


BAD_FRAMES = {
    "rank 2": np.zeros((300, 300), np.uint8),
    "one channel": np.zeros((300, 300, 1), np.uint8),
    "four channels": np.zeros((300, 300, 4), np.uint8),
    "zero height": np.zeros((0, 300, 3), np.uint8),
    "zero size": np.zeros((0, 0, 3), np.uint8),
    "float": np.zeros((300, 300, 3), np.float32),
    "16 bit": np.zeros((300, 300, 3), np.uint16),
    "one pixel": np.zeros((1, 1, 3), np.uint8),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_frames_are_refused_by_the_client(light_detector: DetectorClient, case: str) -> None:
    with pytest.raises(RequestRefusedError, match="expected"):
        light_detector.detect_frame(BAD_FRAMES[case])
    assert light_detector.is_ready()


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_frames_are_refused_by_the_server_too(light_server: EmbeddedServer, case: str) -> None:
    """Other clients than ours do not check."""
    frame = BAD_FRAMES[case][np.newaxis]
    client = grpc_client.InferenceServerClient(light_server.url("grpc"))
    dtype = {"uint8": "UINT8", "uint16": "UINT16", "float32": "FP32"}[frame.dtype.name]
    tensor = grpc_client.InferInput("FRAME", list(frame.shape), dtype)
    tensor.set_data_from_numpy(frame)
    with pytest.raises(InferenceServerException) as error:
        client.infer("ssd_frames", [tensor])
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert client.is_server_ready()
