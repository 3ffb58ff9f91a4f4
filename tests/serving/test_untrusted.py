"""Images that are made to harm: each is refused or served in no time, by the preprocessing in a process of its own."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from ssd_triton.common.model_names import PREPROCESS
from ssd_triton.config import Config
from ssd_triton.measuring.fuzz.corpus import make_corpus
from ssd_triton.measuring.fuzz.decoder import DecoderProcess
from ssd_triton.measuring.fuzz.mutation import mutate
from ssd_triton.measuring.fuzz.report import fuzz_markdown, write_report
from ssd_triton.measuring.fuzz.run import fuzz_decoder
from tests.images import encode, noise

HANG_S = 5.0
MIB = 1 << 20


@pytest.fixture(scope="module")
def model_folder(config: Config) -> Path:
    return config.model_repository / PREPROCESS


@pytest.fixture(scope="module")
def decoder(model_folder: Path) -> Iterator[DecoderProcess]:
    with DecoderProcess(model_folder, HANG_S) as running:
        yield running


# --- Files in millions of pieces, and files whose parts overlap -------------------------------------------------------


def png_of_many_chunks() -> bytes:
    plain, empty = encode(noise(), "PNG"), struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    return plain[:33] + 300_000 * empty + plain[33:]


def jpeg_of_many_segments() -> bytes:
    plain = encode(noise(), "JPEG")
    return plain[:2] + 500_000 * b"\xff\xe5\x00\x02" + plain[2:]


def gif_of_many_comments() -> bytes:
    return encode(noise().quantize(), "GIF")[:-1] + 500_000 * b"\x21\xfe\x01a\x00" + b";"


def gif_of_many_frames() -> bytes:
    frame = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    return encode(noise().quantize(), "GIF")[:-1] + 300_000 * frame + b";"


def directory(tags: list[tuple[int, int, int, int | None]], content: bytes) -> bytes:
    """A TIFF of one directory, whose tags without a value (None) are all the same content."""
    at = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", *tag[:3], at if tag[3] is None else tag[3]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def tiff_of_many_strips() -> bytes:
    count, fixed = 500_000, {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    tags = [(tag, 4, 1, value) for tag, value in fixed.items()]
    return directory([*tags, (273, 4, count, None), (279, 4, count, None)], struct.pack("<I", 8) * count)


def tiff_of_many_pictures() -> bytes:
    data = bytearray(encode(noise(), "TIFF"))
    begin = struct.unpack_from("<I", data, 4)[0]
    size = 2 + 12 * struct.unpack_from("<H", data, begin)[0]
    entries, at = bytes(data[begin : begin + size]), begin + size
    for _ in range(10_000):
        data[at : at + 4] = struct.pack("<I", len(data))
        at = len(data) + size
        data += entries + bytes(4)
    return bytes(data)


def overlapping_tags(tags: int, size: int) -> bytes:
    return directory([(40_000 + tag, 7, size, None) for tag in range(tags)], bytes(size))


def jpeg_of_overlapping_exif() -> bytes:
    exif, plain = overlapping_tags(20_000, 300_000), encode(noise(), "JPEG")
    parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
    # Without JFIF's own segment, PIL looks for the resolution in the EXIF.
    return plain[:2] + segments + plain[20:]


def run_length_bmp(width: int, height: int) -> bytes:
    rows = b"\x01\x01" * 3_000_000 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + header + bytes(1024) + rows


def jpeg_of_many_scans(scans: int, side_px: int) -> bytes:
    """A progressive JPEG whose scans that refine DC are empty: 16 bytes each, and a pass over all of its pixels."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    def scan(high: int, low: int) -> bytes:
        return segment(0xDA, b"\1\1\0" + bytes([0, 0, high << 4 | low]))

    frame = struct.pack(">BHHB", 8, side_px, side_px, 1) + b"\1\x11\0"
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, frame)
    tables += segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0")
    return b"\xff\xd8" + tables + scan(0, 1) + scan(1, 0) * (scans - 1) + b"\xff\xd9"


