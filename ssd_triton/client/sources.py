"""Inputs of ``detect``: images, folders, patterns, standard input, videos, addresses and cameras."""

from __future__ import annotations

import contextlib
import glob
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ssd_triton.common.errors import ImageError, UserError
from ssd_triton.common.files import printable_address, printable_name, relative_to_cwd
from ssd_triton.media import images

STANDARD_INPUT = "-"
_NEXT = "give images, folders, patterns in quotes, videos, addresses (http, https, rtsp), a camera's index, or -"


@dataclass(frozen=True)
class ImageSource:
    """An image.

    Attributes:
        file: Its path, its address, or ``-`` for standard input.
        stem: Unique name, without suffix, for the files written about this image. It may begin with folders.
    """

    file: str
    stem: str

    @property
    def name(self) -> str:
        """Name for messages."""
        if self.file == STANDARD_INPUT:
            return "standard input"
        return printable_address(self.file) if images.is_web_address(self.file) else relative_to_cwd(Path(self.file))

    def read(self) -> bytes:
        """Return its content in a form that a server takes.

        Raises:
            ImageError: See :func:`ssd_triton.media.images.read_served`.
        """
        if self.file == STANDARD_INPUT:
            return _read_stdin()
        return images.read_web(self.file) if images.is_web_address(self.file) else images.read_served(Path(self.file))


@dataclass(frozen=True)
class VideoSpec:
    """A video, a stream or a camera.

    Attributes:
        spec: Argument of :func:`ssd_triton.media.video.open_source`.
        file: Its path, its address without a password, or ``camera N``.
        stem: As in :class:`ImageSource`.
    """

    spec: str
    file: str
    stem: str

    @property
    def name(self) -> str:
        """Name for messages."""
        return relative_to_cwd(Path(self.file)) if Path(self.spec).is_absolute() else self.file


Source = ImageSource | VideoSpec


def find_sources(inputs: Sequence[str], *, recursive: bool = False) -> list[Source]:
    """Find the inputs of a command line, in its order; the images of a folder come in natural order.

    The content of a file decides whether it is an image or a video. Other files in a folder are counted in a warning.

    Args:
        inputs: Paths of files and folders, glob patterns (``**`` for any folders), addresses, ``-`` for an image on
            standard input, and indices of cameras (``./0`` is a file of that name).
        recursive: Whether to look into the subfolders of folders.

    Raises:
        UserError: An input does not exist, or a folder holds no images.
    """
    taken: set[str] = set()
    found: list[Source] = []
    for given in inputs:
        try:
            found += _sources(given, recursive, taken)
        except OSError as error:  # a name that is too long, or a folder without permission
            raise UserError(f"{printable_name(given)}: cannot be read ({error.strerror}); {_NEXT}") from error
    return found


def _sources(given: str, recursive: bool, taken: set[str]) -> Iterator[Source]:
    if given == STANDARD_INPUT:
        yield ImageSource(given, _unused("stdin", taken))
    elif "://" in given:
        stem = _unused(Path(urlsplit(given).path).stem or "stream", taken)
        is_image = _serves_image(given)
        yield ImageSource(given, stem) if is_image else VideoSpec(given, printable_address(given), stem)
    elif given.isdecimal() and not Path(given).exists():
        yield VideoSpec(given, f"camera {int(given)}", _unused(f"camera_{given}", taken))
    elif Path(given).exists() or not glob.has_magic(given):
        yield from _in_path(Path(given), recursive, taken)
    else:
        yield from _matches(given, recursive, taken)


def _matches(pattern: str, recursive: bool, taken: set[str]) -> Iterator[Source]:
    """Find the files and folders of a pattern as a shell does, without the folders that ``**`` itself matches."""
    found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 -- Path.glob: relative ones only
    if "**" in pattern:
        # A link to a parent folder leads to the same files again: the shortest path is kept.
        longest_first = sorted(found, key=lambda path: -len(path.parts))
        found = list({path.resolve(): path for path in longest_first if not path.is_dir()}.values())
    found.sort(key=lambda path: images.natural_key(str(path)))
    if not found:
        raise UserError(f"{printable_name(pattern)}: got a pattern that matches nothing; {_NEXT}")
    for path in found:
        yield from _in_path(path, recursive, taken)


def _in_path(path: Path, recursive: bool, taken: set[str]) -> Iterator[Source]:
    if path.is_dir():
        found = images.list_images(path, recursive=recursive)
        if not found.paths:
            raise UserError(f"{found.nothing_found()}; give another folder{'' if recursive else ', or --recursive'}")
        found.warn_of_skipped()
        for one in found.paths:
            yield ImageSource(str(one), _unused(str(one.relative_to(path).with_suffix("")), taken))
    elif not path.is_file():
        raise UserError(f"not found: {relative_to_cwd(path)}; {_NEXT}")
    elif _is_video(path):
        # An absolute path, so that a file called 0 is not taken for a camera.
        yield VideoSpec(str(path.absolute()), str(path), _unused(path.stem, taken))
    else:
        yield ImageSource(str(path), _unused(path.stem, taken))


def _serves_image(address: str) -> bool:
    """Whether the content at an address is an image; an address that does not answer is refused later, as a video."""
    with contextlib.suppress(ImageError):
        return (
            images.is_web_address(address) and images.image_format(images.fetch(address, images.HEAD_BYTES)) is not None
        )
    return False


def _is_video(path: Path) -> bool:
    """Whether a file is taken for a video: not an image, nor a kind that people take for one and that is refused."""
    try:
        with path.open("rb") as file:
            head = file.read(images.HEAD_BYTES)
        images.refuse_foreign(head, path.name)
    except (OSError, ImageError):
        return False
    return images.image_format(head) is None and not images.is_image(path)


def _unused(stem: str, taken: set[str]) -> str:
    """Return a stem that no other source has, even on a file system that ignores case."""
    numbers = itertools.chain([""], map(".{}".format, itertools.count(2)))
    name = next(name for number in numbers if (name := f"{stem}{number}").casefold() not in taken)
    taken.add(name.casefold())
    return name


def _read_stdin() -> bytes:
    if sys.stdin.isatty():
        raise ImageError("standard input: got a terminal, expected an image; run: ssd-triton detect - < photo.jpg")
    encoded = sys.stdin.buffer.read(images.MAX_FILE_BYTES + 1)
    if not 0 < len(encoded) <= images.MAX_FILE_BYTES:
        size = f"more than {images.MAX_FILE_BYTES}" if encoded else "0"
        raise ImageError(f"standard input: got {size} bytes, expected an image; give another")
    images.refuse_foreign(encoded, "standard input")
    return images.as_served(encoded, "standard input")
