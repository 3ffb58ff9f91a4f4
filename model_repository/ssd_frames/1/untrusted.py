# Written from ssd_triton/media/untrusted.py by the build, do not edit. Digest: dd88c0aa47efef5d
"""Opens untrusted images, and refuses those that would take too much time or memory before they are decoded.

PIL parses everything around the pixels in Python, piece by piece, while it holds the interpreter lock: a file of a few
megabytes in millions of pieces would block the whole model for minutes. Its C decoders take time for every pixel and
every scan, and a file of 34 bytes can hold 50 million pixels.

The build copies this file into the models that decode, so that server and package treat images the same way. It depends
on NumPy and Pillow only.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Decoders that an image may reach; each one more is another one to attack."""
JPEG_MAGIC = b"\xff\xd8\xff"
START_OF_SCAN = 0xDAFF
"""The JPEG marker ff da as a little-endian number. Compressed pixels cannot contain it: there, a zero follows every
ff."""
MAX_SCANS = 100
"""Most scans of a JPEG. Cameras and optimisers write 10 to 12; libtiff has the same limit."""
SCANS_PER_DECODING = 20
"""So many scans take as long as the rest of decoding a JPEG. Measured per pixel: 0.35 ns for a scan, 8 ns for the
rest."""
MAX_READS = 100_000
"""Most reads of a file by PIL, at about 5 µs of Python each. A PNG of 64 MiB in chunks of 8 KiB needs 33,000."""
MAX_HEADER_BYTES = 8 << 20
"""Most bytes before the pixels; colour profiles have up to 3 MB."""
MAX_READINGS = 4
"""How often PIL may read every byte of a file, on average: all tags of a TIFF could point to the same large part."""
MAX_STRIPS = 65_536
"""Most strips or tiles of a TIFF, at about 20 µs of Python each; with one row in each, a tall image."""
MAX_PYTHON_PIXELS = 100_000
"""Most pixels of an image that PIL decodes in Python: plain PPM, PPM of unusual depths, run-length coded BMP."""
TIFF_COMPRESSIONS = {
    1: "none",
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",  # Adobe's number for it
}
"""Compressions of a TIFF (TIFF 6.0 and its supplement 2)."""
TIFF_JPEG = 7
BASE64_STARTS = (b"/9j/", b"iVBORw0KGgo", b"R0lGOD", b"UklGR", b"SUkqA", b"TU0AK", b"data:image/")
"""How JPEG, PNG, GIF, WebP and TIFF begin in base64, and a data URL."""
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L")
"""PIL's modes for 16-bit grey; its own conversion would clip them at 255."""
BIG_TIFF = 43
STRIP_TAGS = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
STRIP_BYTES_TAGS = (TiffImagePlugin.STRIPBYTECOUNTS, TiffImagePlugin.TILEBYTECOUNTS)


class RefusedInputError(ValueError):
    """An element that cannot be turned into an image."""


def check_request_work(work_px: int, max_pixels: int) -> None:
    """Refuse a request by the work that its images are together, in pixels."""
    if work_px > max_pixels:
        raise RefusedInputError(
            f"got images of {work_px} pixels in one request up to here, expected at most {max_pixels}: send fewer or "
            "smaller images in each (every 20 scans of a JPEG count as another image of its size)"
        )


def open_untrusted(
    data: bytes, *, max_file_bytes: int, min_side_px: int, max_pixels: int, formats: tuple[str, ...] = FORMATS
) -> tuple[Image.Image, int]:
    """Open one encoded image whose pixels are still to be decoded.

    Args:
        data: The file.
        max_file_bytes: Bytes it may have.
        min_side_px: Pixels that each side must have.
        max_pixels: Pixels it may have.
        formats: Decoders that it may reach.

    Returns:
        The image, and its work in pixels: a JPEG of 20 scans counts twice.

    Raises:
        RefusedInputError: It is not a single image within these limits, with the reason. On damaged files PIL raises
            almost anything else.
    """
    if not data:
        raise RefusedInputError("got 0 bytes, expected an encoded image")
    if len(data) > max_file_bytes:
        raise RefusedInputError(f"got {len(data)} bytes, expected at most {max_file_bytes}")
    file = _BoundedFile(data)
    if data[:4] in TiffImagePlugin.PREFIXES:
        _check_tiff(file, len(data))
    try:
        image = _Jpeg(file) if data[:3] == JPEG_MAGIC else Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise RefusedInputError(_unknown_format(data)) from None
    file.is_open = True
    check_size(*image.size, min_side_px=min_side_px, max_pixels=max_pixels)
    if getattr(image, "is_animated", False):
        raise RefusedInputError("got an animation or a file of several images, expected a single image")
    in_python = any(tile[0] in Image.DECODERS for tile in image.tile)
    if in_python and image.width * image.height > MAX_PYTHON_PIXELS:
        raise RefusedInputError(
            f"got {image.width} x {image.height} px in a rare encoding of {image.format}, expected at most "
            f"{MAX_PYTHON_PIXELS} pixels of it"
        )
    return image, _work_px(image, data)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode that PIL can to RGB of 8 bits.

    Transparency is dropped and EXIF orientation not applied, as in training.

    Raises:
        RefusedInputError: The pixels are floating-point numbers.
    """
    if image.mode in SIXTEEN_BIT_MODES:
        samples = np.asarray(image)
        return Image.fromarray((np.clip(samples, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise RefusedInputError("got floating-point pixels, expected 8 or 16 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def printable(error: object) -> str:
    """Give an error's text without control characters, which a file may have put there."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in str(error))