def tiff_of_overlapping_strips() -> bytes:
    """Every strip is the same LZW data, which libtiff decodes again for each."""
    count, data = 1_000, b"\x80" * 10_000
    fixed = {256: 8, 257: count, 258: 8, 259: 5, 262: 1, 277: 1, 278: 1}
    tags = [(tag, 4, 1, value) for tag, value in fixed.items()]
    begin = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags += [(273, 4, count, begin), (279, 4, count, begin + 4 * count)]
    lists = struct.pack("<I", begin + 8 * count) * count + struct.pack("<I", len(data)) * count
    return directory(tags, lists + data)


def compressed_tiff(compression: int) -> bytes:
    values = {256: 16, 257: 16, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 16, 279: 8}
    return directory([(tag, 4, 1, value) for tag, value in values.items()], bytes(64))


def empty_webp(width: int, height: int) -> bytes:
    return encode(Image.new("RGBA", (width, height)), "WEBP", lossless=True, quality=0, method=0)


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG of many chunks": (png_of_many_chunks, "more than 100000 pieces"),
    "JPEG of many segments": (jpeg_of_many_segments, "more than 100000 pieces"),
    "JPEG with fill bytes": (lambda: b"\xff\xd8" + b"\xff" * 4_000_000, "more than 100000 pieces"),
    "GIF of many comments": (gif_of_many_comments, "more than 100000 pieces"),
    "GIF of many frames": (gif_of_many_frames, "several images"),
    "TIFF of many strips": (tiff_of_many_strips, "500000 strips"),
    "TIFF of many pictures": (tiff_of_many_pictures, "several images"),
    "TIFF of overlapping tags": (lambda: overlapping_tags(20_000, 3_000_000), "header of more than 8388608 bytes"),
    "TIFF of a few overlapping tags": (lambda: overlapping_tags(100, 2_000_000), "header of more than 8388608 bytes"),
    "JPEG of overlapping EXIF": (jpeg_of_overlapping_exif, ""),
    "plain PPM": (lambda: b"P3 1500 1500 255\n" + b"1 " * 6_750_000, "rare encoding of PPM"),
    "PPM of odd depth": (lambda: b"P6 4000 4000 100\n" + bytes(48_000_000), "rare encoding of PPM"),
    "PPM of comments": (lambda: b"P6\n" + b"#a\n" * 500_000 + b"8 8 255\n" + bytes(192), "more than 100000 pieces"),
    "run-length BMP": (lambda: run_length_bmp(7000, 7000), "rare encoding of BMP"),
    "JPEG of many scans": (lambda: jpeg_of_many_scans(101, 64), "101 scans, expected at most 100"),
    "JPEG of scans over many pixels": (lambda: jpeg_of_many_scans(90, 7000), "got images of 269500000 pixels"),
    "JPEG of as many scans as allowed": (lambda: jpeg_of_many_scans(100, 1000), ""),
    "TIFF of overlapping strips": (tiff_of_overlapping_strips, "expected them not to overlap"),
    "TIFF of a rare compression": (lambda: compressed_tiff(50_000), "got a TIFF of compression 50000"),
    "more bytes than allowed": (lambda: bytes(67_108_865), "got 67108865 bytes, expected at most 67108864"),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_attacks_take_neither_time_nor_memory(decoder: DecoderProcess, case: str) -> None:
    make, words = ATTACKS[case]
    data = make()
    before = decoder.decode(encode(noise(), "PNG"))
    answer = decoder.decode(data)
    assert answer.outcome == ("refused" if words else "decoded"), answer.reason
    assert words in answer.reason
    assert answer.time_s < HANG_S
    assert answer.peak_bytes - before.peak_bytes < 3 * len(data) + 32 * MIB


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("prefix", [b"", b"data:image/any;base64,"])
def test_base64_is_named(decoder: DecoderProcess, kind: str, prefix: bytes) -> None:
    answer = decoder.decode(prefix + base64.b64encode(encode(noise(), kind)))
    assert answer.outcome == "refused"
    assert "an image in base64, expected the bytes of the file" in answer.reason


