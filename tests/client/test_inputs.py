"""What a client takes as an image, and what it refuses before anything is sent."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssd_triton.client import DetectorClient, RequestRefusedError
from ssd_triton.client.inputs import encoded
from ssd_triton.measuring.request_cases import encode
from tests.conftest import free_url

PIXELS = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)


def decoded(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def test_files_are_sent_as_they_are(tmp_path: Path) -> None:
    jpeg = encode(PICTURE, "JPEG")
    (tmp_path / "a.jpg").write_bytes(jpeg)
    for given in (jpeg, bytearray(jpeg), memoryview(jpeg), tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        assert encoded(given) == jpeg


def test_pixels_arrive_without_loss() -> None:
    for given in (PIXELS, PIXELS[::-1][::-1], PICTURE, PICTURE.convert("RGBA")):
        np.testing.assert_array_equal(decoded(encoded(given)), PIXELS)


def test_16_bit_grey_of_pillow() -> None:
    assert decoded(encoded(Image.fromarray(np.full((16, 16), 77 * 257, np.uint16)))).mean() == 77


def test_what_a_server_cannot_decode_is_decoded_here() -> None:
    jpeg_2000 = encode(PICTURE, "JPEG2000", irreversible=False)
    np.testing.assert_array_equal(decoded(encoded(jpeg_2000)), PIXELS)


BASE64 = base64.b64encode(encode(PICTURE, "JPEG")).decode()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.jpg", r"missing\.jpg: got no such file"),
        (Path("missing.jpg"), r"missing\.jpg: got no such file"),
        ("https://example.org/a.jpg", "got the address https://example.org/a.jpg, expected a path"),
        (BASE64, "looks like base64.*base64.b64decode"),
        (f"data:image/jpeg;base64,{BASE64}", "looks like base64"),
        (PIXELS.astype(np.float32), r"got a frame of float32 \[24, 32, 3\], expected uint8"),
        (PIXELS[..., 0], r"got a frame of uint8 \[24, 32\], expected uint8"),
        (None, "got an image of type NoneType, expected the bytes"),
        ([PIXELS], "got an image of type list"),
        (Image.new("F", (16, 16)), "got floating-point pixels"),
    ],
    ids=["text", "path", "address", "base64", "data URL", "float", "grey", "None", "list", "float picture"],
)
def test_other_things_are_refused_here(given: Any, message: str) -> None:
    with DetectorClient(free_url()) as client:
        with pytest.raises(RequestRefusedError, match=message) as caught:
            client.detect(given)
        [refused] = client.map([given])
        assert str(refused) == str(caught.value)
        [refused] = client.stream([given])
        assert str(refused) == str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["x", None, b"x", PICTURE])
def test_a_frame_is_an_array(given: Any) -> None:
    with DetectorClient(free_url()) as client, pytest.raises(RequestRefusedError, match="got a frame of type"):
        client.detect_frame(given)
