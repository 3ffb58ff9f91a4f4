"""The corpus of the fuzzer: small images of every format and kind, most of them made by Pillow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from ssd_triton.common.arrays import AnyArray
from ssd_triton.measuring.request_cases import encode

_WIDTH_PX, _HEIGHT_PX = 40, 28


def make_corpus() -> dict[str, bytes]:
    """Encode one small picture in many ways; the name of each file begins with its format, as in ``PNG grey``."""
    return dict(_files(_picture_rgb()))


def _picture_rgb() -> AnyArray:
    """Return gradients with a little noise, so that the picture compresses, but not to nothing."""
    rows, columns = np.mgrid[0:_HEIGHT_PX, 0:_WIDTH_PX]
    slopes = np.stack([columns * 6, rows * 9, (rows + columns) * 3], axis=-1)
    noise = np.random.default_rng(0).integers(0, 20, slopes.shape)
    picture: AnyArray = (slopes + noise).clip(0, 255).astype(np.uint8)
    return picture


def _files(picture_rgb: AnyArray) -> Iterator[tuple[str, bytes]]:
    rgb = Image.fromarray(picture_rgb)
    yield from _jpeg(rgb)
    yield from _png(rgb)
    yield from _tiff(rgb)
    yield "BMP RGB", encode(rgb, "BMP")
    yield "BMP palette", encode(rgb.quantize(64), "BMP")
    yield "BMP one bit", encode(rgb.convert("1"), "BMP")
    yield "BMP RGBA", encode(rgb.convert("RGBA"), "BMP")
    yield "BMP run-length", _run_length_bmp()
    yield "GIF", encode(rgb.quantize(32), "GIF")
    yield "GIF interlaced", encode(rgb.quantize(200), "GIF", interlace=1, comment=b"a comment", transparency=3)
    yield "GIF animation", encode(rgb.quantize(8), "GIF", save_all=True, append_images=[rgb.quantize(9)])
    yield "WEBP", encode(rgb, "WEBP", quality=60)
    yield "WEBP lossless", encode(rgb, "WEBP", lossless=True)
    yield "WEBP alpha", encode(rgb.convert("RGBA"), "WEBP", exif=_exif())
    yield "WEBP animation", encode(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)])
    for mode, kind in (("1", "PBM"), ("L", "PGM"), ("RGB", "PPM"), ("I;16", "PGM 16 bit"), ("F", "PFM")):
        image = Image.fromarray(np.full((8, 8), 70000 // 2, np.uint16)) if mode == "I;16" else rgb.convert(mode)
        yield f"PPM {kind}", encode(image, "PPM")
    small = " ".join(str(value) for value in picture_rgb[:10, :12].flatten())
    yield "PPM plain", f"P3\n# a comment\n12 10\n255\n{small}\n".encode()
    yield "PPM odd depth", b"P6 12 10 100\n" + (picture_rgb[:10, :12] // 3).tobytes()


def _jpeg(rgb: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "JPEG", encode(rgb, "JPEG")
    yield "JPEG progressive", encode(rgb, "JPEG", progressive=True, quality=40)
    yield "JPEG grey", encode(rgb.convert("L"), "JPEG")
    yield "JPEG CMYK", encode(rgb.convert("CMYK"), "JPEG")
    yield "JPEG restarts", encode(rgb, "JPEG", restart_marker_blocks=2, subsampling=0)
    yield "JPEG with EXIF", encode(rgb, "JPEG", exif=_exif(), icc_profile=bytes(200), comment=b"a comment")
    yield "JPEG of two pictures", encode(rgb, "MPO", save_all=True, append_images=[rgb])


def _png(rgb: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "PNG", encode(rgb, "PNG")
    yield "PNG grey", encode(rgb.convert("L"), "PNG")
    yield "PNG grey and alpha", encode(rgb.convert("LA"), "PNG")
    yield "PNG one bit", encode(rgb.convert("1"), "PNG")
    yield "PNG 16 bit", encode(Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257), "PNG")
    yield "PNG palette", encode(rgb.quantize(100), "PNG", transparency=5)
    yield "PNG with chunks", encode(rgb.convert("RGBA"), "PNG", exif=_exif(), icc_profile=bytes(200), dpi=(72, 72))
    yield "PNG animation", encode(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)])


def _tiff(rgb: Image.Image) -> Iterator[tuple[str, bytes]]:
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"TIFF {compression}", encode(rgb, "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"TIFF {compression}", encode(rgb.convert("1"), "TIFF", compression=compression)
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "F"):
        image = Image.fromarray(np.full((20, 20), 300, np.uint16)) if mode == "I;16" else _converted(rgb, mode)
        yield f"TIFF {mode}", encode(image, "TIFF")
    yield "TIFF big", encode(rgb, "TIFF", big_tiff=True)
    yield "TIFF strips", encode(rgb, "TIFF", compression="tiff_lzw", strip_size=300)
    yield "TIFF of two pictures", encode(rgb, "TIFF", save_all=True, append_images=[rgb])


def _converted(rgb: Image.Image, mode: str) -> Image.Image:
    return Image.frombytes("LAB", rgb.size, rgb.tobytes()) if mode == "LAB" else rgb.convert(mode)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010F] = "a camera"
    return exif


def _run_length_bmp() -> bytes:
    """Return a run-length coded BMP of 8 x 8 px, which Pillow reads but cannot write.

    It has runs, literal pixels, an end of line and an end of file.
    """
    rows = b"\x08\x05\x00\x00" * 4 + b"\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00" * 4 + b"\x00\x01"
    plain = bytearray(encode(Image.new("L", (8, 8)), "BMP"))
    begin = int.from_bytes(plain[10:14], "little")
    plain[30:34] = (1).to_bytes(4, "little")  # RLE8
    plain[34:38] = len(rows).to_bytes(4, "little")
    return bytes(plain[:begin]) + rows
