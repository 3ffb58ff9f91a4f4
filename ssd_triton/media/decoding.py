"""Decodes images to the same pixels as a server, within the server's limits. Needs Pillow."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image, features

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import ImageError
from ssd_triton.media.images import (
    HEAD_BYTES,
    LOCAL_FORMATS,
    MAX_FILE_BYTES,
    exif_orientation,
    image_format,
    refuse_foreign,
)
from ssd_triton.media.untrusted import (
    FORMATS,
    MAX_READINGS,
    RefusedInputError,
    check_request_work,
    check_size,
    open_untrusted,
    printable,
    to_rgb,
)

MIN_SIDE_PX = 8
MAX_PIXELS = 50_000_000
MAX_WORK_PX = 100_000_000
"""Limits for one image, the same as in ``model_repository/ssd_preprocess/config.pbtxt``."""
_PLUGINS = {"AVIF": ("AVIF", "avif"), "JPEG 2000": ("JPEG2000", "jpg_2000")}
"""Pillow's names of a format and of its decoder."""
_HOW_TO_DECODE = {
    "AVIF": "Pillow 11.3 or later; run: pip install -U 'pillow>=11.3'",
    "JPEG 2000": "Pillow with OpenJPEG; run: pip install -U --only-binary :all: pillow",
    "HEIC": "pillow-heif; run: pip install 'ssd-triton[heif]'",
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition by EXIF orientation (CIPA DC-008)."""


def decode_rgb(encoded: bytes, name: str = "image") -> UInt8Array:
    """Decode an image; see :func:`open_rgb`.

    Returns:
        UINT8 [H, W, 3] RGB; it may be read-only.
    """
    return np.asarray(open_rgb(encoded, name))


def open_rgb(encoded: bytes, name: str = "image") -> Image.Image:
    """Decode all pixels of an image, as a server sees them.

    EXIF orientation is not applied, as in the evaluation protocol. The orientation that HEIC and AVIF store outside
    EXIF is applied.

    Args:
        encoded: Content of an image file.
        name: The file's name, for messages.

    Raises:
        ImageError: It is not an image, exceeds the limits, is damaged, or no installed package decodes its format.
    """
    with _errors_named(name):
        return _open(encoded, name)


def image_size_px(encoded: bytes, name: str = "image") -> tuple[int, int]:
    """Return width and height of the image that :func:`open_rgb` returns, from the header alone where that suffices.

    Raises:
        ImageError: See :func:`open_rgb`.
    """
    with _errors_named(name):
        if image_format(encoded[:HEAD_BYTES]) in LOCAL_FORMATS:
            return _open(encoded, name).size
        return _open_served(encoded, name)[0].size


def as_png(encoded: bytes, name: str) -> bytes:
    """Decode an image and encode it as PNG, without loss.

    Raises:
        ImageError: See :func:`open_rgb`.
    """
    file = io.BytesIO()
    open_rgb(encoded, name).save(file, "PNG", compress_level=1)
    return file.getvalue()


@contextlib.contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Convert exceptions of decoders to an :class:`ImageError` with the file's name."""
    try:
        yield
    except RefusedInputError as error:
        raise ImageError(f"{name}: {error}; replace it") from error
    except (ImageError, MemoryError):
        raise
    # On damaged files decoders raise almost anything: OSError, SyntaxError, struct.error, zlib.error, ...
    except Exception as error:
        why = f"got an image that is damaged or of an unsupported kind ({printable(error)}), expected a whole one"
        raise ImageError(f"{name}: {why}; replace it") from error


def _open(encoded: bytes, name: str) -> Image.Image:
    kind = image_format(encoded[:HEAD_BYTES])
    if kind == "HEIC":
        return _open_heic(encoded, name)
    if kind not in _PLUGINS:
        image, work_px = _open_served(encoded, name)
        check_request_work(work_px, MAX_WORK_PX)
        image.load()
        return to_rgb(image)
    plugin, decoder = _PLUGINS[kind]
    if not features.check(decoder):
        raise _no_decoder(name, kind)
    if kind == "AVIF":
        _check_exif(encoded)
    image, _ = _open_within_limits(encoded, (plugin,))
    image.load()
    turn = _UPRIGHT.get(exif_orientation(b"Exif\0\0" + image.info.get("exif", b"")))
    return to_rgb(image if kind != "AVIF" or turn is None else image.transpose(turn))


def _open_served(encoded: bytes, name: str) -> tuple[Image.Image, int]:
    """Open an image of a format that a server decodes; return it with its decoding work in pixels."""
    refuse_foreign(encoded, name)
    return _open_within_limits(encoded, FORMATS)


def _open_within_limits(encoded: bytes, formats: tuple[str, ...]) -> tuple[Image.Image, int]:
    return open_untrusted(
        encoded, max_file_bytes=MAX_FILE_BYTES, min_side_px=MIN_SIDE_PX, max_pixels=MAX_PIXELS, formats=formats
    )


def _open_heic(encoded: bytes, name: str) -> Image.Image:
    try:
        import pillow_heif
    except ImportError:
        raise _no_decoder(name, "HEIC") from None
    file = pillow_heif.open_heif(encoded)
    image = file[file.primary_index]
    check_size(*image.size, min_side_px=MIN_SIDE_PX, max_pixels=MAX_PIXELS)
    # Through an array, since the library's own conversion to Pillow parses EXIF.
    return to_rgb(Image.fromarray(np.asarray(image)))


def _check_exif(encoded: bytes) -> None:
    """Refuse an AVIF with overlapping EXIF entries, all of which Pillow would read when it opens the file."""
    for found in re.finditer(rb"II\*\0|MM\0\*", encoded):
        order = "<" if found[0].startswith(b"I") else ">"
        try:
            (start,) = struct.unpack_from(f"{order}I", encoded, found.end())
            (count,) = struct.unpack_from(f"{order}H", encoded, found.start() + start)
            begin = found.start() + start + 2
            values = sum(struct.unpack_from(f"{order}4xI", encoded, begin + 12 * index)[0] for index in range(count))
        except struct.error:
            continue
        if values > MAX_READINGS * len(encoded):
            raise RefusedInputError("got EXIF whose parts overlap many times, expected an ordinary image")


def _no_decoder(name: str, kind: str) -> ImageError:
    return ImageError(f"{name}: got {kind}, expected {_HOW_TO_DECODE[kind]}; or convert it to JPEG or PNG")