# --- The fuzzer -------------------------------------------------------------------------------------------------------


def test_the_corpus_has_every_format_and_is_decoded(decoder: DecoderProcess) -> None:
    corpus = make_corpus()
    assert corpus == make_corpus()
    assert {name.split()[0] for name in corpus} == {"JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"}
    assert sum(map(len, corpus.values())) < 500_000
    refused = {name: answer.reason for name, data in corpus.items() if (answer := decoder.decode(data)).reason}
    several = {"GIF animation", "PNG animation", "WEBP animation", "TIFF of two pictures"}
    # Pillow writes uncompressed YCbCr, and does not read it.
    assert set(refused) == {*several, "TIFF F", "PPM PFM", "TIFF YCbCr"}


def test_mutations_can_be_repeated() -> None:
    corpus = make_corpus()
    assert [mutate(3, index, corpus) for index in range(50)] == [mutate(3, index, corpus) for index in range(50)]
    changed = [mutate(3, index, corpus)[1] not in corpus.values() for index in range(500)]
    assert sum(changed) > 450


def test_a_short_run_has_no_findings(model_folder: Path, tmp_path: Path) -> None:
    result = fuzz_decoder(model_folder, tmp_path, inputs=1000, seed=1, timeout_s=HANG_S)
    assert result.findings == []
    assert result.inputs == 1000
    kinds = {outcome for _, outcome in result.outcomes}
    assert kinds == {"decoded", "refused"}
    assert "| 1,000 inputs |" in fuzz_markdown(result)
    assert [path.name for path in write_report(result, tmp_path, seed=1)] == ["report.md", "report.json", "fuzz.png"]
    with Image.open(tmp_path / "fuzz.png") as picture:
        assert picture.width > 1000


BAD_DECODING = """
import os, signal, time
import numpy as np
class RefusedInputError(ValueError): pass
class DecodingLimits:
    from_parameters = staticmethod(dict)
kept = []
def decode(data, limits):
    if data == b"crash": os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"hang": time.sleep(60)
    if data == b"raise": raise KeyError("a bug")
    if data == b"lines": raise RefusedInputError("two\\nlines")
    if data == b"shape": return np.zeros((3, 300, 300), np.uint8), (8, 8)
    if data == b"grow": kept.append(bytearray(os.urandom(1 << 20)))
    return np.zeros((300, 300, 3), np.uint8), (8, 8)
"""


@pytest.fixture
def bad_model(tmp_path: Path, model_folder: Path) -> Path:
    folder = tmp_path / PREPROCESS
    (folder / "1").mkdir(parents=True)
    (folder / "1/decoding.py").write_text(BAD_DECODING)
    (folder / "config.pbtxt").write_text((model_folder / "config.pbtxt").read_text())
    return folder


def test_every_kind_of_finding_is_found(bad_model: Path, tmp_path: Path) -> None:
    """With a model that crashes, hangs and forgets, on purpose: inputs are kept, and the run goes on."""
    inputs = [b"fine", b"crash", b"fine", b"hang", b"raise", b"lines", b"shape", b"fine"]
    result = fuzz_decoder(
        bad_model, tmp_path, inputs=8, seed=0, timeout_s=1.0, input_of=lambda index: ("x", inputs[index])
    )
    assert {kind: result.outcomes["x", kind] for kind in ("decoded", "crash", "hang", "exception")} == {
        "decoded": 3,
        "crash": 1,
        "hang": 1,
        "exception": 3,
    }
    words = ["code -11", "no answer within 1 s", "KeyError: 'a bug'", "no short line", "(3, 300, 300)"]
    assert all(word in finding for word, finding in zip(words, result.findings, strict=True)), result.findings
    assert (tmp_path / "findings/seed0-1.bin").read_bytes() == b"crash"


def test_growth_of_memory_is_found(bad_model: Path, tmp_path: Path) -> None:
    result = fuzz_decoder(bad_model, tmp_path, inputs=40, seed=0, timeout_s=5.0, input_of=lambda index: ("x", b"grow"))
    [finding] = result.findings
    assert "resident memory has grown by" in finding
