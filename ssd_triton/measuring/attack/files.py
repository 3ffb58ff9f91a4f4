"""Hostile images: small files that cost a careless decoder seconds or gigabytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from ssd_triton.measuring.request_cases import encode

_TIFF_LONG, _TIFF_UNDEFINED = 4, 7
"""Types of a TIFF's values (TIFF 6.0, section 2)."""
_BASELINE, _PROGRESSIVE = 0xC0, 0xC2
"""Markers of a JPEG's frame (ITU T.81, table B.1)."""


@dataclass(frozen=True)
class HostileFile:
    """A hostile file, and the expected outcome.

    Attributes:
        make: Makes the file, always with the same content.
        reason: Words that the refusal must contain; empty if the file is harmless and must be decoded.
    """

    make: Callable[[], bytes]
    reason: str


def noise() -> Image.Image:
    """Return a picture of 16 x 16 px."""
    return Image.effect_noise((16, 16), 50).convert("RGB")


# --- Files in millions of pieces --------------------------------------------------------------------------------------


def _png_of_many_chunks() -> bytes:
    plain, empty = encode(noise(), "PNG"), struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    return plain[:33] + 300_000 * empty + plain[33:]


def _png_of_inflating_text() -> bytes:
    """Return a PNG with a comment of 100 kB that would inflate to 100 MB."""
    plain, body = encode(noise(), "PNG"), b"zTXta\0\0" + zlib.compress(bytes(100_000_000), 9)
    return plain[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + plain[33:]


def _jpeg_of_many_segments() -> bytes:
    plain = encode(noise(), "JPEG")
    return plain[:2] + 500_000 * b"\xff\xe5\x00\x02" + plain[2:]


def _gif_of_many_comments() -> bytes:
    return encode(noise().quantize(), "GIF")[:-1] + 500_000 * b"\x21\xfe\x01a\x00" + b";"


def _gif_of_many_frames() -> bytes:
    frame = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    return encode(noise().quantize(), "GIF")[:-1] + 300_000 * frame + b";"


def _tiff(tags: list[tuple[int, int, int, int | None]], content: bytes) -> bytes:
    """Return a TIFF of one directory, in which all tags without a value (None) share the same content."""
    at = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", *tag[:3], at if tag[3] is None else tag[3]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def _tiff_of_many_strips() -> bytes:
    count, fixed = 500_000, {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    tags: list[tuple[int, int, int, int | None]] = [(tag, _TIFF_LONG, 1, value) for tag, value in fixed.items()]
    return _tiff([*tags, (273, _TIFF_LONG, count, None), (279, _TIFF_LONG, count, None)], struct.pack("<I", 8) * count)


def _tiff_of_many_pictures() -> bytes:
    data = bytearray(encode(noise(), "TIFF"))
    begin = struct.unpack_from("<I", data, 4)[0]
    size = 2 + 12 * struct.unpack_from("<H", data, begin)[0]
    entries, at = bytes(data[begin : begin + size]), begin + size
    for _ in range(10_000):
        data[at : at + 4] = struct.pack("<I", len(data))
        at = len(data) + size
        data += entries + bytes(4)
    return bytes(data)


# --- Files whose parts overlap ----------------------------------------------------------------------------------------


def _tiff_of_overlapping_tags(tags: int, size_bytes: int) -> bytes:
    return _tiff([(40_000 + tag, _TIFF_UNDEFINED, size_bytes, None) for tag in range(tags)], bytes(size_bytes))


def _jpeg_of_overlapping_exif() -> bytes:
    exif, plain = _tiff_of_overlapping_tags(20_000, 300_000), encode(noise(), "JPEG")
    parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
    # Without a JFIF segment, PIL looks for the resolution in EXIF.
    return plain[:2] + segments + plain[20:]


def _tiff_of_overlapping_parts(parts: int, *, tiles: bool) -> bytes:
    """Return a TIFF whose strips or tiles all share the same LZW data, which libtiff would decode for each again."""
    data = b"\x80" * 10_000
    fixed = {256: 8, 257: parts, 258: 8, 259: 5, 262: 1, 277: 1}
    fixed |= {256: 16, 257: 16 * parts, 322: 16, 323: 16} if tiles else {278: 1}
    offsets, sizes = (324, 325) if tiles else (273, 279)
    tags: list[tuple[int, int, int, int | None]] = [(tag, _TIFF_LONG, 1, value) for tag, value in fixed.items()]
    begin = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags += [(offsets, _TIFF_LONG, parts, begin), (sizes, _TIFF_LONG, parts, begin + 4 * parts)]
    lists = struct.pack("<I", begin + 8 * parts) * parts + struct.pack("<I", len(data)) * parts
    return _tiff(tags, lists + data)


# --- Little data for many pixels, or many passes over them ------------------------------------------------------------


def _jpeg_of_many_scans(scans: int, side_px: int, frame_marker: int = _PROGRESSIVE) -> bytes:
    """Return a grey JPEG of empty scans: 16 bytes each, but in a progressive file a pass over all pixels."""

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    def scan(last: int, high: int, low: int) -> bytes:
        return segment(0xDA, b"\1\1\0" + bytes([0, last, high << 4 | low]))

    frame = struct.pack(">BHHB", 8, side_px, side_px, 1) + b"\1\x11\0"
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(frame_marker, frame)
    for table in (0x00, 0x10):
        tables += segment(0xC4, bytes([table, 1] + [0] * 15) + b"\0")
    if frame_marker == _PROGRESSIVE:
        return b"\xff\xd8" + tables + scan(0, 0, 1) + scan(0, 1, 0) * (scans - 1) + b"\xff\xd9"
    return b"\xff\xd8" + tables + scan(63, 0, 0) * scans + b"\xff\xd9"


def _tiff_of_jpeg_scans(scans: int, side_px: int) -> bytes:
    data = _jpeg_of_many_scans(scans, side_px)
    values = {256: side_px, 257: side_px, 258: 8, 259: 7, 262: 1, 277: 1, 278: side_px, 279: len(data)}
    return _tiff([*((tag, _TIFF_LONG, 1, value) for tag, value in values.items()), (273, _TIFF_LONG, 1, None)], data)


def _tiff_of_compression(compression: int) -> bytes:
    values = {256: 16, 257: 16, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 16, 279: 8}
    return _tiff([(tag, _TIFF_LONG, 1, value) for tag, value in values.items()], bytes(64))


def _run_length_bmp(width_px: int, height_px: int) -> bytes:
    rows = b"\x01\x01" * 3_000_000 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width_px, height_px, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + header + bytes(1024) + rows


def empty_picture(kind: str, width_px: int, height_px: int) -> bytes:
    """Return an image of one colour: 34 bytes as lossless WebP, some kilobytes as PNG or GIF."""
    if kind == "WEBP":
        return encode(Image.new("RGBA", (width_px, height_px)), kind, lossless=True, quality=0, method=0)
    return encode(Image.new("P" if kind == "GIF" else "L", (width_px, height_px)), kind)


_TOO_MANY = "more than 100000 pieces"
_HEADER = "header of more than 8388608 bytes"
_OVERLAP = "expected them not to overlap"
HOSTILE_FILES: dict[str, HostileFile] = {
    "PNG of many chunks": HostileFile(_png_of_many_chunks, _TOO_MANY),
    "PNG of inflating text": HostileFile(_png_of_inflating_text, "the image is damaged or of an unsupported kind"),
    "JPEG of many segments": HostileFile(_jpeg_of_many_segments, _TOO_MANY),
    "JPEG with fill bytes": HostileFile(lambda: b"\xff\xd8" + b"\xff" * 4_000_000, _TOO_MANY),
    "GIF of many comments": HostileFile(_gif_of_many_comments, _TOO_MANY),
    "GIF of many frames": HostileFile(_gif_of_many_frames, "several images"),
    "TIFF of many strips": HostileFile(_tiff_of_many_strips, "500000 strips"),
    "TIFF of many pictures": HostileFile(_tiff_of_many_pictures, "several images"),
    "TIFF of overlapping tags": HostileFile(lambda: _tiff_of_overlapping_tags(20_000, 3_000_000), _HEADER),
    "TIFF of a few overlapping tags": HostileFile(lambda: _tiff_of_overlapping_tags(100, 2_000_000), _HEADER),
    "TIFF of overlapping strips": HostileFile(lambda: _tiff_of_overlapping_parts(1_000, tiles=False), _OVERLAP),
    "TIFF of overlapping tiles": HostileFile(lambda: _tiff_of_overlapping_parts(1_000, tiles=True), _OVERLAP),
    "TIFF of a rare compression": HostileFile(lambda: _tiff_of_compression(50_000), "got a TIFF of compression 50000"),
    "TIFF of JPEG scans": HostileFile(lambda: _tiff_of_jpeg_scans(101, 64), "101 scans, expected at most 100"),
    "JPEG of overlapping EXIF": HostileFile(_jpeg_of_overlapping_exif, ""),
    "JPEG of many scans": HostileFile(lambda: _jpeg_of_many_scans(101, 64), "101 scans, expected at most 100"),
    "baseline JPEG of many scans": HostileFile(
        lambda: _jpeg_of_many_scans(101, 64, _BASELINE), "101 scans, expected at most 100"
    ),
    "JPEG of scans over many pixels": HostileFile(
        lambda: _jpeg_of_many_scans(90, 7000), "got images of 269500000 pixels"
    ),
    "JPEG of as many scans as allowed": HostileFile(lambda: _jpeg_of_many_scans(100, 1000), ""),
    "plain PPM": HostileFile(lambda: b"P3 1500 1500 255\n" + b"1 " * 6_750_000, "rare encoding of PPM"),
    "PPM of odd depth": HostileFile(lambda: b"P6 4000 4000 100\n" + bytes(48_000_000), "rare encoding of PPM"),
    "PPM of comments": HostileFile(lambda: b"P6\n" + b"#a\n" * 500_000 + b"8 8 255\n" + bytes(192), _TOO_MANY),
    "run-length BMP": HostileFile(lambda: _run_length_bmp(7000, 7000), "rare encoding of BMP"),
    "more bytes than allowed": HostileFile(lambda: bytes(67_108_865), "got 67108865 bytes, expected at most 67108864"),
}
"""All hostile files by name, for messages and reports."""
