"""Opening images of strangers: one that would take too long or too much memory is refused before it is decoded.

PIL parses everything around the pixels in Python, piece by piece, while it holds Python's lock: a file of a few
megabytes in millions of pieces would block the whole model for minutes. Needs Pillow, and nothing of this project.
"""

import io

from PIL import Image, JpegImagePlugin, TiffImagePlugin

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Decoders that an image may reach: the fewer, the less there is to attack."""
JPEG_MAGIC = b"\xff\xd8\xff"
MAX_READS = 100_000
"""Pieces that PIL may read of a file, each some 5 µs of Python; a PNG of 64 MiB in chunks of 8 KiB has 33,000."""
MAX_HEADER_BYTES = 8 << 20
"""Bytes before the pixels; colour profiles have up to 3 MB."""
MAX_READINGS = 4
"""Times that PIL may read every byte of a file, on average: all tags of a TIFF could be the same large part of it."""
MAX_STRIPS = 65_536
"""Strips or tiles of a TIFF, each some 20 µs of Python; of one row each they make a tall image."""
MAX_PYTHON_PIXELS = 100_000
"""Pixels of an image whose decoder PIL has in Python: plain PPM, PPM of odd depths, run-length coded BMP."""
BIG_TIFF = 43
STRIP_TAGS = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)


class RefusedInputError(ValueError):
    """An element that cannot be turned into an image."""


def open_untrusted(data, *, max_file_bytes, min_side_px, max_pixels):
    """Open one encoded image whose pixels are still to be decoded.

    Args:
        data: The file.
        max_file_bytes: Bytes it may have.
        min_side_px: Pixels that each side must have.
        max_pixels: Pixels it may have.

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
        _check_strips(file)
    try:
        image = _Jpeg(file) if data[:3] == JPEG_MAGIC else Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise RefusedInputError(
            f"got {len(data)} bytes that begin with {bytes(data[:12])!r}, expected one of {', '.join(FORMATS)}"
        ) from None
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
    return image


def check_size(width, height, *, min_side_px, max_pixels):
    """Refuse an image by its size in pixels."""
    if min(width, height) < min_side_px:
        raise RefusedInputError(f"got {width} x {height} px, expected sides of {min_side_px} px or more")
    if width * height > max_pixels:
        raise RefusedInputError(f"got {width} x {height} px, expected at most {max_pixels} pixels")


def _check_strips(file):
    """Refuse a TIFF whose first image has too many parts, and leave the file at its beginning."""
    header = file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header + (file.read(8) if header[2] == BIG_TIFF else b""))
    file.seek(directory.next)
    directory.load(file)
    strips = max(len(directory.get(tag, ())) for tag in STRIP_TAGS)
    if strips > MAX_STRIPS:
        raise RefusedInputError(f"got a TIFF in {strips} strips or tiles, expected at most {MAX_STRIPS}")
    file.seek(0)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF is not read; of several pictures (MPO) the first one.

    PIL would look there for a resolution: EXIF of half a megabyte whose tags are all the same part of it makes that
    take gigabytes.
    """

    def getexif(self):
        return Image.Exif()


class _BoundedFile(io.BytesIO):
    """A file of which PIL may read a limited number of pieces, of bytes, and of bytes until the image is open."""

    def __init__(self, data):
        super().__init__(data)
        self.is_open = False
        self.reads = 0
        self.bytes_read = 0
        self.max_bytes = MAX_READINGS * len(data) + MAX_HEADER_BYTES

    def read(self, size=-1):
        self.reads += 1
        if self.reads > MAX_READS:
            raise RefusedInputError(f"got a file of more than {MAX_READS} pieces, expected an ordinary image")
        piece = super().read(size)
        self.bytes_read += len(piece)
        # The WebP decoder takes the whole file at once, and asks for no size.
        if not self.is_open and size is not None and size >= 0 and self.bytes_read > MAX_HEADER_BYTES:
            raise RefusedInputError(f"got a header of more than {MAX_HEADER_BYTES} bytes, expected an ordinary image")
        if self.bytes_read > self.max_bytes:
            raise RefusedInputError("got a file whose parts overlap many times, expected an ordinary image")
        return piece
