"""Test cases: images that a server must answer, and inputs that it must refuse for a given reason."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.detector.export.samples import sample_photograph

SMALL_PX = (160, 120)
"""Size of the images for the preprocessing alone: quick to decode, so that many can be sent in little time."""


@dataclass(frozen=True)
class Case:
    """An input, and the expected outcome.

    Attributes:
        name: Name for messages.
        image: An encoded image, or a frame UINT8 [H, W, 3] RGB.
        reason: Words that the refusal must contain; None if the input must be answered.
    """

    name: str
    image: bytes | UInt8Array
    reason: str | None = None

    @property
    def encoded(self) -> bytes:
        """The encoded image; raises TypeError for a frame."""
        if not isinstance(self.image, bytes):
            raise TypeError(f"{self.name}: got a frame, expected an encoded image")
        return self.image

    @property
    def frame(self) -> UInt8Array:
        """The frame; raises TypeError for an encoded image."""
        if isinstance(self.image, bytes):
            raise TypeError(f"{self.name}: got an encoded image, expected a frame")
        return self.image


def photograph() -> Image.Image:
    """Return a photograph of a person, 512 x 600 px, RGB."""
    return Image.open(io.BytesIO(sample_photograph())).convert("RGB")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image in one of PIL's formats."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width_px: int, height_px: int) -> bytes:
    """Return a PNG of a few kilobytes that would decode to an image of the given size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 10_000)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def views() -> list[Case]:
    """Return crops of the photograph with the person at different positions, so that mixed-up answers show."""
    picture = photograph()
    crops = [picture.crop((left, top, 512, 600)) for left, top in ((0, 0), (30, 0), (0, 40), (40, 20))]
    return [Case(f"view {index}", encode(crop, "JPEG", quality=90)) for index, crop in enumerate(crops)]


def frames() -> list[Case]:
    """Return such crops as smaller raw frames."""
    picture = photograph()
    crops = [picture.crop((left, 0, 512, 600)).resize((384 - left, 450)) for left in (0, 20, 40)]
    return [Case(f"frame {index}", np.array(crop)) for index, crop in enumerate(crops)]


def small_images() -> list[Case]:
    """Return every kind of file that the preprocessing converts, each with a different picture."""
    picture = photograph().resize(SMALL_PX)
    turned = [Image.fromarray(np.roll(np.asarray(picture), 9 * shift, axis=1)) for shift in range(10)]
    grey = np.asarray(turned[6].convert("L"))
    return [
        Case("JPEG", encode(turned[0], "JPEG", quality=90)),
        Case("progressive JPEG", encode(turned[1], "JPEG", progressive=True)),
        Case("CMYK JPEG", encode(turned[2].convert("CMYK"), "JPEG")),
        Case("grey JPEG", encode(turned[3].convert("L"), "JPEG")),
        Case("PNG", encode(turned[4], "PNG")),
        Case("RGBA PNG", encode(turned[5].convert("RGBA"), "PNG")),
        Case("16-bit PNG", encode(Image.fromarray(grey.astype(np.uint16) * 256), "PNG")),
        Case("palette PNG", encode(turned[7].quantize(64), "PNG")),
        Case("WebP", encode(turned[8], "WEBP")),
        Case("BMP", encode(turned[9], "BMP")),
    ]


def refused_images() -> list[Case]:
    """Return inputs that are not images, are damaged, or exceed the limits."""
    picture = photograph().resize(SMALL_PX)
    jpeg, png = encode(picture, "JPEG"), encode(picture, "PNG")
    animation = encode(picture, "GIF", save_all=True, append_images=[picture.rotate(90)])
    return [
        Case("empty", b"", "got 0 bytes"),
        Case("text", b"this is no image", "got 16 bytes that begin with b'this is no i'"),
        Case("truncated JPEG", jpeg[: len(jpeg) // 2], "the image is damaged"),
        Case("truncated PNG", png[: len(png) // 2], "the image is damaged"),
        Case("one pixel", encode(Image.new("RGB", (1, 1)), "PNG"), "got 1 x 1 px, expected sides of 8 px or more"),
        Case("animation", animation, "got an animation or a file of"),
        Case("bomb", bomb(50_000, 50_000), "got 50000 x 50000 px, expected at most 50000000 pixels"),
        Case("floating point", encode(Image.new("F", (64, 64)), "TIFF"), "got floating-point pixels"),
    ]


def refused_frames() -> list[Case]:
    """Return frames that exceed the server's limits, but that a client sends."""
    thin, tiny = np.zeros((4, 200, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)
    return [
        Case("thin frame", thin, "got 200 x 4 px, expected sides of 8 px or more"),
        Case("tiny frame", tiny, "got 1 x 1 px, expected sides of 8 px or more"),
    ]
