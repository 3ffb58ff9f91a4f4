"""Image files: recognises formats, lists folders, and reads files in a form that a server takes.

The content of a file decides its format, not its name. For pixels see :mod:`ssd_triton.media.decoding`.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import re
import stat
import struct
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.errors import ImageError, listing
from ssd_triton.common.files import printable_address, printable_name, relative_to_cwd

MAX_FILE_BYTES = 64 << 20
"""Largest size of an image file, the same as in ``model_repository/ssd_preprocess/config.pbtxt``."""
SERVED_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WebP", "PPM")
"""Formats that a server decodes."""
LOCAL_FORMATS = ("AVIF", "HEIC", "JPEG 2000")
"""Formats that only the client decodes; a server gets such images as PNG."""
EXPECTED = ", ".join((*SERVED_FORMATS, *LOCAL_FORMATS))
"""All formats, for messages."""
FETCH_S = 60.0
"""Time limit for fetching an image over a network."""
_ANSWER_S = 10.0
"""Longest wait for the next bytes of an answer."""
HEAD_BYTES = 64
"""Bytes at the beginning of a file that suffice to recognise its format."""
_MAGIC = (
    (rb"\xff\xd8\xff", "JPEG"),  # JFIF and MPO too
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    # The size of the second header distinguishes a bitmap from text that begins with BM.
    (rb"BM.{4}.{8}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"RIFF.{4}WEBP", "WebP"),
    (rb"P[1-6]\s+[0-9#]", "PPM"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb".{4}ftyp(avif|avis|(mif1|msf1).{4}(.{4})*?avif)", "AVIF"),
    (rb".{4}ftyp(he[iv][cmsx]|mif1|msf1)", "HEIC"),
)
"""First bytes of image files, from the specifications of the formats; the first match counts."""
_FOREIGN = (
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (rb"8BPS", "Photoshop"),
    (rb"\x00\x00\x01\x00[^\x00]\x00", "Windows icon"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"#\?RADIANCE", "Radiance HDR"),
    (rb"\s*<svg|\s*<\?xml", "SVG or other XML"),
    (rb"%PDF", "PDF"),
)
"""Formats that people take for images, but that nothing here reads."""
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""First bytes of the AppleDouble file (RFC 1740) that macOS writes beside a file on a foreign file system."""
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k"),
)
_EXIF = re.compile(rb"(?:Exif\0\0|eXIf|EXIF.{4})(?=II\*\0|MM\0\*)", re.DOTALL)
"""Marker in front of EXIF in a JPEG, a PNG and a WebP."""
_ORIENTATION_TAG = 0x0112
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder.

    Attributes:
        folder: The folder.
        paths: Its images in natural order: 1, 2, 10.
        skipped: Name and reason for every other entry that could be taken for an image.
    """

    folder: Path
    paths: tuple[Path, ...]
    skipped: tuple[str, ...]

    def warn_of_skipped(self) -> None:
        """Log one line that counts and names what was skipped, if anything was."""
        if self.skipped:
            count = f"{len(self.skipped)} of {len(self.skipped) + len(self.paths)} entries"
            _log.warning(
                "warning: %s: %s are no images and were skipped: %s",
                relative_to_cwd(self.folder),
                count,
                listing(self.skipped),
            )

    def nothing_found(self) -> str:
        """Return what was found and expected, for the refusal of a folder without images."""
        skipped = f" but {listing(self.skipped)}" if self.skipped else ""
        return f"{relative_to_cwd(self.folder)}: got no image{skipped}, expected {EXPECTED}"


def image_format(head: bytes) -> str | None:
    """Return the format of an image by its first 64 bytes: one of SERVED_FORMATS or LOCAL_FORMATS, or None."""
    return _match(_MAGIC, head)


def is_image(path: Path) -> bool:
    """Whether a file is an image by its content.

    A file with an image's suffix and unknown content counts as a damaged image.
    """
    return path.is_file() and _reason_to_skip(path) is None


def natural_key(name: str) -> tuple[object, ...]:
    """Return a sort key that puts 2 before 10."""
    return (*(int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)), name)


def list_images(folder: Path, *, recursive: bool = False) -> ImageFolder:
    """Find the images of a folder by their content; none if the folder is missing.

    Hidden files are ignored. A file with an image's suffix and unknown content is listed as well: it counts as a
    damaged image, and keeps its place in a series.

    Args:
        folder: The folder.
        recursive: Whether to look into subfolders too, except hidden ones and links to folders.
    """
    paths: list[Path] = []
    skipped: list[str] = []
    for path in _tree(folder) if recursive else _entries(folder):
        reason = _reason_to_skip(path)
        if reason is None:
            paths.append(path)
        elif reason:
            skipped.append(f"{printable_name(str(path.relative_to(folder)))} ({reason})")
    return ImageFolder(folder, tuple(paths), tuple(skipped))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"), key=lambda path: natural_key(path.name))


def _tree(folder: Path) -> Iterator[Path]:
    """Yield all entries in and below a folder, in natural order."""
    for path in _entries(folder):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from _tree(path)
        else:
            yield path


def read_image(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        ImageError: It cannot be read or is too large.
    """
    try:
        # Non-blocking, since opening a pipe would otherwise wait for a writer for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = "got something other than a file, expected an image; give another"
                raise ImageError(f"{relative_to_cwd(path)}: {kind}")
            if status.st_size > MAX_FILE_BYTES:
                size = f"got {status.st_size} bytes, expected an image of at most {MAX_FILE_BYTES}; make it smaller"
                raise ImageError(f"{relative_to_cwd(path)}: {size}")
            return file.read(status.st_size)
    except OSError as error:
        raise ImageError(_unreadable(relative_to_cwd(path), error)) from error


