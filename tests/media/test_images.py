"""What files hold, by their content: every picture is decoded as a server decodes it, or refused with a reason."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from ssd_triton.common.errors import ImageError
from ssd_triton.common.files import ROOT, printable_name
from ssd_triton.config import Config
from ssd_triton.measuring.request_cases import encode
from ssd_triton.media import decoding, images
from ssd_triton.media.images import exif_orientation, image_format, is_image, list_images, natural_key, read_served
from ssd_triton.serving.repository.model_config import load_model_config
from tests.media.clips import corner_colours, quarters

FOUR = Image.fromarray(quarters())


def turned_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def heic(image: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def avif(image: Image.Image, **options: object) -> bytes:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    return encode(image, "AVIF", quality=100, subsampling="4:4:4", **options)


# --- Formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "format_name"),
    [
        ("JPEG", "JPEG"),
        ("MPO", "JPEG"),
        ("PNG", "PNG"),
        ("BMP", "BMP"),
        ("GIF", "GIF"),
        ("TIFF", "TIFF"),
        ("WEBP", "WebP"),
        ("PPM", "PPM"),
        ("JPEG2000", "JPEG 2000"),
    ],
)
def test_content_alone_decides_what_an_image_is(tmp_path: Path, kind: str, format_name: str) -> None:
    encoded = encode(FOUR, kind)
    assert image_format(encoded[:64]) == format_name
    for name in ("no_suffix", "x.mp4", "x.heic", "x.txt"):
        (tmp_path / name).write_bytes(encoded)
        assert is_image(tmp_path / name)
    assert len(list_images(tmp_path).paths) == 4


def test_heic_and_avif_are_images_by_their_content() -> None:
    assert image_format(heic(FOUR)[:64]) == "HEIC"
    assert image_format(avif(FOUR)[:64]) == "AVIF"


@pytest.mark.parametrize("text", [b"BMW and others", b"P1 is a position", b"RIFF????WAVE", b"....ftypisom....", b""])
def test_text_and_videos_are_no_images(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    assert not is_image(tmp_path / "file")
    found = list_images(tmp_path)
    assert (found.paths, found.skipped) == ((), (f"file ({'not an image' if text else 'empty'})",))


@pytest.mark.parametrize("make", [heic, avif, lambda image: encode(image, "JPEG2000", irreversible=False)])
def test_what_a_server_cannot_decode_is_decoded_whole_and_sent_without_loss(tmp_path: Path, make: object) -> None:
    assert callable(make)
    large = Image.fromarray(quarters(1100, 700))
    (tmp_path / "photo").write_bytes(make(large))
    served = read_served(tmp_path / "photo")
    assert served.startswith(b"\x89PNG")
    pixels = decoding.decode_rgb((tmp_path / "photo").read_bytes())
    assert pixels.shape == (700, 1100, 3)
    assert corner_colours(pixels) == corner_colours(quarters())
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(served))))


def test_the_orientation_of_the_formats_that_have_one_is_applied() -> None:
    upright = corner_colours(np.asarray(FOUR.transpose(Image.Transpose.ROTATE_270)))
    assert corner_colours(decoding.decode_rgb(avif(FOUR, exif=turned_exif(6)))) == upright
    assert corner_colours(decoding.decode_rgb(heic(FOUR, exif=turned_exif(6).tobytes()))) == upright


@pytest.mark.parametrize("suffix", ["jpg", "jfif", "", "png"])
def test_exif_is_not_applied_whatever_the_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(encode(FOUR, "JPEG", quality=95, exif=turned_exif(6)))
    assert decoding.open_rgb(read_served(path)).size == FOUR.size
    assert decoding.image_size_px(read_served(path)) == FOUR.size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_in_exif_is_found(kind: str, orientation: int) -> None:
    assert exif_orientation(encode(FOUR, kind, exif=turned_exif(orientation))) == orientation


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_is_no_orientation(exif: bytes) -> None:
    assert exif_orientation(exif) == 1


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.full((16, 16), 77 * 257, np.uint16)),
        Image.fromarray(np.full((16, 16), 77, np.uint8)),
    ],
)
def test_16_bit_grey_is_as_bright_as_8_bit_grey(image: Image.Image) -> None:
    assert decoding.decode_rgb(encode(image, "PNG")).mean() == 77


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.jpg: got 0 bytes, expected an encoded image; replace it"),
        (b"<html>gone</html>", r"x\.jpg: got 17 bytes that begin with b'<html>gone</'.*expected one of JPEG"),
        (b"\xff\x0a" + bytes(60), r"x\.jpg: got JPEG XL, expected one of JPEG.*; convert it"),
        (b"8BPS" + bytes(60), r"x\.jpg: got Photoshop, expected"),
        (b"iVBORw0KGgoAAAANSUhEUg==", r"x\.jpg: .*an image in base64, expected the bytes of the file"),
        (encode(FOUR, "PNG")[:100], r"x\.jpg: got an image that is damaged.*; replace it"),
        (encode(Image.new("RGB", (4, 4)), "PNG"), r"x\.jpg: got 4 x 4 px, expected sides of 8 px or more"),
        (encode(Image.new("1", (8000, 8000)), "PNG"), r"x\.jpg: got 8000 x 8000 px, expected at most 50000000 pixels"),
    ],
    ids=["empty", "HTML", "JPEG XL", "Photoshop", "base64", "cut", "tiny", "huge"],
)
def test_a_refusal_names_file_found_expected_and_next_step(content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        decoding.decode_rgb(content, "x.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF", "JPEG 2000"])
def test_a_missing_decoder_is_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    head = {"HEIC": b"\0\0\0\x18ftypheic", "AVIF": b"\0\0\0\x18ftypavif", "JPEG 2000": b"\xff\x4f\xff\x51"}[kind]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(ImageError, match=rf"x: got {kind}, expected .*pip install.*; or convert it to JPEG or PNG"):
        decoding.decode_rgb(head + bytes(100), "x")


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r"missing: got no such file"):
        images.read_image(tmp_path / "missing")
    with pytest.raises(ImageError, match=r"got something other than a file"):
        images.read_image(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r"got a folder, expected an image"):
        images.read_image(tmp_path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError, match=r"large: got 67108865 bytes, expected an image of at most 67108864"):
        images.read_image(tmp_path / "large")


def test_overlapping_exif_entries_take_no_memory() -> None:
    count, part = 20_000, 400_000
    entries = b"".join(struct.pack("<HHII", 40_000 + index, 7, part, 8) for index in range(count))
    directory = b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(part)
    exif = b"Exif\0\0" + directory
    jpeg = encode(FOUR, "JPEG")
    for segment in (exif[:65_000],):
        jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert decoding.decode_rgb(jpeg).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="got EXIF whose parts overlap many times"):
        decoding.decode_rgb(avif(FOUR) + directory)


def test_limits_are_those_of_the_server(config: Config) -> None:
    parameters = load_model_config(ROOT / "model_repository/ssd_preprocess/config.pbtxt").parameters
    for name, value in (
        ("max_file_bytes", images.MAX_FILE_BYTES),
        ("min_side_px", decoding.MIN_SIDE_PX),
        ("max_pixels", decoding.MAX_PIXELS),
        ("max_request_pixels", decoding.MAX_WORK_PX),
    ):
        assert int(parameters[name].string_value) == value


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_names_what_it_skips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    FOUR.save(tmp_path / "a.jpg")
    FOUR.save(tmp_path / "b", "PNG")
    (tmp_path / "._a.jpg").write_bytes(bytes.fromhex("0005160700020000") + bytes(50))
    (tmp_path / "AppleDouble.jpg").write_bytes(bytes.fromhex("0005160700020000") + bytes(50))
    (tmp_path / ".hidden.jpg").write_bytes(encode(FOUR, "JPEG"))
    (tmp_path / "z.jpg").symlink_to("nowhere/z.jpg")
    (tmp_path / "thumbs.jpg").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "new.jxl").write_bytes(b"\xff\x0a" + bytes(60))
    (tmp_path / "damaged.jpg").write_text("no image")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = list_images(tmp_path)
    assert [path.name for path in found.paths] == ["a.jpg", "b", "damaged.jpg"]
    assert set(found.skipped) == {
        "._a.jpg (hidden, macOS's metadata)",
        "AppleDouble.jpg (macOS's metadata)",
        ".hidden.jpg (hidden)",
        "z.jpg (a link to nothing)",
        "thumbs.jpg (a folder)",
        "notes.txt (not an image)",
        "new.jxl (JPEG XL)",
        "pipe.jpg (not a file)",
    }
    found.warn_of_skipped()
    [line] = caplog.messages
    assert re.search(r"8 of 11 entries are no images and were skipped: \.", line)


def test_numbers_are_in_the_order_of_their_values() -> None:
    names = ["frame_10.png", "frame_9.png", "frame_1.png", "2a", "10a", "a.2", "a.10", "01", "1", "x" * 9 + "9" * 200]
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
    assert sorted(names[:3], key=natural_key) == ["frame_1.png", "frame_9.png", "frame_10.png"]


def test_names_are_printable() -> None:
    assert printable_name("grüße.jpg") == "grüße.jpg"
    assert printable_name(os.fsdecode(b"caf\xe9\x1b[31m\n.jpg")) == "caf\\xe9\\x1b[31m\\x0a.jpg"
    assert json.dumps(printable_name(os.fsdecode(b"\xff"))) == '"\\\\xff"'