def check_size(width: int, height: int, *, min_side_px: int, max_pixels: int) -> None:
    """Refuse an image by its size in pixels."""
    if min(width, height) < min_side_px:
        raise RefusedInputError(f"got {width} x {height} px, expected sides of {min_side_px} px or more")
    if width * height > max_pixels:
        raise RefusedInputError(f"got {width} x {height} px, expected at most {max_pixels} pixels")


def _unknown_format(data: bytes) -> str:
    found = f"got {len(data)} bytes that begin with {bytes(data[:12])!r}"
    if data.startswith(BASE64_STARTS):
        return f"{found}: an image in base64, expected the bytes of the file: decode it before it is sent"
    return f"{found}, expected one of {', '.join(FORMATS)}"


def _work_px(image: Image.Image, data: bytes) -> int:
    """Give the pixels that decoding an image has to work on, and refuse a JPEG of too many scans.

    An embedded preview may have scans of its own, which are counted as well.
    """
    pixels = image.width * image.height
    if data[:3] == JPEG_MAGIC:
        return jpeg_work_px(pixels, _count_scans(data))
    tiff_tags = getattr(image, "tag_v2", {})
    if image.format != "TIFF" or tiff_tags.get(TiffImagePlugin.COMPRESSION) != TIFF_JPEG:
        return pixels
    # Every strip or tile is a JPEG of its own.
    return jpeg_work_px(pixels, _count_scans(data) // max(1, len(_first(tiff_tags, STRIP_TAGS))))


def jpeg_work_px(pixels: int, scans: int) -> int:
    """Give the work of decoding a JPEG in pixels.

    Args:
        pixels: Pixels of the image.
        scans: Its scans; each looks at all pixels.

    Raises:
        RefusedInputError: It has too many scans.
    """
    if scans > MAX_SCANS:
        raise RefusedInputError(f"got a JPEG of {scans} scans, expected at most {MAX_SCANS}")
    return pixels * (SCANS_PER_DECODING + scans) // SCANS_PER_DECODING


def _count_scans(data: bytes) -> int:
    """Count the markers of scans, in pairs of bytes at even and at odd offsets: about twice as fast as bytes.count."""
    pairs = (np.frombuffer(data, "<u2", (len(data) - first) // 2, first) for first in (0, 1))
    return sum(int(np.count_nonzero(pair == START_OF_SCAN)) for pair in pairs)


def _check_tiff(file: _BoundedFile, file_bytes: int) -> None:
    """Refuse a TIFF by the parts and the compression of its first image, and leave the file at its beginning.

    libtiff reads the strips from memory, past the limits of the bounded file: they may not overlap.
    """
    header = file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header + (file.read(8) if header[2] == BIG_TIFF else b""))
    file.seek(directory.next)
    directory.load(file)
    strips = len(_first(directory, STRIP_TAGS))
    if strips > MAX_STRIPS:
        raise RefusedInputError(f"got a TIFF in {strips} strips or tiles, expected at most {MAX_STRIPS}")
    strip_bytes = sum(_first(directory, STRIP_BYTES_TAGS))
    if strip_bytes > file_bytes:
        raise RefusedInputError(
            f"got a TIFF of {file_bytes} bytes whose strips or tiles have {strip_bytes}, expected them not to overlap"
        )
    compression = directory.get(TiffImagePlugin.COMPRESSION, 1)
    if compression not in TIFF_COMPRESSIONS:
        names = ", ".join(dict.fromkeys(TIFF_COMPRESSIONS.values()))
        raise RefusedInputError(f"got a TIFF of compression {compression}, expected one of {names}")
    file.seek(0)


def _first(directory: Any, tags: Sequence[int]) -> Sequence[int]:
    """Give the values of the first of some tags that a TIFF has."""
    return next((values for tag in tags if (values := directory.get(tag))), ())


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF is never read; of several pictures (MPO), the first.

    PIL would look there for a resolution: EXIF of half a megabyte whose tags are all the same part of it would take
    gigabytes.
    """

    def getexif(self) -> Image.Exif:
        return Image.Exif()


class _BoundedFile(io.BytesIO):
    """A file with limits on the reads and bytes that PIL may take, and on the bytes it may take before it is open."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.is_open = False
        self.reads = 0
        self.bytes_read = 0
        self.max_bytes = MAX_READINGS * len(data) + MAX_HEADER_BYTES

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise RefusedInputError(f"got a file of more than {MAX_READS} pieces, expected an ordinary image")
        piece = super().read(size)
        self.bytes_read += len(piece)
        # The WebP decoder reads the whole file at once, without a size.
        if not self.is_open and size is not None and size >= 0 and self.bytes_read > MAX_HEADER_BYTES:
            raise RefusedInputError(f"got a header of more than {MAX_HEADER_BYTES} bytes, expected an ordinary image")
        if self.bytes_read > self.max_bytes:
            raise RefusedInputError("got a file whose parts overlap many times, expected an ordinary image")
        return piece