def read_served(path: Path) -> bytes:
    """Return the content of an image file in a form that a server takes; see :func:`as_served`.

    Raises:
        ImageError: It cannot be read, is too large, or is of a format that no installed package decodes.
    """
    name, encoded = relative_to_cwd(path), read_image(path)
    refuse_foreign(encoded, name)
    return as_served(encoded, name)


def fetch(address: str, limit_bytes: int) -> bytes:
    """Fetch the content at an http(s) address, up to a limit, within :data:`FETCH_S`.

    Raises:
        ImageError: Nothing answers there, or the answer is an error or takes too long.
    """
    name, content, deadline_s = printable_address(address), b"", time.monotonic() + FETCH_S
    try:
        with urllib.request.urlopen(address, timeout=_ANSWER_S) as answer:  # noqa: S310
            while len(content) < limit_bytes and (part := answer.read1(limit_bytes - len(content))):
                content += part
                if time.monotonic() > deadline_s:
                    raise ImageError(f"{name}: got {len(content)} bytes in {FETCH_S:.0f} s, expected all; download it")
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = printable_name(str(error) or type(error).__name__)
        raise ImageError(f"{name}: got no answer ({why}), expected an image; check the address") from error
    return content


def is_web_address(text: str) -> bool:
    """Whether a text is an http or https address."""
    return re.match(r"https?://", text, re.IGNORECASE) is not None


def read_web(address: str) -> bytes:
    """Fetch the image at an http(s) address in a form that a server takes; see :func:`as_served`.

    Raises:
        ImageError: It cannot be fetched, is too large, or is not an image.
    """
    name, encoded = printable_address(address), fetch(address, MAX_FILE_BYTES + 1)
    if len(encoded) > MAX_FILE_BYTES:
        raise ImageError(f"{name}: got more than {MAX_FILE_BYTES} bytes, expected an image; make it smaller")
    refuse_foreign(encoded, name)
    return as_served(encoded, name)


def refuse_foreign(encoded: bytes, name: str) -> None:
    """Refuse formats that people take for images but that nothing here reads, such as JPEG XL.

    Raises:
        ImageError: The content is of one of these formats.
    """
    foreign = _match(_FOREIGN, encoded[:HEAD_BYTES])
    if foreign:
        raise ImageError(f"{name}: got {foreign}, expected one of {EXPECTED}; convert it")


def as_served(encoded: bytes, name: str) -> bytes:
    """Return an image in a form that a server takes: unchanged, or as PNG if only the client decodes its format.

    Raises:
        ImageError: No installed package decodes its format, or it is damaged.
    """
    if image_format(encoded[:HEAD_BYTES]) in LOCAL_FORMATS:
        from ssd_triton.media.decoding import as_png

        return as_png(encoded, name)
    return encoded


def exif_orientation(encoded: bytes) -> int:
    """Return the orientation in an image's EXIF, 1 to 8; 1 (upright) without EXIF. The rest of EXIF is not parsed."""
    found = _EXIF.search(encoded)
    if found is None:
        return 1
    exif = encoded[found.end() : found.end() + (64 << 10)]
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}4xI", exif)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH", exif, place)
            if (tag, kind, values) == (_ORIENTATION_TAG, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _reason_to_skip(path: Path) -> str | None:
    """Return why an entry of a folder is not an image: empty if it does not look like one, None for an image."""
    if path.is_dir():
        return "a folder" if path.suffix.lower() in _SUFFIXES else ""
    if not path.exists():
        return "a link to nothing"
    if not path.is_file():
        return "not a file"
    if path.name.startswith("."):
        return "hidden, macOS's metadata" if path.name.startswith("._") else "hidden"
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        head, reason = b"", error.strerror or "cannot be read"
    else:
        reason = "empty" if not head else _match(_FOREIGN, head) or "not an image"
    if head.startswith(_APPLE_DOUBLE):
        return "macOS's metadata"
    return None if image_format(head) or path.suffix.lower() in _SUFFIXES else reason


def _match(table: tuple[tuple[bytes, str], ...], head: bytes) -> str | None:
    return next((name for magic, name in table if re.match(magic, head, re.DOTALL)), None)


def _unreadable(name: str, error: OSError) -> str:
    if error.errno == errno.EISDIR:
        return f"{name}: got a folder, expected an image; give a file"
    if error.errno == errno.ENOENT:
        return f"{name}: got no such file, expected an image; check the name"
    return f"{name}: got a file that cannot be read ({error.strerror}), expected an image; check its permissions"
